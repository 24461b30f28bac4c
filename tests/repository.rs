//! A repository from `create` to `open`, on memory and in a folder.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use lifeboat::{
    clock::{SystemClock, Timestamp},
    compress::{Compression, Decompressor},
    crypto::RootSecret,
    error::{ErrorKind, Result},
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        select::Selection,
    },
    format::{
        entry::{Content, Entry, EntryKind, Metadata},
        pack::{Frame, PackKind},
        role::Role,
    },
    limits,
    ops::backup::{
        self, BackupOptions, Item, Source,
        ingest::{Frames, Ingest, IngestKeys, UPLOAD_BYTES_IN_FLIGHT, Worker},
        tree::Tree as DiskTree,
    },
    ops::{
        check::{self, CheckOptions, Depth, Subset},
        restore::{self, RestoreOptions},
        verify::{self, Difference, VerifyOptions},
    },
    repository::{
        InitOptions, Repository,
        index::Found,
        manifest::{ManifestCursor, for_each_chunk},
        reader::{NodeReader, blob_range},
        unlock::Credential,
    },
    store::{self, Name, Prefix, Store, StoreOptions},
};
use zeroize::Zeroizing;

use self::intercepted::{Call, Fate, Intercepted};

#[path = "support/intercepted.rs"]
mod intercepted;

fn options() -> StoreOptions {
    StoreOptions {
        connections: 1,
        upload_limit: None,
        download_limit: None,
        retry_for: Duration::ZERO,
        s3: Default::default(),
        clock: Arc::new(SystemClock),
        progress: Arc::default(),
    }
}

fn memory() -> Store {
    Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "some/prefix", options())
        .unwrap()
}

fn open(store: &Store, credential: &Credential) -> Result<Repository> {
    let config = Repository::read_config(store)?;
    let secrets = Repository::unlock(store, &config, credential)?;
    Repository::open(store.clone(), config, secrets, None, Arc::new(SystemClock))
}

fn passphrase(text: &str) -> Credential {
    Credential::Passphrase(Zeroizing::new(text.to_owned()), None)
}

fn in_every_store(test: impl Fn(Store)) {
    test(memory());
    let folder = tempfile::tempdir().unwrap();
    let location = store::Location::parse(folder.path().to_str().unwrap()).unwrap();
    test(Store::open(&location, options()).unwrap());
}

#[test]
fn the_passphrase_and_the_words_open_what_was_created_and_nothing_else_does() {
    in_every_store(|store| {
        let root = RootSecret::generate().unwrap();
        Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
        let repository = open(&store, &passphrase("right")).unwrap();
        assert_eq!(repository.role(), Role::Owner);
        assert_eq!(repository.own_domain().unwrap(), repository.registry().domains[0].id);
        let words = open(&store, &Credential::Words(root.words())).unwrap();
        assert_eq!(words.identity(), repository.identity());
        let others = RootSecret::generate().unwrap().words();
        for wrong in [passphrase("wrong"), passphrase(""), Credential::Words(others)] {
            assert_eq!(open(&store, &wrong).unwrap_err().kind(), ErrorKind::CannotUnlock);
        }
    });
}

#[test]
fn a_second_create_changes_nothing() {
    in_every_store(|store| {
        let root = RootSecret::generate().unwrap();
        Repository::create(&store, &root, "first", InitOptions::default(), &SystemClock).unwrap();
        let other = RootSecret::generate().unwrap();
        let error =
            Repository::create(&store, &other, "second", InitOptions::default(), &SystemClock).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.remedy().is_some());
        open(&store, &passphrase("first")).unwrap();
    });
}

#[test]
fn a_store_without_a_repository_says_so() {
    in_every_store(|store| {
        assert_eq!(open(&store, &passphrase("x")).unwrap_err().kind(), ErrorKind::NoRepository);
        store.create(&Name::config(), "{\"foreign\": true}".into()).unwrap();
        assert_eq!(open(&store, &passphrase("x")).unwrap_err().kind(), ErrorKind::NoRepository);
    });
}

