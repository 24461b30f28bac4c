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
}
