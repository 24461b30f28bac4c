//! All cores busy, on one huge file and on a hundred thousand small ones, with the manifest still built
//! in path order. The thread that walks makes tickets: an entry that is complete, or a batch that a
//! worker has in hand. One thread takes the tickets in their order and builds the manifest. A worker that
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
    format::entry::Entry,
    progress::Progress,
};

/// Files of one batch hold together at most this many bytes, unless it is a single larger one.
const BATCH_BYTES: u64 = FRAME_BYTES_TARGET as u64;
/// A batch has at most this many entries, since each file may keep a folder open.
const BATCH_ENTRIES_MAX: usize = 256;
/// Jobs that wait for each worker.
const JOBS_PER_WORKER: usize = 2;
/// Tickets that wait for the manifest, each of at most [`BATCH_ENTRIES_MAX`] entries: what a slow file may
/// be overtaken by.
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

/// Sends every item through the workers and every entry to `entries`.
///
/// # Errors
/// The first thing that failed, on whichever thread.
pub(super) fn run(
    items: &mut dyn Iterator<Item = Result<Item>>,
    ingest: &Ingest<'_>,
    (compression, workers): (Compression, usize),
    entries: &mut dyn Entries,
) -> Result<()> {
    if workers <= 1 {
        return on_this_thread(items, ingest, compression, entries);
    }
    let (jobs, waiting) = bounded(workers * JOBS_PER_WORKER);
    let (tickets, ordered) = bounded(TICKETS_MAX);
    let failed = Mutex::new(None);
    let walked = thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                if let Err(error) = work(ingest, compression, &jobs, &waiting) {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    // Whoever waits for this worker must not wait for ever.
                    drain(&waiting);
                }
            });
        }
        let builder = scope.spawn(move || build(&ordered, entries));
        let walked = hand_out(items, ingest.progress(), (&jobs, &tickets));
        drop(tickets);
        let built = builder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        for _ in 0..workers {
            if jobs.send(Job::Stop).is_err() {
                break;
            }
        }
        // When the builder failed, the walk only saw that nobody listened any more.
        built.and(walked)
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => walked,
    }
}

fn on_this_thread(
    items: &mut dyn Iterator<Item = Result<Item>>,
    ingest: &Ingest<'_>,
    compression: Compression,
    entries: &mut dyn Entries,
) -> Result<()> {
    let mut worker = Worker::new(ingest, compression)?;
    let mut buffer = Vec::new();
    for item in items {
        ingest.progress().check()?;
        let entry = match item? {
            Item::Entry(entry) => entry,
            Item::File(entry, open) => worker.file(entry, open, &mut buffer, &Frames::Inline)?,
        };
        entries.entry(entry)?;
    }
    worker.flush(&Frames::Inline)
}

fn stopped() -> Error {
    Error::new(ErrorKind::Failed, "the backup stopped because another part of it failed")
}

/// Walks, gathers batches, and makes the tickets.
fn hand_out(
    items: &mut dyn Iterator<Item = Result<Item>>,
    progress: &Progress,
    (jobs, tickets): (&Sender<Job>, &Sender<Ticket>),
) -> Result<()> {
    let (mut batch, mut bytes): (Batch, u64) = (Vec::new(), 0);
    let mut ready: Vec<Entry> = Vec::new();
    let pass = |ready: &mut Vec<Entry>| -> Result<()> {
        if ready.is_empty() {
            return Ok(());
        }
        tickets.send(Ticket::Ready(std::mem::take(ready))).map_err(|_closed| stopped())
    };
    let send = |batch: &mut Batch, bytes: &mut u64| -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        *bytes = 0;
        let (reply, answer) = bounded(1);
        tickets.send(Ticket::Pending(answer)).map_err(|_closed| stopped())?;
        jobs.send(Job::Files(std::mem::take(batch), reply)).map_err(|_closed| stopped())
    };
    for item in items {
        progress.check()?;
        match item? {
            // An entry between two files rides with them: it must not cut their frame in two.
            Item::Entry(entry) if batch.is_empty() => {
                ready.push(entry);
                if ready.len() >= BATCH_ENTRIES_MAX {
                    pass(&mut ready)?;
                }
            }
            Item::Entry(entry) => {
                batch.push((entry, None));
                if batch.len() >= BATCH_ENTRIES_MAX {
                    send(&mut batch, &mut bytes)?;
                }
            }
            Item::File(entry, open) => {
                let size = entry.metadata.size;
                if bytes + size > BATCH_BYTES || batch.len() >= BATCH_ENTRIES_MAX {
                    send(&mut batch, &mut bytes)?;
                }
                // What came before it must stay before it.
                pass(&mut ready)?;
                bytes += size;
                batch.push((entry, Some(open)));
            }
        }
    }
    pass(&mut ready)?;
    send(&mut batch, &mut bytes)
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

fn work(
    ingest: &Ingest<'_>,
    compression: Compression,
    jobs: &Sender<Job>,
    waiting: &Receiver<Job>,
) -> Result<()> {
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
                    .map(|(entry, open)| match open {
                        Some(open) => worker.file(entry, open, &mut buffer, &frames),
                        None => Ok(entry),
                    })
                    .collect();
                worker.flush_large(&Frames::Inline)?;
                // Nobody listens only when the backup has failed already.
                drop(reply.send(entries));
            }
        }
    }
    worker.flush(&Frames::Inline)
}

/// Takes and drops jobs until a stop comes, so that nobody waits for room in the queue.
fn drain(waiting: &Receiver<Job>) {
    for job in waiting {
        if matches!(job, Job::Stop) {
            break;
        }
    }
}
