//! The account of a bucket as a person would make it with paper and patience: every snapshot is walked by
//! itself, who reaches what stands in maps, and shares are fractions. Slow, simple, and written without a
//! look at the code that it checks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use lifeboat::{
    format::{
        entry::{Content, EntryKind},
        node::Node,
        pack::{Directory, PackKind},
    },
    id::{BlobId, DomainId, IdentityId, PackId},
    repository::{Repository, manifest::NodeSource, reader::NodeReader, view::View},
    store::{Name, Parsed, Prefix},
};

/// Fair shares are counted in this part of a byte: it is divisible by every number of rows up to 8.
pub(crate) const PARTS: u128 = 840;

/// What the test did to the bucket.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) tombstoned: HashSet<PackId>,
    pub(crate) set_aside: HashSet<String>,
    pub(crate) attested: HashSet<PackId>,
    pub(crate) foreign: HashSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) logical: u64,
    pub(crate) stored: u64,
    pub(crate) exclusive: u64,
    pub(crate) shared: u64,
    /// In 840ths of a byte.
    pub(crate) fair: u128,
}

#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub(crate) classes: BTreeMap<&'static str, u64>,
    pub(crate) lines: BTreeMap<String, Line>,
    pub(crate) nodes: HashSet<(DomainId, BlobId)>,
    /// How many different groups share something.
    pub(crate) groups: HashSet<BTreeSet<String>>,
}

/// Where a blob is: pack, frame, number in the frame, length.
type Place = (PackId, usize, usize, u32);

struct Domain<'a> {
    id: DomainId,
    packs: HashMap<PackId, (PackKind, Directory)>,
    places: HashMap<BlobId, Vec<Place>>,
    nodes: NodeReader<'a>,
    told: &'a Told,
    reached: HashMap<(PackId, usize, usize), BTreeSet<String>>,
}

impl Domain<'_> {
    /// The copy that a snapshot of `author` uses.
    fn place(&self, id: &BlobId, author: IdentityId, length: Option<u32>) -> Option<Place> {
        let fitting = self.places.get(id)?.iter().filter(|place| length.is_none_or(|l| l == place.3));
        fitting.copied().min_by_key(|(pack, frame, blob, _)| {
            let (_, directory) = &self.packs[pack];
            let section = &directory.sections[usize::from(directory.frames[*frame].section)];
            let rank = match (self.told.attested.contains(pack), section.author == author) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => 2,
            };
            // What is set aside is still read, after all else.
            let standing = match (self.is_set_aside(pack), self.told.tombstoned.contains(pack)) {
                (true, _) => 2,
                (false, true) => 1,
                (false, false) => 0,
            };
            (standing, rank, *pack, *frame, *blob)
        })
    }

    fn is_set_aside(&self, pack: &PackId) -> bool {
        let (kind, _) = &self.packs[pack];
        self.told.set_aside.contains(Name::pack(&self.id, *kind, pack).as_str())
    }

    fn reach(&mut self, id: &BlobId, who: (IdentityId, &[String]), length: Option<u32>) -> bool {
        let Some((pack, frame, blob, _)) = self.place(id, who.0, length) else { return false };
        self.reached.entry((pack, frame, blob)).or_default().extend(who.1.iter().cloned());
        true
    }
}

/// `total` in proportion to `weights`, the rest to the largest fractions, of equal ones to the first.
fn divided(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u64 = weights.iter().sum();
    let exact = |weight: &u64| (u128::from(total) * u128::from(*weight), u128::from(sum));
    let mut parts: Vec<u64> = Vec::new();
    let mut fractions: Vec<u128> = Vec::new();
    for weight in weights {
        let (above, below) = exact(weight);
        parts.push((above / below) as u64);
        fractions.push(above % below);
    }
    while parts.iter().sum::<u64>() < total {
        let largest = *fractions.iter().max().unwrap();
        let at = fractions.iter().position(|fraction| *fraction == largest).unwrap();
        parts[at] += 1;
        fractions[at] = 0;
    }
    parts
}

