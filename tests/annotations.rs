//! What is said of snapshots later: tags and legal holds. Who may say it, how it comes together, and that nothing of it
//! makes a snapshot end sooner than whoever may delete wants it.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use lifeboat::{
    clock::{SystemClock, Timestamp},
    error::{ErrorKind, Result},
    format::{
        annotation::{Annotation, LATEST, Says, TagChange},
        envelope::{self, EnvelopeHeader, RecordKind, Sealer},
        forgotten::Forgotten,
        role::Role,
    },
    id::ObjectId,
    ops::{
        annotate::{self, Chosen},
        forget::{self, ForgetOptions, MassRemoval, Which},
        key::{self, LastGood, RevokeOptions},
        repair::{self, AsideOptions, Force},
        select::{Filter, Reference},
    },
    repository::{Repository, snapshots::KnownSnapshot, unlock::Credential},
    store::{Folder, Name, Prefix},
};
use serde_json::Value;

mod support {
    pub(crate) mod intercepted;
    pub(crate) mod lab;
    pub(crate) mod ram;
    pub(crate) mod world;
}
use support::{
    intercepted::{Call, Fate, Intercepted, Kind},
    lab::{self, Files},
    ram::{Ram, store_of},
    world::{World, objects},
};

/// Three snapshots of one client, with the tags a, b and c.
fn world() -> (World, Vec<String>) {
    let world = World::with_repository();
    for tag in ["a", "b", "c"] {
        fs::write(world.path("src/one"), tag).unwrap();
        world.does(&["backup", "--tag", tag, &world.text("src")]);
    }
    let ids = listed(&world).iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect();
    (world, ids)
}

fn listed(world: &World) -> Vec<Value> {
    let mut messages = world.messages(&["snapshots"]);
    messages.retain(|message| message["message_type"] == "snapshot");
    messages
}

