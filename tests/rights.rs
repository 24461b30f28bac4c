//! What a restore may do, root or not: a plan by the same process foresees what the restore meets, whichever of root's rights it
//! lacks.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

use rustix::fs::{XattrFlags, lsetxattr};

use self::{
    skip::skip,
    world::{PASSPHRASE, World, objects, texts},
};

#[path = "support/skip.rs"]
mod skip;
#[path = "support/world.rs"]
mod world;

/// A number that is nobody's.
const OTHER: u32 = 23_456;
/// What may be run as: the words before the program.
const ALL: &[&[&str]] = &[
    &["env"],
    &["unshare", "-r"],
    &["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"],
    &["setpriv", "--bounding-set=-chown"],
    &["setpriv", "--bounding-set=-dac_override"],
    &["setpriv", "--bounding-set=-fowner"],
    &["setpriv", "--bounding-set=-setfcap"],
    &["setpriv", "--bounding-set=-mknod"],
    &["setpriv", "--bounding-set=-linux_immutable"],
    &["setpriv", "--bounding-set=-sys_admin"],
];

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn done(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

/// Lets everything below a folder be changed again.
fn thaw(root: &Path) {
    Command::new("chattr").args(["-R", "-i"]).arg(root).output().unwrap();
}

/// A world whose source has of everything that takes a right; `None` where not all of it can be made.
fn of_everything() -> Option<World> {
    if !rustix::process::geteuid().is_root() {
        skip("what a restore may do: only root can make everything");
        return None;
    }
    let world = World::with_repository();
    let source = world.path("src");
    for name in ["owned", "setuid", "trusted", "capable", "frozen", "closed/in", "of-other/in"] {
        fs::create_dir_all(source.join(name).parent().unwrap()).unwrap();
        fs::write(source.join(name), name).unwrap();
    }
    for name in ["", "owned", "of-other", "of-other/in", "setuid"] {
        chown(source.join(name), Some(OTHER), Some(OTHER)).unwrap();
    }
    set_mode(&source.join("owned"), 0o640);
    set_mode(&source.join("setuid"), 0o4755);
    set_mode(&source.join("closed"), 0o500);
    let set = |name: &str, attribute: &str, value: &[u8]| {
        lsetxattr(source.join(name), attribute, value, XattrFlags::empty()).is_ok()
    };
    // `cap_net_raw`, as `setcap` writes it.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let is_all = set("trusted", "trusted.a", b"1")
        && set("owned", "user.a", b"1")
        && set("capable", "security.capability", &capability)
        && done(Command::new("mknod").arg(source.join("device")).args(["c", "1", "3"]))
        && done(Command::new("chattr").arg("+i").arg(source.join("frozen")));
    if is_all {
        world.does(&["backup", "src"]);
    }
    thaw(&source);
    if !is_all {
        skip("what a restore may do: a device, a flag or an attribute cannot be made here");
        return None;
    }
    set_mode(world.folder.path(), 0o755);
    assert!(done(Command::new("chmod").args(["-R", "a+rX"]).arg(world.path("repo"))));
    Some(world)
}

/// A code, what is said of each entry, and the remedy at the end.
type Troubles = (Option<i32>, Vec<String>, String);

/// What is said of each entry by a restore into `target`.
fn troubles(world: &World, (by, target): (&[&str], &str), more: &[&str]) -> Troubles {
    let source = format!("latest:{}", world.text("src"));
    let mut command = Command::new(by[0]);
    command.args(&by[1..]).arg(env!("CARGO_BIN_EXE_lifeboat"));
    command.args(["--no-cache", "--json", "restore", &source, "--target", target]).args(more);
    command.env_clear().current_dir(world.path("")).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("LIFEBOAT_REPOSITORY", world.path("repo")).env("LIFEBOAT_PASSWORD", PASSPHRASE);
    let output = command.output().unwrap();
    let (out, err) = texts(&output);
    let (mut named, mut end) = (Vec::new(), String::new());
    for message in objects(&(out + &err)) {
        let path = message["path"].as_str().unwrap_or_default().strip_prefix(&world.text("src"));
        match message["message_type"].as_str() {
            Some("error" | "note") => {
                named.push(format!("{}: {}", path.unwrap_or("all"), message["message"].as_str().unwrap()));
            }
            Some("exit_error") => end = message.to_string(),
            _ => {}
        }
    }
    named.sort();
    named.dedup();
    (output.status.code(), named, end)
}

#[test]
fn a_plan_foresees_what_whoever_restores_may_not() {
    let Some(world) = of_everything() else { return };
    let mut wrong = Vec::new();
    for (number, by) in ALL.iter().enumerate() {
        let (target, beside) = (format!("t{number}"), world.path(&format!("beside{number}")));
        let at = world.path(&target);
        fs::create_dir(&at).unwrap();
        let us = if by.contains(&"--reuid=1000") { 1000 } else { 0 };
        let ours = || chown(&at, Some(us), Some(us)).unwrap();
        let both = || [&["--plan"][..], &[]].map(|more| troubles(&world, (by, &target), more));
        ours();
        let [plan, met] = both();
        // Again, over what is there: of it something is in a folder that is closed, and something is frozen and has another name.
        ours();
        thaw(&at);
        fs::hard_link(at.join("frozen"), &beside).unwrap();
        ["closed/in", "frozen"].iter().for_each(|name| fs::write(at.join(name), "another").unwrap());
        let is_frozen = done(Command::new("chattr").arg("+i").arg(&beside));
        let [again, met_again] = both();
        [&at, &beside].iter().for_each(|path| thaw(path));
        assert!(is_frozen);
        let expected = if *by == ["env"] { 0 } else { 3 };
        let is_foreseen = (plan.0, &plan.1) == (met.0, &met.1) && met.0 == Some(expected);
        // That something is frozen each says in other words.
        let paths = |(_, lines, _): &Troubles| -> Vec<String> {
            lines.iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect()
        };
        let is_foreseen_again = (again.0, paths(&again)) == (met_again.0, paths(&met_again));
        let is_there = fs::read(at.join("closed/in")).is_ok_and(|bytes| bytes == b"closed/in");
        // Who may give nothing away does not say that the target is given away.
        let gives = !["-r", "--reuid=1000", "--bounding-set=-chown"].iter().any(|word| by.contains(word));
        let is_true = gives == met_again.1.iter().any(|line| line.contains("is given 23456:23456"));
        let is_advised = !met.2.contains("another file system");
        if !(is_foreseen && is_foreseen_again && is_there && is_true && is_advised) {
            let which = (is_foreseen, is_foreseen_again, is_there, is_true, is_advised);
            wrong.push(format!("{by:?} {which:?}: {plan:#?} {met:#?}; again: {again:#?} {met_again:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
