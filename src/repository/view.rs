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
    error::{Error, ErrorKind, Result},
    format::{
        envelope::{Envelope, Opener, RecordKind},
        pack::{IndexedPack, PackKind, decode_index},
        role::Role,
        tombstones::Tombstones,
    },
    id::{DomainId, ObjectId, PackId},
    limits,
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

/// So many index objects are read and taken apart at a time: about 40 MiB of memory each while they are large.
const INDEXES_AT_ONCE: usize = 3;

/// What a view is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Nothing counts before another view is taken: the registry that is known will do.
    Plan,
    /// A dying pack is as good as any.
    Read,
    /// A dying pack must not be relied on.
    Write,
}

/// What the store shows of a domain.
struct Seen {
    quarantined: HashSet<String>,
    tombstoned: HashSet<PackId>,
    indexes: Vec<Listed>,
    packs: Vec<(PackKind, PackId, u64)>,
    damaged: Vec<Error>,
}

/// A pack as LIST shows it.
fn pack(listed: &Listed) -> Option<(PackKind, PackId, u64)> {
    match Name::parse(&listed.name)?.parsed() {
        Parsed::Pack { kind, id, .. } => Some((kind, id, listed.size)),
        _ => None,
    }
}

impl Repository {
    /// Looks at a domain.
    ///
    /// # Errors
    /// Storage trouble; a tombstone that cannot be read or whose signer is unknown, since ignoring one could
    /// lose data; `CannotUnlock` when this identity was revoked meanwhile.
    pub fn view(&self, domain: &DomainId) -> Result<View> {
        // An index object that is gone when it is read was compacted: then all of it is looked at again.
        again_if_gone(|| self.look(domain, Purpose::Write))
    }

    /// As [`Self::view`], by the registry as it was when the repository was opened: for whoever takes another
    /// view before anything counts.
    ///
    /// # Errors
    /// As [`Self::view`]; a revocation since then is met by the next view.
    pub fn first_view(&self, domain: &DomainId) -> Result<View> {
        again_if_gone(|| self.look(domain, Purpose::Plan))
    }

    /// As [`Self::view`], for whoever only reads: a tombstone that cannot be read is reported with the rest.
    ///
    /// # Errors
    /// Storage trouble; `CannotUnlock` when this identity was revoked meanwhile.
    pub fn view_of_reader(&self, domain: &DomainId) -> Result<View> {
        again_if_gone(|| self.look(domain, Purpose::Read))
    }

    fn look(&self, domain: &DomainId, purpose: Purpose) -> Result<View> {
        let begun = self.clock.elapsed();
        match purpose {
            Purpose::Plan => {}
            Purpose::Read => drop(self.registry_of_reader()?),
            Purpose::Write => drop(self.look_for_registry()?),
        }
        let Seen { quarantined, tombstoned, indexes, packs, mut damaged } = self.see(domain, purpose)?;
        self.load_index(domain, indexes, &quarantined, &mut damaged)?;
        // Each with its size, and whether an index lists it.
        let mut present = HashMap::new();
        for (kind, id, size) in packs {
            // One that is set aside is there for nobody.
            if quarantined.is_empty() || !quarantined.contains(Name::pack(domain, kind, &id).as_str()) {
                present.insert(id, (size, Cell::new(false)));
            }
        }
        let mut index = self.segments.index(domain, &|id, size| {
            let there = present.get(id).inspect(|(_, listed)| listed.set(true));
            match (there.is_some_and(|(there, _)| *there == u64::from(size)), tombstoned.contains(id)) {
                (true, false) => Standing::Live,
                (true, true) => Standing::Tombstoned,
                (false, _) => Standing::Missing,
            }
        });
        let unindexed = present.into_iter().filter(|(_, (_, listed))| !listed.get());
        let unindexed = unindexed.map(|(id, (size, _))| (id, size)).collect();
        let attested = self.attested(domain, &index, &mut damaged)?;
        index.attest(attested);
        Ok(View { index, begun, unindexed, tombstoned, quarantined, damaged })
    }

