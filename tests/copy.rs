//! `copy`: snapshots come to another repository whole or not at all, nothing is sent or read twice that need not be, and
//! a copy of all objects is as good as the repository.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::string_slice,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{collections::BTreeSet, fs, sync::Arc};

use lifeboat::{
    clock::Timestamp,
    compress::Compression,
    error::{ErrorKind, Result},
    format::{
        entry::{Content, Entry, EntryKind, Metadata},
        node::Node,
        pack::PackKind,
        role::Role,
        snapshot::{Origin, Snapshot},
    },
    id::ObjectId,
    ops::{
        backup::{self, BackupOptions, CopyOf, Source},
        copy::{self, Copied, CopyOptions, Made, Mode, Outcome},
    },
    repository::{Repository, snapshots::KnownSnapshot},
    store::Name,
};

mod support {
    pub(crate) mod faults;
    pub(crate) mod forger;
    pub(crate) mod intercepted;
    pub(crate) mod lab;
    pub(crate) mod ram;
    pub(crate) mod service;
    pub(crate) mod tcp;
    pub(crate) mod world;
}
use support::{
    faults::{Fault, at},
    forger::{self, Forged, Manifest},
    intercepted::{Call, Fate, Kind, broken},
    lab::{self, Files, noise},
    ram::Ram,
    service::{BUCKET, KEY, SECRET},
    tcp::Server,
    world::{PASSPHRASE, World, objects, texts, tree},
};

impl Ram {
    /// Cuts files into chunks of these sizes.
    fn cutting(sizes: [u32; 3]) -> Self {
        let side = Self::new();
        side.owner()
            .change_registry(&|registry| {
                for domain in &mut registry.domains {
                    [domain.chunk_min, domain.chunk_average, domain.chunk_max] = sizes;
                }
            })
            .unwrap();
        side
    }

    fn is_clean(&self) {
        let checked = lab::check_all(&self.owner()).unwrap();
        assert!(checked.problems.is_empty(), "{:?}", checked.problems);
    }
}

/// Smallest, average and largest chunk.
const SMALL: [u32; 3] = [4 << 10, 16 << 10, 64 << 10];

fn options(mode: Mode) -> CopyOptions {
    CopyOptions { mode, compression: Compression::Auto, program: "copier".to_owned(), workers: 1 }
}

fn copy_by(from: &Arc<Repository>, to: &Arc<Repository>, chosen: &[KnownSnapshot]) -> Result<Vec<Copied>> {
    let mut all = Vec::new();
    copy::run((from, to), chosen, &options(Mode::Write), &mut |copied| all.push(copied.clone()))?;
    Ok(all)
}

fn copy(from: &Ram, to: &Ram) -> Vec<Copied> {
    copy_by(&from.owner(), &to.owner(), &from.snapshots()).unwrap()
}

#[track_caller]
fn made(copied: &Copied) -> Made {
    match copied.outcome {
        Outcome::Made(made) => made,
        ref other => unreachable!("{other:?}"),
    }
}

fn before(copied: &Copied) -> Option<ObjectId> {
    if let Outcome::Before(id) = copied.outcome { Some(id) } else { None }
}

fn restored(side: &Ram, known: &KnownSnapshot) -> Files {
    let (files, restored) = lab::restore(&side.owner(), known).unwrap();
    assert_eq!(restored.failures, 0, "{:?}", restored.failed);
    files
}

fn back_up(side: &Ram, files: &Files, host: &str, time: i64) -> KnownSnapshot {
    let options = BackupOptions {
        host: host.to_owned(),
        tags: vec![format!("of-{host}")],
        time: Some(Timestamp::from_seconds(time)),
        ..lab::backup_options()
    };
    let done = backup::run(&side.owner(), &mut lab::Tree(files), &options).unwrap();
    let id = done.snapshot.unwrap().0;
    side.snapshots().into_iter().find(|known| known.name.id == id).unwrap()
}

