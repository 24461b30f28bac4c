//! `rewrite`: a copy of a snapshot without some paths, for what was backed up by mistake. It is a backup whose source is the
//! old snapshot, so it comes about by the one commit that there is. The old one stays until it is forgotten.

use std::sync::Arc;

pub use super::{
    Mode,
    copy::{Losses, Lost},
};
use super::{
    backup::BackupOptions,
    forget::{self, ForgetDone, ForgetOptions, Kept, MassRemoval, Which},
    repair::{Stored, Survivors, tag_of_origin},
};
use crate::{
    error::{Error, ErrorKind, Result},
    filesystem::select::{Selection, Sieve},
    format::{entry::EntryKind, path::is_below},
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
    /// Snapshots that were named by their ids: nothing else is meant by these.
    pub named: Vec<ObjectId>,
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
    /// Entries that stay, but for folders that only lead to a source.
    pub stays: u64,
    /// Those that the backup could not read, or not whole, among these.
    pub stays_unreadable: u64,
}

/// A snapshot and what became of it.
#[derive(Debug)]
pub struct Rewritten {
    /// Which.
    pub snapshot: KnownSnapshot,
    /// What of it is left out.
    pub left_out: LeftOut,
    /// What should stay and cannot be read any more: the copy has it as unreadable.
    pub lost: Losses,
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
    /// Whether packs are there that no index lists: what is lost may be in them.
    pub has_unlisted: bool,
}

impl RewriteDone {
    /// How much of what should stay cannot be read: if anything, no old one ends, since with it would end what may be found
    /// again.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.snapshots.iter().map(|one| one.lost.count).sum()
    }
}

/// Copies snapshots without what the selection leaves out. One of which nothing is left out gets no copy. Where a copy that
/// a run like this has made is chosen, what it was made of is meant, so that `latest` can be repeated. When something is
/// lost the copies are made, and no old one ends.
///
/// # Errors
/// `Forbidden` for all but an owner, who alone reads what others wrote and writes snapshots, and for snapshots of a domain that
/// it does not back up to; `Usage` when nothing is left out of any, or everything of one, or one has too many tags for the copy; `Failed` when one that
/// is to end is held; `Damaged` when a part of a manifest cannot be read; storage trouble;
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
    let before = repository.every_snapshot()?.listed;
    let view = Arc::new(repository.view_to_read(&domain)?);
    let chosen = &meant(repository, (chosen, &view), (&before, options))?;
    if options.old == Old::Forget {
        forget::refuse_held(chosen)?;
    }
    chosen.iter().try_for_each(|snapshot| backup_of(snapshot, options).check())?;
    let mut done = RewriteDone { has_unlisted: !view.unindexed.is_empty(), ..RewriteDone::default() };
    let all = &mut done.snapshots;
    for snapshot in chosen {
        let looked = left_out(repository, (snapshot, &view), &options.selection);
        let (left_out, lost) = looked.map_err(|error| unreadable(error, snapshot))?;
        if left_out.stays == 0 && left_out.entries > 0 {
            let what = format!("of the snapshot {} nothing would stay", snapshot.name.id);
            return Err(Error::new(ErrorKind::Usage, what)
                .with_remedy("If it is not wanted, `lifeboat forget` ends it"));
        }
        all.push(Rewritten { snapshot: snapshot.clone(), left_out, lost, copy: None, forgotten: false });
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
    for one in all.iter_mut().filter(|one| one.left_out.entries > 0) {
        one.copy = Some(match copy_of_before(repository, (one, &view), (&before, options))? {
            Some(copy) => copy,
            None => {
                let (copy, lost) = copy(repository, (&one.snapshot, &view), options)?;
                one.lost = lost;
                copy
            }
        });
    }
    if options.old == Old::Forget && done.lost() == 0 {
        let ended = end(repository, &mut done.snapshots, options)?;
        (done.kept, done.damaged) = (ended.kept, ended.damaged);
    }
    Ok(done)
}

/// A part of its manifest is damaged: so nobody can say what it holds, and none of those that were chosen is rewritten.
fn unreadable(error: Error, snapshot: &KnownSnapshot) -> Error {
    if !error.is_damage() {
        return error;
    }
    let what = format!("the snapshot {} cannot be read whole, so nothing was rewritten", snapshot.name.id);
    error.context(what).with_remedy(
        "Name the others by their ids. `lifeboat repair snapshots --apply` copies what is left of this one, if anything is: \
         rewrite that copy by its id too, and end this one with `lifeboat forget`",
    )
}

