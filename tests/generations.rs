//! Programs of other ages. A repository of each release lies in `tests/repositories` and must be read, checked, restored,
//! backed up to and pruned by every later program; and a newer program, that says more in its records than this one
//! knows, takes turns with it. `LIFEBOAT_WRITE_REPOSITORY=NAME cargo test --test generations` adds what this program makes.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use lifeboat::{
    clock::Timestamp,
    crypto::RootSecret,
    format::{
        annotation::{Annotation, Says, TagChange},
        envelope::{self, EnvelopeHeader, RecordKind, Sealer},
        forgotten::Forgotten,
        role::Role,
        snapshot::Run,
        tombstones::Tombstones,
    },
    id::ObjectId,
    ops::{
        annotate::{self, Chosen},
        forget,
        prune::{self, DomainDone, PruneOptions},
        select::{Filter, Reference},
    },
    repository::{Repository, snapshots::KnownSnapshot, unlock::Credential},
    store::{Folder, Name},
};

mod support {
    pub(crate) mod lab;
    pub(crate) mod yard;
}
use support::{
    lab::{self, Files, noise},
    yard::{Yard, ending, files_below},
};

const DAY: i64 = 86_400;

fn repositories() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/repositories")
}

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

/// What the backup of this number holds: something of its own, something that all have, and what compresses well.
fn files(number: u64) -> Files {
    let texts =
        ["same", "for", "all"].map(|word| (format!("srv/text/{word}"), word.repeat(300).into_bytes()));
    let own = [(format!("srv/{number}"), noise(number, 2000)), ("srv/changes".to_owned(), vec![b'a'; 500])];
    texts.into_iter().chain(own).chain([("srv/empty".to_owned(), Vec::new())]).collect()
}

fn one(snapshot: ObjectId) -> Chosen {
    Chosen { references: vec![Reference::Id(snapshot.to_string())], filter: Filter::default() }
}

fn forget(repository: &Repository, snapshot: ObjectId) {
    assert_eq!(forget::run(repository, &ending(snapshot)).unwrap().counts().1, 1);
}

/// What was done in each domain.
fn prune(repository: &Repository) -> Vec<DomainDone> {
    let options = PruneOptions { host: "host".to_owned(), ..PruneOptions::default() };
    let pruned = prune::run(repository, &options).unwrap();
    let of_domain = pruned.domains.into_iter().map(|domain| {
        assert!(domain.refused.is_none(), "{:?}", domain.refused);
        domain.done
    });
    of_domain.collect()
}

/// Packs that are gone when prunes have come for a month.
fn pruned_in_the_end(yard: &Yard) -> u64 {
    let rounds = (0..6).map(|_| {
        yard.wait(5 * DAY);
        deleted(&prune(&yard.owner()))
    });
    rounds.sum()
}

fn deleted(done: &[DomainDone]) -> u64 {
    done.iter().map(|done| done.deleted.packs).sum()
}

/// Nothing is damaged, and exactly these come back. (In which order follows from the times of the storage, and those of a
/// repository that was put into a folder are all the same.)
#[track_caller]
fn holds(repository: &Repository, expected: &[&Files]) -> Vec<KnownSnapshot> {
    assert_eq!(lab::check_all(repository).unwrap().problems, []);
    let (known, damaged) = repository.snapshots().unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    let restored = known.iter().map(|snapshot| {
        let (files, restored) = lab::restore(repository, snapshot).unwrap();
        assert_eq!(restored.failures, 0, "{:?}", restored.failed);
        files
    });
    let (mut restored, mut expected) = (restored.collect::<Vec<_>>(), expected.to_vec());
    restored.sort();
    expected.sort();
    assert!(restored.iter().eq(expected), "another content");
    known
}

