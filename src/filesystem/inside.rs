//! Whether a path lies in a folder, whatever links and mounts lead to the one or to the other.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::mounts::{At, Mounts};

/// A folder, by everything that it is known by.
#[derive(Debug)]
pub struct Enclosure {
    /// Without links.
    path: PathBuf,
    /// Its device and inode: a bind mount of it has the same.
    identity: (u64, u64),
    /// Where it lies in its file system, and what is mounted in it in others: a bind mount of something in it shows
    /// nothing else of it.
    parts: Vec<At>,
    mounts: Mounts,
}

impl Enclosure {
    /// `None` if it is not there: then nothing is in it.
    #[must_use]
    pub fn new(folder: &Path) -> Option<Self> {
        let path = folder.canonicalize().ok()?;
        let identity = identity(&path)?;
        let mounts = Mounts::of_this_process();
        let parts = mounts.parts(&path);
        Some(Self { path, identity, parts, mounts })
    }

    /// Whether a path, of which the end need not be there yet, is the folder or lies in it. Where `/proc` is not
    /// mounted a bind mount of a part of the folder is not known.
    #[must_use]
    pub fn holds(&self, path: &Path) -> bool {
        let there = std::path::absolute(path).ok();
        let there = there.iter().flat_map(|path| path.ancestors()).find_map(|path| path.canonicalize().ok());
        there.is_some_and(|path| {
            path.starts_with(&self.path)
                || path.ancestors().any(|above| identity(above) == Some(self.identity))
                || self.mounts.at(&path).is_some_and(|at| self.parts.iter().any(|part| at.is_in(part)))
        })
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|status| (status.dev(), status.ino()))
}
