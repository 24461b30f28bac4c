//! A folder that is there for a while: made empty, and removed with all that is in it.

use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat},
    io::Errno,
};

use super::{attributes, durable::random_suffix};
use crate::{
    error::{Error, ErrorKind, Result},
    format::entry::FREEZING_FLAGS,
};

/// Whether what is in it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It goes, whatever happens.
    Remove,
    /// It stays.
    Keep,
}

/// A folder for a while. Dropped without [`Self::finish`] it is removed too, as far as that is possible.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// It was made for this: it goes too.
    made: bool,
    afterwards: Afterwards,
    /// Held while it is used: two at once in one folder would remove each other's files.
    _lock: OwnedFd,
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let text = format!("cannot {what} {}", path.display());
    move |error| Error::new(ErrorKind::Failed, text).with_source(error)
}

/// Takes the folder for this process alone.
fn lock(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(path, flags, Mode::empty()).map_err(|e| failed("open", path)(e.into()))?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_at(&folder, path) => Ok(folder),
        // Where nothing can be locked a drill is still worth more than none.
        Err(Errno::NOTSUP | Errno::NOSYS) => Ok(folder),
        // Or the other one has just removed it.
        Ok(()) | Err(Errno::WOULDBLOCK) => {
            let text = format!("another drill uses {}", path.display());
            Err(Error::new(ErrorKind::Usage, text).with_remedy("Wait until it ends, or name another folder"))
        }
        Err(error) => Err(failed("lock", path)(error.into())),
    }
}

/// Whether the path still leads to this folder.
fn is_at(folder: &OwnedFd, path: &Path) -> bool {
    let (Ok(held), Ok(found)) = (fstat(folder), stat(path)) else { return false };
    (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino)
}

impl Scratch {
    /// A new folder in `base`, for its owner only.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn within(base: &Path, afterwards: Afterwards) -> Result<Self> {
        let base = std::path::absolute(base).map_err(failed("find", base))?;
        let path = base.join(format!("lifeboat-drill-{}", random_suffix()?));
        let made = DirBuilder::new().mode(0o700).create(&path).map_err(failed("make the folder", &path));
        made.map_err(|e| e.with_remedy("Name a folder that can be written with --target"))?;
        Ok(Self { _lock: lock(&path)?, path, made: true, afterwards })
    }

    /// The folder `path`, which must be empty or not there.
    ///
    /// # Errors
    /// `Usage` when something is in it, when another drill uses it, or the folder that it would be in is not there.
    pub fn at(path: &Path, afterwards: Afterwards) -> Result<Self> {
        let path = std::path::absolute(path).map_err(failed("find", path))?;
        let made = match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => {
                let error = failed("make the folder", &path)(error).with_kind(ErrorKind::Usage);
                return Err(error.with_remedy("Make the folder that it is to be in, or name another one"));
            }
        };
        let lock = lock(&path)?;
        let mut inside = fs::read_dir(&path).map_err(failed("look into", &path))?;
        if inside.next().is_some() {
            let text = format!("{} is not empty, and a drill does not touch what is there", path.display());
            return Err(Error::new(ErrorKind::Usage, text).with_remedy("Name an empty folder, or a new one"));
        }
        Ok(Self { path, made, afterwards, _lock: lock })
    }

    /// Where it is: an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder `name` in it, unless it is to stay.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn clear(&self, name: &str) -> Result<()> {
        match self.afterwards {
            Afterwards::Keep => Ok(()),
            Afterwards::Remove => remove_tree(&self.path.join(name)),
        }
    }

    /// Removes everything, unless it is to stay.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn finish(mut self) -> Result<()> {
        let result = self.remove();
        // It was tried, and the error says what is left.
        self.afterwards = Afterwards::Keep;
        result
    }

    fn remove(&self) -> Result<()> {
        if self.afterwards == Afterwards::Keep {
            return Ok(());
        }
        if self.made {
            return remove_tree(&self.path);
        }
        for entry in fs::read_dir(&self.path).map_err(failed("look into", &self.path))? {
            let path = entry.map_err(failed("look into", &self.path))?.path();
            remove_tree(&path)?;
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Something else has failed already, and that is what is reported.
        drop(self.remove());
    }
}

/// Removes a tree, also one whose folders may not be written.
fn remove_tree(path: &Path) -> Result<()> {
    let removed = match remove(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path).and_then(|()| remove(path))
        }
        other => other,
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", path)(error)
                .with_remedy("Restored files are left there: remove them by hand"))
        }
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Lets its owner into every folder of a tree, and lets what is immutable be removed.
fn open_up(path: &Path) -> io::Result<()> {
    thaw(path);
    if !fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() || kind.is_file() {
                thaw(&entry.path());
            }
            if kind.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

/// What cannot be thawed cannot be removed, and that is told.
fn thaw(path: &Path) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(opened) = open(path, flags, Mode::empty()) {
        drop(attributes::set_flags(opened.as_fd(), 0, FREEZING_FLAGS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &Path) -> usize {
        fs::read_dir(path).unwrap().count()
    }

    #[test]
    fn a_scratch_folder_goes_with_everything_in_it_and_leaves_what_was_there() {
        let base = tempfile::tempdir().unwrap();
        let scratch = Scratch::within(base.path(), Afterwards::Remove).unwrap();
        fs::create_dir_all(scratch.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink(base.path(), scratch.path().join("link")).unwrap();
        fs::set_permissions(scratch.path().join("a"), fs::Permissions::from_mode(0o500)).unwrap();
        drop(scratch);
        assert_eq!(count(base.path()), 0);
        let there = base.path().join("there");
        fs::create_dir(&there).unwrap();
        let scratch = Scratch::at(&there, Afterwards::Remove).unwrap();
        fs::create_dir(scratch.path().join("x")).unwrap();
        fs::create_dir(scratch.path().join("y")).unwrap();
        scratch.clear("x").unwrap();
        assert_eq!(count(&there), 1);
        scratch.finish().unwrap();
        assert_eq!(count(&there), 0);
        let new = base.path().join("new");
        Scratch::at(&new, Afterwards::Remove).unwrap().finish().unwrap();
        assert_eq!(count(base.path()), 1);
        Scratch::at(&new, Afterwards::Keep).unwrap().finish().unwrap();
        assert_eq!(count(base.path()), 2);
    }

    #[test]
    fn a_folder_that_is_in_use_is_refused_until_it_is_free() {
        let base = tempfile::tempdir().unwrap();
        let first = Scratch::at(base.path(), Afterwards::Remove).unwrap();
        let error = Scratch::at(base.path(), Afterwards::Remove).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("another drill"), "{error}");
        first.finish().unwrap();
        Scratch::at(base.path(), Afterwards::Remove).unwrap().finish().unwrap();
    }

    #[test]
    fn a_folder_with_something_in_it_is_refused_and_not_touched() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("mine")).unwrap();
        let error = Scratch::at(base.path(), Afterwards::Remove).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert_eq!(count(base.path()), 1);
        let error = Scratch::at(&base.path().join("no/where"), Afterwards::Remove).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
}
