//! `verify`: whether files are as a snapshot has them.

use std::{ffi::OsString, os::unix::ffi::OsStrExt, path::PathBuf};

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    filesystem::{
        live::Closed,
        select::{Selection, Unmatched},
    },
    ops::{
        select::Place,
        verify::{self, Besides, Verified, VerifyOptions},
    },
    report::{exit, json, size, text},
};
use serde_json::json;

use super::{notes, snapshots::short, worse};
use crate::{
    args::{FilterArguments, LeftOutArguments, OwnerArguments, SelectionArguments},
    context::Context,
};

const AFTER: &str = "\
Every file is read and compared with the hashes in the snapshot; no stored data is downloaded. Paths and --target follow
the rule of restore: without --target the files are compared where they were backed up. What is in a folder of the
snapshot, and not in the snapshot, is a difference too, if restore --delete would remove it; leave out what the backup
left out, by the same options. Exit code 6 says that there are differences, 3 that the backup could not read something, or that an --include finds nothing.

Examples:
  lifeboat verify latest
  lifeboat verify latest --target /tmp/restored
  lifeboat verify latest --target /mnt/other-machine --numeric-ids
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
    #[command(flatten)]
    owners: OwnerArguments,
    /// Do not tell what is there besides
    #[arg(long)]
    ignore_extra: bool,
    #[command(flatten)]
    what: SelectionArguments,
    #[command(flatten)]
    left_out: LeftOutArguments,
    #[command(flatten)]
    filter: FilterArguments,
}

pub(crate) fn run(arguments: &Verify, context: &Context<'_>) -> Result<()> {
    let place = Place::parse(arguments.snapshot.as_bytes())?;
    let mut options = VerifyOptions {
        subpath: place.path,
        selection: Selection::new(&arguments.what.include, &arguments.what.exclude)?,
        owners: arguments.owners.owners(),
        besides: if arguments.ignore_extra { Besides::Ignore } else { Besides::Tell },
        left_out: arguments.left_out.filter()?,
        never: context.never()?,
        closed: Closed::Leave,
    };
    let repository = context.open()?;
    let (snapshot, end) = context.find(&repository, (&place.reference, &arguments.filter.filter()))?;
    let snapshot = &snapshot;
    options.selection = options.selection.below_sources_of(&snapshot.record);
    let done = verify::run(&repository, snapshot, arguments.target.as_deref(), &options)?;
    context.end_display();
    let unmatched = options.selection.unmatched();
    let told = report(context, (&done, &unmatched), &short(snapshot));
    worse(told, all_found(context, &unmatched))?;
    end
}

/// Patterns of --include that match nothing are an error: of several each is named, and the rest was done. So are
/// excludes that leave nothing.
pub(super) fn all_found(context: &Context<'_>, unmatched: &Unmatched) -> Result<()> {
    let missing = |text: &str| format!("nothing in the snapshot matches --include {text}");
    let remedy = "`lifeboat ls` shows what there is; a pattern with a slash begins at / (**/ before it: anywhere), and what \
                  --exclude takes out does not count";
    let Unmatched { patterns, of, all_excluded } = unmatched;
    match patterns.as_slice() {
        [] if *all_excluded => {
            let what = "--exclude takes out all that the snapshot has there";
            Err(Error::new(ErrorKind::Failed, what).with_remedy("Name less, or a place with more in it"))
        }
        [] => Ok(()),
        [one] if *of == 1 => Err(Error::new(ErrorKind::Failed, missing(one)).with_remedy(remedy)),
        _ => {
            // As for a source that is missing: the others were there.
            let kind = if patterns.len() < *of { ErrorKind::Incomplete } else { ErrorKind::Failed };
            for text in patterns {
                context.output.trouble(&Error::new(kind, missing(text)));
            }
            let count = text::count(patterns.len() as u64, "pattern", "patterns");
            Err(Error::new(kind, format!("{count} of --include matched nothing")).with_remedy(remedy))
        }
    }
}

pub(super) fn report(
    context: &Context<'_>,
    (done, unmatched): (&Verified, &Unmatched),
    id: &str,
) -> Result<()> {
    let output = context.output;
    let Verified { files, bytes, differing, missing, extra, differences, unnamed, lost, .. } = done;
    let Verified { not_backed_up, attributes_not_backed_up, notes, .. } = done;
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
    if *unnamed > 0 {
        output.say(&format!("and {} more", text::count(*unnamed, "difference", "differences")));
    }
    notes::tell(context, notes, 0);
    if !unmatched.is_all() {
        output.note(&format!(
            "{} as in snapshot {id}, {} compared",
            text::count(*files, "file is", "files are"),
            size::show(*bytes)
        ));
    }
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
            "attributes_not_backed_up": attributes_not_backed_up,
        }),
    ));
    let kinds = [
        (*lost > 0).then_some(ErrorKind::Damaged),
        (*differing > 0).then_some(ErrorKind::Differences),
        (*not_backed_up + *attributes_not_backed_up > 0).then_some(ErrorKind::Incomplete),
    ];
    let Some(kind) = exit::worst(kinds.into_iter().flatten()) else { return Ok(()) };
    Err(Error::new(kind, sums(done)).with_remedy(remedy(done)))
}

fn sums(done: &Verified) -> String {
    let Verified { differing, lost, not_backed_up, attributes_not_backed_up, .. } = done;
    let entries = |count: u64| text::count(count, "entry", "entries");
    let parts = [
        (*differing, text::count(*differing, "entry differs", "entries differ")),
        (*lost, format!("{} of the snapshot's manifest cannot be read", text::count(*lost, "part", "parts"))),
        (*not_backed_up, format!("the backup could not read {}", entries(*not_backed_up))),
        (
            *attributes_not_backed_up,
            format!("of {} the backup has not all attributes", entries(*attributes_not_backed_up)),
        ),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0).map(|(_, what)| what);
    parts.collect::<Vec<_>>().join("; ")
}

fn remedy(done: &Verified) -> &'static str {
    match done {
        Verified { differing: 1.., extra: 0, .. } => {
            "The lines above name what differs; `lifeboat restore` brings it back"
        }
        Verified { differing: 1.., .. } => {
            "The lines above name what differs; `lifeboat restore` brings back what the snapshot has, and --delete \
             removes what it has not"
        }
        Verified { lost: 1.., .. } => "`lifeboat check` says what is damaged",
        _ => {
            "What is named above cannot be compared: back up again as a user who may read it what the backup may not read; what \
             is too large for a backup stays out of it"
        }
    }
}
