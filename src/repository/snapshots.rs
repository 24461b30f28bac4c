//! Snapshots as they are found in the store: names first, records when they can be read.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Repository,
    annotations::{Annotations, Hold},
    memory::Memory,
    records::Records,
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        envelope::{Envelope, Opener, RecordKind},
        forgotten::{ChainEnd, ChainPlace},
        registry::Registry,
        role::Role,
        snapshot::Snapshot,
    },
    id::{DomainId, IdentityId, ObjectId},
    limits,
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
    /// When it was written, by the storage's own clock.
    pub stored: Timestamp,
}

impl SnapshotName {
    /// Takes the name of an object apart, if it is that of a snapshot.
    #[must_use]
    pub fn of(listed: &Listed) -> Option<Self> {
        let name = Name::parse(&listed.name)?;
        let Parsed::Snapshot { domain, identity, sequence, id } = name.parsed() else { return None };
        Some(Self { name, domain, identity, sequence, id, stored: listed.modified })
    }

    /// Where it stands among those of its identity.
    #[must_use]
    pub const fn place_in_chain(&self) -> ChainPlace {
        ChainPlace { identity: self.identity, sequence: self.sequence }
    }
}

/// A snapshot that was read and checked.
#[derive(Clone, Debug)]
pub struct KnownSnapshot {
    /// Where it is.
    pub name: SnapshotName,
    /// What it says.
    pub record: Snapshot,
    /// Its tags: those of the record, as they were changed since.
    pub tags: Vec<String>,
    /// Why it must not end, if it must not.
    pub holds: Vec<Arc<Hold>>,
    /// Whether an owner wrote it as a copy of an older one: its time is not that at which it was written.
    pub is_copy: bool,
    /// The key epoch that it is sealed to: whoever lacks that reads nothing of it.
    pub epoch: u32,
}

/// Tags of copies begin with these: `rewritten-ID`, `repaired-ID`, `recovered`. One that comes from another repository
/// has an origin.
pub const TAG_REWRITTEN: &str = "rewritten-";
/// See [`TAG_REWRITTEN`].
pub const TAG_REPAIRED: &str = "repaired-";
/// See [`TAG_REWRITTEN`].
pub const TAG_RECOVERED: &str = "recovered";

/// Where a snapshot stands: its domain, whose it is, its number in that chain, and its id.
pub type Place = (DomainId, IdentityId, u64, ObjectId);

impl KnownSnapshot {
    /// Where it stands.
    #[must_use]
    pub const fn place(&self) -> Place {
        (self.name.domain, self.name.identity, self.name.sequence, self.name.id)
    }

    /// The key that it counts as of: of a copy that of its original, if that is known.
    #[must_use]
    pub fn writer(&self) -> IdentityId {
        self.record.original_writer.filter(|_| self.is_copy).unwrap_or(self.name.identity)
    }

    /// Where the one stands that it replaces. Only the very next one of the same chain replaces a snapshot: a stolen key must
    /// not hide another's.
    #[must_use]
    pub fn place_replaced(&self) -> Option<Place> {
        let id = self.record.replaces.filter(|id| self.record.previous == Some(*id))?;
        Some((self.name.domain, self.name.identity, self.name.sequence.checked_sub(1)?, id))
    }
}

/// Snapshots that others replace, to be found by what replaces them.
#[derive(Debug)]
pub struct Hidden<'a>(HashMap<Place, &'a KnownSnapshot>);

impl<'a> Hidden<'a> {
    /// Those that are replaced.
    #[must_use]
    pub fn new(replaced: &'a [KnownSnapshot]) -> Self {
        Self(replaced.iter().map(|known| (known.place(), known)).collect())
    }

    /// What hides behind a snapshot: the one that it replaces, what that one replaces, and so on.
    pub fn behind(&self, snapshot: &KnownSnapshot) -> impl Iterator<Item = &'a KnownSnapshot> {
        let next = |known: &KnownSnapshot| self.0.get(&known.place_replaced()?).copied();
        // Each is one number below the other, so there is an end.
        std::iter::successors(next(snapshot), move |known| next(known))
    }
}

/// So many names are given to set aside what is gone.
const GONE_NAMED_MAX: usize = 5;
/// What to do about snapshots that are gone and that nobody forgot.
const PUT_BACK: &str = "Put back what is gone from a copy or a version of the bucket, and look who deleted it. Let no prune run: \
                        `lifeboat recover` finds what lost snapshots held";

/// What is wrong with a snapshot or a chain, and in which domain.
pub type DamageIn = (DomainId, Error);

