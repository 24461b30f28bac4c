//! The commands that are measured.

use std::{fs, path::Path, time::Duration};

use lifeboat::ops::{
    check::{Depth, Subset},
    forget::Mode,
    key, status,
    usage::{self, By},
};

use super::{
    calls::{self, Clients},
    world::{Place, World},
};

/// Of the packs a check reads so many.
const PERCENT: f64 = 10.0;

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
    /// The first snapshot, and one after ten files have changed.
    Diff,
    /// One file of the newest snapshot.
    RestoreOne,
    /// All of the newest snapshot.
    Restore,
    /// The same, compared with the files that came of it.
    Verify,
    Check,
    /// A tenth of the data too.
    CheckSubset,
    /// All of it.
    CheckData,
    /// Of one client, all files.
    Drill,
    Usage,
    Status,
    KeyList,
    /// Of the newest snapshot.
    Tag,
    Hold,
    /// The newest snapshot, without one file.
    Rewrite,
    /// Of the newest snapshots, to an empty repository: what is asked of the one that they are in.
    CopyFrom,
    /// And what is asked of the other.
    CopyTo,
    /// Where nothing is to be repaired.
    RepairIndex,
    RepairSnapshots,
    /// Where nothing is lost.
    Recover,
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
    pub(crate) const ALL: [Self; 29] = [
        Self::View,
        Self::Lookups,
        Self::Backup,
        Self::BackupChanged,
        Self::Snapshots,
        Self::Ls,
        Self::Diff,
        Self::RestoreOne,
        Self::Restore,
        Self::Verify,
        Self::Check,
        Self::CheckSubset,
        Self::CheckData,
        Self::Drill,
        Self::Usage,
        Self::Status,
        Self::KeyList,
        Self::Tag,
        Self::Hold,
        Self::Rewrite,
        Self::CopyFrom,
        Self::CopyTo,
        Self::RepairIndex,
        Self::RepairSnapshots,
        Self::Recover,
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
            Self::Diff => "diff of two snapshots",
            Self::RestoreOne => "restore of one file",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Check => "check",
            Self::CheckSubset => "check --read-data-subset 10%",
            Self::CheckData => "check --read-data",
            Self::Drill => "drill of a client",
            Self::Usage => "usage",
            Self::Status => "status",
            Self::KeyList => "key list",
            Self::Tag => "tag of a snapshot",
            Self::Hold => "hold of a snapshot",
            Self::Rewrite => "rewrite of a snapshot",
            Self::CopyFrom => "copy, asked of the source",
            Self::CopyTo => "copy, asked of the target",
            Self::RepairIndex => "repair index",
            Self::RepairSnapshots => "repair snapshots",
            Self::Recover => "recover",
            Self::ForgetDryRun => "forget --dry-run",
            Self::Forget => "forget",
            Self::Prune => "prune that marks",
            Self::PruneLater => "prune that deletes",
        }
    }

    /// Makes the world as the command is to find it; what it does itself then leaves that as it is.
    pub(crate) fn prepare(self, place: &Place) {
        match self {
            Self::Diff => drop(place.back_up(None, CHANGED)),
            Self::Verify => calls::restore(place, None),
            Self::PruneLater => drop(calls::prune(place, None)),
            _ => {}
        }
    }

    /// Removes what a run before has left on this machine: that is no part of what is measured.
    pub(crate) fn clear(self, place: &Place) {
        if self == Self::Restore {
            drop(fs::remove_dir_all(calls::restored(place)));
        }
    }

    /// Whether a cache makes a difference.
    pub(crate) const fn reads_a_cache(self) -> bool {
        !matches!(
            self,
            Self::Drill | Self::CopyTo | Self::RepairIndex | Self::RepairSnapshots | Self::Recover
        )
    }

    /// Whether it means something there: of made-up packs there is nothing to read.
    pub(crate) fn applies(self, world: World) -> bool {
        match world {
            World::Tree(_) => self == Self::Backup,
            World::Chunks(_) => !matches!(self, Self::CheckSubset | Self::CheckData),
            World::Small | World::Files(_) | World::Snapshots(_) | World::Domains(_) => self != Self::Lookups,
        }
    }

    /// What it writes that is not to stay is a draft, and so much later.
    const fn draft(self) -> Option<Duration> {
        match self {
            Self::CheckSubset
            | Self::CheckData
            | Self::Drill
            | Self::Tag
            | Self::Hold
            | Self::Rewrite
            | Self::ForgetDryRun
            | Self::Forget
            | Self::Prune => Some(Duration::ZERO),
            Self::PruneLater => Some(LATER),
            _ => None,
        }
    }

    pub(crate) fn run(self, place: &Place, cache: Option<&Path>) {
        if let Some(later) = self.draft() {
            place.objects.draft(later);
        }
        match self {
            Self::View => drop(calls::view(place, cache)),
            Self::Lookups => calls::look_up(place, cache),
            Self::Backup => {
                let done = place.back_up(cache, 0);
                assert_eq!(done.record.statistics.files, place.world.files());
            }
            Self::BackupChanged => drop(place.back_up(cache, CHANGED)),
            Self::Snapshots => drop(place.open(cache).snapshots().unwrap()),
            Self::Ls => calls::list(place, cache),
            Self::Diff => assert_eq!(calls::diff(place, cache), CHANGED + 1, "and their folder"),
            Self::RestoreOne => calls::restore_one(place, cache),
            Self::Restore => calls::restore(place, cache),
            Self::Verify => calls::verify(place, cache),
            Self::Check => calls::check(place, cache, Depth::Structure),
            Self::CheckSubset => calls::check(place, cache, Depth::Data(Subset::Percent(PERCENT))),
            Self::CheckData => calls::check(place, cache, Depth::Data(Subset::All)),
            Self::Drill => calls::drill(place, Clients::Main),
            Self::Usage => drop(usage::run(&place.open(cache), By::Client).unwrap()),
            Self::Status => drop(status::run(&place.open(cache), &LIMITS).unwrap()),
            Self::KeyList => drop(key::list(&place.open(cache)).unwrap()),
            Self::Tag => calls::tag(place, cache),
            Self::Hold => calls::hold(place, cache),
            Self::Rewrite => calls::rewrite(place, cache),
            Self::CopyFrom => _ = calls::copy(place, cache),
            Self::CopyTo => {
                let asked = calls::copy(place, cache);
                place.objects.replace(asked);
            }
            Self::RepairIndex => calls::repair_index(place),
            Self::RepairSnapshots => calls::repair_snapshots(place),
            Self::Recover => calls::recover(place),
            Self::ForgetDryRun => calls::forget(place, cache, Mode::DryRun),
            Self::Forget => calls::forget(place, cache, Mode::Write),
            Self::Prune => {
                let marked = calls::prune(place, cache).iter().map(|done| done.marked.packs).sum::<u64>();
                assert_eq!(marked, calls::dying(place));
            }
            Self::PruneLater => {
                let deleted = calls::prune(place, cache).iter().map(|done| done.deleted.packs).sum::<u64>();
                assert_eq!(deleted, calls::dying(place));
            }
        }
    }
}
