//! Drills as a technician meets them: what turns them red, what they leave behind, what they can prove.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use lifeboat::id::from_hex;
use serde_json::Value;

mod support {
    pub(crate) mod service;
    pub(crate) mod tcp;
}
use support::{
    service::{BUCKET, KEY, SECRET},
    tcp::Server,
};

/// A repository with a source, and the program with nothing of this machine's environment.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// With one backup of a few files.
    fn new() -> Self {
        let world = Self::empty();
        world.does(&["backup", "src", "--host", "web", "--quiet"]);
        world
    }

    /// Without a backup.
    fn empty() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["src/deep", "tmp", "home"] {
            fs::create_dir_all(world.path(folder)).unwrap();
        }
        fs::write(world.path("src/one"), "first").unwrap();
        fs::write(world.path("src/deep/two"), noise(2, 300_000)).unwrap();
        fs::write(world.path("src/empty"), "").unwrap();
        fs::hard_link(world.path("src/one"), world.path("src/deep/one-too")).unwrap();
        std::os::unix::fs::symlink("one", world.path("src/link")).unwrap();
        fs::set_permissions(world.path("src/deep"), fs::Permissions::from_mode(0o2750)).unwrap();
        world.does(&["init", "--recovery-file", "words"]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env_clear().env("HOME", self.path("home")).env("TMPDIR", self.path("tmp"));
        command.env("PATH", "/usr/bin:/bin").current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("LIFEBOAT_REPOSITORY", self.path("repo")).env("LIFEBOAT_PASSWORD", "right");
        command.args(arguments);
        command
    }

    /// What it says, on standard output and standard error, when it ends with this code.
    #[track_caller]
    fn ends(&self, command: &mut Command, code: i32) -> (String, String) {
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{command:?}: {out}{err}");
        assert!(!err.contains("panicked"), "{err}");
        (out, err)
    }

    #[track_caller]
    fn does(&self, arguments: &[&str]) -> String {
        self.ends(&mut self.command(arguments), 0).0
    }

    /// A drill that ends with this code: its first line and its report. Nothing may be left in the scratch
    /// folder.
    #[track_caller]
    fn drill(&self, arguments: &[&str], code: i32) -> (String, Value) {
        let report = format!("report-{}.json", self.reports().len());
        let all: Vec<&str> = ["drill", "run", "--report", &report].iter().chain(arguments).copied().collect();
        let (out, err) = self.ends(&mut self.command(&all), code);
        assert_eq!(names(&self.path("tmp")), [""; 0], "{out}{err}");
        let first = out.lines().next().unwrap().to_owned();
        assert!(first.starts_with(if code == 0 { "PASS: " } else { "FAIL: " }), "{out}{err}");
        let whole: Value = serde_json::from_slice(&fs::read(self.path(&report)).unwrap()).unwrap();
        let report = whole["lifeboat_report"].clone();
        assert_eq!(report["verdict"], if code == 0 { "pass" } else { "fail" });
        (first, report)
    }

    fn reports(&self) -> Vec<String> {
        let all = names(self.folder.path());
        all.into_iter().filter(|name| name.starts_with("report-") && name.ends_with(".json")).collect()
    }

    /// The objects of the repository whose names contain this.
    fn objects(&self, part: &str) -> Vec<PathBuf> {
        let mut all = files(&self.path("repo"));
        all.retain(|path| path.to_str().unwrap().contains(part));
        all
    }

    /// The one data pack.
    fn data_pack(&self) -> PathBuf {
        let packs = self.objects("/packs/d/");
        assert_eq!(packs.len(), 1);
        packs[0].clone()
    }

    fn set_stored(&self, object: &Path, before: Duration) {
        let file = fs::File::options().write(true).open(object).unwrap();
        file.set_modified(SystemTime::now() - before).unwrap();
    }
}

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

