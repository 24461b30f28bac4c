//! `prune`: frees what no snapshot needs.

use std::collections::HashMap;

use clap::Args;
use lifeboat::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    ops::prune::{self, DomainDone, Kept, Mode, OfDomain, Packs, PruneOptions, Pruned, Size, Unused},
    report::{json, size, text, time},
    repository::Repository,
    store::{Name, Parsed},
};
use serde_json::{Value, json};

use crate::{context::Context, environment};

const AFTER: &str = "\
What no snapshot needs is marked first. A later run deletes it, when the marks are older than the grace (72 hours unless
`init` said otherwise) and nothing needs it after all. So run it regularly, for example once a day, beside any backups;
it may be stopped at any time, and the next run carries on. If something that is needed is in doubt nothing more is done
in that domain (exit code 5). Where the storage refuses to delete, because of a lock or its policy, everything else is
done and the next run tries again (exit code 3). Needs a key with the role maintain or owner.

Examples:
  lifeboat prune --dry-run
  lifeboat prune
  lifeboat prune --max-time 2h";

/// Arguments of `prune`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Prune {
    /// Only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Wait longer than the grace of the repository before a marked pack is deleted
    #[arg(long, value_name = "SPAN")]
    grace: Option<String>,
    /// Begin nothing more after so long; each domain gets an equal share of what is left
    #[arg(long, value_name = "SPAN")]
    max_time: Option<String>,
    /// Unused bytes that may stay in packs that are needed: 5%, 10G or unlimited
    #[arg(long, value_name = "LIMIT", default_value = "5%")]
    max_unused: String,
    /// Move at most so many bytes out of packs of which little is needed: 10G
    #[arg(long, value_name = "SIZE")]
    max_repack: Option<String>,
}

/// `5%`, a size, or `unlimited`.
fn unused(text: &str) -> Result<Unused> {
    match text.strip_suffix('%') {
        Some(number) => {
            let percent = number.parse().ok().filter(|percent| *percent <= 100).map(Unused::Percent);
            percent.ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("{text} is no percentage"))
                    .with_remedy("Give a whole number up to 100 and a percent sign, as 5%")
            })
        }
        None if text == "unlimited" => Ok(Unused::Any),
        None => size::parse(text).map(Unused::Bytes),
    }
}

pub(crate) fn run(arguments: &Prune, context: &Context<'_>) -> Result<()> {
    let span = |text: &Option<String>| text.as_deref().map(time::parse_duration).transpose();
    let options = PruneOptions {
        grace: span(&arguments.grace)?,
        max_time: span(&arguments.max_time)?,
        max_unused: unused(&arguments.max_unused)?,
        max_repack: arguments.max_repack.as_deref().map(size::parse).transpose()?,
        mode: if arguments.dry_run { Mode::DryRun } else { Mode::Write },
        host: environment::host(),
        ..PruneOptions::default()
    };
    run_on(&context.open()?, &options, context)
}

/// As the command does without options, on a repository that is open.
pub(super) fn run_after(repository: &Repository, mode: Mode, context: &Context<'_>) -> Result<()> {
    let options = PruneOptions { mode, host: environment::host(), ..PruneOptions::default() };
    run_on(repository, &options, context)
}

