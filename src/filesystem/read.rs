//! Opens files that the walk found, making sure that they are still the same file, and reads them to an end.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};

use super::{
    attributes,
    capture::{self, Captured, Surroundings},
    holes::Sparse,
    mounts::made_up_by,
    open_quietly, reason, shown, system_error,
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::entry::{EntryKind, Hole, Metadata},
};

/// What the system counts the space of a file in.
const BLOCK_BYTES: u64 = 512;

/// A file of so many bytes is asked for its holes in any case: one that has space for what is to come takes no less space
/// than its size, and may have holes all the same. That is one more call for each file that is read.
const LARGE_BYTES: u64 = 64 << 10;
/// A file is read to its end, and at most so many bytes beyond the size that it had. Those that the kernel or
/// a program makes up say a size of 0, and may have no end.
const BEYOND_BYTES_MAX: u64 = 64 << 20;
/// How often a name is looked at again whose file was replaced between the look and the opening.
const LOOKS_MAX: u32 = 4;

/// How the walk saw a regular file: enough to know it again, and to notice a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its device and inode.
    file: ((u32, u32), u64),
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
}

impl Seen {
    /// What `metadata` and the number of its device say.
    #[must_use]
    pub const fn of(metadata: &Metadata, device: (u32, u32)) -> Self {
        let Metadata { inode, size, mtime, ctime, .. } = *metadata;
        Self { file: (device, inode), size, mtime, ctime }
    }
}

/// Opens the regular file `name` of `dir` that the walk has seen.
///
/// It never waits (a pipe put in the file's place does not hold it up), follows no link, and leaves
/// the access time alone where that is allowed.
///
/// # Errors
/// `NotFound` if it vanished; `Failed` if it cannot be opened; `Differences` if another file took its place.
pub fn open_file(dir: BorrowedFd<'_>, name: &CStr, seen: &Seen) -> Result<File> {
    Ok(open_with_size(dir, name, seen)?.0)
}

/// As [`open_file`], with the size that the file has now if it may have holes: it takes less space than that, or is large.
fn open_with_size(dir: BorrowedFd<'_>, name: &CStr, seen: &Seen) -> Result<(File, Option<u64>)> {
    let object = || shown(name.to_bytes());
    let replaced = || {
        let what = format!("{} was replaced while it was opened", object());
        Error::new(ErrorKind::Differences, what)
    };
    let opened = match open_quietly(dir, name, OFlags::NONBLOCK | OFlags::NOCTTY) {
        Err(Errno::AGAIN) => open_leased(dir, name),
        other => other,
    };
    let file = File::from(opened.map_err(|errno| match errno {
        Errno::LOOP => replaced(),
        _ => system_error("open", object(), errno),
    })?);
    let now = capture::status(file.as_fd(), c"").map_err(|errno| system_error("look at", object(), errno))?;
    let file_now = ((now.stx_dev_major, now.stx_dev_minor), now.stx_ino);
    if capture::kind(&now) != Some(EntryKind::File) || file_now != seen.file {
        return Err(replaced());
    }
    let taken = now.stx_blocks.saturating_mul(BLOCK_BYTES);
    let may_have_holes = taken < now.stx_size || now.stx_size >= LARGE_BYTES;
    Ok((file, may_have_holes.then_some(now.stx_size)))
}

/// Opens a regular file on which someone holds a lease (Samba, NFS): only an open that waits makes them let go. What is
/// waited for is the inode that was looked at, not the name: a pipe that took its place would never let go.
fn open_leased(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let looked_at = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let status = capture::status(looked_at.as_fd(), c"")?;
    if capture::kind(&status) != Some(EntryKind::File) {
        // As for a link: something else took its place.
        return Err(Errno::LOOP);
    }
    let path = format!("/proc/self/fd/{}", looked_at.as_raw_fd());
    let opened = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty());
    // It cannot have vanished; without /proc nobody can wait for it.
    opened.map_err(|errno| if errno == Errno::NOENT { Errno::AGAIN } else { errno })
}

/// Whether the file has changed since it was seen: its size, its mtime or its ctime.
///
/// # Errors
/// The system does not tell.
pub fn has_changed(file: &File, seen: &Seen) -> Result<bool> {
    let now = capture::status(file.as_fd(), c"").map_err(|errno| {
        Error::new(ErrorKind::Failed, format!("cannot look at an open file: {}", reason(errno)))
            .with_source(errno)
    })?;
    Ok(now.stx_size != seen.size
        || capture::timestamp(&now.stx_mtime) != seen.mtime
        || capture::timestamp(&now.stx_ctime) != seen.ctime)
}

/// A name that a regular file had when the walk saw it.
#[derive(Clone, Debug)]
pub struct Name {
    /// The folder that it is in.
    pub dir: Arc<OwnedFd>,
    /// Its name there.
    pub name: CString,
}

