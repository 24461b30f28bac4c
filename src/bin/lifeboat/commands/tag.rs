//! `tag`: other tags for snapshots that are there.

use clap::Args;
use lifeboat::{
    error::{Error, Result},
    format::annotation::TagChange,
    ops::{
        annotate::{self, Chosen, Mode, Tagged},
        select::Reference,
    },
    report::{json, text},
    repository::snapshots::KnownSnapshot,
};
use serde_json::json;

use super::snapshots::short;
use crate::{
    args::{FilterArguments, split_tags},
    context::{Context, end_of_unread},
};

const AFTER: &str = "\
A snapshot itself never changes: what is said here stands beside it, and every listing, filter and rule goes by it. It needs
a key with the role maintain or owner, since a tag may be what keeps a snapshot from being forgotten.

Examples:
  lifeboat tag latest --add before-upgrade
  lifeboat tag 4f2a91c0 --remove nightly --add monthly
  lifeboat tag --host web1 --tag nightly --set daily --dry-run";

/// Arguments of `tag`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Tag {
    #[command(flatten)]
    which: Which,
    /// These tags too: TAG or TAG,TAG
    #[arg(long, value_name = "TAG[,TAG]")]
    add: Vec<String>,
    /// No longer these
    #[arg(long, value_name = "TAG[,TAG]")]
    remove: Vec<String>,
    /// These and no others; '' for none
    #[arg(long, value_name = "TAG[,TAG]")]
    set: Vec<String>,
    /// Only show what would change
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Which snapshots.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// latest, latest~2, or the first digits of an id; without any, all that pass the filters
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    #[command(flatten)]
    filter: FilterArguments,
}

impl Which {
    pub(super) fn chosen(&self) -> Result<Chosen> {
        self.filter.refuse_empty()?;
        let references = self.snapshots.iter().map(|text| Reference::parse(text)).collect::<Result<_>>()?;
        Ok(Chosen { references, filter: self.filter.filter() })
    }
}

/// The end of a command that met damaged snapshots on its way.
pub(super) fn end(damaged: &[Error], context: &Context<'_>) -> Result<()> {
    for error in damaged {
        context.output.trouble(error);
    }
    let what = "some snapshots, or what was said of them, cannot be read";
    end_of_unread(damaged, (what, "`lifeboat check` tells what is damaged"))
}

pub(crate) fn run(arguments: &Tag, context: &Context<'_>) -> Result<()> {
    let all = |lists: &[String]| lists.iter().flat_map(|list| split_tags(list)).collect::<Vec<_>>();
    let set = (!arguments.set.is_empty()).then(|| all(&arguments.set));
    let change = TagChange { set, add: all(&arguments.add), remove: all(&arguments.remove) };
    let mode = if arguments.dry_run { Mode::DryRun } else { Mode::Write };
    let which = arguments.which.chosen()?;
    let done = annotate::tag(&context.open()?, &which, &change, mode)?;
    context.end_display();
    report(&done, mode, context);
    end(&done.damaged, context)
}

fn report(done: &Tagged, mode: Mode, context: &Context<'_>) {
    let (output, is_dry) = (context.output, mode == Mode::DryRun);
    let shown = |tags: &[String]| match tags {
        [] => "no tags".to_owned(),
        tags => text::shown(tags.join(",").as_bytes()),
    };
    for (known, tags) in &done.changed {
        output.say(&format!("{}: {} -> {}", short(known), shown(&known.tags), shown(tags)));
        output.message(&message(known, tags));
    }
    let changed = text::count(done.changed.len() as u64, "snapshot", "snapshots");
    let unchanged =
        if done.unchanged == 0 { String::new() } else { format!("; {} have them already", done.unchanged) };
    let would = if is_dry { "would change" } else { "changed" };
    output.note(&format!("the tags of {changed} {would}{unchanged}"));
    let fields = json!({
        "dry_run": is_dry,
        "changed": done.changed.len(),
        "unchanged": done.unchanged,
        "damaged": done.damaged.len(),
    });
    output.message(&json::message("summary", fields));
}

fn message(known: &KnownSnapshot, tags: &[String]) -> serde_json::Value {
    let id = known.name.id.to_string();
    let fields = json!({ "id": id, "short_id": short(known), "tags_before": known.tags, "tags": tags });
    json::message("tags", fields)
}
