//! Writes segments: from the packs of one index object, or from other segments. A merge holds the
//! fan-out and a few numbers for each pack in memory, never a table.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    io::{self, Write},
};

use super::segment::{
    BLOB_ROW, BLOCK_BYTES, Counts, FRAME_ROW, FrameRow, LOOKUP_ROW, MAGIC, PACK_ROW, PREFIX_BYTES, PackRow,
    Segment, bucket,
};
use crate::{
    compress::Codec,
    format::{
        attestation::digests,
        pack::{Blob, IndexedPack, PackKind},
    },
    id::{ObjectId, PackId},
};

/// Gives the rows of each table, in their order.
trait Rows {
    fn counts(&self) -> Option<Counts>;
    fn packs(&self, each: &mut dyn FnMut(PackRow) -> io::Result<()>) -> io::Result<()>;
    fn sections(&self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>;
    /// The id of each section and the digest of what it holds.
    fn names(&self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>;
    fn frames(&self, each: &mut dyn FnMut(FrameRow) -> io::Result<()>) -> io::Result<()>;
    fn blobs(&self, each: &mut dyn FnMut(Blob) -> io::Result<()>) -> io::Result<()>;
    /// The beginning of an id, its blob, its frame; sorted.
    fn lookup(&self, each: &mut dyn FnMut(LookupRow) -> io::Result<()>) -> io::Result<()>;
    fn objects(&self, each: &mut dyn FnMut(ObjectId) -> io::Result<()>) -> io::Result<()>;
}

type LookupRow = ([u8; PREFIX_BYTES], u32, u32);

/// Hashes each block as it goes by.
struct Hashing<W> {
    out: W,
    block: Vec<u8>,
    hashes: Vec<u8>,
}

impl<W: Write> Hashing<W> {
    fn new(out: W) -> Self {
        Self { out, block: Vec::with_capacity(BLOCK_BYTES), hashes: Vec::new() }
    }

    fn close_block(&mut self) -> io::Result<()> {
        self.hashes.extend_from_slice(blake3::hash(&self.block).as_bytes());
        self.out.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(head);
            if self.block.len() == BLOCK_BYTES {
                self.close_block()?;
            }
            bytes = rest;
        }
        Ok(())
    }

    fn finish(mut self, counts: Counts, key: &[u8; 32]) -> io::Result<W> {
        if !self.block.is_empty() {
            self.close_block()?;
        }
        let mut said = MAGIC.to_vec();
        let Counts { packs, sections, frames, blobs, objects } = counts;
        for number in [packs, sections, frames, blobs, objects, 0] {
            said.extend_from_slice(&number.to_le_bytes());
        }
        let mac = blake3::Hasher::new_keyed(key).update(&self.hashes).update(&said).finalize();
        self.out.write_all(&self.hashes)?;
        self.out.write_all(&said)?;
        self.out.write_all(mac.as_bytes())?;
        Ok(self.out)
    }
}

fn row<const N: usize>(words: &[u32], bytes: &[u8]) -> [u8; N] {
    let mut row = [0; N];
    let all = words.iter().flat_map(|word| word.to_le_bytes()).chain(bytes.iter().copied());
    for (to, from) in row.iter_mut().zip(all) {
        *to = from;
    }
    row
}

fn write<W: Write>(rows: &dyn Rows, out: W, key: &[u8; 32]) -> io::Result<W> {
    let counts =
        rows.counts().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a damaged segment"))?;
    let mut out = Hashing::new(out);
    rows.packs(&mut |pack| {
        let PackRow { id, size, kind, first_frame, frames, first_section, sections } = pack;
        let kind = if kind == PackKind::Data { 1 } else { 2 };
        out.put(id.as_bytes())?;
        out.put(&row::<{ PACK_ROW - 32 }>(&[size, kind, first_frame, frames, first_section, sections], &[]))
    })?;
    rows.sections(&mut |header| out.put(header))?;
    rows.names(&mut |name| out.put(name))?;
    rows.frames(&mut |frame| {
        let FrameRow { pack, section, counter, offset, length, codec, first_blob, blobs, hash } = frame;
        let codec = if codec == Codec::Raw { 0 } else { 1 };
        let words = [pack, section, counter, offset, length, codec, first_blob, blobs];
        out.put(&row::<FRAME_ROW>(&words, &hash))
    })?;
    rows.blobs(&mut |blob| {
        out.put(blob.id.as_bytes())?;
        out.put(&row::<{ BLOB_ROW - 32 }>(&[blob.length], &[]))
    })?;
    let bits = counts.fan_out_bits();
    let mut fan_out = vec![0_u32; (1 << bits) + 1];
    rows.lookup(&mut |(prefix, blob, frame)| {
        if let Some(count) = fan_out.get_mut(bucket(&prefix, bits) + 1) {
            *count += 1;
        }
        out.put(&prefix)?;
        out.put(&row::<{ LOOKUP_ROW - PREFIX_BYTES }>(&[blob, frame], &[]))
    })?;
    let mut total = 0_u32;
    for count in fan_out {
        total += count;
        out.put(&total.to_le_bytes())?;
    }
    rows.objects(&mut |id| out.put(id.as_bytes()))?;
    out.finish(counts, key)
}

/// The packs of one index object.
struct Packs<'a> {
    packs: Vec<&'a IndexedPack>,
    object: ObjectId,
}

