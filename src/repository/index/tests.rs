//! Segments against the lists that they were made from.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Index, Standing, build,
    segment::{BLOCK_BYTES, Blocks, Segment},
    segments::Segments,
};
use crate::{
    compress::Codec,
    error::ErrorKind,
    format::{
        attestation::digest,
        pack::{
            Blob, Directory, ENCAPSULATION_LEN, Frame, IndexedPack, PackKind, SECTION_HEADER_LEN,
            SectionHeader,
        },
    },
    id::{BlobId, DomainId, IdentityId, ObjectId, PackId},
};

const KEY: [u8; 32] = [7; 32];

fn hash(what: &str, number: u64) -> [u8; 32] {
    *blake3::hash(format!("{what} {number}").as_bytes()).as_bytes()
}

fn pack(number: u64, blobs_of: &[u64], author: u8) -> IndexedPack {
    let section = SectionHeader {
        kind: PackKind::Data,
        author: IdentityId::new([author; 16]),
        epoch: 1,
        salt: hash("salt", number),
        encapsulation: Box::new([1; ENCAPSULATION_LEN]),
        commitment: [2; 32],
    };
    let frames = (0_u32..).zip(blobs_of.chunks(3)).map(|(counter, blobs)| Frame {
        section: 0,
        counter,
        offset: 1000 + counter,
        length: 100,
        codec: Codec::Zstd,
        hash: hash("frame", number * 1000 + u64::from(counter)),
        blobs: blobs.iter().map(|n| Blob { id: BlobId::new(hash("blob", *n)), length: 10 }).collect(),
    });
    let directory = Directory { sections: vec![section], frames: frames.collect() };
    IndexedPack { id: PackId::new(hash("pack", number)), size: 5000, kind: PackKind::Data, directory }
}

/// Index objects with packs; some blobs have several copies, and one pack is listed twice.
fn objects() -> Vec<(ObjectId, Vec<IndexedPack>)> {
    let object = |n: u64| {
        let packs = (n * 3..n * 3 + 3).map(|p| {
            let blobs: Vec<u64> = (p * 50..p * 50 + 70).collect();
            pack(p, &blobs, 1)
        });
        (ObjectId::new(hash("object", n)), packs.collect::<Vec<_>>())
    };
    let mut objects: Vec<_> = (0..6).map(object).collect();
    let again = objects[0].1[1].clone();
    objects[4].1.push(again);
    objects
}

/// For each blob, the packs that hold it, by the lists themselves.
fn expected(objects: &[(ObjectId, Vec<IndexedPack>)]) -> HashMap<BlobId, HashSet<PackId>> {
    let mut expected: HashMap<BlobId, HashSet<PackId>> = HashMap::new();
    for pack in objects.iter().flat_map(|(_, packs)| packs) {
        for blob in pack.directory.frames.iter().flat_map(|frame| &frame.blobs) {
            expected.entry(blob.id).or_default().insert(pack.id);
        }
    }
    expected
}

fn live(_: &PackId, _: u32) -> Standing {
    Standing::Live
}

fn check(segments: &Segments, domain: &DomainId, objects: &[(ObjectId, Vec<IndexedPack>)]) {
    let index = segments.index(domain, &live);
    assert!(index.is_intact());
    for (id, packs) in expected(objects) {
        let found: Vec<_> = index.locations(&id).into_iter().map(|at| index.found(at).unwrap()).collect();
        assert_eq!(found.iter().map(|found| found.pack.id).collect::<HashSet<_>>(), packs);
        for found in found {
            assert_eq!(found.frame.blobs[found.blob as usize].id, id);
        }
        assert!(index.borrow(&id, IdentityId::new([1; 16]), PackKind::Data));
        assert!(!index.borrow(&id, IdentityId::new([2; 16]), PackKind::Data), "another's section");
        assert!(!index.borrow(&id, IdentityId::new([1; 16]), PackKind::Metadata));
    }
    assert!(index.locations(&BlobId::new(hash("blob", 1_000_000))).is_empty());
    let listed: HashMap<PackId, &IndexedPack> =
        objects.iter().flat_map(|(_, packs)| packs).map(|pack| (pack.id, pack)).collect();
    for known in index.packs() {
        assert_eq!(index.directory(&known).unwrap(), listed[&known.id].directory);
    }
    assert_eq!(index.used(), Some(listed.keys().copied().collect()));
    let named: HashSet<_> = index.sections().collect();
    let directories = listed.values().map(|pack| &pack.directory);
    assert_eq!(named, directories.map(|d| (d.sections[0].id(), digest(d, 0))).collect());
}

