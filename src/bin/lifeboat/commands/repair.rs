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
        let (trouble, nothing) = (self.trouble(), self.nothing());
        if *written == 0 && *set_aside == 0 {
            let all = text::count(*packs - *unreadable - *unvouched, "pack", "packs");
            let list = if *objects == 1 { "lists" } else { "list" };
            return format!("{trouble}{nothing}: {} {list} {all}", objects_of(*objects));
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
        format!("{trouble}{listed}, {} {would}set aside. {next}", objects_of(*set_aside))
    }

    /// What cannot be put right here, before all that can: the advice is in the last line.
    fn trouble(&self) -> String {
        let packs = text::count(self.unreadable, "pack", "packs");
        match (self.unreadable, self.unvouched) {
            (0, _) => String::new(),
            (1, 0) => format!("{packs} cannot be listed and has to be set aside, as the last line says; "),
            (_, 0) => format!("{packs} cannot be listed and have to be set aside, as the last line says; "),
            // What another key can list comes first.
            _ => format!("{packs} cannot be listed; "),
        }
    }

    const fn nothing(&self) -> &'static str {
        match (self.unreadable, self.unvouched) {
            (0, 0) => "nothing to repair",
            (_, 0) => "nothing else to repair",
            (0, _) => "nothing that this key can repair",
            _ => "nothing else that this key can repair",
        }
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
fn what_of_snapshots(done: &SnapshotsDone, mode: Mode) -> String {
    let SnapshotsDone { hurt, snapshots: all, has_unlisted, moved, .. } = done;
    let all = text::count(*all, "snapshot", "snapshots");
    if hurt.is_empty() {
        return format!(
            "nothing to repair: no pack that snapshots need is missing ({all}). What is damaged in packs `lifeboat check \
             --read-data` finds: then set these aside first"
        );
    }
    let of = |is: &dyn Fn(&Hurt) -> bool| hurt.iter().filter(|hurt| is(hurt)).count() as u64;
    let verb = |count: u64, one: &str, many: &str| {
        format!("{count} of {all} {}", if count == 1 { one } else { many })
    };
    let (lacking, resting) = (of(&|hurt| hurt.lost > 0), of(&|hurt| hurt.aside > 0));
    let mut said = Vec::new();
    if resting > 0 {
        let packs = "on packs that are set aside or of another size";
        let rest = verb(resting, &format!("rests {packs}"), &format!("rest {packs}"));
        said.push(match mode {
            Mode::DryRun => format!("{rest}: what is needed of these would be stored anew, --apply does it"),
            Mode::Write => {
                let packs = text::count(moved.packs, "pack", "packs");
                format!("{rest}: what is needed of these was stored anew in {packs}")
            }
        });
    }
    if lacking > 0 {
        said.push(verb(lacking, "lacks something", "lack something"));
        let made = of(&|hurt| matches!(hurt.copy, Copy::Made(_)));
        let planned = of(&|hurt| hurt.copy == Copy::Planned);
        said.push(match (made, planned) {
            (0, 0) if of(&|hurt| hurt.copy == Copy::Elsewhere) > 0 => {
                "This key makes no copies in other domains".to_owned()
            }
            (0, 0) => "Nothing is left to copy".to_owned(),
            (0, _) => format!("{planned} would be copied without it: --apply does it"),
            (1, _) => "1 was copied without it".to_owned(),
            _ => format!("{made} were copied without it"),
        });
    }
    after_index(*has_unlisted, &said.join(". "))
}

