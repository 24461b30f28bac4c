//! `restore`: from a snapshot to files.

use std::{ffi::OsString, os::unix::ffi::OsStrExt, path::PathBuf};

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    filesystem::names::{Ownership, OwnershipPolicy},
    ops::{
        restore::{self, Restored},
        select::Place,
    },
    report::{exit, json, size, text},
};
use serde_json::json;

use crate::{args::FilterArguments, commands::snapshots::short, context::Context};

const AFTER: &str = "\
Files keep their whole path below the target: `restore latest --target D` makes D/srv/data, and
`restore latest:/srv/data --target D` puts the contents of /srv/data into D. With --target / everything goes back to
where it was. A file that cannot be restored whole is named NAME.damaged, everything else is restored, and the exit
code says so.

Examples:
  lifeboat restore latest --target /tmp/restored
  lifeboat restore 4f2a91c0:/etc --target /tmp/etc
  lifeboat restore latest --host web1 --target / ";

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
    #[command(flatten)]
    filter: FilterArguments,
}

pub(crate) fn run(arguments: &Restore, context: &Context<'_>) -> Result<()> {
    let place = Place::parse(arguments.snapshot.as_bytes())?;
    if !place.path.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "restoring a part of a snapshot is not possible yet")
            .with_remedy("Leave out :PATH"));
    }
    let repository = context.open()?;
    let (snapshots, end) = context.snapshots(&repository)?;
    let snapshot = place.reference.find(&snapshots, &arguments.filter.filter())?;
    let policy = match (arguments.numeric_ids, arguments.no_ownership) {
        (true, _) => OwnershipPolicy::Numeric,
        (_, true) => OwnershipPolicy::Keep,
        _ => OwnershipPolicy::ByName,
    };
    let done = restore::run(&repository, snapshot, &arguments.target, &Ownership::new(policy))?;
    context.end_display();
    report(context, &done, &short(snapshot), arguments)?;
    end
}

fn report(context: &Context<'_>, done: &Restored, id: &str, arguments: &Restore) -> Result<()> {
    let output = context.output;
    let Restored { files, bytes, failed, notes } = done;
    for (path, note) in notes {
        match output.is_json() {
            true => {
                let message = json::message("note", json!({ "message": note }));
                output.message(&json::with_path(message, &json::absolute(path)));
            }
            false => output.aside(&format!("note: {}: {}", text::path(path), text::shown(note.as_bytes()))),
        }
    }
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
            "failed": failed.len(),
            "notes": notes.len(),
        }),
    ));
    match exit::worst(failed.iter().map(|(_, error)| error.kind())) {
        None => Ok(()),
        Some(kind) => {
            let count = text::count(failed.len() as u64, "entry was", "entries were");
            Err(Error::new(kind, format!("{count} not restored as before"))
                .with_remedy("The lines above name them; everything else is complete"))
        }
    }
}
