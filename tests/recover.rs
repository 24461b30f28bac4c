//! `recover`: what no snapshot names becomes a snapshot again, whole or not at all, and nothing else is touched.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::string_slice,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Cursor,
    sync::Arc,
};

use lifeboat::{
    compress::Codec,
    error::{ErrorKind, Result},
    format::{
        entry::{Content, Entry, EntryKind, Metadata},
        node::{Child, Node, compare_paths},
        pack::{Blob, PackKind, encode_index},
        role::Role,
    },
    id::{BlobId, ObjectId},
    ops::{
        backup::{self, Item, Source},
        recover::{self, Manifest, Mode, Outcome, RecoverOptions, Recovered},
    },
    repository::{Repository, snapshots::KnownSnapshot},
};

mod support {
    pub(crate) mod faults;
    pub(crate) mod forger;
    pub(crate) mod intercepted;
    pub(crate) mod lab;
    pub(crate) mod ram;
    pub(crate) mod world;
}
use support::{
    faults::{Fault, at},
    forger::{self, Forged},
    intercepted::Intercepted,
    lab::{self, Files, noise},
    ram::Ram,
    world::{World, objects, tree},
};

impl Ram {
    /// Its snapshots, whatever is lost beside them.
    fn known(&self) -> Vec<KnownSnapshot> {
        self.owner().snapshots().unwrap().0
    }

    fn lose(&self, known: &KnownSnapshot) {
        self.store().delete(&known.name.name).unwrap();
    }
}

fn options(mode: Mode) -> RecoverOptions {
    let (roots, tags) = (Vec::new(), Vec::new());
    RecoverOptions { roots, host: None, tags, mode, program: "test".to_owned(), workers: 2 }
}

fn run(repository: &Arc<Repository>, mode: Mode) -> Result<Recovered> {
    recover::run(repository, &options(mode))
}

fn files(generation: u64) -> Files {
    let mut files: Files =
        (0..300).map(|n| (format!("srv/data/{n:03}"), format!("{n}").into_bytes())).collect();
    files.insert("srv/data/noise".to_owned(), noise(generation, 50_000));
    files
}

fn entry(path: &str, kind: EntryKind, size: usize) -> Entry {
    let metadata = Metadata { mode: 0o755, size: size as u64, ..Metadata::of(kind) };
    let content = Content::Inline(Vec::new());
    Entry { path: path.into(), metadata, content, changed_while_read: false, error: None }
}

/// Files with the folders that they are in.
struct Folders<'a>(&'a Files);

impl Source for Folders<'_> {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let mut items: BTreeMap<&str, Option<&Vec<u8>>> = BTreeMap::new();
        for (path, bytes) in self.0 {
            items.extend(path.match_indices('/').map(|(at, _)| (&path[..at], None)));
            items.insert(path, Some(bytes));
        }
        let mut items: Vec<_> = items.into_iter().collect();
        items.sort_by(|(a, _), (b, _)| compare_paths(a.as_bytes(), b.as_bytes()));
        Ok(Box::new(items.into_iter().map(|(path, bytes)| {
            Ok(match bytes.cloned() {
                None => Item::Entry(entry(path, EntryKind::Directory, 0)),
                Some(bytes) => Item::File(
                    entry(path, EntryKind::File, bytes.len()),
                    Box::new(move || Ok(Box::new(Cursor::new(bytes)))),
                ),
            })
        })))
    }
}

/// A backup, and its snapshot.
fn back_up(scene: &Ram, by: &Repository, files: &Files) -> KnownSnapshot {
    let done = backup::run(by, &mut Folders(files), &lab::backup_options()).unwrap();
    let id = done.snapshot.unwrap().0;
    scene.known().into_iter().find(|known| known.name.id == id).unwrap()
}

fn roots(found: &Recovered) -> BTreeSet<BlobId> {
    found.found.iter().map(|(manifest, _)| manifest.root).collect()
}

