//! What only packs hold that do not count is moved out of them. Of each snapshot that has lost something all the same there is
//! a copy, without what is lost. It is a backup whose source is what can
//! be read of the old one: so it comes about by the one commit that there is, every byte of it was read and hashed, and
//! each file that is lost stands in it with the reason. The old snapshot stays as it is.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    io::{self, Read},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Mode, heal::heal, may_hide_packs};
use crate::{
    compress::Decompressor,
    crypto::ChunkKeys,
    error::{Error, ErrorKind, Result},
    filesystem::select::{Selection, Sieve},
    format::{
        entry::{ChunkRef, Content, Entry, EntryKind, Hole, Metadata},
        node::{Node, compare_paths},
        pack::{Blob, PackKind},
        role::Role,
    },
    id::{BlobId, DomainId, IdentityId, ObjectId},
    ops::{
        backup::{self, BackupOptions, CopyOf, Item, ReadContent, Source},
        copy::{Losses, Lost},
        holding::{AsideFrames, Holding, WatchedNodes},
        prune::Packs,
        recent::RecentFrames,
    },
    progress::Phase,
    repository::{
        Repository,
        index::{self, Location},
        manifest::{Gap, ManifestCursor, NodeSource, for_each_chunk, for_each_entry},
        reader::{NodeReader, blob_range},
        snapshots::{KnownSnapshot, TAG_REPAIRED},
        view::View,
    },
};

/// Entries that are read from the manifest at a time.
const ENTRIES_AT_ONCE: usize = 256;
/// Frames that stay open, of 2 MiB at most: small files that were stored one after the other share them.
const FRAMES_OPEN: usize = 16;
/// Digits of that id.
const TAG_DIGITS: usize = 16;

/// A tag that says of which snapshot a copy was made.
pub(in crate::ops) fn tag_of_origin(prefix: &str, snapshot: &KnownSnapshot) -> String {
    let id = snapshot.name.id.to_string();
    format!("{prefix}{}", id.get(..TAG_DIGITS).unwrap_or(&id))
}

/// A snapshot that has lost something, or rests on packs that are set aside or of another size than the index says.
#[derive(Debug)]
pub struct Hurt {
    /// Which.
    pub snapshot: KnownSnapshot,
    /// The name of its domain.
    pub domain: String,
    /// How many files are lost, as far as their names are known.
    pub lost: u64,
    /// The first of them.
    pub named: Vec<Lost>,
    /// Frames that it needs and only such packs hold.
    pub aside: u64,
    /// What becomes of it.
    pub copy: Copy,
}

/// What becomes of a snapshot that has lost something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// It has lost nothing: it needs no copy.
    Needless,
    /// A copy of it would be made.
    Planned,
    /// This one was.
    Made(ObjectId),
    /// This one was made before.
    Before(ObjectId),
    /// Nothing of it can be read.
    Nothing,
    /// It is of a domain that this key does not back up to, where it can make none.
    Elsewhere,
}

/// What came of looking at all snapshots.
#[derive(Debug, Default)]
pub struct SnapshotsDone {
    /// Those that have lost something, or rest on such packs.
    pub hurt: Vec<Hurt>,
    /// How many were looked at.
    pub snapshots: u64,
    /// What cannot be read or is suspect.
    pub damaged: Vec<Error>,
    /// Whether packs may be there that no index lists: what is missing may be in them.
    pub has_unlisted: bool,
    /// What was moved out of these.
    pub moved: Packs,
}

/// How snapshots are repaired.
#[derive(Clone, Debug)]
pub struct SnapshotOptions {
    /// Whether anything is written.
    pub mode: Mode,
    /// Name and version of the program.
    pub program: String,
    /// Threads that read, compress and seal.
    pub workers: usize,
}

