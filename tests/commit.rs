//! The order of a commit and what happens between its steps: who was revoked or added meanwhile, what is late,
//! what vanishes, and what a stolen key can do to the others of its domain.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lifeboat::{
    clock::{Clock, Timestamp},
    compress::Compression,
    crypto::{RootSecret, SigningKey},
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Content, Entry, EntryKind, Metadata},
        envelope::{self, Envelope, EnvelopeHeader, Opener, RecordKind, Sealer},
        pack::{IndexedPack, PackKind},
        registry::Certificate,
        role::Role,
        snapshot::{Run, Snapshot},
        tombstones::Tombstones,
    },
    id::{DomainId, ObjectId, PackId},
    ops::{
        backup::{
            self, BackupOptions, Item, Source,
            stream::{Stream, StreamFile},
        },
        key::{self, AddOptions, Added, By, LastGood, RevokeOptions},
    },
    repository::{InitOptions, Repository, index::Standing, unlock::Credential},
    store::{Location, Name, Parsed, Prefix, S3Settings, Store, StoreOptions},
};
use object_store::{ObjectStore, memory::InMemory};

mod support {
    pub(crate) mod intercepted;
}
use support::intercepted::{Call, Fate, Intercepted, Kind, broken};

/// A clock that goes on when somebody sleeps, or as it is told.
#[derive(Default)]
struct FakeClock(Mutex<Duration>);

impl FakeClock {
    fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000)
    }

    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, duration: Duration) {
        self.pass(duration);
    }
}

const RETRY_FOR: Duration = Duration::from_mins(15);

/// A repository in memory, reached through a store with a hook and around it.
struct Bench {
    hooked: Arc<Intercepted>,
    clock: Arc<FakeClock>,
    /// With the hook.
    store: Store,
    /// Without.
    beside: Store,
    root: RootSecret,
}

fn options(clock: &Arc<FakeClock>, connections: usize) -> StoreOptions {
    let clock: Arc<dyn Clock> = Arc::<FakeClock>::clone(clock);
    StoreOptions {
        connections,
        upload_limit: None,
        download_limit: None,
        retry_for: RETRY_FOR,
        s3: S3Settings::default(),
        clock,
        progress: Arc::default(),
    }
}

fn bench(connections: usize) -> Bench {
    let (memory, clock) = (Arc::new(InMemory::new()), Arc::<FakeClock>::default());
    let hooked = Intercepted::watching(Arc::<InMemory>::clone(&memory) as Arc<dyn ObjectStore>);
    let open = |objects: Arc<dyn ObjectStore>| {
        Store::from_object_store(objects, "p", options(&clock, connections)).unwrap()
    };
    let (store, beside) = (open(Arc::<Intercepted>::clone(&hooked)), open(memory));
    let root = RootSecret::generate().unwrap();
    Repository::create(&beside, &root, "right", InitOptions::default(), &*clock).unwrap();
    Bench { hooked, clock, store, beside, root }
}

fn open(store: &Store, credential: &Credential, clock: &Arc<FakeClock>, cache: Option<&Path>) -> Repository {
    let config = Repository::read_config(store).unwrap();
    let secrets = Repository::unlock(store, &config, credential).unwrap();
    let clock: Arc<dyn Clock> = Arc::<FakeClock>::clone(clock);
    Repository::open(store.clone(), config, secrets, cache, clock).unwrap()
}

impl Bench {
    fn owner(&self) -> Repository {
        open(&self.beside, &Credential::Words(self.root.words()), &self.clock, None)
    }

    /// Whoever works through the hook.
    fn machine(&self, added: &Added) -> Repository {
        let credential = Credential::AccessKey(added.access_key.as_ref().unwrap().text());
        open(&self.store, &credential, &self.clock, None)
    }

    fn names(&self) -> Vec<Name> {
        let listed = self.beside.list(&Prefix::all()).unwrap();
        listed.iter().filter_map(|listed| Name::parse(&listed.name)).collect()
    }

    fn kinds_of_new_objects(&self, before: &[Name]) -> Vec<String> {
        let new = self.names().into_iter().filter(|name| !before.contains(name));
        new.map(|name| name.as_str().split('/').nth(2).unwrap_or_default().to_owned()).collect()
    }

