//! `verify`: whether everything that a snapshot holds is on this machine as it was, chunk by chunk, without
//! reading any stored data, and nothing else beside it. Folders are compared too if they or something in them is
//! meant.

use std::path::{Path, PathBuf};

use self::{comparison::Comparison, extra::Extras};
pub(super) use self::{content::Nobody, difference::metadata_differences, same::Same};
pub use self::{content::Witness, difference::Difference};
use super::links::{Links, Met};
use crate::{
    error::Result,
    filesystem::{
        filter::Filter,
        live::{Closed, LiveTree},
        metadata::Note,
        restore::Target,
        select::Selection,
    },
    format::{
        entry::{Entry, EntryKind},
        path::Nest,
    },
    limits,
    progress::Phase,
    repository::{
        Repository,
        manifest::{Gap, for_each_entry},
        reader::NodeReader,
        snapshots::KnownSnapshot,
    },
};

mod comparison;
mod content;
mod difference;
mod extra;
mod same;

/// Differences are named one by one up to so many, and counted beyond.
const NAMED_MAX: usize = 10_000;
/// The same by the bytes of their paths and of what they say: a path may have 64 KiB, and so may the names of attributes.
pub(super) const NAMED_BYTES_MAX: usize = 16 << 20;

/// What to compare.
#[derive(Debug)]
pub struct VerifyOptions {
    /// Only what is at and below this path (no leading slash); empty for everything.
    pub subpath: Vec<u8>,
    /// What of it.
    pub selection: Selection,
    /// Whether owners must be the same too.
    pub owners: Owners,
    /// Whether what is there besides is a difference.
    pub besides: Besides,
    /// What the backup left out by other rules than patterns, and so is no difference.
    pub left_out: Filter,
    /// Folders that no backup holds: the repository's, the cache.
    pub never: Vec<PathBuf>,
    /// What is done where the user's own folders are closed to them.
    pub closed: Closed,
}

impl Default for VerifyOptions {
    /// Everything, with owners, and with what is there besides.
    fn default() -> Self {
        Self {
            subpath: Vec::new(),
            selection: Selection::default(),
            owners: Owners::Compare,
            besides: Besides::Tell,
            left_out: Filter::default(),
            never: Vec::new(),
            closed: Closed::Leave,
        }
    }
}

/// Whether what is in the folders of a snapshot, and not in the snapshot, is a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Besides {
    /// It is.
    Tell,
    /// It does not matter.
    Ignore,
}

/// Whether owners must be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// The same name; the same number where there is none.
    Compare,
    /// The same number, whatever its name.
    Numbers,
    /// They are left out, with what a restore leaves out where a file belongs to somebody else: setuid, setgid and
    /// capabilities.
    Ignore,
    /// As [`Self::Ignore`], and what only root can set is left out too: labels, capabilities and some flags.
    NotRoot,
}

impl Owners {
    /// Whether it does not matter who owns what.
    #[must_use]
    pub const fn are_ignored(self) -> bool {
        matches!(self, Self::Ignore | Self::NotRoot)
    }
}

/// What was compared, and how it differs.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Files that are exactly as the snapshot has them.
    pub files: u64,
    /// Bytes that were read and compared, whether they are the same or not.
    pub bytes: u64,
    /// Entries that differ.
    pub differing: u64,
    /// Of these what is missing.
    pub missing: u64,
    /// Of these what the snapshot does not have.
    pub extra: u64,
    /// The first of them, with each difference.
    pub differences: Vec<(Vec<u8>, Difference)>,
    /// Differences that are not among these, since there are too many.
    pub unnamed: u64,
    /// Parts of the manifest that are lost, with the entries in them.
    pub lost: u64,
    /// Entries that the backup could not read, so that there is nothing to compare.
    pub not_backed_up: u64,
    /// Entries of which the backup has not all attributes, so that these are not compared.
    pub attributes_not_backed_up: u64,
    /// What is to be said of single entries: of the first of both sorts what is not in the backup, and what is only good to
    /// know.
    pub notes: Vec<(Vec<u8>, Note)>,
    /// Bytes of what is named.
    named_bytes: usize,
}

impl Verified {
    /// Whether something more may be named that has so many bytes.
    fn has_room(&mut self, names: usize, bytes: usize) -> bool {
        let sum = self.named_bytes.saturating_add(bytes);
        let fits = names < NAMED_MAX && sum <= NAMED_BYTES_MAX;
        if fits {
            self.named_bytes = sum;
        }
        fits
    }

    /// Names a difference, or counts it.
    fn name(&mut self, path: &[u8], difference: Difference) {
        if self.has_room(self.differences.len(), path.len().saturating_add(difference.bytes())) {
            self.differences.push((path.to_vec(), difference));
        } else {
            self.unnamed += 1;
        }
    }

    /// What the backup has not of an entry cannot be compared.
    fn not_compared(&mut self, Entry { path, metadata, error, .. }: &Entry) {
        let what = match (error, &metadata.lacks) {
            (Some(why), _) => {
                self.not_backed_up += 1;
                format!("it is not compared, since the backup could not read it: {why}")
            }
            (None, Some(lacks)) => {
                self.attributes_not_backed_up += 1;
                format!("its attributes are not compared, since the backup has not all of them: {lacks}")
            }
            (None, None) => return,
        };
        self.note(path, Note::Unset(what));
    }

    /// Says something of an entry.
    fn note(&mut self, path: &[u8], note: Note) {
        let bytes = note.to_string().len();
        if self.has_room(self.notes.len(), path.len().saturating_add(bytes)) {
            self.notes.push((path.to_vec(), note));
        }
    }
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
    run_before(repository, snapshot, target, options, &mut Nobody)
}

