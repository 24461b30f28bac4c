//! `repair`: lists again what the index has lost, and sets aside what nobody can read.

use std::sync::Arc;

use clap::{Args, Subcommand};
use lifeboat::{
    error::{Error, ErrorKind, Result},
    ops::{
        prune::Packs,
        repair::{
            self, AsideOptions, Copy, Fault, Force, Hurt, IndexDone, Lost, Mode, OfDomain, SnapshotOptions,
            SnapshotsDone, Verdict, after_index,
        },
    },
    report::{json, size, text, time},
};
use serde_json::json;

use super::{snapshots::short, workers};
use crate::context::{Context, end_of_unread};

const AFTER: &str = "\
Nothing is ever deleted, and nothing is written without --apply: first look at what would be done. Everything is read from
the storage and not from the cache. It may be stopped anywhere and run again, beside backups. Needs a key with the
role maintain or owner; snapshots need an owner's. Exit code 3 says that something could not be put right.

Examples:
  lifeboat repair index
  lifeboat repair index --apply
  lifeboat repair snapshots
  lifeboat repair quarantine d/6d61696e00000000/packs/d/1f/1f2e.. --apply";

/// Arguments of `repair`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Repair {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List again the packs that no index lists, and set aside index objects that nobody can read
    Index(Apply),
    /// Copy snapshots that have lost something, without what is lost
    Snapshots(Apply),
    /// Set aside objects that nobody can read: they are treated as not there, and stay where they are
    Quarantine(Quarantine),
}

#[derive(Debug, Args)]
struct Apply {
    /// Do it; else only show what would be done
    #[arg(long)]
    apply: bool,
    /// Only show what would be done, as without --apply
    #[arg(short = 'n', long, conflicts_with = "apply")]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Quarantine {
    /// Names of objects, as `check` shows them
    #[arg(required = true, value_name = "OBJECT")]
    objects: Vec<String>,
    /// Why, for who asks later; else what was found to be wrong
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Also a pack or an index object with which nothing is wrong, or a snapshot that is lost for good
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    apply: Apply,
}

impl Apply {
    const fn mode(&self) -> Mode {
        if self.apply { Mode::Write } else { Mode::DryRun }
    }
}

pub(crate) fn run(arguments: &Repair, context: &Context<'_>) -> Result<()> {
    match &arguments.what {
        What::Index(apply) => {
            let domains = repair::index(&context.open_without_cache()?, apply.mode())?;
            context.end_display();
            tell_index(&domains, apply.mode(), context)
        }
        What::Snapshots(apply) => {
            let program = format!("lifeboat {}", env!("CARGO_PKG_VERSION"));
            let options = SnapshotOptions { mode: apply.mode(), program, workers: workers() };
            let done = repair::snapshots(&Arc::new(context.open_without_cache()?), &options)?;
            context.end_display();
            tell_snapshots(&done, apply.mode(), context)
        }
        What::Quarantine(Quarantine { objects, reason, force, apply }) => {
            let force = if *force { Force::Yes } else { Force::No };
            let (names, mode) = (objects.clone(), apply.mode());
            let options = AsideOptions { names, reason: reason.clone(), force, mode };
            let verdicts = repair::set_aside(&context.open_without_cache()?, &options)?;
            context.end_display();
            tell_aside(&verdicts, mode, context);
            Ok(())
        }
    }
}

/// What all domains come to.
#[derive(Default)]
struct Sum {
    objects: u64,
    packs: u64,
    listed: Packs,
    written: u64,
    set_aside: u64,
    unreadable: u64,
    unvouched: u64,
}

impl Sum {
    fn of(domains: &[OfDomain]) -> Self {
        let mut sum = Self::default();
        for IndexDone { objects, packs, listed, index_written, set_aside, unreadable, unvouched, notes: _ } in
            domains.iter().map(|domain| &domain.done)
        {
            sum.objects += objects;
            sum.packs += packs;
            sum.listed.packs += listed.packs;
            sum.listed.bytes += listed.bytes;
            sum.written += index_written;
            sum.set_aside += set_aside.len() as u64;
            sum.unreadable += unreadable.len() as u64;
            sum.unvouched += unvouched.len() as u64;
        }
        sum
    }

