//! Deletions one after the other, where the storage may refuse them: under a lock, or by a policy. A refusal is no
//! failure. What was to go is marked as such, so nobody counts on it, and the next run tries again.

use crate::{
    error::{Error, Result},
    store::{Deletion, Name, Store},
};

/// After so many refusals in a row one more object is left out between two tries, and so on: of 100,000 objects that
/// all are kept fewer than 2,000 are tried, and some of any larger group that may go are found.
const PATIENCE: u64 = 16;

/// Objects that were to go and that the storage keeps.
#[derive(Debug, Default)]
pub struct Kept {
    /// How many.
    pub objects: u64,
    /// What the storage said of the first one.
    pub why: Option<Error>,
}

impl Kept {
    pub(super) fn join(&mut self, other: Self) {
        self.objects += other.objects;
        self.why = self.why.take().or(other.why);
    }
}

/// Deletes objects of one kind, best the oldest first: of these a lock ends first.
pub(super) struct Deleter<'a> {
    store: &'a Store,
    /// What was kept so far.
    pub(super) kept: Kept,
    in_a_row: u64,
    left_out: u64,
}

impl<'a> Deleter<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, kept: Kept::default(), in_a_row: 0, left_out: 0 }
    }

    /// Says whether the object is gone.
    ///
    /// # Errors
    /// Storage trouble; `Interrupted`.
    pub(super) fn delete(&mut self, name: &Name) -> Result<bool> {
        if self.left_out < self.in_a_row / PATIENCE {
            self.left_out += 1;
            self.kept.objects += 1;
            return Ok(false);
        }
        self.store.progress().check()?;
        match self.store.try_delete(name)? {
            Deletion::Gone => self.in_a_row = 0,
            Deletion::Kept(why) => {
                (self.in_a_row, self.left_out) = (self.in_a_row + 1, 0);
                self.kept.objects += 1;
                self.kept.why.get_or_insert(why);
            }
        }
        Ok(self.in_a_row == 0)
    }
}
