//! Names, links and devices as a client writes them whose key was stolen, restored as root: what cannot be is named,
//! everything else comes back, and nothing beside the target is touched.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    fs::{self, File},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use lifeboat::{
    clock::Timestamp,
    error::ErrorKind,
    format::{
        entry::{ChunkRef, Content, Entry, EntryKind},
        node::{Node, compare_paths},
    },
    id::{BlobId, ObjectId},
    repository::Repository,
};

mod support {
    pub(crate) mod fence;
    pub(crate) mod forger;
    pub(crate) mod lab;
}
use support::{
    fence::{Fenced, beside, child, entry, is_said, repository, rest_is_there, with_content},
    forger::Manifest,
};

fn of_kind(path: &str, kind: EntryKind) -> Entry {
    let mut entry = entry(path);
    entry.metadata.kind = kind;
    entry
}

fn link(path: &str, target: &[u8]) -> Entry {
    let mut entry = of_kind(path, EntryKind::Symlink);
    entry.metadata.link_target = target.to_vec();
    entry
}

fn sorted(mut entries: Vec<Entry>) -> Node {
    entries.sort_by(|a, b| compare_paths(&a.path, &b.path));
    Node::Leaf(entries)
}

/// A manifest whose middle is `leaf`, with an honest file before and behind it. `first` is where it says it begins.
fn between(repository: &Repository, first: &str, leaf: &Node) -> ObjectId {
    let mut manifest = Manifest::new(repository);
    let before = manifest.node(&Node::Leaf(vec![entry("a/good")]));
    let middle = manifest.node(leaf);
    let behind = manifest.node(&Node::Leaf(vec![entry("z/good")]));
    let children = vec![child("a/good", before), child(first, middle), child("z/good", behind)];
    let root = manifest.node(&Node::Branch(1, children));
    manifest.snapshot(root, |record| record.levels = 1)
}

#[test]
fn names_that_no_path_may_have_cost_their_leaf_and_nothing_else() {
    let long = "x".repeat(65_537);
    let not_allowed = [
        "",
        "/",
        ".",
        "..",
        "/etc/passwd",
        "../beside",
        "m/..",
        "m/../../beside",
        "m/./x",
        "m//x",
        "m/x/",
        "m/a\0b",
        "m/../..",
    ];
    let out_of_order = ["m/!", "m/ ", "a"];
    let cases = not_allowed.map(|path| (path, "not allowed")).into_iter();
    let cases = cases.chain(out_of_order.map(|path| (path, "out of order")));
    for (path, why) in cases.chain([(long.as_str(), "over the limit")]) {
        let (repository, fence) = (repository(), Fenced::new());
        let id = between(&repository, "m/!", &Node::Leaf(vec![entry("m/!"), entry(path)]));
        let restored = fence.restore(&repository, id);
        rest_is_there(&fence);
        assert!(!fence.target().join("m").try_exists().unwrap(), "{path:?}");
        assert_eq!((restored.failures, restored.gaps, restored.files), (1, 1, 2), "{path:?}");
        let (lost, error) = &restored.failed[0];
        assert_eq!((&lost[..], error.kind()), (&b"m/!"[..], ErrorKind::Damaged));
        assert!(error.to_string().contains(why), "{path:?}: {error}");
        assert!(is_said(&repository, why), "{path:?}");
        // The same alone: then it is all of the manifest.
        let mut manifest = Manifest::new(&repository);
        let root = manifest.node(&Node::Leaf(vec![entry(path)]));
        if why != "out of order" {
            let id = manifest.snapshot(root, |_| {});
            assert_eq!(fence.restore(&repository, id).gaps, 1, "{path:?}");
        }
    }
}

#[test]
fn names_that_only_look_odd_are_restored_as_they_are() {
    let (repository, fence) = (repository(), Fenced::new());
    let longest = "l".repeat(255);
    let too_long = "m".repeat(256);
    let path_too_long = ["n"; 3000].join("/");
    let mut names = vec![
        b"..\\beside".to_vec(),
        b"...".to_vec(),
        b" ".to_vec(),
        b"-rf".to_vec(),
        b"C:x".to_vec(),
        b"CON".to_vec(),
        b"Name".to_vec(),
        b"name".to_vec(),
        b"a\nb".to_vec(),
        b"\x1b[2J\x1b]0;x\x07".to_vec(),
        "\u{202e}gpj.exe".as_bytes().to_vec(),
        b"\xff\xfe".to_vec(),
        longest.into_bytes(),
    ];
    let fine = names.clone();
    names.extend([too_long.clone().into_bytes()]);
    names.sort();
    let mut entries: Vec<Entry> = names.iter().map(|name| entry([b"m/", &name[..]].concat())).collect();
    entries.push(entry(path_too_long.as_str()));
    let first = String::from_utf8(entries[0].path.clone()).unwrap();
    let id = between(&repository, &first, &sorted(entries));
    let restored = fence.restore(&repository, id);
    rest_is_there(&fence);
    let folder = fence.target().join("m");
    for name in fine {
        use std::os::unix::ffi::OsStrExt;
        assert!(folder.join(std::ffi::OsStr::from_bytes(&name)).is_file(), "{name:?}");
    }
    // Deeper than any path can be written, and made step by step.
    let failed: Vec<&Vec<u8>> = restored.failed.iter().map(|(path, _)| path).collect();
    assert_eq!(failed, [&format!("m/{too_long}").into_bytes()]);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 13);
}

