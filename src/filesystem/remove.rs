//! Removes what a snapshot does not have from a target: by the handles of the folders that it has looked at, following no
//! link, never in another file system than the one that it begins in, and never what must stay.

use std::{
    collections::HashSet,
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use rustix::{
    fs::{Access, AtFlags, CWD, OFlags, accessat, unlinkat},
    io::Errno,
    process::geteuid,
};

use super::{
    capture,
    filter::Filter,
    old::{FileId, Found, OWNER_RIGHTS, is_closed_to_us, names_of, set_mode},
    partial::{claim, is_unfinished, meanwhile},
    restore::{DIRECTORY, Folder, Target, component, open_beneath},
    rights,
    select::Selection,
    shown, shown_in, system_error,
    unmet::Names,
    walk::Listing,
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
pub trait Onlooker {
    /// It went, or would go.
    fn gone(&mut self, path: &[u8], found: &Found);

    /// Something stays, and with it every folder that it is in.
    fn stays(&mut self) {}

    /// Something is not to go, since it is immutable or append-only.
    ///
    /// # Errors
    /// That ends the removal. Without one it counts as gone.
    fn frozen(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    /// Something cannot go, since the user may write nothing in the folder that it is in. Only asked where nothing is changed.
    ///
    /// # Errors
    /// As [`Self::frozen`].
    fn denied(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Tells only what went. What must stay is an error of the path that was to go.
struct Told<'a> {
    told: &'a mut dyn FnMut(&[u8]),
    path: &'a [u8],
}

impl Told<'_> {
    /// What is called so in an error of the whole.
    fn called(&self, path: &[u8]) -> String {
        if path == self.path { "it".to_owned() } else { whole(path) }
    }
}

impl Onlooker for Told<'_> {
    fn gone(&mut self, path: &[u8], _: &Found) {
        (self.told)(path);
    }

    fn frozen(&mut self, path: &[u8]) -> Result<()> {
        let what = format!("{} is immutable or append-only, and not in the snapshot", self.called(path));
        Err(Error::new(ErrorKind::Failed, what)
            .with_remedy("It stays, since somebody meant it to: `chattr -i -a` lets it go"))
    }

    fn denied(&mut self, path: &[u8]) -> Result<()> {
        let what = format!("{} is in a folder that this user cannot write to", self.called(path));
        Err(Error::new(ErrorKind::Failed, what)
            .with_remedy("Restore as a user who may write there, or leave it out with --exclude"))
    }
}

/// A path of the snapshot, for people.
fn whole(path: &[u8]) -> String {
    format!("/{}", shown(path))
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
    /// What a backup leaves out, and so stays.
    pub left_out: &'a Filter,
    /// What stays in any case.
    pub never: &'a Never,
    /// Whether anything is changed.
    pub removal: Removal,
    /// Where nothing is changed: a file that is immutable or append-only would be thawed first, by whoever may.
    pub thaws: bool,
    /// Says whether to go on: a tree may be large.
    pub progress: &'a Progress,
}

/// The bit of a folder in which everybody may only take away what is theirs.
const STICKY: u32 = 0o1000;

/// Of so many folders, the innermost ones, a handle is kept.
const HANDLES_MAX: usize = 64;

/// A folder that is being emptied.
struct Open {
    path: Vec<u8>,
    found: Found,
    /// A handle of it, but where others are in it whose handles are kept.
    dir: Option<Folder>,
    names: Names,
    next: usize,
    /// Something in it stays, or it is not meant itself.
    stays: bool,
    /// It was closed to its owner, and is opened up.
    opened_up: bool,
}

/// The folders that are being emptied, each in the one before it. Whatever is mounted or moved meanwhile, they are the
/// ones that were looked at.
struct Way {
    /// The folder that the first one is in.
    top: Folder,
    open: Vec<Open>,
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
        self.remove_before(path, &mut Told { told, path })
    }

    /// As [`Self::remove`]; what is in a folder is told before the folder.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub fn remove_before(&self, path: &[u8], onlooker: &mut dyn Onlooker) -> Result<bool> {
        let Some(top) = self.target.existing_directory(split(self.below(path)).0)? else { return Ok(true) };
        let mut way = Way { top, open: Vec::new() };
        let removed = self.empty(path, &mut way, onlooker);
        // What could not be gone through stays, the innermost first.
        let mut closed = Ok(());
        while !way.open.is_empty() {
            closed = closed.and(self.leave(&mut way));
        }
        removed.and_then(|removed| closed.map(|()| removed))
    }

    fn empty(&self, path: &[u8], way: &mut Way, onlooker: &mut dyn Onlooker) -> Result<bool> {
        let mut step = self.step(path, way, onlooker)?;
        loop {
            match step {
                Step::Enter(folder) => {
                    if folder.stays {
                        onlooker.stays();
                    }
                    way.enter(folder);
                }
                Step::Stays => {
                    onlooker.stays();
                    match way.open.last_mut() {
                        Some(folder) => folder.stays = true,
                        None => return Ok(false),
                    }
                }
                Step::Gone if way.open.is_empty() => return Ok(true),
                Step::Gone => {}
            }
            step = self.next(way, onlooker)?;
        }
    }

    /// The next name of the innermost folder; after the last one the folder itself.
    fn next(&self, way: &mut Way, onlooker: &mut dyn Onlooker) -> Result<Step> {
        let Some(folder) = way.open.last_mut() else { return Ok(Step::Gone) };
        if let Some(name) = folder.names.listing.get(folder.next) {
            let path = join(&folder.path, name);
            folder.next += 1;
            return self.step(&path, way, onlooker);
        }
        if folder.stays {
            return self.leave(way).map(|()| Step::Stays);
        }
        let Some(folder) = way.open.pop() else { return Ok(Step::Gone) };
        let gone = self.unlink(&folder.path, way, (&folder.found, &mut *onlooker));
        if let Err(error) = gone {
            // It stays, as it was.
            way.enter(folder);
            return Err(error);
        }
        onlooker.gone(&folder.path, &folder.found);
        Ok(Step::Gone)
    }

    /// The innermost folder stays: it gets its mode back.
    fn leave(&self, way: &mut Way) -> Result<()> {
        let opened = way.open.last().is_some_and(|folder| folder.opened_up);
        let dir = if opened { Some(self.innermost(way)) } else { None };
        match (way.open.pop(), dir) {
            (Some(folder), Some(dir)) => set_mode(dir?.as_fd(), folder.found.mode())
                .map_err(|errno| system_error("close again", whole(&folder.path), errno)),
            _ => Ok(()),
        }
    }

    /// A handle of the innermost folder.
    fn innermost(&self, way: &mut Way) -> Result<Folder> {
        let Some(folder) = way.open.last_mut() else { return Ok(Arc::clone(&way.top)) };
        if let Some(dir) = &folder.dir {
            return Ok(Arc::clone(dir));
        }
        let dir = self.target.existing_directory(self.below(&folder.path))?;
        let dir =
            dir.filter(|dir| is_still(dir.as_fd(), &folder.found)).ok_or_else(|| replaced(&folder.path))?;
        folder.dir = Some(Arc::clone(&dir));
        Ok(dir)
    }

    fn below<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        path.get(self.strip..).unwrap_or_default()
    }

    fn step(&self, path: &[u8], way: &mut Way, onlooker: &mut dyn Onlooker) -> Result<Step> {
        self.progress.check()?;
        let (dir, name) = (self.innermost(way)?, component(split(path).1)?);
        let found = match capture::status(dir.as_fd(), &name) {
            Ok(status) => Found::of(&status),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(system_error("look at", whole(path), errno)),
        };
        let Some(found) = found else { return Ok(Step::Gone) };
        let is_folder = found.kind == EntryKind::Directory;
        let selected = self.selection.selects(path, is_folder);
        if !is_folder {
            // A file that is half rewritten may be all that there is of it.
            let is_kept =
                is_unfinished(name.to_bytes()) || self.left_out.is_too_large(found.kind, found.size);
            if !selected || found.mount || is_kept {
                return Ok(Step::Stays);
            }
            let thaws = self.thaws && self.removal == Removal::Tell && !found.is_stuck();
            if found.frozen && !thaws {
                onlooker.frozen(path)?;
            }
            self.unlink(path, way, (&found, &mut *onlooker))?;
            onlooker.gone(path, &found);
            return Ok(Step::Gone);
        }
        if found.mount || self.never.has(&found) || !self.selection.reaches_into(path) {
            return Ok(Step::Stays);
        }
        if found.frozen {
            onlooker.frozen(path)?;
        }
        if self.removal == Removal::Tell && found.is_hidden_from_us() {
            // It would be opened up first; what is in it nobody sees before.
            onlooker.gone(path, &found);
            return Ok(Step::Gone);
        }
        self.enter((path, &name), (&dir, found), !selected)
    }

    /// Opens a folder that was found in `dir`, and lists it.
    fn enter(
        &self,
        (path, name): (&[u8], &CStr),
        (dir, found): (&Folder, Found),
        stays: bool,
    ) -> Result<Step> {
        let cannot = |errno| system_error("list the folder", whole(path), errno);
        let opened_up = self.removal == Removal::Remove && open_up(dir, name, &found);
        let opened = open_beneath(dir.as_fd(), name, DIRECTORY).map_err(cannot).and_then(|opened| {
            let now = capture::status(opened.as_fd(), c"").map_err(cannot)?;
            let now = Found::of(&now).filter(|now| now.is(&found)).ok_or_else(|| replaced(path))?;
            let names = names_of(opened.as_fd(), self.left_out).map_err(cannot)?;
            Ok((Arc::new(opened), now.mount || names.is_left_out, names))
        });
        match opened {
            Ok((opened, false, names)) => {
                let (path, dir) = (path.to_vec(), Some(opened));
                Ok(Step::Enter(Open { path, found, dir, names, next: 0, stays, opened_up }))
            }
            other => {
                if opened_up {
                    close_again(dir, name, &found)
                        .map_err(|errno| system_error("close again", whole(path), errno))?;
                }
                other.map(|_| Step::Stays)
            }
        }
    }

    fn unlink(
        &self,
        path: &[u8],
        way: &mut Way,
        (found, onlooker): (&Found, &mut dyn Onlooker),
    ) -> Result<()> {
        let dir = self.innermost(way)?;
        if self.removal == Removal::Tell {
            let denied = denied(dir.as_fd(), true).or_else(|| denied_name(dir.as_fd(), found, true));
            return if denied.is_some() { onlooker.denied(path) } else { Ok(()) };
        }
        let is_folder = found.kind == EntryKind::Directory;
        let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        unlink_in(&dir, &component(split(path).1)?, flags, &[b"/", path].concat())
    }
}

