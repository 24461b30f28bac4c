//! `restore`: from a snapshot to files.

use std::{collections::BTreeMap, ffi::OsString, os::unix::ffi::OsStrExt, path::PathBuf};

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        select::Selection,
    },
    ops::{
        restore::{self, RestoreOptions, Restored},
        select::Place,
        verify::{Owners, Verified, VerifyOptions},
    },
    report::{exit, json, size, text},
    repository::{Repository, snapshots::KnownSnapshot},
};
use serde_json::json;

use super::{refuse_as_target, snapshots::short, verify, workers};
use crate::{
    args::{FilterArguments, SelectionArguments},
    context::Context,
    terminal::Level,
};

const AFTER: &str = "\
Files keep their whole path below the target: `restore latest --target D` makes D/srv/data, and
`restore latest:/srv/data --target D` puts the contents of /srv/data into D. With --target / everything goes back to
where it was. A file that cannot be restored whole is named NAME.damaged, everything else is restored, and the exit
code says so. Everything that the backup has is set: owners, modes, times, extended attributes with ACLs and capabilities,
inode flags, holes. What cannot be set is noted, and makes the exit code 3.

Examples:
  lifeboat restore latest --target /tmp/restored --verify
  lifeboat restore 4f2a91c0:/etc --target /tmp/etc
  lifeboat restore latest --host web1 --target / ";

/// Of each sort of note so many entries are named.
const NOTES_NAMED: u64 = 3;

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Restore {
    /// `latest`, `latest~2` or the first digits of an id; with :PATH only what is there
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,
    /// The folder to restore into; made if it is not there
    #[arg(short, long, value_name = "FOLDER")]
    target: PathBuf,
    /// Set the numeric owners as they were, not those of the same names
    #[arg(long, conflicts_with = "no_ownership")]
    numeric_ids: bool,
    /// Leave everything to the user who restores
    #[arg(long)]
    no_ownership: bool,
    /// Read every restored file again and compare it with the snapshot
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    what: SelectionArguments,
    #[command(flatten)]
    filter: FilterArguments,
}

pub(crate) fn run(arguments: &Restore, context: &Context<'_>) -> Result<()> {
    let place = Place::parse(arguments.snapshot.as_bytes())?;
    let selection = Selection::new(&arguments.what.include, &arguments.what.exclude)?;
    refuse_as_target(&arguments.target, context.location()?.folder().as_deref())?;
    let repository = context.open()?;
    let (snapshot, end) = context.find(&repository, (&place.reference, &arguments.filter.filter()))?;
    let snapshot = &snapshot;
    let policy = match (arguments.numeric_ids, arguments.no_ownership) {
        (true, _) => OwnershipPolicy::Numeric,
        (_, true) => OwnershipPolicy::Keep,
        _ => OwnershipPolicy::ByName,
    };
    let options = RestoreOptions {
        ownership: Ownership::new(policy),
        subpath: place.path,
        selection,
        workers: workers(),
    };
    let done = restore::run(&repository, snapshot, &arguments.target, &options)?;
    let compared =
        arguments.verify.then(|| compare(arguments, &repository, snapshot, options.subpath)).transpose()?;
    context.end_display();
    let restored = report(context, &done, &short(snapshot), arguments);
    if let Some(compared) = compared {
        let verified = verify::report(context, &compared, &short(snapshot));
        // What could not be restored differs of course: that it could not is the thing to say.
        restored.and(verified)?;
    } else {
        restored?;
    }
    end
}

/// Compares what was restored, as `verify` does.
fn compare(
    arguments: &Restore,
    repository: &Repository,
    snapshot: &KnownSnapshot,
    subpath: Vec<u8>,
) -> Result<Verified> {
    let selection = Selection::new(&arguments.what.include, &arguments.what.exclude)?;
    let owners = if arguments.no_ownership { Owners::Ignore } else { Owners::Compare };
    let options = VerifyOptions { subpath, selection, owners };
    lifeboat::ops::verify::run(repository, snapshot, Some(&arguments.target), &options)
}

