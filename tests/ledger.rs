//! The ledger of checks: what is read when, what counts as read, and who may say so.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use lifeboat::{
    clock::{Clock, SystemClock},
    error::ErrorKind,
    format::{
        ledger::{CheckReport, DomainRead, Reading},
        report::SignedReport,
    },
    ops::check::{self, CheckOptions, Depth, Policy, Witness},
    progress::Progress,
    repository::{Repository, unlock::Credential},
    store::Store,
};
use object_store::local::LocalFileSystem;
use serde_json::Value;

mod support {
    pub(crate) mod intercepted;
    pub(crate) mod lab;
    pub(crate) mod world;
}
use support::{
    intercepted::{Call, Fate, Intercepted, Kind},
    lab, world,
};

const DAY: u64 = 86_400;

/// A repository with some packs, and keys of several roles.
struct World {
    world: world::World,
}

impl World {
    fn new(backups: usize) -> Self {
        let this = Self { world: world::World::with_repository() };
        for (role, label) in
            [("restore", "tech"), ("restore", "other"), ("audit", "auditor"), ("backup", "web")]
        {
            let key = this.world.text(label);
            this.world.does(&["key", "add", "--role", role, "--label", label, "--access-key-out", &key]);
        }
        (0..backups).for_each(|number| this.back_up(number));
        this
    }

    fn command(&self, key: &str, arguments: &[&str]) -> Command {
        let mut command = self.world.bare(arguments);
        command.env("LIFEBOAT_REPOSITORY", self.world.path("repo"));
        command.env("LIFEBOAT_ACCESS_KEY_FILE", self.world.path(key));
        command
    }

    fn back_up(&self, number: usize) {
        fs::write(self.world.path("src/one"), lab::noise(number as u64, 9_000)).unwrap();
        self.world.ends(&mut self.command("web", &["backup", "src", "--quiet"]), 0);
    }

    /// A check with this key, and the end of what it says.
    #[track_caller]
    fn check(&self, key: &str, arguments: &[&str], code: i32) -> (Value, String) {
        let mut command = self.command(key, &["check", "--json"]);
        let out = self.world.ends(command.args(arguments), code).0;
        let summary = world::objects(&out).into_iter().find(|one| one["message_type"] == "summary");
        (summary.unwrap(), out)
    }

    fn objects(&self, part: &str) -> Vec<PathBuf> {
        let all = world::tree(&self.world.path("repo")).into_iter().map(|(path, _)| path);
        all.filter(|path| path.to_str().unwrap().contains(part)).collect()
    }

    /// Time goes by: everything in the storage is older.
    fn later(&self, days: u64) {
        for path in self.objects("/") {
            set_age(&path, days, fs::metadata(&path).unwrap().modified().unwrap());
        }
    }

    fn open(&self, key: &str) -> Repository {
        let store = self.store();
        let text = fs::read_to_string(self.world.path(key)).unwrap();
        lab::open_with(&store, &Credential::AccessKey(text.trim().to_owned().into()), None).unwrap()
    }

    fn store(&self) -> Store {
        let location = lifeboat::store::Location::parse(&self.world.text("repo")).unwrap();
        let clock = Arc::new(SystemClock);
        Store::open(&location, lab::options(clock, Default::default(), 0)).unwrap()
    }

    /// A report of this identity, which says what it likes.
    fn forge(&self, key: &str, change: impl Fn(&mut CheckReport)) {
        let repository = self.open(key);
        let place = repository.next_evidence(&repository.store).unwrap();
        let domain = repository.registry().domains.iter().find(|one| one.name == "web").unwrap().id;
        let all =
            DomainRead { domain: domain.to_string(), shelves: "000-fff".to_owned(), damaged: Vec::new() };
        let mut report = CheckReport { domains: vec![all], ..CheckReport::default() };
        report.head.kind = "check".to_owned();
        report.head.format = 1;
        report.head.sequence = Some(place.sequence);
        report.head.previous = place.previous.map(|id| id.to_string());
        report.begun = "2020-01-01T00:00:00Z".to_owned();
        report.place = repository.store.place();
        change(&mut report);
        let payload = serde_json::to_string(&report).unwrap();
        repository
            .publish_evidence(
                &repository.store,
                place,
                &SignedReport::sign(payload, repository.signer()).unwrap(),
            )
            .unwrap();
    }
}