impl Way {
    fn enter(&mut self, folder: Open) {
        self.open.push(folder);
        let outer = self.open.len().checked_sub(HANDLES_MAX + 1).and_then(|at| self.open.get_mut(at));
        outer.into_iter().for_each(|outer| outer.dir = None);
    }
}

/// A handle that only names a folder that was found, if it is still that one.
fn named(dir: &Folder, name: &CStr, found: &Found) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open_beneath(dir.as_fd(), name, flags).ok().filter(|opened| is_still(opened.as_fd(), found))
}

/// Lets us change what is in a folder of ours; whether that was needed, and done.
fn open_up(dir: &Folder, name: &CStr, found: &Found) -> bool {
    let given = |opened: OwnedFd| set_mode(opened.as_fd(), found.mode() | OWNER_RIGHTS).is_ok();
    found.is_closed_to_us() && named(dir, name, found).is_some_and(given)
}

fn close_again(dir: &Folder, name: &CStr, found: &Found) -> rustix::io::Result<()> {
    named(dir, name, found).map_or(Ok(()), |opened| set_mode(opened.as_fd(), found.mode()))
}

/// Whether it is the folder that was found, and nothing is mounted there.
fn is_still(dir: BorrowedFd<'_>, found: &Found) -> bool {
    let now = capture::status(dir, c"").ok().as_ref().and_then(Found::of);
    now.is_some_and(|now| now.is(found) && !now.mount)
}

