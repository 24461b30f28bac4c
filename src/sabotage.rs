//! Ways to build the commit protocol wrongly. The simulator turns one on and must then lose data: else it is blind.
//! A program that is released has none of them: there the question is answered with a constant no.

/// What is built wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A backup does not look again before it commits: the grace alone is to save it.
    GraceOnly,
    /// A snapshot is sent however old its view is.
    NoDeadline,
    /// An index entry counts although LIST does not show its pack.
    NoList,
    /// A view reads the tombstones after the index and the packs.
    TombstonesLast,
    /// The age of tombstones is judged by a probe that was written after the LIST of snapshots. Loses data only together
    /// with [`Self::NoSecondLook`]: `docs/decisions/0014-simulator.md` says why.
    AgeAfterList,
    /// A prune does not list the snapshots once more before it deletes.
    NoSecondLook,
    /// A pack that is needed again gets its tombstone taken off.
    Resurrection,
    /// A copy that is to die itself, or that nobody may use, makes another one superfluous.
    EveryCopy,
    /// What was rescued is not looked at before the packs are deleted.
    BlindRescue,
    /// Tombstones go with their packs, although an index may still list these.
    ForgetfulTombstones,
}

#[cfg(debug_assertions)]
pub use on::sabotage;
#[cfg(debug_assertions)]
pub(crate) use on::suffers;

/// Whether this is built wrongly: never.
#[cfg(not(debug_assertions))]
pub(crate) const fn suffers(_: Sabotage) -> bool {
    false
}

#[cfg(debug_assertions)]
mod on {
    use std::cell::Cell;

    use super::Sabotage;

    thread_local! {
        static ON: Cell<&'static [Sabotage]> = const { Cell::new(&[]) };
    }

    /// From now on these are built wrongly, on this thread. Only for simulations, and only in builds with debug
    /// assertions.
    pub fn sabotage(what: &'static [Sabotage]) {
        ON.set(what);
    }

    pub(crate) fn suffers(what: Sabotage) -> bool {
        ON.get().contains(&what)
    }
}
