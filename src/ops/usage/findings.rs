//! What an account finds beside numbers.

use super::{NAMED_MAX, reach::Reached};
use crate::error::{Error, ErrorKind};

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub objects: u64,
    /// How large together.
    pub bytes: u64,
}

impl Tally {
    pub(super) const fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// An object that the records do not explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexplained {
    /// Its name.
    pub object: String,
    /// Its size in LIST; `None` when it is not there.
    pub size: Option<u64>,
    /// Why.
    pub why: String,
}

/// What is worth knowing, and what is not as it should be.
#[derive(Debug, Default)]
pub struct Findings {
    /// Packs that no index lists, counted as dead: of a backup that runs now, or that was cut short.
    pub unindexed: Tally,
    /// Packs that are set aside, counted as dead.
    pub set_aside: Tally,
    /// Packs that an index still lists and that a prune has deleted.
    pub deleted: u64,
    /// Reached blobs that only packs hold which are to die: the next prune rescues them.
    pub dying: u64,
    /// Reached blobs that only packs hold which are set aside: a restore still reads what is good of them.
    pub aside: u64,
    /// How many objects nothing explains.
    pub unexplained_found: u64,
    /// The first of them.
    pub unexplained: Vec<Unexplained>,
    /// How many things are damaged, so that the numbers may be too small.
    pub problems_found: u64,
    /// How many of them are only what another key can read.
    pub sealed_found: u64,
    /// The first of them.
    pub problems: Vec<Error>,
}

impl Findings {
    pub(super) fn unexplained(&mut self, object: &str, size: Option<u64>, why: String) {
        self.unexplained_found += 1;
        if self.unexplained.len() < NAMED_MAX {
            self.unexplained.push(Unexplained { object: object.to_owned(), size, why });
        }
    }

    pub(super) fn problem(&mut self, error: Error) {
        self.problems_found += 1;
        self.sealed_found += u64::from(error.kind() == ErrorKind::Forbidden);
        if self.problems.len() < NAMED_MAX {
            self.problems.push(error);
        }
    }

    pub(super) fn take(&mut self, reached: &mut Reached) {
        self.dying += reached.dying;
        self.aside += reached.aside;
        std::mem::take(&mut reached.problems).into_iter().for_each(|error| self.problem(error));
        for id in std::mem::take(&mut reached.lost) {
            let what = "a snapshot needs it, and no pack that is there holds it";
            self.problem(Error::damaged(format!("blob {id}"), what));
        }
    }
}
