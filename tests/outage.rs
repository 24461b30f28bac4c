//! A storage that goes away in the middle of a backup, and one that somebody has emptied.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and an attacker uses no facade"
)]

use std::{
    path::Path,
    sync::{
        Arc, Condvar, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use lifeboat::{
    clock::{Clock, SystemClock, Timestamp},
    crypto::RootSecret,
    error::{ErrorKind, Result},
    ops::backup::{self, BackupOptions, Done},
    repository::{InitOptions, Repository, unlock::Credential},
    store::{Name, Prefix, Store, StoreOptions},
};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
use rustix::io::Errno;

mod support {
    pub(crate) mod clock;
    pub(crate) mod faults;
    pub(crate) mod intercepted;
    pub(crate) mod lab;
}
use support::{
    clock::FakeClock,
    faults::{Fault, Versions, disk, locked, nth},
    intercepted::{Call, Fate, Intercepted, Interceptor, Kind, broken},
    lab::{self, Files, check_all, noise, open_with},
};

const RETRY_SECONDS: u64 = 60;

fn is_pack(call: &Call) -> bool {
    call.kind.is_put() && call.name.contains("/packs/")
}

/// A backup, how many packs it tried to send, and how long it took.
fn back_up(
    objects: &InMemory,
    (root, cache): (&RootSecret, &Path),
    files: &Files,
    interceptor: impl Interceptor + 'static,
) -> (Result<Done>, usize, Duration) {
    let clock = Arc::<FakeClock>::default();
    let intercepted = Intercepted::new(Arc::new(objects.clone()), interceptor);
    let options = lab::options(Arc::<FakeClock>::clone(&clock), Arc::default(), RETRY_SECONDS);
    let store = Store::from_object_store(Arc::<Intercepted>::clone(&intercepted), "", options).unwrap();
    let repository = open_with(&store, &Credential::Words(root.words()), Some(cache)).unwrap();
    let done = lab::back_up(&repository, files);
    (done, intercepted.calls().iter().filter(|call| is_pack(call)).count(), clock.elapsed())
}

#[test]
fn a_store_that_is_gone_for_good_is_a_clean_error_and_the_next_run_sends_only_what_is_missing() {
    let (empty, root) = (InMemory::new(), RootSecret::generate().unwrap());
    let options = lab::options(Arc::new(SystemClock), Arc::default(), 0);
    let store = Store::from_object_store(Arc::new(empty.clone()), "", options).unwrap();
    Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
    let files: Files = (0..5).map(|n| (format!("srv/{n}"), noise(n, 9 << 20))).collect();
    let cache = tempfile::tempdir().unwrap();
    let run = |objects: &InMemory, part: usize, interceptor: Box<dyn Interceptor>| {
        let cache = cache.path().join(part.to_string());
        back_up(objects, (&root, &cache), &files, move |call: &Call| interceptor.fate(call))
    };
    let healthy = || Box::new(|_: &Call| Fate::Works);
    let (done, all, _) = run(&empty.fork(), 0, healthy());
    done.unwrap();
    assert!(all > 3, "{all} packs");
    for sent in 1..all {
        let objects = empty.fork();
        let gone = nth(sent, Fault::StopsBefore, is_pack);
        let (failed, _, took) = run(&objects, sent, Box::new(gone));
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Temporary);
        // The call was tried for as long as it may be; the record of the failure a few seconds more.
        assert!(took <= Duration::from_secs(RETRY_SECONDS + 10), "{took:?}");
        let (done, again, _) = run(&objects, sent, healthy());
        done.unwrap();
        assert_eq!(again, all - sent, "{sent} of {all} packs were there");
        let options = lab::options(Arc::new(SystemClock), Arc::default(), 0);
        let store = Store::from_object_store(Arc::new(objects), "", options).unwrap();
        let repository = open_with(&store, &Credential::Words(root.words()), None).unwrap();
        let (known, _) = repository.snapshots().unwrap();
        assert!(lab::restore(&repository, &known[0]).unwrap().0 == files);
        assert_eq!(check_all(&repository).unwrap().problems, []);
    }
}

/// A clock that goes only when as many sleep as there are to sleep together: then whose pause is over first wakes. So each of
/// them waits for as long as it would by a real clock, and not for less because of the others.
struct Together(Mutex<Sleepers>, Condvar);

struct Sleepers {
    now: Duration,
    /// When they wake.
    until: Vec<Duration>,
    parties: usize,
    /// How many it were at most.
    seen: usize,
}

impl Together {
    fn new() -> Self {
        Self(
            Mutex::new(Sleepers { now: Duration::ZERO, until: Vec::new(), parties: 1, seen: 0 }),
            Condvar::new(),
        )
    }

    fn wait_for(&self, parties: usize) {
        self.0.lock().unwrap().parties = parties;
        self.1.notify_all();
    }
}

impl Clock for Together {
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000)
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap().now
    }

    fn sleep(&self, duration: Duration) {
        let mut sleepers = self.0.lock().unwrap();
        let wakes = sleepers.now + duration;
        sleepers.until.push(wakes);
        sleepers.seen = sleepers.seen.max(sleepers.until.len());
        self.1.notify_all();
        while sleepers.until.len() < sleepers.parties || sleepers.until.iter().min() != Some(&wakes) {
            let (again, waited) = self.1.wait_timeout(sleepers, Duration::from_mins(1)).unwrap();
            sleepers = again;
            if waited.timed_out() {
                // Whoever was to come does not: the test says so, and does not hang.
                sleepers.parties = 1;
            }
        }
        let at = sleepers.until.iter().position(|until| *until == wakes).unwrap();
        sleepers.until.swap_remove(at);
        sleepers.now = sleepers.now.max(wakes);
        self.1.notify_all();
    }
}

