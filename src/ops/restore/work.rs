//! What a worker does with a window: opens its frames, checks every chunk, writes the files.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use super::{
    Extra, RestoreOptions, Restored,
    bad::BadRanges,
    existing::{There, is_kept},
    forecast::read_only,
    plan::{Large, Piece, SharedFrame, Task, Window},
};
use crate::{
    compress::Decompressor,
    crypto::ChunkIdKey,
    error::{Error, ErrorKind, Result},
    filesystem::{
        metadata::{Note, Notes, Stays, foretell, foretell_owner_and_mode},
        old::{Found, Look},
        remove::{Never, Removal, Remover},
        restore::{Folder, Made, NewFile, Target},
        select::Selection,
    },
    format::{
        entry::{Entry, EntryKind, FREEZING_FLAGS},
        path::{is_within, join, split},
        snapshot::Snapshot,
    },
    id::{DomainId, IdentityId},
    repository::{
        Repository,
        index::{Index, Location},
        snapshots::KnownSnapshot,
        view::View,
    },
};

/// What all workers share.
pub(super) struct Job<'a> {
    pub(super) repository: &'a Repository,
    pub(super) domain: DomainId,
    /// Whose snapshot it is: copies that may serve this identity are read first.
    pub(super) reader: IdentityId,
    pub(super) index: &'a Index,
    pub(super) key: ChunkIdKey,
    pub(super) snapshot: &'a Snapshot,
    pub(super) target: &'a Target,
    pub(super) options: &'a RestoreOptions,
    /// Folders that stay, whatever the snapshot says.
    pub(super) never: &'a Never,
    /// Whether files are changed, or only looked at.
    pub(super) removal: Removal,
    /// Bytes of a path that are above the target.
    pub(super) strip: usize,
    pub(super) first_byte: OnceLock<Duration>,
    /// Something of the target can be written, if that was asked.
    can_write: OnceLock<bool>,
    pub(super) done: Mutex<Restored>,
    /// Names of files with several names that could not be restored whole: nothing is linked to them. And folders that could not
    /// be made.
    pub(super) broken: Mutex<HashSet<Vec<u8>>>,
    /// Such names in whose place something was that was not to be overwritten: it may be that file, or another one.
    pub(super) left: Mutex<HashSet<Vec<u8>>>,
    /// Folders in whose place something else stands that stays: nothing is restored into them.
    pub(super) blocked: Mutex<HashSet<Vec<u8>>>,
    /// Folders that the user may not look into.
    pub(super) hidden: Mutex<HashSet<Vec<u8>>>,
    /// What was opened up or thawed, and what it was like: that it is again if its entry is not done in the end.
    pub(super) changed: Mutex<HashMap<Vec<u8>, Found>>,
}

/// Frames that a worker keeps open while it looks for copies that are good.
const TRIED_FRAMES: usize = 4;

/// A frame that was tried, and its plaintext if that is good.
type Tried = (Arc<SharedFrame>, Option<Opened>);
/// The plaintext of a frame.
type Opened = Arc<Vec<u8>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread's part.
pub(super) struct Worker<'a> {
    job: &'a Job<'a>,
    decompressor: Decompressor,
    /// The folder of the last file: the next one is usually in it too.
    folder: Option<(Vec<u8>, Folder)>,
    /// The frames that were tried last for chunks that are damaged elsewhere.
    tried: VecDeque<Tried>,
}

/// What a window has of a task: its bytes, and the ranges that are not good.
struct Part<'a> {
    bytes: Cow<'a, [u8]>,
    bad: BadRanges,
}

/// What is collected of a task whose bytes come in several pieces.
struct Collected {
    length: usize,
    /// Of that length, once something of it has come.
    bytes: Vec<u8>,
    bad: BadRanges,
}

impl Collected {
    fn new(length: usize) -> Self {
        Self { length, bytes: Vec::new(), bad: BadRanges::default() }
    }

    fn place(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes.resize(self.length, 0);
        if let Some(to) = self.bytes.get_mut(offset..offset + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }

    /// What has not come is zeros.
    fn into_part(mut self) -> Part<'static> {
        self.bytes.resize(self.length, 0);
        Part { bytes: self.bytes.into(), bad: self.bad }
    }
}