/// Moves what snapshots need out of packs that are set aside or of another size, in every domain, and copies every snapshot of the own domain
/// that has lost something and has no copy yet.
///
/// # Errors
/// `Forbidden` for all but an owner, who alone reads what others wrote and writes snapshots; storage trouble;
/// `Temporary` when a copy could not be committed.
pub fn snapshots(repository: &Arc<Repository>, options: &SnapshotOptions) -> Result<SnapshotsDone> {
    repository.check_owns("repair snapshots")?;
    repository.store.progress().enter(Phase::Checking);
    let own = repository.own_domain()?;
    let (known, damaged) = repository.snapshots()?;
    let snapshots = known.len() as u64;
    let mut done = SnapshotsDone { snapshots, damaged, ..SnapshotsDone::default() };
    let mut of_domains: BTreeMap<DomainId, Vec<KnownSnapshot>> = BTreeMap::new();
    known.into_iter().for_each(|known| of_domains.entry(known.name.domain).or_default().push(known));
    for (domain, known) in of_domains {
        of_domain(repository, (domain, domain == own), known, (options, &mut done))?;
    }
    Ok(done)
}

fn of_domain(
    repository: &Arc<Repository>,
    (domain, is_own): (DomainId, bool),
    known: Vec<KnownSnapshot>,
    (options, done): (&SnapshotOptions, &mut SnapshotsDone),
) -> Result<()> {
    let copies = copies(repository, &known);
    let mut view = Arc::new(repository.view_to_read(&domain)?);
    done.has_unlisted |= may_hide_packs(repository, &domain, &view);
    let name = repository.registry().domain(&domain).map(|known| known.name.clone()).unwrap_or_default();
    let mut frames = Arc::default();
    let (looked, needed) = look_at_all(repository, (&view, &frames), (domain, known))?;
    if options.mode == Mode::Write && !needed.is_empty() {
        done.moved.join(heal(repository, (&domain, &view.index), &needed)?);
        (view, frames) = (Arc::new(repository.view_to_read(&domain)?), Arc::default());
    }
    for (snapshot, mut lost, aside, nothing) in looked {
        let copy = match copies.get(&tag(&snapshot)) {
            _ if lost.count == 0 => Copy::Needless,
            _ if nothing => Copy::Nothing,
            Some(id) => Copy::Before(*id),
            _ if !is_own => Copy::Elsewhere,
            None if options.mode == Mode::DryRun => Copy::Planned,
            None => {
                // Whoever reads everything finds what is damaged in packs that are there too.
                let stored = Stored::new(repository, (&view, &frames), &snapshot)?;
                let (id, found) = copy(repository, (stored, &snapshot), options)?;
                lost = found;
                Copy::Made(id)
            }
        };
        let Losses { count: lost, named } = lost;
        done.hurt.push(Hurt { snapshot, domain: name.clone(), lost, named, aside, copy });
    }
    Ok(())
}

fn tag(snapshot: &KnownSnapshot) -> String {
    tag_of_origin(TAG_REPAIRED, snapshot)
}

/// The copies that there are, by the tags that say of what. A client cannot make one: it could keep others from it.
fn copies(repository: &Repository, known: &[KnownSnapshot]) -> HashMap<String, ObjectId> {
    let registry = repository.registry();
    let of_owner = |known: &&KnownSnapshot| {
        registry.certificate(&known.name.identity).is_some_and(|known| known.role == Role::Owner)
    };
    let copies = known.iter().filter(of_owner);
    copies
        .flat_map(|known| known.record.tags.iter().map(|tag| (tag.clone(), known.name.id)))
        .filter(|(tag, _)| tag.starts_with(TAG_REPAIRED))
        .collect()
}

/// Backs up what can be read of a snapshot.
fn copy(
    repository: &Arc<Repository>,
    (stored, snapshot): (Arc<Stored>, &KnownSnapshot),
    options: &SnapshotOptions,
) -> Result<(ObjectId, Losses)> {
    let old = snapshot.tags.iter().filter(|tag| !tag.starts_with(TAG_REPAIRED)).cloned();
    let tags = old.chain([tag(snapshot)]).collect();
    let backup = BackupOptions::of_snapshot(snapshot, tags, (&options.program, options.workers));
    Survivors::new(stored, (snapshot, "repair"), None).store(repository, &backup)
}

