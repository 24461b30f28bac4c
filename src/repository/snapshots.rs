//! Snapshots as they are found in the store: names first, records when they can be read.

use super::Repository;
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        envelope::{Envelope, Opener, RecordKind},
        role::Role,
        snapshot::Snapshot,
    },
    id::{DomainId, IdentityId, ObjectId},
    limits,
    store::{Name, Parsed, Prefix},
};

/// A snapshot's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotName {
    /// Its object.
    pub name: Name,
    /// Its domain.
    pub domain: DomainId,
    /// The identity whose chain it is in.
    pub identity: IdentityId,
    /// Its number in that chain.
    pub sequence: u64,
    /// Its id.
    pub id: ObjectId,
}

/// A snapshot that was read and checked.
#[derive(Clone, Debug)]
pub struct KnownSnapshot {
    /// Where it is.
    pub name: SnapshotName,
    /// What it says.
    pub record: Snapshot,
}

impl Repository {
    /// The names of all snapshots of a domain, or of one identity in it, in order of identity and sequence.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn snapshot_names(
        &self,
        domain: &DomainId,
        identity: Option<&IdentityId>,
    ) -> Result<Vec<SnapshotName>> {
        let prefix = identity
            .map_or_else(|| Prefix::snapshots(domain), |identity| Prefix::snapshots_of(domain, identity));
        let mut names = Vec::new();
        for listed in self.store.list(&prefix)? {
            let Some(name) = Name::parse(&listed.name) else { continue };
            if let Parsed::Snapshot { domain, identity, sequence, id } = name.parsed() {
                names.push(SnapshotName { name, domain, identity, sequence, id });
            }
        }
        names.sort_by_key(|name| (name.identity, name.sequence, name.id));
        Ok(names)
    }

    /// The last number and hash of a chain, its signature checked without any key.
    ///
    /// # Errors
    /// The head is damaged or forged.
    pub fn chain_head(&self, domain: &DomainId, identity: &IdentityId) -> Result<Option<(u64, ObjectId)>> {
        let names = self.snapshot_names(domain, Some(identity))?;
        let Some(head) = names.last() else { return Ok(None) };
        let bytes = self.read_snapshot_object(head)?;
        let envelope = Envelope::parse(&bytes, RecordKind::Snapshot, &self.config.repository_id, domain)?;
        self.check_place(head, &envelope)?;
        Ok(Some((head.sequence, head.id)))
    }

    fn read_snapshot_object(&self, name: &SnapshotName) -> Result<Vec<u8>> {
        if let Some(bytes) = self.cache.object(&name.id) {
            return Ok(bytes);
        }
        let bytes = self.store.read(&name.name, limits::RECORD_BYTES_MAX)?;
        if blake3::hash(&bytes).as_bytes() != name.id.as_bytes() {
            return Err(Error::damaged(&name.name, "its bytes are not those that its name stands for"));
        }
        self.cache.keep_object(&name.id, &bytes);
        Ok(bytes.to_vec())
    }

    fn check_place(&self, name: &SnapshotName, envelope: &Envelope<'_>) -> Result<()> {
        let role = self.verify_author(envelope, &name.domain).map_err(|e| e.context(&name.name))?;
        if !matches!(role, Role::Backup | Role::Owner) {
            return Err(Error::damaged(&name.name, "its identity may not write snapshots"));
        }
        if envelope.author() != name.identity || envelope.sequence() != name.sequence {
            return Err(Error::damaged(&name.name, "it was signed for another place in the chain"));
        }
        Ok(())
    }

    /// Reads one snapshot.
    ///
    /// # Errors
    /// `Damaged` when its bytes, signature or place are wrong, `Forbidden` without the metadata key.
    pub fn read_snapshot(&self, name: &SnapshotName) -> Result<KnownSnapshot> {
        let bytes = self.read_snapshot_object(name)?;
        let repository = &self.config.repository_id;
        let envelope = Envelope::parse(&bytes, RecordKind::Snapshot, repository, &name.domain)?;
        self.check_place(name, &envelope)?;
        self.metadata_key(envelope.epoch())?;
        let plain = envelope.open(&Opener::Private(&|epoch| self.metadata_key(epoch).ok()))?;
        Ok(KnownSnapshot { name: name.clone(), record: Snapshot::decode(&plain)? })
    }

    /// All snapshots of all domains, oldest first, those that another one replaces left out. Damaged ones
    /// come apart and never block the rest.
    ///
    /// # Errors
    /// Storage trouble; `Forbidden` without the metadata keys.
    pub fn snapshots(&self) -> Result<(Vec<KnownSnapshot>, Vec<Error>)> {
        if !self.reads_metadata() {
            return Err(self.forbidden("read snapshots", "audit"));
        }
        let (mut known, mut damaged) = (Vec::new(), Vec::new());
        for domain in &self.registry.domains {
            for name in self.snapshot_names(&domain.id, None)? {
                match self.read_snapshot(&name) {
                    Ok(snapshot) => known.push(snapshot),
                    Err(error) if error.kind() == ErrorKind::Damaged => damaged.push(error),
                    Err(error) => return Err(error),
                }
            }
        }
        let replaced: Vec<ObjectId> = known.iter().filter_map(|snapshot| snapshot.record.replaces).collect();
        known.retain(|snapshot| !replaced.contains(&snapshot.name.id));
        known.sort_by_key(|snapshot| (snapshot.record.time, snapshot.name.sequence));
        Ok((known, damaged))
    }
}
