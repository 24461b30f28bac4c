//! What the secrets of each role open, tried without any rule of ours in between: every key in a slot and every key
//! that derives from those, on every object of a repository. And whose signature counts on what.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use lifeboat::{
    clock::{SystemClock, Timestamp},
    crypto::{
        ChunkIdKey, ChunkRoot, FrameKey, HpkeSeed, IndexRoot, NodeRoot, OpenKey, RootSecret, SigningKey,
    },
    format::{
        annotation::{Annotation, Says},
        attestation::{Attestation, AttestedSection, digests},
        envelope::{self, Envelope, EnvelopeHeader, Opener, RecordKind, Sealer},
        evidence::{Evidence, Head},
        forgotten::Forgotten,
        pack::{Directory, PackKind, Trailer, encode_index},
        quarantine::Quarantine,
        report::SignedReport,
        role::Role,
        slot::Slot,
        snapshot::Snapshot,
        tombstones::Tombstones,
        wire::Reader,
    },
    id::{DomainId, ObjectId, PackId},
    ops::key::{self, AddOptions, Added, By},
    repository::{
        InitOptions, Repository,
        section::{Place, Section},
        unlock::Credential,
    },
    store::{Folder, Name, Parsed, Prefix, Store},
};
use object_store::memory::InMemory;

mod support {
    pub(crate) mod forger;
    pub(crate) mod lab;
}
use support::{
    forger::{self, Forged},
    lab::{self, Files, noise},
};

const TIME: Timestamp = Timestamp::from_seconds(1_700_000_000);

/// A repository with an object of every kind, in the domain `office` and in the owner's, and a key for each role.
struct Scene {
    store: Store,
    root: RootSecret,
    added: BTreeMap<&'static str, Added>,
    files: Files,
}

fn store_of(objects: InMemory) -> Store {
    let options = lab::options(Arc::new(SystemClock), Arc::default(), 0);
    Store::from_object_store(Arc::new(objects), "", options).unwrap()
}

impl Scene {
    fn new() -> Self {
        let (store, root) = (store_of(InMemory::new()), RootSecret::from_bytes([42; 32]));
        let init = InitOptions::default();
        Repository::create(&store, &root, "right", init, &SystemClock).unwrap();
        let mut added = BTreeMap::new();
        let owner = lab::open(&store, &root).unwrap();
        for (label, role) in [
            ("backup", Role::Backup),
            ("victim", Role::Backup),
            ("audit", Role::Audit),
            ("maintain", Role::Maintain),
            ("restore", Role::Restore),
            ("owner again", Role::Owner),
        ] {
            let domain = matches!(role, Role::Backup).then(|| "office".to_owned());
            let options =
                AddOptions { role, label: label.to_owned(), domain, shared: false, unlock: By::AccessKey };
            added.insert(label, key::add(&owner, &options).unwrap());
        }
        let files = Files::from([
            ("srv/large".to_owned(), noise(1, 200_000)),
            ("srv/small".to_owned(), b"a known text".to_vec()),
        ]);
        let scene = Self { store, root, added, files };
        let owner = lab::open(&scene.store, &scene.root).unwrap();
        lab::back_up(&owner, &scene.files).unwrap();
        lab::back_up(&scene.open("backup"), &scene.files).unwrap();
        for domain in [owner.own_domain().unwrap(), scene.office()] {
            scene.write_records(&owner, &domain);
        }
        let report = report(&scene.root, owner.signer());
        owner.publish_evidence(&owner.store, owner.next_evidence(&owner.store).unwrap(), &report).unwrap();
        scene
    }

    fn write_records(&self, owner: &Repository, domain: &DomainId) {
        let (nothing, reason) = (ObjectId::new([9; 32]), String::new());
        let snapshots = vec![nothing];
        owner.publish_forgotten(domain, &Forgotten::new(TIME, snapshots, reason.clone())).unwrap();
        let objects = vec!["nothing".to_owned()];
        owner.publish_quarantine(domain, &Quarantine { time: TIME, objects, reason }).unwrap();
        let says = Says::Hold("a case".to_owned());
        let annotation = Annotation { time: TIME, snapshots: vec![nothing], says };
        owner.publish_annotation(domain, &annotation).unwrap();
        let packs = vec![PackId::new([9; 32])];
        owner.publish_tombstones(domain, &Tombstones { time: TIME, packs }).unwrap();
        owner.publish_attestation(domain, &Attestation { time: TIME, sections: Vec::new() }).unwrap();
    }

