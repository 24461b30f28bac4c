//! Objects that are intact and under the name of their hash, and lie: what holds then is the signature, the
//! place that it covers, and the id that every chunk and node is hashed against.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use lifeboat::{
    clock::SystemClock,
    compress::Codec,
    crypto::RootSecret,
    error::ErrorKind,
    format::pack::{IndexedPack, PackKind},
    id::{IdentityId, ObjectId},
    ops::check::Problem,
    repository::{InitOptions, Repository, section::check_ciphertext, unlock::Credential},
    store::{Name, Parsed, Prefix, Store},
};
use object_store::memory::InMemory;

mod support {
    pub(crate) mod forger;
    pub(crate) mod lab;
}
use support::{
    forger::{self, Forged},
    lab::{self, Files, check_all, noise, open, open_with},
};

struct Scene {
    objects: InMemory,
    root: RootSecret,
    files: Files,
}

fn store_of(objects: InMemory) -> Store {
    let options = lab::options(Arc::new(SystemClock), Arc::default(), 0);
    Store::from_object_store(Arc::new(objects), "", options).unwrap()
}

impl Scene {
    /// A repository with one snapshot.
    fn new() -> Self {
        let objects = InMemory::new();
        let store = store_of(objects.clone());
        let root = RootSecret::generate().unwrap();
        let init = InitOptions::default();
        Repository::create(&store, &root, "right", init, &SystemClock).unwrap();
        let mut files = Files::from([("srv/large".to_owned(), noise(1, 200_000))]);
        files.insert("srv/small".to_owned(), b"small".to_vec());
        let repository = open(&store, &root).unwrap();
        let done = lab::back_up(&repository, &files).unwrap();
        assert_eq!(check_all(&repository).unwrap().problems, []);
        if done.record.levels > 0 {
            // Where a manifest is cut depends on a random key: rarely even this one is.
            return Self::new();
        }
        Self { objects, root, files }
    }

    fn open(&self) -> Repository {
        open(&store_of(self.objects.clone()), &self.root).unwrap()
    }
}

fn names(store: &Store) -> Vec<Name> {
    store.list(&Prefix::all()).unwrap().iter().map(|listed| Name::parse(&listed.name).unwrap()).collect()
}

/// Puts a forged pack in the place of the one of that kind, and gives the number of its blobs.
fn replace(repository: &Repository, kind: PackKind, change: impl Fn(&mut Vec<u8>)) -> usize {
    let domain = repository.own_domain().unwrap();
    let view = repository.view(&domain).unwrap();
    let pack = view.index.packs().find(|pack| pack.kind == kind).unwrap();
    let directory = view.index.directory(&pack).unwrap();
    let [frame] = &directory.frames[..] else { unreachable!("a small backup has one frame of a kind") };
    let name = repository.pack_name(&domain, &pack);
    let range = u64::from(frame.offset)..u64::from(frame.offset) + u64::from(frame.length);
    let sealed = repository.store.read_range(&name, range).unwrap();
    let mut decompressor = lifeboat::compress::Decompressor::new().unwrap();
    let section = &directory.sections[0];
    let mut plain = repository.open_frame(&domain, (frame, section), &sealed, &mut decompressor).unwrap();
    // Whoever cannot read the frame can still see whether it is whole.
    check_ciphertext(frame, &sealed).unwrap();
    let mut flipped = sealed.to_vec();
    flipped[0] ^= 1;
    assert_eq!(check_ciphertext(frame, &flipped).unwrap_err().kind(), ErrorKind::Damaged);
    change(&mut plain);
    repository.store.delete(&name).unwrap();
    let forged = Forged { stored: plain, codec: Codec::Raw, blobs: frame.blobs.clone() };
    let listed = forger::pack(repository, kind, &[forged], |_| {});
    repository.publish_index(&domain, &[listed]).unwrap();
    frame.blobs.len()
}

