//! What is in the folders of a tree and not in a snapshot. `restore --delete` and `verify` come to it by one way and judge
//! it by one rule, so that one removes what the other tells.

use crate::{
    error::Result,
    filesystem::{
        filter::Filter,
        old::Look,
        partial::{is_leftover, is_unfinished},
        restore::Target,
        select::Selection,
        unmet::{Begins, Ended, Names, Unmet},
    },
    format::{
        entry::{Entry, EntryKind},
        path::join,
        snapshot::Snapshot,
    },
};

/// What is said of a file that is not finished, and that nothing in the snapshot has the name of.
pub(super) const LEFT_UNFINISHED: &str =
    "it was left by a restore that was interrupted, and stays: remove it when its file is whole";
/// What is said of a file of moments that a restore has left.
pub(super) const LEFT_OVER: &str =
    "it was left by a restore that was killed: the next restore into this folder removes it";

/// What is in a folder, and no entry of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// It would go.
    Extra,
    /// A large file that is not finished: it may be all that there is of it.
    Unfinished,
    /// A file of moments: it is swept with its folder, if no other restore is at it.
    Leftover,
}

/// Lists a folder, by its path in the snapshot; `None` if it is not there, or nobody looks into it.
pub(super) type List<'l> = &'l mut dyn FnMut(&[u8], &Filter) -> Result<Option<Names>>;

/// Goes over the entries of a snapshot, and finds what no entry is.
pub(super) struct Besides<'a> {
    snapshot: &'a Snapshot,
    subpath: &'a [u8],
    selection: &'a Selection,
    left_out: &'a Filter,
    unmet: Unmet,
}

impl<'a> Besides<'a> {
    pub(super) fn new(
        snapshot: &'a Snapshot,
        subpath: &'a [u8],
        (selection, left_out): (&'a Selection, &'a Filter),
    ) -> Self {
        Self { snapshot, subpath, selection, left_out, unmet: Unmet::default() }
    }

    /// Begins with the root, which has no entry.
    ///
    /// # Errors
    /// It cannot be listed.
    pub(super) fn begin(&mut self, list: List<'_>) -> Result<()> {
        let is_covered =
            self.subpath.is_empty() && self.snapshot.is_source(b"") && !self.snapshot.leads_to_a_source(b"");
        if is_covered { self.enter(b"", list) } else { Ok(()) }
    }

    /// The next folder ends that the entry at `path` is not in, the innermost first.
    pub(super) fn ends_before(&mut self, path: &[u8]) -> Option<Ended> {
        self.unmet.ends_before(path)
    }

    /// Comes to the next entry.
    ///
    /// # Errors
    /// It is a folder that has to be listed, and cannot.
    pub(super) fn entry(&mut self, entry: &Entry, list: List<'_>) -> Result<()> {
        self.unmet.meet(&entry.path);
        if self.is_covered(entry) { self.enter(&entry.path, list) } else { Ok(()) }
    }

    /// Whether a snapshot says all that should be in a folder. Not of one that the backup could not list, that leads to a
    /// source, or that was the place of a mount which it did not enter: what stood there may be here by now. Nor where nothing
    /// of it is selected.
    fn is_covered(&self, entry: &Entry) -> bool {
        entry.metadata.kind == EntryKind::Directory
            && entry.error.is_none()
            && !entry.metadata.only_holds_a_place()
            && !self.snapshot.leads_to_a_source(&entry.path)
            && self.selection.reaches_into(&entry.path)
    }

    fn enter(&mut self, path: &[u8], list: List<'_>) -> Result<()> {
        let is_source = self.snapshot.is_source(path);
        // A source is backed up whatever is in it.
        let nothing = Filter::default();
        let left_out = if is_source { &nothing } else { self.left_out };
        if let Some(names) = list(path, left_out)? {
            self.unmet.enter(path.to_vec(), names, Begins::at(path == self.subpath || is_source));
        }
        Ok(())
    }

    /// Entries are lost here: nobody knows what is in the folders that are open.
    pub(super) fn doubt(&mut self) {
        self.unmet.doubt();
    }

    /// No more entries come: the next folder that ends.
    pub(super) fn end(&mut self) -> Option<Ended> {
        self.unmet.end()
    }
}

/// Gives the path of each name that no entry of a folder had, and what it is. `strip` bytes of each path are above the
/// target.
///
/// # Errors
/// What is there cannot be looked at; what `each` says.
pub(super) fn judge(
    ended: &Ended,
    (target, strip): (&Target, usize),
    each: &mut dyn FnMut(&[u8], Beside) -> Result<()>,
) -> Result<()> {
    if ended.names().next().is_none() {
        return Ok(());
    }
    let below = |path: &'_ [u8]| path.get(strip..).unwrap_or_default().to_vec();
    let spelled = target.spelled_otherwise(&below(&ended.folder), ended.missing())?;
    let mut look = Look::new(target);
    for name in ended.names() {
        let path = join(&ended.folder, name);
        let is_leftover = is_leftover(name);
        let found = if is_leftover || !spelled.is_empty() { look.at(&below(&path))? } else { None };
        if found.as_ref().is_some_and(|found| spelled.has(found)) {
            continue;
        }
        let is_folder = found.is_some_and(|found| found.kind == EntryKind::Directory);
        let what = match name {
            _ if is_unfinished(name) => Beside::Unfinished,
            _ if is_leftover && !is_folder => Beside::Leftover,
            _ => Beside::Extra,
        };
        each(&path, what)?;
    }
    Ok(())
}
