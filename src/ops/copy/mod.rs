//! `copy`: snapshots of one repository become snapshots of another. Each is a backup whose source is the snapshot: so
//! it comes about by the one commit that there is, every chunk that is read is checked against its id, and what the
//! target holds already is not sent again. What cannot be read is told by name, and its snapshot is not copied.

use std::{collections::HashMap, sync::Arc};

pub use self::source::{Losses, Lost};
use self::{
    hurt::Look,
    names::Names,
    source::{Base, Copying, Cuts, Place, Shared},
};
pub use super::Mode;
use crate::{
    compress::Compression,
    error::{Error, ErrorKind, Result},
    format::{
        registry::Domain,
        role::Role,
        snapshot::{Origin, Snapshot, Statistics},
    },
    id::{BlobId, DomainId, IdentityId, ObjectId},
    ops::backup::{self, BackupOptions, CopyOf, Done},
    progress::Phase,
    repository::{
        Repository,
        snapshots::{KnownSnapshot, Snapshots},
    },
};

mod content;
mod frames;
mod hurt;
mod names;
mod source;

/// How snapshots are copied.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Whether anything is written.
    pub mode: Mode,
    /// How hard to compress.
    pub compression: Compression,
    /// Name and version of the program.
    pub program: String,
    /// Threads that read, compress and seal.
    pub workers: usize,
}

/// What became of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It would be copied.
    Planned,
    /// This is the copy.
    Made(Made),
    /// This is the copy, made before; or the snapshot itself is a copy of this one.
    Before(ObjectId),
    /// As before, and this is what that has lost in the target since. It is passed over all the same.
    Hurt(ObjectId, Losses),
    /// Not all of it can be read, so there is no copy.
    Damaged(Losses),
}

/// A copy, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its id.
    pub id: ObjectId,
    /// What its record counts.
    pub statistics: Statistics,
    /// Bytes that were read from the packs of the source.
    pub bytes_read: u64,
    /// Requests that read them.
    pub reads: u64,
    /// Bytes of chunks that were not read, since the target was known to have them.
    pub bytes_reused: u64,
}

/// A snapshot, and what became of it.
#[derive(Clone, Debug)]
pub struct Copied {
    /// The snapshot of the source.
    pub snapshot: KnownSnapshot,
    /// What became of it.
    pub outcome: Outcome,
}

/// Copies the snapshots that `chosen` says, oldest first; `each` hears what became of each at once.
///
/// # Errors
/// `Usage` when both are one repository, or a snapshot has more tags than a copy may; `Forbidden` for a key that cannot read the source, or is no owner's in the
/// target, where only owners both read snapshots and write them; storage trouble; `Temporary` when a copy could not be
/// committed. What was copied before that stays.
pub fn run(
    (from, to): (&Arc<Repository>, &Arc<Repository>),
    chosen: &[KnownSnapshot],
    options: &CopyOptions,
    each: &mut dyn FnMut(&Copied),
) -> Result<()> {
    check(from, to)?;
    from.store.progress().enter(Phase::Opening);
    let mut copies = Copies::look(from, to)?;
    let todo = chosen.iter().filter(|snapshot| copies.of(snapshot).is_none());
    todo.clone().try_for_each(|snapshot| backup_of(snapshot, options).check())?;
    let counted = todo.map(|known| known.record.statistics);
    let (files, bytes) = counted.fold((0_u64, 0_u64), |(files, bytes), statistics| {
        (files.saturating_add(statistics.files), bytes.saturating_add(statistics.bytes))
    });
    to.store.progress().expect(files, bytes);
    let (names, mut look) = (Arc::new(Names::default()), Look::new(to));
    for snapshot in chosen {
        let outcome = match (copies.of(snapshot), options.mode) {
            (Some(known), _) => match look.lost_of(known)? {
                Losses { count: 0, .. } => Outcome::Before(known.name.id),
                losses => Outcome::Hurt(known.name.id, losses),
            },
            (None, Mode::DryRun) => Outcome::Planned,
            (None, Mode::Write) => one(&mut copies, &names, snapshot, options)?,
        };
        each(&Copied { snapshot: snapshot.clone(), outcome });
    }
    Ok(())
}

fn check(from: &Repository, to: &Repository) -> Result<()> {
    if from.config.repository_id == to.config.repository_id {
        return Err(Error::new(
            ErrorKind::Usage,
            "the source and the target are the same repository, or copies of it",
        )
        .with_remedy(
            "Objects of one repository are copied by any tool that copies files; `copy` is for two",
        ));
    }
    if !matches!(from.role(), Role::Restore | Role::Owner) {
        return Err(from.forbidden("read what is to be copied", "restore").context("the source"));
    }
    if to.role() != Role::Owner {
        return Err(to.forbidden("copy into it", "owner").context("the target"));
    }
    to.own_domain().map(drop)
}

/// The snapshots of both sides, and which is a copy of which.
struct Copies<'a> {
    from: &'a Arc<Repository>,
    to: &'a Arc<Repository>,
    /// Those of the source.
    there: Vec<KnownSnapshot>,
    /// Those of the target, by where they come from: from here, if they are no copies.
    copied: HashMap<Origin, KnownSnapshot>,
}

impl<'a> Copies<'a> {
    fn look(from: &'a Arc<Repository>, to: &'a Arc<Repository>) -> Result<Self> {
        let there = from.every_snapshot()?.all();
        // One that was replaced may have gaps.
        let Snapshots { listed, .. } = to.every_snapshot()?;
        let copied = listed.into_iter().map(|known| (origin_of(to, &known), known)).collect();
        Ok(Self { from, to, there, copied })
    }

