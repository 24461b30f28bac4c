//! `recover`: manifests that no snapshot names become snapshots again.

use std::sync::Arc;

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    ops::recover::{self, Losses, Lost, Manifest, Mode, Outcome, RecoverOptions, Recovered},
    report::{json, size, text, time},
};
use serde_json::json;

use super::workers;
use crate::{args::split_tags, context::Context};

const AFTER: &str = "\
When snapshots are lost, what they held is still there until a prune: this looks through all manifests of the domain that
this owner backs up to, and finds those that no snapshot names. Nothing is written without --apply, and nothing is ever
deleted. Known are the paths, the time when the storage got the manifest, and the key that wrote it. Host, user and tags
stood in the snapshot alone: without --host the label of the key stands for the host. Snapshots that were forgotten are found
too until a prune has freed them, and so is what a running backup has not finished. If index objects are lost, run
`lifeboat repair index --apply` first. Needs a key with the role owner.

Examples:
  lifeboat recover
  lifeboat recover --apply
  lifeboat recover 3f2a9c01 --host web1 --apply";

/// Digits of the id of a root that are shown.
const ID_DIGITS_SHOWN: usize = 12;

/// Arguments of `recover`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Recover {
    /// The first digits of the ids of manifests [default: all that no snapshot names]
    #[arg(value_name = "MANIFEST")]
    roots: Vec<String>,
    /// The host of these snapshots [default: the label of the key that wrote the manifest]
    #[arg(short = 'H', long, value_name = "HOST")]
    host: Option<String>,
    /// Add a tag, or several: TAG,TAG; each has the tag recovered
    #[arg(long = "tag", value_name = "TAG[,TAG]")]
    tags: Vec<String>,
    /// Do it; else only show what would be done
    #[arg(long)]
    apply: bool,
    /// Only show what would be done, as without --apply
    #[arg(short = 'n', long, conflicts_with = "apply")]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Recover, context: &Context<'_>) -> Result<()> {
    let mode = if arguments.apply { Mode::Write } else { Mode::DryRun };
    let options = RecoverOptions {
        roots: arguments.roots.clone(),
        host: arguments.host.clone(),
        tags: arguments.tags.iter().flat_map(|list| split_tags(list)).collect(),
        mode,
        program: format!("lifeboat {}", env!("CARGO_PKG_VERSION")),
        workers: workers(),
    };
    let repository = Arc::new(context.open_without_cache()?);
    let done = recover::run(&repository, &options)?;
    let accepted = match (mode, context.cache_folder()) {
        (Mode::Write, Some(cache)) => recover::accept(&repository, &cache),
        _ => Ok(None),
    };
    context.end_display();
    // What was made is told whatever else went wrong.
    let told = tell(&done, mode, context);
    if let Some(number) = accepted? {
        let left = if done.doubts.is_empty() { ", and nothing is left to do" } else { "" };
        context.output.note(&format!(
            "this machine had seen another last snapshot of this key, which is gone: from now on its chain goes on from snapshot {number}, \
             which was recovered{left}"
        ));
    }
    if mode == Mode::Write {
        // What is left to do comes last: until then a prune is refused.
        done.doubts.iter().for_each(|doubt| context.output.warn(&still(doubt)));
    }
    told
}

/// What of the snapshots is wrong as before, and what to do.
fn still(doubt: &Error) -> String {
    let remedy = doubt.remedy().map_or_else(String::new, |remedy| format!(". {remedy}"));
    format!("{doubt}; until that is mended `check`, `snapshots` and `prune` end with 5{remedy}")
}

fn tell(done: &Recovered, mode: Mode, context: &Context<'_>) -> Result<()> {
    let output = context.output;
    let Recovered { found, nodes, fragments, more, unreadable, unreadable_more, doubts, .. } = done;
    let Recovered { unlisted, tombstoned, elsewhere, .. } = done;
    let manifests = |count: u64| text::count(count, "manifest", "manifests");
    let count = |is: fn(&Outcome) -> bool| found.iter().filter(|(_, outcome)| is(outcome)).count() as u64;
    let made = count(|outcome| matches!(outcome, Outcome::Made(_)));
    let damaged = count(|outcome| matches!(outcome, Outcome::Damaged(_)));
    output.say(&match (found.is_empty(), mode) {
        (true, _) if *unlisted > 0 => format!(
            "nothing to recover yet: {} in no index, and what they hold is not known. First of all run `lifeboat repair index \
             --apply`, then this again",
            text::count(*unlisted, "pack is", "packs are")
        ),
        (true, _) if *nodes == 0 => "nothing to recover: the domain that this key backs up to holds no manifest".to_owned(),
        (true, _) => format!(
            "nothing to recover in the domain that this key backs up to: every whole manifest of {} has its snapshot",
            text::count(*nodes, "node", "nodes")
        ),
        (false, Mode::DryRun) => format!(
            "{} without a snapshot. Nothing was written: --apply makes snapshots of them",
            manifests(found.len() as u64)
        ),
        (false, Mode::Write) => {
            format!("{made} of {} without a snapshot became snapshots", manifests(found.len() as u64))
        }
    });
    found.iter().for_each(|(manifest, outcome)| tell_one(manifest, outcome, context));
    if *more > 0 {
        output.say(&format!("and {more} more: run it again when these have their snapshots"));
    }
    tell_passed_over(done, context);
    if mode == Mode::DryRun {
        doubts.iter().for_each(|doubt| output.warn(&doubt.to_string()));
    }
    unreadable.iter().for_each(|error| output.trouble(error));
    if *unreadable_more > 0 {
        output.note(&format!("and {unreadable_more} more packs and frames that cannot be read"));
    }
    let fields = json!({
        "dry_run": mode == Mode::DryRun,
        "found": found.len(),
        "recovered": made,
        "damaged": damaged,
        "more": more,
        "fragments": fragments,
        "nodes": nodes,
        "snapshots_in_doubt": doubts.len(),
        "packs_in_no_index": unlisted,
        "packs_marked": tombstoned,
        "domains_elsewhere": elsewhere,
        "unreadable": unreadable.len() as u64 + unreadable_more,
    });
    output.message(&json::message("summary", fields));
    if damaged == 0 && unreadable.is_empty() {
        return nobody_looked(done);
    }
    let what = if damaged > 0 {
        format!("{} cannot be read whole, so that no snapshot was made of them", manifests(damaged))
    } else {
        "some nodes cannot be read: manifests may be missing here".to_owned()
    };
    Err(Error::new(ErrorKind::Damaged, what)
        .with_remedy("`lifeboat check --read-data` tells what is damaged"))
}

