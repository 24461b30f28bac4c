//! What is not finished in a target, and its names. `.lifeboat-RANDOM.partial` is a file of moments: a run that was
//! killed leaves a few, and the next one removes them. `.NAME.lifeboat-partial` is a large file: the next run goes
//! on with it. A restore holds a shared lock on its target, and one on each large file. A snapshot may hold such
//! names too: whoever makes or sweeps them asks the manifest first.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use rustix::{
    fs::{
        AtFlags, FlockOperation, Mode, OFlags, RenameFlags, Stat, flock, fstat, fstatfs, fsync, openat,
        renameat, renameat_with, statat, unlinkat,
    },
    io::Errno,
};

use super::{
    attributes::Thawed,
    capture,
    durable::random_suffix,
    old::Found,
    remove::check_names,
    restore::{Folder, NAME_BYTES_MAX, Target, component, open_beneath},
    shown, shown_in, system_error,
    walk::Listing,
};
use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
    format::{entry::EntryKind, path::join},
};

const UNFINISHED_SUFFIX: &[u8] = b".lifeboat-partial";

/// Says to other restores that this one writes the file; whether none does.
pub(super) fn claim(file: BorrowedFd<'_>) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// The name of a large file that is not finished.
///
/// # Errors
/// It is not a proper name.
pub fn unfinished(name: &[u8]) -> Result<Vec<u8>> {
    Ok(unfinished_name(&component(name)?)?.into_bytes())
}

/// As [`unfinished`].
pub(super) fn unfinished_name(name: &CStr) -> Result<CString> {
    let bytes = name.to_bytes();
    let hash = blake3::hash(bytes).to_hex();
    let fits = 1 + bytes.len() + UNFINISHED_SUFFIX.len() <= NAME_BYTES_MAX;
    let middle = if fits { bytes } else { hash.as_bytes() };
    component(&[b".", middle, UNFINISHED_SUFFIX].concat())
}

/// Whether a file of moments has such a name.
#[must_use]
pub fn is_leftover(name: &[u8]) -> bool {
    let digits = name.strip_prefix(b".lifeboat-").and_then(|rest| rest.strip_suffix(b".partial"));
    digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Whether a large file that is not finished has such a name.
#[must_use]
pub fn is_unfinished(name: &[u8]) -> bool {
    name.first() == Some(&b'.') && name.ends_with(UNFINISHED_SUFFIX)
}

pub(super) fn partial_name() -> Result<CString> {
    let name = format!(".lifeboat-{}.partial", random_suffix()?);
    CString::new(name).map_err(|nul| Error::new(ErrorKind::Failed, "no temporary name").with_source(nul))
}

/// The error of a folder that is not empty where something else is to be.
#[must_use]
pub fn in_the_way(name: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Failed,
        format!("{name} is a folder that is not empty, and no folder in the snapshot"),
    )
    .with_remedy("Move it away, restore into another target, or let --delete remove it")
}

/// The error of a target in which others change files at the same time.
pub(super) fn meanwhile(what: String) -> Error {
    Error::new(ErrorKind::Failed, what).with_remedy("Let nothing else write to the target, and restore again")
}

/// What has the name no more that it was given: somebody has changed it meanwhile.
#[must_use]
pub fn gone(path: &[u8]) -> Error {
    meanwhile(format!("{} was replaced meanwhile", shown(path)))
}

/// Marks a small file that has its own name and is not whole: the sticky bit, which means nothing for a file.
const STICKY: u32 = 0o1000;
/// The mode of such a file.
const BEGUN: u32 = STICKY | 0o600;

/// Whether it is the mode of a file that a restore has begun and not ended. The default ACL of a folder may leave less of
/// it. A file that somebody uses has other bits too.
pub(super) const fn is_begun(mode: u32) -> bool {
    mode & !0o600 == STICKY
}

/// Whether it is the mode of such a file that has its ACL already, which brings the rights of `whole` with it.
pub(super) const fn is_begun_with_acl(mode: u32, whole: u32) -> bool {
    whole & STICKY == 0 && mode == STICKY | whole & 0o777
}

/// File systems of Linux that are known to keep the bits of [`BEGUN`] for anybody: the `f_type` of statfs(2), for ext2
/// to ext4, XFS, btrfs, F2FS, tmpfs, overlayfs, and ZFS and bcachefs. Others may not, or are not on this machine.
const KEEP_MODES: [u32; 8] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1, 0xca45_1a4e];

