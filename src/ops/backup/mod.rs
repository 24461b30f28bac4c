//! `backup`: from entries and their contents to packs, a manifest and a snapshot, in the order of writes
//! that makes losing anything impossible: run, packs, index, a fresh view, snapshot, post-check (see
//! `Backup::attempt`, the one place that shows it whole).

use std::{
    collections::HashSet,
    io::{Cursor, Read},
    time::Duration,
};

pub use self::{emptied::Emptied, parent::Reuse};
use self::{
    emptied::Holdings,
    ingest::{Ingest, IngestKeys, Probe, UPLOAD_BYTES_IN_FLIGHT, Worker},
    parent::Parent,
};
use super::links;
use crate::{
    chunk::ChunkSizes,
    clock::Timestamp,
    compress::Compression,
    error::{Error, ErrorKind, Result},
    filesystem::namespace::HiddenOwners,
    format::{
        entry::{ChunkRef, Entry, EntryKind, Hole, Metadata},
        pack::target_length,
        registry::Domain,
        snapshot::{Origin, Parameters, Run, Snapshot, Statistics, UNREADABLE_NAMED_MAX},
    },
    id::{BlobId, DomainId, IdentityId, ObjectId, PackId},
    limits,
    progress::{Phase, Progress},
    random,
    repository::{
        Repository,
        cache::{NodeFileWriter, ParentRecord},
        commit::{Validation, validate},
        history::Past,
        manifest::ManifestBuilder,
        snapshots::{ChainHead, KnownSnapshot},
        view::View,
    },
    store::Uploads,
};

mod emptied;
pub mod ingest;
mod parent;
mod pipeline;
pub mod stream;
pub mod tree;

/// A backup passes over its sources at most this often before it gives up.
const PASSES_MAX: u32 = 5;
/// After a pass the commit is tried at most this often; each time the commit window closed before.
const COMMITS_MAX: u32 = 5;
/// Of files that changed, and of sources that are empty, so many are named.
pub const OBSERVED_NAMED_MAX: usize = 100;
/// The record of a failure is tried for so long, and no longer: somebody waits for the end.
const FAILURE_PATIENCE: Duration = Duration::from_secs(5);

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
    /// Those of a snapshot that is made of another one: what is known of it stays, and all of it is read again.
    pub(in crate::ops) fn of_snapshot(
        snapshot: &KnownSnapshot,
        tags: Vec<String>,
        (program, workers): (&str, usize),
    ) -> Self {
        let record = &snapshot.record;
        Self {
            host: record.host.clone(),
            user: record.user.clone(),
            tags,
            sources: record.sources.clone(),
            time: Some(record.time),
            compression: Compression::Auto,
            reuse: Reuse { unchanged: false, ..Reuse::default() },
            unchanged: Unchanged::Keep,
            mode: Mode::Store,
            program: program.to_owned(),
            workers,
        }
    }

    /// Whether a snapshot can say all this.
    ///
    /// # Errors
    /// `Usage`.
    pub(in crate::ops) fn check(&self) -> Result<()> {
        let Self { host, user, tags, sources, program, .. } = self;
        let named = [("host", host), ("user", user), ("program", program)].into_iter();
        texts_fit(named.chain(tags.iter().map(|tag| ("tag", tag))))?;
        tags_fit(tags.len())?;
        sources.iter().try_for_each(|source| source_fits(source))?;
        sources_fit(sources.len(), sources.iter().map(Vec::len).sum())
    }

    /// Names the backups that this one follows: those of the same identity, host and sources.
    fn group(&self, identity: IdentityId) -> String {
        let sources: Vec<String> = self.sources.iter().map(|source| crate::id::to_hex(source)).collect();
        format!("{identity}\n{}\n{}", self.host, sources.join("\n"))
    }

    /// Names all backups of the same identity and host, whatever their sources.
    fn machine(&self, identity: IdentityId) -> String {
        format!("{identity}\n{}", self.host)
    }
}

/// What a file's content is read from.
pub trait ReadContent: Read {
    /// Adds to the metadata what only the open file tells: its attributes.
    fn describe(&self, _: &mut Metadata) {}

    /// The holes that were passed over. Asked after the last byte was read.
    fn holes(&self) -> &[Hole] {
        &[]
    }

    /// Whether it changed since its entry was made. Asked after the last byte was read.
    ///
    /// # Errors
    /// Nobody can tell.
    fn has_changed(&self) -> Result<bool>;

