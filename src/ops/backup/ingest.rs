//! From plaintext to packs: cut, name, look up, gather new chunks into frames, compress, seal, upload.
//! An [`Ingest`] is shared by all workers; each has a [`Worker`] of its own.

use std::{
    collections::HashSet,
    io::{ErrorKind as IoErrorKind, Read},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Again, CutContent, NextChunk, OpenFile, ReadContent};
use crate::{
    chunk::Chunker,
    compress::{Codec, Compression, Compressor, Decompressor, LARGE_CHUNK_BYTES, Plaintext},
    crypto::{ChunkKeys, IndexKey, NodeKey},
    error::{Error, ErrorKind, Result},
    format::{
        entry::{ChunkRef, Content, Entry, Metadata},
        pack::{Blob, PackKind, target_length},
    },
    id::{BlobId, DomainId, IdentityId, PackId},
    limits,
    progress::Progress,
    repository::{
        Repository,
        cache::NodeFileWriter,
        commit::IndexBatch,
        index::Index,
        journal::Journal,
        manifest::{ContentBuilder, NodeSink, NodeSource, for_each_chunk, for_each_list_node},
        pack_writer::{BlobKey, FinishedPack, PackKeys, PackWriter},
    },
    store::{Name, Uploads},
};

/// New chunks are compressed together until a frame holds this many bytes.
pub const FRAME_BYTES_TARGET: usize = limits::MIB;

/// How many bytes a frame of so many chunks may hold. Pieces of large files fill larger frames: a disk image becomes 2.6 %
/// smaller, in the same time. Small files do not, since a byte that is damaged takes its frame with it, and a restore of
/// one file reads the frame whole.
#[must_use]
pub const fn frame_target(bytes: usize, chunks: usize) -> usize {
    if bytes >= chunks * LARGE_CHUNK_BYTES { limits::FRAME_BYTES_MAX } else { FRAME_BYTES_TARGET }
}
/// An index object is written at least this often while packs are.
const INDEX_INTERVAL: Duration = Duration::from_secs(600);
/// A file that changes while it is read is read again at most so often.
const REREADS_MAX: u32 = 3;
/// Packs that wait to be uploaded hold at most this many bytes, or are two.
pub const UPLOAD_BYTES_IN_FLIGHT: usize = 3 * (limits::PACK_BYTES_TARGET + limits::PACK_BYTES_BEYOND);

/// The keys that a backup works with.
#[derive(Debug)]
pub struct IngestKeys {
    /// Seals directories and indexes.
    pub index: IndexKey,
    /// Names nodes.
    pub node: NodeKey,
    /// Names and cuts chunks.
    pub chunk: ChunkKeys,
}

impl IngestKeys {
    /// The keys of a domain.
    ///
    /// # Errors
    /// `Forbidden` for a role that does not hold them.
    pub fn of(repository: &Repository, domain: &DomainId) -> Result<Self> {
        let forbidden = |_: Error| repository.forbidden("back up", "backup");
        Ok(Self {
            index: repository.index_key(domain).map_err(forbidden)?,
            node: repository.node_key(domain).map_err(forbidden)?,
            chunk: repository.chunk_keys(domain).map_err(forbidden)?,
        })
    }
}

/// Packs that the store has and no index lists yet.
#[derive(Debug, Default)]
struct Unindexed {
    packs: IndexBatch,
    /// When the last index object was written, on the boot-time clock.
    since: Duration,
    probe: Option<Probe>,
}

/// The newest object of a run that tells the storage's time, and when it was acknowledged.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The object.
    pub name: Name,
    /// By the boot-time clock.
    pub at: Duration,
}

