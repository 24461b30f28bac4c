//! Schedules that are aimed at one rule of the protocol: which call of whom is held up, and until when. Chance would have
//! to hit all of them in one run.

use std::{sync::Mutex, time::Duration};

use super::{
    chance::Chance,
    weather::{Call, Fate, GRACE, WINDOW},
    workload::{Cast, Client, Command},
};
use crate::support::lab::{Files, noise};

/// Which way of a call takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It takes effect late.
    There,
    /// It has taken effect, and its client hears of it late.
    Back,
}

/// The first call of a command that is like this is held up.
#[derive(Clone, Debug)]
pub(crate) struct Aim {
    /// The client and the number of its command.
    pub(crate) at: (usize, usize),
    pub(crate) call: Call,
    /// What its name has in it.
    pub(crate) part: String,
    /// Calls before this are left alone.
    pub(crate) from: Duration,
    pub(crate) way: Way,
    pub(crate) until: Duration,
    pub(crate) fate: Fate,
}

impl Aim {
    fn new(at: (usize, usize), (call, part): (Call, &str), until: Duration) -> Self {
        Self {
            at,
            call,
            part: part.to_owned(),
            from: Duration::ZERO,
            way: Way::There,
            until,
            fate: Fate::Works,
        }
    }

    fn from(self, from: Duration) -> Self {
        Self { from, ..self }
    }
}

/// The aims of a run; each hits once.
#[derive(Default)]
pub(crate) struct Aims(Mutex<Vec<Aim>>);

impl Aims {
    pub(crate) fn new(aims: Vec<Aim>) -> Self {
        Self(Mutex::new(aims))
    }

    pub(crate) fn hit(&self, at: (usize, usize), (call, name): (Call, &str), now: Duration) -> Option<Aim> {
        let mut aims = self.0.lock().unwrap();
        let is_hit =
            |aim: &Aim| aim.at == at && aim.call == call && now >= aim.from && name.contains(&aim.part);
        let hit = aims.iter().position(is_hit)?;
        Some(aims.remove(hit))
    }

    /// What nobody has called for.
    pub(crate) fn missed(&self) -> Vec<Aim> {
        self.0.lock().unwrap().clone()
    }
}

/// Calls at which a command that is held up does the most harm, where a rule is missing.
const SOFT_SPOTS: [(Call, &str); 9] = [
    (Call::Put, "/snapshots/"),
    (Call::Put, "/packs/"),
    (Call::Put, "/tombstones/"),
    (Call::Put, "/index/"),
    (Call::List, "/snapshots"),
    (Call::List, "/tombstones"),
    (Call::List, "/index"),
    (Call::Delete, "/packs/"),
    (Call::Delete, "/tombstones/"),
];

/// Holds up commands of a life cycle there, by chance.
pub(crate) fn by_chance(clients: &[Client], chance: &mut Chance) -> Vec<Aim> {
    let mut aims = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        let mut begun = Duration::ZERO;
        for (command, what) in client.script.iter().enumerate() {
            match what {
                Command::Wait(until) => begun = begun.max(*until),
                Command::BackUp(_) | Command::Prune if chance.happens(500) => {
                    let longest = chance.pick(&[WINDOW, WINDOW, GRACE / 4, GRACE * 2]);
                    let until = begun + chance.time(longest);
                    let aim = Aim::new((number, command), chance.pick(&SOFT_SPOTS), until);
                    let lies = aim.call == Call::Put && aim.part == "/packs/" && chance.happens(300);
                    let fate = if lies { Fate::Forgets } else { Fate::Works };
                    aims.push(Aim { way: chance.pick(&[Way::There, Way::Back]), fate, ..aim });
                }
                _ => {}
            }
        }
    }
    aims
}

/// A schedule for one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Both copies of what a late snapshot needs are to die.
    TwoCopies,
    /// The copy that saves it does not arrive.
    LostRescue,
    /// One prune saves a pack that another one, which looked after a `forget`, is about to delete.
    SavedAndDeleted,
    /// A prune stands still for longer than the grace between its list of snapshots and that of the index.
    SlowLook,
    /// A pack goes, and then the tombstones that name it, while a backup takes its last look.
    SlowView,
}

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);
/// When everything that was forgotten is older than a day.
const LATER: Duration = Duration::from_hours(30);
/// When the grace of what was marked then is over.
const AFTER: Duration = Duration::from_hours(104);
/// When tombstones of then are older than 30 days.
const MONTH: Duration = Duration::from_hours(33 * 24);

