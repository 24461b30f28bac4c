//! What is to be reached at full size.

use super::{Taken, measure::Command, world::World};

/// Requests of an unchanged backup beside its two lists of packs.
const REQUESTS: u64 = 16;
/// Packs that one page of a list shows.
const PAGE: u64 = 1000;

/// Something that is to be below a limit, or at it.
struct Goal {
    what: String,
    most: f64,
    was: f64,
}

/// Prints what is to be reached, what was measured, and whether that is enough.
pub(crate) fn print(worlds: &[World], all: &[Taken], is_full: bool) {
    println!("\ngoals (MB of 10^6 bytes)\n\n| | at most | measured | |\n|---|---|---|---|");
    for Goal { what, most, was } in goals(worlds, all) {
        if is_full {
            let end = if was <= most { "reached" } else { "MISSED" };
            println!("| {what} | {most} | {was:.2} | {end} |");
        } else {
            println!("| {what} | {most} | | not measured at full size |");
        }
    }
}

fn goals(worlds: &[World], all: &[Taken]) -> Vec<Goal> {
    let of = |name: &str, again: bool| {
        let command = Command::Backup.name();
        let is_it = |taken: &&Taken| taken.world == name && taken.command == command && taken.again == again;
        all.iter().find(is_it).unwrap()
    };
    let goal = |what: &str, most: f64, was: f64| Goal { what: what.to_owned(), most, was };
    let megabytes = |taken: &Taken| taken.peak_bytes as f64 / 1e6;
    let mut goals = Vec::new();
    for (when, again) in [("without a cache", false), ("with one", true)] {
        let tree = of("tree", again);
        let what = format!("a backup of a million unchanged files, {when}");
        goals.push(goal(&format!("{what}: seconds"), 5.0, tree.seconds));
        goals.push(goal(&format!("{what}: MB"), 200.0, megabytes(tree)));
    }
    let (small, chunks) = (of("small", true), of("chunks", true));
    let what = "what 10 million chunks of its domain add to an unchanged small backup";
    goals.push(goal(&format!("{what}: seconds"), 1.0, chunks.seconds - small.seconds));
    goals.push(goal(&format!("{what}: MB"), 64.0, megabytes(chunks) - megabytes(small)));
    for world in worlds.iter().filter(|world| matches!(world, World::Small | World::Chunks(_))) {
        let taken = of(world.name(), true);
        let pages = 2 * (world.made_up_packs() / PAGE + 1);
        let what = format!(
            "requests of an unchanged backup in `{}`, {pages} pages of packs among them",
            world.name()
        );
        goals.push(goal(&what, (REQUESTS + pages) as f64, taken.requests.all() as f64));
    }
    goals
}
