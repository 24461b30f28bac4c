//! How a snapshot has what it needs: in packs that count, or only in others. Those are set aside, or of another size than the
//! index says. A restore reads what is good in these, so nobody may call that lost; and nobody may call it safe.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use super::frames::FrameCheck;
use crate::{
    compress::Decompressor,
    error::{ErrorKind, Result},
    format::pack::PackKind,
    id::{BlobId, DomainId, IdentityId, PackId},
    repository::{
        Repository,
        index::{Found, Index, KnownPack, Location, Standing},
        manifest::NodeSource,
        reader::NodeReader,
        section::check_ciphertext,
    },
};

/// How a snapshot has a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holding {
    /// In a pack that counts.
    Counts,
    /// In packs alone that do not count, and it can be read there.
    Aside(Location),
    /// Nowhere.
    Lost,
}

/// The copies of a blob in packs that stand so.
pub(super) fn copies(
    index: &Index,
    (id, kind): (&BlobId, PackKind),
    standing: impl Fn(Standing) -> bool,
) -> impl Iterator<Item = (Location, KnownPack)> {
    let packs = index.locations(id).into_iter().filter_map(|at| Some((at, index.pack_at(at)?)));
    packs.filter(move |(_, pack)| pack.kind == kind && standing(pack.standing))
}

/// What can be read in packs that do not count, as one view shows them: each frame is looked at once.
#[derive(Debug, Default)]
pub(super) struct AsideFrames {
    known: HashMap<(u32, u32), bool>,
    /// Packs that are not there at all: they are asked for once.
    gone: HashSet<PackId>,
}

impl AsideFrames {
    /// How a blob is there. A pack that counts is believed.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) fn holding(
        &mut self,
        place: (&Repository, &DomainId, &Index),
        blob: (&BlobId, PackKind),
    ) -> Result<Holding> {
        let (_, _, index) = place;
        if copies(index, blob, Standing::counts).next().is_some() {
            return Ok(Holding::Counts);
        }
        Ok(self.find(place, blob)?.map_or(Holding::Lost, Holding::Aside))
    }

    /// Where a blob can be read in a pack that does not count, of all the places where a restore looks: by a key that reads no
    /// contents as far as the hash of its frame tells.
    ///
    /// # Errors
    /// Storage trouble; `Forbidden` without the key epoch of a section.
    pub(super) fn find(
        &mut self,
        (repository, domain, index): (&Repository, &DomainId, &Index),
        (id, kind): (&BlobId, PackKind),
    ) -> Result<Option<Location>> {
        for at in repository.copies(index, id, None) {
            let Some(found) = index.found(at).filter(|found| found.pack.kind == kind) else { continue };
            if found.pack.standing.counts() || self.gone.contains(&found.pack.id) {
                continue;
            }
            let is_good = match self.known.get(&at.frame()) {
                Some(known) => *known,
                None => self.look_at(repository, domain, &found)?,
            };
            self.known.insert(at.frame(), is_good);
            if is_good {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Whether a frame is what its ids name.
    fn look_at(&mut self, repository: &Repository, domain: &DomainId, found: &Found) -> Result<bool> {
        let look = || -> Result<()> {
            let name = repository.pack_name(domain, &found.pack);
            let sealed = repository.store.read_range(&name, found.frame.range())?;
            match FrameCheck::new(repository, domain)? {
                Some(frames) => {
                    frames.opened((&found.frame, &found.section), &sealed, &mut Decompressor::new()?)
                }
                None => check_ciphertext(&found.frame, &sealed),
            }
        };
        match look() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.gone.insert(found.pack.id);
                Ok(false)
            }
            Err(error) if error.is_damage() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Reads nodes, and remembers those that only packs hold which do not count.
pub(super) struct WatchedNodes<'a> {
    index: &'a Index,
    nodes: NodeReader<'a>,
    aside: Mutex<HashSet<Location>>,
}

impl<'a> WatchedNodes<'a> {
    /// # Errors
    /// As [`NodeReader::new`].
    pub(super) fn new(repository: &'a Repository, (domain, index): (DomainId, &'a Index)) -> Result<Self> {
        Ok(Self { index, nodes: NodeReader::new(repository, domain, index)?, aside: Mutex::default() })
    }

    /// From now on it reads for snapshots of `reader`.
    pub(super) const fn serve(&mut self, reader: IdentityId) {
        self.nodes.serve(reader);
    }

    /// A place of each of these that was read since the last time; it may be another one of its places that is good.
    pub(super) fn take_aside(&self) -> HashSet<Location> {
        std::mem::take(&mut *self.aside.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl NodeSource for WatchedNodes<'_> {
    fn plain(&self, id: &BlobId) -> Result<Vec<u8>> {
        let plain = self.nodes.plain(id)?;
        // The best come first.
        let best = copies(self.index, (id, PackKind::Metadata), |_| true).next();
        if let Some((at, pack)) = best
            && !pack.standing.counts()
        {
            self.aside.lock().unwrap_or_else(PoisonError::into_inner).insert(at);
        }
        Ok(plain)
    }
}