fn made(outcome: &Outcome) -> ObjectId {
    match outcome {
        Outcome::Made(id) => *id,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn a_manifest_whose_snapshot_is_lost_becomes_a_snapshot_again() {
    let scene = Ram::new();
    let known: Vec<_> = (1..=4).map(|n| back_up(&scene, &scene.owner(), &files(n))).collect();
    // Whole: neither those that have their snapshots, nor what they are made of.
    assert_eq!(roots(&run(&scene.owner(), Mode::DryRun).unwrap()), BTreeSet::new());
    [&known[1], &known[3]].into_iter().for_each(|known| scene.lose(known));
    let (before, data) = (scene.names(""), scene.names("/packs/"));
    let planned = run(&scene.owner(), Mode::DryRun).unwrap();
    assert_eq!(scene.names(""), before, "nothing is written");
    let lost: BTreeSet<BlobId> = [known[1].record.root, known[3].record.root].into();
    assert_eq!((roots(&planned), planned.fragments, planned.more), (lost, 0, 0));
    for (Manifest { label, entries, bytes, sources, author, .. }, outcome) in &planned.found {
        let statistics = known[1].record.statistics;
        assert_eq!((*entries, *bytes), (statistics.entries, statistics.bytes));
        assert_eq!((sources, outcome), (&vec![b"/srv/data".to_vec()], &Outcome::Planned));
        assert_eq!((*author, label.as_deref()), (scene.owner().identity(), Some("owner")));
    }
    let done = run(&scene.owner(), Mode::Write).unwrap();
    assert_eq!(roots(&done), roots(&planned));
    assert_eq!(scene.names("/packs/"), data, "all of it is borrowed");
    for (manifest, outcome) in &done.found {
        let id = made(outcome);
        let all = scene.known();
        let again = all.iter().find(|known| known.name.id == id).unwrap();
        let old = known.iter().find(|known| known.record.root == manifest.root).unwrap();
        assert_eq!((again.record.root, again.record.levels), (old.record.root, old.record.levels));
        assert_eq!(
            (&again.record.host[..], &again.record.tags[..]),
            ("owner", &["recovered".to_owned()][..])
        );
        assert_eq!(again.record.time, manifest.stored);
        let number = usize::try_from(old.name.sequence).unwrap();
        let (restored, outcome) = lab::restore(&scene.owner(), again).unwrap();
        assert_eq!((outcome.failures, restored), (0, files(number as u64)));
    }
    // It is not done twice.
    let before = scene.names("");
    assert_eq!(run(&scene.owner(), Mode::Write).unwrap().found, []);
    assert_eq!(scene.names(""), before);
}

#[test]
fn what_a_client_wrote_is_read_and_stored_by_the_owner_with_a_host_and_tags_that_are_given() {
    let scene = Ram::new();
    let client = scene.add_key(Role::Backup, "web1");
    let lost = back_up(&scene, &client, &files(1));
    scene.lose(&lost);
    let id = lost.record.root.to_string();
    let mut options = options(Mode::Write);
    (options.host, options.tags) = (Some("web".to_owned()), vec!["again".to_owned()]);
    options.roots = vec!["00000000".to_owned()];
    let error = recover::run(&scene.owner(), &options).unwrap_err();
    assert!(error.to_string().contains("no manifest without a snapshot"), "{error}");
    options.roots = vec![id[..10].to_uppercase()];
    let done = recover::run(&scene.owner(), &options).unwrap();
    let [(manifest, outcome)] = &done.found[..] else { unreachable!("{done:?}") };
    assert_eq!(manifest.label.as_deref(), Some("web1"));
    let (id, known) = (made(outcome), scene.known());
    let again = known.iter().find(|known| known.name.id == id).unwrap();
    assert_eq!(
        (&again.record.host[..], &again.record.tags[..]),
        ("web", &["again".to_owned(), "recovered".to_owned()][..])
    );
    assert_eq!(again.name.identity, scene.owner().identity());
    assert_eq!(lab::restore(&scene.owner(), again).unwrap().0, files(1));
    // What nobody vouches for is in packs of the owner now: the client's are no longer needed.
    assert_eq!(scene.names("/packs/d/").len(), 2);
    // The next backup does not take the files for unchanged: nobody knows when the manifest was begun.
    assert_eq!(again.record.begun.seconds, 0);
}

#[test]
fn of_a_manifest_that_is_hurt_no_snapshot_is_made_and_each_loss_is_named() {
    let scene = Ram::new();
    let lost = back_up(&scene, &scene.owner(), &files(1));
    back_up(&scene, &scene.owner(), &files(2));
    scene.lose(&lost);
    let before = scene.names("/snapshots/");
    // The pack of the first backup has what both need; the second one is not asked for here.
    let packs = scene.names("/packs/d/");
    packs.iter().for_each(|pack| scene.store().delete(pack).unwrap());
    let done = run(&scene.owner(), Mode::Write).unwrap();
    let [(_, Outcome::Damaged(losses))] = &done.found[..] else { unreachable!("{done:?}") };
    assert_eq!((losses.count, losses.named.len()), (301, 301));
    assert!(losses.named[0].why.contains("is not there"), "{:?}", losses.named[0]);
    assert_eq!(scene.names("/snapshots/"), before);
    // Nodes that cannot be read are told.
    let nodes = scene.names("/packs/m/").remove(0);
    let mut bytes = scene.store().read(&nodes, 1 << 28).unwrap().to_vec();
    bytes[1_400] ^= 1;
    scene.store().delete(&nodes).unwrap();
    scene.store().create(&nodes, bytes.into()).unwrap();
    let done = run(&scene.owner(), Mode::DryRun).unwrap();
    assert!(done.unreadable[0].to_string().contains(nodes.as_str()), "{done:?}");
}

#[test]
fn of_very_many_frames_that_cannot_be_read_the_first_are_named_and_the_others_counted() {
    let scene = Ram::new();
    back_up(&scene, &scene.owner(), &files(1));
    let frame = |number: u32| {
        let id = BlobId::new(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let blobs = vec![Blob { id, length: 9 }];
        Forged { stored: b"not zstd".to_vec(), codec: Codec::Zstd, blobs }
    };
    let frames: Vec<Forged> = (0..1005).map(frame).collect();
    let pack = forger::pack(&scene.owner(), PackKind::Metadata, &frames, |_| {});
    forger::index(&scene.owner(), &encode_index(&[pack]));
    let done = run(&scene.owner(), Mode::DryRun).unwrap();
    assert_eq!((done.unreadable.len(), done.unreadable_more), (1000, 5));
}

#[test]
fn whoever_writes_to_the_domain_cannot_keep_a_manifest_from_being_found_by_its_id() {
    let scene = Ram::new();
    let (owner, client) = (scene.owner(), scene.add_key(Role::Backup, "client"));
    let lost = back_up(&scene, &owner, &files(1));
    back_up(&scene, &owner, &files(2));
    scene.lose(&lost);
    let mut manifest = forger::Manifest::new(&client);
    let leaf = |name: String| Node::Leaf(vec![entry(&name, EntryKind::Directory, 0)]);
    // More than are shown of one key, and a branch that refers to what was lost.
    let many: Vec<BlobId> = (0..1003).map(|number| manifest.node(&leaf(format!("m{number}")))).collect();
    let child = Child { first: "srv".into(), id: lost.record.root, entries: 1, bytes: 1 };
    manifest.node(&Node::Branch(1, vec![child]));
    manifest.store();
    let all = run(&scene.owner(), Mode::DryRun).unwrap();
    assert_eq!((all.found.len(), all.more), (1000, 4));
    let named = |id: String| {
        let options = RecoverOptions { roots: vec![id], ..options(Mode::Write) };
        recover::run(&scene.owner(), &options)
    };
    let shown = roots(&all);
    let beyond = many.iter().find(|id| !shown.contains(id)).unwrap().to_string();
    assert_eq!(named(beyond).unwrap().found.len(), 1, "one that was not shown");
    let root = lost.record.root.to_string();
    assert!(named(root[..16].to_owned()).is_err(), "a part of the id may mean any node");
    let done = named(root).unwrap();
    let known = scene.known().into_iter().find(|known| known.name.id == made(&done.found[0].1)).unwrap();
    assert_eq!(lab::restore(&scene.owner(), &known).unwrap().0, files(1));
}

#[test]
fn each_chain_that_lacks_a_snapshot_is_told() {
    let scene = Ram::new();
    let writers = [scene.owner(), scene.add_key(Role::Backup, "client")];
    for by in &writers {
        let three: Vec<_> = (1..=3).map(|generation| back_up(&scene, by, &files(generation))).collect();
        scene.lose(&three[1]);
    }
    let problems = lab::check_all(&scene.owner()).unwrap().problems;
    let gone = problems.iter().filter(|problem| problem.what.contains("is gone and nobody forgot it"));
    assert_eq!((gone.count(), problems.len()), (2, 2), "{problems:?}");
}

#[test]
fn parts_without_a_beginning_are_counted_and_what_lies_ends() {
    let scene = Ram::new();
    back_up(&scene, &scene.owner(), &files(1));
    let owner = scene.owner();
    let mut manifest = forger::Manifest::new(&owner);
    let leaf = |path: &str| Node::Leaf(vec![entry(path, EntryKind::Directory, 0)]);
    let inner = manifest.node(&leaf("srv/data/zzz"));
    let top = manifest.node(&leaf("etc"));
    let child = |first: &str, id| Child { first: first.into(), id, entries: u64::MAX, bytes: u64::MAX };
    let liar =
        Node::Branch(1, vec![child("etc", top), child("srv", inner), child("zzz", BlobId::new([7; 32]))]);
    let liar = manifest.node(&liar);
    manifest.node(&leaf("srv/data/lonely"));
    manifest.node(&Node::Leaf(Vec::new()));
    let root = scene.known()[0].record.root;
    // The snapshot names what there was.
    manifest.snapshot(root, |_| {});
    let found = run(&scene.owner(), Mode::DryRun).unwrap();
    assert_eq!((roots(&found), found.fragments), ([liar].into(), 1));
    assert_eq!((found.found[0].0.entries, found.found[0].0.bytes), (u64::MAX, u64::MAX));
    let done = run(&scene.owner(), Mode::Write).unwrap();
    assert!(matches!(done.found[0].1, Outcome::Damaged(_)), "{done:?}");
}

#[test]
fn a_recovery_that_is_stopped_at_any_call_is_finished_by_the_next_one() {
    let scene = Ram::new();
    let few = Files::from([("srv/data/a".to_owned(), noise(1, 2_000)), ("srv/data/b".to_owned(), vec![7])]);
    let lost = back_up(&scene, &scene.owner(), &few);
    back_up(&scene, &scene.owner(), &Files::from([("srv/data/c".to_owned(), vec![8])]));
    scene.lose(&lost);
    let over = |scene: &Ram, watched: &Arc<Intercepted>| {
        let opened = scene.over(watched);
        opened.and_then(|repository| {
            recover::run(&repository, &RecoverOptions { workers: 1, ..options(Mode::Write) })
        })
    };
    let calls = {
        let scene = scene.fork();
        let watched = Intercepted::watching(Arc::new(scene.objects.clone()));
        assert_eq!(over(&scene, &watched).unwrap().found.len(), 1);
        watched.calls().len()
    };
    for number in (0..calls).step_by(2) {
        for fault in [Fault::StopsBefore, Fault::StopsAfter] {
            let scene = scene.fork();
            let watched = Intercepted::watching(Arc::new(scene.objects.clone()));
            watched.intercept(at(number, fault));
            drop(over(&scene, &watched));
            run(&scene.owner(), Mode::Write).unwrap();
            let known = scene.known();
            let again: Vec<_> = known.iter().filter(|known| known.record.root == lost.record.root).collect();
            assert_eq!(again.len(), 1, "{number} {fault:?}");
            assert_eq!(lab::restore(&scene.owner(), again[0]).unwrap().0, few);
        }
    }
}

#[test]
fn only_an_owner_recovers() {
    let scene = Ram::new();
    back_up(&scene, &scene.owner(), &files(1));
    for role in [Role::Backup, Role::Audit, Role::Maintain, Role::Restore] {
        let key = scene.add_key(role, role.name());
        assert_eq!(run(&key, Mode::DryRun).unwrap_err().kind(), ErrorKind::Forbidden, "{role:?}");
    }
}

#[test]
fn the_program_shows_what_is_lost_and_brings_it_back() {
    let world = World::with_repository();
    world.does(&["backup", "src", "--tag", "old"]);
    assert!(world.does(&["recover"]).starts_with("nothing to recover"));
    let mut snapshots = tree(&world.path("repo")).into_iter().map(|(path, _)| path);
    let snapshot = snapshots.find(|path| path.to_str().unwrap().contains("/snapshots/")).unwrap();
    fs::remove_file(snapshot).unwrap();
    let fresh = ["--cache-dir", "fresh"];
    let with = |more: &[&str]| world.does(&[&["recover"], &fresh[..], more].concat());
    let before = tree(&world.path("repo"));
    let out = with(&[]);
    assert!(out.contains("--apply") && out.contains("by owner") && out.contains(&world.text("src")), "{out}");
    assert_eq!(tree(&world.path("repo")), before);
    let messages = objects(&with(&["--json", "--apply", "--host", "web"]));
    let (found, summary) = (&messages[messages.len() - 2], &messages[messages.len() - 1]);
    assert_eq!((&found["action"], &summary["recovered"]), (&"recovered".into(), &1.into()));
    assert_eq!(found["sources"][0]["path"].as_str(), Some(&world.text("src")[..]));
    world.does(&["restore", "latest", "--target", "out", "--host", "web", "--cache-dir", "fresh"]);
    let restored = world.path("out").join(world.text("src").trim_start_matches('/'));
    assert_eq!(fs::read(restored.join("deep/two")).unwrap(), b"second");
    world.does(&["check", "--read-data", "--cache-dir", "fresh"]);
    assert!(with(&[]).starts_with("nothing to recover"));
}

#[test]
fn where_nobody_looked_is_told_first() {
    let world = World::with_repository();
    world.adds_client("b", Some("b"), "b.key");
    world.does(&["--access-key-file", "b.key", "backup", "src"]);
    // The owner's own domain is empty: that all is well is not said.
    let (out, err) = world.ends(&mut world.command(&["recover"]), 3);
    assert!(out.starts_with("nothing to recover: the domain that this key backs up to holds no"), "{out}");
    assert!(out.contains("1 other domain") && err.contains("owner's key that backs up to"), "{out}{err}");
    let said = world.does(&["repair", "snapshots"]);
    assert!(
        said.starts_with("nothing to repair: no pack that snapshots need is missing (1 snapshot)"),
        "{said}"
    );
    // Nor where the index is lost with the snapshots.
    world.does(&["backup", "src"]);
    let own = |part: &str| {
        let all = tree(&world.path("repo")).into_iter().map(|(path, _)| path);
        all.filter(|path| path.to_str().unwrap().contains(part)).collect::<Vec<_>>()
    };
    let foreign = own("/index/").into_iter().chain(own("/snapshots/"));
    foreign.for_each(|path| fs::remove_file(path).unwrap());
    let (out, err) = world.ends(world.command(&["recover"]).args(["--cache-dir", "fresh"]), 3);
    assert!(out.starts_with("nothing to recover yet: 2 packs are in no index"), "{out}");
    assert!(err.contains("repair index --apply"), "{err}");
    world.does(&["repair", "index", "--apply", "--cache-dir", "fresh"]);
    let said = world.does(&["recover", "--cache-dir", "fresh"]);
    assert!(said.starts_with("1 manifest without a snapshot"), "{said}");
}

#[test]
fn the_machine_that_has_seen_what_was_lost_goes_on_from_what_was_recovered() {
    let world = World::with_repository();
    for text in ["a", "b", "c"] {
        fs::write(world.path("src/more"), text).unwrap();
        world.does(&["backup", "src"]);
    }
    let lost: Vec<_> = tree(&world.path("repo"))
        .into_iter()
        .filter(|(path, _)| path.to_str().unwrap().contains("/snapshots/"))
        .collect();
    assert_eq!(lost.len(), 3);
    lost.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
    // A person looks first, and the machine still says what it has seen.
    world.does(&["recover"]);
    let said = world.fails(&["backup", "src"], 5);
    assert!(said.contains("ends at snapshot 0 instead of 3"), "{said}");
    // Elsewhere nothing was seen, and this machine is not told.
    world.does(&["recover", "--apply", "--cache-dir", "fresh"]);
    let said = world.fails(&["backup", "src"], 5);
    assert!(said.contains("snapshot 3 of this key is another one"), "{said}");
    // Here it is accepted, also by a run that finds nothing left to do.
    let said = world.does(&["recover", "--apply"]);
    assert!(said.starts_with("nothing to recover") && said.contains("goes on from snapshot 3"), "{said}");
    assert!(said.contains("nothing is left to do"), "{said}");
    world.does(&["backup", "src"]);
    world.does(&["prune"]);
    world.does(&["check", "--read-data"]);
    assert_eq!(world.snapshots(), 4);

    // The old ones come back: all are there, and the next backup follows.
    lost.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    assert_eq!(world.snapshots(), 7);
    world.does(&["backup", "src"]);
    world.does(&["prune"]);
    world.does(&["check", "--read-data"]);
    // So what was recovered may end, as the documentation says.
    let ids = recovered_ids(&world);
    let recovered: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(recovered.len(), 3);
    // One of them is the last of its host, which is made up.
    assert!(world.fails(&[&["forget"], &recovered[..]].concat(), 1).contains("--allow-mass-removal"));
    world.does(&[&["forget", "--allow-mass-removal"], &recovered[..]].concat());
    assert_eq!(world.snapshots(), 5);
    world.does(&["check", "--no-cache"]);
    world.does(&["prune"]);
    // What is older than what was accepted is told as before.
    let newest = tree(&world.path("repo")).into_iter().filter(|(path, _)| {
        path.to_str().unwrap().contains("/snapshots/")
            && path.file_name().unwrap().to_str().unwrap().starts_with("0000000005-")
    });
    assert_eq!(newest.map(|(path, _)| fs::remove_file(path).unwrap()).count(), 1);
    let said = world.fails(&["backup", "src"], 5);
    assert!(said.contains("ends at snapshot 4 instead of 5"), "{said}");
}

/// The ids of the snapshots that were recovered.
fn recovered_ids(world: &World) -> Vec<String> {
    let messages = world.messages(&["snapshots", "--tag", "recovered"]);
    messages.iter().filter_map(|message| message["id"].as_str().map(str::to_owned)).collect()
}

/// The snapshot objects of the repository, by their numbers.
fn snapshot_objects(world: &World) -> Vec<std::path::PathBuf> {
    let all = tree(&world.path("repo")).into_iter().map(|(path, _)| path);
    all.filter(|path| path.to_str().unwrap().contains("/snapshots/")).collect()
}

#[test]
fn what_was_recovered_is_forgotten_by_its_id_only_once_a_newer_one_of_its_key_is_there() {
    let world = World::with_repository();
    world.does(&["backup", "src"]);
    let last = snapshot_objects(&world).remove(0);
    let bytes = fs::read(&last).unwrap();
    fs::remove_file(&last).unwrap();
    world.does(&["recover", "--apply"]);
    let recovered = recovered_ids(&world).remove(0);
    let forget = ["forget", "--allow-mass-removal", recovered.as_str()];
    assert!(world.fails(&forget, 1).contains("newest of its key"));
    world.does(&["backup", "src"]);
    fs::write(&last, bytes).unwrap();
    // No rule takes it, only who names it.
    world.does(&["forget", "--allow-mass-removal", "--keep-last", "1"]);
    assert_eq!(recovered_ids(&world).len(), 1);
    // Nor while the newer one is damaged in the storage, whatever the cache has.
    let newest = snapshot_objects(&world).pop().unwrap();
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, b"").unwrap();
    assert!(world.fails(&forget, 5).contains("nothing was forgotten"));
    fs::write(&newest, bytes).unwrap();
    world.does(&forget);
    assert_eq!(recovered_ids(&world).len(), 0);
    world.does(&["check", "--read-data"]);
}

#[test]
fn the_last_of_a_client_that_was_recovered_stays_though_the_owner_has_newer_ones() {
    let clients = Emptied(World::with_repository());
    let world = &clients.0;
    world.adds_client("web", Some("main"), "web");
    for text in ["a", "b"] {
        fs::write(world.path("src/more"), text).unwrap();
        clients.by("web", "home of web", &["backup", "src"], 0);
    }
    fs::remove_file(snapshot_objects(world).pop().unwrap()).unwrap();
    world.does(&["recover", "--apply"]);
    world.does(&["backup", "src"]);
    let recovered = recovered_ids(world).remove(0);
    assert!(world.fails(&["forget", "--allow-mass-removal", &recovered], 1).contains("floor"));
    assert_eq!(recovered_ids(world), [recovered]);
}

#[test]
fn a_gap_that_stays_is_told_last_with_what_ends_it_and_what_is_there_is_not_called_gone() {
    // With the last one, which this machine has seen, and without.
    for lost in [&[1][..], &[0, 2]] {
        let world = World::with_repository();
        for text in ["a", "b", "c"] {
            fs::write(world.path("src/more"), text).unwrap();
            world.does(&["backup", "src"]);
        }
        let objects = snapshot_objects(&world);
        lost.iter().for_each(|number: &usize| fs::remove_file(&objects[*number]).unwrap());
        let (out, err) = world.ends(&mut world.command(&["recover", "--apply"]), 0);
        let said = format!("{out}{err}");
        assert_eq!(said.contains("had seen another last snapshot"), lost.contains(&2), "{said}");
        assert!(!said.contains("nothing is left to do"), "{said}");
        let last = err.lines().last().unwrap();
        let (_, command) = last.split_once("`lifeboat ").unwrap();
        let command: Vec<&str> = command.split('`').next().unwrap().split(' ').collect();
        assert_eq!(&command[..2], ["repair", "quarantine"], "{last}");
        let gone = objects[lost[0]].file_name().unwrap().to_str().unwrap();
        assert!(command[2].ends_with(gone), "{last}");
        world.fails(&["prune"], 5);
        world.does(&command);
        for after in [&["snapshots"][..], &["prune"], &["backup", "src"], &["check"]] {
            world.does(after);
        }
        assert!(!world.does(&["recover", "--apply"]).contains("warning"));
    }
}

/// Backups of a client, and everything that names their packs is gone. By the first word of `who` each has a memory of his own.
struct Emptied(World);

impl Emptied {
    fn new() -> Self {
        let world = World::with_repository();
        for (role, label) in [("backup", "web"), ("restore", "tech")] {
            world.does(&["key", "add", "--role", role, "--label", label, "--access-key-out", label]);
        }
        Self(world)
    }

    #[track_caller]
    fn by(&self, who: &str, home: &str, arguments: &[&str], code: i32) -> String {
        let mut command = self.0.bare(arguments);
        command.env("HOME", self.0.path(home)).env("LIFEBOAT_REPOSITORY", self.0.path("repo"));
        let (out, err) = self.0.ends(command.env("LIFEBOAT_ACCESS_KEY_FILE", self.0.path(who)), code);
        out + &err
    }

    fn loses(&self, parts: &[&str]) {
        for (path, _) in tree(&self.0.path("repo")) {
            if parts.iter().any(|part| path.to_str().unwrap().contains(part)) {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

#[test]
fn who_has_read_the_snapshots_of_another_key_says_so_when_all_of_them_are_gone() {
    let scene = Emptied::new();
    scene.by("web", "web-home", &["backup", "src"], 0);
    scene.by("web", "web-home", &["backup", "src", "--tag", "two"], 0);
    scene.by("tech", "tech-home", &["snapshots"], 0);
    let name = tree(&scene.0.path("repo"))
        .into_iter()
        .map(|(path, _)| path)
        .filter_map(|path| path.strip_prefix(scene.0.path("repo")).ok()?.to_str().map(str::to_owned));
    let last = name.filter(|name| name.contains("/snapshots/")).max().unwrap();
    scene.loses(&["/snapshots/", "/index/"]);
    let said = scene.by("tech", "tech-home", &["check"], 5);
    assert!(said.contains("the chain of the key `web`") && said.contains("number 2, is gone"), "{said}");
    assert!(said.contains("lifeboat recover") && said.contains(&last), "{said}");
    scene.by("tech", "tech-home", &["snapshots"], 5);
    // Who remembers nothing is told what stands there, and what to do.
    let said = scene.by("tech", "new-home", &["check"], 0);
    assert!(said.contains("no snapshot there") && said.contains("lifeboat recover"), "{said}");
    assert!(said.contains("lifeboat repair index --apply"), "{said}");
    // They are lost for good, and a maintainer says so: then it is so for everybody.
    scene.0.does(&["repair", "quarantine", &last, "--force", "--apply"]);
    let said = scene.by("tech", "tech-home", &["check"], 0);
    assert!(said.contains("no snapshot there"), "{said}");
}

#[test]
fn a_chain_whose_end_was_cut_off_is_told_by_whoever_has_read_it_and_what_was_forgotten_is_not() {
    let scene = Emptied::new();
    for tag in ["one", "two", "three"] {
        scene.by("web", "web-home", &["backup", "src", "--tag", tag], 0);
    }
    scene.by("tech", "tech-home", &["snapshots"], 0);
    scene.0.does(&["forget", "--keep-last", "1", "--allow-mass-removal", "--group-by", "host"]);
    scene.by("tech", "tech-home", &["check"], 0);
    scene.by("web", "web-home", &["backup", "src", "--tag", "four"], 0);
    scene.by("tech", "tech-home", &["check"], 0);
    scene.loses(&["/0000000004-"]);
    let said = scene.by("tech", "tech-home", &["check"], 5);
    assert!(said.contains("number 4, is gone"), "{said}");
    scene.by("tech", "new-home", &["check"], 0);
    // Of a key that was revoked with an earlier end the later ones count no more.
    scene.0.does(&["key", "revoke", "web", "--last-good", "3"]);
    scene.by("tech", "tech-home", &["check"], 0);
}

/// The name that a remedy sets aside.
fn named_lost(said: &str) -> String {
    let words: Vec<&str> = said.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "quarantine").unwrap();
    words[at + 1].to_owned()
}

#[test]
fn what_was_forgotten_proves_that_a_chain_was_longer_also_when_it_begins_anew() {
    let scene = Emptied::new();
    for tag in ["one", "two", "three"] {
        scene.by("web", "web-home", &["backup", "src", "--tag", tag], 0);
    }
    // Another key of the domain, that has lost nothing, does not make up for it.
    scene.0.does(&["backup", "src", "--host", "owner"]);
    scene.0.does(&["forget", "--keep-last", "1", "--allow-mass-removal", "--group-by", ""]);
    scene.by("tech", "first-home", &["check"], 0);
    let all = tree(&scene.0.path("repo")).into_iter().map(|(path, _)| path);
    let of_chain = |path: &std::path::PathBuf| {
        let path = path.to_str().unwrap();
        path.contains("/snapshots/") && path.contains("/0000000003-")
    };
    all.filter(of_chain).for_each(|path| fs::remove_file(path).unwrap());
    let said = scene.by("tech", "second-home", &["check"], 5);
    let why =
        "the chain of the key `web` is damaged: its snapshot 3, the last one when a `forget` ran, is gone";
    assert!(said.contains(why) && said.contains("`lifeboat recover`"), "{said}");
    assert_eq!(said.matches("the chain of the key").count(), 1, "{said}");
    let packs = || {
        let all = tree(&scene.0.path("repo")).into_iter().map(|(path, _)| path);
        all.filter(|path| path.to_str().unwrap().contains("/packs/")).collect::<Vec<_>>()
    };
    // The machine was set up anew, remembers nothing either, and begins with number 1. It gets beyond what was lost, and a rule
    // ends the first of what is new.
    fs::remove_dir_all(scene.0.path("web-home")).unwrap();
    let forget = ["forget", "--keep-last", "2", "--allow-mass-removal"];
    for generation in 1..6 {
        fs::write(scene.0.path("src/new"), format!("generation {generation}")).unwrap();
        scene.by("web", "web-home", &["backup", "src", "--tag", "anew"], 0);
        // It ends what the rules say, and tells of what is lost.
        let (_, said) = scene.0.ends(&mut scene.0.command(&forget), 5);
        assert!(said.contains(why), "{said}");
        let said = scene.by("tech", "third-home", &["check"], 5);
        assert!(said.contains(why), "{generation}: {said}");
        let before = packs();
        let said = scene.0.fails(&["prune"], 5);
        assert!(said.contains("`lifeboat recover`"), "{said}");
        let after = packs();
        assert!(!before.is_empty() && before.iter().all(|path| after.contains(path)), "{before:?} {after:?}");
    }
    // An owner says that they are lost for good, and then it stays said, whatever ends later.
    let said = scene.by("tech", "third-home", &["check"], 5);
    let lost = named_lost(&said);
    assert!(lost.contains("/0000000003-"), "{lost}");
    scene.0.does(&["repair", "quarantine", &lost, "--force", "--apply"]);
    for generation in 6..9 {
        fs::write(scene.0.path("src/new"), format!("generation {generation}")).unwrap();
        scene.by("web", "web-home", &["backup", "src", "--tag", "anew"], 0);
        scene.0.does(&forget);
        scene.by("tech", "third-home", &["check"], 0);
        scene.0.does(&["prune"]);
    }
}

#[test]
fn to_revoke_a_key_whose_newest_snapshots_are_gone_asks_which_count_and_hides_no_loss() {
    for (home, why) in [("fresh", "the last one when a `forget` ran"), ("seen", "that this machine has seen")]
    {
        let scene = Emptied::new();
        for tag in ["one", "two", "three"] {
            fs::write(scene.0.path("src/new"), tag).unwrap();
            scene.by("web", "web-home", &["backup", "src", "--tag", tag], 0);
        }
        match home {
            "fresh" => scene.0.does(&["forget", "--keep-last", "2", "--cache-dir", "other"]),
            _ => scene.0.does(&["snapshots", "--cache-dir", home]),
        };
        let all = tree(&scene.0.path("repo")).into_iter();
        let of_chain = |path: &str| path.contains("/snapshots/") && !path.contains("/0000000001-");
        let gone: Vec<_> = all.filter(|(path, _)| of_chain(path.to_str().unwrap())).collect();
        assert_eq!(gone.len(), 2);
        gone.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
        let owner = |arguments: &[&str], code| {
            let mut command = scene.0.command(&[arguments, &["--cache-dir", home]].concat());
            let (out, err) = scene.0.ends(&mut command, code);
            out + &err
        };
        let said = owner(&["key", "revoke", "web"], 5);
        assert!(
            said.contains("number 3 was the last snapshot of `web`, and it is gone or damaged"),
            "{said}"
        );
        assert!(said.contains("--last-good 3") && said.contains("Nothing was revoked"), "{said}");
        let said = owner(&["key", "revoke", "web", "--last-good", "3"], 0);
        assert!(
            said.contains("count up to number 3") && said.contains("its snapshot 3 counts and is gone"),
            "{said}"
        );
        let said = owner(&["check"], 5);
        assert!(said.contains("the chain of the key `web`") && said.contains(why), "{home}: {said}");
        owner(&["prune"], 5);
        // What comes back counts.
        gone.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        owner(&["check"], 0);
        owner(&["prune"], 0);
    }
}

#[test]
fn a_first_backup_that_came_no_further_is_a_note_and_no_damage() {
    let scene = Emptied::new();
    scene.by("web", "web-home", &["backup", "src"], 0);
    assert!(!scene.by("tech", "one", &["check"], 0).contains("no snapshot there"));
    scene.loses(&["/snapshots/", "/index/"]);
    let said = scene.by("tech", "two", &["check"], 0);
    assert!(said.contains("a first backup runs or was cut short"), "{said}");
}
