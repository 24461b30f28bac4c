//! Walks sources in manifest order: sorted by path component by component, a directory before what
//! is in it. Memory grows with the largest directory and the depth, not with the number of files.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ffi::CString,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{CWD, Mode, OFlags, RawDir, Statx, openat},
    io::Errno,
};

pub use super::filter::{Filter, FilterOptions, Pattern, Why};
use super::{
    attributes,
    capture::{self, Captured, Surroundings, capture},
    mounts::{self, Mounts, On, Sight},
    open_quietly, pattern, reason, shown, system_error,
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::entry::{EntryKind, Metadata},
    limits::PATH_BYTES_MAX,
};

/// Bytes of the buffer that directories are listed through.
const LISTING_BYTES: usize = 32 << 10;

/// The absolute path of a source: links in the folders above it are resolved (a manifest cannot hold
/// an entry below a link), but not the source itself.
///
/// # Errors
/// `Usage` if there is no such folder above it.
pub fn resolve_source(path: &Path) -> Result<PathBuf> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Usage, format!("cannot find {}", path.display())).with_source(error)
    };
    match path.file_name() {
        Some(name) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok(parent.unwrap_or(Path::new(".")).canonicalize().map_err(failed)?.join(name))
        }
        // It ends in `..` or is the root: no link can be last.
        None => path.canonicalize().map_err(failed),
    }
}

/// What a step of the walk gives.
#[derive(Debug)]
pub enum Walked {
    /// An entry.
    Entry(Box<Found>),
    /// A name of which there is no metadata.
    Error(WalkError),
    /// Something that a rule leaves out; what is inside it nobody has looked at.
    LeftOut(LeftOut),
    /// A name that was gone between the listing of its folder and the look at it.
    Vanished,
    /// Nothing more can be found: the system is short of something. What comes after would be missing.
    Failed(Error),
}

/// An entry that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its absolute path without the leading slash.
    pub path: Vec<u8>,
    /// Its metadata.
    pub metadata: Metadata,
    /// A handle of the folder that it is in.
    pub dir: Arc<OwnedFd>,
    /// The device as the kernel numbers it now.
    pub device: (u32, u32),
    /// Its name in there.
    pub name: CString,
    /// Why a folder could not be listed, if it could not.
    pub error: Option<String>,
    /// The user named it.
    pub is_source: bool,
    /// It is what is left of a file that must not be read: only that it is there.
    pub is_hollow: bool,
}

/// Something that a rule leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its absolute path without the leading slash, or the path of the folder that stays without what is in it.
    pub path: Vec<u8>,
    /// The rule.
    pub why: Why,
    /// How many entries, not counting what is inside them.
    pub entries: u64,
    /// Their bytes, as far as they are files.
    pub bytes: u64,
}

/// A name of which there is no metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkError {
    /// The absolute path without the leading slash.
    pub path: Vec<u8>,
    /// Why.
    pub error: String,
    /// It is a source that the user named.
    pub missing_source: bool,
}

/// Sources, as a tree of names.
#[derive(Debug, Default)]
struct Wanted {
    /// A source itself, not only a folder above one.
    source: bool,
    below: BTreeMap<Vec<u8>, Self>,
}

impl Wanted {
    fn tree(sources: &[PathBuf]) -> Self {
        let mut tree = Self::default();
        for source in sources {
            let names = source.as_os_str().as_bytes().split(|byte| *byte == b'/');
            let names = names.filter(|name| !name.is_empty());
            let node = names.fold(&mut tree, |node, name| node.below.entry(name.to_vec()).or_default());
            node.source = true;
        }
        tree
    }

    /// The sources at and below `path`, which cannot be reached.
    fn sources(self, path: Vec<u8>, found: &mut Vec<Vec<u8>>) {
        for (name, node) in self.below {
            node.sources(join(&path, &name), found);
        }
        if self.source {
            found.push(path);
        }
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// The names in a folder, in one piece of memory: a folder may hold millions.
#[derive(Debug, Default)]
pub(super) struct Listing {
    bytes: Vec<u8>,
    /// Start and end in `bytes`, sorted by the name there.
    names: Vec<(usize, usize)>,
}

impl Listing {
    pub(super) fn of(names: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut listing = Self::default();
        names.for_each(|name| listing.push(&name));
        listing.sort();
        listing
    }

    pub(super) fn read(dir: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let mut listing = Self::default();
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                listing.push(name);
            }
        }
        listing.sort();
        Ok(listing)
    }

    fn push(&mut self, name: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.names.push((start, self.bytes.len()));
    }

