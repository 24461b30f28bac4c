//! `rewrite`: snapshots again, without what was backed up by mistake.

use std::sync::Arc;

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    filesystem::select::Selection,
    id::ObjectId,
    ops::{
        repair::after_index,
        rewrite::{self, Losses, Lost, Mode, Old, RewriteDone, RewriteOptions, Rewritten},
    },
    report::{json, size, text},
};
use serde_json::json;

use super::{forget, snapshots::short, tag, workers};
use crate::context::Context;

const AFTER: &str = "\
Each snapshot in which something matches is copied without it; nothing else changes: the copy has the time, the host and the
tags of the old one, and the tag `rewritten-ID`. The old snapshot stays, unless --forget is given. What was left out can still
be restored from the old one until that was forgotten and `prune` has freed its data, from every other snapshot that
has it, and from versions that a lock of the storage keeps. It takes an owner's key, for the domain that it backs up to.

Examples:
  lifeboat rewrite latest --exclude /home/ann/secret.txt --dry-run
  lifeboat rewrite 4f2a91c0 --exclude '*.iso' --forget";

/// Arguments of `rewrite`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Rewrite {
    #[command(flatten)]
    which: tag::Which,
    /// Leave out what matches: a pattern of gitignore, with / as its folder
    #[arg(short, long, required = true, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Forget the old snapshots when all copies are there
    #[arg(long)]
    forget: bool,
    /// Only show what would be left out; with -v each path
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Rewrite, context: &Context<'_>) -> Result<()> {
    let selection = Arc::new(Selection::new(&[], &arguments.exclude)?);
    let which = arguments.which.chosen()?;
    let repository = Arc::new(context.open()?);
    // Before its own snapshots are looked for: other roles are told who may.
    repository.check_owns("rewrite snapshots")?;
    let every = repository.every_snapshot()?;
    let chosen = which.find(&every)?;
    let is_named = |id: &ObjectId| which.references.iter().any(|one| one.is_id_of(id));
    let options = RewriteOptions {
        selection,
        named: chosen.iter().map(|known| known.name.id).filter(is_named).collect(),
        old: if arguments.forget { Old::Forget } else { Old::Keep },
        mode: if arguments.dry_run { Mode::DryRun } else { Mode::Write },
        zone: context.zone.clone(),
        program: format!("lifeboat {}", env!("CARGO_PKG_VERSION")),
        workers: workers(),
    };
    let mut damaged: Vec<_> = every.damaged.into_iter().map(|(_, error)| error).collect();
    let done = rewrite::run(&repository, &chosen, &options)?;
    context.end_display();
    report(&done, &options, context);
    if let Some(line) = forget::kept_line(&done.kept) {
        context.output.warn(&line);
    }
    let failed = lost(&done, &options).or_else(|| stays(&done, &options));
    damaged.extend(done.damaged);
    match failed {
        None => tag::end(&damaged, context),
        Some(error) => {
            damaged.iter().for_each(|error| context.output.trouble(error));
            Err(error)
        }
    }
}

/// How it ends when an old one was to end and stays: whoever reads that all went well takes what was left out for gone.
fn stays(done: &RewriteDone, options: &RewriteOptions) -> Option<Error> {
    let stays = |one: &&Rewritten| options.old == Old::Forget && one.copy.is_some() && !one.forgotten;
    let first = done.snapshots.iter().find(stays)?;
    let what = format!(
        "{} has its copy and stays with what was left out of that: the newest of its key is never forgotten",
        short(&first.snapshot)
    );
    let key = first.snapshot.name.identity.short();
    Some(Error::new(ErrorKind::Failed, what).with_remedy(format!(
        "After the next backup with that key run the same again with its id: it finds the copy and forgets the old one. Of a \
         machine that makes no backups any more, `lifeboat key revoke {key} --last-good NUMBER` first"
    )))
}

