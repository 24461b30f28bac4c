//! The segments of a domain: kept in the local cache between runs, in memory within one, and merged as
//! they become many, so that a lookup asks few of them.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Index, Standing, build,
    segment::{Blocks, Segment},
};
use crate::{
    error::{Error, ErrorKind, Result},
    filesystem::durable,
    format::pack::IndexedPack,
    id::{DomainId, ObjectId, PackId, to_hex},
};

/// So many segments of about one size become one.
const MERGE_AT: usize = 4;
/// Sizes are alike when they have the same power of this.
const TIER_FACTOR: usize = 4;

/// So the name of a file begins while nobody has seen in the store what it speaks for: no other run may count on it.
const UNSEEN: &str = "unseen-";

#[derive(Debug)]
struct Loaded {
    segment: Arc<Segment>,
    objects: Vec<ObjectId>,
    path: Option<PathBuf>,
    is_seen: bool,
}

impl Loaded {
    /// From now on other runs may count on it.
    fn see(&mut self) {
        self.is_seen = true;
        let Some(path) = &self.path else { return };
        let name = path.file_name().and_then(|name| name.to_str()?.strip_prefix(UNSEEN));
        let Some(seen) = name.map(|name| path.with_file_name(name)) else { return };
        // Another run may have removed it: then it is read again some day.
        if fs::rename(path, &seen).is_ok() {
            self.path = Some(seen);
        }
    }
}

/// The segments of all domains that were looked at.
#[derive(Debug, Default)]
pub struct Segments {
    folder: Option<PathBuf>,
    domains: Mutex<HashMap<DomainId, Vec<Loaded>>>,
    pub(super) blocks: Arc<Blocks>,
}

impl Segments {
    /// Segments that are kept below `folder`, if there is one.
    #[must_use]
    pub fn new(folder: Option<&Path>) -> Self {
        Self { folder: folder.map(|folder| folder.join("segments")), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DomainId, Vec<Loaded>>> {
        self.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, domain: &DomainId) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(domain.to_string()))
    }

    /// Loads what the cache has, drops what speaks for objects that are gone, and gives the index objects
    /// that still have to be read. `listed` are those that the store has whole, as far as LIST can tell.
    #[must_use]
    pub fn prepare(&self, domain: &DomainId, listed: &[ObjectId], key: &[u8; 32]) -> Vec<ObjectId> {
        let listed_set: HashSet<&ObjectId> = listed.iter().collect();
        let mut domains = self.lock();
        let loaded = match domains.entry(*domain) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(unknown) => {
                let folder = self.folder(domain);
                unknown.insert(folder.map(|folder| load(&folder, key, &self.blocks)).unwrap_or_default())
            }
        };
        loaded.retain(|known| {
            let keep = !known.segment.is_damaged() && known.objects.iter().all(|id| listed_set.contains(id));
            if !keep {
                forget(known.path.as_deref());
            }
            keep
        });
        loaded.iter_mut().for_each(Loaded::see);
        // Another process may have merged the same ones: what adds nothing is left out.
        let mut covered = HashSet::new();
        loaded.sort_by_key(|known| std::cmp::Reverse(known.objects.len()));
        loaded.retain(|known| {
            let adds = known.objects.iter().any(|id| !covered.contains(id));
            covered.extend(known.objects.iter().copied());
            if !adds {
                forget(known.path.as_deref());
            }
            adds
        });
        listed.iter().copied().filter(|id| !covered.contains(id)).collect()
    }

    /// Forgets everything that is remembered of a domain: its index objects are read again.
    pub fn forget(&self, domain: &DomainId) {
        self.lock().remove(domain);
        if let Some(folder) = self.folder(domain) {
            // What cannot be removed is a cache that cannot be written: it is as it was.
            drop(fs::remove_dir_all(folder));
        }
    }

    /// Takes in what an index object says that was read.
    ///
    /// # Errors
    /// It says more than a segment can hold.
    pub fn add(
        &self,
        domain: &DomainId,
        object: ObjectId,
        packs: &[IndexedPack],
        key: &[u8; 32],
    ) -> Result<()> {
        self.take_in(domain, (object, true), packs, key)
    }

    /// Takes in what an index object says that was written, and that the store may not have kept: other runs count on it
    /// once it was [listed](Self::prepare).
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_unseen(
        &self,
        domain: &DomainId,
        object: ObjectId,
        packs: &[IndexedPack],
        key: &[u8; 32],
    ) -> Result<()> {
        self.take_in(domain, (object, false), packs, key)
    }

    fn take_in(
        &self,
        domain: &DomainId,
        (object, is_seen): (ObjectId, bool),
        packs: &[IndexedPack],
        key: &[u8; 32],
    ) -> Result<()> {
        let broken =
            || Error::damaged(format!("index object {object}"), "it is larger than any index may be");
        let bytes = build::from_packs(packs, object, key).map_err(|e| broken().with_source(e))?;
        let written = self.folder(domain).and_then(|folder| {
            let path = folder.join(format!("{}{}", if is_seen { "" } else { UNSEEN }, file_name(&bytes)));
            durable::private_directory(&folder).ok()?;
            durable::write_atomic(&path, &bytes, 0o600).ok()?;
            let segment = Segment::open(File::open(&path).ok()?, key, &self.blocks)?;
            Some((segment, Some(path)))
        });
        // A cache that cannot be written is no error: memory does as well.
        let (segment, path) = match written {
            Some(written) => written,
            None => (Segment::memory(bytes, key).ok_or_else(broken)?, None),
        };
        let loaded = Loaded { segment: Arc::new(segment), objects: vec![object], path, is_seen };
        self.lock().entry(*domain).or_default().push(loaded);
        Ok(())
    }

    /// Merges segments of one size. Whatever goes wrong, those that are there stay.
    pub fn merge(&self, domain: &DomainId, key: &[u8; 32]) {
        let Some(folder) = self.folder(domain) else { return };
        let mut domains = self.lock();
        let Some(loaded) = domains.get_mut(domain) else { return };
        while let Some(tier) = full_tier(loaded) {
            let parts: Vec<&Segment> = loaded
                .iter()
                .filter(|known| tier_of(known) == Some(tier))
                .map(|known| &*known.segment)
                .collect();
            let Ok(merged) = write_merged(&folder, &parts, (key, &self.blocks)) else { return };
            loaded.retain(|known| {
                let stays = tier_of(known) != Some(tier);
                if !stays {
                    forget(known.path.as_deref());
                }
                stays
            });
            loaded.push(merged);
        }
    }

    /// The index of a domain, given how each pack stands.
    pub fn index(&self, domain: &DomainId, standing: &dyn Fn(&PackId, u32) -> Standing) -> Index {
        let domains = self.lock();
        let loaded = domains.get(domain).map(Vec::as_slice).unwrap_or_default();
        Index::new(loaded.iter().map(|known| Arc::clone(&known.segment)).collect(), standing)
    }

    /// Adds to an index what the index object `object` says, which this run has just written.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn extend(&self, index: &mut Index, domain: &DomainId, object: &ObjectId) -> Result<()> {
        let domains = self.lock();
        let loaded = domains.get(domain).map(Vec::as_slice).unwrap_or_default();
        let known = loaded.iter().find(|known| known.objects.contains(object));
        let known = known.ok_or_else(|| {
            Error::new(ErrorKind::Failed, format!("index object {object} was not taken in"))
        })?;
        index.add_used(Arc::clone(&known.segment));
        Ok(())
    }
}

