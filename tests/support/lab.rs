//! A small repository that is quick to make and to look at: files in memory, one thread, one connection.

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

struct Tree<'a>(&'a Files);

fn entry(path: &str, size: usize) -> Entry {
    let time = Timestamp::from_seconds(1_700_000_000);
    let metadata = Metadata {
        mode: 0o644,
        mtime: time,
        ctime: time,
        inode: 1,
        device_key: 1,
        size: size as u64,
        ..Metadata::of(EntryKind::File)
    };
    let content = Content::Inline(Vec::new());
    Entry { path: path.into(), metadata, content, changed_while_read: false, error: None }
}

impl Source for Tree<'_> {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        Ok(Box::new(self.0.iter().map(|(path, bytes)| {
            let content = bytes.clone();
            Ok(Item::File(entry(path, bytes.len()), Box::new(move || Ok(Box::new(Cursor::new(content))))))
        })))
    }
}

pub(crate) fn back_up(repository: &Repository, files: &Files) -> Result<Done> {
    let options = BackupOptions {
        host: "host".to_owned(),
        user: "user".to_owned(),
        tags: Vec::new(),
        sources: vec![b"/srv".to_vec()],
        time: None,
        compression: Compression::Auto,
        // The files all have one time, so only their content tells them apart.
        reuse: backup::Reuse { unchanged: false, ..backup::Reuse::default() },
        unchanged: backup::Unchanged::Keep,
        mode: backup::Mode::Store,
        program: "test".to_owned(),
        workers: 1,
    };
    backup::run(repository, &mut Tree(files), &options)
}

/// What a restore puts into a folder, damaged files with the names that they are given.
pub(crate) fn restore(repository: &Repository, snapshot: &KnownSnapshot) -> Result<(Files, Restored)> {
    let target = tempfile::tempdir().unwrap();
    let options = RestoreOptions {
        ownership: Ownership::new(OwnershipPolicy::ByName),
        subpath: Vec::new(),
        selection: Selection::new(&[], &[]).unwrap(),
        workers: 1,
    };
    let restored = restore::run(repository, snapshot, target.path(), &options)?;
    let (mut files, mut folders) = (Files::new(), vec![target.path().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(target.path()).unwrap().to_str().unwrap().to_owned();
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
