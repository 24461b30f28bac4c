//! What can go wrong in a store, and when: interceptors for [`Intercepted`](super::intercepted::Intercepted).
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lifeboat::clock::Clock;
use object_store::{Error, memory::InMemory};
use rustix::io::Errno;

use super::intercepted::{Call, Fate, Interceptor, Kind, broken};

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and has done nothing.
    FailsBefore,
    /// It is done, and the reply is lost.
    FailsAfter,
    /// It fails, and so does everything after it: as if the program had been killed before it.
    StopsBefore,
    /// It is done, and everything after it fails: as if the program had been killed behind it.
    StopsAfter,
    /// It takes so many milliseconds.
    Waits(u64),
    /// There is never an answer.
    Hangs,
    /// Half of the bytes are kept or come.
    Halves,
    /// One byte less is kept or comes.
    Shortens,
    /// One byte more is kept or comes.
    Extends,
    /// One bit is another.
    Flips,
    /// Another part of the object comes.
    Shifts,
    /// "Done", but nothing is kept.
    Forgets,
    /// "Done", but a create overwrites.
    IgnoresConditions,
    /// "Taken", whatever there is.
    AlwaysTaken,
    /// The disk under a local folder says no.
    Disk(Errno),
    /// A LIST shows nothing after the last whole page of so many.
    LosesPage,
    /// A LIST shows each object twice.
    Repeats,
}

/// Objects on a page of a LIST that [`Fault::LosesPage`] cuts.
const PAGE: usize = 10;

/// What the disk below a local folder says.
pub(crate) fn disk(errno: Errno) -> Error {
    let source = Box::new(std::io::Error::from(errno));
    Error::Generic { store: "LocalFileSystem", source }
}

/// As often as it is asked; calls that it has nothing to do with work.
impl Interceptor for Fault {
    fn fate(&self, call: &Call) -> Fate {
        match (*self, call.kind) {
            (Self::FailsBefore | Self::StopsBefore, _) => Fate::Fails(broken()),
            (Self::FailsAfter, _) => Fate::LosesReply,
            (Self::Waits(milliseconds), _) => Fate::Waits(Duration::from_millis(milliseconds)),
            (Self::Hangs, _) => Fate::Hangs,
            (Self::Halves, _) => Fate::Changes(|bytes| bytes.truncate(bytes.len() / 2)),
            (Self::Shortens, _) => Fate::Changes(|bytes| bytes.truncate(bytes.len().saturating_sub(1))),
            (Self::Extends, _) => Fate::Changes(|bytes| bytes.push(0)),
            (Self::Flips, _) => Fate::Changes(|bytes| bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1)),
            (Self::Shifts, _) => Fate::Shifts,
            (Self::Forgets, kind) if kind.changes_something() => Fate::Elsewhere(Arc::new(InMemory::new())),
            (Self::IgnoresConditions, Kind::Create) => Fate::Overwrites,
            (Self::AlwaysTaken, kind) if kind.is_put() => {
                Fate::Fails(Error::AlreadyExists { path: call.name.clone(), source: "taken".into() })
            }
            (Self::Disk(errno), kind) if kind.is_put() => Fate::Fails(disk(errno)),
            (Self::LosesPage, _) => {
                Fate::Shows(|all| all.truncate(all.len().saturating_sub(1) / PAGE * PAGE))
            }
            (Self::Repeats, _) => {
                Fate::Shows(|all| *all = all.iter().flat_map(|one| [one.clone(), one.clone()]).collect())
            }
            _ => Fate::Works,
        }
    }
}

