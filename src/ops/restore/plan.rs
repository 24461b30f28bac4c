//! Plans a restore in windows: some entries in path order, the frames that hold their content, and the
//! ranges of packs to read for them. A window is what one worker has in hand, so its size is what bounds
//! memory; a large file is spread over many.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{bad::BadRanges, existing::There, work::Job};
use crate::{
    error::Result,
    filesystem::{old::Found, restore::NewFile},
    format::entry::{ChunkRef, Entry},
    id::DomainId,
    limits,
    repository::{
        Repository,
        index::{Found as FoundFrame, Index, KnownPack, Location},
        ranges,
    },
    store::{Downloads, Pending},
};

/// Plaintext that a window asks for, in bytes; a single chunk more at most.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;
/// Ciphertext that a window reads, in bytes; a single frame more at most.
const WINDOW_SEALED_BYTES: u64 = 8 << 20;
/// Large files of a window that are changed where they are: each is open until the window is done.
const WINDOW_OPEN_FILES: usize = 32;
/// Entries of a window.
const WINDOW_ENTRIES: usize = 512;
/// Chunks of a window: they may be of one byte each.
const WINDOW_PIECES: usize = 1 << 16;

/// A file of several windows.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) entry: Entry,
    pub(super) there: There,
    /// The file, made by whoever writes to it first; why it could not be.
    pub(super) file: Mutex<Option<Result<Arc<NewFile>>>>,
    /// Windows that still have a part of it, and one for the planner.
    parts: AtomicU64,
    /// It could not be made or written: the rest of it need not be read.
    given_up: AtomicBool,
    /// What could not be restored of it.
    pub(super) bad: Mutex<BadRanges>,
    /// Until it is whole it has the name by which the next restore finds it.
    pub(super) lasts: bool,
}

impl Large {
    pub(super) fn new(entry: Entry, there: There, lasts: bool) -> Arc<Self> {
        let (file, bad) = (Mutex::new(None), Mutex::default());
        let (parts, given_up) = (AtomicU64::new(1), AtomicBool::new(false));
        Arc::new(Self { entry, there, file, parts, given_up, bad, lasts })
    }

    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    fn add_part(&self) {
        self.parts.fetch_add(1, Ordering::AcqRel);
    }

    /// One part is done; true for the last.
    pub(super) fn part_is_done(&self) -> bool {
        self.parts.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// Something to restore, at the path that its entry has below the target.
#[derive(Debug)]
pub(super) enum Task {
    /// A whole entry, with what is there; a file with all its content in this window.
    Whole(Box<Entry>, There),
    /// A part of a large file that begins at this offset.
    Part(Arc<Large>, u64),
    /// The end of a large file: nothing to write, but whoever is last must finish it.
    End(Arc<Large>),
    /// A file that is there and has the content already.
    Keep(Box<Entry>, Found),
}

/// A chunk of a window: where it goes, and which frame holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) task: usize,
    /// Where it begins in the content that the task has in this window.
    pub(super) offset: usize,
    pub(super) chunk: ChunkRef,
}

/// A range of a pack: on its way, read, or taken for lost.
#[derive(Debug)]
enum Read {
    Waits(Pending),
    Done(Bytes),
    Failed,
}

/// A range that several frames share.
#[derive(Debug)]
struct PackRange(Mutex<Read>);

impl PackRange {
    /// Its bytes; `None` when the pack is damaged or gone.
    fn bytes(&self) -> Result<Option<Bytes>> {
        let mut read = lock(&self.0);
        *read = match std::mem::replace(&mut *read, Read::Failed) {
            Read::Waits(pending) => match pending.wait() {
                Ok(bytes) => Read::Done(bytes),
                Err(error) if error.is_damage() => Read::Failed,
                Err(error) => return Err(error),
            },
            known => known,
        };
        Ok(match &*read {
            Read::Done(bytes) => Some(bytes.clone()),
            Read::Waits(_) | Read::Failed => None,
        })
    }
}

/// What is known of the plaintext of a frame.
#[derive(Debug)]
enum Plain {
    /// Nobody asked for it yet.
    Planned,
    /// It is in this range, beginning there.
    Asked(Arc<PackRange>, usize),
    /// It was opened, or is lost.
    Opened(Option<Arc<Vec<u8>>>),
}

/// A frame that windows need: it is read and opened once for all that have it in hand.
#[derive(Debug)]
pub(super) struct SharedFrame {
    pub(super) found: FoundFrame,
    /// The location of the blob that `found` was asked for.
    at: Location,
    /// Where each blob begins in the plaintext, and where the last one ends.
    starts: Vec<u32>,
    plain: Mutex<Plain>,
}

impl SharedFrame {
    pub(super) fn new(at: Location, found: FoundFrame) -> Self {
        let mut starts = vec![0_u32];
        let mut end = 0_u32;
        for blob in &found.frame.blobs {
            end = end.saturating_add(blob.length);
            starts.push(end);
        }
        Self { found, at, starts, plain: Mutex::new(Plain::Planned) }
    }

