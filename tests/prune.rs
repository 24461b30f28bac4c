//! `prune` on a local folder whose files are made to look as old as a test needs them, with a clock that goes with
//! them. `tests/simulator.rs` runs it beside backups, `forget` and other prunes.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use lifeboat::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        annotation::TagChange, envelope::RecordKind, forgotten::Forgotten, role::Role, tombstones::Tombstones,
    },
    id::ObjectId,
    ops::{
        annotate::{self, Chosen},
        check::{self, Subset},
        forget,
        prune::{self, DomainDone, Mode, PruneOptions, Pruned, Unused},
        repair::{self, AsideOptions, Force},
        select::{Filter, Reference},
    },
    repository::{Repository, unlock::Credential},
    store::{Folder, Name, Store},
};
use object_store::local::LocalFileSystem;

mod support {
    pub(crate) mod faults;
    pub(crate) mod forger;
    pub(crate) mod intercepted;
    pub(crate) mod lab;
    pub(crate) mod world;
    pub(crate) mod yard;
}
use support::{
    faults::{Fault, at, nth},
    forger,
    intercepted::{Call, Fate, Intercepted, Interceptor, Kind},
    lab::{self, Files, noise},
    world::World,
    yard::{Yard, ending},
};

const DAY: i64 = 86_400;

impl Yard {
    fn forget(&self, snapshot: ObjectId) {
        assert_eq!(forget_on(&self.owner(), snapshot), 0);
    }

    fn prune(&self) -> DomainDone {
        only(prune::run(&self.owner(), &options()).unwrap()).unwrap()
    }

    /// Through a store that somebody disturbs.
    fn owner_over(&self, intercepted: &Arc<Intercepted>) -> Result<Repository> {
        let options = lab::options(self.clock(), Arc::default(), 0);
        let store = Store::from_object_store(Arc::<Intercepted>::clone(intercepted), "", options).unwrap();
        self.open_as(&store, &Credential::Words(self.root.words()))
    }

    fn prune_over(&self, intercepted: &Arc<Intercepted>) -> Result<DomainDone> {
        prune::run(&self.owner_over(intercepted)?, &options()).and_then(only)
    }

    /// Through a storage that refuses to delete or replace what is younger than this.
    fn locked(&self, days: u64) -> Arc<Intercepted> {
        let (over, root) = (self.watched(), self.path());
        over.intercept(move |call: &Call| {
            let changes = matches!(call.kind, Kind::Delete | Kind::Overwrite);
            let stored = fs::metadata(root.join(&call.name)).and_then(|found| found.modified());
            let age = stored.ok().filter(|_| changes).map(|stored| stored.elapsed().unwrap());
            if age.is_some_and(|age| age < Duration::from_hours(24 * days)) {
                let source = "<Code>AccessDenied</Code>: Object Lock".into();
                return Fate::Fails(object_store::Error::PermissionDenied {
                    path: call.name.clone(),
                    source,
                });
            }
            Fate::Works
        });
        over
    }

    fn watched(&self) -> Arc<Intercepted> {
        Intercepted::watching(Arc::new(LocalFileSystem::new_with_prefix(self.path()).unwrap()))
    }

    /// Every snapshot comes back, and nothing is damaged.
    #[track_caller]
    fn holds(&self, expected: &[&Files]) {
        self.restores(expected);
        assert_eq!(lab::check_all(&self.owner()).unwrap().problems, []);
    }

    #[track_caller]
    fn restores(&self, expected: &[&Files]) {
        let repository = self.owner();
        let (known, damaged) = repository.snapshots().unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        assert_eq!(known.len(), expected.len());
        for (snapshot, expected) in known.iter().zip(expected) {
            let (files, restored) = lab::restore(&repository, snapshot).unwrap();
            assert_eq!(restored.failures, 0, "{:?}", restored.failed);
            assert!(files == **expected, "another content");
        }
    }
}

/// Gives how many ended snapshots the storage keeps.
fn forget_on(repository: &Repository, snapshot: ObjectId) -> u64 {
    forget::run(repository, &ending(snapshot)).unwrap().kept.objects
}

fn options() -> PruneOptions {
    PruneOptions { host: "host".to_owned(), ..PruneOptions::default() }
}

fn dry() -> PruneOptions {
    PruneOptions { mode: Mode::DryRun, ..options() }
}

/// What came of the one domain.
fn only(pruned: Pruned) -> Result<DomainDone> {
    let [domain] = <[_; 1]>::try_from(pruned.domains).unwrap();
    pruned.stopped.or(domain.refused).map_or(Ok(domain.done), Err)
}

fn files(contents: &[u64]) -> Files {
    contents.iter().map(|content| (format!("srv/{content}"), noise(*content, 90_000))).collect()
}

/// Four snapshots, of which two have ended two days ago; what only they needed is marked: the manifest of the one, whose
/// data another one needs, and all of the other one.
struct Marked {
    yard: Yard,
    ended: [Files; 2],
    kept: [Files; 2],
    marked: u64,
}

fn marked() -> Marked {
    let yard = Yard::new();
    let (ended, kept) = ([files(&[1, 2]), files(&[6])], [files(&[1, 2, 3]), files(&[3, 4])]);
    let all = ended.iter().chain(&kept);
    let done: Vec<_> = all.map(|files| lab::back_up(&yard.owner(), files).unwrap()).collect();
    if done.iter().any(|done| done.record.levels > 0) {
        // A random key cuts even such manifests, rarely, and then they share a part.
        return marked();
    }
    done[..2].iter().for_each(|done| yard.forget(done.snapshot.unwrap().0));
    yard.wait(2 * DAY);
    let done = yard.prune();
    assert_eq!((done.deleted.packs, done.after.packs), (0, done.before.packs));
    assert!(done.marked.packs == 3 && done.next_deletion.is_some(), "{done:?}");
    Marked { yard, ended, kept, marked: done.marked.packs }
}

#[test]
fn the_next_deletion_is_counted_from_when_the_storage_got_the_tombstones() {
    let yard = Yard::new();
    let whole = yard.back_up(&files(&[1]));
    yard.back_up(&files(&[2]));
    yard.forget(whole);
    yard.wait(2 * DAY);
    // An hour passes between the beginning of the run and its end.
    let (over, root) = (yard.watched(), yard.path());
    over.intercept(move |call: &Call| {
        if call.kind == Kind::Head && call.name.contains("/runs/") {
            let run = File::open(root.join(&call.name)).unwrap();
            run.set_modified(SystemTime::now() - Duration::from_hours(1)).unwrap();
        }
        Fate::Works
    });
    let next = yard.prune_over(&over).unwrap().next_deletion.unwrap();
    let batch = yard.having("/tombstones/").pop().unwrap();
    let stored =
        fs::metadata(batch).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let grace = yard.owner().config.minimum_grace_seconds;
    assert_eq!(u64::try_from(next.seconds).unwrap(), stored + grace + 1);
}

impl Marked {
    /// A backup that looked before the tombstones were there commits now: it needs what is to die.
    fn needed_again(&self) {
        let tombstones = self.yard.having("/tombstones/");
        let aside = |path: &Path| {
            self.yard.path().join(format!("aside-{}", path.file_name().unwrap().to_str().unwrap()))
        };
        tombstones.iter().for_each(|path| fs::rename(path, aside(path)).unwrap());
        let before = self.yard.packs();
        self.ended.iter().for_each(|files| _ = self.yard.back_up(files));
        // Its manifest and its data are there already.
        assert_eq!(self.yard.packs(), before);
        tombstones.iter().for_each(|path| fs::rename(aside(path), path).unwrap());
    }

