//! `recover`: manifests that no snapshot names become snapshots again, when the objects of the snapshots are lost. Nothing
//! is deleted or overwritten. Each is a backup whose source is the manifest, so nothing comes about that is not whole.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

pub use super::{
    Mode,
    copy::{Losses, Lost},
};
use super::{copy, prune::bits::Bits};
use crate::{
    clock::Timestamp,
    compress::{Compression, Decompressor},
    crypto::NodeKey,
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Content, Entry, EntryKind},
        node::Node,
        pack::PackKind,
        role::Role,
    },
    id::{BlobId, DomainId, IdentityId, ObjectId, PackId},
    limits,
    ops::backup::{self, BackupOptions, CopyOf, Reuse, Unchanged},
    progress::Phase,
    repository::{
        Repository,
        cache::Cache,
        index::{Index, KnownPack, Standing},
        manifest::{ManifestCursor, NodeSource},
        memory::Memory,
        reader::{NodeReader, blob_range},
        snapshots::{Roots, TAG_RECOVERED},
        view::View,
    },
    store::on_each,
};

/// Manifests that are looked at closely, and shown.
const MANIFESTS_MAX: usize = 1000;
/// Of a manifest with several folders at its top so many are taken for its sources.
const SOURCES_MAX: usize = 64;
/// Packs and frames that cannot be read are named one by one up to so many, and counted beyond.
const UNREADABLE_MAX: usize = 1000;
/// A source is looked for so many folders deep.
const SOURCE_DEPTH_MAX: usize = 64;

/// How manifests become snapshots.
#[derive(Clone, Debug)]
pub struct RecoverOptions {
    /// The first digits of the ids of those that are meant; without any all are.
    pub roots: Vec<String>,
    /// The host of the snapshots, which no manifest tells; else the label of the key that wrote it.
    pub host: Option<String>,
    /// Tags beside [`TAG_RECOVERED`].
    pub tags: Vec<String>,
    /// Whether anything is written.
    pub mode: Mode,
    /// Name and version of the program.
    pub program: String,
    /// Threads that read, compress and seal.
    pub workers: usize,
}

/// A manifest that no snapshot names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its root node.
    pub root: BlobId,
    /// The key that wrote the root.
    pub author: IdentityId,
    /// Its label, if the registry knows it.
    pub label: Option<String>,
    /// When the storage got the pack of the root.
    pub stored: Timestamp,
    /// Entries, and bytes of files, as the root says.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// What was backed up, as far as it can be told from the paths.
    pub sources: Vec<Vec<u8>>,
}

/// What becomes of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A snapshot of it would be made.
    Planned,
    /// This one was.
    Made(ObjectId),
    /// Not all of it can be read, so there is none.
    Damaged(Losses),
}

/// What came of looking at all nodes of a domain.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Manifests that no snapshot names, and what becomes of each, the oldest first.
    pub found: Vec<(Manifest, Outcome)>,
    /// Nodes that were read.
    pub nodes: u64,
    /// Nodes that nothing refers to and that begin in the middle of a tree: an interrupted backup left them, or what was
    /// above them is lost.
    pub fragments: u64,
    /// Manifests beyond those that are shown.
    pub more: u64,
    /// The first packs and frames that cannot be read.
    pub unreadable: Vec<Error>,
    /// How many more there are.
    pub unreadable_more: u64,
    /// Packs that are set aside, and frames in them, that cannot be read.
    pub unreadable_aside: u64,
    /// What is missing or cannot be read among the snapshots, also with those that were made.
    pub doubts: Vec<Error>,
    /// Packs that no index lists: what they hold is not known.
    pub unlisted: u64,
    /// Packs of nodes that are marked to be deleted.
    pub tombstoned: u64,
    /// Domains that this key does not back up to.
    pub elsewhere: u64,
}

