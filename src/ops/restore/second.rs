//! The second pass: further names of files are linked, and folders get their metadata, each after everything
//! in it.

use std::collections::HashMap;

use super::{
    super::links::{Group, Links},
    Pass, SameTree,
    clear::Clearing,
    existing::{Existing, Further, There, alone, unlinked},
    lost, may_hold,
    plan::Window,
    planner::Planner,
    work::{Job, Worker},
};
use crate::{
    error::Result,
    filesystem::{
        metadata::{Note, Notes, closes, is_frozen},
        old::Look,
        partial::gone,
    },
    format::{
        entry::{Entry, EntryKind, FREEZING_FLAGS, Metadata},
        path::{is_below, join},
    },
    repository::manifest::Gap,
    store::Downloads,
};

/// A folder that the second pass is in.
struct OpenFolder {
    metadata: Metadata,
    /// Bytes of its path.
    length: usize,
    /// It is meant itself, or something below it is.
    used: bool,
}

/// What a folder is given its metadata with.
type End<'a> = (&'a Job<'a>, &'a SameTree<'a>);

/// The folders that the second pass is in, each in the one before it.
#[derive(Default)]
struct Inside {
    folders: Vec<OpenFolder>,
    /// The path of the innermost one: those of the others are the beginnings of it.
    path: Vec<u8>,
    /// Folders that come last, since further names may be linked to what is in them: those in a folder before it.
    last: Vec<(Vec<u8>, Metadata)>,
}

/// So many folders at most wait for the end. One more does not, nor what waits in it: nothing could reach that any more.
const LAST_MAX: usize = 10_000;

impl Inside {
    fn enter(&mut self, entry: Entry, used: bool) {
        self.folders.push(OpenFolder { length: entry.path.len(), metadata: entry.metadata, used });
        self.path = entry.path;
    }

    /// Goes out of those that `path` is not in, and gives them their metadata.
    fn leave_for(&mut self, path: &[u8], end: End<'_>) -> Result<()> {
        while !self.folders.is_empty() && !is_below(path, &self.path) {
            self.leave(end)?;
        }
        Ok(())
    }

    fn leave_all(&mut self, end: End<'_>) -> Result<()> {
        while !self.folders.is_empty() {
            self.leave(end)?;
        }
        self.end_last(0, end)
    }

    /// Where those begin among the last that are in the innermost folder, or are it.
    fn first_within(&self) -> usize {
        let is_within = |(path, _): &(Vec<u8>, Metadata)| *path == self.path || is_below(path, &self.path);
        let within = self.last.iter().rev().take_while(|last| is_within(last));
        self.last.len() - within.count()
    }

    /// Gives their metadata to those that wait, from this one on: those in a folder before it.
    fn end_last(&mut self, from: usize, end: End<'_>) -> Result<()> {
        let last = self.last.split_off(from.min(self.last.len()));
        last.iter().try_for_each(|(path, metadata)| set_metadata(path, metadata, end))
    }

    /// Something in the innermost folder was restored.
    fn use_it(&mut self) {
        if let Some(folder) = self.folders.last_mut() {
            folder.used = true;
        }
    }

    /// Gives the innermost folder its metadata, if it is meant.
    fn leave(&mut self, end: End<'_>) -> Result<()> {
        let Some(OpenFolder { metadata, length, used }) = self.folders.pop() else { return Ok(()) };
        self.path.truncate(length);
        if used {
            self.use_it();
            // One that is in a folder which waits may be reached as long as that does.
            if closes(&metadata) {
                self.last.push((self.path.clone(), metadata));
                if self.last.len() > LAST_MAX {
                    self.end_last(self.first_within(), end)?;
                }
            } else {
                set_metadata(&self.path, &metadata, end)?;
            }
        }
        self.path.truncate(self.folders.last().map_or(0, |folder| folder.length));
        Ok(())
    }
}

pub(super) fn second_pass(pass: &Pass<'_>, job: &Job<'_>) -> Result<()> {
    let mut linker = Linker {
        job,
        nodes: pass.nodes,
        downloads: job.repository.store.downloads(),
        worker: Worker::new(job)?,
        links: Links::default(),
        frozen: HashMap::new(),
        existing: Existing::new(job),
        known_lost: pass.nodes.lost().len(),
        sees_less: false,
    };
    let mut clearing = Clearing::new(job)?;
    let mut inside = Inside::default();
    let end = (job, pass.nodes);
    pass.entries(&mut |entry| {
        job.repository.store.progress().check()?;
        let entry = match entry {
            Ok(entry) => entry,
            Err(gap) => {
                clearing.iter_mut().for_each(Clearing::gap);
                return linker.gap(gap);
            }
        };
        // Before the folders that end here get their times.
        clearing.iter_mut().try_for_each(|clearing| clearing.entry(&entry))?;
        inside.leave_for(&entry.path, end)?;
        let used = pass.selects(&entry) && entry.error.is_none();
        if entry.metadata.kind == EntryKind::Directory {
            if !used {
                linker.passes(&entry);
            }
            inside.enter(entry, used);
            return Ok(());
        }
        if !used {
            return Ok(());
        }
        inside.use_it();
        linker.entry(entry)
    })?;
    clearing.iter_mut().try_for_each(Clearing::finish)?;
    // What the snapshot has there is below the path that was asked for. Later nobody may look into the target any more.
    let root = job.options.subpath.get(..job.strip.saturating_sub(1)).unwrap_or(&job.options.subpath);
    sweep(job, pass.nodes, root)?;
    inside.leave_all(end)?;
    linker.finish()
}