#[test]
fn nothing_is_written_through_a_link_or_a_file_that_the_manifest_makes() {
    let (repository, fence) = (repository(), Fenced::new());
    let outside = fence.outside().into_os_string().into_encoded_bytes();
    let entries = vec![
        link("m/absolute", &outside),
        entry("m/absolute/passwd"),
        of_kind("m/absolute/deep", EntryKind::Directory),
        link("m/dot", b"."),
        entry("m/dot/x"),
        entry("m/file"),
        entry("m/file/x"),
        link("m/passwd", &[&outside[..], b"/passwd"].concat()),
        link("m/up", b"../../outside"),
        entry("m/up/deep/file"),
        of_kind("m/up/new", EntryKind::Fifo),
    ];
    let id = between(&repository, "m/absolute", &sorted(entries));
    // Twice: the second time the links are there from the start.
    for _ in 0..2 {
        let restored = fence.restore(&repository, id);
        rest_is_there(&fence);
        let failed: Vec<String> =
            restored.failed.iter().map(|(path, _)| String::from_utf8(path.clone()).unwrap()).collect();
        for path in ["m/absolute", "m/dot", "m/file", "m/up"] {
            // Which of the two is first is a matter of threads; both cannot be.
            assert!(failed.iter().any(|failed| failed.starts_with(path)), "{path}: {failed:?}");
        }
        assert!(restored.failed.iter().all(|(_, error)| error.remedy().is_some()), "{:?}", restored.failed);
    }
}

#[test]
fn further_names_of_a_file_reach_nothing_outside() {
    let (repository, fence) = (repository(), Fenced::new());
    let outside = fence.outside().into_os_string().into_encoded_bytes();
    let passwd = [&outside[..], b"/passwd"].concat();
    let linked = |mut entry: Entry, inode: u64| {
        (entry.metadata.inode, entry.metadata.links) = (inode, 3);
        entry
    };
    let missing =
        with_content("m/lost", 5, Content::Inline(vec![ChunkRef { id: BlobId::new([9; 32]), length: 5 }]));
    let further = Entry { path: b"m/lost-2".to_vec(), ..missing.clone() };
    let entries = vec![
        // A link and a file of one inode are not one file.
        linked(link("m/evil", &passwd), 7),
        linked(entry("m/evil-2"), 7),
        linked(link("m/evil-3", &passwd), 7),
        // The first name of these lies behind a link.
        link("m/folder", &outside),
        linked(entry("m/folder/passwd"), 8),
        linked(entry("m/good"), 8),
        linked(of_kind("m/pipe", EntryKind::Fifo), 10),
        linked(entry("m/pipe-2"), 10),
        linked(missing, 9),
        linked(further, 9),
    ];
    let id = between(&repository, "m/evil", &sorted(entries));
    for _ in 0..2 {
        let restored = fence.restore(&repository, id);
        rest_is_there(&fence);
        assert!(fence.target().join("m/evil-2").symlink_metadata().unwrap().is_file());
        assert!(fence.holds("m/pipe-2"));
        assert!(fence.holds("m/good"), "it is restored by itself: {:?}", restored.failed);
        let failed: Vec<&[u8]> = restored.failed.iter().map(|(path, _)| &path[..]).collect();
        for path in ["m/folder/passwd", "m/lost", "m/lost-2"] {
            assert!(failed.contains(&path.as_bytes()), "{path}: {failed:?}");
        }
    }
}

