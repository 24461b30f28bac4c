//! `restore`: from a snapshot to files. Every byte is checked before it is written; a file that is not
//! whole is named as damaged and everything else is restored. The first pass over the manifest restores
//! what is in folders, in parallel; the second one links what is linked and gives the folders their
//! metadata, each after everything in it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded};

use self::{
    existing::{Basis, Existing, Fate},
    plan::{Large, Recent, Task, Window},
    second::{Links, second_pass},
    work::{Job, Worker},
};
use crate::{
    error::{Error, ErrorKind, Result},
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        old::{Found, Rewritable},
        remove::{Never, Removal},
        restore::{Notes, Target, Zeros},
        select::Selection,
    },
    format::entry::{ChunkRef, Content, Entry, EntryKind},
    id::BlobId,
    progress::Phase,
    repository::{
        Repository,
        manifest::{Gap, ManifestCursor, NodeSource, for_each_chunk, for_each_entry},
        reader::NodeReader,
        snapshots::KnownSnapshot,
        view::View,
    },
};

mod bad;
mod clear;
mod existing;
mod forecast;
mod plan;
mod second;
mod work;

pub(super) use self::second::{Group, link_group};
pub use self::{
    clear::Extra,
    existing::Overwrite,
    forecast::{Forecast, forecast},
};

/// How the error of an entry begins that the backup itself could not read.
pub(super) const UNREAD: &str = "the backup could not read it";
/// What fails or is noted is named one by one up to so many, and counted beyond.
const NAMED_MAX: usize = 10_000;
/// After so many windows (64 MiB) the disk is told to write what is there, while the next ones are made: at the
/// end nearly nothing is left to wait for, and what is dirty in memory stays little.
const WINDOWS_PER_SYNC: usize = 16;

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
    /// What may be overwritten.
    pub overwrite: Overwrite,
    /// What may be in a folder beside what the snapshot has of it.
    pub extra: Extra,
    /// What becomes of zeros.
    pub zeros: Zeros,
    /// Folders that are never removed: the repository's, the cache.
    pub never: Vec<PathBuf>,
}

impl Default for RestoreOptions {
    /// All of a snapshot, on one thread, over what is there.
    fn default() -> Self {
        Self {
            ownership: Ownership::new(OwnershipPolicy::ByName),
            subpath: Vec::new(),
            selection: Selection::default(),
            workers: 1,
            overwrite: Overwrite::default(),
            extra: Extra::default(),
            zeros: Zeros::default(),
            never: Vec::new(),
        }
    }
}

