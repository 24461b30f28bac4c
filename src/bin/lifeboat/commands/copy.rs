//! `copy`: snapshots of another repository become snapshots of this one.

use std::sync::Arc;

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    ops::{
        copy::{self, Copied, CopyOptions, Losses, Lost, Made, Mode, Outcome},
        select::Reference,
    },
    report::{json, size, text, time},
    repository::{
        Repository,
        snapshots::{KnownSnapshot, Snapshots},
    },
};
use serde_json::json;

use super::{backup::compression_of, snapshots::short, workers};
use crate::{
    args::{FilterArguments, FromArguments},
    context::{Context, Given, Which, end_of_unread},
};

const AFTER: &str = "\
The source is opened with --from-..; -r names the target, which must be there (`lifeboat init`). The key of the source needs
the role restore or owner, that of the target the role owner. Time, host, user, tags and sources stay; the record says of
which snapshot of which repository it is a copy, so what was copied before is passed over. It may be stopped anywhere and
run again: what the target has is not sent again. A snapshot of which something cannot be read is not copied: exit code 5. A
copy that has lost files in the target since is named and passed over: exit code 3.

Examples:
  lifeboat -r /mnt/offsite copy --from-repository /srv/backup --from-password-file source.pass
  lifeboat -r s3://offsite/backup copy --from-repository /srv/backup --host web1 --tag nightly
  lifeboat -r /mnt/offsite copy --from-repository s3://here/backup latest --dry-run";

/// Arguments of `copy`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Copy {
    /// The snapshots: latest, latest~2 or the first digits of an id [default: all that pass the filters]
    #[arg(value_name = "SNAP")]
    snapshots: Vec<String>,
    #[command(flatten)]
    filter: FilterArguments,
    #[command(flatten)]
    pub(super) from: FromArguments,
    /// How hard to compress: off, fast, auto or max [default: auto]
    #[arg(long, value_name = "HOW", help_heading = "Copying")]
    compression: Option<String>,
    /// Only say which snapshots would be copied
    #[arg(short = 'n', long, help_heading = "Copying")]
    dry_run: bool,
}

/// What all snapshots come to.
#[derive(Default)]
struct Sum {
    copied: u64,
    planned: u64,
    before: u64,
    hurt: u64,
    damaged: u64,
    lost: u64,
    bytes: u64,
    bytes_new: u64,
    bytes_stored: u64,
    bytes_read: u64,
    bytes_reused: u64,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Planned => self.planned += 1,
            Outcome::Before(_) => self.before += 1,
            Outcome::Hurt(_, Losses { count, .. }) => {
                self.before += 1;
                self.hurt += 1;
                self.lost = self.lost.saturating_add(*count);
            }
            Outcome::Damaged(Losses { count, .. }) => {
                self.damaged += 1;
                self.lost = self.lost.saturating_add(*count);
            }
            Outcome::Made(Made { statistics, bytes_read, bytes_reused, .. }) => {
                self.copied += 1;
                self.bytes = self.bytes.saturating_add(statistics.bytes);
                self.bytes_new += statistics.bytes_new;
                self.bytes_stored += statistics.bytes_stored;
                self.bytes_read += bytes_read;
                self.bytes_reused += bytes_reused;
            }
        }
    }
}