/// Removes what runs that were killed have left in a folder, unless the snapshot has such a name.
fn sweep(job: &Job<'_>, nodes: &SameTree<'_>, folder: &[u8]) -> Result<()> {
    if job.target.was_empty() {
        return Ok(());
    }
    // What cannot be asked stays.
    let known = |name: &[u8]| may_hold(nodes, job.snapshot.root, &join(folder, name)).unwrap_or(true);
    match job.target.sweep(job.below(folder), &known, &*job.repository.clock) {
        Ok(_) => Ok(()),
        Err(error) => job.failed(folder, error),
    }
}

/// A file that is frozen when it has all its names.
#[derive(Default)]
struct Freezes {
    /// A name of it that was restored, and what it is to be like.
    restored: Option<(Vec<u8>, Metadata)>,
    /// How many of its names are in the target, as far as they were met.
    names: u32,
}

/// Why a file is not frozen that was left alone.
const ELSEWHERE: &str =
    "it has names elsewhere, for which it would be immutable or append-only too: it is left as it is";

/// Gives files their further names.
struct Linker<'a> {
    job: &'a Job<'a>,
    nodes: &'a SameTree<'a>,
    downloads: Downloads,
    worker: Worker<'a>,
    links: Links<Vec<u8>>,
    /// Files that are frozen when they have all their names.
    frozen: HashMap<Group, Freezes>,
    existing: Option<Existing<'a>>,
    /// Nodes that the first pass could not read.
    known_lost: usize,
    /// A node could not be read that the first pass had read: first names may be among what is lost.
    sees_less: bool,
}

