//! `docs/format.md` says what the code does, and what newer programs may add is met as the page says.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
    sync::Arc,
    time::Duration,
};

use lifeboat::{
    chunk::{ChunkSizes, Chunker},
    clock::{SystemClock, Timestamp},
    compress::{Compression, Compressor},
    crypto::{RootSecret, seal},
    error::{ErrorKind, Result},
    format::{
        annotation, attestation,
        entry::Entry,
        forgotten,
        forgotten::Forgotten,
        node::{self, Node},
        pack::{self, Blob, Directory, PackKind, Trailer},
        quarantine,
        registry::Registry,
        role::Role,
        snapshot, tombstones,
        wire::Reader,
    },
    id::BlobId,
    limits,
    ops::key::{self, AddOptions, By},
    repository::{
        InitOptions, Repository,
        manifest::{ManifestBuilder, ManifestCursor, NodeSink, NodeSource},
        pack_writer::{BlobKey, FinishedPack, PackKeys, PackWriter},
        registry,
        unlock::Credential,
    },
    store::{Prefix, Store, StoreOptions},
};

fn page() -> String {
    fs::read_to_string("docs/format.md").unwrap()
}

/// What stands between two quotation marks in the code of a folder, tests aside.
fn literals(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            literals(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for literal in line.split('"').skip(1).step_by(2) {
                if literal.starts_with("lifeboat v1 ") && !literal.contains('{') {
                    found.insert(literal.to_owned());
                }
            }
            // The keys of `crypto/keys.rs` have the beginning in one place.
            if let Some((_, rest)) = line.split_once("derive(\"") {
                found.insert(format!("lifeboat v1 {}", rest.split('"').next().unwrap()));
            }
        }
    }
}

#[test]
fn every_context_in_the_code_stands_on_the_page_and_every_one_on_the_page_in_the_code() {
    let (page, mut found) = (page(), BTreeSet::new());
    literals(Path::new("src"), &mut found);
    let said = page.split('"').filter(|part| part.starts_with("lifeboat v1 ")).map(str::to_owned).collect();
    assert!(found.len() > 20, "{found:?}");
    assert_eq!(found, said);
}

#[test]
fn the_page_states_every_limit_as_it_is() {
    let limits = [
        ("RECORD_BYTES_MAX", limits::RECORD_BYTES_MAX),
        ("INDEX_BYTES_MAX", limits::INDEX_BYTES_MAX),
        ("PACK_BYTES_MAX", limits::PACK_BYTES_MAX),
        ("PACK_SECTIONS_MAX", limits::PACK_SECTIONS_MAX),
        ("PACK_FRAMES_MAX", limits::PACK_FRAMES_MAX),
        ("PACK_BLOBS_MAX", limits::PACK_BLOBS_MAX),
        ("FRAME_BLOBS_MAX", limits::FRAME_BLOBS_MAX),
        ("FRAME_BYTES_MAX", limits::FRAME_BYTES_MAX),
        ("CHUNK_BYTES_MAX", limits::CHUNK_BYTES_MAX),
        ("INDEX_PACKS_MAX", limits::INDEX_PACKS_MAX),
        ("NODE_BYTES_MAX", limits::NODE_BYTES_MAX),
        ("NODE_ITEMS_MAX", node::NODE_ITEMS_MAX),
        ("INLINE_CHUNKS_MAX", node::INLINE_CHUNKS_MAX),
        ("PATH_BYTES_MAX", limits::PATH_BYTES_MAX),
        ("ATTRIBUTES_MAX", limits::ATTRIBUTES_MAX),
        ("ATTRIBUTES_BYTES_MAX", limits::ATTRIBUTES_BYTES_MAX),
        ("HOLES_MAX", limits::HOLES_MAX),
        ("TREE_LEVELS_MAX", usize::from(limits::TREE_LEVELS_MAX)),
        ("REVOKED_RECORDS_MAX", limits::REVOKED_RECORDS_MAX),
        ("REVOKED_FOLDER_MAX", limits::REVOKED_FOLDER_MAX),
        ("SNAPSHOT_TAGS_MAX", limits::SNAPSHOT_TAGS_MAX),
        ("SNAPSHOT_TEXT_BYTES_MAX", limits::SNAPSHOT_TEXT_BYTES_MAX),
        ("SOURCES_MAX", limits::SOURCES_MAX),
        ("UNREADABLE_NAMED_MAX", snapshot::UNREADABLE_NAMED_MAX),
        ("SECTIONS_MAX", attestation::SECTIONS_MAX),
        ("SNAPSHOTS_MAX", forgotten::SNAPSHOTS_MAX),
        ("TAGS_MAX", annotation::TAGS_MAX),
        ("TAG_BYTES_MAX", limits::TAG_BYTES_MAX),
        ("HOLDS_MAX", annotation::HOLDS_MAX),
        ("PACKS_MAX", tombstones::PACKS_MAX),
        ("OBJECTS_MAX", quarantine::OBJECTS_MAX),
        ("NAME_BYTES_MAX", quarantine::NAME_BYTES_MAX),
        ("REASON_BYTES_MAX", limits::REASON_BYTES_MAX),
    ];
    let page = page();
    for (name, value) in limits {
        let said = page.split(&format!("`{name}` = ")).nth(1).unwrap_or_else(|| panic!("{name} is missing"));
        let said: String = said.chars().take_while(char::is_ascii_digit).collect();
        assert_eq!(said, value.to_string(), "{name}");
    }
    assert_eq!(page.matches("_MAX` = ").count(), limits.len(), "the page states a limit that is none here");
    for (length, text) in [
        (pack::SECTION_HEADER_LEN, "section header (1206 bytes)"),
        (pack::TRAILER_LEN, "trailer (16 bytes)"),
        (seal::ENCAPSULATION_LEN, "an encapsulation 1120"),
        (seal::PUBLIC_KEY_LEN, "A public key has 1216 bytes"),
    ] {
        assert!(page.contains(text) && text.contains(&length.to_string()), "{text}: {length}");
    }
}