fn set_age(path: &PathBuf, days: u64, from: SystemTime) {
    let then = from - Duration::from_secs(days * DAY);
    fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

const MONTH: [&str; 2] = ["--max-age", "30d"];

fn decrypted(summary: &Value) -> u64 {
    summary["coverage"]["decrypted_bytes"].as_u64().unwrap()
}

#[test]
fn runs_with_a_budget_read_everything_once_the_oldest_first_and_then_nothing_is_due() {
    let world = World::new(6);
    let packs = world.objects("/packs/");
    // Each pack is a day older than the one before.
    for (number, path) in packs.iter().enumerate() {
        set_age(path, 60 + number as u64, SystemTime::now());
    }
    let sizes: u64 = packs.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let budget = (sizes / 4).to_string();
    let (mut read, mut runs, mut before) = (0, 0, 1_000 * DAY);
    loop {
        let arguments = [&MONTH[..], &["--budget", &budget]].concat();
        let output = world.command("tech", &["check", "--json"]).args(&arguments).output().unwrap();
        let messages = world::objects(&world::texts(&output).0);
        let summary = messages.into_iter().find(|one| one["message_type"] == "summary").unwrap();
        assert!(summary["bytes_read"].as_u64().unwrap() <= sizes / 4, "{summary}");
        read += summary["packs_read"].as_u64().unwrap();
        runs += 1;
        let coverage = &summary["coverage"];
        assert_eq!(coverage["bytes"], sizes);
        let oldest = coverage["oldest"]["age_seconds"].as_u64().unwrap();
        assert!(oldest < before, "the oldest is read first: {coverage}");
        assert_eq!(output.status.code(), Some(if oldest > 30 * DAY { 7 } else { 0 }), "{summary}");
        before = oldest;
        if coverage["due_bytes"] == 0 {
            assert_eq!(decrypted(&summary), sizes);
            break;
        }
        assert!(decrypted(&summary) < sizes && runs < 20, "{summary}");
    }
    assert_eq!(read, packs.len() as u64, "each once");
    assert!(runs >= 4);
    let records = world.objects("/evidence/").len();
    assert_eq!(records, runs);
    let (summary, _) = world.check("tech", &MONTH, 0);
    assert_eq!((&summary["packs_read"], &summary["snapshots"]), (&0.into(), &0.into()));
    assert_eq!(world.objects("/evidence/").len(), records);
    let text = world.world.ends(&mut world.command("tech", &["check", "--max-age", "30d"]), 0);
    assert!(text.0.contains("nothing is due") && text.0.contains("(100.0%)"), "{text:?}");
    // A month later all of it is due again.
    world.later(31);
    let (summary, _) = world.check("tech", &MONTH, 0);
    assert_eq!(summary["packs_read"], packs.len());
}

#[test]
fn a_budget_that_cannot_keep_to_the_time_is_told() {
    let world = World::new(3);
    world.later(40);
    let mut command = world.command("tech", &["check", "--max-age", "2d", "--budget", "1"]);
    let (out, err) = world.world.ends(&mut command, 7);
    assert!(err.contains("does not do") && out.contains("never read since it was written"), "{out}{err}");
    // One shelf is read all the same.
    assert_eq!(world.objects("/evidence/").len(), 1);
}

#[test]
fn what_came_after_a_check_was_not_read_by_it_and_neither_was_what_was_written_again_or_copied() {
    let world = World::new(2);
    world.later(40);
    let pack = world.objects("/packs/").remove(0);
    let (summary, _) = world.check("tech", &MONTH, 0);
    let all = decrypted(&summary);
    assert_eq!(summary["coverage"]["bytes"], all);
    world.later(2);
    world.back_up(7);
    let (summary, _) = world.check("tech", &MONTH, 0);
    assert_eq!(summary["packs_read"], 0);
    assert_eq!(decrypted(&summary), all, "what is new was not read");
    assert!(summary["coverage"]["bytes"].as_u64().unwrap() > all);
    // Somebody writes a pack again, with whatever bytes.
    set_age(&pack, 0, SystemTime::now());
    let (summary, _) = world.check("tech", &MONTH, 0);
    assert!(decrypted(&summary) < all);
    // In a copy of the bucket every stamp is new, those of the records too, and nothing was read there.
    for path in world.objects("/evidence/") {
        set_age(&path, 0, SystemTime::now() + Duration::from_secs(5));
    }
    for path in world.objects("/packs/") {
        set_age(&path, 0, SystemTime::now() + Duration::from_secs(3));
    }
    let (summary, _) = world.check("tech", &MONTH, 0);
    assert_eq!(decrypted(&summary), 0);
}

#[test]
fn an_auditor_sees_hashes_and_cannot_say_that_anything_was_decrypted() {
    let world = World::new(2);
    world.later(40);
    let (summary, _) = world.check("auditor", &MONTH, 0);
    let coverage = &summary["coverage"];
    assert_eq!((&coverage["reading"], &coverage["hashed_bytes"]), (&"hashed".into(), &coverage["bytes"]));
    assert_eq!((decrypted(&summary), &summary["sections_attested"]), (0, &0.into()));
    assert_eq!(summary["packs_read"], world.objects("/packs/").len());
    world.forge("auditor", |report| report.reading = Reading::Decrypted);
    let (summary, out) = world.check("tech", &MONTH, 0);
    assert!(out.contains("does not count") && out.contains("role audit"), "{out}");
    assert_eq!(summary["packs_read"], world.objects("/packs/").len(), "all of it was still to be read");
    // For the auditor too the hashes were seen then.
    world.later(20);
    assert_eq!(world.check("auditor", &MONTH, 0).0["packs_read"], 0);
}

#[test]
fn no_clock_makes_a_record_younger_than_the_storage_says_and_no_false_record_counts() {
    let world = World::new(2);
    world.later(40);
    let packs = world.objects("/packs/").len();
    // A record of forty days ago that claims to be of the far future, and one that claims to have been quick.
    world.forge("tech", |report| {
        report.reading = Reading::Decrypted;
        report.begun = "2199-01-01T00:00:00Z".to_owned();
    });
    world.later(40);
    let arguments = ["--max-age", "60d"];
    assert_eq!(world.check("other", &arguments, 0).0["packs_read"], 0, "forty days are not sixty");
    let (summary, _) = world.check("other", &MONTH, 0);
    assert_eq!(summary["packs_read"], packs, "and are more than thirty");
    // A reading that took long is as old as its beginning.
    world.later(40);
    world.forge("tech", |report| {
        report.reading = Reading::Decrypted;
        report.begun = "2199-01-01T00:00:00Z".to_owned();
        report.seconds = 40 * DAY;
    });
    assert_eq!(world.check("other", &MONTH, 0).0["packs_read"], packs);
    world.later(40);
    for change in [
        |report: &mut CheckReport| report.domains[0].shelves = "000-1000".to_owned(),
        |report: &mut CheckReport| report.domains[0].shelves = "fff-000".to_owned(),
        |report: &mut CheckReport| report.domains[0].damaged = vec!["..".to_owned()],
        |report: &mut CheckReport| report.begun = "yesterday".to_owned(),
        |report: &mut CheckReport| report.head.format = 2,
    ] {
        world.forge("tech", |report| {
            report.reading = Reading::Decrypted;
            report.begun = "2199-01-01T00:00:00Z".to_owned();
            change(report);
        });
    }
    // One with a good report whose bytes were changed afterwards.
    world.forge("tech", |report| {
        report.reading = Reading::Decrypted;
        report.begun = "2199-01-01T00:00:00Z".to_owned();
    });
    let last = world
        .objects("/evidence/")
        .into_iter()
        .max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    let last = last.unwrap();
    let mut bytes = fs::read(&last).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&last, bytes).unwrap();
    let (summary, out) = world.check("other", &MONTH, 0);
    assert_eq!(out.matches("does not count").count(), 6, "{out}");
    assert_eq!(summary["packs_read"], packs);
}