/// Small files, one of some chunks, and one of so many that they stand in lists.
fn files() -> Files {
    let mut files: Files =
        (0..40).map(|n| (format!("srv/small/{n:02}"), format!("{n}").repeat(20).into_bytes())).collect();
    files.insert("srv/empty".to_owned(), Vec::new());
    files.insert("srv/middle".to_owned(), noise(1, 3_000_000));
    files.insert("srv/twin".to_owned(), noise(1, 3_000_000));
    files
}

/// So many chunks, where they are small, that they stand in lists.
fn large() -> Vec<u8> {
    noise(0, 6 << 20)
}

#[test]
fn a_copy_restores_as_its_source_and_says_what_it_is_a_copy_of() {
    let (from, to) = (Ram::new(), Ram::new());
    let (first, mut second) = (files(), files());
    second.insert("srv/new".to_owned(), noise(5, 700_000));
    second.remove("srv/small/07");
    let sources = [back_up(&from, &first, "web", 1_000), back_up(&from, &second, "db", 2_000)];
    let copied = copy(&from, &to);
    assert_eq!(copied.len(), 2);
    let copies = to.snapshots();
    for ((copy, source), files) in copies.iter().zip(&sources).zip([&first, &second]) {
        let Snapshot { time, begun, host, user, tags, sources, statistics, origin, .. } = copy.record.clone();
        let there = &source.record;
        assert_eq!(
            (time, begun, host, user),
            (there.time, there.begun, there.host.clone(), there.user.clone())
        );
        assert_eq!((&tags, &sources), (&there.tags, &there.sources));
        assert_eq!((statistics.files, statistics.bytes), (there.statistics.files, there.statistics.bytes));
        let repository = from.owner().config.repository_id;
        assert_eq!(origin, Some(Origin { repository, snapshot: source.name.id }));
        assert_eq!(restored(&to, copy), *files);
        assert_ne!(copy.record.root, there.root, "other keys name other nodes");
    }
    to.is_clean();
}

#[test]
fn what_was_copied_before_is_passed_over_also_on_its_way_back() {
    let (one, two, three) = (Ram::new(), Ram::new(), Ram::new());
    back_up(&one, &files(), "web", 1_000);
    let copies = copy(&one, &two);
    let id = made(&copies[0]).id;
    let all = two.names("");
    assert_eq!(copy(&one, &two).iter().map(before).collect::<Vec<_>>(), [Some(id)]);
    assert_eq!(two.names(""), all, "nothing is written");
    // Back to where it comes from, and by two ways to a third.
    assert_eq!(before(&copy(&two, &one)[0]), Some(one.snapshots()[0].name.id));
    let third = made(&copy(&two, &three)[0]).id;
    assert_eq!(before(&copy(&one, &three)[0]), Some(third));
    assert_eq!(three.snapshots()[0].record.origin, two.snapshots()[0].record.origin);
}

#[test]
fn a_client_cannot_keep_anothers_snapshot_from_being_copied() {
    let (from, to) = (Ram::new(), Ram::new());
    let victim = back_up(&from, &files(), "web", 1_000);
    let client = from.add_key(Role::Backup, "client");
    let origin = Origin { repository: from.owner().config.repository_id, snapshot: victim.name.id };
    let other = Files::from([("srv/other".to_owned(), b"other".to_vec())]);
    let time = Some(Timestamp::from_seconds(500));
    struct Lying<'a>(lab::Tree<'a>, CopyOf);
    impl Source for Lying<'_> {
        fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<backup::Item>> + '_>> {
            self.0.open()
        }

        fn copy_of(&self) -> Option<CopyOf> {
            Some(self.1)
        }
    }
    let mut lying = Lying(
        lab::Tree(&other),
        CopyOf { origin: Some(origin), writer: None, begun: Timestamp::from_seconds(1), command: "backup" },
    );
    backup::run(&client, &mut lying, &BackupOptions { time, ..lab::backup_options() }).unwrap();
    assert_eq!(from.snapshots()[0].record.origin, Some(origin), "it lies");
    let copied = copy(&from, &to);
    assert_eq!(copied.len(), 2);
    copied.iter().for_each(|copied| _ = made(copied));
    assert_eq!(restored(&to, &to.snapshots()[1]), files());
}

