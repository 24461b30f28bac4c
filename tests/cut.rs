//! A prune with an owner's key cuts out of frames what nobody needs, and the clients go on using the rest. On a local folder
//! whose files are made to look as old as a test needs them; `tests/simulator.rs` does it beside everything else.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use lifeboat::{
    error::Result,
    format::role::Role,
    id::{DomainId, ObjectId},
    ops::{
        forget,
        key::{self, By, Lost, RecoverOptions},
        prune::{self, DomainDone, Mode, PruneOptions, Unused},
        repair::{self, AsideOptions, Force},
    },
    repository::{Repository, unlock::Credential},
    store::Store,
};
use object_store::local::LocalFileSystem;

mod support {
    pub(crate) mod faults;
    pub(crate) mod intercepted;
    pub(crate) mod lab;
    pub(crate) mod yard;
}
use support::{
    faults::{Fault, at},
    intercepted::{Call, Fate, Intercepted, Kind},
    lab::{self, Files, noise},
    yard::{Yard, ending, join},
};

const DAY: i64 = 86_400;
/// Bytes of each file: a chunk, and no compressor makes it smaller.
const FILE_BYTES: u64 = 90_000;

fn files(contents: impl IntoIterator<Item = u64>) -> Files {
    let named = |content| (format!("srv/{content}"), noise(content, usize::try_from(FILE_BYTES).unwrap()));
    contents.into_iter().map(named).collect()
}

fn options() -> PruneOptions {
    PruneOptions { host: "host".to_owned(), max_unused: Unused::Bytes(0), ..PruneOptions::default() }
}

/// Who backs up, and who else does into the same domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// The owner, alone.
    Owner,
    /// A client with a domain of its own.
    Client,
    /// A client that shares a domain with another one.
    Neighbour,
}

/// A frame of eight files, of which a snapshot needs two. The other one has ended.
struct Scene {
    yard: Yard,
    credential: Rc<Credential>,
    domain: DomainId,
    kept: Files,
}

impl Scene {
    fn new(whose: Whose) -> Self {
        Self::of(whose, &files(1..=8), files(1..=2))
    }

    /// Of what was stored first only `kept` is needed.
    fn of(whose: Whose, stored: &Files, kept: Files) -> Self {
        let yard = Yard::new();
        let credential = match whose {
            Whose::Owner => Credential::Words(yard.root.words()),
            Whose::Client => yard.new_key(Role::Backup, "web1", None),
            Whose::Neighbour => {
                yard.add_key(Role::Backup, "web2", Some("office"));
                yard.new_key(Role::Backup, "web1", Some("office"))
            }
        };
        let domain = yard.open_as(&yard.store(), &credential).unwrap().own_domain().unwrap();
        let scene = Self { yard, credential: Rc::new(credential), domain, kept };
        let whole = scene.back_up(stored);
        scene.back_up(&scene.kept);
        scene.end(whole);
        scene.yard.wait(2 * DAY);
        scene
    }

    fn copy(&self) -> Self {
        let Self { yard, credential, domain, kept } = self;
        Self { yard: yard.copy(), credential: Rc::clone(credential), domain: *domain, kept: kept.clone() }
    }

    fn back_up(&self, files: &Files) -> ObjectId {
        let client = self.yard.open_as(&self.yard.store(), &self.credential).unwrap();
        lab::back_up(&client, files).unwrap().snapshot.unwrap().0
    }

    fn end(&self, snapshot: ObjectId) {
        forget::run(&self.yard.owner(), &ending(snapshot)).unwrap();
    }

    fn prune_with(&self, repository: &Repository, options: &PruneOptions) -> Result<DomainDone> {
        let pruned = prune::run(repository, options)?;
        if let Some(stopped) = pruned.stopped {
            return Err(stopped);
        }
        let mut domains = pruned.domains.into_iter();
        let one = domains.find(|domain| domain.id == self.domain).unwrap();
        one.refused.map_or(Ok(one.done), Err)
    }

    fn prune(&self) -> DomainDone {
        self.prune_with(&self.yard.owner(), &options()).unwrap()
    }

    /// Through a store that somebody disturbs.
    fn prune_over(&self, over: &Arc<Intercepted>) -> Result<DomainDone> {
        let options = lab::options(self.yard.clock(), Arc::default(), 0);
        let store = Store::from_object_store(Arc::<Intercepted>::clone(over), "", options).unwrap();
        let owner = self.yard.open_as(&store, &Credential::Words(self.yard.root.words()))?;
        self.prune_with(&owner, &self::options())
    }

    fn watched(&self) -> Arc<Intercepted> {
        Intercepted::watching(Arc::new(LocalFileSystem::new_with_prefix(self.yard.path()).unwrap()))
    }

    fn data_packs(&self) -> Vec<PathBuf> {
        self.yard.having("/packs/d/")
    }

    fn data_bytes(&self) -> u64 {
        self.data_packs().iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    }