    fn sort(&mut self) {
        let Self { bytes, names } = self;
        names.sort_unstable_by(|a, b| bytes[a.0..a.1].cmp(&bytes[b.0..b.1]));
        names.dedup_by(|a, b| bytes[a.0..a.1] == bytes[b.0..b.1]);
    }

    /// Drops names of more bytes, and says how many they were.
    fn keep_shorter(&mut self, most: usize) -> usize {
        let before = self.names.len();
        self.names.retain(|(start, end)| end - start <= most);
        before - self.names.len()
    }

    /// Keeps the names that are meant.
    pub(super) fn retain(&mut self, meant: impl Fn(&[u8]) -> bool) {
        let Self { bytes, names } = self;
        names.retain(|(start, end)| meant(&bytes[*start..*end]));
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.names.binary_search_by(|at| self.bytes[at.0..at.1].cmp(name)).is_ok()
    }

    pub(super) fn get(&self, at: usize) -> Option<&[u8]> {
        self.names.get(at).map(|(start, end)| &self.bytes[*start..*end])
    }
}

/// So many folders that the walk is in are open at once: the others are opened again when it comes back to them.
const OPEN_FOLDERS: usize = 64;

/// A folder that is being walked.
#[derive(Debug)]
struct Folder {
    /// Bytes of its path.
    length: usize,
    /// `None` while it is far above what is walked.
    dir: Option<Arc<OwnedFd>>,
    /// Its device and inode.
    identity: ((u32, u32), u64),
    listing: Listing,
    next: usize,
    /// Sources among its names, not yet met.
    wanted: BTreeMap<Vec<u8>, Wanted>,
    /// It is part of a source, so everything in it counts; else only what leads to a source.
    inside: bool,
    /// The mount that it is on.
    on: On,
    /// The mount of the source it is part of.
    source_on: On,
}

/// What is known of the mounts when the walk begins.
#[derive(Debug, Default)]
struct Known {
    /// Of each mount the kind of its file system, if the kernel makes it up.
    made_up: HashMap<u64, Option<&'static str>>,
    /// Mounts that are seen at another place too.
    elsewhere: HashMap<u64, PathBuf>,
}

impl Known {
    fn new(mounts: &Mounts, sources: &[PathBuf], filter: &Filter) -> Self {
        let elsewhere = match filter.options().one_file_system {
            // No mount is entered.
            true => HashMap::new(),
            false => mounts.seen_elsewhere(sources, filter),
        };
        Self { made_up: mounts.made_up(), elsewhere }
    }
}

/// A folder with what is in it, if it can be listed.
fn listed(folder: &Path) -> Option<(OwnedFd, Listing)> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    let dir = open_quietly(CWD, &path, OFlags::DIRECTORY).ok()?;
    let listing = Listing::read(dir.as_fd()).ok()?;
    Some((dir, listing))
}

impl Sight for Filter {
    fn takes(&self, source: &Path, place: &Path, other: &Path) -> bool {
        let is_walked = |folder: &Path| {
            listed(folder).is_some_and(|(dir, listing)| {
                // A source is taken whatever marks it.
                folder == source || self.marker(dir.as_fd(), &|name| listing.contains(name)).is_none()
            })
        };
        let tells_apart = |pattern: &Pattern| pattern::tells_apart(&pattern.text, [place, other]);
        !self.leaves_out(source, place)
            && !self.options().patterns().any(tells_apart)
            && place.ancestors().skip(1).take_while(|folder| folder.starts_with(source)).all(is_walked)
    }

    fn is_empty(&self, path: &Path) -> bool {
        listed(path).is_some_and(|(_, listing)| listing.names.is_empty())
    }
}

/// Walks sources in manifest order. Use it as an iterator.
#[derive(Debug)]
pub struct Walk {
    filter: Filter,
    around: Surroundings,
    stack: Vec<Folder>,
    /// The path of the innermost folder: those of the others are the beginnings of it.
    path: Vec<u8>,
    waiting: VecDeque<Walked>,
    mounts: Known,
}