#[test]
fn garbage_under_the_id_of_a_chunk_is_never_restored() {
    for forged in [false, true] {
        let scene = Scene::new();
        let blobs = replace(&scene.open(), PackKind::Data, |plain| plain[100] ^= u8::from(forged));
        assert!(blobs >= 2);
        let repository = scene.open();
        let (known, _) = repository.snapshots().unwrap();
        let (files, outcome) = lab::restore(&repository, &known[0]).unwrap();
        let problems = check_all(&repository).unwrap().problems;
        if forged {
            assert!(outcome.failures > 0);
            assert!(
                files.iter().all(|(path, bytes)| path.contains(".damaged") || scene.files[path] == *bytes)
            );
            assert!(
                problems.iter().any(|problem| problem.what.contains("not what its ids name")),
                "{problems:?}"
            );
        } else {
            // The forger knows its trade: without the lie all is well.
            assert_eq!((outcome.failures, problems), (0, Vec::new()));
            assert!(files == scene.files);
        }
    }
}

#[test]
fn an_index_that_says_something_else_than_the_pack_is_found_by_check() {
    let scene = Scene::new();
    let repository = scene.open();
    let domain = repository.own_domain().unwrap();
    let view = repository.view(&domain).unwrap();
    let pack = view.index.packs().find(|pack| pack.kind == PackKind::Data).unwrap();
    let mut directory = view.index.directory(&pack).unwrap();
    // One blob less: every frame and every other blob is as it was.
    directory.frames[0].blobs.pop();
    for name in names(&repository.store) {
        if matches!(name.parsed(), Parsed::Index { .. }) {
            repository.store.delete(&name).unwrap();
        }
    }
    let size = pack.size;
    let listed = [IndexedPack { id: pack.id, size, kind: PackKind::Data, directory }];
    for more in [1, 39] {
        (0..more).for_each(|_| drop(repository.publish_index(&domain, &listed).unwrap()));
        let mut problems = check_all(&scene.open()).unwrap().problems;
        assert!(
            !problems.iter().any(|problem| problem.object.contains(&pack.id.to_string())),
            "{problems:?}"
        );
        problems.retain(|problem| problem.object.contains("/index/"));
        let is_told = |problem: &Problem| problem.what.contains("is not what the pack says of itself");
        assert!(problems.iter().all(is_told), "{problems:?}");
        // What is to be done about all of them is a few commands, and not one for each.
        let remedies: BTreeSet<&str> = problems.iter().filter_map(|one| one.remedy.as_deref()).collect();
        assert_eq!((problems.len(), remedies.len()), if more == 1 { (1, 1) } else { (40, 2) });
        let names = |remedy: &&str| remedy.split(' ').filter(|word| word.contains("/index/")).count();
        assert_eq!(remedies.iter().map(names).sum::<usize>(), problems.len());
        assert!(
            problems.iter().all(|one| one.remedy.as_ref().unwrap().contains(&one.object)),
            "{problems:?}"
        );
    }
}

#[test]
fn a_manifest_node_that_its_id_does_not_name_is_damage() {
    let scene = Scene::new();
    // The name of a file, in a node that is otherwise well-formed.
    replace(&scene.open(), PackKind::Metadata, |plain| {
        let at = plain.windows(5).position(|window| window == b"small").unwrap();
        // The order of the names stays.
        plain[at] = b't';
    });
    let repository = scene.open();
    let (known, _) = repository.snapshots().unwrap();
    let (files, outcome) = lab::restore(&repository, &known[0]).unwrap();
    assert!(files.is_empty() && outcome.failures == 1, "{files:?}");
    assert_ne!(check_all(&repository).unwrap().problems_found, 0);
}

/// The name that these bytes would have in the place of that object.
fn renamed(name: &Name, bytes: &[u8]) -> Name {
    let id = ObjectId::new(*blake3::hash(bytes).as_bytes());
    match name.parsed() {
        Parsed::Registry { number, .. } => Name::registry(number, &id),
        Parsed::Index { domain, writer, .. } => Name::index(&domain, &writer, &id),
        Parsed::Snapshot { domain, identity, sequence, .. } => {
            Name::snapshot(&domain, &identity, sequence, &id)
        }
        Parsed::Record { domain, folder, .. } => Name::record(&domain, folder, &id),
        other => unreachable!("{other:?} is not signed"),
    }
}