/// Whether a call is like the one that something begins with.
type IsMoment = fn(&Call) -> bool;

/// From the first call like this one on, a minute in which every call fails as one that was answered with 503.
#[test]
fn a_backup_goes_on_after_a_minute_of_slow_down_and_asks_a_bounded_number_of_times() {
    const MINUTE: Duration = Duration::from_mins(1);
    const CONNECTIONS: usize = 4;
    // Pauses double from a tenth of a second to 15 s, and each is shortened by half at most: see `store`. Whoever waits asks
    // for nothing else until the minute is over, and beside the connections that is only the backup itself.
    const CALLS_MAX: usize = 15 * (CONNECTIONS + 1);
    let files: Files = (0..5).map(|n| (format!("srv/{n}"), noise(n, 9 << 20))).collect();
    // What the minute begins with, and how many wait at once then.
    let moments: [(IsMoment, usize); 4] = [
        (|_| true, 1),
        (is_pack, 2),
        (|call| call.kind.is_put() && call.name.contains("/index/"), 1),
        (|call| call.kind.is_put() && call.name.contains("/snapshots/"), 1),
    ];
    for (number, (is_moment, at_once)) in moments.into_iter().enumerate() {
        let (clock, root) = (Arc::new(Together::new()), RootSecret::generate().unwrap());
        let slow = Intercepted::watching(Arc::new(InMemory::new()));
        let options = StoreOptions {
            connections: CONNECTIONS,
            ..lab::options(Arc::<Together>::clone(&clock), Arc::default(), 15 * 60)
        };
        let store = Store::from_object_store(Arc::<Intercepted>::clone(&slow), "", options).unwrap();
        Repository::create(&store, &root, "right", InitOptions::default(), &*clock).unwrap();
        let (begun, failed) = (Arc::<OnceLock<Duration>>::default(), Arc::<AtomicUsize>::default());
        let (time, since, count) = (Arc::clone(&clock), Arc::clone(&begun), Arc::clone(&failed));
        slow.intercept(move |call: &Call| {
            if is_moment(call) {
                since.get_or_init(|| {
                    time.wait_for(at_once);
                    time.elapsed()
                });
            }
            let Some(since) = since.get() else { return Fate::Works };
            if time.elapsed() >= *since + MINUTE {
                time.wait_for(1);
                return Fate::Works;
            }
            count.fetch_add(1, SeqCst);
            Fate::Fails(broken())
        });
        let config = Repository::read_config(&store).unwrap();
        let secrets = Repository::unlock(&store, &config, &Credential::Words(root.words())).unwrap();
        let repository =
            Repository::open(store.clone(), config, secrets, None, Arc::<Together>::clone(&clock)).unwrap();
        lab::back_up(&repository, &files).unwrap();
        let (failed, took) = (failed.load(SeqCst), clock.elapsed() - *begun.get().unwrap());
        assert!((8 * at_once..=CALLS_MAX).contains(&failed), "{number}: {failed} calls");
        assert!(clock.0.lock().unwrap().seen >= at_once, "{number}: nobody waits beside another");
        // Pauses that had begun when it was over end later.
        assert!(took < MINUTE + Duration::from_secs(15), "{number}: {took:?}");
        let (known, damaged) = repository.snapshots().unwrap();
        assert!(known.len() == 1 && damaged.is_empty(), "{number}: {damaged:?}");
        assert!(lab::restore(&repository, &known[0]).unwrap().0 == files, "{number}");
        assert_eq!(check_all(&repository).unwrap().problems, [], "{number}");
    }
}

