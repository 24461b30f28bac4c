//! `check`: whether the repository holds what it says. Structure: every snapshot, every manifest node, every
//! chunk is listed in a pack that is there. With data: every frame is read, opened and hashed. What is
//! damaged is named together with the paths that it hurts; one damaged object never hides the next.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use self::{
    ledger::Ledger,
    packs::{Bad, Belied, Choice, Outcome, PackCheck},
    record::{Recorder, shelves_read},
    structure::Structure,
};
pub use self::{
    ledger::{Coverage, DomainCoverage, Oldest, Policy, Reader, Span},
    record::Witness,
    subset::Subset,
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        attestation::{Attestation, AttestedSection, SECTIONS_MAX},
        ledger::{Reading, Shelf},
        pack::IndexedPack,
    },
    id::{BlobId, DomainId, PackId},
    progress::Phase,
    repository::{
        Repository,
        index::{Index, KnownPack, Standing},
        snapshots::{KnownSnapshot, Snapshots},
        view::{INDEXES_AT_ONCE, View},
    },
    store::{Name, on_each},
};

mod ledger;
mod objects;
mod packs;
mod record;
mod structure;
pub mod subset;
pub mod without_keys;

/// Problems are named one by one up to so many, and counted beyond.
const NAMED_MAX: usize = 1000;
/// Paths that one problem is said to hurt, at most.
const HURT_MAX: usize = 100;
/// What stands in the place of the others.
const HURTS_MORE: &str = "and more: a restore or `lifeboat verify` names each";

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Depth {
    /// Snapshots, manifests, index, and whether packs are there.
    Structure,
    /// The same, and every byte of these packs.
    Data(Subset),
    /// The same, and every byte of the packs that nobody has read for long; nothing at all if there are none. An
    /// identity that cannot read data compares hashes.
    Due(Policy),
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which object.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// The first snapshots and paths that it hurts.
    pub hurts: Vec<String>,
    /// What to do about it, where that is known.
    pub remedy: Option<String>,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Snapshots that were looked at.
    pub snapshots: u64,
    /// Manifest nodes that were read; one that several snapshots share counts once.
    pub nodes: u64,
    /// Packs that the index lists.
    pub packs: u64,
    /// Packs of which every byte was read.
    pub packs_read: u64,
    /// Bytes of these.
    pub bytes_read: u64,
    /// Sections that were attested: those of domains that several identities write to, and what an owner's prune has cut; only once.
    pub attested: u64,
    /// Whether what was read stands in a signed record.
    pub recorded: bool,
    /// Why some of it does not, since the storage refused a record: the next check takes it for unread.
    pub unrecorded: Option<Error>,
    /// How much of everything was read how long ago, if that was asked for.
    pub coverage: Option<Coverage>,
    /// How many problems there are.
    pub problems_found: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
    /// What is worth knowing and hurts nothing.
    pub notes: Vec<String>,
    /// Snapshots that this key cannot read, since it lacks the key epoch that they were written in: nobody looked at what
    /// they need.
    pub sealed: Vec<Error>,
    /// Whether manifests or chunks are missing where packs are that no index lists: an index object is lost.
    pub lost_index: bool,
}

impl Checked {
    /// The number of the problem, if it is named.
    fn problem(&mut self, object: impl Into<String>, what: impl Into<String>) -> Option<usize> {
        self.problems_found += 1;
        if self.problems.len() >= NAMED_MAX {
            return None;
        }
        self.problems.push(Problem {
            object: object.into(),
            what: what.into(),
            hurts: Vec::new(),
            remedy: None,
        });
        Some(self.problems.len() - 1)
    }

