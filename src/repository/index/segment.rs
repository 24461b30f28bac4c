//! A segment: what some index objects say, in tables of fixed rows that need no decoding, so that a file
//! of the cache can be mapped into memory and asked at once. What is asked for is checked first, block by
//! block, against hashes under a MAC: a cache that lies is a cache that is not there.
//!
//! Layout: packs, section headers, names of sections with the digest of what they hold, frames, blobs, lookup rows sorted by id, the fan-out of the lookup
//! rows, ids of the index objects; then a BLAKE3 of each block of these, then the footer.

use std::{
    fs::File,
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{
    compress::Codec,
    format::pack::{Blob, Frame, PackKind, SECTION_HEADER_LEN, SectionHeader},
    id::{BlobId, IdentityId, ObjectId, PackId, SectionId},
};

/// Bytes of a block, the unit of checking.
pub(super) const BLOCK_BYTES: usize = 64 << 10;
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
pub(super) const FOOTER_LEN: usize = 8 + 6 * 4 + 32;
pub(super) const MAGIC: [u8; 8] = *b"LFBSEG02";

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

/// Which entry of the fan-out an id belongs to.
pub(super) fn bucket(prefix: &[u8], bits: u32) -> usize {
    let head: [u8; 4] = prefix.get(..4).and_then(|head| head.try_into().ok()).unwrap_or_default();
    // The first byte counts most, so that buckets are in the order of the ids.
    let word = u64::from(u32::from_le_bytes(head).swap_bytes());
    usize::try_from(word >> (32 - bits.min(32))).unwrap_or(0)
}

enum Bytes {
    Mapped(memmap2::Mmap),
    Memory(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}

/// What some index objects say.
pub(super) struct Segment {
    bytes: Bytes,
    counts: Counts,
    layout: Layout,
    /// One bit for each block that was checked.
    checked: Vec<AtomicU64>,
    damaged: AtomicBool,
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
    /// Maps a file of the cache; `None` when its footer is not what was written under this key.
    pub(super) fn map(file: &File, key: &[u8; 32]) -> Option<Self> {
        #[expect(unsafe_code, reason = "a file of the private cache: replaced by renaming, never changed")]
        // SAFETY: the folder is the user's own (mode 0700); this program writes such a file under another
        // name and never again after it got this one.
        let map = unsafe { memmap2::Mmap::map(file) }.ok()?;
        Self::parse(Bytes::Mapped(map), key)
    }

    /// A segment in memory.
    pub(super) fn memory(bytes: Vec<u8>, key: &[u8; 32]) -> Option<Self> {
        Self::parse(Bytes::Memory(bytes), key)
    }

    fn parse(bytes: Bytes, key: &[u8; 32]) -> Option<Self> {
        let (body, footer) = bytes.split_at_checked(bytes.len().checked_sub(FOOTER_LEN)?)?;
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
        let hashes = body.get(layout.end..)?;
        if hashes.len() != blocks.checked_mul(32)? {
            return None;
        }
        let expected = blake3::Hasher::new_keyed(key).update(hashes).update(said).finalize();
        if expected.as_bytes() != mac {
            return None;
        }
        let checked = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Some(Self { bytes, counts, layout, checked, damaged: AtomicBool::new(false) })
    }

    /// How many rows there are.
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes in all: what a merge of it costs.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a block turned out to be damaged.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Checks every block.
    pub(super) fn check(&self) -> bool {
        self.get(0..self.layout.end).is_some()
    }

    /// Bytes of the tables, checked.
    fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        for block in blocks {
            let (flags, bit) = (self.checked.get(block / 64)?, 1 << (block % 64));
            if flags.load(Ordering::Relaxed) & bit == 0 {
                let end = ((block + 1) * BLOCK_BYTES).min(self.layout.end);
                let bytes = self.bytes.get(block * BLOCK_BYTES..end)?;
                let at = self.layout.end + block * 32;
                if blake3::hash(bytes).as_bytes()[..] != *self.bytes.get(at..at + 32)? {
                    self.damaged.store(true, Ordering::Relaxed);
                    return None;
                }
                flags.fetch_or(bit, Ordering::Relaxed);
            }
        }
        self.bytes.get(range).filter(|_| !self.is_damaged())
    }

    fn row(&self, table: usize, row: usize, number: u32) -> Option<&[u8]> {
        let start = table + index(number) * row;
        self.get(start..start + row)
    }

    /// A pack by its number.
    pub(super) fn pack(&self, number: u32) -> Option<PackRow> {
        if number >= self.counts.packs {
            return None;
        }
        let row = self.row(self.layout.packs, PACK_ROW, number)?;
        Some(PackRow {
            id: PackId::from_slice(row.get(..32)?)?,
            size: word(row, 32),
            kind: if word(row, 36) == 1 { PackKind::Data } else { PackKind::Metadata },
            first_frame: word(row, 40),
            frames: word(row, 44),
            first_section: word(row, 48),
            sections: word(row, 52),
        })
    }

    /// A frame by its number.
    pub(super) fn frame(&self, number: u32) -> Option<FrameRow> {
        if number >= self.counts.frames {
            return None;
        }
        let row = self.row(self.layout.frames, FRAME_ROW, number)?;
        Some(FrameRow {
            pack: word(row, 0),
            section: word(row, 4),
            counter: word(row, 8),
            offset: word(row, 12),
            length: word(row, 16),
            codec: if word(row, 20) == 0 { Codec::Raw } else { Codec::Zstd },
            first_blob: word(row, 24),
            blobs: word(row, 28),
            hash: row.get(32..)?.try_into().ok()?,
        })
    }

    /// The header of a section as it stands in its pack.
    pub(super) fn section_bytes(&self, number: u32) -> Option<&[u8]> {
        if number >= self.counts.sections {
            return None;
        }
        self.row(self.layout.sections, SECTION_HEADER_LEN, number)
    }

    /// The id of a section and the digest of what it holds, as they stand in the table.
    pub(super) fn name_bytes(&self, number: u32) -> Option<&[u8]> {
        if number >= self.counts.sections {
            return None;
        }
        self.row(self.layout.names, NAME_ROW, number)
    }

    /// The id of a section and the digest of what it holds: what a verifier may attest.
    pub(super) fn section_name(&self, number: u32) -> Option<(SectionId, [u8; 32])> {
        let (id, digest) = self.name_bytes(number)?.split_at_checked(SectionId::LEN)?;
        Some((SectionId::from_slice(id)?, digest.try_into().ok()?))
    }

    /// Who wrote a section.
    pub(super) fn section_author(&self, number: u32) -> Option<IdentityId> {
        SectionHeader::author_of(self.section_bytes(number)?)
    }

    /// The header of a section.
    pub(super) fn section(&self, number: u32) -> Option<SectionHeader> {
        SectionHeader::decode(self.section_bytes(number)?).ok()
    }

    /// A blob by its number.
    pub(super) fn blob(&self, number: u32) -> Option<Blob> {
        if number >= self.counts.blobs {
            return None;
        }
        let row = self.row(self.layout.blobs, BLOB_ROW, number)?;
        Some(Blob { id: BlobId::from_slice(row.get(..32)?)?, length: word(row, 32) })
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
        let row = self.row(self.layout.lookup, LOOKUP_ROW, number)?;
        Some((row.get(..PREFIX_BYTES)?.try_into().ok()?, word(row, 16), word(row, 20)))
    }

    /// The index objects that it speaks for.
    pub(super) fn objects(&self) -> Option<Vec<ObjectId>> {
        let table = self.get(self.layout.objects..self.layout.end)?;
        Some(table.chunks_exact(ObjectId::LEN).filter_map(ObjectId::from_slice).collect())
    }

    /// Every place of a blob: frame and blob numbers.
    pub(super) fn find(&self, id: &BlobId) -> impl Iterator<Item = (u32, u32)> + '_ {
        let prefix = &id.as_bytes()[..PREFIX_BYTES];
        let (start, end) = self.bucket_of(prefix).unwrap_or((0, 0));
        let start = self.first_not_before(prefix, start, end);
        let (wanted, prefix) = (*id, <[u8; PREFIX_BYTES]>::try_from(prefix).unwrap_or_default());
        (start..end)
            .map_while(move |row| self.lookup(row).filter(|(found, ..)| *found == prefix))
            .filter(move |(_, blob, _)| self.blob(*blob).is_some_and(|blob| blob.id == wanted))
            .map(|(_, blob, frame)| (frame, blob))
    }

    fn bucket_of(&self, prefix: &[u8]) -> Option<(u32, u32)> {
        let at = self.layout.fan_out + bucket(prefix, self.counts.fan_out_bits()) * 4;
        let row = self.get(at..at + 8)?;
        let (start, end) = (word(row, 0), word(row, 4));
        (start <= end && end <= self.counts.blobs).then_some((start, end))
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
