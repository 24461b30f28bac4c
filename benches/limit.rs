//! How fast this machine could be: the bare parts of a backup and a restore in a loop, without a manifest, an
//! index or a repository, beside what the engine takes for the same files.
//!
//! `cargo bench --bench limit -- CORPUS [FOLDER]`: the files below CORPUS, which should be in the page cache,
//! and a folder to write to. Without arguments both are made in a temporary folder.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement may stop at the first surprise"
)]

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use lifeboat::{
    chunk::{ChunkSizes, Chunker},
    clock::{Clock, SystemClock},
    compress::{Codec, Compression, Compressor, Plaintext},
    crypto::{ChunkKeys, ChunkRoot, FrameKey, RootSecret},
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        read::{self, Seen},
        select::Selection,
        walk::{Filter, FilterOptions, Found, Walk, Walked},
    },
    format::{entry::EntryKind, slot::KdfParameters},
    id::{BlobId, DomainId},
    limits,
    ops::{
        backup::{self, BackupOptions, Mode, Reuse, Unchanged, ingest, tree::Tree},
        check::{self, CheckOptions, Depth, Subset},
        restore::{self, RestoreOptions},
    },
    progress::Progress,
    repository::{InitOptions, Repository, unlock::Credential},
    store::{Location, Store, StoreOptions},
};
use rustix::time::{ClockId, clock_gettime};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How often the disk is told to write what a restore has written; the engine counts bytes.
const FLUSH_INTERVAL: Duration = Duration::from_millis(50);
/// Neighbouring files that one thread takes at a time.
const BATCH_FILES: usize = 64;
/// Files of a made-up corpus, and bytes of each.
const MADE_UP: (usize, usize) = (20_000, 8 << 10);

/// What the time goes to.
#[derive(Clone, Copy)]
enum Part {
    Walk,
    Read,
    Cut,
    Id,
    Compress,
    Seal,
    Verify,
    WritePacks,
    ReadPacks,
    HashPacks,
    Open,
    WriteFiles,
}

const NAMES: [&str; 12] = [
    "walk and look at files",
    "open and read files",
    "cut",
    "id of chunks",
    "compress frames",
    "seal frames",
    "open, decompress and id again",
    "write packs",
    "read packs",
    "hash packs",
    "open, decompress and id",
    "create and write files",
];

const FIRST: &[Part] = &[
    Part::Walk,
    Part::Read,
    Part::Cut,
    Part::Id,
    Part::Compress,
    Part::Seal,
    Part::Verify,
    Part::WritePacks,
];
const UNCHANGED: &[Part] = &[Part::Walk];
const CHECK: &[Part] = &[Part::ReadPacks, Part::HashPacks, Part::Open];
const RESTORE: &[Part] = &[Part::ReadPacks, Part::Open, Part::WriteFiles];

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// CPU time of one thread by part.
#[derive(Clone, Copy, Default)]
struct Spent([Duration; NAMES.len()]);

impl Spent {
    fn on<T>(&mut self, part: Part, work: impl FnOnce() -> T) -> T {
        let begun = cpu(ClockId::ThreadCPUTime);
        let done = work();
        self.0[part as usize] += cpu(ClockId::ThreadCPUTime) - begun;
        done
    }

    fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, part)| *sum += part);
    }

    fn sum(&self, parts: &[Part]) -> f64 {
        parts.iter().map(|part| self.0[*part as usize].as_secs_f64()).sum()
    }
}

/// Where a frame was written, and what is in it.
struct Frame {
    start: usize,
    length: usize,
    codec: Codec,
    chunks: Vec<(BlobId, usize)>,
}

type Pack = (PathBuf, Vec<Frame>);

/// What all threads share.
struct Shared {
    /// Whoever wants files walks a little: so few folders are open at a time.
    walk: Mutex<Walk>,
    sizes: Mutex<Vec<usize>>,
    next: AtomicUsize,
    seen: Mutex<HashSet<BlobId>>,
    packs: Mutex<Vec<Pack>>,
    keys: ChunkKeys,
    key: FrameKey,
    folder: PathBuf,
}

