//! A target to restore into with a fence around it, and what goes into a manifest.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use lifeboat::{
    clock::{SystemClock, Timestamp},
    crypto::RootSecret,
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        select::Selection,
    },
    format::{
        entry::{Content, Entry, EntryKind, Metadata},
        node::Child,
    },
    id::{BlobId, ObjectId},
    ops::restore::{self, RestoreOptions, Restored},
    repository::{InitOptions, Repository},
    store::Store,
};
use object_store::memory::InMemory;

use super::lab::{self, Files, check_all};

/// A repository with one honest snapshot.
pub(crate) fn repository() -> Repository {
    let options = lab::options(Arc::new(SystemClock), Arc::default(), 0);
    let store = Store::from_object_store(Arc::new(InMemory::new()), "", options).unwrap();
    let root = RootSecret::generate().unwrap();
    let init = InitOptions::default();
    Repository::create(&store, &root, "right", init, &SystemClock).unwrap();
    let repository = lab::open(&store, &root).unwrap();
    lab::back_up(&repository, &Files::from([("srv/honest".to_owned(), b"honest".to_vec())])).unwrap();
    repository
}

/// A folder with a target in it, and things beside the target that nobody may touch.
pub(crate) struct Fenced {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) before: BTreeMap<PathBuf, String>,
}

/// Everything below a folder but the target: kind, bytes, permissions, owner, times.
pub(crate) fn beside(folder: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let status = fs::symlink_metadata(&path).unwrap();
            if path.ends_with("target") {
                continue;
            }
            let bytes = if status.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let (mode, owner) = (status.mode(), (status.uid(), status.gid()));
            let (links, times) = (status.nlink(), (status.mtime(), status.mtime_nsec()));
            found.insert(path.clone(), format!("{mode:o} {owner:?} {links} {times:?} {bytes:x?}"));
            if status.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

impl Fenced {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("outside/deep")).unwrap();
        for file in ["outside/passwd", "outside/deep/file", "beside"] {
            File::create(folder.path().join(file)).unwrap().write_all(b"canary").unwrap();
        }
        fs::create_dir(folder.path().join("target")).unwrap();
        let before = beside(folder.path());
        assert_eq!(before.len(), 5);
        Self { folder, before }
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    #[track_caller]
    pub(crate) fn is_whole(&self) {
        assert_eq!(beside(self.folder.path()), self.before);
    }

    /// Restores a snapshot into the target, as whoever runs the tests, which is root in CI.
    #[track_caller]
    pub(crate) fn restore(&self, repository: &Repository, id: ObjectId) -> Restored {
        let (known, damaged) = repository.snapshots().unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        let snapshot = known.iter().find(|known| known.name.id == id).unwrap();
        let options = RestoreOptions {
            ownership: Ownership::new(OwnershipPolicy::Keep),
            subpath: Vec::new(),
            selection: Selection::new(&[], &[]).unwrap(),
            workers: 2,
            ..RestoreOptions::default()
        };
        let restored = restore::run(repository, snapshot, &self.target(), &options).unwrap();
        self.is_whole();
        restored
    }

    pub(crate) fn holds(&self, path: &str) -> bool {
        self.target().join(path).is_file()
    }
}

/// An empty file.
pub(crate) fn entry(path: impl Into<Vec<u8>>) -> Entry {
    let time = Timestamp::from_seconds(1_700_000_000);
    let metadata =
        Metadata { mode: 0o644, mtime: time, ctime: time, inode: 1, ..Metadata::of(EntryKind::File) };
    Entry {
        path: path.into(),
        metadata,
        content: Content::Inline(Vec::new()),
        changed_while_read: false,
        error: None,
    }
}

pub(crate) fn with_content(path: &str, size: u64, content: Content) -> Entry {
    let mut entry = entry(path);
    (entry.metadata.size, entry.content) = (size, content);
    entry
}

pub(crate) fn child(first: &str, id: BlobId) -> Child {
    Child { first: first.into(), id, entries: 1, bytes: 0 }
}

pub(crate) fn is_said(repository: &Repository, text: &str) -> bool {
    let problems = check_all(repository).unwrap().problems;
    problems.iter().any(|problem| problem.what.contains(text) || problem.object.contains(text))
}

/// The honest files before and behind are there.
#[track_caller]
pub(crate) fn rest_is_there(fence: &Fenced) {
    assert!(fence.holds("a/good") && fence.holds("z/good"));
}
