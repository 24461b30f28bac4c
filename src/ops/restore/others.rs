//! Two restores into one target that was empty: nothing is looked at there, so each comes upon what the other has written
//! when it gives its own a name. What cannot be had then (it is there, it is immutable, its folder is closed by now) is
//! compared at the end: if it is as in the snapshot, all is well.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    error::Error as _,
    path::Path,
};

use super::{Pass, Restored, has_room, may_hold, planner::unfinished_path, said_bytes, work::Job};
use crate::{
    error::{Error, ErrorKind, Result},
    filesystem::{
        metadata::{Notes, foretell},
        old::Look,
    },
    format::entry::{Entry, EntryKind},
    ops::verify::{Nobody, Same},
    repository::manifest::NodeSource,
};

const NOT_OURS: &str = "something else wrote it meanwhile, and it is not as in the snapshot";
const REMEDY: &str = "Another restore is, or was, at work in this target: let it end, and run it again";

/// What this restore could not write or set, and finds there all the same.
#[derive(Default)]
struct Found {
    /// What failed; whether it is a folder.
    failed: HashMap<Vec<u8>, bool>,
    /// What is frozen by now, so that something of it could not be set.
    unset: HashSet<Vec<u8>>,
    /// More failed than is named, so that everything is compared.
    all: bool,
}

/// What was compared.
#[derive(Default)]
struct Compared {
    /// What was found, and is as in the snapshot, as far as this user can set it.
    right: BTreeMap<Vec<u8>, Notes>,
    /// If everything was compared: files that are right, the bytes in them.
    files: u64,
    bytes: u64,
    /// And of what is not right that of which nobody has said so.
    wrong: Vec<(Vec<u8>, Error)>,
    /// Bytes of what is said of it.
    wrong_bytes: usize,
    wrongs: u64,
}

/// Looks once more at what failed where others may have been at work: what is there and right is no failure, and of the rest
/// it is said that somebody else wrote it.
///
/// # Errors
/// The storage fails.
pub(super) fn forgive(pass: &Pass<'_>, job: &Job<'_>, target: &Path) -> Result<()> {
    let found = found(job);
    if found.failed.is_empty() && found.unset.is_empty() {
        return Ok(());
    }
    let (mut nobody, ownership) = (Nobody, &job.options.ownership);
    let of = (pass.snapshot, pass.nodes as &dyn NodeSource);
    let mut same = Same::new(job.repository, of, (target, job.strip), (ownership, &mut nobody))?;
    let mut compared = Compared::default();
    pass.entries(&mut |entry| {
        job.repository.store.progress().check()?;
        // What is lost is told already.
        let Ok(entry) = entry else { return Ok(()) };
        if !pass.selects(&entry) || entry.error.is_some() || job.below(&entry.path).is_empty() {
            return Ok(());
        }
        let has_failed = found.failed.contains_key(&entry.path);
        let is_found = has_failed || found.unset.contains(&entry.path);
        if !is_found && !found.all {
            return same.passes(&entry).or_else(|error| job.failed(&entry.path, error));
        }
        let is_right = same.is(&entry)?;
        if is_right && has_failed {
            accept(&entry, pass, job)?;
        }
        if is_right {
            let mut cannot = foretell(&entry.metadata, &job.options.ownership, None);
            // The rest stands with what was written.
            cannot.retain(|note| has_failed || note.is_unset());
            compared.right(entry, is_found.then_some(cannot));
        } else if !is_found {
            compared.wrong(entry);
        }
        Ok(())
    })?;
    let right = settle(&mut job.done(), &found, compared);
    // Whoever set it, or tried to, this user cannot.
    right.into_iter().for_each(|(path, cannot)| job.note(&path, cannot));
    Ok(())
}

impl Compared {
    fn right(&mut self, entry: Entry, found: Option<Notes>) {
        if entry.metadata.kind == EntryKind::File {
            self.files += 1;
            self.bytes = self.bytes.saturating_add(entry.metadata.size);
        }
        self.right.extend(found.map(|cannot| (entry.path, cannot)));
    }