    /// Its chunks, if they are to stay as they were cut before.
    fn cut(&mut self) -> Option<&mut dyn CutContent> {
        None
    }

    /// Begins anew, with what is there now, after it has changed.
    ///
    /// # Errors
    /// What is there now cannot be read.
    fn again(&mut self) -> Result<Again> {
        Ok(Again::Never)
    }
}

/// A content that was cut before, and keeps its cuts.
pub trait CutContent {
    /// Comes to the next chunk.
    ///
    /// # Errors
    /// Nobody knows which it is.
    fn advance(&mut self) -> Result<NextChunk>;

    /// The bytes of this chunk.
    ///
    /// # Errors
    /// They cannot be read.
    fn plain(&mut self) -> Result<&[u8]>;

    /// Hears what this chunk is called where it is stored now.
    fn stored(&mut self, as_chunk: ChunkRef);
}

/// What comes next in a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextChunk {
    /// A chunk that was stored under this name before: its bytes are not needed if that can be counted on.
    Known(ChunkRef),
    /// A chunk of which only the bytes tell.
    Unknown,
    /// Nothing.
    End,
}

/// What is known of the backup that a snapshot is made of again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyOf {
    /// Its snapshot in another repository, if it is a copy of one.
    pub origin: Option<Origin>,
    /// Who wrote it, if that is known: the copy is judged with the snapshots of that key.
    pub writer: Option<IdentityId>,
    /// When that backup began: what changed since is not in it.
    pub begun: Timestamp,
    /// What does it.
    pub command: &'static str,
}

/// Whether a file can be read once more.
#[derive(Debug)]
pub enum Again {
    /// From its beginning, and this is its metadata now.
    From(Box<Metadata>),
    /// It is gone, or can be read only once: what was read is all there is.
    Never,
}

/// What is in memory stays as it is.
impl<T: AsRef<[u8]>> ReadContent for Cursor<T> {
    fn has_changed(&self) -> Result<bool> {
        Ok(false)
    }
}

/// Opens a file when its turn comes, on whichever thread reads it.
pub type OpenFile = Box<dyn FnOnce() -> Result<Box<dyn ReadContent>> + Send>;

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

    /// The backup that this is made of again, if it is: then no backup before has a say, and none builds on it.
    fn copy_of(&self) -> Option<CopyOf> {
        None
    }

    /// How many names were gone before anybody could look at them, in the last pass.
    fn vanished(&self) -> u64 {
        0
    }
}

/// The size of a file of which nobody knows the size before it is read.
pub const SIZE_UNKNOWN: u64 = u64::MAX;

/// What was seen of a source that somebody works with, and stands in no record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Names that were gone before they could be looked at or opened. They are not in the snapshot.
    pub vanished: u64,
    /// Files that changed each time they were read; they are marked in the snapshot.
    pub changed: u64,
    /// The first of them.
    pub changed_named: Vec<Vec<u8>>,
    /// Further names of files that changed between two looks at them; a restore makes one file of the names, if it can
    /// be told that they are of one. They are marked in the snapshot.
    pub names_changed: u64,
    /// The first of them.
    pub names_changed_named: Vec<Vec<u8>>,
    /// Sources that are suspiciously empty.
    pub emptied: Emptied,
}

/// A backup that is safe.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its snapshot and its number in the chain of the identity; `None` when none was wanted.
    pub snapshot: Option<(ObjectId, u64)>,
    /// What the record says, or would say.
    pub record: Snapshot,
    /// What was seen on the way.
    pub observed: Observed,
    /// What is suspect in the chain of this identity, and what went wrong on the way and was made good.
    pub warnings: Vec<String>,
}

impl Done {
    /// What is not as it should be, though the snapshot is safe.
    #[must_use]
    pub const fn trouble(&self) -> Option<ErrorKind> {
        if self.record.unreadable > 0 {
            Some(ErrorKind::Incomplete)
        } else if self.observed.emptied.count > 0 {
            Some(ErrorKind::EmptySource)
        } else {
            None
        }
    }
}

/// What one pass over the source gave.
struct Gathered {
    root: BlobId,
    levels: u8,
    statistics: Statistics,
    unreadable: u64,
    unreadable_named: Vec<(Vec<u8>, String)>,
    observed: Observed,
    /// Sources that hold something, and others that did when they were there; see [`Holdings`].
    held: HashSet<String>,
    /// Why the parent could not be read to its end.
    damage: Option<String>,
}