/// What became of a file that changed.
#[derive(Debug)]
pub enum Now {
    /// A file is there, with this metadata, and will be read from its beginning.
    Is(Box<Metadata>),
    /// Nothing is there any more.
    Gone,
}

/// The content of a regular file, read from its beginning to its end.
#[derive(Debug)]
pub struct Reader {
    name: Name,
    seen: Seen,
    /// `None` when another file has taken the place of the one that was seen: then nothing is read before
    /// it was looked at again.
    file: Option<File>,
    /// How it is read if it has holes.
    sparse: Option<Sparse>,
    /// How many bytes were read.
    read: u64,
}

impl Reader {
    /// Opens the file that was seen under this name. One that another file has replaced since has changed.
    ///
    /// # Errors
    /// As [`open_file`], but not `Differences`.
    pub fn open(name: Name, seen: Seen) -> Result<Self> {
        let (file, sparse) = match open_with_size(name.dir.as_fd(), &name.name, &seen) {
            Ok((file, size)) => {
                let sparse = size.map(|size| Sparse::new(&file, size));
                (Some(file), sparse.filter(Sparse::has_holes))
            }
            Err(error) if error.kind() == ErrorKind::Differences => (None, None),
            Err(error) => return Err(error),
        };
        Ok(Self { name, seen, file, sparse, read: 0 })
    }

    /// Adds to the metadata what only the open file tells: its attributes.
    pub fn describe(&self, metadata: &mut Metadata) {
        if let Some(file) = &self.file {
            attributes::of_open(file.as_fd(), metadata);
        }
    }

    /// The holes that were passed over so far.
    #[must_use]
    pub fn holes(&self) -> &[Hole] {
        self.sparse.as_ref().map_or(&[], Sparse::passed)
    }

    /// How many more bytes are read at most.
    const fn left(&self) -> u64 {
        self.seen.size.saturating_add(BEYOND_BYTES_MAX).saturating_sub(self.read)
    }

    /// Whether the file has changed since it was seen: what the system says of it, or how long it is. Asked after
    /// the last byte was read. What the kernel makes up may have any length.
    ///
    /// # Errors
    /// The system does not tell; or the file gave far more than its size says, and does not say that it grew.
    pub fn has_changed(&self) -> Result<bool> {
        let Some(file) = &self.file else { return Ok(true) };
        if has_changed(file, &self.seen)? {
            return Ok(true);
        }
        if self.left() == 0 {
            let what = format!(
                "it has no end: it gave {} MiB more than its size of {} bytes",
                BEYOND_BYTES_MAX >> 20,
                self.seen.size
            );
            return Err(Error::new(ErrorKind::Failed, what));
        }
        let length = self.holes().iter().fold(self.read, |sum, hole| sum.saturating_add(hole.length));
        Ok(length != self.seen.size && made_up_by(file).is_none())
    }

