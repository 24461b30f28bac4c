//! Repositories of any size, made from a seed: one grows in chunks, one in files, one in snapshots, one in
//! domains. Whatever a command reads is real: sealed, signed, and named by its hash. Only the packs that
//! hold the many chunks are names and sizes alone (`packs.rs`).

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use lifeboat::{
    clock::{Clock, SystemClock, Timestamp},
    compress::Compression,
    crypto::RootSecret,
    error::Result,
    format::{
        config::Config,
        entry::{Content, Entry, EntryKind, Metadata},
        envelope::{self, EnvelopeHeader, RecordKind, Sealer},
        pack::encode_index,
        registry::{Certificate, Domain, Registry},
        role::Role,
        secrets::Secrets,
        slot::{KdfParameters, Slot},
    },
    id::{DomainId, ObjectId},
    ops::backup::{self, BackupOptions, Done, Item, Mode, Reuse, Source, Unchanged, tree},
    repository::{InitOptions, Repository, registry, unlock::Credential},
    store::{Name, Store, StoreOptions},
};
use object_store::{ObjectStore, local::LocalFileSystem, memory::InMemory};
use zeroize::Zeroizing;

use super::{
    packs::{self, Packs},
    store::Counted,
};

const SEED: u64 = 5;
const PASSPHRASE: &str = "only to be measured";
/// Files of a folder.
const FILES_PER_FOLDER: u64 = 1000;
/// Packs of an index object: as a backup writes one for 131,072 chunks.
const PACKS_PER_INDEX: u64 = 1024;
/// What a small backup holds.
const SMALL: u64 = 1000;
/// What the backup of another domain holds.
const TINY: u64 = 1;
/// Who backs up to the domain of the owner.
pub(crate) const HOST: &str = "host";
/// The domain of the owner.
const MAIN: DomainId = DomainId::new([255; 8]);

/// What there is many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    /// A small backup of its own, and nothing else.
    Small,
    /// A small backup in a domain of so many chunks.
    Chunks(u64),
    /// One backup of so many files.
    Files(u64),
    /// So many snapshots of a small backup.
    Snapshots(u64),
    /// So many domains with a small backup each.
    Domains(u64),
    /// One backup of so many files that are really there.
    Tree(u64),
}

impl World {
    /// Files of a backup.
    pub(crate) const fn files(self) -> u64 {
        match self {
            Self::Files(files) | Self::Tree(files) => files,
            _ => SMALL,
        }
    }

    /// How much there is of what there is much of.
    pub(crate) const fn count(self) -> u64 {
        match self {
            Self::Small => 1,
            Self::Chunks(count)
            | Self::Files(count)
            | Self::Snapshots(count)
            | Self::Domains(count)
            | Self::Tree(count) => count,
        }
    }

    /// Packs that are names and sizes alone.
    pub(crate) const fn made_up_packs(self) -> u64 {
        if let Self::Chunks(chunks) = self { packs::count_of(chunks) } else { 0 }
    }

    /// The same, so much smaller.
    pub(crate) const fn divided(self, by: u64) -> Self {
        match self {
            Self::Small => Self::Small,
            Self::Chunks(count) => Self::Chunks(count / by),
            Self::Files(count) => Self::Files(count / by),
            Self::Snapshots(count) => Self::Snapshots(count / by),
            Self::Domains(count) => Self::Domains(count / by),
            Self::Tree(count) => Self::Tree(count / by),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Chunks(_) => "chunks",
            Self::Files(_) => "files",
            Self::Snapshots(_) => "snapshots",
            Self::Domains(_) => "domains",
            Self::Tree(_) => "tree",
        }
    }
}

/// Files whose names, metadata and content follow from a number.
struct Files {
    count: u64,
    /// From the first on, so many have another content and another time than before.
    changed: u64,
}

