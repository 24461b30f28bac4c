//! What the program says is true and what it advises works: for each trouble, the way out that it names is taken.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use world::{World, objects, tree};

#[path = "support/world.rs"]
mod world;

impl World {
    /// The objects of the repository with this in their names.
    fn stored(&self, part: &str) -> Vec<PathBuf> {
        let all = tree(&self.path("repo")).into_iter().map(|(path, _)| path);
        all.filter(|path| path.to_str().unwrap().contains(part)).collect()
    }

    #[track_caller]
    fn key(&self, role: &str, label: &str) -> String {
        let file = format!("{label}.key");
        self.does(&["key", "add", "--role", role, "--label", label, "--access-key-out", &file]);
        file
    }

    #[track_caller]
    fn says(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let said = self.fails(arguments, code);
        words.iter().for_each(|word| assert!(said.contains(word), "{word}: {said}"));
    }
}

fn write(path: &Path, bytes: &[u8]) {
    if path.exists() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::write(path, bytes).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(path, &bytes);
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    write(path, &bytes[..bytes.len() / 2]);
}

#[test]
fn a_lost_or_damaged_config_is_damage_and_the_words_rebuild_it() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let config = world.path("repo/config");
    let good = fs::read(&config).unwrap();
    for lost in [true, false] {
        if lost {
            fs::remove_file(&config).unwrap()
        } else {
            truncate(&config)
        }
        for arguments in [&["snapshots"][..], &["backup", "src"], &["backup", "--init", "src"], &["init"]] {
            world.says(arguments, 5, &["key recover --rebuild-config", "Do not run `init`"]);
        }
        if config.exists() {
            fs::remove_file(&config).unwrap();
        }
        fs::write(world.path("new"), "new").unwrap();
        let words = ["--recovery-words-file", "words", "--new-password-file", "new"];
        world.does(&[&["key", "recover", "--rebuild-config"][..], &words].concat());
        assert_eq!(fs::read(&config).unwrap(), good);
        assert_eq!(world.snapshots(), 1);
    }
}

#[test]
fn without_any_key_slot_a_check_says_that_only_the_words_open_it() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    world.does(&["check", "--without-keys"]);
    let words = ["--recovery-words-file", "words"];
    world.does(&[&["check"][..], &words].concat());
    fs::rename(world.path("repo/keys"), world.path("keys")).unwrap();
    for arguments in [&["check", "--without-keys"][..], &[&["check"][..], &words].concat()] {
        let (out, err) = world.ends(&mut world.command(arguments), 5);
        assert!(
            out.contains("no key slot is left") && err.contains("`lifeboat key recover` makes"),
            "{out}{err}"
        );
    }
    fs::write(world.path("new"), "new").unwrap();
    world.does(&[&["key", "recover", "--new-password-file", "new"][..], &words].concat());
    world.does(&["check", "--without-keys"]);
}

#[test]
fn an_init_that_fails_leaves_no_words_in_the_way_of_the_next_one() {
    let world = World::new();
    fs::create_dir(world.path("repo")).unwrap();
    fs::write(world.path("repo/d"), "a file where a folder must be").unwrap();
    world.fails(&["init", "--recovery-file", "words"], 1);
    assert!(!world.path("words").exists());
    fs::remove_file(world.path("repo/d")).unwrap();
    world.does(&["init", "--recovery-file", "words"]);
    world.does(&["snapshots", "--recovery-words-file", "words"]);
}

#[test]
fn a_check_without_keys_needs_a_repository_and_looks_at_its_keys() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    world.does(&["check", "--without-keys"]);
    world.says(&["check", "--without-keys", "-r", "src"], 10, &["there is no repository"]);
    for part in ["/repo/config", "/keys/", "/registry/"] {
        let object = world.stored(part).remove(0);
        let good = fs::read(&object).unwrap();
        truncate(&object);
        let (out, _) = world.ends(&mut world.command(&["check", "--without-keys"]), 5);
        assert!(out.contains(part.trim_matches('/').trim_start_matches("repo/")), "{out}");
        if part != "/keys/" {
            fs::remove_file(&object).unwrap();
            world.fails(&["check", "--without-keys"], 5);
        }
        write(&object, &good);
    }
    let config = fs::read_to_string(world.path("repo/config")).unwrap();
    write(&world.path("repo/config"), config.replace("\"format\": 1", "\"format\": 2").as_bytes());
    world.says(&["check", "--without-keys"], 1, &["format 2"]);
}

