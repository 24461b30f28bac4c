//! `restore --dry-run`: what a restore would do, before anything is written. It reads the manifest and what is in
//! the target, and no stored data.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::{
    Extra, Pass, RestoreOptions, Restored, SameTree, Tally, clear::Clearing, existing, plan, root_of,
    work::Job,
};
use crate::{
    error::{ErrorKind, Result},
    filesystem::{
        remove::{Denied, Never, Removal},
        restore::Target,
    },
    format::path::is_below,
    id::PackId,
    progress::Phase,
    repository::{Repository, reader::NodeReader, snapshots::KnownSnapshot, view::View},
};

/// What a restore would do.
#[derive(Debug, Default)]
pub struct Forecast {
    /// Files that would be whole, the bytes in them.
    pub files: u64,
    /// The bytes in them.
    pub bytes: u64,
    /// Of these the files whose content is there already.
    pub files_unchanged: u64,
    /// Bytes in files that are there already, and right.
    pub bytes_unchanged: u64,
    /// Packs that would be read from.
    pub packs: u64,
    /// Reads of them.
    pub requests: u64,
    /// Bytes that would be read.
    pub download_bytes: u64,
    /// Chunks that no index lists.
    pub chunks_lost: u64,
    /// Bytes that the target needs at most for contents, new folders and names, in blocks of 4 KiB. What the file system
    /// needs for itself is not in it: inodes, attributes, its journal.
    pub space_needed: u64,
    /// Bytes that are free where the target is.
    pub space_free: u64,
    /// Sources of which nothing could be written, since what they would be on is mounted read-only; the empty path is
    /// the target itself.
    pub read_only: Vec<Vec<u8>>,
    /// Why nothing can be written at all: the target is empty, or not there, and this user may make nothing in it.
    pub denied: Option<Denied>,
    /// What stays, what would be removed, what is known to be lost, and what would be noted, as far as it is known before.
    pub restored: Restored,
}

impl Forecast {
    /// Whether the files have room.
    #[must_use]
    pub const fn fits(&self) -> bool {
        self.space_needed <= self.space_free
    }
}

/// Says what [`super::run`] would do.
///
/// # Errors
/// As [`super::run`], as far as it can be known before.
pub fn forecast(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    target: &Path,
    options: &RestoreOptions,
) -> Result<Forecast> {
    repository.store.progress().enter(Phase::Opening);
    repository
        .reading(&snapshot.name.domain, &mut |view| with_view(repository, snapshot, view, (target, options)))
}

/// What can be known of a target that is not changed.
enum Open {
    There(Target),
    /// It is closed to the user, and the restore would open it up.
    Closed(Target),
    /// It is not there: the folder that it would be made in.
    Above(Target),
}

fn open(path: &Path) -> Result<Open> {
    match Target::open(path) {
        Ok(target) => return Ok(Open::There(target)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Target::unseen(path).map(Open::Closed).ok_or(error),
    }
    Target::above(path).map(Open::Above)
}

fn with_view(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    view: &View,
    (target, options): (&Path, &RestoreOptions),
) -> Result<Forecast> {
    let domain = snapshot.name.domain;
    let mut nodes = NodeReader::new(repository, domain, &view.index)?;
    nodes.serve(snapshot.name.identity);
    let nodes = SameTree { nodes: &nodes, lost: Mutex::default() };
    let root = root_of(&nodes, snapshot, &options.subpath)?;
    if options.extra == Extra::Remove {
        existing::refuse_to_empty_everything(&snapshot.record.sources, &options.subpath, target)?;
    }
    let (place, before) = (target, Target::looks_of(target));
    let target = open(target)?;
    let (Open::There(open) | Open::Closed(open) | Open::Above(open)) = &target;
    repository.store.progress().enter(Phase::Checking);
    let never = Never::new(&options.never);
    let how = (options, &never, Removal::Tell);
    let job = Job::new(repository, (snapshot, view), (open, root.strip), how)?;
    if matches!(target, Open::There(_)) {
        job.note(&options.subpath, root.takes_over((open, place), before, &options.ownership));
    }
    if matches!(target, Open::Closed(_)) {
        job.note(&options.subpath, vec![job.unseen()]);
    }
    let pass = Pass { snapshot, nodes: &nodes, options };
    let (space_free, read_only) = (open.free_bytes()?, read_only(&job));
    let denied = open.denied_itself().filter(|_| open.was_empty());
    let mut forecast = Forecast { space_free, read_only, denied, ..Forecast::default() };
    let mut packs: HashSet<PackId> = HashSet::new();
    let tally = plan(&pass, &job, &mut |mut window| {
        forecast.chunks_lost += window.lost.len() as u64;
        window.count(&mut |pack, range| {
            packs.insert(pack.id);
            forecast.requests += 1;
            forecast.download_bytes += range.end - range.start;
        });
        Ok(())
    })?;
    if forecast.chunks_lost > 0 {
        view.index.vouch()?;
    }
    if let Some(mut clearing) = Clearing::new(&job)? {
        pass.entries(&mut |entry| match entry {
            Ok(entry) => clearing.entry(&entry),
            Err(_) => {
                clearing.gap();
                Ok(())
            }
        })?;
        clearing.finish()?;
    }
    let Tally { files, bytes, files_unchanged, bytes_unchanged, .. } = tally;
    let mut restored = job.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    restored.has_unlisted = !view.unindexed.is_empty();
    let packs = packs.len() as u64;
    let space_needed = tally.room(options.workers);
    Ok(Forecast { files, bytes, files_unchanged, bytes_unchanged, packs, space_needed, restored, ..forecast })
}

/// Where nothing can be written, if that is everywhere: of each source. A mount that is read-only beside others is
/// trouble of what is on it.
pub(super) fn read_only(job: &Job<'_>) -> Vec<Vec<u8>> {
    let subpath = &job.options.subpath;
    if job.target.was_empty() {
        // Nothing is mounted in what is empty, or not there.
        return if job.target.is_read_only(b"") { vec![subpath.clone()] } else { Vec::new() };
    }
    let below = |source: &Vec<u8>| {
        let source = source.strip_prefix(b"/").unwrap_or(source);
        if is_below(source, subpath) { source.to_vec() } else { subpath.clone() }
    };
    let mut places: Vec<Vec<u8>> = job.snapshot.sources.iter().map(below).collect();
    places.sort();
    places.dedup();
    let all = places.iter().all(|place| job.target.is_read_only(job.below(place)));
    if all { places } else { Vec::new() }
}
