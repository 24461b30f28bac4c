//! Restoring where something is already: what may be overwritten, what need not be read, what is changed where it
//! is, what goes, and how a restore goes on that was interrupted.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use lifeboat::{
    clock::{Clock, SystemClock, Timestamp},
    error::ErrorKind,
    filesystem::{holes, metadata::Note, restore::Zeros, select::Selection},
    format::entry::{EntryKind, Metadata},
    ops::restore::{self, Extra, Forecast, Overwrite, RestoreOptions, Restored},
    store::{Name, Prefix},
};

use self::{
    changed::back_up_changed,
    place::{Place, noise, same},
    skip::skip,
    world::World,
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

const LARGE: usize = 12 << 20;

/// Small files, large ones, links of both kinds, an empty folder.
fn furnish(place: &Place) {
    for number in 0..60 {
        place.put(&format!("many/{}/{number}", number % 7), number.to_string().repeat(50).as_bytes());
    }
    place.put("large", &noise(1, LARGE));
    place.put("alone", &noise(2, LARGE));
    place.put("sub/other", &noise(3, 300_000));
    fs::create_dir(place.source().join("empty")).unwrap();
    fs::hard_link(place.source().join("large"), place.source().join("sub/large-too")).unwrap();
    symlink("/nowhere", place.source().join("sub/link")).unwrap();
}

fn data_packs(place: &Place) -> Vec<Name> {
    let listed = place.store().list(&Prefix::all()).unwrap().into_iter();
    let packs = listed.filter(|listed| listed.name.contains("/packs/d/"));
    packs.map(|listed| Name::parse(&listed.name).unwrap()).collect()
}

fn lose_all_data(place: &Place) {
    let store = place.store();
    data_packs(place).iter().for_each(|pack| store.delete(pack).unwrap());
}

fn deleting() -> RestoreOptions {
    RestoreOptions { extra: Extra::Remove, ..RestoreOptions::default() }
}

fn forecast(place: &Place, target: &str, options: &RestoreOptions) -> Forecast {
    let repository = place.open();
    restore::forecast(&repository, &place.newest(&repository), &place.at(target), options).unwrap()
}

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Every name below a folder.
fn names(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(root).unwrap().to_owned());
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_there_already_is_not_read_from_the_storage() {
    for workers in [1, 3] {
        let place = Place::new(workers);
        furnish(&place);
        place.back_up(&place.options());
        place.restore("all", "", &[]);
        let copy = place.copy("all");
        let inodes = ["large", "alone", "many/3/3"].map(|name| inode(copy.join(name)));
        lose_all_data(&place);
        // Others could read it meanwhile, and write: it has to be a new file, made of the same bytes.
        fs::set_permissions(copy.join("sub/other"), fs::Permissions::from_mode(0o666)).unwrap();
        let open_to_others = inode(copy.join("sub/other"));
        fs::set_permissions(copy.join("many/3/3"), fs::Permissions::from_mode(0o600)).unwrap();
        set_time(&copy.join("alone"), 1);
        let done = place.restore("all", "", &[]);
        assert_eq!(done.failures, 0, "{:?}", done.failed);
        assert_eq!((done.files, done.files_unchanged), (64, 63));
        assert_eq!(done.bytes_unchanged, done.bytes);
        same(&place.source(), &copy);
        assert_eq!(["large", "alone", "many/3/3"].map(|name| inode(copy.join(name))), inodes);
        assert_eq!(inode(copy.join("sub/large-too")), inodes[0]);
        assert!(inode(copy.join("sub/other")) != open_to_others);
        for name in ["alone", "many/3/3", "sub/other"] {
            let of = |root: &Path| {
                let status = fs::metadata(root.join(name)).unwrap();
                (status.mode(), status.mtime(), status.mtime_nsec())
            };
            assert_eq!(of(&place.source()), of(&copy), "{name}");
        }
    }
}

#[test]
fn a_large_file_is_changed_where_it_is_and_only_what_differs_is_read() {
    let place = Place::new(1);
    furnish(&place);
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let alone = place.copy("all").join("alone");
    let before = inode(&alone);
    let change = || {
        let file = fs::File::options().write(true).open(&alone).unwrap();
        file.write_all_at(b"something else", 5 << 20).unwrap();
        // It became longer, too.
        file.write_all_at(b"more", LARGE as u64 + 10).unwrap();
    };
    change();
    let foretold = forecast(&place, "all", &RestoreOptions::default());
    assert!(foretold.download_bytes > 0 && foretold.download_bytes < 4 << 20, "{foretold:?}");
    assert_eq!((foretold.files, foretold.files_unchanged, foretold.space_needed), (64, 63, 0));
    let done = place.restore("all", "", &[]);
    assert_eq!(done.failures, 0, "{:?}", done.failed);
    assert_eq!(done.bytes_unchanged, foretold.bytes_unchanged);
    assert!(done.bytes - done.bytes_unchanged <= 2 << 20, "{done:?}");
    assert_eq!((fs::read(&alone).unwrap(), inode(&alone)), (noise(2, LARGE), before));
    same(&place.source(), &place.copy("all"));

    // Without the rest of the data it cannot be whole, and does not look so.
    change();
    lose_all_data(&place);
    let done = place.restore("all", "", &[]);
    assert_eq!((done.failures, done.kinds.contains(&ErrorKind::Damaged)), (1, true), "{:?}", done.failed);
    assert!(!alone.try_exists().unwrap());
    let said = done.failed[0].1.to_string();
    assert!(
        said.contains("alone.damaged; the file that had its place has become that, and is gone"),
        "{said}"
    );
    let damaged = fs::read(alone.with_extension("damaged")).unwrap();
    let differs = damaged.iter().zip(noise(2, LARGE)).filter(|(is, was)| **is != *was).count();
    assert!(damaged.len() == LARGE && differs > 0 && differs <= 2 << 20, "{differs}");
    assert!(!damaged.windows(14).any(|bytes| bytes == b"something else"), "what is not known is zeros");
    assert!(names(&place.copy("all")).iter().all(|name| !name.to_str().unwrap().contains("partial")));
}

#[test]
fn what_a_run_has_left_that_was_killed_is_gone_on_with_and_swept() {
    let place = Place::new(2);
    furnish(&place);
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all");
    // Killed while it was rewritten, and while a small file was written.
    let unfinished = copy.join(".alone.lifeboat-partial");
    fs::rename(copy.join("alone"), &unfinished).unwrap();
    fs::File::options().write(true).open(&unfinished).unwrap().write_all_at(&[7; 100], 9 << 20).unwrap();
    let before = inode(&unfinished);
    fs::write(copy.join("sub/.lifeboat-0123456789abcdef.partial"), "half").unwrap();
    fs::remove_file(copy.join("many/3/3")).unwrap();
    let done = place.restore("all", "", &[]);
    assert_eq!(done.failures, 0, "{:?}", done.failed);
    assert!(done.bytes_unchanged > done.bytes - (2 << 20), "{done:?}");
    same(&place.source(), &copy);
    assert_eq!(inode(copy.join("alone")), before);
    assert_eq!(
        fs::metadata(copy.join("sub")).unwrap().mtime_nsec(),
        fs::metadata(place.source().join("sub")).unwrap().mtime_nsec()
    );

    // Another restore works in the target: its files stay.
    let theirs = copy.join("sub/.lifeboat-fedcba9876543210.partial");
    fs::write(&theirs, "half").unwrap();
    let other = lifeboat::filesystem::restore::Target::open(&place.at("all")).unwrap();
    assert!(other.take_part(&SystemClock));
    place.restore("all", "", &[]);
    assert!(theirs.try_exists().unwrap());
    drop(other);
    place.restore("all", "", &[]);
    assert!(!theirs.try_exists().unwrap());
}

#[test]
fn a_restore_that_is_killed_goes_on_where_it_was() {
    use rustix::process::{Pid, Signal, kill_process};
    let world = World::with_repository();
    fs::write(world.path("src/large"), noise(9, 24 << 20)).unwrap();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    let arguments = ["restore", &from, "--target", "back", "--limit-download", "2M"];
    let unfinished = world.path("back/.large.lifeboat-partial");
    for wanted in [8 << 20, 16 << 20] {
        let mut child = world.command(&arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
        // So much of it is on the disk, whenever that is.
        while fs::metadata(&unfinished).map_or(0, |status| status.blocks() * 512) < wanted {
            assert!(child.try_wait().unwrap().is_none(), "it ended before");
            std::thread::sleep(Duration::from_millis(5));
        }
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(!world.path("back/large").try_exists().unwrap(), "half of it looks whole");
    }
    let said = world.messages(&["restore", &from, "--target", "back", "--verify"]);
    let summary = said.iter().find(|said| said["message_type"] == "summary").unwrap();
    assert!(summary["bytes_unchanged"].as_u64().unwrap() >= 8 << 20, "{summary}");
    same(&world.path("src"), &world.path("back"));
}

#[test]
fn each_policy_overwrites_what_it_says() {
    let place = Place::new(1);
    for name in ["same", "changed", "sly", "older", "newer", "missing"] {
        place.put(name, format!("{name:>9}").as_bytes());
        set_time(&place.source().join(name), 1_000);
    }
    symlink("there", place.source().join("link")).unwrap();
    place.back_up(&place.options());
    let cases: [(Overwrite, &[&str], u64); 4] = [
        (Overwrite::Always, &[], 0),
        (Overwrite::IfChanged, &["sly"], 0),
        (Overwrite::IfNewer, &["same", "sly", "newer", "link", "changed"], 5),
        (Overwrite::Never, &["same", "sly", "newer", "link", "changed", "older"], 6),
    ];
    for (overwrite, left, count) in cases {
        let target = format!("{overwrite:?}");
        place.restore(&target, "", &[]);
        let copy = place.copy(&target);
        for (name, content, time) in [
            ("changed", "longer than before", 1_000),
            ("sly", "same size", 1_000),
            ("older", "old", 999),
            ("newer", "new", 1_001),
        ] {
            fs::write(copy.join(name), content).unwrap();
            set_time(&copy.join(name), time);
        }
        fs::remove_file(copy.join("missing")).unwrap();
        fs::remove_file(copy.join("link")).unwrap();
        symlink("elsewhere", copy.join("link")).unwrap();
        fs::set_permissions(copy.join("same"), fs::Permissions::from_mode(0o600)).unwrap();
        let options = RestoreOptions { overwrite, ..RestoreOptions::default() };
        let foretold = forecast(&place, &target, &options);
        let done = place.restore_with(&target, &options);
        assert_eq!((done.failures, done.left, foretold.restored.left), (0, count, count), "{overwrite:?}");
        for name in ["same", "changed", "sly", "older", "newer", "missing"] {
            let restored = fs::read(copy.join(name)).unwrap() == format!("{name:>9}").as_bytes();
            assert_eq!(restored, name == "same" || !left.contains(&name), "{overwrite:?}: {name}");
        }
        let link = fs::read_link(copy.join("link")).unwrap();
        assert_eq!(link == Path::new("there"), !left.contains(&"link"));
        let mode = fs::metadata(copy.join("same")).unwrap().mode() & 0o777;
        assert_eq!(mode == 0o600, left.contains(&"same"), "{overwrite:?} sets metadata of what is the same");
    }
}

/// Made anew it would change the times of its folder, which may be somebody else's.
#[test]
fn a_link_that_is_right_stays_and_any_other_is_made_anew() {
    const ATTRIBUTE: &str = "trusted.lifeboat";
    let place = Place::new(1);
    for name in ["right", "elsewhere", "later", "file", "twice", "marked"] {
        symlink("there", place.source().join(name)).unwrap();
    }
    // Only root may give one to a link.
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        let link = place.source().join("marked");
        rustix::fs::lsetxattr(link, ATTRIBUTE, b"x", rustix::fs::XattrFlags::empty()).unwrap();
    }
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all");
    let made = |name: &str| inode(copy.join(name));
    let replace = |name: &str, make: &dyn Fn(&Path)| {
        fs::remove_file(copy.join(name)).unwrap();
        make(&copy.join(name));
    };
    replace("elsewhere", &|path| symlink("where", path).unwrap());
    replace("later", &|path| symlink("there", path).unwrap());
    replace("file", &|path| fs::write(path, "there").unwrap());
    fs::hard_link(copy.join("twice"), copy.join("again")).unwrap();
    if is_root {
        rustix::fs::lremovexattr(copy.join("marked"), ATTRIBUTE).unwrap();
    }
    let names = ["right", "elsewhere", "later", "file", "twice", "marked"];
    let before = names.map(made);
    let done = place.restore("all", "", &[]);
    assert_eq!(done.failures, 0, "{:?}", done.failed);
    let after = names.map(made);
    let stays: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before == after).collect();
    assert_eq!(stays, [true, false, false, false, false, !is_root]);
    fs::remove_file(copy.join("again")).unwrap();
    same(&place.source(), &copy);
}

