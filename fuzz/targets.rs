//! What is fuzzed: every decoder, each with what has to hold when it accepts something. A target answers whether
//! it did. `tests/seeds.rs` runs all of them over the seeds, so the fuzzer finds them in order.
//!
//! Most of what a repository holds is sealed, and a fuzzer will not guess a key: so the plaintext decoders are
//! fuzzed behind the seal, and checksums are put right before they are compared.

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use lifeboat::{
    chunk::{ChunkSizes, Chunker},
    compress::{Codec, Compression, Compressor},
    crypto::{GearSeed, IndexKey, RootSecret, SigningKey},
    error::{Error, Result},
    filesystem::{mounts::Mounts, sample::SampleSize},
    format::{
        annotation::Annotation,
        attestation::Attestation,
        certificate::ExportedCertificate,
        config::Config,
        drill::DrillReport,
        envelope::{Envelope, Opener, RecordKind},
        evidence::{Evidence, Head},
        forgotten::Forgotten,
        ledger::{CheckReport, Shelf, Shelves},
        node::{Node, compare_paths},
        pack::{Directory, SectionHeader, Trailer, decode_index, encode_index},
        quarantine::Quarantine,
        registry::{Registry, Use},
        report::SignedReport,
        secrets::Secrets,
        slot::{AccessKey, Slot},
        snapshot::{Run, Snapshot},
        tombstones::Tombstones,
        wire::{Reader, Writer},
    },
    id::{BlobId, DomainId, IdentityId, ObjectId, RepositoryId, to_hex},
    limits,
    ops::{check::Subset, select::Place},
    report::{size, text, time},
    repository::{
        cache::{Cache, CachedNodes},
        index::fuzz_segment,
        manifest::{Accounts, ManifestCursor, NodeSource, for_each_chunk},
        memory::Memory,
    },
    store::{Location, Name, fuzz_versions},
};

#[path = "../src/bin/lifeboat/profile/schema.rs"]
mod profile_schema;

/// Takes what the fuzzer made up, and says whether it was accepted.
pub type Target = fn(&[u8]) -> bool;

pub const TARGETS: [(&str, Target); 20] = [
    ("arguments", arguments),
    ("cache", cache),
    ("chunker", chunker),
    ("config", config),
    ("envelope", envelope),
    ("frame", frame),
    ("index", index),
    ("manifest", manifest),
    ("names", names),
    ("node", node),
    ("pack", pack),
    ("profile", profile),
    ("records", records),
    ("registry", registry),
    ("report", report),
    ("secrets", secrets),
    ("segment", segment),
    ("slot", slot),
    ("snapshot", snapshot),
    ("versions", fuzz_versions),
];

/// Runs the target of that name.
pub fn run(name: &str, bytes: &[u8]) -> bool {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of that name");
    target(bytes)
}

/// A key that cached things are made with in the seeds too.
pub fn cache_key() -> IndexKey {
    IndexKey::from_bytes([7; 32])
}

/// The bytes with the right digits in the place of their checksum.
fn with_checksum(context: &str, bytes: &[u8]) -> Vec<u8> {
    const FIELD: &str = "\"checksum\": \"";
    let Ok(text) = std::str::from_utf8(bytes) else { return bytes.to_vec() };
    let parts = text.split_once(FIELD).and_then(|(head, rest)| Some((head, rest.split_once('"')?.1)));
    let Some((head, tail)) = parts else { return bytes.to_vec() };
    let digits = to_hex(&blake3::derive_key(context, format!("{head}{FIELD}\"{tail}").as_bytes()));
    format!("{head}{FIELD}{digits}\"{tail}").into_bytes()
}

/// Decodes; what was accepted must come back from its own encoding. The forms for which this is enough are not
/// canonical: CBOR has several forms of a number, JSON of everything.
fn comes_back<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    decode: fn(&[u8]) -> Result<T>,
    encode: fn(&T) -> Vec<u8>,
) -> bool {
    let Ok(value) = decode(bytes) else { return false };
    assert_eq!(decode(&encode(&value)).expect("its own encoding is accepted"), value);
    true
}

