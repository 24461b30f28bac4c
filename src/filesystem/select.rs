//! What of a snapshot is meant: patterns in gitignore syntax, with `/` as their folder, and perhaps only a
//! sample of what they choose.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::{pattern, sample::Sample};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Entry, EntryKind},
        snapshot::Snapshot,
    },
};

/// Patterns that choose among paths.
#[derive(Debug)]
pub struct Selection {
    includes: Option<Gitignore>,
    excludes: Gitignore,
    /// What excludes do not take out, nor the folders that lead there: they count below these only.
    sources: BTreeSet<Vec<u8>>,
    sample: Option<Sample>,
    /// Each pattern that is to choose something.
    asked: Vec<Asked>,
    /// Something is meant.
    means: AtomicBool,
    /// Something was not meant, where there are excludes.
    takes_out: AtomicBool,
}

/// A pattern that is to choose something, by itself.
#[derive(Debug)]
struct Asked {
    text: String,
    alone: Gitignore,
    /// It has chosen something.
    found: AtomicBool,
}

/// Patterns that were to choose something and did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// Each as the user wrote it.
    pub patterns: Vec<String>,
    /// How many patterns there are that choose, these among them.
    pub of: usize,
    /// Excludes have taken out all that there was.
    pub all_excluded: bool,
}

impl Unmatched {
    /// Whether nothing was chosen at all: that is all that there is to say then.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.all_excluded || self.of > 0 && self.patterns.len() == self.of
    }
}

fn compile(patterns: &[String]) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new("/");
    builder.allow_unclosed_class(false);
    let invalid = |pattern: &str, why: &str| {
        Error::new(ErrorKind::Usage, format!("the pattern {pattern:?} is not valid: {why}"))
            .with_remedy(pattern::REMEDY)
    };
    for text in patterns {
        pattern::add(&mut builder, None, text).map_err(|why| invalid(text, &why))?;
    }
    builder.build().map_err(|error| invalid("", &pattern::plain(&error)))
}

fn matches(patterns: &Gitignore, path: &Path, is_directory: bool) -> bool {
    !patterns.is_empty() && patterns.matched_path_or_any_parents(path, is_directory).is_ignore()
}

impl Default for Selection {
    /// Everything.
    fn default() -> Self {
        Self {
            includes: None,
            excludes: Gitignore::empty(),
            sources: BTreeSet::new(),
            sample: None,
            asked: Vec::new(),
            means: AtomicBool::new(false),
            takes_out: AtomicBool::new(false),
        }
    }
}

impl Selection {
    /// Everything but `excludes`; with `includes`, only what one of them matches and what is below that.
    ///
    /// # Errors
    /// `Usage` if a pattern is not valid, or if no pattern of `includes` can match anything.
    pub fn new(includes: &[String], excludes: &[String]) -> Result<Self> {
        let mut asked = Vec::new();
        for text in includes.iter().filter(|text| pattern::chooses(text)) {
            let alone = compile(std::slice::from_ref(text))?;
            asked.push(Asked { text: text.clone(), alone, found: AtomicBool::new(false) });
        }
        if let Some(first) = includes.first().filter(|_| asked.is_empty()) {
            let what = format!("the pattern {first:?} chooses nothing: it is empty, or begins with # or !");
            return Err(Error::new(ErrorKind::Usage, what).with_remedy(pattern::REMEDY));
        }
        let included = if includes.is_empty() { None } else { Some(compile(includes)?) };
        Ok(Self { includes: included, excludes: compile(excludes)?, asked, ..Self::default() })
    }

    /// Excludes as a backup of these sources has them: what was named as a source is never left out, nor is the
    /// folder that leads there, and what is in it is judged by its path below it.
    #[must_use]
    pub fn below_sources_of(mut self, snapshot: &Snapshot) -> Self {
        self.sources.extend(snapshot.roots().map(<[u8]>::to_vec));
        self
    }

    /// Only this sample of it. Folders are in none: they come with what is in them.
    #[must_use]
    pub fn sampled(self, sample: Sample) -> Self {
        Self { sample: Some(sample), ..self }
    }

    /// Whether it chooses a sample: then of most folders only a part is meant.
    #[must_use]
    pub const fn is_sample(&self) -> bool {
        self.sample.is_some()
    }

    /// Whether something in a folder may be meant.
    #[must_use]
    pub fn reaches_into(&self, folder: &[u8]) -> bool {
        self.includes.is_some() || self.selects(folder, true)
    }

    /// Whether an entry is meant. If it is, the patterns have found something that match it.
    #[must_use]
    pub fn selects_entry(&self, entry: &Entry) -> bool {
        let is_directory = entry.metadata.kind == EntryKind::Directory;
        let selects = self.sample.as_ref().is_none_or(|sample| sample.takes(entry))
            && self.selects(&entry.path, is_directory);
        if selects {
            self.finds(&entry.path, is_directory);
        } else if !self.excludes.is_empty() {
            self.takes_out.store(true, Ordering::Relaxed);
        }
        selects
    }

    /// Notes that patterns have found something: what is at `path`, which is meant.
    pub fn finds(&self, path: &[u8], is_directory: bool) {
        let path = Path::new(OsStr::from_bytes(path));
        self.means.store(true, Ordering::Relaxed);
        for asked in self.asked.iter().filter(|asked| !asked.found.load(Ordering::Relaxed)) {
            asked.found.fetch_or(matches(&asked.alone, path, is_directory), Ordering::Relaxed);
        }
    }

