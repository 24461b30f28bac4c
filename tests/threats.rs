//! What `docs/threat-model.md` says that somebody can do, and what nothing else tests that he cannot.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use lifeboat::format::slot::KdfParameters;
use serde_json::json;

#[path = "support/world.rs"]
mod world;

use world::{World, tree};

/// The objects of a repository by their names, temporary files aside.
fn objects(world: &World) -> Vec<(String, Vec<u8>)> {
    let root = world.path("repo");
    let name = |path: &PathBuf| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    tree(&root).into_iter().map(|(path, bytes)| (name(&path), bytes)).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A key of that role in the file `ROLE.key`.
fn with_key(world: &World, role: &str) {
    let file = format!("{role}.key");
    let label = format!("a-label-of-{role}");
    world.does(&["key", "add", "--role", role, "--label", &label, "--access-key-out", &file]);
}

/// A command with that key and a memory of its own.
fn by(world: &World, role: &str, arguments: &[&str]) -> Command {
    let mut command = world.bare(arguments);
    command.env("LIFEBOAT_REPOSITORY", world.path("repo")).env("HOME", world.path(role));
    command.arg("--access-key-file").arg(world.path(&format!("{role}.key")));
    command
}

#[test]
fn nothing_that_was_backed_up_stands_in_clear() {
    let world = World::with_repository();
    with_key(&world, "backup");
    fs::write(world.path("src/a-name-of-a-file"), "a-text-in-a-file".repeat(500)).unwrap();
    fs::create_dir(world.path("src/a-name-of-a-folder")).unwrap();
    std::os::unix::fs::symlink("a-target-of-a-link", world.path("src/link")).unwrap();
    let source = world.text("src");
    let arguments = ["backup", "--host", "a-host", "--tag", "a-tag", &source];
    world.ends(&mut by(&world, "backup", &arguments), 0);
    let texts = ["a-name", "a-text", "a-target", "a-host", "a-tag", "a-label", "/src"];
    for (name, bytes) in objects(&world) {
        for text in texts {
            assert!(!holds(&bytes, text) && !name.contains(text), "{text} stands in {name}");
        }
    }
}

#[test]
fn whoever_lists_the_storage_sees_who_wrote_how_often_and_how_much() {
    let world = World::with_repository();
    with_key(&world, "backup");
    for _ in 0..3 {
        let source = world.text("src");
        world.ends(&mut by(&world, "backup", &["backup", &source]), 0);
    }
    let names: Vec<String> = objects(&world).into_iter().map(|(name, _)| name).collect();
    let snapshots: Vec<Vec<&str>> = names
        .iter()
        .filter(|name| name.contains("/snapshots/"))
        .map(|name| name.split('/').collect())
        .collect();
    assert_eq!(snapshots.len(), 3, "{names:?}");
    // One domain, one identity, and the numbers of the chain: no label, no host.
    let part = |at: usize| snapshots.iter().map(|parts| parts[at]).collect::<BTreeSet<_>>().len();
    assert_eq!((part(1), part(3)), (1, 1));
    let numbers: Vec<&str> = snapshots.iter().map(|parts| parts[4].split('-').next().unwrap()).collect();
    assert_eq!(
        numbers.iter().map(|number| number.trim_start_matches('0')).collect::<Vec<_>>(),
        ["1", "2", "3"]
    );
}

#[test]
fn whoever_remembers_nothing_can_be_shown_an_older_world_and_whoever_remembers_cannot() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    world.does(&["backup", "src"]);
    let newest =
        objects(&world).into_iter().map(|(name, _)| name).filter(|name| name.contains("/snapshots/"));
    fs::remove_file(world.path("repo").join(newest.max().unwrap())).unwrap();
    let (_, told) = world.ends(&mut world.command(&["snapshots"]), 5);
    assert!(told.contains("older state than this machine has seen"), "{told}");
    let (out, silent) =
        world.ends(world.command(&["snapshots", "--json"]).env("HOME", world.path("bare")), 0);
    assert_eq!(silent, "");
    assert_eq!(world::objects(&out).iter().filter(|m| m["message_type"] == "snapshot").count(), 1);
}

