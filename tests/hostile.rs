//! Manifests and packs as a client writes them whose key was stolen, restored as root: what cannot be is named,
//! everything else comes back, and nothing beside the target is touched.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use lifeboat::{
    clock::{SystemClock, Timestamp},
    compress::Codec,
    crypto::RootSecret,
    error::ErrorKind,
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        select::Selection,
    },
    format::{
        entry::{ChunkRef, Content, Entry, EntryKind, Metadata},
        node::{Child, ListChild, Node, compare_paths},
        pack::{Blob, Directory, PackKind, encode_index},
        slot::KdfParameters,
        wire::Writer,
    },
    id::{BlobId, ObjectId},
    ops::restore::{self, RestoreOptions, Restored},
    repository::{InitOptions, Repository},
    store::Store,
};
use object_store::memory::InMemory;

mod support {
    pub(crate) mod forger;
    #[expect(dead_code, reason = "restores here have a fence around them")]
    pub(crate) mod lab;
}
use support::{
    forger::{self, Forged, Manifest},
    lab::{self, Files, check_all, noise},
};

/// A repository with one honest snapshot.
fn repository() -> Repository {
    let options = lab::options(Arc::new(SystemClock), Arc::default(), 0);
    let store = Store::from_object_store(Arc::new(InMemory::new()), "", options).unwrap();
    let root = RootSecret::generate().unwrap();
    let kdf = KdfParameters { memory_kib: 64, passes: 1, lanes: 1 };
    let init = InitOptions { kdf, ..InitOptions::default() };
    Repository::create(&store, &root, "right", init, &SystemClock).unwrap();
    let repository = lab::open(&store, &root).unwrap();
    lab::back_up(&repository, &Files::from([("srv/honest".to_owned(), b"honest".to_vec())])).unwrap();
    repository
}

/// A folder with a target in it, and things beside the target that nobody may touch.
struct Fenced {
    folder: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
}

/// Everything below a folder but the target: kind, bytes, permissions, owner, times.
fn beside(folder: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let status = fs::symlink_metadata(&path).unwrap();
            if path.ends_with("target") {
                continue;
            }
            let bytes = if status.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let (mode, owner) = (status.mode(), (status.uid(), status.gid()));
            let (links, times) = (status.nlink(), (status.mtime(), status.mtime_nsec()));
            found.insert(path.clone(), format!("{mode:o} {owner:?} {links} {times:?} {bytes:x?}"));
            if status.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

impl Fenced {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("outside/deep")).unwrap();
        for file in ["outside/passwd", "outside/deep/file", "beside"] {
            File::create(folder.path().join(file)).unwrap().write_all(b"canary").unwrap();
        }
        fs::create_dir(folder.path().join("target")).unwrap();
        let before = beside(folder.path());
        assert_eq!(before.len(), 5);
        Self { folder, before }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    fn outside(&self) -> Vec<u8> {
        self.folder.path().join("outside").into_os_string().into_encoded_bytes()
    }

    #[track_caller]
    fn is_whole(&self) {
        assert_eq!(beside(self.folder.path()), self.before);
    }

    /// Restores a snapshot into the target, as whoever runs the tests, which is root in CI.
    #[track_caller]
    fn restore(&self, repository: &Repository, id: ObjectId) -> Restored {
        let (known, damaged) = repository.snapshots().unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        let snapshot = known.iter().find(|known| known.name.id == id).unwrap();
        let options = RestoreOptions {
            ownership: Ownership::new(OwnershipPolicy::Keep),
            subpath: Vec::new(),
            selection: Selection::new(&[], &[]).unwrap(),
            workers: 2,
        };
        let restored = restore::run(repository, snapshot, &self.target(), &options).unwrap();
        self.is_whole();
        restored
    }

    fn holds(&self, path: &str) -> bool {
        self.target().join(path).is_file()
    }
}

/// An empty file.
fn entry(path: impl Into<Vec<u8>>) -> Entry {
    let time = Timestamp::from_seconds(1_700_000_000);
    let metadata =
        Metadata { mode: 0o644, mtime: time, ctime: time, inode: 1, ..Metadata::of(EntryKind::File) };
    Entry {
        path: path.into(),
        metadata,
        content: Content::Inline(Vec::new()),
        changed_while_read: false,
        error: None,
    }
}

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

fn with_content(path: &str, size: u64, content: Content) -> Entry {
    let mut entry = entry(path);
    (entry.metadata.size, entry.content) = (size, content);
    entry
}

