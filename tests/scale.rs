//! How many requests each command makes of the storage, and what they grow with: the table in docs/scale.md.
//! `benches/scale` measures the same at full size.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]
#![allow(dead_code, reason = "the bench uses the rest of its modules")]

use std::{path::PathBuf, sync::Arc};

use object_store::memory::InMemory;

use self::{
    measure::Command::{self, *},
    store::Requests,
    world::{Place, World},
};

#[path = "../benches/scale/calls.rs"]
mod calls;
#[path = "../benches/scale/measure.rs"]
mod measure;
#[path = "../benches/scale/packs.rs"]
mod packs;
#[path = "../benches/scale/store.rs"]
mod store;
#[path = "../benches/scale/world.rs"]
mod world;

/// PUT, GET, HEAD, LIST and DELETE: without a cache, and with the one that the first run left.
type Counts = [[u64; 5]; 2];

/// What a command asks of the storage.
struct Law {
    command: Command,
    /// In a small repository of one domain.
    small: Counts,
    /// For each further snapshot; `forget` ends each, and `copy` copies each.
    snapshot: Counts,
    /// As soon as there is one more.
    second: Counts,
    /// For each further domain with a backup.
    domain: Counts,
    /// For a further page of packs and two further index objects, which a prune finds superfluous. Nothing where the packs are
    /// not made up of anything that the command could read.
    index: Option<Counts>,
    /// For a manifest that has one level more.
    level: Counts,
}

/// So many GET without a cache, and with one.
const fn gets(first: u64, again: u64) -> Counts {
    [[0, first, 0, 0, 0], [0, again, 0, 0, 0]]
}

/// The same with so many LIST in both cases.
const fn lists(first: u64, again: u64, list: u64) -> Counts {
    [[0, first, 0, list, 0], [0, again, 0, list, 0]]
}

/// As [`lists`], of a command that opens the repository: without a cache the slots are listed too.
const fn opens(first: u64, again: u64, list: u64) -> Counts {
    [[0, first, 0, list + 1, 0], [0, again, 0, list, 0]]
}

/// The same with a cache as without one.
const fn both(counts: [u64; 5]) -> Counts {
    [counts, counts]
}

const NONE: Counts = gets(0, 0);

/// What a command that reads one snapshot has in common with others, beside what it asks in a small repository.
const READS: Law = Law {
    command: Ls,
    small: NONE,
    snapshot: gets(1, 0),
    second: NONE,
    domain: lists(1, 0, 4),
    index: Some(lists(2, 0, 1)),
    level: gets(1, 1),
};

