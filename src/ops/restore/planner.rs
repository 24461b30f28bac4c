//! Turns entries into windows: what is there already is compared, what is missing is asked for.

use std::sync::{Arc, PoisonError};

use super::{
    denied::Written,
    existing::{Basis, Existing, Fate, Further, Same, There, alone, mounted, unlinked},
    may_hold,
    plan::{Large, Recent, Task, Window},
    work::{Job, give_up},
};
use crate::{
    error::{Error, ErrorKind, Result},
    filesystem::{
        metadata::foretell_freezing,
        old::{Found, Rewritable},
        partial,
        remove::Removal,
        restore::Target,
    },
    format::{
        entry::{ChunkRef, Content, Entry, EntryKind},
        path::{join, split},
    },
    repository::manifest::{NodeSource, for_each_chunk},
};

/// What most file systems give to a file at once, in bytes.
const BLOCK_BYTES: u64 = 4096;
/// What a name takes in its folder beside its own bytes: a number, lengths, and what rounds it up.
const NAME_BYTES: u64 = 16;
/// A link to no more bytes lies in its inode.
const SHORT_LINK_BYTES: usize = 59;

/// What a restore has to do, as its planner sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Files, and the bytes in them.
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Of these what is there already.
    pub(super) files_unchanged: u64,
    pub(super) bytes_unchanged: u64,
    /// Bytes that files grow by.
    growth: u64,
    /// Bytes of the largest file that is made while an older one has its name.
    double: u64,
    /// Bytes that new names take in their folders.
    names: u64,
}

impl Tally {
    /// Bytes that the target needs: until a new file is whole the one that it replaces stays, and each worker may be at
    /// another one.
    pub(super) fn room(&self, workers: usize) -> u64 {
        let workers = u64::try_from(workers).unwrap_or(u64::MAX).max(1);
        let names = self.names.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
        self.growth.saturating_add(self.double.saturating_mul(workers)).saturating_add(names)
    }

    /// Something gets a name that nothing has.
    fn name(&mut self, entry: &Entry) {
        let length = split(&entry.path).1.len() as u64;
        // Folders are half full at least.
        self.names = self.names.saturating_add(2 * (length + NAME_BYTES));
        let own = match entry.metadata.kind {
            EntryKind::Directory => true,
            EntryKind::Symlink => {
                entry.metadata.links < 2 && entry.metadata.link_target.len() > SHORT_LINK_BYTES
            }
            _ => false,
        };
        if own {
            self.growth = self.growth.saturating_add(BLOCK_BYTES);
        }
    }

    fn count(&mut self, size: u64, unchanged: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        self.bytes_unchanged = self.bytes_unchanged.saturating_add(unchanged);
    }

    /// A file of so many bytes that are in no hole is written over what has so many already, or takes the place of what
    /// gives so many back then.
    fn grow(&mut self, content: u64, old: u64, in_place: bool) {
        let blocks = content.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
        self.growth = self.growth.saturating_add(blocks.saturating_sub(old));
        if !in_place {
            self.double = self.double.max(blocks.min(old));
        }
    }
}

pub(super) struct Planner<'a, 'b> {
    job: &'a Job<'a>,
    existing: Option<Existing<'a>>,
    window: Window,
    recent: Recent,
    pub(super) tally: Tally,
    /// What is in the place of entries where nobody looks.
    unseen: There,
    written: Written,
    send: &'b mut dyn FnMut(Window) -> Result<()>,
}

/// How far the planner is in a large file.
struct InLarge {
    large: Arc<Large>,
    basis: Basis,
    /// Bytes of its content, and where in it the next chunk begins: what is in holes does not count.
    content: u64,
    offset: u64,
    /// The last task is a part of it that ends here.
    open: bool,
}

impl<'a, 'b> Planner<'a, 'b> {
    pub(super) fn new(job: &'a Job<'a>, send: &'b mut dyn FnMut(Window) -> Result<()>) -> Self {
        let (window, recent, tally) = (Window::default(), Recent::default(), Tally::default());
        Self {
            job,
            existing: Existing::new(job),
            window,
            recent,
            tally,
            unseen: There::Nothing,
            written: Written::default(),
            send,
        }
    }

