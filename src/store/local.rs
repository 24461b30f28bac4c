//! What only a local folder has: create-once without hard links, temporary files that a crash left, a fence.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use rustix::{
    fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with},
    io::Errno,
};

use super::name::Name;
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
};

/// The file that the fence locks. It is no object, and never listed.
pub(super) const LOCK: &str = ".lifeboat-lock";

/// A temporary file that is older than this belongs to nobody any more.
const ABANDONED: Duration = Duration::from_hours(1);

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Temporary files that were removed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Says what is wrong with a folder that is to be a repository.
///
/// # Errors
/// `NoRepository` when there is none; `Failed` when nobody can tell.
pub(super) fn check_folder(folder: &Path) -> Result<()> {
    let place = folder.display();
    let none = |text: String| Error::new(ErrorKind::NoRepository, text);
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(none(format!("there is no repository at {place}: it is a file, not a folder"))
            .with_remedy("Check the path")),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(none(format!("there is no repository at {place}: the folder does not exist"))
                .with_remedy("Check the path and what is mounted, or create one with `lifeboat init`"))
        }
        Err(error) => Err(Error::new(ErrorKind::Failed, format!("could not look at the folder {place}"))
            .with_remedy("Check its permissions and the mount below it")
            .with_source(error)),
    }
}

/// Makes the folder of a new repository.
///
/// # Errors
/// It cannot be made.
pub(super) fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| {
        let remedy = match error.kind() {
            _ if is_full(&error) => {
                "Free space there; where `df` shows free space, `df -i` shows whether the file system can hold more files, and \
                 `quota` whether the user may"
            }
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                "A file has that name: use another"
            }
            io::ErrorKind::ReadOnlyFilesystem => "The file system is read-only: mount it writable",
            _ => "Check the permissions of the folder above it",
        };
        let why = if is_full(&error) { ": the file system is full" } else { "" };
        Error::new(ErrorKind::Failed, format!("could not create the folder {}{why}", folder.display()))
            .with_remedy(remedy)
            .with_source(error)
    })
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// A new file beside `path`, named as `LocalFileSystem` names its own, so that lists hide it and sweeps find it.
fn stage(path: &Path) -> io::Result<(File, PathBuf)> {
    for number in 1_u32.. {
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!("#{number}"));
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|file| (file, PathBuf::from(staged))),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn fill(mut file: File, parts: &[&[u8]]) -> io::Result<()> {
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// Creates an object once on a file system without hard links: whole, durable, and never over another.
///
/// # Errors
/// `AlreadyExists`, or trouble with the disk.
pub(super) fn create_without_links(folder: &Path, name: &Name, parts: &[&[u8]]) -> io::Result<()> {
    let path = folder.join(name.as_str());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let (file, staged) = stage(&path)?;
    let published = fill(file, parts).and_then(|()| publish(&staged, &path, name, parts));
    if published.is_err() && staged.try_exists()? {
        std::fs::remove_file(&staged)?;
    }
    published?;
    sync_folder(&path)
}

fn publish(staged: &Path, path: &Path, name: &Name, parts: &[&[u8]]) -> io::Result<()> {
    match renameat_with(CWD, staged, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Some network mounts cannot do that either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => publish_anyhow(staged, path, name, parts),
        Err(error) => Err(error.into()),
    }
}

/// The last resort. A name that holds the hash of its bytes may be overwritten by the same bytes; any
/// other is opened as a new file, where a crash leaves a part of it: refused later, never mistaken.
fn publish_anyhow(staged: &Path, path: &Path, name: &Name, parts: &[&[u8]]) -> io::Result<()> {
    if name.is_not_content_addressed() {
        fill(OpenOptions::new().write(true).create_new(true).open(path)?, parts)?;
        return std::fs::remove_file(staged);
    }
    if path.try_exists()? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    std::fs::rename(staged, path)
}

/// The name of the object whose upload left this file behind: `name#digits`.
fn temporary_of(relative: &str) -> Option<Name> {
    let (name, digits) = relative.rsplit_once('#')?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| Name::parse(name))?
}

