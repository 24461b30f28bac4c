//! `check`: whether a repository is whole.

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    ops::{
        check::{self, CheckOptions, Checked, Coverage, Depth, Policy, Problem, Subset, Witness},
        repair::after_index,
    },
    report::{json, ledger, size, text, time},
};
use serde_json::json;

use super::workers;
use crate::{
    context::{Context, end_of_unread},
    environment,
};

const AFTER: &str = "\
Without flags: the snapshots, manifests and index, and whether every pack is there with its size. With --read-data every
byte of the packs too; a part of them at a time with --read-data-subset: n/t (the n-th of t parts), x% or a size. With
--without-keys anybody can compare the objects with the hashes in their names, on the storage host for example. Exit
code 5 says that there is damage.

Each check of data leaves a signed record of what it read. With --max-age a check reads what, by these records, nobody
has read for so long, the oldest first and not more than --budget: run it every day, and everything is read in time. It
says how much was read within that time, and what was not read for longest. A key with the role audit or maintain
compares hashes. When nothing is due, nothing is read. Exit code 7 says that something is older than it may be, 3 that the
storage refused the record, so that the next run would read the same.

Examples:
  lifeboat check
  lifeboat check --read-data-subset 2/7
  lifeboat check --max-age 30d --budget 20G
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
    /// Read what nobody has read for so long, such as 30d
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["read_data", "read_data_subset", "without_keys"])]
    max_age: Option<String>,
    /// Read so much at most, and the rest another time: 20G
    #[arg(long, value_name = "SIZE", requires = "max_age")]
    budget: Option<String>,
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
        let depth = match arguments.policy()? {
            Some(policy) => Depth::Due(policy),
            None => {
                subset.or(arguments.read_data.then_some(Subset::All)).map_or(Depth::Structure, Depth::Data)
            }
        };
        let (machine, program) = (environment::host(), format!("lifeboat {}", env!("CARGO_PKG_VERSION")));
        let witness = Witness { machine: &machine, program: &program };
        check::run_and_record(&context.open()?, CheckOptions { depth, workers: workers() }, witness)?
    };
    context.end_display();
    report(context, &checked)
}

impl Check {
    /// How old what was read may become.
    fn policy(&self) -> Result<Option<Policy>> {
        let Some(max_age) = &self.max_age else { return Ok(None) };
        let budget = self.budget.as_deref().map(size::parse).transpose()?;
        Ok(Some(Policy { max_age: time::parse_duration(max_age)?, budget }))
    }
}

/// `2/7` and `5%`, or a size.
fn subset(text: &str) -> Result<Subset> {
    if text.contains(['/', '%']) { Subset::parse(text) } else { size::parse(text).map(Subset::Bytes) }
}

/// Whether each run reads what comes next, and everything was read within the time.
fn in_turn(checked: &Checked, coverage: &Coverage) -> Result<()> {
    // It would read the same for ever, and the rest never.
    if let Some(error) = &checked.unrecorded {
        return Err(
            Error::new(ErrorKind::Incomplete, format!("{UNRECORDED}: {error}")).with_remedy(to_record(error))
        );
    }
    if !coverage.is_overdue() {
        return Ok(());
    }
    let max_age = ledger::span(coverage.policy.max_age);
    Err(Error::new(ErrorKind::Overdue, format!("something was not read for more than {max_age}"))
        .with_remedy("Run it again, more often or with a larger --budget: each run reads what is oldest"))
}

fn report(context: &Context<'_>, checked: &Checked) -> Result<()> {
    let output = context.output;
    let Checked { snapshots, nodes, packs, packs_read, bytes_read, attested, .. } = checked;
    let Checked { problems_found, problems, notes, coverage, recorded, sealed, .. } = checked;
    if let Some(error) = &checked.unrecorded {
        output.warn(&format!("{UNRECORDED}: {error}. {}", to_record(error)));
    }
    for problem in problems {
        let Problem { object, what, hurts, remedy: _ } = problem;
        output.say(&format!("{}: {}", text::shown(object.as_bytes()), text::shown(what.as_bytes())));
        for hurt in hurts {
            output.say(&format!("  hurts {}", text::shown(hurt.as_bytes())));
        }
        let remedy = remedy_of(problem);
        let fields =
            json!({ "code": 5, "object": object, "message": what, "hurts": hurts, "remedy": remedy });
        output.message(&json::message("error", fields));
    }
    sealed.iter().for_each(|error| output.trouble(error));
    for note in notes {
        output.note(&format!("note: {}", text::shown(note.as_bytes())));
        output.message(&json::message("note", json!({ "message": note })));
    }
    let idle = coverage.is_some() && *packs == 0;
    if idle {
        output.note("nothing is due, so nothing was read");
    } else {
        output.note(&format!(
            "checked {}, {}, {}; read {} of data in {}",
            text::count(*snapshots, "snapshot", "snapshots"),
            text::count(*nodes, "manifest node", "manifest nodes"),
            text::count(*packs, "pack", "packs"),
            size::show(*bytes_read),
            text::count(*packs_read, "pack", "packs"),
        ));
    }
    if let Some(coverage) = coverage {
        for line in ledger::lines(coverage, output.is_verbose(), &context.zone) {
            output.say(&line);
        }
        for warning in ledger::warnings(coverage) {
            output.warn(&warning);
        }
        ledger::messages(coverage).iter().for_each(|message| output.message(message));
    }
    output.message(&json::message(
        "summary",
        json!({
            "snapshots": snapshots,
            "nodes": nodes,
            "packs": packs,
            "packs_read": packs_read,
            "bytes_read": bytes_read,
            "sections_attested": attested,
            "recorded": recorded,
            "coverage": coverage.as_ref().map(ledger::summary),
            "problems": problems_found,
            "sealed": sealed.len(),
            "lost_index": checked.lost_index,
        }),
    ));
    if *problems_found == 0 {
        if !idle {
            output.note("no damage was found");
        }
        let what = "some snapshots cannot be read, and nobody looked at what they need";
        end_of_unread(sealed, (what, "`lifeboat key list` shows the keys"))?;
        return coverage.as_ref().map_or(Ok(()), |coverage| in_turn(checked, coverage));
    }
    Err(damage(checked, context.common.place.at.is_some()))
}

