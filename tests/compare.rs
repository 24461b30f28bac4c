//! What differs: `verify` and `diff`, between a snapshot and a tree that is there, and between two snapshots.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use lifeboat::{
    error::Result,
    filesystem::select::Selection,
    format::entry::{Content, Entry, EntryKind, Metadata},
    ops::{
        backup::{self, Item, Source},
        diff::{self, Change, DiffOptions, Diffed},
        restore::{Extra, RestoreOptions},
        verify::{self, Besides, Difference, Verified, VerifyOptions},
    },
    store::Prefix,
};
use serde_json::Value;

use self::{
    place::{Place, noise},
    skip::skip,
    world::{World, tree},
};

#[path = "support/ordinary.rs"]
mod ordinary;
#[path = "support/place.rs"]
mod place;
#[path = "support/skip.rs"]
mod skip;
#[path = "support/world.rs"]
mod world;

fn verify(place: &Place, options: &VerifyOptions) -> Verified {
    let repository = place.open();
    verify::run(&repository, &place.newest(&repository), None, options).unwrap()
}

/// What differs, below the source.
fn told(place: &Place, verified: &Verified) -> Vec<(String, Difference)> {
    let source = place.source();
    let source = source.strip_prefix("/").unwrap().to_str().unwrap();
    let short = |path: &[u8]| std::str::from_utf8(path).unwrap().trim_start_matches(source).to_owned();
    // Folders change their times with their content.
    let counts = |difference: &Difference| *difference != Difference::Modified;
    let differences = verified.differences.iter().filter(|(_, difference)| counts(difference));
    differences.map(|(path, difference)| (short(path), difference.clone())).collect()
}

#[test]
fn what_the_snapshot_does_not_have_is_a_difference_in_its_folders_and_nowhere_else() {
    let place = Place::new(1);
    place.put("a/one", b"1");
    place.put("b/two", b"2");
    place.put("kept/x", b"x");
    place.back_up(&place.options());
    assert_eq!(verify(&place, &VerifyOptions::default()).differing, 0);
    place.put("a/two", b"new");
    place.put("b/deep/er/file", b"new");
    place.put("a/skip.tmp", b"new");
    symlink("/nowhere", place.source().join("link")).unwrap();
    fs::write(place.at("beside the source"), "").unwrap();
    fs::remove_file(place.source().join("b/two")).unwrap();
    let excludes = ["*.tmp".to_owned()];
    let without = || Selection::new(&[], &excludes).unwrap();
    let done = verify(&place, &VerifyOptions { selection: without(), ..VerifyOptions::default() });
    let extra = |path: &str, kind| (path.to_owned(), Difference::Extra(kind));
    assert_eq!(
        told(&place, &done),
        [
            extra("/a/two", EntryKind::File),
            ("/b/two".to_owned(), Difference::Missing),
            extra("/b/deep", EntryKind::Directory),
            extra("/link", EntryKind::Symlink),
        ]
    );
    assert_eq!((done.missing, done.extra), (1, 3));
    let ignoring =
        VerifyOptions { selection: without(), besides: Besides::Ignore, ..VerifyOptions::default() };
    assert_eq!(told(&place, &verify(&place, &ignoring)).len(), 1);
    // Only what is meant, and folders that no backup holds are never meant.
    let only = Selection::new(&["*.tmp".to_owned()], &[]).unwrap();
    let done = verify(&place, &VerifyOptions { selection: only, ..VerifyOptions::default() });
    assert_eq!(told(&place, &done), [extra("/a/skip.tmp", EntryKind::File)]);
    let never = vec![place.source().join("b/deep")];
    let done = verify(&place, &VerifyOptions { selection: without(), never, ..VerifyOptions::default() });
    assert_eq!(done.extra, 2);
}

