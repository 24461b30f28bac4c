//! Each command is stopped, failed and lied to at each of its calls to the storage. Whatever happens: what
//! was there restores, success is only said of what is there, the command can be run again, and `check`
//! finds nothing damaged.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::sync::Arc;

use lifeboat::{
    clock::{Clock, SystemClock},
    crypto::RootSecret,
    error::{ErrorKind, Result},
    format::{role::Role, slot::KdfParameters},
    ops::{
        init,
        key::{self, AddOptions, By, LastGood, RevokeOptions},
    },
    progress::Progress,
    repository::{InitOptions, Repository, unlock::Credential},
    store::{Name, Prefix, Store},
};
use object_store::{ObjectStore, local::LocalFileSystem, memory::InMemory};
use zeroize::Zeroizing;

mod support {
    pub(crate) mod clock;
    pub(crate) mod faults;
    pub(crate) mod intercepted;
    pub(crate) mod lab;
}
use support::{
    clock::FakeClock,
    faults::{Fault, at},
    intercepted::{Call, Intercepted, Kind},
    lab::{self, Files, check_all, noise, open, open_with},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Init,
    FirstBackup,
    ChangedBackup,
    UnchangedBackup,
    KeyAdd,
    KeyRevoke,
    KeyPassphrase,
}

use Command::{ChangedBackup, FirstBackup, Init, KeyAdd, KeyPassphrase, KeyRevoke, UnchangedBackup};

const ALL: [Command; 7] =
    [Init, FirstBackup, ChangedBackup, UnchangedBackup, KeyAdd, KeyRevoke, KeyPassphrase];

/// What a command starts from.
struct Scene {
    objects: InMemory,
    root: RootSecret,
    /// What is in each snapshot, oldest first.
    snapshots: Vec<Files>,
}

/// Passphrases that are stretched no more than they must be.
fn quick() -> InitOptions {
    InitOptions { kdf: KdfParameters { memory_kib: 64, passes: 1, lanes: 1 }, ..InitOptions::default() }
}

fn passphrase(text: &str) -> Credential {
    Credential::Passphrase(Zeroizing::new(text.to_owned()), None)
}

/// A store without faults.
fn honest(objects: Arc<dyn ObjectStore>) -> Store {
    Store::from_object_store(objects, "", lab::options(Arc::new(SystemClock), Arc::default(), 0)).unwrap()
}

fn files(generation: u64) -> Files {
    let mut files = Files::new();
    for number in 0..12 {
        files.insert(format!("srv/small/{number}"), format!("file {number}").repeat(9).into_bytes());
    }
    files.insert("srv/large".to_owned(), noise(generation, 400_000));
    files.insert("srv/same".to_owned(), noise(99, 100_000));
    files
}

impl Command {
    fn scene(self) -> Scene {
        let scene =
            Scene { objects: InMemory::new(), root: RootSecret::generate().unwrap(), snapshots: Vec::new() };
        self.furnish(scene)
    }

    fn furnish(self, mut scene: Scene) -> Scene {
        if self == Init {
            return scene;
        }
        let store = honest(Arc::new(scene.objects.fork()));
        Repository::create(&store, &scene.root, "right", quick(), &SystemClock).unwrap();
        let repository = open(&store, &scene.root).unwrap();
        if self != FirstBackup {
            lab::back_up(&repository, &files(1)).unwrap();
            scene.snapshots.push(files(1));
        }
        if self == KeyRevoke {
            let added = key::add(&repository, &machine()).unwrap();
            let access = Credential::AccessKey(added.access_key.unwrap().text());
            lab::back_up(&open_with(&store, &access, None).unwrap(), &files(5)).unwrap();
            scene.snapshots.push(files(5));
        }
        copy(&store, &honest(Arc::new(scene.objects.clone())));
        scene
    }

    /// What it adds a snapshot of.
    fn adds(self) -> Option<Files> {
        match self {
            FirstBackup | UnchangedBackup => Some(files(1)),
            ChangedBackup => Some(files(2)),
            Init | KeyAdd | KeyRevoke | KeyPassphrase => None,
        }
    }

