//! `check`: whether a repository is whole.

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    ops::check::{self, CheckOptions, Checked, Depth, Problem, Subset},
    report::{json, size, text},
};
use serde_json::json;

use super::workers;
use crate::context::Context;

const AFTER: &str = "\
Without flags: the snapshots, manifests and index, and whether every pack is there with its size. With --read-data every
byte of the packs too; a part of them at a time with --read-data-subset: n/t (the n-th of t parts), x% or a size. With
--without-keys anybody can compare the objects with the hashes in their names, on the storage host for example. Exit
code 5 says that there is damage.

Examples:
  lifeboat check
  lifeboat check --read-data-subset 2/7
  lifeboat check --without-keys --read-data-subset 10G";

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Check {
    /// Read, decrypt and check all data
    #[arg(long, conflicts_with = "read_data_subset")]
    read_data: bool,
    /// Read a part of the data: 2/7, 5% or 10G
    #[arg(long, value_name = "PART")]
    read_data_subset: Option<String>,
    /// Only compare objects with the hashes in their names; unlocks nothing
    #[arg(long)]
    without_keys: bool,
}

pub(crate) fn run(arguments: &Check, context: &Context<'_>) -> Result<()> {
    let subset = arguments.read_data_subset.as_deref().map(subset).transpose()?;
    let checked = if arguments.without_keys {
        let store = context.store(&context.location()?)?;
        check::without_keys::run(&store, subset.unwrap_or(Subset::All), workers())?
    } else {
        let subset = subset.or(arguments.read_data.then_some(Subset::All));
        let depth = subset.map_or(Depth::Structure, Depth::Data);
        check::run(&context.open()?, CheckOptions { depth, workers: workers() })?
    };
    context.end_display();
    report(context, &checked)
}

/// `2/7` and `5%`, or a size.
fn subset(text: &str) -> Result<Subset> {
    if text.contains(['/', '%']) { Subset::parse(text) } else { size::parse(text).map(Subset::Bytes) }
}

fn report(context: &Context<'_>, checked: &Checked) -> Result<()> {
    let output = context.output;
    let Checked { snapshots, nodes, packs, packs_read, bytes_read, attested, .. } = checked;
    let Checked { problems_found, problems, notes, .. } = checked;
    for Problem { object, what, hurts } in problems {
        output.say(&format!("{}: {}", text::shown(object.as_bytes()), text::shown(what.as_bytes())));
        for hurt in hurts {
            output.say(&format!("  hurts {}", text::shown(hurt.as_bytes())));
        }
        let fields = json!({ "code": 5, "object": object, "message": what, "hurts": hurts });
        output.message(&json::message("error", fields));
    }
    for note in notes {
        output.note(&format!("note: {}", text::shown(note.as_bytes())));
        output.message(&json::message("note", json!({ "message": note })));
    }
    output.note(&format!(
        "checked {}, {}, {}; read {} of data in {}",
        text::count(*snapshots, "snapshot", "snapshots"),
        text::count(*nodes, "manifest node", "manifest nodes"),
        text::count(*packs, "pack", "packs"),
        size::show(*bytes_read),
        text::count(*packs_read, "pack", "packs"),
    ));
    output.message(&json::message(
        "summary",
        json!({
            "snapshots": snapshots,
            "nodes": nodes,
            "packs": packs,
            "packs_read": packs_read,
            "bytes_read": bytes_read,
            "sections_attested": attested,
            "problems": problems_found,
        }),
    ));
    if *problems_found == 0 {
        output.note("no damage was found");
        return Ok(());
    }
    let count = text::count(*problems_found, "problem was", "problems were");
    let made_anew =
        |problem: &Problem| ["/packs/", "/index/"].iter().any(|part| problem.object.contains(part));
    Err(Error::new(ErrorKind::Damaged, format!("{count} found")).with_remedy(
        if problems.iter().any(made_anew) {
            "The lines above name them. `lifeboat repair index` lists again what an index object listed, `lifeboat \
             repair quarantine NAME` sets a pack aside; then back up again: what is still at its source is stored anew"
        } else {
            "The lines above name them, and what is hurt. Change nothing else in the storage"
        },
    ))
}