fn number(value: usize) -> Option<u32> {
    u32::try_from(value).ok()
}

impl Rows for Packs<'_> {
    fn counts(&self) -> Option<Counts> {
        let directories = || self.packs.iter().map(|pack| &pack.directory);
        let frames = || directories().flat_map(|directory| &directory.frames);
        Some(Counts {
            packs: number(self.packs.len())?,
            sections: number(directories().map(|directory| directory.sections.len()).sum())?,
            frames: number(frames().count())?,
            blobs: number(frames().map(|frame| frame.blobs.len()).sum())?,
            objects: 1,
        })
    }

    fn packs(&self, each: &mut dyn FnMut(PackRow) -> io::Result<()>) -> io::Result<()> {
        let (mut first_frame, mut first_section) = (0, 0);
        for pack in &self.packs {
            let frames = number(pack.directory.frames.len()).unwrap_or(0);
            let sections = number(pack.directory.sections.len()).unwrap_or(0);
            let IndexedPack { id, size, kind, directory: _ } = **pack;
            each(PackRow { id, size, kind, first_frame, frames, first_section, sections })?;
            (first_frame, first_section) = (first_frame + frames, first_section + sections);
        }
        Ok(())
    }

    fn sections(&self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut all = self.packs.iter().flat_map(|pack| &pack.directory.sections);
        all.try_for_each(|header| each(&header.encode()))
    }

    fn names(&self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        for directory in self.packs.iter().map(|pack| &pack.directory) {
            for (header, digest) in directory.sections.iter().zip(digests(directory)) {
                each(header.id().as_bytes())?;
                each(&digest)?;
            }
        }
        Ok(())
    }

    fn frames(&self, each: &mut dyn FnMut(FrameRow) -> io::Result<()>) -> io::Result<()> {
        let (mut first_section, mut first_blob) = (0, 0);
        for (pack, listed) in (0_u32..).zip(&self.packs) {
            for frame in &listed.directory.frames {
                let blobs = number(frame.blobs.len()).unwrap_or(0);
                each(FrameRow {
                    pack,
                    section: first_section + u32::from(frame.section),
                    counter: frame.counter,
                    offset: frame.offset,
                    length: frame.length,
                    codec: frame.codec,
                    first_blob,
                    blobs,
                    hash: frame.hash,
                })?;
                first_blob += blobs;
            }
            first_section += number(listed.directory.sections.len()).unwrap_or(0);
        }
        Ok(())
    }

    fn blobs(&self, each: &mut dyn FnMut(Blob) -> io::Result<()>) -> io::Result<()> {
        let frames = self.packs.iter().flat_map(|pack| &pack.directory.frames);
        frames.flat_map(|frame| &frame.blobs).try_for_each(|blob| each(*blob))
    }

    fn lookup(&self, each: &mut dyn FnMut(LookupRow) -> io::Result<()>) -> io::Result<()> {
        let mut rows: Vec<LookupRow> = Vec::new();
        let frames = self.packs.iter().flat_map(|pack| &pack.directory.frames);
        let mut blob_number = 0;
        for (frame_number, frame) in (0_u32..).zip(frames) {
            for blob in &frame.blobs {
                let (prefix, _) = blob.id.as_bytes().split_at(PREFIX_BYTES);
                rows.push((prefix.try_into().unwrap_or_default(), blob_number, frame_number));
                blob_number += 1;
            }
        }
        rows.sort_unstable();
        rows.into_iter().try_for_each(each)
    }

    fn objects(&self, each: &mut dyn FnMut(ObjectId) -> io::Result<()>) -> io::Result<()> {
        each(self.object)
    }
}

/// The bytes of a segment that says what one index object says.
///
/// # Errors
/// More blobs than a segment can number, which no index object holds.
pub(super) fn from_packs(packs: &[IndexedPack], object: ObjectId, key: &[u8; 32]) -> io::Result<Vec<u8>> {
    let several = repeated(packs.iter().map(|pack| pack.id));
    let mut seen = HashSet::new();
    let is_new = |pack: &&IndexedPack| !several.contains(&pack.id) || seen.insert(pack.digest());
    let packs = packs.iter().filter(is_new).collect();
    write(&Packs { packs, object }, Vec::new(), key)
}