    fn problem_with_remedy(
        &mut self,
        object: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Option<usize> {
        let number = self.problem(object, what);
        if let Some(problem) = number.and_then(|number| self.problems.get_mut(number)) {
            problem.remedy = Some(remedy.into());
        }
        number
    }

    fn hurt(&mut self, number: Option<usize>, what: String) {
        if let Some(problem) = number.and_then(|number| self.problems.get_mut(number))
            && problem.hurts.len() <= HURT_MAX
            && !problem.hurts.contains(&what)
        {
            // A list that is cut says so.
            let full = problem.hurts.len() == HURT_MAX;
            problem.hurts.push(if full { HURTS_MORE.to_owned() } else { what });
        }
    }

    /// A problem with an object that was not named before: one damaged object is one problem. An error of a damaged object
    /// begins with its name; one that only holds it is of something else, which must be told too.
    fn problem_unless_known(&mut self, object: impl Into<String>, error: &Error) {
        let text = error.to_string();
        let is_known = |known: &Problem| match Name::parse(&known.object) {
            Some(name) => text.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with([' ', ':'])),
            None => known.what == text,
        };
        if !self.problems.iter().any(is_known) {
            match error.remedy() {
                Some(remedy) => self.problem_with_remedy(object, text, remedy),
                None => self.problem(object, text),
            };
        }
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NAMED_MAX {
            self.notes.push(note);
        }
    }
}

/// How to check.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// How thoroughly.
    pub depth: Depth,
    /// Threads that open frames.
    pub workers: usize,
}

/// Checks every domain.
///
/// # Errors
/// Storage trouble; `Forbidden` for a role that cannot look. Damage is in the result.
pub fn run(repository: &Repository, options: CheckOptions) -> Result<Checked> {
    run_as(repository, options, None)
}

/// As [`run`], and what was read is signed as evidence, in the name of this machine.
///
/// # Errors
/// As [`run`].
pub fn run_and_record(
    repository: &Repository,
    options: CheckOptions,
    witness: Witness<'_>,
) -> Result<Checked> {
    run_as(repository, options, Some(witness))
}

fn run_as(repository: &Repository, options: CheckOptions, witness: Option<Witness<'_>>) -> Result<Checked> {
    let progress = repository.store.progress();
    progress.enter(Phase::Checking);
    if matches!(options.depth, Depth::Data(_)) {
        repository.check_reads_data("check the content of packs")?;
    }
    if !repository.reads_metadata() {
        return Err(repository.forbidden("read snapshots", "audit"));
    }
    let reading = reading_of(repository);
    let mut checked = Checked::default();
    let mut domains: Vec<DomainId> = repository.registry().domains.iter().map(|domain| domain.id).collect();
    domains.sort_unstable();
    // Nothing is written to the past.
    let witness = witness.filter(|_| repository.store.past().is_none());
    let mut recorder = Recorder::new(repository, witness, reading);
    let Depth::Due(policy) = options.depth else {
        let everything = (options, &HashMap::new());
        recorded(domains_of(repository, &domains, everything, (&mut recorder, &mut checked)), &recorder)?;
        return Ok(checked);
    };
    let mut with_aside = Vec::new();
    for domain in &domains {
        with_aside.push((*domain, repository.records(domain)?.quarantined));
    }
    let mut ledger = Ledger::read(repository, &with_aside, (reading, &mut checked))?;
    let plan = ledger.plan(policy, reading);
    ledger.tell_damaged(reading, &plan, &mut checked);
    if !plan.is_empty() {
        let read = domains_of(repository, &domains, (options, &plan), (&mut recorder, &mut checked));
        let read = recorded(read, &recorder)?;
        ledger.take(recorder.reader(ledger.now()), reading, &read);
    }
    checked.coverage = Some(ledger.coverage(policy, reading));
    Ok(checked)
}

/// How much of the packs was read how long ago, by the records of checks, and what is worth knowing of these. Each domain
/// comes with the names of what is set aside there. No pack is read.
///
/// # Errors
/// `Forbidden` for a role that reads no evidence; storage trouble.
pub fn coverage(
    repository: &Repository,
    domains: &[(DomainId, HashSet<String>)],
    max_age: Duration,
) -> Result<(Coverage, Vec<String>)> {
    let (reading, mut checked) = (reading_of(repository), Checked::default());
    let ledger = Ledger::read(repository, domains, (reading, &mut checked))?;
    Ok((ledger.coverage(Policy { max_age, budget: None }, reading), checked.notes))
}

/// What counts for this identity.
fn reading_of(repository: &Repository) -> Reading {
    if repository.reads_data() { Reading::Decrypted } else { Reading::Hashed }
}

