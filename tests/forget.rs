//! `forget` as users run it: what stays, why, and what keeps a mistake from being one.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::fs;

use serde_json::Value;

#[path = "support/world.rs"]
mod world;
use world::{World, objects};

/// A repository with a snapshot at noon of each of these days of January 2026, each with a tag.
fn with_days(days: &[(u32, &str)]) -> World {
    let world = World::with_repository();
    for (day, tag) in days {
        fs::write(world.path("src/one"), format!("day {day}")).unwrap();
        backup(&world, *day, tag);
    }
    world
}

fn backup(world: &World, day: u32, tag: &str) {
    let time = format!("2026-01-{day:02} 12:00");
    world.does(&["backup", "--host", "web", "--time", &time, "--tag", tag, &world.text("src")]);
}

/// The days whose snapshots are there, oldest first.
fn days(world: &World) -> Vec<u32> {
    let messages = world.messages(&["snapshots"]);
    let of_snapshots = messages.iter().filter(|message| message["message_type"] == "snapshot");
    of_snapshots
        .map(|message| message["time"].as_str().unwrap().get(8..10).unwrap().parse().unwrap())
        .collect()
}

fn verdicts(messages: &[Value]) -> Vec<(u32, bool, String)> {
    let of_snapshots = messages.iter().filter(|message| message["message_type"] == "forget");
    of_snapshots
        .map(|message| {
            let why: Vec<&str> =
                message["reasons"].as_array().unwrap().iter().map(|why| why.as_str().unwrap()).collect();
            let day = message["time"].as_str().unwrap().get(8..10).unwrap().parse().unwrap();
            (day, message["kept"].as_bool().unwrap(), why.join(", "))
        })
        .collect()
}

#[test]
fn rules_decide_what_goes_and_say_why_the_rest_stays() {
    let world = with_days(&[(1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "a")]);
    let rules = ["forget", "--keep-last", "2", "--keep-tag", "b"];
    let before = world::tree(&world.path("repo"));
    let planned = world.messages(&[&rules[..], &["--dry-run"]].concat());
    assert_eq!(world::tree(&world.path("repo")), before, "a dry run writes nothing");
    let expected = [(5, true, "last"), (4, true, "last"), (3, false, ""), (2, true, "tag b"), (1, false, "")];
    assert_eq!(verdicts(&planned), expected.map(|(day, kept, why)| (day, kept, why.to_owned())));
    let done = world.messages(&rules);
    assert_eq!(verdicts(&done), verdicts(&planned));
    let summary = done.last().unwrap();
    assert_eq!((summary["kept"].as_u64(), summary["forgotten"].as_u64()), (Some(3), Some(2)));
    assert_eq!(days(&world), [2, 4, 5]);
    // The chain has no gap that nobody explains, what stayed comes back, and the next backup goes on.
    world.does(&["check", "--read-data"]);
    world.does(&["restore", "latest", "--target", &world.text("out"), "--verify"]);
    backup(&world, 6, "a");
    assert_eq!(days(&world), [2, 4, 5, 6]);
    let table = world.does(&["forget", "--keep-last", "4"]);
    assert!(table.contains("host web, paths /") && table.contains("last"), "{table}");
}

#[test]
fn what_is_mistyped_or_empty_forgets_nothing() {
    let world = with_days(&[(1, "a"), (2, "a"), (3, "a")]);
    let source = world.text("src");
    let wrong: [&[&str]; 21] = [
        &["--keep-last", "1", "--tag", "a,,"],
        &["--keep-last", "1", "--keep-tag", "a,,a"],
        &["--keep-last", "1", "--host", "web", "--host", "wbe"],
        &["--keep-last", "1", "--tag", "a", "--tag", "a,typo"],
        &[],
        &["--dry-run"],
        &["--keep-last", "0"],
        &["--keep-last", "-1"],
        &["--keep-daily", "many"],
        &["--keep-within", "3w"],
        &["--keep-last", "3", "--tag", "nigthly"],
        &["--keep-last", "3", "--host", ""],
        &["--keep-last", "3", "--tag", ""],
        &["--keep-last", "3", "--tag", "a", "--host", "wbe"],
        &["--keep-last", "3", "--path", "/no/such"],
        &["--keep-last", "3", "--keep-tag", "monthyl"],
        &["--keep-last", "3", "--keep-id", "0123456789abcdef"],
        &["--keep-last", "3", "--keep-id", ""],
        &["--keep-last", "3", "--keep-id", "latest"],
        &["--keep-last", "3", "--group-by", "hots"],
        &["0123456789abcdef"],
    ];
    for arguments in wrong {
        let said = world.fails(&[&["forget"], arguments].concat(), 2);
        assert!(!said.is_empty());
    }
    let said = world.fails(&["forget", "--keep-last", "1", "--tag", "nigthly"], 2);
    assert!(said.contains("nothing was done"), "{said}");
    assert_eq!(days(&world), [1, 2, 3]);
    world.does(&["forget", "--keep-last", "2", "--path", &format!("{source}/")]);
    assert_eq!(days(&world), [2, 3]);
}

