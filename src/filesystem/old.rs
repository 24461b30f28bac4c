//! What is in a target already: looked at and opened by directory handles, following nothing, and never changed
//! through a name that may also stand for a file elsewhere.

use std::{
    ffi::{CStr, CString},
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{
        Access, AtFlags, CWD, Mode, OFlags, RawDir, Statx, StatxAttributes, accessat, chmodat, openat,
        readlinkat,
    },
    io::Errno,
    process::{getegid, geteuid},
};

use super::{
    attributes::{self, Thawed, Way, has_flags, is_acl},
    capture,
    filter::Filter,
    holes,
    mounts::is_mounted_on,
    names::Ownership,
    partial::{
        claim, gone, has_only_name, is_begun, is_begun_with_acl, meanwhile, rename_new, sync_names,
        unfinished_name,
    },
    remove::Removal,
    restore::{DIRECTORY, Folder, NewFile, Target, check, component, may_grow_to, open_beneath},
    rights, shown, shown_in, spelling, system_error,
    walk::Listing,
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        entry::{EntryKind, FREEZING_FLAGS, Hole, Metadata},
        path::{join, split},
    },
};

/// Bytes of the buffer that looks whether a folder is empty.
const LOOK_BYTES: usize = 1024;

/// The unit in which the system counts what is allocated.
const BLOCK_BYTES: u64 = 512;
/// What the owner of a folder needs to change what is in it.
pub(super) const OWNER_RIGHTS: u32 = 0o700;
/// What they need to look at what is in it.
const SEEING_RIGHTS: u32 = 0o500;
/// What the owner of a file needs to open it for its attributes.
const FILE_RIGHTS: u32 = 0o600;

/// Device and inode.
pub(super) type FileId = ((u32, u32), u64);

/// Whether another file system begins at a folder. Before Linux 5.8 nobody could tell: then each may be one.
fn is_mount(status: &Statx) -> bool {
    let told = status.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
    !told || is_mounted_on(status)
}