    fn office(&self) -> DomainId {
        self.added["backup"].domain.unwrap()
    }

    fn open(&self, label: &str) -> Repository {
        let access = self.added[label].access_key.as_ref().unwrap().text();
        lab::open_with(&self.store, &Credential::AccessKey(access), None).unwrap()
    }

    fn names(&self) -> Vec<Name> {
        let listed = self.store.list(&Prefix::all()).unwrap();
        listed.iter().map(|listed| Name::parse(&listed.name).unwrap()).collect()
    }

    fn domains(&self) -> BTreeSet<DomainId> {
        self.names().iter().filter_map(|name| domain_of(&name.parsed())).collect()
    }
}

/// The first of a chain.
fn report(root: &RootSecret, signer: &SigningKey) -> SignedReport {
    let head = Head {
        kind: "check".to_owned(),
        repository_id: root.repository_id().to_string(),
        identity: signer.identity().to_string(),
        sequence: Some(1),
        ..Head::default()
    };
    SignedReport::sign(serde_json::to_string(&head).unwrap(), signer).unwrap()
}

fn domain_of(name: &Parsed) -> Option<DomainId> {
    match name {
        Parsed::Pack { domain, .. }
        | Parsed::Index { domain, .. }
        | Parsed::Snapshot { domain, .. }
        | Parsed::Run { domain, .. }
        | Parsed::Record { domain, .. } => Some(*domain),
        _ => None,
    }
}

/// All that can be made of the keys in a slot.
struct Keys {
    symmetric: BTreeSet<[u8; 32]>,
    private: Vec<OpenKey>,
}

impl Keys {
    /// Whatever stands in the slot as 32 bytes is taken for a key of every sort.
    fn of(held: &[u8], domains: &BTreeSet<DomainId>) -> Self {
        let found = held.windows(34).filter(|window| window[..2] == [0x58, 32]);
        let raw: BTreeSet<[u8; 32]> = found.map(|window| window[2..].try_into().unwrap()).collect();
        let mut symmetric = raw.clone();
        for key in &raw {
            let root = RootSecret::from_bytes(*key);
            symmetric.extend([
                *root.registry_key().as_bytes(),
                *root.index_root().as_bytes(),
                *root.node_root().as_bytes(),
                *root.chunk_root().as_bytes(),
                *root.data_seed(1).as_bytes(),
                *root.metadata_seed(1).as_bytes(),
                *root.signing_key().seed(),
                *root.owner_identity().seed(),
            ]);
        }
        for key in symmetric.clone() {
            for domain in domains {
                let chunk = ChunkRoot::from_bytes(key).domain(domain);
                symmetric.extend([
                    *IndexRoot::from_bytes(key).domain(domain).as_bytes(),
                    *NodeRoot::from_bytes(key).domain(domain).as_bytes(),
                    *chunk.id.as_bytes(),
                    *chunk.gear.as_bytes(),
                ]);
            }
        }
        let private = symmetric.iter().map(|key| HpkeSeed::from_bytes(*key).open_key()).collect();
        Self { symmetric, private }
    }

    fn open_record(&self, bytes: &[u8], kind: RecordKind, place: Place) -> Option<Vec<u8>> {
        let record = Envelope::parse(bytes, kind, &place.repository, &place.domain).unwrap();
        let with_a_key = self.symmetric.iter().find_map(|key| record.open(&Opener::Symmetric(key)).ok());
        with_a_key
            .or_else(|| {
                self.private.iter().find_map(|key| record.open(&Opener::Private(&|_| Some(key))).ok())
            })
            .map(|plain| plain.to_vec())
    }

