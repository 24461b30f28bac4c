//! Extended attributes (POSIX ACLs, file capabilities and labels are some of them) and inode flags, read and set
//! as the system has them.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, CWD, IFlags, StatxFlags, XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr,
        fstatfs, getxattr, ioctl_getflags, ioctl_setflags, lgetxattr, listxattr, llistxattr, removexattr,
        setxattr, statx,
    },
    io::{Errno, Result},
};

use super::{reason, shown};
use crate::{
    format::entry::{EntryKind, FREEZING_FLAGS, Metadata, SETTABLE_FLAGS, settable_flags},
    limits,
};

/// The system's limit for one value, and for all names of an inode.
const XATTR_BYTES_MAX: usize = 64 << 10;
/// Most names and values are shorter.
const XATTR_BYTES_USUAL: usize = 256;

/// Rights of others than owner and group, and what a folder gives to new files.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// A file stores what is written without copies.
const NO_COPY_ON_WRITE: u32 = 0x80_0000;
/// Where nothing that has content can become so, nor cease to be it: btrfs, as `statfs` knows it.
const FIXES_COPIES: u32 = 0x9123_683e;
/// Permission bits of a file that limit what its ACL gives.
const MASK: u32 = 0o070;
/// Rights of a program beyond those of its user.
const CAPABILITY: &[u8] = b"security.capability";

/// What a backup lacks that could not even list them.
pub(super) const ALL: &str = "extended attributes";

/// Whether the attribute is an ACL.
pub(super) fn is_acl(name: &[u8]) -> bool {
    ACLS.contains(&name)
}

/// Whether the attribute gives a program rights beyond those of its user.
#[must_use]
pub fn is_capability(name: &[u8]) -> bool {
    name == CAPABILITY
}

/// Whether somebody has given the attribute to the inode, or to the folder that it was made in. Others come from the
/// system by itself (labels of `SELinux` and the like, ACLs of NFS): where a snapshot has none, what is there stays.
#[must_use]
pub fn is_given(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"btrfs.") || is_acl(name) || is_capability(name)
}

/// The way to the attributes of an inode.
#[derive(Debug)]
pub(super) enum Way<'a> {
    /// An open file or folder.
    Open(BorrowedFd<'a>),
    /// What a handle stands for that only names it.
    Behind(CString),
    /// A name in a folder; a link is not followed.
    Name(CString),
}

impl<'a> Way<'a> {
    /// Through a handle that only names something (`O_PATH`).
    pub(super) fn behind(fd: BorrowedFd<'_>) -> Self {
        Self::Behind(CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default())
    }

