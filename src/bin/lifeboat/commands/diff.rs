//! `diff`: what changed between two snapshots, or between one and the live file system.

use std::{ffi::OsString, os::unix::ffi::OsStrExt, path::PathBuf};

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    filesystem::{filter::Filter, live::Closed, select::Selection},
    ops::{
        diff::{self, Change, Contents, DiffOptions, Diffed},
        select::Place,
        verify::{self, Besides, Difference, Owners, Verified, VerifyOptions},
    },
    report::{json, size, text},
    repository::{Repository, snapshots::KnownSnapshot},
};
use serde_json::{Value, json};

use super::{snapshots::short, verify::all_found, worse};
use crate::{
    args::{FilterArguments, OwnerArguments, SelectionArguments},
    context::Context,
};

const AFTER: &str = "\
A line begins with + for what is new, - for what is gone and M for what is otherwise, with how. Two snapshots are compared
by their manifests: nothing but what differs of them is read. The contents of two domains cannot be compared; a warning says
so. --live reads the files, as verify does, and --target says where they are. The exit code is 0 whether something changed
or not.

Examples:
  lifeboat diff latest~1 latest
  lifeboat diff latest~7:/etc latest
  lifeboat diff latest:/srv/data --live";

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Diff {
    /// `latest`, `latest~2` or the first digits of an id; with :PATH only what is there
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,
    /// The one to compare it with
    #[arg(value_name = "SNAPSHOT", required_unless_present = "live", conflicts_with = "live")]
    other: Option<OsString>,
    /// Compare it with the files on this machine
    #[arg(long)]
    live: bool,
    /// Where these are; as in restore
    #[arg(short, long, value_name = "FOLDER", requires = "live")]
    target: Option<PathBuf>,
    #[command(flatten)]
    owners: OwnerArguments,
    #[command(flatten)]
    what: SelectionArguments,
    #[command(flatten)]
    filter: FilterArguments,
}

pub(crate) fn run(arguments: &Diff, context: &Context<'_>) -> Result<()> {
    let place = Place::parse(arguments.snapshot.as_bytes())?;
    let filter = arguments.filter.filter();
    let selection = Selection::new(&arguments.what.include, &arguments.what.exclude)?;
    let other = arguments.other.as_ref().map(|other| Place::parse(other.as_bytes())).transpose()?;
    if other.as_ref().is_some_and(|other| !other.path.is_empty() && other.path != place.path) {
        return Err(Error::new(ErrorKind::Usage, "the same path of both snapshots is compared")
            .with_remedy("Write it behind the first one only: SNAP:/etc SNAP"));
    }
    if other.is_some() && arguments.owners.owners() != Owners::Compare {
        return Err(Error::new(ErrorKind::Usage, "--numeric-ids and --ignore-owners are for --live")
            .with_remedy("Leave them out: of two snapshots the names of owners are compared"));
    }
    let repository = context.open()?;
    let (snapshot, mut end) = context.find(&repository, (&place.reference, &filter))?;
    match other {
        Some(other) => {
            let (second, other_end) = context.find(&repository, (&other.reference, &filter))?;
            end = end.and(other_end);
            let selection = selection.below_sources_of(&snapshot.record).below_sources_of(&second.record);
            let options = DiffOptions { subpath: place.path, selection };
            snapshots(context, &repository, (&snapshot, &second), &options)?;
        }
        None => {
            let options = VerifyOptions {
                subpath: place.path,
                selection: selection.below_sources_of(&snapshot.record),
                owners: arguments.owners.owners(),
                besides: Besides::Tell,
                left_out: Filter::default(),
                never: context.never()?,
                closed: Closed::Leave,
            };
            let done = verify::run(&repository, &snapshot, arguments.target.as_deref(), &options)?;
            context.end_display();
            let told = live(context, &done, &short(&snapshot));
            worse(told, all_found(context, &options.selection.unmatched()))?;
        }
    }
    end
}

/// One line, or one object, for an entry.
fn tell(context: &Context<'_>, (mark, change): (char, &str), path: &[u8], differences: &[Difference]) {
    let output = context.output;
    if output.is_json() {
        let words: Vec<&str> = differences.iter().map(Difference::word).collect();
        let said: Vec<String> = differences.iter().map(ToString::to_string).collect();
        let fields = json!({ "change": change, "differences": words, "message": said.join("; ") });
        output.message(&json::with_path(json::message("change", fields), &json::absolute(path)));
        return;
    }
    let said: Vec<String> =
        differences.iter().map(|difference| text::shown(difference.to_string().as_bytes())).collect();
    let how = if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) };
    output.say(&format!("{mark} {}{how}", text::path(path)));
}

