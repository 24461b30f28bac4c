//! Trees on disk: backed up again and again, restored in parts, damaged and restored all the same.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use lifeboat::{
    error::ErrorKind,
    filesystem::select::Selection,
    ops::{
        backup::{BackupOptions, Mode, Reuse, Unchanged},
        list,
    },
    store::{Name, Prefix},
};

use self::place::{Place, noise, same};

#[path = "support/place.rs"]
mod place;

/// Small files, a large one of many windows, links of both kinds, an empty folder, odd names.
fn furnish(place: &Place) {
    for number in 0..700 {
        place.put(&format!("many/{}/{number}", number % 7), number.to_string().repeat(50).as_bytes());
    }
    place.put("large", &noise(1, 30 << 20));
    place.put("sub/inner/file", b"inner");
    place.put("sub/other", b"other");
    place.put("-rf", b"odd");
    place.put("new\nline", b"odd");
    fs::create_dir(place.source().join("empty")).unwrap();
    fs::hard_link(place.source().join("large"), place.source().join("sub/large-too")).unwrap();
    std::os::unix::fs::symlink("/nowhere", place.source().join("sub/link")).unwrap();
    fs::set_permissions(place.source().join("sub"), fs::Permissions::from_mode(0o550)).unwrap();
}

#[test]
fn a_tree_comes_back_identical_with_one_thread_and_with_many() {
    for workers in [1, 4] {
        let place = Place::new(workers);
        furnish(&place);
        place.back_up(&place.options());
        let done = place.restore("all", "", &[]);
        assert_eq!(done.failures, 0, "{:?}", done.failed);
        let copy = place.at("all").join(place.source().strip_prefix("/").unwrap());
        same(&place.source(), &copy);
        let inode = |path: &str| fs::metadata(copy.join(path)).unwrap().ino();
        assert_eq!(inode("large"), inode("sub/large-too"));
        let sub = |root: &Path| fs::metadata(root.join("sub")).unwrap();
        assert_eq!(sub(&copy).mode() & 0o7777, 0o550);
        assert_eq!(sub(&copy).mtime_nsec(), sub(&place.source()).mtime_nsec());
    }
}

#[test]
fn the_second_backup_reads_only_what_changed_and_finds_the_same_with_and_without_a_cache() {
    let place = Place::new(2);
    furnish(&place);
    let first = place.back_up(&place.options());
    assert_eq!(first.record.statistics.files_unchanged, 0);
    let files = first.record.statistics.files;
    let second = place.back_up(&place.options());
    assert_eq!((second.record.root, second.record.statistics.files_unchanged), (first.record.root, files));
    // The owner finds the parent in the repository too; what changed is read.
    fs::remove_dir_all(place.at("cache")).unwrap();
    place.put("sub/inner/file", b"INNER");
    let third = place.back_up(&place.options());
    assert_eq!(third.record.statistics.files_unchanged, files - 1);
    assert_eq!(third.record.statistics.bytes_new, 5);
    let forced = BackupOptions { reuse: Reuse { unchanged: false, ..Reuse::default() }, ..place.options() };
    let all_read = place.back_up(&forced);
    assert_eq!((all_read.record.root, all_read.record.statistics.files_unchanged), (third.record.root, 0));
}

