//! Moves what is needed out of packs that hold little of it, and out of many small ones, into new packs; the old ones
//! die like those that nobody needs. A wrong choice costs work and no data: what is needed of a dying pack is looked
//! for again, byte by byte, before it is deleted.
//!
//! Sealed frames move as they are, so no content key is needed and nothing is cut out of a frame. Of a section that a
//! verifier has attested all frames move or none: he has spoken of all of them together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    DomainDone, Packs, Unused,
    domain::{Pruning, Seen},
    lost_pack,
    mark::Busy,
};
use crate::{
    clock::Timestamp,
    error::Result,
    format::pack::{Directory, Frame, PackKind, target_length},
    id::PackId,
    limits,
    ops::publisher::Publisher,
    repository::{
        index::{KnownPack, Standing},
        pack_mover::PackMover,
    },
};

/// A live pack of which snapshots may use something.
struct Candidate {
    pack: KnownPack,
    size: u64,
    /// What has to stay: bytes of frames.
    needed: u64,
    /// What nobody needs, or another pack holds as well: bytes of frames.
    unused: u64,
}

/// Moves what is worth it. Gives the packs that are to die for it, with their sizes.
pub(super) fn repack(
    pruning: &Pruning<'_>,
    (seen, now): (&Seen, Timestamp),
    done: &mut DomainDone,
) -> Result<BTreeMap<PackId, u64>> {
    let candidates = candidates(pruning, (seen, now))?;
    // Where nothing can be deleted, what is moved is only paid for twice.
    let is_locked = done.kept.packs.packs > 0 && done.deleted.packs == 0;
    let chosen = if is_locked { BTreeSet::new() } else { choose(pruning, &candidates) };
    let unused = candidates.iter().filter(|candidate| !chosen.contains(&candidate.pack.id));
    done.unused = unused.map(|candidate| candidate.unused).sum();
    let mut dying = BTreeMap::new();
    for kind in [PackKind::Metadata, PackKind::Data] {
        let mut repack = Repack::new(pruning, (seen, kind))?;
        for candidate in
            candidates.iter().filter(|one| one.pack.kind == kind && chosen.contains(&one.pack.id))
        {
            if pruning.time_is_up() {
                done.out_of_time = true;
                break;
            }
            match repack.pack(candidate) {
                Ok(()) => {
                    done.repacked.add(candidate.size);
                    done.moved += candidate.needed;
                    dying.insert(candidate.pack.id, candidate.size);
                }
                Err(error) if error.is_damage() => {
                    done.notes.push(error.context("a pack that is not repacked"));
                }
                Err(error) => return Err(error),
            }
        }
        done.written.join(repack.finish()?);
    }
    Ok(dying)
}

/// Live packs that are old enough and of which something is needed. The rest of what is needed stays where it is.
fn candidates(pruning: &Pruning<'_>, (seen, now): (&Seen, Timestamp)) -> Result<Vec<Candidate>> {
    let busy = Busy::new(pruning, (seen, now));
    let mut listings: HashMap<PackId, Vec<KnownPack>> = HashMap::new();
    for pack in seen.view.index.packs().filter(|pack| pack.standing == Standing::Live) {
        listings.entry(pack.id).or_default().push(pack);
    }
    let mut candidates = Vec::new();
    for (id, listings) in listings {
        let (Some(pack), Some(listed)) = (listings.first(), seen.details.packs.get(&id)) else { continue };
        if busy.is_young(listed.stored) || busy.is_of_running(pack, listed.stored)? {
            continue;
        }
        let directory = directory(seen, pack)?;
        // Somebody says something else of it: it stays as it is.
        if listings.iter().skip(1).any(|other| seen.view.index.directory(other).as_ref() != Some(&directory))
        {
            continue;
        }
        let moving = moving(seen, pack, &directory)?;
        let bytes = |moves: bool| -> u64 {
            let frames = directory.frames.iter().zip(&moving).filter(|(_, moving)| **moving == moves);
            frames.map(|(frame, _)| u64::from(frame.length)).sum()
        };
        // What nobody needs at all is marked without this.
        let frames = seen.view.index.frames_of(pack).ok_or_else(lost_pack)?;
        if seen.reached.any(frames) {
            candidates.push(Candidate {
                pack: *pack,
                size: listed.size,
                needed: bytes(true),
                unused: bytes(false),
            });
        }
    }
    candidates.sort_by_key(|candidate| candidate.pack.id);
    Ok(candidates)
}

/// Which packs to move from: those with the largest part of unused bytes, until what is left is as little as was asked
/// for; and all small ones of a kind if there are many.
fn choose(pruning: &Pruning<'_>, candidates: &[Candidate]) -> BTreeSet<PackId> {
    let options = pruning.options;
    let needed: u64 = candidates.iter().map(|candidate| candidate.needed).sum();
    let mut unused: u64 = candidates.iter().map(|candidate| candidate.unused).sum();
    let allowed = match options.max_unused {
        Unused::Percent(percent) => {
            needed / 100 * u64::from(percent) + needed % 100 * u64::from(percent) / 100
        }
        Unused::Bytes(bytes) => bytes,
        Unused::Any => u64::MAX,
    };
    let mut left = options.max_repack.unwrap_or(u64::MAX);
    let mut chosen = BTreeSet::new();
    let mut take = |candidate: &Candidate| {
        if chosen.contains(&candidate.pack.id) || candidate.needed > left {
            return false;
        }
        left -= candidate.needed;
        chosen.insert(candidate.pack.id)
    };
    let mut by_use: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.unused > 0).collect();
    // As fractions of whole numbers: unused / size, the largest first.
    by_use.sort_by_key(|one| {
        std::cmp::Reverse(u128::from(one.unused) * (1 << 32) / u128::from(one.size.max(1)))
    });
    for candidate in by_use {
        if unused <= allowed {
            break;
        }
        if take(candidate) {
            unused -= candidate.unused;
        }
    }
    for kind in [PackKind::Metadata, PackKind::Data] {
        let is_small = |one: &&Candidate| one.pack.kind == kind && one.size < SMALL_BYTES;
        let small: Vec<&Candidate> = candidates.iter().filter(is_small).collect();
        if small.len() >= options.small_packs {
            for candidate in small {
                take(candidate);
            }
        }
    }
    chosen
}

