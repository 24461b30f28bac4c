//! Frames of the source, read ahead: ranges of packs that hold what is needed next, on their way beside the work.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::{
    error::Result,
    format::entry::ChunkRef,
    limits,
    repository::{
        index::{Found, Index, KnownPack, Location},
        ranges,
        reader::blob_range,
    },
    store::{Downloads, Name, Store},
};

/// Plaintext that a window asks for, in bytes; a single chunk more at most.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;
/// Ciphertext that a window reads, and plaintext that its frames have together, in bytes; a single frame more at most.
const WINDOW_FRAME_BYTES: u64 = 8 << 20;
/// Chunks of a window: they may be of one byte each.
pub(super) const WINDOW_CHUNKS: usize = 1 << 14;
/// Frames that the next window may still ask for without reading them again.
const RECENT_FRAMES: usize = 4;
/// Ciphertext that is read ahead of its turn, in bytes; what a worker needs at once comes beside it.
const AHEAD_BYTES: u64 = 32 << 20;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is read ahead.
#[derive(Debug)]
pub(super) struct Ahead {
    downloads: Downloads,
    /// Ranges that wait for their turn, the next one first.
    waiting: Mutex<VecDeque<Weak<PackRange>>>,
    account: Arc<Account>,
}

/// Bytes of ciphertext that are in hand or on their way, and that were asked for in all.
#[derive(Debug, Default)]
struct Account {
    in_hand: AtomicU64,
    asked: AtomicU64,
    requests: AtomicU64,
}

/// A range of a pack that several frames share.
#[derive(Debug)]
struct PackRange {
    name: Name,
    range: Range<u64>,
    read: Mutex<Read>,
    account: Arc<Account>,
}

#[derive(Debug)]
enum Read {
    Planned,
    Waits(crate::store::Pending),
    Done(Bytes),
    /// The pack is damaged or gone.
    Failed,
}

impl PackRange {
    const fn length(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Asks for it, if nobody has.
    fn ask(&self, read: &mut Read, downloads: &Downloads) {
        if matches!(read, Read::Planned) {
            self.account.in_hand.fetch_add(self.length(), Ordering::Relaxed);
            self.account.asked.fetch_add(self.length(), Ordering::Relaxed);
            self.account.requests.fetch_add(1, Ordering::Relaxed);
            *read = Read::Waits(downloads.read_range(self.name.clone(), self.range.clone()));
        }
    }

    /// Its bytes; `None` when the pack is damaged or gone.
    fn bytes(&self, downloads: &Downloads) -> Result<Option<Bytes>> {
        let mut read = lock(&self.read);
        self.ask(&mut read, downloads);
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
            Read::Planned | Read::Waits(_) | Read::Failed => None,
        })
    }
}

impl Drop for PackRange {
    fn drop(&mut self) {
        if !matches!(*lock(&self.read), Read::Planned) {
            self.account.in_hand.fetch_sub(self.length(), Ordering::Relaxed);
        }
    }
}

impl Ahead {
    pub(super) fn new(store: &Store) -> Self {
        Self { downloads: store.downloads(), waiting: Mutex::default(), account: Arc::default() }
    }

    /// Bytes that were asked for in all, and with how many requests.
    pub(super) fn asked(&self) -> (u64, u64) {
        let Account { asked, requests, .. } = &*self.account;
        (asked.load(Ordering::Relaxed), requests.load(Ordering::Relaxed))
    }

    /// Asks for what comes next, as far as there is room.
    fn pump(&self) {
        while self.account.in_hand.load(Ordering::Relaxed) < AHEAD_BYTES {
            let Some(next) = lock(&self.waiting).pop_front() else { return };
            if let Some(range) = next.upgrade() {
                range.ask(&mut lock(&range.read), &self.downloads);
            }
        }
    }
}

/// What is known of the plaintext of a frame.
#[derive(Debug)]
enum Plain {
    /// Its window is not closed yet.
    Planned,
    /// It is in this range, beginning there.
    In(Arc<PackRange>, usize),
    /// It was opened, or is lost.
    Opened(Option<Arc<Vec<u8>>>),
}

/// A frame that a window needs: it is read and opened once for all chunks of the window.
#[derive(Debug)]
pub(super) struct SharedFrame {
    pub(super) found: Found,
    at: Location,
    plain: Mutex<Plain>,
}