/// Where a chain ends.
#[derive(Debug)]
pub struct ChainHead {
    /// The number and id of its last snapshot.
    pub head: Option<(u64, ObjectId)>,
    /// What stands behind it and is not of this chain: somebody who may write there tried to stop it.
    pub forged: Vec<Error>,
}

/// A snapshot that this key cannot read, since it lacks the key epoch that it was written in.
#[derive(Clone, Debug)]
pub struct SealedSnapshot {
    /// Its name.
    pub name: SnapshotName,
    /// Why it cannot be read, with the epoch.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
}

/// Snapshots as they were found, each list with the oldest first.
#[derive(Debug)]
pub struct Snapshots {
    /// Those that count.
    pub listed: Vec<KnownSnapshot>,
    /// Those that came too late and were replaced by the next one of their chain. They may have gaps.
    pub replaced: Vec<KnownSnapshot>,
    /// What is damaged, missing or suspect.
    pub damaged: Vec<DamageIn>,
    /// Those that this key cannot read; why is among what is damaged too.
    pub sealed: Vec<SealedSnapshot>,
}

impl Snapshots {
    /// All that can be read, the oldest first.
    #[must_use]
    pub fn all(self) -> Vec<KnownSnapshot> {
        let mut all = self.listed;
        all.extend(self.replaced);
        sort_by_times_that_count(&mut all);
        all
    }
}

/// The snapshots of one domain, for whoever deletes what they do not need.
#[derive(Debug, Default)]
pub struct Roots {
    /// All that count, with those that another one replaces.
    pub known: Vec<KnownSnapshot>,
    /// Those of them that came too late and were replaced: they may have gaps.
    pub replaced: HashSet<ObjectId>,
    /// Everything that LIST showed below `snapshots/`.
    pub names: Vec<SnapshotName>,
    /// What is worth knowing: records that do not count, what a revoked key wrote, forks of chains.
    pub notes: Vec<Error>,
    /// Something that counts may be missing or unreadable.
    pub doubts: Vec<Error>,
    /// Snapshots that this key cannot read; each is a doubt too.
    pub sealed: Vec<SealedSnapshot>,
}

/// Each snapshot that was read, or why it was not.
type Readings = Vec<(SnapshotName, Result<KnownSnapshot>)>;

/// What LIST and the records show of a domain, and what is found out about it.
struct ListedDomain {
    id: DomainId,
    /// Snapshots that were forgotten or set aside.
    ended: HashSet<ObjectId>,
    /// What was forgotten, held or not, and where it stood.
    forgotten: HashMap<ObjectId, Option<ChainPlace>>,
    /// Where chains ended when something was forgotten.
    heads: HashSet<ChainEnd>,
    /// Where those stood that are set aside.
    set_aside: HashSet<ChainPlace>,
    annotations: Annotations,
    roots: Roots,
}

impl ListedDomain {
    fn wanted(&self) -> impl Iterator<Item = &SnapshotName> {
        self.roots.names.iter().filter(|name| !self.ended.contains(&name.id))
    }
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