/// Changes a byte in the middle.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_good_backup_passes_and_the_list_has_the_hash_of_every_file() {
    let world = World::new();
    let (first, report) = world
        .drill(&["--rpo", "1h", "--rto", "1h", "--check", "test -L \"$1\"/*/*/src/link -o -d \"$1\""], 0);
    assert_eq!(first, "PASS: 1 client: 4 files, 300010 bytes came back as backed up");
    let client = &report["clients"][0];
    assert_eq!((&client["client"], &client["host"]), (&"owner".into(), &"web".into()));
    assert_eq!(client["checks"][0]["result"], "passed");
    let rto = client["rto"].as_object().unwrap();
    let parts: u64 =
        rto.iter().filter(|(name, _)| *name != "total_ms").map(|(_, ms)| ms.as_u64().unwrap()).sum();
    assert_eq!(rto["total_ms"], parts);
    assert!(rto["unlock_ms"].is_u64());
    let list = fs::read_to_string(world.path("report-0.json.b3sum")).unwrap();
    assert_eq!(report["files"]["blake3"], blake3::hash(list.as_bytes()).to_hex().as_str());
    assert_eq!(report["files"]["lines"], list.lines().count());
    let listed: BTreeMap<&str, &str> = list
        .lines()
        .map(|line| {
            let (hash, path) = line.split_once("  ").unwrap();
            (path, hash)
        })
        .collect();
    let folder = client["folder"].as_str().unwrap();
    for name in ["src/one", "src/deep/two", "src/empty", "src/deep/one-too"] {
        let hash = blake3::hash(&fs::read(world.path(name)).unwrap());
        assert_eq!(listed[&*format!("{folder}{}", world.text(name))], hash.to_hex().as_str());
    }
    assert_eq!(listed.len(), 4);
}

#[test]
fn a_drill_uses_no_cache_and_makes_none() {
    let world = World::new();
    assert!(!files(&world.path("home")).is_empty(), "the backup has filled its cache");
    world.does(&["drill", "run", "--report", "r", "--cache-dir", "new-cache"]);
    assert!(!world.path("new-cache").try_exists().unwrap());
    // What only the cache still has does not save it.
    fs::remove_file(&world.objects("/packs/m/")[0]).unwrap();
    let (first, _) = world.drill(&[], 4);
    assert!(first.contains("owner@web: ") && first.contains("could not be restored"), "{first}");
}

#[test]
fn a_damaged_pack_turns_a_drill_red() {
    let world = World::new();
    flip(&world.data_pack());
    let (first, report) = world.drill(&[], 4);
    assert!(first.contains("could not be restored"), "{first}");
    let client = &report["clients"][0];
    assert!(client["failed"].as_u64().unwrap() > 0);
    let problem = client["problems"][0]["path"].as_str().unwrap();
    assert!(problem.starts_with(&world.text("src/")), "{problem}");
}

#[test]
fn a_missing_pack_turns_a_drill_red() {
    let world = World::new();
    fs::remove_file(world.data_pack()).unwrap();
    let (first, report) = world.drill(&[], 4);
    assert!(first.contains("could not be restored"), "{first}");
    // What needs no stored bytes is there all the same.
    assert_eq!(report["files"]["lines"], 1);
}

#[test]
fn a_damaged_snapshot_turns_a_drill_red_although_an_older_one_is_good() {
    let world = World::new();
    world.does(&["backup", "src", "--host", "web", "--quiet", "--force"]);
    let newest =
        world.objects("/snapshots/").into_iter().find(|path| path.to_str().unwrap().contains("/0000000002-"));
    flip(&newest.unwrap());
    let (first, _) = world.drill(&[], 4);
    assert!(first.contains("is damaged"), "{first}");
}

#[test]
fn damage_of_another_client_is_a_warning_for_who_drills_one() {
    let world = World::new();
    world.does(&["key", "add", "--role", "backup", "--label", "other", "--access-key-out", "other.key"]);
    let own = world.objects("/snapshots/");
    let backup = ["--access-key-file", "other.key", "backup", "src", "--host", "elsewhere", "--quiet"];
    world.ends(world.command(&backup).env_remove("LIFEBOAT_PASSWORD"), 0);
    flip(world.objects("/snapshots/").iter().find(|path| !own.contains(path)).unwrap());
    let run = ["drill", "run", "--host", "web", "--report", "one.json"];
    let (out, said) = world.ends(&mut world.command(&run), 0);
    assert!(out.starts_with("PASS") && said.contains("another client"), "{out}{said}");
    let (first, _) = world.drill(&[], 4);
    assert!(first.contains("is damaged"), "{first}");
}

