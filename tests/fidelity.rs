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
    ops::backup::{self, BackupOptions, Item, Reuse, Source, Unchanged},
};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use serde_json::Value;

use self::{
    corpus::{Seen, differences, look},
    place::Place,
    world::{World, objects},
};

#[path = "support/corpus.rs"]
mod corpus;
#[path = "support/place.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod place;
#[path = "support/world.rs"]
mod world;

/// Nobody in particular.
const ORDINARY: u32 = 65534;

/// Says that a part cannot be tried here.
#[expect(clippy::print_stdout, reason = "whoever runs the tests has to know")]
fn skip(what: &str, why: &str) {
    println!("SKIP {what}: {why}");
}

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
    let not_made = &furnished.not_made;
    assert!(not_made.len() <= if is_root() { 4 } else { 14 }, "{not_made:#?}");
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
        assert!(std::env::var_os("LIFEBOAT_TEST_RSYNC").is_none(), "rsync is to judge, and is not there");
        skip("rsync as a judge", "there is no rsync with ACLs and attributes");
        return;
    }
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXn", "--checksum", "--delete", "--itemize-changes"]);
    let out = rsync.arg(source.join("")).arg(copy.join("")).output().unwrap();
    let (out, err) = world::texts(&out);
    let lines: Vec<&str> = out.lines().filter(|line| !line.ends_with("specials/socket")).collect();
    assert_eq!(lines, Vec::<&str>::new(), "{err}");
}

#[test]
fn an_ordinary_user_has_the_same_of_what_they_may_own() {
    if !is_root() {
        skip("as an ordinary user", "this is one already");
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
        && chmod 1777 sticky && chmod 311 no-list && ln setgid/file sticky/linked && mkfifo setgid/pipe";
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
        skip("another user's backup", "only root can make one");
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
    assert_eq!(differences(&mine(&world.path("corpus")), &mine(&copy)), Vec::<String>::new());
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
        skip("a sparse terabyte", &format!("this file system has no holes ({extents:?})"));
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
        skip("attributes", "this file system has none");
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
        restored.unset >= 1 && restored.notes.iter().any(|(_, note)| note.contains("user.a")),
        "{restored:?}"
    );
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
        skip("ACLs", "this file system has none");
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
