//! One run: a storage, clients on threads, and what is known of it afterwards.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use lifeboat::{clock::Clock, crypto::RootSecret, id::ObjectId, random, sabotage, store::Store};
use object_store::ObjectStore;

use super::{
    aims::{Aim, Aims},
    chance::Chance,
    clock::Afterwards,
    scheduler::{Endless, Scheduler},
    storage::{Killed, Line, Storage, StorageClock},
    weather::{Broken, Call, Fate, Weather},
    workload::Client,
};
use crate::support::lab::{self, Files};

/// A call that arrived at the storage.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// When its client made it.
    pub(crate) asked: Duration,
    /// When it arrived.
    pub(crate) at: Duration,
    pub(crate) client: usize,
    /// The number of the command that its client ran.
    pub(crate) command: usize,
    pub(crate) call: Call,
    pub(crate) name: String,
    pub(crate) fate: Fate,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, at, client, command, call, name, fate } = self;
        let (asked, at) = (asked.as_secs_f64(), at.as_secs_f64());
        write!(f, "{asked:14.6} {at:14.6}  {client}.{command} {call:?} {name}")?;
        if *fate == Fate::Works { Ok(()) } else { write!(f, "  {fate:?}") }
    }
}

/// What a client was told is done.
#[derive(Clone)]
pub(crate) enum Told {
    Snapshot {
        tag: String,
        id: ObjectId,
    },
    /// That this snapshot does not end.
    Held(ObjectId),
    /// The access key of a new identity.
    Key(String),
    Shared(String),
    Revoked(String),
    /// By whose words.
    Created(RootSecret),
}

/// What prunes say that they have done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pruned {
    /// Packs that are gone.
    pub(crate) freed: u64,
    /// Packs of which what is needed was moved.
    pub(crate) repacked: u64,
    /// Frames of which what is needed was sealed anew.
    pub(crate) cut: u64,
    /// Packs that were to die, and of which something was needed again and copied out.
    pub(crate) rescued: u64,
    /// Index objects that were written without the packs that are gone.
    pub(crate) compacted: u64,
    /// Index objects that these replaced, and that are gone.
    pub(crate) replaced: u64,
}

impl Pruned {
    pub(crate) const fn add(&mut self, more: Self) {
        let Self { freed, repacked, cut, rescued, compacted, replaced } = more;
        self.freed += freed;
        self.repacked += repacked;
        self.cut += cut;
        self.rescued += rescued;
        self.compacted += compacted;
        self.replaced += replaced;
    }

    /// One for everything that was done at all.
    pub(crate) fn once(self) -> Self {
        let Self { freed, repacked, cut, rescued, compacted, replaced } = self;
        let [freed, repacked, cut, rescued, compacted, replaced] =
            [freed, repacked, cut, rescued, compacted, replaced].map(|count| count.min(1));
        Self { freed, repacked, cut, rescued, compacted, replaced }
    }
}

#[derive(Default)]
pub(crate) struct Record {
    pub(crate) events: Vec<Event>,
    /// What each backup was to hold, by its tag.
    pub(crate) captured: BTreeMap<String, Files>,
    /// With the client and the number of its command.
    pub(crate) told: Vec<((usize, usize), Told)>,
    /// Objects of which the storage does not hold what it was given.
    pub(crate) hurt: BTreeSet<String>,
    /// The tags of the backups that everybody made at the end.
    pub(crate) ended: Vec<String>,
    /// Commands that failed, and what they said.
    pub(crate) failures: Vec<((usize, usize), String)>,
    /// Objects that say what their author may not, or lie.
    pub(crate) forged: BTreeSet<String>,
    /// Snapshots whose holds somebody may have lifted.
    pub(crate) lifted: BTreeSet<ObjectId>,
    pub(crate) pruned: Pruned,
    /// What prunes said.
    pub(crate) notes: Vec<((usize, usize), String)>,
    /// Clients that ended as no program may.
    pub(crate) problems: Vec<String>,
    out: BTreeMap<Option<usize>, Duration>,
    /// How long each client slept, where the clock does not count it.
    overslept: BTreeMap<usize, Duration>,
}

pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) storage: Storage,
    pub(crate) weather: Weather,
    pub(crate) broken: Option<Broken>,
    pub(crate) aims: Aims,
    record: Mutex<Record>,
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(
        chance: Chance,
        (objects, clock): (&BTreeMap<String, Bytes>, StorageClock),
        (weather, broken, aims): (Weather, Option<Broken>, Vec<Aim>),
        clients: usize,
    ) -> Arc<Self> {
        let storage = Storage::new(objects, clock);
        let scheduler = Scheduler::new(chance, clients);
        let (aims, record) = (Aims::new(aims), Mutex::default());
        Arc::new(Self { scheduler, storage, weather, broken, aims, record, folder: folder() })
    }

    /// Lets all clients run to their end, each on a thread.
    pub(crate) fn run(self: &Arc<Self>, seed: u64, clients: &[Client]) {
        std::thread::scope(|scope| {
            for (number, client) in clients.iter().enumerate() {
                scope.spawn(move || {
                    random::seed(seed.wrapping_mul(64).wrapping_add(number as u64));
                    if let Some(Broken::Engine(what)) = self.broken {
                        sabotage::sabotage(what);
                    }
                    self.scheduler.enter(number);
                    self.live(number, client);
                    self.scheduler.leave();
                });
            }
            self.scheduler.begin();
        });
    }

    /// One command after the other; who was killed goes on with the next one.
    fn live(self: &Arc<Self>, number: usize, client: &Client) {
        for command in 0..client.script.len() {
            let run = AssertUnwindSafe(|| client.perform(self, (number, command)));
            let Err(panic) = catch_unwind(run) else { continue };
            if panic.is::<Killed>() {
                if client.loses_cache {
                    drop(std::fs::remove_dir_all(self.cache(number)));
                }
                continue;
            }
            let text = if panic.is::<Endless>() { "never ended".to_owned() } else { message(&*panic) };
            self.record().problems.push(format!("client {number}.{command}: {text}"));
            break;
        }
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap()
    }

    pub(crate) fn note(&self, event: Event) {
        self.record().events.push(event);
    }

    /// The storage does not hold what it was given under this name.
    pub(crate) fn hurts(&self, name: &str) {
        self.record().hurt.insert(name.to_owned());
    }

    /// One client, or everybody, has no network until then.
    pub(crate) fn goes_out(&self, client: Option<usize>, until: Duration) {
        self.record().out.insert(client, until);
    }

    pub(crate) fn is_out(&self, client: usize, now: Duration) -> bool {
        let out = &self.record().out;
        [None, Some(client)].iter().any(|who| out.get(who).is_some_and(|until| now < *until))
    }

    /// A client waits for the storage, or sleeps.
    pub(crate) fn pass(&self, client: usize, time: Duration) {
        if self.broken == Some(Broken::Clock) && time > Duration::from_mins(1) {
            *self.record().overslept.entry(client).or_default() += time;
        }
        self.scheduler.pass(client, time);
    }

    pub(crate) fn overslept(&self, client: usize) -> Duration {
        self.record().overslept.get(&client).copied().unwrap_or_default()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn cache(&self, client: usize) -> PathBuf {
        self.folder.path().join(format!("cache-{client}"))
    }
}

fn message(panic: &dyn Any) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned()
}

/// A folder in memory, where there is one.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The storage as a client sees it while it runs a command, or as it is.
pub(crate) fn open(
    world: &Arc<World>,
    client: Option<(usize, usize)>,
    clock: Arc<dyn Clock>,
    retry_seconds: u64,
) -> Store {
    let line: Arc<dyn ObjectStore> = Arc::new(Line { world: Arc::clone(world), client });
    Store::from_object_store(line, "", lab::options(clock, Arc::default(), retry_seconds)).unwrap()
}

/// Without faults, and without the scheduler.
pub(crate) fn outside(world: &Arc<World>) -> Store {
    open(world, None, Arc::new(Afterwards), 0)
}