/// Looks for manifests in the domain that this key backs up to, and makes snapshots of those that are meant.
///
/// # Errors
/// `Forbidden` for all but an owner, who alone reads what others wrote and writes snapshots; `Failed` when a root that is
/// meant is not among those found; storage trouble.
pub fn run(repository: &Arc<Repository>, options: &RecoverOptions) -> Result<Recovered> {
    if repository.role() != Role::Owner {
        return Err(repository.forbidden("recover snapshots", "owner"));
    }
    repository.store.progress().enter(Phase::Checking);
    let domain = repository.own_domain()?;
    let roots = repository.roots(&domain)?;
    let named = roots.known.iter().map(|known| known.record.root).collect();
    let View { index, unindexed, .. } = repository.view_to_read(&domain)?;
    let search = Search::new(repository, domain, &index)?;
    let mut dying: Vec<PackId> = index.packs().filter(is_dying).map(|pack| pack.id).collect();
    dying.sort_unstable();
    dying.dedup();
    let mut done = Recovered {
        // What of the snapshots is missing or cannot be read is what brings somebody here.
        doubts: roots.doubts,
        unlisted: unindexed.len() as u64,
        tombstoned: dying.len() as u64,
        elsewhere: repository.registry().domains.iter().filter(|known| known.id != domain).count() as u64,
        ..Recovered::default()
    };
    search.read_all(options.workers, &mut done)?;
    let found = search.unnamed(&named, &options.roots, &mut done)?;
    if let Some(root) = options.roots.iter().find(|root| !found.iter().any(|one| is(root, &one.root))) {
        let what = format!("no manifest without a snapshot has the id `{root}`");
        return Err(
            Error::new(ErrorKind::Failed, what).with_remedy("`lifeboat recover` lists those that there are")
        );
    }
    for manifest in found {
        let outcome = match options.mode {
            Mode::DryRun => Outcome::Planned,
            Mode::Write => make(repository, &manifest, options)?,
        };
        done.found.push((manifest, outcome));
    }
    if options.mode == Mode::Write && !done.doubts.is_empty() {
        // An end that was missing may be there again; a gap in the middle stays.
        done.doubts = repository.roots(&domain)?.doubts;
    }
    Ok(done)
}

/// Whoever recovers knows what is gone: where the chain of this key ends with what was recovered, the machine whose cache is
/// below `cache` goes on from there, though it has seen another end, which is gone. Gives the number of that snapshot if it has.
///
/// # Errors
/// Storage trouble.
pub fn accept(repository: &Repository, cache: &Path) -> Result<Option<u64>> {
    let (domain, me) = (repository.own_domain()?, repository.identity());
    let Roots { known, names, .. } = repository.roots(&domain)?;
    let own = known.iter().filter(|known| known.name.identity == me);
    if let Some(last) = own.max_by_key(|known| (known.name.sequence, known.name.id))
        && last.is_copy
        && last.record.tags.iter().any(|tag| tag == TAG_RECOVERED)
    {
        let cache = Cache::open(Some(cache), &repository.config.repository_id);
        let (memory, head) = (Memory::open(cache.folder()), (last.name.sequence, last.name.id));
        let is_gone = |seen: ObjectId| !names.iter().any(|name| name.id == seen);
        if memory.head(&domain, &me).is_some_and(|(_, seen)| is_gone(seen)) {
            memory.saw_head(&domain, &me, head);
            return Ok(Some(head.0));
        }
    }
    Ok(None)
}

fn is_dying(pack: &KnownPack) -> bool {
    pack.kind == PackKind::Metadata && pack.standing == Standing::Tombstoned
}

fn is(root: &str, id: &BlobId) -> bool {
    id.to_string().starts_with(&root.to_ascii_lowercase())
}

fn is_meant(roots: &[String], id: &BlobId) -> bool {
    roots.is_empty() || roots.iter().any(|root| is(root, id))
}

