//! Which files are taken, which are left out, and what is said about it. Mounts are in `.ci/mounts`.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    process::{Command, Stdio},
};

use lifeboat::filesystem::select::Selection;
use serde_json::{Value, json};
use skip::skip;
use world::{World, objects, texts, tree};

#[path = "support/skip.rs"]
mod skip;
#[path = "support/world.rs"]
mod world;

/// A source with something for every rule.
fn furnished() -> World {
    let world = World::with_repository();
    for folder in ["src/cache", "src/marked", "src/skipped/inner"] {
        fs::create_dir_all(world.path(folder)).unwrap();
    }
    for name in ["a.tmp", "deep/b.tmp", "photo.JPG", "x.log", "marked/.skip", "marked/1", "skipped/inner/z"] {
        fs::write(world.path("src").join(name), "seven77").unwrap();
    }
    fs::write(world.path("src/large"), vec![0; 5000]).unwrap();
    fs::write(world.path("src/cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    fs::write(world.path("src/cache/1"), "x").unwrap();
    fs::write(world.path("patterns"), "\u{feff}# comment\n\n*.log\r\n!keep.log\n").unwrap();
    world
}

const RULES: [&str; 16] = [
    "-e",
    "*.tmp",
    "-e",
    "skipped",
    "-e",
    "*.never",
    "--iexclude",
    "*.jpg",
    "--exclude-file",
    "patterns",
    "--exclude-larger-than",
    "4k",
    "--exclude-caches",
    "--exclude-if-present",
    ".skip",
    "--one-file-system",
];

fn backup(more: &[&'static str]) -> Vec<&'static str> {
    [&["backup", "src"], &RULES[..], more].concat()
}

/// What comes from an entry of a list, or nothing.
fn fields(message: &Value) -> (Value, Value, Value, u64, u64) {
    let number = |name: &str| message[name].as_u64().unwrap();
    let copy = |name: &str| message[name].clone();
    (copy("rule"), copy("value"), copy("origin"), number("entries"), number("bytes"))
}

#[test]
fn a_dry_run_says_what_each_rule_took_out() {
    let world = furnished();
    let before = tree(&world.path("repo"));
    let said = world.does(&backup(&["--dry-run"]));
    for line in [
        "left out 2 entries, 14 B: *.tmp (--exclude)\n",
        "left out 1 entry: skipped (--exclude)\n",
        "nothing matches, or only what another rule left out: *.never (--exclude)\n",
        "left out 1 entry, 7 B: *.log (patterns:3)\n",
        "left out 1 entry, 7 B: *.jpg (--iexclude)\n",
        "left out 1 entry, 4.88 KiB: files larger than 4.00 KiB (--exclude-larger-than)\n",
        "left out 1 entry: what is in folders with a CACHEDIR.TAG (--exclude-caches)\n",
        "left out 1 entry: what is in folders with .skip (--exclude-if-present)\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("keep.log") && !said.contains("comment"), "{said}");
    let messages = world.messages(&backup(&["--dry-run"]));
    let rules: Vec<_> =
        messages.iter().filter(|message| message["message_type"] == "rule").map(fields).collect();
    let rule = |rule: &str, value: Value, origin: Value, entries: u64, bytes: u64| {
        (Value::from(rule), value, origin, entries, bytes)
    };
    let expected = [
        rule("pattern", "*.tmp".into(), "--exclude".into(), 2, 14),
        rule("pattern", "skipped".into(), "--exclude".into(), 1, 0),
        rule("pattern", "*.never".into(), "--exclude".into(), 0, 0),
        rule("pattern", "*.log".into(), "patterns:3".into(), 1, 7),
        rule("pattern", "*.jpg".into(), "--iexclude".into(), 1, 7),
        rule("larger-than", "4.00 KiB".into(), "--exclude-larger-than".into(), 1, 5000),
        rule("caches", Value::Null, "--exclude-caches".into(), 1, 0),
        rule("if-present", ".skip".into(), "--exclude-if-present".into(), 1, 0),
        rule("one-file-system", Value::Null, "--one-file-system".into(), 0, 0),
        rule("pseudo-file-system", Value::Null, Value::Null, 0, 0),
        rule("seen-elsewhere", Value::Null, Value::Null, 0, 0),
        rule("own", Value::Null, Value::Null, 0, 0),
    ];
    assert_eq!(rules, expected);
    let summary = messages.last().unwrap();
    assert_eq!((&summary["excluded"], &summary["vanished"]), (&json!(8), &json!(0)));
    assert_eq!((&summary["changed_while_read"], &summary["empty_sources"]), (&json!(0), &json!([])));
    assert_eq!(tree(&world.path("repo")), before, "and nothing is written");
}

#[test]
fn with_v_a_dry_run_names_every_path_with_its_rule() {
    let world = furnished();
    let said = world.does(&backup(&["--dry-run", "-v"]));
    for (path, rule) in [
        ("a.tmp", "*.tmp (--exclude)"),
        ("deep/b.tmp", "*.tmp (--exclude)"),
        ("x.log", "*.log (patterns:3)"),
        ("marked", "what is in folders with .skip (--exclude-if-present)"),
    ] {
        let line = format!("left out {}/{path}: {rule}\n", world.text("src"));
        assert!(said.contains(&line), "{line}: {said}");
    }
    let messages = world.messages(&backup(&["--dry-run", "-v"]));
    let paths: Vec<_> = messages.iter().filter(|message| message["message_type"] == "excluded").collect();
    assert_eq!(paths.len(), 8);
    assert_eq!(paths[0]["path"], world.text("src/a.tmp").as_str());
    assert_eq!(paths[0]["value"], "*.tmp");
    // Without it, and in a backup, they are only counted.
    let said = world.does(&backup(&["-v"]));
    assert!(said.contains("8 entries were left out; `backup --dry-run` says by which rule"), "{said}");
    assert!(!said.contains("a.tmp"), "{said}");
}

#[test]
fn what_is_a_source_is_taken_whatever_the_rules_say() {
    let world = furnished();
    let source = |name: &str| world.text(&format!("src/{name}"));
    let named = [source("a.tmp"), source("skipped"), source("large"), source("cache"), source("marked")];
    let mut arguments = backup(&[]);
    arguments.extend(named.iter().map(String::as_str));
    world.does(&arguments);
    let listed = world.does(&["ls", "latest"]);
    for name in ["a.tmp", "skipped/inner/z", "large", "cache/1", "marked/1"] {
        assert!(listed.contains(&source(name)), "{name}: {listed}");
    }
    for name in ["deep/b.tmp", "x.log", "photo.JPG"] {
        assert!(!listed.contains(&source(name)), "{name}: {listed}");
    }
}

#[test]
fn excludes_of_a_restore_and_a_comparison_take_what_those_of_a_backup_do() {
    let world = World::with_repository();
    fs::create_dir_all(world.path("an/build/proj/tmp")).unwrap();
    for name in ["one", "build/two", "build/proj/main.c", "build/proj/main.o", "build/proj/tmp/three"] {
        fs::write(world.path("an").join(name), "seven77").unwrap();
    }
    let inner = world.text("an/build/proj");
    let rules = ["-e", "build", "-e", "*.o", "-e", "tmp"];
    let names = |root: &str| {
        let files = tree(&world.path(root)).into_iter().map(|(path, _)| path.file_name().unwrap().to_owned());
        files.map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
    };
    // The folder of the test itself lies in one that is called tmp.
    for (sources, files) in
        [(&["an/build/proj"][..], &["main.c"][..]), (&["an", "an/build/proj"], &["main.c", "one"])]
    {
        world.does(&[&["backup"], sources, &rules[..]].concat());
        let count =
            if files.len() == 1 { "1 file is".to_owned() } else { format!("{} files are", files.len()) };
        let same =
            |out: &str| assert!(out.contains(&format!("{count} as in snapshot")), "{sources:?}: {out}");
        same(&world.does(&[&["verify", "latest"], &rules[..]].concat()));
        let live = world.messages(&[&["diff", "latest", "--live"], &rules[..]].concat());
        assert_eq!(live.last().unwrap()["message_type"], "summary", "{live:?}");
        assert!(live.iter().all(|message| message["message_type"] != "change"), "{live:?}");
        drop(fs::remove_dir_all(world.path("copy")));
        let restore = [&["restore", "latest", "--target", "copy", "--delete"], &rules[..]].concat();
        same(&world.does(&[&restore[..], &["--verify"]].concat()));
        assert_eq!(names("copy"), files, "{sources:?}");
        // One source by its path is no other thing.
        drop(fs::remove_dir_all(world.path("part")));
        let part = format!("latest:{inner}");
        world.does(&[&["restore", &part, "--target", "part"], &rules[..]].concat());
        assert_eq!(names("part"), ["main.c"], "{sources:?}");
        world.does(&[&["verify", &part], &rules[..]].concat());
    }
    // What was taken then is left out now, and stays where it is.
    world.does(&["backup", "an", "an/build/proj"]);
    let restore = [&["restore", "latest", "--target", "whole"], &rules[..]].concat();
    world.does(&restore);
    assert_eq!(names("whole"), ["main.c", "one"]);
    fs::write(world.path(&format!("whole{inner}/stays.o")), "").unwrap();
    fs::write(world.path(&format!("whole{inner}/goes.c")), "").unwrap();
    world.does(&[&restore[..], &["--delete"]].concat());
    assert_eq!(names("whole"), ["main.c", "stays.o", "one"]);
    let two = world.does(&[&["diff", "latest~1", "latest"], &rules[..]].concat());
    assert!(!two.contains("main.o") && !two.contains("three"), "{two}");
    // What leaves nothing is told.
    let part = format!("latest:{inner}/tmp");
    let empty: [&[&str]; 4] = [
        &["verify", &part, "-e", "tmp"],
        &["diff", &part, "--live", "-e", "tmp"],
        &["restore", &part, "--target", "none", "-e", "tmp"],
        &["restore", &part, "--target", "none", "-e", "tmp", "--plan"],
    ];
    for arguments in empty {
        let said = world.fails(arguments, 1);
        assert!(said.contains("--exclude takes out all"), "{arguments:?}: {said}");
    }
}

#[test]
fn several_sources_are_one_snapshot_and_each_entry_is_in_it_once() {
    let world = World::with_repository();
    fs::create_dir(world.path("other")).unwrap();
    fs::write(world.path("other/x"), "x").unwrap();
    let summary = world.messages(&["backup", "other", "src", "src/deep", "./src/one"]).pop().unwrap();
    assert_eq!(summary["files"], 3);
    let listed = world.does(&["ls", "latest"]);
    assert_eq!(listed.matches("/two\n").count(), 1, "{listed}");
    assert_eq!(world.snapshots(), 1);
}

#[test]
fn lists_come_in_three_forms_and_from_standard_input() {
    let world = World::with_repository();
    let odd = std::ffi::OsStr::from_bytes(b"# odd\xff *");
    fs::create_dir(world.path("many")).unwrap();
    for name in ["a1", "a2", "b1", ".hidden", "two\nlines", " space "] {
        fs::write(world.path("many").join(name), name).unwrap();
    }
    fs::write(world.path("many").join(odd), "odd").unwrap();
    let files = |arguments: &[&str], list: &[u8]| -> Vec<String> {
        let listed = [&["backup", "--json"], arguments].concat();
        let mut command = world.command(&listed);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), list).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", texts(&output).0);
        let base = format!("{}/", world.text("many"));
        let entries = world.messages(&["ls", "latest"]);
        entries
            .iter()
            .filter_map(|entry| Some(entry["path"].as_str()?.strip_prefix(&base)?.to_owned()))
            .collect()
    };
    let patterns = b"# a comment\n\n  many/a?  \r\nmany/[!a]1\n";
    assert_eq!(files(&["--files-from", "-"], patterns), ["a1", "a2", "b1"]);
    assert_eq!(files(&["--files-from", "-"], b"many/*1\n"), ["a1", "b1"]);
    // A slash at the end says that what a link leads to is meant.
    std::os::unix::fs::symlink("many", world.path("link")).unwrap();
    assert_eq!(files(&["--files-from", "-"], b"link/\n").len(), 7);
    assert_eq!(files(&["--files-from", "-"], b"l?nk/\n").len(), 7);
    fs::remove_file(world.path("link")).unwrap();
    assert_eq!(files(&["--files-from-verbatim", "-"], b"many/a1\nmany/ space \n"), [" space ", "a1"]);
    let raw = [&b"many/two\nlines\0many/"[..], odd.as_bytes(), b"\0"].concat();
    assert_eq!(files(&["--files-from-raw", "-"], &raw), ["# odd\u{fffd} *", "two\nlines"]);
    // One that is not there is missing, as if it had been named.
    fs::write(world.path("list"), "many/none*\nmany/a1\n").unwrap();
    assert!(world.fails(&["backup", "--files-from", "list"], 3).contains("none*"));
}

#[test]
fn a_list_without_end_is_refused_before_it_fills_the_memory() {
    let world = World::with_repository();
    for list in ["--exclude-file", "--files-from", "--files-from-verbatim", "--files-from-raw"] {
        // No more memory than a program of this kind takes anyhow.
        let line = "ulimit -v 2000000; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", line, env!("CARGO_BIN_EXE_lifeboat"), "backup", "src", list, "/dev/zero"]);
        command.env("LIFEBOAT_REPOSITORY", world.path("repo")).env("LIFEBOAT_PASSWORD", world::PASSPHRASE);
        let (_, said) = world.ends(command.current_dir(world.path("")), 2);
        let most = if list == "--exclude-file" { "256.00 KiB" } else { "4.00 MiB" };
        assert!(said.contains(&format!("/dev/zero is larger than {most}")), "{list}: {said}");
    }
    fs::write(world.path("patterns"), "a-pattern-of-twenty-\n".repeat(9_000)).unwrap();
    let two = ["backup", "src", "--exclude-file", "patterns", "--exclude-file", "patterns"];
    assert!(world.fails(&two, 2).contains("the patterns have more than 256.00 KiB together"));
    // More paths than a snapshot can name.
    let long = "d".repeat(100);
    let paths: String = (0..20_000).map(|number| format!("{long}/{number}\n")).collect();
    fs::write(world.path("list"), paths).unwrap();
    let said = world.fails(&["backup", "--files-from-verbatim", "list"], 2);
    assert!(said.contains("more than 2 MiB together") && said.contains("--exclude"), "{said}");
    assert_eq!(world.snapshots(), 0);
}

#[test]
fn a_wrong_pattern_is_told_with_its_line_before_anything_is_opened() {
    let world = World::new();
    fs::write(world.path("patterns"), "fine\n# comment\n[a\n").unwrap();
    // There is no repository: it would be 10.
    let said = world.fails(&["backup", "src", "--exclude-file", "patterns"], 2);
    assert!(said.contains("patterns:3") && said.contains("[a"), "{said}");
    assert!(world.fails(&["backup", "src", "--iexclude", "[a"], 2).contains("--iexclude"));
}

/// Which of `paths` git would ignore, each with one pattern alone; `None` where there is no git.
fn as_git_says(world: &World, pattern: &str, paths: &[&str]) -> Option<Vec<String>> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(world.path("git")).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        command.spawn().ok()
    };
    if !world.path("git/.git").exists() {
        assert!(git(&["init", "--quiet"])?.wait().unwrap().success());
    }
    fs::write(world.path("git/.git/info/exclude"), format!("{pattern}\n")).unwrap();
    let mut asked = git(&["check-ignore", "--no-index", "-z", "--stdin"])?;
    std::io::Write::write_all(&mut asked.stdin.take().unwrap(), paths.join("\0").as_bytes()).unwrap();
    let out = asked.wait_with_output().unwrap();
    assert!(matches!(out.status.code(), Some(0 | 1)), "{pattern}");
    Some(texts(&out).0.split_terminator('\0').map(str::to_owned).collect())
}

