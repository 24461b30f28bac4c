//! Takes the metadata of one name, without following it and without opening it. Attributes come with
//! [`super::attributes`]: of what is opened anyway they cost least when it is.

use std::{
    collections::{HashMap, hash_map::Entry},
    ffi::CStr,
    os::fd::BorrowedFd,
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags, StatxTimestamp, fstatvfs,
        openat, readlinkat, statx,
    },
    io::{Errno, Result},
};

use super::{mounts::On, names::Names};
use crate::{
    clock::Timestamp,
    format::entry::{EntryKind, Metadata},
};

/// Metadata, and what only the walk needs to know.
#[derive(Clone, Debug)]
pub struct Captured {
    /// What goes into the manifest.
    pub metadata: Metadata,
    /// The device as the kernel numbers it now: good for comparing within one run only.
    pub device: (u32, u32),
    /// The mount that it is on.
    pub on: On,
    /// To enter it would mount something there: NFS, CIFS and AFS say so of their folders.
    pub mounts_when_entered: bool,
}

/// What the metadata of many names have in common, each looked up once.
#[derive(Debug, Default)]
pub struct Surroundings {
    names: Names,
    devices: Devices,
}

/// The keys of devices in a manifest. The kernel numbers devices anew at every boot, and btrfs, LVM and
/// network mounts come in another order then; the id that a file system has of itself (`f_fsid`) stays.
/// Where it has none, or another device of this run has the same, the number has to do: then a
/// reboot makes the files of that device be read again, nothing worse.
#[derive(Debug, Default)]
struct Devices(HashMap<(u32, u32), u64>);