fn left_out(
    repository: &Arc<Repository>,
    (snapshot, view): (&KnownSnapshot, &Arc<View>),
    selection: &Selection,
) -> Result<(LeftOut, Losses)> {
    let stored = Stored::new(repository, (view, &Arc::default()), snapshot)?;
    let (mut left_out, mut lost) = (LeftOut::default(), Losses::default());
    let (nodes, mut sieve) = (stored.nodes()?, Sieve::new(selection));
    for_each_entry(&nodes, snapshot.record.root, &[], &mut |entry| {
        repository.store.progress().check()?;
        let entry = entry.map_err(|gap| gap.error)?;
        let unreadable = u64::from(entry.error.is_some() || entry.metadata.lacks.is_some());
        if sieve.takes(&entry) {
            let leads = |source: &Vec<u8>| is_below(source.strip_prefix(b"/").unwrap_or(source), &entry.path);
            left_out.stays += u64::from(!snapshot.record.sources.iter().any(leads));
            left_out.stays_unreadable += unreadable;
            if let Some(why) = stored.loss(&entry, &nodes)? {
                lost.add(&entry.path, why);
            }
            return Ok(());
        }
        left_out.entries += 1;
        left_out.unreadable += unreadable;
        if entry.metadata.kind == EntryKind::File {
            left_out.bytes = left_out.bytes.saturating_add(entry.metadata.size);
        }
        if left_out.named.len() < NAMED_MAX && entry.path.len() <= limits::PATH_BYTES_MAX {
            left_out.named.push(entry.path);
        }
        Ok(())
    })?;
    Ok((left_out, lost))
}

/// Whether a snapshot is a copy of another one, of whatever of it.
fn is_copy_of(known: &KnownSnapshot, old: &KnownSnapshot) -> bool {
    let is_named = || known.record.tags.contains(&tag_of_origin(TAG_REWRITTEN, old));
    known.is_copy && known.record.time == old.record.time && is_named()
}

/// Whether a copy lacks what is left out, and nothing else, though not all of it may be readable.
const fn is_what_stays(copy: &LeftOut, old: &LeftOut) -> bool {
    copy.entries == 0 && copy.stays == old.stays
}

/// What is to be rewritten: where a copy was chosen, not by its id, that this very command makes of a snapshot which is there, that one.
fn meant(
    repository: &Arc<Repository>,
    (chosen, view): (&[KnownSnapshot], &Arc<View>),
    (before, options): (&[KnownSnapshot], &RewriteOptions),
) -> Result<Vec<KnownSnapshot>> {
    let mut meant: Vec<KnownSnapshot> = Vec::new();
    for known in chosen {
        let is_named = options.named.contains(&known.name.id);
        let olds = before
            .iter()
            .filter(|old| !is_named && old.name.domain == known.name.domain && is_copy_of(known, old));
        let mut found = known;
        for old in olds {
            let (copy, _) = left_out(repository, (known, view), &options.selection)?;
            let (of_old, _) = left_out(repository, (old, view), &options.selection)?;
            if of_old.entries > 0 && is_what_stays(&copy, &of_old) {
                found = old;
                break;
            }
        }
        if meant.iter().all(|one| one.name.id != found.name.id) {
            meant.push(found.clone());
        }
    }
    Ok(meant)
}

/// The copy that a run which was interrupted has made: as whole as one would be that is made now.
fn copy_of_before(
    repository: &Arc<Repository>,
    (one, view): (&Rewritten, &Arc<View>),
    (before, options): (&[KnownSnapshot], &RewriteOptions),
) -> Result<Option<ObjectId>> {
    let unreadable = |left_out: &LeftOut, lost: &Losses| left_out.stays_unreadable + lost.count;
    for known in before.iter().filter(|known| is_copy_of(known, &one.snapshot)) {
        let (copy, lost) = left_out(repository, (known, view), &options.selection)?;
        if is_what_stays(&copy, &one.left_out)
            && unreadable(&copy, &lost) == unreadable(&one.left_out, &one.lost)
        {
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
) -> Result<(ObjectId, Losses)> {
    let backup = backup_of(snapshot, options);
    let stored = Stored::new(repository, (view, &Arc::default()), snapshot)?;
    let selection = Some(Arc::clone(&options.selection));
    Survivors::new(stored, (snapshot, "rewrite"), selection).store(repository, &backup)
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
        mode: Mode::Write,
    };
    let done = forget::run(repository, &options)?;
    for verdict in done.groups.iter().flat_map(|(_, verdicts)| verdicts).filter(|verdict| verdict.goes()) {
        for one in all.iter_mut().filter(|one| one.snapshot.name.id == verdict.snapshot.name.id) {
            one.forgotten = true;
        }
    }
    Ok(done)
}
