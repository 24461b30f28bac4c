//! `backup`: from entries and their contents to packs, a manifest and a snapshot, in the order of writes
//! that makes losing anything impossible: run, packs, index, a fresh view, snapshot, post-check.

use std::{collections::HashSet, io::Read, time::Duration};

pub use self::parent::Reuse;
use self::{
    ingest::{Ingest, IngestKeys, Probe, UPLOAD_BYTES_IN_FLIGHT, Worker},
    parent::Parent,
};
use crate::{
    chunk::ChunkSizes,
    clock::Timestamp,
    compress::Compression,
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Entry, EntryKind},
        registry::Domain,
        snapshot::{Parameters, Run, Snapshot, Statistics, UNREADABLE_NAMED_MAX},
    },
    id::{BlobId, DomainId, ObjectId, PackId},
    progress::{Phase, Progress},
    repository::{
        Repository,
        cache::{NodeFileWriter, ParentRecord},
        commit::{Validation, validate},
        history::Past,
        manifest::ManifestBuilder,
        random,
        view::View,
    },
    store::Uploads,
};

pub mod ingest;
mod parent;
mod pipeline;
pub mod stream;
pub mod tree;

/// A backup starts again from a fresh view at most this often before it gives up.
const PASSES_MAX: u32 = 5;

/// Whether anything is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A backup.
    #[default]
    Store,
    /// Everything is read, compressed and counted; nothing is written anywhere.
    DryRun,
}

/// What to do when the tree is exactly that of the backup before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unchanged {
    /// Write a snapshot all the same: it says that the tree was seen.
    #[default]
    Keep,
    /// Write none.
    Skip,
}

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
    /// The time of the snapshot, if it is not now.
    pub time: Option<Timestamp>,
    /// How hard to compress.
    pub compression: Compression,
    /// What of the backup before is trusted.
    pub reuse: Reuse,
    /// What to do when nothing changed.
    pub unchanged: Unchanged,
    /// Whether anything is written.
    pub mode: Mode,
    /// Name and version of the program.
    pub program: String,
    /// Threads that read, compress and seal; with one everything happens in one order.
    pub workers: usize,
}

impl BackupOptions {
    /// Names the backups that this one follows: those of the same host and sources.
    fn group(&self) -> String {
        let sources: Vec<String> = self.sources.iter().map(|source| crate::id::to_hex(source)).collect();
        format!("{}\n{}", self.host, sources.join("\n"))
    }
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

    /// Everything was read.
    ///
    /// # Errors
    /// What was read cannot be trusted, so that there must be no snapshot of it.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The size of a file of which nobody knows the size before it is read.
pub const SIZE_UNKNOWN: u64 = u64::MAX;

/// A backup that is safe.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its snapshot and its number in the chain of the identity; `None` when none was wanted.
    pub snapshot: Option<(ObjectId, u64)>,
    /// What the record says, or would say.
    pub record: Snapshot,
}

/// What one pass over the source gave.
struct Pass {
    root: BlobId,
    levels: u8,
    statistics: Statistics,
    unreadable: u64,
    unreadable_named: Vec<(Vec<u8>, String)>,
    reached: HashSet<PackId>,
    probe: Option<Probe>,
    nodes: Option<NodeFileWriter>,
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
    let mut backup =
        Backup { repository, options, domain, keys, time: repository.clock.now(), probe: None, parent: None };
    if options.mode == Mode::DryRun {
        return backup.dry_run(source);
    }
    backup.probe = Some(backup.tell(None)?);
    let ended = backup.attempt(source).inspect_err(|error| {
        let failure = Some((error.kind().exit_code(), error.to_string()));
        // The first error is the one to tell; a store that takes no record has been told of already.
        drop(backup.tell(failure));
    });
    repository.cache.remember(past(repository, options, &ended));
    ended
}

/// What this machine remembers of a backup that ended.
fn past(repository: &Repository, options: &BackupOptions, ended: &Result<Done>) -> Past {
    let (code, message, snapshot) = match ended {
        Ok(Done { snapshot, record }) => {
            let code = if record.unreadable > 0 { ErrorKind::Incomplete.exit_code() } else { 0 };
            (code, None, snapshot.map(|(id, _)| id.to_string()))
        }
        Err(error) => (error.kind().exit_code(), Some(error.to_string()), None),
    };
    let (time, host) = (repository.clock.now().seconds, options.host.clone());
    Past { time, host, code, message, snapshot }
}

struct Backup<'a> {
    repository: &'a Repository,
    options: &'a BackupOptions,
    domain: DomainId,
    keys: IngestKeys,
    time: Timestamp,
    probe: Option<Probe>,
    parent: Option<Parent>,
}