#[test]
fn the_policy_is_what_the_command_says() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    let one = world.path("copy/one");
    let then = fs::metadata(world.path("src/one")).unwrap().modified().unwrap();
    let hour = Duration::from_secs(3600);
    for (policy, content, modified, replaced) in [
        (None, "other", then, true),
        (Some("always"), "other", then, true),
        (Some("always"), "longer", then + hour, true),
        (Some("if-changed"), "other", then, false),
        (Some("if-changed"), "other", then + hour, true),
        (Some("if-changed"), "longer", then, true),
        (Some("if-newer"), "longer", then + hour, false),
        (Some("if-newer"), "other", then - hour, true),
        (Some("never"), "longer", then - hour, false),
    ] {
        drop(fs::remove_dir_all(world.path("copy")));
        fs::create_dir(world.path("copy")).unwrap();
        fs::write(&one, content).unwrap();
        fs::File::options().write(true).open(&one).unwrap().set_modified(modified).unwrap();
        let policy = policy.map(|policy| ["--overwrite", policy]);
        let more = policy.as_ref().map_or(&[][..], |policy| &policy[..]);
        let said = world.does(&[&["restore", &from, "--target", "copy"], more].concat());
        let expected = if replaced { "first" } else { content };
        assert_eq!(fs::read_to_string(&one).unwrap(), expected, "{policy:?} {content}: {said}");
        assert_eq!(fs::read_to_string(world.path("copy/deep/two")).unwrap(), "second", "it was missing");
    }
    world.fails(&["restore", &from, "--target", "copy", "--overwrite", "sometimes"], 2);
}

