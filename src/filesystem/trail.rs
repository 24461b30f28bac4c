//! Opens folders by paths of any length: the system takes 4,095 bytes at once, and looks at each of their names.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::{Errno, Result},
};

/// Nothing outside the folder that a path begins in is reached, and no link is followed.
pub(super) const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Of a path so many bytes are given to the system at once: few enough that the last piece is quickly gone through, and
/// more than the longest name has.
const PIECE_BYTES: usize = 512;

/// The way to the folder that was opened last, if it was a long one: the next one usually begins with it.
#[derive(Debug, Default)]
pub(super) struct Trail(Vec<(Vec<u8>, OwnedFd)>);

impl Trail {
    /// Opens the folder at `path` below `root`; `.` is `root` itself. Follows no link.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(&mut self, root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let mut at = 0;
        let mut rest = path;
        while let Some((piece, after)) = first_piece(rest)? {
            if self.0.get(at).is_none_or(|(known, _)| known != piece) {
                self.0.truncate(at);
                let way = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = open(self.last(root), piece, way)?;
                self.0.push((piece.to_vec(), dir));
            }
            (at, rest) = (at + 1, after);
        }
        self.0.truncate(at);
        open(self.last(root), rest, flags)
    }

    fn last<'a>(&'a self, root: BorrowedFd<'a>) -> BorrowedFd<'a> {
        self.0.last().map_or(root, |(_, dir)| dir.as_fd())
    }
}

/// Whether a path is opened in several pieces.
pub(super) const fn is_long(path: &[u8]) -> bool {
    path.len() > PIECE_BYTES
}

/// Opens a folder by a path that is not long.
pub(super) fn open(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let path = CString::new(path).map_err(|_nul: std::ffi::NulError| Errno::INVAL)?;
    openat2(from, &path, flags, Mode::empty(), RESOLVE)
}

/// The first piece of a long path, and what follows it; `None` if it is not long.
fn first_piece(path: &[u8]) -> Result<Option<(&[u8], &[u8])>> {
    if !is_long(path) {
        return Ok(None);
    }
    let most = path.get(..PIECE_BYTES).unwrap_or_default();
    let end = most.iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
    Ok(Some((&path[..end], &path[end + 1..])))
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::File, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn a_trail_leads_to_each_folder_whatever_was_opened_before() {
        let folder = tempfile::tempdir().unwrap();
        let root = File::open(folder.path()).unwrap();
        let names = |name: char, length: usize| vec![name.to_string().repeat(100); length].join("/");
        let paths =
            [names('a', 3), names('a', 15), format!("{}/{}", names('a', 9), names('b', 6)), names('a', 12)];
        let mut trail = Trail::default();
        for path in &paths {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        for path in paths.iter().chain(paths.iter().rev()) {
            let opened = trail.open(root.as_fd(), path.as_bytes(), OFlags::DIRECTORY).unwrap();
            let inode = rustix::fs::fstat(&opened).unwrap().st_ino;
            assert_eq!(inode, fs::metadata(folder.path().join(path)).unwrap().ino());
        }
        let here = trail.open(root.as_fd(), b".", OFlags::DIRECTORY).unwrap();
        assert_eq!(rustix::fs::fstat(&here).unwrap().st_ino, fs::metadata(folder.path()).unwrap().ino());
        let missing = format!("{}/x", names('a', 12));
        assert_eq!(
            trail.open(root.as_fd(), missing.as_bytes(), OFlags::DIRECTORY).unwrap_err(),
            Errno::NOENT
        );
        let endless = [b'x'; PIECE_BYTES + 1];
        assert_eq!(trail.open(root.as_fd(), &endless, OFlags::DIRECTORY).unwrap_err(), Errno::NAMETOOLONG);
        // A link on the way is not followed, in whichever piece it is.
        let above = folder.path().join(names('a', 9));
        fs::rename(above.join("b".repeat(100)), above.join("moved")).unwrap();
        std::os::unix::fs::symlink("moved", above.join("b".repeat(100))).unwrap();
        let through = trail.open(root.as_fd(), paths[2].as_bytes(), OFlags::DIRECTORY);
        assert!(matches!(through, Err(Errno::LOOP | Errno::NOTDIR)), "{through:?}");
    }
}