fn entry(path: String, kind: EntryKind, number: u64, time: i64) -> Entry {
    let time = Timestamp::from_seconds(time);
    let metadata = Metadata {
        mode: if kind == EntryKind::Directory { 0o755 } else { 0o644 },
        user: "root".to_owned(),
        group: "root".to_owned(),
        mtime: time,
        ctime: time,
        btime: Some(time),
        inode: number,
        device_key: 1,
        ..Metadata::of(kind)
    };
    let content = Content::Inline(Vec::new());
    Entry { path: path.into_bytes(), metadata, content, changed_while_read: false, error: None }
}

impl Source for Files {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let file = |number: u64| {
            let folder = format!("data/{:05}", number / FILES_PER_FOLDER);
            let version = u64::from(number < self.changed);
            let content = format!("version {version} of file {number}\n").into_bytes();
            let time = 1_700_000_000 + i64::try_from(version).unwrap();
            let path = format!("{folder}/{:03}.txt", number % FILES_PER_FOLDER);
            let mut file = entry(path, EntryKind::File, number, time);
            file.metadata.size = content.len() as u64;
            let file = Item::File(file, Box::new(move || Ok(Box::new(Cursor::new(content)))));
            let first = number.is_multiple_of(FILES_PER_FOLDER);
            let folder = first.then(|| Item::Entry(entry(folder, EntryKind::Directory, number, time)));
            folder.into_iter().chain([file]).map(Ok)
        };
        let data = entry("data".to_owned(), EntryKind::Directory, u64::MAX, 1_700_000_000);
        Ok(Box::new(std::iter::once(Ok(Item::Entry(data))).chain((0..self.count).flat_map(file))))
    }
}

/// A wall clock that goes before by so much.
struct Later(Duration);

impl Clock for Later {
    fn now(&self) -> Timestamp {
        let now = SystemClock.now();
        Timestamp { seconds: now.seconds + i64::try_from(self.0.as_secs()).unwrap(), ..now }
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration);
    }
}

/// A world as it lies in a storage.
pub(crate) struct Place {
    pub(crate) world: World,
    pub(crate) objects: Arc<Counted>,
    pub(crate) connections: usize,
    /// Where files are: those of a world that has real ones, and what commands restore.
    pub(crate) files: PathBuf,
}

fn options(connections: usize) -> StoreOptions {
    StoreOptions {
        connections,
        upload_limit: None,
        download_limit: None,
        retry_for: Duration::ZERO,
        s3: Default::default(),
        clock: Arc::new(SystemClock),
        progress: Arc::default(),
    }
}

impl Place {
    /// The world of a storage that was filled before.
    pub(crate) fn of(
        world: World,
        objects: Arc<dyn ObjectStore>,
        connections: usize,
        files: PathBuf,
    ) -> Self {
        let place = Self { world, objects: Counted::new(objects), connections, files };
        place.list_packs();
        place.objects.take();
        place
    }

    /// Makes a world in an empty storage.
    pub(crate) fn make(
        world: World,
        objects: Arc<dyn ObjectStore>,
        connections: usize,
        files: PathBuf,
    ) -> Self {
        let root = root(SEED);
        let place = Self { world, objects: Counted::new(objects), connections, files };
        let others = match world {
            World::Domains(count) => (1..count).map(|number| secrets(&root, number)).collect(),
            _ => Vec::new(),
        };
        create(&place.store(), &root, &others);
        if let Some(tree) = place.tree() {
            write_files(&tree, world.files());
        }
        let done = place.back_up(None, 0);
        match world {
            World::Small | World::Files(_) | World::Tree(_) => {}
            World::Chunks(_) => place.add_packs(),
            World::Snapshots(count) => place.add_snapshots(&done, count),
            World::Domains(_) => place.add_domains(&root, others),
        }
        place.list_packs();
        place.objects.take();
        place
    }