#[test]
fn an_old_backup_turns_a_drill_red_by_the_clock_of_the_storage() {
    let world = World::new();
    world.drill(&["--rpo", "2h"], 0);
    let snapshot = world.objects("/snapshots/")[0].clone();
    world.set_stored(&snapshot, HOUR * 3);
    let (first, report) = world.drill(&["--rpo", "2h"], 4);
    assert!(first.contains("the backup is 108") && first.contains("7200 s were allowed"), "{first}");
    assert_eq!(report["clock"], "storage");
    assert_eq!(report["objectives"]["rpo_seconds"], 7200);
    world.drill(&["--rpo", "4h"], 0);
    // A clock that was ahead helps nobody; one that says the data are old is believed.
    world.does(&["backup", "src", "--host", "ahead", "--time", "2100-01-01", "--quiet"]);
    let ahead = world.objects("/0000000002-")[0].clone();
    assert!(ahead.to_str().unwrap().contains("/snapshots/"));
    world.set_stored(&ahead, HOUR * 3);
    world.drill(&["--rpo", "2h", "--host", "ahead"], 4);
    let age = |host: &str| {
        world.does(&["backup", "src", "--host", host, "--time", "2020-01-01", "--quiet"]);
        let (_, report) = world.drill(&["--rpo", "2h", "--host", host], 4);
        report["clients"][0]["rpo_seconds"].as_u64().unwrap()
    };
    // Not before the snapshot before it of that host, and no other host makes it look newer.
    let (same, other) = (age("ahead"), age("import"));
    assert!((10_800..11_500).contains(&same) && other > 100_000_000, "{same} {other}");
}

#[test]
fn an_incomplete_backup_turns_a_drill_red() {
    let world = World::empty();
    // Open to nobody but root, and root cannot read it either.
    world.ends(&mut world.command(&["backup", "src", "/proc/sysrq-trigger"]), 3);
    let (first, report) = world.drill(&[], 4);
    assert!(first.contains("the backup is incomplete: it could not read 1 entry"), "{first}");
    let client = &report["clients"][0];
    assert_eq!(
        (&client["unreadable"], &client["failed"], &client["files"]),
        (&1.into(), &0.into(), &4.into())
    );
    // A source that is not there at all counts, too.
    world.ends(&mut world.command(&["backup", "src", "gone", "--host", "other"]), 3);
    world.drill(&["--host", "other"], 4);
    // Also when the sample does not touch it.
    world.drill(&["--sample", "1"], 4);
}

#[test]
fn a_client_without_a_snapshot_turns_a_drill_red() {
    let world = World::empty();
    assert!(world.drill(&[], 4).0.contains("there is no snapshot"));
    world.does(&["backup", "src", "--host", "web", "--quiet", "--tag", "a"]);
    world.drill(&[], 0);
    assert!(world.drill(&["--host", "web", "--host", "db"], 4).0.contains("there is no snapshot of db"));
    assert!(world.drill(&["--tag", "b"], 4).0.contains("there is no snapshot that passes the filters"));
    world.does(&["key", "add", "--role", "backup", "--label", "laptop", "--access-key-out", "laptop.key"]);
    assert!(world.drill(&[], 4).0.contains("laptop has no snapshot"));
    world.drill(&["--host", "web"], 0);
    world.does(&["backup", "src", "--quiet", "--access-key-file", "laptop.key"]);
    let (first, report) = world.drill(&[], 0);
    assert!(first.starts_with("PASS: 2 clients: 8 files"), "{first}");
    let clients: Vec<&Value> =
        report["clients"].as_array().unwrap().iter().map(|client| &client["client"]).collect();
    assert_eq!(clients, ["laptop", "owner"]);
    world.does(&["key", "revoke", "laptop"]);
    assert!(world.drill(&[], 0).0.starts_with("PASS: 1 client"));
}

