//! What is lost as a whole, and what the local cache may be: `config` with every key, some of the packs; a cache that
//! is corrupt, stale, of another repository, read-only or gone.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use lifeboat::{
    clock::SystemClock,
    crypto::RootSecret,
    format::pack::PackKind,
    id::BlobId,
    ops::key::{self, By, Lost, RecoverOptions},
    repository::{InitOptions, Repository, unlock::Credential},
    store::{Name, Parsed, Prefix, Store},
};
use object_store::memory::InMemory;

mod support {
    pub(crate) mod lab;
}
use support::lab::{self, Files, check_all, noise, open, open_with};

struct Scene {
    objects: InMemory,
    root: RootSecret,
}

impl Scene {
    fn new() -> Self {
        let (objects, root) = (InMemory::new(), RootSecret::generate().unwrap());
        let scene = Self { objects, root };
        let init = InitOptions::default();
        Repository::create(&scene.store(), &scene.root, "right", init, &SystemClock).unwrap();
        scene
    }

    /// What it holds now, shared with everybody.
    fn store(&self) -> Store {
        let options = lab::options(Arc::new(SystemClock), Arc::default(), 0);
        Store::from_object_store(Arc::new(self.objects.clone()), "", options).unwrap()
    }

    fn open(&self, cache: Option<&Path>) -> Repository {
        open_with(&self.store(), &Credential::Words(self.root.words()), cache).unwrap()
    }
}

fn files(generation: u64) -> Files {
    let mut files: Files =
        (0..20).map(|n| (format!("srv/{n:02}"), format!("file {n} of {generation}").into_bytes())).collect();
    files.insert("srv/large".to_owned(), noise(generation, 400_000));
    files.insert("srv/same".to_owned(), noise(99, 200_000));
    files
}

fn names(store: &Store) -> Vec<Name> {
    store.list(&Prefix::all()).unwrap().iter().map(|listed| Name::parse(&listed.name).unwrap()).collect()
}

/// The newest snapshot restores whole, and it is this.
#[track_caller]
fn restores(repository: &Repository, expected: &Files) {
    let (known, damaged) = repository.snapshots().unwrap();
    assert!(damaged.is_empty(), "{damaged:?}");
    let last = known.iter().max_by_key(|known| known.name.sequence).unwrap();
    let (files, outcome) = lab::restore(repository, last).unwrap();
    assert!(outcome.failures == 0 && files == *expected, "{:?}", outcome.failed);
}

#[test]
fn with_config_every_slot_and_every_registry_gone_the_words_alone_restore_and_rebuild() {
    let scene = Scene::new();
    lab::back_up(&scene.open(None), &files(1)).unwrap();
    let gone: [fn(&Parsed) -> bool; 3] = [
        |parsed| matches!(parsed, Parsed::Config),
        |parsed| matches!(parsed, Parsed::Config | Parsed::Slot(_)),
        |parsed| matches!(parsed, Parsed::Config | Parsed::Slot(_) | Parsed::Registry { .. }),
    ];
    for gone in gone {
        for name in names(&scene.store()).iter().filter(|name| gone(&name.parsed())) {
            scene.store().delete(name).unwrap();
        }
        let error = open(&scene.store(), &scene.root).unwrap_err();
        assert!(
            error.remedy().is_some_and(|remedy| remedy.contains("key recover --rebuild-config")),
            "{error}"
        );
        let words = scene.root.words();
        let options = RecoverOptions { words: &words, unlock: By::AccessKey, lost: Lost::Rebuild };
        let access = key::recover(&scene.store(), &options, &SystemClock).unwrap().access_key.unwrap();
        restores(&scene.open(None), &files(1));
        // The new slot is as good as the old one, and the next backup goes on.
        let repository = open_with(&scene.store(), &Credential::AccessKey(access.text()), None).unwrap();
        restores(&repository, &files(1));
        assert_eq!(check_all(&repository).unwrap().problems, []);
        lab::back_up(&scene.open(None), &files(1)).unwrap();
    }
}

/// Of the data packs of a hundred backups two are lost.
#[test]
fn when_some_packs_are_gone_check_names_exactly_what_is_lost_and_restore_gives_the_rest() {
    let scene = Scene::new();
    // Each has a file of its own, and one that all have.
    let shared = ("srv/same".to_owned(), noise(99, 3000));
    let files =
        |number| Files::from([shared.clone(), (format!("srv/{number:02}"), noise(1000 + number, 3000))]);
    for number in 0..100 {
        lab::back_up(&scene.open(None), &files(number)).unwrap();
    }
    let is_data = |name: &&Name| matches!(name.parsed(), Parsed::Pack { kind: PackKind::Data, .. });
    let all = names(&scene.store());
    let packs: Vec<&Name> = all.iter().filter(is_data).collect();
    assert_eq!(packs.len(), 100);
    let domain = scene.open(None).own_domain().unwrap();
    let view = scene.open(None).view_to_read(&domain).unwrap();
    let key = scene.open(None).chunk_keys(&domain).unwrap().id;
    let same = view.index.pack_at(view.index.locations(&key.id(&shared.1))[0]).unwrap().id;
    let others = packs.iter().filter(|pack| !pack.as_str().ends_with(&same.to_string()));
    others.step_by(50).for_each(|pack| scene.store().delete(pack).unwrap());
    let repository = scene.open(None);
    let checked = check_all(&repository).unwrap();
    let (known, _) = repository.snapshots().unwrap();
    let mut all_lost = 0;
    for snapshot in &known {
        let files = files(snapshot.name.sequence - 1);
        let (back, outcome) = lab::restore(&repository, snapshot).unwrap();
        assert!(back.iter().all(|(path, bytes)| path.contains(".damaged") || files[path] == *bytes));
        let lost: BTreeSet<String> = files.keys().filter(|path| !back.contains_key(*path)).cloned().collect();
        assert_eq!(outcome.failures, lost.len() as u64);
        let label = format!("{:.8}: /", snapshot.name.id.to_string());
        let hurts = checked.problems.iter().flat_map(|problem| &problem.hurts);
        let named = hurts.filter_map(|hurt| hurt.strip_prefix(&label).map(str::to_owned));
        assert_eq!(named.collect::<BTreeSet<String>>(), lost);
        all_lost += lost.len();
    }
    assert_eq!((all_lost, checked.problems.len()), (2, 2), "{:?}", checked.problems);
}

