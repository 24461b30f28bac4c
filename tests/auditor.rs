//! What an auditor meets on the command line: `usage` and `status`.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    io::Read,
    os::unix::fs::FileTypeExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

/// A repository with two clients and an auditor.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(world.folder.path().join("src/deep")).unwrap();
        fs::write(world.folder.path().join("src/deep/file"), "text".repeat(5000)).unwrap();
        fs::write(world.folder.path().join("passphrase"), "correct-horse-42\n").unwrap();
        world.does(&["init", "--recovery-file", "words"], "passphrase");
        for (role, label) in [("backup", "web"), ("backup", "mail"), ("audit", "auditor")] {
            let file = format!("{label}.key");
            let arguments = ["key", "add", "--role", role, "--label", label, "--access-key-out", &file];
            world.does(&arguments, "passphrase");
        }
        world.does(&["backup", "src"], "web.key");
        world
    }

    /// Its exit code and what it says, unlocked with a file.
    fn run(&self, arguments: &[&str], unlock: &str) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        let flag = if unlock.ends_with(".key") { "--access-key-file" } else { "--password-file" };
        command.env_clear().env("HOME", self.folder.path()).current_dir(self.folder.path());
        command
            .env("LIFEBOAT_REPOSITORY", "./repository")
            .args([flag, unlock])
            .args(arguments)
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    #[track_caller]
    fn ends(&self, arguments: &[&str], unlock: &str, code: i32) -> (String, String) {
        let (found, out, err) = self.run(arguments, unlock);
        assert_eq!(found, code, "{arguments:?}: {out}{err}");
        (out, err)
    }

    #[track_caller]
    fn does(&self, arguments: &[&str], unlock: &str) -> String {
        self.ends(arguments, unlock, 0).0
    }

    /// Bytes of all objects, as the file system has them.
    fn bytes(&self) -> u64 {
        let (mut bytes, mut folders) = (0, vec![self.folder.path().join("repository")]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let is_object = !entry.file_name().as_encoded_bytes().starts_with(b".");
                match entry.metadata().unwrap() {
                    metadata if metadata.is_dir() => folders.push(entry.path()),
                    metadata if is_object => bytes += metadata.len(),
                    _ => {}
                }
            }
        }
        bytes
    }
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of<'a>(messages: &'a [Value], kind: &str) -> Vec<&'a Value> {
    messages.iter().filter(|message| message["message_type"] == kind).collect()
}

#[test]
fn an_auditor_accounts_for_every_byte_and_reads_no_contents() {
    let world = World::new();
    for contents in
        [&["restore", "latest", "--target", "stolen"][..], &["check", "--read-data"], &["verify", "latest"]]
    {
        let (_, said) = world.ends(contents, "auditor.key", 13);
        assert!(said.contains("role restore"), "{said}");
    }
    assert!(!world.folder.path().join("stolen/").join("src").try_exists().unwrap());
    let (_, said) = world.ends(&["usage"], "web.key", 13);
    assert!(said.contains("audit"), "{said}");
    let messages = objects(&world.does(&["usage", "--json"], "auditor.key"));
    let (rows, summary) = (of(&messages, "row"), of(&messages, "summary")[0]);
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["client"], &rows[0]["logical_bytes"]), (&"web".into(), &20_000.into()));
    assert_eq!(summary["bucket_bytes"], world.bytes());
    let number = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(number("fair_share_bytes") + number("fixed_bytes"), world.bytes());
    assert_eq!(number("fair_share_bytes"), rows[0]["fair_share_bytes"].as_u64().unwrap());
    let classes = ["reached_data", "reached_metadata", "dead_in_live_frames", "dead", "tombstoned", "index"];
    let classes = classes.into_iter().chain(["records", "foreign"]);
    assert_eq!(classes.map(|name| number(&format!("{name}_bytes"))).sum::<u64>(), world.bytes());
    let by_path = objects(&world.does(&["usage", "--by", "path:99", "--json"], "auditor.key"));
    let path = of(&by_path, "row")[0]["path"].as_str().unwrap().to_owned();
    assert!(path.ends_with("/src/deep") && path.starts_with('/'), "{path}");
}

#[test]
fn a_table_for_a_program_has_nothing_beside_it() {
    let world = World::new();
    fs::write(world.folder.path().join("repository/stray"), "x").unwrap();
    let (table, aside) = world.ends(&["usage", "--reconcile", "--csv", "-"], "auditor.key", 5);
    assert!(table.lines().all(|line| line.split(',').count() == 7), "{table}");
    assert!(aside.contains("stray: ") && aside.contains("1 object is not explained"), "{aside}");
    let total: u64 = table.lines().last().unwrap().rsplit(',').next().unwrap().parse().unwrap();
    assert_eq!(total, world.bytes());
    world.does(&["usage", "--csv", "usage.csv"], "auditor.key");
    let file = fs::read_to_string(world.folder.path().join("usage.csv")).unwrap();
    assert_eq!(file.replace("\r\n", "\n"), table.replace("\r\n", "\n"));
    world.ends(&["usage", "--csv", "-", "--json"], "auditor.key", 2);
    for wrong in ["host", "path:0", "path:x", "client:2"] {
        assert!(world.ends(&["usage", "--by", wrong], "auditor.key", 2).1.contains("path:2"), "{wrong}");
    }
    let messages = world.ends(&["usage", "--reconcile", "--json"], "auditor.key", 5).0;
    let messages = objects(&messages);
    assert_eq!(of(&messages, "error")[0]["object"], "stray");
    assert_eq!(messages.last().unwrap()["code"], 5);
}