    /// What another pass has made may be there already, and gives way.
    pub(super) const fn again(mut self) -> Self {
        self.unseen = There::Other(None);
        self
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        if self.window.is_empty() { Ok(()) } else { (self.send)(std::mem::take(&mut self.window)) }
    }

    /// What a plan says of an entry that cannot be written.
    fn check_may_write(&mut self, entry: &Entry, there: There) -> Result<()> {
        // Of a target in which nothing was it is asked once.
        if self.existing.is_some() { self.written.check(self.job, entry, there) } else { Ok(()) }
    }

    fn flush_if_full(&mut self) -> Result<()> {
        if self.window.is_full() { self.flush() } else { Ok(()) }
    }

    /// Comes past a folder that is not meant itself.
    pub(super) fn passes(&mut self, entry: &Entry) {
        self.existing.iter_mut().for_each(|existing| existing.passes(entry));
    }

    /// Plans what becomes of the next entry.
    pub(super) fn entry(&mut self, mut entry: Entry, nodes: &dyn NodeSource) -> Result<()> {
        let fate = self
            .existing
            .as_mut()
            .map_or(Ok(Fate::Restore(self.unseen)), |existing| existing.fate(&entry, nodes));
        let there = match fate {
            Ok(Fate::Restore(there)) => {
                if matches!(there, There::Nothing) {
                    self.tally.name(&entry);
                }
                there
            }
            Ok(Fate::Enter(found)) => {
                self.job.foretell(&entry, Some(&found));
                self.window.add_task(Task::Whole(Box::new(entry), There::Nothing));
                return self.flush_if_full();
            }
            Ok(Fate::Keep(found)) => {
                self.job.repository.store.progress().add(0, entry.metadata.size);
                self.tell_left_over(&entry, nodes)?;
                return self.keep(entry, found);
            }
            Ok(Fate::Stay) => {
                self.job.is_done(&entry.path);
                return Ok(());
            }
            Ok(Fate::Leave) => {
                self.job.left(&entry);
                return self.tell_left_over(&entry, nodes);
            }
            Err(error) => return self.job.entry_failed(&entry, error),
        };
        if self.job.removal == Removal::Tell
            && !self.job.may_stay_unseen(&entry.path)
            && let Err(error) = Target::may_make(self.job.below(&entry.path), &entry.metadata)
        {
            return self.job.entry_failed(&entry, error);
        }
        if let Some(found) = there.file().filter(|found| found.is_mount()) {
            return self.mounted(entry, *found, nodes);
        }
        let content = std::mem::replace(&mut entry.content, Content::Inline(Vec::new()));
        match content {
            Content::Inline(chunks) if Window::holds(entry.metadata.content_bytes(), &chunks) => {
                self.small(entry, &chunks, there)
            }
            content => self.large(entry, &content, nodes, there),
        }
    }

    /// Names what an earlier run has left of a large file of which nothing is written.
    fn tell_left_over(&mut self, entry: &Entry, nodes: &dyn NodeSource) -> Result<()> {
        let Some(existing) =
            self.existing.as_mut().filter(|_| !Window::is_small(entry.metadata.content_bytes()))
        else {
            return Ok(());
        };
        match unfinished_path(&entry.path) {
            Ok(unfinished) if !may_hold(nodes, self.job.snapshot.root, &unfinished)? => {
                existing.tell_left_over(entry)
            }
            _ => Ok(()),
        }
    }

    /// Says what would become of a further name of the file at `first`, which may be another one by then; whether it would be a file of its own.
    pub(super) fn further(
        &mut self,
        (first, is_new): (&[u8], bool),
        entry: Entry,
        nodes: &dyn NodeSource,
    ) -> Result<bool> {
        if self.job.is_broken(first) {
            return self.entry(entry, nodes).map(|()| true);
        }
        let new = Ok(Further::GivesWay(There::Nothing));
        let further = self
            .existing
            .as_mut()
            .map_or(new, |existing| existing.further((first, is_new), &entry, nodes))?;
        let unchanged = match further {
            Further::Left => return Ok(false),
            Further::Alone => {
                self.job.note(&entry.path, vec![alone(first)]);
                return self.entry(entry, nodes).map(|()| true);
            }
            Further::Linked => entry.metadata.size,
            Further::GivesWay(there) => {
                if let Err(error) = self.check_may_write(&entry, there) {
                    return self.job.entry_failed(&entry, error).map(|()| false);
                }
                let is_seen = !is_new && !self.job.is_hidden(first);
                if is_seen && let Err(error) = self.job.target.may_link(self.job.below(first)) {
                    self.job.note(&entry.path, vec![unlinked(&error)]);
                    return self.entry(entry, nodes).map(|()| true);
                }
                if matches!(there, There::Nothing) {
                    self.tally.name(&entry);
                }
                0
            }
        };
        if entry.metadata.kind == EntryKind::File {
            self.tally.count(entry.metadata.size, unchanged);
            self.tally.files_unchanged += u64::from(matches!(further, Further::Linked));
        }
        Ok(false)
    }