    /// How the runs of a machine ended, in no order.
    fn failures(&self) -> Vec<Option<(u8, String)>> {
        let owner = self.owner();
        let runs = self.names().into_iter().filter_map(|name| match name.parsed() {
            Parsed::Run { domain, .. } => Some((name, domain)),
            _ => None,
        });
        runs.map(|(name, domain)| {
            let bytes = self.beside.read(&name, 1 << 20).unwrap();
            let repository = &owner.config.repository_id;
            let envelope = Envelope::parse(&bytes, RecordKind::Run, repository, &domain).unwrap();
            let plain = envelope.open(&Opener::Private(&|epoch| owner.metadata_key(epoch).ok())).unwrap();
            Run::decode(&plain).unwrap().failure
        })
        .collect()
    }
}

/// Does something on another thread, as a hook must.
fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

fn add(owner: &Repository, role: Role, label: &str, domain: Option<&str>) -> Added {
    let domain = domain.map(str::to_owned);
    let options = AddOptions { role, label: label.to_owned(), domain, shared: false, unlock: By::AccessKey };
    key::add(owner, &options).unwrap()
}

fn metadata(size: u64) -> Metadata {
    let time = Timestamp::from_seconds(1_700_000_000);
    Metadata {
        mode: 0o644,
        mtime: time,
        ctime: time,
        inode: 1,
        device_key: 1,
        size,
        ..Metadata::of(EntryKind::File)
    }
}

/// One file with this content.
struct OneFile(Vec<u8>);

impl OneFile {
    fn new(text: &str) -> Self {
        Self(text.repeat(3000).into_bytes())
    }
}

impl Source for OneFile {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let bytes = self.0.clone();
        let entry = Entry {
            path: b"srv".to_vec(),
            metadata: metadata(bytes.len() as u64),
            content: Content::Inline(Vec::new()),
            changed_while_read: false,
            error: None,
        };
        let item = Item::File(entry, Box::new(move || Ok(Box::new(std::io::Cursor::new(bytes)))));
        Ok(Box::new(std::iter::once(Ok(item))))
    }
}

fn stream(text: &str) -> Stream {
    let time = Timestamp::from_seconds(1_700_000_000);
    let file = StreamFile { path: b"dump".to_vec(), uid: 0, gid: 0, time };
    let bytes = text.repeat(3000).into_bytes();
    Stream::of_reader(file, Box::new(std::io::Cursor::new(bytes)), Arc::default()).unwrap()
}

fn back_up(repository: &Repository, source: &mut dyn Source) -> Result<backup::Done> {
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
    backup::run(repository, source, &options)
}

/// A record as its author would write it, or somebody who calls himself so.
fn seal(
    by: &Repository,
    signer: &SigningKey,
    (kind, domain, sequence): (RecordKind, DomainId, u64),
    plain: &[u8],
) -> Vec<u8> {
    let header = EnvelopeHeader {
        kind,
        repository: by.config.repository_id,
        domain,
        author: signer.identity(),
        sequence,
        epoch: 0,
    };
    let key = by.index_key(&domain).unwrap();
    envelope::seal(&header, &Sealer::Symmetric(key.as_bytes()), signer, plain).unwrap()
}

/// Writes a snapshot that says `record`, for an epoch that may not exist.
fn put_snapshot(
    bench: &Bench,
    by: &Repository,
    (sequence, epoch): (u64, u32),
    record: &Snapshot,
) -> ObjectId {
    let domain = by.own_domain().unwrap();
    let header = EnvelopeHeader {
        kind: RecordKind::Snapshot,
        repository: by.config.repository_id,
        domain,
        author: by.identity(),
        sequence,
        epoch,
    };
    let (_, public) = by.metadata_public().unwrap();
    let sealed = envelope::seal(&header, &Sealer::Public(public), by.signer(), &record.encode()).unwrap();
    let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
    bench.beside.create(&Name::snapshot(&domain, &by.identity(), sequence, &id), sealed.into()).unwrap();
    id
}

fn put_tombstones(bench: &Bench, by: &Repository, signer: &SigningKey, (domain, pack): (DomainId, PackId)) {
    let batch = Tombstones { time: Timestamp::from_seconds(1_700_000_000), packs: vec![pack] };
    let sealed = seal(by, signer, (RecordKind::Tombstones, domain, 0), &batch.encode());
    let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
    bench.beside.create(&Name::tombstones(&domain, &id), sealed.into()).unwrap();
}