/// Everything that workers share.
#[derive(Debug)]
pub struct Ingest<'a> {
    repository: &'a Repository,
    domain: DomainId,
    author: IdentityId,
    keys: &'a IngestKeys,
    index: &'a Index,
    /// What this run has indexed itself.
    added: RwLock<Index>,
    chunker: Chunker,
    data: PackWriter<'a>,
    metadata: PackWriter<'a>,
    /// Without them nothing is stored: a dry run.
    uploads: Option<&'a Uploads>,
    /// Blobs that somebody has in hand, until an index lists them.
    claimed: Mutex<HashSet<BlobId>>,
    unindexed: Mutex<Unindexed>,
    kept: Mutex<Option<NodeFileWriter>>,
    journal: Mutex<Option<Journal>>,
    bytes_new: AtomicU64,
    bytes_stored: AtomicU64,
    /// Files that were gone before they were opened.
    vanished: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Ingest<'a> {
    /// An ingest into a domain, given what exists there. Without uploads nothing is stored.
    ///
    /// # Errors
    /// The registry has no such domain or no key epoch.
    pub fn new(
        repository: &'a Repository,
        domain: DomainId,
        keys: &'a IngestKeys,
        index: &'a Index,
        uploads: Option<&'a Uploads>,
    ) -> Result<Self> {
        let registry = repository.registry();
        let parameters = registry
            .domain(&domain)
            .ok_or_else(|| Error::damaged("the registry", format!("it lacks {domain}")))?;
        let writer = |kind, (epoch, public), blobs| {
            let place = repository.place(domain);
            let keys = PackKeys {
                place,
                kind,
                blobs,
                epoch,
                public,
                index: &keys.index,
                signer: repository.signer(),
            };
            let target = match kind {
                PackKind::Data => target_length(index.bytes()),
                PackKind::Metadata => limits::PACK_BYTES_TARGET,
            };
            PackWriter::new(keys, target)
        };
        let (chunk, node) = (BlobKey::Chunk(&keys.chunk.id), BlobKey::Node(&keys.node));
        let data = writer(PackKind::Data, repository.data_public()?, chunk);
        let metadata = writer(PackKind::Metadata, repository.metadata_public()?, node);
        let unindexed = Unindexed { since: repository.clock.elapsed(), ..Unindexed::default() };
        Ok(Self {
            repository,
            domain,
            author: repository.identity(),
            keys,
            index,
            added: RwLock::default(),
            chunker: Chunker::new(keys.chunk.gear.table(), parameters.chunk_sizes()),
            data,
            metadata,
            uploads,
            claimed: Mutex::default(),
            unindexed: Mutex::new(unindexed),
            kept: Mutex::default(),
            journal: Mutex::default(),
            bytes_new: AtomicU64::new(0),
            bytes_stored: AtomicU64::new(0),
            vanished: AtomicU64::new(0),
        })
    }

    /// What the backup has done so far.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        self.repository.store.progress()
    }

    /// Keeps every manifest node in the cache too, for the next backup.
    pub fn keep_nodes(&self, nodes: Option<NodeFileWriter>) {
        *lock(&self.kept) = nodes;
    }

    /// The nodes that were kept, if none failed to be.
    pub fn kept_nodes(&self) -> Option<NodeFileWriter> {
        lock(&self.kept).take()
    }

    /// Notes every pack there until an index lists it.
    pub fn keep_journal(&self, journal: Option<Journal>) {
        *lock(&self.journal) = journal;
    }

    fn keep(&self, id: BlobId, plain: &[u8]) {
        let mut kept = lock(&self.kept);
        // A cache that cannot be written makes the next backup slower, no more.
        if kept.as_mut().is_some_and(|file| file.add(id, plain).is_err()) {
            *kept = None;
        }
    }

    fn is_present(&self, id: &BlobId, kind: PackKind) -> bool {
        self.was_stored_before(id, kind) || self.was_stored_by_this_run(id, kind)
    }

    /// Whether the blob must be stored by whoever asks: it is in no pack that may be counted on, and
    /// nobody else of this run has it in hand.
    fn is_new(&self, id: &BlobId, kind: PackKind) -> bool {
        !self.was_stored_before(id, kind) && self.is_new_in_this_run(id, kind)
    }

    /// Whether a blob was there when this run began. What the run has stored itself is no sign that a file is known.
    fn was_stored_before(&self, id: &BlobId, kind: PackKind) -> bool {
        self.index.borrow(id, self.author, kind)
    }

    fn was_stored_by_this_run(&self, id: &BlobId, kind: PackKind) -> bool {
        self.added.read().unwrap_or_else(PoisonError::into_inner).borrow(id, self.author, kind)
    }

    /// As [`Self::is_new`], of what was not there when this run began.
    fn is_new_in_this_run(&self, id: &BlobId, kind: PackKind) -> bool {
        !self.was_stored_by_this_run(id, kind) && lock(&self.claimed).insert(*id)
    }

    /// Whether a chunk can be counted on: it is stored, or somebody of this run has it in hand.
    fn counts_on(&self, id: &BlobId) -> bool {
        self.is_present(id, PackKind::Data) || lock(&self.claimed).contains(id)
    }

    /// Whether everything that a content from a parent refers to can be counted on. The list nodes among it
    /// are kept for the next backup.
    #[must_use]
    pub fn can_reuse(&self, content: &Content, nodes: &dyn NodeSource) -> bool {
        let mut present = true;
        let listed = for_each_list_node(content, nodes, &mut |id| {
            present = present && self.is_present(&id, PackKind::Metadata);
            match nodes.plain(&id) {
                Ok(plain) => self.keep(id, &plain),
                Err(_) => present = false,
            }
        });
        let chunks = listed.and_then(|()| {
            for_each_chunk(content, nodes, &mut |chunk| {
                present = present && self.is_present(&chunk.id, PackKind::Data);
                Ok(())
            })
        });
        present && chunks.is_ok()
    }

    /// Seals a frame, and begins to upload the packs that it completes.
    fn seal(
        &self,
        packs: &PackWriter<'_>,
        blobs: Vec<Blob>,
        stored: (Codec, Vec<u8>),
        check: &mut Decompressor,
    ) -> Result<()> {
        // While another worker waits in `upload`: else each would fill one pack after the other and come there with it in
        // hand, and memory would grow with the number of workers.
        drop(lock(&self.unindexed));
        self.upload(packs.add(blobs, stored, check)?)
    }

    fn upload(&self, packs: Vec<FinishedPack>) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        // Held while the store is waited for: what is in flight stays bounded, and an index is written when
        // nobody adds to it.
        let mut unindexed = lock(&self.unindexed);
        for FinishedPack { listed, pieces } in packs {
            self.bytes_stored.fetch_add(u64::from(listed.size), Ordering::Relaxed);
            if let Some(uploads) = self.uploads {
                if let Some(journal) = &mut *lock(&self.journal) {
                    journal.add(&self.keys.index, &self.domain, &listed);
                }
                uploads.create(Name::pack(&self.domain, listed.kind, &listed.id), pieces)?;
                unindexed.packs.add(listed);
            }
        }
        let waited = self.repository.clock.elapsed().saturating_sub(unindexed.since);
        if waited >= INDEX_INTERVAL || unindexed.packs.is_full() {
            self.publish_index(&mut unindexed)?;
        }
        Ok(())
    }

    /// Waits until the store has acknowledged every pack, and writes an index object that lists them.
    fn publish_index(&self, unindexed: &mut Unindexed) -> Result<()> {
        unindexed.since = self.repository.clock.elapsed();
        let (Some(packs), Some(uploads)) = (unindexed.packs.take(), self.uploads) else { return Ok(()) };
        uploads.wait()?;
        let (name, id) = self.repository.publish_index(&self.domain, &packs)?;
        if let Some(journal) = &mut *lock(&self.journal) {
            journal.clear();
        }
        unindexed.probe = Some(Probe { name, at: self.repository.clock.elapsed() });
        let mut added = self.added.write().unwrap_or_else(PoisonError::into_inner);
        self.repository.segments.extend(&mut added, &self.domain, &id)?;
        drop(added);
        let mut claimed = lock(&self.claimed);
        for frame in packs.iter().flat_map(|pack| &pack.directory.frames) {
            for blob in &frame.blobs {
                claimed.remove(&blob.id);
            }
        }
        Ok(())
    }

    /// Closes what is open, waits until the store has acknowledged every pack, and sees to it that an index
    /// lists them all. Call it when no worker is at work. Gives the last index object that was written.
    ///
    /// # Errors
    /// The first upload that failed.
    pub fn settle(&self) -> Result<Option<Probe>> {
        let last = [self.data.flush()?, self.metadata.flush()?];
        self.upload(last.into_iter().flatten().collect())?;
        let mut unindexed = lock(&self.unindexed);
        self.publish_index(&mut unindexed)?;
        if let Some(journal) = lock(&self.journal).take() {
            journal.end();
        }
        Ok(unindexed.probe.clone())
    }

    /// Bytes of new chunks, and bytes of packs.
    #[must_use]
    pub fn sizes(&self) -> (u64, u64) {
        (self.bytes_new.load(Ordering::Relaxed), self.bytes_stored.load(Ordering::Relaxed))
    }

    /// How many files were gone before they were opened.
    #[must_use]
    pub fn vanished(&self) -> u64 {
        self.vanished.load(Ordering::Relaxed)
    }

    /// The packs that this backup counts on; `None` when the cache was damaged since, so that nobody can tell.
    #[must_use]
    pub fn reached(&self) -> Option<HashSet<PackId>> {
        let mut reached = self.index.used()?;
        reached.extend(self.added.read().unwrap_or_else(PoisonError::into_inner).used()?);
        Some(reached)
    }
}

