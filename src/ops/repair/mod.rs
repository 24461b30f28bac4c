//! `repair`: puts right what can be put right without the sources. It lists again what the index has lost, and sets
//! aside what nobody can read. It deletes and overwrites nothing, and what it has done it does not do again, so it may
//! be stopped anywhere.

pub(super) use self::snapshots::{Stored, Survivors, tag_of_origin};
pub use self::{
    aside::{AsideOptions, Force, Verdict, set_aside},
    index::{IndexDone, OfDomain, index},
    snapshots::{Copy, Hurt, Lost, SnapshotOptions, SnapshotsDone, snapshots},
};
pub use super::forget::Mode;
use crate::{
    error::Result,
    format::quarantine::{OBJECTS_MAX, Quarantine},
    id::DomainId,
    limits,
    repository::Repository,
};

mod aside;
mod index;
mod snapshots;

/// An object, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name.
    pub object: String,
    /// Why it cannot be used.
    pub why: String,
}

/// Writes that objects are set aside.
fn publish(repository: &Repository, domain: &DomainId, objects: &[String], reason: &str) -> Result<()> {
    let mut reason = reason.to_owned();
    reason.truncate(reason.floor_char_boundary(limits::REASON_BYTES_MAX));
    for objects in objects.chunks(OBJECTS_MAX) {
        let time = repository.clock.now();
        let record = Quarantine { time, objects: objects.to_vec(), reason: reason.clone() };
        repository.publish_quarantine(domain, &record)?;
    }
    Ok(())
}