fn replaced(path: &[u8]) -> Error {
    meanwhile(format!("{} was replaced, or something was mounted there, while it was emptied", whole(path)))
}

impl Target {
    /// What has another name in a folder than these, and is found by one of them all the same: its file system takes two
    /// spellings for one name, and keeps the older.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn spelled_otherwise(&self, folder: &[u8], names: &[Vec<u8>]) -> Result<Spelled> {
        let mut spelled = HashSet::new();
        let dir = if names.is_empty() { None } else { self.existing_directory(folder)? };
        let Some(dir) = dir else { return Ok(Spelled(spelled)) };
        let listing = Listing::read(dir.as_fd())
            .map_err(|errno| system_error("list the folder", shown(folder), errno))?;
        for name in names.iter().filter(|name| !listing.contains(name)) {
            // What is no name at all was not restored.
            let status = component(name).ok().and_then(|name| capture::status(dir.as_fd(), &name).ok());
            spelled.extend(status.as_ref().and_then(Found::of).map(|found| found.file));
        }
        Ok(Spelled(spelled))
    }
}

impl Target {
    /// Removes the unfinished file at `path` if no restore is at it.
    ///
    /// # Errors
    /// The system does not let it.
    pub fn forget_unfinished(&self, path: &[u8]) -> Result<()> {
        let (folder, name) = split(path);
        let (Some(dir), name) = (self.existing_directory(folder)?, component(name)?) else { return Ok(()) };
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // What cannot be opened is none of ours.
        let Ok(file) = open_beneath(dir.as_fd(), &name, flags) else { return Ok(()) };
        if claim(file.as_fd()) { unlink_in(&dir, &name, AtFlags::empty(), path) } else { Ok(()) }
    }
}

