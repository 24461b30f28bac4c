//! Opens files that the walk found, making sure that they are still the same file.

use std::{
    ffi::CStr,
    fs::File,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};

use super::{capture, open_quietly, reason, system_error};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::entry::{EntryKind, Metadata},
};

/// What the system counts the space of a file in.
const BLOCK_BYTES: u64 = 512;

/// How much space a file takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// At least as much as its size.
    Full,
    /// Less than its size.
    Less,
}

/// How the walk saw a regular file: enough to know it again, and to notice a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its device and inode.
    file: ((u32, u32), u64),
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
}

impl Seen {
    /// What `metadata` and the number of its device say.
    #[must_use]
    pub const fn of(metadata: &Metadata, device: (u32, u32)) -> Self {
        let Metadata { inode, size, mtime, ctime, .. } = *metadata;
        Self { file: (device, inode), size, mtime, ctime }
    }
}

/// Opens the regular file `name` of `dir` that the walk has seen.
///
/// It never waits (a pipe put in the file's place does not hold it up), follows no link, and leaves
/// the access time alone where that is allowed.
///
/// # Errors
/// `NotFound` if it vanished; `Failed` if it cannot be opened or another file took its place.
pub fn open_file(dir: BorrowedFd<'_>, name: &CStr, seen: &Seen) -> Result<File> {
    Ok(open_with_size(dir, name, seen)?.0)
}

/// As [`open_file`], with the size that the file has now, and whether it takes less space than that: then it has
/// holes, or its file system compresses it.
///
/// # Errors
/// As [`open_file`].
pub fn open_with_size(dir: BorrowedFd<'_>, name: &CStr, seen: &Seen) -> Result<(File, u64, Space)> {
    let object = || name.to_string_lossy().into_owned();
    let opened = match open_quietly(dir, name, OFlags::NONBLOCK | OFlags::NOCTTY) {
        // Someone holds a lease on the file (Samba, NFS): only an open that waits makes them let go.
        Err(Errno::AGAIN) => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
            openat(dir, name, flags, Mode::empty())
        }
        other => other,
    };
    let file = File::from(opened.map_err(|errno| system_error("open", object(), errno))?);
    let now = capture::status(file.as_fd(), c"").map_err(|errno| system_error("look at", object(), errno))?;
    let file_now = ((now.stx_dev_major, now.stx_dev_minor), now.stx_ino);
    if capture::kind(&now) != Some(EntryKind::File) || file_now != seen.file {
        return Err(Error::new(ErrorKind::Failed, format!("{} was replaced while it was opened", object())));
    }
    let taken = now.stx_blocks.saturating_mul(BLOCK_BYTES);
    let space = if taken < now.stx_size { Space::Less } else { Space::Full };
    Ok((file, now.stx_size, space))
}

/// Whether the file has changed since it was seen: its size, its mtime or its ctime.
///
/// # Errors
/// The system does not tell.
pub fn has_changed(file: &File, seen: &Seen) -> Result<bool> {
    let now = capture::status(file.as_fd(), c"").map_err(|errno| {
        Error::new(ErrorKind::Failed, format!("cannot look at an open file: {}", reason(errno)))
            .with_source(errno)
    })?;
    Ok(now.stx_size != seen.size
        || capture::timestamp(&now.stx_mtime) != seen.mtime
        || capture::timestamp(&now.stx_ctime) != seen.ctime)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        path::Path,
    };

    use super::*;
    use crate::filesystem::capture::Surroundings;

    fn seen(folder: &Path, name: &CStr) -> (File, Seen) {
        let dir = File::open(folder).unwrap();
        let captured = capture::capture(dir.as_fd(), name, &mut Surroundings::default()).unwrap();
        (dir, Seen::of(&captured.metadata, captured.device))
    }

    #[test]
    fn a_file_is_read_and_a_change_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap().write_all(b"hello").unwrap();
        let (dir, seen) = seen(folder.path(), c"f");
        let mut file = open_file(dir.as_fd(), c"f", &seen).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(!has_changed(&file, &seen).unwrap());
        File::options().append(true).open(&path).unwrap().write_all(b"!").unwrap();
        assert!(has_changed(&file, &seen).unwrap());
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_neither_blocks_nor_passes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap();
        let (dir, seen) = seen(folder.path(), c"f");
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(&dir, c"f", rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(open_file(dir.as_fd(), c"f", &seen).is_err());
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap();
        let (dir, seen) = seen(folder.path(), c"f");
        fs::rename(&path, folder.path().join("g")).unwrap();
        std::os::unix::fs::symlink("g", &path).unwrap();
        assert!(open_file(dir.as_fd(), c"f", &seen).is_err());
        fs::remove_file(&path).unwrap();
        assert_eq!(open_file(dir.as_fd(), c"f", &seen).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