/// One thread of a bare backup.
struct Writer<'a> {
    shared: &'a Shared,
    spent: Spent,
    compressor: Compressor,
    plain: Vec<u8>,
    chunks: Vec<(BlobId, usize)>,
    pack: Vec<u8>,
    frames: Vec<Frame>,
}

impl Writer<'_> {
    fn run(mut self) -> Spent {
        let chunker = Chunker::new(self.shared.keys.gear.table(), ChunkSizes::DEFAULT);
        let mut content = Vec::new();
        loop {
            let batch = {
                let mut walk = self.shared.walk.lock().unwrap();
                self.spent
                    .on(Part::Walk, || walk.by_ref().filter_map(file).take(BATCH_FILES).collect::<Vec<_>>())
            };
            if batch.is_empty() {
                break;
            }
            for found in batch {
                content.clear();
                self.spent.on(Part::Read, || {
                    let seen = Seen::of(&found.metadata, found.device);
                    let mut file = read::open_file(found.dir.as_fd(), &found.name, &seen).unwrap();
                    file.read_to_end(&mut content).unwrap();
                });
                self.shared.sizes.lock().unwrap().push(content.len());
                let mut at = 0;
                while at < content.len() {
                    let length = self.spent.on(Part::Cut, || chunker.cut(&content[at..]));
                    self.chunk(&content[at..at + length]);
                    at += length;
                }
            }
        }
        self.frame();
        self.write();
        self.spent
    }

    fn chunk(&mut self, chunk: &[u8]) {
        let id = self.spent.on(Part::Id, || self.shared.keys.id.id(chunk));
        if self.shared.seen.lock().unwrap().insert(id) {
            let bytes = self.plain.len() + chunk.len();
            if bytes > ingest::frame_target(bytes, self.chunks.len() + 1) {
                self.frame();
            }
            self.plain.extend_from_slice(chunk);
            self.chunks.push((id, chunk.len()));
        }
    }

    fn frame(&mut self) {
        let chunks = std::mem::take(&mut self.chunks);
        let counter = self.frames.len() as u64;
        let what = Plaintext::of(self.plain.len(), chunks.len(), false);
        let (codec, stored) =
            self.spent.on(Part::Compress, || self.compressor.compress_as(&self.plain, what).unwrap());
        let sealed =
            self.spent.on(Part::Seal, || self.shared.key.seal_in_place(counter, b"", stored).unwrap());
        self.spent
            .on(Part::Verify, || open(self.shared, &mut self.compressor, (counter, codec), &sealed, &chunks));
        self.frames.push(Frame { start: self.pack.len(), length: sealed.len(), codec, chunks });
        self.pack.extend_from_slice(&sealed);
        self.plain.clear();
        if self.pack.len() >= limits::PACK_BYTES_TARGET {
            self.write();
        }
    }

    fn write(&mut self) {
        let mut packs = self.shared.packs.lock().unwrap();
        let path = self.shared.folder.join(format!("pack-{}", packs.len()));
        packs.push((path.clone(), std::mem::take(&mut self.frames)));
        drop(packs);
        self.spent.on(Part::WritePacks, || {
            let mut file = File::create(path).unwrap();
            file.write_all(&self.pack).unwrap();
            file.sync_all().unwrap();
        });
        self.pack.clear();
    }
}

fn open(
    shared: &Shared,
    compressor: &mut Compressor,
    (counter, codec): (u64, Codec),
    sealed: &[u8],
    chunks: &[(BlobId, usize)],
) {
    let stored = shared.key.open(counter, b"", sealed).unwrap();
    let length = chunks.iter().map(|(_, length)| length).sum();
    let plain = compressor.decompressor().decompress(codec, stored, length).unwrap();
    let mut rest = &plain[..];
    for (id, length) in chunks {
        let (chunk, others) = rest.split_at(*length);
        assert_eq!(shared.keys.id.id(chunk), *id);
        rest = others;
    }
}