/// Smaller packs are merged. What comes of it is merged again until it is as large, so each byte moves a few times.
const SMALL_BYTES: u64 = limits::PACK_BYTES_TARGET as u64 / 2;

/// For each frame whether it moves with its pack: snapshots may use it, and no pack of a lower id holds the same.
/// With one frame of an attested section all of them move.
fn moving(seen: &Seen, pack: &KnownPack, directory: &Directory) -> Result<Vec<bool>> {
    let index = &seen.view.index;
    let numbers = index.frames_of(pack).ok_or_else(lost_pack)?;
    let mut whole = BTreeSet::new();
    let mut moving = Vec::with_capacity(directory.frames.len());
    for (number, frame) in numbers.zip(&directory.frames) {
        let moves = seen.reached.frame(number) && !stands_before(seen, pack, (directory, frame))?;
        if moves && is_attested(seen, pack, frame) {
            whole.insert(frame.section);
        }
        moving.push(moves);
    }
    for (frame, moves) in directory.frames.iter().zip(&mut moving) {
        *moves |= whole.contains(&frame.section);
    }
    Ok(moving)
}

fn is_attested(seen: &Seen, pack: &KnownPack, frame: &Frame) -> bool {
    let index = &seen.view.index;
    let here = |at| index.pack_at(at).is_some_and(|found| found.id == pack.id);
    let locations = frame.blobs.first().map(|blob| index.locations(&blob.id)).unwrap_or_default();
    locations.into_iter().any(|at| here(at) && index.is_attested(at))
}

/// Whether a live pack of a lower id holds the very same sealed frame: of two copies one is enough, and whoever prunes
/// at the same time keeps the same one. Whether it is really there is looked at before anything is deleted.
fn stands_before(seen: &Seen, pack: &KnownPack, (directory, frame): (&Directory, &Frame)) -> Result<bool> {
    let index = &seen.view.index;
    let section = directory.sections.get(usize::from(frame.section)).ok_or_else(lost_pack)?;
    let Some(blob) = frame.blobs.first() else { return Ok(false) };
    let is_before = |at| {
        index.pack_at(at).is_some_and(|other| other.standing == Standing::Live && other.id < pack.id)
            && index.found(at).is_some_and(|found| found.is_same(frame, section))
    };
    Ok(index.locations(&blob.id).into_iter().any(is_before))
}

fn directory(seen: &Seen, pack: &KnownPack) -> Result<Directory> {
    seen.view.index.directory(pack).ok_or_else(lost_pack)
}

/// Moves frames of one kind.
struct Repack<'a> {
    pruning: &'a Pruning<'a>,
    seen: &'a Seen,
    mover: PackMover<'a>,
    publisher: Publisher<'a>,
    /// Bytes of a pack.
    target: usize,
    /// Bytes of frames that would move.
    planned: u64,
}

impl<'a> Repack<'a> {
    fn new(pruning: &'a Pruning<'a>, (seen, kind): (&'a Seen, PackKind)) -> Result<Self> {
        let target = target_length(seen.view.index.bytes());
        let mover = PackMover::new(pruning.repository, (pruning.id, kind), target)?;
        Ok(Self {
            pruning,
            seen,
            mover,
            publisher: Publisher::new(pruning.repository, pruning.id),
            target,
            planned: 0,
        })
    }

    fn pack(&mut self, candidate: &Candidate) -> Result<()> {
        let Candidate { pack, needed, .. } = candidate;
        let Pruning { repository, id: domain, .. } = self.pruning;
        repository.store.progress().check()?;
        if *needed == 0 || !self.pruning.writes() {
            self.planned += *needed;
            return Ok(());
        }
        let name = repository.pack_name(domain, pack);
        let directory = directory(self.seen, pack)?;
        let moving = moving(self.seen, pack, &directory)?;
        // The hash of each frame decides, not that of the pack: what else is in it need not be whole.
        let bytes = repository.store.read(&name, limits::PACK_BYTES_MAX)?;
        let sections: BTreeSet<u16> = directory
            .frames
            .iter()
            .zip(&moving)
            .filter(|(_, moves)| **moves)
            .map(|(frame, _)| frame.section)
            .collect();
        for section in sections {
            let finished = self
                .mover
                .add((&directory, section), &bytes, |at| moving.get(at) == Some(&true))
                .map_err(|error| error.context(&name))?;
            self.publisher.upload(finished)?;
        }
        Ok(())
    }

    /// Gives the packs that were written. Of a dry run about those that would be: without their headers and directories.
    fn finish(mut self) -> Result<Packs> {
        if !self.pruning.writes() {
            let packs = self.planned.div_ceil(self.target as u64);
            return Ok(Packs { packs, bytes: self.planned });
        }
        let last = self.mover.finish()?;
        self.publisher.upload(last)?;
        self.publisher.publish()?;
        Ok(self.publisher.written)
    }
}
