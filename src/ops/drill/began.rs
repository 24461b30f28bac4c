//! The record that a drill began. It tells a drill that was broken off from one that never was, says before
//! the work whether the storage takes records, and shows what time it is by the storage's clock.

use super::{DrillOptions, as_json, head};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        drill::DrillBegan,
        evidence::{DRILL_BEGAN, Head},
        report::SignedReport,
    },
    id::to_hex,
    random,
    repository::{Repository, snapshots::KnownSnapshot},
};

/// A drill that began.
#[derive(Debug)]
pub(super) struct Began {
    /// Random: names the drill.
    pub(super) drill: String,
    /// Why the storage takes no records.
    pub(super) refused: Option<Error>,
    storage: Option<Timestamp>,
    machine: Timestamp,
}

impl Began {
    /// Writes it. A storage that refuses it is no error.
    ///
    /// # Errors
    /// The user asked to stop.
    pub(super) fn announce(repository: &Repository, options: &DrillOptions) -> Result<Self> {
        let drill = to_hex(&random::bytes::<8>()?);
        let machine = repository.clock.now();
        match write(repository, options, &drill) {
            Ok(storage) => Ok(Self { drill, refused: None, storage, machine }),
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => Ok(Self { drill, refused: Some(error), storage: None, machine }),
        }
    }

    /// The moment that ages count to. Where the storage told none it is this machine's, but not before the
    /// newest snapshot was written.
    pub(super) fn now(&self, snapshots: &[KnownSnapshot]) -> Timestamp {
        let newest = snapshots.iter().map(|known| known.name.stored).max();
        self.storage.unwrap_or_else(|| newest.map_or(self.machine, |newest| newest.max(self.machine)))
    }

    /// Whose clock said so.
    pub(super) const fn clock_name(&self) -> &'static str {
        if self.storage.is_some() { "storage" } else { "machine" }
    }
}

fn write(repository: &Repository, options: &DrillOptions, drill: &str) -> Result<Option<Timestamp>> {
    let place = repository.next_evidence(&repository.store)?;
    let head =
        Head { summary: "a drill began".to_owned(), ..head(repository, options, DRILL_BEGAN, Some(place)) };
    let began = DrillBegan { head, drill: drill.to_owned() };
    let signed = SignedReport::sign(as_json(&began)?, repository.signer())?;
    let name = repository.publish_evidence(&repository.store, place, &signed)?;
    Ok(repository.store.head(&name)?.map(|listed| listed.modified))
}