/// One thread's part: a compressor and the frame that it gathers.
#[derive(Debug)]
pub struct Worker<'a, 'b> {
    ingest: &'b Ingest<'a>,
    compressor: Compressor,
    frame: NewFrame,
}

/// Chunks that will be compressed together.
#[derive(Debug, Default)]
pub struct NewFrame {
    plain: Vec<u8>,
    blobs: Vec<Blob>,
    /// Chunks of files of which more was known than not when they came.
    changes: usize,
}

/// How many bytes of a file have come so far, and how many of them were stored before.
#[derive(Debug, Default)]
struct FileSoFar {
    bytes: u64,
    known: u64,
}

impl FileSoFar {
    fn adds(&mut self, bytes: u32, known: bool) {
        self.bytes += u64::from(bytes);
        self.known += if known { u64::from(bytes) } else { 0 };
    }

    const fn is_mostly_known(&self) -> bool {
        self.known > self.bytes / 2
    }
}

/// Who compresses and seals a full frame.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub enum Frames<'a> {
    /// The worker that filled it.
    Inline,
    /// Another one; the frame comes back when all are busy.
    PassOn(&'a dyn Fn(NewFrame) -> Option<NewFrame>),
}

/// The part of a source that is in memory: always a whole chunk ahead.
struct Window<'a> {
    buffer: &'a mut Vec<u8>,
    chunk_max: usize,
    start: usize,
    end: usize,
    ended: bool,
}

