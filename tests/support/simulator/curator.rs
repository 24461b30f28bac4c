//! What an owner does beside backups, `forget` and prunes: tags, legal holds, copies without something, copies to another
//! repository, repairs.

use std::sync::Arc;

use lifeboat::{
    clock::Clock,
    compress::Compression,
    crypto::RootSecret,
    error::Result,
    filesystem::select::Selection,
    format::annotation::TagChange,
    id::ObjectId,
    ops::{
        annotate::{self, Chosen},
        copy::{self, CopyOptions, Outcome},
        repair::{self, SnapshotOptions},
        rewrite::{self, Old, RewriteOptions},
        select::{Filter, Reference},
    },
    repository::{InitOptions, Repository, snapshots::KnownSnapshot},
    store::Store,
};
use object_store::memory::InMemory;

use super::{
    forger,
    workload::Command,
    world::{Told, World},
};
use crate::support::lab::{self, Files};

/// What every rewrite leaves out.
const LEFT_OUT: &str = "srv/0/0";

/// Does one of these, on a snapshot that chance chooses, and gives what its client was told.
pub(crate) fn curate(
    command: &Command,
    world: &World,
    (repository, clock): (Repository, &Arc<dyn Clock>),
    at: (usize, usize),
) -> Result<Option<Told>> {
    if let Command::Repair = command {
        forger::set_aside(world, &repository);
        return repair(&Arc::new(repository)).map(|()| None);
    }
    let (mut known, _) = repository.snapshots()?;
    if let Command::Copy = command {
        return copy(world, (&Arc::new(repository), clock), &known, at).map(|()| None);
    }
    if let Command::Rewrite(_) = command {
        // Of others nobody rewrites anything.
        let own = repository.own_domain()?;
        known.retain(|known| known.name.domain == own);
    }
    if known.is_empty() {
        return Ok(None);
    }
    let chosen = world.scheduler.draw(|chance| chance.pick(&known));
    let id = chosen.name.id;
    let which = Chosen { references: vec![Reference::Id(id.to_string())], filter: Filter::default() };
    match command {
        Command::Tag => {
            let change = TagChange { add: vec![format!("{}.{}", at.0, at.1)], ..TagChange::default() };
            annotate::tag(&repository, &which, &change, annotate::Mode::Write)?;
            Ok(None)
        }
        Command::Hold => {
            let placed = annotate::place(&repository, &which, "a case", annotate::Mode::Write)?;
            Ok(placed.ended.is_empty().then_some(Told::Held(id)))
        }
        Command::Lift => {
            // Whether it is told or not: it may be lifted.
            world.record().lifted.insert(id);
            annotate::lift(&repository, &which, (&[], "over"), annotate::Mode::Write)?;
            Ok(None)
        }
        Command::Rewrite(old) => rewrite(&Arc::new(repository), (&chosen, &known), *old),
        _ => Ok(None),
    }
}

fn rewrite(
    repository: &Arc<Repository>,
    (chosen, known): (&KnownSnapshot, &[KnownSnapshot]),
    old: Old,
) -> Result<Option<Told>> {
    let options = RewriteOptions {
        named: Vec::new(),
        selection: Arc::new(Selection::new(&[], &[format!("/{LEFT_OUT}")])?),
        old,
        mode: rewrite::Mode::Write,
        zone: jiff::tz::TimeZone::UTC,
        program: "test".to_owned(),
        workers: 1,
    };
    let rewritten = rewrite::run(repository, std::slice::from_ref(chosen), &options)?.snapshots;
    let tag = chosen.record.tags[0].clone();
    // A copy that was there was told by whoever made it.
    let is_new = |id: &ObjectId| !known.iter().any(|known| known.name.id == *id);
    Ok(rewritten.first().and_then(|one| one.copy).filter(is_new).map(|id| Told::Snapshot { tag, id }))
}

fn repair(repository: &Arc<Repository>) -> Result<()> {
    repair::index(repository, repair::Mode::Write)?;
    let options = SnapshotOptions { mode: repair::Mode::Write, program: "test".to_owned(), workers: 1 };
    repair::snapshots(repository, &options).map(drop)
}

/// To a repository that nobody else has. Whatever the source goes through, what was copied is whole.
fn copy(
    world: &World,
    (from, clock): (&Arc<Repository>, &Arc<dyn Clock>),
    known: &[KnownSnapshot],
    at: (usize, usize),
) -> Result<()> {
    let options = lab::options(Arc::clone(clock), Arc::default(), 0);
    let store = Store::from_object_store(Arc::new(InMemory::new()), "", options)?;
    let root = RootSecret::generate()?;
    Repository::create(&store, &root, "right", InitOptions::default(), &**clock)?;
    let to = Arc::new(lab::open(&store, &root)?);
    let options = CopyOptions {
        mode: copy::Mode::Write,
        compression: Compression::Auto,
        program: "test".to_owned(),
        workers: 1,
    };
    let mut made: Vec<ObjectId> = Vec::new();
    let copied = copy::run((from, &to), known, &options, &mut |one| {
        if let Outcome::Made(copy) = &one.outcome {
            made.push(copy.id);
        }
    });
    let (copies, _) = to.snapshots()?;
    for id in made {
        let copy = copies.iter().find(|known| known.name.id == id);
        let Some(copy) = copy else {
            world.record().problems.push(format!("client {}.{}: a copy is not listed", at.0, at.1));
            continue;
        };
        let target = tempfile::tempdir_in(world.folder()).unwrap();
        let (files, restored) = lab::restore_to(&to, copy, target.path())?;
        let expected = expected(world, copy);
        if restored.failures > 0 || expected.is_some_and(|expected| expected != files) {
            world.record().problems.push(format!("client {}.{}: a copy does not restore", at.0, at.1));
        }
    }
    copied
}

/// What a snapshot must hold; nothing for one that a repair has made of what was left.
pub(crate) fn expected(world: &World, snapshot: &KnownSnapshot) -> Option<Files> {
    let tag = &snapshot.record.tags[0];
    let captured = world.record().captured.get(tag).cloned();
    let mut files = captured.unwrap_or_else(|| panic!("nobody has backed up {tag}"));
    let has = |prefix: &str| snapshot.record.tags.iter().any(|tag| tag.starts_with(prefix));
    if has("rewritten-") {
        files.remove(LEFT_OUT);
    }
    (!has("repaired-")).then_some(files)
}