const LAWS: [Law; 28] = [
    Law {
        command: View,
        small: opens(4, 2, 6),
        snapshot: NONE,
        second: NONE,
        domain: NONE,
        index: Some(lists(2, 0, 1)),
        level: NONE,
    },
    Law {
        command: Backup,
        small: [[2, 7, 2, 14, 0], [2, 2, 2, 12, 0]],
        snapshot: NONE,
        second: NONE,
        domain: NONE,
        index: Some(lists(2, 0, 2)),
        level: gets(1, 0),
    },
    Law {
        command: BackupChanged,
        small: [[5, 7, 2, 14, 0], [2, 2, 2, 12, 0]],
        snapshot: NONE,
        second: NONE,
        domain: NONE,
        index: Some(lists(2, 0, 2)),
        level: gets(1, 0),
    },
    Law {
        command: Snapshots,
        small: opens(4, 2, 5),
        snapshot: gets(1, 0),
        second: NONE,
        domain: lists(1, 0, 4),
        index: Some(NONE),
        level: NONE,
    },
    Law { command: Ls, small: opens(7, 4, 9), ..READS },
    Law { command: Diff, small: opens(11, 6, 9), level: gets(2, 2), ..READS },
    Law { command: RestoreOne, small: opens(8, 5, 9), ..READS },
    Law { command: Restore, small: opens(8, 5, 9), ..READS },
    Law { command: Verify, small: opens(7, 4, 9), ..READS },
    Law {
        command: Check,
        small: opens(11, 8, 20),
        snapshot: gets(2, 1),
        second: NONE,
        domain: lists(5, 3, 17),
        index: Some(lists(4, 2, 1)),
        level: gets(1, 1),
    },
    Law {
        command: CheckSubset,
        small: [[1, 14, 0, 24, 0], [1, 11, 0, 23, 0]],
        snapshot: gets(2, 1),
        second: NONE,
        domain: [[0, 7, 0, 18, 0], [0, 5, 0, 18, 0]],
        index: None,
        level: gets(1, 1),
    },
    Law {
        command: CheckData,
        small: [[1, 15, 0, 24, 0], [1, 12, 0, 23, 0]],
        snapshot: gets(2, 1),
        second: NONE,
        domain: [[0, 8, 0, 18, 0], [0, 6, 0, 18, 0]],
        index: None,
        level: gets(1, 1),
    },
    Law {
        command: Drill,
        small: both([2, 13, 1, 16, 0]),
        snapshot: gets(1, 1),
        second: NONE,
        domain: lists(1, 1, 4),
        index: Some(lists(2, 2, 2)),
        level: gets(2, 2),
    },
    Law {
        command: Usage,
        small: opens(7, 4, 10),
        snapshot: gets(1, 0),
        second: NONE,
        domain: lists(3, 1, 8),
        index: Some(lists(2, 0, 2)),
        level: gets(1, 1),
    },
    Law {
        command: Status,
        small: opens(5, 2, 8),
        snapshot: gets(1, 0),
        second: NONE,
        domain: lists(2, 0, 6),
        index: Some(lists(0, 0, 1)),
        level: NONE,
    },
    Law {
        command: KeyList,
        small: opens(5, 4, 3),
        snapshot: NONE,
        second: NONE,
        domain: NONE,
        index: Some(NONE),
        level: NONE,
    },
    Law {
        command: Tag,
        small: [[1, 5, 0, 9, 0], [1, 3, 0, 8, 0]],
        snapshot: gets(1, 0),
        second: NONE,
        domain: lists(1, 0, 4),
        index: Some(NONE),
        level: NONE,
    },
    Law {
        command: Hold,
        small: [[1, 5, 0, 12, 0], [1, 3, 0, 11, 0]],
        snapshot: gets(1, 0),
        second: NONE,
        domain: lists(1, 0, 4),
        index: Some(NONE),
        level: NONE,
    },
    Law {
        command: Rewrite,
        small: [[4, 10, 2, 25, 0], [4, 7, 2, 24, 0]],
        snapshot: gets(1, 0),
        second: NONE,
        domain: lists(1, 0, 8),
        index: Some(lists(2, 0, 3)),
        level: gets(2, 2),
    },
    Law {
        command: CopyFrom,
        small: opens(8, 5, 13),
        snapshot: [[0, 5, 0, 4, 0], [0, 4, 0, 4, 0]],
        second: NONE,
        domain: lists(1, 0, 8),
        index: Some(lists(2, 0, 1)),
        level: gets(1, 1),
    },
    Law {
        command: CopyTo,
        small: both([5, 4, 2, 18, 0]),
        snapshot: both([2, 6, 2, 16, 0]),
        second: NONE,
        domain: NONE,
        index: Some(NONE),
        level: NONE,
    },
    Law {
        command: RepairIndex,
        small: lists(4, 4, 8),
        snapshot: NONE,
        second: NONE,
        domain: lists(1, 1, 5),
        index: Some(lists(2, 2, 1)),
        level: NONE,
    },
    Law {
        command: RepairSnapshots,
        small: lists(7, 7, 10),
        snapshot: gets(1, 1),
        second: NONE,
        domain: lists(3, 3, 8),
        index: Some(lists(2, 2, 1)),
        level: gets(1, 1),
    },
    Law {
        command: Recover,
        small: lists(6, 6, 11),
        snapshot: gets(1, 1),
        second: NONE,
        domain: NONE,
        index: Some(lists(2, 2, 1)),
        level: NONE,
    },
    Law {
        command: ForgetDryRun,
        small: opens(4, 2, 5),
        snapshot: gets(1, 0),
        second: lists(1, 1, 3),
        domain: lists(1, 0, 4),
        index: Some(NONE),
        level: NONE,
    },
    Law {
        command: Forget,
        small: opens(4, 2, 8),
        snapshot: [[0, 1, 0, 0, 1], [0, 0, 0, 0, 1]],
        second: both([1, 3, 0, 4, 0]),
        domain: lists(1, 0, 7),
        index: Some(NONE),
        level: NONE,
    },
    Law {
        command: Prune,
        small: [[1, 7, 1, 21, 0], [1, 4, 1, 20, 0]],
        snapshot: gets(1, 0),
        second: NONE,
        domain: [[1, 3, 1, 18, 0], [1, 1, 1, 18, 0]],
        index: Some([[1, 3, 1, 1, 0], [1, 1, 1, 1, 0]]),
        level: gets(1, 1),
    },
    Law {
        command: PruneLater,
        small: [[1, 7, 1, 21, 0], [1, 4, 1, 20, 0]],
        snapshot: gets(1, 0),
        second: NONE,
        domain: [[1, 3, 1, 18, 0], [1, 1, 1, 18, 0]],
        // Each pack and each index object that goes is one DELETE.
        index: Some([[0, 6, 0, 2, 1094 + 2], [0, 3, 0, 2, 1094 + 2]]),
        level: gets(1, 1),
    },
];