    #[track_caller]
    fn restores(&self, expected: &[&Files]) {
        let owner = self.yard.owner();
        let (known, damaged) = owner.snapshots().unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        assert_eq!(known.len(), expected.len());
        for (snapshot, expected) in known.iter().zip(expected) {
            let (files, restored) = lab::restore(&owner, snapshot).unwrap();
            assert_eq!(restored.failures, 0, "{:?}", restored.failed);
            assert!(files == **expected, "another content");
        }
    }

    /// Both worlds at once: what the other one has and this one lacks.
    fn join(&self, other: &Self) {
        join(&self.yard.path(), &other.yard.path());
    }

    /// Somebody's key reads all that is kept.
    #[track_caller]
    fn is_read_by(&self, reader: &Credential) {
        let reader = self.yard.open_as(&self.yard.store(), reader).unwrap();
        let snapshots = reader.snapshots().unwrap().0;
        let (files, restored) = lab::restore(&reader, &snapshots[0]).unwrap();
        assert_eq!((files == self.kept, restored.failures), (true, 0), "{:?}", restored.failed);
    }

    /// Every snapshot comes back, nothing is damaged, and the client stores nothing anew that is there.
    #[track_caller]
    fn holds(&self, expected: &[&Files]) {
        self.restores(expected);
        assert_eq!(lab::check_all(&self.yard.owner()).unwrap().problems, []);
        let copy = self.copy();
        let before = copy.data_packs();
        expected.iter().for_each(|files| _ = copy.back_up(files));
        assert_eq!(copy.data_packs(), before);
    }
}

#[test]
fn what_nobody_needs_is_cut_out_of_frames_and_the_client_goes_on_using_the_rest() {
    for whose in [Whose::Owner, Whose::Client, Whose::Neighbour] {
        let scene = Scene::new(whose);
        let dry = PruneOptions { mode: Mode::DryRun, ..options() };
        let planned = scene.prune_with(&scene.yard.owner(), &dry).unwrap();
        // Nodes end where the keys of the domain say: a pack of metadata may be moved too.
        assert!((1..=2).contains(&planned.repacked.packs), "{planned:?}");
        assert!(planned.cut == 1 && planned.pinned == 0, "{planned:?}");
        assert!(planned.moved.abs_diff(2 * FILE_BYTES) < 1000, "{planned:?}");
        let done = scene.prune();
        assert_eq!((done.cut, done.moved), (1, planned.moved), "{whose:?} {done:?}");
        assert_eq!(done.written.packs, planned.repacked.packs, "{whose:?} {done:?}");
        scene.holds(&[&scene.kept]);
        scene.yard.wait(4 * DAY);
        let done = scene.prune();
        assert_eq!((done.rescued.packs, done.cut, done.unused), (0, 0, 0), "{whose:?} {done:?}");
        assert!(scene.data_bytes() < 3 * FILE_BYTES, "{whose:?}: {}", scene.data_bytes());
        scene.holds(&[&scene.kept]);
        // There is nothing more to win, and what was cut is cut again when still less of it is needed.
        scene.yard.wait(4 * DAY);
        let done = scene.prune();
        assert_eq!((done.repacked.packs, done.marked.packs, done.young.packs), (0, 0, 0), "{done:?}");
        let one = files(1..=1);
        let latest = scene.back_up(&one);
        let first = scene.yard.owner().snapshots().unwrap().0;
        first.iter().filter(|known| known.name.id != latest).for_each(|known| scene.end(known.name.id));
        scene.yard.wait(2 * DAY);
        assert_eq!(scene.prune().cut, 1, "{whose:?}");
        scene.yard.wait(4 * DAY);
        assert_eq!(scene.prune().rescued.packs, 0);
        assert!(scene.data_bytes() < 2 * FILE_BYTES, "{whose:?}: {}", scene.data_bytes());
        scene.holds(&[&one]);
        // What an owner has cut goes like everything else, though he has no snapshot there.
        let last = files(9..=9);
        scene.back_up(&last);
        scene.end(latest);
        for _ in 0..3 {
            scene.yard.wait(4 * DAY);
            scene.prune();
        }
        assert!(scene.data_bytes() < 2 * FILE_BYTES, "{whose:?}: {}", scene.data_bytes());
        scene.holds(&[&last]);
    }
}

