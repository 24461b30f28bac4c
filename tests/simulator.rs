//! Thousands of runs of several clients at once, each with its own troubles, all of which follow from a seed.
//! `SIMULATOR_SEEDS=17 cargo test --test simulator whatever` runs one again and prints what happened in it;
//! `SIMULATOR_SEEDS=0..1000000 cargo test --test simulator whatever` runs a million, until five have failed.
#![cfg(debug_assertions)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::unimplemented,
    reason = "a test may stop at the first surprise"
)]

use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

mod support {
    pub(crate) mod lab;
    pub(crate) mod simulator;
}
use lifeboat::sabotage::Sabotage;
use support::simulator::{Run, Story, aims::Scene, run, weather::Broken, world::Pruned};

/// Each time that the tests run.
const SEEDS: Range<u64> = 0..1000;
/// Each time that the tests run, of those in which somebody deletes.
const LIFE_CYCLES: Range<u64> = 0..80;
/// Each time that the tests run, of those in which eight machines back up.
const EIGHTS: Range<u64> = 0..40;
/// Each time that the tests run, of those in which a thief has the key of a client.
const THIEVES: Range<u64> = 0..20;
/// Within so many each way to build it wrongly must be found.
const BROKEN_SEEDS: Range<u64> = 0..1000;
/// Within so many each rule of the protocol must be seen to be needed; they begin where the rule is found soon.
const LOSS_SEEDS: u64 = 600;
/// As many for eight machines.
const EIGHT_LOSS_SEEDS: Range<u64> = 660..1260;
/// As many beside a thief.
const THIEF_LOSS_SEEDS: Range<u64> = 680..1280;

/// The seeds that somebody asks for by hand.
#[expect(clippy::disallowed_methods, reason = "a test has no arguments of its own")]
fn asked_for() -> Option<Range<u64>> {
    let text = std::env::var("SIMULATOR_SEEDS").ok()?;
    let number =
        |text: &str| text.parse().unwrap_or_else(|_| panic!("SIMULATOR_SEEDS is N or FROM..TO: {text}"));
    Some(match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&text)..number(&text) + 1,
    })
}

#[derive(Default)]
struct Outcome {
    tried: usize,
    promised: usize,
    /// In how many runs each was done.
    pruned: Pruned,
    failed: Vec<Run>,
}

fn has_failed(run: &Run) -> bool {
    !run.problems.is_empty()
}

/// Runs them on all cores, until so many have failed in a way that counts.
fn run_all(
    seeds: Range<u64>,
    (story, broken): (Story, Option<Broken>),
    enough: usize,
    counts: impl Fn(&Run) -> bool + Sync,
) -> Outcome {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, outcome) = (AtomicU64::new(seeds.start), Mutex::new(Outcome::default()));
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while outcome.lock().unwrap().failed.len() < enough {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        break;
                    }
                    let run = run(seed, story, broken);
                    let mut outcome = outcome.lock().unwrap();
                    outcome.tried += run.tried;
                    outcome.promised += run.promised;
                    outcome.pruned.add(run.pruned.once());
                    if counts(&run) {
                        outcome.failed.push(run);
                    }
                }
            });
        }
    });
    outcome.into_inner().unwrap()
}

#[test]
fn the_same_seed_is_the_same_run() {
    for (seed, story) in (0..40).flat_map(|seed| [(seed, Story::Clients), (seed, Story::LifeCycle)]) {
        let (first, second) = (run(seed, story, None).schedule, run(seed, story, None).schedule);
        let differs = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert!(first == second, "seed {seed} of {story:?}: {differs:?}");
    }
}

#[test]
fn whatever_happens_nothing_that_was_promised_is_lost() {
    nothing_is_lost(Story::Clients, SEEDS);
}

#[test]
fn beside_forget_and_prune_nothing_that_was_promised_is_lost() {
    let Pruned { freed, repacked, cut, rescued, compacted, replaced } =
        nothing_is_lost(Story::LifeCycle, LIFE_CYCLES);
    let enough = freed > 40 && repacked > 8 && cut > 4 && rescued > 10 && compacted > 15 && replaced > 40;
    assert!(asked_for().is_some() || enough, "prunes must do all of it, to be looked at");
}

