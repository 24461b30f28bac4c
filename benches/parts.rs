//! What each part of the engine does per second on one core: `cargo bench --bench parts [-- NAME]`.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a measurement may stop at the first surprise, and its files need not be durable"
)]
#![allow(dead_code, reason = "`benches/scale` uses the rest of its modules")]

use std::{path::PathBuf, sync::Arc};

use divan::{Bencher, black_box, counter::BytesCount, counter::ItemsCount};
use lifeboat::{
    chunk::{ChunkSizes, Chunker},
    clock::Timestamp,
    compress::{Compression, Compressor, Plaintext},
    crypto::{ChunkRoot, FrameKey, NodeKey, NodeRoot},
    error::Result,
    format::{
        entry::{ChunkRef, Content, Entry, EntryKind, Metadata},
        pack::PackKind,
    },
    id::{BlobId, DomainId, IdentityId, ObjectId},
    limits,
    ops::{
        backup::ingest::FRAME_BYTES_TARGET,
        restore::{self, RestoreOptions},
    },
    repository::{
        index::{Index, Segments, Standing},
        manifest::{ManifestBuilder, NodeSink},
    },
};

use object_store::memory::InMemory;

use self::{
    packs::Packs,
    world::{Place, World},
};

#[path = "scale/packs.rs"]
mod packs;
#[path = "scale/store.rs"]
mod store;
#[path = "scale/world.rs"]
mod world;

/// Of a file that is cut.
const FILE_BYTES: usize = 16 << 20;
/// Of a chunk of average length.
const CHUNK_BYTES: usize = limits::CHUNK_BYTES_AVERAGE;
/// Of a file that is one chunk.
const SMALL_CHUNK_BYTES: usize = 4 << 10;
/// Of a frame.
const FRAME_BYTES: usize = FRAME_BYTES_TARGET;
/// Chunks that the index knows.
const INDEX_CHUNKS: u64 = 1_000_000;
/// Chunks that are looked up in one round.
const LOOKUPS: u64 = 10_000;
/// Entries of a manifest.
const ENTRIES: u64 = 100_000;

const DOMAIN: DomainId = DomainId::new([1; 8]);
const AUTHOR: IdentityId = IdentityId::new([1; 16]);