#[test]
fn segments_say_what_the_index_objects_said_in_memory_and_in_a_cache_however_they_are_merged() {
    let objects = objects();
    let domain = DomainId::new([1; 8]);
    let ids: Vec<ObjectId> = objects.iter().map(|(id, _)| *id).collect();
    let folder = tempfile::tempdir().unwrap();
    for folder in [None, Some(folder.path())] {
        let segments = Segments::new(folder);
        assert_eq!(segments.prepare(&domain, &ids, &KEY), ids);
        for (id, packs) in &objects {
            segments.add(&domain, *id, packs, &KEY).unwrap();
        }
        check(&segments, &domain, &objects);
        segments.merge(&domain, &KEY);
        check(&segments, &domain, &objects);
        if folder.is_some() {
            let again = Segments::new(folder);
            assert!(again.prepare(&domain, &ids, &KEY).is_empty(), "all of it is in the cache");
            check(&again, &domain, &objects);
            let fewer = again.prepare(&domain, &ids[1..], &KEY);
            assert!(!fewer.is_empty(), "what speaks for an object that is gone is read again");
        }
    }
    let files = std::fs::read_dir(folder.path().join("segments").join(domain.to_string())).unwrap();
    assert!(files.count() < 4, "they were merged");
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_and_never_believed() {
    let (id, packs) = objects().remove(0);
    let bytes = build::from_packs(&packs, id, &KEY).unwrap();
    assert!(Segment::memory(bytes.clone(), &KEY).is_some_and(|segment| segment.check()));
    assert!(Segment::memory(bytes.clone(), &[8; 32]).is_none(), "another key");
    for at in (0..bytes.len()).step_by(37).chain(bytes.len() - 64..bytes.len()) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        let believed = Segment::memory(flipped, &KEY).is_some_and(|segment| segment.check());
        assert!(!believed, "a flipped bit at {at} of {}", bytes.len());
    }
    for length in [0, 10, bytes.len() / 2, bytes.len() - 1] {
        assert!(Segment::memory(bytes[..length].to_vec(), &KEY).is_none());
    }
}

#[test]
fn no_other_run_counts_on_what_was_written_until_the_store_has_shown_it() {
    let objects = objects();
    let domain = DomainId::new([1; 8]);
    let ids: Vec<ObjectId> = objects.iter().map(|(id, _)| *id).collect();
    let write = |folder: &std::path::Path| {
        let segments = Segments::new(Some(folder));
        for (id, packs) in &objects {
            segments.add_unseen(&domain, *id, packs, &KEY).unwrap();
        }
        segments.merge(&domain, &KEY);
        check(&segments, &domain, &objects);
        segments
    };
    let folder = tempfile::tempdir().unwrap();
    drop(write(folder.path()));
    assert_eq!(Segments::new(Some(folder.path())).prepare(&domain, &ids, &KEY), ids);
    let folder = tempfile::tempdir().unwrap();
    let segments = write(folder.path());
    // The first one was not kept whole.
    assert!(segments.prepare(&domain, &ids[1..], &KEY).is_empty());
    assert_eq!(Segments::new(Some(folder.path())).prepare(&domain, &ids, &KEY), ids[..1]);
    segments.merge(&domain, &KEY);
    assert_eq!(Segments::new(Some(folder.path())).prepare(&domain, &ids, &KEY), ids[..1]);
}

#[test]
fn a_damaged_cache_is_read_again() {
    let objects = objects();
    let domain = DomainId::new([1; 8]);
    let ids: Vec<ObjectId> = objects.iter().map(|(id, _)| *id).collect();
    let folder = tempfile::tempdir().unwrap();
    let segments = Segments::new(Some(folder.path()));
    for (id, packs) in &objects[..2] {
        segments.add(&domain, *id, packs, &KEY).unwrap();
    }
    let files = std::fs::read_dir(folder.path().join("segments").join(domain.to_string())).unwrap();
    for file in files {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().step_by(BLOCK_BYTES).for_each(|byte| *byte ^= 1);
        crate::filesystem::durable::write_atomic(&path, &bytes, 0o600).unwrap();
    }
    let again = Segments::new(Some(folder.path()));
    let missing = again.prepare(&domain, &ids[..2], &KEY);
    assert_eq!(missing, ids[..2]);
}

#[test]
fn a_false_directory_of_anothers_pack_hides_nothing_however_segments_are_merged() {
    let domain = DomainId::new([1; 8]);
    let (a, b) = (IdentityId::new([1; 16]), IdentityId::new([2; 16]));
    // Objects that are merged first list the packs of others, with sections and blobs of their own.
    let truth = objects();
    let lie = |(number, (_, packs)): (u64, &(ObjectId, Vec<IndexedPack>))| {
        let false_blobs: Vec<u64> = (number * 70..number * 70 + 70).map(|n| n + 5000).collect();
        let lies = packs.iter().map(|true_one| IndexedPack {
            directory: pack(number, &false_blobs, 2).directory,
            ..true_one.clone()
        });
        (ObjectId::new(hash("lie", number)), lies.collect())
    };
    let mut objects: Vec<(ObjectId, Vec<IndexedPack>)> = (100..).zip(&truth).map(lie).collect();
    objects.extend(truth.clone());
    let ids: Vec<ObjectId> = objects.iter().map(|(id, _)| *id).collect();
    let folder = tempfile::tempdir().unwrap();
    let segments = Segments::new(Some(folder.path()));
    assert_eq!(segments.prepare(&domain, &ids, &KEY), ids);
    for (id, packs) in &objects {
        segments.add(&domain, *id, packs, &KEY).unwrap();
    }
    segments.merge(&domain, &KEY);
    let again = Segments::new(Some(folder.path()));
    assert!(again.prepare(&domain, &ids, &KEY).is_empty());
    let index = again.index(&domain, &live);
    assert!(index.is_intact());
    let true_frames = truth.iter().flat_map(|(_, packs)| packs).flat_map(|pack| &pack.directory.frames);
    for blob in true_frames.flat_map(|frame| &frame.blobs) {
        assert!(index.borrow(&blob.id, a, PackKind::Data), "it is in no index any more");
        assert!(!index.borrow(&blob.id, b, PackKind::Data));
    }
    let files = std::fs::read_dir(folder.path().join("segments").join(domain.to_string())).unwrap();
    assert!(files.count() < 4, "they were merged");
}

