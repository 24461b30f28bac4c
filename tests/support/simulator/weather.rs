//! What goes wrong in a run, and how often: drawn from its seed.

use std::time::Duration;

use lifeboat::sabotage::Sabotage;

use super::chance::Chance;

/// The commit window and the grace of the repository.
pub(crate) const WINDOW: Duration = Duration::from_mins(10);
pub(crate) const GRACE: Duration = Duration::from_hours(72);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Put,
    Get,
    Head,
    List,
    Delete,
}

/// Whether a create that meets an object fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conditions {
    Kept,
    Ignored,
    /// Two at once may both succeed.
    Racy,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    #[default]
    Works,
    /// It has done nothing.
    Fails,
    /// It is done.
    LosesReply,
    /// A PUT fails, and takes effect so much later.
    ArrivesLate(Duration),
    /// A PUT says that it is done, and keeps nothing.
    Forgets,
    /// A PUT says that it is done, and keeps half.
    Cuts,
    /// A GET gives one byte less than it says.
    Shortens,
    /// A GET gives one bit otherwise.
    Flips,
    /// A LIST shows what was there so long ago.
    Stale(Duration),
    /// A LIST leaves out some.
    Partial,
    /// This client, or everybody, has no network for so long.
    Outage(bool, Duration),
    KillsBefore,
    KillsAfter,
}

/// A call and its way back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) fate: Fate,
    pub(crate) back: Duration,
}

/// An outage of years is one without an end.
const FOR_EVER: Duration = Duration::from_hours(100_000);

/// What is built wrongly, so that runs must fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// LIST and HEAD show whatever was acknowledged: as if a backup did not look before it commits.
    Lists,
    /// GET gives whatever was acknowledged: as if nothing was read back.
    ReadBack,
    /// The clock of a client stands still while it sleeps: as if there was no commit window.
    Clock,
    /// The engine itself.
    Engine(&'static [Sabotage]),
}

/// How many of a thousand calls meet what.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) conditions: Conditions,
    /// Somebody sleeps about as long as the commit window, or as the grace.
    pauses: u64,
    fails: u64,
    late: u64,
    lies: u64,
    garbles: u64,
    hides: u64,
    outages: u64,
    kills: u64,
}

impl Weather {
    pub(crate) fn new(chance: &mut Chance) -> Self {
        let conditions = chance.pick(&[Conditions::Kept, Conditions::Ignored, Conditions::Racy]);
        // Most runs have one or two troubles, each rare or frequent.
        let mut some = |per_mille: u64, often: u64| {
            if chance.happens(per_mille) { chance.pick(&[often / 10 + 1, often / 3, often]) } else { 0 }
        };
        Self {
            conditions,
            pauses: some(400, 60),
            fails: some(300, 100),
            late: some(120, 60),
            lies: some(120, 60),
            garbles: some(120, 60),
            hides: some(120, 60),
            outages: some(100, 20),
            kills: some(300, 20),
        }
    }

    /// As [`Self::new`], where somebody deletes: a LIST that is not true is beyond what anybody can bear who does,
    /// and people sleep often, so that backups, `forget` and prunes meet.
    pub(crate) fn of_life_cycles(chance: &mut Chance) -> Self {
        let pauses = chance.pick(&[0, 20, 60, 120]);
        Self { pauses, hides: 0, ..Self::new(chance) }
    }

    /// Where a rule is left out: everybody sleeps, now and then a PUT keeps nothing, and nothing else goes wrong.
    pub(crate) fn of_losses(chance: &mut Chance) -> Self {
        Self { pauses: chance.pick(&[30, 60, 120]), lies: chance.pick(&[0, 30]), ..Self::calm() }
    }

    /// Nothing goes wrong.
    pub(crate) const fn calm() -> Self {
        Self {
            conditions: Conditions::Kept,
            pauses: 0,
            fails: 0,
            late: 0,
            lies: 0,
            garbles: 0,
            hides: 0,
            outages: 0,
            kills: 0,
        }
    }

    /// Whatever it says is true, if it says something at all.
    pub(crate) const fn is_honest(&self) -> bool {
        self.late + self.lies + self.garbles + self.hides == 0
    }

    /// What is there may not be shown, or may arrive when nobody waits for it: chains may fork.
    pub(crate) const fn hides_or_is_late(&self) -> bool {
        self.late + self.hides > 0
    }

    fn way(&self, chance: &mut Chance) -> Duration {
        if chance.happens(self.pauses) {
            let longest = chance.pick(&[WINDOW, WINDOW * 2, GRACE / 4, GRACE * 2]);
            return chance.time(longest);
        }
        chance.time(Duration::from_millis(200))
    }

    /// How long a call is under way, and what becomes of it.
    pub(crate) fn plan(&self, call: Call, chance: &mut Chance) -> (Duration, Plan) {
        let (to, back) = (self.way(chance), self.way(chance));
        (to, Plan { fate: self.fate(call, chance), back })
    }

    fn fate(&self, call: Call, chance: &mut Chance) -> Fate {
        let writes = matches!(call, Call::Put | Call::Delete);
        if chance.happens(self.kills) {
            return chance.pick(&[Fate::KillsBefore, Fate::KillsAfter]);
        }
        if chance.happens(self.outages) {
            let longest = chance.pick(&[Duration::from_secs(20), Duration::from_mins(20), FOR_EVER]);
            return Fate::Outage(chance.happens(500), chance.time(longest));
        }
        if chance.happens(self.fails) {
            return if writes { chance.pick(&[Fate::Fails, Fate::LosesReply]) } else { Fate::Fails };
        }
        match call {
            Call::Put if chance.happens(self.late) => Fate::ArrivesLate(chance.time(WINDOW * 2)),
            Call::Put if chance.happens(self.lies) => chance.pick(&[Fate::Forgets, Fate::Cuts]),
            Call::Get if chance.happens(self.garbles) => chance.pick(&[Fate::Shortens, Fate::Flips]),
            Call::List if chance.happens(self.hides) => {
                let by = chance.time(Duration::from_secs(20));
                chance.pick(&[Fate::Stale(by), Fate::Partial])
            }
            _ => Fate::Works,
        }
    }
}
