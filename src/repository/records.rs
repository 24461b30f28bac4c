//! Records that only some roles may write: attestations, forgotten snapshots, tombstones, quarantine.
//! Promise: one counts only with the signature of an identity whose role allows it, and which was not
//! revoked before. Everything else is reported and changes nothing.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{Repository, index::Index};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        annotation::Annotation,
        attestation::Attestation,
        envelope::{self, Envelope, EnvelopeHeader, Opener, RecordKind, Sealer},
        forgotten::{ChainEnd, ChainPlace, Forgotten},
        quarantine::Quarantine,
        registry::{Certificate, Domain, Registry, Use},
        role::Role,
        tombstones::Tombstones,
    },
    id::{DomainId, IdentityId, ObjectId, SectionId},
    limits,
    store::{Folder, Listed, Name, Parsed, Prefix},
};

/// What the records of a domain say.
#[derive(Debug, Default)]
pub struct Records {
    /// Snapshots that ended, and where they stood, if their record says so.
    pub forgotten: HashMap<ObjectId, Option<ChainPlace>>,
    /// Where chains ended when something of the domain was forgotten.
    pub heads: HashSet<ChainEnd>,
    /// Names of objects that are set aside.
    pub quarantined: HashSet<String>,
    /// Records that do not count, and why.
    pub ignored: Vec<Error>,
}

/// What a revocation leaves valid of an identity, beside its snapshots.
#[derive(Debug, Default)]
pub struct Left {
    /// Its index objects and other records, in the order of their ids.
    pub records: Vec<ObjectId>,
    /// What of it is not among them: there were too many.
    pub dropped: Dropped,
    /// When they were listed, on the boot-time clock.
    pub listed: Duration,
}

/// How many objects a revocation does not leave valid, because there were too many of their kind: the youngest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Index objects. What they list is in the packs too.
    pub indexes: u64,
    /// Attestations. The next check attests it again.
    pub attestations: u64,
    /// Reports of checks and drills.
    pub reports: u64,
}

/// A record as it was found.
pub(super) enum Found {
    /// It counts: its plaintext, and who signed it.
    Counts(Zeroizing<Vec<u8>>, (IdentityId, Role)),
    /// It is intact, but whoever wrote it may not.
    Ignored(Error),
    /// It is well signed by somebody whom the newest registry does not know.
    Unknown(Error),
    /// Somebody who may wrote it, perhaps, and it cannot be read.
    Damaged(Error),
}

/// What was listed and is not there when it is read was replaced meanwhile. So it is begun again, but not for
/// ever.
const STARTS_MAX: u32 = 5;

/// Looks again while what was listed is gone when it is read.
///
/// # Errors
/// As `look`; `Temporary` when it is gone each time.
pub(super) fn again_if_gone<T>(look: impl Fn() -> Result<T>) -> Result<T> {
    for _ in 1..STARTS_MAX {
        match look() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => return other,
        }
    }
    look().map_err(|error| {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        error
            .with_kind(ErrorKind::Temporary)
            .with_remedy("The storage lists it all the same: if that does not pass, its LIST is wrong")
    })
}

/// The kind of the records in a folder.
#[must_use]
pub const fn kind_of(folder: Folder) -> RecordKind {
    match folder {
        Folder::Attestations => RecordKind::Attestation,
        Folder::Annotations => RecordKind::Annotation,
        Folder::Forgotten => RecordKind::Forgotten,
        Folder::Tombstones => RecordKind::Tombstones,
        Folder::Quarantine => RecordKind::Quarantine,
    }
}

const fn may_write(role: Role, folder: Folder) -> bool {
    match folder {
        Folder::Attestations => matches!(role, Role::Restore | Role::Owner),
        Folder::Forgotten | Folder::Tombstones | Folder::Quarantine => {
            matches!(role, Role::Maintain | Role::Owner)
        }
        Folder::Annotations => matches!(role, Role::Maintain | Role::Restore | Role::Owner),
    }
}