/// Whether nothing is in a folder.
pub(super) fn is_empty(dir: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let again = openat(dir, c".", DIRECTORY, Mode::empty())?;
    let mut buffer = Vec::with_capacity(LOOK_BYTES);
    let mut entries = RawDir::new(again, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a handle names a folder of ours that we may not change; as [`Found::is_closed_to_us`].
pub(super) fn is_closed_to_us(dir: BorrowedFd<'_>) -> bool {
    let found = capture::status(dir, c"").ok().as_ref().and_then(Found::of);
    found.is_some_and(|found| found.is_closed_to_us())
}

/// What has a name in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: EntryKind,
    /// Its bytes, of a file.
    pub size: u64,
    /// When its content changed last.
    pub mtime: Timestamp,
    mode: u32,
    owner: (u32, u32),
    links: u32,
    /// It is immutable or append-only.
    pub(super) frozen: bool,
    /// The flags that say so.
    freezing: u32,
    /// Bytes that its file system has given to it.
    pub allocated: u64,
    pub(super) file: FileId,
    /// Another file system begins here, or the system cannot tell.
    pub(super) mount: bool,
    /// The system tells that something is mounted on it.
    covered: bool,
}

impl Found {
    pub(super) fn of(status: &Statx) -> Option<Self> {
        let kind = capture::kind(status)?;
        let freezes = [(StatxAttributes::IMMUTABLE, 0x10), (StatxAttributes::APPEND, 0x20)];
        let freezing = freezes
            .iter()
            .filter(|(attribute, _)| status.stx_attributes.contains(*attribute))
            .fold(0, |flags, (_, flag)| flags | flag);
        let covered = is_mounted_on(status);
        Some(Self {
            kind,
            size: if kind == EntryKind::File { status.stx_size } else { 0 },
            mtime: capture::timestamp(&status.stx_mtime),
            mode: u32::from(status.stx_mode) & 0o7777,
            owner: (status.stx_uid, status.stx_gid),
            links: status.stx_nlink,
            frozen: freezing != 0,
            freezing,
            file: ((status.stx_dev_major, status.stx_dev_minor), status.stx_ino),
            allocated: status.stx_blocks.saturating_mul(BLOCK_BYTES),
            mount: if kind == EntryKind::Directory { is_mount(status) } else { covered },
            covered,
        })
    }

    /// Whether it is a folder of ours in which we may not change anything.
    #[must_use]
    pub fn is_closed_to_us(&self) -> bool {
        let is_ours = self.owner.0 == geteuid().as_raw();
        let closed = self.mode & OWNER_RIGHTS != OWNER_RIGHTS;
        self.kind == EntryKind::Directory && closed && is_ours && !rights::overrides_modes(self.owner)
    }

    /// Whether it is a folder as [`Self::is_closed_to_us`], and nobody can even see all that is in it.
    #[must_use]
    pub fn is_hidden_from_us(&self) -> bool {
        self.is_closed_to_us() && self.mode & SEEING_RIGHTS != SEEING_RIGHTS
    }

    /// Bytes that its file system gets back when the name goes: none while it has another one.
    #[must_use]
    pub const fn freed(&self) -> u64 {
        if self.links > 1 { 0 } else { self.allocated }
    }

    /// Its permission bits.
    pub(super) const fn mode(&self) -> u32 {
        self.mode
    }

    /// The numbers of its user and group.
    #[must_use]
    pub const fn owner(&self) -> (u32, u32) {
        self.owner
    }

    /// Whether the system tells that something is mounted on it.
    #[must_use]
    pub const fn is_mount(&self) -> bool {
        self.covered
    }

    /// Its device and inode, if it has several names.
    #[must_use]
    pub fn shared(&self) -> Option<((u32, u32), u64)> {
        (self.links > 1 && self.kind == EntryKind::File).then_some(self.file)
    }

    /// Whether it is immutable or append-only.
    #[must_use]
    pub const fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// The flags that freeze it.
    #[must_use]
    pub const fn freezing(&self) -> u32 {
        self.freezing
    }

    /// Whether it is immutable or append-only, and this process may not change that.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.frozen && !rights::may_freeze()
    }

    /// Whether it is a file that a restore of what `metadata` describes has begun and not ended. One that has such a mode
    /// in the snapshot, is longer, or belongs to somebody else may be somebody's.
    #[must_use]
    pub fn is_begun(&self, metadata: &Metadata, ownership: &Ownership) -> bool {
        let us = geteuid().as_raw();
        let uid = ownership.resolve(metadata).map_or(us, |(uid, _)| uid);
        let file =
            matches!((self.kind, metadata.kind), (EntryKind::File, EntryKind::File)) && self.links == 1;
        let ours = self.owner.0 == us || self.owner.0 == uid;
        let has_acl = metadata.xattrs.iter().any(|(name, _)| is_acl(name));
        let begun = is_begun(self.mode) && !is_begun(metadata.mode)
            || has_acl && is_begun_with_acl(self.mode, metadata.mode);
        file && ours && begun && self.size <= metadata.size
    }

    /// Whether it is the same file as another one.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.file == other.file
    }

    /// How many names it has, if it is no folder.
    #[must_use]
    pub const fn names(&self) -> u32 {
        self.links
    }

    /// Whether what freezes it would have to be changed, and not only where it was found: it has other names, which may be
    /// anywhere, or is mounted here. What is frozen for other names is thawed for none of them, and a process that may freeze
    /// nothing tells so of the file as it is.
    #[must_use]
    pub fn freezes_elsewhere(&self, metadata: &Metadata) -> bool {
        let wanted = metadata.flags & FREEZING_FLAGS;
        if self.covered {
            return self.freezing != wanted;
        }
        self.links > 1 && wanted & !self.freezing != 0 && rights::may_freeze()
    }

    /// Whether it is what was found, as it was.
    #[must_use]
    pub fn is_unchanged(&self, found: &Self) -> bool {
        (self.file, self.kind, self.size, self.mtime) == (found.file, found.kind, found.size, found.mtime)
    }

    /// Whether the file may become the one that `metadata` describes. Not if it has another name, which may be
    /// anywhere, or is mounted here from elsewhere; nor if it belonged to somebody else, or more people could open it: who has it open would see what
    /// is written to it, or go on writing.
    #[must_use]
    pub fn may_become(&self, metadata: &Metadata, ownership: &Ownership) -> bool {
        let (us, our_group) = (geteuid().as_raw(), getegid().as_raw());
        let (uid, gid) = ownership.resolve(metadata).unwrap_or((us, our_group));
        let owner = self.owner.0 == uid || self.owner.0 == us;
        let group = self.mode & 0o060 == 0 || self.owner.1 == gid || self.owner.1 == our_group;
        let wider = self.mode & !metadata.mode & 0o066;
        self.links == 1 && !self.covered && owner && group && wider == 0
    }

    /// Whether the file has this metadata, as far as can be told without opening it.
    #[must_use]
    fn is_as(&self, metadata: &Metadata, ownership: &Ownership) -> bool {
        let owner = ownership.resolve(metadata).unwrap_or((geteuid().as_raw(), getegid().as_raw()));
        // It is not thawed for good as long as it has other names. Where it cannot be at all that is told.
        let freezes_more = self.links > 1 && self.freezing & !metadata.flags != 0 && !self.is_stuck();
        !freezes_more
            && (self.mode, self.owner, self.mtime) == (metadata.mode & 0o7777, owner, metadata.mtime)
    }

    /// Opens it for its metadata.
    ///
    /// # Errors
    /// It has the name no more.
    pub(super) fn open_again(&self, target: &Target, path: &[u8]) -> Result<File> {
        let mut look = Look::new(target);
        let mut opened = look.try_open(path, self, OFlags::RDONLY)?;
        if matches!(opened, Err(Errno::ACCESS))
            && let Some(fd) = look.open(path, self, OFlags::PATH)?
        {
            // Its owner may not read it either; the mode is set after everything else.
            if set_mode(fd.as_fd(), self.mode | FILE_RIGHTS).is_ok() {
                opened = look.try_open(path, self, OFlags::RDONLY)?;
            }
        }
        still_there(path, opened)
    }

    /// As [`Self::open_again`], of what keeps its mode.
    ///
    /// # Errors
    /// It has the name no more, or cannot be read.
    pub(super) fn open_as_it_is(&self, target: &Target, path: &[u8]) -> Result<File> {
        still_there(path, Look::new(target).try_open(path, self, OFlags::RDONLY)?)
    }
}

