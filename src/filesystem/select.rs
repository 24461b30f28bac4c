//! What of a snapshot is meant: patterns in gitignore syntax, with `/` as their folder, and perhaps only a
//! sample of what they choose.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::sample::Sample;
use crate::{
    error::{Error, ErrorKind, Result},
    format::entry::{Entry, EntryKind},
};

/// Patterns that choose among paths.
#[derive(Debug)]
pub struct Selection {
    includes: Option<Gitignore>,
    excludes: Gitignore,
    sample: Option<Sample>,
}

fn compile(patterns: &[String]) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new("/");
    builder.allow_unclosed_class(false);
    let invalid = |pattern: &str, error: ignore::Error| {
        Error::new(ErrorKind::Usage, format!("the pattern {pattern:?} is not valid: {error}"))
            .with_remedy("Write \\ before a character that is meant literally")
    };
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(|error| invalid(pattern, error))?;
    }
    builder.build().map_err(|error| invalid("", error))
}

impl Default for Selection {
    /// Everything.
    fn default() -> Self {
        Self { includes: None, excludes: Gitignore::empty(), sample: None }
    }
}

impl Selection {
    /// Everything but `excludes`; with `includes`, only what one of them matches and what is below that.
    ///
    /// # Errors
    /// `Usage` if a pattern is not valid.
    pub fn new(includes: &[String], excludes: &[String]) -> Result<Self> {
        let included = if includes.is_empty() { None } else { Some(compile(includes)?) };
        Ok(Self { includes: included, excludes: compile(excludes)?, sample: None })
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

    /// Whether an entry is meant.
    #[must_use]
    pub fn selects_entry(&self, entry: &Entry) -> bool {
        let is_directory = entry.metadata.kind == EntryKind::Directory;
        self.sample.as_ref().is_none_or(|sample| sample.takes(entry))
            && self.selects(&entry.path, is_directory)
    }

    /// Whether the entry at `path` (no leading slash) is meant.
    #[must_use]
    pub fn selects(&self, path: &[u8], is_directory: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        let matches = |patterns: &Gitignore| {
            !patterns.is_empty() && patterns.matched_path_or_any_parents(path, is_directory).is_ignore()
        };
        self.includes.as_ref().is_none_or(matches) && !matches(&self.excludes)
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
}
