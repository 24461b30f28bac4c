//! `forget`: which snapshots end, and why the others stay.

use std::collections::HashSet;

use clap::Args;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    format::registry::Registry,
    id::{DomainId, IdentityId},
    ops::forget::{
        self, Bucket, Count, ForgetDone, ForgetOptions, Group, GroupBy, Kept, MassRemoval, Mode, Rules, Span,
        Verdict, Which,
    },
    report::{
        json,
        table::{Side, Table},
        text, time,
    },
    repository::snapshots::SnapshotName,
};
use serde_json::json;

use super::{
    prune,
    snapshots::{self, short},
};
use crate::{
    args::{FilterArguments, names_no_tag, names_nothing, split_tags},
    context::{Context, end_of_unread},
};

const AFTER: &str = "\
A snapshot stays if any rule keeps it. Rules with a calendar keep the newest of each hour, day, ISO week, month or year, in
the local time zone; one that has kept fewer than it may keeps the oldest too. Each group (by default: each host with its
sources) is judged on its own. The newest snapshot of each key stays always. What it would do is shown with --dry-run. The
space is free after `lifeboat prune`.

Examples:
  lifeboat forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  lifeboat forget --host web1 --keep-last 3 --keep-within 14d
  lifeboat forget 4f2a91c0";

/// Arguments of `forget`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Forget {
    /// These snapshots instead of rules: latest, latest~2, or the first digits of an id
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    keep: Keep,
    #[command(flatten)]
    filter: FilterArguments,
    #[command(flatten)]
    care: Care,
    /// Only show what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Run `prune` afterwards, to free what nothing needs any more
    #[arg(long)]
    prune: bool,
}

/// What stays.
#[derive(Debug, Args)]
#[command(next_help_heading = "What stays (N may be `unlimited`; a span is such as 1y6m, 30d or 36h)")]
struct Keep {
    /// The last N
    #[arg(short = 'l', long, value_name = "N")]
    keep_last: Option<String>,
    /// The newest of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    keep_hourly: Option<String>,
    /// The newest of each of the last N days that have one
    #[arg(short = 'd', long, value_name = "N")]
    keep_daily: Option<String>,
    /// The newest of each of the last N weeks that have one
    #[arg(short = 'w', long, value_name = "N")]
    keep_weekly: Option<String>,
    /// The newest of each of the last N months that have one
    #[arg(short = 'm', long, value_name = "N")]
    keep_monthly: Option<String>,
    /// The newest of each of the last N years that have one
    #[arg(short = 'y', long, value_name = "N")]
    keep_yearly: Option<String>,
    /// All that are younger than this, counted from the newest of the group
    #[arg(long, value_name = "SPAN")]
    keep_within: Option<String>,
    /// Of those that are younger than this the newest of each hour
    #[arg(long, value_name = "SPAN")]
    keep_within_hourly: Option<String>,
    /// Of those that are younger than this the newest of each day
    #[arg(long, value_name = "SPAN")]
    keep_within_daily: Option<String>,
    /// Of those that are younger than this the newest of each week
    #[arg(long, value_name = "SPAN")]
    keep_within_weekly: Option<String>,
    /// Of those that are younger than this the newest of each month
    #[arg(long, value_name = "SPAN")]
    keep_within_monthly: Option<String>,
    /// Of those that are younger than this the newest of each year
    #[arg(long, value_name = "SPAN")]
    keep_within_yearly: Option<String>,
    /// All with this tag, or with all of TAG,TAG (any of several)
    #[arg(long, value_name = "TAG[,TAG]")]
    keep_tag: Vec<String>,
    /// The one whose id begins with this
    #[arg(long, value_name = "ID")]
    keep_id: Vec<String>,
}

/// What keeps a mistake from being one.
#[derive(Debug, Args)]
#[command(next_help_heading = "How")]
struct Care {
    /// What is judged together of each key: host, paths and tags, or '' for all at once [default: host,paths]
    #[arg(short, long, value_name = "WHAT")]
    group_by: Option<String>,
    /// So many of the newest of each key and host stay whatever the rules say; at least 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    floor: usize,
    /// Go on although more than half of a group would go
    #[arg(long)]
    allow_mass_removal: bool,
}

impl Keep {
    fn rules(&self) -> Result<Rules> {
        let counts = [
            &self.keep_last,
            &self.keep_hourly,
            &self.keep_daily,
            &self.keep_weekly,
            &self.keep_monthly,
            &self.keep_yearly,
        ];
        let within = [
            &self.keep_within,
            &self.keep_within_hourly,
            &self.keep_within_daily,
            &self.keep_within_weekly,
            &self.keep_within_monthly,
            &self.keep_within_yearly,
        ];
        let mut rules = Rules::default();
        for (bucket, text) in Bucket::ALL.into_iter().zip(counts) {
            rules.counts.extend(
                text.as_ref().map(|text| text.parse::<Count>().map(|count| (bucket, count))).transpose()?,
            );
        }
        for (bucket, text) in Bucket::ALL.into_iter().zip(within) {
            rules.within.extend(
                text.as_ref().map(|text| text.parse::<Span>().map(|span| (bucket, span))).transpose()?,
            );
        }
        rules.tags = self.keep_tag.iter().map(|list| split_tags(list)).collect();
        rules.ids = self.keep_id.iter().map(|digits| digits.to_ascii_lowercase()).collect();
        Ok(rules)
    }
}

