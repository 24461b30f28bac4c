//! A folder with a source, a repository and a cache, and what one does with them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lifeboat::{
    clock::{Clock, SystemClock, Timestamp},
    compress::Compression,
    crypto::RootSecret,
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        select::Selection,
        walk::FilterOptions,
    },
    ops::{
        backup::{self, BackupOptions, Mode, Reuse, Unchanged, tree::Tree},
        restore::{self, RestoreOptions, Restored},
    },
    progress::Progress,
    repository::{InitOptions, Repository, snapshots::KnownSnapshot, unlock::Credential},
    store::{Location, Store, StoreOptions},
};
use zeroize::Zeroizing;

/// A clock that is so much ahead, so that files just written are old enough to be trusted.
struct Ahead(i64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        let now = SystemClock.now();
        Timestamp { seconds: now.seconds + self.0, ..now }
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration);
    }
}

pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) workers: usize,
    pub(crate) progress: Arc<Progress>,
}

impl Place {
    pub(crate) fn new(workers: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder, workers, progress: Arc::default() };
        fs::create_dir(place.source()).unwrap();
        fs::create_dir(place.at("repository")).unwrap();
        let root = RootSecret::generate().unwrap();
        Repository::create(&place.store(), &root, "right", InitOptions::default(), &SystemClock).unwrap();
        place
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(path)
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.at("source")
    }

    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.source().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn store(&self) -> Store {
        let location = Location::parse(self.at("repository").to_str().unwrap()).unwrap();
        let options = StoreOptions {
            connections: if self.workers == 1 { 1 } else { 4 },
            upload_limit: None,
            download_limit: None,
            retry_for: Duration::ZERO,
            s3: Default::default(),
            clock: Arc::new(SystemClock),
            progress: Arc::clone(&self.progress),
        };
        Store::open(&location, options).unwrap()
    }

    pub(crate) fn open(&self) -> Repository {
        self.open_at(Arc::new(Ahead(10)))
    }

    pub(crate) fn open_at(&self, clock: Arc<dyn Clock>) -> Repository {
        let store = self.store();
        let config = Repository::read_config(&store).unwrap();
        let credential = Credential::Passphrase(Zeroizing::new("right".to_owned()), None);
        let secrets = Repository::unlock(&store, &config, &credential).unwrap();
        Repository::open(store, config, secrets, Some(&self.at("cache")), clock).unwrap()
    }

    pub(crate) fn options(&self) -> BackupOptions {
        BackupOptions {
            host: "host".to_owned(),
            user: "user".to_owned(),
            tags: Vec::new(),
            sources: vec![self.source().to_str().unwrap().into()],
            time: None,
            compression: Compression::Auto,
            reuse: Reuse::default(),
            unchanged: Unchanged::Keep,
            mode: Mode::Store,
            program: "test".to_owned(),
            workers: self.workers,
        }
    }

    pub(crate) fn back_up(&self, options: &BackupOptions) -> backup::Done {
        let mut tree = Tree { sources: vec![self.source()], filter: FilterOptions::default() };
        backup::run(&self.open(), &mut tree, options).unwrap()
    }

    pub(crate) fn restore(&self, target: &str, subpath: &str, includes: &[&str]) -> Restored {
        let includes: Vec<String> = includes.iter().map(|&text| text.to_owned()).collect();
        let options = RestoreOptions {
            ownership: Ownership::new(OwnershipPolicy::ByName),
            subpath: subpath.trim_start_matches('/').into(),
            selection: Selection::new(&includes, &[]).unwrap(),
            workers: self.workers,
            ..RestoreOptions::default()
        };
        self.restore_with(target, &options)
    }

    pub(crate) fn newest(&self, repository: &Repository) -> KnownSnapshot {
        let (mut snapshots, damaged) = repository.snapshots().unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        snapshots.pop().unwrap()
    }

    pub(crate) fn restore_with(&self, target: &str, options: &RestoreOptions) -> Restored {
        let repository = self.open();
        restore::run(&repository, &self.newest(&repository), &self.at(target), options).unwrap()
    }

    /// Where a whole snapshot puts the source.
    pub(crate) fn copy(&self, target: &str) -> PathBuf {
        self.at(target).join(self.source().strip_prefix("/").unwrap())
    }
}

pub(crate) fn same(one: &Path, other: &Path) {
    let mut diff = std::process::Command::new("diff");
    let output = diff.args(["-r", "--no-dereference"]).arg(one).arg(other).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

pub(crate) fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}
