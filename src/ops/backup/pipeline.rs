//! All cores busy, on one huge file and on a hundred thousand small ones, with the manifest still built
//! in path order. One thread walks; the next one merges what it finds with the backup before and makes
//! tickets: an entry that is complete, or a batch that a worker has in hand. One thread takes the tickets
//! in their order and builds the manifest. A worker that
//! has filled a frame leaves it to an idle worker, so that a huge file is cut on one thread and
//! compressed on all. With one worker everything happens on the calling thread, in one order.

use std::{
    sync::{Mutex, PoisonError},
    thread,
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{
    Item, OpenFile,
    ingest::{FRAME_BYTES_TARGET, Frames, Ingest, NewFrame, Worker},
};
use crate::{
    compress::Compression,
    error::{Error, ErrorKind, Result},
    format::{entry::Entry, path::split},
    progress::Progress,
    repository::manifest::weight,
};

/// Files of one batch hold together at most this many bytes, unless it is a single larger one.
const BATCH_BYTES: u64 = FRAME_BYTES_TARGET as u64;
/// A batch has at most this many entries.
const BATCH_ENTRIES_MAX: usize = 256;
/// The files of a batch are in at most this many folders: each is a handle that stays open until the
/// batch is done, so (workers * 3 + 1) * 32 handles in all, and 4 * 32 on the way from the walk.
const BATCH_FOLDERS_MAX: usize = 32;
/// Batches that wait between the walk and the merge.
const WALKED_BATCHES: usize = 2;
/// Entries of one ticket hold together about this many bytes of memory; what a worker finds of attributes and holes of files comes
/// on top.
const READY_BYTES_MAX: usize = 128 << 10;
/// Jobs that wait for each worker.
const JOBS_PER_WORKER: usize = 2;
/// Tickets that wait for the manifest, each of at most [`BATCH_ENTRIES_MAX`] entries and about
/// [`READY_BYTES_MAX`] bytes: what a slow file may be overtaken by.
const TICKETS_MAX: usize = 128;

type Batch = Vec<(Entry, Option<OpenFile>)>;
type Reply = Sender<Result<Vec<Entry>>>;

enum Job {
    Files(Batch, Reply),
    Frame(NewFrame),
    Stop,
}

enum Ticket {
    Ready(Vec<Entry>),
    Pending(Receiver<Result<Vec<Entry>>>),
}

/// Takes finished entries in path order.
pub(super) trait Entries: Send {
    fn entry(&mut self, entry: Entry) -> Result<()>;
}

type Walk<'a> = &'a mut dyn Iterator<Item = Result<Item>>;

/// Makes an entry of a file whose content is known already.
type Merge<'a> = &'a mut (dyn FnMut(Item) -> Item + Send);

/// Merges every item, sends it through the workers, and every entry to `entries`.
///
/// # Errors
/// The first thing that failed, on whichever thread.
pub(super) fn run(
    items: Walk<'_>,
    merge: Merge<'_>,
    ingest: &Ingest<'_>,
    (compression, workers): (Compression, usize),
    entries: &mut dyn Entries,
) -> Result<()> {
    if workers <= 1 {
        return on_this_thread(items, merge, ingest, compression, entries);
    }
    let (jobs, waiting) = bounded(workers * JOBS_PER_WORKER);
    let (tickets, ordered) = bounded(TICKETS_MAX);
    let (found, walked) = bounded(WALKED_BATCHES);
    let failed = Mutex::new(None);
    let ended = thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let fail = |error| {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                };
                match work(ingest, compression, &jobs, &waiting) {
                    // Its stop has come: to wait for one more would be to take that of another worker.
                    Ok(mut worker) => worker.flush(&Frames::Inline).unwrap_or_else(fail),
                    Err(error) => {
                        fail(error);
                        // Whoever waits for this worker must not wait for ever.
                        drain(&waiting);
                    }
                }
            });
        }
        let builder = scope.spawn(move || build(&ordered, entries));
        let jobs_of_files = jobs.clone();
        let merger = scope.spawn(move || {
            let mut items = walked.iter().flatten().map(|item: Result<Item>| item.map(&mut *merge));
            hand_out(&mut items, ingest.progress(), (&jobs_of_files, &tickets))
        });
        walk(items, &found);
        drop(found);
        // The workers get their stops whatever became of the others: else a panic would wait for them for ever.
        let (merged, built) = (merger.join(), builder.join());
        for _ in 0..workers {
            if jobs.send(Job::Stop).is_err() {
                break;
            }
        }
        let merged = merged.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let built = built.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // When the builder failed, the merger only saw that nobody listened any more.
        built.and(merged)
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => ended,
    }
}