    /// Whether what is at `path` (no leading slash) is meant, be it an entry or not: what only stands in a target is
    /// nothing that a pattern has found.
    #[must_use]
    pub fn selects(&self, path: &[u8], is_directory: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        self.includes.as_ref().is_none_or(|includes| matches(includes, path, is_directory))
            && !self.excludes(path, is_directory)
    }

    /// Whether an exclude takes out what is at `path`, or a folder between it and its source. Of a folder that is
    /// taken out and leads to a source nothing else is meant.
    fn excludes(&self, path: &Path, is_directory: bool) -> bool {
        if self.excludes.is_empty() {
            return false;
        }
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let source = path.ancestors().find(|above| self.sources.contains(above.as_os_str().as_bytes()));
        if source.is_none() && self.leads_to_a_source(bytes(path)) {
            return false;
        }
        let between = path.ancestors().take_while(|above| Some(*above) != source && *above != Path::new(""));
        let said = between.map(|above| self.excludes.matched(above, is_directory || above != path));
        said.into_iter().find(|said| !said.is_none()).is_some_and(|said| said.is_ignore())
    }

    fn leads_to_a_source(&self, folder: Vec<u8>) -> bool {
        let below = if folder.is_empty() { folder } else { [&folder, &b"/"[..]].concat() };
        self.sources.range(below.clone()..).next().is_some_and(|source| source.starts_with(&below))
    }

    /// The patterns of `includes` that have matched no entry that was asked about so far, or only what an exclude takes
    /// out; whether excludes have left nothing.
    #[must_use]
    pub fn unmatched(&self) -> Unmatched {
        let nothing = self.asked.iter().filter(|asked| !asked.found.load(Ordering::Relaxed));
        let (takes_out, means) = (&self.takes_out, &self.means);
        Unmatched {
            patterns: nothing.map(|asked| asked.text.clone()).collect(),
            of: self.asked.len(),
            all_excluded: takes_out.load(Ordering::Relaxed) && !means.load(Ordering::Relaxed),
        }
    }
}

/// A selection along a manifest, in its order: what is in a folder that is not meant is not meant either, whatever a later
/// pattern says of it. So no entry comes without the folder that it is in.
#[derive(Debug)]
pub struct Sieve<'a> {
    selection: &'a Selection,
    /// The last folder that was not meant.
    gone: Vec<u8>,
}

impl<'a> Sieve<'a> {
    /// At the beginning.
    #[must_use]
    pub const fn new(selection: &'a Selection) -> Self {
        Self { selection, gone: Vec::new() }
    }

    /// Whether the next entry is meant.
    pub fn takes(&mut self, entry: &Entry) -> bool {
        let below = entry.path.strip_prefix(&self.gone[..]);
        if !self.gone.is_empty() && below.is_some_and(|rest| rest.starts_with(b"/")) {
            return false;
        }
        let takes = self.selection.selects_entry(entry);
        if !takes && entry.metadata.kind == EntryKind::Directory {
            self.gone.clone_from(&entry.path);
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{filesystem::names::tests::metadata, format::entry::Content};

    #[test]
    fn patterns_choose_what_gitignore_says() {
        let strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let chosen = |includes: &[&str], excludes: &[&str], path: &str| {
            let selection = Selection::new(&strings(includes), &strings(excludes)).unwrap();
            selection.selects(path.as_bytes(), false)
        };
        assert!(chosen(&[], &[], "srv/a"));
        assert!(!chosen(&[], &["*.log"], "srv/deep/a.log"));
        assert!(!chosen(&[], &["/srv/deep"], "srv/deep/a/b"));
        assert!(chosen(&[], &["/deep"], "srv/deep/a"));
        assert!(chosen(&["/srv/deep"], &[], "srv/deep/a/b"));
        assert!(!chosen(&["/srv/deep"], &[], "srv/other"));
        assert!(!chosen(&["/srv"], &["*.log"], "srv/a.log"));
        assert!(chosen(&[], &["*.log", "!keep.log"], "srv/keep.log"));
        let error = Selection::new(&strings(&["a["]), &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_pattern_that_finds_nothing_is_known() {
        let strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let selection =
            Selection::new(&strings(&["*.txt", "a.txt", "/srv/b", "none", "!c"]), &strings(&["b"]));
        let selection = selection.unwrap();
        assert_eq!(
            (selection.unmatched().patterns.len(), selection.unmatched().of),
            (4, 4),
            "nothing was asked yet"
        );
        assert!(selection.selects(b"srv/none", false), "it is meant, and no entry");
        for path in ["srv/a.txt", "srv/b", "srv/other"] {
            let entry = Entry {
                path: path.into(),
                metadata: metadata(EntryKind::File),
                content: Content::Inline(Vec::new()),
                changed_while_read: false,
                error: None,
            };
            let _meant = selection.selects_entry(&entry);
        }
        // Of two that match the same each has found it; what is left out again is not found.
        assert_eq!(selection.unmatched().patterns, ["/srv/b", "none"]);
        for nothing in ["", "# none", "!none"] {
            assert_eq!(Selection::new(&strings(&[nothing]), &[]).unwrap_err().kind(), ErrorKind::Usage);
        }
        assert_eq!(Selection::default().unmatched().of, 0);
    }
}