fn client(repository: &Repository, identity: &IdentityId, host: &str) -> String {
    let registry = repository.registry();
    let certificate = registry.certificates.iter().find(|c| c.identity == *identity).unwrap();
    if certificate.shared { format!("{}@{host}", certificate.label) } else { certificate.label.clone() }
}

fn folder(path: &[u8], depth: usize) -> String {
    let text = std::str::from_utf8(path).unwrap();
    let parts: Vec<&str> = text.split('/').collect();
    let folders = &parts[..parts.len() - 1];
    format!("/{}", folders[..folders.len().min(depth)].join("/"))
}

const CLASSES: [&str; 8] = [
    "reached_data",
    "reached_metadata",
    "dead_in_live_frames",
    "dead",
    "tombstoned",
    "index",
    "records",
    "foreign",
];

type Split = BTreeMap<&'static str, u64>;

/// `depth` for folders, `None` for clients.
pub(crate) fn expected(repository: &Repository, told: &Told, depth: Option<usize>) -> Expected {
    let mut expected = Expected::default();
    expected.classes.extend(CLASSES.map(|class| (class, 0)));
    let listed = repository.store.list(&Prefix::all()).unwrap();
    let sizes: HashMap<String, u64> = listed.iter().map(|l| (l.name.clone(), l.size)).collect();
    let snapshots = repository.every_snapshot().unwrap().all();
    let mut splits: HashMap<String, Split> = HashMap::new();
    for known in &repository.registry().domains {
        let view: View = repository.view_to_read(&known.id).unwrap();
        let nodes = NodeReader::new(repository, known.id, &view.index).unwrap();
        let mut domain = whole_packs(&view, (known.id, nodes), told, &sizes);
        for snapshot in snapshots.iter().filter(|snapshot| snapshot.name.domain == known.id) {
            let name = client(repository, &snapshot.name.identity, &snapshot.record.host);
            if depth.is_none() {
                expected.lines.entry(name.clone()).or_default();
            }
            walk(&mut domain, &mut expected, (&snapshot.record.root, snapshot.name.identity), (&name, depth));
        }
        for (pack, (kind, directory)) in &domain.packs {
            if domain.is_set_aside(pack) {
                continue;
            }
            let object = Name::pack(&known.id, *kind, pack).to_string();
            let size = sizes[&object];
            let split = if told.tombstoned.contains(pack) {
                BTreeMap::from([("tombstoned", size)])
            } else {
                split(&domain, &mut expected, (pack, *kind, directory), size)
            };
            splits.insert(object, split);
        }
    }
    for object in &listed {
        let split = class(&object.name, object.size, (&splits, told));
        split.iter().for_each(|(class, bytes)| *expected.classes.get_mut(class).unwrap() += bytes);
    }
    expected
}

/// The packs of a domain that are there as the index says.
fn whole_packs<'a>(
    view: &View,
    (id, nodes): (DomainId, NodeReader<'a>),
    told: &'a Told,
    sizes: &HashMap<String, u64>,
) -> Domain<'a> {
    let (packs, places, reached) = Default::default();
    let mut domain = Domain { id, packs, places, nodes, told, reached };
    for pack in view.index.packs() {
        let name = Name::pack(&id, pack.kind, &pack.id).to_string();
        let whole = sizes.get(&name) == Some(&u64::from(pack.size));
        let directory = view.index.directory(&pack).unwrap();
        if !whole || domain.packs.contains_key(&pack.id) {
            continue;
        }
        for (number, frame) in directory.frames.iter().enumerate() {
            for (at, blob) in frame.blobs.iter().enumerate() {
                let place = (pack.id, number, at, blob.length);
                domain.places.entry(blob.id).or_default().push(place);
            }
        }
        domain.packs.insert(pack.id, (pack.kind, directory));
    }
    domain
}