#[test]
fn a_prune_that_reads_no_contents_tells_what_is_pinned_and_moves_what_was_cut_whole() {
    let scene = Scene::new(Whose::Client);
    let maintain = scene.yard.new_key(Role::Maintain, "mia", None);
    let prune = |options: &PruneOptions| {
        let mia = scene.yard.open_as(&scene.yard.store(), &maintain).unwrap();
        scene.prune_with(&mia, options).unwrap()
    };
    let done = prune(&options());
    assert_eq!((done.cut, done.unused), (0, 0), "{done:?}");
    // Whether a pack of metadata holds something that ended is up to random keys.
    assert!(done.repacked.bytes < FILE_BYTES, "{done:?}");
    assert!(done.pinned.abs_diff(6 * FILE_BYTES) < 3000, "{done:?}");
    assert_eq!(scene.prune().cut, 1);
    scene.yard.wait(4 * DAY);
    // It knows what stands for the frame, and deletes it.
    let done = prune(&options());
    assert!(done.deleted.packs > 0 && done.rescued.packs == 0 && done.pinned == 0, "{done:?}");
    assert!(scene.data_bytes() < 3 * FILE_BYTES, "{}", scene.data_bytes());
    // Small packs are merged; what was attested still counts.
    scene.back_up(&files(3..=3));
    scene.yard.wait(2 * DAY);
    let done = prune(&PruneOptions { small_packs: 2, ..options() });
    assert!(done.repacked.packs >= 2, "{done:?}");
    scene.yard.wait(4 * DAY);
    prune(&options());
    scene.holds(&[&scene.kept, &files(3..=3)]);
}

#[test]
fn a_cut_that_is_killed_at_any_call_loses_nothing_and_leaves_one_copy() {
    for whose in [Whose::Owner, Whose::Client] {
        let scene = Scene::new(whose);
        let calls = {
            let copy = scene.copy();
            let over = copy.watched();
            assert_eq!(copy.prune_over(&over).unwrap().cut, 1);
            over.calls().len()
        };
        for number in 0..calls {
            let copy = scene.copy();
            let over = copy.watched();
            over.intercept(at(number, Fault::StopsAfter));
            drop(copy.prune_over(&over));
            copy.restores(&[&scene.kept]);
            for _ in 0..5 {
                copy.yard.wait(4 * DAY);
                copy.prune();
            }
            copy.holds(&[&scene.kept]);
            assert!(copy.data_bytes() < 3 * FILE_BYTES, "{whose:?} {number}: {}", copy.data_bytes());
        }
    }
}

#[test]
fn two_owners_who_cut_at_once_leave_one_copy() {
    let scene = Scene::new(Whose::Client);
    let (one, other) = (scene.copy(), scene.copy());
    one.prune();
    other.prune();
    one.join(&other);
    assert_eq!(one.data_packs().len(), 3);
    for _ in 0..4 {
        one.holds(&[&scene.kept]);
        one.yard.wait(4 * DAY);
        one.prune();
    }
    assert!(one.data_bytes() < 3 * FILE_BYTES, "{}", one.data_bytes());
    one.holds(&[&scene.kept]);
}

#[test]
fn a_damaged_copy_stands_for_nothing_and_is_named() {
    let scene = Scene::new(Whose::Client);
    let (one, other) = (scene.copy(), scene.copy());
    one.prune();
    other.prune();
    let before = scene.data_packs().len();
    one.join(&other);
    // The copy that would stand for the other one: that in the pack with the lower id.
    let old: Vec<_> = scene.data_packs().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    let mut cut = one.data_packs();
    cut.retain(|path| !old.contains(&path.file_name().unwrap().to_owned()));
    assert_eq!((before, cut.len()), (1, 2));
    cut.sort_by_key(|path| path.file_name().unwrap().to_owned());
    let mut bytes = fs::read(&cut[0]).unwrap();
    bytes[2000] ^= 1;
    fs::write(&cut[0], bytes).unwrap();
    for _ in 0..4 {
        one.yard.wait(4 * DAY);
        let done = one.prune();
        assert_eq!((done.cut, done.rescued.packs), (0, 0), "{done:?}");
        one.restores(&[&scene.kept]);
    }
    let done = one.prune();
    let name = cut[0].file_name().unwrap().to_str().unwrap();
    assert!(done.notes.iter().any(|note| note.to_string().contains(name)), "{done:?}");
}

#[test]
fn each_pack_that_stands_for_something_is_read_once() {
    let scene = Scene::of(Whose::Neighbour, &files(1..=25), files(1..=24));
    let other = scene.yard.new_key(Role::Backup, "web3", Some("office"));
    let client = scene.yard.open_as(&scene.yard.store(), &other).unwrap();
    let half: Files = files((1..=24).step_by(2));
    lab::back_up(&client, &half).unwrap();
    lab::back_up(&client, &scene.kept).unwrap();
    lab::check_all(&scene.yard.owner()).unwrap();
    for _ in 0..2 {
        scene.yard.wait(4 * DAY);
        let packs = scene.data_packs().len();
        let over = scene.watched();
        scene.prune_over(&over).unwrap();
        let reads = over
            .calls()
            .iter()
            .filter(|call| call.name.contains("/packs/d/") && call.kind == Kind::Get)
            .count();
        // As what stands for something, and to take from it.
        assert!(packs >= 3 && reads <= 2 * packs, "{reads} of {packs}");
    }
    scene.restores(&[&scene.kept, &half, &scene.kept]);
}

