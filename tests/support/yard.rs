//! A repository in a local folder whose files are made to look as old as a test needs them, with a clock that goes with
//! them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use lifeboat::{
    clock::{Clock, SystemClock, Timestamp},
    crypto::RootSecret,
    error::Result,
    format::role::Role,
    id::ObjectId,
    ops::{
        forget::{ForgetOptions, MassRemoval, Mode, Which},
        key::{self, AddOptions, By},
    },
    repository::{InitOptions, Repository, unlock::Credential},
    store::{Location, Store},
};

use super::lab::{self, Files};

struct Ahead(i64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        let now = SystemClock.now();
        Timestamp { seconds: now.seconds + self.0, ..now }
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    fn sleep(&self, _: Duration) {}
}

/// Every file, sorted.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// What is there and lacks here comes here, as old as it is.
pub(crate) fn join(here: &Path, there: &Path) {
    for path in files_below(there) {
        let to = here.join(path.strip_prefix(there).unwrap());
        if !to.exists() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&path, &to).unwrap();
            let then = fs::metadata(&path).unwrap().modified().unwrap();
            File::open(&to).unwrap().set_modified(then).unwrap();
        }
    }
}

/// One snapshot ends, whatever is left of its group.
pub(crate) fn ending(snapshot: ObjectId) -> ForgetOptions {
    ForgetOptions {
        which: Which::Named(vec![snapshot.to_string()]),
        floor: 1,
        mass_removal: MassRemoval::Allow,
        zone: jiff::tz::TimeZone::UTC,
        mode: Mode::Write,
    }
}

/// A repository in a folder.
pub(crate) struct Yard {
    folder: tempfile::TempDir,
    pub(crate) root: RootSecret,
    pub(crate) ahead: Cell<i64>,
}

impl Yard {
    pub(crate) fn new() -> Self {
        Self::of(RootSecret::generate().unwrap())
    }

    pub(crate) fn of(root: RootSecret) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let yard = Self { folder, root, ahead: Cell::new(0) };
        let init = InitOptions::default();
        Repository::create(&yard.store(), &yard.root, "right", init, &SystemClock).unwrap();
        yard
    }

    /// The same objects with the same times, in another folder.
    pub(crate) fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for path in self.files() {
            let to = folder.path().join(path.strip_prefix(self.path()).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&path, &to).unwrap();
            File::open(&to).unwrap().set_modified(fs::metadata(&path).unwrap().modified().unwrap()).unwrap();
        }
        Self { folder, root: RootSecret::from_words(&self.root.words()).unwrap(), ahead: self.ahead.clone() }
    }

    /// What lies in a folder, as if the storage had got all of it then.
    pub(crate) fn found(from: &Path, root: RootSecret, stored: SystemTime) -> Self {
        let yard = Self { folder: tempfile::tempdir().unwrap(), root, ahead: Cell::new(0) };
        for path in files_below(from) {
            let to = yard.folder.path().join(path.strip_prefix(from).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&path, &to).unwrap();
            File::options().write(true).open(&to).unwrap().set_modified(stored).unwrap();
        }
        yard
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        files_below(&self.path())
    }

    /// Those whose path has this in it.
    pub(crate) fn having(&self, part: &str) -> Vec<PathBuf> {
        self.files().into_iter().filter(|path| path.to_str().unwrap().contains(part)).collect()
    }

    pub(crate) fn packs(&self) -> BTreeSet<PathBuf> {
        self.having("/packs/").into_iter().collect()
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(Ahead(self.ahead.get()))
    }

    pub(crate) fn store(&self) -> Store {
        let location = Location::parse(self.path().to_str().unwrap()).unwrap();
        Store::open(&location, lab::options(self.clock(), Arc::default(), 0)).unwrap()
    }

    pub(crate) fn open_as(&self, store: &Store, credential: &Credential) -> Result<Repository> {
        let config = Repository::read_config(store)?;
        let secrets = Repository::unlock(store, &config, credential)?;
        Repository::open(store.clone(), config, secrets, None, self.clock())
    }

    pub(crate) fn owner(&self) -> Repository {
        self.open_as(&self.store(), &Credential::Words(self.root.words())).unwrap()
    }

    pub(crate) fn add_key(&self, role: Role, label: &str, domain: Option<&str>) -> Repository {
        self.open_as(&self.store(), &self.new_key(role, label, domain)).unwrap()
    }

    pub(crate) fn new_key(&self, role: Role, label: &str, domain: Option<&str>) -> Credential {
        let (label, domain, unlock) = (label.to_owned(), domain.map(str::to_owned), By::AccessKey);
        let options = AddOptions { role, label, domain, shared: false, unlock };
        let access = key::add(&self.owner(), &options).unwrap().access_key.unwrap();
        Credential::AccessKey(access.text().to_string().into())
    }

    /// Everything becomes older, and our clock goes on.
    pub(crate) fn wait(&self, seconds: i64) {
        self.storage_gains(seconds);
        self.ahead.set(self.ahead.get() + seconds);
    }

    /// As if the clock of the storage had been set.
    pub(crate) fn storage_gains(&self, seconds: i64) {
        for path in self.files() {
            let before = fs::metadata(&path).unwrap().modified().unwrap();
            let seconds = Duration::from_secs(seconds.unsigned_abs());
            File::open(&path).unwrap().set_modified(before - seconds).unwrap();
        }
    }

    pub(crate) fn back_up(&self, files: &Files) -> ObjectId {
        lab::back_up(&self.owner(), files).unwrap().snapshot.unwrap().0
    }
}
