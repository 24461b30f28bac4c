//! `verify`: whether everything that a snapshot holds is on this machine as it was, chunk by chunk, without
//! reading any stored data. What is there besides does not matter.

use std::{io::Read, ops::Range, path::Path};

use crate::{
    crypto::ChunkIdKey,
    error::{Error, ErrorKind, Result},
    filesystem::{existing::Existing, select::Selection},
    format::entry::{Entry, EntryKind, Metadata},
    limits,
    progress::Phase,
    repository::{
        Repository,
        manifest::{Gap, NodeSource, for_each_chunk, for_each_entry},
        reader::NodeReader,
        snapshots::KnownSnapshot,
    },
};

/// Differences are named one by one up to so many, and counted beyond.
const NAMED_MAX: usize = 10_000;

/// What to compare.
#[derive(Debug)]
pub struct VerifyOptions {
    /// Only what is at and below this path (no leading slash); empty for everything.
    pub subpath: Vec<u8>,
    /// What of it.
    pub selection: Selection,
    /// Whether owners must be the same too.
    pub owners: Owners,
}

/// Whether owners must be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// The same name; the same number where there is none.
    Compare,
    /// They are left out.
    Ignore,
}

/// How an entry differs from what the snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is not there.
    Missing,
    /// It is of another kind.
    Kind(EntryKind),
    /// It has so many bytes now.
    Size(u64),
    /// These bytes of it differ.
    Content(Vec<Range<u64>>),
    /// The link points there now.
    LinkTarget(Vec<u8>),
    /// It has these permission bits now.
    Mode(u32),
    /// It belongs to these now.
    Owner(String),
    /// Its time of modification is another.
    Modified,
    /// It could not be read.
    Unreadable(String),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("it is missing"),
            Self::Kind(kind) => write!(f, "it is now a {kind:?}"),
            Self::Size(size) => write!(f, "it has {size} bytes now"),
            Self::Content(ranges) => {
                f.write_str("these bytes differ:")?;
                ranges
                    .iter()
                    .take(8)
                    .try_for_each(|range| write!(f, " {}-{}", range.start, range.end - 1))?;
                if ranges.len() > 8 { f.write_str(" ...") } else { Ok(()) }
            }
            Self::LinkTarget(target) => {
                write!(f, "it points to {} now", String::from_utf8_lossy(target))
            }
            Self::Mode(mode) => write!(f, "its mode is {mode:04o} now"),
            Self::Owner(owner) => write!(f, "it belongs to {owner} now"),
            Self::Modified => f.write_str("its time of modification is another"),
            Self::Unreadable(why) => write!(f, "it could not be read: {why}"),
        }
    }
}

/// What was compared, and how it differs.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Files that are exactly as the snapshot has them.
    pub files: u64,
    /// Bytes that were read and compared.
    pub bytes: u64,
    /// Entries that differ.
    pub differing: u64,
    /// The first of them, with each difference.
    pub differences: Vec<(Vec<u8>, Difference)>,
    /// Parts of the manifest that are lost, with the entries in them.
    pub lost: u64,
    /// Entries that the backup could not read, so that there is nothing to compare.
    pub not_backed_up: u64,
}

/// Compares a snapshot with the tree below `target`, by the rule of restore; without one, with the files
/// that were backed up, where they were.
///
/// # Errors
/// The target is not there; `Forbidden` for a role that cannot check contents.
pub fn run(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    target: Option<&Path>,
    options: &VerifyOptions,
) -> Result<Verified> {
    let domain = snapshot.name.domain;
    let progress = repository.store.progress();
    progress.enter(Phase::Checking);
    let key = repository.chunk_keys(&domain)?.id;
    let view = repository.view_to_read(&domain)?;
    let nodes = NodeReader::new(repository, domain, &view.index)?;
    let below = super::restore::strip_of(&nodes, snapshot, &options.subpath)?;
    let (target, strip) = target.map_or((Path::new("/"), 0), |target| (target, below));
    progress.expect(snapshot.record.statistics.files, snapshot.record.statistics.bytes);
    let mut verified = Verified::default();
    let mut tree = Existing::open(target)?;
    let mut buffer = vec![0; limits::CHUNK_BYTES_MAX];
    for_each_entry(&nodes, snapshot.record.root, &options.subpath, &mut |entry| {
        progress.check()?;
        let entry = match entry {
            Ok(entry) => entry,
            // What is lost in the repository cannot be compared; the rest is.
            Err(Gap { first, error }) => {
                progress.trouble();
                verified.lost += 1;
                if verified.differences.len() < NAMED_MAX {
                    let why = format!("it and the entries after it are lost in the repository: {error}");
                    verified.differences.push((first, Difference::Unreadable(why)));
                }
                return Ok(());
            }
        };
        progress.at(&entry.path);
        let selected = options.selection.selects(&entry.path, entry.metadata.kind == EntryKind::Directory);
        if !selected || snapshot.record.leads_only(&entry.path) {
            return Ok(());
        }
        if entry.error.is_some() {
            verified.not_backed_up += 1;
            return Ok(());
        }
        let path = entry.path.get(strip..).unwrap_or_default();
        let differences = compare(&entry, (&mut tree, path), (&key, &nodes, &mut buffer), options.owners)?;
        if entry.metadata.kind == EntryKind::File {
            progress.add(1, entry.metadata.size);
            verified.files += u64::from(differences.is_empty());
            verified.bytes += entry.metadata.size;
        }
        if !differences.is_empty() {
            progress.trouble();
            verified.differing += 1;
        }
        for difference in differences {
            if verified.differences.len() < NAMED_MAX {
                verified.differences.push((entry.path.clone(), difference));
            }
        }
        Ok(())
    })?;
    Ok(verified)
}