/// Runs the same work on so many threads and adds up what they spent.
fn on_threads(workers: usize, work: impl Fn() -> Spent + Sync) -> (Spent, f64) {
    let begun = SystemClock.elapsed();
    let mut spent = Spent::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(&work)).collect();
        threads.into_iter().for_each(|thread| spent.add(thread.join().unwrap()));
    });
    (spent, (SystemClock.elapsed() - begun).as_secs_f64())
}

/// Reads packs back; `hash` as a check does.
fn read_back(shared: &Shared, hash: bool) -> Spent {
    let (mut spent, mut compressor) = (Spent::default(), Compressor::new(Compression::Auto).unwrap());
    let packs = shared.packs.lock().unwrap().len();
    loop {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= packs {
            return spent;
        }
        let (path, frames) = {
            let mut packs = shared.packs.lock().unwrap();
            let (path, frames) = &mut packs[number];
            (path.clone(), std::mem::take(frames))
        };
        let bytes = spent.on(Part::ReadPacks, || fs::read(path).unwrap());
        if hash {
            spent.on(Part::HashPacks, || blake3::hash(&bytes));
        }
        for (counter, frame) in (0..).zip(&frames) {
            let sealed = &bytes[frame.start..frame.start + frame.length];
            spent.on(Part::Open, || {
                open(shared, &mut compressor, (counter, frame.codec), sealed, &frame.chunks);
            });
        }
        shared.packs.lock().unwrap()[number].1 = frames;
    }
}

/// Makes as many files of the same sizes.
fn write_files(shared: &Shared) -> Spent {
    let (mut spent, bytes) = (Spent::default(), vec![1; limits::MIB]);
    loop {
        let first = shared.next.fetch_add(BATCH_FILES, Ordering::Relaxed);
        let sizes: Vec<usize> =
            shared.sizes.lock().unwrap().iter().skip(first).take(BATCH_FILES).copied().collect();
        if sizes.is_empty() {
            return spent;
        }
        let folder = shared.folder.join(format!("files-{}", first / BATCH_FILES / 16));
        fs::create_dir_all(&folder).unwrap();
        for (number, size) in (first..).zip(sizes) {
            spent.on(Part::WriteFiles, || {
                let mut file = File::create(folder.join(number.to_string())).unwrap();
                let mut left = size;
                while left > 0 {
                    left -= file.write(&bytes[..left.min(bytes.len())]).unwrap();
                }
            });
        }
    }
}

