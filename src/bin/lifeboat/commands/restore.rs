//! `restore`: from a snapshot to files.

use std::{ffi::OsString, os::unix::ffi::OsStrExt, path::PathBuf};

use clap::{Args, ValueEnum};
use lifeboat::{
    error::{Error, ErrorKind, Result},
    filesystem::{
        MAKE_WRITABLE,
        live::Closed,
        names::{Ownership, OwnershipPolicy},
        remove::Denied,
        restore::{IMMUTABLE, Zeros},
        rights,
        select::{Selection, Unmatched},
    },
    ops::{
        repair::after_index,
        restore::{self, Extra, Forecast, RestoreOptions, Restored, Stopped},
        select::Place,
        verify::{Besides, Owners, Verified, VerifyOptions},
    },
    report::{exit, json, size, text},
    repository::{Repository, snapshots::KnownSnapshot},
};
use serde_json::{Value, json};

use super::{notes, refuse_as_target, snapshots::short, verify, workers, worse};
use crate::{
    args::{FilterArguments, LeftOutArguments, SelectionArguments},
    context::Context,
};

const AFTER: &str = "\
Files keep their whole path below the target: `restore latest --target D` makes D/srv/data, and
`restore latest:/srv/data --target D` puts the contents of /srv/data into D. With --target / everything goes back to
where it was. A file that cannot be restored whole is named NAME.damaged, everything else is restored, and the exit
code says so. Everything that the backup has is set: owners, modes, times, extended attributes with ACLs and capabilities,
inode flags, holes. What cannot be set is noted, and makes the exit code 3.

What is in the target already is compared, and only what differs is read from the storage. Files of more than 4 MiB are
changed where they are (meanwhile they are named .NAME.lifeboat-partial), smaller ones are replaced. A restore that was
interrupted goes on when it is run again.

--delete removes from the folders of the snapshot what is not in it, also what the backup left out: give the same
--exclude, --exclude-caches, --exclude-if-present and --exclude-larger-than. It touches nothing above a source, no other file system that is mounted there, and no folder of which
something could not be restored. Look first with --dry-run: it writes and locks nothing. The room that it tells is enough
for contents, folders and names; inodes and other needs of the file system itself are not in it.

Examples:
  lifeboat restore latest --target /tmp/restored --verify
  lifeboat restore latest:/srv/data --target /srv/data --delete --dry-run
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
    /// What may be overwritten
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = Overwrite::Always)]
    overwrite: Overwrite,
    /// Read every restored file again and compare it with the snapshot
    #[arg(long, conflicts_with = "dry_run")]
    verify: bool,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    what: SelectionArguments,
    #[command(flatten)]
    left_out: LeftOutArguments,
    #[command(flatten)]
    filter: FilterArguments,
}

/// How it is done.
#[derive(Debug, Args)]
struct How {
    /// Remove from the folders of the snapshot what is not in it
    #[arg(long)]
    delete: bool,
    /// Make holes of zeros, which take no space
    #[arg(long)]
    sparse: bool,
    /// Say what would be done: files, bytes, reads from the storage, free space; write nothing
    #[arg(short = 'n', long, visible_alias = "plan")]
    dry_run: bool,
}

/// What may be overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Overwrite {
    /// Everything: afterwards it is as in the snapshot
    Always,
    /// Everything, but files of the same size and time are taken to have the same content
    IfChanged,
    /// What is older than in the snapshot
    IfNewer,
    /// Nothing: only what is missing comes back
    Never,
}

impl From<Overwrite> for restore::Overwrite {
    fn from(overwrite: Overwrite) -> Self {
        match overwrite {
            Overwrite::Always => Self::Always,
            Overwrite::IfChanged => Self::IfChanged,
            Overwrite::IfNewer => Self::IfNewer,
            Overwrite::Never => Self::Never,
        }
    }
}