    /// What the target has of a snapshot of the source.
    fn of(&self, snapshot: &KnownSnapshot) -> Option<&KnownSnapshot> {
        self.copied.get(&origin_of(self.from, snapshot))
    }

    /// The snapshot that is likely to have most in common with this one, of those that were copied: the last one before
    /// it of the same host and sources, else the first one after it.
    fn base(&self, snapshot: &KnownSnapshot) -> Option<(&KnownSnapshot, &KnownSnapshot)> {
        let Snapshot { host, sources, time, .. } = &snapshot.record;
        let same = |known: &&KnownSnapshot| known.record.host == *host && known.record.sources == *sources;
        let copied = |known| Some((known, self.of(known)?));
        let group = || self.there.iter().filter(same).filter_map(copied);
        group().rfind(|(known, _)| known.record.time <= *time).or_else(|| group().next())
    }
}

/// Where a snapshot comes from. Only what an owner wrote says so itself: else a client could pass off one of its own
/// for another's, which would not be copied then.
fn origin_of(repository: &Repository, known: &KnownSnapshot) -> Origin {
    let registry = repository.registry();
    let is_owners = registry.certificate(&known.name.identity).is_some_and(|known| known.role == Role::Owner);
    let own = Origin { repository: repository.config.repository_id, snapshot: known.name.id };
    known.record.origin.filter(|_| is_owners).unwrap_or(own)
}

fn backup_of(snapshot: &KnownSnapshot, options: &CopyOptions) -> BackupOptions {
    let again =
        BackupOptions::of_snapshot(snapshot, snapshot.tags.clone(), (&options.program, options.workers));
    BackupOptions { compression: options.compression, ..again }
}

/// Copies one snapshot.
fn one(
    copies: &mut Copies<'_>,
    names: &Arc<Names>,
    snapshot: &KnownSnapshot,
    options: &CopyOptions,
) -> Result<Outcome> {
    let Copies { from, to, .. } = *copies;
    let place = Place::of(from, snapshot)?;
    let cuts = cuts((from, &snapshot.name.domain), to)?;
    let base = match copies.base(snapshot).filter(|_| cuts == Cuts::Stay) {
        Some((known, copy)) => Some(Base { source: place.beside(known)?, copy: Place::of(to, copy)? }),
        None => None,
    };
    let shared = Shared::new(place, names, (cuts, base))?;
    let record = &snapshot.record;
    let backup = backup_of(snapshot, options);
    let origin = origin_of(from, snapshot);
    let writer = Some(snapshot.writer());
    let copy_of = CopyOf { origin: Some(origin), writer, begun: record.begun, command: "copy" };
    let done = match commit(to, &shared, (copy_of, &backup))? {
        Ok(done) => done,
        Err(losses) => return Ok(Outcome::Damaged(losses)),
    };
    let (id, _) = done.snapshot.ok_or_else(|| Error::new(ErrorKind::Failed, "no copy was written"))?;
    let (bytes_read, reads) = shared.ahead.asked();
    let made =
        Made { id, statistics: done.record.statistics, bytes_read, reads, bytes_reused: shared.reused() };
    copies.remember(origin, id)?;
    Ok(Outcome::Made(made))
}

/// Backs up what a snapshot or a manifest holds; or says what of it is lost.
fn commit(
    to: &Repository,
    shared: &Arc<Shared>,
    (copy_of, backup): (CopyOf, &BackupOptions),
) -> Result<std::result::Result<Done, Losses>> {
    let done = backup::run(to, &mut Copying { shared: Arc::clone(shared), copy_of }, backup);
    let losses = shared.losses();
    match done {
        Err(error) if error.kind() == ErrorKind::Damaged && losses.count > 0 => Ok(Err(losses)),
        // The first thing that went wrong with the source, with its remedy.
        Err(error) => Err(shared.take_failure().unwrap_or(error)),
        Ok(done) => Ok(Ok(done)),
    }
}

/// Makes a snapshot of a manifest of the own domain, of which `reader` wrote the root; or says what of it is lost. Of
/// what can be borrowed nothing is read.
///
/// # Errors
/// As [`backup::run`].
pub(super) fn of_manifest(
    repository: &Arc<Repository>,
    (root, reader): (BlobId, IdentityId),
    (copy_of, backup): (CopyOf, &BackupOptions),
) -> Result<std::result::Result<Done, Losses>> {
    let place = Place::new(repository, (repository.own_domain()?, reader), root)?;
    let shared = Shared::new(place, &Arc::default(), (Cuts::Same, None))?;
    commit(repository, &shared, (copy_of, backup))
}

impl Copies<'_> {
    /// The next snapshot may build on this copy.
    fn remember(&mut self, origin: Origin, id: ObjectId) -> Result<()> {
        let names = self.to.snapshot_names(&self.to.own_domain()?, Some(&self.to.identity()))?;
        if let Some(name) = names.iter().find(|name| name.id == id) {
            self.copied.insert(origin, self.to.read_snapshot(name)?);
        }
        Ok(())
    }
}

fn cuts((from, domain): (&Repository, &DomainId), to: &Repository) -> Result<Cuts> {
    let sizes = |repository: &Repository, domain: &DomainId| {
        repository.registry().domain(domain).map(Domain::chunk_sizes)
    };
    let same = sizes(from, domain) == sizes(to, &to.own_domain()?);
    Ok(if same { Cuts::Stay } else { Cuts::Anew })
}
