//! The ledger: from the signed records of checks, which packs were read, when and by whom, and which are due.
//! Promise: what counts as read was read since the storage got it, by the word of an identity whose role can read
//! it so. No clock of a client makes a pack younger than the record that says so.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::ControlFlow,
    time::Duration,
};

use super::{Checked, NAMED_MAX};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    format::{
        ledger::{CHECK, CheckReport, Reading, SHELVES, Shelf, Shelves},
        pack::PackKind,
        role::Role,
    },
    id::{DomainId, IdentityId, PackId},
    repository::{Repository, evidence::KnownEvidence},
    store::Name,
};

/// Damaged packs that records name, at most, before further records are left out.
const DAMAGED_MAX: usize = 1 << 16;
/// So many of the newest records tell how often somebody checks.
const HABIT_RECORDS: usize = 16;
/// What is assumed when they do not tell.
const HABIT: Duration = Duration::from_hours(24);
/// Two checks in a row are no habit.
const HABIT_MIN: Duration = Duration::from_hours(1);
/// Nor is one that was forgotten for a season.
const HABIT_MAX: Duration = Duration::from_hours(24 * 31);

/// How old what was read may become, and how much a run may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// No byte is to stay unread for longer.
    pub max_age: Duration,
    /// Bytes that a run reads at most (but at least one shelf); none is all that is due.
    pub budget: Option<u64>,
}

/// Who read something, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Whose record it is.
    pub identity: IdentityId,
    /// The name of the identity for people.
    pub label: String,
    /// When the reading began, as far as the storage bears it out: whole seconds.
    pub time: Timestamp,
}

/// The last reading of a shelf: seconds since 1970, and the number of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    time: i64,
    record: u32,
}

/// The last reading of every shelf of a domain. Each key holds until the next one.
#[derive(Debug, Default)]
struct Column(BTreeMap<u16, Option<Seen>>);

impl Column {
    fn at(&self, shelf: u16) -> Option<Seen> {
        self.0.range(..=shelf).next_back().and_then(|(_, seen)| *seen)
    }