#[test]
fn what_is_named_by_its_id_stays_whatever_the_other_rules_say() {
    let world = with_days(&[(1, "a"), (2, "a"), (3, "a")]);
    let messages = world.messages(&["snapshots"]);
    let first = messages[0]["id"].as_str().unwrap();
    let digits = first.get(..12).unwrap().to_uppercase();
    let done = world.messages(&["forget", "--keep-last", "1", "--keep-id", &digits]);
    let why = format!("id {}", digits.to_lowercase());
    assert_eq!(verdicts(&done).into_iter().find(|(day, ..)| *day == 1), Some((1, true, why)));
    assert_eq!(days(&world), [1, 3]);
    // It is a rule like the others: alone it keeps this one, and the newest stays in any case.
    let only = ["forget", "--keep-id", first, "--allow-mass-removal"];
    world.does(&only);
    assert_eq!(days(&world), [1, 3]);
}

#[test]
fn most_of_a_group_goes_only_if_that_is_meant_and_the_newest_never() {
    let world = with_days(&[(1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "a")]);
    let said = world.fails(&["forget", "--keep-last", "1"], 1);
    assert!(said.contains("4 of 5") && said.contains("--allow-mass-removal"), "{said}");
    assert_eq!(days(&world), [1, 2, 3, 4, 5]);
    let planned = world.does(&["forget", "--keep-last", "1", "--dry-run"]);
    assert!(planned.contains("would be refused without --allow-mass-removal: 4 of 5"), "{planned}");
    let planned = world.messages(&["forget", "--keep-last", "1", "--dry-run"]);
    assert!(planned.last().unwrap()["refused"].is_string());
    let planned = world.messages(&["forget", "--keep-last", "1", "--dry-run", "--allow-mass-removal"]);
    assert!(planned.last().unwrap()["refused"].is_null());
    world.does(&["forget", "--keep-last", "1", "--floor", "3", "--allow-mass-removal"]);
    assert_eq!(days(&world), [3, 4, 5]);
    // The newest stays even if no rule keeps it: the next backup follows it.
    backup(&world, 6, "b");
    let done = world.messages(&["forget", "--keep-tag", "a", "--group-by", "host"]);
    assert_eq!(verdicts(&done)[0], (6, true, "newest of its key".to_owned()));
    assert_eq!(days(&world), [3, 4, 5, 6]);
}

#[test]
fn a_backup_is_not_skipped_for_a_snapshot_that_was_forgotten() {
    let world = World::with_repository();
    fs::create_dir(world.path("other")).unwrap();
    for source in ["src", "other", "src", "other"] {
        world.does(&["backup", source, "--skip-if-unchanged"]);
    }
    let messages = world.messages(&["snapshots"]);
    let ids: Vec<&str> = messages.iter().filter_map(|message| message["id"].as_str()).collect();
    assert_eq!(ids.len(), 2, "what did not change was skipped: {messages:?}");
    // Its sources are in none then, though nothing has changed.
    world.does(&["forget", ids[0], "--allow-mass-removal"]);
    world.does(&["backup", "src", "--skip-if-unchanged"]);
    assert_eq!(world.snapshots(), 2);
    world.does(&["restore", "latest", "--target", "out", "--verify"]);
    assert!(world::tree(&world.path("out")).iter().any(|(path, _)| path.ends_with("one")));
}

