//! What a backup left out, and which rule said so, for people and for machines.

use serde_json::{Value, json};

use super::{json as messages, size, text};
use crate::{
    filesystem::filter::{FilterOptions, Why},
    ops::backup::tree::Count,
};

/// A rule as it is told.
struct Told<'a> {
    /// One word for machines.
    rule: &'static str,
    /// What the user gave.
    value: Option<String>,
    origin: Option<&'a str>,
    /// For people, without where it comes from.
    text: String,
}

fn told(why: Why, options: &FilterOptions) -> Told<'_> {
    let new = |rule, value: Option<String>, origin, text: &str| {
        let text = value.as_ref().map_or_else(|| text.to_owned(), |value| text.replace("{}", value));
        Told { rule, value, origin, text: text::shown(text.as_bytes()) }
    };
    match why {
        Why::Pattern(place) => {
            let pattern = options.patterns().nth(place);
            let (value, origin) = pattern.map(|pattern| (pattern.text.clone(), &*pattern.origin)).unzip();
            new("pattern", value, origin, "{}")
        }
        Why::LargerThan => {
            let value = options.exclude_larger_than.map(size::show);
            new("larger-than", value, Some("--exclude-larger-than"), "files larger than {}")
        }
        Why::CacheTag => {
            new("caches", None, Some("--exclude-caches"), "what is in folders with a CACHEDIR.TAG")
        }
        Why::Present(place) => {
            let name = options.exclude_if_present.get(place);
            let value = name.map(|name| String::from_utf8_lossy(name).into_owned());
            new("if-present", value, Some("--exclude-if-present"), "what is in folders with {}")
        }
        Why::OtherFileSystem => {
            new("one-file-system", None, Some("--one-file-system"), "what other file systems hold")
        }
        Why::PseudoFileSystem => new(
            "pseudo-file-system",
            None,
            None,
            "what the kernel makes up, such as /proc, or would mount now",
        ),
        Why::SeenElsewhere => {
            new("seen-elsewhere", None, None, "what is mounted at two places, at one of them")
        }
        Why::Own => new("own", None, None, "the repository and the cache"),
    }
}

/// Every rule that is in effect, in the order in which they are told.
#[must_use]
pub fn rules(options: &FilterOptions) -> Vec<Why> {
    let patterns = options.patterns().enumerate().filter(|(_, pattern)| pattern.leaves_out());
    let mut rules: Vec<Why> = patterns.map(|(place, _)| Why::Pattern(place)).collect();
    rules.extend(options.exclude_larger_than.map(|_| Why::LargerThan));
    rules.extend(options.exclude_caches.then_some(Why::CacheTag));
    rules.extend((0..options.exclude_if_present.len()).map(Why::Present));
    rules.extend(options.one_file_system.then_some(Why::OtherFileSystem));
    rules.extend([Why::PseudoFileSystem, Why::SeenElsewhere, Why::Own]);
    rules
}

/// The rule and where it comes from: `*.tmp (--exclude)`.
#[must_use]
pub fn name(why: Why, options: &FilterOptions) -> String {
    let Told { origin, text, .. } = told(why, options);
    origin.map_or_else(|| text.clone(), |origin| format!("{text} ({})", text::shown(origin.as_bytes())))
}

/// What a rule took out, as a line; `None` for one that took nothing and was not asked for.
#[must_use]
pub fn line(why: Why, count: Count, options: &FilterOptions) -> Option<String> {
    let Count { entries, bytes } = count;
    let name = name(why, options);
    match (entries, why) {
        (0, Why::Pattern(_)) => Some(format!("nothing matches, or only what another rule left out: {name}")),
        (0, Why::PseudoFileSystem | Why::SeenElsewhere | Why::Own) => None,
        (0, _) => Some(format!("left out nothing: {name}")),
        _ => {
            let entries = text::count(entries, "entry", "entries");
            let bytes = if bytes > 0 { format!(", {}", size::show(bytes)) } else { String::new() };
            Some(format!("left out {entries}{bytes}: {name}"))
        }
    }
}

/// The same for machines; `kind` is the type of the message.
#[must_use]
pub fn message(kind: &str, why: Why, count: Count, options: &FilterOptions) -> Value {
    let Told { rule, value, origin, .. } = told(why, options);
    let Count { entries, bytes } = count;
    let fields =
        json!({ "rule": rule, "value": value, "origin": origin, "entries": entries, "bytes": bytes });
    messages::message(kind, fields)
}
