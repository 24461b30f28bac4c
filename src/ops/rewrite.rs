//! `rewrite`: a copy of a snapshot without some paths, for what was backed up by mistake. It is a backup whose source is the
//! old snapshot, so it comes about by the one commit that there is. The old one stays until it is forgotten.

use std::sync::Arc;

use super::{
    backup::BackupOptions,
    forget::{self, ForgetDone, ForgetOptions, Kept, MassRemoval, Which},
    repair::{Stored, Survivors, tag_of_origin},
};
use crate::{
    error::{Error, ErrorKind, Result},
    filesystem::select::{Selection, Sieve},
    format::entry::EntryKind,
    id::ObjectId,
    limits,
    progress::Phase,
    repository::{
        Repository,
        manifest::for_each_entry,
        snapshots::{KnownSnapshot, Snapshots, TAG_REWRITTEN},
        view::View,
    },
};

/// So many paths that are left out are named.
const NAMED_MAX: usize = 1000;

/// Whether anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Copies are made.
    Write,
    /// Only tell.
    DryRun,
}

/// What becomes of the old snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// They stay.
    Keep,
    /// They end, when all copies are there.
    Forget,
}

/// How snapshots are rewritten.
#[derive(Debug)]
pub struct RewriteOptions {
    /// What stays.
    pub selection: Arc<Selection>,
    /// What becomes of the old ones.
    pub old: Old,
    /// Whether anything is written.
    pub mode: Mode,
    /// The time zone of `forget`.
    pub zone: jiff::tz::TimeZone,
    /// Name and version of the program.
    pub program: String,
    /// Threads that read, compress and seal.
    pub workers: usize,
}

/// What was left out of one snapshot.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Entries.
    pub entries: u64,
    /// Bytes of files among them.
    pub bytes: u64,
    /// Those that the backup could not read, or not whole.
    pub unreadable: u64,
    /// The first of them: paths without the leading slash.
    pub named: Vec<Vec<u8>>,
    /// Entries that stay.
    pub stays: u64,
}

/// A snapshot and what became of it.
#[derive(Debug)]
pub struct Rewritten {
    /// Which.
    pub snapshot: KnownSnapshot,
    /// What of it is left out.
    pub left_out: LeftOut,
    /// The copy without that, if one was made.
    pub copy: Option<ObjectId>,
    /// Whether it has ended.
    pub forgotten: bool,
}

/// What a rewrite did, or would do.
#[derive(Debug, Default)]
pub struct RewriteDone {
    /// Each snapshot that was chosen.
    pub snapshots: Vec<Rewritten>,
    /// Old ones that have ended and that the storage refuses to delete.
    pub kept: Kept,
    /// What could not be read when the old ones were to end.
    pub damaged: Vec<Error>,
}

/// Copies snapshots without what the selection leaves out. One of which nothing is left out gets no copy.
///
/// # Errors
/// `Forbidden` for all but an owner, who alone reads what others wrote and writes snapshots, and for snapshots of a domain that
/// it does not back up to; `Usage` when nothing is left out of any, or everything of one, or one has too many tags for the copy; `Failed` when one that
/// is to end is held; `Damaged` when a part of a manifest cannot be read, or a copy has lost something; storage trouble;
/// `Temporary` when a copy could not be committed.
pub fn run(
    repository: &Arc<Repository>,
    chosen: &[KnownSnapshot],
    options: &RewriteOptions,
) -> Result<RewriteDone> {
    repository.check_owns("rewrite snapshots")?;
    repository.store.progress().enter(Phase::Checking);
    let domain = repository.own_domain()?;
    if let Some(other) = chosen.iter().find(|known| known.name.domain != domain) {
        let what = format!("the snapshot {} is of a domain that this key does not back up to", other.name.id);
        return Err(Error::new(ErrorKind::Forbidden, what).with_remedy(
            "Use an owner's key of that domain: `lifeboat key add --role owner --domain NAME`",
        ));
    }
    if options.old == Old::Forget {
        forget::refuse_held(chosen)?;
    }
    chosen.iter().try_for_each(|snapshot| backup_of(snapshot, options).check())?;
    let view = Arc::new(repository.view_to_read(&domain)?);
    let mut done = RewriteDone::default();
    let all = &mut done.snapshots;
    for snapshot in chosen {
        let left_out = left_out(repository, (snapshot, &view), &options.selection)?;
        if left_out.stays == 0 && left_out.entries > 0 {
            let what = format!("of the snapshot {} nothing would stay", snapshot.name.id);
            return Err(Error::new(ErrorKind::Usage, what)
                .with_remedy("If it is not wanted, `lifeboat forget` ends it"));
        }
        all.push(Rewritten { snapshot: snapshot.clone(), left_out, copy: None, forgotten: false });
    }
    if all.iter().all(|one| one.left_out.entries == 0) {
        return Err(Error::new(
            ErrorKind::Usage,
            "nothing in these snapshots matches, so there is nothing to rewrite",
        )
        .with_remedy("`lifeboat ls SNAPSHOT` lists what they hold; patterns have / as their folder"));
    }
    if options.mode == Mode::DryRun {
        return Ok(done);
    }
    let before = repository.every_snapshot()?.listed;
    for one in all.iter_mut().filter(|one| one.left_out.entries > 0) {
        one.copy = Some(match copy_of_before(repository, (one, &view), (&before, options))? {
            Some(copy) => copy,
            None => copy(repository, (&one.snapshot, &view), options)?,
        });
    }
    if options.old == Old::Forget {
        let ended = end(repository, all, options)?;
        (done.kept, done.damaged) = (ended.kept, ended.damaged);
    }
    Ok(done)
}