#[test]
fn the_page_tells_how_a_file_is_cut() {
    // From the page: the gear table, the masks, the rule.
    let root = RootSecret::from_bytes([9; 32]);
    let seed = root.chunk_root().domain(&lifeboat::id::DomainId::new([8; 8])).gear;
    let mut words = [0; 2048];
    blake3::Hasher::new_keyed(seed.as_bytes()).finalize_xof().fill(&mut words);
    let gear: Vec<u64> = words.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let page = page();
    let (strict, relaxed) = (0x0000_d917_0753_7000_u64, 0x0000_d907_0353_7000_u64);
    for mask in [strict, relaxed] {
        assert!(page.contains(&format!("`{mask:016x}`")), "{mask:x}");
    }
    let cut = |rest: &[u8]| {
        let length = rest.len().min(1 << 20);
        let mut hash = 0_u64;
        for at in 64 << 10..length {
            hash = (hash << 1).wrapping_add(gear[usize::from(rest[at])]);
            let last_of_odd = length % 2 == 1 && at == length - 1;
            if hash & (if at < 256 << 10 { strict } else { relaxed }) == 0 && !last_of_odd {
                return at;
            }
        }
        length
    };
    let chunker = Chunker::new(seed.table(), ChunkSizes::DEFAULT);
    let mut data = vec![0; (24 << 20) + 1];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    // A stretch without any cut, and every length of the last chunk that is odd.
    data[5 << 20..8 << 20].fill(0);
    let mut rest = &data[..];
    while !rest.is_empty() {
        let length = cut(rest);
        assert_eq!(chunker.cut(&rest[..rest.len().min(1 << 20)]), length);
        rest = &rest[length..];
    }
}

#[test]
fn the_decoder_stays_short() {
    assert!(fs::read_to_string("tests/decoder.py").unwrap().lines().count() < 400);
}

fn store() -> Store {
    let options = StoreOptions {
        connections: 1,
        upload_limit: None,
        download_limit: None,
        retry_for: Duration::ZERO,
        s3: Default::default(),
        clock: Arc::new(SystemClock),
        progress: Arc::default(),
    };
    Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "p", options).unwrap()
}

fn open(store: &Store, root: &RootSecret) -> Result<Repository> {
    let config = Repository::read_config(store)?;
    let secrets = Repository::unlock(store, &config, &Credential::Words(root.words()))?;
    Repository::open(store.clone(), config, secrets, None, Arc::new(SystemClock))
}

/// A repository whose registry was changed by a newer program.
fn changed(change: impl Fn(&mut Registry)) -> (Store, RootSecret) {
    let (store, root) = (store(), RootSecret::generate().unwrap());
    Repository::create(&store, &root, "owner", InitOptions::default(), &SystemClock).unwrap();
    let mut next = open(&store, &root).unwrap().registry().as_ref().clone();
    change(&mut next);
    next.number += 1;
    registry::publish(&store, &root, &next).unwrap();
    (store, root)
}