#[test]
fn what_is_needed_again_after_it_was_cut_is_saved_with_its_frame() {
    for whose in [Whose::Owner, Whose::Client, Whose::Neighbour] {
        let scene = Scene::new(whose);
        assert_eq!(scene.prune().cut, 1);
        // A backup that looked before the tombstones were there commits now, and uses what was not taken over.
        let tombstones = scene.yard.having("/tombstones/");
        let aside = |path: &Path| {
            scene.yard.path().join(format!("aside-{}", path.file_name().unwrap().to_str().unwrap()))
        };
        tombstones.iter().for_each(|path| fs::rename(path, aside(path)).unwrap());
        let before = scene.data_packs();
        let again = files(1..=5);
        scene.back_up(&again);
        assert_eq!(scene.data_packs(), before);
        tombstones.iter().for_each(|path| fs::rename(aside(path), path).unwrap());
        scene.yard.wait(4 * DAY);
        let done = scene.prune();
        // Nodes end where the keys of the domain say: a pack of metadata may be needed again too.
        assert!((1..=2).contains(&done.rescued.packs), "{whose:?} {done:?}");
        scene.holds(&[&scene.kept, &again]);
        for _ in 0..3 {
            scene.yard.wait(4 * DAY);
            scene.prune();
        }
        scene.holds(&[&scene.kept, &again]);
        assert!(scene.data_bytes() < 7 * FILE_BYTES, "{whose:?}: {}", scene.data_bytes());
    }
}

#[test]
fn nothing_is_deleted_for_which_what_was_cut_is_not_there_whole() {
    let scene = Scene::new(Whose::Client);
    let old = scene.data_packs();
    assert_eq!(scene.prune().cut, 1);
    let new: Vec<PathBuf> = scene.data_packs().into_iter().filter(|path| !old.contains(path)).collect();
    let [new] = &new[..] else { panic!("{new:?}") };
    damage(new, |_| 2000);
    scene.yard.wait(4 * DAY);
    let done = scene.prune();
    assert_eq!(done.rescued.packs, 1, "{done:?}");
    scene.restores(&[&scene.kept]);
    // Nor does the damaged copy stand for what was saved.
    for _ in 0..4 {
        scene.yard.wait(4 * DAY);
        assert_eq!(scene.prune().rescued.packs, 0);
        scene.restores(&[&scene.kept]);
    }
}

#[test]
fn where_nothing_may_be_attested_nothing_dies_for_what_was_cut() {
    let scene = Scene::new(Whose::Client);
    let old = scene.data_packs();
    let over = scene.watched();
    over.intercept(|call: &Call| {
        if !(call.kind.is_put() && call.name.contains("/attestations/")) {
            return Fate::Works;
        }
        Fate::Fails(object_store::Error::PermissionDenied { path: call.name.clone(), source: "no".into() })
    });
    let done = scene.prune_over(&over).unwrap();
    let told: Vec<String> = done.notes.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|note| note.contains("cannot be attested")), "{told:?}");
    // Of metadata a pack may be replaced: where nodes end depends on the keys, and what moves as it is needs nobody's word.
    assert!(done.repacked.bytes < FILE_BYTES, "{done:?}");
    for _ in 0..2 {
        scene.yard.wait(4 * DAY);
        scene.prune_over(&over).unwrap();
        assert!(old.iter().all(|path| path.exists()));
        scene.holds(&[&scene.kept]);
    }
    // What was cut in vain is of no snapshot.
    assert!(scene.data_packs().len() < 4, "{:?}", scene.data_packs());
}

#[test]
fn what_two_clients_have_stored_is_cut_once() {
    let scene = Scene::new(Whose::Neighbour);
    let other = scene.yard.new_key(Role::Backup, "web3", Some("office"));
    let (whole, kept) = (files(1..=8), files(1..=2));
    let back_up = |files: &Files| {
        let client = scene.yard.open_as(&scene.yard.store(), &other).unwrap();
        lab::back_up(&client, files).unwrap().snapshot.unwrap().0
    };
    let ended = back_up(&whole);
    back_up(&kept);
    scene.end(ended);
    scene.yard.wait(2 * DAY);
    assert_eq!(scene.data_packs().len(), 2);
    for _ in 0..3 {
        scene.prune();
        scene.restores(&[&kept, &kept]);
        scene.yard.wait(4 * DAY);
    }
    assert!(scene.data_bytes() < 3 * FILE_BYTES, "{}", scene.data_bytes());
    scene.holds(&[&kept, &kept]);
}

#[test]
fn who_could_read_a_frame_can_read_what_was_cut_out_of_it() {
    let scene = Scene::new(Whose::Client);
    let technician = scene.yard.new_key(Role::Restore, "tech", None);
    key::rotate(&scene.yard.owner()).unwrap();
    scene.back_up(&files(20..=20));
    assert_eq!(scene.prune().cut, 1);
    scene.is_read_by(&technician);
}