#[test]
fn the_newest_snapshot_is_the_one_that_the_storage_took_last() {
    let world = World::new();
    fs::write(world.path("src/new"), "new").unwrap();
    world.does(&["backup", "src", "--host", "web", "--time", "2020-01-01", "--quiet"]);
    let (first, report) = world.drill(&[], 0);
    assert!(first.contains("5 files"), "{first}");
    let snapshots = world.objects("/snapshots/");
    assert!(snapshots[1].to_str().unwrap().ends_with(report["clients"][0]["snapshot"].as_str().unwrap()));
    assert_eq!(report["clients"][0]["other_sources"], 0);
    world.set_stored(&snapshots[1], HOUR);
    let (first, report) = world.drill(&[], 0);
    assert!(first.contains("4 files"), "{first}");
    assert!(snapshots[0].to_str().unwrap().ends_with(report["clients"][0]["snapshot"].as_str().unwrap()));
    // What else this client backs up is not passed over in silence.
    world.does(&["backup", "src/deep", "--host", "web", "--quiet"]);
    let (first, report) = world.drill(&[], 0);
    assert!(first.contains("2 files"), "{first}");
    assert_eq!(report["clients"][0]["other_sources"], 1);
    assert!(world.drill(&["--path", &world.text("src")], 0).0.contains("4 files"));
}

#[test]
fn a_seed_draws_the_same_sample_again() {
    let world = World::empty();
    for number in 0..60 {
        fs::create_dir_all(world.path(&format!("src/{}", number % 5))).unwrap();
        fs::write(world.path(&format!("src/{}/{number}", number % 5)), number.to_string()).unwrap();
    }
    world.does(&["backup", "src", "--quiet"]);
    let draw = |seed: &str| {
        let (first, report) = world.drill(&["--sample", "10", "--seed", seed], 0);
        assert!(first.contains("(a sample)"), "{first}");
        assert_eq!(report["seed"], seed.parse::<u64>().unwrap());
        let number = world.reports().len() - 1;
        fs::read_to_string(world.path(&format!("report-{number}.json.b3sum"))).unwrap()
    };
    let first = draw("7");
    // A link has no line.
    assert!((9..=10).contains(&first.lines().count()), "{first}");
    // The largest file is in a class of its own.
    assert!(first.contains("src/deep/two"), "{first}");
    assert_eq!(first, draw("7"));
    assert_ne!(first, draw("8"));
    let out = world.does(&["drill", "run", "--sample", "50%", "--report", "r"]);
    assert!(out.contains("drawn with --seed "), "{out}");
    // Damage in the sample is found, and folders on the way to it are compared.
    let sampled = world.does(&["drill", "run", "--sample", "100%", "--report", "s"]);
    assert!(sampled.starts_with("PASS: 1 client: 64 files"), "{sampled}");
}

#[test]
fn checks_of_the_user_decide_too() {
    let world = World::new();
    let (first, report) = world.drill(&["--check", "true", "--check", "echo because; exit 3"], 4);
    assert!(first.contains("the check `echo because; exit 3` failed with exit code 3"), "{first}");
    assert_eq!(report["clients"][0]["checks"][1]["output"], "because\n");
    let (first, report) = world.drill(&["--check", "sleep 1000", "--check-timeout", "0s"], 4);
    assert!(first.contains("took too long and was ended"), "{first}");
    assert_eq!(report["clients"][0]["checks"][0]["result"], "timed out");
    // It sees the files, and no secret; it may be talkative, and leave something running.
    let pid = world.text("pid");
    let curious = format!(
        "set -e; cat \"$LIFEBOAT_DRILL_PATH{}\"; test \"$1\" = \"$PWD\"; yes | head -c 1000000; \
         test \"$LIFEBOAT_DRILL_HOST\" = web; ! env | grep -e PASSWORD -e right; sleep 1000 & echo $! > {pid}; echo end",
        world.text("src/one"),
    );
    let (_, report) = world.drill(&["--check", &curious], 0);
    let said = report["clients"][0]["checks"][0]["output"].as_str().unwrap();
    assert!(said.ends_with("y\nend\n") && said.len() <= 4096, "{said}");
    let left = fs::read_to_string(&pid).unwrap();
    assert!(!is_running(left.trim()), "{left}");
}