#[test]
fn passphrases_can_be_tried_on_a_copy_and_each_try_costs_what_the_slot_says() {
    let world = World::with_repository();
    let copied = world.path("copied");
    fs::create_dir_all(copied.join("keys")).unwrap();
    let slots: Vec<(String, Vec<u8>)> = objects(&world)
        .into_iter()
        .filter(|(name, _)| name == "config" || name.starts_with("keys/"))
        .collect();
    for (name, bytes) in &slots {
        fs::write(copied.join(name), bytes).unwrap();
    }
    let tried = |passphrase: &str| {
        let mut command = world.command(&["snapshots"]);
        command.env("LIFEBOAT_REPOSITORY", &copied).env("LIFEBOAT_PASSWORD", passphrase);
        command.output().unwrap().status.code()
    };
    assert_eq!(tried("a-wrong-guess"), Some(12));
    // The right one gets past the slot: what is missing there is the registry.
    assert!(!matches!(tried(world::PASSPHRASE), Some(0 | 12)));
    let slot = slots.iter().find(|(name, _)| name.starts_with("keys/")).unwrap();
    let slot: serde_json::Value = serde_json::from_slice(&slot.1).unwrap();
    let asks_for = |KdfParameters { memory_kib, passes, lanes }: KdfParameters| json!({ "algorithm": "argon2id", "memory_kib": memory_kib, "passes": passes, "lanes": lanes });
    assert_eq!(slot["kdf"], asks_for(KdfParameters::default()));
    // That a slot of a release asks for this, `.ci/decoder` sees.
    let strong = asks_for(KdfParameters::STRONG).to_string();
    assert!(
        strong.contains("argon2id") && strong.contains("65536") && strong.contains("\"passes\":3"),
        "{strong}"
    );
}

#[test]
fn the_memory_of_a_machine_holds_the_names_of_its_own_files_and_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::with_repository();
    with_key(&world, "backup");
    fs::write(world.path("src/a-name-of-a-file"), "a-text-in-a-file".repeat(500)).unwrap();
    let source = world.text("src");
    world.ends(&mut by(&world, "backup", &["backup", &source]), 0);
    let cached = tree(&world.path("backup"));
    assert!(cached.iter().any(|(_, bytes)| holds(bytes, "a-name-of-a-file")), "{} files", cached.len());
    assert!(!cached.iter().any(|(_, bytes)| holds(bytes, "a-text-in-a-file")));
    let cache = world.path("backup/.cache/lifeboat");
    assert_eq!(fs::metadata(cache).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_stolen_restore_key_reads_every_machine_and_writes_for_none() {
    let world = World::with_repository();
    for role in ["backup", "restore"] {
        with_key(&world, role);
    }
    let source = world.text("src");
    world.ends(&mut by(&world, "backup", &["backup", "--host", "victim", &source]), 0);
    world.ends(&mut by(&world, "restore", &["restore", "latest", "--target", "stolen"]), 0);
    assert!(tree(&world.path("stolen")).iter().any(|(_, bytes)| bytes == b"second"));
    let before = objects(&world);
    let key = ["key", "add", "--role", "backup", "--label", "more", "--access-key-out", "more.key"];
    for arguments in [&["backup", &source][..], &key] {
        let (_, told) = world.ends(&mut by(&world, "restore", arguments), 13);
        assert!(told.starts_with("lifeboat: "), "{told}");
    }
    assert_eq!(objects(&world), before);
}

#[test]
fn a_new_passphrase_closes_the_slot_and_a_copy_of_the_old_slot_opens_with_the_old_one() {
    let world = World::with_repository();
    let slot = |world: &World| -> (String, Vec<u8>) {
        objects(world).into_iter().find(|(name, _)| name.starts_with("keys/")).unwrap()
    };
    let (name, bytes) = slot(&world);
    fs::write(world.path("new"), "another-passphrase\n").unwrap();
    world.does(&["key", "passphrase", "--new-password-file", "new"]);
    let again = slot(&world);
    assert_ne!(again.0, name);
    let told = world.fails(&["snapshots"], 12);
    assert!(told.starts_with("lifeboat: "), "{told}");
    fs::write(world.path("repo").join(name), bytes).unwrap();
    world.does(&["snapshots"]);
}

#[test]
fn a_backup_key_can_tell_whether_its_domain_has_what_somebody_guesses() {
    let world = World::with_repository();
    with_key(&world, "backup");
    let source = world.text("src");
    fs::write(world.path("src/one"), "guessed".repeat(50_000)).unwrap();
    world.ends(&mut by(&world, "backup", &["backup", &source]), 0);
    fs::create_dir(world.path("guess")).unwrap();
    let guess = world.text("guess");
    let new_bytes = |text: &str| {
        fs::write(world.path("guess/file"), text.repeat(50_000)).unwrap();
        let (out, _) = world.ends(&mut by(&world, "backup", &["backup", "--dry-run", "--json", &guess]), 0);
        let messages = world::objects(&out);
        let summary = messages.iter().find(|message| message["message_type"] == "summary").unwrap();
        summary["bytes_new"].as_u64().unwrap()
    };
    assert_eq!(new_bytes("guessed"), 0);
    assert!(new_bytes("unknown") > 0);
}
