//! The commands as the program runs them: each opens the repository anew.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::tz::TimeZone;
use lifeboat::{
    compress::Compression,
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        rights,
        scratch::Afterwards,
        select::Selection,
    },
    format::{annotation::TagChange, pack::PackKind, tombstones::PACKS_MAX},
    ops::{
        annotate::{self, Chosen},
        check::{self, CheckOptions, Depth, Witness},
        copy::{self, CopyOptions, Outcome},
        diff::{self, DiffOptions},
        drill::{self, DrillOptions, Where},
        forget::{self, Bucket, Count, ForgetOptions, GroupBy, MassRemoval, Rules, Which},
        list,
        prune::{self, DomainDone, PruneOptions},
        recover::{self, RecoverOptions},
        repair::{self, SnapshotOptions},
        restore::{self, RestoreOptions},
        rewrite::{self, Old, RewriteOptions},
        select::{Filter, Reference},
        verify::{self, Owners, VerifyOptions},
    },
    repository::{Repository, snapshots::KnownSnapshot, view::View},
};

use super::{
    store::Requests,
    world::{HOST, Place, World},
};

/// Chunks that are looked up.
const LOOKUPS: u64 = 100_000;
/// Snapshots that are copied, at most: each is a backup.
const COPIES: usize = 20;
/// The name of the program, in what it writes.
const PROGRAM: &str = "scale";
/// One file.
const FILE: &str = "data/00000/005.txt";

/// Which clients are drilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    All,
    Main,
}

pub(crate) fn view(place: &Place, cache: Option<&Path>) -> (Repository, View) {
    let repository = place.open(cache);
    let view = repository.view(&repository.own_domain().unwrap()).unwrap();
    (repository, view)
}

pub(crate) fn look_up(place: &Place, cache: Option<&Path>) {
    let (repository, view) = view(place, cache);
    let Some((_, packs)) = place.packs() else { return };
    let step = packs.chunks() / (LOOKUPS / 2).min(packs.chunks());
    for number in (0..packs.chunks()).step_by(usize::try_from(step).unwrap()) {
        let there = |chunk| view.index.borrow(&packs.chunk(chunk), repository.identity(), PackKind::Data);
        assert!(there(number) && !there(number + packs.chunks()));
    }
}

/// The snapshots of the domain of the owner.
fn main() -> Filter {
    Filter { hosts: vec![HOST.to_owned()], ..Filter::default() }
}

fn snapshots(repository: &Repository) -> Vec<KnownSnapshot> {
    let (snapshots, damaged) = repository.snapshots().unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    snapshots
}

fn newest(repository: &Repository) -> KnownSnapshot {
    Reference::Latest(0).find(&snapshots(repository), &main()).unwrap().clone()
}

/// The newest one, as a command is told that changes it.
fn chosen() -> Chosen {
    Chosen { references: vec![Reference::Latest(0)], filter: main() }
}

pub(crate) fn list(place: &Place, cache: Option<&Path>) {
    let repository = place.open(cache);
    let (snapshot, mut entries) = (newest(&repository), 0);
    let each = &mut |_: &_| {
        entries += 1;
        Ok(())
    };
    list::run(&repository, &snapshot, b"data/00000", each).unwrap();
    assert_eq!(entries, place.world.files().min(1000) + 1);
}

/// How many entries differ between the first snapshot and the one that was written last.
pub(crate) fn diff(place: &Place, cache: Option<&Path>) -> u64 {
    let repository = place.open(cache);
    let snapshots = snapshots(&repository);
    let of_main = || snapshots.iter().filter(|known| main().matches(known));
    let first = of_main().min_by_key(|known| known.name.sequence).unwrap();
    let last = of_main().max_by_key(|known| known.name.sequence).unwrap();
    let done = diff::run(&repository, (first, last), &DiffOptions::default(), &mut |_| Ok(())).unwrap();
    assert_eq!((done.added.0, done.removed.0, done.lost), (0, 0, 0));
    done.changed.0
}

fn restoring(place: &Place) -> RestoreOptions {
    RestoreOptions {
        ownership: Ownership::new(OwnershipPolicy::Keep),
        workers: place.connections,
        ..RestoreOptions::default()
    }
}

