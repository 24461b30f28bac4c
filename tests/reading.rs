//! Reading back: what is damaged, forged or gone costs what it held and nothing else, whatever stands in the
//! target already.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lifeboat::{
    clock::{SystemClock, Timestamp},
    compress::{Compression, Compressor},
    crypto::RootSecret,
    error::{Error, ErrorKind, Result},
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        select::Selection,
    },
    format::{
        entry::{ChunkRef, Content, Entry, EntryKind, Metadata},
        node::{Child, ListChild, Node},
        pack::{Blob, PackKind},
        role::Role,
    },
    id::BlobId,
    ops::{
        backup::{self, BackupOptions, Item, Source},
        check::{self, CheckOptions, Depth, Subset},
        key::{self, AddOptions, By},
        list,
        restore::{self, RestoreOptions, Restored},
        verify::{self, Owners, VerifyOptions},
    },
    repository::{
        InitOptions, Repository,
        manifest::{Accounts, ManifestCursor, NodeSource, for_each_chunk, for_each_list_node},
        pack_writer::{BlobKey, PackKeys, PackWriter},
        snapshots::KnownSnapshot,
        unlock::Credential,
    },
    store::{Name, Parsed, Prefix, Store, StoreOptions},
};

mod support {
    pub(crate) mod intercepted;
}
use support::intercepted::{Intercepted, Kind};

/// A repository in memory whose reads are counted, and its words.
struct Place {
    store: Store,
    counted: Arc<Intercepted>,
    root: RootSecret,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let counted = Intercepted::watching(Arc::new(object_store::memory::InMemory::new()));
        let options = StoreOptions {
            connections: 1,
            upload_limit: None,
            download_limit: None,
            retry_for: Duration::ZERO,
            s3: Default::default(),
            clock: Arc::new(SystemClock),
            progress: Arc::default(),
        };
        let store = Store::from_object_store(Arc::<Intercepted>::clone(&counted), "p", options).unwrap();
        let root = RootSecret::generate().unwrap();
        Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
        Self { store, counted, root, folder: tempfile::tempdir().unwrap() }
    }

    fn open_with(&self, credential: &Credential, cache: Option<&Path>) -> Repository {
        let config = Repository::read_config(&self.store).unwrap();
        let secrets = Repository::unlock(&self.store, &config, credential).unwrap();
        Repository::open(self.store.clone(), config, secrets, cache, Arc::new(SystemClock)).unwrap()
    }

    fn open(&self) -> Repository {
        self.open_with(&Credential::Words(self.root.words()), None)
    }

    fn back_up(&self, tree: &mut Tree) -> KnownSnapshot {
        let repository = self.open();
        let options = BackupOptions {
            host: "host".to_owned(),
            user: "user".to_owned(),
            tags: Vec::new(),
            sources: vec![b"/srv".to_vec()],
            time: None,
            compression: Compression::Auto,
            reuse: backup::Reuse::default(),
            unchanged: backup::Unchanged::Keep,
            mode: backup::Mode::Store,
            program: "test".to_owned(),
            workers: 1,
        };
        backup::run(&repository, tree, &options).unwrap();
        repository.snapshots().unwrap().0.pop().unwrap()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn restore(&self, snapshot: &KnownSnapshot, target: &str, workers: usize) -> Restored {
        let options = RestoreOptions {
            ownership: Ownership::new(OwnershipPolicy::Keep),
            subpath: Vec::new(),
            selection: Selection::new(&[], &[]).unwrap(),
            workers,
            ..RestoreOptions::default()
        };
        restore::run(&self.open(), snapshot, &self.at(target), &options).unwrap()
    }

    fn names(&self, which: &str) -> Vec<Name> {
        let listed = self.store.list(&Prefix::all()).unwrap();
        let chosen = listed.into_iter().filter(|listed| listed.name.contains(which));
        chosen.map(|listed| Name::parse(&listed.name).unwrap()).collect()
    }

    /// Flips a bit of one frame.
    fn damage(&self, kind: PackKind, frame: usize) {
        let repository = self.open();
        let view = repository.view(&repository.own_domain().unwrap()).unwrap();
        let pack = view.index.packs().find(|pack| pack.kind == kind).unwrap();
        let at = view.index.directory(&pack).unwrap().frames[frame].offset as usize + 3;
        let name = repository.pack_name(&repository.own_domain().unwrap(), &pack);
        let mut bytes = self.store.read(&name, 1 << 24).unwrap().to_vec();
        bytes[at] ^= 1;
        self.store.delete(&name).unwrap();
        self.store.create(&name, bytes.into()).unwrap();
    }
}

