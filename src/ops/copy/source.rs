//! A stored snapshot as the source of a backup to another repository.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    content::StoredContent,
    frames::{Ahead, Turn, WINDOW_BYTES, Window, lock},
    names::{Chunks, Names},
};
use crate::{
    compress::Decompressor,
    crypto::ChunkKeys,
    error::{Error, ErrorKind, Result},
    format::{
        entry::{ChunkRef, Content, Entry, EntryKind},
        node::{Node, compare_paths},
        pack::PackKind,
    },
    id::{BlobId, DomainId, IdentityId},
    ops::{
        backup::{CopyOf, Item, ReadContent, Source},
        recent::RecentFrames,
    },
    repository::{
        Repository,
        index::{Found, KnownPack, Location},
        manifest::{ManifestCursor, NodeSource},
        reader::{NodeReader, blob_range},
        snapshots::KnownSnapshot,
        view::View,
    },
    store::Name,
};

/// Entries that are taken from a manifest at a time.
const ENTRIES_AT_ONCE: usize = 1024;
/// What is lost is named up to so many, and counted beyond.
const NAMED_MAX: usize = 1000;
/// Frames that were opened out of their turn and are kept, of 2 MiB at most: neighbours of a chunk whose copy is gone
/// are often missed too.
const TRIED_FRAMES: usize = 4;

/// A file that cannot be copied, or the first of several of which not even the names are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its path without the leading slash.
    pub path: Vec<u8>,
    /// Why.
    pub why: String,
}

/// What is lost of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// How many files, as far as their names are known.
    pub count: u64,
    /// The first of them.
    pub named: Vec<Lost>,
}

impl Losses {
    pub(in crate::ops) fn add(&mut self, path: &[u8], why: String) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(Lost { path: path.to_vec(), why });
        }
    }
}

/// A snapshot in its repository: where to read it.
pub(super) struct Place {
    repository: Arc<Repository>,
    view: Arc<View>,
    domain: DomainId,
    /// Whose copies are tried first.
    reader: IdentityId,
    root: BlobId,
}

impl Place {
    pub(super) fn new(
        repository: &Arc<Repository>,
        (domain, reader): (DomainId, IdentityId),
        root: BlobId,
    ) -> Result<Self> {
        let view = Arc::new(repository.view_to_read(&domain)?);
        Ok(Self { repository: Arc::clone(repository), view, domain, reader, root })
    }

    pub(super) fn of(repository: &Arc<Repository>, snapshot: &KnownSnapshot) -> Result<Self> {
        Self::new(repository, (snapshot.name.domain, snapshot.name.identity), snapshot.record.root)
    }

    /// Where to read another one, that was known before this view was taken.
    pub(super) fn beside(&self, snapshot: &KnownSnapshot) -> Result<Self> {
        let KnownSnapshot { name, record, .. } = snapshot;
        if name.domain != self.domain {
            return Self::of(&self.repository, snapshot);
        }
        let (repository, view) = (Arc::clone(&self.repository), Arc::clone(&self.view));
        Ok(Self { repository, view, domain: self.domain, reader: name.identity, root: record.root })
    }

    fn nodes(&self) -> Result<NodeReader<'_>> {
        let mut nodes = NodeReader::new(&self.repository, self.domain, &self.view.index)?;
        nodes.serve(self.reader);
        Ok(nodes)
    }

    /// One node of a list, without its neighbours: the next one is needed many chunks later.
    pub(super) fn list(&self, id: &BlobId) -> Result<Node> {
        let mut nodes = self.nodes()?;
        nodes.read_nothing_ahead();
        nodes.node(id)
    }
}

/// A snapshot of the source that was copied before, and its copy: what both hold has the same chunks in the same order.
pub(super) struct Base {
    pub(super) source: Place,
    pub(super) copy: Place,
}

/// How the target cuts files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cuts {
    Stay,
    /// Source and target are one: chunks keep their names too.
    Same,
    /// The chunks of the target have other sizes: files are cut anew.
    Anew,
}

