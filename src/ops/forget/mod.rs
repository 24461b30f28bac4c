//! `forget`: which snapshots end. What ends is first written into the repository, signed and with its reason, and only
//! then deleted: whoever finds a snapshot gone finds out why, and a run that was killed is finished by the next one.
//! Nothing of their data is deleted here; that is for `prune`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
};

use jiff::tz::TimeZone;

pub use self::rules::{Bucket, Candidate, Count, Rules, Span};
pub use super::{Mode, deleting::Kept};
use super::{
    deleting::Deleter,
    select::{Filter, Reference},
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        forgotten::{ChainEnd, ChainPlace, Forgotten, HEADS_MAX, SNAPSHOTS_MAX},
        registry::Registry,
    },
    id::{DomainId, IdentityId, ObjectId},
    limits,
    progress::Phase,
    repository::{
        Repository,
        records::Records,
        snapshots::{
            Hidden, KnownSnapshot, SealedSnapshot, SnapshotName, Snapshots, TAG_RECOVERED, times_that_count,
        },
    },
};

mod rules;

/// What snapshots have in common that are judged together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBy {
    /// The host.
    pub host: bool,
    /// The sources.
    pub paths: bool,
    /// The tags.
    pub tags: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self { host: true, paths: true, tags: false }
    }
}

impl std::str::FromStr for GroupBy {
    type Err = Error;

    /// `host`, `paths` and `tags`, separated by commas; the empty text puts all snapshots of a key into one group.
    fn from_str(text: &str) -> Result<Self> {
        let mut by = Self { host: false, paths: false, tags: false };
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "host" | "hosts" => by.host = true,
                "path" | "paths" => by.paths = true,
                "tag" | "tags" => by.tags = true,
                _ => {
                    return Err(Error::new(
                        ErrorKind::Usage,
                        format!("snapshots cannot be grouped by `{word}`"),
                    )
                    .with_remedy("Write host, paths and tags, separated by commas"));
                }
            }
        }
        Ok(by)
    }
}

/// The group of a snapshot; what does not count is left out. Snapshots of different domains or keys are never judged
/// together: else whoever has stolen one key could call his snapshots those of another machine, and a rule would end
/// that machine's for them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Its domain.
    pub domain: DomainId,
    /// Its key; of a copy that of its original.
    pub key: IdentityId,
    /// Its host.
    pub host: Option<String>,
    /// Its sources.
    pub paths: Option<Vec<Vec<u8>>>,
    /// Its tags, sorted.
    pub tags: Option<Vec<String>>,
}

impl Group {
    fn of(known: &KnownSnapshot, by: GroupBy) -> Self {
        let record = &known.record;
        let sorted = || {
            let mut tags = known.tags.clone();
            tags.sort_unstable();
            tags
        };
        Self {
            domain: known.name.domain,
            key: known.writer(),
            host: by.host.then(|| record.host.clone()),
            paths: by.paths.then(|| record.sources.clone()),
            tags: by.tags.then(sorted),
        }
    }
}

/// What may end.
#[derive(Clone, Debug)]
pub enum Which {
    /// What no rule keeps, of each group among those that pass the filter.
    ByRules(Rules, Filter, GroupBy),
    /// These: `latest`, `latest~N`, whole ids or their first digits.
    Named(Vec<String>),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct ForgetOptions {
    /// What may end.
    pub which: Which,
    /// So many of the newest of each key and host stay whatever the rules say, at least one, the end of its chain among them;
    /// but for one that was recovered, if it is named and the end of its key's chain is a newer one.
    pub floor: usize,
    /// Whether more than half of a group may end.
    pub mass_removal: MassRemoval,
    /// The time zone of calendar rules.
    pub zone: TimeZone,
    /// Whether anything is written.
    pub mode: Mode,
}

/// Whether more than half of a group may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MassRemoval {
    /// It is refused: usually a rule was mistyped, or somebody flooded the repository.
    Refuse,
    /// The user has said so.
    Allow,
}