/// A pass of which everything is stored and listed.
struct Pass {
    gathered: Gathered,
    /// `None` when the cache was damaged meanwhile.
    reached: Option<HashSet<PackId>>,
    probe: Option<Probe>,
    nodes: Option<NodeFileWriter>,
}

impl Pass {
    /// Whether every pack that it counts on is present, indexed and not tombstoned.
    fn is_whole_in(&self, view: &View) -> bool {
        self.reached.as_ref().is_some_and(|reached| matches!(validate(view, reached), Validation::Complete))
    }
}

/// A pass whose last packs are under way.
struct Captured<'a> {
    ingest: Ingest<'a>,
    gathered: Gathered,
}

impl Captured<'_> {
    /// Waits until the store has acknowledged every pack, and sees to it that index objects list them all.
    fn publish_index(self) -> Result<Pass> {
        let Self { ingest, mut gathered } = self;
        let probe = ingest.settle()?;
        (gathered.statistics.bytes_new, gathered.statistics.bytes_stored) = ingest.sizes();
        let (reached, nodes) = (ingest.reached(), ingest.kept_nodes());
        Ok(Pass { gathered, reached, probe, nodes })
    }
}

/// Backs up. Success means that everything the snapshot reaches was seen present, indexed and not
/// tombstoned within the commit window.
///
/// # Errors
/// `Forbidden` for a role that cannot; storage trouble; whatever the source says. A run record tells of
/// the failure, as far as the store takes one.
pub fn run(repository: &Repository, source: &mut dyn Source, options: &BackupOptions) -> Result<Done> {
    options.check()?;
    let domain = repository.own_domain()?;
    let keys = IngestKeys::of(repository, &domain)?;
    let time = repository.clock.now();
    let (forged, damage) = (Vec::new(), None);
    let copy_of = source.copy_of();
    let mut backup =
        Backup { repository, options, domain, keys, time, copy_of, parent: None, forged, damage };
    if options.mode == Mode::DryRun {
        return backup.dry_run(source);
    }
    let ended = backup.attempt(source).inspect_err(|error| {
        let failure = Some((error.kind().exit_code(), error.to_string()));
        let told = backup
            .run_record(failure)
            .and_then(|run| repository.publish_failed_run(&domain, &run, FAILURE_PATIENCE));
        // The first error is the one to tell; a store that takes no record has been told of already.
        drop(told);
    });
    if copy_of.is_none() {
        repository.cache.remember(past(repository, options, ended.as_ref()));
    }
    ended
}

/// What this machine remembers of a backup that ended.
fn past(repository: &Repository, options: &BackupOptions, ended: std::result::Result<&Done, &Error>) -> Past {
    let (code, message, snapshot) = match ended {
        Ok(done @ Done { snapshot, .. }) => {
            let code = done.trouble().map_or(0, ErrorKind::exit_code);
            (code, None, snapshot.map(|(id, _)| id.to_string()))
        }
        Err(error) => (error.kind().exit_code(), Some(error.to_string()), None),
    };
    let (time, host) = (repository.clock.now().seconds, options.host.clone());
    Past { time, host, code, message, snapshot }
}

/// Tells in the repository that a backup could not even begin: its sources are not there, for example. Else
/// it would look as if nobody had tried.
///
/// # Errors
/// As [`run`]; `error` itself is not returned.
pub fn could_not_begin(repository: &Repository, options: &BackupOptions, error: &Error) -> Result<()> {
    repository.cache.remember(past(repository, options, Err(error)));
    let domain = repository.own_domain()?;
    let failure = (error.kind().exit_code(), error.to_string());
    let run = run_record(repository, options, ("backup", Some(failure)))?;
    repository.publish_failed_run(&domain, &run, FAILURE_PATIENCE)
}

/// Whether a path can be that of a source at all.
///
/// # Errors
/// `Usage`.
pub fn source_fits(path: &[u8]) -> Result<()> {
    if !path.contains(&0) {
        return Ok(());
    }
    let begin = path.split(|byte| *byte == 0).next().unwrap_or_default();
    let what = format!("a path of the sources holds a NUL, after `{}`", String::from_utf8_lossy(begin));
    Err(Error::new(ErrorKind::Usage, what)
        .with_remedy("No file has such a name. A list with a NUL behind each path, as `find -print0` writes it, is for --files-from-raw"))
}