impl<'a> Window<'a> {
    fn new(buffer: &'a mut Vec<u8>, chunk_max: usize) -> Self {
        buffer.resize(2 * chunk_max, 0);
        Self { buffer, chunk_max, start: 0, end: 0, ended: false }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Reads ahead; false at the end.
    fn fill(&mut self, source: &mut dyn Read) -> Result<bool> {
        if !self.ended && self.end - self.start < self.chunk_max {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            while !self.ended && self.end < self.buffer.len() {
                match source.read(&mut self.buffer[self.end..]) {
                    Ok(0) => self.ended = true,
                    Ok(read) => self.end += read,
                    Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                    Err(error) => {
                        let failed =
                            Error::new(ErrorKind::Incomplete, format!("it could not be read: {error}"));
                        return Err(failed.with_source(error));
                    }
                }
            }
        }
        Ok(self.start < self.end)
    }
}

impl<'a, 'b> Worker<'a, 'b> {
    /// # Errors
    /// No memory for a compressor.
    pub fn new(ingest: &'b Ingest<'a>, compression: Compression) -> Result<Self> {
        let compressor = Compressor::new(compression)?;
        Ok(Self { ingest, compressor, frame: NewFrame::default() })
    }

    /// Takes one chunk of a file: stores it if it is new.
    fn chunk(&mut self, plain: &[u8], so_far: &mut FileSoFar, frames: &Frames<'_>) -> Result<ChunkRef> {
        let length = u32::try_from(plain.len())
            .map_err(|e| Error::new(ErrorKind::Failed, "a chunk is larger than any chunk").with_source(e))?;
        let id = self.ingest.keys.chunk.id.id(plain);
        let known = self.ingest.was_stored_before(&id, PackKind::Data);
        if !known && self.ingest.is_new_in_this_run(&id, PackKind::Data) {
            let bytes = self.frame.plain.len() + plain.len();
            let full = bytes > frame_target(bytes, self.frame.blobs.len() + 1);
            if full || self.frame.blobs.len() >= limits::FRAME_BLOBS_MAX {
                self.flush(frames)?;
            }
            self.frame.plain.extend_from_slice(plain);
            self.frame.blobs.push(Blob { id, length });
            self.frame.changes += usize::from(so_far.is_mostly_known());
            self.ingest.bytes_new.fetch_add(u64::from(length), Ordering::Relaxed);
        }
        so_far.adds(length, known);
        Ok(ChunkRef { id, length })
    }

