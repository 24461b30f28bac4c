//! Sets what is not content: owner, mode and times, in the only order that survives.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::{
    fs::{
        AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat, fchmod, fchown,
        futimens, utimensat,
    },
    io::Errno,
};

use super::{capture, names::Ownership, reason};
use crate::format::entry::{EntryKind, Metadata};

/// Metadata that could not be set, one sentence each, without the path.
pub type Notes = Vec<String>;

/// What metadata is set through.
pub(super) enum Handle<'a> {
    /// An open file or folder.
    Open(BorrowedFd<'a>),
    /// A handle that only names it (`O_PATH`).
    Named(BorrowedFd<'a>),
}

impl Handle<'_> {
    const fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(fd) | Self::Named(fd) => *fd,
        }
    }

    fn set_owner(&self, uid: Option<Uid>, gid: Option<Gid>) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fchown(fd, uid, gid),
            Self::Named(fd) => chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn set_mode(&self, mode: Mode) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fchmod(fd, mode),
            // The one way to the inode behind such a handle, whatever has its name by now.
            Self::Named(fd) => {
                chmodat(CWD, format!("/proc/self/fd/{}", fd.as_raw_fd()), mode, AtFlags::empty())
            }
        }
    }

    fn set_times(&self, times: &Timestamps) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => futimens(fd, times),
            Self::Named(fd) => utimensat(fd, c"", times, AtFlags::EMPTY_PATH),
        }
    }
}

/// Owner, then mode (a change of owner clears setuid), then time.
pub(super) fn set_metadata(handle: &Handle<'_>, metadata: &Metadata, ownership: &Ownership) -> Notes {
    let mut notes = set_owner_and_mode(handle, metadata, ownership);
    note(&mut notes, "time", handle.set_times(&times(metadata)));
    notes
}

pub(super) fn set_owner_and_mode(handle: &Handle<'_>, metadata: &Metadata, ownership: &Ownership) -> Notes {
    let mut notes = Notes::new();
    let owner = ownership.resolve(metadata);
    let before = capture::status(handle.fd(), c"");
    let same = |(uid, gid): (u32, u32)| {
        before.as_ref().is_ok_and(|status| status.stx_uid == uid && status.stx_gid == gid)
    };
    let changed = owner.filter(|owner| !same(*owner));
    if let Some((uid, gid)) = changed {
        let mut done = handle.set_owner(user(uid), group(gid));
        if done.is_err() && handle.set_owner(None, group(gid)).is_ok() {
            // Whoever is not root may still give it to a group of theirs.
            done = handle.set_owner(user(uid), None);
        }
        note(&mut notes, &format!("owner {uid}:{gid}"), done);
    }
    let (uid, gid) = owner.unwrap_or((metadata.uid, metadata.gid));
    let mut mode = metadata.mode & 0o7777;
    match if changed.is_some() { capture::status(handle.fd(), c"") } else { before } {
        Ok(status) => {
            // A program that runs as its owner must not run as another one.
            let lost = if status.stx_uid == uid { 0 } else { 0o4000 }
                | if status.stx_gid == gid || metadata.kind == EntryKind::Directory { 0 } else { 0o2000 };
            if mode & lost != 0 {
                mode &= !lost;
                notes.push("setuid or setgid was left out, since the owner is another".into());
            }
        }
        Err(errno) => {
            mode &= 0o1777;
            notes.push(format!("the owner could not be checked: {}", reason(errno)));
        }
    }
    let done = handle.set_mode(Mode::from_raw_mode(mode));
    note(&mut notes, &format!("mode {mode:o}"), done);
    notes
}

pub(super) fn note(notes: &mut Notes, what: &str, done: rustix::io::Result<()>) {
    if let Err(errno) = done {
        notes.push(format!("{what} could not be set: {}", reason(errno)));
    }
}

/// The number that means "leave it" to the kernel is no user.
pub(super) fn user(uid: u32) -> Option<Uid> {
    (uid != u32::MAX).then(|| Uid::from_raw(uid))
}

pub(super) fn group(gid: u32) -> Option<Gid> {
    (gid != u32::MAX).then(|| Gid::from_raw(gid))
}

pub(super) fn times(metadata: &Metadata) -> Timestamps {
    // Higher values have a meaning of their own to the kernel.
    let nanoseconds = i64::from(metadata.mtime.nanoseconds.min(999_999_999));
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: metadata.mtime.seconds, tv_nsec: nanoseconds },
    }
}
