//! `check`: whether the repository holds what it says. Structure: every snapshot, every manifest node, every
//! chunk is listed in a pack that is there. With data: every frame is read, opened and hashed. What is
//! damaged is named together with the paths that it hurts; one damaged object never hides the next.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use self::packs::PackCheck;
pub use self::subset::Subset;
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        attestation::{Attestation, AttestedSection, SECTIONS_MAX},
        entry::Entry,
        node::Node,
    },
    id::{BlobId, DomainId, PackId},
    progress::Phase,
    repository::{
        Repository,
        index::{Index, Standing},
        manifest::{ManifestCursor, NodeSource, for_each_chunk, for_each_list_node},
        reader::NodeReader,
        snapshots::KnownSnapshot,
        view::View,
    },
};

mod packs;
mod records;
pub mod subset;
pub mod without_keys;

/// Problems are named one by one up to so many, and counted beyond.
const NAMED_MAX: usize = 1000;
/// Paths that one problem is said to hurt, at most.
const HURT_MAX: usize = 20;

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Depth {
    /// Snapshots, manifests, index, and whether packs are there.
    Structure,
    /// The same, and every byte of these packs.
    Data(Subset),
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
}

/// What a check found.
#[derive(Clone, Debug, Default)]
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
    /// Sections that were attested.
    pub attested: u64,
    /// How many problems there are.
    pub problems_found: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
    /// What is worth knowing and hurts nothing.
    pub notes: Vec<String>,
}

impl Checked {
    fn problem(&mut self, object: impl Into<String>, what: impl Into<String>) -> usize {
        self.problems_found += 1;
        if self.problems.len() < NAMED_MAX {
            self.problems.push(Problem { object: object.into(), what: what.into(), hurts: Vec::new() });
        }
        self.problems.len() - 1
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
    let progress = repository.store.progress();
    progress.enter(Phase::Checking);
    if matches!(options.depth, Depth::Data(_)) && !repository.reads_data() {
        return Err(repository.forbidden("check the content of packs", "restore"));
    }
    let mut checked = Checked::default();
    let (snapshots, damaged) = repository.snapshots()?;
    for error in damaged {
        checked.problem("snapshots", error.to_string());
    }
    let mut domains: Vec<DomainId> = repository.registry().domains.iter().map(|domain| domain.id).collect();
    domains.sort_unstable();
    for domain in domains {
        let view = repository.view_to_read(&domain)?;
        let own: Vec<&KnownSnapshot> = snapshots.iter().filter(|known| known.name.domain == domain).collect();
        let bad = one_view(repository, &domain, &view, (options, &mut checked))?;
        records::run(repository, &domain, (options.depth, &mut checked))?;
        let nodes = NodeReader::new(repository, domain, &view.index)?;
        let mut structure =
            Structure { index: &view.index, nodes: &nodes, bad, seen: HashSet::new(), checked: &mut checked };
        for snapshot in own {
            structure.snapshot(repository, snapshot)?;
        }
    }
    Ok(checked)
}

/// What is damaged of a domain: blobs, each with the problem that names why.
type BadBlobs = HashMap<BlobId, usize>;

/// Index objects and packs.
fn one_view(
    repository: &Repository,
    domain: &DomainId,
    view: &View,
    (options, checked): (CheckOptions, &mut Checked),
) -> Result<BadBlobs> {
    for error in &view.damaged {
        checked.problem(format!("index of domain {domain}"), error.to_string());
    }
    if !view.unindexed.is_empty() {
        let bytes: u64 = view.unindexed.iter().map(|(_, size)| size).sum();
        checked.note(format!(
            "{} packs ({bytes} bytes) are in no index: a backup that runs now, or one that was cut short",
            view.unindexed.len()
        ));
    }
    let mut seen: HashSet<PackId> = HashSet::new();
    for pack in view.index.packs().filter(|pack| seen.insert(pack.id)) {
        checked.packs += 1;
        if pack.standing == Standing::Missing {
            let name = repository.pack_name(domain, &pack);
            checked.note(format!("{name} is in the index and not in the store, or has another size"));
        }
    }
    let Depth::Data(subset) = options.depth else { return Ok(BadBlobs::new()) };
    let check = PackCheck { repository, domain, index: &view.index, workers: options.workers };
    let outcome = check.run(subset)?;
    checked.packs_read += outcome.packs;
    checked.bytes_read += outcome.bytes;
    let mut bad = BadBlobs::new();
    for (name, what, blobs) in outcome.damaged {
        let number = checked.problem(name, what);
        bad.extend(blobs.into_iter().map(|blob| (blob, number)));
    }
    checked.attested += repository.attest_sections(domain, &outcome.attested, checked)?;
    Ok(bad)
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

/// Walks manifests; nodes that were seen to be good are not read again.
struct Structure<'a> {
    index: &'a Index,
    nodes: &'a NodeReader<'a>,
    bad: BadBlobs,
    seen: HashSet<BlobId>,
    checked: &'a mut Checked,
}

/// Leaves out nodes that another snapshot showed already.
struct Unseen<'a> {
    nodes: &'a NodeReader<'a>,
    seen: &'a Mutex<HashSet<BlobId>>,
    read: &'a Mutex<u64>,
}

