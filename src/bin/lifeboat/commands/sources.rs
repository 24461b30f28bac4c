//! Which files and folders a backup is to take: paths, and lists of paths in files.

use std::{
    ffi::{OsStr, OsString},
    io::Read,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
};

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    filesystem::{
        filter::{Filter, FilterOptions, Pattern},
        mounts::Mounts,
        sandbox::{Hidden, Mask},
        walk::resolve_source,
    },
    ops::backup::{source_fits, sources_fit},
    report::{size, text},
};

use crate::{environment, terminal::Output};

/// The largest list of paths, in bytes.
const LIST_BYTES_MAX: u64 = 4 << 20;
/// All patterns together, in bytes: compiled they take up to 600 times as much memory.
const PATTERNS_BYTES_MAX: u64 = 256 << 10;

/// What is to be backed up.
#[derive(Debug, Default, Args)]
pub(crate) struct SourceArguments {
    /// What to back up
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Read patterns such as /srv/*/data from a file (- for standard input), one a line; # begins a comment
    #[arg(long, value_name = "FILE")]
    pub(crate) files_from: Vec<PathBuf>,
    /// Read paths from a file, one a line, taken literally
    #[arg(long, value_name = "FILE")]
    pub(crate) files_from_verbatim: Vec<PathBuf>,
    /// Read paths from a file, each ended by a NUL byte, as of find -print0
    #[arg(long, value_name = "FILE")]
    pub(crate) files_from_raw: Vec<PathBuf>,
}

impl SourceArguments {
    /// Whether a list names paths.
    pub(crate) const fn lists(&self) -> bool {
        !self.files_from.is_empty() || !self.files_from_verbatim.is_empty() || !self.files_from_raw.is_empty()
    }
}

/// Absolute paths.
#[derive(Debug)]
pub(crate) struct Sources {
    /// All of them, in the order of their names.
    pub(crate) paths: Vec<PathBuf>,
    /// Those that are not there.
    pub(crate) missing: Vec<PathBuf>,
    /// Links, and what they lead to if that is what is backed up.
    pub(crate) links: Vec<(PathBuf, Option<PathBuf>)>,
}

impl Sources {
    /// Warns of links: they look like folders, and a backup of one holds nothing.
    pub(crate) fn warn_of_links(&self, output: &Output) {
        for (link, followed) in &self.links {
            let shown = |path: &Path| text::shown(path.as_os_str().as_bytes());
            let link = shown(link);
            output.warn(&match followed {
                Some(target) => {
                    format!("{link} is a link: what it leads to is backed up, as {}", shown(target))
                }
                None => format!(
                    "{link} is a link, and only the link is backed up: write {link}/ for what it leads to"
                ),
            });
        }
    }

    /// Reports what is missing. As long as something is left the backup goes on, and its own result says
    /// that it is incomplete.
    ///
    /// # Errors
    /// `Incomplete` when nothing is left to back up.
    pub(crate) fn tell(&self, output: &Output) -> Result<()> {
        if self.missing.is_empty() || self.missing.len() < self.paths.len() {
            return Ok(());
        }
        for path in &self.missing {
            let path = path.as_os_str().as_bytes();
            output.problem(
                path.strip_prefix(b"/").unwrap_or(path),
                ErrorKind::Incomplete,
                "it is not there",
                None,
            );
        }
        let what = if self.missing.len() == 1 { "the source is missing" } else { "all sources are missing" };
        Err(Error::new(ErrorKind::Incomplete, format!("{what}: no snapshot was written"))
            .with_remedy("Check the paths, and that their file systems are mounted"))
    }
}

/// Refuses what the sandbox of a service hides: it would be saved as empty, and look complete.
///
/// # Errors
/// `Failed` when something is hidden; `Usage` if a pattern is wrong.
pub(crate) fn refuse_hidden(sources: &[PathBuf], filter: &FilterOptions) -> Result<()> {
    let filter = Filter::new(filter.clone())?;
    let hidden = Mounts::of_this_process().hidden(sources, &|source, path| filter.leaves_out(source, path));
    if hidden.is_empty() {
        return Ok(());
    }
    let named = |hidden: &Hidden| {
        let by = match hidden.mask {
            Mask::Inaccessible => "ProtectHome= or InaccessiblePaths=",
            Mask::Empty => "ProtectHome=tmpfs, TemporaryFileSystem= or DynamicUser=",
            Mask::Private => "PrivateTmp=",
        };
        format!("{} ({by})", text::shown(hidden.path.as_os_str().as_bytes()))
    };
    let places: Vec<String> = hidden.iter().map(named).collect();
    let what = format!(
        "the sandbox of this service hides {}, so what is there would be missing from the backup",
        places.join(" and ")
    );
    Err(Error::new(ErrorKind::Failed, what)
        .with_remedy("Change the unit with `systemctl edit`, or leave these places out of the backup"))
}

/// Collects the sources of all arguments.
///
/// # Errors
/// `Usage` when there is none, or a list cannot be read.
pub(crate) fn collect(arguments: &SourceArguments) -> Result<Sources> {
    let mut named = Named::default();
    arguments.paths.iter().try_for_each(|path| named.push(path.clone()))?;
    let files = [&arguments.files_from, &arguments.files_from_verbatim, &arguments.files_from_raw];
    if files.into_iter().flatten().filter(|file| *file == Path::new("-")).count() > 1 {
        return Err(Error::new(ErrorKind::Usage, "two lists are to come from the standard input")
            .with_remedy("Give one of them as a file"));
    }
    for file in &arguments.files_from {
        let bytes = bytes_of(file, LIST_BYTES_MAX)?;
        // Some editors begin a file with a mark.
        for line in bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            if !line.is_empty() && !line.starts_with(b"#") {
                expand(Path::new(OsStr::from_bytes(line)), &mut named)?;
            }
        }
    }
    let lists = arguments.files_from_verbatim.iter().map(|file| (file, b'\n'));
    for (file, end) in lists.chain(arguments.files_from_raw.iter().map(|file| (file, 0))) {
        for name in bytes_of(file, LIST_BYTES_MAX)?.split(|byte| *byte == end).filter(|name| !name.is_empty())
        {
            named.push(PathBuf::from(OsString::from_vec(name.to_vec())))?;
        }
    }
    let named = named.paths;
    if named.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "there is nothing to back up")
            .with_remedy("Name files or folders, use --files-from, --stdin or --stdin-from-command, or a profile with sources"));
    }
    let (mut paths, mut missing, mut links) = (Vec::new(), Vec::new(), Vec::new());
    for path in named {
        if path.as_os_str().is_empty() {
            return Err(
                Error::new(ErrorKind::Usage, "a path is empty").with_remedy("Name a file or a folder")
            );
        }
        let wants_folder = path.as_os_str().as_bytes().ends_with(b"/");
        let (mut path, is_there) = absolute(&path)?;
        if path.is_symlink() {
            // As for rsync and tar: a slash behind the name means the folder. One that leads nowhere stays a link.
            let followed = path.canonicalize().ok().filter(|_| wants_folder);
            links.push((path.clone(), followed.clone()));
            path = followed.unwrap_or(path);
        }
        if !is_there {
            missing.push(path.clone());
        }
        paths.push(path);
    }
    for list in [&mut paths, &mut missing] {
        list.sort_unstable();
        list.dedup();
    }
    sources_fit(paths.len(), paths.iter().map(|path| path.as_os_str().len()).sum())?;
    Ok(Sources { paths, missing, links })
}

/// Paths as they were given, no more of them than a snapshot can name.
#[derive(Debug, Default)]
struct Named {
    paths: Vec<PathBuf>,
    bytes: usize,
}

impl Named {
    fn push(&mut self, path: PathBuf) -> Result<()> {
        source_fits(path.as_os_str().as_bytes())?;
        self.bytes += path.as_os_str().len();
        self.paths.push(path);
        sources_fit(self.paths.len(), self.bytes)?;
        Ok(())
    }
}

/// The absolute path, and whether something is there.
fn absolute(path: &Path) -> Result<(PathBuf, bool)> {
    if let Ok(found) = resolve_source(path) {
        let is_there = found.symlink_metadata().is_ok_and(|_| true) || !is_missing(&found);
        return Ok((found, is_there));
    }
    // A folder above it is missing: the walk reports it by this name.
    let failed = |e| Error::new(ErrorKind::Usage, format!("cannot find {}", path.display())).with_source(e);
    let path = std::path::absolute(path).map_err(failed)?;
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    let is_there = !is_missing(&plain);
    Ok((plain, is_there))
}

/// Only what the system says is not there; what may not be looked at is there and unreadable.
fn is_missing(path: &Path) -> bool {
    let missing = [std::io::ErrorKind::NotFound, std::io::ErrorKind::NotADirectory];
    path.symlink_metadata().is_err_and(|error| missing.contains(&error.kind()))
}

fn bytes_of(path: &Path, most: u64) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| {
        Error::new(ErrorKind::Usage, format!("could not read the list {}", path.display()))
            .with_remedy("Check the path and who may read it")
            .with_source(e)
    };
    let mut bytes = Vec::new();
    let read: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(environment::file(path)?).map_err(failed)?)
    };
    read.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        let what = format!("the list {} is larger than {}", path.display(), size::show(most));
        return Err(Error::new(ErrorKind::Usage, what)
            .with_remedy("Name folders instead of each file in them, or use fewer patterns"));
    }
    Ok(bytes)
}

/// Whether patterns are not too many to compile.
///
/// # Errors
/// `Usage`.
pub(crate) fn patterns_fit(patterns: &[Pattern]) -> Result<()> {
    let bytes: usize = patterns.iter().map(|pattern| pattern.text.len()).sum();
    if bytes as u64 <= PATTERNS_BYTES_MAX {
        return Ok(());
    }
    let most = size::show(PATTERNS_BYTES_MAX);
    Err(Error::new(ErrorKind::Usage, format!("the patterns have more than {most} together"))
        .with_remedy("Name the folders in which the files are that are not wanted"))
}

/// The patterns of a list, each with its place.
///
/// # Errors
/// `Usage` when it cannot be read, is too long or no text.
pub(crate) fn patterns_of(path: &Path) -> Result<Vec<Pattern>> {
    let text = String::from_utf8(bytes_of(path, PATTERNS_BYTES_MAX)?).map_err(|e| {
        let (good, _) = e.as_bytes().split_at(e.utf8_error().valid_up_to());
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        let what = format!("line {line} of the list {} is not UTF-8 text", path.display());
        Error::new(ErrorKind::Usage, what)
            .with_remedy(
                "Save it as UTF-8; for a byte of a name that is no text write `?`, which stands for any one",
            )
            .with_source(e)
    })?;
    // Some editors begin a file with it.
    let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines().enumerate();
    let pattern = |(at, line): (usize, &str)| {
        let origin = format!("{}:{}", path.display(), at + 1);
        Pattern { text: line.to_owned(), origin }
    };
    Ok(lines.map(pattern).collect())
}

/// Adds the paths that a pattern means. One that nothing matches is taken as it is, and is missing then.
fn expand(pattern: &Path, named: &mut Named) -> Result<()> {
    let is_wild = |name: &[u8]| name.iter().any(|byte| b"*?[".contains(byte));
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = component.as_os_str().as_bytes();
        if !matches!(component, Component::Normal(_)) || !is_wild(name) {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        }
        let mut next = Named::default();
        for folder in &found {
            let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            // What is no folder, or cannot be listed, has nothing that matches.
            for entry in std::fs::read_dir(here).into_iter().flatten().flatten() {
                let entry = entry.file_name();
                let hidden = entry.as_bytes().starts_with(b".") && !name.starts_with(b".");
                if !hidden && matches(name, entry.as_bytes()) {
                    next.push(folder.join(&entry))?;
                }
            }
        }
        found = next.paths;
    }
    if pattern.as_os_str().as_bytes().ends_with(b"/") {
        // It says that what a link leads to is meant.
        found.iter_mut().for_each(|path| path.push(""));
    }
    found.retain(|path| path.symlink_metadata().is_ok());
    if found.is_empty() {
        return named.push(pattern.to_owned());
    }
    found.into_iter().try_for_each(|path| named.push(path))
}

/// Whether a name matches a pattern with `*`, `?` and `[a-z]`. Only the last `*` that was met ever takes more: what one
/// before it would take can be left to it, so the time is the product of both lengths at most.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    // What comes after the last `*`, and the name from where it was tried there.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', rest)) = pattern.split_first() {
            star = Some((rest, name));
            pattern = rest;
        } else if pattern.is_empty() && name.is_empty() {
            return true;
        } else if let Some(rest) = matched_one(pattern, name) {
            (pattern, name) = rest;
        } else {
            let Some((after, [_, from @ ..])) = star else { return false };
            star = Some((after, from));
            (pattern, name) = (after, from);
        }
    }
}

/// What is left of both when the first sign of a pattern, which is no `*`, takes the first byte of a name.
fn matched_one<'p, 'n>(pattern: &'p [u8], name: &'n [u8]) -> Option<(&'p [u8], &'n [u8])> {
    let ((sign, rest), (byte, names)) = (pattern.split_first()?, name.split_first()?);
    let rest = match sign {
        b'?' => Some(rest),
        b'\\' => rest.split_first().filter(|(literal, _)| *literal == byte).map(|(_, rest)| rest),
        b'[' => match class(rest, *byte) {
            Some((is_in, rest)) => is_in.then_some(rest),
            None => (*byte == b'[').then_some(rest),
        },
        literal => (literal == byte).then_some(rest),
    };
    Some((rest?, names))
}

/// Whether a byte is in the class that begins here, and what follows the class.
fn class(text: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let negated = text.first().is_some_and(|first| matches!(first, b'!' | b'^'));
    let inside = text.get(usize::from(negated)..)?;
    // A bracket that comes first stands for itself.
    let end = inside.iter().skip(1).position(|byte| *byte == b']')? + 1;
    let (members, rest) = (inside.get(..end)?, inside.get(end + 1..)?);
    let mut is_in = false;
    let mut at = 0;
    while let Some(first) = members.get(at) {
        match (members.get(at + 1), members.get(at + 2)) {
            (Some(b'-'), Some(last)) => {
                is_in |= (*first..=*last).contains(&byte);
                at += 3;
            }
            _ => {
                is_in |= *first == byte;
                at += 1;
            }
        }
    }
    Some((is_in != negated, rest))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_those_of_a_shell() {
        for (pattern, name) in [
            ("*", "a"),
            ("a*c", "abbc"),
            ("?x", "bx"),
            ("[a-c]1", "b1"),
            ("[!a]", "b"),
            ("\\*", "*"),
            ("[]]", "]"),
            ("*a*b*", "xxabxb"),
            ("a*", "a"),
            ("*ab", "aab"),
            ("*[", "x["),
        ] {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in
            [("a*c", "ab"), ("?", ""), ("[a-c]", "d"), ("[!a]", "a"), ("\\*", "a"), ("", "a"), ("*ab", "aba")]
        {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        // Tried in every way this takes longer than the world has stood.
        assert!(!matches(&b"*a".repeat(40), &[&[b'a'; 200][..], b"b"].concat()));
    }
}
