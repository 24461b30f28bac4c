//! What a backup leaves out, and which rule it was that said so.

use std::{
    collections::HashSet,
    ffi::OsStr,
    io::Read,
    os::{fd::BorrowedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};
use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags, statx};

use super::{capture::Captured, open_quietly, pattern};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        entry::{EntryKind, Metadata},
        node::is_path,
    },
};

/// The first bytes of a `CACHEDIR.TAG` that means it.
pub(super) const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";

/// A pattern in gitignore syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// As the user wrote it.
    pub text: String,
    /// Where: a flag, or a file with the number of the line.
    pub origin: String,
}

impl<T: Into<String>> From<T> for Pattern {
    fn from(text: T) -> Self {
        Self { text: text.into(), origin: "--exclude".to_owned() }
    }
}

impl Pattern {
    /// Whether it can leave something out: it is no comment, no empty line, and takes nothing back.
    #[must_use]
    pub fn leaves_out(&self) -> bool {
        pattern::chooses(&self.text)
    }
}

/// What to leave out, as the user says it. A source that is named explicitly is never left out.
#[derive(Clone, Debug, Default)]
pub struct FilterOptions {
    /// Patterns in gitignore syntax, with `/` as the folder they belong to; the last match decides.
    pub excludes: Vec<Pattern>,
    /// The same, ignoring case; they come after `excludes`.
    pub excludes_ignoring_case: Vec<Pattern>,
    /// Of a folder with a valid `CACHEDIR.TAG`, keep only the folder and the tag.
    pub exclude_caches: bool,
    /// Of a folder that holds one of these names, keep only the folder and that file.
    pub exclude_if_present: Vec<Vec<u8>>,
    /// Leave out files of more bytes.
    pub exclude_larger_than: Option<u64>,
    /// Do not enter other mounts than that of the source; their mount points are kept. A subvolume that is
    /// no mount of its own belongs to the file system that it is in.
    pub one_file_system: bool,
    /// Folders that are never walked, however they are named: the repository's, the cache.
    pub never: Vec<PathBuf>,
}

impl FilterOptions {
    /// All patterns, in the order in which they count.
    pub fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.excludes.iter().chain(&self.excludes_ignoring_case)
    }
}

/// Which rule left something out. They sort as they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// The pattern of this place in [`FilterOptions::patterns`].
    Pattern(usize),
    /// The file is larger than it may be.
    LargerThan,
    /// The folder has a `CACHEDIR.TAG`.
    CacheTag,
    /// The folder holds the name of this place in [`FilterOptions::exclude_if_present`].
    Present(usize),
    /// Another file system is mounted there.
    OtherFileSystem,
    /// What is mounted there is made by the kernel, such as `/proc`; or it would be mounted by looking.
    PseudoFileSystem,
    /// What is mounted there is seen at another place of this backup too.
    SeenElsewhere,
    /// It is the repository or the cache.
    Own,
}

/// What to leave out, ready for use.
#[derive(Debug)]
pub struct Filter {
    options: FilterOptions,
    patterns: Gitignore,
    never: HashSet<(u32, u32, u64)>,
}

impl Default for Filter {
    /// Nothing is left out.
    fn default() -> Self {
        let options = FilterOptions::default();
        Self { options, patterns: Gitignore::empty(), never: HashSet::new() }
    }
}