impl Backup<'_> {
    /// Writes a run record.
    fn tell(&self, failure: Option<(u8, String)>) -> Result<Probe> {
        let Self { repository, options, .. } = self;
        let run = Run {
            time: repository.clock.now(),
            host: options.host.clone(),
            command: "backup".to_owned(),
            failure,
            nonce: random()?,
        };
        let name = repository.publish_run(&self.domain, &run)?;
        Ok(Probe { name, at: repository.clock.elapsed() })
    }

    fn find_parent(&mut self, view: &View) {
        let options = self.options;
        let same = |record: &Snapshot| record.host == options.host && record.sources == options.sources;
        self.parent = Parent::find(self.repository, view, &options.group(), &same);
    }

    fn dry_run(&mut self, source: &mut dyn Source) -> Result<Done> {
        let view = self.repository.view(&self.domain)?;
        self.find_parent(&view);
        let pass = self.pass(source, &view, None)?;
        let record = self.record(&pass, None, None)?;
        Ok(Done { snapshot: None, record })
    }

    fn attempt(&mut self, source: &mut dyn Source) -> Result<Done> {
        let (repository, domain) = (self.repository, self.domain);
        let window = Duration::from_secs(repository.config.commit_window_seconds);
        let progress = repository.store.progress();
        let mut replaces = None;
        progress.enter(Phase::Opening);
        // What cannot be removed is somebody else's, or waits for the next backup: no reason to fail this one.
        drop(repository.store.sweep_temporaries());
        let mut view = repository.view(&domain)?;
        self.find_parent(&view);
        for _ in 0..PASSES_MAX {
            progress.enter(Phase::Storing);
            let uploads = repository.store.uploads(UPLOAD_BYTES_IN_FLIGHT);
            let mut pass = self.pass(source, &view, Some(&uploads))?;
            progress.enter(Phase::Committing);
            let probe = pass.probe.take().or_else(|| self.probe.take());
            // A probe that is too old would make a commit in time look late.
            let fresh =
                probe.filter(|probe| repository.clock.elapsed().saturating_sub(probe.at) < window / 2);
            let probe = match fresh {
                Some(probe) => probe,
                None => self.tell(None)?,
            };
            // On a local folder nobody deletes between this view and the snapshot.
            let fence = repository.store.fence_shared()?;
            view = repository.view(&domain)?;
            if let Validation::Missing(_) = validate(&view, &pass.reached) {
                // What vanished is captured again: in this view it does not count.
                continue;
            }
            let unchanged = self.parent.as_ref().is_some_and(|parent| parent.root == pass.root);
            if unchanged && self.options.unchanged == Unchanged::Skip && replaces.is_none() {
                return Ok(Done { snapshot: None, record: self.record(&pass, None, None)? });
            }
            progress.check()?;
            let head = repository.chain_head(&domain, &repository.identity())?;
            let (sequence, previous) = head.map_or((1, None), |(sequence, id)| (sequence + 1, Some(id)));
            let record = self.record(&pass, previous, replaces)?;
            let Some((name, id)) = repository.publish_snapshot(&domain, (sequence, &record), view.begun)?
            else {
                continue;
            };
            let in_time = repository.in_time(&probe.name, &name, view.begun)?;
            drop(fence);
            if in_time {
                self.remember(id, pass, unchanged);
                return Ok(Done { snapshot: Some((id, sequence)), record });
            }
            replaces = Some(id);
            view = repository.view(&domain)?;
        }
        Err(Error::new(
            ErrorKind::Temporary,
            "the backup could not be committed: its storage changed or was too slow",
        )
        .with_remedy("Run it again; what was uploaded is used then"))
    }

    /// Makes this backup the parent of the next one.
    fn remember(&self, snapshot: ObjectId, pass: Pass, unchanged: bool) {
        let kept = self.parent.as_ref().and_then(|parent| parent.cached.as_ref());
        let kept = kept.filter(|_| unchanged).map(|(record, _)| record.nodes);
        let nodes = pass.nodes.filter(|_| kept.is_none());
        if kept.is_none() && nodes.is_none() {
            return;
        }
        let record =
            ParentRecord { snapshot, begun: self.time, root: pass.root, nodes: kept.unwrap_or_default() };
        let group = self.options.group();
        // A cache that cannot be written makes the next backup slower, no more.
        drop(self.repository.cache.finish_parent(&group, &self.keys.index, record, nodes));
    }

    fn pass(&self, source: &mut dyn Source, view: &View, uploads: Option<&Uploads>) -> Result<Pass> {
        let Self { repository, options, domain, keys, parent, .. } = self;
        let ingest = Ingest::new(repository, *domain, keys, &view.index, uploads)?;
        if uploads.is_some() {
            let nonce = u64::from_le_bytes(random()?);
            ingest.keep_nodes(repository.cache.begin_parent(&options.group(), nonce));
        }
        let mut manifest = Manifest {
            builder: ManifestBuilder::new(&keys.node),
            worker: Worker::new(&ingest, options.compression)?,
            progress: repository.store.progress(),
            statistics: Statistics::default(),
            unreadable: 0,
            unreadable_named: Vec::new(),
        };
        let nodes = parent.as_ref().map(|parent| parent.nodes(repository, (view, &keys.node))).transpose()?;
        let mut before = match (parent, &nodes) {
            (Some(parent), Some(nodes)) => Some(parent.entries(&**nodes, options.reuse)),
            _ => None,
        };
        let mut reused = 0;
        let mut items = source.open()?.map(|item| {
            let (mut entry, open) = match item? {
                Item::File(entry, open) => (entry, open),
                other @ Item::Entry(_) => return Ok(other),
            };
            let known = before.as_mut().and_then(|before| before.content(&entry.path, &entry.metadata));
            match (known, &nodes) {
                (Some(content), Some(nodes)) if ingest.can_reuse(&content, &**nodes) => {
                    reused += 1;
                    repository.store.progress().add(0, entry.metadata.size);
                    entry.content = content;
                    Ok(Item::Entry(entry))
                }
                _ => Ok(Item::File(entry, open)),
            }
        });
        pipeline::run(&mut items, &ingest, (options.compression, options.workers), &mut manifest)?;
        drop(items);
        source.finish()?;
        let Manifest { builder, mut worker, mut statistics, unreadable, unreadable_named, .. } = manifest;
        let (root, levels) = builder.finish(&mut worker.nodes())?;
        drop(worker);
        // 2: the packs are acknowledged. 3: they can be found.
        let probe = ingest.settle()?;
        statistics.files_unchanged = reused;
        (statistics.bytes_new, statistics.bytes_stored) = ingest.sizes();
        let (reached, nodes) = (ingest.reached(), ingest.kept_nodes());
        Ok(Pass { root: root.id, levels, statistics, unreadable, unreadable_named, reached, probe, nodes })
    }

    fn record(
        &self,
        pass: &Pass,
        previous: Option<ObjectId>,
        replaces: Option<ObjectId>,
    ) -> Result<Snapshot> {
        let BackupOptions { host, user, tags, sources, time, program, .. } = self.options.clone();
        Ok(Snapshot {
            previous,
            registry: self.repository.registry.number,
            replaces,
            time: time.unwrap_or(self.time),
            begun: self.time,
            host,
            user,
            tags,
            sources,
            root: pass.root,
            levels: pass.levels,
            statistics: pass.statistics,
            unreadable: pass.unreadable,
            unreadable_named: pass.unreadable_named.clone(),
            program,
            parameters: self.parameters(),
            nonce: random()?,
        })
    }

    fn parameters(&self) -> Parameters {
        let config = &self.repository.config;
        let domain = self.repository.registry.domains.iter().find(|known| known.id == self.domain);
        let sizes = domain.map(Domain::chunk_sizes);
        Parameters {
            commit_window_seconds: config.commit_window_seconds,
            minimum_grace_seconds: config.minimum_grace_seconds,
            chunk_sizes: sizes.map_or([0; 3], |ChunkSizes { min, average, max }| [min, average, max]),
        }
    }
}

/// The manifest as it grows, and what is counted on the way.
struct Manifest<'a, 'b> {
    builder: ManifestBuilder<'b>,
    worker: Worker<'a, 'b>,
    progress: &'b Progress,
    statistics: Statistics,
    unreadable: u64,
    unreadable_named: Vec<(Vec<u8>, String)>,
}

impl pipeline::Entries for Manifest<'_, '_> {
    fn entry(&mut self, entry: Entry) -> Result<()> {
        self.statistics.entries += 1;
        // Of what could not be looked at nobody knows what it is.
        if entry.metadata.kind == EntryKind::File && entry.error.is_none() {
            self.progress.add(1, 0);
            self.progress.at(&entry.path);
            self.statistics.files += 1;
            self.statistics.bytes += entry.metadata.size;
        }
        if let Some(reason) = &entry.error {
            self.unreadable += 1;
            self.progress.trouble();
            if self.unreadable_named.len() < UNREADABLE_NAMED_MAX {
                self.unreadable_named.push((entry.path.clone(), reason.clone()));
            }
        }
        self.builder.push(entry, &mut self.worker.nodes())
    }
}
