//! What a commit is made of: run record, index object, validation against a view, snapshot, check of the time.
//! The order of the durable writes of a backup stands in one function, `attempt` in `ops/backup/mod.rs`;
//! `docs/protocol.md` says why it is that one.

use std::{collections::HashSet, fs::File, time::Duration};

use bytes::Bytes;

use super::{Repository, cache::claim, index::Standing, view::View};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    format::{
        envelope::{self, EnvelopeHeader, RecordKind, Sealer},
        pack::{IndexedPack, encode_index},
        snapshot::{Run, Snapshot},
    },
    id::{DomainId, ObjectId, PackId},
    limits,
    sabotage::{Sabotage, suffers},
    store::{Listed, Name, Parsed, Sent},
};

/// What a final view showed.
#[derive(Debug)]
pub enum Validation {
    /// Every pack that the snapshot reaches is present, indexed and not tombstoned.
    Complete,
    /// These are not: the sources must be looked at again.
    Missing(HashSet<PackId>),
}

/// Checks the packs that a snapshot reaches against a view.
#[must_use]
pub fn validate(view: &View, reached: &HashSet<PackId>) -> Validation {
    if suffers(Sabotage::GraceOnly) {
        return Validation::Complete;
    }
    let mut missing = reached.clone();
    for pack in view.index.packs() {
        if pack.standing == Standing::Live {
            missing.remove(&pack.id);
        }
    }
    if missing.is_empty() { Validation::Complete } else { Validation::Missing(missing) }
}

/// An index object is written at the latest when so many blobs wait for one: what is remembered of them
/// takes about 150 bytes each.
pub const UNINDEXED_BLOBS_MAX: usize = 1 << 17;

/// Packs that wait for an index object.
#[derive(Debug, Default)]
pub struct IndexBatch {
    packs: Vec<IndexedPack>,
    blobs: usize,
}

impl IndexBatch {
    /// One more.
    pub fn add(&mut self, pack: IndexedPack) {
        self.blobs += pack.directory.blobs();
        self.packs.push(pack);
    }

    /// Whether an index object is to be written of them now. The pack that filled it is in it, and has
    /// `limits::PACK_BLOBS_MAX` blobs at most: an index object stays far below its own limit.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.blobs >= UNINDEXED_BLOBS_MAX || self.packs.len() >= limits::INDEX_PACKS_MAX
    }

    /// What an index object is to list now, if anything.
    pub fn take(&mut self) -> Option<Vec<IndexedPack>> {
        let packs = std::mem::take(self).packs;
        (!packs.is_empty()).then_some(packs)
    }
}

/// How often whoever waits for another run looks again.
const GLANCE: Duration = Duration::from_millis(100);

/// The right to add to the chain of this identity, among the runs of this machine: two that read the same
/// head would fork the chain. It ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _file: Option<File>,
}

impl Repository {
    /// Waits until no other run of this machine adds to the chain. (Without a cache they do not know of each
    /// other; machines that share a key are to be certified as such.)
    ///
    /// # Errors
    /// `Interrupted`.
    pub fn take_turn(&self) -> Result<Turn> {
        let file = self.cache.chain_file(&self.identity());
        while file.as_ref().is_some_and(|file| !claim(file)) {
            self.store.progress().check()?;
            self.clock.sleep(GLANCE);
        }
        Ok(Turn { _file: file })
    }

    fn header(&self, kind: RecordKind, domain: &DomainId, sequence: u64, epoch: u32) -> EnvelopeHeader {
        EnvelopeHeader {
            kind,
            repository: self.config.repository_id,
            domain: *domain,
            author: self.identity(),
            sequence,
            epoch,
        }
    }