impl<'a> Job<'a> {
    /// What a restore of a snapshot into a target, or a look at one, begins with.
    ///
    /// # Errors
    /// The role may not read.
    pub(super) fn new(
        repository: &'a Repository,
        (snapshot, view): (&'a KnownSnapshot, &'a View),
        (target, strip): (&'a Target, usize),
        (options, never, removal): (&'a RestoreOptions, &'a Never, Removal),
    ) -> Result<Self> {
        let domain = snapshot.name.domain;
        Ok(Self {
            repository,
            domain,
            reader: snapshot.name.identity,
            index: &view.index,
            key: repository.chunk_keys(&domain)?.id,
            snapshot: &snapshot.record,
            target,
            options,
            never,
            removal,
            strip,
            first_byte: OnceLock::new(),
            can_write: OnceLock::new(),
            done: Mutex::default(),
            broken: Mutex::default(),
            left: Mutex::default(),
            blocked: Mutex::default(),
            hidden: Mutex::default(),
            changed: Mutex::default(),
        })
    }
}

impl Job<'_> {
    /// Notes that an entry is not as it was. Trouble that the next entry would meet too ends the restore.
    pub(super) fn failed(&self, path: &[u8], error: Error) -> Result<()> {
        use ErrorKind::{CannotUnlock, Forbidden, Interrupted, Temporary};
        if matches!(error.kind(), Temporary | Interrupted | Forbidden | CannotUnlock)
            || self.is_of_all(&error)
        {
            return Err(error);
        }
        self.repository.store.progress().trouble();
        lock(&self.done).fail(path.to_vec(), error);
        Ok(())
    }

    /// Whether every other entry would meet the same trouble. A mount in the target that is read-only is trouble of what is
    /// on it.
    pub(super) fn is_of_all(&self, error: &Error) -> bool {
        error.is_of_the_whole_system() && !(error.is_read_only() && self.can_write())
    }

    /// Whether something of the target can be written: not all of it is mounted read-only. It is asked once.
    pub(super) fn can_write(&self) -> bool {
        *self.can_write.get_or_init(|| read_only(self).is_empty())
    }

    /// As [`Self::failed`]; remembers that nothing can be linked to the entry.
    pub(super) fn entry_failed(&self, entry: &Entry, error: Error) -> Result<()> {
        if entry.metadata.links > 1 || entry.metadata.kind == EntryKind::Directory {
            lock(&self.broken).insert(entry.path.clone());
        }
        self.put_back(&entry.path);
        self.failed(&entry.path, error)
    }

    /// What is there for an entry is opened up or thawed; in a plan only a folder that would be thawed.
    pub(super) fn changes(&self, path: &[u8], found: &Found) {
        lock(&self.changed).entry(path.to_vec()).or_insert(*found);
    }

    /// Makes what is there for an entry that failed as it was.
    pub(super) fn put_back(&self, path: &[u8]) {
        if self.removal == Removal::Tell {
            return;
        }
        let Some(found) = lock(&self.changed).remove(path) else { return };
        if let Err(error) = Look::new(self.target).put_back(self.below(path), &found) {
            self.note(path, vec![Note::Unset(error.to_string())]);
        }
    }

    /// Whether a plan would have a folder thawed by whoever may, given by its path below the target. For a restore that is done:
    /// what is frozen by now stays so.
    pub(super) fn thaws(&self, folder: &[u8]) -> bool {
        self.removal == Removal::Tell
            && (folder.is_empty() || lock(&self.changed).contains_key(&self.path_of(folder)))
    }

    /// Makes all as it was that was opened up or thawed and is not done: the restore ended early, or something that stays
    /// stands in its place. A folder comes after what is in it, since nobody may reach that once it is closed.
    pub(super) fn put_all_back(&self) {
        let mut paths: Vec<Vec<u8>> = lock(&self.changed).keys().cloned().collect();
        paths.sort_unstable_by(|one, other| other.cmp(one));
        paths.iter().for_each(|path| self.put_back(path));
    }

    /// An entry is as it is to be.
    pub(super) fn is_done(&self, path: &[u8]) {
        let mut changed = lock(&self.changed);
        // Usually nothing is in it.
        if !changed.is_empty() {
            changed.remove(path);
        }
    }

