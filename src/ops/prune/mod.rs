//! `prune`: frees what no snapshot needs, in two runs. The first one marks packs with tombstones; the next one, when
//! these are older than the grace, looks at everything again, rescues what is needed after all, and deletes the
//! packs. `docs/protocol.md` says why that is safe beside any number of backups and other prunes, each of which
//! may stand still for days at any call; `Pruning::run` in `domain.rs` is the one place that shows the order.

use std::time::Duration;

use self::domain::Pruning;
pub use super::Mode;
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        pack::{Directory, Frame, SectionHeader},
        registry::Use,
    },
    id::DomainId,
    progress::Phase,
    repository::Repository,
};

pub(super) mod bits;
mod compact;
mod cut;
mod domain;
mod mark;
mod reach;
mod repack;
mod rescue;
mod sweep;

/// What to do.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// A longer grace than the repository's.
    pub grace: Option<Duration>,
    /// Nothing more is begun after so long: the next run carries on. Each domain may take an equal share of what is left when
    /// its turn comes.
    pub max_time: Option<Duration>,
    /// What may stay unused in packs that hold something that is needed.
    pub max_unused: Unused,
    /// At most so many bytes are moved to other packs.
    pub max_repack: Option<u64>,
    /// From so many small packs of a kind on they are merged.
    pub small_packs: usize,
    /// Whether anything is written.
    pub mode: Mode,
    /// The name of this machine, for the record that a run began.
    pub host: String,
}

/// Unused bytes that stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unused {
    /// So many in a hundred that are needed.
    Percent(u32),
    /// So many bytes.
    Bytes(u64),
    /// However many.
    Any,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            grace: None,
            max_time: None,
            max_unused: Unused::Percent(5),
            max_repack: None,
            small_packs: 16,
            mode: Mode::Write,
            host: String::new(),
        }
    }
}

/// Packs, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packs {
    /// How many.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Packs {
    pub(super) const fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }

    /// And these.
    pub const fn join(&mut self, other: Self) {
        self.packs += other.packs;
        self.bytes += other.bytes;
    }
}

/// What a domain takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// The packs that are there.
    pub packs: Packs,
    /// Requests of one look at all of it, by a machine without a cache.
    pub requests: u64,
}

/// What the storage refused to delete: a lock holds it, or a policy does. It stays marked, nobody counts on it, and
/// the next run tries again.
#[derive(Debug, Default)]
pub struct Kept {
    /// Packs that nobody needs and whose grace is over.
    pub packs: Packs,
    /// Everything else: snapshots that have ended, index objects, tombstones, records.
    pub others: u64,
    /// When the storage got the oldest of the packs.
    pub oldest: Option<Timestamp>,
    /// When it makes sense to try the packs again, by the storage's clock: when the oldest one is as old as the youngest
    /// that could be deleted now; where none could, in a day.
    pub next_try: Option<Timestamp>,
    /// What the storage said first.
    pub why: Option<Error>,
}

impl Kept {
    /// Whether there is any.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.packs.packs > 0 || self.others > 0
    }

    pub(super) fn add(&mut self, others: super::deleting::Kept) {
        self.others += others.objects;
        self.why = self.why.take().or(others.why);
    }
}

/// What was done in a domain, or would be.
#[derive(Debug, Default)]
pub struct DomainDone {
    /// Snapshots that need something.
    pub snapshots: u64,
    /// What there was.
    pub before: Size,
    /// What there is now.
    pub after: Size,
    /// Packs that are gone for good.
    pub deleted: Packs,
    /// What the storage refused to delete.
    pub kept: Kept,
    /// Dying packs of which something was needed, and was copied out.
    pub rescued: Packs,
    /// Packs whose needed part was moved to others: they die when the grace is over.
    pub repacked: Packs,
    /// Bytes of frames that were moved from them.
    pub moved: u64,
    /// Frames of which what is needed was cut out and sealed anew.
    pub cut: u64,
    /// Packs that were written for that.
    pub written: Packs,
    /// Bytes that nobody needs, in packs that stay.
    pub unused: u64,
    /// Bytes that nobody needs in frames that hold something else, about: only a prune that reads contents, an owner's, cuts
    /// them out.
    pub pinned: u64,
    /// Packs that no snapshot needs any more, and those that were repacked: they die when the grace is over.
    pub marked: Packs,
    /// Packs that were marked before and are still there.
    pub waiting: Packs,
    /// Packs that nobody needs yet and that seem to be those of a backup that runs.
    pub under_way: Packs,
    /// Packs that no snapshot needs and that are too young to be marked.
    pub young: Packs,
    /// When the first of these can be marked, by the storage's clock.
    pub next_marking: Option<Timestamp>,
    /// Index objects that were written without the packs that are gone.
    pub index_written: u64,
    /// Index objects that these replaced long enough ago.
    pub index_deleted: u64,
    /// Batches of tombstones, records of runs, and what was said of snapshots that are gone.
    pub records_deleted: u64,
    /// Snapshots that a `forget` had ended and not deleted.
    pub finished: u64,
    /// When the next packs can be deleted, by the storage's clock.
    pub next_deletion: Option<Timestamp>,
    /// Whether the time was up before everything was done.
    pub out_of_time: bool,
    /// What is worth knowing.
    pub notes: Vec<Error>,
}