#[test]
fn a_config_that_was_replaced_is_noticed() {
    let store = memory();
    let root = RootSecret::generate().unwrap();
    Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
    let mut config = Repository::read_config(&store).unwrap();
    config.root_public_key = RootSecret::generate().unwrap().signing_key().verifying_key().to_bytes();
    store.delete(&Name::config()).unwrap();
    store.create(&Name::config(), config.encode().into()).unwrap();
    assert_eq!(open(&store, &passphrase("right")).unwrap_err().kind(), ErrorKind::CannotUnlock);
}

/// Stores `files` and publishes their index, as a backup does.
fn store_files(repository: &Repository, files: &[Vec<u8>]) -> (Vec<Content>, u64) {
    let domain = repository.own_domain().unwrap();
    let view = repository.view(&domain).unwrap();
    let keys = IngestKeys::of(repository, &domain).unwrap();
    let uploads = repository.store.uploads(UPLOAD_BYTES_IN_FLIGHT);
    let ingest = Ingest::new(repository, domain, &keys, &view.index, Some(&uploads)).unwrap();
    let mut worker = Worker::new(&ingest, Compression::Auto).unwrap();
    let mut buffer = Vec::new();
    let contents = files
        .iter()
        .map(|file| worker.content(&mut &file[..], &mut buffer, &Frames::Inline).unwrap().0)
        .collect();
    worker.flush(&Frames::Inline).unwrap();
    drop(worker);
    ingest.settle().unwrap();
    (contents, ingest.sizes().0)
}

/// However many workers there are: what is in flight, one pack that waits for that, one that is being filled, and what each
/// worker has in hand.
#[test]
fn a_store_that_does_not_answer_is_filled_with_no_more_packs_than_the_sum_says() {
    const WORKERS: usize = 12;
    let never = Intercepted::watching(Arc::new(object_store::memory::InMemory::new()));
    let options = StoreOptions { connections: 4, ..options() };
    let progress = Arc::clone(&options.progress);
    let objects: Arc<dyn object_store::ObjectStore> = Arc::<Intercepted>::clone(&never);
    let store = Store::from_object_store(objects, "", options).unwrap();
    let root = RootSecret::generate().unwrap();
    Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
    let repository = open(&store, &passphrase("right")).unwrap();
    let domain = repository.own_domain().unwrap();
    let view = repository.view(&domain).unwrap();
    let keys = IngestKeys::of(&repository, &domain).unwrap();
    let uploads = repository.store.uploads(UPLOAD_BYTES_IN_FLIGHT);
    let ingest = Ingest::new(&repository, domain, &keys, &view.index, Some(&uploads)).unwrap();
    never.intercept(|call: &Call| if call.kind.is_put() { Fate::Hangs } else { Fate::Works });
    let taken = std::thread::scope(|scope| {
        for seed in 0..WORKERS as u64 {
            let ingest = &ingest;
            scope.spawn(move || {
                let mut worker = Worker::new(ingest, Compression::Auto).unwrap();
                let file = noise(seed, 32 << 20);
                drop(worker.content(&mut &file[..], &mut Vec::new(), &Frames::Inline));
            });
        }
        let (mut before, mut still) = (0, 0);
        while still < 40 {
            std::thread::sleep(Duration::from_millis(50));
            let now = ingest.sizes().0;
            // Less is a machine that is busy with something else.
            still = if now == before && now > UPLOAD_BYTES_IN_FLIGHT as u64 / 2 { still + 1 } else { 0 };
            before = now;
        }
        progress.stop();
        before
    });
    let hands = WORKERS * 2 * limits::FRAME_BYTES_MAX;
    // One that waits and one that is being filled; and on a busy machine one or two whose workers were stopped by the system
    // between closing them and handing them over, while the others went on. Without the wait before a frame is sealed it is
    // one for each worker.
    let packs = 4 * (limits::PACK_BYTES_TARGET + limits::PACK_BYTES_BEYOND);
    assert!(taken <= (UPLOAD_BYTES_IN_FLIGHT + packs + hands) as u64, "{taken}");
}

