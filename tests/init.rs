//! `init` that is cut short, that runs twice at once, or where something is left of another repository:
//! whatever is told to be created can be used, and nothing is created beside what is there.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lifeboat::{
    clock::SystemClock,
    crypto::RootSecret,
    error::{Error, ErrorKind, Result},
    id::{DomainId, IdentityId, ObjectId},
    ops::key::{self, By, Lost, RecoverOptions},
    progress::Progress,
    repository::{InitOptions, Repository, unlock::Credential},
    store::{Name, Parsed, Prefix, Store, StoreOptions},
};
use object_store::memory::InMemory;
use zeroize::Zeroizing;

mod support {
    pub(crate) mod faults;
    pub(crate) mod intercepted;
}
use support::{
    faults::{Fault, disk},
    intercepted::{Call, Fate, Intercepted, Interceptor, Kind},
};

/// Says whether a call goes on.
type Ask = Box<dyn FnMut(Kind) -> bool + Send>;

/// Whether a create may overwrite, as on S3 stores that know no conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conditions {
    Kept,
    Ignored,
}

fn store(objects: &Arc<InMemory>, conditions: Conditions, progress: &Arc<Progress>, ask: Ask) -> Store {
    let options = StoreOptions {
        connections: 1,
        upload_limit: None,
        download_limit: None,
        retry_for: Duration::ZERO,
        s3: Default::default(),
        clock: Arc::new(SystemClock),
        progress: Arc::clone(progress),
    };
    let ask = Mutex::new(ask);
    let objects = Intercepted::new(Arc::<InMemory>::clone(objects), move |call: &Call| {
        match (ask.lock().unwrap()(call.kind), conditions) {
            (false, _) => Fate::Fails(disk(rustix::io::Errno::IO)),
            (true, Conditions::Ignored) => Fault::IgnoresConditions.fate(call),
            (true, Conditions::Kept) => Fate::Works,
        }
    });
    Store::from_object_store(objects, "p", options).unwrap()
}

fn plain(objects: &Arc<InMemory>) -> Store {
    store(objects, Conditions::Kept, &Arc::default(), Box::new(|_| true))
}

fn init(store: &Store, passphrase: &str) -> Result<()> {
    let root = RootSecret::generate().unwrap();
    Repository::create(store, &root, passphrase, InitOptions::default(), &SystemClock)
}

fn open(store: &Store, passphrase: &str) -> Result<Repository> {
    let config = Repository::read_config(store)?;
    let credential = Credential::Passphrase(Zeroizing::new(passphrase.to_owned()), None);
    let secrets = Repository::unlock(store, &config, &credential)?;
    Repository::open(store.clone(), config, secrets, None, Arc::new(SystemClock))
}

fn names(store: &Store) -> Vec<Name> {
    store.list(&Prefix::all()).unwrap().iter().map(|listed| Name::parse(&listed.name).unwrap()).collect()
}

#[track_caller]
fn says(error: &Error, kind: ErrorKind, remedy: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.remedy().unwrap().contains(remedy), "{error}: {:?}", error.remedy());
}

/// Calls of some kinds go on until `count` were made; the others always do.
fn until(count: usize, which: fn(Kind) -> bool) -> Ask {
    let mut made = 0;
    Box::new(move |kind| {
        made += usize::from(which(kind));
        !which(kind) || made <= count
    })
}

#[test]
fn an_init_that_fails_takes_back_what_it_wrote() {
    for count in 0..3 {
        let objects = Arc::default();
        let failing = store(&objects, Conditions::Kept, &Arc::default(), until(count, Kind::is_put));
        init(&failing, "first").unwrap_err();
        let sent_config = count == 2;
        assert_eq!(names(&plain(&objects)).len(), if sent_config { 2 } else { 0 }, "{count}");
        if !sent_config {
            init(&plain(&objects), "second").unwrap();
            open(&plain(&objects), "second").unwrap();
        }
    }
}

#[test]
fn after_an_init_that_was_killed_the_next_one_says_what_to_do() {
    for count in 0..=3 {
        let objects = Arc::default();
        let killed =
            store(&objects, Conditions::Kept, &Arc::default(), until(count, Kind::changes_something));
        assert_eq!(init(&killed, "first").is_ok(), count == 3);
        let store = plain(&objects);
        let there = names(&store);
        assert_eq!(there.len(), count);
        match (init(&store, "first"), count) {
            (Ok(()), 0) => {}
            (Err(error), 3) => says(&error, ErrorKind::Failed, "leave out"),
            (Err(error), _) => {
                says(&error, ErrorKind::Damaged, "delete `keys` and `registry`");
                says(&open(&store, "first").unwrap_err(), ErrorKind::Damaged, "cut short");
                assert_eq!(names(&store), there);
                there.iter().for_each(|name| store.delete(name).unwrap());
                init(&store, "first").unwrap();
            }
            (Ok(()), _) => panic!("created around the remains of another one"),
        }
        open(&store, "first").unwrap();
    }
}