#[test]
fn the_table_goes_to_where_the_user_says_and_replaces_no_pipe_and_no_link() {
    let world = World::new();
    let path = |name: &str| world.folder.path().join(name);
    assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    // Open in both ways: nobody waits for the other end.
    let mut pipe = fs::File::options().read(true).write(true).open(path("pipe")).unwrap();
    world.does(&["usage", "--csv", "pipe"], "auditor.key");
    assert!(fs::symlink_metadata(path("pipe")).unwrap().file_type().is_fifo());
    let mut begin = [0; 5];
    pipe.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"kind,");
    std::os::unix::fs::symlink("file.csv", path("link")).unwrap();
    for content in ["", "something longer than any table".repeat(500).as_str()] {
        if !content.is_empty() {
            fs::write(path("file.csv"), content).unwrap();
        }
        world.does(&["usage", "--csv", "link"], "auditor.key");
        assert!(path("link").is_symlink());
        let table = fs::read_to_string(path("file.csv")).unwrap();
        assert!(table.starts_with("kind,") && table.ends_with("\r\n"), "{table}");
    }
    let said = world.ends(&["usage", "--csv", "/dev/full"], "auditor.key", 1).1;
    assert!(said.contains("cannot write /dev/full"), "{said}");
    world.ends(&["usage", "--csv", "src"], "auditor.key", 1);
}

#[test]
fn reconciling_reads_what_the_storage_gives_and_not_the_cache() {
    let world = World::new();
    let told = world.does(&["usage"], "auditor.key");
    assert!(told.contains("; 1 snapshot reaches "), "{told}");
    let first_in = |folder: &Path| fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    // Of the domains one has been backed up to.
    let domains = fs::read_dir(world.folder.path().join("repository/d")).unwrap();
    let mut indexes = domains.map(|domain| domain.unwrap().path().join("index"));
    let index = first_in(&first_in(&indexes.find(|index| index.exists()).unwrap()));
    let mut bytes = fs::read(&index).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&index, bytes).unwrap();
    world.does(&["usage"], "auditor.key");
    world.ends(&["usage", "--reconcile"], "auditor.key", 5);
}

#[test]
fn the_first_line_says_who_fell_silent() {
    let world = World::new();
    let (table, said) = world.ends(&["status"], "auditor.key", 7);
    assert_eq!(table.lines().next(), Some("overdue: mail (never)"));
    assert!(said.contains("1 of 2 clients are overdue"), "{said}");
    let (out, _) = world.ends(&["status", "--json"], "auditor.key", 7);
    let messages = objects(&out);
    let clients = of(&messages, "client");
    assert_eq!(clients.len(), 2);
    assert_eq!((&clients[0]["client"], &clients[0]["overdue"]), (&"mail".into(), &true.into()));
    assert!(clients[1]["last_complete"]["age_seconds"].as_u64().unwrap() < 3600);
    assert_eq!(of(&messages, "summary")[0]["overdue"], Value::from(vec!["mail"]));
    world.does(&["backup", "src"], "mail.key");
    world.does(&["init", "-r", "other", "--recovery-file", "w"], "passphrase");
    let nobody = world.does(&["status", "-r", "other"], "passphrase");
    assert!(nobody.starts_with("no key backs up here"), "{nobody}");
    let well = world.does(&["status", "--max-age", "1h"], "auditor.key");
    assert_eq!(well.lines().next(), Some("nobody is overdue: 2 clients"));
    world.ends(&["status", "--max-age", "soon"], "auditor.key", 2);
}

#[test]
fn a_backup_key_shows_what_its_machine_remembers() {
    let world = World::new();
    world.ends(&["backup", "src", "gone"], "web.key", 3);
    let (history, said) = world.ends(&["status"], "web.key", 13);
    let lines: Vec<&str> = history.lines().collect();
    assert!(lines.len() == 2 && lines[1].ends_with("incomplete"), "{history}");
    assert!(said.contains("a key with the role backup cannot"), "{said}");
    let messages = objects(&world.ends(&["status", "--json"], "web.key", 13).0);
    assert_eq!(of(&messages, "past").len(), 2);
    let (nothing, _) = world.ends(&["status", "--no-cache"], "web.key", 13);
    assert!(nothing.contains("remembers no backup"), "{nothing}");
}

#[test]
fn the_examples_for_auditors_work() {
    let document = fs::read_to_string("docs/usage.md").unwrap();
    let blocks = document.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let script: String = blocks.map(|block| block.to_owned() + "\n").collect();
    assert!(script.matches("lifeboat ").count() > 10, "{script}");
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_lifeboat")).parent().unwrap().to_str().unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-eux", "-c", &script]).env_clear().current_dir(folder.path()).stdin(Stdio::null());
    shell.env("PATH", format!("{program}:/usr/bin:/bin")).env("HOME", folder.path());
    let output = shell.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}