#[test]
fn no_copy_of_a_newer_epoch_stands_for_one_that_more_keys_can_read() {
    let scene = Scene::new(Whose::Neighbour);
    let technician = scene.yard.new_key(Role::Restore, "tech", None);
    key::rotate(&scene.yard.owner()).unwrap();
    let other = scene.yard.new_key(Role::Backup, "web3", Some("office"));
    let client = scene.yard.open_as(&scene.yard.store(), &other).unwrap();
    lab::back_up(&client, &scene.kept).unwrap();
    lab::check_all(&scene.yard.owner()).unwrap();
    for _ in 0..3 {
        scene.prune();
        scene.yard.wait(4 * DAY);
    }
    assert!(scene.data_bytes() < 3 * FILE_BYTES, "{}", scene.data_bytes());
    scene.is_read_by(&technician);
}

/// Without its attestation what was cut serves the client no more, and it has stored that anew since.
#[test]
fn a_copy_of_a_newer_epoch_makes_none_of_an_older_one_superfluous() {
    let scene = Scene::new(Whose::Client);
    let technician = scene.yard.new_key(Role::Restore, "tech", None);
    assert_eq!(scene.prune().cut, 1);
    scene.yard.wait(4 * DAY);
    scene.prune();
    scene.yard.having("/attestations/").iter().for_each(|path| fs::remove_file(path).unwrap());
    key::rotate(&scene.yard.owner()).unwrap();
    scene.back_up(&scene.kept);
    assert_eq!(scene.data_packs().len(), 2);
    for _ in 0..3 {
        scene.yard.wait(4 * DAY);
        scene.prune();
    }
    scene.is_read_by(&technician);
}

#[test]
fn of_two_copies_in_one_pack_one_goes() {
    let scene = Scene::of(Whose::Neighbour, &files(1..=8), files(1..=8));
    let other = scene.yard.new_key(Role::Backup, "web3", Some("office"));
    let client = scene.yard.open_as(&scene.yard.store(), &other).unwrap();
    lab::back_up(&client, &scene.kept).unwrap();
    scene.yard.wait(2 * DAY);
    let maintainer = scene.yard.new_key(Role::Maintain, "keeper", None);
    let merging = PruneOptions { small_packs: 2, ..options() };
    for _ in 0..2 {
        let maintainer = scene.yard.open_as(&scene.yard.store(), &maintainer).unwrap();
        scene.prune_with(&maintainer, &merging).unwrap();
        scene.yard.wait(4 * DAY);
    }
    assert_eq!(scene.data_packs().len(), 1);
    assert!(scene.data_bytes() >= 16 * FILE_BYTES);
    lab::check_all(&scene.yard.owner()).unwrap();
    for _ in 0..3 {
        scene.yard.wait(4 * DAY);
        scene.prune();
    }
    assert!(scene.data_bytes() < 9 * FILE_BYTES, "{}", scene.data_bytes());
    scene.holds(&[&scene.kept, &scene.kept]);
}

/// Changes a byte of a pack and not its time.
fn damage(pack: &Path, at: impl Fn(usize) -> usize) {
    let (mut bytes, then) = (fs::read(pack).unwrap(), fs::metadata(pack).unwrap().modified().unwrap());
    let at = at(bytes.len());
    bytes[at] ^= 1;
    fs::write(pack, bytes).unwrap();
    File::open(pack).unwrap().set_modified(then).unwrap();
}

/// What becomes of the last good copy beside the damaged one that a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Listed,
    /// Its end is damaged, and no frame.
    WithoutItsEnd,
    /// Its index object is lost.
    Unlisted,
    /// And the damaged one is set aside, as a note says.
    UnlistedAlone,
    /// Something was written behind its end, and the damaged one is set aside.
    Longer,
}

impl Last {
    fn is_unlisted(self) -> bool {
        matches!(self, Self::Unlisted | Self::UnlistedAlone)
    }
}

/// What a client uses, and what another one has stored of the same, which nobody needs.
struct Beside {
    scene: Scene,
    own: PathBuf,
    good: PathBuf,
    /// The index objects that list it.
    lists: Vec<PathBuf>,
}

impl Beside {
    fn new(stored: &Files, rest: &Files) -> Self {
        let scene = Scene::of(Whose::Neighbour, rest, rest.clone());
        let new = |ending: &str, old: &[PathBuf]| -> Vec<PathBuf> {
            scene.yard.having(ending).into_iter().filter(|path| !old.contains(path)).collect()
        };
        let (lists, packs) = (scene.yard.having("/index/"), scene.data_packs());
        let ended = scene.back_up(stored);
        let (lists, good) = (new("/index/", &lists), new("/packs/d/", &packs));
        scene.back_up(rest);
        scene.end(ended);
        let old = scene.data_packs();
        let other = scene.yard.new_key(Role::Backup, "web3", Some("office"));
        let client = scene.yard.open_as(&scene.yard.store(), &other).unwrap();
        lab::back_up(&client, stored).unwrap();
        scene.yard.wait(2 * DAY);
        let own = new("/packs/d/", &old);
        assert_eq!((own.len(), good.len()), (1, 1), "{own:?} {good:?}");
        let (own, good) = (own[0].clone(), good[0].clone());
        Self { scene, own, good, lists }
    }