/// Entries that are made up, with what the files among them hold.
struct Tree(Vec<(Entry, Vec<u8>)>);

impl Source for Tree {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        Ok(Box::new(self.0.iter().map(|(entry, bytes)| {
            let content = bytes.clone();
            Ok(match entry.metadata.kind {
                EntryKind::File => {
                    Item::File(entry.clone(), Box::new(move || Ok(Box::new(std::io::Cursor::new(content)))))
                }
                _ => Item::Entry(entry.clone()),
            })
        })))
    }
}

fn entry(path: &str, kind: EntryKind, size: usize) -> Entry {
    let time = Timestamp::from_seconds(1_700_000_000);
    let metadata = Metadata {
        kind,
        mode: if kind == EntryKind::Directory { 0o750 } else { 0o640 },
        uid: 0,
        gid: 0,
        user: String::new(),
        group: String::new(),
        mtime: time,
        ctime: time,
        btime: None,
        inode: 1,
        device_key: 1,
        links: 1,
        size: size as u64,
        link_target: Vec::new(),
        device_number: 0,
        xattrs: Vec::new(),
        flags: 0,
        holes: Vec::new(),
        lacks: None,
    };
    let content = Content::Inline(Vec::new());
    Entry { path: path.into(), metadata, content, changed_while_read: false, error: None }
}

fn file(path: &str, bytes: &[u8]) -> (Entry, Vec<u8>) {
    (entry(path, EntryKind::File, bytes.len()), bytes.to_vec())
}

/// One of several names of a file.
fn linked(path: &str, bytes: &[u8], links: u64) -> (Entry, Vec<u8>) {
    let (mut entry, bytes) = file(path, bytes);
    entry.metadata.links = links;
    (entry, bytes)
}

fn small_files(files: usize) -> Tree {
    let mut tree = vec![(entry("srv", EntryKind::Directory, 0), Vec::new())];
    tree.extend((0..files).map(|n| file(&format!("srv/{n:06}"), n.to_string().as_bytes())));
    Tree(tree)
}

#[test]
fn a_damaged_manifest_node_loses_its_own_entries_and_no_others() {
    for workers in [1, 3] {
        let place = Place::new();
        let snapshot = place.back_up(&mut small_files(2000));
        place.damage(PackKind::Metadata, 1);
        let done = place.restore(&snapshot, "all", workers);
        assert_eq!(
            (done.failures, done.kinds),
            (1, HashSet::from([ErrorKind::Damaged])),
            "{:?}",
            done.failed
        );
        let first: usize = std::str::from_utf8(&done.failed[0].0[4..]).unwrap().parse().unwrap();
        let there = |n: usize| fs::read(place.at("all/srv").join(format!("{n:06}")));
        let lost: Vec<usize> = (0..2000).filter(|n| there(*n).is_err()).collect();
        assert_eq!(lost[0], first, "the failure names where the gap begins");
        assert!(lost.len() < 1100 && lost.iter().eq((first..first + lost.len()).collect::<Vec<_>>().iter()));
        assert!(
            (0..2000).filter(|n| !lost.contains(n)).all(|n| there(n).unwrap() == n.to_string().as_bytes())
        );
        // The folder got its metadata although something in it is lost.
        let folder = fs::metadata(place.at("all/srv")).unwrap();
        assert_eq!((folder.mode() & 0o7777, folder.mtime()), (0o750, 1_700_000_000));

        let repository = place.open();
        let mut listed = 0;
        let said = list::run(&repository, &snapshot, b"", &mut |_| {
            listed += 1;
            Ok(())
        });
        assert_eq!(said.unwrap_err().kind(), ErrorKind::Damaged, "what is missing is said at the end");
        assert_eq!(listed, 2001 - lost.len());
        let options = VerifyOptions { owners: Owners::Ignore, ..VerifyOptions::default() };
        let compared = verify::run(&repository, &snapshot, Some(&place.at("all")), &options).unwrap();
        assert_eq!((compared.lost, compared.differing), (1, 0), "{:?}", compared.differences);
        assert_eq!(compared.files, 2000 - lost.len() as u64);

        // What is asked for by its path is not touched by damage elsewhere.
        let last = list::run(&repository, &snapshot, b"srv/001999", &mut |_| Ok(()));
        last.unwrap();
    }
}