#[test]
fn damage_in_records_of_runs_and_of_what_was_verified_is_found() {
    let world = World::with_repository();
    // Another one writes to the same domain: else nothing is attested.
    let beside =
        ["key", "add", "--role", "backup", "--label", "b", "--domain", "main", "--access-key-out", "b.key"];
    world.does(&beside);
    world.does(&["backup", "src"]);
    world.does(&["check", "--read-data"]);
    for (folder, commands) in [
        ("/attestations/", &[&["check"][..], &["check", "--read-data"]][..]),
        ("/runs/", &[&["check", "--read-data"]]),
    ] {
        let object = world.stored(folder).remove(0);
        let good = fs::read(&object).unwrap();
        for damage in [flip, truncate] {
            damage(&object);
            for arguments in commands {
                let (out, _) = world.ends(&mut world.command(arguments), 5);
                assert!(out.contains(folder), "{out}");
            }
            write(&object, &good);
        }
    }
    world.does(&["check", "--read-data"]);
}

#[test]
fn a_damaged_pack_that_is_set_aside_is_stored_anew_by_the_next_backup() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let pack = world.stored("/packs/d/").remove(0);
    flip(&pack);
    let advice = ["lifeboat repair index", "repair quarantine NAME", "Back up again"];
    world.says(&["check", "--read-data"], 5, &advice);
    let repository = world.path("repo");
    let name = pack.strip_prefix(&repository).unwrap().to_str().unwrap();
    world.does(&["repair", "quarantine", name, "--apply"]);
    world.does(&["backup", "src"]);
    world.does(&["check", "--read-data"]);
    for snapshot in ["latest", "latest~1"] {
        world.does(&["restore", snapshot, "--target", snapshot, "--verify"]);
    }
}

#[test]
fn a_pack_that_another_tool_deleted_is_stored_anew_and_the_snapshot_that_was_hurt_comes_back() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let [pack] = &world.stored("/packs/d/")[..] else { panic!("one pack of files") };
    fs::remove_file(pack).unwrap();
    let (out, err) = world.ends(&mut world.command(&["check"]), 5);
    let name = pack.strip_prefix(world.path("repo")).unwrap().to_str().unwrap();
    let snapshot = world.stored("/snapshots/").remove(0);
    let id = snapshot.to_str().unwrap().rsplit('-').next().unwrap().get(..8).unwrap();
    assert!(out.contains(name) && out.contains(id), "{out}{err}");
    world.fails(&["restore", "latest", "--target", "hurt"], 5);
    world.does(&["backup", "src"]);
    world.does(&["check", "--read-data"]);
    let source = world.path("src");
    let below = |root: &Path| -> Vec<_> {
        let all = tree(root).into_iter();
        all.map(|(path, bytes)| (path.strip_prefix(root).unwrap().to_owned(), bytes)).collect()
    };
    assert!(below(&source).len() > 1);
    for snapshot in ["latest", "latest~1"] {
        world.does(&["restore", &format!("{snapshot}:{}", world.text("src")), "--target", snapshot]);
        assert_eq!(below(&world.path(snapshot)), below(&source), "{snapshot}");
    }
}

