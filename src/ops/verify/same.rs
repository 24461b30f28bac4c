//! Whether single entries are in a target as a snapshot has them: for a restore that could not write them itself.

use std::path::Path;

use super::{Comparison, Owners, content::Nobody};
use crate::{
    error::Result,
    filesystem::{
        live::{Closed, LiveTree},
        names::{Ownership, OwnershipPolicy},
        rights,
    },
    format::entry::Entry,
    limits,
    ops::links::{Links, Met},
    repository::{Repository, manifest::NodeSource, snapshots::KnownSnapshot},
};

/// Compares entries, which come in the order of the manifest.
pub(in crate::ops) struct Same<'a>(Comparison<'a>);

impl<'a> Same<'a> {
    /// Compares with what is below `target`; `strip` bytes of each path are above that.
    ///
    /// # Errors
    /// The target is not there.
    pub(in crate::ops) fn new(
        repository: &'a Repository,
        (snapshot, nodes): (&'a KnownSnapshot, &'a dyn NodeSource),
        (target, strip): (&Path, usize),
        (ownership, witness): (&Ownership, &'a mut Nobody),
    ) -> Result<Self> {
        let owners = match ownership.policy() {
            _ if !rights::may_give_to_anybody() => Owners::NotRoot,
            OwnershipPolicy::ByName => Owners::Compare,
            OwnershipPolicy::Numeric => Owners::Numbers,
            OwnershipPolicy::Keep => Owners::Ignore,
        };
        Ok(Self(Comparison {
            snapshot,
            progress: repository.store.progress(),
            owners,
            strip,
            tree: LiveTree::open(target, Closed::OpenUp)?,
            key: repository.chunk_keys(&snapshot.name.domain)?.id,
            nodes,
            buffer: vec![0; limits::CHUNK_BYTES_MAX],
            witness,
            links: Links::default(),
            met: Met::default(),
            verified: Default::default(),
        }))
    }

    /// Whether an entry is there as it was.
    ///
    /// # Errors
    /// The storage fails.
    pub(in crate::ops) fn is(&mut self, entry: &Entry) -> Result<bool> {
        Ok(self.0.differences(entry)?.is_empty())
    }

    /// Comes past an entry that is not compared: it may be the first name of a file.
    ///
    /// # Errors
    /// The system does not tell.
    pub(in crate::ops) fn passes(&mut self, entry: &Entry) -> Result<()> {
        self.0.passes(entry)
    }
}