    fn enter(&mut self, (first, last): (u16, u16), seen: Seen) {
        for start in [first, last + 1] {
            if start < SHELVES {
                let before = self.at(start);
                self.0.entry(start).or_insert(before);
            }
        }
        for (_, known) in self.0.range_mut(first..=last) {
            if known.is_none_or(|known| known.time < seen.time) {
                *known = Some(seen);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.0.contains_key(&0) && self.0.values().all(Option::is_some)
    }

    /// What was read in one go: shelves that lie together and were last read by one record.
    fn spans(&self) -> Vec<(Shelves, Seen)> {
        let records: HashSet<u32> = self.0.values().flatten().map(|seen| seen.record).collect();
        let mut spans: Vec<(Shelves, Seen)> = records
            .into_iter()
            .filter_map(|record| {
                let of = |seen: &Seen| seen.record == record;
                let shelves = Shelves::which(|shelf| self.at(shelf.number()).is_some_and(|seen| of(&seen)));
                Some((shelves, *self.0.values().flatten().find(|seen| of(seen))?))
            })
            .collect();
        spans.sort_unstable_by_key(|(_, seen)| (seen.time, seen.record));
        spans
    }
}

/// The columns of a domain.
#[derive(Debug, Default)]
struct Columns {
    hashed: Column,
    decrypted: Column,
    /// What was read as thoroughly as counts, but in another storage with the same objects.
    elsewhere: Column,
}

impl Columns {
    const fn column(&self, reading: Reading) -> &Column {
        match reading {
            Reading::Hashed => &self.hashed,
            Reading::Decrypted => &self.decrypted,
        }
    }
}

/// A pack in the storage, in 24 bytes: there may be a million.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// The beginning of its id.
    head: u64,
    /// When the storage got it, in seconds since 1970.
    stored: i64,
    size: u32,
    shelf: u16,
    kind: PackKind,
}

fn head_of(pack: &PackId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *pack.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// What the records of checks say of the packs that are there.
#[derive(Debug)]
pub(super) struct Ledger {
    domains: Vec<(DomainId, String, Vec<Row>, Columns)>,
    readers: Vec<Reader>,
    /// By record.
    damaged: HashMap<(u32, u64), PackId>,
    /// What ages count to: this machine's clock, or the newest stamp of the storage if that is later.
    now: i64,
    /// How often somebody checks.
    habit: Duration,
    /// The storage that it is the ledger of, and the column that counts.
    of: (Option<String>, Reading),
}

/// A shelf in the queue.
struct Queued {
    since: i64,
    place: (usize, u16),
    bytes: u64,
    damaged: bool,
}

impl Ledger {
    /// Reads the records, newest first, until every shelf is accounted for in the column that counts. Each domain comes
    /// with the names of what is set aside there.
    pub(super) fn read(
        repository: &Repository,
        domains: &[(DomainId, HashSet<String>)],
        (reading, checked): (Reading, &mut Checked),
    ) -> Result<Self> {
        let registry = repository.registry();
        let mut ledger = Self {
            domains: Vec::new(),
            readers: Vec::new(),
            damaged: HashMap::new(),
            now: repository.clock.now().seconds,
            habit: HABIT,
            of: (repository.store.place(), reading),
        };
        for (domain, aside) in domains {
            let name = registry.domain(domain).map(|known| known.name.clone()).unwrap_or_default();
            let mut rows = Vec::new();
            for (id, pack) in repository.listed_packs(domain)? {
                ledger.now = ledger.now.max(pack.stored.seconds);
                // Nobody counts on one that is set aside.
                if aside.is_empty() || !aside.contains(Name::pack(domain, pack.kind, &id).as_str()) {
                    let size = u32::try_from(pack.size).unwrap_or(u32::MAX);
                    let shelf = Shelf::of(&id).number();
                    let (head, stored, kind) = (head_of(&id), pack.stored.seconds, pack.kind);
                    rows.push(Row { head, stored, size, shelf, kind });
                }
            }
            ledger.domains.push((*domain, name, rows, Columns::default()));
        }
        let mut refused = Vec::new();
        let problems = repository.for_newest_evidence(&mut |known, (stored, role)| {
            ledger.now = ledger.now.max(stored.seconds);
            if known.head.kind == CHECK
                && let Err(error) = ledger.enter(&known, stored, role)
            {
                refused.push(error.context(&known.name));
            }
            let full = |(_, _, rows, columns): &(_, _, Vec<Row>, Columns)| {
                rows.is_empty() || columns.column(reading).is_full()
            };
            let enough = ledger.readers.len() >= HABIT_RECORDS && ledger.domains.iter().all(full);
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        for error in problems.into_iter().chain(refused) {
            checked.note(format!("a record does not count: {error}"));
        }
        ledger.habit = ledger.habit();
        Ok(ledger)
    }

    /// Takes in a record. What it says is older than it claims if the storage got it sooner after its beginning.
    fn enter(&mut self, known: &KnownEvidence, stored: Timestamp, role: Role) -> Result<()> {
        let damaged = |why: &str| Error::damaged("the report", why);
        let report = CheckReport::decode(known.report.payload())?;
        if report.reading == Reading::Decrypted && !matches!(role, Role::Restore | Role::Owner) {
            return Err(damaged(&format!("a key with the role {} cannot have decrypted that", role.name())));
        }
        let begun = Timestamp::from_rfc3339(&report.begun).ok_or_else(|| damaged("it has no time"))?.seconds;
        let took = i64::try_from(report.seconds).unwrap_or(i64::MAX);
        let time = begun.min(stored.seconds.saturating_sub(took));
        let mut read = Vec::new();
        for domain in &report.domains {
            let packs: Option<Vec<PackId>> =
                domain.damaged.iter().map(|text| PackId::from_hex(text)).collect();
            let packs = packs.ok_or_else(|| damaged("it names packs that are none"))?;
            let id = DomainId::from_hex(&domain.domain).ok_or_else(|| damaged("it names no domain"))?;
            read.push((id, Shelves::parse(&domain.shelves)?, packs));
        }
        let named: usize = read.iter().map(|(_, _, packs)| packs.len()).sum();
        if self.damaged.len().saturating_add(named) > DAMAGED_MAX {
            return Err(damaged("too many packs are damaged to remember those that it names"));
        }
        // A mirror has the records of the original, and nobody has read it for that.
        if report.place.is_none() || report.place != self.of.0 {
            self.take_from_elsewhere(time, report.reading, &read);
            return Ok(());
        }
        let label = known.head.label.clone();
        self.take(
            Reader { identity: known.identity, label, time: Timestamp::from_seconds(time) },
            report.reading,
            &read,
        );
        Ok(())
    }

    /// Takes in what was read.
    pub(super) fn take(
        &mut self,
        reader: Reader,
        reading: Reading,
        read: &[(DomainId, Shelves, Vec<PackId>)],
    ) {
        let record = u32::try_from(self.readers.len()).unwrap_or(u32::MAX);
        let seen = Seen { time: reader.time.seconds, record };
        self.readers.push(reader);
        for (id, shelves, damaged) in read {
            self.damaged.extend(damaged.iter().map(|pack| ((record, head_of(pack)), *pack)));
            let Some((.., columns)) = self.domains.iter_mut().find(|(known, ..)| known == id) else {
                continue;
            };
            for range in shelves.ranges() {
                columns.hashed.enter(*range, seen);
                if reading == Reading::Decrypted {
                    columns.decrypted.enter(*range, seen);
                }
            }
        }
    }

    /// Remembers what was read in another storage.
    fn take_from_elsewhere(
        &mut self,
        time: i64,
        reading: Reading,
        read: &[(DomainId, Shelves, Vec<PackId>)],
    ) {
        if self.of.1 == Reading::Decrypted && reading == Reading::Hashed {
            return;
        }
        for (id, shelves, _) in read {
            if let Some((.., columns)) = self.domains.iter_mut().find(|(known, ..)| known == id) {
                let seen = Seen { time, record: u32::MAX };
                shelves.ranges().iter().for_each(|range| columns.elsewhere.enter(*range, seen));
            }
        }
    }

    /// Bytes that nobody has read here, and somebody elsewhere.
    fn read_elsewhere_only(&self) -> u64 {
        let rows =
            self.domains.iter().flat_map(|(.., rows, columns)| rows.iter().map(move |row| (row, columns)));
        let only = rows.filter(|(row, columns)| {
            let read = |column: &Column| column.at(row.shelf).is_some_and(|seen| seen.time >= row.stored);
            read(&columns.elsewhere) && !read(columns.column(self.of.1))
        });
        only.map(|(row, _)| u64::from(row.size)).sum()
    }

    /// The time between two checks, on average over the last ones.
    fn habit(&self) -> Duration {
        let mut times: Vec<i64> = self.readers.iter().map(|reader| reader.time.seconds).collect();
        times.sort_unstable_by_key(|time| std::cmp::Reverse(*time));
        times.truncate(HABIT_RECORDS);
        let (Some(first), 2..) = (times.last(), times.len()) else { return HABIT };
        let span = u64::try_from(self.now.saturating_sub(*first)).unwrap_or(0);
        Duration::from_secs(span / times.len() as u64).clamp(HABIT_MIN, HABIT_MAX)
    }

    /// What ages count to.
    pub(super) const fn now(&self) -> i64 {
        self.now
    }

    /// Since when nobody read a pack, and whether somebody found it good then.
    fn since(&self, (columns, row): (&Columns, Row), reading: Reading) -> (i64, bool) {
        let seen = columns.column(reading).at(row.shelf).filter(|seen| seen.time >= row.stored);
        match seen {
            None => (row.stored, false),
            Some(seen) => (seen.time, !self.damaged.contains_key(&(seen.record, row.head))),
        }
    }

    /// Every shelf that holds something, the one that was not read for longest first.
    fn queue(&self, reading: Reading) -> Vec<Queued> {
        let mut queue = Vec::new();
        for (number, (_, _, rows, columns)) in self.domains.iter().enumerate() {
            let mut shelves: BTreeMap<u16, Queued> = BTreeMap::new();
            for row in rows {
                let (since, good) = self.since((columns, *row), reading);
                let place = (number, row.shelf);
                let empty = Queued { since, place, bytes: 0, damaged: false };
                let shelf = shelves.entry(row.shelf).or_insert(empty);
                shelf.since = shelf.since.min(since);
                shelf.bytes += u64::from(row.size);
                // A pack that came after the last reading is no damage.
                shelf.damaged |= !good && since > row.stored;
            }
            queue.extend(shelves.into_values());
        }
        queue.sort_unstable_by_key(|shelf| (shelf.since, shelf.place));
        queue
    }

    fn age(&self, since: i64) -> Duration {
        Duration::from_secs(u64::try_from(self.now.saturating_sub(since)).unwrap_or(0))
    }

    /// How many from the front of the queue must be read now: if each run reads its budget and the next one comes
    /// when it usually does, one of them would grow older than it may.
    fn due(&self, queue: &[Queued], policy: Policy) -> usize {
        // The run that reads a shelf if this one reads none: as many shelves fit into each as into this one.
        let (mut turns, mut bytes, mut due) = (1_u32, 0_u64, 0);
        for (number, shelf) in queue.iter().enumerate() {
            let more = bytes.saturating_add(shelf.bytes);
            let fits = bytes == 0 || policy.budget.is_none_or(|budget| more <= budget);
            (turns, bytes) = if fits { (turns, more) } else { (turns.saturating_add(1), shelf.bytes) };
            if self.age(shelf.since).saturating_add(self.habit.saturating_mul(turns)) > policy.max_age {
                due = number + 1;
            }
        }
        due
    }

    /// The shelves to read now, by domain: those that are due, oldest first, then those of which something is known
    /// to be damaged, as far as the budget goes.
    pub(super) fn plan(&self, policy: Policy, reading: Reading) -> HashMap<DomainId, HashSet<u16>> {
        let queue = self.queue(reading);
        let due = self.due(&queue, policy);
        let damaged = queue.iter().skip(due).filter(|shelf| shelf.damaged);
        let (mut plan, mut bytes) = (HashMap::<DomainId, HashSet<u16>>::new(), 0_u64);
        for Queued { place: (domain, shelf), bytes: size, .. } in queue.iter().take(due).chain(damaged) {
            let more = bytes.saturating_add(*size);
            if policy.budget.is_some_and(|budget| more > budget) && !plan.is_empty() {
                break;
            }
            bytes = more;
            if let Some((id, ..)) = self.domains.get(*domain) {
                plan.entry(*id).or_default().insert(*shelf);
            }
        }
        plan
    }

    /// The packs that were found damaged and not good since, with who said so: they are problems as long as they
    /// are there. `plan` is what is read anyway.
    pub(super) fn tell_damaged(
        &self,
        reading: Reading,
        plan: &HashMap<DomainId, HashSet<u16>>,
        checked: &mut Checked,
    ) {
        for (domain, _, rows, columns) in &self.domains {
            for row in rows {
                let Some(seen) = columns.column(reading).at(row.shelf).filter(|seen| seen.time >= row.stored)
                else {
                    continue;
                };
                let Some(pack) = self.damaged.get(&(seen.record, row.head)) else { continue };
                let read_now = plan.get(domain).is_some_and(|shelves| shelves.contains(&row.shelf));
                if let (false, Some(reader)) = (read_now, self.readers.get(seen.record as usize)) {
                    let when = reader.time.rfc3339();
                    let what = format!(
                        "{} found it damaged, or what an index says of it, on {when}, and nobody has read it since",
                        reader.label
                    );
                    // The name of the object: the commands that it is given to take nothing else.
                    let remedy = "`lifeboat check --read-data` reads it, and tells which";
                    checked.problem_with_remedy(Name::pack(domain, row.kind, pack).as_str(), what, remedy);
                }
            }
        }
    }

    /// How much of everything was read within the time.
    pub(super) fn coverage(&self, policy: Policy, reading: Reading) -> Coverage {
        let queue = self.queue(reading);
        let due = self.due(&queue, policy);
        let within = |since: i64| self.age(since) <= policy.max_age;
        let domains = self.domains.iter().map(|(id, name, rows, columns)| {
            let mut covered = DomainCoverage::new(*id, name.clone());
            for row in rows {
                let size = u64::from(row.size);
                covered.packs += 1;
                covered.bytes += size;
                for (reading, sum) in
                    [(Reading::Hashed, &mut covered.hashed), (Reading::Decrypted, &mut covered.decrypted)]
                {
                    let (since, good) = self.since((columns, *row), reading);
                    *sum += if good && within(since) { size } else { 0 };
                }
            }
            if !rows.is_empty() {
                for reading in [Reading::Hashed, Reading::Decrypted] {
                    let spans = columns.column(reading).spans().into_iter().take(NAMED_MAX);
                    covered.spans.extend(spans.filter_map(|(shelves, seen)| {
                        let reader = self.readers.get(seen.record as usize)?.clone();
                        Some(Span { shelves, reading, reader })
                    }));
                }
            }
            covered
        });
        let domains: Vec<DomainCoverage> = domains.collect();
        let bytes: u64 = domains.iter().map(|domain| domain.bytes).sum();
        let oldest = queue.first().and_then(|shelf| {
            let (domain, number) = shelf.place;
            let (id, name, _, columns) = self.domains.get(domain)?;
            let seen = columns.column(reading).at(number).filter(|seen| seen.time == shelf.since);
            let reader = seen.and_then(|seen| self.readers.get(seen.record as usize)).cloned();
            let shelf_text = format!("{number:03x}");
            Some(Oldest {
                domain: *id,
                name: name.clone(),
                shelf: shelf_text,
                age: self.age(shelf.since),
                reader,
            })
        });
        Coverage {
            reading,
            policy,
            habit: self.habit,
            bytes,
            due: queue.iter().take(due).map(|shelf| shelf.bytes).sum(),
            elsewhere: self.read_elsewhere_only(),
            needs: needed(bytes, self.habit, policy.max_age),
            oldest,
            domains,
        }
    }
}

/// Bytes that each run must read so that all is read within the time.
fn needed(bytes: u64, habit: Duration, max_age: Duration) -> u64 {
    let runs = (max_age.as_secs() / habit.as_secs().max(1)).max(1);
    bytes.div_ceil(runs)
}

/// How much was read, how long ago.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// The column that counts for this identity.
    pub reading: Reading,
    /// What was asked for.
    pub policy: Policy,
    /// How often somebody checks.
    pub habit: Duration,
    /// Bytes of all packs.
    pub bytes: u64,
    /// Bytes that are due and were not read.
    pub due: u64,
    /// Bytes that were read so in another storage with the same objects, and never in this one.
    pub elsewhere: u64,
    /// Bytes that each run must read to keep to the time.
    pub needs: u64,
    /// What was not read for longest.
    pub oldest: Option<Oldest>,
    /// One for each.
    pub domains: Vec<DomainCoverage>,
}

impl Coverage {
    /// Bytes that were read so within the time, and are good.
    #[must_use]
    pub fn read(&self, reading: Reading) -> u64 {
        let of = |domain: &DomainCoverage| match reading {
            Reading::Hashed => domain.hashed,
            Reading::Decrypted => domain.decrypted,
        };
        self.domains.iter().map(of).sum()
    }

    /// Whether something was not read for longer than it may be.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.oldest.as_ref().is_some_and(|oldest| oldest.age > self.policy.max_age)
    }
}

/// The byte that was not read for longest.
#[derive(Clone, Debug)]
pub struct Oldest {
    /// Its domain.
    pub domain: DomainId,
    /// The name of the domain.
    pub name: String,
    /// Its shelf.
    pub shelf: String,
    /// How long ago it was read, or written if nobody read it.
    pub age: Duration,
    /// Who read it then.
    pub reader: Option<Reader>,
}

/// How much of a domain was read.
#[derive(Clone, Debug)]
pub struct DomainCoverage {
    /// The domain.
    pub domain: DomainId,
    /// Its name.
    pub name: String,
    /// Packs that are there.
    pub packs: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Bytes of which the hashes were seen within the time, all of them good.
    pub hashed: u64,
    /// Bytes that were decrypted within the time, all of them good.
    pub decrypted: u64,
    /// Who read what when.
    pub spans: Vec<Span>,
}

impl DomainCoverage {
    const fn new(domain: DomainId, name: String) -> Self {
        Self { domain, name, packs: 0, bytes: 0, hashed: 0, decrypted: 0, spans: Vec::new() }
    }
}

/// Shelves that were last read together.
#[derive(Clone, Debug)]
pub struct Span {
    /// The shelves.
    pub shelves: Shelves,
    /// How.
    pub reading: Reading,
    /// By whom, and when.
    pub reader: Reader,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn pack(shelf: u16) -> PackId {
        let mut id = [0; 32];
        [id[1], id[0]] = (shelf << 4).to_le_bytes();
        PackId::new(id)
    }

    fn ledger(shelves: u16, size: u32) -> Ledger {
        let row = |shelf| Row { head: head_of(&pack(shelf)), stored: 0, size, shelf, kind: PackKind::Data };
        let rows = (0..shelves).map(|shelf| row(shelf * 16)).collect();
        let domain = (DomainId::new([1; 8]), "main".to_owned(), rows, Columns::default());
        let of = (None, Reading::Decrypted);
        Ledger {
            domains: vec![domain],
            readers: Vec::new(),
            damaged: HashMap::new(),
            now: 0,
            habit: HABIT,
            of,
        }
    }

    fn read(ledger: &mut Ledger, plan: &HashMap<DomainId, HashSet<u16>>) -> u64 {
        let Some(shelves) = plan.get(&DomainId::new([1; 8])) else { return 0 };
        let time = Timestamp::from_seconds(ledger.now);
        let reader = Reader { identity: IdentityId::new([2; 16]), label: "us".to_owned(), time };
        let all = Shelves::which(|shelf| shelves.contains(&shelf.number()));
        ledger.take(reader, Reading::Decrypted, &[(DomainId::new([1; 8]), all, Vec::new())]);
        shelves.len() as u64
    }

    #[test]
    fn runs_day_by_day_keep_everything_younger_than_the_limit_and_read_hardly_more_than_they_must() {
        // All of it was written on one day, and would be due on one.
        let mut ledger = ledger(200, 1000);
        let policy = Policy { max_age: Duration::from_hours(30 * 24), budget: Some(200_000 / 28) };
        let (mut total, mut idle) = (0, 0);
        for day in 1..=240 {
            ledger.now = day * DAY;
            ledger.habit = ledger.habit();
            let plan = ledger.plan(policy, Reading::Decrypted);
            let shelves = read(&mut ledger, &plan);
            assert!(shelves * 1000 <= 200_000 / 28, "day {day}");
            total += shelves;
            idle += u64::from(shelves == 0);
            let coverage = ledger.coverage(policy, Reading::Decrypted);
            assert!(!coverage.is_overdue(), "day {day}: {:?}", coverage.oldest);
        }
        assert!((200 * 7..200 * 9).contains(&total), "{total} shelves in eight months");
        assert!(idle > 0, "it does nothing when it need not");
    }

    #[test]
    fn without_a_budget_everything_is_read_that_would_be_too_old_before_the_next_run() {
        let mut ledger = ledger(10, 1000);
        let policy = Policy { max_age: Duration::from_hours(30 * 24), budget: None };
        for (day, due) in [(28, 0), (29, 0), (30, 10), (31, 10)] {
            ledger.now = day * DAY;
            let plan = ledger.plan(policy, Reading::Hashed);
            assert_eq!(plan.values().map(HashSet::len).sum::<usize>(), due, "day {day}");
        }
    }

    #[test]
    fn the_younger_of_two_readings_counts_for_each_shelf() {
        let seen = |time, record| Seen { time, record };
        let mut column = Column::default();
        for (range, seen) in [
            ((0, SHELVES - 1), seen(5, 0)),
            ((10, 20), seen(9, 1)),
            ((15, 30), seen(7, 2)),
            ((0, 0), seen(4, 3)),
            ((SHELVES - 1, SHELVES - 1), seen(6, 4)),
        ] {
            column.enter(range, seen);
        }
        let records: Vec<u32> =
            [0, 9, 10, 20, 21, 30, 31, SHELVES - 1].map(|shelf| column.at(shelf).unwrap().record).to_vec();
        assert_eq!(records, [0, 0, 1, 1, 2, 2, 0, 4]);
        assert!(column.is_full());
        let texts: Vec<String> = column.spans().iter().map(|(shelves, _)| shelves.to_string()).collect();
        assert_eq!(texts, ["000-009,01f-ffe", "fff", "015-01e", "00a-014"]);
        let mut gap = Column::default();
        gap.enter((1, SHELVES - 1), seen(1, 0));
        assert!(!gap.is_full() && gap.at(0).is_none());
    }

    #[test]
    fn the_habit_is_the_time_between_the_last_checks_within_reason() {
        let mut ledger = ledger(1, 1);
        assert_eq!(ledger.habit(), HABIT);
        let all = HashMap::from([(DomainId::new([1; 8]), HashSet::from([0]))]);
        for day in 1..=20 {
            ledger.now = day * 7 * DAY;
            read(&mut ledger, &all);
        }
        ledger.now += 7 * DAY;
        assert_eq!(ledger.habit(), Duration::from_hours(7 * 24));
        (0..30).for_each(|_| {
            read(&mut ledger, &all);
        });
        assert_eq!(ledger.habit(), HABIT_MIN);
    }
}
