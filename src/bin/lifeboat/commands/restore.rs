//! `restore`: from a snapshot to files.

use std::{ffi::OsString, os::unix::ffi::OsStrExt, path::PathBuf};

use clap::Args;
use lifeboat::{
    error::{Error, Result},
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

use super::{snapshots::short, verify, workers};
use crate::{
    args::{FilterArguments, SelectionArguments},
    context::Context,
};

const AFTER: &str = "\
Files keep their whole path below the target: `restore latest --target D` makes D/srv/data, and
`restore latest:/srv/data --target D` puts the contents of /srv/data into D. With --target / everything goes back to
where it was. A file that cannot be restored whole is named NAME.damaged, everything else is restored, and the exit
code says so.

Examples:
  lifeboat restore latest --target /tmp/restored --verify
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
    let repository = context.open()?;
    let (snapshots, end) = context.snapshots(&repository)?;
    let snapshot = place.reference.find(&snapshots, &arguments.filter.filter())?;
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
    let Restored { files, bytes, failed, failures, kinds, notes } = done;
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
            "failed": failures,
            "notes": notes.len(),
        }),
    ));
    match exit::worst(kinds.iter().copied()) {
        None => Ok(()),
        Some(kind) => {
            let count = text::count(*failures, "entry was", "entries were");
            Err(Error::new(kind, format!("{count} not restored as before"))
                .with_remedy("The lines above name them; everything else is complete"))
        }
    }
}