    /// An empty repository, of other keys, below a folder.
    pub(crate) fn another(&self, folder: &Path) -> Self {
        let objects = Counted::new(Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap()));
        let files = folder.to_owned();
        let place = Self { world: World::Small, objects, connections: self.connections, files };
        create(&place.store(), &root(SEED + 1), &[]);
        place.objects.take();
        place
    }

    /// Where the files are that are really there.
    fn tree(&self) -> Option<PathBuf> {
        matches!(self.world, World::Tree(_)).then(|| self.files.join("tree"))
    }

    pub(crate) fn store(&self) -> Store {
        let objects: Arc<dyn ObjectStore> = Arc::<Counted>::clone(&self.objects);
        Store::from_object_store(objects, "", options(self.connections)).unwrap()
    }

    /// As a command opens it, with a passphrase.
    pub(crate) fn open(&self, cache: Option<&Path>) -> Repository {
        let store = self.store();
        let config = Repository::read_config(&store).unwrap();
        let credential = Credential::Passphrase(Zeroizing::new(PASSPHRASE.to_owned()), None);
        let clock = Arc::new(Later(self.objects.later()));
        Repository::unlock_and_open(store, config, &credential, cache, clock).unwrap()
    }

    /// A backup after so many files have changed.
    pub(crate) fn back_up(&self, cache: Option<&Path>, changed: u64) -> Done {
        let mut source: Box<dyn Source> = match self.tree() {
            Some(tree) => Box::new(tree::Tree { sources: vec![tree], filter: Default::default() }),
            None => Box::new(Files { count: self.world.files(), changed }),
        };
        back_up(&self.open(cache), &mut *source, (HOST, self.connections))
    }

    /// The packs of a domain that has more than there are bytes for.
    pub(crate) fn packs(&self) -> Option<(DomainId, Packs)> {
        let World::Chunks(chunks) = self.world else { return None };
        Some((MAIN, Packs::of_chunks(SEED, chunks, root(SEED).owner_identity().identity())))
    }

    fn list_packs(&self) {
        if let Some((domain, packs)) = self.packs() {
            self.objects.list_also(domain, packs);
        }
    }

    fn add_packs(&self) {
        let (domain, packs) = self.packs().unwrap();
        let repository = self.open(None);
        let header = EnvelopeHeader {
            kind: RecordKind::Index,
            repository: repository.config.repository_id,
            domain,
            author: repository.identity(),
            sequence: 0,
            epoch: 0,
        };
        let key = repository.index_key(&domain).unwrap();
        let numbers = (0..packs.count).step_by(usize::try_from(PACKS_PER_INDEX).unwrap());
        for first in numbers {
            let last = packs.count.min(first + PACKS_PER_INDEX);
            let listed: Vec<_> = (first..last).map(|number| packs.indexed(number)).collect();
            let plain = encode_index(&listed);
            let sealer = Sealer::Symmetric(key.as_bytes());
            let sealed = envelope::seal(&header, &sealer, repository.signer(), &plain).unwrap();
            let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
            let name = Name::index(&domain, &repository.identity(), &id);
            repository.store.create(&name, Bytes::from(sealed)).unwrap();
        }
    }

    fn add_snapshots(&self, first: &Done, count: u64) {
        let repository = self.open(None);
        let (mut before, mut record) = (first.snapshot.unwrap(), first.record.clone());
        while before.1 < count {
            record.previous = Some(before.0);
            record.time.seconds += 1;
            record.nonce = *blake3::hash(&before.1.to_le_bytes()).as_bytes().first_chunk().unwrap();
            let now = SystemClock.elapsed();
            let sent = repository.publish_snapshot(&MAIN, (before.1 + 1, &record), now).unwrap();
            before = (sent.unwrap().1, before.1 + 1);
        }
    }

    /// Each domain is filled beside a registry that holds no other, since a backup reads the registry.
    fn add_domains(&self, root: &RootSecret, others: Vec<Secrets>) {
        let config = Repository::read_config(&self.store()).unwrap();
        for (number, secrets) in (1..).zip(others) {
            let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let aside = Store::from_object_store(objects, "", options(1)).unwrap();
            registry::publish(&aside, root, &first_registry(root, &[(number, &secrets)])).unwrap();
            let repository =
                Repository::open(aside, config.clone(), secrets, None, Arc::new(SystemClock)).unwrap();
            back_up(&repository, &mut Files { count: TINY, changed: 0 }, ("another host", 1));
            self.take_over(&repository.store, &domain_id(number));
        }
    }

    fn take_over(&self, from: &Store, domain: &DomainId) {
        let to = self.store();
        for listed in from.list(&lifeboat::store::Prefix::domains()).unwrap() {
            assert!(listed.name.starts_with(&format!("d/{domain}/")), "{}", listed.name);
            let name = Name::parse(&listed.name).unwrap();
            to.create(&name, from.read(&name, usize::MAX).unwrap()).unwrap();
        }
    }
}