impl NodeSource for Unseen<'_> {
    fn plain(&self, id: &BlobId) -> Result<Vec<u8>> {
        if self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(id) {
            // An empty leaf: nothing new below it.
            return Ok(Node::Leaf(Vec::new()).encode());
        }
        let plain = self.nodes.plain(id)?;
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(*id);
        Ok(plain)
    }
}

impl Structure<'_> {
    fn snapshot(&mut self, repository: &Repository, snapshot: &KnownSnapshot) -> Result<()> {
        self.checked.snapshots += 1;
        let label = format!("{:.8}", snapshot.name.id.to_string());
        let (seen, read) = (Mutex::new(std::mem::take(&mut self.seen)), Mutex::new(0));
        let source = Unseen { nodes: self.nodes, seen: &seen, read: &read };
        let mut cursor = ManifestCursor::new(&source, snapshot.record.root);
        let ended = loop {
            repository.store.progress().check()?;
            match cursor.next_entry() {
                Ok(Some(entry)) => {
                    repository.store.progress().add(1, entry.metadata.size);
                    self.entry(repository, &label, &entry)?;
                }
                Ok(None) => break Ok(()),
                // What comes after a damaged node is still looked at.
                Err(error) if is_damage(&error) => {
                    let number =
                        self.checked.problem(format!("manifest of snapshot {label}"), error.to_string());
                    self.hurt(number, format!("{label}: entries after /{}", cursor.last_path()));
                    repository.store.progress().trouble();
                }
                Err(error) => break Err(error),
            }
        };
        drop(cursor);
        self.checked.nodes += *read.lock().unwrap_or_else(PoisonError::into_inner);
        self.seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        ended
    }

    fn entry(&mut self, repository: &Repository, label: &str, entry: &Entry) -> Result<()> {
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        let mut lost = Vec::new();
        for_each_list_node(&entry.content, self.nodes, &mut |id| {
            if self.bad.contains_key(&id) {
                lost.push(id);
            }
        })
        .or_else(|error| self.trouble(repository, (label, &shown), error))?;
        let (mut total, index) = (0, self.index);
        let listed = for_each_chunk(&entry.content, self.nodes, &mut |chunk| {
            total += u64::from(chunk.length);
            let there = index
                .locations(&chunk.id)
                .into_iter()
                .any(|at| index.standing(at).is_some_and(|standing| standing != Standing::Missing));
            if !there || self.bad.contains_key(&chunk.id) {
                lost.push(chunk.id);
            }
            Ok(())
        });
        match listed {
            Ok(()) if total != entry.metadata.size && entry.error.is_none() => {
                let what = format!("its chunks hold {total} bytes, not {}", entry.metadata.size);
                self.checked.problem(format!("{label}: /{shown}"), what);
            }
            Err(error) => self.trouble(repository, (label, &shown), error)?,
            Ok(()) => {}
        }
        for id in lost {
            repository.store.progress().trouble();
            let number = match self.bad.get(&id) {
                Some(number) => *number,
                None => {
                    let number =
                        self.checked.problem(format!("chunk {id}"), "no pack that is there holds it");
                    self.bad.insert(id, number);
                    number
                }
            };
            self.hurt(number, format!("{label}: /{shown}"));
        }
        Ok(())
    }

    /// A list of chunks that cannot be read hurts its file.
    fn trouble(&mut self, repository: &Repository, (label, path): (&str, &str), error: Error) -> Result<()> {
        if !is_damage(&error) {
            return Err(error);
        }
        repository.store.progress().trouble();
        let number = self.checked.problem("a list of chunks", error.to_string());
        self.hurt(number, format!("{label}: /{path}"));
        Ok(())
    }

    fn hurt(&mut self, number: usize, what: String) {
        if let Some(problem) = self.checked.problems.get_mut(number)
            && problem.hurts.len() < HURT_MAX
            && !problem.hurts.contains(&what)
        {
            problem.hurts.push(what);
        }
    }
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound)
}