    /// Whether the storage shows a snapshot of an identity, and nobody forgot it or set it aside.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn counts(&self, domain: &DomainId, identity: &IdentityId, id: &ObjectId) -> Result<bool> {
        let is_there = self.snapshot_names(domain, Some(identity))?.iter().any(|name| name.id == *id);
        Ok(is_there && !self.ended(domain)?.contains(id))
    }

    /// The snapshots of a domain that were forgotten or set aside, whatever is held.
    fn ended(&self, domain: &DomainId) -> Result<HashSet<ObjectId>> {
        let Records { forgotten, quarantined, .. } = self.records(domain)?;
        Ok(forgotten.into_keys().chain(ids_of_snapshots(&quarantined)).collect())
    }

    /// The last number and hash of a chain, its signature checked without any key. What somebody else put
    /// into the chain is passed over: else he could stop it with one object.
    ///
    /// # Errors
    /// The bytes of the head are damaged and it is not set aside; or the chain is our own and does not
    /// reach the head that this machine has seen.
    pub fn chain_head(&self, domain: &DomainId, identity: &IdentityId) -> Result<ChainHead> {
        let names = self.snapshot_names(domain, Some(identity))?;
        let registry = self.registry();
        let mut ended: Option<HashSet<ObjectId>> = None;
        // The usual case costs no request: what is set aside is only asked when something is wrong. Of a chain that
        // forked a machine may remember the end that was forgotten.
        let mut is_set_aside = |id: &ObjectId| -> Result<bool> {
            if ended.is_none() {
                ended = Some(self.ended(domain)?);
            }
            Ok(ended.as_ref().is_some_and(|ended| ended.contains(id)))
        };
        let mut chain = ChainHead { head: None, forged: Vec::new() };
        for name in names.iter().rev() {
            let wrong = match self.read_addressed(&name.name, &name.id) {
                Ok(bytes) => match self.check_bytes(&registry, name, &bytes) {
                    Ok(()) => {
                        chain.head = Some((name.sequence, name.id));
                        break;
                    }
                    // These are the bytes that were written under that name, and not by this identity.
                    Err(error) => Ok(error),
                },
                Err(error) => Err(error),
            };
            match (is_set_aside(&name.id)?, wrong) {
                (true, _) => {}
                (false, Ok(forged)) => chain.forged.push(forged),
                (false, Err(error)) => return Err(damaged_head(error, name)),
            }
        }
        if *identity == self.identity() {
            if let Some((sequence, id)) = self.memory.head(domain, identity) {
                let last = chain.head.map_or(0, |(sequence, _)| sequence);
                let gone = last < sequence || last == sequence && !names.iter().any(|name| name.id == id);
                if gone && !is_set_aside(&id)? {
                    let gone = Name::snapshot(domain, identity, sequence, &id);
                    return Err(Memory::older_head(last, (sequence, &gone)));
                }
            }
            if let Some(head) = chain.head {
                self.memory.saw_head(domain, identity, head);
            }
        }
        Ok(chain)
    }

    fn check_bytes(&self, registry: &Registry, name: &SnapshotName, bytes: &[u8]) -> Result<()> {
        let repository = &self.config.repository_id;
        let envelope = Envelope::parse(bytes, RecordKind::Snapshot, repository, &name.domain)
            .map_err(|error| error.context(&name.name))?;
        check_place(registry, name, &envelope)
    }

    /// Checks that a snapshot was signed for its place in the chain by whom `registry` certifies. No key is
    /// needed.
    ///
    /// # Errors
    /// `Damaged` when it was not; storage trouble.
    pub fn check_snapshot(&self, registry: &Registry, name: &SnapshotName) -> Result<()> {
        self.check_bytes(registry, name, &self.read_addressed(&name.name, &name.id)?)
    }

    /// Checks that the storage itself has a snapshot as its name says, whatever the cache has.
    ///
    /// # Errors
    /// `Damaged` when it has not; `Temporary` when somebody has ended it meanwhile; storage trouble.
    pub fn check_stored(&self, name: &SnapshotName) -> Result<()> {
        let read = self.store.read_hashed(&name.name, limits::RECORD_BYTES_MAX, name.id.as_bytes());
        let Err(error) = read else { return Ok(()) };
        let kind = error.kind();
        if kind == ErrorKind::NotFound && self.records(&name.domain)?.forgotten.contains_key(&name.id) {
            let what = format!("another `forget` has just ended {}", name.name);
            return Err(
                Error::new(ErrorKind::Temporary, what).with_remedy("Nothing was forgotten: run it again")
            );
        }
        if !matches!(kind, ErrorKind::Damaged | ErrorKind::NotFound) {
            return Err(error);
        }
        Err(error.with_kind(ErrorKind::Damaged).with_remedy(
            "It was to stay in place of others, so nothing was forgotten. Put an older version of that object back, or look at \
             what `lifeboat check` says, and run it again",
        ))
    }

    /// Reads one snapshot, without what was said of it later.
    ///
    /// # Errors
    /// `Damaged` when its bytes, signature or place are wrong, `Forbidden` without the metadata key.
    pub fn read_snapshot(&self, name: &SnapshotName) -> Result<KnownSnapshot> {
        let bytes = self.read_addressed(&name.name, &name.id)?;
        let repository = &self.config.repository_id;
        let envelope = Envelope::parse(&bytes, RecordKind::Snapshot, repository, &name.domain)
            .map_err(|error| error.context(&name.name))?;
        check_place(&self.registry(), name, &envelope)?;
        let record = self.metadata_key(envelope.epoch()).and_then(|_| {
            Snapshot::decode(&envelope.open(&Opener::Private(&|epoch| self.metadata_key(epoch).ok()))?)
        });
        let record = record.map_err(|error| error.context(&name.name))?;
        let is_copy = self.is_copy(&name.identity, &record);
        Ok(KnownSnapshot {
            epoch: envelope.epoch(),
            name: name.clone(),
            tags: record.tags.clone(),
            record,
            holds: Vec::new(),
            is_copy,
        })
    }

    /// Only an owner makes copies. Whoever else says so would give his snapshots any time that he likes.
    fn is_copy(&self, writer: &IdentityId, record: &Snapshot) -> bool {
        let registry = self.registry();
        let is_tag = |tag: &String| {
            [TAG_REWRITTEN, TAG_REPAIRED, TAG_RECOVERED].into_iter().any(|prefix| tag.starts_with(prefix))
        };
        registry.certificate(writer).is_some_and(|known| known.role == Role::Owner)
            && (record.origin.is_some() || record.tags.iter().any(is_tag))
    }

    /// The snapshots of all domains, oldest first, without those that another one replaces; and what is wrong.
    ///
    /// # Errors
    /// As [`Self::every_snapshot`].
    pub fn snapshots(&self) -> Result<(Vec<KnownSnapshot>, Vec<Error>)> {
        let Snapshots { listed, damaged, .. } = self.every_snapshot()?;
        Ok((listed, damaged.into_iter().map(|(_, error)| error).collect()))
    }

    /// All snapshots of all domains; those that were forgotten or set aside are left out. What is damaged,
    /// missing or suspect comes apart and never blocks the rest.
    ///
    /// # Errors
    /// Storage trouble; `Forbidden` without the metadata keys.
    pub fn every_snapshot(&self) -> Result<Snapshots> {
        if !self.reads_metadata() {
            return Err(self.forbidden("read snapshots", "audit"));
        }
        // A key that was added meanwhile may have written some of them.
        let registry = self.registry_of_reader()?;
        let listed = self.store.each(&registry.domains, |domain| match self.list_domain(&domain.id) {
            // Whoever may write there can make it so, and must not hide the snapshots of others.
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(Err((domain.id, error))),
            listed => listed.map(Ok),
        })?;
        let (mut known, mut damaged, mut domains) = (Vec::new(), Vec::new(), Vec::new());
        let mut sealed = Vec::new();
        for listed in listed {
            match listed {
                Ok(domain) => domains.push(domain),
                Err(error) => damaged.push(error),
            }
        }
        let read = self.read_snapshots(&domains)?;
        for (mut domain, read) in domains.into_iter().zip(read) {
            match self.judge(&mut domain, read) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Damaged => domain.roots.doubts.push(error),
                Err(error) => return Err(error),
            }
            let ListedDomain {
                id, roots: Roots { known: found, notes, doubts, sealed: of_domain, .. }, ..
            } = domain;
            known.extend(found);
            sealed.extend(of_domain);
            damaged.extend(notes.into_iter().chain(doubts).map(|error| (id, error)));
        }
        // That of the own key too: another machine may write it.
        self.memory.saw_chains(known.iter().map(KnownSnapshot::place));
        sort_by_times_that_count(&mut known);
        let hidden = replaced_among(&known);
        let (replaced, listed) = known.into_iter().partition(|known| hidden.contains(&known.name.id));
        Ok(Snapshots { listed, replaced, damaged, sealed })
    }

    /// The snapshots of one domain, for whoever deletes what they do not need.
    ///
    /// # Errors
    /// Storage trouble; `Forbidden` without the metadata keys.
    pub fn roots(&self, domain: &DomainId) -> Result<Roots> {
        if !self.reads_metadata() {
            return Err(self.forbidden("read snapshots", "audit"));
        }
        self.look_for_registry()?;
        let mut listed = self.list_domain(domain)?;
        for read in self.read_snapshots(std::slice::from_ref(&listed))? {
            self.judge(&mut listed, read)?;
        }
        let mut roots = listed.roots;
        roots.replaced = replaced_among(&roots.known);
        Ok(roots)
    }

    fn list_domain(&self, domain: &DomainId) -> Result<ListedDomain> {
        let names = self.snapshot_names(domain, None)?;
        // After the LIST: what was deleted since then was forgotten before.
        let Records { forgotten, heads, quarantined, mut ignored } = self.records(domain)?;
        let mut annotations = self.annotations(domain, &quarantined)?;
        ignored.append(&mut annotations.ignored);
        let doubts = std::mem::take(&mut annotations.doubts);
        let roots = Roots { names, notes: ignored, doubts, ..Roots::default() };
        let (mut ended, mut set_aside) = (HashSet::new(), HashSet::new());
        for (place, id) in places_of_snapshots(&quarantined) {
            set_aside.insert(place);
            ended.insert(id);
        }
        ended.extend(forgotten.keys().filter(|id| !annotations.is_held(id)));
        Ok(ListedDomain { id: *domain, ended, forgotten, heads, set_aside, annotations, roots })
    }

    /// Reads the snapshots of each domain, several at a time.
    ///
    /// # Errors
    /// Trouble that is not of one snapshot alone.
    fn read_snapshots(&self, domains: &[ListedDomain]) -> Result<Vec<Readings>> {
        let wanted: Vec<(usize, &SnapshotName)> = domains
            .iter()
            .enumerate()
            .flat_map(|(at, domain)| domain.wanted().map(move |name| (at, name)))
            .collect();
        let read = self.store.each(&wanted, |(_, name)| match self.read_snapshot(name) {
            Err(error) if !is_of_one_snapshot(&error) => Err(error),
            snapshot => Ok(snapshot),
        })?;
        let mut of_domains: Vec<Vec<_>> = domains.iter().map(|_| Vec::new()).collect();
        for ((at, name), snapshot) in wanted.into_iter().zip(read) {
            if let Some(of_domain) = of_domains.get_mut(at) {
                of_domain.push((name.clone(), snapshot));
            }
        }
        Ok(of_domains)
    }

    /// Which snapshots of a domain count, by what was read of it.
    fn judge(&self, domain: &mut ListedDomain, read: Readings) -> Result<()> {
        let ListedDomain { id: domain, ended, forgotten, heads, set_aside, annotations, roots } = domain;
        let registry = self.registry();
        for (name, snapshot) in read {
            match snapshot {
                Ok(mut snapshot) => {
                    annotations.annotate(&mut snapshot);
                    roots.known.push(snapshot);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    ended.extend(self.records(domain)?.forgotten.into_keys());
                    if !ended.contains(&name.id) {
                        roots.doubts.push(Error::damaged(&name.name, "it vanished and nobody forgot it"));
                    }
                }
                Err(error) if registry.snapshot_counts(&name.identity, name.sequence, &name.id) => {
                    if error.kind() == ErrorKind::Forbidden {
                        let (why, remedy) =
                            (error.to_string(), error.remedy().unwrap_or_default().to_owned());
                        roots.sealed.push(SealedSnapshot { name, why, remedy });
                    }
                    roots.doubts.push(error);
                }
                // What a revoked key has written since is nobody's.
                Err(error) => roots.notes.push(error),
            }
        }
        self.check_chains(ended, roots);
        // What is told by its name is not told once more by its number.
        let (mut told, mut lost) = (HashSet::new(), set_aside.clone());
        // Whoever has seen a newer world says so, also when only reading.
        let me = self.identity();
        if let Some((sequence, id)) = self.memory.head(domain, &me)
            && !ended.contains(&id)
            && !roots.names.iter().any(|name| name.id == id)
        {
            let own = roots.names.iter().filter(|name| name.identity == me);
            let last = own.map(|name| name.sequence).max().unwrap_or(0);
            let gone = Name::snapshot(domain, &me, sequence, &id);
            roots.doubts.push(Memory::older_head(last, (sequence, &gone)));
            told.insert(id);
        }
        self.check_heads(*domain, (heads, ended), (&mut told, &mut lost), roots)?;
        self.check_ends(*domain, (ended, &told), roots);
        check_numbers(*domain, (ended, forgotten, &lost), roots);
        if roots.names.is_empty() && set_aside.is_empty() && heads.is_empty() && !forgotten.is_empty() {
            let why = "it is empty, although the newest snapshot of each key always stays";
            let what = format!("the list of snapshots of the domain {domain}");
            roots.doubts.push(Error::damaged(what, why).with_remedy(PUT_BACK));
        }
        Ok(())
    }

    /// What was the end of a chain when something of its domain was forgotten is there, or was ended since. So whoever deletes
    /// the end of a chain, or all of it, is found out by machines that have never seen it, and after the chain began anew.
    ///
    /// # Errors
    /// Storage trouble.
    fn check_heads(
        &self,
        domain: DomainId,
        (heads, ended): (&HashSet<ChainEnd>, &HashSet<ObjectId>),
        (told, lost): (&mut HashSet<ObjectId>, &mut HashSet<ChainPlace>),
        roots: &mut Roots,
    ) -> Result<()> {
        let registry = self.registry();
        let there: HashSet<ObjectId> = roots.names.iter().map(|name| name.id).collect();
        let mut gone: Vec<&ChainEnd> = heads
            .iter()
            .filter(|ChainEnd { place: ChainPlace { identity, sequence }, id }| {
                let is_told = there.contains(id) || ended.contains(id) || told.contains(id);
                !is_told && registry.snapshot_counts(identity, *sequence, id)
            })
            .collect();
        gone.sort_unstable();
        if gone.is_empty() {
            return Ok(());
        }
        // It may have come, or been ended, since the storage was asked.
        let now: HashSet<ObjectId> =
            self.snapshot_names(&domain, None)?.into_iter().map(|name| name.id).collect();
        let ended_now = self.records(&domain)?.forgotten;
        for ChainEnd { place: place @ ChainPlace { identity, sequence }, id } in gone {
            let name = Name::snapshot(&domain, identity, *sequence, id);
            told.insert(*id);
            if now.contains(id) {
                roots.doubts.push(
                    Error::damaged("the list of snapshots", format!("it lacked {name}, which is there"))
                        .with_remedy(
                            "It came meanwhile, or the storage does not list everything: run it again",
                        ),
                );
            } else if !ended_now.contains_key(id) {
                lost.insert(*place);
                let seen = format!("its snapshot {sequence}, the last one when a `forget` ran, is gone");
                roots.doubts.push(lost_end(&registry, (identity, &name), seen));
            }
        }
        Ok(())
    }

    /// The numbers and ids of snapshots at which a chain has ended, by forgotten records and by what this machine has seen,
    /// but for what was ended since.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn known_ends(&self, domain: &DomainId, identity: &IdentityId) -> Result<Vec<(u64, ObjectId)>> {
        let Records { forgotten, heads, quarantined, .. } = self.records(domain)?;
        let aside = ids_of_snapshots(&quarantined);
        let recorded = heads.into_iter().map(|ChainEnd { place, id }| (place.identity, place.sequence, id));
        let all = recorded.chain(self.memory.last_of(domain));
        let counts = |(whose, _, id): &(IdentityId, u64, ObjectId)| {
            whose == identity && !forgotten.contains_key(id) && !aside.contains(id)
        };
        Ok(all.filter(counts).map(|(_, sequence, id)| (sequence, id)).collect())
    }

    /// The chains that end before a snapshot that this machine has read: a chain that was cut off looks whole to
    /// whoever has not seen more of it.
    fn check_ends(
        &self,
        domain: DomainId,
        (ended, told): (&HashSet<ObjectId>, &HashSet<ObjectId>),
        roots: &mut Roots,
    ) {
        let registry = self.registry();
        let mut last: HashMap<IdentityId, u64> = HashMap::new();
        for name in &roots.names {
            let last = last.entry(name.identity).or_default();
            *last = (*last).max(name.sequence);
        }
        for (identity, sequence, id) in self.memory.last_of(&domain) {
            let is_there = last.get(&identity).is_some_and(|last| *last >= sequence);
            if is_there
                || ended.contains(&id)
                || told.contains(&id)
                || !registry.snapshot_counts(&identity, sequence, &id)
            {
                continue;
            }
            let gone = Name::snapshot(&domain, &identity, sequence, &id);
            let seen = format!("its last snapshot that this machine has seen, number {sequence}, is gone");
            roots.doubts.push(lost_end(&registry, (&identity, &gone), seen));
        }
    }

    /// Reports links that are missing, forks, and snapshots that saw a newer registry than we were shown.
    fn check_chains(&self, ended: &HashSet<ObjectId>, roots: &mut Roots) {
        let Roots { known, names, notes, doubts, .. } = roots;
        let registry = self.registry();
        let places: HashMap<ObjectId, (IdentityId, u64)> =
            names.iter().map(|name| (name.id, (name.identity, name.sequence))).collect();
        for KnownSnapshot { name, record, .. } in known {
            let before = name.sequence.saturating_sub(1);
            let mut remedy = None;
            let why = match &record.previous {
                None if before == 0 => None,
                None => Some("it does not name the snapshot before it".to_owned()),
                Some(id) => match places.get(id) {
                    Some(place) if *place == (name.identity, before) => None,
                    Some(_) => Some("the snapshot that it names as the one before is not".to_owned()),
                    None if ended.contains(id) => None,
                    None => {
                        let gone = Name::snapshot(&name.domain, &name.identity, before, id);
                        remedy = Some(format!(
                            "Put it back, or look who deleted it. If it is lost for good, `lifeboat repair quarantine \
                             {gone} --force --apply` says so"
                        ));
                        Some(format!("the snapshot before it, {id}, is gone and nobody forgot it"))
                    }
                },
            };
            if let Some(why) = why {
                let error = Error::damaged(format!("the chain at {}", name.name), why);
                doubts.push(match remedy {
                    Some(remedy) => error.with_remedy(remedy),
                    None => error,
                });
            }
            if record.registry > registry.number {
                let (theirs, ours) = (record.registry, registry.number);
                let why = format!("it has seen registry {theirs}, and the newest one here is {ours}");
                doubts.push(
                    Error::damaged(format!("the registry, by {}", name.name), why)
                        .with_remedy("Somebody may hide a revoked key: look for deleted registry objects"),
                );
            }
        }
        let counts = |name: &&SnapshotName| {
            let shared = registry.certificate(&name.identity).is_some_and(|known| known.shared);
            !shared
                && !ended.contains(&name.id)
                && registry.snapshot_counts(&name.identity, name.sequence, &name.id)
        };
        let names: Vec<&SnapshotName> = names.iter().filter(counts).collect();
        for pair in names.windows(2) {
            let [first, second] = pair else { continue };
            if (first.identity, first.sequence) == (second.identity, second.sequence) {
                let why = format!("{} has the same number: two machines use one key", second.name);
                let error = Error::damaged(format!("the chain at {}", first.name), why);
                // Each of the two is there all the same.
                notes.push(error.with_remedy(
                    "If that is meant, or two backups ran at once, `lifeboat key share NAME`; else a copy of \
                         the key is out: `lifeboat key revoke NAME`",
                ));
            }
        }
    }
}

