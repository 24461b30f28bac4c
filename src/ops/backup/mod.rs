//! `backup`: from entries and their contents to packs, a manifest and a snapshot, in the order of writes
//! that makes losing anything impossible: run, packs, index, a fresh view, snapshot, post-check.

use std::{collections::HashSet, io::Read};

use self::ingest::{Ingest, IngestKeys, UPLOAD_BYTES_IN_FLIGHT, Worker};
use crate::{
    clock::Timestamp,
    compress::Compression,
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Entry, EntryKind},
        snapshot::{Run, Snapshot, Statistics, UNREADABLE_NAMED_MAX},
    },
    id::{BlobId, DomainId, ObjectId, PackId},
    repository::{
        Repository,
        commit::{Validation, validate},
        manifest::ManifestBuilder,
        random,
        view::View,
    },
    store::Name,
};

pub mod ingest;
mod pipeline;
pub mod tree;

/// A backup starts again from a fresh view at most this often before it gives up.
const PASSES_MAX: u32 = 5;

/// What is backed up and how it is called.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The host.
    pub host: String,
    /// The user who runs it.
    pub user: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Absolute paths.
    pub sources: Vec<Vec<u8>>,
    /// How hard to compress.
    pub compression: Compression,
    /// Name and version of the program.
    pub program: String,
    /// Threads that read, compress and seal; with one everything happens in one order.
    pub workers: usize,
}

/// Opens a file when its turn comes, on whichever thread reads it.
pub type OpenFile = Box<dyn FnOnce() -> Result<Box<dyn Read>> + Send>;

/// The next thing to back up, in path order.
pub enum Item {
    /// An entry without content: a directory, a symlink, something that could not be read.
    Entry(Entry),
    /// A file and where to read it.
    File(Entry, OpenFile),
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Entry(entry) | Self::File(entry, _)) = self;
        write!(f, "Item({})", String::from_utf8_lossy(&entry.path))
    }
}

/// Gives the entries from the first to the last; again from the first when it is opened again.
pub trait Source {
    /// # Errors
    /// It cannot be opened, or not a second time.
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>>;
}

/// A backup that is safe.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its snapshot.
    pub snapshot: ObjectId,
    /// Its number in the chain of the identity.
    pub sequence: u64,
    /// What the record says.
    pub record: Snapshot,
}

/// What one pass over the source gave.
struct Pass {
    root: BlobId,
    statistics: Statistics,
    unreadable: u64,
    unreadable_named: Vec<(Vec<u8>, String)>,
    reached: HashSet<PackId>,
    probe: Option<Name>,
}

/// Backs up. Success means that everything the snapshot reaches was seen present, indexed and not
/// tombstoned within the commit window.
///
/// # Errors
/// `Forbidden` for a role that cannot; storage trouble; whatever the source says. A run record tells of
/// the failure, as far as the store takes one.
pub fn run(repository: &Repository, source: &mut dyn Source, options: &BackupOptions) -> Result<Done> {
    let domain = repository.own_domain()?;
    let keys = IngestKeys::of(repository, &domain)?;
    let begun = repository.clock.now();
    let record = |failure| -> Result<Run> {
        let command = "backup".to_owned();
        Ok(Run {
            time: repository.clock.now(),
            host: options.host.clone(),
            command,
            failure,
            nonce: random()?,
        })
    };
    let probe = repository.publish_run(&domain, &record(None)?)?;
    attempt(repository, source, options, &Begun { domain, keys, probe, time: begun }).inspect_err(|error| {
        let failure = Some((error.kind().exit_code(), error.to_string()));
        // The first error is the one to tell; a store that takes no record has been told of already.
        drop(record(failure).and_then(|run| repository.publish_run(&domain, &run)));
    })
}

struct Begun {
    domain: DomainId,
    keys: IngestKeys,
    probe: Name,
    time: Timestamp,
}

