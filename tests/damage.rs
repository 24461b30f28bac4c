//! Every kind of object, damaged in every way: `check` says so and names it, every other snapshot and file is
//! restored, and no file ever has a wrong byte under its own name. The table below is the promise.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use lifeboat::{
    clock::{SystemClock, Timestamp},
    crypto::RootSecret,
    error::{Error, ErrorKind},
    format::{
        self,
        forgotten::Forgotten,
        pack::{Frame, PackKind},
        quarantine::Quarantine,
        report::SignedReport,
        role::Role,
    },
    id::{DomainId, ObjectId, PackId},
    ops::{
        check::{self, Checked, Subset},
        key::{self, AddOptions, By, Lost, RecoverOptions},
    },
    repository::{InitOptions, Repository, unlock::Credential},
    store::{Folder, Name, Parsed, Prefix, Store},
};
use object_store::memory::InMemory;

mod support {
    pub(crate) mod fields;
    pub(crate) mod lab;
}
use support::fields::fields;
use support::lab::{self, Files, check_all, noise, open, open_with};

use Kind::{
    Annotation, Attestation, Config, DataPack, Evidence, ForgottenRecord, Head, Index, MetadataPack,
    OldRegistry, QuarantineRecord, Registry, Run, Slot, Snapshot, Tombstones,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Config,
    Slot,
    OldRegistry,
    Registry,
    DataPack,
    MetadataPack,
    Index,
    Snapshot,
    Head,
    Run,
    Attestation,
    Annotation,
    ForgottenRecord,
    QuarantineRecord,
    Tombstones,
    Evidence,
}

/// How damage becomes known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// `check` names the object.
    Named,
    /// The repository does not open, or `check` names the object; then `key recover --rebuild-config` mends it.
    Stops,
    /// `check` says this.
    Missed(&'static str),
    /// Nobody can know, for this reason.
    Unnoticed(&'static str),
}
use Told::{Missed, Named, Stops, Unnoticed};

/// What cannot be restored any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loses {
    Nothing,
    /// Files of the second snapshot, each named; all of them if it holds the manifest.
    FilesOfTheSecond,
    /// The second snapshot.
    TheSecond,
    /// The third snapshot, the head of its chain.
    TheThird,
}

/// What becomes of the next backup of the machine whose domain it is. The other domain's always works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Works,
    /// Refused with a remedy, because going on could hide or lose something.
    Refused,
}

struct Promise {
    kind: Kind,
    /// Any byte of it changed, cut off or added, or another object in its place.
    altered: (Told, Loses, Next),
    /// It is gone.
    deleted: (Told, Loses, Next),
}