/// As [`run`], and gives a witness what is read.
///
/// # Errors
/// As [`run`]; what the witness says.
pub fn run_before(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    target: Option<&Path>,
    options: &VerifyOptions,
    witness: &mut dyn Witness,
) -> Result<Verified> {
    let domain = snapshot.name.domain;
    let progress = repository.store.progress();
    progress.enter(Phase::Checking);
    let key = repository.chunk_keys(&domain)?.id;
    let view = repository.view_to_read(&domain)?;
    let nodes = NodeReader::new(repository, domain, &view.index)?;
    let below = super::restore::root_of(&nodes, snapshot, &options.subpath)?.strip;
    let (target, strip) = target.map_or((Path::new("/"), 0), |target| (target, below));
    progress.expect(snapshot.record.statistics.files, snapshot.record.statistics.bytes);
    let comparison = Comparison {
        snapshot,
        progress,
        owners: options.owners,
        strip,
        tree: LiveTree::open(target, options.closed)?,
        key,
        nodes: &nodes,
        buffer: vec![0; limits::CHUNK_BYTES_MAX],
        witness,
        links: Links::default(),
        met: Met::default(),
        verified: Verified::default(),
    };
    // Of a sample most of a folder is not meant.
    let tells = options.besides == Besides::Tell && !options.selection.is_sample();
    let extras =
        if tells { Some(Extras::new(options, &snapshot.record, Target::open(target)?)) } else { None };
    let mut walk = Walk { options, comparison, extras, folders: Nest::default() };
    walk.begin();
    for_each_entry(&nodes, snapshot.record.root, &options.subpath, &mut |entry| {
        progress.check()?;
        match entry {
            Ok(entry) => walk.entry(entry),
            Err(gap) => {
                walk.gap(gap);
                Ok(())
            }
        }
    })?;
    Ok(walk.end())
}

/// Goes over the entries of the snapshot.
struct Walk<'a> {
    options: &'a VerifyOptions,
    comparison: Comparison<'a>,
    extras: Option<Extras<'a>>,
    folders: Nest<OpenFolder>,
}

impl Walk<'_> {
    fn begin(&mut self) {
        let Self { extras: Some(extras), comparison, .. } = self else { return };
        let unlisted = extras.begin(comparison);
        unlisted.into_iter().for_each(|difference| comparison.differs(b"", difference));
    }

    /// What is lost in the repository cannot be compared; the rest is.
    fn gap(&mut self, Gap { first, error }: Gap) {
        self.comparison.progress.trouble();
        if let Some(extras) = &mut self.extras {
            extras.doubt();
        }
        let verified = &mut self.comparison.verified;
        verified.lost += 1;
        let why = format!("this entry and some that follow it are lost in the repository: {error}");
        verified.name(&first, Difference::Unreadable(why));
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        self.comparison.progress.at(&entry.path);
        let unlisted = match &mut self.extras {
            Some(extras) => extras.entry(&mut self.comparison, &entry),
            None => None,
        };
        while let Some(left) = self.folders.leave_for(&entry.path) {
            self.leave(left);
        }
        let Self { options, comparison, folders, .. } = self;
        let selected = options.selection.selects_entry(&entry);
        if selected {
            comparison.verified.not_compared(&entry);
        }
        let meant = selected && entry.error.is_none();
        if meant {
            for (path, folder) in folders.iter_mut() {
                if let Some(mut entry) = folder.entry.take() {
                    entry.path = path.to_vec();
                    comparison.entry(&entry, folder.unlisted.take())?;
                }
            }
        }
        let unlisted = if meant { comparison.entry(&entry, unlisted).map(|()| None)? } else { unlisted };
        if entry.metadata.kind == EntryKind::Directory {
            let waits = !meant && entry.error.is_none();
            let (path, entry) = (entry.path.clone(), Entry { path: Vec::new(), ..entry });
            folders.enter(path, OpenFolder { entry: waits.then_some(entry), unlisted });
        }
        Ok(())
    }

    /// Has left a folder.
    fn leave(&mut self, (path, folder): (Vec<u8>, OpenFolder)) {
        let unlisted = folder.unlisted;
        unlisted.into_iter().for_each(|difference| self.comparison.differs(&path, difference));
    }

    fn end(mut self) -> Verified {
        while let Some(left) = self.folders.leave() {
            self.leave(left);
        }
        if let Some(mut extras) = self.extras {
            extras.end(&mut self.comparison);
        }
        self.comparison.verified
    }
}

/// A folder that the comparison is in.
struct OpenFolder {
    /// Without its path, as long as it may be compared for the sake of what is in it.
    entry: Option<Entry>,
    /// Why it could not be listed, as long as it was not compared: so that it counts once.
    unlisted: Option<Difference>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_has_a_limit_by_its_number_and_by_its_bytes() {
        let mut verified = Verified::default();
        let path = vec![b'p'; 64 << 10];
        (0..1000).for_each(|_| verified.name(&path, Difference::Attributes(vec![vec![b'a'; 64 << 10]])));
        let named = verified.differences.len();
        assert!((100..=128).contains(&named), "{named}");
        assert_eq!(verified.unnamed, 1000 - named as u64);
        let mut verified = Verified::default();
        (0..NAMED_MAX + 5).for_each(|_| verified.name(b"p", Difference::Missing));
        assert_eq!((verified.differences.len(), verified.unnamed), (NAMED_MAX, 5));
    }
}