/// Whether a file may be begun under its own name in this folder.
pub(super) fn keeps_modes(dir: BorrowedFd<'_>) -> bool {
    fstatfs(dir).is_ok_and(|status| u32::try_from(status.f_type).is_ok_and(|kind| KEEP_MODES.contains(&kind)))
}

/// Makes a file that was not there, with the mode of one that is begun.
pub(super) fn begin(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    create_with(dir, name, Mode::from_raw_mode(BEGUN))
}

/// Makes a file that was not there.
pub(super) fn create(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    create_with(dir, name, Mode::RUSR | Mode::WUSR)
}

fn create_with(dir: BorrowedFd<'_>, name: &CStr, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, mode)
}

/// Gives what is named `from` a name in its folder that nothing has; `EXIST` if something has it.
pub(super) fn rename_new(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> rustix::io::Result<()> {
    match renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        // NFS and others cannot do that in one step.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename_reserved(dir, from, to),
        other => other,
    }
}

/// As [`rename_new`], where a file system cannot rename without replacing: an empty file is made under the name first,
/// which fails if something is there, and then replaced.
fn rename_reserved(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> rustix::io::Result<()> {
    let reserved = create(dir, to)?;
    renameat(dir, from, dir, to).inspect_err(|_failed| {
        // An empty file must not look like what was to have the name. Best effort: what failed is told.
        if has_name(dir, to, reserved.as_fd()).unwrap_or(false) {
            match unlinkat(dir, to, AtFlags::empty()) {
                Ok(()) | Err(_) => {}
            }
        }
    })
}

const fn identity(status: &Stat) -> (u64, u64) {
    (status.st_dev, status.st_ino)
}

/// Whether what has the name is this file.
fn has_name(dir: BorrowedFd<'_>, name: &CStr, file: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let ours = fstat(file)?;
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => Ok(identity(&ours) == identity(&named)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether what has the name is this file, and the file has no other one.
pub(super) fn has_only_name(
    dir: BorrowedFd<'_>,
    name: &CStr,
    file: BorrowedFd<'_>,
) -> rustix::io::Result<bool> {
    Ok(has_name(dir, name, file)? && fstat(file)?.st_nlink == 1)
}

/// Brings a folder's names to the disk, where its file system can.
pub(super) fn sync_names(dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
    match fsync(dir) {
        // Some know no such thing for folders.
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }
}

/// Held while a name of a frozen file is replaced.
static REPLACES_FROZEN: Mutex<()> = Mutex::new(());

/// Lets a name of a frozen file go, or get another one beside it: the file is thawed until what this gives is dropped. `None`
/// if it is no such file, or the user may not do that.
pub(super) fn thaw_for_now(dir: BorrowedFd<'_>, name: &CStr) -> Option<Thawed> {
    let found = Found::of(&capture::status(dir, name).ok()?)?;
    if !found.is_frozen() || found.kind != EntryKind::File {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Thawed::of(open_beneath(dir, name, flags).ok()?)
}

/// Removes a name, also of a frozen file: for its other names, if it has some, it stays so.
fn unlink_frozen(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::PERM) => {
            let thawed = thaw_for_now(dir, name);
            if thawed.is_some() { unlinkat(dir, name, AtFlags::empty()) } else { Err(Errno::PERM) }
        }
        other => other,
    }
}

/// Something that is not whole, under a temporary name or its own; removed unless it gets its own, or may keep it.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) dir: Folder,
    /// The name that it has now: one of a moment, one that the next restore finds, or its own.
    pub(super) current: CString,
    /// Which file it is, if others may know the name: another restore may have put its own there.
    file: Option<(u64, u64)>,
    /// It has its name, or is to keep the one that it has.
    placed: bool,
    /// It goes if it may not have its name: the next restore would not get further, and nothing else is lost.
    goes_if_refused: bool,
}

impl Pending {
    /// Something for a moment.
    ///
    /// # Errors
    /// The system gives no random bytes; nothing in the folder can get another name.
    pub(super) fn new(dir: Folder) -> Result<Self> {
        check_names(dir.as_fd())?;
        Ok(Self { dir, current: partial_name()?, file: None, placed: false, goes_if_refused: false })
    }

    /// A file that has its own name from the beginning.
    ///
    /// # Errors
    /// The system does not tell which one it is.
    pub(super) fn named(dir: Folder, name: CString, file: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let file = Some(identity(&fstat(file)?));
        Ok(Self { dir, current: name, file, placed: false, goes_if_refused: false })
    }

    /// Something that stays under its name, whatever ends the restore: the next one goes on with it.
    pub(super) const fn lasting(dir: Folder, current: CString) -> Self {
        Self { dir, current, file: None, placed: true, goes_if_refused: false }
    }

    /// As [`Self::lasting`], of a file that this restore has made.
    pub(super) const fn unfinished(dir: Folder, current: CString) -> Self {
        Self { dir, current, file: None, placed: true, goes_if_refused: true }
    }

    /// Checks that what has its present name is the file that was written.
    ///
    /// # Errors
    /// Something else has it by now.
    pub(super) fn check(&self, file: BorrowedFd<'_>) -> Result<()> {
        let name = || shown_in(self.dir.as_fd(), &self.current);
        match has_name(self.dir.as_fd(), &self.current, file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(meanwhile(format!("{} was replaced while it was written", name()))),
            Err(errno) => Err(system_error("look at", name(), errno)),
        }
    }

    /// A handle that only names it: opening a device could do something to it.
    pub(super) fn handle(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.dir, &self.current, flags, Mode::empty())
    }

    /// Gives it its name; replaces anything but a folder that is not empty.
    pub(super) fn place(&mut self, name: &CStr) -> Result<()> {
        if *self.current == *name {
            self.placed = true;
            return Ok(());
        }
        let rename = || renameat(&self.dir, &self.current, &self.dir, name);
        let renamed = match rename() {
            // An empty folder may go.
            Err(Errno::ISDIR) => unlinkat(&self.dir, name, AtFlags::REMOVEDIR).and_then(|()| rename()),
            Err(Errno::PERM) => {
                // Two names of one file may be replaced at the same time, and one would freeze it for the other.
                let _one = REPLACES_FROZEN.lock().unwrap_or_else(PoisonError::into_inner);
                let thawed = thaw_for_now(self.dir.as_fd(), name);
                if thawed.is_some() { rename() } else { Err(Errno::PERM) }
            }
            other => other,
        };
        match renamed {
            Ok(()) => {
                self.placed = true;
                Ok(())
            }
            Err(errno @ (Errno::NOTEMPTY | Errno::EXIST)) => {
                Err(in_the_way(shown_in(self.dir.as_fd(), name)).with_source(errno))
            }
            Err(errno) => {
                if self.goes_if_refused && matches!(errno, Errno::PERM | Errno::ACCESS) {
                    self.placed = false;
                }
                Err(system_error("name", shown_in(self.dir.as_fd(), name), errno))
            }
        }
    }

    /// Gives it a name that nothing has; `false` if something has it.
    pub(super) fn place_new(&mut self, name: &CStr) -> Result<bool> {
        if *self.current == *name {
            self.placed = true;
            return Ok(true);
        }
        match rename_new(self.dir.as_fd(), &self.current, name) {
            Ok(()) => {
                self.placed = true;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(system_error("name", shown_in(self.dir.as_fd(), name), errno)),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let named = || statat(&self.dir, &self.current, AtFlags::SYMLINK_NOFOLLOW);
        let is_ours = || self.file.is_none_or(|file| named().is_ok_and(|found| identity(&found) == file));
        if !self.placed && is_ours() {
            // Best effort: it has a name or a mode that says what it is.
            match unlink_frozen(self.dir.as_fd(), &self.current) {
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// How long a run waits for its part in a target. Other restores hold the lock for themselves only while they sweep one
/// folder; who holds it longer is no restore.
const TURN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Who may sweep, and when. A run that has files of moments holds a shared lock on the target; a sweeper needs the
/// lock for itself: if it has that, no such file is anybody's. `flock` does not turn one lock into the other in one
/// step: whoever asks for more lets go of what they have, also when they are refused. So of two that sweep at the same
/// time one may get the lock while the other holds none. That does no harm as long as nobody makes a file of moments
/// before they hold their part again: a run has none while it sweeps, and then waits for its part. Another restore
/// lets go after a few calls. Somebody else may hold the lock for as long as they like, perhaps who started this restore
/// (`flock TARGET lifeboat ..`), so nobody waits for ever: without a part a run goes on and sweeps nothing, and as long
/// as that lock is held nor does anybody else.
impl Target {
    /// Says to other restores that one works in this folder; whether that could be said. Only who takes part sweeps.
    pub fn take_part(&self, clock: &dyn Clock) -> bool {
        let until = clock.elapsed().saturating_add(TURN);
        loop {
            let part = match flock(&self.root, FlockOperation::NonBlockingLockShared) {
                Ok(()) => true,
                Err(Errno::WOULDBLOCK | Errno::INTR) if clock.elapsed() < until => {
                    clock.sleep(LOOK_AGAIN);
                    continue;
                }
                // This file system may know no locks.
                Err(_) => false,
            };
            self.part.store(part, Ordering::Relaxed);
            return part;
        }
    }

    /// Removes the files of moments that runs left in the folder at `path` which are no more. Where another
    /// restore works, or nobody can tell, they stay; and so does what `keep` says of a name.
    ///
    /// # Errors
    /// The folder cannot be read, or they cannot be removed.
    pub fn sweep(&self, path: &[u8], keep: &dyn Fn(&[u8]) -> bool, clock: &dyn Clock) -> Result<u64> {
        let Some(dir) = self.existing_directory(path)? else { return Ok(0) };
        let cannot = |errno| system_error("list the folder", shown(path), errno);
        let mut listing = Listing::read(dir.as_fd()).map_err(cannot)?;
        listing.retain(|name| is_leftover(name) && !keep(name));
        if listing.get(0).is_none() || !self.part.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let alone = flock(&self.root, FlockOperation::NonBlockingLockExclusive).is_ok();
        let mut swept = 0;
        let mut names = (0..).map_while(|at| listing.get(at)).filter(|_| alone);
        let done = names.try_for_each(|name| {
            swept += 1;
            remove_leftover(dir.as_fd(), &component(name)?)
                .map_err(|errno| system_error("remove", shown(&join(path, name)), errno))
        });
        self.take_part(clock);
        done.map(|()| swept)
    }
}

/// Removes a file of moments; one that has been frozen already, too.
fn remove_leftover(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    match unlink_frozen(dir, name) {
        // A folder is none of ours.
        Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write,
        path::Path,
        sync::atomic::AtomicU32,
    };

    use super::*;
    use crate::{
        clock::{SystemClock, Timestamp},
        filesystem::attributes,
        skip::skip,
    };

    fn put(path: impl AsRef<Path>) {
        File::create(path).unwrap();
    }

    /// A clock that runs while somebody sleeps, and does something then.
    struct Sleeps<F: Fn(u32) + Send + Sync>(AtomicU32, F);

    impl<F: Fn(u32) + Send + Sync> Clock for Sleeps<F> {
        fn now(&self) -> Timestamp {
            SystemClock.now()
        }

        fn elapsed(&self) -> Duration {
            LOOK_AGAIN * self.0.load(Ordering::SeqCst)
        }

        fn sleep(&self, _duration: Duration) {
            (self.1)(self.0.fetch_add(1, Ordering::SeqCst));
        }
    }

    fn part_of(folder: &Path) -> Target {
        let target = Target::open(folder).unwrap();
        assert!(target.take_part(&SystemClock));
        target
    }

    fn sweep(target: &Target) -> u64 {
        target.sweep(b"", &|_| false, &SystemClock).unwrap()
    }

    #[test]
    fn only_files_of_moments_are_swept_and_only_when_nobody_else_restores() {
        let folder = tempfile::tempdir().unwrap();
        let target = part_of(folder.path());
        let dead = folder.path().join(".lifeboat-0123456789abcdef.partial");
        put(&dead);
        put(folder.path().join(".lifeboat-mine.partial"));
        let other = part_of(folder.path());
        assert_eq!(sweep(&target), 0);
        drop(other);
        assert_eq!(sweep(&target), 1);
        assert!(!dead.try_exists().unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        put(&dead);
        let keep = |name: &[u8]| name == b".lifeboat-0123456789abcdef.partial";
        assert_eq!(target.sweep(b"", &keep, &SystemClock).unwrap(), 0);
        assert_eq!(sweep(&target), 1);
        let other = part_of(folder.path());
        put(&dead);
        assert_eq!((sweep(&target), sweep(&other)), (0, 0), "both still take part");
        // Who only looks does not.
        drop((target, other));
        assert_eq!(sweep(&Target::open(folder.path()).unwrap()), 0);
    }

    #[test]
    fn a_run_waits_for_its_part_and_without_one_it_sweeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path().join(".lifeboat-0123456789abcdef.partial"));
        let target = Target::open(folder.path()).unwrap();
        let sweeper = File::open(folder.path()).unwrap();
        flock(&sweeper, FlockOperation::NonBlockingLockExclusive).unwrap();
        let never = Sleeps(AtomicU32::new(0), |_| ());
        assert!(!target.take_part(&never));
        assert!(never.elapsed() >= TURN);
        assert_eq!(target.sweep(b"", &|_| false, &never).unwrap(), 0);
        let soon = Sleeps(AtomicU32::new(0), |count| {
            if count == 2 {
                flock(&sweeper, FlockOperation::Unlock).unwrap();
            }
        });
        assert!(target.take_part(&soon));
        assert_eq!(soon.0.load(Ordering::SeqCst), 3);
        assert_eq!(sweep(&target), 1);
        // It has its part still.
        flock(&sweeper, FlockOperation::NonBlockingLockExclusive).unwrap_err();
    }

    #[test]
    fn a_file_of_moments_that_was_frozen_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lifeboat-0123456789abcdef.partial");
        put(&path);
        let file = File::open(&path).unwrap();
        if !attributes::set_flags(file.as_fd(), 0x10, 0x10).is_empty() {
            skip("a frozen file: nothing can be made immutable here");
            return;
        }
        let swept = part_of(folder.path()).sweep(b"", &|_| false, &SystemClock);
        attributes::thaw(file.as_fd());
        assert_eq!(swept.unwrap(), 1);
        assert!(!path.try_exists().unwrap());
    }

    #[test]
    fn a_new_name_replaces_nothing_even_where_a_rename_cannot_promise_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        File::create(at("there")).unwrap().write_all(b"the old one").unwrap();
        File::create(at("new")).unwrap().write_all(b"new").unwrap();
        let dir = File::open(folder.path()).unwrap();
        for rename in [rename_new, rename_reserved] {
            assert_eq!(rename(dir.as_fd(), c"new", c"there"), Err(Errno::EXIST));
            rename(dir.as_fd(), c"new", c"free").unwrap();
            // A name that was reserved and is not needed is given back.
            assert_eq!(rename(dir.as_fd(), c"new", c"other"), Err(Errno::NOENT));
            assert_eq!(fs::read(at("free")).unwrap(), b"new");
            fs::rename(at("free"), at("new")).unwrap();
        }
        assert_eq!(fs::read(at("there")).unwrap(), b"the old one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_name_of_an_unfinished_file_is_its_own_or_short_enough() {
        let name = |length| unfinished_name(&CString::new(vec![b'x'; length]).unwrap()).unwrap();
        assert_eq!(unfinished_name(c"vm.img").unwrap().as_c_str(), c".vm.img.lifeboat-partial");
        assert_eq!(name(237).to_bytes().len(), 255);
        assert!(name(238).to_bytes().len() < 100 && name(238) != name(239));
        assert!(!is_leftover(name(16).to_bytes()));
    }
}