/// What all that read the snapshot share.
pub(super) struct Shared {
    pub(super) place: Place,
    keys: ChunkKeys,
    pub(super) ahead: Ahead,
    pub(super) names: Arc<Names>,
    pub(super) cuts: Cuts,
    pub(super) base: Option<Base>,
    losses: Mutex<Losses>,
    /// What ends the copy, and would be everywhere.
    failed: Mutex<Option<Error>>,
    decompressors: Mutex<Vec<Decompressor>>,
    /// Frames that were opened out of their turn.
    tried: RecentFrames<Vec<u8>>,
    reused: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        place: Place,
        names: &Arc<Names>,
        (cuts, base): (Cuts, Option<Base>),
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            keys: place.repository.chunk_keys(&place.domain)?,
            ahead: Ahead::new(&place.repository.store),
            place,
            names: Arc::clone(names),
            cuts,
            base,
            losses: Mutex::default(),
            failed: Mutex::default(),
            decompressors: Mutex::default(),
            tried: RecentFrames::new(TRIED_FRAMES),
            reused: AtomicU64::new(0),
        }))
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        lock(&self.failed).take()
    }

    pub(super) fn losses(&self) -> Losses {
        lock(&self.losses).clone()
    }

    /// Bytes of chunks that were not read, since the target has them.
    pub(super) fn reused(&self) -> u64 {
        self.reused.load(Ordering::Relaxed)
    }

    pub(super) fn reuses(&self, chunk: &ChunkRef) {
        self.reused.fetch_add(u64::from(chunk.length), Ordering::Relaxed);
    }

    /// Something of a file cannot be read. Damage costs the snapshot and not the search for more of it; all else ends
    /// the copy.
    pub(super) fn trouble(&self, path: &[u8], error: Error) -> Error {
        if error.is_damage() {
            self.lose(path, error.to_string());
            return error.with_kind(ErrorKind::Incomplete);
        }
        let again = Error::new(error.kind(), error.to_string());
        lock(&self.failed).get_or_insert(error);
        again
    }

    fn lose(&self, path: &[u8], why: String) {
        lock(&self.losses).add(path, why);
    }

    pub(super) fn name_of(&self, pack: &KnownPack) -> Name {
        self.place.repository.pack_name(&self.place.domain, pack)
    }

    fn copies(&self, chunk: &ChunkRef) -> Vec<Location> {
        let Place { repository, view, reader, .. } = &self.place;
        repository.copies(&view.index, &chunk.id, Some(*reader))
    }

    /// Plans to read a chunk.
    pub(super) fn plan(&self, window: &mut Window, chunk: ChunkRef) -> Piece {
        let known = match self.cuts {
            Cuts::Stay => self.names.get(&chunk),
            Cuts::Same => Some(chunk),
            Cuts::Anew => None,
        };
        let planned = match known {
            Some(_) => None,
            None => window.add(chunk, (&self.place.view.index, self.copies(&chunk))),
        };
        Piece { chunk, known, planned }
    }

    pub(super) fn close(&self, window: &mut Window, turn: Turn) {
        window.close(&self.ahead, turn, &|pack| self.name_of(pack));
    }

    /// The bytes of a chunk, checked against its id, from the first copy that is good.
    pub(super) fn read(&self, piece: &Piece) -> Result<Plain> {
        let Piece { chunk, planned, .. } = piece;
        if let Some((frame, range)) = planned {
            let plain = frame.plain(&self.ahead, &mut |sealed| self.open(&frame.found, sealed))?;
            if let Some(plain) = plain.filter(|plain| self.is(chunk, plain.get(range.clone()))) {
                return Ok((plain, range.clone()));
            }
        }
        let mut failed = Error::damaged(format!("chunk {}", chunk.id), "no pack that is there holds it");
        for at in self.copies(chunk) {
            match self.copy_at(chunk, at) {
                Err(error) if error.is_damage() => failed = error,
                other => return other,
            }
        }
        self.place.view.index.vouch()?;
        Err(failed.with_kind(ErrorKind::Damaged))
    }

    fn is(&self, chunk: &ChunkRef, bytes: Option<&[u8]>) -> bool {
        bytes.is_some_and(|bytes| bytes.len() == chunk.length as usize && self.keys.id.id(bytes) == chunk.id)
    }

    fn copy_at(&self, chunk: &ChunkRef, at: Location) -> Result<Plain> {
        let wrong = |why: &str| Error::damaged(format!("chunk {}", chunk.id), why);
        let found = self.place.view.index.found(at).ok_or_else(|| wrong("the index is damaged"))?;
        if found.section.kind != PackKind::Data {
            return Err(wrong("the index says that it is a node"));
        }
        let plain = self.tried.get(at.frame(), || self.read_frame(&found))?;
        match blob_range(&found.frame, found.blob) {
            Some(range) if self.is(chunk, plain.get(range.clone())) => Ok((plain, range)),
            _ => Err(wrong("its content is not what its id names")),
        }
    }

    fn read_frame(&self, found: &Found) -> Result<Vec<u8>> {
        let name = self.name_of(&found.pack);
        let sealed = self.place.repository.store.read_range(&name, found.frame.range())?;
        self.open(found, &sealed).map_err(|error| error.context(&name))
    }

    fn open(&self, found: &Found, sealed: &[u8]) -> Result<Vec<u8>> {
        let idle = lock(&self.decompressors).pop();
        let mut decompressor = idle.map_or_else(Decompressor::new, Ok)?;
        let Place { repository, domain, .. } = &self.place;
        let plain = repository.open_frame(domain, (&found.frame, &found.section), sealed, &mut decompressor);
        lock(&self.decompressors).push(decompressor);
        plain
    }
}

