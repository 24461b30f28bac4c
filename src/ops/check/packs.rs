//! Reads whole packs and checks every byte: the name, the directory, each frame, each blob.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use super::subset::Subset;
use crate::{
    compress::Decompressor,
    error::{Error, ErrorKind, Result},
    format::{
        attestation::{AttestedSection, digest},
        ledger::Shelf,
        pack::{Directory, IndexedPack, PackKind, SectionHeader},
    },
    id::{BlobId, DomainId, IdentityId, PackId},
    limits,
    ops::frames::FrameCheck,
    random,
    repository::{Repository, index::KnownPack, view::View},
    store::{Name, on_each},
};

/// Which packs to read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choice<'a> {
    /// Of those that an index lists.
    Subset(Subset),
    /// All on these shelves, those that no index lists too.
    Shelves(&'a HashSet<u16>),
}

/// A pack to read.
struct Wanted {
    id: PackId,
    size: u64,
    kind: PackKind,
    name: Name,
    /// How indexes list it.
    listed: Vec<KnownPack>,
}

impl Wanted {
    /// What a true listing of the pack says, given its own directory.
    fn belied(&self, own: &Directory) -> Option<Belied> {
        let (id, kind, size) = (self.id, self.kind, self.listed.first()?.size);
        let says = IndexedPack { id, size, kind, directory: own.clone() }.digest();
        Some(Belied { name: self.name.clone(), says })
    }

    /// The same, if it is of the other kind.
    fn of_other_kind(&self, domain: &DomainId) -> Self {
        let kind = match self.kind {
            PackKind::Data => PackKind::Metadata,
            PackKind::Metadata => PackKind::Data,
        };
        let (id, size, name) = (self.id, self.size, Name::pack(domain, kind, &self.id));
        Self { id, size, kind, name, listed: self.listed.clone() }
    }
}

/// A pack with which nothing need be wrong, but for what an index says of it.
#[derive(Debug)]
pub(super) struct Belied {
    pub(super) name: Name,
    /// The hash of a true listing.
    pub(super) says: [u8; 32],
}

/// Something that is wrong with a pack.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) pack: PackId,
    pub(super) name: Name,
    pub(super) what: String,
    /// It is not there any more.
    pub(super) is_gone: bool,
    /// What is damaged in it.
    pub(super) blobs: Vec<BlobId>,
}

/// What reading packs found.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) packs: u64,
    pub(super) bytes: u64,
    /// Packs that were read, or are known not to be there.
    pub(super) read: HashSet<PackId>,
    pub(super) damaged: Vec<Bad>,
    /// Packs of which an index says what they do not say themselves.
    pub(super) belied: HashMap<PackId, Belied>,
    /// Sections of which every frame is good.
    pub(super) attested: Vec<AttestedSection>,
    /// The user asked to stop before all of them were read.
    pub(super) interrupted: Option<Error>,
}

/// Checks packs of one domain.
pub(super) struct PackCheck<'a> {
    repository: &'a Repository,
    domain: &'a DomainId,
    view: &'a View,
    /// Without it only hashes are compared.
    frames: Option<FrameCheck<'a>>,
    /// Who alone backs up to the domain: nobody needs our word for it, but for what an owner's prune has cut. Where there are
    /// several, or nobody is known to, all is attested.
    only_writer: Option<IdentityId>,
}

impl<'a> PackCheck<'a> {
    pub(super) fn new(repository: &'a Repository, (domain, view): (&'a DomainId, &'a View)) -> Result<Self> {
        let frames = FrameCheck::new(repository, domain)?;
        let only_writer = repository.registry().only_writer(domain);
        Ok(Self { repository, domain, view, frames, only_writer })
    }

    /// The packs that are meant.
    fn choose(&self, choice: Choice<'_>) -> Result<Vec<Wanted>> {
        let mut listings: HashMap<PackId, Vec<KnownPack>> = HashMap::new();
        for pack in self.view.index.packs().filter(|pack| pack.standing.counts()) {
            listings.entry(pack.id).or_default().push(pack);
        }
        let mut seen: HashSet<PackId> = HashSet::new();
        let packs = self.view.index.packs().filter(|pack| pack.standing.counts() && seen.insert(pack.id));
        let wanted = |pack: KnownPack| {
            let KnownPack { id, size, kind, .. } = pack;
            let (size, name) = (u64::from(size), self.repository.pack_name(self.domain, &pack));
            Wanted { id, size, kind, name, listed: listings.get(&id).cloned().unwrap_or_default() }
        };
        let shelves = match choice {
            Choice::Subset(subset) => {
                let packs = packs.map(|pack| (pack.id, u64::from(pack.size), pack)).collect();
                return Ok(subset.choose(packs, &random::bytes()?).into_iter().map(wanted).collect());
            }
            Choice::Shelves(shelves) => shelves,
        };
        let meant = |id: &PackId| shelves.contains(&Shelf::of(id).number());
        let mut chosen: Vec<Wanted> = packs.filter(|pack| meant(&pack.id)).map(wanted).collect();
        let unindexed: HashSet<PackId> =
            self.view.unindexed.iter().map(|(id, _)| *id).filter(|id| meant(id)).collect();
        if !unindexed.is_empty() {
            // The view does not say of what kind they are, which is a part of their names.
            let listed = self.repository.listed_packs(self.domain)?.into_iter();
            chosen.extend(listed.filter(|(id, _)| unindexed.contains(id)).map(|(id, pack)| {
                let name = Name::pack(self.domain, pack.kind, &id);
                Wanted { id, size: pack.size, kind: pack.kind, name, listed: Vec::new() }
            }));
        }
        Ok(chosen)
    }