    /// Runs it. What it promises to unlock the repository afterwards comes back.
    fn run(self, store: &Store, root: &RootSecret) -> Result<Option<Credential>> {
        if self == Init {
            init::run(store, root, "right", quick(), &SystemClock)?;
            return Ok(Some(passphrase("right")));
        }
        let repository = open(store, root)?;
        Ok(match self {
            Init | FirstBackup | ChangedBackup | UnchangedBackup => {
                lab::back_up(&repository, &self.adds().unwrap())?;
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
                key::passphrase(&repository, "new", None, quick().kdf)?;
                Some(passphrase("new"))
            }
        })
    }

    /// Runs it on a healthy store after it was disturbed there.
    fn run_again(self, store: &Store, root: &RootSecret) {
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
                    _ => "this one must succeed",
                };
                assert!(error.to_string().contains(told), "{error}");
                assert!(error.remedy().is_some());
            }
        }
    }
}

fn machine() -> AddOptions {
    let (label, unlock) = ("machine".to_owned(), By::AccessKey);
    AddOptions { role: Role::Backup, label, domain: None, shared: false, unlock }
}

fn copy(from: &Store, to: &Store) {
    for listed in from.list(&Prefix::all()).unwrap() {
        let name = Name::parse(&listed.name).unwrap();
        to.create(&name, from.read(&name, 1 << 26).unwrap()).unwrap();
    }
}

/// A storage in which a command was disturbed.
struct Disturbed {
    objects: Arc<dyn ObjectStore>,
    outcome: Result<Option<Credential>>,
    calls: Vec<Call>,
}

/// Whether the user asks to stop while the program waits to try a call again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Waits,
    Stops,
}

fn disturb(
    command: Command,
    scene: &Scene,
    objects: Arc<dyn ObjectStore>,
    fault: Option<(usize, Fault)>,
    patience: Patience,
) -> Disturbed {
    let intercepted = Intercepted::watching(Arc::clone(&objects));
    let (clock, progress) = (Arc::<FakeClock>::default(), Arc::<Progress>::default());
    if patience == Patience::Stops {
        clock.stop_at(1, &progress);
    }
    let clock: Arc<dyn Clock> = clock;
    let options = lab::options(clock, progress, 60);
    let store = Store::from_object_store(Arc::<Intercepted>::clone(&intercepted), "", options).unwrap();
    if let Some((number, fault)) = fault {
        intercepted.intercept(at(number, fault));
    }
    let outcome = command.run(&store, &scene.root);
    Disturbed { objects, outcome, calls: intercepted.calls() }
}

fn memory(scene: &Scene) -> Arc<dyn ObjectStore> {
    Arc::new(scene.objects.fork())
}

/// Everything that must hold, whatever happened.
fn holds(command: Command, scene: &Scene, disturbed: Disturbed, what: &str) {
    let store = honest(disturbed.objects);
    if command == Init {
        init_holds(&store, disturbed.outcome, what);
        return;
    }
    let repository = open(&store, &scene.root).unwrap_or_else(|error| panic!("{what}: {error}"));
    let expected = restores(&repository, scene, command, what);
    match &disturbed.outcome {
        Ok(_) => assert_eq!(expected, usize::from(command.adds().is_some()), "{what}: success"),
        Err(_) => assert!(expected <= 1, "{what}"),
    }
    match disturbed.outcome {
        Ok(Some(credential)) => drop(open_with(&store, &credential, None).unwrap()),
        Err(_) if command == KeyPassphrase => {
            let old = open_with(&store, &passphrase("right"), None);
            assert!(old.is_ok() || open_with(&store, &passphrase("new"), None).is_ok(), "{what}: locked out");
        }
        _ => {}
    }
    assert_eq!(check_all(&repository).unwrap().problems, [], "{what}");
    command.run_again(&store, &scene.root);
    let repository = open(&store, &scene.root).unwrap();
    let now = restores(&repository, scene, command, what);
    assert_eq!(now, if command.adds().is_some() { expected + 1 } else { 0 }, "{what}: run again");
    assert_eq!(check_all(&repository).unwrap().problems, [], "{what}: run again");
}

