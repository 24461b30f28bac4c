//! Patterns as git reads them, written in the syntax of the crate that matches them. That one knows alternatives
//! (`{a,b}`), which to git are what stands there, and lets a class such as `[!a]` match a slash, which git never does.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use ignore::gitignore::GitignoreBuilder;

/// What helps against one that is not valid.
pub(super) const REMEDY: &str = "Write \\ before a character that is meant literally";

/// What may be in a class of characters: which of ASCII, and ranges of others.
struct Class {
    ascii: [bool; 128],
    others: Vec<(char, char)>,
}

/// Adds a pattern in gitignore syntax; `from` comes back with each match. Gives why it is no pattern.
pub(super) fn add(builder: &mut GitignoreBuilder, from: Option<PathBuf>, text: &str) -> Result<(), String> {
    builder.add_line(from, &translated(text)?).map(drop).map_err(|error| plain(&error))
}

/// What is wrong, without the pattern: it is not the one that the user wrote.
pub(super) fn plain(error: &ignore::Error) -> String {
    match error {
        ignore::Error::Glob { err, .. } => err.clone(),
        other => other.to_string(),
    }
}

/// Whether a pattern can choose something: it is no comment, no empty line, and takes nothing back.
pub(super) fn chooses(text: &str) -> bool {
    !trimmed(text).is_empty() && !text.starts_with(['#', '!'])
}

/// Whether a pattern may say something else of what is below one place than of the same below the other. In doubt it does.
pub(super) fn tells_apart(text: &str, places: [&Path; 2]) -> bool {
    let pattern = if text.starts_with('#') { "" } else { trimmed(text) };
    let pattern = pattern.strip_prefix('!').unwrap_or(pattern);
    let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
    if !pattern.strip_prefix("**/").unwrap_or(pattern).contains('/') {
        // It means a name, wherever that is.
        return false;
    }
    // The folders that it begins with, as far as they are what stands there.
    let is_plain = |name: &&str| !name.is_empty() && name.is_ascii() && !name.contains(['*', '?', '[', '\\']);
    let path = pattern.strip_prefix('/').unwrap_or(pattern);
    places.into_iter().any(|place| {
        let names = place.iter().skip(1).map(|name| name.as_bytes());
        path.split('/').take_while(is_plain).zip(names).all(|(wanted, name)| {
            // Case counts for some patterns only.
            !name.is_ascii() || wanted.as_bytes().eq_ignore_ascii_case(name)
        })
    })
}

/// Without the spaces at its end. One behind a backslash stays, with what is before it.
fn trimmed(text: &str) -> &str {
    let (mut end, mut chars) = (0, text.char_indices());
    while let Some((at, c)) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        let (last, c) = escaped.unwrap_or((at, c));
        if c != ' ' || escaped.is_some() {
            end = last + c.len_utf8();
        }
    }
    text.get(..end).unwrap_or(text)
}

fn translated(text: &str) -> Result<String, String> {
    let wanted = trimmed(text);
    let (back, pattern) = match wanted.strip_prefix('!') {
        Some(pattern) => ("!", pattern),
        None => ("", wanted),
    };
    // The crate takes every white space away from the end of a line, and git only spaces. It knows classes of ASCII only.
    let is_taken = |c: char| c.is_whitespace() && c != ' ';
    let literal = |c: char, out: &mut String| {
        if is_taken(c) && c.is_ascii() { out.extend(['[', c, ']']) } else { out.push(c) }
    };
    // The last slash is one to git whatever stands before it, and the crate takes a backslash there for its escape.
    let (folders, pattern) = match pattern.strip_suffix('/') {
        Some(pattern) => ("/", pattern),
        None => ("", pattern),
    };
    let (anchored, pattern) = match pattern.strip_prefix('/') {
        Some(pattern) => (true, pattern),
        None => (pattern.contains('/'), pattern),
    };
    if text.starts_with('#') || pattern.is_empty() {
        return Ok(text.to_owned());
    }
    // What comes out may have a slash where this one has none, in a class: so where it begins is written out.
    let mut out = format!("{back}{}", if anchored { "/" } else { "**/" });
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some(c) if is_taken(c) => literal(c, &mut out),
                Some('\\') => out.push_str("[\\]"),
                Some(c) => out.extend(['\\', c]),
                None => return Err("there is nothing behind its last \\".to_owned()),
            },
            '{' | '}' => out.extend(['\\', c]),
            '[' => {
                let (class, negated, after) = class(rest.as_str())?;
                class.write(negated, &mut out)?;
                rest = after.chars();
            }
            _ => literal(c, &mut out),
        }
    }
    if folders.is_empty() && out.ends_with(is_taken) {
        return Err("its last character is white space: ? stands for any".to_owned());
    }
    out.push_str(folders);
    Ok(out)
}

