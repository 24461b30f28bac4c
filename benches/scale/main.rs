//! What grows with what: repositories of millions of chunks, files, snapshots and domains, and what each
//! command takes of time, memory and requests in them.
//!
//! `cargo bench --bench scale -- FOLDER [DIVISOR]` makes the repositories below FOLDER (about 12 GB, and three million files; a DIVISOR
//! makes them so much smaller), measures each command in a process of its own, prints tables and, at full size, whether the goals are reached, and writes
//! `FOLDER/scale.json`. `tests/scale.rs` runs the same at a small size and pins the requests.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement may stop at the first surprise"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command as Process,
    sync::Arc,
};

use lifeboat::clock::{Clock, SystemClock};
use object_store::local::LocalFileSystem;
use serde::{Deserialize, Serialize};

use self::{
    measure::Command,
    store::Requests,
    world::{Place, World},
};

mod calls;
mod goals;
mod measure;
mod packs;
mod store;
mod world;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Threads, and calls in flight.
const WORKERS: usize = 2;
/// The sizes of the worlds.
const WORLDS: [World; 6] = [
    World::Small,
    World::Chunks(10_000_000),
    World::Files(1_000_000),
    World::Snapshots(100_000),
    World::Domains(10_000),
    World::Tree(1_000_000),
];

/// What one run of a command took.
#[derive(Debug, Serialize, Deserialize)]
struct Taken {
    world: String,
    count: u64,
    command: String,
    /// Whether the cache was there that the run before had left.
    again: bool,
    seconds: f64,
    cpu_seconds: f64,
    /// Resident at most.
    peak_bytes: u64,
    requests: Requests,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [folder] => run(Path::new(folder), 1),
        [folder, divisor] => run(Path::new(folder), divisor.parse().unwrap()),
        ["make", folder, number, divisor] => {
            let world = world(number, divisor);
            fs::create_dir_all(objects(folder, world)).unwrap();
            let files = objects(folder, world).with_extension("files");
            fs::create_dir_all(&files).unwrap();
            Place::make(world, storage(folder, world), WORKERS, files);
        }
        ["one", folder, number, divisor, command, again] => {
            let command = Command::ALL[command.parse::<usize>().unwrap()];
            let world = world(number, divisor);
            if again == &"before" {
                return command.prepare(&place(folder, world));
            }
            let taken = one(folder, world, command, again == &"again");
            println!("{}", serde_json::to_string(&taken).unwrap());
        }
        _ => eprintln!("cargo bench --bench scale -- FOLDER [DIVISOR]"),
    }
}

fn world(number: &str, divisor: &str) -> World {
    WORLDS[number.parse::<usize>().unwrap()].divided(divisor.parse().unwrap())
}

fn objects(folder: &str, world: World) -> PathBuf {
    Path::new(folder).join(world.name())
}

fn storage(folder: &str, world: World) -> Arc<LocalFileSystem> {
    Arc::new(LocalFileSystem::new_with_prefix(objects(folder, world)).unwrap())
}

fn place(folder: &str, world: World) -> Place {
    Place::of(world, storage(folder, world), WORKERS, objects(folder, world).with_extension("files"))
}

/// Measures one command in this process.
fn one(folder: &str, world: World, command: Command, again: bool) -> Taken {
    let place = place(folder, world);
    let cache = objects(folder, world).with_extension("cache");
    if !again {
        drop(fs::remove_dir_all(&cache));
    }
    fs::create_dir_all(&cache).unwrap();
    command.clear(&place);
    let begun = (SystemClock.elapsed(), cpu());
    command.run(&place, Some(&cache));
    let (seconds, cpu_seconds) = (SystemClock.elapsed() - begun.0, cpu() - begun.1);
    Taken {
        world: world.name().to_owned(),
        count: world.count(),
        command: command.name().to_owned(),
        again,
        seconds: seconds.as_secs_f64(),
        cpu_seconds,
        peak_bytes: status("VmHWM:"),
        requests: place.objects.take(),
    }
}

fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    std::time::Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap()).as_secs_f64()
}

/// A line of what the kernel says about this process, in bytes.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn run(folder: &Path, divisor: u64) {
    let itself = |arguments: &[&str]| {
        let mut process = Process::new(std::env::current_exe().unwrap());
        let output = process.args(arguments).stderr(std::process::Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (is_full, divisor, folder) = (divisor == 1, divisor.to_string(), folder.to_str().unwrap());
    let mut all: Vec<Taken> = Vec::new();
    for number in 0..WORLDS.len() {
        let number = number.to_string();
        let world = world(&number, &divisor);
        eprintln!("making {} {}", world.count(), world.name());
        itself(&["make", folder, &number, &divisor]);
        let commands = Command::ALL.into_iter().enumerate().filter(|(_, command)| command.applies(world));
        for (at, command) in commands {
            itself(&["one", folder, &number, &divisor, &at.to_string(), "before"]);
            let times: &[&str] = if command.reads_a_cache() { &["first", "again"] } else { &["first"] };
            for again in times {
                eprintln!("{}: {}, {again}", world.name(), command.name());
                let line = itself(&["one", folder, &number, &divisor, &at.to_string(), again]);
                all.push(serde_json::from_str(&line).unwrap());
                // What was measured stays when the rest is stopped: it takes an hour.
                fs::write(Path::new(folder).join("scale.json"), serde_json::to_vec_pretty(&all).unwrap())
                    .unwrap();
            }
        }
        fs::remove_dir_all(objects(folder, world)).unwrap();
        for extension in ["cache", "files"] {
            drop(fs::remove_dir_all(objects(folder, world).with_extension(extension)));
        }
    }
    table("requests (of them pages of lists of packs)", &all, |taken| {
        format!("{} ({})", taken.requests.all(), taken.requests.list_packs)
    });
    table("peak memory in MiB", &all, |taken| (taken.peak_bytes >> 20).to_string());
    table("seconds (of CPU)", &all, |taken| format!("{:.2} ({:.2})", taken.seconds, taken.cpu_seconds));
    goals::print(&WORLDS, &all, is_full);
}

fn table(title: &str, all: &[Taken], show: impl Fn(&Taken) -> String) {
    let head: Vec<String> = WORLDS.iter().map(|world| world.name().to_owned()).collect();
    println!("\n{title}\n\n| | {} |\n|---|{}", head.join(" | "), "---|".repeat(head.len()));
    for command in Command::ALL {
        for again in [false, true].into_iter().filter(|again| !again || command.reads_a_cache()) {
            let cell = |world: &World| {
                let of = |taken: &&Taken| {
                    taken.world == world.name() && taken.command == command.name() && taken.again == again
                };
                all.iter().find(of).map_or(String::new(), &show)
            };
            let row: Vec<String> = WORLDS.iter().map(cell).collect();
            let when = if again { "again" } else { "without a cache" };
            println!("| {}, {when} | {} |", command.name(), row.join(" | "));
        }
    }
}
