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
    #[expect(dead_code, reason = "others use more of it")]
    pub(crate) mod lab;
    pub(crate) mod simulator;
}
use support::simulator::{Run, run, weather::Broken};

/// Each time that the tests run.
const SEEDS: Range<u64> = 0..3000;
/// Within so many each way to build it wrongly must be found.
const BROKEN_SEEDS: Range<u64> = 0..1000;

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
    failed: Vec<Run>,
}

/// Runs them on all cores, until so many have failed.
fn run_all(seeds: Range<u64>, broken: Option<Broken>, enough: usize) -> Outcome {
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
                    let run = run(seed, broken);
                    let mut outcome = outcome.lock().unwrap();
                    outcome.tried += run.tried;
                    outcome.promised += run.promised;
                    if !run.problems.is_empty() {
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
    for seed in 0..40 {
        let (first, second) = (run(seed, None).schedule, run(seed, None).schedule);
        let differs = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert!(first == second, "seed {seed}: {differs:?}");
    }
}

#[test]
fn whatever_happens_nothing_that_was_promised_is_lost() {
    let asked_for = asked_for();
    if let Some(seeds) = asked_for.as_ref().filter(|seeds| seeds.end - seeds.start == 1) {
        println!("{}", run(seeds.start, None).schedule);
    }
    let Outcome { tried, promised, failed } = run_all(asked_for.clone().unwrap_or(SEEDS), None, 5);
    for Run { seed, problems, .. } in &failed {
        println!("SIMULATOR_SEEDS={seed}\n    {}", problems.join("\n    "));
    }
    if let Some(Run { seed, schedule, .. }) = failed.first() {
        panic!("seed {seed}:\n{schedule}");
    }
    println!("{promised} of {tried} backups succeeded");
    assert!(
        asked_for.is_some() || promised > tried / 2,
        "{promised} of {tried}: most must succeed, to be looked at"
    );
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
        let failed = run_all(BROKEN_SEEDS, Some(broken), 1).failed;
        let problems = failed.first().map(|run| run.problems.join("; ")).unwrap_or_default();
        assert!(words.iter().any(|word| problems.contains(word)), "{broken:?}: {problems}");
        println!("{broken:?}: seed {}", failed[0].seed);
    }
}
