//! Writes a restored tree without ever leaving its target: every access goes through a directory
//! handle, no link is followed, and a file gets its name only when it is complete, or has a mode that says that it is not.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    fs::{DirBuilder, File},
    io::Write,
    ops::Range,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{
        Access, AtFlags, CWD, FileType, Mode, OFlags, StatVfsMountFlags, accessat, fchmod, fdatasync, fstat,
        fstatvfs, fsync, ftruncate, linkat, lstat, makedev, mkdirat, mknodat, openat, openat2, stat,
        symlinkat, syncfs, unlinkat,
    },
    io::{Errno, pwrite},
    process::{Resource, getrlimit},
};

use super::{
    attributes::{self, Thawed},
    capture,
    holes::{self, Layout},
    metadata::{Handle, Notes, freeze, freeze_as, is_frozen, set_metadata, set_owner_and_mode},
    mounts::is_mounted_on,
    names::Ownership,
    old::{self, OpenedUp},
    partial::{self, Pending},
    remove::{Denied, check_names, denied, denied_as_it_is, denied_name, frozen_folder, keeps_names},
    rights, shown, shown_in, spelling, system_error,
    trail::{self, RESOLVE, Trail},
    zeros,
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        entry::{EntryKind, Hole, Metadata},
        path::split,
    },
};

pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Most bytes of a name on Linux.
pub(super) const NAME_BYTES_MAX: usize = 255;
/// Flags that say how what is written to a file is stored: compressed or not, with copies on write or not.
const STORING_FLAGS: u32 = 0x80_0404;
/// Tries to find a free name for a damaged file.
const DAMAGED_TRIES: u32 = 1000;

/// A handle of a folder in the target.
pub type Folder = Arc<OwnedFd>;

/// Permission bits of a target that a restore makes, until it gets those of the snapshot's folder.
pub const TARGET_MODE: u32 = 0o700;

/// The mode (without the kind) and the owner of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// Permission bits.
    pub mode: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The folder that a tree is restored into.
#[derive(Debug)]
pub struct Target {
    pub(super) root: Arc<OwnedFd>,
    /// Whether anything was in the folder when it was opened.
    was_empty: bool,
    /// It is only the folder that the target would be made in.
    is_above: bool,
    /// Small files have their own names from the beginning.
    names_at_once: bool,
    /// What becomes of zeros.
    zeros: Zeros,
    /// A folder on each file system that was met, to be synced: other ones may be mounted in the target.
    file_systems: Mutex<HashMap<u64, Folder>>,
    /// The way to the last folder of a long path.
    trail: Mutex<Trail>,
    /// Other restores know that this one works here.
    pub(super) part: AtomicBool,
    /// It was opened up or thawed for this restore.
    opened_up: Option<OpenedUp>,
}

/// What becomes of whole blocks of zeros in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zeros {
    /// They are written as what they are.
    #[default]
    Write,
    /// They become holes, which take no space.
    Holes,
}

/// Whether it is one name: not empty, `.` or `..`, no slash, no NUL.
fn is_proper(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
}

fn improper(name: &[u8]) -> Error {
    Error::damaged("the manifest", format!("it holds the name {:?}", shown(name)))
}

/// A name that was checked.
pub(super) fn component(name: &[u8]) -> Result<CString> {
    if !is_proper(name) {
        return Err(improper(name));
    }
    CString::new(name).map_err(|nul| improper(name).with_source(nul))
}

/// Checks every name of a relative path. The empty path is the target itself.
pub(super) fn check(path: &[u8]) -> Result<()> {
    let wrong = path.split(|byte| *byte == b'/').find(|name| !path.is_empty() && !is_proper(name));
    wrong.map_or(Ok(()), |name| Err(improper(name)))
}

/// Opens a folder below `dir` without following anything.
pub(super) fn open_beneath(dir: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat2(dir, path, flags, Mode::empty(), RESOLVE)
}