const PATTERNS: [&str; 63] = [
    "a{b,c}d",
    "{ab}",
    "\\{ab\\}",
    "*.{o,a}",
    "[[:alpha:]]x",
    "[[:digit:]]*",
    "[![:alnum:]]x",
    "[[:upper:]_]x",
    "[[:space:]]x",
    "[[:punct:]]x",
    "[[:xdigit:]][[:blank:]]x",
    "[[:lower:][:digit:]-]x",
    "[[:cntrl:]]x",
    "[[:graph:]]x",
    "[[:print:]]x",
    "[a-]x",
    "[]-]x",
    "[]]x",
    "[!]]x",
    "[^]a]x",
    "[\\]]x",
    "[a\\-c]x",
    "[+-1]x",
    "d[!a]x",
    "d[+-9]x",
    "d?x",
    "d*x",
    "d[^x]x",
    "[[]x",
    "[[:]x",
    "[!-]x",
    "[!^]x",
    "[\\^]x",
    "[\\!^]x",
    "[-!^]x",
    "**",
    "**/x",
    "d/**",
    "d/**/x",
    "d**x",
    "/x",
    "/d/x",
    "d/x",
    "x",
    "d/",
    "x/",
    "*",
    "/*",
    "d/*",
    "\\#x",
    "\\!x",
    "a\\ ",
    "a ",
    "[é]x",
    "[!é]x",
    "?x",
    "!x",
    "[[:alpha:]",
    "\\\\/",
    "\\\\x",
    "y\\\\/",
    "d\\/",
    "[^a]\\/",
];