const UNRECORDED: &str = "what was read is not recorded, so that the next check takes it for unread";

/// What to do where the storage refuses a record.
fn to_record(error: &Error) -> String {
    let remedy = error.remedy().map(|remedy| format!(". {remedy}")).unwrap_or_default();
    format!("Let the storage take what this key writes below `evidence/`, and run it again{remedy}")
}

/// How a check ends that has found something: with what to do, the most careful first.
fn damage(checked: &Checked, is_past: bool) -> Error {
    let Checked { problems_found, problems, .. } = checked;
    let count = text::count(*problems_found, "problem was", "problems were");
    if is_past {
        return Error::new(
            ErrorKind::Damaged,
            format!("{count} found, in the repository as it was at that time"),
        )
        .with_remedy(IN_THE_PAST);
    }
    let mut remedies: Vec<&str> = Vec::new();
    for remedy in problems.iter().map(remedy_of) {
        if !remedies.contains(&remedy) && remedies.len() < REMEDIES_MAX {
            remedies.push(remedy);
        }
    }
    // What several of them say is said once.
    let mut sentences: Vec<&str> = Vec::new();
    for sentence in remedies.iter().flat_map(|remedy| remedy.split(". ")) {
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    let remedy = format!("The lines above name them. {}", sentences.join(". "));
    Error::new(ErrorKind::Damaged, format!("{count} found"))
        .with_remedy(after_index(checked.lost_index, &remedy))
}

/// Nothing is repaired there.
const IN_THE_PAST: &str = "The lines above name them. Another time of `--at` may be whole, `lifeboat restore` with this one gives \
                           what can be read, and `lifeboat check` without it tells what to do about the repository as it is now";

/// Different remedies that the last line names; the JSON has that of each problem.
const REMEDIES_MAX: usize = 4;

/// What to do about a problem, beginning with what gives up least.
fn remedy_of(problem: &Problem) -> &str {
    let Problem { object, what, remedy, .. } = problem;
    let is_of = |part: &str| object.contains(part) || what.contains(part);
    if let Some(remedy) = remedy {
        remedy
    } else if is_of("/packs/") || is_of("/index/") {
        "`lifeboat repair index` lists again what an index object listed, `lifeboat repair quarantine NAME` sets a damaged \
         pack aside. Back up again, or run `lifeboat copy` again if that brought it: what is still at its source is stored \
         anew. `lifeboat repair snapshots` copies each snapshot without what is lost for good"
    } else if is_of("/snapshots/") {
        "Put an older version of a damaged snapshot back if the storage has one; else let `lifeboat recover` with an owner's key \
         make one of what it held, before any prune, and `lifeboat repair quarantine NAME --apply` set it aside: the next backup \
         follows the one before"
    } else if is_of("/annotations/") {
        "It may be a legal hold: put an older version of that object back if the storage has one. Else place the holds again \
         that you know of (`lifeboat hold place`), and only then let `lifeboat repair quarantine NAME --apply` set it aside: \
         what it held can be forgotten from then on"
    } else if object.starts_with("d/") || object == "snapshots" {
        "Put an older version of that object back if the storage has one; else `lifeboat repair quarantine NAME --apply` \
         sets aside what is damaged: then it does not count"
    } else if object == "keys" {
        "With the 24 words `lifeboat key recover` makes a slot; `lifeboat key add` gives others new keys"
    } else if object.starts_with("keys/") {
        "Put an older version of that object back if the storage has one; else delete it with the tools of the storage, and \
         give its owner a new key (`lifeboat key add`) or passphrase (`lifeboat key recover`, with the words)"
    } else if object.starts_with("registry/") {
        "Put an older version of that object back if the storage has one; else `lifeboat key recover --rebuild-config` rebuilds \
         the registry if no other is whole, and then the damaged object can be deleted: a newer one stands for it"
    } else if ["registry", "config", "evidence/"].iter().any(|begin| object.starts_with(begin)) {
        "Put an older version of that object back if the storage has one; `lifeboat key recover --rebuild-config` rebuilds \
         config and registry, `lifeboat key list` shows which keys can still be read"
    } else {
        "Back up again, or run `lifeboat copy` again if that brought it: what is still at its source is stored anew. \
         `lifeboat repair snapshots` copies each snapshot without what is lost for good. After that the old one ends with `lifeboat forget`"
    }
}
