//! The commands that are measured, as the program runs them: each opens the repository anew.

use std::{path::Path, time::Duration};

use jiff::tz::TimeZone;
use lifeboat::{
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        select::Selection,
    },
    format::{pack::PackKind, tombstones::PACKS_MAX},
    ops::{
        check::{self, CheckOptions, Depth, Subset},
        forget::{self, Bucket, Count, ForgetOptions, GroupBy, MassRemoval, Mode, Rules, Which},
        key, list,
        prune::{self, DomainDone, PruneOptions},
        restore::{self, RestoreOptions},
        select::{Filter, Reference},
        status,
        usage::{self, By},
    },
    repository::{Repository, snapshots::KnownSnapshot},
};

use super::world::{HOST, Place, World};

/// Of the packs a check reads so many.
const PERCENT: f64 = 10.0;
/// Chunks that are looked up.
const LOOKUPS: u64 = 100_000;

/// Files that change before a backup.
const CHANGED: u64 = 10;

/// After so long the grace of what a prune has marked is over.
const LATER: Duration = Duration::from_hours(8 * 24);

/// For `status`: nobody is overdue, and what was read in the last month counts.
const LIMITS: status::Limits<'static> =
    status::Limits { backup: &|_| None, reading: Duration::from_hours(30 * 24) };

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Opening the repository, and a view of the domain.
    View,
    /// A hundred thousand lookups in that view, half of them in vain.
    Lookups,
    /// A backup with nothing changed.
    Backup,
    /// A backup with ten files changed.
    BackupChanged,
    Snapshots,
    /// One folder of the newest snapshot.
    Ls,
    /// One file of the newest snapshot.
    RestoreOne,
    Check,
    /// A tenth of the data too.
    CheckSubset,
    Usage,
    Status,
    KeyList,
    /// What would end, if only the newest snapshot of each group stayed.
    ForgetDryRun,
    /// The same, and it ends.
    Forget,
    /// A prune that finds packs that no snapshot needs, where there are such: it marks them.
    Prune,
    /// The next one, days later: it deletes them.
    PruneLater,
}

impl Command {
    pub(crate) const ALL: [Self; 16] = [
        Self::View,
        Self::Lookups,
        Self::Backup,
        Self::BackupChanged,
        Self::Snapshots,
        Self::Ls,
        Self::RestoreOne,
        Self::Check,
        Self::CheckSubset,
        Self::Usage,
        Self::Status,
        Self::KeyList,
        Self::ForgetDryRun,
        Self::Forget,
        Self::Prune,
        Self::PruneLater,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::View => "open and view",
            Self::Lookups => "100,000 lookups",
            Self::Backup => "backup, unchanged",
            Self::BackupChanged => "backup, 10 files changed",
            Self::Snapshots => "snapshots",
            Self::Ls => "ls of a folder",
            Self::RestoreOne => "restore of one file",
            Self::Check => "check",
            Self::CheckSubset => "check --read-data-subset 10%",
            Self::Usage => "usage",
            Self::Status => "status",
            Self::KeyList => "key list",
            Self::ForgetDryRun => "forget --dry-run",
            Self::Forget => "forget",
            Self::Prune => "prune that marks",
            Self::PruneLater => "prune that deletes",
        }
    }

    /// Makes the world as the command is to find it; what it does itself then leaves that as it is.
    pub(crate) fn prepare(self, place: &Place) {
        if self == Self::PruneLater {
            pruned(place, None);
        }
    }

    /// Whether it means something there: of made-up packs there is nothing to read.
    pub(crate) fn applies(self, world: World) -> bool {
        match world {
            World::Tree(_) => self == Self::Backup,
            World::Chunks(_) => self != Self::CheckSubset,
            World::Small | World::Files(_) | World::Snapshots(_) | World::Domains(_) => self != Self::Lookups,
        }
    }

    pub(crate) fn run(self, place: &Place, cache: Option<&Path>) {
        let (files, workers) = (place.world.files(), place.connections);
        match self {
            Self::ForgetDryRun | Self::Forget | Self::Prune => place.objects.draft(Duration::ZERO),
            Self::PruneLater => place.objects.draft(LATER),
            _ => {}
        }
        match self {
            Self::View => drop(view(place, cache)),
            Self::Lookups => look_up(place, cache),
            Self::Backup => {
                let done = place.back_up(cache, 0);
                assert_eq!(done.record.statistics.files, files);
            }
            Self::BackupChanged => drop(place.back_up(cache, CHANGED)),
            Self::Snapshots => drop(place.open(cache).snapshots().unwrap()),
            Self::Ls => {
                let repository = place.open(cache);
                let (snapshot, mut entries) = (newest(&repository), 0);
                let each = &mut |_: &_| {
                    entries += 1;
                    Ok(())
                };
                list::run(&repository, &snapshot, b"data/00000", each).unwrap();
                assert_eq!(entries, files.min(1000) + 1);
            }
            Self::RestoreOne => restore_one(&place.open(cache), workers),
            Self::Check => checked(place, cache, Depth::Structure),
            Self::CheckSubset => checked(place, cache, Depth::Data(Subset::Percent(PERCENT))),
            Self::Usage => drop(usage::run(&place.open(cache), By::Client).unwrap()),
            Self::Status => drop(status::run(&place.open(cache), &LIMITS).unwrap()),
            Self::KeyList => drop(key::list(&place.open(cache)).unwrap()),
            Self::ForgetDryRun => forgotten(place, cache, Mode::DryRun),
            Self::Forget => forgotten(place, cache, Mode::Write),
            Self::Prune => {
                let marked = pruned(place, cache).iter().map(|done| done.marked.packs).sum::<u64>();
                assert_eq!(marked, dying(place));
            }
            Self::PruneLater => {
                let deleted = pruned(place, cache).iter().map(|done| done.deleted.packs).sum::<u64>();
                assert_eq!(deleted, dying(place));
            }
        }
    }
}