/// The classes of one object.
fn class(name: &str, size: u64, (splits, told): (&HashMap<String, Split>, &Told)) -> Split {
    let class = if told.foreign.contains(name) {
        "foreign"
    } else {
        match Name::parse(name).unwrap().parsed() {
            Parsed::Pack { id, .. } => {
                if let Some(split) = splits.get(name) {
                    return split.clone();
                }
                let dies = told.tombstoned.contains(&id) && !told.set_aside.contains(name);
                if dies { "tombstoned" } else { "dead" }
            }
            Parsed::Index { .. } => "index",
            _ => "records",
        }
    };
    BTreeMap::from([(class, size)])
}

/// Everything that one snapshot reaches.
fn walk(
    domain: &mut Domain<'_>,
    expected: &mut Expected,
    (root, author): (&BlobId, IdentityId),
    (client, depth): (&str, Option<usize>),
) {
    let metadata_rows = if depth.is_none() { vec![client.to_owned()] } else { Vec::new() };
    let mut waiting = vec![(*root, Vec::<String>::new())];
    while let Some((id, rows)) = waiting.pop() {
        if !domain.reach(&id, (author, &metadata_rows), None) {
            continue;
        }
        expected.nodes.insert((domain.id, id));
        let Ok(node) = domain.nodes.node(&id) else { continue };
        match node {
            Node::Branch(_, children) => {
                waiting.extend(children.into_iter().map(|child| (child.id, Vec::new())))
            }
            Node::Lists(_, children) => {
                waiting.extend(children.into_iter().map(|child| (child.id, rows.clone())))
            }
            Node::Chunks(chunks) => {
                for chunk in chunks {
                    domain.reach(&chunk.id, (author, &rows), Some(chunk.length));
                }
            }
            Node::Leaf(entries) => {
                for entry in entries.into_iter().filter(|entry| entry.metadata.kind == EntryKind::File) {
                    let row = depth.map_or_else(|| client.to_owned(), |depth| folder(&entry.path, depth));
                    expected.lines.entry(row.clone()).or_default().logical += entry.metadata.size;
                    match entry.content {
                        Content::Inline(chunks) => {
                            for chunk in chunks {
                                let rows = std::slice::from_ref(&row);
                                domain.reach(&chunk.id, (author, rows), Some(chunk.length));
                            }
                        }
                        Content::List { node, .. } => waiting.push((node, vec![row])),
                    }
                }
            }
        }
    }
}

/// One pack, by classes; its reached bytes go to the lines too.
fn split(
    domain: &Domain<'_>,
    expected: &mut Expected,
    (id, kind, directory): (&PackId, PackKind, &Directory),
    size: u64,
) -> BTreeMap<&'static str, u64> {
    let mut classes: BTreeMap<&'static str, u64> = BTreeMap::new();
    let lengths: Vec<u64> = directory.frames.iter().map(|frame| u64::from(frame.length)).collect();
    let beside = divided(size - lengths.iter().sum::<u64>(), &lengths);
    for (number, frame) in directory.frames.iter().enumerate() {
        let cost = lengths[number] + beside[number];
        let who: Vec<_> = (0..frame.blobs.len()).map(|at| domain.reached.get(&(*id, number, at))).collect();
        if who.iter().all(Option::is_none) {
            *classes.entry("dead").or_default() += cost;
            continue;
        }
        let weights: Vec<u64> = frame.blobs.iter().map(|blob| u64::from(blob.length)).collect();
        for (rows, bytes) in who.iter().zip(divided(cost, &weights)) {
            let class = match (rows, kind) {
                (None, _) => "dead_in_live_frames",
                (Some(_), PackKind::Data) => "reached_data",
                (Some(_), PackKind::Metadata) => "reached_metadata",
            };
            *classes.entry(class).or_default() += bytes;
            let Some(rows) = rows.filter(|rows| !rows.is_empty()) else { continue };
            expected.groups.insert(rows.clone());
            for row in rows {
                let line = expected.lines.entry(row.clone()).or_default();
                line.stored += bytes;
                if rows.len() == 1 {
                    line.exclusive += bytes
                } else {
                    line.shared += bytes
                }
                assert!(PARTS.is_multiple_of(rows.len() as u128), "{rows:?}");
                line.fair += u128::from(bytes) * PARTS / rows.len() as u128;
            }
        }
    }
    classes
}
