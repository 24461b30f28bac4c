//! `ls`: what a snapshot holds.

use std::{ffi::OsString, os::unix::ffi::OsStrExt};

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    format::entry::{Entry, EntryKind, flag_names},
    ops::{list, select::Place},
    report::{json, text, time},
};
use serde_json::{Value, json};

use super::snapshots::short;
use crate::{args::FilterArguments, context::Context};

const AFTER: &str = "\
Examples:
  lifeboat ls latest
  lifeboat ls latest:/etc --long
  lifeboat ls latest --host web1 --json";

/// Arguments of `ls`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Ls {
    /// `latest`, `latest~2` or the first digits of an id; with :PATH what is there and below
    #[arg(value_name = "SNAPSHOT[:PATH]", default_value = "latest")]
    snapshot: OsString,
    /// Show permissions, owners, sizes and times
    #[arg(short, long)]
    long: bool,
    #[command(flatten)]
    filter: FilterArguments,
}

pub(crate) fn run(arguments: &Ls, context: &Context<'_>) -> Result<()> {
    let place = Place::parse(arguments.snapshot.as_bytes())?;
    let repository = context.open()?;
    let (snapshot, end) = context.find(&repository, (&place.reference, &arguments.filter.filter()))?;
    let snapshot = &snapshot;
    context.end_display();
    let output = context.output;
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    let listed = list::run(&repository, snapshot, &place.path, &mut |entry| {
        entries += 1;
        // A manifest may claim anything.
        bytes = bytes.saturating_add(entry.metadata.size);
        if output.is_json() {
            output.message(&message(entry));
        } else if arguments.long {
            output.say(&long(entry, context));
        } else {
            output.say(&text::path(&entry.path));
        }
        // Nobody reads the rest: `lifeboat ls latest | head`.
        if output.is_closed() { Err(closed()) } else { Ok(()) }
    });
    match listed {
        Err(_) if output.is_closed() => return end,
        other => other?,
    }
    let id = short(snapshot);
    output.message(&json::message("summary", json!({ "snapshot": id, "entries": entries, "bytes": bytes })));
    end
}

fn closed() -> Error {
    Error::new(ErrorKind::Failed, "nobody reads the list any more")
}

fn long(entry: &Entry, context: &Context<'_>) -> String {
    let metadata = &entry.metadata;
    let owner = |name: &str, number: u32| {
        if name.is_empty() { number.to_string() } else { text::shown(name.as_bytes()) }
    };
    let mut line = format!(
        "{} {:<8} {:<8} {:>12} {} {}",
        text::permissions(metadata.kind, metadata.mode),
        owner(&metadata.user, metadata.uid),
        owner(&metadata.group, metadata.gid),
        metadata.size,
        time::show(metadata.mtime, &context.zone),
        text::path(&entry.path),
    );
    if metadata.kind == EntryKind::Symlink {
        line += &format!(" -> {}", text::shown(&metadata.link_target));
    }
    if let Some(lacks) = &metadata.lacks {
        line += &format!(" (backed up without {})", text::shown(lacks.as_bytes()));
    }
    if let Some(why) = &entry.error {
        line += &format!(" (not backed up: {})", text::shown(why.as_bytes()));
    }
    line
}

fn message(entry: &Entry) -> Value {
    let metadata = &entry.metadata;
    let link = (metadata.kind == EntryKind::Symlink).then(|| String::from_utf8_lossy(&metadata.link_target));
    let names = metadata.xattrs.iter().map(|(name, _)| String::from_utf8_lossy(name));
    let fields = json!({
        "type": json::kind_name(metadata.kind),
        "mode": json::st_mode(metadata.kind, metadata.mode),
        "uid": metadata.uid,
        "gid": metadata.gid,
        "user": metadata.user,
        "group": metadata.group,
        "size": metadata.size,
        "mtime": time::rfc3339(metadata.mtime),
        "inode": metadata.inode,
        "links": metadata.links,
        "link_target": link,
        "btime": metadata.btime.map(time::rfc3339),
        "attributes": names.collect::<Vec<_>>(),
        "flags": flag_names(metadata.flags),
        "hole_bytes": metadata.size - metadata.content_bytes(),
        "lacks": metadata.lacks,
        "changed_while_read": entry.changed_while_read,
        "error": entry.error,
    });
    json::with_path(json::message("entry", fields), &json::absolute(&entry.path))
}