/// What becomes of a snapshot.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// It.
    pub snapshot: KnownSnapshot,
    /// The time that counts.
    pub time: Timestamp,
    /// Why it stays; empty if it goes.
    pub stays: Vec<String>,
}

impl Verdict {
    /// Whether it ends.
    #[must_use]
    pub const fn goes(&self) -> bool {
        self.stays.is_empty()
    }
}

/// What a `forget` did, or would do.
#[derive(Debug, Default)]
pub struct ForgetDone {
    /// Each group with its snapshots, the newest first.
    pub groups: Vec<(Group, Vec<Verdict>)>,
    /// Snapshots that an earlier run had ended and not deleted.
    pub finished: u64,
    /// Snapshots that have ended and that the storage refuses to delete: nobody sees them any more.
    pub kept: Kept,
    /// What is wrong with snapshots that cannot be judged: they stay.
    pub damaged: Vec<Error>,
    /// Why nothing would end if this were no dry run: more than half of a group goes, and that was not allowed.
    pub refused: Option<Error>,
}

impl ForgetDone {
    /// How many stay, and how many go.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let all = self.groups.iter().flat_map(|(_, verdicts)| verdicts);
        all.fold((0, 0), |(stay, go), verdict| if verdict.goes() { (stay, go + 1) } else { (stay + 1, go) })
    }
}

/// Ends snapshots.
///
/// # Errors
/// `Usage` when there is no rule, or a filter, a tag or an id matches nothing; `Failed` when more than half of a group
/// would end and that was not allowed, or a snapshot that was named is held; `Damaged` when an annotation cannot be
/// read that may be a hold, or a snapshot that is to stay where others go is damaged in the storage; `Forbidden` for a role
/// that may not; storage trouble.
pub fn run(repository: &Repository, options: &ForgetOptions) -> Result<ForgetDone> {
    if options.mode == Mode::Write {
        repository.check_maintains("forget snapshots")?;
    }
    repository.store.progress().enter(Phase::Opening);
    let Snapshots { listed, replaced, damaged, sealed } = repository.every_snapshot()?;
    let mut done =
        ForgetDone { damaged: damaged.into_iter().map(|(_, error)| error).collect(), ..Default::default() };
    let times = times_that_count(&listed);
    let judged = match &options.which {
        Which::Named(ids) => named(ids, (&listed, &replaced, &sealed))?,
        Which::ByRules(rules, filter, by) => {
            by_rules((rules, filter, *by), (&listed, &sealed), &times, &options.zone)?
        }
    };
    done.groups = group_verdicts(judged, &times);
    keep_floor((&mut done.groups, &options.which), &listed, options.floor.max(1));
    keep_held(&mut done.groups, &replaced);
    if options.mode == Mode::Write && matches!(options.which, Which::Named(_)) {
        refuse_held(done.groups.iter().flat_map(|(_, verdicts)| verdicts).map(|verdict| &verdict.snapshot))?;
    }
    if options.mass_removal == MassRemoval::Refuse {
        let refused = refuse_mass_removal((&done.groups, &repository.registry()), &options.which, &listed);
        match (refused, options.mode) {
            (refused, Mode::DryRun) => done.refused = refused.err(),
            (refused, Mode::Write) => refused?,
        }
    }
    let recorded = check_holds(repository, &done.groups)?;
    check_stays(repository, (&done.groups, &options.which), &listed)?;
    if options.mode == Mode::Write {
        let Ended { finished, kept } =
            write(repository, options, (&mut done, &new_heads((&listed, &sealed), &recorded)), &replaced)?;
        (done.finished, done.kept) = (finished, kept);
    }
    Ok(done)
}

/// A snapshot, its group, and why it stays.
type Judged<'a> = (&'a KnownSnapshot, Group, Vec<String>);

