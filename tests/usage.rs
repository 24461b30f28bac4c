//! `usage` against an account made by brute force, on random repositories in which everything has happened:
//! several domains and clients, forgotten snapshots, packs that are to die, that nobody lists, that are set
//! aside, lost or cut, and objects that are not ours.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a test may stop at the first surprise, and its numbers are small"
)]

use std::{path::Path, sync::Arc, time::Duration};

use lifeboat::{
    clock::{SystemClock, Timestamp},
    compress::Compression,
    crypto::RootSecret,
    error::ErrorKind,
    format::{
        attestation::{Attestation, AttestedSection, digest},
        forgotten::Forgotten,
        node::compare_paths,
        pack::{PackKind, SectionHeader},
        quarantine::Quarantine,
        role::Role,
        tombstones::Tombstones,
    },
    id::{DomainId, IdentityId, ObjectId, PackId},
    ops::{
        backup::{self, BackupOptions},
        key::{self, AddOptions, Added, By as Unlock},
        usage::{self, By, Usage},
    },
    report,
    repository::{InitOptions, Repository, unlock::Credential},
    store::{Name, Parsed, Prefix, Store, StoreOptions},
};
use object_store::{ObjectStoreExt, memory::InMemory};

mod support {
    pub(crate) mod accounting;
    pub(crate) mod source;
}
use support::{
    accounting::{Expected, PARTS, Told, expected},
    source::Memory,
};

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

/// Numbers that are random enough and the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Files by path; each is the content of that number.
#[derive(Clone, Default)]
struct Files(Vec<(String, u64)>);

/// Contents of all sorts: empty, small ones that share a frame, one chunk, several.
fn content(number: u64) -> Vec<u8> {
    let mut seed = blake3::Hasher::new();
    seed.update(&number.to_le_bytes());
    let length = match number % 7 {
        0 => 0,
        1..=3 => 20 + (number * 37) % 4000,
        4 | 5 => 70_000 + (number * 991) % 200_000,
        _ => 1_500_000,
    };
    let mut bytes = vec![0; length as usize];
    seed.finalize_xof().fill(&mut bytes);
    // Half of it compresses.
    bytes.chunks_mut(64).step_by(2).for_each(|piece| piece.fill(number as u8));
    bytes
}

impl Files {
    fn change(&mut self, dice: &mut Dice) {
        for _ in 0..=dice.below(12) {
            let folder =
                ["srv/data", "srv/data/deep/er", "srv", "home/a", "home/b", "etc"][dice.below(6) as usize];
            self.0.push((format!("{folder}/f{:03}", dice.below(60)), dice.below(70)));
        }
        self.0.sort_by(|a, b| compare_paths(a.0.as_bytes(), b.0.as_bytes()));
        self.0.dedup_by(|a, b| a.0 == b.0);
        self.0.retain(|_| !dice.one_in(9));
        if self.0.is_empty() {
            self.0.push(("srv/one".to_owned(), 1));
        }
    }
}

fn back_up(repository: &Repository, host: &str, files: Vec<(String, Vec<u8>)>) -> ObjectId {
    let options = BackupOptions {
        host: host.to_owned(),
        user: "user".to_owned(),
        tags: Vec::new(),
        sources: vec![b"/".to_vec()],
        time: None,
        compression: Compression::Auto,
        // Inode and times are invented: nothing may be taken from the parent for them.
        reuse: backup::Reuse { unchanged: false, ..Default::default() },
        unchanged: backup::Unchanged::Keep,
        mode: backup::Mode::Store,
        program: "test".to_owned(),
        workers: 1,
    };
    backup::run(repository, &mut Memory(files), &options).unwrap().snapshot.unwrap().0
}

struct World {
    objects: Arc<InMemory>,
    store: Store,
    root: RootSecret,
    told: Told,
}

fn options() -> StoreOptions {
    StoreOptions {
        connections: 1,
        upload_limit: None,
        download_limit: None,
        retry_for: Duration::ZERO,
        s3: Default::default(),
        clock: Arc::new(SystemClock),
        progress: Arc::default(),
    }
}