    /// What has the name of an entry stays there.
    pub(super) fn left(&self, entry: &Entry) {
        if entry.metadata.links > 1 {
            lock(&self.left).insert(entry.path.clone());
        }
        self.done().left += 1;
    }

    /// Something stands in the place of a folder, and stays.
    pub(super) fn block(&self, folder: &[u8]) {
        lock(&self.blocked).insert(folder.to_vec());
    }

    /// Whether something stands in the place of the folder, or of one that it is in.
    pub(super) fn is_blocked(&self, path: &[u8]) -> bool {
        is_within(path, &lock(&self.blocked))
    }

    /// The user may not look into a folder of theirs. A restore opens it up; whoever only tells what it would do says so.
    pub(super) fn hide(&self, folder: &[u8]) {
        lock(&self.hidden).insert(folder.to_vec());
        self.note(folder, vec![self.unseen()]);
    }

    /// What is to be said of a folder that the user may not look into.
    pub(super) fn unseen(&self) -> Note {
        let told = "it is closed to you, so that nobody looks into it before: what the snapshot has of it counts as missing";
        let gone = if self.clears() { ", and what --delete would remove from it is not told" } else { "" };
        Note::Told(format!("{told}{gone}"))
    }

    /// Whether nobody looks there before it is restored.
    pub(super) fn is_hidden(&self, path: &[u8]) -> bool {
        is_within(path, &lock(&self.hidden))
    }

    /// Whether something may be there that nobody sees, and that stays by the policy: it is not known what would come of it.
    pub(super) fn may_stay_unseen(&self, path: &[u8]) -> bool {
        self.options.overwrite.keeps_some() && self.is_hidden(path)
    }

    /// Says what is known before of what a restore of the entry would note; what is there stays, if anything is given.
    pub(super) fn foretell(&self, entry: &Entry, there: Option<&Found>) {
        if self.removal == Removal::Remove || there.is_none() && self.may_stay_unseen(&entry.path) {
            return;
        }
        let stays = there.map(|found| self.stays(entry, found));
        let (metadata, ownership) = (&entry.metadata, &self.options.ownership);
        let notes = if self.snapshot.leads_only(&entry.path) {
            let told = |note: Note| Note::Told(note.to_string());
            foretell_owner_and_mode(metadata, ownership, stays).into_iter().map(told).collect()
        } else {
            foretell(metadata, ownership, stays)
        };
        self.note(&entry.path, notes);
    }