pub(crate) fn run(arguments: &Forget, context: &Context<'_>) -> Result<()> {
    let rules = arguments.keep.rules()?;
    arguments.filter.refuse_empty()?;
    if arguments.keep.keep_tag.iter().any(|list| names_no_tag(list)) {
        return Err(names_nothing("--keep-tag"));
    }
    if rules.ids.iter().any(String::is_empty) {
        return Err(names_nothing("--keep-id"));
    }
    let filter = arguments.filter.filter();
    let by = arguments.care.group_by.as_deref().map(str::parse::<GroupBy>).transpose()?;
    let which = if arguments.ids.is_empty() {
        Which::ByRules(rules, filter, by.unwrap_or_default())
    } else if rules.is_empty() && filter.is_empty() && by.is_none() {
        Which::Named(arguments.ids.clone())
    } else {
        return Err(Error::new(
            ErrorKind::Usage,
            "ids and rules do not go together, so nothing was forgotten",
        )
        .with_remedy("Name what is to go, or give rules and filters"));
    };
    let options = ForgetOptions {
        which,
        floor: arguments.care.floor,
        mass_removal: if arguments.care.allow_mass_removal {
            MassRemoval::Allow
        } else {
            MassRemoval::Refuse
        },
        zone: context.zone.clone(),
        mode: if arguments.dry_run { Mode::DryRun } else { Mode::Write },
    };
    let repository = context.open()?;
    let done = forget::run(&repository, &options)?;
    context.end_display();
    let mode = options.mode;
    let reported = report(context, &done, (arguments, &repository.registry()));
    if arguments.prune {
        prune::run_after(&repository, mode, context)?;
    }
    reported
}

fn report(
    context: &Context<'_>,
    done: &ForgetDone,
    (arguments, registry): (&Forget, &Registry),
) -> Result<()> {
    let output = context.output;
    let is_named = !arguments.ids.is_empty();
    let domains: HashSet<DomainId> = done.groups.iter().map(|(group, _)| group.domain).collect();
    let keys: HashSet<IdentityId> = done.groups.iter().map(|(group, _)| group.key).collect();
    for (group, verdicts) in &done.groups {
        let domain = (domains.len() > 1).then(|| domain_name(registry, &group.domain));
        let key = (keys.len() > 1).then(|| key_name(registry, &group.key));
        output.say(&title(group, (domain, key)));
        let why_it_goes = if is_named { "named" } else { "no rule keeps it" };
        for line in table((verdicts, why_it_goes), context).lines(output.width()) {
            output.say(&line);
        }
        verdicts.iter().for_each(|verdict| output.message(&message(verdict, registry)));
    }
    for error in &done.damaged {
        output.trouble(error);
    }
    let (stay, go) = done.counts();
    let would = match (arguments.dry_run, go) {
        (true, _) => "would go",
        (false, 1) => "is forgotten",
        (false, _) => "are forgotten",
    };
    // Of those that were not named nobody asked whether they stay.
    output.note(&match is_named {
        true => format!("{} {would}", text::count(go, "snapshot", "snapshots")),
        false => format!("{}, {go} {would}", text::count(stay, "snapshot stays", "snapshots stay")),
    });
    if let Some(refused) = &done.refused {
        output.say(&format!("would be refused without --allow-mass-removal: {refused}"));
    }
    if done.finished > 0 {
        let finished = text::count(done.finished, "snapshot", "snapshots");
        output.note(&format!("{finished} that an earlier run had ended and not deleted are deleted now"));
    }
    if let Some(line) = kept_line(&done.kept) {
        output.note(&line);
    }
    output.message(&json::message(
        "summary",
        json!({
            "dry_run": arguments.dry_run,
            "kept": stay,
            "forgotten": go,
            "finished": done.finished,
            "kept_by_storage": done.kept.objects,
            "damaged": done.damaged.len(),
            "refused": done.refused.as_ref().map(ToString::to_string),
        }),
    ));
    let is_damage = done.damaged.iter().any(|error| error.kind() != ErrorKind::Forbidden);
    let what = match is_damage {
        true => "snapshots are damaged or gone, as said above, and what cannot be read stays",
        false => "this key cannot read all snapshots, and what it cannot read stays",
    };
    end_of_unread(&done.damaged, (what, "`lifeboat check` tells what is damaged"))?;
    if is_named && !arguments.dry_run { refuse_what_stays(done) } else { Ok(()) }
}