const PROMISES: [Promise; 16] = [
    Promise {
        kind: Config,
        altered: (Stops, Loses::Nothing, Next::Works),
        deleted: (Stops, Loses::Nothing, Next::Works),
    },
    Promise {
        kind: Slot,
        altered: (Named, Loses::Nothing, Next::Works),
        deleted: (Unnoticed("a key was revoked or its passphrase changed"), Loses::Nothing, Next::Works),
    },
    Promise {
        kind: OldRegistry,
        altered: (Named, Loses::Nothing, Next::Works),
        deleted: (Unnoticed("the newest one says everything"), Loses::Nothing, Next::Works),
    },
    Promise {
        kind: Registry,
        altered: (Stops, Loses::Nothing, Next::Works),
        deleted: (Missed("seen registry 2"), Loses::Nothing, Next::Works),
    },
    Promise {
        kind: DataPack,
        altered: (Named, Loses::FilesOfTheSecond, Next::Works),
        deleted: (Named, Loses::FilesOfTheSecond, Next::Works),
    },
    Promise {
        kind: MetadataPack,
        altered: (Named, Loses::FilesOfTheSecond, Next::Works),
        deleted: (Named, Loses::FilesOfTheSecond, Next::Works),
    },
    Promise {
        kind: Index,
        altered: (Named, Loses::FilesOfTheSecond, Next::Works),
        deleted: (Missed("no index lists it"), Loses::FilesOfTheSecond, Next::Works),
    },
    Promise {
        kind: Snapshot,
        altered: (Named, Loses::TheSecond, Next::Works),
        deleted: (Missed("is gone and nobody forgot it"), Loses::TheSecond, Next::Works),
    },
    Promise {
        kind: Head,
        // Nobody can tell whose these bytes were: they may be the head that the next snapshot has to name, and a
        // number that stands in a name alone is anybody's. So somebody has to look at it first.
        altered: (Named, Loses::TheThird, Next::Refused),
        deleted: (
            Unnoticed("nothing names it; the machine that wrote it remembers it in its cache"),
            Loses::TheThird,
            Next::Works,
        ),
    },
    Promise {
        kind: Run,
        altered: (Named, Loses::Nothing, Next::Works),
        deleted: (Unnoticed("old runs are swept"), Loses::Nothing, Next::Works),
    },
    Promise {
        kind: Attestation,
        altered: (Named, Loses::Nothing, Next::Works),
        deleted: (Unnoticed("what it vouched for is verified again"), Loses::Nothing, Next::Works),
    },
    Promise {
        kind: Annotation,
        // It may be a hold: nothing ends until it can be read.
        altered: (Named, Loses::Nothing, Next::Works),
        deleted: (Unnoticed("whoever may delete it may delete the snapshots"), Loses::Nothing, Next::Works),
    },
    Promise {
        kind: ForgottenRecord,
        altered: (Named, Loses::Nothing, Next::Works),
        deleted: (Missed("is gone and nobody forgot it"), Loses::Nothing, Next::Works),
    },
    Promise {
        kind: QuarantineRecord,
        altered: (Named, Loses::Nothing, Next::Works),
        // What it had set aside is in the way again.
        deleted: (Missed("not a lifeboat record"), Loses::Nothing, Next::Works),
    },
    Promise {
        kind: Tombstones,
        // A dying pack must not be relied on, so somebody has to look at it first.
        altered: (Named, Loses::Nothing, Next::Refused),
        deleted: (Unnoticed("a batch ends when its packs are gone"), Loses::Nothing, Next::Works),
    },
    Promise {
        kind: Evidence,
        altered: (Named, Loses::Nothing, Next::Works),
        deleted: (Unnoticed("`drill history` follows its chain"), Loses::Nothing, Next::Works),
    },
];

