//! Each command is stopped, failed and lied to at each of its calls to the storage. Whatever happens: what
//! was there restores, success is only said of what is there, the command can be run again, and `check`
//! finds nothing damaged.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::sync::Arc;

use lifeboat::{
    clock::Clock,
    crypto::RootSecret,
    error::{ErrorKind, Result},
    progress::Progress,
    repository::{Repository, unlock::Credential},
    store::Store,
};
use object_store::{ObjectStore, local::LocalFileSystem};

mod support {
    pub(crate) mod clock;
    pub(crate) mod commands;
    pub(crate) mod faults;
    pub(crate) mod intercepted;
    pub(crate) mod lab;
}
use support::{
    clock::FakeClock,
    commands::{
        ALL,
        Command::{
            self, ChangedBackup, Drill, FirstBackup, Forget, Init, KeyAdd, KeyPassphrase, KeyRecover,
            KeyRenew, KeyRevoke, Rewrite,
        },
        Scene, copy, files, honest, passphrase,
    },
    faults::{Fault, at, stale_lists},
    intercepted::{Call, Intercepted, Kind},
    lab::{self, Files, check_all, open, open_with},
};

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
    if command == KeyRecover && disturbed.outcome.is_err() {
        command.run_again(&store, &scene.root);
    }
    let repository = open(&store, &scene.root).unwrap_or_else(|error| panic!("{what}: {error}"));
    let expected = restores(&repository, scene, command, what);
    match &disturbed.outcome {
        Ok(_) => {
            assert_eq!(expected, usize::from(command.adds().is_some()), "{what}: success");
            is_done(command, &repository, what);
        }
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
    // A rewrite goes on with the copy that is there.
    let after = if command == Rewrite { 1 } else { expected + 1 };
    assert_eq!(now, if command.adds().is_some() { after } else { 0 }, "{what}: run again");
    is_done(command, &repository, what);
    assert_eq!(check_all(&repository).unwrap().problems, [], "{what}: run again");
}

fn is_done(command: Command, repository: &Repository, what: &str) {
    assert!(command.is_done(repository), "{what}: success, and it is not done");
}

/// Restores every snapshot, and gives how many the command has added.
fn restores(repository: &Repository, scene: &Scene, command: Command, what: &str) -> usize {
    let (known, damaged) = repository.snapshots().unwrap();
    assert!(damaged.is_empty(), "{what}: {damaged:?}");
    let added = command.adds();
    // What may have ended is the oldest.
    let ended = scene.snapshots.len().saturating_sub(known.len());
    let expected = scene.snapshots.iter().skip(ended).chain(added.iter().cycle());
    assert!(ended <= usize::from(command == Forget), "{what}: a snapshot is gone");
    for (snapshot, files) in known.iter().zip(expected) {
        let (restored, outcome) = lab::restore(repository, snapshot).unwrap();
        assert_eq!(outcome.failures, 0, "{what}: {:?}", outcome.failed);
        assert!(restored == *files, "{what}: another content");
    }
    known.len() + ended - scene.snapshots.len()
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
    for command in [FirstBackup, ChangedBackup, KeyRevoke, Drill] {
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

/// The same at each change, on another kind of store. `with` makes one that holds what the scene does.
fn survives(commands: &[Command], what: &str, with: impl Fn(&Scene, &dyn Fn(Arc<dyn ObjectStore>)) + Sync) {
    for &command in commands {
        let scene = command.scene();
        for_each(&calls_of(command, &scene), |number, call| {
            if !call.kind.changes_something() {
                return;
            }
            for fault in [Fault::StopsBefore, Fault::StopsAfter, Fault::FailsAfter] {
                let what = format!("{what}, {}", describe(command, fault, number, call));
                with(&scene, &|objects| {
                    let fault = Some((number, fault));
                    holds(command, &scene, disturb(command, &scene, objects, fault, Patience::Waits), &what);
                });
            }
        });
    }
}

#[test]
fn a_local_folder_survives_the_same() {
    survives(&[Init, ChangedBackup, KeyAdd], "in a folder", |scene, then| {
        let folder = tempfile::tempdir().unwrap();
        let objects = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        copy(&honest(memory(scene)), &honest(Arc::<LocalFileSystem>::clone(&objects)));
        then(objects);
    });
}

#[test]
fn a_store_that_ignores_conditions_survives_the_same() {
    survives(&ALL, "conditions are ignored", |scene, then| {
        then(Intercepted::new(memory(scene), Fault::IgnoresConditions));
    });
}

/// What lags, is cut or repeated in a LIST may stop a command; it never makes one lose something. (Who revokes or renews a
/// key up to "the last snapshot that is there" is left out: by a list that is cut, that is an earlier one. So is
/// `forget`, since whoever deletes must be able to believe what is listed; and `rewrite`, whose copy lacks what a list of
/// packs that is cut takes for lost. Its record says so, and no old snapshot ends for it.)
#[test]
fn a_list_that_is_not_true_harms_nothing() {
    for command in
        ALL.into_iter().filter(|command| !matches!(command, KeyRevoke | KeyRenew | Forget | Rewrite))
    {
        let scene = command.scene();
        let calls = calls_of(command, &scene);
        for_each(&calls, |number, call| {
            if call.kind != Kind::List {
                return;
            }
            for fault in [Fault::LosesPage, Fault::Repeats] {
                let what = describe(command, fault, number, call);
                let fault = Some((number, fault));
                holds(
                    command,
                    &scene,
                    disturb(command, &scene, memory(&scene), fault, Patience::Waits),
                    &what,
                );
            }
        });
        for behind in 1..=calls.iter().filter(|call| call.kind.changes_something()).count() {
            let objects = scene.objects.fork();
            let intercepted =
                Intercepted::new(Arc::new(objects.clone()), stale_lists(objects.clone(), behind));
            let clock: Arc<dyn Clock> = Arc::<FakeClock>::default();
            let options = lab::options(clock, Arc::default(), 60);
            let store = Store::from_object_store(intercepted, "", options).unwrap();
            let outcome = command.run(&store, &scene.root);
            let disturbed = Disturbed { objects: Arc::new(objects), outcome, calls: Vec::new() };
            holds(command, &scene, disturbed, &format!("{command:?}: lists are {behind} changes behind"));
        }
    }
}

/// A broken cable or a bad memory on the way.
#[test]
fn a_wrong_reply_is_asked_for_again_or_told_and_never_restored() {
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
        for fault in [Fault::Shortens, Fault::Extends] {
            let (wrong, _) = restore(Some((number, fault)));
            assert!(wrong.unwrap() == files(1), "{fault:?} at {call:?}");
        }
        let (another, _) = restore(Some((number, Fault::Shifts)));
        assert!(another.unwrap() == files(1), "another range at {call:?}");
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
    for command in ALL {
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
                    is_done(command, &repository, &what);
                }
            }
        });
    }
}