#[test]
fn beside_eight_machines_forget_and_prune_nothing_that_was_promised_is_lost() {
    let Pruned { freed, repacked, cut, rescued, compacted, replaced } = nothing_is_lost(Story::Eight, EIGHTS);
    let enough = freed > 15 && repacked > 10 && cut > 2 && rescued > 3 && compacted > 3 && replaced > 15;
    assert!(asked_for().is_some() || enough, "prunes must do all of it, to be looked at");
}

#[test]
fn beside_the_thief_of_a_key_nothing_that_was_promised_is_lost() {
    let Pruned { freed, compacted, .. } = nothing_is_lost(Story::Thief, THIEVES);
    let enough = freed > 5 && compacted > 2;
    assert!(asked_for().is_some() || enough, "prunes must delete something, to be looked at");
}

/// Gives in how many runs prunes did what.
#[expect(clippy::print_stdout, reason = "whoever runs a seed by hand reads it")]
fn nothing_is_lost(story: Story, seeds: Range<u64>) -> Pruned {
    let asked_for = asked_for();
    if let Some(seeds) = asked_for.as_ref().filter(|seeds| seeds.end - seeds.start == 1) {
        println!("{}", run(seeds.start, story, None).schedule);
    }
    let outcome = run_all(asked_for.clone().unwrap_or(seeds), (story, None), 5, has_failed);
    let Outcome { tried, promised, pruned, failed } = outcome;
    for Run { seed, problems, .. } in &failed {
        println!("SIMULATOR_SEEDS={seed}\n    {}", problems.join("\n    "));
    }
    if let Some(Run { seed, schedule, .. }) = failed.first() {
        panic!("seed {seed}:\n{schedule}");
    }
    println!("{promised} of {tried} backups succeeded; in so many runs prunes did something: {pruned:?}");
    assert!(
        asked_for.is_some() || promised > tried / 2,
        "{promised} of {tried}: most must succeed, to be looked at"
    );
    pruned
}

/// A simulator that finds nothing in these has gone blind.
#[test]
fn what_is_built_wrongly_is_found_soon() {
    for (broken, words) in [
        // The lost object may be the snapshot itself.
        (Broken::Lists, &["damaged", "is not listed"][..]),
        (Broken::ReadBack, &["was told otherwise"]),
        (Broken::Clock, &["after the view"]),
    ] {
        let failed = run_all(BROKEN_SEEDS, (Story::Clients, Some(broken)), 1, has_failed).failed;
        let problems = failed.first().map(|run| run.problems.join("; ")).unwrap_or_default();
        assert!(words.iter().any(|word| problems.contains(word)), "{broken:?}: {problems}");
        println!("{broken:?}: seed {}", failed[0].seed);
    }
}

/// A search with eight machines that finds nothing here has gone blind. (The other rules are left out with fewer of them.)
#[test]
fn with_eight_machines_too_data_is_lost_where_a_grace_is_all_there_is() {
    let broken = Broken::Engine(&[Sabotage::GraceOnly]);
    let is_lost = |run: &Run| run.problems.iter().any(|problem| is_loss(problem));
    let failed = run_all(EIGHT_LOSS_SEEDS, (Story::Eight, Some(broken)), 1, is_lost).failed;
    let lost = failed.first().unwrap_or_else(|| panic!("nothing was lost"));
    println!("seed {}: {}", lost.seed, lost.problems.join("; "));
}

/// A search beside a thief that finds nothing here has gone blind.
#[test]
fn beside_the_thief_of_a_key_too_data_is_lost_where_a_grace_is_all_there_is() {
    let broken = Broken::Engine(&[Sabotage::GraceOnly]);
    // Of the machine whose domain the thief writes to.
    let is_hers = |problem: &&String| problem.starts_with("the snapshot 0.");
    let is_lost =
        |run: &Run| run.hostile && run.problems.iter().filter(is_hers).any(|problem| is_loss(problem));
    let failed = run_all(THIEF_LOSS_SEEDS, (Story::Thief, Some(broken)), 1, is_lost).failed;
    let lost = failed.first().unwrap_or_else(|| panic!("nothing was lost"));
    println!("seed {}: {}", lost.seed, lost.problems.join("; "));
}

