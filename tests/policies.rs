//! The storage policy that `key add` prints, on a server that judges by it: each role does its work with it, and what
//! it must not do is refused.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use lifeboat::{
    clock::{Clock, SystemClock},
    format::role::Role,
    id::{DomainId, IdentityId},
    ops::{
        key::{self, PolicyOptions},
        prune::{self, PruneOptions},
    },
    repository::{Repository, unlock::Credential},
    store::{Folder, Name, Store, StoreOptions},
};
use object_store::{
    ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    local::LocalFileSystem,
    memory::InMemory,
    path::Path,
};
use serde_json::Value;
use tokio::runtime::Runtime;

mod support {
    pub(crate) mod ago;
    pub(crate) mod guard;
    pub(crate) mod service;
    #[expect(dead_code, reason = "others let everybody do everything")]
    pub(crate) mod tcp;
}
use support::{
    ago::Ago,
    guard::Guard,
    service::{self, BUCKET, KEY, SECRET},
    tcp::Server,
};

/// Two clients with domains of their own, and one of each other role.
const PEOPLE: [(&str, &str); 6] = [
    ("web", "backup"),
    ("mail", "backup"),
    ("auditor", "audit"),
    ("keeper", "maintain"),
    ("tech", "restore"),
    ("boss", "owner"),
];
const PREFIX: &str = "some/prefix";

fn options(clock: Arc<dyn Clock>) -> StoreOptions {
    StoreOptions {
        connections: 1,
        upload_limit: None,
        download_limit: None,
        retry_for: Duration::ZERO,
        s3: Default::default(),
        clock,
        progress: Arc::default(),
    }
}