/// What is not as it should be of a snapshot.
#[derive(Default)]
struct Found {
    lost: Losses,
    /// Where in packs that do not count there is what only these hold: one place of each frame.
    aside: HashSet<Location>,
    /// Nothing of it can be read.
    nothing: bool,
}

/// Snapshots that have lost something, or need what is in packs that do not count; and where that is.
type Looked = (Vec<(KnownSnapshot, Losses, u64, bool)>, HashSet<Location>);

fn look_at_all(
    repository: &Arc<Repository>,
    (view, frames): (&Arc<View>, &Arc<Mutex<AsideFrames>>),
    (domain, known): (DomainId, Vec<KnownSnapshot>),
) -> Result<Looked> {
    let (mut looked, mut needed) = (Vec::new(), HashSet::new());
    // One for all: what they share of their manifests is likely at hand.
    let mut nodes = WatchedNodes::new(repository, (domain, &view.index))?;
    for snapshot in known {
        nodes.serve(snapshot.name.identity);
        let found = look(&*Stored::new(repository, (view, frames), &snapshot)?, &nodes, &snapshot)?;
        if found.lost.count > 0 || !found.aside.is_empty() {
            let Found { lost, aside, nothing } = found;
            looked.push((snapshot, lost, aside.len() as u64, nothing));
            needed.extend(aside);
        }
    }
    Ok((looked, needed))
}

fn look(stored: &Stored, nodes: &WatchedNodes<'_>, snapshot: &KnownSnapshot) -> Result<Found> {
    let (mut found, mut frames) = (Found::default(), HashSet::new());
    for_each_entry(nodes, snapshot.record.root, &[], &mut |entry| {
        stored.repository.store.progress().check()?;
        match entry {
            Ok(entry) => {
                let why = stored.loss_of(&entry, nodes, &mut |at| {
                    if frames.insert(at.frame()) {
                        found.aside.insert(at);
                    }
                })?;
                if let Some(why) = why {
                    found.lost.add(&entry.path, why);
                }
            }
            Err(Gap { first, error }) => {
                found.nothing |= first.is_empty();
                found.lost.add(&first, unknown(&error));
            }
        }
        Ok(())
    })?;
    for at in nodes.take_aside() {
        if let Some(at) = stored.find_aside(at)? {
            found.aside.insert(at);
        }
    }
    Ok(found)
}

fn unknown(error: &Error) -> String {
    format!("a part of the manifest is lost, from here on: {error}")
}

/// What a domain holds for the snapshots of one identity.
pub(in crate::ops) struct Stored {
    repository: Arc<Repository>,
    view: Arc<View>,
    keys: ChunkKeys,
    domain: DomainId,
    /// Whose copies are tried first.
    reader: IdentityId,
    aside: Arc<Mutex<AsideFrames>>,
    recent: RecentFrames<OpenFrame>,
}

/// A frame that was opened.
struct OpenFrame {
    /// A blob in it.
    at: Location,
    found: index::Found,
    plain: Vec<u8>,
}

impl OpenFrame {
    fn blob(&self, at: Location) -> Option<&[u8]> {
        let number = at.number_beside(self.at, self.found.blob)?;
        self.plain.get(blob_range(&self.found.frame, number)?)
    }
}

impl Stored {
    pub(in crate::ops) fn new(
        repository: &Arc<Repository>,
        (view, aside): (&Arc<View>, &Arc<Mutex<AsideFrames>>),
        snapshot: &KnownSnapshot,
    ) -> Result<Arc<Self>> {
        let domain = snapshot.name.domain;
        Ok(Arc::new(Self {
            repository: Arc::clone(repository),
            view: Arc::clone(view),
            keys: repository.chunk_keys(&domain)?,
            domain,
            reader: snapshot.name.identity,
            aside: Arc::clone(aside),
            recent: RecentFrames::new(FRAMES_OPEN),
        }))
    }

