//! The local cache: small records as they are in the store, and the manifest of the last backup. (What
//! index objects say is in `index/segments.rs`, packs that no index lists yet in `journal.rs`.) It is never proof and never needed: each object is checked against the hash that names it, each
//! node against its keyed id, the parent's record against a MAC. Whatever fails is read again from
//! its source.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use minicbor::{Decoder, Encoder};

use super::manifest::NodeSource;
use crate::{
    clock::Timestamp,
    crypto::{IndexKey, NodeKey},
    error::{Error, ErrorKind, Result},
    filesystem::durable,
    format::slot::is_slot_name,
    id::{BlobId, DomainId, IdentityId, ObjectId, PackId, RepositoryId},
    limits,
};

/// Of the file that holds the name of a slot.
const SLOT_NAME_BYTES_MAX: usize = 64;

/// The cache of one repository, or none.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The cache of a repository below `folder`; without one nothing is kept.
    #[must_use]
    pub fn open(folder: Option<&Path>, repository: &RepositoryId) -> Self {
        Self::usable((folder, repository), durable::private_directory)
    }

    /// The same if it was made before: until it is unlocked, nobody knows that a repository is the one that it says it is.
    pub(super) fn if_there(folder: Option<&Path>, repository: &RepositoryId) -> Self {
        Self::usable((folder, repository), durable::check_private)
    }

    fn usable(
        (folder, repository): (Option<&Path>, &RepositoryId),
        check: impl Fn(&Path) -> Result<()>,
    ) -> Self {
        let folder = folder.map(|folder| folder.join(repository.to_string()));
        Self { folder: folder.filter(|folder| check(folder).is_ok()) }
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// An object whose name is the BLAKE3 of its bytes; `None` when it is not here or not intact.
    #[must_use]
    pub fn object(&self, id: &ObjectId) -> Option<Vec<u8>> {
        let bytes = durable::read_own(
            &self.folder.as_ref()?.join("objects").join(id.to_string()),
            limits::RECORD_BYTES_MAX,
        )?;
        (blake3::hash(&bytes).as_bytes() == id.as_bytes()).then_some(bytes)
    }

    /// Keeps an object. A full or read-only disk is no error: the cache is never needed.
    pub fn keep_object(&self, id: &ObjectId, bytes: &[u8]) {
        if let Some(folder) = &self.folder {
            let folder = folder.join("objects");
            if durable::private_directory(&folder).is_ok() {
                drop(durable::write_atomic(&folder.join(id.to_string()), bytes, 0o600));
            }
        }
    }

    /// A file that whoever adds to the chain of an identity claims; `None` without a cache.
    pub(super) fn chain_file(&self, identity: &IdentityId) -> Option<fs::File> {
        let path = self.folder.as_ref()?.join(format!("chain-{identity}"));
        fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).ok()
    }

    /// The key slot that a passphrase opened last.
    pub(super) fn slot(&self) -> Option<String> {
        let bytes = durable::read_own(&self.folder.as_ref()?.join("slot"), SLOT_NAME_BYTES_MAX)?;
        // Whatever else stands there is not sent to the storage.
        String::from_utf8(bytes).ok().filter(|name| is_slot_name(name))
    }

    /// Remembers it. Nothing vouches for it: a slot that does not open costs a try. A cache that cannot be written is no error.
    pub(crate) fn keep_slot(&self, name: &str) {
        if let Some(folder) = &self.folder
            && self.slot().is_none_or(|known| known != name)
        {
            drop(durable::write_atomic(&folder.join("slot"), name.as_bytes(), 0o600));
        }
    }

    fn distrusted_path(&self, domain: &DomainId) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("distrusted-{domain}")))
    }

    /// Packs that a check on this machine has found to be damaged. That they are not believed costs at most
    /// that something is stored twice, so nothing vouches for this list.
    #[must_use]
    pub fn distrusted(&self, domain: &DomainId) -> HashSet<PackId> {
        let read = |path: PathBuf| {
            let file = fs::File::open(path).ok()?;
            let mut text = String::new();
            file.take(limits::RECORD_BYTES_MAX as u64).read_to_string(&mut text).ok()?;
            Some(text.lines().filter_map(PackId::from_hex).collect())
        };
        self.distrusted_path(domain).and_then(read).unwrap_or_default()
    }

    /// Remembers these packs as damaged, and no others. A cache that cannot be written is no error.
    pub fn distrust(&self, domain: &DomainId, packs: &HashSet<PackId>) {
        let Some(path) = self.distrusted_path(domain) else { return };
        if packs.is_empty() {
            drop(fs::remove_file(path));
        } else {
            let text: String = packs.iter().map(|pack| format!("{pack}\n")).collect();
            drop(durable::write_atomic(&path, text.as_bytes(), 0o600));
        }
    }

    /// The file of a sort for what a text names.
    fn file_for(&self, sort: &str, text: &str) -> Option<PathBuf> {
        let name = blake3::hash(text.as_bytes()).to_hex();
        Some(self.folder.as_ref()?.join(format!("{sort}-{}", name.as_str().get(..32)?)))
    }

    fn held_path(&self, machine: &str) -> Option<PathBuf> {
        self.file_for("held", machine)
    }

    /// Sources of a machine (one identity and host, in a text) that held something when they were there last, as
    /// [`Self::keep_held`] was given them. A wrong list costs a warning, so nothing vouches for it.
    #[must_use]
    pub fn held(&self, machine: &str) -> HashSet<String> {
        let read =
            self.held_path(machine).and_then(|path| durable::read_own(&path, limits::RECORD_BYTES_MAX));
        let text = String::from_utf8(read.unwrap_or_default()).unwrap_or_default();
        text.lines().take(limits::SOURCES_MAX).map(str::to_owned).collect()
    }

    /// Remembers them. A cache that cannot be written is no error.
    pub fn keep_held(&self, machine: &str, held: &HashSet<String>) {
        if let Some(path) = self.held_path(machine)
            && *held != self.held(machine)
        {
            let text: String = held.iter().map(|source| format!("{source}\n")).collect();
            drop(durable::write_atomic(&path, text.as_bytes(), 0o600));
        }
    }

    fn parent_path(&self, group: &str) -> Option<PathBuf> {
        self.file_for("parent", group)
    }

    /// The last backup of a group (one identity, host and set of sources, in a text); `None` when there is none
    /// or when it is not intact.
    #[must_use]
    pub fn parent(&self, group: &str, index: &IndexKey) -> Option<(ParentRecord, NodeFile)> {
        let path = self.parent_path(group)?;
        let sealed = durable::read_own(&path.with_extension("record"), limits::RECORD_BYTES_MAX)?;
        let (mac, plain) = sealed.split_at_checked(32)?;
        if index.cache_mac(&[group.as_bytes(), plain].concat()) != mac {
            return None;
        }
        let record = ParentRecord::decode(plain)?;
        let nodes = NodeFile::open(&path.with_extension(record.nodes.to_string())).ok()?;
        Some((record, nodes))
    }

    /// Begins to keep the nodes of a backup; `None` without a cache.
    #[must_use]
    pub fn begin_parent(&self, group: &str, nonce: u64) -> Option<NodeFileWriter> {
        let path = self.parent_path(group)?;
        // What a run that was killed has left; a whole manifest each.
        sweep(&path, named_nodes(&path));
        NodeFileWriter::create(path.with_extension(nonce.to_string()), nonce).ok()
    }

    /// Makes a finished backup the parent of the next one: nodes first, then the record that names
    /// them, then the old nodes go. Without new nodes the record goes on naming those that it names.
    ///
    /// # Errors
    /// The disk is full or cannot be written. The backup is good all the same.
    pub fn finish_parent(
        &self,
        group: &str,
        index: &IndexKey,
        mut record: ParentRecord,
        nodes: Option<NodeFileWriter>,
    ) -> Result<()> {
        let Some(path) = self.parent_path(group) else { return Ok(()) };
        if let Some(mut nodes) = nodes {
            record.nodes = nodes.nonce;
            nodes.finish()?;
        }
        let plain = record.encode();
        let mac = index.cache_mac(&[group.as_bytes(), &plain].concat());
        durable::write_atomic(&path.with_extension("record"), &[&mac[..], &plain].concat(), 0o600)?;
        sweep(&path, Some(record.nodes));
        Ok(())
    }
}