impl Walk {
    /// Walks absolute paths (see [`resolve_source`]). The folders above a source are entries too;
    /// a source that is a symbolic link is one entry; overlapping sources come once.
    #[must_use]
    pub fn new(sources: &[PathBuf], filter: Filter) -> Self {
        let (stack, path, waiting) = (Vec::new(), Vec::new(), VecDeque::new());
        let mounts = Known::new(&Mounts::of_this_process(), sources, &filter);
        let mut walk = Self { filter, around: Surroundings::default(), stack, path, waiting, mounts };
        let tree = Wanted::tree(sources);
        match openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(root) => walk.enter_root(root, tree),
            Err(errno) => walk.unreachable(tree, Vec::new(), errno),
        }
        walk
    }

    fn enter_root(&mut self, root: OwnedFd, mut tree: Wanted) {
        let status = capture::status(root.as_fd(), c"").ok();
        let identity = status.as_ref().map_or(((0, 0), 0), identity);
        let on = status.as_ref().map_or_else(On::default, On::of);
        let wanted = std::mem::take(&mut tree.below);
        let folder = Folder {
            length: 0,
            dir: Some(Arc::new(root)),
            identity,
            listing: Listing::of(wanted.keys().cloned()),
            next: 0,
            wanted,
            inside: tree.source,
            on,
            source_on: on,
        };
        self.stack.push(folder);
        if tree.source
            && let Err(errno) = self.list_root()
        {
            // The root has no entry of its own that could say so.
            self.waiting.push_back(Walked::Failed(system_error("list", "/", errno)));
        }
    }

    fn list_root(&mut self) -> rustix::io::Result<()> {
        let dir = open_quietly(CWD, c"/", OFlags::DIRECTORY)?;
        let mut listing = Listing::read(dir.as_fd())?;
        if let Some(folder) = self.stack.last_mut() {
            folder.wanted.keys().for_each(|name| listing.push(name));
            listing.sort();
            folder.listing = listing;
        }
        Ok(())
    }

    /// Reports the sources at and below `path`.
    fn unreachable(&mut self, wanted: Wanted, path: Vec<u8>, errno: Errno) {
        let mut sources = Vec::new();
        wanted.sources(path, &mut sources);
        sources.sort_unstable_by(|a, b| crate::format::node::compare_paths(a, b));
        for path in sources {
            let error = format!("cannot read /{}: {}", shown(&path), reason(errno));
            self.waiting.push_back(Walked::Error(WalkError { path, error, missing_source: true }));
        }
    }

    /// Ends the walk: what is not seen for want of memory or handles must not look as if it were not there.
    fn fail(&mut self, path: &[u8], errno: Errno) -> Walked {
        self.stack.clear();
        Walked::Failed(system_error("look at", format!("/{}", shown(path)), errno))
    }

    /// Looks at one name; `None` if there is nothing to tell about it.
    fn visit(&mut self, path: Vec<u8>, name: CString, wanted: Option<Wanted>) -> Option<Walked> {
        let folder = self.stack.last()?;
        let Some(dir) = folder.dir.clone() else {
            let error = format!("cannot read /{}: its folder was moved while it was walked", shown(&path));
            let missing_source = wanted.is_some();
            return Some(Walked::Error(WalkError { path, error, missing_source }));
        };
        let captured = match capture(dir.as_fd(), &name, &mut self.around) {
            Ok(captured) => captured,
            Err(errno) if is_shortage(errno) => return Some(self.fail(&path, errno)),
            Err(errno) => match wanted {
                Some(wanted) => {
                    self.unreachable(wanted, path, errno);
                    return self.waiting.pop_front();
                }
                None if errno == Errno::NOENT => return Some(Walked::Vanished),
                None => return Some(unreadable(path, errno)),
            },
        };
        let is_source = wanted.as_ref().is_some_and(|wanted| wanted.source);
        // What only leads to a source is no part of one, and a source is never left out.
        let counts = !is_source && folder.inside;
        let excluded = counts.then(|| self.filter.excludes(&path, &captured.metadata)).flatten();
        let never = self.filter.is_never(&path, &captured).then_some(Why::Own);
        if let Some(why) = never.or(excluded) {
            let bytes = captured.metadata.size;
            let left_out = Walked::LeftOut(LeftOut { path: path.clone(), why, entries: 1, bytes });
            if never.is_some() || wanted.is_none() {
                return Some(left_out);
            }
            // It stays as a folder that leads to a source.
            self.waiting.push_back(left_out);
        }
        let stays = counts && excluded.is_none();
        let hollow = stays.then(|| self.only_a_mount_point(&captured, (dir.as_fd(), &name))).flatten();
        if let Some(why) = hollow {
            self.waiting.push_back(Walked::LeftOut(LeftOut {
                path: path.clone(),
                why,
                entries: 1,
                bytes: 0,
            }));
        }
        let Captured { mut metadata, device, on, .. } = captured;
        let only_leads = metadata.kind == EntryKind::Directory && !is_source && !counts;
        if only_leads || hollow.is_some() {
            leads_only(&mut metadata);
        }
        let is_hollow = hollow.is_some();
        let is_directory = metadata.kind == EntryKind::Directory;
        let inside = is_directory && (is_source || (stays && !is_hollow));
        // Files have theirs read when they are opened, and only if they have changed; folders that are entered, then.
        if !inside && metadata.kind != EntryKind::File && hollow != Some(Why::PseudoFileSystem) {
            attributes::of_name(dir.as_fd(), &name, &mut metadata);
        }
        let mut found = Found { path, metadata, dir, device, name, error: None, is_source, is_hollow };
        if is_directory {
            if (inside || wanted.is_some())
                && self.enter(&mut found, wanted.unwrap_or_default(), inside, on) == Entered::Vanished
            {
                return Some(Walked::Vanished);
            }
        } else if let Some(mut wanted) = wanted {
            // The entry itself is there; sources below something that is not a folder are not.
            wanted.source = false;
            self.unreachable(wanted, found.path.clone(), Errno::NOTDIR);
        }
        Some(Walked::Entry(Box::new(found)))
    }

    /// Why of what was captured only the mount point is kept, if so: what is mounted there, or would be, is
    /// not to be entered. Nothing here mounts anything.
    fn only_a_mount_point(
        &self,
        captured: &Captured,
        (dir, name): (BorrowedFd<'_>, &CString),
    ) -> Option<Why> {
        let Captured { metadata, on, mounts_when_entered, .. } = captured;
        let is_directory = metadata.kind == EntryKind::Directory;
        let folder = self.stack.last()?;
        if !is_directory && metadata.kind != EntryKind::File {
            return None;
        }
        if !on.is_same(folder.on) {
            // One that was mounted since the walk began, or that has no number, is asked itself.
            let known = on.mount.and_then(|mount| self.mounts.made_up.get(&mount).copied());
            if known.unwrap_or_else(|| mounts::made_up(dir, name)).is_some() {
                return Some(Why::PseudoFileSystem);
            }
            // A file that is mounted over another is read: who looks for it there must find it.
            if is_directory && on.mount.is_some_and(|mount| self.mounts.elsewhere.contains_key(&mount)) {
                return Some(Why::SeenElsewhere);
            }
        }
        let other = !on.is_same(folder.source_on) || *mounts_when_entered;
        (is_directory && other && self.filter.options().one_file_system).then_some(Why::OtherFileSystem)
    }

    /// Goes into a folder; what it cannot list it notes in `found`.
    fn enter(&mut self, found: &mut Found, mut wanted: Wanted, inside: bool, mut on: On) -> Entered {
        let opened = if inside {
            open_quietly(found.dir.as_fd(), &found.name, OFlags::DIRECTORY)
        } else {
            // A folder above a source need not be readable.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&found.dir, &found.name, flags, Mode::empty())
        };
        let listed = opened.and_then(|dir| {
            let listing = if inside {
                attributes::of_open(dir.as_fd(), &mut found.metadata);
                Listing::read(dir.as_fd())?
            } else {
                Listing::default()
            };
            // To open a source may have mounted it.
            let seen = if wanted.source { On::of(&capture::status(dir.as_fd(), c"")?) } else { on };
            Ok((dir, listing, seen))
        });
        let (dir, mut listing) = match listed {
            Ok((dir, listing, seen)) => {
                on = seen;
                (dir, listing)
            }
            Err(errno) if is_shortage(errno) => {
                let failed = self.fail(&found.path, errno);
                self.waiting.push_back(failed);
                return Entered::Not;
            }
            Err(Errno::NOENT) if !wanted.source && wanted.below.is_empty() => return Entered::Vanished,
            Err(errno) => {
                found.error =
                    inside.then(|| format!("cannot list /{}: {}", shown(&found.path), reason(errno)));
                // The folder itself is an entry with this error; sources in it would be silent else.
                wanted.source = false;
                self.unreachable(wanted, found.path.clone(), errno);
                return Entered::Not;
            }
        };
        if inside
            && !wanted.source
            && let Some((marker, why)) = self.filter.marker(dir.as_fd(), &|name| listing.contains(name))
        {
            let entries = listing.names.len().saturating_sub(1) as u64;
            if entries > 0 {
                let left_out = LeftOut { path: found.path.clone(), why, entries, bytes: 0 };
                self.waiting.push_back(Walked::LeftOut(left_out));
            }
            listing = Listing::of(std::iter::once(marker));
        }
        wanted.below.keys().for_each(|name| listing.push(name));
        listing.sort();
        let too_long = listing.keep_shorter(PATH_BYTES_MAX.saturating_sub(found.path.len() + 1));
        if too_long > 0 {
            // No manifest could hold an entry of theirs.
            let what = format!("{too_long} names in /{} make paths that are too long", shown(&found.path));
            found.error.get_or_insert(what);
        }
        let source_on =
            if wanted.source { on } else { self.stack.last().map_or(on, |above| above.source_on) };
        self.path.clone_from(&found.path);
        let (length, dir, wanted) = (found.path.len(), Some(Arc::new(dir)), wanted.below);
        let identity = (found.device, found.metadata.inode);
        self.stack.push(Folder { length, dir, identity, listing, next: 0, wanted, inside, on, source_on });
        // A tree may be deeper than a process can have files open.
        let far = self.stack.len().checked_sub(OPEN_FOLDERS + 1);
        if let Some(folder) = far.and_then(|far| self.stack.get_mut(far)) {
            folder.dir = None;
        }
        Entered::In
    }

    /// Goes back to the folder above.
    fn leave(&mut self) {
        let Some(left) = self.stack.pop() else { return };
        let Some(folder) = self.stack.last_mut() else { return };
        self.path.truncate(folder.length);
        if folder.dir.is_none()
            && let Some(below) = left.dir
        {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let above = openat(&below, c"..", flags, Mode::empty());
            let status = above.as_ref().map(|above| capture::status(above.as_fd(), c""));
            // Somebody may have moved it: then what is above it is another folder.
            let same = matches!(status, Ok(Ok(status)) if identity(&status) == folder.identity);
            folder.dir = above.ok().filter(|_| same).map(Arc::new);
        }
    }
}