    /// Names it.
    pub(super) const fn key(&self) -> (u32, u32) {
        self.at.frame()
    }

    /// Where a blob of it lies in its plaintext.
    pub(super) fn range(&self, at: Location) -> Option<Range<usize>> {
        let number = at.number_beside(self.at, self.found.blob)? as usize;
        Some(*self.starts.get(number)? as usize..*self.starts.get(number + 1)? as usize)
    }

    fn is_planned(&self) -> bool {
        matches!(*lock(&self.plain), Plain::Planned)
    }

    /// Bytes of its plaintext.
    fn length(&self) -> usize {
        self.starts.last().map_or(0, |end| *end as usize)
    }

    /// Its plaintext, opened by whoever comes first; `None` when it is damaged or not there.
    pub(super) fn plain(
        &self,
        open: &mut dyn FnMut(&[u8]) -> Result<Vec<u8>>,
    ) -> Result<Option<Arc<Vec<u8>>>> {
        let mut plain = lock(&self.plain);
        if let Plain::Asked(range, start) = &*plain {
            let end = start.saturating_add(self.found.frame.length as usize);
            let opened = match range.bytes()?.as_deref().and_then(|bytes| bytes.get(*start..end)) {
                None => None,
                Some(sealed) => match open(sealed) {
                    Ok(opened) => Some(Arc::new(opened)),
                    Err(error) if error.is_damage() => None,
                    Err(error) => return Err(error),
                },
            };
            *plain = Plain::Opened(opened);
        }
        Ok(match &*plain {
            Plain::Opened(opened) => opened.clone(),
            Plain::Planned | Plain::Asked(..) => None,
        })
    }
}

/// The frames that were asked for last, those of longest ago first: the next window often begins in the middle of one,
/// and small contents that many files share lie in frames to which every window comes back.
#[derive(Debug, Default)]
pub(super) struct Recent {
    frames: VecDeque<Arc<SharedFrame>>,
    /// Bytes of their plaintext.
    bytes: usize,
}

impl Recent {
    fn get(&mut self, key: (u32, u32)) -> Option<Arc<SharedFrame>> {
        let at = self.frames.iter().rposition(|frame| frame.key() == key)?;
        let frame = self.frames.remove(at)?;
        self.frames.push_back(Arc::clone(&frame));
        Some(frame)
    }

