//! What stands for something in a prune, and what moves to other packs, where a client lies whose key was stolen: nothing goes
//! that somebody needs, and no lie costs more than it is worth.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use lifeboat::{
    clock::{Clock, SystemClock, Timestamp},
    error::ErrorKind,
    format::{
        attestation::{Attestation, AttestedSection, digest},
        entry::{ChunkRef, Content},
        node::Node,
        pack::{Blob, Directory, Frame, IndexedPack, PackKind, SectionHeader, encode_index},
        role::Role,
        tombstones::Tombstones,
    },
    id::{BlobId, DomainId, PackId},
    limits,
    ops::{
        check::Problem,
        forget,
        prune::{self, DomainDone, Mode, PruneOptions, Unused},
        repair::{self, AsideOptions, Force},
    },
    repository::{
        Repository,
        pack_mover::{PackMover, Source},
        unlock::Credential,
    },
    store::{Name, Store},
};
use object_store::{local::LocalFileSystem, memory::InMemory};

mod support {
    pub(crate) mod fence;
    pub(crate) mod forger;
    pub(crate) mod intercepted;
    pub(crate) mod lab;
    pub(crate) mod yard;
}
use support::{
    fence::with_content,
    forger::{self, Forged, Manifest},
    intercepted::{Call, Fate, Intercepted, Kind},
    lab::{self, Files, noise},
    yard::{Yard, ending, join},
};

const DAY: i64 = 86_400;
/// Bytes of each file: a chunk under any key, and no compressor makes it smaller.
const FILE_BYTES: usize = limits::CHUNK_BYTES_MIN;

fn files(contents: impl IntoIterator<Item = u64>) -> Files {
    contents.into_iter().map(|content| (format!("srv/{content}"), noise(content, FILE_BYTES))).collect()
}

fn options() -> PruneOptions {
    PruneOptions { host: "host".to_owned(), max_unused: Unused::Bytes(0), ..PruneOptions::default() }
}

/// Nothing is moved but what dies.
fn only_sweep() -> PruneOptions {
    PruneOptions { max_unused: Unused::Any, small_packs: usize::MAX, ..options() }
}

/// A domain that two clients share, of whom one is hijacked; a restore key was stolen too.
struct Shared {
    yard: Yard,
    honest: Credential,
    hijacked: Credential,
    stolen: Credential,
    maintain: Credential,
    domain: DomainId,
}

impl Shared {
    fn set_aside(&self, names: Vec<String>, force: Force) {
        let options = AsideOptions { names, reason: None, mode: Mode::Write, force };
        repair::set_aside(&self.yard.owner(), &options).unwrap();
    }

    fn new() -> Self {
        let yard = Yard::new();
        let [honest, hijacked] =
            ["web1", "web2"].map(|label| yard.new_key(Role::Backup, label, Some("office")));
        let [stolen, maintain] = [(Role::Restore, "tech"), (Role::Maintain, "mia")]
            .map(|(role, label)| yard.new_key(role, label, None));
        let domain = yard.open_as(&yard.store(), &honest).unwrap().own_domain().unwrap();
        Self { yard, honest, hijacked, stolen, maintain, domain }
    }

    fn open(&self, credential: &Credential) -> Repository {
        self.yard.open_as(&self.yard.store(), credential).unwrap()
    }

    fn words(&self) -> Credential {
        Credential::Words(self.yard.root.words())
    }

    fn watched(&self) -> Arc<Intercepted> {
        Intercepted::watching(Arc::new(LocalFileSystem::new_with_prefix(self.yard.path()).unwrap()))
    }

    /// As [`Self::open`], through a store that somebody watches.
    fn open_over(
        &self,
        over: &Arc<Intercepted>,
        credential: &Credential,
        clock: &Arc<dyn Clock>,
    ) -> Repository {
        let options = lab::options(Arc::clone(clock), Arc::default(), 0);
        let store = Store::from_object_store(Arc::<Intercepted>::clone(over), "", options).unwrap();
        let config = Repository::read_config(&store).unwrap();
        let secrets = Repository::unlock(&store, &config, credential).unwrap();
        Repository::open(store, config, secrets, None, Arc::clone(clock)).unwrap()
    }