#[test]
fn what_one_client_damages_is_no_error_of_another_ones_restore() {
    let world = World::with_repository();
    for label in ["web", "db"] {
        let key = world.key("backup", label);
        world.does(&["--access-key-file", &key, "backup", "src", "--host", label]);
    }
    let all = world.messages(&["snapshots"]);
    let web = all.iter().find(|message| message["host"] == "web").unwrap();
    let db = all.iter().find(|message| message["host"] == "db").unwrap();
    let id = web["id"].as_str().unwrap();
    let of_db = world.stored(db["id"].as_str().unwrap()).remove(0);
    fs::write(of_db.with_file_name(format!("0000000009-{}", "ab".repeat(32))), "junk").unwrap();
    let mut at = 0;
    let mut restore = |arguments: &[&str], code| {
        at += 1;
        let target = format!("t{at}");
        let all = [&["restore", "--target", &target][..], arguments].concat();
        let (_, said) = world.ends(&mut world.command(&all), code);
        assert_eq!(
            fs::read(world.path(&target).join(world.text("src/one").trim_start_matches('/'))).unwrap(),
            b"first"
        );
        said
    };
    for arguments in [&[id][..], &["latest", "--host", "web"]] {
        let said = restore(arguments, 0);
        assert!(said.contains("warning") && said.contains("snapshots/"), "{said}");
    }
    // Here it may be what was asked for.
    restore(&["latest"], 5);
    restore(&["latest", "--host", "db"], 5);
    world.fails(&["verify", "latest", "--target", "t1"], 5);
    world.does(&["ls", id]);
}

#[test]
fn a_damaged_snapshot_is_not_one_that_nobody_made() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let id = world.messages(&["snapshots"])[0]["id"].as_str().unwrap().to_owned();
    flip(&world.stored(&id).remove(0));
    for reference in ["latest", &id] {
        let said = world.fails(&["--no-cache", "restore", reference, "--target", "t"], 5);
        assert!(
            said.contains("there is no snapshot") && said.contains("among those that can be read"),
            "{said}"
        );
    }
    // What has nothing to do with the damage is as it was.
    world.fails(&["restore", "latest~x", "--target", "t"], 2);
}

#[test]
fn what_a_new_key_lacks_is_not_called_what_unlocks_the_repository() {
    let world = World::with_repository();
    for new in [&["key", "passphrase"][..], &["key", "add", "--role", "owner", "--label", "boss"]] {
        let said = world.fails(new, 2);
        assert!(said.contains("--new-password-file") && !said.contains("unlock"), "{said}");
    }
}

#[test]
fn another_machine_with_the_same_key_misses_what_it_has_read() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    fs::write(world.path("src/one"), "again").unwrap();
    world.does(&["backup", "src"]);
    let of_other = |arguments: &[&str], code| {
        let mut command = world.command(arguments);
        world.ends(command.env("HOME", world.path("other-home")), code)
    };
    of_other(&["check"], 0);
    let last = world.messages(&["snapshots"])[1]["id"].as_str().unwrap().to_owned();
    fs::remove_file(world.stored(&last).remove(0)).unwrap();
    for command in ["check", "snapshots", "prune"] {
        let (out, said) = of_other(&[command], 5);
        assert!((out + &said).contains("is gone"), "{command}: {said}");
    }
}

