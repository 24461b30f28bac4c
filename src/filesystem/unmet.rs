//! What is in the folders of a tree that a list of entries in path order does not have.

use super::walk::Listing;
use crate::format::path::{Nest, below};

/// The names in a folder.
#[derive(Debug, Default)]
pub struct Names {
    pub(super) listing: Listing,
    /// Another file system begins at the folder.
    pub(super) mount: bool,
    /// A backup leaves out what is in it.
    pub(super) is_left_out: bool,
}

impl Names {
    /// Whether the folder lists this one.
    #[must_use]
    pub fn hold(&self, name: &[u8]) -> bool {
        self.listing.contains(name)
    }
}

/// What begins at a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// A source, or the target: its file system is meant.
    Source,
    /// Nothing: it is a folder like others.
    Nothing,
}

impl Begins {
    /// At a folder that is one of these, or not.
    #[must_use]
    pub const fn at(is_source: bool) -> Self {
        if is_source { Self::Source } else { Self::Nothing }
    }
}

/// A folder of which more entries may come: what is from `next` may still be met.
#[derive(Debug)]
struct Open {
    names: Names,
    extra: Vec<usize>,
    next: usize,
    /// Entries of which it has no name.
    missing: Vec<Vec<u8>>,
    doubted: bool,
    /// A snapshot does not know what should be in it: it is in another file system than the source, or the target, that it
    /// is in, or in a folder of which backups leave out what is in it.
    unknown: bool,
}

/// Compares what is in folders with entries that come in path order. What it holds grows with the largest folder,
/// there or in the snapshot, and the depth of the tree.
#[derive(Debug, Default)]
pub struct Unmet(Nest<Open>);

/// The names in a folder that no entry had.
#[derive(Debug)]
pub struct Ended {
    /// The folder.
    pub folder: Vec<u8>,
    names: Names,
    extra: Vec<usize>,
    next: usize,
    missing: Vec<Vec<u8>>,
}

impl Ended {
    /// `None` if nobody knows what should be in it.
    fn of((folder, open): (Vec<u8>, Open)) -> Option<Self> {
        let Open { names, extra, next, missing, doubted, unknown } = open;
        (!doubted && !unknown).then_some(Self { folder, names, extra, next, missing })
    }

    /// Names of entries that the folder did not have when it was listed.
    #[must_use]
    pub fn missing(&self) -> &[Vec<u8>] {
        &self.missing
    }

    /// Gives each name.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        let rest = (self.next..).map_while(|at| self.names.listing.get(at));
        self.extra.iter().filter_map(|at| self.names.listing.get(*at)).chain(rest)
    }
}

impl Unmet {
    /// The next folder ends that the entry at `path` is not in, the innermost first.
    pub fn ends_before(&mut self, path: &[u8]) -> Option<Ended> {
        std::iter::from_fn(|| self.0.leave_for(path)).find_map(Ended::of)
    }

    /// The innermost folder ends: no more entries come.
    pub fn end(&mut self) -> Option<Ended> {
        std::iter::from_fn(|| self.0.leave()).find_map(Ended::of)
    }

    /// The entry at `path` is met.
    pub fn meet(&mut self, path: &[u8]) {
        // The entry of a folder between them may be lost: that folder is met by what is in it.
        let name = below(path, self.0.path()).and_then(|rest| rest.split(|byte| *byte == b'/').next());
        let (Some(name), Some(open)) = (name, self.0.last_mut()) else { return };
        while let Some(there) = open.names.listing.get(open.next).filter(|there| *there <= name) {
            if there != name {
                open.extra.push(open.next);
            }
            open.next += 1;
        }
        let known = open.missing.last().is_some_and(|last| last == name);
        if !known && !open.names.listing.contains(name) {
            open.missing.push(name.to_vec());
        }
    }