#[test]
fn what_delete_keeps_is_no_difference_and_what_it_removes_is_one() {
    let place = Place::new(1);
    place.put("a/one", b"1");
    place.back_up(&place.options());
    place.put("new/deep/x.keep", b"excluded");
    place.put("new/deep/goes", b"");
    place.put("new/more/x", b"");
    place.put("new/z", b"");
    place.put("half/.disk.lifeboat-partial", b"unfinished");
    place.put(".disk.lifeboat-partial", b"unfinished");
    place.put("never/packs/1", b"");
    let selection = || Selection::new(&[], &["*.keep".to_owned()]).unwrap();
    let never = || vec![place.source().join("never/packs")];
    let options = || VerifyOptions { selection: selection(), never: never(), ..VerifyOptions::default() };
    let done = verify(&place, &options());
    let extra = |path: &str, kind| (path.to_owned(), Difference::Extra(kind));
    let expected = [
        extra("/new/deep/goes", EntryKind::File),
        extra("/new/more", EntryKind::Directory),
        extra("/new/z", EntryKind::File),
    ];
    let mut found = told(&place, &done);
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(found, expected);
    assert_eq!(done.extra, 3);
    let noted = done.notes.iter().map(|(path, _)| path.ends_with(b"source/.disk.lifeboat-partial"));
    assert_eq!(noted.collect::<Vec<_>>(), [true]);
    let restore = RestoreOptions {
        subpath: place.source().to_str().unwrap().trim_start_matches('/').into(),
        selection: selection(),
        never: never(),
        extra: Extra::Remove,
        ..RestoreOptions::default()
    };
    let source = place.source();
    assert_eq!(place.restore_with(source.to_str().unwrap(), &restore).removals, 4);
    assert_eq!(
        (verify(&place, &options()).differing, told(&place, &verify(&place, &options()))),
        (0, vec![])
    );
}

#[test]
fn of_very_many_that_are_extra_each_counts_and_the_folder_of_all_is_told_alone() {
    let place = Place::new(1);
    place.put("a", b"1");
    place.back_up(&place.options());
    // Of some folders only the number of what is in them is known while they are looked at.
    let name = "n".repeat(240);
    for folder in 0..3 {
        for number in 0..6000 {
            place.put(&format!("new/{folder}/{number:04}{name}"), b"");
        }
    }
    let done = verify(&place, &VerifyOptions::default());
    assert_eq!(
        (done.extra, told(&place, &done)),
        (1, vec![("/new".into(), Difference::Extra(EntryKind::Directory))])
    );
    place.put("new/1/zz.keep", b"");
    let selection = Selection::new(&[], &["*.keep".to_owned()]).unwrap();
    let done = verify(&place, &VerifyOptions { selection, ..VerifyOptions::default() });
    assert_eq!(done.extra, 6000 + 2, "a folder with all in it, twice, and what is in the third");
}