#[test]
fn two_machines_that_check_at_once_leave_two_records_that_both_count() {
    let world = World::new(4);
    world.later(40);
    let packs = world.objects("/packs/");
    let sizes: u64 = packs.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let budget = (sizes * 2 / 3).to_string();
    let arguments = ["check", "--max-age", "30d", "--budget", &budget];
    let both: Vec<_> = ["tech", "other"]
        .map(|key| world.command(key, &arguments).stdout(std::process::Stdio::null()).spawn().unwrap())
        .into_iter()
        .collect();
    for mut one in both {
        assert!(matches!(one.wait().unwrap().code(), Some(0 | 7)));
    }
    assert_eq!(world.objects("/evidence/").len(), 2);
    world.check("tech", &MONTH, 0);
    let (summary, out) = world.check("other", &MONTH, 0);
    assert_eq!((summary["packs_read"].as_u64(), decrypted(&summary)), (Some(0), sizes));
    assert!(out.contains("\"tech\"") && !out.contains("does not count"), "{out}");
    world.world.does(&["drill", "history"]);
}

#[test]
fn what_is_damaged_never_counts_as_read_and_is_told_until_it_is_whole_or_gone() {
    let world = World::new(3);
    world.later(40);
    let pack = world.objects("/packs/d/").pop().unwrap();
    let (whole, then) = (fs::read(&pack).unwrap(), fs::metadata(&pack).unwrap().modified().unwrap());
    let put = |bytes: &[u8]| {
        fs::write(&pack, bytes).unwrap();
        set_age(&pack, 0, then);
    };
    // What is read is a shelf, by the first digits of random ids: hardly ever another pack stands on it too.
    let shelf = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().get(..3).unwrap().to_owned();
    let on_it = world.objects("/packs/").iter().filter(|path| shelf(path) == shelf(&pack)).count();
    let mut damaged = whole.clone();
    damaged[3000] ^= 1;
    put(&damaged);
    let size = whole.len() as u64;
    let (summary, _) = world.check("tech", &MONTH, 5);
    assert_eq!(summary["coverage"]["bytes"].as_u64().unwrap() - decrypted(&summary), size);
    // Nothing else is due, and it is read again.
    let (summary, out) = world.check("tech", &MONTH, 5);
    assert_eq!((summary["packs_read"].as_u64(), out.contains("hurts")), (Some(on_it as u64), true));
    // Who decrypts sees the hashes too, so an auditor has the same to read.
    let (summary, out) = world.check("auditor", &MONTH, 5);
    assert_eq!((&summary["packs_read"], &summary["problems"]), (&on_it.into(), &1.into()), "{out}");
    assert!(out.contains("its bytes are not those that its name stands for"), "{out}");
    // Where the budget is used up by what is due, it is told from memory.
    world.later(29);
    let packs = world.objects("/packs/");
    world.back_up(9);
    world.later(2);
    let mut command = world.command("tech", &["check", "--max-age", "30d", "--budget", "1"]);
    let (out, err) = world.world.ends(&mut command, 5);
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(out.contains(name), "{out}{err}");
    // As it is named there, `repair quarantine` takes it.
    let told = out.lines().find(|line| line.contains("nobody has read it since"));
    let (object, _) = told.and_then(|line| line.split_once(": ")).unwrap_or_else(|| panic!("{out}{err}"));
    let dry = world.world.does(&["repair", "quarantine", object]);
    assert!(dry.contains("1 object would be set aside"), "{object}: {dry}");
    // The whole one is put back.
    put(&whole);
    let (summary, _) = world.check("tech", &MONTH, 0);
    let old: u64 = packs.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(decrypted(&summary), old, "what came two days ago has time");
}