fn named<'a>(
    ids: &[String],
    (listed, replaced, sealed): (&'a [KnownSnapshot], &'a [KnownSnapshot], &[SealedSnapshot]),
) -> Result<Vec<Judged<'a>>> {
    let mut chosen: HashMap<ObjectId, &KnownSnapshot> = HashMap::new();
    for id in ids {
        if let Ok(latest @ Reference::Latest(_)) = Reference::parse(id) {
            let found = latest.find_among((listed, sealed), &Filter::default()).map_err(|error| {
                // It is mistyped as an id is that nobody has.
                if error.kind() == ErrorKind::Failed { error.with_kind(ErrorKind::Usage) } else { error }
            })?;
            chosen.insert(found.name.id, found);
            continue;
        }
        let digits = id.to_ascii_lowercase();
        let matches = |known: &&KnownSnapshot| known.name.id.to_string().starts_with(&digits);
        let found: Vec<_> = listed.iter().chain(replaced).filter(matches).collect();
        let [one] = found[..] else {
            if found.is_empty() {
                // One that this key cannot read is no snapshot that is not there.
                Reference::parse(id).map_or(Ok(()), |reference| reference.refuse_one_of(sealed))?;
            }
            let what = match found.len() {
                0 => format!("there is no snapshot `{id}`, and nothing was forgotten"),
                several => format!("`{id}` means {several} snapshots, and nothing was forgotten"),
            };
            return Err(Error::new(ErrorKind::Usage, what).with_remedy(
                "`lifeboat snapshots --json` shows whole ids; a pattern of many is a rule: --keep-..",
            ));
        };
        chosen.insert(one.name.id, one);
    }
    let mut chosen: Vec<_> = chosen.into_values().collect();
    chosen.sort_by_key(|known| known.name.id);
    Ok(chosen.into_iter().map(|known| (known, Group::of(known, GroupBy::default()), Vec::new())).collect())
}

fn by_rules<'a>(
    (rules, filter, by): (&Rules, &Filter, GroupBy),
    (listed, sealed): (&'a [KnownSnapshot], &[SealedSnapshot]),
    times: &HashMap<ObjectId, Timestamp>,
    zone: &TimeZone,
) -> Result<Vec<Judged<'a>>> {
    let usage = |what: String, remedy: &str| Err(Error::new(ErrorKind::Usage, what).with_remedy(remedy));
    if rules.is_empty() {
        return usage(
            "no rule says what to keep, so nothing was forgotten".to_owned(),
            "Give at least one --keep-.. rule, or the ids of what is to go",
        );
    }
    let passing = filter.pass(listed, sealed)?;
    // A tag that nobody has is mistyped, and what it was to keep would go.
    let is_known = |tag: &String| listed.iter().any(|known| known.tags.contains(tag));
    if let Some(tag) = rules.tags.iter().flatten().find(|tag| !is_known(tag)) {
        return usage(
            format!("no snapshot has the tag `{tag}` of --keep-tag"),
            "`lifeboat snapshots` shows all tags",
        );
    }
    // So is an id that means none, or more than the one that was meant.
    let means =
        |digits: &str| listed.iter().filter(|known| known.name.id.to_string().starts_with(digits)).count();
    if let Some((id, count)) = rules.ids.iter().map(|id| (id, means(id))).find(|(_, count)| *count != 1) {
        let what = if count == 0 { "no snapshot".to_owned() } else { format!("{count} snapshots") };
        return usage(
            format!("the id `{id}` of --keep-id means {what}, so nothing was forgotten"),
            "`lifeboat snapshots --json` shows whole ids",
        );
    }
    let mut groups: BTreeMap<Group, Vec<&KnownSnapshot>> = BTreeMap::new();
    for known in passing {
        groups.entry(Group::of(known, by)).or_default().push(known);
    }
    let mut judged = Vec::new();
    for (group, mut members) in groups {
        sort_newest_first(&mut members, times);
        let candidates: Vec<_> = members
            .iter()
            .map(|known| Candidate { time: time_of(known, times), tags: &known.tags, id: known.name.id })
            .collect();
        let reasons = rules.apply(&candidates, zone);
        judged.extend(members.into_iter().zip(reasons).map(|(known, why)| (known, group.clone(), why)));
    }
    Ok(judged)
}