/// A restore that is killed leaves small files under their own names, with a mode that no other file has.
#[test]
fn what_a_killed_restore_has_begun_is_written_anew_under_every_policy() {
    let place = Place::new(1);
    for name in ["begun", "theirs", "linked", "longer", "sticky", "used"] {
        place.put(name, b"whole");
        set_time(&place.source().join(name), 1_000);
    }
    fs::set_permissions(place.source().join("sticky"), fs::Permissions::from_mode(0o1600)).unwrap();
    place.back_up(&place.options());
    for overwrite in [Overwrite::Never, Overwrite::IfNewer, Overwrite::IfChanged, Overwrite::Always] {
        let target = format!("{overwrite:?}");
        let copy = place.copy(&target);
        fs::create_dir_all(&copy).unwrap();
        for (name, mode) in [
            ("begun", 0o1600),
            ("theirs", 0o600),
            ("linked", 0o1600),
            ("longer", 0o1600),
            ("sticky", 0o1600),
            ("used", 0o1644),
        ] {
            fs::write(copy.join(name), if name == "longer" { "somebody's" } else { "who" }).unwrap();
            fs::set_permissions(copy.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::hard_link(copy.join("linked"), place.at(&format!("beside {target}"))).unwrap();
        let done = place.restore_with(&target, &RestoreOptions { overwrite, ..RestoreOptions::default() });
        assert_eq!(done.failures, 0, "{:?}", done.failed);
        let read = |name: &str| fs::read_to_string(copy.join(name)).unwrap();
        let stays = matches!(overwrite, Overwrite::Never | Overwrite::IfNewer);
        let others = if stays { "who" } else { "whole" };
        assert_eq!(
            ["begun", "theirs", "linked", "sticky", "used"].map(read),
            ["whole", others, others, others, others].map(str::to_owned),
            "{target}"
        );
        assert_eq!(read("longer"), if stays { "somebody's" } else { "whole" });
        assert_eq!(fs::metadata(copy.join("begun")).unwrap().mode() & 0o7777, 0o644);
    }
}

#[test]
fn further_names_are_never_linked_to_a_file_that_was_left_alone() {
    let place = Place::new(1);
    place.put("a", b"ours");
    fs::hard_link(place.source().join("a"), place.source().join("b")).unwrap();
    fs::hard_link(place.source().join("a"), place.source().join("c")).unwrap();
    place.back_up(&place.options());
    fs::create_dir_all(place.copy("all")).unwrap();
    fs::write(place.copy("all").join("a"), "theirs").unwrap();
    let options = RestoreOptions { overwrite: Overwrite::Never, ..RestoreOptions::default() };
    let done = place.restore_with("all", &options);
    assert_eq!((done.failures, done.left), (0, 1), "{:?}", done.failed);
    let read = |name: &str| fs::read_to_string(place.copy("all").join(name)).unwrap();
    assert_eq!([read("a"), read("b"), read("c")], ["theirs", "ours", "ours"]);
    assert_eq!(inode(place.copy("all").join("b")), inode(place.copy("all").join("c")));
    assert_eq!(alone(&done), ["b"], "and c is one with it");
    let again = place.restore_with("all", &options);
    assert_eq!(again.left, 3);
    assert_eq!([read("a"), read("b"), read("c")], ["theirs", "ours", "ours"]);
    assert!(again.notes.is_empty());
    // The other way round: what is restored is a file of its own, and what stays is told.
    fs::remove_file(place.copy("all").join("a")).unwrap();
    let done = place.restore_with("all", &options);
    assert_eq!((done.left, read("a")), (2, "ours".to_owned()));
    let said = |note: &str| note.contains("not one file with /") && note.contains("/a,");
    let told: Vec<String> = done.notes.iter().map(|(_, note)| note.to_string()).collect();
    assert!(told.len() == 2 && told.iter().all(|note| said(note)), "{told:?}");
}

/// The last parts of the paths of which it was said that they are files of their own.
fn alone(done: &Restored) -> Vec<String> {
    let said = done.notes.iter().filter(|(_, note)| note.to_string().contains("a file of its own"));
    said.map(|(path, _)| String::from_utf8_lossy(path).rsplit('/').next().unwrap().to_owned()).collect()
}

#[test]
fn a_restore_that_was_killed_before_it_linked_goes_on_with_the_first_name_if_that_is_the_file() {
    let place = Place::new(1);
    place.put("small", b"a file");
    place.put("large", &noise(1, LARGE));
    place.put("thin", b"");
    fs::File::options().write(true).open(place.source().join("thin")).unwrap().set_len(1 << 20).unwrap();
    for name in ["small", "large", "thin"] {
        set_time(&place.source().join(name), 1_000);
        for further in ["x", "y"] {
            let further = place.source().join(format!("{name}-{further}"));
            fs::hard_link(place.source().join(name), further).unwrap();
        }
    }
    place.back_up(&place.options());
    for overwrite in [Overwrite::Never, Overwrite::IfNewer] {
        let target = format!("{overwrite:?}");
        place.restore(&target, "", &[]);
        let copy = place.copy(&target);
        let inodes = |name: &str| {
            [name, &format!("{name}-x"), &format!("{name}-y")].map(|name| inode(copy.join(name)))
        };
        let kill = || {
            for name in ["small", "large", "thin"] {
                drop(fs::remove_file(copy.join(format!("{name}-x"))));
                drop(fs::remove_file(copy.join(format!("{name}-y"))));
            }
        };
        let again = || {
            let options = RestoreOptions { overwrite, ..RestoreOptions::default() };
            let foretold = forecast(&place, &target, &options);
            let done = place.restore_with(&target, &options);
            assert_eq!((done.failures, done.left, foretold.restored.left), (0, 3, 3), "{:?}", done.failed);
            assert_eq!(alone(&done), alone(&foretold.restored));
            (done, foretold.download_bytes)
        };
        kill();
        let (done, downloads) = again();
        assert!(done.notes.is_empty() && downloads == 0, "{:?}", done.notes);
        for name in ["small", "large", "thin"] {
            let [first, x, y] = inodes(name);
            assert!(first == x && first == y, "{target}: {name}");
        }
        same(&place.source(), &copy);

        // Of the same size and time, and another file: in its content, in its mode, in where it has holes.
        kill();
        fs::File::options()
            .write(true)
            .open(copy.join("large"))
            .unwrap()
            .write_all_at(b"theirs", 9 << 20)
            .unwrap();
        set_time(&copy.join("large"), 1_000);
        fs::set_permissions(copy.join("small"), fs::Permissions::from_mode(0o666)).unwrap();
        fs::write(copy.join("thin"), vec![0; 1 << 20]).unwrap();
        set_time(&copy.join("thin"), 1_000);
        let (done, downloads) = again();
        assert_eq!(alone(&done), ["large-x", "small-x", "thin-x"]);
        assert!(downloads > 0);
        for name in ["small", "large", "thin"] {
            let [first, x, y] = inodes(name);
            assert!(first != x && x == y, "{target}: {name}");
            assert!(
                fs::read(copy.join(format!("{name}-x"))).unwrap()
                    == fs::read(place.source().join(name)).unwrap()
            );
        }
    }
}

#[test]
fn what_has_a_name_outside_of_the_target_too_is_never_changed_through_it() {
    let place = Place::new(2);
    furnish(&place);
    place.back_up(&place.options());
    fs::create_dir_all(place.copy("all").join("sub")).unwrap();
    fs::create_dir(place.at("outside")).unwrap();
    let outside = |name: &str| place.at("outside").join(name);
    // One that differs a little, one that has the content already and other permissions, a small one.
    let mut almost = noise(1, LARGE);
    almost[0] ^= 1;
    for (name, bytes) in
        [("large", almost.clone()), ("alone", noise(2, LARGE)), ("sub/other", vec![1; 300_000])]
    {
        let file = outside(&name.replace('/', "-"));
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        set_time(&file, 5);
        fs::hard_link(&file, place.copy("all").join(name)).unwrap();
    }
    symlink(outside("large"), place.copy("all").join(".large.lifeboat-partial")).unwrap();
    let done = place.restore("all", "", &[]);
    assert_eq!(done.failures, 0, "{:?}", done.failed);
    assert!(done.bytes_unchanged > 20 << 20, "what is the same is copied, not read: {done:?}");
    for name in ["large", "alone", "sub-other"] {
        let status = fs::metadata(outside(name)).unwrap();
        assert_eq!((status.mode() & 0o777, status.mtime(), status.nlink()), (0o600, 5, 1), "{name}");
    }
    assert!(fs::read(outside("large")).unwrap() == almost);
    fs::remove_file(place.copy("all").join(".large.lifeboat-partial")).unwrap();
    same(&place.source(), &place.copy("all"));
}

#[test]
fn delete_removes_what_the_snapshot_does_not_have_and_nothing_else() {
    let place = Place::new(1);
    furnish(&place);
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all");
    let clean = names(&place.at("all"));
    fs::create_dir(place.at("outside")).unwrap();
    fs::write(place.at("outside/canary"), "").unwrap();
    let extra = ["0", "many/3/x", "empty/deep/er/y", "zz/z", "sub/link.keep"];
    for name in extra {
        fs::create_dir_all(copy.join(name).parent().unwrap()).unwrap();
        fs::write(copy.join(name), name).unwrap();
    }
    symlink(place.at("outside"), copy.join("sub/out")).unwrap();
    // Above the source, and all that there is of a file.
    let above = copy.parent().unwrap().join("beside");
    fs::write(&above, "").unwrap();
    let unfinished = copy.join(".mine.lifeboat-partial");
    fs::write(&unfinished, "").unwrap();
    let all = names(&place.at("all"));

    let keep =
        || RestoreOptions { selection: Selection::new(&[], &["*.keep".to_owned()]).unwrap(), ..deleting() };
    let foretold = forecast(&place, "all", &keep());
    assert_eq!(names(&place.at("all")), all, "a look removes nothing");
    let done = place.restore_with("all", &keep());
    assert_eq!((done.failures, done.removals), (0, 8), "{:?} {:?}", done.failed, done.removed);
    assert_eq!(foretold.restored.removed, done.removed);
    assert!(copy.join("sub/link.keep").try_exists().unwrap());
    for path in [copy.join("sub/link.keep"), above, unfinished] {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(names(&place.at("all")), clean);
    assert!(place.at("outside/canary").try_exists().unwrap());
    let time = |root: &Path| fs::metadata(root.join("many/3")).unwrap().mtime_nsec();
    assert_eq!(time(&copy), time(&place.source()), "folders get their times after it");

    // By its path: the target is the folder.
    fs::write(copy.join("sub/new"), "").unwrap();
    fs::write(copy.join("many/new"), "").unwrap();
    let subpath = place.source().join("sub").to_str().unwrap().trim_start_matches('/').into();
    let target = copy.join("sub");
    let done = place.restore_with(target.to_str().unwrap(), &RestoreOptions { subpath, ..deleting() });
    assert_eq!(done.removals, 1, "{:?}", done.removed);
    assert!(copy.join("many/new").try_exists().unwrap());
    // Only what is selected.
    fs::write(copy.join("sub/new"), "").unwrap();
    let includes = [format!("{}/many", place.source().display())];
    let selection = Selection::new(&includes, &[]).unwrap();
    assert_eq!(place.restore_with("all", &RestoreOptions { selection, ..deleting() }).removals, 1);
    assert!(copy.join("sub/new").try_exists().unwrap() && !copy.join("many/new").try_exists().unwrap());
    // Without it everything stays.
    assert_eq!(place.restore("all", "", &[]).removals, 0);
    assert!(copy.join("sub/new").try_exists().unwrap());
}

#[test]
fn delete_makes_room_where_a_folder_has_the_name_of_a_file_or_the_other_way_round() {
    let place = Place::new(2);
    furnish(&place);
    fs::hard_link(place.source().join("large"), place.source().join("large-two")).unwrap();
    place.back_up(&place.options());
    let swap = || {
        let copy = place.copy("all");
        fs::create_dir_all(copy.join("alone/in/the/way")).unwrap();
        // A further name of a file.
        fs::create_dir_all(copy.join("large-two/in/the/way")).unwrap();
        fs::create_dir_all(place.at("outside/many")).unwrap();
        symlink(place.at("outside"), copy.join("many")).unwrap();
        fs::write(copy.join("sub"), "a file").unwrap();
    };
    swap();
    let told = |failed: &[(Vec<u8>, lifeboat::error::Error)]| {
        let [(one, error), (two, further)] = failed else { panic!("{failed:?}") };
        assert!(one.ends_with(b"/alone") && two.ends_with(b"/large-two"), "{failed:?}");
        assert!(
            [error, further].iter().all(|error| error.remedy().unwrap().contains("--delete")),
            "{error:?}"
        );
    };
    // Files and links are overwritten; what is in a folder is not.
    told(&forecast(&place, "all", &RestoreOptions::default()).restored.failed);
    told(&place.restore("all", "", &[]).failed);
    assert!(place.copy("all").join("alone/in/the/way").try_exists().unwrap());
    fs::remove_dir_all(place.at("all")).unwrap();
    fs::remove_dir_all(place.at("outside")).unwrap();
    swap();
    let foretold = forecast(&place, "all", &deleting());
    let done = place.restore_with("all", &deleting());
    assert_eq!((done.failures, foretold.restored.failures), (0, 0), "{:?}", done.failed);
    let sorted = |mut paths: Vec<Vec<u8>>| {
        paths.sort();
        paths
    };
    assert_eq!(sorted(done.removed), sorted(foretold.restored.removed));
    same(&place.source(), &place.copy("all"));
    assert_eq!(fs::read_dir(place.at("outside/many")).unwrap().count(), 0);
}

#[test]
fn a_folder_goes_only_when_what_replaces_it_is_whole() {
    let place = Place::new(1);
    for (name, bytes) in [("large", noise(1, LARGE)), ("small", noise(2, 5000)), ("fine", Vec::new())] {
        place.put(name, &bytes);
    }
    let socket = std::os::unix::net::UnixListener::bind(place.source().join("socket")).unwrap();
    place.back_up(&place.options());
    lose_all_data(&place);
    let copy = place.copy("all");
    let names = ["large", "small", "fine", "socket"];
    names.iter().for_each(|name| fs::create_dir_all(copy.join(name).join("in it")).unwrap());
    let done = place.restore_with("all", &deleting());
    let still = names.map(|name| copy.join(name).join("in it").exists());
    // Nothing replaces the one in the place of a socket, which is as if the snapshot did not have its name.
    assert_eq!(still, [true, true, false, false], "{:?}", done.failed);
    assert!(copy.join("fine").is_file());
    let damaged = |name: &str| copy.join(name).try_exists().unwrap();
    assert!(damaged("large.damaged") && damaged("small.damaged"), "{:?}", done.failed);
    let left = self::names(&copy).into_iter().filter(|path| path.to_str().unwrap().contains("lifeboat"));
    assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    drop(socket);
}

/// Names that restores give to what they have in hand.
fn left_behind(root: &Path) -> Vec<PathBuf> {
    names(root).into_iter().filter(|path| path.to_str().unwrap().contains("lifeboat")).collect()
}

#[test]
fn what_gives_way_to_a_file_is_chosen_by_its_own_path() {
    let place = Place::new(2);
    place.put("large", &noise(1, LARGE));
    place.put("small", b"small");
    symlink("/nowhere", place.source().join("link")).unwrap();
    fs::hard_link(place.source().join("small"), place.source().join("too")).unwrap();
    place.back_up(&place.options());
    let names = ["large", "link", "small", "too"];
    let strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let anchored: Vec<String> =
        names.iter().map(|name| format!("{}/{name}", place.source().display())).collect();
    for (includes, excludes) in
        [(vec![], strings(&[".l*"])), (anchored, vec![]), (strings(&names), strings(&[".l*"]))]
    {
        let copy = place.copy("all");
        names.iter().for_each(|name| fs::create_dir_all(copy.join(name).join("in/it")).unwrap());
        let selection = || Selection::new(&includes, &excludes).unwrap();
        let options = || RestoreOptions { selection: selection(), workers: 2, ..deleting() };
        let foretold = forecast(&place, "all", &options()).restored;
        let done = place.restore_with("all", &options());
        assert_eq!((done.failures, foretold.failures), (0, 0), "{:?}", done.failed);
        assert_eq!((done.removals, foretold.removals), (12, 12), "{:?}", done.removed);
        assert_eq!(left_behind(&copy), Vec::<PathBuf>::new());
        same(&place.source(), &copy);
        fs::remove_dir_all(place.at("all")).unwrap();
    }
}

/// A clock at which somebody else writes into the target as soon as a file is being restored there.
struct Busy {
    folder: PathBuf,
    file: PathBuf,
}

impl Clock for Busy {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn elapsed(&self) -> Duration {
        if !self.file.try_exists().unwrap() && !left_behind(&self.folder).is_empty() {
            fs::create_dir_all(self.file.parent().unwrap()).unwrap();
            fs::write(&self.file, "of somebody").unwrap();
        }
        SystemClock.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration);
    }
}

#[test]
fn what_comes_into_a_folder_and_is_excluded_stays_where_it_is_whenever_it_comes() {
    for size in [5000, LARGE] {
        let place = Place::new(1);
        place.put("file", &noise(1, size));
        place.back_up(&place.options());
        let copy = place.copy("all");
        let (kept, gone) = (copy.join("file/kept/mine"), copy.join("file/gone"));
        fs::create_dir_all(&gone).unwrap();
        let excludes = [format!("{}/file/kept", place.source().display())];
        let options = || RestoreOptions { selection: Selection::new(&[], &excludes).unwrap(), ..deleting() };
        let clock = Busy { folder: copy.clone(), file: kept.clone() };
        let repository = place.open_at(Arc::new(clock));
        let done =
            restore::run(&repository, &place.newest(&repository), &place.at("all"), &options()).unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"of somebody");
        assert!(!gone.try_exists().unwrap(), "it came when the folder was found fit to go");
        let [(path, error)] = &done.failed[..] else { panic!("{:?}", done.failed) };
        assert!(path.ends_with(b"/file") && error.to_string().contains("not to go"), "{error}");
        // From now on it is known before.
        let done = place.restore_with("all", &options());
        assert_eq!((done.failures, done.removals), (1, 0), "{:?}", done.failed);
        assert!(kept.try_exists().unwrap());
        fs::remove_dir_all(copy.join("file/kept")).unwrap();
        assert_eq!(place.restore_with("all", &options()).failures, 0);
        same(&place.source(), &copy);
    }
}

#[test]
fn an_include_that_only_something_in_the_way_matches_has_found_nothing() {
    let place = Place::new(1);
    place.put("file", b"file");
    place.put("other", b"other");
    place.back_up(&place.options());
    let copy = place.copy("all");
    fs::create_dir_all(copy.join("file")).unwrap();
    fs::write(copy.join("file/extra.typo"), "").unwrap();
    fs::write(copy.join("beside.typo"), "").unwrap();
    let includes = [format!("{}/file", place.source().display()), "*.typo".to_owned()];
    let options = RestoreOptions { selection: Selection::new(&includes, &[]).unwrap(), ..deleting() };
    place.restore_with("all", &options);
    assert_eq!(options.selection.unmatched().patterns, ["*.typo"]);
    assert!(copy.join("beside.typo").try_exists().unwrap());
}

#[test]
fn an_immutable_file_takes_the_place_of_a_folder_and_is_frozen_then() {
    let place = Place::new(1);
    place.put("small", b"small");
    place.put("large", &noise(1, LARGE));
    let chattr = |flag: &str, path: &Path| {
        std::process::Command::new("chattr").arg(flag).arg(path).status().is_ok_and(|status| status.success())
    };
    let names = ["small", "large"];
    if !names.iter().all(|name| chattr("+i", &place.source().join(name))) {
        skip("a frozen file: nothing can be made immutable here");
        return;
    }
    place.back_up(&place.options());
    let copy = place.copy("all");
    names.iter().for_each(|name| fs::create_dir_all(copy.join(name).join("in it")).unwrap());
    // As runs before this one have left it.
    let leftover = copy.join(".lifeboat-0123456789abcdef.partial");
    fs::write(&leftover, "").unwrap();
    assert!(chattr("+i", &leftover));
    // Older versions moved folders aside.
    fs::create_dir_all(copy.join(".lifeboat-fedcba9876543210.partial/in it")).unwrap();
    let done = place.restore_with("all", &deleting());
    // What is frozen cannot get another flag.
    let frozen = names.map(|name| !chattr("+d", &copy.join(name)));
    let left = left_behind(&copy);
    let again = place.restore_with("all", &deleting());
    for root in [place.source(), copy.clone()] {
        names.iter().for_each(|name| assert!(chattr("-i", &root.join(name))));
    }
    chattr("-i", &leftover);
    assert_eq!((done.failures, again.failures), (0, 0), "{:?} {:?}", done.failed, again.failed);
    assert_eq!((frozen, left), ([true, true], Vec::new()));
    same(&place.source(), &copy);
}

#[test]
fn what_is_as_it_should_be_is_not_touched() {
    let place = Place::new(2);
    furnish(&place);
    let program = place.source().join("sub/program");
    fs::write(&program, "x").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o2755)).unwrap();
    let set = |path: &Path, name: &str, value: &str| {
        rustix::fs::setxattr(path, name, value.as_bytes(), rustix::fs::XattrFlags::empty()).is_ok()
    };
    let attributes = set(&program, "user.one", "1") && set(&place.source().join("large"), "user.two", "2");
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all");
    // Those of links change, which are made anew, and of the folders that they are in.
    let same_folder = ["many/3", "empty"].map(PathBuf::from);
    let touched = || {
        let names =
            names(&copy).into_iter().filter(|name| copy.join(name).is_file() || same_folder.contains(name));
        let of = |name: PathBuf| {
            let status = fs::symlink_metadata(copy.join(&name)).unwrap();
            (name, (status.ctime(), status.ctime_nsec()))
        };
        names.map(of).collect::<Vec<_>>()
    };
    let before = touched();
    assert!(before.len() >= 65, "{before:?}");
    let done = place.restore("all", "", &[]);
    assert_eq!((done.failures, done.files, done.files_unchanged), (0, 65, 65));
    assert_eq!(touched(), before);
    // What differs is set, and nothing that depends on it is lost.
    fs::set_permissions(copy.join("sub/program"), fs::Permissions::from_mode(0o600)).unwrap();
    set(&copy.join("sub/program"), "user.one", "other");
    set(&copy.join("sub/program"), "user.three", "3");
    set_time(&copy.join("large"), 1);
    fs::set_permissions(copy.join("many/3"), fs::Permissions::from_mode(0o700)).unwrap();
    place.restore("all", "", &[]);
    same(&place.source(), &copy);
    let of = |root: &Path, name: &str| {
        let status = fs::metadata(root.join(name)).unwrap();
        let mut value = [0; 9];
        let length = rustix::fs::getxattr(root.join(name), "user.one", &mut value).unwrap_or(0);
        let listed = rustix::fs::listxattr(root.join(name), &mut [0_u8; 100]).unwrap_or(0);
        (status.mode(), status.mtime(), status.mtime_nsec(), value, length, listed)
    };
    for name in ["sub/program", "large", "many/3"] {
        assert_eq!(of(&place.source(), name), of(&copy, name), "{name}");
    }
    if !attributes {
        skip("attributes: this file system has none");
    }
}