#[test]
fn a_damaged_cache_changes_nothing_but_the_time_it_takes() {
    let place = Place::new(2);
    furnish(&place);
    let first = place.back_up(&place.options());
    let mut damaged = 0;
    let mut folders = vec![place.at("cache")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let mut bytes = fs::read(entry.path()).unwrap();
            // A lock has nothing in it.
            let middle = bytes.len() / 2;
            let Some(byte) = bytes.get_mut(middle) else { continue };
            *byte ^= 0x20;
            fs::write(entry.path(), bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged >= 3, "index, parent and nodes at least");
    let second = place.back_up(&place.options());
    assert_eq!(second.record.root, first.record.root);
    assert_eq!(place.restore("all", "", &[]).failures, 0);
}

#[test]
fn an_unchanged_tree_can_be_skipped_and_a_dry_run_writes_nothing() {
    let place = Place::new(2);
    furnish(&place);
    let objects = || place.store().list(&Prefix::all()).unwrap();
    let before = objects();
    let dry = place.back_up(&BackupOptions { mode: Mode::DryRun, ..place.options() });
    assert!(dry.snapshot.is_none() && dry.record.statistics.bytes_stored > 30 << 20);
    assert_eq!(objects(), before);
    let skip = BackupOptions { unchanged: Unchanged::Skip, ..place.options() };
    assert!(place.back_up(&skip).snapshot.is_some(), "there is nothing before it");
    assert!(place.back_up(&skip).snapshot.is_none());
    place.put("new", b"new");
    assert!(place.back_up(&skip).snapshot.is_some());
}

#[test]
fn a_part_is_restored_by_its_path_or_by_patterns() {
    let place = Place::new(2);
    furnish(&place);
    place.back_up(&place.options());
    let source = place.source();
    let source = source.to_str().unwrap();
    place.restore("sub", &format!("{source}/sub"), &[]);
    assert_eq!(fs::read(place.at("sub/inner/file")).unwrap(), b"inner");
    assert_eq!(fs::metadata(place.at("sub")).unwrap().mode() & 0o777, 0o550);
    place.restore("one", &format!("{source}/sub/other"), &[]);
    assert_eq!(fs::read(place.at("one/other")).unwrap(), b"other");
    place.restore("some", "", &["/**/many/3", "-rf"]);
    let some = place.at("some").join(place.source().strip_prefix("/").unwrap());
    let mut names: Vec<_> = fs::read_dir(&some).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["-rf", "many"]);
    assert_eq!(fs::read_dir(some.join("many")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(some.join("many/3")).unwrap().count(), 100);

    let repository = place.open();
    let (snapshots, _) = repository.snapshots().unwrap();
    let mut listed = Vec::new();
    let below = format!("{}/sub", source.trim_start_matches('/'));
    list::run(&repository, &snapshots[0], below.as_bytes(), &mut |entry| {
        listed.push(String::from_utf8(entry.path[below.len()..].to_vec()).unwrap());
        Ok(())
    })
    .unwrap();
    assert_eq!(listed, ["", "/inner", "/inner/file", "/large-too", "/link", "/other"]);
    let nowhere = list::run(&repository, &snapshots[0], b"no/where", &mut |_| Ok(()));
    assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::Failed);
}