pub(crate) fn restore_one(place: &Place, cache: Option<&Path>) {
    let (repository, target) = (place.open(cache), tempfile::tempdir().unwrap());
    let options = RestoreOptions { subpath: FILE.into(), ..restoring(place) };
    let restored = restore::run(&repository, &newest(&repository), target.path(), &options).unwrap();
    assert_eq!((restored.files, restored.failures), (1, 0));
}

/// Where the newest snapshot is restored, and verified.
pub(crate) fn restored(place: &Place) -> PathBuf {
    place.files.join("restored")
}

pub(crate) fn restore(place: &Place, cache: Option<&Path>) {
    let repository = place.open(cache);
    let restored =
        restore::run(&repository, &newest(&repository), &restored(place), &restoring(place)).unwrap();
    assert_eq!((restored.files, restored.failures), (place.world.files(), 0));
}

pub(crate) fn verify(place: &Place, cache: Option<&Path>) {
    let (repository, target) = (place.open(cache), restored(place));
    let options = VerifyOptions { owners: Owners::Ignore, ..VerifyOptions::default() };
    let verified = verify::run(&repository, &newest(&repository), Some(&target), &options).unwrap();
    assert_eq!((verified.files, verified.differing), (place.world.files(), 0), "{:?}", verified.differences);
}

pub(crate) fn check(place: &Place, cache: Option<&Path>, depth: Depth) {
    let options = CheckOptions { depth, workers: place.connections };
    let witness = Witness { machine: "machine", program: PROGRAM };
    let checked = check::run_and_record(&place.open(cache), options, witness).unwrap();
    assert!(checked.problems.is_empty(), "{:?}", checked.problems);
    assert_eq!(checked.recorded, depth != Depth::Structure);
}

/// Of all clients, or of that of the owner's domain alone. It reads from no cache.
pub(crate) fn drill(place: &Place, clients: Clients) {
    let options = DrillOptions {
        filter: if clients == Clients::All { Filter::default() } else { main() },
        sample: None,
        seed: 1,
        place: Where::Within(place.files.clone()),
        afterwards: Afterwards::Remove,
        owners: if rights::may_give_to_anybody() { Owners::Numbers } else { Owners::NotRoot },
        rpo: None,
        rto: None,
        checks: Vec::new(),
        check_timeout: Duration::from_secs(1),
        hidden: Vec::new(),
        unlock: Duration::ZERO,
        workers: place.connections,
        machine: "machine".to_owned(),
        program: PROGRAM.to_owned(),
    };
    let drilled = drill::run(&place.open(None), &options, &mut io::sink()).unwrap();
    assert!(drilled.passed() && drilled.stored.is_ok(), "{drilled:?}");
}

pub(crate) fn tag(place: &Place, cache: Option<&Path>) {
    let change = TagChange { add: vec!["tag".to_owned()], ..TagChange::default() };
    let tagged = annotate::tag(&place.open(cache), &chosen(), &change, annotate::Mode::Write).unwrap();
    assert_eq!(tagged.changed.len(), 1);
}

pub(crate) fn hold(place: &Place, cache: Option<&Path>) {
    let held = annotate::place(&place.open(cache), &chosen(), "a reason", annotate::Mode::Write).unwrap();
    assert_eq!(held.held.len(), 1);
}

pub(crate) fn rewrite(place: &Place, cache: Option<&Path>) {
    let repository = Arc::new(place.open(cache));
    let options = RewriteOptions {
        selection: Arc::new(Selection::new(&[], &[format!("/{FILE}")]).unwrap()),
        named: Vec::new(),
        old: Old::Keep,
        mode: rewrite::Mode::Write,
        zone: TimeZone::UTC,
        program: PROGRAM.to_owned(),
        workers: place.connections,
    };
    let done = rewrite::run(&repository, &[newest(&repository)], &options).unwrap();
    assert!(done.snapshots.iter().all(|one| one.copy.is_some() && one.left_out.entries == 1), "{done:?}");
    drop(repository);
    cache.into_iter().for_each(forget_what_was_seen);
}

