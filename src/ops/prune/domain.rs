//! One domain: what a prune does there, in this order.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use super::{
    DomainDone, Mode, Packs, PruneOptions, Size, compact, mark,
    reach::{Reached, reach},
    repack, rescue,
    sweep::Judged,
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{snapshot::Run, tombstones::Tombstones},
    id::{DomainId, PackId},
    ops::{deleting::Deleter, forget, repair::STORE_ANEW},
    random,
    repository::{
        Repository,
        index::Standing,
        snapshots::Roots,
        view::{Details, ListedIndex, ListedPack, View},
    },
    sabotage::{Sabotage, suffers},
    store::{Folder, Name, Prefix},
};

/// So often what was rescued is looked at again; another prune may work here too.
const ROUNDS_MAX: u32 = 4;
/// Names on one page of a LIST.
const PAGE: u64 = 1000;
/// So many packs of the index may be missing, whatever it holds.
const MISSING_ALLOWED: u64 = 8;
/// One in so many packs of the index may be missing: a LIST that shows less is not believed.
const MISSING_PART: u64 = 10;
/// A storage whose clock has gained so much on ours since a tombstone was written has been set, or ours was.
const CLOCK_GAIN_SECONDS: u64 = 86_400;

/// When the storage refuses to delete anything it is asked again after so long.
const DAY_SECONDS: i64 = 86_400;

/// A prune of one domain.
pub(super) struct Pruning<'a> {
    pub(super) repository: &'a Repository,
    pub(super) id: DomainId,
    pub(super) options: &'a PruneOptions,
    pub(super) grace: Duration,
    /// When the time is up, by the boot-time clock.
    pub(super) until: Option<Duration>,
}

/// What there was at one look.
pub(super) struct Seen {
    pub(super) roots: Roots,
    pub(super) view: View,
    pub(super) details: Details,
    pub(super) objects: Vec<ListedIndex>,
    /// When the storage got each batch of tombstones.
    stored: HashMap<String, Timestamp>,
    pub(super) reached: Reached,
}

impl Seen {
    fn size(&self) -> Size {
        let mut packs = Packs::default();
        self.details.packs.values().for_each(|pack| packs.add(pack.size));
        let [index, snapshots] = [self.objects.len() as u64, self.roots.names.len() as u64];
        Size { packs, requests: requests(packs.packs, index, snapshots, self.details.batches.len() as u64) }
    }

    /// When the storage got a batch; a batch that the second LIST does not show is as young as can be.
    pub(super) fn stored(&self, batch: &Name) -> Option<Timestamp> {
        self.stored.get(batch.as_str()).copied()
    }

    /// Whether a pack is tombstoned and gone: no index needs to list it any more.
    pub(super) fn is_gone(&self, domain: &DomainId, id: &PackId, deleted: &HashSet<PackId>) -> bool {
        self.view.tombstoned.contains(id)
            && (deleted.contains(id) || !self.details.packs.contains_key(id))
            && !self.is_set_aside(domain, id)
    }

    pub(super) fn is_set_aside(&self, domain: &DomainId, id: &PackId) -> bool {
        use crate::format::pack::PackKind;
        let aside = |kind| self.view.quarantined.contains(Name::pack(domain, kind, id).as_str());
        !self.view.quarantined.is_empty() && (aside(PackKind::Data) || aside(PackKind::Metadata))
    }
}

/// The age of a batch of tombstones, in seconds, and what it says.
pub(super) struct Age {
    pub(super) by_storage: u64,
    pub(super) by_us: u64,
    /// The grace is over, by both clocks.
    is_over: bool,
    /// One of the two clocks was set meanwhile: nobody knows. What the batch marks is marked once more, so that a clock
    /// which was years ahead once holds up nothing for years.
    pub(super) is_wrong: bool,
}

impl Age {
    /// Whether the storage's clock has gained more on those of the machines than clocks do by themselves.
    const fn gained(&self) -> bool {
        self.by_storage.saturating_sub(self.by_us) > CLOCK_GAIN_SECONDS
    }
}

/// How old what is deleted for its age alone is, by the storage's stamps.
#[derive(Clone, Copy)]
pub(super) struct Ages {
    now: Timestamp,
    /// The storage's clock may have been set before. What is older is at least as old as this; nobody knows more.
    since: Option<Timestamp>,
}

impl Ages {
    /// In seconds.
    pub(super) fn of(self, stored: Timestamp) -> u64 {
        self.now.seconds_since(self.since.map_or(stored, |since| stored.max(since)))
    }
}

/// What became of the packs that were to go.
#[derive(Default)]
struct Swept {
    gone: HashSet<PackId>,
    /// Those that the storage keeps.
    kept: HashSet<PackId>,
}