#[test]
fn a_signal_in_an_init_leaves_nothing_or_a_whole_repository() {
    for call in 0..20 {
        let (objects, progress) = (Arc::default(), Arc::new(Progress::default()));
        let stop = Arc::clone(&progress);
        let mut made = 0;
        let ask = Box::new(move |_: Kind| {
            made += 1;
            if made == call {
                stop.stop();
            }
            true
        });
        let done = init(&store(&objects, Conditions::Kept, &progress, ask), "first");
        let store = plain(&objects);
        match done {
            Ok(()) => drop(open(&store, "first").unwrap()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Interrupted);
                assert_eq!(names(&store), [], "{call}");
            }
        }
    }
}

#[test]
fn of_two_inits_at_once_at_most_one_succeeds_and_its_repository_can_be_used() {
    for conditions in [Conditions::Kept, Conditions::Ignored] {
        // The second one runs while the first one is about to make its n-th call.
        for at in 1.. {
            let objects = Arc::default();
            let calls = Arc::new(AtomicUsize::new(0));
            let second = Arc::new(Mutex::new(None));
            let (counted, outcome, there) = (Arc::clone(&calls), Arc::clone(&second), Arc::clone(&objects));
            let ask = Box::new(move |_: Kind| {
                if counted.fetch_add(1, Ordering::SeqCst) + 1 == at {
                    // On another thread: this one is inside the runtime of the first.
                    let run =
                        || init(&store(&there, conditions, &Arc::default(), Box::new(|_| true)), "second");
                    let beside = std::thread::scope(|scope| scope.spawn(run).join());
                    *outcome.lock().unwrap() = Some(beside.unwrap());
                }
                true
            });
            let first = init(&store(&objects, conditions, &Arc::default(), ask), "first");
            let Some(second) = second.lock().unwrap().take() else {
                assert!(first.is_ok() && at > 8, "{at} calls are fewer than there must be");
                break;
            };
            let store = plain(&objects);
            match (first.is_ok(), second.is_ok()) {
                (true, true) => panic!("both succeeded at call {at}, {conditions:?}"),
                (true, false) => drop(open(&store, "first").unwrap()),
                (false, true) => drop(open(&store, "second").unwrap()),
                (false, false) => {}
            }
            let expected = if first.is_ok() || second.is_ok() { 3 } else { 0 };
            assert_eq!(names(&store).len(), expected, "call {at}, {conditions:?}");
        }
    }
}

#[test]
fn where_a_repository_has_lost_its_config_none_is_created_and_the_words_bring_it_back() {
    let objects = Arc::default();
    let store = plain(&objects);
    let root = RootSecret::generate().unwrap();
    Repository::create(&store, &root, "first", InitOptions::default(), &SystemClock).unwrap();
    let config = store.read(&Name::config(), 1 << 20).unwrap();
    let (domain, identity) = (DomainId::new([1; 8]), IdentityId::new([2; 16]));
    let backed_up = Name::run(&domain, &identity, &ObjectId::new([3; 32]));
    for with_backups in [false, true] {
        if with_backups {
            store.create(&backed_up, "x".into()).unwrap();
        }
        for damaged in [None, Some(config.slice(..config.len() / 2)), Some("{\"foreign\": 1}".into())] {
            store.delete(&Name::config()).unwrap();
            damaged.into_iter().for_each(|bytes| store.create(&Name::config(), bytes).unwrap());
            let before = names(&store);
            for error in [open(&store, "first").unwrap_err(), init(&store, "second").unwrap_err()] {
                says(&error, ErrorKind::Damaged, "key recover --rebuild-config");
            }
            assert_eq!(names(&store), before);
        }
    }
    store.delete(&Name::config()).unwrap();
    let unlock = By::Passphrase(Zeroizing::new("second".to_owned()));
    let options = RecoverOptions { words: &root.words(), unlock, lost: Lost::Rebuild };
    key::recover(&store, &options, &SystemClock).unwrap();
    open(&store, "second").unwrap();
}

#[test]
fn what_others_keep_there_is_neither_a_repository_nor_in_the_way() {
    let objects = Arc::default();
    let store = plain(&objects);
    store.create(&Name::slot("id_rsa"), "x".into()).unwrap();
    let probe = Name::probe(&ObjectId::new([3; 32]));
    store.create(&probe, "x".into()).unwrap();
    says(&open(&store, "first").unwrap_err(), ErrorKind::NoRepository, "lifeboat init");
    init(&store, "first").unwrap();
    assert!(names(&store).iter().any(|name| matches!(name.parsed(), Parsed::Registry { .. })));
    let other = Arc::default();
    plain(&other).create(&Name::config(), "{\"foreign\": 1}".into()).unwrap();
    says(&init(&plain(&other), "first").unwrap_err(), ErrorKind::Failed, "empty place");
}

#[test]
fn a_slot_of_another_repository_does_not_hide_the_right_one() {
    let (objects, others) = (Arc::default(), Arc::default());
    let (store, other) = (plain(&objects), plain(&others));
    for place in [&store, &other] {
        init(place, "the same").unwrap();
    }
    let is_slot = |name: &&Name| matches!(name.parsed(), Parsed::Slot(_));
    // From each into the other: one of them sorts first.
    for (from, to) in [(&store, &other), (&other, &store)] {
        let foreign: Vec<Name> = names(from).iter().filter(is_slot).cloned().collect();
        for name in foreign {
            let bytes = from.read(&name, 1 << 20).unwrap();
            to.create(&name, bytes).unwrap();
        }
    }
    open(&store, "the same").unwrap();
    open(&other, "the same").unwrap();
}