fn a_pack(repository: &Repository) -> (DomainId, PackId) {
    let domain = repository.own_domain().unwrap();
    let view = repository.view(&domain).unwrap();
    (domain, view.index.packs().find(|pack| pack.kind == PackKind::Data).unwrap().id)
}

fn standing(repository: &Repository, (domain, pack): (DomainId, PackId)) -> Result<Standing> {
    let view = repository.view(&domain)?;
    let standing = view.index.packs().find(|known| known.id == pack).unwrap().standing;
    Ok(standing)
}

fn maintain_certificate(signer: &SigningKey) -> Certificate {
    Certificate {
        identity: signer.identity(),
        verifying_key: signer.verifying_key().to_bytes(),
        role: Role::Maintain,
        label: "host".to_owned(),
        domain: None,
        shared: false,
        created: Timestamp::from_seconds(1_700_000_000),
    }
}

#[test]
fn a_key_that_was_added_while_a_machine_slept_makes_tombstones_that_count() {
    let bench = bench(1);
    let owner = bench.owner();
    let machine = bench.machine(&add(&owner, Role::Backup, "machine", None));
    back_up(&machine, &mut OneFile::new("one ")).unwrap();
    let pack = a_pack(&machine);
    assert_eq!(standing(&machine, pack).unwrap(), Standing::Live);
    let host = bench.machine(&add(&owner, Role::Maintain, "host", None));
    put_tombstones(&bench, &host, host.signer(), pack);
    assert_eq!(standing(&machine, pack).unwrap(), Standing::Tombstoned);
    // What it captures now does not count on that pack.
    let before = bench.names();
    back_up(&machine, &mut OneFile::new("one ")).unwrap();
    assert!(bench.kinds_of_new_objects(&before).contains(&"packs".to_owned()));
}

#[test]
fn a_tombstone_by_an_unknown_key_stops_the_view_until_the_key_is_known() {
    let bench = bench(1);
    let owner = bench.owner();
    let machine = bench.machine(&add(&owner, Role::Backup, "machine", None));
    back_up(&machine, &mut OneFile::new("one ")).unwrap();
    let pack = a_pack(&machine);
    let stranger = SigningKey::generate().unwrap();
    put_tombstones(&bench, &machine, &stranger, pack);
    let error = standing(&machine, pack).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("does not know"), "{error}");
    // Who only reads is told, and goes on.
    let seen = owner.view_to_read(&pack.0).unwrap();
    assert!(seen.damaged.iter().any(|error| error.to_string().contains("does not know")), "{seen:?}");
    // Its certificate arrives after the view has read the registry.
    let (owner, certificate) = (Arc::new(owner), maintain_certificate(&stranger));
    let added = Arc::new(AtomicUsize::new(0));
    bench.hooked.intercept(move |call: &Call| {
        if call.kind == Kind::List
            && call.name.ends_with("/tombstones")
            && added.fetch_add(1, Ordering::SeqCst) == 0
        {
            elsewhere(|| {
                owner.change_registry(&|registry| registry.certificates.push(certificate.clone())).unwrap();
            });
        }
        Fate::Works
    });
    assert_eq!(standing(&machine, pack).unwrap(), Standing::Tombstoned);
}

#[test]
fn a_machine_that_was_revoked_meanwhile_commits_nothing() {
    let bench = bench(1);
    let owner = Arc::new(bench.owner());
    let machine = bench.machine(&add(&owner, Role::Backup, "machine", None));
    back_up(&machine, &mut OneFile::new("one ")).unwrap();
    // Between its packs and its snapshot.
    bench.hooked.intercept(move |call: &Call| {
        if call.kind.is_put() && call.name.contains("/index/") {
            let options = RevokeOptions { who: "machine".to_owned(), last_good: LastGood::Head };
            elsewhere(|| key::revoke(&owner, &options).unwrap());
        }
        Fate::Works
    });
    let before = bench.names();
    let error = back_up(&machine, &mut OneFile::new("two ")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CannotUnlock, "{error}");
    assert!(error.to_string().contains("revoked"), "{error}");
    assert!(!bench.kinds_of_new_objects(&before).contains(&"snapshots".to_owned()));
}

