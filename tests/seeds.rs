//! What the fuzzer begins with: objects of a real repository, and whatever once broke a decoder. Every seed runs
//! through its target here, so that seeds, targets and decoders stay together.
//! `LIFEBOAT_WRITE_SEEDS=1 cargo test --test seeds` makes them anew; what is named `found-..` stays.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use lifeboat::{
    clock::{SystemClock, Timestamp},
    compress::{Compression, Compressor, Decompressor},
    crypto::{NodeKey, RootSecret},
    format::{
        annotation::{Annotation, Says},
        attestation::{Attestation, AttestedSection},
        drill::{ClientReport, DrillReport},
        entry::{ChunkRef, Content, Entry, EntryKind, Metadata},
        envelope::{Envelope, Opener, RecordKind},
        evidence::Evidence,
        forgotten::Forgotten,
        ledger::{CHECK, CheckReport, DomainRead, SHELVES, Shelves},
        node::{Child, ListChild, Node},
        pack::{IndexedPack, Trailer, decode_index},
        quarantine::Quarantine,
        report::SignedReport,
        role::Role,
        secrets::Secrets,
        slot::Slot,
        tombstones::Tombstones,
        wire::Writer,
    },
    id::{BlobId, DomainId, IdentityId, ObjectId, PackId, RepositoryId, SectionId},
    ops::key,
    repository::{
        InitOptions, Repository,
        cache::{Cache, ParentRecord},
        index::Segments,
        memory::Memory,
    },
    store::{Name, Parsed, Prefix, Store},
};
use object_store::memory::InMemory;

#[expect(unreachable_pub, reason = "a library for the fuzzer, a part of this test here")]
#[path = "../fuzz/targets.rs"]
mod targets;

mod support {
    pub(crate) mod lab;
}
use support::lab::{self, Files};

/// Longer ones hold the fuzzer up.
const SEED_BYTES_MAX: usize = 16 << 10;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn entry(path: &str, size: u64, content: Content) -> Entry {
    let time = Timestamp::from_seconds(1_700_000_000);
    let metadata = Metadata { mtime: time, ctime: time, size, ..Metadata::of(EntryKind::File) };
    Entry { path: path.into(), metadata, content, changed_while_read: false, error: None }
}