fn tags(world: &World) -> Vec<String> {
    let joined = |message: &Value| {
        let tags = message["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap());
        tags.collect::<Vec<_>>().join(",")
    };
    listed(world).iter().map(joined).collect()
}

#[test]
fn tags_change_and_every_list_filter_and_rule_goes_by_them() {
    let (world, ids) = world();
    let snapshots = || {
        let all = support::world::tree(&world.path("repo")).into_iter();
        all.filter(|(path, _)| path.to_str().unwrap().contains("/snapshots/")).collect::<Vec<_>>()
    };
    let (before, whole) = (snapshots(), support::world::tree(&world.path("repo")));
    let planned = world.messages(&["tag", "latest~2", "--add", "keep,me", "--remove", "a", "--dry-run"]);
    assert_eq!(support::world::tree(&world.path("repo")), whole, "a dry run writes nothing");
    let done = world.messages(&["tag", "latest~2", "--add", "keep,me", "--remove", "a"]);
    assert_eq!(planned[0], done[0]);
    assert_eq!((&done[0]["tags_before"][0], &done[0]["tags"][0]), (&"a".into(), &"keep".into()));
    assert_eq!(tags(&world), ["keep,me", "b", "c"]);
    assert_eq!(snapshots(), before, "no snapshot is another now");
    // The last word counts, and all that pass a filter are meant where none is named.
    world.does(&["tag", "--tag", "b", "--tag", "c", "--set", "nightly"]);
    world.does(&["tag", ids[2].get(..10).unwrap(), "--add", "x,x", "--add", "nightly"]);
    assert_eq!(tags(&world), ["keep,me", "nightly", "nightly,x"]);
    assert_eq!(world.messages(&["snapshots", "--tag", "keep,me"]).len(), 2);
    world.does(&["restore", "latest", "--tag", "keep", "--target", &world.text("out")]);
    let restored = world.path("out").join(world.path("src/one").strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(restored).unwrap(), "a");
    let done = world.messages(&["forget", "--keep-tag", "keep", "--keep-last", "1", "--group-by", "host"]);
    assert_eq!(done.last().unwrap()["forgotten"], 1, "{done:?}");
    assert_eq!(tags(&world), ["keep,me", "nightly,x"]);
    world.does(&["tag", "latest", "--set", ""]);
    assert_eq!(tags(&world), ["keep,me", ""]);
    let nothing = world.messages(&["tag", "latest~1", "--add", "me"]);
    assert_eq!((&nothing[0]["changed"], &nothing[0]["unchanged"]), (&0.into(), &1.into()));
    world.does(&["check", "--read-data"]);
}

#[test]
fn what_is_mistyped_changes_no_tag_and_places_no_hold() {
    let (world, _) = world();
    let long = "x".repeat(300);
    let host = listed(&world)[0]["host"].as_str().unwrap().to_owned();
    let wrong: [&[&str]; 18] = [
        &["hold", "place", "--host", &host, "--host", "typo", "--reason", "case"],
        &["hold", "place", "latest", "--tag", "c", "--tag", "typo", "--reason", "case"],
        &["hold", "place", "--tag", "a", "--path", "/no/such", "--reason", "case"],
        &["tag", "--tag", "a", "--tag", "nigthly", "--add", "x"],
        &["rewrite", "--tag", "a", "--tag", "typo", "--exclude", "one"],
        &["tag", "latest"],
        &["tag", "--add", "x"],
        &["tag", "--host", "", "--add", "x"],
        &["tag", "--tag", "nigthly", "--add", "x"],
        &["tag", "latest", "--remove", "d"],
        &["tag", "latest", "--add", &long],
        &["tag", "newest", "--add", "x"],
        &["hold", "place", "latest"],
        &["hold", "place", "latest", "--reason", " "],
        &["hold", "place", "--reason", "case"],
        &["hold", "place", "latest", "--reason", &"x".repeat(1025)],
        &["hold", "lift", "latest", "--reason", "over"],
        &["hold", "list", "--host", ""],
    ];
    for arguments in wrong {
        assert!(!world.fails(arguments, 2).is_empty());
    }
    world.fails(&["tag", "00000000", "--add", "x"], 1);
    assert_eq!(tags(&world), ["a", "b", "c"]);
    let annotations =
        |(path, _): &(std::path::PathBuf, Vec<u8>)| path.to_str().unwrap().contains("/annotations/");
    assert!(!support::world::tree(&world.path("repo")).iter().any(annotations));
    // A snapshot has so many tags and no more, and no text that is longer than any may be.
    let tag = |number: usize| format!("t{number}");
    let list = |from: usize, to: usize| (from..to).map(tag).collect::<Vec<_>>().join(",");
    let (host, over) = ("x".repeat(1025), list(0, 1025));
    for arguments in [&["backup", "src", "--tag", over.as_str()][..], &["backup", "src", "--host", &host]] {
        assert!(world.fails(arguments, 2).contains("at most 1024"));
    }
    for from in (0..1000).step_by(200) {
        world.does(&["tag", "latest~2", "--add", &list(from, from + 200)]);
    }
    world.does(&["tag", "latest~2", "--add", &list(1000, 1023)]);
    assert!(world.fails(&["tag", "latest~2", "--add", "one,more"], 2).contains("at most 1024 tags"));
    assert!(world.fails(&["rewrite", "latest~2", "--exclude", "one"], 2).contains("at most 1024 tags"));
    world.does(&["tag", "latest~2", "--set", "a"]);
    assert_eq!(tags(&world), ["a", "b", "c"]);
}

#[test]
fn who_writes_the_reason_of_a_hold_writes_nothing_else_on_a_terminal() {
    let (world, ids) = world();
    world.does(&["hold", "place", "latest~2", "--reason", "a\nb\u{1b}[31mred"]);
    let said = world.fails(&["forget", &ids[0], "--allow-mass-removal"], 1);
    for shown in [world.does(&["forget", "--keep-last", "1", "--dry-run"]), said] {
        assert!(shown.contains("red") && !shown.contains('\u{1b}') && !shown.contains("a\nb"), "{shown}");
    }
}

#[test]
fn what_is_held_stays_whatever_a_rule_or_a_person_says_until_the_hold_is_lifted() {
    let (world, ids) = world();
    world.does(&["hold", "place", "latest~2", "--reason", "case 17", "--dry-run"]);
    assert!(world.does(&["hold", "list"]).contains("0 snapshots held"));
    world.does(&["hold", "place", "latest~2", "--reason", "case 17"]);
    let of_first =
        |messages: &[Value]| messages.iter().find(|message| message["id"] == ids[0].as_str()).cloned();
    let shown = of_first(&listed(&world)).unwrap();
    assert_eq!(shown["holds"][0]["reason"], "case 17");
    assert!(world.does(&["snapshots"]).contains("(held)"));
    let done = world.messages(&["forget", "--keep-last", "1"]);
    let verdict = of_first(&done).unwrap();
    assert_eq!((&verdict["kept"], &verdict["reasons"][0]), (&true.into(), &"held: case 17".into()));
    assert_eq!(tags(&world), ["a", "c"]);
    let said = world.fails(&["forget", &ids[0], "--allow-mass-removal"], 1);
    assert!(
        said.contains("legal hold since 20") && said.contains("case 17") && said.contains("hold lift"),
        "{said}"
    );
    let planned = world.messages(&["forget", &ids[0], "--dry-run"]);
    assert_eq!(of_first(&planned).unwrap()["kept"], true);
    // A second hold, for another reason: one that is over says nothing of the other.
    world.does(&["hold", "place", &ids[0], "--reason", "audit"]);
    let holds = world.messages(&["hold", "list"]);
    let id_of = |reason: &str| {
        let hold = holds.iter().find(|message| message["reason"] == reason).unwrap();
        hold["hold"].as_str().unwrap().to_owned()
    };
    assert_eq!((&holds[0]["by"], holds.len()), (&"owner".into(), 3));
    let said = world.fails(&["hold", "lift", &ids[0], "--reason", "over"], 2);
    assert!(said.contains("2 legal holds"), "{said}");
    world.does(&["hold", "lift", &ids[0], "--hold", &id_of("audit"), "--reason", "over"]);
    world.fails(&["forget", &ids[0], "--allow-mass-removal"], 1);
    world.does(&["hold", "lift", &ids[0], "--reason", "over"]);
    world.does(&["forget", &ids[0], "--allow-mass-removal"]);
    assert_eq!(tags(&world), ["c"]);
    world.does(&["check"]);
}

#[test]
fn the_key_of_each_role_says_what_it_may_and_nothing_else() {
    let (world, _) = world();
    // Change tags, place a hold, lift one.
    let table = [
        ("backup", [13, 13, 13]),
        ("audit", [13, 13, 13]),
        ("maintain", [0, 0, 13]),
        ("restore", [13, 0, 13]),
        ("owner", [0, 0, 0]),
    ];
    for (role, codes) in table {
        let key = world.text(role);
        world.does(&[
            "key",
            "add",
            "--role",
            role,
            "--label",
            &format!("a {role}"),
            "--access-key-out",
            &key,
        ]);
        world.does(&["hold", "place", "latest", "--reason", role]);
        let holds = world.messages(&["hold", "list"]);
        let hold = holds.iter().find(|message| message["reason"] == role).unwrap()["hold"].clone();
        let hold = hold.as_str().unwrap();
        for (arguments, code) in [
            (&["tag", "latest", "--add", role][..], codes[0]),
            (&["hold", "place", "latest~1", "--reason", role], codes[1]),
            (&["hold", "lift", "latest", "--hold", hold, "--reason", role], codes[2]),
        ] {
            let mut command = world.bare(&[arguments, &["--json", "--access-key-file", &key]].concat());
            command.env("LIFEBOAT_REPOSITORY", world.path("repo"));
            objects(&world.ends(&mut command, code).0);
        }
    }
    let by: Vec<Value> =
        world.messages(&["hold", "list"]).into_iter().map(|hold| hold["by"].clone()).collect();
    assert!(by.contains(&"a restore".into()) && by.contains(&"a maintain".into()), "{by:?}");
}

/// A repository in memory.
struct Scene {
    ram: Ram,
    /// The oldest first.
    ids: Vec<ObjectId>,
}

impl std::ops::Deref for Scene {
    type Target = Ram;

    fn deref(&self) -> &Ram {
        &self.ram
    }
}

impl Scene {
    fn new() -> Self {
        let ram = Ram::new();
        let back_up = |content: &str| {
            let files = Files::from([("srv/file".to_owned(), content.as_bytes().to_vec())]);
            lab::back_up(&ram.owner(), &files).unwrap().snapshot.unwrap().0
        };
        let ids = ["one", "two", "three"].into_iter().map(back_up).collect();
        Self { ram, ids }
    }

    /// The same, which goes its own way from here on.
    fn fork(&self) -> Self {
        Self { ram: self.ram.fork(), ids: self.ids.clone() }
    }

    fn key(&self, role: Role) -> Arc<Repository> {
        self.add_key(role, &format!("a {}", role.name()))
    }

    /// Whatever the role of the signer.
    fn forge(&self, signer: &Repository, says: Says) -> Name {
        self.put(
            signer,
            &Annotation { time: Timestamp::from_seconds(1), snapshots: self.ids.clone(), says }.encode(),
        )
    }

    fn put(&self, signer: &Repository, plain: &[u8]) -> Name {
        let owner = self.owner();
        let (domain, (epoch, public)) = (owner.own_domain().unwrap(), owner.metadata_public().unwrap());
        let header = EnvelopeHeader {
            kind: RecordKind::Annotation,
            repository: owner.config.repository_id,
            domain,
            author: signer.identity(),
            sequence: 0,
            epoch,
        };
        let sealed = envelope::seal(&header, &Sealer::Public(public), signer.signer(), plain).unwrap();
        let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
        let name = Name::record(&domain, Folder::Annotations, &id);
        self.store().create(&name, Bytes::from(sealed)).unwrap();
        name
    }

    fn known(&self) -> (Vec<KnownSnapshot>, Vec<String>) {
        let (known, damaged) = self.owner().snapshots().unwrap();
        (known, damaged.iter().map(ToString::to_string).collect())
    }

    fn end(&self, snapshot: ObjectId) -> Result<forget::ForgetDone> {
        end(&self.owner(), snapshot)
    }

    /// Writes that it ends, as a `forget` does before it deletes.
    fn write_end(&self, who: &Repository, snapshot: ObjectId) {
        let forgotten = Forgotten::new(Timestamp::default(), vec![snapshot], "");
        who.publish_forgotten(&self.owner().own_domain().unwrap(), &forgotten).unwrap();
    }

    fn is_there(&self, snapshot: ObjectId) -> bool {
        let owner = self.owner();
        let names = owner.snapshot_names(&owner.own_domain().unwrap(), None).unwrap();
        names.iter().any(|name| name.id == snapshot)
    }
}

fn end(repository: &Repository, snapshot: ObjectId) -> Result<forget::ForgetDone> {
    let options = ForgetOptions {
        which: Which::Named(vec![snapshot.to_string()]),
        floor: 1,
        mass_removal: MassRemoval::Allow,
        zone: jiff::tz::TimeZone::UTC,
        mode: forget::Mode::Write,
    };
    forget::run(repository, &options)
}

fn one(snapshot: ObjectId) -> Chosen {
    Chosen { references: vec![Reference::Id(snapshot.to_string())], filter: Filter::default() }
}

fn hold(repository: &Repository, snapshot: ObjectId) -> Result<annotate::Placed> {
    annotate::place(repository, &one(snapshot), "a case", annotate::Mode::Write)
}

#[test]
fn what_is_said_by_those_who_may_not_changes_nothing_and_is_reported() {
    let scene = Scene::new();
    let first = scene.ids[0];
    hold(&scene.owner(), first).unwrap();
    let holds: Vec<ObjectId> = scene.known().0[0].holds.iter().map(|hold| hold.id).collect();
    let change = TagChange { set: Some(vec!["forged".to_owned()]), ..TagChange::default() };
    let lift = || Says::Lift(holds.clone(), "over".to_owned());
    let mut forged = Vec::new();
    for role in [Role::Backup, Role::Audit, Role::Restore, Role::Maintain] {
        let it = scene.key(role);
        forged.push(scene.forge(&it, lift()));
        if role != Role::Maintain {
            forged.push(scene.forge(&it, Says::Tags(change.clone())));
        }
        if matches!(role, Role::Backup | Role::Audit) {
            forged.push(scene.forge(&it, Says::Hold("forged".to_owned())));
        }
    }
    let (known, damaged) = scene.known();
    assert!(known.iter().all(|known| known.tags.is_empty()), "{known:?}");
    assert_eq!(known.iter().map(|known| known.holds.len()).collect::<Vec<_>>(), [1, 0, 0]);
    assert_eq!(damaged.len(), forged.len(), "{damaged:?}");
    for name in &forged {
        assert!(
            damaged.iter().any(|error| error.contains(name.as_str()) && error.contains("may not")),
            "{name}"
        );
    }
    assert_eq!(scene.end(first).unwrap_err().kind(), ErrorKind::Failed);
    assert!(scene.is_there(first));
    // They keep nobody from forgetting what is not held.
    scene.end(scene.ids[1]).unwrap();
    // The test can fail: what an owner says counts.
    scene.forge(&scene.owner(), lift());
    scene.end(first).unwrap();
    assert!(!scene.is_there(first));
}

#[test]
fn the_order_is_that_in_which_it_was_said_whatever_the_clocks_are() {
    struct Wrong(i64);
    impl lifeboat::clock::Clock for Wrong {
        fn now(&self) -> Timestamp {
            Timestamp::from_seconds(self.0)
        }
        fn elapsed(&self) -> std::time::Duration {
            SystemClock.elapsed()
        }
        fn sleep(&self, _: std::time::Duration) {}
    }
    let scene = Scene::new();
    let at = |seconds| {
        let store = scene.store();
        let config = Repository::read_config(&store).unwrap();
        let words = Credential::Words(scene.root.words());
        let secrets = Repository::unlock(&store, &config, &words).unwrap();
        Repository::open(store, config, secrets, None, Arc::new(Wrong(seconds))).unwrap()
    };
    let far = 200_000_000_000;
    for (seconds, tag) in [(far, "first"), (5, "second"), (1_700_000_000, "third"), (-10, "last")] {
        let change = TagChange { set: Some(vec![tag.to_owned()]), ..TagChange::default() };
        annotate::tag(&at(seconds), &one(scene.ids[0]), &change, annotate::Mode::Write).unwrap();
        assert_eq!(scene.known().0[0].tags, [tag]);
    }
    // A hold that is placed again is not lifted with the one before, whose end has a later time.
    hold(&at(far), scene.ids[0]).unwrap();
    let over = |seconds| {
        annotate::lift(&at(seconds), &one(scene.ids[0]), (&[], "over"), annotate::Mode::Write).unwrap();
    };
    over(far);
    hold(&at(0), scene.ids[0]).unwrap();
    assert_eq!(scene.known().0[0].holds.len(), 1);
    over(-1);
    assert_eq!(scene.known().0[0].holds.len(), 0);
}

/// A thief of a maintain key may say that what he says is of the end of time.
#[test]
fn behind_the_last_moment_that_there_is_holds_are_placed_and_lifted_as_before() {
    let scene = Scene::new();
    let (thief, first) = (scene.key(Role::Maintain), scene.ids[0]);
    let change = TagChange { set: Some(vec!["the last word".to_owned()]), ..TagChange::default() };
    let last = Annotation { time: LATEST, snapshots: scene.ids.clone(), says: Says::Tags(change) };
    scene.put(&thief, &last.encode());
    assert_eq!(scene.known().0[0].tags, ["the last word"]);
    hold(&scene.owner(), first).unwrap();
    assert_eq!(scene.known().0[0].holds.len(), 1);
    assert_eq!(scene.end(first).unwrap_err().kind(), ErrorKind::Failed);
    let mine = TagChange { set: Some(vec!["mine".to_owned()]), ..TagChange::default() };
    annotate::tag(&scene.owner(), &one(first), &mine, annotate::Mode::Write).unwrap();
    assert_eq!(scene.known().0[0].tags.len(), 1, "one of the two");
    annotate::lift(&scene.owner(), &one(first), (&[], "over"), annotate::Mode::Write).unwrap();
    assert_eq!(scene.known().1, Vec::<String>::new());
    scene.end(first).unwrap();
    assert!(!scene.is_there(first));
}

/// Whoever may write there and nothing else can make every look longer, and no look wrong.
#[test]
fn annotations_without_end_cost_a_request_each_and_change_nothing() {
    const MANY: usize = 60;
    let scene = Scene::new();
    hold(&scene.owner(), scene.ids[0]).unwrap();
    let holds = vec![scene.known().0[0].holds[0].id];
    let thief = scene.key(Role::Backup);
    for number in 0..MANY {
        let says = match number % 3 {
            0 => Says::Lift(holds.clone(), number.to_string()),
            1 => Says::Hold(number.to_string()),
            _ => Says::Tags(TagChange { add: vec![number.to_string()], ..TagChange::default() }),
        };
        scene.forge(&thief, says);
    }
    let requests = |cache: &std::path::Path| {
        let watched = scene.watched();
        let store = store_of(Arc::<Intercepted>::clone(&watched));
        let words = Credential::Words(scene.root.words());
        let owner = lab::open_with(&store, &words, Some(cache)).unwrap();
        let (known, damaged) = owner.snapshots().unwrap();
        assert_eq!(known.iter().map(|known| known.holds.len()).collect::<Vec<_>>(), [1, 0, 0]);
        assert!(known.iter().all(|known| known.tags.is_empty()));
        assert_eq!(damaged.len(), MANY);
        watched.calls().iter().filter(|call| call.name.contains("/annotations/")).count()
    };
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(requests(cache.path()), MANY + 1);
    assert_eq!(requests(cache.path()), 0, "each once");
    scene.end(scene.ids[1]).unwrap();
    assert_eq!(scene.end(scene.ids[0]).unwrap_err().kind(), ErrorKind::Failed);
}

#[test]
fn an_annotation_that_cannot_be_read_ends_nothing_until_it_is_set_aside() {
    let damage: [fn(&Scene) -> Name; 3] = [
        // Other bytes than its name says.
        |scene| {
            hold(&scene.owner(), scene.ids[0]).unwrap();
            let store = scene.store();
            let listed =
                store.list(&Prefix::records(&scene.owner().own_domain().unwrap(), Folder::Annotations));
            let name = Name::parse(&listed.unwrap()[0].name).unwrap();
            let mut bytes = store.read(&name, 1 << 20).unwrap().to_vec();
            bytes[1300] ^= 1;
            store.delete(&name).unwrap();
            store.create(&name, Bytes::from(bytes)).unwrap();
            name
        },
        // What a later program says, that nobody may skip.
        |scene| scene.put(&scene.owner(), &[0xa1, 0x20, 0x00]),
        // Well signed, by somebody whom no registry knows.
        |scene| {
            let stranger = Scene { ids: Vec::new(), ..Scene::new() };
            scene.put(
                &stranger.owner(),
                &Annotation {
                    time: Timestamp::default(),
                    snapshots: scene.ids.clone(),
                    says: Says::Hold("who".to_owned()),
                }
                .encode(),
            )
        },
    ];
    let all = Scene::new();
    for damage in damage {
        let scene = all.fork();
        let name = damage(&scene);
        let error = scene.end(scene.ids[0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains(name.as_str()), "{error}");
        assert!(error.remedy().unwrap().contains("repair quarantine"), "{error:?}");
        assert!(scene.is_there(scene.ids[0]));
        // Not even what a record has ended already, by a `forget` or by a prune.
        scene.write_end(&scene.owner(), scene.ids[1]);
        assert!(scene.end(scene.ids[0]).is_err());
        let pruned = lifeboat::ops::prune::run(&scene.owner(), &Default::default()).unwrap();
        assert_eq!(pruned.domains[0].refused.as_ref().unwrap().kind(), ErrorKind::Damaged);
        assert!(scene.is_there(scene.ids[1]));
        // Whoever only reads is told, and goes on.
        let (known, damaged) = scene.known();
        assert_eq!(known.len(), 2);
        assert!(damaged.iter().any(|error| error.contains(name.as_str())), "{damaged:?}");
        let aside = AsideOptions {
            names: vec![name.to_string()],
            reason: None,
            force: Force::No,
            mode: repair::Mode::Write,
        };
        let verdicts = repair::set_aside(&scene.owner(), &aside).unwrap();
        let effect = verdicts[0].effect;
        assert!(
            effect.contains("it may be a legal hold") && effect.contains("lifeboat hold place"),
            "{effect}"
        );
        scene.end(scene.ids[0]).unwrap();
        assert!(!scene.is_there(scene.ids[0]) && !scene.is_there(scene.ids[1]));
        assert_eq!(scene.known().1, Vec::<String>::new());
    }
}

#[test]
fn an_annotation_that_counts_is_not_set_aside() {
    let scene = Scene::new();
    let placed = hold(&scene.owner(), scene.ids[0]).unwrap();
    assert!(placed.ended.is_empty());
    let id = scene.known().0[0].holds[0].id;
    let name = Name::record(&scene.owner().own_domain().unwrap(), Folder::Annotations, &id).to_string();
    for force in [Force::No, Force::Yes] {
        let aside =
            AsideOptions { names: vec![name.clone()], reason: None, force, mode: repair::Mode::Write };
        assert_eq!(repair::set_aside(&scene.owner(), &aside).unwrap_err().kind(), ErrorKind::Usage);
    }
}

#[test]
fn a_snapshot_that_is_held_does_not_end_by_a_record_either() {
    let scene = Scene::new();
    hold(&scene.owner(), scene.ids[0]).unwrap();
    scene.write_end(&scene.owner(), scene.ids[0]);
    assert_eq!(scene.known().0.len(), 3, "it is still listed");
    scene.end(scene.ids[1]).unwrap();
    assert!(scene.is_there(scene.ids[0]), "the next forget does not finish it");
    lifeboat::ops::prune::run(&scene.owner(), &Default::default()).unwrap();
    assert!(scene.is_there(scene.ids[0]), "nor does a prune");
    assert_eq!(lab::check_all(&scene.owner()).unwrap().problems, []);
    annotate::lift(&scene.owner(), &one(scene.ids[0]), (&[], "over"), annotate::Mode::Write).unwrap();
    assert_eq!(scene.known().0.len(), 1, "the record counts again");
    lifeboat::ops::prune::run(&scene.owner(), &Default::default()).unwrap();
    assert!(!scene.is_there(scene.ids[0]));
}

#[test]
fn a_hold_that_could_not_be_read_when_its_key_was_revoked_counts_when_it_can_be_again() {
    let scene = Scene::new();
    hold(&scene.key(Role::Restore), scene.ids[0]).unwrap();
    let name = scene.names("/annotations/").remove(0);
    let good = scene.bytes(&name);
    scene.flip(&name, good.len() / 2);
    let options = RevokeOptions { who: "a restore".to_owned(), last_good: LastGood::Head };
    key::revoke(&scene.owner(), &options).unwrap();
    scene.ram.put(&name, good);
    assert_eq!(scene.known().0[0].holds.len(), 1);
    assert_eq!(scene.end(scene.ids[0]).unwrap_err().kind(), ErrorKind::Failed);
}

/// A `forget` writes what ends and then looks for holds; whoever places one writes it and then looks for what ended.
#[test]
fn whenever_a_hold_comes_while_a_snapshot_is_forgotten_one_sees_the_other() {
    let (mut kept, mut warned, mut refused) = (0, 0, 0);
    let all = Scene::new();
    for number in 0.. {
        let scene = Arc::new(all.fork());
        let first = scene.ids[0];
        let placed: Arc<std::sync::Mutex<Option<Result<annotate::Placed>>>> = Arc::default();
        let (inner, answer) = (Arc::clone(&scene), Arc::clone(&placed));
        let watched = scene.watched();
        let repository = scene.over(&watched).unwrap();
        watched.intercept(move |call: &Call| {
            if call.number == number {
                let (scene, answer) = (Arc::clone(&inner), Arc::clone(&answer));
                let work = std::thread::spawn(move || {
                    let result = hold(&scene.owner(), first);
                    *answer.lock().unwrap() = Some(result);
                });
                work.join().unwrap();
            }
            Fate::Works
        });
        let forgotten = end(&repository, first);
        let deleted = watched.calls().iter().any(|call| call.kind == Kind::Delete);
        let Some(placed) = placed.lock().unwrap().take() else { break };
        match placed {
            // It was promised, so it stays.
            Ok(placed) if placed.ended.is_empty() => {
                assert!(scene.is_there(first) && !deleted, "at call {number}: {forgotten:?}");
                assert_eq!(scene.known().0[0].holds.len(), 1);
                kept += 1;
            }
            Ok(_) => {
                assert_eq!(scene.is_there(first), !deleted);
                warned += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(kept > 3 && refused > 1, "{kept} {warned} {refused}");
}

/// The mirror image: in each call of whoever places a hold somebody forgets the snapshot, whole or until the record is there,
/// with the owner's key or one that was added just now.
#[test]
fn whenever_a_snapshot_is_forgotten_while_a_hold_is_placed_one_sees_the_other() {
    let all = Scene::new();
    for (whole, new_key) in [(true, false), (true, true), (false, false), (false, true)] {
        let (mut kept, mut warned, mut refused) = (0, 0, 0);
        for number in 0.. {
            let scene = Arc::new(all.fork());
            let first = scene.ids[0];
            let (inner, began) = (Arc::clone(&scene), Arc::new(AtomicBool::new(false)));
            let watched = scene.watched();
            let repository = scene.over(&watched).unwrap();
            let begins = Arc::clone(&began);
            watched.intercept(move |call: &Call| {
                if call.number == number {
                    begins.store(true, Ordering::SeqCst);
                    std::thread::scope(|scope| {
                        scope.spawn(|| {
                            let who = if new_key { inner.key(Role::Maintain) } else { inner.owner() };
                            if whole { drop(end(&who, first)) } else { inner.write_end(&who, first) }
                        });
                    });
                }
                Fate::Works
            });
            let placed = hold(&repository, first);
            if !began.load(Ordering::SeqCst) {
                break;
            }
            match placed {
                // It was promised, so it stays.
                Ok(placed) => {
                    assert!(scene.is_there(first), "at call {number}, {whole} {new_key}");
                    assert_eq!(scene.known().0[0].holds.len(), 1);
                    if placed.ended.is_empty() { kept += 1 } else { warned += 1 }
                }
                Err(_) => refused += 1,
            }
        }
        let seen = if whole { kept > 1 } else { warned > 1 };
        assert!(seen && refused > 1, "{whole} {new_key}: {kept} {warned} {refused}");
    }
}