fn run_on(repository: &Repository, options: &PruneOptions, context: &Context<'_>) -> Result<()> {
    let pruned = prune::run(repository, options)?;
    context.end_display();
    let output = context.output;
    let kept = AllKept::of(&pruned);
    if let Some(line) = kept.line(context) {
        output.say(&line);
    }
    for OfDomain { name, done, refused, .. } in &pruned.domains {
        let is_whole = refused.is_none() && !done.out_of_time || done.after.packs.packs > 0;
        tell(name, (done, is_whole), (options.mode, context));
        if let Some(error) = refused {
            output.trouble(error);
        }
    }
    for domain in &pruned.domains {
        output.message(&message(domain, options.mode));
    }
    let refused = pruned.domains.iter().filter(|domain| domain.refused.is_some());
    let (refused, deleted) =
        refused.fold((0, 0), |(count, packs), domain| (count + 1, packs + domain.done.deleted.packs));
    output.message(&summary(&pruned, (options.mode, refused), &kept));
    if let Some(error) = pruned.stopped {
        return Err(error);
    }
    if refused == 0 {
        return kept.end();
    }
    let count = text::count(refused as u64, "domain", "domains");
    let done = match deleted {
        0 => "Nothing was deleted there".to_owned(),
        packs => format!(
            "What nobody needs was deleted there ({}), and nothing else",
            text::count(packs, "pack", "packs")
        ),
    };
    let kinds = pruned.domains.iter().filter_map(|domain| domain.refused.as_ref()).map(Error::kind);
    // What only another key can read is no damage.
    let kind = match kinds.into_iter().all(|kind| kind == ErrorKind::Forbidden) {
        true => ErrorKind::Forbidden,
        false => ErrorKind::Damaged,
    };
    Err(Error::new(kind, format!("{count} could not be pruned to the end: something there is in doubt"))
        .with_remedy(format!("{done}. Follow what is said above, then run it again")))
}

/// What the storage refused to delete, in all domains.
#[derive(Default)]
struct AllKept {
    packs: Packs,
    others: u64,
    next_try: Option<Timestamp>,
}

impl AllKept {
    fn of(pruned: &Pruned) -> Self {
        let mut all = Self::default();
        for kept in pruned.domains.iter().map(|domain| &domain.done.kept) {
            all.packs.join(kept.packs);
            all.others += kept.others;
            all.next_try = all.next_try.into_iter().chain(kept.next_try).min();
        }
        all
    }

    const fn any(&self) -> bool {
        self.packs.packs > 0 || self.others > 0
    }

    /// What happened, and what to do.
    fn line(&self, context: &Context<'_>) -> Option<String> {
        if !self.any() {
            return None;
        }
        let others = text::count(self.others, "other object", "other objects");
        let what = match (self.packs.packs, self.others) {
            (0, _) => others,
            (_, 0) => shown(self.packs),
            _ => format!("{} and {others}", shown(self.packs)),
        };
        let again = self.next_try.map_or_else(
            || "the next run tries again".to_owned(),
            |next| format!("it makes sense to try again from {}", time::show(next, &context.zone)),
        );
        Some(format!(
            "the storage keeps {what} that nobody needs: it refuses to delete what is locked until its retention \
             ends, or what its policy protects. Nothing is lost, and everything else is done; {again}"
        ))
    }

    fn end(&self) -> Result<()> {
        if !self.any() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Incomplete, "the storage refused to delete some of what nobody needs")
            .with_remedy("If it has no lock, give this key the storage policy of its role: `lifeboat key add` prints it"))
    }
}

fn shown(packs: Packs) -> String {
    format!("{} ({})", text::count(packs.packs, "pack", "packs"), size::show(packs.bytes))
}