impl Linker<'_> {
    /// What the first pass has named is not named again.
    fn gap(&mut self, gap: Gap) -> Result<()> {
        if self.nodes.lost().len() == self.known_lost {
            return Ok(());
        }
        self.known_lost = self.nodes.lost().len();
        self.sees_less = true;
        lost(self.job, gap)
    }

    /// Comes past a folder that is not meant itself.
    fn passes(&mut self, entry: &Entry) {
        self.existing.iter_mut().for_each(|existing| existing.passes(entry));
    }

    /// Gives the file at `first` a further name, if what has that does not stay; why it has to be a file of its own.
    fn further(&mut self, first: &[u8], entry: &Entry) -> Result<std::result::Result<(), Note>> {
        let further = match &mut self.existing {
            None => Further::GivesWay(There::Nothing),
            Some(existing) => existing.further((first, false), entry, self.nodes)?,
        };
        let there = match further {
            Further::Linked => {
                self.job.count_name(entry, true);
                return Ok(Ok(()));
            }
            Further::Left => return Ok(Ok(())),
            Further::Alone => return Ok(Err(alone(first))),
            Further::GivesWay(there) => there,
        };
        match self.job.link(first, entry, there) {
            Err(error) if self.job.is_of_all(&error) => Err(error),
            Err(error) => Ok(Err(unlinked(&error))),
            Ok(()) => Ok(Ok(())),
        }
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        let job = self.job;
        let Some(group) = self.links.group(&entry).filter(|_| !job.below(&entry.path).is_empty()) else {
            return Ok(());
        };
        if !is_frozen(&entry.metadata) {
            return self.link(entry, group);
        }
        let (path, metadata) = (entry.path.clone(), entry.metadata.clone());
        let first = self.links.first(&group).cloned();
        self.link(entry, group)?;
        // What was left alone may be a name of the file all the same.
        let is_name = match (&mut self.existing, first) {
            _ if job.is_restored(&path) => true,
            (Some(existing), Some(first)) if job.is_left(&path) => existing.is_linked(&first, &path)?,
            (_, first) => first.is_none() && job.is_left(&path),
        };
        let freezes = self.frozen.entry(group).or_default();
        freezes.names += u32::from(is_name);
        if job.is_restored(&path) {
            freezes.restored = Some((path, metadata));
        }
        if self.links.is_complete(&group) { self.freeze(&group) } else { Ok(()) }
    }

    /// Freezes what has names that were not asked for.
    fn finish(mut self) -> Result<()> {
        let groups: Vec<Group> = self.frozen.keys().copied().collect();
        groups.iter().try_for_each(|group| self.freeze(group))
    }

    fn freeze(&mut self, group: &Group) -> Result<()> {
        let Some(Freezes { restored: Some((path, metadata)), names }) = self.frozen.remove(group) else {
            return Ok(());
        };
        match freeze(self.job, (self.job.below(&path), &metadata), names) {
            Ok(notes) => self.job.note(&path, notes),
            Err(error) => self.job.failed(&path, error)?,
        }
        Ok(())
    }

    fn link(&mut self, entry: Entry, group: Group) -> Result<()> {
        let job = self.job;
        let mut why = None;
        let first = self.links.meet((group, &entry), || entry.path.clone());
        let is_first = first.is_none();
        match first {
            // It has its content from the first pass.
            None if !self.sees_less => return Ok(()),
            None => {}
            Some(first) if job.is_broken(&first) => {}
            Some(first) => match self.further(&first, &entry)? {
                Ok(()) => {
                    // It need not be compared again.
                    if job.is_left(&first) && job.is_restored(&entry.path) {
                        self.links.lead(&group, entry.path);
                    }
                    return Ok(());
                }
                Err(note) => why = Some(note),
            },
        }
        // Every name has the whole content in the manifest: what cannot be linked is restored by itself. The folders above it
        // may be closed still, if they are not meant themselves.
        if let Some(Err(error)) = self.existing.as_mut().map(|existing| existing.reach(&entry.path)) {
            return job.entry_failed(&entry, error);
        }
        let path = entry.path.clone();
        let worker = &mut self.worker;
        let downloads = &self.downloads;
        let mut send = |mut window: Window| {
            window.fetch(job.repository, &job.domain, downloads);
            worker.window(window)
        };
        let mut planner = Planner::new(job, &mut send);
        if is_first {
            planner = planner.again();
        }
        planner.entry(entry, self.nodes)?;
        planner.flush()?;
        if !job.is_broken(&path) {
            job.note(&path, why.into_iter().collect());
            self.links.lead(&group, path);
        }
        Ok(())
    }
}

/// Freezes a file of which so many names are in the target. One that was left alone, and was given a further name, may have
/// others.
fn freeze(job: &Job<'_>, (below, metadata): (&[u8], &Metadata), names: u32) -> Result<Notes> {
    let found = Look::new(job.target).at(below)?.filter(|found| found.kind == EntryKind::File);
    let found = found.ok_or_else(|| gone(below))?;
    if found.freezing() == metadata.flags & FREEZING_FLAGS {
        return Ok(Notes::new());
    }
    if found.names() > names || found.is_mount() {
        return Ok(vec![Note::Unset(ELSEWHERE.into())]);
    }
    job.target.freeze(&found, below, metadata)
}

/// Gives a folder its metadata, when nothing in it changes any more.
fn set_metadata(path: &[u8], metadata: &Metadata, (job, nodes): End<'_>) -> Result<()> {
    if job.is_blocked(path) {
        return Ok(());
    }
    let (below, ownership) = (job.below(path), &job.options.ownership);
    sweep(job, nodes, path)?;
    // The target itself belongs to whoever restores, unless a folder was asked for by its path.
    let done = if job.snapshot.leads_only(path) {
        // Nor was what only leads to a source asked for: that it is somebody else's makes no restore incomplete.
        let told = |note: Note| Note::Told(note.to_string());
        let notes = job.target.set_directory_owner_and_mode(below, metadata, ownership);
        notes.map(|notes| notes.into_iter().map(told).collect())
    } else {
        job.target.set_directory_metadata(below, metadata, ownership)
    };
    match done {
        Ok(notes) => {
            job.is_done(path);
            job.note(path, notes);
        }
        Err(error) => {
            job.put_back(path);
            // One that could not be made was told before.
            if !job.is_broken(path) {
                job.failed(path, error)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_in_a_folder_ends_with_it() {
        let waits = |path: &str| (path.into(), Metadata::of(EntryKind::Directory));
        let within = |path: &str, last: &[&str]| {
            let last = last.iter().map(|path| waits(path)).collect();
            Inside { path: path.into(), last, ..Inside::default() }.first_within()
        };
        assert_eq!(within("b/c", &["a", "b/a", "b/c/d", "b/c/e/f", "b/c"]), 2);
        assert_eq!(within("b/c", &["b/c-d/e", "b/c"]), 1);
        assert_eq!(within("", &["a"]), 0);
    }
}
