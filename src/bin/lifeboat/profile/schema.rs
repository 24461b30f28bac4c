//! What a profile may say, and reading it: strictly, and with the line of whatever is wrong.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use lifeboat::{
    error::{Error, ErrorKind, Result},
    report::{size, time},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Any text.
    Text,
    /// An address of a repository.
    Address,
    /// An absolute path of a file, or `cred:NAME`.
    File,
    /// An absolute path.
    Folder,
    /// A list of absolute paths.
    Paths,
    /// A list of any texts.
    Texts,
    /// A table of texts.
    Pairs,
    /// `true` or `false`.
    Switch,
    /// Such as `"10M"`.
    Size,
    /// Such as `"1h30m"`.
    Duration,
    /// A number of calls.
    Count,
    /// `off`, `fast`, `auto` or `max`.
    Compression,
}

/// Every key of a profile. They are named like the flags.
const KEYS: &[(&str, Kind)] = &[
    ("repository", Kind::Address),
    ("repository-file", Kind::File),
    ("access-key-file", Kind::File),
    ("password-file", Kind::File),
    ("password-command", Kind::Text),
    ("slot", Kind::Text),
    ("sources", Kind::Paths),
    ("exclude", Kind::Texts),
    ("iexclude", Kind::Texts),
    ("exclude-file", Kind::Paths),
    ("exclude-caches", Kind::Switch),
    ("exclude-if-present", Kind::Texts),
    ("exclude-larger-than", Kind::Size),
    ("one-file-system", Kind::Switch),
    ("tags", Kind::Texts),
    ("host", Kind::Text),
    ("compression", Kind::Compression),
    ("s3-credentials", Kind::File),
    ("options", Kind::Pairs),
    ("cacert", Kind::File),
    ("limit-upload", Kind::Size),
    ("limit-download", Kind::Size),
    ("connections", Kind::Count),
    ("retry-for", Kind::Duration),
    ("cache-dir", Kind::Folder),
    ("max-age", Kind::Duration),
    ("from-repository", Kind::Address),
    ("from-repository-file", Kind::File),
    ("from-access-key-file", Kind::File),
    ("from-password-file", Kind::File),
    ("from-password-command", Kind::Text),
    ("from-slot", Kind::Text),
    ("from-s3-credentials", Kind::File),
    ("from-options", Kind::Pairs),
];

/// Keys of which a profile has one at most, since they say the same thing in different ways.
const ONE_OF: [&[&str]; 4] = [
    &["repository", "repository-file"],
    &["access-key-file", "password-file", "password-command"],
    &["from-repository", "from-repository-file"],
    &["from-access-key-file", "from-password-file", "from-password-command"],
];

/// What a profile says under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A text, a path, a size or a number.
    Text(String),
    /// A list.
    List(Vec<String>),
    /// Yes or no.
    Switch(bool),
}

/// A value and the line that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) value: Value,
    pub(crate) line: usize,
}

/// A profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    pub(crate) given: BTreeMap<&'static str, Given>,
}

/// A file with profiles.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    profiles: DeTable<'a>,
}