/// Removes the temporary files of uploads that ended over an hour ago.
///
/// # Errors
/// A folder cannot be read, or a file not removed.
pub(super) fn sweep(root: &Path, now: Timestamp) -> Result<Swept> {
    let mut swept = Swept::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        sweep_folder(root, &folder, now, (&mut folders, &mut swept)).map_err(|error| {
            let text = format!("could not remove old temporary files in {}", folder.display());
            Error::new(ErrorKind::Failed, text).with_source(error)
        })?;
    }
    Ok(swept)
}

fn sweep_folder(
    root: &Path,
    folder: &Path,
    now: Timestamp,
    (folders, swept): (&mut Vec<PathBuf>, &mut Swept),
) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            folders.push(path);
            continue;
        }
        let relative = path.strip_prefix(root).ok().and_then(Path::to_str);
        if !kind.is_file() || relative.and_then(temporary_of).is_none() {
            continue;
        }
        // Another sweep, or the upload itself, may be faster.
        let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let found = match entry.metadata() {
            Err(error) if missing(&error) => continue,
            other => other?,
        };
        let written = found.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Duration::from_secs(u64::try_from(now.seconds).unwrap_or(0));
        if now.saturating_sub(written) <= ABANDONED {
            continue;
        }
        match std::fs::remove_file(&path) {
            Err(error) if missing(&error) => {}
            other => {
                other?;
                swept.files += 1;
                swept.bytes += found.len();
            }
        }
    }
    Ok(())
}

/// Whether others may hold the fence at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Others that share it.
    Shared,
    /// Nobody.
    Exclusive,
}

/// Keeps others out of a local folder, or in it, until it is dropped. The kernel drops it with the process.
#[derive(Debug)]
#[must_use = "a fence that is dropped keeps nobody out"]
pub struct Fence {
    _locked: File,
}

/// What came of an attempt to fence a folder.
pub(super) enum Fencing {
    /// It is ours.
    Ours(Fence),
    /// Somebody else is in there.
    Busy,
    /// This file system has no locks.
    Impossible,
}

/// Tries once.
///
/// # Errors
/// The lock file cannot be opened.
pub(super) fn fence(folder: &Path, sharing: Sharing) -> Result<Fencing> {
    let path = folder.join(LOCK);
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Failed, format!("could not lock {}", path.display()))
            .with_remedy("Check who may write to the folder of the repository")
            .with_source(error)
    };
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    let operation = match sharing {
        Sharing::Shared => FlockOperation::NonBlockingLockShared,
        Sharing::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(&file, operation) {
        Ok(()) => Ok(Fencing::Ours(Fence { _locked: file })),
        Err(Errno::WOULDBLOCK) => Ok(Fencing::Busy),
        Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => Ok(Fencing::Impossible),
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> [Name; 2] {
        [Name::config(), Name::registry(1, &crate::id::ObjectId::new([1; 32]))]
    }

    #[test]
    fn without_hard_links_an_object_is_still_created_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in names() {
            create_without_links(folder.path(), &name, &[b"on", b"e"]).unwrap();
            let again = create_without_links(folder.path(), &name, &[b"two"]).unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(folder.path().join(name.as_str())).unwrap(), b"one");
        }
        // No temporary file stays.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(std::fs::read_dir(folder.path().join("registry")).unwrap().count(), 1);
    }

    #[test]
    fn without_a_careful_rename_an_object_is_still_created_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in names() {
            let path = folder.path().join(name.as_str());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            for (bytes, expected) in [(b"one", None), (b"two", Some(io::ErrorKind::AlreadyExists))] {
                let (file, staged) = stage(&path).unwrap();
                fill(file, &[bytes]).unwrap();
                let published = publish_anyhow(&staged, &path, &name, &[bytes]);
                assert_eq!(published.err().map(|error| error.kind()), expected, "{name}");
                assert_eq!(std::fs::read(&path).unwrap(), b"one");
                assert_eq!(staged.try_exists().unwrap(), expected.is_some());
            }
        }
    }

    #[test]
    fn only_temporary_files_of_our_own_names_are_ours_to_remove() {
        assert_eq!(temporary_of("config#1"), Some(Name::config()));
        for other in ["config", "config#", "config#x", "notes#1", "#1", "d/x#1"] {
            assert_eq!(temporary_of(other), None, "{other}");
        }
    }
}