#[test]
fn of_a_large_index_little_stays_in_memory_and_all_of_it_is_found() {
    let domain = DomainId::new([1; 8]);
    let packs: Vec<IndexedPack> =
        (0..100).map(|n| pack(n, &(n * 60..n * 60 + 60).collect::<Vec<_>>(), 1)).collect();
    let folder = tempfile::tempdir().unwrap();
    let mut segments = Segments::new(Some(folder.path()));
    segments.blocks = Arc::new(Blocks::new(8));
    let halves = packs.split_at(50);
    for (number, half) in (0_u8..).zip([halves.0, halves.1]) {
        segments.add(&domain, ObjectId::new([number; 32]), half, &KEY).unwrap();
    }
    let index = segments.index(&domain, &live);
    for blob in packs.iter().flat_map(|pack| &pack.directory.frames).flat_map(|frame| &frame.blobs) {
        assert!(index.borrow(&blob.id, IdentityId::new([1; 16]), PackKind::Data));
    }
    assert_eq!(index.used().map(|used| used.len()), Some(100));
    assert_eq!(segments.blocks.bytes(), 8 * BLOCK_BYTES);
}

#[test]
fn what_several_index_objects_say_alike_is_kept_once() {
    let domain = DomainId::new([1; 8]);
    let packs = objects().remove(0).1;
    let folder = tempfile::tempdir().unwrap();
    let segments = Segments::new(Some(folder.path()));
    for number in 0..4 {
        let twice = [&packs[..], &packs[..]].concat();
        segments.add(&domain, ObjectId::new(hash("copy", number)), &twice, &KEY).unwrap();
    }
    assert_eq!(segments.index(&domain, &live).packs().count(), 4 * packs.len());
    segments.merge(&domain, &KEY);
    assert_eq!(segments.index(&domain, &live).packs().count(), packs.len());
}

/// A segment of several blocks in a cache, of which a lookup checks few.
fn cached(folder: &std::path::Path) -> (Index, Vec<IndexedPack>) {
    let domain = DomainId::new([1; 8]);
    let packs: Vec<IndexedPack> =
        (0..200).map(|n| pack(n, &(n * 30..n * 30 + 30).collect::<Vec<_>>(), 1)).collect();
    let segments = Segments::new(Some(folder));
    segments.add(&domain, ObjectId::new([9; 32]), &packs, &KEY).unwrap();
    (segments.index(&domain, &live), packs)
}

/// A bit of the file flips, in the last section headers: nobody has looked there yet.
fn flip(folder: &std::path::Path) {
    use std::os::unix::fs::FileExt;
    let mut files =
        std::fs::read_dir(folder.join("segments").join(DomainId::new([1; 8]).to_string())).unwrap();
    let path = files.next().unwrap().unwrap().path();
    let file = std::fs::File::options().write(true).read(true).open(path).unwrap();
    let at = 200 * 56 + 150 * SECTION_HEADER_LEN as u64;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn what_was_borrowed_is_never_forgotten_because_the_cache_is_damaged_later() {
    let folder = tempfile::tempdir().unwrap();
    let (index, packs) = cached(folder.path());
    let author = IdentityId::new([1; 16]);
    let first = |pack: &IndexedPack| pack.directory.frames[0].blobs[0].id;
    assert!(index.borrow(&first(&packs[0]), author, PackKind::Data));
    assert_eq!(index.used(), Some(HashSet::from([packs[0].id])));
    flip(folder.path());
    let borrowed = packs.iter().filter(|pack| index.borrow(&first(pack), author, PackKind::Data)).count();
    assert!(0 < borrowed && borrowed < packs.len(), "{borrowed}");
    assert!(!index.is_intact());
    assert_eq!(index.used(), None, "a backup must not be validated without the packs that it counts on");
}

#[test]
fn a_cache_that_was_vouched_for_and_is_damaged_later_is_vouched_for_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (index, packs) = cached(folder.path());
    index.vouch().unwrap();
    flip(folder.path());
    let listed =
        packs.iter().filter(|pack| index.unsorted(&pack.directory.frames[0].blobs[0].id).count() > 0);
    // Nothing says so before somebody meets it.
    for at in listed.map(|pack| index.locations(&pack.directory.frames[0].blobs[0].id)[0]).collect::<Vec<_>>()
    {
        _ = index.section_of(at);
    }
    assert_eq!(index.vouch().unwrap_err().kind(), ErrorKind::Failed);
}
