//! The index without packs that are gone, and records that are of no use any more.
//!
//! Nothing says which index object replaces which: what the store shows decides. Objects have an order, by the time at
//! which the storage got them and then by id. One is superfluous when each pack that it lists is gone for good or
//! stands, listed in the same way, in a later one that is older than the grace. So the last one that lists a pack is
//! never deleted, whoever else compacts at the same time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    DomainDone,
    domain::{Ages, Pruning, Seen},
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::pack::IndexedPack,
    id::{IdentityId, ObjectId, PackId},
    ops::deleting::Deleter,
    repository::{
        commit::{IndexBatch, UNINDEXED_BLOBS_MAX},
        records::Records,
        runs::RunName,
        view::{ListedIndex, of_first_good},
    },
    sabotage::{Sabotage, suffers},
    store::{Folder, Name, Prefix},
};

/// Tombstones stay at least so long.
const TOMBSTONES_KEPT_SECONDS: u64 = 30 * 86_400;
/// What was said of a snapshot stays at least so long after it was said.
const ANNOTATIONS_KEPT_SECONDS: u64 = 30 * 86_400;
/// Records of runs stay so long; the newest of each key stays.
const RUNS_KEPT_SECONDS: u64 = 90 * 86_400;
/// From so many small index objects on they are merged.
const SMALL_OBJECTS_MAX: usize = 32;
/// An index object of fewer blobs is small.
const SMALL_BLOBS: usize = UNINDEXED_BLOBS_MAX / 8;

/// What went.
#[derive(Debug, Default)]
pub(super) struct Compacted {
    /// Batches of tombstones.
    pub(super) batches: u64,
}

pub(super) fn compact(
    pruning: &Pruning<'_>,
    (seen, ages): (&Seen, Ages),
    deleted: &HashSet<PackId>,
    done: &mut DomainDone,
) -> Result<Compacted> {
    let mut compacted = Compacted::default();
    if pruning.time_is_up() {
        done.out_of_time = true;
        return Ok(compacted);
    }
    if is_worth_it(pruning, seen, deleted) {
        match Compaction::read(pruning, (seen, ages), deleted).and_then(|compaction| compaction.run(done)) {
            // Another prune works here too: the next run carries on.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
    }
    compacted.batches = old_batches(pruning, (seen, ages), deleted, done)?;
    done.records_deleted = compacted.batches + old_runs(pruning, ages, done)?;
    done.records_deleted += old_annotations(pruning, (seen, ages), done)?;
    Ok(compacted)
}

/// Whether any object may have to be written or deleted: to find out which takes a request for each.
fn is_worth_it(pruning: &Pruning<'_>, seen: &Seen, deleted: &HashSet<PackId>) -> bool {
    let mut listed = HashSet::new();
    let mut packs = seen.view.index.packs();
    seen.objects.len() > SMALL_OBJECTS_MAX
        || packs.any(|pack| seen.is_gone(&pruning.id, &pack.id, deleted) || !listed.insert(pack.id))
}

/// A listing of a pack: the pack, and the hash of everything that is said of it.
type Listing = (PackId, [u8; 32]);

fn listing(pack: &IndexedPack) -> Listing {
    (pack.id, pack.digest())
}

/// An index object, below the name of whoever wrote it.
struct Object {
    name: Name,
    id: ObjectId,
    stored: Timestamp,
    /// Other names with this id: copies, which count for nothing.
    copies: Vec<Name>,
    /// What it lists that is not gone.
    live: Vec<Listing>,
    lists_gone: bool,
    blobs: usize,
    is_old: bool,
}

/// All index objects of a domain, in their order.
struct Compaction<'a> {
    pruning: &'a Pruning<'a>,
    objects: Vec<Object>,
}

