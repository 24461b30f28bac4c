//! Intact objects in a place that is not theirs: of another repository, another domain, another kind, another
//! position. Each is refused by its name, whatever kind it is, and nothing counts that did not count before.
//! (What is spliced inside of a pack, frames and sections, is in `tests/vectors/defects`.)
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use lifeboat::{
    clock::{SystemClock, Timestamp},
    crypto::RootSecret,
    format::{
        annotation::{Annotation, Says},
        attestation::Attestation,
        evidence::Head,
        forgotten::Forgotten,
        pack::PackKind,
        quarantine::Quarantine,
        report::SignedReport,
        role::Role,
        tombstones::Tombstones,
    },
    id::{DomainId, IdentityId, ObjectId, PackId},
    ops::key::{self, AddOptions, By},
    repository::{InitOptions, Repository, unlock::Credential},
    store::{Folder, Name, Parsed, Prefix, Store},
};
use object_store::memory::InMemory;

mod support {
    pub(crate) mod lab;
}
use support::lab::{self, Files, check_all, noise};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Config,
    Slot,
    Registry,
    DataPack,
    MetadataPack,
    Index,
    Snapshot,
    Run,
    Attestation,
    Annotation,
    Forgotten,
    Tombstones,
    Quarantine,
    Evidence,
}
use Kind::{
    Annotation as Said, Attestation as Attested, Config, DataPack, Evidence, Forgotten as Ended, Index,
    MetadataPack, Quarantine as SetAside, Registry, Run, Slot, Snapshot, Tombstones as Dying,
};

const KINDS: [Kind; 14] = [
    Config,
    Slot,
    Registry,
    DataPack,
    MetadataPack,
    Index,
    Snapshot,
    Run,
    Attested,
    Said,
    Ended,
    Dying,
    SetAside,
    Evidence,
];

fn kind_of(name: &Name) -> Kind {
    match name.parsed() {
        Parsed::Config => Config,
        Parsed::Slot(_) => Slot,
        Parsed::Registry { .. } => Registry,
        Parsed::Pack { kind: PackKind::Data, .. } => DataPack,
        Parsed::Pack { kind: PackKind::Metadata, .. } => MetadataPack,
        Parsed::Index { .. } => Index,
        Parsed::Snapshot { .. } => Snapshot,
        Parsed::Run { .. } => Run,
        Parsed::Record { folder: Folder::Attestations, .. } => Attested,
        Parsed::Record { folder: Folder::Annotations, .. } => Said,
        Parsed::Record { folder: Folder::Forgotten, .. } => Ended,
        Parsed::Record { folder: Folder::Tombstones, .. } => Dying,
        Parsed::Record { folder: Folder::Quarantine, .. } => SetAside,
        Parsed::Evidence { .. } => Evidence,
    }
}

/// The domain and the identity in a name, where it has them.
fn place_of(name: &Name) -> (Option<DomainId>, Option<IdentityId>) {
    match name.parsed() {
        Parsed::Index { domain, writer, .. } => (Some(domain), Some(writer)),
        Parsed::Snapshot { domain, identity, .. } | Parsed::Run { domain, identity, .. } => {
            (Some(domain), Some(identity))
        }
        Parsed::Evidence { identity, .. } => (None, Some(identity)),
        Parsed::Pack { domain, .. } | Parsed::Record { domain, .. } => (Some(domain), None),
        _ => (None, None),
    }
}

/// The name that these bytes have in the place of that object, with a number that is so much higher.
fn name_for(name: &Name, bytes: &[u8], higher: u64) -> Name {
    let id = ObjectId::new(*blake3::hash(bytes).as_bytes());
    match name.parsed() {
        Parsed::Registry { number, .. } => Name::registry(number + higher, &id),
        Parsed::Index { domain, writer, .. } => Name::index(&domain, &writer, &id),
        Parsed::Snapshot { domain, identity, sequence, .. } => {
            Name::snapshot(&domain, &identity, sequence + higher, &id)
        }
        Parsed::Run { domain, identity, .. } => Name::run(&domain, &identity, &id),
        Parsed::Record { domain, folder, .. } => Name::record(&domain, folder, &id),
        Parsed::Evidence { identity, sequence, .. } => Name::evidence(&identity, sequence + higher, &id),
        Parsed::Pack { domain, kind, .. } => Name::pack(&domain, kind, &PackId::new(*id.as_bytes())),
        Parsed::Config | Parsed::Slot(_) => name.clone(),
    }
}

/// A repository with two domains and two objects of each kind that there can be two of.
struct Scene {
    objects: InMemory,
    root: RootSecret,
}

fn store_of(objects: InMemory) -> Store {
    let options = lab::options(Arc::new(SystemClock), Arc::default(), 0);
    Store::from_object_store(Arc::new(objects), "", options).unwrap()
}