/// The plaintext of a frame, and where a chunk is in it.
pub(super) type Plain = (Arc<Vec<u8>>, std::ops::Range<usize>);

/// A chunk, and how to come by it.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) chunk: ChunkRef,
    /// What it is called in the target, if that is known.
    pub(super) known: Option<ChunkRef>,
    pub(super) planned: Option<super::frames::Planned>,
}

/// A snapshot that is to be copied.
pub(super) struct Copying {
    pub(super) shared: Arc<Shared>,
    pub(super) copy_of: CopyOf,
}

impl Source for Copying {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let shared = &self.shared;
        let base = match &shared.base {
            Some(Base { source, copy }) => Some((source.nodes()?, copy.nodes()?)),
            None => None,
        };
        let nodes = shared.place.nodes()?;
        Ok(Box::new(Entries {
            shared,
            nodes,
            base,
            window: Window::default(),
            last: Vec::new(),
            items: VecDeque::new(),
            ended: false,
        }))
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(error) = self.shared.take_failure() {
            return Err(error);
        }
        let count = lock(&self.shared.losses).count;
        if count > 0 {
            return Err(Error::damaged(
                "the snapshot",
                "not all of it can be read, so that it is not copied",
            ));
        }
        Ok(())
    }

    fn copy_of(&self) -> Option<CopyOf> {
        Some(self.copy_of)
    }
}

/// Gives the entries of the manifest some at a time, and has their contents on the way when it does.
struct Entries<'a> {
    shared: &'a Arc<Shared>,
    nodes: NodeReader<'a>,
    /// Those of the base: of the source and of the copy.
    base: Option<(NodeReader<'a>, NodeReader<'a>)>,
    window: Window,
    last: Vec<u8>,
    items: VecDeque<Item>,
    ended: bool,
}

