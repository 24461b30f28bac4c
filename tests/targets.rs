//! Targets that are not as one would like them: closed, read-only or full, with what others have left in them or write to
//! them at the same time. What a plan says of them is what a restore then meets.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use lifeboat::{
    clock::{Clock, SystemClock, Timestamp},
    error::ErrorKind,
    filesystem::{
        filter::{Filter, FilterOptions},
        metadata::Note,
        names::{Ownership, OwnershipPolicy},
        select::Selection,
    },
    ops::{
        restore::{self, Extra, Forecast, Overwrite, RestoreOptions, Stopped},
        verify::{self, VerifyOptions},
    },
};

use self::{
    changed::back_up_changed,
    place::{Place, noise, same},
    skip::skip,
    world::{World, tree},
};

#[path = "support/changed.rs"]
mod changed;
#[path = "support/ordinary.rs"]
mod ordinary;
#[path = "support/place.rs"]
mod place;
#[path = "support/skip.rs"]
mod skip;
#[path = "support/world.rs"]
mod world;

const LARGE: usize = 5 << 20;

fn deleting() -> RestoreOptions {
    RestoreOptions { extra: Extra::Remove, ..RestoreOptions::default() }
}

fn forecast(place: &Place, target: &str, options: &RestoreOptions) -> Forecast {
    let repository = place.open();
    restore::forecast(&repository, &place.newest(&repository), &place.at(target), options).unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_target_in_use_that_is_given_the_mode_of_a_folder_is_told_and_how_to_give_its_own_back() {
    let world = World::with_repository();
    set_mode(&world.path("src"), 0o750);
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    let restore = |target: &str, more: &[&str]| {
        let mut command = world.command(&[&["restore", &from, "--target", target], more].concat());
        let (out, err) = world.ends(&mut command, 0);
        out + &err
    };
    let told = "shared was there with mode 1777, and is given 0750";
    fs::create_dir(world.path("shared")).unwrap();
    fs::write(world.path("shared/of another"), "x").unwrap();
    set_mode(&world.path("shared"), 0o1777);
    let planned = restore("shared", &["--dry-run"]);
    assert!(planned.contains(told) && mode(&world.path("shared")) == 0o1777, "{planned}");
    let said = restore("shared", &[]);
    assert!(said.contains(told) && said.contains("`chmod 1777`") && !said.contains("chown"), "{said}");
    assert!(!said.contains("interrupted"), "{said}");
    assert_eq!(mode(&world.path("shared")), 0o750);
    // As a restore that was killed has left it: nobody need give that back.
    set_mode(&world.path("shared"), 0o700);
    let said = restore("shared", &[]);
    let unless = "`chmod 0700` gives it back, unless a restore that was interrupted has made the folder";
    assert!(said.contains(unless) && mode(&world.path("shared")) == 0o750, "{said}");
    // Nothing changes hands then, nor in a folder that was made for it.
    fs::create_dir(world.path("fresh")).unwrap();
    set_mode(&world.path("fresh"), 0o1777);
    for (target, more) in [("shared", &[][..]), ("new", &["--dry-run"]), ("new", &[]), ("fresh", &[])] {
        let said = restore(target, more);
        assert!(!said.contains("the target /") && !said.contains("was there with"), "{target}: {said}");
    }
    // Nor by a restore of whole sources.
    set_mode(&world.path("shared"), 0o1777);
    world.does(&["restore", "latest", "--target", "shared"]);
    assert_eq!(mode(&world.path("shared")), 0o1777);
}

#[test]
fn what_is_unfinished_beside_a_file_that_is_left_alone_is_named() {
    let place = Place::new(1);
    place.put("large", &noise(1, LARGE));
    place.put("small", b"small");
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all");
    fs::write(copy.join(".large.lifeboat-partial"), "half").unwrap();
    fs::write(copy.join(".small.lifeboat-partial"), "no large file").unwrap();
    for overwrite in [Overwrite::Never, Overwrite::IfNewer, Overwrite::IfChanged] {
        let options = RestoreOptions { overwrite, ..RestoreOptions::default() };
        let foretold = forecast(&place, "all", &options).restored.notes;
        for notes in [foretold, place.restore_with("all", &options).notes] {
            let [(path, note)] = &notes[..] else { panic!("{overwrite:?}: {notes:?}") };
            let note = note.to_string();
            assert!(path.ends_with(b"/large") && note.contains(".large.lifeboat-partial"), "{note}");
            assert!(note.contains("remove it if none is running"), "{note}");
        }
    }
    // If the snapshot has a file of that name, that is no file of a restore.
    place.put(".large.lifeboat-partial", b"half");
    place.back_up(&place.options());
    let options = RestoreOptions { overwrite: Overwrite::Never, ..RestoreOptions::default() };
    assert_eq!(place.restore_with("all", &options).notes, []);
}

/// A clock at which somebody else restores into the same target as soon as this restore writes.
struct Other<F>(AtomicBool, F);

impl<F: Fn() -> bool + Send + Sync> Clock for Other<F> {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn elapsed(&self) -> Duration {
        if !self.0.load(Ordering::SeqCst) && self.1() {
            self.0.store(true, Ordering::SeqCst);
        }
        SystemClock.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration);
    }
}

fn chattr(flag: &str, path: &Path) -> bool {
    Command::new("chattr").arg(flag).arg(path).status().is_ok_and(|status| status.success())
}

/// Lets everything below a folder be changed again.
fn thaw(root: &Path) {
    Command::new("chattr").args(["-R", "-i"]).arg(root).output().unwrap();
}

#[test]
fn what_another_restore_has_written_into_the_same_empty_target_is_right_if_it_is_the_same() {
    let place = Arc::new(Place::new(1));
    for name in ["a", "b", "frozen/deep/c", "frozen/d"] {
        place.put(name, name.as_bytes());
    }
    place.put("large", &noise(1, LARGE));
    fs::hard_link(place.source().join("b"), place.source().join("frozen/b-too")).unwrap();
    let frozen =
        ["a", "b", "large", "frozen/d", "frozen/deep", "frozen"].map(|name| place.source().join(name));
    if !frozen.iter().all(|path| chattr("+i", path)) {
        skip("two restores: nothing can be made immutable here");
        thaw(&place.source());
        return;
    }
    place.back_up(&place.options());
    let of_others = |target: &'static str, snapshot: &dyn Fn(&Place)| {
        let theirs = Arc::clone(&place);
        let other = move || {
            // This one has begun its first file.
            let begun = theirs.copy(target).join("a").try_exists().unwrap();
            if begun {
                assert_eq!(theirs.restore(target, "", &[]).failures, 0);
            }
            begun
        };
        let repository = place.open_at(Arc::new(Other(AtomicBool::new(false), other)));
        let ours = place.newest(&repository);
        snapshot(&place);
        restore::run(&repository, &ours, &place.at(target), &RestoreOptions::default()).unwrap()
    };
    let equal = of_others("equal", &|_| ());
    let differs = of_others("differs", &|place| {
        thaw(&place.source());
        place.put("b", b"something else");
        place.put("frozen/d", b"something else");
        assert!(frozen.iter().all(|path| chattr("+i", path)));
        place.back_up(&place.options());
    });
    let thaws = ["equal", "differs"].map(|target| place.at(target));
    thaws.iter().for_each(|target| thaw(target));
    thaw(&place.source());
    assert_eq!((equal.failures, equal.unset, equal.files), (0, 0, 6), "{:?} {:?}", equal.failed, equal.notes);
    assert_eq!(equal.kinds.len(), 0);
    let failed: Vec<_> =
        differs.failed.iter().map(|(path, _)| path.rsplit(|b| *b == b'/').next().unwrap()).collect();
    assert_eq!(failed, [&b"b"[..], b"d", b"b-too"], "{:?}", differs.failed);
    for (_, error) in &differs.failed {
        assert!(error.to_string().contains("meanwhile"), "{error}");
        assert!(error.remedy().unwrap().contains("again"), "{error:?}");
    }
    assert_eq!(differs.kinds.len(), 1);
}

/// Runs the program where it has mounts of its own, which a line of the shell makes first.
fn among_mounts(world: &World, mounts: &str, arguments: &[&str]) -> Command {
    let script = format!("{mounts} && exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_lifeboat")]).args(arguments);
    command.env_clear().current_dir(world.path("")).env("HOME", world.path("home"));
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("LIFEBOAT_REPOSITORY", world.path("repo")).env("LIFEBOAT_PASSWORD", world::PASSPHRASE);
    command
}

/// Whether nobody here may mount anything; then it says so.
fn no_mounts() -> bool {
    let can = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let no = !can.is_ok_and(|output| output.status.success());
    if no {
        skip("mounts: this user may mount nothing here");
    }
    no
}