    /// What it opens of a pack, and whether it can tell that a known text is in it.
    fn open_pack(&self, bytes: &[u8], directory: &Directory, place: Place) -> (bool, bool) {
        let header = &directory.sections[0];
        let frame = &directory.frames[0];
        let sealed = &bytes[frame.offset as usize..(frame.offset + frame.length) as usize];
        let open = |key| Section::open(place, header, key).ok()?.open_frame(frame.counter, sealed).ok();
        let opens = self.private.iter().any(|key| open(key).is_some());
        let listed: BTreeSet<_> =
            directory.frames.iter().flat_map(|frame| &frame.blobs).map(|blob| blob.id).collect();
        let tells = |key: &[u8; 32]| listed.contains(&ChunkIdKey::from_bytes(*key).id(b"a known text"));
        (opens, self.symmetric.iter().any(tells))
    }

    /// Everything of the repository that it opens, by what it is; `true` where it opened.
    fn open_all(&self, scene: &Scene) -> BTreeMap<String, BTreeSet<bool>> {
        let mut opened: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
        let mut note = |what: String, how: bool| {
            opened.entry(what).or_default().insert(how);
        };
        let repository = scene.root.repository_id();
        for name in scene.names() {
            let bytes = scene.store.read(&name, 16 << 20).unwrap();
            let parsed = name.parsed();
            let domain = domain_of(&parsed).unwrap_or(DomainId::new([0; 8]));
            let whose = if domain == scene.office() { "office" } else { "main" };
            let place = Place { repository, domain };
            let mut record = |what: &str, kind| {
                let opened = self.open_record(&bytes, kind, place).is_some();
                note(what.to_owned(), opened);
            };
            match parsed {
                Parsed::Registry { .. } => record("registry", RecordKind::Registry),
                Parsed::Evidence { .. } => record("evidence", RecordKind::Evidence),
                Parsed::Index { .. } => record(&format!("{whose} index"), RecordKind::Index),
                Parsed::Snapshot { .. } => record(&format!("{whose} snapshot"), RecordKind::Snapshot),
                Parsed::Run { .. } => record(&format!("{whose} run"), RecordKind::Run),
                Parsed::Record { folder, .. } => {
                    let kind = match folder {
                        Folder::Attestations => RecordKind::Attestation,
                        Folder::Forgotten => RecordKind::Forgotten,
                        Folder::Tombstones => RecordKind::Tombstones,
                        Folder::Quarantine => RecordKind::Quarantine,
                        Folder::Annotations => {
                            record(&format!("{whose} annotation"), RecordKind::Annotation);
                            continue;
                        }
                    };
                    record(&format!("{whose} records"), kind);
                }
                Parsed::Pack { kind, .. } => {
                    let trailer = Trailer::decode(&bytes).unwrap();
                    let listed = &bytes[trailer.offset as usize..][..trailer.length as usize];
                    let opened = self.open_record(listed, RecordKind::Directory, place).is_some();
                    note(format!("{whose} directory"), opened);
                    // Whoever cannot read the directory may have learned elsewhere what stands in it.
                    let index = scene.root.index_root().domain(&domain);
                    let directory = Envelope::parse(listed, RecordKind::Directory, &repository, &domain);
                    let plain = directory.unwrap().open(&Opener::Symmetric(index.as_bytes())).unwrap();
                    let directory = Directory::decode_from(&mut Reader::new(&plain, "a test")).unwrap();
                    let (opens, tells) = self.open_pack(&bytes, &directory, place);
                    let what = if kind == PackKind::Data { "contents" } else { "manifest" };
                    note(format!("{whose} {what}"), opens);
                    if kind == PackKind::Data {
                        note(format!("{whose} known text"), tells);
                    }
                }
                Parsed::Slot(_) => note("slots".to_owned(), self.open_slot(&bytes)),
                _ => {}
            }
        }
        opened
    }