    fn all(&self) -> [&Files; 4] {
        [&self.kept[0], &self.kept[1], &self.ended[0], &self.ended[1]]
    }
}

#[test]
fn what_no_snapshot_needs_is_gone_after_two_runs_and_the_grace() {
    let Marked { yard, kept, marked, .. } = marked();
    let kept = [&kept[0], &kept[1]];
    let before = yard.packs();
    yard.wait(2 * DAY);
    let done = yard.prune();
    assert_eq!(
        (done.deleted.packs, done.marked.packs, done.waiting.packs),
        (0, 0, marked),
        "the grace is not over"
    );
    assert_eq!(yard.packs(), before);
    yard.wait(DAY + 10);
    let done = yard.prune();
    assert_eq!((done.deleted.packs, done.rescued.packs, done.waiting.packs), (marked, 0, 0), "{done:?}");
    assert_eq!(yard.packs().len() as u64, before.len() as u64 - marked);
    assert_eq!(done.next_deletion, None);
    // The index was written again without them; an object that lists nothing else goes, the other waits for the grace.
    assert_eq!((done.index_written, done.index_deleted), (1, 1), "{done:?}");
    yard.holds(&kept);
    yard.wait(2 * DAY);
    let done = yard.prune();
    assert_eq!((done.index_written, done.index_deleted), (0, 0), "{done:?}");
    yard.wait(2 * DAY);
    let done = yard.prune();
    assert_eq!((done.index_written, done.index_deleted), (0, 1), "{done:?}");
    assert!(done.after.requests < done.before.requests);
    assert_eq!(lab::check_all(&yard.owner()).unwrap().notes, Vec::<String>::new());
    yard.holds(&kept);
    // What said that they are to die goes when it cannot matter any more.
    assert_eq!(yard.having("/tombstones/").len(), 1);
    yard.wait(31 * DAY);
    yard.prune();
    assert_eq!(yard.having("/tombstones/").len(), 0);
    yard.wait(60 * DAY);
    yard.prune();
    assert!(yard.having("/runs/").len() <= 2, "{:?}", yard.having("/runs/"));
    yard.holds(&kept);
    yard.back_up(kept[0]);
}

