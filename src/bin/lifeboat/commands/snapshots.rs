//! `snapshots`: what there is.

use clap::Args;
use lifeboat::{
    error::Result,
    ops::select::{ID_DIGITS_SHOWN, last_of_each_group},
    report::{
        json, size,
        table::{Side, Table},
        text, time,
    },
    repository::snapshots::KnownSnapshot,
};
use serde_json::{Value, json};

use crate::{args::FilterArguments, context::Context};

const AFTER: &str = "\
Examples:
  lifeboat snapshots
  lifeboat snapshots --host web1 --latest 1
  lifeboat snapshots --tag nightly --json";

/// Arguments of `snapshots`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Snapshots {
    #[command(flatten)]
    filter: FilterArguments,
    /// Only the last N of each host and its sources
    #[arg(long, value_name = "N")]
    latest: Option<usize>,
}

/// The digits of a snapshot's id that people see.
pub(crate) fn short(snapshot: &KnownSnapshot) -> String {
    snapshot.name.id.to_string().chars().take(ID_DIGITS_SHOWN).collect()
}

pub(crate) fn run(arguments: &Snapshots, context: &Context<'_>) -> Result<()> {
    let repository = context.open()?;
    let (mut snapshots, end) = context.snapshots(&repository)?;
    context.end_display();
    let filter = arguments.filter.filter();
    snapshots.retain(|snapshot| filter.matches(snapshot));
    if let Some(count) = arguments.latest {
        snapshots = last_of_each_group(snapshots, count);
    }
    for snapshot in &snapshots {
        context.output.message(&message(snapshot));
    }
    let count = snapshots.len() as u64;
    context.output.message(&json::message("summary", json!({ "snapshots": count })));
    for line in table(&snapshots, context).lines(context.output.width()) {
        context.output.say(&line);
    }
    context.output.note(&text::count(count, "snapshot", "snapshots"));
    end
}

fn table(snapshots: &[KnownSnapshot], context: &Context<'_>) -> Table {
    let mut table = Table::new(&[
        ("ID", Side::Left),
        ("Time", Side::Left),
        ("Host", Side::Left),
        ("Files", Side::Right),
        ("Size", Side::Right),
        ("Tags", Side::Left),
        ("Paths", Side::Left),
    ]);
    for snapshot in snapshots {
        let record = &snapshot.record;
        let sources: Vec<String> = record.sources.iter().map(|source| text::shown(source)).collect();
        let incomplete = if record.unreadable > 0 { " (incomplete)" } else { "" };
        let held = if snapshot.holds.is_empty() { "" } else { " (held)" };
        table.row(vec![
            short(snapshot),
            time::show(record.time, &context.zone),
            text::shown(record.host.as_bytes()),
            record.statistics.files.to_string(),
            size::show(record.statistics.bytes),
            text::shown(snapshot.tags.join(",").as_bytes()),
            format!("{}{incomplete}{held}", sources.join(" ")),
        ]);
    }
    table
}

/// Why it must not end.
pub(super) fn holds(snapshot: &KnownSnapshot) -> Vec<Value> {
    let held = snapshot.holds.iter();
    held.map(
        |hold| json!({ "id": hold.id.to_string(), "since": time::rfc3339(hold.time), "reason": hold.reason }),
    )
    .collect()
}

fn message(snapshot: &KnownSnapshot) -> Value {
    let record = &snapshot.record;
    let statistics = record.statistics;
    let sources: Vec<Value> =
        record.sources.iter().map(|source| json::with_path(json!({}), source)).collect();
    json::message(
        "snapshot",
        json!({
            "id": snapshot.name.id.to_string(),
            "short_id": short(snapshot),
            "sequence": snapshot.name.sequence,
            "identity": snapshot.name.identity.to_string(),
            "time": time::rfc3339(record.time),
            "host": record.host,
            "user": record.user,
            "tags": snapshot.tags,
            "sources": sources,
            "entries": statistics.entries,
            "files": statistics.files,
            "bytes": statistics.bytes,
            "bytes_new": statistics.bytes_new,
            "bytes_stored": statistics.bytes_stored,
            "unreadable": record.unreadable,
            "holds": holds(snapshot),
            "program": record.program,
            "origin": record.origin.map(|origin| json!({
                "repository": origin.repository.to_string(),
                "snapshot": origin.snapshot.to_string(),
            })),
        }),
    )
}