/// The copy goes with the draft, and what has seen it would take that for a deletion.
fn forget_what_was_seen(cache: &Path) {
    for repository in fs::read_dir(cache).unwrap() {
        for name in ["seen", "chains"] {
            drop(fs::remove_file(repository.as_ref().unwrap().path().join(name)));
        }
    }
}

/// Copies the newest snapshots into an empty repository, and says what that was asked.
pub(crate) fn copy(place: &Place, cache: Option<&Path>) -> Requests {
    let folder = tempfile::tempdir_in(&place.files).unwrap();
    let target = place.another(folder.path());
    let (from, to) = (Arc::new(place.open(cache)), Arc::new(target.open(None)));
    let mut chosen = snapshots(&from);
    chosen.retain(|known| main().matches(known));
    chosen.drain(..chosen.len().saturating_sub(COPIES));
    let options = CopyOptions {
        mode: copy::Mode::Write,
        compression: Compression::Auto,
        program: PROGRAM.to_owned(),
        workers: place.connections,
    };
    let mut copies = 0;
    let each = &mut |copied: &copy::Copied| copies += usize::from(matches!(copied.outcome, Outcome::Made(_)));
    copy::run((&from, &to), &chosen, &options, each).unwrap();
    assert_eq!(copies, chosen.len());
    target.objects.take()
}

/// It reads from no cache.
pub(crate) fn repair_index(place: &Place) {
    let domains = repair::index(&place.open(None), repair::Mode::DryRun).unwrap();
    let faults = domains.iter().map(|of| of.done.set_aside.len() + of.done.unreadable.len()).sum::<usize>();
    assert_eq!((faults, domains.iter().map(|of| of.done.index_written).sum::<u64>()), (0, 0));
}

/// It reads from no cache.
pub(crate) fn repair_snapshots(place: &Place) {
    let options = SnapshotOptions {
        mode: repair::Mode::DryRun,
        program: PROGRAM.to_owned(),
        workers: place.connections,
    };
    let done = repair::snapshots(&Arc::new(place.open(None)), &options).unwrap();
    assert!(done.hurt.is_empty() && done.damaged.is_empty(), "{done:?}");
}

/// It reads from no cache.
pub(crate) fn recover(place: &Place) {
    let options = RecoverOptions {
        roots: Vec::new(),
        host: None,
        tags: Vec::new(),
        mode: recover::Mode::DryRun,
        program: PROGRAM.to_owned(),
        workers: place.connections,
    };
    let done = recover::run(&Arc::new(place.open(None)), &options).unwrap();
    assert!(done.nodes > 0 && done.found.is_empty() && done.doubts.is_empty(), "{done:?}");
}

/// Only the newest snapshot of each group stays.
pub(crate) fn forget(place: &Place, cache: Option<&Path>, mode: forget::Mode) {
    let rules = Rules { counts: vec![(Bucket::Last, Count::Most(1))], ..Rules::default() };
    let options = ForgetOptions {
        which: Which::ByRules(rules, Filter::default(), GroupBy::default()),
        floor: 1,
        mass_removal: MassRemoval::Allow,
        zone: TimeZone::UTC,
        mode,
    };
    let done = forget::run(&place.open(cache), &options).unwrap();
    let snapshots = if let World::Snapshots(count) = place.world { count } else { 1 };
    assert!(done.counts().1 >= snapshots - 1, "{:?}", done.counts());
}

/// What was done in each domain.
pub(crate) fn prune(place: &Place, cache: Option<&Path>) -> Vec<DomainDone> {
    let pruned = prune::run(&place.open(cache), &PruneOptions::default()).unwrap();
    let of_domain = pruned.domains.into_iter().map(|domain| {
        assert!(domain.refused.is_none(), "{:?}", domain.refused);
        domain.done
    });
    of_domain.collect()
}

/// Packs that no snapshot needs, of which a prune marks so many: all that are made up.
pub(crate) fn dying(place: &Place) -> u64 {
    place.packs().map_or(0, |(_, packs)| packs.count.min(PACKS_MAX as u64))
}