const ADDED: (char, &str) = ('+', "added");
const REMOVED: (char, &str) = ('-', "removed");
const CHANGED: (char, &str) = ('M', "changed");

fn snapshots(
    context: &Context<'_>,
    repository: &Repository,
    (one, other): (&KnownSnapshot, &KnownSnapshot),
    options: &DiffOptions,
) -> Result<()> {
    context.end_display();
    let output = context.output;
    let contents = diff::contents(one, other);
    if contents == Contents::Unknown {
        output.warn(
            "the contents of files cannot be compared, since the snapshots are of two domains, whose keys name the same \
             content otherwise; sizes, times and everything else are compared",
        );
    }
    let done = diff::run(repository, (one, other), options, &mut |change| {
        match change {
            Change::Added(entry) => tell(context, ADDED, &entry.path, &[]),
            Change::Removed(entry) => tell(context, REMOVED, &entry.path, &[]),
            Change::Changed(entry, differences) => tell(context, CHANGED, &entry.path, &differences),
        }
        // Nobody reads the rest.
        if output.is_closed() { Err(Error::new(ErrorKind::Failed, "the output is closed")) } else { Ok(()) }
    });
    let done = match done {
        Err(_) if output.is_closed() => return Ok(()),
        done => done?,
    };
    let Diffed { added, removed, changed, lost, nodes_read } = done;
    let part = |(entries, bytes): (u64, u64), what: &str| {
        format!("{} {what}, {}", text::count(entries, "entry", "entries"), size::show(bytes))
    };
    output.note(&format!(
        "from {} to {}: {}; {}; {}",
        short(one),
        short(other),
        part(added, "added"),
        part(removed, "removed"),
        part(changed, "changed"),
    ));
    let numbers = json!({
        "snapshot": short(one),
        "other": short(other),
        "added": added.0,
        "added_bytes": added.1,
        "removed": removed.0,
        "removed_bytes": removed.1,
        "changed": changed.0,
        "changed_bytes": changed.1,
        "not_backed_up": Value::Null,
        "attributes_not_backed_up": Value::Null,
        "lost": lost,
        "nodes_read": nodes_read,
        "contents_compared": contents == Contents::Compared,
    });
    output.message(&json::message("summary", numbers));
    damaged(lost)
}

fn live(context: &Context<'_>, done: &Verified, id: &str) -> Result<()> {
    let Verified { differences, unnamed, differing, missing, extra, lost, .. } = done;
    let Verified { not_backed_up, attributes_not_backed_up, notes, .. } = done;
    let mut rest = differences.as_slice();
    while let Some((path, _)) = rest.first() {
        let count = rest.iter().take_while(|(other, _)| other == path).count();
        let (these, others) = rest.split_at(count);
        let these: Vec<Difference> = these.iter().map(|(_, difference)| difference.clone()).collect();
        let mark = match these.first() {
            Some(Difference::Missing) => REMOVED,
            Some(Difference::Extra(_)) => ADDED,
            _ => CHANGED,
        };
        tell(context, mark, path, if mark == CHANGED { &these } else { &[] });
        rest = others;
    }
    let changed = differing.saturating_sub(missing + extra);
    let output = context.output;
    if *unnamed > 0 {
        output.say(&format!("and {} more", text::count(*unnamed, "difference", "differences")));
    }
    super::notes::tell(context, notes, 0);
    output.note(&format!(
        "since {id}: {extra} added, {missing} removed, {}",
        text::count(changed, "entry changed", "entries changed")
    ));
    let numbers = json!({
        "snapshot": id,
        "other": Value::Null,
        "added": extra,
        "added_bytes": Value::Null,
        "removed": missing,
        "removed_bytes": Value::Null,
        "changed": changed,
        "changed_bytes": Value::Null,
        "not_backed_up": not_backed_up,
        "attributes_not_backed_up": attributes_not_backed_up,
        "lost": lost,
        "nodes_read": Value::Null,
        "contents_compared": true,
    });
    output.message(&json::message("summary", numbers));
    damaged(*lost)
}

fn damaged(lost: u64) -> Result<()> {
    if lost == 0 {
        return Ok(());
    }
    let parts = text::count(lost, "part", "parts");
    Err(Error::new(ErrorKind::Damaged, format!("{parts} of the manifests cannot be read"))
        .with_remedy("`lifeboat check` says what is damaged"))
}