    pub(in crate::ops) fn nodes(&self) -> Result<NodeReader<'_>> {
        let mut nodes = NodeReader::new(&self.repository, self.domain, &self.view.index)?;
        nodes.serve(self.reader);
        Ok(nodes)
    }

    fn lock_aside(&self) -> MutexGuard<'_, AsideFrames> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frame that holds a chunk there.
    fn frame(&self, at: Location, chunk: &ChunkRef) -> Result<Arc<OpenFrame>> {
        self.recent.get(at.frame(), || {
            let Self { repository, view, domain, .. } = self;
            let found = view.index.found(at).ok_or_else(|| chunk_error(chunk, "the index is damaged"))?;
            if found.section.kind != PackKind::Data {
                return Err(chunk_error(chunk, "the index says that it is a node"));
            }
            let name = repository.pack_name(domain, &found.pack);
            let sealed = repository.store.read_range(&name, found.frame.range())?;
            let frame = (&found.frame, &found.section);
            let plain = repository.open_frame(domain, frame, &sealed, &mut Decompressor::new()?)?;
            Ok(OpenFrame { at, found, plain })
        })
    }

    /// Where the node of a place in a pack that does not count can be read in such a one.
    fn find_aside(&self, at: Location) -> Result<Option<Location>> {
        let index = &self.view.index;
        let Some(Blob { id, .. }) = index.blob(at) else { return Ok(None) };
        self.lock_aside().find((&self.repository, &self.domain, index), (&id, PackKind::Metadata))
    }

    /// Why the content of an entry is lost, if it is.
    pub(in crate::ops) fn loss(&self, entry: &Entry, nodes: &dyn NodeSource) -> Result<Option<String>> {
        self.loss_of(entry, nodes, &mut |_| {})
    }

    /// As [`Self::loss`]; `aside` hears where there is what can be read in packs alone that do not count.
    fn loss_of(
        &self,
        entry: &Entry,
        nodes: &dyn NodeSource,
        aside: &mut dyn FnMut(Location),
    ) -> Result<Option<String>> {
        if entry.metadata.kind != EntryKind::File || entry.error.is_some() {
            return Ok(None);
        }
        let place = (&*self.repository, &self.domain, &self.view.index);
        let mut missing = None;
        let walked = for_each_chunk(&entry.content, nodes, &mut |chunk| {
            self.repository.store.progress().check()?;
            let holding = self.lock_aside().holding(place, (&chunk.id, PackKind::Data))?;
            match holding {
                Holding::Counts => {}
                Holding::Aside(at) => aside(at),
                Holding::Lost => {
                    missing
                        .get_or_insert_with(|| format!("no pack that is there holds its chunk {}", chunk.id));
                }
            }
            Ok(())
        });
        let loss = match walked {
            Ok(()) => missing,
            Err(error) if error.is_damage() => Some(error.to_string()),
            Err(error) => return Err(error),
        };
        if loss.is_some() {
            self.view.index.vouch()?;
        }
        Ok(loss)
    }
}

/// What can be read of a snapshot.
pub(in crate::ops) struct Survivors {
    stored: Arc<Stored>,
    root: BlobId,
    copy_of: CopyOf,
    /// Only this of it.
    selection: Option<Arc<Selection>>,
    lost: Arc<Mutex<Losses>>,
}

fn lock(lost: &Mutex<Losses>) -> MutexGuard<'_, Losses> {
    lost.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Survivors {
    pub(in crate::ops) fn new(
        stored: Arc<Stored>,
        (snapshot, command): (&KnownSnapshot, &'static str),
        selection: Option<Arc<Selection>>,
    ) -> Self {
        let writer = Some(snapshot.writer());
        let copy_of = CopyOf { origin: None, writer, begun: snapshot.record.begun, command };
        Self { stored, root: snapshot.record.root, copy_of, selection, lost: Arc::default() }
    }

    /// Makes a snapshot of them, and tells what is not in it since it could not be read.
    pub(in crate::ops) fn store(
        mut self,
        repository: &Arc<Repository>,
        backup: &BackupOptions,
    ) -> Result<(ObjectId, Losses)> {
        let done = backup::run(repository, &mut self, backup)?;
        let (id, _) = done.snapshot.ok_or_else(|| Error::new(ErrorKind::Failed, "no copy was written"))?;
        let mut lost = std::mem::take(&mut *lock(&self.lost));
        // Several files are read at a time.
        lost.named.sort_by(|a, b| compare_paths(&a.path, &b.path));
        Ok((id, lost))
    }
}

impl Source for Survivors {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let Self { stored, root, selection, lost, .. } = self;
        // A backup that is not committed in time goes through all of it once more.
        *lock(lost) = Losses::default();
        let (nodes, found) = (stored.nodes()?, VecDeque::new());
        let sieve = selection.as_deref().map(Sieve::new);
        Ok(Box::new(Entries {
            stored,
            nodes,
            root: *root,
            sieve,
            lost,
            last: Vec::new(),
            found,
            ended: false,
        }))
    }

    fn copy_of(&self) -> Option<CopyOf> {
        Some(self.copy_of)
    }
}

