//! Packs of sealed frames that were moved: stored, and then listed.

use super::prune::Packs;
use crate::{
    error::Result,
    format::pack::IndexedPack,
    id::DomainId,
    repository::{Repository, commit::UNINDEXED_BLOBS_MAX, pack_writer::FinishedPack},
    store::Name,
};

/// Stores packs, and then index objects that list them.
pub(super) struct Publisher<'a> {
    repository: &'a Repository,
    domain: DomainId,
    unindexed: Vec<IndexedPack>,
    blobs: usize,
    /// What was stored.
    pub(super) written: Packs,
}

impl<'a> Publisher<'a> {
    pub(super) fn new(repository: &'a Repository, domain: DomainId) -> Self {
        Self { repository, domain, unindexed: Vec::new(), blobs: 0, written: Packs::default() }
    }

    /// # Errors
    /// Storage trouble.
    pub(super) fn upload(&mut self, finished: Option<FinishedPack>) -> Result<()> {
        let Some(FinishedPack { listed, pieces }) = finished else { return Ok(()) };
        self.repository.store.create_parts(&Name::pack(&self.domain, listed.kind, &listed.id), pieces)?;
        self.written.add(u64::from(listed.size));
        self.blobs += listed.directory.blobs();
        self.unindexed.push(listed);
        if self.blobs >= UNINDEXED_BLOBS_MAX { self.publish() } else { Ok(()) }
    }

    /// Lists what was stored since the last time.
    ///
    /// # Errors
    /// Storage trouble.
    pub(super) fn publish(&mut self) -> Result<()> {
        if self.unindexed.is_empty() {
            return Ok(());
        }
        self.blobs = 0;
        let packs = std::mem::take(&mut self.unindexed);
        self.repository.publish_index(&self.domain, &packs).map(|_| ())
    }
}
