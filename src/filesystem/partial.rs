//! What is not finished in a target, and its names. `.lifeboat-RANDOM.partial` is a file of moments: a run that was
//! killed leaves a few, and the next one removes them. `.NAME.lifeboat-partial` is a large file: the next run goes
//! on with it. A restore holds a shared lock on its target, and one on each large file. A snapshot may hold such
//! names too: whoever makes or sweeps them asks the manifest first.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, openat, renameat, renameat_with,
        statat, unlinkat,
    },
    io::Errno,
};

use super::{
    durable::random_suffix,
    restore::{Folder, NAME_BYTES_MAX, Target, component},
    shown, system_error,
    walk::Listing,
};
use crate::error::{Error, ErrorKind, Result};

const UNFINISHED_SUFFIX: &[u8] = b".lifeboat-partial";

/// Says to other restores that one works in this folder. Where that cannot be said nobody removes leftovers.
pub(super) fn take_part(dir: BorrowedFd<'_>) -> bool {
    flock(dir, FlockOperation::NonBlockingLockShared).is_ok()
}

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
fn is_leftover(name: &[u8]) -> bool {
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

/// Makes a file that was not there.
pub(super) fn create(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
}

/// Something under a temporary name; removed unless it gets its own.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) dir: Folder,
    pub(super) temporary: CString,
    /// It has its name, or is to keep the one that it has.
    placed: bool,
}

impl Pending {
    /// Something for a moment.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn new(dir: Folder) -> Result<Self> {
        Ok(Self { dir, temporary: partial_name()?, placed: false })
    }

    /// Something that stays under its name, whatever ends the restore: the next one goes on with it.
    pub(super) const fn lasting(dir: Folder, temporary: CString) -> Self {
        Self { dir, temporary, placed: true }
    }

    /// Checks that what has the temporary name is the file that was written.
    ///
    /// # Errors
    /// Something else has it by now.
    pub(super) fn check(&self, file: BorrowedFd<'_>) -> Result<()> {
        let same = fstat(file).and_then(|ours| {
            let named = statat(&self.dir, &self.temporary, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok((ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino))
        });
        let name = shown(self.temporary.to_bytes());
        match same {
            Ok(true) => Ok(()),
            Ok(false) | Err(Errno::NOENT) => {
                let message = format!("{name} was replaced while it was written");
                Err(Error::new(ErrorKind::Failed, message)
                    .with_remedy("Let nothing else write to the target, and restore again"))
            }
            Err(errno) => Err(system_error("look at", name, errno)),
        }
    }

    /// A handle that only names it: opening a device could do something to it.
    pub(super) fn handle(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.dir, &self.temporary, flags, Mode::empty())
    }

    /// Gives it its name; replaces anything but a folder that is not empty.
    pub(super) fn place(&mut self, name: &CStr) -> Result<()> {
        let rename = || renameat(&self.dir, &self.temporary, &self.dir, name);
        let renamed = match rename() {
            // An empty folder may go.
            Err(Errno::ISDIR) => unlinkat(&self.dir, name, AtFlags::REMOVEDIR).and_then(|()| rename()),
            other => other,
        };
        match renamed {
            Ok(()) => {
                self.placed = true;
                Ok(())
            }
            Err(errno @ (Errno::NOTEMPTY | Errno::EXIST)) => {
                Err(in_the_way(shown(name.to_bytes())).with_source(errno))
            }
            Err(errno) => Err(system_error("name", shown(name.to_bytes()), errno)),
        }
    }

    /// Gives it a name that nothing has; `false` if something has it.
    pub(super) fn place_new(&mut self, name: &CStr) -> Result<bool> {
        match renameat_with(&self.dir, &self.temporary, &self.dir, name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.placed = true;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            // NFS and others cannot do that in one step.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.place_reserved(name),
            Err(errno) => Err(system_error("name", shown(name.to_bytes()), errno)),
        }
    }

    /// As [`Self::place_new`], where a file system cannot rename without replacing: an empty file is made
    /// under the name first, which fails if something is there, and then replaced.
    pub(super) fn place_reserved(&mut self, name: &CStr) -> Result<bool> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(_reserved) => {}
            Err(Errno::EXIST) => return Ok(false),
            Err(errno) => return Err(system_error("make the file", shown(name.to_bytes()), errno)),
        }
        renameat(&self.dir, &self.temporary, &self.dir, name)
            .map_err(|errno| system_error("name", shown(name.to_bytes()), errno))?;
        self.placed = true;
        Ok(true)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.placed {
            // Best effort: it has a name that says what it is.
            match unlinkat(&self.dir, &self.temporary, AtFlags::empty()) {
                Ok(()) | Err(_) => {}
            }
        }
    }
}

impl Target {
    /// Removes the files of moments that runs left in the folder at `path` which are no more. Where another
    /// restore works, or nobody can tell, they stay; and so does what `keep` says of a name.
    ///
    /// # Errors
    /// The folder cannot be read, or they cannot be removed.
    pub fn sweep(&self, path: &[u8], keep: &dyn Fn(&[u8]) -> bool) -> Result<u64> {
        let Some(dir) = self.existing_directory(path)? else { return Ok(0) };
        let cannot = |errno| system_error("list the folder", shown(path), errno);
        let mut listing = Listing::read(dir.as_fd()).map_err(cannot)?;
        listing.retain(|name| is_leftover(name) && !keep(name));
        if listing.get(0).is_none() {
            return Ok(0);
        }
        // The shared lock is lost by trying.
        let alone = flock(&self.root, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !alone {
            take_part(self.root.as_fd());
            return Ok(0);
        }
        let mut swept = 0;
        let mut names = (0..).map_while(|at| listing.get(at));
        let done = names.try_for_each(|name| {
            swept += 1;
            match unlinkat(&dir, &component(name)?, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
                Err(errno) => Err(system_error("remove", shown(name), errno)),
            }
        });
        take_part(self.root.as_fd());
        done.map(|()| swept)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        path::Path,
    };

    use super::*;

    fn put(path: impl AsRef<Path>) {
        File::create(path).unwrap();
    }

    #[test]
    fn only_files_of_moments_are_swept_and_only_when_nobody_else_restores() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::open(folder.path()).unwrap();
        let dead = folder.path().join(".lifeboat-0123456789abcdef.partial");
        put(&dead);
        put(folder.path().join(".lifeboat-mine.partial"));
        let other = Target::open(folder.path()).unwrap();
        assert_eq!(target.sweep(b"", &|_| false).unwrap(), 0);
        drop(other);
        assert_eq!(target.sweep(b"", &|_| false).unwrap(), 1);
        assert!(!dead.try_exists().unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        put(&dead);
        assert_eq!(target.sweep(b"", &|name| name == b".lifeboat-0123456789abcdef.partial").unwrap(), 0);
        assert_eq!(target.sweep(b"", &|_| false).unwrap(), 1);
        let other = Target::open(folder.path()).unwrap();
        put(&dead);
        assert_eq!(
            (target.sweep(b"", &|_| false).unwrap(), other.sweep(b"", &|_| false).unwrap()),
            (0, 0),
            "both still take part"
        );
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