#[test]
fn a_snapshot_goes_by_its_id() {
    let world = with_days(&[(1, "a"), (2, "a"), (3, "a")]);
    let messages = world.messages(&["snapshots"]);
    let ids: Vec<&str> = messages.iter().filter_map(|message| message["id"].as_str()).collect();
    world.fails(&["forget", ids[1], "--keep-last", "1"], 2);
    let said = world.does(&["forget", ids[1].get(..12).unwrap()]);
    assert!(said.contains("1 snapshot is forgotten") && !said.contains("snapshots stay"), "{said}");
    assert_eq!(days(&world), [1, 3]);
    let said = world.fails(&["forget", ids[1]], 2);
    assert!(said.contains("there is no snapshot"), "{said}");
    let said = world.fails(&["forget", "latest~99"], 2);
    assert!(said.contains("there is no snapshot"), "{said}");
    // Whoever names one and finds that the command has ended well takes it for gone.
    let said = world.fails(&["forget", ids[2]], 1);
    assert!(
        said.contains("was named and stays: newest of its key") && said.contains("--last-good"),
        "{said}"
    );
    let planned = world.messages(&["forget", "latest", "--dry-run"]);
    assert_eq!(verdicts(&planned), [(3, true, "newest of its key".to_owned())]);
    assert_eq!(days(&world), [1, 3]);
    let table = world.does(&["forget", "latest~1", "--allow-mass-removal"]);
    assert!(table.contains("named") && !table.contains("no rule"), "{table}");
    assert_eq!(days(&world), [3]);
}

#[test]
fn a_prune_tells_what_waits_for_its_age_and_from_when_it_can_be_marked() {
    let world = World::with_repository();
    // A file that stays would keep the pack that the first day's file is in.
    fs::remove_dir_all(world.path("src/deep")).unwrap();
    for (day, text) in [(1, "first day"), (2, "second day")] {
        fs::write(world.path("src/one"), text).unwrap();
        backup(&world, day, "a");
    }
    world.does(&["forget", "--keep-last", "1", "--allow-mass-removal"]);
    let packs: Vec<_> = world::tree(&world.path("repo"))
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.to_str().unwrap().contains("/packs/"))
        .collect();
    // All but one have come an hour ago, by the clock of the storage.
    let hour = std::time::SystemTime::now() - std::time::Duration::from_hours(1);
    let stored = |path: &std::path::PathBuf| fs::File::options().write(true).open(path).unwrap();
    packs.iter().for_each(|path| stored(path).set_modified(hour).unwrap());
    let summary = |arguments: &[&str]| world.messages(arguments).pop().unwrap();
    let pruned = summary(&["prune", "--dry-run"]);
    let young = &pruned["young"];
    assert!(young["packs"].as_u64() > Some(0) && young["bytes"].as_u64() > Some(0), "{pruned}");
    assert_eq!((&pruned["marked"]["packs"], &pruned["next_deletion"]), (&0.into(), &Value::Null), "{pruned}");
    let from: jiff::Timestamp = pruned["next_marking"].as_str().unwrap().parse().unwrap();
    let expected = hour.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 24 * 3600 + 1;
    assert_eq!(from.as_second().cast_unsigned(), expected);
    let text = world.does(&["prune"]);
    assert!(text.contains("that nothing needs wait for their age: they can be marked from"), "{text}");
    // Then they are.
    let then = hour - std::time::Duration::from_hours(24);
    packs.iter().for_each(|path| stored(path).set_modified(then).unwrap());
    let marked = summary(&["prune"]);
    assert_eq!((&marked["young"]["packs"], &marked["next_marking"]), (&0.into(), &Value::Null));
    // A pack of nodes of which some are still needed is replaced, and marked too.
    for what in ["packs", "bytes"] {
        let of = |packs: &Value| packs[what].as_u64().unwrap();
        assert_eq!(of(&marked["marked"]), of(young) + of(&marked["repacked"]), "{marked}");
    }
}