/// Reads what comes after a `[`: the class, whether it is negated, and what comes after it.
fn class(text: &str) -> Result<(Class, bool, &str), String> {
    let unclosed = || "a [ has no ]".to_owned();
    let negated = text.starts_with(['!', '^']);
    let mut class = Class { ascii: [false; 128], others: Vec::new() };
    let mut rest = text.get(usize::from(negated)..).unwrap_or_default().chars();
    let mut first = true;
    // What a range that comes next begins with.
    let mut start: Option<char> = None;
    loop {
        let c = rest.next().ok_or_else(unclosed)?;
        let mut ahead = rest.clone();
        let next = ahead.next();
        start = match (c, start) {
            (']', _) if !first => return Ok((class, negated, rest.as_str())),
            ('-', Some(from)) if next.is_some_and(|next| next != ']') => {
                rest = ahead;
                let to = if next == Some('\\') { rest.next() } else { next };
                class.add(from, to.ok_or_else(unclosed)?)?;
                None
            }
            ('[', _) if next == Some(':') => {
                let inside = ahead.as_str();
                let end = inside.find(']').ok_or_else(unclosed)?;
                match inside.get(..end).and_then(|name| name.strip_suffix(':')) {
                    Some(name) => {
                        class.add_named(name)?;
                        rest = inside.get(end + 1..).unwrap_or_default().chars();
                        None
                    }
                    None => class.one('['),
                }
            }
            ('\\', _) => class.one(rest.next().ok_or_else(unclosed)?),
            (c, _) => class.one(c),
        };
        first = false;
    }
}

impl Class {
    fn set(&mut self, from: char, to: char) {
        for code in u32::from(from)..=u32::from(to).min(127) {
            let place = usize::try_from(code).ok().and_then(|code| self.ascii.get_mut(code));
            place.into_iter().for_each(|place| *place = true);
        }
        if !to.is_ascii() {
            self.others.push((from.max('\u{80}'), to));
        }
    }

    /// Takes one character, with which a range may begin.
    fn one(&mut self, c: char) -> Option<char> {
        self.set(c, c);
        Some(c)
    }

    fn add(&mut self, from: char, to: char) -> Result<(), String> {
        if from > to {
            return Err(format!("the range {from}-{to} is empty"));
        }
        self.set(from, to);
        Ok(())
    }

    /// Takes those of a class with a name, as git knows them: of ASCII.
    fn add_named(&mut self, name: &str) -> Result<(), String> {
        let is: fn(&char) -> bool = match name {
            "alnum" => char::is_ascii_alphanumeric,
            "alpha" => char::is_ascii_alphabetic,
            "blank" => |c| matches!(c, ' ' | '\t'),
            "cntrl" => char::is_ascii_control,
            "digit" => char::is_ascii_digit,
            "graph" => char::is_ascii_graphic,
            "lower" => char::is_ascii_lowercase,
            "print" => |c| *c == ' ' || c.is_ascii_graphic(),
            "punct" => char::is_ascii_punctuation,
            "space" => |c| matches!(c, ' ' | '\t' | '\n' | '\r'),
            "upper" => char::is_ascii_uppercase,
            "xdigit" => char::is_ascii_hexdigit,
            _ => return Err(format!("there is no class [:{name}:]")),
        };
        ('\0'..='\x7f').filter(is).for_each(|c| self.set(c, c));
        Ok(())
    }

    fn has(&self, c: char) -> bool {
        usize::try_from(u32::from(c)).ok().and_then(|code| self.ascii.get(code)).copied().unwrap_or_default()
    }

