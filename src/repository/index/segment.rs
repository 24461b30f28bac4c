//! A segment: what some index objects say, in tables of fixed rows that need no decoding, so that a file
//! of the cache can be asked at once. It is read block by block, and each block is checked against hashes
//! under a MAC: a cache that lies is a cache that is not there. The blocks that were asked for last stay in
//! memory. (A mapped file would be simpler, but what of it stays in memory is up to the kernel, which
//! brings in 2 MiB for one byte if it likes.)
//!
//! Layout: packs, section headers, names of sections with the digest of what they hold, frames, blobs, lookup rows sorted by id, the fan-out of the lookup
//! rows, ids of the index objects; then a BLAKE3 of each block of these, then the footer.

use std::{
    collections::HashSet,
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    compress::Codec,
    format::pack::{Blob, Frame, PackKind, SECTION_HEADER_LEN, SectionHeader},
    id::{BlobId, IdentityId, ObjectId, PackId, SectionId},
};

/// Bytes of a block, the unit of reading and checking.
pub(super) const BLOCK_BYTES: usize = 4 << 10;
/// Blocks that stay in memory, of all segments together.
const BLOCKS_KEPT: usize = (24 << 20) / BLOCK_BYTES;
/// Blocks that are read at once when all of them are checked.
const BLOCKS_CHECKED: usize = 256;
/// Bytes of a row of each table.
pub(super) const PACK_ROW: usize = 56;
pub(super) const NAME_ROW: usize = 64;
pub(super) const FRAME_ROW: usize = 64;
pub(super) const BLOB_ROW: usize = 36;
pub(super) const LOOKUP_ROW: usize = 24;
/// Bytes of an id that a lookup row holds; the rest is compared in the table of blobs.
pub(super) const PREFIX_BYTES: usize = 16;
/// Lookup rows for each entry of the fan-out, on average.
const ROWS_PER_BUCKET: u64 = 16;
/// A bucket of more lookup rows is searched row by row.
const ROWS_AT_ONCE: usize = 64;
pub(super) const FOOTER_LEN: usize = 8 + 6 * 4 + 32;
pub(super) const MAGIC: [u8; 8] = *b"LFBSEG03";

/// How many rows each table has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) packs: u32,
    pub(super) sections: u32,
    pub(super) frames: u32,
    pub(super) blobs: u32,
    pub(super) objects: u32,
}

impl Counts {
    /// Bits of an id that choose an entry of the fan-out.
    pub(super) fn fan_out_bits(self) -> u32 {
        (u64::from(self.blobs) / ROWS_PER_BUCKET).max(1).ilog2().min(24)
    }

    /// Where each table begins, and where the last one ends.
    pub(super) fn layout(self) -> Layout {
        let Self { packs, sections, frames, blobs, objects } = self;
        let mut end = 0;
        let mut table = |rows: u64, row: usize| {
            let start = end;
            end += usize::try_from(rows).unwrap_or(usize::MAX).saturating_mul(row);
            start
        };
        Layout {
            packs: table(u64::from(packs), PACK_ROW),
            sections: table(u64::from(sections), SECTION_HEADER_LEN),
            names: table(u64::from(sections), NAME_ROW),
            frames: table(u64::from(frames), FRAME_ROW),
            blobs: table(u64::from(blobs), BLOB_ROW),
            lookup: table(u64::from(blobs), LOOKUP_ROW),
            fan_out: table((1 << self.fan_out_bits()) + 1, 4),
            objects: table(u64::from(objects), ObjectId::LEN),
            end,
        }
    }
}

/// Where the tables are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    packs: usize,
    sections: usize,
    names: usize,
    frames: usize,
    blobs: usize,
    lookup: usize,
    fan_out: usize,
    objects: usize,
    pub(super) end: usize,
}

/// A pack of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackRow {
    pub(super) id: PackId,
    pub(super) size: u32,
    pub(super) kind: PackKind,
    pub(super) first_frame: u32,
    pub(super) frames: u32,
    pub(super) first_section: u32,
    pub(super) sections: u32,
}

