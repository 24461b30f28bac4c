//! A small repository that is quick to make and to look at: files in memory, one thread, one connection.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{collections::BTreeMap, io::Cursor, path::Path, sync::Arc};

use lifeboat::{
    clock::{Clock, SystemClock, Timestamp},
    compress::Compression,
    crypto::RootSecret,
    error::Result,
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        select::Selection,
    },
    format::entry::{Content, Entry, EntryKind, Metadata},
    ops::{
        backup::{self, BackupOptions, Done, Item, Source},
        check::{self, CheckOptions, Checked, Depth, Subset},
        restore::{self, RestoreOptions, Restored},
    },
    progress::Progress,
    repository::{Repository, snapshots::KnownSnapshot, unlock::Credential},
    store::StoreOptions,
};

/// Paths without the leading slash, and what is in the files.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// One connection: every call comes on the thread that asks, in one order.
pub(crate) fn options(clock: Arc<dyn Clock>, progress: Arc<Progress>, retry_seconds: u64) -> StoreOptions {
    StoreOptions {
        connections: 1,
        upload_limit: None,
        download_limit: None,
        retry_for: std::time::Duration::from_secs(retry_seconds),
        s3: Default::default(),
        clock,
        progress,
    }
}

/// Opens it with the words, which costs no stretching of a passphrase.
pub(crate) fn open(store: &lifeboat::store::Store, root: &RootSecret) -> Result<Repository> {
    open_with(store, &Credential::Words(root.words()), None)
}

pub(crate) fn open_with(
    store: &lifeboat::store::Store,
    credential: &Credential,
    cache: Option<&Path>,
) -> Result<Repository> {
    let config = Repository::read_config(store)?;
    let secrets = Repository::unlock(store, &config, credential)?;
    Repository::open(store.clone(), config, secrets, cache, Arc::new(SystemClock))
}

pub(crate) struct Tree<'a>(pub(crate) &'a Files);

/// Its time follows from its content.
fn entry(path: &str, content: &[u8]) -> Entry {
    let [a, b, c, ..] = *blake3::hash(content).as_bytes();
    let time = Timestamp::from_seconds(1_700_000_000 + i64::from(u32::from_le_bytes([a, b, c, 0])));
    let metadata = Metadata {
        mode: 0o644,
        mtime: time,
        ctime: time,
        inode: 1,
        device_key: 1,
        size: content.len() as u64,
        ..Metadata::of(EntryKind::File)
    };
    let content = Content::Inline(Vec::new());
    Entry { path: path.into(), metadata, content, changed_while_read: false, error: None }
}

impl Source for Tree<'_> {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        Ok(Box::new(self.0.iter().map(|(path, bytes)| {
            let content = bytes.clone();
            Ok(Item::File(entry(path, bytes), Box::new(move || Ok(Box::new(Cursor::new(content))))))
        })))
    }
}

pub(crate) fn back_up(repository: &Repository, files: &Files) -> Result<Done> {
    backup::run(repository, &mut Tree(files), &backup_options())
}

pub(crate) fn backup_options() -> BackupOptions {
    BackupOptions {
        host: "host".to_owned(),
        user: "user".to_owned(),
        tags: Vec::new(),
        sources: vec![b"/srv".to_vec()],
        time: None,
        compression: Compression::Auto,
        // Everything is read again, whatever its time.
        reuse: backup::Reuse { unchanged: false, ..backup::Reuse::default() },
        unchanged: backup::Unchanged::Keep,
        mode: backup::Mode::Store,
        program: "test".to_owned(),
        workers: 1,
    }
}

/// What a restore puts into a folder, damaged files with the names that they are given.
pub(crate) fn restore(repository: &Repository, snapshot: &KnownSnapshot) -> Result<(Files, Restored)> {
    restore_to(repository, snapshot, tempfile::tempdir().unwrap().path())
}

/// As [`restore`], into a folder that is empty.
pub(crate) fn restore_to(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    target: &Path,
) -> Result<(Files, Restored)> {
    let options = RestoreOptions {
        ownership: Ownership::new(OwnershipPolicy::ByName),
        subpath: Vec::new(),
        selection: Selection::new(&[], &[]).unwrap(),
        workers: 1,
        ..RestoreOptions::default()
    };
    let restored = restore::run(repository, snapshot, target, &options).map_err(|stopped| stopped.error)?;
    let (mut files, mut folders) = (Files::new(), vec![target.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(target).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    Ok((files, restored))
}

/// Everything that a check can look at.
pub(crate) fn check_all(repository: &Repository) -> Result<Checked> {
    check::run(repository, CheckOptions { depth: Depth::Data(Subset::All), workers: 1 })
}