pub(crate) fn run(arguments: &Copy, context: &Context<'_>) -> Result<()> {
    arguments.filter.refuse_empty()?;
    let references = arguments.snapshots.iter().map(|text| Reference::parse(text));
    let references = references.collect::<Result<Vec<Reference>>>()?;
    let mode = if arguments.dry_run { Mode::DryRun } else { Mode::Write };
    let compression = compression_of(arguments.compression.as_deref())?;
    let (place, unlock, network) = arguments.from.parts(&context.common.network);
    let given = Given { which: Which::From, place: &place, unlock: &unlock, network: &network };
    let from = Arc::new(context.open_given(&given).map_err(of_source)?);
    let to = Arc::new(context.open()?);
    let (chosen, end) = choose(&from, (&references, arguments), context)?;
    let program = format!("lifeboat {}", env!("CARGO_PKG_VERSION"));
    let options = CopyOptions { mode, compression, program, workers: workers() };
    let mut sum = Sum::default();
    copy::run((&from, &to), &chosen, &options, &mut |copied| {
        sum.add(&copied.outcome);
        tell(copied, context);
    })?;
    context.end_display();
    tell_sum(&sum, mode, context);
    if sum.hurt > 0 && (sum.damaged > 0 || end.is_err()) {
        // What is worse comes last.
        context.output.trouble(&hurt(&sum));
    }
    if sum.damaged == 0 {
        return match end {
            Ok(()) if sum.hurt > 0 => Err(hurt(&sum)),
            end => end,
        };
    }
    let count = text::count(sum.damaged, "snapshot was", "snapshots were");
    Err(Error::new(ErrorKind::Damaged, format!("{count} not copied: not all of what it needs can be read"))
        .with_remedy(
            "`lifeboat check --read-data` of the source tells more; `repair snapshots` there makes a copy without what is \
             lost, which can be copied",
        ))
}

/// Copies of before have lost files, and were passed over: whoever reads that all went well takes them for whole.
fn hurt(sum: &Sum) -> Error {
    let copies = text::count(sum.hurt, "copy of before has", "copies of before have");
    Error::new(ErrorKind::Incomplete, format!("{copies} lost files in the target, as said above")).with_remedy(
        "In the target run `lifeboat repair snapshots --apply`, then `lifeboat forget ID` with the id of each such copy; the \
         next `copy` makes them again",
    )
}

/// Two repositories are at hand: what is wrong says with which.
fn of_source(error: Error) -> Error {
    error.context("the source")
}

/// The snapshots that are meant, oldest first, and how the command is to end because of those that cannot be read.
fn choose(
    from: &Repository,
    (references, arguments): (&[Reference], &Copy),
    context: &Context<'_>,
) -> Result<(Vec<KnownSnapshot>, Result<()>)> {
    from.check_reads_data("read what is to be copied").map_err(of_source)?;
    let filter = arguments.filter.filter();
    let mut every: Snapshots = from.every_snapshot().map_err(of_source)?;
    let mut unread = Vec::new();
    for (_, error) in std::mem::take(&mut every.damaged) {
        let error = error.context("the source");
        context.output.trouble(&error);
        unread.push(error);
    }
    let remedy = "`lifeboat check` of the source tells what is damaged";
    let end = end_of_unread(&unread, ("some snapshots of the source cannot be read", remedy));
    if !filter.is_empty() {
        filter.pass(&every.listed, &every.sealed).map_err(of_source)?;
    }
    if references.is_empty() {
        every.listed.retain(|snapshot| filter.matches(snapshot));
        return Ok((every.listed, end));
    }
    let mut chosen: Vec<KnownSnapshot> = Vec::new();
    for reference in references {
        let found = reference.find_among((&every.listed, &every.sealed), &filter).map_err(of_source)?;
        if !chosen.iter().any(|known| known.name == found.name) {
            chosen.push(found.clone());
        }
    }
    chosen.sort_by_key(|known| (known.record.time, known.name.sequence));
    Ok((chosen, end))
}