#[test]
fn of_the_next_snapshot_only_what_is_new_is_read_and_stored() {
    let (from, to) = (Ram::cutting(SMALL), Ram::cutting(SMALL));
    let mut files = files();
    files.insert("srv/large".to_owned(), large());
    back_up(&from, &files, "web", 1_000);
    let first = made(&copy(&from, &to)[0]);
    // Every byte once, though a file stands there twice, and not a request for each of more than 400 chunks.
    assert!(first.bytes_read < 10 << 20 && first.reads < 12, "{first:?}");
    // In the middle of the large file some bytes come in; all behind them moves.
    let mut changed = large();
    changed.splice(3_000_000..3_000_000, *b"inserted");
    files.insert("srv/large".to_owned(), changed);
    files.insert("srv/new".to_owned(), noise(1_000, 300_000));
    files.remove("srv/small/03");
    back_up(&from, &files, "web", 2_000);
    let copied = copy(&from, &to);
    let second = made(&copied[1]);
    assert!(before(&copied[0]).is_some());
    assert!(second.bytes_read < 2 << 20, "{second:?}");
    assert!(second.bytes_reused > 11 << 20, "{second:?}");
    assert!(second.statistics.bytes_new < 1 << 20, "{second:?}");
    assert_eq!(restored(&to, &to.snapshots()[1]), files);
    to.is_clean();
}

#[test]
fn with_other_sizes_of_chunks_files_are_cut_anew() {
    let (from, to) = (Ram::cutting(SMALL), Ram::cutting([2 << 10, 8 << 10, 32 << 10]));
    let mut files = files();
    files.insert("srv/large".to_owned(), large());
    back_up(&from, &files, "web", 1_000);
    let copied = copy(&from, &to);
    assert_eq!(made(&copied[0]).bytes_reused, 0);
    assert_eq!(restored(&to, &to.snapshots()[0]), files);
    files.insert("srv/new".to_owned(), noise(9, 100_000));
    back_up(&from, &files, "web", 2_000);
    copy(&from, &to);
    assert_eq!(restored(&to, &to.snapshots()[1]), files);
    to.is_clean();
}

#[test]
fn damage_in_the_source_is_named_and_costs_its_snapshot_only() {
    let (from, to) = (Ram::new(), Ram::new());
    let mut files = Files::from([("srv/good".to_owned(), noise(1, 50_000))]);
    back_up(&from, &files, "web", 1_000);
    let old: BTreeSet<Name> = from.names("/packs/d/").into_iter().collect();
    files.insert("srv/hurt".to_owned(), noise(2, 60_000));
    files.insert("srv/later".to_owned(), noise(3, 2_000));
    back_up(&from, &files, "web", 2_000);
    let pack = from.names("/packs/d/").into_iter().find(|name| !old.contains(name)).unwrap();
    from.flip(&pack, 30_000);
    let copied = copy(&from, &to);
    made(&copied[0]);
    let Outcome::Damaged(losses) = &copied[1].outcome else { unreachable!("{copied:?}") };
    let paths: Vec<&[u8]> = losses.named.iter().map(|lost| &lost.path[..]).collect();
    assert_eq!((losses.count, paths), (2, vec![&b"srv/hurt"[..], b"srv/later"]), "they are in one frame");
    assert!(losses.named[0].why.contains(pack.as_str()), "{losses:?}");
    assert_eq!(to.snapshots().len(), 1);
    to.is_clean();
    // A copy of it without what is lost can be copied.
    let manifests: BTreeSet<Name> = from.names("/packs/m/").into_iter().collect();
    back_up(&from, &(0..2_000).map(|n| (format!("srv/{n:04}"), vec![7; 9])).collect(), "web", 3_000);
    let nodes = from.names("/packs/m/").into_iter().find(|name| !manifests.contains(name)).unwrap();
    from.store().delete(&nodes).unwrap();
    let copied = copy_by(&from.owner(), &to.owner(), &from.snapshots()[2..]).unwrap();
    let Outcome::Damaged(losses) = &copied[0].outcome else { unreachable!("{copied:?}") };
    assert!(losses.named[0].why.contains("a part of the manifest is lost"), "{losses:?}");
    assert_eq!(to.snapshots().len(), 1);
}