    /// To `name` in `dir`.
    fn name(dir: BorrowedFd<'_>, name: &CStr) -> Self {
        let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name.to_bytes()].concat();
        Self::Name(CString::new(path).unwrap_or_default())
    }

    fn list(&self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Open(fd) => flistxattr(fd, buffer),
            Self::Behind(path) => listxattr(path, buffer),
            Self::Name(path) => llistxattr(path, buffer),
        }
    }

    fn get(&self, name: &[u8], buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Open(fd) => fgetxattr(fd, name, buffer),
            Self::Behind(path) => getxattr(path, name, buffer),
            Self::Name(path) => lgetxattr(path, name, buffer),
        }
    }

    pub(super) fn set(&self, name: &[u8], value: &[u8]) -> Result<()> {
        match self {
            Self::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Behind(path) => setxattr(path, name, value, XattrFlags::empty()),
            // Nothing is set by a name: another file may have it by now.
            Self::Name(_) => Err(Errno::BADF),
        }
    }

    pub(super) fn remove(&self, name: &[u8]) -> Result<()> {
        match self {
            Self::Open(fd) => fremovexattr(fd, name),
            Self::Behind(path) => removexattr(path, name),
            Self::Name(_) => Err(Errno::BADF),
        }
    }

    /// Whether it has the attribute with this value.
    pub(super) fn has(&self, name: &[u8], value: &[u8]) -> bool {
        self.value(name).is_ok_and(|there| there == value)
    }

    /// The names of all attributes, each ended by a NUL.
    pub(super) fn names(&self) -> Result<Vec<u8>> {
        match whole(&mut |buffer| self.list(buffer)) {
            // The file system has none.
            Err(Errno::NOTSUP | Errno::NOSYS) => Ok(Vec::new()),
            // The name vanished meanwhile; but without /proc nobody can tell.
            Err(Errno::NOENT) if statx(CWD, c"/proc/self/fd", AtFlags::empty(), StatxFlags::TYPE).is_ok() => {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    fn value(&self, name: &[u8]) -> Result<Vec<u8>> {
        whole(&mut |buffer| self.get(name, buffer))
    }
}

/// What a call gives that wants a buffer of the right length. Nothing is allocated for nothing.
fn whole(ask: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut usual = [0; XATTR_BYTES_USUAL];
    match ask(&mut usual) {
        Ok(length) => return Ok(usual.get(..length).unwrap_or_default().to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut most = vec![0; XATTR_BYTES_MAX];
    let length = ask(&mut most)?;
    most.truncate(length);
    Ok(most)
}

/// Adds what an open file or folder has to its metadata.
pub fn of_open(fd: BorrowedFd<'_>, metadata: &mut Metadata) {
    read(&Way::Open(fd), metadata);
    match ioctl_getflags(fd) {
        Ok(flags) => metadata.flags = flags.bits() & settable_flags(),
        Err(Errno::IO) => lacking(metadata, "inode flags", Errno::IO),
        // The file system has none.
        Err(_) => {}
    }
}

/// Adds the extended attributes of `name` in `dir`, which is not opened; such things have no flags.
pub fn of_name(dir: BorrowedFd<'_>, name: &CStr, metadata: &mut Metadata) {
    read(&Way::name(dir, name), metadata);
}

/// Notes what could not be read: a backup that does not have it must say so.
fn lacking(metadata: &mut Metadata, what: &str, errno: Errno) {
    lacks(metadata, &format!("{what} ({})", reason(errno)));
}

fn lacks(metadata: &mut Metadata, what: &str) {
    match &mut metadata.lacks {
        // It is one line of a report.
        Some(lacks) if lacks.len() + what.len() > limits::REASON_BYTES_MAX => {}
        Some(lacks) => lacks.push_str(&format!(", {what}")),
        none => *none = Some(what.chars().take(limits::REASON_BYTES_MAX / 4).collect()),
    }
}

/// Whether an ACL, as `posix_acl_xattr.h` of the kernel has it (a version of four bytes, then for each right a kind and the
/// right of two bytes each and a number of four), names a user or group that a user namespace has no number for.
fn names_nobody(acl: &[u8]) -> bool {
    const NAMED: [u16; 2] = [2, 8];
    acl.get(4..).unwrap_or_default().chunks_exact(8).any(|entry| match entry {
        [kind, kind_high, _, _, number @ ..] => {
            NAMED.contains(&u16::from_le_bytes([*kind, *kind_high])) && number == [u8::MAX; 4]
        }
        _ => false,
    })
}

/// XFS shows root its ACLs once more in a form of its own. They are in `system.posix_acl_*` too; a copy would be an
/// attribute like any other elsewhere, stay when the ACL goes, and open the file again when it comes back to XFS.
fn is_of_xfs(name: &[u8]) -> bool {
    matches!(name, b"trusted.SGI_ACL_FILE" | b"trusted.SGI_ACL_DEFAULT")
}

fn read(way: &Way<'_>, metadata: &mut Metadata) {
    let names = match way.names() {
        Ok(names) if names.is_empty() => return,
        Ok(names) => names,
        Err(errno) => return lacking(metadata, ALL, errno),
    };
    let (mut xattrs, mut bytes) = (Vec::new(), 0);
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !is_of_xfs(name)) {
        let called = || format!("attribute {}", shown(name));
        match way.value(name) {
            Ok(value) if bytes + name.len() + value.len() > limits::ATTRIBUTES_BYTES_MAX => {
                let most = limits::ATTRIBUTES_BYTES_MAX >> 10;
                lacks(metadata, &format!("{} (all together have more than {most} KiB)", called()));
            }
            Ok(value) if is_acl(name) && names_nobody(&value) => {
                let why = "it names somebody who has no number in this user namespace";
                lacks(metadata, &format!("{} ({why})", called()));
            }
            Ok(value) => {
                bytes += name.len() + value.len();
                xattrs.push((name.to_vec(), value));
            }
            // It was removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(errno) => lacking(metadata, &called(), errno),
        }
    }
    xattrs.sort_unstable();
    metadata.xattrs = xattrs;
}

/// Sets those flags among `of` that `wanted` has, and clears the others. What cannot be set comes with why.
pub(super) fn set_flags(fd: BorrowedFd<'_>, wanted: u32, of: u32) -> Vec<(&'static str, Errno)> {
    let wanted = wanted & of;
    let named = |bits: u32| SETTABLE_FLAGS.iter().filter(move |(bit, _)| bits & bit != 0);
    let mut now = match ioctl_getflags(fd) {
        Ok(flags) => flags.bits(),
        Err(errno) => return named(wanted).map(|(_, name)| (*name, errno)).collect(),
    };
    let differ = (now ^ wanted) & of;
    let set = |flags: u32| ioctl_setflags(fd, IFlags::from_bits_retain(flags));
    if differ == 0 {
        return Vec::new();
    }
    let mut failed = Vec::new();
    if set(now ^ differ).is_err() {
        // One that this file system does not have must not keep away the others.
        for (bit, name) in named(differ) {
            match set(now ^ bit) {
                Ok(()) => now ^= bit,
                Err(errno) => failed.push((*name, errno)),
            }
        }
    }
    // Some file systems drop without a word what they do not have.
    let dropped = ioctl_getflags(fd).map_or(0, |flags| (flags.bits() ^ wanted) & differ);
    for (_, name) in named(dropped) {
        if failed.iter().all(|(known, _)| known != name) {
            failed.push((*name, Errno::NOTSUP));
        }
    }
    failed
}

/// Lets an immutable or append-only inode be changed again. Where that is not allowed the change itself fails, and says so.
pub(super) fn thaw(fd: BorrowedFd<'_>) {
    drop(set_flags(fd, 0, FREEZING_FLAGS));
}

/// An immutable or append-only file that is let be changed for a moment: when this is dropped it is frozen again.
#[derive(Debug)]
pub struct Thawed {
    file: OwnedFd,
    freezing: u32,
}

impl Thawed {
    /// `None` if it is not frozen, or the user may not thaw it.
    pub(super) fn of(file: OwnedFd) -> Option<Self> {
        let freezing = ioctl_getflags(&file).ok()?.bits() & FREEZING_FLAGS;
        let is_thawed = freezing != 0 && set_flags(file.as_fd(), 0, FREEZING_FLAGS).is_empty();
        is_thawed.then_some(Self { file, freezing })
    }
}

impl Drop for Thawed {
    fn drop(&mut self) {
        // It was frozen a moment ago, by the same right.
        drop(set_flags(self.file.as_fd(), self.freezing, FREEZING_FLAGS));
    }
}

/// Whether an open file has the attributes and flags that it is to have, and none besides; but for those that freeze it.
pub(super) fn are_as(fd: BorrowedFd<'_>, then: &Metadata) -> bool {
    let mut now = Metadata::of(then.kind);
    of_open(fd, &mut now);
    are_same(&now, then)
}

/// As [`are_as`], of `name` in `dir`, which is not opened.
pub(super) fn named_are_as(dir: BorrowedFd<'_>, name: &CStr, then: &Metadata) -> bool {
    let mut now = Metadata::of(then.kind);
    of_name(dir, name, &mut now);
    are_same(&now, then)
}

fn are_same(now: &Metadata, then: &Metadata) -> bool {
    let known = |name: &[u8]| then.xattrs.iter().any(|(known, _)| known == name);
    let added = now.xattrs.iter().any(|(name, _)| is_given(name) && !known(name));
    let missing = then.xattrs.iter().any(|attribute| !now.xattrs.contains(attribute));
    let flags = (now.flags ^ then.flags) & !FREEZING_FLAGS;
    // What the backup could not read is told for each file that has it.
    then.lacks.is_none() && now.lacks.is_none() && !added && !missing && flags == 0
}

/// Whether an open file with permission bits `mode` can become another one where it is: not if its ACL lets somebody in
/// who may not open the other one, nor if it stores what is written in another way for good.
pub(super) fn may_become(fd: BorrowedFd<'_>, mode: u32, then: &Metadata) -> bool {
    let [name, _] = ACLS;
    let wanted = then.xattrs.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let same_acl = match Way::Open(fd).value(name) {
        _ if mode & MASK == 0 => true,
        Ok(value) => Some(&value) == wanted,
        // The rights of the group are then in the ACL that it is to have.
        Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS) => wanted.is_none(),
        Err(_) => false,
    };
    same_acl && stores_as(fd, then)
}

/// Whether an open file stores what is written with or without copies as it is to, or can be told to. Where it cannot, only
/// a new file can.
pub(super) fn stores_as(fd: BorrowedFd<'_>, then: &Metadata) -> bool {
    let stored = ioctl_getflags(fd).map_or(then.flags, |flags| flags.bits());
    let is_fixed = || fstatfs(fd).is_ok_and(|status| u32::try_from(status.f_type) == Ok(FIXES_COPIES));
    (stored ^ then.flags) & NO_COPY_ON_WRITE == 0 || !is_fixed()
}

/// Whether it is to store what is written without copies.
#[must_use]
pub const fn is_without_copies(then: &Metadata) -> bool {
    then.flags & NO_COPY_ON_WRITE != 0
}

/// Whether an entry of this kind may have inode flags: those of devices would go to their drivers.
pub(super) fn has_flags(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::File | EntryKind::Directory)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::skip::skip;

    /// Whether attributes can be set where the tests put their files.
    fn attributes_are_possible(file: &File) -> bool {
        Way::Open(file.as_fd()).set(b"user.x", b"1").is_ok()
    }

    #[test]
    fn a_flag_is_set_or_told() {
        let file = tempfile::tempfile().unwrap();
        let Ok(before) = ioctl_getflags(&file) else {
            skip("flags: this file system has none");
            return;
        };
        let of = settable_flags() & !FREEZING_FLAGS;
        for (bit, name) in SETTABLE_FLAGS.iter().filter(|(bit, _)| bit & of != 0) {
            let failed = set_flags(file.as_fd(), *bit, of);
            let is_set = ioctl_getflags(&file).unwrap().bits() & bit != 0;
            assert_eq!(failed.iter().any(|(told, _)| told == name), !is_set, "{name} {failed:?}");
            ioctl_setflags(&file, before).unwrap();
        }
    }

    #[test]
    fn attributes_are_read_whole_sorted_and_by_every_way() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("f")).unwrap();
        if !attributes_are_possible(&file) {
            skip("attributes: this file system has none");
            return;
        }
        let long = vec![7; 2 * XATTR_BYTES_USUAL];
        let way = Way::Open(file.as_fd());
        for (name, value) in
            [("user.z", &b"last"[..]), ("user.empty", b""), ("user.b", &long), ("user.a\u{ff}", b"1")]
        {
            way.set(name.as_bytes(), value).unwrap();
        }
        way.remove(b"user.x").unwrap();
        let mut open = Metadata::of(EntryKind::File);
        of_open(file.as_fd(), &mut open);
        let users: Vec<_> = open.xattrs.iter().filter(|(name, _)| name.starts_with(b"user.")).collect();
        let names: Vec<_> = users.iter().map(|(name, _)| name.as_slice()).collect();
        assert_eq!(names, [&b"user.a\xc3\xbf"[..], b"user.b", b"user.empty", b"user.z"]);
        assert_eq!((&users[1].1, &users[2].1), (&long, &Vec::new()));
        assert_eq!(open.lacks, None);
        let dir = File::open(folder.path()).unwrap();
        let mut named = Metadata::of(EntryKind::File);
        of_name(dir.as_fd(), c"f", &mut named);
        assert_eq!(named.xattrs, open.xattrs);
        let mut behind = Metadata::of(EntryKind::File);
        read(&Way::behind(file.as_fd()), &mut behind);
        assert_eq!(behind.xattrs, open.xattrs);
        let mut gone = Metadata::of(EntryKind::Symlink);
        of_name(dir.as_fd(), c"gone", &mut gone);
        assert_eq!((gone.xattrs, gone.lacks), (Vec::new(), None));
        std::os::unix::fs::symlink("f", folder.path().join("l")).unwrap();
        let mut link = Metadata::of(EntryKind::Symlink);
        of_name(dir.as_fd(), c"l", &mut link);
        assert!(!link.xattrs.iter().any(|(name, _)| name.starts_with(b"user.")), "a link was followed");
    }

    #[test]
    fn an_acl_that_names_somebody_without_a_number_is_seen() {
        let entry = |kind: u16, number: u32| {
            [&kind.to_le_bytes()[..], &7_u16.to_le_bytes(), &number.to_le_bytes()].concat()
        };
        let acl = |entries: &[Vec<u8>]| [&2_u32.to_le_bytes()[..], &entries.concat()].concat();
        // The kinds that name nobody have no number.
        let usual = [entry(1, u32::MAX), entry(2, 1000), entry(4, u32::MAX), entry(0x10, u32::MAX)];
        assert!(!names_nobody(&acl(&usual)) && !names_nobody(&[]) && !names_nobody(&[2, 0, 0]));
        for kind in [2, 8] {
            assert!(names_nobody(&acl(&[&usual[..], &[entry(kind, u32::MAX)]].concat())));
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_within_one_line() {
        let mut metadata = Metadata::of(EntryKind::File);
        for number in 0..1000 {
            lacking(&mut metadata, &format!("attribute user.{number}"), Errno::IO);
        }
        let lacks = metadata.lacks.unwrap();
        assert!(lacks.starts_with("attribute user.0 (Input/output error), attribute user.1 ("), "{lacks}");
        assert!(lacks.len() <= limits::REASON_BYTES_MAX + 2);
    }

    #[test]
    fn a_flag_that_cannot_be_set_does_not_keep_away_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap();
        let file = File::open(&path).unwrap();
        let flags = || {
            let mut metadata = Metadata::of(EntryKind::File);
            of_open(file.as_fd(), &mut metadata);
            metadata.flags
        };
        if !set_flags(file.as_fd(), 0x40, 0x40).is_empty() {
            skip("flags: this file system has none");
            return;
        }
        assert_eq!(flags() & 0x40, 0x40);
        // What nobody can set is not tried.
        let failed = set_flags(file.as_fd(), 0x80 | 0x8000_0000, settable_flags());
        assert_eq!(failed, []);
        assert_eq!(flags(), 0x80);
        // A file cannot fold the case of names.
        let failed = set_flags(file.as_fd(), 0x40 | 0x4000_0000, settable_flags());
        assert_eq!(failed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["case-fold"]);
        assert_eq!(flags(), 0x40);
    }
}