fn config(bytes: &[u8]) -> bool {
    comes_back(&with_checksum("lifeboat v1 config checksum", bytes), Config::decode, Config::encode)
}

/// A key slot, and the text form of an access key.
fn slot(bytes: &[u8]) -> bool {
    let (_, access) = Slot::seal_access_key(&Secrets::owner(&RootSecret::from_bytes([1; 32]))).unwrap();
    const CHECKSUM: &str = "lifeboat v1 key slot checksum";
    let opened = Slot::decode(&with_checksum(CHECKSUM, bytes)).map(|slot| {
        // The checksum is that of the bytes that were read, which may have other spaces.
        let again =
            Slot::decode(&with_checksum(CHECKSUM, &slot.encode())).expect("its own encoding is accepted");
        assert_eq!((again.name(), again.takes_passphrase()), (slot.name(), slot.takes_passphrase()));
        // It is sealed with another key, and says so without a panic.
        assert!(!matches!(slot.open_access_key(&access), Ok(Some(_))));
    });
    let text = String::from_utf8_lossy(bytes);
    let body =
        text.strip_prefix("lifeboat-access-1:").and_then(|rest| rest.rsplit_once(':')).map(|(body, _)| body);
    let key = body.map(|body| {
        let check = blake3::derive_key("lifeboat v1 access key checksum", body.as_bytes());
        AccessKey::parse(&format!("lifeboat-access-1:{body}:{}", to_hex(&check[..4])))
    });
    let key = key.unwrap_or_else(|| AccessKey::parse(&text));
    if let Ok(key) = &key {
        assert_eq!(AccessKey::parse(&key.text()).expect("its own text is accepted").slot, key.slot);
    }
    opened.is_ok() || key.is_ok()
}

/// What is sealed in a slot.
fn secrets(bytes: &[u8]) -> bool {
    let Ok(secrets) = Secrets::decode(bytes) else { return false };
    let encoded = secrets.encode();
    let again = Secrets::decode(&encoded).expect("its own encoding is accepted");
    assert_eq!(again.encode(), encoded);
    let domain = DomainId::new([1; DomainId::LEN]);
    drop((again.index_key(&domain), again.chunk_keys(&domain), again.open_data(1), again.identity()));
    true
}

fn registry(bytes: &[u8]) -> bool {
    let Ok(registry) = Registry::decode(bytes) else { return false };
    // Fields that are not known are kept, so it is written as a whole.
    let encoded = registry.encode();
    assert_eq!(Registry::decode(&encoded).expect("its own encoding is accepted").encode(), encoded);
    drop((registry.check_features(Use::Read), registry.check_features(Use::Prune)));
    true
}

/// What stands outside the seal of every record.
fn envelope(bytes: &[u8]) -> bool {
    use RecordKind::*;
    let kinds = [
        Registry,
        Directory,
        Index,
        Snapshot,
        Run,
        Attestation,
        Annotation,
        Forgotten,
        Tombstones,
        Quarantine,
        Evidence,
    ];
    let (repository, domain) = (RepositoryId::new([1; 32]), DomainId::new([1; DomainId::LEN]));
    let envelopes = kinds.map(|kind| Envelope::parse(bytes, kind, &repository, &domain));
    assert!(envelopes.iter().filter(|envelope| envelope.is_ok()).count() <= 1, "it is of two kinds");
    envelopes.into_iter().flatten().any(|envelope| {
        assert!(envelope.verify(envelope.author_key()).is_err(), "nobody signed it for this repository");
        assert!(envelope.open(&Opener::Symmetric(&[7; 32])).is_err());
        let key = RootSecret::from_bytes([1; 32]).metadata_seed(1).open_key();
        assert!(envelope.open(&Opener::Private(&|_| Some(&key))).is_err());
        true
    })
}

fn snapshot(bytes: &[u8]) -> bool {
    let accepted = comes_back(bytes, Snapshot::decode, Snapshot::encode);
    if let Ok(snapshot) = Snapshot::decode(bytes) {
        assert!(!snapshot.leads_only(b"") || !snapshot.sources.is_empty());
    }
    accepted
}

