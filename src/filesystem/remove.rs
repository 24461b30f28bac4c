//! Removes what a snapshot does not have from a target: by directory handles, following no link, never in another
//! file system than the one that it begins in, and never what must stay.

use std::{collections::HashSet, ffi::CStr, os::fd::AsFd, path::PathBuf};

use rustix::{
    fs::{AtFlags, CWD, unlinkat},
    io::Errno,
};

use super::{
    capture,
    old::{FileId, Found, Look, names_of},
    partial::is_unfinished,
    restore::{Folder, Target, component},
    select::Selection,
    shown, system_error,
    unmet::Names,
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        entry::EntryKind,
        path::{join, split},
    },
    progress::Progress,
};

/// Folders that nobody lists or removes, however they are reached: the repository's, the cache.
#[derive(Debug, Default)]
pub struct Never(HashSet<FileId>);

impl Never {
    /// Those that are there.
    #[must_use]
    pub fn new(folders: &[PathBuf]) -> Self {
        let identity = |path: &PathBuf| {
            let path = path.canonicalize().ok()?;
            let name = std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).ok()?;
            Some(Found::of(&capture::status(CWD, &name).ok()?)?.file)
        };
        Self(folders.iter().filter_map(identity).collect())
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn has(&self, found: &Found) -> bool {
        !self.0.is_empty() && self.0.contains(&found.file)
    }
}

/// Whether anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// What is meant is removed.
    Remove,
    /// It is only told.
    Tell,
}

/// Is told what becomes of each name.
pub trait Watch {
    /// It went, or would go.
    fn gone(&mut self, path: &[u8], found: &Found);

    /// Something stays, and with it every folder that it is in.
    fn stays(&mut self) {}

    /// Something is not to go, since it is immutable or append-only.
    ///
    /// # Errors
    /// That ends the removal. Without one it counts as gone.
    fn frozen(&mut self, path: &[u8]) -> Result<()> {
        Err(frozen(path))
    }
}

/// Tells only what went.
struct Told<'a>(&'a mut dyn FnMut(&[u8]));

impl Watch for Told<'_> {
    fn gone(&mut self, path: &[u8], _: &Found) {
        (self.0)(path);
    }
}

/// Removes from a target.
#[derive(Debug)]
pub struct Remover<'a> {
    /// Where.
    pub target: &'a Target,
    /// Bytes of each path that are above the target.
    pub strip: usize,
    /// What is meant: everything else stays.
    pub selection: &'a Selection,
    /// What stays in any case.
    pub never: &'a Never,
    /// Whether anything is changed.
    pub removal: Removal,
    /// Says whether to go on: a tree may be large.
    pub progress: &'a Progress,
}

/// A folder that is being emptied.
struct Open {
    path: Vec<u8>,
    found: Found,
    names: Names,
    next: usize,
    /// Something in it stays, or it is not meant itself.
    stays: bool,
    /// It was closed to its owner, and is opened up.
    opened_up: bool,
}

/// What became of one name.
enum Step {
    Gone,
    Stays,
    Enter(Open),
}