fn left_out(
    repository: &Arc<Repository>,
    (snapshot, view): (&KnownSnapshot, &Arc<View>),
    selection: &Selection,
) -> Result<LeftOut> {
    let stored = Stored::new(repository, view, snapshot)?;
    let mut left_out = LeftOut::default();
    let (nodes, mut sieve) = (stored.nodes()?, Sieve::new(selection));
    for_each_entry(&nodes, snapshot.record.root, &[], &mut |entry| {
        repository.store.progress().check()?;
        let entry = entry.map_err(|gap| gap.error)?;
        if sieve.takes(&entry) {
            left_out.stays += 1;
            return Ok(());
        }
        left_out.entries += 1;
        left_out.unreadable += u64::from(entry.error.is_some() || entry.metadata.lacks.is_some());
        if entry.metadata.kind == EntryKind::File {
            left_out.bytes = left_out.bytes.saturating_add(entry.metadata.size);
        }
        if left_out.named.len() < NAMED_MAX && entry.path.len() <= limits::PATH_BYTES_MAX {
            left_out.named.push(entry.path);
        }
        Ok(())
    })?;
    Ok(left_out)
}

/// The copy that a run which was interrupted has made: it lacks what is left out, and nothing else.
fn copy_of_before(
    repository: &Arc<Repository>,
    (one, view): (&Rewritten, &Arc<View>),
    (before, options): (&[KnownSnapshot], &RewriteOptions),
) -> Result<Option<ObjectId>> {
    let tag = tag_of_origin(TAG_REWRITTEN, &one.snapshot);
    let is_like = |known: &&KnownSnapshot| {
        known.is_copy && known.record.tags.contains(&tag) && known.record.time == one.snapshot.record.time
    };
    for known in before.iter().filter(is_like) {
        let again = left_out(repository, (known, view), &options.selection)?;
        if again.entries == 0 && again.stays == one.left_out.stays {
            return Ok(Some(known.name.id));
        }
    }
    Ok(None)
}

fn backup_of(snapshot: &KnownSnapshot, options: &RewriteOptions) -> BackupOptions {
    let tags = snapshot.tags.iter().cloned().chain([tag_of_origin(TAG_REWRITTEN, snapshot)]).collect();
    BackupOptions::of_snapshot(snapshot, tags, (&options.program, options.workers))
}

fn copy(
    repository: &Arc<Repository>,
    (snapshot, view): (&KnownSnapshot, &Arc<View>),
    options: &RewriteOptions,
) -> Result<ObjectId> {
    let backup = backup_of(snapshot, options);
    let stored = Stored::new(repository, view, snapshot)?;
    let selection = Some(Arc::clone(&options.selection));
    Survivors { stored, root: snapshot.record.root, selection }.store(repository, &backup)
}

/// Ends the old ones, if nothing is lost with them.
fn end(repository: &Repository, all: &mut [Rewritten], options: &RewriteOptions) -> Result<ForgetDone> {
    let Snapshots { listed, .. } = repository.every_snapshot()?;
    for one in all.iter().filter(|one| one.copy.is_some()) {
        let copy = listed.iter().find(|known| Some(known.name.id) == one.copy);
        let before = one.snapshot.record.unreadable.saturating_sub(one.left_out.unreadable);
        let is_whole = copy.is_some_and(|copy| copy.record.unreadable <= before);
        if !is_whole {
            let what = format!(
                "the copy of {} has lost something, so no old snapshot was forgotten",
                one.snapshot.name.id
            );
            return Err(Error::new(ErrorKind::Damaged, what).with_remedy(
                "`lifeboat check` tells what is damaged; compare the two with `lifeboat diff`",
            ));
        }
    }
    let old = all.iter().filter(|one| one.copy.is_some()).map(|one| one.snapshot.name.id.to_string());
    let options = ForgetOptions {
        which: Which::Named(old.collect()),
        floor: 1,
        // Each has its copy.
        mass_removal: MassRemoval::Allow,
        zone: options.zone.clone(),
        mode: forget::Mode::Write,
    };
    let done = forget::run(repository, &options)?;
    for verdict in done.groups.iter().flat_map(|(_, verdicts)| verdicts).filter(|verdict| verdict.goes()) {
        for one in all.iter_mut().filter(|one| one.snapshot.name.id == verdict.snapshot.name.id) {
            one.forgotten = true;
        }
    }
    Ok(done)
}