    /// What happened, and what to do next.
    fn line(&self, mode: Mode) -> String {
        let Self { objects, packs, listed, written, set_aside, unreadable, unvouched } = self;
        let objects_of = |count: u64| text::count(count, "index object", "index objects");
        if *written == 0 && *set_aside == 0 {
            let all = text::count(*packs - *unreadable - *unvouched, "pack", "packs");
            let nothing =
                if *unvouched == 0 { "nothing to repair" } else { "nothing that this key can repair" };
            return format!(
                "{nothing}: {} {} {all}",
                objects_of(*objects),
                if *objects == 1 { "lists" } else { "list" }
            );
        }
        let would = if mode == Mode::DryRun { "would be " } else { "" };
        let listed = format!(
            "{} ({}) {would}listed again in {}",
            text::count(listed.packs, "pack", "packs"),
            size::show(listed.bytes),
            objects_of(*written)
        );
        let next = match mode {
            Mode::DryRun => "Nothing was written: --apply does it",
            Mode::Write => "Now run `lifeboat check`",
        };
        format!("{listed}, {} {would}set aside. {next}", objects_of(*set_aside))
    }
}

fn tell_index(domains: &[OfDomain], mode: Mode, context: &Context<'_>) -> Result<()> {
    let output = context.output;
    let sum = Sum::of(domains);
    output.say(&sum.line(mode));
    for OfDomain { id, done, .. } in domains {
        let each = [
            (&done.set_aside, "set_aside", "set aside"),
            (&done.unreadable, "cannot_list", "cannot be listed"),
            (&done.unvouched, "needs_owner", "needs an owner's key"),
        ];
        for (faults, action, what) in each {
            for Fault { object, why } in faults {
                output.say(&format!("  {what}: {}", text::shown(why_of(object, why).as_bytes())));
                let fields =
                    json!({ "domain": id.to_string(), "action": action, "object": object, "why": why });
                output.message(&json::message("repair", fields));
            }
        }
        for note in &done.notes {
            output.note(&format!("  note: {}", text::shown(note.to_string().as_bytes())));
            output.message(&json::message("note", json!({ "message": note.to_string() })));
        }
    }
    output.message(&json::message(
        "summary",
        json!({
            "dry_run": mode == Mode::DryRun,
            "domains": domains.len(),
            "index_objects": sum.objects,
            "packs": sum.packs,
            "packs_listed": sum.listed.packs,
            "bytes_listed": sum.listed.bytes,
            "index_written": sum.written,
            "set_aside": sum.set_aside,
            "unreadable": sum.unreadable,
            "needs_owner": sum.unvouched,
        }),
    ));
    if sum.unvouched > 0 {
        let count = text::count(sum.unvouched, "pack", "packs");
        let what = format!(
            "{count} can be listed only by who reads their contents: the key that signed them was revoked"
        );
        return Err(Error::new(ErrorKind::Incomplete, what).with_remedy(
            "Run `lifeboat repair index --apply` with the owner's passphrase or the recovery words; set nothing aside \
             before",
        ));
    }
    if sum.unreadable == 0 {
        return Ok(());
    }
    let count = text::count(sum.unreadable, "pack", "packs");
    Err(Error::new(ErrorKind::Incomplete, format!("{count} cannot be listed: nobody can say what they hold"))
        .with_remedy(
            "Set them aside with `lifeboat repair quarantine NAME --apply` and back up again: what is still at its \
             source is stored anew",
        ))
}