fn made_up(folder: &Path) -> PathBuf {
    let corpus = folder.join("corpus");
    let (files, length) = MADE_UP;
    for number in 0..files {
        let folder = corpus.join((number / 100).to_string());
        fs::create_dir_all(&folder).unwrap();
        let mut words = String::new();
        while words.len() < length {
            let hash = blake3::hash(format!("{number} {}", words.len()).as_bytes()).to_hex();
            words.extend(hash.chars().take(8));
            words.push_str(" a line of a file that others have too\n");
        }
        fs::write(folder.join(number.to_string()), words).unwrap();
    }
    corpus
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let temporary = tempfile::tempdir_in(arguments.get(1).map_or(".", String::as_str)).unwrap();
    let folder = temporary.path().canonicalize().unwrap();
    let corpus = arguments.first().map_or_else(|| made_up(&folder), |path| fs::canonicalize(path).unwrap());
    let workers = thread::available_parallelism().unwrap().get();
    let engine = Engine::new(&folder, corpus.clone(), workers);
    // Once, so that the files are in the page cache.
    engine.back_up(Mode::DryRun);
    let mut spent = Spent::default();
    let walk = Walk::new(&[corpus], Filter::new(FilterOptions::default()).unwrap());
    let shared = Shared {
        walk: Mutex::new(walk),
        sizes: Mutex::default(),
        next: AtomicUsize::new(0),
        seen: Mutex::default(),
        packs: Mutex::default(),
        keys: ChunkRoot::from_bytes([1; 32]).domain(&DomainId::new([1; 8])),
        key: FrameKey::derive(&[1; 32], b"").unwrap().0,
        folder: folder.join("limit"),
    };
    fs::create_dir(&shared.folder).unwrap();
    let mut walls = Vec::new();
    let mut pass = |work: &(dyn Fn() -> Spent + Sync)| {
        shared.next.store(0, Ordering::Relaxed);
        let (one, wall) = on_threads(workers, work);
        walls.push(wall);
        one
    };
    spent.add(pass(&|| writer(&shared).run()));
    spent.add(pass(&|| read_back(&shared, true)));
    // Its parts are those of the check; only its wall time counts.
    pass(&|| read_back(&shared, false));
    let (written, synced) = to_the_disk(&shared.folder, || pass(&|| write_files(&shared)));
    spent.add(written);
    let [first, check, read, write] = walls[..] else { unreachable!("there are four passes") };
    let sizes = shared.sizes.lock().unwrap();
    println!("{} files, {} MiB, {workers} threads\n", sizes.len(), sizes.iter().sum::<usize>() >> 20);
    println!("| part | CPU s |\n|---|---|");
    for (name, time) in NAMES.iter().zip(spent.0) {
        println!("| {name} | {:.2} |", time.as_secs_f64());
    }
    println!("\n| step | limit CPU s | wall s | lifeboat CPU s | wall s | CPU ratio | wall ratio |");
    println!("|---|---|---|---|---|---|---|");
    let row = |name: &str, limit: (f64, f64), took: (f64, f64)| {
        let ((cpu, wall), (own, own_wall)) = (limit, took);
        let ratios = (own / cpu, own_wall / wall);
        println!(
            "| {name} | {cpu:.2} | {wall:.2} | {own:.2} | {own_wall:.2} | {:.2} | {:.2} |",
            ratios.0, ratios.1
        );
    };
    row("first backup", (spent.sum(FIRST), first), engine.back_up(Mode::Store));
    let stored =
        [&shared.folder, &engine.folder.join("repository")].map(|folder| bytes_of_packs(folder, false));
    SystemClock.sleep(Duration::from_secs(3));
    engine.back_up(Mode::Store);
    // A walk is one thread's work.
    let walked = spent.sum(UNCHANGED);
    row("unchanged backup", (walked, walked), engine.back_up(Mode::Store));
    row("check --read-data", (spent.sum(CHECK), check), engine.check());
    row("restore", (spent.sum(RESTORE), read + write + synced), engine.restore());
    let [bare, engines] = stored.map(|bytes| bytes as f64 / 1e6);
    println!("\npacks: {bare:.1} MB bare, {engines:.1} MB of the engine, with directories and manifest");
}

/// What comes of work during which the disk is told to write, as the engine tells it, and the seconds from its end until the disk has
/// everything: a restore does not end before.
fn to_the_disk<T>(folder: &Path, work: impl FnOnce() -> T) -> (T, f64) {
    let file = File::open(folder).unwrap();
    let (done, ended) = thread::scope(|scope| {
        // Hung up also if the work panics: else the scope would wait for ever.
        let (working, hung_up) = mpsc::channel::<()>();
        let flush = || rustix::fs::syncfs(&file).unwrap();
        scope.spawn(move || {
            while hung_up.recv_timeout(FLUSH_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                flush();
            }
        });
        let done = work();
        drop(working);
        (done, SystemClock.elapsed())
    });
    rustix::fs::syncfs(&file).unwrap();
    (done, (SystemClock.elapsed() - ended).as_secs_f64())
}

/// The bytes of all files below a folder that are packs by their own name or by that of a folder on the way.
fn bytes_of_packs(folder: &Path, are_packs: bool) -> u64 {
    let bytes = |entry: fs::DirEntry| {
        let is_pack = are_packs || entry.file_name().to_str().unwrap().starts_with("pack");
        match entry.file_type().unwrap().is_dir() {
            true => bytes_of_packs(&entry.path(), is_pack),
            false if is_pack => entry.metadata().unwrap().len(),
            false => 0,
        }
    };
    fs::read_dir(folder).unwrap().map(|entry| bytes(entry.unwrap())).sum()
}

