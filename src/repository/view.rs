//! What exists now in a domain: read in the order registry, quarantine, tombstones, index, LIST of packs, so
//! that nothing that is about to die is taken for alive. (Whoever needs snapshots reads them before.)

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    Repository,
    index::{Index, Standing},
    records::{Found, again_if_gone},
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        envelope::{Envelope, Opener, RecordKind},
        pack::{IndexedPack, PackKind, decode_index},
        role::Role,
        tombstones::Tombstones,
    },
    id::{DomainId, IdentityId, ObjectId, PackId},
    limits,
    sabotage::{Sabotage, suffers},
    store::{Folder, Listed, Name, Parsed, Prefix, on_each},
};

/// What exists now.
#[derive(Debug)]
pub struct View {
    /// Packs and blobs, each with whether it is present and not tombstoned.
    pub index: Index,
    /// When the view began, on the boot-time clock.
    pub begun: Duration,
    /// Packs that LIST shows and no index names, with their sizes.
    pub unindexed: Vec<(PackId, u64)>,
    /// Packs that a valid tombstone names.
    pub tombstoned: HashSet<PackId>,
    /// Names of objects that are set aside.
    pub quarantined: HashSet<String>,
    /// Index objects and records that do not count, and why.
    pub damaged: Vec<Error>,
}

/// What a prune wants to know beside a view.
#[derive(Debug, Default)]
pub struct Details {
    /// Every pack that LIST shows and that is not set aside.
    pub packs: HashMap<PackId, ListedPack>,
    /// The batches of tombstones that count.
    pub batches: Vec<(Name, Tombstones)>,
}

/// A pack as LIST shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedPack {
    /// What it holds.
    pub kind: PackKind,
    /// Its size in bytes.
    pub size: u64,
    /// When the storage got it.
    pub stored: Timestamp,
}

/// An index object as LIST shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedIndex {
    /// Its object.
    pub name: Name,
    /// Who wrote it.
    pub writer: IdentityId,
    /// Its id.
    pub id: ObjectId,
    /// Its size in bytes.
    pub size: u64,
    /// When the storage got it.
    pub stored: Timestamp,
}

/// So many index objects are read and taken apart at a time: about 40 MiB of memory each while they are large.
pub(crate) const INDEXES_AT_ONCE: usize = 3;

/// What a view is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Nothing counts before another view is taken: the registry that is known will do.
    Plan,
    /// A dying pack is as good as any.
    Read,
    /// A dying pack must not be relied on.
    Write,
    /// As for writing, and an index object that cannot be read may list what is needed.
    Prune,
}

/// What the store shows of a domain.
struct Seen {
    quarantined: HashSet<String>,
    /// The batches of tombstones that count.
    batches: Vec<(Name, Tombstones)>,
    indexes: Vec<Listed>,
    packs: Vec<(PackId, ListedPack)>,
    damaged: Vec<Error>,
}

/// A pack as LIST shows it.
pub(super) fn pack(listed: &Listed) -> Option<(PackId, ListedPack)> {
    match Name::parse(&listed.name)?.parsed() {
        Parsed::Pack { kind, id, .. } => {
            Some((id, ListedPack { kind, size: listed.size, stored: listed.modified }))
        }
        _ => None,
    }
}

/// What to do about an index object that nobody can read.
const LIST_AGAIN: &str = "`lifeboat repair index` lists again what it listed, and sets it aside";

/// What to do about tombstones that nobody can read.
fn set_aside(tombstones: &Name) -> String {
    format!("Let no prune run, and set them aside: `lifeboat repair quarantine {tombstones} --apply`")
}