const PATHS: [&str; 46] = [
    "abd",
    "acd",
    "a{b,c}d",
    "{ab}",
    "ab",
    "f.o",
    "f.a",
    "f.{o,a}",
    "ax",
    "Ax",
    "1x",
    "_x",
    " x",
    "\tx",
    "]x",
    "-x",
    "^x",
    "!x",
    "[x",
    "p/:x",
    "\\x",
    ".x",
    ",x",
    "+x",
    "a x",
    "bx",
    "x",
    "d/x",
    "d/e/x",
    "d/y",
    "d-x",
    "dax",
    "dx/y",
    "d.x",
    "deex",
    "#x",
    "a",
    "a ",
    "éx",
    "\u{7f}x",
    "{x",
    "[[:alpha:]",
    "e/d/x",
    "e/d/y",
    "\\/z",
    "y\\/z",
];

#[test]
fn patterns_mean_what_they_mean_to_git() {
    let world = World::new();
    for path in PATHS {
        let path = world.path("git").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let (mut seen, mut wrong) = (0, Vec::new());
    for pattern in PATTERNS {
        let Some(git) = as_git_says(&world, pattern, &PATHS) else {
            skip("patterns as git reads them: there is no git");
            return;
        };
        let selection = match Selection::new(&[], &[pattern.to_owned()]) {
            Ok(selection) => selection,
            // What to git is a pattern that never matches is told here.
            Err(_) if git.is_empty() => continue,
            Err(error) => panic!("{pattern}: {error}"),
        };
        let left_out = PATHS.iter().filter(|path| !selection.selects(path.as_bytes(), false));
        let ours: Vec<&str> = left_out.copied().collect();
        seen += git.len();
        if ours != git {
            wrong.push(format!("{pattern}: {ours:?} and not {git:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 200, "{seen}");
}

#[test]
fn a_source_that_is_suddenly_empty_ends_with_9_and_its_snapshot_is_kept() {
    let world = World::with_repository();
    fs::create_dir(world.path("other")).unwrap();
    fs::write(world.path("other/x"), "x").unwrap();
    world.does(&["backup", "src", "other"]);
    fs::remove_dir_all(world.path("src")).unwrap();
    fs::create_dir(world.path("src")).unwrap();
    let said = world.fails(&["backup", "src", "other", "--dry-run"], 9);
    assert!(said.contains("is empty now"), "{said}");
    let output = world.command(&["backup", "src", "other", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(9));
    let mut messages = objects(&texts(&output).0);
    messages.retain(|message| message["message_type"] != "status");
    let kinds: Vec<&str> = messages.iter().map(|message| message["message_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["warning", "summary", "exit_error"]);
    assert_eq!(messages[1]["empty_sources"], json!([world.text("src")]));
    assert!(messages[1]["snapshot"].is_string());
    assert_eq!(messages[2]["code"], 9);
    assert_eq!(world.snapshots(), 2);
    // The next backup has nothing to compare with but the empty one.
    world.does(&["backup", "src", "other"]);
    fs::remove_file(world.path("other/x")).unwrap();
    let said = world.fails(&["backup", "src", "other"], 9);
    assert!(said.contains(&world.text("other")), "{said}");
    // That was told.
    world.does(&["backup", "src"]);
    // Another list of sources, and a night in which it is not there, hide nothing.
    fs::write(world.path("src/one"), "again").unwrap();
    world.does(&["backup", "src", "other"]);
    fs::rename(world.path("src"), world.path("away")).unwrap();
    world.fails(&["backup", "src", "other"], 3);
    fs::create_dir(world.path("src")).unwrap();
    assert!(world.fails(&["backup", "src"], 9).contains(&world.text("src")));
    world.does(&["backup", "src"]);
}

#[test]
fn a_source_in_whose_place_is_a_link_or_a_pipe_is_empty_too() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    fs::rename(world.path("src"), world.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(world.path("elsewhere"), world.path("src")).unwrap();
    let said = world.fails(&["backup", "src"], 9);
    assert!(said.contains("is a link") && said.contains("is empty now"), "{said}");
    assert_eq!(world.snapshots(), 2);
    // That was told.
    world.does(&["backup", "src"]);
    fs::remove_file(world.path("src")).unwrap();
    fs::rename(world.path("elsewhere"), world.path("src")).unwrap();
    world.does(&["backup", "src"]);
    fs::rename(world.path("src"), world.path("elsewhere")).unwrap();
    assert!(Command::new("mkfifo").arg(world.path("src")).status().unwrap().success());
    world.fails(&["backup", "src"], 9);
}

#[test]
fn a_list_with_a_path_that_no_file_can_have_is_refused_before_anything_is_written() {
    let world = World::with_repository();
    let good = world.text("src/one");
    for (name, list) in [
        ("verbatim", format!("{good}\n{good}\0b\n")),
        ("raw-as-lines", format!("{good}\0{good}b\0")),
        ("wild", format!("{good}\n{good}\0*\n")),
    ] {
        fs::write(world.path(name), list).unwrap();
    }
    for arguments in [
        ["--files-from-verbatim", "verbatim"],
        ["--files-from-verbatim", "raw-as-lines"],
        ["--files-from", "verbatim"],
        ["--files-from", "wild"],
    ] {
        let said = world.fails(&[&["backup"], &arguments[..]].concat(), 2);
        assert!(said.contains("holds a NUL") && said.contains("--files-from-raw"), "{said}");
    }
    let profile = format!(
        "[profile.p]\nrepository = \"{}\"\nsources = [\"{good}\", \"{good}\\u0000b\"]\n",
        world.text("repo")
    );
    fs::write(world.path("config.toml"), profile).unwrap();
    let said = world.fails(&["--config", "config.toml", "--profile", "p", "backup"], 2);
    assert!(said.contains("NUL"), "{said}");
    assert_eq!(world.snapshots(), 0);
    // As a list of paths that end with a NUL it is one; a mark at the beginning of a text is no part of it.
    fs::write(world.path("raw"), format!("{good}\0")).unwrap();
    world.does(&["backup", "--files-from-raw", "raw"]);
    fs::write(world.path("marked"), format!("\u{feff}{good}\n")).unwrap();
    world.does(&["backup", "--files-from", "marked"]);
    let said = world.fails(&["backup", "--files-from", "-", "--files-from-verbatim", "-"], 2);
    assert!(said.contains("two lists"), "{said}");
}

#[test]
fn a_marker_that_no_folder_can_hold_is_refused_and_one_that_none_holds_is_told() {
    let world = World::with_repository();
    for marker in ["sub/f", "", ".", ".."] {
        let said = world.fails(&["backup", "src", "--exclude-if-present", marker], 2);
        assert!(said.contains("--exclude-if-present"), "{said}");
    }
    let said =
        world.does(&["backup", "src", "-n", "--exclude-if-present", ".none", "--exclude-larger-than", "1T"]);
    for line in [
        "left out nothing: what is in folders with .none (--exclude-if-present)\n",
        "left out nothing: files larger than 1.00 TiB (--exclude-larger-than)\n",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn what_is_missing_weighs_more_than_what_is_empty() {
    let world = World::with_repository();
    fs::create_dir(world.path("other")).unwrap();
    fs::write(world.path("other/x"), "x").unwrap();
    world.does(&["backup", "src", "other"]);
    fs::remove_dir_all(world.path("src")).unwrap();
    fs::remove_file(world.path("other/x")).unwrap();
    let said = world.fails(&["backup", "src", "other"], 3);
    assert!(said.contains("is empty now") && said.contains("1 entry could not be read"), "{said}");
}

#[test]
fn a_machine_remembers_that_a_source_was_empty() {
    let world = World::with_repository();
    world.does(&["key", "add", "--role", "backup", "--label", "web", "--access-key-out", "web.key"]);
    let with_key = |arguments: &[&str], code| {
        let arguments = [arguments, &["--access-key-file", "web.key"]].concat();
        world.ends(&mut world.command(&arguments), code)
    };
    with_key(&["backup", "src"], 0);
    fs::remove_dir_all(world.path("src/deep")).unwrap();
    fs::remove_file(world.path("src/one")).unwrap();
    // A key that reads nothing knows it from its cache.
    with_key(&["backup", "src"], 9);
    let (out, _) = with_key(&["status"], 13);
    assert!(out.contains("suspiciously empty"), "{out}");
}

#[test]
fn a_file_of_the_kernel_that_is_named_is_read_to_its_end() {
    let world = World::with_repository();
    // It says that it has no bytes.
    world.does(&["backup", "/proc/version", "src"]);
    world.does(&["restore", "latest:/proc", "--target", "back"]);
    assert_eq!(fs::read(world.path("back/version")).unwrap(), fs::read("/proc/version").unwrap());
    let entry = world.messages(&["ls", "latest:/proc/version"]).remove(0);
    assert_eq!(entry["size"], fs::read("/proc/version").unwrap().len());
}

#[test]
fn a_pipe_in_a_source_keeps_nobody_waiting() {
    let world = World::with_repository();
    let made = Command::new("mkfifo").arg(world.path("src/pipe")).status().unwrap();
    assert!(made.success());
    world.does(&["backup", "src"]);
    assert!(world.does(&["ls", "latest"]).contains(&world.text("src/pipe")));
}

#[test]
fn a_pattern_that_is_no_text_is_refused_and_how_to_write_it_is_said() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let world = World::with_repository();
    let odd = OsStr::from_bytes(b"o\xffd");
    fs::write(world.path("src").join(odd), "odd").unwrap();
    fs::write(world.path("list"), b"fine\no\xffd\n").unwrap();
    let (out, said) = world.ends(world.command(&["backup", "src", "--exclude"]).arg(odd), 2);
    assert!(out.is_empty() && said.starts_with("lifeboat: an argument is not UTF-8 text"), "{out}{said}");
    let (out, _) = world.ends(world.command(&["backup", "src", "--json", "--exclude"]).arg(odd), 2);
    let [message] = &objects(&out)[..] else { panic!("{out}") };
    for told in [said, message["remedy"].as_str().unwrap().to_owned()] {
        assert!(told.contains("`?`"), "{told}");
    }
    let said = world.fails(&["backup", "src", "--exclude-file", "list"], 2);
    assert!(said.contains("line 2 of the list list is not UTF-8 text") && said.contains("`?`"), "{said}");
    // What it says is so.
    world.does(&["backup", "src", "--exclude", "o?d"]);
    let entries = world.messages(&["ls", "latest"]);
    let names = |name: &str| {
        entries.iter().any(|entry| entry["path"].as_str().is_some_and(|path| path.ends_with(name)))
    };
    assert!(names("/one") && !entries.iter().any(|entry| entry["path_b64"].is_string()), "{entries:?}");
}