#[test]
fn a_plan_says_that_nothing_can_be_written_where_the_restore_then_fails() {
    if no_mounts() {
        return;
    }
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    fs::create_dir_all(world.path("t/deep")).unwrap();
    let read_only = "mount -t tmpfs none t && mkdir t/deep && mount -o remount,ro t";
    // Below what can be written, where the source goes.
    let whole = format!("t{}", world.text("src"));
    let below = format!("mkdir -p {whole} && mount -t tmpfs -o ro none {whole}");
    for (mounts, from, target) in
        [(read_only, &*from, "t"), (read_only, &*from, "t/deep/new"), (&*below, "latest", "t")]
    {
        let plan = ["restore", from, "--target", target, "--plan"];
        let (out, err) = world.ends(&mut among_mounts(&world, mounts, &plan), 1);
        let first = out.lines().next().unwrap();
        assert!(first.contains("is read-only") && first.contains("remount,rw"), "{out}");
        assert!(err.contains("read-only"), "{err}");
        let (out, err) = world.ends(&mut among_mounts(&world, mounts, &plan[..4]), 1);
        assert!(err.contains("Read-only"), "{out}{err}");
    }
    let plan = ["restore", &from, "--target", "t", "--plan"];
    let out = world.ends(&mut among_mounts(&world, "mount -t tmpfs none t", &plan), 0).0;
    let first = out.lines().next().unwrap();
    assert!(first.starts_with("would restore 2 files") && first.contains("without --plan"), "{out}");
}

/// What a plan and a restore say of entries, if they say the same.
#[track_caller]
fn foreseen(world: &World, mounts: &str, restore: &[&str], code: i32) -> Vec<String> {
    let said = |more: &[&str]| {
        let arguments = [&["--json"], restore, more].concat();
        let (out, err) = world.ends(&mut among_mounts(world, mounts, &arguments), code);
        let messages = world::objects(&(out + &err));
        let told = |kind: &str| matches!(kind, "error" | "note");
        // Of a file with several names the last one is named by the restore, and the first one by the plan.
        let line = |message: &serde_json::Value| message["message"].as_str().unwrap().to_owned();
        let mut said: Vec<String> = messages
            .iter()
            .filter(|message| told(message["message_type"].as_str().unwrap()))
            .map(line)
            .collect();
        said.sort();
        said
    };
    let planned = said(&["--plan"]);
    assert_eq!(planned, said(&[]), "{restore:?}");
    planned
}

#[test]
fn a_plan_says_what_cannot_be_set_of_what_is_right_on_a_mount_that_is_read_only() {
    if no_mounts() {
        return;
    }
    let world = World::with_repository();
    let frozen = chattr("+i", &world.path("src/deep/two"));
    world.does(&["backup", "src"]);
    chattr("-i", &world.path("src/deep/two"));
    let from = format!("latest:{}", world.text("src"));
    world.does(&["restore", &from, "--target", "t"]);
    chattr("-i", &world.path("t/deep/two"));
    assert!(
        Command::new("touch")
            .args(["-d", "2001-02-03", "t/deep"])
            .current_dir(world.path(""))
            .status()
            .unwrap()
            .success()
    );
    let mounts = "mount --bind t/deep t/deep && mount -o remount,bind,ro t/deep";
    let said = foreseen(&world, mounts, &["restore", &from, "--target", "t"], 3);
    let says =
        |what: &str| said.iter().any(|line| line.contains(what) && line.contains("Read-only file system"));
    assert!(says("time could not be set"), "{said:#?}");
    assert!(!frozen || says("the flag immutable could not be set"), "{said:#?}");
    if !frozen {
        skip("a frozen file: nothing can be made immutable here");
    }
    // Where all is as it should be nothing is said.
    world.does(&["restore", &from, "--target", "t"]);
    foreseen(&world, mounts, &["restore", &from, "--target", "t"], 0);
    thaw(&world.path("t"));
}

#[test]
fn a_folder_that_cannot_be_made_is_not_said_to_have_been_there() {
    if no_mounts() {
        return;
    }
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    fs::create_dir(world.path("t")).unwrap();
    // It holds the folder itself, and nothing else.
    let mounts = "mount -t tmpfs -o nr_inodes=1 none t";
    let restore = ["restore", &from, "--target", "t"];
    let (out, err) = world.ends(&mut among_mounts(&world, mounts, &restore), 1);
    assert!(err.contains("cannot make the folder") && !err.contains("open the folder"), "{out}{err}");
}

#[test]
fn what_was_the_place_of_a_mount_is_not_emptied_when_nothing_is_mounted_there() {
    if no_mounts() {
        return;
    }
    let world = World::with_repository();
    fs::create_dir(world.path("src/home")).unwrap();
    let mounts = "mount -t tmpfs none src/home && echo then > src/home/then";
    world.ends(&mut among_mounts(&world, mounts, &["backup", "src", "-x"]), 0);
    // The new disk has one file system for all.
    fs::write(world.path("src/home/thesis"), "thesis").unwrap();
    fs::write(world.path("src/extra"), "extra").unwrap();
    let from = format!("latest:{}", world.text("src"));
    world.does(&["restore", &from, "--target", "src", "--delete", "--verify"]);
    assert_eq!(fs::read(world.path("src/home/thesis")).unwrap(), b"thesis");
    assert!(!world.path("src/extra").exists());
}

#[test]
fn no_mount_leads_a_restore_into_the_repository_or_the_cache() {
    if no_mounts() {
        return;
    }
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    fs::create_dir(world.path("b")).unwrap();
    let from = format!("latest:{}", world.text("src"));
    let all = || (tree(&world.path("repo")), tree(&world.path("home")));
    let before = all();
    assert!(world.path("home/.cache/lifeboat").is_dir());
    let inside = |mounts: &str, repository: &str, target: &str, what: &str| {
        for more in [&["--delete"][..], &["--delete", "--plan"], &[]] {
            let arguments = [&["-r", repository, "restore", &from, "--target", target][..], more].concat();
            let (out, err) = world.ends(&mut among_mounts(&world, mounts, &arguments), 2);
            assert!(err.contains(what) && err.contains("Name a target outside"), "{mounts}: {out}{err}");
            assert!(all() == before, "{mounts}: something was written");
        }
    };
    let repository = "is in the repository itself";
    inside("mount --bind repo b", "repo", "b", repository);
    inside("mount --bind repo b", "repo", "b/new/er", repository);
    inside("mount --bind repo b", "b", "repo", repository);
    inside("mount --bind repo/keys b", "repo", "b", repository);
    inside("mount --bind repo/keys b", "repo", "b/new", repository);
    inside("mount --bind repo b", "b", "repo/keys", repository);
    inside("mount -t tmpfs none repo/keys && mount --bind repo/keys b", "repo", "b/new", repository);
    inside("true", "repo", "home/.cache/lifeboat", "is in the cache");
    inside("mount --bind home/.cache/lifeboat b", "repo", "b", "is in the cache");
    // What the repository lies in, and what is mounted beside it, may be a target.
    for (mounts, target) in [("mount --bind . b", "b"), ("mount --bind src b", "b"), ("true", ".")] {
        let plan = ["restore", &from, "--target", target, "--plan"];
        world.ends(&mut among_mounts(&world, mounts, &plan), 0);
    }
}

#[test]
fn a_time_that_the_file_system_does_not_hold_is_told_of_each_entry() {
    if no_mounts() {
        return;
    }
    let world = World::with_repository();
    fs::create_dir(world.path("t")).unwrap();
    let makes = |image: &str| {
        fs::File::create(world.path(image)).unwrap().set_len(8 << 20).unwrap();
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-t", "ext4", "-I", "128", &world.text(image)]);
        make.output().is_ok_and(|made| made.status.success())
    };
    // One image is never mounted twice.
    let can = makes("image") && makes("another");
    let mut look = among_mounts(&world, "mount -o loop another t", &["snapshots"]);
    if !can || !look.output().unwrap().status.success() {
        return skip("small inodes: no file system with them can be made or mounted here");
    }
    std::os::unix::fs::symlink("one", world.path("src/link")).unwrap();
    let touch = |name: &str, time: &str| {
        let done = Command::new("touch").args(["-h", "-d", time]).arg(world.path(name)).status().unwrap();
        assert!(done.success(), "{name}");
    };
    touch("src/one", "2020-01-01 00:00:00");
    for name in ["src/deep/two", "src/link", "src/deep"] {
        touch(name, "2020-01-01 00:00:00.123456789");
    }
    touch("src", "2100-01-01 00:00:00");
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    // It says so again when it finds them there.
    let twice = "mount -o loop image t && { \"$0\" \"$@\"; true; }";
    let restore = ["restore", &from, "--target", "t", "--json"];
    let (out, _) = world.ends(&mut among_mounts(&world, twice, &restore), 3);
    let times = |name: &str, what: &str| {
        let path = format!("{}\"", world.text(name));
        let is_told = |line: &&str| line.contains("time could not be set") && line.contains(&path);
        out.lines().filter(is_told).filter(|line| line.contains(what)).count()
    };
    for name in ["src/deep/two", "src/link", "src/deep"] {
        assert_eq!(times(name, "nanoseconds"), 2, "{name}: {out}");
    }
    assert_eq!((times("src", "cannot hold it"), times("src/one", "")), (2, 0), "{out}");
    // Elsewhere all of them are kept.
    world.does(&["restore", &from, "--target", "whole", "--verify"]);
}