    fn open_slot(&self, bytes: &[u8]) -> bool {
        let slot: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let text = |field: &str| slot[field].as_str().unwrap();
        let salt: [u8; 32] = lifeboat::id::from_hex(text("salt")).unwrap();
        let context = [b"lifeboat v1 key slot".as_slice(), text("name").as_bytes(), &salt].concat();
        let commitment = |key: &[u8; 32]| lifeboat::id::to_hex(&FrameKey::derive(key, &context).unwrap().1);
        self.symmetric.iter().any(|key| commitment(key) == text("commitment"))
    }
}

const OFFICE: [&str; 3] = ["office index", "office directory", "office records"];
const MAIN: [&str; 3] = ["main index", "main directory", "main records"];
const NAMES: [&str; 9] = [
    "office annotation",
    "main annotation",
    "office snapshot",
    "office manifest",
    "office run",
    "main snapshot",
    "main manifest",
    "main run",
    "evidence",
];
const CONTENTS: [&str; 4] = ["office contents", "office known text", "main contents", "main known text"];

#[test]
fn the_secrets_of_a_role_open_what_the_design_says_and_nothing_else() {
    let scene = Scene::new();
    let domains = scene.domains();
    assert_eq!(domains.len(), 2);
    let table: [(&str, &[&[&str]]); 6] = [
        // A stolen backup key can tell whether a known text is in its own domain.
        ("backup", &[&["registry", "office known text"], &OFFICE]),
        ("audit", &[&["registry"], &OFFICE, &MAIN, &NAMES]),
        ("maintain", &[&["registry"], &OFFICE, &MAIN, &NAMES]),
        ("restore", &[&["registry"], &OFFICE, &MAIN, &NAMES, &CONTENTS]),
        ("owner again", &[&["registry"], &OFFICE, &MAIN, &NAMES, &CONTENTS]),
        ("nothing", &[]),
    ];
    for (label, expected) in table {
        let held = match scene.added.get(label) {
            None => vec![0x58, 32].into_iter().chain([7; 32]).collect(),
            Some(added) => {
                let bytes = scene.store.read(&Name::slot(&added.slot), 1 << 20).unwrap();
                let access = added.access_key.as_ref().unwrap();
                let secrets = Slot::decode(&bytes).unwrap().open_access_key(access).unwrap().unwrap();
                secrets.encode().to_vec()
            }
        };
        let opened = Keys::of(&held, &domains).open_all(&scene);
        assert_eq!(opened.len(), 21, "{opened:?}");
        let expected: BTreeSet<&str> = expected.iter().copied().flatten().copied().collect();
        for (what, how) in &opened {
            assert_eq!(
                how.iter().collect::<Vec<_>>(),
                [&expected.contains(what.as_str())],
                "{label}: {what}"
            );
        }
    }
}

#[test]
fn the_words_and_the_passphrase_open_everything_since_they_give_the_root() {
    let scene = Scene::new();
    let config = Repository::read_config(&scene.store).unwrap();
    let passphrase = Credential::Passphrase("right".to_owned().into(), None);
    for credential in [Credential::Words(scene.root.words()), passphrase] {
        let secrets = Repository::unlock(&scene.store, &config, &credential).unwrap();
        let opened = Keys::of(&secrets.encode(), &scene.domains()).open_all(&scene);
        let closed: Vec<_> =
            opened.iter().filter(|(_, how)| how.contains(&false)).map(|(what, _)| what).collect();
        // Slots are sealed with what only their holders have.
        assert_eq!(closed, ["slots"]);
    }
}