/// Seeds of one target after the other, with names for people.
#[derive(Default)]
struct Seeds(Vec<(&'static str, String, Vec<u8>)>);

impl Seeds {
    fn add(&mut self, target: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((target, name.into(), bytes.into()));
    }

    /// What is outside and behind the seal of each object.
    fn objects(&mut self, store: &Store, root: &RootSecret) {
        let repository = lab::open(store, root).unwrap();
        let metadata = root.metadata_seed(1).open_key();
        let private = |_| Some(&metadata);
        for listed in store.list(&Prefix::all()).unwrap() {
            let name = Name::parse(&listed.name).unwrap();
            let bytes = store.read(&name, 1 << 26).unwrap().to_vec();
            let none = DomainId::new([0; DomainId::LEN]);
            let registry = root.registry_key();
            let index = |domain: &DomainId| repository.index_key(domain).unwrap();
            let open = |kind, domain: &DomainId, opener: &Opener<'_>| {
                let envelope =
                    Envelope::parse(&bytes, kind, &repository.config.repository_id, domain).unwrap();
                envelope.open(opener).unwrap().to_vec()
            };
            match name.parsed() {
                Parsed::Config => self.add("config", "config", bytes.clone()),
                Parsed::Slot(_) => self.add("slot", "passphrase", bytes.clone()),
                Parsed::Registry { number, .. } => {
                    let plain = open(RecordKind::Registry, &none, &Opener::Symmetric(registry.as_bytes()));
                    self.add("registry", number.to_string(), plain);
                    self.add("envelope", format!("registry-{number}"), bytes.clone());
                }
                Parsed::Index { domain, .. } => {
                    let plain =
                        open(RecordKind::Index, &domain, &Opener::Symmetric(index(&domain).as_bytes()));
                    self.packs(&repository, &domain, &decode_index(&plain).unwrap());
                    self.add("index", "index", plain);
                }
                Parsed::Snapshot { domain, sequence, .. } => {
                    let plain = open(RecordKind::Snapshot, &domain, &Opener::Private(&private));
                    self.add("snapshot", sequence.to_string(), plain);
                    self.add("envelope", format!("snapshot-{sequence}"), bytes.clone());
                }
                Parsed::Run { domain, .. } => {
                    self.add("records", "run", open(RecordKind::Run, &domain, &Opener::Private(&private)));
                }
                _ => {}
            }
        }
    }

    /// Headers, directories and frames of the packs, and the cache of what an index says about them.
    fn packs(&mut self, repository: &Repository, domain: &DomainId, packs: &[IndexedPack]) {
        let mut decompressor = Decompressor::new().unwrap();
        for IndexedPack { id, kind, directory, .. } in packs {
            let mut plain = Writer::new();
            directory.encode_into(&mut plain);
            self.add("pack", format!("directory-{}", kind.letter()), plain.finish());
            self.add("pack", format!("header-{}", kind.letter()), directory.sections[0].encode());
            for (number, frame) in directory.frames.iter().enumerate().filter(|_| kind.letter() == 'm') {
                let range = u64::from(frame.offset)..u64::from(frame.offset) + u64::from(frame.length);
                let sealed = repository.store.read_range(&Name::pack(domain, *kind, id), range).unwrap();
                let frame = (frame, &directory.sections[0]);
                let plain = repository.open_frame(domain, frame, &sealed, &mut decompressor).unwrap();
                self.add("node", format!("leaf-{number}"), plain);
            }
        }
        let cache = tempfile::tempdir().unwrap();
        let segments = Segments::new(Some(cache.path()));
        segments.add(domain, ObjectId::new([1; 32]), packs, &targets::cache_key().segment_key()).unwrap();
        let file = only_file(cache.path());
        self.add("segment", "whole", [&[1], &file[..]].concat());
        // Without the hash of its one block and the footer, whose words are the numbers of rows.
        let (tables, footer) = file.split_at(file.len() - 96);
        let rows: Vec<u8> = (0..5).map(|table| footer[32 + 8 + table * 4]).collect();
        self.add("segment", "tables", [&[0], &rows[..], tables].concat());
        let cache = Cache::open(Some(cache.path()), &RepositoryId::new([1; 32]));
        let domain = DomainId::new([1; DomainId::LEN]);
        let mut journal = cache.begin_journal(&domain, 1).unwrap();
        packs.iter().for_each(|pack| journal.add(&targets::cache_key(), &domain, pack));
        let journal = fs::read(cache.folder().unwrap().join(format!("journal-{domain}.1"))).unwrap();
        self.add("cache", "journal", [&[1], &journal[..]].concat());
    }

    fn cache(&mut self) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path()), &RepositoryId::new([1; 32]));
        let folder = cache.folder().unwrap();
        let plain = Node::Leaf(vec![entry("srv/a", 0, Content::Inline(Vec::new()))]).encode();
        let root = NodeKey::from_bytes([9; 32]).id(&plain);
        let mut nodes = cache.begin_parent("group", 1).unwrap();
        nodes.add(root, &plain).unwrap();
        let snapshot = ObjectId::new([2; 32]);
        let record =
            ParentRecord { snapshot, begun: Timestamp::default(), root, nodes: 1, files: 1, bytes: 0 };
        cache.finish_parent("group", &targets::cache_key(), record, Some(nodes)).unwrap();
        let file = |ending: &str| {
            let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            fs::read(files.find(|path| path.extension().is_some_and(|e| e == ending)).unwrap()).unwrap()
        };
        let (record, nodes) = (file("record").split_off(32), file("1"));
        let length = u16::try_from(record.len()).unwrap().to_le_bytes();
        self.add("cache", "parent", [&[0], &length[..], &record, &nodes].concat());
        let (domain, identity) = (DomainId::new([1; 8]), IdentityId::new([1; 16]));
        Memory::open(Some(folder)).saw_head(&domain, &identity, (7, snapshot));
        self.add("cache", "seen", [&[2], &fs::read(folder.join("seen")).unwrap()[..]].concat());
        self.add("cache", "distrusted", format!("\u{3}{}\n", PackId::new([1; 32])));
    }

    fn records(&mut self, root: &RootSecret) {
        let (time, reason) = (Timestamp::from_seconds(1_700_000_000), "a reason".to_owned());
        let (id, pack, signer) = (ObjectId::new([1; 32]), PackId::new([1; 32]), root.signing_key());
        let section = AttestedSection { id: SectionId::new([1; 32]), digest: [2; 32] };
        let attestation = Attestation { time, sections: vec![section; 2] };
        let (snapshots, objects) =
            (vec![id; 2], vec![Name::tombstones(&DomainId::new([1; 8]), &id).to_string()]);
        let drill = DrillReport { clients: vec![ClientReport::default()], ..DrillReport::default() };
        let payload = serde_json::to_string(&drill).unwrap();
        let report = SignedReport::sign(payload.clone(), &signer).unwrap();
        let evidence = Evidence { time, previous: Some(id), payload, signature: *report.signature() };
        let says = Says::Lift(vec![id], reason.clone());
        self.add("records", "annotation", Annotation { time, snapshots: vec![id; 2], says }.encode());
        self.add("records", "attestation", attestation.encode());
        self.add("records", "forgotten", Forgotten::new(time, snapshots, reason.clone()).encode());
        self.add("records", "quarantine", Quarantine { time, objects, reason }.encode());
        self.add("records", "tombstones", Tombstones { time, packs: vec![pack; 2] }.encode());
        self.add("records", "evidence", evidence.encode());
        self.add("report", "signed", report.encode());
        self.add("report", "drill", evidence.payload);
        let which = Shelves::which(|shelf| shelf.number() < 3 || shelf.number() == SHELVES - 1);
        let domain = DomainRead {
            domain: DomainId::new([1; 8]).to_string(),
            shelves: which.to_string(),
            damaged: vec![pack.to_string()],
        };
        let mut check = CheckReport { domains: vec![domain], ..CheckReport::default() };
        (check.head.kind, check.head.format) = (CHECK.to_owned(), 1);
        self.add("report", "check", serde_json::to_string(&check).unwrap());
        for role in [Role::Backup, Role::Audit, Role::Maintain, Role::Restore, Role::Owner] {
            let secrets = Secrets::for_role(root, role, Some(DomainId::new([1; 8])), &[1]).unwrap();
            self.add("secrets", role.name(), secrets.encode().to_vec());
        }
        let (slot, access) = Slot::seal_access_key(&Secrets::owner(root)).unwrap();
        self.add("slot", "access-key", slot.encode());
        self.add("slot", "text", access.text().as_bytes());
        self.add("pack", "trailer", [&[0; 16][..], &Trailer { offset: 10, length: 6 }.encode()].concat());
    }

    fn nodes(&mut self) {
        let chunk = ChunkRef { id: BlobId::new([9; 32]), length: 100 };
        let list = |node: u8| Content::List { node: BlobId::new([node; 32]), chunks: 2, level: 1 };
        let child = |first: &str, id: u8, bytes| Child {
            first: first.into(),
            id: BlobId::new([id; 32]),
            entries: 1,
            bytes,
        };
        let chunks = Node::Chunks(vec![chunk; 2]);
        let lists = Node::Lists(1, vec![ListChild { id: BlobId::new([0; 32]), chunks: 2, bytes: 200 }]);
        let first = Node::Leaf(vec![entry("srv/a", 200, list(1))]);
        let second = Node::Leaf(vec![entry("srv/b", 100, Content::Inline(vec![chunk]))]);
        let branch = Node::Branch(1, vec![child("srv/a", 2, 200), child("srv/b", 3, 100)]);
        let manifest: Vec<u8> = [&chunks, &lists, &first, &second, &branch]
            .iter()
            .map(|node| node.encode())
            .flat_map(|plain| [&u16::try_from(plain.len()).unwrap().to_le_bytes()[..], &plain].concat())
            .collect();
        self.add("manifest", "of-two-leaves", manifest);
        self.add("node", "chunks", chunks.encode());
        self.add("node", "lists", lists.encode());
        self.add("node", "branch", branch.encode());
    }

    /// What a bucket says of its versions.
    fn versions(&mut self) {
        let one = "<Key>p/a%20b</Key><VersionId>v1</VersionId><IsLatest>true</IsLatest>\
                   <LastModified>2026-01-31T22:05:09.000Z</LastModified>";
        let page = format!(
            "<?xml version=\"1.0\"?><ListVersionsResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
             <NextKeyMarker>p/b&amp;</NextKeyMarker><NextVersionIdMarker>v2</NextVersionIdMarker>\
             <DeleteMarker>{one}</DeleteMarker><Version>{one}<Size>7</Size></Version></ListVersionsResult>"
        );
        self.add("versions", "page", page);
        let status = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        self.add("versions", "status", status);
    }

    fn texts(&mut self, root: &RootSecret) {
        let (domain, identity, id) =
            (DomainId::new([1; 8]), IdentityId::new([1; 16]), ObjectId::new([1; 32]));
        let name = Name::snapshot(&domain, &identity, 7, &id).to_string();
        let pack =
            Name::pack(&domain, lifeboat::format::pack::PackKind::Data, &PackId::new([1; 32])).to_string();
        for text in
            ["config", &name, &pack, "s3://bucket/prefix", "s3:https://host:9/bucket/a", "file:///srv/x"]
        {
            self.add("names", text.replace(['/', ':'], "_").chars().take(40).collect::<String>(), text);
        }
        self.add("arguments", "words", root.words().as_bytes());
        for text in
            ["10M", "1h30m", "2/7", "5%", "latest~2:/etc/a", "2026-01-31T22:05:00Z", "2026-01-31 23:05:00"]
        {
            self.add("arguments", text.replace(['/', ':', ' '], "_"), text);
        }
        let mounts = include_bytes!("mountinfo/inaccessible");
        self.add("arguments", "mountinfo", &mounts[..]);
        let profile = "[profile.web]\nrepository = \"s3:https://h/b/p\"\naccess-key-file = \"cred:key\"\n\
                       sources = [\"/home\"]\nexclude-caches = true\nconnections = 16\nlimit-upload = \"10M\"\n\
                       options = { region = \"x\" }\n";
        self.add("profile", "web", profile);
        let text = b"the same again and ".repeat(20);
        let (_, packed) = Compressor::new(Compression::Auto).unwrap().compress(&text).unwrap();
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        self.add("frame", "text", [&length[..3], &packed].concat());
        let sizes = [64_u16, 128, 256].map(u16::to_le_bytes).concat();
        self.add("chunker", "noise", [&sizes[..], &lab::noise(1, 700)].concat());
    }

    /// All that can be made from a repository with two snapshots.
    fn new() -> Self {
        let root = RootSecret::from_bytes([1; 32]);
        let options = lab::options(Arc::new(SystemClock), Arc::default(), 0);
        let store = Store::from_object_store(Arc::new(InMemory::new()), "", options).unwrap();
        let init = InitOptions::default();
        Repository::create(&store, &root, "right", init, &SystemClock).unwrap();
        let repository = lab::open(&store, &root).unwrap();
        let options = key::AddOptions {
            role: Role::Backup,
            label: "machine".to_owned(),
            domain: None,
            shared: false,
            unlock: key::By::AccessKey,
        };
        key::add(&repository, &options).unwrap();
        let files =
            Files::from([("srv/a".to_owned(), b"one".to_vec()), ("srv/b".to_owned(), b"two".to_vec())]);
        lab::back_up(&repository, &files).unwrap();
        let repository = lab::open(&store, &root).unwrap();
        let mut seeds = Self::default();
        seeds.add("report", "certificate", key::certificate(&repository, "machine").unwrap());
        seeds.objects(&store, &root);
        seeds.versions();
        seeds.records(&root);
        seeds.nodes();
        seeds.cache();
        seeds.texts(&root);
        seeds
    }
}

