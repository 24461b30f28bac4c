//! Creating objects: once, whole, not later than allowed; and what an unclear reply means.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use object_store::{PutMode, PutOptions, PutPayload};

use super::{
    FIRST_PAUSE, Name, Store, StoreOptions, Until,
    failure::{Failure, local_error},
    local,
    pace::rest,
    transfer::{upload_time, within},
};
use crate::error::{Error, ErrorKind, Result};

/// How often a create is begun anew when the storage says "taken" and then shows nothing there.
const CREATE_ROUNDS: u32 = 4;

/// What came of a write that must not be late.
#[derive(Debug)]
pub enum Sent {
    /// It is there.
    InTime,
    /// Nothing is there, and it is too late to send it now.
    TooLate(Error),
}

/// What the storage has under a name.
enum Held {
    /// These bytes.
    Same,
    /// Other bytes.
    Other,
    /// No object.
    Nothing,
}

impl Store {
    /// Creates an object, once. When the reply is not clear it is read back and compared.
    ///
    /// # Errors
    /// Another object has that name; storage trouble.
    pub fn create(&self, name: &Name, bytes: Bytes) -> Result<()> {
        self.create_parts(name, vec![bytes])
    }

    /// As [`Self::create`], but no attempt begins later than `patience` from now.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_soon(&self, name: &Name, bytes: Bytes, patience: Duration) -> Result<Sent> {
        let deadline = self.0.options.clock.elapsed() + patience;
        let payload = PutPayload::from(bytes);
        let StoreOptions { clock, retry_for, .. } = &self.0.options;
        if self.0.sent.waits(&**clock) >= patience {
            return Ok(Sent::TooLate(Failure::Late { what: name.to_string() }.into_error(self)));
        }
        self.pay(&payload)?;
        match self.create_patiently(name, &payload, Some(deadline))? {
            // The storage did not answer for as long as calls are tried, and the deadline is still to come.
            Sent::TooLate(error) if patience > *retry_for && clock.elapsed() < deadline => Err(error),
            sent => Ok(sent),
        }
    }

    /// As [`Self::create`], from several pieces.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_parts(&self, name: &Name, parts: Vec<Bytes>) -> Result<()> {
        let payload = parts.into_iter().collect();
        self.pay(&payload)?;
        match self.create_patiently(name, &payload, None)? {
            Sent::InTime => Ok(()),
            Sent::TooLate(error) => Err(error),
        }
    }

    /// Waits until the limit of upload allows it.
    fn pay(&self, payload: &PutPayload) -> Result<()> {
        let StoreOptions { clock, progress, .. } = &self.0.options;
        self.0.sent.take(payload.content_length() as u64, &**clock, progress)
    }

    fn waited(&self, begun: Duration) -> Duration {
        self.0.options.clock.elapsed().saturating_sub(begun)
    }

    /// `TooLate` only when it is known that nothing is there.
    fn create_patiently(
        &self,
        name: &Name,
        payload: &PutPayload,
        deadline: Option<Duration>,
    ) -> Result<Sent> {
        self.may_write()?;
        let StoreOptions { clock, progress, retry_for, .. } = &self.0.options;
        let begun = clock.elapsed();
        for round in 0..CREATE_ROUNDS {
            let left = retry_for.saturating_sub(self.waited(begun));
            if round > 0 && left.is_zero() {
                break;
            }
            let before = deadline.map(|deadline| deadline.saturating_sub(clock.elapsed()));
            let patience = before.map_or(left, |before| before.min(left));
            let failure = match self.put_new(name, payload, Until { patience, deadline }) {
                Ok(()) if !name.is_read_back() => return Ok(Sent::InTime),
                Ok(()) => None,
                Err(failure @ Failure::Late { .. }) => return Ok(Sent::TooLate(failure.into_error(self))),
                Err(failure) if failure.is_taken() || failure.is_unclear() => Some(failure),
                Err(failure) => return Err(failure.into_error(self)),
            };
            // Who did not answer for so long is asked only once more.
            let answers = failure.as_ref().is_none_or(Failure::is_taken);
            let wait = if answers { *retry_for } else { Duration::ZERO };
            match (self.holds(name, payload, wait), failure) {
                (Ok(Held::Same), _) => return Ok(Sent::InTime),
                (Ok(Held::Other), _) => return Err(conflict(name)),
                // The storage met another write to that name, and neither landed.
                (Ok(Held::Nothing), Some(failure)) if failure.is_taken() => {
                    rest(FIRST_PAUSE, &**clock, progress)?;
                }
                (Ok(Held::Nothing), None) => break,
                (Ok(Held::Nothing), Some(failure)) => return Ok(Sent::TooLate(failure.into_error(self))),
                (Err(Failure::Call { .. }), Some(failure)) => return Err(failure.into_error(self)),
                (Err(failure), _) => return Err(failure.into_error(self)),
            }
        }
        let text = format!("{} took {name} or has it, so it says, but it is not there", self.0.text);
        Err(Error::new(ErrorKind::Failed, text)
            .with_remedy("The storage does not keep what it is given: do not use it for backups"))
    }

    fn put_new(&self, name: &Name, payload: &PutPayload, until: Until) -> std::result::Result<(), Failure> {
        let limit = upload_time(payload.content_length() as u64);
        let path = self.path(name.as_str());
        let put = |mode: PutMode| {
            let (path, payload) = (path.clone(), payload.clone());
            self.attempt(name, until, &move |objects| {
                let (path, payload) = (path.clone(), payload.clone());
                let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
                Box::pin(
                    async move { within(limit, objects.put_opts(&path, payload, options)).await.map(drop) },
                )
            })
        };
        let named_by_hash = !name.is_not_content_addressed();
        if !named_by_hash || !self.0.unconditional.load(Ordering::Relaxed) {
            let failure = match put(PutMode::Create) {
                Err(failure) if failure.lacks_links() || failure.lacks_conditions() => failure,
                other => return other,
            };
            if let Some(folder) = self.0.folder.as_ref().filter(|_| failure.lacks_links()) {
                let parts: Vec<&[u8]> = payload.iter().map(|part| &**part).collect();
                let made = local::create_without_links(folder, name, &parts);
                return made.map_err(|e| Failure::of(name, local_error(name.as_str(), e)));
            }
            if !named_by_hash {
                return Err(failure);
            }
            self.0.unconditional.store(true, Ordering::Relaxed);
        }
        // Whoever else writes this name writes the same bytes.
        if self.find(name)?.is_some() {
            let taken = local_error(name.as_str(), std::io::ErrorKind::AlreadyExists.into());
            return Err(Failure::of(name, taken));
        }
        put(PutMode::Overwrite)
    }

    /// What the storage has under that name.
    fn holds(
        &self,
        name: &Name,
        payload: &PutPayload,
        patience: Duration,
    ) -> std::result::Result<Held, Failure> {
        match self.fetch(name, payload.content_length(), patience) {
            Ok(Some(bytes)) if payload.iter().flatten().eq(bytes.iter()) => Ok(Held::Same),
            Ok(_) => Ok(Held::Other),
            Err(failure) if failure.is_missing() => Ok(Held::Nothing),
            Err(failure) => Err(failure),
        }
    }
}

fn conflict(name: &Name) -> Error {
    Error::new(ErrorKind::Failed, format!("{name} exists already with other content"))
        .with_remedy("Another program writes there, or a second `init` ran: look before you go on")
}