/// Makes a snapshot of a manifest.
fn make(repository: &Arc<Repository>, manifest: &Manifest, options: &RecoverOptions) -> Result<Outcome> {
    let label = || manifest.label.clone().unwrap_or_else(|| manifest.author.to_string());
    let backup = BackupOptions {
        host: options.host.clone().unwrap_or_else(label),
        user: String::new(),
        tags: options.tags.iter().cloned().chain([TAG_RECOVERED.to_owned()]).collect(),
        sources: manifest.sources.clone(),
        time: Some(manifest.stored),
        compression: Compression::Auto,
        reuse: Reuse { unchanged: false, ..Reuse::default() },
        unchanged: Unchanged::Keep,
        mode: backup::Mode::Store,
        program: options.program.clone(),
        workers: options.workers,
    };
    // Nobody knows when it began, so the next backup takes nothing in it for unchanged.
    let begun = Timestamp::from_seconds(0);
    let copy_of = CopyOf { origin: None, writer: Some(manifest.author), begun, command: "recover" };
    match copy::of_manifest(repository, (manifest.root, manifest.author), (copy_of, &backup))? {
        Err(losses) => Ok(Outcome::Damaged(losses)),
        Ok(done) => {
            let made = done.snapshot.map(|(id, _)| Outcome::Made(id));
            made.ok_or_else(|| Error::new(ErrorKind::Failed, "no snapshot was written"))
        }
    }
}

/// What is found out about nodes, by the number of the blob.
struct Marks {
    /// Another node refers to it.
    referred: Bits,
    /// It is a part of a tree of entries, and begins at its top.
    top: Bits,
    /// It is a part of a tree of entries that begins elsewhere.
    inner: Bits,
    nodes: u64,
    unreadable: Vec<Error>,
    unreadable_more: u64,
    unreadable_aside: u64,
}

impl Marks {
    fn cannot_read(&mut self, standing: Standing, error: Error) {
        // That is why it was set aside.
        if standing == Standing::SetAside {
            self.unreadable_aside += 1;
        } else if self.unreadable.len() < UNREADABLE_MAX {
            self.unreadable.push(error);
        } else {
            self.unreadable_more += 1;
        }
    }
}

/// The search through all nodes of a domain.
struct Search<'a> {
    repository: &'a Repository,
    domain: DomainId,
    index: &'a Index,
    key: NodeKey,
    packs: Vec<KnownPack>,
    marks: Mutex<Marks>,
}

impl<'a> Search<'a> {
    fn new(repository: &'a Repository, domain: DomainId, index: &'a Index) -> Result<Self> {
        let mut seen = HashSet::new();
        // What is marked to be deleted is not brought back: it may go at any moment. What is set aside stays.
        let stays = |pack: &KnownPack| {
            pack.kind == PackKind::Metadata && matches!(pack.standing, Standing::Live | Standing::SetAside)
        };
        let packs = index.packs().filter(stays).filter(|pack| seen.insert(pack.id)).collect();
        let bits = || Bits::new(index.blobs());
        let (referred, top, inner) = (bits(), bits(), bits());
        let marks = Marks {
            referred,
            top,
            inner,
            nodes: 0,
            unreadable: Vec::new(),
            unreadable_more: 0,
            unreadable_aside: 0,
        };
        Ok(Self {
            repository,
            domain,
            index,
            key: repository.node_key(&domain)?,
            packs,
            marks: Mutex::new(marks),
        })
    }