#[test]
fn what_is_not_to_be_overwritten_keeps_what_would_be_below_it_away() {
    let place = Place::new(2);
    furnish(&place);
    place.back_up(&place.options());
    let copy = place.copy("all");
    fs::create_dir_all(place.at("outside")).unwrap();
    fs::create_dir_all(&copy).unwrap();
    symlink(place.at("outside"), copy.join("many")).unwrap();
    fs::write(copy.join("sub"), "mine").unwrap();
    for overwrite in [Overwrite::Never, Overwrite::IfNewer] {
        let options = RestoreOptions { overwrite, ..RestoreOptions::default() };
        let foretold = forecast(&place, "all", &options);
        let done = place.restore_with("all", &options);
        assert_eq!((done.failures, foretold.restored.failures), (0, 0), "{:?}", done.failed);
        // 60 files in 7 folders, and what was in the other one.
        assert!(done.left >= 60 + 7 + 2 + 2, "{}", done.left);
        assert_eq!(fs::read_dir(place.at("outside")).unwrap().count(), 0);
        assert_eq!(fs::read(copy.join("sub")).unwrap(), b"mine");
    }
    assert_eq!(place.restore("all", "", &[]).failures, 0);
    same(&place.source(), &copy);
}

#[test]
fn names_of_unfinished_files_in_a_snapshot_are_those_of_files_like_others() {
    for workers in [1, 3] {
        let place = Place::new(workers);
        let unfinished = [".large.lifeboat-partial", ".-first.lifeboat-partial"];
        for (seed, name) in (1..).zip(["large", "-first"].into_iter().chain(unfinished)) {
            place.put(name, &noise(seed, LARGE));
        }
        place.put(".lifeboat-0123456789abcdef.partial", b"moments");
        place.back_up(&place.options());
        let copy = place.copy("all");
        for _ in 0..2 {
            for options in [RestoreOptions::default(), deleting()] {
                let done = place.restore_with("all", &RestoreOptions { workers, ..options });
                assert_eq!((done.failures, done.removals), (0, 0), "{:?}", done.failed);
                same(&place.source(), &copy);
                // The next one rewrites what differs, or makes it anew.
                let file = fs::File::options().write(true).open(copy.join("large")).unwrap();
                file.write_all_at(b"another", 5 << 20).unwrap();
            }
            // By its path, where the target is the folder.
            let subpath = place.source().to_str().unwrap().trim_start_matches('/').into();
            let options = RestoreOptions { subpath, workers, ..deleting() };
            let done = place.restore_with(copy.to_str().unwrap(), &options);
            assert_eq!((done.failures, done.removals), (0, 0), "{:?}", done.failed);
            same(&place.source(), &copy);
            fs::remove_file(copy.join("-first")).unwrap();
        }
    }
}