type Contents<'a> = (&'a ChunkIdKey, &'a dyn NodeSource, &'a mut Vec<u8>);

fn compare(
    entry: &Entry,
    (tree, path): (&mut Existing, &[u8]),
    contents: Contents<'_>,
    owners: Owners,
) -> Result<Vec<Difference>> {
    let then = &entry.metadata;
    let now = match tree.metadata(path) {
        Ok(Some(now)) => now,
        Ok(None) if then.kind == EntryKind::Socket => return Ok(Vec::new()),
        Ok(None) => return Ok(vec![Difference::Missing]),
        Err(error) => return Ok(vec![Difference::Unreadable(error.to_string())]),
    };
    if now.kind != then.kind {
        return Ok(vec![Difference::Kind(now.kind)]);
    }
    let mut differences = Vec::new();
    if then.kind == EntryKind::File {
        if now.size == then.size {
            differences.extend(content(entry, (tree, path), &now, contents)?);
        } else {
            differences.push(Difference::Size(now.size));
        }
    }
    if then.kind == EntryKind::Symlink && now.link_target != then.link_target {
        differences.push(Difference::LinkTarget(now.link_target.clone()));
    }
    if then.kind != EntryKind::Symlink && now.mode != then.mode {
        differences.push(Difference::Mode(now.mode));
    }
    let same = |name: &str, other: &str, id: u32, other_id: u32| {
        if name.is_empty() || other.is_empty() { id == other_id } else { name == other }
    };
    let same_owner =
        same(&then.user, &now.user, then.uid, now.uid) && same(&then.group, &now.group, then.gid, now.gid);
    if owners == Owners::Compare && !same_owner {
        differences.push(Difference::Owner(format!("{}:{}", now.uid, now.gid)));
    }
    if now.mtime != then.mtime {
        differences.push(Difference::Modified);
    }
    Ok(differences)
}

/// The ranges of a file that are not what the snapshot has.
fn content(
    entry: &Entry,
    (tree, path): (&mut Existing, &[u8]),
    now: &Metadata,
    (key, nodes, buffer): Contents<'_>,
) -> Result<Option<Difference>> {
    let unreadable = |error: Error| Ok(Some(Difference::Unreadable(error.to_string())));
    let mut file = match tree.file(path, now) {
        Ok(file) => file,
        Err(error) => return unreadable(error),
    };
    let (mut offset, mut bad): (u64, Vec<Range<u64>>) = (0, Vec::new());
    let mut failed = None;
    for_each_chunk(&entry.content, nodes, &mut |chunk| {
        if failed.is_some() {
            return Ok(());
        }
        let end = offset + u64::from(chunk.length);
        let Some(bytes) = buffer.get_mut(..chunk.length as usize) else {
            return Err(Error::damaged("the manifest", "a chunk is larger than any chunk"));
        };
        match file.read_exact(bytes) {
            Ok(()) if key.id(bytes) == chunk.id => {}
            Ok(()) => match bad.last_mut() {
                Some(last) if last.end == offset => last.end = end,
                _ => bad.push(offset..end),
            },
            Err(error) => {
                failed = Some(Error::new(ErrorKind::Failed, error.to_string()).with_source(error));
            }
        }
        offset = end;
        Ok(())
    })?;
    if let Some(error) = failed {
        return unreadable(error);
    }
    Ok((!bad.is_empty()).then_some(Difference::Content(bad)))
}
