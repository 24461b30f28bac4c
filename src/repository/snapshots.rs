//! Snapshots as they are found in the store: names first, records when they can be read.

use std::collections::{HashMap, HashSet};

use super::{Repository, memory::Memory, records::Records};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        envelope::{Envelope, Opener, RecordKind},
        registry::Registry,
        role::Role,
        snapshot::Snapshot,
    },
    id::{DomainId, IdentityId, ObjectId},
    store::{Listed, Name, Parsed, Prefix},
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

impl SnapshotName {
    fn of(listed: &Listed) -> Option<Self> {
        let name = Name::parse(&listed.name)?;
        let Parsed::Snapshot { domain, identity, sequence, id } = name.parsed() else { return None };
        Some(Self { name, domain, identity, sequence, id })
    }
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
        let listed = self.store.list(&prefix)?;
        let mut names: Vec<_> = listed.iter().filter_map(SnapshotName::of).collect();
        names.sort_by_key(|name| (name.identity, name.sequence, name.id));
        Ok(names)
    }

    /// The names of all snapshots of a domain, each with when the storage got it.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn snapshot_stamps(&self, domain: &DomainId) -> Result<Vec<(SnapshotName, Timestamp)>> {
        let listed = self.store.list(&Prefix::snapshots(domain))?;
        Ok(listed.iter().filter_map(|listed| Some((SnapshotName::of(listed)?, listed.modified))).collect())
    }

    /// The last number and hash of a chain, its signature checked without any key.
    ///
    /// # Errors
    /// The head is damaged or forged and not set aside; or the chain is our own and ends before the head
    /// that this machine has seen.
    pub fn chain_head(&self, domain: &DomainId, identity: &IdentityId) -> Result<Option<(u64, ObjectId)>> {
        let mut names = self.snapshot_names(domain, Some(identity))?;
        let seen = self.memory.head(domain, identity).filter(|_| *identity == self.identity());
        let set_aside = || -> Result<HashSet<ObjectId>> {
            Ok(ids_of_snapshots(&self.quarantined(domain, &mut Vec::new())?))
        };
        if let Some((sequence, id)) = seen {
            let last = names.last().map_or(0, |head| head.sequence);
            let gone = last < sequence || last == sequence && !names.iter().any(|name| name.id == id);
            if gone && !set_aside()?.contains(&id) {
                return Err(Memory::older_head(last, sequence));
            }
        }
        let Some(head) = names.last().cloned() else { return Ok(None) };
        if let Err(error) = self.check_snapshot(&self.registry, &head) {
            // The usual case costs no request: only now is it asked what is set aside.
            let quarantined = set_aside()?;
            names.retain(|name| !quarantined.contains(&name.id));
            match names.last() {
                Some(other) if *other != head => self.check_snapshot(&self.registry, other)?,
                Some(_) => return Err(error),
                None => return Ok(None),
            }
        }
        let head = names.last().map(|head| (head.sequence, head.id));
        if let Some(head) = head.filter(|_| *identity == self.identity()) {
            self.memory.saw_head(domain, identity, head);
        }
        Ok(head)
    }

    /// Checks that a snapshot was signed for its place in the chain by whom `registry` certifies. No key is
    /// needed.
    ///
    /// # Errors
    /// `Damaged` when it was not; storage trouble.
    pub fn check_snapshot(&self, registry: &Registry, name: &SnapshotName) -> Result<()> {
        let bytes = self.read_addressed(&name.name, &name.id)?;
        let repository = &self.config.repository_id;
        let envelope = Envelope::parse(&bytes, RecordKind::Snapshot, repository, &name.domain)?;
        check_place(registry, name, &envelope)
    }

    /// Reads one snapshot.
    ///
    /// # Errors
    /// `Damaged` when its bytes, signature or place are wrong, `Forbidden` without the metadata key.
    pub fn read_snapshot(&self, name: &SnapshotName) -> Result<KnownSnapshot> {
        let bytes = self.read_addressed(&name.name, &name.id)?;
        let repository = &self.config.repository_id;
        let envelope = Envelope::parse(&bytes, RecordKind::Snapshot, repository, &name.domain)?;
        check_place(&self.registry, name, &envelope)?;
        self.metadata_key(envelope.epoch())?;
        let plain = envelope.open(&Opener::Private(&|epoch| self.metadata_key(epoch).ok()))?;
        Ok(KnownSnapshot { name: name.clone(), record: Snapshot::decode(&plain)? })
    }

    /// All snapshots of all domains, oldest first; those that another one replaces, that were forgotten or
    /// set aside are left out. What is damaged, missing or suspect comes apart and never blocks the rest.
    ///
    /// # Errors
    /// Storage trouble; `Forbidden` without the metadata keys.
    pub fn snapshots(&self) -> Result<(Vec<KnownSnapshot>, Vec<Error>)> {
        let (mut known, damaged) = self.roots()?;
        let replaced: HashSet<ObjectId> =
            known.iter().filter_map(|snapshot| snapshot.record.replaces).collect();
        known.retain(|snapshot| !replaced.contains(&snapshot.name.id));
        Ok((known, damaged))
    }

    /// The same with those that another one replaces: nothing is freed by replacing a snapshot, so what it
    /// reaches is kept.
    ///
    /// # Errors
    /// As [`Self::snapshots`].
    pub fn roots(&self) -> Result<(Vec<KnownSnapshot>, Vec<Error>)> {
        if !self.reads_metadata() {
            return Err(self.forbidden("read snapshots", "audit"));
        }
        let (mut known, mut damaged) = (Vec::new(), Vec::new());
        for domain in &self.registry.domains {
            known.extend(self.snapshots_of_domain(&domain.id, &mut damaged)?);
        }
        known.sort_by_key(|snapshot| (snapshot.record.time, snapshot.name.sequence));
        Ok((known, damaged))
    }

    fn snapshots_of_domain(&self, domain: &DomainId, damaged: &mut Vec<Error>) -> Result<Vec<KnownSnapshot>> {
        let names = self.snapshot_names(domain, None)?;
        // After the LIST: what was deleted since then was forgotten before.
        let Records { forgotten, quarantined, ignored } = self.records(domain)?;
        damaged.extend(ignored);
        let mut ended = ids_of_snapshots(&quarantined);
        ended.extend(forgotten);
        let mut known = Vec::new();
        for name in &names {
            if ended.contains(&name.id) {
                continue;
            }
            match self.read_snapshot(name) {
                Ok(snapshot) => known.push(snapshot),
                Err(error) if error.kind() == ErrorKind::Damaged => damaged.push(error),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    ended.extend(self.records(domain)?.forgotten);
                    if !ended.contains(&name.id) {
                        damaged.push(Error::damaged(&name.name, "it vanished and nobody forgot it"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.check_chains(&names, &known, &ended, damaged);
        Ok(known)
    }

    /// Reports links that are missing, forks, and snapshots that saw a newer registry than we were shown.
    fn check_chains(
        &self,
        names: &[SnapshotName],
        known: &[KnownSnapshot],
        ended: &HashSet<ObjectId>,
        damaged: &mut Vec<Error>,
    ) {
        let places: HashMap<ObjectId, (IdentityId, u64)> =
            names.iter().map(|name| (name.id, (name.identity, name.sequence))).collect();
        for KnownSnapshot { name, record } in known {
            let before = name.sequence.saturating_sub(1);
            let why = match &record.previous {
                None if before == 0 => None,
                None => Some("it does not name the snapshot before it".to_owned()),
                Some(id) => match places.get(id) {
                    Some(place) if *place == (name.identity, before) => None,
                    Some(_) => Some("the snapshot that it names as the one before is not".to_owned()),
                    None if ended.contains(id) => None,
                    None => Some(format!("the snapshot before it, {id}, is gone and nobody forgot it")),
                },
            };
            if let Some(why) = why {
                damaged.push(Error::damaged(format!("the chain at {}", name.name), why));
            }
            if record.registry > self.registry.number {
                let (theirs, ours) = (record.registry, self.registry.number);
                let why = format!("it has seen registry {theirs}, and the newest one here is {ours}");
                damaged.push(
                    Error::damaged(format!("the registry, by {}", name.name), why)
                        .with_remedy("Somebody may hide a revoked key: look for deleted registry objects"),
                );
            }
        }
        let counts = |name: &&SnapshotName| {
            let shared = self.registry.certificate(&name.identity).is_some_and(|known| known.shared);
            !shared
                && !ended.contains(&name.id)
                && self.registry.snapshot_counts(&name.identity, name.sequence, &name.id)
        };
        let names: Vec<&SnapshotName> = names.iter().filter(counts).collect();
        for pair in names.windows(2) {
            let [first, second] = pair else { continue };
            if (first.identity, first.sequence) == (second.identity, second.sequence) {
                let why = format!("{} has the same number: two machines use one key", second.name);
                let error = Error::damaged(format!("the chain at {}", first.name), why);
                damaged
                    .push(error.with_remedy("If that is meant, certify the key as shared; else revoke it"));
            }
        }
    }
}

/// The ids of the snapshots among names of objects.
pub(crate) fn ids_of_snapshots(names: &HashSet<String>) -> HashSet<ObjectId> {
    let parsed = names.iter().filter_map(|name| Some(Name::parse(name)?.parsed()));
    parsed
        .filter_map(|parsed| match parsed {
            Parsed::Snapshot { id, .. } => Some(id),
            _ => None,
        })
        .collect()
}

fn check_place(registry: &Registry, name: &SnapshotName, envelope: &Envelope<'_>) -> Result<()> {
    let role = registry.verify_author(envelope, &name.domain).map_err(|e| e.context(&name.name))?;
    if !matches!(role, Role::Backup | Role::Owner) {
        return Err(Error::damaged(&name.name, "its identity may not write snapshots"));
    }
    if envelope.author() != name.identity || envelope.sequence() != name.sequence {
        return Err(Error::damaged(&name.name, "it was signed for another place in the chain"));
    }
    if !registry.snapshot_counts(&name.identity, name.sequence, &name.id) {
        let why = "its key was revoked, and it is not among what the revocation left valid";
        return Err(Error::damaged(&name.name, why));
    }
    Ok(())
}
