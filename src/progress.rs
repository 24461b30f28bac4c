//! What an operation has done so far, and whether it is to stop. Operations add to it; whoever shows it
//! looks when it likes. One is shared by everything that works on a repository.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

use crate::error::{Error, ErrorKind, Result};

/// What an operation is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not begun.
    #[default]
    Starting = 0,
    /// Reading keys, the registry and the index.
    Opening = 1,
    /// Reading sources and storing what is new.
    Storing = 2,
    /// Making sure that everything is there, and writing the snapshot.
    Committing = 3,
    /// Writing files.
    Restoring = 4,
    /// Comparing or checking.
    Checking = 5,
}

impl Phase {
    const ALL: [Self; 6] =
        [Self::Starting, Self::Opening, Self::Storing, Self::Committing, Self::Restoring, Self::Checking];

    /// Its name for people and scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Opening => "opening",
            Self::Storing => "storing",
            Self::Committing => "committing",
            Self::Restoring => "restoring",
            Self::Checking => "checking",
        }
    }
}

/// Counters of one operation, and the request to stop it.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    files: AtomicU64,
    bytes: AtomicU64,
    files_total: AtomicU64,
    bytes_total: AtomicU64,
    troubles: AtomicU64,
    answers: AtomicU64,
    current: Mutex<Vec<u8>>,
    stop: AtomicBool,
}

/// A look at a [`Progress`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What it is busy with.
    pub phase: Phase,
    /// Files that are done.
    pub files: u64,
    /// Bytes that are done.
    pub bytes: u64,
    /// Files in all; 0 when nobody knows.
    pub files_total: u64,
    /// Bytes in all; 0 when nobody knows.
    pub bytes_total: u64,
    /// Entries that could not be read, restored or trusted so far.
    pub troubles: u64,
    /// Answers that came from the storage so far.
    pub answers: u64,
    /// The path that is worked on.
    pub current: Vec<u8>,
}

impl Progress {
    /// A new phase begins; what was counted before stands.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// How much there is to do.
    pub fn expect(&self, files: u64, bytes: u64) {
        self.files_total.store(files, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    /// So much more is done.
    pub fn add(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One more entry is not as it should be.
    pub fn trouble(&self) {
        self.troubles.fetch_add(1, Ordering::Relaxed);
    }

    /// One more call to the storage was answered.
    pub fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// What is worked on now. When somebody looks at this very moment it is left out: it is for the eye.
    pub fn at(&self, path: &[u8]) {
        if let Ok(mut current) = self.current.try_lock() {
            current.clear();
            current.extend_from_slice(path);
        }
    }

    /// Asks the operation to stop as soon as it can do so cleanly.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Whether it was asked to stop.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// # Errors
    /// `Interrupted` once it was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.stopping() {
            Err(Error::new(ErrorKind::Interrupted, "interrupted")
                .with_remedy("Nothing that was stored is lost: run the command again to go on"))
        } else {
            Ok(())
        }
    }

    /// How far it is.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let phase = usize::from(self.phase.load(Ordering::Relaxed));
        Seen {
            phase: Phase::ALL.get(phase).copied().unwrap_or_default(),
            files: number(&self.files),
            bytes: number(&self.bytes),
            files_total: number(&self.files_total),
            bytes_total: number(&self.bytes_total),
            troubles: number(&self.troubles),
            answers: number(&self.answers),
            current: self.current.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_seen_and_a_stop_is_an_interruption() {
        let progress = Progress::default();
        progress.enter(Phase::Storing);
        progress.expect(2, 20);
        progress.add(1, 9);
        progress.at(b"srv/a");
        progress.trouble();
        progress.answered();
        let seen = Seen {
            phase: Phase::Storing,
            files: 1,
            bytes: 9,
            files_total: 2,
            bytes_total: 20,
            troubles: 1,
            answers: 1,
            current: b"srv/a".to_vec(),
        };
        assert_eq!(progress.seen(), seen);
        progress.check().unwrap();
        progress.stop();
        assert_eq!(progress.check().unwrap_err().kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn phases_are_numbered_as_they_are_listed() {
        for (number, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, number);
        }
    }
}