impl Scene {
    fn new(seed: u8) -> Self {
        let scene = Self { objects: InMemory::new(), root: RootSecret::from_bytes([seed; 32]) };
        let store = store_of(scene.objects.clone());
        let init = InitOptions::default();
        Repository::create(&store, &scene.root, "right", init, &SystemClock).unwrap();
        let owner = lab::open(&store, &scene.root).unwrap();
        let add = |label: &str, domain: &str| {
            let (label, domain) = (label.to_owned(), Some(domain.to_owned()));
            let unlock = By::AccessKey;
            key::add(&owner, &AddOptions { role: Role::Backup, label, domain, shared: false, unlock })
                .unwrap()
        };
        let machine = add("machine", "office");
        // Attestations are read where somebody could count on what another wrote.
        for domain in ["office", "main"] {
            add(&format!("another in {domain}"), domain);
        }
        let access = Credential::AccessKey(machine.access_key.unwrap().text());
        let machine = lab::open_with(&store, &access, None).unwrap();
        for round in 1..=2 {
            let files = Files::from([("srv/file".to_owned(), noise(u64::from(seed) + round, 150_000))]);
            for repository in [&owner, &machine] {
                lab::back_up(repository, &files).unwrap();
                write_records(&owner, &repository.own_domain().unwrap(), round);
            }
            let place = owner.next_evidence(&owner.store).unwrap();
            let head = Head {
                kind: "check".to_owned(),
                repository_id: scene.root.repository_id().to_string(),
                identity: owner.identity().to_string(),
                sequence: Some(place.sequence),
                previous: place.previous.map(|id| id.to_string()),
                ..Head::default()
            };
            let report = SignedReport::sign(serde_json::to_string(&head).unwrap(), owner.signer()).unwrap();
            owner.publish_evidence(&owner.store, place, &report).unwrap();
        }
        assert_eq!(said(&store, &scene.root), "");
        for known in &owner.snapshots().unwrap().0 {
            assert_eq!(lab::restore(&owner, known).unwrap().1.failures, 0);
        }
        scene
    }

    fn names(&self, kind: Kind) -> Vec<Name> {
        let listed = store_of(self.objects.clone()).list(&Prefix::all()).unwrap();
        let names = listed.iter().map(|listed| Name::parse(&listed.name).unwrap());
        names.filter(|name| kind_of(name) == kind).collect()
    }

    fn read(&self, name: &Name) -> Bytes {
        store_of(self.objects.clone()).read(name, 16 << 20).unwrap()
    }
}

fn write_records(owner: &Repository, domain: &DomainId, round: u64) {
    let byte = u8::try_from(round).unwrap();
    let (time, reason) = (Timestamp::from_seconds(1_700_000_000), String::new());
    let snapshots = vec![ObjectId::new([byte; 32])];
    let says = Says::Hold(format!("case {round}"));
    owner.publish_annotation(domain, &Annotation { time, snapshots: snapshots.clone(), says }).unwrap();
    owner.publish_forgotten(domain, &Forgotten::new(time, snapshots, reason.clone())).unwrap();
    let objects = vec![format!("nothing {round}")];
    owner.publish_quarantine(domain, &Quarantine { time, objects, reason }).unwrap();
    let packs = vec![PackId::new([byte; 32])];
    owner.publish_tombstones(domain, &Tombstones { time, packs }).unwrap();
    owner.publish_attestation(domain, &Attestation { time, sections: Vec::new() }).unwrap();
}

/// What is said against objects by whoever opens the repository and checks all of it.
fn said(store: &Store, root: &RootSecret) -> String {
    let repository = match lab::open(store, root) {
        Ok(repository) => repository,
        Err(error) => return format!("{error}"),
    };
    let checked = check_all(&repository).unwrap();
    let mut said: Vec<String> = checked.problems.iter().map(|problem| format!("{problem:?}\n")).collect();
    let wrong = repository.for_each_evidence(&mut |_| Ok(())).unwrap();
    for domain in repository.registry().domains.iter().map(|domain| domain.id) {
        // A check looks at the bytes of a run; whoever reads one looks at all of it.
        let runs = repository.runs(&domain).unwrap();
        let wrong = runs.iter().filter_map(|run| repository.read_run(run).err());
        said.extend(wrong.map(|error| format!("{error}\n")));
    }
    said.extend(wrong.iter().map(|error| format!("{error}\n")));
    said.concat()
}

/// Puts something that the root did not sign beside the newest registry: it stops everybody by its name, or it is
/// passed over.
fn splice_registry(scene: &Scene, bytes: Bytes, what: &str) {
    let store = store_of(scene.objects.fork());
    let number = lab::open(&store, &scene.root).unwrap().registry().number;
    let name = name_for(scene.names(Registry).last().unwrap(), &bytes, 1);
    store.create(&name, bytes).unwrap();
    match lab::open(&store, &scene.root) {
        Ok(repository) => assert_eq!(repository.registry().number, number, "{what}"),
        Err(error) => assert!(error.to_string().contains(name.as_str()), "{what}: {error}"),
    }
}