/// Gives the entries of a manifest some at a time, each time from the last one on.
struct Entries<'a> {
    stored: &'a Arc<Stored>,
    nodes: NodeReader<'a>,
    root: BlobId,
    sieve: Option<Sieve<'a>>,
    lost: &'a Arc<Mutex<Losses>>,
    last: Vec<u8>,
    found: VecDeque<Entry>,
    ended: bool,
}

impl Entries<'_> {
    fn fill(&mut self) -> Result<()> {
        let mut cursor = ManifestCursor::from(&self.nodes, self.root, &self.last);
        while self.found.len() < ENTRIES_AT_ONCE {
            let (entry, gap) = match cursor.next_entry() {
                Ok(Some(entry)) => (entry, None),
                Ok(None) => {
                    self.ended = true;
                    break;
                }
                // Of an empty copy nobody would have anything.
                Err(error) if error.is_damage() && !cursor.tried().is_empty() => {
                    (nameless(cursor.tried(), &error), Some(unknown(&error)))
                }
                Err(error) => return Err(error),
            };
            if compare_paths(&entry.path, &self.last).is_gt() {
                self.last.clone_from(&entry.path);
                if self.sieve.as_mut().is_none_or(|sieve| sieve.takes(&entry)) {
                    if let Some(why) = gap {
                        lock(self.lost).add(&entry.path, why);
                    }
                    self.found.push_back(entry);
                }
            }
        }
        Ok(())
    }

    fn item(&self, mut entry: Entry) -> Result<Item> {
        let nodes = &self.nodes;
        if let Some(why) = self.stored.loss(&entry, nodes)? {
            lock(self.lost).add(&entry.path, why.clone());
            entry.error = Some(format!("it was lost in the repository: {why}"));
        }
        if entry.metadata.kind != EntryKind::File || entry.error.is_some() {
            entry.content = Content::Inline(Vec::new());
            entry.metadata.holes = Vec::new();
            return Ok(Item::Entry(entry));
        }
        let stored = Arc::clone(self.stored);
        let (content, metadata, changed) =
            (entry.content.clone(), entry.metadata.clone(), entry.changed_while_read);
        let (path, lost) = (entry.path.clone(), Arc::clone(self.lost));
        let open = move || {
            let content = StoredContent::new((stored, path, lost), content, (metadata, changed));
            Ok(Box::new(content) as Box<dyn ReadContent>)
        };
        Ok(Item::File(entry, Box::new(open)))
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.found.is_empty() && !self.ended {
            if let Err(error) = self.fill() {
                self.ended = true;
                return Some(Err(error));
            }
        }
        self.found.pop_front().map(|entry| self.item(entry))
    }
}

/// What stands for entries of which not even the names are known: the first of them.
fn nameless(first: &[u8], error: &Error) -> Entry {
    Entry {
        path: first.to_vec(),
        metadata: Metadata::of(EntryKind::File),
        content: Content::Inline(Vec::new()),
        changed_while_read: false,
        error: Some(unknown(error)),
    }
}

