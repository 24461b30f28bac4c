//! Lists, manifests, frames, directories and indexes as a client writes them whose key was stolen: what cannot be is
//! named, everything else comes back, and it ends.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;

use lifeboat::{
    compress::Codec,
    error::ErrorKind,
    format::{
        entry::{ChunkRef, Content},
        node::{Child, ListChild, Node},
        pack::{Blob, Directory, PackKind, encode_index},
        wire::Writer,
    },
    id::BlobId,
    ops::restore::Restored,
    repository::Repository,
};

mod support {
    pub(crate) mod fence;
    pub(crate) mod forger;
    pub(crate) mod lab;
}
use support::{
    fence::{Fenced, child, entry, is_said, repository, rest_is_there, with_content},
    forger::{self, Forged, Manifest},
    lab::{self, Files, check_all, noise},
};

/// A manifest of one leaf with these files, whose content is told by `content` from what was added before it.
fn with_nodes(
    repository: &Repository,
    make: impl Fn(&mut Manifest<'_>) -> (u64, Content),
) -> (Fenced, Restored) {
    let mut manifest = Manifest::new(repository);
    let (size, content) = make(&mut manifest);
    let root = manifest.node(&Node::Leaf(vec![
        entry("a/good"),
        with_content("m/hostile", size, content),
        entry("z/good"),
    ]));
    let id = manifest.snapshot(root, |_| {});
    let fence = Fenced::new();
    let restored = fence.restore(repository, id);
    rest_is_there(&fence);
    assert_eq!(restored.failures, 1, "{:?}", restored.failed);
    assert_eq!(&restored.failed[0].0[..], b"m/hostile");
    assert!(!fence.target().join("m/hostile").try_exists().unwrap());
    assert_ne!(check_all(repository).unwrap().problems_found, 0);
    (fence, restored)
}

#[test]
fn lists_that_lie_about_what_is_below_cost_their_file_only() {
    let chunk = ChunkRef { id: BlobId::new([9; 32]), length: 5 };
    let list = |node, chunks, level| Content::List { node, chunks, level };
    let part = |id, chunks, bytes| ListChild { id, chunks, bytes };
    let nowhere = BlobId::new([8; 32]);
    let of_one = |manifest: &mut Manifest<'_>| manifest.node(&Node::Chunks(vec![chunk]));
    type Make<'a> = &'a dyn Fn(&mut Manifest<'_>) -> (u64, Content);
    let cases: [(&str, Make<'_>); 10] = [
        ("a size without chunks", &|_| (1 << 60, Content::Inline(Vec::new()))),
        ("chunks beyond the size", &|_| (3, Content::Inline(vec![chunk; 256]))),
        // But for that number it is an honest file.
        ("2^60 chunks claimed", &|manifest| {
            let honest = manifest.chunk(b"honest");
            (6, list(manifest.node(&Node::Chunks(vec![honest])), 1 << 60, 0))
        }),
        ("a list that is missing", &|_| (5, list(nowhere, 1, 3))),
        ("a list that is a leaf", &|manifest| (5, list(manifest.node(&Node::Leaf(vec![entry("x")])), 1, 3))),
        ("a list that contains itself", &|manifest| {
            let id = BlobId::new([7; 32]);
            let node = Node::Lists(16, vec![part(id, 1, 5)]);
            (5, list(manifest.under(id, &node.encode()), 1, 16))
        }),
        ("sums that overflow", &|manifest| {
            let one = of_one(manifest);
            let node = Node::Lists(1, vec![part(one, u64::MAX, u64::MAX), part(one, 2, 6)]);
            (5, list(manifest.node(&node), 1, 1))
        }),
        ("empty parts", &|manifest| {
            let empty = manifest.node(&Node::Chunks(Vec::new()));
            let node = Node::Lists(1, vec![part(empty, 0, 0); 4096]);
            (5, list(manifest.node(&node), 1, 1))
        }),
        // Else everything about it is true.
        ("levels that rise", &|manifest| {
            let honest = manifest.chunk(b"honest");
            let one = manifest.node(&Node::Chunks(vec![honest]));
            let low = manifest.node(&Node::Lists(5, vec![part(one, 1, 6)]));
            (6, list(manifest.node(&Node::Lists(3, vec![part(low, 1, 6)])), 1, 3))
        }),
        // 2^60 chunks in 16 nodes, and every sum is right: whoever follows it must stop at the size of the file.
        ("a list that repeats itself", &|manifest| {
            let (mut id, mut chunks, mut bytes) = (of_one(manifest), 1_u64, 5_u64);
            for level in 1..=15 {
                id = manifest.node(&Node::Lists(level, vec![part(id, chunks, bytes); 16]));
                (chunks, bytes) = (chunks * 16, bytes.saturating_mul(16));
            }
            (1000, list(id, chunks, 15))
        }),
    ];
    for (what, make) in cases {
        let repository = repository();
        let (_, restored) = with_nodes(&repository, make);
        let error = &restored.failed[0].1;
        assert!([ErrorKind::Damaged, ErrorKind::Incomplete].contains(&error.kind()), "{what}: {error}");
    }
}

/// A node of a manifest as bytes: its type, a level, and how many children it says it has.
fn claims(kind: u8, level: u8, count: u64) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(kind);
    if kind.is_multiple_of(2) {
        out.u8(level);
    }
    out.number(count);
    out.finish()
}

#[test]
fn a_manifest_that_cannot_be_is_told_and_ends() {
    type Make<'a> = &'a dyn Fn(&mut Manifest<'_>) -> BlobId;
    let leaf = |manifest: &mut Manifest<'_>| manifest.node(&Node::Leaf(vec![entry("m")]));
    let itself = BlobId::new([7; 32]);
    let cases: [(&str, Make<'_>); 9] = [
        ("2^40 entries claimed", &|manifest| manifest.plain(&claims(1, 0, 1 << 40))),
        ("2^60 children claimed", &|manifest| manifest.plain(&claims(2, 1, 1 << 60))),
        ("4096 children and none there", &|manifest| manifest.plain(&claims(2, 1, 4096))),
        ("level 17", &|manifest| manifest.plain(&claims(2, 17, 0))),
        ("level 0", &|manifest| manifest.plain(&claims(2, 0, 0))),
        ("an entry of 2^60 bytes", &|manifest| {
            let mut plain = claims(1, 0, 1);
            plain.extend([0, 1, b'm', 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]);
            manifest.plain(&plain)
        }),
        ("a branch that contains itself", &|manifest| {
            manifest.under(itself, &Node::Branch(16, vec![child("m", itself)]).encode())
        }),
        ("a branch above one of its own level", &|manifest| {
            let leaf = leaf(manifest);
            let low = manifest.node(&Node::Branch(3, vec![child("m", leaf)]));
            manifest.node(&Node::Branch(3, vec![child("m", low)]))
        }),
        ("a root that is a list", &|manifest| {
            let leaf = leaf(manifest);
            manifest.node(&Node::Lists(1, vec![ListChild { id: leaf, chunks: 1, bytes: 1 }]))
        }),
    ];
    for (what, make) in cases {
        let (repository, fence) = (repository(), Fenced::new());
        let mut manifest = Manifest::new(&repository);
        let root = make(&mut manifest);
        let id = manifest.snapshot(root, |_| {});
        let restored = fence.restore(&repository, id);
        assert_eq!((restored.files, restored.gaps), (0, 1), "{what}: {:?}", restored.failed);
        assert_ne!(check_all(&repository).unwrap().problems_found, 0, "{what}");
    }
}

#[test]
fn a_manifest_that_repeats_itself_gives_each_entry_once() {
    let (repository, fence) = (repository(), Fenced::new());
    let mut manifest = Manifest::new(&repository);
    let mut node = manifest.node(&Node::Leaf(vec![entry("m/one")]));
    // 4096^16 leaves, if each were followed.
    for level in 1..=16 {
        let children = (0..4096).map(|number| match number {
            0 => child("m/one", node),
            _ => Child { first: format!("m/p{number:04}").into(), id: node, entries: 1, bytes: u64::MAX },
        });
        node = manifest.node(&Node::Branch(level, children.collect()));
    }
    let id = manifest.snapshot(node, |record| record.levels = 16);
    let restored = fence.restore(&repository, id);
    assert_eq!((restored.files, fence.holds("m/one")), (1, true));
    // Every other child says that it begins where it does not.
    assert_eq!(restored.gaps, 16 * 4095);
    assert_ne!(check_all(&repository).unwrap().problems_found, 0);
}

/// A zstd frame of blocks that each repeat one byte: 4 bytes for up to 128 KiB.
fn bomb(claimed: Option<u64>, blocks: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, if claimed.is_some() { 0xc0 } else { 0 }, 0x88];
    frame.extend(claimed.into_iter().flat_map(u64::to_le_bytes));
    for number in 0..blocks {
        let last = u32::from(number + 1 == blocks);
        frame.extend(&(last | 1 << 1 | (128 << 10) << 3).to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

/// Restores a file of `chunk` beside a good one; the frames are in one pack with the good one's chunk. Where `plain` is
/// given, the chunk has the id of that.
fn with_frames(
    mut frame: Forged,
    lie: impl Fn(&mut Directory),
    mut chunk: ChunkRef,
    plain: Option<&[u8]>,
) -> Restored {
    let repository = repository();
    let keys = repository.chunk_keys(&repository.own_domain().unwrap()).unwrap();
    let good = noise(3, 1000);
    if let Some(plain) = plain {
        chunk.id = keys.id.id(plain);
        frame.blobs[0].id = chunk.id;
    }
    let all = [Forged::raw(keys.id.id(&good), &good), frame];
    let listed = forger::pack(&repository, PackKind::Data, &all, lie);
    forger::index(&repository, &encode_index(&[listed]));
    let mut manifest = Manifest::new(&repository);
    let honest = ChunkRef { id: keys.id.id(&good), length: 1000 };
    let root = manifest.node(&Node::Leaf(vec![
        with_content("a/good", 1000, Content::Inline(vec![honest])),
        with_content("m/hostile", u64::from(chunk.length), Content::Inline(vec![chunk])),
        with_content("z/good", 1000, Content::Inline(vec![honest])),
    ]));
    let id = manifest.snapshot(root, |_| {});
    let fence = Fenced::new();
    let restored = fence.restore(&repository, id);
    assert_ne!(check_all(&repository).unwrap().problems_found, 0);
    if restored.failures == 1 {
        assert_eq!(fs::read(fence.target().join("a/good")).unwrap(), good);
        assert_eq!(fs::read(fence.target().join("z/good")).unwrap(), good);
        assert!(!fence.target().join("m/hostile").try_exists().unwrap());
        assert!(restored.failed[0].1.is_damage() && restored.failed[0].0 == b"m/hostile", "{restored:?}");
    }
    restored
}

#[test]
fn a_frame_that_decompresses_to_something_else_is_stopped_at_what_was_declared() {
    let text = b"the same again and ".repeat(100);
    let length = u32::try_from(text.len()).unwrap();
    let twice = text.repeat(2);
    let packed = zstd::bulk::compress(&text, 3).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"void"].concat();
    let two_mebibytes = 2 << 20;
    for (what, stored, length) in [
        ("a bomb that claims 10 GiB", bomb(Some(10 << 30), 1000), two_mebibytes),
        ("a bomb that claims nothing", bomb(None, 1000), two_mebibytes),
        ("a bomb that claims what was declared", bomb(Some(2 << 20), 1000), two_mebibytes),
        ("one byte more than declared", packed.clone(), length - 1),
        ("one byte less than declared", packed.clone(), length + 1),
        ("a frame to skip before it", [&skippable[..], &packed].concat(), length),
        ("a frame to skip behind it", [&packed[..], &skippable].concat(), length),
        ("a second frame", [&packed[..], &packed].concat(), length * 2),
        ("a byte behind it", [&packed[..], &[0]].concat(), length),
        ("cut short", packed[..packed.len() - 1].to_vec(), length),
        ("nothing", Vec::new(), length),
    ] {
        let chunk = ChunkRef { id: BlobId::new([6; 32]), length };
        let blobs = vec![Blob { id: chunk.id, length }];
        let forged = Forged { stored, codec: Codec::Zstd, blobs };
        // Whoever takes it all the same has what the id names.
        let plain = if length as usize == text.len() { &text[..] } else { &twice };
        assert_eq!(with_frames(forged, |_| {}, chunk, Some(plain)).failures, 1, "{what}");
    }
}

#[test]
fn a_directory_that_lies_costs_what_it_lies_about() {
    let bytes = noise(4, 2000);
    let chunk = ChunkRef { id: BlobId::new([6; 32]), length: 2000 };
    type Lie<'a> = &'a dyn Fn(&mut Directory);
    // Such an index is still read: each frame proves itself.
    let one_by_one: [(&str, Lie<'_>); 6] = [
        ("the offset of another frame", &|directory| directory.frames[1].offset = directory.frames[0].offset),
        ("in the section header", &|directory| directory.frames[1].offset = 0),
        ("in the directory", &|directory| directory.frames[1].offset += 1000),
        ("another counter", &|directory| directory.frames[1].counter = u32::MAX),
        ("another hash", &|directory| directory.frames[1].hash[0] ^= 1),
        ("shorter", &|directory| directory.frames[1].length = 16),
    ];
    for (what, lie) in one_by_one {
        assert_eq!(
            with_frames(Forged::raw(chunk.id, &bytes), lie, chunk, Some(&bytes)).failures,
            1,
            "{what}"
        );
    }
    // Such an index counts for nothing, nor does what it alone lists.
    let not_at_all: [(&str, Lie<'_>); 5] = [
        ("beyond the pack", &|directory| directory.frames[1].offset = 79 << 20),
        ("offset and length overflow", &|directory| directory.frames[1].offset = u32::MAX),
        ("shorter than its tag", &|directory| directory.frames[1].length = 15),
        ("a section that is not there", &|directory| directory.frames[1].section = 1),
        ("a blob of 4 GiB", &|directory| directory.frames[1].blobs[0].length = u32::MAX),
    ];
    for (what, lie) in not_at_all {
        assert_eq!(
            with_frames(Forged::raw(chunk.id, &bytes), lie, chunk, Some(&bytes)).failures,
            3,
            "{what}"
        );
    }
}

#[test]
fn an_index_that_claims_more_than_it_holds_is_named_and_blocks_nothing() {
    let number = |value: u64| {
        let mut out = Writer::new();
        out.number(value);
        out.finish()
    };
    let head = [&number(1)[..], &[1; 32], &4096_u32.to_le_bytes(), &[1]].concat();
    for (what, plain) in [
        ("2^40 packs", number(1 << 40)),
        ("65536 packs", number(65_536)),
        ("2^60 sections", [&head[..], &number(1 << 60)].concat()),
        ("1024 sections", [&head[..], &number(1024)].concat()),
        ("65536 frames", [&head[..], &number(0), &number(65_536)].concat()),
        ("2^40 frames", [&head[..], &number(0), &number(1 << 40)].concat()),
        ("nothing", Vec::new()),
        ("something behind it", [&number(0)[..], &[0]].concat()),
    ] {
        let (repository, fence) = (repository(), Fenced::new());
        let name = forger::index(&repository, &plain);
        assert!(is_said(&repository, name.as_str()), "{what}");
        let (known, _) = repository.snapshots().unwrap();
        let restored = fence.restore(&repository, known[0].name.id);
        assert_eq!((restored.failures, fence.holds("srv/honest")), (0, true), "{what}");
        lab::back_up(&repository, &Files::from([("srv/next".to_owned(), b"next".to_vec())])).unwrap();
    }
}