    /// A file that is there already, and whole.
    fn keep(&mut self, entry: Entry, found: Found) -> Result<()> {
        // One that has other names, or is mounted there, is only kept if nothing is to be set.
        if found.may_become(&entry.metadata, &self.job.options.ownership) {
            self.job.foretell(&entry, Some(&found));
        } else if self.job.removal == Removal::Tell && !found.is_mount() {
            let stays = self.job.stays(&entry, &found);
            self.job.note(&entry.path, foretell_freezing(&entry.metadata, Some(stays)));
        }
        self.tally.files_unchanged += 1;
        self.tally.count(entry.metadata.size, entry.metadata.size);
        self.window.add_task(Task::Keep(Box::new(entry), found));
        self.flush_if_full()
    }

    /// Something is mounted on a file: that is right if it is the file of the snapshot.
    fn mounted(&mut self, entry: Entry, found: Found, nodes: &dyn NodeSource) -> Result<()> {
        if entry.metadata.only_holds_a_place() {
            // The snapshot has nothing of what is mounted there.
            self.job.left(&entry);
            return Ok(());
        }
        let is_whole = match &mut self.existing {
            Some(existing) => {
                !found.freezes_elsewhere(&entry.metadata) && existing.is_whole(&entry, &found, nodes)?
            }
            None => false,
        };
        if !is_whole {
            return self.job.entry_failed(&entry, mounted(self.job.below(&entry.path)));
        }
        self.job.repository.store.progress().add(0, entry.metadata.size);
        self.keep(entry, found)
    }

    fn small(&mut self, entry: Entry, chunks: &[ChunkRef], there: There) -> Result<()> {
        let old = there.file();
        let mut same = Same::default();
        if let (Some(existing), Some(found)) = (&mut self.existing, old) {
            let looked = existing.small(&entry, found, chunks).and_then(|same| {
                let keeps =
                    same.is_whole(chunks, &entry.metadata, found) && existing.may_keep(found, &entry)?;
                Ok((same, keeps))
            });
            let keeps;
            (same, keeps) = match looked {
                Ok(looked) => looked,
                Err(error) => return self.job.entry_failed(&entry, error),
            };
            if keeps {
                self.job.repository.store.progress().add(0, entry.metadata.size);
                return self.keep(entry, *found);
            }
        }
        if let Err(error) = self.check_may_write(&entry, there) {
            return self.job.entry_failed(&entry, error);
        }
        let unchanged = same.bytes(chunks);
        if unchanged > 0 {
            self.job.done().bytes_unchanged += unchanged;
        }
        if entry.metadata.kind == EntryKind::File {
            self.tally.count(entry.metadata.size, unchanged);
            self.tally.grow(entry.metadata.content_bytes(), old.map_or(0, |old| old.freed()), false);
        }
        self.job.foretell(&entry, None);
        self.window.add_task(Task::Whole(Box::new(entry), there));
        let mut offset = 0;
        for (number, chunk) in chunks.iter().enumerate() {
            match same.chunk(number, offset, chunk.length) {
                Some(bytes) => self.window.add_local(bytes),
                None => self.window.add_chunk(*chunk, self.job, &mut self.recent),
            }
            offset += chunk.length as usize;
        }
        self.flush_if_full()
    }