fn only_file(folder: &Path) -> Vec<u8> {
    let mut path = folder.to_owned();
    while path.is_dir() {
        path = fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
    }
    fs::read(path).unwrap()
}

#[test]
fn every_decoder_accepts_what_the_engine_writes() {
    let Seeds(seeds) = Seeds::new();
    for (target, name, bytes) in &seeds {
        assert!(targets::run(target, bytes) || name == "mountinfo", "{target} refuses {name}");
        assert!(bytes.len() <= SEED_BYTES_MAX, "{target}: {name} has {} bytes", bytes.len());
    }
    let covered: BTreeSet<&str> = seeds.iter().map(|(target, ..)| *target).collect();
    assert_eq!(covered, targets::TARGETS.iter().map(|(name, _)| *name).collect());
    if std::env::var_os("LIFEBOAT_WRITE_SEEDS").is_some() {
        write(&seeds);
    }
}

/// Whoever adds a seed and writes no file for it gives the fuzzer nothing.
#[test]
fn every_seed_that_can_be_made_is_there() {
    let Seeds(seeds) = Seeds::new();
    // Where nodes end is up to keys that are new each time: a second leaf may be there or not.
    let is_certain = |name: &String| !name.starts_with("leaf-") || name == "leaf-0";
    for (target, ..) in targets::TARGETS {
        let made: BTreeSet<String> = seeds
            .iter()
            .filter(|(of, ..)| *of == target)
            .map(|(_, name, _)| name.clone())
            .filter(is_certain)
            .collect();
        let files = fs::read_dir(folder().join("seeds").join(target)).unwrap();
        let there: BTreeSet<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("found-") && is_certain(name))
            .collect();
        assert_eq!(there, made, "{target}: LIFEBOAT_WRITE_SEEDS=1 writes them");
    }
}

