//! Moves what is needed out of packs that hold little of it, and out of many small ones, into new packs; the old ones
//! die like those that nobody needs. A wrong choice costs work and no data: what is needed of a dying pack is looked
//! for again, byte by byte, before it is deleted.
//!
//! Sealed frames move as they are, so no content key is needed; of a section that a verifier has attested all of them move or
//! none, since he has spoken of all of them together. Who reads contents cuts: of a frame that holds something which
//! nobody needs, the rest is sealed anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::{
    DomainDone, Packs, Unused,
    bits::Bits,
    cut::{CutKeys, Cutter},
    domain::{Pruning, Seen},
    lost_pack,
    mark::Busy,
    section_of,
    sweep::{Survivors, holds_attested, holds_same},
};
use crate::{
    clock::Timestamp,
    error::{ErrorKind, Result},
    format::pack::{Blob, Directory, Frame, PackKind, SectionHeader, target_length},
    id::PackId,
    limits,
    ops::publisher::Publisher,
    repository::{
        index::{KnownPack, Location, Standing},
        pack_mover::{PackMover, Source},
        section::check_ciphertext,
    },
};

/// A live pack of which snapshots may use something.
struct Candidate {
    pack: KnownPack,
    /// Of its first section: what is cut is sealed to the epoch that it comes from, one after the other.
    epoch: u32,
    size: u64,
    /// What has to stay: bytes of frames.
    needed: u64,
    /// What of it is sealed anew.
    cut: u64,
    /// What nobody needs, or another pack holds as well, and what would go if the pack went: bytes of frames.
    unused: u64,
    /// What nobody needs and would move all the same, since its frame does: about so many bytes.
    pinned: u64,
}

/// What becomes of a frame when its pack is repacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes with its pack.
    Goes,
    /// It moves as it is.
    Moves,
    /// What is needed of it is sealed anew.
    IsCut,
}