/// Whether a snapshot can name so many sources, whose paths have together so many bytes.
///
/// # Errors
/// `Usage`.
pub fn sources_fit(count: usize, bytes: usize) -> Result<()> {
    let what = if bytes > limits::SOURCES_BYTES_MAX {
        format!("the paths of the sources have more than {} MiB together", limits::SOURCES_BYTES_MAX >> 20)
    } else if count > limits::SOURCES_MAX {
        format!("there are more than {} sources", limits::SOURCES_MAX)
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Usage, what)
        .with_remedy("Name the folders that they are in, and say with --exclude what is not wanted of them"))
}

/// Whether a snapshot can have so many tags.
///
/// # Errors
/// `Usage`.
pub(super) fn tags_fit(count: usize) -> Result<()> {
    let most = limits::SNAPSHOT_TAGS_MAX;
    if count <= most {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, format!("a snapshot has at most {most} tags, and these are {count}"))
        .with_remedy("Take fewer; `lifeboat tag --remove` and `--set` take tags from a snapshot"))
}

fn texts_fit<'a>(mut texts: impl Iterator<Item = (&'static str, &'a String)>) -> Result<()> {
    let most = limits::SNAPSHOT_TEXT_BYTES_MAX;
    let Some((what, text)) = texts.find(|(_, text)| text.len() > most) else { return Ok(()) };
    let long = format!("the {what} of a snapshot has at most {most} bytes, and this one has {}", text.len());
    Err(Error::new(ErrorKind::Usage, long).with_remedy("Take a shorter one"))
}

fn run_record(
    repository: &Repository,
    options: &BackupOptions,
    (command, failure): (&str, Option<(u8, String)>),
) -> Result<Run> {
    Ok(Run {
        time: repository.clock.now(),
        host: options.host.clone(),
        command: command.to_owned(),
        failure,
        nonce: random::bytes()?,
    })
}

struct Backup<'a> {
    repository: &'a Repository,
    options: &'a BackupOptions,
    domain: DomainId,
    keys: IngestKeys,
    time: Timestamp,
    /// The backup that it is made of again, if it is.
    copy_of: Option<CopyOf>,
    parent: Option<Parent>,
    /// What is suspect in the chain of this identity.
    forged: Vec<String>,
    damage: Option<String>,
}

/// Where the next snapshot goes.
struct Next {
    sequence: u64,
    previous: Option<ObjectId>,
    /// What is suspect in the chain of this identity.
    forged: Vec<String>,
}