/// A pack goes when its tombstone is older than the grace, and what the revocation does not list is no tombstone.
#[test]
fn an_owner_who_pauses_between_the_records_and_the_registry_revokes_nothing() {
    let bench = bench(1);
    add(&bench.owner(), Role::Maintain, "host", None);
    let owner = open(&bench.store, &Credential::Words(bench.root.words()), &bench.clock, None);
    let clock = Arc::clone(&bench.clock);
    bench.hooked.intercept(move |call: &Call| {
        if call.kind == Kind::List && call.name.ends_with("/tombstones") {
            clock.pass(Duration::from_secs(InitOptions::default().commit_window_seconds));
        }
        Fate::Works
    });
    let options = RevokeOptions { who: "host".to_owned(), last_good: LastGood::Head };
    let before = bench.names();
    let error = key::revoke(&owner, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Temporary, "{error}");
    assert_eq!(bench.names(), before);
    bench.hooked.let_through();
    key::revoke(&owner, &options).unwrap();
    assert_eq!(bench.owner().registry().revocations.len(), 1);
}

#[test]
fn a_view_begins_again_when_an_index_object_was_compacted_meanwhile() {
    let bench = bench(1);
    let owner = Arc::new(bench.owner());
    back_up(&owner, &mut OneFile::new("one ")).unwrap();
    let pack = a_pack(&owner);
    let domain = pack.0;
    let view = owner.view(&domain).unwrap();
    let listed = view.index.packs().map(|known| {
        let directory = view.index.directory(&known).unwrap();
        IndexedPack { id: known.id, size: known.size, kind: known.kind, directory }
    });
    let listed: Vec<IndexedPack> = listed.collect();
    let old = bench.names().into_iter().find(|name| matches!(name.parsed(), Parsed::Index { .. })).unwrap();
    // After the LIST and before the GET: the new one is written, the old one deleted.
    let (reader, compacted) =
        (open(&bench.store, &Credential::Words(bench.root.words()), &bench.clock, None), AtomicUsize::new(0));
    let beside = bench.beside.clone();
    bench.hooked.intercept(move |call: &Call| {
        if call.kind == Kind::Get
            && call.name.contains("/index/")
            && compacted.fetch_add(1, Ordering::SeqCst) == 0
        {
            elsewhere(|| {
                owner.publish_index(&domain, &listed).unwrap();
                beside.delete(&old).unwrap();
            });
        }
        Fate::Works
    });
    assert_eq!(standing(&reader, pack).unwrap(), Standing::Live);
}

#[test]
fn a_stolen_key_cannot_hide_the_snapshots_of_another() {
    let bench = bench(1);
    let owner = bench.owner();
    let [a, b] = ["a", "b"].map(|label| bench.machine(&add(&owner, Role::Backup, label, Some("office"))));
    let good = back_up(&a, &mut OneFile::new("one ")).unwrap().snapshot.unwrap().0;
    let done = back_up(&b, &mut OneFile::new("two ")).unwrap();
    let (second, _) = done.snapshot.unwrap();
    // It replaces what is another's, and of its own what is not just before it.
    let third = put_snapshot(
        &bench,
        &b,
        (2, 1),
        &Snapshot { previous: Some(second), replaces: Some(good), ..done.record.clone() },
    );
    let fourth = put_snapshot(
        &bench,
        &b,
        (3, 1),
        &Snapshot { previous: Some(third), replaces: Some(second), ..done.record },
    );
    let mut ids: Vec<ObjectId> =
        bench.owner().snapshots().unwrap().0.iter().map(|known| known.name.id).collect();
    let mut expected = vec![good, second, third, fourth];
    ids.sort();
    expected.sort();
    assert_eq!(ids, expected);
}

#[test]
fn a_snapshot_for_an_epoch_that_does_not_exist_blocks_no_other() {
    let bench = bench(1);
    let owner = bench.owner();
    let machine = bench.machine(&add(&owner, Role::Backup, "machine", None));
    let done = back_up(&machine, &mut OneFile::new("one ")).unwrap();
    let (good, _) = done.snapshot.unwrap();
    let bad = put_snapshot(&bench, &machine, (2, 999), &Snapshot { previous: Some(good), ..done.record });
    let (known, damaged) = bench.owner().snapshots().unwrap();
    assert_eq!(known.iter().map(|known| known.name.id).collect::<Vec<_>>(), [good]);
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    let text = damaged[0].to_string();
    assert!(text.contains("999") && text.contains(&bad.to_string()), "{text}");
    // The same for sections, and for those who hold no key at all.
    for repository in [&owner, &machine] {
        for error in [repository.data_key(999).unwrap_err(), repository.metadata_key(999).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Damaged);
        }
    }
    assert_eq!(machine.data_key(1).unwrap_err().kind(), ErrorKind::Forbidden);
}