#[test]
fn what_is_mounted_on_a_file_is_right_if_it_is_that_file_or_is_to_stay() {
    if no_mounts() {
        return;
    }
    let world = World::with_repository();
    fs::write(world.path("src/large"), noise(1, LARGE)).unwrap();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    for copy in ["same", "t"] {
        world.does(&["restore", &from, "--target", copy]);
    }
    for name in ["t/one", "t/large"] {
        fs::write(world.path(name), "it is below, and never seen").unwrap();
    }
    let mounts = "mount --bind same/one t/one && mount --bind same/large t/large";
    for policy in ["always", "if-changed", "if-newer", "never"] {
        let restore = ["restore", &from, "--target", "t", "--overwrite", policy, "--verify"];
        world.ends(&mut among_mounts(&world, mounts, &restore), 0);
        world.ends(&mut among_mounts(&world, mounts, &[&restore[..6], &["--plan"]].concat()), 0);
    }
    // Another one stays if it is to, and is an error else.
    fs::write(world.path("same/one"), "other").unwrap();
    fs::set_permissions(world.path("same/large"), PermissionsExt::from_mode(0o600)).unwrap();
    let restore = ["restore", &from, "--target", "t", "--overwrite"];
    for policy in ["if-newer", "never"] {
        world.ends(&mut among_mounts(&world, mounts, &[&restore[..], &[policy]].concat()), 0);
    }
    for more in [&[][..], &["--plan"]] {
        for policy in ["always", "if-changed"] {
            let (out, err) =
                world.ends(&mut among_mounts(&world, mounts, &[&restore[..], &[policy], more].concat()), 3);
            for name in ["one", "large"] {
                assert!(err.contains(&format!("something is mounted on {name}. Unmount it")), "{out}{err}");
            }
        }
    }
    assert_eq!(fs::read(world.path("same/one")).unwrap(), b"other");
}

#[test]
fn a_plan_tells_that_an_empty_folder_with_something_mounted_on_it_is_in_the_way() {
    if no_mounts() {
        return;
    }
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    fs::create_dir_all(world.path("t/one")).unwrap();
    for more in [&[][..], &["--delete"]] {
        for plan in [&["--plan"][..], &[]] {
            let restore = [&["restore", &from, "--target", "t"], more, plan].concat();
            let (out, err) = world.ends(&mut among_mounts(&world, "mount -t tmpfs none t/one", &restore), 3);
            assert!(err.contains("something is mounted on one. Unmount it"), "{out}{err}");
        }
    }
    assert_eq!(fs::read(world.path("t/deep/two")).unwrap(), b"second");
    world.does(&["restore", &from, "--target", "t"]);
}

#[test]
fn a_mount_in_the_target_that_is_read_only_is_trouble_of_what_is_on_it() {
    if no_mounts() {
        return;
    }
    let world = World::with_repository();
    fs::create_dir(world.path("src/deep/er")).unwrap();
    fs::write(world.path("src/deep/er/large"), noise(1, LARGE)).unwrap();
    fs::write(world.path("src/zz"), "last").unwrap();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    fs::create_dir_all(world.path("t/deep")).unwrap();
    let mounts = "mount -t tmpfs -o ro none t/deep";
    let restore = ["restore", &from, "--target", "t"];
    for plan in [&["--plan"][..], &[]] {
        let (out, err) = world.ends(&mut among_mounts(&world, mounts, &[&restore[..], plan].concat()), 3);
        for name in ["src/deep/two", "src/deep/er/large"] {
            let name = format!("{}: ", world.text(name));
            let said = err.lines().find(|line| line.contains(&name));
            let said = said.map(str::to_lowercase).unwrap_or_else(|| panic!("{name}{out}{err}"));
            assert!(said.contains("read-only"), "{said}");
        }
        assert!(!err.contains(&world.text("src/one")), "{err}");
    }
    assert_eq!(fs::read(world.path("t/one")).unwrap(), b"first");
    assert_eq!(fs::read(world.path("t/zz")).unwrap(), b"last");
    // What is right already needs no writing.
    world.does(&["restore", &from, "--target", "whole"]);
    let mounts = "mount --bind whole/deep t/deep && mount -o remount,bind,ro t/deep";
    for plan in [&["--plan"][..], &[]] {
        world.ends(&mut among_mounts(&world, mounts, &[&restore[..], plan].concat()), 0);
    }
}

#[test]
fn what_stands_where_a_folder_leads_to_what_is_chosen_goes_as_the_policy_says() {
    let place = Place::new(1);
    for name in ["x/deep/b", "x/deep/c", "x/other"] {
        place.put(name, name.as_bytes());
    }
    place.back_up(&place.options());
    let options = |overwrite, include: &str| RestoreOptions {
        overwrite,
        selection: Selection::new(&[include.to_owned()], &[]).unwrap(),
        ..RestoreOptions::default()
    };
    let copy = place.copy("all");
    let stands = |name: &str, is_link: bool| {
        drop(fs::remove_dir_all(copy.join("x")));
        drop(fs::remove_file(copy.join("x")));
        fs::create_dir_all(copy.join(name).parent().unwrap()).unwrap();
        match is_link {
            true => std::os::unix::fs::symlink("elsewhere", copy.join(name)).unwrap(),
            false => fs::write(copy.join(name), "a file").unwrap(),
        }
    };
    for (name, is_link) in [("x", false), ("x", true), ("x/deep", false), ("x/deep", true)] {
        for (overwrite, comes) in
            [(Overwrite::Always, true), (Overwrite::IfNewer, false), (Overwrite::Never, false)]
        {
            stands(name, is_link);
            let options = options(overwrite, "[bc]");
            let foretold = forecast(&place, "all", &options);
            let done = place.restore_with("all", &options);
            let what = format!("{name} {is_link} {overwrite:?}: {:?}", done.failed);
            assert_eq!((foretold.restored.failures, done.failures), (0, 0), "{what}");
            let left = if comes { 0 } else { 2 };
            assert_eq!((foretold.restored.left, done.left), (left, left), "{what}");
            assert_eq!((foretold.files, done.files), (2 - left, 2 - left), "{what}");
            assert_eq!(copy.join("x/deep/b").exists(), comes, "{what}");
            assert!(
                comes || fs::symlink_metadata(copy.join(name)).unwrap().is_symlink() == is_link,
                "{what}"
            );
        }
    }
}

#[test]
fn a_link_above_a_source_that_gives_way_is_told() {
    let world = World::with_repository();
    fs::create_dir_all(world.path("up/source")).unwrap();
    fs::write(world.path("up/source/file"), "content").unwrap();
    world.does(&["backup", "up/source"]);
    let up = format!("t{}", world.text("up"));
    for policy in ["always", "if-changed", "if-newer"] {
        for include in [&[][..], &["--include", "file"]] {
            drop(fs::remove_dir_all(world.path("t")));
            fs::create_dir_all(world.path(&up).parent().unwrap()).unwrap();
            std::os::unix::fs::symlink("upreal", world.path(&up)).unwrap();
            let restore = [&["restore", "latest", "--target", "t", "--overwrite", policy], include].concat();
            for plan in [&["--plan"][..], &[]] {
                let (out, err) = world.ends(&mut world.command(&[&restore[..], plan].concat()), 0);
                let told = "the link to upreal that had the name of this folder gives way";
                assert!(out.contains(told) || err.contains(told), "{policy} {plan:?}: {out}{err}");
            }
            assert_eq!(fs::read(world.path(&up).join("source/file")).unwrap(), b"content", "{policy}");
        }
    }
    // What is never to be overwritten stays, with all that would be in it.
    fs::remove_dir_all(world.path(&up)).unwrap();
    std::os::unix::fs::symlink("upreal", world.path(&up)).unwrap();
    world.does(&["restore", "latest", "--target", "t", "--overwrite", "never"]);
    assert!(fs::symlink_metadata(world.path(&up)).unwrap().is_symlink());
}

