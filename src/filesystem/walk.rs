//! Walks sources in manifest order: sorted by path component by component, a directory before what
//! is in it. Memory grows with the largest directory and the depth, not with the number of files.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    ffi::{CString, OsStr},
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, RawDir, StatxFlags, openat, statx},
    io::Errno,
};

use super::{
    capture::{self, Captured, Surroundings, capture},
    open_quietly, reason, shown, system_error,
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::entry::{EntryKind, Metadata},
    limits::PATH_BYTES_MAX,
};

/// The first bytes of a `CACHEDIR.TAG` that means it.
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
/// Bytes of the buffer that directories are listed through.
const LISTING_BYTES: usize = 32 << 10;

/// What to leave out, as the user says it. A source that is named explicitly is never left out.
#[derive(Clone, Debug, Default)]
pub struct FilterOptions {
    /// Patterns in gitignore syntax, with `/` as the folder they belong to; the last match decides.
    pub excludes: Vec<String>,
    /// The same, ignoring case; they come after `excludes`.
    pub excludes_ignoring_case: Vec<String>,
    /// Of a folder with a valid `CACHEDIR.TAG`, keep only the folder and the tag.
    pub exclude_caches: bool,
    /// Of a folder that holds one of these names, keep only the folder and that file.
    pub exclude_if_present: Vec<Vec<u8>>,
    /// Leave out files of more bytes.
    pub exclude_larger_than: Option<u64>,
    /// Do not enter other file systems than that of the source; their mount points are kept.
    pub one_file_system: bool,
    /// Folders that are never walked, however they are named: the repository's, the cache.
    pub never: Vec<PathBuf>,
}

/// What to leave out, ready for use.
#[derive(Debug)]
pub struct Filter {
    options: FilterOptions,
    patterns: Gitignore,
    never: HashSet<(u32, u32, u64)>,
}

impl Filter {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// `Usage` if a pattern is not valid.
    pub fn new(options: FilterOptions) -> Result<Self> {
        let mut builder = GitignoreBuilder::new("/");
        builder.allow_unclosed_class(false);
        let invalid = |pattern: &str, error: ignore::Error| {
            Error::new(ErrorKind::Usage, format!("the exclude pattern {pattern:?} is not valid: {error}"))
                .with_remedy("write \\ before a character that is meant literally")
        };
        for pattern in &options.excludes {
            builder.add_line(None, pattern).map_err(|error| invalid(pattern, error))?;
        }
        builder.case_insensitive(true).map_err(|error| invalid("", error))?;
        for pattern in &options.excludes_ignoring_case {
            builder.add_line(None, pattern).map_err(|error| invalid(pattern, error))?;
        }
        let patterns = builder.build().map_err(|error| invalid("", error))?;
        // By identity too, so that no bind mount or link in the path hides them.
        let identity = |path: &PathBuf| {
            let status = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS).ok()?;
            Some((status.stx_dev_major, status.stx_dev_minor, status.stx_ino))
        };
        let never = options.never.iter().filter_map(identity).collect();
        Ok(Self { options, patterns, never })
    }

    /// Whether a pattern or the size excludes the entry.
    fn excludes(&self, path: &[u8], metadata: &Metadata) -> bool {
        if metadata.kind == EntryKind::File
            && self.options.exclude_larger_than.is_some_and(|most| metadata.size > most)
        {
            return true;
        }
        let path = Path::new(OsStr::from_bytes(path));
        !self.patterns.is_empty()
            && self.patterns.matched(path, metadata.kind == EntryKind::Directory).is_ignore()
    }

    /// Whether a pattern keeps the walk of `source` away from the folder or file at `path` below it.
    #[must_use]
    pub fn leaves_out(&self, source: &Path, path: &Path) -> bool {
        let between = path.ancestors().take_while(|folder| *folder != source);
        between.filter_map(|folder| folder.strip_prefix("/").ok()).any(|folder| {
            !self.patterns.is_empty()
                && self.patterns.matched(folder, folder != path || path.is_dir()).is_ignore()
        })
    }

    fn is_never(&self, path: &[u8], captured: &Captured) -> bool {
        let (major, minor) = captured.device;
        let without_slash = |never: &PathBuf| {
            let never = never.as_os_str().as_bytes();
            never.strip_prefix(b"/").unwrap_or(never) == path
        };
        captured.metadata.kind == EntryKind::Directory
            && (self.never.contains(&(major, minor, captured.metadata.inode))
                || self.options.never.iter().any(without_slash))
    }

    /// The name that marks this folder as not worth keeping, if one does.
    fn marker(&self, dir: BorrowedFd<'_>, listing: &Listing) -> Option<Vec<u8>> {
        let markers = &self.options.exclude_if_present;
        if let Some(name) = markers.iter().find(|name| listing.contains(name)) {
            return Some(name.clone());
        }
        let is_cache = self.options.exclude_caches && listing.contains(CACHE_TAG) && is_cache_tag(dir);
        is_cache.then(|| CACHE_TAG.to_vec())
    }
}