/// What is found by a name that it has not.
#[derive(Debug)]
pub struct Spelled(HashSet<FileId>);

impl Spelled {
    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is.
    #[must_use]
    pub fn has(&self, found: &Found) -> bool {
        self.0.contains(&found.file)
    }
}

/// Why a user may not change what is in a folder, though it is on something that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// They may not write to it.
    Rights,
    /// It is immutable or append-only, or what has the name in it is.
    Frozen,
    /// It is sticky, and neither it nor what has the name in it is theirs.
    Sticky,
}

impl Denied {
    /// What can be done about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Frozen => "Let root run `chattr -i -a` on it, or leave it out with --exclude",
            Self::Sticky | Self::Rights => {
                "Restore as a user who may write there, or leave it out with --exclude"
            }
        }
    }
}

/// Why the user may change nothing in a folder, if so.
pub(super) fn denied_as_it_is(dir: BorrowedFd<'_>) -> Option<Denied> {
    match accessat(dir, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Err(Errno::ACCESS) => Some(Denied::Rights),
        Err(Errno::PERM) => Some(Denied::Frozen),
        Ok(()) | Err(_) => None,
    }
}

/// As [`denied_as_it_is`]: a closed one of their own is opened up, and a frozen one thawed by who may, if anybody `thaws` it.
pub(super) fn denied(dir: BorrowedFd<'_>, thaws: bool) -> Option<Denied> {
    denied_as_it_is(dir).filter(|denied| match denied {
        Denied::Frozen => !(thaws && rights::may_freeze()),
        Denied::Rights | Denied::Sticky => !is_closed_to_us(dir),
    })
}

/// Whether no name in a folder can be changed: it is immutable or append-only, and stays so.
pub(super) fn keeps_names(dir: BorrowedFd<'_>, thaws: bool) -> bool {
    let found = capture::status(dir, c"").ok().as_ref().and_then(Found::of);
    found.is_some_and(|found| found.frozen && !(thaws && rights::may_freeze()))
}

/// Checks that what is made in a folder under another name can get its own, and go if it may not: append-only folders
/// take new names and let none go.
///
/// # Errors
/// The folder is immutable or append-only.
pub(super) fn check_names(dir: BorrowedFd<'_>) -> Result<()> {
    if keeps_names(dir, false) { Err(frozen_folder(shown_in(dir, c""))) } else { Ok(()) }
}