impl<'a> Compaction<'a> {
    fn read(
        pruning: &'a Pruning<'a>,
        (seen, ages): (&'a Seen, Ages),
        deleted: &HashSet<PackId>,
    ) -> Result<Self> {
        let registry = pruning.repository.registry();
        let counts = |object: &&ListedIndex| {
            registry.record_counts(&object.writer, &object.id)
                && !seen.view.quarantined.contains(object.name.as_str())
        };
        let mut by_id: BTreeMap<ObjectId, Vec<&ListedIndex>> = BTreeMap::new();
        for listed in seen.objects.iter().filter(counts) {
            by_id.entry(listed.id).or_default().push(listed);
        }
        let mut objects = Vec::new();
        for (id, listed) in by_id {
            pruning.repository.store.progress().check()?;
            let names: Vec<Name> = listed.iter().map(|listed| listed.name.clone()).collect();
            let (good, packs) =
                of_first_good(&names, |name| pruning.repository.read_index(&pruning.id, name, id))?;
            let (mut copies, stored) = (names, listed[good].stored);
            let name = copies.swap_remove(good);
            let is_gone = |pack: &&IndexedPack| seen.is_gone(&pruning.id, &pack.id, deleted);
            objects.push(Object {
                live: packs.iter().filter(|pack| !is_gone(pack)).map(listing).collect(),
                lists_gone: packs.iter().any(|pack| is_gone(&pack)),
                blobs: packs.iter().map(|pack| pack.directory.blobs()).sum(),
                is_old: ages.of(stored) > pruning.grace.as_secs(),
                name,
                id,
                stored,
                copies,
            });
        }
        objects.sort_by_key(|object| (object.stored, object.id));
        Ok(Self { pruning, objects })
    }

    /// For each object whether everything that it lists stands in a later one that passes.
    fn superfluous(&self, passes: impl Fn(&Object) -> bool) -> Vec<bool> {
        let mut last: HashMap<Listing, usize> = HashMap::new();
        for (at, object) in self.objects.iter().enumerate().filter(|(_, object)| passes(object)) {
            last.extend(object.live.iter().map(|listing| (*listing, at)));
        }
        let is_later = |at: usize, listing: &Listing| last.get(listing).is_some_and(|last| *last > at);
        let objects = self.objects.iter().enumerate();
        objects.map(|(at, object)| object.live.iter().all(|listing| is_later(at, listing))).collect()
    }

    fn run(&self, done: &mut DomainDone) -> Result<()> {
        let replaced = self.superfluous(|_| true);
        let replaced_long_ago = self.superfluous(|object| object.is_old);
        let current = || self.objects.iter().zip(&replaced).filter(|(_, replaced)| !**replaced);
        let is_small = |object: &Object| object.blobs < SMALL_BLOBS;
        let merge_small = current().filter(|(object, _)| is_small(object)).count() > SMALL_OBJECTS_MAX;
        let again = current()
            .map(|(object, _)| object)
            .filter(|object| object.lists_gone || merge_small && is_small(object));
        done.index_written = self.write(&again.collect::<Vec<_>>())?;
        let mut deleter = Deleter::new(&self.pruning.repository.store);
        for (object, _) in self
            .objects
            .iter()
            .zip(replaced_long_ago)
            .filter(|(object, is_replaced)| *is_replaced && object.is_old)
        {
            // The copies before it: a prune refuses one that is left alone, since nobody can read that any more.
            let mut is_gone = true;
            for name in object.copies.iter().chain([&object.name]).filter(|_| self.pruning.writes()) {
                is_gone = is_gone && deleter.delete(name)?;
            }
            done.index_deleted += u64::from(is_gone);
        }
        done.kept.add(deleter.kept);
        Ok(())
    }

    /// Writes what these list and what is not gone, and checks that nothing else came of it. Gives the number of
    /// objects.
    fn write(&self, again: &[&Object]) -> Result<u64> {
        let wanted: BTreeSet<Listing> = again.iter().flat_map(|object| &object.live).copied().collect();
        if !self.pruning.writes() {
            let blobs: usize = again.iter().map(|object| object.blobs).sum();
            return Ok(if wanted.is_empty() { 0 } else { blobs.div_ceil(UNINDEXED_BLOBS_MAX).max(1) as u64 });
        }
        let repository = self.pruning.repository;
        let (mut left, mut batch) = (wanted.clone(), IndexBatch::default());
        let mut written: Vec<(Name, ObjectId)> = Vec::new();
        let mut publish = |batch: &mut IndexBatch| {
            if let Some(packs) = batch.take() {
                written.push(repository.publish_index(&self.pruning.id, &packs)?);
            }
            Ok::<_, Error>(())
        };
        for object in again {
            for pack in repository.read_index(&self.pruning.id, &object.name, object.id)? {
                if !left.remove(&listing(&pack)) {
                    continue;
                }
                batch.add(pack);
                if batch.is_full() {
                    publish(&mut batch)?;
                }
            }
        }
        publish(&mut batch)?;
        let mut found = BTreeSet::new();
        for (name, id) in &written {
            let packs =
                repository.read_index(&self.pruning.id, name, *id).map_err(|error| not_kept(error, name))?;
            found.extend(packs.iter().map(listing));
        }
        if found != wanted {
            return Err(Error::new(
                ErrorKind::Failed,
                "the compacted index does not list what the old one does",
            )
            .with_remedy("Nothing of the old one was deleted; run it again"));
        }
        Ok(written.len() as u64)
    }
}

/// Of what was just written `NotFound` is no sign of another prune.
fn not_kept(error: Error, name: &Name) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    Error::not_kept(name).with_source(error)
}