/// An `init` that the disk has no room for leaves nothing in the way of the next one, whichever object did not fit.
#[test]
fn an_init_on_a_full_disk_can_be_run_again() {
    for last in 0..3 {
        let full = move |call: &Call| {
            let written =
                ["keys/", "registry/", "config"].iter().position(|name| call.name.starts_with(name));
            if call.kind.is_put() && written == Some(last) {
                Fate::Fails(disk(Errno::NOSPC))
            } else {
                Fate::Works
            }
        };
        let intercepted = Intercepted::new(Arc::new(InMemory::new()), full);
        let options = lab::options(Arc::new(SystemClock), Arc::default(), 0);
        let over = Arc::<Intercepted>::clone(&intercepted);
        let store = Store::from_object_store(over, "", options).unwrap();
        let root = RootSecret::generate().unwrap();
        let create = || Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock);
        assert!(create().is_err(), "{last}");
        intercepted.let_through();
        assert_eq!(create().map_err(|error| error.to_string()), Ok(()), "{last}");
    }
}

/// What the last frames of the workers fill cannot be sent: the workers have been told by then that there is nothing
/// more to come.
#[test]
fn a_backup_whose_last_packs_cannot_be_sent_ends() {
    // The first pack is known to be lost when one of the later ones becomes full with what the workers have left.
    const SIZES: [u64; 4] = [24, 28, 32, 36];
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        for megabytes in SIZES {
            let full =
                |call: &Call| if is_pack(call) { Fate::Fails(disk(Errno::NOSPC)) } else { Fate::Works };
            let intercepted = Intercepted::new(Arc::new(InMemory::new()), full);
            let options =
                StoreOptions { connections: 4, ..lab::options(Arc::new(SystemClock), Arc::default(), 0) };
            let store = Store::from_object_store(intercepted, "", options).unwrap();
            let root = RootSecret::generate().unwrap();
            Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
            let repository = lab::open(&store, &root).unwrap();
            let files: Files =
                (0..(megabytes << 20) / 1_500).map(|n| (format!("srv/{n:06}"), noise(n, 1_500))).collect();
            let options = BackupOptions { workers: 24, ..lab::backup_options() };
            let done = backup::run(&repository, &mut lab::Tree(&files), &options);
            sender.send(done.unwrap_err().kind()).unwrap();
        }
    });
    for _ in SIZES {
        let kind = ended.recv_timeout(Duration::from_secs(600)).expect("it waits for ever");
        assert_eq!(kind, ErrorKind::Failed);
    }
}

/// Deletes all there is, as somebody with the keys of the storage would.
fn delete_everything(store: &Store) -> Result<()> {
    store.list(&Prefix::all())?.iter().try_for_each(|one| store.delete(&Name::parse(&one.name).unwrap()))
}

#[test]
fn what_was_deleted_is_still_in_the_versions_and_what_is_locked_is_not_deleted() {
    let (clock, root) = (Arc::<FakeClock>::default(), RootSecret::generate().unwrap());
    let (objects, files) = (InMemory::new(), Files::from([("srv/file".to_owned(), noise(1, 1000))]));
    let versions = Versions::of(objects.clone(), Arc::<FakeClock>::clone(&clock));
    let intercepted = Intercepted::new(Arc::new(objects), versions.clone());
    let options = lab::options(Arc::<FakeClock>::clone(&clock), Arc::default(), 0);
    let over = |objects| Store::from_object_store(objects, "", options.clone()).unwrap();
    let store = over(Arc::<Intercepted>::clone(&intercepted) as Arc<dyn ObjectStore>);
    Repository::create(&store, &root, "right", InitOptions::default(), &*clock).unwrap();
    let words = Credential::Words(root.words());
    lab::back_up(&open_with(&store, &words, None).unwrap(), &files).unwrap();
    let before = clock.elapsed();
    clock.sleep(Duration::from_hours(1));
    delete_everything(&store).unwrap();
    assert_eq!(store.list(&Prefix::all()).unwrap(), []);
    let repository = open_with(&over(Arc::new(versions.at(before))), &words, None).unwrap();
    let (known, _) = repository.snapshots().unwrap();
    assert_eq!(lab::restore(&repository, &known[0]).unwrap().0, files);
    assert_eq!(check_all(&repository).unwrap().problems, []);

    // The same with a lock: nothing goes, and backups go on.
    let objects = versions.at(before);
    let day = Duration::from_hours(24);
    let held = Intercepted::new(Arc::new(InMemory::new()), locked(Arc::<FakeClock>::clone(&clock), day));
    let held = over(held);
    for listed in over(Arc::new(objects)).list(&Prefix::all()).unwrap() {
        let name = Name::parse(&listed.name).unwrap();
        held.create(&name, repository.store.read(&name, 1 << 26).unwrap()).unwrap();
    }
    assert_eq!(delete_everything(&held).unwrap_err().kind(), ErrorKind::Failed);
    let repository = open_with(&held, &words, None).unwrap();
    lab::back_up(&repository, &files).unwrap();
    assert_eq!(repository.snapshots().unwrap().0.len(), 2);
    clock.sleep(day);
    delete_everything(&held).unwrap();
}