impl Target {
    /// Opens the folder to restore into; makes it, for its owner only, if it is not there. One that is immutable or
    /// append-only is thawed, and one that its owner, who restores, may not look into or write to is opened up, until the
    /// target is dropped, or has its metadata.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub fn create_or_open(path: &Path) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(TARGET_MODE).create(path);
        made.map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            // What stands there is no folder, or what it would be in.
            let errno = if errno == Errno::EXIST { Errno::NOTDIR } else { errno };
            cannot_open(system_error("make the folder", path.display(), errno), errno)
        })?;
        let target = match Self::open(path) {
            Ok(target) => Self { opened_up: OpenedUp::to_change(&target.root), ..target },
            Err(error) => match OpenedUp::new(path) {
                Some(opened) => Self { opened_up: Some(opened), ..Self::open(path)? },
                None => return Err(error),
            },
        };
        // Of what is there already some may be as it should be.
        match target.denied_itself().filter(|_| target.was_empty) {
            Some(denied) => {
                let errno = if denied == Denied::Frozen { Errno::PERM } else { Errno::ACCESS };
                Err(cannot_open(system_error("write to the folder", path.display(), errno), errno))
            }
            None => Ok(target),
        }
    }

    /// What a folder looks like before it is opened, if it is there.
    #[must_use]
    pub fn looks_of(path: &Path) -> Option<Looks> {
        let status = stat(path).ok()?;
        Some(Looks { mode: status.st_mode & 0o7777, uid: status.st_uid, gid: status.st_gid })
    }

    /// Opens the folder to restore into.
    ///
    /// # Errors
    /// `NotFound` if it is not there; it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let cannot = |errno| cannot_open(system_error("open the folder", path.display(), errno), errno);
        let root = openat(CWD, path, flags, Mode::empty()).map_err(cannot)?;
        let was_empty = old::is_empty(root.as_fd()).map_err(cannot)?;
        Self::at(root, was_empty)
    }

    fn at(root: OwnedFd, was_empty: bool) -> Result<Self> {
        // Nothing is mounted in a folder that is empty: it is one file system.
        let names_at_once = was_empty && partial::keeps_modes(root.as_fd());
        let target = Self {
            root: Arc::new(root),
            was_empty,
            is_above: false,
            names_at_once,
            zeros: Zeros::default(),
            file_systems: Mutex::default(),
            trail: Mutex::default(),
            part: AtomicBool::default(),
            opened_up: None,
        };
        target.meet(&target.root)?;
        Ok(target)
    }

    /// A folder that [`Self::create_or_open`] would open up, as it is: as if nothing were in it, since nobody can look.
    /// `None` if it is no such folder.
    #[must_use]
    pub fn unseen(path: &Path) -> Option<Self> {
        let root =
            openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        if old::is_closed_to_us(root.as_fd()) { Self::at(root, true).ok() } else { None }
    }

    /// Makes holes of whole blocks of zeros, or not.
    #[must_use]
    pub fn with_zeros(self, zeros: Zeros) -> Self {
        Self { zeros, ..self }
    }

    /// The folder that [`Self::create_or_open`] would make a target in that is not there yet: the innermost on the way to it,
    /// which need not be one that the user may read. It is as if nothing were in it, since another one is meant.
    ///
    /// # Errors
    /// Nothing can be made there: a file or a link to nothing is in the way, or it cannot be reached.
    pub fn above(path: &Path) -> Result<Self> {
        let mut last = Errno::NOENT;
        for above in path.ancestors() {
            let above = if above == Path::new("") { Path::new(".") } else { above };
            match openat(CWD, above, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(root) => return Ok(Self { is_above: true, ..Self::at(root, true)? }),
                Err(Errno::NOENT) if lstat(above).is_err() => {}
                // A folder is made by the name of the link.
                Err(errno) => {
                    last = if errno == Errno::NOENT { Errno::NOTDIR } else { errno };
                    break;
                }
            }
        }
        Err(cannot_open(system_error("make the folder", path.display(), last), last))
    }

    /// Bytes that are free on its file system.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn free_bytes(&self) -> Result<u64> {
        let status = fstatvfs(&self.root).map_err(|errno| system_error("look at", "the target", errno))?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    /// Whether nothing can be written at `path`: its folder, or the last one on the way to it that is there, is on
    /// something that is mounted read-only, or in a read-only subvolume of btrfs, of which the mount says nothing.
    #[must_use]
    pub fn is_read_only(&self, path: &[u8]) -> bool {
        let is_mounted_so = |dir: BorrowedFd<'_>| {
            fstatvfs(dir).is_ok_and(|status| status.f_flag.contains(StatVfsMountFlags::RDONLY))
                || accessat(dir, c".", Access::WRITE_OK, AtFlags::EACCESS) == Err(Errno::ROFS)
        };
        let (_, last) = self.last_known(path);
        last.is_ok_and(|dir| is_mounted_so(dir.as_fd()))
    }

    /// The folder, among that at `path` and those on the way to it, in which the user may write nothing, so that nothing
    /// can be made at `path`, and why. One of their own would be opened up, and a frozen one that it `thaws` be thawed by
    /// who may, but for that in which a target would be made.
    #[must_use]
    pub fn denied<'p>(&self, path: &'p [u8], thaws: &dyn Fn(&[u8]) -> bool) -> Option<(&'p [u8], Denied)> {
        match self.last_known(path) {
            (folder, Ok(dir)) if self.is_above => Some((folder, denied_as_it_is(dir.as_fd())?)),
            (folder, Ok(dir)) => Some((folder, denied(dir.as_fd(), thaws(folder))?)),
            (folder, Err(Errno::ACCESS)) => Some((folder, Denied::Rights)),
            (_, Err(_)) => None,
        }
    }

    /// As [`Self::denied`], of the target itself, in which nothing is: it is thawed by who may.
    #[must_use]
    pub fn denied_itself(&self) -> Option<Denied> {
        let keeps_names =
            || (!self.is_above && keeps_names(self.root.as_fd(), true)).then_some(Denied::Frozen);
        self.denied(b"", &|_| true).map(|(_, denied)| denied).or_else(keeps_names)
    }

    /// Whether the folder at `path` is there and no name in it can be changed, since it is immutable or append-only: one that
    /// somebody `thaws` is thawed by who may.
    #[must_use]
    pub fn keeps_names(&self, path: &[u8], thaws: bool) -> bool {
        let dir = self.existing_directory(path).ok().flatten();
        dir.is_some_and(|dir| keeps_names(dir.as_fd(), thaws))
    }

    /// Why the user may not give the name of what is at `path` to something else, if so; `thaws` as in [`Self::keeps_names`].
    #[must_use]
    pub fn denied_to_replace(&self, path: &[u8], thaws: bool) -> Option<Denied> {
        let (folder, name) = split(path);
        let dir = self.existing_directory(folder).ok()??;
        let status = capture::status(dir.as_fd(), &component(name).ok()?).ok()?;
        denied_name(dir.as_fd(), &old::Found::of(&status)?, thaws)
    }

    /// What the folder itself is, if it is there.
    #[must_use]
    pub fn found(&self) -> Option<old::Found> {
        let status = capture::status(self.root.as_fd(), c"").ok().filter(|_| !self.is_above)?;
        old::Found::of(&status)
    }

    /// The last folder that is there on the way to `path`, or why it cannot be opened.
    fn last_known<'p>(&self, path: &'p [u8]) -> (&'p [u8], rustix::io::Result<Folder>) {
        let mut folder = path;
        while !folder.is_empty() {
            match self.known(folder) {
                Err(errno) if errno != Errno::ACCESS => folder = split(folder).0,
                other => return (folder, other.map(Arc::new)),
            }
        }
        (folder, Ok(Arc::clone(&self.root)))
    }

    /// Whether nothing was in it when it was opened.
    #[must_use]
    pub const fn was_empty(&self) -> bool {
        self.was_empty
    }

    /// Notes on which file system a folder is.
    pub(super) fn meet(&self, dir: &Folder) -> Result<()> {
        let status = fstat(dir).map_err(|errno| system_error("look at", "a folder", errno))?;
        let mut met = self.file_systems.lock().unwrap_or_else(PoisonError::into_inner);
        met.entry(status.st_dev).or_insert_with(|| Arc::clone(dir));
        Ok(())
    }

    /// A handle of the folder at `path`, made with all above it if it is not there (for the owner
    /// only until [`Self::set_directory_metadata`]). The empty path is the target itself.
    ///
    /// # Errors
    /// The path is not a proper relative one, or something in it is not a folder: a link is refused.
    pub fn directory(&self, path: &[u8]) -> Result<Arc<OwnedFd>> {
        check(path)?;
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        let dir = match self.known(path) {
            Ok(dir) => dir,
            Err(known) => self.made(path).map_err(|errno| self.cannot_make(path, errno, known))?,
        };
        let dir = Arc::new(dir);
        self.meet(&dir)?;
        Ok(dir)
    }

    /// Opens a folder that is there.
    pub(super) fn known(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        if !trail::is_long(path) {
            return trail::open(self.root.as_fd(), path, DIRECTORY);
        }
        let mut trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        trail.open(self.root.as_fd(), path, DIRECTORY)
    }

    /// Why there is no folder at `path`, and none could be made.
    fn cannot_make(&self, path: &[u8], errno: Errno, known: Errno) -> Error {
        match self.last_known(path) {
            (_, Ok(dir)) if errno == Errno::PERM && keeps_names(dir.as_fd(), false) => {
                frozen_folder(shown_in(dir.as_fd(), c""))
            }
            _ => not_a_folder(path, errno, known),
        }
    }

    /// Makes a folder, and those above it that are not there.
    fn made(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let named = |name: &[u8]| CString::new(name).map_err(|_nul: std::ffi::NulError| Errno::INVAL);
        // Usually only the last one is missing, and the path may have thousands.
        let (above, last) = split(path);
        if let Ok(above) = self.known(above) {
            return enter(above.as_fd(), &named(last)?);
        }
        let mut dir = None;
        for name in path.split(|byte| *byte == b'/') {
            let from = dir.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd);
            dir = Some(enter(from, &named(name)?)?);
        }
        dir.ok_or(Errno::NOENT)
    }

    /// The folder of `path` and the name in it.
    fn place(&self, path: &[u8]) -> Result<(Arc<OwnedFd>, CString)> {
        let (folder, name) = split(path);
        let name = component(name)?;
        Ok((self.directory(folder)?, name))
    }

    /// Opens the regular file at `path` for reading, if there is one; follows no link.
    ///
    /// # Errors
    /// The path is not a proper relative one, or the file cannot be opened.
    pub fn open_existing(&self, path: &[u8]) -> Result<Option<File>> {
        check(path)?;
        let (folder, name) = split(path);
        let name = component(name)?;
        let above = match folder {
            b"" => Ok(None),
            folder => self.known(folder).map(Some),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let opened = above.and_then(|above| {
            open_beneath(above.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd), &name, flags)
        });
        let fd = match opened {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(errno) => return Err(system_error("open", shown(path), errno)),
        };
        let status =
            capture::status(fd.as_fd(), c"").map_err(|errno| system_error("look at", shown(path), errno))?;
        Ok((capture::kind(&status) == Some(EntryKind::File)).then(|| File::from(fd)))
    }

    /// Begins a file of `size` bytes named `name` in a folder from [`Self::directory`]. Until it is finished it has a
    /// temporary name there, or the mode of a file that is only begun; dropped, it is gone.
    ///
    /// # Errors
    /// The name is not a proper one, or the file cannot be made.
    pub fn new_file(&self, dir: &Arc<OwnedFd>, name: &[u8], size: u64) -> Result<NewFile> {
        let name = component(name)?;
        let failed = |errno| system_error("make the file", shown_in(dir.as_fd(), &name), errno);
        if self.names_at_once {
            match partial::begin(dir.as_fd(), &name) {
                Ok(fd) => {
                    let pending =
                        Pending::named(Arc::clone(dir), name.clone(), fd.as_fd()).map_err(failed)?;
                    return Ok(self.writing(fd, name, size, pending));
                }
                // The file system takes two names of the snapshot for one: that is told when it is to get its own.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        let pending = Pending::new(Arc::clone(dir))?;
        let fd = partial::create(dir.as_fd(), &pending.current).map_err(failed)?;
        Ok(self.writing(fd, name, size, pending))
    }

    /// As [`Self::new_file`], for one that takes long: what there is of it stays under a name that the next
    /// restore finds, whatever ends this one. If another restore has that name it is as with any other file.
    ///
    /// # Errors
    /// As [`Self::new_file`].
    pub fn new_large_file(&self, dir: &Arc<OwnedFd>, name: &[u8], size: u64) -> Result<NewFile> {
        let own = component(name)?;
        may_grow_to(size)
            .map_err(|errno| system_error("make the file", shown_in(dir.as_fd(), &own), errno))?;
        check_names(dir.as_fd())?;
        let temporary = partial::unfinished_name(&own)?;
        match partial::create(dir.as_fd(), &temporary) {
            Ok(fd) => {
                partial::claim(fd.as_fd());
                let pending = Pending::unfinished(Arc::clone(dir), temporary);
                Ok(NewFile { lasts: true, ..self.writing(fd, own, size, pending) })
            }
            Err(Errno::EXIST) => self.new_file(dir, name, size),
            Err(errno) => Err(system_error("make the file", shown_in(dir.as_fd(), &own), errno)),
        }
    }

    fn writing(&self, fd: OwnedFd, name: CString, size: u64, pending: Pending) -> NewFile {
        let (written, layout) = (AtomicU64::new(0), Layout::default());
        NewFile {
            fd,
            name,
            size,
            content: size,
            layout,
            written,
            pending,
            zeros: self.zeros,
            rewritten: false,
            lasts: false,
        }
    }

    /// Goes on with a file that has bytes already, under the name of one that is not finished.
    pub(super) fn rewriting(
        &self,
        fd: OwnedFd,
        name: CString,
        size: u64,
        (dir, current): (Folder, CString),
    ) -> NewFile {
        let pending = Pending::lasting(dir, current);
        NewFile { rewritten: true, lasts: true, ..self.writing(fd, name, size, pending) }
    }

    /// Sets the metadata of a file whose content stays as it is.
    ///
    /// # Errors
    /// Another file has its name by now.
    pub fn keep_file(
        &self,
        old: &old::Found,
        path: &[u8],
        metadata: &Metadata,
        ownership: &Ownership,
    ) -> Result<Notes> {
        let file = old.open_again(self, path)?;
        let mut notes = set_metadata(&Handle::Open(file.as_fd()), metadata, ownership);
        // One with further names that is to be frozen is so when it has them.
        if metadata.links < 2 || !is_frozen(metadata) {
            freeze_as(file.as_fd(), metadata, &mut notes);
        }
        Ok(notes)
    }

    /// Makes the symbolic link that `metadata` describes.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn symlink<'m>(
        &self,
        path: &[u8],
        metadata: &'m Metadata,
        ownership: &Ownership,
    ) -> Result<Made<'m>> {
        let (dir, name) = self.place(path)?;
        let pending = Pending::new(dir)?;
        symlinkat(metadata.link_target.as_slice(), &pending.dir, &pending.current)
            .map_err(|errno| system_error("make the link", shown(path), errno))?;
        let fd = pending.handle().map_err(|errno| system_error("look at", shown(path), errno))?;
        let notes = set_metadata(&Handle::Named(fd.as_fd()), metadata, ownership);
        Ok(Made { pending, name, notes, what: What::Other })
    }

    /// Gives the restored file `existing` a second name, `path`.
    ///
    /// # Errors
    /// `existing` is not there.
    pub fn hard_link(&self, existing: &[u8], path: &[u8]) -> Result<Made<'static>> {
        let (from_folder, from_name) = split(existing);
        let from_name = component(from_name)?;
        let from = self.directory(from_folder)?;
        let (dir, name) = self.place(path)?;
        let pending = Pending::new(dir)?;
        let link = || linkat(&from, &from_name, &pending.dir, &pending.current, AtFlags::empty());
        let (linked, is_frozen) = match link() {
            // It has other names already, for which it stays frozen.
            Err(Errno::PERM) => {
                let thawed = partial::thaw_for_now(from.as_fd(), &from_name);
                (if thawed.is_some() { link() } else { Err(Errno::PERM) }, thawed.is_some())
            }
            other => (other, false),
        };
        linked.map_err(|errno| system_error("link to", shown(existing), errno))?;
        Ok(Made { pending, name, notes: Notes::new(), what: What::Name { is_frozen } })
    }

    /// Whether the user may make it, as far as that is known before.
    ///
    /// # Errors
    /// It is a device, and this process may make none.
    pub fn may_make(path: &[u8], metadata: &Metadata) -> Result<()> {
        let is_device = matches!(metadata.kind, EntryKind::CharacterDevice | EntryKind::BlockDevice);
        // Everybody may make the one that stands for nothing.
        if is_device && metadata.device_number != 0 && !rights::may_make_devices() {
            return Err(system_error("make the special file", shown(path), Errno::PERM));
        }
        Ok(())
    }

    /// Makes a named pipe or a device.
    ///
    /// # Errors
    /// It cannot be made (devices need root), or it is another kind of entry.
    pub fn special<'m>(
        &self,
        path: &[u8],
        metadata: &'m Metadata,
        ownership: &Ownership,
    ) -> Result<Made<'m>> {
        let kind = match metadata.kind {
            EntryKind::Fifo => FileType::Fifo,
            EntryKind::CharacterDevice => FileType::CharacterDevice,
            EntryKind::BlockDevice => FileType::BlockDevice,
            EntryKind::Socket | EntryKind::File | EntryKind::Directory | EntryKind::Symlink => {
                return Err(Error::new(ErrorKind::Failed, format!("{} is no special file", shown(path))));
            }
        };
        let number = |half: u64| u32::try_from(half & u64::from(u32::MAX)).unwrap_or(0);
        let device = makedev(number(metadata.device_number >> 32), number(metadata.device_number));
        let failed = |errno| system_error("make the special file", shown(path), errno);
        let (dir, name) = self.place(path)?;
        let pending = Pending::new(dir)?;
        mknodat(&pending.dir, &pending.current, kind, Mode::RUSR | Mode::WUSR, device).map_err(failed)?;
        let fd = pending.handle().map_err(failed)?;
        let notes = set_metadata(&Handle::Named(fd.as_fd()), metadata, ownership);
        Ok(Made { pending, name, notes, what: What::Other })
    }

    /// Sets the metadata of a folder: after everything in it is done, since that changes its time. One that only holds the
    /// place of a mount is left alone if something is mounted there.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn set_directory_metadata(
        &self,
        path: &[u8],
        metadata: &Metadata,
        ownership: &Ownership,
    ) -> Result<Notes> {
        let dir = self.directory(path)?;
        let is_mounted = || capture::status(dir.as_fd(), c"").is_ok_and(|status| is_mounted_on(&status));
        if metadata.only_holds_a_place() && is_mounted() {
            // What is mounted there is none of the snapshot's.
            return Ok(Notes::new());
        }
        if let Some(opened) = self.opened_up_at(path) {
            opened.keep_mode();
            opened.keep_flags();
        }
        let mut notes = set_metadata(&Handle::Open(dir.as_fd()), metadata, ownership);
        freeze_as(dir.as_fd(), metadata, &mut notes);
        Ok(notes)
    }

    /// What a folder was like that is about to get its mode, if it is a target that was opened up.
    fn opened_up_at(&self, path: &[u8]) -> Option<&OpenedUp> {
        self.opened_up.as_ref().filter(|_| path.is_empty())
    }

    /// Makes the file that was found at `path` immutable or append-only if it was, and lets it be neither if it was not: after
    /// it has got all its names.
    ///
    /// # Errors
    /// It cannot be opened, has that name no more, or has got others.
    pub fn freeze(&self, found: &old::Found, path: &[u8], metadata: &Metadata) -> Result<Notes> {
        let mut notes = Notes::new();
        let file = found.open_as_it_is(self, path)?;
        freeze_as(file.as_fd(), metadata, &mut notes);
        Ok(notes)
    }

    /// As [`Self::set_directory_metadata`], without its times and flags.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn set_directory_owner_and_mode(
        &self,
        path: &[u8],
        metadata: &Metadata,
        ownership: &Ownership,
    ) -> Result<Notes> {
        let dir = self.directory(path)?;
        self.opened_up_at(path).into_iter().for_each(OpenedUp::keep_mode);
        Ok(set_owner_and_mode(&Handle::Open(dir.as_fd()), metadata, ownership))
    }

    /// Waits until everything is on the disk, on each file system that was written to.
    ///
    /// # Errors
    /// The disk says that it is not.
    pub fn sync(&self) -> Result<()> {
        // Whoever restores meanwhile may meet another file system.
        let met: Vec<Folder> =
            self.file_systems.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        met.iter().try_for_each(|dir| {
            syncfs(dir).map_err(|errno| system_error("bring to the disk", "the restored files", errno))
        })
    }
}