#[test]
fn a_second_copy_of_a_chunk_stands_in_for_a_damaged_one() {
    let (from, to) = (Ram::new(), Ram::new());
    let files = Files::from([("srv/a".to_owned(), noise(1, 50_000))]);
    let client = from.add_key(Role::Backup, "client");
    lab::back_up(&client, &files).unwrap();
    let first = from.names("/packs/d/");
    back_up(&from, &files, "web", 2_000);
    assert_eq!(from.names("/packs/d/").len(), 2, "nobody borrows from a client that no verifier attested");
    from.flip(&first[0], 30_000);
    copy(&from, &to).iter().for_each(|copied| _ = made(copied));
    to.snapshots().iter().for_each(|known| assert_eq!(restored(&to, known), files));
}

#[test]
fn a_copy_that_is_stopped_at_any_call_is_finished_by_the_next_one() {
    let (from, to) = (Ram::new(), Ram::new());
    let files = Files::from([("srv/a".to_owned(), noise(1, 300_000)), ("srv/b".to_owned(), b"b".to_vec())]);
    back_up(&from, &files, "web", 1_000);
    let run = |from: &Arc<Repository>, to: &Arc<Repository>| copy_by(from, to, &from.snapshots()?.0);
    let (reads, writes) = {
        let to = to.fork();
        let (over_from, over_to) = (from.watched(), to.watched());
        made(&run(&from.over(&over_from).unwrap(), &to.over(&over_to).unwrap()).unwrap()[0]);
        (over_from.calls().len(), over_to.calls().len())
    };
    assert!(reads > 8 && writes > 12, "{reads} {writes}");
    let finished = |to: &Ram, what: &str| {
        copy(&from, to);
        let copies = to.snapshots();
        assert_eq!(copies.len(), 1, "{what}");
        assert_eq!(restored(to, &copies[0]), files, "{what}");
        to.is_clean();
    };
    for number in 0..reads {
        let to = to.fork();
        let over = from.watched();
        over.intercept(at(number, Fault::StopsBefore));
        drop(from.over(&over).and_then(|from| run(&from, &to.owner())));
        finished(&to, &format!("read {number}"));
    }
    for number in 0..writes {
        for fault in [Fault::StopsBefore, Fault::StopsAfter] {
            let to = to.fork();
            let over = to.watched();
            over.intercept(at(number, fault));
            drop(to.over(&over).and_then(|to| run(&from.owner(), &to)));
            finished(&to, &format!("write {number} {fault:?}"));
        }
    }
}

#[test]
fn what_an_interrupted_copy_has_stored_is_not_sent_again() {
    let (from, to) = (Ram::new(), Ram::new());
    let mut files = Files::from([("srv/a".to_owned(), noise(1, 2_000_000))]);
    back_up(&from, &files, "web", 1_000);
    files.insert("srv/b".to_owned(), noise(2, 3_000_000));
    back_up(&from, &files, "web", 2_000);
    // It stops when it would write the second snapshot: all packs are there.
    let over = to.watched();
    let seen = std::sync::atomic::AtomicUsize::new(0);
    over.intercept(move |call: &Call| {
        let is_snapshot = call.kind == Kind::Create && call.name.contains("/snapshots/");
        let second = is_snapshot && seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1;
        if second { Fate::Fails(broken()) } else { Fate::Works }
    });
    let error = copy_by(&from.owner(), &to.over(&over).unwrap(), &from.snapshots()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Temporary);
    let packs = to.names("/packs/d/");
    let copied = copy(&from, &to);
    assert!(before(&copied[0]).is_some());
    assert_eq!(made(&copied[1]).statistics.bytes_new, 0, "{copied:?}");
    assert_eq!(to.names("/packs/d/"), packs);
    assert_eq!(restored(&to, &to.snapshots()[1]), files);
}