fn is_cache_tag(dir: BorrowedFd<'_>) -> bool {
    let Ok(file) = open_quietly(dir, c"CACHEDIR.TAG", OFlags::NONBLOCK) else { return false };
    let mut start = Vec::new();
    let most = u64::try_from(CACHE_SIGNATURE.len()).unwrap_or(u64::MAX);
    std::fs::File::from(file).take(most).read_to_end(&mut start).is_ok() && start == CACHE_SIGNATURE
}

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

    fn contains(&self, name: &[u8]) -> bool {
        self.names.binary_search_by(|at| self.bytes[at.0..at.1].cmp(name)).is_ok()
    }

    pub(super) fn get(&self, at: usize) -> Option<&[u8]> {
        self.names.get(at).map(|(start, end)| &self.bytes[*start..*end])
    }
}

/// A folder that is being walked.
#[derive(Debug)]
struct Folder {
    path: Vec<u8>,
    dir: Arc<OwnedFd>,
    listing: Listing,
    next: usize,
    /// Sources among its names, not yet met.
    wanted: BTreeMap<Vec<u8>, Wanted>,
    /// It is part of a source, so everything in it counts; else only what leads to a source.
    inside: bool,
    /// The device of the source it is part of.
    device: (u32, u32),
}

/// Walks sources in manifest order. Use it as an iterator.
#[derive(Debug)]
pub struct Walk {
    filter: Filter,
    around: Surroundings,
    stack: Vec<Folder>,
    waiting: VecDeque<Walked>,
    vanished: u64,
    excluded: u64,
}