fn time_of(known: &KnownSnapshot, times: &HashMap<ObjectId, Timestamp>) -> Timestamp {
    times.get(&known.name.id).copied().unwrap_or(known.record.time.min(known.name.stored))
}

/// Of several of one time that of which least could not be read comes first, then the last written. So a copy that lost
/// something does not push out its original: a restore of that gives at least as much, and more when it was healed.
fn sort_newest_first(members: &mut [&KnownSnapshot], times: &HashMap<ObjectId, Timestamp>) {
    members.sort_by_key(|known| {
        let SnapshotName { stored, sequence, id, .. } = known.name;
        Reverse((time_of(known, times), Reverse(known.record.unreadable), stored, sequence, id))
    });
}

fn group_verdicts(
    judged: Vec<Judged<'_>>,
    times: &HashMap<ObjectId, Timestamp>,
) -> Vec<(Group, Vec<Verdict>)> {
    let mut groups: BTreeMap<Group, Vec<Verdict>> = BTreeMap::new();
    for (known, group, stays) in judged {
        let verdict = Verdict { snapshot: known.clone(), time: time_of(known, times), stays };
        groups.entry(group).or_default().push(verdict);
    }
    groups.into_iter().collect()
}

/// Where each chain ends: its last number and snapshot.
type Heads = BTreeMap<(DomainId, IdentityId), (u64, ObjectId)>;

fn heads_of<'a>(names: impl Iterator<Item = &'a SnapshotName>) -> Heads {
    let mut heads = Heads::new();
    for name in names {
        let last = (name.sequence, name.id);
        let head = heads.entry((name.domain, name.identity)).or_insert(last);
        *head = last.max(*head);
    }
    heads
}

/// Where each chain ends, also with what this key cannot open, but for what is on record.
fn new_heads(
    (listed, sealed): (&[KnownSnapshot], &[SealedSnapshot]),
    recorded: &HashSet<ChainEnd>,
) -> Vec<(DomainId, ChainEnd)> {
    let names = listed.iter().map(|known| &known.name).chain(sealed.iter().map(|one| &one.name));
    let end = |((domain, identity), (sequence, id))| {
        (domain, ChainEnd { place: ChainPlace { identity, sequence }, id })
    };
    heads_of(names).into_iter().map(end).filter(|(_, end)| !recorded.contains(end)).collect()
}

/// What stays when one that was recovered is named and goes: the end of the chain of the key that it counts as of, stored
/// after it. So another host, which the lost record told, does not keep it. Only an owner recovers, and the end of a chain
/// never goes: nobody gets rid of what is the last of a key so.
fn newer_than_recovered<'a>(known: &KnownSnapshot, listed: &'a [KnownSnapshot]) -> Option<&'a KnownSnapshot> {
    let is_recovered = known.is_copy && known.record.tags.iter().any(|tag| tag == TAG_RECOVERED);
    let of_key = (known.name.domain, known.writer());
    let own =
        listed.iter().filter(|other| is_recovered && (other.name.domain, other.name.identity) == of_key);
    let end = own.max_by_key(|other| (other.name.sequence, other.name.id))?;
    Some(end).filter(|end| end.name.id != known.name.id && end.name.stored >= known.name.stored)
}