    /// What has the name of an entry and stays.
    pub(super) fn stays<'s>(&'s self, entry: &'s Entry, found: &'s Found) -> Stays<'s> {
        Stays { target: self.target, path: self.below(&entry.path), found }
    }

    /// As [`Self::foretell`], of the entry that becomes the target itself. Where nothing can be written that is all there is
    /// to say.
    pub(super) fn foretell_target(&self, entry: &Entry) {
        if self.removal == Removal::Tell
            && !(self.target.was_empty() && self.target.denied_itself().is_some())
        {
            self.foretell(entry, self.target.found().as_ref());
        }
    }

    /// Removes what is at `path` in the snapshot's tree with everything in it, or tells what would go; whether all of
    /// it goes.
    pub(super) fn remove(&self, path: &[u8]) -> Result<bool> {
        self.remove_by(&self.remover(), path)
    }

    /// As [`Self::remove`], of what gives way to a folder: something else may be chosen, and what is frozen is thawed first.
    pub(super) fn remove_for_folder(&self, path: &[u8], selection: &Selection) -> Result<bool> {
        self.remove_by(&Remover { selection, thaws: true, ..self.remover() }, path)
    }

    fn remove_by(&self, remover: &Remover<'_>, path: &[u8]) -> Result<bool> {
        // Without --delete what only gives way is not counted.
        remover.remove(path, &mut |path| {
            if self.clears() {
                self.done().remove(path)
            }
        })
    }

    /// Gives what is whole its name, after a folder that has it has gone. That is emptied where it is, by the path by which
    /// everything in it is chosen: nothing is ever judged by a name that it only has for a moment.
    fn put(&self, made: Made<'_>, entry: &Entry, there: There) -> Result<Notes> {
        if matches!(there, There::Folder) {
            made.sync()?;
            let what = "the folder in its place cannot go";
            if !self.remove(&entry.path).map_err(|error| error.context(what))? {
                // It was all to go when the restore came to it.
                return Err(is_kept(String::from_utf8_lossy(self.below(&entry.path))));
            }
        }
        match there.gives_way().filter(|_| self.options.overwrite.keeps_some()) {
            // It was judged before anything was read, which may be long ago.
            Some(found) => made.place_over(found),
            None if matches!(there, There::Nothing) => made.place_new(),
            None => made.place(),
        }
    }

    /// Gives the file at `first` the name of `entry` too.
    pub(super) fn link(&self, first: &[u8], entry: &Entry, there: There) -> Result<()> {
        let made = self.target.hard_link(self.below(first), self.below(&entry.path))?;
        self.put(made, entry, there)?;
        self.is_done(&entry.path);
        self.count_name(entry, false);
        Ok(())
    }

    /// A further name of a file counts as a file, as it does in a backup; it may have been there.
    pub(super) fn count_name(&self, entry: &Entry, was_there: bool) {
        if entry.metadata.kind != EntryKind::File {
            return;
        }
        let size = entry.metadata.size;
        self.repository.store.progress().add(1, size);
        let mut done = self.done();
        done.count(size);
        if was_there {
            done.files_unchanged += 1;
            done.bytes_unchanged = done.bytes_unchanged.saturating_add(size);
        }
    }

    /// Notes how the restore of an entry ended.
    fn end(&self, entry: &Entry, restored: Result<Notes>) -> Result<()> {
        match restored {
            Ok(notes) => {
                // A folder is when everything in it is.
                if entry.metadata.kind != EntryKind::Directory {
                    self.is_done(&entry.path);
                }
                self.note(&entry.path, notes);
            }
            Err(error) => self.entry_failed(entry, error)?,
        }
        Ok(())
    }

    pub(super) fn done(&self) -> MutexGuard<'_, Restored> {
        lock(&self.done)
    }

    /// Whether what the snapshot does not have is removed.
    pub(super) fn clears(&self) -> bool {
        self.options.extra == Extra::Remove
    }

    pub(super) fn remover(&self) -> Remover<'_> {
        let Self { target, strip, never, removal, options, .. } = self;
        let RestoreOptions { selection, left_out, .. } = options;
        let progress = self.repository.store.progress();
        let (strip, removal, thaws) = (*strip, *removal, false);
        Remover { target, strip, selection, left_out, never, removal, thaws, progress }
    }

    /// Whether a folder that is immutable or append-only is thawed, so that something can be restored into it: the restore
    /// sets its flags at its end.
    pub(super) fn may_thaw(&self, entry: &Entry) -> bool {
        entry.metadata.kind == EntryKind::Directory
            && entry.error.is_none()
            && !self.snapshot.leads_only(&entry.path)
    }

    pub(super) fn is_broken(&self, path: &[u8]) -> bool {
        lock(&self.broken).contains(path)
    }

    /// Whether what has the name of a file with several was left alone.
    pub(super) fn is_left(&self, path: &[u8]) -> bool {
        lock(&self.left).contains(path)
    }

    /// Whether such a name stands for the file of the snapshot.
    pub(super) fn is_restored(&self, path: &[u8]) -> bool {
        !self.is_broken(path) && !self.is_left(path)
    }

    pub(super) fn note(&self, path: &[u8], notes: Notes) {
        if !notes.is_empty() {
            lock(&self.done).note(path, notes);
        }
    }

    /// Bytes of a file are about to be written.
    fn bytes_come(&self) {
        self.first_byte.get_or_init(|| self.repository.clock.elapsed());
    }

    /// The path in the snapshot of what is at `below` in the target.
    pub(super) fn path_of(&self, below: &[u8]) -> Vec<u8> {
        let above = self.options.subpath.get(..self.strip.saturating_sub(1));
        join(above.unwrap_or(&self.options.subpath), below)
    }

    /// The path below the target.
    pub(super) fn below<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        path.get(self.strip..).unwrap_or_default()
    }
}

impl<'a> Worker<'a> {
    pub(super) fn new(job: &'a Job<'a>) -> Result<Self> {
        Ok(Self { job, decompressor: Decompressor::new()?, folder: None, tried: VecDeque::new() })
    }