#[test]
fn what_somebody_else_puts_into_a_chain_does_not_stop_it() {
    let bench = bench(1);
    let owner = bench.owner();
    let [added, b] = ["a", "b"].map(|label| add(&owner, Role::Backup, label, Some("office")));
    let (a, b) = (bench.machine(&added), bench.machine(&b));
    let (first, _) = back_up(&a, &mut OneFile::new("one ")).unwrap().snapshot.unwrap();
    back_up(&b, &mut OneFile::new("two ")).unwrap();
    let domain = a.own_domain().unwrap();
    // Signed by b, and a snapshot of a in a place that it was not signed for; and what is no snapshot at all.
    let of = |identity| {
        let mut names = bench.names().into_iter();
        names
            .find(
                |name| matches!(name.parsed(), Parsed::Snapshot { identity: other, .. } if other == identity),
            )
            .unwrap()
    };
    for (sequence, bytes) in [
        (9_999_999_999, bench.beside.read(&of(b.identity()), 1 << 20).unwrap()),
        (9_999_999_998, bench.beside.read(&of(a.identity()), 1 << 20).unwrap()),
        (9_999_999_997, "garbage".into()),
    ] {
        let id = ObjectId::new(*blake3::hash(&bytes).as_bytes());
        bench.beside.create(&Name::snapshot(&domain, &a.identity(), sequence, &id), bytes).unwrap();
    }
    let done = back_up(&a, &mut OneFile::new("three ")).unwrap();
    assert_eq!((done.snapshot.unwrap().1, done.record.previous), (2, Some(first)));
    assert_eq!(done.warnings.len(), 3, "{:?}", done.warnings);
    assert!(done.warnings[0].contains("9999999999"), "{:?}", done.warnings);
    // Bytes that are not those of their name may have been a's own: nobody can tell, so that stops it.
    let name = Name::snapshot(&domain, &a.identity(), 3, &ObjectId::new([1; 32]));
    bench.beside.create(&name, "something".into()).unwrap();
    let error = back_up(&a, &mut OneFile::new("four ")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}

#[test]
fn a_forged_head_does_not_hide_that_the_own_one_is_gone() {
    let bench = bench(1);
    let owner = bench.owner();
    let [a, b] = ["a", "b"].map(|label| bench.machine(&add(&owner, Role::Backup, label, Some("office"))));
    let (first, _) = back_up(&a, &mut OneFile::new("one ")).unwrap().snapshot.unwrap();
    back_up(&b, &mut OneFile::new("two ")).unwrap();
    let snapshots = bench.names().into_iter().filter(|name| matches!(name.parsed(), Parsed::Snapshot { .. }));
    let (own, others): (Vec<Name>, Vec<Name>) =
        snapshots.partition(|name| name.as_str().contains(&first.to_string()));
    let bytes = bench.beside.read(&others[0], 1 << 20).unwrap();
    let id = ObjectId::new(*blake3::hash(&bytes).as_bytes());
    bench.beside.create(&Name::snapshot(&a.own_domain().unwrap(), &a.identity(), 99, &id), bytes).unwrap();
    bench.beside.delete(&own[0]).unwrap();
    let error = back_up(&a, &mut OneFile::new("three ")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("older state"), "{error}");
}

#[test]
fn a_chain_that_was_cut_off_is_noticed_before_anything_is_written() {
    let bench = bench(1);
    let owner = bench.owner();
    let machine = bench.machine(&add(&owner, Role::Backup, "machine", None));
    back_up(&machine, &mut OneFile::new("one ")).unwrap();
    let head =
        bench.names().into_iter().find(|name| matches!(name.parsed(), Parsed::Snapshot { .. })).unwrap();
    bench.beside.delete(&head).unwrap();
    let before = bench.names();
    let error = back_up(&machine, &mut OneFile::new("two ")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    // Only that it failed.
    assert_eq!(bench.kinds_of_new_objects(&before), ["runs"]);
    let failed = bench.failures().into_iter().flatten().collect::<Vec<_>>();
    assert!(failed.len() == 1 && failed[0].0 == 5 && failed[0].1.contains("older state"), "{failed:?}");
}

/// The grace of a new repository; a quarter of it is the longest that an acknowledgement may take.
const GRACE: Duration = Duration::from_hours(72);
/// Its commit window.
const WINDOW: Duration = Duration::from_mins(10);

#[test]
fn a_late_snapshot_that_is_whole_is_a_success_even_of_a_stream() {
    let bench = bench(1);
    let owner = bench.owner();
    let machine = bench.machine(&add(&owner, Role::Backup, "machine", None));
    let clock = Arc::clone(&bench.clock);
    bench.hooked.intercept(move |call: &Call| {
        if call.kind.is_put() && call.name.contains("/snapshots/") {
            clock.pass(GRACE / 2);
        }
        Fate::Works
    });
    let done = back_up(&machine, &mut stream("one ")).unwrap();
    assert_eq!((done.snapshot.unwrap().1, done.record.replaces), (1, None));
    let names = bench.names();
    assert_eq!(names.iter().filter(|name| matches!(name.parsed(), Parsed::Snapshot { .. })).count(), 1);
}

#[test]
fn a_late_snapshot_with_a_gap_is_replaced_and_can_still_be_found() {
    let bench = bench(1);
    let owner = bench.owner();
    let machine = bench.machine(&add(&owner, Role::Backup, "machine", None));
    let (clock, beside, lost) = (Arc::clone(&bench.clock), bench.beside.clone(), AtomicUsize::new(0));
    bench.hooked.intercept(move |call: &Call| {
        if call.kind.is_put() && call.name.contains("/snapshots/") && lost.fetch_add(1, Ordering::SeqCst) == 0
        {
            clock.pass(GRACE / 2);
            elsewhere(|| {
                let listed = beside.list(&Prefix::all()).unwrap();
                let packs = listed.iter().filter(|listed| listed.name.contains("/packs/d/"));
                packs.for_each(|pack| beside.delete(&Name::parse(&pack.name).unwrap()).unwrap());
            });
        }
        Fate::Works
    });
    let done = back_up(&machine, &mut OneFile::new("one ")).unwrap();
    let (id, sequence) = done.snapshot.unwrap();
    assert_eq!(sequence, 2);
    let every = bench.owner().every_snapshot().unwrap();
    let ids = |known: &[lifeboat::repository::snapshots::KnownSnapshot]| {
        known.iter().map(|known| known.name.id).collect::<Vec<_>>()
    };
    assert_eq!((ids(&every.listed), ids(&every.replaced)), (vec![id], vec![done.record.replaces.unwrap()]));
    assert!(every.damaged.is_empty(), "{:?}", every.damaged);
    assert_eq!(every.all().len(), 2);
    assert_eq!(ids(&bench.owner().snapshots().unwrap().0), [id]);
}

/// A hook by which the commit window closes, at the end of each view but the first, so often.
fn close_windows(bench: &Bench, times: usize) {
    let (clock, looks) = (Arc::clone(&bench.clock), AtomicUsize::new(0));
    bench.hooked.intercept(move |call: &Call| {
        if call.kind == Kind::List && call.name.contains("/packs") {
            let look = looks.fetch_add(1, Ordering::SeqCst);
            if (1..=times).contains(&look) {
                clock.pass(WINDOW);
            }
        }
        Fate::Works
    });
}

#[test]
fn when_the_window_closes_only_the_view_is_taken_again() {
    let bench = bench(1);
    let owner = bench.owner();
    let machine = bench.machine(&add(&owner, Role::Backup, "machine", None));
    close_windows(&bench, 2);
    let done = back_up(&machine, &mut stream("one ")).unwrap();
    assert_eq!((done.snapshot.unwrap().1, done.record.replaces), (1, None));
}

#[test]
fn a_commit_that_never_succeeds_is_told_in_a_run_record() {
    let bench = bench(1);
    let owner = bench.owner();
    let machine = bench.machine(&add(&owner, Role::Backup, "machine", None));
    close_windows(&bench, usize::MAX);
    let error = back_up(&machine, &mut OneFile::new("one ")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Temporary);
    let failed: Vec<_> = bench.failures().into_iter().flatten().collect();
    assert_eq!(failed, [(75, error.to_string())]);
    assert!(bench.owner().snapshots().unwrap().0.is_empty());
}

/// A source that breaks, and with it the network.
struct Breaking(Arc<Intercepted>);

impl Source for Breaking {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        self.0.intercept(|_: &Call| Fate::Fails(broken()));
        Err(Error::new(ErrorKind::Failed, "the source broke"))
    }
}

#[test]
fn a_store_that_does_not_answer_is_not_asked_for_long_to_take_the_record_of_a_failure() {
    let bench = bench(1);
    let owner = bench.owner();
    let machine = bench.machine(&add(&owner, Role::Backup, "machine", None));
    let before = bench.clock.elapsed();
    let error = back_up(&machine, &mut Breaking(Arc::clone(&bench.hooked))).unwrap_err();
    assert!(error.to_string().contains("the source broke"), "{error}");
    let waited = bench.clock.elapsed() - before;
    assert!(Duration::ZERO < waited && waited <= Duration::from_secs(5), "{waited:?}");
    bench.hooked.let_through();
}

/// Lets go of something when somebody sleeps, much later.
struct Releasing<T>(Arc<FakeClock>, Mutex<Option<T>>, Duration);

impl<T: Send> Clock for Releasing<T> {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        self.0.sleep(duration);
        if self.1.lock().unwrap().take().is_some() {
            self.0.pass(self.2);
        }
    }
}

