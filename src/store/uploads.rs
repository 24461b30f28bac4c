//! Uploads beside the work, bounded in calls and bytes.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;

use super::{Name, Store};
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug, Default)]
struct InFlight {
    bytes: usize,
    calls: usize,
    failed: Option<Failed>,
}

/// The first failure. It never goes away: who waits later must not take a pack for stored that is not.
#[derive(Debug)]
struct Failed {
    kind: ErrorKind,
    text: String,
    /// With its cause, for the first one who asks.
    error: Option<Error>,
}

impl InFlight {
    fn fail(&mut self, error: Error) {
        if self.failed.is_none() {
            self.failed = Some(Failed { kind: error.kind(), text: error.to_string(), error: Some(error) });
        }
    }

    fn check(&mut self) -> Result<()> {
        let Some(Failed { kind, text, error }) = &mut self.failed else { return Ok(()) };
        Err(error.take().unwrap_or_else(|| Error::new(*kind, text.clone())))
    }
}

/// Uploads under way. With one connection each happens at once, on the thread that asks.
/// Nothing waits for longer than the calls in flight do, and those end when the user asks to stop.
#[derive(Debug)]
#[must_use = "uploads that nobody waits for may not have happened"]
pub struct Uploads {
    store: Store,
    limit: usize,
    shared: Arc<(Mutex<InFlight>, Condvar)>,
}

impl Uploads {
    pub(super) fn new(store: Store, bytes_in_flight: usize) -> Self {
        let shared = Arc::new((Mutex::new(InFlight::default()), Condvar::new()));
        Self { store, limit: bytes_in_flight, shared }
    }

    /// Begins an upload; waits while too much is in flight.
    ///
    /// # Errors
    /// The first failure of an earlier one, ever after; `Interrupted`.
    pub fn create(&self, name: Name, parts: Vec<Bytes>) -> Result<()> {
        let connections = self.store.0.options.connections;
        let (state, changed) = &*self.shared;
        let mut flight = state.lock().unwrap_or_else(PoisonError::into_inner);
        if connections <= 1 {
            flight.check()?;
            drop(flight);
            return self.store.create_parts(&name, parts).or_else(|error| {
                let mut flight = state.lock().unwrap_or_else(PoisonError::into_inner);
                flight.fail(error);
                flight.check()
            });
        }
        let size: usize = parts.iter().map(Bytes::len).sum();
        while flight.calls > 0 && (flight.bytes + size > self.limit || flight.calls >= connections) {
            flight = changed.wait(flight).unwrap_or_else(PoisonError::into_inner);
        }
        flight.check()?;
        self.store.progress().check()?;
        flight.bytes += size;
        flight.calls += 1;
        drop(flight);
        let (store, shared) = (self.store.clone(), Arc::clone(&self.shared));
        self.store.0.beside(move || {
            let result = store.create_parts(&name, parts);
            let (state, changed) = &*shared;
            let mut flight = state.lock().unwrap_or_else(PoisonError::into_inner);
            flight.bytes -= size;
            flight.calls -= 1;
            if let Err(error) = result {
                flight.fail(error);
            }
            changed.notify_all();
        });
        Ok(())
    }

    /// Waits for all that are under way.
    ///
    /// # Errors
    /// The first failure, ever after; `Interrupted`.
    pub fn wait(&self) -> Result<()> {
        let (state, changed) = &*self.shared;
        let mut flight = state.lock().unwrap_or_else(PoisonError::into_inner);
        while flight.calls > 0 {
            flight = changed.wait(flight).unwrap_or_else(PoisonError::into_inner);
        }
        flight.check()
    }
}