#[test]
fn what_cannot_be_written_is_named_with_its_whole_path() {
    if no_mounts() {
        return;
    }
    let world = World::with_repository();
    fs::write(world.path("src/deep/f101"), noise(1, 3 << 20)).unwrap();
    fs::create_dir(world.path("t")).unwrap();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    let restore = ["restore", &from, "--target", "t"];
    let mut command = among_mounts(&world, "mount -t tmpfs -o size=1m none t", &restore);
    let (_, err) = world.ends(&mut command, 1);
    assert!(err.contains(&format!("cannot write {}/deep/f101", world.text("t"))), "{err}");
}

#[test]
fn a_plan_counts_further_names_as_the_restore_does() {
    let place = Place::new(1);
    place.put("a", b"first");
    place.put("x", b"another");
    for name in ["b", "c"] {
        fs::hard_link(place.source().join("a"), place.source().join(name)).unwrap();
    }
    fs::hard_link(place.source().join("x"), place.source().join("y")).unwrap();
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all");
    let overwrite = Overwrite::Always;
    let counts = |files, unchanged, left, needed| (files, unchanged, left, needed);
    // What the first name stands for is replaced: the others are names of something else.
    fs::write(copy.join("a"), "FIRST").unwrap();
    let options = RestoreOptions { overwrite, ..RestoreOptions::default() };
    let foretold = forecast(&place, "all", &options);
    let done = place.restore_with("all", &options);
    assert_eq!(
        counts(foretold.files, foretold.files_unchanged, foretold.restored.left, foretold.download_bytes > 0),
        counts(done.files, done.files_unchanged, done.left, done.bytes > done.bytes_unchanged),
        "{overwrite:?}"
    );
    place.restore("all", "", &[]);
    same(&place.source(), &copy);
}

#[test]
fn a_plan_tells_root_too_what_goes_to_another_owner_without_its_rights() {
    let place = Place::new(1);
    for name in ["setuid", "setgid", "program", "mine"] {
        place.put(name, name.as_bytes());
    }
    let capability = vec![0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    back_up_changed(&place, |path, metadata| match path.rsplit(|byte| *byte == b'/').next().unwrap() {
        b"setuid" => (metadata.uid, metadata.mode) = (1, 0o4755),
        b"setgid" => (metadata.gid, metadata.mode) = (1, 0o2755),
        b"program" => {
            metadata.uid = 1;
            metadata.xattrs.push((b"security.capability".to_vec(), capability.clone()));
        }
        b"mine" => metadata.mode = 0o4755,
        _ => {}
    });
    let options =
        RestoreOptions { ownership: Ownership::new(OwnershipPolicy::Keep), ..RestoreOptions::default() };
    // Into nothing, and over what is there.
    for round in 0..2 {
        let foretold = forecast(&place, "all", &options).restored;
        let done = place.restore_with("all", &options);
        let sorted = |mut notes: Vec<(Vec<u8>, Note)>| {
            notes.sort_by(|(one, _), (other, _)| one.cmp(other));
            notes
        };
        assert_eq!((foretold.unset, done.unset), (3, 3), "{round}: {:?} {:?}", foretold.notes, done.notes);
        assert_eq!(sorted(foretold.notes), sorted(done.notes), "{round}");
    }
    assert_eq!(mode(&place.copy("all").join("mine")), 0o4755);
}

#[test]
fn attributes_that_the_backup_could_not_take_stay_where_they_are() {
    let place = Place::new(1);
    fs::create_dir(place.source().join("folder")).unwrap();
    let names = ["folder", "folder/lacking", "folder/whole", "folder/opaque"];
    for name in &names[1..] {
        place.put(name, name.as_bytes());
    }
    back_up_changed(&place, |path, metadata| {
        metadata.lacks = match path.rsplit(|byte| *byte == b'/').next().unwrap() {
            b"folder" | b"lacking" => Some(
                "attribute user.large (too much), attribute user.system.posix_acl_access (too much)".into(),
            ),
            b"opaque" => Some("extended attributes (Input/output error)".into()),
            _ => None,
        };
    });
    place.restore("all", "", &[]);
    // Read by user 1 too: version 2, then owner, user, group, mask, others.
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 1), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)];
    let entry = |(tag, rights, who): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &who.to_le_bytes()].concat()
    };
    let acl = [2_u32.to_le_bytes().to_vec(), entries.iter().flat_map(entry).collect()].concat();
    let copy = place.copy("all");
    let set = |name: &str, attribute: &str, value: &[u8]| {
        rustix::fs::lsetxattr(copy.join(name), attribute, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    let has = |name: &str, attribute: &str| {
        rustix::fs::lgetxattr(copy.join(name), attribute, &mut [0_u8; 64][..]).is_ok()
    };
    for name in names {
        set(name, "user.large", b"all that there is");
    }
    for name in &names[1..] {
        set(name, "system.posix_acl_access", &acl);
    }
    place.restore("all", "", &[]);
    assert_eq!(names.map(|name| has(name, "user.large")), [true, true, false, true]);
    // An ACL gives rights: it stays only where nobody knows what there was.
    assert_eq!(names.map(|name| has(name, "system.posix_acl_access")), [false, false, false, true]);
}

#[test]
fn a_closed_target_is_a_note_of_the_plan() {
    if ordinary::is_done_as_ordinary_user("a_closed_target_is_a_note_of_the_plan") {
        return;
    }
    let place = Place::new(1);
    place.put("in/file", b"a file");
    place.put("closed/file", b"a file");
    place.back_up(&place.options());
    let subpath = place.source().to_str().unwrap().trim_start_matches('/').as_bytes().to_vec();
    let options = || RestoreOptions { subpath: subpath.clone(), ..deleting() };
    fs::create_dir_all(place.at("all/extra")).unwrap();
    fs::create_dir_all(place.at("all/closed/extra")).unwrap();
    let closed = |notes: &[(Vec<u8>, Note)]| {
        notes
            .iter()
            .filter(|(_, note)| note.to_string().contains("closed to you"))
            .cloned()
            .collect::<Vec<_>>()
    };
    for target_mode in [0, 0o300, 0o700] {
        set_mode(&place.at("all/closed"), 0);
        set_mode(&place.at("all"), target_mode);
        let foretold = forecast(&place, "all", &options());
        assert_eq!((foretold.files, foretold.restored.failures), (2, 0), "{:?}", foretold.restored.failed);
        assert!(foretold.space_free > 0);
        let notes = closed(&foretold.restored.notes);
        let [(path, note)] = &notes[..] else { panic!("{notes:?}") };
        assert_eq!(path.ends_with(b"/closed"), target_mode == 0o700);
        assert!(note.to_string().contains("--delete"), "{note}");
        assert_eq!(mode(&place.at("all")), target_mode);
        set_mode(&place.at("all"), 0o700);
    }
    set_mode(&place.at("all"), 0);
    let done = place.restore_with("all", &options());
    assert_eq!((done.failures, done.removals), (0, 2), "{:?}", done.failed);
}

/// Whether something is immutable or append-only.
fn is_frozen(path: &Path) -> bool {
    let status = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).unwrap();
    status.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
}

#[test]
fn a_target_that_is_closed_to_who_restores_is_opened_up_whatever_goes_into_it() {
    let test = "a_target_that_is_closed_to_who_restores_is_opened_up_whatever_goes_into_it";
    if ordinary::is_done_as_ordinary_user(test) {
        return;
    }
    let place = Place::new(1);
    place.put("in/file", b"a file");
    place.back_up(&place.options());
    for target_mode in [0, 0o300, 0o500, 0o555] {
        for is_empty in [true, false] {
            let name = format!("{target_mode}-{is_empty}");
            let target = place.at(&name);
            fs::create_dir(&target).unwrap();
            if !is_empty {
                fs::write(target.join("other"), "").unwrap();
            }
            set_mode(&target, target_mode);
            // A whole snapshot has no entry of it.
            let foretold = forecast(&place, &name, &RestoreOptions::default());
            assert_eq!((foretold.denied, foretold.restored.failures), (None, 0), "{name}");
            let done = place.restore(&name, "", &[]);
            assert_eq!((done.failures, mode(&target)), (0, target_mode), "{name}: {:?}", done.failed);
            set_mode(&target, 0o700);
            same(&place.source(), &place.copy(&name));
        }
    }
}

