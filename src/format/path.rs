//! Paths as manifests hold them: names with `/` between them, no leading slash, and the empty path for the root.

use std::collections::HashSet;

/// The path of `name` in `folder`.
#[must_use]
pub fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// The folder of a path, and the name in it.
#[must_use]
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// The rest of a path below a folder. Everything but the root itself is below the root.
#[must_use]
pub fn below<'p>(path: &'p [u8], folder: &[u8]) -> Option<&'p [u8]> {
    if folder.is_empty() {
        return Some(path).filter(|path| !path.is_empty());
    }
    path.strip_prefix(folder)?.strip_prefix(b"/")
}

/// Whether it is the folder itself, or below it.
#[must_use]
pub fn is_at_or_below(path: &[u8], folder: &[u8]) -> bool {
    path == folder || is_below(path, folder)
}

/// Whether it is one of these folders, or below one.
#[must_use]
pub fn is_within<S: std::hash::BuildHasher>(path: &[u8], folders: &HashSet<Vec<u8>, S>) -> bool {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    !folders.is_empty() && ends.chain([path.len()]).any(|end| folders.contains(&path[..end]))
}

/// Whether it is below the folder, and not the folder itself.
#[must_use]
pub fn is_below(path: &[u8], folder: &[u8]) -> bool {
    below(path, folder).is_some()
}

/// The folders that a walk in path order is in, each in the one before it, and what is noted of each. Their paths are the
/// beginnings of that of the innermost one, which alone is held.
#[derive(Debug)]
pub struct Nest<T> {
    path: Vec<u8>,
    /// Bytes of the path of each.
    folders: Vec<(usize, T)>,
}

impl<T> Default for Nest<T> {
    fn default() -> Self {
        Self { path: Vec::new(), folders: Vec::new() }
    }
}

impl<T> Nest<T> {
    /// The path of the innermost folder; the empty one if there is none.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// What is noted of the innermost folder.
    pub fn last_mut(&mut self) -> Option<&mut T> {
        self.folders.last_mut().map(|(_, noted)| noted)
    }

    /// Goes into a folder in the innermost one.
    pub fn enter(&mut self, path: Vec<u8>, noted: T) {
        self.folders.push((path.len(), noted));
        self.path = path;
    }

    /// Goes out of the innermost folder.
    pub fn leave(&mut self) -> Option<(Vec<u8>, T)> {
        let (_, noted) = self.folders.pop()?;
        let path = self.path.clone();
        self.path.truncate(self.folders.last().map_or(0, |(length, _)| *length));
        Some((path, noted))
    }

    /// Goes out of the innermost folder if `path` is not in it.
    pub fn leave_for(&mut self, path: &[u8]) -> Option<(Vec<u8>, T)> {
        if is_below(path, &self.path) { None } else { self.leave() }
    }

    /// Each folder, the outermost first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&[u8], &mut T)> {
        let Self { path, folders } = self;
        folders.iter_mut().map(|(length, noted)| (path.get(..*length).unwrap_or_default(), noted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_whose_name_begins_alike_is_not_below() {
        for (path, folder, rest) in [
            ("a/b", "a", Some("b")),
            ("a", "a", None),
            ("ab", "a", None),
            ("a", "a/b", None),
            ("a", "", Some("a")),
            ("", "", None),
            ("", "a", None),
        ] {
            assert_eq!(
                below(path.as_bytes(), folder.as_bytes()),
                rest.map(str::as_bytes),
                "{path:?} {folder:?}"
            );
        }
    }

    #[test]
    fn what_is_split_is_joined_again() {
        for (path, folder, name) in [("a/b/c", "a/b", "c"), ("a", "", "a"), ("", "", "")] {
            assert_eq!(split(path.as_bytes()), (folder.as_bytes(), name.as_bytes()));
            assert_eq!(join(folder.as_bytes(), name.as_bytes()), path.as_bytes());
        }
    }

    #[test]
    fn folders_are_left_from_the_inside_and_each_has_its_own_path() {
        let mut nest = Nest::default();
        assert_eq!(nest.leave_for(b"a"), None, "it is in none");
        for (path, noted) in [("", 0), ("a", 1), ("a/b", 2), ("a/b/c", 3)] {
            assert_eq!(nest.leave_for(path.as_bytes()), None);
            nest.enter(path.into(), noted);
        }
        nest.iter_mut().for_each(|(path, noted)| assert_eq!(path.len(), [0, 1, 3, 5][*noted]));
        assert_eq!(nest.leave_for(b"a/b/c/d"), None);
        assert_eq!(nest.leave_for(b"a/bc"), Some((b"a/b/c".to_vec(), 3)));
        assert_eq!(nest.leave_for(b"a/bc"), Some((b"a/b".to_vec(), 2)));
        assert_eq!((nest.leave_for(b"a/bc"), nest.path()), (None, &b"a"[..]));
        assert_eq!(
            (nest.leave(), nest.leave(), nest.leave()),
            (Some((b"a".to_vec(), 1)), Some((vec![], 0)), None)
        );
    }
}