/// What the records of a domain say has ended: what counts as that (all but what is held), what was forgotten and where it
/// stood, and the places of what is set aside or was told to be lost.
type EndedIn<'a> =
    (&'a HashSet<ObjectId>, &'a HashMap<ObjectId, Option<ChainPlace>>, &'a HashSet<ChainPlace>);

/// A chain counts from 1 without gaps, so what is missing of it was forgotten or set aside, or is gone. Records of old say
/// of what was forgotten the id only: so many as they name may be missing anywhere.
fn check_numbers(domain: DomainId, (ended, forgotten, told_of): EndedIn<'_>, roots: &mut Roots) {
    let mut heads: HashMap<IdentityId, u64> = HashMap::new();
    for KnownSnapshot { name, .. } in &roots.known {
        let head = heads.entry(name.identity).or_default();
        *head = (*head).max(name.sequence);
    }
    // Behind a head stands only what does not count.
    let is_of_chain = |place: &ChainPlace| {
        place.sequence > 0 && heads.get(&place.identity).is_some_and(|head| place.sequence <= *head)
    };
    let ended_at = |id: &ObjectId| forgotten.get(id).copied().flatten();
    let there = roots.names.iter().map(SnapshotName::place_in_chain);
    let told = there.chain(ended.iter().filter_map(ended_at)).chain(told_of.iter().copied());
    let told: HashSet<ChainPlace> = told.filter(is_of_chain).collect();
    let ids: HashSet<ObjectId> = roots.names.iter().map(|name| name.id).collect();
    // One that the next names was told by that.
    let named = roots.known.iter().filter_map(|known| known.record.previous);
    let named: HashSet<ObjectId> = named.filter(|id| !ids.contains(id) && !ended.contains(id)).collect();
    let is_anywhere = |id: &&ObjectId| forgotten.get(*id) == Some(&None) && !ids.contains(*id);
    let accounted = named.len() + ended.iter().filter(is_anywhere).count();
    let all = heads.values().fold(0, |sum: u64, head| sum.saturating_add(*head));
    let gone = all.saturating_sub((told.len() + accounted) as u64);
    if gone == 0 {
        return;
    }
    let mut heads: Vec<_> = heads.into_iter().collect();
    heads.sort_unstable();
    let places = heads.iter().flat_map(|(identity, head)| {
        (1..=*head).map(|sequence| ChainPlace { identity: *identity, sequence })
    });
    let names: Vec<String> = places
        .filter(|place| !told.contains(place))
        .take(usize::try_from(gone).unwrap_or(usize::MAX).min(GONE_NAMED_MAX))
        .map(|place| name_of_lost(&domain, place).to_string())
        .collect();
    let why = format!("its chains lack {gone} more than were forgotten or set aside");
    roots.doubts.push(
        Error::damaged(format!("the list of snapshots of the domain {domain}"), why).with_remedy(format!(
            "{PUT_BACK}. If it is lost for good, `lifeboat repair quarantine {} --force --apply` says so{}",
            names.join(" "),
            if gone > GONE_NAMED_MAX as u64 { ", and run it again" } else { "" }
        )),
    );
}

/// A name for a snapshot that nobody knows, to set its place aside by.
fn name_of_lost(domain: &DomainId, ChainPlace { identity, sequence }: ChainPlace) -> Name {
    let hash = blake3::hash(&[identity.as_bytes().as_slice(), &sequence.to_le_bytes()].concat());
    Name::snapshot(domain, &identity, sequence, &ObjectId::new(*hash.as_bytes()))
}

/// The end of a chain is gone, and that was not said by whoever may.
fn lost_end(registry: &Registry, (identity, gone): (&IdentityId, &Name), why: String) -> Error {
    let label = registry.certificate(identity).map_or("", |known| known.label.as_str());
    Error::damaged(format!("the chain of the key `{label}`"), why).with_remedy(format!(
        "{PUT_BACK}. If it is lost for good, `lifeboat repair quarantine {gone} --force --apply` says so"
    ))
}

fn replaced_among(known: &[KnownSnapshot]) -> HashSet<ObjectId> {
    let replaced: HashSet<Place> = known.iter().filter_map(KnownSnapshot::place_replaced).collect();
    known
        .iter()
        .map(KnownSnapshot::place)
        .filter(|place| replaced.contains(place))
        .map(|(.., id)| id)
        .collect()
}

/// Whether it says nothing of the other snapshots.
fn is_of_one_snapshot(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::Forbidden)
}

