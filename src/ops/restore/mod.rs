//! `restore`: from a snapshot to files. Every byte is checked before it is written; a file that is not
//! whole is named as damaged and everything else is restored. The first pass over the manifest restores
//! what is in folders, in parallel; the second one links what is linked and gives the folders their
//! metadata, each after everything in it.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded};

use self::{
    plan::{Large, Task, Window},
    work::{Job, Worker},
};
use crate::{
    error::{Error, ErrorKind, Result},
    filesystem::{
        names::Ownership,
        restore::{Notes, Target},
        select::Selection,
    },
    format::entry::{Content, Entry, EntryKind},
    progress::Phase,
    repository::{
        Repository,
        manifest::{ManifestCursor, NodeSource, for_each_chunk, for_each_entry},
        reader::NodeReader,
        snapshots::KnownSnapshot,
    },
    store::Downloads,
};

mod plan;
mod work;

/// What fails or is noted is named one by one up to so many, and counted beyond.
const NAMED_MAX: usize = 10_000;

/// What to restore, and how.
#[derive(Debug)]
pub struct RestoreOptions {
    /// Who owns what.
    pub ownership: Ownership,
    /// Only what is at and below this path (no leading slash). A folder's content goes into the target
    /// itself. Empty for everything, by its whole path.
    pub subpath: Vec<u8>,
    /// What of it.
    pub selection: Selection,
    /// Threads that open frames and write; with one everything happens in one order.
    pub workers: usize,
}

/// What a restore did.
#[derive(Debug, Default)]
pub struct Restored {
    /// Files that are whole.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Entries that are not as they were, and why: damage, or what the backup could not read.
    pub failed: Vec<(Vec<u8>, Error)>,
    /// How many these are, named or not.
    pub failures: u64,
    /// Metadata that could not be set.
    pub notes: Vec<(Vec<u8>, String)>,
    /// When what happened.
    pub moments: Moments,
}

/// Moments of a restore, on the boot-time clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// The index was read.
    pub indexed: Duration,
    /// The first byte of a file was there to be written; without any, the end.
    pub first_byte: Duration,
    /// Everything was on the disk.
    pub last_byte: Duration,
}

impl Restored {
    fn fail(&mut self, path: Vec<u8>, error: Error) {
        self.failures += 1;
        if self.failed.len() < NAMED_MAX {
            self.failed.push((path, error));
        }
    }

    fn note(&mut self, path: &[u8], notes: Notes) {
        if self.notes.len() < NAMED_MAX {
            self.notes.extend(notes.into_iter().map(|note| (path.to_vec(), note)));
        }
    }

    const fn count(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// Restores a snapshot, or a part of it, into a folder.
///
/// # Errors
/// The target cannot be written, the storage fails, or the role may not read. What is wrong with single
/// entries is in the result.
pub fn run(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    target: &Path,
    options: &RestoreOptions,
) -> Result<Restored> {
    let domain = snapshot.name.domain;
    let progress = repository.store.progress();
    progress.enter(Phase::Opening);
    let key = repository.chunk_keys(&domain)?.id;
    let view = repository.view_to_read(&domain)?;
    let nodes = NodeReader::new(repository, domain, &view.index)?;
    let strip = strip_of(&nodes, snapshot, &options.subpath)?;
    let indexed = repository.clock.elapsed();
    let target = Target::create_or_open(target)?;
    progress.enter(Phase::Restoring);
    progress.expect(snapshot.record.statistics.files, snapshot.record.statistics.bytes);
    let RestoreOptions { ownership, .. } = options;
    let job = Job {
        repository,
        domain,
        author: snapshot.name.identity,
        index: &view.index,
        key,
        snapshot: &snapshot.record,
        target: &target,
        ownership,
        strip,
        first_byte: OnceLock::new(),
        done: Mutex::default(),
    };
    let pass = Pass { snapshot, nodes: &nodes, options };
    first_pass(&pass, &job)?;
    second_pass(&pass, &job)?;
    target.sync()?;
    let last_byte = repository.clock.elapsed();
    let first_byte = job.first_byte.get().copied().unwrap_or(last_byte);
    let mut done = job.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.moments = Moments { indexed, first_byte, last_byte };
    Ok(done)
}

/// How many bytes of each path are above the target.
///
/// # Errors
/// The snapshot does not hold it.
pub(super) fn strip_of(nodes: &dyn NodeSource, snapshot: &KnownSnapshot, subpath: &[u8]) -> Result<usize> {
    if subpath.is_empty() {
        return Ok(0);
    }
    let mut cursor = ManifestCursor::from(nodes, snapshot.record.root, subpath);
    let parent = subpath.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    match cursor.next_entry()? {
        Some(entry) if entry.path == subpath && entry.metadata.kind == EntryKind::Directory => {
            Ok(subpath.len() + 1)
        }
        Some(entry) if entry.path == subpath => Ok(parent),
        _ => {
            let path = String::from_utf8_lossy(subpath).into_owned();
            Err(Error::new(ErrorKind::Failed, format!("the snapshot holds no /{path}"))
                .with_remedy("`lifeboat ls` shows what it holds"))
        }
    }
}

/// What both passes read.
struct Pass<'a> {
    snapshot: &'a KnownSnapshot,
    nodes: &'a NodeReader<'a>,
    options: &'a RestoreOptions,
}

impl Pass<'_> {
    /// Gives every entry at and below the path that was asked for, in order.
    fn entries(&self, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        for_each_entry(self.nodes, self.snapshot.record.root, &self.options.subpath, each)
    }

