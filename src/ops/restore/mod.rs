//! `restore`: from a snapshot to files. Every byte is checked before it is written; a file that is not
//! whole is named as damaged and everything else is restored. The first pass over the manifest restores
//! what is in folders, in parallel; the second one links what is linked and gives the folders their
//! metadata, each after everything in it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded};

use rustix::process::geteuid;

use self::{
    plan::Window,
    planner::{Planner, Tally},
    second::second_pass,
    work::{Job, Worker},
};
use super::{links::Links, verify::NAMED_BYTES_MAX};
use crate::{
    error::{Error, ErrorKind, Result},
    filesystem::{
        filter::Filter,
        metadata::{Note, Notes},
        names::{Ownership, OwnershipPolicy},
        remove::{Never, Removal},
        restore::{Looks, TARGET_MODE, Target, Zeros},
        rights,
        select::Selection,
    },
    format::{
        entry::{Entry, EntryKind, Metadata},
        path::is_below,
    },
    id::BlobId,
    progress::Phase,
    repository::{
        Repository,
        manifest::{Gap, ManifestCursor, NodeSource, for_each_entry},
        reader::NodeReader,
        snapshots::KnownSnapshot,
        view::View,
    },
};

mod bad;
mod clear;
mod denied;
mod existing;
mod forecast;
mod others;
mod plan;
mod planner;
mod second;
mod work;

pub use self::{
    clear::Extra,
    existing::Overwrite,
    forecast::{Forecast, forecast},
};

/// How the error of an entry begins that the backup itself could not read.
pub(super) const UNREAD: &str = "the backup could not read it";
/// What fails, goes or is noted is named one by one up to so many of each, and to [`NAMED_BYTES_MAX`], and counted beyond.
const NAMED_MAX: usize = 10_000;
/// After so many windows (64 MiB) the disk is told to write what is there, while the next ones are made: at the
/// end nearly nothing is left to wait for, and where the disk keeps up what is dirty in memory stays little.
const WINDOWS_PER_SYNC: u64 = (64 << 20) / plan::WINDOW_BYTES;

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
    /// What the backup left out by other rules than patterns, and so is not extra.
    pub left_out: Filter,
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
            left_out: Filter::default(),
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
    /// What is to be said of single entries: metadata that could not be set, and what is only good to know.
    pub notes: Vec<(Vec<u8>, Note)>,
    /// Notes that are not among these, since there are too many.
    pub notes_unnamed: u64,
    /// How often something could not be set, named or not.
    pub unset: u64,
    /// Entries of which the snapshot has the birth time. No program can set one, so this is told once and is no failure.
    pub birth_times: u64,
    /// Whether packs are there that no index lists: what is lost may be in them.
    pub has_unlisted: bool,
    /// When what happened.
    pub moments: Moments,
    /// How much of it is named.
    pub named: Named,
}

/// Bytes of what is named of each sort. A path may have 64 KiB, and what is said of it repeats it: beyond some it is counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named {
    removed: usize,
    failed: usize,
    notes: usize,
}

/// Whether one more may be named that has so many bytes, after so many that have these.
const fn has_room(names: usize, bytes: &mut usize, more: usize) -> bool {
    let sum = bytes.saturating_add(more);
    let fits = names < NAMED_MAX && sum <= NAMED_BYTES_MAX;
    if fits {
        *bytes = sum;
    }
    fits
}

/// Bytes of what is said of something that failed.
fn said_bytes(path: &[u8], error: &Error) -> usize {
    path.len() + error.to_string().len() + error.remedy().map_or(0, str::len)
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
        self.name_failed(path, error.with_kind(kind));
    }

    fn name_failed(&mut self, path: Vec<u8>, error: Error) {
        if has_room(self.failed.len(), &mut self.named.failed, said_bytes(&path, &error)) {
            self.failed.push((path, error));
        }
    }

    fn note(&mut self, path: &[u8], notes: Notes) {
        for note in notes {
            self.unset += u64::from(note.is_unset());
            let bytes = path.len() + note.to_string().len();
            if has_room(self.notes.len(), &mut self.named.notes, bytes) {
                self.notes.push((path.to_vec(), note));
            } else {
                self.notes_unnamed += 1;
            }
        }
    }

    const fn count(&mut self, bytes: u64) {
        self.files += 1;
        // A manifest may claim anything.
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Something was removed before by a restore that begins anew.
    fn goes_on_after(&mut self, before: Self) {
        (self.removed, self.removals) = (before.removed, before.removals);
    }

    fn remove(&mut self, path: &[u8]) {
        self.removals += 1;
        if has_room(self.removed.len(), &mut self.named.removed, path.len()) {
            self.removed.push(path.to_vec());
        }
    }
}

