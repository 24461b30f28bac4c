//! `--at`: a versioned bucket as it was, after somebody with the credentials has deleted and overwritten all that he
//! could.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at the first surprise, and its files need not be durable"
)]

use std::{
    path::PathBuf,
    process::Command,
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use lifeboat::{
    clock::Clock,
    ops::prune::{self, PruneOptions},
    repository::{Repository, unlock::Credential},
    store::Store,
};
use object_store::aws::AmazonS3Builder;

mod support {
    pub(crate) mod ago;
    pub(crate) mod lab;
    pub(crate) mod service;
    pub(crate) mod tcp;
    pub(crate) mod versions;
    pub(crate) mod world;
}
use support::{
    ago::Ago,
    lab,
    service::{BUCKET, KEY, SECRET},
    tcp::Server,
    versions::Bucket,
    world::{PASSPHRASE, World, tree},
};

/// The program, and a bucket that keeps versions.
struct Attacked {
    world: World,
    bucket: Bucket,
    server: Server,
}

impl Attacked {
    fn with(bucket: Bucket) -> Self {
        Self::initialised(bucket, &[])
    }

    fn initialised(bucket: Bucket, how: &[&str]) -> Self {
        let server = Server::serve(bucket.service(), tempfile::tempdir().unwrap());
        let attacked = Self { world: World::new(), bucket, server };
        attacked.does(&[&["init"], how].concat());
        attacked
    }

    fn new() -> Self {
        Self::with(Bucket::default())
    }

    fn address(&self) -> String {
        format!("s3:http://{}/{BUCKET}/some prefix", self.server.address)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.bare(arguments);
        command
            .env("LIFEBOAT_REPOSITORY", self.address())
            .env("LIFEBOAT_PASSWORD", PASSPHRASE)
            .env("TZ", "UTC");
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command
    }

    #[track_caller]
    fn does(&self, arguments: &[&str]) -> String {
        self.world.ends(&mut self.command(arguments), 0).0
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32) -> String {
        self.world.ends(&mut self.command(arguments), code).1
    }

    /// The owner marked so many seconds ago what no snapshot needs.
    fn marked_long_ago(&self, seconds: u32) {
        let clock: Arc<dyn Clock> = Arc::new(Ago(seconds.into()));
        let bucket = AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", self.server.address))
            .with_allow_http(true)
            .with_bucket_name(BUCKET)
            .with_access_key_id(KEY)
            .with_secret_access_key(SECRET)
            .build()
            .unwrap();
        let options = lab::options(Arc::clone(&clock), Arc::default(), 0);
        let store = Store::from_object_store(Arc::new(bucket), "some prefix", options).unwrap();
        let config = Repository::read_config(&store).unwrap();
        let passphrase = Credential::Passphrase(PASSPHRASE.to_owned().into(), None);
        let secrets = Repository::unlock(&store, &config, &passphrase).unwrap();
        let owner = Repository::open(store, config, secrets, None, clock).unwrap();
        let pruned = prune::run(&owner, &PruneOptions::default()).unwrap();
        let domain = &pruned.domains[0];
        assert!(domain.refused.is_none() && domain.done.marked.packs > 0, "{pruned:?}");
        self.bucket.wait(seconds.into());
    }

    /// The time by the clock of the storage; what comes later has a later stamp.
    fn moment(&self) -> String {
        let now = self.bucket.now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let text = jiff::Timestamp::from_second(i64::try_from(now.as_secs()).unwrap()).unwrap().to_string();
        // The commit window of a backup is ten minutes.
        self.bucket.wait(5);
        text
    }

    /// What is below a folder of ours.
    fn tree(&self, folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let root = self.world.path(folder);
        let below = |(path, bytes): (PathBuf, _)| (path.strip_prefix(&root).unwrap().to_owned(), bytes);
        tree(&root).into_iter().map(below).collect()
    }

    /// Everything that is there is overwritten or deleted, in turns, and more is added.
    fn attack(&self) {
        for (number, key) in self.bucket.there().into_iter().enumerate() {
            match number % 3 {
                0 => drop(self.bucket.add(&key, None)),
                1 => drop(self.bucket.add(&key, Some("encrypted by us, pay".into()))),
                _ => {
                    self.bucket.add(&key, Some("x".into()));
                    self.bucket.add(&key, None);
                    self.bucket.add(&key, Some("y".into()));
                    self.bucket.add(&key, None);
                }
            }
            self.bucket.add(&format!("{key}-more"), Some("noise".into()));
        }
        // Keys that no path of ours and no XML can hold.
        for key in
            ["some prefix/d/\u{1}", "some prefix//registry", "some prefix/keys/..", "some prefix/d/\u{fffe}"]
        {
            self.bucket.add(key, Some("noise".into()));
        }
    }
}

#[test]
fn what_an_attacker_deleted_and_overwrote_comes_back_byte_for_byte() {
    let attacked = Attacked::new();
    let world = &attacked.world;
    std::fs::write(world.path("src/large"), vec![7; 3 << 20]).unwrap();
    attacked.does(&["backup", "src"]);
    let first = attacked.tree("src");
    let at_first = attacked.moment();
    std::fs::write(world.path("src/one"), "changed").unwrap();
    std::fs::remove_file(world.path("src/deep/two")).unwrap();
    attacked.does(&["backup", "src"]);
    let second = attacked.tree("src");
    let at_second = attacked.moment();
    attacked.attack();
    assert!(!attacked.command(&["snapshots"]).output().unwrap().status.success());

    let snapshots =
        |at: &str| attacked.does(&["--at", at, "snapshots", "--json"]).matches("\"snapshot\"").count();
    assert_eq!((snapshots(&at_first), snapshots(&at_second)), (1, 2));
    for (at, expected, target) in [(&at_first, &first, "first"), (&at_second, &second, "second")] {
        let source = world.text("src");
        let from = format!("latest:{source}");
        attacked.does(&["--at", at, "restore", &from, "--target", target]);
        assert_eq!(attacked.tree(target), *expected);
        attacked.does(&["--at", at, "check", "--read-data"]);
    }
    let before = attacked.bucket.versions();
    for command in [
        &["ls", "latest"][..],
        &["usage"],
        &["key", "list"],
        &["drill", "history"],
        &["hold", "list"],
        &["status"],
    ] {
        attacked.does(&[&["--at", &at_second], command].concat());
    }
    attacked.does(&["--at", &at_second, "check", "--max-age", "30d"]);
    assert_eq!(attacked.bucket.versions(), before, "nothing was written");
}

/// A grace of an hour: the clock of the bucket is a day behind, and what it calls the past must not be to come.
#[test]
fn what_a_prune_freed_and_an_attacker_deleted_comes_back_as_of_before_and_after_it() {
    const HOURS: u32 = 2 * 3_600;
    let attacked = Attacked::initialised(Bucket::default(), &["--min-grace", "1h"]);
    let world = &attacked.world;
    std::fs::write(world.path("src/large"), vec![7; 3 << 20]).unwrap();
    attacked.does(&["backup", "src"]);
    let first = attacked.tree("src");
    attacked.bucket.wait(HOURS.into());
    std::fs::remove_file(world.path("src/large")).unwrap();
    std::fs::write(world.path("src/one"), "changed").unwrap();
    attacked.does(&["backup", "src"]);
    let second = attacked.tree("src");
    let before = attacked.moment();
    attacked.does(&["forget", "latest~1"]);
    attacked.marked_long_ago(HOURS);
    let packs =
        || attacked.bucket.there().into_iter().filter(|key| key.contains("/packs/")).collect::<Vec<_>>();
    let stored = packs();
    attacked.does(&["prune"]);
    let left = packs();
    assert!(!left.is_empty() && left.len() < stored.len(), "{stored:?} {left:?}");
    let after = attacked.moment();
    attacked.attack();
    assert!(!attacked.command(&["snapshots"]).output().unwrap().status.success());

    let source = world.text("src");
    for (at, snapshot, expected, target) in [
        (&before, "latest~1", &first, "forgotten"),
        (&before, "latest", &second, "kept-before"),
        (&after, "latest", &second, "kept"),
    ] {
        attacked.does(&["--at", at, "restore", &format!("{snapshot}:{source}"), "--target", target]);
        assert_eq!(attacked.tree(target), *expected, "{target}");
        attacked.does(&["--at", at, "check", "--read-data"]);
    }
    let listed = attacked.does(&["--at", &after, "snapshots", "--json"]);
    assert_eq!(listed.matches("\"snapshot\"").count(), 1, "{listed}");
}

#[test]
fn what_writes_refuses_to_go_to_the_past() {
    let attacked = Attacked::new();
    let before = attacked.bucket.versions();
    let at = attacked.moment();
    for command in [
        &["init"][..],
        &["backup", "src"],
        &["forget", "--keep-last", "1"],
        &["prune"],
        &["prune", "--dry-run"],
        &["tag", "latest", "--add", "x"],
        &["hold", "place", "latest", "--reason", "x"],
        &["repair", "index"],
        &["recover"],
        &["rewrite", "--exclude", "x", "latest"],
        &["copy", "--from-repository", "x"],
        &["drill", "run"],
        &["key", "add", "--role", "backup", "--label", "x"],
        &["key", "revoke", "x"],
        &["key", "passphrase"],
    ] {
        let said = attacked.fails(&[&["--at", &at], command].concat(), 2);
        assert!(said.contains("--at") && said.contains("--from-at"), "{command:?}: {said}");
    }
    assert_eq!(attacked.bucket.versions(), before);
}

#[test]
fn a_time_that_is_wrong_says_what_is_wrong_with_it() {
    let before_init = "2020-01-01";
    let attacked = Attacked::new();
    let said = attacked.fails(&["--at", before_init, "snapshots"], 10);
    assert!(
        said.contains("there is no repository at") && said.contains("as of 2020-01-01T00:00:00Z"),
        "{said}"
    );
    assert!(said.contains("later time"), "{said}");
    assert!(attacked.fails(&["--at", "2999-01-01", "snapshots"], 2).contains("still to come"));
    assert!(attacked.fails(&["--at", "yesterday", "snapshots"], 2).contains("is not a time"));
    let config = attacked.bucket.there().into_iter().find(|key| key.ends_with("config")).unwrap();
    attacked.bucket.wait(5);
    attacked.bucket.add(&config, None);
    let deleted = attacked.moment();
    let said = attacked.fails(&["--at", &deleted, "snapshots"], 5);
    assert!(said.contains("`config` is not there") && said.contains("earlier time"), "{said}");
    // A folder has no versions, and what helps there is said.
    let mut command = attacked.command(&["--at", "2020-01-01", "-r", "repo", "snapshots"]);
    let (_, said) = attacked.world.ends(&mut command, 2);
    assert!(said.contains("keeps no versions") && said.contains("snapshot of that time"), "{said}");
}

#[test]
fn whoever_finds_a_config_that_was_overwritten_is_told_of_the_past_before_it_is_deleted() {
    let attacked = Attacked::new();
    attacked.does(&["backup", "src"]);
    let (before, config) = (attacked.moment(), "some prefix/config");
    assert!(attacked.bucket.there().iter().any(|key| key == config));
    attacked.bucket.add(config, Some("encrypted by us, pay".into()));
    let said = attacked.fails(&["snapshots"], 5);
    let (first, rest) = said.split_once("`--at TIME` shows the repository as it was").unwrap();
    assert!(!first.contains("delete the object") && rest.contains("delete the object `config`"), "{said}");
    attacked.does(&["--at", &before, "restore", "latest", "--target", "back"]);
    let after = attacked.moment();
    let said = attacked.fails(&["--at", &after, "snapshots"], 5);
    assert!(said.contains("name an earlier one"), "{said}");
}

#[test]
fn whoever_may_not_read_versions_is_told_which_rights_that_takes() {
    let attacked = Attacked::new();
    let at = attacked.moment();
    attacked.bucket.denies_versions.store(true, Ordering::SeqCst);
    let said = attacked.fails(&["--at", &at, "snapshots"], 1);
    assert!(said.contains("s3:ListBucketVersions, s3:GetObjectVersion"), "{said}");
    attacked.does(&["snapshots"]);
}

#[test]
fn a_bucket_that_keeps_no_versions_is_told_and_shows_what_is_left() {
    let attacked = Attacked::with(Bucket::forgetful());
    attacked.does(&["backup", "src"]);
    let at = attacked.moment();
    attacked.does(&["backup", "src"]);
    let (out, said) = attacked.world.ends(&mut attacked.command(&["--at", &at, "snapshots", "--json"]), 0);
    assert_eq!(out.matches("\"snapshot\"").count(), 1, "{out}");
    assert!(out.contains("keeps no versions"), "{out}{said}");
    let (_, said) = attacked.world.ends(&mut attacked.command(&["--at", &at, "ls", "latest"]), 0);
    assert!(said.contains("warning: the bucket keeps no versions"), "{said}");
    attacked.attack();
    attacked.fails(&["--at", &at, "snapshots"], 10);
}

#[test]
fn what_is_damaged_in_the_past_is_told_without_advice_that_writes() {
    let attacked = Attacked::new();
    attacked.does(&["backup", "src"]);
    let index = attacked.bucket.there().into_iter().filter(|key| key.contains("/index/"));
    index.for_each(|key| _ = attacked.bucket.add(&key, None));
    let at = attacked.moment();
    let said = attacked.fails(&["--at", &at, "check"], 5);
    assert!(said.contains("as it was at that time") && !said.contains("lifeboat repair"), "{said}");
    let said = attacked.fails(&["check"], 5);
    assert!(said.contains("lifeboat repair index"), "{said}");
}

#[test]
fn a_storage_that_lists_no_versions_is_told() {
    let world = World::new();
    let server = Server::start();
    let address = format!("s3:http://{}/{BUCKET}", server.address);
    let mut command = world.command(&["-r", &address, "--at", "2020-01-01", "snapshots"]);
    command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
    let (_, said) = world.ends(&mut command, 1);
    assert!(said.contains("it lists no versions of objects") && said.contains("knows versioning"), "{said}");
}

#[test]
fn a_restore_asks_for_the_versions_of_a_pack_once_and_leaves_todays_cache_alone() {
    let attacked = Attacked::new();
    for number in 0..40_u8 {
        std::fs::write(attacked.world.path(&format!("src/{number}")), vec![number; 50_000]).unwrap();
    }
    attacked.does(&["backup", "src"]);
    let at = attacked.moment();
    attacked.does(&["backup", "src"]);
    let cache = attacked.world.path("home/.cache/lifeboat");
    let present = || -> Vec<_> {
        let all = tree(&cache).into_iter();
        all.filter(|(path, _)| !path.starts_with(cache.join("past"))).map(|(path, _)| path).collect()
    };
    let before = present();
    let lists = || attacked.bucket.lists.swap(0, Ordering::SeqCst);
    lists();
    attacked.does(&["--at", &at, "restore", "latest", "--target", "first"]);
    let first = lists();
    attacked.does(&["--at", &at, "restore", "latest", "--target", "second"]);
    let second = lists();
    assert!(first < 60 && second <= first, "{first} and {second} lists");
    assert!(!before.is_empty() && present() == before);
}

#[test]
fn a_repository_as_it_was_is_copied_to_a_new_one() {
    let attacked = Attacked::new();
    attacked.does(&["backup", "src"]);
    let at = attacked.moment();
    attacked.attack();
    attacked.does(&["-r", "safe", "init"]);
    let from = attacked.address();
    let mut copy = attacked.command(&["-r", "safe", "copy", "--from-repository", &from, "--from-at", &at]);
    attacked.world.ends(copy.env("LIFEBOAT_FROM_PASSWORD", PASSPHRASE), 0);
    let source = format!("latest:{}", attacked.world.text("src"));
    attacked.does(&["-r", "safe", "restore", &source, "--target", "back"]);
    assert_eq!(attacked.tree("back"), attacked.tree("src"));
}

#[test]
fn the_commands_of_the_page_for_the_day_after_an_attack_work() {
    let attacked = Attacked::new();
    attacked.does(&["backup", "src"]);
    let at = attacked.moment();
    attacked.attack();
    std::fs::write(attacked.world.path("passphrase"), PASSPHRASE).unwrap();
    let page = std::fs::read_to_string("docs/storage-policies.md").unwrap();
    let page = page.split_once("## After an attack").unwrap().1;
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let script = blocks.collect::<String>().replace("s3://bucket/prefix", "\"$ADDRESS\"");
    let script = script.replace("2026-11-20 03:00", &at);
    assert_eq!((script.matches(&at).count(), script.matches("$ADDRESS").count()), (4, 2), "{script}");
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_lifeboat")).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let mut shell = Command::new("sh");
    shell
        .env_clear()
        .env("PATH", path)
        .env("HOME", attacked.world.path("home"))
        .current_dir(attacked.world.path(""));
    shell
        .env("ADDRESS", attacked.address())
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET);
    attacked.world.ends(shell.args(["-ec", &script]), 0);
    let source = attacked.world.text("src");
    assert_eq!(attacked.tree(&format!("restored{source}")), attacked.tree("src"));
}
