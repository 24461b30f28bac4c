//! How many requests each command makes of the storage, and what they grow with: the table in docs/scale.md.
//! `benches/scale` measures the same at full size.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]
#![allow(dead_code, reason = "the bench uses the rest of its modules")]

use std::sync::Arc;

use object_store::memory::InMemory;

use self::{
    measure::Command::{self, *},
    store::Requests,
    world::{Place, World},
};

#[path = "../benches/scale/measure.rs"]
mod measure;
#[path = "../benches/scale/packs.rs"]
mod packs;
#[path = "../benches/scale/store.rs"]
mod store;
#[path = "../benches/scale/world.rs"]
mod world;

/// PUT, GET, HEAD and LIST: without a cache, and with the one that the first run left.
type Counts = [[u64; 4]; 2];

/// What a command asks of the storage.
struct Law {
    command: Command,
    /// In a small repository of one domain.
    small: Counts,
    /// For each further snapshot.
    snapshot: Counts,
    /// For each further domain with a backup.
    domain: Counts,
    /// For a further page of packs and two further index objects.
    index: Counts,
    /// For a manifest that has one level more.
    level: Counts,
}

/// So many GET without a cache, and with one.
const fn gets(first: u64, again: u64) -> Counts {
    [[0, first, 0, 0], [0, again, 0, 0]]
}

/// The same with so many LIST in both cases.
const fn lists(first: u64, again: u64, list: u64) -> Counts {
    [[0, first, 0, list], [0, again, 0, list]]
}

const NONE: Counts = gets(0, 0);

const LAWS: [Law; 11] = [
    Law {
        command: View,
        small: lists(4, 2, 7),
        snapshot: NONE,
        domain: NONE,
        index: lists(2, 0, 1),
        level: NONE,
    },
    Law {
        command: Backup,
        small: [[2, 7, 2, 14], [2, 2, 2, 13]],
        snapshot: NONE,
        domain: NONE,
        index: lists(2, 0, 2),
        level: gets(1, 0),
    },
    Law {
        command: BackupChanged,
        small: [[5, 7, 2, 14], [2, 2, 2, 13]],
        snapshot: NONE,
        domain: NONE,
        index: lists(2, 0, 2),
        level: gets(1, 0),
    },
    Law {
        command: Snapshots,
        small: lists(4, 2, 6),
        snapshot: gets(1, 0),
        domain: lists(1, 0, 4),
        index: NONE,
        level: NONE,
    },
    Law {
        command: Ls,
        small: lists(7, 4, 10),
        snapshot: gets(1, 0),
        domain: lists(1, 0, 4),
        index: lists(2, 0, 1),
        level: gets(1, 1),
    },
    Law {
        command: RestoreOne,
        small: lists(8, 5, 10),
        snapshot: gets(1, 0),
        domain: lists(1, 0, 4),
        index: lists(2, 0, 1),
        level: gets(1, 1),
    },
    Law {
        command: Check,
        small: lists(11, 8, 21),
        snapshot: gets(2, 1),
        domain: lists(5, 3, 17),
        index: lists(4, 2, 1),
        level: gets(1, 1),
    },
    Law {
        command: CheckSubset,
        small: [[0, 13, 0, 23], [0, 10, 0, 23]],
        snapshot: gets(2, 1),
        domain: [[0, 7, 0, 18], [0, 5, 0, 18]],
        index: NONE,
        level: gets(1, 1),
    },
    Law {
        command: Usage,
        small: lists(7, 4, 11),
        snapshot: gets(1, 0),
        domain: lists(3, 1, 8),
        index: lists(2, 0, 2),
        level: gets(1, 1),
    },
    Law {
        command: Status,
        small: lists(5, 2, 9),
        snapshot: gets(1, 0),
        domain: lists(2, 0, 6),
        index: lists(0, 0, 1),
        level: NONE,
    },
    Law { command: KeyList, small: lists(5, 4, 4), snapshot: NONE, domain: NONE, index: NONE, level: NONE },
];

fn requests(command: Command, world: World) -> Counts {
    let place = Place::make(world, Arc::new(InMemory::new()), 1, None);
    let cache = tempfile::tempdir().unwrap();
    [0, 1].map(|_| {
        command.run(&place, Some(cache.path()));
        let Requests { put, get, head, list, list_packs: _, delete } = place.objects.take();
        assert_eq!(delete, 0);
        [put, get, head, list]
    })
}

/// What the law says of so many more of something.
fn expected(small: Counts, count: u64, each: Counts) -> Counts {
    [0, 1].map(|run| [0, 1, 2, 3].map(|kind| small[run][kind] + count * each[run][kind]))
}

#[test]
fn requests_grow_with_nothing_but_what_the_laws_name() {
    let mut broken = Vec::new();
    for Law { command, small, snapshot, domain, index, level } in LAWS {
        let worlds = [
            (World::Small, small),
            (World::Snapshots(20), expected(small, 19, snapshot)),
            (World::Domains(4), expected(small, 3, domain)),
            // 1,094 packs in two index objects.
            (World::Chunks(140_000), expected(small, 1, index)),
            (World::Files(3000), expected(small, 1, level)),
        ];
        for (world, law) in worlds.into_iter().filter(|(world, _)| command.applies(*world)) {
            let made = requests(command, world);
            if made != law {
                broken.push(format!("{} in {world:?}: {made:?} and not {law:?}", command.name()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The budget of a client that backs up every hour: beside the two lists of packs, 16 requests; and one for the
/// list of slots, which an access key and `--slot` spare.
#[test]
fn an_unchanged_backup_costs_sixteen_requests_and_two_lists_of_packs() {
    let [_, again] = requests(Backup, World::Small);
    assert_eq!(again.iter().sum::<u64>(), 16 + 2 + 1);
}