#[test]
fn a_comparison_sees_links_and_folders_on_the_way() {
    use lifeboat::ops::verify::{self, Difference, VerifyOptions};
    let place = Place::new(2);
    place.put("a/one", b"same");
    place.put("a/deep/other", b"other");
    fs::hard_link(place.source().join("a/one"), place.source().join("a/two")).unwrap();
    place.back_up(&place.options());
    place.restore("all", "", &[]);
    let copy = place.at("all").join(place.source().strip_prefix("/").unwrap());
    let repository = place.open();
    let (snapshots, _) = repository.snapshots().unwrap();
    let compare = |includes: &[&str]| {
        let includes: Vec<String> = includes.iter().map(|&text| text.to_owned()).collect();
        let selection = Selection::new(&includes, &[]).unwrap();
        let options = VerifyOptions { selection, ..VerifyOptions::default() };
        verify::run(&repository, &snapshots[0], Some(&place.at("all")), &options).unwrap().differences
    };
    assert_eq!(compare(&[]), []);
    let time = fs::metadata(copy.join("a/one")).unwrap().modified().unwrap();
    let folder_time = fs::metadata(copy.join("a")).unwrap().modified().unwrap();
    fs::remove_file(copy.join("a/two")).unwrap();
    fs::write(copy.join("a/two"), b"same").unwrap();
    fs::File::options().write(true).open(copy.join("a/two")).unwrap().set_modified(time).unwrap();
    fs::File::open(copy.join("a")).unwrap().set_modified(folder_time).unwrap();
    let found = compare(&[]);
    assert!(
        matches!(&found[..], [(path, Difference::NotLinked(one))]
        if path.ends_with(b"a/two") && one.ends_with(b"a/one")),
        "{found:?}"
    );
    // Folders above what was asked for, and above the source, count too.
    fs::set_permissions(copy.join("a"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(copy.parent().unwrap(), fs::Permissions::from_mode(0o711)).unwrap();
    let mut found = compare(&["other"]);
    found.retain(|(_, difference)| matches!(difference, Difference::Mode(_)));
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[1].1, Difference::Mode(0o700));
}

#[test]
fn what_lies_deeper_than_the_longest_path_of_the_system_is_compared_too() {
    use lifeboat::ops::verify::{self, VerifyOptions};
    let place = Place::new(2);
    let mut folder = std::os::fd::OwnedFd::from(fs::File::open(place.source()).unwrap());
    let name = "d".repeat(200);
    for _ in 0..50 {
        rustix::fs::mkdirat(&folder, &name, 0o755.into()).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        folder = rustix::fs::openat(&folder, &name, flags, rustix::fs::Mode::empty()).unwrap();
    }
    place.back_up(&place.options());
    let repository = place.open();
    let (snapshots, _) = repository.snapshots().unwrap();
    let compare = || {
        let selection = Selection::new(&[], &[]).unwrap();
        let options = VerifyOptions { selection, ..VerifyOptions::default() };
        verify::run(&repository, &snapshots[0], None, &options).unwrap().differences
    };
    let below = |paths: &[(Vec<u8>, verify::Difference)]| paths.iter().any(|(path, _)| path.len() > 5000);
    assert!(!below(&compare()), "{:?}", compare().last());
    rustix::fs::fchmod(&folder, 0o700.into()).unwrap();
    assert!(below(&compare()));
}

#[test]
fn what_is_damaged_is_named_and_everything_else_is_restored() {
    let place = Place::new(2);
    furnish(&place);
    place.back_up(&place.options());
    // One byte of the largest data pack: it holds a part of the large file.
    let store = place.store();
    let packs = store.list(&Prefix::all()).unwrap().into_iter().filter(|o| o.name.contains("/packs/d/"));
    let pack = packs.max_by_key(|pack| pack.size).unwrap();
    let path = place.at("repository").join(&pack.name);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let done = place.restore("all", "", &[]);
    assert!(done.failures >= 1 && done.failed.iter().all(|(_, e)| e.kind() != ErrorKind::Temporary));
    let copy = place.at("all").join(place.source().strip_prefix("/").unwrap());
    assert!(!copy.join("large").try_exists().unwrap(), "no plausible file");
    assert!(copy.join("large.damaged").try_exists().unwrap(), "{:?}", done.failed);
    let part = fs::read(copy.join("large.damaged")).unwrap();
    let list = fs::read_to_string(copy.join("large.damaged.txt")).unwrap();
    assert!(list.contains('-'), "{list}");
    let whole = noise(1, 30 << 20);
    let differing = part.iter().zip(&whole).filter(|(one, other)| one != other).count();
    assert!(part.len() == whole.len() && differing > 0 && differing <= 2 << 20, "{differing}");
    // A frame may hold small files too: each is there as it was, or has the name of a damaged one.
    let mut whole = 0;
    for number in 0..700 {
        let path = copy.join(format!("many/{}/{number}", number % 7));
        match fs::read(&path) {
            Ok(bytes) => {
                assert_eq!(bytes, number.to_string().repeat(50).as_bytes());
                whole += 1;
            }
            Err(_) => assert!(path.with_extension("damaged").try_exists().unwrap(), "{number}"),
        }
    }
    assert!(whole > 0 || done.failures >= 700);

    // The pack is gone: the same again, and the next backup heals it.
    store.delete(&Name::parse(&pack.name).unwrap()).unwrap();
    assert!(place.restore("again", "", &[]).failures >= 1);
    place.back_up(&place.options());
    assert_eq!(place.restore("healed", "", &[]).failures, 0);
    same(&place.source(), &place.at("healed").join(place.source().strip_prefix("/").unwrap()));
}
