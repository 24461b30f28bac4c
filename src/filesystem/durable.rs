//! Local writes that survive a crash: the old content or the new, never a mixture, and private folders.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, ErrorKind, Result},
    id::to_hex,
    random,
};

/// Random hexadecimal digits for a name that nobody can guess.
pub(super) fn random_suffix() -> Result<String> {
    Ok(to_hex(&random::bytes::<8>()?))
}

/// Writes a file so that after a crash it holds its old content or the new, and after this returns the new.
///
/// # Errors
/// It cannot be written; the old content is then untouched.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let failed = |error: io::Error| {
        Error::new(kind_of(&error), format!("cannot write {}", path.display())).with_source(error)
    };
    let (folder, temporary) = temporary_name(path)?;
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The mode above went through the umask.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        // Best effort: what failed is reported, not the clearing up after it.
        drop(fs::remove_file(&temporary));
        return Err(failed(error));
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// What a file of ours holds; `None` where there is none, and where what is there is no file or too long. A pipe or
/// a device that somebody put there is not waited for.
#[must_use]
pub fn read_own(path: &Path, most: usize) -> Option<Vec<u8>> {
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(no_wait).open(path).ok()?;
    let length = file.metadata().ok().filter(fs::Metadata::is_file)?.len();
    if length > u64::try_from(most).ok()? {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Writes to what a user named: a device or a pipe takes the bytes, and a link stays. A file is replaced as a
/// whole and keeps its mode; a new one gets this one.
///
/// # Errors
/// It cannot be written.
pub fn write_to(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let failed = |error: io::Error| {
        Error::new(kind_of(&error), format!("cannot write {}", path.display())).with_source(error)
    };
    match fs::metadata(path) {
        Ok(status) if status.is_file() => {
            let file = path.canonicalize().map_err(failed)?;
            write_atomic(&file, bytes, status.mode() & 0o777)
        }
        Err(_nothing) if path.symlink_metadata().is_err() => write_atomic(path, bytes, mode),
        // A link that leads nowhere yet is written through too.
        _ => OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(failed),
    }
}

fn temporary_name(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let Some(name) = path.file_name() else {
        return Err(Error::new(ErrorKind::Failed, format!("{} is not the name of a file", path.display())));
    };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    // Only a short piece of the name: the whole of it with a suffix may be too long.
    let mut temporary = OsString::from(".lifeboat-");
    temporary.push(random_suffix()?);
    temporary.push(if name.len() <= 128 { name } else { "partial".as_ref() });
    Ok((folder.clone(), folder.join(temporary)))
}

fn kind_of(error: &io::Error) -> ErrorKind {
    if error.kind() == io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Failed }
}

/// Makes a folder that only its owner can enter, with its parents; one that exists is left as it is.
///
/// # Errors
/// It cannot be made, is not a folder, belongs to someone else, or others may write in it.
pub fn private_directory(path: &Path) -> Result<()> {
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Failed, format!("cannot make the folder {}", path.display())).with_source(error)
    };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    check_private(path)
}

/// Checks that a folder is there that only its owner, who is this user, can write in.
///
/// # Errors
/// It is not there, is not a folder, belongs to someone else, or others may write in it.
pub fn check_private(path: &Path) -> Result<()> {
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Failed, format!("cannot use the folder {}", path.display())).with_source(error)
    };
    let status = fs::metadata(path).map_err(failed)?;
    if !status.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let remedy = format!("choose another folder, or see to it that only you can write in {}", path.display());
    if status.uid() != rustix::process::geteuid().as_raw() {
        let message = format!("{} belongs to another user", path.display());
        return Err(Error::new(ErrorKind::Failed, message).with_remedy(remedy));
    }
    if status.mode() & 0o022 != 0 {
        let message = format!("others may write in {}", path.display());
        return Err(Error::new(ErrorKind::Failed, message).with_remedy(remedy));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_whole_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        write_atomic(&path, b"a longer first content", 0o600).unwrap();
        write_atomic(&path, b"second", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        fs::create_dir_all(path.join("inside")).unwrap();
        assert!(write_atomic(&path, b"x", 0o600).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let missing = folder.path().join("no/f");
        assert_eq!(write_atomic(&missing, b"x", 0o600).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn the_longest_name_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n".repeat(255));
        write_atomic(&path, b"x", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }

    #[test]
    fn a_private_folder_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        private_directory(&path).unwrap();
        private_directory(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(private_directory(&path).is_err());
    }

    #[test]
    fn what_is_no_file_or_too_long_is_not_read_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write_atomic(&path("file"), b"four", 0o600).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("zeros")).unwrap();
        let pipe = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), pipe, rustix::fs::Mode::RUSR, 0).unwrap();
        assert_eq!(read_own(&path("file"), 4).unwrap(), b"four");
        for (name, most) in [("file", 3), ("zeros", 100), ("pipe", 100), ("nothing", 100)] {
            assert!(read_own(&path(name), most).is_none(), "{name}");
        }
    }
}
