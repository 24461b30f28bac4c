//! The program as users and scripts meet it: exit codes, secrets, JSON, signals, pipes.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use world::{PASSPHRASE, World, objects, texts, tree};

#[path = "support/world.rs"]
mod world;

#[test]
fn each_way_to_fail_has_its_exit_code_and_its_remedy() {
    let world = World::with_repository();
    world.fails(&["backup", "--no-such-flag"], 2);
    assert!(world.ends(&mut world.bare(&["snapshots"]), 2).1.contains("LIFEBOAT_REPOSITORY"));
    assert!(world.fails(&["-r", "./nowhere", "snapshots"], 10).contains("lifeboat init"));
    assert!(world.fails(&["restore", "latest", "--target", "t"], 1).contains("lifeboat snapshots"));
    assert!(world.fails(&["init"], 1).contains("already"));
    assert!(world.fails(&["backup"], 2).contains("--files-from"));
    assert!(world.fails(&["backup", "src", "--exclude-larger-than", "big"], 2).contains("10M"));
    assert!(world.fails(&["restore", "latest:../x", "--target", "t"], 2).contains("SNAP:/srv/data"));
    let mut wrong = world.command(&["snapshots"]);
    assert!(world.ends(wrong.env("LIFEBOAT_PASSWORD", "wrong"), 12).1.contains("recovery words"));
    let mut none = world.command(&["snapshots"]);
    let (_, said) = world.ends(none.env_remove("LIFEBOAT_PASSWORD"), 12);
    assert!(said.contains("--password-file") && !said.contains("empty password"), "{said}");
    world.does(&["key", "add", "--role", "backup", "--label", "web", "--access-key-out", "web.key"]);
    let mut limited = world.command(&["snapshots", "--access-key-file", "web.key"]);
    assert!(world.ends(&mut limited, 13).1.contains("audit"));
    for arguments in [&["--help"][..], &["--version"], &["backup", "--help"], &["key", "add", "--help"]] {
        world.ends(&mut world.bare(arguments), 0);
    }
}

#[test]
fn an_error_is_one_line_and_its_causes_come_with_v() {
    let world = World::new();
    let (_, said) =
        world.ends(&mut world.command(&["snapshots", "--password-file", "gone", "-r", "src"]), 10);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("lifeboat: "), "{said}");
    let world = World::with_repository();
    let short = world.fails(&["snapshots", "--password-file", "gone"], 12);
    let long = world.fails(&["snapshots", "--password-file", "gone", "-v"], 12);
    assert_eq!(short.lines().count(), 1, "{short}");
    assert!(long.contains("because: No such file"), "{long}");
}

#[test]
fn a_missing_source_is_told_and_the_others_are_backed_up() {
    let world = World::with_repository();
    let said = world.fails(&["backup", "src", "gone", "far/gone"], 3);
    assert!(said.contains(&world.text("gone")) && said.contains(&world.text("far/gone")), "{said}");
    let from = format!("latest:{}", world.text("src"));
    world.does(&["restore", &from, "--target", "back"]);
    assert_eq!(fs::read(world.path("back/deep/two")).unwrap(), b"second");
    assert_eq!(world.snapshots(), 1);
    assert!(world.fails(&["backup", "gone", "far/gone"], 3).contains("no snapshot"));
    assert_eq!(world.snapshots(), 1);
}