/// The newest of each key and host stay, the end of each chain among them: the next backup follows it.
fn keep_floor(
    (groups, which): (&mut [(Group, Vec<Verdict>)], &Which),
    listed: &[KnownSnapshot],
    floor: usize,
) {
    let mut newest: HashMap<(IdentityId, &str), Vec<(u64, ObjectId)>> = HashMap::new();
    for KnownSnapshot { name, record, .. } in listed {
        newest.entry((name.identity, record.host.as_str())).or_default().push((name.sequence, name.id));
    }
    let mut kept: HashSet<ObjectId> = HashSet::new();
    for chain in newest.values_mut() {
        chain.sort_unstable_by(|a, b| b.cmp(a));
        kept.extend(chain.iter().take(floor).map(|(_, id)| *id));
    }
    let heads = heads_of(listed.iter().map(|known| &known.name));
    let heads: HashSet<ObjectId> = heads.into_values().map(|(_, id)| id).collect();
    for verdict in groups.iter_mut().flat_map(|(_, verdicts)| verdicts) {
        let id = verdict.snapshot.name.id;
        if verdict.goes() && heads.contains(&id) {
            verdict.stays.push("newest of its key".to_owned());
        } else if verdict.goes() && kept.contains(&id) {
            if matches!(which, Which::Named(_)) && newer_than_recovered(&verdict.snapshot, listed).is_some() {
                continue;
            }
            verdict.stays.push("floor".to_owned());
        }
    }
}

/// What a legal hold names stays, and what replaces such a snapshot too: without it the other one, which may have gaps,
/// would count as whole.
fn keep_held(groups: &mut [(Group, Vec<Verdict>)], replaced: &[KnownSnapshot]) {
    let hidden = Hidden::new(replaced);
    for verdict in groups.iter_mut().flat_map(|(_, verdicts)| verdicts) {
        let Verdict { snapshot, stays, .. } = verdict;
        stays.extend(snapshot.holds.iter().map(|hold| format!("held: {}", hold.reason)));
        if let Some(hold) = hidden.behind(snapshot).find_map(|known| known.holds.first()) {
            stays.push(format!("replaces one that is held: {}", hold.reason));
        }
    }
}

/// Whoever names a snapshot that is held is told why it stays.
pub(super) fn refuse_held<'a>(named: impl IntoIterator<Item = &'a KnownSnapshot>) -> Result<()> {
    let mut held = named.into_iter();
    let Some((known, hold)) = held.find_map(|known| Some((known, known.holds.first()?))) else {
        return Ok(());
    };
    let (id, reason, time) = (known.name.id.to_string(), &hold.reason, hold.time.rfc3339());
    let what =
        format!("the snapshot {id} is under a legal hold since {time} ({reason}), and nothing was forgotten");
    Err(Error::new(ErrorKind::Failed, what)
        .with_remedy(format!("If that is over, an owner says so: `lifeboat hold lift {id:.8} --reason ..`")))
}

/// Where something goes, everything that may be a legal hold can be read, and none was placed meanwhile. Gives the ends of
/// chains that are on record there.
fn check_holds(repository: &Repository, groups: &[(Group, Vec<Verdict>)]) -> Result<HashSet<ChainEnd>> {
    let mut recorded = HashSet::new();
    let mut going: BTreeMap<DomainId, Vec<ObjectId>> = BTreeMap::new();
    for verdict in groups.iter().flat_map(|(_, verdicts)| verdicts).filter(|verdict| verdict.goes()) {
        going.entry(verdict.snapshot.name.domain).or_default().push(verdict.snapshot.name.id);
    }
    for (domain, ids) in going {
        let Records { quarantined, heads, .. } = repository.records(&domain)?;
        recorded.extend(heads);
        let mut annotations = repository.annotations(&domain, &quarantined)?;
        annotations.check()?;
        if let Some(id) = ids.iter().find(|id| annotations.is_held(id)) {
            let what =
                format!("a legal hold was just placed on the snapshot {id}, and nothing was forgotten");
            return Err(Error::new(ErrorKind::Failed, what).with_remedy("Run it again: that one stays"));
        }
    }
    Ok(recorded)
}