    /// Seals the frame that was gathered, or passes it on.
    ///
    /// # Errors
    /// It could not be stored.
    pub fn flush(&mut self, frames: &Frames<'_>) -> Result<()> {
        if self.frame.blobs.is_empty() {
            return Ok(());
        }
        let frame = match frames {
            Frames::Inline => None,
            Frames::PassOn(pass_on) => {
                // Most likely the next one is like it.
                let room = self.frame.plain.capacity().max(FRAME_BYTES_TARGET);
                let fresh = NewFrame { plain: Vec::with_capacity(room), ..NewFrame::default() };
                match pass_on(std::mem::replace(&mut self.frame, fresh)) {
                    None => return Ok(()),
                    back => back,
                }
            }
        };
        match frame {
            Some(frame) => self.seal(frame),
            None => {
                let mut frame = std::mem::take(&mut self.frame);
                let result = self.seal_frame(&mut frame);
                frame.plain.clear();
                self.frame = NewFrame { plain: frame.plain, ..NewFrame::default() };
                result
            }
        }
    }

    /// Seals the frame that was gathered if it is large enough to be worth it.
    ///
    /// # Errors
    /// It could not be stored.
    pub fn flush_large(&mut self, frames: &Frames<'_>) -> Result<()> {
        if self.frame.plain.len() >= FRAME_BYTES_TARGET / 2 { self.flush(frames) } else { Ok(()) }
    }

    /// Seals a frame that another worker gathered.
    ///
    /// # Errors
    /// It could not be stored.
    pub fn seal(&mut self, mut frame: NewFrame) -> Result<()> {
        self.seal_frame(&mut frame)
    }

    fn seal_frame(&mut self, frame: &mut NewFrame) -> Result<()> {
        let blobs = std::mem::take(&mut frame.blobs);
        let what = Plaintext::of(frame.plain.len(), blobs.len(), frame.changes == blobs.len());
        let stored = self.compressor.compress_as(&frame.plain, what)?;
        self.ingest.seal(&self.ingest.data, blobs, stored, self.compressor.decompressor())
    }