/// Requests of one look: pages of LIST, index objects and batches of tombstones.
fn requests(packs: u64, index: u64, snapshots: u64, batches: u64) -> u64 {
    let pages = |names: u64| names.div_ceil(PAGE).max(1);
    pages(packs) + pages(index) + index + pages(snapshots) + pages(batches) + batches
}

impl Pruning<'_> {
    /// Everything that a prune writes and deletes in a domain, in its order. `done` tells how far it came, whatever
    /// becomes of it.
    pub(super) fn run(&self, done: &mut DomainDone) -> Result<()> {
        // 0: what a `forget` that was killed has left.
        if self.writes() {
            let ended = forget::delete_ended(self.repository, &self.id, &HashSet::new())?;
            done.finished = ended.finished;
            done.kept.add(ended.kept);
        }
        // 1: the storage's time, acknowledged before anything is looked at.
        let mut now = self.probe()?;
        // 2: what there is, and what snapshots need of it.
        let Some(mut seen) = self.look()? else { return out_of_time(done) };
        if suffers(Sabotage::AgeAfterList) {
            now = self.probe()?;
        }
        done.before = seen.size();
        // Ages prove nothing in the run that finds a clock set: it destroys nothing, and the next one goes on.
        if let Some(doubt) = mark::again(self, (&seen, now), done)? {
            return Err(doubt);
        }
        // 3: of the packs whose grace is over, what is needed again is copied out; and looked at.
        let mut judged = self.judge(&seen, &self.aged(&seen, now), done)?;
        let rescued = rescue::count(&judged);
        if !self.writes() {
            done.rescued = rescued;
        }
        for _ in 0..ROUNDS_MAX {
            if judged.needed.is_empty() {
                break;
            }
            if !self.writes() {
                break;
            }
            #[cfg(debug_assertions)]
            {
                if suffers(Sabotage::Resurrection) {
                    rescue::resurrect(self, &seen, &judged)?;
                    break;
                }
            }
            rescue::rescue(self, &seen, &judged)?;
            done.rescued = rescued;
            if suffers(Sabotage::BlindRescue) {
                judged.free_all();
                break;
            }
            let Some(again) = self.look()? else { return out_of_time(done) };
            seen = again;
            judged = self.judge(&seen, &self.aged(&seen, now), done)?;
        }
        if !self.writes() {
            judged.free_all();
        }
        // 4: what nobody needs, and was to die for longer than the grace, is deleted.
        let swept = self.delete(&seen, (&judged, now), done)?;
        // 5: what is needed of packs that hold little of it is moved.
        let repacked = repack::repack(self, (&seen, now), done)?;
        // 6: what nobody needs now is to die.
        let marked = mark::mark(self, (&seen, now), repacked, done)?;
        // What a damaged cache does not know looks gone.
        seen.view.index.vouch()?;
        // 7: the index without what is gone, and records that are of no use any more.
        let ages = self.ages(&seen, now);
        let compacted = compact::compact(self, (&seen, ages), &swept.gone, done)?;
        self.tell(&seen, (now, &swept), marked, done);
        let batches = seen.details.batches.len() as u64 - compacted.batches + u64::from(marked.is_some());
        let index = seen.objects.len() as u64 + done.index_written - done.index_deleted;
        let packs = done.after.packs.packs;
        done.after.requests = requests(packs, index, seen.roots.names.len() as u64, batches);
        done.notes.extend(self.notes(seen));
        Ok(())
    }

    pub(super) fn writes(&self) -> bool {
        self.options.mode == Mode::Write
    }

    /// Whether nothing more is to be begun.
    pub(super) fn time_is_up(&self) -> bool {
        self.until.is_some_and(|until| self.repository.clock.elapsed() >= until)
    }

    /// The storage's time.
    fn probe(&self) -> Result<Timestamp> {
        let repository = self.repository;
        if !self.writes() {
            return Ok(repository.clock.now());
        }
        let run = Run {
            time: repository.clock.now(),
            host: self.options.host.clone(),
            command: "prune".to_owned(),
            failure: None,
            nonce: random::bytes()?,
        };
        repository.stored(&repository.publish_run(&self.id, &run)?)
    }

    /// Looks at the domain: registry, snapshots, tombstones, index, packs; then at what the snapshots need. Nothing when
    /// the time was up before all of that was walked.
    fn look(&self) -> Result<Option<Seen>> {
        let repository = self.repository;
        let mut roots = repository.roots(&self.id)?;
        if !roots.doubts.is_empty() {
            let more = roots.doubts.len() - 1;
            let error = roots.doubts.swap_remove(0);
            let error = if more == 0 { error } else { error.context(format!("one of {} doubts", more + 1)) };
            return Err(if error.remedy().is_some() {
                error
            } else {
                error.with_remedy(
                    "Look at it with `lifeboat check`; `lifeboat repair quarantine NAME` sets aside what is damaged",
                )
            });
        }
        let (view, details) = repository.view_to_prune(&self.id)?;
        check_list(&view)?;
        let objects = repository.listed_index(&self.id)?;
        let listed = repository.store.list(&Prefix::records(&self.id, Folder::Tombstones))?;
        let stored = listed.into_iter().map(|listed| (listed.name, listed.modified)).collect();
        let Some(reached) = reach(self, &view, &roots)? else { return Ok(None) };
        view.index.vouch()?;
        Ok(Some(Seen { roots, view, details, objects, stored, reached }))
    }

    /// The packs whose grace is over, by the storage's clock and by ours.
    fn aged(&self, seen: &Seen, now: Timestamp) -> BTreeMap<PackId, ListedPack> {
        let mut aged = BTreeMap::new();
        for (name, batch) in &seen.details.batches {
            if !self.age(seen, (name, batch), now).is_over {
                continue;
            }
            for id in &batch.packs {
                if let Some(pack) = seen.details.packs.get(id) {
                    aged.insert(*id, *pack);
                }
            }
        }
        aged
    }

    /// What the age of a batch of tombstones says.
    pub(super) fn age(&self, seen: &Seen, (name, batch): (&Name, &Tombstones), now: Timestamp) -> Age {
        // One that the LIST did not show is as young as can be.
        let by_storage = seen.stored(name).map_or(0, |stored| now.seconds_since(stored));
        let by_us = self.repository.clock.now().seconds_since(batch.time);
        let [old_there, old_here] = [by_storage, by_us].map(|age| age > self.grace.as_secs());
        let mut age = Age { by_storage, by_us, is_over: old_there && old_here, is_wrong: false };
        age.is_wrong = old_there && !old_here && age.gained();
        age
    }

    /// Where a batch shows that a clock was set, nothing counts as older than the first one after it that shows no such
    /// thing: the storage's clock was not set since.
    fn ages(&self, seen: &Seen, now: Timestamp) -> Ages {
        let (mut before, mut after) = (None, Vec::new());
        for (name, batch) in &seen.details.batches {
            let Some(stored) = seen.stored(name) else { continue };
            if self.age(seen, (name, batch), now).gained() {
                before = before.max(Some(stored));
            } else {
                after.push(stored);
            }
        }
        let since = before.and_then(|before| after.into_iter().filter(|stored| *stored > before).min());
        Ages { now, since }
    }

    /// Deletes what is free, the oldest first. What the storage keeps stays tombstoned and listed: nobody counts on
    /// it, and the next run judges it again.
    fn delete(
        &self,
        seen: &Seen,
        (judged, now): (&Judged, Timestamp),
        done: &mut DomainDone,
    ) -> Result<Swept> {
        /// So many packs are deleted while nobody commits to a local folder.
        const AT_ONCE: usize = 64;
        let (repository, mut swept) = (self.repository, Swept::default());
        if self.writes() && !judged.free.is_empty() && !suffers(Sabotage::NoSecondLook) {
            self.look_for_hidden(seen, now)?;
        }
        let mut free = judged.free.clone();
        free.sort_unstable_by_key(|(id, pack)| (pack.stored, *id));
        let (mut deleter, mut youngest_gone) = (Deleter::new(&repository.store), None);
        for some in free.chunks(AT_ONCE) {
            if self.time_is_up() {
                done.out_of_time = true;
                break;
            }
            let _fence = if self.writes() { repository.store.fence_exclusive()? } else { None };
            for (id, pack) in some {
                if !self.writes() || deleter.delete(&Name::pack(&self.id, pack.kind, id))? {
                    swept.gone.insert(*id);
                    done.deleted.add(pack.size);
                    youngest_gone = youngest_gone.max(Some(pack.stored));
                } else {
                    swept.kept.insert(*id);
                    done.kept.packs.add(pack.size);
                    done.kept.oldest.get_or_insert(pack.stored);
                }
            }
        }
        done.kept.next_try = done.kept.oldest.map(|oldest| next_try(oldest, youngest_gone, now));
        done.kept.why = done.kept.why.take().or(deleter.kept.why);
        Ok(swept)
    }

    /// A snapshot that is older than this run and was not in the LIST: that LIST was not whole.
    fn look_for_hidden(&self, seen: &Seen, now: Timestamp) -> Result<()> {
        let known: HashSet<_> = seen.roots.names.iter().map(|name| name.id).collect();
        for name in self.repository.snapshot_names(&self.id, None)? {
            if !known.contains(&name.id) && name.stored.seconds + 1 < now.seconds {
                let why = "the list of snapshots left it out before, so others may be missing";
                return Err(Error::damaged(&name.name, why)
                    .with_remedy("The LIST of this storage is wrong: ask its operator"));
            }
        }
        Ok(())
    }

    /// What is there now, and when something more can be deleted.
    fn tell(
        &self,
        seen: &Seen,
        (now, swept): (Timestamp, &Swept),
        marked: Option<Timestamp>,
        done: &mut DomainDone,
    ) {
        let waits = |id: &PackId| !swept.gone.contains(id) && !swept.kept.contains(id);
        for (id, pack) in seen.details.packs.iter().filter(|(id, _)| !swept.gone.contains(id)) {
            done.after.packs.add(pack.size);
            if seen.view.tombstoned.contains(id) && waits(id) {
                done.waiting.add(pack.size);
            }
        }
        let waits =
            |batch: &[PackId]| batch.iter().any(|id| seen.details.packs.contains_key(id) && waits(id));
        // What a batch of a wrong age marks, another one has marked again.
        let waiting = seen
            .details
            .batches
            .iter()
            .filter(|(name, batch)| waits(&batch.packs) && !self.age(seen, (name, batch), now).is_wrong);
        let stored = waiting.filter_map(|(name, _)| seen.stored(name)).chain(marked);
        // Older than the grace, by whole seconds.
        let grace = i64::try_from(self.grace.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
        let after = |at: Timestamp| Timestamp { seconds: at.seconds.saturating_add(grace), ..at };
        done.after.packs.join(done.written);
        done.snapshots = seen.roots.known.len() as u64;
        done.next_deletion = stored.map(after).chain(done.kept.next_try).min();
    }

    fn notes(&self, seen: Seen) -> Vec<Error> {
        let Seen { roots, view, reached, .. } = seen;
        let mut notes = roots.notes;
        notes.extend(view.damaged);
        if !reached.in_no_pack_that_counts.is_empty() || reached.rests_on_aside {
            let text = match reached.in_no_pack_that_counts.len() {
                0 => "parts of manifests that snapshots need are only in packs that are set aside".to_owned(),
                1 => "1 chunk that snapshots need is only in packs that are set aside or gone".to_owned(),
                more => {
                    format!("{more} chunks that snapshots need are only in packs that are set aside or gone")
                }
            };
            let then = "What cannot be read any more is told here until the snapshots that lack it end";
            notes.push(Error::new(ErrorKind::Damaged, format!("{text}. {STORE_ANEW}. {then}")));
        }
        if reached.gaps > 0 {
            let text =
                format!("{} parts of snapshots that came too late and were replaced are gone", reached.gaps);
            notes.push(Error::new(ErrorKind::Damaged, text));
        }
        notes
    }
}