impl World {
    fn new() -> Self {
        let objects = Arc::new(InMemory::new());
        let store = Store::from_object_store(Arc::<InMemory>::clone(&objects), "p", options()).unwrap();
        let root = RootSecret::generate().unwrap();
        Repository::create(&store, &root, "owner", InitOptions::default(), &SystemClock).unwrap();
        Self { objects, store, root, told: Told::default() }
    }

    fn open_with(&self, credential: &Credential, cache: Option<&Path>) -> Repository {
        let config = Repository::read_config(&self.store).unwrap();
        let secrets = Repository::unlock(&self.store, &config, credential).unwrap();
        Repository::open(self.store.clone(), config, secrets, cache, Arc::new(SystemClock)).unwrap()
    }

    fn owner(&self) -> Repository {
        self.open_with(&Credential::Words(self.root.words()), None)
    }

    fn add(&self, role: Role, label: &str, domain: Option<&str>, shared: bool) -> Added {
        let domain = domain.map(str::to_owned);
        let options = AddOptions { role, label: label.to_owned(), domain, shared, unlock: Unlock::AccessKey };
        key::add(&self.owner(), &options).unwrap()
    }

    fn open(&self, added: &Added) -> Repository {
        self.open_with(&Credential::AccessKey(added.access_key.as_ref().unwrap().text()), None)
    }