/// What was opened, if it is still what was found.
fn still_there(path: &[u8], opened: rustix::io::Result<Option<OwnedFd>>) -> Result<File> {
    match opened {
        Ok(Some(fd)) => Ok(File::from(fd)),
        Ok(None) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(gone(path)),
        Err(errno) => Err(system_error("open", shown(path), errno)),
    }
}

/// Looks at what is in a target.
#[derive(Debug)]
pub struct Look<'a> {
    target: &'a Target,
    /// The folder that was looked into last, if there is one at its path.
    folder: Option<(Vec<u8>, Option<Folder>)>,
}

/// What cannot be reached, since something on the way is missing or no folder.
const fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

impl Target {
    /// Whether the user may give what is at `path` one more name, as far as that is known before.
    ///
    /// # Errors
    /// It is somebody else's, and the system protects it (`fs.protected_hardlinks`).
    pub fn may_link(&self, path: &[u8]) -> Result<()> {
        let Some(found) = Look::new(self).at(path)? else { return Ok(()) };
        let is_theirs = found.owner.0 != geteuid().as_raw() && !rights::may_as_owner(found.owner);
        if is_theirs && rights::protects_links() && !self.may_write_harmless(path, &found)? {
            return Err(system_error("link to", shown(path), Errno::PERM));
        }
        Ok(())
    }

    /// Whether it is a file that the user may read and write anyway, and that gives nobody more rights.
    fn may_write_harmless(&self, path: &[u8], found: &Found) -> Result<bool> {
        let (folder, name) = split(path);
        let gives_rights = found.mode & 0o4000 != 0 || found.mode & 0o2010 == 0o2010;
        let Some(dir) = self.existing_directory(folder)? else { return Ok(false) };
        let both = Access::READ_OK | Access::WRITE_OK;
        let name = component(name)?;
        let may_write = || accessat(&dir, &name, both, AtFlags::EACCESS).is_ok();
        Ok(found.kind == EntryKind::File && !gives_rights && may_write())
    }

    /// A handle of the folder at `path`, if it is there; no link is followed.
    ///
    /// # Errors
    /// The path is not a proper relative one, or it cannot be opened.
    pub fn existing_directory(&self, path: &[u8]) -> Result<Option<Folder>> {
        check(path)?;
        match self.known(if path.is_empty() { b"." } else { path }) {
            Ok(dir) => Ok(Some(Arc::new(dir))),
            Err(errno) if is_absent(errno) => Ok(None),
            Err(errno) if path.is_empty() => {
                Err(system_error("open the folder", shown_in(self.root.as_fd(), c"."), errno))
            }
            Err(errno) => Err(system_error("open the folder", shown(path), errno)),
        }
    }

    /// The names in the folder at `path`; none if there is no such folder.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn names(&self, path: &[u8], left_out: &Filter) -> Result<Option<super::unmet::Names>> {
        let Some(dir) = self.existing_directory(path)? else { return Ok(None) };
        let cannot = |errno| system_error("list the folder", shown(path), errno);
        names_of(dir.as_fd(), left_out).map(Some).map_err(cannot)
    }
}

/// A target that was opened up or thawed for a restore, or something in it that was opened up to compare it. When this is
/// dropped it gets back the mode and the flags that it had, but for what it is given meanwhile.
#[derive(Debug)]
pub(super) struct OpenedUp {
    dir: Folder,
    mode: u32,
    /// The flags that froze it.
    freezing: u32,
    /// It gets another mode, or has the one that it had.
    keeps_mode: AtomicBool,
    /// It gets other flags.
    keeps_flags: AtomicBool,
}

