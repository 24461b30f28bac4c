//! Local writes that survive a crash: a temporary file, fsync, rename, fsync of the folder.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use crate::error::{Error, ErrorKind, Result};

fn cannot<'a>(what: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Error + use<'a> {
    move |error| {
        Error::new(ErrorKind::Failed, format!("could not {what} {}", path.display())).with_source(error)
    }
}

/// Makes a folder that only this user can enter, with its parents.
///
/// # Errors
/// It cannot be made.
pub fn private_directory(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(cannot("create the folder", path))
}

/// Replaces a file as a whole: whoever looks sees the old bytes or the new ones, also after a crash.
///
/// # Errors
/// The disk is full or cannot be written; the old file stays.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let failed = cannot("write", path);
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
    };
    write().map_err(|error| {
        // What went wrong is reported; a temporary file that cannot be removed either adds nothing to it.
        drop(fs::remove_file(&temporary));
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_a_failure_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        private_directory(&inner).unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        let path = inner.join("file");
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1);
        assert!(write_atomic(&inner.join("missing/file"), b"x", 0o600).is_err());
    }
}