    fn large(&mut self, entry: Entry, content: &Content, nodes: &dyn NodeSource, there: There) -> Result<()> {
        let old = there.file();
        // A snapshot may hold the name of the file that is not finished: then that is a file as any other.
        let lasts = match unfinished_path(&entry.path) {
            Ok(unfinished) => !may_hold(nodes, self.job.snapshot.root, &unfinished)?,
            Err(error) => return self.job.entry_failed(&entry, error),
        };
        let basis = match &mut self.existing {
            None => Ok(Basis::default()),
            Some(existing) => existing.basis(&entry, old, lasts),
        };
        let mut basis = match basis {
            Ok(basis) => basis,
            Err(error) => return self.job.entry_failed(&entry, error),
        };
        let (size, content_bytes) = (entry.metadata.size, entry.metadata.content_bytes());
        if let Some(found) = old
            && self.stays_as_it_is(&entry, content, (nodes, &mut basis), found)?
        {
            self.job.repository.store.progress().add(0, size);
            return self.keep(entry, *found);
        }
        let (allocated, in_place) = match &basis.rewritable {
            Some(rewritable) => (rewritable.found().allocated, true),
            None => (old.map_or(0, |old| old.freed()), false),
        };
        let large = Large::new(entry, there, lasts);
        let mut at = InLarge { large, basis, content: content_bytes, offset: 0, open: false };
        let mut unchanged = 0;
        let listed = for_each_chunk(content, nodes, &mut |chunk| self.chunk(&mut at, chunk, &mut unchanged));
        let InLarge { large, mut basis, offset, .. } = at;
        match listed {
            Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
            Ok(()) if offset == content_bytes => {}
            _ => {
                let gap = offset.min(content_bytes)..content_bytes.max(offset + 1);
                large.bad.lock().unwrap_or_else(PoisonError::into_inner).add(gap);
            }
        }
        if let Some(rewritable) = basis.rewritable.take() {
            // Nothing of it differed so far.
            let whole = large.bad.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
            let found = *rewritable.found();
            if whole && rewritable.has_its_name() && found.size == size && basis.has_holes {
                self.job.repository.store.progress().add(0, size - content_bytes);
                let entry = Arc::into_inner(large).map(|large| large.entry);
                return entry.map_or(Ok(()), |entry| self.keep(entry, found));
            }
            self.rewrite(&large, rewritable)?;
        }
        if let Err(error) = self.check_may_write(&large.entry, there) {
            return self.job.entry_failed(&large.entry, error);
        }
        if unchanged > 0 {
            self.job.done().bytes_unchanged += unchanged;
        }
        self.job.foretell(&large.entry, if in_place { old } else { None });
        self.tally.count(size, unchanged);
        self.tally.grow(content_bytes, allocated, in_place);
        self.window.add_task(Task::End(large));
        self.flush_if_full()
    }

    /// Whether a file that may not be changed where it is needs no change.
    fn stays_as_it_is(
        &mut self,
        entry: &Entry,
        content: &Content,
        (nodes, basis): (&dyn NodeSource, &mut Basis),
        found: &Found,
    ) -> Result<bool> {
        let Some(existing) = self.existing.as_mut().filter(|_| !basis.in_place) else { return Ok(false) };
        Ok(found.size == entry.metadata.size
            && existing.may_stay(found, entry)
            && existing.is_as(found, entry)?
            && basis.is_all(entry, content, (nodes, self.job))?)
    }

    /// The next chunk of a large file.
    fn chunk(&mut self, at: &mut InLarge, chunk: ChunkRef, unchanged: &mut u64) -> Result<()> {
        let (size, begin) = (at.content, at.offset);
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
        if same && at.basis.in_place && !at.basis.is_hollow(begin, &chunk) {
            progress.add(0, u64::from(chunk.length));
            at.open = false;
            return Ok(());
        }
        if !at.open {
            if let Some(rewritable) = at.basis.rewritable.take() {
                self.rewrite(&at.large, rewritable)?;
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
    fn rewrite(&mut self, large: &Large, rewritable: Rewritable) -> Result<()> {
        if self.job.removal == Removal::Tell {
            return Ok(());
        }
        let file = match rewritable.rewrite(self.job.target, &large.entry.metadata) {
            Ok(file) => Ok(Arc::new(file)),
            Err(error) => Err(give_up(self.job, large, error)?),
        };
        *large.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        self.window.add_open_file();
        Ok(())
    }
}

/// The path of a large file until it is whole.
pub(super) fn unfinished_path(path: &[u8]) -> Result<Vec<u8>> {
    let (folder, name) = split(path);
    Ok(join(folder, &partial::unfinished(name)?))
}