#[test]
fn a_frozen_target_is_thawed_for_the_restore_whatever_goes_into_it() {
    let place = Place::new(1);
    place.put("in/file", b"a file");
    place.back_up(&place.options());
    // What the target stands for has no entry, only leads to a source, or is one, which is not frozen in the snapshot.
    let above = place.at("").to_str().unwrap().to_owned();
    let source = place.source().to_str().unwrap().to_owned();
    for (number, subpath) in ["", &above, &source].iter().enumerate() {
        for is_empty in [true, false] {
            let name = format!("{number}-{is_empty}");
            let target = place.at(&name);
            fs::create_dir(&target).unwrap();
            if !is_empty {
                fs::write(target.join("other"), "").unwrap();
            }
            if !chattr(if is_empty { "+i" } else { "+a" }, &target) {
                skip("a frozen target: nothing can be made immutable here");
                return;
            }
            let subpath = subpath.trim_matches('/');
            let options = RestoreOptions { subpath: subpath.into(), ..RestoreOptions::default() };
            let foretold = forecast(&place, &name, &options);
            let done = place.restore(&name, subpath, &[]);
            let still = is_frozen(&target);
            Command::new("chattr").arg("-ia").arg(&target).status().unwrap();
            assert_eq!((foretold.denied, foretold.restored.failures), (None, 0), "{name}");
            assert_eq!((done.failures, still), (0, number < 2), "{name}: {:?}", done.failed);
        }
    }
}

/// What a plan says that cannot be restored or removed, and what the restore then could not: of the same paths below the
/// source.
#[track_caller]
fn failures(place: &Place, target: &str, options: &RestoreOptions) -> [Vec<(String, String)>; 2] {
    let source = place.source().to_str().unwrap().trim_start_matches('/').to_owned();
    let told = |restored: &restore::Restored| {
        let of = |(path, error): &(Vec<u8>, lifeboat::error::Error)| {
            let path = String::from_utf8(path.clone()).unwrap();
            let path = path.strip_prefix(&source).unwrap_or(&path).trim_start_matches('/').to_owned();
            (path, format!("{error}. {}", error.remedy().unwrap_or_default()))
        };
        let mut told: Vec<_> = restored.failed.iter().map(of).collect();
        told.sort();
        told
    };
    let planned = forecast(place, target, options).restored;
    let done = place.restore_with(target, options);
    let both = [told(&planned), told(&done)];
    let paths = |told: &[(String, String)]| told.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    let counts = [(planned.removals, planned.left), (done.removals, done.left)];
    assert_eq!((paths(&both[0]), counts[0]), (paths(&both[1]), counts[1]), "{both:#?}");
    both
}

#[test]
fn a_frozen_folder_above_a_source_stays_so_and_a_plan_knows_it() {
    let place = Place::new(1);
    place.put("in/file", b"a file");
    place.back_up(&place.options());
    assert_eq!(place.restore("all", "", &[]).failures, 0);
    let (copy, other) = (place.copy("all"), place.at("other"));
    let above = copy.parent().unwrap().to_owned();
    // What is told of the source, and of what is in it.
    let among = |flag: &str, expected: &[&str]| {
        if !chattr(flag, &above) {
            skip("a folder above a source: nothing can be made immutable here");
            return false;
        }
        let told = failures(&place, "all", &RestoreOptions::default());
        assert!(is_frozen(&above) && chattr(&flag.replace('+', "-"), &above));
        for told in told {
            let paths: Vec<&str> = told.iter().map(|(path, _)| path.as_str()).collect();
            assert_eq!(paths, expected, "{flag}: {told:#?}");
            assert!(told.iter().all(|(_, error)| error.contains("chattr -i -a")), "{flag}: {told:#?}");
        }
        true
    };
    fs::remove_dir_all(&copy).unwrap();
    if !among("+i", &["", "in", "in/file"]) {
        return;
    }
    // A link to it would have to give way.
    fs::create_dir(&other).unwrap();
    std::os::unix::fs::symlink(&other, &copy).unwrap();
    assert!(among("+i", &[""]) && among("+a", &[""]));
    // One that is append-only takes new folders.
    fs::remove_file(&copy).unwrap();
    assert!(among("+a", &[]));
    same(&place.source(), &copy);
    // Those of a source are thawed, be they meant themselves or not.
    for includes in [vec![], vec![format!("{}/in/file", place.source().to_str().unwrap())]] {
        let options = RestoreOptions {
            selection: Selection::new(&includes, &[]).unwrap(),
            ..RestoreOptions::default()
        };
        fs::remove_file(copy.join("in/file")).unwrap();
        assert!(chattr("+i", &copy.join("in")));
        let told = failures(&place, "all", &options);
        thaw(&copy);
        assert_eq!(told, [vec![], vec![]]);
        same(&place.source(), &copy);
    }
}

#[test]
fn a_frozen_folder_in_the_place_of_something_else_stays_and_is_named() {
    let place = Place::new(1);
    for name in ["immutable", "append", "large"] {
        place.put(name, if name == "large" { noise(1, LARGE) } else { b"a file".to_vec() }.as_slice());
    }
    place.back_up(&place.options());
    assert_eq!(place.restore("all", "", &[]).failures, 0);
    let names = ["append", "immutable", "large"];
    let at = names.map(|name| place.copy("all").join(name));
    for path in &at {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }
    let flags = ["+a", "+i", "+i"];
    if !flags.iter().zip(&at).all(|(flag, path)| chattr(flag, path)) {
        skip("a frozen folder: nothing can be made immutable here");
        return;
    }
    let told = [deleting(), RestoreOptions::default()].map(|options| failures(&place, "all", &options));
    let still = at.each_ref().map(|path| is_frozen(path));
    for path in &at {
        Command::new("chattr").arg("-ia").arg(path).status().unwrap();
    }
    assert_eq!(still, [true; 3]);
    for [planned, met] in told {
        assert_eq!(planned, met);
        assert_eq!(planned.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), names);
        let says =
            |(_, error): &(String, String)| error.contains("is a folder that is immutable or append-only");
        assert!(planned.iter().all(says), "{planned:#?}");
    }
}

#[test]
fn a_frozen_file_in_the_place_of_a_folder_is_thawed_only_if_it_may_go() {
    let place = Place::new(1);
    place.put("goes/in", b"a file");
    place.put("stays/in", b"a file");
    place.back_up(&place.options());
    assert_eq!(place.restore("all", "", &[]).failures, 0);
    let at = ["goes", "stays"].map(|name| place.copy("all").join(name));
    for (path, size) in at.iter().zip([10, 5000]) {
        fs::remove_dir_all(path).unwrap();
        fs::write(path, vec![7; size]).unwrap();
    }
    if !at.iter().all(|path| chattr("+i", path)) {
        skip("a frozen file: nothing can be made immutable here");
        return;
    }
    // Large ones are no part of what was backed up, and so --delete leaves them.
    let rules = FilterOptions { exclude_larger_than: Some(1000), ..FilterOptions::default() };
    let source = place.source().to_str().unwrap().to_owned();
    let includes = ["goes/in", "stays/in"].map(|name| format!("{source}/{name}"));
    let options = RestoreOptions {
        left_out: Filter::new(rules).unwrap(),
        selection: Selection::new(&includes, &[]).unwrap(),
        ..deleting()
    };
    let [planned, met] = failures(&place, "all", &options);
    let removals = fs::read(at[0].join("in")).is_ok();
    let still = is_frozen(&at[1]);
    thaw(&place.at("all"));
    assert!(removals && still, "{met:#?}");
    assert_eq!(planned, met);
    let [(path, error)] = &met[..] else { panic!("{met:#?}") };
    assert!(path == "stays/in" && error.contains("is a file that is not to go"), "{met:#?}");
}

/// A restore over what is there that is stopped when it writes and something is so.
fn stopped_when(place: &Place, is_so: impl Fn() -> bool + Send + Sync + 'static) -> Stopped {
    let progress = Arc::clone(&place.progress);
    let stops = move || {
        let so = is_so();
        if so {
            progress.stop();
        }
        so
    };
    let repository = place.open_at(Arc::new(Other(AtomicBool::new(false), stops)));
    *restore::run(&repository, &place.newest(&repository), &place.at("all"), &deleting()).unwrap_err()
}

/// A place in which everything was restored; then something else came into the place of a folder.
fn restored_and_changed() -> Place {
    let place = Place::new(1);
    place.put("outer/deep/file", b"a file");
    place.put("was/in", b"a file");
    place.back_up(&place.options());
    assert_eq!(place.restore("all", "", &[]).failures, 0);
    let copy = place.copy("all");
    fs::write(copy.join("outer/deep/file"), "another").unwrap();
    fs::remove_dir_all(copy.join("was")).unwrap();
    fs::write(copy.join("was"), "somebody's").unwrap();
    place
}