/// Walks until the end, an error, or nobody listens any more.
fn walk(items: Walk<'_>, found: &Sender<Vec<Result<Item>>>) {
    let mut batch = Vec::with_capacity(BATCH_ENTRIES_MAX);
    let (mut folder, mut folders) = (Vec::new(), 0);
    for item in items {
        if let Ok(Item::File(entry, _)) = &item
            && split(&entry.path).0 != folder
        {
            folder = split(&entry.path).0.to_vec();
            folders += 1;
        }
        let failed = item.is_err();
        batch.push(item);
        if failed || batch.len() >= BATCH_ENTRIES_MAX || folders >= BATCH_FOLDERS_MAX {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_ENTRIES_MAX));
            if found.send(full).is_err() || failed {
                return;
            }
            (folder, folders) = (Vec::new(), 0);
        }
    }
    // Nobody listens only when the backup has failed already.
    drop(found.send(batch));
}

fn on_this_thread(
    items: Walk<'_>,
    merge: Merge<'_>,
    ingest: &Ingest<'_>,
    compression: Compression,
    entries: &mut dyn Entries,
) -> Result<()> {
    let mut worker = Worker::new(ingest, compression)?;
    let mut buffer = Vec::new();
    for item in items {
        ingest.progress().check()?;
        let entry = match merge(item?) {
            Item::Entry(entry) => Some(entry),
            Item::File(entry, open) => worker.file(entry, open, &mut buffer, &Frames::Inline)?,
        };
        entry.map_or(Ok(()), |entry| entries.entry(entry))?;
    }
    worker.flush(&Frames::Inline)
}

fn stopped() -> Error {
    Error::new(ErrorKind::Failed, "the backup stopped because another part of it failed")
}

/// Gathers batches, and makes the tickets.
fn hand_out(
    items: Walk<'_>,
    progress: &Progress,
    (jobs, tickets): (&Sender<Job>, &Sender<Ticket>),
) -> Result<()> {
    let mut gathered =
        Gathered { jobs, tickets, batch: Batch::new(), bytes: 0, folders: 0, ready: Vec::new(), weight: 0 };
    for item in items {
        progress.check()?;
        match item? {
            // An entry between two files rides with them: it must not cut their frame in two.
            Item::Entry(entry) if gathered.batch.is_empty() => gathered.ready(entry)?,
            Item::Entry(entry) => gathered.ride(entry)?,
            Item::File(entry, open) => gathered.file(entry, open)?,
        }
    }
    gathered.pass()?;
    gathered.send()
}

/// What will be the next ticket: entries that are complete, or else a batch of files.
struct Gathered<'a> {
    jobs: &'a Sender<Job>,
    tickets: &'a Sender<Ticket>,
    batch: Batch,
    /// Of content, in the batch.
    bytes: u64,
    /// That the files of the batch are in.
    folders: usize,
    ready: Vec<Entry>,
    /// Of memory, in `ready` or in the batch: one of them is empty.
    weight: usize,
}

