//! `usage`: what every byte that LIST shows is for. Each byte is in one class and, if snapshots reach it, in
//! the shares of whoever reaches it. Everything is summed from what the records claim and nothing is found
//! by subtraction: a sum that is not that of LIST shows that something is not as the records say.

use std::collections::{BTreeMap, HashMap};

use self::{
    account::{Account, BySet, Present},
    apportion::apportion,
    reach::{Reached, Reacher, Root, Walk},
    rows::Rows,
};
pub use self::{
    findings::{Findings, Tally, Unexplained},
    rows::{By, ROWS_MAX, RowName},
};
use crate::{
    error::{Error, ErrorKind, Result},
    id::{DomainId, IdentityId},
    limits,
    progress::Phase,
    repository::{Repository, reader::NodeReader, snapshots::KnownSnapshot, view::View},
    store::{Listed, Name, Parsed, Prefix},
};

mod account;
mod apportion;
mod findings;
mod reach;
mod rows;
mod sets;

/// What is not as it should be is named one by one up to so many, and counted beyond.
const NAMED_MAX: usize = 1000;

/// Every byte of the bucket, in exactly one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// Chunks that a snapshot reaches, with their part of their packs.
    pub reached_data: u64,
    /// Manifest nodes that a snapshot reaches, with their part of their packs.
    pub reached_metadata: u64,
    /// Dead chunks that share a frame with reached ones: only who can read contents can free them.
    pub dead_in_live_frames: u64,
    /// Frames and packs that no snapshot reaches, packs that no index lists, packs that are set aside.
    pub dead: u64,
    /// Packs that a prune has marked: they go when the grace is over.
    pub tombstoned: u64,
    /// Index objects.
    pub index: u64,
    /// Everything else that this format knows: config, keys, registry, snapshots, runs and other records.
    pub records: u64,
    /// What nothing explains.
    pub foreign: u64,
}

impl Classes {
    /// All classes with their names, in the order in which people read them.
    #[must_use]
    pub const fn all(&self) -> [(&'static str, u64); 8] {
        let Self { reached_data, reached_metadata, dead_in_live_frames, dead, .. } = *self;
        let Self { tombstoned, index, records, foreign, .. } = *self;
        [
            ("reached_data", reached_data),
            ("reached_metadata", reached_metadata),
            ("dead_in_live_frames", dead_in_live_frames),
            ("dead", dead),
            ("tombstoned", tombstoned),
            ("index", index),
            ("records", records),
            ("foreign", foreign),
        ]
    }

    /// The sum of all.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.all().iter().map(|(_, bytes)| bytes).sum()
    }
}

/// What a client or a folder has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub name: RowName,
    /// Bytes of its files in all snapshots together, as a restore of each would write them.
    pub logical: u64,
    /// Stored bytes that it reaches.
    pub stored: u64,
    /// Those of them that nobody else reaches: what the bucket would lose without it.
    pub exclusive: u64,
    /// Those of them that others reach too.
    pub shared: u64,
    /// Its part when each stored byte is divided among those who reach it.
    pub fair_share: u64,
}

/// What the bucket holds and for whom.
#[derive(Debug)]
pub struct Usage {
    /// Bytes that LIST shows.
    pub bucket: u64,
    /// Objects that LIST shows.
    pub objects: u64,
    /// The same bytes by class.
    pub classes: Classes,
    /// The rows, by name.
    pub rows: Vec<Row>,
    /// By what the rows are divided.
    pub by: By,
    /// Snapshots that were looked at.
    pub snapshots: u64,
    /// Manifest nodes that were read, each once.
    pub nodes: u64,
    /// What is worth knowing, and what is not as it should be.
    pub findings: Findings,
}

impl Usage {
    /// Reached bytes that no row has a share of: manifests, when the rows are folders.
    #[must_use]
    pub const fn unshared(&self) -> u64 {
        match self.by {
            By::Client => 0,
            By::Path(_) => self.classes.reached_metadata,
        }
    }
}

/// Accounts for every byte.
///
/// # Errors
/// `Forbidden` for a role that reads no manifests; storage trouble; too many rows. What is damaged or not
/// explained is in the result.
pub fn run(repository: &Repository, by: By) -> Result<Usage> {
    repository.store.progress().enter(Phase::Checking);
    // With those that another one replaces: nothing is freed by replacing a snapshot.
    let mut every = repository.every_snapshot()?;
    let mut findings = Findings::default();
    every.damaged.drain(..).for_each(|(_, error)| findings.problem(error));
    let snapshots = every.all();
    let mut views: BTreeMap<DomainId, View> = BTreeMap::new();
    for domain in &repository.registry().domains {
        let mut view = repository.view_to_read(&domain.id)?;
        view.damaged.drain(..).for_each(|error| findings.problem(error));
        views.insert(domain.id, view);
    }
    // LIST comes last: whatever an index lists is in it, unless it is lost.
    let mut sorted = Sorted::default();
    for listed in repository.store.list(&Prefix::all())? {
        sorted.put(repository, &views, &listed, &mut findings);
    }
    let Sorted { bucket, objects, mut classes, mut packs } = sorted;
    let (mut rows, mut by_set, mut nodes) = (Rows::new(), BySet::new(), 0);
    for (domain, view) in &views {
        let own: Vec<&KnownSnapshot> =
            snapshots.iter().filter(|known| known.name.domain == *domain).collect();
        let mut reached = reach(repository, (domain, view), (by, &own), &mut rows)?;
        nodes += reached.nodes;
        findings.take(&mut reached);
        let (reached, classes, by_set, findings) = (&reached, &mut classes, &mut by_set, &mut findings);
        let account = Account { domain, view, reached, classes, by_set, findings };
        account.run(packs.remove(domain).unwrap_or_default())?;
    }
    let rows = shares(rows, &by_set);
    let usage =
        Usage { bucket, objects, classes, rows, by, snapshots: snapshots.len() as u64, nodes, findings };
    let shared: u64 = usage.rows.iter().map(|row| row.fair_share).sum();
    let reached = usage.classes.reached_data + usage.classes.reached_metadata;
    agree(("the classes", usage.classes.sum()), ("LIST", bucket))?;
    agree(("the rows", shared + usage.unshared()), ("what snapshots need", reached))?;
    Ok(usage)
}