    fn selects(&self, entry: &Entry) -> bool {
        self.options.selection.selects_entry(entry)
    }
}

/// Which group of hard links an entry belongs to, if to any.
fn link_group(entry: &Entry) -> Option<(u64, u64)> {
    let metadata = &entry.metadata;
    let linked = metadata.links > 1 && metadata.kind != EntryKind::Directory;
    linked.then_some((metadata.device_key, metadata.inode))
}

/// The first name of each group of hard links that was met and has more to come.
#[derive(Default)]
struct Links(HashMap<(u64, u64), (Vec<u8>, u64)>);

impl Links {
    /// The first name of the entry's group, if this is a further one.
    fn first_name(&mut self, entry: &Entry) -> Option<Vec<u8>> {
        let group = link_group(entry)?;
        match self.0.get_mut(&group) {
            None => {
                self.0.insert(group, (entry.path.clone(), entry.metadata.links - 1));
                None
            }
            Some((first, left)) => {
                let first = first.clone();
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.0.remove(&group);
                }
                Some(first)
            }
        }
    }
}

fn first_pass(pass: &Pass<'_>, job: &Job<'_>) -> Result<()> {
    let downloads = job.repository.store.downloads();
    let workers = pass.options.workers;
    if workers <= 1 {
        let mut worker = Worker::new(job)?;
        return plan(pass, job, &downloads, &mut |window| worker.window(window));
    }
    let (windows, waiting): (Sender<Window>, Receiver<Window>) = bounded(workers);
    let failed = Mutex::new(None);
    let planned = thread::scope(|scope| {
        for _ in 0..workers {
            let (waiting, failed) = (waiting.clone(), &failed);
            scope.spawn(move || {
                let work = || -> Result<()> {
                    let mut worker = Worker::new(job)?;
                    waiting.iter().try_for_each(|window| worker.window(window))
                };
                if let Err(error) = work() {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    // The planner must not wait for ever.
                    waiting.iter().for_each(drop);
                }
            });
        }
        drop(waiting);
        let planned = plan(pass, job, &downloads, &mut |window| {
            if failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return Err(Error::new(ErrorKind::Failed, "the restore stopped"));
            }
            windows.send(window).map_err(|_closed| Error::new(ErrorKind::Failed, "the restore stopped"))
        });
        drop(windows);
        planned
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(planned, Err)
}

/// Fills windows and hands them on.
fn plan(
    pass: &Pass<'_>,
    job: &Job<'_>,
    downloads: &Downloads,
    send: &mut dyn FnMut(Window) -> Result<()>,
) -> Result<()> {
    let mut planner = Planner { job, downloads, window: Window::default(), send };
    let mut links = Links::default();
    pass.entries(&mut |entry| {
        job.repository.store.progress().check()?;
        if !pass.selects(&entry) {
            return Ok(());
        }
        if let Some(reason) = &entry.error {
            let error = Error::new(ErrorKind::Incomplete, format!("the backup could not read it: {reason}"));
            return job.failed(&entry.path, error);
        }
        if job.below(&entry.path).is_empty() || links.first_name(&entry).is_some() {
            return Ok(());
        }
        planner.entry(entry, pass.nodes)
    })?;
    planner.flush()
}

struct Planner<'a, 'b> {
    job: &'a Job<'a>,
    downloads: &'a Downloads,
    window: Window,
    send: &'b mut dyn FnMut(Window) -> Result<()>,
}

impl Planner<'_, '_> {
    fn flush(&mut self) -> Result<()> {
        if self.window.is_empty() {
            return Ok(());
        }
        let mut window = std::mem::take(&mut self.window);
        window.fetch(self.job.repository, &self.job.domain, self.downloads);
        (self.send)(window)
    }

    fn entry(&mut self, mut entry: Entry, nodes: &dyn NodeSource) -> Result<()> {
        let content = std::mem::replace(&mut entry.content, Content::Inline(Vec::new()));
        match content {
            Content::Inline(chunks) if Window::is_small(entry.metadata.size) => {
                self.window.add_task(Task::Whole(Box::new(entry)));
                for chunk in chunks {
                    self.window.add_chunk(chunk, (self.job.index, self.job.author));
                }
                if self.window.is_full() { self.flush() } else { Ok(()) }
            }
            content => self.large(entry, &content, nodes),
        }
    }

    fn large(&mut self, entry: Entry, content: &Content, nodes: &dyn NodeSource) -> Result<()> {
        let (size, large) = (entry.metadata.size, Large::new(entry));
        let (mut offset, mut open) = (0, false);
        let listed = for_each_chunk(content, nodes, &mut |chunk| {
            if !open {
                self.window.add_task(Task::Part(Arc::clone(&large), offset));
                open = true;
            }
            offset += u64::from(chunk.length);
            self.window.add_chunk(chunk, (self.job.index, self.job.author));
            if self.window.is_full() {
                open = false;
                self.flush()?;
            }
            Ok(())
        });
        match listed {
            Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
            Ok(()) if offset == size => {}
            _ => {
                let gap = offset.min(size)..size.max(offset + 1);
                large.bad.lock().unwrap_or_else(PoisonError::into_inner).push(gap);
            }
        }
        self.window.add_task(Task::End(large));
        if self.window.is_full() { self.flush() } else { Ok(()) }
    }
}

/// A folder that the second pass is in.
struct OpenFolder {
    entry: Entry,
    /// It is meant itself, or something below it is.
    used: bool,
}

fn second_pass(pass: &Pass<'_>, job: &Job<'_>) -> Result<()> {
    let mut links = Links::default();
    let mut open: Vec<OpenFolder> = Vec::new();
    pass.entries(&mut |entry| {
        job.repository.store.progress().check()?;
        while open.last().is_some_and(|folder| !is_below(&entry.path, &folder.entry.path)) {
            leave(&mut open, job)?;
        }
        let used = pass.selects(&entry) && entry.error.is_none();
        if entry.metadata.kind == EntryKind::Directory {
            open.push(OpenFolder { used, entry });
            return Ok(());
        }
        if used {
            if let Some(folder) = open.last_mut() {
                folder.used = true;
            }
            if let Some(first) = links.first_name(&entry)
                && let Err(error) = job.target.hard_link(job.below(&first), job.below(&entry.path))
            {
                job.failed(&entry.path, error)?;
            }
        }
        Ok(())
    })?;
    while !open.is_empty() {
        leave(&mut open, job)?;
    }
    Ok(())
}

fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Gives the innermost open folder its metadata.
fn leave(open: &mut Vec<OpenFolder>, job: &Job<'_>) -> Result<()> {
    let Some(OpenFolder { entry, used: true }) = open.pop() else { return Ok(()) };
    if let Some(folder) = open.last_mut() {
        folder.used = true;
    }
    let path = job.below(&entry.path);
    // The target itself belongs to whoever restores, unless a folder was asked for by its path.
    let done = if job.snapshot.leads_only(&entry.path) {
        job.target.set_directory_owner_and_mode(path, &entry.metadata, job.ownership)
    } else {
        job.target.set_directory_metadata(path, &entry.metadata, job.ownership)
    };
    match done {
        Ok(notes) => job.note(&entry.path, notes),
        Err(error) => job.failed(&entry.path, error)?,
    }
    Ok(())
}