/// The error of a folder in which nothing can be made, though its mount and its mode allow it.
pub(super) fn frozen_folder(folder: impl std::fmt::Display) -> Error {
    system_error("write to the folder", folder, Errno::PERM).with_remedy(Denied::Frozen.remedy())
}

/// Why the user may not give the name of what was found in a folder to something else, nor take it away, if so.
pub(super) fn denied_name(dir: BorrowedFd<'_>, found: &Found, thaws: bool) -> Option<Denied> {
    let folder = capture::status(dir, c"").ok().as_ref().and_then(Found::of)?;
    if found.is_stuck() || folder.frozen && !(thaws && rights::may_freeze()) {
        return Some(Denied::Frozen);
    }
    let us = geteuid().as_raw();
    let is_theirs = folder.owner().0 != us && found.owner().0 != us && !rights::may_as_owner(found.owner());
    (folder.mode() & STICKY != 0 && is_theirs).then_some(Denied::Sticky)
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
                left_out: &Filter::default(),
                never: &never,
                removal,
                thaws: false,
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
        let left_out = Filter::default();
        let (target, selection, never, left_out) = (&target, &selection, &never, &left_out);
        let (removal, progress) = (Removal::Remove, &progress);
        let remover =
            Remover { target, strip: 0, selection, left_out, never, removal, thaws: false, progress };
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

    #[test]
    fn what_comes_into_the_place_of_a_folder_that_is_being_emptied_stays() {
        // Of the outer folders of a deep tree no handle is kept.
        for depth in [1, HANDLES_MAX + 10] {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            let deep = at("x").join(vec!["d"; depth].join("/"));
            fs::create_dir_all(&deep).unwrap();
            for file in [deep.join("1"), at("x/z")] {
                drop(fs::File::create(file).unwrap());
            }
            let target = Target::open(folder.path()).unwrap();
            let (selection, never, left_out) = (Selection::default(), Never::default(), Filter::default());
            let (target, selection, never, left_out) = (&target, &selection, &never, &left_out);
            let (removal, progress) = (Removal::Remove, &Progress::default());
            let remover =
                Remover { target, strip: 0, selection, left_out, never, removal, thaws: false, progress };
            let mut told = 0;
            let ended = remover.remove(b"x", &mut |_| {
                if told == 0 {
                    fs::rename(at("x"), at("away")).unwrap();
                    fs::create_dir(at("x")).unwrap();
                    std::io::Write::write_all(&mut fs::File::create(at("x/z")).unwrap(), b"of somebody")
                        .unwrap();
                }
                told += 1;
            });
            let error = ended.unwrap_err().to_string();
            assert_eq!(fs::read(at("x/z")).unwrap(), b"of somebody");
            let left = fs::read_dir(at("away")).unwrap().count();
            assert_eq!(left == 0, depth == 1, "{error}");
            assert_eq!(error.contains("replaced"), depth != 1, "{error}");
            fs::remove_dir_all(at("x")).unwrap();
            fs::rename(at("away"), at("x")).unwrap();
            assert!(remover.remove(b"x", &mut |_| ()).unwrap() && !at("x").try_exists().unwrap());
        }
    }

    #[test]
    fn what_is_found_by_a_name_that_its_folder_does_not_list_is_known() {
        // Threads are, in /proc.
        let (told, thread) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                told.send(rustix::thread::gettid().as_raw_nonzero().to_string()).unwrap();
                ends.recv().unwrap_err();
            });
            let thread = thread.recv().unwrap();
            let proc = Target::open(std::path::Path::new("/proc")).unwrap();
            let names =
                [thread.clone().into_bytes(), b"not there".to_vec(), b"stat".to_vec(), b"..".to_vec()];
            let spelled = proc.spelled_otherwise(b"", &names).unwrap();
            let at = |name: &[u8]| super::super::old::Look::new(&proc).at(name).unwrap().unwrap();
            assert!(spelled.has(&at(thread.as_bytes())) && !spelled.has(&at(b"stat")));
            drop(end);
        });
    }
}