/// Reads a content back, frame by frame, as a restore does.
fn load(repository: &Repository, content: &Content) -> Vec<u8> {
    let domain = repository.own_domain().unwrap();
    let view = repository.view(&domain).unwrap();
    let nodes = NodeReader::new(repository, domain, &view.index).unwrap();
    let chunk_id = repository.chunk_keys(&domain).unwrap().id;
    let mut decompressor = Decompressor::new().unwrap();
    let mut bytes = Vec::new();
    for_each_chunk(content, &nodes, &mut |chunk| {
        let at = view.index.locations(&chunk.id)[0];
        let Found { pack, frame, section, blob } = view.index.found(at).unwrap();
        let range = u64::from(frame.offset)..u64::from(frame.offset) + u64::from(frame.length);
        let sealed = repository.store.read_range(&repository.pack_name(&domain, &pack), range)?;
        let plain = repository.open_frame(&domain, (&frame, &section), &sealed, &mut decompressor)?;
        let chunk_bytes = &plain[blob_range(&frame, blob).unwrap()];
        assert_eq!(chunk_id.id(chunk_bytes), chunk.id);
        bytes.extend_from_slice(chunk_bytes);
        Ok(())
    })
    .unwrap();
    bytes
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn files_come_back_as_they_were_and_are_stored_once() {
    in_every_store(|store| {
        let root = RootSecret::generate().unwrap();
        Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
        let repository = open(&store, &passphrase("right")).unwrap();
        // Empty, tiny, compressible, several chunks, and enough of them for list nodes.
        let files = vec![Vec::new(), vec![7], vec![0; 3 << 20], noise(1, 5 << 20), noise(2, 90 << 20)];
        let (contents, new) = store_files(&repository, &files);
        assert!(matches!(contents[4], Content::List { chunks, .. } if chunks > 256));
        assert!(new > 95 << 20);
        for (file, content) in files.iter().zip(&contents) {
            assert!(load(&repository, content) == *file);
        }
        let (again, new) = store_files(&repository, &files);
        assert_eq!((again, new), (contents, 0), "the second time nothing is new");
    });
}

#[test]
fn a_flipped_bit_in_a_pack_is_never_a_wrong_byte() {
    let store = memory();
    let root = RootSecret::generate().unwrap();
    Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
    let repository = open(&store, &passphrase("right")).unwrap();
    store_files(&repository, &[noise(1, 300_000)]);
    let domain = repository.own_domain().unwrap();
    let view = repository.view(&domain).unwrap();
    let pack = view.index.packs().next().unwrap();
    let directory = view.index.directory(&pack).unwrap();
    let (frame, section) = (&directory.frames[0], &directory.sections[0]);
    let name = repository.pack_name(&domain, &pack);
    let range = u64::from(frame.offset)..u64::from(frame.offset) + u64::from(frame.length);
    let sealed = store.read_range(&name, range).unwrap().to_vec();
    let mut decompressor = Decompressor::new().unwrap();
    repository.open_frame(&domain, (frame, section), &sealed, &mut decompressor).unwrap();
    for at in (0..sealed.len()).step_by(997) {
        let mut flipped = sealed.clone();
        flipped[at] ^= 0x10;
        let error =
            repository.open_frame(&domain, (frame, section), &flipped, &mut decompressor).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
    // The same with a directory that vouches for the flipped byte: then the seal itself must tell.
    let mut flipped = sealed.clone();
    flipped[5] ^= 1;
    let lying = Frame { hash: *blake3::hash(&flipped).as_bytes(), ..frame.clone() };
    assert!(repository.open_frame(&domain, (&lying, section), &flipped, &mut decompressor).is_err());
    let moved = Frame { counter: frame.counter + 1, ..frame.clone() };
    assert!(repository.open_frame(&domain, (&moved, section), &sealed, &mut decompressor).is_err());
}

struct Tree(Vec<(String, Vec<u8>)>);

fn entry(path: &str, size: usize) -> Entry {
    let time = Timestamp::from_seconds(1_700_000_000);
    Entry {
        path: path.into(),
        metadata: Metadata {
            mode: 0o644,
            user: "root".to_owned(),
            group: "root".to_owned(),
            mtime: time,
            ctime: time,
            inode: 1,
            device_key: 1,
            size: size as u64,
            ..Metadata::of(EntryKind::File)
        },
        content: Content::Inline(Vec::new()),
        changed_while_read: false,
        error: None,
    }
}

impl Source for Tree {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        Ok(Box::new(self.0.iter().map(|(path, bytes)| {
            let content = bytes.clone();
            Ok(Item::File(
                entry(path, bytes.len()),
                Box::new(move || Ok(Box::new(std::io::Cursor::new(content)))),
            ))
        })))
    }
}

fn tree(files: usize) -> Tree {
    Tree((0..files).map(|n| (format!("srv/{n:06}"), n.to_string().into_bytes())).collect())
}

fn backup_options() -> BackupOptions {
    BackupOptions {
        host: "host".to_owned(),
        user: "user".to_owned(),
        tags: vec!["tag".to_owned()],
        sources: vec![b"/srv".to_vec()],
        time: None,
        compression: Compression::Auto,
        reuse: backup::Reuse::default(),
        unchanged: backup::Unchanged::Keep,
        mode: backup::Mode::Store,
        program: "test".to_owned(),
        workers: 3,
    }
}

fn restore_options(workers: usize) -> RestoreOptions {
    RestoreOptions {
        ownership: Ownership::new(OwnershipPolicy::ByName),
        subpath: Vec::new(),
        selection: Selection::new(&[], &[]).unwrap(),
        workers,
        ..RestoreOptions::default()
    }
}

fn objects(store: &Store) -> Vec<String> {
    store.list(&Prefix::all()).unwrap().into_iter().map(|listed| listed.name).collect()
}

fn kinds_of_new_objects(before: &[String], store: &Store) -> Vec<String> {
    let new = objects(store).into_iter().filter(|name| !before.contains(name));
    new.map(|name| name.split('/').nth(2).unwrap().to_owned()).collect()
}

#[test]
fn a_backup_is_found_again_whole_and_an_unchanged_one_adds_a_run_and_a_snapshot_only() {
    in_every_store(|store| {
        let root = RootSecret::generate().unwrap();
        Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
        let repository = open(&store, &passphrase("right")).unwrap();
        let done = backup::run(&repository, &mut tree(5000), &backup_options()).unwrap();
        assert_eq!((done.snapshot.unwrap().1, done.record.statistics.files), (1, 5000));

        let before = objects(&store);
        let again = backup::run(&repository, &mut tree(5000), &backup_options()).unwrap();
        assert_eq!(again.record.root, done.record.root);
        assert_eq!(kinds_of_new_objects(&before, &store), ["runs", "snapshots"]);

        let (snapshots, damaged) = repository.snapshots().unwrap();
        assert!(damaged.is_empty());
        assert_eq!(snapshots.len(), 2);
        assert_eq!(snapshots[1].record.previous, Some(snapshots[0].name.id));
        let domain = repository.own_domain().unwrap();
        let view = repository.view(&domain).unwrap();
        let nodes = NodeReader::new(&repository, domain, &view.index).unwrap();
        let mut cursor = ManifestCursor::new(&nodes, snapshots[1].record.root);
        for (path, bytes) in tree(5000).0 {
            let entry = cursor.next_entry().unwrap().unwrap();
            assert_eq!((entry.path, entry.metadata.size), (path.into_bytes(), bytes.len() as u64));
        }
        assert!(cursor.next_entry().unwrap().is_none());
        assert!(cursor.nodes_read > 10, "5,000 entries are no single leaf");
    });
}

#[test]
fn one_changed_file_changes_one_path_of_nodes() {
    let store = memory();
    let root = RootSecret::generate().unwrap();
    Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
    let repository = open(&store, &passphrase("right")).unwrap();
    backup::run(&repository, &mut tree(5000), &backup_options()).unwrap();
    let mut changed = tree(5000);
    changed.0[2500].1 = b"something else".to_vec();
    backup::run(&repository, &mut changed, &backup_options()).unwrap();
    let domain = repository.own_domain().unwrap();
    let view = repository.view(&domain).unwrap();
    let frames = |kind| -> Vec<usize> {
        let packs = view.index.packs().filter(|pack| pack.kind == kind);
        let mut counts: Vec<usize> =
            packs.map(|pack| view.index.directory(&pack).unwrap().frames.len()).collect();
        counts.sort_unstable();
        counts
    };
    let metadata = frames(PackKind::Metadata);
    assert!(metadata[0] <= 6 && metadata[1] > 10, "{metadata:?}");
}

#[test]
fn a_pack_that_vanished_is_captured_again() {
    let store = memory();
    let root = RootSecret::generate().unwrap();
    Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
    let repository = open(&store, &passphrase("right")).unwrap();
    backup::run(&repository, &mut tree(300), &backup_options()).unwrap();
    for name in objects(&store).iter().filter(|name| name.contains("/packs/")) {
        store.delete(&Name::parse(name).unwrap()).unwrap();
    }
    let done = backup::run(&repository, &mut tree(300), &backup_options()).unwrap();
    assert!(done.record.statistics.bytes_new > 0);
    let domain = repository.own_domain().unwrap();
    let view = repository.view(&domain).unwrap();
    let nodes = NodeReader::new(&repository, domain, &view.index).unwrap();
    let mut cursor = ManifestCursor::new(&nodes, done.record.root);
    let mut count = 0;
    while let Some(entry) = cursor.next_entry().unwrap() {
        assert!(String::from_utf8(load(&repository, &entry.content)).unwrap().parse::<u32>().is_ok());
        count += 1;
    }
    assert_eq!(count, 300);
}

#[test]
fn a_tree_on_disk_comes_back_identical() {
    in_every_store(|store| {
        let root = RootSecret::generate().unwrap();
        Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
        let repository = open(&store, &passphrase("right")).unwrap();
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |path: &str| source.path().join(path);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/b/file"), noise(3, 3_000_000)).unwrap();
        std::fs::write(at("a-b"), b"small").unwrap();
        std::fs::write(at("empty"), b"").unwrap();
        std::fs::hard_link(at("a-b"), at("a/second-name")).unwrap();
        std::os::unix::fs::symlink("a/b/file", at("link")).unwrap();
        let mut tree = DiskTree { sources: vec![source.path().to_owned()], filter: Default::default() };
        let done = backup::run(&repository, &mut tree, &backup_options()).unwrap();
        assert_eq!(done.record.unreadable, 0);
        let (snapshots, _) = repository.snapshots().unwrap();
        let restored = restore::run(&repository, &snapshots[0], target.path(), &restore_options(3)).unwrap();
        assert!(restored.failed.is_empty(), "{:?}", restored.failed);
        let copy = target.path().join(source.path().strip_prefix("/").unwrap());
        let mut diff = std::process::Command::new("diff");
        diff.args(["-r", "--no-dereference"]).arg(source.path()).arg(&copy);
        assert!(diff.status().unwrap().success());
        let status = |path: &std::path::Path| std::fs::symlink_metadata(path).unwrap();
        for name in ["a", "a/b/file", "a-b", "link", "empty"] {
            let (old, new) = (status(&at(name)), status(&copy.join(name)));
            assert_eq!(
                (old.mode(), old.mtime_nsec(), old.uid()),
                (new.mode(), new.mtime_nsec(), new.uid()),
                "{name}"
            );
        }
        assert_eq!(status(&copy.join("a-b")).ino(), status(&copy.join("a/second-name")).ino());
    });
}

#[test]
fn check_is_clean_when_all_is_well_and_names_what_damage_hurts() {
    let store = memory();
    let root = RootSecret::generate().unwrap();
    Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
    let repository = open(&store, &passphrase("right")).unwrap();
    backup::run(&repository, &mut tree(3000), &backup_options()).unwrap();
    backup::run(&repository, &mut tree(3001), &backup_options()).unwrap();
    let look = |depth| check::run(&repository, CheckOptions { depth, workers: 2 }).unwrap();
    let clean = look(Depth::Data(Subset::All));
    assert_eq!(clean.problems, []);
    assert_eq!((clean.snapshots, clean.packs, clean.packs_read), (2, 4, 4));
    assert!(clean.nodes > 5 && clean.attested == 0, "{clean:?}");
    assert_eq!(check::without_keys::run(&store, Subset::All, 2).unwrap().problems, []);

    // One byte in the middle of a frame of the first data pack.
    let name = objects(&store).into_iter().filter(|name| name.contains("/packs/d/"));
    let name =
        name.max_by_key(|name| store.head(&Name::parse(name).unwrap()).unwrap().unwrap().size).unwrap();
    let name = Name::parse(&name).unwrap();
    let good = store.read(&name, 1 << 24).unwrap();
    let mut bad = good.to_vec();
    bad[3000] ^= 1;
    store.delete(&name).unwrap();
    store.create(&name, bad.into()).unwrap();
    assert_eq!(look(Depth::Structure).problems, [], "structure alone does not read data");
    let damaged = look(Depth::Data(Subset::All));
    // It is one problem: that the hash is another one too says nothing new.
    assert_eq!(damaged.problems_found, 1, "{:?}", damaged.problems);
    assert!(damaged.problems[0].what.starts_with("frame "), "{:?}", damaged.problems);
    let hurts: Vec<&String> = damaged.problems.iter().flat_map(|problem| &problem.hurts).collect();
    assert!(hurts.iter().any(|hurt| hurt.contains("/srv/")), "{:?}", damaged.problems);
    let keyless = check::without_keys::run(&store, Subset::All, 2).unwrap();
    assert_eq!(keyless.problems.len(), 1);
    assert_eq!(keyless.problems[0].object, name.as_str());

    // The pack is gone altogether: structure sees it and names paths.
    store.delete(&name).unwrap();
    let missing = look(Depth::Structure);
    assert!(missing.problems.iter().any(|problem| problem.hurts[0].contains("/srv/")), "{missing:?}");
}

#[test]
fn verify_tells_exactly_what_differs() {
    let store = memory();
    let root = RootSecret::generate().unwrap();
    Repository::create(&store, &root, "right", InitOptions::default(), &SystemClock).unwrap();
    let repository = open(&store, &passphrase("right")).unwrap();
    let source = tempfile::tempdir().unwrap();
    let at = |path: &str| source.path().join(path);
    let put = |path: &str, bytes: &[u8]| {
        std::io::Write::write_all(&mut std::fs::File::create(at(path)).unwrap(), bytes).unwrap();
    };
    std::fs::create_dir(at("d")).unwrap();
    put("d/same", b"same");
    put("big", &noise(9, 3_000_000));
    put("gone", b"gone");
    std::os::unix::fs::symlink("x", at("link")).unwrap();
    let mut tree = DiskTree { sources: vec![source.path().to_owned()], filter: Default::default() };
    let named = vec![source.path().to_str().unwrap().into()];
    backup::run(&repository, &mut tree, &BackupOptions { sources: named, ..backup_options() }).unwrap();
    let (snapshots, _) = repository.snapshots().unwrap();
    let options = VerifyOptions::default();
    let look = || verify::run(&repository, &snapshots[0], None, &options).unwrap();
    let same = look();
    assert_eq!((same.differing, same.files), (0, 3), "{:?}", same.differences);

    let mut bytes = noise(9, 3_000_000);
    bytes[2_999_999] ^= 1;
    put("big", &bytes);
    std::fs::remove_file(at("gone")).unwrap();
    std::fs::remove_file(at("link")).unwrap();
    std::os::unix::fs::symlink("y", at("link")).unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(at("d/same"), permissions).unwrap();
    let differs = look();
    let of = |name: &str| -> Vec<&Difference> {
        let named = differs.differences.iter().filter(|(path, _)| path.ends_with(name.as_bytes()));
        named.map(|(_, difference)| difference).collect()
    };
    assert_eq!(of("gone"), [&Difference::Missing]);
    assert_eq!(of("d/same"), [&Difference::Mode(0o600)]);
    assert_eq!(of("/link")[0], &Difference::LinkTarget(b"y".to_vec()));
    let content = of("/big");
    assert!(
        matches!(content[0], Difference::Content(ranges)
            if ranges.len() == 1 && ranges[0].end == 3_000_000 && ranges[0].start >= 1_900_000),
        "{content:?}"
    );
    assert_eq!((differs.files, differs.differing), (0, 5), "the folder was touched too");
}