/// What was restored and is whole, under a temporary name: as long as it is not placed, whatever has its own stays.
#[must_use = "it has no name yet"]
#[derive(Debug)]
pub struct Made<'m> {
    pending: Pending,
    /// The name that it is to have.
    name: CString,
    /// What is to be said of it.
    notes: Notes,
    what: What<'m>,
}

/// What was made.
#[derive(Debug)]
enum What<'m> {
    File(OwnedFd, &'m Metadata),
    /// A further name of a file.
    Name {
        /// It is frozen, and is thawed for the moment in which it gets the name: what has to go before may take long.
        is_frozen: bool,
    },
    /// A link, a pipe, a device.
    Other,
}

impl Made<'_> {
    /// Brings it to the disk, so that what is in its place may go.
    ///
    /// # Errors
    /// The disk says that it is not.
    pub fn sync(&self) -> Result<()> {
        let content = if let What::File(fd, _) = &self.what { fsync(fd) } else { Ok(()) };
        content.and_then(|()| partial::sync_names(self.pending.dir.as_fd())).map_err(|errno| {
            system_error("bring to the disk", shown_in(self.pending.dir.as_fd(), &self.name), errno)
        })
    }

    /// Gives it its name, replacing a file, a link or an empty folder, and freezes it if it is to be frozen: a frozen
    /// file can get no name.
    ///
    /// # Errors
    /// A folder that is not empty has its name.
    pub fn place(mut self) -> Result<Notes> {
        let _thawed = self.thawed();
        self.pending.place(&self.name)?;
        if matches!(self.what, What::Name { .. }) {
            // Renaming one name of a file onto another of the same file does nothing, by POSIX.
            match unlinkat(&self.pending.dir, &self.pending.current, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    let name = shown_in(self.pending.dir.as_fd(), &self.pending.current);
                    return Err(system_error("remove", name, errno));
                }
            }
        }
        Ok(self.placed())
    }

    /// As [`Self::place`], where nothing had its name.
    ///
    /// # Errors
    /// Something has it by now: it is somebody else's, or this file system takes the name for another one.
    pub fn place_new(mut self) -> Result<Notes> {
        let _thawed = self.thawed();
        if !self.pending.place_new(&self.name)? {
            return Err(spelling::taken(self.pending.dir.as_fd(), &self.name));
        }
        Ok(self.placed())
    }

    /// As [`Self::place`], where what was found gives way, and nothing that has come since.
    ///
    /// # Errors
    /// It was replaced or written to.
    pub fn place_over(mut self, found: &old::Found) -> Result<Notes> {
        let shown = shown_in(self.pending.dir.as_fd(), &self.name);
        let is_still_there = match capture::status(self.pending.dir.as_fd(), &self.name) {
            Ok(status) if old::Found::of(&status).is_some_and(|now| now.is_unchanged(found)) => true,
            Ok(_) => {
                return Err(partial::meanwhile(format!("{shown} was replaced, or written to, meanwhile")));
            }
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(system_error("look at", shown, errno)),
        };
        if is_still_there {
            return self.place();
        }
        // A file that is changed where it is has lost its name for that.
        let _thawed = self.thawed();
        if self.pending.place_new(&self.name)? {
            Ok(self.placed())
        } else {
            Err(partial::meanwhile(format!("{shown} was made by somebody else meanwhile, and stays")))
        }
    }

    /// Lets a frozen file have one more name, until what this gives is dropped.
    fn thawed(&self) -> Option<Thawed> {
        match self.what {
            What::Name { is_frozen: true } => {
                partial::thaw_for_now(self.pending.dir.as_fd(), &self.pending.current)
            }
            _ => None,
        }
    }

    fn placed(mut self) -> Notes {
        if let What::File(fd, metadata) = self.what {
            freeze_alone(fd.as_fd(), metadata, &mut self.notes);
        }
        self.notes
    }
}