/// What stays where something goes is whole in the storage, which the cache of this machine does not tell: else the last
/// good ones would go for one that is damaged there.
fn check_stays(
    repository: &Repository,
    (groups, which): (&[(Group, Vec<Verdict>)], &Which),
    listed: &[KnownSnapshot],
) -> Result<()> {
    let mut staying: Vec<&SnapshotName> = Vec::new();
    for (group, verdicts) in groups.iter().filter(|(_, verdicts)| verdicts.iter().any(Verdict::goes)) {
        let goes = |id: &ObjectId| verdicts.iter().any(|one| one.goes() && one.snapshot.name.id == *id);
        match which {
            Which::ByRules(..) => {
                staying.extend(verdicts.iter().filter(|one| !one.goes()).map(|one| &one.snapshot.name));
            }
            // Nobody judged the others.
            Which::Named(_) => {
                let of_group = |known: &&KnownSnapshot| Group::of(known, GroupBy::default()) == *group;
                let others = listed.iter().filter(of_group).filter(|known| !goes(&known.name.id));
                let going = verdicts.iter().filter(|one| one.goes());
                let newer = going.filter_map(|one| newer_than_recovered(&one.snapshot, listed));
                staying.extend(others.chain(newer).map(|known| &known.name));
            }
        }
    }
    repository.store.each(&staying, |name| repository.check_stored(name))?;
    Ok(())
}

fn refuse_mass_removal(
    (groups, registry): (&[(Group, Vec<Verdict>)], &Registry),
    which: &Which,
    listed: &[KnownSnapshot],
) -> Result<()> {
    for (group, verdicts) in groups {
        let going = verdicts.iter().filter(|verdict| verdict.goes()).count();
        let all = match which {
            Which::ByRules(..) => verdicts.len(),
            Which::Named(_) => {
                let of_group = listed.iter().filter(|known| Group::of(known, GroupBy::default()) == *group);
                of_group.count()
            }
        };
        if going * 2 > all {
            let host = group.host.as_ref().map_or(String::new(), |host| format!(" of {host}"));
            let has_others = groups.iter().any(|(other, _)| other.key != group.key);
            let label = registry.certificate(&group.key).filter(|_| has_others).map(|known| &known.label);
            let key = label.map_or(String::new(), |label| format!(" by the key `{label}`"));
            let what = format!("{going} of {all} snapshots{host}{key} would go, so nothing was forgotten");
            return Err(Error::new(ErrorKind::Failed, what)
                .with_remedy("Look at it with --dry-run; if it is meant, add --allow-mass-removal"));
        }
    }
    Ok(())
}