/// Who names a snapshot means that it is gone afterwards.
fn refuse_what_stays(done: &ForgetDone) -> Result<()> {
    let all = done.groups.iter().flat_map(|(_, verdicts)| verdicts);
    let Some(first) = all.filter(|verdict| !verdict.goes()).min_by_key(|verdict| verdict.snapshot.name.id)
    else {
        return Ok(());
    };
    let id = short(&first.snapshot);
    let what = format!("{id} was named and stays: {}", why_it_stays(first));
    // By its identity: after `key rotate` its label is that of another key.
    let key = first.snapshot.name.identity.short();
    Err(Error::new(ErrorKind::Failed, what).with_remedy(format!(
        "The newest of a key can go after the next backup with that key, one within the floor when newer ones of its host are there \
         (--floor is at least 1). Of a machine that is gone the snapshots behind NUMBER no longer count after \
         `lifeboat key revoke {key} --last-good NUMBER` (the `sequence` of `lifeboat snapshots --json`)"
    )))
}

/// The name of a domain, or its id where the registry has none.
fn domain_name(registry: &Registry, id: &DomainId) -> String {
    let known = registry.domains.iter().find(|domain| domain.id == *id);
    known.map_or_else(|| id.to_string(), |domain| domain.name.clone())
}

/// The label of a key, or its id where the registry has none: of a copy from another repository.
fn key_name(registry: &Registry, id: &IdentityId) -> String {
    registry.certificate(id).map_or_else(|| id.to_string(), |known| known.label.clone())
}

/// What is to be said of snapshots that have ended and that the storage keeps.
pub(super) fn kept_line(kept: &Kept) -> Option<String> {
    if kept.objects == 0 {
        return None;
    }
    let what = text::count(kept.objects, "snapshot that has ended", "snapshots that have ended");
    let why = kept.why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    Some(format!(
        "the storage refuses to delete {what}{why}; nobody sees them any more, and each forget and prune tries again"
    ))
}

fn title(group: &Group, (domain, key): (Option<String>, Option<String>)) -> String {
    let domain = domain.map(|name| format!("domain {}", text::shown(name.as_bytes())));
    let key = key.map(|label| format!("key {}", text::shown(label.as_bytes())));
    let host = group.host.as_ref().map(|host| format!("host {}", text::shown(host.as_bytes())));
    let shown =
        |paths: &Vec<Vec<u8>>| paths.iter().map(|path| text::shown(path)).collect::<Vec<_>>().join(" ");
    let paths = group.paths.as_ref().map(|paths| format!("paths {}", shown(paths)));
    let tags = group.tags.as_ref().map(|tags| format!("tags {}", text::shown(tags.join(",").as_bytes())));
    let parts: Vec<String> = [domain, key, host, paths, tags].into_iter().flatten().collect();
    if parts.is_empty() { "all snapshots:".to_owned() } else { format!("{}:", parts.join(", ")) }
}

/// Somebody wrote the reason of a hold.
fn why_it_stays(verdict: &Verdict) -> String {
    text::shown(verdict.stays.join(", ").as_bytes())
}

fn table((verdicts, why_it_goes): (&[Verdict], &str), context: &Context<'_>) -> Table {
    let mut table = Table::new(&[
        ("", Side::Left),
        ("ID", Side::Left),
        ("Time", Side::Left),
        ("Tags", Side::Left),
        ("Why", Side::Left),
    ]);
    for verdict in verdicts {
        let what = if verdict.goes() { "goes" } else { "stays" };
        table.row(vec![
            what.to_owned(),
            short(&verdict.snapshot),
            time::show(verdict.time, &context.zone),
            text::shown(verdict.snapshot.tags.join(",").as_bytes()),
            if verdict.goes() { why_it_goes.to_owned() } else { why_it_stays(verdict) },
        ]);
    }
    table
}

fn message(verdict: &Verdict, registry: &Registry) -> serde_json::Value {
    let record = &verdict.snapshot.record;
    let SnapshotName { domain, identity, .. } = &verdict.snapshot.name;
    let sources: Vec<_> = record.sources.iter().map(|source| json::with_path(json!({}), source)).collect();
    let key = registry.certificate(identity).map(|known| known.label.as_str());
    json::message(
        "forget",
        json!({
            "id": verdict.snapshot.name.id.to_string(),
            "host": record.host,
            "sources": sources,
            "domain": domain_name(registry, domain),
            "identity": identity.to_string(),
            "key": key,
            "judged_with": key_name(registry, &verdict.snapshot.writer()),
            "tags": verdict.snapshot.tags,
            "time": time::rfc3339(verdict.time),
            "kept": !verdict.goes(),
            "reasons": verdict.stays,
            "holds": snapshots::holds(&verdict.snapshot),
        }),
    )
}