/// A repository with something of every kind of object. The owner's first snapshot is held and has a tag, the second one
/// has ended and its packs are to die; then comes a third, and one of a machine.
fn make(to: &Path) {
    let yard = Yard::of(root());
    let back_up = |number| yard.back_up(&files(number));
    let (first, second, _) = (back_up(1), back_up(2), back_up(3));
    let machine = yard.new_key(Role::Backup, "machine", None);
    lab::back_up(&yard.open_as(&yard.store(), &machine).unwrap(), &files(4)).unwrap();
    annotate::place(&yard.owner(), &one(first), "a case", annotate::Mode::Write).unwrap();
    let change = TagChange { add: vec!["kept".to_owned()], ..TagChange::default() };
    annotate::tag(&yard.owner(), &one(first), &change, annotate::Mode::Write).unwrap();
    forget(&yard.owner(), second);
    yard.storage_gains(2 * DAY);
    let marked: u64 = prune(&yard.owner()).iter().map(|done| done.marked.packs).sum();
    assert_eq!(marked, 2);
    assert_eq!(lab::check_all(&yard.owner()).unwrap().problems, []);
    let Credential::AccessKey(access) = &machine else { unreachable!() };
    for path in yard.files().into_iter().filter(|path| !path.ends_with(".lifeboat-lock")) {
        let to = to.join("objects").join(path.strip_prefix(yard.path()).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
    fs::write(to.join("access-key"), access.as_bytes()).unwrap();
    // A whole second that is not before anything that stands in it.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    fs::write(to.join("made"), (now.as_secs() + 1).to_string()).unwrap();
}

/// Everything that a later program must be able to do with it.
fn lives_on(from: &Path) {
    let text = |name| fs::read_to_string(from.join(name)).unwrap();
    let made = SystemTime::UNIX_EPOCH + Duration::from_secs(text("made").parse().unwrap());
    let yard = Yard::found(&from.join("objects"), root(), made);
    let machine = || Credential::AccessKey(text("access-key").into());
    let passphrase = Credential::Passphrase("right".to_owned().into(), None);
    assert!(yard.open_as(&yard.store(), &passphrase).is_ok());

    let [first, third, of_machine] = [1, 3, 4].map(files);
    let known = holds(&yard.owner(), &[&first, &third, &of_machine]);
    let held: Vec<&KnownSnapshot> = known.iter().filter(|known| !known.holds.is_empty()).collect();
    let [held] = held[..] else { unreachable!("one of them is held: {known:?}") };
    assert_eq!((&held.tags[..], &*held.holds[0].reason), (&["kept".to_owned()][..], "a case"));

    let unchanged = lab::back_up(&yard.open_as(&yard.store(), &machine()).unwrap(), &of_machine).unwrap();
    assert_eq!(unchanged.record.statistics.bytes_new, 0, "what it has stored is found");
    let changed = files(5);
    yard.back_up(&changed);
    holds(&yard.owner(), &[&first, &third, &of_machine, &of_machine, &changed]);

    // What it has marked dies when its grace is over, and what is held stays until that ends.
    yard.wait(10 * DAY);
    assert_eq!(deleted(&prune(&yard.owner())), 2);
    annotate::lift(&yard.owner(), &one(held.name.id), (&[], "over"), annotate::Mode::Write).unwrap();
    forget(&yard.owner(), held.name.id);
    assert!(pruned_in_the_end(&yard) > 0);
    holds(&yard.owner(), &[&third, &of_machine, &of_machine, &changed]);
}

#[test]
fn a_repository_of_each_release_is_read_checked_restored_backed_up_to_and_pruned() {
    let new = tempfile::tempdir().unwrap();
    make(new.path());
    lives_on(new.path());
    if let Some(name) = std::env::var_os("LIFEBOAT_WRITE_REPOSITORY") {
        make(&repositories().join(name));
    }
    let mut found = 0;
    for release in fs::read_dir(repositories()).unwrap() {
        let release = release.unwrap().path();
        assert!(files_below(&release).len() > 20, "{}", release.display());
        lives_on(&release);
        found += 1;
    }
    assert!(found > 0);
}

/// A program of some later time: whatever it writes has a field more than this one knows, and it has objects of its own.
struct Newer<'a>(&'a Yard);

impl Newer<'_> {
    /// A CBOR map with one field more.
    fn more(plain: &[u8]) -> Vec<u8> {
        let (mut more, field) = (plain.to_vec(), [0x18, 99, 0x63, b'n', b'e', b'w']);
        if more[0] == 0xbf {
            // A map that goes on to its end mark.
            more.splice(more.len() - 1..more.len() - 1, field);
        } else {
            assert!((0xa0..0xb7).contains(&more[0]), "a map of fewer than 23 fields");
            more[0] += 1;
            more.extend(field);
        }
        more
    }

    fn seal(&self, kind: RecordKind, sequence: u64, plain: &[u8]) -> (ObjectId, Bytes) {
        let owner = self.0.owner();
        let domain = owner.own_domain().unwrap();
        let header = EnvelopeHeader {
            kind,
            repository: owner.config.repository_id,
            domain,
            author: owner.identity(),
            sequence,
            epoch: 0,
        };
        let plain = Self::more(plain);
        let sealed = if matches!(kind, RecordKind::Snapshot | RecordKind::Run | RecordKind::Annotation) {
            let (epoch, public) = owner.metadata_public().unwrap();
            let header = EnvelopeHeader { epoch, ..header };
            envelope::seal(&header, &Sealer::Public(public), owner.signer(), &plain)
        } else {
            let key = owner.index_key(&domain).unwrap();
            envelope::seal(&header, &Sealer::Symmetric(key.as_bytes()), owner.signer(), &plain)
        };
        let sealed = sealed.unwrap();
        (ObjectId::new(*blake3::hash(&sealed).as_bytes()), Bytes::from(sealed))
    }

    fn record(&self, folder: Folder, kind: RecordKind, plain: &[u8]) {
        let (id, sealed) = self.seal(kind, 0, plain);
        let name = Name::record(&self.0.owner().own_domain().unwrap(), folder, &id);
        self.0.store().create(&name, sealed).unwrap();
    }

    /// A backup. Its packs and index are as those of this program: they have no unknown parts.
    fn back_up(&self, files: &Files) -> ObjectId {
        let owner = self.0.owner();
        let (domain, identity) = (owner.own_domain().unwrap(), owner.identity());
        let run = Run {
            time: owner.clock.now(),
            host: "host".to_owned(),
            command: "backup".to_owned(),
            failure: None,
            nonce: [1; 16],
        };
        let (id, sealed) = self.seal(RecordKind::Run, 0, &run.encode());
        self.0.store().create(&Name::run(&domain, &identity, &id), sealed).unwrap();
        // As this program makes it; then the snapshot takes the place of that one.
        let done = lab::back_up(&owner, files).unwrap();
        let (old, sequence) = done.snapshot.unwrap();
        let (id, sealed) = self.seal(RecordKind::Snapshot, sequence, &done.record.encode());
        let store = self.0.store();
        store.create(&Name::snapshot(&domain, &identity, sequence, &id), sealed).unwrap();
        store.delete(&Name::snapshot(&domain, &identity, sequence, &old)).unwrap();
        id
    }

    fn tag(&self, snapshot: ObjectId) {
        let says = Says::Tags(TagChange { add: vec!["newer".to_owned()], ..TagChange::default() });
        let annotation = Annotation { time: self.0.clock().now(), snapshots: vec![snapshot], says };
        self.record(Folder::Annotations, RecordKind::Annotation, &annotation.encode());
    }

    /// Writes that it ends, and deletes it.
    fn forget(&self, snapshot: ObjectId) {
        let owner = self.0.owner();
        let names = owner.snapshot_names(&owner.own_domain().unwrap(), None).unwrap();
        let time = owner.clock.now();
        let forgotten = Forgotten::new(time, vec![snapshot], "newer");
        self.record(Folder::Forgotten, RecordKind::Forgotten, &forgotten.encode());
        let name = names.into_iter().find(|name| name.id == snapshot).unwrap().name;
        self.0.store().delete(&name).unwrap();
    }

    /// Marks what this program would mark.
    fn mark(&self) -> u64 {
        let owner = self.0.owner();
        let domain = owner.own_domain().unwrap();
        let before = self.0.having("/tombstones/");
        prune(&owner);
        let new: Vec<PathBuf> =
            self.0.having("/tombstones/").into_iter().filter(|path| !before.contains(path)).collect();
        let [batch] = &new[..] else { return 0 };
        let view = owner.view(&domain).unwrap();
        let mut packs: Vec<_> = view.tombstoned.iter().copied().collect();
        packs.sort_unstable();
        fs::remove_file(batch).unwrap();
        let batch = Tombstones { time: owner.clock.now(), packs };
        self.record(Folder::Tombstones, RecordKind::Tombstones, &batch.encode());
        batch.packs.len() as u64
    }

    /// What no name of this program is.
    fn own_objects(&self) -> Vec<PathBuf> {
        let domain = self.0.owner().own_domain().unwrap();
        let names = [format!("d/{domain}/leases/one"), "leases/two".to_owned(), "config.v2".to_owned()];
        let paths: Vec<PathBuf> = names.iter().map(|name| self.0.path().join(name)).collect();
        for path in &paths {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"of a later time").unwrap();
        }
        paths
    }
}

