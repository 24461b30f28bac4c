//! `--delete`: what is in the folders of a snapshot and not in it goes. Where anything is not known for sure, nothing
//! does: not where a part of the manifest is lost, nor in a folder of which something could not be restored.

use std::collections::HashSet;

use super::work::Job;
use crate::{
    error::Result,
    filesystem::{
        metadata::Note,
        old::Look,
        partial::{is_leftover, is_unfinished},
        select::Selection,
        unmet::{Begins, Ended, Unmet},
    },
    format::{
        entry::{Entry, EntryKind},
        path::{join, split},
        snapshot::Snapshot,
    },
};

/// What may be in a folder beside what the snapshot has of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extra {
    /// It stays.
    #[default]
    Keep,
    /// It is removed.
    Remove,
}

/// Whether a snapshot says all that should be in a folder. Not of one that the backup could not list, or that leads to
/// a source; nor where nothing of it is selected.
pub(in crate::ops) fn is_covered(entry: &Entry, snapshot: &Snapshot, selection: &Selection) -> bool {
    entry.metadata.kind == EntryKind::Directory
        && entry.error.is_none()
        && !snapshot.leads_to_a_source(&entry.path)
        && selection.reaches_into(&entry.path)
}

/// As [`is_covered`], of the root, which has no entry.
pub(in crate::ops) fn is_root_covered(snapshot: &Snapshot, subpath: &[u8]) -> bool {
    subpath.is_empty() && snapshot.is_source(b"") && !snapshot.leads_to_a_source(b"")
}

/// What begins at the folder at `path`, if what is below `subpath` was asked for.
pub(in crate::ops) fn begins(snapshot: &Snapshot, subpath: &[u8], path: &[u8]) -> Begins {
    Begins::at(path == subpath || snapshot.is_source(path))
}

/// What is said of a file that is not finished, and that nothing in the snapshot has the name of.
pub(in crate::ops) const LEFT_UNFINISHED: &str =
    "it was left by a restore that was interrupted, and stays: remove it when its file is whole";

/// Goes over the entries of the snapshot once more.
pub(super) struct Clearing<'a> {
    job: &'a Job<'a>,
    unmet: Unmet,
    /// Folders of which something could not be restored.
    failed_in: HashSet<Vec<u8>>,
    /// So many failures were looked at.
    known: usize,
}

impl<'a> Clearing<'a> {
    /// `None` if everything stays.
    pub(super) fn new(job: &'a Job<'a>) -> Result<Option<Self>> {
        if !job.clears() || job.target.was_empty() {
            return Ok(None);
        }
        // An include that nothing in the snapshot matches is a mistake, and no order to remove what is in the target.
        if !job.options.selection.unmatched().patterns.is_empty() {
            return Ok(None);
        }
        let mut clearing = Self { job, unmet: Unmet::default(), failed_in: HashSet::new(), known: 0 };
        if is_root_covered(job.snapshot, &job.options.subpath) {
            clearing.enter(b"")?;
        }
        Ok(Some(clearing))
    }

    pub(super) fn entry(&mut self, entry: &Entry) -> Result<()> {
        while let Some(ended) = self.unmet.ends_before(&entry.path) {
            self.clear(&ended)?;
        }
        self.unmet.meet(&entry.path);
        let covered = is_covered(entry, self.job.snapshot, &self.job.options.selection);
        if covered { self.enter(&entry.path) } else { Ok(()) }
    }

    fn enter(&mut self, path: &[u8]) -> Result<()> {
        let below = self.job.below(path);
        if self.job.is_hidden(path) {
            return Ok(());
        }
        let begins = begins(self.job.snapshot, &self.job.options.subpath, path);
        match self.job.target.names(below) {
            Ok(Some(names)) => self.unmet.enter(path.to_vec(), names, begins),
            Ok(None) => {}
            Err(error) => self.job.failed(path, error)?,
        }
        Ok(())
    }

    /// A part of the manifest is lost here.
    pub(super) fn gap(&mut self) {
        self.unmet.doubt();
    }

    pub(super) fn finish(&mut self) -> Result<()> {
        while let Some(ended) = self.unmet.end() {
            self.clear(&ended)?;
        }
        Ok(())
    }

    fn clear(&mut self, ended: &Ended) -> Result<()> {
        if ended.names().next().is_none() || self.has_failed(&ended.folder) {
            return Ok(());
        }
        let job = self.job;
        for name in ended.names() {
            let path = join(&ended.folder, name);
            if is_unfinished(name) {
                job.note(&path, vec![Note::Told(LEFT_UNFINISHED.into())]);
                continue;
            }
            // A file is swept with its folder, if no other restore is at it.
            if is_leftover(name) && !self.is_folder(&path)? {
                continue;
            }
            if let Err(error) = job.remove(&path) {
                job.failed(&path, error)?;
            }
        }
        Ok(())
    }

    fn is_folder(&self, path: &[u8]) -> Result<bool> {
        let found = Look::new(self.job.target).at(self.job.below(path))?;
        Ok(found.is_some_and(|found| found.kind == EntryKind::Directory))
    }

    /// Whether something in the folder could not be restored, or nobody knows any more where that happened.
    fn has_failed(&mut self, folder: &[u8]) -> bool {
        let done = self.job.done();
        for (path, _) in done.failed.iter().skip(self.known) {
            self.failed_in.insert(split(path).0.to_vec());
        }
        self.known = done.failed.len();
        done.failures > done.failed.len() as u64 || self.failed_in.contains(folder)
    }
}