impl Devices {
    /// The key of the device that `name` in `dir` is on.
    fn key(&mut self, device: (u32, u32), dir: BorrowedFd<'_>, name: &CStr) -> u64 {
        let taken: Vec<u64> = match self.0.entry(device) {
            Entry::Occupied(known) => return *known.get(),
            Entry::Vacant(_) => self.0.values().copied().collect(),
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let own = openat(dir, name, flags, Mode::empty()).and_then(|handle| Ok(fstatvfs(handle)?.f_fsid));
        let number = u64::from(device.0) << 32 | u64::from(device.1);
        let key = own.ok().filter(|id| *id != 0 && !taken.contains(id)).unwrap_or(number);
        self.0.insert(device, key);
        key
    }
}

/// Status of `name` in `dir`; of `dir` itself if `name` is empty.
pub(super) fn status(dir: BorrowedFd<'_>, name: &CStr) -> Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID)
}

/// Takes the metadata of `name` in `dir`.
///
/// # Errors
/// What the system says: `NOENT` if the name vanished meanwhile.
pub fn capture(dir: BorrowedFd<'_>, name: &CStr, around: &mut Surroundings) -> Result<Captured> {
    let status = status(dir, name)?;
    let kind = kind(&status).ok_or(Errno::NOTSUP)?;
    let link_target = match kind {
        EntryKind::Symlink => readlinkat(dir, name, Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    let device_number = match kind {
        EntryKind::CharacterDevice | EntryKind::BlockDevice => {
            u64::from(status.stx_rdev_major) << 32 | u64::from(status.stx_rdev_minor)
        }
        _ => 0,
    };
    let device = (status.stx_dev_major, status.stx_dev_minor);
    let Surroundings { names, devices } = around;
    let has_birth = status.stx_mask & StatxFlags::BTIME.bits() != 0;
    let metadata = Metadata {
        kind,
        mode: u32::from(status.stx_mode) & 0o7777,
        uid: status.stx_uid,
        gid: status.stx_gid,
        user: names.user(status.stx_uid),
        group: names.group(status.stx_gid),
        mtime: timestamp(&status.stx_mtime),
        ctime: timestamp(&status.stx_ctime),
        btime: has_birth.then(|| timestamp(&status.stx_btime)),
        inode: status.stx_ino,
        device_key: devices.key(device, dir, name),
        links: u64::from(status.stx_nlink),
        size: if kind == EntryKind::File { status.stx_size } else { 0 },
        link_target,
        device_number,
        xattrs: Vec::new(),
        flags: 0,
        holes: Vec::new(),
        lacks: None,
    };
    let mounts_when_entered = status.stx_attributes.contains(StatxAttributes::AUTOMOUNT);
    Ok(Captured { metadata, device, on: On::of(&status), mounts_when_entered })
}

/// What a status is of; `None` for what Linux does not have.
pub(super) fn kind(status: &Statx) -> Option<EntryKind> {
    match FileType::from_raw_mode(u32::from(status.stx_mode)) {
        FileType::RegularFile => Some(EntryKind::File),
        FileType::Directory => Some(EntryKind::Directory),
        FileType::Symlink => Some(EntryKind::Symlink),
        FileType::Fifo => Some(EntryKind::Fifo),
        FileType::CharacterDevice => Some(EntryKind::CharacterDevice),
        FileType::BlockDevice => Some(EntryKind::BlockDevice),
        FileType::Socket => Some(EntryKind::Socket),
        FileType::Unknown => None,
    }
}

pub(super) fn timestamp(time: &StatxTimestamp) -> Timestamp {
    Timestamp { seconds: time.tv_sec, nanoseconds: time.tv_nsec }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn metadata_is_what_the_system_says() {
        let folder = tempfile::tempdir().unwrap();
        fs::File::create(folder.path().join("f")).unwrap().set_len(7).unwrap();
        fs::hard_link(folder.path().join("f"), folder.path().join("g")).unwrap();
        let dir = fs::File::open(folder.path()).unwrap();
        let captured = capture(dir.as_fd(), c"f", &mut Surroundings::default()).unwrap().metadata;
        let expected = fs::metadata(folder.path().join("g")).unwrap();
        assert_eq!(captured.kind, EntryKind::File);
        assert_eq!((captured.size, captured.links, captured.inode), (7, 2, expected.ino()));
        assert_eq!(
            (captured.uid, captured.gid, captured.mode),
            (expected.uid(), expected.gid(), expected.mode() & 0o7777)
        );
        assert_eq!(captured.mtime.seconds, expected.mtime());
        assert_eq!(i64::from(captured.mtime.nanoseconds), expected.mtime_nsec());
    }

    #[test]
    fn a_symlink_is_captured_itself_even_if_it_points_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("no/where", folder.path().join("l")).unwrap();
        let dir = fs::File::open(folder.path()).unwrap();
        let captured = capture(dir.as_fd(), c"l", &mut Surroundings::default()).unwrap().metadata;
        assert_eq!(captured.kind, EntryKind::Symlink);
        assert_eq!(captured.link_target, b"no/where");
        assert_eq!(captured.size, 0);
    }

    #[test]
    fn a_file_system_keeps_its_key_and_no_two_share_one() {
        let folder = tempfile::tempdir().unwrap();
        let dir = fs::File::open(folder.path()).unwrap();
        let mut devices = Devices::default();
        let own = fstatvfs(&dir).unwrap().f_fsid;
        let first = devices.key((8, 1), dir.as_fd(), c".");
        assert!(first == own || own == 0 && first == 8 << 32 | 1, "{first} {own}");
        // The same file system under a second number, as an overlay may claim it.
        assert_eq!(devices.key((8, 2), dir.as_fd(), c"."), 8 << 32 | 2);
        assert_eq!(devices.key((8, 1), dir.as_fd(), c"gone"), first);
        assert_eq!(devices.key((8, 3), dir.as_fd(), c"gone"), 8 << 32 | 3);
    }

    #[test]
    fn a_vanished_name_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let dir = fs::File::open(folder.path()).unwrap();
        assert_eq!(capture(dir.as_fd(), c"x", &mut Surroundings::default()).unwrap_err(), Errno::NOENT);
    }
}