pub(crate) fn run(arguments: &Restore, context: &Context<'_>) -> Result<()> {
    let place = Place::parse(arguments.snapshot.as_bytes())?;
    let selection = Selection::new(&arguments.what.include, &arguments.what.exclude)?;
    let left_out = arguments.left_out.filter()?;
    if !arguments.left_out.is_empty() && !arguments.how.delete {
        let what = "--exclude-caches, --exclude-if-present and --exclude-larger-than say what --delete keeps";
        return Err(Error::new(ErrorKind::Usage, what)
            .with_remedy("Leave them out; --exclude chooses what of the snapshot is restored"));
    }
    refuse_as_target(&arguments.target, context)?;
    let repository = context.open()?;
    repository.check_reads_data("restore files")?;
    let (snapshot, end) = context.find(&repository, (&place.reference, &arguments.filter.filter()))?;
    let snapshot = &snapshot;
    let selection = selection.below_sources_of(&snapshot.record);
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
        overwrite: arguments.overwrite.into(),
        extra: if arguments.how.delete { Extra::Remove } else { Extra::Keep },
        zeros: if arguments.how.sparse { Zeros::Holes } else { Zeros::Write },
        left_out,
        never: context.never()?,
    };
    if arguments.how.dry_run {
        let forecast = restore::forecast(&repository, snapshot, &arguments.target, &options)?;
        context.end_display();
        let ends = worse(
            would_end(&forecast, arguments),
            verify::all_found(context, &options.selection.unmatched()),
        );
        foretell(context, (&forecast, &ends), &short(snapshot), arguments);
        ends?;
        return end;
    }
    let done = match restore::run(&repository, snapshot, &arguments.target, &options) {
        Ok(done) => done,
        Err(stopped) => return Err(tell_stopped(context, *stopped, &short(snapshot), arguments)),
    };
    let unmatched = options.selection.unmatched();
    let compared = arguments.verify.then(|| compare(arguments, &repository, snapshot, options));
    context.end_display();
    let restored = report(context, (&done, &unmatched), &short(snapshot), arguments);
    let verified = compared
        .map_or(Ok(()), |compared| verify::report(context, (&compared?, &unmatched), &short(snapshot)));
    // What could not be restored differs of course: that it could not is the thing to say.
    worse(restored.and(verified), verify::all_found(context, &unmatched))?;
    end
}

/// Compares what was restored, as `verify` does.
fn compare(
    arguments: &Restore,
    repository: &Repository,
    snapshot: &KnownSnapshot,
    options: RestoreOptions,
) -> Result<Verified> {
    let RestoreOptions { subpath, selection, left_out, never, extra, .. } = options;
    let owners = match (arguments.numeric_ids, arguments.no_ownership) {
        (true, _) => Owners::Numbers,
        (_, true) => Owners::Ignore,
        _ => Owners::Compare,
    };
    // What was there before does not matter unless it was to go.
    let besides = if extra == Extra::Remove { Besides::Tell } else { Besides::Ignore };
    // As they are while they are restored into.
    let closed = Closed::OpenUp;
    let options = VerifyOptions { subpath, selection, owners, besides, left_out, never, closed };
    let mut compared = lifeboat::ops::verify::run(repository, snapshot, Some(&arguments.target), &options)?;
    // They were told by the restore.
    compared.notes = Vec::new();
    Ok(compared)
}

fn report(
    context: &Context<'_>,
    (done, unmatched): (&Restored, &Unmatched),
    id: &str,
    arguments: &Restore,
) -> Result<()> {
    let output = context.output;
    tell_entries(context, done);
    if !unmatched.is_all() {
        output.note(&did(done, (id, arguments)));
    }
    output.message(&summary(done, (id, arguments), None));
    end(done, (done.files, &DID))
}

/// Says what a restore did that ended early, before why it did: what it removed is gone, and what failed did so before.
fn tell_stopped(context: &Context<'_>, stopped: Stopped, id: &str, arguments: &Restore) -> Error {
    let Stopped { done, error } = stopped;
    context.end_display();
    tell_entries(context, &done);
    if done.files + done.removals + done.failures + done.left > 0 {
        context.output.note(&format!("{}; then it ended early", did(&done, (id, arguments))));
        context.output.message(&summary(&done, (id, arguments), None));
    }
    error
}

/// Names what there is to be said of.
fn tell_entries(context: &Context<'_>, done: &Restored) {
    notes::tell(context, &done.notes, done.notes_unnamed);
    tell_removed(context, &done.removed, context.output.is_verbose());
    tell_failed(context, done);
    notes::tell_birth_times(context, done.birth_times);
}

/// What a restore did.
fn did(done: &Restored, (id, arguments): (&str, &Restore)) -> String {
    format!(
        "restored {}, {}, from snapshot {id} to {}{}",
        text::count(done.files, "file", "files"),
        size::show(done.bytes),
        arguments.target.display(),
        what_was_there(done.files_unchanged, done, ("was", "were"), "removed"),
    )
}