#[test]
fn a_check_gets_no_key_of_the_storage_from_the_environment() {
    let world = World::new();
    let check =
        "test \"$KEPT-$LIFEBOAT_DRILL_NOTE-$HTTP_PROXY\" = kept-note-http://plain && ! env | grep hush";
    let mut command = world.command(&["drill", "run", "--report", "r.json", "--check", check]);
    for name in [
        "AWS_SSE_CUSTOMER_KEY_BASE64",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_SECRET_ACCESS_KEY",
        "CREDENTIALS_DIRECTORY",
        "LIFEBOAT_PASSWORD_FILE_OLD",
        "LIFEBOAT_SOMETHING_NEW",
    ] {
        command.env(name, "hush");
    }
    command.env("https_proxy", "http://u:hush@proxy").env("HTTP_PROXY", "http://plain");
    command.env("KEPT", "kept").env("LIFEBOAT_DRILL_NOTE", "note");
    world.ends(&mut command, 0);
}

/// Whether a process runs: one that ended and that nobody has asked for yet does not.
fn is_running(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

#[test]
fn nothing_is_restored_into_the_repository() {
    let world = World::new();
    std::os::unix::fs::symlink("repo", world.path("alias")).unwrap();
    for target in ["repo/new", "repo", "alias/keys/deep/er"] {
        let said = world.ends(&mut world.command(&["drill", "run", "--target", target]), 2).1;
        assert!(said.contains("is in the repository itself"), "{said}");
        let said = world.ends(&mut world.command(&["restore", "latest", "--target", target]), 2).1;
        assert!(said.contains("is in the repository itself"), "{said}");
    }
    world.ends(&mut world.command(&["drill", "run", "--target", "repo-too"]), 0);
}

#[test]
fn a_missed_rto_turns_a_drill_red() {
    let world = World::new();
    let (first, report) = world.drill(&["--rto", "0s"], 4);
    assert!(first.contains("getting it back took") && first.contains("0 s were allowed"), "{first}");
    assert_eq!(report["objectives"]["rto_seconds"], 0);
}

#[test]
fn a_signal_ends_a_drill_and_leaves_nothing_but_the_record_that_it_began() {
    use rustix::process::{Pid, Signal, kill_process};
    let world = World::new();
    let check = format!("echo $$ > {}; sleep 1000", world.text("pid"));
    let mut command = world.command(&["drill", "run", "--report", "r.json", "--check", &check]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = loop {
        let pid = fs::read_to_string(world.path("pid")).unwrap_or_default();
        if pid.ends_with('\n') {
            break pid;
        }
        std::thread::yield_now();
    };
    assert_eq!(names(&world.path("tmp")).len(), 1);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(names(&world.path("tmp")), [""; 0]);
    assert!(!is_running(pid.trim()));
    assert!(names(world.folder.path()).iter().all(|name| !name.starts_with("r.json")));
    let history = world.does(&["drill", "history"]);
    assert!(history.contains("unfinished"), "{history}");
}

#[test]
fn a_target_must_be_empty_and_is_left_as_it_was_unless_it_is_to_be_kept() {
    let world = World::new();
    fs::create_dir(world.path("there")).unwrap();
    world.drill(&["--target", "there"], 0);
    assert_eq!(names(&world.path("there")), [""; 0]);
    world.drill(&["--target", "new"], 0);
    assert!(!world.path("new").try_exists().unwrap());
    world.drill(&["--target", "there", "--keep"], 0);
    let copy = world.path("there/owner_web").join(world.text("src").trim_start_matches('/'));
    assert_eq!(fs::read(copy.join("deep/two")).unwrap(), noise(2, 300_000));
    assert_eq!(fs::metadata(world.path("there/owner_web")).unwrap().permissions().mode() & 0o777, 0o700);
    let before = (files(&world.path("there")), files(&world.path("repo")));
    let run = ["drill", "run", "--report", "r", "--target", "there"];
    let (out, err) = world.ends(&mut world.command(&run), 2);
    assert!(out.is_empty() && err.contains("not empty"), "{out}{err}");
    assert_eq!((files(&world.path("there")), files(&world.path("repo"))), before);
    // A report is never overwritten.
    world.ends(&mut world.command(&["drill", "run", "--report", "report-0.json"]), 2);
    world.ends(&mut world.command(&["drill", "run", "--report", "no/where"]), 1);
}

#[test]
fn a_role_that_cannot_read_data_is_told_so_and_leaves_no_record() {
    let world = World::new();
    for role in ["audit", "maintain", "backup", "restore"] {
        let key = format!("{role}.key");
        world.does(&["key", "add", "--role", role, "--label", role, "--access-key-out", &key]);
    }
    for role in ["audit", "maintain", "backup"] {
        let key = format!("{role}.key");
        let mut drill = world.command(&["drill", "run", "--access-key-file", &key]);
        let (out, err) = world.ends(drill.env_remove("LIFEBOAT_PASSWORD"), 13);
        assert!(out.is_empty() && err.contains("restore"), "{out}{err}");
    }
    assert_eq!(world.objects("/evidence/").len(), 0);
    world.does(&["drill", "run", "--access-key-file", "restore.key", "--report", "r", "--host", "web"]);
    // An auditor reads what was found.
    let history = world.does(&["drill", "history", "--access-key-file", "audit.key"]);
    assert!(history.contains("restore") && history.contains("pass"), "{history}");
    world.ends(&mut world.command(&["drill", "history", "--access-key-file", "backup.key"]), 13);
}

/// With a technician's key, which is used on one machine.
fn with_technician() -> World {
    let world = World::new();
    world.does(&["key", "add", "--role", "restore", "--label", "tech", "--access-key-out", "tech.key"]);
    world
}

const TECH: [&str; 4] = ["--access-key-file", "tech.key", "--host", "web"];

#[test]
fn every_drill_is_a_link_of_a_chain_and_a_missing_or_changed_one_is_told() {
    let world = with_technician();
    for _ in 0..3 {
        world.drill(&TECH, 0);
    }
    let links = world.objects("/evidence/");
    assert_eq!(links.len(), 6, "one that it began, one that it ended");
    let out = world.does(&["drill", "history", "--json"]);
    let records: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<&Value> = records[..3].iter().map(|record| &record["sequence"]).collect();
    assert_eq!(numbers, [2, 4, 6]);
    assert_eq!(records[1]["verdict"], "pass");
    assert_eq!(records[1]["report"]["clients"][0]["host"], "web");
    let ids =
        |at: usize| links[at].file_name().unwrap().to_str().unwrap().split_once('-').unwrap().1.to_owned();
    assert_eq!(records[1]["report"]["previous"], ids(2));
    let kept = fs::read(&links[2]).unwrap();
    fs::remove_file(&links[2]).unwrap();
    let (_, err) = world.ends(&mut world.command(&["drill", "history"]), 5);
    assert!(err.contains("is gone"), "{err}");
    fs::write(&links[2], kept).unwrap();
    world.does(&["drill", "history"]);
    flip(&links[3]);
    let (out, err) = world.ends(&mut world.command(&["drill", "history"]), 5);
    assert!(err.contains(links[3].file_name().unwrap().to_str().unwrap()), "{err}");
    assert!(out.contains("pass"), "the others are shown: {out}");
    // A drill goes on behind what counts.
    world.drill(&TECH, 0);
}

#[test]
fn a_fork_of_a_chain_is_told() {
    let world = with_technician();
    world.drill(&TECH, 0);
    let copy = Command::new("cp").args(["-a", "repo", "other"]).current_dir(world.folder.path()).status();
    assert!(copy.unwrap().success());
    world.drill(&TECH, 0);
    let mut other = world.command(&["drill", "run", "--report", "other.json"]);
    world.ends(other.args(TECH).args(["-r", "other"]), 0);
    world.does(&["drill", "history"]);
    for path in files(&world.path("other/evidence")) {
        let name = path.strip_prefix(world.path("other")).unwrap();
        fs::copy(&path, world.path("repo").join(name)).unwrap();
    }
    let (_, err) = world.ends(&mut world.command(&["drill", "history"]), 5);
    assert!(err.contains("same number"), "{err}");
}

#[test]
fn a_report_proves_itself_to_anybody_with_the_certificate() {
    let world = with_technician();
    world.drill(&TECH, 0);
    world.does(&["key", "export-certificate", "tech", "--out", "tech.json"]);
    world.does(&["key", "export-certificate", "owner", "--out", "owner.json"]);
    let verify = |report: &str, certificate: &str, code| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env_clear().current_dir(world.folder.path());
        world.ends(command.args(["drill", "verify-report", report, "--certificate", certificate]), code).0
    };
    let out = verify("report-0.json", "tech.json", 0);
    assert!(out.starts_with("VALID: every byte is as tech (role restore, "), "{out}");
    assert!(out.contains("PASS: 1 client") && out.contains("4 lines"), "{out}");
    assert!(verify("report-0.json", "owner.json", 5).starts_with("INVALID: "));
    let good = fs::read(world.path("report-0.json")).unwrap();
    let list = fs::read(world.path("report-0.json.b3sum")).unwrap();
    for at in [0, 30, good.len() / 2, good.len() - 5, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(world.path("bad.json"), bad).unwrap();
        let out = verify("bad.json", "tech.json", 5);
        assert!(out.starts_with("INVALID: "), "byte {at}: {out}");
    }
    fs::write(world.path("bad.json"), &good).unwrap();
    assert!(verify("bad.json", "tech.json", 0).contains("was not checked"));
    fs::write(world.path("bad.json.b3sum"), &list[1..]).unwrap();
    assert!(verify("bad.json", "tech.json", 5).contains("list of files"));
    flip(&world.path("tech.json"));
    verify("report-0.json", "tech.json", 5);
    verify("report-0.json", "nowhere.json", 2);
    // The same with nothing of ours: docs/drills.md says how.
    let lines: Vec<&[u8]> = good.split(|byte| *byte == b'\n').collect();
    let whole: Value = serde_json::from_slice(&good).unwrap();
    let key = from_hex::<32>(whole["verifying_key"].as_str().unwrap()).unwrap();
    let signature = from_hex::<64>(whole["signature"].as_str().unwrap()).unwrap();
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key).unwrap();
    let signed = [b"lifeboat v1 report\n", lines[1]].concat();
    key.verify_strict(&signed, &ed25519_dalek::Signature::from_bytes(&signature)).unwrap();
}

