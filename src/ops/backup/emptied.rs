//! Sources that held something when they were backed up last, and hold nothing now: a disk that is not mounted,
//! a share that went away. Nothing is wrong with such a backup, except that nobody may have noticed.
//!
//! The backup before tells what they held, and so does the cache, where the last one had other sources, or one was not
//! there at all for a night. A source that was seen to be empty is told once.

use std::collections::HashSet;

use super::OBSERVED_NAMED_MAX;
use crate::{
    format::entry::{Entry, EntryKind},
    format::node::compare_paths,
    id::BlobId,
    limits,
    repository::manifest::{ManifestCursor, NodeSource},
};

/// Sources that hold nothing any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emptied {
    /// How many.
    pub count: u64,
    /// The first of them: absolute paths.
    pub named: Vec<Vec<u8>>,
}

/// Sees entries in path order, and knows which sources hold something.
#[derive(Debug)]
pub(super) struct Holdings {
    sources: Vec<Source>,
    /// Those that held something when they were there last, by [`hash`].
    before: HashSet<String>,
    next: usize,
    /// Sources that the last entry is at or below: each is below the one before it.
    around: Vec<usize>,
}

#[derive(Debug)]
struct Source {
    /// Without its leading slash; they are in path order.
    path: Vec<u8>,
    /// Whether it is there.
    there: bool,
    /// Whether something is in it.
    holds: bool,
}

/// How a source is remembered.
fn hash(path: &[u8]) -> String {
    blake3::hash(path).to_hex().chars().take(32).collect()
}

/// Whether a source holds something by an entry in it. Folders, and files of no bytes, are what is left where nothing is; so is
/// a link, or a pipe, in the place of the source itself: what it leads to is not backed up.
fn is_something(entry: &Entry, source: &[u8]) -> bool {
    let fills = match entry.metadata.kind {
        EntryKind::Directory => false,
        EntryKind::File => entry.metadata.size > 0,
        _ => entry.path != source,
    };
    // What cannot be read may be anything, and is told already.
    entry.error.is_some() || fills
}

fn is_in(path: &[u8], source: &[u8]) -> bool {
    let rest = path.strip_prefix(source);
    rest.is_some_and(|rest| source.is_empty() || rest.is_empty() || rest.first() == Some(&b'/'))
}

impl Holdings {
    /// Of these absolute paths; `before` is what [`Self::held`] gave when they were looked at last.
    pub(super) fn new(sources: &[Vec<u8>], before: HashSet<String>) -> Self {
        let plain = |source: &Vec<u8>| source.strip_prefix(b"/").unwrap_or(source).to_vec();
        let mut sources: Vec<Vec<u8>> = sources.iter().map(plain).collect();
        sources.sort_unstable_by(|a, b| compare_paths(a, b));
        let source = |path| Source { path, there: false, holds: false };
        Self { sources: sources.into_iter().map(source).collect(), before, next: 0, around: Vec::new() }
    }

    pub(super) fn entry(&mut self, entry: &Entry) {
        let is_around =
            |at: &usize| self.sources.get(*at).is_some_and(|source| is_in(&entry.path, &source.path));
        while self.around.last().is_some_and(|at| !is_around(at)) {
            self.around.pop();
        }
        while let Some(source) = self.sources.get_mut(self.next)
            && compare_paths(&source.path, &entry.path).is_le()
        {
            if is_in(&entry.path, &source.path) {
                source.there = entry.error.is_none();
                self.around.push(self.next);
            }
            self.next += 1;
        }
        for at in &self.around {
            if let Some(source) = self.sources.get_mut(*at) {
                source.holds |= is_something(entry, &source.path);
            }
        }
    }

    /// Those that hold nothing, and held something in the manifest below the root of the last backup, or when they were
    /// there last. What cannot be read of that manifest is told by whoever reads all of it.
    pub(super) fn emptied(&self, last: Option<(&dyn NodeSource, BlobId)>) -> Emptied {
        let mut emptied = Emptied::default();
        for Source { path, there, .. } in self.sources.iter().filter(|source| !source.holds) {
            let did = *there && self.before.contains(&hash(path));
            if did || last.is_some_and(|(nodes, root)| held(nodes, root, path)) {
                emptied.count += 1;
                if emptied.named.len() < OBSERVED_NAMED_MAX {
                    emptied.named.push([b"/", &path[..]].concat());
                }
            }
        }
        emptied
    }