    pub(super) fn run(&self, choice: Choice<'_>, workers: usize) -> Result<Outcome> {
        let chosen = self.choose(choice)?;
        let progress = self.repository.store.progress();
        progress.expect(0, chosen.iter().map(|pack| pack.size).sum());
        let outcome = Mutex::new(Outcome::default());
        let all = on_each(&chosen, workers, |pack| {
            progress.check()?;
            self.pack_of_any_kind(pack, &mut Decompressor::new()?, &outcome)?;
            outcome.lock().unwrap_or_else(PoisonError::into_inner).read.insert(pack.id);
            progress.add(0, pack.size);
            Ok(())
        });
        let mut outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        match all {
            Err(error) if error.kind() == ErrorKind::Interrupted => outcome.interrupted = Some(error),
            other => drop(other?),
        }
        Ok(outcome)
    }

    /// How an index lists a pack.
    fn listing(&self, name: &Name, listed: &KnownPack) -> Result<Directory> {
        self.view.index.directory(listed).ok_or_else(|| Error::damaged(name, "the index lost it"))
    }

    /// How many listings say of a pack what it does not say itself: nothing counts on these in this view any more.
    fn distrust_lies(&self, pack: &Wanted, own: &Directory) -> Result<usize> {
        let mut lies = 0;
        for listed in &pack.listed {
            if listed.kind != pack.kind || self.listing(&pack.name, listed)? != *own {
                self.view.index.distrust_listing(listed);
                lies += 1;
            }
        }
        Ok(lies)
    }

    /// Checks a pack by the name that it has, whatever kind an index says: that may be a lie, which must not hide it.
    fn pack_of_any_kind(
        &self,
        pack: &Wanted,
        decompressor: &mut Decompressor,
        outcome: &Mutex<Outcome>,
    ) -> Result<()> {
        let is_gone =
            |read: &Result<_>| read.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
        let read = self.read(pack);
        if is_gone(&read) {
            let other = pack.of_other_kind(self.domain);
            let found = self.read(&other);
            if !is_gone(&found) {
                return self.pack((&other, found), decompressor, outcome);
            }
        }
        self.pack((pack, read), decompressor, outcome)
    }

    /// The bytes of a pack, and whether they are others than its name stands for: then what it says of itself is no better than what an
    /// index says. They are needed all the same, to see what is left.
    fn read(&self, pack: &Wanted) -> Result<(Bytes, bool)> {
        let store = &self.repository.store;
        match store.read_hashed(&pack.name, limits::PACK_BYTES_MAX, pack.id.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                let bytes = store.read(&pack.name, limits::PACK_BYTES_MAX)?;
                let is_other = blake3::hash(&bytes).as_bytes() != pack.id.as_bytes();
                Ok((bytes, is_other))
            }
            other => Ok((other?, false)),
        }
    }

    fn pack(
        &self,
        (pack, read): (&Wanted, Result<(Bytes, bool)>),
        decompressor: &mut Decompressor,
        outcome: &Mutex<Outcome>,
    ) -> Result<()> {
        let name = &pack.name;
        // Only where the pack itself does not say: each look at the index decodes it.
        let listed = || pack.listed.first().map(|listed| self.listing(name, listed)).transpose();
        let lock = || outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let bad = |what: String, is_gone, blobs: Vec<BlobId>| {
            self.repository.store.progress().trouble();
            lock().damaged.push(Bad { pack: pack.id, name: name.clone(), what, is_gone, blobs });
        };
        let damaged = |what, blobs| bad(what, false, blobs);
        let (bytes, is_other) = match read {
            Ok(read) => read,
            Err(error) if error.is_damage() => {
                let is_gone = error.kind() == ErrorKind::NotFound;
                let frames = listed()?.into_iter().flat_map(|listed| listed.frames);
                let blobs = frames.flat_map(|frame| frame.blobs).map(|blob| blob.id).collect();
                bad(error.to_string(), is_gone, blobs);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut whole;
        let directory = match self.repository.own_directory(self.domain, &bytes) {
            Ok(directory) => {
                let lies = self.distrust_lies(pack, &directory)?;
                let none_is_true = lies > 0 && lies == pack.listed.len();
                if none_is_true && is_other {
                    damaged("its directory is not what the index says".to_owned(), Vec::new());
                } else if lies > 0 {
                    self.repository.store.progress().trouble();
                    let belied = pack.belied(&directory);
                    lock().belied.extend(belied.map(|belied| (pack.id, belied)));
                }
                whole = !none_is_true;
                Some(directory)
            }
            Err(error) if error.kind() == ErrorKind::Damaged => {
                whole = false;
                damaged(error.to_string(), Vec::new());
                listed()?
            }
            Err(error) => return Err(error),
        };
        let Some(directory) = directory else { return Ok(()) };
        let found = self.frames.as_ref().map(|frames| frames.bad(&bytes, &directory, decompressor));
        for (number, frame, error) in found.transpose()?.unwrap_or_default() {
            whole = false;
            damaged(format!("frame {number}: {error}"), frame.blobs.iter().map(|blob| blob.id).collect());
        }
        // Where more is known of what is wrong, this is no other problem.
        if whole && is_other {
            whole = false;
            damaged("its bytes are not those that its name stands for".to_owned(), Vec::new());
        }
        let mut outcome = lock();
        outcome.packs += 1;
        outcome.bytes += bytes.len() as u64;
        // What no index lists serves nobody.
        if whole && self.frames.is_some() && !pack.listed.is_empty() {
            let serves_others =
                |(_, section): &(u16, &SectionHeader)| Some(section.author) != self.only_writer;
            for (number, section) in (0_u16..).zip(&directory.sections).filter(serves_others) {
                outcome
                    .attested
                    .push(AttestedSection { id: section.id(), digest: digest(&directory, number) });
            }
        }
        Ok(())
    }
}