    /// What the hijacked client stores under the ids of the chunks of some files.
    fn forge(
        &self,
        frames: impl IntoIterator<Item = (u64, Vec<u8>)>,
        lie: impl Fn(&mut Directory),
    ) -> IndexedPack {
        let ids = self.yard.owner().chunk_keys(&self.domain).unwrap().id;
        let id = |content| ids.id(&noise(content, FILE_BYTES));
        let frames: Vec<Forged> =
            frames.into_iter().map(|(content, plain)| Forged::raw(id(content), &plain)).collect();
        forger::pack(&self.open(&self.hijacked), PackKind::Data, &frames, lie)
    }

    fn list(&self, packs: &[IndexedPack]) {
        forger::index(&self.open(&self.hijacked), &encode_index(packs));
    }

    /// Vouches for the first section of a pack, without a look at it.
    fn vouch(&self, verifier: &Credential, pack: &IndexedPack) {
        let verifier = self.open(verifier);
        let section =
            AttestedSection { id: pack.directory.sections[0].id(), digest: digest(&pack.directory, 0) };
        let record = Attestation { time: verifier.clock.now(), sections: vec![section] };
        verifier.publish_attestation(&self.domain, &record).unwrap();
    }

    fn data_packs(&self) -> Vec<PackId> {
        let listed = self.yard.owner().listed_packs(&self.domain).unwrap().into_iter();
        listed.filter(|(_, pack)| pack.kind == PackKind::Data).map(|(id, _)| id).collect()
    }

    fn path(&self, id: &PackId) -> PathBuf {
        self.yard.path().join(Name::pack(&self.domain, PackKind::Data, id).as_str())
    }

    /// These are to die, and their grace is over.
    fn doom(&self, packs: &[PackId]) {
        let owner = self.yard.owner();
        let batch = Tombstones { time: owner.clock.now(), packs: packs.to_vec() };
        owner.publish_tombstones(&self.domain, &batch).unwrap();
        self.yard.wait(4 * DAY);
    }

    /// The same sealed frames in another pack, for each of these.
    fn copy_frames(&self, packs: &[PackId]) -> Vec<PackId> {
        let owner = self.yard.owner();
        let copies = packs.iter().map(|id| {
            let name = Name::pack(&self.domain, PackKind::Data, id);
            let bytes = owner.store.read(&name, limits::PACK_BYTES_MAX).unwrap();
            let directory = owner.own_directory(&self.domain, &bytes).unwrap();
            let place = (self.domain, PackKind::Data);
            let mut mover = PackMover::new(&owner, place, limits::PACK_BYTES_TARGET).unwrap();
            let source = Source::new(&directory, &bytes).unwrap();
            assert!(mover.add((&source, 0), |_| true).unwrap().is_none());
            let moved = mover.finish().unwrap().unwrap();
            let name = Name::pack(&self.domain, PackKind::Data, &moved.listed.id);
            owner.store.create_parts(&name, moved.pieces).unwrap();
            moved.listed
        });
        let copies: Vec<IndexedPack> = copies.collect();
        owner.publish_index(&self.domain, &copies).unwrap();
        copies.iter().map(|copy| copy.id).collect()
    }

    fn prune_with(&self, repository: &Repository, options: &PruneOptions) -> DomainDone {
        let pruned = prune::run(repository, options).unwrap();
        assert!(pruned.stopped.is_none(), "{pruned:?}");
        let one = pruned.domains.into_iter().find(|domain| domain.id == self.domain).unwrap();
        assert!(one.refused.is_none(), "{one:?}");
        one.done
    }

    fn prune(&self, credential: &Credential, options: &PruneOptions) -> DomainDone {
        self.prune_with(&self.open(credential), options)
    }

    /// Every snapshot of the honest client comes back.
    #[track_caller]
    fn restores(&self, expected: &[&Files]) {
        let owner = self.yard.owner();
        let known = owner.snapshots().unwrap().0;
        assert_eq!(known.len(), expected.len());
        for (snapshot, expected) in known.iter().zip(expected) {
            let (files, restored) = lab::restore(&owner, snapshot).unwrap();
            assert_eq!((files == **expected, restored.failures), (true, 0), "{:?}", restored.failed);
        }
    }
}

#[track_caller]
fn is_told(done: &DomainDone, id: &PackId, words: &str) {
    let about = |note: &&lifeboat::error::Error| note.to_string().contains(&id.to_string());
    let notes: Vec<String> = done.notes.iter().filter(about).map(ToString::to_string).collect();
    assert!(notes.len() == 1 && notes[0].contains(words), "{notes:?}");
}