/// What was done in a domain; of one that was not seen to its end only what is known for certain.
fn tell(name: &str, (done, is_whole): (&DomainDone, bool), (mode, context): (Mode, &Context<'_>)) {
    let output = context.output;
    let sized = |size: &Size| {
        format!("{}, {} to look at", shown(size.packs), text::count(size.requests, "request", "requests"))
    };
    let name = text::shown(name.as_bytes());
    output.say(&match is_whole {
        true => format!("{name}: {} before; {} after", sized(&done.before), sized(&done.after)),
        false => format!("{name}: not pruned to the end"),
    });
    let would = if mode == Mode::DryRun { "would be " } else { "" };
    let DomainDone { deleted, rescued, repacked, marked, waiting, under_way, .. } = done;
    for (packs, what) in [
        (deleted, "deleted"),
        (rescued, "saved from, since something in them is needed again, or what stood for it is damaged"),
        (repacked, "replaced by new ones with what is needed of them"),
        (marked, "marked to be deleted when the grace is over"),
    ] {
        if packs.packs > 0 {
            output.say(&format!("  {} {would}{what}", shown(*packs)));
        }
    }
    for (packs, what) in [
        (waiting, "marked before, whose grace is not over"),
        (under_way, "left alone: they seem to be those of a backup that runs"),
    ] {
        if packs.packs > 0 {
            output.say(&format!("  {} {what}", shown(*packs)));
        }
    }
    if let Some(from) = done.next_marking {
        let (packs, from) = (shown(done.young), time::show(from, &context.zone));
        output
            .say(&format!("  {packs} that nothing needs wait for their age: they can be marked from {from}"));
    }
    let Kept { packs, others, oldest, why, .. } = &done.kept;
    if packs.packs > 0 {
        let since = oldest.map_or_else(String::new, |oldest| time::show(oldest, &context.zone));
        output.say(&format!("  {} kept by the storage, the oldest since {since}", shown(*packs)));
    }
    if *others > 0 {
        let objects = text::count(*others, "other object", "other objects");
        output.say(&format!("  {objects} kept by the storage: they count for nothing any more"));
    }
    if let Some(why) = why {
        output.note(&format!("  the storage says: {why}"));
    }
    if done.unused > 0 {
        output.say(&format!("  {} unused in packs that stay", size::show(done.unused)));
    }
    if done.pinned > 0 {
        output.say(&format!(
            "  {} unused in frames that hold something else too: a prune with an owner's key cuts them out",
            size::show(done.pinned)
        ));
    }
    if done.finished > 0 {
        let snapshots = text::count(done.finished, "snapshot", "snapshots");
        output.say(&format!("  {snapshots} deleted that a forget had ended"));
    }
    if done.out_of_time {
        output.say("  the time was up: the next run carries on");
    }
    for note in note_lines(&done.notes) {
        output.note(&format!("  note: {note}"));
    }
    if let Some(next) = done.next_deletion {
        output.say(&format!("  more can be deleted from {}", time::show(next, &context.zone)));
    }
}

/// Notes that differ by the name of a pack alone are one line, with how many they are: a crowd of packs hides nothing else.
fn note_lines(notes: &[Error]) -> Vec<String> {
    let mut alike: Vec<(String, u64)> = Vec::new();
    let mut places = HashMap::new();
    for note in notes.iter().map(ToString::to_string) {
        let place = *places.entry(without_packs(&note)).or_insert(alike.len());
        match alike.get_mut(place) {
            Some((_, more)) => *more += 1,
            None => alike.push((note, 0)),
        }
    }
    let line = |(note, more)| match more {
        0 => note,
        _ => {
            let more = text::count(more, "more pack", "more packs");
            format!("{note}. The same of {more}: `--json` names each")
        }
    };
    alike.into_iter().map(line).collect()
}

/// A text without the names of packs in it.
fn without_packs(text: &str) -> String {
    let word = |word: &str| {
        let name = Name::parse(word.trim_end_matches([',', ':', ';', '.']));
        match name.as_ref().map(Name::parsed) {
            Some(Parsed::Pack { .. }) => "a pack".to_owned(),
            _ => word.to_owned(),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn packs(packs: Packs) -> Value {
    json!({ "packs": packs.packs, "bytes": packs.bytes })
}

fn kept(Kept { packs: of_packs, others, oldest, next_try, why }: &Kept) -> Value {
    json!({
        "packs": of_packs.packs,
        "bytes": of_packs.bytes,
        "others": others,
        "oldest": oldest.map(time::rfc3339),
        "next_try": next_try.map(time::rfc3339),
        "why": why.as_ref().map(ToString::to_string),
    })
}

fn sized(size: &Size) -> Value {
    json!({ "packs": size.packs.packs, "bytes": size.packs.bytes, "requests": size.requests })
}

fn message(OfDomain { id, name, done, refused }: &OfDomain, mode: Mode) -> Value {
    let mut fields = json!({
        "domain": id.to_string(),
        "name": name,
        "dry_run": mode == Mode::DryRun,
    });
    let more = json!({
        "snapshots": done.snapshots,
        "before": sized(&done.before),
        "after": sized(&done.after),
        "deleted": packs(done.deleted),
        "kept_by_storage": kept(&done.kept),
        "rescued": packs(done.rescued),
        "repacked": packs(done.repacked),
        "bytes_moved": done.moved,
        "frames_cut": done.cut,
        "written": packs(done.written),
        "bytes_unused": done.unused,
        "bytes_pinned": done.pinned,
        "marked": packs(done.marked),
        "waiting": packs(done.waiting),
        "under_way": packs(done.under_way),
        "young": packs(done.young),
        "index_written": done.index_written,
        "index_deleted": done.index_deleted,
        "records_deleted": done.records_deleted,
        "snapshots_finished": done.finished,
        "next_marking": done.next_marking.map(time::rfc3339),
        "next_deletion": done.next_deletion.map(time::rfc3339),
        "out_of_time": done.out_of_time,
        "notes": done.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    let refused =
        refused.as_ref().map(|error| json!({ "refused": error.to_string(), "remedy": error.remedy() }));
    if let (Value::Object(fields), Some(Value::Object(refused))) = (&mut fields, refused) {
        fields.extend(refused);
    }
    if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
        fields.extend(more);
    }
    json::message("prune", fields)
}

fn summary(pruned: &Pruned, (mode, refused): (Mode, usize), kept: &AllKept) -> Value {
    let all = || pruned.domains.iter().map(|domain| &domain.done);
    let sum = |of: fn(&DomainDone) -> Packs| {
        let mut sum = Packs::default();
        all().map(of).for_each(|one| sum.join(one));
        packs(sum)
    };
    json::message(
        "summary",
        json!({
            "dry_run": mode == Mode::DryRun,
            "domains": pruned.domains.len(),
            "refused": refused,
            "deleted": sum(|done| done.deleted),
            "kept_by_storage": {
                "packs": kept.packs.packs,
                "bytes": kept.packs.bytes,
                "others": kept.others,
                "next_try": kept.next_try.map(time::rfc3339),
            },
            "rescued": sum(|done| done.rescued),
            "repacked": sum(|done| done.repacked),
            "marked": sum(|done| done.marked),
            "waiting": sum(|done| done.waiting),
            "young": sum(|done| done.young),
            "next_marking": all().filter_map(|done| done.next_marking).min().map(time::rfc3339),
            "next_deletion": all().filter_map(|done| done.next_deletion).min().map(time::rfc3339),
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_that_differ_by_the_pack_alone_are_one_line_with_a_count() {
        let pack = |number: u8, kind: char| {
            format!("d/0123456789abcdef/packs/{kind}/{number:02x}/{number:02x}{}", "0".repeat(62))
        };
        let stays = |number| format!("{}, which was to die, stays: its copies are bad", pack(number, 'd'));
        let damaged = |number| format!("a pack: {} is damaged: frame {number}", pack(1, 'm'));
        let lines = |notes: &[String]| {
            let notes = notes.iter().map(|note| Error::new(ErrorKind::Failed, note.as_str()));
            note_lines(&notes.collect::<Vec<_>>())
        };
        let notes: Vec<String> = (0..90).map(stays).chain([damaged(1), damaged(2)]).collect();
        let crowd = format!("{}. The same of 89 more packs: `--json` names each", stays(0));
        assert_eq!(lines(&notes), [crowd, damaged(1), damaged(2)]);
        // What is no pack tells two notes apart.
        let snapshots = ["a snapshot d/1 is bad", "a snapshot d/2 is bad"].map(str::to_owned);
        assert_eq!(lines(&snapshots), snapshots);
    }
}