impl Entries<'_> {
    fn fill(&mut self) -> Result<()> {
        let entries = self.next_entries()?;
        let bases = match self.bases_of(&entries) {
            Err(error) if error.is_damage() => {
                self.base = None;
                entries.iter().map(|_| None).collect()
            }
            other => other?,
        };
        let mut window = std::mem::take(&mut self.window);
        for (entry, base) in entries.into_iter().zip(bases) {
            let item = self.item(entry, base, &mut window);
            self.items.push_back(item);
            if window.is_full() {
                self.shared.close(&mut window, Turn::Last);
            }
        }
        self.shared.close(&mut window, Turn::Last);
        self.window = window;
        Ok(())
    }

    fn next_entries(&mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::with_capacity(ENTRIES_AT_ONCE);
        let mut cursor = ManifestCursor::from(&self.nodes, self.shared.place.root, &self.last);
        while entries.len() < ENTRIES_AT_ONCE {
            match cursor.next_entry() {
                Ok(Some(entry)) if compare_paths(&entry.path, &self.last).is_gt() => {
                    self.last.clone_from(&entry.path);
                    entries.push(entry);
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.ended = true;
                    break;
                }
                Err(error) if error.is_damage() => {
                    let why = format!("a part of the manifest is lost, from here on: {error}");
                    self.shared.lose(cursor.tried(), why);
                    // Nothing can be written, so what is left is only looked at for more of it.
                    if cursor.tried().is_empty() {
                        self.ended = true;
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    /// For each entry what the base has under its path: there and in its copy.
    fn bases_of(&self, entries: &[Entry]) -> Result<Vec<Option<(Content, Content)>>> {
        let none = || entries.iter().map(|_| None).collect();
        let (Some((source, copy)), Some(first)) = (&self.base, entries.first()) else { return Ok(none()) };
        let Some(base) = &self.shared.base else { return Ok(none()) };
        let mut cursors = (
            Merge::new(ManifestCursor::from(source, base.source.root, &first.path)),
            Merge::new(ManifestCursor::from(copy, base.copy.root, &first.path)),
        );
        let mut found = Vec::with_capacity(entries.len());
        for entry in entries {
            found.push(cursors.0.at(&entry.path)?.zip(cursors.1.at(&entry.path)?));
        }
        Ok(found)
    }

    fn item(&self, mut entry: Entry, base: Option<(Content, Content)>, window: &mut Window) -> Item {
        let content = std::mem::replace(&mut entry.content, Content::Inline(Vec::new()));
        if entry.metadata.kind != EntryKind::File || entry.error.is_some() {
            return Item::Entry(entry);
        }
        let shared = Arc::clone(self.shared);
        let small = match &content {
            Content::Inline(chunks) => {
                chunks.iter().map(|chunk| u64::from(chunk.length)).sum::<u64>() <= WINDOW_BYTES
            }
            Content::List { .. } => false,
        };
        let stored = match (content, base) {
            (Content::Inline(chunks), base) if small => {
                if let Some((Content::Inline(there), Content::Inline(copied))) = base {
                    learn(&shared.names, &there, &copied);
                }
                let pieces = chunks.into_iter().map(|chunk| shared.plan(window, chunk)).collect();
                StoredContent::planned(shared, &entry, pieces)
            }
            (content, base) => {
                let base = base.map(|(there, copied)| (Chunks::of(there), Chunks::of(copied)));
                StoredContent::large(shared, &entry, Chunks::of(content), base)
            }
        };
        Item::File(entry, Box::new(move || Ok(Box::new(stored) as Box<dyn ReadContent>)))
    }
}

/// Two contents are the same: so are their chunks, if all have the same lengths.
fn learn(names: &Names, there: &[ChunkRef], copied: &[ChunkRef]) {
    let same = there.iter().map(|chunk| chunk.length).eq(copied.iter().map(|chunk| chunk.length));
    if same {
        there.iter().zip(copied).for_each(|(chunk, name)| names.learn(chunk, *name));
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.shared.take_failure() {
            self.ended = true;
            self.items.clear();
            return Some(Err(error));
        }
        while self.items.is_empty() && !self.ended {
            if let Err(error) = self.fill() {
                self.ended = true;
                return Some(Err(error));
            }
        }
        self.items.pop_front().map(Ok)
    }
}

/// Entries in path order, of which some are asked for, also in path order.
struct Merge<'a> {
    cursor: ManifestCursor<'a>,
    next: Option<Entry>,
    ended: bool,
}

impl<'a> Merge<'a> {
    const fn new(cursor: ManifestCursor<'a>) -> Self {
        Self { cursor, next: None, ended: false }
    }

    /// The content of the file with this path.
    fn at(&mut self, path: &[u8]) -> Result<Option<Content>> {
        loop {
            if self.next.is_none() && !self.ended {
                self.next = self.cursor.next_entry()?;
                self.ended = self.next.is_none();
            }
            let Some(entry) = self.next.take() else { return Ok(None) };
            match compare_paths(&entry.path, path) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => {
                    let is_whole = entry.metadata.kind == EntryKind::File && entry.error.is_none();
                    return Ok(is_whole.then_some(entry.content));
                }
                std::cmp::Ordering::Greater => {
                    self.next = Some(entry);
                    return Ok(None);
                }
            }
        }
    }
}