    /// Restores everything of a window. What lies in one piece is written from the frame that holds it; the rest is
    /// collected and written at the end.
    pub(super) fn window(&mut self, window: Window) -> Result<()> {
        let Window { tasks, lengths, frames, lost, local, .. } = window;
        let mut tasks: Vec<Option<Task>> = tasks.into_iter().map(Some).collect();
        let mut parts: Vec<Collected> = lengths.into_iter().map(Collected::new).collect();
        for (task, offset, bytes) in local {
            place(&mut parts, (task, offset), &bytes);
        }
        for needed in frames {
            self.job.repository.store.progress().check()?;
            let opened = self.open(&needed.frame)?;
            for (range, piece) in needed.pieces {
                let good = opened.as_ref().and_then(|plain| plain.get(range.clone()));
                let Some(bytes) = good.filter(|bytes| self.job.key.id(bytes) == piece.chunk.id) else {
                    self.elsewhere(&mut parts, piece)?;
                    continue;
                };
                let is_all = parts.get(piece.task).is_some_and(|part| part.length == bytes.len());
                match tasks.get_mut(piece.task).and_then(|task| task.take_if(|_| is_all)) {
                    Some(task) => {
                        let part = Part { bytes: bytes.into(), bad: BadRanges::default() };
                        self.task(task, &part)?;
                    }
                    None => place(&mut parts, (piece.task, piece.offset), bytes),
                }
            }
        }
        for piece in lost {
            self.elsewhere(&mut parts, piece)?;
        }
        for (task, part) in tasks.into_iter().zip(parts) {
            if let Some(task) = task {
                self.task(task, &part.into_part())?;
            }
        }
        Ok(())
    }

    /// The plaintext of a frame; `None` when it is damaged or not there. Then it is read once more by whoever
    /// looks for copies: a bit may have flipped on the way.
    fn open(&mut self, shared: &SharedFrame) -> Result<Option<Opened>> {
        let Job { repository, domain, .. } = self.job;
        let frame = (&shared.found.frame, &shared.found.section);
        shared.plain(&mut |sealed| repository.open_frame(domain, frame, sealed, &mut self.decompressor))
    }

    fn keep(&mut self, tried: Tried) {
        if self.tried.len() >= TRIED_FRAMES {
            self.tried.pop_front();
        }
        self.tried.push_back(tried);
    }

    /// Tries every copy of a chunk; what has none that is good is a gap.
    fn elsewhere(&mut self, parts: &mut [Collected], piece: Piece) -> Result<()> {
        let Job { repository, index, key, reader, .. } = self.job;
        for at in repository.copies(index, &piece.chunk.id, Some(*reader)) {
            let Some((frame, plain)) = self.copy(at)? else { continue };
            let bytes = frame.range(at).and_then(|range| plain.get(range));
            if let Some(bytes) = bytes.filter(|bytes| key.id(bytes) == piece.chunk.id) {
                place(parts, (piece.task, piece.offset), bytes);
                return Ok(());
            }
        }
        index.vouch()?;
        if let Some(part) = parts.get_mut(piece.task) {
            let start = piece.offset as u64;
            part.bad.add(start..start + u64::from(piece.chunk.length));
        }
        Ok(())
    }

    /// The frame of a copy and its plaintext, read once for the chunks that follow each other in it.
    fn copy(&mut self, at: Location) -> Result<Option<(Arc<SharedFrame>, Opened)>> {
        let whole = |(frame, plain): &Tried| Some((Arc::clone(frame), Arc::clone(plain.as_ref()?)));
        if let Some(tried) = self.tried.iter().find(|(frame, _)| frame.key() == at.frame()) {
            return Ok(whole(tried));
        }
        let Job { repository, domain, index, .. } = self.job;
        let Some(found) = index.found(at) else { return Ok(None) };
        let name = repository.pack_name(domain, &found.pack);
        let read = repository.store.read_range(&name, found.frame.range());
        let opened = read.and_then(|sealed| {
            let frame = (&found.frame, &found.section);
            repository.open_frame(domain, frame, &sealed, &mut self.decompressor)
        });
        let plain = match opened {
            Ok(plain) => Some(Arc::new(plain)),
            Err(error) if error.is_damage() => None,
            Err(error) => return Err(error),
        };
        let tried = (Arc::new(SharedFrame::new(at, found)), plain);
        let copy = whole(&tried);
        self.keep(tried);
        Ok(copy)
    }