impl OpenedUp {
    /// Its mode was changed.
    const fn of(dir: Folder, mode: u32) -> Self {
        let (keeps_mode, keeps_flags) = (AtomicBool::new(false), AtomicBool::new(true));
        Self { dir, mode, freezing: 0, keeps_mode, keeps_flags }
    }

    /// Lets what is in an open folder be changed, if it is immutable or append-only, or its owner, who restores, may not
    /// write to it; `None` if that is not needed. Where it cannot be done the change itself fails, and says so.
    pub(super) fn to_change(dir: &Folder) -> Option<Self> {
        let found = Found::of(&capture::status(dir.as_fd(), c"").ok()?)?;
        if !found.frozen && !found.is_closed_to_us() {
            return None;
        }
        if found.frozen {
            attributes::thaw(dir.as_fd());
        }
        let opened = found.is_closed_to_us() && open_up(dir.as_fd(), found.mode);
        let (keeps_mode, keeps_flags) = (AtomicBool::new(!opened), AtomicBool::new(!found.frozen));
        let (dir, Found { mode, freezing, .. }) = (Arc::clone(dir), found);
        Some(Self { dir, mode, freezing, keeps_mode, keeps_flags })
    }

    /// Opens up a folder of ours that may not even be looked into, if it is that.
    pub(super) fn new(path: &Path) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, path, flags, Mode::empty()).ok()?;
        let found = Found::of(&capture::status(dir.as_fd(), c"").ok()?)?;
        (found.is_closed_to_us() && open_up(dir.as_fd(), found.mode))
            .then(|| Self::of(Arc::new(dir), found.mode))
    }

    /// Opens up a folder or a file of ours of which we may not see what is in it, if it is that, behind a handle that
    /// names it.
    pub(super) fn to_read(handle: OwnedFd) -> Option<Self> {
        let found = Found::of(&capture::status(handle.as_fd(), c"").ok()?)?;
        let (needed, given) = match found.kind {
            EntryKind::Directory => (SEEING_RIGHTS, OWNER_RIGHTS),
            EntryKind::File => (FILE_RIGHTS & SEEING_RIGHTS, FILE_RIGHTS),
            _ => return None,
        };
        let is_ours = found.owner.0 == geteuid().as_raw();
        let closed = found.mode & needed != needed && is_ours && !rights::overrides_modes(found.owner);
        (closed && set_mode(handle.as_fd(), found.mode | given).is_ok())
            .then(|| Self::of(Arc::new(handle), found.mode))
    }

    /// The mode that it had.
    pub(super) const fn mode(&self) -> u32 {
        self.mode
    }

    /// The restore is about to set the mode that it is to have.
    pub(super) fn keep_mode(&self) {
        self.keeps_mode.store(true, Ordering::Relaxed);
    }

    /// As [`Self::keep_mode`], of the flags that freeze it.
    pub(super) fn keep_flags(&self) {
        self.keeps_flags.store(true, Ordering::Relaxed);
    }
}

impl Drop for OpenedUp {
    fn drop(&mut self) {
        // Best effort: what opened it up is at its end, or has an error of its own to tell.
        if !self.keeps_mode.load(Ordering::Relaxed) {
            match set_mode(self.dir.as_fd(), self.mode) {
                Ok(()) | Err(_) => {}
            }
        }
        if !self.keeps_flags.load(Ordering::Relaxed) {
            drop(attributes::set_flags(self.dir.as_fd(), self.freezing, FREEZING_FLAGS));
        }
    }
}

/// The names in an open folder, whether another file system begins there, and whether a backup leaves out what is in it.
pub(super) fn names_of(dir: BorrowedFd<'_>, left_out: &Filter) -> rustix::io::Result<super::unmet::Names> {
    let (mount, listing) = (is_mount(&capture::status(dir, c"")?), Listing::read(dir)?);
    let is_left_out = left_out.marker(dir, &|name| listing.contains(name)).is_some();
    Ok(super::unmet::Names { listing, mount, is_left_out })
}

impl<'a> Look<'a> {
    /// Looks into a target.
    #[must_use]
    pub const fn new(target: &'a Target) -> Self {
        Self { target, folder: None }
    }

    pub(super) fn folder(&mut self, folder: &[u8]) -> Result<Option<Folder>> {
        if let Some((known, dir)) = &self.folder {
            let below =
                || folder.strip_prefix(known.as_slice()).is_some_and(|rest| rest.first() == Some(&b'/'));
            if known == folder || dir.is_none() && below() {
                return Ok(dir.clone());
            }
        }
        let dir = self.target.existing_directory(folder)?;
        self.folder = Some((folder.to_vec(), dir.clone()));
        Ok(dir)
    }