    /// The entry of a folder was met, and what is in it comes next. Nothing is known of other file systems that are
    /// mounted below one that a source, or the target itself, begins at.
    pub fn enter(&mut self, path: Vec<u8>, names: Names, begins: Begins) {
        let above = self.0.last_mut().is_some_and(|open| open.unknown);
        // A backup that keeps to one file system has there what is below the mount, if anything.
        let unknown = names.is_left_out || begins == Begins::Nothing && (above || names.mount);
        let (extra, missing) = (Vec::new(), Vec::new());
        self.0.enter(path, Open { names, extra, next: 0, missing, doubted: false, unknown });
    }

    /// Entries are lost here: nobody knows what is in the folders that are open.
    pub fn doubt(&mut self) {
        self.0.iter_mut().for_each(|(_, open)| open.doubted = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str], mount: bool) -> Names {
        let names = names.iter().map(|name| name.as_bytes().to_vec());
        Names { listing: Listing::of(names), mount, is_left_out: false }
    }

    fn told(ended: &Ended) -> (String, Vec<String>) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&ended.folder), ended.names().map(text).collect())
    }

    /// Folders with their entries in the order of a manifest; `!` is a gap.
    fn run(folders: &[(&str, &[&str], bool)], entries: &[&str]) -> Vec<(String, Vec<String>)> {
        let (mut unmet, mut found) = (Unmet::default(), Vec::new());
        for entry in entries {
            if *entry == "!" {
                unmet.doubt();
                continue;
            }
            while let Some(ended) = unmet.ends_before(entry.as_bytes()) {
                found.push(told(&ended));
            }
            unmet.meet(entry.as_bytes());
            if let Some((path, list, mount)) = folders.iter().find(|(path, ..)| path == entry) {
                let begins = Begins::at(path.ends_with("source"));
                unmet.enter(path.as_bytes().to_vec(), names(list, *mount), begins);
            }
        }
        while let Some(ended) = unmet.end() {
            found.push(told(&ended));
        }
        found.retain(|(_, names)| !names.is_empty());
        found
    }

    #[test]
    fn every_name_without_an_entry_is_given_once() {
        let folders: [(&str, &[&str], bool); 3] =
            [("a", &["0", "b", "c", "z"], false), ("a/b", &["x", "y"], false), ("e", &["q"], false)];
        let found = run(&folders, &["a", "a/b", "a/b/x", "a/c", "e"]);
        let expected = [("a/b", vec!["y"]), ("a", vec!["0", "z"]), ("e", vec!["q"])];
        assert_eq!(
            found,
            expected.map(|(path, names)| (path.into(), names.into_iter().map(Into::into).collect()))
        );
        assert_eq!(
            run(&folders, &["a", "a/0", "a/b/x", "a/b/y", "a/c", "a/z"]),
            [],
            "b is met by what is in it"
        );
    }

    #[test]
    fn where_entries_are_lost_or_another_file_system_is_mounted_nothing_is_given() {
        let folders: [(&str, &[&str], bool); 3] =
            [("a", &["b", "c"], false), ("a/b", &["x"], false), ("d", &["x"], false)];
        assert_eq!(run(&folders, &["a", "a/b", "!", "d"]), [("d".into(), vec!["x".into()])]);
        let around: [(&str, &[&str], bool); 2] = [("a", &["b", "c", "d"], false), ("a/b", &["x", "y"], true)];
        assert_eq!(run(&around, &["a", "a/b", "a/c", "e"]), [("a".into(), vec!["d".into()])], "c was met");
        assert_eq!(run(&around, &["a", "a/b"]), [("a".into(), vec!["c".into(), "d".into()])]);
        let mounted: [(&str, &[&str], bool); 1] = [("a", &["b", "c"], true)];
        assert_eq!(run(&mounted, &["a"]), []);
        assert_eq!(run(&mounted, &["a", "a/b"]), []);
        // Nor below it; but for what is a source again.
        let below: [(&str, &[&str], bool); 3] =
            [("m", &["d", "source", "x"], true), ("m/d", &["y"], false), ("m/source", &["b", "z"], true)];
        let entries = ["m", "m/d", "m/source", "m/source/b"];
        assert_eq!(run(&below, &entries), [("m/source".into(), vec!["z".into()])]);
    }
}