impl Walk {
    /// Walks absolute paths (see [`resolve_source`]). The folders above a source are entries too;
    /// a source that is a symbolic link is one entry; overlapping sources come once.
    #[must_use]
    pub fn new(sources: &[PathBuf], filter: Filter) -> Self {
        let (stack, waiting) = (Vec::new(), VecDeque::new());
        let mut walk =
            Self { filter, around: Surroundings::default(), stack, waiting, vanished: 0, excluded: 0 };
        let tree = Wanted::tree(sources);
        match openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(root) => walk.enter_root(root, tree),
            Err(errno) => walk.unreachable(tree, Vec::new(), errno),
        }
        walk
    }

    /// How many names vanished between the listing of their folder and the look at them.
    #[must_use]
    pub const fn vanished(&self) -> u64 {
        self.vanished
    }

    /// How many entries the filter left out, not counting what is inside them.
    #[must_use]
    pub const fn excluded(&self) -> u64 {
        self.excluded
    }

    fn enter_root(&mut self, root: OwnedFd, mut tree: Wanted) {
        let status = capture::status(root.as_fd(), c"");
        let device = status.map_or((0, 0), |status| (status.stx_dev_major, status.stx_dev_minor));
        let wanted = std::mem::take(&mut tree.below);
        let folder = Folder {
            path: Vec::new(),
            dir: Arc::new(root),
            listing: Listing::of(wanted.keys().cloned()),
            next: 0,
            wanted,
            inside: tree.source,
            device,
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
        let (dir, inside, device) = (Arc::clone(&folder.dir), folder.inside, folder.device);
        let captured = match capture(dir.as_fd(), &name, &mut self.around) {
            Ok(captured) => captured,
            Err(errno) if is_shortage(errno) => return Some(self.fail(&path, errno)),
            Err(errno) => match wanted {
                Some(wanted) => {
                    self.unreachable(wanted, path, errno);
                    return self.waiting.pop_front();
                }
                None if errno == Errno::NOENT => {
                    self.vanished += 1;
                    return None;
                }
                None => return Some(unreadable(path, errno)),
            },
        };
        let is_source = wanted.as_ref().is_some_and(|wanted| wanted.source);
        let excluded = !is_source && inside && self.filter.excludes(&path, &captured.metadata);
        if self.filter.is_never(&path, &captured) || (excluded && wanted.is_none()) {
            self.excluded += 1;
            return None;
        }
        let Captured { metadata, device: own_device } = captured;
        let mut found = Found { path, metadata, dir, device: own_device, name, error: None };
        if found.metadata.kind == EntryKind::Directory {
            let foreign = self.filter.options.one_file_system && !is_source && own_device != device;
            if !is_source && !inside {
                leads_only(&mut found.metadata);
            }
            let inside = is_source || (inside && !excluded && !foreign);
            if inside || wanted.is_some() {
                let device = if is_source { own_device } else { device };
                self.enter(&mut found, wanted.unwrap_or_default(), inside, device);
            }
        } else if let Some(mut wanted) = wanted {
            // The entry itself is there; sources below something that is not a folder are not.
            wanted.source = false;
            self.unreachable(wanted, found.path.clone(), Errno::NOTDIR);
        }
        Some(Walked::Entry(Box::new(found)))
    }

    /// Goes into a folder; what it cannot list it notes in `found`.
    fn enter(&mut self, found: &mut Found, mut wanted: Wanted, inside: bool, device: (u32, u32)) {
        let opened = if inside {
            open_quietly(found.dir.as_fd(), &found.name, OFlags::DIRECTORY)
        } else {
            // A folder above a source need not be readable.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&found.dir, &found.name, flags, Mode::empty())
        };
        let listed = opened.and_then(|dir| {
            let listing = if inside { Listing::read(dir.as_fd())? } else { Listing::default() };
            Ok((dir, listing))
        });
        let (dir, mut listing) = match listed {
            Ok(listed) => listed,
            Err(errno) if is_shortage(errno) => {
                let failed = self.fail(&found.path, errno);
                self.waiting.push_back(failed);
                return;
            }
            Err(errno) => {
                found.error =
                    inside.then(|| format!("cannot list /{}: {}", shown(&found.path), reason(errno)));
                // The folder itself is an entry with this error; sources in it would be silent else.
                wanted.source = false;
                self.unreachable(wanted, found.path.clone(), errno);
                return;
            }
        };
        if inside
            && !wanted.source
            && let Some(marker) = self.filter.marker(dir.as_fd(), &listing)
        {
            self.excluded += u64::from(listing.names.len() > 1);
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
        let (path, wanted) = (found.path.clone(), wanted.below);
        self.stack.push(Folder { path, dir: Arc::new(dir), listing, next: 0, wanted, inside, device });
    }
}

/// Whether the next file would fare no better.
fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// A folder above a source only leads there: what else happens in it must not make an unchanged source
/// look changed.
fn leads_only(metadata: &mut Metadata) {
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
                self.stack.pop();
                continue;
            };
            folder.next += 1;
            let path = join(&folder.path, &name);
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
    fn an_invalid_pattern_is_a_mistake_of_the_user() {
        let options = FilterOptions { excludes: vec!["[a".into()], ..FilterOptions::default() };
        assert_eq!(Filter::new(options).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn of_a_cache_only_the_folder_and_its_tag_stay() {
        let folder = tree(&["cache/big", "cache/sub/x", "fake/CACHEDIR.TAG", "fake/x"]);
        let mut tag = File::create(folder.path().join("cache/CACHEDIR.TAG")).unwrap();
        tag.write_all(CACHE_SIGNATURE).unwrap();
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
    fn what_vanishes_is_counted_and_skipped() {
        let folder = tree(&["a", "b", "c"]);
        let mut walk = Walk::new(&[folder.path().into()], Filter::new(FilterOptions::default()).unwrap());
        let mut names = Vec::new();
        while let Some(Walked::Entry(found)) = walk.next() {
            if found.path.ends_with(b"/a") {
                fs::remove_file(folder.path().join("b")).unwrap();
            }
            names.push(found.name.into_string().unwrap());
        }
        assert!(names.ends_with(&["a".into(), "c".into()]));
        assert_eq!(walk.vanished(), 1);
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
    fn one_file_system_keeps_the_mount_point_and_not_what_is_in_it() {
        // `/proc` is another file system on every Linux.
        let options = FilterOptions {
            one_file_system: true,
            excludes: vec!["/*".into(), "!/proc".into()],
            ..FilterOptions::default()
        };
        let paths: Vec<_> = Walk::new(&["/".into()], Filter::new(options).unwrap())
            .map(|walked| match walked {
                Walked::Entry(found) => String::from_utf8(found.path).unwrap(),
                Walked::Error(error) => panic!("{error:?}"),
                Walked::Failed(error) => panic!("{error}"),
            })
            .collect();
        assert_eq!(paths, ["proc"]);
    }
}