/// The program in a shell that lets no file grow beyond 512 blocks, of 512 bytes or of 1,024.
fn limited(world: &World, arguments: &[&str]) -> std::process::Command {
    let mut limited = std::process::Command::new("sh");
    let script = "ulimit -f 512 && exec \"$@\"";
    let command = world.command(arguments);
    limited.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    limited.current_dir(world.folder.path()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.env("PATH", "/usr/bin:/bin");
    limited
}

#[test]
fn a_file_that_may_not_grow_so_large_is_an_error_of_that_file() {
    let world = World::with_repository();
    fs::write(world.path("src/large"), vec![7; 1 << 20]).unwrap();
    world.does(&["backup", "src"]);
    let (out, said) = world.ends(&mut limited(&world, &["restore", "latest", "--target", "t"]), 3);
    assert!((out + &said).contains("ulimit -f"), "{said}");
    let restored = world.path("t").join(world.text("src/one").trim_start_matches('/'));
    assert_eq!(fs::read(restored).unwrap(), b"first");
    // What is more than a window keeps what has its name, and leaves nothing behind, be it restored by its further name.
    fs::write(world.path("src/large"), vec![7; 5 << 20]).unwrap();
    fs::hard_link(world.path("src/large"), world.path("src/zz")).unwrap();
    world.does(&["backup", "src"]);
    let source = format!("latest:{}", world.text("src"));
    for (target, old) in [("new", None), ("old", Some("old"))] {
        fs::create_dir(world.path(target)).unwrap();
        let names = ["large", "zz"].map(|name| world.path(target).join(name));
        let put = |path| old.into_iter().for_each(|old| fs::write(path, old).unwrap());
        names.iter().for_each(put);
        let (out, said) = world.ends(&mut limited(&world, &["restore", &source, "--target", target]), 3);
        assert_eq!((out + &said).matches("ulimit -f").count(), 2, "{said}");
        let left = |path| fs::read_to_string(path).ok();
        assert_eq!(names.each_ref().map(left), [old, old].map(|old| old.map(str::to_owned)));
        let named = fs::read_dir(world.path(target)).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(named.filter(|name| name.to_str().unwrap().starts_with('.')).count(), 0);
        world.does(&["restore", &source, "--target", target]);
    }
}

#[test]
fn a_repository_in_which_no_file_may_grow_so_large_says_so() {
    let world = World::with_repository();
    let bytes: Vec<u8> =
        (0_u32..1 << 18).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(world.path("src/large"), bytes).unwrap();
    let (_, said) = world.ends(&mut limited(&world, &["backup", "src", "--compression", "off"]), 1);
    assert!(said.contains("may not become so large") && said.contains("`ulimit -f`"), "{said}");
    world.does(&["backup", "src"]);
}

#[test]
fn an_added_owner_backs_up_to_the_domain_of_the_first() {
    let world = World::with_repository();
    let key = world.key("owner", "second");
    world.does(&["--access-key-file", &key, "backup", "src"]);
    world.does(&["check"]);
    assert_eq!(world.snapshots(), 1);
}

#[test]
fn a_chain_whose_head_is_damaged_goes_on_after_the_advice_is_followed() {
    let world = World::with_repository();
    let key = world.key("backup", "web");
    let backup = ["--access-key-file", &key, "backup", "src"];
    world.does(&backup);
    world.does(&backup);
    // The cache would still have it.
    let head =
        world.stored("/snapshots/").into_iter().find(|path| path.to_str().unwrap().contains("/0000000002-"));
    let head = head.unwrap();
    let name = head.file_name().unwrap().to_str().unwrap().to_owned();
    flip(&head);
    for (path, _) in tree(&world.path("home")) {
        if path.to_str().unwrap().ends_with(name.trim_start_matches("0000000002-")) {
            fs::remove_file(path).unwrap();
        }
    }
    let repository = world.path("repo");
    let object = head.strip_prefix(&repository).unwrap().to_str().unwrap();
    world.says(&backup, 5, &[&name, &format!("lifeboat repair quarantine {object} --apply")]);
    world.does(&["repair", "quarantine", object, "--apply"]);
    world.does(&backup);
    world.does(&["check"]);
    assert_eq!(world.snapshots(), 2);
}

#[test]
fn a_chain_whose_end_is_gone_goes_on_after_the_advice_is_followed() {
    let world = World::with_repository();
    let key = "web.key";
    world.adds_client("web", Some("main"), key);
    let backup = ["--access-key-file", key, "backup", "src"];
    for text in ["1", "2"] {
        fs::write(world.path("src/one"), text).unwrap();
        world.does(&backup);
    }
    fs::remove_file(world.stored("/snapshots/").into_iter().max().unwrap()).unwrap();
    // What a lost snapshot held comes back under the owner's key, and the other one still misses its own.
    world.does(&["recover", "--apply"]);
    let said = world.fails(&backup, 5);
    let (before, rest) = said.split_once("`lifeboat repair quarantine ").unwrap_or_else(|| panic!("{said}"));
    assert!(before.contains("`lifeboat recover`"), "{said}");
    let (object, _) = rest.split_once(" --force --apply`").unwrap();
    world.does(&["repair", "quarantine", object, "--force", "--apply"]);
    world.does(&backup);
    world.does(&["check", "--read-data"]);
    assert_eq!(world.snapshots(), 3);
}

#[test]
fn a_damaged_slot_locks_nobody_out_who_has_the_words() {
    let world = World::with_repository();
    let key = world.key("backup", "web");
    for slot in world.stored("/keys/") {
        truncate(&slot);
    }
    world.says(&["--access-key-file", &key, "backup", "src"], 12, &["lifeboat key add"]);
    world.says(&["snapshots"], 12, &["keys/", "lifeboat key recover"]);
    fs::write(world.path("new"), "new").unwrap();
    world.does(&["key", "recover", "--recovery-words-file", "words", "--new-password-file", "new"]);
    world.does(&["snapshots", "--password-file", "new"]);
}

#[test]
fn too_many_passphrases_are_warned_of_and_a_named_slot_is_found() {
    let world = World::with_repository();
    let access = world.key("backup", "machine");
    let mut slots = Vec::new();
    // Eight are tried, and the one that was opened on this machine before.
    for number in 2..=10 {
        let (label, file) = (format!("key {number}"), format!("pass{number}"));
        fs::write(world.path(&file), &file).unwrap();
        let mut command = world.command(&[
            "key",
            "add",
            "--role",
            "audit",
            "--label",
            &label,
            "--new-password-file",
            &file,
            "--json",
        ]);
        // The owner may not be among the first eight slots any more.
        command.args(["--recovery-words-file", "words"]).env_remove("LIFEBOAT_PASSWORD");
        let (out, _) = world.ends(&mut command, 0);
        let warned = objects(&out).iter().any(|message| {
            message["message_type"] == "warning" && message["message"].as_str().unwrap().contains("--slot")
        });
        assert_eq!(warned, number >= 9, "{out}");
        slots.push(objects(&out).last().unwrap()["slot"].as_str().unwrap().to_owned());
    }
    let mut wrong = world.command(&["snapshots"]);
    let (_, said) = world.ends(wrong.env("LIFEBOAT_PASSWORD", "wrong"), 12);
    assert!(said.contains("--slot") && said.contains("keys/"), "{said}");
    for (slot, number) in slots.iter().zip(2..) {
        world.does(&["snapshots", "--password-file", &format!("pass{number}"), "--slot", slot]);
    }
    world.says(&["snapshots", "--slot", "xx"], 12, &["no key slot `xx`", "keys/"]);
    let key = fs::read_to_string(world.path(&access)).unwrap();
    let slot = key.split(':').nth(1).unwrap();
    world.says(&["snapshots", "--slot", slot], 12, &["takes an access key", "--access-key-file"]);
}

#[test]
fn a_passphrase_beside_an_access_key_is_added_and_not_changed() {
    let world = World::with_repository();
    let key = world.key("restore", "drills");
    for name in ["one", "two"] {
        fs::write(world.path(name), name).unwrap();
    }
    let change = |unlock: [&str; 2], new: &str| {
        world.does(&["key", "passphrase", unlock[0], unlock[1], "--new-password-file", new])
    };
    assert!(change(["--access-key-file", &key], "one").contains("added"));
    assert!(change(["--password-file", "one"], "two").contains("changed"));
    world.fails(&["snapshots", "--password-file", "one"], 12);
    world.does(&["snapshots", "--password-file", "two"]);
    world.does(&["snapshots", "--access-key-file", &key]);
}

#[test]
fn who_wrote_a_registry_notices_when_it_is_gone() {
    let world = World::with_repository();
    world.key("audit", "auditor");
    fs::remove_file(world.stored("/registry/0000000002-").remove(0)).unwrap();
    world.says(&["backup", "src"], 5, &["older state"]);
}

#[test]
fn a_forked_chain_is_no_alarm_once_its_key_is_shared() {
    let world = World::with_repository();
    let key = world.key("backup", "web");
    let backup = ["--no-cache", "--access-key-file", &key, "backup", "src"];
    world.does(&backup);
    let first = world.stored("/snapshots/").remove(0);
    fs::rename(&first, world.path("kept")).unwrap();
    world.does(&backup);
    fs::rename(world.path("kept"), &first).unwrap();
    world.says(&["snapshots"], 5, &["key share NAME", "key revoke NAME"]);
    world.does(&["key", "share", "web"]);
    assert_eq!(world.snapshots(), 2);
    world.does(&["check"]);
    world.fails(&["key", "share", "nobody"], 2);
}

#[test]
fn a_link_to_a_folder_is_followed_with_a_slash_and_warned_of_without() {
    let world = World::with_repository();
    std::os::unix::fs::symlink("src", world.path("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", world.path("broken")).unwrap();
    let files = |source: &str, code: i32| {
        let (out, _) = world.ends(&mut world.command(&["backup", source, "--json"]), code);
        let messages = objects(&out);
        let warned = messages.iter().any(|message| {
            message["message_type"] == "warning"
                && message["message"].as_str().unwrap().contains(&world.text("link"))
        });
        let summary = messages.iter().find(|message| message["message_type"] == "summary").unwrap();
        (summary["files"].as_u64().unwrap(), warned)
    };
    assert_eq!(files("src/", 0), (2, false));
    assert_eq!(files("link", 0), (0, true));
    assert_eq!(files("link/", 0), (2, true));
    assert!(world.does(&["ls", "latest"]).contains(&world.text("src/deep/two")));
    assert_eq!(files("broken/", 0), (0, false));
}

#[test]
fn a_backup_that_creates_its_repository_says_how_far_it_is() {
    use rustix::process::{Pid, Signal, kill_process};
    let world = World::new();
    let mut command = world.command(&["backup", "--init", "--stdin"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // More than a pipe holds: so it is being read, and the repository is there.
    let piece = vec![7; 1 << 20];
    input.write_all(&piece).unwrap();
    kill_process(Pid::from_child(&child), Signal::USR1).unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| said.read_line(&mut line));
        // Long enough for many glances, and not for ever.
        let mut left = 500;
        while !reader.is_finished() && left > 0 && input.write_all(&piece).is_ok() {
            left -= 1;
        }
        drop(input);
        reader.join().unwrap().unwrap();
    });
    assert!(line.contains("elapsed"), "{line}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_dry_run_that_would_create_the_repository_says_so() {
    let world = World::new();
    let messages = world.messages(&["backup", "--init", "--dry-run", "src"]);
    let kinds: Vec<&str> = messages.iter().filter_map(|message| message["message_type"].as_str()).collect();
    assert_eq!(kinds, ["initialized", "summary"]);
    assert!(messages.iter().all(|message| message["dry_run"] == true), "{messages:?}");
    assert!(world.does(&["backup", "--init", "-n", "src"]).contains("would create"));
    assert!(!world.path("repo").exists());
    world.does(&["init"]);
    let real = world.messages(&["backup", "src"]).pop().unwrap();
    let fields = |message: &Value| message.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&messages[1]), fields(&real));
}

