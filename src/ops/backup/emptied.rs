//! Sources that held something when they were backed up last, and hold nothing now: a disk that is not mounted,
//! a share that went away. Nothing is wrong with such a backup, except that nobody may have noticed.

use super::OBSERVED_NAMED_MAX;
use crate::{
    format::{
        entry::{Entry, EntryKind},
        node::compare_paths,
        path::is_in,
    },
    id::BlobId,
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
    /// Without their leading slash, in path order, and whether something is there.
    sources: Vec<(Vec<u8>, bool)>,
    next: usize,
    /// Sources that the last entry is at or below: each is below the one before it.
    around: Vec<usize>,
}

/// Folders, and files of no bytes, are what is left where nothing is.
fn is_something(entry: &Entry) -> bool {
    let empty_file = entry.metadata.kind == EntryKind::File && entry.metadata.size == 0;
    // What cannot be read may be anything, and is told already.
    entry.error.is_some() || entry.metadata.kind != EntryKind::Directory && !empty_file
}

impl Holdings {
    pub(super) fn new(sources: &[Vec<u8>]) -> Self {
        let plain = |source: &Vec<u8>| source.strip_prefix(b"/").unwrap_or(source).to_vec();
        let mut sources: Vec<Vec<u8>> = sources.iter().map(plain).collect();
        sources.sort_unstable_by(|a, b| compare_paths(a, b));
        let sources = sources.into_iter().map(|source| (source, false)).collect();
        Self { sources, next: 0, around: Vec::new() }
    }

    pub(super) fn entry(&mut self, entry: &Entry) {
        let is_around =
            |at: &usize| self.sources.get(*at).is_some_and(|(source, _)| is_in(&entry.path, source));
        while self.around.last().is_some_and(|at| !is_around(at)) {
            self.around.pop();
        }
        while let Some((source, _)) = self.sources.get(self.next)
            && compare_paths(source, &entry.path).is_le()
        {
            if is_in(&entry.path, source) {
                self.around.push(self.next);
            }
            self.next += 1;
        }
        if is_something(entry) {
            for at in &self.around {
                if let Some((_, held)) = self.sources.get_mut(*at) {
                    *held = true;
                }
            }
        }
    }

    /// Those that hold nothing, and held something in the manifest below `root`. What cannot be read of it is
    /// told by whoever reads all of it.
    pub(super) fn emptied(&self, nodes: &dyn NodeSource, root: BlobId) -> Emptied {
        let mut emptied = Emptied::default();
        for (source, _) in self.sources.iter().filter(|(_, held)| !held) {
            if held(nodes, root, source) {
                emptied.count += 1;
                if emptied.named.len() < OBSERVED_NAMED_MAX {
                    emptied.named.push([b"/", &source[..]].concat());
                }
            }
        }
        emptied
    }
}

fn held(nodes: &dyn NodeSource, root: BlobId, source: &[u8]) -> bool {
    let mut cursor = ManifestCursor::from(nodes, root, source);
    while let Ok(Some(entry)) = cursor.next_entry() {
        if !is_in(&entry.path, source) {
            return false;
        }
        if is_something(&entry) && entry.error.is_none() {
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
        let mut holdings = Holdings::new(&sources);
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
        let empty = holdings.sources.iter().filter(|(_, held)| !held);
        let empty: Vec<&[u8]> = empty.map(|(source, _)| &source[..]).collect();
        assert_eq!(empty, [&b"a/b"[..], b"a-b", b"d/e", b"gone"]);
        let mut all = Holdings::new(&[b"/".to_vec()]);
        all.entry(&file("x", 1));
        assert!(all.sources[0].1);
    }
}
