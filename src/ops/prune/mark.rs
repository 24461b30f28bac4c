//! Chooses the packs that are to die. A wrong choice costs work and no data: only a later look deletes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use super::{
    DomainDone, Packs,
    domain::{Pruning, Seen},
    lost_pack, section_of,
    sweep::Survivors,
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        pack::{Directory, SectionHeader},
        role::Role,
        tombstones::{PACKS_MAX, Tombstones},
    },
    id::{IdentityId, PackId},
    limits,
    repository::index::{KnownPack, Standing},
    store::Name,
};

/// A pack that is younger is left alone: a backup may be about to use it. It saves work; safety does not need it.
const AGE_MAX: Duration = Duration::from_hours(24);

/// Marks what nobody needs, and what was repacked. Gives the storage's time of the batch that was written, or would be:
/// the grace is counted from it, and it may be hours after the run began.
pub(super) fn mark(
    pruning: &Pruning<'_>,
    (seen, now): (&Seen, Timestamp),
    repacked: BTreeMap<PackId, u64>,
    done: &mut DomainDone,
) -> Result<Option<Timestamp>> {
    let without = Bereft::new(pruning, seen);
    let mut dead = unreached(pruning, (seen, now), &without, done)?;
    dead.extend(repacked);
    dead.extend(unlisted(pruning, (seen, now), &without, done)?);
    publish(pruning, &dead, (now, done))
}

/// Marks once more what nothing marks but batches whose age is wrong. Gives what to tell, if there are any.
///
/// # Errors
/// Storage trouble.
pub(super) fn again(
    pruning: &Pruning<'_>,
    (seen, now): (&Seen, Timestamp),
    done: &mut DomainDone,
) -> Result<Option<Error>> {
    let (undated, by_storage, by_us) = undated(pruning, (seen, now));
    if undated.is_empty() {
        return Ok(None);
    }
    publish(pruning, &undated, (now, done))?;
    let text = format!(
        "{} packs were marked {} hours ago by the clock of the storage, and {} hours ago by those of the machines that \
         prune: one of the clocks was set, so no age proves anything",
        undated.len(),
        by_storage / 3600,
        by_us / 3600
    );
    Ok(Some(Error::new(ErrorKind::Failed, text).with_remedy(
        "Compare the clocks of this machine and of the storage, and set right what is wrong. A run that is no dry run marks \
         these packs once more and deletes nothing; the next one goes on, and they go when the grace is over anew",
    )))
}

/// Writes a batch for as many of these as fit. Gives its time.
fn publish(
    pruning: &Pruning<'_>,
    dead: &BTreeMap<PackId, u64>,
    (now, done): (Timestamp, &mut DomainDone),
) -> Result<Option<Timestamp>> {
    let packs: Vec<PackId> = dead.keys().copied().take(PACKS_MAX).collect();
    for id in &packs {
        done.marked.add(dead.get(id).copied().unwrap_or_default());
    }
    if packs.is_empty() {
        return Ok(None);
    }
    if !pruning.writes() {
        return Ok(Some(now));
    }
    let repository = pruning.repository;
    let batch = Tombstones { time: repository.clock.now(), packs };
    let name = repository.publish_tombstones(&pruning.id, &batch)?;
    repository.stored(&name).map(Some)
}

/// Packs that are marked by nothing but batches whose age is wrong, with their sizes; and the age of the youngest such
/// batch, by the storage's clock and by those of the machines.
fn undated(pruning: &Pruning<'_>, (seen, now): (&Seen, Timestamp)) -> (BTreeMap<PackId, u64>, u64, u64) {
    let (mut undated, mut dated) = (HashSet::new(), HashSet::new());
    let mut youngest = (u64::MAX, 0);
    for (name, batch) in &seen.details.batches {
        let age = pruning.age(seen, (name, batch), now);
        if age.is_wrong {
            youngest = youngest.min((age.by_storage, age.by_us));
        }
        if age.is_wrong { &mut undated } else { &mut dated }.extend(batch.packs.iter().copied());
    }
    let there = |id: &PackId| Some((*id, seen.details.packs.get(id)?.size));
    (undated.difference(&dated).filter_map(there).collect(), youngest.0, youngest.1)
}