impl Remover<'_> {
    /// Removes what is at `path`, with everything in it, and tells each path that went; whether nothing is there
    /// any more. What stays keeps the folders that it is in.
    ///
    /// # Errors
    /// The system does not let it. `Interrupted` if it is to stop.
    pub fn remove(&self, path: &[u8], told: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.remove_watched(path, &mut Told(told))
    }

    /// As [`Self::remove`]; what is in a folder is told before the folder.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub fn remove_watched(&self, path: &[u8], watch: &mut dyn Watch) -> Result<bool> {
        let mut look = Look::new(self.target);
        let mut open: Vec<Open> = Vec::new();
        let removed = self.empty(path, (&mut open, &mut look), watch);
        // What could not be gone through stays, the innermost first.
        let closed = std::iter::from_fn(|| open.pop()).map(|folder| self.leave(&folder, &mut look));
        let closed = closed.fold(Ok(()), Result::and);
        removed.and_then(|removed| closed.map(|()| removed))
    }

    fn empty(
        &self,
        path: &[u8],
        (open, look): (&mut Vec<Open>, &mut Look<'_>),
        watch: &mut dyn Watch,
    ) -> Result<bool> {
        let mut step = self.step(path, look, watch)?;
        loop {
            match step {
                Step::Enter(folder) => {
                    if folder.stays {
                        watch.stays();
                    }
                    open.push(folder);
                }
                Step::Stays => {
                    watch.stays();
                    match open.last_mut() {
                        Some(folder) => folder.stays = true,
                        None => return Ok(false),
                    }
                }
                Step::Gone if open.is_empty() => return Ok(true),
                Step::Gone => {}
            }
            step = self.next(open, look, watch)?;
        }
    }

    /// The next name of the innermost folder; after the last one the folder itself.
    fn next(&self, open: &mut Vec<Open>, look: &mut Look<'_>, watch: &mut dyn Watch) -> Result<Step> {
        let Some(folder) = open.last_mut() else { return Ok(Step::Gone) };
        if let Some(name) = folder.names.listing.get(folder.next) {
            let path = join(&folder.path, name);
            folder.next += 1;
            return self.step(&path, look, watch);
        }
        if folder.stays {
            return open.pop().map_or(Ok(()), |folder| self.leave(&folder, look)).map(|()| Step::Stays);
        }
        self.unlink(&folder.path, look, AtFlags::REMOVEDIR)?;
        watch.gone(&folder.path, &folder.found);
        open.pop();
        Ok(Step::Gone)
    }

    /// A folder stays: it gets its mode back.
    fn leave(&self, folder: &Open, look: &mut Look<'_>) -> Result<()> {
        if folder.opened_up { look.close(self.below(&folder.path), &folder.found) } else { Ok(()) }
    }

    fn below<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        path.get(self.strip..).unwrap_or_default()
    }

    fn step(&self, path: &[u8], look: &mut Look<'_>, watch: &mut dyn Watch) -> Result<Step> {
        self.progress.check()?;
        let Some(found) = look.at(self.below(path))? else { return Ok(Step::Gone) };
        let is_folder = found.kind == EntryKind::Directory;
        let selected = self.selection.selects(path, is_folder);
        if !is_folder {
            // A file that is half rewritten may be all that there is of it.
            if !selected || found.mount || is_unfinished(split(path).1) {
                return Ok(Step::Stays);
            }
            if found.frozen {
                watch.frozen(path)?;
            }
            self.unlink(path, look, AtFlags::empty())?;
            watch.gone(path, &found);
            return Ok(Step::Gone);
        }
        if found.mount || self.never.has(&found) || !self.selection.reaches_into(path) {
            return Ok(Step::Stays);
        }
        if found.frozen {
            watch.frozen(path)?;
        }
        if self.removal == Removal::Tell && found.is_hidden_from_us() {
            // It would be opened up first; what is in it nobody sees before.
            watch.gone(path, &found);
            return Ok(Step::Gone);
        }
        let opened = self.removal == Removal::Remove && look.open_up(self.below(path), &found)?;
        let mut folder = Open {
            path: path.to_vec(),
            found,
            names: Names::default(),
            next: 0,
            stays: !selected,
            opened_up: opened,
        };
        match self.names(path, look) {
            Ok(Some(names)) => {
                folder.names = names;
                Ok(Step::Enter(folder))
            }
            Ok(None) => self.leave(&folder, look).map(|()| Step::Stays),
            Err(error) => self.leave(&folder, look).and(Err(error)),
        }
    }

    fn names(&self, path: &[u8], look: &mut Look<'_>) -> Result<Option<Names>> {
        let Some(dir) = look.folder(self.below(path))? else { return Ok(None) };
        names_of(dir.as_fd()).map(Some).map_err(|errno| system_error("list the folder", shown(path), errno))
    }

    fn unlink(&self, path: &[u8], look: &mut Look<'_>, flags: AtFlags) -> Result<()> {
        let (folder, name) = split(self.below(path));
        let name = component(name)?;
        let dir = look.folder(folder)?;
        match (self.removal, dir) {
            (Removal::Remove, Some(dir)) => unlink_in(&dir, &name, flags, path),
            _ => Ok(()),
        }
    }
}