#[test]
fn a_check_of_everything_counts_and_one_of_a_part_counts_for_that_part() {
    let world = World::new(3);
    world.later(40);
    // Which part a pack is in its random id says: the one that has some.
    let is_even = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        u8::from_str_radix(name.get(..2).unwrap(), 16).unwrap().is_multiple_of(2)
    };
    let part = if world.objects("/packs/").iter().any(is_even) { "1/2" } else { "2/2" };
    let (summary, _) = world.check("tech", &["--read-data-subset", part], 0);
    assert_eq!((&summary["recorded"], &summary["coverage"]), (&true.into(), &Value::Null));
    let half = summary["packs_read"].as_u64().unwrap();
    let (summary, _) = world.check("tech", &MONTH, 0);
    let rest = summary["packs_read"].as_u64().unwrap();
    assert_eq!(half + rest, world.objects("/packs/").len() as u64);
    world.later(40);
    world.check("tech", &["--read-data"], 0);
    assert_eq!(world.check("tech", &MONTH, 0).0["packs_read"], 0);
    // The structure alone reads no pack, and says so nowhere.
    let records = world.objects("/evidence/").len();
    world.check("tech", &[], 0);
    assert_eq!(world.objects("/evidence/").len(), records);
}

#[test]
fn wrong_ways_to_ask_are_refused() {
    let world = World::new(0);
    for arguments in [
        &["--max-age", "30d", "--read-data"][..],
        &["--max-age", "30d", "--without-keys"],
        &["--budget", "1G"],
        &["--max-age", "soon"],
        &["--max-age", "30d", "--budget", "much"],
    ] {
        world.world.ends(world.command("tech", &["check"]).args(arguments), 2);
    }
    world.world.ends(&mut world.command("web", &["check", "--max-age", "30d"]), 13);
}

