//! `rewrite` as users run it: snapshots again, without what was backed up by mistake.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::fs;

use serde_json::Value;

#[path = "support/world.rs"]
mod world;
use world::World;

/// Three snapshots; a secret is in the first two.
fn with_a_secret() -> World {
    let world = World::with_repository();
    fs::create_dir_all(world.path("src/deep/private")).unwrap();
    fs::write(world.path("src/deep/private/secret"), "a secret").unwrap();
    fs::write(world.path("src/deep/private/keep"), "kept nowhere").unwrap();
    fs::set_permissions(world.path("src/one"), std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
    fs::hard_link(world.path("src/one"), world.path("src/another")).unwrap();
    for (day, tag) in [("01", "a"), ("02", "b")] {
        fs::write(world.path("src/changes"), tag).unwrap();
        let time = format!("2026-01-{day} 12:00");
        world.does(&["backup", "--host", "web", "--time", &time, "--tag", tag, &world.text("src")]);
    }
    fs::remove_dir_all(world.path("src/deep/private")).unwrap();
    world.does(&["backup", "--host", "web", "--tag", "c", &world.text("src")]);
    world
}

fn listed(world: &World) -> Vec<Value> {
    let mut messages = world.messages(&["snapshots"]);
    messages.retain(|message| message["message_type"] == "snapshot");
    messages
}

fn id(snapshot: &Value) -> &str {
    snapshot["id"].as_str().unwrap()
}

fn paths(world: &World, snapshot: &str) -> Vec<String> {
    world.does(&["ls", snapshot]).lines().map(str::to_owned).collect()
}

const PATTERN: &str = "private";

#[test]
fn a_copy_lacks_what_is_left_out_and_nothing_else() {
    let world = with_a_secret();
    let before = listed(&world);
    let repository = world::tree(&world.path("repo"));
    let planned = world.messages(&["rewrite", id(&before[0]), "--exclude", PATTERN, "--dry-run"]);
    assert_eq!(
        (&planned[0]["entries"], &planned[0]["bytes"], &planned[0]["copy"]),
        (&3.into(), &20.into(), &Value::Null)
    );
    assert_eq!(world::tree(&world.path("repo")), repository, "a dry run writes nothing");
    let done = world.messages(&["rewrite", id(&before[0]), "--exclude", PATTERN]);
    assert_eq!(done[0]["paths"], planned[0]["paths"]);
    let after = listed(&world);
    assert_eq!(after.len(), 4, "the old one is there");
    let copy = after.iter().find(|snapshot| snapshot["id"] == done[0]["copy"]).unwrap();
    for same in ["time", "host", "user", "sources"] {
        assert_eq!(copy[same], before[0][same], "{same}");
    }
    let origin = format!("rewritten-{:.16}", id(&before[0]));
    assert_eq!(copy["tags"], serde_json::json!(["a", origin]));
    let (old, new) = (paths(&world, id(&before[0])), paths(&world, id(copy)));
    let without: Vec<_> = old.iter().filter(|path| !path.contains(PATTERN)).cloned().collect();
    assert_eq!((new, old.len()), (without, usize::try_from(copy["entries"].as_u64().unwrap()).unwrap() + 3));
    // What differs is what was left out; contents, modes and links are as they were.
    let changes = world.messages(&["diff", id(&before[0]), id(copy)]);
    let changes: Vec<&Value> = changes.iter().filter(|message| message["message_type"] == "change").collect();
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert!(changes.iter().all(|change| change["path"].as_str().unwrap().contains(PATTERN)), "{changes:?}");
    world.does(&["restore", id(copy), "--target", &world.text("out"), "--verify"]);
    world.does(&["check", "--read-data"]);
}

#[test]
fn the_old_ones_end_only_if_that_is_said_and_then_the_secret_goes() {
    let world = with_a_secret();
    let before = listed(&world);
    let olds = [id(&before[0]), id(&before[1])];
    world.does(&["hold", "place", olds[1], "--reason", "case 17"]);
    let said = world.fails(&["rewrite", olds[0], olds[1], "--exclude", PATTERN, "--forget"], 1);
    assert!(said.contains("case 17"), "{said}");
    assert_eq!(listed(&world), {
        let mut held = before.clone();
        held[1] = listed(&world)[1].clone();
        held
    });
    world.does(&["hold", "lift", olds[1], "--reason", "over"]);
    let done = world.messages(&["rewrite", olds[0], olds[1], "--exclude", PATTERN, "--forget"]);
    assert_eq!(done.last().unwrap()["forgotten"], 2);
    let after = listed(&world);
    assert_eq!(after.len(), 3);
    for snapshot in &after {
        assert!(!paths(&world, id(snapshot)).iter().any(|path| path.contains(PATTERN)));
    }
    world.does(&["check", "--read-data"]);
    // The next backup follows.
    world.does(&["backup", "--host", "web", &world.text("src")]);
}

#[test]
fn a_pattern_that_matches_nothing_or_everything_and_a_key_that_may_not_are_refused() {
    let world = with_a_secret();
    let before = listed(&world);
    for (arguments, code) in [
        (&["rewrite", "latest", "--exclude", PATTERN][..], 2),
        (&["rewrite", "latest"], 2),
        (&["rewrite", "--exclude", PATTERN], 2),
        (&["rewrite", "latest", "--exclude", "*"], 2),
        // Folders above the source are nothing that stays.
        (&["rewrite", "latest", "--exclude", "src"], 2),
        (&["rewrite", "latest", "--exclude", "a["], 2),
    ] {
        world.fails(arguments, code);
    }
    let key = world.text("key");
    world.does(&["key", "add", "--role", "restore", "--label", "helper", "--access-key-out", &key]);
    let mut command =
        world.bare(&["rewrite", id(&before[0]), "--exclude", PATTERN, "--access-key-file", &key]);
    command.env("LIFEBOAT_REPOSITORY", world.path("repo"));
    world.ends(&mut command, 13);
    assert_eq!(listed(&world), before);
    // What a pattern takes back from a folder that goes does not stay without its folder.
    let arguments = ["rewrite", id(&before[0]), "--exclude", PATTERN, "--exclude", "!keep"];
    let done = world.messages(&arguments);
    assert_eq!(done[0]["entries"], 3);
    world.does(&["restore", done[0]["copy"].as_str().unwrap(), "--target", &world.text("out"), "--verify"]);
}

#[test]
fn a_copy_is_as_old_as_what_it_is_a_copy_of_and_is_made_once() {
    let world = World::with_repository();
    for month in ["01", "02", "03", "04"] {
        fs::write(world.path("src/secret"), month).unwrap();
        fs::write(world.path("src/more"), month).unwrap();
        world.does(&[
            "backup",
            "--host",
            "web",
            "--time",
            &format!("2026-{month}-01 12:00"),
            &world.text("src"),
        ]);
    }
    let old = listed(&world)[1].clone();
    let rewrite = ["rewrite", id(&old), "--exclude", "secret"];
    let copies: Vec<Value> = (0..2).map(|_| world.messages(&rewrite)[0]["copy"].clone()).collect();
    assert_eq!(copies[0], copies[1], "what an interrupted run has made is made once");
    // Another copy lacks more.
    let more = world.messages(&["rewrite", id(&old), "--exclude", "secret", "--exclude", "more"]);
    assert_ne!(more[0]["copy"], copies[0]);
    assert_eq!(listed(&world).len(), 6);
    world.does(&["forget", id(&old)]);
    // The newest of its key stays, and that is said; the other copy of the month can go.
    world.fails(&["forget", more[0]["copy"].as_str().unwrap()], 1);
    world.does(&["forget", copies[0].as_str().unwrap()]);
    let done = world.messages(&["forget", "--keep-monthly", "12", "--dry-run"]);
    let goes = done.iter().filter(|message| message["message_type"] == "forget" && message["kept"] == false);
    assert_eq!(goes.count(), 0, "{done:?}");
    let order: Vec<Value> = listed(&world).iter().map(|snapshot| snapshot["time"].clone()).collect();
    assert!(order.is_sorted_by_key(|time| time.as_str().map(str::to_owned)), "{order:?}");
}

/// Two backups of the same host; the second has two files more, in a pack of their own, which comes with it.
fn with_a_pack_to_lose() -> (World, Value, std::path::PathBuf) {
    let world = World::with_repository();
    world.does(&["backup", "--host", "web", &world.text("src")]);
    let before = data_packs(&world);
    fs::write(world.path("src/more"), noise()).unwrap();
    fs::write(world.path("src/secret"), "secret").unwrap();
    world.does(&["backup", "--host", "web", &world.text("src")]);
    let pack = data_packs(&world).into_iter().find(|pack| !before.contains(pack)).unwrap();
    let last = listed(&world).remove(1);
    (world, last, pack)
}

fn noise() -> Vec<u8> {
    let mut bytes = vec![0; 100_000];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn data_packs(world: &World) -> Vec<std::path::PathBuf> {
    packs(world, "/packs/d/")
}

fn packs(world: &World, kind: &str) -> Vec<std::path::PathBuf> {
    let all = world::tree(&world.path("repo")).into_iter().map(|(path, _)| path);
    all.filter(|path| path.to_str().unwrap().contains(kind)).collect()
}

fn flip(path: &std::path::Path) {
    let middle = fs::metadata(path).unwrap().len() / 2;
    flip_at(path, middle.try_into().unwrap());
}

fn flip_at(path: &std::path::Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_should_stay_and_is_lost_is_named_and_no_old_one_ends() {
    for is_gone in [true, false] {
        let (world, last, pack) = with_a_pack_to_lose();
        if is_gone {
            fs::remove_file(&pack).unwrap();
        } else {
            flip(&pack);
        }
        let rewrite = |more: &[&str], code| {
            let arguments = [&["rewrite", id(&last), "--exclude", "secret"], more].concat();
            let (out, err) = world.ends(&mut world.command(&arguments), code);
            format!("{out}{err}")
        };
        // What is damaged and there is met only when all of it is read.
        if is_gone {
            let repository = world::tree(&world.path("repo"));
            let said = rewrite(&["--dry-run"], 5);
            assert!(said.contains("src/more: no pack that is there holds its chunk"), "{said}");
            assert_eq!(world::tree(&world.path("repo")), repository, "a dry run writes nothing");
        }
        for more in [&["--forget"][..], &[]] {
            let said = rewrite(more, 5);
            assert!(said.contains("1 loss") && said.contains("src/more: "), "{said}");
            assert!(said.contains("1 file of 1 snapshot cannot be read"), "{said}");
            assert_eq!(said.contains("no old snapshot was forgotten"), !more.is_empty(), "{said}");
            assert!(!said.contains("src/secret"), "what is left out cannot be missed: {said}");
            assert!(listed(&world).iter().any(|known| id(known) == id(&last)), "{said}");
        }
        let (said, _) =
            world.ends(&mut world.command(&["rewrite", id(&last), "--exclude", "secret", "--json"]), 5);
        let messages = world::objects(&said);
        let of = |kind: &str| messages.iter().find(|message| message["message_type"] == kind).unwrap();
        assert!(of("lost")["path"].as_str().unwrap().ends_with("/src/more"), "{said}");
        assert_eq!((&of("rewritten")["lost"], &of("summary")["lost"]), (&1.into(), &1.into()));
        assert_eq!(of("exit_error")["code"], 5);

        // The next backup heals it, and then the copy is whole.
        world.ends(&mut world.command(&["check", "--read-data"]), 5);
        world.does(&["backup", "--host", "web", &world.text("src")]);
        let bad: Vec<String> = listed(&world).iter().map(|known| id(known).to_owned()).collect();
        let done = world.messages(&["rewrite", id(&last), "--exclude", "secret", "--forget"]);
        let copy = done[0]["copy"].as_str().unwrap();
        assert!(!bad.iter().any(|known| known == copy), "a copy that lacks something is not taken for it");
        assert_eq!((&done[0]["lost"], &done[0]["forgotten"]), (&0.into(), &true.into()));
        let target = world.text("out");
        world.does(&["restore", copy, "--target", &target, "--verify"]);
        let back = world.path("out").join(world.text("src").trim_start_matches('/'));
        assert_eq!(fs::read(back.join("more")).unwrap(), noise());
        assert!(!back.join("secret").exists());
    }
}

#[test]
fn a_rewrite_of_the_latest_that_was_killed_before_its_forget_is_repeated_as_it_was() {
    let world = World::with_repository();
    fs::write(world.path("src/secret"), "secret").unwrap();
    world.does(&["backup", "--host", "web", &world.text("src")]);
    let old = listed(&world).remove(0);
    // What such a run has left: the copy is there, and nothing has ended.
    let copy = world.messages(&["rewrite", "latest", "--exclude", "secret"])[0]["copy"].clone();
    assert_eq!(listed(&world).len(), 2);
    // A copy that lacks something else is not what this command makes.
    world.fails(&["rewrite", copy.as_str().unwrap(), "--exclude", "nothing"], 2);
    let other = world.messages(&["rewrite", "latest", "--exclude", "one"]);
    assert_eq!((&other[0]["id"], listed(&world).len()), (&copy, 3));
    world.does(&["forget", copy.as_str().unwrap(), "--allow-mass-removal"]);
    let copy = world.messages(&["rewrite", id(&old), "--exclude", "secret"])[0]["copy"].clone();
    // Who names it by its id means it and nothing else.
    world.fails(&["rewrite", copy.as_str().unwrap(), "--exclude", "secret", "--forget"], 2);
    let again = world.messages(&["rewrite", "latest", "--exclude", "secret", "--dry-run"]);
    assert_eq!(again[0]["id"], old["id"], "{again:?}");
    let done = world.messages(&["rewrite", "latest", "--exclude", "secret", "--forget"]);
    assert_eq!((&done[0]["id"], &done[0]["copy"], &done[0]["forgotten"]), (&old["id"], &copy, &true.into()));
    assert!(!listed(&world).iter().any(|known| known["id"] == old["id"]));
    // Now there is nothing that it was made of.
    world.fails(&["rewrite", "latest", "--exclude", "secret", "--forget"], 2);
}

#[test]
fn a_snapshot_that_cannot_be_read_is_named_with_what_to_do_about_it() {
    let world = World::with_repository();
    fs::write(world.path("src/secret"), "secret").unwrap();
    world.does(&["backup", "--host", "web", &world.text("src")]);
    let (whole, before) = (listed(&world).pop().unwrap(), packs(&world, "/packs/m/"));
    fs::write(world.path("src/later"), "later").unwrap();
    world.does(&["backup", "--host", "web", &world.text("src")]);
    let bad = listed(&world).pop().unwrap();
    for pack in packs(&world, "/packs/m/").iter().filter(|pack| !before.contains(pack)) {
        (0..fs::metadata(pack).unwrap().len())
            .step_by(20)
            .for_each(|at| flip_at(pack, at.try_into().unwrap()));
    }
    let rewrite = |ids: &[&str], code| {
        let arguments = [&["rewrite"], ids, &["--exclude", "secret"]].concat();
        let (out, err) = world.ends(&mut world.command(&arguments), code);
        format!("{out}{err}")
    };
    let said = rewrite(&[id(&whole), id(&bad)], 5);
    assert!(said.contains(&format!("the snapshot {} cannot be read whole", id(&bad))), "{said}");
    assert!(said.contains("`lifeboat repair snapshots --apply`"), "{said}");
    // As it says.
    rewrite(&[id(&whole)], 0);
    let (_, err) = world.ends(&mut world.command(&["repair", "snapshots", "--apply"]), 3);
    assert!(err.contains("A snapshot of which nothing can be read gives nothing"), "{err}");
}