/// When a pack that is kept may be gone for the asking. A lock that holds everything for the same time let the youngest
/// go that is gone, so it holds nothing that is older; nobody knows more, so a day passes first otherwise.
fn next_try(oldest_kept: Timestamp, youngest_gone: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let held = youngest_gone.map(|gone| i64::try_from(now.seconds_since(gone)).unwrap_or(i64::MAX));
    let seconds = held.map(|held| oldest_kept.seconds.saturating_add(held).saturating_add(1));
    let tomorrow = now.seconds.saturating_add(DAY_SECONDS);
    Timestamp { seconds: seconds.filter(|at| *at > now.seconds).unwrap_or(tomorrow), ..now }
}

/// Nothing was deleted in this run.
fn out_of_time(done: &mut DomainDone) -> Result<()> {
    done.out_of_time = true;
    Ok(())
}

/// A LIST that lacks much of what the index names is not believed.
fn check_list(view: &View) -> Result<()> {
    let (mut listed, mut missing) = (HashSet::new(), HashSet::new());
    for pack in view.index.packs().filter(|pack| !view.tombstoned.contains(&pack.id)) {
        listed.insert(pack.id);
        if pack.standing == Standing::Missing {
            missing.insert(pack.id);
        }
    }
    let (listed, missing) = (listed.len() as u64, missing.len() as u64);
    if missing > MISSING_ALLOWED && missing.saturating_mul(MISSING_PART) > listed {
        let why = format!("{missing} of {listed} packs that the index names are not in it");
        return Err(Error::damaged("the list of packs", why).with_remedy(
            "If the storage shows them when it is asked again, its LIST is wrong; else `lifeboat check` tells what is lost",
        ));
    }
    Ok(())
}