/// What a restore did.
#[derive(Debug, Default)]
pub struct Restored {
    /// Files that are whole.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Of these the files whose content was there already.
    pub files_unchanged: u64,
    /// Bytes in files that were there already, and right.
    pub bytes_unchanged: u64,
    /// Entries in whose place something was that was not to be overwritten.
    pub left: u64,
    /// What was removed, since the snapshot does not have it: the first of it.
    pub removed: Vec<Vec<u8>>,
    /// How much that is, named or not.
    pub removals: u64,
    /// Entries that are not as they were, and why: damage, or what the backup could not read.
    pub failed: Vec<(Vec<u8>, Error)>,
    /// How many these are, named or not.
    pub failures: u64,
    /// Of which kinds they are, each once: what has no kind of its own is `Incomplete`.
    pub kinds: HashSet<ErrorKind>,
    /// How many of the failures are entries that the backup could not read: nothing of them was ever stored.
    pub unread: u64,
    /// Parts of the manifest that are lost, each with nobody knows how many entries.
    pub gaps: u64,
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
        let kind = match error.kind() {
            ErrorKind::Failed | ErrorKind::NotFound => ErrorKind::Incomplete,
            kind => kind,
        };
        self.kinds.insert(kind);
        let error = error.with_kind(kind);
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
        // A manifest may claim anything.
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn remove(&mut self, paths: &[Vec<u8>]) {
        self.removals += paths.len() as u64;
        let room = NAMED_MAX.saturating_sub(self.removed.len());
        self.removed.extend(paths.iter().take(room).cloned());
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
    repository.store.progress().enter(Phase::Opening);
    repository
        .reading(&snapshot.name.domain, &mut |view| with_view(repository, snapshot, view, (target, options)))
}

fn with_view(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    view: &View,
    (target, options): (&Path, &RestoreOptions),
) -> Result<Restored> {
    let domain = snapshot.name.domain;
    let progress = repository.store.progress();
    let key = repository.chunk_keys(&domain)?.id;
    let mut nodes = NodeReader::new(repository, domain, &view.index)?;
    nodes.serve(snapshot.name.identity);
    let nodes = SameTree { nodes: &nodes, lost: Mutex::default() };
    let strip = strip_of(&nodes, snapshot, &options.subpath)?;
    let indexed = repository.clock.elapsed();
    if options.extra == Extra::Remove {
        existing::refuse_to_empty_everything(&snapshot.record.sources, &options.subpath, target)?;
    }
    let target = Target::create_or_open(target)?.with_zeros(options.zeros);
    progress.enter(Phase::Restoring);
    progress.expect(snapshot.record.statistics.files, snapshot.record.statistics.bytes);
    let never = Never::new(&options.never);
    let job = Job {
        repository,
        domain,
        reader: snapshot.name.identity,
        index: &view.index,
        key,
        snapshot: &snapshot.record,
        target: &target,
        options,
        never: &never,
        removal: Removal::Remove,
        strip,
        first_byte: OnceLock::new(),
        done: Mutex::default(),
        broken: Mutex::default(),
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
    let mut damage = None;
    let found = loop {
        match cursor.next_entry() {
            Err(error) if error.is_damage() => {
                damage.get_or_insert(error);
            }
            other => break other?,
        }
    };
    match found {
        Some(entry) if entry.path == subpath && entry.metadata.kind == EntryKind::Directory => {
            Ok(subpath.len() + 1)
        }
        Some(entry) if entry.path == subpath => Ok(parent),
        // The folder's own entry is lost, what is in it is not.
        Some(entry) if is_below(&entry.path, subpath) => Ok(subpath.len() + 1),
        _ => Err(damage.unwrap_or_else(|| {
            let path = String::from_utf8_lossy(subpath).into_owned();
            Error::new(ErrorKind::Failed, format!("the snapshot holds no /{path}"))
                .with_remedy("`lifeboat ls` shows what it holds")
        })),
    }
}

/// Nodes as both passes must see them: one that could not be read the first time stays unread.
struct SameTree<'a> {
    nodes: &'a NodeReader<'a>,
    lost: Mutex<HashSet<BlobId>>,
}

impl SameTree<'_> {
    fn lost(&self) -> MutexGuard<'_, HashSet<BlobId>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NodeSource for SameTree<'_> {
    fn plain(&self, id: &BlobId) -> Result<Vec<u8>> {
        if self.lost().contains(id) {
            return Err(Error::damaged(format!("manifest node {id}"), "it could not be read before"));
        }
        self.nodes.plain(id).inspect_err(|error| {
            if error.is_damage() {
                self.lost().insert(*id);
            }
        })
    }
}

/// What both passes read.
struct Pass<'a> {
    snapshot: &'a KnownSnapshot,
    nodes: &'a SameTree<'a>,
    options: &'a RestoreOptions,
}

impl Pass<'_> {
    /// Gives every entry at and below the path that was asked for, in order, and what is lost of them.
    fn entries(&self, each: &mut dyn FnMut(std::result::Result<Entry, Gap>) -> Result<()>) -> Result<()> {
        for_each_entry(self.nodes, self.snapshot.record.root, &self.options.subpath, each)
    }

    fn selects(&self, entry: &Entry) -> bool {
        self.options.selection.selects_entry(entry)
    }
}

/// A part of the manifest is lost, and the entries in it with it.
fn lost(job: &Job<'_>, gap: Gap) -> Result<()> {
    let Gap { first, error } = gap;
    job.done().gaps += 1;
    job.failed(&first, error.context("this entry and some that follow it are lost"))
}