#[test]
fn a_file_that_is_kept_is_frozen_again() {
    let world = World::with_repository();
    fs::write(world.path("src/frozen"), "x").unwrap();
    let chattr = |flag: &str, path: &Path| {
        std::process::Command::new("chattr").arg(flag).arg(path).status().is_ok_and(|status| status.success())
    };
    if !chattr("+i", &world.path("src/frozen")) {
        skip("a frozen file: nothing can be made immutable here");
        return;
    }
    world.does(&["backup", "src"]);
    let source = format!("latest:{}", world.text("src"));
    let restore = ["restore", source.as_str(), "--target", "copy"];
    world.does(&restore);
    let copy = world.path("copy/frozen");
    let frozen = || !chattr("+d", &copy);
    assert!(frozen(), "it cannot get another flag");
    // Another name keeps it from being rewritten: it is as it should be, and stays.
    assert!(chattr("-i", &copy));
    fs::hard_link(&copy, world.path("beside")).unwrap();
    assert!(chattr("+i", &copy));
    world.does(&restore);
    let still = frozen();
    fs::write(world.path("copy/extra"), "").unwrap();
    fs::create_dir(world.path("copy/more")).unwrap();
    fs::write(world.path("copy/more/deep"), "").unwrap();
    assert!(chattr("+i", &world.path("copy/extra")) && chattr("+i", &world.path("copy/more/deep")));
    let arguments = [&restore[..], &["--delete", "--plan"]].concat();
    let (_, planned) = world.ends(&mut world.command(&arguments), 3);
    let (out, err) = world.ends(&mut world.command(&arguments[..arguments.len() - 1]), 3);
    for path in ["src/frozen", "copy/frozen", "copy/extra", "copy/more/deep"] {
        chattr("-i", &world.path(path));
    }
    assert!(still);
    // What was to go is named once; what is in it, by the whole of its path.
    let more = format!("more: {}/more/deep is immutable", world.text("src"));
    for said in [planned, out + &err] {
        for told in ["extra: it is immutable", &more, "chattr"] {
            assert!(said.contains(told), "{told}: {said}");
        }
    }
}

#[test]
fn a_frozen_file_stays_frozen_for_its_other_names() {
    let place = Place::new(1);
    for name in ["f", "twin", "was-file/in", "folder/a"] {
        place.put(name, b"right");
    }
    fs::hard_link(place.source().join("twin"), place.source().join("twin-too")).unwrap();
    let chattr = |flag: &str, path: &Path| {
        std::process::Command::new("chattr").arg(flag).arg(path).status().is_ok_and(|status| status.success())
    };
    if !chattr("+i", &place.source().join("twin")) {
        skip("a frozen file: nothing can be made immutable here");
        return;
    }
    place.back_up(&place.options());
    assert!(chattr("-i", &place.source().join("twin")));
    for (target, options) in [("cleared", deleting()), ("kept", RestoreOptions::default())] {
        assert_eq!(place.restore(target, "", &[]).failures, 0);
        let copy = place.copy(target);
        let at = |name: &str| copy.join(name);
        assert!(chattr("-i", &at("twin")));
        fs::remove_file(at("twin-too")).unwrap();
        fs::remove_dir_all(at("was-file")).unwrap();
        fs::write(at("was-file"), "something").unwrap();
        fs::write(at("f"), "precious").unwrap();
        fs::create_dir(at("folder/extra")).unwrap();
        for (name, other) in [("f", "folder/extra/keepme"), ("twin", "keep-twin"), ("was-file", "keep-file")]
        {
            fs::hard_link(at(name), at(other)).unwrap();
            assert!(chattr("+i", &at(name)));
        }
        let others = ["folder/extra/keepme", "keep-twin", "keep-file"];
        let planned = forecast(&place, target, &options).restored.failures;
        let done = place.restore_with(target, &options);
        let stays: Vec<_> = others.map(|name| fs::read_to_string(at(name)).unwrap_or_default()).into();
        let frozen = others.map(|name| !chattr("+d", &at(name)));
        let content =
            ["f", "twin", "was-file/in"].map(|name| fs::read_to_string(at(name)).unwrap_or_default());
        let is_twin = fs::metadata(at("twin-too")).is_ok_and(|twin| twin.ino() == inode(at("twin")));
        std::process::Command::new("chattr").args(["-R", "-i"]).arg(&copy).output().unwrap();
        assert_eq!(stays, ["precious", "right", "something"], "{target}");
        assert_eq!(
            (frozen, content),
            ([true; 3], ["right"; 3].map(str::to_owned)),
            "{target}: {:?}",
            done.failed
        );
        assert!(is_twin, "{:?}", done.notes);
        // With --delete each is named: what is frozen stays.
        let told = if target == "cleared" { 3 } else { 0 };
        assert_eq!((planned, done.failures), (told, told), "{:?}", done.failed);
    }
}

#[test]
fn what_is_left_out_of_a_frozen_file_is_told_the_first_time_too() {
    let world = World::with_repository();
    let [source, copy] = ["src/frozen", "copy/frozen"].map(|path| world.path(path));
    fs::write(&source, "x").unwrap();
    let chattr = |flag: &str, path: &Path| {
        std::process::Command::new("chattr").arg(flag).arg(path).status().is_ok_and(|status| status.success())
    };
    let is_anothers = std::os::unix::fs::chown(&source, Some(1000), Some(4242)).is_ok();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o2775)).unwrap();
    if !is_anothers || !chattr("+a", &source) {
        skip("a frozen file: nothing can be made immutable here");
        return;
    }
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    let restore = ["restore", from.as_str(), "--target", "copy", "--no-ownership"];
    let said = [(); 2].map(|()| world.ends(&mut world.command(&restore), 3).1);
    for path in [&source, &copy] {
        chattr("-a", path);
    }
    assert!(said.iter().all(|said| said.contains("setuid or setgid")), "{said:?}");
}

