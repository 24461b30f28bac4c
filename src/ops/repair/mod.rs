//! `repair`: puts right what can be put right without the sources. It lists again what the index has lost, and sets
//! aside what nobody can read. It deletes and overwrites nothing, and what it has done it does not do again, so it may
//! be stopped anywhere.

pub(super) use self::snapshots::{Stored, Survivors, tag_of_origin};
pub use self::{
    aside::{AsideOptions, Force, Verdict, set_aside},
    index::{IndexDone, OfDomain, index},
    snapshots::{Copy, Hurt, SnapshotOptions, SnapshotsDone, snapshots},
};
pub use super::{Mode, copy::Lost};
use crate::{
    error::Result,
    format::quarantine::{OBJECTS_MAX, Quarantine},
    id::DomainId,
    limits,
    repository::{Repository, view::View},
};

mod aside;
mod heal;
mod index;
mod snapshots;
mod truth;

/// An object, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name.
    pub object: String,
    /// Why it cannot be used.
    pub why: String,
}

/// What is the first thing to do where something is missing and packs may be there that no index lists. What it cannot list
/// it tells itself how to set aside: else this would be the first thing to do for ever.
const INDEX_FIRST: &str = "Packs may be there that no index lists as what they are, and what is missing may be in them: first of all run \
    `lifeboat repair index --apply`, which lists them again and deletes nothing, and set aside what it cannot list, as it \
    says. Only for what is missing then";

/// What to do when a pack that is set aside, or of another size than the index says, holds what nothing else holds.
pub(super) const STORE_ANEW: &str = "`lifeboat repair snapshots --apply` with an owner's key stores anew what can still be read in packs \
                                     that are set aside or of another size, and so does a backup of what is still at its source; forget \
                                     nothing before";

/// A remedy for what is missing, after `repair index` where packs are there that no index lists: other remedies would
/// give up what only has to be listed again.
#[must_use]
pub fn after_index(has_unlisted: bool, remedy: &str) -> String {
    if has_unlisted { format!("{INDEX_FIRST}: {remedy}") } else { remedy.to_owned() }
}

/// Whether packs may be there that no index lists: some are in none, or several identities back up, and one of them may have
/// listed the pack of another as something else, whose true index object is lost.
pub(in crate::ops) fn may_hide_packs(repository: &Repository, domain: &DomainId, view: &View) -> bool {
    !view.unindexed.is_empty() || repository.registry().only_writer(domain).is_none()
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