type Rules = &'static [Sabotage];

/// Schedules, the rules that each is for, and which of these are not enough alone.
const SCENES: [(Scene, Rules, &[Rules]); 5] = [
    (Scene::TwoCopies, &[Sabotage::EveryCopy], &[]),
    (Scene::LostRescue, &[Sabotage::BlindRescue], &[]),
    (Scene::SavedAndDeleted, &[Sabotage::Resurrection], &[]),
    (
        Scene::SlowLook,
        &[Sabotage::AgeAfterList, Sabotage::NoSecondLook],
        &[&[Sabotage::AgeAfterList], &[Sabotage::NoSecondLook]],
    ),
    (Scene::SlowView, &[Sabotage::TombstonesLast], &[]),
];

/// For each rule the schedule that it is for: with all rules nothing is lost there; without this one something is; and
/// where another rule stands behind it, something is lost only without both. Why that is so in every other schedule
/// too is written down in `docs/decisions/0014-simulator.md`.
#[test]
fn in_the_schedule_that_a_rule_is_for_data_is_lost_without_it() {
    assert!(SCENES.map(|(scene, ..)| scene) == Scene::ALL);
    for (seed, (scene, rules, alone)) in (0..2).flat_map(|seed| SCENES.map(|scene| (seed, scene))) {
        let play = |broken: Option<Broken>| run(seed, Story::Aimed(scene), broken);
        let whole = play(None);
        assert!(whole.problems.is_empty(), "{scene:?}: {:?}\n{}", whole.problems, whole.schedule);
        assert_eq!(whole.promised, whole.tried, "{scene:?}\n{}", whole.schedule);
        let lost = play(Some(Broken::Engine(rules)));
        assert!(
            lost.problems.iter().any(|problem| is_loss(problem)),
            "{scene:?} without {rules:?}\n{}",
            lost.schedule
        );
        // Only what is done without the rule is not done with it.
        let missed = lost.missed;
        assert!(missed.is_empty(), "{scene:?} without {rules:?}: {missed:?}\n{}", lost.schedule);
        for rules in alone {
            let held = play(Some(Broken::Engine(rules)));
            assert!(held.problems.is_empty(), "{scene:?} without {rules:?}\n{}", held.schedule);
        }
    }
}

fn is_loss(problem: &str) -> bool {
    problem.contains("does not restore")
}

/// Rules of the protocol that keep a deletion from being a loss: without one something is lost, by chance. (Where another
/// rule stands behind it, that one is broken too.) The other switches of `Sabotage` have schedules of their own; whoever
/// asks for seeds looks for those by chance too.
#[test]
fn without_a_rule_of_the_protocol_data_is_lost() {
    const BY_CHANCE: [(Rules, u64); 3] = [
        (&[Sabotage::GraceOnly], 600),
        (&[Sabotage::NoDeadline], 2040),
        (&[Sabotage::NoList, Sabotage::ForgetfulTombstones], 0),
    ];
    let asked_for = asked_for();
    let aimed = SCENES.map(|(_, rules, _)| (rules, 0)).into_iter().filter(|_| asked_for.is_some());
    let is_loss = |run: &Run| run.problems.iter().any(|problem| is_loss(problem));
    let mut blind = Vec::new();
    for (broken, first) in BY_CHANCE.into_iter().chain(aimed) {
        let seeds = asked_for.clone().unwrap_or(first..first + LOSS_SEEDS);
        let failed = run_all(seeds, (Story::LifeCycle, Some(Broken::Engine(broken))), 1, is_loss).failed;
        match failed.first() {
            Some(run) => println!("{broken:?}: seed {}: {}", run.seed, run.problems.join("; ")),
            None => blind.push(broken),
        }
    }
    assert!(blind.is_empty(), "nothing was lost with {blind:?}");
}