    /// The pack that is used is set aside.
    fn set_aside(&self) {
        let name = self.own.strip_prefix(self.scene.yard.path()).unwrap().to_str().unwrap().to_owned();
        let options = AsideOptions { names: vec![name], reason: None, mode: Mode::Write, force: Force::No };
        repair::set_aside(&self.scene.yard.owner(), &options).unwrap();
    }
}

/// Adds to a pack and does not change its time.
fn lengthen(pack: &Path) {
    let then = fs::metadata(pack).unwrap().modified().unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(pack).unwrap();
    file.write_all(&[0; 512]).unwrap();
    file.set_modified(then).unwrap();
}

/// What a client uses is damaged, and nobody has noticed; what a restore then takes is of no use to anybody else.
#[test]
fn the_last_good_copy_stays_whoever_wrote_it() {
    let (stored, rest) = (files(1..=8), files(20..=20));
    for last in [Last::Listed, Last::WithoutItsEnd, Last::Unlisted, Last::UnlistedAlone, Last::Longer] {
        let beside = Beside::new(&stored, &rest);
        let Beside { scene, own, good, lists } = &beside;
        damage(own, |_| 2000);
        if last == Last::WithoutItsEnd {
            damage(good, |length| length - 1);
        }
        let expected = [&rest, &rest, &stored];
        scene.restores(&expected);
        scene.prune();
        if last.is_unlisted() {
            lists.iter().for_each(|list| fs::remove_file(list).unwrap());
        }
        if last == Last::Longer {
            lengthen(good);
        }
        let mut told = Vec::new();
        for round in 0..4 {
            scene.yard.wait(4 * DAY);
            let before = scene.data_packs();
            let pruned = prune::run(&scene.yard.owner(), &options()).unwrap();
            told.extend(pruned.domains.into_iter().flat_map(|domain| domain.done.notes));
            assert_eq!((scene.data_packs(), good.exists()), (before, true), "{last:?} {told:?}");
            if matches!(last, Last::UnlistedAlone | Last::Longer) && round == 0 {
                beside.set_aside();
            }
        }
        for pack in [own, good] {
            let name = pack.file_name().unwrap().to_str().unwrap();
            assert!(told.iter().any(|note| note.to_string().contains(name)), "{last:?} {told:?}");
        }
        if last.is_unlisted() {
            repair::index(&scene.yard.owner(), Mode::Write).unwrap();
        }
        scene.restores(&expected);
    }
}

/// What is deleted is read by nobody again.
#[test]
fn a_bit_that_flips_on_the_way_costs_no_last_good_copy() {
    let (stored, rest) = (files(1..=8), files(20..=20));
    // The frame that is read; and the directory, at the end.
    for last in [Last::Listed, Last::Unlisted] {
        let Beside { scene, own, good, lists } = Beside::new(&stored, &rest);
        damage(&own, |_| 2000);
        scene.prune();
        if last == Last::Unlisted {
            lists.iter().for_each(|list| fs::remove_file(list).unwrap());
        }
        scene.yard.wait(4 * DAY);
        let name = good.file_name().unwrap().to_str().unwrap().to_owned();
        let over = scene.watched();
        let first = AtomicBool::new(true);
        over.intercept(move |call: &Call| {
            let is_read = call.kind == Kind::Get && call.name.contains(&name);
            match last {
                _ if !is_read || !first.swap(false, Ordering::SeqCst) => Fate::Works,
                Last::Listed => Fate::Changes(|bytes| bytes[0] ^= 1),
                _ => Fate::Changes(|bytes| *bytes.last_mut().unwrap() ^= 1),
            }
        });
        scene.prune_over(&over).unwrap();
        assert!(good.exists(), "{last:?}");
        if last == Last::Unlisted {
            repair::index(&scene.yard.owner(), Mode::Write).unwrap();
        }
        scene.restores(&[&rest, &rest, &stored]);
    }
}

/// Whoever can read what is needed of it can read the copy of a newer epoch that is used.
#[test]
fn what_is_superfluous_beside_good_copies_of_a_newer_epoch_goes() {
    let (stored, rest) = (files(1..=8), files(20..=20));
    let scene = Scene::of(Whose::Neighbour, &stored, rest);
    let old = scene.data_packs();
    key::rotate(&scene.yard.owner()).unwrap();
    let key = scene.yard.new_key(Role::Backup, "web4", Some("office"));
    let client = scene.yard.open_as(&scene.yard.store(), &key).unwrap();
    lab::back_up(&client, &stored).unwrap();
    let mut notes = Vec::new();
    for _ in 0..3 {
        scene.yard.wait(4 * DAY);
        notes.extend(scene.prune().notes);
    }
    assert!(notes.is_empty(), "{notes:?}");
    assert!(old.iter().filter(|pack| pack.exists()).count() <= 1, "{old:?}");
    scene.restores(&[&scene.kept, &stored]);
}

