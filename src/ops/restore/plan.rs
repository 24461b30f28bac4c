//! Plans a restore in windows: some entries in path order, the frames that hold their content, and the
//! ranges of packs to read for them. A window is what one worker has in hand, so its size is what bounds
//! memory; a large file is spread over many.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    error::{Error, ErrorKind, Result},
    filesystem::restore::NewFile,
    format::entry::{ChunkRef, Entry},
    id::{DomainId, IdentityId},
    repository::{
        Repository,
        index::{Found, Index, KnownPack, Location},
        reader::blob_range,
    },
    store::{Downloads, Pending},
};

/// Plaintext that a window asks for, in bytes; a single chunk more at most.
const WINDOW_BYTES: u64 = 4 << 20;
/// Ciphertext that a window reads, in bytes; a single frame more at most.
const WINDOW_SEALED_BYTES: u64 = 8 << 20;
/// Entries of a window.
const WINDOW_ENTRIES: usize = 512;
/// Frames of a pack that are no farther apart are read together.
const GAP_BYTES: u64 = 64 << 10;
/// The longest range that is read at once.
const RANGE_BYTES: u64 = 4 << 20;

/// A file of several windows.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) entry: Entry,
    /// The file, made by whoever writes to it first; why it could not be.
    pub(super) file: Mutex<Option<Result<Arc<NewFile>>>>,
    /// Windows that still have a part of it, and one for the planner.
    parts: AtomicU64,
    /// What could not be restored of it.
    pub(super) bad: Mutex<Vec<Range<u64>>>,
}

impl Large {
    pub(super) fn new(entry: Entry) -> Arc<Self> {
        let (file, bad) = (Mutex::new(None), Mutex::default());
        Arc::new(Self { entry, file, parts: AtomicU64::new(1), bad })
    }

    fn add_part(&self) {
        self.parts.fetch_add(1, Ordering::AcqRel);
    }

    /// One part is done; true for the last.
    pub(super) fn part_is_done(&self) -> bool {
        self.parts.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// Something to restore.
#[derive(Debug)]
pub(super) enum Task {
    /// A whole entry; a file with all its content in this window.
    Whole(Box<Entry>),
    /// A part of a large file that begins at this offset.
    Part(Arc<Large>, u64),
    /// The end of a large file: nothing to write, but whoever is last must finish it.
    End(Arc<Large>),
}

/// A chunk of a window: where it goes, and which frame holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) task: usize,
    /// Where it begins in the content that the task has in this window.
    pub(super) offset: usize,
    pub(super) chunk: ChunkRef,
}

/// A frame that a window needs.
#[derive(Debug)]
pub(super) struct NeededFrame {
    pub(super) found: Found,
    /// Number of the range that holds it, and where it begins there.
    pub(super) range: usize,
    pub(super) start: usize,
    /// What it gives: the bytes of its plaintext, and the piece.
    pub(super) pieces: Vec<(Range<usize>, Piece)>,
}

/// Some entries, the frames that hold their content, and the ranges that are on their way.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) tasks: Vec<Task>,
    /// Bytes that each task has in this window.
    pub(super) lengths: Vec<usize>,
    pub(super) frames: Vec<NeededFrame>,
    pub(super) ranges: Vec<Pending>,
    /// Pieces that no index lists.
    pub(super) lost: Vec<Piece>,
    numbers: HashMap<(u32, u32), usize>,
    bytes: u64,
    sealed: u64,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= WINDOW_BYTES || self.sealed >= WINDOW_SEALED_BYTES || self.tasks.len() >= WINDOW_ENTRIES
    }

    /// Whether a file of that size may be all of one window.
    pub(super) const fn is_small(size: u64) -> bool {
        size <= WINDOW_BYTES
    }

    pub(super) fn add_task(&mut self, task: Task) {
        if let Task::Part(large, _) = &task {
            large.add_part();
        }
        self.tasks.push(task);
        self.lengths.push(0);
    }

    /// Adds the next chunk of the last task.
    pub(super) fn add_chunk(&mut self, chunk: ChunkRef, (index, author): (&Index, IdentityId)) {
        let Some(length) = self.lengths.last_mut() else { return };
        let piece = Piece { task: self.tasks.len() - 1, offset: *length, chunk };
        *length += chunk.length as usize;
        self.bytes += u64::from(chunk.length);
        match index.copies(&chunk.id, author).into_iter().find_map(|at| self.need(at, chunk, index)) {
            Some((frame, range)) => self.frames[frame].pieces.push((range, piece)),
            None => self.lost.push(piece),
        }
    }

    /// The number of a frame that is needed, and where the chunk is in its plaintext.
    fn need(&mut self, at: Location, chunk: ChunkRef, index: &Index) -> Option<(usize, Range<usize>)> {
        if let Some(number) = self.numbers.get(&at.frame()) {
            let range = index.blob_range(at)?;
            return (range.len() == chunk.length as usize).then_some((*number, range));
        }
        let found = index.found(at)?;
        let range = blob_range(&found.frame, found.blob)?;
        if range.len() != chunk.length as usize {
            return None;
        }
        self.sealed += u64::from(found.frame.length);
        let number = self.frames.len();
        self.frames.push(NeededFrame { found, range: 0, start: 0, pieces: Vec::new() });
        self.numbers.insert(at.frame(), number);
        Some((number, range))
    }

    /// Asks for the ranges: neighbouring frames of a pack come together.
    pub(super) fn fetch(&mut self, repository: &Repository, domain: &DomainId, downloads: &Downloads) {
        self.numbers.clear();
        self.frames.sort_by_key(|needed| (needed.found.pack.id, needed.found.frame.offset));
        let mut wanted: Vec<(KnownPack, Range<u64>)> = Vec::new();
        for needed in &mut self.frames {
            let pack = needed.found.pack;
            let start = u64::from(needed.found.frame.offset);
            let end = start + u64::from(needed.found.frame.length);
            let joins = wanted.last().is_some_and(|(last, range)| {
                last.id == pack.id
                    && start <= range.end + GAP_BYTES
                    && end.max(range.end) - range.start <= RANGE_BYTES
            });
            if !joins {
                wanted.push((pack, start..end));
            }
            needed.range = wanted.len() - 1;
            if let Some((_, range)) = wanted.last_mut() {
                range.end = range.end.max(end);
                needed.start = usize::try_from(start - range.start).unwrap_or(usize::MAX);
            }
        }
        for (pack, range) in wanted {
            self.ranges.push(downloads.read_range(repository.pack_name(domain, &pack), range));
        }
    }
}

/// A chunk that nothing lists.
pub(super) fn not_listed(chunk: ChunkRef) -> Error {
    Error::new(ErrorKind::Damaged, format!("chunk {} is in no index", chunk.id))
}