/// Restores every snapshot, and gives how many the command has added.
fn restores(repository: &Repository, scene: &Scene, command: Command, what: &str) -> usize {
    let (known, damaged) = repository.snapshots().unwrap();
    assert!(damaged.is_empty(), "{what}: {damaged:?}");
    let added = command.adds();
    let expected = scene.snapshots.iter().chain(added.iter().cycle());
    assert!(known.len() >= scene.snapshots.len(), "{what}: a snapshot is gone");
    for (snapshot, files) in known.iter().zip(expected) {
        let (restored, outcome) = lab::restore(repository, snapshot).unwrap();
        assert_eq!(outcome.failures, 0, "{what}: {:?}", outcome.failed);
        assert!(restored == *files, "{what}: another content");
    }
    known.len() - scene.snapshots.len()
}

/// A repository that can be used comes out of it, at the latest when it is run again.
fn init_holds(store: &Store, outcome: Result<Option<Credential>>, what: &str) {
    if let Ok(Some(credential)) = outcome {
        open_with(store, &credential, None).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    Init.run_again(store, &RootSecret::generate().unwrap());
    let repository = open_with(store, &passphrase("right"), None);
    let repository = repository.unwrap_or_else(|error| panic!("{what}, run again: {error}"));
    lab::back_up(&repository, &files(1)).unwrap();
    let (known, _) = repository.snapshots().unwrap();
    assert_eq!(lab::restore(&repository, &known[0]).unwrap().0, files(1), "{what}");
    assert_eq!(check_all(&repository).unwrap().problems, [], "{what}");
}

fn describe(command: Command, fault: Fault, number: usize, call: &Call) -> String {
    format!("{command:?}: {fault:?} at call {number}, {:?} {}", call.kind, call.name)
}

fn calls_of(command: Command, scene: &Scene) -> Vec<Call> {
    let undisturbed = disturb(command, scene, memory(scene), None, Patience::Waits);
    let calls = undisturbed.calls.clone();
    undisturbed.outcome.as_ref().unwrap();
    holds(command, scene, undisturbed, "undisturbed");
    calls
}

/// For each call, on two threads.
fn for_each(calls: &[Call], each: impl Fn(usize, &Call) + Sync) {
    let each = &each;
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                calls.iter().enumerate().skip(half).step_by(2).for_each(|(n, call)| each(n, call))
            });
        }
    });
}

#[test]
fn a_command_that_is_killed_at_any_call_leaves_nothing_that_the_next_run_cannot_use() {
    for command in ALL {
        let scene = command.scene();
        for_each(&calls_of(command, &scene), |number, call| {
            // Stopping before any other call is the same as stopping after the one before it.
            let faults = [Fault::StopsAfter, Fault::StopsBefore];
            for fault in faults.into_iter().take(if number == 0 { 2 } else { 1 }) {
                let what = describe(command, fault, number, call);
                let fault = Some((number, fault));
                let disturbed = disturb(command, &scene, memory(&scene), fault, Patience::Waits);
                if let Err(error) = &disturbed.outcome {
                    assert_eq!(error.kind(), ErrorKind::Temporary, "{what}: {error}");
                }
                holds(command, &scene, disturbed, &what);
            }
        });
    }
}

#[test]
fn one_failed_call_or_lost_reply_is_never_a_failed_command() {
    for command in ALL {
        let scene = command.scene();
        for_each(&calls_of(command, &scene), |number, call| {
            // What only reads takes no effect.
            let writes = call.kind.changes_something();
            for fault in [Fault::FailsBefore, Fault::FailsAfter].into_iter().take(if writes { 2 } else { 1 })
            {
                let what = describe(command, fault, number, call);
                let fault = Some((number, fault));
                let disturbed = disturb(command, &scene, memory(&scene), fault, Patience::Waits);
                assert!(disturbed.outcome.is_ok(), "{what}: {:?}", disturbed.outcome.unwrap_err());
                holds(command, &scene, disturbed, &what);
            }
        });
    }
}

#[test]
fn a_command_that_is_asked_to_stop_while_it_waits_says_so_and_leaves_all_in_order() {
    for command in [FirstBackup, ChangedBackup, KeyRevoke] {
        let scene = command.scene();
        for_each(&calls_of(command, &scene), |number, call| {
            let what = describe(command, Fault::FailsAfter, number, call);
            let fault = Some((number, Fault::FailsAfter));
            let disturbed = disturb(command, &scene, memory(&scene), fault, Patience::Stops);
            let kind = disturbed.outcome.as_ref().unwrap_err().kind();
            assert_eq!(kind, ErrorKind::Interrupted, "{what}");
            holds(command, &scene, disturbed, &what);
        });
    }
}