#[test]
fn a_probe_does_not_grow_old_while_the_fence_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::parse(folder.path().to_str().unwrap()).unwrap();
    let clock = Arc::<FakeClock>::default();
    let beside = Store::open(&location, options(&clock, 1)).unwrap();
    let root = RootSecret::generate().unwrap();
    Repository::create(&beside, &root, "right", InitOptions::default(), &*clock).unwrap();
    // A prune holds the fence alone; it is done at the first sleep, which is longer than half of the window.
    let fence = beside.fence_exclusive().unwrap().unwrap();
    let releasing: Arc<dyn Clock> =
        Arc::new(Releasing(Arc::clone(&clock), Mutex::new(Some(fence)), WINDOW / 2));
    let store =
        Store::open(&location, StoreOptions { clock: Arc::clone(&releasing), ..options(&clock, 1) }).unwrap();
    let config = Repository::read_config(&store).unwrap();
    let secrets = Repository::unlock(&store, &config, &Credential::Words(root.words())).unwrap();
    let owner = Repository::open(store.clone(), config, secrets, None, releasing).unwrap();
    back_up(&owner, &mut OneFile::new("one ")).unwrap();
    let listed = store.list(&Prefix::all()).unwrap();
    let runs = listed.iter().filter(|listed| listed.name.contains("/runs/")).count();
    assert_eq!(runs, 2, "the probe that was written before the wait was taken for a fresh one");
}