/// A frame, and how much of it is needed.
struct Judged {
    fate: Fate,
    /// Of its bytes, about: what is compressed together has no size of its own.
    needed: u64,
    /// For each blob whether it is needed here.
    keeps: Vec<bool>,
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
    done.pinned = candidates.iter().map(|candidate| candidate.pinned).sum();
    let mut dying = BTreeMap::new();
    let keys = CutKeys::of(pruning.repository, &pruning.id)?;
    for kind in [PackKind::Metadata, PackKind::Data] {
        let mut repack = Repack::new(pruning, (seen, kind), keys.as_ref())?;
        for candidate in
            candidates.iter().filter(|one| one.pack.kind == kind && chosen.contains(&one.pack.id))
        {
            if pruning.time_is_up() {
                done.out_of_time = true;
                break;
            }
            match repack.pack(candidate) {
                Ok(Repacked::No) => {}
                Ok(Repacked::Yes) => {
                    done.repacked.add(candidate.size);
                    done.moved += candidate.needed;
                    dying.insert(candidate.pack.id, candidate.size);
                }
                // Without the key of an epoch the frames of that epoch stay as they are.
                Err(error) if error.is_damage() || error.kind() == ErrorKind::Forbidden => {
                    done.notes.push(error.context("a pack that is not repacked"));
                }
                Err(error) => return Err(error),
            }
        }
        done.note(std::mem::take(&mut repack.survivors.damaged));
        done.cut += repack.cutter.as_ref().map_or(0, |cutter| cutter.frames);
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
        // What nobody needs at all is marked without this.
        if !seen.reached.any(seen.view.index.blobs_of(pack).ok_or_else(lost_pack)?) {
            continue;
        }
        let epoch = directory.sections.first().map_or(0, |section| section.epoch);
        let mut candidate =
            Candidate { pack: *pack, epoch, size: listed.size, needed: 0, cut: 0, unused: 0, pinned: 0 };
        for (frame, judged) in directory.frames.iter().zip(judged(pruning, (seen, pack), &directory, None)?) {
            let length = u64::from(frame.length);
            let moved = if judged.fate == Fate::Moves { length } else { judged.needed };
            candidate.needed += moved;
            candidate.cut += if judged.fate == Fate::IsCut { moved } else { 0 };
            candidate.unused += length - moved;
            candidate.pinned += moved - judged.needed;
        }
        candidates.push(candidate);
    }
    candidates.sort_by_key(|candidate| (candidate.epoch, candidate.pack.id));
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

/// Whether this prune cuts frames: it reads contents, and may vouch for what it writes.
fn cuts(pruning: &Pruning<'_>) -> bool {
    pruning.repository.reads_data()
}

/// What becomes of each frame with its pack. One goes of which snapshots may use nothing, or of which a pack with a lower id
/// holds the same. Of an attested section all frames that are left move, or all are cut. To choose packs the word of the index
/// is enough; with `survivors` what stands for something is read, else a damaged copy would send good ones to be rescued again and again.
fn judged(
    pruning: &Pruning<'_>,
    (seen, pack): (&Seen, &KnownPack),
    directory: &Directory,
    mut survivors: Option<&mut Survivors<'_>>,
) -> Result<Vec<Judged>> {
    let index = &seen.view.index;
    let cuts = cuts(pruning) && pack.kind == PackKind::Data;
    let mut all = Vec::with_capacity(directory.frames.len());
    // Of each attested section whether any frame is needed, and whether all would move as they are.
    let mut attested: HashMap<u16, (bool, bool)> = HashMap::new();
    for (frame, numbers) in index.numbered(pack, directory).ok_or_else(lost_pack)? {
        let section = section_of(directory, frame)?;
        let is_attested = index.vouches_for(&section.id());
        let (mut keeps, mut plain) = (Vec::with_capacity(frame.blobs.len()), 0);
        for (blob, number) in frame.blobs.iter().zip(numbers) {
            let keep = seen.reached.copy(number)
                && !(cuts && stands_attested(seen, pack, (blob, section, is_attested), &mut survivors)?);
            plain += if keep { u64::from(blob.length) } else { 0 };
            keeps.push(keep);
        }
        let is_whole = plain == frame.plain_length() as u64;
        let stands = plain > 0 && stands_before(seen, pack, (directory, frame), &mut survivors)?;
        let fate = if plain == 0 || stands {
            Fate::Goes
        } else if is_whole || !cuts {
            Fate::Moves
        } else {
            Fate::IsCut
        };
        if is_attested {
            let (any, all) = attested.entry(frame.section).or_insert((false, true));
            *any |= fate != Fate::Goes;
            *all &= fate == Fate::Moves;
        }
        let share = u128::from(frame.length) * u128::from(plain) / (frame.plain_length() as u128).max(1);
        let needed = if fate == Fate::Goes { 0 } else { u64::try_from(share).unwrap_or(u64::MAX) };
        all.push(Judged { fate, needed, keeps });
    }
    for (frame, judged) in directory.frames.iter().zip(&mut all) {
        match attested.get(&frame.section) {
            Some((true, false)) if !cuts => judged.fate = Fate::Moves,
            Some((_, false)) if cuts && judged.fate == Fate::Moves => judged.fate = Fate::IsCut,
            _ => {}
        }
    }
    Ok(all)
}

/// Whether a live pack holds a blob in an attested section, so that a copy which is not attested, or of a newer epoch, or lies
/// in a pack with a higher id, is one too many: everybody may use that one who could use this. Whoever cut it and was killed
/// before this pack was marked has left such copies.
fn stands_attested(
    seen: &Seen,
    pack: &KnownPack,
    (blob, section, is_attested): (&Blob, &SectionHeader, bool),
    survivors: &mut Option<&mut Survivors<'_>>,
) -> Result<bool> {
    let comes_first = |other: &KnownPack, epoch| {
        other.id != pack.id
            && match is_attested {
                true => (epoch, other.id) < (section.epoch, pack.id),
                false => epoch <= section.epoch,
            }
    };
    holds_attested((&seen.view.index, survivors), (blob, pack.kind), comes_first)
}

/// Whether a live pack of a lower id holds the very same sealed frame: of two copies one is enough, and whoever prunes
/// at the same time keeps the same one. Whether it is really there is looked at again before anything is deleted.
fn stands_before(
    seen: &Seen,
    pack: &KnownPack,
    (directory, frame): (&Directory, &Frame),
    survivors: &mut Option<&mut Survivors<'_>>,
) -> Result<bool> {
    let section = section_of(directory, frame)?;
    holds_same((&seen.view.index, survivors), (frame, section), |other| other.id < pack.id)
}

fn directory(seen: &Seen, pack: &KnownPack) -> Result<Directory> {
    seen.view.index.directory(pack).ok_or_else(lost_pack)
}

/// Whether what is needed of a pack is in others now.
enum Repacked {
    Yes,
    No,
}

/// Moves frames of one kind.
struct Repack<'a> {
    pruning: &'a Pruning<'a>,
    seen: &'a Seen,
    mover: PackMover<'a>,
    cutter: Option<Cutter<'a>>,
    survivors: Survivors<'a>,
    /// Copies of what was cut in this run, by the number of the blob: of one that is needed in several packs one copy is enough.
    taken: Bits,
    publisher: Publisher<'a>,
    /// Bytes of a pack.
    target: usize,
    /// Bytes of frames that would move, and that would be sealed anew: each in packs of their own.
    planned: [u64; 2],
}