/// A frame of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameRow {
    pub(super) pack: u32,
    pub(super) section: u32,
    pub(super) counter: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) codec: Codec,
    pub(super) first_blob: u32,
    pub(super) blobs: u32,
    pub(super) hash: [u8; 32],
}

/// The author stands in the first bytes of a section header.
const AUTHOR_END: usize = 2 + IdentityId::LEN;

/// Which entry of the fan-out an id belongs to.
pub(super) fn bucket(prefix: &[u8], bits: u32) -> usize {
    let head: [u8; 4] = prefix.get(..4).and_then(|head| head.try_into().ok()).unwrap_or_default();
    // The first byte counts most, so that buckets are in the order of the ids.
    let word = u64::from(u32::from_le_bytes(head).swap_bytes());
    usize::try_from(word >> (32 - bits.min(32))).unwrap_or(0)
}

/// A block of a file.
struct Kept {
    file: u64,
    block: usize,
    bytes: Box<[u8; BLOCK_BYTES]>,
}

/// The blocks that were asked for last, each in the one slot that it may take.
pub(super) struct Blocks {
    slots: Vec<Mutex<Option<Kept>>>,
    files: AtomicU64,
}

impl Default for Blocks {
    fn default() -> Self {
        Self::new(BLOCKS_KEPT)
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

impl Blocks {
    pub(super) fn new(kept: usize) -> Self {
        Self { slots: (0..kept).map(|_| Mutex::new(None)).collect(), files: AtomicU64::new(0) }
    }

    /// What is in memory, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.slots.iter().filter(|slot| slot.lock().unwrap().is_some()).count() * BLOCK_BYTES
    }

    fn slot(&self, file: u64, block: usize) -> Option<&Mutex<Option<Kept>>> {
        // Neighbours have slots side by side; those of another file begin elsewhere.
        let first = usize::try_from(file).unwrap_or(0).wrapping_mul(BLOCKS_KEPT * 5 / 8 + 1);
        self.slots.get(first.wrapping_add(block).checked_rem(self.slots.len())?)
    }
}

enum Bytes {
    File { file: File, number: u64, kept: Arc<Blocks> },
    Memory(Vec<u8>),
}

impl Bytes {
    fn len(&self) -> Option<usize> {
        match self {
            Self::File { file, .. } => usize::try_from(file.metadata().ok()?.len()).ok(),
            Self::Memory(bytes) => Some(bytes.len()),
        }
    }

    /// Bytes as they are, not checked.
    fn raw(&self, at: usize, length: usize) -> Option<Vec<u8>> {
        match self {
            Self::File { file, .. } => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, at as u64).ok()?;
                Some(bytes)
            }
            Self::Memory(bytes) => bytes.get(at..at.checked_add(length)?).map(<[u8]>::to_vec),
        }
    }
}

/// What some index objects say.
pub(super) struct Segment {
    bytes: Bytes,
    length: usize,
    counts: Counts,
    layout: Layout,
    /// The BLAKE3 of each block.
    hashes: Vec<u8>,
    damaged: AtomicBool,
    /// See [`Self::authors`]: each view of a process asks for them.
    authors: OnceLock<Option<HashSet<IdentityId>>>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("counts", &self.counts).finish_non_exhaustive()
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    u32::from_le_bytes(word.unwrap_or_default())
}

fn index(number: u32) -> usize {
    number as usize
}

impl Segment {
    /// A file of the cache; `None` when its footer is not what was written under this key.
    pub(super) fn open(file: File, key: &[u8; 32], kept: &Arc<Blocks>) -> Option<Self> {
        let (number, kept) = (kept.files.fetch_add(1, Ordering::Relaxed), Arc::clone(kept));
        Self::parse(Bytes::File { file, number, kept }, key)
    }