/// Live packs no frame of which a snapshot may use, with their sizes.
fn unreached(
    pruning: &Pruning<'_>,
    (seen, now): (&Seen, Timestamp),
    without: &Bereft<'_>,
    done: &mut DomainDone,
) -> Result<BTreeMap<PackId, u64>> {
    let index = &seen.view.index;
    // The same pack may be listed more than once, not always in the same way.
    let mut alive: HashSet<PackId> = HashSet::new();
    for pack in index.packs() {
        if seen.reached.any(index.blobs_of(&pack).ok_or_else(lost_pack)?) {
            alive.insert(pack.id);
        }
    }
    let busy = Busy::new(pruning, (seen, now));
    let (mut dead, mut spared) = (BTreeMap::new(), HashSet::new());
    let mut of_nobody = Packs::default();
    for pack in index.packs().filter(|pack| pack.standing == Standing::Live && !alive.contains(&pack.id)) {
        let Some(listed) = seen.details.packs.get(&pack.id) else { continue };
        if busy.is_of_running(&pack, listed.stored)? {
            if spared.insert(pack.id) {
                done.under_way.add(listed.size);
            }
            continue;
        }
        if without.wrote(&pack)? {
            if spared.insert(pack.id) {
                of_nobody.add(listed.size);
            }
            continue;
        }
        if busy.is_young(listed.stored) {
            if spared.insert(pack.id) {
                done.young.add(listed.size);
                done.next_marking =
                    done.next_marking.into_iter().chain([busy.is_old_at(listed.stored)]).min();
            }
            continue;
        }
        dead.insert(pack.id, listed.size);
    }
    tell_spared(of_nobody, "", done);
    Ok(dead)
}

/// What keys without a snapshot wrote stays, and that is told.
fn tell_spared(of_nobody: Packs, listed: &str, done: &mut DomainDone) {
    if of_nobody.packs > 0 {
        let text = format!(
            "{} packs ({} bytes){listed} are of keys that have no snapshot here, and stay: a first backup that was never \
             finished, or all of their snapshots are gone. `lifeboat status` names the keys; those that are revoked do not count",
            of_nobody.packs, of_nobody.bytes
        );
        done.notes.push(Error::new(ErrorKind::Damaged, text));
    }
}

/// Keys that count and have no snapshot. The newest snapshot of a key always stays, so whoever had one has one; of what
/// they wrote nobody can tell a backup that was not finished from one whose snapshots somebody has deleted.
struct Bereft<'a> {
    pruning: &'a Pruning<'a>,
    seen: &'a Seen,
    bereft: HashSet<IdentityId>,
}

impl<'a> Bereft<'a> {
    fn new(pruning: &'a Pruning<'a>, seen: &'a Seen) -> Self {
        let registry = pruning.repository.registry();
        // Whoever compacts the index or repairs it lists the packs of others in objects of its own: so these do not tell.
        let mut bereft: HashSet<IdentityId> =
            registry.certificates.iter().map(|known| known.identity).collect();
        bereft.retain(|writer| registry.revocation(writer).is_none());
        for name in &seen.roots.names {
            bereft.remove(&name.identity);
        }
        Self { pruning, seen, bereft }
    }

    /// Whether all of a pack is theirs.
    fn wrote(&self, pack: &KnownPack) -> Result<bool> {
        if self.bereft.is_empty() {
            return Ok(false);
        }
        let directory = self.seen.view.index.directory(pack).ok_or_else(lost_pack)?;
        Ok(self.are_theirs(&directory))
    }

    /// Whether all that a directory tells of is theirs.
    fn are_theirs(&self, directory: &Directory) -> bool {
        let is_theirs = |section: &SectionHeader| {
            self.bereft.contains(&section.author) && !is_cut(self.pruning, self.seen, section)
        };
        directory.sections.iter().all(is_theirs)
    }
}

/// Whether a section is what a prune has sealed anew, as far as anybody can tell: an owner wrote it, who does not back up to
/// this domain; or else a verifier vouches for it. Then no snapshot of its author is to be expected.
fn is_cut(pruning: &Pruning<'_>, seen: &Seen, section: &SectionHeader) -> bool {
    let registry = pruning.repository.registry();
    let owner = registry.certificate(&section.author).filter(|known| known.role == Role::Owner);
    owner.is_some_and(|known| known.domain != Some(pruning.id) || seen.view.index.vouches_for(&section.id()))
}

/// What is left alone, because somebody may be working with it.
pub(super) struct Busy<'a> {
    pruning: &'a Pruning<'a>,
    seen: &'a Seen,
    now: Timestamp,
    least: u64,
    /// See [`running`].
    running: HashMap<IdentityId, Option<Timestamp>>,
}

