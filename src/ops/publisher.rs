//! Packs of sealed frames that were moved: stored, and then listed.

use super::prune::Packs;
use crate::{
    error::Result,
    id::DomainId,
    repository::{Repository, commit::IndexBatch, pack_writer::FinishedPack},
    store::Name,
};

/// Stores packs, and then index objects that list them.
pub(super) struct Publisher<'a> {
    repository: &'a Repository,
    domain: DomainId,
    unindexed: IndexBatch,
    /// What was stored.
    pub(super) written: Packs,
}

impl<'a> Publisher<'a> {
    pub(super) fn new(repository: &'a Repository, domain: DomainId) -> Self {
        Self { repository, domain, unindexed: IndexBatch::default(), written: Packs::default() }
    }

    /// # Errors
    /// Storage trouble.
    pub(super) fn upload(&mut self, finished: Option<FinishedPack>) -> Result<()> {
        let Some(FinishedPack { listed, pieces }) = finished else { return Ok(()) };
        self.repository.store.create_parts(&Name::pack(&self.domain, listed.kind, &listed.id), pieces)?;
        self.written.add(u64::from(listed.size));
        self.unindexed.add(listed);
        if self.unindexed.is_full() { self.publish() } else { Ok(()) }
    }

    /// Lists what was stored since the last time.
    ///
    /// # Errors
    /// Storage trouble.
    pub(super) fn publish(&mut self) -> Result<()> {
        let Some(packs) = self.unindexed.take() else { return Ok(()) };
        self.repository.publish_index(&self.domain, &packs).map(|_| ())
    }
}