/// The last snapshot of a chain cannot be trusted, so nothing can follow it.
fn damaged_head(error: Error, name: &SnapshotName) -> Error {
    if error.kind() != ErrorKind::Damaged {
        return error;
    }
    error.context("the last snapshot of this key").with_remedy(format!(
        "Put an older version of that object back if the storage has one. Else let `lifeboat recover` with an owner's key make \
         a snapshot of what it held, before any prune, and set it aside with the owner's or a maintain key, `lifeboat repair \
         quarantine {} --apply`: the next backup follows the one before",
        name.name
    ))
}

/// The time that counts for each snapshot: its own, but not later than its storage time and not earlier than
/// that of the one before it of the same host in its chain (where machines share a key, one must not make
/// another look newer). So a wrong clock makes a backup look old, never new. A copy has the time of what it is a copy of,
/// wherever it stands in the chain: else it would push out the newest backups.
#[must_use]
pub fn times_that_count(snapshots: &[KnownSnapshot]) -> HashMap<ObjectId, Timestamp> {
    let mut in_order: Vec<&KnownSnapshot> = snapshots.iter().collect();
    in_order.sort_by_key(|known| (known.name.identity, &known.record.host, known.name.sequence));
    let (mut times, mut before) = (HashMap::new(), None);
    for KnownSnapshot { name, record, is_copy, .. } in in_order {
        if *is_copy {
            times.insert(name.id, record.time.min(name.stored));
            continue;
        }
        let who = (name.identity, &record.host);
        let floor = before.filter(|(last, _)| *last == who).map(|(_, time)| time);
        let time = floor.map_or(record.time, |floor| record.time.max(floor)).min(name.stored);
        times.insert(name.id, time);
        before = Some((who, time));
    }
    times
}