#[test]
fn a_run_that_was_killed_before_it_deleted_is_finished_by_the_next_one() {
    let world = with_days(&[(1, "a"), (2, "a"), (3, "a")]);
    let snapshots = || {
        world::tree(&world.path("repo"))
            .into_iter()
            .filter(|(path, _)| path.to_str().unwrap().contains("/snapshots/"))
    };
    let all: Vec<_> = snapshots().collect();
    world.does(&["forget", "--keep-last", "2"]);
    // As if the deletion had not come to pass.
    for (path, bytes) in &all {
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(days(&world), [2, 3], "what ended is not shown again");
    let done = world.messages(&["forget", "--keep-last", "2"]);
    assert_eq!(done.last().unwrap()["finished"], 1);
    assert_eq!(snapshots().count(), 2);
}

#[test]
fn a_flood_of_snapshots_from_the_future_pushes_nobody_else_out() {
    let world = with_days(&[(1, "a"), (2, "a"), (3, "a")]);
    // Whoever has the key of the client can add to its chain, and lie about the time.
    for year in ["2090", "2091", "2092", "2093"] {
        let time = format!("{year}-01-01 12:00");
        world.does(&["backup", "--host", "web", "--time", &time, &world.text("src")]);
    }
    // They count as made when the storage got them: on one day, or on two if that is midnight.
    world.does(&["forget", "--keep-daily", "5", "--keep-hourly", "5", "--allow-mass-removal"]);
    let left = days(&world);
    assert!(left.starts_with(&[1, 2, 3]), "{left:?}");
    // A rule of the last few alone would let them push the others out, and does not without a word.
    for year in ["2094", "2095", "2096", "2097", "2098"] {
        let time = format!("{year}-01-01 12:00");
        world.does(&["backup", "--host", "web", "--time", &time, &world.text("src")]);
    }
    world.fails(&["forget", "--keep-last", "3"], 1);
    assert!(days(&world).starts_with(&[1, 2, 3]));
}

#[test]
fn nothing_goes_for_a_snapshot_that_is_damaged_in_the_storage_whatever_the_cache_has() {
    let world = with_days(&[(1, "a"), (2, "a"), (3, "a"), (4, "a")]);
    // This machine has read all of them.
    assert_eq!(days(&world), [1, 2, 3, 4]);
    let newest = object_of(&world, 4);
    let good = fs::read(&newest).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    for bytes in [bad, Vec::new()] {
        fs::write(&newest, bytes).unwrap();
        let said = world.fails(&["forget", "--keep-last", "2"], 5);
        assert!(said.contains("nothing was forgotten") && said.contains("/snapshots/"), "{said}");
        world.fails(&["forget", "--keep-last", "2", "--dry-run"], 5);
        let first =
            objects(&world.does(&["snapshots", "--json"])).remove(0)["id"].as_str().unwrap().to_owned();
        world.fails(&["forget", &first], 5);
        assert_eq!(days(&world), [1, 2, 3, 4]);
    }
    fs::write(&newest, good).unwrap();
    world.does(&["forget", "--keep-last", "2"]);
    assert_eq!(days(&world), [3, 4]);
}

#[test]
fn a_tag_of_a_client_gives_up_nothing_that_the_floor_keeps() {
    let world = World::with_repository();
    let (out, source) = (world.text("web"), world.text("src"));
    world.does(&["key", "add", "--role", "backup", "--label", "web", "--access-key-out", &out]);
    for backup in [["--host", "old", "--tag", "recovered"], ["--host", "new", "--tag", "x"]] {
        let mut command =
            world.bare(&[&["backup", "--access-key-file", &out, &source], &backup[..]].concat());
        world.ends(command.env("LIFEBOAT_REPOSITORY", world.path("repo")), 0);
    }
    let messages = world.messages(&["snapshots", "--host", "old"]);
    let id = messages.iter().find_map(|message| message["id"].as_str()).unwrap();
    assert!(world.fails(&["forget", id, "--allow-mass-removal"], 1).contains("floor"));
    assert_eq!(world.snapshots(), 2);
}

/// A backup of `src` as of a time in January 2026 with a key of its own, in a domain of several machines.
fn backup_by(world: &World, key: &str, time: &str) {
    let domain = ["--domain", "shop"];
    let out = world.text(key);
    if !world.path(key).exists() {
        let add = ["key", "add", "--role", "backup", "--label", key, "--access-key-out", &out];
        world.does(&[&add[..], &domain].concat());
    }
    let time = format!("2026-01-{time}");
    let source = world.text("src");
    let mut command =
        world.bare(&["backup", "--host", "web", "--time", &time, "--access-key-file", &out, &source]);
    command.env("LIFEBOAT_REPOSITORY", world.path("repo"));
    world.ends(&mut command, 0);
}

/// The keys and days of what a `forget` judged, and whether it stays.
fn kept_of(messages: &[Value], key: &str) -> Vec<(u32, bool)> {
    let of_key: Vec<Value> = messages.iter().filter(|message| message["key"] == key).cloned().collect();
    verdicts(&of_key).into_iter().map(|(day, stays, _)| (day, stays)).collect()
}

#[test]
fn another_key_that_gives_its_snapshots_out_for_those_of_a_machine_pushes_none_of_them_out() {
    let world = World::with_repository();
    fs::write(world.path("src/one"), "genuine").unwrap();
    for day in ["01", "02", "03"] {
        backup_by(&world, "web", &format!("{day} 12:00"));
    }
    // The same host and sources, later on each of these days, and many after them.
    for time in ["01 23:59", "02 23:59", "03 23:59", "04 23:59", "05 23:59", "06 23:59"] {
        backup_by(&world, "thief", time);
    }
    for by in ["host,paths", ""] {
        let rules = ["forget", "--keep-daily", "3", "--keep-last", "1", "--group-by", by];
        let judged = world.messages(&[&rules[..], &["--dry-run"]].concat());
        assert_eq!(kept_of(&judged, "web"), [(3, true), (2, true), (1, true)]);
        assert!(kept_of(&judged, "thief").contains(&(1, false)), "the rule ends something");
    }
    let table = world.does(&["forget", "--keep-daily", "3"]);
    assert!(table.contains("key web, host web") && table.contains("key thief, host web"), "{table}");
    assert_eq!(days(&world), [1, 2, 3, 4, 5, 6]);
    // More than half of those of one key, though by far not of all; which of the two is told first nobody says.
    let said = world.fails(&["forget", "--keep-last", "1", "--host", "web"], 1);
    assert!(said.contains("2 of 3 snapshots of web by the key `"), "{said}");
}

#[test]
fn a_copy_is_judged_with_the_snapshots_of_the_key_of_its_original() {
    let world = World::with_repository();
    fs::write(world.path("src/one"), "kept").unwrap();
    fs::write(world.path("src/two"), "left out").unwrap();
    for day in ["01", "02", "03"] {
        backup_by(&world, "web", &format!("{day} 12:00"));
    }
    let owner = world.text("owner");
    let role = ["--role", "owner", "--label", "owner of the shop", "--domain", "shop"];
    world.does(&[&["key", "add"], &role[..], &["--access-key-out", &owner]].concat());
    let rewrite = ["rewrite", "--host", "web", "--exclude", "two", "--forget", "--access-key-file", &owner];
    let mut rewrite = world.bare(&rewrite);
    // The newest of the other key stays, and whoever wanted a secret gone must learn that.
    let before = world.messages(&["snapshots", "--latest", "1"]);
    let newest = before[0]["id"].as_str().unwrap();
    let (_, said) = world.ends(rewrite.env("LIFEBOAT_REPOSITORY", world.path("repo")), 1);
    assert!(said.contains(&format!("{newest:.8} has its copy and stays")), "{said}");
    backup_by(&world, "web", "03 13:00");
    let again = ["rewrite", newest, "--exclude", "two", "--forget", "--access-key-file", &owner];
    let mut again = world.bare(&again);
    world.ends(again.env("LIFEBOAT_REPOSITORY", world.path("repo")), 0);
    assert!(!world.does(&["snapshots", "--json"]).contains(newest), "it has ended");
    for day in ["04", "05", "06"] {
        backup_by(&world, "web", &format!("{day} 12:00"));
    }
    let done = world.messages(&["forget", "--keep-daily", "4", "--allow-mass-removal"]);
    let summary = done.last().unwrap();
    assert!(summary["forgotten"].as_u64() > Some(0), "copies grow old as their originals do: {done:?}");
    let left: Vec<u32> = days(&world).into_iter().filter(|day| *day < 3).collect();
    assert_eq!(left, [0; 0], "{done:?}");
}

#[test]
fn a_key_that_may_not_forget_is_refused() {
    let world = with_days(&[(1, "a"), (2, "a"), (3, "a")]);
    world.adds_client("client", None, &world.text("client"));
    world.does(&[
        "key",
        "add",
        "--role",
        "restore",
        "--label",
        "helper",
        "--access-key-out",
        &world.text("helper"),
    ]);
    world.does(&[
        "key",
        "add",
        "--role",
        "maintain",
        "--label",
        "carer",
        "--access-key-out",
        &world.text("carer"),
    ]);
    let by = |key: &str, code| {
        let mut command =
            world.bare(&["forget", "--keep-last", "2", "--json", "--access-key-file", &world.text(key)]);
        command.env("LIFEBOAT_REPOSITORY", world.path("repo"));
        objects(&world.ends(&mut command, code).0)
    };
    for key in ["client", "helper"] {
        let said = by(key, 13).pop().unwrap();
        assert!(said["message"].as_str().unwrap().contains("cannot forget snapshots"), "{said}");
        assert!(said["remedy"].as_str().unwrap().contains("role maintain"), "{said}");
    }
    assert_eq!(days(&world), [1, 2, 3]);
    // What a key may be asked for says the same, whatever it lacks first.
    for (key, arguments, words) in [
        ("client", &["restore", "latest", "--target", "out"][..], ["cannot restore files", "role restore"]),
        ("carer", &["restore", "latest", "--target", "out"], ["cannot restore files", "role restore"]),
        ("client", &["check", "--read-data"], ["cannot check the content of packs", "role restore"]),
        ("client", &["rewrite", "latest", "--exclude", "x"], ["cannot rewrite snapshots", "role owner"]),
    ] {
        let mut command = world.bare(arguments);
        command.env("LIFEBOAT_REPOSITORY", world.path("repo")).arg("--access-key-file").arg(world.path(key));
        let said = world.ends(&mut command, 13).1;
        assert!(words.iter().all(|word| said.contains(word)), "{key} {arguments:?}: {said}");
    }
    let told = by("carer", 0);
    let first = told.iter().find(|message| message["message_type"] == "forget").unwrap();
    assert!(first["sources"][0]["path"].as_str().unwrap().ends_with("/src"), "{first}");
    assert!(first["key"].is_string() && first["domain"].is_string(), "{first}");
    assert_eq!(days(&world), [2, 3]);
}

fn object_of(world: &World, day: u32) -> std::path::PathBuf {
    let messages = world.messages(&["snapshots"]);
    let is_of_day = |message: &&Value| {
        message["time"].as_str().is_some_and(|time| time.get(8..10) == Some(&format!("{day:02}")))
    };
    let id = messages.iter().find(is_of_day).unwrap()["id"].as_str().unwrap();
    let files = world::tree(&world.path("repo"));
    let found = files.iter().find(|(path, _)| path.to_str().unwrap().contains(id)).unwrap();
    world.path("repo").join(&found.0)
}

/// All that a command says that finds damage.
fn said_by(world: &World, command: &[&str]) -> String {
    let (out, err) = world.ends(&mut world.command(command), 5);
    out + &err
}

/// Nothing names it: the one after it was forgotten.
#[test]
fn a_snapshot_that_vanished_between_those_that_were_kept_is_missed() {
    let world = with_days(&[(1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "a")]);
    let messages = world.messages(&["snapshots"]);
    let ids: Vec<&str> = messages.iter().filter_map(|message| message["id"].as_str()).collect();
    world.does(&["forget", ids[0]]);
    world.does(&["forget", ids[2]]);
    world.does(&["check"]);
    fs::remove_file(object_of(&world, 2)).unwrap();
    for command in [&["check"][..], &["prune"], &["forget", "--keep-last", "2"], &["snapshots"]] {
        let said = said_by(&world, command);
        assert!(said.contains("its chains lack 1 more than were forgotten"), "{said}");
    }
    // If it is lost for good, what is said is what helps.
    let said = said_by(&world, &["prune"]);
    let name = said.split_whitespace().find(|word| word.starts_with("d/")).unwrap();
    world.does(&["repair", "quarantine", name, "--force", "--apply"]);
    for command in [&["check"][..], &["prune"]] {
        world.does(command);
    }
}

#[test]
fn a_snapshot_under_a_legal_hold_that_vanished_is_missed() {
    let world = with_days(&[(1, "a"), (2, "a"), (3, "a")]);
    let messages = world.messages(&["snapshots"]);
    let ids: Vec<&str> = messages.iter().filter_map(|message| message["id"].as_str()).collect();
    world.does(&["hold", "place", ids[0], "--reason", "case 17"]);
    world.does(&["forget", ids[1]]);
    fs::remove_file(object_of(&world, 1)).unwrap();
    for command in [&["check"][..], &["prune"]] {
        let said = said_by(&world, command);
        assert!(said.contains("its chains lack 1 more than were forgotten"), "{said}");
    }
}

/// The last one by the clock of a machine is not the last one.
#[test]
fn a_clock_that_was_ahead_once_does_not_choose_the_latest_for_years() {
    let world = World::with_repository();
    for (content, time) in [("first", "2030-01-01 12:00"), ("second", "2001-01-01 12:00")] {
        fs::write(world.path("src/one"), content).unwrap();
        world.does(&["backup", "--time", time, &world.text("src")]);
    }
    let source = world.text("src");
    let target = world.text("target");
    world.does(&["restore", &format!("latest:{source}"), "--target", &target]);
    assert_eq!(fs::read_to_string(world.path("target/one")).unwrap(), "second");
}

#[test]
fn what_only_a_newer_key_opens_is_no_damage_and_no_older_snapshot_is_taken_for_the_newest() {
    let world = World::with_repository();
    for role in ["audit", "restore", "maintain"] {
        let key = world.text(role);
        world.does(&["key", "add", "--role", role, "--label", role, "--access-key-out", &key]);
    }
    let by = |role: &str, arguments: &[&str]| {
        let mut command = world.bare(arguments);
        command.env("LIFEBOAT_REPOSITORY", world.path("repo")).arg("--access-key-file").arg(world.path(role));
        let (out, err) = world.ends(&mut command, 13);
        let said = format!("{out}{err}");
        assert!(said.contains("key epoch 2"), "{role} {arguments:?}: {said}");
        assert!(said.contains(&format!("lifeboat key rotate {role}")), "{role} {arguments:?}: {said}");
        said
    };
    backup(&world, 1, "a");
    world.does(&["key", "rotate"]);
    backup(&world, 2, "a");
    for arguments in [&["usage"][..], &["usage", "--reconcile"]] {
        by("audit", arguments);
    }
    let older = world.messages(&["snapshots"])[0]["short_id"].as_str().unwrap().to_owned();
    by("restore", &["snapshots"]);
    by("audit", &["check"]);
    by("restore", &["check", "--read-data"]);
    let said = by("maintain", &["forget", "--keep-last", "1"]);
    assert!(
        said.contains("this key cannot read all snapshots") && !said.contains("damaged or gone"),
        "{said}"
    );
    let said = by("restore", &["restore", "latest", "--target", "out"]);
    assert!(said.contains(&older) && !world.path("out").exists(), "{said}");
    // A key that can read nothing is not told that there is nothing.
    world.does(&["forget", "latest~1", "--allow-mass-removal"]);
    by("maintain", &["forget", "--keep-last", "1"]);
    by("maintain", &["forget", "latest"]);
    by("restore", &["ls", "latest"]);
}

#[test]
fn of_an_original_and_a_copy_that_has_lost_something_the_original_stays() {
    let world = World::with_repository();
    let packs = || {
        let all = world::tree(&world.path("repo")).into_iter().map(|(path, _)| path);
        all.filter(|path| path.to_str().unwrap().contains("/packs/d/")).collect::<Vec<_>>()
    };
    backup(&world, 1, "a");
    let before = packs();
    fs::write(world.path("src/more"), "more").unwrap();
    backup(&world, 2, "a");
    let pack = packs().into_iter().find(|pack| !before.contains(pack)).unwrap();
    let bytes = fs::read(&pack).unwrap();
    fs::remove_file(&pack).unwrap();
    let (out, _) = world.ends(&mut world.command(&["repair", "snapshots", "--apply", "--json"]), 3);
    let repaired = objects(&out).into_iter().find(|message| message["message_type"] == "repair").unwrap();
    let (old, copy) = (repaired["snapshot"].as_str().unwrap(), repaired["copy"].as_str().unwrap());
    fs::write(&pack, bytes).unwrap();
    // The newest of its key would stay in any case.
    fs::write(world.path("src/more"), "and more").unwrap();
    backup(&world, 3, "a");
    for rule in [&["--keep-last", "2"][..], &["--keep-daily", "2"]] {
        let planned = world.messages(&[&["forget", "--dry-run"], rule].concat());
        let kept = |id: &str| planned.iter().find(|message| message["id"] == id).unwrap()["kept"].as_bool();
        assert_eq!((kept(old), kept(copy)), (Some(true), Some(false)), "{planned:?}");
    }
    world.does(&["restore", old, "--target", &world.text("out"), "--verify"]);
}