impl<'a> Busy<'a> {
    pub(super) fn new(pruning: &'a Pruning<'a>, (seen, now): (&'a Seen, Timestamp)) -> Self {
        let least = AGE_MAX.min(pruning.grace).as_secs();
        Self { pruning, seen, now, least, running: running(seen, now, least) }
    }

    /// Whether a pack is too young to die.
    pub(super) fn is_young(&self, stored: Timestamp) -> bool {
        self.now.seconds_since(stored) <= self.least
    }

    /// From when on it is not: younger by whole seconds.
    fn is_old_at(&self, stored: Timestamp) -> Timestamp {
        let least = i64::try_from(self.least).unwrap_or(i64::MAX).saturating_add(1);
        Timestamp { seconds: stored.seconds.saturating_add(least), ..stored }
    }

    /// Whether a pack was written by somebody who has made no snapshot since.
    pub(super) fn is_of_running(&self, pack: &KnownPack, stored: Timestamp) -> Result<bool> {
        if self.running.is_empty() {
            return Ok(false);
        }
        let directory = self.seen.view.index.directory(pack);
        let directory = directory.ok_or_else(lost_pack)?;
        let mut sections = directory.sections.iter();
        let since = |ended: &Option<Timestamp>| ended.is_none_or(|ended| stored > ended);
        Ok(sections.any(|section| {
            self.running.get(&section.author).is_some_and(since) && !is_cut(self.pruning, self.seen, section)
        }))
    }
}

/// Identities that seem to be in the middle of a backup, each with the time of its last snapshot: index objects come
/// while it runs, every ten minutes, and a snapshot at its end.
fn running(seen: &Seen, now: Timestamp, least: u64) -> HashMap<IdentityId, Option<Timestamp>> {
    let (mut wrote, mut ended) = (HashMap::new(), HashMap::new());
    for object in &seen.objects {
        let last = wrote.entry(object.writer).or_insert(object.stored);
        *last = (*last).max(object.stored);
    }
    for name in &seen.roots.names {
        let last = ended.entry(name.identity).or_insert(name.stored);
        *last = (*last).max(name.stored);
    }
    let running = wrote.into_iter().filter(|(identity, stored)| {
        ended.get(identity).is_none_or(|ended| stored > ended) && now.seconds_since(*stored) <= least
    });
    running.map(|(identity, _)| (identity, ended.get(&identity).copied())).collect()
}

/// Packs that no index lists, so long after they were written that no backup can be about to list them. Each is read
/// first: one that holds what is needed and has no live copy stays.
fn unlisted(
    pruning: &Pruning<'_>,
    (seen, now): (&Seen, Timestamp),
    without: &Bereft<'_>,
    done: &mut DomainDone,
) -> Result<BTreeMap<PackId, u64>> {
    let index = &seen.view.index;
    let least = AGE_MAX.min(pruning.grace).as_secs().saturating_add(pruning.grace.as_secs());
    let mut dead = BTreeMap::new();
    let mut unindexed = seen.view.unindexed.clone();
    if unindexed.is_empty() {
        return Ok(dead);
    }
    unindexed.sort_unstable();
    let mut survivors = Survivors::new(pruning, index)?;
    let mut of_nobody = Packs::default();
    for (id, size) in unindexed {
        let Some(listed) = seen.details.packs.get(&id) else { continue };
        if now.seconds_since(listed.stored) <= least || seen.view.tombstoned.contains(&id) {
            continue;
        }
        if pruning.time_is_up() {
            done.out_of_time = true;
            break;
        }
        let repository = pruning.repository;
        let name = Name::pack(&pruning.id, listed.kind, &id);
        let bytes = repository.store.read_hashed(&name, limits::PACK_BYTES_MAX, id.as_bytes());
        let directory = match bytes.and_then(|bytes| repository.own_directory(&pruning.id, &bytes)) {
            Ok(directory) => directory,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) if error.kind() == ErrorKind::Damaged => {
                done.notes.push(error.context("a pack that no index lists stays"));
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut is_needed = false;
        for frame in &directory.frames {
            let section = section_of(&directory, frame)?;
            is_needed =
                is_needed || survivors.needs((&seen.reached, &id), (frame, listed.kind, section.epoch))?;
        }
        if is_needed {
            let what = format!(
                "{name} is in no index and stays: snapshots need it, and no other good copy is there"
            );
            let advice = "`lifeboat repair index --apply` lists it: do that first";
            done.note(vec![Error::new(ErrorKind::Damaged, format!("{what}; {advice}"))]);
            continue;
        }
        if without.are_theirs(&directory) {
            of_nobody.add(size);
        } else {
            dead.insert(id, size);
        }
    }
    done.note(survivors.damaged);
    tell_spared(of_nobody, " in no index", done);
    Ok(dead)
}
