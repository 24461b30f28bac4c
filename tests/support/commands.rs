//! Every command that writes: what it starts from, how it is run, and what it promises.

use std::{sync::Arc, time::Duration};

use lifeboat::{
    clock::SystemClock,
    crypto::RootSecret,
    error::{Error, ErrorKind, Result},
    filesystem::{scratch::Afterwards, select::Selection},
    format::{annotation::TagChange, role::Role},
    ops::{
        annotate::{self, Chosen},
        check::{self, CheckOptions, Depth, Subset, Witness},
        drill::{self, DrillOptions},
        forget::{self, Bucket, Count, ForgetOptions, GroupBy, MassRemoval, Rules, Which},
        init,
        key::{self, AddOptions, By, LastGood, Lost, RecoverOptions, RevokeOptions},
        rewrite::{self, RewriteOptions},
        select::{Filter, Reference},
        verify::Owners,
    },
    repository::{InitOptions, Repository, snapshots::KnownSnapshot, unlock::Credential},
    store::{Folder, Name, Prefix, Store},
};
use object_store::{ObjectStore, memory::InMemory};
use zeroize::Zeroizing;

use super::lab::{self, Files, noise, open, open_with};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Init,
    FirstBackup,
    ChangedBackup,
    UnchangedBackup,
    KeyAdd,
    KeyRevoke,
    KeyPassphrase,
    KeyShare,
    /// A new epoch.
    KeyRotate,
    /// Of a key that was renewed once before.
    KeyRenew,
    /// Of a repository that has lost its `config`.
    KeyRecover,
    /// Of every byte, in a domain that two keys write to.
    Check,
    Drill,
    Tag,
    Hold,
    Lift,
    /// Without the large file.
    Rewrite,
    /// All but the newest.
    Forget,
}

use Command::{
    ChangedBackup, Check, Drill, FirstBackup, Forget, Hold, Init, KeyAdd, KeyPassphrase, KeyRecover,
    KeyRenew, KeyRevoke, KeyRotate, KeyShare, Lift, Rewrite, Tag, UnchangedBackup,
};

/// Every command that writes; what prunes, repairs and copies has tests of its own.
pub(crate) const ALL: [Command; 18] = [
    Init,
    FirstBackup,
    ChangedBackup,
    UnchangedBackup,
    KeyAdd,
    KeyRevoke,
    KeyPassphrase,
    KeyShare,
    KeyRotate,
    KeyRenew,
    KeyRecover,
    Check,
    Drill,
    Tag,
    Hold,
    Lift,
    Rewrite,
    Forget,
];

/// What a command starts from.
pub(crate) struct Scene {
    pub(crate) objects: InMemory,
    pub(crate) root: RootSecret,
    /// What is in each snapshot, oldest first.
    pub(crate) snapshots: Vec<Files>,
}

pub(crate) fn passphrase(text: &str) -> Credential {
    Credential::Passphrase(Zeroizing::new(text.to_owned()), None)
}

/// A store without faults.
pub(crate) fn honest(objects: Arc<dyn ObjectStore>) -> Store {
    Store::from_object_store(objects, "", lab::options(Arc::new(SystemClock), Arc::default(), 0)).unwrap()
}

const LARGE: &str = "srv/large";

pub(crate) fn files(generation: u64) -> Files {
    let mut files = Files::new();
    for number in 0..12 {
        files.insert(format!("srv/small/{number}"), format!("file {number}").repeat(9).into_bytes());
    }
    files.insert(LARGE.to_owned(), noise(generation, 400_000));
    files.insert("srv/same".to_owned(), noise(99, 100_000));
    files
}

impl Command {
    pub(crate) fn scene(self) -> Scene {
        let scene =
            Scene { objects: InMemory::new(), root: RootSecret::generate().unwrap(), snapshots: Vec::new() };
        self.furnish(scene)
    }

    fn furnish(self, mut scene: Scene) -> Scene {
        if self == Init {
            return scene;
        }
        let store = honest(Arc::new(scene.objects.fork()));
        Repository::create(&store, &scene.root, "right", InitOptions::default(), &SystemClock).unwrap();
        let repository = open(&store, &scene.root).unwrap();
        if self != FirstBackup {
            lab::back_up(&repository, &files(1)).unwrap();
            scene.snapshots.push(files(1));
        }
        if matches!(self, KeyRevoke | KeyShare | KeyRenew | Check) {
            let domain = (self == Check).then(|| "main".to_owned());
            let added = key::add(&repository, &AddOptions { domain, ..machine() }).unwrap();
            let access = Credential::AccessKey(added.access_key.unwrap().text());
            lab::back_up(&open_with(&store, &access, None).unwrap(), &files(5)).unwrap();
            scene.snapshots.push(files(5));
        }
        if self == KeyRenew {
            renew_it(&repository).unwrap();
        }
        if self == Lift {
            place_hold(&repository).unwrap();
        }
        if self == Forget {
            lab::back_up(&repository, &files(2)).unwrap();
            scene.snapshots.push(files(2));
        }
        if self == KeyRecover {
            store.delete(&Name::config()).unwrap();
        }
        copy(&store, &honest(Arc::new(scene.objects.clone())));
        scene
    }