/// Two sums of the same bytes.
fn agree((one, left): (&str, u64), (other, right): (&str, u64)) -> Result<()> {
    if left == right {
        return Ok(());
    }
    let text = format!("{one} sum to {left} bytes and {other} to {right}");
    Err(Error::new(ErrorKind::Failed, text).with_remedy("This is a mistake of this program"))
}

/// Who reaches what in one domain.
fn reach(
    repository: &Repository,
    (domain, view): (&DomainId, &View),
    (by, snapshots): (By, &[&KnownSnapshot]),
    rows: &mut Rows,
) -> Result<Reached> {
    let (mut reachers, mut roots) = (Vec::new(), Vec::new());
    let mut numbers = HashMap::new();
    for KnownSnapshot { name, record, .. } in snapshots {
        let registry = repository.registry();
        let Some(certificate) = registry.certificate(&name.identity) else { continue };
        let client = RowName::client(certificate, &record.host);
        let row = match by {
            By::Client => {
                let row = rows.number(client.clone())?;
                rows.add_logical(row, record.statistics.bytes);
                row
            }
            By::Path(_) => 0,
        };
        let who = *numbers.entry((name.identity, client)).or_insert_with(|| {
            reachers.push(Reacher { identity: name.identity, row });
            reachers.len() - 1
        });
        let who = u32::try_from(who).unwrap_or(u32::MAX);
        roots.push(Root { node: record.root, level: record.levels, who });
    }
    let nodes = NodeReader::new(repository, *domain, &view.index)?;
    Walk::new(repository, (&view.index, &nodes), (by, &reachers), rows).run(&roots)
}

/// The rows with their bytes: those of each set are divided once, so that less than one byte of each set is
/// where it is only because bytes cannot be split.
fn shares(rows: Rows, by_set: &BySet) -> Vec<Row> {
    let Rows { names, logical, sets, .. } = rows;
    let mut rows: Vec<Row> = (names.into_iter().zip(logical))
        .map(|(name, logical)| Row { name, logical, stored: 0, exclusive: 0, shared: 0, fair_share: 0 })
        .collect();
    for (set, members) in sets.all() {
        let Some(bytes) = by_set.get(&set) else { continue };
        // By name, so that the order in which rows were met decides nothing.
        let mut members: Vec<usize> = members.iter().map(|member| *member as usize).collect();
        members.sort_by_key(|member| rows.get(*member).map(|row| row.name.clone()));
        let parts = apportion(*bytes, &vec![1; members.len()]);
        for (member, part) in members.iter().zip(parts) {
            let Some(row) = rows.get_mut(*member) else { continue };
            row.stored += bytes;
            row.fair_share += part;
            if members.len() == 1 { row.exclusive += bytes } else { row.shared += bytes }
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// Whether a key slot has a name as this program gives it: an identity, and something random.
fn is_slot(name: &str) -> bool {
    let is_hex = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.split_once('-')
        .is_some_and(|(identity, rest)| IdentityId::from_hex(identity).is_some() && is_hex(rest))
}

/// The objects of LIST, sorted by what their names say.
#[derive(Default)]
struct Sorted {
    bucket: u64,
    objects: u64,
    classes: Classes,
    packs: HashMap<DomainId, Present>,
}

impl Sorted {
    fn put(
        &mut self,
        repository: &Repository,
        views: &BTreeMap<DomainId, View>,
        listed: &Listed,
        findings: &mut Findings,
    ) {
        let Listed { name, size, .. } = listed;
        self.bucket += size;
        self.objects += 1;
        let nobody = |identity| repository.registry().certificate(identity).is_none();
        let probes = |domain: &DomainId| *domain == DomainId::new([0; DomainId::LEN]);
        let foreign = match Name::parse(name).map(|name| name.parsed()) {
            Some(Parsed::Pack { domain, kind, id }) if views.contains_key(&domain) => {
                self.packs.entry(domain).or_default().insert((kind, id), *size);
                return;
            }
            None => "its name is none that this program gives",
            Some(Parsed::Slot(slot)) if !is_slot(&slot) => "its name is none that this program gives",
            Some(Parsed::Run { domain, .. }) if probes(&domain) => {
                self.classes.records += size;
                return;
            }
            Some(
                Parsed::Pack { domain, .. }
                | Parsed::Index { domain, .. }
                | Parsed::Snapshot { domain, .. }
                | Parsed::Run { domain, .. }
                | Parsed::Record { domain, .. },
            ) if !views.contains_key(&domain) => "the registry has no such domain",
            Some(
                Parsed::Index { writer: identity, .. }
                | Parsed::Snapshot { identity, .. }
                | Parsed::Run { identity, .. }
                | Parsed::Evidence { identity, .. },
            ) if nobody(&identity) => "nobody with that identity is certified",
            Some(Parsed::Index { .. }) if *size <= limits::INDEX_BYTES_MAX as u64 => {
                self.classes.index += size;
                return;
            }
            Some(_) if *size <= limits::RECORD_BYTES_MAX as u64 => {
                self.classes.records += size;
                return;
            }
            Some(_) => "it is larger than any object of its sort may be",
        };
        self.classes.foreign += size;
        findings.unexplained(name, Some(*size), foreign.to_owned());
    }
}