#[test]
fn nothing_is_linked_to_an_old_file_when_the_new_one_is_damaged() {
    let place = Place::new();
    let mut tree = Tree(vec![linked("a", b"content", 2), linked("b", b"content", 2)]);
    let snapshot = place.back_up(&mut tree);
    place.damage(PackKind::Data, 0);
    fs::create_dir(place.at("old")).unwrap();
    fs::write(place.at("old/a"), b"stale").unwrap();
    for target in ["old", "fresh"] {
        let done = place.restore(&snapshot, target, 1);
        assert_eq!(done.failures, 2, "{:?}", done.failed);
        let target = place.at(target);
        assert!(!target.join("b").try_exists().unwrap(), "no plausible file");
        assert!(target.join("a.damaged").try_exists().unwrap());
        assert!(target.join("b.damaged").try_exists().unwrap());
    }
    assert_eq!(fs::read(place.at("old/a")).unwrap(), b"stale");
}

#[test]
fn an_inode_number_that_was_used_again_is_another_file() {
    let place = Place::new();
    let mut tree = Tree(vec![linked("a", b"one", 2), linked("b", b"two", 2), linked("c", b"one", 2)]);
    let snapshot = place.back_up(&mut tree);
    assert_eq!(place.restore(&snapshot, "all", 2).failures, 0);
    let read = |name: &str| fs::read(place.at("all").join(name)).unwrap();
    assert_eq!([read("a"), read("b"), read("c")], [b"one", b"two", b"one"]);
    let inode = |name: &str| fs::metadata(place.at("all").join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("c"));
}

#[test]
fn further_names_come_back_when_the_first_one_cannot() {
    let place = Place::new();
    let mut tree = Tree(["a", "b", "c"].map(|name| linked(name, b"content", 3)).into());
    let snapshot = place.back_up(&mut tree);
    // A folder that is not empty has the first name.
    fs::create_dir_all(place.at("all/a/mine")).unwrap();
    let done = place.restore(&snapshot, "all", 2);
    assert_eq!((done.failures, done.kinds), (1, HashSet::from([ErrorKind::Incomplete])), "{:?}", done.failed);
    let status = |name: &str| fs::metadata(place.at("all").join(name)).unwrap();
    assert_eq!(fs::read(place.at("all/b")).unwrap(), b"content");
    assert_eq!((status("b").ino(), status("b").nlink()), (status("c").ino(), 2));
}

#[test]
fn a_frame_is_read_once_for_all_the_small_files_in_it() {
    let place = Place::new();
    let snapshot = place.back_up(&mut small_files(5000));
    let before = place.counted.count(Kind::Get);
    assert_eq!(place.restore(&snapshot, "all", 1).failures, 0);
    let whole = place.counted.count(Kind::Get) - before;
    assert!(whole <= 9, "{whole} reads: config, slot, registry, index, metadata and one of data");
    // Nor is one that is damaged read again for each of them.
    place.damage(PackKind::Data, 0);
    let before = place.counted.count(Kind::Get);
    assert_eq!(place.restore(&snapshot, "again", 1).failures, 5000);
    let damaged = place.counted.count(Kind::Get) - before;
    assert!(damaged <= whole + 2, "{damaged} reads");
}