/// The packs that are listed more than once. What is said of them may differ: in a shared domain somebody
/// may list another's pack with a section of his own, which must not hide the true one.
fn repeated(packs: impl Iterator<Item = PackId>) -> HashSet<PackId> {
    let mut counts: HashMap<PackId, bool> = HashMap::new();
    packs.for_each(|id| {
        counts.entry(id).and_modify(|several| *several = true).or_default();
    });
    counts.into_iter().filter(|(_, several)| *several).map(|(id, _)| id).collect()
}

/// Everything that a segment says of a pack, as a hash.
fn listing(segment: &Segment, pack: &PackRow) -> Option<blake3::Hash> {
    let PackRow { id, size, kind, first_frame, frames, first_section, sections } = *pack;
    let mut hasher = blake3::Hasher::new();
    let kind = if kind == PackKind::Data { 1 } else { 2 };
    hasher.update(id.as_bytes()).update(&row::<16>(&[size, kind, frames, sections], &[]));
    for number in first_section..first_section.checked_add(sections)? {
        hasher.update(&segment.section_bytes(number)?);
    }
    for number in first_frame..first_frame.checked_add(frames)? {
        let frame = segment.frame(number)?;
        let FrameRow { pack: _, section, counter, offset, length, codec, first_blob, blobs, hash } = frame;
        let codec = if codec == Codec::Raw { 0 } else { 1 };
        let section = section.checked_sub(first_section)?;
        let words = [section, counter, offset, length, codec, blobs];
        hasher.update(&row::<56>(&words, &hash));
        for number in first_blob..first_blob.checked_add(blobs)? {
            let blob = segment.blob(number)?;
            hasher.update(blob.id.as_bytes()).update(&blob.length.to_le_bytes());
        }
    }
    Some(hasher.finalize())
}

/// What becomes of a pack in a merge: the numbers that are added to those of its rows.
#[derive(Clone, Copy)]
struct Moved {
    pack: u32,
    section: i64,
    frame: i64,
    blob: i64,
}

/// Several segments as one; what several say of a pack comes once, if it is the same.
struct Merge<'a> {
    segments: &'a [&'a Segment],
    /// For each segment, for each of its packs: its first frame, and where it goes if nothing said the same before.
    moved: Vec<Vec<(u32, Option<Moved>)>>,
    counts: Counts,
}

impl<'a> Merge<'a> {
    fn new(segments: &'a [&'a Segment]) -> Option<Self> {
        let ids = segments.iter().flat_map(|segment| {
            (0..segment.counts().packs).filter_map(|number| Some(segment.pack(number)?.id))
        });
        let several = repeated(ids);
        let (mut counts, mut moved, mut seen) = (Counts::default(), Vec::new(), HashSet::new());
        for segment in segments {
            let mut of_segment = Vec::new();
            for number in 0..segment.counts().packs {
                let pack = segment.pack(number)?;
                if several.contains(&pack.id) && !seen.insert(listing(segment, &pack)?) {
                    of_segment.push((pack.first_frame, None));
                    continue;
                }
                let (first, blobs) = blobs_of(segment, &pack)?;
                let moved = Moved {
                    pack: counts.packs,
                    section: i64::from(counts.sections) - i64::from(pack.first_section),
                    frame: i64::from(counts.frames) - i64::from(pack.first_frame),
                    blob: i64::from(counts.blobs) - i64::from(first),
                };
                of_segment.push((pack.first_frame, Some(moved)));
                counts.packs = counts.packs.checked_add(1)?;
                counts.sections = counts.sections.checked_add(pack.sections)?;
                counts.frames = counts.frames.checked_add(pack.frames)?;
                counts.blobs = counts.blobs.checked_add(blobs)?;
            }
            counts.objects = counts.objects.checked_add(segment.counts().objects)?;
            moved.push(of_segment);
        }
        Some(Self { segments, moved, counts })
    }

    /// The packs that stay, each with its segment.
    fn kept(&self) -> impl Iterator<Item = (&'a Segment, Option<PackRow>, Moved)> + '_ {
        self.segments.iter().zip(&self.moved).flat_map(|(segment, moved)| {
            let numbered = (0_u32..).zip(moved);
            numbered.filter_map(move |(number, (_, moved))| Some((*segment, segment.pack(number), (*moved)?)))
        })
    }
}