    /// Writes the record that a run began, or how it failed. It is the probe of the commit too.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn publish_run(&self, domain: &DomainId, run: &Run) -> Result<Name> {
        let (name, sealed) = self.seal_run(domain, run)?;
        self.store.create(&name, sealed)?;
        Ok(name)
    }

    /// As [`Self::publish_run`], for a run that has failed: a store that does not answer is not asked for longer
    /// than `patience`.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn publish_failed_run(&self, domain: &DomainId, run: &Run, patience: Duration) -> Result<()> {
        let (name, sealed) = self.seal_run(domain, run)?;
        match self.store.create_soon(&name, sealed, patience)? {
            Sent::InTime => Ok(()),
            Sent::TooLate(error) => Err(error),
        }
    }

    /// When the storage got what was written under a name, by its clock.
    ///
    /// # Errors
    /// It was acknowledged and is not there; storage trouble.
    pub fn stored(&self, name: &Name) -> Result<Timestamp> {
        Ok(self.acknowledged(name)?.modified)
    }

    /// What the storage says of what it has acknowledged.
    fn acknowledged(&self, name: &Name) -> Result<Listed> {
        self.store.head(name)?.ok_or_else(|| Error::not_kept(name))
    }

    fn seal_run(&self, domain: &DomainId, run: &Run) -> Result<(Name, Bytes)> {
        let (epoch, public) = self.metadata_public()?;
        let header = self.header(RecordKind::Run, domain, 0, epoch);
        let sealed = envelope::seal(&header, &Sealer::Public(public), self.signer(), &run.encode())?;
        let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
        Ok((Name::run(domain, &self.identity(), &id), Bytes::from(sealed)))
    }

    /// Writes an index object for packs that the store has acknowledged.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn publish_index(&self, domain: &DomainId, packs: &[IndexedPack]) -> Result<(Name, ObjectId)> {
        let header = self.header(RecordKind::Index, domain, 0, 0);
        let key = self.index_key(domain)?;
        let sealed =
            envelope::seal(&header, &Sealer::Symmetric(key.as_bytes()), self.signer(), &encode_index(packs))?;
        let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
        let name = Name::index(domain, &self.identity(), &id);
        self.wrote(id, sealed.len());
        self.store.create(&name, Bytes::from(sealed))?;
        self.segments.add_unseen(domain, id, packs, &key.segment_key())?;
        Ok((name, id))
    }

    /// Writes the snapshot, unless the commit window has closed since the view began: then `None`. Gives its bytes
    /// too, for the cache when they were seen in the store.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn publish_snapshot(
        &self,
        domain: &DomainId,
        (sequence, snapshot): (u64, &Snapshot),
        view_begun: Duration,
    ) -> Result<Option<(Name, ObjectId, Bytes)>> {
        let (epoch, public) = self.metadata_public()?;
        let header = self.header(RecordKind::Snapshot, domain, sequence, epoch);
        let sealed = envelope::seal(&header, &Sealer::Public(public), self.signer(), &snapshot.encode())?;
        let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
        let name = Name::snapshot(domain, &self.identity(), sequence, &id);
        let window = Duration::from_secs(self.config.commit_window_seconds);
        let left = window.saturating_sub(self.clock.elapsed().saturating_sub(view_begun));
        let left = if suffers(Sabotage::NoDeadline) { window } else { left };
        if left.is_zero() {
            return Ok(None);
        }
        self.wrote(id, sealed.len());
        let sealed = Bytes::from(sealed);
        if let Sent::TooLate(_) = self.store.create_soon(&name, sealed.clone(), left)? {
            return Ok(None);
        }
        Ok(Some((name, id, sealed)))
    }

    /// Whether the snapshot was in time by the storage's own clock, and acknowledged in time by ours.
    ///
    /// # Errors
    /// Storage trouble; the snapshot or the probe is not there although its write was acknowledged.
    pub fn in_time(&self, probe: &Name, snapshot: &Name, view_begun: Duration) -> Result<bool> {
        let stamp = |name: &Name| -> Result<Timestamp> {
            let listed = self.acknowledged(name)?;
            if let Parsed::Snapshot { domain, identity, sequence, id } = name.parsed() {
                if self.is_cut_short(&id, listed.size) {
                    return Err(Error::untrue(format!("{name} has not the size that was written")));
                }
                // Not before: what was acknowledged and never seen must not stop the next backup.
                self.memory.saw_head(&domain, &identity, (sequence, id));
            }
            Ok(listed.modified)
        };
        let (committed, probed) = self.store.both(|| stamp(snapshot), || stamp(probe));
        let apart = committed?.seconds - probed?.seconds;
        let window = i64::try_from(self.config.commit_window_seconds).unwrap_or(i64::MAX);
        let grace = Duration::from_secs(self.config.minimum_grace_seconds / 4);
        if suffers(Sabotage::NoDeadline) {
            return Ok(true);
        }
        Ok(apart <= window && self.clock.elapsed().saturating_sub(view_begun) < grace)
    }
}