fn content(seed: u64) -> Files {
    Files::from([("srv/0/0".to_owned(), noise(seed, 90_000))])
}

/// Commands, each with the time at which it begins. Number `n` of them is number `2 n + 1` of the script.
fn script(commands: Vec<(Duration, Command)>) -> Vec<Command> {
    commands.into_iter().flat_map(|(at, command)| [Command::Wait(at), command]).collect()
}

const fn nth(client: usize, number: usize) -> (usize, usize) {
    (client, 2 * number + 1)
}

/// The second of two machines with one key, and two that maintain.
const OTHER: usize = 1;
const MIA: usize = 2;
const MAX: usize = 3;

impl Scene {
    pub(crate) const ALL: [Self; 5] =
        [Self::TwoCopies, Self::LostRescue, Self::SavedAndDeleted, Self::SlowLook, Self::SlowView];

    /// A backs up, something else takes its place and it is forgotten. A day later the other machine backs up A again
    /// while a prune marks it, so that the snapshot comes after the prune has listed the snapshots and within the
    /// window; except in the last scene. What happens then is the scene.
    pub(crate) fn play(self, chance: &mut Chance) -> (Vec<Client>, Vec<Aim>) {
        let (a, b, c) = (content(1), content(2), content(3));
        let mut one = vec![(Duration::ZERO, Command::BackUp(a.clone())), (HOUR, Command::BackUp(b))];
        let mut other = vec![(LATER, Command::BackUp(a.clone()))];
        let mut mia = vec![(2 * HOUR, Command::Forget(1)), (LATER + 4 * MINUTE, Command::Prune)];
        let mut max = Vec::new();
        let mut aims = Vec::new();
        let late = |number| Aim::new(nth(OTHER, number), (Call::Put, "/snapshots/"), LATER + 8 * MINUTE);
        match self {
            Self::TwoCopies => {
                other.insert(0, (Duration::ZERO, Command::BackUp(a)));
                // It has looked before the first one has stored anything.
                aims.extend([Aim::new(nth(OTHER, 0), (Call::Put, "/packs/"), 5 * MINUTE), late(1)]);
                mia.push((AFTER, Command::Prune));
            }
            Self::LostRescue => {
                mia.push((AFTER, Command::Prune));
                let lost = Aim::new(nth(MIA, 2), (Call::Put, "/packs/d/"), AFTER);
                aims.extend([late(0), Aim { fate: Fate::Forgets, ..lost }]);
            }
            Self::SavedAndDeleted => {
                mia.push((AFTER, Command::Prune));
                // As if it took the tombstones off, and was slow to.
                aims.extend([
                    late(0),
                    Aim::new(nth(MIA, 2), (Call::Delete, "/tombstones/"), AFTER + 40 * MINUTE),
                ]);
                one.push((AFTER + 10 * MINUTE, Command::BackUp(c)));
                max.push((AFTER + 20 * MINUTE, Command::Forget(1)));
                max.push((AFTER + 30 * MINUTE, Command::Prune));
                aims.push(Aim::new(nth(MAX, 1), (Call::Delete, "/packs/"), AFTER + 2 * HOUR));
                other.push((AFTER + HOUR, Command::BackUp(a)));
            }
            Self::SlowLook => {
                max.push((LATER + 5 * MINUTE, Command::Prune));
                let index = format!("d/{}/index", Cast::get().dora);
                aims.extend([late(0), Aim::new(nth(MAX, 0), (Call::List, &index), AFTER)]);
            }
            Self::SlowView => {
                let mut more = a;
                more.insert("srv/0/1".to_owned(), noise(4, 90_000));
                other[0] = (LATER, Command::BackUp(more));
                // It has looked, and sends something for more than a month; then it looks again, slowly. Meanwhile one
                // prune deletes the pack with the index object, and the next one the tombstones.
                let last = Aim::new(nth(OTHER, 0), (Call::List, "/tombstones"), MONTH + 8 * MINUTE);
                aims.extend([Aim::new(nth(OTHER, 0), (Call::Put, "/packs/"), MONTH), last.from(MONTH)]);
                mia.push((MONTH + MINUTE, Command::Prune));
                max.push((MONTH + 4 * MINUTE, Command::Prune));
            }
        }
        let clients = [("dora", one), ("dora", other), ("mia", mia), ("mia", max)];
        (clients.map(|(label, commands)| Client::steady(label, script(commands), chance)).into(), aims)
    }
}