fn chunk_in(id: BlobId) -> ChunkRef {
    ChunkRef { id, length: FILE_BYTES.try_into().unwrap() }
}

/// As if one frame had been written so many times, each time under another id.
fn overlap(directory: &mut Directory, ids: &[BlobId]) {
    let first = directory.frames[0].clone();
    let frame = |(counter, id): (u32, &BlobId)| {
        let blobs = vec![Blob { id: *id, ..first.blobs[0] }];
        Frame { counter, blobs, ..first.clone() }
    };
    directory.frames = (0_u32..).zip(ids).map(frame).collect();
}

#[test]
fn what_a_verifier_vouches_for_falsely_does_not_stand_for_what_an_owner_can_read() {
    let scene = Shared::new();
    let (whole, kept) = (files(1..=8), files(1..=2));
    let client = scene.open(&scene.honest);
    let ended = lab::back_up(&client, &whole).unwrap().snapshot.unwrap().0;
    lab::back_up(&client, &kept).unwrap();
    forget::run(&scene.yard.owner(), &ending(ended)).unwrap();
    let forged = scene.forge([1, 2].map(|content| (content, noise(content + 50, FILE_BYTES))), |_| {});
    scene.list(std::slice::from_ref(&forged));
    scene.vouch(&scene.stolen, &forged);
    scene.yard.wait(2 * DAY);
    let done = scene.prune(&scene.words(), &options());
    assert_eq!(done.cut, 1, "{done:?}");
    is_told(&done, &forged.id, "--force");
    for _ in 0..3 {
        scene.restores(&[&kept]);
        scene.yard.wait(4 * DAY);
        scene.prune(&scene.words(), &options());
    }
    scene.restores(&[&kept]);
}

#[test]
fn nothing_is_deleted_because_of_what_a_stolen_restore_key_says() {
    let scene = Shared::new();
    let kept = files(1..=2);
    lab::back_up(&scene.open(&scene.honest), &kept).unwrap();
    let good = scene.data_packs();
    let forged = scene.forge([1, 2].map(|content| (content, noise(content + 50, FILE_BYTES))), |_| {});
    scene.list(std::slice::from_ref(&forged));
    scene.vouch(&scene.stolen, &forged);
    for who in [scene.words(), Credential::AccessKey(access(&scene.maintain))] {
        let before = scene.data_packs();
        let doomed: Vec<PackId> = before.into_iter().filter(|id| *id != forged.id).collect();
        scene.doom(&doomed);
        let done = scene.prune(&who, &only_sweep());
        assert_eq!((done.rescued.packs, done.deleted.packs), (1, 1), "{done:?}");
        scene.restores(&[&kept]);
    }
    assert!(!scene.data_packs().contains(&good[0]));
    // What lies moves once, as what is needed, and its old pack goes.
    scene.doom(&[forged.id]);
    let done = scene.prune(&scene.words(), &only_sweep());
    assert_eq!((done.rescued.packs, done.deleted.packs), (1, 1), "{done:?}");
    scene.restores(&[&kept]);
}

fn access(credential: &Credential) -> zeroize::Zeroizing<String> {
    match credential {
        Credential::AccessKey(text) => text.clone(),
        _ => unreachable!("a key that was added"),
    }
}

#[test]
fn a_pack_is_read_once_however_often_it_is_listed_and_no_lie_about_it_hides_the_truth() {
    for is_listed_truly in [true, false] {
        let scene = Shared::new();
        let kept = files(1..=2);
        lab::back_up(&scene.open(&scene.honest), &kept).unwrap();
        let doomed = scene.data_packs();
        let truth = scene.forge([1, 2].map(|content| (content, noise(content, FILE_BYTES))), |_| {});
        let mut listings: Vec<IndexedPack> = (1..=40).map(|_| truth.clone()).collect();
        for (offset, lie) in (1_u32..).zip(&mut listings) {
            lie.directory.frames[0].offset += offset;
        }
        let empty = SectionHeader { salt: [9; 32], ..truth.directory.sections[0].clone() };
        listings[0].directory.sections.push(empty);
        if is_listed_truly {
            listings.push(truth.clone());
        }
        scene.list(&listings);
        scene.vouch(&scene.words(), &truth);
        scene.doom(&doomed);
        let over = scene.watched();
        let owner = scene.open_over(&over, &scene.words(), &scene.yard.clock());
        let done = scene.prune_with(&owner, &only_sweep());
        let rescued = u64::from(!is_listed_truly);
        assert_eq!((done.deleted.packs, done.rescued.packs), (1, rescued), "{done:?}");
        let name = truth.id.to_string();
        let is_read = |call: &&Call| call.kind == Kind::Get && call.name.contains(&name);
        // At most once in each look: what was saved is looked at again.
        let reads = over.calls().iter().filter(is_read).count() as u64;
        assert!((1..=1 + rescued).contains(&reads), "{reads}");
        scene.restores(&[&kept]);
    }
}

