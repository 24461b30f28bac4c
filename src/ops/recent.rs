//! The frames that were opened last, for workers that ask for one chunk after the other.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::error::Result;

/// The place of a frame in one view of the index.
type Place = (u32, u32);

/// What was opened, with `most` frames at a time: those that nobody has asked for for longest go.
pub(super) struct RecentFrames<T> {
    most: usize,
    open: Mutex<VecDeque<(Place, Arc<T>)>>,
}

impl<T> RecentFrames<T> {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, open: Mutex::new(VecDeque::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Place, Arc<T>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame, which `read` opens if it is not at hand. Others do not wait for that.
    ///
    /// # Errors
    /// As `read`.
    pub(super) fn get(&self, place: Place, read: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        if let Some(known) = self.at_hand(place) {
            return Ok(known);
        }
        let opened = Arc::new(read()?);
        // Another worker may have opened it meanwhile: it has one place here.
        if let Some(known) = self.at_hand(place) {
            return Ok(known);
        }
        let mut open = self.lock();
        if open.len() >= self.most {
            open.pop_front();
        }
        open.push_back((place, Arc::clone(&opened)));
        Ok(opened)
    }

    fn at_hand(&self, place: Place) -> Option<Arc<T>> {
        let mut open = self.lock();
        let number = open.iter().position(|(known, _)| *known == place)?;
        let known = open.remove(number)?;
        let frame = Arc::clone(&known.1);
        open.push_back(known);
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_last_stays() {
        let (recent, reads) = (RecentFrames::new(2), std::cell::Cell::new(0));
        let get = |frame: u32| {
            let read = || {
                reads.set(reads.get() + 1);
                Ok(frame)
            };
            assert_eq!(*recent.get((0, frame), read).unwrap(), frame);
            reads.get()
        };
        assert_eq!([1, 2, 1, 3, 1, 2, 2].map(get), [1, 2, 2, 3, 3, 4, 4]);
        assert!(recent.get((0, 9), || Err(crate::error::Error::damaged("a frame", "bad"))).is_err());
        assert_eq!(get(1), 4);
    }
}
