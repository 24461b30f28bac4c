//! A repository from `create` to `open`, on memory and in a folder.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{sync::Arc, time::Duration};

use lifeboat::{
    clock::SystemClock,
    crypto::RootSecret,
    error::{ErrorKind, Result},
    format::role::Role,
    repository::{InitOptions, Repository, unlock::Credential},
    store::{Location, Name, Store, StoreOptions},
};
use zeroize::Zeroizing;

fn options() -> StoreOptions {
    StoreOptions {
        connections: 1,
        upload_limit: None,
        download_limit: None,
        retry_for: Duration::ZERO,
        s3: Default::default(),
        clock: Arc::new(SystemClock),
    }
}

fn memory() -> Store {
    Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "some/prefix", options())
        .unwrap()
}

fn open(store: &Store, credential: &Credential) -> Result<Repository> {
    let config = Repository::read_config(store)?;
    let secrets = Repository::unlock(store, &config, credential)?;
    Repository::open(store.clone(), config, secrets, None, Arc::new(SystemClock))
}

fn passphrase(text: &str) -> Credential {
    Credential::Passphrase(Zeroizing::new(text.to_owned()), None)
}

fn in_every_store(test: impl Fn(Store)) {
    test(memory());
    let folder = tempfile::tempdir().unwrap();
    let location = Location::parse(folder.path().to_str().unwrap()).unwrap();
    test(Store::open(&location, options()).unwrap());
}

#[test]
fn the_passphrase_and_the_words_open_what_was_created_and_nothing_else_does() {
    in_every_store(|store| {
        let root = RootSecret::generate().unwrap();
        Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
        let repository = open(&store, &passphrase("right")).unwrap();
        assert_eq!(repository.role(), Role::Owner);
        assert_eq!(repository.own_domain().unwrap(), repository.registry.domains[0].id);
        let words = open(&store, &Credential::Words(root.words())).unwrap();
        assert_eq!(words.identity(), repository.identity());
        let others = RootSecret::generate().unwrap().words();
        for wrong in [passphrase("wrong"), passphrase(""), Credential::Words(others)] {
            assert_eq!(open(&store, &wrong).unwrap_err().kind(), ErrorKind::CannotUnlock);
        }
    });
}

#[test]
fn a_second_create_changes_nothing() {
    in_every_store(|store| {
        let root = RootSecret::generate().unwrap();
        Repository::create(&store, &root, "first", InitOptions::default(), &SystemClock).unwrap();
        let other = RootSecret::generate().unwrap();
        let error =
            Repository::create(&store, &other, "second", InitOptions::default(), &SystemClock).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.remedy().is_some());
        open(&store, &passphrase("first")).unwrap();
    });
}

#[test]
fn a_store_without_a_repository_says_so() {
    in_every_store(|store| {
        assert_eq!(open(&store, &passphrase("x")).unwrap_err().kind(), ErrorKind::NoRepository);
        store.create(&Name::config(), "{\"foreign\": true}".into()).unwrap();
        assert_eq!(open(&store, &passphrase("x")).unwrap_err().kind(), ErrorKind::NoRepository);
    });
}

#[test]
fn an_object_is_created_once() {
    in_every_store(|store| {
        store.create(&Name::config(), "one".into()).unwrap();
        store.create(&Name::config(), "one".into()).unwrap();
        assert_eq!(store.create(&Name::config(), "two".into()).unwrap_err().kind(), ErrorKind::Failed);
        assert_eq!(store.read(&Name::config(), 10).unwrap(), "one");
        assert_eq!(store.read(&Name::config(), 2).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(store.read_range(&Name::config(), 1..3).unwrap(), "ne");
        assert_eq!(store.head(&Name::config()).unwrap().unwrap().size, 3);
        store.delete(&Name::config()).unwrap();
        store.delete(&Name::config()).unwrap();
        assert_eq!(store.read(&Name::config(), 2).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(store.head(&Name::config()).unwrap().is_none());
    });
}

#[test]
fn a_config_that_was_replaced_is_noticed() {
    let store = memory();
    let root = RootSecret::generate().unwrap();
    Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
    let config = String::from_utf8(store.read(&Name::config(), 9999).unwrap().to_vec()).unwrap();
    let key = lifeboat::id::to_hex(&root.signing_key().verifying_key().to_bytes());
    let other = RootSecret::generate().unwrap();
    let forged = config.replace(&key, &lifeboat::id::to_hex(&other.signing_key().verifying_key().to_bytes()));
    assert_ne!(forged, config);
    store.delete(&Name::config()).unwrap();
    store.create(&Name::config(), forged.into()).unwrap();
    assert_eq!(open(&store, &passphrase("right")).unwrap_err().kind(), ErrorKind::CannotUnlock);
}