    /// Puts an object past the facade.
    fn put(&self, name: &str, bytes: Vec<u8>) {
        let path = object_store::path::Path::from(format!("p/{name}"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.objects.put(&path, bytes.into())).unwrap();
    }

    fn packs(&self) -> Vec<(DomainId, PackId, Name)> {
        let listed = self.store.list(&Prefix::all()).unwrap();
        let names = listed.into_iter().filter_map(|listed| Name::parse(&listed.name));
        let packs = names.filter_map(|name| match name.parsed() {
            Parsed::Pack { domain, id, .. } => Some((domain, id, name)),
            _ => None,
        });
        packs.collect()
    }

    /// Somebody who may vouches for some of the packs that are there now.
    fn attest(&mut self, dice: &mut Dice) {
        let owner = self.owner();
        let backs_up = |role| matches!(role, Role::Backup | Role::Owner);
        let registry = owner.registry();
        for domain in &registry.domains {
            let all = registry.certificates.iter();
            let writers = all.filter(|known| known.domain == Some(domain.id) && backs_up(known.role)).count();
            let index = owner.view(&domain.id).unwrap().index;
            for pack in index.packs().filter(|_| dice.one_in(2)) {
                let directory = index.directory(&pack).unwrap();
                let numbered = (0_u16..).zip(&directory.sections);
                let section = |(number, header): (u16, &SectionHeader)| AttestedSection {
                    id: header.id(),
                    digest: digest(&directory, number),
                };
                let attestation = Attestation { time: NOW, sections: numbered.map(section).collect() };
                owner.publish_attestation(&domain.id, &attestation).unwrap();
                // One who is alone in his domain needs nobody's word.
                if writers > 1 {
                    self.told.attested.insert(pack.id);
                }
            }
        }
    }

    fn tombstone(&mut self, host: &Repository, (domain, id): (DomainId, PackId)) {
        host.publish_tombstones(&domain, &Tombstones { time: NOW, packs: vec![id] }).unwrap();
        self.told.tombstoned.insert(id);
    }

    fn foreign(&mut self, name: &str, length: usize) {
        self.put(name, vec![1; length]);
        self.told.foreign.insert(name.to_owned());
    }
}

fn compare(found: &Usage, expected: &Expected, listed: u64) {
    assert_eq!(found.bucket, listed);
    assert_eq!(found.classes.sum(), listed);
    for (name, bytes) in found.classes.all() {
        assert_eq!(bytes, expected.classes[name], "{name}");
    }
    assert_eq!(found.nodes, expected.nodes.len() as u64, "each node once");
    let names: Vec<String> = found.rows.iter().map(|row| report::usage::name(&row.name)).collect();
    assert_eq!(names, expected.lines.keys().cloned().collect::<Vec<_>>());
    let mut shares = 0;
    for (row, (name, line)) in found.rows.iter().zip(&expected.lines) {
        let numbers = (row.stored, row.exclusive, row.shared);
        assert_eq!(numbers, (line.stored, line.exclusive, line.shared), "{name}");
        // What a lost manifest held stands in the record of its snapshot, and nobody else can say it.
        if found.by != By::Client || found.findings.problems_found == 0 {
            assert_eq!(row.logical, line.logical, "{name}");
        }
        let off = (u128::from(row.fair_share) * PARTS).abs_diff(line.fair);
        assert!(off < PARTS * expected.groups.len() as u128, "{name}: {off} parts off");
        shares += row.fair_share;
    }
    let fixed: u64 = report::usage::fixed(found).iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(shares + fixed, listed, "shares and fixed rows are the bucket");
}

/// A repository to which everything has happened, and the auditor's access.
fn random_world(seed: u64) -> (World, Added) {
    let (mut world, mut dice) = (World::new(), Dice(seed));
    let alone = world.add(Role::Backup, "alone", None, false);
    let both = ["x", "y"].map(|label| world.add(Role::Backup, label, Some("both"), false));
    let lab = world.add(Role::Backup, "lab", None, true);
    let host = world.add(Role::Maintain, "host", None, false);
    let auditor = world.add(Role::Audit, "auditor", None, false);
    let (host, owner) = (world.open(&host), world.owner());
    let open = |added: &Added| world.open(added);
    let clients = [
        (open(&alone), "alone"),
        (open(&both[0]), "x"),
        (open(&both[1]), "y"),
        (open(&lab), "h1"),
        (open(&lab), "h2"),
        (owner, "desk"),
    ];
    let mut files: Vec<Files> = vec![Files::default(); clients.len()];
    let mut snapshots = Vec::new();
    for round in 0..14 {
        let at = dice.below(clients.len() as u64) as usize;
        // Whoever has nothing of his own begins with what another one has.
        if files[at].0.is_empty() || dice.one_in(3) {
            files[at] = files[dice.below(clients.len() as u64) as usize].clone();
        }
        files[at].change(&mut dice);
        let mut all: Vec<_> = files[at].0.iter().map(|(path, n)| (path.clone(), content(*n))).collect();
        if round % 4 == 0 {
            // Enough for a manifest with branches.
            all.extend((0..300).map(|n| (format!("zoo/{n:03}"), n.to_string().into_bytes())));
        }
        let (repository, host_name) = &clients[at];
        let id = back_up(repository, host_name, all);
        snapshots.push((repository.own_domain().unwrap(), id));
        if dice.one_in(5) {
            world.attest(&mut dice);
        }
    }
    for (domain, id) in snapshots {
        if dice.one_in(3) {
            let forgotten = Forgotten::new(NOW, vec![id], "");
            host.publish_forgotten(&domain, &forgotten).unwrap();
        }
    }
    misfortunes(&mut world, &host, &mut dice);
    (world, auditor)
}

fn misfortunes(world: &mut World, host: &Repository, dice: &mut Dice) {
    let packs = world.packs();
    let pick = |dice: &mut Dice| packs[dice.below(packs.len() as u64) as usize].clone();
    for _ in 0..dice.below(4) {
        let (domain, id, name) = pick(dice);
        world.tombstone(host, (domain, id));
        if dice.one_in(4) {
            world.store.delete(&name).unwrap();
        }
    }
    if dice.one_in(2) {
        let (domain, _, name) = pick(dice);
        let quarantine = Quarantine { time: NOW, objects: vec![name.to_string()], reason: String::new() };
        host.publish_quarantine(&domain, &quarantine).unwrap();
        world.told.set_aside.insert(name.to_string());
    }
    if dice.one_in(3) {
        let (.., name) = pick(dice);
        if !world.told.set_aside.contains(name.as_str()) {
            world.foreign(name.as_str(), 4096 * 3 + 1);
        }
    }
    let (domain, ..) = pick(dice);
    let stray = |number| PackId::new([number; 32]);
    for number in 0..dice.below(3) as u8 {
        let name = Name::pack(&domain, PackKind::Data, &stray(number));
        world.put(name.as_str(), vec![0; 8192 + usize::from(number)]);
        if dice.one_in(2) {
            world.tombstone(host, (domain, stray(number)));
        }
    }
    let unknown = Name::pack(&DomainId::new([9; 8]), PackKind::Data, &stray(9));
    let nobody = Name::run(&domain, &IdentityId::new([8; 16]), &ObjectId::new([1; 32]));
    for name in ["notes.txt", "keys/notes", "d/x/packs", unknown.as_str(), nobody.as_str()] {
        if dice.one_in(2) {
            let length = 1 + dice.below(5000) as usize;
            world.foreign(name, length);
        }
    }
    world.foreign("lost+found/thing", 7);
}

#[test]
fn the_account_agrees_with_one_made_by_brute_force() {
    let mut met = std::collections::BTreeMap::<&str, u64>::new();
    for seed in 0..12 {
        let (world, auditor) = random_world(seed);
        let repository = world.open(&auditor);
        let listed = world.store.list(&Prefix::all()).unwrap().iter().map(|listed| listed.size).sum();
        for (by, depth) in
            [(By::Client, None), (By::Path(1), Some(1)), (By::Path(2), Some(2)), (By::Path(9), Some(9))]
        {
            let found = usage::run(&repository, by).unwrap();
            let expected = expected(&repository, &world.told, depth);
            compare(&found, &expected, listed);
            for (name, bytes) in found.classes.all() {
                *met.entry(name).or_default() += u64::from(bytes > 0);
            }
            let shared = found.rows.iter().filter(|row| row.shared > 0).count();
            *met.entry("shared").or_default() += shared as u64;
        }
    }
    // A test in which nothing happens would say nothing.
    assert!(met.values().all(|times| *times >= 8), "{met:?}");
}

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn one(path: &str, bytes: Vec<u8>) -> Vec<(String, Vec<u8>)> {
    vec![(path.to_owned(), bytes)]
}

#[test]
fn a_file_of_many_chunks_that_many_snapshots_share_is_walked_once() {
    let world = World::new();
    let lab = world.open(&world.add(Role::Backup, "lab", None, true));
    let large = noise(1, 80 << 20);
    for (host, path) in [("h1", "srv/disk"), ("h2", "srv/disk"), ("h2", "var/copy"), ("h1", "srv/disk")] {
        back_up(&lab, host, one(path, large.clone()));
    }
    let owner = world.owner();
    let listed = world.store.list(&Prefix::all()).unwrap().iter().map(|listed| listed.size).sum();
    for (by, depth) in [(By::Client, None), (By::Path(1), Some(1))] {
        let found = usage::run(&owner, by).unwrap();
        compare(&found, &expected(&owner, &world.told, depth), listed);
        assert_eq!(found.rows.len(), 2);
        assert!(found.rows.iter().all(|row| row.shared > 80 << 20));
        let logical: Vec<u64> = found.rows.iter().map(|row| row.logical >> 20).collect();
        assert_eq!(logical, if depth.is_none() { [160, 160] } else { [240, 80] });
        assert!(found.nodes < 16, "{}", found.nodes);
    }
}

#[test]
fn what_a_replaced_snapshot_reaches_is_reached_still() {
    let world = World::new();
    let owner = world.owner();
    back_up(&owner, "desk", one("srv/a", vec![7; 10]));
    let before = usage::run(&owner, By::Client).unwrap();
    let late = back_up(&owner, "desk", one("srv/b", noise(1, 100_000)));
    let domain = owner.own_domain().unwrap();
    let (known, _) = owner.snapshots().unwrap();
    // It holds what the first one holds; only the one that it replaces has the rest.
    let mut record = known[0].record.clone();
    (record.previous, record.replaces, record.nonce) = (Some(late), Some(late), [9; 16]);
    let begun = owner.view(&domain).unwrap().begun;
    owner.publish_snapshot(&domain, (3, &record), begun).unwrap().unwrap();
    assert_eq!(owner.snapshots().unwrap().0.len(), 2, "listings hide it");
    let after = usage::run(&owner, By::Client).unwrap();
    assert!(after.classes.reached_data > before.classes.reached_data);
    assert_eq!((after.classes.dead, after.snapshots), (0, 3));
}

#[test]
fn the_numbers_do_not_depend_on_the_cache() {
    let (world, auditor) = random_world(99);
    let credential = Credential::AccessKey(auditor.access_key.as_ref().unwrap().text());
    let without = usage::run(&world.open(&auditor), By::Client).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let with = usage::run(&world.open_with(&credential, Some(folder.path())), By::Client).unwrap();
        assert_eq!((with.classes, with.rows), (without.classes, without.rows.clone()));
    }
}