#[expect(clippy::disallowed_methods, reason = "a seed that is cut short is seen at once")]
fn write(seeds: &[(&str, String, Vec<u8>)]) {
    for (target, _) in targets::TARGETS {
        let folder = folder().join("seeds").join(target);
        fs::create_dir_all(&folder).unwrap();
        for old in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()) {
            if !old.file_name().to_str().unwrap().starts_with("found-") {
                fs::remove_file(old.path()).unwrap();
            }
        }
    }
    for (target, name, bytes) in seeds {
        fs::write(folder().join("seeds").join(target).join(name), bytes).unwrap();
    }
}

#[test]
fn every_seed_runs_through_its_target_and_each_target_has_seeds() {
    let folders = fs::read_dir(folder().join("seeds")).unwrap();
    let folders: BTreeSet<String> =
        folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let known: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders, known);
    for (name, target) in targets::TARGETS {
        let seeds = fs::read_dir(folder().join("seeds").join(name)).unwrap();
        let accepted: Vec<bool> =
            seeds.map(|seed| target(&fs::read(seed.unwrap().path()).unwrap())).collect();
        assert!(accepted.contains(&true), "{name} refuses all of its {} seeds", accepted.len());
    }
}

/// What the checks behind a decoder are for: each of these was made up, and must be refused.
#[test]
fn a_target_refuses_what_is_cut_short() {
    let Seeds(seeds) = Seeds::new();
    // Texts and tables may be cut anywhere; records and binary forms may not.
    let strict = [
        "config", "envelope", "frame", "index", "node", "records", "registry", "secrets", "snapshot",
        "versions",
    ];
    for (target, name, bytes) in seeds.iter().filter(|(target, ..)| strict.contains(target)) {
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            let whole_text = *target == "config" && length == bytes.len() - 1;
            assert!(whole_text || !targets::run(target, &bytes[..length]), "{target}: {length} of {name}");
        }
    }
}