impl DomainDone {
    /// Says each of these once: several steps of a run may meet the same trouble.
    fn note(&mut self, errors: Vec<Error>) {
        for error in errors {
            if self.notes.iter().all(|known| known.to_string() != error.to_string()) {
                self.notes.push(error);
            }
        }
    }
}

/// What came of one domain.
#[derive(Debug)]
pub struct OfDomain {
    /// Which.
    pub id: DomainId,
    /// Its name.
    pub name: String,
    /// What was done.
    pub done: DomainDone,
    /// Why nothing more was: something that may be needed is in doubt.
    pub refused: Option<Error>,
}

/// What a prune did, or would do.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Each domain, as far as it came.
    pub domains: Vec<OfDomain>,
    /// What ended it before all domains were done: trouble that is not of one domain.
    pub stopped: Option<Error>,
}

/// Frees what no snapshot needs. Where something is in doubt nothing more is done in that domain, and the others go on.
///
/// # Errors
/// `Forbidden` for a role that may not; `Usage` for a grace below the repository's; storage trouble before the first
/// domain (later it stands beside what was done).
pub fn run(repository: &Repository, options: &PruneOptions) -> Result<Pruned> {
    repository.check_maintains("prune")?;
    let least = Duration::from_secs(repository.config.minimum_grace_seconds);
    let grace = options.grace.unwrap_or(least);
    if grace < least {
        let text = format!("a grace of {} s is shorter than the repository's", grace.as_secs());
        return Err(Error::new(ErrorKind::Usage, text)
            .with_remedy(format!("It is at least {} s and can only be made longer", least.as_secs())));
    }
    repository.store.progress().enter(Phase::Checking);
    let until = options.max_time.map(|time| repository.clock.elapsed() + time);
    let registry = repository.look_for_registry()?;
    registry.check_features(Use::Prune)?;
    let mut pruned = Pruned::default();
    for (domain, to_come) in registry.domains.iter().zip((1..=registry.domains.len()).rev()) {
        let until = until.map(|until| end_of_share((repository.clock.elapsed(), until), to_come));
        let pruning = Pruning { repository, id: domain.id, options, grace, until };
        let mut done = DomainDone::default();
        let mut refused = pruning.run(&mut done).err();
        pruned.stopped = refused.take_if(|error| !is_doubt(error));
        pruned.domains.push(OfDomain { id: domain.id, name: domain.name.clone(), done, refused });
        if pruned.stopped.is_some() {
            break;
        }
    }
    Ok(pruned)
}

/// When the time of a domain is up, if so many with it are to come: a domain that always takes all that it gets must not
/// keep those behind it from ever having a turn.
fn end_of_share((now, until): (Duration, Duration), to_come: usize) -> Duration {
    now + until.saturating_sub(now) / u32::try_from(to_come.max(1)).unwrap_or(u32::MAX)
}

fn lost_pack() -> Error {
    Error::damaged("the local cache", "it lost a pack")
}

/// The header of the section that a frame is in.
fn section_of<'d>(directory: &'d Directory, frame: &Frame) -> Result<&'d SectionHeader> {
    directory.sections.get(usize::from(frame.section)).ok_or_else(lost_pack)
}

/// Whether it is about what is in one domain. Forbidden is what an epoch wrote that this key does not open.
fn is_doubt(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Damaged | ErrorKind::Failed | ErrorKind::NotFound | ErrorKind::Forbidden
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_that_takes_all_that_it_gets_leaves_the_others_as_much() {
        let [start, until] = [100, 130].map(Duration::from_secs);
        // What each of three takes at most, or as much as the second needs.
        let first = end_of_share((start, until), 3);
        let second = end_of_share((first, until), 2);
        assert_eq!(
            [first, second, end_of_share((second, until), 1)],
            [110, 120, 130].map(Duration::from_secs)
        );
        assert_eq!(end_of_share((Duration::from_secs(104), until), 2), Duration::from_secs(117));
        // A call that outlasts everything leaves nothing.
        let late = Duration::from_secs(140);
        assert_eq!(end_of_share((late, until), 2), late);
    }

    #[test]
    fn what_two_steps_find_is_said_once() {
        let (mut done, found) = (DomainDone::default(), |name: &str| Error::damaged(name, "torn"));
        done.note(vec![found("one"), found("other")]);
        done.note(vec![found("one")]);
        assert_eq!(done.notes.len(), 2);
    }
}
