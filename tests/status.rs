//! `status`: who backed up when, and who fell silent, by the storage's stamps.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs::{File, FileTimes},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use lifeboat::{
    clock::{Clock, SystemClock, Timestamp},
    compress::Compression,
    crypto::RootSecret,
    error::{ErrorKind, Result},
    filesystem::walk::FilterOptions,
    format::{forgotten::Forgotten, role::Role, snapshot::Run},
    ops::{
        annotate::{self, Chosen},
        backup::{self, BackupOptions, CopyOf, Item, Source, tree::Tree},
        key::{self, AddOptions, Added, By, LastGood, RevokeOptions},
        select::{Filter, Reference},
        status::{self, Client, ClientName, Limits, Status},
    },
    report,
    repository::{InitOptions, Repository, unlock::Credential},
    store::{Location, Name, Parsed, Prefix, Store, StoreOptions},
};

/// A clock that is so many seconds ahead.
struct Shifted(AtomicI64);

impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        let now = SystemClock.now();
        Timestamp { seconds: now.seconds + self.0.load(Ordering::SeqCst), ..now }
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration);
    }
}

struct World {
    folder: tempfile::TempDir,
    root: RootSecret,
    clock: Arc<Shifted>,
}

fn limits(backup: &dyn Fn(&ClientName) -> Option<Duration>) -> Limits<'_> {
    Limits { backup, reading: Duration::from_hours(30 * 24) }
}

impl World {
    fn new() -> Self {
        let (folder, root) = (tempfile::tempdir().unwrap(), RootSecret::generate().unwrap());
        for name in ["repository", "source"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("source/file"), "text").unwrap();
        let world = Self { folder, root, clock: Arc::new(Shifted(AtomicI64::new(0))) };
        let options = InitOptions::default();
        Repository::create(&world.store(), &world.root, "owner", options, &SystemClock).unwrap();
        world
    }

    fn store(&self) -> Store {
        let location = Location::parse(self.folder.path().join("repository").to_str().unwrap()).unwrap();
        let options = StoreOptions {
            connections: 1,
            upload_limit: None,
            download_limit: None,
            retry_for: Duration::ZERO,
            s3: Default::default(),
            clock: Arc::new(SystemClock),
            progress: Arc::default(),
        };
        Store::open(&location, options).unwrap()
    }

    fn open_with(&self, credential: &Credential, cache: Option<&Path>) -> Repository {
        let store = self.store();
        let config = Repository::read_config(&store).unwrap();
        let secrets = Repository::unlock(&store, &config, credential).unwrap();
        Repository::open(store, config, secrets, cache, Arc::<Shifted>::clone(&self.clock)).unwrap()
    }

    fn owner(&self) -> Repository {
        self.open_with(&Credential::Words(self.root.words()), None)
    }

    fn add(&self, role: Role, label: &str, shared: bool) -> Added {
        let options =
            AddOptions { role, label: label.to_owned(), domain: None, shared, unlock: By::AccessKey };
        key::add(&self.owner(), &options).unwrap()
    }

    fn open(&self, added: &Added) -> Repository {
        self.open_with(&Credential::AccessKey(added.access_key.as_ref().unwrap().text()), None)
    }

    fn status(&self) -> Status {
        status::run(&self.owner(), &limits(&|_| Some(Duration::from_hours(26)))).unwrap()
    }

    /// Makes every object of a sort so many hours older for the storage.
    fn age(&self, hours: u64, which: impl Fn(&Parsed) -> bool) {
        for listed in self.store().list(&Prefix::all()).unwrap() {
            if Name::parse(&listed.name).is_some_and(|name| which(&name.parsed())) {
                let path = self.folder.path().join("repository").join(&listed.name);
                let then = SystemTime::now() - Duration::from_hours(hours);
                File::options()
                    .append(true)
                    .open(path)
                    .unwrap()
                    .set_times(FileTimes::new().set_modified(then))
                    .unwrap();
            }
        }
    }
}

fn options(host: &str) -> BackupOptions {
    BackupOptions {
        host: host.to_owned(),
        user: "user".to_owned(),
        tags: Vec::new(),
        sources: vec![b"/source".to_vec()],
        time: None,
        compression: Compression::Auto,
        reuse: backup::Reuse::default(),
        unchanged: backup::Unchanged::Keep,
        mode: backup::Mode::Store,
        program: "test".to_owned(),
        workers: 1,
    }
}

