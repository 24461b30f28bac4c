//! Every command that reads, on a repository that a client with a stolen key has filled: it ends, in bounded
//! memory, with a code that says what is wrong, and nothing that it shows can drive a terminal.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{fs, path::Path, process::Command, sync::Arc};

use lifeboat::{
    clock::{SystemClock, Timestamp},
    compress::Codec,
    crypto::RootSecret,
    format::{
        entry::{ChunkRef, Content, Entry, EntryKind, Metadata},
        node::{Child, ListChild, Node},
        pack::{Blob, PackKind, encode_index},
        snapshot::{Snapshot, Statistics},
    },
    id::{BlobId, ObjectId},
    repository::Repository,
    store::{Location, Store},
};

mod support {
    pub(crate) mod forger;
    pub(crate) mod lab;
    pub(crate) mod world;
}
use support::{
    forger::{self, Forged, Manifest},
    lab,
    world::{PASSPHRASE, World, texts, tree},
};

/// Clears the screen, sets the title, ends the line, turns the text around, hides.
const EVIL: &str = "\x1b[2J\x1b]0;owned\x07\r\n\u{9b}31m\u{202e}gpj.exe\u{2066}\u{200b}\u{7f}";

/// Address space that a command may take. A debug build with its threads needs a part of it.
const MEMORY_KIB: u64 = 3 << 20;

fn open(world: &World) -> Repository {
    let options = lab::options(Arc::new(SystemClock), Arc::default(), 0);
    let store = Store::open(&Location::Folder(world.path("repo")), options).unwrap();
    let words = fs::read_to_string(world.path("words")).unwrap();
    let root = words.lines().find_map(|_| RootSecret::from_words(&words).ok());
    lab::open(&store, &root.unwrap()).unwrap()
}

/// Runs the program with little memory; gives what it shows and its code.
#[track_caller]
fn runs(world: &World, arguments: &[&str]) -> (String, i32) {
    let limited = world.command(arguments);
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -v {MEMORY_KIB}; exec timeout 120 \"$0\" \"$@\""));
    command.arg(limited.get_program()).args(limited.get_args()).env_clear().current_dir(world.path("."));
    command.env("PATH", "/usr/bin:/bin").env("HOME", world.path("home")).env("TMPDIR", world.path("."));
    command.env("LIFEBOAT_REPOSITORY", world.path("repo")).env("LIFEBOAT_PASSWORD", PASSPHRASE);
    let output = command.output().unwrap();
    let (out, err) = texts(&output);
    assert!(!err.contains("panicked"), "{arguments:?}: {err}");
    let code = output.status.code().unwrap();
    // Panic, timeout and whatever a signal ends are above.
    assert!(code < 100, "{arguments:?} ended with {code}: {out}{err}");
    (out + &err, code)
}

#[track_caller]
fn shows_nothing_evil(text: &str, what: &[&str]) {
    let json = what.contains(&"--json");
    let drives = |character: char| {
        let hides = matches!(character, '\u{200b}' | '\u{202e}' | '\u{2066}' | '\u{7f}'..='\u{9f}');
        character != '\n' && (character < ' ' || !json && hides)
    };
    assert!(!text.contains(drives), "{what:?}: {text:?}");
    assert!(json || !text.lines().any(|line| line.starts_with("gpj") || line.starts_with("31m")));
}

fn file(path: impl Into<Vec<u8>>, size: u64, content: Content) -> Entry {
    let metadata = Metadata {
        mode: 0o644,
        mtime: Timestamp { seconds: i64::MAX, nanoseconds: 999_999_999 },
        ctime: Timestamp { seconds: i64::MIN, nanoseconds: 0 },
        btime: Some(Timestamp { seconds: i64::MIN, nanoseconds: 0 }),
        user: EVIL.to_owned(),
        group: EVIL.to_owned(),
        size,
        ..Metadata::of(EntryKind::File)
    };
    Entry { path: path.into(), metadata, content, changed_while_read: true, error: None }
}