fn tell_snapshots(done: &SnapshotsDone, mode: Mode, context: &Context<'_>) -> Result<()> {
    let output = context.output;
    let SnapshotsDone { hurt, snapshots: all, damaged, has_unlisted, moved } = done;
    output.say(&what_of_snapshots(done, mode));
    hurt.iter().for_each(|hurt| tell_hurt(hurt, mode, context));
    damaged.iter().for_each(|error| output.trouble(error));
    let of = |is: &dyn Fn(&Copy) -> bool| hurt.iter().filter(|hurt| is(&hurt.copy)).count() as u64;
    let elsewhere = of(&|copy| *copy == Copy::Elsewhere);
    let lacking = hurt.iter().filter(|hurt| hurt.lost > 0).count() as u64;
    let fields = json!({
        "dry_run": mode == Mode::DryRun,
        "snapshots": all,
        "hurt": lacking,
        "on_set_aside": hurt.iter().filter(|hurt| hurt.aside > 0).count(),
        "packs_moved": moved.packs,
        "bytes_moved": moved.bytes,
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
    let is_done = |hurt: &Hurt| match hurt.copy {
        Copy::Before(_) | Copy::Needless => hurt.aside == 0 || mode == Mode::Write,
        Copy::Made(_) | Copy::Planned | Copy::Nothing | Copy::Elsewhere => false,
    };
    if hurt.iter().all(is_done) {
        return Ok(());
    }
    let is_planned =
        mode == Mode::DryRun && hurt.iter().any(|hurt| hurt.aside > 0 || hurt.copy == Copy::Planned);
    let (what, remedy) = if is_planned {
        let what = text::count(hurt.len() as u64, "snapshot is not whole", "snapshots are not whole");
        let remedy =
            "Run it with --apply, and forget nothing before. Back up again what is still at its source";
        (what, remedy.to_owned())
    } else if lacking > 0 {
        let what = format!("{} lost something", text::count(lacking, "snapshot has", "snapshots have"));
        let others = if elsewhere > 0 { format!(". {OF_OTHER_DOMAINS}") } else { String::new() };
        (what, nothing_better(hurt) + &others)
    } else {
        ("some snapshots cannot be made whole".to_owned(), nothing_better(hurt))
    };
    Err(Error::new(ErrorKind::Incomplete, what).with_remedy(after_index(*has_unlisted, &remedy)))
}

/// What to do about what is lost: an old snapshot may still give something of it.
fn nothing_better(hurt: &[Hurt]) -> String {
    let lacking = || hurt.iter().filter(|hurt| hurt.lost > 0);
    let is_nothing = |hurt: &Hurt| hurt.copy == Copy::Nothing;
    let parts = if lacking().all(is_nothing) { "" } else { STILL_GIVES };
    let nothing = if lacking().any(is_nothing) { NOTHING_GIVES } else { "" };
    format!("Back up again what is still at its source{parts}{nothing}")
}

const STILL_GIVES: &str = ". The old snapshot still gives what is good of each file that is hurt, as NAME.damaged: only when \
                           nobody needs that, end it with `lifeboat forget`";
const NOTHING_GIVES: &str = ". A snapshot of which nothing can be read gives nothing: put older versions of the objects back \
                             that `lifeboat check` names, if the storage has some; else end it with `lifeboat forget`";
const OF_OTHER_DOMAINS: &str = "Those of other domains are copied with an owner's key of theirs: `lifeboat key add --role owner \
                                --label NAME --domain DOMAIN` makes one";

fn tell_hurt(hurt: &Hurt, mode: Mode, context: &Context<'_>) {
    let Hurt { snapshot, domain, lost, named, aside, copy } = hurt;
    let output = context.output;
    let becomes = match (copy, mode) {
        (Copy::Needless, Mode::DryRun) => "nothing is lost".to_owned(),
        (Copy::Needless, Mode::Write) => "it is whole again".to_owned(),
        (Copy::Planned, _) => "would be copied without what is lost".to_owned(),
        (Copy::Made(id), _) => format!("copied without what is lost: {:.8}", id.to_string()),
        (Copy::Before(id), _) => format!("was copied before: {:.8}", id.to_string()),
        (Copy::Nothing, _) => "nothing of it can be read".to_owned(),
        (Copy::Elsewhere, _) => {
            format!(
                "no copy is made, since this key does not back up to the domain `{}`",
                text::shown(domain.as_bytes())
            )
        }
    };
    let id = short(snapshot);
    let host = text::shown(snapshot.record.host.as_bytes());
    let time = time::show(snapshot.record.time, &context.zone);
    let mut has = Vec::new();
    if *lost > 0 {
        has.push(text::count(*lost, "loss", "losses"));
    }
    if *aside > 0 {
        let frames = text::count(*aside, "frame", "frames");
        has.push(format!("{frames} only in packs that are set aside or of another size"));
    }
    output.say(&format!("{id} of {host}, {time}: {}; {becomes}", has.join(", ")));
    let copy_id = match copy {
        Copy::Made(id) | Copy::Before(id) => Some(id.to_string()),
        Copy::Needless | Copy::Planned | Copy::Nothing | Copy::Elsewhere => None,
    };
    for Lost { path, why } in named {
        output.say(&format!("  {}: {}", text::path(path), text::shown(why.as_bytes())));
        let fields = json!({ "snapshot": snapshot.name.id.to_string(), "why": why });
        output.message(&json::with_path(json::message("lost", fields), &json::absolute(path)));
    }
    if *lost > named.len() as u64 {
        let names_each = if copy_id.is_some() { ": the copy names each" } else { "" };
        output.say(&format!("  and {} more{names_each}", lost - named.len() as u64));
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