/// The other records of a domain, and evidence: each input is tried as every one of them.
fn records(bytes: &[u8]) -> bool {
    let accepted = [
        comes_back(bytes, Run::decode, Run::encode),
        comes_back(bytes, Annotation::decode, Annotation::encode),
        comes_back(bytes, Attestation::decode, Attestation::encode),
        comes_back(bytes, Forgotten::decode, Forgotten::encode),
        comes_back(bytes, Tombstones::decode, Tombstones::encode),
        comes_back(bytes, Quarantine::decode, Quarantine::encode),
        comes_back(bytes, Evidence::decode, Evidence::encode),
    ];
    accepted.contains(&true)
}

/// Signed reports, what is in them, and exported certificates.
fn report(bytes: &[u8]) -> bool {
    let signed = SignedReport::decode(bytes).map(|report| assert_eq!(report.encode(), bytes));
    let certificate = ExportedCertificate::decode(bytes);
    let text = String::from_utf8_lossy(bytes);
    let head = Head::of(&text);
    let drill: std::result::Result<DrillReport, _> = serde_json::from_str(&text);
    let check = CheckReport::decode(&text).map(|report| {
        for domain in &report.domains {
            let Ok(shelves) = Shelves::parse(&domain.shelves) else { continue };
            // One form for each set of shelves, and it is the one that is read.
            assert_eq!(Shelves::parse(&shelves.to_string()).expect("its own text is accepted"), shelves);
            let holds = |shelf: Shelf| {
                shelves.ranges().iter().any(|(first, last)| (*first..=*last).contains(&shelf.number()))
            };
            assert_eq!(Shelves::which(holds), shelves);
        }
    });
    if let Ok(report) = SignedReport::sign(text.into_owned(), &SigningKey::from_seed(&[5; 32])) {
        assert_eq!(SignedReport::decode(&report.encode()).expect("what was signed just now"), report);
    }
    signed.is_ok() || certificate.is_ok() || head.is_ok() || drill.is_ok() || check.is_ok()
}

/// The form is canonical: what is accepted is what is written.
fn index(bytes: &[u8]) -> bool {
    let Ok(packs) = decode_index(bytes) else { return false };
    assert_eq!(encode_index(&packs), bytes);
    true
}

/// Section header, directory and trailer of a pack; each form is canonical.
fn pack(bytes: &[u8]) -> bool {
    let header = SectionHeader::decode(bytes).map(|header| assert_eq!(header.encode(), bytes));
    let trailer = Trailer::decode(bytes).map(|trailer| assert!(bytes.ends_with(&trailer.encode())));
    let mut reader = Reader::new(bytes, "a directory");
    let directory = Directory::decode_from(&mut reader).map(|directory| {
        let mut out = Writer::new();
        directory.encode_into(&mut out);
        assert!(bytes.starts_with(&out.finish()));
        assert!(directory.pack_length() >= directory.overhead());
        assert_eq!(lifeboat::format::attestation::digests(&directory).len(), directory.sections.len());
    });
    header.is_ok() || trailer.is_ok() || directory.is_ok()
}

/// Nodes with their entries.
fn node(bytes: &[u8]) -> bool {
    comes_back(bytes, Node::decode, Node::encode)
}

/// Nodes under the ids that they have here: 32 bytes that are all their number.
struct Nodes<'a>(HashMap<BlobId, &'a [u8]>);

impl NodeSource for Nodes<'_> {
    fn plain(&self, id: &BlobId) -> Result<Vec<u8>> {
        self.0.get(id).map(|plain| plain.to_vec()).ok_or_else(|| Error::damaged("a node", "it is missing"))
    }
}