    /// What it adds a snapshot of.
    pub(crate) fn adds(self) -> Option<Files> {
        match self {
            FirstBackup | UnchangedBackup => Some(files(1)),
            ChangedBackup => Some(files(2)),
            Rewrite => {
                let mut files = files(1);
                files.remove(LARGE);
                Some(files)
            }
            _ => None,
        }
    }

    /// Whether what it was to change is so; of what it adds see [`Self::adds`].
    pub(crate) fn is_done(self, repository: &Repository) -> bool {
        let known = repository.snapshots().unwrap().0;
        match self {
            KeyRotate => repository.registry().epochs.len() >= 2,
            KeyRenew => {
                let all = key::list(repository).unwrap();
                let revoked: Vec<bool> = all
                    .iter()
                    .filter(|key| key.label == "machine")
                    .map(|key| key.revoked.is_some())
                    .collect();
                revoked.len() >= 3 && revoked.iter().filter(|revoked| !**revoked).count() == 1
            }
            Check => {
                let attestations = Prefix::records(&known[0].name.domain, Folder::Attestations);
                let there = |prefix| !repository.store.list(prefix).unwrap().is_empty();
                there(&attestations) && there(&Prefix::evidence())
            }
            Tag => known[0].tags == ["kept"],
            Hold => !known[0].holds.is_empty(),
            Lift => known[0].holds.is_empty(),
            Forget => known.len() == 1,
            _ => true,
        }
    }

    /// Runs it. What it promises to unlock the repository afterwards comes back.
    pub(crate) fn run(self, store: &Store, root: &RootSecret) -> Result<Option<Credential>> {
        if self == Init {
            init::run(store, root, "right", InitOptions::default(), &SystemClock)?;
            return Ok(Some(passphrase("right")));
        }
        if self == KeyRecover {
            let options = RecoverOptions { words: &root.words(), unlock: By::AccessKey, lost: Lost::Rebuild };
            let recovered = key::recover(store, &options, &SystemClock)?;
            return Ok(recovered.access_key.map(|key| Credential::AccessKey(key.text())));
        }
        let repository = open(store, root)?;
        Ok(match self {
            Init | KeyRecover | FirstBackup | ChangedBackup | UnchangedBackup => {
                lab::back_up(&repository, &self.adds().unwrap())?;
                None
            }
            KeyShare => {
                key::share(&repository, "machine")?;
                None
            }
            KeyRotate => {
                key::rotate(&repository)?;
                None
            }
            KeyRenew => Some(renew_it(&repository)?),
            Check => {
                check_it(&repository)?;
                None
            }
            Tag => {
                let change = TagChange { add: vec!["kept".to_owned()], ..TagChange::default() };
                annotate::tag(&repository, &latest(), &change, annotate::Mode::Write)?;
                None
            }
            Hold => {
                place_hold(&repository)?;
                None
            }
            Lift => {
                lift_hold(&repository)?;
                None
            }
            Rewrite => {
                rewrite_it(&Arc::new(repository))?;
                None
            }
            Forget => {
                forget::run(&repository, &only_the_newest())?;
                None
            }
            Drill => {
                drill_it(&repository)?;
                None
            }
            KeyAdd => {
                let added = key::add(&repository, &machine())?;
                Some(Credential::AccessKey(added.access_key.unwrap().text()))
            }
            KeyRevoke => {
                let options = RevokeOptions { who: "machine".to_owned(), last_good: LastGood::Head };
                key::revoke(&repository, &options)?;
                None
            }
            KeyPassphrase => {
                key::passphrase(&repository, "new", None, InitOptions::default().kdf)?;
                Some(passphrase("new"))
            }
        })
    }