fn view(place: &Place, cache: Option<&Path>) -> (Repository, lifeboat::repository::view::View) {
    let repository = place.open(cache);
    let view = repository.view(&repository.own_domain().unwrap()).unwrap();
    (repository, view)
}

fn look_up(place: &Place, cache: Option<&Path>) {
    let (repository, view) = view(place, cache);
    let Some((_, packs)) = place.packs() else { return };
    let step = packs.chunks() / (LOOKUPS / 2).min(packs.chunks());
    for number in (0..packs.chunks()).step_by(usize::try_from(step).unwrap()) {
        let there = |chunk| view.index.borrow(&packs.chunk(chunk), repository.identity(), PackKind::Data);
        assert!(there(number) && !there(number + packs.chunks()));
    }
}

fn newest(repository: &Repository) -> KnownSnapshot {
    let (snapshots, damaged) = repository.snapshots().unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    let filter = Filter { hosts: vec![HOST.to_owned()], ..Filter::default() };
    Reference::Latest(0).find(&snapshots, &filter).unwrap().clone()
}

fn restore_one(repository: &Repository, workers: usize) {
    let target = tempfile::tempdir().unwrap();
    let options = RestoreOptions {
        ownership: Ownership::new(OwnershipPolicy::Keep),
        subpath: b"data/00000/005.txt".to_vec(),
        selection: Selection::new(&[], &[]).unwrap(),
        workers,
        ..RestoreOptions::default()
    };
    let restored = restore::run(repository, &newest(repository), target.path(), &options).unwrap();
    assert_eq!((restored.files, restored.failures), (1, 0));
}

fn checked(place: &Place, cache: Option<&Path>, depth: Depth) {
    let options = CheckOptions { depth, workers: place.connections };
    let checked = check::run(&place.open(cache), options).unwrap();
    assert!(checked.problems.is_empty(), "{:?}", checked.problems);
}

/// Only the newest snapshot of each group stays.
fn forgotten(place: &Place, cache: Option<&Path>, mode: Mode) {
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
fn pruned(place: &Place, cache: Option<&Path>) -> Vec<DomainDone> {
    let pruned = prune::run(&place.open(cache), &PruneOptions::default()).unwrap();
    let of_domain = pruned.domains.into_iter().map(|domain| {
        assert!(domain.refused.is_none(), "{:?}", domain.refused);
        domain.done
    });
    of_domain.collect()
}

/// Packs that no snapshot needs, of which a prune marks so many: all that are made up.
fn dying(place: &Place) -> u64 {
    place.packs().map_or(0, |(_, packs)| packs.count.min(PACKS_MAX as u64))
}