#[test]
fn a_signature_with_one_wrong_bit_counts_for_nothing() {
    let scene = Scene::new();
    let signed = |name: &Name| {
        matches!(name.parsed(), Parsed::Registry { .. } | Parsed::Index { .. } | Parsed::Snapshot { .. })
    };
    let all = names(&store_of(scene.objects.clone()));
    assert_eq!(all.iter().filter(|name| signed(name)).count(), 3);
    for name in all.iter().filter(|name| signed(name)) {
        let store = store_of(scene.objects.fork());
        let mut bytes = store.read(name, 1 << 20).unwrap().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        store.delete(name).unwrap();
        store.create(&renamed(name, &bytes), Bytes::from(bytes)).unwrap();
        match open(&store, &scene.root) {
            Err(error) => {
                assert!(matches!(name.parsed(), Parsed::Registry { .. }), "{name}");
                assert_eq!(error.kind(), ErrorKind::Damaged);
            }
            Ok(repository) => {
                let problems = check_all(&repository).unwrap().problems;
                assert!(
                    problems.iter().any(|problem| problem.what.contains("signature")),
                    "{name}: {problems:?}"
                );
            }
        }
    }
}

#[test]
fn a_snapshot_counts_in_its_own_place_only() {
    let scene = Scene::new();
    let all = names(&store_of(scene.objects.clone()));
    let name = all.iter().find(|name| matches!(name.parsed(), Parsed::Snapshot { .. })).unwrap();
    let Parsed::Snapshot { domain, identity, sequence, id } = name.parsed() else { unreachable!() };
    let elsewhere = [
        Name::snapshot(&domain, &identity, sequence + 1, &id),
        Name::snapshot(&domain, &IdentityId::new([7; IdentityId::LEN]), sequence, &id),
    ];
    for place in elsewhere {
        let store = store_of(scene.objects.fork());
        store.create(&place, store.read(name, 1 << 20).unwrap()).unwrap();
        let repository = open(&store, &scene.root).unwrap();
        let (known, damaged) = repository.snapshots().unwrap();
        assert_eq!((known.len(), damaged.len()), (1, 1), "{damaged:?}");
        assert!(damaged[0].to_string().contains(place.as_str()), "{damaged:?}");
    }
}

#[test]
fn what_is_under_the_hash_of_something_else_does_not_count() {
    let scene = Scene::new();
    let id = ObjectId::new([9; 32]);
    for name in names(&store_of(scene.objects.clone())) {
        let elsewhere = match name.parsed() {
            Parsed::Registry { number, .. } => Name::registry(number, &id),
            Parsed::Index { domain, writer, .. } => Name::index(&domain, &writer, &id),
            Parsed::Snapshot { domain, identity, sequence, .. } => {
                Name::snapshot(&domain, &identity, sequence + 1, &id)
            }
            _ => continue,
        };
        let store = store_of(scene.objects.fork());
        store.create(&elsewhere, store.read(&name, 1 << 20).unwrap()).unwrap();
        let damaged = match open(&store, &scene.root) {
            Err(error) => vec![error],
            Ok(repository) => {
                let view = repository.view(&repository.own_domain().unwrap()).unwrap();
                view.damaged.into_iter().chain(repository.snapshots().unwrap().1).collect()
            }
        };
        assert_eq!(damaged.len(), 1, "{elsewhere}");
        let text = damaged[0].to_string();
        assert!(text.contains(elsewhere.as_str()) && text.contains("its name stands for"), "{text}");
    }
}

#[test]
fn an_intact_registry_of_somebody_else_is_in_nobodys_way() {
    let (scene, other) = (Scene::new(), Scene::new());
    let (store, theirs) = (store_of(scene.objects.clone()), store_of(other.objects));
    let foreign = |name: &&Name| matches!(name.parsed(), Parsed::Registry { .. } | Parsed::Slot(_));
    for name in names(&theirs).iter().filter(foreign) {
        store.create(name, theirs.read(name, 1 << 20).unwrap()).unwrap();
    }
    // Both have the same passphrase.
    let passphrase = Credential::Passphrase("right".to_owned().into(), None);
    let repository = open_with(&store, &passphrase, None).unwrap();
    assert_eq!(repository.snapshots().unwrap().0.len(), 1);
    let next = repository.change_registry(&|_| {}).unwrap();
    assert_eq!(next.number, 2);
    assert_eq!(*scene.open().registry(), next);
}