/// Deletes batches of tombstones that nobody can need any more. Gives how many.
fn old_batches(
    pruning: &Pruning<'_>,
    (seen, ages): (&Seen, Ages),
    deleted: &HashSet<PackId>,
    done: &mut DomainDone,
) -> Result<u64> {
    let old: Vec<_> = seen
        .details
        .batches
        .iter()
        .filter(|(name, _)| {
            let age = seen.stored(name).map_or(0, |stored| ages.of(stored));
            age > TOMBSTONES_KEPT_SECONDS || suffers(Sabotage::ForgetfulTombstones)
        })
        .collect();
    if old.is_empty() {
        return Ok(0);
    }
    // As the view saw it: what was compacted since then counts still.
    let listed: HashSet<PackId> = seen.view.index.packs().map(|pack| pack.id).collect();
    let (mut deleter, mut count) = (Deleter::new(&pruning.repository.store), 0);
    for (name, batch) in old {
        let is_of_use = |id: &PackId| {
            seen.details.packs.contains_key(id) && !deleted.contains(id)
                || seen.is_set_aside(&pruning.id, id)
                || listed.contains(id) && !suffers(Sabotage::ForgetfulTombstones)
        };
        if batch.packs.iter().any(is_of_use) {
            continue;
        }
        count += u64::from(!pruning.writes() || deleter.delete(name)?);
    }
    done.kept.add(deleter.kept);
    Ok(count)
}

/// Deletes records of runs that are long over. Gives how many.
fn old_runs(pruning: &Pruning<'_>, ages: Ages, done: &mut DomainDone) -> Result<u64> {
    let mut runs = pruning.repository.runs(&pruning.id)?;
    runs.sort_by_key(|run| (run.stored, run.id));
    let mut newest: HashMap<IdentityId, (Timestamp, ObjectId)> = HashMap::new();
    for RunName { identity, stored, id, .. } in &runs {
        let last = newest.entry(*identity).or_insert((*stored, *id));
        *last = (*last).max((*stored, *id));
    }
    let (mut deleter, mut count) = (Deleter::new(&pruning.repository.store), 0);
    for run in &runs {
        let is_newest = newest.get(&run.identity).is_some_and(|(_, id)| *id == run.id);
        if is_newest || ages.of(run.stored) <= RUNS_KEPT_SECONDS {
            continue;
        }
        count += u64::from(!pruning.writes() || deleter.delete(&run.name)?);
    }
    done.kept.add(deleter.kept);
    Ok(count)
}

/// Deletes what was said of snapshots that are gone for good: somebody who may has ended them, and LIST does not show
/// them. One that vanished in another way may come back, from the versions of a bucket, and is held then as before.
/// Gives how many annotations went.
fn old_annotations(pruning: &Pruning<'_>, (seen, ages): (&Seen, Ages), done: &mut DomainDone) -> Result<u64> {
    let repository = pruning.repository;
    let mut stored: HashMap<String, Timestamp> = HashMap::new();
    for listed in repository.store.list(&Prefix::records(&pruning.id, Folder::Annotations))? {
        if ages.of(listed.modified) > ANNOTATIONS_KEPT_SECONDS {
            stored.insert(listed.name, listed.modified);
        }
    }
    if stored.is_empty() {
        return Ok(0);
    }
    let Records { forgotten, quarantined, .. } = repository.records(&pruning.id)?;
    let there: HashSet<ObjectId> = seen.roots.names.iter().map(|name| name.id).collect();
    let is_gone = |id: &ObjectId| !there.contains(id) && forgotten.contains_key(id);
    let mut old: Vec<(Timestamp, Name)> = repository
        .annotations_of_gone(&pruning.id, &quarantined, is_gone)?
        .into_iter()
        .filter_map(|name| stored.get(name.as_str()).map(|stored| (*stored, name)))
        .collect();
    old.sort_unstable_by(|a, b| (a.0, a.1.as_str()).cmp(&(b.0, b.1.as_str())));
    let (mut deleter, mut count) = (Deleter::new(&repository.store), 0);
    for (_, name) in &old {
        count += u64::from(!pruning.writes() || deleter.delete(name)?);
    }
    done.kept.add(deleter.kept);
    Ok(count)
}