#[test]
fn a_copy_of_an_index_object_in_another_folder_stops_no_compaction_and_goes_with_it() {
    let Marked { yard, kept, marked, .. } = marked();
    // Whoever reads the names in their order meets the copy before the object on one side, and behind it on the other.
    let originals = yard.having("/index/");
    for path in &originals {
        for other in ["0".repeat(32), "f".repeat(32)] {
            let folder = path.parent().unwrap().with_file_name(other);
            fs::create_dir_all(&folder).unwrap();
            fs::copy(path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    assert_eq!(yard.having("/index/").len(), originals.len() * 3);
    yard.wait(3 * DAY + 10);
    let done = yard.prune();
    assert_eq!((done.deleted.packs, done.index_written, done.index_deleted), (marked, 1, 1), "{done:?}");
    yard.wait(4 * DAY);
    let done = yard.prune();
    assert_eq!((done.index_written, done.index_deleted), (0, 1), "{done:?}");
    for path in yard.having("/index/") {
        let siblings = yard.having(path.file_name().unwrap().to_str().unwrap());
        let original = siblings.iter().any(|other| originals.contains(other) || siblings.len() == 1);
        assert!(original, "only copies are left of {}", path.display());
    }
    // The next run meets nothing that it cannot read.
    assert_eq!(yard.prune().notes.len(), 0);
    yard.holds(&[&kept[0], &kept[1]]);
}

#[test]
fn what_was_replaced_again_and_again_goes_with_the_last_that_replaced_it() {
    let yard = Yard::new();
    let (first, last) = (files(&[1]), files(&[2]));
    let late = yard.back_up(&first);
    let root = yard.owner().snapshots().unwrap().0[0].record.root;
    let replacing = |id| forger::snapshot(&yard.owner(), root, |record| record.replaces = Some(id));
    let third = replacing(replacing(late));
    yard.back_up(&last);
    let every = yard.owner().every_snapshot().unwrap();
    assert_eq!((every.listed.len(), every.replaced.len()), (2, 2));
    yard.forget(third);
    assert_eq!(yard.having("/snapshots/").len(), 1);
    yard.holds(&[&last]);
}

#[test]
fn the_data_of_a_snapshot_that_is_held_stays_though_a_record_has_ended_it() {
    let yard = Yard::new();
    let (first, second) = (files(&[1]), files(&[2]));
    let id = yard.back_up(&first);
    yard.back_up(&second);
    let which = Chosen { references: vec![Reference::Id(id.to_string())], filter: Filter::default() };
    annotate::place(&yard.owner(), &which, "a case", Mode::Write).unwrap();
    // As of a `forget` that began before.
    let forgotten = Forgotten::new(Timestamp::default(), vec![id], "");
    yard.owner().publish_forgotten(&yard.owner().own_domain().unwrap(), &forgotten).unwrap();
    for _ in 0..3 {
        yard.wait(4 * DAY);
        let done = yard.prune();
        assert_eq!((done.marked.packs, done.finished), (0, 0), "{done:?}");
    }
    yard.holds(&[&first, &second]);
    annotate::lift(&yard.owner(), &which, (&[], "over"), Mode::Write).unwrap();
    let done = yard.prune();
    assert_eq!(done.finished, 1);
    assert!(done.marked.packs > 0, "{done:?}");
    yard.wait(4 * DAY);
    assert_eq!(yard.prune().deleted.packs, done.marked.packs);
    yard.holds(&[&second]);
}

#[test]
fn under_a_lock_forget_and_prune_go_on_and_what_is_kept_goes_when_it_ends() {
    const LOCK: u64 = 30;
    let yard = Yard::new();
    let all = [files(&[1]), files(&[2]), files(&[3])];
    let first = yard.back_up(&all[0]);
    yard.wait(10 * DAY);
    let second = yard.back_up(&all[1]);
    yard.back_up(&all[2]);
    let packs = yard.packs();
    // The record is written, so the snapshots have ended; they are still there.
    assert_eq!(forget_on(&yard.owner_over(&yard.locked(LOCK)).unwrap(), first), 1);
    assert_eq!(forget_on(&yard.owner_over(&yard.locked(LOCK)).unwrap(), second), 2);
    assert_eq!(yard.having("/snapshots/").len(), 3);
    yard.holds(&[&all[2]]);
    yard.wait(2 * DAY);
    let done = yard.prune_over(&yard.locked(LOCK)).unwrap();
    assert_eq!((done.marked.packs, done.finished, done.kept.others), (4, 0, 2), "{done:?}");
    assert_eq!((done.kept.packs.packs, done.kept.next_try), (0, None));

    // The grace is over, the lock is not: nothing is lost, and nothing else is left undone.
    yard.wait(4 * DAY);
    for _ in 0..2 {
        let done = yard.prune_over(&yard.locked(LOCK)).unwrap();
        assert_eq!((done.deleted.packs, done.kept.packs.packs), (0, 4), "{done:?}");
        assert!(done.kept.packs.bytes > 0);
        assert_eq!((done.waiting.packs, done.marked.packs, done.rescued.packs), (0, 0, 0), "{done:?}");
        assert_eq!(done.before.packs, done.after.packs);
        assert!(done.kept.why.as_ref().unwrap().to_string().contains("AccessDenied"), "{done:?}");
        // Nobody knows how long the lock is: tomorrow.
        let tomorrow = yard.clock().now().seconds - yard.ahead.get() + DAY;
        let next = done.kept.next_try.unwrap();
        assert!((next.seconds - tomorrow).abs() < 60, "{done:?}");
        assert_eq!(done.next_deletion, Some(next));
        assert_eq!(yard.packs(), packs);
        yard.holds(&[&all[2]]);
    }

    // 34 days after the first backup its packs go, those of the second do not. A lock that let go what is 34 days old
    // lets go everything of that age.
    yard.wait(18 * DAY);
    let done = yard.prune_over(&yard.locked(LOCK)).unwrap();
    assert_eq!((done.deleted.packs, done.kept.packs.packs, done.finished), (2, 2, 1), "{done:?}");
    let (oldest, next) = (done.kept.oldest.unwrap(), done.kept.next_try.unwrap());
    assert!((next.seconds - oldest.seconds - 34 * DAY).abs() < 600, "{done:?}");
    yard.holds(&[&all[2]]);
    yard.wait(10 * DAY);
    let done = yard.prune_over(&yard.locked(LOCK)).unwrap();
    assert_eq!((done.deleted.packs, done.kept.packs.packs, done.finished), (2, 0, 1), "{done:?}");
    assert_eq!((yard.packs().len(), yard.having("/snapshots/").len()), (2, 1));
    yard.holds(&[&all[2]]);
    // What remains is what the lock holds and the index objects of before; all of it goes in the end.
    for _ in 0..4 {
        yard.wait(31 * DAY);
        yard.prune_over(&yard.locked(LOCK)).unwrap();
    }
    yard.wait(31 * DAY);
    let done = yard.prune_over(&yard.locked(LOCK)).unwrap();
    assert!(!done.kept.any(), "{done:?}");
    assert_eq!((yard.having("/tombstones/").len(), yard.having("/index/").len()), (0, 1));
    yard.holds(&[&all[2]]);
    yard.back_up(&all[0]);
}

#[test]
fn what_a_lock_keeps_and_a_backup_needs_again_is_copied_out_once() {
    let marked = marked();
    marked.needed_again();
    let yard = &marked.yard;
    yard.wait(4 * DAY);
    let done = yard.prune_over(&yard.locked(30)).unwrap();
    assert_eq!((done.rescued.packs, done.kept.packs.packs), (marked.marked, marked.marked), "{done:?}");
    yard.holds(&marked.all());
    let packs = yard.packs();
    for days in [1, 10] {
        yard.wait(days * DAY);
        let done = yard.prune_over(&yard.locked(30)).unwrap();
        assert_eq!((done.rescued.packs, done.marked.packs, done.repacked.packs), (0, 0, 0), "{done:?}");
        assert_eq!(yard.packs(), packs, "a copy that nobody can free is not made again");
        yard.holds(&marked.all());
    }
    let done = yard.prune();
    assert_eq!(done.deleted.packs, marked.marked);
    yard.holds(&marked.all());
}

#[test]
fn where_nothing_can_be_deleted_nothing_is_moved_and_most_of_it_is_not_even_tried() {
    let (yard, content) = wasteful();
    for number in 100..130 {
        let id = yard.back_up(&files(&[number]));
        yard.back_up(&content);
        yard.forget(id);
    }
    yard.wait(2 * DAY);
    let marked = yard.prune_over(&yard.locked(365)).unwrap().marked.packs;
    assert!(marked >= 60, "{marked}");
    yard.wait(4 * DAY);
    let over = yard.locked(365);
    let repository = yard.owner_over(&over).unwrap();
    let options = PruneOptions { max_unused: Unused::Bytes(0), small_packs: 2, ..options() };
    let done = only(prune::run(&repository, &options).unwrap()).unwrap();
    assert_eq!((done.kept.packs.packs, done.repacked.packs), (marked, 0), "{done:?}");
    let calls = over.calls();
    let tried = calls.iter().filter(|call| call.kind == Kind::Delete && call.name.contains("/packs/"));
    let tried = tried.count() as u64;
    assert!(tried >= 16 && tried < marked - 5, "{tried} of {marked}");
    // As soon as they may go they all go.
    assert_eq!(yard.prune().deleted.packs, marked);
    yard.holds(&vec![&content; yard.owner().snapshots().unwrap().0.len()]);
}

#[test]
fn what_was_said_of_snapshots_that_are_gone_goes_after_a_month() {
    let yard = Yard::new();
    let all = [files(&[1]), files(&[2]), files(&[3])];
    let ids: Vec<ObjectId> = all.iter().map(|files| yard.back_up(files)).collect();
    let of = |ids: &[ObjectId]| Chosen {
        references: ids.iter().map(|id| Reference::Id(id.to_string())).collect(),
        filter: Filter::default(),
    };
    let tag = |ids: &[ObjectId], tag: &str| {
        let change = TagChange { add: vec![tag.to_owned()], ..TagChange::default() };
        annotate::tag(&yard.owner(), &of(ids), &change, Mode::Write).unwrap();
    };
    tag(&ids[..1], "alone");
    tag(&ids[..2], "both");
    annotate::place(&yard.owner(), &of(&ids[..1]), "a case", Mode::Write).unwrap();
    annotate::lift(&yard.owner(), &of(&ids[..1]), (&[], "over"), Mode::Write).unwrap();
    let annotations = || yard.having("/annotations/").len();
    // All of them are old, and what they speak of is there: a lock keeps it though it has ended.
    yard.wait(29 * DAY);
    assert_eq!(forget_on(&yard.owner_over(&yard.locked(40)).unwrap(), ids[0]), 1);
    yard.wait(2 * DAY);
    yard.prune_over(&yard.locked(40)).unwrap();
    assert_eq!(
        (annotations(), yard.having("/snapshots/").len()),
        (4, 3),
        "without the lift it would be held again"
    );
    yard.holds(&[&all[1], &all[2]]);
    let done = yard.prune();
    assert_eq!((done.finished, done.records_deleted, annotations()), (1, 3, 1), "{done:?}");
    let (known, _) = yard.owner().snapshots().unwrap();
    assert!(known.iter().any(|known| known.name.id == ids[1] && known.tags == ["both"]), "{known:?}");
    // One that is young stays; of two snapshots that it names both must be gone.
    tag(&ids[1..2], "young");
    yard.forget(ids[1]);
    yard.prune();
    assert_eq!(annotations(), 1);
    yard.wait(31 * DAY);
    let done = yard.prune();
    assert_eq!((done.records_deleted, annotations()), (1, 0), "{done:?}");
    yard.holds(&[&all[2]]);
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_would_be_done() {
    let Marked { yard, marked, .. } = marked();
    yard.wait(4 * DAY);
    let before = yard.files();
    let planned = only(prune::run(&yard.owner(), &dry()).unwrap()).unwrap();
    assert_eq!(yard.files(), before);
    let done = yard.prune();
    assert_eq!(planned.deleted, done.deleted);
    assert_eq!((planned.deleted.packs, planned.index_written), (marked, done.index_written));
    assert_eq!((planned.before, planned.after), (done.before, done.after));
}

#[test]
fn what_is_needed_again_is_copied_out_before_its_pack_dies() {
    let marked = marked();
    let yard = &marked.yard;
    marked.needed_again();
    let dying = yard.packs();
    yard.wait(4 * DAY);
    let planned = only(prune::run(&yard.owner(), &dry()).unwrap()).unwrap();
    let done = yard.prune();
    assert_eq!((done.rescued.packs, done.deleted.packs), (marked.marked, marked.marked), "{done:?}");
    assert_eq!((planned.rescued, planned.deleted), (done.rescued, done.deleted));
    assert_ne!(yard.packs(), dying);
    yard.holds(&marked.all());
    // What was rescued is as good as any: nothing more happens, and the index gets rid of the rest.
    for _ in 0..3 {
        yard.wait(5 * DAY);
        let done = yard.prune();
        assert_eq!((done.marked.packs, done.deleted.packs), (0, 0), "{done:?}");
        yard.holds(&marked.all());
    }
    assert_eq!(lab::check_all(&yard.owner()).unwrap().notes, Vec::<String>::new());
}

#[test]
fn nothing_is_deleted_for_which_the_copy_did_not_arrive() {
    let marked = marked();
    marked.needed_again();
    let yard = &marked.yard;
    yard.wait(4 * DAY);
    let is_pack = |call: &Call| call.kind.is_put() && call.name.contains("/packs/");
    for fault in [Fault::Forgets, Fault::Halves, Fault::Flips] {
        let yard = yard.copy();
        let before = yard.packs();
        let over = yard.watched();
        over.intercept(move |call: &Call| if is_pack(call) { fault.fate(call) } else { Fate::Works });
        let outcome = yard.prune_over(&over);
        assert!(before.is_subset(&yard.packs()), "{fault:?}: {outcome:?}");
        let deleted = over.calls().iter().filter(|call| call.kind == Kind::Delete).count();
        assert_eq!(deleted, 0, "{fault:?}");
        yard.restores(&marked.all());
        // It comes when the storage keeps what it is given.
        let done = yard.prune();
        assert_eq!(done.deleted.packs, marked.marked, "{fault:?}: {done:?}");
        yard.restores(&marked.all());
    }
}

/// Whoever wrote it has it in its cache; nobody else can read it.
#[test]
fn nothing_is_deleted_for_which_the_index_of_the_copy_was_not_kept_whole() {
    let marked = marked();
    marked.needed_again();
    let yard = &marked.yard;
    yard.wait(4 * DAY);
    let (before, cache) = (yard.packs(), tempfile::tempdir().unwrap());
    let prune = |over: &Arc<Intercepted>| {
        let store = yard.owner_over(over).unwrap().store;
        let config = Repository::read_config(&store).unwrap();
        let words = Credential::Words(yard.root.words());
        let secrets = Repository::unlock(&store, &config, &words).unwrap();
        let owner = Repository::open(store, config, secrets, Some(cache.path()), yard.clock()).unwrap();
        prune::run(&owner, &options()).and_then(only)
    };
    let over = yard.watched();
    let is_index = |call: &Call| call.kind.is_put() && call.name.contains("/index/");
    over.intercept(move |call: &Call| if is_index(call) { Fault::Halves.fate(call) } else { Fate::Works });
    for over in [over, yard.watched()] {
        let error = prune(&over).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(before.is_subset(&yard.packs()), "{error}");
    }
    yard.restores(&marked.all());
}

#[test]
fn a_prune_that_is_killed_at_any_call_loses_nothing_and_the_next_one_carries_on() {
    let marked = marked();
    marked.needed_again();
    let yard = &marked.yard;
    // Something new to mark too.
    let more = yard.back_up(&files(&[7]));
    yard.back_up(&files(&[8]));
    yard.forget(more);
    let last = files(&[8]);
    let all: Vec<&Files> = marked.all().into_iter().chain([&last]).collect();
    yard.wait(4 * DAY);
    let calls = {
        let yard = yard.copy();
        let over = yard.watched();
        yard.prune_over(&over).unwrap();
        over.calls().len()
    };
    assert!(calls > 30, "{calls}");
    for number in 0..calls {
        for fault in [Fault::StopsBefore, Fault::StopsAfter] {
            let yard = yard.copy();
            let over = yard.watched();
            over.intercept(at(number, fault));
            let outcome = yard.prune_over(&over);
            assert!(outcome.is_err() || number + 1 == calls, "{number} {fault:?}: {outcome:?}");
            yard.restores(&all);
            let done = yard.prune();
            assert!(done.waiting.packs + done.marked.packs > 0, "{number} {fault:?}: {done:?}");
            if number % 7 == 0 {
                yard.wait(4 * DAY);
                let done = yard.prune();
                assert_eq!(done.waiting.packs, 0, "{number} {fault:?}: {done:?}");
                yard.holds(&all);
            }
        }
    }
}

/// One pack of which a snapshot that is left needs little, a forgotten snapshot the rest.
fn wasteful() -> (Yard, Files) {
    let yard = Yard::new();
    let kept: Files = [("srv/a".to_owned(), noise(1, 900_000))].into();
    let mut all = kept.clone();
    all.insert("srv/b".to_owned(), noise(2, 5_000_000));
    let whole = lab::back_up(&yard.owner(), &all).unwrap();
    if whole.record.levels > 0 {
        // A random key cuts even such a manifest, rarely, and then the two share a part of it.
        return wasteful();
    }
    yard.back_up(&kept);
    yard.forget(whole.snapshot.unwrap().0);
    yard.wait(2 * DAY);
    (yard, kept)
}

#[test]
fn what_is_needed_of_a_pack_that_holds_little_of_it_moves_and_the_rest_goes() {
    let (yard, kept) = wasteful();
    let unlimited = PruneOptions { max_unused: Unused::Any, ..dry() };
    let left = only(prune::run(&yard.owner(), &unlimited).unwrap()).unwrap();
    assert!(left.repacked.packs == 0 && left.unused > 3_000_000, "{left:?}");
    let little = PruneOptions { max_repack: Some(100_000), ..dry() };
    assert_eq!(only(prune::run(&yard.owner(), &little).unwrap()).unwrap().repacked.packs, 0);

    let planned = only(prune::run(&yard.owner(), &dry()).unwrap()).unwrap();
    let done = yard.prune();
    assert_eq!((planned.repacked, planned.moved), (done.repacked, done.moved));
    assert_eq!(
        (planned.written.packs, planned.after.packs.packs),
        (done.written.packs, done.after.packs.packs)
    );
    // A pack has a header, a directory and padding around its frames.
    let around = done.written.bytes - planned.written.bytes;
    assert!(
        planned.written.bytes == done.moved && around < planned.written.bytes / 4,
        "{planned:?} {done:?}"
    );
    assert_eq!(done.after.packs.bytes - planned.after.packs.bytes, around);
    assert_eq!((done.repacked.packs, done.written.packs, done.unused), (1, 1, 0), "{done:?}");
    assert!(done.moved >= 900_000 && done.moved < 3_000_000, "{done:?}");
    assert!(done.repacked.bytes > 5_000_000 && done.marked.bytes >= done.repacked.bytes, "{done:?}");
    yard.holds(&[&kept]);
    yard.wait(4 * DAY);
    let done = yard.prune();
    assert_eq!((done.rescued.packs, done.repacked.packs, done.marked.packs), (0, 0, 0), "{done:?}");
    assert!(done.deleted.bytes > 5_000_000 && done.after.packs.bytes < 3_000_000, "{done:?}");
    yard.holds(&[&kept]);
    // The next backup borrows from what was moved.
    yard.wait(DAY);
    let before = yard.packs().len();
    yard.back_up(&kept);
    assert_eq!(yard.packs().len(), before);
}

#[test]
fn many_small_packs_become_one() {
    let yard = Yard::new();
    let all: Vec<Files> = (0..16).map(|n| files(&[n])).collect();
    all.iter().for_each(|files| _ = yard.back_up(files));
    let expected: Vec<&Files> = all.iter().collect();
    yard.wait(2 * DAY);
    assert_eq!(yard.packs().len(), 32);
    let done = yard.prune();
    assert_eq!((done.repacked.packs, done.written.packs, done.marked.packs), (32, 2, 32), "{done:?}");
    yard.wait(4 * DAY);
    assert_eq!(yard.prune().deleted.packs, 32);
    assert_eq!(yard.packs().len(), 2);
    yard.holds(&expected);
    // There is nothing more to win.
    yard.wait(4 * DAY);
    let done = yard.prune();
    assert_eq!((done.repacked.packs, done.marked.packs), (0, 0), "{done:?}");
}

#[test]
fn a_repack_that_is_killed_at_any_call_or_done_twice_leaves_one_copy() {
    let (yard, kept) = wasteful();
    let calls = {
        let yard = yard.copy();
        let over = yard.watched();
        yard.prune_over(&over).unwrap();
        over.calls().len()
    };
    for number in 0..calls {
        let yard = yard.copy();
        let over = yard.watched();
        over.intercept(at(number, Fault::StopsAfter));
        drop(yard.prune_over(&over));
        yard.restores(&[&kept]);
        for _ in 0..4 {
            yard.wait(4 * DAY);
            yard.prune();
        }
        yard.holds(&[&kept]);
        let bytes: u64 = yard.packs().iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(bytes < 3_000_000, "{number}: {bytes}");
    }
}

#[test]
fn a_pack_that_cannot_be_read_is_not_repacked_and_the_others_are() {
    let (yard, kept) = wasteful();
    let is_pack = |call: &Call| call.kind == Kind::Get && call.name.contains("/packs/d");
    // In its first frame.
    let flips = || Fate::Changes(|bytes| bytes.iter_mut().skip(2_000).take(1).for_each(|byte| *byte ^= 1));
    let over = yard.watched();
    over.intercept(move |call: &Call| if is_pack(call) { flips() } else { Fate::Works });
    let done = yard.prune_over(&over).unwrap();
    assert_eq!(done.repacked.packs, 0, "{done:?}");
    assert!(
        done.notes.iter().any(|note| note.to_string().contains("a pack that is not repacked")),
        "{done:?}"
    );
    yard.holds(&[&kept]);
    assert_eq!(yard.prune().repacked.packs, 1);
    yard.holds(&[&kept]);
}

#[test]
fn a_list_that_is_cut_short_makes_it_refuse() {
    let yard = Yard::new();
    let contents: Vec<Files> = (0..9).map(|number| files(&[number])).collect();
    let snapshots: Vec<ObjectId> = contents.iter().map(|files| yard.back_up(files)).collect();
    yard.forget(snapshots[0]);
    yard.wait(2 * DAY);
    yard.prune();
    yard.wait(4 * DAY);
    let kept: Vec<&Files> = contents[1..].iter().collect();
    for prefix in ["packs", "index", "snapshots"] {
        let yard = yard.copy();
        let before = yard.packs();
        let over = yard.watched();
        let is_list = move |call: &Call| call.kind == Kind::List && call.name.ends_with(prefix);
        // What a `forget` has left is looked for before, and what a LIST hides is looked for afterwards.
        let number = usize::from(prefix == "snapshots");
        let cut = |all: &mut Vec<object_store::ObjectMeta>| {
            all.sort_by(|a, b| a.location.cmp(&b.location));
            all.truncate(all.len() / 2);
        };
        let chosen = nth(number, Fault::LosesPage, is_list);
        over.intercept(move |call: &Call| match chosen(call) {
            Fate::Works => Fate::Works,
            _ => Fate::Shows(cut),
        });
        let error = yard.prune_over(&over).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{prefix}: {error}");
        assert!(error.remedy().is_some(), "{prefix}: {error:?}");
        assert_eq!(yard.packs(), before, "{prefix}");
        yard.prune();
        yard.holds(&kept);
    }
}

/// Objects of every kind that a prune lists: packs that are due, some of them needed again, a snapshot that ended and is
/// held, objects that are set aside, records that are old. With what has to come back, that snapshot as the fifth.
fn with_everything() -> (Yard, Vec<Files>) {
    let marked = marked();
    marked.needed_again();
    let all: Vec<Files> =
        marked.all().into_iter().cloned().chain([20, 21, 22].map(|content| files(&[content]))).collect();
    let yard = marked.yard;
    let [held, ended, last] = [4, 5, 6].map(|at: usize| yard.back_up(&all[at]));
    let of =
        |id: ObjectId| Chosen { references: vec![Reference::Id(id.to_string())], filter: Filter::default() };
    for id in [held, last] {
        let change = TagChange { add: vec!["tag".to_owned()], ..TagChange::default() };
        annotate::tag(&yard.owner(), &of(id), &change, Mode::Write).unwrap();
    }
    annotate::place(&yard.owner(), &of(held), "a case", Mode::Write).unwrap();
    yard.forget(ended);
    // As of a `forget` that began before the hold.
    let forgotten = Forgotten::new(Timestamp::default(), vec![held], "");
    let domain = yard.owner().own_domain().unwrap();
    yard.owner().publish_forgotten(&domain, &forgotten).unwrap();
    let index = yard.having("/index/").remove(0);
    for digit in ["0", "1"] {
        let name = index.to_str().unwrap();
        let damaged = PathBuf::from(format!("{}{}", name.split_at(name.len() - 8).0, digit.repeat(8)));
        fs::write(&damaged, "garbage").unwrap();
        let names = vec![damaged.strip_prefix(yard.path()).unwrap().to_str().unwrap().to_owned()];
        let aside = AsideOptions { names, reason: None, force: Force::No, mode: Mode::Write };
        assert_eq!(repair::set_aside(&yard.owner(), &aside).unwrap().len(), 1);
    }
    yard.wait(2 * DAY);
    assert!(yard.prune().marked.packs > 0);
    yard.wait(100 * DAY);
    let kept = all.iter().enumerate().filter(|(at, _)| *at != 5).map(|(_, files)| files.clone());
    (yard, kept.collect())
}

/// What makes another LIST of one.
type Change = fn(&mut Vec<object_store::ObjectMeta>);

/// Of two objects each half hides one.
const HALVES: [(&str, Change); 2] = [
    ("the first half", |all| {
        all.sort_by(|a, b| a.location.cmp(&b.location));
        all.truncate(all.len() / 2);
    }),
    ("the second half", |all| {
        all.sort_by(|a, b| a.location.cmp(&b.location));
        drop(all.drain(..all.len() / 2));
    }),
];

const TWICE: (&str, Change) =
    ("all of it twice", |all| *all = all.iter().flat_map(|one| [one.clone(), one.clone()]).collect());

/// What a LIST of a domain is of.
fn listed(call: &Call) -> Option<String> {
    let kind = call.name.rsplit('/').next()?.to_owned();
    (call.kind == Kind::List && call.name.starts_with("d/")).then_some(kind)
}

/// Changes the LIST of this number of a kind, or each one.
fn changing(wanted: &str, number: Option<usize>, change: Change) -> impl Fn(&Call) -> Fate + 'static {
    let (wanted, seen) = (wanted.to_owned(), AtomicUsize::new(0));
    move |call: &Call| {
        if listed(call).as_ref() != Some(&wanted) {
            return Fate::Works;
        }
        let at = seen.fetch_add(1, Ordering::SeqCst);
        if number.is_none_or(|number| number == at) { Fate::Shows(change) } else { Fate::Works }
    }
}

impl Yard {
    /// The snapshots that another one has, as from the versions of a bucket. Says whether any was gone.
    fn put_back_snapshots(&self, from: &Self) -> bool {
        let mut any = false;
        for path in from.having("/snapshots/") {
            let there = self.path().join(path.strip_prefix(from.path()).unwrap());
            if !there.exists() {
                fs::copy(&path, &there).unwrap();
                let stored = fs::metadata(&path).unwrap().modified().unwrap();
                File::open(&there).unwrap().set_modified(stored).unwrap();
                any = true;
            }
        }
        any
    }
}

/// Whether one LIST is not true or each of its kind. One case is beyond the protocol: that the LIST of annotations hides
/// the hold of a snapshot that a record ends. That snapshot is deleted then, and nothing that it needs.
#[test]
fn a_list_of_any_kind_that_is_not_true_frees_nothing_that_is_needed() {
    let (yard, kept) = with_everything();
    let kept: Vec<&Files> = kept.iter().collect();
    let mut lists: BTreeMap<String, usize> = BTreeMap::new();
    {
        let yard = yard.copy();
        let over = yard.watched();
        let done = yard.prune_over(&over).unwrap();
        assert!(done.deleted.packs > 3 && done.rescued.packs > 0 && done.index_deleted > 0, "{done:?}");
        assert!(done.records_deleted > 0, "{done:?}");
        over.calls().iter().filter_map(listed).for_each(|kind| *lists.entry(kind).or_default() += 1);
        yard.holds(&kept);
    }
    let kinds: Vec<&str> = lists.keys().map(String::as_str).collect();
    let expected = [
        "annotations",
        "attestations",
        "forgotten",
        "index",
        "packs",
        "quarantine",
        "runs",
        "snapshots",
        "tombstones",
    ];
    assert_eq!(kinds, expected);
    let (mut refused, mut hidden_holds) = (BTreeSet::new(), 0);
    for (kind, count) in &lists {
        let numbers = || (0..*count).map(Some).chain([None]);
        let halves = HALVES.into_iter().flat_map(|half| numbers().map(move |number| (half, number)));
        for ((shown, change), number) in halves.chain([(TWICE, None)]) {
            // Shown when something below fails.
            println!("{kind}: {shown}, LIST {number:?}");
            let copy = yard.copy();
            let over = copy.watched();
            over.intercept(changing(kind, number, change));
            if copy.prune_over(&over).is_err() {
                refused.insert(kind.as_str());
            }
            if kind == "annotations" && shown != TWICE.0 && copy.put_back_snapshots(&yard) {
                hidden_holds += 1;
            }
            copy.restores(&kept);
            copy.prune();
            copy.holds(&kept);
        }
    }
    // In the first LIST, which decides what to delete, and in all of them: one of the two halves hides it.
    assert_eq!(hidden_holds, 2);
    for kind in ["forgotten", "index", "packs", "quarantine", "snapshots"] {
        assert!(refused.contains(kind), "{kind}: {refused:?}");
    }
}

#[test]
fn damage_of_what_is_needed_makes_it_refuse_that_domain_and_no_other() {
    let yard = Yard::new();
    let other = yard.add_key(Role::Backup, "other", None);
    let mine = files(&[1]);
    let (first, second) = (lab::back_up(&other, &mine).unwrap(), lab::back_up(&other, &files(&[2])).unwrap());
    yard.back_up(&mine);
    yard.forget(first.snapshot.unwrap().0);
    drop(second);
    yard.wait(2 * DAY);
    // The manifest of the first domain.
    let domain = yard.owner().own_domain().unwrap().to_string();
    let [manifest] = &yard.having(&format!("{domain}/packs/m/"))[..] else { panic!("one manifest") };
    let mut bytes = fs::read(manifest).unwrap();
    bytes.iter_mut().skip(1300).take(50).for_each(|byte| *byte ^= 1);
    fs::write(manifest, bytes).unwrap();
    let pruned = prune::run(&yard.owner(), &options()).unwrap();
    let mut marked = 0;
    for domain_done in pruned.domains {
        if domain_done.id.to_string() == domain {
            let error = domain_done.refused.unwrap();
            assert!(error.to_string().contains("/snapshots/"), "{error}");
            assert!(error.remedy().unwrap().contains("check"), "{error:?}");
        } else {
            marked += domain_done.done.marked.packs;
        }
    }
    assert!(marked > 0);
}

fn forged_tombstones(repository: &Repository) -> Name {
    let domain = repository.own_domain().unwrap();
    let view = repository.view(&domain).unwrap();
    let packs = view.index.packs().map(|pack| pack.id).collect();
    let plain = Tombstones { time: Timestamp::from_seconds(1), packs }.encode();
    let sealed = forger::seal(repository, domain, RecordKind::Tombstones, &plain);
    let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
    let name = Name::record(&domain, Folder::Tombstones, &id);
    repository.store.create(&name, Bytes::from(sealed)).unwrap();
    name
}

#[test]
fn tombstones_of_a_key_that_may_not_write_them_kill_nothing() {
    let yard = Yard::new();
    let kept = files(&[1, 2]);
    yard.back_up(&kept);
    let client = yard.add_key(Role::Backup, "client", Some("main"));
    let forged = forged_tombstones(&client);
    yard.wait(40 * DAY);
    let before = yard.packs();
    let done = yard.prune();
    assert_eq!((done.deleted.packs, done.marked.packs, done.waiting.packs), (0, 0, 0));
    let told: Vec<String> = done.notes.iter().map(ToString::to_string).collect();
    assert!(
        told.iter().any(|note| note.contains(forged.as_str()) && note.contains("may not write it")),
        "{told:?}"
    );
    assert_eq!(yard.packs(), before);
    let (known, _) = yard.owner().snapshots().unwrap();
    assert_eq!(lab::restore(&yard.owner(), &known[0]).unwrap().0, kept);
}

/// The domain is refused, and what was done is told all the same.
#[track_caller]
fn refused_for_a_clock(yard: &Yard) -> DomainDone {
    let pruned = prune::run(&yard.owner(), &options()).unwrap();
    assert!(pruned.stopped.is_none());
    let [domain] = <[_; 1]>::try_from(pruned.domains).unwrap();
    let error = domain.refused.expect("it must refuse");
    assert!(error.kind() == ErrorKind::Failed && error.to_string().contains("the clocks was set"), "{error}");
    assert!(error.remedy().unwrap().contains("the next one goes on"), "{error:?}");
    domain.done
}

#[test]
fn a_storage_whose_clock_was_set_is_no_proof_that_the_grace_is_over() {
    let Marked { yard, kept, marked, .. } = marked();
    let before = yard.packs();
    yard.storage_gains(30 * DAY);
    let (files, planned) = (yard.files(), prune::run(&yard.owner(), &dry()).and_then(only));
    assert_eq!((planned.unwrap_err().kind(), yard.files()), (ErrorKind::Failed, files));
    let done = refused_for_a_clock(&yard);
    assert_eq!((done.deleted.packs, done.marked.packs), (0, marked), "{done:?}");
    assert_eq!(yard.packs(), before);
    // What was marked once more is not marked a third time, and dies when the grace is over by both clocks.
    let again = yard.prune();
    assert_eq!((again.marked.packs, yard.packs()), (0, before));
    // Nobody is told of a time that is long over.
    assert!(again.next_deletion.unwrap() > yard.clock().now(), "{again:?}");
    yard.wait(4 * DAY);
    assert_eq!(yard.prune().deleted.packs, marked);
    yard.holds(&[&kept[0], &kept[1]]);
}

/// Index objects that are superfluous and younger than the grace, a batch of tombstones that is of no use and younger
/// than a month, records of runs, packs that wait and one that is worth repacking: a jump would make all of it old.
#[test]
fn when_the_clock_of_the_storage_jumps_nothing_goes_for_its_age_in_that_run() {
    let Marked { yard, kept, marked, .. } = marked();
    yard.wait(4 * DAY);
    assert_eq!(yard.prune().deleted.packs, marked);
    yard.wait(4 * DAY);
    yard.prune();
    yard.forget(yard.owner().snapshots().unwrap().0[0].name.id);
    assert!(yard.prune().marked.packs > 0);
    let mut wasteful: Files = [("srv/b".to_owned(), noise(8, 5_000_000))].into();
    wasteful.insert("srv/a".to_owned(), noise(9, 90_000));
    let ended = yard.back_up(&wasteful);
    wasteful.remove("srv/b");
    yard.back_up(&wasteful);
    yard.forget(ended);
    yard.wait(4 * DAY);
    let moves_nothing = PruneOptions { max_unused: Unused::Any, ..options() };
    let done = only(prune::run(&yard.owner(), &moves_nothing).unwrap()).unwrap();
    assert!(done.deleted.packs > 0 && done.marked.packs > 0 && done.index_written > 0, "{done:?}");

    yard.storage_gains(400 * DAY);
    let before = yard.files();
    let is_there = |path: &PathBuf| path.exists();
    let jumped = refused_for_a_clock(&yard);
    assert!(before.iter().all(is_there), "{jumped:?}");
    assert_eq!((jumped.marked, jumped.repacked.packs), (done.marked, 0), "{jumped:?}");
    // One batch, and the record of the run.
    assert_eq!(yard.files().len(), before.len() + 2);
    // The next run goes on, and takes nothing for older than it is known to be.
    let next = yard.prune();
    assert!(before.iter().all(is_there), "{next:?}");
    assert!(next.repacked.packs > 0, "{next:?}");
    yard.wait(4 * DAY);
    let last = yard.prune();
    assert!(last.index_deleted > 0 && last.deleted.packs > jumped.marked.packs, "{last:?}");
    assert_eq!(last.records_deleted, 0, "{last:?}");
    yard.wait(31 * DAY);
    assert!(yard.prune().records_deleted > 0);
    yard.holds(&[&kept[1], &wasteful]);
}

#[test]
fn a_prune_whose_clock_was_years_ahead_holds_up_nothing_for_years() {
    let yard = Yard::new();
    let (first, kept) = (yard.back_up(&files(&[1])), files(&[2]));
    yard.back_up(&kept);
    yard.forget(first);
    yard.wait(2 * DAY);
    yard.ahead.set(yard.ahead.get() + 3_650 * DAY);
    let marked = yard.prune().marked.packs;
    assert!(marked > 0);
    yard.ahead.set(yard.ahead.get() - 3_650 * DAY);
    yard.wait(2 * DAY);
    assert_eq!(yard.prune().marked.packs, 0);
    yard.wait(2 * DAY);
    assert_eq!(refused_for_a_clock(&yard).marked.packs, marked);
    for deleted in [0, marked] {
        yard.wait(2 * DAY);
        let done = yard.prune();
        assert_eq!((done.marked.packs, done.deleted.packs), (0, deleted), "{done:?}");
    }
    yard.holds(&[&kept]);
}

/// Nobody can tell it from a first backup that was not finished, so it stays.
#[test]
fn the_packs_of_a_key_whose_snapshots_are_all_gone_stay() {
    the_packs_of_nobody_stay(0, |_, _| {});
}

/// The objects of whoever compacts the index, or repairs it, list them then; or nothing does.
#[test]
fn they_stay_too_if_no_index_object_of_that_key_is_left() {
    let lose_index = |yard: &Yard, client: &Repository| {
        let index = yard.having(&format!("/index/{}", client.identity()));
        index.iter().for_each(|path| fs::remove_file(path).unwrap());
    };
    // What no index lists is looked at after twice the grace.
    the_packs_of_nobody_stay(1, lose_index);
    the_packs_of_nobody_stay(0, |yard, client| {
        lose_index(yard, client);
        repair::index(&yard.owner(), Mode::Write).unwrap();
    });
}

/// So many prunes say nothing of them, and each later one does.
fn the_packs_of_nobody_stay(silent: usize, lose: impl Fn(&Yard, &Repository)) {
    let yard = Yard::new();
    yard.back_up(&files(&[1]));
    let client = yard.add_key(Role::Backup, "client", Some("main"));
    let id = lab::back_up(&client, &files(&[2])).unwrap().snapshot.unwrap().0;
    let gone = yard.having(&id.to_string());
    let bytes = fs::read(&gone[0]).unwrap();
    fs::remove_file(&gone[0]).unwrap();
    lose(&yard, &client);
    let before = yard.packs();
    for round in 0..3 {
        yard.wait(4 * DAY);
        let done = yard.prune();
        assert_eq!((done.marked.packs, done.deleted.packs), (0, 0), "{done:?}");
        let is_told = done.notes.iter().any(|note| note.to_string().contains("have no snapshot"));
        assert_eq!(is_told, round >= silent, "{:?}", done.notes);
    }
    assert_eq!(yard.packs(), before);
    // It comes back whole.
    fs::write(&gone[0], bytes).unwrap();
    repair::index(&yard.owner(), Mode::Write).unwrap();
    yard.holds(&[&files(&[1]), &files(&[2])]);
}

/// Its index object is damaged in the storage, and the machine that prunes has read it before.
#[test]
fn what_was_deleted_before_something_is_in_doubt_is_told() {
    let Marked { yard, marked, .. } = marked();
    yard.wait(4 * DAY);
    let over = yard.watched();
    let index: Vec<PathBuf> = yard.having("/index/");
    over.intercept(move |call: &Call| {
        if call.kind == Kind::Delete && call.name.contains("/packs/") {
            index.iter().for_each(|path| fs::write(path, b"garbage").unwrap());
        }
        Fate::Works
    });
    let pruned = prune::run(&yard.owner_over(&over).unwrap(), &options()).unwrap();
    let [domain] = <[_; 1]>::try_from(pruned.domains).unwrap();
    assert_eq!(domain.refused.unwrap().kind(), ErrorKind::Damaged);
    assert_eq!(domain.done.deleted.packs, marked);
}

/// As if a backup had been killed before its commit: no snapshot, and perhaps no index object.
fn interrupted(yard: &Yard, files: &Files, keeps_index: bool) -> BTreeSet<PathBuf> {
    let before: BTreeSet<PathBuf> = yard.files().into_iter().collect();
    yard.back_up(files);
    let new: Vec<PathBuf> = yard.files().into_iter().filter(|path| !before.contains(path)).collect();
    for path in &new {
        let text = path.to_str().unwrap();
        if text.contains("/snapshots/") || text.contains("/index/") && !keeps_index {
            fs::remove_file(path).unwrap();
        }
    }
    new.into_iter().filter(|path| path.to_str().unwrap().contains("/packs/")).collect()
}

#[test]
fn packs_that_no_index_lists_die_when_no_backup_can_be_about_to_list_them() {
    let yard = Yard::new();
    let kept = files(&[1]);
    yard.back_up(&kept);
    let left = interrupted(&yard, &files(&[5, 6]), false);
    assert!(!left.is_empty());
    yard.wait(3 * DAY);
    assert_eq!(yard.prune().marked.packs, 0, "younger than a day and the grace");
    yard.wait(2 * DAY);
    assert_eq!(yard.prune().marked.packs, left.len() as u64);
    yard.wait(4 * DAY);
    assert_eq!(yard.prune().deleted.packs, left.len() as u64);
    assert!(yard.packs().is_disjoint(&left));
    yard.holds(&[&kept]);
}

#[test]
fn what_a_backup_that_runs_for_days_has_stored_is_left_alone() {
    let yard = Yard::new();
    let kept = files(&[1]);
    yard.back_up(&kept);
    yard.wait(DAY);
    let left = interrupted(&yard, &files(&[5, 6]), true);
    yard.wait(2 * DAY);
    // It has written an index object just now.
    let index = yard.having("/index/");
    let newest = index.iter().max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap();
    File::open(newest).unwrap().set_modified(SystemTime::now()).unwrap();
    let done = yard.prune();
    assert_eq!((done.marked.packs, done.under_way.packs), (0, left.len() as u64), "{done:?}");
    // It fell silent.
    yard.wait(2 * DAY);
    let done = yard.prune();
    assert_eq!((done.marked.packs, done.under_way.packs), (left.len() as u64, 0), "{done:?}");
    yard.holds(&[&kept]);
}

#[test]
fn only_who_maintains_prunes_and_the_grace_only_grows() {
    let Marked { yard, kept, marked, .. } = marked();
    let maintain = yard.new_key(Role::Maintain, "maintain", None);
    yard.wait(4 * DAY);
    let maintain = yard.open_as(&yard.store(), &maintain).unwrap();
    for role in [Role::Backup, Role::Audit, Role::Restore] {
        let domain = (role == Role::Backup).then_some("main");
        let error = prune::run(&yard.add_key(role, role.name(), domain), &options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{role:?}");
    }
    let with = |days: i64| PruneOptions {
        grace: Some(Duration::from_secs((days * DAY).unsigned_abs())),
        ..options()
    };
    let refused: Error = prune::run(&maintain, &with(2)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Usage);
    let longer = only(prune::run(&maintain, &with(10)).unwrap()).unwrap();
    assert_eq!((longer.deleted.packs, longer.waiting.packs), (0, marked));
    // No time is left for anything: what is there is still looked at, and the next run goes on.
    let none = PruneOptions { max_time: Some(Duration::ZERO), ..options() };
    let short = only(prune::run(&maintain, &none).unwrap()).unwrap();
    assert!(short.out_of_time && short.deleted.packs == 0, "{short:?}");
    assert!(!maintain.reads_data());
    let done = only(prune::run(&maintain, &options()).unwrap()).unwrap();
    assert_eq!(done.deleted.packs, marked);
    yard.holds(&[&kept[0], &kept[1]]);
}

#[test]
fn a_forget_that_was_killed_is_finished() {
    let yard = Yard::new();
    let (first, kept) = (yard.back_up(&files(&[1])), files(&[2]));
    yard.back_up(&kept);
    let snapshots = yard.having("/snapshots/");
    let bytes: Vec<Vec<u8>> = snapshots.iter().map(|path| fs::read(path).unwrap()).collect();
    yard.forget(first);
    for (path, bytes) in snapshots.iter().zip(bytes) {
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(yard.prune().finished, 1);
    assert_eq!(yard.having("/snapshots/").len(), 1);
    yard.holds(&[&kept]);
}

#[test]
fn the_command_says_what_it_does_and_forget_can_be_followed_by_it() {
    let world = World::with_repository();
    for content in ["1", "2", "3"] {
        fs::write(world.path("src/one"), content).unwrap();
        world.does(&["backup", &world.text("src")]);
    }
    let snapshots = world.messages(&["snapshots"]);
    let first = snapshots.iter().find(|message| message["message_type"] == "snapshot").unwrap();
    let id = first["id"].as_str().unwrap();
    let messages = world.messages(&["forget", id, "--prune"]);
    let [forgotten, pruned] = ["forget", "prune"]
        .map(|kind| messages.iter().find(|message| message["message_type"] == kind).unwrap());
    assert_eq!(forgotten["kept"], false);
    // Nothing is a day old, so nothing is marked.
    assert_eq!((pruned["name"].as_str(), pruned["marked"]["packs"].as_u64()), (Some("main"), Some(0)));
    assert_eq!(pruned["before"]["packs"], pruned["after"]["packs"]);
    assert!(pruned["before"]["requests"].as_u64().unwrap() > 3);
    assert_eq!(world.snapshots(), 2);
    let text = world.does(&["prune", "--dry-run"]);
    assert!(text.starts_with("main: 6 packs (") && text.contains("requests to look at"), "{text}");
    assert!(world.fails(&["prune", "--grace", "1h"], 2).contains("can only be made longer"));
    world.does(&["prune", "--grace", "100h", "--max-time", "1h"]);
    world.adds_client("web", None, &world.text("access"));
    let told = world.fails(&["--access-key-file", &world.text("access"), "prune"], 13);
    assert!(told.contains("maintain"), "{told}");
}

/// A check of everything takes days, and a prune runs each night.
#[test]
fn what_a_prune_deletes_beside_a_check_is_no_damage_and_what_another_deletes_is() {
    for is_pruned in [true, false] {
        let yard = Yard::new();
        let of = |content| Files::from([(format!("srv/{content}"), noise(content, 90_000))]);
        let first = yard.back_up(&of(1));
        let old = yard.packs();
        yard.back_up(&of(2));
        let new: Vec<PathBuf> = yard.packs().difference(&old).cloned().collect();
        yard.forget(first);
        yard.wait(2 * DAY);
        assert!(yard.prune().marked.packs > 0);
        let data = |path: &&PathBuf| path.to_str().unwrap().contains("/packs/d/");
        let victim = if is_pruned { old.iter().find(data) } else { new.iter().find(data) };
        let victim = victim.unwrap().strip_prefix(yard.path()).unwrap().to_str().unwrap().to_owned();
        let deleting = || {
            let (over, root, victim) = (yard.watched(), yard.path(), victim.clone());
            over.intercept(move |call: &Call| {
                if call.kind == Kind::Get && call.name == victim && root.join(&victim).exists() {
                    fs::rename(root.join(&victim), root.join("taken")).unwrap();
                }
                Fate::Works
            });
            over
        };
        let keyless = {
            let options = lab::options(yard.clock(), Arc::default(), 0);
            let store = Store::from_object_store(deleting(), "", options).unwrap();
            check::without_keys::run(&store, Subset::All, 1).unwrap()
        };
        assert_eq!(keyless.problems, [], "without keys nobody knows");
        assert!(
            keyless.notes.iter().any(|note| note.contains("1 object was deleted")),
            "{:?}",
            keyless.notes
        );
        fs::rename(yard.path().join("taken"), yard.path().join(&victim)).unwrap();
        let checked = lab::check_all(&yard.owner_over(&deleting()).unwrap()).unwrap();
        let told = checked.notes.iter().any(|note| note.contains("1 pack was deleted by a prune"));
        let problem = checked.problems.iter().any(|problem| problem.object == victim);
        assert_eq!(
            (told, problem, checked.problems.is_empty()),
            (is_pruned, !is_pruned, is_pruned),
            "{checked:?}"
        );
    }
}
