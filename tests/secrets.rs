//! Where a passphrase, the recovery words, an access key or a key that derives from them must never be: in what the
//! program says, in what others see of its process and of the ones it starts, in its files, in a core.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    io::Write,
    os::unix::{net::UnixDatagram, process::ExitStatusExt},
    process::{Command, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lifeboat::{
    crypto::RootSecret,
    format::slot::{AccessKey, Slot},
    id::{DomainId, to_hex},
};

mod support {
    pub(crate) mod world;
}
use support::world::{PASSPHRASE, World, texts, tree};

const OTHER_PASSPHRASE: &str = "battery-staple-77";

/// Secrets in every form that they could be met in.
struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    /// Of the repository of this world, and of the access keys in these files.
    fn of(world: &World, access_keys: &[&str]) -> Self {
        let words = fs::read_to_string(world.path("words")).unwrap();
        let words = words.split_whitespace().filter(|word| word.chars().all(char::is_alphabetic));
        // The file says more than the words; they are its last 24.
        let words: Vec<&str> = words.collect();
        let words = words[words.len() - 24..].join(" ");
        let root = RootSecret::from_words(&words).unwrap();
        let mut all = Self(Vec::new());
        all.text("passphrase", PASSPHRASE);
        all.text("other passphrase", OTHER_PASSPHRASE);
        all.text("words", &words.split(' ').take(3).collect::<Vec<_>>().join(" "));
        all.key("root", root.as_bytes());
        all.key("root signing key", &root.signing_key().seed()[..]);
        all.key("owner signing key", &root.owner_identity().seed()[..]);
        all.key("registry key", root.registry_key().as_bytes());
        all.key("index root", root.index_root().as_bytes());
        all.key("node root", root.node_root().as_bytes());
        all.key("chunk root", root.chunk_root().as_bytes());
        all.key("data seed", root.data_seed(1).as_bytes());
        all.key("metadata seed", root.metadata_seed(1).as_bytes());
        for domain in fs::read_dir(world.path("repo/d")).unwrap() {
            let domain = domain.unwrap().file_name().into_string().unwrap();
            let domain = DomainId::from_hex(&domain).unwrap();
            all.key("index key", root.index_root().domain(&domain).as_bytes());
            all.key("node key", root.node_root().domain(&domain).as_bytes());
            let chunk = root.chunk_root().domain(&domain);
            all.key("chunk key", chunk.id.as_bytes());
            all.key("gear seed", chunk.gear.as_bytes());
        }
        for file in access_keys {
            let text = fs::read_to_string(world.path(file)).unwrap();
            let secret = text.split(':').nth(2).unwrap();
            all.key(&format!("{file}: access key"), &URL_SAFE_NO_PAD.decode(secret).unwrap());
            let access = AccessKey::parse(&text).unwrap();
            let slot = fs::read(world.path("repo/keys").join(&access.slot)).unwrap();
            let held = Slot::decode(&slot).unwrap().open_access_key(&access).unwrap().unwrap();
            all.key(&format!("{file}: signing key"), &held.signing_key().seed()[..]);
        }
        all
    }

    fn text(&mut self, what: &str, text: &str) {
        self.0.push((what.to_owned(), text.into()));
    }

    /// As bytes (the first half is enough to be known by), digits, base64 from each of its three positions.
    fn key(&mut self, what: &str, key: &[u8]) {
        self.0.push((what.to_owned(), key[..16].to_vec()));
        self.0.push((format!("{what} in digits"), to_hex(&key[..12]).into()));
        self.0.push((format!("{what} in capitals"), to_hex(&key[..12]).to_uppercase().into()));
        for skip in 0..3 {
            let text = URL_SAFE_NO_PAD.encode(&key[skip..skip + 24]);
            self.0.push((format!("{what} in base64"), text.replace('-', "+").replace('_', "/").into()));
            self.0.push((format!("{what} in base64"), text.into()));
        }
    }

    fn found_in(&self, bytes: &[u8]) -> Option<&str> {
        let holds = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
        self.0.iter().find(|(_, secret)| holds(secret)).map(|(what, _)| what.as_str())
    }

    #[track_caller]
    fn are_absent(&self, place: &str, bytes: &[u8]) {
        assert_eq!(self.found_in(bytes), None, "in {place}: {}", String::from_utf8_lossy(bytes));
    }
}