/// A whole manifest: nodes of two bytes of length and their plaintext, the last one is the root. They may name each
/// other and themselves in any way: here an id proves nothing.
fn manifest(mut bytes: &[u8]) -> bool {
    const CHUNKS_MAX: usize = 10_000;
    let (mut nodes, mut count) = (HashMap::new(), 0_u8);
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (plain, rest) = rest.split_at(length);
        nodes.insert(BlobId::new([count; 32]), plain);
        let Some(next) = count.checked_add(1) else { break };
        (count, bytes) = (next, rest);
    }
    let size: usize = nodes.values().map(|plain| plain.len()).sum();
    let nodes = Nodes(nodes);
    let root = BlobId::new([count.wrapping_sub(1); 32]);
    let walk = |mut cursor: ManifestCursor<'_>| {
        let (mut entries, mut faults, mut last) = (0, 0, Vec::new());
        loop {
            match cursor.next_entry() {
                Ok(Some(entry)) => {
                    assert!(entries == 0 || compare_paths(&last, &entry.path).is_lt(), "paths ascend");
                    let mut chunks = 0;
                    let listed = for_each_chunk(&entry.content, &nodes, &mut |_| {
                        chunks += 1;
                        if chunks > CHUNKS_MAX { Err(Error::damaged("a file", "it is long")) } else { Ok(()) }
                    });
                    drop(listed);
                    (entries, last) = (entries + 1, entry.path);
                }
                Ok(None) => break,
                Err(_) => faults += 1,
            }
            assert!(entries + faults <= size + 1, "it goes on for ever");
        }
        assert!(cursor.nodes_read <= size as u64 + 1, "a node is read again and again");
        (entries, faults)
    };
    let (entries, faults) = walk(ManifestCursor::new(&nodes, root));
    // Sums that are wrong are told, and what is below is given all the same.
    let (accounted, more) = walk(ManifestCursor::accounting(&nodes, root, Accounts::new()));
    assert!(
        accounted <= entries && more >= faults,
        "{accounted} of {entries} entries, {more} of {faults} faults"
    );
    walk(ManifestCursor::from(&nodes, root, b"srv/a"));
    count > 0 && faults == 0
}

/// The length of the plaintext in three bytes, and what is stored; also compressed and brought back.
fn frame(bytes: &[u8]) -> bool {
    let Some(([a, b, c], stored)) = bytes.split_first_chunk::<3>() else { return false };
    let length = (u32::from_le_bytes([*a, *b, *c, 0]) as usize).min(limits::FRAME_BYTES_MAX);
    let mut compressor = Compressor::new(Compression::Fast).unwrap();
    let opened = compressor.decompressor().decompress(Codec::Zstd, stored.to_vec(), length);
    assert!(opened.as_ref().map_or(true, |plain| plain.len() == length));
    let (codec, packed) = compressor.compress(stored).unwrap();
    let plain = compressor.decompressor().decompress(codec, packed, stored.len());
    assert_eq!(plain.expect("what was compressed just now"), stored);
    opened.is_ok()
}

/// The three sizes of a domain in two bytes each, and a file: cuts cover it and keep to the sizes.
fn chunker(bytes: &[u8]) -> bool {
    let Some((sizes, file)) = bytes.split_first_chunk::<6>() else { return false };
    let size = |at: usize| u32::from(u16::from_le_bytes([sizes[at], sizes[at + 1]]));
    let sizes = ChunkSizes { min: size(0), average: size(2), max: size(4) };
    let (id, name) = (DomainId::new([1; DomainId::LEN]), String::new());
    let domain = lifeboat::format::registry::Domain {
        chunk_min: sizes.min,
        chunk_average: sizes.average,
        chunk_max: sizes.max,
        ..lifeboat::format::registry::Domain::new(id, name)
    };
    if !domain.is_possible() {
        return false;
    }
    let chunker = Chunker::new(GearSeed::from_bytes([3; 32]).table(), sizes);
    let mut rest = file;
    while !rest.is_empty() {
        let length = chunker.cut(&rest[..rest.len().min(chunker.max())]);
        assert!(length > 0 && length <= chunker.max() && length <= rest.len());
        assert!(length >= sizes.min as usize || length == rest.len());
        rest = &rest[length..];
    }
    true
}

/// Names of objects and addresses of repositories.
fn names(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let name = Name::parse(&text).map(|name| {
        assert_eq!(name.as_str(), text);
        (name.parsed(), name.is_read_back())
    });
    let location = Location::parse(&text).map(|location| {
        let again = Location::parse(&location.to_string()).expect("what it shows is an address");
        assert_eq!(again.to_string(), location.to_string());
    });
    name.is_some() || location.is_ok()
}