#[test]
fn a_chunk_that_the_target_has_lost_is_read_and_stored_again() {
    let (from, to) = (Ram::new(), Ram::new());
    let files = files();
    back_up(&from, &files, "web", 1_000);
    copy(&from, &to);
    to.names("/packs/d/").iter().for_each(|pack| to.store().delete(pack).unwrap());
    back_up(&from, &files, "web", 2_000);
    let copied = copy(&from, &to);
    assert!(made(&copied[1]).statistics.bytes_new > 3_000_000, "{copied:?}");
    assert_eq!(restored(&to, &to.snapshots()[1]), files);
}

#[test]
fn large_files_come_by_their_lists_and_not_when_these_lie() {
    let (from, to) = (Ram::new(), Ram::new());
    back_up(&from, &Files::from([("srv/z".to_owned(), b"z".to_vec())]), "web", 1);
    let owner = from.owner();
    let mut manifest = Manifest::new(&owner);
    let parts = [noise(7, 9_000), noise(8, 9_000)];
    let chunks: Vec<_> = parts.iter().map(|part| manifest.chunk(part)).collect();
    let frames: Vec<Forged> =
        parts.iter().zip(&chunks).map(|(part, chunk)| Forged::raw(chunk.id, part)).collect();
    let listed = forger::pack(&owner, PackKind::Data, &frames, |_| {});
    owner.publish_index(&owner.own_domain().unwrap(), &[listed]).unwrap();
    let list = manifest.node(&Node::Chunks(chunks.clone()));
    let file = |path: &str, size: u64, content: Content| {
        let metadata = Metadata { size, mode: 0o644, ..Metadata::of(EntryKind::File) };
        let changed_while_read = path == "c";
        let error = (path == "d").then(|| "it could not be read".to_owned());
        Entry { path: path.into(), metadata, content, changed_while_read, error }
    };
    let good = vec![
        file("a", 18_000, Content::List { node: list, chunks: 2, level: 0 }),
        file("c", 9_000, Content::Inline(vec![chunks[1]])),
        file("d", 10_000, Content::Inline(Vec::new())),
    ];
    let leaf = manifest.node(&Node::Leaf(good.clone()));
    manifest.snapshot(leaf, |record| record.levels = 0);
    let mut bad = good;
    bad.push(file("e", 27_000, Content::List { node: list, chunks: 3, level: 0 }));
    bad.push(file("f", 9_000, Content::List { node: list, chunks: 2, level: 0 }));
    bad.push(file("g", 9_001, Content::Inline(vec![chunks[1]])));
    let mut manifest = Manifest::new(&owner);
    let leaf = manifest.node(&Node::Leaf(bad));
    manifest.snapshot(leaf, |record| (record.levels, record.time) = (0, Timestamp::from_seconds(9)));
    let mut known = from.snapshots();
    known.sort_by_key(|known| known.name.sequence);
    let copied = copy_by(&from.owner(), &to.owner(), &known[1..]).unwrap();
    made(&copied[0]);
    let copy = &to.snapshots()[0];
    assert_eq!((copy.record.unreadable, copy.record.statistics.entries), (1, 3));
    let (files, restored) = lab::restore(&to.owner(), copy).unwrap();
    assert_eq!((&files["a"], &files["c"], restored.failures), (&parts.concat(), &parts[1], 1));
    let Outcome::Damaged(losses) = &copied[1].outcome else { unreachable!("{copied:?}") };
    let paths: Vec<&[u8]> = losses.named.iter().map(|lost| &lost.path[..]).collect();
    assert_eq!(paths, [b"e", b"f", b"g"]);
}