/// What a shell sees of itself and of the program that started it.
const LOOK: &str = "{ env; tr '\\0' '\\n' < /proc/$PPID/cmdline; tr '\\0' '\\n' < /proc/$$/environ; }";

/// A repository with one key for each role, whose files hold what others can see of a backup and a drill.
fn lived_in() -> World {
    let world = World::with_repository();
    fs::write(world.path("other"), OTHER_PASSPHRASE).unwrap();
    for role in ["backup", "audit", "maintain", "restore"] {
        let file = format!("{role}.key");
        world.does(&["key", "add", "--role", role, "--label", role, "--access-key-out", &file]);
    }
    let seen = world.text("seen");
    let dump = format!("{LOOK} >> {seen}; echo a dump");
    world.does(&["backup", "--stdin-filename", "dump", "--stdin-from-command", "--", "/bin/sh", "-c", &dump]);
    world.does(&["backup", "src", "-v"]);
    let command = format!("{LOOK} >> {seen}; cat {}", world.text("password"));
    fs::write(world.path("password"), PASSPHRASE).unwrap();
    world.does(&["snapshots", "--password-command", &command]);
    let mut machine = world.command(&["backup", "src", "--access-key-file", "backup.key"]);
    world.ends(machine.env_remove("LIFEBOAT_PASSWORD"), 0);
    world.does(&["drill", "run", "--check", &format!("{LOOK} >> {seen}")]);
    world
}

const ACCESS_KEYS: [&str; 4] = ["backup.key", "audit.key", "maintain.key", "restore.key"];

/// Commands that go well and that fail, each with what unlocks it.
fn said(world: &World) -> Vec<(String, Vec<u8>)> {
    let mut said = Vec::new();
    let mut run = |command: &mut Command| {
        let output = command.output().unwrap();
        let (out, err) = texts(&output);
        said.push((format!("{command:?}"), [out, err].concat().into_bytes()));
    };
    let wide: &[&[&str]] = &[
        &["snapshots", "-v"],
        &["backup", "src", "-vv"],
        &["check", "-v"],
        &["check", "--read-data"],
        &["usage"],
        &["status"],
        &["verify", "latest"],
        &["restore", "latest", "--target", "again"],
        &["key", "list"],
        &["key", "words"],
        &["ls", "latest", "/"],
        &["config", "show"],
        &["drill", "history"],
    ];
    for arguments in wide.iter().filter(|arguments| **arguments != ["key", "words"]) {
        for more in [&[][..], &["--json"], &["-vv"]] {
            let arguments: Vec<&str> = arguments.iter().chain(more).copied().collect();
            run(&mut world.command(&arguments));
            for key in ACCESS_KEYS {
                let key = world.text(key);
                run(world
                    .command(&arguments)
                    .env_remove("LIFEBOAT_PASSWORD")
                    .args(["--access-key-file", &key]));
            }
        }
    }
    // What unlocks nothing, in every way: an error must not repeat what it was given.
    let damaged = fs::read_to_string(world.path("audit.key")).unwrap().replace("access-1:", "access-1;");
    fs::write(world.path("damaged.key"), damaged).unwrap();
    let typing = fs::read_to_string(world.path("audit.key")).unwrap();
    fs::write(world.path("typing.key"), typing.trim_end().to_owned() + "0").unwrap();
    let words = fs::read_to_string(world.path("words")).unwrap();
    fs::write(world.path("most-words"), words.trim_end().rsplit_once(' ').unwrap().0).unwrap();
    for more in [&[][..], &["--json"], &["-vv"]] {
        let wrong: [&[&str]; 6] = [
            &["--password-file", "other"],
            &["--password-command", "cat other; exit 3"],
            &["--access-key-file", "damaged.key"],
            &["--access-key-file", "typing.key"],
            &["--access-key-file", "password"],
            &["--recovery-words-file", "most-words"],
        ];
        for unlock in wrong {
            let mut command = world.command(&["snapshots"]);
            run(command.env_remove("LIFEBOAT_PASSWORD").args(unlock).args(more));
        }
        run(world.command(&["snapshots"]).env("LIFEBOAT_PASSWORD", OTHER_PASSPHRASE).args(more));
    }
    said
}

