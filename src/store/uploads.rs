//! Uploads beside the work, bounded in calls and bytes.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;

use super::{Name, Store};
use crate::error::{Error, Result};

#[derive(Debug, Default)]
struct InFlight {
    bytes: usize,
    calls: usize,
    failed: Option<Error>,
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
    /// The first failure of an earlier one; `Interrupted`.
    pub fn create(&self, name: Name, parts: Vec<Bytes>) -> Result<()> {
        let connections = self.store.0.options.connections;
        if connections <= 1 {
            return self.store.create_parts(&name, parts);
        }
        let size: usize = parts.iter().map(Bytes::len).sum();
        let (state, changed) = &*self.shared;
        let mut flight = state.lock().unwrap_or_else(PoisonError::into_inner);
        while flight.calls > 0 && (flight.bytes + size > self.limit || flight.calls >= connections) {
            flight = changed.wait(flight).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(error) = flight.failed.take() {
            return Err(error);
        }
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
                flight.failed.get_or_insert(error);
            }
            changed.notify_all();
        });
        Ok(())
    }

    /// Waits for all that are under way.
    ///
    /// # Errors
    /// The first failure; `Interrupted`.
    pub fn wait(&self) -> Result<()> {
        let (state, changed) = &*self.shared;
        let mut flight = state.lock().unwrap_or_else(PoisonError::into_inner);
        while flight.calls > 0 {
            flight = changed.wait(flight).unwrap_or_else(PoisonError::into_inner);
        }
        flight.failed.take().map_or(Ok(()), Err)
    }
}