    fn task(&mut self, task: Task, part: &Part<'_>) -> Result<()> {
        match task {
            Task::Whole(entry, there) => {
                let restored = self.whole(&entry, there, part);
                self.job.end(&entry, restored)?;
            }
            Task::Part(large, offset) => {
                self.part(&large, offset, part)?;
                self.end(&large)?;
            }
            Task::End(large) => self.end(&large)?,
            Task::Keep(entry, found) => self.job.end(&entry, self.kept(&entry, &found))?,
        }
        Ok(())
    }

    /// A file stays, and gets the metadata that it is to have.
    fn kept(&self, entry: &Entry, found: &Found) -> Result<Notes> {
        let Job { target, options: RestoreOptions { ownership, .. }, repository, .. } = self.job;
        let (path, metadata) = (self.job.below(&entry.path), &entry.metadata);
        repository.store.progress().add(1, 0);
        // One that has other names, or is mounted there, is only kept if nothing is to be set.
        let notes = if found.may_become(metadata, ownership) {
            target.keep_file(found, path, metadata, ownership)?
        } else if !found.is_mount() && found.freezing() != metadata.flags & FREEZING_FLAGS {
            // This process may not change that: so the system says what could not be set.
            target.freeze(found, path, metadata)?
        } else {
            Notes::new()
        };
        let mut done = self.job.done();
        done.count(metadata.size);
        done.files_unchanged += 1;
        done.bytes_unchanged = done.bytes_unchanged.saturating_add(metadata.size);
        Ok(notes)
    }

    fn whole(&mut self, entry: &Entry, there: There, part: &Part<'_>) -> Result<Notes> {
        let Job { target, options: RestoreOptions { ownership, .. }, repository, .. } = self.job;
        let (path, metadata) = (self.job.below(&entry.path), &entry.metadata);
        repository.store.progress().at(&entry.path);
        let made = match metadata.kind {
            EntryKind::Directory => return target.directory(path).map(|_| Notes::new()),
            EntryKind::Socket => return Ok(vec![Note::socket()]),
            EntryKind::Symlink => target.symlink(path, metadata, ownership)?,
            EntryKind::Fifo | EntryKind::CharacterDevice | EntryKind::BlockDevice => {
                target.special(path, metadata, ownership)?
            }
            EntryKind::File => {
                let file = self.new_file(entry, false)?;
                self.job.bytes_come();
                file.write_at(0, &part.bytes)?;
                let mut bad = BadRanges::default();
                bad.add_all(&part.bad, 0);
                let length = part.bytes.len() as u64;
                let whole = metadata.content_bytes();
                if length < whole {
                    bad.add(length..whole);
                }
                return self.finish((entry, there), file, bad);
            }
        };
        self.job.put(made, entry, there)
    }

    /// Begins a file; if it `lasts`, one that the next restore goes on with.
    fn new_file(&mut self, entry: &Entry, lasts: bool) -> Result<NewFile> {
        let path = self.job.below(&entry.path);
        let (folder, name) = split(path);
        let target = self.job.target;
        let dir = match &self.folder {
            Some((known, dir)) if known == folder => Arc::clone(dir),
            _ => {
                let dir = target.directory(folder)?;
                self.folder = Some((folder.to_vec(), Arc::clone(&dir)));
                dir
            }
        };
        let make = if lasts { Target::new_large_file } else { Target::new_file };
        Ok(make(target, &dir, name, entry.metadata.size)?.shaped(&entry.metadata))
    }