/// A restore that ended before its end.
#[derive(Debug)]
pub struct Stopped {
    /// What it did until then: what was removed is gone.
    pub done: Restored,
    /// Why it ended.
    pub error: Error,
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
) -> std::result::Result<Restored, Box<Stopped>> {
    repository.store.progress().enter(Phase::Opening);
    let mut done = Restored::default();
    let ended = repository.reading(&snapshot.name.domain, &mut |view| {
        with_view(repository, (snapshot, view), (target, options), &mut done)
    });
    match ended {
        Ok(()) => Ok(done),
        Err(error) => Err(Box::new(Stopped { done, error })),
    }
}

fn with_view(
    repository: &Repository,
    (snapshot, view): (&KnownSnapshot, &View),
    (target, options): (&Path, &RestoreOptions),
    done: &mut Restored,
) -> Result<()> {
    let domain = snapshot.name.domain;
    let progress = repository.store.progress();
    // Who may not read is told before anything is made.
    repository.chunk_keys(&domain)?;
    let mut nodes = NodeReader::new(repository, domain, &view.index)?;
    nodes.serve(snapshot.name.identity);
    let nodes = SameTree { nodes: &nodes, lost: Mutex::default() };
    let root = root_of(&nodes, snapshot, &options.subpath)?;
    let indexed = repository.clock.elapsed();
    if options.extra == Extra::Remove {
        existing::refuse_to_empty_everything(&snapshot.record.sources, &options.subpath, target)?;
    }
    let place = target;
    let before = Target::looks_of(place);
    let target = Target::create_or_open(place)?.with_zeros(options.zeros);
    progress.enter(Phase::Restoring);
    progress.expect(snapshot.record.statistics.files, snapshot.record.statistics.bytes);
    let never = Never::new(&options.never);
    let how = (options, &never, Removal::Remove);
    let job = Job::new(repository, (snapshot, view), (&target, root.strip), how)?;
    // What went with an index that was not whole is gone.
    job.done().goes_on_after(std::mem::take(done));
    job.note(&options.subpath, root.takes_over((&target, place), before, &options.ownership));
    if !target.take_part(&*repository.clock) && !target.was_empty() {
        let told = "no lock on the target could be had (another program has it, or the file system knows none): what \
            restores that were killed have left in it stays";
        job.note(&options.subpath, vec![Note::Told(told.into())]);
    }
    let pass = Pass { snapshot, nodes: &nodes, options };
    let ended = passes(&pass, &job, place);
    job.put_all_back();
    let ended = ended.and_then(|()| target.sync());
    let last_byte = repository.clock.elapsed();
    let first_byte = job.first_byte.get().copied().unwrap_or(last_byte);
    *done = job.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.has_unlisted = !view.unindexed.is_empty();
    done.moments = Moments { indexed, first_byte, last_byte };
    ended
}

fn passes(pass: &Pass<'_>, job: &Job<'_>, target: &Path) -> Result<()> {
    first_pass(pass, job)?;
    second_pass(pass, job)?;
    others::forgive(pass, job, target)
}

/// What the target stands for in a snapshot.
pub(super) struct Root {
    /// How many bytes of each path are above the target.
    pub(super) strip: usize,
    /// The folder that the target is to be, if one was asked for by its path.
    folder: Option<Metadata>,
}

impl Root {
    /// What is to be said of a target that was there with something in it, and is given the mode or the owner of the folder
    /// that was asked for: of `/tmp` nobody may mean that.
    fn takes_over(
        &self,
        (target, place): (&Target, &Path),
        before: Option<Looks>,
        ownership: &Ownership,
    ) -> Notes {
        let (Some(folder), Some(was)) = (&self.folder, before.filter(|_| !target.was_empty())) else {
            return Notes::new();
        };
        let (mode, place) = (folder.mode & 0o7777, place.display());
        // What cannot be given away is noted by itself.
        let owner = ownership.resolve(folder).filter(|to| rights::may_give((was.uid, was.gid), *to));
        let (uid, gid) = owner.unwrap_or((was.uid, was.gid));
        let Looks { mode: old, uid: old_uid, gid: old_gid } = was;
        let mut notes = Notes::new();
        // So a restore makes its target; one that was killed has left it so.
        let unless = if old == TARGET_MODE && old_uid == geteuid().as_raw() {
            ", unless a restore that was interrupted has made the folder"
        } else {
            ""
        };
        if mode != old {
            notes.push(Note::Told(format!(
                "the target {place} was there with mode {old:04o}, and is given {mode:04o}, the mode that this folder has in \
                 the snapshot: `chmod {old:04o}` gives it back{unless}"
            )));
        }
        if (uid, gid) != (old_uid, old_gid) {
            notes.push(Note::Told(format!(
                "the target {place} was there with owner {old_uid}:{old_gid}, and is given {uid}:{gid}, the owner that this \
                 folder has in the snapshot: `chown {old_uid}:{old_gid}` gives it back{unless}"
            )));
        }
        notes
    }
}