    /// What has the name, if anything.
    ///
    /// # Errors
    /// The path is not a proper relative one; the system does not tell.
    pub fn at(&mut self, path: &[u8]) -> Result<Option<Found>> {
        let (folder, name) = split(path);
        let name = component(name)?;
        let Some(dir) = self.folder(folder)? else { return Ok(None) };
        self.named(&dir, &name)
    }

    fn named(&self, dir: &Folder, name: &CStr) -> Result<Option<Found>> {
        match capture::status(dir.as_fd(), name) {
            Ok(status) => Ok(Found::of(&status)),
            Err(errno) if is_absent(errno) => Ok(None),
            Err(errno) => Err(system_error("look at", shown_in(dir.as_fd(), name), errno)),
        }
    }

    /// Where a link leads that was found.
    ///
    /// # Errors
    /// No more files can be open.
    pub fn link_target(&mut self, path: &[u8], found: &Found) -> Result<Option<Vec<u8>>> {
        let Some(fd) = self.open(path, found, OFlags::PATH)? else { return Ok(None) };
        Ok(readlinkat(fd, c"", Vec::new()).ok().map(CString::into_bytes))
    }

    /// Whether a link that was found is in everything the one that `metadata` describes, and neither has another name.
    ///
    /// # Errors
    /// No more files can be open.
    pub fn is_right_link(
        &mut self,
        path: &[u8],
        found: &Found,
        (metadata, ownership): (&Metadata, &Ownership),
    ) -> Result<bool> {
        let is_link = [found.kind, metadata.kind] == [EntryKind::Symlink; 2] && !found.is_mount();
        let is_alone = found.links == 1 && metadata.links <= 1;
        if !is_link
            || !is_alone
            || !found.is_as(metadata, ownership)
            || self.link_target(path, found)?.as_ref() != Some(&metadata.link_target)
        {
            return Ok(false);
        }
        let (folder, name) = split(path);
        let name = component(name)?;
        let dir = self.folder(folder)?;
        Ok(dir.is_some_and(|dir| attributes::named_are_as(dir.as_fd(), &name, metadata)))
    }

    /// Whether what was found has an attribute with this value; nothing is opened for that. The empty path is the target itself.
    pub(super) fn has_attribute(
        &mut self,
        (path, found): (&[u8], &Found),
        (name, value): (&[u8], &[u8]),
    ) -> bool {
        let has = |fd: BorrowedFd<'_>| Way::behind(fd).has(name, value);
        if path.is_empty() {
            return has(self.target.root.as_fd());
        }
        let handle = self.open(path, found, OFlags::PATH).ok().flatten();
        handle.is_some_and(|handle| has(handle.as_fd()))
    }

    /// Opens what was found; `None` if it is another file by now, or may not be opened so.
    fn open(&mut self, path: &[u8], found: &Found, flags: OFlags) -> Result<Option<OwnedFd>> {
        Ok(self.try_open(path, found, flags)?.unwrap_or_default())
    }

