//! Copies out of dying packs what is needed again. A tombstone is final: nobody takes it off.

use std::collections::{BTreeMap, HashSet};

use super::{
    Packs,
    domain::{Pruning, Seen},
    lost_pack,
    sweep::{Judged, Needed},
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        attestation::digest,
        pack::{PackKind, target_length},
    },
    id::{PackId, SectionId},
    limits,
    ops::publisher::Publisher,
    repository::pack_mover::{PackMover, Source},
    store::Name,
};

/// The packs of which something is needed.
pub(super) fn count(judged: &Judged) -> Packs {
    let mut rescued = Packs::default();
    let packs: BTreeMap<PackId, u64> =
        judged.needed.iter().map(|needed| (needed.pack.id, needed.listed.size)).collect();
    packs.values().for_each(|size| rescued.add(*size));
    rescued
}

/// Copies every section of which something is needed into new packs, and publishes them. Two dying packs may hold the same
/// section: where one of them is damaged the other is tried, and at last what is needed of each without the rest.
///
/// # Errors
/// `Damaged` when something that is needed can be read in none of them, after all else was copied; storage trouble.
pub(super) fn rescue(pruning: &Pruning<'_>, seen: &Seen, judged: &Judged) -> Result<()> {
    let target = target_length(seen.view.index.bytes());
    for kind in [PackKind::Metadata, PackKind::Data] {
        let mut rescue = Rescue {
            pruning,
            seen,
            mover: PackMover::new(pruning.repository, (pruning.id, kind), target)?,
            moved: HashSet::new(),
            failed: Vec::new(),
            publisher: Publisher::new(pruning.repository, pruning.id),
        };
        for part in [Part::Whole, Part::Needed] {
            rescue.failed.clear();
            for needed in judged.needed.iter().filter(|needed| needed.pack.kind == kind) {
                rescue.pack(needed, part)?;
            }
        }
        let last = rescue.mover.finish()?;
        rescue.publisher.upload(last)?;
        rescue.publisher.publish()?;
        let Rescue { moved, failed, .. } = rescue;
        if let Some((_, error)) = failed.into_iter().find(|(copy, _)| !moved.contains(copy)) {
            return Err(error);
        }
    }
    Ok(())
}

/// A section with what is said to be in it: two copies of these are the same.
type Copy = (SectionId, [u8; 32]);

/// How much of a section is copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All of it, so that an attested one stays attested.
    Whole,
    /// The frames of which snapshots may use something.
    Needed,
}

struct Rescue<'a> {
    pruning: &'a Pruning<'a>,
    seen: &'a Seen,
    mover: PackMover<'a>,
    moved: HashSet<Copy>,
    /// What is damaged in the packs that were read, and why; another pack may have it.
    failed: Vec<(Copy, Error)>,
    publisher: Publisher<'a>,
}

impl Rescue<'_> {
    fn pack(&mut self, needed: &Needed, part: Part) -> Result<()> {
        let Pruning { repository, id: domain, .. } = self.pruning;
        repository.store.progress().check()?;
        let name = repository.pack_name(domain, &needed.pack);
        let index = &self.seen.view.index;
        let directory = index.directory(&needed.pack).ok_or_else(lost_pack)?;
        let mut sections = Vec::new();
        for section in &needed.sections {
            let header = directory.sections.get(usize::from(*section));
            let id = header.ok_or_else(|| Error::damaged(&name, "it lacks a section"))?.id();
            let copy = (id, digest(&directory, *section));
            if !self.moved.contains(&copy) {
                sections.push((*section, copy));
            }
        }
        if sections.is_empty() {
            return Ok(());
        }
        let frames = index.numbered(&needed.pack, &directory).ok_or_else(lost_pack)?;
        let passes: Vec<bool> =
            frames.map(|(_, numbers)| part == Part::Whole || self.seen.reached.any(numbers)).collect();
        // The hash of each frame decides, not that of the pack: what else is in it need not be whole.
        let bytes = match repository.store.read(&name, limits::PACK_BYTES_MAX) {
            // Another prune has copied what is needed of it and deleted it; if not, the next look says so.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            bytes => bytes?,
        };
        for (section, copy) in sections {
            let moved = Source::new(&directory, &bytes)
                .and_then(|source| self.mover.add((&source, section), |at| passes.get(at) == Some(&true)));
            match moved {
                Ok(finished) => {
                    self.moved.insert(copy);
                    self.publisher.upload(finished)?;
                }
                Err(error) if error.is_damage() => self.failed.push((copy, hurt(&name, error))),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn hurt(name: &Name, error: Error) -> Error {
    error
        .context(format!("{name}, which is to die and is needed"))
        .with_remedy(
            "Nothing more is deleted here. `lifeboat check --read-data` tells which snapshots are hurt; what is good elsewhere is \
             found once `lifeboat repair quarantine NAME --apply` has set this pack aside, and what is good in it is still read",
        )
}

/// What nobody may do: takes the tombstones off the packs that are needed.
#[cfg(debug_assertions)]
pub(super) fn resurrect(pruning: &Pruning<'_>, seen: &Seen, judged: &Judged) -> Result<()> {
    use crate::format::tombstones::Tombstones;
    let alive: HashSet<PackId> = judged.needed.iter().map(|needed| needed.pack.id).collect();
    for (name, batch) in &seen.details.batches {
        let packs: Vec<PackId> = batch.packs.iter().filter(|id| !alive.contains(*id)).copied().collect();
        if packs.len() == batch.packs.len() {
            continue;
        }
        if !packs.is_empty() {
            pruning.repository.publish_tombstones(&pruning.id, &Tombstones { time: batch.time, packs })?;
        }
        pruning.repository.store.delete(name)?;
    }
    if alive.is_empty() {
        return Err(Error::new(ErrorKind::Failed, "nothing is to be resurrected"));
    }
    Ok(())
}
