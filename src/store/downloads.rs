//! Reads that run beside the work.

use std::{
    ops::Range,
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
};

use bytes::Bytes;

use super::{Name, Store};
use crate::error::{Error, ErrorKind, Result};

/// Reads under way, at most as many as the store has connections. With one connection each happens at
/// once, on the thread that asks. What was read and not yet taken is for the caller to bound.
#[derive(Debug)]
pub struct Downloads {
    store: Store,
    calls: Arc<(Mutex<usize>, Condvar)>,
}

/// A part of an object that is on its way.
#[derive(Debug)]
#[must_use = "it was asked for"]
pub struct Pending(mpsc::Receiver<Result<Bytes>>);

impl Pending {
    /// Waits for it.
    ///
    /// # Errors
    /// As [`Store::read_range`].
    pub fn wait(self) -> Result<Bytes> {
        let gone = |error| Error::new(ErrorKind::Failed, "a read ended without an answer").with_source(error);
        self.0.recv().map_err(gone)?
    }
}

impl Store {
    /// Reads that run beside the work.
    #[must_use]
    pub fn downloads(&self) -> Downloads {
        Downloads { store: self.clone(), calls: Arc::new((Mutex::new(0), Condvar::new())) }
    }
}

impl Downloads {
    /// Begins to read a part of an object; waits while all connections are busy.
    pub fn read_range(&self, name: Name, range: Range<u64>) -> Pending {
        let (answer, pending) = mpsc::sync_channel(1);
        let connections = self.store.0.options.connections;
        let store = self.store.clone();
        let read = move || {
            // Whoever asked may have given up meanwhile.
            drop(answer.send(store.read_range(&name, range)));
        };
        if connections <= 1 {
            read();
            return Pending(pending);
        }
        let (calls, changed) = &*self.calls;
        let mut busy = calls.lock().unwrap_or_else(PoisonError::into_inner);
        while *busy >= connections {
            busy = changed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        *busy += 1;
        drop(busy);
        let calls = Arc::clone(&self.calls);
        self.store.0.beside(move || {
            read();
            let (calls, changed) = &*calls;
            *calls.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
            changed.notify_one();
        });
        Pending(pending)
    }
}