impl Repository {
    fn publish_record(&self, domain: &DomainId, folder: Folder, plain: &[u8]) -> Result<Name> {
        if !may_write(self.role(), folder) {
            let least = if folder == Folder::Attestations { "restore" } else { "maintain" };
            return Err(self.forbidden(&format!("write {}", folder.name()), least));
        }
        if matches!(folder, Folder::Forgotten | Folder::Tombstones) {
            self.registry().check_features(Use::Prune)?;
        }
        let sealed = self.seal_record(domain, folder, plain)?;
        let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
        let name = Name::record(domain, folder, &id);
        self.store.create(&name, Bytes::from(sealed))?;
        Ok(name)
    }

    /// What every client may know is sealed with the index key. Tags and reasons of holds are for those who read
    /// snapshots.
    fn seal_record(&self, domain: &DomainId, folder: Folder, plain: &[u8]) -> Result<Vec<u8>> {
        let header = EnvelopeHeader {
            kind: kind_of(folder),
            repository: self.config.repository_id,
            domain: *domain,
            author: self.identity(),
            sequence: 0,
            epoch: 0,
        };
        if folder == Folder::Annotations {
            let (epoch, public) = self.metadata_public()?;
            let header = EnvelopeHeader { epoch, ..header };
            return envelope::seal(&header, &Sealer::Public(public), self.signer(), plain);
        }
        let key = self.index_key(domain)?;
        envelope::seal(&header, &Sealer::Symmetric(key.as_bytes()), self.signer(), plain)
    }

    /// Writes something about snapshots: see [`Repository::annotations`].
    ///
    /// # Errors
    /// `Forbidden` for a role that may not say this; more than one annotation may say; storage trouble.
    pub fn publish_annotation(&self, domain: &DomainId, annotation: &Annotation) -> Result<Name> {
        self.check_right_to_say(&annotation.says)?;
        let plain = annotation.encode();
        Annotation::decode(&plain)?;
        self.publish_record(domain, Folder::Annotations, &plain)
    }

    /// Writes that sections were verified by decrypting them.
    ///
    /// # Errors
    /// `Forbidden` for all but restore and owner; more sections than one record may name; storage trouble.
    pub fn publish_attestation(&self, domain: &DomainId, attestation: &Attestation) -> Result<Name> {
        let plain = attestation.encode();
        Attestation::decode(&plain)?;
        self.publish_record(domain, Folder::Attestations, &plain)
    }

    /// Writes that snapshots end; only then may they be deleted.
    ///
    /// # Errors
    /// `Forbidden` for all but maintain and owner; a larger batch than may be; storage trouble.
    pub fn publish_forgotten(&self, domain: &DomainId, forgotten: &Forgotten) -> Result<Name> {
        let plain = forgotten.encode();
        Forgotten::decode(&plain)?;
        self.publish_record(domain, Folder::Forgotten, &plain)
    }

    /// Writes that packs are to die. Whoever does so has seen that no snapshot needs them; only a later
    /// prune deletes them, when this is older than the grace.
    ///
    /// # Errors
    /// As [`Self::publish_forgotten`].
    pub fn publish_tombstones(&self, domain: &DomainId, tombstones: &Tombstones) -> Result<Name> {
        let plain = tombstones.encode();
        Tombstones::decode(&plain)?;
        self.publish_record(domain, Folder::Tombstones, &plain)
    }

    /// Writes that objects are set aside.
    ///
    /// # Errors
    /// As [`Self::publish_forgotten`].
    pub fn publish_quarantine(&self, domain: &DomainId, quarantine: &Quarantine) -> Result<Name> {
        let plain = quarantine.encode();
        Quarantine::decode(&plain)?;
        self.publish_record(domain, Folder::Quarantine, &plain)
    }

    /// Checks who signed a record that is not a snapshot, and that a revocation left it valid.
    pub(super) fn verify_record(
        &self,
        envelope: &Envelope<'_>,
        domain: &DomainId,
        id: &ObjectId,
    ) -> Result<Role> {
        let role = self.verify_author(envelope, domain)?;
        if self.registry().record_counts(&envelope.author(), id) {
            return Ok(role);
        }
        let author = envelope.author();
        Err(Error::damaged("a signed object", format!("{author} was revoked, and did not leave it behind")))
    }