impl Backup<'_> {
    fn run_record(&self, failure: Option<(u8, String)>) -> Result<Run> {
        let command = self.copy_of.map_or("backup", |copy| copy.command);
        run_record(self.repository, self.options, (command, failure))
    }

    /// Writes that the run goes on: an object that tells the storage's time.
    fn publish_probe(&self) -> Result<Probe> {
        let name = self.repository.publish_run(&self.domain, &self.run_record(None)?)?;
        Ok(Probe { name, at: self.repository.clock.elapsed() })
    }

    fn next_in_chain(&self) -> Result<Next> {
        let ChainHead { head, forged } =
            self.repository.chain_head(&self.domain, &self.repository.identity())?;
        let (sequence, previous) = head.map_or((1, None), |(sequence, id)| (sequence + 1, Some(id)));
        Ok(Next { sequence, previous, forged: forged.iter().map(ToString::to_string).collect() })
    }

    fn find_parent(&mut self, view: &View) {
        if self.copy_of.is_some() {
            return;
        }
        let options = self.options;
        let same = |record: &Snapshot| record.host == options.host && record.sources == options.sources;
        let group = options.group(self.repository.identity());
        self.parent = Parent::find(self.repository, view, &group, &same);
        if let Some(parent) = &self.parent {
            // About as much as last time, so that there is an end in sight.
            self.repository.store.progress().expect(parent.files, parent.bytes);
        }
    }

    fn dry_run(&mut self, source: &mut dyn Source) -> Result<Done> {
        let view = self.repository.view(&self.domain)?;
        self.find_parent(&view);
        let pass = self.capture(source, &view, None)?.publish_index()?;
        self.no_snapshot(pass)
    }

    fn no_snapshot(&self, pass: Pass) -> Result<Done> {
        if self.options.mode == Mode::Store {
            self.remember_held(&pass);
        }
        let record = self.record(&pass, None, None)?;
        Ok(Done { snapshot: None, record, observed: pass.gathered.observed, warnings: self.warnings() })
    }

    /// Whether the snapshot of the backup before is still one: without a new one, it has to stand for this backup.
    fn parent_counts(&self, head: Option<ObjectId>) -> Result<bool> {
        let Some(parent) = &self.parent else { return Ok(false) };
        // The head of its chain was read a moment ago; with several sets of sources it may be another one.
        if head == Some(parent.snapshot) {
            return Ok(true);
        }
        self.repository.counts(&self.domain, &self.repository.identity(), &parent.snapshot)
    }

    fn warnings(&self) -> Vec<String> {
        self.forged.iter().chain(&self.damage).cloned().collect()
    }

    /// Everything that this backup writes for good, in its order.
    fn attempt(&mut self, source: &mut dyn Source) -> Result<Done> {
        let (repository, domain) = (self.repository, self.domain);
        let window = Duration::from_secs(repository.config.commit_window_seconds);
        let progress = repository.store.progress();
        progress.enter(Phase::Opening);
        // What cannot be removed is somebody else's, or waits for the next backup: no reason to fail this one.
        drop(repository.store.sweep_temporaries());
        // 0: the store shows no older world than before; a run begins.
        let begin = || {
            self.next_in_chain()?;
            self.publish_probe()
        };
        // 1: what there is.
        let (probe, view) = repository.store.both(begin, || repository.first_view(&domain));
        let (mut probe, mut view) = (probe?, view?);
        if repository.adopt(&domain, &view.unindexed)? {
            view = repository.view(&domain)?;
        }
        self.find_parent(&view);
        let mut replaces = None;
        for _ in 0..PASSES_MAX {
            progress.enter(Phase::Storing);
            let pack = target_length(view.index.bytes()) + limits::PACK_BYTES_BEYOND;
            let in_flight = UPLOAD_BYTES_IN_FLIGHT.max(2 * pack);
            let uploads = repository.store.uploads(in_flight);
            // 2: the data is sent, and acknowledged before an index object lists it.
            let captured = self.capture(source, &view, Some(&uploads))?;
            // 3: it can be found.
            let mut pass = captured.publish_index()?;
            probe = pass.probe.take().unwrap_or(probe);
            self.damage = pass.gathered.damage.take().or(self.damage.take());
            progress.enter(Phase::Committing);
            for _ in 0..COMMITS_MAX {
                // Nobody else on this machine gives a snapshot the same number.
                let turn = repository.take_turn()?;
                // On a local folder nobody deletes between the view and the last look at the snapshot. Whoever
                // waits for that must not count the wait to the age of the probe.
                let fence = repository.store.fence_shared()?;
                // A probe that is too old would make a commit in time look late.
                if repository.clock.elapsed().saturating_sub(probe.at) >= window / 2 {
                    probe = self.publish_probe()?;
                }
                // 4: all of it is seen, in a view that begins now. What vanished is captured again.
                let (chain, seen) =
                    repository.store.both(|| self.next_in_chain(), || repository.view(&domain));
                let Next { sequence, previous, forged } = chain?;
                (view, self.forged) = (seen?, forged);
                if !pass.is_whole_in(&view) {
                    break;
                }
                let unchanged = self.parent.as_ref().is_some_and(|parent| parent.root == pass.gathered.root);
                let skips = unchanged && self.options.unchanged == Unchanged::Skip && replaces.is_none();
                if skips && self.parent_counts(previous)? {
                    return self.no_snapshot(pass);
                }
                progress.check()?;
                // 5: the backup exists; or the window has closed, and only the view is taken again.
                let record = self.record(&pass, previous, replaces)?;
                let sent = repository.publish_snapshot(&domain, (sequence, &record), view.begun)?;
                let Some((name, id, sealed)) = sent else { continue };
                // 6: it was in time; or it was late, and is whole all the same.
                let in_time = repository.in_time(&probe.name, &name, view.begun)?;
                if !in_time {
                    view = repository.view(&domain)?;
                }
                if in_time || pass.is_whole_in(&view) {
                    drop((fence, turn));
                    // 7: the next backup may build on it, and finds the head of its chain in the cache.
                    repository.cache.keep_object(&id, &sealed);
                    let observed = std::mem::take(&mut pass.gathered.observed);
                    self.remember(id, pass, unchanged);
                    let (snapshot, warnings) = (Some((id, sequence)), self.warnings());
                    return Ok(Done { snapshot, record, observed, warnings });
                }
                replaces = Some(id);
                break;
            }
        }
        Err(Error::new(
            ErrorKind::Temporary,
            "the backup could not be committed: its storage changed or was too slow",
        )
        .with_remedy("Run it again; what was uploaded is used then"))
    }

    fn remember_held(&self, pass: &Pass) {
        let machine = self.options.machine(self.repository.identity());
        self.repository.cache.keep_held(&machine, &pass.gathered.held);
    }

    /// Makes this backup the parent of the next one.
    fn remember(&self, snapshot: ObjectId, pass: Pass, unchanged: bool) {
        if self.copy_of.is_some() {
            return;
        }
        self.remember_held(&pass);
        let kept = self.parent.as_ref().and_then(|parent| parent.cached.as_ref());
        let kept = kept.filter(|_| unchanged).map(|(record, _)| record.nodes);
        let nodes = pass.nodes.filter(|_| kept.is_none());
        if kept.is_none() && nodes.is_none() {
            return;
        }
        let Statistics { files, bytes, .. } = pass.gathered.statistics;
        let nodes_kept = kept.unwrap_or_default();
        let record = ParentRecord {
            snapshot,
            begun: self.time,
            root: pass.gathered.root,
            nodes: nodes_kept,
            files,
            bytes,
        };
        let group = self.options.group(self.repository.identity());
        // A cache that cannot be written makes the next backup slower, no more.
        drop(self.repository.cache.finish_parent(&group, &self.keys.index, record, nodes));
    }

    /// Passes over the sources and stores what is new. The last packs are not yet acknowledged.
    fn capture<'a>(
        &'a self,
        source: &mut dyn Source,
        view: &'a View,
        uploads: Option<&'a Uploads>,
    ) -> Result<Captured<'a>> {
        let Self { repository, options, domain, keys, parent, .. } = self;
        // What a check has found to be damaged is stored again, not borrowed.
        view.index.distrust_packs(&repository.cache.distrusted(domain));
        let ingest = Ingest::new(repository, *domain, keys, &view.index, uploads)?;
        if uploads.is_some() {
            let nonce = u64::from_le_bytes(random::bytes()?);
            ingest.keep_journal(repository.cache.begin_journal(domain, nonce));
            // The next backup builds on the last one that this machine has made itself.
            if self.copy_of.is_none() {
                let group = options.group(repository.identity());
                ingest.keep_nodes(repository.cache.begin_parent(&group, nonce));
            }
        }
        let before = repository.cache.held(&options.machine(repository.identity()));
        let holdings = Holdings::new(&options.sources, before);
        // What is copied was looked at elsewhere.
        let hidden = self.copy_of.map_or_else(HiddenOwners::of_this_process, |_| HiddenOwners::default());
        let worker = Worker::new(&ingest, options.compression)?;
        let mut manifest = Manifest::new((repository, keys, holdings), (worker, hidden));
        let nodes = parent.as_ref().map(|parent| parent.nodes(repository, (view, &keys.node))).transpose()?;
        let mut before = match (parent, &nodes) {
            (Some(parent), Some(nodes)) => Some(parent.entries(&**nodes, options.reuse)),
            _ => None,
        };
        let mut reused = 0;
        let mut merge = |item| {
            let (mut entry, open) = match item {
                Item::File(entry, open) => (entry, open),
                other @ Item::Entry(_) => return other,
            };
            let known = before.as_mut().and_then(|before| before.unchanged(&entry.path, &entry.metadata));
            match (known, &nodes) {
                (Some(known), Some(nodes)) if ingest.can_reuse(&known.content, &**nodes) => {
                    reused += 1;
                    repository.store.progress().add(0, entry.metadata.size);
                    known.lend(&mut entry, open);
                    Item::Entry(entry)
                }
                _ => Item::File(entry, open),
            }
        };
        let mut items = source.open()?;
        let how = (options.compression, options.workers);
        pipeline::run(&mut items, &mut merge, &ingest, how, &mut manifest)?;
        drop(items);
        let damage = before.and_then(|before| before.damage);
        source.finish()?;
        let Manifest { builder, mut worker, mut statistics, unreadable, unreadable_named, .. } = manifest;
        let mut observed = manifest.observed;
        observed.vanished = source.vanished() + ingest.vanished();
        let last = parent.as_ref().zip(nodes.as_deref()).map(|(parent, nodes)| (nodes, parent.root));
        observed.emptied = manifest.holdings.emptied(last);
        let held = manifest.holdings.held();
        let (root, levels) = builder.finish(&mut worker.nodes())?;
        drop(worker);
        statistics.files_unchanged = reused;
        let root = root.id;
        let gathered =
            Gathered { root, levels, statistics, unreadable, unreadable_named, observed, held, damage };
        Ok(Captured { ingest, gathered })
    }

    fn record(
        &self,
        pass: &Pass,
        previous: Option<ObjectId>,
        replaces: Option<ObjectId>,
    ) -> Result<Snapshot> {
        let BackupOptions { host, user, tags, sources, time, program, .. } = self.options.clone();
        let Gathered { root, levels, statistics, unreadable, unreadable_named, .. } = &pass.gathered;
        Ok(Snapshot {
            previous,
            registry: self.repository.registry().number,
            // Only the one before it can be replaced: another machine with this key may have written since.
            replaces: replaces.filter(|replaced| previous == Some(*replaced)),
            time: time.unwrap_or(self.time),
            begun: self.copy_of.map_or(self.time, |copy| copy.begun),
            host,
            user,
            tags,
            sources,
            root: *root,
            levels: *levels,
            statistics: *statistics,
            unreadable: *unreadable,
            unreadable_named: unreadable_named.clone(),
            program,
            parameters: self.parameters(),
            nonce: random::bytes()?,
            origin: self.copy_of.and_then(|copy| copy.origin),
            original_writer: self.copy_of.and_then(|copy| copy.writer),
        })
    }

    fn parameters(&self) -> Parameters {
        let config = &self.repository.config;
        let registry = self.repository.registry();
        let sizes = registry.domain(&self.domain).map(Domain::chunk_sizes);
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
    observed: Observed,
    holdings: Holdings,
    names: links::Watch,
    hidden: HiddenOwners,
}