struct World {
    folder: tempfile::TempDir,
    guard: Guard,
    server: Server,
    runtime: Runtime,
    /// Of the clients.
    domains: Vec<(&'static str, String)>,
}

impl World {
    fn new() -> Self {
        let keys: Vec<&str> = PEOPLE.iter().map(|(name, _)| *name).chain([KEY]).collect();
        let mut guard = Guard::default();
        let (service, bucket) = service::service_for(&keys, |folder| {
            guard.folder = folder;
            guard.clone()
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        let server = Server::serve(service, bucket);
        let (runtime, domains) = (Runtime::new().unwrap(), Vec::new());
        let mut world = Self { folder, guard, server, runtime, domains };
        world.does(KEY, &["init"]);
        for (name, role) in PEOPLE {
            let key = world.path(name);
            let add = [
                "key",
                "add",
                "--role",
                role,
                "--label",
                name,
                "--access-key-out",
                key.to_str().unwrap(),
                "--json",
            ];
            let out = world.does(KEY, &add);
            let summary: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
            world.guard.confine(name, summary["policy"].clone());
            world.domains.extend(summary["domain"].as_str().map(|domain| (name, domain.to_owned())));
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, who: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env_clear().current_dir(self.folder.path()).args(arguments).env("HOME", self.path("home"));
        command.env("LIFEBOAT_REPOSITORY", format!("s3:http://{}/{BUCKET}/{PREFIX}", self.server.address));
        command.env("AWS_ACCESS_KEY_ID", who).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.env("LIFEBOAT_CACHE_DIR", self.path(&format!("cache-{who}")));
        if who == KEY {
            command.env("LIFEBOAT_PASSWORD", "right");
        } else {
            command.env("LIFEBOAT_ACCESS_KEY_FILE", self.path(who));
        }
        command.output().unwrap()
    }

    /// Its work goes well, and the storage denies it nothing.
    #[track_caller]
    fn does(&self, who: &str, arguments: &[&str]) -> String {
        let output = self.run(who, arguments);
        let out = String::from_utf8(output.stdout).unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        let denied = self.guard.denied();
        assert!(output.status.success() && denied.is_empty(), "{who} {arguments:?}: {denied:?} {out}{err}");
        out
    }

    fn back_up(&self, who: &str, what: &str) {
        std::fs::write(self.path("src/file"), what).unwrap();
        self.does(who, &["backup", "src"]);
    }

    fn client(&self, who: &str) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", self.server.address))
            .with_allow_http(true)
            .with_bucket_name(BUCKET)
            .with_access_key_id(who)
            .with_secret_access_key(SECRET)
            .with_disable_bulk_delete(true)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .build()
            .unwrap()
    }

    /// Every object below the prefix, without it.
    fn objects(&self) -> Vec<String> {
        use futures::TryStreamExt;
        let client = self.client(KEY);
        let all: Vec<_> = self.runtime.block_on(client.list(None).try_collect()).unwrap();
        all.iter().map(|one| one.location.as_ref().strip_prefix("some/prefix/").unwrap().to_owned()).collect()
    }

    /// The keeper sets aside what says that a backup began, after somebody has damaged it.
    fn damage_and_set_aside(&self) {
        let of_web = format!("{}runs/", self.domain("web"));
        let name = self.objects().into_iter().find(|name| name.starts_with(&of_web)).unwrap();
        let path = Path::from(format!("{PREFIX}/{name}"));
        self.runtime.block_on(self.client(KEY).put(&path, "something else".into())).unwrap();
        self.does("keeper", &["repair", "quarantine", &name, "--apply"]);
    }

    /// The folder in which a client's objects are.
    fn domain(&self, who: &str) -> String {
        let name = &self.domains.iter().find(|(label, _)| *label == who).unwrap().1;
        format!("d/{name}/")
    }
}

/// What somebody can do to an object with the credentials of the storage: read, overwrite, delete.
fn rights(world: &World, who: &str, name: &str) -> [bool; 3] {
    let (client, path) = (world.client(who), Path::from(format!("{PREFIX}/{name}")));
    let all = world.client(KEY);
    world.runtime.block_on(async {
        let kept = all.get(&path).await.unwrap().bytes().await.unwrap();
        let read = client.get(&path).await.is_ok();
        let put = client.put(&path, "something else".into()).await.is_ok();
        let deleted = client.delete(&path).await.is_ok();
        all.put(&path, kept.into()).await.unwrap();
        [read, put, deleted]
    })
}

#[test]
fn each_role_does_its_work_with_the_policy_that_goes_with_it() {
    let world = World::new();
    world.back_up("web", "one");
    world.back_up("mail", "two");
    world.back_up("web", "three");
    world.does("auditor", &["snapshots"]);
    world.does("auditor", &["check", "--max-age", "0s"]);
    world.does("auditor", &["usage", "--reconcile"]);
    world.does("auditor", &["status"]);
    world.does("tech", &["check", "--read-data"]);
    world.does("tech", &["restore", "latest", "--target", "restored"]);
    world.does("tech", &["drill", "run", "--host", "web", "--report", "report"]);
    world.does("tech", &["hold", "place", "latest", "--reason", "case"]);
    world.does("keeper", &["tag", "latest", "--add", "x"]);
    world.does("auditor", &["hold", "list"]);
    world.does("boss", &["hold", "lift", "latest", "--reason", "over"]);
    world.does("keeper", &["forget", "--keep-last", "1", "--group-by", "host", "--allow-mass-removal"]);
    world.does("keeper", &["prune"]);
    world.does("keeper", &["repair", "index", "--apply"]);
    world.damage_and_set_aside();
    world.does("keeper", &["check", "--max-age", "0s"]);
    world.does("boss", &["key", "list"]);
    world.does("boss", &["check", "--read-data"]);
    world.back_up("web", "four");
}

impl World {
    /// Everything in the bucket is older by so much.
    fn wait(&self, time: Duration) {
        let mut folders = vec![self.guard.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let file = std::fs::File::open(&path).unwrap();
                file.set_modified(file.metadata().unwrap().modified().unwrap() - time).unwrap();
            }
        }
    }

    /// The keeper marked four days ago what no snapshot needs.
    fn marked_long_ago(&self) {
        const SECONDS: i64 = 4 * 86_400;
        let clock: Arc<dyn Clock> = Arc::new(Ago(SECONDS));
        let options = options(Arc::clone(&clock));
        let files = LocalFileSystem::new_with_prefix(&self.guard.folder).unwrap();
        let store = Store::from_object_store(Arc::new(files), PREFIX, options).unwrap();
        let access = std::fs::read_to_string(self.path("keeper")).unwrap().trim().to_owned();
        let config = Repository::read_config(&store).unwrap();
        let secrets = Repository::unlock(&store, &config, &Credential::AccessKey(access.into())).unwrap();
        let keeper = Repository::open(store, config, secrets, None, clock).unwrap();
        self.wait(Duration::from_hours(48));
        let pruned = prune::run(&keeper, &PruneOptions::default()).unwrap();
        assert!(pruned.domains.iter().any(|domain| domain.refused.is_none() && domain.done.marked.packs > 0));
        self.wait(Duration::from_secs(SECONDS.unsigned_abs()));
    }

    /// What it says, and what was denied.
    #[track_caller]
    fn ends(&self, who: &str, arguments: &[&str], code: i32) -> (String, String, Vec<String>) {
        let output = self.run(who, arguments);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(code), "{who} {arguments:?}: {out}{err}");
        (out, err, self.guard.denied())
    }
}

#[test]
fn where_a_lock_or_the_policy_refuses_deletes_forget_works_and_prune_says_what_it_could_not_free() {
    let world = World::new();
    world.back_up("web", "one");
    world.back_up("web", "two");
    // A policy that deletes nothing; forget writes its record all the same.
    let whole = world.guard.policy("keeper");
    let mut poor = whole.clone();
    for statement in poor["Statement"].as_array_mut().unwrap() {
        statement["Action"].as_array_mut().unwrap().retain(|action| action != "s3:DeleteObject");
    }
    world.guard.confine("keeper", poor);
    let rules = ["forget", "--keep-last", "1", "--group-by", "host", "--allow-mass-removal"];
    let (out, _, denied) = world.ends("keeper", &rules, 0);
    assert!(out.contains("the storage refuses to delete 1 snapshot that has ended"), "{out}");
    assert!(denied.len() == 1 && denied[0].contains("DeleteObject"), "{denied:?}");
    let listed = world.does("auditor", &["snapshots", "--json"]);
    assert_eq!(listed.matches("\"message_type\":\"snapshot\"").count(), 1, "{listed}");
    world.marked_long_ago();
    let is_refused = |(out, err, denied): (String, String, Vec<String>)| {
        let first = out.lines().next().unwrap();
        assert!(first.starts_with("the storage keeps 2 packs ("), "{out}");
        assert!(first.contains("Nothing is lost") && first.contains("try again from"), "{out}");
        assert!(
            out.contains("kept by the storage, the oldest since") && out.contains("AccessDenied"),
            "{err}"
        );
        assert!(err.contains("the storage refused to delete some of what nobody needs"), "{err}");
        assert!(denied.iter().all(|denied| denied.contains("DeleteObject")), "{denied:?}");
    };
    is_refused(world.ends("keeper", &["prune"], 3));
    let restores = |target: &str| {
        world.does("tech", &["restore", "latest", "--target", target]);
        let file = world.path(target).join(world.path("src/file").strip_prefix("/").unwrap());
        assert_eq!(std::fs::read_to_string(file).unwrap(), "two");
        world.does("boss", &["check", "--read-data"]);
    };
    restores("first");
    // The same under a lock, with all rights.
    world.guard.confine("keeper", whole);
    world.guard.lock(Duration::from_hours(24 * 30));
    is_refused(world.ends("keeper", &["prune"], 3));
    let (out, ..) = world.ends("keeper", &["prune", "--json"], 3);
    let messages: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = messages.iter().find(|message| message["message_type"] == "summary").unwrap();
    let kept = &summary["kept_by_storage"];
    assert!(kept["packs"] == 2 && kept["bytes"].as_u64() > Some(0) && kept["next_try"].is_string(), "{kept}");
    restores("second");
    world.back_up("web", "two");
    // The lock ends: the next run goes on where this one stopped.
    world.wait(Duration::from_hours(24 * 30));
    let out = world.does("keeper", &["prune"]);
    assert!(out.contains("2 packs (") && out.contains(") deleted"), "{out}");
    restores("third");
}

#[test]
fn the_templates_on_the_page_are_what_key_add_prints() {
    let page = std::fs::read_to_string("docs/storage-policies.md").unwrap();
    let blocks: Vec<&str> =
        page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    for (role, block) in
        [Role::Backup, Role::Audit, Role::Restore, Role::Maintain, Role::Owner].into_iter().zip(&blocks)
    {
        let domain = (role == Role::Backup).then(|| DomainId::new([0x0d; 8]));
        let identity = IdentityId::new([0x1d; 16]);
        let slot = format!("{identity}-0a0a0a0a");
        let options =
            PolicyOptions { role, domain, identity, slot: Some(&slot), bucket: "BUCKET", prefix: "PREFIX" };
        let (printed, shown): (Value, Value) =
            (serde_json::from_str(&key::policy(&options)).unwrap(), serde_json::from_str(block).unwrap());
        assert_eq!(printed, shown, "{role:?}");
    }
    assert_eq!(blocks.len(), 5);
}

/// The policy of a prefix names the keys that a store with this prefix writes, and no others.
#[test]
fn a_policy_names_the_keys_of_an_odd_prefix_as_they_are_written() {
    let (prefix, objects) = ("team*?/${aws:username}", Arc::new(InMemory::new()));
    let store = Store::from_object_store(Arc::clone(&objects) as _, prefix, options(Arc::new(SystemClock)));
    store.unwrap().create(&Name::config(), "x".into()).unwrap();
    let listed = Runtime::new().unwrap().block_on(objects.list_with_delimiter(Some(&Path::from(prefix))));
    let key = listed.unwrap().objects[0].location.to_string();
    let (identity, role) = (IdentityId::new([0x1d; 16]), Role::Owner);
    let options = PolicyOptions { role, domain: None, identity, slot: None, bucket: "b", prefix };
    let policy: Value = serde_json::from_str(&key::policy(&options)).unwrap();
    let put = policy["Statement"][1]["Resource"][0].as_str().unwrap();
    let root = key.strip_suffix("config").unwrap();
    assert_eq!(put.strip_suffix('*').unwrap(), format!("arn:aws:s3:::b/{root}"));
    assert!(!root.contains(['*', '?', '{']), "{root}");
}

#[test]
fn what_a_role_must_not_do_is_refused_by_the_storage() {
    let world = World::new();
    world.back_up("web", "one");
    world.back_up("web", "another one");
    world.back_up("mail", "two");
    // What is attested is of use where several write.
    let add = ["key", "add", "--role", "backup", "--label", "web2", "--domain", "web"];
    world.does("boss", &[&add[..], &["--access-key-out", "web2"]].concat());
    world.does("tech", &["check", "--read-data"]);
    world.does("keeper", &["forget", "--keep-last", "1", "--group-by", "host", "--allow-mass-removal"]);
    world.marked_long_ago();
    world.damage_and_set_aside();
    world.does("tech", &["hold", "place", "latest", "--reason", "case"]);
    let (own, names) = (world.domain("web"), world.objects());
    for folder in ["packs", "index", "snapshots", "runs"].into_iter().chain(Folder::ALL.map(Folder::name)) {
        assert!(names.iter().any(|name| name.contains(&format!("/{folder}/"))), "{folder}: {names:?}");
    }
    let slot = |who: &str| {
        let text = std::fs::read_to_string(world.path(who)).unwrap();
        format!("keys/{}", text.split(':').nth(1).unwrap())
    };
    let (web_slot, mut seen) = (slot("web"), 0);
    let me = web_slot.trim_start_matches("keys/").split('-').next().unwrap();
    for name in &names {
        let below = |part: &str| name.starts_with(&format!("{own}{part}/"));
        let client =
            name == "config" || name.starts_with("registry/") || *name == web_slot || name.starts_with(&own);
        // Below its own name, and not below that of another one who writes there.
        let writes = below("packs")
            || ["index", "snapshots", "runs"].iter().any(|part| below(&format!("{part}/{me}")));
        assert_eq!(rights(&world, "web", name), [client, writes, false], "web {name}");
        // The one record of evidence is the technician's. A record of a domain bears nobody's name: who may add some
        // may overwrite all of that folder.
        let attests = ["/attestations/", "/annotations/"].into_iter().any(|folder| name.contains(folder));
        let evidence = name.starts_with("evidence/");
        assert_eq!(rights(&world, "auditor", name), [true, false, false], "auditor {name}");
        assert_eq!(rights(&world, "tech", name), [true, attests || evidence, false], "tech {name}");
        let domain = name.starts_with("d/");
        assert_eq!(rights(&world, "keeper", name), [true, domain, domain], "keeper {name}");
        assert_eq!(rights(&world, "boss", name), [true; 3], "boss {name}");
        seen += u64::from(writes) + u64::from(attests) + u64::from(evidence);
    }
    assert!(seen > 5 && names.len() > 15, "{names:?}");
    // Nor may a client see what another has.
    world.guard.denied();
    let mail = world.domain("mail");
    let runtime = &world.runtime;
    let sees = |who: &str, prefix: &str| {
        let prefix = Path::from(format!("{PREFIX}/{prefix}"));
        runtime.block_on(world.client(who).list_with_delimiter(Some(&prefix))).is_ok()
    };
    assert_eq!((sees("web", &own), sees("web", &mail), sees("web", "keys")), (true, false, false));
    assert!(sees("tech", &mail) && sees("auditor", "keys"));
}
