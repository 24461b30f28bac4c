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
    error::{Error, ErrorKind, Result},
    format::entry::{EntryKind, Metadata},
};

/// Opens the regular file `name` of `dir` that the walk saw as `metadata`.
///
/// It never waits (a pipe put in the file's place does not hold it up), follows no link, and leaves
/// the access time alone where that is allowed.
///
/// # Errors
/// `NotFound` if it vanished; `Failed` if it cannot be opened or another file took its place.
pub fn open_file(dir: BorrowedFd<'_>, name: &CStr, metadata: &Metadata) -> Result<File> {
    let object = || name.to_string_lossy().into_owned();
    if metadata.kind != EntryKind::File {
        return Err(Error::new(ErrorKind::Failed, format!("{} is not a regular file", object())));
    }
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
    let device_key = capture::device_key(now.stx_dev_major, now.stx_dev_minor);
    let same = capture::kind(&now) == Some(EntryKind::File)
        && now.stx_ino == metadata.inode
        && device_key == metadata.device_key;
    if !same {
        return Err(Error::new(ErrorKind::Failed, format!("{} was replaced while it was opened", object())));
    }
    Ok(file)
}

/// Whether the file has changed since `metadata` was taken: its size, its mtime or its ctime.
///
/// # Errors
/// The system does not tell.
pub fn has_changed(file: &File, metadata: &Metadata) -> Result<bool> {
    let now = capture::status(file.as_fd(), c"").map_err(|errno| {
        Error::new(ErrorKind::Failed, format!("cannot look at an open file: {}", reason(errno)))
            .with_source(errno)
    })?;
    Ok(now.stx_size != metadata.size
        || capture::timestamp(&now.stx_mtime) != metadata.mtime
        || capture::timestamp(&now.stx_ctime) != metadata.ctime)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        path::Path,
    };

    use super::*;
    use crate::filesystem::names::Names;

    fn seen(folder: &Path, name: &CStr) -> (File, Metadata) {
        let dir = File::open(folder).unwrap();
        let metadata = capture::capture(dir.as_fd(), name, &mut Names::default()).unwrap().metadata;
        (dir, metadata)
    }

    #[test]
    fn a_file_is_read_and_a_change_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap().write_all(b"hello").unwrap();
        let (dir, metadata) = seen(folder.path(), c"f");
        let mut file = open_file(dir.as_fd(), c"f", &metadata).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(!has_changed(&file, &metadata).unwrap());
        File::options().append(true).open(&path).unwrap().write_all(b"!").unwrap();
        assert!(has_changed(&file, &metadata).unwrap());
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_neither_blocks_nor_passes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap();
        let (dir, metadata) = seen(folder.path(), c"f");
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(&dir, c"f", rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(open_file(dir.as_fd(), c"f", &metadata).is_err());
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap();
        let (dir, metadata) = seen(folder.path(), c"f");
        fs::rename(&path, folder.path().join("g")).unwrap();
        std::os::unix::fs::symlink("g", &path).unwrap();
        assert!(open_file(dir.as_fd(), c"f", &metadata).is_err());
        fs::remove_file(&path).unwrap();
        assert_eq!(open_file(dir.as_fd(), c"f", &metadata).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
