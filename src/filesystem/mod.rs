//! The local file system: the ordered walk, metadata, restoring by directory handles, durable writes.
//! Nothing here follows a symbolic link that it was not told to follow.

pub mod attributes;
pub mod capture;
pub mod durable;
mod exact;
pub mod filter;
pub mod holes;
pub mod inside;
pub mod live;
pub mod metadata;
pub mod mounts;
pub mod names;
pub mod namespace;
pub mod old;
pub mod partial;
mod pattern;
pub mod read;
pub mod remove;
pub mod restore;
pub mod rights;
pub mod sample;
pub mod sandbox;
pub mod scratch;
pub mod select;
pub mod settle;
pub mod spelling;
mod trail;
pub mod unmet;
pub mod walk;
mod zeros;

use std::{
    ffi::CStr,
    ffi::OsStr,
    fmt,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat, readlinkat},
    io::Errno,
};

use crate::error::{Error, ErrorKind};

/// What can be done where the system says that nothing can be written.
pub const MAKE_WRITABLE: &str = "It is mounted read-only, or a read-only subvolume: make it writable (`mount -o remount,rw`; of btrfs, where the mount \
    is writable, `btrfs property set PATH ro false`)";

/// An error of the operating system: what was tried, on what.
fn system_error(what: &str, object: impl fmt::Display, errno: Errno) -> Error {
    let kind = match errno {
        Errno::NOENT => ErrorKind::NotFound,
        _ => ErrorKind::Failed,
    };
    let error = Error::new(kind, format!("cannot {what} {object}: {}", reason(errno))).with_source(errno);
    match errno {
        Errno::NOSPC | Errno::DQUOT => error.with_remedy(
            "Free some space there, or choose another place; where `df` shows free space, `df -i` shows whether the file system \
             can hold more files, and `quota` whether the user may",
        ),
        Errno::FBIG => error.with_remedy(
            "The file system or the limit of this shell (`ulimit -f`) allows no file so large: choose another place, or raise it",
        ),
        Errno::ACCESS | Errno::PERM => error.with_remedy("Run as a user who may do that"),
        Errno::ROFS => {
            error.with_remedy(format!("{MAKE_WRITABLE}, or name another place"))
        }
        Errno::MFILE | Errno::NFILE => error.with_remedy("Raise the limit of open files (ulimit -n)"),
        _ => error,
    }
}

/// What the system calls the error, without the number.
fn reason(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Bytes of a path as text for people.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// The whole path of a name in an open folder, for people; where the system does not tell it, the name alone. Of use when
/// something went wrong: it asks the system.
fn shown_in(dir: BorrowedFd<'_>, name: &CStr) -> String {
    match readlinkat(CWD, format!("/proc/self/fd/{}", dir.as_raw_fd()), Vec::new()) {
        Ok(folder) => shown(
            Path::new(OsStr::from_bytes(folder.to_bytes()))
                .join(OsStr::from_bytes(name.to_bytes()))
                .as_os_str()
                .as_bytes(),
        ),
        Err(_) => shown(name.to_bytes()),
    }
}

/// Opens for reading without a trace in the access time where that is allowed: it is for the owner only.
fn open_quietly(dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(dir, name, flags, Mode::empty()),
        other => other,
    }
}