impl SharedFrame {
    /// Where a blob of it lies in its plaintext.
    fn range(&self, at: Location, length: u32) -> Option<Range<usize>> {
        let number = at.number_beside(self.at, self.found.blob)?;
        blob_range(&self.found.frame, number).filter(|range| range.len() == length as usize)
    }

    /// Its plaintext, opened by whoever comes first; `None` when it is damaged or not there.
    pub(super) fn plain(
        &self,
        ahead: &Ahead,
        open: &mut dyn FnMut(&[u8]) -> Result<Vec<u8>>,
    ) -> Result<Option<Arc<Vec<u8>>>> {
        let mut plain = lock(&self.plain);
        if let Plain::In(range, start) = &*plain {
            ahead.pump();
            let end = start.saturating_add(self.found.frame.length as usize);
            let bytes = range.bytes(&ahead.downloads)?;
            let opened = match bytes.as_deref().and_then(|bytes| bytes.get(*start..end)) {
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
            Plain::Planned | Plain::In(..) => None,
        })
    }
}

/// Where the bytes of a chunk are.
pub(super) type Planned = (Arc<SharedFrame>, Range<usize>);

/// Some chunks that are needed next, and the frames that hold them.
#[derive(Debug, Default)]
pub(super) struct Window {
    frames: HashMap<(u32, u32), Arc<SharedFrame>>,
    /// Those that were planned last, in this window or the one before: it often ended in the middle of one.
    recent: VecDeque<Arc<SharedFrame>>,
    bytes: u64,
    sealed: u64,
    plain: u64,
    chunks: usize,
}

impl Window {
    /// Plans to read a chunk from the copy that comes first; `None` when no index lists it.
    pub(super) fn add(
        &mut self,
        chunk: ChunkRef,
        (index, copies): (&Index, Vec<Location>),
    ) -> Option<Planned> {
        self.bytes += u64::from(chunk.length);
        self.chunks += 1;
        copies.into_iter().find_map(|at| {
            let recent = || self.recent.iter().find(|frame| frame.at.frame() == at.frame());
            if let Some(frame) = self.frames.get(&at.frame()).or_else(recent) {
                return Some((Arc::clone(frame), frame.range(at, chunk.length)?));
            }
            let frame = SharedFrame { found: index.found(at)?, at, plain: Mutex::new(Plain::Planned) };
            let range = frame.range(at, chunk.length)?;
            let frame = Arc::new(frame);
            self.sealed += u64::from(frame.found.frame.length);
            self.plain += frame.found.frame.plain_length() as u64;
            self.frames.insert(at.frame(), Arc::clone(&frame));
            if self.recent.len() >= RECENT_FRAMES {
                self.recent.pop_front();
            }
            self.recent.push_back(Arc::clone(&frame));
            Some((frame, range))
        })
    }

    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= WINDOW_BYTES
            || self.sealed >= WINDOW_FRAME_BYTES
            || self.plain >= WINDOW_FRAME_BYTES
            || self.chunks >= WINDOW_CHUNKS
    }

    /// Gives each frame its range, and begins anew.
    pub(super) fn close(&mut self, ahead: &Ahead, turn: Turn, name_of: &dyn Fn(&KnownPack) -> Name) {
        let recent = std::mem::take(&mut self.recent);
        let Self { frames, .. } = std::mem::replace(self, Self { recent, ..Self::default() });
        let together = ranges::ranges_of(frames.into_values().collect(), |frame| &frame.found);
        let give = |ranges::PackRange { pack, range, frames }: ranges::PackRange<Arc<SharedFrame>>| {
            let (read, account) = (Mutex::new(Read::Planned), Arc::clone(&ahead.account));
            let range = Arc::new(PackRange { name: name_of(&pack), range, read, account });
            for (frame, at) in frames {
                *lock(&frame.plain) = Plain::In(Arc::clone(&range), at);
            }
            range
        };
        let ranges: Vec<Arc<PackRange>> = together.into_iter().map(give).collect();
        let mut waiting = lock(&ahead.waiting);
        match turn {
            Turn::Last => waiting.extend(ranges.iter().map(Arc::downgrade)),
            Turn::Next => ranges.iter().rev().for_each(|range| waiting.push_front(Arc::downgrade(range))),
        }
        drop(waiting);
        ahead.pump();
    }
}

/// When a window is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// After all that was planned.
    Last,
    /// Before the rest.
    Next,
}

const _: () = assert!(limits::FRAME_BYTES_MAX as u64 <= WINDOW_BYTES);