#[test]
fn a_socket_is_a_note_in_the_words_of_restore_and_no_difference() {
    let world = World::with_repository();
    let socket = std::os::unix::net::UnixListener::bind(world.path("src/a socket")).unwrap();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    let words = "a socket is not restored: its program makes it anew";
    let notes = |arguments: &[&str]| {
        let said = world.messages(arguments);
        let notes = said.iter().filter(|said| said["message_type"] == "note" && said["message"] == words);
        notes.map(|note| note["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let expected = [world.text("src/a socket")];
    assert_eq!(notes(&["restore", &from, "--target", "copy", "--plan"]), expected);
    assert_eq!(notes(&["restore", &from, "--target", "copy"]), expected);
    assert_eq!(notes(&["verify", &from, "--target", "copy"]), expected);
    // What stands in its place goes as what the snapshot does not have.
    let restore = |more: &[&'static str], code| {
        let restore = ["restore", &from, "--target", "copy"];
        world.ends(&mut world.command(&[&restore[..], more].concat()), code)
    };
    let in_its_place: [&dyn Fn(&Path); 2] =
        [&|path| fs::write(path, "secret").unwrap(), &|path| fs::create_dir_all(path.join("deep")).unwrap()];
    for put in in_its_place {
        put(&world.path("copy/a socket"));
        let (_, err) = restore(&[], 3);
        assert!(err.contains("something else has the place of this socket"), "{err}");
        assert!(world.path("copy/a socket").exists());
        restore(&["--delete", "--plan"], 0);
        restore(&["--delete"], 0);
        assert!(!world.path("copy/a socket").exists());
        assert_eq!(notes(&["verify", &from, "--target", "copy"]), expected);
    }
    // Made anew by its program.
    let (modified, source) =
        (fs::metadata(world.path("src")).unwrap().modified().unwrap(), world.path("src"));
    drop(socket);
    fs::remove_file(world.path("src/a socket")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.path("src/a socket")).unwrap();
    fs::set_permissions(world.path("src/a socket"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::File::open(source).unwrap().set_modified(modified).unwrap();
    world.does(&["verify", "latest"]);
}

#[test]
fn a_change_of_holes_is_told_as_that_and_not_as_one_of_content() {
    let place = Place::new(1);
    let write = |dense: bool| {
        let path = place.source().join("image");
        drop(fs::remove_file(&path));
        let file = fs::File::create(&path).unwrap();
        file.write_all_at(&noise(1, 1 << 20), 4 << 20).unwrap();
        if dense {
            file.write_all_at(&[0; 4 << 20], 0).unwrap();
        }
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(5)).unwrap();
    };
    write(false);
    if fs::metadata(place.source().join("image")).map(|m| MetadataExt::blocks(&m)).unwrap() > 6 << 11 {
        skip("holes: this file system has none");
        return;
    }
    place.back_up(&place.options());
    write(true);
    place.back_up(&place.options());
    let (lines, _) = compare(&place, &DiffOptions::default());
    assert_eq!(lines, ["M /image holes"]);
}

#[test]
fn a_folder_that_cannot_be_listed_counts_once() {
    if ordinary::is_done_as_ordinary_user("a_folder_that_cannot_be_listed_counts_once") {
        return;
    }
    let place = Place::new(1);
    place.put("closed/file", b"x");
    place.put("z", b"x");
    place.back_up(&place.options());
    place.restore("all", place.source().to_str().unwrap(), &[]);
    let closed = place.at("all").join("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o300)).unwrap();
    let subpath = place.source().to_str().unwrap().trim_start_matches('/').into();
    let repository = place.open();
    let options = VerifyOptions { subpath, ..VerifyOptions::default() };
    let snapshot = place.newest(&repository);
    let done = verify::run(&repository, &snapshot, Some(&place.at("all")), &options).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(done.differing, 1, "{:?}", done.differences);
    let words: Vec<&str> = done.differences.iter().map(|(_, difference)| difference.word()).collect();
    assert_eq!(words, ["mode", "unreadable"]);
}

#[test]
fn entries_that_are_lost_make_nothing_extra() {
    let place = Place::new(1);
    for number in 0..1500 {
        place.put(&format!("many/{number:04}"), number.to_string().as_bytes());
    }
    place.put("other/file", b"x");
    place.back_up(&place.options());
    damage_manifests(&place, &mut |at| {
        let done = verify(&place, &VerifyOptions::default());
        assert_eq!(done.extra, 0, "{at}: {:?}", done.differences);
        done.lost > 0
    });
}

/// Flips a bit of the largest manifest pack at many places, and looks each time; it must be seen at times.
fn damage_manifests(place: &Place, look: &mut dyn FnMut(usize) -> bool) {
    let packs = place.store().list(&Prefix::all()).unwrap().into_iter();
    let packs = packs.filter(|listed| listed.name.contains("/packs/m/"));
    let path = place.at("repository").join(packs.max_by_key(|pack| pack.size).unwrap().name);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let whole = fs::read(&path).unwrap();
    let mut seen = 0;
    for at in (0..whole.len() * 4 / 5).step_by(whole.len() / 16) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        // Nodes are kept there.
        drop(fs::remove_dir_all(place.at("cache")));
        seen += u32::from(look(at));
    }
    fs::write(&path, whole).unwrap();
    assert!(seen > 3, "{seen}");
}

/// The two newest snapshots compared, with marks and words.
fn compare(place: &Place, options: &DiffOptions) -> (Vec<String>, Diffed) {
    let repository = place.open();
    let (snapshots, _) = repository.snapshots().unwrap();
    let (one, other) = (&snapshots[snapshots.len() - 2], &snapshots[snapshots.len() - 1]);
    let mut lines = Vec::new();
    let source = place.source().to_str().unwrap().trim_start_matches('/').to_owned();
    let done = diff::run(&repository, (one, other), options, &mut |change| {
        let (mark, entry, words) = match &change {
            Change::Added(entry) => ("+", entry, Vec::new()),
            Change::Removed(entry) => ("-", entry, Vec::new()),
            Change::Changed(entry, differences) => {
                ("M", entry, differences.iter().map(Difference::word).collect())
            }
        };
        let path = String::from_utf8(entry.path.clone()).unwrap();
        if path.starts_with(&source) && words != ["mtime"] {
            lines.push(format!("{mark} {} {}", path.trim_start_matches(&source), words.join(",")));
        }
        Ok(())
    })
    .unwrap();
    (lines, done)
}

#[test]
fn two_snapshots_are_compared_by_what_differs() {
    let place = Place::new(2);
    for number in 0..6000 {
        place.put(&format!("many/{}/{number}", number % 40), number.to_string().as_bytes());
    }
    place.put("a", b"same");
    place.put("b", &noise(1, 3 << 20));
    place.put("gone/x", b"12345");
    place.put("file", b"a file");
    place.back_up(&place.options());
    place.back_up(&place.options());
    let (lines, done) = compare(&place, &DiffOptions::default());
    assert_eq!((lines.len(), done.nodes_read), (0, 0), "one root: {lines:?}");

    let mut changed = noise(1, 3 << 20);
    changed[2_000_000] ^= 1;
    place.put("b", &changed);
    place.put("many/7/new", b"123");
    fs::remove_dir_all(place.source().join("gone")).unwrap();
    fs::set_permissions(place.source().join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(place.source().join("file")).unwrap();
    place.put("file/in", b"a folder now");
    place.back_up(&place.options());
    let (lines, done) = compare(&place, &DiffOptions::default());
    assert_eq!(
        lines,
        [
            "M /a mode",
            "M /b content,mtime",
            "M /file kind",
            "+ /file/in ",
            "- /gone ",
            "- /gone/x ",
            "+ /many/7/new "
        ]
    );
    assert_eq!((done.added, done.removed, done.lost), ((2, 15), (2, 5), 0));
    let repository = place.open();
    let (snapshots, _) = repository.snapshots().unwrap();
    let entries = snapshots[0].record.statistics.entries;
    assert!(done.nodes_read < entries / 128 / 2, "{} nodes for {entries} entries", done.nodes_read);

    let subpath = place.source().join("many/7").to_str().unwrap().trim_start_matches('/').into();
    let (lines, _) = compare(&place, &DiffOptions { subpath, ..DiffOptions::default() });
    assert_eq!(lines, ["+ /many/7/new "]);
    let subpath = place.source().join("gone").to_str().unwrap().trim_start_matches('/').into();
    let (lines, _) = compare(&place, &DiffOptions { subpath, ..DiffOptions::default() });
    assert_eq!(lines, ["- /gone ", "- /gone/x "]);
    let selection = Selection::new(&[], &["many".to_owned(), "b".to_owned()]).unwrap();
    let (lines, _) = compare(&place, &DiffOptions { selection, ..DiffOptions::default() });
    assert_eq!(lines.len(), 5, "{lines:?}");
}

#[test]
fn however_two_trees_differ_every_change_is_told_and_no_other() {
    let place = Place::new(1);
    let name = |number: usize| format!("{}/{:03}{}", number % 5, number, "x".repeat(number % 7));
    for round in 0..5_usize {
        drop(fs::remove_dir_all(place.source()));
        fs::create_dir(place.source()).unwrap();
        let there =
            |round: usize| (0..1200).filter(move |number| (number * 7919 + round * 31) % 11 > round % 4);
        there(round).for_each(|number| place.put(&name(number), b"x"));
        place.back_up(&place.options());
        if round == 0 {
            continue;
        }
        let (lines, done) = compare(&place, &DiffOptions::default());
        let (before, now): (Vec<usize>, Vec<usize>) = (there(round - 1).collect(), there(round).collect());
        let mut expected: Vec<String> = Vec::new();
        expected.extend(before.iter().filter(|n| !now.contains(n)).map(|n| format!("- /{} ", name(*n))));
        expected.extend(now.iter().filter(|n| !before.contains(n)).map(|n| format!("+ /{} ", name(*n))));
        expected.sort_by_key(|line| line.get(2..).unwrap().to_owned());
        let mut found: Vec<String> = lines.into_iter().filter(|line| !line.starts_with('M')).collect();
        found.sort_by_key(|line| line.get(2..).unwrap().to_owned());
        assert_eq!(found, expected, "{round}");
        assert_eq!(done.added.0 + done.removed.0, expected.len() as u64);
    }
}

#[test]
fn what_is_lost_of_a_manifest_is_neither_new_nor_gone() {
    let place = Place::new(1);
    let put = |shift: u32| {
        for number in 0..1500 {
            place.put(&format!("many/{number:04}"), (number + shift).to_string().as_bytes());
        }
    };
    put(0);
    place.back_up(&place.options());
    put(1);
    place.back_up(&place.options());
    damage_manifests(&place, &mut |at| {
        let (_, done) = compare(&place, &DiffOptions::default());
        assert_eq!((done.added, done.removed), ((0, 0), (0, 0)), "{at}");
        done.lost > 0
    });
}

fn summary(messages: &[Value]) -> &Value {
    messages.iter().find(|message| message["message_type"] == "summary").unwrap()
}

#[test]
fn the_commands_say_it_in_the_same_words() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    fs::write(world.path("src/one"), "first!").unwrap();
    fs::remove_file(world.path("src/deep/two")).unwrap();
    fs::create_dir(world.path("src/new")).unwrap();
    let (out, err) = world.ends(&mut world.command(&["verify", &from]), 6);
    assert!(out.contains("src/new: the snapshot does not have this folder"), "{out}");
    assert!(out.contains("src/deep/two: it is missing") && err.contains("differ"), "{out}{err}");
    let out = world.does(&["diff", &from, "--live"]);
    for line in ["+ ", "- ", "M "].into_iter().zip(["new", "deep/two", "one: it has 6 bytes now"]) {
        assert!(out.contains(&format!("{}{}", line.0, world.text(&format!("src/{}", line.1)))), "{out}");
    }
    let live = world.messages(&["diff", &from, "--live"]);
    assert_eq!((&summary(&live)["added"], &summary(&live)["removed"]), (&1.into(), &1.into()));
    let at = world.text("elsewhere");
    world.does(&["restore", &from, "--target", &at]);
    assert!(!world.does(&["diff", &from, "--live", "--target", &at]).contains("M "));

    world.does(&["backup", "src"]);
    let out = world.does(&["diff", "latest~1", "latest"]);
    assert!(out.contains(&format!("- {}", world.text("src/deep/two"))), "{out}");
    assert!(out.contains("1 entry added, 0 B; 1 entry removed, 6 B"), "{out}");
    let both = world.messages(&["diff", "latest~1", "latest"]);
    let change = |path: &str| {
        let path = world.text(path);
        both.iter().find(|message| message["path"] == path.as_str()).unwrap()
    };
    assert_eq!(change("src/new")["change"], "added");
    assert_eq!(change("src/one")["differences"][0], "content");
    assert!(summary(&both)["nodes_read"].as_u64().unwrap() > 0);
    assert!(world.fails(&["diff", "latest"], 2).contains("SNAPSHOT"));
    world.fails(&["diff", "latest:/a", "latest:/b"], 2);
    assert!(Path::new(&at).try_exists().unwrap());
    let missing = world.text("not-there");
    let said = world.fails(&["verify", &from, "--target", &missing], 1);
    assert!(said.contains(&format!("{missing}: No such file or directory. Name the folder")), "{said}");
}

#[test]
fn contents_of_two_domains_are_not_taken_for_changed_and_that_they_are_not_compared_is_said() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    world.does(&["key", "add", "--role", "backup", "--label", "web", "--access-key-out", "web.key"]);
    world.does(&["backup", "src", "--access-key-file", "web.key"]);
    fs::write(world.path("src/one"), "longer now").unwrap();
    world.does(&["backup", "src", "--access-key-file", "web.key"]);
    let said = |one: &str, other: &str| world.ends(&mut world.command(&["diff", one, other]), 0);
    let (out, err) = said("latest~2", "latest~1");
    assert!(!out.contains("M "), "{out}");
    assert_eq!(err.matches("the contents of files cannot be compared").count(), 1, "{err}");
    let (out, _) = said("latest~2", "latest");
    let changed: Vec<&str> = out.lines().filter(|line| line.starts_with("M ")).collect();
    assert!(changed.len() == 1 && changed[0].contains("one: it has 10 bytes now"), "{out}");
    assert!(!out.contains("content"), "{out}");
    let both = world.messages(&["diff", "latest~2", "latest"]);
    assert_eq!(both[0]["message_type"], "warning", "it comes first");
    assert_eq!(summary(&both)["contents_compared"], false);
    // In one domain they are.
    let (out, err) = said("latest~1", "latest");
    assert!(out.contains("these bytes differ") && !err.contains("cannot be compared"), "{out}{err}");
    assert_eq!(summary(&world.messages(&["diff", "latest~1", "latest"]))["contents_compared"], true);
}

#[test]
fn what_was_two_files_and_became_one_is_told_and_restored_as_two() {
    // More than a window is changed where it is, else.
    [4, 5 << 20].into_iter().for_each(two_files_became_one);
}

fn two_files_became_one(bytes: usize) {
    let world = World::with_repository();
    let path = |name: &str| world.path(&format!("src/{name}"));
    fs::remove_dir_all(world.path("src")).unwrap();
    fs::create_dir(world.path("src")).unwrap();
    for name in ["a1", "b1", "c"] {
        fs::write(path(name), vec![7; bytes]).unwrap();
        fs::File::open(path(name)).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    for (first, further) in [("a1", "a2"), ("b1", "b2")] {
        fs::hard_link(path(first), path(further)).unwrap();
    }
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    let verify = ["verify", &from, "--target", "copy"];
    for policy in ["always", "if-changed"] {
        world.does(&["restore", &from, "--target", "copy"]);
        // As programs do that look for files which are the same.
        for name in ["copy/b1", "copy/b2", "copy/c"] {
            fs::remove_file(world.path(name)).unwrap();
            fs::hard_link(world.path("copy/a1"), world.path(name)).unwrap();
        }
        let (out, _) = world.ends(&mut world.command(&verify), 6);
        for name in ["b1", "c"] {
            let told = format!("{name}: it is one file with ");
            assert!(out.contains(&told), "{name}: {out}");
        }
        assert!(!out.contains("a2: ") && !out.contains("b2: "), "{out}");
        world.does(&["restore", &from, "--target", "copy", "--overwrite", policy]);
        world.does(&verify);
        let inode = |name: &str| fs::metadata(world.path(&format!("copy/{name}"))).unwrap().ino();
        assert!(inode("a1") == inode("a2") && inode("b1") == inode("b2"));
        assert!(inode("a1") != inode("b1") && inode("c") != inode("a1") && inode("c") != inode("b1"));
    }
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error_that_names_it() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    let restore = |more: &[&'static str], code| {
        drop(fs::remove_dir_all(world.path("copy")));
        world.fails(&[&["restore", &from, "--target", "copy"], more].concat(), code)
    };
    let only_wrong = ["--include", "/one"];
    let said = restore(&only_wrong, 1);
    assert!(
        said.contains("nothing in the snapshot matches --include /one") && said.contains("lifeboat ls"),
        "{said}"
    );
    assert!(tree(&world.path("copy")).is_empty());
    let out = |command: &[&str]| world.ends(world.command(command).args(only_wrong), 1).0;
    let restored = out(&["restore", &from, "--target", "copy"]);
    assert!(restored.is_empty(), "that nothing was found is all that there is to say: {restored}");
    let planned = out(&["restore", &from, "--target", "copy", "--plan"]);
    assert!(
        planned.starts_with("this restore would not end well: nothing in the snapshot matches"),
        "{planned}"
    );
    world.fails(&[&["verify", &from, "--target", "src"], &only_wrong[..]].concat(), 1);
    // The others are restored, and what is missing is not passed over.
    let said = restore(&["--include", "two", "-i", "none", "-i", "nothing", "--verify"], 3);
    assert!(
        said.contains("--include none") && said.contains("2 patterns of --include matched nothing"),
        "{said}"
    );
    assert!(world.path("copy/deep/two").is_file());
    let verify = ["verify", &from, "--target", "src", "--include", "two", "--include"];
    world.fails(&[&verify[..], &["none"]].concat(), 3);
    world.does(&[&verify[..], &["!none"]].concat());
    // What is left out again is not chosen, and two patterns may match the same.
    restore(&["--include", "one", "--exclude", "one"], 1);
    restore(&["--include", "one", "--include", "on?", "--include", "/**/src/one"], 0);
    assert!(restore(&["--include", "#none"], 2).contains("chooses nothing"));
    // What is there besides is found as well.
    fs::write(world.path("src/new"), "").unwrap();
    let said = world.fails(&["verify", &from, "--target", "src", "--include", "new"], 6);
    assert!(!said.contains("matches"), "{said}");
}

/// A link whose owner has another name than its number has here.
struct Elsewhere(Metadata);

impl Source for Elsewhere {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let (path, content) = (b"link".to_vec(), Content::Inline(Vec::new()));
        let entry = Entry { path, metadata: self.0.clone(), content, changed_while_read: false, error: None };
        Ok(Box::new(std::iter::once(Ok(Item::Entry(entry)))))
    }
}

#[test]
fn owners_are_compared_by_name_or_by_number_or_not_at_all() {
    let place = Place::new(1);
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = |number: &str| users.lines().find(|line| line.split(':').nth(2) == Some(number));
    let other = users.lines().find(|line| line.split(':').nth(2).is_some_and(|id| id != user.to_string()));
    let (Some(other), true) = (other, named(&user.to_string()).is_some()) else {
        skip("owners by name: there are no two users with names");
        return;
    };
    let name = other.split(':').next().unwrap().to_owned();
    let link_target = b"x".to_vec();
    let metadata =
        Metadata { uid: user, gid: group, user: name, link_target, ..Metadata::of(EntryKind::Symlink) };
    backup::run(&place.open(), &mut Elsewhere(metadata), &place.options()).unwrap();
    let world = World::new();
    let ends = |arguments: &[&str], code| {
        let mut command = world.command(arguments);
        command.env("LIFEBOAT_REPOSITORY", place.at("repository")).env("LIFEBOAT_PASSWORD", "right");
        let (out, err) = world.ends(&mut command, code);
        out + &err
    };
    // The same number has another name here, so a comparison by name would find a difference.
    ends(&["restore", "latest", "--target", "copy", "--numeric-ids", "--verify"], 0);
    let said = ends(&["verify", "latest", "--target", "copy"], 6);
    assert!(said.contains(&format!("link: it belongs to {user}:{group} now")), "{said}");
    ends(&["verify", "latest", "--target", "copy", "--numeric-ids"], 0);
    ends(&["verify", "latest", "--target", "copy", "--ignore-owners"], 0);
    let live = ["diff", "latest", "--live", "--target", "copy"];
    assert!(ends(&live, 0).contains("it belongs to"));
    assert!(!ends(&[&live[..], &["--numeric-ids"]].concat(), 0).contains("it belongs to"));
    ends(&["verify", "latest", "--numeric-ids", "--ignore-owners"], 2);
    ends(&["diff", "latest", "latest", "--numeric-ids"], 2);
}

#[test]
fn without_owners_and_without_what_is_besides_the_rest_is_still_compared() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let from = format!("latest:{}", world.text("src"));
    world.does(&["restore", &from, "--target", "copy", "--no-ownership", "--verify"]);
    let verify = |more: &[&'static str], code| {
        let arguments = [&["verify", &from, "--target", "copy"], more].concat();
        let (out, err) = world.ends(&mut world.command(&arguments), code);
        out + &err
    };
    let folder = fs::File::open(world.path("copy")).unwrap();
    let modified = folder.metadata().unwrap().modified().unwrap();
    fs::write(world.path("copy/new"), "").unwrap();
    folder.set_modified(modified).unwrap();
    assert!(verify(&[], 6).contains("copy/new") || verify(&[], 6).contains("does not have this file"));
    verify(&["--ignore-extra"], 0);
    let one = world.path("copy/one");
    // What gives a program rights matters, whoever owns it.
    let capability = [&[1, 0, 0, 2][..], &[0, 4, 0, 0], &[0; 12]].concat();
    let set =
        rustix::fs::lsetxattr(&one, "security.capability", &capability, rustix::fs::XattrFlags::empty());
    if rustix::process::geteuid().is_root() && set.is_ok() {
        let said = verify(&["--ignore-extra", "--ignore-owners"], 6);
        assert!(said.contains("one: these attributes differ: security.capability"), "{said}");
        rustix::fs::lremovexattr(&one, "security.capability").unwrap();
    } else {
        skip("capabilities and owners: nobody can set them here");
        return;
    }
    std::os::unix::fs::chown(&one, Some(12345), None).unwrap();
    assert!(verify(&["--ignore-extra"], 6).contains("it belongs to 12345:"));
    verify(&["--ignore-extra", "--ignore-owners"], 0);
    fs::write(&one, "other").unwrap();
    assert!(verify(&["--ignore-extra", "--ignore-owners"], 6).contains("one: these bytes differ"));
}

#[test]
fn of_a_file_that_differs_everywhere_the_first_ranges_are_told() {
    const BLOCK: u64 = 128 << 10;
    let place = Place::new(1);
    let sparse = place.source().join("sparse");
    let file = fs::File::create(&sparse).unwrap();
    file.set_len(200 * BLOCK).unwrap();
    place.back_up(&place.options());
    for block in 0..200 {
        // Every second half of a block.
        file.write_all_at(&[1; 64 << 10], block * BLOCK).unwrap();
    }
    let done = verify(&place, &VerifyOptions::default());
    let ranges = told(&place, &done).into_iter().find_map(|(path, difference)| match difference {
        Difference::Content(ranges) if path == "/sparse" => Some(ranges),
        _ => None,
    });
    let ranges = ranges.unwrap();
    assert_eq!((ranges.len(), ranges[0].start, ranges[63].start), (64, 0, 63 * BLOCK));
}