/// Somebody who shares the domain stores `plain` under its true id, in a section of a key epoch that never was.
fn forge(place: &Place, by: &Repository, plain: &[u8]) {
    let domain = by.own_domain().unwrap();
    let (keys, index) = (by.chunk_keys(&domain).unwrap(), by.index_key(&domain).unwrap());
    let (_, public) = by.data_public().unwrap();
    let writer = PackWriter::new(
        PackKeys {
            place: by.place(domain),
            kind: PackKind::Data,
            blobs: BlobKey::Chunk(&keys.id),
            epoch: 999,
            public,
            index: &index,
            signer: by.signer(),
        },
        1 << 24,
    );
    let mut compressor = Compressor::new(Compression::Auto).unwrap();
    let blob = Blob { id: keys.id.id(plain), length: u32::try_from(plain.len()).unwrap() };
    let stored = compressor.compress(plain).unwrap();
    writer.add(vec![blob], stored, compressor.decompressor()).unwrap();
    let pack = writer.flush().unwrap().unwrap();
    let name = Name::pack(&domain, PackKind::Data, &pack.listed.id);
    place.store.create(&name, pack.pieces.concat().into()).unwrap();
    by.publish_index(&domain, &[pack.listed]).unwrap();
}

#[test]
fn a_forged_copy_of_a_neighbour_is_neither_preferred_nor_fatal() {
    let place = Place::new();
    let snapshot = place.back_up(&mut Tree(vec![file("a", b"content")]));
    let own = place.names("/packs/d/");
    let options = AddOptions {
        role: Role::Backup,
        label: "b".to_owned(),
        domain: Some("main".to_owned()),
        shared: false,
        unlock: By::AccessKey,
    };
    let added = key::add(&place.open(), &options).unwrap();
    let by = place.open_with(&Credential::AccessKey(added.access_key.unwrap().text()), None);
    (0..3).for_each(|_| forge(&place, &by, b"content"));

    let owner = place.open();
    let domain = owner.own_domain().unwrap();
    let view = owner.view(&domain).unwrap();
    let id = owner.chunk_keys(&domain).unwrap().id.id(b"content");
    let authors = |reader| -> Vec<_> {
        let places = view.index.copies(&id, reader);
        places.into_iter().map(|at| view.index.found(at).unwrap().section.author).collect()
    };
    let (me, they) = (owner.identity(), by.identity());
    assert_eq!(authors(me), [me, they, they, they]);
    assert_eq!(authors(they), [they, they, they, me]);
    assert_eq!(place.restore(&snapshot, "all", 1).failures, 0);

    // Check reads all of them: the forged ones are damage, and hurt nobody.
    let look = || check::run(&place.open(), CheckOptions { depth: Depth::Data(Subset::All), workers: 2 });
    let checked = look().unwrap();
    assert_eq!(checked.problems_found, 3, "{:?}", checked.problems);
    assert!(checked.problems.iter().all(|problem| problem.hurts.is_empty()), "{:?}", checked.problems);

    // Without the good copy the file is damaged, and nothing is a question of roles.
    assert!(matches!(own[0].parsed(), Parsed::Pack { .. }));
    place.store.delete(&own[0]).unwrap();
    let done = place.restore(&snapshot, "again", 1);
    assert_eq!(done.kinds, HashSet::from([ErrorKind::Damaged]));
    let checked = look().unwrap();
    assert!(
        checked.problems.iter().any(|problem| problem.hurts[..] == [hurt(&snapshot, "a")]),
        "{checked:?}"
    );
}

fn hurt(snapshot: &KnownSnapshot, path: &str) -> String {
    format!("{:.8}: /{path}", snapshot.name.id.to_string())
}