    /// A segment in memory.
    pub(super) fn memory(bytes: Vec<u8>, key: &[u8; 32]) -> Option<Self> {
        Self::parse(Bytes::Memory(bytes), key)
    }

    fn parse(bytes: Bytes, key: &[u8; 32]) -> Option<Self> {
        let length = bytes.len()?;
        let body = length.checked_sub(FOOTER_LEN)?;
        let footer = bytes.raw(body, FOOTER_LEN)?;
        let (said, mac) = footer.split_at_checked(FOOTER_LEN - 32)?;
        if said.get(..8)? != MAGIC {
            return None;
        }
        let counts = Counts {
            packs: word(said, 8),
            sections: word(said, 12),
            frames: word(said, 16),
            blobs: word(said, 20),
            objects: word(said, 24),
        };
        let layout = counts.layout();
        let blocks = layout.end.div_ceil(BLOCK_BYTES);
        if body.checked_sub(layout.end)? != blocks.checked_mul(32)? {
            return None;
        }
        let hashes = bytes.raw(layout.end, blocks * 32)?;
        let expected = blake3::Hasher::new_keyed(key).update(&hashes).update(said).finalize();
        if expected.as_bytes() != mac {
            return None;
        }
        let (damaged, authors) = (AtomicBool::new(false), OnceLock::new());
        Some(Self { bytes, length, counts, layout, hashes, damaged, authors })
    }

    /// How many rows there are.
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes in all: what a merge of it costs.
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    /// Whether a block turned out to be damaged.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Checks every block.
    pub(super) fn check(&self) -> bool {
        let run = BLOCKS_CHECKED * BLOCK_BYTES;
        let mut starts = (0..self.layout.end).step_by(run);
        starts.all(|start| {
            let bytes = self.bytes.raw(start, run.min(self.layout.end - start)).unwrap_or_default();
            let first = start / BLOCK_BYTES;
            let good = !bytes.is_empty()
                && (first..).zip(bytes.chunks(BLOCK_BYTES)).all(|(block, bytes)| self.is_good(block, bytes));
            self.damaged.fetch_or(!good, Ordering::Relaxed);
            good
        }) && !self.is_damaged()
    }

    fn is_good(&self, block: usize, bytes: &[u8]) -> bool {
        self.hashes.get(block * 32..block * 32 + 32) == Some(&blake3::hash(bytes).as_bytes()[..])
    }

    /// Copies what a block has from `start` on, and says how much that is.
    fn copy(&self, block: usize, start: usize, to: &mut [u8]) -> Option<usize> {
        let end = BLOCK_BYTES.min(self.layout.end.checked_sub(block * BLOCK_BYTES)?);
        let length = to.len().min(end.checked_sub(start).filter(|length| *length > 0)?);
        let to = to.get_mut(..length)?;
        match &self.bytes {
            Bytes::Memory(bytes) => {
                let at = block * BLOCK_BYTES + start;
                to.copy_from_slice(bytes.get(at..at + length)?);
            }
            Bytes::File { file, number, kept } => {
                let slot = kept.slot(*number, block)?;
                let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                if slot.as_ref().is_none_or(|kept| (kept.file, kept.block) != (*number, block)) {
                    let mut bytes =
                        slot.take().map_or_else(|| Box::new([0; BLOCK_BYTES]), |other| other.bytes);
                    let read = file.read_exact_at(bytes.get_mut(..end)?, (block * BLOCK_BYTES) as u64);
                    if read.is_err() || !self.is_good(block, bytes.get(..end)?) {
                        self.damaged.store(true, Ordering::Relaxed);
                        return None;
                    }
                    *slot = Some(Kept { file: *number, block, bytes });
                }
                to.copy_from_slice(slot.as_ref()?.bytes.get(start..start + length)?);
            }
        }
        Some(length)
    }

