//! Paths as manifests hold them: names with `/` between them, no leading slash, and the empty path for the root.

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

/// Whether it is below the folder, and not the folder itself. Everything is below the root.
#[must_use]
pub fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path != folder && is_in(path, folder)
}

/// Whether it is the folder, or below it.
#[must_use]
pub fn is_in(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| folder.is_empty() || matches!(rest.first(), None | Some(b'/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_whose_name_begins_alike_is_not_below() {
        for (path, folder, below, within) in [
            ("a/b", "a", true, true),
            ("a", "a", false, true),
            ("ab", "a", false, false),
            ("a", "a/b", false, false),
            ("a", "", true, true),
            ("", "", false, true),
            ("", "a", false, false),
        ] {
            let (path, folder) = (path.as_bytes(), folder.as_bytes());
            assert_eq!((is_below(path, folder), is_in(path, folder)), (below, within), "{path:?} {folder:?}");
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