fn identity(status: &Statx) -> ((u32, u32), u64) {
    ((status.stx_dev_major, status.stx_dev_minor), status.stx_ino)
}

/// How it went to go into a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entered {
    /// What is in it comes next.
    In,
    /// It cannot be listed.
    Not,
    /// It is not there any more.
    Vanished,
}

/// Whether the next file would fare no better.
fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// A folder above a source only leads there, and a mount point only holds its place: what else happens there
/// must not make an unchanged source look changed.
fn leads_only(metadata: &mut Metadata) {
    metadata.size = 0;
    (metadata.mtime, metadata.ctime, metadata.btime) = (Timestamp::default(), Timestamp::default(), None);
    metadata.links = 1;
}

fn unreadable(path: Vec<u8>, errno: Errno) -> Walked {
    let error = format!("cannot read /{}: {}", shown(&path), reason(errno));
    Walked::Error(WalkError { path, error, missing_source: false })
}

impl Iterator for Walk {
    type Item = Walked;

    fn next(&mut self) -> Option<Walked> {
        loop {
            if let Some(walked) = self.waiting.pop_front() {
                return Some(walked);
            }
            let folder = self.stack.last_mut()?;
            let Some(name) = folder.listing.get(folder.next).map(<[u8]>::to_vec) else {
                self.leave();
                continue;
            };
            folder.next += 1;
            let path = join(&self.path, &name);
            let wanted = folder.wanted.remove(&name);
            // Names come from the kernel or from a path: neither holds a NUL, and a path with one has no file.
            let Ok(name) = CString::new(name) else {
                let missing_source = wanted.is_some();
                let error = format!("cannot read /{}: a name cannot hold a NUL", shown(&path));
                return Some(Walked::Error(WalkError { path, error, missing_source }));
            };
            if let Some(walked) = self.visit(path, name, wanted) {
                return Some(walked);
            }
        }
    }
}