impl Repository {
    /// The packs of a domain as LIST shows them, those that are set aside too.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn listed_packs(&self, domain: &DomainId) -> Result<Vec<(PackId, ListedPack)>> {
        self.store.list_as(&Prefix::packs(domain), pack)
    }

    /// Looks at a domain.
    ///
    /// # Errors
    /// Storage trouble; a tombstone that cannot be read or whose signer is unknown, since ignoring one could
    /// lose data; `CannotUnlock` when this identity was revoked meanwhile.
    pub fn view(&self, domain: &DomainId) -> Result<View> {
        // An index object that is gone when it is read was compacted: then all of it is looked at again.
        again_if_gone(|| Ok(self.look(domain, Purpose::Write)?.0))
    }

    /// As [`Self::view`], by the registry as it was when the repository was opened: for whoever takes another
    /// view before anything counts.
    ///
    /// # Errors
    /// As [`Self::view`]; a revocation since then is met by the next view.
    pub fn first_view(&self, domain: &DomainId) -> Result<View> {
        again_if_gone(|| Ok(self.look(domain, Purpose::Plan)?.0))
    }

    /// As [`Self::view`], for whoever only reads: a tombstone that cannot be read is reported with the rest.
    ///
    /// # Errors
    /// Storage trouble; `CannotUnlock` when this identity was revoked meanwhile.
    pub fn view_of_reader(&self, domain: &DomainId) -> Result<View> {
        again_if_gone(|| Ok(self.look(domain, Purpose::Read)?.0))
    }

    /// As [`Self::view`], for whoever deletes: whatever may list something that is needed and cannot be read is
    /// an error, and the index is known to be intact.
    ///
    /// # Errors
    /// As [`Self::view`]; an index object cannot be read; the local cache is damaged again and again.
    pub fn view_to_prune(&self, domain: &DomainId) -> Result<(View, Details)> {
        for _ in 0..2 {
            let (view, details) = again_if_gone(|| self.look(domain, Purpose::Prune))?;
            if view.index.is_intact() {
                return Ok((view, details));
            }
        }
        Err(damaged_cache())
    }

    fn look(&self, domain: &DomainId, purpose: Purpose) -> Result<(View, Details)> {
        let begun = self.clock.elapsed();
        match purpose {
            Purpose::Plan => {}
            Purpose::Read => drop(self.registry_of_reader()?),
            Purpose::Write | Purpose::Prune => drop(self.look_for_registry()?),
        }
        let Seen { quarantined, batches, indexes, packs: listed, mut damaged } = self.see(domain, purpose)?;
        self.load_index(domain, indexes, (&quarantined, purpose), &mut damaged)?;
        // Each with its size, and whether an index lists it.
        let mut present = HashMap::new();
        let mut packs = HashMap::new();
        let mut aside = HashMap::new();
        for (id, pack) in listed {
            // Names are only made where something is set aside.
            if !quarantined.is_empty() && quarantined.contains(Name::pack(domain, pack.kind, &id).as_str()) {
                aside.insert(id, pack.size);
                continue;
            }
            present.insert(id, (pack.size, Cell::new(false)));
            if purpose == Purpose::Prune {
                packs.insert(id, pack);
            }
        }
        let tombstoned: HashSet<PackId> =
            batches.iter().flat_map(|(_, batch)| &batch.packs).copied().collect();
        let mut index = self.segments.index(domain, &|id, size| {
            let there = present.get(id).inspect(|(_, listed)| listed.set(true));
            let there = there.is_some_and(|(there, _)| *there == u64::from(size));
            match (there || suffers(Sabotage::NoList), tombstoned.contains(id)) {
                (true, false) => Standing::Live,
                (true, true) => Standing::Tombstoned,
                (false, _) if aside.get(id) == Some(&u64::from(size)) => Standing::SetAside,
                (false, _) => Standing::Missing,
            }
        });
        let unindexed = present.into_iter().filter(|(_, (_, listed))| !listed.get());
        let unindexed = unindexed.map(|(id, (size, _))| (id, size)).collect();
        if purpose == Purpose::Prune || self.may_borrow(domain, &index) {
            let attested = self.attested(domain, (&index, &quarantined), &mut damaged)?;
            index.attest(attested);
        }
        let view = View { index, begun, unindexed, tombstoned, quarantined, damaged };
        Ok((view, Details { packs, batches }))
    }

    /// Whether an index lists what one identity may use of another: where several back up, or an owner's prune has cut frames of
    /// the only one. Else nobody needs the word of a verifier.
    fn may_borrow(&self, domain: &DomainId, index: &Index) -> bool {
        self.registry().only_writer(domain).is_none_or(|writer| !index.is_all_by(&writer))
    }

    /// Asks the store, in the order that the purpose needs. A writer must see what dies before what lives, and each
    /// pack after the index that names it. A reader needs only the latter, and a plan neither.
    fn see(&self, domain: &DomainId, purpose: Purpose) -> Result<Seen> {
        let aside = || {
            let mut damaged = Vec::new();
            let quarantined = self.quarantined(domain, &mut damaged)?;
            let batches = self.tombstones(domain, (&quarantined, purpose), &mut damaged)?;
            Ok((quarantined, batches, damaged))
        };
        let indexes = || self.store.list(&Prefix::index(domain));
        let packs = || self.store.list_as(&Prefix::packs(domain), pack);
        let in_order = || Ok((indexes()?, packs()?));
        let (aside, listed) = match purpose {
            Purpose::Write | Purpose::Prune if suffers(Sabotage::TombstonesLast) => {
                let listed = in_order()?;
                (aside(), Ok(listed))
            }
            Purpose::Write | Purpose::Prune => (Ok(aside()?), in_order()),
            Purpose::Read => self.store.both(aside, in_order),
            Purpose::Plan => self.store.both(aside, || {
                let (indexes, packs) = self.store.both(indexes, packs);
                Ok((indexes?, packs?))
            }),
        };
        let ((quarantined, batches, damaged), (indexes, packs)) = (aside?, listed?);
        Ok(Seen { quarantined, batches, indexes, packs, damaged })
    }

    /// A view whose index is known to be intact, so that what it does not list is not there.
    ///
    /// # Errors
    /// As [`Repository::view_of_reader`]; the local cache is damaged again and again.
    pub fn view_to_read(&self, domain: &DomainId) -> Result<View> {
        for _ in 0..2 {
            let view = self.view_of_reader(domain)?;
            if view.index.is_intact() {
                return Ok(view);
            }
        }
        Err(damaged_cache())
    }

    /// The index objects of a domain, as LIST shows them.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn listed_index(&self, domain: &DomainId) -> Result<Vec<ListedIndex>> {
        let listed = self.store.list(&Prefix::index(domain))?.into_iter();
        Ok(listed
            .filter_map(|Listed { name, size, modified }| {
                let name = Name::parse(&name)?;
                let Parsed::Index { writer, id, .. } = name.parsed() else { return None };
                Some(ListedIndex { name, writer, id, size, stored: modified })
            })
            .collect())
    }

    /// The tombstones that count: signed by a maintain or owner identity. A damaged one fails the
    /// view of a writer until it is set aside: ignoring it could lose data. What dies may still be read.
    fn tombstones(
        &self,
        domain: &DomainId,
        (quarantined, purpose): (&HashSet<String>, Purpose),
        damaged: &mut Vec<Error>,
    ) -> Result<Vec<(Name, Tombstones)>> {
        let mut dying = Vec::new();
        for (name, _, record) in self.read_records(domain, Folder::Tombstones, quarantined)? {
            let plain = match record {
                Found::Counts(plain, _) => plain,
                Found::Ignored(error) => {
                    damaged.push(error);
                    continue;
                }
                Found::Unknown(error) | Found::Damaged(error) if purpose == Purpose::Read => {
                    damaged.push(error);
                    continue;
                }
                Found::Unknown(error) | Found::Damaged(error) => {
                    return Err(error.with_remedy(set_aside(&name)));
                }
            };
            match Tombstones::decode(&plain) {
                Ok(batch) => dying.push((name, batch)),
                Err(error) if purpose == Purpose::Read => damaged.push(error.context(&name)),
                Err(error) => return Err(error.context(&name).with_remedy(set_aside(&name))),
            }
        }
        Ok(dying)
    }

    /// Brings the segments up to the index objects that are there. A damaged object never blocks the rest.
    /// What a revoked identity wrote counts as far as its revocation says.
    fn load_index(
        &self,
        domain: &DomainId,
        indexes: Vec<Listed>,
        (quarantined, purpose): (&HashSet<String>, Purpose),
        damaged: &mut Vec<Error>,
    ) -> Result<()> {
        let mut unreadable = |error: Error| {
            if purpose == Purpose::Prune {
                return Err(error.with_remedy(LIST_AGAIN));
            }
            damaged.push(error);
            Ok(())
        };
        let mut revoked = Vec::new();
        let registry = self.registry();
        let mut names: HashMap<ObjectId, Vec<Name>> = HashMap::new();
        for listed in indexes {
            let Some(name) = Name::parse(&listed.name) else { continue };
            let Parsed::Index { writer, id, .. } = name.parsed() else { continue };
            if quarantined.contains(&listed.name) {
                continue;
            }
            if self.is_cut_short(&id, listed.size) {
                // What it lists is missing then, and the backup stores it again.
                unreadable(Error::damaged(&name, "the storage did not keep all of it"))?;
            } else if registry.record_counts(&writer, &id) {
                // Somebody else may have put a copy below a name of his own: that hides nothing.
                names.entry(id).or_default().push(name);
            } else {
                revoked.push(Error::damaged(&name, "it was written with a key that was revoked before"));
            }
        }
        let key = self.index_key(domain)?.segment_key();
        let mut listed: Vec<ObjectId> = names.keys().copied().collect();
        listed.sort_unstable();
        let missing = self.segments.prepare(domain, &listed, &key);
        let wrong = on_each(&missing, self.store.connections().min(INDEXES_AT_ONCE), |id| {
            match self.add_index(domain, (*id, names.get(id).map_or(&[], Vec::as_slice)), &key) {
                Err(error) if error.kind() == ErrorKind::Damaged => Ok(Some(error)),
                other => other.map(|()| None),
            }
        })?;
        wrong.into_iter().flatten().try_for_each(unreadable)?;
        damaged.extend(revoked);
        self.segments.merge(domain, &key);
        Ok(())
    }

    /// Adds what an index object says to the segments, from the first of its names that has it.
    fn add_index(&self, domain: &DomainId, (id, names): (ObjectId, &[Name]), key: &[u8; 32]) -> Result<()> {
        of_first_good(names, |name| {
            let packs = self.read_index(domain, name, id)?;
            self.segments.add(domain, id, &packs, key)
        })
        .map(drop)
    }

    /// One index object, as far as it counts: for sections that its signer wrote; a maintain identity's for any.
    ///
    /// # Errors
    /// `Damaged` when it counts for nothing; storage trouble.
    pub fn read_index(&self, domain: &DomainId, name: &Name, id: ObjectId) -> Result<Vec<IndexedPack>> {
        let bytes = self.store.read_hashed(name, limits::INDEX_BYTES_MAX, id.as_bytes())?;
        let envelope = Envelope::parse(&bytes, RecordKind::Index, &self.config.repository_id, domain)?;
        let role = self.verify_record(&envelope, domain, &id)?;
        if !matches!(name.parsed(), Parsed::Index { writer, .. } if writer == envelope.author()) {
            return Err(Error::damaged(name, "somebody else than its name says wrote it"));
        }
        let plain = envelope.open(&Opener::Symmetric(self.index_key(domain)?.as_bytes()))?;
        let mut packs = decode_index(&plain)?;
        match role {
            Role::Maintain | Role::Owner => {}
            Role::Backup => {
                let author = envelope.author();
                packs.retain(|pack| pack.directory.sections.iter().all(|section| section.author == author));
            }
            Role::Audit | Role::Restore => {
                let why = format!("a key with the role {} may not write it", role.name());
                return Err(Error::damaged("an index", why));
            }
        }
        Ok(packs)
    }
}

/// Which of an index object's names is the first that has it, and what is read there: somebody else may have put a copy below a
/// name of his own.
///
/// # Errors
/// `Damaged` when none has it; `NotFound` when one is gone and no other has it; as `read` for anything else.
pub(crate) fn of_first_good<T>(names: &[Name], read: impl Fn(&Name) -> Result<T>) -> Result<(usize, T)> {
    let mut trouble: Option<Error> = None;
    for (at, name) in names.iter().enumerate() {
        match read(name) {
            Ok(found) => return Ok((at, found)),
            Err(error) if error.kind() == ErrorKind::Damaged => {
                trouble.get_or_insert(error.context(name));
            }
            // Whether it was the good one nobody can tell any more.
            Err(error) if error.kind() == ErrorKind::NotFound => trouble = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(trouble.unwrap_or_else(|| Error::damaged("an index object", "it has no name")))
}

fn damaged_cache() -> Error {
    Error::new(ErrorKind::Failed, "the local cache is damaged as soon as it is written")
        .with_remedy("Its disk or this machine's memory may be faulty: use --no-cache")
}