#[test]
fn a_newer_program_that_says_more_takes_turns_with_this_one() {
    let yard = Yard::new();
    let newer = Newer(&yard);
    let others = newer.own_objects();
    let all: Vec<Files> = (0..6).map(files).collect();
    let [first, second, third] = [newer.back_up(&all[0]), yard.back_up(&all[1]), newer.back_up(&all[2])];
    let known = holds(&yard.owner(), &[&all[0], &all[1], &all[2]]);
    assert_eq!(known.iter().map(|known| known.name.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(known.iter().map(|known| known.name.id).collect::<Vec<_>>(), [first, second, third]);

    // Each changes and ends what the other one has written.
    newer.tag(second);
    let change = TagChange { add: vec!["older".to_owned()], ..TagChange::default() };
    annotate::tag(&yard.owner(), &one(third), &change, annotate::Mode::Write).unwrap();
    annotate::place(&yard.owner(), &one(third), "a case", annotate::Mode::Write).unwrap();
    forget(&yard.owner(), first);
    newer.forget(second);
    yard.back_up(&all[3]);
    let known = holds(&yard.owner(), &[&all[2], &all[3]]);
    assert_eq!(known[0].tags, ["older"]);

    // What the newer one has marked, this one deletes, and the other way round.
    yard.wait(2 * DAY);
    let marked = newer.mark();
    assert!(marked > 0);
    yard.wait(4 * DAY);
    assert_eq!(deleted(&prune(&yard.owner())), marked);
    let last = newer.back_up(&all[4]);
    newer.tag(last);
    let known = holds(&yard.owner(), &[&all[2], &all[3], &all[4]]);
    assert_eq!(known[2].tags, ["newer"]);
    newer.forget(known[1].name.id);
    assert!(pruned_in_the_end(&yard) > 0);
    yard.back_up(&all[5]);
    let known = holds(&yard.owner(), &[&all[2], &all[4], &all[5]]);
    assert_eq!(known[2].name.sequence, 6);
    for path in others {
        assert_eq!(fs::read(path).unwrap(), b"of a later time", "what it does not know it leaves alone");
    }
}

/// The test above can fail: what is critical is never passed over.
#[test]
fn what_a_newer_program_calls_critical_stops_this_one() {
    let yard = Yard::new();
    let newer = Newer(&yard);
    let snapshot = yard.back_up(&files(1));
    yard.back_up(&files(2));
    let says = Says::Hold("a case".to_owned());
    let plain = Annotation { time: Timestamp::default(), snapshots: vec![snapshot], says }.encode();
    // A negative key, before the others.
    let critical = [&[plain[0] + 1, 0x20, 0x00], &plain[1..]].concat();
    let owner = yard.owner();
    let (_, sealed) = newer.seal(RecordKind::Annotation, 0, &critical);
    let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
    let name = Name::record(&owner.own_domain().unwrap(), Folder::Annotations, &id);
    yard.store().create(&name, sealed).unwrap();
    let error = forget::run(&yard.owner(), &ending(snapshot)).unwrap_err();
    assert!(format!("{error:?}").contains("critical"), "{error:?}");
    assert_eq!(yard.having("/snapshots/").len(), 2);
}