fn main() {
    divan::main();
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Compresses to about a third, as source code does: each byte of noise chooses a word.
fn text(length: usize) -> Vec<u8> {
    const LETTERS: &[u8; 16] = b"etaoinsrhldcumfp";
    let word = |byte: &u8| {
        let letters = u32::from(*byte).wrapping_mul(2_654_435_761).to_le_bytes().repeat(2);
        let length = 3 + usize::from(byte % 5);
        let word = letters.into_iter().take(length).map(|byte| LETTERS[usize::from(byte % 16)]);
        word.chain([b' ']).collect::<Vec<_>>()
    };
    let mut text: Vec<u8> = noise(length / 4).iter().flat_map(word).collect();
    text.truncate(length);
    text
}

#[divan::bench]
fn cut(bencher: Bencher<'_, '_>) {
    let keys = ChunkRoot::from_bytes([1; 32]).domain(&DOMAIN);
    let chunker = Chunker::new(keys.gear.table(), ChunkSizes::DEFAULT);
    let file = noise(FILE_BYTES);
    bencher.counter(BytesCount::new(FILE_BYTES)).bench_local(|| {
        let (mut at, mut chunks) = (0, 0);
        while at < file.len() {
            at += chunker.cut(&file[at..]);
            chunks += 1;
        }
        chunks
    });
}

#[divan::bench(args = [SMALL_CHUNK_BYTES, CHUNK_BYTES])]
fn hash(bencher: Bencher<'_, '_>, length: usize) {
    let keys = ChunkRoot::from_bytes([1; 32]).domain(&DOMAIN);
    let chunk = noise(length);
    bencher.counter(BytesCount::new(length)).bench_local(|| keys.id.id(black_box(&chunk)));
}

const LEVELS: [Compression; 3] = [Compression::Fast, Compression::Auto, Compression::Max];

#[divan::bench(args = LEVELS)]
fn compress(bencher: Bencher<'_, '_>, level: Compression) {
    let (frame, mut compressor) = (text(FRAME_BYTES), Compressor::new(level).unwrap());
    bencher.counter(BytesCount::new(FRAME_BYTES)).bench_local(|| compressor.compress(&frame).unwrap());
}

/// Level 6 of `auto`.
#[divan::bench]
fn compress_changes(bencher: Bencher<'_, '_>) {
    let (frame, mut compressor) = (text(FRAME_BYTES), Compressor::new(Compression::Auto).unwrap());
    bencher
        .counter(BytesCount::new(FRAME_BYTES))
        .bench_local(|| compressor.compress_as(&frame, Plaintext::Changes).unwrap());
}

#[divan::bench]
fn compress_noise(bencher: Bencher<'_, '_>) {
    let (frame, mut compressor) = (noise(FRAME_BYTES), Compressor::new(Compression::Auto).unwrap());
    bencher.counter(BytesCount::new(FRAME_BYTES)).bench_local(|| compressor.compress(&frame).unwrap());
}

#[divan::bench]
fn decompress(bencher: Bencher<'_, '_>) {
    let mut compressor = Compressor::new(Compression::Auto).unwrap();
    let (codec, stored) = compressor.compress(&text(FRAME_BYTES)).unwrap();
    let decompressor = compressor.decompressor();
    bencher
        .counter(BytesCount::new(FRAME_BYTES))
        .with_inputs(|| stored.clone())
        .bench_local_values(|stored| decompressor.decompress(codec, stored, FRAME_BYTES).unwrap());
}

#[divan::bench]
fn seal(bencher: Bencher<'_, '_>) {
    let (key, frame) = (FrameKey::derive(&[1; 32], b"").unwrap().0, noise(FRAME_BYTES));
    let with_room = || {
        let mut plain = Vec::with_capacity(FRAME_BYTES + limits::TAG_LEN);
        plain.extend_from_slice(&frame);
        plain
    };
    bencher
        .counter(BytesCount::new(FRAME_BYTES))
        .with_inputs(with_room)
        .bench_local_values(|plain| key.seal_in_place(1, b"", plain).unwrap());
}

#[divan::bench]
fn open(bencher: Bencher<'_, '_>) {
    let key = FrameKey::derive(&[1; 32], b"").unwrap().0;
    let sealed = key.seal(1, b"", &noise(FRAME_BYTES)).unwrap();
    bencher.counter(BytesCount::new(FRAME_BYTES)).bench_local(|| key.open(1, b"", &sealed).unwrap());
}

fn index() -> (Index, Packs) {
    let packs = Packs::of_chunks(1, INDEX_CHUNKS, AUTHOR);
    let listed: Vec<_> = (0..packs.count).map(|number| packs.indexed(number)).collect();
    let segments = Segments::new(None);
    segments.add(&DOMAIN, ObjectId::new([1; 32]), &listed, &[1; 32]).unwrap();
    (segments.index(&DOMAIN, &|_, _| Standing::Live), packs)
}

/// Chunks from all over the index, in no order.
fn some(packs: &Packs, first: u64) -> Vec<BlobId> {
    let step = packs.chunks() / LOOKUPS;
    (0..LOOKUPS).map(|number| packs.chunk(first + number * step)).collect()
}

/// What a backup asks for each chunk.
#[divan::bench(args = ["there", "not there"])]
fn look_up(bencher: Bencher<'_, '_>, which: &str) {
    let (index, packs) = index();
    let chunks = some(&packs, if which == "there" { 0 } else { packs.chunks() });
    bencher
        .counter(ItemsCount::new(chunks.len()))
        .bench_local(|| chunks.iter().filter(|chunk| index.borrow(chunk, AUTHOR, PackKind::Data)).count());
}

/// Takes the nodes of a manifest and forgets them.
struct Forgotten;

impl NodeSink for Forgotten {
    fn node(&mut self, _: BlobId, plain: Vec<u8>) -> Result<()> {
        black_box(plain);
        Ok(())
    }
}

fn entries() -> Vec<Entry> {
    let entry = |number: u64| {
        let time = Timestamp { seconds: 1_700_000_000 + number.cast_signed(), nanoseconds: number as u32 };
        let id = BlobId::new(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let metadata = Metadata {
            mode: 0o644,
            user: "root".to_owned(),
            group: "root".to_owned(),
            mtime: time,
            ctime: time,
            btime: Some(time),
            inode: number,
            size: number,
            ..Metadata::of(EntryKind::File)
        };
        Entry {
            path: format!("srv/data/{:04}/{:03}.txt", number / 1000, number % 1000).into_bytes(),
            metadata,
            content: Content::Inline(vec![ChunkRef { id, length: number as u32 }]),
            changed_while_read: false,
            error: None,
        }
    };
    (0..ENTRIES).map(entry).collect()
}

fn build(key: &NodeKey, entries: Vec<Entry>) -> BlobId {
    let mut builder = ManifestBuilder::new(key);
    entries.into_iter().for_each(|entry| builder.push(entry, &mut Forgotten).unwrap());
    builder.finish(&mut Forgotten).unwrap().0.id
}

/// The entries of a walk made into nodes.
#[divan::bench(sample_count = 10)]
fn manifest_build(bencher: Bencher<'_, '_>) {
    let (key, entries) = (NodeRoot::from_bytes([1; 32]).domain(&DOMAIN), entries());
    bencher
        .counter(ItemsCount::new(entries.len()))
        .with_inputs(|| entries.clone())
        .bench_local_values(|entries| build(&key, entries));
}

/// A backup of files that have not changed: the entries of a walk that costs nothing are merged with the manifest of the parent,
/// which the cache has, and made into nodes again. Opening the repository and writing the snapshot are in it.
#[divan::bench(sample_count = 10)]
fn manifest_merge(bencher: Bencher<'_, '_>) {
    let (place, cache) = (place(), tempfile::tempdir().unwrap());
    place.back_up(Some(cache.path()), 0);
    let unchanged = || {
        let done = place.back_up(Some(cache.path()), 0);
        assert_eq!(done.record.statistics.files_unchanged, ENTRIES);
    };
    bencher.counter(ItemsCount::new(ENTRIES)).bench_local(unchanged);
}

/// What `restore --dry-run` does into an empty folder: the plan of a restore, which part of which pack is read for which files.
#[divan::bench(sample_count = 10)]
fn plan(bencher: Bencher<'_, '_>) {
    let (place, target) = (place(), tempfile::tempdir().unwrap());
    let repository = place.open(None);
    let (snapshots, _) = repository.snapshots().unwrap();
    let snapshot = snapshots.first().unwrap();
    bencher.counter(ItemsCount::new(ENTRIES)).bench_local(|| {
        let forecast =
            restore::forecast(&repository, snapshot, target.path(), &RestoreOptions::default()).unwrap();
        assert_eq!((forecast.files, forecast.chunks_lost), (ENTRIES, 0));
    });
}

/// A repository in memory with one backup.
fn place() -> Place {
    Place::make(World::Files(ENTRIES), Arc::new(InMemory::new()), 1, PathBuf::new())
}