#[test]
fn each_side_needs_its_role_and_there_must_be_two_of_them() {
    let (from, to) = (Ram::new(), Ram::new());
    back_up(&from, &files(), "web", 1_000);
    let known = from.snapshots();
    let refused =
        |from: &Arc<Repository>, to: &Arc<Repository>| copy_by(from, to, &known).map_err(|e| e.kind()).err();
    let (before_from, before_to) = (from.names("/snapshots/"), to.names("/snapshots/"));
    for role in [Role::Backup, Role::Audit, Role::Maintain] {
        let key = from.add_key(role, role.name());
        assert_eq!(refused(&key, &to.owner()), Some(ErrorKind::Forbidden), "{role:?}");
    }
    for role in [Role::Backup, Role::Audit, Role::Maintain, Role::Restore] {
        let key = to.add_key(role, role.name());
        assert_eq!(refused(&from.owner(), &key), Some(ErrorKind::Forbidden), "{role:?}");
    }
    assert_eq!(refused(&from.owner(), &from.owner()), Some(ErrorKind::Usage));
    assert_eq!((from.names("/snapshots/"), to.names("/snapshots/")), (before_from, before_to));
    let technician = from.add_key(Role::Restore, "technician");
    let all = from.names("");
    made(&copy_by(&technician, &to.owner(), &known).unwrap()[0]);
    assert_eq!(from.names(""), all, "nothing is written to the source");
}

/// The program with a second repository, `offsite`, that has another passphrase.
fn offsite(world: &World, arguments: &[&str]) -> std::process::Command {
    let mut command = world.bare(arguments);
    command.env("LIFEBOAT_REPOSITORY", world.path("offsite")).env("LIFEBOAT_PASSWORD", "another one 17");
    command
}