/// Freezes a file of one name. One with further names is frozen when it has them.
fn freeze_alone(fd: BorrowedFd<'_>, metadata: &Metadata, notes: &mut Notes) {
    if metadata.links < 2 {
        freeze(fd, metadata, notes);
    }
}

/// Opens the folder `name` in `dir`, made if it is not there.
fn enter(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    match open_beneath(dir, name, DIRECTORY) {
        Err(Errno::NOENT) => match mkdirat(dir, name, Mode::RWXU) {
            Ok(()) => {
                // The mask of the process, or the default ACL of the folder, may have kept its owner out.
                let made = open_beneath(dir, name, DIRECTORY.union(OFlags::PATH))?;
                let mode = u32::from(capture::status(made.as_fd(), c"")?.stx_mode) & 0o7777;
                if mode & TARGET_MODE != TARGET_MODE {
                    old::set_mode(made.as_fd(), mode | TARGET_MODE)?;
                }
                open_beneath(dir, name, DIRECTORY)
            }
            Err(Errno::EXIST) => open_beneath(dir, name, DIRECTORY),
            Err(errno) => Err(errno),
        },
        other => other,
    }
}

/// What can be done about a target in which nobody may make anything.
pub const IMMUTABLE: &str = "It, or the folder that it would be made in, is immutable or append-only: let root run `chattr -i -a` on that, or choose another target";

/// What can be done about a target that cannot be opened or made.
fn cannot_open(error: Error, errno: Errno) -> Error {
    match errno {
        Errno::NOTDIR | Errno::LOOP => {
            error.with_remedy("A file or a link to nothing stands there: name a folder, or a new name")
        }
        Errno::ACCESS => error.with_remedy("Restore as a user who may write there, or into another target"),
        Errno::PERM => error.with_remedy(IMMUTABLE),
        Errno::NOENT => error.with_remedy("Check the path: nothing has this name"),
        _ => error,
    }
}