fn report(context: &Context<'_>, done: &Restored, id: &str, arguments: &Restore) -> Result<()> {
    let output = context.output;
    let Restored { files, bytes, failed, failures, kinds, gaps, notes, unset, unread: _, moments: _ } = done;
    tell_notes(context, notes);
    for (path, error) in failed {
        output.problem(path, error.kind(), &error.to_string());
    }
    let target = arguments.target.display();
    output.note(&format!(
        "restored {}, {}, from snapshot {id} to {target}",
        text::count(*files, "file", "files"),
        size::show(*bytes)
    ));
    output.message(&json::message(
        "summary",
        json!({
            "snapshot": id,
            "target": arguments.target.to_string_lossy(),
            "files": files,
            "bytes": bytes,
            "failed": failures,
            "notes": notes.len(),
            "unset": unset,
        }),
    ));
    match exit::worst(kinds.iter().copied()) {
        None if *unset > 0 => {
            let what = text::count(*unset, "piece of metadata", "pieces of metadata");
            Err(Error::new(
                ErrorKind::Incomplete,
                format!("every file has its contents, but {what} could not be set"),
            )
            .with_remedy("The notes above name them: root can set more, on a file system that can hold it"))
        }
        None => Ok(()),
        Some(kind) if *gaps > 0 => {
            let count = text::count(*gaps, "part of the manifest is lost", "parts of the manifest are lost");
            let came = text::count(*files, "file", "files");
            Err(Error::new(kind, format!("{count}, with all entries in it: {came} came back")).with_remedy(
                "`lifeboat snapshots` shows how many there were; an older snapshot may have the rest",
            ))
        }
        Some(kind) => {
            let count = text::count(*failures, "entry was", "entries were");
            Err(Error::new(kind, format!("{count} not restored as before"))
                .with_remedy("The lines above name them; everything else is complete"))
        }
    }
}

fn tell_notes(context: &Context<'_>, notes: &[(Vec<u8>, String)]) {
    let output = context.output;
    if output.is_json() {
        for (path, note) in notes {
            let message = json::message("note", json!({ "message": note }));
            output.message(&json::with_path(message, &json::absolute(path)));
        }
        return;
    }
    note_lines(notes).iter().for_each(|line| output.aside(Level::Info, line));
}

/// What is true of thousands of entries is told of the first few, so that it hides nothing else.
fn note_lines(notes: &[(Vec<u8>, String)]) -> Vec<String> {
    let (mut lines, mut told) = (Vec::new(), BTreeMap::<&str, u64>::new());
    for (path, note) in notes {
        let count = told.entry(note).or_default();
        *count += 1;
        if *count <= NOTES_NAMED {
            lines.push(format!("note: {}: {}", text::path(path), text::shown(note.as_bytes())));
        }
    }
    for (note, count) in told.iter().filter(|(_, count)| **count > NOTES_NAMED) {
        let more = text::count(count - NOTES_NAMED, "entry", "entries");
        lines.push(format!("note: {more} more: {}", text::shown(note.as_bytes())));
    }
    if told.keys().any(|note| note.starts_with("owner ")) {
        let hint = "note: only root can give files away; --no-ownership leaves them to you, without a note";
        lines.push(hint.to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_of_thousands_is_told_of_three() {
        let note = |n: u32, what: &str| (format!("f{n}").into_bytes(), what.to_owned());
        let mut notes: Vec<_> = (0..1000).map(|n| note(n, "owner 0:0 could not be set: no")).collect();
        notes.push(note(7, "mode 644 could not be set: no"));
        let lines = note_lines(&notes);
        assert_eq!(lines.len(), 6, "{lines:?}");
        assert!(lines[3].contains("f7: mode"), "{lines:?}");
        assert!(lines[4].contains("997 entries more: owner 0:0"), "{lines:?}");
        assert!(lines[5].contains("--no-ownership"), "{lines:?}");
        assert!(note_lines(&[note(1, "x")]).len() == 1);
    }
}
