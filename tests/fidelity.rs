//! Whatever a Linux file system holds comes back as it was; what cannot be set is told.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    os::unix::{
        fs::{FileExt, MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use lifeboat::{
    error::Result,
    format::entry::{Content, Entry, EntryKind, Metadata},
    ops::{
        backup::{self, BackupOptions, Item, Reuse, Source, Unchanged},
        restore::RestoreOptions,
    },
};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use serde_json::Value;

use self::{
    corpus::{Seen, differences, look},
    place::{Place, noise},
    skip::skip,
    world::{World, objects},
};

#[path = "support/corpus.rs"]
mod corpus;
#[path = "support/place.rs"]
mod place;
#[path = "support/skip.rs"]
mod skip;
#[path = "support/world.rs"]
mod world;

/// Nobody in particular.
const ORDINARY: u32 = 65534;

/// What of the corpus nobody but root may make.
const ROOTS_ALONE: [&str; 14] = [
    "a character device",
    "a block device",
    "trusted.for root of attributes/folder/file",
    "security.label of attributes/folder/file",
    "trusted.of a link of attributes/folder/link",
    "trusted.of a pipe of attributes/folder/pipe",
    "security.capability of attributes/program",
    "the owner of owners/both",
    "the owner of owners/setuid",
    "the owner of owners/link",
    "flags 20 of flags/append",
    "flags 10 of flags/frozen/file",
    "flags 10 of flags/frozen/linked",
    "flags 10 of flags/frozen",
];

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A world whose source is the corpus, gone with its immutable files when it is dropped.
struct Furnished {
    world: World,
    not_made: Vec<String>,
}

impl Furnished {
    fn new() -> Self {
        let world = World::with_repository();
        let corpus = corpus::build(&world.path("corpus"));
        let not_made = corpus.not_made.into_iter().map(|(what, errno)| format!("{what}: {errno}")).collect();
        let furnished = Self { world, not_made };
        furnished.world.does(&["backup", "corpus"]);
        furnished
    }

    /// Restores the corpus itself into a folder.
    fn restore(&self, target: &str) -> PathBuf {
        let source = format!("latest:{}", self.world.text("corpus"));
        self.world.does(&["restore", &source, "--target", target, "--verify"]);
        self.world.path(target)
    }
}

impl Drop for Furnished {
    fn drop(&mut self) {
        corpus::remove(self.world.folder.path());
    }
}

/// A restore makes no sockets.
fn without_sockets(mut seen: Seen) -> Seen {
    seen.retain(|path, _| !path.ends_with(b"socket"));
    seen
}

#[test]
fn everything_that_a_file_system_holds_comes_back_as_it_was() {
    let furnished = Furnished::new();
    let before = look(&furnished.world.path("corpus"));
    let copy = furnished.restore("copy");
    let lost = differences(&without_sockets(before.clone()), &look(&copy));
    // Its own time changes when its entries are removed; nothing else was touched.
    assert_eq!(lost, Vec::<String>::new());
    assert_eq!(differences(&before, &look(&furnished.world.path("corpus"))), Vec::<String>::new());
    assert!(before.len() > 80, "{}", before.len());
    judge_with_rsync(&furnished.world.path("corpus"), &copy);
    // The same tree has the same manifest, whether it is read or taken from the backup before.
    for again in [
        &["backup", "corpus", "--skip-if-unchanged"][..],
        &["backup", "corpus", "--force", "--skip-if-unchanged"],
    ] {
        furnished.world.does(again);
        assert_eq!(furnished.world.snapshots(), 1, "{again:?}");
    }
    furnished.world.does(&["drill", "run", "--report", "report.json"]);
    furnished.world.does(&["check", "--read-data"]);
    // Else the test might have looked at next to nothing.
    let refused = ROOTS_ALONE.map(|what| format!("{what}: {}", rustix::io::Errno::PERM));
    let expected = if is_root() { &[] } else { &refused[..] };
    assert_eq!(furnished.not_made, expected);
}

/// Somebody who has never heard of us finds nothing to change either.
fn judge_with_rsync(source: &Path, copy: &Path) {
    let version = Command::new("rsync").arg("--version").output();
    let able = version.is_ok_and(|out| {
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.contains(" ACLs")
            && text.contains(" xattrs")
            && !text.contains("no ACLs")
            && !text.contains("no xattrs")
    });
    if !able {
        skip("rsync as a judge: there is no rsync with ACLs and attributes");
        return;
    }
    let judge = || {
        let mut rsync = Command::new("rsync");
        rsync.args(["-aHAXn", "--checksum", "--delete", "--itemize-changes"]);
        let output = rsync.arg(source.join("")).arg(copy.join("")).output().unwrap();
        let (out, err) = world::texts(&output);
        assert!(output.status.success() && err.is_empty(), "{:?}: {err}", output.status);
        let lines = out.lines().filter(|line| !line.ends_with("specials/socket")).map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    assert_eq!(judge(), Vec::<String>::new());
    // One that finds nothing is only worth something if it finds what is there: the same size and time, other content.
    let file = copy.join("files/small");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    let content = fs::read(&file).unwrap();
    let write = |content: &[u8]| {
        let open = fs::File::options().write(true).open(&file).unwrap();
        open.write_all_at(content, 0).unwrap();
        open.set_modified(modified).unwrap();
    };
    write(&content.iter().map(|byte| byte ^ 1).collect::<Vec<_>>());
    let found = judge();
    assert!(found.iter().any(|line| line.starts_with(">fc") && line.ends_with("files/small")), "{found:?}");
    write(&content);
    assert_eq!(judge(), Vec::<String>::new());
}

#[test]
fn an_ordinary_user_has_the_same_of_what_they_may_own() {
    if !is_root() {
        skip("as an ordinary user: this is one already");
        return;
    }
    let mut this = Command::new(std::env::current_exe().unwrap());
    this.args(["--exact", "everything_that_a_file_system_holds_comes_back_as_it_was", "--nocapture"]);
    let output = this.uid(ORDINARY).gid(ORDINARY).output().unwrap();
    let (out, err) = world::texts(&output);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "{out}");
}

/// What belongs to the ordinary user, beside the rest of the corpus, and a backup of all of it that they may read.
fn make_theirs(world: &World) {
    let mine = "umask 022; cd corpus/mine && mkdir -p read-only/below setgid sticky no-list \
        && for folder in read-only/below setgid sticky no-list; do echo x > $folder/file; done \
        && chmod 444 read-only/below/file && chmod 555 read-only/below read-only && chmod 2775 setgid \
        && chmod 1777 sticky && chmod 311 no-list && ln setgid/file sticky/linked \
        && ln no-list/file to-no-list && mkfifo setgid/pipe";
    fs::create_dir(world.path("corpus/mine")).unwrap();
    for path in [world.folder.path(), &world.path("corpus"), &world.path("corpus/mine")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    chown(world.path("corpus/mine"), Some(ORDINARY), Some(ORDINARY)).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", mine]).current_dir(world.folder.path()).uid(ORDINARY).gid(ORDINARY);
    assert!(shell.status().unwrap().success());
    let read_only = world.path("corpus/mine/read-only/below/file");
    lsetxattr(&read_only, "user.kept", b"1", XattrFlags::empty()).unwrap_or_default();
    world.does(&["backup", "corpus"]);
    let mut give = Command::new("chown");
    assert!(give.args(["-R", &ORDINARY.to_string()]).arg(world.path("repo")).status().unwrap().success());
    fs::create_dir(world.path("theirs")).unwrap();
    chown(world.path("theirs"), Some(ORDINARY), Some(ORDINARY)).unwrap();
}

/// Restores the corpus as the ordinary user: the exit code, the messages, where it is.
fn restore_as_ordinary(world: &World, target: &str, more: &[&str]) -> (Option<i32>, Vec<Value>, PathBuf) {
    let source = format!("latest:{}", world.text("corpus"));
    let target = world.text(&format!("theirs/{target}"));
    let arguments = [&["--no-cache", "--json", "restore", &source, "--target", &target], more].concat();
    let output = world.command(&arguments).uid(ORDINARY).gid(ORDINARY).output().unwrap();
    let (out, err) = world::texts(&output);
    assert!(!err.contains("panicked"), "{err}");
    (output.status.code(), objects(&out), PathBuf::from(target))
}

/// Whether a note about this entry says so.
fn told(messages: &[Value], path: &str, what: &str) -> bool {
    messages.iter().any(|message| {
        message["message_type"] == "note"
            && message["path"].as_str().is_some_and(|told| told.ends_with(&format!("corpus/{path}")))
            && message["message"].as_str().is_some_and(|text| text.contains(what))
    })
}

#[test]
fn what_an_ordinary_user_cannot_set_is_one_line_each_and_every_content_is_exact() {
    if !is_root() {
        skip("another user's backup: only root can make one");
        return;
    }
    let furnished = Furnished::new();
    let world = &furnished.world;
    make_theirs(world);
    let (code, messages, copy) = restore_as_ordinary(world, "all", &[]);
    assert_eq!(code, Some(3), "{messages:?}");
    let before = without_sockets(look(&world.path("corpus")));
    let mut lost = differences(&before, &look(&copy));
    let devices = |line: &String| line.contains("missing") && line.starts_with("specials/");
    lost.retain(|line| !devices(line));
    let never = |line: &&String| {
        let of = |what: &str| line.contains(&format!(": {what}: "));
        of("content")
            || of("size")
            || of("extents")
            || of("time")
            || of("target")
            || of("first name")
            || line.starts_with("mine")
    };
    let wrong: Vec<&String> =
        lost.iter().filter(never).filter(|line| !line.starts_with("specials")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Each property that is lost has its line: of a file with several names, at one of them.
    let told = |path: &str, what: &str| told(&messages, path, what);
    let names = |path: &str| {
        let first = before.get(path.as_bytes()).and_then(|entry| entry.get("first name"));
        let same = before.iter().filter(|(name, entry)| {
            **name == path.as_bytes() || first.is_some() && entry.get("first name") == first
        });
        same.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
    };
    for line in &lost {
        let (path, rest) = line.split_once(": ").unwrap();
        let what = match rest.split(": ").next().unwrap() {
            "owner" => "owner",
            "mode" => "setuid or setgid",
            "attributes" if path.ends_with("program") => "capabilities",
            "attributes" => "attribute",
            "flags" => "flag",
            other => panic!("{other}: {line}"),
        };
        // The folder itself is the target, and of what is no text only other bytes are shown.
        let odd = path.is_empty() || path.contains('\u{fffd}');
        assert!(odd || names(path).iter().any(|name| told(name, what)), "{line}");
    }
    assert!(told("attributes/folder/link", "trusted.of a link"), "{messages:?}");
    assert!(told("specials/socket", "a socket is not restored"));
    let summary = messages.iter().find(|message| message["message_type"] == "summary").unwrap();
    assert!(summary["unset"].as_u64().unwrap() > 10, "{summary}");
    // Who does not want the owners is not told of them, and what is theirs is complete.
    let (code, messages, copy) = restore_as_ordinary(world, "mine", &["--no-ownership", "--include", "mine"]);
    assert_eq!(code, Some(0), "{messages:?}");
    let mine = |root: &Path| look(&root.join("mine"));
    let exact = || assert_eq!(differences(&mine(&world.path("corpus")), &mine(&copy)), Vec::<String>::new());
    exact();
    // Again, into folders that they may not write to, and over what they may only read.
    let spoil: [&dyn Fn(); 3] =
        [&|| {}, &|| fs::remove_file(copy.join("mine/read-only/below/file")).unwrap(), &|| {
            fs::write(copy.join("mine/no-list/file"), "another").unwrap()
        }];
    for spoil in spoil {
        spoil();
        let (code, messages, _) =
            restore_as_ordinary(world, "mine", &["--no-ownership", "--include", "mine"]);
        assert_eq!(code, Some(0), "{messages:?}");
        exact();
    }
    closed_folders_are_opened_up_for_as_long_as_it_takes(world);
}

/// What an ordinary user may not look into though it is theirs: a folder that stays, and the target itself.
fn closed_folders_are_opened_up_for_as_long_as_it_takes(world: &World) {
    let source = format!("latest:{}", world.text("corpus/mine"));
    let target = world.path("theirs/alone");
    let ends = |more: &[&str], code| {
        let restore =
            ["--no-cache", "restore", &source, "--target", target.to_str().unwrap(), "--no-ownership"];
        world.ends(world.command(&[&restore[..], more].concat()).uid(ORDINARY).gid(ORDINARY), code)
    };
    let restore = |more: &[&str]| ends(more, 0);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let close = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
    let exact = || {
        let lost = differences(&look(&world.path("corpus/mine")), &look(&target));
        assert_eq!(lost, Vec::<String>::new());
    };
    restore(&[]);
    exact();
    close(&target);
    restore(&[]);
    exact();
    // Nothing of it is meant, so nothing gives it another mode.
    close(&target);
    ends(&["--exclude", "*"], 1);
    assert_eq!(mode(&target), 0);
    // Of what is removed something stays, two folders deep.
    let mut shell = Command::new("sh");
    let make = "chmod u+rwx $0 && cd $0/setgid && mkdir -p extra/deep && touch extra/go extra/deep/keep \
        && chmod 500 extra/deep && chmod 505 extra";
    shell.args(["-c", make]).arg(&target).current_dir("/").uid(ORDINARY).gid(ORDINARY);
    assert!(shell.status().unwrap().success());
    restore(&["--delete", "--exclude", "keep"]);
    let extra = target.join("setgid/extra");
    assert!(extra.join("deep/keep").try_exists().unwrap() && !extra.join("go").try_exists().unwrap());
    assert_eq!((mode(&extra) & 0o777, mode(&extra.join("deep")) & 0o777), (0o505, 0o500));
    restore(&["--delete"]);
    exact();
}

/// The failures and notes, and the code, of a restore into `target` as the ordinary user.
fn troubles(world: &World, target: &str, more: &[&str]) -> (Option<i32>, Vec<String>, Value) {
    let (source, target) = (format!("latest:{}", world.text("src")), world.text(target));
    let arguments = [&["--no-cache", "--json", "restore", &source, "--target", &target], more].concat();
    let output = world.command(&arguments).uid(ORDINARY).gid(ORDINARY).output().unwrap();
    let (out, err) = world::texts(&output);
    let messages = objects(&(out + &err));
    let mut named = Vec::new();
    for message in &messages {
        let path = message["path"].as_str().unwrap_or_default().strip_prefix(&world.text("src"));
        if matches!(message["message_type"].as_str(), Some("error" | "note" | "exit_error")) {
            named.push(format!("{}: {}", path.unwrap_or("of all"), message["message"].as_str().unwrap()));
        }
    }
    named.sort();
    let summary = messages.into_iter().find(|message| message["message_type"] == "summary");
    (output.status.code(), named, summary.unwrap_or_default())
}

#[test]
fn a_plan_foresees_what_an_ordinary_user_may_not_write() {
    if !is_root() {
        skip("another user's target: only root can make one");
        return;
    }
    let world = World::with_repository();
    for (path, content) in [("theirs/old", "old"), ("given/new", "new"), ("given/deep/in/new", "new")] {
        fs::create_dir_all(world.path("src").join(path).parent().unwrap()).unwrap();
        fs::write(world.path("src").join(path), content).unwrap();
    }
    fs::hard_link(world.path("src/theirs/old"), world.path("src/zz")).unwrap();
    let give = |path: &str| give(&world, path);
    give("src");
    world.does(&["backup", "src"]);
    give("repo");
    fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The folder itself is theirs, `given` is not; in `theirs` something is to go out of a folder that is not.
    for path in ["t/theirs/extra/root", "t/given", "t/deep", "empty"] {
        fs::create_dir_all(world.path(path)).unwrap();
    }
    fs::write(world.path("t/theirs/extra/root/stays"), "").unwrap();
    fs::write(world.path("t/theirs/old"), "another").unwrap();
    give("t");
    for path in ["t/given", "t/theirs/extra/root"] {
        chown(world.path(path), Some(0), Some(0)).unwrap();
    }
    let (code, planned, summary) = troubles(&world, "t", &["--delete", "--plan"]);
    let says = |line: &str| planned.iter().any(|told| told.starts_with(line));
    for path in ["/given/new", "/given/deep", "/given/deep/in", "/given/deep/in/new"] {
        assert!(says(&format!("{path}: given cannot be written to by this user")), "{path}: {planned:#?}");
    }
    assert!(
        says(&format!("/theirs/extra: {}/theirs/extra/root/stays is in a folder", world.text("src"))),
        "{planned:#?}"
    );
    assert!(says(&format!("/given: owner {ORDINARY}:{ORDINARY} could not be set")), "{planned:#?}");
    assert!(says("/given: time could not be set"), "{planned:#?}");
    assert_eq!(
        (code, &summary["failed"], &summary["denied"]),
        (Some(3), &5.into(), &false.into()),
        "{planned:#?}"
    );
    // The restore meets the same.
    let (code, met, summary) = troubles(&world, "t", &["--delete"]);
    let paths = |told: &[String]| {
        let mut paths: Vec<String> =
            told.iter().filter_map(|line| Some(line.split_once(": ")?.0.to_owned())).collect();
        paths.dedup();
        paths
    };
    assert_eq!((code, paths(&met)), (Some(3), paths(&planned)), "{met:#?}\n{planned:#?}\n{summary}");
    assert_eq!(fs::read_to_string(world.path("t/theirs/old")).unwrap(), "old");
    // Where nothing can be written at all that is one line.
    for target in ["empty", "not/there"] {
        let (code, planned, summary) = troubles(&world, target, &["--plan"]);
        assert_eq!((code, &summary["denied"], planned.len()), (Some(1), &true.into(), 1), "{planned:#?}");
        assert!(planned[0].starts_with("of all: nothing can be written to "), "{planned:#?}");
        let (code, met, _) = troubles(&world, target, &[]);
        assert_eq!((code, met.len()), (Some(1), 1), "{met:#?}");
    }
}

/// Gives something in a world to the ordinary user.
fn give(world: &World, path: &str) {
    let owner = format!("{ORDINARY}:{ORDINARY}");
    let mut chown = Command::new("chown");
    assert!(chown.args(["-R", &owner, path]).current_dir(world.path("")).status().unwrap().success());
}

fn chattr(flag: &str, path: &Path) -> bool {
    Command::new("chattr").arg(flag).arg(path).status().is_ok_and(|status| status.success())
}

/// The same troubles of a plan and of the restore: their code and their lines.
#[track_caller]
fn foreseen(world: &World, target: &str, more: &[&str]) -> (Option<i32>, Vec<String>) {
    let (code, planned, _) = troubles(world, target, &[more, &["--plan"]].concat());
    let (met_code, met, _) = troubles(world, target, more);
    let paths = |told: &[String]| {
        let mut paths: Vec<String> =
            told.iter().filter_map(|line| Some(line.split_once(": ")?.0.to_owned())).collect();
        paths.dedup();
        paths
    };
    assert_eq!((code, paths(&planned)), (met_code, paths(&met)), "{planned:#?}\n{met:#?}");
    (met_code, planned)
}

/// A backup of a source that belongs to the ordinary user, who may read it.
fn of_an_ordinary_user(files: &[&str]) -> World {
    let world = World::with_repository();
    for path in files {
        fs::create_dir_all(world.path("src").join(path).parent().unwrap()).unwrap();
        let times = if path.ends_with("large") { 1 << 19 } else { 1 };
        fs::write(world.path("src").join(path), path.repeat(times)).unwrap();
    }
    give(&world, "src");
    world.does(&["backup", "src"]);
    give(&world, "repo");
    fs::set_permissions(world.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    world
}

#[test]
fn what_stays_immutable_though_it_was_not_is_told_and_foreseen() {
    if !is_root() {
        skip("frozen files of another user: only root can make one");
        return;
    }
    let world = of_an_ordinary_user(&["folder/in", "linked"]);
    fs::create_dir(world.path("t")).unwrap();
    give(&world, "t");
    assert_eq!(troubles(&world, "t", &[]).0, Some(0));
    let frozen = ["t/folder", "t/linked", "t/one"].map(|path| world.path(path));
    fs::hard_link(&frozen[1], world.path("beside")).unwrap();
    if !frozen.iter().all(|path| chattr("+i", path)) {
        skip("a frozen file: nothing can be made immutable here");
        return;
    }
    let (code, told) = foreseen(&world, "t", &[]);
    // So does root without the right to.
    let source = format!("latest:{}", world.text("src"));
    let mut root = Command::new("setpriv");
    root.arg("--bounding-set=-linux_immutable").arg(env!("CARGO_BIN_EXE_lifeboat"));
    root.args(["--no-cache", "restore", &source, "--target", "t"]).env_clear().current_dir(world.path(""));
    root.env("LIFEBOAT_REPOSITORY", world.path("repo")).env("LIFEBOAT_PASSWORD", world::PASSPHRASE);
    root.env("PATH", std::env::var_os("PATH").unwrap());
    let as_root = root.output();
    frozen.iter().for_each(|path| assert!(chattr("-i", path)));
    let flags = |told: &[String]| {
        told.iter().filter(|line| line.contains("the flag immutable could not be removed")).count()
    };
    assert_eq!((code, flags(&told)), (Some(3), 3), "{told:#?}");
    let (out, err) = world::texts(&as_root.unwrap());
    let said = out + &err;
    assert!(said.contains("could not be removed") && said.contains("root with all its rights"), "{said}");
}

#[test]
fn root_who_may_not_change_what_it_gave_away_gives_it_away_last_and_whole() {
    if !is_root() {
        skip("files of another user: only root can make some");
        return;
    }
    let world = World::with_repository();
    for name in ["plain", "setuid"] {
        fs::write(world.path("src").join(name), name).unwrap();
    }
    for (name, mode) in [("plain", 0o640), ("setuid", 0o4755), ("deep", 0o2750)] {
        let path = world.path("src").join(name);
        chown(&path, Some(ORDINARY), Some(ORDINARY)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(Command::new("touch").args(["-d", "2001-02-03"]).arg(&path).status().unwrap().success());
    }
    world.does(&["backup", "src"]);
    let source = format!("latest:{}", world.text("src"));
    let restore = |more: &[&str]| {
        let mut root = Command::new("setpriv");
        root.arg("--bounding-set=-fowner").arg(env!("CARGO_BIN_EXE_lifeboat"));
        root.args(["restore", &source, "--target", "t"]).args(more).env_clear();
        root.env("HOME", world.path("home")).env("PATH", std::env::var_os("PATH").unwrap());
        root.env("LIFEBOAT_REPOSITORY", world.path("repo")).env("LIFEBOAT_PASSWORD", world::PASSPHRASE);
        let (out, err) = world.ends(root.current_dir(world.path("")), 3);
        out + &err
    };
    // The system takes setuid from what changes hands.
    for said in [restore(&["--plan"]), restore(&[])] {
        assert!(said.contains("setuid: mode 4755 could not be set"), "{said}");
        assert_eq!(said.matches("could not be set: ").count(), 1, "{said}");
    }
    let like = |name: &str| {
        let status = fs::metadata(world.path("t").join(name)).unwrap();
        (status.mode() & 0o7777, status.uid(), status.gid(), status.mtime())
    };
    let time = fs::metadata(world.path("src/plain")).unwrap().mtime();
    assert_eq!(like("plain"), (0o640, ORDINARY, ORDINARY, time));
    assert_eq!(like("setuid"), (0o755, ORDINARY, ORDINARY, time));
    assert_eq!(like("deep"), (0o2750, ORDINARY, ORDINARY, time));
    // It is not taken for a file that was only begun.
    fs::write(world.path("t/plain"), "of its user").unwrap();
    for policy in ["never", "if-newer"] {
        world.does(&["restore", &source, "--target", "t", "--overwrite", policy]);
        assert_eq!(fs::read_to_string(world.path("t/plain")).unwrap(), "of its user", "{policy}");
    }
}

#[test]
fn a_plan_foresees_what_is_frozen_or_in_a_sticky_folder_of_somebody_else() {
    if !is_root() {
        skip("frozen and sticky things of another user: only root can make some");
        return;
    }
    let files = [
        "sticky/small",
        "sticky/large",
        "sticky/mine",
        "frozen/in",
        "frozen/new",
        "append/in",
        "append/large",
        "append/made/in",
        "append/new",
        "f",
        "g",
    ];
    let world = of_an_ordinary_user(&files);
    fs::create_dir(world.path("t")).unwrap();
    give(&world, "t");
    assert_eq!(troubles(&world, "t", &[]).0, Some(0));
    for path in files {
        fs::write(world.path("t").join(path), "another").unwrap();
    }
    for new in ["frozen/new", "append/new", "append/large"] {
        fs::remove_file(world.path("t").join(new)).unwrap();
    }
    fs::remove_dir_all(world.path("t/append/made")).unwrap();
    for path in ["sticky", "sticky/small", "sticky/large"] {
        chown(world.path("t").join(path), Some(0), Some(0)).unwrap();
    }
    fs::write(world.path("t/sticky/extra"), "root's").unwrap();
    fs::write(world.path("t/frozen/extra"), "").unwrap();
    fs::set_permissions(world.path("t/sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    let frozen = [("+i", "t/frozen"), ("+a", "t/append"), ("+i", "t/f"), ("+a", "t/g")];
    let is_frozen = frozen.iter().all(|(flag, path)| chattr(flag, &world.path(path)));
    let (code, told) = foreseen(&world, "t", &["--delete"]);
    for (flag, path) in frozen {
        assert!(chattr(&flag.replace('+', "-"), &world.path(path)));
    }
    assert!(is_frozen, "nothing can be made immutable here");
    let says = |line: &str| assert!(told.iter().any(|told| told.starts_with(line)), "{line}: {told:#?}");
    assert_eq!(code, Some(3));
    for line in [
        "/sticky/small: sticky/small is somebody else's in a sticky folder",
        "/sticky/large: sticky/large is somebody else's",
        "/frozen/in: frozen cannot be written to by this user: it is immutable",
        "/frozen/new: frozen cannot",
        "/append/in: append cannot be written to by this user: it is append-only",
        "/append/large: append cannot",
        "/append/new: append cannot",
        "/f: f is immutable",
        "/g: g is immutable",
    ] {
        says(line);
    }
    // Folders are made in one that is append-only. Nothing is left of what could not get its name.
    assert_eq!(fs::read_to_string(world.path("t/append/made/in")).unwrap(), "append/made/in");
    let mut names: Vec<_> =
        fs::read_dir(world.path("t/append")).unwrap().map(|name| name.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["in", "made"]);
    assert!(!world.path("t/sticky/.large.lifeboat-partial").try_exists().unwrap());
    assert_eq!(fs::read_to_string(world.path("t/sticky/mine")).unwrap(), "sticky/mine");
}

#[test]
fn a_plan_tells_of_what_is_there_what_the_restore_then_meets_and_nothing_else() {
    if !is_root() {
        skip("things of another user: only root can make some");
        return;
    }
    let world = of_an_ordinary_user(&["program", "closed/in", "linked"]);
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    lsetxattr(world.path("src/program"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    chown(world.path("src/linked"), Some(0), Some(0)).unwrap();
    fs::hard_link(world.path("src/linked"), world.path("src/linked-too")).unwrap();
    let mut device = Command::new("mknod");
    let has_device =
        device.arg(world.path("src/closed/null")).args(["c", "1", "3"]).status().unwrap().success();
    fs::set_permissions(world.path("src/closed"), fs::Permissions::from_mode(0o0)).unwrap();
    world.does(&["backup", "src"]);
    give(&world, "repo");
    let source = format!("latest:{}", world.text("src"));
    world.does(&["restore", &source, "--target", "t"]);
    world.does(&["restore", "latest", "--target", "whole"]);
    fs::set_permissions(world.path("whole"), fs::Permissions::from_mode(0o755)).unwrap();
    // All is there: the right capability too, and what nobody sees and is to stay.
    let never = ["--overwrite", "never"];
    for more in [&["--plan"][..], &[]] {
        let (code, told, _) = troubles(&world, "t", &[&never, more].concat());
        assert_eq!(code, Some(0), "{told:#?}");
    }
    assert_eq!(foreseen(&world, "t", &["--exclude", "closed"]), (Some(0), Vec::new()));
    assert!(has_device, "no device can be made here");
    // Of folders that lead to the source no time is set.
    let whole = |more: &[&str]| {
        let arguments =
            [&["--no-cache", "restore", "latest", "--target", "whole", "--exclude", "closed"], more].concat();
        let (out, err) = world.ends(world.command(&arguments).uid(ORDINARY).gid(ORDINARY), 0);
        assert!(!(out.clone() + &err).contains("time could not be set"), "{out}{err}");
    };
    whole(&["--plan"]);
    whole(&[]);
    // Nobody but its owner gives a file another name.
    let is_protected = fs::read("/proc/sys/fs/protected_hardlinks").is_ok_and(|set| set.starts_with(b"1"));
    fs::remove_file(world.path("t/linked-too")).unwrap();
    let (code, told) = foreseen(&world, "t", &["--exclude", "closed"]);
    let is_told = told.iter().any(|line| {
        line.starts_with("/linked-too: it is a file of its own") && line.contains("cannot link to linked: ")
    });
    assert_eq!((code, is_told), if is_protected { (Some(3), true) } else { (Some(0), false) }, "{told:#?}");
}

#[test]
fn a_plan_foresees_a_target_that_cannot_be_made_or_be_like_its_folder() {
    if !is_root() {
        skip("targets of another user: only root can make some");
        return;
    }
    let world = of_an_ordinary_user(&["closed/large"]);
    for path in ["frozen", "append", "read-only", "shared", "open"] {
        fs::create_dir(world.path(path)).unwrap();
        give(&world, path);
    }
    fs::set_permissions(world.path("read-only"), fs::Permissions::from_mode(0o555)).unwrap();
    let is_frozen = chattr("+i", &world.path("frozen")) && chattr("+a", &world.path("append"));
    let [empty, append, new, closed] =
        ["frozen", "append", "frozen/new", "read-only/new"].map(|target| foreseen(&world, target, &[]));
    let source = format!("latest:{}", world.text("src"));
    let restore = ["restore", &source, "--target", "frozen/new"];
    let plan = [&restore[..], &["--plan"]].concat();
    let as_root = [&plan[..], &restore[..]].map(|arguments| world.command(arguments).output().unwrap());
    let is_thawed = chattr("-i", &world.path("frozen")) && chattr("-a", &world.path("append"));
    assert!(is_frozen && is_thawed, "nothing can be made immutable here");
    for (code, told) in [empty, append, new, closed] {
        assert_eq!((code, told.len()), (Some(1), 1), "{told:#?}");
    }
    for output in as_root {
        let (out, err) = world::texts(&output);
        assert!(output.status.code() == Some(1) && (out + &err).contains("chattr -i"), "{output:?}");
    }
    // The target itself is somebody else's.
    fs::write(world.path("shared/something"), "").unwrap();
    fs::set_permissions(world.path("shared"), fs::Permissions::from_mode(0o777)).unwrap();
    chown(world.path("shared"), Some(0), Some(0)).unwrap();
    let (code, told) = foreseen(&world, "shared", &[]);
    assert!(code == Some(3) && told.iter().any(|line| line.contains("time could not be set")), "{told:#?}");
    // Nobody looks into a closed folder before, not for a large file either.
    assert_eq!(troubles(&world, "open", &[]).0, Some(0));
    fs::set_permissions(world.path("open/closed"), fs::Permissions::from_mode(0o0)).unwrap();
    let (code, told, _) = troubles(&world, "open", &["--plan"]);
    assert_eq!((code, troubles(&world, "open", &[]).0), (Some(0), Some(0)), "{told:#?}");
}

#[test]
fn no_mask_keeps_a_restore_out_of_the_folders_that_it_makes() {
    if !is_root() {
        skip("the restore of an ordinary user: this is one already");
        return;
    }
    let world = of_an_ordinary_user(&["some/deep/file"]);
    let source = format!("latest:{}", world.text("src"));
    for mask in ["0777", "0277", "0177"] {
        let target = format!("t{mask}");
        fs::create_dir(world.path(&target)).unwrap();
        give(&world, &target);
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask $0 && exec \"$@\"", mask, env!("CARGO_BIN_EXE_lifeboat"), "--no-cache"]);
        shell.args(["restore", &source, "--target", &target]).env_clear().current_dir(world.path(""));
        shell.env("LIFEBOAT_REPOSITORY", world.path("repo")).env("LIFEBOAT_PASSWORD", world::PASSPHRASE);
        let (out, err) = world::texts(&shell.uid(ORDINARY).gid(ORDINARY).output().unwrap());
        let content = fs::read_to_string(world.path(&target).join("some/deep/file")).unwrap_or_default();
        assert_eq!(content, "some/deep/file", "{mask}: {out}{err}");
    }
}

#[test]
fn of_a_sparse_terabyte_only_the_extents_are_read_and_written() {
    let world = World::with_repository();
    let path = world.path("src/sparse");
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    for at in [0, 3 << 38, (1 << 40) - 70_000] {
        file.write_all_at(&[5; 70_000], at).unwrap();
    }
    drop(file);
    let extents = corpus::extents(&path);
    if extents.len() != 3 {
        skip(&format!("a sparse terabyte: this file system has no holes ({extents:?})"));
        return;
    }
    let messages = world.messages(&["backup", "src"]);
    let summary = messages.iter().find(|message| message["message_type"] == "summary").unwrap();
    let new = summary["bytes_new"].as_u64().unwrap();
    assert!(new < 1 << 20, "{summary}");
    let source = format!("latest:{}", world.text("src"));
    world.does(&["restore", &source, "--target", "copy", "--verify"]);
    let copy = world.path("copy/sparse");
    assert_eq!(corpus::extents(&copy), extents);
    assert_eq!(fs::metadata(&copy).unwrap().len(), 1 << 40);
    world.does(&["check", "--read-data"]);
    // Where a hole was is compared too.
    let modified = fs::metadata(&copy).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&copy).unwrap();
    file.write_all_at(b"x", 1 << 39).unwrap();
    file.set_modified(modified).unwrap();
    let mut verify = world.command(&["verify", &source, "--target", "copy"]);
    let (out, _) = world.ends(&mut verify, 6);
    assert!(out.contains("sparse: these bytes differ: 5497558138"), "{out}");
}

#[test]
fn one_name_of_several_restores_the_content_alone() {
    let furnished = Furnished::new();
    let world = &furnished.world;
    for (name, target) in
        [("links/b/c/second", "one"), ("links/b/symbolic too", "two"), ("links/b/c/pipe too", "three")]
    {
        let source = format!("latest:{}", world.text(&format!("corpus/{name}")));
        world.does(&["restore", &source, "--target", target]);
    }
    assert_eq!(fs::read(world.path("one/second")).unwrap(), b"one file");
    assert_eq!(fs::metadata(world.path("one/second")).unwrap().nlink(), 1);
    assert_eq!(fs::read_link(world.path("two/symbolic too")).unwrap(), Path::new("../nowhere"));
    let pipe = world.path("three/pipe too").symlink_metadata().unwrap();
    assert_eq!(pipe.mode() & 0o170_000, 0o010_000);
}

#[test]
fn every_name_of_a_socket_is_noted_and_none_makes_a_restore_incomplete() {
    let world = World::with_repository();
    drop(std::os::unix::net::UnixListener::bind(world.path("src/a socket")).unwrap());
    fs::hard_link(world.path("src/a socket"), world.path("src/another name")).unwrap();
    world.does(&["backup", "src"]);
    for again in ["first", "again"] {
        let (_, said) =
            world.ends(&mut world.command(&["restore", "latest", "--target", "copy", "--verify"]), 0);
        assert!(
            said.contains("a socket is not restored: its program makes it anew, 2 times: "),
            "{again}: {said}"
        );
        assert!(said.contains("a socket") && said.contains("another name"), "{again}: {said}");
    }
}

#[test]
fn folders_ten_thousand_deep_come_back() {
    const DEPTH: usize = 10_000;
    let world = World::with_repository();
    let dir = corpus::deep(&world.path("src"), "d", DEPTH);
    let stamp = corpus::stamp(&dir, "file");
    world.does(&["backup", "src"]);
    let source = format!("latest:{}", world.text("src"));
    world.does(&["restore", &source, "--target", "copy", "--verify"]);
    let copy = corpus::descend(&world.path("copy"), "d", DEPTH);
    assert_eq!(corpus::stamp(&copy, "file"), stamp);
    let mut text = [0; 20];
    let file =
        rustix::fs::openat(&copy, "file", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    let length = rustix::io::read(&file, &mut text[..]).unwrap();
    assert_eq!(&text[..length], b"deep down");
    corpus::remove_deep(world.folder.path());
}

#[test]
fn attributes_are_taken_from_the_backup_before_only_while_they_cannot_have_changed() {
    let place = Place::new(2);
    place.put("file", b"content");
    let path = place.source().join("file");
    if lsetxattr(&path, "user.a", b"1", XattrFlags::empty()).is_err() {
        skip("attributes: this file system has none");
        return;
    }
    let restored = |target: &str| {
        place.restore(target, place.source().to_str().unwrap(), &[]);
        let mut value = [0; 10];
        let length = lgetxattr(place.at(target).join("file"), "user.a", &mut value[..]).unwrap();
        value[..length].to_vec()
    };
    let first = place.back_up(&place.options());
    let second = place.back_up(&place.options());
    assert_eq!((second.record.root, second.record.statistics.files_unchanged), (first.record.root, 1));
    assert_eq!(restored("second"), b"1");
    lsetxattr(&path, "user.a", b"2", XattrFlags::empty()).unwrap();
    place.back_up(&place.options());
    assert_eq!(restored("third"), b"2");
    // Its content is taken from the backup before, its attributes are not.
    lsetxattr(&path, "user.a", b"3", XattrFlags::empty()).unwrap();
    let reuse = Reuse { compare_ctime: false, ..Reuse::default() };
    let lax = place.back_up(&BackupOptions { reuse, unchanged: Unchanged::Keep, ..place.options() });
    assert_eq!(lax.record.statistics.files_unchanged, 1);
    assert_eq!(restored("fourth"), b"3");
}

#[test]
fn a_birth_time_is_listed_as_statx_says_it_and_that_none_can_be_set_is_one_line_and_no_failure() {
    let world = World::with_repository();
    // Else all its times may be the same.
    let file = fs::File::options().write(true).open(world.path("src/one")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(5)).unwrap();
    world.does(&["backup", "src"]);
    let flags = (rustix::fs::AtFlags::SYMLINK_NOFOLLOW, rustix::fs::StatxFlags::BTIME);
    let born = |path: &str| {
        let status = rustix::fs::statx(rustix::fs::CWD, path, flags.0, flags.1).unwrap();
        (status.stx_mask & flags.1.bits() != 0)
            .then(|| (status.stx_btime.tv_sec, u64::from(status.stx_btime.tv_nsec)))
    };
    if born(&world.text("src/one")).is_none() {
        skip("birth times: this file system does not tell any");
        return;
    }
    let (mut with, listed) = (0_u64, world.messages(&["ls", "latest"]));
    for entry in listed.iter().filter(|message| message["message_type"] == "entry") {
        let told = entry["btime"].as_str().and_then(lifeboat::clock::Timestamp::from_rfc3339);
        let told = told.map(|time| (time.seconds, u64::from(time.nanoseconds)));
        with += u64::from(told.is_some());
        // Of folders that only lead to a source no times are taken.
        let path = entry["path"].as_str().unwrap();
        let expected = if path.starts_with(&world.text("src")) { born(path) } else { None };
        assert_eq!(told, expected, "{entry}");
    }
    assert_eq!(with, 4, "{listed:?}");
    for plan in [&["--dry-run"][..], &[]] {
        let restore = [&["restore", "latest", "--target", "t"], plan].concat();
        let said = world.does(&restore);
        let told =
            format!("note: the birth times of {with} entries cannot be set; `lifeboat ls --json` has them\n");
        assert_eq!(said.matches(&told).count(), 1, "{said}");
        let messages = world.messages(&restore);
        let summary = messages.last().unwrap();
        assert_eq!(
            (&summary["birth_times_not_set"], &summary["unset"]),
            (&with.into(), &0.into()),
            "{summary}"
        );
    }
    // Of what was asked for alone.
    let one = world.does(&["restore", &format!("latest:{}", world.text("src/one")), "--target", "alone"]);
    assert!(one.contains("note: the birth time of 1 entry cannot be set"), "{one}");
}

/// A link of which an attribute could not be read.
struct Lacking;

impl Source for Lacking {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let lacks = Some("attribute user.a (Input/output error)".to_owned());
        let link_target = b"x".to_vec();
        let metadata = Metadata { link_target, lacks, ..Metadata::of(EntryKind::Symlink) };
        let (path, content) = (b"link".to_vec(), Content::Inline(Vec::new()));
        let entry = Entry { path, metadata, content, changed_while_read: false, error: None };
        Ok(Box::new(std::iter::once(Ok(Item::Entry(entry)))))
    }
}

#[test]
fn an_attribute_that_could_not_be_read_makes_backup_and_restore_incomplete_and_the_rest_is_there() {
    let place = Place::new(1);
    let record = backup::run(&place.open(), &mut Lacking, &place.options()).unwrap().record;
    assert_eq!(record.unreadable, 1);
    assert!(record.unreadable_named[0].1.contains("user.a"), "{:?}", record.unreadable_named);
    let restored = place.restore("all", "", &[]);
    assert_eq!(fs::read_link(place.at("all/link")).unwrap(), Path::new("x"));
    assert_eq!(restored.failures, 0);
    assert!(
        restored.unset >= 1 && restored.notes.iter().any(|(_, note)| note.to_string().contains("user.a")),
        "{restored:?}"
    );
    // Its content is there, and only that: neither is said to be lost, nor that a restore would help.
    let world = World::new();
    let ends = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("LIFEBOAT_REPOSITORY", place.at("repository")).env("LIFEBOAT_PASSWORD", "right");
        let (out, err) = world.ends(&mut command, 3);
        out + &err
    };
    let target = place.at("all");
    let verify = ["verify", "latest", "--target", target.to_str().unwrap()];
    let said = ends(&verify);
    assert!(said.contains("of 1 entry the backup has not all attributes"), "{said}");
    assert!(said.contains("link: its attributes are not compared") && said.contains("user.a"), "{said}");
    assert!(!said.contains("content") && !said.contains("brings it back"), "{said}");
    let messages = objects(&ends(&[&verify[..], &["--json"]].concat()));
    let summary = messages.iter().find(|message| message["message_type"] == "summary").unwrap();
    assert_eq!((&summary["attributes_not_backed_up"], &summary["not_backed_up"]), (&1.into(), &0.into()));
    assert!(messages.iter().any(|message| message["message_type"] == "note" && message["path"] == "/link"));
}

#[test]
fn everything_comes_back_over_what_is_there_and_frozen_things_are_frozen_again() {
    let furnished = Furnished::new();
    let world = &furnished.world;
    let before = without_sockets(look(&world.path("corpus")));
    let inode = |path: &str| fs::symlink_metadata(world.path(path)).unwrap().ino();
    furnished.restore("copy");
    let frozen = ["copy/flags/frozen/linked", "copy/flags/frozen/file"];
    let inodes = frozen.map(inode);
    let same = |when: &str| {
        let lost = differences(&before, &look(&world.path("copy")));
        assert_eq!(lost, Vec::<String>::new(), "{when}");
    };
    furnished.restore("copy");
    same("nothing was to be done");
    assert_eq!(frozen.map(inode), inodes, "they were not written anew");
    if world.path("copy/flags/frozen").symlink_metadata().is_err()
        || corpus::flagged(&world.path("copy/flags/frozen"), 0x10, false).is_err()
    {
        skip("frozen files in the way: nobody can freeze here");
        return;
    }
    // In a frozen folder: one that differs, one that is too much, one that is missing; and below it only a part is meant.
    let again = |arguments: &[&str], when: &str| {
        corpus::flagged(&world.path("copy/flags/frozen"), 0x10, false).unwrap();
        corpus::flagged(&world.path("copy/flags/frozen/file"), 0x10, false).unwrap();
        fs::write(world.path("copy/flags/frozen/file"), "other").unwrap();
        fs::write(world.path("copy/flags/frozen/extra"), "extra").unwrap();
        corpus::flagged(&world.path("copy/flags/frozen/file"), 0x10, true).unwrap();
        corpus::flagged(&world.path("copy/flags/frozen"), 0x10, true).unwrap();
        let source = format!("latest:{}", world.text("corpus"));
        world.does(&[&["restore", &source, "--target", "copy", "--delete", "--verify"], arguments].concat());
        same(when);
    };
    again(&[], "all of it");
    again(&["--include", "/**/frozen/*"], "not the folder itself");
    // What is looked at only stays frozen.
    corpus::flagged(&world.path("copy/flags/frozen"), 0x10, false).unwrap();
    corpus::flagged(&world.path("copy"), 0x10, true).unwrap();
    let source = format!("latest:{}", world.text("corpus"));
    world.does(&["restore", &source, "--target", "copy", "--dry-run"]);
    assert!(fs::write(world.path("copy/new"), "").is_err());
    // What the snapshot has not frozen is not frozen afterwards, be it the target itself.
    world.does(&["restore", &source, "--target", "copy", "--verify"]);
    same("the target was frozen");
}

#[test]
fn what_is_there_gets_the_attributes_and_flags_of_the_snapshot_where_it_is() {
    let place = Place::new(2);
    place.put("large", &noise(1, 12 << 20));
    place.put("small", b"small");
    place.put("linked", b"two names");
    fs::hard_link(place.source().join("linked"), place.source().join("linked-too")).unwrap();
    let set = |path: &Path, name: &str, value: &[u8]| lsetxattr(path, name, value, XattrFlags::empty());
    let files = ["large", "small", "linked"];
    for name in files {
        if set(&place.source().join(name), "user.kept", b"1").is_err() {
            skip("attributes: this file system has none");
            return;
        }
    }
    let flags = corpus::flagged(&place.source().join("large"), 0x40, true).is_ok();
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all");
    let inodes = || files.map(|name| fs::metadata(copy.join(name)).unwrap().ino());
    let before = inodes();
    // With the attributes that it is to have a file of several names is kept.
    let done = place.restore("all", "", &[]);
    assert_eq!((done.files_unchanged, inodes()), (4, before), "{done:?}");
    for name in files {
        let path = copy.join(name);
        set(&path, "user.kept", b"2").unwrap();
        set(&path, "user.extra", b"1").unwrap();
        if flags {
            corpus::flagged(&path, 0x40, name != "large").unwrap();
        }
    }
    let file = fs::File::options().write(true).open(copy.join("large")).unwrap();
    file.write_all_at(b"something else", 5 << 20).unwrap();
    let done = place.restore("all", "", &[]);
    assert_eq!((done.failures, done.unset), (0, 0), "{done:?}");
    assert_eq!(differences(&look(&place.source()), &look(&copy)), Vec::<String>::new());
    assert_eq!(inodes()[..2], before[..2], "kept, or changed where it is");
}

#[test]
fn who_may_read_a_file_by_its_acl_sees_nothing_that_is_written_over_it() {
    let place = Place::new(1);
    place.put("large", &noise(1, 12 << 20));
    let mode = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    mode(&place.source().join("large"));
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let large = place.copy("all").join("large");
    let mut acl = vec![2, 0, 0, 0];
    for (tag, rights, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 4, 4242), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend([&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    if lsetxattr(&large, "system.posix_acl_access", &acl, XattrFlags::empty()).is_err() {
        skip("ACLs: this file system has none");
        return;
    }
    let before = fs::metadata(&large).unwrap().ino();
    fs::File::options().write(true).open(&large).unwrap().write_all_at(b"something else", 5 << 20).unwrap();
    let done = place.restore("all", "", &[]);
    assert!(done.failures == 0 && done.bytes_unchanged > 8 << 20, "{done:?}");
    assert!(fs::metadata(&large).unwrap().ino() != before);
    assert_eq!(differences(&look(&place.source()), &look(&place.copy("all"))), Vec::<String>::new());
}

#[test]
fn a_sparse_file_gets_its_holes_and_its_content_where_one_is_already() {
    const MIB: u64 = 1 << 20;
    let place = Place::new(2);
    for (name, size, at, seed) in
        [("large", 80 * MIB, [4 * MIB, 60 * MIB], 4), ("small", 40 * MIB, [0, 30 * MIB], 6)]
    {
        let file = fs::File::create(place.source().join(name)).unwrap();
        file.set_len(size).unwrap();
        let length = if name == "large" { 5 << 20 } else { 70_000 };
        for (at, seed) in at.into_iter().zip(seed..) {
            file.write_all_at(&noise(seed, length), at).unwrap();
        }
    }
    let source = look(&place.source());
    let extents = corpus::extents(&place.source().join("large"));
    if extents.len() != 2 {
        skip(&format!("sparse files: this file system has no holes ({extents:?})"));
        return;
    }
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all");
    let inodes = || ["large", "small"].map(|name| fs::metadata(copy.join(name)).unwrap().ino());
    let restored = |when: &str| {
        let done = place.restore("all", "", &[]);
        assert_eq!(done.failures, 0, "{:?}", done.failed);
        assert_eq!(differences(&source, &look(&copy)), Vec::<String>::new(), "{when}");
        done
    };
    let write = |name: &str, bytes: &[u8], at| {
        fs::File::options().write(true).open(copy.join(name)).unwrap().write_all_at(bytes, at).unwrap();
    };
    let before = inodes();
    let done = restored("nothing differs");
    assert_eq!((done.files_unchanged, done.bytes_unchanged, inodes()), (2, 120 * MIB, before));
    // Something in a hole, and zeros there, which are the same only to whoever reads them.
    write("large", &[7; 3 << 20], 20 * MIB);
    write("small", &[0; 1 << 20], 10 * MIB);
    let done = restored("holes were filled");
    assert!(done.bytes_unchanged >= 10 * MIB && inodes()[0] == before[0], "{done:?}");
    // Content too, and an end that is not the right one.
    write("large", b"something else", 62 * MIB);
    write("large", b"something else", 90 * MIB);
    let done = restored("content differs");
    assert!(done.bytes_unchanged >= 7 * MIB && inodes()[0] == before[0], "{done:?}");
    // A run was killed before it had written the rest.
    let unfinished = copy.join(".large.lifeboat-partial");
    fs::rename(copy.join("large"), &unfinished).unwrap();
    fs::File::options().write(true).open(&unfinished).unwrap().set_len(61 * MIB).unwrap();
    let done = restored("goes on");
    assert!(done.bytes_unchanged >= 5 * MIB && inodes()[0] == before[0], "{done:?}");
    // One that was no file of holes becomes one.
    fs::write(copy.join("large"), noise(9, 70 << 20)).unwrap();
    restored("another file");
    assert_eq!(inodes()[0], before[0]);
    let options = RestoreOptions { zeros: lifeboat::filesystem::restore::Zeros::Holes, ..Default::default() };
    write("large", &[1; 100], 61 * MIB);
    assert_eq!(place.restore_with("all", &options).failures, 0);
    assert_eq!(differences(&source, &look(&copy)), Vec::<String>::new());
}

#[test]
fn what_a_folder_gives_to_new_files_does_not_stay_on_restored_ones() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    fs::create_dir(world.path("copy")).unwrap();
    // Another user may write whatever is made there.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, rights, id) in
        [(1_u16, 7_u16, u32::MAX), (2, 7, 4242), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)]
    {
        acl.extend([&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    if lsetxattr(world.path("copy"), "system.posix_acl_default", &acl, XattrFlags::empty()).is_err() {
        skip("ACLs: this file system has none");
        return;
    }
    world.does(&["restore", &format!("latest:{}", world.text("src/deep")), "--target", "copy/below"]);
    for path in ["copy/below/two", "copy/below"] {
        let found = lgetxattr(world.path(path), "system.posix_acl_access", &mut [0; 100][..]);
        assert!(found.is_err(), "{path}: {found:?}");
    }
    assert_eq!(
        differences(&look(&world.path("src/deep")), &look(&world.path("copy/below"))),
        Vec::<String>::new()
    );
}