/// What nobody looked at, or could.
fn tell_passed_over(done: &Recovered, context: &Context<'_>) {
    let (output, Recovered { fragments, tombstoned, elsewhere, unreadable_aside, .. }) =
        (context.output, done);
    if *tombstoned > 0 {
        output.note(&format!(
            "note: {} marked to be deleted, and not looked at",
            text::count(*tombstoned, "pack of manifests is", "packs of manifests are")
        ));
    }
    if *unreadable_aside > 0 {
        output.note(&format!(
            "note: {} in packs that are set aside cannot be read",
            text::count(*unreadable_aside, "frame", "frames")
        ));
    }
    if *elsewhere > 0 {
        output.note(&format!(
            "note: nobody looked at {}: {OTHER_KEY}",
            text::count(*elsewhere, "other domain", "other domains")
        ));
    }
    if *fragments > 0 {
        let of = text::count(*fragments, "part of a manifest", "parts of manifests");
        output.note(&format!(
            "note: {of} with no beginning: backups that were interrupted leave them, and a prune takes them"
        ));
    }
}

/// How to look into another domain.
const OTHER_KEY: &str = "an owner's key that backs up to it is needed, `lifeboat key add --role owner --label NAME --domain \
                         DOMAIN` makes one";

/// Nothing was found, and there may be something where nobody looked.
fn nobody_looked(done: &Recovered) -> Result<()> {
    let Recovered { found, nodes, unlisted, elsewhere, .. } = done;
    let incomplete = |what: &str, remedy: String| {
        Err(Error::new(ErrorKind::Incomplete, what.to_owned()).with_remedy(remedy))
    };
    match (found.is_empty(), *unlisted, *nodes, *elsewhere) {
        (true, 1.., ..) => incomplete(
            "what packs hold that no index lists is not known",
            "Run `lifeboat repair index --apply`, then this again".to_owned(),
        ),
        (true, 0, 0, 1..) => incomplete(
            "there is nothing in the domain of this key, and nobody looked at the others",
            format!("For each other domain: {OTHER_KEY}"),
        ),
        _ => Ok(()),
    }
}

fn tell_one(manifest: &Manifest, outcome: &Outcome, context: &Context<'_>) {
    let output = context.output;
    let Manifest { root, author, label, stored, entries, bytes, sources } = manifest;
    let id = root.to_string();
    let short = id.get(..ID_DIGITS_SHOWN).unwrap_or(&id);
    let becomes = match outcome {
        Outcome::Planned => String::new(),
        Outcome::Made(id) => format!("; it is snapshot {:.8}", id.to_string()),
        Outcome::Damaged(Losses { count, .. }) => {
            format!("; not recovered: {}", text::count(*count, "loss", "losses"))
        }
    };
    let by = label.as_ref().map_or_else(|| author.to_string(), |label| text::shown(label.as_bytes()));
    let paths: Vec<String> = sources.iter().map(|source| text::shown(source)).collect();
    output.say(&format!(
        "{short} by {by}, stored {}: {}, {}, {}{becomes}",
        time::show(*stored, &context.zone),
        text::count(*entries, "entry", "entries"),
        size::show(*bytes),
        paths.join(" ")
    ));
    if let Outcome::Damaged(Losses { named, .. }) = outcome {
        for Lost { path, why } in named {
            output.say(&format!("  {}: {}", text::path(path), text::shown(why.as_bytes())));
            let fields = json!({ "manifest": id, "why": why });
            output.message(&json::with_path(json::message("lost", fields), &json::absolute(path)));
        }
    }
    let (action, snapshot) = match outcome {
        Outcome::Planned => ("would_recover", None),
        Outcome::Made(id) => ("recovered", Some(id.to_string())),
        Outcome::Damaged(_) => ("damaged", None),
    };
    let sources: Vec<_> = sources.iter().map(|source| json::with_path(json!({}), source)).collect();
    let fields = json!({
        "manifest": id,
        "action": action,
        "snapshot": snapshot,
        "identity": author.to_string(),
        "label": label,
        "stored": time::rfc3339(*stored),
        "entries": entries,
        "bytes": bytes,
        "sources": sources,
    });
    output.message(&json::message("manifest", fields));
}