/// Records that are well sealed and well signed by this key, each with the name that it should have.
fn forged(scene: &Scene, signer: &SigningKey) -> Vec<(&'static str, (Name, Bytes))> {
    let (root, me) = (&scene.root, signer.identity());
    let (domain, zero) = (scene.office(), DomainId::new([0; 8]));
    let (index, metadata) = (root.index_root().domain(&domain), root.metadata_seed(1).public_key());
    let put = |kind, sequence, plain: &[u8], name: &dyn Fn(&ObjectId) -> Name| {
        let to_a_key = matches!(kind, RecordKind::Snapshot | RecordKind::Annotation | RecordKind::Evidence);
        let sealer = if to_a_key { Sealer::Public(&metadata) } else { Sealer::Symmetric(index.as_bytes()) };
        let registry_key = root.registry_key();
        let sealer =
            if kind == RecordKind::Registry { Sealer::Symmetric(registry_key.as_bytes()) } else { sealer };
        let of_none = matches!(kind, RecordKind::Registry | RecordKind::Evidence);
        let header = EnvelopeHeader {
            kind,
            repository: root.repository_id(),
            domain: if of_none { zero } else { domain },
            author: me,
            sequence,
            epoch: u32::from(to_a_key),
        };
        let bytes = envelope::seal(&header, &sealer, signer, plain).unwrap();
        let name = name(&ObjectId::new(*blake3::hash(&bytes).as_bytes()));
        (name, Bytes::from(bytes))
    };
    let owner = lab::open(&scene.store, root).unwrap();
    let known = owner.snapshots().unwrap().0;
    let before = known.iter().find(|known| known.name.identity == me);
    let snapshot = Snapshot { previous: before.map(|known| known.name.id), ..known[0].record.clone() };
    let at = 1 + before.map_or(0, |known| known.name.sequence);
    let (time, reason, number) = (TIME, String::new(), owner.registry().number);
    let attestation = Attestation { time, sections: Vec::new() }.encode();
    let forgotten = Forgotten::new(time, vec![ObjectId::new([8; 32])], reason.clone()).encode();
    let says = Says::Hold(reason.clone());
    let annotation = Annotation { time, snapshots: vec![ObjectId::new([8; 32])], says }.encode();
    let tombstones = Tombstones { time, packs: vec![PackId::new([8; 32])] }.encode();
    let quarantine = Quarantine { time, objects: vec!["another".to_owned()], reason }.encode();
    let report = report(root, signer);
    let evidence = Evidence {
        time,
        previous: None,
        payload: report.payload().to_owned(),
        signature: *report.signature(),
    }
    .encode();
    let empty = encode_index(&[]);
    let mut next = owner.registry().as_ref().clone();
    next.number += 1;
    let record = |folder| move |id: &ObjectId| Name::record(&domain, folder, id);
    vec![
        ("index", put(RecordKind::Index, 0, &empty, &|id| Name::index(&domain, &me, id))),
        (
            "snapshot",
            put(RecordKind::Snapshot, at, &snapshot.encode(), &|id| Name::snapshot(&domain, &me, at, id)),
        ),
        ("attestation", put(RecordKind::Attestation, 0, &attestation, &record(Folder::Attestations))),
        ("annotation", put(RecordKind::Annotation, 0, &annotation, &record(Folder::Annotations))),
        ("forgotten", put(RecordKind::Forgotten, 0, &forgotten, &record(Folder::Forgotten))),
        ("tombstones", put(RecordKind::Tombstones, 0, &tombstones, &record(Folder::Tombstones))),
        ("quarantine", put(RecordKind::Quarantine, 0, &quarantine, &record(Folder::Quarantine))),
        ("evidence", put(RecordKind::Evidence, 1, &evidence, &|id| Name::evidence(&me, 1, id))),
        (
            "registry",
            put(RecordKind::Registry, number + 1, &next.encode(), &|id| Name::registry(number + 1, id)),
        ),
    ]
}

/// What somebody who reads says against objects, by their names.
fn refused(repository: &Repository, domain: &DomainId) -> String {
    let mut said = Vec::new();
    match repository.view(domain) {
        Ok(view) => said.extend(view.damaged),
        Err(error) => said.push(error),
    }
    said.extend(repository.records(domain).unwrap().ignored);
    said.extend(repository.snapshots().unwrap().1);
    said.extend(repository.for_each_evidence(&mut |_| Ok(())).unwrap());
    said.iter().map(|error| format!("{error}: {:?}\n", std::error::Error::source(error))).collect()
}