#[derive(Clone, Debug)]
enum Change {
    /// A bit of that byte, which is in that field.
    Flip(usize, #[expect(dead_code, reason = "told when the promise is broken")] String),
    Cut(usize),
    Append,
    /// It and another object of its kind in each other's place.
    Swap,
    /// A data pack and a metadata pack in each other's place.
    SwapKinds,
    /// An older object of its kind under its name.
    Replay,
    Delete,
}

/// A repository with three snapshots of one domain (the first of four was forgotten and deleted) and one of
/// another, and what to damage in it.
struct Scene {
    objects: InMemory,
    root: RootSecret,
    /// The content of each snapshot.
    snapshots: BTreeMap<ObjectId, Files>,
    first: ObjectId,
    second: ObjectId,
    third: ObjectId,
    /// The snapshot of the other domain.
    other: ObjectId,
    machine: Credential,
    /// Of each kind one object to damage and another, older where that means something.
    victims: BTreeMap<Kind, [Name; 2]>,
    /// The frames of each victim, of packs only.
    frames: BTreeMap<Kind, Vec<Frame>>,
}

fn store_of(objects: InMemory) -> Store {
    let options = lab::options(Arc::new(SystemClock), Arc::default(), 0);
    Store::from_object_store(Arc::new(objects), "", options).unwrap()
}

fn files(generation: u64) -> Files {
    let mut files = Files::new();
    for number in 0..8 {
        let text = format!("file {number} of {}", if number % 2 == 0 { generation } else { 0 });
        files.insert(format!("srv/small/{number}"), text.repeat(9).into_bytes());
    }
    files.insert("srv/large".to_owned(), noise(generation, 300_000));
    files.insert("srv/same".to_owned(), noise(99, 100_000));
    files
}

fn names(store: &Store) -> BTreeSet<String> {
    store.list(&Prefix::all()).unwrap().into_iter().map(|listed| listed.name).collect()
}

fn read(store: &Store, name: &Name) -> Vec<u8> {
    store.read(name, 1 << 26).unwrap().to_vec()
}

fn put(store: &Store, name: &Name, bytes: Vec<u8>) {
    store.delete(name).unwrap();
    store.create(name, Bytes::from(bytes)).unwrap();
}

/// What `work` adds.
fn added<T>(store: &Store, work: impl FnOnce() -> T) -> (T, Vec<Name>) {
    let before = names(store);
    let result = work();
    let new = names(store).difference(&before).map(|name| Name::parse(name).unwrap()).collect();
    (result, new)
}

fn one_of(names: &[Name], which: impl Fn(&Parsed) -> bool) -> Name {
    names.iter().find(|name| which(&name.parsed())).unwrap().clone()
}

const TIME: Timestamp = Timestamp::from_seconds(1_700_000_000);

fn write_records(owner: &Repository, domain: &DomainId, (ended, junk): (ObjectId, String), round: u8) {
    let nothing = ObjectId::new([round; 32]);
    let snapshots = if round == 1 { vec![ended] } else { vec![nothing] };
    owner.publish_forgotten(domain, &Forgotten::new(TIME, snapshots, "")).unwrap();
    // A hold on a snapshot that is not there would be an alarm.
    let says = format::annotation::Says::Tags(format::annotation::TagChange {
        add: vec![format!("case-{round}")],
        ..format::annotation::TagChange::default()
    });
    let annotation = format::annotation::Annotation { time: TIME, snapshots: vec![nothing], says };
    owner.publish_annotation(domain, &annotation).unwrap();
    let objects = if round == 1 { vec![junk] } else { vec![Name::tombstones(domain, &nothing).to_string()] };
    owner.publish_quarantine(domain, &Quarantine { time: TIME, objects, reason: String::new() }).unwrap();
    owner
        .publish_attestation(domain, &format::attestation::Attestation { time: TIME, sections: Vec::new() })
        .unwrap();
    let packs = vec![PackId::new([round; PackId::LEN])];
    owner.publish_tombstones(domain, &format::tombstones::Tombstones { time: TIME, packs }).unwrap();
}

fn write_evidence(owner: &Repository) {
    for number in 0..2 {
        let report = SignedReport::sign(format!("{{\"number\":{number}}}"), owner.signer()).unwrap();
        owner.publish_evidence(&owner.store, owner.next_evidence(&owner.store).unwrap(), &report).unwrap();
    }
}

/// The frames of a pack; none of anything else.
fn frames_of(owner: &Repository, name: &Name) -> Vec<Frame> {
    let Parsed::Pack { domain, id, .. } = name.parsed() else { return Vec::new() };
    let view = owner.view_to_read(&domain).unwrap();
    let pack = view.index.packs().find(|pack| pack.id == id).unwrap();
    view.index.directory(&pack).unwrap().frames
}

const fn is_slot(parsed: &Parsed) -> bool {
    matches!(parsed, Parsed::Slot(_))
}

const fn is_registry(parsed: &Parsed) -> bool {
    matches!(parsed, Parsed::Registry { .. })
}

const fn is_run(parsed: &Parsed) -> bool {
    matches!(parsed, Parsed::Run { .. })
}

const fn is_index(parsed: &Parsed) -> bool {
    matches!(parsed, Parsed::Index { .. })
}

const fn is_snapshot(parsed: &Parsed) -> bool {
    matches!(parsed, Parsed::Snapshot { .. })
}

const fn is_data(parsed: &Parsed) -> bool {
    matches!(parsed, Parsed::Pack { kind: PackKind::Data, .. })
}

const fn is_metadata(parsed: &Parsed) -> bool {
    matches!(parsed, Parsed::Pack { kind: PackKind::Metadata, .. })
}

impl Scene {
    fn new() -> Self {
        let objects = InMemory::new();
        // A clone shares what it holds.
        let store = store_of(objects.clone());
        let root = RootSecret::generate().unwrap();
        let init = InitOptions::default();
        let create = || Repository::create(&store, &root, "right", init, &SystemClock).unwrap();
        let ((), first) = added(&store, create);
        let owner = open(&store, &root).unwrap();
        let (label, unlock) = ("machine".to_owned(), By::AccessKey);
        let options = AddOptions { role: Role::Backup, label, domain: None, shared: false, unlock };
        let (machine, second) = added(&store, || key::add(&owner, &options).unwrap());
        let machine = Credential::AccessKey(machine.access_key.unwrap().text());
        let (_, spare) = added(&store, || recover(&store, &root).unwrap());

        let owner = open(&store, &root).unwrap();
        let domain = owner.own_domain().unwrap();
        let (mut ids, mut written, mut snapshots) = (Vec::new(), Vec::new(), BTreeMap::new());
        for generation in 0..4 {
            let (done, new) = added(&store, || lab::back_up(&owner, &files(generation)).unwrap());
            let id = done.snapshot.unwrap().0;
            snapshots.insert(id, files(generation));
            ids.push(id);
            written.push(new);
        }
        let it = open_with(&store, &machine, None).unwrap();
        let other = lab::back_up(&it, &files(50)).unwrap().snapshot.unwrap().0;
        snapshots.insert(other, files(50));

        let junk = b"what somebody put there".to_vec();
        let id = ObjectId::new(*blake3::hash(&junk).as_bytes());
        let name = Name::index(&domain, &owner.identity(), &id);
        put(&store, &name, junk);
        let (_, round_1) = added(&store, || write_records(&owner, &domain, (ids[0], name.to_string()), 1));
        let (_, round_2) = added(&store, || write_records(&owner, &domain, (ids[0], name.to_string()), 2));
        store.delete(&one_of(&written[0], is_snapshot)).unwrap();
        snapshots.remove(&ids[0]);
        let (_, evidence) = added(&store, || write_evidence(&owner));
        assert_eq!(check_all(&owner).unwrap().problems, []);

        let record = |wanted: Folder| {
            let is =
                move |parsed: &Parsed| matches!(parsed, Parsed::Record { folder, .. } if *folder == wanted);
            [one_of(&round_1, is), one_of(&round_2, is)]
        };
        let of_backups =
            |is: fn(&Parsed) -> bool, at: usize| [one_of(&written[at], is), one_of(&written[at - 1], is)];
        let (old, new) = (one_of(&first, is_registry), one_of(&second, is_registry));
        let victims = BTreeMap::from([
            (Config, [Name::config(), one_of(&first, is_slot)]),
            (Slot, [one_of(&first, is_slot), one_of(&spare, is_slot)]),
            (OldRegistry, [old.clone(), new.clone()]),
            (Registry, [new, old]),
            (DataPack, of_backups(is_data, 2)),
            (MetadataPack, of_backups(is_metadata, 2)),
            (Index, of_backups(is_index, 2)),
            (Snapshot, [one_of(&written[2], is_snapshot), one_of(&written[1], is_snapshot)]),
            (Head, [one_of(&written[3], is_snapshot), one_of(&written[2], is_snapshot)]),
            (Run, of_backups(is_run, 2)),
            (Attestation, record(Folder::Attestations)),
            (Annotation, record(Folder::Annotations)),
            (ForgottenRecord, record(Folder::Forgotten)),
            (QuarantineRecord, record(Folder::Quarantine)),
            (Tombstones, record(Folder::Tombstones)),
            (Evidence, [evidence[1].clone(), evidence[0].clone()]),
        ]);
        let frames = victims.iter().map(|(kind, [name, _])| (*kind, frames_of(&owner, name))).collect();
        let [first, second, third] = [ids[1], ids[2], ids[3]];
        Self { objects, root, snapshots, first, second, third, other, machine, victims, frames }
    }