/// Puts an object where it does not belong; in the place of the one that is there, or beside it.
fn splice(scene: &Scene, name: &Name, bytes: Bytes, what: &str) {
    let objects = scene.objects.fork();
    let store = store_of(objects);
    let snapshots = |store: &Store| -> Option<BTreeSet<ObjectId>> {
        let repository = lab::open(store, &scene.root).ok()?;
        Some(repository.snapshots().ok()?.0.iter().map(|known| known.name.id).collect())
    };
    let before = snapshots(&store).unwrap();
    if store.head(name).unwrap().is_some() {
        store.delete(name).unwrap();
    }
    store.create(name, bytes).unwrap();
    let said = said(&store, &scene.root);
    assert!(said.contains(name.as_str()) || name.as_str() == "config" && !said.is_empty(), "{what}: {said}");
    assert!(snapshots(&store).is_none_or(|now| now.is_subset(&before)), "{what}: a snapshot appeared");
}

#[test]
fn what_belongs_to_another_repository_is_refused() {
    let (scene, other) = (Scene::new(1), Scene::new(100));
    for kind in KINDS {
        let name = &scene.names(kind)[0];
        let bytes = other.read(&other.names(kind)[0]);
        match kind {
            // Under a name of its own it is something else that nobody lists: in the place of ours.
            DataPack | MetadataPack | Config | Slot => splice(&scene, name, bytes, &format!("{kind:?}")),
            Registry => splice_registry(&scene, bytes, "Registry"),
            _ => splice(&scene, &name_for(name, &bytes, 0), bytes, &format!("{kind:?}")),
        }
    }
}

#[test]
fn what_belongs_to_another_domain_is_refused() {
    let scene = Scene::new(1);
    for kind in KINDS {
        let names = scene.names(kind);
        let Some(domain) = place_of(&names[0]).0 else { continue };
        let elsewhere = names.iter().find(|name| place_of(name).0 != Some(domain)).unwrap();
        let bytes = scene.read(elsewhere);
        if matches!(kind, DataPack | MetadataPack) {
            splice(&scene, &names[0], bytes, &format!("{kind:?}"));
            continue;
        }
        // Below the name that the other domain would give it, the author's own where a name has one.
        for own in [false, true] {
            let id = ObjectId::new(*blake3::hash(&bytes).as_bytes());
            let name = match (own, elsewhere.parsed()) {
                (true, Parsed::Index { writer, .. }) => Name::index(&domain, &writer, &id),
                (true, Parsed::Run { identity, .. }) => Name::run(&domain, &identity, &id),
                (true, Parsed::Snapshot { identity, sequence, .. }) => {
                    Name::snapshot(&domain, &identity, sequence, &id)
                }
                _ => name_for(&names[0], &bytes, 0),
            };
            splice(&scene, &name, bytes.clone(), &format!("{kind:?}, {own}"));
        }
    }
}

#[test]
fn what_is_of_another_kind_is_refused() {
    let scene = Scene::new(1);
    let mut cells = 0;
    for kind in KINDS {
        for other in KINDS.into_iter().filter(|other| *other != kind) {
            let name = &scene.names(kind)[0];
            let bytes = scene.read(&scene.names(other)[0]);
            cells += 1;
            if kind == Registry {
                splice_registry(&scene, bytes, &format!("{other:?} as Registry"));
                continue;
            }
            let name = match kind {
                // Nobody lists what has another hash.
                DataPack | MetadataPack => name.clone(),
                _ => name_for(name, &bytes, 0),
            };
            splice(&scene, &name, bytes, &format!("{other:?} as {kind:?}"));
        }
    }
    assert_eq!(cells, 14 * 13);
}

#[test]
fn what_is_in_the_place_of_another_of_its_kind_is_refused() {
    let scene = Scene::new(1);
    for kind in KINDS.into_iter().filter(|kind| *kind != Config) {
        let names = scene.names(kind);
        let (domain, _) = place_of(&names[0]);
        let second = names[1..].iter().find(|name| place_of(name).0 == domain).unwrap();
        splice(&scene, &names[0], scene.read(second), &format!("{kind:?} under the hash of another"));
        if matches!(kind, Registry | Snapshot | Evidence) {
            let bytes = scene.read(&names[0]);
            let name = name_for(&names[0], &bytes, 30);
            splice(&scene, &name, bytes, &format!("{kind:?} with another number"));
        }
        if let (Some(domain), Some(identity)) = place_of(&names[0]) {
            let bytes = scene.read(&names[0]);
            let stranger = IdentityId::new([7; IdentityId::LEN]);
            let id = ObjectId::new(*blake3::hash(&bytes).as_bytes());
            let name = match kind {
                Index => Name::index(&domain, &stranger, &id),
                Run => Name::run(&domain, &stranger, &id),
                _ => Name::snapshot(&domain, &stranger, 1, &id),
            };
            if kind == Index {
                // A copy below another name hides nothing, and alone it counts for nothing.
                let store = store_of(scene.objects.fork());
                store.create(&name, bytes).unwrap();
                store.delete(&names[0]).unwrap();
                assert!(said(&store, &scene.root).contains(name.as_str()));
                continue;
            }
            assert_ne!(identity, stranger);
            splice(&scene, &name, bytes, &format!("{kind:?} of somebody else"));
        }
    }
}
