//! `status`: who backed up when, and who fell silent.

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    ops::status::{self, Limits, Status as Found},
    report::{json, ledger, status as report, text, time},
    repository::Repository,
};
use serde_json::json;

use crate::{
    context::Context,
    profile::{Settings, Slot, Way},
};

const AFTER: &str = "\
Needs a key that reads snapshots: audit, maintain, restore or owner. A machine with a backup key sees what it remembers
of its own backups. Ages are measured by the times that the storage gave, against the clock of this machine. Exit code 7
says that somebody is overdue: no complete backup within --max-age. Revoked keys are left out. Legal holds follow, and
how much of the data was read by a `check` (with -v: which part when by whom), which changes no exit code.

Examples:
  lifeboat status
  lifeboat status --max-age 8d
  lifeboat status --json";

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Status {
    /// How old the last complete backup of a client may be, such as 26h or 8d [default: that of the profile, else 26h]
    #[arg(long, value_name = "DURATION")]
    max_age: Option<String>,
    /// How long ago a check may have read something to count as checked
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    checked_within: String,
}

/// A night's backup, with time for one that is late.
const MAX_AGE: &str = "26h";

impl Status {
    /// Fills in what the profile says.
    pub(crate) fn settle(&mut self, settings: &mut Settings) {
        let way = Way("max-age", "--max-age", Slot::Text(&mut self.max_age));
        settings.settle(&mut [way], &[], Some(MAX_AGE));
    }
}

pub(crate) fn run(arguments: &Status, context: &Context<'_>) -> Result<()> {
    let max_age = time::parse_duration(arguments.max_age.as_deref().unwrap_or(MAX_AGE))?;
    let repository = context.open()?;
    if !repository.reads_metadata() {
        context.end_display();
        return remembered(&repository, context);
    }
    let limits =
        Limits { backup: &|_| Some(max_age), reading: time::parse_duration(&arguments.checked_within)? };
    let found = status::run(&repository, &limits)?;
    context.end_display();
    let output = context.output;
    output.say(&report::headline(&found));
    for line in report::table(&found, &context.zone).lines(output.width()) {
        output.say(&line);
    }
    if found.revoked > 0 {
        let keys = text::count(found.revoked, "revoked key is", "revoked keys are");
        output.note(&format!("{keys} left out"));
    }
    report::holds(&found, &context.zone).iter().for_each(|line| output.say(line));
    if found.coverage.bytes > 0 {
        output.say("checked:");
        for line in ledger::lines(&found.coverage, output.is_verbose(), &context.zone) {
            output.say(&format!("  {line}"));
        }
    }
    found.notes.iter().for_each(|note| output.note(&format!("note: {}", text::shown(note.as_bytes()))));
    for client in &found.clients {
        output.message(&report::message(&found, client));
    }
    report::hold_messages(&found).iter().for_each(|message| output.message(message));
    ledger::messages(&found.coverage).iter().for_each(|message| output.message(message));
    for error in &found.damaged {
        output.trouble(error);
    }
    output.message(&report::summary(&found));
    end(&found)
}

fn end(found: &Found) -> Result<()> {
    if !found.damaged.is_empty() {
        return Err(Error::new(ErrorKind::Damaged, "some snapshots or runs cannot be read")
            .with_remedy("The lines above name them; `lifeboat check` tells what is damaged"));
    }
    let overdue = found.clients.iter().filter(|client| client.overdue).count() as u64;
    if overdue == 0 {
        return Ok(());
    }
    let of = text::count(found.clients.len() as u64, "client is", "clients are");
    Err(Error::new(ErrorKind::Overdue, format!("{overdue} of {of} overdue"))
        .with_remedy("Look at the journal of their backups, or whether these machines are still there"))
}

/// What a machine that may not read the repository can say: what it remembers.
fn remembered(repository: &Repository, context: &Context<'_>) -> Result<()> {
    let output = context.output;
    let history = repository.cache.history();
    if history.is_empty() {
        output.note("this machine remembers no backup of its own");
    }
    for past in &history {
        output.say(&report::past(past, &context.zone));
        let fields = serde_json::to_value(past).unwrap_or_else(|_unlikely| json!({}));
        output.message(&json::message("past", fields));
    }
    Err(repository.forbidden("see how other clients stand", "audit"))
}