fn child(first: &str, id: BlobId) -> Child {
    Child { first: first.into(), id, entries: 1, bytes: 0 }
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

/// The honest files before and behind are there.
#[track_caller]
fn rest_is_there(fence: &Fenced) {
    assert!(fence.holds("a/good") && fence.holds("z/good"));
}

fn is_said(repository: &Repository, text: &str) -> bool {
    let problems = check_all(repository).unwrap().problems;
    problems.iter().any(|problem| problem.what.contains(text) || problem.object.contains(text))
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
    for (path, why) in cases.chain([(&long[..], "over the limit")]) {
        let (repository, fence) = (repository(), Fenced::new());
        let id = between(&repository, "m/!", &Node::Leaf(vec![entry("m/!"), entry(path)]));
        let restored = fence.restore(&repository, id);
        rest_is_there(&fence);
        assert!(!fence.target().join("m").exists(), "{path:?}");
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
    let outside = fence.outside();
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
    let passwd = [&fence.outside()[..], b"/passwd"].concat();
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
        link("m/folder", &fence.outside()),
        linked(entry("m/folder/passwd"), 8),
        linked(entry("m/good"), 8),
        linked(missing, 9),
        linked(further, 9),
    ];
    let id = between(&repository, "m/evil", &sorted(entries));
    for _ in 0..2 {
        let restored = fence.restore(&repository, id);
        rest_is_there(&fence);
        assert!(fence.target().join("m/evil-2").symlink_metadata().unwrap().is_file());
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
    (strange.metadata.mode, strange.metadata.flags) = (u32::MAX, u32::MAX);
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
    for number in 0..20 {
        let mut deep = of_kind(&format!("m/d/deep{number:02}"), EntryKind::Directory);
        deep.metadata.mode = 0o700;
        entries.push(deep);
        entries.push(entry(format!("m/d/deep{number:02}/passwd")));
    }
    entries.push(of_kind("m/d/outside", EntryKind::Directory));
    let mut linked = entry("m/d/z1");
    (linked.metadata.inode, linked.metadata.links) = (77, 2);
    entries.push(Entry { path: b"m/d/z2".to_vec(), ..linked.clone() });
    entries.push(linked);
    let id = between(&repository, "m/d", &sorted(entries));
    let mut met = 0;
    for _ in 0..60 {
        let fence = Fenced::new();
        let (swapped, away) = (fence.target().join("m/d"), fence.target().join("m/away"));
        fs::create_dir_all(&swapped).unwrap();
        let stop = AtomicBool::new(false);
        let restored = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Each step may find that the restore was quicker.
                    drop(fs::rename(&swapped, &away));
                    drop(symlink(fence.outside_path(), &swapped));
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

impl Fenced {
    fn outside_path(&self) -> PathBuf {
        self.folder.path().join("outside")
    }
}

/// A manifest of one leaf with these files, whose content is told by `content` from what was added before it.
fn with_nodes(
    repository: &Repository,
    make: impl Fn(&mut Manifest<'_>) -> (u64, Content),
) -> (Fenced, Restored) {
    let mut manifest = Manifest::new(repository);
    let (size, content) = make(&mut manifest);
    let root = manifest.node(&Node::Leaf(vec![
        entry("a/good"),
        with_content("m/hostile", size, content),
        entry("z/good"),
    ]));
    let id = manifest.snapshot(root, |_| {});
    let fence = Fenced::new();
    let restored = fence.restore(repository, id);
    rest_is_there(&fence);
    assert_eq!(restored.failures, 1, "{:?}", restored.failed);
    assert_eq!(&restored.failed[0].0[..], b"m/hostile");
    assert!(!fence.target().join("m/hostile").exists());
    assert_ne!(check_all(repository).unwrap().problems_found, 0);
    (fence, restored)
}

#[test]
fn lists_that_lie_about_what_is_below_cost_their_file_only() {
    let chunk = ChunkRef { id: BlobId::new([9; 32]), length: 5 };
    let list = |node, chunks, level| Content::List { node, chunks, level };
    let part = |id, chunks, bytes| ListChild { id, chunks, bytes };
    let nowhere = BlobId::new([8; 32]);
    let of_one = |manifest: &mut Manifest<'_>| manifest.node(&Node::Chunks(vec![chunk]));
    type Make<'a> = &'a dyn Fn(&mut Manifest<'_>) -> (u64, Content);
    let cases: [(&str, Make<'_>); 10] = [
        ("a size without chunks", &|_| (1 << 60, Content::Inline(Vec::new()))),
        ("chunks beyond the size", &|_| (3, Content::Inline(vec![chunk; 256]))),
        ("2^60 chunks claimed", &|manifest| (1 << 60, list(of_one(manifest), 1 << 60, 0))),
        ("a list that is missing", &|_| (5, list(nowhere, 1, 3))),
        ("a list that is a leaf", &|manifest| (5, list(manifest.node(&Node::Leaf(vec![entry("x")])), 1, 3))),
        ("a list that contains itself", &|manifest| {
            let id = BlobId::new([7; 32]);
            let node = Node::Lists(16, vec![part(id, 1, 5)]);
            (5, list(manifest.under(id, &node.encode()), 1, 16))
        }),
        ("sums that overflow", &|manifest| {
            let one = of_one(manifest);
            let node = Node::Lists(1, vec![part(one, u64::MAX, u64::MAX), part(one, 2, 6)]);
            (5, list(manifest.node(&node), 1, 1))
        }),
        ("empty parts", &|manifest| {
            let empty = manifest.node(&Node::Chunks(Vec::new()));
            let node = Node::Lists(1, vec![part(empty, 0, 0); 4096]);
            (5, list(manifest.node(&node), 1, 1))
        }),
        ("levels that rise", &|manifest| {
            let one = of_one(manifest);
            let low = manifest.node(&Node::Lists(5, vec![part(one, 1, 5)]));
            (5, list(manifest.node(&Node::Lists(3, vec![part(low, 1, 5)])), 1, 3))
        }),
        // 2^60 chunks in 16 nodes, and every sum is right: whoever follows it must stop at the size of the file.
        ("a list that repeats itself", &|manifest| {
            let (mut id, mut chunks, mut bytes) = (of_one(manifest), 1_u64, 5_u64);
            for level in 1..=15 {
                id = manifest.node(&Node::Lists(level, vec![part(id, chunks, bytes); 16]));
                (chunks, bytes) = (chunks * 16, bytes.saturating_mul(16));
            }
            (1000, list(id, chunks, 15))
        }),
    ];
    for (what, make) in cases {
        let repository = repository();
        let (_, restored) = with_nodes(&repository, make);
        let error = &restored.failed[0].1;
        assert!([ErrorKind::Damaged, ErrorKind::Incomplete].contains(&error.kind()), "{what}: {error}");
    }
}

/// A node of a manifest as bytes: its type, a level, and how many children it says it has.
fn claims(kind: u8, level: u8, count: u64) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(kind);
    if kind % 2 == 0 {
        out.u8(level);
    }
    out.number(count);
    out.finish()
}

#[test]
fn a_manifest_that_cannot_be_is_told_and_ends() {
    type Make<'a> = &'a dyn Fn(&mut Manifest<'_>) -> BlobId;
    let leaf = |manifest: &mut Manifest<'_>| manifest.node(&Node::Leaf(vec![entry("m")]));
    let itself = BlobId::new([7; 32]);
    let cases: [(&str, Make<'_>); 9] = [
        ("2^40 entries claimed", &|manifest| manifest.plain(&claims(1, 0, 1 << 40))),
        ("2^60 children claimed", &|manifest| manifest.plain(&claims(2, 1, 1 << 60))),
        ("4096 children and none there", &|manifest| manifest.plain(&claims(2, 1, 4096))),
        ("level 17", &|manifest| manifest.plain(&claims(2, 17, 0))),
        ("level 0", &|manifest| manifest.plain(&claims(2, 0, 0))),
        ("an entry of 2^60 bytes", &|manifest| {
            let mut plain = claims(1, 0, 1);
            plain.extend([0, 1, b'm', 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]);
            manifest.plain(&plain)
        }),
        ("a branch that contains itself", &|manifest| {
            manifest.under(itself, &Node::Branch(16, vec![child("m", itself)]).encode())
        }),
        ("a branch above one of its own level", &|manifest| {
            let leaf = leaf(manifest);
            let low = manifest.node(&Node::Branch(3, vec![child("m", leaf)]));
            manifest.node(&Node::Branch(3, vec![child("m", low)]))
        }),
        ("a root that is a list", &|manifest| {
            let leaf = leaf(manifest);
            manifest.node(&Node::Lists(1, vec![ListChild { id: leaf, chunks: 1, bytes: 1 }]))
        }),
    ];
    for (what, make) in cases {
        let (repository, fence) = (repository(), Fenced::new());
        let mut manifest = Manifest::new(&repository);
        let root = make(&mut manifest);
        let id = manifest.snapshot(root, |_| {});
        let restored = fence.restore(&repository, id);
        assert_eq!((restored.files, restored.gaps), (0, 1), "{what}: {:?}", restored.failed);
        assert_ne!(check_all(&repository).unwrap().problems_found, 0, "{what}");
    }
}

#[test]
fn a_manifest_that_repeats_itself_gives_each_entry_once() {
    let (repository, fence) = (repository(), Fenced::new());
    let mut manifest = Manifest::new(&repository);
    let mut node = manifest.node(&Node::Leaf(vec![entry("m/one")]));
    // 4096^16 leaves, if each were followed.
    for level in 1..=16 {
        let children = (0..4096).map(|number| match number {
            0 => child("m/one", node),
            _ => Child { first: format!("m/p{number:04}").into(), id: node, entries: 1, bytes: u64::MAX },
        });
        node = manifest.node(&Node::Branch(level, children.collect()));
    }
    let id = manifest.snapshot(node, |record| record.levels = 16);
    let restored = fence.restore(&repository, id);
    assert_eq!((restored.files, fence.holds("m/one")), (1, true));
    // Every other child says that it begins where it does not.
    assert_eq!(restored.gaps, 16 * 4095);
    assert_ne!(check_all(&repository).unwrap().problems_found, 0);
}

/// A zstd frame of blocks that each repeat one byte: 4 bytes for up to 128 KiB.
fn bomb(claimed: Option<u64>, blocks: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, if claimed.is_some() { 0xc0 } else { 0 }, 0x88];
    frame.extend(claimed.into_iter().flat_map(u64::to_le_bytes));
    for number in 0..blocks {
        let last = u32::from(number + 1 == blocks);
        frame.extend(&(last | 1 << 1 | (128 << 10) << 3).to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

/// Restores a file of `content` beside a good one; the frames are in one pack with the good one's chunk.
fn with_frames(frames: &[Forged], lie: impl Fn(&mut Directory), content: &[ChunkRef]) -> Restored {
    let repository = repository();
    let keys = repository.chunk_keys(&repository.own_domain().unwrap()).unwrap();
    let good = noise(3, 1000);
    let mut all = vec![Forged::raw(keys.id.id(&good), &good)];
    all.extend(frames.iter().cloned());
    let listed = forger::pack(&repository, PackKind::Data, &all, lie);
    forger::index(&repository, &encode_index(&[listed]));
    let size = content.iter().map(|chunk| u64::from(chunk.length)).sum();
    let mut manifest = Manifest::new(&repository);
    let chunk = ChunkRef { id: keys.id.id(&good), length: 1000 };
    let root = manifest.node(&Node::Leaf(vec![
        with_content("a/good", 1000, Content::Inline(vec![chunk])),
        with_content("m/hostile", size, Content::Inline(content.to_vec())),
        with_content("z/good", 1000, Content::Inline(vec![chunk])),
    ]));
    let id = manifest.snapshot(root, |_| {});
    let fence = Fenced::new();
    let restored = fence.restore(&repository, id);
    assert_ne!(check_all(&repository).unwrap().problems_found, 0);
    if restored.failures == 1 {
        assert_eq!(fs::read(fence.target().join("a/good")).unwrap(), good);
        assert_eq!(fs::read(fence.target().join("z/good")).unwrap(), good);
        assert!(!fence.target().join("m/hostile").exists());
        assert!(restored.failed[0].1.is_damage() && restored.failed[0].0 == b"m/hostile", "{restored:?}");
    }
    restored
}

#[test]
fn a_frame_that_decompresses_to_something_else_is_stopped_at_what_was_declared() {
    let text = b"the same again and ".repeat(100);
    let length = u32::try_from(text.len()).unwrap();
    let packed = zstd::bulk::compress(&text, 3).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"void"].concat();
    let two_mebibytes = 2 << 20;
    for (what, stored, length) in [
        ("a bomb that claims 10 GiB", bomb(Some(10 << 30), 1000), two_mebibytes),
        ("a bomb that claims nothing", bomb(None, 1000), two_mebibytes),
        ("a bomb that claims what was declared", bomb(Some(2 << 20), 1000), two_mebibytes),
        ("one byte more than declared", packed.clone(), length - 1),
        ("one byte less than declared", packed.clone(), length + 1),
        ("a frame to skip before it", [&skippable[..], &packed].concat(), length),
        ("a frame to skip behind it", [&packed[..], &skippable].concat(), length),
        ("a second frame", [&packed[..], &packed].concat(), length * 2),
        ("a byte behind it", [&packed[..], &[0]].concat(), length),
        ("cut short", packed[..packed.len() - 1].to_vec(), length),
        ("nothing", Vec::new(), length),
    ] {
        let chunk = ChunkRef { id: BlobId::new([6; 32]), length };
        let blobs = vec![Blob { id: chunk.id, length }];
        let forged = Forged { stored, codec: Codec::Zstd, blobs };
        assert_eq!(with_frames(&[forged], |_| {}, &[chunk]).failures, 1, "{what}");
    }
}

#[test]
fn a_directory_that_lies_costs_what_it_lies_about() {
    let bytes = noise(4, 2000);
    let chunk = ChunkRef { id: BlobId::new([6; 32]), length: 2000 };
    type Lie<'a> = &'a dyn Fn(&mut Directory);
    // Such an index is still read: each frame proves itself.
    let one_by_one: [(&str, Lie<'_>); 6] = [
        ("the offset of another frame", &|directory| directory.frames[1].offset = directory.frames[0].offset),
        ("in the section header", &|directory| directory.frames[1].offset = 0),
        ("in the directory", &|directory| directory.frames[1].offset += 1000),
        ("another counter", &|directory| directory.frames[1].counter = u32::MAX),
        ("another hash", &|directory| directory.frames[1].hash[0] ^= 1),
        ("shorter", &|directory| directory.frames[1].length = 16),
    ];
    for (what, lie) in one_by_one {
        assert_eq!(with_frames(&[Forged::raw(chunk.id, &bytes)], lie, &[chunk]).failures, 1, "{what}");
    }
    // Such an index counts for nothing, nor does what it alone lists.
    let not_at_all: [(&str, Lie<'_>); 5] = [
        ("beyond the pack", &|directory| directory.frames[1].offset = 79 << 20),
        ("offset and length overflow", &|directory| directory.frames[1].offset = u32::MAX),
        ("shorter than its tag", &|directory| directory.frames[1].length = 15),
        ("a section that is not there", &|directory| directory.frames[1].section = 1),
        ("a blob of 4 GiB", &|directory| directory.frames[1].blobs[0].length = u32::MAX),
    ];
    for (what, lie) in not_at_all {
        assert_eq!(with_frames(&[Forged::raw(chunk.id, &bytes)], lie, &[chunk]).failures, 3, "{what}");
    }
}

#[test]
fn an_index_that_claims_more_than_it_holds_is_named_and_blocks_nothing() {
    let number = |value: u64| {
        let mut out = Writer::new();
        out.number(value);
        out.finish()
    };
    let head = [&number(1)[..], &[1; 32], &4096_u32.to_le_bytes(), &[1]].concat();
    for (what, plain) in [
        ("2^40 packs", number(1 << 40)),
        ("65536 packs", number(65_536)),
        ("2^60 sections", [&head[..], &number(1 << 60)].concat()),
        ("1024 sections", [&head[..], &number(1024)].concat()),
        ("65536 frames", [&head[..], &number(0), &number(65_536)].concat()),
        ("2^40 frames", [&head[..], &number(0), &number(1 << 40)].concat()),
        ("nothing", Vec::new()),
        ("something behind it", [&number(0)[..], &[0]].concat()),
    ] {
        let (repository, fence) = (repository(), Fenced::new());
        let name = forger::index(&repository, &plain);
        assert!(is_said(&repository, name.as_str()), "{what}");
        let (known, _) = repository.snapshots().unwrap();
        let restored = fence.restore(&repository, known[0].name.id);
        assert_eq!((restored.failures, fence.holds("srv/honest")), (0, true), "{what}");
        lab::back_up(&repository, &Files::from([("srv/next".to_owned(), b"next".to_vec())])).unwrap();
    }
}

#[test]
fn the_fence_notices_what_it_is_for() {
    let fence = Fenced::new();
    let broken = |change: &dyn Fn(&Path)| {
        change(&fence.outside_path());
        beside(fence.folder.path()) != fence.before
    };
    assert!(!broken(&|_| {}));
    assert!(broken(&|outside| fs::set_permissions(outside, fs::Permissions::from_mode(0o711)).unwrap()));
    assert!(broken(&|outside| drop(File::create(outside.join("new")).unwrap())));
}