    /// Looks at the name again, and begins anew with the file that is there now.
    ///
    /// # Errors
    /// It cannot be looked at or opened, is no regular file any more, or is replaced again and again.
    pub fn again(&mut self) -> Result<Now> {
        let Name { dir, name } = &self.name;
        let object = || shown(name.to_bytes());
        for _ in 0..LOOKS_MAX {
            let captured = match capture::capture(dir.as_fd(), name, &mut Surroundings::default()) {
                Err(Errno::NOENT) => return Ok(Now::Gone),
                other => other.map_err(|errno| system_error("look at", object(), errno))?,
            };
            let Captured { metadata, device, .. } = captured;
            if metadata.kind != EntryKind::File {
                let what = format!("{} was a file, and became something else while it was read", object());
                return Err(Error::new(ErrorKind::Failed, what));
            }
            let seen = Seen::of(&metadata, device);
            match Self::open(self.name.clone(), seen) {
                Ok(reader) if reader.file.is_some() => {
                    *self = reader;
                    return Ok(Now::Is(Box::new(metadata)));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Now::Gone),
                Err(error) => return Err(error),
            }
        }
        let what = format!("{} was replaced by another file again and again", object());
        Err(Error::new(ErrorKind::Failed, what))
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left()).unwrap_or(usize::MAX).min(buffer.len());
        let Some(file) = &mut self.file else { return Ok(0) };
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let read = match &mut self.sparse {
            None => file.read(buffer)?,
            Some(sparse) => sparse.read(file, buffer)?,
        };
        self.read += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        path::Path,
    };

    use super::*;
    use crate::filesystem::capture::Surroundings;

    fn seen(folder: &Path, name: &CStr) -> (File, Seen) {
        let dir = File::open(folder).unwrap();
        let captured = capture::capture(dir.as_fd(), name, &mut Surroundings::default()).unwrap();
        (dir, Seen::of(&captured.metadata, captured.device))
    }

    #[test]
    fn a_file_is_read_and_a_change_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap().write_all(b"hello").unwrap();
        let (dir, seen) = seen(folder.path(), c"f");
        let mut file = open_file(dir.as_fd(), c"f", &seen).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(!has_changed(&file, &seen).unwrap());
        File::options().append(true).open(&path).unwrap().write_all(b"!").unwrap();
        assert!(has_changed(&file, &seen).unwrap());
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_neither_blocks_nor_passes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap();
        let (dir, seen) = seen(folder.path(), c"f");
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(&dir, c"f", rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(open_file(dir.as_fd(), c"f", &seen).is_err());
    }

    #[test]
    fn a_file_with_a_lease_is_waited_for_and_what_took_its_place_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap().write_all(b"leased").unwrap();
        let dir = File::open(folder.path()).unwrap();
        let mut text = String::new();
        File::from(open_leased(dir.as_fd(), c"f").unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "leased");
        fs::rename(&path, folder.path().join("g")).unwrap();
        std::os::unix::fs::symlink("g", &path).unwrap();
        assert_eq!(open_leased(dir.as_fd(), c"f").unwrap_err(), Errno::LOOP);
        fs::remove_file(&path).unwrap();
        // Nobody writes into it: an open that waits would wait for ever.
        rustix::fs::mknodat(&dir, c"f", rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(open_leased(dir.as_fd(), c"f").unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap();
        let (dir, seen) = seen(folder.path(), c"f");
        fs::rename(&path, folder.path().join("g")).unwrap();
        std::os::unix::fs::symlink("g", &path).unwrap();
        assert!(open_file(dir.as_fd(), c"f", &seen).is_err());
        fs::remove_file(&path).unwrap();
        assert_eq!(open_file(dir.as_fd(), c"f", &seen).unwrap_err().kind(), ErrorKind::NotFound);
    }

    fn reader(dir: &File, seen: Seen) -> Result<Reader> {
        let dir = Arc::new(OwnedFd::from(dir.try_clone().unwrap()));
        Reader::open(Name { dir, name: c"f".to_owned() }, seen)
    }

    fn text(reader: &mut Reader) -> String {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_file_that_another_one_replaced_is_read_only_after_a_new_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap().write_all(b"old").unwrap();
        let (dir, seen) = seen(folder.path(), c"f");
        File::create(folder.path().join("g")).unwrap().write_all(b"newer").unwrap();
        fs::rename(folder.path().join("g"), &path).unwrap();
        let mut reader = reader(&dir, seen).unwrap();
        assert_eq!(text(&mut reader), "");
        assert!(reader.has_changed().unwrap());
        let Now::Is(metadata) = reader.again().unwrap() else { panic!("it is there") };
        assert_eq!((metadata.size, text(&mut reader).as_str()), (5, "newer"));
        assert!(!reader.has_changed().unwrap());
        fs::remove_file(&path).unwrap();
        assert!(reader.has_changed().unwrap(), "it has one name less");
        assert!(matches!(reader.again().unwrap(), Now::Gone));
        fs::create_dir(&path).unwrap();
        let error = reader.again().unwrap_err();
        assert!(error.to_string().contains("became something else"), "{error}");
    }

    #[test]
    fn a_file_without_end_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        // It says that it is empty, as files in /proc do, and gives zeros for ever.
        File::create(&path).unwrap();
        let (dir, seen) = seen(folder.path(), c"f");
        let mut reader = reader(&dir, seen).unwrap();
        reader.file = Some(File::open("/dev/zero").unwrap());
        let status = capture::status(reader.file.as_ref().unwrap().as_fd(), c"").unwrap();
        let (mtime, ctime) = (capture::timestamp(&status.stx_mtime), capture::timestamp(&status.stx_ctime));
        reader.seen = Seen { mtime, ctime, ..seen };
        let read = io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(read, BEYOND_BYTES_MAX);
        let error = reader.has_changed().unwrap_err();
        assert!(error.to_string().contains("no end"), "{error}");
        // A file whose length is not what the system says, and which says that it did not change.
        reader.read = 9;
        assert!(reader.has_changed().unwrap());
        reader.read = 0;
        assert!(!reader.has_changed().unwrap());
    }

    #[test]
    fn reading_leaves_the_access_time_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap().write_all(b"x").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        // Older than the change: even `relatime` would take note of a reading.
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        file.set_times(fs::FileTimes::new().set_accessed(old)).unwrap();
        let (dir, seen) = seen(folder.path(), c"f");
        assert_eq!(text(&mut reader(&dir, seen).unwrap()), "x");
        assert_eq!(fs::metadata(&path).unwrap().accessed().unwrap(), old);
    }
}