    /// As [`Self::open`], and why it may not be opened.
    fn try_open(
        &mut self,
        path: &[u8],
        found: &Found,
        flags: OFlags,
    ) -> Result<rustix::io::Result<Option<OwnedFd>>> {
        let (folder, name) = split(path);
        let name = component(name)?;
        let Some(dir) = self.folder(folder)? else { return Ok(Ok(None)) };
        // The system refuses these for a handle that only names something: nothing is opened then.
        let waits =
            if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK | OFlags::NOCTTY };
        let flags = flags | waits | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match open_beneath(dir.as_fd(), &name, flags) {
            Ok(fd) => fd,
            Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
                return Err(system_error("open", shown(path), errno));
            }
            Err(errno) => return Ok(Err(errno)),
        };
        let status =
            capture::status(fd.as_fd(), c"").map_err(|errno| system_error("look at", shown(path), errno))?;
        // The links of a folder are the folders in it.
        let no_further_name = |now: &Found| now.kind == EntryKind::Directory || now.links <= found.links;
        let same = Found::of(&status).is_some_and(|now| now.is(found) && no_further_name(&now));
        Ok(Ok(same.then_some(fd)))
    }

    /// Lets what was found be changed and replaced, if it is immutable or append-only. A file with other names is frozen for
    /// them too, and never changed where it is: it is thawed for the moment in which a name of it goes.
    ///
    /// # Errors
    /// No more files can be open.
    pub fn thaw(&mut self, path: &[u8], found: &Found) -> Result<()> {
        if found.frozen
            && has_flags(found.kind)
            && found.shared().is_none()
            && let Some(fd) = self.open(path, found, OFlags::RDONLY)?
        {
            attributes::thaw(fd.as_fd());
        }
        Ok(())
    }

    /// Lets a name of what was found go, if it is a frozen file with other names.
    ///
    /// # Errors
    /// No more files can be open.
    pub fn thaw_for_now(&mut self, path: &[u8], found: &Found) -> Result<Option<Thawed>> {
        if !found.frozen || found.shared().is_none() {
            return Ok(None);
        }
        Ok(self.open(path, found, OFlags::RDONLY)?.and_then(Thawed::of))
    }

    /// Lets us change what is in a folder of ours that was found, if its mode does not; whether that was needed, and
    /// done: whoever asks for it sets the mode again. Where it cannot be done the change itself fails, and says so.
    ///
    /// # Errors
    /// No more files can be open.
    pub fn open_up(&mut self, path: &[u8], found: &Found) -> Result<bool> {
        if !found.is_closed_to_us() {
            return Ok(false);
        }
        let opened = self.open(path, found, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(opened.is_some_and(|fd| open_up(fd.as_fd(), found.mode)))
    }

    /// Gives a folder that was opened up the mode that it had.
    ///
    /// # Errors
    /// It cannot be set.
    pub fn close(&mut self, path: &[u8], found: &Found) -> Result<()> {
        let Some(fd) = self.open(path, found, OFlags::PATH | OFlags::DIRECTORY)? else { return Ok(()) };
        set_mode(fd.as_fd(), found.mode).map_err(|errno| system_error("close again", shown(path), errno))
    }

    /// Makes what was opened up or thawed as it was when it was found, if it is still there.
    ///
    /// # Errors
    /// It cannot be done.
    pub fn put_back(&mut self, path: &[u8], found: &Found) -> Result<()> {
        if found.is_closed_to_us() {
            self.close(path, found)?;
        }
        if found.frozen
            && has_flags(found.kind)
            && let Some(fd) = self.open(path, found, OFlags::RDONLY)?
            && let Some((_, errno)) = attributes::set_flags(fd.as_fd(), found.freezing, FREEZING_FLAGS).pop()
        {
            return Err(system_error("freeze again", shown(path), errno));
        }
        Ok(())
    }

    /// Whether a folder takes the name of what was found in it for the one with its letters in the other case.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn folds_case(&mut self, path: &[u8], found: &Found) -> Result<Option<bool>> {
        let (folder, name) = split(path);
        let Some(swapped) = spelling::swapped(name) else { return Ok(None) };
        Ok(Some(self.at(&join(folder, &swapped))?.is_some_and(|other| other.is(found))))
    }

    /// The name by which its folder lists what is at `path`, if that is another one.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn other_name(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let (folder, name) = split(path);
        let name = component(name)?;
        let Some(dir) = self.folder(folder)? else { return Ok(None) };
        spelling::other_name(dir.as_fd(), &name)
            .map_err(|errno| system_error("list the folder", shown(folder), errno))
    }

    /// Whether nothing is in a folder that was found.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_empty(&mut self, path: &[u8]) -> Result<bool> {
        let Some(dir) = self.folder(path)? else { return Ok(true) };
        is_empty(dir.as_fd()).map_err(|errno| system_error("list the folder", shown(path), errno))
    }

    /// The name of what an earlier run has left of the file at `path`, if there is something.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn left_over(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let (folder, name) = split(path);
        let unfinished = unfinished_name(&component(name)?)?;
        let Some(dir) = self.folder(folder)? else { return Ok(None) };
        let found = self.named(&dir, &unfinished)?;
        Ok(found.map(|_| unfinished.into_bytes()))
    }

    /// Whether the file has this metadata; but for what freezes it.
    ///
    /// # Errors
    /// No more files can be open.
    pub fn is_as(
        &mut self,
        path: &[u8],
        found: &Found,
        (metadata, ownership): (&Metadata, &Ownership),
    ) -> Result<bool> {
        if !found.is_as(metadata, ownership) {
            return Ok(false);
        }
        let fd = self.open(path, found, OFlags::RDONLY)?;
        Ok(fd.is_some_and(|fd| attributes::are_as(fd.as_fd(), metadata)))
    }

    /// Opens a file that was found, to read from it.
    ///
    /// # Errors
    /// No more files can be open.
    pub fn file(&mut self, path: &[u8], found: &Found) -> Result<Option<OldFile>> {
        Ok(self
            .open(path, found, OFlags::RDONLY)?
            .map(|fd| OldFile { file: File::from(fd), size: found.size }))
    }

    /// Opens a file to rewrite it: what an earlier run left of it, or `found` itself. `None` if there is neither,
    /// or it has to be a new file. If it is only told what would be done it is opened to be read, and no other restore
    /// is kept from it.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn rewritable(
        &mut self,
        path: &[u8],
        found: Option<&Found>,
        (metadata, ownership, removal): (&Metadata, &Ownership, Removal),
    ) -> Result<Option<Rewritable>> {
        let (folder, name) = split(path);
        let name = component(name)?;
        let Some(dir) = self.folder(folder)? else { return Ok(None) };
        let unfinished = unfinished_name(&name)?;
        let left = self.named(&dir, &unfinished)?;
        let (own, found) = match (left, found) {
            (Some(left), _) => (false, left),
            (None, Some(found)) => (true, *found),
            (None, None) => return Ok(None),
        };
        // What is left of one that was to be closed to others still is.
        let may = found.kind == EntryKind::File && found.may_become(metadata, ownership);
        let at = if own { path.to_vec() } else { join(folder, unfinished.to_bytes()) };
        let flags = if removal == Removal::Remove { OFlags::RDWR } else { OFlags::RDONLY };
        let opened = if may { self.open(&at, &found, flags)? } else { None };
        let last = if own { &name } else { &unfinished };
        let is_ours = |fd: &OwnedFd| match removal {
            Removal::Remove => claim(fd.as_fd()),
            // What is frozen would be thawed.
            Removal::Tell => found.frozen || accessat(&dir, last, Access::WRITE_OK, AtFlags::EACCESS).is_ok(),
        };
        let may = |fd: &OwnedFd| attributes::may_become(fd.as_fd(), found.mode, metadata) && is_ours(fd);
        let Some(fd) = opened.filter(may) else { return Ok(None) };
        Ok(Some(Rewritable { fd, name, place: (dir, unfinished), own, found }))
    }
}