fn root(seed: u64) -> RootSecret {
    RootSecret::from_bytes(*blake3::hash(&seed.to_le_bytes()).as_bytes())
}

fn domain_id(number: u64) -> DomainId {
    DomainId::new(number.to_le_bytes())
}

/// What the client of a domain holds.
fn secrets(root: &RootSecret, number: u64) -> Secrets {
    Secrets::for_role(root, Role::Backup, Some(domain_id(number)), &[1]).unwrap()
}

/// The owner's domain, and those of these clients.
fn first_registry(root: &RootSecret, clients: &[(u64, &Secrets)]) -> Registry {
    let InitOptions { commit_window_seconds, minimum_grace_seconds, .. } = InitOptions::default();
    let mut registry = Registry {
        number: 1,
        previous: None,
        features: Default::default(),
        epochs: vec![registry::epoch(root, 1)],
        certificates: vec![registry::owner_certificate(root, MAIN, &SystemClock)],
        domains: vec![Domain::new(MAIN, "main".to_owned())],
        revocations: Vec::new(),
        commit_window_seconds,
        minimum_grace_seconds,
        unknown: Default::default(),
    };
    for (number, secrets) in clients {
        let label = format!("client-{number}");
        registry.domains.push(Domain::new(domain_id(*number), label.clone()));
        registry.certificates.push(Certificate {
            identity: secrets.identity(),
            verifying_key: secrets.signing_key().verifying_key().to_bytes(),
            role: Role::Backup,
            label,
            domain: Some(domain_id(*number)),
            shared: false,
            created: SystemClock.now(),
        });
    }
    registry
}

/// What `init` does, but every name and key follows from the seed: so the same requests are made each time.
fn create(store: &Store, root: &RootSecret, others: &[Secrets]) {
    let clients: Vec<(u64, &Secrets)> = (1..).zip(others).collect();
    let first = first_registry(root, &clients);
    registry::publish(store, root, &first).unwrap();
    let kdf = KdfParameters::QUICK;
    let slot = Slot::seal_passphrase(&Secrets::owner(root), PASSPHRASE, kdf).unwrap();
    store.create(&Name::slot(&slot.name()), Bytes::from(slot.encode())).unwrap();
    let config = Config {
        format: 1,
        repository_id: root.repository_id(),
        root_public_key: root.signing_key().verifying_key().to_bytes(),
        commit_window_seconds: first.commit_window_seconds,
        minimum_grace_seconds: first.minimum_grace_seconds,
    };
    store.create(&Name::config(), Bytes::from(config.encode())).unwrap();
}

/// Small files that are old enough to be trusted when this returns.
fn write_files(tree: &Path, count: u64) {
    for number in 0..count {
        let folder = tree.join(format!("{:05}", number / FILES_PER_FOLDER));
        if number.is_multiple_of(FILES_PER_FOLDER) {
            fs::create_dir_all(&folder).unwrap();
        }
        let name = format!("{:03}.txt", number % FILES_PER_FOLDER);
        fs::write(folder.join(name), format!("file {number}\n")).unwrap();
    }
    SystemClock.sleep(Duration::from_secs(4));
}

fn back_up(repository: &Repository, source: &mut dyn Source, (host, workers): (&str, usize)) -> Done {
    let options = BackupOptions {
        host: host.to_owned(),
        user: "user".to_owned(),
        tags: Vec::new(),
        sources: vec![b"/data".to_vec()],
        time: None,
        compression: Compression::Auto,
        reuse: Reuse::default(),
        unchanged: Unchanged::Keep,
        mode: Mode::Store,
        program: "scale".to_owned(),
        workers,
    };
    backup::run(repository, source, &options).unwrap()
}