/// Some disks need milliseconds to remove a file.
fn folder_in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The objects of a world.
fn objects(world: World) -> InMemory {
    let objects = Arc::new(InMemory::new());
    Place::make(world, Arc::<InMemory>::clone(&objects), 1, PathBuf::new());
    objects.fork()
}

fn requests(command: Command, (world, objects): (World, &InMemory)) -> Counts {
    let (files, cache) = (folder_in_memory(), tempfile::tempdir().unwrap());
    let place = Place::of(world, Arc::new(objects.fork()), 1, files.path().to_owned());
    command.prepare(&place);
    place.objects.take();
    [0, 1].map(|_| {
        command.clear(&place);
        command.run(&place, Some(cache.path()));
        let Requests { put, get, head, list, list_packs: _, delete } = place.objects.take();
        [put, get, head, list, delete]
    })
}

/// What the law says of so many more of something.
fn expected(small: Counts, count: u64, each: Counts) -> Counts {
    [0, 1].map(|run| [0, 1, 2, 3, 4].map(|kind| small[run][kind] + count * each[run][kind]))
}

#[test]
fn every_command_has_a_law() {
    let without: Vec<_> =
        Command::ALL.into_iter().filter(|command| LAWS.iter().all(|law| law.command != *command)).collect();
    // They ask nothing of the storage but what a view does.
    assert_eq!(without, [Lookups]);
}

impl Law {
    /// What it says of a world; nothing where the command means nothing.
    fn of(&self, world: World) -> Option<Counts> {
        let Self { small, snapshot, second, domain, index, level, .. } = *self;
        match world {
            World::Small => Some(small),
            World::Snapshots(count) => Some(expected(expected(small, count - 1, snapshot), 1, second)),
            World::Domains(count) => Some(expected(small, count - 1, domain)),
            World::Chunks(_) => index.map(|index| expected(small, 1, index)),
            World::Files(_) => Some(expected(small, 1, level)),
            World::Tree(_) => None,
        }
    }
}

/// The last but one has 1,094 packs in two index objects.
const WORLDS: [World; 5] =
    [World::Small, World::Snapshots(20), World::Domains(4), World::Chunks(140_000), World::Files(3000)];

#[test]
fn requests_grow_with_nothing_but_what_the_laws_name() {
    let mut broken = Vec::new();
    for world in WORLDS {
        let objects = objects(world);
        for law in LAWS {
            let (command, says) = (law.command, law.of(world));
            assert_eq!(says.is_some(), command.applies(world), "{} in {world:?}", command.name());
            let Some(says) = says else { continue };
            let made = requests(command, (world, &objects));
            assert!(command.reads_a_cache() || made[0] == made[1], "{} in {world:?}", command.name());
            if made != says {
                broken.push(format!("{} in {world:?}: {made:?} and not {says:?}", command.name()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Of each further one 12 requests, beside the 5 that its domain costs all who look at snapshots.
#[test]
fn a_drill_asks_for_each_client_the_same() {
    let asked = [1, 2, 5].map(|count| {
        let files = folder_in_memory();
        let objects = Arc::new(objects(World::Domains(count)));
        let place = Place::of(World::Domains(count), objects, 1, files.path().to_owned());
        calls::drill(&place, calls::Clients::All);
        place.objects.take().all()
    });
    assert_eq!(asked, [32, 32 + 17, 32 + 4 * 17]);
}

/// The budget of a client that backs up every hour: beside the two lists of packs, 16 requests.
#[test]
fn an_unchanged_backup_costs_sixteen_requests_and_two_lists_of_packs() {
    let [_, again] = requests(Backup, (World::Small, &objects(World::Small)));
    assert_eq!(again.iter().sum::<u64>(), 16 + 2);
}
