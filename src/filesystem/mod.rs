//! The local file system: the ordered walk, metadata, restoring by directory handles, durable writes.
//! Nothing here follows a symbolic link that it was not told to follow.

pub mod attributes;
pub mod capture;
pub mod durable;
pub mod existing;
pub mod holes;
pub mod metadata;
pub mod names;
pub mod read;
pub mod restore;
pub mod sample;
pub mod sandbox;
pub mod scratch;
pub mod select;
pub mod walk;

use std::{
    ffi::CStr,
    fmt,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};

use crate::error::{Error, ErrorKind};

/// An error of the operating system: what was tried, on what.
fn system_error(what: &str, object: impl fmt::Display, errno: Errno) -> Error {
    let kind = match errno {
        Errno::NOENT => ErrorKind::NotFound,
        _ => ErrorKind::Failed,
    };
    let error = Error::new(kind, format!("cannot {what} {object}: {}", reason(errno))).with_source(errno);
    match errno {
        Errno::NOSPC | Errno::DQUOT => error.with_remedy("free some space there, or choose another place"),
        Errno::ACCESS | Errno::PERM => error.with_remedy("run as a user who may do that"),
        Errno::MFILE | Errno::NFILE => error.with_remedy("raise the limit of open files (ulimit -n)"),
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

/// Of a path so many bytes are given to the system at once; it takes 4,095.
const PIECE_BYTES: usize = 4000;

/// Cuts a path where it has slashes, into pieces that the system takes; none for the empty path.
fn pieces(path: &[u8]) -> impl Iterator<Item = rustix::io::Result<&[u8]>> {
    let mut rest = path;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let piece = match rest.get(..PIECE_BYTES) {
            None => rest,
            Some(most) => match most.iter().rposition(|byte| *byte == b'/') {
                Some(end) => &rest[..end],
                None => {
                    rest = &[];
                    return Some(Err(Errno::NAMETOOLONG));
                }
            },
        };
        rest = rest[piece.len()..].strip_prefix(b"/").unwrap_or_default();
        Some(Ok(piece))
    })
}

/// Opens for reading without a trace in the access time where that is allowed: it is for the owner only.
fn open_quietly(dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(dir, name, flags, Mode::empty()),
        other => other,
    }
}