#[test]
fn only_who_can_restore_is_told_how() {
    let world = World::with_repository();
    let key = world.key("backup", "web");
    assert!(world.does(&["backup", "src"]).contains("to get it back"));
    assert!(!world.does(&["--access-key-file", &key, "backup", "src"]).contains("to get it back"));
}

#[test]
fn wrong_arguments_are_told_whole() {
    let world = World::with_repository();
    let last = |arguments: &[&str]| {
        let (out, _) = world.ends(&mut world.command(&[&["--json"][..], arguments].concat()), 2);
        objects(&out).pop().unwrap()["message"].as_str().unwrap().to_owned()
    };
    let missing = last(&["key", "add"]);
    assert!(
        missing.contains("--role") && missing.contains("--label") && !missing.contains("Usage"),
        "{missing}"
    );
    assert!(last(&["key"]).contains("subcommand"));
    assert!(last(&["backup", "--exclud", "x"]).contains("--exclud"));
    world.says(&["snapshots", "-o", "region=x"], 2, &["-o is for a bucket"]);
    world.says(&["snapshots", "-r", "file://srv/x"], 2, &["file:///"]);
    world.does(&["backup", "src"]);
    let path = format!("{}/", world.text("src"));
    let found = world.messages(&["snapshots", "--path", &path]).pop().unwrap();
    assert_eq!(found["snapshots"], 1);
}
