//! The real engine, on threads of which one runs at a time, over a storage in memory, with a clock for each
//! client. All that happens follows from a seed; `docs/decisions/0014-simulator.md` says how.

use std::{fmt::Write, sync::Arc, time::Duration};

use lifeboat::random;

use self::{
    aims::Scene,
    chance::Chance,
    storage::StorageClock,
    weather::{Broken, Weather},
    workload::{Cast, Client},
    world::{Pruned, Told, World},
};

pub(crate) mod aims;
pub(crate) mod chance;
pub(crate) mod clock;
pub(crate) mod curator;
pub(crate) mod forger;
pub(crate) mod scheduler;
pub(crate) mod storage;
pub(crate) mod verdict;
pub(crate) mod weather;
pub(crate) mod witness;
pub(crate) mod workload;
pub(crate) mod world;

/// What came of a run.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) problems: Vec<String>,
    /// Calls that were to be held up, and that nobody made.
    pub(crate) missed: Vec<aims::Aim>,
    /// Who was there, what was the matter, every call and how the commands ended.
    pub(crate) schedule: String,
    /// How many backups were tried, and how many clients were told that theirs is complete.
    pub(crate) tried: usize,
    pub(crate) promised: usize,
    pub(crate) pruned: Pruned,
    /// Whether the thief of a client's key has written something.
    pub(crate) hostile: bool,
}

/// What happens in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Story {
    /// Backups, restores, keys and `init`.
    Clients,
    /// Backups, `forget` and two prunes, over several times the grace.
    LifeCycle,
    /// The same with eight machines that back up.
    Eight,
    /// As the life cycle, beside the thief of a client's key.
    Thief,
    /// One schedule, aimed at one rule.
    Aimed(Scene),
}

/// One run of the engine, or of one that is broken.
pub(crate) fn run(seed: u64, story: Story, broken: Option<Broken>) -> Run {
    let (cast, mut chance) = (Cast::get(), Chance::new(seed));
    let mut aims = Vec::new();
    let (weather, clients) = match story {
        Story::Clients => (Weather::new(&mut chance), Client::some(&mut chance)),
        Story::LifeCycle | Story::Eight | Story::Thief if broken.is_some() => {
            let (weather, clients) = (Weather::of_losses(&mut chance), life_cycle(story, &mut chance));
            if chance.happens(500) {
                aims = aims::by_chance(&clients, &mut chance);
            }
            (weather, clients)
        }
        Story::LifeCycle | Story::Eight | Story::Thief => {
            (Weather::of_life_cycles(&mut chance), life_cycle(story, &mut chance))
        }
        Story::Aimed(scene) => {
            let clients;
            (clients, aims) = scene.play(&mut chance);
            (Weather::calm(), clients)
        }
    };
    let nothing = std::collections::BTreeMap::new();
    let inits = matches!(clients[0].script[..], [workload::Command::Init]);
    let aimed = matches!(story, Story::Aimed(_));
    // What is done at once takes a while too.
    let length =
        clients.iter().map(Client::last_round).max().unwrap_or_default().max(Duration::from_secs(30));
    let clock = if aimed { StorageClock::default() } else { StorageClock::new(&mut chance, length) };
    let objects = match story {
        _ if inits => &nothing,
        Story::Eight => &cast.eight,
        _ => &cast.objects,
    };
    let world = World::new(chance, (objects, clock), (weather, broken, aims), clients.len());
    world.record().captured.clone_from(&cast.captured);
    world.run(seed, &clients);
    random::seed(seed);
    let problems = verdict::problems(&world, &clients);
    let schedule = schedule(&world, &clients);
    let pruned = world.record().pruned;
    let hostile = clients.iter().any(Client::is_forger) && !world.record().forged.is_empty();
    let snapshots = |told: &&(_, Told)| matches!(told.1, Told::Snapshot { .. });
    let promised = world.record().told.iter().filter(snapshots).count();
    let tried = clients.iter().map(Client::backups).sum();
    let missed = world.aims.missed();
    Run { seed, problems, missed, schedule, tried, promised, pruned, hostile }
}

fn life_cycle(story: Story, chance: &mut Chance) -> Vec<Client> {
    match story {
        Story::Eight => Client::of_eight(chance),
        Story::Thief => Client::of_thief(chance),
        _ => Client::of_life_cycle(chance),
    }
}

fn schedule(world: &Arc<World>, clients: &[Client]) -> String {
    let mut text = format!("{:?}\n{:?}\n", world.weather, world.storage.clock);
    for (number, client) in clients.iter().enumerate() {
        writeln!(text, "client {number}: {client}").unwrap();
    }
    let record = world.record();
    record.events.iter().for_each(|event| writeln!(text, "{event}").unwrap());
    for ((client, command), failure) in &record.failures {
        writeln!(text, "client {client}.{command} failed: {failure}").unwrap();
    }
    for ((client, command), said) in &record.notes {
        writeln!(text, "client {client}.{command} said: {said}").unwrap();
    }
    text
}