/// A path of a manifest (no leading slash) as the absolute path on this machine.
#[must_use]
pub fn absolute(path: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec([b"/", path].concat()))
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::File, io::Write, os::unix::fs::symlink};

    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().write_all(b"content").unwrap();
        }
        folder
    }

    /// Paths below `folder` in the order of the walk, with what is above it checked and left out;
    /// errors carry a `!`.
    fn walk(folder: &Path, sources: &[&str], options: FilterOptions) -> Vec<String> {
        let sources: Vec<_> = sources
            .iter()
            .map(|source| if source.is_empty() { folder.into() } else { folder.join(source) })
            .collect();
        let base = folder.to_str().unwrap().trim_start_matches('/').to_owned();
        let mut paths = Vec::new();
        for walked in Walk::new(&sources, Filter::new(options).unwrap()) {
            let (path, mark) = match &walked {
                Walked::LeftOut(_) => continue,
                Walked::Vanished => panic!("nothing vanishes here"),
                Walked::Entry(found) => (&found.path, if found.error.is_some() { "?" } else { "" }),
                Walked::Error(error) => (&error.path, if error.missing_source { "!!" } else { "!" }),
                Walked::Failed(error) => panic!("{error}"),
            };
            let path = String::from_utf8(path.clone()).unwrap();
            match path.strip_prefix(&base) {
                Some(rest) => paths.push(format!("{}{mark}", rest.trim_start_matches('/'))),
                None => assert!(base.starts_with(&format!("{path}/")), "{path} is not above {base}"),
            }
        }
        // The folder itself.
        assert_eq!(paths.remove(0), "");
        paths
    }

    #[test]
    fn the_order_is_that_of_the_manifest() {
        let folder = tree(&["a/b", "a-b", "a.txt", "a/b.c/x", "a/b-c", "B", "a/b0", "z", "\u{e9}"]);
        let paths = walk(folder.path(), &[""], FilterOptions::default());
        assert_eq!(
            paths,
            ["B", "a", "a/b", "a/b-c", "a/b.c", "a/b.c/x", "a/b0", "a-b", "a.txt", "z", "\u{e9}"]
        );
        let sorted = paths.is_sorted_by(|a, b| {
            crate::format::node::compare_paths(a.as_bytes(), b.as_bytes()) == std::cmp::Ordering::Less
        });
        assert!(sorted);
    }

    #[test]
    fn folders_above_a_source_are_entries_and_their_other_children_are_not() {
        let folder = tree(&["srv/data/x", "srv/other/y", "etc/z"]);
        assert_eq!(
            walk(folder.path(), &["srv/data"], FilterOptions::default()),
            ["srv", "srv/data", "srv/data/x"]
        );
    }

    #[test]
    fn overlapping_sources_come_once() {
        let folder = tree(&["a/b/c", "a/d"]);
        let paths = walk(folder.path(), &["a/b", "a", "a/b/c", "a"], FilterOptions::default());
        assert_eq!(paths, ["a", "a/b", "a/b/c", "a/d"]);
    }

    #[test]
    fn a_missing_source_is_an_error_and_the_rest_is_walked() {
        let folder = tree(&["a/b", "f"]);
        let paths =
            walk(folder.path(), &["a/no", "a/b", "no/a/b", "no/c", "f/below"], FilterOptions::default());
        assert_eq!(paths, ["a", "a/b", "a/no!!", "f", "f/below!!", "no/a/b!!", "no/c!!"]);
    }

    #[test]
    fn a_link_is_an_entry_and_is_not_entered() {
        let folder = tree(&["real/x"]);
        symlink("real", folder.path().join("link")).unwrap();
        assert_eq!(walk(folder.path(), &["link"], FilterOptions::default()), ["link"]);
        assert_eq!(walk(folder.path(), &[""], FilterOptions::default()), ["link", "real", "real/x"]);
        let below = walk(folder.path(), &["link/x"], FilterOptions::default());
        assert_eq!(below, ["link", "link/x!!"]);
        let resolved = resolve_source(&folder.path().join("link/x")).unwrap();
        assert_eq!(resolved, folder.path().canonicalize().unwrap().join("real/x"));
        assert!(resolve_source(&folder.path().join("link")).unwrap().ends_with("link"));
    }

    #[test]
    fn patterns_follow_gitignore() {
        let folder =
            tree(&["a.o", "keep.o", "src/b.o", "src/b.c", "build/x", "src/build", "Photo.JPG", "photo.png"]);
        let options = FilterOptions {
            excludes: vec!["*.o".into(), "!keep.o".into(), "build/".into()],
            excludes_ignoring_case: vec!["*.jpg".into()],
            ..FilterOptions::default()
        };
        let paths = walk(folder.path(), &[""], options);
        assert_eq!(paths, ["keep.o", "photo.png", "src", "src/b.c", "src/build"]);
    }

    #[test]
    fn an_absolute_pattern_matches_only_there() {
        let folder = tree(&["x/y", "z/x/y"]);
        let options = FilterOptions {
            excludes: vec![folder.path().join("x").to_str().unwrap().into()],
            ..FilterOptions::default()
        };
        assert_eq!(walk(folder.path(), &[""], options), ["z", "z/x", "z/x/y"]);
    }

    #[test]
    fn an_explicit_source_wins_over_a_pattern() {
        let folder = tree(&["cache/keep/x", "cache/y", "cache/keep/skip"]);
        let options =
            FilterOptions { excludes: vec!["cache".into(), "skip".into()], ..FilterOptions::default() };
        assert_eq!(
            walk(folder.path(), &["", "cache/keep"], options),
            ["cache", "cache/keep", "cache/keep/x"]
        );
    }

    #[test]
    fn of_a_cache_only_the_folder_and_its_tag_stay() {
        let folder = tree(&["cache/big", "cache/sub/x", "fake/CACHEDIR.TAG", "fake/x"]);
        let mut tag = File::create(folder.path().join("cache/CACHEDIR.TAG")).unwrap();
        tag.write_all(crate::filesystem::filter::CACHE_SIGNATURE).unwrap();
        tag.write_all(b"\n# by a test\n").unwrap();
        let options = FilterOptions { exclude_caches: true, ..FilterOptions::default() };
        let expected = ["cache", "cache/CACHEDIR.TAG", "fake", "fake/CACHEDIR.TAG", "fake/x"];
        assert_eq!(walk(folder.path(), &[""], options), expected);
    }

    #[test]
    fn of_a_marked_folder_only_the_folder_and_its_mark_stay() {
        let folder = tree(&["a/.nobackup", "a/x", "b/x"]);
        let options =
            FilterOptions { exclude_if_present: vec![b".nobackup".to_vec()], ..FilterOptions::default() };
        assert_eq!(walk(folder.path(), &[""], options), ["a", "a/.nobackup", "b", "b/x"]);
    }

    #[test]
    fn files_over_the_limit_are_left_out_and_those_at_it_are_not() {
        let folder = tree(&["seven"]);
        File::create(folder.path().join("eight")).unwrap().set_len(8).unwrap();
        let options = FilterOptions { exclude_larger_than: Some(7), ..FilterOptions::default() };
        assert_eq!(walk(folder.path(), &[""], options), ["seven"]);
    }

    #[test]
    fn the_repository_is_never_walked_even_through_another_name() {
        let folder = tree(&["repo/data/x", "y"]);
        symlink(folder.path().join("repo"), folder.path().join("alias")).unwrap();
        let options = FilterOptions { never: vec![folder.path().join("alias")], ..FilterOptions::default() };
        assert_eq!(walk(folder.path(), &["", "repo/data"], options), ["alias", "y"]);
    }

    #[test]
    fn what_vanishes_is_told_and_skipped() {
        let folder = tree(&["a", "b", "c", "d/x"]);
        let walk = Walk::new(&[folder.path().into()], Filter::new(FilterOptions::default()).unwrap());
        let (mut names, mut vanished) = (Vec::new(), 0);
        for walked in walk {
            match walked {
                Walked::Entry(found) if found.path.ends_with(b"/a") => {
                    fs::remove_file(folder.path().join("b")).unwrap();
                    fs::remove_dir_all(folder.path().join("d")).unwrap();
                }
                Walked::Entry(found) => names.push(found.name.into_string().unwrap()),
                Walked::Vanished => vanished += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(names.last().unwrap(), "c");
        assert_eq!(vanished, 2);
    }

    /// What the rules left out below `folder`: the path, the rule, entries and bytes.
    fn left_out(folder: &Path, options: FilterOptions) -> Vec<(String, Why, u64, u64)> {
        let base = folder.to_str().unwrap().trim_start_matches('/').to_owned();
        let walk = Walk::new(&[folder.into()], Filter::new(options).unwrap());
        let left_out = walk.filter_map(|walked| match walked {
            Walked::LeftOut(left_out) => Some(left_out),
            _ => None,
        });
        let below = |path| String::from_utf8(path).unwrap().replace(&base, "");
        left_out.map(|LeftOut { path, why, entries, bytes }| (below(path), why, entries, bytes)).collect()
    }

    #[test]
    fn every_rule_says_what_it_leaves_out() {
        let folder = tree(&[
            "a.o",
            "b/c.o",
            "b/x",
            "cache/1",
            "cache/2",
            "mark/skip",
            "mark/1",
            "repo/x",
            "skipped/x/y",
        ]);
        let mut tag = File::create(folder.path().join("cache/CACHEDIR.TAG")).unwrap();
        tag.write_all(crate::filesystem::filter::CACHE_SIGNATURE).unwrap();
        File::create(folder.path().join("large")).unwrap().set_len(100).unwrap();
        let options = FilterOptions {
            excludes: vec!["nothing".into(), "*.o".into(), "skipped".into()],
            exclude_caches: true,
            exclude_if_present: vec![b"none".to_vec(), b"skip".to_vec()],
            exclude_larger_than: Some(99),
            never: vec![folder.path().join("repo")],
            ..FilterOptions::default()
        };
        let left_out = left_out(folder.path(), options);
        let expected = [
            ("/a.o", Why::Pattern(1), 1, 7),
            ("/b/c.o", Why::Pattern(1), 1, 7),
            ("/cache", Why::CacheTag, 2, 0),
            ("/large", Why::LargerThan, 1, 100),
            ("/mark", Why::Present(1), 1, 0),
            ("/repo", Why::Own, 1, 0),
            ("/skipped", Why::Pattern(2), 1, 0),
        ];
        let expected = expected.map(|(path, why, entries, bytes)| (path.to_owned(), why, entries, bytes));
        assert_eq!(left_out, expected);
    }

    #[test]
    fn what_the_kernel_makes_up_is_kept_as_an_empty_folder_unless_it_is_a_source() {
        // `/proc` is another file system on every Linux.
        let options = || FilterOptions {
            excludes: vec!["/*".into(), "!/proc".into(), "/proc/*".into(), "!/proc/version".into()],
            ..FilterOptions::default()
        };
        let walk = |sources: &[&str]| {
            let sources: Vec<PathBuf> = sources.iter().map(PathBuf::from).collect();
            let mut told = Vec::new();
            for walked in Walk::new(&sources, Filter::new(options()).unwrap()) {
                match walked {
                    Walked::Entry(found) => told.push(String::from_utf8(found.path).unwrap()),
                    Walked::LeftOut(LeftOut { path, why: Why::PseudoFileSystem, .. }) => {
                        told.push(format!("-{}", String::from_utf8(path).unwrap()));
                    }
                    Walked::LeftOut(_) | Walked::Vanished => {}
                    other => panic!("{other:?}"),
                }
            }
            told
        };
        assert_eq!(walk(&["/"]), ["proc", "-proc"]);
        assert_eq!(walk(&["/", "/proc/version"]), ["proc", "-proc", "proc/version"]);
        assert_eq!(walk(&["/proc"]), ["proc", "proc/version"]);
    }

    #[test]
    fn the_handle_of_an_entry_reads_it() {
        let folder = tree(&["d/f"]);
        let mut walk =
            Walk::new(&[folder.path().join("d/f")], Filter::new(FilterOptions::default()).unwrap());
        let Some(Walked::Entry(found)) = walk.by_ref().last() else { panic!("no entry") };
        let seen = crate::filesystem::read::Seen::of(&found.metadata, found.device);
        let file = crate::filesystem::read::open_file(found.dir.as_fd(), &found.name, &seen).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 7);
        assert_eq!(absolute(&found.path), folder.path().join("d/f"));
    }

    #[test]
    fn a_tree_deeper_than_there_are_open_folders_is_walked_to_its_end_and_back() {
        let depth = 3 * OPEN_FOLDERS;
        let deepest = vec!["d"; depth].join("/");
        let folder = tree(&[&format!("{deepest}/x"), "d/d/late", "last"]);
        let walked = walk(folder.path(), &[""], FilterOptions::default());
        assert_eq!(walked.len(), depth + 3);
        assert_eq!(&walked[depth..], [format!("{deepest}/x"), "d/d/late".into(), "last".into()]);
    }

    #[test]
    fn when_a_folder_is_moved_away_while_it_is_walked_what_is_missed_is_told() {
        let depth = 2 * OPEN_FOLDERS;
        let deepest = vec!["d"; depth].join("/");
        let folder = tree(&[&format!("{deepest}/x"), "d/late", "elsewhere/x"]);
        let source = folder.path().join("d");
        let mut walk = Walk::new(&[source], Filter::new(FilterOptions::default()).unwrap());
        let mut missed = Vec::new();
        for walked in walk.by_ref() {
            match walked {
                Walked::Entry(found) if found.path.ends_with(b"/d/x") => {
                    fs::rename(folder.path().join("d/d"), folder.path().join("elsewhere/d")).unwrap();
                }
                Walked::Error(error) => missed.push(error),
                _ => {}
            }
        }
        assert!(
            matches!(&missed[..], [one] if one.path.ends_with(b"/d/late") && one.error.contains("moved"))
        );
    }

    #[test]
    fn one_file_system_keeps_the_mount_point_and_not_what_is_in_it() {
        // `/proc` is another file system on every Linux.
        let options = FilterOptions {
            one_file_system: true,
            excludes: vec!["/*".into(), "!/proc".into()],
            ..FilterOptions::default()
        };
        let paths: Vec<_> = Walk::new(&["/".into()], Filter::new(options).unwrap())
            .filter_map(|walked| match walked {
                Walked::Entry(found) => Some(String::from_utf8(found.path).unwrap()),
                Walked::LeftOut(_) => None,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(paths, ["proc"]);
    }
}