fn first_pass(pass: &Pass<'_>, job: &Job<'_>) -> Result<()> {
    let downloads = job.repository.store.downloads();
    let workers = pass.options.workers;
    let fetch = |window: &mut Window| window.fetch(job.repository, &job.domain, &downloads);
    if workers <= 1 {
        let mut worker = Worker::new(job)?;
        return plan(pass, job, &mut |mut window| {
            fetch(&mut window);
            worker.window(window)
        })
        .map(drop);
    }
    let (windows, waiting): (Sender<Window>, Receiver<Window>) = bounded(workers);
    let (due, syncs) = bounded(1);
    let failed = Mutex::new(None);
    let fail = |error| {
        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    };
    let planned = thread::scope(|scope| {
        scope.spawn(|| syncs.into_iter().try_for_each(|()| job.target.sync()).unwrap_or_else(&fail));
        for _ in 0..workers {
            let (waiting, fail) = (waiting.clone(), &fail);
            scope.spawn(move || {
                let work = || -> Result<()> {
                    let mut worker = Worker::new(job)?;
                    waiting.iter().try_for_each(|window| worker.window(window))
                };
                if let Err(error) = work() {
                    fail(error);
                    // The planner must not wait for ever.
                    waiting.iter().for_each(drop);
                }
            });
        }
        drop(waiting);
        let mut sent = 0_usize;
        let planned = plan(pass, job, &mut |mut window| {
            fetch(&mut window);
            sent += 1;
            if sent.is_multiple_of(WINDOWS_PER_SYNC) {
                // One that is still on its way will do.
                due.try_send(()).unwrap_or_default();
            }
            if failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return Err(Error::new(ErrorKind::Failed, "the restore stopped"));
            }
            windows.send(window).map_err(|_closed| Error::new(ErrorKind::Failed, "the restore stopped"))
        });
        drop((windows, due));
        planned.map(drop)
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(planned, Err)
}

/// Fills windows and hands them on; tells what is to be done.
fn plan(pass: &Pass<'_>, job: &Job<'_>, send: &mut dyn FnMut(Window) -> Result<()>) -> Result<Tally> {
    let mut planner = Planner::new(job, send);
    let mut links = Links::default();
    pass.entries(&mut |entry| {
        job.repository.store.progress().check()?;
        let entry = match entry {
            Ok(entry) => entry,
            Err(gap) => return lost(job, gap),
        };
        if !pass.selects(&entry) {
            return Ok(());
        }
        if let Some(reason) = &entry.error {
            let error = Error::new(ErrorKind::Incomplete, format!("{UNREAD}: {reason}"));
            job.done().unread += 1;
            return job.failed(&entry.path, error);
        }
        if job.below(&entry.path).is_empty() || links.first_name(&entry).is_some() {
            return Ok(());
        }
        planner.entry(entry, pass.nodes)
    })?;
    planner.flush()?;
    Ok(planner.tally)
}

/// What a restore has to do, as its planner sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Files, and the bytes in them.
    files: u64,
    bytes: u64,
    /// Of these what is there already.
    files_unchanged: u64,
    bytes_unchanged: u64,
    /// Bytes that files grow by.
    growth: u64,
}

struct Planner<'a, 'b> {
    job: &'a Job<'a>,
    existing: Option<Existing<'a>>,
    window: Window,
    recent: Recent,
    tally: Tally,
    send: &'b mut dyn FnMut(Window) -> Result<()>,
}

/// How far the planner is in a large file.
struct InLarge {
    large: Arc<Large>,
    basis: Basis,
    offset: u64,
    /// The last task is a part of it that ends here.
    open: bool,
}

impl<'a, 'b> Planner<'a, 'b> {
    fn new(job: &'a Job<'a>, send: &'b mut dyn FnMut(Window) -> Result<()>) -> Self {
        let (window, recent, tally) = (Window::default(), Recent::default(), Tally::default());
        Self { job, existing: Existing::new(job), window, recent, tally, send }
    }

    fn flush(&mut self) -> Result<()> {
        if self.window.is_empty() { Ok(()) } else { (self.send)(std::mem::take(&mut self.window)) }
    }

    fn flush_if_full(&mut self) -> Result<()> {
        if self.window.is_full() { self.flush() } else { Ok(()) }
    }

    fn entry(&mut self, mut entry: Entry, nodes: &dyn NodeSource) -> Result<()> {
        let fate = self.existing.as_mut().map_or(Ok(Fate::New), |existing| existing.fate(&entry));
        let old = match fate {
            Ok(Fate::New) => None,
            Ok(Fate::Compare(found)) => Some(found),
            Ok(Fate::Keep(found)) => {
                self.job.repository.store.progress().add(0, entry.metadata.size);
                return self.keep(entry, found);
            }
            Ok(Fate::Leave) => {
                self.job.left(&entry);
                return Ok(());
            }
            Err(error) => return self.job.entry_failed(&entry, error),
        };
        let content = std::mem::replace(&mut entry.content, Content::Inline(Vec::new()));
        match content {
            Content::Inline(chunks) if Window::holds(entry.metadata.size, &chunks) => {
                self.small(entry, &chunks, old)
            }
            content => self.large(entry, &content, nodes, old),
        }
    }

    /// A file that is there already, and whole.
    fn keep(&mut self, entry: Entry, found: Found) -> Result<()> {
        self.tally.files_unchanged += 1;
        self.count(&entry, Some(&found), entry.metadata.size);
        self.window.add_task(Task::Keep(Box::new(entry), found));
        self.flush_if_full()
    }

    fn count(&mut self, entry: &Entry, old: Option<&Found>, unchanged: u64) {
        if entry.metadata.kind != EntryKind::File {
            return;
        }
        let (size, tally) = (entry.metadata.size, &mut self.tally);
        let growth = size.saturating_sub(old.map_or(0, |old| old.size));
        tally.files += 1;
        for (sum, bytes) in
            [(&mut tally.bytes, size), (&mut tally.bytes_unchanged, unchanged), (&mut tally.growth, growth)]
        {
            *sum = sum.saturating_add(bytes);
        }
    }