/// The call of this number, from 0, among those that `which` names.
pub(crate) fn nth(
    number: usize,
    fault: Fault,
    which: impl Fn(&Call) -> bool + Send + Sync,
) -> impl Fn(&Call) -> Fate {
    let (seen, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    move |call| {
        if stopped.load(Ordering::SeqCst) {
            return Fate::Fails(broken());
        }
        if !which(call) || seen.fetch_add(1, Ordering::SeqCst) != number {
            return Fate::Works;
        }
        stopped.store(matches!(fault, Fault::StopsBefore | Fault::StopsAfter), Ordering::SeqCst);
        fault.fate(call)
    }
}

/// The call of this number, from 0.
pub(crate) fn at(number: usize, fault: Fault) -> impl Fn(&Call) -> Fate {
    nth(number, fault, |_| true)
}

/// Every call of some kinds.
pub(crate) fn every(kinds: &'static [Kind], fault: Fault) -> impl Fn(&Call) -> Fate {
    move |call| if kinds.contains(&call.kind) { fault.fate(call) } else { Fate::Works }
}

/// As on a file system that has no hard links.
pub(crate) fn no_links(call: &Call) -> Fate {
    if call.kind == Kind::Create { Fate::Fails(disk(Errno::PERM)) } else { Fate::Works }
}

/// Whoever creates an object of this name looks, waits until so many have looked, and then overwrites.
pub(crate) fn racy_conditions(creators: usize, name: &'static str) -> impl Fn(&Call) -> Fate {
    let others = Arc::new(tokio::sync::Barrier::new(creators));
    move |call| {
        let races = call.kind == Kind::Create && call.name.ends_with(name);
        if races { Fate::LooksFirst(Arc::clone(&others)) } else { Fate::Works }
    }
}

/// LISTs show `objects` as they were before the last so many changes.
pub(crate) fn stale_lists(objects: InMemory, changes: usize) -> impl Fn(&Call) -> Fate {
    let past = Mutex::new(VecDeque::from(vec![objects.fork(); changes]));
    move |call| {
        let mut past = past.lock().unwrap();
        if call.kind.changes_something() {
            past.push_back(objects.fork());
            past.pop_front();
        }
        match (call.kind, past.front()) {
            (Kind::List, Some(then)) => Fate::Elsewhere(Arc::new(then.fork())),
            _ => Fate::Works,
        }
    }
}

/// Every state of a store that keeps its versions.
#[derive(Clone)]
pub(crate) struct Versions {
    objects: InMemory,
    clock: Arc<dyn Clock>,
    /// Until when the store was like that, oldest first.
    past: Arc<Mutex<Vec<(Duration, InMemory)>>>,
}

impl Versions {
    pub(crate) fn of(objects: InMemory, clock: Arc<dyn Clock>) -> Self {
        Self { objects, clock, past: Arc::default() }
    }

    /// The store as it was then, by the clock that it was given.
    pub(crate) fn at(&self, time: Duration) -> InMemory {
        let past = self.past.lock().unwrap();
        past.iter().find(|(until, _)| *until > time).map_or(&self.objects, |(_, then)| then).fork()
    }
}

impl Interceptor for Versions {
    fn fate(&self, call: &Call) -> Fate {
        if call.kind.changes_something() {
            self.past.lock().unwrap().push((self.clock.elapsed(), self.objects.fork()));
        }
        Fate::Works
    }
}

/// What was written less than `retention` ago is neither deleted nor replaced.
pub(crate) fn locked(clock: Arc<dyn Clock>, retention: Duration) -> impl Fn(&Call) -> Fate {
    let written = Mutex::new(HashMap::new());
    move |call| {
        let (mut written, now) = (written.lock().unwrap(), clock.elapsed());
        let is_held = written.get(&call.name).is_some_and(|then| now.saturating_sub(*then) < retention);
        if is_held && matches!(call.kind, Kind::Overwrite | Kind::Delete) {
            let (path, source) = (call.name.clone(), "<Code>AccessDenied</Code>: it is locked".into());
            return Fate::Fails(Error::PermissionDenied { path, source });
        }
        if call.kind.is_put() {
            written.entry(call.name.clone()).or_insert(now);
        }
        Fate::Works
    }
}