#[test]
fn a_damaged_cache_hides_nothing_from_whoever_reads() {
    let place = Place::new();
    let cache = place.at("cache");
    let words = Credential::Words(place.root.words());
    let open = || place.open_with(&words, Some(&cache));
    let snapshot = place.back_up(&mut small_files(3000));
    let options = RestoreOptions {
        ownership: Ownership::new(OwnershipPolicy::Keep),
        subpath: Vec::new(),
        selection: Selection::new(&[], &[]).unwrap(),
        workers: 2,
        ..RestoreOptions::default()
    };
    let flip_segments = || {
        let mut folders = vec![cache.join("")];
        let mut flipped = 0;
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.to_str().unwrap().contains("segments") {
                    let mut bytes = fs::read(&path).unwrap();
                    bytes[1000] ^= 1;
                    fs::write(&path, bytes).unwrap();
                    flipped += 1;
                }
            }
        }
        assert!(flipped > 0);
    };
    let list_all = |repository: &Repository| {
        let mut paths = Vec::new();
        list::run(repository, &snapshot, b"", &mut |entry| {
            paths.push(entry.path.clone());
            Ok(())
        })
        .unwrap();
        paths
    };
    let paths = list_all(&open());
    assert_eq!(paths.len(), 3001);
    flip_segments();
    assert_eq!(list_all(&open()), paths, "each once");
    flip_segments();
    let done = restore::run(&open(), &snapshot, &place.at("all"), &options).unwrap();
    assert_eq!((done.failures, done.files), (0, 3000), "{:?}", done.failed);
}

/// Nodes in memory; counts how often one is asked for.
#[derive(Default)]
struct Nodes(HashMap<BlobId, Node>, AtomicUsize);

impl Nodes {
    fn put(&mut self, node: Node) -> BlobId {
        let id = BlobId::new(*blake3::hash(&node.encode()).as_bytes());
        self.0.insert(id, node);
        id
    }
}

impl NodeSource for Nodes {
    fn plain(&self, id: &BlobId) -> Result<Vec<u8>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.get(id).map(Node::encode).ok_or_else(|| Error::damaged("a node", "it is not there"))
    }
}

#[test]
fn a_list_that_repeats_itself_comes_to_an_end() {
    let mut nodes = Nodes::default();
    let mut id = nodes.put(Node::Chunks(Vec::new()));
    for level in 1..=3 {
        id = nodes.put(Node::Lists(level, vec![ListChild { id, chunks: 0, bytes: 0 }; 64]));
    }
    let chunks = Content::List { node: id, chunks: 1 << 40, level: 16 };
    assert!(for_each_chunk(&chunks, &nodes, &mut |_| Ok(())).is_err());
    assert!(for_each_list_node(&chunks, &nodes, &mut |_| ()).is_err());
    let read = nodes.1.load(Ordering::Relaxed);
    assert!(read <= 4, "{read} nodes were read");
}

#[test]
fn a_list_is_believed_only_as_far_as_its_sums_are_true() {
    let chunk = |n: u8| ChunkRef { id: BlobId::new([n; 32]), length: 10 };
    let mut nodes = Nodes::default();
    let one = nodes.put(Node::Chunks(vec![chunk(1), chunk(2)]));
    let two = nodes.put(Node::Chunks(vec![chunk(3)]));
    let mut count = |second: ListChild, chunks: u64| {
        let first = ListChild { id: one, chunks: 2, bytes: 20 };
        let content =
            Content::List { node: nodes.put(Node::Lists(1, vec![first, second])), chunks, level: 1 };
        let mut seen = 0;
        for_each_chunk(&content, &nodes, &mut |_| {
            seen += 1;
            Ok(())
        })
        .map(|()| seen)
    };
    assert_eq!(count(ListChild { id: two, chunks: 1, bytes: 10 }, 3).unwrap(), 3);
    for (chunks, bytes, total) in [(1, 11, 3), (2, 10, 4), (1, 10, 4), (1, 10, 2)] {
        let error = count(ListChild { id: two, chunks, bytes }, total).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{chunks} {bytes} {total}");
    }
}