    fn small(&mut self, entry: Entry, chunks: &[ChunkRef], old: Option<Found>) -> Result<()> {
        let mut same = existing::Same::default();
        if let (Some(existing), Some(found)) = (&mut self.existing, &old) {
            same = match existing.small(&entry, found, chunks) {
                Ok(same) => same,
                Err(error) => return self.job.entry_failed(&entry, error),
            };
            if same.is_whole(chunks, (entry.metadata.size, found.size)) && existing.may_keep(found, &entry) {
                self.job.repository.store.progress().add(0, entry.metadata.size);
                return self.keep(entry, *found);
            }
        }
        self.window.add_task(Task::Whole(Box::new(entry.clone())));
        let (mut offset, mut unchanged) = (0, 0);
        for (number, chunk) in chunks.iter().enumerate() {
            match same.chunk(number, offset, chunk.length) {
                Some(bytes) => {
                    self.window.add_local(bytes);
                    unchanged += u64::from(chunk.length);
                }
                None => self.window.add_chunk(*chunk, self.job, &mut self.recent),
            }
            offset += chunk.length as usize;
        }
        self.job.done().bytes_unchanged += unchanged;
        self.count(&entry, old.as_ref(), unchanged);
        self.flush_if_full()
    }

    fn large(
        &mut self,
        entry: Entry,
        content: &Content,
        nodes: &dyn NodeSource,
        old: Option<Found>,
    ) -> Result<()> {
        let basis = match &mut self.existing {
            None => Ok(Basis::default()),
            Some(existing) => existing.basis(&entry, old.as_ref()),
        };
        let basis = match basis {
            Ok(basis) => basis,
            Err(error) => return self.job.entry_failed(&entry, error),
        };
        let size = entry.metadata.size;
        let mut at = InLarge { large: Large::new(entry), basis, offset: 0, open: false };
        let mut unchanged = 0;
        let listed = for_each_chunk(content, nodes, &mut |chunk| self.chunk(&mut at, chunk, &mut unchanged));
        let InLarge { large, mut basis, offset, .. } = at;
        match listed {
            Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
            Ok(()) if offset == size => {}
            _ => {
                let gap = offset.min(size)..size.max(offset + 1);
                large.bad.lock().unwrap_or_else(PoisonError::into_inner).add(gap);
            }
        }
        if let Some(rewritable) = basis.rewritable.take() {
            // Nothing of it differed so far.
            let whole = large.bad.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
            let found = *rewritable.found();
            if whole && rewritable.has_its_name() && found.size == size {
                let entry = Arc::into_inner(large).map(|large| large.entry);
                return entry.map_or(Ok(()), |entry| self.keep(entry, found));
            }
            self.begin(&large, rewritable)?;
        }
        let done = &mut *self.job.done();
        done.bytes_unchanged = done.bytes_unchanged.saturating_add(unchanged);
        self.count(&large.entry, old.as_ref(), unchanged);
        self.window.add_task(Task::End(large));
        self.flush_if_full()
    }

    /// The next chunk of a large file.
    fn chunk(&mut self, at: &mut InLarge, chunk: ChunkRef, unchanged: &mut u64) -> Result<()> {
        let (size, begin) = (at.large.entry.metadata.size, at.offset);
        let progress = self.job.repository.store.progress();
        progress.check()?;
        if begin > size || at.large.is_given_up() {
            return Err(Error::damaged("a file", "it cannot take the rest of its content"));
        }
        at.offset += u64::from(chunk.length);
        let same = at.basis.has(begin, &chunk, &self.job.key);
        if same {
            *unchanged += u64::from(chunk.length);
        }
        if same && at.basis.in_place {
            progress.add(0, u64::from(chunk.length));
            at.open = false;
            return Ok(());
        }
        if !at.open {
            if let Some(rewritable) = at.basis.rewritable.take() {
                self.begin(&at.large, rewritable)?;
            }
            self.window.add_task(Task::Part(Arc::clone(&at.large), begin));
            at.open = true;
        }
        if same {
            self.window.add_local(at.basis.bytes());
        } else {
            self.window.add_chunk(chunk, self.job, &mut self.recent);
        }
        if self.window.is_full() {
            at.open = false;
            self.flush()?;
        }
        Ok(())
    }

    /// From now on a file that is there is changed.
    fn begin(&mut self, large: &Large, rewritable: Rewritable) -> Result<()> {
        if self.job.removal == Removal::Tell {
            return Ok(());
        }
        let begun = match rewritable.begin(self.job.target, large.entry.metadata.size) {
            Ok(file) => Ok(Arc::new(file)),
            Err(error) => Err(work::give_up(large, error)?),
        };
        *large.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        self.window.add_open_file();
        Ok(())
    }
}

fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.first() == Some(&b'/'))
}