    /// The bytes of an object that its id names, from the cache if they are there.
    pub(super) fn read_addressed(&self, name: &Name, id: &ObjectId) -> Result<Vec<u8>> {
        if let Some(bytes) = self.cache.object(id) {
            return Ok(bytes);
        }
        let bytes = self.store.read_hashed(name, limits::RECORD_BYTES_MAX, id.as_bytes())?;
        self.cache.keep_object(id, &bytes);
        Ok(bytes.to_vec())
    }

    /// Everything in one folder of a domain that parses as a record's name, and when the storage got it.
    fn record_names(&self, domain: &DomainId, folder: Folder) -> Result<Vec<(Name, ObjectId, Timestamp)>> {
        let listed = self.store.list(&Prefix::records(domain, folder))?;
        let names = listed.into_iter().filter_map(|Listed { name, modified, .. }| {
            let name = Name::parse(&name)?;
            let Parsed::Record { id, .. } = name.parsed() else { return None };
            Some((name, id, modified))
        });
        Ok(names.collect())
    }

    pub(super) fn read_record(
        &self,
        domain: &DomainId,
        folder: Folder,
        (name, id): (&Name, &ObjectId),
    ) -> Result<Found> {
        let bytes = match self.read_addressed(name, id) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Damaged => return Ok(Found::Damaged(error)),
            Err(error) => return Err(error),
        };
        // The bytes have the hash that names them: no disk and no network changed them. So what is wrong with
        // the record from here on was wrong when it was written, and waiting for better bytes is no use.
        let parsed = Envelope::parse(&bytes, kind_of(folder), &self.config.repository_id, domain);
        if let Ok(envelope) = &parsed
            && self.registry().certificate(&envelope.author()).is_none()
            && envelope.verify(envelope.author_key()).is_ok()
        {
            let why = format!("the registry does not know {}, who signed it", envelope.author());
            return Ok(Found::Unknown(Error::damaged(name, why)));
        }
        let signed = parsed.and_then(|envelope| Ok((self.verify_record(&envelope, domain, id)?, envelope)));
        let (role, envelope) = match signed {
            Ok((role, envelope)) if may_write(role, folder) => (role, envelope),
            Ok((role, _)) => {
                let why = format!("a key with the role {} may not write it", role.name());
                return Ok(Found::Ignored(Error::damaged(name, why)));
            }
            Err(error) => return Ok(Found::Ignored(error.context(name))),
        };
        let opened = if folder == Folder::Annotations {
            self.metadata_key(envelope.epoch())
                .and_then(|_| envelope.open(&Opener::Private(&|epoch| self.metadata_key(epoch).ok())))
        } else {
            envelope.open(&Opener::Symmetric(self.index_key(domain)?.as_bytes()))
        };
        Ok(match opened {
            Ok(plain) => Found::Counts(plain, (envelope.author(), role)),
            Err(error) => Found::Damaged(error.context(name)),
        })
    }

    /// What is wrong with a record, so that it does not count.
    ///
    /// # Errors
    /// It is gone; storage trouble; `Forbidden` without the index key of the domain.
    pub fn fault_of_record(
        &self,
        domain: &DomainId,
        folder: Folder,
        (name, id): (&Name, &ObjectId),
    ) -> Result<Option<Error>> {
        let plain = match self.read_record(domain, folder, (name, id))? {
            Found::Counts(plain, _) => plain,
            // It may be fine: who has the key of its epoch can tell.
            Found::Damaged(error) if error.kind() == ErrorKind::Forbidden => return Err(error),
            Found::Ignored(error) | Found::Unknown(error) | Found::Damaged(error) => return Ok(Some(error)),
        };
        let decoded = match folder {
            Folder::Attestations => Attestation::decode(&plain).map(drop),
            Folder::Forgotten => Forgotten::decode(&plain).map(drop),
            Folder::Tombstones => Tombstones::decode(&plain).map(drop),
            Folder::Quarantine => Quarantine::decode(&plain).map(drop),
            Folder::Annotations => Annotation::decode(&plain).map(drop),
        };
        Ok(decoded.err().map(|error| error.context(name)))
    }

    /// The records of one folder that are not set aside, each with its name and id. If somebody wrote one whom the
    /// registry does not know, it is looked for again: the key may have been added since it was read.
    pub(super) fn read_records(
        &self,
        domain: &DomainId,
        folder: Folder,
        aside: &HashSet<String>,
    ) -> Result<Vec<(Name, ObjectId, Found)>> {
        let read = || -> Result<Vec<_>> {
            let names = self.record_names(domain, folder)?.into_iter();
            let names = names.filter(|(name, ..)| !aside.contains(name.as_str()));
            let read = names.map(|(name, id, _)| {
                let found = self.read_record(domain, folder, (&name, &id))?;
                Ok((name, id, found))
            });
            let mut records = read.collect::<Result<Vec<_>>>()?;
            let is_unknown = |record: &Found| matches!(record, Found::Unknown(_));
            if records.iter().any(|(.., record)| is_unknown(record)) {
                self.look_for_registry()?;
            }
            for (name, id, record) in records.iter_mut().filter(|(.., record)| is_unknown(record)) {
                *record = self.read_record(domain, folder, (name, id))?;
            }
            Ok(records)
        };
        // One that went since the LIST was compacted: what stands in its place may be in the next LIST only.
        again_if_gone(read)
    }

    fn decoded<T>(
        &self,
        domain: &DomainId,
        (folder, aside): (Folder, &HashSet<String>),
        decode: impl Fn(&[u8]) -> Result<T>,
        ignored: &mut Vec<Error>,
    ) -> Result<Vec<(T, Role)>> {
        let mut all = Vec::new();
        for (name, _, record) in self.read_records(domain, folder, aside)? {
            match record {
                Found::Counts(plain, (_, role)) => match decode(&plain) {
                    Ok(record) => all.push((record, role)),
                    Err(error) => ignored.push(error.context(&name)),
                },
                Found::Ignored(error) | Found::Unknown(error) | Found::Damaged(error) => ignored.push(error),
            }
        }
        Ok(all)
    }

    /// The names of objects that are set aside. A record that cannot be read sets nothing aside.
    pub(super) fn quarantined(&self, domain: &DomainId, ignored: &mut Vec<Error>) -> Result<HashSet<String>> {
        let all = self.decoded(domain, (Folder::Quarantine, &HashSet::new()), Quarantine::decode, ignored)?;
        Ok(all.into_iter().flat_map(|(record, _)| record.objects).collect())
    }

    /// What ended and what is set aside in a domain.
    ///
    /// # Errors
    /// Storage trouble; `Forbidden` without the index key of the domain.
    pub fn records(&self, domain: &DomainId) -> Result<Records> {
        let mut ignored = Vec::new();
        let (aside, batches) = self.store.both(
            || {
                let mut ignored = Vec::new();
                self.quarantined(domain, &mut ignored).map(|quarantined| (quarantined, ignored))
            },
            || self.decoded(domain, (Folder::Forgotten, &HashSet::new()), Forgotten::decode, &mut ignored),
        );
        let (mut forgotten, mut heads) = (HashMap::new(), HashSet::new());
        for (Forgotten { snapshots, places, heads: ends, .. }, _) in batches? {
            heads.extend(ends);
            let mut places = places.into_iter();
            forgotten.extend(snapshots.into_iter().map(|id| (id, places.next())));
        }
        let (quarantined, more) = aside?;
        ignored.extend(more);
        Ok(Records { forgotten, heads, quarantined, ignored })
    }

    /// The sections of an index that a verifier vouches for, each with whether an owner does. A section counts only if every
    /// place where it is listed says what was attested: so a directory that lies about it gains nothing.
    pub(super) fn attested(
        &self,
        domain: &DomainId,
        (index, aside): (&Index, &HashSet<String>),
        ignored: &mut Vec<Error>,
    ) -> Result<HashMap<SectionId, bool>> {
        let mut said: HashMap<SectionId, HashMap<[u8; 32], bool>> = HashMap::new();
        let all = self.decoded(domain, (Folder::Attestations, aside), Attestation::decode, ignored)?;
        for (attestation, role) in all {
            for section in attestation.sections {
                let by_owner = said.entry(section.id).or_default().entry(section.digest).or_default();
                *by_owner |= role == Role::Owner;
            }
        }
        let (mut good, mut bad) = (HashMap::new(), HashSet::new());
        if said.is_empty() {
            return Ok(good);
        }
        for (id, digest) in index.sections() {
            let Some(digests) = said.get(&id) else { continue };
            match digests.get(&digest) {
                Some(by_owner) => *good.entry(id).or_insert(true) &= by_owner,
                None => _ = bad.insert(id),
            }
        }
        good.retain(|id, _| !bad.contains(id));
        Ok(good)
    }

    /// The ids of everything that an identity has signed beside its snapshots and runs: what a revocation leaves
    /// valid. What cannot be read now is among it, since its name stands for its bytes: a hold or a tombstone that comes
    /// back must count again. `registry` is the newest: the one that this repository was opened with may not know
    /// the identity yet.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn records_of(&self, registry: &Registry, known: &Certificate) -> Result<Left> {
        let Certificate { identity, role, domain: own, .. } = known;
        let listed = self.clock.elapsed();
        let (mut indexes, mut attestations, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for Domain { id: domain, .. } in &registry.domains {
            let writes_index = match role {
                Role::Backup => *own == Some(*domain),
                Role::Maintain | Role::Owner => true,
                Role::Audit | Role::Restore => false,
            };
            if writes_index {
                let objects = self.listed_index(domain)?.into_iter();
                let theirs = objects.filter(|object| object.writer == *identity);
                indexes.extend(theirs.map(|object| (object.stored, object.id)));
            }
            for folder in Folder::ALL.into_iter().filter(|folder| may_write(*role, *folder)) {
                let theirs = self.signed_by(domain, folder, identity)?;
                if folder == Folder::Attestations {
                    attestations.extend(theirs);
                } else {
                    all.extend(theirs.into_iter().map(|(_, id)| id));
                }
            }
        }
        let mut reports = Vec::new();
        if *role != Role::Backup {
            for Listed { name, modified, .. } in self.store.list(&Prefix::evidence())? {
                if let Some(Parsed::Evidence { identity: author, id, .. }) =
                    Name::parse(&name).map(|name| name.parsed())
                    && author == *identity
                {
                    reports.push((modified, id));
                }
            }
        }
        let mut keep = |objects| {
            let (oldest, dropped) = oldest(objects, limits::REVOKED_FOLDER_MAX);
            all.extend(oldest);
            dropped
        };
        let dropped =
            Dropped { indexes: keep(indexes), attestations: keep(attestations), reports: keep(reports) };
        all.sort_unstable();
        all.dedup();
        Ok(Left { records: all, dropped, listed })
    }

    /// The records of a folder that are an identity's, or may be, and when the storage got each.
    fn signed_by(
        &self,
        domain: &DomainId,
        folder: Folder,
        identity: &IdentityId,
    ) -> Result<Vec<(Timestamp, ObjectId)>> {
        let names = self.record_names(domain, folder)?;
        let theirs = self
            .store
            .each(&names, |(name, id, _)| self.may_be_by(identity, (domain, folder), (name, id)))?;
        let theirs = names.into_iter().zip(theirs).filter(|(_, theirs)| *theirs);
        Ok(theirs.map(|((_, id, stored), _)| (stored, id)).collect())
    }

    /// Whether it is a well signed record of an identity, or nobody can tell now.
    fn may_be_by(
        &self,
        identity: &IdentityId,
        (domain, folder): (&DomainId, Folder),
        (name, id): (&Name, &ObjectId),
    ) -> Result<bool> {
        let bytes = match self.read_addressed(name, id) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let envelope = Envelope::parse(&bytes, kind_of(folder), &self.config.repository_id, domain);
        Ok(envelope.is_ok_and(|envelope| {
            envelope.author() == *identity && envelope.verify(envelope.author_key()).is_ok()
        }))
    }
}

/// The objects that the storage has had for longest, and how many are left out. Whoever overwrites one makes it younger.
fn oldest(mut objects: Vec<(Timestamp, ObjectId)>, most: usize) -> (impl Iterator<Item = ObjectId>, u64) {
    objects.sort_unstable();
    let dropped = objects.len().saturating_sub(most) as u64;
    (objects.into_iter().take(most).map(|(_, id)| id), dropped)
}