impl Gathered<'_> {
    fn ready(&mut self, entry: Entry) -> Result<()> {
        self.weight += weight(&entry);
        self.ready.push(entry);
        let full = self.ready.len() >= BATCH_ENTRIES_MAX || self.weight >= READY_BYTES_MAX;
        if full { self.pass() } else { Ok(()) }
    }

    fn ride(&mut self, entry: Entry) -> Result<()> {
        self.weight += weight(&entry);
        self.batch.push((entry, None));
        let full = self.batch.len() >= BATCH_ENTRIES_MAX || self.weight >= READY_BYTES_MAX;
        if full { self.send() } else { Ok(()) }
    }

    fn file(&mut self, entry: Entry, open: OpenFile) -> Result<()> {
        let size = entry.metadata.size;
        let last = self.batch.iter().rev().find(|(_, open)| open.is_some());
        let mut elsewhere = last.is_none_or(|(last, _)| split(&last.path).0 != split(&entry.path).0);
        if self.bytes.saturating_add(size) > BATCH_BYTES
            || self.batch.len() >= BATCH_ENTRIES_MAX
            || self.weight >= READY_BYTES_MAX
            || elsewhere && self.folders >= BATCH_FOLDERS_MAX
        {
            self.send()?;
            elsewhere = true;
        }
        // What came before it must stay before it.
        self.pass()?;
        self.bytes = self.bytes.saturating_add(size);
        self.weight += weight(&entry);
        self.folders += usize::from(elsewhere);
        self.batch.push((entry, Some(open)));
        Ok(())
    }

    fn pass(&mut self) -> Result<()> {
        if self.ready.is_empty() {
            return Ok(());
        }
        self.weight = 0;
        self.tickets.send(Ticket::Ready(std::mem::take(&mut self.ready))).map_err(|_closed| stopped())
    }

    fn send(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        (self.bytes, self.folders, self.weight) = (0, 0, 0);
        let (reply, answer) = bounded(1);
        self.tickets.send(Ticket::Pending(answer)).map_err(|_closed| stopped())?;
        self.jobs.send(Job::Files(std::mem::take(&mut self.batch), reply)).map_err(|_closed| stopped())
    }
}

/// Takes the tickets in their order.
fn build(ordered: &Receiver<Ticket>, entries: &mut dyn Entries) -> Result<()> {
    for ticket in ordered {
        match ticket {
            Ticket::Ready(ready) => ready.into_iter().try_for_each(|entry| entries.entry(entry))?,
            Ticket::Pending(answer) => {
                for entry in answer.recv().map_err(|_closed| stopped())?? {
                    entries.entry(entry)?;
                }
            }
        }
    }
    Ok(())
}

/// Does jobs until a stop comes. What the worker still holds then is for the caller to flush.
///
/// # Errors
/// Something could not be stored, and no stop has come yet.
fn work<'a, 'b>(
    ingest: &'b Ingest<'a>,
    compression: Compression,
    jobs: &Sender<Job>,
    waiting: &Receiver<Job>,
) -> Result<Worker<'a, 'b>> {
    let mut worker = Worker::new(ingest, compression)?;
    let mut buffer = Vec::new();
    let pass_on = |frame: NewFrame| match jobs.try_send(Job::Frame(frame)) {
        Ok(()) => None,
        Err(TrySendError::Full(Job::Frame(frame)) | TrySendError::Disconnected(Job::Frame(frame))) => {
            Some(frame)
        }
        Err(_) => None,
    };
    for job in waiting {
        match job {
            Job::Frame(frame) => worker.seal(frame)?,
            Job::Stop => break,
            Job::Files(batch, reply) => {
                // Only a large file has frames to spare; a batch of small ones is one frame.
                let large = batch.iter().any(|(entry, _)| entry.metadata.size > BATCH_BYTES);
                let frames = if large { Frames::PassOn(&pass_on) } else { Frames::Inline };
                let entries: Result<Vec<Entry>> = batch
                    .into_iter()
                    .filter_map(|(entry, open)| match open {
                        Some(open) => worker.file(entry, open, &mut buffer, &frames).transpose(),
                        None => Some(Ok(entry)),
                    })
                    .collect();
                worker.flush_large(&Frames::Inline)?;
                // Nobody listens only when the backup has failed already.
                drop(reply.send(entries));
            }
        }
    }
    Ok(worker)
}

/// Takes and drops jobs until a stop comes, so that nobody waits for room in the queue.
fn drain(waiting: &Receiver<Job>) {
    for job in waiting {
        if matches!(job, Job::Stop) {
            break;
        }
    }
}