/// Gives the owner of a folder the right to change what is in it; whether that could be done.
fn open_up(dir: BorrowedFd<'_>, mode: u32) -> bool {
    set_mode(dir, mode | OWNER_RIGHTS).is_ok()
}

/// Sets the mode by the one way that works with a handle which only names an inode.
pub(super) fn set_mode(dir: BorrowedFd<'_>, mode: u32) -> rustix::io::Result<()> {
    let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
    chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())
}

/// A file that is there, to read from.
#[derive(Debug)]
pub struct OldFile {
    file: File,
    size: u64,
}

impl OldFile {
    /// Fills `buffer` from `offset`; whether it has so many bytes there.
    #[must_use]
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let end = offset.checked_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        // What cannot be read is not the same.
        end.is_some_and(|end| end <= self.size) && self.file.read_exact_at(buffer, offset).is_ok()
    }

    /// Whether it stores what is written with or without copies as it is to, as far as only a new file could change that.
    #[must_use]
    pub fn stores_as(&self, then: &Metadata) -> bool {
        attributes::stores_as(self.file.as_fd(), then)
    }

    /// Its holes.
    #[must_use]
    pub fn holes(&self) -> Vec<Hole> {
        holes::find(&self.file, self.size)
    }
}

/// A file that is there and may be changed where it is.
#[derive(Debug)]
pub struct Rewritable {
    fd: OwnedFd,
    name: CString,
    place: (Folder, CString),
    /// It has its own name still, and not that of one which is not finished.
    own: bool,
    found: Found,
}

impl Rewritable {
    /// What it is now.
    #[must_use]
    pub const fn found(&self) -> &Found {
        &self.found
    }

    /// Whether it has the name that it is to have.
    #[must_use]
    pub const fn has_its_name(&self) -> bool {
        self.own
    }

    /// A handle to read by.
    ///
    /// # Errors
    /// No more files can be open.
    pub fn reader(&self) -> Result<OldFile> {
        let again = self.fd.try_clone().map_err(|error| {
            let message = format!("cannot open {} again", shown_in(self.place.0.as_fd(), &self.name));
            Error::new(ErrorKind::Failed, message).with_source(error)
        })?;
        Ok(OldFile { file: File::from(again), size: self.found.size })
    }