#[test]
fn a_list_of_what_is_hurt_that_is_cut_says_so() {
    let scene = Scene::new();
    for number in 0..102 {
        // One content under another name in each: what is the same in two manifests is looked at once, and where a
        // manifest is cut is a matter of chance.
        let files = Files::from([(format!("srv/{number:03}"), noise(99, 3000))]);
        lab::back_up(&scene.open(None), &files).unwrap();
    }
    let is_data = |name: &&Name| matches!(name.parsed(), Parsed::Pack { kind: PackKind::Data, .. });
    let all = names(&scene.store());
    scene.store().delete(all.iter().find(is_data).unwrap()).unwrap();
    let problems = check_all(&scene.open(None)).unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    let hurts = &problems[0].hurts;
    assert_eq!(hurts.len(), 101, "{problems:?}");
    assert!(hurts[100].starts_with("and more"), "{hurts:?}");
}

fn cached_files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

fn change_all(folder: &Path, change: &dyn Fn(&mut Vec<u8>)) {
    for path in cached_files(folder) {
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        File::create(&path).unwrap().write_all(&bytes).unwrap();
    }
}

/// The root of the manifest of a backup: with the same keys it says whether two snapshots hold the same.
fn root_of(repository: &Repository) -> BlobId {
    let (known, _) = repository.snapshots().unwrap();
    known.iter().max_by_key(|known| known.name.sequence).unwrap().record.root
}

#[test]
fn whatever_the_cache_is_backup_restore_and_check_come_to_the_same() {
    let scene = Scene::new();
    let warm = tempfile::tempdir().unwrap();
    let warm = warm.path();
    lab::back_up(&scene.open(Some(warm)), &files(1)).unwrap();
    let stale = tempfile::tempdir().unwrap();
    copy(warm, stale.path());
    lab::back_up(&scene.open(Some(warm)), &files(2)).unwrap();
    let other = Scene::new();
    let foreign = tempfile::tempdir().unwrap();
    lab::back_up(&other.open(Some(foreign.path())), &files(3)).unwrap();
    // It lies where that of this repository would.
    let only = |folder: &Path| fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let ours = only(warm).file_name().unwrap().to_owned();
    fs::rename(only(foreign.path()), foreign.path().join(&ours)).unwrap();
    let memory = foreign.path().join(&ours).join("seen");
    // What another repository remembers is refused, and it says which file that is.
    assert!(open_with(&scene.store(), &Credential::Words(scene.root.words()), Some(foreign.path())).is_err());
    fs::remove_file(memory).unwrap();

    lab::back_up(&scene.open(None), &files(4)).unwrap();
    let expected = root_of(&scene.open(None));
    type Spoil<'a> = &'a dyn Fn(&Path);
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
    };
    let spoils: [(&str, Spoil<'_>); 10] = [
        ("as it is", &|_| {}),
        ("gone", &|folder| fs::remove_dir_all(folder.join(&ours)).unwrap()),
        ("stale", &|folder| copy(stale.path(), folder)),
        ("of another repository", &|folder| {
            fs::remove_dir_all(folder.join(&ours)).unwrap();
            copy(foreign.path(), folder);
        }),
        ("a bit flipped in each file", &|folder| change_all(folder, &flip)),
        ("each file cut in half", &|folder| change_all(folder, &|bytes| bytes.truncate(bytes.len() / 2))),
        ("each file empty", &|folder| change_all(folder, &Vec::clear)),
        ("each file longer", &|folder| change_all(folder, &|bytes| bytes.extend([0; 100]))),
        ("each file another one", &|folder| {
            let all = cached_files(folder);
            let bytes: Vec<_> = all.iter().map(|path| fs::read(path).unwrap()).collect();
            for (path, bytes) in all.iter().zip(bytes.iter().cycle().skip(1)) {
                File::create(path).unwrap().write_all(bytes).unwrap();
            }
        }),
        ("folders in the place of files", &|folder| {
            for path in cached_files(folder) {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            }
        }),
    ];
    for (what, spoil) in spoils {
        let folder = tempfile::tempdir().unwrap();
        copy(warm, folder.path());
        spoil(folder.path());
        let reopen = || scene.open(Some(folder.path()));
        let checked = check_all(&reopen()).unwrap();
        assert_eq!(checked.problems, [], "{what}");
        restores(&reopen(), &files(4));
        lab::back_up(&reopen(), &files(4)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(root_of(&scene.open(None)), expected, "{what}");
        restores(&scene.open(None), &files(4));
    }
}

/// Root may write anywhere, so it is a folder that is none.
#[test]
fn a_cache_that_cannot_be_written_costs_nothing_but_time() {
    let scene = Scene::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    drop(File::create(&file).unwrap());
    let locked = folder.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    for (number, cache) in (1..).zip([&file, &locked]) {
        lab::back_up(&scene.open(Some(cache)), &files(number)).unwrap();
        restores(&scene.open(Some(cache)), &files(number));
        assert_eq!(check_all(&scene.open(Some(cache))).unwrap().problems, []);
    }
}