/// The first line: how many snapshots lack something or rest on what is set aside, and what becomes of them.
fn what_of_snapshots(done: &SnapshotsDone) -> String {
    let SnapshotsDone { hurt, snapshots: all, elsewhere, has_unlisted, .. } = done;
    let all_of = |count| text::count(count, "snapshot", "snapshots");
    if hurt.is_empty() {
        return match (*all, *elsewhere) {
            (0, 1..) => format!("nobody looked at {}: all are of other domains", all_of(*elsewhere)),
            _ => format!(
                "nothing to repair: every pack that {} need is there. What is damaged in packs `lifeboat check --read-data` \
                 finds: then set these aside first",
                all_of(*all)
            ),
        };
    }
    let of = |is: &dyn Fn(&Hurt) -> bool| hurt.iter().filter(|hurt| is(hurt)).count() as u64;
    let made = of(&|hurt| matches!(hurt.copy, Copy::Made(_)));
    let planned = of(&|hurt| hurt.copy == Copy::Planned);
    let (lacking, resting) = (of(&|hurt| hurt.lost > 0), of(&|hurt| hurt.lost == 0));
    let mut has = Vec::new();
    if lacking > 0 {
        let verb = if lacking == 1 { "lacks" } else { "lack" };
        has.push(format!("{lacking} of {} {verb} something", all_of(*all)));
    }
    if resting > 0 {
        let verb = if resting == 1 { "rests" } else { "rest" };
        has.push(format!("{resting} of {} {verb} on packs that are set aside", all_of(*all)));
    }
    let without = match (lacking, resting) {
        (0, _) => ", which stores anew what only these hold",
        (_, 0) => " without it",
        _ => ", without what is lost",
    };
    let becomes = match (made, planned) {
        (0, 0) => "Nothing is left to copy; `lifeboat forget` ends what is not needed any more".to_owned(),
        (0, _) => format!("{planned} would be copied{without}: --apply does it"),
        (1, _) => format!("1 was copied{without}"),
        _ => format!("{made} were copied{without}"),
    };
    format!("{}. {}", has.join(", "), after_index(*has_unlisted, &becomes))
}

fn tell_snapshots(done: &SnapshotsDone, mode: Mode, context: &Context<'_>) -> Result<()> {
    let output = context.output;
    let SnapshotsDone { hurt, snapshots: all, elsewhere, damaged, has_unlisted } = done;
    let first = what_of_snapshots(done);
    let is_elsewhere = *all == 0 && *elsewhere > 0 && damaged.is_empty();
    if !is_elsewhere {
        output.say(&first);
    }
    hurt.iter().for_each(|hurt| tell_hurt(hurt, context));
    damaged.iter().for_each(|error| output.trouble(error));
    if *elsewhere > 0 && !is_elsewhere {
        let snapshots = text::count(*elsewhere, "snapshot", "snapshots");
        let note = format!(
            "nobody looked at {snapshots} of other domains: use an owner's key that backs up to them"
        );
        output.note(&format!("note: {note}"));
        output.message(&json::message("note", json!({ "message": note })));
    }
    let of = |is: &dyn Fn(&Copy) -> bool| hurt.iter().filter(|hurt| is(&hurt.copy)).count();
    let fields = json!({
        "dry_run": mode == Mode::DryRun,
        "snapshots": all,
        "hurt": hurt.iter().filter(|hurt| hurt.lost > 0).count(),
        "on_set_aside": hurt.iter().filter(|hurt| hurt.aside > 0).count(),
        "copied": of(&|copy| matches!(copy, Copy::Made(_))),
        "to_copy": of(&|copy| *copy == Copy::Planned),
        "elsewhere": elsewhere,
        "damaged": damaged.len(),
        "lost": hurt.iter().map(|hurt| hurt.lost).sum::<u64>(),
    });
    output.message(&json::message("summary", fields));
    if !damaged.is_empty() {
        let remedy = "`lifeboat repair quarantine NAME` sets aside what nobody can read";
        return end_of_unread(damaged, ("some snapshots cannot be read or are suspect", remedy));
    }
    if is_elsewhere {
        return Err(Error::new(ErrorKind::Incomplete, first)
            .with_remedy("Use an owner's key that backs up to them: `lifeboat key list` shows the keys"));
    }
    let is_done = |hurt: &Hurt| match hurt.copy {
        Copy::Before(_) => true,
        Copy::Made(_) => hurt.lost == 0,
        Copy::Planned | Copy::Nothing => false,
    };
    if hurt.iter().all(is_done) {
        return Ok(());
    }
    let lacks = hurt.iter().filter(|hurt| hurt.lost > 0).count() as u64;
    let (what, remedy) = if lacks > 0 {
        (
            format!("{} lost something", text::count(lacks, "snapshot has", "snapshots have")),
            "Back up again what is still at its source. A snapshot that is not needed any more ends with `lifeboat forget`, \
             when its copy is there",
        )
    } else {
        (
            "snapshots rest on packs that are set aside".to_owned(),
            "Run it with --apply, and forget nothing before",
        )
    };
    Err(Error::new(ErrorKind::Incomplete, what).with_remedy(after_index(*has_unlisted, remedy)))
}