#[test]
fn devices_pipes_and_bits_of_the_mode_stay_inside_and_keep_to_their_owner() {
    let (repository, fence) = (repository(), Fenced::new());
    let mut device = of_kind("m/device", EntryKind::BlockDevice);
    // /dev/null would be harmless, this number is nobody's.
    device.metadata.device_number = 240 << 32 | 250;
    let mut setuid = entry("m/setuid");
    (setuid.metadata.mode, setuid.metadata.uid, setuid.metadata.gid) = (0o6755, 4242, 4242);
    let mut strange = entry("m/strange");
    // All flags but those that would keep the file from being removed.
    (strange.metadata.mode, strange.metadata.flags) = (u32::MAX, !0x30);
    strange.metadata.mtime = Timestamp { seconds: i64::MAX, nanoseconds: 999_999_999 };
    strange.metadata.xattrs = vec![(b"trusted.x".to_vec(), vec![0; 9]), (b"\0".to_vec(), Vec::new())];
    let mut owner = entry("m/owner");
    (owner.metadata.uid, owner.metadata.gid) = (u32::MAX, u32::MAX);
    owner.metadata.mtime.seconds = i64::MIN;
    let pipe = of_kind("m/pipe", EntryKind::Fifo);
    let socket = of_kind("m/socket", EntryKind::Socket);
    let id = between(&repository, "m/device", &sorted(vec![device, owner, pipe, setuid, socket, strange]));
    let restored = fence.restore(&repository, id);
    rest_is_there(&fence);
    let status = |name: &str| fs::symlink_metadata(fence.target().join("m").join(name)).unwrap();
    assert!(status("pipe").file_type().is_fifo());
    if rustix::process::geteuid().is_root() {
        assert_eq!(restored.failures, 0, "{:?}", restored.failed);
        assert!(status("device").file_type().is_block_device());
        assert_eq!(status("device").rdev(), rustix::fs::makedev(240, 250));
    }
    assert_eq!(status("setuid").mode() & 0o7777, 0o755, "whoever restores does not lend their rights");
    assert!(status("owner").is_file() && status("strange").is_file());
}

/// Somebody who may write in the target puts a link in the place of a folder, again and again, while root restores
/// into it.
#[test]
fn a_folder_that_becomes_a_link_during_the_restore_leads_nowhere() {
    let repository = repository();
    let mut folder = of_kind("m/d", EntryKind::Directory);
    folder.metadata.mode = 0o777;
    let mut entries = vec![folder];
    for number in 0..60 {
        entries.push(entry(format!("m/d/{number:02}")));
        entries.push(Entry { path: format!("m/d/{number:02}x").into(), ..of_kind("", EntryKind::Fifo) });
    }
    // Each is there outside too.
    let folders: Vec<String> = (0..20).map(|number| format!("deep{number:02}")).collect();
    for name in &folders {
        let mut deep = of_kind(&format!("m/d/{name}"), EntryKind::Directory);
        deep.metadata.mode = 0o700;
        entries.push(deep);
        entries.push(entry(format!("m/d/{name}/passwd")));
    }
    entries.push(of_kind("m/d/outside", EntryKind::Directory));
    let mut linked = entry("m/d/z1");
    (linked.metadata.inode, linked.metadata.links) = (77, 2);
    entries.push(Entry { path: b"m/d/z2".to_vec(), ..linked.clone() });
    entries.push(linked);
    let id = between(&repository, "m/d", &sorted(entries));
    let mut met = 0;
    for _ in 0..60 {
        let mut fence = Fenced::new();
        folders.iter().for_each(|name| fs::create_dir(fence.outside().join(name)).unwrap());
        fence.before = beside(fence.folder.path());
        let fence = fence;
        let (swapped, away) = (fence.target().join("m/d"), fence.target().join("m/away"));
        fs::create_dir_all(&swapped).unwrap();
        let stop = AtomicBool::new(false);
        let restored = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Each step may find that the restore was quicker.
                    drop(fs::rename(&swapped, &away));
                    drop(symlink(fence.outside(), &swapped));
                    std::thread::yield_now();
                    drop(fs::remove_file(&swapped));
                    drop(fs::rename(&away, &swapped));
                }
            });
            let restored =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fence.restore(&repository, id)));
            stop.store(true, Ordering::Relaxed);
            restored
        });
        let restored = restored.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        met += u64::from(restored.failures > 0);
        rest_is_there(&fence);
    }
    assert!(met > 0, "no restore ever met the link");
}

#[test]
fn the_fence_notices_what_it_is_for() {
    let broken = |change: &dyn Fn(&Path)| {
        let fence = Fenced::new();
        change(&fence.outside());
        beside(fence.folder.path()) != fence.before
    };
    assert!(!broken(&|_| {}));
    assert!(broken(&|outside| fs::set_permissions(outside, fs::Permissions::from_mode(0o711)).unwrap()));
    assert!(broken(&|outside| drop(File::create(outside.join("new")).unwrap())));
}