/// The end of a restore, or of a look at what one would do.
fn summary(done: &Restored, (id, arguments): (&str, &Restore), forecast: Option<&Forecast>) -> Value {
    let known = |value: fn(&Forecast) -> u64| forecast.map(value);
    let either = |value: fn(&Forecast) -> u64, done: u64| forecast.map_or(done, value);
    json::message(
        "summary",
        json!({
            "snapshot": id,
            "target": arguments.target.to_string_lossy(),
            "dry_run": forecast.is_some(),
            "files": either(|forecast| forecast.files, done.files),
            "bytes": either(|forecast| forecast.bytes, done.bytes),
            "files_unchanged": either(|forecast| forecast.files_unchanged, done.files_unchanged),
            "bytes_unchanged": either(|forecast| forecast.bytes_unchanged, done.bytes_unchanged),
            "left": done.left,
            "removed": done.removals,
            "failed": done.failures,
            "notes": done.notes.len(),
            "notes_unnamed": done.notes_unnamed,
            "unset": done.unset,
            "birth_times_not_set": done.birth_times,
            "packs": known(|forecast| forecast.packs),
            "requests": known(|forecast| forecast.requests),
            "download_bytes": known(|forecast| forecast.download_bytes),
            "chunks_lost": known(|forecast| forecast.chunks_lost),
            "space_needed_bytes": known(|forecast| forecast.space_needed),
            "space_free_bytes": known(|forecast| forecast.space_free),
            "fits": forecast.map(Forecast::fits),
            "read_only": forecast.map(|forecast| !forecast.read_only.is_empty()),
            "denied": forecast.map(|forecast| forecast.denied.is_some()),
        }),
    )
}

/// Says what a restore would do: first of all how it would end, and what to do about it.
fn foretell(
    context: &Context<'_>,
    (forecast, ends): (&Forecast, &Result<()>),
    id: &str,
    arguments: &Restore,
) {
    let (output, done) = (context.output, &forecast.restored);
    let Forecast { files, bytes, files_unchanged, bytes_unchanged, packs, requests, .. } = forecast;
    let would = format!(
        "would restore {}, {}, from snapshot {id} to {}{}",
        text::count(*files, "file", "files"),
        size::show(*bytes),
        arguments.target.display(),
        what_was_there(*files_unchanged, done, ("is", "are"), "to be removed"),
    );
    match ends {
        Ok(()) => output.say(&format!("{would}. Nothing was written: without --plan it is done")),
        Err(error) => {
            let remedy = error.remedy().map(|remedy| format!(" {remedy}")).unwrap_or_default();
            output.say(&format!("this restore would not end well: {error}.{remedy}"));
            output.say(&would);
        }
    }
    output.say(&format!(
        "{} are there already; {} to read from {} in {}",
        size::show(*bytes_unchanged),
        size::show(forecast.download_bytes),
        text::count(*packs, "pack", "packs"),
        text::count(*requests, "request", "requests"),
    ));
    output.say(&room(forecast));
    tell_removed(context, &done.removed, true);
    notes::tell(context, &done.notes, done.notes_unnamed);
    tell_failed(context, done);
    notes::tell_birth_times(context, done.birth_times);
    output.message(&summary(done, (id, arguments), Some(forecast)));
}

/// The room that the target needs and has.
fn room(forecast: &Forecast) -> String {
    let (needed, free) = (size::show(forecast.space_needed), size::show(forecast.space_free));
    format!("the target needs {needed} more, and {free} are free")
}

/// How a restore would end that is only planned.
fn would_end(forecast: &Forecast, arguments: &Restore) -> Result<()> {
    if let Some(place) = forecast.read_only.first() {
        let target = arguments.target.display();
        let what = if place.is_empty() { String::new() } else { format!(" for {}", text::path(place)) };
        let what = format!("nothing can be written to {target}{what}: it is read-only");
        return Err(Error::new(ErrorKind::Failed, what)
            .with_remedy(format!("{MAKE_WRITABLE}, or choose another target")));
    }
    if let Some(denied) = forecast.denied {
        let what = format!("nothing can be written to {} by this user", arguments.target.display());
        let error = Error::new(ErrorKind::Failed, what);
        return Err(if denied == Denied::Frozen {
            error.with_remedy(IMMUTABLE)
        } else {
            error.with_remedy("Restore as a user who may write there, or into another target")
        });
    }
    if forecast.chunks_lost > 0 {
        let count = text::count(forecast.chunks_lost, "chunk is", "chunks are");
        return Err(Error::new(ErrorKind::Damaged, format!("{count} lost: not every file would be whole"))
            .with_remedy(after_index(forecast.restored.has_unlisted, "`lifeboat check` names the files")));
    }
    end(&forecast.restored, (forecast.files, &WOULD))?;
    if !forecast.fits() {
        return Err(Error::new(ErrorKind::Failed, room(forecast))
            .with_remedy("Free some space there, or choose another target"));
    }
    Ok(())
}