/// The content of a file as it is stored, chunk by chunk, each checked against its id.
struct StoredContent {
    stored: Arc<Stored>,
    /// Its path, for those that are lost.
    path: Vec<u8>,
    lost: Arc<Mutex<Losses>>,
    /// Nodes of lists that are to be read, the next one last.
    lists: Vec<BlobId>,
    chunks: VecDeque<ChunkRef>,
    /// The chunk in hand, and how much of it was given.
    plain: (Vec<u8>, usize),
    /// The frame that was read from last.
    frame: Option<Arc<OpenFrame>>,
    holes: Vec<Hole>,
    changed: bool,
    /// Bytes that are still to come.
    left: u64,
}

impl StoredContent {
    fn new(
        (stored, path, lost): (Arc<Stored>, Vec<u8>, Arc<Mutex<Losses>>),
        content: Content,
        (metadata, changed): (Metadata, bool),
    ) -> Self {
        let left = metadata.content_bytes();
        let (lists, chunks) = match content {
            Content::Inline(chunks) => (Vec::new(), chunks.into()),
            Content::List { node, .. } => (vec![node], VecDeque::new()),
        };
        let plain = (Vec::new(), 0);
        Self { stored, path, lost, lists, chunks, plain, frame: None, holes: metadata.holes, changed, left }
    }

    /// The next chunk comes to hand; false at the end.
    fn advance(&mut self) -> Result<bool> {
        while self.chunks.is_empty() {
            let Some(list) = self.lists.pop() else { break };
            match self.stored.nodes()?.node(&list)? {
                Node::Chunks(chunks) => self.chunks = chunks.into(),
                Node::Lists(_, children) => self.lists.extend(children.iter().rev().map(|child| child.id)),
                Node::Leaf(_) | Node::Branch(..) => {
                    return Err(Error::damaged("a list of chunks", "it is none"));
                }
            }
        }
        let Some(chunk) = self.chunks.pop_front() else {
            return if self.left == 0 {
                Ok(false)
            } else {
                Err(Error::damaged("a file", "its chunks are too few"))
            };
        };
        self.left = (self.left.checked_sub(u64::from(chunk.length)))
            .ok_or_else(|| Error::damaged("a file", "its chunks are too many"))?;
        self.plain = (self.chunk(&chunk)?, 0);
        Ok(true)
    }

    /// From the first copy that is good.
    fn chunk(&mut self, chunk: &ChunkRef) -> Result<Vec<u8>> {
        let stored = Arc::clone(&self.stored);
        let mut failed = chunk_error(chunk, "no pack that is there holds it");
        for at in stored.view.index.copies(&chunk.id, stored.reader) {
            match self.copy_at(chunk, at) {
                Err(error) if error.is_damage() => failed = error,
                other => return other,
            }
        }
        stored.view.index.vouch()?;
        Err(failed)
    }

    fn copy_at(&mut self, chunk: &ChunkRef, at: Location) -> Result<Vec<u8>> {
        let frame = match self.frame.take().filter(|frame| frame.at.frame() == at.frame()) {
            Some(frame) => frame,
            None => self.stored.frame(at, chunk)?,
        };
        let bytes = frame.blob(at).map(<[u8]>::to_vec);
        self.frame = Some(frame);
        let is_it = |bytes: &Vec<u8>| {
            self.stored.keys.id.id(bytes) == chunk.id && bytes.len() == chunk.length as usize
        };
        bytes.filter(is_it).ok_or_else(|| chunk_error(chunk, "its content is not what its id names"))
    }
}

fn chunk_error(chunk: &ChunkRef, why: &str) -> Error {
    Error::damaged(format!("chunk {}", chunk.id), why)
}

impl Read for StoredContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.plain.1 == self.plain.0.len() {
            let more = self.advance().map_err(|error| {
                lock(&self.lost).add(&self.path, error.to_string());
                io::Error::other(error)
            });
            if !more? {
                return Ok(0);
            }
        }
        let (plain, at) = &mut self.plain;
        let rest = plain.get(*at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        *at += count;
        Ok(count)
    }
}

impl ReadContent for StoredContent {
    fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// As it was when it was backed up.
    fn has_changed(&self) -> Result<bool> {
        Ok(self.changed)
    }
}