/// What people and the kernel write: sizes, times, parts, snapshots, recovery words, the list of mounts. What is
/// shown of any of it cannot drive a terminal.
fn arguments(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    assert!(!text::shown(bytes).chars().any(char::is_control));
    let sources = [PathBuf::from("/"), PathBuf::from("/srv/data")];
    drop(Mounts::parse(bytes).hidden(&sources, &|_, _| false));
    let words = RootSecret::from_words(&text).map(|root| {
        assert_eq!(*RootSecret::from_words(&root.words()).expect("its own words").words(), *root.words());
    });
    [
        words.is_ok(),
        size::parse(&text).is_ok(),
        time::parse(&text, &jiff::tz::TimeZone::UTC).is_ok(),
        time::parse_duration(&text).is_ok(),
        Subset::parse(&text).is_ok(),
        SampleSize::parse(&text).is_ok(),
        Place::parse(bytes).is_ok(),
    ]
    .contains(&true)
}

fn profile(bytes: &[u8]) -> bool {
    use profile_schema::Document;
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(document) = Document::parse(Path::new("profiles.toml"), text) else { return false };
    let profiles: Vec<_> = document.names().iter().map(|name| document.profile(name)).collect();
    profiles.iter().all(|profile| matches!(profile, Ok(Some(_))))
}

/// Tables of the cached index, under the right hashes and MAC: an error of this program must not end it either.
/// The first byte says whether the rest is a whole file, else its first bytes are the numbers of rows.
fn segment(bytes: &[u8]) -> bool {
    let Some((form, bytes)) = bytes.split_first() else { return false };
    let key = cache_key().segment_key();
    fuzz_segment(bytes, &key, *form != 0)
}

thread_local! {
    /// Of each thread its own: tests run beside each other, and none may read what another one has written.
    static CACHE_FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap();
}

/// Files of the local cache: the first byte says which one the rest is.
fn cache(bytes: &[u8]) -> bool {
    let Some((which, bytes)) = bytes.split_first() else { return false };
    let (repository, domain) = (RepositoryId::new([1; 32]), DomainId::new([1; DomainId::LEN]));
    let cache = CACHE_FOLDER.with(|folder| Cache::open(Some(folder.path()), &repository));
    let folder = cache.folder().expect("a folder that was made just now");
    let key = cache_key();
    let write = |name: &str, bytes: &[u8]| File::create(folder.join(name)).unwrap().write_all(bytes).unwrap();
    match which {
        // The record of a parent and the file with its nodes: two bytes say how long the record is.
        0 => {
            let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return false };
            let (record, nodes) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
            let group = "group";
            let stem = format!("parent-{}", to_hex(&blake3::hash(group.as_bytes()).as_bytes()[..16]));
            let mac = key.cache_mac(&[group.as_bytes(), record].concat());
            write(&format!("{stem}.record"), &[&mac, record].concat());
            write(&format!("{stem}.1"), nodes);
            let Some((record, nodes)) = cache.parent(group, &key) else { return false };
            let node_key = lifeboat::crypto::NodeKey::from_bytes([9; 32]);
            let nodes = CachedNodes { file: &nodes, key: &node_key };
            let root = nodes.plain(&record.root);
            assert!(root.as_ref().map_or(true, |plain| node_key.id(plain) == record.root));
            root.is_ok()
        }
        1 => {
            write(&format!("journal-{domain}.1"), bytes);
            let left = cache.left_journals(&domain, &key);
            left.iter().any(|journal| !journal.packs.is_empty())
        }
        2 => {
            write("seen", bytes);
            let identity = IdentityId::new([1; IdentityId::LEN]);
            Memory::open(Some(folder)).head(&domain, &identity).is_some()
        }
        3 => {
            write(&format!("distrusted-{domain}"), bytes);
            !cache.distrusted(&domain).is_empty()
        }
        _ => cache.object(&ObjectId::new([1; 32])).is_some(),
    }
}