#[test]
fn a_signature_counts_on_what_the_role_may_write_and_on_nothing_else() {
    let table: [(&str, &[&str]); 6] = [
        // A backup key is certified for its own domain, and evidence belongs to none.
        ("backup", &["index", "snapshot"]),
        ("audit", &["evidence"]),
        ("maintain", &["index", "annotation", "forgotten", "tombstones", "quarantine", "evidence"]),
        ("restore", &["attestation", "annotation", "evidence"]),
        (
            "owner again",
            &[
                "index",
                "snapshot",
                "attestation",
                "annotation",
                "forgotten",
                "tombstones",
                "quarantine",
                "evidence",
            ],
        ),
        ("a stranger", &[]),
    ];
    let stranger = SigningKey::from_seed(&[3; 32]);
    for (label, expected) in table {
        let scene = Scene::new();
        let signer =
            if label == "a stranger" { stranger.clone() } else { scene.open(label).signer().clone() };
        let (number, office) =
            (lab::open(&scene.store, &scene.root).unwrap().registry().number, scene.office());
        for (what, (name, bytes)) in forged(&scene, &signer) {
            scene.store.create(&name, bytes).unwrap();
            if what == "registry" {
                // Only the root signs one. That of somebody else is passed over, and nothing of it counts.
                assert_eq!(
                    lab::open(&scene.store, &scene.root).unwrap().registry().number,
                    number,
                    "{label}"
                );
                scene.store.delete(&name).unwrap();
                continue;
            }
            let said = refused(&lab::open(&scene.store, &scene.root).unwrap(), &office);
            assert_eq!(!said.contains(name.as_str()), expected.contains(&what), "{label}: {what}: {said}");
            scene.store.delete(&name).unwrap();
        }
    }
}

/// Garbage under the ids of another's chunks: in the domain that they share, well made in every other way.
#[test]
fn what_another_client_says_of_its_chunks_is_borrowed_by_nobody_and_restores_are_exact() {
    let scene = Scene::new();
    let (office, villain) = (scene.office(), scene.open("backup"));
    let ids = villain.chunk_keys(&office).unwrap().id;
    let text = b"what the victim will back up";
    let garbage = Forged::raw(ids.id(text), b"garbage garbage garbage gabr");
    let listed = forger::pack(&villain, PackKind::Data, &[garbage], |_| {});
    villain.publish_index(&scene.office(), std::slice::from_ref(&listed)).unwrap();
    // It says of its own garbage that it was verified, too: nobody listens.
    let sections = listed.directory.sections.iter().zip(digests(&listed.directory));
    let sections = sections.map(|(section, digest)| AttestedSection { id: section.id(), digest }).collect();
    let attestation = Attestation { time: TIME, sections }.encode();
    let header = EnvelopeHeader {
        kind: RecordKind::Attestation,
        repository: scene.root.repository_id(),
        domain: office,
        author: villain.identity(),
        sequence: 0,
        epoch: 0,
    };
    let key = villain.index_key(&office).unwrap();
    let bytes =
        envelope::seal(&header, &Sealer::Symmetric(key.as_bytes()), villain.signer(), &attestation).unwrap();
    let id = ObjectId::new(*blake3::hash(&bytes).as_bytes());
    scene.store.create(&Name::record(&office, Folder::Attestations, &id), bytes.into()).unwrap();

    let victim = scene.open("victim");
    let files = Files::from([("srv/file".to_owned(), text.to_vec())]);
    let done = lab::back_up(&victim, &files).unwrap();
    assert!(done.record.statistics.bytes_new >= 28, "it stored its own copy: {:?}", done.record.statistics);
    let technician = scene.open("restore");
    let known = technician.snapshots().unwrap().0;
    let known = known.iter().find(|known| known.name.identity == victim.identity()).unwrap();
    let (restored, outcome) = lab::restore(&technician, known).unwrap();
    assert_eq!((outcome.failures, restored), (0, files));
    // And a check with the keys finds the garbage.
    let problems = lab::check_all(&technician).unwrap().problems;
    let name = listed.id.to_string();
    assert!(problems.iter().any(|problem| format!("{problem:?}").contains(&name)), "{problems:?}");
}