#[track_caller]
fn has_told_what_went(stopped: &Stopped) {
    let Stopped { done, error } = stopped;
    assert_eq!((error.kind(), done.removals), (ErrorKind::Interrupted, 1), "{error}");
    assert!(done.removed[0].ends_with(b"/was"), "{:?}", done.removed);
}

#[test]
fn what_was_opened_up_is_closed_again_if_the_restore_ends_early() {
    let test = "what_was_opened_up_is_closed_again_if_the_restore_ends_early";
    if ordinary::is_done_as_ordinary_user(test) {
        return;
    }
    let place = restored_and_changed();
    let outer = place.copy("all").join("outer");
    set_mode(&outer.join("deep"), 0o500);
    set_mode(&outer, 0o300);
    set_mode(&place.at("all"), 0o500);
    let opened = outer.clone();
    let stopped = stopped_when(&place, move || mode(&opened.join("deep")) == 0o700);
    has_told_what_went(&stopped);
    let now = [place.at("all"), outer.clone(), outer.join("deep")].map(|path| mode(&path));
    [&outer, &outer.join("deep"), &place.at("all")].into_iter().for_each(|path| set_mode(path, 0o700));
    assert_eq!(now, [0o500, 0o300, 0o500]);
}

#[test]
fn what_was_thawed_is_frozen_again_if_the_restore_ends_early() {
    let place = restored_and_changed();
    let outer = place.copy("all").join("outer");
    let frozen = [outer.join("deep"), outer.clone(), place.at("all")];
    if !frozen.iter().all(|path| chattr("+i", path)) {
        skip("a restore that ends early: nothing can be made immutable here");
        return;
    }
    let stopped = stopped_when(&place, move || !is_frozen(&outer));
    let still = frozen.each_ref().map(|path| is_frozen(path));
    thaw(&place.at("all"));
    has_told_what_went(&stopped);
    assert_eq!(still, [true; 3], "{:?}", stopped.done.notes);
}

#[test]
fn a_restore_that_ends_early_says_what_it_did_before_it_says_why() {
    if no_mounts() {
        return;
    }
    let world = World::with_repository();
    fs::write(world.path("src/large"), noise(1, 3 << 20)).unwrap();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    fs::create_dir(world.path("t")).unwrap();
    // Something of the restore goes to make way; then the disk is full.
    let mounts = "mount -t tmpfs -o size=1m none t && echo old > t/deep";
    let restore = ["--no-cache", "restore", &from, "--target", "t", "--delete", "-v"];
    let (out, err) = world.ends(&mut among_mounts(&world, mounts, &restore), 1);
    let gone = format!("- {}/deep", world.text("src"));
    assert!(out.contains(&gone), "{out}{err}");
    assert!(out.contains("1 entry removed; then it ended early"), "{out}{err}");
    assert!(err.contains("No space left on device"), "{out}{err}");
    let json = [&restore[..], &["--json"]].concat();
    let (out, _) = world.ends(&mut among_mounts(&world, mounts, &json), 1);
    let messages = world::objects(&out);
    let types: Vec<_> = messages.iter().map(|message| message["message_type"].as_str().unwrap()).collect();
    let of = |kind: &str| types.iter().position(|known| *known == kind);
    assert!(of("removed").is_some() && of("removed") < of("summary"), "{types:?}");
    assert!(of("summary") < of("exit_error"), "{types:?}");
    assert_eq!(messages[of("summary").unwrap()]["removed"], 1, "{out}");
}

#[test]
fn what_delete_keeps_in_a_folder_that_is_not_whole_is_told() {
    if ordinary::is_done_as_ordinary_user("what_delete_keeps_in_a_folder_that_is_not_whole_is_told") {
        return;
    }
    let place = Place::new(1);
    for (path, mode) in [("part/unread", 0), ("part/in/file", 0o600), ("whole/file", 0o600)] {
        place.put(path, b"a file");
        set_mode(&place.source().join(path), mode);
    }
    place.back_up(&place.options());
    let subpath = place.source().to_str().unwrap().trim_start_matches('/').as_bytes().to_vec();
    let selection = || Selection::new(&[], &["excluded".to_owned()]).unwrap();
    let options = || RestoreOptions { subpath: subpath.clone(), selection: selection(), ..deleting() };
    place.restore_with("all", &options());
    let told = |notes: &[(Vec<u8>, Note)]| {
        let of = |path: &[u8]| String::from_utf8_lossy(path).rsplit('/').next().unwrap().to_owned();
        let told = |(path, note): &(Vec<u8>, Note)| (of(path), note.to_string());
        notes.iter().map(told).collect::<Vec<_>>()
    };
    // What stays in any case is no reason to say something.
    fs::write(place.at("all/part/excluded"), "").unwrap();
    assert_eq!(told(&place.restore_with("all", &options()).notes), []);
    for extra in ["part/extra/deep", "part/other", "part/in/goes", "whole/goes"] {
        fs::create_dir_all(place.at("all").join(extra)).unwrap();
    }
    let foretold = forecast(&place, "all", &options()).restored;
    let done = place.restore_with("all", &options());
    for restored in [foretold, done] {
        let notes = told(&restored.notes);
        let [(path, note)] = &notes[..] else { panic!("{notes:?}") };
        assert!(
            path == "part" && note.starts_with("2 names in it, which the snapshot does not have"),
            "{notes:?}"
        );
        assert_eq!((restored.failures, restored.removals), (1, 2), "{:?}", restored.failed);
    }
}

#[test]
fn what_is_closed_to_who_restores_it_is_compared_all_the_same() {
    if ordinary::is_done_as_ordinary_user("what_is_closed_to_who_restores_it_is_compared_all_the_same") {
        return;
    }
    let place = Place::new(1);
    place.put("closed/in/deep/file", b"file");
    place.put("closed/unread", b"unread");
    fs::hard_link(place.source().join("closed/in/deep/file"), place.source().join("closed/in/name")).unwrap();
    // As root has backed it up.
    let modes =
        [("closed/in/deep", 0), ("closed/in", 0o300), ("closed/unread", 0o200), ("closed", 0), ("", 0o300)];
    let below = |path: &[u8]| {
        let path = format!("/{}", std::str::from_utf8(path).unwrap());
        path.strip_prefix(place.source().to_str().unwrap())
            .map(|path| path.trim_start_matches('/').to_owned())
    };
    back_up_changed(&place, |path, metadata| {
        let known = |(name, _): &&(&str, u32)| below(path).as_deref() == Some(*name);
        metadata.mode = modes.iter().find(known).map_or(metadata.mode, |(_, mode)| *mode);
    });
    let copy = place.at("copy");
    let open = || modes.iter().rev().for_each(|(name, _)| set_mode(&copy.join(name), 0o700));
    let ends = |words: &[&str], code| {
        let from = format!("latest:{}", place.source().display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env_clear().env("HOME", place.at("home")).env("LIFEBOAT_PASSWORD", "right");
        command.env("LIFEBOAT_REPOSITORY", place.at("repository"));
        command.args([words[0], &from, "--target"]).arg(&copy).args(&words[1..]);
        let output = command.output().unwrap();
        let (out, err) = world::texts(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?} {out}{err}");
        out
    };
    ends(&["restore", "--verify"], 0);
    ends(&["restore", "--verify", "--delete"], 0);
    // What only compares changes nothing, and so sees nothing.
    ends(&["verify"], 1);
    assert_eq!((mode(&copy), fs::read_dir(&copy).is_err()), (0o300, true));
    set_mode(&copy, 0o700);
    for (name, wanted) in [modes[3], modes[1], modes[0], modes[2]] {
        assert_eq!(mode(&copy.join(name)), wanted, "{name}");
        set_mode(&copy.join(name), 0o700);
    }
    open();
    fs::write(copy.join("closed/in/deep/file"), "FILE").unwrap();
    modes.iter().for_each(|(name, mode)| set_mode(&copy.join(name), *mode));
    let out = ends(&["restore", "--verify", "--overwrite", "never"], 6);
    let birth = |line: &str| line.starts_with("note: the birth times of ");
    let refused = out.lines().any(|line| line.contains("cannot") && !birth(line));
    assert!(out.contains("closed/in/deep/file: these bytes differ") && !refused, "{out}");
    open();
}

#[test]
fn what_verify_did_not_read_is_not_counted_as_compared() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    fs::write(world.path("src/one"), "longer than before").unwrap();
    fs::remove_file(world.path("src/deep/two")).unwrap();
    let said = |arguments: &[&str]| {
        let (out, _) = world.ends(&mut world.command(arguments), 6);
        out
    };
    assert!(
        said(&["verify", "latest"]).contains("0 files are as in snapshot"),
        "{}",
        said(&["verify", "latest"])
    );
    assert!(said(&["verify", "latest"]).contains(", 0 B compared"), "{}", said(&["verify", "latest"]));
    fs::write(world.path("src/one"), "First").unwrap();
    assert!(said(&["verify", "latest"]).contains(", 5 B compared"));
}

