//! `tag` and `hold`: what is said of snapshots later. A snapshot itself never changes; each change is an annotation of
//! its own, and everybody who lists snapshots puts them together.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

pub use super::Mode;
use super::{
    backup::tags_fit,
    select::{Filter, Reference},
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        annotation::{Annotation, HOLDS_MAX, Says, TAGS_MAX, TagChange},
        forgotten::SNAPSHOTS_MAX,
    },
    id::{DomainId, ObjectId},
    limits,
    progress::Phase,
    repository::{
        Repository,
        annotations::Hold,
        snapshots::{KnownSnapshot, Snapshots},
    },
    store::Parsed,
};

/// Of which snapshots something is said.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// These; if there are none, all that pass the filter, which says something then.
    pub references: Vec<Reference>,
    /// Among these.
    pub filter: Filter,
}

/// Snapshots whose tags change.
#[derive(Debug, Default)]
pub struct Tagged {
    /// Each with the tags that it has now.
    pub changed: Vec<(KnownSnapshot, Vec<String>)>,
    /// How many have these tags already.
    pub unchanged: u64,
    /// What is wrong with other snapshots.
    pub damaged: Vec<Error>,
}

/// Snapshots that must not end from now on.
#[derive(Debug, Default)]
pub struct Placed {
    /// They.
    pub held: Vec<KnownSnapshot>,
    /// Those of them that a `forget` ended at the same time. They are there; if it still runs it may delete them.
    pub ended: HashSet<ObjectId>,
    /// What is wrong with other snapshots.
    pub damaged: Vec<Error>,
}

/// Snapshots whose holds are over.
#[derive(Debug, Default)]
pub struct Lifted {
    /// Each with the holds that are over, and how many others it has.
    pub lifted: Vec<(KnownSnapshot, Vec<Arc<Hold>>, usize)>,
    /// What is wrong with other snapshots.
    pub damaged: Vec<Error>,
}

impl Chosen {
    /// # Errors
    /// There is no such snapshot, a reference means several, or nothing says which are meant; `Forbidden` where this key
    /// cannot read what may be meant.
    pub fn find(&self, every: &Snapshots) -> Result<Vec<KnownSnapshot>> {
        let (snapshots, sealed) = (&every.listed, &every.sealed);
        let usage = |what: &str, remedy: &str| Err(Error::new(ErrorKind::Usage, what).with_remedy(remedy));
        if self.references.is_empty() {
            if self.filter.is_empty() {
                return usage(
                    "nothing says which snapshots are meant",
                    "Name them (latest, or ids of `lifeboat snapshots`), or give --host, --path or --tag",
                );
            }
            return Ok(self.filter.pass(snapshots, sealed)?.into_iter().cloned().collect());
        }
        if !self.filter.is_empty() {
            self.filter.pass(snapshots, sealed)?;
        }
        let mut found: Vec<KnownSnapshot> = Vec::new();
        for reference in &self.references {
            let known = reference.find_among((snapshots, sealed), &self.filter)?;
            if !found.iter().any(|other| other.name.id == known.name.id) {
                found.push(known.clone());
            }
        }
        Ok(found)
    }
}

/// Changes tags.
///
/// # Errors
/// `Usage` when no tag is named, one is too long, a snapshot would have too many, or one that is to go is nowhere; as any record that is written.
pub fn tag(repository: &Repository, which: &Chosen, change: &TagChange, mode: Mode) -> Result<Tagged> {
    check_tags(change)?;
    let (chosen, damaged) = choose(repository, which, &Says::Tags(change.clone()))?;
    if let Some(tag) = change.remove.iter().find(|tag| !chosen.iter().any(|known| known.tags.contains(tag))) {
        return Err(Error::new(ErrorKind::Usage, format!("none of these snapshots has the tag `{tag}`"))
            .with_remedy("`lifeboat snapshots` shows all tags"));
    }
    let mut tagged = Tagged { damaged, ..Tagged::default() };
    for known in chosen {
        let mut tags = known.tags.clone();
        change.apply(&mut tags);
        // One that has too many may lose some.
        if tags.len() > known.tags.len() {
            tags_fit(tags.len()).map_err(|error| error.context(&known.name.name))?;
        }
        if tags == known.tags {
            tagged.unchanged += 1;
        } else {
            tagged.changed.push((known, tags));
        }
    }
    if mode == Mode::Write {
        let of = tagged.changed.iter().map(|(known, _)| known);
        say(repository, of, &Says::Tags(change.clone()))?;
    }
    Ok(tagged)
}