    /// Bytes of the tables, checked.
    fn fill(&self, mut at: usize, mut to: &mut [u8]) -> Option<()> {
        while !to.is_empty() {
            let filled = self.copy(at / BLOCK_BYTES, at % BLOCK_BYTES, to)?;
            (at, to) = (at.checked_add(filled)?, to.get_mut(filled..)?);
        }
        (!self.is_damaged()).then_some(())
    }

    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut row = [0; N];
        self.fill(at, &mut row)?;
        Some(row)
    }

    fn row<const N: usize>(&self, table: usize, number: u32) -> Option<[u8; N]> {
        self.read(table + index(number) * N)
    }

    /// A pack by its number.
    pub(super) fn pack(&self, number: u32) -> Option<PackRow> {
        if number >= self.counts.packs {
            return None;
        }
        let row: [u8; PACK_ROW] = self.row(self.layout.packs, number)?;
        Some(PackRow {
            id: PackId::from_slice(row.get(..32)?)?,
            size: word(&row, 32),
            kind: if word(&row, 36) == 1 { PackKind::Data } else { PackKind::Metadata },
            first_frame: word(&row, 40),
            frames: word(&row, 44),
            first_section: word(&row, 48),
            sections: word(&row, 52),
        })
    }

    /// A frame by its number.
    pub(super) fn frame(&self, number: u32) -> Option<FrameRow> {
        if number >= self.counts.frames {
            return None;
        }
        let row: [u8; FRAME_ROW] = self.row(self.layout.frames, number)?;
        Some(FrameRow {
            pack: word(&row, 0),
            section: word(&row, 4),
            counter: word(&row, 8),
            offset: word(&row, 12),
            length: word(&row, 16),
            codec: if word(&row, 20) == 0 { Codec::Raw } else { Codec::Zstd },
            first_blob: word(&row, 24),
            blobs: word(&row, 28),
            hash: row.get(32..)?.try_into().ok()?,
        })
    }

    /// The header of a section as it stands in its pack.
    pub(super) fn section_bytes(&self, number: u32) -> Option<[u8; SECTION_HEADER_LEN]> {
        if number >= self.counts.sections {
            return None;
        }
        self.row(self.layout.sections, number)
    }

    /// The id of a section and the digest of what it holds, as they stand in the table.
    pub(super) fn name_bytes(&self, number: u32) -> Option<[u8; NAME_ROW]> {
        if number >= self.counts.sections {
            return None;
        }
        self.row(self.layout.names, number)
    }

    /// The id of a section and the digest of what it holds: what a verifier may attest.
    pub(super) fn section_name(&self, number: u32) -> Option<(SectionId, [u8; 32])> {
        let name = self.name_bytes(number)?;
        let (id, digest) = name.split_at_checked(SectionId::LEN)?;
        Some((SectionId::from_slice(id)?, digest.try_into().ok()?))
    }

    /// Who wrote a section.
    pub(super) fn section_author(&self, number: u32) -> Option<IdentityId> {
        if number >= self.counts.sections {
            return None;
        }
        let start: [u8; AUTHOR_END] = self.read(self.layout.sections + index(number) * SECTION_HEADER_LEN)?;
        SectionHeader::author_of(&start)
    }

    /// The key epoch of a section, without the rest of its header.
    pub(super) fn section_epoch(&self, number: u32) -> Option<u32> {
        if number >= self.counts.sections {
            return None;
        }
        let start: [u8; AUTHOR_END + 4] =
            self.read(self.layout.sections + index(number) * SECTION_HEADER_LEN)?;
        SectionHeader::epoch_of(&start)
    }

    /// Who wrote the sections; nothing of a damaged file. The first call reads all of their table.
    pub(super) fn authors(&self) -> Option<&HashSet<IdentityId>> {
        let read = || (0..self.counts.sections).map(|number| self.section_author(number)).collect();
        self.authors.get_or_init(read).as_ref()
    }

    /// The header of a section.
    pub(super) fn section(&self, number: u32) -> Option<SectionHeader> {
        SectionHeader::decode(&self.section_bytes(number)?).ok()
    }

    /// A blob by its number.
    pub(super) fn blob(&self, number: u32) -> Option<Blob> {
        if number >= self.counts.blobs {
            return None;
        }
        let row: [u8; BLOB_ROW] = self.row(self.layout.blobs, number)?;
        Some(Blob { id: BlobId::from_slice(row.get(..32)?)?, length: word(&row, 32) })
    }

    /// A frame with its blobs, in the form that the format has for it.
    pub(super) fn whole_frame(&self, row: &FrameRow) -> Option<Frame> {
        let pack = self.pack(row.pack)?;
        let FrameRow { counter, offset, length, codec, hash, .. } = *row;
        let section = u16::try_from(row.section.checked_sub(pack.first_section)?).ok()?;
        let blobs = row.first_blob..row.first_blob.checked_add(row.blobs)?;
        let blobs = blobs.map(|blob| self.blob(blob)).collect::<Option<_>>()?;
        Some(Frame { section, counter, offset, length, codec, hash, blobs })
    }

    /// A lookup row: the beginning of an id, its blob and its frame.
    pub(super) fn lookup(&self, number: u32) -> Option<([u8; PREFIX_BYTES], u32, u32)> {
        let row: [u8; LOOKUP_ROW] = self.row(self.layout.lookup, number)?;
        Some((row.get(..PREFIX_BYTES)?.try_into().ok()?, word(&row, 16), word(&row, 20)))
    }

    /// The index objects that it speaks for.
    pub(super) fn objects(&self) -> Option<Vec<ObjectId>> {
        let table = self.layout.objects;
        (0..self.counts.objects).map(|number| Some(ObjectId::new(self.row(table, number)?))).collect()
    }

    /// Every place of a blob: frame and blob numbers.
    pub(super) fn find(&self, id: &BlobId) -> impl Iterator<Item = (u32, u32)> + '_ {
        let prefix = &id.as_bytes()[..PREFIX_BYTES];
        let (start, end) = self.bucket_of(prefix).unwrap_or((0, 0));
        let start = self
            .first_of_few(prefix, start, end)
            .unwrap_or_else(|| self.first_not_before(prefix, start, end));
        let (wanted, prefix) = (*id, <[u8; PREFIX_BYTES]>::try_from(prefix).unwrap_or_default());
        (start..end)
            .map_while(move |row| self.lookup(row).filter(|(found, ..)| *found == prefix))
            .filter(move |(_, blob, _)| self.blob(*blob).is_some_and(|blob| blob.id == wanted))
            .map(|(_, blob, frame)| (frame, blob))
    }

    fn bucket_of(&self, prefix: &[u8]) -> Option<(u32, u32)> {
        let at = self.layout.fan_out + bucket(prefix, self.counts.fan_out_bits()) * 4;
        let row: [u8; 8] = self.read(at)?;
        let (start, end) = (word(&row, 0), word(&row, 4));
        (start <= end && end <= self.counts.blobs).then_some((start, end))
    }

    /// The usual bucket has few rows: they are copied together.
    fn first_of_few(&self, prefix: &[u8], start: u32, end: u32) -> Option<u32> {
        let mut rows = [0; ROWS_AT_ONCE * LOOKUP_ROW];
        let rows = rows.get_mut(..index(end - start) * LOOKUP_ROW)?;
        self.fill(self.layout.lookup + index(start) * LOOKUP_ROW, rows)?;
        let before = |row: &&[u8]| row.get(..PREFIX_BYTES).is_some_and(|found| found < prefix);
        let before = rows.chunks_exact(LOOKUP_ROW).take_while(before).count();
        Some(start + u32::try_from(before).ok()?)
    }

    fn first_not_before(&self, prefix: &[u8], mut start: u32, mut end: u32) -> u32 {
        while start < end {
            let middle = start + (end - start) / 2;
            match self.lookup(middle) {
                Some((found, ..)) if found[..] < *prefix => start = middle + 1,
                _ => end = middle,
            }
        }
        start
    }
}
