//! A door for `fuzz/`: segments are no part of the API.

use super::segment::{BLOCK_BYTES, Counts, FOOTER_LEN, MAGIC, Segment};
use crate::id::BlobId;

/// Rows of a table, at most: enough for several blocks.
const ROWS_MAX: u32 = 64;

/// The tables of a segment from any bytes, with the hashes and the MAC that they need to be believed. The first
/// bytes say how many rows there are.
fn sealed(bytes: &[u8], key: &[u8; 32]) -> Vec<u8> {
    let rows = |at: usize| u32::from(bytes.get(at).copied().unwrap_or(0)) % ROWS_MAX;
    let counts =
        Counts { packs: rows(0), sections: rows(1), frames: rows(2), blobs: rows(3), objects: rows(4) };
    let mut body = bytes.get(5..).unwrap_or_default().to_vec();
    body.resize(counts.layout().end, 0);
    let hashes: Vec<u8> =
        body.chunks(BLOCK_BYTES).flat_map(|block| *blake3::hash(block).as_bytes()).collect();
    let Counts { packs, sections, frames, blobs, objects } = counts;
    let mut said = MAGIC.to_vec();
    for rows in [packs, sections, frames, blobs, objects] {
        said.extend(rows.to_le_bytes());
    }
    said.resize(FOOTER_LEN - 32, 0);
    let mac = blake3::Hasher::new_keyed(key).update(&hashes).update(&said).finalize();
    [&body[..], &hashes, &said, mac.as_bytes()].concat()
}

/// Asks everything of a segment, and says whether it was accepted. `is_whole`: the bytes are a file of the cache.
#[doc(hidden)]
#[must_use]
pub fn fuzz_segment(bytes: &[u8], key: &[u8; 32], is_whole: bool) -> bool {
    let bytes = if is_whole { bytes.to_vec() } else { sealed(bytes, key) };
    let Some(segment) = Segment::memory(bytes, key) else { return false };
    let counts = segment.counts();
    let packs = (0..counts.packs).filter_map(|number| segment.pack(number)).count();
    let frames = (0..counts.frames).filter_map(|number| segment.whole_frame(&segment.frame(number)?)).count();
    let sections = (0..counts.sections)
        .filter(|number| segment.section(*number).is_some() && segment.section_name(*number).is_some())
        .count();
    let places = |number| Some(segment.find(&segment.blob(number)?.id).count());
    let blobs: usize = (0..counts.blobs).filter_map(places).sum();
    let nothing = segment.find(&BlobId::new([0; 32])).count();
    let objects = segment.objects().map_or(0, |objects| objects.len());
    // Nothing of it is left out for being of no use.
    std::hint::black_box([packs, frames, sections, blobs, nothing, objects]);
    segment.check()
}
