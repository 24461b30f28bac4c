//! `verify`: whether files are as a snapshot has them.

use std::{ffi::OsString, os::unix::ffi::OsStrExt, path::PathBuf};

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    filesystem::select::Selection,
    ops::{
        select::Place,
        verify::{self, Besides, Owners, Verified, VerifyOptions},
    },
    report::{exit, json, size, text},
};
use serde_json::json;

use super::snapshots::short;
use crate::{
    args::{FilterArguments, SelectionArguments},
    context::Context,
};

const AFTER: &str = "\
Every file is read and compared with the hashes in the snapshot; no stored data is downloaded. Paths and --target follow
the rule of restore: without --target the files are compared where they were backed up. What is in a folder of the
snapshot, and not in the snapshot, is a difference too; --exclude what the backup left out. Exit code 6 says that there
are differences.

Examples:
  lifeboat verify latest
  lifeboat verify latest --target /tmp/restored
  lifeboat verify latest:/srv/data --target /tmp/data --ignore-owners";

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Verify {
    /// `latest`, `latest~2` or the first digits of an id; with :PATH only what is there
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,
    /// Where the files are; as in restore
    #[arg(short, long, value_name = "FOLDER")]
    target: Option<PathBuf>,
    /// Do not compare owners
    #[arg(long)]
    ignore_owners: bool,
    /// Do not tell what is there besides
    #[arg(long)]
    ignore_extra: bool,
    #[command(flatten)]
    what: SelectionArguments,
    #[command(flatten)]
    filter: FilterArguments,
}

pub(crate) fn run(arguments: &Verify, context: &Context<'_>) -> Result<()> {
    let place = Place::parse(arguments.snapshot.as_bytes())?;
    let options = VerifyOptions {
        subpath: place.path,
        selection: Selection::new(&arguments.what.include, &arguments.what.exclude)?,
        owners: if arguments.ignore_owners { Owners::Ignore } else { Owners::Compare },
        besides: if arguments.ignore_extra { Besides::Ignore } else { Besides::Tell },
        never: context.never()?,
    };
    let repository = context.open()?;
    let (snapshot, end) = context.find(&repository, (&place.reference, &arguments.filter.filter()))?;
    let snapshot = &snapshot;
    let done = verify::run(&repository, snapshot, arguments.target.as_deref(), &options)?;
    context.end_display();
    report(context, &done, &short(snapshot))?;
    end
}

pub(super) fn report(context: &Context<'_>, done: &Verified, id: &str) -> Result<()> {
    let output = context.output;
    let Verified { files, bytes, differing, missing, extra, differences, lost, not_backed_up } = done;
    for (path, difference) in differences {
        let what = difference.to_string();
        if output.is_json() {
            let fields = json!({ "difference": difference.word(), "message": what });
            let message = json::message("difference", fields);
            output.message(&json::with_path(message, &json::absolute(path)));
        } else {
            output.say(&format!("{}: {}", text::path(path), text::shown(what.as_bytes())));
        }
    }
    output.note(&format!(
        "{} as in snapshot {id}, {} compared",
        text::count(*files, "file is", "files are"),
        size::show(*bytes)
    ));
    output.message(&json::message(
        "summary",
        json!({
            "snapshot": id,
            "files_same": files,
            "bytes": bytes,
            "differing": differing,
            "missing": missing,
            "extra": extra,
            "lost": lost,
            "not_backed_up": not_backed_up,
        }),
    ));
    let kinds = [
        (*lost > 0).then_some(ErrorKind::Damaged),
        (*differing > 0).then_some(ErrorKind::Differences),
        (*not_backed_up > 0).then_some(ErrorKind::Incomplete),
    ];
    let Some(kind) = exit::worst(kinds.into_iter().flatten()) else { return Ok(()) };
    let mut what = text::count(*differing, "entry differs", "entries differ");
    if *lost > 0 {
        let parts = text::count(*lost, "part", "parts");
        what += &format!("; {parts} of the snapshot's manifest cannot be read");
    }
    if *not_backed_up > 0 {
        let missing = text::count(*not_backed_up, "entry has", "entries have");
        what += &format!("; {missing} no content in the snapshot, since the backup could not read it");
    }
    Err(Error::new(kind, what)
        .with_remedy("The lines above name what differs; `lifeboat restore` brings it back"))
}