/// What a backup with these leaves out.
const RULES: [&str; 5] =
    ["--exclude-caches", "--exclude-if-present", ".nobackup", "--exclude-larger-than", "4k"];

#[test]
fn what_the_backup_left_out_by_its_other_rules_stays_and_is_no_difference() {
    let world = World::with_repository();
    let put = |name: &str, bytes: &[u8]| {
        fs::create_dir_all(world.path(name).parent().unwrap()).unwrap();
        fs::write(world.path(name), bytes).unwrap();
    };
    // A source is backed up whatever is in it.
    put("src/.nobackup", b"");
    let tag = b"Signature: 8a477f597d28d172789f06886806bc55";
    put("src/cache/CACHEDIR.TAG", tag);
    let left_out = ["src/cache/a", "src/cache/sub/b", "src/build/o", "src/big"];
    left_out.iter().for_each(|name| put(name, &[7; 5000]));
    put("src/build/.nobackup", b"");
    let from = format!("latest:{}", world.text("src"));
    let with = |words: &[&str], rules: &[&str]| -> Vec<String> {
        words.iter().chain(rules).map(|&word| word.to_owned()).collect()
    };
    let ends = |words: &[String], code| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (out, err) = world.ends(&mut world.command(&words), code);
        out + &err
    };
    ends(&with(&["backup", "src"], &RULES), 0);
    ends(&with(&["verify", &from, "--target", "src"], &RULES), 0);
    assert_eq!(
        ends(&with(&["verify", &from, "--target", "src"], &[]), 6).matches("does not have").count(),
        4
    );
    // Later, in the same way.
    let later = ["src/new/cache/CACHEDIR.TAG", "src/new/cache/a", "src/new/big", "src/new/x", "src/z"];
    put(later[0], tag);
    later[1..3].iter().for_each(|name| put(name, &[7; 5000]));
    later[3..].iter().for_each(|name| put(name, b"small"));
    let told = ends(&with(&["verify", &from, "--target", "src"], &RULES), 6);
    let is_told = |name: &str| told.contains(&format!("{}: the snapshot does not have", world.text(name)));
    assert_eq!(later.map(is_told), [false, false, false, true, true], "{told}");
    let restore = ["restore", &from, "--target", "src", "--delete", "--verify"];
    let plan = ends(&with(&["restore", &from, "--target", "src", "--delete", "--plan"], &RULES), 0);
    assert_eq!(plan.lines().filter(|line| line.starts_with("- ")).count(), 2, "{plan}");
    ends(&with(&restore, &RULES), 0);
    let is_there = |name: &&str| world.path(name).try_exists().unwrap();
    assert!(left_out.iter().all(is_there));
    assert_eq!(later.iter().map(is_there).collect::<Vec<_>>(), [true, true, true, false, false]);
    // Asked for by its own path.
    let cache = format!("{from}/cache");
    ends(&with(&["restore", &cache, "--target", "src/cache", "--delete"], &RULES[..1]), 0);
    assert!(left_out.iter().all(is_there));
    assert!(ends(&with(&restore[..4], &RULES), 2).contains("what --delete keeps"));
    ends(&with(&restore, &[]), 0);
    assert!(!left_out.iter().any(is_there));
}

#[test]
fn what_a_killed_restore_left_is_no_difference_and_a_folder_of_such_a_name_is_one() {
    let place = Place::new(1);
    place.put("deep/file", b"file");
    place.back_up(&place.options());
    place.put("deep/.lifeboat-0123456789abcdef.partial", b"half");
    place.put("deep/.lifeboat-fedcba9876543210.partial/in it", b"of somebody");
    let repository = place.open();
    let verify =
        || verify::run(&repository, &place.newest(&repository), None, &VerifyOptions::default()).unwrap();
    let done = verify();
    assert_eq!(done.extra, 1, "{:?}", done.differences);
    let notes: Vec<String> = done.notes.iter().map(|(_, note)| note.to_string()).collect();
    assert!(notes.len() == 1 && notes[0].contains("the next restore"), "{notes:?}");
    let subpath = place.source().to_str().unwrap().trim_start_matches('/').into();
    let options = RestoreOptions { subpath, ..deleting() };
    let source = place.source();
    assert_eq!(forecast(&place, source.to_str().unwrap(), &options).restored.removals, 2);
    assert_eq!(place.restore_with(source.to_str().unwrap(), &options).removals, 2);
    assert_eq!(fs::read_dir(source.join("deep")).unwrap().count(), 1);
    assert_eq!((verify().differing, verify().notes), (0, Vec::new()));
}

#[test]
fn a_file_that_keeps_its_older_spelling_is_not_taken_for_extra() {
    let world = World::with_repository();
    fs::write(world.path("src/File"), "a file").unwrap();
    fs::create_dir(world.path("t")).unwrap();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    let folds = "mount -t tmpfs -o casefold none t && mkdir t/t && chattr +F t/t";
    if !among_mounts(&world, folds, &["--version"]).output().is_ok_and(|output| output.status.success()) {
        skip("other spellings: no file system here takes two spellings for one name");
        return;
    }
    let mounts = format!("{folds} && echo older > t/t/file && mkdir t/t/DEEP && touch t/t/extra && unset A");
    let restore = ["restore", &from, "--target", "t/t", "--delete", "--verify", "-v"];
    let (out, err) = world.ends(&mut among_mounts(&world, &mounts, &restore), 0);
    assert_eq!(out.lines().filter(|line| line.starts_with("- ")).count(), 1, "{out}{err}");
}

fn is_immutable(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let status = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).unwrap();
    status.stx_attributes.contains(StatxAttributes::IMMUTABLE)
}

/// Gives it a time long ago; a link is not followed.
fn age(path: &Path) {
    let done = Command::new("touch").args(["-h", "-d", "2020-01-01 00:00:00"]).arg(path).status().unwrap();
    assert!(done.success(), "{}", path.display());
}

#[test]
fn what_has_names_elsewhere_is_never_frozen_for_them() {
    let place = Place::new(1);
    let (all, firsts) = (["f", "large", "twin", "twin-too"], ["f", "large", "twin"]);
    for name in firsts {
        place.put(name, &noise(1, if name == "large" { LARGE } else { 10 }));
    }
    fs::hard_link(place.source().join("twin"), place.source().join("twin-too")).unwrap();
    if !firsts.iter().all(|name| chattr("+i", &place.source().join(name))) {
        skip("names elsewhere: nothing can be made immutable here");
        return;
    }
    place.back_up(&place.options());
    thaw(&place.source());
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::Never] {
        let target = format!("{overwrite:?}");
        place.restore(&target, "", &[]);
        let copy = place.copy(&target);
        thaw(&copy);
        // As `cp -al` makes them.
        let elsewhere = place.at(&format!("farm of {target}"));
        fs::create_dir(&elsewhere).unwrap();
        firsts.iter().for_each(|name| fs::hard_link(copy.join(name), elsewhere.join(name)).unwrap());
        fs::remove_file(copy.join("twin-too")).unwrap();
        let options = RestoreOptions { overwrite, ..RestoreOptions::default() };
        let done = place.restore_with(&target, &options);
        let frozen = (
            firsts.map(|name| is_immutable(&elsewhere.join(name))),
            all.map(|name| is_immutable(&copy.join(name))),
        );
        let again = place.restore_with(&target, &options);
        thaw(place.folder.path());
        same(&place.source(), &copy);
        let comes = overwrite != Overwrite::Never;
        assert_eq!(frozen, ([false; 3], [comes; 4]), "{overwrite:?}: {:?}", done.notes);
        // What is left alone may be given a further name, and nothing else.
        let unset = u64::from(!comes);
        assert_eq!(
            (done.failures, done.unset),
            (0, unset),
            "{overwrite:?}: {:?} {:?}",
            done.failed,
            done.notes
        );
        assert_eq!(
            (again.failures, again.unset),
            (0, 0),
            "{overwrite:?}: {:?} {:?}",
            again.failed,
            again.notes
        );
        if !comes {
            let (_, note) = done.notes.iter().find(|(_, note)| note.is_unset()).unwrap();
            assert!(note.to_string().contains("names elsewhere"), "{note}");
        }
    }
}