    fn keep(&mut self, frame: &Arc<SharedFrame>) {
        self.bytes += frame.length();
        self.frames.push_back(Arc::clone(frame));
        while self.bytes > limits::RECENT_BYTES || self.frames.len() > limits::RECENT_FRAMES {
            let Some(oldest) = self.frames.pop_front() else { return };
            self.bytes -= oldest.length();
        }
    }
}

/// A frame that a window needs.
#[derive(Debug)]
pub(super) struct NeededFrame {
    pub(super) frame: Arc<SharedFrame>,
    /// What it gives: the bytes of its plaintext, and the piece.
    pub(super) pieces: Vec<(Range<usize>, Piece)>,
}

/// Some entries and the frames that hold their content.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) tasks: Vec<Task>,
    /// Bytes that each task has in this window.
    pub(super) lengths: Vec<usize>,
    pub(super) frames: Vec<NeededFrame>,
    /// Pieces that no index lists.
    pub(super) lost: Vec<Piece>,
    /// Pieces that were found in files that are there: the task, where it begins in its content, the bytes.
    pub(super) local: Vec<(usize, usize, Vec<u8>)>,
    open_files: usize,
    numbers: HashMap<(u32, u32), usize>,
    bytes: u64,
    sealed: u64,
    pieces: usize,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        let Self { bytes, sealed, tasks, pieces, .. } = self;
        *bytes >= WINDOW_BYTES
            || *sealed >= WINDOW_SEALED_BYTES
            || tasks.len() >= WINDOW_ENTRIES
            || self.open_files >= WINDOW_OPEN_FILES
            || *pieces >= WINDOW_PIECES
    }

    /// Whether a file of that size, with these chunks, may be all of one window.
    pub(super) fn holds(size: u64, chunks: &[ChunkRef]) -> bool {
        let bytes: u64 = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        Self::is_small(size) && Self::is_small(bytes)
    }

    /// Whether so many bytes may be all of one window.
    pub(super) const fn is_small(bytes: u64) -> bool {
        bytes <= WINDOW_BYTES
    }

    pub(super) fn add_task(&mut self, task: Task) {
        if let Task::Part(large, _) = &task {
            large.add_part();
        }
        self.tasks.push(task);
        self.lengths.push(0);
    }

    /// The last task has a file that is open already.
    pub(super) const fn add_open_file(&mut self) {
        self.open_files += 1;
    }

    /// Adds the next chunk of the last task, of which the bytes are there.
    pub(super) fn add_local(&mut self, bytes: &[u8]) {
        let Some(length) = self.lengths.last_mut() else { return };
        self.local.push((self.tasks.len() - 1, *length, bytes.to_vec()));
        *length += bytes.len();
        self.bytes += bytes.len() as u64;
        self.pieces += 1;
    }

    /// Adds the next chunk of the last task.
    pub(super) fn add_chunk(&mut self, chunk: ChunkRef, job: &Job<'_>, recent: &mut Recent) {
        let Some(length) = self.lengths.last_mut() else { return };
        let piece = Piece { task: self.tasks.len() - 1, offset: *length, chunk };
        *length += chunk.length as usize;
        self.bytes += u64::from(chunk.length);
        self.pieces += 1;
        let places = job.repository.copies(job.index, &chunk.id, Some(job.reader));
        match places.into_iter().find_map(|at| self.need(at, chunk, (job.index, recent))) {
            Some((frame, range)) => self.frames[frame].pieces.push((range, piece)),
            None => self.lost.push(piece),
        }
    }

    /// The number of a frame that is needed, and where the chunk is in its plaintext.
    fn need(
        &mut self,
        at: Location,
        chunk: ChunkRef,
        (index, recent): (&Index, &mut Recent),
    ) -> Option<(usize, Range<usize>)> {
        let fits = |frame: &SharedFrame| frame.range(at).filter(|range| range.len() == chunk.length as usize);
        if let Some(number) = self.numbers.get(&at.frame()) {
            return Some((*number, fits(&self.frames.get(*number)?.frame)?));
        }
        let known = recent.get(at.frame());
        let frame = match &known {
            Some(frame) => Arc::clone(frame),
            None => Arc::new(SharedFrame::new(at, index.found(at)?)),
        };
        let range = fits(&frame)?;
        if known.is_none() {
            recent.keep(&frame);
            self.sealed += u64::from(frame.found.frame.length);
        }
        let number = self.frames.len();
        self.frames.push(NeededFrame { frame, pieces: Vec::new() });
        self.numbers.insert(at.frame(), number);
        Some((number, range))
    }

    /// The ranges to read for the frames that nobody asked for yet.
    fn wanted(&mut self) -> Vec<ranges::PackRange<&SharedFrame>> {
        self.numbers.clear();
        // They are worked on in the order in which they come.
        self.frames.sort_by_key(|needed| {
            let FoundFrame { pack, frame, .. } = &needed.frame.found;
            (pack.id, frame.offset)
        });
        let planned = self.frames.iter().map(|needed| &*needed.frame).filter(|frame| frame.is_planned());
        ranges::ranges_of(planned.collect(), |frame| &frame.found)
    }

    /// Asks for what it needs.
    pub(super) fn fetch(&mut self, repository: &Repository, domain: &DomainId, downloads: &Downloads) {
        for ranges::PackRange { pack, range, frames } in self.wanted() {
            let pending = downloads.read_range(repository.pack_name(domain, &pack), range);
            let range = Arc::new(PackRange(Mutex::new(Read::Waits(pending))));
            for (frame, at) in frames {
                *lock(&frame.plain) = Plain::Asked(Arc::clone(&range), at);
            }
        }
    }

    /// Tells what it would ask for.
    pub(super) fn count(&mut self, each: &mut dyn FnMut(&KnownPack, Range<u64>)) {
        for ranges::PackRange { pack, range, frames } in self.wanted() {
            each(&pack, range);
            frames.iter().for_each(|(frame, _)| *lock(&frame.plain) = Plain::Opened(None));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BlobId;

    #[test]
    fn a_file_is_one_window_only_if_its_chunks_are_as_small_as_it_says() {
        let length = u32::try_from(limits::FRAME_BYTES_MAX).unwrap();
        let chunks = |count| vec![ChunkRef { id: BlobId::new([1; 32]), length }; count];
        assert!(Window::holds(4 << 20, &chunks(2)));
        assert!(!Window::holds(0, &chunks(256)), "half a gigabyte behind an empty file");
        assert!(!Window::holds(5 << 20, &[]));
    }
}