#[test]
fn snapshots_are_read_several_at_a_time_and_in_order() {
    let bench = bench(4);
    let owner = bench.owner();
    for text in ["one ", "two ", "three ", "four ", "five "] {
        back_up(&owner, &mut OneFile::new(text)).unwrap();
    }
    // Whoever reads a snapshot waits until another one does too, but not for ever.
    let (inside, most) = (Arc::new((Mutex::new(0_usize), Condvar::new())), Arc::new(AtomicUsize::new(0)));
    let highest = Arc::clone(&most);
    bench.hooked.intercept(move |call: &Call| {
        if call.kind == Kind::Get && call.name.contains("/snapshots/") {
            let (count, changed) = &*inside;
            let mut count = count.lock().unwrap();
            *count += 1;
            highest.fetch_max(*count, Ordering::SeqCst);
            changed.notify_all();
            let alone = |_: &mut usize| highest.load(Ordering::SeqCst) < 2;
            let (mut count, _) = changed.wait_timeout_while(count, Duration::from_secs(5), alone).unwrap();
            *count -= 1;
        }
        Fate::Works
    });
    let reader = open(&bench.store, &Credential::Words(bench.root.words()), &bench.clock, None);
    let (known, damaged) = reader.snapshots().unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    assert_eq!(known.iter().map(|known| known.name.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(most.load(Ordering::SeqCst) > 1, "one after the other");
}
