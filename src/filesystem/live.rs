//! Looks at a tree that is there, by paths below a folder, without following any link.

use std::{
    ffi::{CStr, CString},
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::{Errno, fcntl_dupfd_cloexec},
};

use super::{
    attributes,
    capture::{self, Surroundings},
    filter::Filter,
    mounts::is_mounted_on,
    old::{OpenedUp, names_of},
    open_quietly,
    read::{self, Seen},
    restore::open_beneath,
    rights, shown, system_error,
    trail::Trail,
    unmet::Names,
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        entry::{EntryKind, Metadata},
        path::{is_at_or_below, split},
    },
};

/// What is done about folders and files of the user's own that their modes close to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Closed {
    /// Nothing: what is in them cannot be looked at.
    #[default]
    Leave,
    /// Each is opened up as long as it is looked into, and gets its mode back.
    OpenUp,
}

/// A handle that only names something, be it closed to the user.
const NAMING: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A tree that is there.
#[derive(Debug)]
pub struct LiveTree {
    root: OwnedFd,
    around: Surroundings,
    closed: Closed,
    /// The folder that was looked into last, by its path.
    folder: Option<(Vec<u8>, OwnedFd)>,
    trail: Trail,
    /// Of that one and those that it is in the ones that are opened up, the outermost first.
    opened: Vec<(Vec<u8>, OpenedUp)>,
}

impl LiveTree {
    /// The tree below a folder.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn open(path: &Path, closed: Closed) -> Result<Self> {
        // To root nothing is closed.
        let closed = if rights::overrides_its_own_modes() { Closed::Leave } else { closed };
        let open = |access| openat(CWD, path, access | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let cannot = |errno| {
            let error = system_error("open the folder", path.display(), errno);
            match errno {
                Errno::NOENT | Errno::NOTDIR => error.with_remedy("Name the folder that the files are in"),
                _ => error,
            }
        };
        let root = match open(OFlags::RDONLY) {
            Err(Errno::ACCESS) if closed == Closed::OpenUp => open(OFlags::PATH),
            other => other,
        };
        let (root, around, trail) = (root.map_err(cannot)?, Surroundings::default(), Trail::default());
        let mut tree = Self { root, around, closed, folder: None, trail, opened: Vec::new() };
        if closed == Closed::OpenUp {
            // It stays so until the end: everything is in it.
            tree.open_up(b"").map_err(cannot)?;
        }
        Ok(tree)
    }

    fn enter(&mut self, folder: &[u8]) -> rustix::io::Result<()> {
        if self.folder.as_ref().is_some_and(|(known, _)| known == folder) {
            return Ok(());
        }
        while self.opened.pop_if(|(path, _)| !is_at_or_below(folder, path)).is_some() {}
        let dir = match self.handle(folder) {
            Err(Errno::ACCESS) if self.closed == Closed::OpenUp => {
                for (at, _) in folder.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                    self.open_up(&folder[..at])?;
                }
                self.handle(folder)
            }
            other => other,
        }?;
        self.folder = Some((folder.to_vec(), dir));
        if self.closed == Closed::OpenUp { self.open_up(folder) } else { Ok(()) }
    }

    fn handle(&mut self, folder: &[u8]) -> rustix::io::Result<OwnedFd> {
        if folder.is_empty() {
            // By its name nobody may find it who may not look into it.
            return fcntl_dupfd_cloexec(&self.root, 0);
        }
        self.trail.open(self.root.as_fd(), folder, NAMING | OFlags::DIRECTORY)
    }

    /// Opens up a folder, if that is needed, for as long as something in it is looked at.
    fn open_up(&mut self, folder: &[u8]) -> rustix::io::Result<()> {
        if self.opened.iter().all(|(path, _)| path != folder) {
            let handle = self.handle(folder)?;
            self.opened.extend(OpenedUp::to_read(handle).map(|opened| (folder.to_vec(), opened)));
        }
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
            Ok(mut captured) => {
                // The target itself is open while something is looked at.
                if let Some((_, opened)) = self.opened.iter().find(|(known, _)| known == path) {
                    captured.metadata.mode = opened.mode();
                }
                Ok(Some(captured.metadata))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(system_error("look at", shown(path), errno)),
        }
    }

    /// Whether something is mounted on what is at `path`.
    pub fn is_mounted_on(&mut self, path: &[u8]) -> bool {
        let Ok(Some(name)) = self.place(path) else { return false };
        let (Ok(name), Some((_, dir))) = (c_name(name), &self.folder) else { return false };
        capture::status(dir.as_fd(), &name).is_ok_and(|status| is_mounted_on(&status))
    }

    /// Adds the attributes of what is at `path`, but of files: theirs come with [`attributes::of_open`] when they are open.
    pub fn describe(&mut self, path: &[u8], metadata: &mut Metadata) {
        let Ok(Some(name)) = self.place(path) else { return };
        // The empty name is that of the folder itself.
        let name = if name.is_empty() { b"." } else { name };
        let (Ok(name), Some((_, dir))) = (c_name(name), &self.folder) else { return };
        match metadata.kind {
            EntryKind::File => {}
            EntryKind::Directory => {
                let open = || open_quietly(dir.as_fd(), &name, OFlags::DIRECTORY);
                let opened = match open() {
                    Err(Errno::ACCESS) => {
                        let _meanwhile = self.opened_meanwhile(dir.as_fd(), &name);
                        open()
                    }
                    other => other,
                };
                match opened {
                    Ok(opened) => attributes::of_open(opened.as_fd(), metadata),
                    Err(_) => attributes::of_name(dir.as_fd(), &name, metadata),
                }
            }
            _ => attributes::of_name(dir.as_fd(), &name, metadata),
        }
    }

    /// Opens up what has the name, if that is needed, for a moment.
    fn opened_meanwhile(&self, dir: BorrowedFd<'_>, name: &CStr) -> Option<OpenedUp> {
        let handle = || open_beneath(dir, name, NAMING).ok();
        if self.closed == Closed::OpenUp { handle().and_then(OpenedUp::to_read) } else { None }
    }

    /// The names in the folder at `path`; `None` if there is no such folder. The empty path is the folder itself.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn names(&mut self, path: &[u8], left_out: &Filter) -> Result<Option<Names>> {
        let cannot = |errno| system_error("list the folder", shown(path), errno);
        match self.enter(path) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(cannot(errno)),
        }
        let Some((_, dir)) = &self.folder else { return Ok(None) };
        let dir = open_quietly(dir.as_fd(), c".", OFlags::DIRECTORY).map_err(cannot)?;
        names_of(dir.as_fd(), left_out).map(Some).map_err(cannot)
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
        let _meanwhile = self.opened_meanwhile(dir.as_fd(), &name);
        read::open_file(dir.as_fd(), &name, &Seen::of(&now.metadata, now.device))
    }
}

fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|nul| Error::damaged("the manifest", "a path holds a NUL").with_source(nul))
}