#[test]
fn no_secret_is_said_and_none_is_kept_in_a_file() {
    let world = lived_in();
    let socket = UnixDatagram::bind(world.path("notify")).unwrap();
    socket.set_nonblocking(true).unwrap();
    world.ends(world.command(&["backup", "src"]).env("NOTIFY_SOCKET", world.path("notify")), 0);
    let said = said(&world);
    let secrets = Secrets::of(&world, &ACCESS_KEYS);
    assert!(secrets.found_in(&fs::read(world.path("words")).unwrap()).is_some());
    assert!(secrets.found_in(&fs::read(world.path("audit.key")).unwrap()).is_some());
    assert!(said.len() > 150, "{}", said.len());
    for (command, text) in &said {
        secrets.are_absent(command, text);
    }
    let (mut told, mut buffer) = (0, [0; 4096]);
    while let Ok(length) = socket.recv(&mut buffer) {
        secrets.are_absent("what systemd is told", &buffer[..length]);
        told += 1;
    }
    assert!(told > 0);
    let seen = fs::read_to_string(world.path("seen")).unwrap();
    assert!(seen.matches("/proc").count() > 5 && seen.contains("LIFEBOAT_DRILL_PATH"), "{seen}");
    let lines: Vec<&str> = seen.lines().filter(|line| line.contains("LIFEBOAT_PASSWORD")).collect();
    assert_eq!(lines, [""; 0]);
    // The password command itself is in the arguments of a command above; it names a file.
    secrets.are_absent("what a command sees", seen.as_bytes());
    let mut files = 0;
    for folder in ["repo", "home"] {
        for (path, bytes) in tree(&world.path(folder)) {
            secrets.are_absent(path.to_str().unwrap(), &bytes);
            files += 1;
        }
    }
    assert!(files > 20, "{files}");
    let beside = fs::read_dir(world.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let reports: Vec<_> = beside.filter(|path| path.to_str().unwrap().contains("/drill-")).collect();
    assert!(!reports.is_empty());
    for path in reports {
        secrets.are_absent(path.to_str().unwrap(), &fs::read(&path).unwrap());
    }
}

/// Runs a shell that may write cores, lets it become a program, and ends that with a signal once `is_ready`. Gives
/// the cores.
fn cores(world: &World, exec: &str, signal: i32, is_ready: impl Fn() -> bool) -> Vec<Vec<u8>> {
    let shell = world.command(&[]);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("ulimit -c unlimited; exec {exec}")]).current_dir(world.path("cores"));
    command.env_clear().envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"begun").unwrap();
    for turn in 0.. {
        if is_ready() {
            break;
        }
        assert!(turn < 1000, "it never becomes ready");
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it was ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    let number = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{signal}"), &number]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().signal(), Some(signal));
    drop(input);
    let found = tree(&world.path("cores"));
    found.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
    found.into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
fn a_backup_that_crashes_leaves_no_core() {
    let world = World::with_repository();
    fs::create_dir(world.path("cores")).unwrap();
    let program = env!("CARGO_BIN_EXE_lifeboat");
    let runs = || {
        tree(&world.path("repo/d"))
            .iter()
            .filter(|(path, _)| path.to_str().unwrap().contains("/runs/"))
            .count()
    };
    for (at, signal) in [6, 4].into_iter().enumerate() {
        // The record of the run is signed and sealed: all keys are in memory.
        let is_ready = || runs() > at;
        let left = cores(&world, &format!("{program} backup --stdin"), signal, is_ready);
        assert!(left.is_empty(), "signal {signal}: {} bytes", left[0].len());
    }
    // Here a program does leave one, unless this machine sends cores elsewhere.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if !pattern.starts_with(['|', '/']) {
        let begun = || world.path("begun").try_exists().unwrap();
        assert_eq!(cores(&world, "sh -c 'touch ../begun; exec sleep 60'", 6, begun).len(), 1);
    }
}