/// Leaves of a manifest, each of which is wrong in another way.
fn entries(bomb: ChunkRef, list: BlobId) -> Vec<Vec<Entry>> {
    let inline = |chunks: &[ChunkRef]| Content::Inline(chunks.to_vec());
    let lost = ChunkRef { id: BlobId::new([9; 32]), length: 5 };
    let mut link = file(format!("b/{EVIL}"), 0, inline(&[]));
    link.metadata.kind = EntryKind::Symlink;
    link.metadata.link_target = EVIL.into();
    let mut unread = file("c/unread", 0, inline(&[]));
    unread.error = Some(EVIL.to_owned());
    let mut folder = file("e", 0, inline(&[]));
    folder.metadata.kind = EntryKind::Directory;
    vec![
        vec![file(format!("a/{EVIL}"), 5, inline(&[lost]))],
        vec![link],
        vec![unread],
        vec![file("d/bomb", u64::from(bomb.length), inline(&[bomb]))],
        vec![folder, file("e/huge", u64::MAX, inline(&[])), file("e/huge2", u64::MAX, inline(&[lost; 256]))],
        vec![file("f/list", 1 << 20, Content::List { node: list, chunks: 1 << 20, level: 4 })],
        vec![file("f/missing", 7, Content::List { node: BlobId::new([8; 32]), chunks: 1, level: 3 })],
        vec![file("g/good", 0, inline(&[]))],
        vec![file("h/", 0, inline(&[])), file("../../x", 0, inline(&[]))],
        vec![file(vec![b'z'; 60_000], 0, inline(&[]))],
    ]
}

fn manifest(repository: &Repository) -> ObjectId {
    let stored = vec![0x28, 0xb5, 0x2f, 0xfd, 0x80, 0x88, 0, 0, 0, 0x80, 3, 0, 16, 0];
    let bomb = ChunkRef { id: BlobId::new([6; 32]), length: 2 << 20 };
    let blobs = vec![Blob { id: bomb.id, length: bomb.length }];
    let pack =
        forger::pack(repository, PackKind::Data, &[Forged { stored, codec: Codec::Zstd, blobs }], |_| {});
    forger::index(repository, &encode_index(&[pack]));
    let mut manifest = Manifest::new(repository);
    // One chunk of one byte that nobody has, 2^20 times, and every sum right.
    let mut list = manifest.node(&Node::Chunks(vec![ChunkRef { id: BlobId::new([5; 32]), length: 1 }; 16]));
    let mut chunks = 16;
    for level in 1..=4 {
        list = manifest.node(&Node::Lists(level, vec![ListChild { id: list, chunks, bytes: chunks }; 16]));
        chunks *= 16;
    }
    let mut children = Vec::new();
    for leaf in entries(bomb, list) {
        let first = leaf[0].path.clone();
        let id = manifest.node(&Node::Leaf(leaf));
        children.push(Child { first, id, entries: u64::MAX, bytes: u64::MAX });
    }
    // A leaf whose first path is none cannot be named by a branch.
    children.retain(|child| !child.first.ends_with(b"/"));
    let root = manifest.node(&Node::Branch(1, children));
    manifest.snapshot(root, |_| {})
}

fn evil_record(record: &mut Snapshot, time: Timestamp) {
    (record.time, record.begun) = (time, time);
    record.host = EVIL.to_owned();
    record.user = EVIL.to_owned();
    record.tags = vec![EVIL.to_owned()];
    record.sources = vec![[b"/", EVIL.as_bytes()].concat()];
    record.program = EVIL.to_owned();
    record.levels = 16;
    record.unreadable = u64::MAX;
    record.unreadable_named = vec![(EVIL.into(), EVIL.to_owned())];
    let most = u64::MAX;
    record.statistics = Statistics {
        entries: most,
        files: most,
        bytes: most,
        files_unchanged: most,
        bytes_new: most,
        bytes_stored: most,
    };
}

/// A repository with an honest snapshot and three that are not, and the id of the worst.
fn hostile() -> (World, String) {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let repository = open(&world);
    let id = manifest(&repository);
    let (known, _) = repository.snapshots().unwrap();
    let root = known.iter().find(|known| known.name.id == id).unwrap().record.root;
    let never = Timestamp { seconds: i64::MIN, nanoseconds: 0 };
    let always = Timestamp { seconds: i64::MAX, nanoseconds: 999_999_999 };
    forger::snapshot(&repository, root, |record| evil_record(record, never));
    let worst = forger::snapshot(&repository, root, |record| evil_record(record, always));
    (world, worst.to_string())
}

/// The same, with a record that is larger in memory than in the storage: each of its tags takes a byte here, and 24 there.
fn hostile_with_very_many_tags() -> (World, String) {
    let (world, worst) = hostile();
    let repository = open(&world);
    let root = repository.snapshots().unwrap().0[0].record.root;
    forger::snapshot(&repository, root, |record| record.tags = vec![String::new(); 2 << 20]);
    (world, worst)
}