/// What a restore of the newest snapshot of a repository gives.
fn latest(world: &World, command: &dyn Fn(&[&str]) -> std::process::Command, target: &str) -> Vec<Vec<u8>> {
    world.ends(&mut command(&["restore", "latest", "--target", target]), 0);
    tree(&world.path(target)).into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
fn the_program_copies_with_credentials_for_both_repositories_and_shows_neither() {
    let world = World::with_repository();
    world.does(&["backup", "src", "--tag", "nightly"]);
    world.ends(&mut offsite(&world, &["init", "--recovery-file", "words2"]), 0);
    let from = ["copy", "--from-repository", "repo"];
    // Nothing is taken from what unlocks the other one.
    let (_, err) = world.ends(&mut offsite(&world, &from), 12);
    assert!(err.contains("--from-password-file") && err.contains("LIFEBOAT_FROM_PASSWORD"), "{err}");
    let (_, err) = world.ends(&mut offsite(&world, &["copy"]), 2);
    assert!(err.contains("--from-repository"), "{err}");
    let (_, err) = world.ends(offsite(&world, &from).env("LIFEBOAT_FROM_PASSWORD", "another one 17"), 12);
    assert!(!err.contains("another one"), "{err}");
    let (_, err) = world.ends(
        offsite(&world, &["copy", "--from-repository", "nowhere"]).env("LIFEBOAT_FROM_PASSWORD", PASSPHRASE),
        10,
    );
    assert!(err.contains("nowhere"), "{err}");
    let with = |arguments: &[&str]| {
        let mut command = offsite(&world, arguments);
        command.env("LIFEBOAT_FROM_REPOSITORY", world.path("repo")).env("LIFEBOAT_FROM_PASSWORD", PASSPHRASE);
        command
    };
    let before = tree(&world.path("offsite"));
    let (out, _) = world.ends(&mut with(&["copy", "--dry-run"]), 0);
    assert!(out.contains("would be copied"), "{out}");
    assert_eq!(tree(&world.path("offsite")), before, "a dry run writes nothing");
    let (out, _) = world.ends(&mut with(&["copy", "--tag", "nightly", "--json"]), 0);
    let messages = objects(&out);
    let (copied, summary) = (&messages[messages.len() - 2], &messages[messages.len() - 1]);
    assert_eq!((&copied["action"], &summary["copied"]), (&"copied".into(), &1.into()), "{out}");
    assert!(!out.contains(PASSPHRASE) && !out.contains("another one"));
    let (out, _) = world.ends(&mut offsite(&world, &["snapshots", "--json"]), 0);
    let shown = objects(&out);
    assert_eq!((&shown[0]["id"], &shown[0]["tags"][0]), (&copied["copy"], &"nightly".into()));
    assert_eq!(shown[0]["origin"]["snapshot"], copied["snapshot"]);
    // By files and words, and an id; it was copied before.
    fs::write(world.path("pass"), PASSPHRASE).unwrap();
    let id = copied["snapshot"].as_str().unwrap();
    for unlock in [["--from-password-file", "pass"], ["--from-recovery-words-file", "words"]] {
        let arguments = [&from[..], &unlock, &[&id[..8]]].concat();
        let (out, _) = world.ends(&mut offsite(&world, &arguments), 0);
        assert!(out.contains("was copied before"), "{out}");
    }
    assert!(world.ends(&mut with(&["copy", "--host", "nobody"]), 2).1.contains("passes the filters"));
    let typo = world.ends(&mut with(&["copy", "--tag", "nightly", "--tag", "nigthly"]), 2).1;
    assert!(typo.contains("no snapshot has the tags `nigthly`"), "{typo}");
    world.ends(&mut with(&["copy", "--tag", ""]), 2);
    world.ends(&mut with(&["copy", "12345678"]), 1);
    let same = |arguments: &[&str]| world.command(arguments);
    assert_eq!(
        latest(&world, &|arguments| offsite(&world, arguments), "one"),
        latest(&world, &same, "two"),
        "both restore the same"
    );
    world.ends(&mut offsite(&world, &["check", "--read-data"]), 0);
    // No command that is run sees either passphrase.
    let show = "env > seen; echo $KEY";
    let mut command = with(&[&from[..], &["--from-password-command", show]].concat());
    world.ends(command.env("KEY", PASSPHRASE).env_remove("LIFEBOAT_FROM_REPOSITORY"), 0);
    let seen = fs::read_to_string(world.path("seen")).unwrap();
    assert!(!seen.contains("LIFEBOAT_PASSWORD=") && !seen.contains("LIFEBOAT_FROM_PASSWORD="), "{seen}");
}

#[test]
fn the_program_names_what_is_damaged_in_the_source_and_ends_with_5() {
    let world = World::with_repository();
    fs::write(world.path("src/three"), noise(3, 200_000)).unwrap();
    world.does(&["backup", "src"]);
    world.ends(&mut offsite(&world, &["init", "--recovery-file", "words2"]), 0);
    let packs = tree(&world.path("repo"));
    let (pack, bytes) = packs.iter().find(|(path, _)| path.to_str().unwrap().contains("packs/d/")).unwrap();
    let mut bytes = bytes.clone();
    bytes[100_000] ^= 1;
    fs::set_permissions(pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(pack, bytes).unwrap();
    let mut command = offsite(&world, &["copy", "--from-repository", "repo"]);
    let output = command.env("LIFEBOAT_FROM_PASSWORD", PASSPHRASE).output().unwrap();
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(5), "{out}{err}");
    assert!(out.contains("src/three") && err.contains("check --read-data"), "{out}{err}");
    let (out, _) = world.ends(&mut offsite(&world, &["snapshots", "--json"]), 0);
    assert_eq!(objects(&out)[0]["snapshots"], 0, "{out}");
}

#[test]
fn a_copy_of_before_that_has_lost_files_is_named_and_made_again_after_the_advice_is_followed() {
    let world = World::with_repository();
    fs::write(world.path("src/three"), noise(3, 200_000)).unwrap();
    world.does(&["backup", "src"]);
    world.ends(&mut offsite(&world, &["init", "--recovery-file", "words2"]), 0);
    let copy = |more: &[&str], code| {
        let mut command = offsite(&world, &[&["copy", "--from-repository", "repo"], more].concat());
        world.ends(command.env("LIFEBOAT_FROM_PASSWORD", PASSPHRASE), code)
    };
    let (out, _) = copy(&["--json"], 0);
    let made = objects(&out).iter().find_map(|message| message["copy"].as_str().map(str::to_owned)).unwrap();
    for (path, _) in tree(&world.path("offsite")) {
        if path.to_str().unwrap().contains("packs/d/") {
            fs::remove_file(path).unwrap();
        }
    }
    let (out, err) = copy(&[], 3);
    assert!(out.contains(&made[..8]) && out.contains("src/three"), "{out}{err}");
    assert!(err.contains("repair snapshots --apply") && err.contains("forget ID"), "{err}");
    let (out, _) = copy(&["--json", "--dry-run"], 3);
    assert!(objects(&out).iter().any(|message| message["copies_hurt"] == 1), "{out}");
    // Damage of the source counts more, and this is told all the same.
    let mut snapshots = tree(&world.path("repo")).into_iter().map(|(path, _)| path);
    let snapshot = snapshots.rfind(|path| path.to_str().unwrap().contains("/snapshots/")).unwrap();
    let next = snapshot.with_file_name(format!("0000000002-{}", "0".repeat(64)));
    fs::write(&next, "").unwrap();
    assert!(copy(&[], 5).1.contains("repair snapshots --apply"));
    fs::remove_file(next).unwrap();
    // Who begins with a check finds the way to it.
    assert!(world.ends(&mut offsite(&world, &["check"]), 5).1.contains("lifeboat copy"));
    world.ends(&mut offsite(&world, &["repair", "snapshots", "--apply"]), 3);
    world.ends(&mut offsite(&world, &["forget", &made]), 0);
    let (out, err) = copy(&[], 0);
    assert!(out.contains("copied as"), "{out}{err}");
    let (out, _) = copy(&[], 0);
    assert!(out.contains("was copied before"), "{out}");
    assert_eq!(
        latest(&world, &|arguments| offsite(&world, arguments), "one"),
        latest(&world, &|arguments| world.command(arguments), "two")
    );
}

/// Copies every file as a tool that knows nothing of repositories does.
fn mirror(world: &World, put: &mut dyn FnMut(&str, Vec<u8>)) {
    let root = world.path("repo");
    for (path, bytes) in tree(&root) {
        put(path.strip_prefix(&root).unwrap().to_str().unwrap(), bytes);
    }
}

#[test]
fn a_mirror_of_all_objects_passes_a_check_and_restores() {
    let world = World::with_repository();
    fs::write(world.path("src/noise"), noise(5, 2_000_000)).unwrap();
    world.does(&["backup", "src"]);
    fs::write(world.path("src/more"), noise(6, 100_000)).unwrap();
    world.does(&["backup", "src"]);
    let folder = world.path("mirror");
    mirror(&world, &mut |name, bytes| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    });
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bucket = object_store::aws::AmazonS3Builder::new()
        .with_endpoint(format!("http://{}", server.address))
        .with_allow_http(true)
        .with_bucket_name(BUCKET)
        .with_region("us-east-1")
        .with_access_key_id(KEY)
        .with_secret_access_key(SECRET)
        .build()
        .unwrap();
    mirror(&world, &mut |name, bytes| {
        let path = object_store::path::Path::from(format!("some/prefix/{name}"));
        runtime.block_on(object_store::ObjectStoreExt::put(&bucket, &path, bytes.into())).unwrap();
    });
    let addresses =
        [folder.to_str().unwrap().to_owned(), format!("s3:http://{}/{BUCKET}/some/prefix", server.address)];
    let original = |arguments: &[&str]| world.command(arguments);
    let expected = latest(&world, &original, "original");
    let checked = world.ends(&mut original(&["check", "--read-data", "--no-cache"]), 0).0;
    for (number, address) in addresses.iter().enumerate() {
        let command = |arguments: &[&str]| {
            let mut command = world.command(arguments);
            command
                .env("LIFEBOAT_REPOSITORY", address)
                .env("LIFEBOAT_CACHE_DIR", world.path(&format!("cache{number}")));
            command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
            command
        };
        let (out, _) = world.ends(&mut command(&["check", "--read-data", "--no-cache"]), 0);
        assert_eq!(out, checked, "{address}");
        assert_eq!(latest(&world, &command, &format!("mirrored{number}")), expected, "{address}");
        // It is a repository like any other.
        world.ends(&mut command(&["backup", "src"]), 0);
        world.ends(&mut command(&["check", "--read-data"]), 0);
        // `copy` between the two would copy nothing that is not there.
        let copy = ["copy", "--from-repository", "repo"];
        let (_, err) = world.ends(command(&copy).env("LIFEBOAT_FROM_PASSWORD", PASSPHRASE), 2);
        assert!(err.contains("same repository"), "{err}");
    }
}