#[test]
fn an_unreadable_file_is_told_and_the_snapshot_kept() {
    // Open to nobody but root, and root cannot read it either: there is nothing to read.
    let unreadable = "/proc/sysrq-trigger";
    assert!(fs::read(unreadable).is_err());
    let world = World::with_repository();
    let said = world.fails(&["backup", "src", unreadable], 3);
    assert!(said.contains(unreadable), "{said}");
    let output = world.command(&["backup", "src", unreadable, "--json"]).output().unwrap();
    let mut messages = objects(&texts(&output).0);
    // On a slow machine it says how far it is.
    messages.retain(|message| message["message_type"] != "status");
    let kinds: Vec<&str> = messages.iter().map(|message| message["message_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["error", "summary", "exit_error"]);
    assert_eq!(messages[0]["path"], unreadable);
    assert_eq!(messages[1]["unreadable"], 1);
    assert_eq!(messages[2]["code"], 3);
    assert_eq!(world.snapshots(), 2);
}

#[test]
fn a_signal_ends_a_backup_with_130_and_without_a_snapshot() {
    use rustix::process::{Pid, Signal, kill_process};
    let world = World::with_repository();
    for signal in [Signal::INT, Signal::TERM] {
        let mut command = world.command(&["backup", "--stdin"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // More than a pipe holds: so it is being read, and the backup is under way.
        let piece = vec![7; 1 << 20];
        input.write_all(&piece).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        while input.write_all(&piece).is_ok() {}
        let output = child.wait_with_output().unwrap();
        let (_, said) = texts(&output);
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("interrupted"), "{said}");
    }
    assert_eq!(world.snapshots(), 0);
}

#[test]
fn one_signal_ends_a_program_that_waits_for_its_passphrase() {
    use rustix::process::{Pid, Signal, kill_process};
    let world = World::with_repository();
    for signal in [Signal::INT, Signal::TERM] {
        let asked = world.path("asked");
        let sleeps = "echo $$ > asking; mv asking asked; exec sleep 600 2> sleeps";
        let mut command = world.bare(&["--password-command", sleeps, "snapshots"]);
        command.env("LIFEBOAT_REPOSITORY", world.path("repo")).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        while !asked.try_exists().unwrap() {
            assert_eq!(child.try_wait().unwrap(), None, "it ended before it asked");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let sleeper = Pid::from_raw(fs::read_to_string(&asked).unwrap().trim().parse().unwrap()).unwrap();
        fs::remove_file(asked).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let code = child.wait().unwrap().code();
        assert_eq!(code, Some(130));
        // It would outlive this test by ten minutes, with whatever handles it was given.
        kill_process(sleeper, Signal::KILL).unwrap();
    }
}

#[test]
fn sigusr1_asks_how_far_it_is() {
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::{BufRead, BufReader};
    let world = World::with_repository();
    let mut command = world.command(&["backup", "--stdin"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let piece = vec![7; 1 << 20];
    input.write_all(&piece).unwrap();
    kill_process(Pid::from_child(&child), Signal::USR1).unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("lifeboat: ") && line.contains("elapsed"), "{line}");
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn under_json_nothing_but_objects_is_printed() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let commands: [(&[&str], i32); 12] = [
        (&["snapshots"], 0),
        (&["ls", "latest"], 0),
        (&["backup", "src", "-v", "--limit-upload", "1G"], 0),
        (&["backup", "gone"], 3),
        (&["check", "--read-data"], 0),
        (&["key", "list"], 0),
        (&["init"], 1),
        (&["no-such-command"], 2),
        (&["backup", "--no-such-flag"], 2),
        (&["snapshots", "--connections", "0"], 2),
        (&["--help"], 0),
        (&["--version"], 0),
    ];
    for (arguments, code) in commands {
        let all: Vec<&str> = ["--json"].iter().chain(arguments).copied().collect();
        let (out, err) = world.ends(&mut world.command(&all), code);
        let messages = objects(&out);
        assert_eq!(err, "", "{arguments:?}");
        let last = messages.last().unwrap();
        if code == 0 {
            let kinds = ["summary", "help", "version"];
            assert!(kinds.contains(&last["message_type"].as_str().unwrap()), "{arguments:?}: {last}");
        } else {
            assert_eq!(last["message_type"], "exit_error", "{arguments:?}");
            assert_eq!(last["code"], code, "{arguments:?}");
        }
    }
    // What comes after `--` is the other command's.
    let (out, _) = world.ends(&mut world.command(&["backup", "--nope", "--", "--json"]), 2);
    assert_eq!(out, "");
}

#[test]
fn a_name_that_is_not_text_keeps_its_bytes_under_json() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::with_repository();
    fs::write(world.path("src").join(std::ffi::OsStr::from_bytes(b"a\xff")), "x").unwrap();
    world.does(&["backup", "src"]);
    let messages = world.messages(&["ls", "latest"]);
    let odd = messages.iter().find(|message| message["path_b64"].is_string()).unwrap();
    assert!(odd["path"].as_str().unwrap().ends_with("a\u{fffd}"));
    assert_eq!(odd["mode"].as_u64().unwrap() & 0o170_000, 0o100_000);
    assert!(messages.iter().any(|message| message["path"] == world.text("src/one").as_str()));
}

#[test]
fn no_secret_is_printed_by_any_command_that_does_not_have_to() {
    let world = World::new();
    let mut said = String::new();
    let mut run = |arguments: &[&str], changes: &[(&str, &str)]| {
        let mut command = world.command(arguments);
        command.arg("-vv").envs(changes.iter().copied());
        let (out, err) = texts(&command.output().unwrap());
        said += &out;
        said += &err;
    };
    run(&["init", "--recovery-file", "words"], &[]);
    run(&["key", "add", "--role", "restore", "--label", "r", "--access-key-out", "r.key"], &[]);
    run(&["backup", "src"], &[]);
    run(&["snapshots"], &[("LIFEBOAT_PASSWORD", "another-secret-1")]);
    run(&["snapshots", "--access-key-file", "r.key"], &[]);
    run(&["snapshots", "--recovery-words-file", "words"], &[]);
    run(&["key", "words", "--recovery-file", "words2"], &[]);
    run(&["key", "words", "--verify", "--words-file", "words"], &[]);
    run(&["key", "list", "--json"], &[]);
    run(&["snapshots", "-o", "secret_access_key=another-secret-2"], &[]);
    run(&["snapshots", "-r", "s3:https://user:another-secret-3@localhost/bucket"], &[]);
    run(
        &["snapshots", "-r", "s3:http://127.0.0.1:1/b", "--retry-for", "0s"],
        &[("AWS_ACCESS_KEY_ID", "name"), ("AWS_SECRET_ACCESS_KEY", "another-secret-4")],
    );
    run(&["snapshots", "--password-command", "echo another-secret-5"], &[]);
    let words = fs::read_to_string(world.path("words")).unwrap();
    let key = fs::read_to_string(world.path("r.key")).unwrap();
    assert_eq!(words, fs::read_to_string(world.path("words2")).unwrap());
    let start: Vec<&str> = words.split(' ').take(3).collect();
    let secret = key.split(':').nth(2).unwrap();
    for secret in [PASSPHRASE, "another-secret", &start.join(" "), secret] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
    for name in ["words", "words2", "r.key"] {
        let mode = fs::metadata(world.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // A person who asks for them by name gets them.
    assert_eq!(world.does(&["key", "words"]), words);
}

#[test]
fn a_passphrase_comes_from_the_first_place_that_has_one() {
    let world = World::with_repository();
    let write = |name: &str, text: &str| {
        fs::write(world.path(name), text).unwrap();
        fs::set_permissions(world.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("right", &format!("{PASSPHRASE}\nnot this\n"));
    write("wrong", "wrong\n");
    write("empty", "\n");
    let call = |arguments: &[&str], environment: &[(&str, &str)], code| {
        let arguments: Vec<&str> = ["snapshots"].iter().chain(arguments).copied().collect();
        let mut command = world.bare(&arguments);
        command.env("LIFEBOAT_REPOSITORY", world.path("repo")).envs(environment.iter().copied());
        world.ends(&mut command, code).1
    };
    let right = format!("echo {PASSPHRASE}");
    let (file, command, plain) = ("LIFEBOAT_PASSWORD_FILE", "LIFEBOAT_PASSWORD_COMMAND", "LIFEBOAT_PASSWORD");
    call(&["--password-file", "right"], &[(file, "wrong"), (plain, "wrong")], 0);
    call(&["--password-command", &right], &[(plain, "wrong")], 0);
    call(&[], &[(file, "right"), (command, "echo wrong"), (plain, "wrong")], 0);
    call(&[], &[(command, &right), (plain, "wrong")], 0);
    call(&[], &[(plain, PASSPHRASE)], 0);
    call(&["--password-file", "wrong"], &[(plain, PASSPHRASE)], 12);
    assert!(call(&["--password-file", "empty"], &[], 12).contains("first line"));
    assert!(call(&[], &[(plain, "")], 12).contains("--password-file"));
    assert!(call(&["--password-command", "exit 3"], &[], 12).contains("exit status: 3"));
    call(&["--password-file", "right", "--password-command", &right], &[], 2);
    call(&["--recovery-words-file", "words"], &[(plain, "wrong")], 0);
    let words_in_passphrase = call(&["--password-file", "words"], &[], 12);
    assert!(words_in_passphrase.contains("wrong"));

    assert_eq!(call(&["--password-file", "right"], &[], 0), "");
    fs::set_permissions(world.path("right"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(call(&["--password-file", "right"], &[], 0).contains("warning"));
}

#[test]
fn systemd_credentials_are_read_by_name() {
    let world = World::with_repository();
    fs::create_dir(world.path("credentials")).unwrap();
    fs::write(world.path("credentials/pass"), PASSPHRASE).unwrap();
    let folder = world.text("credentials");
    let call = |name: &str, folder: Option<&str>, code| {
        let mut command = world.bare(&["snapshots", "--password-file", name]);
        command.env("LIFEBOAT_REPOSITORY", world.path("repo"));
        folder.map(|folder| command.env("CREDENTIALS_DIRECTORY", folder));
        world.ends(&mut command, code).1
    };
    call("cred:pass", Some(&folder), 0);
    call("cred:other", Some(&folder), 12);
    call("cred:../words", Some(&folder), 2);
    assert!(call("cred:pass", None, 12).contains("LoadCredential"));
}

#[test]
fn a_reader_that_goes_away_is_no_trouble() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    for arguments in [&["ls", "latest"][..], &["snapshots"], &["backup", "src"], &["--help"]] {
        let mut child =
            world.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}: {said}");
        assert_eq!(said, "", "{arguments:?}");
    }
    assert_eq!(world.snapshots(), 2);
}

#[test]
fn a_full_disk_below_standard_output_is_told() {
    let world = World::with_repository();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (_, said) = world.ends(world.command(&["snapshots"]).stdout(full), 1);
    assert!(said.contains("standard output"), "{said}");
}

#[test]
fn what_a_command_prints_is_backed_up_only_if_it_succeeds() {
    let world = World::with_repository();
    let good = ["backup", "--stdin-filename", "dumps/db.sql", "--stdin-from-command", "--"];
    let call = |script: &'static str| [&good[..], &["sh", "-c", script]].concat();
    world.does(&call("echo one; echo --json"));
    world.does(&["restore", "latest:/dumps", "--target", "back"]);
    assert_eq!(fs::read_to_string(world.path("back/db.sql")).unwrap(), "one\n--json\n");
    assert!(world.fails(&call("echo half; exit 4"), 1).contains("exit status: 4"));
    assert!(world.fails(&[&good[..], &["./no-such-program"]].concat(), 1).contains("no-such-program"));
    world.fails(&good, 2);
    assert_eq!(world.snapshots(), 1);
    let mut piped = world.command(&["backup", "--stdin"]);
    world.ends(piped.stdin(fs::File::open(world.path("src/one")).unwrap()), 0);
    world.does(&["restore", "latest:/stdin", "--target", "back2"]);
    assert_eq!(fs::read_to_string(world.path("back2/stdin")).unwrap(), "first");
}

#[test]
fn snapshots_are_named_by_age_by_id_and_by_filters() {
    let world = World::with_repository();
    for (host, tag) in [("web", "a"), ("db", "b"), ("web", "a,c")] {
        world.does(&["backup", "src", "--host", host, "--tag", tag]);
    }
    let all = world.messages(&["snapshots"]);
    let ids: Vec<&str> = all.iter().filter_map(|message| message["id"].as_str()).collect();
    let named = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["ls"].iter().chain(arguments).copied().collect();
        let last = world.messages(&arguments).pop().unwrap();
        ids.iter().position(|id| id.starts_with(last["snapshot"].as_str().unwrap())).unwrap()
    };
    assert_eq!(named(&["latest"]), 2);
    assert_eq!(named(&["latest~1"]), 1);
    assert_eq!(named(&["latest~1", "--host", "web"]), 0);
    assert_eq!(named(&["latest", "--tag", "b"]), 1);
    assert_eq!(named(&["latest", "--tag", "b", "--tag", "a,c"]), 2);
    assert_eq!(named(&["latest", "--path", &world.text("src")]), 2);
    assert_eq!(named(&[ids[1].get(..8).unwrap()]), 1);
    assert!(world.fails(&["ls", "latest~3"], 1).contains("lifeboat snapshots"));
    assert!(world.fails(&["ls", "latest", "--host", "other"], 1).contains("filters"));
    let count = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["snapshots"].iter().chain(arguments).copied().collect();
        world.messages(&arguments).pop().unwrap()["snapshots"].as_u64().unwrap()
    };
    assert_eq!([count(&["--host", "web"]), count(&["--tag", "a,c"]), count(&["--latest", "1"])], [2, 1, 2]);
}

#[test]
fn neither_the_repository_nor_the_cache_is_backed_up() {
    let world = World::with_repository();
    world.does(&["backup", "."]);
    let listed = world.does(&["ls", "latest"]);
    assert!(listed.contains(&world.text("src/one")) && listed.contains(&world.text("words")), "{listed}");
    assert!(world.path("home/.cache/lifeboat").is_dir());
    for hidden in ["repo/config", "home/.cache/lifeboat/"] {
        assert!(!listed.contains(&world.text(hidden)), "{listed}");
    }
}

#[test]
fn what_is_excluded_or_listed_in_files_decides_what_is_backed_up() {
    let world = World::with_repository();
    for name in ["a.tmp", "B.TMP", "big", "x.log", "keep"] {
        fs::write(world.path("src").join(name), vec![0; if name == "big" { 5000 } else { 5 }]).unwrap();
    }
    fs::create_dir(world.path("src/skip")).unwrap();
    fs::write(world.path("src/skip/.nobackup"), "").unwrap();
    fs::write(world.path("src/skip/inside"), "").unwrap();
    fs::write(world.path("patterns"), "# a comment\n*.log\n").unwrap();
    world.does(&[
        "backup",
        "src",
        "-e",
        "/nothing",
        "--iexclude",
        "*.tmp",
        "--exclude-file",
        "patterns",
        "--exclude-larger-than",
        "4k",
        "--exclude-if-present",
        ".nobackup",
    ]);
    let below = |listed: String| -> Vec<String> {
        let start = format!("{}/", world.text("src"));
        listed.lines().filter_map(|line| Some(line.strip_prefix(&start)?.to_owned())).collect()
    };
    let expected = ["deep", "deep/two", "keep", "one", "skip", "skip/.nobackup"];
    assert_eq!(below(world.does(&["ls", "latest"])), expected);

    fs::write(world.path("globs"), "# comment\n  src/*.tmp\n\nsrc/d[e]ep\n").unwrap();
    fs::write(world.path("lines"), "src/keep\n").unwrap();
    fs::write(world.path("raw"), "src/x.log\0").unwrap();
    world.does(&[
        "backup",
        "--files-from",
        "globs",
        "--files-from-verbatim",
        "lines",
        "--files-from-raw",
        "raw",
    ]);
    assert_eq!(below(world.does(&["ls", "latest"])), ["a.tmp", "deep", "deep/two", "keep", "x.log"]);
}

#[test]
fn a_dry_run_writes_nothing_and_an_unchanged_tree_can_be_skipped() {
    let world = World::new();
    world.does(&["init", "--dry-run"]);
    assert!(!world.path("repo").try_exists().unwrap());
    world.does(&["init"]);
    let before = tree(&world.path("repo"));
    let summary = world.messages(&["backup", "src", "--dry-run"]).pop().unwrap();
    assert_eq!((&summary["snapshot"], &summary["files"]), (&Value::Null, &Value::from(2)));
    assert_eq!(tree(&world.path("repo")), before);
    world.does(&["backup", "src", "--skip-if-unchanged"]);
    world.does(&["backup", "src", "--skip-if-unchanged"]);
    assert_eq!(world.snapshots(), 1);
    let time = ["backup", "src", "--time", "2020-02-03T04:05:06Z"];
    assert_eq!(world.messages(&time).pop().unwrap()["time"], "2020-02-03T04:05:06Z");
}

#[test]
fn init_refuses_times_with_which_nothing_could_be_opened_again() {
    let world = World::new();
    for times in [["--min-grace", "30m"], ["--commit-window", "1d"], ["--commit-window", "4s"]] {
        let said = world.fails(&["init", times[0], times[1]], 2);
        assert!(said.contains("do not go together"), "{said}");
        assert!(!world.path("repo").exists());
    }
    world.does(&["init", "--commit-window", "5s", "--min-grace", "20s"]);
    assert_eq!(world.snapshots(), 0);
}

#[test]
fn a_part_that_is_more_than_the_whole_is_no_limit_of_a_prune() {
    let world = World::with_repository();
    for wrong in ["101%", "1000%", "-1%", "%"] {
        let limit = format!("--max-unused={wrong}");
        assert!(world.fails(&["prune", &limit], 2).contains("is no percentage"));
    }
    world.does(&["prune", "--max-unused", "100%", "--dry-run"]);
}

#[test]
fn init_tries_the_store_and_leaves_nothing_of_that() {
    let world = World::new();
    fs::write(world.path("words"), "precious").unwrap();
    assert!(world.fails(&["init", "--recovery-file", "words"], 1).contains("another name"));
    assert_eq!(fs::read(world.path("words")).unwrap(), b"precious");
    let (out, said) =
        world.ends(&mut world.command(&["init", "--min-grace", "1h", "--commit-window", "1m"]), 0);
    assert_eq!(said.matches("warning").count(), 2, "{said}");
    let grace = said.lines().find(|line| line.contains("--min-grace")).unwrap();
    assert!(grace.contains("a prune frees sooner") && !grace.contains("suspended"), "{said}");
    assert!(out.contains("created a repository"));
    let names = tree(&world.path("repo"));
    assert!(!names.iter().any(|(path, _)| path.to_str().unwrap().contains("/runs/")), "{names:?}");
    let config = fs::read_to_string(world.path("repo/config")).unwrap();
    assert!(config.contains("3600") && config.contains("60"), "{config}");
}

#[test]
fn the_repository_is_refused_as_a_source_and_left_out_of_what_holds_it() {
    let world = World::with_repository();
    for source in ["repo", "repo/d"] {
        let said = world.fails(&["backup", source], 2);
        assert!(said.contains("never backed up"), "{said}");
    }
    assert_eq!(world.snapshots(), 0);
    world.does(&["backup", "."]);
    let listed = world.does(&["ls", "latest"]);
    assert!(listed.contains("/src/one") && !listed.contains("/repo/"), "{listed}");
}

#[test]
fn backup_creates_a_repository_only_when_told() {
    let world = World::new();
    world.fails(&["backup", "src"], 10);
    let mut messages = world.messages(&["backup", "--init", "src"]);
    messages.retain(|message| message["message_type"] != "status");
    let kinds: Vec<&str> = messages.iter().filter_map(|message| message["message_type"].as_str()).collect();
    assert_eq!(kinds, ["initialized", "summary"]);
    world.does(&["backup", "--init", "src"]);
    assert_eq!(world.snapshots(), 2);
}

#[test]
fn a_backup_begins_no_repository_in_the_place_of_one_that_has_vanished() {
    let world = World::new();
    world.does(&["backup", "--init", "src"]);
    // A disk that is not mounted, or somebody who deletes.
    fs::rename(world.path("repo"), world.path("away")).unwrap();
    for arguments in [&["backup", "--init", "src"][..], &["backup", "--init", "--dry-run", "src"]] {
        let said = world.fails(arguments, 10);
        let first = said.lines().next().unwrap();
        assert!(first.contains("there is no repository at") && first.contains("any more"), "{said}");
        assert!(!world.path("repo").exists());
    }
    fs::rename(world.path("away"), world.path("repo")).unwrap();
    world.does(&["backup", "--init", "src"]);
    // A person may; and then it is another one.
    fs::remove_dir_all(world.path("repo")).unwrap();
    world.does(&["init"]);
    world.does(&["backup", "--init", "src"]);
    fs::remove_dir_all(world.path("repo")).unwrap();
    let said = world.fails(&["backup", "--init", "src"], 10);
    let file = said.split("remove ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    fs::remove_file(file).unwrap();
    world.does(&["backup", "--init", "src"]);
    assert_eq!(world.snapshots(), 1);
}

#[test]
fn verify_tells_differences_from_damage() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    // Not the folders above it, in which other tests work.
    let from = format!("latest:{}", world.text("src"));
    let verify = ["verify", &from, "--target", "src"];
    world.does(&verify);
    fs::write(world.path("src/one"), "fIrst").unwrap();
    let (out, _) = world.ends(&mut world.command(&verify), 6);
    assert!(out.contains(&world.text("src/one")), "{out}");
    world.does(&["check", "--without-keys"]);
    let packs: Vec<PathBuf> = tree(&world.path("repo"))
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.to_str().unwrap().contains("/packs/"))
        .collect();
    let mut bytes = fs::read(&packs[0]).unwrap();
    bytes[100] ^= 1;
    fs::set_permissions(&packs[0], fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&packs[0], bytes).unwrap();
    for arguments in [&["check", "--read-data"][..], &["check", "--without-keys"]] {
        world.ends(&mut world.command(arguments), 5);
    }
}

/// The fenced blocks of a document that are for a shell, one after the other.
fn examples(document: &str) -> String {
    let blocks = document.split("\n```sh\n").skip(1);
    blocks
        .filter_map(|rest| rest.split("\n```").next())
        .fold(String::new(), |script, block| script + block + "\n")
}

/// Runs the shell blocks of a page in an empty folder, with nothing of this machine's environment.
#[track_caller]
fn run_examples(page: &str, at_least: usize) -> (tempfile::TempDir, String) {
    let script = examples(&fs::read_to_string(page).unwrap());
    assert!(script.matches("lifeboat ").count() > at_least, "{script}");
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_lifeboat")).parent().unwrap().to_str().unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-eux", "-c", &script]).env_clear().current_dir(folder.path()).stdin(Stdio::null());
    shell.env("PATH", format!("{program}:/usr/bin:/bin")).env("HOME", folder.path());
    let output = shell.output().unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}{err}");
    (folder, out + &err)
}

#[test]
fn the_examples_of_the_documentation_work() {
    let (folder, said) = run_examples("docs/commands.md", 25);
    for made in
        ["restored", "data-again/photos/one", "lifeboat.bash", "man1/lifeboat-key-add.1", "owner.json"]
    {
        assert!(folder.path().join(made).try_exists().unwrap(), "{made}: {said}");
    }
    assert!(!folder.path().join("data-again/letter").try_exists().unwrap());
}

#[test]
fn the_stories_of_the_readme_work() {
    let (folder, said) = run_examples("README.md", 15);
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("restored/numbers"), read("data/numbers"));
    for line in ["nobody is overdue", "\nPASS", "\nVALID", "no damage was found"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // The quick start is what CI runs, and there are no other commands in that form.
    let page = fs::read_to_string("README.md").unwrap();
    let indented: Vec<&str> = page.lines().filter(|line| line.starts_with("    ")).collect();
    assert_eq!(indented.len(), 2, "{indented:?}");
}