fn tell(Copied { snapshot, outcome }: &Copied, context: &Context<'_>) {
    let output = context.output;
    let id = short(snapshot);
    let host = text::shown(snapshot.record.host.as_bytes());
    let what = format!("{id} of {host}, {}", time::show(snapshot.record.time, &context.zone));
    let (action, copy) = match outcome {
        Outcome::Planned => ("would_copy", None),
        Outcome::Made(Made { id, .. }) => ("copied", Some(id.to_string())),
        Outcome::Before(id) => ("copied_before", Some(id.to_string())),
        Outcome::Hurt(id, _) => ("copied_before_and_lost", Some(id.to_string())),
        Outcome::Damaged(_) => ("damaged", None),
    };
    match outcome {
        Outcome::Planned => output.say(&format!("{what}: would be copied")),
        Outcome::Before(copy) => {
            output.note(&format!("{what}: was copied before, as {:.8}", copy.to_string()))
        }
        Outcome::Made(Made { id, statistics, bytes_read, .. }) => output.say(&format!(
            "{what}: copied as {:.8}, {}, {} ({} read, {} stored)",
            id.to_string(),
            text::count(statistics.files, "file", "files"),
            size::show(statistics.bytes),
            size::show(*bytes_read),
            size::show(statistics.bytes_stored)
        )),
        Outcome::Hurt(copy, losses) => {
            let lost = text::count(losses.count, "file", "files");
            output.say(&format!(
                "{what}: was copied before, as {:.8}, which has lost {lost}",
                copy.to_string()
            ));
            tell_lost(snapshot, losses, context);
        }
        Outcome::Damaged(losses) => {
            output.say(&format!("{what}: not copied, {}", text::count(losses.count, "loss", "losses")));
            tell_lost(snapshot, losses, context);
        }
    }
    let (made, lost) = match outcome {
        Outcome::Made(made) => (Some(made), 0),
        Outcome::Damaged(Losses { count, .. }) | Outcome::Hurt(_, Losses { count, .. }) => (None, *count),
        Outcome::Planned | Outcome::Before(_) => (None, 0),
    };
    let fields = json!({
        "snapshot": snapshot.name.id.to_string(),
        "action": action,
        "copy": copy,
        "host": snapshot.record.host,
        "time": time::rfc3339(snapshot.record.time),
        "files": snapshot.record.statistics.files,
        "bytes": snapshot.record.statistics.bytes,
        "bytes_read": made.map(|made| made.bytes_read),
        "reads": made.map(|made| made.reads),
        "bytes_reused": made.map(|made| made.bytes_reused),
        "bytes_new": made.map(|made| made.statistics.bytes_new),
        "bytes_stored": made.map(|made| made.statistics.bytes_stored),
        "lost": lost,
    });
    output.message(&json::message("copy", fields));
}

fn tell_lost(snapshot: &KnownSnapshot, Losses { count, named }: &Losses, context: &Context<'_>) {
    let output = context.output;
    for Lost { path, why } in named {
        output.say(&format!("  {}: {}", text::path(path), text::shown(why.as_bytes())));
        let fields = json!({ "snapshot": snapshot.name.id.to_string(), "why": why });
        output.message(&json::with_path(json::message("lost", fields), &json::absolute(path)));
    }
    if *count > named.len() as u64 {
        output.say(&format!("  and {} more", count - named.len() as u64));
    }
}

fn tell_sum(sum: &Sum, mode: Mode, context: &Context<'_>) {
    let Sum {
        copied,
        planned,
        before,
        hurt,
        damaged,
        lost,
        bytes,
        bytes_new,
        bytes_stored,
        bytes_read,
        bytes_reused,
    } = sum;
    let snapshots = |count| text::count(count, "snapshot", "snapshots");
    let before_too = if *before > 0 { format!(", {before} were before") } else { String::new() };
    context.output.note(&match mode {
        Mode::DryRun => format!("{} would be copied{before_too}. Nothing was written", snapshots(*planned)),
        Mode::Write => format!(
            "{} copied{before_too}: {}, {} read and {} stored",
            snapshots(*copied),
            size::show(*bytes),
            size::show(*bytes_read),
            size::show(*bytes_stored)
        ),
    });
    let fields = json!({
        "dry_run": mode == Mode::DryRun,
        "copied": copied,
        "to_copy": planned,
        "copied_before": before,
        "copies_hurt": hurt,
        "damaged": damaged,
        "lost": lost,
        "bytes": bytes,
        "bytes_read": bytes_read,
        "bytes_reused": bytes_reused,
        "bytes_new": bytes_new,
        "bytes_stored": bytes_stored,
    });
    context.output.message(&json::message("summary", fields));
}