/// Overwrites with something else what the storage policy of a client lets it write, and deletes what it can; gives how
/// often the storage let it.
fn attack(objects: &Arc<Intercepted>, store: &Store) -> (usize, usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut written, mut deleted) = (0, 0);
    for listed in store.list(&Prefix::all()).unwrap() {
        let path = object_store::path::Path::from(listed.name.as_str());
        let own =
            ["/packs/", "/index/", "/snapshots/", "/runs/"].iter().any(|part| listed.name.contains(part));
        if own {
            let put = objects.put(&path, "nothing of what was here".into());
            written += usize::from(runtime.block_on(put).is_ok());
        }
        deleted += usize::from(runtime.block_on(objects.delete(&path)).is_ok());
    }
    (written, deleted)
}

#[test]
fn an_attacker_with_all_rights_but_over_versions_and_locks_destroys_nothing() {
    let root = RootSecret::generate().unwrap();
    let words = Credential::Words(root.words());
    let retention = Duration::from_hours(24 * 30);
    let old = Files::from([("srv/file".to_owned(), noise(1, 100_000))]);
    let new =
        Files::from([("srv/file".to_owned(), noise(2, 100_000)), ("srv/other".to_owned(), noise(3, 10))]);
    let whole = |store: &Store| {
        let repository = open_with(store, &words, None).unwrap();
        let (mut known, damaged) = repository.snapshots().unwrap();
        known.sort_by_key(|known| known.name.sequence);
        assert!(damaged.is_empty(), "{damaged:?}");
        assert_eq!(lab::restore(&repository, &known[0]).unwrap().0, old);
        assert_eq!(lab::restore(&repository, &known[1]).unwrap().0, new);
        assert_eq!(check_all(&repository).unwrap().problems, []);
    };
    for is_locked in [true, false] {
        let clock = Arc::<FakeClock>::default();
        let options = lab::options(Arc::<FakeClock>::clone(&clock), Arc::default(), 0);
        let over = |objects| Store::from_object_store(objects, "", options.clone()).unwrap();
        let kept = InMemory::new();
        let versions = Versions::of(kept.clone(), Arc::<FakeClock>::clone(&clock));
        // A storage that refuses to replace what is locked, or one that keeps what was replaced.
        let objects = if is_locked {
            Intercepted::new(Arc::new(kept), locked(Arc::<FakeClock>::clone(&clock), retention))
        } else {
            Intercepted::new(Arc::new(kept), versions.clone())
        };
        let store = over(Arc::<Intercepted>::clone(&objects) as Arc<dyn ObjectStore>);
        Repository::create(&store, &root, "right", InitOptions::default(), &*clock).unwrap();
        for files in [&old, &new] {
            lab::back_up(&open_with(&store, &words, None).unwrap(), files).unwrap();
        }
        // Nothing of this was refused: nothing was replaced or deleted.
        assert_eq!(objects.count(Kind::Overwrite), 0);
        let before = clock.elapsed();
        clock.sleep(Duration::from_hours(1));
        let (written, deleted) = attack(&objects, &store);
        if is_locked {
            assert_eq!((written, deleted), (0, 0));
            whole(&store);
            lab::back_up(&open_with(&store, &words, None).unwrap(), &new).unwrap();
            continue;
        }
        assert!(written > 5 && deleted > written, "{written} {deleted}");
        assert!(Repository::read_config(&store).is_err(), "now everything is gone");
        whole(&over(Arc::new(versions.at(before))));
    }
}