/// A good copy of a newer key epoch is none for who does not hold that.
#[test]
fn the_last_good_copy_that_a_key_can_read_stays() {
    let (stored, rest) = (files(1..=8), files(20..=20));
    let scene = Scene::of(Whose::Neighbour, &stored, rest);
    let technician = scene.yard.new_key(Role::Restore, "tech", None);
    let back_up = |label: &str| {
        let key = scene.yard.new_key(Role::Backup, label, Some("office"));
        let client = scene.yard.open_as(&scene.yard.store(), &key).unwrap();
        lab::back_up(&client, &stored).unwrap().snapshot.unwrap().0
    };
    let old = scene.data_packs();
    let kept = back_up("web3");
    scene.data_packs().iter().filter(|path| !old.contains(path)).for_each(|own| damage(own, |_| 2000));
    key::rotate(&scene.yard.owner()).unwrap();
    back_up("web4");
    for _ in 0..3 {
        scene.yard.wait(4 * DAY);
        scene.prune();
    }
    let reader = scene.yard.open_as(&scene.yard.store(), &technician).unwrap();
    let snapshots = reader.snapshots().unwrap().0;
    let kept = snapshots.iter().find(|known| known.name.id == kept).unwrap();
    let (files, restored) = lab::restore(&reader, kept).unwrap();
    assert!(files == stored && restored.failures == 0, "{:?}", restored.failed);
}

/// Many clients have stored the same, as they do before a verifier has spoken.
#[test]
fn in_a_crowd_of_copies_a_prune_ends_and_the_last_good_one_stays() {
    let (stored, rest) = (files(1..=2), files(20..=20));
    for is_damaged in [false, true] {
        let scene = Scene::of(Whose::Neighbour, &rest, rest.clone());
        for number in 0..66 {
            let key = scene.yard.new_key(Role::Backup, &format!("crowd{number}"), Some("office"));
            let client = scene.yard.open_as(&scene.yard.store(), &key).unwrap();
            let ended = lab::back_up(&client, &stored).unwrap().snapshot.unwrap().0;
            lab::back_up(&client, &rest).unwrap();
            scene.end(ended);
        }
        let old = scene.data_packs();
        let other = scene.yard.new_key(Role::Backup, "web3", Some("office"));
        let client = scene.yard.open_as(&scene.yard.store(), &other).unwrap();
        let kept = lab::back_up(&client, &stored).unwrap().snapshot.unwrap().0;
        scene.yard.wait(2 * DAY);
        if is_damaged {
            scene
                .data_packs()
                .iter()
                .filter(|path| !old.contains(path))
                .for_each(|own| damage(own, |_| 2000));
        }
        let mut bytes = Vec::new();
        for _ in 0..4 {
            scene.prune();
            scene.yard.wait(4 * DAY);
            bytes.push(scene.data_bytes());
        }
        assert!(bytes.windows(2).all(|pair| pair[0] >= pair[1]) && bytes[2] == bytes[3], "{bytes:?}");
        // A copy of `rest` of each, and one of what the last one needs.
        assert!(is_damaged || bytes[3] < 72 * FILE_BYTES, "{bytes:?}");
        let owner = scene.yard.owner();
        let snapshots = owner.snapshots().unwrap().0;
        let kept = snapshots.iter().find(|known| known.name.id == kept).unwrap();
        let (files, restored) = lab::restore(&owner, kept).unwrap();
        assert!(files == stored && restored.failures == 0, "{is_damaged} {:?}", restored.failed);
    }
}

/// A verifier vouches for the copies of the newer epoch, which therefore come first.
#[test]
fn a_key_that_cannot_open_one_copy_reads_another() {
    let scene = Scene::new(Whose::Neighbour);
    let technician = scene.yard.new_key(Role::Restore, "tech", None);
    key::rotate(&scene.yard.owner()).unwrap();
    let aside: Vec<(PathBuf, Vec<u8>)> = scene
        .yard
        .having("/packs/")
        .into_iter()
        .map(|pack| (pack.clone(), fs::read(pack).unwrap()))
        .collect();
    let other = scene.yard.new_key(Role::Backup, "web3", Some("office"));
    let client = scene.yard.open_as(&scene.yard.store(), &other).unwrap();
    lab::back_up(&client, &scene.kept).unwrap();
    aside.iter().for_each(|(pack, _)| fs::remove_file(pack).unwrap());
    lab::check_all(&scene.yard.owner()).unwrap();
    aside.iter().for_each(|(pack, bytes)| fs::write(pack, bytes).unwrap());
    scene.is_read_by(&technician);
}