#[test]
fn what_nothing_explains_is_named_and_what_a_prune_does_is_explained() {
    let world = World::new();
    let host = world.open(&world.add(Role::Maintain, "host", None, false));
    let owner = world.owner();
    let mut old = Vec::new();
    for number in 0..4 {
        back_up(&owner, "desk", one("srv/a", noise(number, 100_000)));
        old.push(world.packs());
    }
    let domain = owner.own_domain().unwrap();
    let of = |round: usize| {
        let new = |pack: &&(DomainId, PackId, Name)| round == 0 || !old[round - 1].contains(pack);
        let data = |pack: &&(DomainId, PackId, Name)| pack.2.as_str().contains("/packs/d/");
        old[round].iter().filter(new).find(data).unwrap().clone()
    };
    let unexplained = || {
        let found = usage::run(&world.owner(), By::Client).unwrap();
        let names = found.findings.unexplained.into_iter();
        let mut names: Vec<_> = names.map(|it| (it.object, it.size)).collect();
        names.sort();
        (names, found.findings.problems_found)
    };
    assert_eq!(unexplained(), (Vec::new(), 0));
    // A prune at work: marked, deleted, not yet out of the index; and a pack that no index lists yet.
    let (_, first, name) = of(0);
    host.publish_tombstones(&domain, &Tombstones { time: NOW, packs: vec![first] }).unwrap();
    let forgotten = owner.snapshots().unwrap().0[0].name.id;
    host.publish_forgotten(&domain, &Forgotten::new(NOW, vec![forgotten], "")).unwrap();
    world.store.delete(&name).unwrap();
    let stray = Name::pack(&domain, PackKind::Data, &PackId::new([7; 32]));
    world.put(stray.as_str(), vec![0; 4096]);
    assert_eq!(unexplained(), (Vec::new(), 0));
    let found = usage::run(&owner, By::Client).unwrap();
    assert_eq!((found.findings.deleted, found.findings.unindexed.bytes), (1, 4096));
    // A pack that is gone, one that was cut, an object that is not ours, a record larger than any.
    world.store.delete(&of(1).2).unwrap();
    world.put(of(2).2.as_str(), vec![0; 5000]);
    let large = Name::run(&domain, &owner.identity(), &ObjectId::new([6; 32]));
    world.put(large.as_str(), vec![0; (4 << 20) + 1]);
    world.put("notes", vec![0; 9]);
    let mut expected = vec![
        (of(1).2.to_string(), None),
        (of(2).2.to_string(), Some(5000)),
        (large.to_string(), Some((4 << 20) + 1)),
        ("notes".to_owned(), Some(9)),
    ];
    expected.sort();
    let (names, problems) = unexplained();
    assert_eq!(names, expected);
    assert!(problems > 0, "snapshots need what is gone");
}

#[test]
fn only_who_reads_manifests_may_ask() {
    let world = World::new();
    let machine = world.add(Role::Backup, "machine", None, false);
    back_up(&world.open(&machine), "machine", one("srv/a", vec![1; 100]));
    let error = usage::run(&world.open(&machine), By::Client).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    for role in [Role::Audit, Role::Maintain, Role::Restore] {
        let added = world.add(role, role.name(), None, false);
        let found = usage::run(&world.open(&added), By::Client).unwrap();
        assert_eq!(found.rows.len(), 1, "{role:?}");
    }
}