fn add_key(repository: &Repository) -> Result<key::Added> {
    let (label, unlock) = ("new".to_owned(), By::AccessKey);
    key::add(repository, &AddOptions { role: Role::Audit, label, domain: None, shared: false, unlock })
}

#[test]
fn a_feature_that_this_program_lacks_ends_what_it_is_needed_for_before_anything_is_written() {
    let feature = || vec!["entropy-garden".to_owned()];
    let (store, root) = changed(|registry| registry.features.read = feature());
    assert!(open(&store, &root).unwrap_err().to_string().contains("entropy-garden"));

    let (store, root) = changed(|registry| registry.features.write = feature());
    let repository = open(&store, &root).unwrap();
    assert!(repository.snapshots().unwrap().0.is_empty());
    let before = store.list(&Prefix::all()).unwrap();
    let error = add_key(&repository).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("entropy-garden") && error.remedy().unwrap().contains("newer"));
    let (name, _) = (before.first().unwrap(), ());
    let name = lifeboat::store::Name::parse(&name.name).unwrap();
    assert!(store.delete(&name).unwrap_err().to_string().contains("entropy-garden"));
    assert_eq!(store.list(&Prefix::all()).unwrap(), before);

    let (store, root) = changed(|registry| registry.features.prune = feature());
    let repository = open(&store, &root).unwrap();
    add_key(&repository).unwrap();
    let nothing = Forgotten::new(Timestamp::default(), Vec::new(), "");
    let error = repository.publish_forgotten(&repository.own_domain().unwrap(), &nothing).unwrap_err();
    assert!(error.to_string().contains("entropy-garden"));
}

#[test]
fn what_a_newer_program_wrote_into_the_registry_stays_when_this_one_changes_it() {
    // A ninth field with the number 99, and the same in the first certificate.
    let (store, root) = changed(|registry| {
        let mut bytes = registry.encode();
        assert_eq!(bytes[0], 0xa8, "a map of eight fields");
        bytes[0] += 1;
        bytes.extend_from_slice(&[0x18, 99, 0x07]);
        let certificate: &[u8] = &registry.certificates[0].verifying_key;
        let at = bytes.windows(32).position(|window| window == certificate).unwrap();
        // Before the key: the head of the map, key 0 with an identity of 16 bytes, key 1, two bytes of length.
        let head = at - 2 - 1 - 17 - 1 - 1;
        assert_eq!(bytes[head], 0xa7, "a map of seven fields");
        bytes[head] += 1;
        // After the last field of the certificate, a time.
        let created = &minicbor::to_vec(registry.certificates[0].created).unwrap()[..];
        let end = at + bytes[at..].windows(created.len()).position(|window| window == created).unwrap();
        bytes.splice(end + created.len()..end + created.len(), [0x18, 99, 0x06]);
        *registry = Registry::decode(&bytes).unwrap();
        assert_eq!(registry.encode(), bytes);
    });
    let repository = open(&store, &root).unwrap();
    add_key(&repository).unwrap();
    let newest = open(&store, &root).unwrap().registry();
    assert_eq!((newest.number, newest.certificates.len()), (3, 2));
    let bytes = newest.encode();
    assert!(bytes.ends_with(&[0x18, 99, 0x07]));
    let certificates = minicbor::to_vec(&newest.certificates[0]).unwrap();
    let fields = &certificates[1..];
    let at = bytes.windows(fields.len()).position(|window| window == fields).unwrap();
    assert_eq!(bytes[at + fields.len()..][..3], [0x18, 99, 0x06]);
}

/// Seals blobs of the same length in packs; one frame for every `per_frame` of them.
fn packs(repository: &Repository, blobs: usize, per_frame: usize) -> Vec<FinishedPack> {
    let domain = repository.own_domain().unwrap();
    let (index, chunk) = (repository.index_key(&domain).unwrap(), repository.chunk_keys(&domain).unwrap());
    let (epoch, public) = repository.data_public().unwrap();
    let keys = PackKeys {
        place: repository.place(domain),
        kind: PackKind::Data,
        blobs: BlobKey::Chunk(&chunk.id),
        epoch,
        public,
        index: &index,
        signer: repository.signer(),
    };
    let writer = PackWriter::new(keys, limits::PACK_BYTES_TARGET);
    let mut compressor = Compressor::new(Compression::Fast).unwrap();
    let mut finished = Vec::new();
    let chunk: (BlobId, [u8; 4]) = (chunk.id.id(b"tiny"), *b"tiny");
    for first in (0..blobs).step_by(per_frame) {
        let count = per_frame.min(blobs - first);
        let stored = compressor.compress(&chunk.1.repeat(count)).unwrap();
        let blobs = vec![Blob { id: chunk.0, length: 4 }; count];
        finished.extend(writer.add(blobs, stored, compressor.decompressor()).unwrap());
    }
    finished.extend(writer.flush().unwrap());
    finished
}