#[test]
fn every_command_that_reads_ends_in_bounded_memory_and_shows_nothing_evil() {
    let (world, worst) = hostile_with_very_many_tags();
    let target = world.text("restored");
    let folder = format!("{worst}:e");
    let commands: [&[&str]; 20] = [
        &["snapshots"],
        &["snapshots", "--json"],
        &["status"],
        &["status", "--json"],
        &["ls", &worst],
        &["ls", &worst, "--long"],
        &["ls", &worst, "--json"],
        &["ls", &folder],
        &["check"],
        &["check", "--read-data"],
        &["check", "--read-data", "--json"],
        &["check", "--without-keys"],
        &["usage"],
        &["usage", "--by", "path:2"],
        &["usage", "--reconcile", "--json"],
        &["restore", &worst, "--target", &target, "-v"],
        &["restore", &worst, "--target", &target, "--verify", "--json"],
        &["verify", &worst, "--target", &target],
        &["drill", "run", "--report", &world.text("report")],
        &["drill", "history"],
    ];
    for arguments in commands {
        for cached in [true, false] {
            let arguments: Vec<&str> =
                arguments.iter().copied().chain((!cached).then_some("--no-cache")).collect();
            let (text, code) = runs(&world, &arguments);
            shows_nothing_evil(&text, &arguments);
            let tells = ["check", "restore", "verify"].contains(&arguments[0])
                && !arguments.contains(&"--without-keys");
            assert!(!tells || code != 0, "{arguments:?} finds nothing wrong: {text}");
            if arguments[0] == "drill" && arguments[1] == "run" {
                drop((fs::remove_file(world.path("report")), fs::remove_file(world.path("report.b3sum"))));
            }
        }
    }
    assert_eq!(names(&world.path("restored/g")), ["good"]);
    assert!(!world.path("restored/d/bomb").try_exists().unwrap());
    // What is damaged in a million places side by side is one part.
    let damaged = fs::read_to_string(world.path("restored/f/list.damaged.txt")).unwrap();
    assert!(damaged.ends_with(":\n0-1048575\n"), "{damaged:.500}");
    assert!(!world.path("x").try_exists().unwrap() && !world.path("restored/x").try_exists().unwrap());
}

#[test]
fn every_command_that_changes_something_ends_in_bounded_memory_and_shows_nothing_evil() {
    let (world, worst) = hostile_with_very_many_tags();
    let (known, _) = open(&world).snapshots().unwrap();
    let honest = known.iter().find(|known| known.name.sequence == 1).unwrap().name.id.to_string();
    let other = world.text("other");
    world.does(&["-r", &other, "init", "--recovery-file", "other-words"]);
    fs::write(world.path("passphrase"), PASSPHRASE).unwrap();
    let from = world.text("repo");
    let copy = ["-r", &other, "copy", "--from-repository", &from, "--from-password-file", "passphrase"];
    let stored: Vec<String> =
        tree(&world.path("repo")).into_iter().map(|(path, _)| path.to_str().unwrap().to_owned()).collect();
    let any = stored.iter().find(|path| path.contains("/snapshots/")).unwrap();
    let any = any.strip_prefix(&from).unwrap().trim_start_matches('/');
    let commands: [&[&str]; 20] = [
        &["diff", &honest, &worst],
        &["diff", &worst, &honest],
        &["tag", &worst, "--add", "x"],
        &["hold", "place", &worst, "--reason", "case"],
        &["hold", "list"],
        &["hold", "lift", &worst, "--reason", "over"],
        &["recover"],
        &["recover", "--apply"],
        &["repair", "index"],
        &["repair", "index", "--apply"],
        &["repair", "snapshots"],
        &["repair", "snapshots", "--apply"],
        &["repair", "quarantine", any],
        &copy,
        &["rewrite", &worst, "--exclude", "/e"],
        &["forget", &worst, "--dry-run"],
        &["forget", &worst, "--allow-mass-removal"],
        &["prune", "--dry-run"],
        &["prune"],
        &["restore", &honest, "--target", "honest", "--verify"],
    ];
    for arguments in commands {
        for json in [false, true] {
            let arguments: Vec<&str> = arguments.iter().copied().chain(json.then_some("--json")).collect();
            let (text, _) = runs(&world, &arguments);
            shows_nothing_evil(&text, &arguments);
        }
    }
    let restored = world.path("honest").join(world.path("src").strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(restored.join("one")).unwrap(), "first");
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The honest snapshot is as good as before, and the next backup too.
#[test]
fn an_honest_snapshot_beside_hostile_ones_restores_whole() {
    let (world, _) = hostile();
    world.does(&["backup", "src", "--tag", "next"]);
    world.does(&["restore", "latest", "--tag", "next", "--target", &world.text("next"), "--verify"]);
    let restored = world.path("next").join(world.path("src").strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(restored.join("deep/two")).unwrap(), "second");
    assert_eq!(fs::read_to_string(restored.join("one")).unwrap(), "first");
}
