//! Known answers that `tests/vectors/make.py` computed from `docs/format.md`, with none of our code: every derivation,
//! every object, every place where a file is cut; and objects with one defect each, which must end in the error that
//! is said there.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use lifeboat::{
    chunk::{ChunkSizes, Chunker},
    clock::SystemClock,
    compress::Decompressor,
    crypto::{FrameKey, GearSeed, HpkeSeed, IndexRoot, NodeRoot, RootSecret, SigningKey, VerifyingKey},
    error::{Error, ErrorKind, Result},
    filesystem::sample::{Draw, SampleSize},
    format::{
        annotation::Annotation,
        attestation::{self, Attestation},
        certificate::ExportedCertificate,
        config::Config,
        entry::Entry,
        envelope::{Envelope, Opener, RecordKind},
        evidence::Evidence,
        forgotten::Forgotten,
        node::Node,
        pack::{Directory, PackKind, Trailer, decode_index},
        quarantine::Quarantine,
        registry::{Registry, Use},
        report::SignedReport,
        secrets::Secrets,
        snapshot::{Run, Snapshot},
        tombstones::Tombstones,
        wire::Reader,
    },
    id::{DomainId, to_hex},
    repository::{
        Repository,
        section::{Place, Section, check_ciphertext},
        unlock::Credential,
    },
    store::{Name, Store, StoreOptions},
};
use serde_json::Value;