/// How much was there already, and what became of what was in the way.
fn what_was_there(unchanged: u64, done: &Restored, (was, were): (&str, &str), removed: &str) -> String {
    let part = |count: u64, what: String| if count > 0 { what } else { String::new() };
    let so = text::count(unchanged, &format!("file {was}"), &format!("files {were}"));
    let files = part(unchanged, format!("; {so} so already"));
    let left = part(done.left, format!("; {} left alone", text::count(done.left, "entry", "entries")));
    let gone = format!("; {} {removed}", text::count(done.removals, "entry", "entries"));
    files + &left + &part(done.removals, gone)
}

fn tell_removed(context: &Context<'_>, removed: &[Vec<u8>], to_people: bool) {
    for path in removed {
        let message = json::message("removed", json!({}));
        context.output.message(&json::with_path(message, &json::absolute(path)));
        if to_people {
            context.output.say(&format!("- {}", text::path(path)));
        }
    }
}

fn tell_failed(context: &Context<'_>, done: &Restored) {
    for (path, error) in &done.failed {
        context.output.problem(path, error.kind(), &error.to_string(), error.remedy());
    }
}

/// What is said at the end of a restore, or of a plan.
struct Words {
    one_failed: &'static str,
    many_failed: &'static str,
    failed_remedy: &'static str,
    none_remedy: &'static str,
    unset: &'static str,
    came: &'static str,
}

const DID: Words = Words {
    one_failed: "entry was not restored as in the snapshot",
    many_failed: "entries were not restored as in the snapshot",
    failed_remedy: "The lines above name them; everything else is complete",
    none_remedy: "The lines above name them; no file was restored",
    unset: "every file has its contents, but",
    came: "came back",
};

const WOULD: Words = Words {
    one_failed: "entry would not come back as in the snapshot",
    many_failed: "entries would not come back as in the snapshot",
    failed_remedy: "Each is named, and what to do about it; everything else would be complete",
    none_remedy: "Each is named, and what to do about it; no file would be restored",
    unset: "every file would have its contents, but",
    came: "would come back",
};

/// How the command ends: what is said of entries that failed, and of every file if none did.
fn end(done: &Restored, (files, words): (u64, &Words)) -> Result<()> {
    let Restored { kinds, gaps, failures, unset, has_unlisted, .. } = done;
    match exit::worst(kinds.iter().copied()) {
        None if *unset > 0 => {
            let what = text::count(*unset, "piece of metadata", "pieces of metadata");
            let what = format!("{} {what} could not be set", words.unset);
            Err(Error::new(ErrorKind::Incomplete, what)
                .with_remedy(if rights::has_all() {
                    "The notes name them: another file system may hold them"
                } else {
                    "The notes name them: root with all its rights can set more, on a file system that can hold it"
                }))
        }
        None => Ok(()),
        Some(kind) if *gaps > 0 => {
            let count = text::count(*gaps, "part of the manifest is lost", "parts of the manifest are lost");
            let came = format!("{} {}", text::count(files, "file", "files"), words.came);
            let rest = "`lifeboat snapshots` shows how many there were; an older snapshot may have the rest";
            Err(Error::new(kind, format!("{count}, with all entries in it: {came}"))
                .with_remedy(after_index(*has_unlisted, rest)))
        }
        Some(kind) => {
            let count = text::count(*failures, words.one_failed, words.many_failed);
            let has_unlisted = *has_unlisted && kind == ErrorKind::Damaged;
            let remedy = if files == 0 { words.none_remedy } else { words.failed_remedy };
            Err(Error::new(kind, count).with_remedy(after_index(has_unlisted, remedy)))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    #[test]
    fn where_no_file_was_restored_nobody_says_that_all_else_is_complete() {
        let kinds = [ErrorKind::Incomplete].into_iter().collect();
        let done = Restored { failures: 2, kinds, ..Restored::default() };
        for words in [&DID, &WOULD] {
            let remedy = |files| end(&done, (files, words)).unwrap_err().remedy().unwrap().to_owned();
            assert!(remedy(0).contains("no file") && !remedy(0).contains("complete"), "{}", remedy(0));
            assert!(remedy(1).contains("complete"), "{}", remedy(1));
        }
    }

    #[test]
    fn the_summary_says_how_many_notes_are_not_among_the_messages() {
        let command = Restore::augment_args(clap::Command::new("restore"));
        let given = command.try_get_matches_from(["restore", "latest", "--target", "D"]).unwrap();
        let arguments = Restore::from_arg_matches(&given).unwrap();
        let done = Restored { notes_unnamed: 3, birth_times: 2, ..Restored::default() };
        for forecast in [None, Some(Forecast::default())] {
            let summary = summary(&done, ("id", &arguments), forecast.as_ref());
            assert_eq!((&summary["notes"], &summary["notes_unnamed"]), (&json!(0), &json!(3)), "{summary}");
            assert_eq!(summary["birth_times_not_set"], 2, "{summary}");
        }
    }
}