/// The nodes that the record of a group names, whether that is to be trusted or not.
fn named_nodes(path: &Path) -> Option<u64> {
    let sealed = durable::read_own(&path.with_extension("record"), limits::RECORD_BYTES_MAX)?;
    ParentRecord::decode(sealed.get(32..)?).map(|record| record.nodes)
}

/// Removes the nodes of a group that no record names and nobody is writing. What cannot be removed stays
/// for the next time.
fn sweep(path: &Path, keep: Option<u64>) {
    let keep = keep.map(|nonce| path.with_extension(nonce.to_string()));
    let (Some(folder), stem) = (path.parent(), path.file_stem()) else { return };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let other = entry.path();
        let ours = other.file_stem() == stem && other.extension().is_some_and(|e| e != "record");
        if ours && Some(&other) != keep.as_ref() && fs::File::open(&other).is_ok_and(|file| claim(&file)) {
            drop(fs::remove_file(&other));
        }
    }
}

/// Takes a file of the cache for this process; false while another one has it. It is free again when it is
/// closed, however the process ends.
pub(super) fn claim(file: &fs::File) -> bool {
    rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn cannot(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let text = format!("could not write the cache at {}", path.display());
    move |error| Error::new(ErrorKind::Failed, text).with_source(error)
}

/// What the next backup must know of the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRecord {
    /// Its snapshot.
    pub snapshot: ObjectId,
    /// When it began: what changed less than two seconds before that is read again.
    pub begun: Timestamp,
    /// The root of its manifest.
    pub root: BlobId,
    /// Which file holds its nodes.
    pub nodes: u64,
    /// Files in it.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl ParentRecord {
    fn encode(&self) -> Vec<u8> {
        let Self { snapshot, begun, root, nodes, files, bytes } = self;
        let mut out = Vec::new();
        let mut e = Encoder::new(&mut out);
        let written = e
            .array(7)
            .and_then(|e| e.bytes(snapshot.as_bytes()))
            .and_then(|e| e.i64(begun.seconds))
            .and_then(|e| e.u32(begun.nanoseconds))
            .and_then(|e| e.bytes(root.as_bytes()))
            .and_then(|e| e.u64(*nodes))
            .and_then(|e| e.u64(*files))
            .and_then(|e| e.u64(*bytes))
            .map(|_| ());
        match written {
            Ok(()) => out,
            Err(error) => unreachable!("writing to memory cannot fail: {error}"),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut d = Decoder::new(bytes);
        d.array().ok()?;
        Some(Self {
            snapshot: ObjectId::from_slice(d.bytes().ok()?)?,
            begun: Timestamp { seconds: d.i64().ok()?, nanoseconds: d.u32().ok()? },
            root: BlobId::from_slice(d.bytes().ok()?)?,
            nodes: d.u64().ok()?,
            files: d.u64().ok()?,
            bytes: d.u64().ok()?,
        })
    }
}

/// Writes the nodes of one manifest to a file: id, length, plaintext, one after the other. The file goes
/// again unless it is finished.
#[derive(Debug)]
pub struct NodeFileWriter {
    path: PathBuf,
    nonce: u64,
    file: std::io::BufWriter<fs::File>,
    finished: bool,
}

impl Drop for NodeFileWriter {
    fn drop(&mut self) {
        if !self.finished {
            // What stays is swept by the next backup.
            drop(fs::remove_file(&self.path));
        }
    }
}

impl NodeFileWriter {
    fn create(path: PathBuf, nonce: u64) -> std::io::Result<Self> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        claim(&file);
        let file = std::io::BufWriter::with_capacity(limits::MIB, file);
        Ok(Self { path, nonce, file, finished: false })
    }

    fn finish(&mut self) -> Result<()> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(cannot(&self.path))?;
        self.finished = true;
        Ok(())
    }

    /// Adds a node.
    ///
    /// # Errors
    /// The disk is full or cannot be written.
    pub fn add(&mut self, id: BlobId, plain: &[u8]) -> Result<()> {
        let length = u32::try_from(plain.len())
            .map_err(|e| Error::new(ErrorKind::Failed, "a manifest node is too large").with_source(e))?;
        let mut write = || -> std::io::Result<()> {
            self.file.write_all(id.as_bytes())?;
            self.file.write_all(&length.to_le_bytes())?;
            self.file.write_all(plain)
        };
        write().map_err(cannot(&self.path))
    }
}