/// Everything that a cursor gives, and how many errors it meets.
fn drain(cursor: &mut ManifestCursor<'_>) -> (Vec<String>, usize) {
    let (mut paths, mut errors) = (Vec::new(), 0);
    loop {
        match cursor.next_entry() {
            Ok(Some(entry)) => paths.push(String::from_utf8(entry.path).unwrap()),
            Ok(None) => return (paths, errors),
            Err(_) => errors += 1,
        }
    }
}

#[test]
fn a_manifest_that_repeats_itself_or_goes_back_comes_to_an_end() {
    let leaf = |path: &str| Node::Leaf(vec![entry(path, EntryKind::File, 1)]);
    let child = |first: &str, id: BlobId| Child { first: first.into(), id, entries: 1, bytes: 1 };
    let mut nodes = Nodes::default();
    // Every branch begins with a leaf that is lost and ends with the same subtree as its neighbours.
    let lost = BlobId::new([9; 32]);
    let shared = nodes.put(leaf("z"));
    let branches: Vec<Child> = (0..64)
        .map(|n| {
            let first = format!("a{n:02}");
            let children = vec![child(&first, lost), child("z", shared)];
            child(&first, nodes.put(Node::Branch(1, children)))
        })
        .collect();
    let root = nodes.put(Node::Branch(2, branches));
    assert_eq!(drain(&mut ManifestCursor::new(&nodes, root)).0, ["z"], "once, however often it is named");
    let read = nodes.1.load(Ordering::Relaxed);
    assert!(read < 5, "{read} nodes were read");

    // A leaf that begins elsewhere than its branch says could be given twice.
    let (a, b) = (nodes.put(leaf("a")), nodes.put(leaf("b")));
    let root = nodes.put(Node::Branch(1, vec![child("a", a), child("b", a), child("c", b)]));
    assert_eq!(drain(&mut ManifestCursor::new(&nodes, root)), (vec!["a".to_owned()], 2));
}

#[test]
fn sums_that_are_not_true_are_reported_and_hide_nothing() {
    let leaf =
        |paths: &[&str]| Node::Leaf(paths.iter().map(|path| entry(path, EntryKind::File, 5)).collect());
    let mut nodes = Nodes::default();
    let (one, two) = (nodes.put(leaf(&["a", "b"])), nodes.put(leaf(&["c"])));
    let mut root = |bytes: u64| {
        let first = Child { first: b"a".to_vec(), id: one, entries: 2, bytes: 10 };
        nodes.put(Node::Branch(1, vec![first, Child { first: b"c".to_vec(), id: two, entries: 1, bytes }]))
    };
    let (good, bad) = (root(5), root(6));
    let mut cursor = ManifestCursor::accounting(&nodes, good, Accounts::new());
    assert_eq!((drain(&mut cursor).1, cursor.nodes_read), (0, 3));
    let accounts = cursor.into_accounts();
    // What was seen is not given again, and its sums are still compared.
    let mut cursor = ManifestCursor::accounting(&nodes, bad, accounts);
    assert_eq!((drain(&mut cursor), cursor.nodes_read), ((Vec::new(), 1), 1));
    let mut cursor = ManifestCursor::accounting(&nodes, bad, Accounts::new());
    let (paths, errors) = drain(&mut cursor);
    assert_eq!((paths.len(), errors), (3, 1));
    // The same node where it does not belong is no good because it was good where it does.
    let twice = |first: &[u8]| Child { first: first.to_vec(), id: one, entries: 2, bytes: 10 };
    let copied = nodes.put(Node::Branch(1, vec![twice(b"a"), twice(b"x")]));
    let mut cursor = ManifestCursor::accounting(&nodes, copied, Accounts::new());
    assert_eq!((drain(&mut cursor).1, cursor.nodes_read), (1, 3));
}
