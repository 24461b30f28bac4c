//! What exists now in a domain, as far as its index tells: packs, frames, and where each blob is. It is
//! read from segments (`segment.rs`), so that it takes no time to load and hardly any memory: one byte
//! for each pack.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

#[doc(hidden)]
pub use self::fuzzing::fuzz_segment;
use self::segment::Segment;
pub use self::segments::Segments;
use crate::{
    error::{Error, ErrorKind, Result},
    format::pack::{Blob, Directory, Frame, PackKind, SectionHeader},
    id::{BlobId, IdentityId, PackId, SectionId},
};

mod build;
mod fuzzing;
mod segment;
mod segments;
#[cfg(test)]
mod tests;

/// Whether a pack can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// LIST showed it with the size that the index gives, and no tombstone names it.
    Live = 0,
    /// It is there, but a tombstone names it: read from it, never borrow from it.
    Tombstoned = 1,
    /// It is there and set aside: nobody counts on it, and what no other pack holds is still read from it.
    SetAside = 2,
    /// It is not there, or has another size.
    Missing = 3,
}

impl Standing {
    /// Whether snapshots may rest on it, if only until it is deleted.
    #[must_use]
    pub const fn counts(self) -> bool {
        matches!(self, Self::Live | Self::Tombstoned)
    }
}

/// A bit beside the standing of a pack: it was borrowed from.
const USED: u8 = 0x80;

/// A pack that the index lists.
#[derive(Clone, Copy, Debug)]
pub struct KnownPack {
    /// Its name.
    pub id: PackId,
    /// Its size in bytes.
    pub size: u32,
    /// What it holds.
    pub kind: PackKind,
    /// Whether it can be counted on.
    pub standing: Standing,
    at: (u32, u32),
}

/// Where a blob is: numbers in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    segment: u32,
    frame: u32,
    blob: u32,
}

impl Location {
    /// Names the frame, for who reads each frame once.
    #[must_use]
    pub const fn frame(self) -> (u32, u32) {
        (self.segment, self.frame)
    }

    /// The number of the blob in its frame, given another blob of the frame with its number.
    #[must_use]
    pub fn number_beside(self, other: Self, number: u32) -> Option<u32> {
        let same = self.frame() == other.frame();
        u32::try_from(i64::from(number) + i64::from(self.blob) - i64::from(other.blob)).ok().filter(|_| same)
    }
}

/// Everything that opening a blob takes.
#[derive(Clone, Debug)]
pub struct Found {
    /// The pack.
    pub pack: KnownPack,
    /// The frame in it.
    pub frame: Frame,
    /// What opens the frame.
    pub section: SectionHeader,
    /// Number of the blob in the frame.
    pub blob: u32,
}

impl Found {
    /// Whether it is the very same sealed frame.
    #[must_use]
    pub fn is_same(&self, frame: &Frame, section: &SectionHeader) -> bool {
        self.frame.counter == frame.counter
            && self.frame.hash == frame.hash
            && self.frame.blobs == frame.blobs
            && self.section.id() == section.id()
    }
}

impl KnownPack {
    /// Which listing of the pack this is: the same pack may stand in several index objects.
    #[must_use]
    pub const fn listing(&self) -> (u32, u32) {
        self.at
    }
}

#[derive(Debug)]
struct Part {
    segment: Arc<Segment>,
    states: Vec<AtomicU8>,
}

/// All packs of a domain with their blobs.
#[derive(Debug, Default)]
pub struct Index {
    parts: Vec<Part>,
    /// Each with whether an owner vouches for it.
    attested: HashMap<SectionId, bool>,
    /// All of it was found to be intact.
    vouched: AtomicBool,
}