/// Nodes in a file of the cache. Holds the place of each: about 48 bytes for 128 entries.
#[derive(Debug)]
pub struct NodeFile {
    file: fs::File,
    places: HashMap<BlobId, (u64, u32)>,
}

impl NodeFile {
    fn open(path: &Path) -> std::io::Result<Self> {
        use std::io::{BufReader, Read, Seek, SeekFrom};
        let mut reader = BufReader::with_capacity(1 << 16, fs::File::open(path)?);
        let size = reader.get_ref().metadata()?.len();
        let (mut places, mut at) = (HashMap::new(), 0_u64);
        while at < size {
            let mut head = [0; BlobId::LEN + 4];
            reader.read_exact(&mut head)?;
            let (id, length) = head.split_at(BlobId::LEN);
            let length = length.try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX);
            at += head.len() as u64;
            if let Some(id) = BlobId::from_slice(id) {
                places.insert(id, (at, length));
            }
            at += u64::from(length);
            reader.seek_relative(i64::from(length))?;
        }
        let mut file = reader.into_inner();
        file.seek(SeekFrom::Start(0))?;
        Ok(Self { file, places })
    }

    fn plain(&self, id: &BlobId, key: &NodeKey) -> Option<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let (at, length) = *self.places.get(id)?;
        if length as usize > limits::NODE_BYTES_MAX {
            return None;
        }
        let mut plain = vec![0; length as usize];
        self.file.read_exact_at(&mut plain, at).ok()?;
        (key.id(&plain) == *id).then_some(plain)
    }
}

/// Nodes from the cache alone: all that a backup identity can read.
#[derive(Debug)]
pub struct CachedNodes<'a> {
    /// The file.
    pub file: &'a NodeFile,
    /// Checks each node.
    pub key: &'a NodeKey,
}

impl NodeSource for CachedNodes<'_> {
    fn plain(&self, id: &BlobId) -> Result<Vec<u8>> {
        let plain = self.file.plain(id, self.key);
        plain.ok_or_else(|| Error::damaged(format!("cached manifest node {id}"), "it is not intact"))
    }
}