fn attempt(
    repository: &Repository,
    source: &mut dyn Source,
    options: &BackupOptions,
    begun: &Begun,
) -> Result<Done> {
    let domain = &begun.domain;
    let mut probe = begun.probe.clone();
    let mut replaces = None;
    let mut view = repository.view(domain)?;
    for _ in 0..PASSES_MAX {
        let pass = one_pass(repository, source, options, (begun, &view))?;
        probe = pass.probe.clone().unwrap_or(probe);
        view = repository.view(domain)?;
        if let Validation::Missing(_) = validate(&view, &pass.reached) {
            // What vanished is captured again: in this view it does not count.
            continue;
        }
        let head = repository.chain_head(domain, &repository.identity())?;
        let (sequence, previous) = head.map_or((1, None), |(sequence, id)| (sequence + 1, Some(id)));
        let record = snapshot(repository, options, pass, (begun.time, previous, replaces))?;
        let Some((name, id)) = repository.publish_snapshot(domain, (sequence, &record), view.begun)? else {
            continue;
        };
        if repository.in_time(&probe, &name, view.begun)? {
            return Ok(Done { snapshot: id, sequence, record });
        }
        replaces = Some(id);
        view = repository.view(domain)?;
    }
    Err(Error::new(
        ErrorKind::Temporary,
        "the backup could not be committed: its storage changed or was too slow",
    )
    .with_remedy("Run it again; what was uploaded is used then"))
}

/// The manifest as it grows, and what is counted on the way.
struct Manifest<'a, 'b> {
    builder: ManifestBuilder<'b>,
    worker: Worker<'a, 'b>,
    statistics: Statistics,
    unreadable: u64,
    unreadable_named: Vec<(Vec<u8>, String)>,
}

impl pipeline::Entries for Manifest<'_, '_> {
    fn entry(&mut self, entry: Entry) -> Result<()> {
        self.statistics.entries += 1;
        if entry.metadata.kind == EntryKind::File {
            self.statistics.files += 1;
            self.statistics.bytes += entry.metadata.size;
        }
        if let Some(reason) = &entry.error {
            self.unreadable += 1;
            if self.unreadable_named.len() < UNREADABLE_NAMED_MAX {
                self.unreadable_named.push((entry.path.clone(), reason.clone()));
            }
        }
        self.builder.push(entry, &mut self.worker.nodes())
    }
}

fn one_pass(
    repository: &Repository,
    source: &mut dyn Source,
    options: &BackupOptions,
    (begun, view): (&Begun, &View),
) -> Result<Pass> {
    let uploads = repository.store.uploads(UPLOAD_BYTES_IN_FLIGHT);
    let ingest = Ingest::new(repository, begun.domain, &begun.keys, &view.index, &uploads)?;
    let mut manifest = Manifest {
        builder: ManifestBuilder::new(&begun.keys.node),
        worker: Worker::new(&ingest, options.compression)?,
        statistics: Statistics::default(),
        unreadable: 0,
        unreadable_named: Vec::new(),
    };
    let how = (options.compression, options.workers);
    pipeline::run(&mut *source.open()?, &ingest, how, &mut manifest)?;
    let Manifest { builder, mut worker, mut statistics, unreadable, unreadable_named } = manifest;
    let root = builder.finish(&mut worker.nodes())?.id;
    drop(worker);
    // 2: the packs are acknowledged. 3: they can be found.
    let packs = ingest.settle()?;
    let mut reached = ingest.borrowed();
    reached.extend(packs.iter().map(|pack| pack.id));
    (statistics.bytes_new, statistics.bytes_stored) = ingest.sizes();
    let probe = if packs.is_empty() { None } else { Some(repository.publish_index(&begun.domain, &packs)?) };
    Ok(Pass { root, statistics, unreadable, unreadable_named, reached, probe })
}

fn snapshot(
    repository: &Repository,
    options: &BackupOptions,
    pass: Pass,
    (time, previous, replaces): (Timestamp, Option<ObjectId>, Option<ObjectId>),
) -> Result<Snapshot> {
    let BackupOptions { host, user, tags, sources, compression: _, program, workers: _ } = options.clone();
    let Pass { root, statistics, unreadable, unreadable_named, reached: _, probe: _ } = pass;
    let registry = repository.registry.number;
    let nonce = random()?;
    Ok(Snapshot {
        previous,
        registry,
        replaces,
        time,
        host,
        user,
        tags,
        sources,
        root,
        statistics,
        unreadable,
        unreadable_named,
        program,
        nonce,
    })
}
