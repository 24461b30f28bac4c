//! One suite for every store: what a repository needs, on memory, in a folder, on S3, behind every wrapper of
//! these tests, and on a server that the environment names. And the suite itself: no lie of a store passes it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise; a server is named by the environment"
)]

use std::{sync::Arc, time::Duration};

use lifeboat::{
    clock::{Clock, SystemClock},
    store::{Location, S3Settings, Store, StoreOptions},
};
use object_store::{ObjectStore, aws::AmazonS3Builder, local::LocalFileSystem, memory::InMemory};

mod support {
    pub(crate) mod clock;
    pub(crate) mod conformance;
    pub(crate) mod faults;
    pub(crate) mod intercepted;
    pub(crate) mod service;
    pub(crate) mod wire;
}
use support::{
    clock::FakeClock,
    conformance::{CREATORS, Place, failures},
    faults::{Fault, Versions, every, locked, no_links, racy_conditions, stale_lists},
    intercepted::{Call, Fate, Intercepted, Interceptor, Kind},
    wire::Wire,
};

fn options(clock: Arc<dyn Clock>, s3: S3Settings) -> StoreOptions {
    StoreOptions {
        connections: 4,
        upload_limit: None,
        download_limit: None,
        retry_for: Duration::from_secs(30),
        s3,
        clock,
        progress: Arc::default(),
    }
}

/// Pauses cost no time.
fn over(raw: Arc<dyn ObjectStore>) -> Place {
    let objects = Arc::clone(&raw);
    let open = move |part: &str| {
        let options = options(Arc::<FakeClock>::default(), S3Settings::default());
        Store::from_object_store(Arc::clone(&objects), &format!("root/{part}"), options).unwrap()
    };
    Place { open: Box::new(open), raw, root: "root".to_owned() }
}

/// A store that is opened by its address, as the program does it.
fn at(address: String, s3: S3Settings, raw: Arc<dyn ObjectStore>, root: String) -> Place {
    let open = move |part: &str| {
        let location = Location::parse(&format!("{address}/{part}")).unwrap();
        Store::create_folder(&location).unwrap();
        Store::open(&location, options(Arc::new(SystemClock), s3.clone())).unwrap()
    };
    Place { open: Box::new(open), raw, root }
}

fn with(interceptor: impl Interceptor + 'static) -> Place {
    over(Intercepted::new(Arc::new(InMemory::new()), interceptor))
}

#[test]
fn memory_is_a_good_store() {
    assert_eq!(failures(&over(Arc::new(InMemory::new()))), Vec::<&str>::new());
}

#[test]
fn a_folder_is_a_good_store() {
    let folder = tempfile::tempdir().unwrap();
    let raw = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let address = folder.path().to_str().unwrap().to_owned();
    assert_eq!(failures(&at(address, S3Settings::default(), raw, String::new())), Vec::<&str>::new());
}

#[test]
fn s3_in_this_process_is_a_good_store() {
    assert_eq!(failures(&over(Arc::new(Wire::new().owner()))), Vec::<&str>::new());
}

/// What stands before a store in these tests changes nothing until it is told to.
#[test]
fn every_wrapper_that_lets_through_is_a_good_store() {
    let objects = InMemory::new();
    let versioned = Versions::of(objects.clone(), Arc::new(SystemClock));
    let stale = InMemory::new();
    for (what, place) in [
        ("let through", with(|_: &Call| Fate::Works)),
        ("slow", with(Fault::Waits(1))),
        ("versioned", over(Intercepted::new(Arc::new(objects), versioned))),
        ("nothing locked", with(locked(Arc::<FakeClock>::default(), Duration::ZERO))),
        ("not stale", over(Intercepted::new(Arc::new(stale.clone()), stale_lists(stale, 0)))),
        ("nothing of that kind", with(every(&[], Fault::Hangs))),
    ] {
        assert_eq!(failures(&place), Vec::<&str>::new(), "{what}");
    }
}

/// What is known of a store that keeps what it has: nothing can be deleted, all else is as it should be.
#[test]
fn a_store_that_locks_what_it_has_differs_in_what_it_deletes() {
    let day = Duration::from_hours(24);
    assert_eq!(failures(&with(locked(Arc::<FakeClock>::default(), day))), ["deleted"]);
}

#[test]
fn a_store_that_does_not_know_conditions_is_found_out() {
    assert_eq!(failures(&with(Fault::IgnoresConditions)), ["taken", "race"]);
    assert_eq!(failures(&with(racy_conditions(CREATORS, "race/raw"))), ["race"]);
}

/// The suite would be worth nothing if a lie passed it.
#[test]
fn no_lie_passes() {
    let stale = InMemory::new();
    let lies: [(&str, Place); 14] = [
        ("forgets", with(Fault::Forgets)),
        ("forgets what it was told to delete", with(every(&[Kind::Delete], Fault::Forgets))),
        ("always taken", with(Fault::AlwaysTaken)),
        ("no links", with(no_links)),
        ("full", with(Fault::Disk(rustix::io::Errno::NOSPC))),
        ("cut PUT", with(every(&[Kind::Create], Fault::Halves))),
        ("flipped PUT", with(every(&[Kind::Create], Fault::Flips))),
        ("longer PUT", with(every(&[Kind::Create], Fault::Extends))),
        ("cut GET", with(every(&[Kind::Get], Fault::Shortens))),
        ("longer GET", with(every(&[Kind::Get], Fault::Extends))),
        ("flipped GET", with(every(&[Kind::Get], Fault::Flips))),
        ("another range", with(Fault::Shifts)),
        ("a page is lost", with(Fault::LosesPage)),
        ("stale", over(Intercepted::new(Arc::new(stale.clone()), stale_lists(stale, 2)))),
    ];
    for (what, place) in lies {
        assert!(!failures(&place).is_empty(), "{what}");
    }
    // One that nobody notices: the store counts a name once.
    assert_eq!(failures(&with(Fault::Repeats)), [""; 0]);
}

/// `.ci/stores` starts the server, names it here, and looks for the line that this prints.
/// `LIFEBOAT_TEST_S3` is `ENDPOINT BUCKET`, `LIFEBOAT_TEST_S3_DIFFERS` the cases that it is known to fail.
#[test]
fn a_server_that_the_environment_names_is_as_it_is_declared() {
    let Ok(server) = std::env::var("LIFEBOAT_TEST_S3") else { return };
    let (endpoint, bucket) = server.split_once(' ').unwrap();
    let declared = std::env::var("LIFEBOAT_TEST_S3_DIFFERS").unwrap_or_default();
    let [key, secret] =
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| std::env::var(name).unwrap());
    let raw = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_bucket_name(bucket)
        .with_access_key_id(&key)
        .with_secret_access_key(&secret);
    let s3 = S3Settings {
        environment: vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), key),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), secret),
        ],
        ..S3Settings::default()
    };
    let root = format!("conformance-{}", SystemClock.now().seconds);
    let place = at(format!("s3:{endpoint}/{bucket}/{root}"), s3, Arc::new(raw.build().unwrap()), root);
    assert_eq!(failures(&place), declared.split_whitespace().collect::<Vec<_>>());
    println!("conformance of {endpoint}: as declared ({declared})");
}