    /// Those that hold something now, and those that are not here and held something before: unless these are too many.
    pub(super) fn held(self) -> HashSet<String> {
        let Self { sources, before: mut held, .. } = self;
        if held.len() + sources.len() > limits::SOURCES_MAX {
            held.clear();
        }
        for Source { path, there, holds } in sources {
            match (holds, there) {
                (true, _) => _ = held.insert(hash(&path)),
                (false, true) => _ = held.remove(&hash(&path)),
                (false, false) => {}
            }
        }
        held
    }
}

fn held(nodes: &dyn NodeSource, root: BlobId, source: &[u8]) -> bool {
    let mut cursor = ManifestCursor::from(nodes, root, source);
    while let Ok(Some(entry)) = cursor.next_entry() {
        if !is_in(&entry.path, source) {
            return false;
        }
        if is_something(&entry, source) && entry.error.is_none() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::{Content, Metadata};

    fn entry(path: &str, kind: EntryKind, size: u64) -> Entry {
        let metadata = Metadata { size, ..Metadata::of(kind) };
        let content = Content::Inline(Vec::new());
        Entry { path: path.into(), metadata, content, changed_while_read: false, error: None }
    }

    #[test]
    fn a_source_holds_something_when_there_is_more_in_it_than_folders_and_empty_files() {
        let sources =
            ["/a", "/a/b", "/a-b", "/c", "/d/e", "/gone", "/z"].map(|source| source.as_bytes().to_vec());
        let mut holdings = Holdings::new(&sources, HashSet::new());
        let file = |path: &str, size| entry(path, EntryKind::File, size);
        let folder = |path: &str| entry(path, EntryKind::Directory, 0);
        let broken = Entry { error: Some("no".to_owned()), ..folder("z") };
        for entry in [
            folder("a"),
            folder("a/b"),
            file("a/b/lock", 0),
            file("a/x", 1),
            folder("a-b"),
            folder("a-b/c"),
            folder("c"),
            entry("c/link", EntryKind::Symlink, 0),
            folder("d"),
            folder("d/e"),
            file("d/ef", 9),
            broken,
        ] {
            holdings.entry(&entry);
        }
        let empty = holdings.sources.iter().filter(|source| !source.holds);
        let empty: Vec<&[u8]> = empty.map(|source| &source.path[..]).collect();
        assert_eq!(empty, [&b"a/b"[..], b"a-b", b"d/e", b"gone"]);
        let mut link = Holdings::new(&[b"/l".to_vec()], HashSet::new());
        link.entry(&entry("l", EntryKind::Symlink, 0));
        assert!(link.sources[0].there && !link.sources[0].holds, "what it leads to is not backed up");
        let mut all = Holdings::new(&[b"/".to_vec()], HashSet::new());
        all.entry(&file("x", 1));
        assert!(all.sources[0].holds);
    }

    #[test]
    fn a_source_that_held_something_is_missed_once_it_is_there_again_and_only_once() {
        let [a, gone, c] = ["/a", "/gone", "/c"].map(|source| source.as_bytes().to_vec());
        let look = |sources: &[&Vec<u8>], entries: &[Entry], before: &HashSet<String>| {
            let sources: Vec<Vec<u8>> = sources.iter().map(|source| (*source).clone()).collect();
            let mut holdings = Holdings::new(&sources, before.clone());
            entries.iter().for_each(|entry| holdings.entry(entry));
            (holdings.emptied(None).named, holdings.held())
        };
        let [folder_a, folder_gone] = ["a", "gone"].map(|path| entry(path, EntryKind::Directory, 0));
        let full = [
            folder_a.clone(),
            entry("a/x", EntryKind::File, 1),
            folder_gone.clone(),
            entry("gone/x", EntryKind::File, 1),
        ];
        let (named, held) = look(&[&a, &gone], &full, &HashSet::new());
        assert_eq!((named.len(), held.len()), (0, 2));
        // Other sources, and one that is not there.
        let (named, held) = look(&[&gone, &c], &[], &held);
        assert_eq!((named.len(), held.len()), (0, 2));
        let (named, held) = look(&[&gone], std::slice::from_ref(&folder_gone), &held);
        assert_eq!((named, held.len()), (vec![gone.clone()], 1));
        assert_eq!(look(&[&gone], &[folder_gone], &held).0.len(), 0);
        assert_eq!(look(&[&a], &[folder_a], &held).0, [a]);
    }
}
