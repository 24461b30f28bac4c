//! `usage`: what every byte of the bucket is for.

use std::path::{Path, PathBuf};

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    filesystem::durable,
    ops::usage::{self, By, Findings, Unexplained, Usage as Account},
    report::{json, size, text, usage as report},
};
use serde_json::json;

use crate::{context::Context, terminal::Level};

const AFTER: &str = "\
Needs a key that reads manifests: audit, maintain, restore or owner. Nothing is written. A client is the label of a key,
and label@host if several machines use the key. The fair shares and the rows in brackets sum to the bucket, to the byte.
With --by path:N a row is a folder, N deep at most, with the files of all clients below it. --reconcile ends with exit
code 5 if there is an object that nothing explains, and names it; it reads everything from the storage, not from the cache.

Examples:
  lifeboat usage
  lifeboat usage --by path:2
  lifeboat usage --reconcile --csv usage.csv
  lifeboat usage --json";

/// Arguments of `usage`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Usage {
    /// Divide the bytes by `client`, or by `path:N`, folders N deep
    #[arg(long, value_name = "WHAT", default_value = "client")]
    by: String,
    /// Compare with what the storage lists, object by object, and fail on what nothing explains
    #[arg(long)]
    reconcile: bool,
    /// Write the table as CSV to this file, or to standard output if it is `-`
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Usage, context: &Context<'_>) -> Result<()> {
    let by = parse_by(&arguments.by)?;
    let to_output = arguments.csv.as_deref() == Some(Path::new("-"));
    if to_output && context.output.is_json() {
        return Err(Error::new(ErrorKind::Usage, "--json and --csv - both want standard output")
            .with_remedy("Write the CSV to a file"));
    }
    // Whoever compares with the storage wants to know what is there now, not what was there before.
    let repository = if arguments.reconcile { context.open_without_cache()? } else { context.open()? };
    let account = usage::run(&repository, by)?;
    context.end_display();
    if let Some(path) = arguments.csv.as_deref().filter(|_| !to_output) {
        durable::write_to(path, report::csv(&account).as_bytes(), 0o644)?;
    }
    if to_output {
        report::csv(&account).lines().for_each(|line| context.output.say(&format!("{line}\r")));
    } else {
        show(&account, context);
    }
    // Nothing but the table may follow a table that a program reads.
    let aside = |line: &str| {
        if to_output { context.output.aside(Level::Info, line) } else { context.output.say(line) }
    };
    tell(&account.findings, arguments.reconcile, (context, &aside));
    context.output.message(&report::summary(&account));
    end(&account.findings, arguments)
}

/// `client` or `path:N`.
fn parse_by(text: &str) -> Result<By> {
    let depth = |digits: &str| digits.parse().ok().filter(|depth| *depth > 0).map(By::Path);
    let by = match text.split_once(':') {
        None if text == "client" => Some(By::Client),
        None if text == "path" => Some(By::Path(1)),
        Some(("path", digits)) => depth(digits),
        _ => None,
    };
    by.ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("bytes cannot be divided by `{text}`"))
            .with_remedy("Write --by client, or --by path:2 for folders two deep")
    })
}

fn show(account: &Account, context: &Context<'_>) {
    let output = context.output;
    output.note(&format!(
        "the bucket holds {} ({}) in {}; {} {} of data and {} of manifests",
        text::count(account.bucket, "byte", "bytes"),
        size::show(account.bucket),
        text::count(account.objects, "object", "objects"),
        text::count(account.snapshots, "snapshot reaches", "snapshots reach"),
        size::show(account.classes.reached_data),
        size::show(account.classes.reached_metadata),
    ));
    for line in report::table(account).lines(output.width()) {
        output.say(&line);
    }
    for row in &account.rows {
        output.message(&report::message(row));
    }
}

fn tell(found: &Findings, reconcile: bool, (context, line): (&Context<'_>, &dyn Fn(&str))) {
    let output = context.output;
    for error in &found.problems {
        output.trouble(error);
    }
    for note in notes(found, reconcile) {
        if output.is_json() {
            output.message(&json::message("note", json!({ "message": note })));
        } else if !output.is_quiet() {
            line(&format!("note: {note}"));
        }
    }
    for Unexplained { object, size: bytes, why } in found.unexplained.iter().filter(|_| reconcile) {
        if output.is_json() {
            let fields = json!({ "code": 5, "object": object, "size": bytes, "message": why });
            output.message(&json::message("error", fields));
        } else {
            line(&format!("{}: {}", text::shown(object.as_bytes()), text::shown(why.as_bytes())));
        }
    }
}

fn end(found: &Findings, arguments: &Usage) -> Result<()> {
    if found.problems_found > 0 && found.problems_found == found.sealed_found {
        let text = "only another key can read some of it, so the numbers may be too small";
        return Err(Error::new(ErrorKind::Forbidden, text)
            .with_remedy("The lines above name it; `lifeboat key list` shows the keys"));
    }
    if found.problems_found > 0 {
        return Err(Error::new(ErrorKind::Damaged, "something is damaged, so the numbers may be too small")
            .with_remedy("The lines above name it; `lifeboat check` tells what it hurts"));
    }
    if !arguments.reconcile {
        return Ok(());
    }
    if found.unexplained_found == 0 {
        return Ok(());
    }
    let objects = text::count(found.unexplained_found, "object is", "objects are");
    Err(Error::new(ErrorKind::Damaged, format!("{objects} not explained by the records"))
        .with_remedy("The lines above name them: find out who put them there before you remove any"))
}

/// What is good to know about the numbers.
fn notes(found: &Findings, reconcile: bool) -> Vec<String> {
    let Findings { unindexed, set_aside, deleted, dying, aside, unexplained_found, .. } = found;
    let mut notes = Vec::new();
    if unindexed.objects > 0 {
        notes.push(format!(
            "dead bytes: {} ({}) in no index, of a backup that runs now or was cut short",
            text::count(unindexed.objects, "pack is", "packs are"),
            size::show(unindexed.bytes),
        ));
    }
    if set_aside.objects > 0 {
        let bytes = size::show(set_aside.bytes);
        notes.push(format!(
            "dead bytes: {} ({bytes}) set aside",
            text::count(set_aside.objects, "pack is", "packs are")
        ));
    }
    if *deleted > 0 {
        notes.push(format!(
            "an index still lists {}",
            text::count(*deleted, "pack that was pruned", "packs that were pruned")
        ));
    }
    if *dying > 0 {
        let blobs = text::count(*dying, "blob that snapshots need is", "blobs that snapshots need are");
        notes.push(format!("{blobs} only in packs that are to die; the next prune moves what is needed"));
    }
    if *aside > 0 {
        let blobs = text::count(*aside, "blob that snapshots need is", "blobs that snapshots need are");
        notes.push(format!(
            "{blobs} only in packs that are set aside; `lifeboat check` tells whether they can be read"
        ));
    }
    if *unexplained_found == 0 && reconcile {
        notes.push("every object is explained by the records".to_owned());
    }
    if *unexplained_found > 0 && !reconcile {
        let objects = text::count(*unexplained_found, "object is", "objects are");
        notes.push(format!("{objects} not explained by the records; --reconcile names them"));
    }
    notes
}