/// Whoever stops a check does not want what was read to be read again.
fn recorded<T>(result: Result<T>, recorder: &Recorder<'_>) -> Result<T> {
    result.inspect_err(|error| {
        if error.kind() == ErrorKind::Interrupted {
            recorder.interrupted();
        }
    })
}

/// The shelves to read of each domain.
type Plan = HashMap<DomainId, HashSet<u16>>;

/// Checks every domain, and says what was read of each.
fn domains_of(
    repository: &Repository,
    domains: &[DomainId],
    (options, plan): (CheckOptions, &Plan),
    (recorder, checked): (&mut Recorder<'_>, &mut Checked),
) -> Result<Vec<record::Read>> {
    // What is read below may come from the cache, which says nothing about the storage.
    objects::run(repository, domains, (options.depth, checked))?;
    let Snapshots { listed, replaced, damaged, .. } = repository.every_snapshot()?;
    // Where something is wrong with snapshots that is said anyway.
    let with_snapshots: HashSet<DomainId> = listed
        .iter()
        .chain(&replaced)
        .map(|known| known.name.domain)
        .chain(damaged.iter().map(|(domain, _)| *domain))
        .collect();
    let (sealed, damaged): (Vec<_>, Vec<_>) =
        damaged.into_iter().partition(|(_, error)| error.kind() == ErrorKind::Forbidden);
    checked.sealed = sealed.into_iter().map(|(_, error)| error).collect();
    for (_, error) in damaged {
        checked.problem_unless_known("snapshots", &error);
    }
    let mut all = Vec::new();
    for domain in domains {
        let view = repository.view_to_read(domain)?;
        let own = |known: &&KnownSnapshot| known.name.domain == *domain;
        let choice = match options.depth {
            Depth::Structure => None,
            Depth::Data(subset) => Some(Choice::Subset(subset)),
            Depth::Due(_) => plan.get(domain).map(Choice::Shelves),
        };
        let before = (checked.packs_read, checked.bytes_read);
        if !with_snapshots.contains(domain) {
            packs_alone(repository, (domain, &view), checked);
        }
        let Viewed { damage, belied, read, newer } =
            one_view((domain, &view), (choice, options.workers), (recorder, checked))?;
        let view = newer.unwrap_or(view);
        let read_here = (checked.packs_read - before.0, checked.bytes_read - before.1);
        recorder.domain(read.clone(), read_here, checked)?;
        all.extend(read);
        let late: Vec<_> = replaced.iter().filter(own).collect();
        if !late.is_empty() {
            late_ones(repository, &view, (late, &damage.0), checked)?;
        }
        let mut structure = Structure::new(repository, (*domain, &view.index), damage, checked)?;
        // What can still be read by a listing that is false in part needs no other problem.
        structure.rested_on.extend(belied);
        for snapshot in listed.iter().filter(own) {
            structure.snapshot(snapshot)?;
        }
        let misses = structure.misses;
        checked.lost_index |= misses && !view.unindexed.is_empty();
    }
    recorder.write(checked)?;
    Ok(all)
}

/// Packs of a domain without any snapshot. Nothing tells a first backup, which runs or was cut short, from snapshots that
/// are all lost, so that is no problem; whoever knows that there were some must hear it before a prune runs.
fn packs_alone(repository: &Repository, (domain, view): (&DomainId, &View), checked: &mut Checked) {
    let listed = view.index.packs().filter(|pack| pack.standing != Standing::Missing);
    let mut packs: HashMap<PackId, u64> = listed.map(|pack| (pack.id, u64::from(pack.size))).collect();
    let first = if packs.is_empty() { "`lifeboat repair index --apply` lists them again, then " } else { "" };
    packs.extend(view.unindexed.iter().copied());
    if packs.is_empty() {
        return;
    }
    let registry = repository.registry();
    let name = registry.domain(domain).map_or("", |known| known.name.as_str());
    checked.note(format!(
        "{} ({} bytes) of the domain `{name}` are there, and no snapshot there: a first backup runs or was cut short, or all \
         snapshots are lost. If there were some, let no prune run: {first}`lifeboat recover` with an owner's key for that domain \
         finds what they held",
        counted(packs.len() as u64, ("pack", "packs")),
        packs.values().sum::<u64>(),
    ));
}

/// Snapshots that came too late and were replaced: what they lack is no damage, since the next one has it.
fn late_ones(
    repository: &Repository,
    view: &View,
    (late, bad): (Vec<&KnownSnapshot>, &BadBlobs),
    checked: &mut Checked,
) -> Result<()> {
    let mut aside = Checked::default();
    for snapshot in late {
        let domain = snapshot.name.domain;
        let before = aside.problems_found;
        let damage = (bad.clone(), MissedPacks::new());
        let mut structure = Structure::new(repository, (domain, &view.index), damage, &mut aside)?;
        structure.snapshot(snapshot)?;
        // What only packs hold that do not count can be read.
        let rested_on = structure.rested_on.len() as u64;
        let gaps = aside.problems_found - before - rested_on;
        if gaps > 0 {
            let id = snapshot.name.id;
            checked.note(format!(
                "snapshot {id} came too late, lacks {} and was replaced by the next",
                counted(gaps, ("thing", "things"))
            ));
        }
    }
    Ok(())
}

/// What is damaged of a domain: blobs, each with the packs where it is and the problems that name why.
type BadBlobs = HashMap<BlobId, Vec<(PackId, Option<usize>)>>;
/// Packs that are not there as the index says, with the problem that names each.
type MissedPacks = HashMap<PackId, Option<usize>>;

/// What came of the packs of a domain.
struct Viewed {
    damage: (BadBlobs, MissedPacks),
    /// Packs of which an index says what is not true; a problem says so.
    belied: HashSet<PackId>,
    /// What was read to the end, if it was all good or is named.
    read: Option<record::Read>,
    /// What there is now, if a prune was seen to be at work meanwhile.
    newer: Option<View>,
}

/// Index objects and packs.
///
/// # Errors
/// Storage trouble; `Interrupted`, when what was read until then is recorded.
fn one_view(
    (domain, view): (&DomainId, &View),
    (choice, workers): (Option<Choice<'_>>, usize),
    (recorder, checked): (&mut Recorder<'_>, &mut Checked),
) -> Result<Viewed> {
    let repository = recorder.repository();
    for error in &view.damaged {
        checked.problem_unless_known(format!("index of domain {domain}"), error);
    }
    if !view.unindexed.is_empty() {
        let bytes: u64 = view.unindexed.iter().map(|(_, size)| size).sum();
        checked.note(format!(
            "{} ({bytes} bytes) in no index: a backup that runs now, one that was cut short, or an index object that is lost",
            counted(view.unindexed.len() as u64, ("pack is", "packs are"))
        ));
    }
    let (mut seen, mut missed) = (HashSet::new(), MissedPacks::new());
    let mut pruned = 0;
    let mut damaged: HashSet<PackId> = HashSet::new();
    for pack in view.index.packs().filter(|pack| seen.insert(pack.id)) {
        checked.packs += 1;
        if pack.standing == Standing::SetAside {
            let name = repository.pack_name(domain, &pack);
            checked.note(format!("{name} is set aside, and an index still lists it"));
        }
        if pack.standing == Standing::Missing {
            let name = repository.pack_name(domain, &pack);
            // One that is gone hurts only if something needs it; one of another size is damaged in any case.
            match repository.store.head(&name)? {
                Some(found) if !view.quarantined.contains(name.as_str()) => {
                    let what = format!("it has {} bytes, and the index says {}", found.size, pack.size);
                    missed.insert(pack.id, checked.problem(name.as_str(), what));
                    damaged.insert(pack.id);
                }
                _ if view.quarantined.contains(name.as_str()) => {
                    checked.note(format!("{name} is set aside, and an index still lists it"));
                }
                _ if view.tombstoned.contains(&pack.id) => pruned += 1,
                _ => checked.note(format!("{name} is in the index and not in the store")),
            }
        }
    }
    if pruned > 0 {
        let packs = counted(pruned, ("pack that was pruned", "packs that were pruned"));
        checked.note(format!("an index still lists {packs}"));
    }
    let Some(choice) = choice else {
        let (damage, belied) = ((BadBlobs::new(), missed), HashSet::new());
        return Ok(Viewed { damage, belied, read: None, newer: None });
    };
    let mut outcome = PackCheck::new(repository, (domain, view))?.run(choice, workers)?;
    let newer = pruned_meanwhile(repository, domain, (&mut outcome, checked))?;
    // What is there and was not read keeps its shelf from counting as read.
    let listed = view.index.packs().filter(|pack| pack.standing.counts()).map(|pack| pack.id);
    let there = listed.chain(view.unindexed.iter().map(|(id, _)| *id));
    let unread = there.filter(|id| !outcome.read.contains(id)).map(|id| Shelf::of(&id)).collect();
    damaged.extend(outcome.damaged.iter().map(|bad| bad.pack).chain(outcome.belied.keys().copied()));
    let read = shelves_read(*domain, &unread, &damaged);
    if let Some(interrupted) = outcome.interrupted.take() {
        recorder.partly(read, (outcome.packs, outcome.bytes));
        return Err(interrupted);
    }
    checked.packs_read += outcome.packs;
    checked.bytes_read += outcome.bytes;
    // What is attested need not be said again: nothing deletes these records.
    outcome.attested.retain(|section| !view.index.vouches_for(&section.id));
    checked.attested += repository.attest_sections(domain, &outcome.attested, checked)?;
    let belied = std::mem::take(&mut outcome.belied);
    if let Some(newer) = &newer {
        distrust_lies(&newer.index, &belied);
    }
    let bad = name_damaged(repository, domain, (outcome, &belied), checked);
    name_liars(repository, domain, (&belied, &mut missed), checked)?;
    Ok(Viewed { damage: (bad, missed), belied: belied.into_keys().collect(), read, newer })
}

/// A prune that runs beside a long check deletes packs that the check is about to read. What is gone and in no index any more,
/// or was to die, is no damage: whether snapshots need anything of it is asked of what there is now.
fn pruned_meanwhile(
    repository: &Repository,
    domain: &DomainId,
    (outcome, checked): (&mut Outcome, &mut Checked),
) -> Result<Option<View>> {
    if !outcome.damaged.iter().any(|bad| bad.is_gone) {
        return Ok(None);
    }
    let view = repository.view_to_read(domain)?;
    let listed: HashSet<PackId> = view.index.packs().map(|pack| pack.id).collect();
    let before = outcome.damaged.len();
    outcome
        .damaged
        .retain(|bad| !bad.is_gone || (listed.contains(&bad.pack) && !view.tombstoned.contains(&bad.pack)));
    let pruned = (before - outcome.damaged.len()) as u64;
    if pruned > 0 {
        let packs = counted(pruned, ("pack was", "packs were"));
        checked.note(format!("{packs} deleted by a prune while this check ran"));
    }
    Ok(Some(view))
}

fn counted(number: u64, (one, many): (&str, &str)) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Makes a problem of each index object that says of a pack what that does not say itself. What is missing because of it is what
/// that hurts.
fn name_liars(
    repository: &Repository,
    domain: &DomainId,
    (belied, missed): (&HashMap<PackId, Belied>, &mut MissedPacks),
    checked: &mut Checked,
) -> Result<()> {
    if belied.is_empty() {
        return Ok(());
    }
    let aside = repository.records(domain)?.quarantined;
    let mut objects = repository.listed_index(domain)?;
    objects.retain(|object| !aside.contains(object.name.as_str()));
    let at_once = repository.store.connections().min(INDEXES_AT_ONCE);
    let lies = on_each(&objects, at_once, |object| {
        repository.store.progress().check()?;
        match repository.read_index(domain, &object.name, object.id) {
            Ok(packs) => Ok(packs.iter().filter(|pack| is_lie(belied, pack)).map(|pack| pack.id).collect()),
            // What is wrong with it is a problem already.
            Err(error) if error.is_damage() => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    })?;
    let liars: Vec<_> =
        objects.iter().zip(&lies).filter_map(|(object, lies)| Some((object, lies, lies.first()?))).collect();
    for some in liars.chunks(LIARS_AT_ONCE) {
        let names: Vec<&str> = some.iter().map(|(object, ..)| object.name.as_str()).collect();
        let remedy = aside_for_a_lie(&names);
        for (object, lies, first) in some {
            let others = match lies.len() as u64 - 1 {
                0 => String::new(),
                others => format!(" and {}", counted(others, ("other", "others"))),
            };
            let what = format!("what it says of pack {first}{others} is not what the pack says of itself");
            let number = checked.problem_with_remedy(object.name.as_str(), what, &remedy);
            for pack in *lies {
                missed.entry(*pack).or_insert(number);
            }
        }
    }
    for (id, Belied { name, .. }) in belied {
        missed.entry(*id).or_insert_with(|| {
            let what = "an index says of it what it does not say itself";
            let remedy = "Run it again: that index object is gone by now, or only the local cache says so";
            checked.problem_with_remedy(name.as_str(), what, remedy)
        });
    }
    Ok(())
}

/// Index objects that one command sets aside: then their remedy is one, and a check after it need not find them one by one.
const LIARS_AT_ONCE: usize = 32;

fn aside_for_a_lie(names: &[&str]) -> String {
    let (sets, lists) = if names.len() == 1 { ("it", "it lists") } else { ("them", "they list") };
    format!(
        "`lifeboat repair quarantine {} --force --reason 'false listing' --apply` sets {sets} aside, then `lifeboat repair \
         index --apply` lists again what only {lists}",
        names.join(" ")
    )
}

fn is_lie(belied: &HashMap<PackId, Belied>, listing: &IndexedPack) -> bool {
    belied.get(&listing.id).is_some_and(|belied| belied.says != listing.digest())
}

/// What was found to be a lie counts for nothing in a newer view either.
fn distrust_lies(index: &Index, belied: &HashMap<PackId, Belied>) {
    for known in index.packs().filter(|pack| belied.contains_key(&pack.id)) {
        let KnownPack { id, size, kind, .. } = known;
        let listing = index.directory(&known).map(|directory| IndexedPack { id, size, kind, directory });
        if listing.is_none_or(|listing| is_lie(belied, &listing)) {
            index.distrust_listing(&known);
        }
    }
}

/// Makes a problem of everything that is damaged, and lets the next backup of this machine not count on it.
fn name_damaged(
    repository: &Repository,
    domain: &DomainId,
    (outcome, belied): (Outcome, &HashMap<PackId, Belied>),
    checked: &mut Checked,
) -> BadBlobs {
    let mut bad = BadBlobs::new();
    let mut distrusted = repository.cache.distrusted(domain);
    distrusted.retain(|pack| !outcome.read.contains(pack));
    distrusted.extend(outcome.damaged.iter().map(|bad| bad.pack).chain(belied.keys().copied()));
    repository.cache.distrust(domain, &distrusted);
    for Bad { pack, name, what, blobs, .. } in outcome.damaged {
        let number = checked.problem(name.as_str(), what);
        blobs.into_iter().for_each(|blob| bad.entry(blob).or_default().push((pack, number)));
    }
    bad
}

impl Repository {
    /// Signs what was verified; where the storage does not allow it, that is only noted.
    fn attest_sections(
        &self,
        domain: &DomainId,
        sections: &[AttestedSection],
        checked: &mut Checked,
    ) -> Result<u64> {
        let mut attested = 0;
        if self.store.past().is_some() {
            return Ok(attested);
        }
        for sections in sections.chunks(SECTIONS_MAX) {
            let record = Attestation { time: self.clock.now(), sections: sections.to_vec() };
            match self.publish_attestation(domain, &record) {
                Ok(_) => attested += sections.len() as u64,
                Err(error) if error.kind() == ErrorKind::Failed => {
                    checked.note(format!("what was verified could not be recorded: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(attested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_problem_beyond_those_named_hurts_is_not_said_of_another() {
        let mut checked = Checked::default();
        for number in 0..NAMED_MAX {
            assert_eq!(checked.problem(number.to_string(), "damaged"), Some(number));
        }
        let unnamed = checked.problem("one more", "damaged");
        checked.hurt(unnamed, "a path".to_owned());
        assert_eq!((checked.problems_found, checked.problems.len()), (NAMED_MAX as u64 + 1, NAMED_MAX));
        assert!(checked.problems.iter().all(|problem| problem.hurts.is_empty()));
    }
}