fn check_tags(change: &TagChange) -> Result<()> {
    let usage = |what: String, remedy: &str| Err(Error::new(ErrorKind::Usage, what).with_remedy(remedy));
    let TagChange { set, add, remove } = change;
    if set.is_none() && add.is_empty() && remove.is_empty() {
        return usage("no tag is named".to_owned(), "Give --add TAG, --remove TAG or --set TAG");
    }
    for list in set.iter().chain([add, remove]) {
        if list.len() > TAGS_MAX {
            return usage(format!("{} tags are more than {TAGS_MAX}", list.len()), "Give fewer at a time");
        }
        if let Some(tag) = list.iter().find(|tag| tag.len() > limits::TAG_BYTES_MAX) {
            let most = limits::TAG_BYTES_MAX;
            return usage(format!("a tag of {} bytes is longer than {most}", tag.len()), "Take a short one");
        }
    }
    Ok(())
}

/// Places a legal hold: `forget` and `prune` leave these snapshots alone until an owner lifts it.
///
/// # Errors
/// `Usage` without a reason; `Failed` when one was deleted at the same moment; as any record that is written.
pub fn place(repository: &Repository, which: &Chosen, reason: &str, mode: Mode) -> Result<Placed> {
    check_reason(reason)?;
    let says = Says::Hold(reason.to_owned());
    let (held, damaged) = choose(repository, which, &says)?;
    let mut placed = Placed { held, damaged, ended: HashSet::new() };
    if mode == Mode::DryRun {
        return Ok(placed);
    }
    let holds = say(repository, placed.held.iter(), &says)?;
    // A `forget` writes what ends and then looks for holds; so of the two at least one sees the other.
    for (domain, of_domain) in domains(placed.held.iter()) {
        let there: HashSet<ObjectId> =
            repository.snapshot_names(&domain, None)?.into_iter().map(|name| name.id).collect();
        let is_gone = |known: &&&KnownSnapshot| !there.contains(&known.name.id);
        let gone: Vec<&KnownSnapshot> = of_domain.iter().filter(is_gone).copied().collect();
        if let Some(first) = gone.first() {
            if repository.check_right_to_say(&Says::Lift(Vec::new(), String::new())).is_ok() {
                // What is held and gone is missed for ever, and this was forgotten before.
                let why = "it was forgotten and deleted while the hold was placed".to_owned();
                say(repository, gone.iter().copied(), &Says::Lift(holds, why))?;
            }
            let gone = first.name.id;
            return Err(Error::new(
                ErrorKind::Failed,
                format!("the snapshot {gone} was forgotten and deleted while the hold was placed"),
            )
            .with_remedy("The hold on the others counts. Versions in the bucket may still have that one"));
        }
        let forgotten = repository.records(&domain)?.forgotten;
        let ids = of_domain.iter().map(|known| known.name.id);
        placed.ended.extend(ids.filter(|id| forgotten.contains_key(id)));
    }
    Ok(placed)
}