fn file(walked: Walked) -> Option<Found> {
    match walked {
        Walked::Entry(found) if found.metadata.kind == EntryKind::File => Some(*found),
        _ => None,
    }
}

fn writer(shared: &Shared) -> Writer<'_> {
    Writer {
        shared,
        spent: Spent::default(),
        compressor: Compressor::new(Compression::Auto).unwrap(),
        plain: Vec::new(),
        chunks: Vec::new(),
        pack: Vec::new(),
        frames: Vec::new(),
    }
}

/// The engine in this process, on a local folder.
struct Engine {
    folder: PathBuf,
    corpus: PathBuf,
    workers: usize,
    root: RootSecret,
}

impl Engine {
    fn new(folder: &Path, corpus: PathBuf, workers: usize) -> Self {
        let root = RootSecret::generate().unwrap();
        let engine = Self { folder: folder.to_owned(), corpus, workers, root };
        fs::create_dir(engine.folder.join("repository")).unwrap();
        let kdf = KdfParameters::QUICK;
        let init = InitOptions { kdf, ..InitOptions::default() };
        Repository::create(&engine.store(), &engine.root, "", init, &SystemClock).unwrap();
        engine
    }

    fn store(&self) -> Store {
        let location = Location::parse(self.folder.join("repository").to_str().unwrap()).unwrap();
        let options = StoreOptions {
            connections: self.workers,
            upload_limit: None,
            download_limit: None,
            retry_for: Duration::ZERO,
            s3: Default::default(),
            clock: Arc::new(SystemClock),
            progress: Arc::<Progress>::default(),
        };
        Store::open(&location, options).unwrap()
    }

    /// CPU and wall seconds of something that is done with the repository.
    fn timed(&self, work: impl FnOnce(&Repository)) -> (f64, f64) {
        let begun = (cpu(ClockId::ProcessCPUTime), SystemClock.elapsed());
        let store = self.store();
        let config = Repository::read_config(&store).unwrap();
        let secrets = Repository::unlock(&store, &config, &Credential::Words(self.root.words())).unwrap();
        let cache = self.folder.join("cache");
        let repository =
            Repository::open(store, config, secrets, Some(&cache), Arc::new(SystemClock)).unwrap();
        work(&repository);
        let (cpu, wall) = (cpu(ClockId::ProcessCPUTime) - begun.0, SystemClock.elapsed() - begun.1);
        (cpu.as_secs_f64(), wall.as_secs_f64())
    }

    fn back_up(&self, mode: Mode) -> (f64, f64) {
        let options = BackupOptions {
            host: "host".to_owned(),
            user: "user".to_owned(),
            tags: Vec::new(),
            sources: vec![self.corpus.to_str().unwrap().into()],
            time: None,
            compression: Compression::Auto,
            reuse: Reuse::default(),
            unchanged: Unchanged::Keep,
            mode,
            program: "limit".to_owned(),
            workers: self.workers,
        };
        let mut tree = Tree { sources: vec![self.corpus.clone()], filter: FilterOptions::default() };
        self.timed(|repository| drop(backup::run(repository, &mut tree, &options).unwrap()))
    }

    fn check(&self) -> (f64, f64) {
        let options = CheckOptions { depth: Depth::Data(Subset::All), workers: self.workers };
        self.timed(|repository| assert_eq!(check::run(repository, options).unwrap().problems_found, 0))
    }

    fn restore(&self) -> (f64, f64) {
        let options = RestoreOptions {
            ownership: Ownership::new(OwnershipPolicy::Numeric),
            subpath: Vec::new(),
            selection: Selection::new(&[], &[]).unwrap(),
            workers: self.workers,
            ..RestoreOptions::default()
        };
        let target = self.folder.join("restored");
        fs::create_dir(&target).unwrap();
        self.timed(|repository| {
            let (snapshots, _) = repository.snapshots().unwrap();
            let newest = snapshots.last().unwrap();
            assert_eq!(restore::run(repository, newest, &target, &options).unwrap().failures, 0);
        })
    }
}