    /// Reads and stores one file, again if it changed meanwhile. What cannot be read is said in its entry;
    /// what is not there any more has none.
    ///
    /// # Errors
    /// It could not be stored.
    pub fn file(
        &mut self,
        mut entry: Entry,
        open: OpenFile,
        buffer: &mut Vec<u8>,
        frames: &Frames<'_>,
    ) -> Result<Option<Entry>> {
        let read = match open() {
            Ok(mut source) => self.readings(&mut entry, &mut *source, buffer, frames),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.ingest.vanished.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
            // Not this file's fault, and the next one would fare no better.
            Err(error) if error.is_of_the_whole_system() => return Err(error),
            Err(error) => Err(error.with_kind(ErrorKind::Incomplete)),
        };
        match read {
            Ok(content) => entry.content = content,
            Err(error) if error.kind() == ErrorKind::Incomplete => entry.error = Some(error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(Some(entry))
    }

    /// Reads a file until it has not changed meanwhile, or often enough: then it is marked, since what is stored
    /// may be half old and half new. Chunks of readings that do not count stay in their packs: the next reading
    /// has most of them too.
    ///
    /// # Errors
    /// `Incomplete` when the file cannot be read; otherwise it could not be stored.
    fn readings(
        &mut self,
        entry: &mut Entry,
        source: &mut dyn ReadContent,
        buffer: &mut Vec<u8>,
        frames: &Frames<'_>,
    ) -> Result<Content> {
        let unreadable = |error: Error| match error.is_of_the_whole_system() {
            true => error,
            false => error.with_kind(ErrorKind::Incomplete),
        };
        let mut readings = 0;
        loop {
            readings += 1;
            source.describe(&mut entry.metadata);
            let (content, bytes) = match source.cut() {
                Some(cut) => self.cut_content(cut, frames)?,
                None => self.content(source, buffer, frames)?,
            };
            let holes = source.holes().to_vec();
            let size = holes.iter().fold(bytes, |sum, hole| sum.saturating_add(hole.length));
            self.ingest.progress().add(0, size - bytes);
            let changed = source.has_changed().map_err(unreadable)?;
            if changed && readings <= REREADS_MAX {
                match source.again().map_err(unreadable)? {
                    Again::From(metadata) => {
                        // The number of the device was made into its key by the walk, which knows all devices.
                        let device_key = entry.metadata.device_key;
                        entry.metadata = Metadata { device_key, ..*metadata };
                        continue;
                    }
                    Again::Never => {}
                }
            }
            entry.changed_while_read = changed;
            (entry.metadata.size, entry.metadata.holes) = (size, holes);
            return Ok(content);
        }
    }

    /// Reads a source to its end and stores it: its content, and its length in bytes. `buffer` is kept from
    /// file to file.
    ///
    /// # Errors
    /// `Incomplete` when the source cannot be read; otherwise it could not be stored.
    pub fn content(
        &mut self,
        source: &mut dyn Read,
        buffer: &mut Vec<u8>,
        frames: &Frames<'_>,
    ) -> Result<(Content, u64)> {
        let (mut content, mut so_far) = (ContentBuilder::default(), FileSoFar::default());
        let mut window = Window::new(buffer, self.ingest.chunker.max());
        let progress = self.ingest.progress();
        while window.fill(source)? {
            progress.check()?;
            let length = self.ingest.chunker.cut(window.rest());
            let chunk = self.chunk(&window.rest()[..length], &mut so_far, frames)?;
            progress.add(0, length as u64);
            window.start += length;
            content.push(chunk, &self.ingest.keys.node, &mut Nodes(self.ingest, &mut self.compressor))?;
        }
        let nodes = &mut Nodes(self.ingest, &mut self.compressor);
        Ok((content.finish(&self.ingest.keys.node, nodes)?, so_far.bytes))
    }

    /// As [`Self::content`], for what was cut before.
    fn cut_content(&mut self, source: &mut dyn CutContent, frames: &Frames<'_>) -> Result<(Content, u64)> {
        let (mut content, mut so_far) = (ContentBuilder::default(), FileSoFar::default());
        let progress = self.ingest.progress();
        loop {
            progress.check()?;
            let chunk = match source.advance()? {
                NextChunk::End => break,
                NextChunk::Known(chunk) if self.ingest.counts_on(&chunk.id) => {
                    so_far.adds(chunk.length, self.ingest.was_stored_before(&chunk.id, PackKind::Data));
                    chunk
                }
                NextChunk::Known(_) | NextChunk::Unknown => {
                    self.chunk(source.plain()?, &mut so_far, frames)?
                }
            };
            source.stored(chunk);
            progress.add(0, u64::from(chunk.length));
            content.push(chunk, &self.ingest.keys.node, &mut Nodes(self.ingest, &mut self.compressor))?;
        }
        let nodes = &mut Nodes(self.ingest, &mut self.compressor);
        Ok((content.finish(&self.ingest.keys.node, nodes)?, so_far.bytes))
    }

    /// Takes manifest nodes.
    pub const fn nodes(&mut self) -> Nodes<'a, 'b, '_> {
        Nodes(self.ingest, &mut self.compressor)
    }
}

/// Stores manifest nodes that are new.
#[derive(Debug)]
pub struct Nodes<'a, 'b, 'c>(&'b Ingest<'a>, &'c mut Compressor);

impl NodeSink for Nodes<'_, '_, '_> {
    fn node(&mut self, id: BlobId, plain: Vec<u8>) -> Result<()> {
        let Self(ingest, compressor) = self;
        ingest.keep(id, &plain);
        if !ingest.is_new(&id, PackKind::Metadata) {
            return Ok(());
        }
        let length = u32::try_from(plain.len())
            .map_err(|e| Error::new(ErrorKind::Failed, "a manifest node is too large").with_source(e))?;
        let stored = compressor.compress(&plain)?;
        ingest.seal(&ingest.metadata, vec![Blob { id, length }], stored, compressor.decompressor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_large_files_are_larger_and_none_is_too_large() {
        let full = limits::FRAME_BYTES_MAX;
        assert_eq!(frame_target(full, full / LARGE_CHUNK_BYTES), full);
        assert_eq!(frame_target(full - 1, full / LARGE_CHUNK_BYTES), FRAME_BYTES_TARGET);
        assert_eq!(frame_target(FRAME_BYTES_TARGET + 1, 1000), FRAME_BYTES_TARGET);
    }
}