impl Index {
    /// The index that segments make up, with the standing of each pack.
    fn new(segments: Vec<Arc<Segment>>, standing: &dyn Fn(&PackId, u32) -> Standing) -> Self {
        let part = |segment: Arc<Segment>| {
            let state = |number| match segment.pack(number) {
                Some(pack) => standing(&pack.id, pack.size) as u8,
                None => Standing::Missing as u8,
            };
            let states = (0..segment.counts().packs).map(|number| AtomicU8::new(state(number))).collect();
            Part { segment, states }
        };
        Self { parts: segments.into_iter().map(part).collect(), ..Self::default() }
    }

    /// Sections that a verifier vouches for, each with whether an owner does: any identity may borrow from them.
    pub fn attest(&mut self, sections: HashMap<SectionId, bool>) {
        self.attested = sections;
    }

    /// Whether a verifier vouches for a section, as it is listed.
    #[must_use]
    pub fn vouches_for(&self, section: &SectionId) -> bool {
        self.attested.contains_key(section)
    }

    /// Whether an owner vouches for a section, and not only a restore key.
    #[must_use]
    pub fn owner_vouches_for(&self, section: &SectionId) -> bool {
        self.attested.get(section) == Some(&true)
    }

    /// Adds packs that this run has just indexed: they are live, and used.
    fn add_used(&mut self, segment: Arc<Segment>) {
        let states =
            (0..segment.counts().packs).map(|_| AtomicU8::new(Standing::Live as u8 | USED)).collect();
        self.parts.push(Part { segment, states });
        self.vouched = AtomicBool::new(false);
    }

    /// These packs are known to be damaged: nothing counts on them in this view.
    pub fn distrust_packs(&self, packs: &HashSet<PackId>) {
        if packs.is_empty() {
            return;
        }
        for pack in self.packs().filter(|pack| packs.contains(&pack.id)) {
            self.count_as_missing(pack.at);
        }
    }

    /// The pack of a location turned out to be damaged: nothing counts on it in this view any more.
    pub fn distrust(&self, at: Location) {
        if let Some(pack) = self.pack_at(at) {
            self.count_as_missing(pack.at);
        }
    }

    /// What an index says of a pack is not true: nothing counts on that in this view any more.
    pub fn distrust_listing(&self, listing: &KnownPack) {
        self.count_as_missing(listing.at);
    }

    fn count_as_missing(&self, (segment, pack): (u32, u32)) {
        let part = self.parts.get(segment as usize);
        if let Some(state) = part.and_then(|part| part.states.get(pack as usize)) {
            state.store(Standing::Missing as u8, Ordering::Relaxed);
        }
    }

