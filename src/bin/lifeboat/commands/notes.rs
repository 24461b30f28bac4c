//! What is to be said of single entries that were restored or compared: one line for what many have in common.

use std::collections::HashMap;

use lifeboat::{
    filesystem::metadata::Note,
    report::{json, text},
};
use serde_json::json;

use crate::{context::Context, terminal::Level};

/// Of each sort of note so many entries are named.
const NAMED: usize = 3;

/// The path of an entry, and what is to be said of it.
type Noted = (Vec<u8>, Note);

/// Says what is to be said of single entries; so many more are not among these.
pub(super) fn tell(context: &Context<'_>, notes: &[Noted], unnamed: u64) {
    let output = context.output;
    if output.is_json() {
        for (path, note) in notes {
            let message = json::message("note", json!({ "message": note.to_string() }));
            output.message(&json::with_path(message, &json::absolute(path)));
        }
        return;
    }
    note_lines(notes).iter().for_each(|line| output.aside(Level::Info, line));
    if unnamed > 0 {
        let more = text::count(unnamed, "note", "notes");
        output.aside(Level::Info, &format!("note: {more} more are not shown"));
    }
}

/// No system has a call that sets a birth time: one line for all of them, and no failure.
pub(super) fn tell_birth_times(context: &Context<'_>, entries: u64) {
    if entries > 0 {
        let what = if entries == 1 { "birth time" } else { "birth times" };
        let whose = text::count(entries, "entry", "entries");
        context
            .output
            .note(&format!("note: the {what} of {whose} cannot be set; `lifeboat ls --json` has them"));
    }
}

/// What many entries lack in the same way is one line, with how many they are and the first of them.
fn note_lines(notes: &[Noted]) -> Vec<String> {
    let mut lacks: Vec<(String, Vec<&Noted>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for noted in notes {
        let (lack, _) = noted.1.lack();
        let place = *places.entry(lack.clone()).or_insert(lacks.len());
        match lacks.get_mut(place) {
            Some((_, all)) => all.push(noted),
            None => lacks.push((lack, vec![noted])),
        }
    }
    let mut lines: Vec<String> = lacks.iter().map(|(lack, all)| note_line(lack, all)).collect();
    if lacks.iter().any(|(lack, _)| lack.starts_with("owner ")) {
        let hint = "note: only root can give files away; --no-ownership leaves them to you, without a note";
        lines.push(hint.to_owned());
    }
    lines
}

fn note_line(lack: &str, all: &[&Noted]) -> String {
    if let [(path, note)] = all {
        return format!("note: {}: {}", text::path(path), text::shown(note.to_string().as_bytes()));
    }
    let named = all.iter().take(NAMED).map(|(path, note)| {
        let which = note.lack().1.map(|which| format!(" ({})", text::shown(which.as_bytes())));
        text::path(path) + &which.unwrap_or_default()
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = all.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("note: {}, {} times: {named}{more}", text::shown(lack.as_bytes()), all.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_thousands_lack_is_one_line() {
        let lack = |n: u32, (sort, which): (&'static str, String), why: &str| {
            (format!("f{n}").into_bytes(), Note::Lack { sort, which, why: why.to_owned() })
        };
        let mut notes: Vec<_> = (0..1430)
            .map(|n| lack(n, ("the attribute", format!("user.{n}")), "could not be set: Not supported"))
            .collect();
        notes.push(lack(7, ("mode", "644".to_owned()), "could not be set: no"));
        notes.extend((0..2).map(|n| lack(n, ("owner", format!("{n}:0")), "could not be set: no")));
        notes.extend((0..4).map(|n| (format!("s{n}").into_bytes(), Note::Told("a socket".to_owned()))));
        assert_eq!(
            note_lines(&notes),
            [
                "note: the attribute could not be set: Not supported, 1430 times: /f0 (user.0), /f1 (user.1), \
                 /f2 (user.2) and 1427 more",
                "note: /f7: mode 644 could not be set: no",
                "note: owner could not be set: no, 2 times: /f0 (0:0), /f1 (1:0)",
                "note: a socket, 4 times: /s0, /s1, /s2 and 1 more",
                "note: only root can give files away; --no-ownership leaves them to you, without a note",
            ]
        );
    }
}