#[test]
fn a_local_folder_survives_the_same() {
    for command in [Init, ChangedBackup, KeyAdd] {
        let scene = command.scene();
        let calls = calls_of(command, &scene);
        for_each(&calls, |number, call| {
            if !call.kind.is_put() {
                return;
            }
            for fault in [Fault::StopsBefore, Fault::StopsAfter, Fault::FailsAfter] {
                let folder = tempfile::tempdir().unwrap();
                let local = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
                let objects: Arc<dyn ObjectStore> = local;
                copy(&honest(memory(&scene)), &honest(Arc::clone(&objects)));
                let what = format!("on a folder, {}", describe(command, fault, number, call));
                let fault = Some((number, fault));
                holds(command, &scene, disturb(command, &scene, objects, fault, Patience::Waits), &what);
            }
        });
    }
}

/// A broken cable or a bad memory on the way.
#[test]
fn a_reply_that_is_cut_or_has_a_flipped_bit_is_asked_for_again_or_told_and_never_restored() {
    let scene = ChangedBackup.scene();
    let restore = |fault| -> (Result<Files>, Vec<Call>) {
        let intercepted = Intercepted::watching(memory(&scene));
        let clock: Arc<dyn Clock> = Arc::<FakeClock>::default();
        let options = lab::options(clock, Arc::default(), 60);
        let store = Store::from_object_store(Arc::<Intercepted>::clone(&intercepted), "", options).unwrap();
        if let Some((number, fault)) = fault {
            intercepted.intercept(at(number, fault));
        }
        let restored = open(&store, &scene.root).and_then(|repository| {
            let (known, mut damaged) = repository.snapshots()?;
            match damaged.pop() {
                Some(error) => Err(error),
                None => lab::restore(&repository, &known[0]).map(|(files, _)| files),
            }
        });
        (restored, intercepted.calls())
    };
    let (undisturbed, calls) = restore(None);
    assert!(undisturbed.unwrap() == files(1));
    let mut packs = 0;
    for (number, call) in calls.iter().enumerate().filter(|(_, call)| call.kind == Kind::Get) {
        let (cut, _) = restore(Some((number, Fault::Shortens)));
        assert!(cut.unwrap() == files(1), "cut at {call:?}");
        match restore(Some((number, Fault::Flips))).0 {
            Ok(restored) => assert!(restored == files(1), "flipped at {call:?}"),
            Err(error) => {
                let kinds = [ErrorKind::Damaged, ErrorKind::NoRepository, ErrorKind::CannotUnlock];
                assert!(kinds.contains(&error.kind()) && !call.name.contains("/packs/"), "{call:?}: {error}");
            }
        }
        packs += usize::from(call.name.contains("/packs/"));
    }
    assert!(packs >= 2, "data and metadata");
}

/// Such a store cannot hold a repository; but it must be found out before success is said.
#[test]
fn a_put_that_was_cut_or_not_kept_is_never_called_a_success() {
    for command in [Init, FirstBackup, ChangedBackup, KeyAdd, KeyPassphrase] {
        let scene = command.scene();
        for_each(&calls_of(command, &scene), |number, call| {
            if !call.kind.is_put() {
                return;
            }
            for fault in [Fault::Halves, Fault::Forgets] {
                let what = describe(command, fault, number, call);
                let fault = Some((number, fault));
                let disturbed = disturb(command, &scene, memory(&scene), fault, Patience::Waits);
                let store = honest(disturbed.objects);
                let Ok(credential) = disturbed.outcome else { continue };
                if let Some(credential) = credential {
                    drop(
                        open_with(&store, &credential, None)
                            .unwrap_or_else(|error| panic!("{what}: {error}")),
                    );
                }
                if command != Init {
                    let repository =
                        open(&store, &scene.root).unwrap_or_else(|error| panic!("{what}: {error}"));
                    let added = restores(&repository, &scene, command, &what);
                    assert_eq!(added, usize::from(command.adds().is_some()), "{what}");
                }
            }
        });
    }
}