/// A store in memory with nothing in it.
fn empty_store() -> Store {
    let options = StoreOptions {
        connections: 1,
        upload_limit: None,
        download_limit: None,
        retry_for: Duration::ZERO,
        s3: Default::default(),
        clock: Arc::new(SystemClock),
        progress: Arc::default(),
    };
    Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "", options).unwrap()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("tests/vectors/{folder}")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn read(path: &PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn good(name: &str) -> Value {
    read(&PathBuf::from(format!("tests/vectors/good/{name}.json")))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {value}"))
}

fn hex(value: &Value, key: &str) -> Vec<u8> {
    let digits = text(value, key).as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn array<const N: usize>(value: &Value, key: &str) -> [u8; N] {
    hex(value, key).try_into().unwrap()
}

fn rows(value: &Value, key: &str) -> Vec<Value> {
    value[key].as_array().unwrap().clone()
}

fn root() -> RootSecret {
    RootSecret::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

const DOMAIN: DomainId = DomainId::new([0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7]);

/// What the code makes of a secret and what follows it, for a context of `docs/format.md`.
fn derived(context: &str, secret: &[u8], then: &[u8]) -> Vec<u8> {
    let key = || -> [u8; 32] { secret.try_into().unwrap() };
    let root = || RootSecret::from_bytes(key());
    let epoch = || u32::from_le_bytes(then.try_into().unwrap());
    let domain = || DomainId::from_slice(then).unwrap();
    let chunk_root = || lifeboat::crypto::ChunkRoot::from_bytes(key());
    let index_key = || lifeboat::crypto::IndexKey::from_bytes(key());
    match context.strip_prefix("lifeboat v1 ").unwrap() {
        "repository id" => root().repository_id().as_bytes().to_vec(),
        "registry key" => root().registry_key().as_bytes().to_vec(),
        "index root" => root().index_root().as_bytes().to_vec(),
        "node root" => root().node_root().as_bytes().to_vec(),
        "chunk root" => root().chunk_root().as_bytes().to_vec(),
        "root signing key" => root().signing_key().seed().to_vec(),
        "owner signing key" => root().owner_identity().seed().to_vec(),
        "data seed" => root().data_seed(epoch()).as_bytes().to_vec(),
        "metadata seed" => root().metadata_seed(epoch()).as_bytes().to_vec(),
        "domain index key" => IndexRoot::from_bytes(key()).domain(&domain()).as_bytes().to_vec(),
        "domain node key" => NodeRoot::from_bytes(key()).domain(&domain()).as_bytes().to_vec(),
        "domain chunk key" => chunk_root().domain(&domain()).id.as_bytes().to_vec(),
        "domain gear" => chunk_root().domain(&domain()).gear.as_bytes().to_vec(),
        "cache" => index_key().cache_mac(then).to_vec(),
        "index segment" => index_key().segment_key().to_vec(),
        "frame key commitment" => FrameKey::derive(&key(), then).unwrap().1.to_vec(),
        "frame key" => FrameKey::derive(&key(), then)
            .unwrap()
            .0
            .seal((1 << 40) + 3, b"associated", b"plaintext")
            .unwrap(),
        "attested section" => {
            let directory = Directory::decode_from(&mut Reader::new(then, "test")).unwrap();
            attestation::digest(&directory, 0).to_vec()
        }
        "config checksum" => {
            let config: Value = serde_json::from_slice(&Config::decode(then).unwrap().encode()).unwrap();
            text(&config, "checksum").into()
        }
        "drill sample" => drawn(u64::from_le_bytes(secret.try_into().unwrap()), then),
        other => panic!("no function is known for {other}"),
    }
}

/// Which five of these paths a drill draws, one a line.
fn drawn(seed: u64, paths: &[u8]) -> Vec<u8> {
    let snapshot = good("snapshot");
    let record = open(&snapshot).unwrap().0;
    let record = Snapshot::decode(&record).unwrap();
    let Node::Leaf(entries) = Node::decode(&[1, 1, 0, 1, b'a', 2, 0xbf, 0xff]).unwrap() else { panic!() };
    let entries: Vec<Entry> = paths
        .split(|byte| *byte == b'\n')
        .map(|path| Entry { path: path.to_vec(), ..entries[0].clone() })
        .collect();
    let mut draw = Draw::new(&record, seed);
    entries.iter().for_each(|entry| draw.count(entry));
    draw.share(SampleSize::Entries(5));
    entries.iter().for_each(|entry| draw.rank(entry));
    let sample = draw.finish();
    let taken: Vec<&[u8]> =
        entries.iter().filter(|entry| sample.takes(entry)).map(|entry| &entry.path[..]).collect();
    taken.join(&b'\n')
}

#[test]
fn every_derivation_gives_the_known_answer() {
    for row in rows(&good("derivations"), "rows") {
        let context = text(&row, "context");
        let output = derived(context, &hex(&row, "secret"), &hex(&row, "then"));
        assert_eq!(to_hex(&output), text(&row, "output"), "{context}");
    }
}

#[test]
fn no_context_of_the_format_is_without_a_vector() {
    let page = fs::read_to_string("docs/format.md").unwrap();
    let said: BTreeSet<_> = page.split('"').filter(|part| part.starts_with("lifeboat v1 ")).collect();
    let vectors: Vec<Value> = files("good").iter().map(read).collect();
    let contexts = vectors.iter().flat_map(|vector| vector["contexts"].as_array().unwrap());
    let used: BTreeSet<_> = contexts.map(|context| context.as_str().unwrap()).collect();
    assert!(said.len() > 20, "{said:?}");
    assert_eq!(said, used);
}

#[test]
fn recovery_words_keys_and_ids_are_the_known_ones() {
    for row in rows(&good("words"), "rows") {
        let root = RootSecret::from_bytes(array(&row, "root"));
        assert_eq!(*root.words(), text(&row, "words"));
        assert_eq!(RootSecret::from_words(text(&row, "words")).unwrap().as_bytes(), root.as_bytes());
    }
    let ids = good("ids");
    let root = RootSecret::from_bytes(array(&ids, "root"));
    let domain = DomainId::new(array(&ids, "domain"));
    let (node, chunk) = (root.node_root().domain(&domain), root.chunk_root().domain(&domain).id);
    for row in rows(&ids, "rows") {
        let plain = hex(&row, "plain");
        assert_eq!(chunk.id(&plain).to_string(), text(&row, "chunk"));
        assert_eq!(node.id(&plain).to_string(), text(&row, "node"));
    }
    for row in rows(&ids, "boundaries") {
        let level = row["level"].as_u64().unwrap().try_into().unwrap();
        assert_eq!(node.boundary(level, &hex(&row, "path")), u64::from_le_bytes(array(&row, "word")));
    }
    for row in rows(&good("signing"), "rows") {
        let signer = SigningKey::from_seed(&array(&row, "seed"));
        assert_eq!(signer.verifying_key().to_bytes(), array(&row, "public"));
        assert_eq!(signer.identity().to_string(), text(&row, "identity"));
        let (message, signature) = (hex(&row, "message"), array(&row, "signature"));
        assert_eq!(signer.sign(&message), signature);
        VerifyingKey::from_bytes(&array(&row, "public")).unwrap().verify(&message, &signature).unwrap();
    }
    let sealed = good("x-wing");
    for row in rows(&sealed, "rows") {
        let seed = HpkeSeed::from_bytes(array(&row, "seed"));
        assert_eq!(to_hex(&seed.public_key().to_bytes()), text(&row, "public"));
        let secret = seed.open_key().decapsulate(&array(&row, "encapsulation"), &hex(&sealed, "info"));
        assert_eq!(*secret.unwrap(), array(&row, "secret"));
    }
}

/// The plaintext of the record of a vector, once everything before it was checked as a reader does.
fn plain(bytes: &[u8], kind: RecordKind) -> Result<Vec<u8>> {
    let root = root();
    let zero = DomainId::new([0; 8]);
    let domain = if matches!(kind, RecordKind::Registry | RecordKind::Evidence) { zero } else { DOMAIN };
    let envelope = Envelope::parse(bytes, kind, &root.repository_id(), &domain)?;
    if kind == RecordKind::Registry {
        envelope.verify(&root.signing_key().verifying_key())?;
        return Ok(envelope.open(&Opener::Symmetric(root.registry_key().as_bytes()))?.to_vec());
    }
    let registry = plain(&hex(&good("registry"), "object"), RecordKind::Registry)?;
    Registry::decode(&registry)?.verify_author(&envelope, &domain)?;
    let (index, private) = (root.index_root().domain(&DOMAIN), root.metadata_seed(1).open_key());
    let keys = |epoch| (epoch == 1).then_some(&private);
    let to_a_key = matches!(
        kind,
        RecordKind::Snapshot | RecordKind::Run | RecordKind::Annotation | RecordKind::Evidence
    );
    let opener = if to_a_key { Opener::Private(&keys) } else { Opener::Symmetric(index.as_bytes()) };
    Ok(envelope.open(&opener)?.to_vec())
}

/// What is in every blob of a pack, in hexadecimal.
fn blobs(pack: &[u8]) -> Result<String> {
    let root = root();
    let trailer = Trailer::decode(pack)?;
    let (offset, length) = (trailer.offset as usize, trailer.length as usize);
    let listed = plain(&pack[offset..offset + length], RecordKind::Directory)?;
    let mut reader = Reader::new(&listed, "a directory");
    let directory = Directory::decode_from(&mut reader)?;
    reader.finish()?;
    if directory.pack_length() != pack.len() {
        return Err(Error::damaged("a pack", "it has another length than its directory gives"));
    }
    let place = Place { repository: root.repository_id(), domain: DOMAIN };
    let (chunk, node) = (root.chunk_root().domain(&DOMAIN).id, root.node_root().domain(&DOMAIN));
    let (mut texts, mut decompressor) = (String::new(), Decompressor::new()?);
    for frame in &directory.frames {
        let header = &directory.sections[usize::from(frame.section)];
        let seed = match header.kind {
            PackKind::Data => root.data_seed(header.epoch),
            PackKind::Metadata => root.metadata_seed(header.epoch),
        };
        let sealed = &pack[frame.offset as usize..(frame.offset + frame.length) as usize];
        check_ciphertext(frame, sealed)?;
        let stored = Section::open(place, header, &seed.open_key())?.open_frame(frame.counter, sealed)?;
        let all = decompressor.decompress(frame.codec, stored, frame.plain_length())?;
        let mut rest = &all[..];
        for blob in &frame.blobs {
            let (head, tail) = rest.split_at(blob.length as usize);
            let id = if header.kind == PackKind::Data { chunk.id(head) } else { node.id(head) };
            if id != blob.id {
                return Err(Error::damaged("a blob", "its content is not what its id names"));
            }
            texts.push_str(&to_hex(head));
            texts.push(' ');
            rest = tail;
        }
    }
    Ok(texts)
}

/// A slot in a store of its own, opened as the program does.
fn unlocked(vector: &Value, bytes: &[u8]) -> Result<Secrets> {
    let store = empty_store();
    let json: Value = serde_json::from_slice(bytes).unwrap();
    let own = vector["access_key"].as_str().and_then(|key| key.split(':').nth(1));
    let name = format!("{}-00000000", root().owner_identity().identity());
    // The one defect of the access key may be that it names another slot.
    let name = if own.is_some() { text(&json, "name") } else { &name };
    store.create(&Name::slot(name), Bytes::from(bytes.to_vec()))?;
    let config = Config::decode(&hex(&good("config"), "object"))?;
    let credential = match vector["passphrase"].as_str() {
        Some(passphrase) => Credential::Passphrase(passphrase.to_owned().into(), None),
        None => Credential::AccessKey(text(vector, "access_key").to_owned().into()),
    };
    Repository::unlock(&store, &config, &credential)
}

fn summary(secrets: &Secrets) -> String {
    format!(
        "role: {} identity: {} root: {} chunks: {} metadata: {} data: {}",
        secrets.role().name(),
        secrets.identity(),
        secrets.root().is_some(),
        secrets.chunk_keys(&DOMAIN).is_some(),
        secrets.open_metadata(1).is_some(),
        secrets.open_data(1).is_some(),
    )
}

/// Reads the object of a vector: its plaintext, what it is when it is written again, and what it says.
fn open(vector: &Value) -> Result<(Vec<u8>, Vec<u8>, String)> {
    let bytes = hex(vector, "object");
    macro_rules! record {
        ($kind:ident, $type:ty) => {{
            let plain = plain(&bytes, RecordKind::$kind)?;
            let record = <$type>::decode(&plain)?;
            (plain, record.encode(), format!("{record:?}"))
        }};
    }
    Ok(match text(vector, "opens") {
        "snapshot" => record!(Snapshot, Snapshot),
        "run" => record!(Run, Run),
        "attestation" => record!(Attestation, Attestation),
        "annotation" => record!(Annotation, Annotation),
        "forgotten" => record!(Forgotten, Forgotten),
        "tombstones" => record!(Tombstones, Tombstones),
        "quarantine" => record!(Quarantine, Quarantine),
        "registry" => {
            let (plain, again, says) = record!(Registry, Registry);
            Registry::decode(&plain)?.check_features(Use::Write)?;
            (plain, again, says)
        }
        "evidence" => {
            let (plain, again, says) = record!(Evidence, Evidence);
            let zero = DomainId::new([0; 8]);
            let envelope = Envelope::parse(&bytes, RecordKind::Evidence, &root().repository_id(), &zero)?;
            Evidence::decode(&plain)?.report(envelope.author_key())?;
            (plain, again, says)
        }
        "index" => {
            let plain = plain(&bytes, RecordKind::Index)?;
            let packs = decode_index(&plain)?;
            let again = lifeboat::format::pack::encode_index(&packs);
            (plain, again, format!("{packs:?}"))
        }
        "node" => {
            let node = Node::decode(&bytes)?;
            (bytes, node.encode(), format!("{node:?}"))
        }
        "config" => {
            let config = Config::decode(&bytes)?;
            (bytes, config.encode(), format!("{config:?}{}", config.repository_id))
        }
        "certificate" => {
            let certificate = ExportedCertificate::decode(&bytes)?;
            (bytes, certificate.encode(), format!("{certificate:?}"))
        }
        "report" => {
            let report = SignedReport::decode(&bytes)?;
            (bytes, report.encode(), report.payload().to_owned())
        }
        "slot" => {
            let secrets = unlocked(vector, &bytes)?;
            let again = Secrets::decode(&secrets.encode())?;
            (secrets.encode().to_vec(), again.encode().to_vec(), summary(&again))
        }
        "pack" => (Vec::new(), Vec::new(), blobs(&bytes)?),
        "words" => {
            let words = Credential::Words(String::from_utf8(bytes).unwrap().into());
            let config = Config::decode(&hex(&good("config"), "object"))?;
            let secrets = Repository::unlock(&empty_store(), &config, &words)?;
            (Vec::new(), Vec::new(), summary(&secrets))
        }
        other => return Err(Error::new(ErrorKind::Failed, format!("nothing opens {other}"))),
    })
}

#[test]
fn every_object_opens_to_what_it_says_and_is_written_again_as_it_was() {
    let (mut opened, mut kinds) = (0, BTreeSet::new());
    for path in files("good") {
        let vector = read(&path);
        let Some(kind) = vector["opens"].as_str() else { continue };
        let (plain, again, says) =
            open(&vector).unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        assert_eq!(to_hex(&plain), to_hex(&again), "{}", path.display());
        for expected in rows(&vector, "says") {
            assert!(says.contains(expected.as_str().unwrap()), "{}: {expected} in {says}", path.display());
        }
        opened += 1;
        kinds.insert(kind.to_owned());
    }
    assert_eq!((opened, kinds.len()), (31, 16), "{kinds:?}");
}

#[test]
fn every_defect_is_refused_for_what_it_is() {
    let all = files("defects");
    assert!(all.len() > 140, "{}", all.len());
    let mut wrong = Vec::new();
    for path in all {
        let vector = read(&path);
        let expected = (text(&vector, "error"), vector["exit"].as_u64().unwrap());
        match open(&vector) {
            Ok((.., says)) => wrong.push(format!("{} opens: {says}", path.display())),
            Err(error) => {
                let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
                let said = causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"));
                let exit = u64::from(error.kind().exit_code());
                if !said.contains(expected.0) || exit != expected.1 {
                    wrong.push(format!("{}: exit {exit}, {said}\n  not {expected:?}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a case of `good/chunks.json` is made of.
fn content(parts: &Value) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts.as_array().unwrap() {
        let what = part[1].as_u64().unwrap();
        let length = usize::try_from(part[2].as_u64().unwrap()).unwrap();
        let end = all.len() + length;
        match part[0].as_str().unwrap() {
            "noise" => {
                let (from, mut hasher) = (all.len(), blake3::Hasher::new());
                all.resize(end, 0);
                hasher.update(&what.to_le_bytes()).finalize_xof().fill(&mut all[from..]);
            }
            "byte" => all.resize(end, u8::try_from(what).unwrap()),
            "period" => all.extend((0..length as u64).map(|at| (at % what).to_le_bytes()[0])),
            "lines" => {
                let mut line = what;
                while all.len() < end {
                    all.extend(format!("{line}\n").into_bytes());
                    line += 1;
                }
                all.truncate(end);
            }
            other => panic!("{other}"),
        }
    }
    all
}

fn cut(chunker: &Chunker, mut rest: &[u8]) -> Vec<u64> {
    let mut lengths = Vec::new();
    while !rest.is_empty() {
        let length = chunker.cut(&rest[..rest.len().min(chunker.max())]);
        lengths.push(length as u64);
        rest = &rest[length..];
    }
    lengths
}

#[test]
fn files_are_cut_where_the_known_answers_say() {
    let vector = good("chunks");
    let seed = GearSeed::from_bytes(array(&vector, "gear_seed"));
    assert_eq!(*root().chunk_root().domain(&DOMAIN).gear.as_bytes(), *seed.as_bytes());
    let cases = rows(&vector, "cases");
    assert!(cases.len() > 20);
    for case in cases {
        let size = |at: usize| u32::try_from(case["sizes"][at].as_u64().unwrap()).unwrap();
        let sizes = ChunkSizes { min: size(0), average: size(1), max: size(2) };
        let found = cut(&Chunker::new(seed.table(), sizes), &content(&case["parts"]));
        assert_eq!(serde_json::to_value(found).unwrap(), case["lengths"], "{}", case["parts"]);
    }
}