#[test]
fn what_a_killed_restore_has_not_frozen_yet_is_frozen_with_its_last_name_under_any_policy() {
    let place = Place::new(1);
    let names = ["one", "three", "two"];
    place.put("one", b"right");
    names[1..]
        .iter()
        .for_each(|name| fs::hard_link(place.source().join("one"), place.source().join(name)).unwrap());
    if !chattr("+i", &place.source().join("one")) {
        skip("further names: nothing can be made immutable here");
        return;
    }
    place.back_up(&place.options());
    thaw(&place.source());
    for overwrite in [Overwrite::Always, Overwrite::Never] {
        let target = format!("{overwrite:?}");
        place.restore(&target, "", &[]);
        let copy = place.copy(&target);
        thaw(&copy);
        fs::remove_file(copy.join("two")).unwrap();
        let options = RestoreOptions { overwrite, ..RestoreOptions::default() };
        let done = place.restore_with(&target, &options);
        let is =
            names.map(|name| (is_immutable(&copy.join(name)), fs::metadata(copy.join(name)).unwrap().ino()));
        thaw(place.folder.path());
        assert!(is[0].0 && is == [is[0]; 3], "{overwrite:?}: {is:?}");
        assert_eq!((done.failures, done.unset), (0, 0), "{overwrite:?}: {:?} {:?}", done.failed, done.notes);
    }
}

#[test]
fn what_is_mounted_on_a_file_keeps_the_flags_that_it_has() {
    if no_mounts() {
        return;
    }
    let world = World::with_repository();
    if !chattr("+i", &world.path("src/one")) {
        skip("a mount with flags: nothing can be made immutable here");
        return;
    }
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    ["same", "t"].iter().for_each(|target| drop(world.does(&["restore", &from, "--target", target])));
    thaw(&world.path(""));
    let files = ["one", "deep/two"];
    assert!(chattr("+i", &world.path("same/deep/two")));
    let mounts = "mount --bind same/one t/one && mount --bind same/deep/two t/deep/two";
    let mut said = Vec::new();
    for more in [&["--plan"][..], &[], &["--overwrite", "if-changed"]] {
        let restore = [&["restore", &from, "--target", "t"], more].concat();
        said.push(among_mounts(&world, mounts, &restore).output().unwrap());
    }
    let frozen = files.map(|name| is_immutable(&world.path("same").join(name)));
    thaw(&world.path(""));
    assert_eq!(frozen, [false, true], "{said:?}");
    for output in said {
        let (out, err) = world::texts(&output);
        assert_eq!(output.status.code(), Some(3), "{out}{err}");
        for name in files {
            assert!(err.contains(&format!("something is mounted on {name}. Unmount it")), "{out}{err}");
        }
    }
}

#[test]
fn what_comes_while_a_restore_is_at_work_is_not_lost_to_it_where_newer_files_are_to_stay() {
    let place = Arc::new(Place::new(1));
    let names = ["a", "b", "c", "large"];
    names.iter().for_each(|name| place.put(name, &noise(1, if *name == "large" { LARGE } else { 10 })));
    place.back_up(&place.options());
    for (overwrite, target) in [(Overwrite::IfNewer, "newer"), (Overwrite::Always, "always")] {
        let copy = place.copy(target);
        fs::create_dir_all(&copy).unwrap();
        names
            .iter()
            .filter(|name| **name != "c")
            .for_each(|name| fs::write(copy.join(name), "older").unwrap());
        std::os::unix::fs::symlink("older", copy.join("c")).unwrap();
        names.iter().for_each(|name| age(&copy.join(name)));
        let at = copy.clone();
        let other = move || {
            let is_begun =
                |entry: fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".lifeboat-");
            let begun = fs::read_dir(&at).unwrap().any(|entry| is_begun(entry.unwrap()));
            // What was judged is not written yet, but for the first.
            for name in names.iter().skip(1).filter(|_| begun) {
                fs::remove_file(at.join(name)).unwrap_or_default();
                fs::write(at.join(name), "newer").unwrap();
            }
            begun
        };
        let repository = place.open_at(Arc::new(Other(AtomicBool::new(false), other)));
        let options = RestoreOptions { overwrite, ..RestoreOptions::default() };
        let done =
            restore::run(&repository, &place.newest(&repository), &place.at(target), &options).unwrap();
        if overwrite == Overwrite::Always {
            assert_eq!(done.failures, 0, "{:?}", done.failed);
            same(&place.source(), &copy);
            continue;
        }
        assert_eq!(fs::read(copy.join("a")).unwrap(), fs::read(place.source().join("a")).unwrap());
        for name in &names[1..] {
            assert_eq!(fs::read_to_string(copy.join(name)).unwrap(), "newer", "{name}");
            let of = |(path, error): &(Vec<u8>, lifeboat::error::Error)| {
                path.ends_with(format!("/{name}").as_bytes()) && error.to_string().contains("meanwhile")
            };
            assert!(done.failed.iter().any(of), "{name}: {:?}", done.failed);
        }
        let again = place.restore_with(target, &options);
        assert_eq!((done.failures, again.failures, again.left), (3, 0, 4), "{:?}", again.failed);
    }
}

#[test]
fn a_plan_for_a_target_that_is_a_link_to_nothing_fails_as_the_restore_does() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    std::os::unix::fs::symlink("nowhere", world.path("link")).unwrap();
    for target in ["link", "link/in/it"] {
        let restore = ["restore", "latest", "--target", target];
        let (planned, fails) =
            (world.fails(&[&restore[..], &["--plan"]].concat(), 1), world.fails(&restore, 1));
        assert_eq!(planned, fails);
        assert!(fails.contains("a link to nothing stands there"), "{fails}");
    }
}

#[test]
fn a_plan_looks_at_the_folder_that_the_target_is_made_in_and_at_no_other() {
    if ordinary::is_done_as_ordinary_user(
        "a_plan_looks_at_the_folder_that_the_target_is_made_in_and_at_no_other",
    ) {
        return;
    }
    let place = Place::new(1);
    place.put("file", b"a file");
    place.back_up(&place.options());
    // It may be written to and not be read, in one that may not be written to; and the other way about.
    for (outer, inner, may) in [(0o500, 0o300, true), (0o700, 0o100, false)] {
        let above = place.at(&format!("{outer:o}"));
        fs::create_dir_all(above.join("in")).unwrap();
        set_mode(&above.join("in"), inner);
        set_mode(&above, outer);
        let target = format!("{outer:o}/in/new/er");
        let denied = forecast(&place, &target, &RestoreOptions::default()).denied;
        let repository = place.open();
        let done = restore::run(
            &repository,
            &place.newest(&repository),
            &place.at(&target),
            &RestoreOptions::default(),
        );
        set_mode(&above, 0o700);
        set_mode(&above.join("in"), 0o700);
        assert_eq!((denied.is_none(), done.is_ok()), (may, may), "{outer:o}");
    }
}

#[test]
fn a_folder_that_cannot_be_looked_through_does_not_end_the_delete() {
    use std::os::unix::{fs::chown, process::CommandExt};
    const ORDINARY: u32 = 23_456;
    let world = World::with_repository();
    for name in ["src/closed", "src/later"] {
        fs::create_dir(world.path(name)).unwrap();
    }
    set_mode(&world.path("src/later"), 0o750);
    world.does(&["backup", "src"]);
    fs::create_dir_all(world.path("t/later/extra")).unwrap();
    fs::create_dir(world.path("t/closed")).unwrap();
    let is_root = ["", "t", "t/later", "t/later/extra"]
        .map(|name| chown(world.path(name), Some(ORDINARY), Some(ORDINARY)));
    if is_root.iter().any(Result::is_err) {
        skip("a folder of somebody else: this user can give nothing away");
        return;
    }
    let whole = Command::new("chown")
        .args(["-R", &format!("{ORDINARY}:{ORDINARY}")])
        .arg(world.path("repo"))
        .status();
    let home = Command::new("chown")
        .args(["-R", &format!("{ORDINARY}:{ORDINARY}")])
        .arg(world.path("home"))
        .status();
    assert!(whole.unwrap().success() && home.unwrap().success());
    // What is in it is listed, and nothing tells what it is.
    fs::write(world.path("t/closed/.lifeboat-0123456789abcdef.partial"), "").unwrap();
    set_mode(&world.path("t/closed"), 0o744);
    let from = format!("latest:{}", world.text("src"));
    let mut restore = world.command(&["restore", &from, "--target", "t", "--delete", "--no-ownership"]);
    let (out, err) = world.ends(restore.uid(ORDINARY).gid(ORDINARY), 3);
    let closed = format!("{}: ", world.text("src/closed"));
    assert!(err.lines().any(|line| line.contains(&closed) && line.contains("ermission")), "{out}{err}");
    assert!(!world.path("t/later/extra").exists(), "{out}{err}");
    assert_eq!(mode(&world.path("t/later")), 0o750, "{out}{err}");
}
