//! What exists now in a domain, as far as its index tells: packs, frames, and where each blob is.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    format::pack::{Frame, IndexedPack, PackKind, SectionHeader},
    id::{BlobId, IdentityId, PackId},
};

/// Whether a pack can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// LIST showed it with the size that the index gives, and no tombstone names it.
    Live,
    /// It is there, but a tombstone names it: read from it, never borrow from it.
    Tombstoned,
    /// It is not there, or has another size.
    Missing,
}

/// A pack of the index and what is known of it.
#[derive(Debug)]
pub struct KnownPack {
    /// As the index lists it.
    pub listed: IndexedPack,
    /// Whether it can be counted on.
    pub standing: Standing,
    used: AtomicBool,
}

/// Where a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Number of the pack.
    pub pack: u32,
    /// Number of the frame in its directory.
    pub frame: u32,
    /// Number of the blob in the frame.
    pub blob: u32,
}

/// All packs of a domain with their blobs.
#[derive(Debug, Default)]
pub struct Index {
    packs: Vec<KnownPack>,
    first: HashMap<BlobId, Location>,
    // Second and further copies: rare, so they are kept apart.
    more: HashMap<BlobId, Vec<Location>>,
}

impl Index {
    /// Adds a pack; one that is known already changes nothing.
    pub fn add(&mut self, listed: IndexedPack, standing: Standing) {
        let Ok(pack) = u32::try_from(self.packs.len()) else { return };
        for (frame_number, frame) in (0_u32..).zip(&listed.directory.frames) {
            for (blob_number, blob) in (0_u32..).zip(&frame.blobs) {
                let location = Location { pack, frame: frame_number, blob: blob_number };
                match self.first.get_mut(&blob.id) {
                    None => {
                        self.first.insert(blob.id, location);
                    }
                    Some(first) => {
                        // A live copy goes before a dead one.
                        let old = if standing == Standing::Live {
                            std::mem::replace(first, location)
                        } else {
                            location
                        };
                        self.more.entry(blob.id).or_default().push(old);
                    }
                }
            }
        }
        self.packs.push(KnownPack { listed, standing, used: AtomicBool::new(false) });
    }

    /// Every copy of a blob, the first one first.
    pub fn locations(&self, id: &BlobId) -> impl Iterator<Item = Location> + '_ {
        self.first.get(id).copied().into_iter().chain(self.more.get(id).into_iter().flatten().copied())
    }

    /// A pack by its number.
    #[must_use]
    pub fn pack(&self, number: u32) -> Option<&KnownPack> {
        self.packs.get(number as usize)
    }

    /// All packs.
    #[must_use]
    pub fn packs(&self) -> &[KnownPack] {
        &self.packs
    }

    /// The frame and the section header of a location.
    #[must_use]
    pub fn frame(&self, at: Location) -> Option<(&KnownPack, &Frame, &SectionHeader)> {
        let pack = self.pack(at.pack)?;
        let frame = pack.listed.directory.frames.get(at.frame as usize)?;
        let section = pack.listed.directory.sections.get(usize::from(frame.section))?;
        Some((pack, frame, section))
    }

    /// Whether a snapshot of `author` may count on a copy of the blob: present, not tombstoned, in a
    /// section that `author` wrote. Notes that the pack is used.
    #[must_use]
    pub fn borrow(&self, id: &BlobId, author: IdentityId, kind: PackKind) -> bool {
        self.locations(id).any(|at| {
            self.frame(at).is_some_and(|(pack, _, section)| {
                let usable =
                    pack.standing == Standing::Live && section.author == author && section.kind == kind;
                if usable {
                    pack.used.store(true, Ordering::Relaxed);
                }
                usable
            })
        })
    }

    /// The packs that were borrowed from.
    #[must_use]
    pub fn used(&self) -> HashSet<PackId> {
        self.packs
            .iter()
            .filter(|pack| pack.used.load(Ordering::Relaxed))
            .map(|pack| pack.listed.id)
            .collect()
    }

    /// Whether any copy of the blob is listed.
    #[must_use]
    pub fn contains(&self, id: &BlobId) -> bool {
        self.first.contains_key(id)
    }
}