    fn store(&self) -> Store {
        store_of(self.objects.fork())
    }

    /// Everything that is done to an object of this kind.
    fn changes(&self, kind: Kind) -> Vec<Change> {
        let bytes = read(&self.store(), &self.victims[&kind][0]);
        let length = bytes.len();
        let mut changes = Vec::new();
        for (field, range) in fields(&bytes, &self.frames[&kind]) {
            // The first and the last, and one between of a long one; each with another bit.
            let mut places = BTreeSet::from([range.start, range.end - 1]);
            places.extend((range.len() > 64).then_some(range.start + range.len() / 3));
            changes.extend(places.into_iter().map(|at| Change::Flip(at, field.clone())));
        }
        changes.extend(matches!(kind, DataPack | MetadataPack).then_some(Change::SwapKinds));
        changes.extend([0, 1, length / 2, length - 1].map(Change::Cut));
        changes.extend([Change::Append, Change::Replay, Change::Delete]);
        // The other registry is the newest one, and has a row of its own.
        changes.extend((kind != OldRegistry).then_some(Change::Swap));
        changes
    }

    fn damage(&self, store: &Store, kind: Kind, change: &Change) {
        let [name, other] = &self.victims[&kind];
        let mut bytes = read(store, name);
        match change {
            Change::Flip(at, _) => bytes[*at] ^= 1 << (at % 8),
            Change::Cut(length) => bytes.truncate(*length),
            Change::Append => bytes.push(0x2a),
            Change::Replay => bytes = read(store, other),
            Change::Swap => {
                put(store, other, bytes);
                bytes = read(&self.store(), other);
            }
            Change::SwapKinds => {
                let [partner, _] = &self.victims[if kind == DataPack { &MetadataPack } else { &DataPack }];
                put(store, partner, bytes);
                bytes = read(&self.store(), partner);
            }
            Change::Delete => return store.delete(name).unwrap(),
        }
        put(store, name, bytes);
    }
}

/// What of the snapshots comes back: for each that is known the files that are lost. Nothing is wrong.
fn restored(scene: &Scene, repository: &Repository, what: &str) -> BTreeMap<ObjectId, BTreeSet<String>> {
    let (known, _) = repository.snapshots().unwrap();
    let restore = |snapshot: &lifeboat::repository::snapshots::KnownSnapshot| {
        let expected = &scene.snapshots[&snapshot.name.id];
        let (files, outcome) = lab::restore(repository, snapshot)
            .unwrap_or_else(|error| panic!("{what}: the restore stopped: {error}"));
        for (path, bytes) in &files {
            let damaged = path.ends_with(".damaged") || path.ends_with(".damaged.txt");
            assert!(damaged || expected.get(path) == Some(bytes), "{what}: a wrong byte in {path}");
        }
        let lost: BTreeSet<String> =
            expected.keys().filter(|path| !files.contains_key(*path)).cloned().collect();
        assert_eq!(outcome.failures == 0, lost.is_empty(), "{what}: {:?}", outcome.failed);
        assert!(outcome.failed.iter().all(|(_, error)| error.kind() == ErrorKind::Damaged), "{what}");
        (snapshot.name.id, lost)
    };
    known.iter().map(restore).collect()
}

fn is_named(checked: &Checked, name: &Name) -> bool {
    let about = |text: &str| text.contains(name.as_str());
    checked.problems.iter().any(|problem| about(&problem.object) || about(&problem.what))
}

fn has_remedy(error: &Error, what: &str) {
    let kinds = [ErrorKind::Damaged, ErrorKind::NoRepository, ErrorKind::CannotUnlock, ErrorKind::Failed];
    assert!(kinds.contains(&error.kind()) && error.remedy().is_some(), "{what}: {:?} {error}", error.kind());
}

fn recover(store: &Store, root: &RootSecret) -> Result<key::Recovered, Error> {
    let words = root.words();
    let options = RecoverOptions { words: &words, unlock: By::AccessKey, lost: Lost::Rebuild };
    key::recover(store, &options, &SystemClock)
}

/// Does what the errors about `config` and the registry say.
fn mend(scene: &Scene, store: &Store) -> Repository {
    if recover(store, &scene.root).is_err() {
        store.delete(&Name::config()).unwrap();
        recover(store, &scene.root).unwrap();
    }
    open(store, &scene.root).unwrap()
}

fn cell(scene: &Scene, kind: Kind, change: &Change, (told, loses, next): (Told, Loses, Next)) {
    let what = format!("{kind:?}, {change:?}");
    let [name, _] = &scene.victims[&kind];
    let store = scene.store();
    scene.damage(&store, kind, change);
    if !matches!(change, Change::Delete) {
        let keyless = check::without_keys::run(&store, Subset::All, 1).unwrap();
        assert!(is_named(&keyless, name), "{what}: without keys: {:?}", keyless.problems);
    }
    let opened = match (open(&store, &scene.root), told) {
        (Ok(repository), _) => Some(repository),
        (Err(error), Stops) => {
            has_remedy(&error, &what);
            None
        }
        (Err(error), _) => panic!("{what}: it does not open: {error}"),
    };
    let checked = opened.as_ref().map(|repository| check_all(repository).unwrap());
    if let Some(checked) = &checked {
        let said = |text: &str| checked.problems.iter().any(|problem| problem.what.contains(text));
        match told {
            Named | Stops => assert!(is_named(checked, name), "{what}: {:?}", checked.problems),
            Missed(text) => assert!(said(text), "{what}: {:?}", checked.problems),
            Unnoticed(why) => assert_eq!(checked.problems, [], "{what}: {why}"),
        }
    }
    let repository = match opened {
        Some(repository) if kind != Registry => repository,
        _ => mend(scene, &store),
    };
    let back = restored(scene, &repository, &what);
    // Of a swap both objects are victims.
    let hurt = |id: &ObjectId| match loses {
        Loses::Nothing => false,
        Loses::FilesOfTheSecond | Loses::TheSecond => {
            *id == scene.second || matches!(change, Change::Swap) && *id == scene.first
        }
        Loses::TheThird => *id == scene.third || matches!(change, Change::Swap) && *id == scene.second,
    };
    let files_only = loses == Loses::FilesOfTheSecond;
    for id in scene.snapshots.keys() {
        match back.get(id) {
            None => assert!(hurt(id) && !files_only, "{what}: a snapshot is lost"),
            Some(lost) if !hurt(id) => assert!(lost.is_empty(), "{what}: lost {lost:?}"),
            Some(lost) if files_only => names_losses(checked.as_ref().unwrap(), id, lost, &what),
            Some(_) => panic!("{what}: a snapshot that cannot be trusted is shown"),
        }
    }
    // Which byte it is makes no difference to the next backup.
    if !matches!(change, Change::Flip(1.., _)) {
        backs_up(scene, &store, &repository, next, &what);
    }
}

/// `check` names every file that is lost, by its path or by the one before it.
fn names_losses(checked: &Checked, id: &ObjectId, lost: &BTreeSet<String>, what: &str) {
    let hurts: Vec<&String> = checked.problems.iter().flat_map(|problem| &problem.hurts).collect();
    let label = format!("{:.8}", id.to_string());
    for path in lost {
        let exactly = format!("{label}: /{path}");
        let named = hurts
            .iter()
            .any(|hurt| **hurt == exactly || hurt.starts_with(&format!("{label}: entries after")));
        assert!(named, "{what}: {path} is lost and not named in {:?}", checked.problems);
    }
}

/// The next backup, of this domain and of the other one, restores whole.
fn backs_up(scene: &Scene, store: &Store, repository: &Repository, next: Next, what: &str) {
    let restores = |done: &lifeboat::ops::backup::Done| {
        let (known, _) = open(store, &scene.root).unwrap().snapshots().unwrap();
        let id = done.snapshot.unwrap().0;
        let snapshot = known.iter().find(|known| known.name.id == id).unwrap();
        assert_eq!(lab::restore(repository, snapshot).unwrap().0, files(9), "{what}");
    };
    match (lab::back_up(repository, &files(9)), next) {
        (Ok(done), Next::Works) => restores(&done),
        (Err(error), Next::Refused) => has_remedy(&error, what),
        (Ok(_), Next::Refused) => panic!("{what}: the next backup must be refused"),
        (Err(error), Next::Works) => panic!("{what}: the next backup: {error}"),
    }
    let machine = open_with(store, &scene.machine, None).unwrap_or_else(|error| panic!("{what}: {error}"));
    restores(&lab::back_up(&machine, &files(9)).unwrap_or_else(|error| panic!("{what}: {error}")));
    assert!(scene.snapshots.contains_key(&scene.other));
}

#[test]
fn whatever_is_damaged_is_named_and_everything_else_is_there() {
    let scene = Scene::new();
    let cells: Vec<_> = PROMISES
        .iter()
        .flat_map(|promise| scene.changes(promise.kind).into_iter().map(move |change| (promise, change)))
        .collect();
    let failed = std::sync::Mutex::new(Vec::new());
    let (scene, cells, failures) = (&scene, &cells, &failed);
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                for (promise, change) in cells.iter().skip(half).step_by(2) {
                    let promised =
                        if matches!(change, Change::Delete) { promise.deleted } else { promise.altered };
                    let work = std::panic::AssertUnwindSafe(|| cell(scene, promise.kind, change, promised));
                    let held = std::panic::catch_unwind(work);
                    if held.is_err() {
                        failures.lock().unwrap().push(format!("{:?}, {change:?}", promise.kind));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} cells: {failed:#?}", failed.len(), cells.len());
}

/// What a manifest of several leaves loses when one of its frames is damaged: what stands in that leaf.
#[test]
fn a_damaged_part_of_a_manifest_costs_what_stands_in_it_and_nothing_behind_it() {
    let objects = InMemory::new();
    let store = store_of(objects.clone());
    let root = RootSecret::generate().unwrap();
    let init = InitOptions::default();
    Repository::create(&store, &root, "right", init, &SystemClock).unwrap();
    let repository = open(&store, &root).unwrap();
    // Names so long that a leaf is full before all of them, whatever the key of the domain cuts; and no folders,
    // so that each leaf costs a file.
    let name = |n: u32| format!("{n:04}{}", "-".repeat(200));
    let all: Files = (0..1600).map(|n| (name(n), n.to_string().into_bytes())).collect();
    lab::back_up(&repository, &all).unwrap();
    let domain = repository.own_domain().unwrap();
    let view = repository.view(&domain).unwrap();
    let pack = view.index.packs().find(|pack| pack.kind == PackKind::Metadata).unwrap();
    let frames = view.index.directory(&pack).unwrap().frames;
    assert!(frames.len() > 3, "it must have several leaves");
    let name = repository.pack_name(&domain, &pack);
    let (known, _) = repository.snapshots().unwrap();
    let mut at_the_end = 0;
    // Not the root, which comes last.
    for frame in &frames[..frames.len() - 1] {
        let store = store_of(objects.fork());
        let mut bytes = read(&store, &name);
        bytes[frame.offset as usize + 3] ^= 1;
        put(&store, &name, bytes);
        let repository = open(&store, &root).unwrap();
        let (known, _) = repository.snapshots().unwrap();
        let (files, outcome) = lab::restore(&repository, &known[0]).unwrap();
        assert!(files.iter().all(|(path, bytes)| all.get(path) == Some(bytes)));
        assert!(outcome.failures == 1 && files.len() < all.len(), "{:?}", outcome.failed);
        at_the_end += usize::from(files.keys().next_back() != all.keys().next_back());
        let hurts: Vec<String> =
            check_all(&repository).unwrap().problems.into_iter().flat_map(|p| p.hurts).collect();
        assert!(hurts.iter().any(|hurt| hurt.contains("entries after")), "{hurts:?}");
    }
    // The last leaf, and each branch above it but the root.
    assert_eq!(at_the_end, usize::from(known[0].record.levels), "the rest is given up");
}

#[test]
fn what_the_cache_still_knows_does_not_hide_what_the_storage_has_lost() {
    let scene = Scene::new();
    let cache = tempfile::tempdir().unwrap();
    let words = Credential::Words(scene.root.words());
    let warm = open_with(&scene.store(), &words, Some(cache.path())).unwrap();
    assert_eq!(check_all(&warm).unwrap().problems, []);
    for kind in [Index, Snapshot, Head, Annotation, ForgottenRecord, QuarantineRecord, Tombstones] {
        let store = scene.store();
        scene.damage(&store, kind, &Change::Append);
        let warm = open_with(&store, &words, Some(cache.path())).unwrap();
        let options = check::CheckOptions { depth: check::Depth::Structure, workers: 1 };
        let checked = check::run(&warm, options).unwrap();
        assert!(is_named(&checked, &scene.victims[&kind][0]), "{kind:?}: {:?}", checked.problems);
    }
}

#[test]
fn a_repository_whose_config_is_gone_is_not_built_over() {
    let scene = Scene::new();
    let store = scene.store();
    store.delete(&Name::config()).unwrap();
    let error = lifeboat::ops::init::check_vacant(&store).unwrap_err();
    assert!(error.remedy().unwrap().contains("key recover --rebuild-config"), "{error}");
}

/// The owner forgot the passphrase, or the slot is damaged: these are two things.
#[test]
fn a_damaged_slot_is_not_a_wrong_passphrase_and_blocks_no_other() {
    let scene = Scene::new();
    let right = Credential::Passphrase("right".to_owned().into(), None);
    for change in scene.changes(Slot) {
        let store = scene.store();
        scene.damage(&store, Slot, &change);
        if matches!(change, Change::Delete) {
            continue;
        }
        let error = open_with(&store, &right, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CannotUnlock);
        let (text, swapped) = (error.to_string(), matches!(change, Change::Swap));
        let mut named = scene.victims[&Slot].iter().take(if swapped { 2 } else { 1 });
        assert!(named.any(|name| text.contains(name.as_str())), "{change:?}: {text}");
        assert!(error.remedy().is_some());
        open(&store, &scene.root).unwrap();
    }
}