impl<'a, 'b> Manifest<'a, 'b> {
    fn new(
        (repository, keys, holdings): (&'b Repository, &'b IngestKeys, Holdings),
        (worker, hidden): (Worker<'a, 'b>, HiddenOwners),
    ) -> Self {
        Self {
            builder: ManifestBuilder::new(&keys.node),
            worker,
            progress: repository.store.progress(),
            statistics: Statistics::default(),
            unreadable: 0,
            unreadable_named: Vec::new(),
            observed: Observed::default(),
            holdings,
            names: links::Watch::default(),
            hidden,
        }
    }
}

impl pipeline::Entries for Manifest<'_, '_> {
    fn entry(&mut self, mut entry: Entry) -> Result<()> {
        self.statistics.entries += 1;
        // Of what could not be looked at nobody knows what it is.
        if entry.metadata.kind == EntryKind::File && entry.error.is_none() {
            self.progress.add(1, 0);
            self.progress.at(&entry.path);
            self.statistics.files += 1;
            self.statistics.bytes = self.statistics.bytes.saturating_add(entry.metadata.size);
        }
        let lacks =
            entry.metadata.lacks.as_ref().map(|lacks| format!("it lacks what could not be read: {lacks}"));
        let reason = entry.error.clone().or(lacks);
        if let Some(reason) = reason.or_else(|| self.hidden.hides(&entry.metadata)) {
            self.unreadable += 1;
            self.progress.trouble();
            if self.unreadable_named.len() < UNREADABLE_NAMED_MAX {
                self.unreadable_named.push((entry.path.clone(), reason));
            }
        }
        if entry.changed_while_read {
            self.observed.changed += 1;
            if self.observed.changed_named.len() < OBSERVED_NAMED_MAX {
                self.observed.changed_named.push(entry.path.clone());
            }
        }
        if self.names.meet(&entry).is_some() {
            entry.changed_while_read = true;
            self.observed.names_changed += 1;
            if self.observed.names_changed_named.len() < OBSERVED_NAMED_MAX {
                self.observed.names_changed_named.push(entry.path.clone());
            }
        }
        self.holdings.entry(&entry);
        self.builder.push(entry, &mut self.worker.nodes())
    }
}