fn tell_hurt(Hurt { snapshot, lost, named, aside, copy }: &Hurt, context: &Context<'_>) {
    let output = context.output;
    let without = if *lost > 0 { " without what is lost" } else { "" };
    let becomes = match copy {
        Copy::Planned => format!("would be copied{without}"),
        Copy::Made(id) if *lost > 0 => format!("copied{without}: {:.8}", id.to_string()),
        Copy::Made(id) => format!("whole again; the copy that did it: {:.8}", id.to_string()),
        Copy::Before(id) => format!("was copied before: {:.8}", id.to_string()),
        Copy::Nothing => "nothing of it can be read".to_owned(),
    };
    let id = short(snapshot);
    let host = text::shown(snapshot.record.host.as_bytes());
    let time = time::show(snapshot.record.time, &context.zone);
    let mut has = Vec::new();
    if *lost > 0 {
        has.push(text::count(*lost, "loss", "losses"));
    }
    if *aside > 0 {
        has.push(format!("{} only in packs that are set aside", text::count(*aside, "part", "parts")));
    }
    output.say(&format!("{id} of {host}, {time}: {}; {becomes}", has.join(", ")));
    let copy_id = match copy {
        Copy::Made(id) | Copy::Before(id) => Some(id.to_string()),
        Copy::Planned | Copy::Nothing => None,
    };
    for Lost { path, why } in named {
        output.say(&format!("  {}: {}", text::path(path), text::shown(why.as_bytes())));
        let fields = json!({ "snapshot": snapshot.name.id.to_string(), "why": why });
        output.message(&json::with_path(json::message("lost", fields), &json::absolute(path)));
    }
    if *lost > named.len() as u64 {
        output.say(&format!("  and {} more: the copy names each", lost - named.len() as u64));
    }
    let id = snapshot.name.id.to_string();
    let fields = json!({ "snapshot": id, "lost": lost, "on_set_aside": aside, "copy": copy_id });
    output.message(&json::message("repair", fields));
}

/// What is wrong names the object already, most of the time.
fn why_of(object: &str, why: &str) -> String {
    if why.contains(object) { why.to_owned() } else { format!("{object}: {why}") }
}

fn tell_aside(verdicts: &[Verdict], mode: Mode, context: &Context<'_>) {
    let output = context.output;
    let new = verdicts.iter().filter(|verdict| !verdict.already).count() as u64;
    let (objects, before) = (text::count(new, "object", "objects"), verdicts.len() as u64 - new);
    let before = if before > 0 { format!(", {before} were before") } else { String::new() };
    output.say(&match mode {
        _ if new == 0 => "all of them are set aside already: nothing to do".to_owned(),
        Mode::DryRun => format!("{objects} would be set aside{before}. Nothing was written: --apply does it"),
        Mode::Write => format!("{objects} set aside{before}. Nothing was deleted; now run `lifeboat check`"),
    });
    for Verdict { object, why, effect, already } in verdicts {
        output.say(&format!("  {}", text::shown(why_of(object, why).as_bytes())));
        if !already {
            output.say(&format!("    {effect}"));
        }
        let action = if *already { "none" } else { "set_aside" };
        let fields = json!({ "action": action, "object": object, "why": why, "effect": effect });
        output.message(&json::message("repair", fields));
    }
    let fields =
        json!({ "dry_run": mode == Mode::DryRun, "set_aside": new, "already": verdicts.len() as u64 - new });
    output.message(&json::message("summary", fields));
}