    /// Gives a file its name, or the name of a damaged one.
    fn finish(&self, (entry, there): (&Entry, There), file: NewFile, bad: BadRanges) -> Result<Notes> {
        let progress = self.job.repository.store.progress();
        let (size, content) = (entry.metadata.size, entry.metadata.content_bytes());
        // What is in no hole was counted when it was written, if the file was large.
        progress.add(1, if Window::is_small(content) { size } else { size - content });
        if bad.is_empty() {
            let made = file.finish(&entry.metadata, &self.job.options.ownership)?;
            let notes = self.job.put(made, entry, there)?;
            lock(&self.job.done).count(entry.metadata.size);
            return Ok(notes);
        }
        let named = file.finish_damaged(&bad.in_order())?;
        let named = String::from_utf8_lossy(&named);
        // A large one was changed where it is.
        let is_gone =
            there.file().is_some() && Look::new(self.job.target).at(self.job.below(&entry.path))?.is_none();
        let gone = if is_gone { "; the file that had its place has become that, and is gone" } else { "" };
        Err(Error::new(ErrorKind::Damaged, format!("it is damaged: what is good of it is in {named}{gone}")))
    }

    fn part(&mut self, large: &Arc<Large>, offset: u64, part: &Part<'_>) -> Result<()> {
        let mut slot = lock(&large.file);
        let file = match &*slot {
            Some(Ok(file)) => Arc::clone(file),
            // It could not be made; who finishes it says so.
            Some(Err(_)) => return Ok(()),
            None => match self.new_file(&large.entry, large.lasts) {
                Ok(file) => {
                    let file = Arc::new(file);
                    *slot = Some(Ok(Arc::clone(&file)));
                    file
                }
                Err(error) => {
                    *slot = Some(Err(give_up(self.job, large, error)?));
                    return Ok(());
                }
            },
        };
        drop(slot);
        self.job.repository.store.progress().at(&large.entry.path);
        self.job.bytes_come();
        match file.write_at(offset, &part.bytes) {
            Ok(()) => lock(&large.bad).add_all(&part.bad, offset),
            Err(error) => *lock(&large.file) = Some(Err(give_up(self.job, large, error)?)),
        }
        self.job.repository.store.progress().add(0, part.bytes.len() as u64);
        Ok(())
    }

    fn end(&mut self, large: &Arc<Large>) -> Result<()> {
        if !large.part_is_done() {
            return Ok(());
        }
        let file = match lock(&large.file).take() {
            Some(Ok(file)) => Arc::try_unwrap(file).map_err(|_shared| busy(&large.entry.path)),
            Some(Err(error)) => Err(error),
            None => self.new_file(&large.entry, large.lasts),
        };
        let bad = std::mem::take(&mut *lock(&large.bad));
        let restored = file.and_then(|file| self.finish((&large.entry, large.there), file, bad));
        self.job.end(&large.entry, restored)
    }
}

/// The rest of a large file that cannot be written need not be read; a full disk ends the restore at once.
pub(super) fn give_up(job: &Job<'_>, large: &Large, error: Error) -> Result<Error> {
    give_up_unless(job.is_of_all(&error), large, error)
}

fn give_up_unless(is_of_all: bool, large: &Large, error: Error) -> Result<Error> {
    if is_of_all {
        return Err(error);
    }
    large.give_up();
    Ok(error)
}

fn busy(path: &[u8]) -> Error {
    Error::new(ErrorKind::Failed, format!("{} is still being written", String::from_utf8_lossy(path)))
}

fn place(parts: &mut [Collected], (task, offset): (usize, usize), bytes: &[u8]) {
    if let Some(part) = parts.get_mut(task) {
        part.place(offset, bytes);
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::format::entry::{Content, Metadata};

    #[test]
    fn a_full_disk_ends_the_restore_at_once_and_other_trouble_only_the_file() {
        let metadata = Metadata {
            mtime: Default::default(),
            ctime: Default::default(),
            size: 1 << 40,
            ..Metadata::of(EntryKind::File)
        };
        let content = Content::Inline(Vec::new());
        let entry =
            Entry { path: b"large".to_vec(), metadata, content, changed_while_read: false, error: None };
        let large = Large::new(entry, There::Nothing, true);
        let error = |errno: Errno| Error::new(ErrorKind::Failed, "write").with_source(errno);
        let give_up = |errno| {
            let error = error(errno);
            give_up_unless(error.is_of_the_whole_system(), &large, error)
        };
        assert!(give_up(Errno::NOSPC).is_err() && !large.is_given_up());
        assert!(give_up(Errno::FBIG).is_ok() && large.is_given_up());
    }
}