/// Finds what the target stands for.
///
/// # Errors
/// The snapshot does not hold it.
pub(super) fn root_of(nodes: &dyn NodeSource, snapshot: &KnownSnapshot, subpath: &[u8]) -> Result<Root> {
    if subpath.is_empty() {
        return Ok(Root { strip: 0, folder: None });
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
            Ok(Root { strip: subpath.len() + 1, folder: Some(entry.metadata) })
        }
        Some(entry) if entry.path == subpath => Ok(Root { strip: parent, folder: None }),
        // The folder's own entry is lost, what is in it is not.
        Some(entry) if is_below(&entry.path, subpath) => Ok(Root { strip: subpath.len() + 1, folder: None }),
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
        let mut sent = 0_u64;
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
    let mut links: Links<First> = Links::default();
    let mut birth_times = 0;
    pass.entries(&mut |entry| {
        job.repository.store.progress().check()?;
        let entry = match entry {
            Ok(entry) => entry,
            Err(gap) => return lost(job, gap),
        };
        if !pass.selects(&entry) {
            planner.passes(&entry);
            return Ok(());
        }
        if let Some(reason) = &entry.error {
            let error = Error::new(ErrorKind::Incomplete, format!("{UNREAD}: {reason}"));
            job.done().unread += 1;
            return job.failed(&entry.path, error);
        }
        birth_times += u64::from(entry.metadata.btime.is_some());
        if job.below(&entry.path).is_empty() {
            job.foretell_target(&entry);
            return Ok(());
        }
        let Some(group) = links.group(&entry) else { return planner.entry(entry, pass.nodes) };
        let (path, kept) = (entry.path.clone(), planner.tally.files_unchanged);
        let is_own = match links.meet((group, &entry), || First { path: path.clone(), is_new: false }) {
            None => planner.entry(entry, pass.nodes).map(|()| true)?,
            // The second pass links it; whoever only looks has no other.
            Some(_) if job.removal == Removal::Remove => false,
            Some(first) => planner.further((&first.path, first.is_new), entry, pass.nodes)?,
        };
        if is_own && job.removal == Removal::Tell {
            let is_new = !job.is_left(&path) && planner.tally.files_unchanged == kept;
            links.lead(&group, First { path, is_new });
        }
        Ok(())
    })?;
    planner.flush()?;
    job.done().birth_times = birth_times;
    Ok(planner.tally)
}

/// The first name of a file with several ones, to whoever plans.
#[derive(Clone)]
struct First {
    path: Vec<u8>,
    /// The restore would make another file of it: no name in the target is one of that.
    is_new: bool,
}

/// Whether the manifest has an entry at `path`, or may have one where a part of it is lost.
///
/// # Errors
/// The storage fails.
fn may_hold(nodes: &dyn NodeSource, root: BlobId, path: &[u8]) -> Result<bool> {
    match ManifestCursor::from(nodes, root, path).next_entry() {
        Ok(found) => Ok(found.is_some_and(|entry| entry.path == path)),
        Err(error) if error.is_damage() => Ok(true),
        Err(error) => Err(error),
    }
}

/// The entry at `path`; `None` if the manifest has none, or a part of it is lost there.
///
/// # Errors
/// The storage fails.
fn entry_at(nodes: &dyn NodeSource, root: BlobId, path: &[u8]) -> Result<Option<Entry>> {
    match ManifestCursor::from(nodes, root, path).next_entry() {
        Ok(found) => Ok(found.filter(|entry| entry.path == path)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_has_a_limit_by_its_number_and_by_its_bytes() {
        let long = vec![b'p'; 64 << 10];
        let mut done = Restored::default();
        for _ in 0..1000 {
            let said = String::from_utf8_lossy(&long).into_owned();
            done.fail(long.clone(), Error::new(ErrorKind::Failed, said.clone()));
            done.note(&long, vec![Note::Unset(said)]);
            done.remove(&long);
        }
        // Each sort has its own: what is noted never keeps back what failed.
        let named = [done.failed.len(), done.notes.len(), done.removed.len()];
        assert_eq!(named, [128, 128, 256]);
        assert_eq!((done.failures, done.notes_unnamed, done.unset, done.removals), (1000, 872, 1000, 1000));
        let mut done = Restored::default();
        for _ in 0..NAMED_MAX + 5 {
            done.fail(b"p".to_vec(), Error::new(ErrorKind::Damaged, "damaged"));
            done.note(b"p", vec![Note::socket()]);
            done.remove(b"p");
        }
        let named = [done.failed.len(), done.notes.len(), done.removed.len()];
        assert_eq!((named, done.notes_unnamed), ([NAMED_MAX; 3], 5));
    }
}