/// Lifts legal holds: all of each snapshot, or those whose ids begin so. A snapshot that has several needs `only`.
///
/// # Errors
/// `Usage` without a reason, when a snapshot has no such hold, or has several and none is named; as any record that is written.
pub fn lift(
    repository: &Repository,
    which: &Chosen,
    (only, reason): (&[String], &str),
    mode: Mode,
) -> Result<Lifted> {
    check_reason(reason)?;
    let (chosen, damaged) = choose(repository, which, &Says::Lift(Vec::new(), String::new()))?;
    let mut lifted = Lifted { damaged, ..Lifted::default() };
    for known in chosen {
        let holds = lifted_of(&known, only)?;
        let others = known.holds.len() - holds.len();
        lifted.lifted.push((known, holds, others));
    }
    if mode == Mode::Write {
        let mut all: Vec<ObjectId> =
            lifted.lifted.iter().flat_map(|(_, holds, _)| holds).map(|hold| hold.id).collect();
        all.sort_unstable();
        all.dedup();
        for holds in all.chunks(HOLDS_MAX) {
            let of = lifted.lifted.iter().map(|(known, ..)| known);
            say(repository, of, &Says::Lift(holds.to_vec(), reason.to_owned()))?;
        }
    }
    Ok(lifted)
}

fn lifted_of(known: &KnownSnapshot, only: &[String]) -> Result<Vec<Arc<Hold>>> {
    let named = |hold: &&Arc<Hold>| {
        let id = hold.id.to_string();
        only.is_empty() || only.iter().any(|digits| id.starts_with(&digits.to_ascii_lowercase()))
    };
    let holds: Vec<Arc<Hold>> = known.holds.iter().filter(named).cloned().collect();
    let id = known.name.id;
    let why = match holds.len() {
        0 if only.is_empty() => format!("no legal hold is on the snapshot {id}"),
        0 => format!("no such legal hold is on the snapshot {id}"),
        1 => return Ok(holds),
        _ if !only.is_empty() => return Ok(holds),
        several => format!("{several} legal holds are on the snapshot {id}"),
    };
    Err(Error::new(ErrorKind::Usage, why)
        .with_remedy("`lifeboat hold list` shows them; --hold ID says which of them is over"))
}

fn check_reason(reason: &str) -> Result<()> {
    let why = if reason.trim().is_empty() {
        "the reason is empty".to_owned()
    } else if reason.len() > limits::REASON_BYTES_MAX {
        format!("the reason is longer than {} bytes", limits::REASON_BYTES_MAX)
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Usage, why).with_remedy("Give a short one, such as the number of the case"))
}

fn choose(repository: &Repository, which: &Chosen, says: &Says) -> Result<(Vec<KnownSnapshot>, Vec<Error>)> {
    repository.store.progress().enter(Phase::Opening);
    repository.check_right_to_say(says)?;
    let every = repository.every_snapshot()?;
    let chosen = which.find(&every)?;
    Ok((chosen, every.damaged.into_iter().map(|(_, error)| error).collect()))
}

fn domains<'a>(
    snapshots: impl Iterator<Item = &'a KnownSnapshot>,
) -> BTreeMap<DomainId, Vec<&'a KnownSnapshot>> {
    let mut domains: BTreeMap<DomainId, Vec<&KnownSnapshot>> = BTreeMap::new();
    for known in snapshots {
        domains.entry(known.name.domain).or_default().push(known);
    }
    domains
}

/// Writes it, in each domain, with a time that is later than everything that was said there. Gives the ids of the records.
///
/// # Errors
/// `Forbidden` for a role that may not say this; storage trouble.
fn say<'a>(
    repository: &Repository,
    snapshots: impl Iterator<Item = &'a KnownSnapshot>,
    says: &Says,
) -> Result<Vec<ObjectId>> {
    let mut said = Vec::new();
    for (domain, of_domain) in domains(snapshots) {
        let quarantined = repository.records(&domain)?.quarantined;
        let time = repository.annotations(&domain, &quarantined)?.next_time(repository.clock.now());
        for batch in of_domain.chunks(SNAPSHOTS_MAX) {
            repository.store.progress().check()?;
            let snapshots = batch.iter().map(|known| known.name.id).collect();
            let record = Annotation { time, snapshots, says: says.clone() };
            let name = repository.publish_annotation(&domain, &record)?;
            if let Parsed::Record { id, .. } = name.parsed() {
                said.push(id);
            }
        }
    }
    Ok(said)
}