    /// Whether everything that the segments say is intact. The first time it reads all of them.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        if !self.vouched.load(Ordering::Relaxed) {
            self.vouched.store(self.parts.iter().all(|part| part.segment.check()), Ordering::Relaxed);
        }
        self.vouched.load(Ordering::Relaxed)
    }

    /// Whether something was asked that turned out to be damaged.
    #[must_use]
    pub fn met_damage(&self) -> bool {
        self.parts.iter().any(|part| part.segment.is_damaged())
    }

    /// To be asked before whoever reads takes "not listed" for an answer, and after it was asked: what cannot be read any more is
    /// not listed either.
    ///
    /// # Errors
    /// The local cache is damaged: what is not listed may be there.
    pub fn vouch(&self) -> Result<()> {
        if self.is_intact() && !self.met_damage() {
            return Ok(());
        }
        let remedy = "Run it again: what is damaged is not used twice";
        Err(Error::new(ErrorKind::Failed, "the local cache is damaged").with_remedy(remedy))
    }

    fn state(&self, segment: u32, pack: u32) -> Option<(Standing, bool)> {
        let state = self.parts.get(segment as usize)?.states.get(pack as usize)?.load(Ordering::Relaxed);
        let standing = match state & !USED {
            0 => Standing::Live,
            1 => Standing::Tombstoned,
            2 => Standing::SetAside,
            _ => Standing::Missing,
        };
        Some((standing, state & USED != 0))
    }

    fn known(&self, segment: u32, number: u32) -> Option<KnownPack> {
        let row = self.parts.get(segment as usize)?.segment.pack(number)?;
        let (standing, _) = self.state(segment, number)?;
        Some(KnownPack { id: row.id, size: row.size, kind: row.kind, standing, at: (segment, number) })
    }

    /// The copies of a blob in no order, found one after the other: for whoever looks for any one that will do.
    pub fn unsorted(&self, id: &BlobId) -> impl Iterator<Item = Location> {
        let parts = (0_u32..).zip(&self.parts);
        parts.flat_map(|(segment, part)| {
            let found = part.segment.find(id);
            found.map(move |(frame, blob)| Location { segment, frame, blob })
        })
    }

    /// Every copy of a blob, the live ones first.
    #[must_use]
    pub fn locations(&self, id: &BlobId) -> Vec<Location> {
        self.sorted(id, &|_| 0)
    }

    /// Every copy of a blob in the order in which a snapshot of `author` uses them: attested ones, its own,
    /// those of others; then those that are to die, those that are set aside, and those that are not there. Of equal ones that of
    /// the older key epoch comes first, which more keys can read, then the pack with the lower id, so that every machine chooses the same.
    #[must_use]
    pub fn copies(&self, id: &BlobId, author: IdentityId) -> Vec<Location> {
        self.sorted(id, &|at| match self.section_of(at) {
            Some(section) if self.vouches_for(&section.id()) => 0,
            Some(section) if section.author == author => 1,
            _ => 2,
        })
    }

    /// Whether the frame may serve an identity: in a section that it wrote, or that a verifier vouches for.
    fn serves(&self, at: Location, reader: IdentityId) -> Option<bool> {
        let segment = &self.parts.get(at.segment as usize)?.segment;
        let section = segment.frame(at.frame)?.section;
        if segment.section_author(section)? == reader {
            return Some(true);
        }
        Some(!self.attested.is_empty() && self.attested.contains_key(&segment.section_name(section)?.0))
    }

    /// The section that a copy lies in.
    pub(in crate::repository) fn section_of(&self, at: Location) -> Option<SectionHeader> {
        let segment = &self.parts.get(at.segment as usize)?.segment;
        segment.section(segment.frame(at.frame)?.section)
    }

    fn sorted(&self, id: &BlobId, rank: &dyn Fn(Location) -> u8) -> Vec<Location> {
        let mut found: Vec<Location> = self.unsorted(id).collect();
        if found.len() > 1 {
            found.sort_by_cached_key(|at| {
                let pack = self.pack_at(*at);
                let standing = pack.map_or(Standing::Missing, |pack| pack.standing);
                (standing as u8, rank(*at), self.epoch(*at), pack.map(|pack| pack.id), *at)
            });
        }
        found
    }

    /// The pack of a location.
    #[must_use]
    pub fn pack_at(&self, at: Location) -> Option<KnownPack> {
        let pack = self.parts.get(at.segment as usize)?.segment.frame(at.frame)?.pack;
        self.known(at.segment, pack)
    }

    /// All packs; one that two segments list comes twice.
    pub fn packs(&self) -> impl Iterator<Item = KnownPack> + '_ {
        (0_u32..).zip(&self.parts).flat_map(move |(segment, part)| {
            (0..part.segment.counts().packs).filter_map(move |number| self.known(segment, number))
        })
    }

    /// Bytes of all packs that count.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let there = self.packs().filter(|pack| pack.standing.counts());
        there.map(|pack| u64::from(pack.size)).sum()
    }

    /// The directory of a pack.
    #[must_use]
    pub fn directory(&self, pack: &KnownPack) -> Option<Directory> {
        let (segment, number) = pack.at;
        let segment = &self.parts.get(segment as usize)?.segment;
        let row = segment.pack(number)?;
        let sections = row.first_section..row.first_section.checked_add(row.sections)?;
        let frames = row.first_frame..row.first_frame.checked_add(row.frames)?;
        Some(Directory {
            sections: sections.map(|number| segment.section(number)).collect::<Option<_>>()?,
            frames: frames
                .map(|number| segment.whole_frame(&segment.frame(number)?))
                .collect::<Option<_>>()?,
        })
    }

    fn frames_before(&self, segment: usize) -> usize {
        self.parts.iter().take(segment).map(|part| part.segment.counts().frames as usize).sum()
    }

    /// The number of the frame of a location.
    #[must_use]
    pub fn frame_number(&self, at: Location) -> usize {
        self.frames_before(at.segment as usize) + at.frame as usize
    }

    /// The numbers of the frames of a pack, in the order of its directory.
    #[must_use]
    pub fn frames_of(&self, pack: &KnownPack) -> Option<Range<usize>> {
        let (segment, number) = pack.at;
        let row = self.parts.get(segment as usize)?.segment.pack(number)?;
        let first = self.frames_before(segment as usize) + row.first_frame as usize;
        Some(first..first + row.frames as usize)
    }

    /// Every copy of a blob in a pack of this kind that counts, whether it is to die or not, each with whether
    /// a snapshot of `reader` may use it. What was in `copies` goes.
    pub fn copies_there(
        &self,
        (id, kind): (&BlobId, PackKind),
        reader: IdentityId,
        copies: &mut Vec<(Location, bool)>,
    ) {
        copies.clear();
        for (segment, part) in (0_u32..).zip(&self.parts) {
            for (frame, blob) in part.segment.find(id) {
                let at = Location { segment, frame, blob };
                let Some(pack) = self.pack_at(at) else { continue };
                if pack.standing.counts() && pack.kind == kind {
                    copies.push((at, self.serves(at, reader) == Some(true)));
                }
            }
        }
    }

    /// Whether a verifier vouches for the section of a location: everybody may use it.
    #[must_use]
    pub fn is_attested(&self, at: Location) -> bool {
        let section = || {
            let segment = &self.parts.get(at.segment as usize)?.segment;
            Some(segment.section_name(segment.frame(at.frame)?.section)?.0)
        };
        !self.attested.is_empty() && section().is_some_and(|id| self.attested.contains_key(&id))
    }

    /// Whether a verifier vouches for any section.
    #[must_use]
    pub fn has_attested(&self) -> bool {
        !self.attested.is_empty()
    }

    /// The key epoch that the frame of a location is sealed to.
    #[must_use]
    pub fn epoch(&self, at: Location) -> Option<u32> {
        let segment = &self.parts.get(at.segment as usize)?.segment;
        segment.section_epoch(segment.frame(at.frame)?.section)
    }

    /// How many frames are listed: each has a number below this.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames_before(self.parts.len())
    }

    /// How many blobs are in the frame of a location.
    #[must_use]
    pub fn blobs_beside(&self, at: Location) -> Option<u32> {
        Some(self.parts.get(at.segment as usize)?.segment.frame(at.frame)?.blobs)
    }

    /// How many blobs are listed: each has a number below this.
    #[must_use]
    pub fn blobs(&self) -> usize {
        self.blobs_before(self.parts.len())
    }

    fn blobs_before(&self, segment: usize) -> usize {
        self.parts.iter().take(segment).map(|part| part.segment.counts().blobs as usize).sum()
    }

    /// The number of a blob.
    #[must_use]
    pub fn blob_number(&self, at: Location) -> usize {
        self.blobs_before(at.segment as usize) + at.blob as usize
    }

    /// The numbers of the blobs of a pack, in the order of its directory.
    #[must_use]
    pub fn blobs_of(&self, pack: &KnownPack) -> Option<Range<usize>> {
        let (segment, number) = pack.at;
        let part = &self.parts.get(segment as usize)?.segment;
        let row = part.pack(number)?;
        let before = self.blobs_before(segment as usize);
        let Some(last) = row.frames.checked_sub(1) else { return Some(before..before) };
        let (first, last) = (part.frame(row.first_frame)?, part.frame(row.first_frame + last)?);
        let end = last.first_blob as usize + last.blobs as usize;
        Some(before + first.first_blob as usize..before + end)
    }

    /// The frames of a pack, given its directory, each with the numbers of its blobs.
    pub fn numbered<'d>(
        &self,
        pack: &KnownPack,
        directory: &'d Directory,
    ) -> Option<impl Iterator<Item = (&'d Frame, Range<usize>)> + use<'d>> {
        let mut next = self.blobs_of(pack)?.start;
        Some(directory.frames.iter().map(move |frame| {
            let first = next;
            next += frame.blobs.len();
            (frame, first..next)
        }))
    }

    /// The id of a blob and its length.
    #[must_use]
    pub fn blob(&self, at: Location) -> Option<Blob> {
        self.parts.get(at.segment as usize)?.segment.blob(at.blob)
    }

    /// What opening a blob takes.
    #[must_use]
    pub fn found(&self, at: Location) -> Option<Found> {
        let segment = &self.parts.get(at.segment as usize)?.segment;
        let row = segment.frame(at.frame)?;
        Some(Found {
            pack: self.known(at.segment, row.pack)?,
            frame: segment.whole_frame(&row)?,
            section: segment.section(row.section)?,
            blob: at.blob.checked_sub(row.first_blob)?,
        })
    }

    /// How the pack of a location stands.
    #[must_use]
    pub fn standing(&self, at: Location) -> Option<Standing> {
        let pack = self.parts.get(at.segment as usize)?.segment.frame(at.frame)?.pack;
        self.state(at.segment, pack).map(|(standing, _)| standing)
    }

    /// Whether a snapshot of `author` may count on a copy of the blob: present, not tombstoned, in a
    /// section that `author` wrote or that a verifier vouches for. Notes that the pack is used.
    #[must_use]
    pub fn borrow(&self, id: &BlobId, author: IdentityId, kind: PackKind) -> bool {
        let usable = |segment: u32, part: &Part, (frame, blob): (u32, u32)| -> Option<bool> {
            let row = part.segment.frame(frame)?;
            let (standing, _) = self.state(segment, row.pack)?;
            if standing != Standing::Live || part.segment.pack(row.pack)?.kind != kind {
                return Some(false);
            }
            if !self.serves(Location { segment, frame, blob }, author)? {
                return Some(false);
            }
            part.states.get(row.pack as usize)?.fetch_or(USED, Ordering::Relaxed);
            Some(true)
        };
        (0_u32..).zip(&self.parts).any(|(segment, part)| {
            part.segment.find(id).any(|place| usable(segment, part, place) == Some(true))
        })
    }

    /// The packs that were borrowed from; `None` when the cache was damaged since, so that nobody can tell.
    #[must_use]
    pub fn used(&self) -> Option<HashSet<PackId>> {
        let mut used = HashSet::new();
        for part in &self.parts {
            for (number, state) in (0_u32..).zip(&part.states) {
                if state.load(Ordering::Relaxed) & USED != 0 {
                    used.insert(part.segment.pack(number)?.id);
                }
            }
        }
        Some(used)
    }

    /// Whether all sections that are listed are of this author.
    #[must_use]
    pub fn is_all_by(&self, author: &IdentityId) -> bool {
        let is_all = |known: &HashSet<IdentityId>| known.iter().all(|known| known == author);
        self.parts.iter().all(|part| part.segment.authors().is_some_and(is_all))
    }

    /// Every section that is listed, and the digest of what it is said to hold. One that several index
    /// objects list may come more than once.
    pub fn sections(&self) -> impl Iterator<Item = (SectionId, [u8; 32])> + '_ {
        self.parts.iter().flat_map(|part| {
            (0..part.segment.counts().sections).filter_map(|number| part.segment.section_name(number))
        })
    }

    /// Whether any copy of the blob is listed.
    #[must_use]
    pub fn contains(&self, id: &BlobId) -> bool {
        self.parts.iter().any(|part| part.segment.find(id).next().is_some())
    }
}