#[test]
fn a_storage_that_may_not_be_written_leaves_the_record_on_the_disk() {
    let world = World::new();
    let before = files(&world.path("repo"));
    let program = env!("CARGO_BIN_EXE_lifeboat");
    let script = format!(
        "mount --bind repo repo && mount -o remount,ro,bind repo && exec {program} drill run --report r.json --rpo 1h"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).env_clear().current_dir(world.folder.path());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TMPDIR", world.path("tmp"));
    command.env("LIFEBOAT_REPOSITORY", world.path("repo")).env("LIFEBOAT_PASSWORD", "right");
    let (out, err) = world.ends(&mut command, 0);
    assert!(out.starts_with("PASS: ") && err.contains("on this disk only"), "{out}{err}");
    assert_eq!(files(&world.path("repo")), before);
    let whole: Value = serde_json::from_slice(&fs::read(world.path("r.json")).unwrap()).unwrap();
    let report = &whole["lifeboat_report"];
    assert_eq!((&report["sequence"], &report["clock"]), (&Value::Null, &"machine".into()));
}

#[test]
fn a_drill_on_s3_passes_and_its_record_is_in_the_bucket() {
    let server = Server::start();
    let world = World::empty();
    let address = format!("s3:http://{}/{BUCKET}/prefix", server.address);
    let run = |arguments: &[&str], code| {
        let mut command = world.command(arguments);
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
        world.ends(command.env("LIFEBOAT_REPOSITORY", &address), code)
    };
    run(&["init"], 0);
    run(&["backup", "src", "--quiet"], 0);
    let (out, err) = run(
        &[
            "drill",
            "run",
            "--report",
            "r.json",
            "--rpo",
            "1h",
            "--check",
            "test -z \"$AWS_SECRET_ACCESS_KEY\"",
        ],
        0,
    );
    assert!(out.starts_with("PASS: 1 client: 4 files"), "{out}{err}");
    assert!(out.contains("evidence: evidence/") && !err.contains("disk only"), "{out}{err}");
    assert!(run(&["drill", "history"], 0).0.contains("pass"));
    assert!(run(&["drill", "run", "--host", "nobody", "--json"], 4).0.contains("\"code\":4"));
}