    /// Asks the store, in the order that the purpose needs. A writer must see what dies before what lives, and each
    /// pack after the index that names it. A reader needs only the latter, and a plan neither.
    fn see(&self, domain: &DomainId, purpose: Purpose) -> Result<Seen> {
        let aside = || {
            let mut damaged = Vec::new();
            let quarantined = self.quarantined(domain, &mut damaged)?;
            let tombstoned = self.tombstoned(domain, (&quarantined, purpose), &mut damaged)?;
            Ok((quarantined, tombstoned, damaged))
        };
        let indexes = || self.store.list(&Prefix::index(domain));
        let packs = || self.store.list_as(&Prefix::packs(domain), pack);
        let in_order = || Ok((indexes()?, packs()?));
        let (aside, listed) = match purpose {
            Purpose::Write => (Ok(aside()?), in_order()),
            Purpose::Read => self.store.both(aside, in_order),
            Purpose::Plan => self.store.both(aside, || {
                let (indexes, packs) = self.store.both(indexes, packs);
                Ok((indexes?, packs?))
            }),
        };
        let ((quarantined, tombstoned, damaged), (indexes, packs)) = (aside?, listed?);
        Ok(Seen { quarantined, tombstoned, indexes, packs, damaged })
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
        Err(Error::new(ErrorKind::Failed, "the local cache is damaged as soon as it is written")
            .with_remedy("Its disk or this machine's memory may be faulty: use --no-cache"))
    }

    /// Packs that a valid tombstone names: signed by a maintain or owner identity. A damaged one fails the
    /// view of a writer until it is set aside: ignoring it could lose data. What dies may still be read.
    fn tombstoned(
        &self,
        domain: &DomainId,
        (quarantined, purpose): (&HashSet<String>, Purpose),
        damaged: &mut Vec<Error>,
    ) -> Result<HashSet<PackId>> {
        let mut dying = HashSet::new();
        for (name, id, mut record) in self.read_records(domain, Folder::Tombstones)? {
            if quarantined.contains(name.as_str()) {
                continue;
            }
            if matches!(record, Found::Unknown(_)) {
                // Its key may have been added since this view began.
                self.look_for_registry()?;
                record = self.read_record(domain, Folder::Tombstones, (&name, &id))?;
            }
            let plain = match record {
                Found::Counts(plain) => plain,
                Found::Ignored(error) => {
                    damaged.push(error);
                    continue;
                }
                Found::Unknown(error) | Found::Damaged(error) if purpose == Purpose::Read => {
                    damaged.push(error);
                    continue;
                }
                Found::Unknown(error) | Found::Damaged(error) => {
                    return Err(error.with_remedy("Look at it, then set it aside with `lifeboat repair`"));
                }
            };
            match Tombstones::decode(&plain) {
                Ok(batch) => dying.extend(batch.packs),
                Err(error) if purpose == Purpose::Read => damaged.push(error.context(&name)),
                Err(error) => return Err(error.context(&name)),
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
        quarantined: &HashSet<String>,
        damaged: &mut Vec<Error>,
    ) -> Result<()> {
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
                damaged.push(Error::damaged(&name, "the storage did not keep all of it"));
            } else if registry.record_counts(&writer, &id) {
                // Somebody else may have put a copy below a name of his own: that hides nothing.
                names.entry(id).or_default().push(name);
            } else {
                damaged.push(Error::damaged(&name, "it was written with a key that was revoked before"));
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
        damaged.extend(wrong.into_iter().flatten());
        self.segments.merge(domain, &key);
        Ok(())
    }

    /// Adds what an index object says to the segments, from the first of its names that has it.
    fn add_index(&self, domain: &DomainId, (id, names): (ObjectId, &[Name]), key: &[u8; 32]) -> Result<()> {
        let mut trouble: Option<Error> = None;
        for name in names {
            let packs = self.read_index(domain, name, id);
            match packs.and_then(|packs| self.segments.add(domain, id, &packs, key)) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    trouble.get_or_insert(error.context(name));
                }
                // Whether it was the good one nobody can tell any more.
                Err(error) if error.kind() == ErrorKind::NotFound => trouble = Some(error),
                Err(error) => return Err(error),
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// One index object. It counts for sections that its signer wrote; a maintain identity's for any.
    fn read_index(&self, domain: &DomainId, name: &Name, id: ObjectId) -> Result<Vec<IndexedPack>> {
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