#[test]
fn a_frame_that_is_damaged_is_not_cut_and_nothing_of_its_pack_is_written() {
    // Several frames, of each of which something is needed; one after the first is damaged.
    let scene = Scene::of(Whose::Client, &files(1..=30), files((1..=30).step_by(2)));
    let [pack] = &scene.data_packs()[..] else { panic!("more than one pack") };
    let late = |length| length / 3 * 2;
    damage(pack, late);
    for _ in 0..3 {
        let done = scene.prune();
        assert_eq!((done.cut, scene.data_packs().len()), (0, 1), "{done:?}");
        assert!(done.notes.iter().any(|note| note.to_string().contains("is not repacked")), "{done:?}");
    }
    // The same once more makes it whole.
    damage(pack, late);
    assert!(scene.prune().cut > 1);
    scene.holds(&[&scene.kept]);
}

#[test]
fn without_the_word_of_a_verifier_what_was_cut_still_restores_and_the_next_backup_stores_it_anew() {
    let scene = Scene::new(Whose::Client);
    assert_eq!(scene.prune().cut, 1);
    scene.yard.wait(4 * DAY);
    scene.prune();
    let attestations = scene.yard.having("/attestations/");
    assert_eq!(attestations.len(), 1);
    attestations.iter().for_each(|path| fs::remove_file(path).unwrap());
    scene.yard.wait(4 * DAY);
    scene.prune();
    scene.restores(&[&scene.kept]);
    let before = scene.data_packs().len();
    // A check of all data gives it again.
    let checked = scene.copy();
    lab::check_all(&checked.yard.owner()).unwrap();
    assert_eq!(checked.yard.having("/attestations/").len(), 1);
    checked.holds(&[&scene.kept]);
    scene.back_up(&scene.kept);
    assert_eq!(scene.data_packs().len(), before + 1);
    for _ in 0..3 {
        scene.yard.wait(4 * DAY);
        scene.prune();
    }
    scene.restores(&[&scene.kept, &scene.kept]);
}

/// How much of a second owner the bucket shows beside what he has cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    /// A snapshot in another domain.
    BacksUpElsewhere,
    /// No snapshot.
    Prunes,
    /// A snapshot in the domain that he prunes, and only index objects there: the other records were deleted since.
    BacksUpThere,
}

/// A second owner has cut and moved things, and what they came from is gone.
fn cut_by_a_second_owner(second: Second) -> Scene {
    let scene = Scene::new(if second == Second::BacksUpThere { Whose::Owner } else { Whose::Client });
    let credential = scene.yard.new_key(Role::Owner, "second", None);
    let other = || scene.yard.open_as(&scene.yard.store(), &credential).unwrap();
    let old = scene.data_packs();
    let options = PruneOptions { small_packs: 2, ..options() };
    if second != Second::Prunes {
        lab::back_up(&other(), &files(20..=20)).unwrap();
    }
    assert!(scene.prune_with(&other(), &options).unwrap().cut > 0);
    scene.yard.wait(4 * DAY);
    scene.prune_with(&other(), &options).unwrap();
    assert!(scene.data_packs().iter().all(|pack| !old.contains(pack)), "the old packs are gone");
    if second == Second::BacksUpThere {
        let records = [scene.yard.having("/attestations/"), scene.yard.having("/tombstones/")].concat();
        assert!(!records.is_empty());
        records.iter().for_each(|path| fs::remove_file(path).unwrap());
    }
    scene
}

#[test]
fn what_a_second_owner_has_cut_counts_after_the_registry_was_lost_and_rebuilt_and_is_listed_again() {
    for second in [Second::BacksUpElsewhere, Second::Prunes, Second::BacksUpThere] {
        let scene = cut_by_a_second_owner(second);
        scene.yard.having("/registry/").iter().for_each(|path| fs::remove_file(path).unwrap());
        let unlock = By::Passphrase("recovered".to_owned().into());
        let options = RecoverOptions { words: &scene.yard.root.words(), unlock, lost: Lost::Rebuild };
        key::recover(&scene.yard.store(), &options, &*scene.yard.clock()).unwrap();
        let theirs = files(20..=20);
        let all = [&scene.kept, &theirs];
        let all = if second == Second::Prunes { &all[..1] } else { &all };
        scene.restores(all);
        assert_eq!(lab::check_all(&scene.yard.owner()).unwrap().problems, [], "{second:?}");
        let listed = key::list(&scene.yard.owner()).unwrap();
        let row = listed.iter().find(|row| row.revoked.is_some()).unwrap();
        assert_eq!(row.role, Some(Role::Owner), "{second:?} {row:?}");
        // Nor is it lost with the index: the packs say it too.
        scene.yard.having("/index/").iter().for_each(|path| fs::remove_file(path).unwrap());
        repair::index(&scene.yard.owner(), Mode::Write).unwrap();
        scene.restores(all);
        assert_eq!(lab::check_all(&scene.yard.owner()).unwrap().problems, [], "{second:?}");
    }
}