impl<'a> Document<'a> {
    /// Reads what holds for all profiles; the profiles themselves are read one by one, so that a slip in one
    /// does not stop the backups of another.
    ///
    /// # Errors
    /// `Usage`, with the line.
    pub(crate) fn parse(file: &'a Path, text: &'a str) -> Result<Self> {
        let mut document = Self { file, text, profiles: DeTable::new() };
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            document.wrong(at, &format!("this is not TOML: {}", error.message()))
        })?;
        for (key, value) in table.into_inner() {
            let at = key.span().start;
            if key.get_ref() != "profile" {
                return Err(document
                    .wrong(at, &format!("unknown key `{key}`", key = key.get_ref()))
                    .with_remedy("Everything belongs to a profile: write it below [profile.NAME]"));
            }
            let DeValue::Table(profiles) = value.into_inner() else {
                return Err(document
                    .wrong(at, "`profile` is not a table")
                    .with_remedy("Write [profile.NAME], and the keys of the profile below it"));
            };
            document.profiles = profiles;
        }
        Ok(document)
    }

    /// The names of all profiles.
    pub(crate) fn names(&self) -> Vec<String> {
        self.profiles.keys().map(|name| name.get_ref().to_string()).collect()
    }

    /// Reads one profile.
    ///
    /// # Errors
    /// `Usage`, with the line.
    pub(crate) fn profile(&self, wanted: &str) -> Result<Option<Profile>> {
        let Some((name, value)) = self.profiles.iter().find(|(name, _)| name.get_ref() == wanted) else {
            return Ok(None);
        };
        let DeValue::Table(keys) = value.get_ref() else {
            let what = format!("the profile `{wanted}` is not a table");
            return Err(self.wrong(name.span().start, &what).with_remedy("Write [profile.NAME]"));
        };
        let mut given = BTreeMap::new();
        for (key, value) in keys {
            let at = key.span().start;
            let (key, kind) = self.key(key.get_ref(), at)?;
            let value = self.value(kind, value).map_err(|error| error.context(self.place(at, key)))?;
            given.insert(key, Given { value, line: self.line(at) });
        }
        for ways in ONE_OF {
            let mut both = ways.iter().filter_map(|key| Some((key, given.get(*key)?.line)));
            if let (Some((first, _)), Some((second, line))) = (both.next(), both.next()) {
                let what =
                    format!("{}:{line}: `{first}` and `{second}` exclude each other", self.file.display());
                return Err(Error::new(ErrorKind::Usage, what).with_remedy("Keep one of them"));
            }
        }
        let line = self.line(name.span().start);
        Ok(Some(Profile { name: wanted.to_owned(), file: self.file.to_owned(), line, given }))
    }

    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }

    fn wrong(&self, at: usize, what: &str) -> Error {
        Error::new(ErrorKind::Usage, format!("{}:{}: {what}", self.file.display(), self.line(at)))
    }

    fn place(&self, at: usize, key: &str) -> String {
        format!("{}:{}: `{key}`", self.file.display(), self.line(at))
    }

    fn key(&self, name: &str, at: usize) -> Result<(&'static str, Kind)> {
        if let Some(known) = KEYS.iter().find(|(key, _)| *key == name) {
            return Ok(*known);
        }
        if name == "stream" {
            return Err(self
                .wrong(at, "command streams in a profile are not supported yet")
                .with_remedy("Back a command up with `backup --stdin-from-command -- COMMAND`"));
        }
        let remedy = similar(name).map_or_else(
            || format!("Known are {}", KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ")),
            |key| format!("Did you mean `{key}`?"),
        );
        Err(self.wrong(at, &format!("unknown key `{name}`")).with_remedy(remedy))
    }

    fn value(&self, kind: Kind, value: &Spanned<DeValue<'_>>) -> Result<Value> {
        match (kind, value.get_ref()) {
            (Kind::Switch, DeValue::Boolean(switch)) => Ok(Value::Switch(*switch)),
            (Kind::Count, DeValue::Integer(number)) if number.radix() == 10 => {
                let count: Option<u16> =
                    number.as_str().parse().ok().filter(|count| (1..=1024).contains(count));
                count
                    .map(|count| Value::Text(count.to_string()))
                    .ok_or_else(|| unfit("is not from 1 to 1024"))
            }
            (Kind::Paths | Kind::Texts, DeValue::Array(items)) => {
                let text = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
                    DeValue::String(text) if kind == Kind::Paths => absolute(text),
                    DeValue::String(text) => Ok(text.to_string()),
                    _ => Err(unfit(expected(kind))),
                };
                Ok(Value::List(items.iter().map(text).collect::<Result<_>>()?))
            }
            (Kind::Pairs, DeValue::Table(pairs)) => {
                let pair = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| match value.get_ref() {
                    DeValue::String(text) => Ok(format!("{}={text}", key.get_ref())),
                    _ => Err(unfit(expected(kind))),
                };
                Ok(Value::List(pairs.iter().map(pair).collect::<Result<_>>()?))
            }
            (Kind::Switch | Kind::Count | Kind::Paths | Kind::Texts | Kind::Pairs, _) => {
                Err(unfit(expected(kind)))
            }
            (_, DeValue::String(text)) => text_of(kind, text).map(Value::Text),
            _ => Err(unfit(expected(kind))),
        }
    }
}

fn unfit(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, why)
}

const fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Address | Kind::File | Kind::Folder | Kind::Compression => {
            "must be a text in quotes"
        }
        Kind::Paths | Kind::Texts => "must be a list of texts, such as [\"a\", \"b\"]",
        Kind::Pairs => "must be a table of texts, such as { region = \"eu-central-1\" }",
        Kind::Switch => "must be true or false",
        Kind::Size => "must be a size in quotes, such as \"10M\"",
        Kind::Duration => "must be a duration in quotes, such as \"1h30m\"",
        Kind::Count => "must be a number",
    }
}