/// A few changes of a seed, the same for the same number: bits, bytes, cuts, pieces put elsewhere, large numbers.
fn changed(seed: &[u8], number: u64) -> Vec<u8> {
    let dice = lab::noise(number, 64);
    let mut bytes = seed.to_vec();
    for roll in dice.chunks(8).take(1 + usize::from(dice[63] % 4)) {
        let at = |roll: &[u8]| usize::from(u16::from_le_bytes([roll[0], roll[1]])) % (bytes.len().max(1));
        let (from, to) = (at(&roll[2..]), at(&roll[4..]));
        if bytes.is_empty() {
            break;
        }
        match roll[0] % 6 {
            0 => bytes[from] ^= 1 << (roll[1] % 8),
            1 => bytes[from] = roll[1],
            2 => bytes.truncate(from),
            3 => bytes[from..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
            4 => bytes.insert(from, roll[1]),
            _ => {
                let piece = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

/// A short look without a fuzzer; `LIFEBOAT_ROUNDS` makes it longer.
#[test]
fn no_target_falls_over_a_seed_that_was_changed() {
    let rounds =
        std::env::var_os("LIFEBOAT_ROUNDS").map_or(300, |rounds| rounds.to_str().unwrap().parse().unwrap());
    for (name, target) in targets::TARGETS {
        for file in fs::read_dir(folder().join("seeds").join(name)).unwrap() {
            let path = file.unwrap().path();
            let seed = fs::read(&path).unwrap();
            for round in 0..rounds {
                let bytes = changed(&seed, round);
                let held = std::panic::catch_unwind(|| target(&bytes));
                assert!(held.is_ok(), "{}, change {round}: {bytes:x?}", path.display());
            }
        }
    }
}