/// Whether this process may write a file of so many bytes: asked before one that is there loses its name for it, or something
/// is left that nobody finishes.
pub(super) fn may_grow_to(size: u64) -> rustix::io::Result<()> {
    let limit = getrlimit(Resource::Fsize).current;
    if limit.is_some_and(|limit| limit < size) { Err(Errno::FBIG) } else { Ok(()) }
}

/// The error of a folder that cannot be opened, as it was `known`, nor made.
fn not_a_folder(path: &[u8], errno: Errno, known: Errno) -> Error {
    let what = if known == Errno::NOENT { "make the folder" } else { "open the folder" };
    let error = system_error(what, shown(path), errno);
    match errno {
        Errno::LOOP | Errno::NOTDIR => error.with_remedy(
            "A link or a file stands where the snapshot has a folder: move it away, or restore into another target",
        ),
        _ => error,
    }
}

/// A file that is being restored, under a temporary name or with the mode of one that is begun.
#[derive(Debug)]
pub struct NewFile {
    fd: OwnedFd,
    name: CString,
    size: u64,
    /// Bytes that are in no hole.
    content: u64,
    layout: Layout,
    /// Where what was written ends.
    written: AtomicU64,
    pending: Pending,
    zeros: Zeros,
    /// It had bytes before: what is not written is not zeros, and it may be too long.
    rewritten: bool,
    /// Its name until then is one that others may know.
    lasts: bool,
}

impl NewFile {
    /// Its whole path, for people.
    fn shown(&self) -> String {
        shown_in(self.pending.dir.as_fd(), &self.name)
    }

    /// With the holes of `metadata`, and with those flags that say how what is written later is stored.
    #[must_use]
    pub fn shaped(mut self, metadata: &Metadata) -> Self {
        (self.content, self.layout) = (metadata.content_bytes(), Layout::new(&metadata.holes));
        if !self.rewritten && (!metadata.holes.is_empty() || self.zeros == Zeros::Holes) {
            // XFS gives more than is written to a file that grows, and holes would begin late. What fails here fails
            // again at the end, and is told.
            match ftruncate(&self.fd, self.size) {
                Ok(()) | Err(_) => {}
            }
        }
        let wanted = metadata.flags & STORING_FLAGS;
        if wanted != 0 {
            // They are set again at the end: what cannot be set is noted then.
            drop(attributes::set_flags(self.fd.as_fd(), wanted, wanted));
        }
        self
    }

    /// Writes bytes of the content that begin at `offset` in it (holes do not count), from any thread. What is never
    /// written is a hole of zeros; of a file that had bytes before it stays as it is.
    ///
    /// # Errors
    /// They cannot be written, or do not fit into the size of the file.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let end = offset.checked_add(length).filter(|end| *end <= self.content);
        let end = end.ok_or_else(|| Error::damaged(self.shown(), "its content is longer than its size"))?;
        let mut rest = bytes;
        for place in self.layout.places(offset..end) {
            let length = usize::try_from(place.end - place.start).unwrap_or(usize::MAX);
            let (part, after) = rest.split_at(length.min(rest.len()));
            self.write_part(place.start, part)?;
            rest = after;
        }
        Ok(())
    }

    fn write_part(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self.zeros {
            Zeros::Write => self.write_all(offset, bytes),
            Zeros::Holes => zeros::runs(offset, bytes).try_for_each(|run| match run {
                zeros::Run::Bytes(offset, bytes) => self.write_all(offset, bytes),
                zeros::Run::Zeros(range) => self.leave_empty(range),
            }),
        }
    }

    /// Makes sure that there are zeros, without taking space for them.
    fn leave_empty(&self, range: Range<u64>) -> Result<()> {
        if !self.rewritten || zeros::punch(self.fd.as_fd(), &range) {
            return Ok(());
        }
        zeros::blocks(&range).try_for_each(|(offset, bytes)| self.write_all(offset, bytes))
    }

    /// Makes holes where the file that it was, of so many bytes, had something.
    pub(super) fn emptied(self, holes: &[Hole], size: u64) -> Result<Self> {
        let failed = |error: std::io::Error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            system_error("look at", self.shown(), errno)
        };
        for hole in holes.iter().take_while(|hole| hole.offset < size) {
            let range = hole.offset..hole.offset.saturating_add(hole.length).min(size);
            if zeros::punch(self.fd.as_fd(), &range) {
                continue;
            }
            // Without holes only what is not zeros is written: there may be much of it.
            let file = File::from(self.fd.try_clone().map_err(failed)?);
            let mut scan = holes::Scan::new(&file, *hole);
            while let Some(piece) = scan.piece().map_err(failed)? {
                if !piece.is_zeros {
                    self.leave_empty(piece.range)?;
                }
            }
        }
        Ok(self)
    }

    fn write_all(&self, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.written.fetch_max(offset.saturating_add(length), Ordering::Relaxed);
        while !bytes.is_empty() {
            match pwrite(&self.fd, bytes, offset) {
                Ok(0) => return Err(system_error("write", self.shown(), Errno::IO)),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    offset += u64::try_from(written).unwrap_or(0);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(system_error("write", self.shown(), errno)),
            }
        }
        Ok(())
    }

    /// Sets the metadata of a file that has all its bytes.
    ///
    /// # Errors
    /// It cannot be brought to its size or to the disk, or another file has its temporary name by now.
    pub fn finish<'m>(self, metadata: &'m Metadata, ownership: &Ownership) -> Result<Made<'m>> {
        self.extend()?;
        self.settle()?;
        let notes = set_metadata(&Handle::Open(self.fd.as_fd()), metadata, ownership);
        self.check()?;
        let Self { fd, name, pending, .. } = self;
        Ok(Made { pending, name, notes, what: What::File(fd, metadata) })
    }

    /// Checks that what gets its name is this file, if others may know the name that it has until then.
    fn check(&self) -> Result<()> {
        if self.lasts { self.pending.check(self.fd.as_fd()) } else { Ok(()) }
    }

    /// Gives the file its size, where nothing was written at its end.
    fn extend(&self) -> Result<()> {
        if !self.rewritten && self.written.load(Ordering::Relaxed) >= self.size {
            return Ok(());
        }
        ftruncate(&self.fd, self.size).map_err(|errno| system_error("make room for", self.shown(), errno))
    }

    /// Brings to the disk what was written over older bytes, before the name says that it is whole: file systems
    /// order a new name behind new bytes, and not behind bytes that replace others.
    fn settle(&self) -> Result<()> {
        if !self.rewritten {
            return Ok(());
        }
        fdatasync(&self.fd).map_err(|errno| system_error("bring to the disk", self.shown(), errno))
    }

    /// Names the file `NAME.damaged`, readable for its owner only, and writes the ranges of bytes
    /// that are missing, which are given as those of its content, to `NAME.damaged.txt`. Neither replaces anything. Returns the name.
    ///
    /// # Errors
    /// Neither can be written.
    pub fn finish_damaged(mut self, bad: &[Range<u64>]) -> Result<Vec<u8>> {
        self.extend()?;
        let bad: Vec<Range<u64>> = bad.iter().flat_map(|range| self.layout.places(range.clone())).collect();
        if self.rewritten {
            // What was there before is no more what the snapshot has than zeros are, but looks like it.
            bad.iter().try_for_each(|range| self.leave_empty(range.start..range.end.min(self.size)))?;
            self.close()?;
        }
        self.pending.check(self.fd.as_fd())?;
        for number in 1..=DAMAGED_TRIES {
            let suffix = if number == 1 { ".damaged".into() } else { format!(".damaged-{number}") };
            let name = with_suffix(self.name.to_bytes(), &suffix, ".txt".len());
            let list = [&name[..], b".txt"].concat();
            let (name, list) = (component(&name)?, component(&list)?);
            // The list first: a damaged file never stands there without it.
            let mut pending = self.list_damage(&bad)?;
            if !pending.place_new(&list)? {
                continue;
            }
            match self.pending.place_new(&name) {
                Ok(true) => {
                    // Not before: under its own name the mode of one that is begun says that it is not whole.
                    self.close()?;
                    return Ok(name.into_bytes());
                }
                other => {
                    unlinkat(&self.pending.dir, &list, AtFlags::empty()).map_err(|errno| {
                        system_error("remove", shown_in(self.pending.dir.as_fd(), &list), errno)
                    })?;
                    other?;
                }
            }
        }
        let message = format!("too many damaged copies of {} are there already", self.shown());
        Err(Error::new(ErrorKind::Failed, message).with_remedy("Remove the files named .damaged"))
    }

    /// Lets nobody but its owner read it.
    fn close(&self) -> Result<()> {
        fchmod(&self.fd, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| system_error("close to others", self.shown(), errno))
    }

    /// The list of what is damaged, under a temporary name.
    fn list_damage(&self, bad: &[Range<u64>]) -> Result<Pending> {
        let pending = Pending::new(Arc::clone(&self.pending.dir))?;
        let fd = partial::create(pending.dir.as_fd(), &pending.current).map_err(|errno| {
            system_error("make the file", shown_in(pending.dir.as_fd(), &pending.current), errno)
        })?;
        let name = self.name.to_bytes();
        File::from(fd).write_all(damage_text(name, bad).as_bytes()).map_err(|error| {
            Error::new(ErrorKind::Failed, format!("cannot list the damage of {}", self.shown()))
                .with_source(error)
        })?;
        Ok(pending)
    }
}