fn text_of(kind: Kind, text: &str) -> Result<String> {
    if text.is_empty() {
        return Err(unfit("is empty").with_remedy("Give it a value, or leave the line out"));
    }
    match kind {
        Kind::Size => drop(size::parse(text)?),
        Kind::Duration => drop(time::parse_duration(text)?),
        Kind::Compression if !["off", "fast", "auto", "max"].contains(&text) => {
            return Err(unfit(format!("cannot be `{text}`")).with_remedy("Write off, fast, auto or max"));
        }
        // A folder that depends on where somebody stands is another repository each time.
        Kind::Address if !text.starts_with("s3:") && !text.contains("://") => return absolute(text),
        Kind::File if !text.starts_with("cred:") => return absolute(text),
        Kind::Folder => return absolute(text),
        _ => {}
    }
    Ok(text.to_owned())
}

fn absolute(path: &str) -> Result<String> {
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    Err(unfit(format!("has the path `{path}`, which is not absolute")).with_remedy("Begin it with /"))
}

/// The key that was probably meant.
fn similar(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let keys = KEYS.iter().map(|(key, _)| *key);
    let nearest = keys.clone().map(|key| (distance(&name, key), key)).min()?;
    if nearest.0 <= 1.max(name.len() / 3) {
        return Some(nearest.1);
    }
    // `password` for `password-file`, `excludes-caches` is near enough above.
    let mut longer = keys.filter(|key| name.len() > 3 && (key.starts_with(&name) || key.ends_with(&name)));
    longer.next()
}

/// How many letters must be changed, added or removed to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (below, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[below + 1];
            row[below + 1] = changed.min(diagonal + 1).min(row[below] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Profile> {
        Document::parse(Path::new("c.toml"), text)?.profile("web").map(Option::unwrap)
    }

    #[test]
    fn every_key_is_read_with_its_line() {
        let text = "\
[profile.web]
repository = \"s3:https://h/b/p\"
access-key-file = \"cred:access-key\"
sources = [\"/home\", \"/etc\"]
exclude-caches = true
connections = 16
limit-upload = \"10M\"
options = { region = \"x\" }

[profile.other]
soruces = 1
";
        let profile = read(text).unwrap();
        let value = |key: &str| profile.given[key].value.clone();
        assert_eq!(value("repository"), Value::Text("s3:https://h/b/p".into()));
        assert_eq!(value("sources"), Value::List(vec!["/home".into(), "/etc".into()]));
        assert_eq!(value("exclude-caches"), Value::Switch(true));
        assert_eq!(value("connections"), Value::Text("16".into()));
        assert_eq!(value("options"), Value::List(vec!["region=x".into()]));
        assert_eq!((profile.line, profile.given["limit-upload"].line), (1, 7));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_was_meant() {
        for (line, says, remedy) in [
            ("soruces = []", "c.toml:2: unknown key `soruces`", "Did you mean `sources`?"),
            ("tag = []", "unknown key `tag`", "Did you mean `tags`?"),
            ("limit_upload = \"1M\"", "unknown key `limit_upload`", "Did you mean `limit-upload`?"),
            ("password = \"x\"", "unknown key `password`", "Did you mean `password-"),
            ("colour = 1", "unknown key `colour`", "Known are repository, "),
            ("stream = []", "c.toml:2: command streams", "--stdin-from-command"),
            ("sources = \"/home\"", "c.toml:2: `sources`: must be a list of texts", ""),
            (
                "sources = [\"home\"]",
                "`sources`: has the path `home`, which is not absolute",
                "Begin it with /",
            ),
            ("repository = \"backup\"", "not absolute", ""),
            ("retry-for = \"soon\"", "c.toml:2: `retry-for`: `soon` is not a duration", "15m"),
            ("limit-upload = 10", "must be a size in quotes", ""),
            ("connections = 0", "is not from 1 to 1024", ""),
            ("compression = \"best\"", "cannot be `best`", "off, fast, auto or max"),
            ("host = \"\"", "`host`: is empty", ""),
            ("host = ", "c.toml:2: this is not TOML", ""),
            ("host = \"a\"\nhost = \"b\"", "c.toml:3: this is not TOML", ""),
            (
                "password-file = \"/a\"\naccess-key-file = \"/b\"",
                "`password-file` exclude each other",
                "Keep one",
            ),
        ] {
            let error = read(&format!("[profile.web]\n{line}\n")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{line}");
            assert!(error.to_string().contains(says), "{line}: {error}");
            assert!(error.remedy().unwrap_or_default().contains(remedy), "{line}: {:?}", error.remedy());
        }
        let error = Document::parse(Path::new("c.toml"), "\nrepository = \"/r\"\n").unwrap_err();
        assert!(error.to_string().starts_with("c.toml:2: unknown key `repository`"), "{error}");
    }
}