/// How it ends when something that should stay cannot be read.
fn lost(done: &RewriteDone, options: &RewriteOptions) -> Option<Error> {
    let lost = done.lost();
    if lost == 0 {
        return None;
    }
    let hurt = done.snapshots.iter().filter(|one| one.lost.count > 0).count();
    let snapshots = text::count(hurt as u64, "snapshot", "snapshots");
    let stay = if options.old == Old::Forget { ", so no old snapshot was forgotten" } else { "" };
    let what = format!("{} of {snapshots} cannot be read{stay}", text::count(lost, "file", "files"));
    let remedy = "`lifeboat check --read-data` tells what is damaged. Back up again what is still at its source, then run this \
                  again: what is whole then gets a whole copy";
    Some(Error::new(ErrorKind::Damaged, what).with_remedy(after_index(done.has_unlisted, remedy)))
}

fn tell_lost(snapshot: &str, Losses { count, named }: &Losses, context: &Context<'_>) {
    let output = context.output;
    for Lost { path, why } in named {
        output.say(&format!("  {}: {}", text::path(path), text::shown(why.as_bytes())));
        let fields = json!({ "snapshot": snapshot, "why": why });
        output.message(&json::with_path(json::message("lost", fields), &json::absolute(path)));
    }
    if *count > named.len() as u64 {
        output.say(&format!("  and {} more", count - named.len() as u64));
    }
}

fn report(done: &RewriteDone, options: &RewriteOptions, context: &Context<'_>) {
    let (output, is_dry) = (context.output, options.mode == Mode::DryRun);
    let lost_of_all = done.lost();
    for one in &done.snapshots {
        let Rewritten { snapshot, left_out, lost, copy, forgotten } = one;
        let losses = match lost.count {
            0 => String::new(),
            count => format!("; {}", text::count(count, "loss", "losses")),
        };
        let entries = text::count(left_out.entries, "entry", "entries");
        let what = format!("{entries} ({}){losses}", size::show(left_out.bytes));
        output.say(&match copy {
            Some(id) if *forgotten => {
                format!("{}: {:.8} without {what}, and forgotten", short(snapshot), id.to_string())
            }
            Some(id) => format!("{}: {:.8} without {what}", short(snapshot), id.to_string()),
            None if left_out.entries == 0 => format!("{}: nothing matches", short(snapshot)),
            None => format!("{}: would be copied without {what}", short(snapshot)),
        });
        if output.is_verbose() {
            left_out.named.iter().for_each(|path| output.say(&format!("  {}", text::path(path))));
        }
        tell_lost(&snapshot.name.id.to_string(), lost, context);
        if options.old == Old::Forget && copy.is_some() && !forgotten && lost_of_all == 0 {
            output.warn(&format!("{} stays: the newest of its key is never forgotten", short(snapshot)));
        }
        let fields = json!({
            "id": snapshot.name.id.to_string(),
            "short_id": short(snapshot),
            "copy": copy.map(|id| id.to_string()),
            "entries": left_out.entries,
            "bytes": left_out.bytes,
            "paths": left_out.named.iter().map(|path| json::with_path(json!({}), path)).collect::<Vec<_>>(),
            "lost": lost.count,
            "forgotten": forgotten,
        });
        output.message(&json::message("rewritten", fields));
    }
    let count = |is: fn(&&Rewritten) -> bool| done.snapshots.iter().filter(is).count() as u64;
    let (copies, forgotten) = (count(|one| one.copy.is_some()), count(|one| one.forgotten));
    if copies > 0 {
        output.note(match forgotten == copies {
            true => "The data of what was left out stay until `lifeboat prune`, and as long as another snapshot has them",
            false if options.old == Old::Forget => "Old snapshots that stay still have what was left out",
            false => "The old snapshots still have what was left out: `lifeboat forget ID` ends one",
        });
    }
    let fields = json!({ "dry_run": is_dry, "snapshots": done.snapshots.len(), "copies": copies, "forgotten": forgotten, "lost": lost_of_all });
    output.message(&json::message("summary", fields));
}