#[test]
fn status_shows_how_much_was_checked_and_the_oldest_byte_that_was_not() {
    let world = World::new(3);
    let status = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["status", "--max-age", "365d"].iter().chain(arguments).copied().collect();
        world.world.ends(&mut world.command("auditor", &arguments), 0).0
    };
    world.later(3);
    let text = status(&[]);
    assert!(text.contains("in the last 30 d: decrypted 0 B (0.0%)"), "{text}");
    assert!(text.contains("oldest unverified byte: 3 d 0 h (never read since it was written)"), "{text}");
    world.check("tech", &["--max-age", "0s"], 0);
    world.later(10);
    world.back_up(9);
    let text = status(&["-v"]);
    assert!(text.contains("oldest unverified byte: 10 d 0 h (read by tech)"), "{text}");
    assert!(text.contains("by tech: shelves 000-fff"), "{text}");
    let messages = world::objects(&status(&["--json"]));
    let of =
        |kind: &str| messages.iter().filter(|message| message["message_type"] == kind).collect::<Vec<_>>();
    let coverage = &of("summary")[0]["coverage"];
    let [all, read] = ["bytes", "decrypted_bytes"].map(|field| coverage[field].as_u64().unwrap());
    assert!(read > 0 && read < all, "what came since is not read: {coverage}");
    assert_eq!(coverage["oldest"]["by"]["label"], "tech");
    let ledger = of("ledger");
    assert!(ledger.iter().any(|one| one["name"] == "web" && one["decrypted_bytes"] == read), "{ledger:?}");
    // A reading of ten days ago is too old for whoever asks for nine.
    let text = status(&["--checked-within", "9d"]);
    assert!(text.contains("in the last 9 d: decrypted 0 B (0.0%)"), "{text}");
}

#[test]
fn a_check_of_which_the_storage_takes_no_record_says_so_and_does_not_count_as_done() {
    let world = World::new(3);
    world.later(40);
    // A file where the folder of its records would be: not even root can write below it.
    let tech = world.open("tech").identity().to_string();
    let evidence = world.world.path("repo/evidence");
    fs::create_dir_all(&evidence).unwrap();
    fs::write(evidence.join(&tech), "").unwrap();
    let says = |arguments: &[&str], code| {
        let mut command = world.command("tech", &["check"]);
        let (out, err) = world.world.ends(command.args(arguments), code);
        let first = err.lines().next().unwrap_or_default();
        assert!(first.contains("what was read is not recorded"), "{out}{err}");
        assert!(first.contains("below `evidence/`"), "{out}{err}");
        err
    };
    for _ in 0..2 {
        let said = says(&MONTH, 3);
        assert!(said.lines().last().unwrap().contains("not recorded"), "{said}");
        assert!(!said.contains("budget"), "{said}");
    }
    // Not even where something is overdue would a larger budget help.
    let said = says(&["--max-age", "30d", "--budget", "1"], 3);
    assert!(said.lines().last().unwrap().contains("not recorded"), "{said}");
    // This one has read all that it was told to.
    says(&["--read-data"], 0);
    fs::remove_file(evidence.join(&tech)).unwrap();
    let (summary, _) = world.check("tech", &MONTH, 0);
    assert_eq!(summary["packs_read"].as_u64(), Some(world.objects("/packs/").len() as u64));
}

