//! Looks at a tree that is there, by paths below a folder, without following any link.

use std::{
    ffi::CString,
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};

use super::{
    attributes,
    capture::{self, Surroundings},
    old::names_of,
    open_quietly,
    read::{self, Seen},
    shown, system_error,
    trail::Trail,
    unmet::Names,
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        entry::{EntryKind, Metadata},
        path::split,
    },
};

/// A tree that is there.
#[derive(Debug)]
pub struct LiveTree {
    root: OwnedFd,
    around: Surroundings,
    /// The folder that was looked into last, by its path.
    folder: Option<(Vec<u8>, OwnedFd)>,
    trail: Trail,
}

impl LiveTree {
    /// The tree below a folder.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).map_err(|errno| {
            let error = system_error("open the folder", path.display(), errno);
            match errno {
                Errno::NOENT | Errno::NOTDIR => error.with_remedy("Name the folder that the files are in"),
                _ => error,
            }
        })?;
        Ok(Self { root, around: Surroundings::default(), folder: None, trail: Trail::default() })
    }

    fn enter(&mut self, folder: &[u8]) -> rustix::io::Result<()> {
        if self.folder.as_ref().is_some_and(|(known, _)| known == folder) {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = if folder.is_empty() { b"." } else { folder };
        let dir = self.trail.open(self.root.as_fd(), path, flags)?;
        self.folder = Some((folder.to_vec(), dir));
        Ok(())
    }

    fn place<'p>(&mut self, path: &'p [u8]) -> Result<Option<&'p [u8]>> {
        let (folder, name) = split(path);
        match self.enter(folder) {
            Ok(()) => Ok(Some(name)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(system_error("open the folder", shown(folder), errno)),
        }
    }

    /// The metadata of what is at `path`; `None` if nothing is. The empty path is the folder itself.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn metadata(&mut self, path: &[u8]) -> Result<Option<Metadata>> {
        let Some(name) = self.place(path)? else { return Ok(None) };
        let name = c_name(name)?;
        let Some((_, dir)) = &self.folder else { return Ok(None) };
        match capture::capture(dir.as_fd(), &name, &mut self.around) {
            Ok(captured) => Ok(Some(captured.metadata)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(system_error("look at", shown(path), errno)),
        }
    }

    /// Adds the attributes of what is at `path`, but of files: theirs come with [`attributes::of_open`] when they are open.
    pub fn describe(&mut self, path: &[u8], metadata: &mut Metadata) {
        let Ok(Some(name)) = self.place(path) else { return };
        // The empty name is that of the folder itself.
        let name = if name.is_empty() { b"." } else { name };
        let (Ok(name), Some((_, dir))) = (c_name(name), &self.folder) else { return };
        match metadata.kind {
            EntryKind::File => {}
            EntryKind::Directory => match open_quietly(dir.as_fd(), &name, OFlags::DIRECTORY) {
                Ok(opened) => attributes::of_open(opened.as_fd(), metadata),
                Err(_) => attributes::of_name(dir.as_fd(), &name, metadata),
            },
            _ => attributes::of_name(dir.as_fd(), &name, metadata),
        }
    }

    /// The names in the folder at `path`; `None` if there is no such folder. The empty path is the folder itself.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn names(&mut self, path: &[u8]) -> Result<Option<Names>> {
        let cannot = |errno| system_error("list the folder", shown(path), errno);
        match self.enter(path) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(cannot(errno)),
        }
        let Some((_, dir)) = &self.folder else { return Ok(None) };
        let dir = open_quietly(dir.as_fd(), c".", OFlags::DIRECTORY).map_err(cannot)?;
        names_of(dir.as_fd()).map(Some).map_err(cannot)
    }

    /// Opens the file at `path` that [`Self::metadata`] described.
    ///
    /// # Errors
    /// It cannot be opened, or another file took its place.
    pub fn file(&mut self, path: &[u8], metadata: &Metadata) -> Result<File> {
        let name = c_name(self.place(path)?.unwrap_or_default())?;
        let cannot = |errno| system_error("open", shown(path), errno);
        let Some((_, dir)) = &self.folder else { return Err(cannot(Errno::NOENT)) };
        let now = capture::capture(dir.as_fd(), &name, &mut self.around).map_err(cannot)?;
        if (now.metadata.inode, now.metadata.device_key) != (metadata.inode, metadata.device_key) {
            return Err(Error::new(ErrorKind::Failed, format!("{} was replaced meanwhile", shown(path))));
        }
        read::open_file(dir.as_fd(), &name, &Seen::of(&now.metadata, now.device))
    }
}

fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|nul| Error::damaged("the manifest", "a path holds a NUL").with_source(nul))
}