/// Writes what ends, then deletes it and what earlier runs had left. Where that is in doubt in a domain it is said, and
/// the others go on: what has ended, has ended.
fn write(
    repository: &Repository,
    options: &ForgetOptions,
    (done, heads): (&mut ForgetDone, &[(DomainId, ChainEnd)]),
    replaced: &[KnownSnapshot],
) -> Result<Ended> {
    let ForgetDone { groups, damaged, .. } = done;
    let mut going: BTreeMap<DomainId, Vec<&SnapshotName>> = BTreeMap::new();
    let mut gone: HashSet<ObjectId> = HashSet::new();
    for verdict in groups.iter().flat_map(|(_, verdicts)| verdicts).filter(|verdict| verdict.goes()) {
        going.entry(verdict.snapshot.name.domain).or_default().push(&verdict.snapshot.name);
        gone.insert(verdict.snapshot.name.id);
    }
    // What was replaced hides behind what replaced it, and goes with it.
    let replacing = groups.iter().flat_map(|(_, verdicts)| verdicts).filter(|verdict| verdict.goes());
    let hidden = Hidden::new(replaced);
    let behind = replacing.flat_map(|verdict| hidden.behind(&verdict.snapshot));
    for known in behind.filter(|known| known.holds.is_empty()) {
        if !gone.insert(known.name.id) {
            continue;
        }
        going.entry(known.name.domain).or_default().push(&known.name);
    }
    let time = repository.clock.now();
    for (domain, names) in &going {
        let of_domain = heads.iter().filter(|(of, _)| of == domain).map(|(_, end)| *end);
        let mut heads: Vec<ChainEnd> = of_domain.take(HEADS_MAX).collect();
        for batch in names.chunks(SNAPSHOTS_MAX) {
            repository.store.progress().check()?;
            let snapshots = batch.iter().map(|name| name.id).collect();
            let places = batch.iter().map(|name| name.place_in_chain()).collect();
            // The first batch tells it for all of them.
            let heads = std::mem::take(&mut heads);
            let forgotten = Forgotten { time, snapshots, reason: reason(options), places, heads };
            repository.publish_forgotten(domain, &forgotten)?;
        }
    }
    let mut ended = Ended::default();
    let registry = repository.registry();
    for domain in &registry.domains {
        match delete_ended(repository, &domain.id, &gone) {
            Ok(Ended { finished, kept }) => {
                ended.finished += finished;
                ended.kept.join(kept);
            }
            Err(error) if error.kind() == ErrorKind::Damaged => damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

fn reason(options: &ForgetOptions) -> String {
    let mut text = match &options.which {
        Which::Named(_) => "named".to_owned(),
        Which::ByRules(rules, ..) => {
            let count = |count: &Count| match count {
                Count::Most(number) => number.to_string(),
                Count::All => "unlimited".to_owned(),
            };
            let counts =
                rules.counts.iter().map(|(bucket, most)| format!("keep-{} {}", bucket.name(), count(most)));
            let within = rules.within.iter().map(|(bucket, span)| match bucket {
                Bucket::Last => format!("keep-within {span}"),
                other => format!("keep-within-{} {span}", other.name()),
            });
            let tags = rules.tags.iter().map(|tags| format!("keep-tag {}", tags.join(",")));
            let ids = rules.ids.iter().map(|id| format!("keep-id {id}"));
            counts.chain(within).chain(tags).chain(ids).collect::<Vec<_>>().join("; ")
        }
    };
    let most = text.floor_char_boundary(limits::REASON_BYTES_MAX);
    text.truncate(most);
    text
}

/// What became of snapshots that have ended.
#[derive(Default)]
pub(super) struct Ended {
    /// Deleted now, though an earlier run had ended them.
    pub(super) finished: u64,
    /// Those that the storage keeps.
    pub(super) kept: Kept,
}

/// Deletes what valid records say has ended, but for what is held: a hold that was placed before its record was
/// written counts. `gone` is what this run has ended itself.
pub(super) fn delete_ended(
    repository: &Repository,
    domain: &DomainId,
    gone: &HashSet<ObjectId>,
) -> Result<Ended> {
    let names = repository.snapshot_names(domain, None)?;
    let Records { forgotten, quarantined, .. } = repository.records(domain)?;
    let mut ended: Vec<&SnapshotName> =
        names.iter().filter(|name| forgotten.contains_key(&name.id)).collect();
    if ended.is_empty() {
        return Ok(Ended::default());
    }
    // After the records: see `Repository::annotations`.
    let mut annotations = repository.annotations(domain, &quarantined)?;
    annotations.check()?;
    ended.retain(|name| !annotations.is_held(&name.id));
    ended.sort_by_key(|name| (name.stored, name.id));
    // On a local folder nobody commits while something is deleted.
    let _fence = repository.store.fence_exclusive()?;
    let (mut deleter, mut finished) = (Deleter::new(&repository.store), 0);
    for name in ended {
        let is_gone = deleter.delete(&name.name)?;
        finished += u64::from(is_gone && !gone.contains(&name.id));
    }
    Ok(Ended { finished, kept: deleter.kept })
}
