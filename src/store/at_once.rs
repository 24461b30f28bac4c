//! Several questions to the store at the same time, so that the latency of one hides behind that of another. With
//! one connection they are asked in order on the thread that asks: then a run can be repeated call by call.

use std::{
    panic::resume_unwind,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::Store;
use crate::error::{Error, Result};

/// Does something with each item, on so many threads; the answers are in the order of the items. The first failure ends
/// it: a store that does not answer is not asked once more for each item. With one thread it happens in order.
///
/// # Errors
/// The first that `work` gave.
pub fn on_each<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None::<Error>));
    let run = || {
        let mut answers = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return answers };
            match work(item) {
                Ok(answer) => answers.push((at, answer)),
                Err(error) => {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    // The others find nothing more to do.
                    next.store(items.len(), Ordering::Relaxed);
                }
            }
        }
    };
    let mut answers: Vec<(usize, R)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<_>>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect()
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    answers.sort_by_key(|(at, _)| *at);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

impl Store {
    /// Asks two things at once; with one connection `first` is asked first.
    pub fn both<A: Send, B>(&self, first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
        if self.connections() <= 1 {
            return (first(), second());
        }
        thread::scope(|scope| {
            let first = scope.spawn(first);
            let second = second();
            (first.join().unwrap_or_else(|panic| resume_unwind(panic)), second)
        })
    }

    /// Asks something about each item, as many at a time as there are connections: see [`on_each`].
    ///
    /// # Errors
    /// The first that `ask` gave.
    pub fn each<T: Sync, R: Send>(
        &self,
        items: &[T],
        ask: impl Fn(&T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        on_each(items, self.connections(), ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn work_ends_with_the_first_failure_and_is_done_in_order_by_one() {
        for workers in [1, 3] {
            let done = Mutex::new(Vec::new());
            let items: Vec<i32> = (0..100).collect();
            let all = on_each(&items, workers, |n| {
                if *n == 50 {
                    return Err(Error::new(ErrorKind::Temporary, "no"));
                }
                done.lock().unwrap().push(*n);
                Ok(())
            });
            assert_eq!(all.unwrap_err().kind(), ErrorKind::Temporary);
            let done = done.into_inner().unwrap();
            assert!(done.len() < 100 && (workers > 1 || done == (0..50).collect::<Vec<_>>()));
        }
    }
}
