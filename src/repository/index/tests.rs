//! Segments against the lists that they were made from.

use std::collections::{HashMap, HashSet};

use super::{Standing, build, segment::Segment, segments::Segments};
use crate::{
    compress::Codec,
    format::pack::{Blob, Directory, ENCAPSULATION_LEN, Frame, IndexedPack, PackKind, SectionHeader},
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
    assert_eq!(index.used(), listed.keys().copied().collect());
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
        bytes[100] ^= 1;
        crate::filesystem::durable::write_atomic(&path, &bytes, 0o600).unwrap();
    }
    let again = Segments::new(Some(folder.path()));
    let missing = again.prepare(&domain, &ids[..2], &KEY);
    // Small segments are one block, which reading the ids of the objects checks.
    assert_eq!(missing, ids[..2]);
}