fn back_up(world: &World, repository: &Repository, host: &str, sources: &[&str]) -> Result<backup::Done> {
    let sources: Vec<PathBuf> = sources.iter().map(|source| world.folder.path().join(source)).collect();
    let mut tree = Tree { sources, filter: FilterOptions::default() };
    backup::run(repository, &mut tree, &options(host))
}

/// A source that fails when it is read.
struct Broken;

impl Source for Broken {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        Err(lifeboat::error::Error::new(ErrorKind::Failed, "the source is on fire"))
    }
}

/// A source that is a snapshot, as `rewrite` and `repair` have it.
struct Again(Tree);

impl Source for Again {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        self.0.open()
    }

    fn copy_of(&self) -> Option<CopyOf> {
        Some(CopyOf { origin: None, writer: None, begun: Timestamp::default(), command: "rewrite" })
    }
}

fn of<'a>(status: &'a Status, name: &str) -> &'a Client {
    status.clients.iter().find(|client| report::status::name(&client.name) == name).unwrap()
}

fn names(status: &Status) -> Vec<String> {
    status.clients.iter().map(|client| report::status::name(&client.name)).collect()
}

#[test]
fn who_is_late_who_failed_and_who_never_backed_up_are_told_apart() {
    let world = World::new();
    let [web, mail, _never] = ["web", "mail", "never"].map(|label| world.add(Role::Backup, label, false));
    world.add(Role::Audit, "auditor", false);
    back_up(&world, &world.open(&web), "web", &["source"]).unwrap();
    world.age(27, |name| matches!(name, Parsed::Snapshot { .. }));
    back_up(&world, &world.open(&mail), "mail", &["source"]).unwrap();
    let error = backup::run(&world.open(&web), &mut Broken, &options("web")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    let status = world.status();
    // Whoever reads and never wrote is no client, and an owner who does not back up is none.
    assert_eq!(names(&status), ["mail", "never", "web"]);
    let overdue: Vec<bool> = status.clients.iter().map(|client| client.overdue).collect();
    assert_eq!(overdue, [false, true, true]);
    let web = of(&status, "web");
    let failed = web.failed.as_ref().unwrap();
    assert_eq!((failed.code, failed.message.as_str()), (1, "the source is on fire"));
    assert!(status.age(failed.stored) < Duration::from_hours(1));
    assert_eq!(status.age(web.complete.as_ref().unwrap().stored).as_secs() / 3600, 27);
    assert!(of(&status, "never").last.is_none() && of(&status, "mail").failed.is_none());
    assert!(report::status::headline(&status).starts_with("overdue: never (never), web (1 d 3 h)"));
    // The limit may differ from client to client.
    let patient = |client: &ClientName| (client.label == "web").then(|| Duration::from_hours(48));
    let status = status::run(&world.owner(), &limits(&patient)).unwrap();
    assert!(status.clients.iter().all(|client| !client.overdue), "without a limit nobody is late");
}

#[test]
fn a_run_of_which_nothing_more_was_heard_is_told() {
    let world = World::new();
    let web = world.open(&world.add(Role::Backup, "web", false));
    let unended = || {
        let status = world.status();
        let line = report::status::table(&status, &jiff::tz::TimeZone::UTC).lines(None).remove(1);
        (of(&status, "web").unended().is_some(), line.contains("has not ended"))
    };
    assert_eq!(unended(), (false, false));
    let begins = |failure| {
        let (time, nonce) = (Timestamp::default(), [1; 16]);
        let run = Run { time, host: "web".to_owned(), command: "backup".to_owned(), failure, nonce };
        web.publish_run(&web.own_domain().unwrap(), &run).unwrap();
    };
    begins(None);
    assert_eq!(unended(), (true, true));
    begins(Some((75, "the network is down".to_owned())));
    assert_eq!(unended(), (false, false));
    back_up(&world, &web, "web", &["source"]).unwrap();
    assert_eq!(unended(), (false, false));
    begins(None);
    assert_eq!(unended(), (true, true));
}

#[test]
fn an_incomplete_backup_is_shown_and_is_not_the_last_complete_one() {
    let world = World::new();
    let web = world.open(&world.add(Role::Backup, "web", false));
    let complete = back_up(&world, &web, "web", &["source"]).unwrap();
    world.age(30, |name| matches!(name, Parsed::Snapshot { .. }));
    let partly = back_up(&world, &web, "web", &["source", "gone"]).unwrap();
    assert_eq!(partly.record.unreadable, 1);
    let status = world.status();
    let client = of(&status, "web");
    assert!(client.overdue, "a backup without a source must not reassure anybody");
    assert_eq!(client.complete.as_ref().unwrap().id, complete.snapshot.unwrap().0);
    let last = client.last.as_ref().unwrap();
    assert_eq!((last.id, last.unreadable), (partly.snapshot.unwrap().0, 1));
    // A forgotten snapshot is no backup any more.
    let domain = web.own_domain().unwrap();
    let snapshots = vec![complete.snapshot.unwrap().0];
    let forgotten = Forgotten::new(Timestamp::default(), snapshots, "");
    world.owner().publish_forgotten(&domain, &forgotten).unwrap();
    assert!(of(&world.status(), "web").complete.is_none());
}

#[test]
fn a_copy_of_an_older_snapshot_is_no_backup_of_now() {
    let world = World::new();
    let web = world.open(&world.add(Role::Backup, "web", false));
    back_up(&world, &web, "web", &["source"]).unwrap();
    let complete = back_up(&world, &world.owner(), "desk", &["source"]).unwrap().snapshot.unwrap().0;
    let partly = back_up(&world, &world.owner(), "desk", &["source", "gone"]).unwrap();
    let now = SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let then = i64::try_from(now).unwrap() - 30 * 3600;
    let copy = |host: &str, sources: &[&str], tag: &str| {
        let time = Some(Timestamp::from_seconds(then));
        let again = BackupOptions { tags: vec![tag.to_owned()], time, ..options(host) };
        let sources = sources.iter().map(|source| world.folder.path().join(source)).collect();
        let mut tree = Again(Tree { sources, filter: FilterOptions::default() });
        backup::run(&world.owner(), &mut tree, &again).unwrap().snapshot.unwrap().0
    };
    world.age(29, |name| matches!(name, Parsed::Snapshot { .. }));
    copy("desk", &["source"], "rewritten-0123456789abcdef");
    copy("desk", &["source", "gone"], "repaired-0123456789abcdef");
    copy("web", &["source"], "rewritten-fedcba9876543210");
    // Nor does what he copies of another machine make his own look fresh.
    let boss = world.open(&world.add(Role::Owner, "boss", false));
    back_up(&world, &boss, "office", &["source"]).unwrap();
    world.age(29, |name| matches!(name, Parsed::Snapshot { .. }));
    let time = Some(Timestamp::from_seconds(i64::try_from(now).unwrap() - 3600));
    let tags = vec!["repaired-fedcba9876543210".to_owned()];
    let again = BackupOptions { tags, time, ..options("web") };
    let sources = vec![world.folder.path().join("source")];
    backup::run(&boss, &mut Again(Tree { sources, filter: FilterOptions::default() }), &again).unwrap();
    assert!(of(&world.status(), "boss").overdue);
    let status = world.status();
    assert_eq!(
        names(&status),
        ["boss", "owner@desk", "web"],
        "nobody is a client for having copied what others backed up"
    );
    let owner = of(&status, "owner@desk");
    assert!(owner.overdue, "{owner:?}");
    assert_eq!(owner.complete.as_ref().unwrap().id, complete);
    assert_eq!(owner.last.as_ref().unwrap().id, partly.snapshot.unwrap().0);
    // What was rewritten and has ended is known by its copy, with its age.
    let domain = world.owner().own_domain().unwrap();
    let snapshots = vec![complete, partly.snapshot.unwrap().0];
    let forgotten = Forgotten::new(Timestamp::default(), snapshots, "");
    world.owner().publish_forgotten(&domain, &forgotten).unwrap();
    let status = world.status();
    let owner = of(&status, "owner@desk");
    assert!(owner.overdue && owner.complete.as_ref().unwrap().stored.seconds == then, "{owner:?}");
}

#[test]
fn each_host_of_a_shared_identity_is_a_client() {
    let world = World::new();
    let lab = world.open(&world.add(Role::Backup, "lab", true));
    back_up(&world, &lab, "h1", &["source"]).unwrap();
    world.age(50, |name| matches!(name, Parsed::Snapshot { .. }));
    for _ in 0..3 {
        back_up(&world, &lab, "h2", &["source"]).unwrap();
    }
    back_up(&world, &world.owner(), "desk", &["source"]).unwrap();
    let status = world.status();
    assert_eq!(names(&status), ["lab@h1", "lab@h2", "owner@desk"]);
    assert!(of(&status, "lab@h1").overdue && !of(&status, "lab@h2").overdue);
}

#[test]
fn revoked_identities_are_left_out_and_counted() {
    let world = World::new();
    for label in ["web", "old"] {
        let added = world.add(Role::Backup, label, false);
        back_up(&world, &world.open(&added), label, &["source"]).unwrap();
    }
    let revoke = RevokeOptions { who: "old".to_owned(), last_good: LastGood::Head };
    key::revoke(&world.owner(), &revoke).unwrap();
    let status = world.status();
    assert_eq!((names(&status), status.revoked), (vec!["web".to_owned()], 1));
}

#[test]
fn the_storages_stamps_count_and_no_clock_of_a_client() {
    let world = World::new();
    let web = world.open(&world.add(Role::Backup, "web", false));
    // The client is a year ahead: its backup is as old as the storage says.
    world.clock.0.store(365 * 86_400, Ordering::SeqCst);
    back_up(&world, &web, "web", &["source"]).unwrap();
    world.clock.0.store(0, Ordering::SeqCst);
    world.age(27, |name| matches!(name, Parsed::Snapshot { .. }));
    assert!(of(&world.status(), "web").overdue);
    // The one who looks is days behind: what the storage got last is not later than now.
    world.clock.0.store(-5 * 86_400, Ordering::SeqCst);
    let status = world.status();
    assert!(of(&status, "web").overdue, "{:?}", status.now);
}

#[test]
fn a_mirror_without_the_stamps_of_its_original_is_not_taken_for_backups_of_today() {
    let world = World::new();
    let web = world.open(&world.add(Role::Backup, "web", false));
    let headline = || report::status::headline(&world.status());
    back_up(&world, &web, "web", &["source"]).unwrap();
    assert_eq!(headline(), "nobody is overdue: 1 client");
    // A first backup of three weeks is no copy: it was on record when it began.
    world.clock.0.store(-21 * 86_400, Ordering::SeqCst);
    let slow = world.open(&world.add(Role::Backup, "slow", false));
    back_up(&world, &slow, "slow", &["source"]).unwrap();
    world.clock.0.store(0, Ordering::SeqCst);
    let own = slow.identity();
    world.age(21 * 24, |name| matches!(name, Parsed::Run { identity, .. } if *identity == own));
    assert_eq!(headline(), "nobody is overdue: 2 clients");
    // A copy of today has today's stamps; what machines say of their backups is 40 days old.
    world.clock.0.store(-40 * 86_400, Ordering::SeqCst);
    let old = world.open(&world.add(Role::Backup, "old", false));
    back_up(&world, &old, "old", &["source"]).unwrap();
    world.clock.0.store(0, Ordering::SeqCst);
    assert!(headline().contains("stamps that may be those of a copying"), "{}", headline());
    let status = world.status();
    let table = report::status::table(&status, &jiff::tz::TimeZone::UTC).lines(Some(400)).join("\n");
    assert!(table.contains("made 40 d 0 h before anything of it got here"), "{table}");
}

#[test]
fn nothing_but_heads_and_runs_is_read() {
    let world = World::new();
    let web = world.open(&world.add(Role::Backup, "web", false));
    for _ in 0..3 {
        back_up(&world, &web, "web", &["source"]).unwrap();
    }
    // What must not be asked for is not there to be read.
    let needless = |name: &Parsed| match name {
        Parsed::Pack { .. } | Parsed::Index { .. } => true,
        Parsed::Snapshot { sequence, .. } => *sequence < 3,
        _ => false,
    };
    for listed in world.store().list(&Prefix::all()).unwrap() {
        if Name::parse(&listed.name).is_some_and(|name| needless(&name.parsed())) {
            let path = world.folder.path().join("repository").join(&listed.name);
            std::fs::remove_file(&path).unwrap();
            std::fs::write(path, "damaged").unwrap();
        }
    }
    let status = world.status();
    assert!(status.damaged.is_empty() && !of(&status, "web").overdue, "{:?}", status.damaged);
}

#[test]
fn a_forged_run_or_snapshot_is_told_and_tells_nothing() {
    let world = World::new();
    let web = world.open(&world.add(Role::Backup, "web", false));
    let done = back_up(&world, &web, "web", &["source"]).unwrap();
    let (domain, store) = (web.own_domain().unwrap(), world.store());
    let id = lifeboat::id::ObjectId::new([1; 32]);
    let later = Name::snapshot(&domain, &web.identity(), 2, &id);
    store.create(&later, "nonsense".into()).unwrap();
    store.create(&Name::run(&domain, &web.identity(), &id), "nonsense".into()).unwrap();
    let run = Run {
        time: Timestamp::default(),
        host: "web".to_owned(),
        command: "prune".to_owned(),
        failure: Some((1, "x".to_owned())),
        nonce: [1; 16],
    };
    web.publish_run(&domain, &run).unwrap();
    let status = world.status();
    assert_eq!(status.damaged.len(), 2, "{:?}", status.damaged);
    let client = of(&status, "web");
    assert_eq!(client.complete.as_ref().unwrap().id, done.snapshot.unwrap().0);
    assert!(client.failed.is_none(), "another command than a backup");
}

#[test]
fn a_backup_key_sees_what_its_machine_remembers_and_no_more() {
    let world = World::new();
    let added = world.add(Role::Backup, "web", false);
    let cache = world.folder.path().join("cache");
    let credential = Credential::AccessKey(added.access_key.as_ref().unwrap().text());
    let web = world.open_with(&credential, Some(&cache));
    let done = back_up(&world, &web, "web", &["source"]).unwrap();
    back_up(&world, &web, "web", &["source", "gone"]).unwrap();
    backup::run(&web, &mut Broken, &options("web")).unwrap_err();
    assert_eq!(status::run(&web, &limits(&|_| None)).unwrap_err().kind(), ErrorKind::Forbidden);
    let again = world.open_with(&credential, Some(&cache));
    let past = again.cache.history();
    assert_eq!(past.iter().map(|past| past.code).collect::<Vec<_>>(), [0, 3, 1]);
    assert_eq!(past[0].snapshot, Some(done.snapshot.unwrap().0.to_string()));
    assert_eq!(past[2].message.as_deref(), Some("the source is on fire"));
}

#[test]
fn a_snapshot_that_is_held_counts_though_a_record_has_ended_it_and_the_hold_is_shown() {
    let world = World::new();
    let web = world.open(&world.add(Role::Backup, "web", false));
    let first = back_up(&world, &web, "web1", &["source"]).unwrap().snapshot.unwrap().0;
    let owner = world.owner();
    let which = Chosen { references: vec![Reference::Id(first.to_string())], filter: Filter::default() };
    annotate::place(&owner, &which, "case 7", annotate::Mode::Write).unwrap();
    // As of a `forget` that began before.
    let domain = owner.snapshots().unwrap().0[0].name.domain;
    let forgotten = Forgotten::new(Timestamp::default(), vec![first], "");
    owner.publish_forgotten(&domain, &forgotten).unwrap();
    let status = world.status();
    let held = &status.holds[..];
    assert!(held.len() == 1 && held[0].snapshots == 1 && held[0].hold.reason == "case 7", "{held:?}");
    assert_eq!((held[0].by.as_str(), held[0].domain.as_str()), ("owner", "web"));
    assert_eq!(
        status.clients.iter().find(|client| client.name.label == "web").unwrap().last.as_ref().unwrap().id,
        first
    );
    let line = &report::status::holds(&status, &jiff::tz::TimeZone::UTC)[0];
    assert!(
        line.starts_with("legal hold on 1 snapshot of web since ") && line.ends_with("by owner: case 7"),
        "{line}"
    );
    annotate::lift(&owner, &which, (&[], "over"), annotate::Mode::Write).unwrap();
    let status = world.status();
    assert!(
        status.holds.is_empty() && status.clients.iter().all(|client| client.last.is_none()),
        "{status:?}"
    );
}
