//! `hold`: snapshots that must not end, whatever a rule says.

use clap::{Args, Subcommand};
use lifeboat::{
    error::Result,
    ops::{
        annotate::{self, Lifted, Mode, Placed},
        select::ID_DIGITS_SHOWN,
    },
    report::{
        json,
        table::{Side, Table},
        text, time,
    },
    repository::{Repository, annotations::Hold, snapshots::KnownSnapshot},
};
use serde_json::{Value, json};

use super::{snapshots::short, tag};
use crate::{
    args::FilterArguments,
    context::{Context, end_of_unread},
};

const AFTER: &str = "\
`forget` leaves a snapshot that is held alone, and `prune` its data, until every hold on it was lifted. A maintain, restore or
owner key places a hold; only an owner lifts one, not the machine that forgets every night. It keeps people and programs from
a mistake. Against somebody who may delete in the bucket only a lock of the storage helps.

Examples:
  lifeboat hold place 4f2a91c0 --reason 'case 2026-17'
  lifeboat hold place --host web1 --reason 'audit of June'
  lifeboat hold list
  lifeboat hold lift 4f2a91c0 --reason 'case closed'";

/// Arguments of `hold`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct HoldCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Keep snapshots from being forgotten
    Place(Place),
    /// Say that a hold is over; takes an owner's key
    Lift(Lift),
    /// List the snapshots that are held, and why
    List(FilterArguments),
}

#[derive(Debug, Args)]
struct Place {
    #[command(flatten)]
    which: tag::Which,
    /// Why, for who asks later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Only show what would be held
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Lift {
    #[command(flatten)]
    which: tag::Which,
    /// Why, for who asks later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Only these holds, by the first digits of their ids; needed where a snapshot has several
    #[arg(long = "hold", value_name = "ID")]
    only: Vec<String>,
    /// Only show what would be lifted
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl HoldCommand {
    /// Whether it only reads.
    pub(crate) const fn only_reads(&self) -> bool {
        matches!(self.what, What::List(_))
    }
}

pub(crate) fn run(arguments: &HoldCommand, context: &Context<'_>) -> Result<()> {
    let mode = |dry_run| if dry_run { Mode::DryRun } else { Mode::Write };
    match &arguments.what {
        What::Place(Place { which, reason, dry_run }) => {
            let (which, repository) = (which.chosen()?, context.open()?);
            let placed = annotate::place(&repository, &which, reason, mode(*dry_run))?;
            context.end_display();
            tell_placed(&placed, reason, (mode(*dry_run), context));
            tag::end(&placed.damaged, context)
        }
        What::Lift(Lift { which, reason, only, dry_run }) => {
            let (which, repository) = (which.chosen()?, context.open()?);
            let lifted = annotate::lift(&repository, &which, (only, reason), mode(*dry_run))?;
            context.end_display();
            tell_lifted(&repository, &lifted, (mode(*dry_run), context));
            tag::end(&lifted.damaged, context)
        }
        What::List(filter) => list(filter, context),
    }
}

fn tell_placed(placed: &Placed, reason: &str, (mode, context): (Mode, &Context<'_>)) {
    let (output, is_dry) = (context.output, mode == Mode::DryRun);
    let would = if is_dry { "would be held" } else { "held" };
    for known in &placed.held {
        output.say(&format!("{}: {would}: {}", short(known), text::shown(reason.as_bytes())));
        let is_ended = placed.ended.contains(&known.name.id);
        if is_ended {
            output.warn(&format!(
                "a forget ended {} at the same time: it is there, and the hold counts, unless that forget still runs and \
                 deletes it. Look again with `lifeboat hold list`",
                short(known)
            ));
        }
        let id = known.name.id.to_string();
        let fields = json!({ "id": id, "short_id": short(known), "reason": reason, "ended": is_ended });
        output.message(&json::message("held", fields));
    }
    let count = placed.held.len() as u64;
    output.note(&format!("{} {would}", text::count(count, "snapshot", "snapshots")));
    let fields = json!({ "dry_run": is_dry, "held": count, "damaged": placed.damaged.len() });
    output.message(&json::message("summary", fields));
}

fn tell_lifted(repository: &Repository, lifted: &Lifted, (mode, context): (Mode, &Context<'_>)) {
    let (output, is_dry) = (context.output, mode == Mode::DryRun);
    for (known, holds, others) in &lifted.lifted {
        for hold in holds {
            let more = if *others == 0 { String::new() } else { format!("; {others} other holds stay") };
            let reason = text::shown(hold.reason.as_bytes());
            let longer = if is_dry { "would no longer be held" } else { "no longer held" };
            output.say(&format!("{}: {longer}: {reason}{more}", short(known)));
            output.message(&message("lifted", known, (hold, &who(repository, hold))));
        }
    }
    let count = lifted.lifted.len() as u64;
    let of = text::count(count, "snapshot", "snapshots");
    let would = if is_dry { "would be lifted" } else { "lifted" };
    output.note(&format!("holds of {of} {would}"));
    let fields = json!({ "dry_run": is_dry, "lifted": count, "damaged": lifted.damaged.len() });
    output.message(&json::message("summary", fields));
}

fn list(filter: &FilterArguments, context: &Context<'_>) -> Result<()> {
    filter.refuse_empty()?;
    let repository = context.open()?;
    let mut every = repository.every_snapshot()?;
    context.end_display();
    let damaged: Vec<_> = std::mem::take(&mut every.damaged).into_iter().map(|(_, error)| error).collect();
    damaged.iter().for_each(|error| context.output.trouble(error));
    let filter = filter.filter();
    let mut snapshots = every.all();
    snapshots.retain(|known| filter.matches(known) && !known.holds.is_empty());
    let mut table = Table::new(&[
        ("ID", Side::Left),
        ("Time", Side::Left),
        ("Host", Side::Left),
        ("Hold", Side::Left),
        ("Since", Side::Left),
        ("By", Side::Left),
        ("Reason", Side::Left),
    ]);
    for known in &snapshots {
        for hold in &known.holds {
            let by = who(&repository, hold);
            context.output.message(&message("hold", known, (hold, &by)));
            table.row(vec![
                short(known),
                time::show(known.record.time, &context.zone),
                text::shown(known.record.host.as_bytes()),
                hold.id.to_string().chars().take(ID_DIGITS_SHOWN).collect(),
                time::show(hold.time, &context.zone),
                text::shown(by.as_bytes()),
                text::shown(hold.reason.as_bytes()),
            ]);
        }
    }
    let count = snapshots.len() as u64;
    context.output.message(&json::message("summary", json!({ "held": count, "damaged": damaged.len() })));
    if count > 0 {
        table.lines(context.output.width()).iter().for_each(|line| context.output.say(line));
    }
    context.output.note(&format!("{} held", text::count(count, "snapshot", "snapshots")));
    let what = "there may be more holds: something cannot be read";
    end_of_unread(&damaged, (what, "`lifeboat check` tells what is damaged"))
}

/// The label of whoever placed it.
fn who(repository: &Repository, hold: &Hold) -> String {
    let registry = repository.registry();
    registry.certificate(&hold.by).map_or_else(|| hold.by.to_string(), |known| known.label.clone())
}

fn message(kind: &str, known: &KnownSnapshot, (hold, by): (&Hold, &str)) -> Value {
    let fields = json!({
        "id": known.name.id.to_string(),
        "short_id": short(known),
        "host": known.record.host,
        "hold": hold.id.to_string(),
        "since": time::rfc3339(hold.time),
        "by": by,
        "reason": hold.reason,
    });
    json::message(kind, fields)
}