    /// Reads every node and marks it and what it refers to.
    fn read_all(&self, workers: usize, done: &mut Recovered) -> Result<()> {
        let progress = self.repository.store.progress();
        progress.expect(0, self.packs.iter().map(|pack| u64::from(pack.size)).sum());
        on_each(&self.packs, workers, |pack| {
            progress.check()?;
            match self.pack(pack) {
                Err(error) if error.is_damage() => {
                    let name = self.repository.pack_name(&self.domain, pack);
                    self.lock().cannot_read(pack.standing, error.context(name));
                }
                other => other?,
            }
            progress.add(0, u64::from(pack.size));
            Ok(())
        })?;
        let mut marks = self.lock();
        done.nodes = marks.nodes;
        done.unreadable = std::mem::take(&mut marks.unreadable);
        done.unreadable_more = marks.unreadable_more;
        done.unreadable_aside = marks.unreadable_aside;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pack(&self, pack: &KnownPack) -> Result<()> {
        let name = self.repository.pack_name(&self.domain, pack);
        let bytes = self.repository.store.read(&name, limits::PACK_BYTES_MAX)?;
        let directory = self.index.directory(pack);
        let directory = directory.ok_or_else(|| Error::damaged("a pack", "the index lost it"))?;
        let mut decompressor = Decompressor::new()?;
        for frame in &directory.frames {
            let start = frame.offset as usize;
            let sealed = bytes.get(start..start.saturating_add(frame.length as usize));
            let sealed = sealed.ok_or_else(|| Error::damaged("a frame", "it is not in its pack"))?;
            let section = directory.sections.get(usize::from(frame.section));
            let section = section.ok_or_else(|| Error::damaged("a frame", "it has no section"))?;
            let opened =
                self.repository.open_frame(&self.domain, (frame, section), sealed, &mut decompressor);
            let plain = match opened {
                Err(error) if error.is_damage() => {
                    self.lock().cannot_read(pack.standing, error.context(&name));
                    continue;
                }
                plain => plain?,
            };
            for (number, blob) in (0_u32..).zip(&frame.blobs) {
                let bytes = blob_range(frame, number).and_then(|range| plain.get(range)).unwrap_or_default();
                // What is not what its id names is nobody's node.
                if self.key.id(bytes) == blob.id
                    && let Ok(node) = Node::decode(bytes)
                {
                    self.node(&blob.id, &node);
                }
            }
        }
        Ok(())
    }

    fn node(&self, id: &BlobId, node: &Node) {
        let mut marks = self.lock();
        marks.nodes += 1;
        let mut refers = |to: &BlobId| self.each_number(to, &mut |number| _ = marks.referred.set(number));
        let first = match node {
            Node::Leaf(entries) => {
                for entry in entries {
                    if let Content::List { node, .. } = &entry.content {
                        refers(node);
                    }
                }
                entries.first().map(|entry| &entry.path)
            }
            Node::Branch(_, children) => {
                children.iter().for_each(|child| refers(&child.id));
                children.first().map(|child| &child.first)
            }
            Node::Lists(_, children) => {
                children.iter().for_each(|child| refers(&child.id));
                None
            }
            Node::Chunks(_) => None,
        };
        // The folders above the sources are entries too: a whole manifest begins with a name that has no folder.
        let Some(first) = first else { return };
        let Marks { top, inner, .. } = &mut *marks;
        let bits = if first.contains(&b'/') { inner } else { top };
        self.each_number(id, &mut |number| _ = bits.set(number));
    }

    fn each_number(&self, id: &BlobId, each: &mut dyn FnMut(usize)) {
        self.index.locations(id).into_iter().for_each(|at| each(self.index.blob_number(at)));
    }

    /// The manifests that neither a node nor a snapshot names, the oldest first; of these what is meant. Whoever may write to
    /// the domain can make nodes that refer to others, or that are many: what the whole id names is found whatever refers
    /// to it, and each author has a number of his own.
    fn unnamed(
        &self,
        named: &HashSet<BlobId>,
        meant: &[String],
        done: &mut Recovered,
    ) -> Result<Vec<Manifest>> {
        let is_whole_id = |id: &BlobId| meant.iter().any(|root| root.eq_ignore_ascii_case(&id.to_string()));
        let mut of_author: HashMap<IdentityId, usize> = HashMap::new();
        let nodes = NodeReader::new(self.repository, self.domain, self.index)?;
        let mut found: HashMap<BlobId, Manifest> = HashMap::new();
        let marks = self.lock();
        for pack in &self.packs {
            let Some(numbers) = self.index.blobs_of(pack) else { continue };
            let Some(directory) = self.index.directory(pack) else { continue };
            let mut stored = None;
            let blobs =
                directory.frames.iter().flat_map(|frame| frame.blobs.iter().map(move |blob| (frame, blob)));
            for (number, (frame, blob)) in numbers.zip(blobs) {
                let is_referred = marks.referred.get(number) && !is_whole_id(&blob.id);
                if is_referred || named.contains(&blob.id) || found.contains_key(&blob.id) {
                    continue;
                }
                if marks.inner.get(number) {
                    done.fragments += 1;
                }
                if !marks.top.get(number) || !is_meant(meant, &blob.id) {
                    continue;
                }
                let section = directory.sections.get(usize::from(frame.section));
                let Some(author) = section.map(|section| section.author) else { continue };
                let of_author = of_author.entry(author).or_default();
                if *of_author >= MANIFESTS_MAX {
                    done.more += 1;
                    continue;
                }
                *of_author += 1;
                let time = match stored {
                    Some(time) => time,
                    None => *stored.insert(self.stored(pack)?),
                };
                found.insert(blob.id, self.manifest(&nodes, blob.id, (author, time))?);
            }
        }
        let mut found: Vec<Manifest> = found.into_values().collect();
        found.sort_by_key(|manifest| (manifest.stored, manifest.root));
        Ok(found)
    }

    fn stored(&self, pack: &KnownPack) -> Result<Timestamp> {
        let name = self.repository.pack_name(&self.domain, pack);
        Ok(self.repository.store.head(&name)?.map(|listed| listed.modified).unwrap_or_default())
    }

    fn manifest(
        &self,
        nodes: &dyn NodeSource,
        root: BlobId,
        (author, stored): (IdentityId, Timestamp),
    ) -> Result<Manifest> {
        let sums = |items: &mut dyn Iterator<Item = (u64, u64)>| {
            items.fold((0_u64, 0_u64), |(a, b), (c, d)| (a.saturating_add(c), b.saturating_add(d)))
        };
        let (entries, bytes) = match nodes.node(&root)? {
            Node::Leaf(entries) => sums(&mut entries.iter().map(|entry| (1, entry.metadata.size))),
            Node::Branch(_, children) => sums(&mut children.iter().map(|child| (child.entries, child.bytes))),
            Node::Chunks(_) | Node::Lists(..) => (0, 0),
        };
        let registry = self.repository.registry();
        let label = registry.certificate(&author).map(|known| known.label.clone());
        // Of what is damaged it says nothing; whoever makes a snapshot of it is told.
        let sources = match sources(nodes, root) {
            Err(error) if error.is_damage() => Vec::new(),
            sources => sources?,
        };
        Ok(Manifest { root, author, label, stored, entries, bytes, sources })
    }
}

/// What was backed up: the first folder from above that holds more than one thing, else what is at the top.
fn sources(nodes: &dyn NodeSource, root: BlobId) -> Result<Vec<Vec<u8>>> {
    let absolute = |path: &[u8]| [b"/", path].concat();
    let mut folder: Option<Vec<u8>> = None;
    for _ in 0..SOURCE_DEPTH_MAX {
        let most = if folder.is_none() { SOURCES_MAX } else { 2 };
        let inside = children(nodes, root, (folder.as_deref(), most))?;
        match (&inside[..], &folder) {
            ([only], _) if only.metadata.kind == EntryKind::Directory => folder = Some(only.path.clone()),
            (_, Some(_)) => break,
            (several, None) => return Ok(several.iter().map(|entry| absolute(&entry.path)).collect()),
        }
    }
    Ok(folder.iter().map(|folder| absolute(folder)).collect())
}

/// The first entries directly in a folder, or at the top.
fn children(
    nodes: &dyn NodeSource,
    root: BlobId,
    (folder, most): (Option<&[u8]>, usize),
) -> Result<Vec<Entry>> {
    let mut found: Vec<Entry> = Vec::new();
    // What is in a folder comes right behind it: a slash is before every other byte, and 1 is the next one.
    let mut from = folder.map_or_else(Vec::new, |folder| [folder, b"/"].concat());
    while found.len() < most {
        let Some(entry) = ManifestCursor::from(nodes, root, &from).next_entry()? else { break };
        if folder
            .is_some_and(|folder| !entry.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/")))
        {
            break;
        }
        from = [&entry.path[..], &[1]].concat();
        found.push(entry);
    }
    Ok(found)
}