/// The text that goes beside a damaged file.
fn damage_text(name: &[u8], bad: &[Range<u64>]) -> String {
    let mut text = format!(
        "{} could not be restored in full: these bytes are damaged in the repository,\n\
         and the copy beside this list holds zeros in their place (first-last, counted from 0):\n",
        shown(name)
    );
    for range in bad.iter().filter(|range| !range.is_empty()) {
        text.push_str(&format!("{}-{}\n", range.start, range.end - 1));
    }
    text
}

/// `name` with a suffix, shortened so that `spare` more bytes fit.
fn with_suffix(name: &[u8], suffix: &str, spare: usize) -> Vec<u8> {
    let mut length = name.len().min(NAME_BYTES_MAX - suffix.len() - spare);
    if length < name.len() {
        // Not in the middle of a character, where the name is UTF-8.
        while length > 1 && name.get(length).is_some_and(|byte| byte & 0xc0 == 0x80) {
            length -= 1;
        }
    }
    [name.get(..length).unwrap_or(name), suffix.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{FileTypeExt, MetadataExt, symlink},
    };

    use super::*;
    use crate::filesystem::names::{OwnershipPolicy, tests::metadata};
    use crate::{
        format::entry::{FREEZING_FLAGS, Hole},
        skip::skip,
    };

    fn target() -> (tempfile::TempDir, Target) {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::create_or_open(&folder.path().join("t/target")).unwrap();
        (folder, target)
    }

    fn keep() -> Ownership {
        Ownership::new(OwnershipPolicy::Keep)
    }

    fn put(target: &Target, folder: &[u8], name: &[u8], bytes: &[u8]) -> Result<Notes> {
        let dir = target.directory(folder)?;
        let file = target.new_file(&dir, name, u64::try_from(bytes.len()).unwrap())?;
        file.write_at(0, bytes)?;
        file.finish(&metadata(EntryKind::File), &keep())?.place()
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_comes_back_with_its_metadata() {
        let (folder, target) = target();
        let dir = target.directory(b"srv/data").unwrap();
        let file = target.new_file(&dir, b"f", 10).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| file.write_at(5, b"world").unwrap());
            scope.spawn(|| file.write_at(0, b"hello").unwrap());
        });
        let captured = metadata(EntryKind::File);
        let made = file.finish(&captured, &Ownership::new(OwnershipPolicy::Numeric)).unwrap();
        let notes = made.place().unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        let path = folder.path().join("t/target/srv/data/f");
        assert_eq!(fs::read(&path).unwrap(), b"helloworld");
        let status = fs::metadata(&path).unwrap();
        assert_eq!(
            (status.mode() & 0o7777, status.mtime(), status.mtime_nsec()),
            (0o640, 1_000_000_000, 123_456_789)
        );
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(names(path.parent().unwrap()), ["f"]);
        target.sync().unwrap();
    }

    #[test]
    fn bytes_beyond_the_size_are_refused() {
        let (_folder, target) = target();
        let file = target.new_file(&target.directory(b"").unwrap(), b"f", 3).unwrap();
        assert_eq!(file.write_at(1, b"abc").unwrap_err().kind(), ErrorKind::Damaged);
        assert!(file.write_at(u64::MAX, b"a").is_err());
    }

    #[test]
    fn an_unfinished_file_leaves_nothing_behind() {
        let (folder, target) = target();
        drop(target.new_file(&target.directory(b"").unwrap(), b"f", 3).unwrap());
        assert!(names(&folder.path().join("t/target")).is_empty());
    }

    #[test]
    fn a_small_file_in_an_empty_target_has_its_name_and_a_mode_that_says_that_it_is_begun() {
        let (folder, target) = target();
        let path = folder.path().join("t/target");
        assert!(target.names_at_once, "the folder of the tests is on a file system that keeps modes");
        let file = target.new_file(&target.directory(b"").unwrap(), b"f", 3).unwrap();
        file.write_at(0, b"abc").unwrap();
        assert_eq!(names(&path), ["f"]);
        let mode = || fs::metadata(path.join("f")).unwrap().mode() & 0o7777;
        assert_eq!(mode(), 0o1600);
        file.finish(&metadata(EntryKind::File), &keep()).unwrap().place().unwrap();
        assert_eq!((mode(), fs::read(path.join("f")).unwrap()), (0o640, b"abc".to_vec()));
        // Where something was, a name says whole.
        let again = Target::open(&path).unwrap();
        let file = again.new_file(&again.directory(b"").unwrap(), b"g", 3).unwrap();
        assert!(!path.join("g").try_exists().unwrap() && names(&path).len() == 2);
        drop(file);
        assert_eq!(names(&path), ["f"]);
    }

    #[test]
    fn what_another_restore_has_put_in_the_place_of_a_begun_file_stays() {
        let (folder, target) = target();
        let path = folder.path().join("t/target");
        let begin = || target.new_file(&target.directory(b"").unwrap(), b"f", 3).unwrap();
        let file = begin();
        let another = || {
            File::create(path.join("theirs")).unwrap().write_all(b"whole").unwrap();
            fs::rename(path.join("theirs"), path.join("f")).unwrap();
        };
        another();
        drop(file);
        assert_eq!(fs::read(path.join("f")).unwrap(), b"whole");
        fs::remove_file(path.join("f")).unwrap();
        let file = begin();
        another();
        assert!(file.finish_damaged(&[]).is_err());
        assert_eq!(
            (names(&path), fs::read(path.join("f")).unwrap()),
            (vec!["f".to_owned()], b"whole".to_vec())
        );
    }

    #[test]
    fn improper_paths_are_refused() {
        let (folder, target) = target();
        for path in ["/etc", "..", "a/../../b", "a//b", "a/", ".", "a/./b", "a\0b"] {
            let error = target.directory(path.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{path:?}");
        }
        let dir = target.directory(b"").unwrap();
        for name in ["", ".", "..", "a/b", "../x", "a\0"] {
            assert!(target.new_file(&dir, name.as_bytes(), 0).is_err(), "{name:?}");
        }
        let link = metadata(EntryKind::Symlink);
        assert!(target.symlink(b"../x", &link, &keep()).is_err());
        assert!(target.hard_link(b"../x", b"y").is_err());
        assert!(target.open_existing(b"../x").is_err());
        assert_eq!(names(folder.path()), ["t"]);
        assert_eq!(names(&folder.path().join("t")), ["target"]);
    }

    #[test]
    fn a_planted_link_leads_nowhere() {
        let (folder, target) = target();
        let outside = folder.path().join("outside");
        fs::create_dir_all(outside.join("deep")).unwrap();
        File::create(outside.join("file")).unwrap();
        let inside = folder.path().join("t/target");
        symlink(&outside, inside.join("absolute")).unwrap();
        symlink("../../outside", inside.join("relative")).unwrap();
        symlink(".", inside.join("self")).unwrap();
        for path in ["absolute", "relative", "self", "absolute/deep", "relative/deep", "self/new"] {
            assert!(put(&target, path.as_bytes(), b"x", b"evil").is_err(), "{path}");
            assert!(
                target
                    .set_directory_metadata(path.as_bytes(), &metadata(EntryKind::Directory), &keep())
                    .is_err()
            );
            let file = [path.as_bytes(), b"/file"].concat();
            assert!(target.open_existing(&file).unwrap().is_none());
            assert!(target.hard_link(&file, b"stolen").is_err());
        }
        assert_eq!(names(&outside), ["deep", "file"]);
        assert!(names(&outside.join("deep")).is_empty());
    }

    #[test]
    fn a_file_replaces_a_link_and_not_what_the_link_points_to() {
        let (folder, target) = target();
        let outside = folder.path().join("outside");
        File::create(&outside).unwrap();
        let path = folder.path().join("t/target/f");
        symlink(&outside, &path).unwrap();
        assert!(target.open_existing(b"f").unwrap().is_none());
        put(&target, b"", b"f", b"new").unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().len(), 3);
        assert_eq!(fs::metadata(&outside).unwrap().len(), 0);
        put(&target, b"", b"f", b"newer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        assert!(target.open_existing(b"f").unwrap().is_some());
    }

    #[test]
    fn a_folder_is_replaced_only_if_it_is_empty() {
        let (folder, target) = target();
        target.directory(b"empty").unwrap();
        target.directory(b"full/x").unwrap();
        put(&target, b"", b"empty", b"new").unwrap();
        let error = put(&target, b"", b"full", b"new").unwrap_err();
        assert!(error.remedy().is_some());
        assert!(target.directory(b"empty/below").unwrap_err().remedy().is_some());
        assert_eq!(names(&folder.path().join("t/target")), ["empty", "full"]);
    }

    #[test]
    fn setuid_is_not_given_to_another_owner() {
        let (folder, target) = target();
        let mut captured = metadata(EntryKind::File);
        captured.mode = 0o6755;
        let finish = |name: &[u8], captured: &Metadata| {
            let file = target.new_file(&target.directory(b"").unwrap(), name, 0).unwrap();
            file.finish(captured, &keep()).unwrap().place().unwrap()
        };
        assert!(finish(b"mine", &captured).is_empty());
        (captured.uid, captured.gid) = (captured.uid + 4242, captured.gid + 4242);
        assert_eq!(finish(b"other", &captured).len(), 1);
        let mode = |name| fs::metadata(folder.path().join("t/target").join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("mine"), mode("other")), (0o6755, 0o755));
    }

    #[test]
    fn an_owner_that_cannot_be_set_is_a_note_and_setuid_survives_one_that_can() {
        let (folder, target) = target();
        let mut captured = metadata(EntryKind::File);
        (captured.uid, captured.gid, captured.mode) = (4242, 4343, 0o4711);
        let file = target.new_file(&target.directory(b"").unwrap(), b"f", 0).unwrap();
        let made = file.finish(&captured, &Ownership::new(OwnershipPolicy::Numeric)).unwrap();
        let notes = made.place().unwrap();
        let status = fs::metadata(folder.path().join("t/target/f")).unwrap();
        if rights::may_give_to_anybody() {
            assert_eq!((status.uid(), status.gid(), status.mode() & 0o7777), (4242, 4343, 0o4711));
            assert!(notes.is_empty(), "{notes:?}");
        } else {
            assert_eq!(status.mode() & 0o7777, 0o711);
            assert_eq!(notes.len(), 2, "{notes:?}");
        }
    }

    #[test]
    fn links_and_pipes_come_back() {
        let (folder, target) = target();
        let inside = folder.path().join("t/target");
        put(&target, b"a", b"f", b"x").unwrap();
        target.hard_link(b"a/f", b"b/g").unwrap().place().unwrap();
        target.hard_link(b"a/f", b"b/g").unwrap().place().unwrap();
        let inode = |path: &str| fs::metadata(inside.join(path)).unwrap().ino();
        assert_eq!(inode("a/f"), inode("b/g"));
        assert_eq!(names(&inside.join("b")), ["g"]);

        let mut link = metadata(EntryKind::Symlink);
        link.link_target = b"../no\xff/where".to_vec();
        let numeric = Ownership::new(OwnershipPolicy::Numeric);
        assert!(target.symlink(b"a/l", &link, &numeric).unwrap().place().unwrap().is_empty());
        let status = fs::symlink_metadata(inside.join("a/l")).unwrap();
        assert_eq!((status.is_symlink(), status.mtime()), (true, 1_000_000_000));

        let pipe = metadata(EntryKind::Fifo);
        let notes = target.special(b"a/p", &pipe, &numeric).unwrap().place().unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        let status = fs::symlink_metadata(inside.join("a/p")).unwrap();
        assert!(status.file_type().is_fifo());
        assert_eq!((status.mode() & 0o7777, status.mtime()), (0o640, 1_000_000_000));
        // A pipe without a writer does not hold up whoever looks at it.
        assert!(target.open_existing(b"a/p").unwrap().is_none());

        assert!(target.special(b"a/s", &metadata(EntryKind::Socket), &keep()).is_err());
        assert_eq!(names(&inside.join("a")), ["f", "l", "p"]);
    }

    #[test]
    fn a_folder_gets_its_time_after_what_is_in_it() {
        let (folder, target) = target();
        put(&target, b"d", b"f", b"x").unwrap();
        let mut captured = metadata(EntryKind::Directory);
        captured.mode = 0o1750;
        assert!(target.set_directory_metadata(b"d", &captured, &keep()).unwrap().is_empty());
        let status = fs::metadata(folder.path().join("t/target/d")).unwrap();
        assert_eq!((status.mode() & 0o7777, status.mtime()), (0o1750, 1_000_000_000));
    }

    #[test]
    fn a_damaged_file_has_another_name_and_a_list_of_what_is_bad() {
        let (folder, target) = target();
        let inside = folder.path().join("t/target");
        put(&target, b"", b"f", b"the old one").unwrap();
        for expected in ["f.damaged", "f.damaged-2"] {
            let file = target.new_file(&target.directory(b"").unwrap(), b"f", 30).unwrap();
            file.write_at(10, b"0123456789").unwrap();
            assert_eq!(file.finish_damaged(&[0..10, 20..30]).unwrap(), expected.as_bytes());
            let text = fs::read_to_string(inside.join(format!("{expected}.txt"))).unwrap();
            assert!(text.ends_with(":\n0-9\n20-29\n"), "{text}");
            assert_eq!(fs::metadata(inside.join(expected)).unwrap().mode() & 0o7777, 0o600);
        }
        assert_eq!(fs::read(inside.join("f")).unwrap(), b"the old one");
        assert_eq!(names(&inside), ["f", "f.damaged", "f.damaged-2", "f.damaged-2.txt", "f.damaged.txt"]);
        let bytes = fs::read(inside.join("f.damaged")).unwrap();
        assert_eq!(&bytes[9..21], b"\x000123456789\0");
    }

    #[test]
    fn content_goes_between_the_holes_and_damage_is_told_by_its_place_in_the_file() {
        let (folder, target) = target();
        let hole = |offset, length| Hole { offset, length };
        let sparse =
            Metadata { size: 30, holes: vec![hole(0, 4), hole(10, 10)], ..metadata(EntryKind::File) };
        let dir = target.directory(b"").unwrap();
        let new = || target.new_file(&dir, b"f", 30).unwrap().shaped(&sparse);
        let file = new();
        file.write_at(8, b"89abcdef").unwrap();
        file.write_at(0, b"01234567").unwrap();
        assert_eq!(file.write_at(9, b"89abcdef").unwrap_err().kind(), ErrorKind::Damaged);
        file.finish(&sparse, &keep()).unwrap().place().unwrap();
        let path = folder.path().join("t/target/f");
        assert_eq!(fs::read(&path).unwrap(), b"\0\0\0\x00012345\0\0\0\0\0\0\0\0\0\x006789abcdef");
        let file = new();
        file.write_at(0, b"0123").unwrap();
        file.finish_damaged(&[4..6, 6..16]).unwrap();
        let text = fs::read_to_string(path.with_extension("damaged.txt")).unwrap();
        assert!(text.ends_with(":\n8-9\n20-29\n"), "{text}");
    }

    #[test]
    fn a_large_file_that_was_replaced_while_it_was_written_is_not_named() {
        let (folder, target) = target();
        let inside = folder.path().join("t/target");
        let partial = inside.join(".f.lifeboat-partial");
        let replaced = || {
            let file = target.new_large_file(&target.directory(b"").unwrap(), b"f", 3).unwrap();
            fs::remove_file(&partial).unwrap();
            fs::hard_link(inside.join("mine"), &partial).unwrap();
            file
        };
        put(&target, b"", b"mine", b"mine").unwrap();
        assert!(replaced().finish_damaged(&[]).is_err());
        fs::remove_file(&partial).unwrap();
        assert!(replaced().finish(&metadata(EntryKind::File), &keep()).is_err());
        assert_eq!(names(&inside), [".f.lifeboat-partial", "mine"]);
        assert_eq!(fs::read(inside.join("mine")).unwrap(), b"mine");
    }

    #[test]
    fn what_is_made_takes_the_place_of_nothing_before_it_is_told_to() {
        let (folder, target) = target();
        let inside = folder.path().join("t/target");
        fs::create_dir_all(inside.join("full/x")).unwrap();
        put(&target, b"", b"f", b"x").unwrap();
        let link = Metadata { link_target: b"there".to_vec(), ..metadata(EntryKind::Symlink) };
        let before = names(&inside);
        drop(target.symlink(b"full", &link, &keep()).unwrap());
        drop(target.hard_link(b"f", b"full").unwrap());
        assert_eq!(names(&inside), before);
        let made = target.hard_link(b"f", b"full").unwrap();
        made.sync().unwrap();
        fs::remove_dir(inside.join("full/x")).unwrap();
        made.place().unwrap();
        assert_eq!(names(&inside), ["f", "full"]);
        assert_eq!(fs::read(inside.join("full")).unwrap(), b"x");
    }

    #[test]
    fn a_frozen_file_is_thawed_only_while_it_gets_a_name_or_loses_one() {
        let (folder, target) = target();
        let inside = folder.path().join("t/target");
        fs::create_dir_all(inside.join("full/x")).unwrap();
        put(&target, b"", b"f", b"x").unwrap();
        let file = File::open(inside.join("f")).unwrap();
        let frozen = FREEZING_FLAGS & 0x10;
        if !attributes::set_flags(file.as_fd(), frozen, FREEZING_FLAGS).is_empty() {
            return skip("a frozen file: nothing can be made immutable here");
        }
        let is_frozen = || {
            capture::status(file.as_fd(), c"")
                .is_ok_and(|status| old::Found::of(&status).unwrap().is_frozen())
        };
        let link = || target.hard_link(b"f", b"full").unwrap();
        let made = link();
        let while_the_folder_goes = is_frozen();
        drop(made);
        let dropped = (is_frozen(), names(&inside));
        // As a restore that was killed has left it.
        let _killed = std::mem::ManuallyDrop::new(link());
        assert!(target.take_part(&crate::clock::SystemClock));
        let swept = target.sweep(b"", &|_| false, &crate::clock::SystemClock).unwrap();
        let swept = (swept, is_frozen(), names(&inside));
        let made = link();
        fs::remove_dir(inside.join("full/x")).unwrap();
        made.place().unwrap();
        let placed = (is_frozen(), names(&inside));
        target.hard_link(b"f", b"new").unwrap().place_new().unwrap();
        let last = (is_frozen(), names(&inside));
        attributes::thaw(file.as_fd());
        let both = || vec!["f".to_owned(), "full".to_owned()];
        assert!(while_the_folder_goes);
        assert_eq!((dropped, swept), ((true, both()), (1, true, both())));
        assert_eq!((placed, last), ((true, both()), (true, [both(), vec!["new".to_owned()]].concat())));
    }

    #[test]
    fn what_is_new_replaces_nothing() {
        let (folder, target) = target();
        let inside = folder.path().join("t/target");
        put(&target, b"", b"f", b"first").unwrap();
        let again = || {
            let file = target.new_file(&target.directory(b"").unwrap(), b"f", 6).unwrap();
            file.write_at(0, b"second").unwrap();
            file.finish(&metadata(EntryKind::File), &keep()).unwrap().place_new().unwrap_err()
        };
        assert!(again().remedy().is_some());
        let link = Metadata { link_target: b"there".to_vec(), ..metadata(EntryKind::Symlink) };
        target.symlink(b"f", &link, &keep()).unwrap().place_new().unwrap_err();
        put(&target, b"", b"g", b"other").unwrap();
        target.hard_link(b"g", b"f").unwrap().place_new().unwrap_err();
        assert_eq!(
            (names(&inside), fs::read(inside.join("f")).unwrap()),
            (vec!["f".to_owned(), "g".to_owned()], b"first".to_vec())
        );
    }

    #[test]
    fn every_file_system_below_the_target_is_synced() {
        let target = Target::create_or_open(Path::new("/")).unwrap();
        let file_systems = || target.file_systems.lock().unwrap().len();
        assert_eq!(file_systems(), 1);
        target.directory(b"proc").unwrap();
        assert_eq!(file_systems(), 2);
        target.sync().unwrap();
    }

    #[test]
    fn the_longest_damaged_name_is_shortened_between_characters() {
        let (folder, target) = target();
        let name = format!("a{}", "\u{e9}".repeat(127));
        let file = target.new_file(&target.directory(b"").unwrap(), name.as_bytes(), 0).unwrap();
        let damaged = String::from_utf8(file.finish_damaged(&[]).unwrap()).unwrap();
        assert!(damaged.ends_with("\u{e9}.damaged") && damaged.len() + ".txt".len() <= NAME_BYTES_MAX);
        assert_eq!(names(&folder.path().join("t/target")), [damaged.clone(), format!("{damaged}.txt")]);
    }
}