#[test]
fn a_check_that_is_stopped_records_what_it_has_read_and_the_next_one_goes_on() {
    let world = World::new(6);
    let packs = world.objects("/packs/").len() as u64;
    let progress = Arc::<Progress>::default();
    let files = LocalFileSystem::new_with_prefix(world.world.path("repo")).unwrap();
    let (stop, read) = (Arc::clone(&progress), AtomicU64::new(0));
    let objects = Intercepted::new(Arc::new(files), move |call: &Call| {
        if call.kind == Kind::Get && call.name.contains("/packs/") && read.fetch_add(1, SeqCst) == packs / 2 {
            stop.stop();
        }
        Fate::Works
    });
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let options = lab::options(Arc::clone(&clock), progress, 0);
    let store = Store::from_folder_through(objects, &world.world.path("repo"), options).unwrap();
    let text = fs::read_to_string(world.world.path("tech")).unwrap();
    let credential = Credential::AccessKey(text.trim().to_owned().into());
    let repository = lab::open_with(&store, &credential, None).unwrap();
    let everything = Policy { max_age: Duration::ZERO, budget: None };
    let options = CheckOptions { depth: Depth::Due(everything), workers: 1 };
    let witness = Witness { machine: "host", program: "test" };
    let stopped = check::run_and_record(&repository, options, witness).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Interrupted);
    assert_eq!(world.objects("/evidence/").len(), 1);
    // What was read is young now, and only that.
    world.later(1);
    let (before, _) = world.check("auditor", &["--max-age", "10d"], 0);
    let coverage = &before["coverage"];
    let [all, read] = ["bytes", "decrypted_bytes"].map(|field| coverage[field].as_u64().unwrap());
    assert!(read > 0 && read < all, "{coverage}");
    let (after, _) = world.check("tech", &["--max-age", "0s"], 0);
    assert_eq!(decrypted(&after), all);
    let out = world.world.ends(&mut world.command("tech", &["drill", "history"]), 0).0;
    assert!(out.contains("2 records") && !out.contains("is gone"), "the chain goes on: {out}");
}

#[test]
fn what_was_read_in_one_storage_was_not_read_in_a_mirror_of_it() {
    let world = World::new(3);
    world.later(40);
    let (summary, _) = world.check("tech", &MONTH, 0);
    let all = decrypted(&summary);
    assert_eq!(
        (&summary["coverage"]["bytes"], &summary["coverage"]["elsewhere_bytes"]),
        (&all.into(), &0.into())
    );
    // Every object as it is, its stamp too.
    let (repository, mirror) = (world.world.path("repo"), world.world.path("mirror"));
    assert!(Command::new("cp").arg("-a").args([&repository, &mirror]).status().unwrap().success());
    let there = |arguments: &[&str], code: i32| {
        let mut command = world.command("tech", arguments);
        world.world.ends(command.env("LIFEBOAT_REPOSITORY", &mirror), code).0
    };
    let told = "were read in another storage only";
    let text = there(&["status", "--max-age", "365d"], 0);
    assert!(text.contains("decrypted 0 B (0.0%)") && text.contains(told), "{text}");
    let summary =
        |text: &str| world::objects(text).into_iter().find(|one| one["message_type"] == "summary").unwrap();
    // A budget that does for one shelf: the others are still read elsewhere only.
    let one = summary(&there(&["check", "--json", "--max-age", "30d", "--budget", "1"], 7));
    let coverage = &one["coverage"];
    assert_eq!(decrypted(&one) + coverage["elsewhere_bytes"].as_u64().unwrap(), all, "{one}");
    let rest = summary(&there(&["check", "--json", "--max-age", "30d"], 0));
    assert_eq!((decrypted(&rest), &rest["coverage"]["elsewhere_bytes"]), (all, &0.into()));
    let read = [&one, &rest].map(|run| run["packs_read"].as_u64().unwrap());
    assert_eq!(read.iter().sum::<u64>(), world.objects("/packs/").len() as u64, "{one} {rest}");
    assert_eq!(summary(&there(&["check", "--json", "--max-age", "30d"], 0))["packs_read"], 0);
    // A storage that was renamed, or is reached by another path, is the same one.
    let moved = world.world.path("moved");
    fs::rename(&repository, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &repository).unwrap();
    assert_eq!(world.check("tech", &MONTH, 0).0["packs_read"], 0);
}

#[test]
fn a_record_that_does_not_say_where_it_was_made_counts_nowhere() {
    let world = World::new(1);
    world.later(40);
    world.forge("tech", |report| {
        report.reading = Reading::Decrypted;
        report.begun = "2199-01-01T00:00:00Z".to_owned();
        report.place = None;
    });
    let (summary, _) = world.check("auditor", &["--max-age", "365d"], 0);
    let coverage = &summary["coverage"];
    assert_eq!((decrypted(&summary), &coverage["elsewhere_bytes"]), (0, &coverage["bytes"]));
}