    /// Takes its name away, on the disk too, before anything of it is changed: what is half new never looks whole.
    ///
    /// # Errors
    /// The folder cannot be changed.
    pub fn rewrite(self, target: &Target, metadata: &Metadata) -> Result<NewFile> {
        let Self { fd, name, place: (dir, unfinished), own, found } = self;
        target.meet(&dir)?;
        let shown_name = || shown_in(dir.as_fd(), &name);
        let is_at = |at: &CStr| {
            has_only_name(dir.as_fd(), at, fd.as_fd())
                .map_err(|errno| system_error("look at", shown_name(), errno))
        };
        may_grow_to(metadata.size).map_err(|errno| system_error("rewrite", shown_name(), errno))?;
        let another = || meanwhile(format!("{} was replaced, or got another name, meanwhile", shown_name()));
        if !is_at(if own { &name } else { &unfinished })? {
            return Err(another());
        }
        if own {
            let rename = |from: &CStr, to: &CStr| {
                // Nothing that came there meanwhile is replaced.
                rename_new(dir.as_fd(), from, to)
                    .and_then(|()| sync_names(dir.as_fd()))
                    .map_err(|errno| system_error("rewrite", shown_name(), errno))
            };
            rename(&name, &unfinished)?;
            if !is_at(&unfinished)? {
                // It happened at this very moment: what has the name now is not ours to change.
                return rename(&unfinished, &name).and(Err(another()));
            }
        }
        let file = target.rewriting(fd, name, metadata.size, (dir, unfinished));
        file.shaped(metadata).emptied(&metadata.holes, found.size)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::filesystem::names::{OwnershipPolicy, tests::metadata};

    fn put(path: impl AsRef<Path>, text: &str) {
        File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn target() -> (tempfile::TempDir, Target) {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path().join("f"), "12345");
        fs::set_permissions(folder.path().join("f"), fs::Permissions::from_mode(0o640)).unwrap();
        let target = Target::open(folder.path()).unwrap();
        (folder, target)
    }

    fn wanted() -> (Metadata, Ownership) {
        (metadata(EntryKind::File), Ownership::new(OwnershipPolicy::Keep))
    }

    #[test]
    fn a_file_is_only_changed_where_nobody_else_can_have_it() {
        let (folder, target) = target();
        let (metadata, ownership) = wanted();
        let may = || Look::new(&target).at(b"f").unwrap().unwrap().may_become(&metadata, &ownership);
        let mode = |mode| fs::set_permissions(folder.path().join("f"), fs::Permissions::from_mode(mode));
        assert!(may());
        mode(0o644).unwrap();
        assert!(!may(), "others can read it");
        mode(0o400).unwrap();
        assert!(may());
        fs::hard_link(folder.path().join("f"), folder.path().join("g")).unwrap();
        assert!(!may(), "the other name may be anywhere");
    }

    #[test]
    fn a_file_that_is_rewritten_has_another_name_meanwhile_and_keeps_it_if_it_is_not_finished() {
        let (folder, target) = target();
        let (metadata, ownership) = wanted();
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(folder.path().join("f")).unwrap());
        let before = inode();
        let at = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
        let begin = |found: Option<&Found>, size| {
            let how = (&metadata, &ownership, Removal::Remove);
            let old = Look::new(&target).rewritable(b"f", found, how).unwrap();
            old.map(|old| old.rewrite(&target, &Metadata { size, ..metadata.clone() }).unwrap())
        };
        let found = Look::new(&target).at(b"f").unwrap();
        let file = begin(found.as_ref(), 3).unwrap();
        assert!(begin(None, 3).is_none(), "another restore has it");
        file.write_at(1, b"x").unwrap();
        drop(file);
        assert_eq!((at("f"), at(".f.lifeboat-partial").as_deref()), (None, Some("1x345")));
        let file = begin(None, 3).unwrap();
        file.finish(&metadata, &ownership).unwrap().place().unwrap();
        assert_eq!((at("f").as_deref(), at(".f.lifeboat-partial")), (Some("1x3"), None));
        assert_eq!(inode(), before);
    }
    #[test]
    fn a_file_that_got_another_name_or_was_replaced_meanwhile_is_not_rewritten() {
        let (folder, target) = target();
        let (metadata, ownership) = wanted();
        let at = |name: &str| folder.path().join(name);
        let begin = |meanwhile: &dyn Fn()| {
            let found = Look::new(&target).at(b"f").unwrap();
            let old =
                Look::new(&target).rewritable(b"f", found.as_ref(), (&metadata, &ownership, Removal::Remove));
            let old = old.unwrap().unwrap();
            meanwhile();
            old.rewrite(&target, &metadata).map(drop)
        };
        assert!(begin(&|| fs::hard_link(at("f"), at("elsewhere")).unwrap()).is_err());
        fs::remove_file(at("elsewhere")).unwrap();
        let replace = |name: &str| {
            put(at("new"), "another");
            fs::rename(at("new"), at(name)).unwrap();
        };
        // Somebody else's file would be hidden under the name of one that is not finished.
        assert!(begin(&|| replace("f")).is_err());
        assert_eq!(fs::read_to_string(at("f")).unwrap(), "another");
        assert!(!at(".f.lifeboat-partial").try_exists().unwrap());
        // One that is there by now is not replaced.
        fs::set_permissions(at("f"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(begin(&|| replace(".f.lifeboat-partial")).is_err());
        assert_eq!(fs::read_to_string(at("f")).unwrap(), "another");
        // What is left of an earlier run is looked at once more, too.
        fs::set_permissions(at(".f.lifeboat-partial"), fs::Permissions::from_mode(0o640)).unwrap();
        let link = || fs::hard_link(at(".f.lifeboat-partial"), at("elsewhere")).unwrap();
        assert!(begin(&link).is_err());
        assert_eq!(fs::read_to_string(at("elsewhere")).unwrap(), "another");
    }
}