fn file_name(bytes: &[u8]) -> String {
    // The MAC is the end of the footer: it differs whenever the content does.
    to_hex(bytes.get(bytes.len().saturating_sub(16)..).unwrap_or_default())
}

/// A file of the cache that serves no more. Where it cannot be removed, the next run tries again.
fn forget(path: Option<&Path>) {
    if let Some(path) = path {
        drop(fs::remove_file(path));
    }
}

fn load(folder: &Path, key: &[u8; 32], blocks: &Arc<Blocks>) -> Vec<Loaded> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let open = |path: PathBuf, file| {
        let segment = Segment::open(file, key, blocks)?;
        let objects = segment.objects()?;
        Some(Loaded { segment: Arc::new(segment), objects, path: Some(path), is_seen: true })
    };
    let mut loaded = Vec::new();
    for entry in entries.flatten() {
        // Of a run that was stopped before it looked. One that still runs has it open.
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNSEEN)) {
            forget(Some(&entry.path()));
            continue;
        }
        // One that cannot be opened may be good all the same, when files are short.
        let Ok(file) = File::open(entry.path()) else { continue };
        match open(entry.path(), file) {
            Some(known) => loaded.push(known),
            None => forget(Some(&entry.path())),
        }
    }
    loaded
}

/// Which of them are merged together; what nobody has seen with nothing.
fn tier_of(known: &Loaded) -> Option<u32> {
    known.is_seen.then(|| known.segment.len().max(1).ilog(TIER_FACTOR))
}

fn full_tier(loaded: &[Loaded]) -> Option<u32> {
    let mut counts: HashMap<u32, usize> = HashMap::new();
    for tier in loaded.iter().filter_map(tier_of) {
        *counts.entry(tier).or_default() += 1;
    }
    counts.into_iter().filter(|(_, count)| *count >= MERGE_AT).map(|(tier, _)| tier).min()
}

fn write_merged(
    folder: &Path,
    parts: &[&Segment],
    (key, blocks): (&[u8; 32], &Arc<Blocks>),
) -> io::Result<Loaded> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = folder.join(format!("merge-{}", std::process::id()));
    let write = || -> io::Result<Loaded> {
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let out = build::merge(parts, io::BufWriter::with_capacity(1 << 20, file), key)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "the merged segment is not one");
        let segment = Segment::open(File::open(&temporary)?, key, blocks).ok_or_else(broken)?;
        let objects = segment.objects().ok_or_else(broken)?;
        let name = blake3::Hasher::new()
            .update(&objects.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<_>>())
            .finalize();
        let path = folder.join(to_hex(name.as_bytes().get(..16).unwrap_or_default()));
        fs::rename(&temporary, &path)?;
        Ok(Loaded { segment: Arc::new(segment), objects, path: Some(path), is_seen: true })
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}
