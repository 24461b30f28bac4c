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
    error::{Error, ErrorKind, Result},
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
    /// What of it is sealed anew, and of how many frames.
    cut: u64,
    frames_cut: u64,
    /// What nobody needs, or another pack holds as well, and what would go if the pack went: bytes of frames.
    unused: u64,
    /// What nobody needs and would move all the same, since its frame does: about so many bytes. Not of
    /// metadata: frames of nodes hold nothing else, and only move with an attested section.
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
    let keys = CutKeys::of(pruning.repository, &pruning.id)?;
    let candidates = candidates(pruning, (seen, now), (keys.is_some(), &mut *done))?;
    // Where nothing can be deleted, what is moved is only paid for twice.
    let is_locked = done.kept.packs.packs > 0 && done.deleted.packs == 0;
    let chosen = if is_locked { BTreeSet::new() } else { choose(pruning, &candidates) };
    let unused = candidates.iter().filter(|candidate| !chosen.contains(&candidate.pack.id));
    done.unused = unused.map(|candidate| candidate.unused).sum();
    done.pinned = candidates.iter().map(|candidate| candidate.pinned).sum();
    let mut dying = BTreeMap::new();
    for kind in [PackKind::Metadata, PackKind::Data] {
        let mut repack = Repack::new(pruning, (seen, kind), keys.as_ref())?;
        let mut freed = Vec::new();
        for candidate in
            candidates.iter().filter(|one| one.pack.kind == kind && chosen.contains(&one.pack.id))
        {
            if pruning.time_is_up() {
                done.out_of_time = true;
                break;
            }
            let held = match repack.look_at(candidate) {
                Ok(Looked::Stays) => continue,
                Ok(Looked::Goes) => None,
                Ok(Looked::Holds(held)) => Some(held),
                // Without the key of an epoch the frames of that epoch stay as they are.
                Err(error) if error.is_damage() || error.kind() == ErrorKind::Forbidden => {
                    done.notes.push(error.context("a pack that is not repacked"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            held.map_or(Ok(()), |held| repack.write(&held))?;
            freed.push(candidate);
            done.cut += if pruning.writes() { 0 } else { candidate.frames_cut };
            if repack.is_refused() {
                break;
            }
        }
        done.note(std::mem::take(&mut repack.survivors.damaged));
        done.cut += repack.cutter.as_ref().map_or(0, |cutter| cutter.frames);
        let (written, refused) = repack.finish()?;
        done.written.join(written);
        if let Some(error) = refused {
            // Nobody may count on what was cut, so nothing dies for it.
            done.notes
                .push(error.context("what was cut cannot be attested, so the packs that it came from stay: let this key write below `attestations/`"));
            continue;
        }
        for candidate in freed {
            done.repacked.add(candidate.size);
            done.moved += candidate.needed;
            dying.insert(candidate.pack.id, candidate.size);
        }
    }
    Ok(dying)
}

/// Live packs that are old enough and of which something is needed. The rest of what is needed stays where it is.
fn candidates(
    pruning: &Pruning<'_>,
    (seen, now): (&Seen, Timestamp),
    (cuts, done): (bool, &mut DomainDone),
) -> Result<Vec<Candidate>> {
    let busy = Busy::new(pruning, (seen, now));
    let mut listings: HashMap<PackId, Vec<KnownPack>> = HashMap::new();
    for pack in seen.view.index.packs().filter(|pack| pack.standing == Standing::Live) {
        listings.entry(pack.id).or_default().push(pack);
    }
    let mut candidates = Vec::new();
    for (id, listings) in listings {
        pruning.repository.store.progress().check()?;
        if pruning.time_is_up() {
            done.out_of_time = true;
            break;
        }
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
        let mut candidate = Candidate {
            pack: *pack,
            epoch,
            size: listed.size,
            needed: 0,
            cut: 0,
            frames_cut: 0,
            unused: 0,
            pinned: 0,
        };
        for (frame, judged) in directory.frames.iter().zip(judged((seen, pack), &directory, (cuts, None))?) {
            let length = u64::from(frame.length);
            let moved = if judged.fate == Fate::Moves { length } else { judged.needed };
            candidate.needed += moved;
            if judged.fate == Fate::IsCut {
                candidate.cut += moved;
                candidate.frames_cut += 1;
            }
            candidate.unused += length - moved;
            candidate.pinned += if pack.kind == PackKind::Data { moved - judged.needed } else { 0 };
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

/// What becomes of each frame with its pack. One goes of which snapshots may use nothing, or of which a pack with a lower id
/// holds the same. Of an attested section all frames that are left move, or all are cut. To choose packs the word of the index
/// is enough; with `survivors` what stands for something is read, else a damaged copy would send good ones to be rescued again and again.
fn judged(
    (seen, pack): (&Seen, &KnownPack),
    directory: &Directory,
    (cuts, mut survivors): (bool, Option<&mut Survivors<'_>>),
) -> Result<Vec<Judged>> {
    let index = &seen.view.index;
    let cuts = cuts && pack.kind == PackKind::Data;
    let mut all = Vec::with_capacity(directory.frames.len());
    // Of each attested section whether any frame is needed, and whether all would move as they are.
    let mut attested: HashMap<u16, (bool, bool)> = HashMap::new();
    for (frame, numbers) in index.numbered(pack, directory).ok_or_else(lost_pack)? {
        let section = section_of(directory, frame)?;
        let is_attested = index.vouches_for(&section.id());
        let (mut keeps, mut plain) = (Vec::with_capacity(frame.blobs.len()), 0);
        for (blob, number) in frame.blobs.iter().zip(numbers) {
            let keep = seen.reached.copy(number)
                && !(cuts && stands_attested(seen, pack, (blob, number, section), &mut survivors)?);
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
/// in a pack with a higher id or behind it in the same, is one too many: everybody may use that one who could use this. Whoever
/// cut it and was killed before this pack was marked has left such copies, and packs of several clients that were merged have.
fn stands_attested(
    seen: &Seen,
    pack: &KnownPack,
    (blob, number, section): (&Blob, usize, &SectionHeader),
    survivors: &mut Option<&mut Survivors<'_>>,
) -> Result<bool> {
    let is_attested = seen.view.index.vouches_for(&section.id());
    let comes_first = |other: &KnownPack, epoch, at| match is_attested {
        // Another listing of this pack tells of no other copy.
        _ if other.id == pack.id && other.listing() != pack.listing() => false,
        true => (epoch, other.id, at) < (section.epoch, pack.id, number),
        false => epoch <= section.epoch,
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

/// What was found in a pack. Nothing of it was written yet.
enum Looked {
    /// There is nothing to win.
    Stays,
    /// All that is needed of it is in others.
    Goes,
    /// What has to be written before it goes.
    Holds(Held),
}

/// A pack that was read, and is whole as far as it is needed.
struct Held {
    pack: KnownPack,
    directory: Directory,
    judged: Vec<Judged>,
    bytes: Bytes,
}

impl Held {
    fn is(&self, at: usize, fate: Fate) -> bool {
        self.judged.get(at).is_some_and(|judged| judged.fate == fate)
    }
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

    /// Reads a pack, if something of it has to be written.
    fn look_at(&mut self, candidate: &Candidate) -> Result<Looked> {
        let Candidate { pack, needed, cut, .. } = candidate;
        let Pruning { repository, id: domain, .. } = self.pruning;
        repository.store.progress().check()?;
        if !self.pruning.writes() {
            self.planned = [self.planned[0] + needed - cut, self.planned[1] + cut];
            return Ok(Looked::Goes);
        }
        let directory = directory(self.seen, pack)?;
        let how = (self.cutter.is_some(), Some(&mut self.survivors));
        let judged = judged((self.seen, pack), &directory, how)?;
        if judged.iter().all(|judged| judged.fate == Fate::Goes) {
            return Ok(Looked::Goes);
        }
        // What seemed to stand for something is damaged.
        if candidate.unused > 0 && judged.iter().all(|judged| judged.fate == Fate::Moves) {
            return Ok(Looked::Stays);
        }
        let name = repository.pack_name(domain, pack);
        // The hash of each frame decides, not that of the pack: what else is in it need not be whole.
        let bytes = repository.store.read(&name, limits::PACK_BYTES_MAX)?;
        let held = Held { pack: *pack, directory, judged, bytes };
        let whole = Source::new(&held.directory, &held.bytes).and_then(|_| self.check(&held));
        whole.map_err(|error| error.context(&name))?;
        Ok(Looked::Holds(held))
    }

    /// Writes what is needed of a pack. What goes wrong here is no damage of that pack: others have something in what is written.
    fn write(&mut self, held: &Held) -> Result<()> {
        let Held { directory, bytes, .. } = held;
        let source = Source::new(directory, bytes)?;
        let moving = directory.frames.iter().enumerate().filter(|(at, _)| held.is(*at, Fate::Moves));
        let sections: BTreeSet<u16> = moving.map(|(_, frame)| frame.section).collect();
        for section in sections {
            let finished = self.mover.add((&source, section), |at| held.is(at, Fate::Moves))?;
            self.publisher.upload(finished)?;
        }
        self.cut(held)
    }

    fn cut(&mut self, held: &Held) -> Result<()> {
        let Held { pack, directory, judged, bytes } = held;
        let index = &self.seen.view.index;
        let frames = index.numbered(pack, directory).ok_or_else(lost_pack)?;
        let mut cut = Vec::new();
        for (at, (frame, numbers)) in frames.enumerate().filter(|(at, _)| held.is(*at, Fate::IsCut)) {
            cut.push((
                section_of(directory, frame)?,
                frame,
                numbers,
                judged.get(at).map(|judged| &judged.keeps[..]),
            ));
        }
        // What is written is of one epoch at a time.
        cut.sort_by_key(|(section, ..)| section.epoch);
        for (section, frame, numbers, keeps) in cut {
            let passes = |at: usize| {
                keeps.and_then(|keeps| keeps.get(at)) == Some(&true) && !self.taken.get(numbers.start + at)
            };
            let wanted: Vec<bool> = (0..frame.blobs.len()).map(passes).collect();
            if !wanted.contains(&true) {
                continue;
            }
            let cutter = self
                .cutter
                .as_mut()
                .ok_or_else(|| Error::new(ErrorKind::Failed, "a prune without content keys cuts"))?;
            cutter.take((frame, section), frame.sealed_in(bytes)?, (&wanted, &mut self.publisher))?;
            for (at, blob) in frame.blobs.iter().enumerate().filter(|(at, _)| wanted.get(*at) == Some(&true))
            {
                if self.taken.get(numbers.start + at) {
                    continue;
                }
                // A copy of an older epoch is read by more keys: this one does not stand for it.
                let same = |at: &Location| {
                    index.blob(*at) == Some(*blob)
                        && index.epoch(*at).is_some_and(|epoch| epoch >= section.epoch)
                };
                index
                    .unsorted(&blob.id)
                    .filter(same)
                    .for_each(|at| _ = self.taken.set(index.blob_number(at)));
            }
        }
        Ok(())
    }

    /// The storage takes no attestations: nothing that is cut from now on would be of use.
    fn is_refused(&self) -> bool {
        self.cutter.as_ref().is_some_and(|cutter| cutter.refused.is_some())
    }

    /// Whether all that is needed of a pack is whole. Nothing of it is written before that is known: a pack that stays would
    /// be cut again by every run, and leave more copies each time.
    fn check(&mut self, Held { directory, judged, bytes, .. }: &Held) -> Result<()> {
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

    /// Gives the packs that were written, and why nothing of them was attested. Of a dry run about the packs that would be:
    /// without their headers and directories.
    fn finish(mut self) -> Result<(Packs, Option<Error>)> {
        if !self.pruning.writes() {
            let packs = self.planned.iter().map(|bytes| bytes.div_ceil(self.target as u64)).sum();
            return Ok((Packs { packs, bytes: self.planned.iter().sum() }, None));
        }
        let last = self.mover.finish()?;
        self.publisher.upload(last)?;
        let refused = match self.cutter {
            Some(cutter) => cutter.finish(&mut self.publisher)?,
            None => None,
        };
        self.publisher.publish()?;
        Ok((self.publisher.written, refused))
    }
}