impl Filter {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// `Usage` if a pattern is not valid.
    pub fn new(options: FilterOptions) -> Result<Self> {
        for marker in &options.exclude_if_present {
            if !is_path(marker) || marker.contains(&b'/') {
                let what = format!(
                    "no folder holds the name `{}` of --exclude-if-present",
                    String::from_utf8_lossy(marker)
                );
                return Err(Error::new(ErrorKind::Usage, what).with_remedy(
                    "Give the name of a file or a folder, without a path and without patterns",
                ));
            }
        }
        let mut builder = GitignoreBuilder::new("/");
        builder.allow_unclosed_class(false);
        let invalid = |Pattern { text, origin }: &Pattern, why: &str| {
            let what = format!("the exclude pattern {text:?} ({origin}) is not valid: {why}");
            Error::new(ErrorKind::Usage, what).with_remedy(pattern::REMEDY)
        };
        let all = Pattern { text: String::new(), origin: "all of them".to_owned() };
        for (place, pattern) in options.patterns().enumerate() {
            if place == options.excludes.len() {
                let done = builder.case_insensitive(true);
                done.map_err(|error| invalid(pattern, &pattern::plain(&error)))?;
            }
            // A match gives it back: so the rule is known that left something out.
            let place = PathBuf::from(place.to_string());
            pattern::add(&mut builder, Some(place), &pattern.text).map_err(|why| invalid(pattern, &why))?;
        }
        let patterns = builder.build().map_err(|error| invalid(&all, &pattern::plain(&error)))?;
        // By identity too, so that no bind mount or link in the path hides them.
        let identity = |path: &PathBuf| {
            let status = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS).ok()?;
            Some((status.stx_dev_major, status.stx_dev_minor, status.stx_ino))
        };
        let never = options.never.iter().filter_map(identity).collect();
        Ok(Self { options, patterns, never })
    }

    /// What it was made of.
    #[must_use]
    pub const fn options(&self) -> &FilterOptions {
        &self.options
    }

    /// The pattern that excludes a path (no leading slash), if one does.
    fn pattern(&self, path: &Path, is_directory: bool) -> Option<usize> {
        match self.patterns.matched(path, is_directory) {
            Match::Ignore(glob) => glob.from().and_then(Path::to_str).and_then(|place| place.parse().ok()),
            Match::None | Match::Whitelist(_) => None,
        }
    }

    /// Whether the size excludes what has so many bytes.
    pub(super) fn is_too_large(&self, kind: EntryKind, bytes: u64) -> bool {
        kind == EntryKind::File && self.options.exclude_larger_than.is_some_and(|most| bytes > most)
    }

    /// Whether a pattern or the size excludes the entry.
    pub(super) fn excludes(&self, path: &[u8], metadata: &Metadata) -> Option<Why> {
        if self.is_too_large(metadata.kind, metadata.size) {
            return Some(Why::LargerThan);
        }
        let path = Path::new(OsStr::from_bytes(path));
        self.pattern(path, metadata.kind == EntryKind::Directory).map(Why::Pattern)
    }

    /// Whether a pattern keeps the walk of `source` away from the folder or file at `path` below it.
    #[must_use]
    pub fn leaves_out(&self, source: &Path, path: &Path) -> bool {
        let between = path.ancestors().take_while(|folder| *folder != source);
        between
            .filter_map(|folder| Some((folder, folder.strip_prefix("/").ok()?)))
            .any(|(folder, relative)| self.pattern(relative, folder != path || path.is_dir()).is_some())
    }

    pub(super) fn is_never(&self, path: &[u8], captured: &Captured) -> bool {
        let (major, minor) = captured.device;
        let without_slash = |never: &PathBuf| {
            let never = never.as_os_str().as_bytes();
            never.strip_prefix(b"/").unwrap_or(never) == path
        };
        captured.metadata.kind == EntryKind::Directory
            && (self.never.contains(&(major, minor, captured.metadata.inode))
                || self.options.never.iter().any(without_slash))
    }

    /// The name that marks this folder as not worth keeping, if one does; `holds` says what is in it.
    pub(super) fn marker(
        &self,
        dir: BorrowedFd<'_>,
        holds: &dyn Fn(&[u8]) -> bool,
    ) -> Option<(Vec<u8>, Why)> {
        let markers = &self.options.exclude_if_present;
        if let Some(place) = markers.iter().position(|name| holds(name)) {
            return Some((markers.get(place)?.clone(), Why::Present(place)));
        }
        let is_cache = self.options.exclude_caches && holds(CACHE_TAG) && is_cache_tag(dir);
        is_cache.then(|| (CACHE_TAG.to_vec(), Why::CacheTag))
    }
}

fn is_cache_tag(dir: BorrowedFd<'_>) -> bool {
    let Ok(file) = open_quietly(dir, c"CACHEDIR.TAG", OFlags::NONBLOCK) else { return false };
    let mut start = Vec::new();
    let most = u64::try_from(CACHE_SIGNATURE.len()).unwrap_or(u64::MAX);
    std::fs::File::from(file).take(most).read_to_end(&mut start).is_ok() && start == CACHE_SIGNATURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_that_decides_is_known_by_its_place() {
        let options = FilterOptions {
            excludes: vec!["# comment".into(), "*.o".into(), "".into(), "!keep.o".into(), "b.o".into()],
            excludes_ignoring_case: vec!["*.JPG".into(), "*.o".into()],
            exclude_larger_than: Some(7),
            ..FilterOptions::default()
        };
        let texts: Vec<&str> =
            options.patterns().filter(|pattern| pattern.leaves_out()).map(|pattern| &*pattern.text).collect();
        assert_eq!(texts, ["*.o", "b.o", "*.JPG", "*.o"]);
        let filter = Filter::new(FilterOptions { excludes_ignoring_case: vec!["*.JPG".into()], ..options });
        let filter = filter.unwrap();
        let why = |path: &str, size| {
            filter.excludes(path.as_bytes(), &Metadata { size, ..Metadata::of(EntryKind::File) })
        };
        assert_eq!(why("a.o", 1), Some(Why::Pattern(1)));
        assert_eq!(why("keep.o", 1), None);
        assert_eq!(why("b.o", 1), Some(Why::Pattern(4)), "the last one decides");
        assert_eq!(why("x/photo.jpg", 1), Some(Why::Pattern(5)));
        assert_eq!(why("x/photo.jpg", 8), Some(Why::LargerThan));
        assert_eq!(why("x", 7), None);
    }

    #[test]
    fn an_invalid_pattern_is_a_mistake_of_the_user_and_says_where_it_stands() {
        let pattern = Pattern { text: "[a".to_owned(), origin: "patterns:7".to_owned() };
        let error =
            Filter::new(FilterOptions { excludes: vec![pattern], ..FilterOptions::default() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("patterns:7"), "{error}");
    }
}