    /// Runs it on a healthy store after it was disturbed there.
    pub(crate) fn run_again(self, store: &Store, root: &RootSecret) {
        // Who runs `init` again gets other recovery words.
        let other = RootSecret::generate().unwrap();
        match self.run(store, if self == Init { &other } else { root }) {
            Ok(_) => {}
            // Its remains are told, and with the remedy that comes with it there is a new one.
            Err(error) if self == Init && error.to_string().contains("nothing was ever backed up to it") => {
                let remedy = error.remedy().unwrap();
                assert!(remedy.contains("delete `keys` and `registry`"), "{remedy}");
                for prefix in [Prefix::slots(), Prefix::registry()] {
                    for listed in store.list(&prefix).unwrap() {
                        store.delete(&Name::parse(&listed.name).unwrap()).unwrap();
                    }
                }
                self.run(store, &other).unwrap();
            }
            // It was done, and only the reply was lost: that is said clearly.
            Err(error) => {
                let told = match self {
                    Init => "holds a repository already",
                    KeyAdd => "there is a key with the label",
                    Lift => "no legal hold is on the snapshot",
                    _ => "this one must succeed",
                };
                assert!(error.to_string().contains(told), "{error}");
                assert!(error.remedy().is_some());
            }
        }
    }
}

fn latest() -> Chosen {
    Chosen { references: vec![Reference::Latest(0)], filter: Filter::default() }
}

fn place_hold(repository: &Repository) -> Result<()> {
    annotate::place(repository, &latest(), "a case", annotate::Mode::Write).map(drop)
}

fn lift_hold(repository: &Repository) -> Result<()> {
    annotate::lift(repository, &latest(), (&[], "over"), annotate::Mode::Write).map(drop)
}

/// The first snapshot again.
fn rewrite_it(repository: &Arc<Repository>) -> Result<()> {
    let options = RewriteOptions {
        named: Vec::new(),
        selection: Arc::new(Selection::new(&[], &[format!("/{LARGE}")])?),
        old: rewrite::Old::Keep,
        mode: rewrite::Mode::Write,
        zone: jiff::tz::TimeZone::UTC,
        program: "test".to_owned(),
        workers: 1,
    };
    let known = repository.snapshots()?.0;
    // Once, though a LIST may show it twice.
    let first = known.into_iter().find(|known| known.name.sequence == 1);
    let first: Vec<KnownSnapshot> = first.into_iter().collect();
    let made = rewrite::run(repository, &first, &options)?;
    match made.snapshots.iter().all(|one| one.copy.is_some()) {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Failed, "a snapshot got no copy")),
    }
}

fn only_the_newest() -> ForgetOptions {
    let rules = Rules { counts: vec![(Bucket::Last, Count::Most(1))], ..Rules::default() };
    ForgetOptions {
        which: Which::ByRules(rules, Filter::default(), GroupBy::default()),
        floor: 1,
        mass_removal: MassRemoval::Allow,
        zone: jiff::tz::TimeZone::UTC,
        mode: forget::Mode::Write,
    }
}

fn drill_it(repository: &Repository) -> Result<()> {
    let scratch = tempfile::tempdir().unwrap();
    let options = DrillOptions {
        filter: Default::default(),
        sample: None,
        seed: 0,
        place: drill::Where::Within(scratch.path().to_owned()),
        afterwards: Afterwards::Remove,
        owners: Owners::Ignore,
        rpo: None,
        rto: None,
        checks: Vec::new(),
        check_timeout: Duration::from_secs(60),
        hidden: Vec::new(),
        unlock: Duration::ZERO,
        workers: 1,
        machine: "host".to_owned(),
        program: "test".to_owned(),
    };
    let drilled = drill::run(repository, &options, &mut std::io::sink())?;
    let failed =
        (!drilled.passed()).then(|| Error::new(ErrorKind::Failed, drilled.report.reasons.join("; ")));
    drilled.stored?;
    failed.map_or(Ok(()), Err)
}

fn check_it(repository: &Repository) -> Result<()> {
    let options = CheckOptions { depth: Depth::Data(Subset::All), workers: 1 };
    let checked = check::run_and_record(repository, options, Witness { machine: "host", program: "test" })?;
    // What could not be recorded is no error of a check that read what it was told to.
    let unrecorded = checked.unrecorded.map(|error| error.to_string());
    let problems = checked.problems.into_iter().map(|problem| problem.what);
    let told: Vec<String> = problems.chain(checked.notes).chain(unrecorded).collect();
    match told.is_empty() && checked.recorded {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Failed, told.join("; "))),
    }
}

/// What opens the new key.
fn renew_it(repository: &Repository) -> Result<Credential> {
    let renewed = key::renew(repository, "machine", LastGood::Head, By::AccessKey)?;
    Ok(Credential::AccessKey(renewed.added.access_key.unwrap().text()))
}

fn machine() -> AddOptions {
    let (label, unlock) = ("machine".to_owned(), By::AccessKey);
    AddOptions { role: Role::Backup, label, domain: None, shared: false, unlock }
}

pub(crate) fn copy(from: &Store, to: &Store) {
    for listed in from.list(&Prefix::all()).unwrap() {
        let name = Name::parse(&listed.name).unwrap();
        to.create(&name, from.read(&name, 1 << 26).unwrap()).unwrap();
    }
}