#[test]
fn a_file_is_not_rewritten_where_the_group_may_open_it_and_the_acl_of_the_snapshot_keeps_it_out() {
    let place = Place::new(1);
    place.put("large", &noise(1, LARGE));
    let entry = |tag: u16, rights: u16, id: u32| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let acl = [(1, 6, none), (2, 7, 12_345), (4, 0, none), (16, 7, none), (32, 0, none)];
    let acl: Vec<u8> = acl.into_iter().flat_map(|(tag, rights, id)| entry(tag, rights, id)).collect();
    let acl = [&2_u32.to_le_bytes()[..], &acl].concat();
    let set = rustix::fs::setxattr(
        place.source().join("large"),
        "system.posix_acl_access",
        &acl,
        rustix::fs::XattrFlags::empty(),
    );
    if set.is_err() {
        skip("an ACL: this file system has none");
        return;
    }
    place.back_up(&place.options());
    let copy = place.copy("all").join("large");
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    let mut bytes = noise(1, LARGE);
    bytes[5] ^= 1;
    for (mode, kept) in [(0o660, false), (0o600, true)] {
        fs::write(&copy, &bytes).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).unwrap();
        let before = inode(&copy);
        assert_eq!(place.restore("all", "", &[]).failures, 0);
        same(&place.source(), copy.parent().unwrap());
        assert_eq!(inode(&copy) == before, kept, "{mode:o}");
        fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn a_plan_counts_the_room_of_what_stays_until_the_new_file_is_whole() {
    let place = Place::new(1);
    place.put("large", &noise(1, LARGE));
    place.back_up(&place.options());
    let needed = |place: &Place| forecast(place, "all", &RestoreOptions::default()).space_needed;
    let large = LARGE as u64;
    // New folders and names take some too.
    assert!((large..large + (64 << 10)).contains(&needed(&place)));
    place.restore("all", "", &[]);
    assert_eq!(needed(&place), 0);
    let copy = place.copy("all").join("large");
    fs::File::options().write(true).open(&copy).unwrap().write_all_at(b"another", 5).unwrap();
    assert_eq!(needed(&place), 0, "it is rewritten where it is");
    fs::hard_link(&copy, place.at("beside")).unwrap();
    assert_eq!(needed(&place), large, "the other name keeps the old bytes");
    fs::remove_file(place.at("beside")).unwrap();
    fs::File::options().write(true).open(&copy).unwrap().set_len(large / 2).unwrap();
    assert_eq!(needed(&place), large / 2);
    fs::rename(&copy, copy.with_file_name(".large.lifeboat-partial")).unwrap();
    // But for its name.
    assert!((large / 2..=large / 2 + 4096).contains(&needed(&place)), "what is left is gone on with");
}

#[test]
fn a_plan_has_room_for_what_keeps_its_bytes_under_another_name() {
    let place = Place::new(1);
    fs::create_dir(place.at("elsewhere")).unwrap();
    let numbers = || (0..40).map(|number| number.to_string());
    numbers().for_each(|name| place.put(&name, &[&noise(1, 50_000)[..], name.as_bytes()].concat()));
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    for name in numbers() {
        let path = place.copy("all").join(&name);
        fs::write(&path, noise(2, 50_000)).unwrap();
        fs::hard_link(path, place.at("elsewhere").join(&name)).unwrap();
    }
    let needed = forecast(&place, "all", &RestoreOptions::default()).space_needed;
    assert!(needed >= 40 * 50_000, "{needed}");
    // Names take room though nothing is in the files.
    place.put("empty", b"");
    (0..2000).for_each(|number| {
        let name = format!("{number}{}", "x".repeat(200));
        fs::hard_link(place.source().join("empty"), place.source().join(name)).unwrap();
    });
    place.back_up(&place.options());
    let subpath = || place.source().to_str().unwrap().trim_start_matches('/').into();
    let selection = Selection::new(&[format!("{}/*x", place.source().display())], &[]).unwrap();
    let options = RestoreOptions { subpath: subpath(), selection, ..RestoreOptions::default() };
    let foretold = forecast(&place, "names", &options);
    assert!(foretold.space_needed >= 2000 * 204, "{foretold:?}");
    assert_eq!((foretold.files, foretold.bytes), (2000, 0));
}

#[test]
fn a_plan_locks_nothing_and_asks_for_no_lock() {
    use rustix::fs::{FlockOperation, flock};
    let place = Place::new(1);
    place.put("large", &noise(1, LARGE));
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all").join("large");
    let file = fs::File::options().write(true).open(&copy).unwrap();
    file.write_all_at(b"another", 5).unwrap();
    // Somebody has the locks: that only keeps away who asks for them.
    let root = fs::File::open(place.at("all")).unwrap();
    for locked in [&file, &root] {
        flock(locked, FlockOperation::NonBlockingLockExclusive).unwrap();
    }
    assert_eq!(forecast(&place, "all", &RestoreOptions::default()).space_needed, 0);
}

#[test]
fn a_plan_tells_what_a_restore_would_note_as_far_as_it_is_known() {
    let test = "a_plan_tells_what_a_restore_would_note_as_far_as_it_is_known";
    if ordinary::is_done_as_ordinary_user(test) {
        return;
    }
    let place = Place::new(1);
    for name in ["alien", "group", "setuid", "program", "frozen", "mine", "lacking"] {
        place.put(name, name.as_bytes());
    }
    let pipe = place.source().join("pipe");
    let mode = 0o600.into();
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let change = |path: &[u8], metadata: &mut Metadata| {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap();
        metadata.user = String::new();
        metadata.group = String::new();
        match name {
            b"alien" => metadata.uid = 1,
            b"group" => metadata.gid = 1,
            b"setuid" => (metadata.uid, metadata.mode) = (1, 0o4755),
            b"program" => metadata.xattrs.push((b"security.capability".to_vec(), CAPABILITY.to_vec())),
            b"lacking" => metadata.lacks = Some("user.x".to_owned()),
            b"mine" => metadata.xattrs.push((b"trusted.x".to_vec(), b"1".to_vec())),
            b"pipe" => {
                (metadata.kind, metadata.device_number) = (EntryKind::CharacterDevice, 1 << 32 | 3);
            }
            _ => {}
        }
    };
    back_up_changed(&place, change);
    let foretold = forecast(&place, "all", &RestoreOptions::default()).restored;
    let done = place.restore("all", "", &[]);
    let told = |mut notes: Vec<(Vec<u8>, Note)>| {
        notes.retain(|(path, _)| path.starts_with(&place.source().as_os_str().as_encoded_bytes()[1..]));
        let mut told: Vec<_> = notes.into_iter().map(|(path, note)| (path, note.to_string())).collect();
        told.sort();
        told
    };
    let failed = |failed: &[(Vec<u8>, lifeboat::error::Error)]| {
        failed.iter().map(|(path, error)| (path.clone(), error.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(failed(&foretold.failed), failed(&done.failed));
    assert!(done.failures == 1 && done.failed[0].0.ends_with(b"/pipe"), "{:?}", done.failed);
    assert_eq!(told(foretold.notes), told(done.notes));
    assert_eq!(foretold.unset, done.unset);
    assert!(done.unset >= 7, "{}", done.unset);
}

/// A file capability that gives nothing.
const CAPABILITY: [u8; 20] = [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn names_of_what_is_in_a_closed_folder_come_back_as_one_file() {
    if ordinary::is_done_as_ordinary_user("names_of_what_is_in_a_closed_folder_come_back_as_one_file") {
        return;
    }
    for workers in [1, 3] {
        let place = Place::new(workers);
        place.put("closed/in/first", b"one file");
        fs::hard_link(place.source().join("closed/in/first"), place.source().join("closed/later")).unwrap();
        fs::hard_link(place.source().join("closed/in/first"), place.source().join("second")).unwrap();
        place.put("z", b"another");
        back_up_changed(&place, |path, metadata| {
            let of = |name: &[u8]| path.ends_with(name);
            metadata.mode = match metadata.mode {
                _ if of(b"/closed") => 0,
                _ if of(b"/in") => 0o600,
                mode => mode,
            };
        });
        let copy = place.copy("all");
        for round in 0..3 {
            let foretold = forecast(&place, "all", &deleting());
            let Forecast { restored, files, .. } = foretold;
            assert_eq!((restored.failures, files), (0, 4), "{:?}", restored.failed);
            let hidden = restored.notes.iter().filter(|(_, note)| note.to_string().contains("closed to you"));
            assert_eq!(hidden.count(), usize::from(round > 0));
            let done = place.restore_with("all", &RestoreOptions { workers, ..deleting() });
            assert_eq!(
                (done.failures, done.unset, done.files),
                (0, 0, 4),
                "{:?} {:?}",
                done.failed,
                done.notes
            );
            assert_eq!(mode(&copy.join("closed")), 0);
            set_mode(&copy.join("closed"), 0o700);
            assert_eq!(mode(&copy.join("closed/in")), 0o600);
            set_mode(&copy.join("closed/in"), 0o700);
            let inodes = ["closed/in/first", "closed/later", "second"].map(|name| inode(copy.join(name)));
            assert_eq!(inodes, [inodes[0]; 3]);
            if round == 0 {
                fs::remove_file(copy.join("second")).unwrap();
            }
            set_mode(&copy.join("closed/in"), 0o600);
            set_mode(&copy.join("closed"), 0);
        }
        set_mode(&copy.join("closed"), 0o700);
        set_mode(&copy.join("closed/in"), 0o700);
    }
}

#[test]
fn a_further_name_in_a_closed_folder_comes_back_though_the_first_one_could_not() {
    let test = "a_further_name_in_a_closed_folder_comes_back_though_the_first_one_could_not";
    if ordinary::is_done_as_ordinary_user(test) {
        return;
    }
    let place = Place::new(1);
    place.put("closed/later", b"one file");
    place.put("closed/other", b"not asked for");
    place.put("a/first", b"");
    fs::remove_file(place.source().join("a/first")).unwrap();
    fs::hard_link(place.source().join("closed/later"), place.source().join("a/first")).unwrap();
    place.back_up(&place.options());
    let copy = place.copy("all");
    fs::create_dir_all(copy.join("a/first/in the way")).unwrap();
    fs::create_dir_all(copy.join("closed")).unwrap();
    set_mode(&copy.join("closed"), 0);
    let done = place.restore("all", "", &["first", "later"]);
    assert_eq!((done.failures, done.files), (1, 1), "{:?}", done.failed);
    assert_eq!(mode(&copy.join("closed")), mode(&place.source().join("closed")));
    assert_eq!(fs::read(copy.join("closed/later")).unwrap(), b"one file");
}

#[test]
fn a_closed_folder_that_could_not_be_replaced_is_closed_again() {
    if ordinary::is_done_as_ordinary_user("a_closed_folder_that_could_not_be_replaced_is_closed_again") {
        return;
    }
    let place = Place::new(1);
    place.put("file", &noise(1, 9000));
    place.back_up(&place.options());
    lose_all_data(&place);
    let file = place.copy("all").join("file");
    fs::create_dir_all(file.join("in it")).unwrap();
    for closed in [0, 0o500] {
        set_mode(&file, closed);
        let done = place.restore_with("all", &deleting());
        assert_eq!((done.failures, done.removals), (1, 0), "{:?}", done.failed);
        assert_eq!(mode(&file), closed);
    }
    set_mode(&file, 0o700);
    assert!(file.join("in it").is_dir());
}

#[test]
fn a_frozen_file_that_could_not_be_replaced_is_frozen_again() {
    let place = Place::new(1);
    for name in ["immutable", "append"] {
        place.put(name, &noise(1, 9000));
    }
    place.back_up(&place.options());
    lose_all_data(&place);
    let copy = place.copy("all");
    fs::create_dir_all(&copy).unwrap();
    let chattr = |flag: &str, name: &str| {
        let path = copy.join(name);
        std::process::Command::new("chattr").arg(flag).arg(path).status().is_ok_and(|status| status.success())
    };
    for name in ["immutable", "append"] {
        fs::write(copy.join(name), "theirs").unwrap();
    }
    if !chattr("+i", "immutable") || !chattr("+a", "append") {
        skip("a frozen file: nothing can be made immutable here");
        return;
    }
    let done = place.restore("all", "", &[]);
    let may = |name: &str, append: bool| {
        let how = fs::File::options().write(!append).append(append).open(copy.join(name));
        how.is_ok()
    };
    let may = [may("immutable", true), may("append", true), may("append", false)];
    assert!(chattr("-i", "immutable") && chattr("-a", "append"));
    assert_eq!(done.failures, 2, "{:?}", done.failed);
    assert_eq!(may, [false, true, false]);
    assert_eq!(fs::read(copy.join("immutable")).unwrap(), b"theirs");
}

#[test]
fn what_is_there_already_is_kept_though_its_owner_may_not_read_it() {
    if ordinary::is_done_as_ordinary_user("what_is_there_already_is_kept_though_its_owner_may_not_read_it") {
        return;
    }
    let place = Place::new(1);
    let names = ["none", "write", "read"];
    names.iter().for_each(|name| place.put(name, name.as_bytes()));
    place.put("large", &noise(1, LARGE));
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all");
    for overwrite in [Overwrite::IfChanged, Overwrite::Always] {
        for (name, mode) in names.into_iter().chain(["large"]).zip([0, 0o200, 0o400, 0]) {
            set_mode(&copy.join(name), mode);
        }
        let done = place.restore_with("all", &RestoreOptions { overwrite, ..RestoreOptions::default() });
        assert_eq!((done.failures, done.unset), (0, 0), "{:?}", done.failed);
        assert_eq!(done.files_unchanged, if overwrite == Overwrite::IfChanged { 4 } else { 1 });
        same(&place.source(), &copy);
        assert_eq!(mode(&copy.join("none")), mode(&place.source().join("none")));
    }
}

#[test]
fn a_closed_folder_in_the_way_is_no_failure_of_the_plan_and_goes_only_with_delete() {
    let test = "a_closed_folder_in_the_way_is_no_failure_of_the_plan_and_goes_only_with_delete";
    if ordinary::is_done_as_ordinary_user(test) {
        return;
    }
    let place = Place::new(1);
    place.put("file", b"a file");
    place.put("empty", b"a file");
    place.put("in/file", b"a file");
    place.back_up(&place.options());
    let copy = place.copy("all");
    let closed = ["file", "extra", "empty"].map(|name| copy.join(name));
    fs::create_dir_all(closed[0].join("below")).unwrap();
    fs::create_dir_all(closed[1].join("below")).unwrap();
    fs::create_dir_all(&closed[2]).unwrap();
    set_mode(&closed[0].join("below"), 0);
    closed.iter().for_each(|path| set_mode(path, 0));
    let foretold = forecast(&place, "all", &RestoreOptions::default()).restored;
    assert_eq!(foretold.failures, 0, "{:?}", foretold.failed);
    let closed_notes = foretold.notes.iter().filter(|(_, note)| note.to_string().contains("closed to you"));
    assert_eq!(closed_notes.count(), 2, "{:?}", foretold.notes);
    let done = place.restore("all", "", &[]);
    assert_eq!(done.failures, 1, "{:?}", done.failed);
    assert!(done.failed[0].1.remedy().unwrap().contains("--delete"));
    assert_eq!((mode(&closed[0]), closed[2].is_file()), (0, true));
    let foretold = forecast(&place, "all", &deleting()).restored;
    let done = place.restore_with("all", &deleting());
    assert_eq!((foretold.failures, done.failures), (0, 0), "{:?} {:?}", foretold.failed, done.failed);
    // Nobody sees before what is in it.
    assert_eq!((foretold.removals, done.removals), (2, 4), "{:?} {:?}", foretold.removed, done.removed);
    same(&place.source(), &copy);
}

#[test]
fn a_target_that_is_none_is_told_with_what_to_do() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    fs::write(world.path("file"), "").unwrap();
    for target in ["file", "file/below"] {
        for dry in [&["--dry-run"][..], &[]] {
            let arguments = [&["restore", "latest", "--target", target][..], dry].concat();
            let (_, err) = world.ends(&mut world.command(&arguments), 1);
            assert!(err.contains("Not a directory") && err.contains("name a folder"), "{err}");
        }
    }
}

#[test]
fn nothing_is_removed_where_something_could_not_be_restored_or_is_not_known() {
    let place = Place::new(1);
    for number in 0..900 {
        place.put(&format!("many/{number:03}"), format!("{number}").as_bytes());
    }
    place.put("bad/lost", &noise(5, 100));
    place.put("fine/x", b"fine");
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all");
    let extra = ["many/5x", "bad/extra", "fine/extra", "extra"].map(|name| copy.join(name));
    let there = || extra.clone().map(|path| path.try_exists().unwrap());
    extra.iter().for_each(|path| fs::write(path, "").unwrap());
    // The file that stands there differs, and what it was is lost.
    fs::write(copy.join("bad/lost"), "other").unwrap();
    lose_all_data(&place);
    let done = place.restore_with("all", &deleting());
    assert_eq!((done.failures, done.removals), (1, 3), "{:?} {:?}", done.failed, done.removed);
    assert_eq!(there(), [false, true, false, false]);

    // A node of the manifest is damaged: its folder and those above keep what they have.
    let place = Place::new(1);
    for number in 0..900 {
        place.put(&format!("many/{number:03}"), format!("{number}").as_bytes());
    }
    place.put("fine/x", b"fine");
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all");
    let extra = ["many/5x", "fine/extra", "extra"].map(|name| copy.join(name));
    extra.iter().for_each(|path| fs::write(path, "").unwrap());
    let store = place.store();
    let packs = store.list(&Prefix::all()).unwrap().into_iter().filter(|o| o.name.contains("/packs/m/"));
    let path = place.at("repository").join(packs.max_by_key(|pack| pack.size).unwrap().name);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let whole = fs::read(&path).unwrap();
    let (mut tried, mut kept) = (0, 0);
    for at in (0..whole.len()).step_by(whole.len() / 24) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        drop(fs::remove_dir_all(place.at("cache")));
        let repository = place.open();
        let done = restore::run(&repository, &place.newest(&repository), &place.at("all"), &deleting());
        let Ok(done) = done else { continue };
        if done.gaps > 0 {
            assert!(extra[2].try_exists().unwrap(), "{:?}", done.removed);
            // Names of the folder are in several nodes: one that is lost leaves all that is in it.
            kept += usize::from(extra[0].try_exists().unwrap());
            tried += 1;
        }
        for path in &extra {
            fs::write(path, "").unwrap();
        }
        for path in done.removed {
            assert!(
                extra.iter().any(|extra| extra.as_os_str().as_encoded_bytes().ends_with(&path)),
                "{path:?}"
            );
        }
    }
    assert!(tried > 3 && kept > 0, "{tried}, {kept}");
}

#[test]
fn the_repository_stays_whatever_is_deleted_around_it() {
    let world = World::with_repository();
    fs::rename(world.path("repo"), world.path("src/repo")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("LIFEBOAT_REPOSITORY", world.path("src/repo"));
        world.ends(&mut command, 0).0
    };
    run(&["backup", "src"]);
    fs::write(world.path("src/deep/new"), "").unwrap();
    let from = format!("latest:{}", world.text("src"));
    let arguments = ["restore", &from, "--target", "src", "--delete"];
    let out = run(&[&arguments[..], &["--plan"]].concat());
    assert!(out.contains(&format!("- {}", world.text("src/deep/new"))), "{out}");
    assert!(out.contains("1 entry to be removed") && out.contains("are free"), "{out}");
    assert!(world.path("src/deep/new").try_exists().unwrap());
    let out = run(&[&arguments[..], &["--verify"]].concat());
    assert!(out.contains("1 entry removed"), "{out}");
    run(&["verify", "latest"]);
    run(&["snapshots"]);
}

#[test]
fn a_dry_run_tells_what_the_restore_then_does_and_writes_nothing() {
    let place = Place::new(1);
    furnish(&place);
    place.back_up(&place.options());
    let answers = || place.progress.seen().answers;
    let options = RestoreOptions::default();
    // The index is in the cache.
    forecast(&place, "new/target", &options);
    let before = answers();
    let foretold = forecast(&place, "new/target", &options);
    let looked = answers() - before;
    assert!(!place.at("new").try_exists().unwrap());
    let before = answers();
    let done = place.restore_with("new/target", &options);
    assert_eq!(answers() - before, looked + foretold.requests, "{foretold:?}");
    assert_eq!((foretold.files, foretold.bytes), (done.files, done.bytes));
    assert_eq!((foretold.files_unchanged, foretold.chunks_lost), (0, 0));
    let stored: u64 = data_packs(&place).len() as u64;
    assert_eq!(foretold.packs, stored);
    assert!(foretold.requests >= stored && foretold.download_bytes > 2 * LARGE as u64);
    // In blocks: small files take one each.
    let folders = 20;
    let blocks = foretold.space_needed + LARGE as u64 - foretold.bytes;
    assert!(foretold.space_needed.is_multiple_of(4096), "{foretold:?}");
    assert!(blocks < 4096 * (foretold.files + folders), "the large one takes its room once: {blocks}");
    assert!(foretold.fits());
    lose_all_data(&place);
    let again = forecast(&place, "new/target", &options);
    assert_eq!((again.download_bytes, again.files_unchanged), (0, again.files));
}

#[test]
fn zeros_become_holes_if_they_are_to() {
    let place = Place::new(2);
    let mut bytes = noise(4, 64 << 10);
    bytes.resize(24 << 20, 0);
    bytes.extend(noise(5, 5000));
    place.put("holes", &bytes);
    place.put("small", &vec![0; 1 << 20]);
    place.put("tail", &[&noise(6, 4096)[..], &[0; 8192]].concat());
    place.back_up(&place.options());
    let blocks =
        |target: &str, name: &str| fs::metadata(place.copy(target).join(name)).unwrap().blocks() * 512;
    place.restore("full", "", &[]);
    let sparse = || RestoreOptions { zeros: Zeros::Holes, workers: 2, ..RestoreOptions::default() };
    assert_eq!(place.restore_with("sparse", &sparse()).failures, 0);
    same(&place.source(), &place.copy("sparse"));
    assert!(blocks("full", "holes") >= 24 << 20);
    assert!(blocks("sparse", "holes") < 1 << 20 && blocks("sparse", "small") < 64 << 10);
    assert!(blocks("sparse", "tail") <= 8192);
    // What is changed where it is gets its holes back.
    let file = fs::File::options().write(true).open(place.copy("sparse").join("holes")).unwrap();
    file.write_all_at(&[1; 3 << 20], 10 << 20).unwrap();
    assert_eq!(place.restore_with("sparse", &sparse()).failures, 0);
    same(&place.source(), &place.copy("sparse"));
    assert!(blocks("sparse", "holes") < 1 << 20);
}

/// Makes a hole there; whether the file system can.
fn punch(path: &Path, offset: u64, length: u64) -> bool {
    use rustix::fs::{FallocateFlags, fallocate};
    let file = fs::File::options().write(true).open(path).unwrap();
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length).is_ok()
}

#[test]
fn a_file_has_the_holes_that_the_snapshot_tells_and_others_only_where_zeros_become_holes() {
    const MIB: u64 = 1 << 20;
    let place = Place::new(1);
    let zeros = |length: usize| [noise(1, length), vec![0; length], noise(2, length)].concat();
    for name in ["large", "linked", "open"] {
        place.put(name, &zeros(4 << 20));
    }
    place.put("small", &zeros(1 << 20));
    place.put("thin", &zeros(4 << 20));
    fs::hard_link(place.source().join("linked"), place.source().join("linked-too")).unwrap();
    set_time(&place.source().join("linked"), 1_000);
    if !punch(&place.source().join("thin"), 5 * MIB, 2 * MIB) {
        skip("holes that a snapshot does not have: no holes can be made here");
        return;
    }
    // It has space for what is to come, and so takes as much as its size although it has a hole.
    let thin = fs::File::options().write(true).open(place.source().join("thin")).unwrap();
    let beyond = thin.metadata().unwrap().len();
    rustix::fs::fallocate(&thin, rustix::fs::FallocateFlags::KEEP_SIZE, beyond, 4 * MIB).unwrap();
    assert!(thin.metadata().unwrap().blocks() * 512 >= beyond);
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.copy("all");
    let all = ["large", "linked", "open", "small", "thin"];
    let holes = |root: &Path| {
        all.map(|name| {
            let file = fs::File::open(root.join(name)).unwrap();
            let holes = holes::find(&file, file.metadata().unwrap().len()).into_iter();
            holes.map(|hole| (hole.offset, hole.length)).collect::<Vec<_>>()
        })
    };
    let wanted = holes(&place.source());
    assert_eq!(wanted, [vec![], vec![], vec![], vec![], vec![(5 * MIB, 2 * MIB)]]);
    assert_eq!(holes(&copy), wanted);
    // From now on everything has to come from what is there.
    lose_all_data(&place);
    for name in ["large", "linked", "open"] {
        assert!(punch(&copy.join(name), 5 * MIB + 4096, MIB));
    }
    assert!(punch(&copy.join("small"), MIB + 65_536, 65_536) && punch(&copy.join("thin"), 4 * MIB, 3 * MIB));
    // One with two names stays only if nothing is to be set.
    set_time(&copy.join("linked"), 1_000);
    let punched = holes(&copy);
    let large = inode(copy.join("large"));
    let sparse = RestoreOptions { zeros: Zeros::Holes, ..RestoreOptions::default() };
    let done = place.restore_with("all", &sparse);
    assert_eq!((done.failures, done.files, done.files_unchanged), (0, 6, 6), "{:?}", done.failed);
    assert_eq!(holes(&copy), punched);
    // One that others could write to is made anew, and one with two names; the others are mended where they are.
    fs::set_permissions(copy.join("open"), fs::Permissions::from_mode(0o666)).unwrap();
    let foretold = forecast(&place, "all", &RestoreOptions::default());
    assert!(foretold.space_needed >= 3 * MIB && foretold.download_bytes == 0, "{foretold:?}");
    let done = place.restore("all", "", &[]);
    assert_eq!((done.failures, done.files), (0, 6), "{:?}", done.failed);
    assert_eq!((holes(&copy), inode(copy.join("large"))), (wanted.clone(), large));
    same(&place.source(), &copy);
    // Data where the snapshot has a hole.
    fs::File::options()
        .write(true)
        .open(copy.join("thin"))
        .unwrap()
        .write_all_at(&[0; 4096], 6 * MIB)
        .unwrap();
    for options in [RestoreOptions::default(), sparse] {
        assert_eq!(place.restore_with("all", &options).failures, 0);
        assert_eq!(holes(&copy), wanted);
    }
}

#[test]
fn of_many_files_that_share_small_contents_little_more_is_read_than_is_stored() {
    let place = Place::new(2);
    let sizes = [0, 1, 100, 3000, 4096, 9000, 40_000];
    for number in 0..30_u64 * 130 {
        let size = sizes[usize::try_from(number % 7).unwrap()];
        let mut bytes = vec![0; size];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
        place.put(&format!("{}/{number}", number / 130), &bytes);
    }
    place.back_up(&place.options());
    let listed = place.store().list(&Prefix::all()).unwrap().into_iter();
    let stored: u64 =
        listed.filter(|listed| listed.name.contains("/packs/d/")).map(|listed| listed.size).sum();
    let foretold = forecast(&place, "all", &RestoreOptions::default());
    assert!(
        stored > 20 << 20 && foretold.download_bytes <= 2 * stored,
        "{} of {stored}",
        foretold.download_bytes
    );
    assert_eq!(place.restore("all", "", &[]).failures, 0);
    same(&place.source(), &place.copy("all"));
}

#[test]
fn an_older_snapshot_comes_back_over_a_newer_tree() {
    let place = Place::new(3);
    furnish(&place);
    let (first, _) = place.back_up(&place.options()).snapshot.unwrap();
    place.restore("before", "", &[]);
    place.put("many/3/3", b"other");
    fs::remove_file(place.source().join("alone")).unwrap();
    fs::write(place.source().join("sub/large-too"), noise(7, LARGE)).unwrap();
    place.put("new", b"new");
    place.back_up(&place.options());
    place.restore_with("now", &deleting());
    let repository = place.open();
    let (snapshots, _) = repository.snapshots().unwrap();
    let older = snapshots.iter().find(|known| known.name.id == first).unwrap();
    let options = RestoreOptions { workers: 3, ..deleting() };
    let done = restore::run(&repository, older, &place.at("now"), &options).unwrap();
    assert_eq!((done.failures, done.removals), (0, 1), "{:?} {:?}", done.failed, done.removed);
    same(&place.copy("before"), &place.copy("now"));
    assert_eq!(inode(place.copy("now").join("large")), inode(place.copy("now").join("sub/large-too")));
}