/// Says that somebody meant it to stay.
#[must_use]
fn frozen(path: &[u8]) -> Error {
    Error::new(
        ErrorKind::Failed,
        format!("{} is immutable or append-only, and not in the snapshot", shown(path)),
    )
    .with_remedy("It stays, since somebody meant it to: `chattr -i -a` lets it go")
}

fn unlink_in(dir: &Folder, name: &CStr, flags: AtFlags, path: &[u8]) -> Result<()> {
    match unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // It is told of this one, and the rest goes on: a snapshot of btrfs may be read-only in a file system that is not.
        Err(Errno::ROFS) => {
            Err(Error::new(ErrorKind::Failed, format!("{} is on something that is read-only", shown(path)))
                .with_remedy(
                    "It stays: a subvolume or a mount; make it writable, or leave it out with --exclude",
                ))
        }
        Err(errno) => Err(system_error("remove", shown(path), errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn what_is_meant_goes_and_what_is_not_keeps_the_folders_that_it_is_in() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        fs::create_dir_all(at("t/x/deep/er")).unwrap();
        fs::create_dir_all(at("t/x/repository/packs")).unwrap();
        fs::create_dir_all(at("outside")).unwrap();
        for file in ["t/x/a", "t/x/deep/er/b", "t/x/deep/b.keep", "outside/c"] {
            drop(fs::File::create(at(file)).unwrap());
        }
        symlink(at("outside"), at("t/x/link")).unwrap();
        let target = Target::open(&at("t")).unwrap();
        let never = Never::new(&[at("t/x/repository")]);
        let remove = |excludes: &[&str], removal| {
            let excludes: Vec<String> = excludes.iter().map(|&text| text.to_owned()).collect();
            let selection = Selection::new(&[], &excludes).unwrap();
            let remover = Remover {
                target: &target,
                strip: 4,
                selection: &selection,
                never: &never,
                removal,
                progress: &Progress::default(),
            };
            let mut told = Vec::new();
            let gone = remover
                .remove(b"srv/x", &mut |path| told.push(String::from_utf8(path.to_vec()).unwrap()))
                .unwrap();
            (gone, told)
        };
        let expected = ["srv/x/a", "srv/x/deep/er/b", "srv/x/deep/er", "srv/x/link"].map(str::to_owned);
        assert_eq!(remove(&["*.keep"], Removal::Tell), (false, expected.to_vec()));
        assert!(at("t/x/a").try_exists().unwrap());
        assert_eq!(remove(&["*.keep"], Removal::Remove), (false, expected.to_vec()));
        assert!(at("t/x/deep/b.keep").try_exists().unwrap() && !at("t/x/deep/er").try_exists().unwrap());
        assert!(!remove(&[], Removal::Remove).0);
        assert!(at("t/x/repository/packs").try_exists().unwrap() && !at("t/x/deep").try_exists().unwrap());
        assert!(at("outside/c").try_exists().unwrap());
        fs::remove_dir_all(at("t/x/repository")).unwrap();
        assert!(remove(&[], Removal::Remove).0 && !at("t/x").try_exists().unwrap());
    }
    #[test]
    fn a_removal_that_is_interrupted_leaves_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("x/y")).unwrap();
        for name in ["x/y/1", "x/y/2", "x/3"] {
            drop(fs::File::create(folder.path().join(name)).unwrap());
        }
        let target = Target::open(folder.path()).unwrap();
        let (selection, never, progress) = (Selection::default(), Never::default(), Progress::default());
        let (target, selection, never) = (&target, &selection, &never);
        let remover =
            Remover { target, strip: 0, selection, never, removal: Removal::Remove, progress: &progress };
        let mut told = 0;
        let ended = remover.remove(b"x", &mut |_| {
            told += 1;
            progress.stop();
        });
        assert_eq!((ended.unwrap_err().kind(), told), (ErrorKind::Interrupted, 1));
        let left = fs::read_dir(folder.path().join("x/y")).unwrap().count()
            + fs::read_dir(folder.path().join("x")).unwrap().count();
        assert_eq!(left, 3);
    }
}