fn repository() -> Repository {
    let (store, root) = (store(), RootSecret::generate().unwrap());
    Repository::create(&store, &root, "owner", InitOptions::default(), &SystemClock).unwrap();
    open(&store, &root).unwrap()
}

#[derive(Default)]
struct Nodes(HashMap<BlobId, Vec<u8>>);

impl NodeSink for Nodes {
    fn node(&mut self, id: BlobId, plain: Vec<u8>) -> Result<()> {
        self.0.insert(id, plain);
        Ok(())
    }
}

impl NodeSource for Nodes {
    fn plain(&self, id: &BlobId) -> Result<Vec<u8>> {
        Ok(self.0[id].clone())
    }
}

#[test]
fn a_tree_of_the_longest_paths_has_no_node_that_is_too_large_to_be_read() {
    let key = RootSecret::from_bytes([3; 32]).node_root().domain(&lifeboat::id::DomainId::new([4; 8]));
    // An open map without any field: everything at its default.
    let template = Node::decode(&[1, 1, 0, 1, b'a', 2, 0xbf, 0xff]).unwrap();
    let Node::Leaf(template) = template else { panic!("it is a leaf") };
    let (mut builder, mut nodes) = (ManifestBuilder::new(&key), Nodes::default());
    let path = |number: usize| format!("{number:06}{}", "x".repeat(60_000)).into_bytes();
    for number in 0..400 {
        builder.push(Entry { path: path(number), ..template[0].clone() }, &mut nodes).unwrap();
    }
    let root = builder.finish(&mut nodes).unwrap();
    let largest = nodes.0.values().map(Vec::len).max().unwrap();
    assert!(largest <= limits::NODE_BYTES_MAX, "{largest}");
    let mut cursor = ManifestCursor::new(&nodes, root.0.id);
    for number in 0..400 {
        assert_eq!(cursor.next_entry().unwrap().unwrap().path, path(number));
    }
    assert!(cursor.next_entry().unwrap().is_none());
}

#[test]
fn nothing_in_a_pack_shows_where_its_last_frame_ends() {
    let finished = packs(&repository(), 1, 1);
    let bytes = finished[0].pieces.concat();
    assert_eq!((finished.len(), bytes.len() % 4096), (1, 0));
    let trailer = Trailer::decode(&bytes).unwrap();
    let frame = &finished[0].listed.directory.frames[0];
    let end = (frame.offset + frame.length) as usize;
    let padding = &bytes[end..trailer.offset as usize];
    assert!(padding.len() > 256, "what lies between stands for less than the rest of a page");
    let zeros = padding.iter().filter(|byte| **byte == 0).count();
    assert!(zeros < padding.len() / 16, "{zeros} zeros in {} bytes", padding.len());
}

#[test]
fn packs_of_very_many_tiny_chunks_stay_small_enough_to_be_listed() {
    let blobs = limits::PACK_BLOBS_MAX + 1;
    let finished = packs(&repository(), blobs, limits::FRAME_BLOBS_MAX);
    assert_eq!(finished.len(), 2);
    for FinishedPack { listed, .. } in &finished {
        let mut out = lifeboat::format::wire::Writer::new();
        listed.directory.encode_into(&mut out);
        let bytes = out.finish();
        assert_eq!(Directory::decode_from(&mut Reader::new(&bytes, "test")).unwrap(), listed.directory);
    }
    // One blob more in the first of them, and nobody reads it.
    let mut directory = finished[0].listed.directory.clone();
    directory.frames.extend(finished[1].listed.directory.frames.clone());
    let mut out = lifeboat::format::wire::Writer::new();
    directory.encode_into(&mut out);
    let bytes = out.finish();
    assert!(Directory::decode_from(&mut Reader::new(&bytes, "test")).is_err());
}