    fn wrong(&mut self, entry: Entry) {
        if entry.metadata.kind != EntryKind::Socket {
            self.wrongs += 1;
            let error = Error::new(ErrorKind::Incomplete, NOT_OURS).with_remedy(REMEDY);
            if has_room(self.wrong.len(), &mut self.wrong_bytes, said_bytes(&entry.path, &error)) {
                self.wrong.push((entry.path, error));
            }
        }
    }
}

/// What is there of what failed.
fn found(job: &Job<'_>) -> Found {
    let mut found = Found::default();
    let done = job.done();
    found.all = done.failures > done.failed.len() as u64;
    // What could not be set differs, and is no failure: it has to be known.
    if !job.target.was_empty() || found.all && done.unset > 0 {
        return found;
    }
    let mut look = Look::new(job.target);
    // What cannot be looked at is not known to be there.
    let mut at = |path: &[u8]| look.at(job.below(path)).ok().flatten();
    for (path, _) in done.failed.iter().filter(|(_, error)| error.kind() == ErrorKind::Incomplete) {
        found.failed.extend(at(path).map(|is| (path.clone(), is.kind == EntryKind::Directory)));
    }
    for (path, _) in done.notes.iter().filter(|(_, note)| note.is_unset()) {
        found.unset.extend(at(path).filter(|is| is.is_frozen()).map(|_| path.clone()));
    }
    found
}

/// What is there is as in the snapshot, though this restore has not written it.
fn accept(entry: &Entry, pass: &Pass<'_>, job: &Job<'_>) -> Result<()> {
    if entry.metadata.kind != EntryKind::File {
        return Ok(());
    }
    let size = entry.metadata.size;
    let mut done = job.done();
    done.count(size);
    done.files_unchanged += 1;
    done.bytes_unchanged = done.bytes_unchanged.saturating_add(size);
    drop(done);
    // What this restore has written of it is of no use any more.
    match unfinished_path(&entry.path) {
        Ok(unfinished) if !may_hold(pass.nodes, job.snapshot.root, &unfinished)? => {
            job.target.forget_unfinished(job.below(&unfinished))
        }
        _ => Ok(()),
    }
}

/// Takes back what was said of entries that are right, and says of the others whose they are. Gives those that are right,
/// with what has to be said of them instead.
fn settle(done: &mut Restored, found: &Found, compared: Compared) -> BTreeMap<Vec<u8>, Notes> {
    let Compared { right, files, bytes, wrong, wrongs, .. } = compared;
    // It is said anew of what stays.
    let (mut failures, mut kinds) = (0, HashSet::new());
    done.named.failed = 0;
    for (path, error) in std::mem::take(&mut done.failed) {
        if right.contains_key(&path) && found.failed.contains_key(&path) {
            continue;
        }
        // What the system said tells nobody whose it is; other errors say what is the matter.
        let is_of_others = found.failed.get(&path) == Some(&false) && error.source().is_some();
        let error = if is_of_others { error.context(NOT_OURS).with_remedy(REMEDY) } else { error };
        failures += 1;
        kinds.insert(error.kind());
        done.name_failed(path, error);
    }
    done.failures = failures;
    if found.all {
        done.failures += wrongs;
        wrong.into_iter().for_each(|(path, error)| done.name_failed(path, error));
        done.files_unchanged += files.saturating_sub(done.files);
        done.bytes_unchanged = done.bytes_unchanged.saturating_add(bytes.saturating_sub(done.bytes));
        (done.files, done.bytes) = (files, bytes);
    } else {
        done.kinds.clear();
    }
    if done.failures == 0 {
        done.kinds.clear();
    }
    kinds.extend(done.failed.iter().map(|(_, error)| error.kind()));
    done.kinds.extend(kinds);
    let mut unset = done.unset;
    done.notes.retain(|(path, note)| {
        let goes = note.is_unset() && found.unset.contains(path) && right.contains_key(path);
        unset -= u64::from(goes);
        !goes
    });
    done.unset = unset;
    right
}