impl<'a> Repack<'a> {
    fn new(
        pruning: &'a Pruning<'a>,
        (seen, kind): (&'a Seen, PackKind),
        keys: Option<&'a CutKeys<'a>>,
    ) -> Result<Self> {
        let target = target_length(seen.view.index.bytes());
        let mover = PackMover::new(pruning.repository, (pruning.id, kind), target)?;
        let keys = keys.filter(|_| kind == PackKind::Data);
        let cutter =
            keys.map(|keys| Cutter::new(pruning.repository, (pruning.id, keys), target)).transpose()?;
        Ok(Self {
            pruning,
            seen,
            mover,
            cutter,
            survivors: Survivors::new(pruning, &seen.view.index)?,
            taken: Bits::new(seen.view.index.blobs()),
            publisher: Publisher::new(pruning.repository, pruning.id),
            target,
            planned: [0; 2],
        })
    }

    fn pack(&mut self, candidate: &Candidate) -> Result<Repacked> {
        let Candidate { pack, needed, cut, .. } = candidate;
        let Pruning { repository, id: domain, .. } = self.pruning;
        repository.store.progress().check()?;
        if !self.pruning.writes() {
            self.planned = [self.planned[0] + needed - cut, self.planned[1] + cut];
            return Ok(Repacked::Yes);
        }
        let name = repository.pack_name(domain, pack);
        let directory = directory(self.seen, pack)?;
        let judged = judged(self.pruning, (self.seen, pack), &directory, Some(&mut self.survivors))?;
        if judged.iter().all(|judged| judged.fate == Fate::Goes) {
            return Ok(Repacked::Yes);
        }
        // What seemed to stand for something is damaged: there is nothing to win.
        if candidate.unused > 0 && judged.iter().all(|judged| judged.fate == Fate::Moves) {
            return Ok(Repacked::No);
        }
        let is = |at: usize, fate| judged.get(at).is_some_and(|judged| judged.fate == fate);
        // The hash of each frame decides, not that of the pack: what else is in it need not be whole.
        let bytes = repository.store.read(&name, limits::PACK_BYTES_MAX)?;
        let source = Source::new(&directory, &bytes).map_err(|error| error.context(&name))?;
        self.look(&directory, &bytes, &judged).map_err(|error| error.context(&name))?;
        let moves = |(at, _): &(usize, &Frame)| is(*at, Fate::Moves);
        let moving = directory.frames.iter().enumerate().filter(moves);
        let sections: BTreeSet<u16> = moving.map(|(_, frame)| frame.section).collect();
        for section in sections {
            let finished = self.mover.add((&source, section), |at| is(at, Fate::Moves))?;
            self.publisher.upload(finished)?;
        }
        let Some(cutter) = &mut self.cutter else { return Ok(Repacked::Yes) };
        let index = &self.seen.view.index;
        let frames = index.numbered(pack, &directory).ok_or_else(lost_pack)?;
        for ((frame, numbers), judged) in frames.zip(&judged).filter(|(_, judged)| judged.fate == Fate::IsCut)
        {
            let passes =
                |at: usize| judged.keeps.get(at) == Some(&true) && !self.taken.get(numbers.start + at);
            let wanted: Vec<bool> = (0..frame.blobs.len()).map(passes).collect();
            if !wanted.contains(&true) {
                continue;
            }
            let frame_and_section = (frame, section_of(&directory, frame)?);
            cutter.take(frame_and_section, frame.sealed_in(&bytes)?, (&wanted, &mut self.publisher))?;
            for (blob, _) in frame.blobs.iter().zip(&wanted).filter(|(_, wanted)| **wanted) {
                let same = |at: &Location| index.blob(*at) == Some(*blob);
                index.locations(&blob.id).into_iter().filter(same).for_each(|at| {
                    self.taken.set(index.blob_number(at));
                });
            }
        }
        Ok(Repacked::Yes)
    }

    /// Whether all that is needed of a pack is whole. Nothing of it is written before that is known: a pack that stays would
    /// be cut again by every run, and leave more copies each time.
    fn look(&mut self, directory: &Directory, bytes: &Bytes, judged: &[Judged]) -> Result<()> {
        for (frame, judged) in directory.frames.iter().zip(judged) {
            let sealed = || frame.sealed_in(bytes);
            match (judged.fate, &mut self.cutter) {
                (Fate::Goes, _) => {}
                (Fate::IsCut, Some(cutter)) => {
                    cutter.look((frame, section_of(directory, frame)?), sealed()?)?
                }
                (Fate::Moves | Fate::IsCut, _) => check_ciphertext(frame, sealed()?)?,
            }
        }
        Ok(())
    }

    /// Gives the packs that were written. Of a dry run about those that would be: without their headers and directories.
    fn finish(mut self) -> Result<Packs> {
        if !self.pruning.writes() {
            let packs = self.planned.iter().map(|bytes| bytes.div_ceil(self.target as u64)).sum();
            return Ok(Packs { packs, bytes: self.planned.iter().sum() });
        }
        let last = self.mover.finish()?;
        self.publisher.upload(last)?;
        if let Some(cutter) = self.cutter {
            cutter.finish(&mut self.publisher)?;
        }
        self.publisher.publish()?;
        Ok(self.publisher.written)
    }
}