    /// Writes it so that it matches no slash, and each sign where it stands for itself.
    fn write(mut self, negated: bool, out: &mut String) -> Result<(), String> {
        if let Some(slash) = self.ascii.get_mut(usize::from(b'/')) {
            *slash = negated;
        }
        let is_sign = |c: char| matches!(c, ']' | '-' | '[' | '!' | '^');
        let mut ranges: Vec<(char, char)> = Vec::new();
        for c in ('\0'..='\x7f').filter(|c| self.has(*c) && !is_sign(*c)) {
            match ranges.last_mut() {
                Some((_, last)) if u32::from(*last) + 1 == u32::from(c) => *last = c,
                _ => ranges.push((c, c)),
            }
        }
        ranges.append(&mut self.others);
        let has = |c: &char| self.has(*c);
        let only_signs = !negated && ranges.is_empty() && !has(&']') && !has(&'-') && !has(&'[');
        match (only_signs, has(&'!'), has(&'^')) {
            (true, false, false) => return Err("a class can match nothing".to_owned()),
            (true, true, true) => out.push_str("{!,^}"),
            (true, true, false) => out.push_str("\\!"),
            (true, false, true) => out.push_str("\\^"),
            (false, ..) => {
                out.push('[');
                out.extend(negated.then_some('!'));
                // Each of them is itself only when it stands first, the second one also when it stands last.
                out.extend([']', '-'].into_iter().find(has));
                for (from, to) in ranges {
                    if from == to { out.push(from) } else { out.extend([from, '-', to]) }
                }
                out.extend(['[', '!', '^'].into_iter().filter(has));
                out.extend((has(&']') && has(&'-')).then_some('-'));
                out.push(']');
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_places_are_told_apart_by_patterns_that_may_reach_one_of_them() {
        let places = [Path::new("/srv/www"), Path::new("/mnt/www")];
        for text in ["", "# /srv/www", "*.o", "!keep", "cache/", "**/x", "/var/*", "!/srv/db", "srv/other/x"]
        {
            assert!(!tells_apart(text, places), "{text}");
        }
        for text in
            ["/srv/www/a", "!/srv/www/a", "mnt/www/*.o", "/srv/*/a", "/*/a", "**/x/y", "a*/b", "/SRV/www"]
        {
            assert!(tells_apart(text, places), "{text}");
        }
    }

    #[test]
    fn what_is_no_sign_to_git_is_none_here() {
        for (pattern, expected) in [
            ("a{b,c}d", "**/a\\{b,c\\}d"),
            ("\\{a", "**/\\{a"),
            ("/srv/*.log", "/srv/*.log"),
            ("srv/x/", "/srv/x/"),
            ("x/", "**/x/"),
            ("!keep", "!**/keep"),
            ("# {", "# {"),
            ("[ab]c", "**/[a-b]c"),
            ("[!a]", "**/[!/a]"),
            ("[[:digit:]_]", "**/[0-9_]"),
            ("[]a]", "**/[]a]"),
            ("[a\\]]", "**/[]a]"),
            ("[+-1]", "**/[-+-,.0-1]"),
            ("[!-]", "**/[!-/]"),
            ("[]x-]", "**/[]x-]"),
            ("\\[a", "**/\\[a"),
            ("[[:]", "**/[:[]"),
            ("[^!]", "**/[!/!]"),
            ("[\\!]", "**/\\!"),
            ("", ""),
            ("/", "/"),
            ("a  ", "**/a"),
            ("a\\  ", "**/a\\ "),
            ("a\\ \\  ", "**/a\\ \\ "),
            ("a \\ b ", "**/a \\ b"),
            ("a\\\\ ", "**/a[\\]"),
            ("a\\\\/", "**/a[\\]/"),
            ("a\t", "**/a[\t]"),
            ("a\\\t", "**/a[\t]"),
            ("a\u{3000}b", "**/a\u{3000}b"),
            ("a\u{3000}/", "**/a\u{3000}/"),
        ] {
            assert_eq!(translated(pattern).as_deref(), Ok(expected), "{pattern}");
        }
        for (pattern, why) in [
            ("[a", "no ]"),
            ("[[:word:]]", "no class [:word:]"),
            ("x[/]", "nothing"),
            ("[z-a]", "empty"),
            ("a\u{3000} ", "white space"),
            ("a\\/", "nothing behind"),
            ("\\", "nothing behind"),
        ] {
            assert!(translated(pattern).unwrap_err().contains(why), "{pattern}");
        }
    }
}