/// The time of the machine, and hours that pass at once.
#[derive(Debug, Default)]
struct Hours(AtomicU64, i64);

impl Clock for Hours {
    fn now(&self) -> Timestamp {
        let now = SystemClock.now();
        Timestamp { seconds: now.seconds + self.1, ..now }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_hours(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, _: Duration) {}
}

#[test]
fn when_the_time_is_up_no_more_packs_are_looked_at_and_none_is_copied() {
    let scene = Shared::new();
    let (one, other) = (files([1]), files([2]));
    for files in [&one, &other] {
        lab::back_up(&scene.open(&scene.honest), files).unwrap();
    }
    let doomed = scene.data_packs();
    assert_eq!(doomed.len(), 2);
    scene.copy_frames(&doomed);
    scene.doom(&doomed);
    let (over, hours) = (scene.watched(), Arc::new(Hours(AtomicU64::new(0), scene.yard.ahead.get())));
    let clock: Arc<dyn Clock> = Arc::<Hours>::clone(&hours);
    let maintain = scene.open_over(&over, &scene.maintain, &clock);
    let is_pack = |call: &Call| call.kind == Kind::Get && call.name.contains("/packs/d/");
    let passing = Arc::clone(&hours);
    over.intercept(move |call: &Call| {
        passing.0.fetch_add(u64::from(is_pack(call)), Ordering::SeqCst);
        Fate::Works
    });
    let short = PruneOptions { max_time: Some(Duration::from_secs(60)), ..only_sweep() };
    let done = scene.prune_with(&maintain, &short);
    assert_eq!((done.deleted.packs, done.rescued.packs, done.written.packs), (0, 0, 0), "{done:?}");
    assert!(done.out_of_time, "{done:?}");
    // The pack that stands for the first one, and the end of that: two requests.
    assert_eq!(hours.0.load(Ordering::SeqCst), 3);
    let done = scene.prune(&scene.maintain, &only_sweep());
    assert_eq!((done.deleted.packs, done.rescued.packs), (2, 0), "{done:?}");
    scene.restores(&[&one, &other]);
}

#[test]
fn a_copy_that_is_damaged_or_gone_is_named_when_a_pack_dies() {
    for is_gone in [false, true] {
        let scene = Shared::new();
        let kept = files(1..=2);
        lab::back_up(&scene.open(&scene.honest), &kept).unwrap();
        let doomed = scene.data_packs();
        let copy = scene.copy_frames(&doomed)[0];
        scene.doom(&doomed);
        let over = scene.watched();
        if is_gone {
            let name = copy.to_string();
            over.intercept(move |call: &Call| match call.kind {
                Kind::Get if call.name.contains(&name) => Fate::Elsewhere(Arc::new(InMemory::new())),
                _ => Fate::Works,
            });
        } else {
            let path = scene.path(&copy);
            let (mut bytes, then) =
                (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
            bytes[2000] ^= 1;
            fs::write(&path, bytes).unwrap();
            File::open(&path).unwrap().set_modified(then).unwrap();
        }
        let maintain = scene.open_over(&over, &scene.maintain, &scene.yard.clock());
        let done = scene.prune_with(&maintain, &only_sweep());
        assert_eq!((done.rescued.packs, done.deleted.packs), (1, 1), "{done:?}");
        is_told(&done, &copy, if is_gone { "lifeboat check" } else { "repair quarantine NAME --apply" });
        scene.restores(&[&kept]);
    }
}

/// As the disk has it, which lets the time of the file alone.
fn flip(path: &PathBuf, at: usize) {
    let then = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
    File::open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn what_is_damaged_in_one_dying_pack_is_copied_out_of_another() {
    // Whichever of them is read first.
    for which in [0, 1] {
        let scene = Shared::new();
        let kept = files(1..=2);
        lab::back_up(&scene.open(&scene.honest), &kept).unwrap();
        let original = scene.data_packs();
        let mut doomed = [original.clone(), scene.copy_frames(&original)].concat();
        doomed.sort_unstable();
        scene.doom(&doomed);
        flip(&scene.path(&doomed[which]), 2000);
        let done = scene.prune(&scene.maintain, &only_sweep());
        assert_eq!((done.rescued.packs, done.deleted.packs), (2, 2), "{done:?}");
        scene.restores(&[&kept]);
    }
}

#[test]
fn a_damaged_frame_that_nobody_needs_holds_up_no_rescue() {
    for is_attested in [false, true] {
        for damaged in [0, 1] {
            let scene = Shared::new();
            let forged = scene.forge([1, 2].map(|content| (content, noise(content, FILE_BYTES))), |_| {});
            scene.list(std::slice::from_ref(&forged));
            if is_attested {
                scene.vouch(&scene.words(), &forged);
            }
            let kept = files([1]);
            lab::back_up(&scene.open(&scene.hijacked), &kept).unwrap();
            assert_eq!(scene.data_packs(), [forged.id]);
            scene.doom(&[forged.id]);
            flip(&scene.path(&forged.id), forged.directory.frames[damaged].offset as usize);
            let pruned = prune::run(&scene.open(&scene.maintain), &only_sweep()).unwrap();
            let one = pruned.domains.into_iter().find(|domain| domain.id == scene.domain).unwrap();
            if damaged == 1 {
                assert!(one.refused.is_none() && one.done.deleted.packs == 1, "{one:?}");
                scene.restores(&[&kept]);
            } else {
                // It is needed, and in no other pack.
                assert_eq!(one.refused.unwrap().kind(), ErrorKind::Damaged);
                assert_eq!(scene.data_packs(), [forged.id]);
            }
        }
    }
}

#[test]
fn a_frame_that_waits_to_be_moved_does_not_hold_its_pack() {
    let scene = Shared::new();
    let forged = scene.forge([1, 2].map(|content| (content, noise(content, FILE_BYTES))), |_| {});
    let pack = Bytes::from(fs::read(scene.path(&forged.id)).unwrap());
    let owner = scene.yard.owner();
    let place = (scene.domain, PackKind::Data);
    let mut mover = PackMover::new(&owner, place, limits::PACK_BYTES_TARGET).unwrap();
    let source = Source::new(&forged.directory, &pack).unwrap();
    assert!(mover.add((&source, 0), |at| at == 1).unwrap().is_none());
    assert!(pack.is_unique());
    let moved = mover.finish().unwrap().unwrap();
    let [frame] = &moved.listed.directory.frames[..] else { panic!("{moved:?}") };
    assert_eq!((frame.hash, frame.counter), (forged.directory.frames[1].hash, 1));
}

#[test]
fn frames_that_overlap_are_not_moved() {
    let scene = Shared::new();
    let ids: Vec<BlobId> = (0..60).map(|number| BlobId::new([number; 32])).collect();
    let forged = scene.forge([(1, noise(1, FILE_BYTES))], |directory| overlap(directory, &ids));
    let pack = Bytes::from(fs::read(scene.path(&forged.id)).unwrap());
    let error = Source::new(&forged.directory, &pack).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    // As many as have room.
    let mut fewer = forged.directory;
    fewer.frames.truncate(1);
    Source::new(&fewer, &pack).unwrap();
}

/// A small pack of a client, of which a snapshot needs many times its size.
#[test]
fn a_pack_that_is_said_to_hold_more_than_its_size_stays_where_it_is_and_holds_up_nobody() {
    let yard = Yard::new();
    let owner = yard.owner();
    let (kept, ended) = (files([1]), files([2]));
    let ended = lab::back_up(&owner, &ended).unwrap().snapshot.unwrap().0;
    lab::back_up(&owner, &kept).unwrap();
    let ids: Vec<BlobId> = (0..60).map(|number| BlobId::new([number; 32])).collect();
    let frame = Forged::raw(ids[0], &noise(3, FILE_BYTES));
    let forged = forger::pack(&owner, PackKind::Data, &[frame], |directory| overlap(directory, &ids));
    forger::index(&owner, &encode_index(std::slice::from_ref(&forged)));
    let mut manifest = Manifest::new(&owner);
    let content = Content::Inline(ids.iter().map(|id| chunk_in(*id)).collect());
    let root = manifest.node(&Node::Leaf(vec![with_content("m/hostile", 60 * FILE_BYTES as u64, content)]));
    manifest.snapshot(root, |_| {});
    forget::run(&yard.owner(), &ending(ended)).unwrap();
    yard.wait(2 * DAY);
    let (domain, credential) = (owner.own_domain().unwrap(), yard.new_key(Role::Maintain, "mia", None));
    let scene = Shared {
        maintain: credential,
        honest: Credential::Words(yard.root.words()),
        hijacked: Credential::Words(yard.root.words()),
        stolen: Credential::Words(yard.root.words()),
        domain,
        yard,
    };
    let is_small =
        || scene.data_packs().iter().all(|id| fs::metadata(scene.path(id)).unwrap().len() < 1 << 20);
    let words = "more than there is room for";
    // Small ones are merged.
    for who in [&scene.maintain, &scene.honest] {
        let done = scene.prune(who, &PruneOptions { small_packs: 1, ..options() });
        is_told(&done, &forged.id, words);
        assert!(is_small() && done.repacked.packs > 0, "{done:?}");
        scene.yard.wait(2 * DAY);
    }
    // Somebody has marked it, and what else is to go goes.
    scene.doom(&[forged.id]);
    let before = scene.data_packs().len();
    let done = scene.prune(&scene.maintain, &only_sweep());
    is_told(&done, &forged.id, words);
    assert!(done.deleted.packs > 0 && is_small(), "{done:?}");
    let after = scene.data_packs();
    assert!(after.len() < before && after.contains(&forged.id), "{before} {after:?}");
}

#[test]
fn frames_that_overlap_stand_for_nothing() {
    let scene = Shared::new();
    let kept = files([1]);
    lab::back_up(&scene.open(&scene.honest), &kept).unwrap();
    let doomed = scene.data_packs();
    let forged = scene.forge([(1, noise(1, FILE_BYTES))], |directory| {
        let mut ids = vec![directory.frames[0].blobs[0].id];
        ids.extend((0..60).map(|number| BlobId::new([number; 32])));
        overlap(directory, &ids);
    });
    scene.list(std::slice::from_ref(&forged));
    scene.vouch(&scene.words(), &forged);
    scene.doom(&doomed);
    let done = scene.prune(&scene.maintain, &only_sweep());
    assert_eq!((done.rescued.packs, done.deleted.packs), (1, 1), "{done:?}");
    is_told(&done, &forged.id, "more than there is room for");
    scene.restores(&[&kept]);
}

/// What an honest client uses is damaged; another one has stored the same, and nobody needs that.
struct Damaged {
    scene: Shared,
    stored: Files,
    own: PackId,
    good: PackId,
    /// The index objects that list the good one.
    lists: Vec<PathBuf>,
}

impl Damaged {
    fn new() -> Self {
        let (scene, stored) = (Shared::new(), files(1..=4));
        let key = scene.yard.new_key(Role::Backup, "web3", Some("office"));
        let neighbour = scene.open(&key);
        let ended = lab::back_up(&neighbour, &stored).unwrap().snapshot.unwrap().0;
        let (lists, good) = (scene.yard.having("/index/"), scene.data_packs()[0]);
        lab::back_up(&neighbour, &files(20..=20)).unwrap();
        forget::run(&scene.yard.owner(), &ending(ended)).unwrap();
        let before = scene.data_packs();
        lab::back_up(&scene.open(&scene.honest), &stored).unwrap();
        let own = scene.data_packs().into_iter().find(|id| !before.contains(id)).unwrap();
        let path = scene.path(&own);
        let mut bytes = fs::read(&path).unwrap();
        bytes[2000] ^= 1;
        fs::write(&path, bytes).unwrap();
        scene.doom(&[good]);
        Self { scene, stored, own, good, lists }
    }

    fn stays(&self, credential: &Credential) {
        let done = self.scene.prune(credential, &only_sweep());
        assert!(self.scene.data_packs().contains(&self.good), "{done:?}");
        is_told(&done, &self.good, "stays");
    }
}

#[test]
fn noise_under_the_id_of_a_chunk_is_no_copy_of_it() {
    let damaged = Damaged::new();
    let scene = &damaged.scene;
    let forged = scene.forge((1..=4).map(|content| (content, noise(content + 50, FILE_BYTES))), |_| {});
    scene.list(std::slice::from_ref(&forged));
    damaged.stays(&Credential::AccessKey(access(&scene.maintain)));
    damaged.stays(&scene.words());
    scene.restores(&[&files(20..=20), &damaged.stored]);
}

#[test]
fn a_false_listing_hides_no_last_good_copy() {
    for is_set_aside in [true, false] {
        let damaged = Damaged::new();
        let scene = &damaged.scene;
        damaged.lists.iter().for_each(|list| fs::remove_file(list).unwrap());
        if is_set_aside {
            let name = Name::pack(&scene.domain, PackKind::Data, &damaged.own).as_str().to_owned();
            scene.set_aside(vec![name], Force::No);
        }
        let size = fs::metadata(scene.path(&damaged.good)).unwrap().len().try_into().unwrap();
        let directory = Directory { sections: Vec::new(), frames: Vec::new() };
        scene.list(&[IndexedPack { id: damaged.good, size, kind: PackKind::Data, directory }]);
        damaged.stays(&scene.words());
        let repaired = repair::index(&scene.yard.owner(), Mode::Write).unwrap();
        let listed: u64 = repaired.iter().map(|domain| domain.done.listed.packs).sum();
        // What a client says of another one's pack is no listing of it.
        assert!(listed > 0, "{repaired:?}");
        scene.restores(&[&files(20..=20), &damaged.stored]);
    }
}

#[test]
fn what_another_prune_has_saved_and_deleted_meanwhile_is_looked_at_again() {
    let (scene, kept) = (Shared::new(), files(1..=2));
    lab::back_up(&scene.open(&scene.honest), &kept).unwrap();
    let good = scene.data_packs()[0];
    scene.doom(&[good]);
    let other = scene.yard.copy();
    let elsewhere = prune::run(&other.owner(), &only_sweep()).unwrap();
    let saved = elsewhere.domains.iter().any(|domain| domain.done.rescued.packs == 1);
    assert!(saved && !other.having("/packs/d/").iter().any(|path| path.ends_with(good.to_string())));
    // When this one reads the pack the other one is done.
    let (over, name) = (scene.watched(), good.to_string());
    let (here, there) = (scene.yard.path(), other.path());
    over.intercept(move |call: &Call| {
        if call.kind == Kind::Get && call.name.contains(&name) && here.join(&call.name).exists() {
            join(&here, &there);
            fs::remove_file(here.join(&call.name)).unwrap();
        }
        Fate::Works
    });
    let owner = scene.open_over(&over, &scene.words(), &scene.yard.clock());
    scene.prune_with(&owner, &only_sweep());
    assert!(!scene.data_packs().contains(&good), "it was read");
    scene.restores(&[&kept]);
    assert_eq!(lab::check_all(&scene.yard.owner()).unwrap().problems, []);
}

#[test]
fn a_check_that_reads_data_believes_no_listing_that_its_pack_does_not_bear_out() {
    for is_lie_first in [true, false] {
        let (scene, kept) = (Shared::new(), files(1..=2));
        lab::back_up(&scene.open(&scene.honest), &kept).unwrap();
        let own = scene.data_packs()[0];
        let truth = scene.forge([30, 31].map(|content| (content, noise(content, FILE_BYTES))), |_| {});
        let mut lie = truth.clone();
        let ids = scene.yard.owner().chunk_keys(&scene.domain).unwrap().id;
        for (content, frame) in (1..).zip(&mut lie.directory.frames) {
            frame.blobs[0].id = ids.id(&noise(content, FILE_BYTES));
        }
        let listings = if is_lie_first { [lie, truth.clone()] } else { [truth.clone(), lie] };
        scene.list(&listings);
        fs::remove_file(scene.path(&own)).unwrap();
        let checked = lab::check_all(&scene.yard.owner()).unwrap();
        let about_index = |problem: &&Problem| problem.object.contains("/index/");
        let told: Vec<&Problem> = checked.problems.iter().filter(about_index).collect();
        assert!(told.len() == 1 && told[0].what.contains(&truth.id.to_string()), "{checked:?}");
        let hurts: usize = checked.problems.iter().map(|problem| problem.hurts.len()).sum();
        assert_eq!(hurts, 2, "{checked:?}");
        // No pack is damaged, and the one that the lie is about is there.
        let packs: Vec<&str> = checked.problems.iter().map(|problem| problem.object.as_str()).collect();
        assert!(!packs.iter().any(|object| object.contains(&truth.id.to_string())), "{checked:?}");
        // What is advised ends it.
        let remedy = told[0].remedy.as_deref().unwrap();
        let aside = format!("`lifeboat repair quarantine {} --force ", told[0].object);
        assert!(remedy.contains(&aside) && remedy.contains("`lifeboat repair index --apply`"), "{remedy}");
        scene.set_aside(vec![told[0].object.clone()], Force::Yes);
        let repaired = repair::index(&scene.yard.owner(), Mode::Write).unwrap();
        assert_eq!(repaired.iter().map(|domain| domain.done.listed.packs).sum::<u64>(), 1, "{repaired:?}");
        let checked = lab::check_all(&scene.yard.owner()).unwrap();
        assert!(!checked.problems.iter().any(|problem| problem.what.contains("not what the pack says")));
        let objects: Vec<&str> = checked.problems.iter().map(|problem| problem.object.as_str()).collect();
        assert!(objects.len() == 1 && objects[0].contains(&own.to_string()), "{checked:?}");
    }
}

/// It may only be listed as something else.
#[test]
fn where_several_back_up_nobody_is_told_to_give_something_up_before_the_packs_were_asked() {
    let scene = Shared::new();
    lab::back_up(&scene.open(&scene.honest), &files(1..=2)).unwrap();
    fs::remove_file(scene.path(&scene.data_packs()[0])).unwrap();
    let pruned = prune::run(&scene.yard.owner(), &options()).unwrap();
    let refused = pruned.domains.into_iter().find_map(|domain| domain.refused).unwrap();
    let remedy = refused.remedy().unwrap();
    let [first, forget] = ["repair index", "forget"].map(|word| remedy.find(word).unwrap());
    assert!(first < forget, "{remedy}");
}

/// By the name that it would have then it is not there.
#[test]
fn a_listing_with_the_wrong_kind_hides_no_damage_and_is_named() {
    for is_rotten in [false, true] {
        let (scene, kept) = (Shared::new(), files(1..=2));
        lab::back_up(&scene.open(&scene.honest), &kept).unwrap();
        let own = scene.data_packs()[0];
        let size = fs::metadata(scene.path(&own)).unwrap().len().try_into().unwrap();
        // Several, so that one of them comes first.
        for _ in 0..6 {
            let directory = Directory { sections: Vec::new(), frames: Vec::new() };
            scene.list(&[IndexedPack { id: own, size, kind: PackKind::Metadata, directory }]);
        }
        if is_rotten {
            let mut bytes = fs::read(scene.path(&own)).unwrap();
            bytes[2000] ^= 1;
            fs::write(scene.path(&own), bytes).unwrap();
        }
        let checked = lab::check_all(&scene.yard.owner()).unwrap();
        let name = Name::pack(&scene.domain, PackKind::Data, &own);
        let is_told = checked.problems.iter().any(|problem| problem.object == name.as_str());
        assert_eq!(is_told, is_rotten, "{checked:?}");
        let wrong = Name::pack(&scene.domain, PackKind::Metadata, &own);
        assert!(!checked.problems.iter().any(|problem| problem.object == wrong.as_str()), "{checked:?}");
        let is_lie = |problem: &&Problem| problem.what.contains("not what the pack says of itself");
        let liars: Vec<&Problem> = checked.problems.iter().filter(is_lie).collect();
        assert!(
            !liars.is_empty() && liars.iter().all(|problem| problem.object.contains("/index/")),
            "{checked:?}"
        );
        scene.set_aside(liars.iter().map(|problem| problem.object.clone()).collect(), Force::Yes);
        let checked = lab::check_all(&scene.yard.owner()).unwrap();
        assert_eq!(checked.problems_found > 0, is_rotten, "{checked:?}");
    }
}