/// The first blob of a pack and how many it has.
fn blobs_of(segment: &Segment, pack: &PackRow) -> Option<(u32, u32)> {
    if pack.frames == 0 {
        return Some((0, 0));
    }
    let first = segment.frame(pack.first_frame)?.first_blob;
    let last = segment.frame(pack.first_frame.checked_add(pack.frames - 1)?)?;
    Some((first, last.first_blob.checked_add(last.blobs)?.checked_sub(first)?))
}

fn shift(number: u32, by: i64) -> u32 {
    u32::try_from(i64::from(number) + by).unwrap_or(u32::MAX)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a segment of the cache is damaged")
}

impl Rows for Merge<'_> {
    fn counts(&self) -> Option<Counts> {
        Some(self.counts)
    }

    fn packs(&self, each: &mut dyn FnMut(PackRow) -> io::Result<()>) -> io::Result<()> {
        for (_, pack, moved) in self.kept() {
            let pack = pack.ok_or_else(damaged)?;
            let first_frame = shift(pack.first_frame, moved.frame);
            each(PackRow { first_frame, first_section: shift(pack.first_section, moved.section), ..pack })?;
        }
        Ok(())
    }

    fn sections(&self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        for (segment, pack, _) in self.kept() {
            let pack = pack.ok_or_else(damaged)?;
            for number in pack.first_section..pack.first_section + pack.sections {
                each(&segment.section_bytes(number).ok_or_else(damaged)?)?;
            }
        }
        Ok(())
    }

    fn names(&self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        for (segment, pack, _) in self.kept() {
            let pack = pack.ok_or_else(damaged)?;
            for number in pack.first_section..pack.first_section + pack.sections {
                each(&segment.name_bytes(number).ok_or_else(damaged)?)?;
            }
        }
        Ok(())
    }

    fn frames(&self, each: &mut dyn FnMut(FrameRow) -> io::Result<()>) -> io::Result<()> {
        for (segment, pack, moved) in self.kept() {
            let pack = pack.ok_or_else(damaged)?;
            for number in pack.first_frame..pack.first_frame + pack.frames {
                let frame = segment.frame(number).ok_or_else(damaged)?;
                let section = shift(frame.section, moved.section);
                let first_blob = shift(frame.first_blob, moved.blob);
                each(FrameRow { pack: moved.pack, section, first_blob, ..frame })?;
            }
        }
        Ok(())
    }

    fn blobs(&self, each: &mut dyn FnMut(Blob) -> io::Result<()>) -> io::Result<()> {
        for (segment, pack, _) in self.kept() {
            let (first, count) = blobs_of(segment, &pack.ok_or_else(damaged)?).ok_or_else(damaged)?;
            for number in first..first + count {
                each(segment.blob(number).ok_or_else(damaged)?)?;
            }
        }
        Ok(())
    }

    fn lookup(&self, each: &mut dyn FnMut(LookupRow) -> io::Result<()>) -> io::Result<()> {
        let mut next: BinaryHeap<Reverse<(LookupRow, usize, u32)>> = BinaryHeap::new();
        let advance = |next: &mut BinaryHeap<_>, from: usize, mut row: u32| -> io::Result<()> {
            let Some(segment) = self.segments.get(from) else { return Ok(()) };
            while row < segment.counts().blobs {
                let (prefix, blob, frame) = segment.lookup(row).ok_or_else(damaged)?;
                // The rows are in no order of frames: reading each frame would jump through all of its table.
                let packs = self.moved.get(from).map(Vec::as_slice).unwrap_or_default();
                let pack = packs.partition_point(|(first_frame, _)| *first_frame <= frame).checked_sub(1);
                row += 1;
                if let Some((_, Some(moved))) = pack.and_then(|pack| packs.get(pack)) {
                    let found = (prefix, shift(blob, moved.blob), shift(frame, moved.frame));
                    next.push(Reverse((found, from, row)));
                    break;
                }
            }
            Ok(())
        };
        for from in 0..self.segments.len() {
            advance(&mut next, from, 0)?;
        }
        while let Some(Reverse((found, from, row))) = next.pop() {
            each(found)?;
            advance(&mut next, from, row)?;
        }
        Ok(())
    }

    fn objects(&self, each: &mut dyn FnMut(ObjectId) -> io::Result<()>) -> io::Result<()> {
        for segment in self.segments {
            segment.objects().ok_or_else(damaged)?.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    }
}

/// Writes several segments as one.
///
/// # Errors
/// One of them is damaged; `out` cannot be written.
pub(super) fn merge<W: Write>(segments: &[&Segment], out: W, key: &[u8; 32]) -> io::Result<W> {
    let rows = Merge::new(segments).ok_or_else(damaged)?;
    write(&rows, out, key)
}