/// The oldest first, by the times that count: `latest` is not whatever a wrong clock calls so. Of a snapshot and a copy that
/// lacks some of it the former comes later.
fn sort_by_times_that_count(snapshots: &mut [KnownSnapshot]) {
    let times = times_that_count(snapshots);
    snapshots.sort_by_key(|known| {
        let is_whole = !(known.is_copy && known.record.unreadable > 0);
        (times.get(&known.name.id).copied(), is_whole, known.name.sequence, known.name.id)
    });
}

/// The ids of the snapshots among names of objects.
pub(crate) fn ids_of_snapshots(names: &HashSet<String>) -> HashSet<ObjectId> {
    places_of_snapshots(names).map(|(_, id)| id).collect()
}

fn places_of_snapshots(names: &HashSet<String>) -> impl Iterator<Item = (ChainPlace, ObjectId)> {
    names.iter().filter_map(|name| match Name::parse(name)?.parsed() {
        Parsed::Snapshot { identity, sequence, id, .. } => Some((ChainPlace { identity, sequence }, id)),
        _ => None,
    })
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
        let remedy = format!(
            "No older version of it counts either. `lifeboat repair quarantine {} --apply` sets it aside: then it is told no more",
            name.name
        );
        return Err(Error::damaged(&name.name, why).with_remedy(remedy));
    }
    Ok(())
}
