//! Copies out of dying packs what is needed again. A tombstone is final: nobody takes it off.

use std::collections::{BTreeMap, HashSet};

use super::{
    Packs,
    domain::{Pruning, Seen},
    lost_pack,
    sweep::{Judged, Needed},
};
use crate::{
    error::{Error, Result},
    format::{
        attestation::digest,
        pack::{PackKind, target_length},
    },
    id::{PackId, SectionId},
    limits,
    ops::publisher::Publisher,
    repository::pack_mover::{PackMover, Source},
};

/// The packs of which something is needed.
pub(super) fn count(judged: &Judged) -> Packs {
    let mut rescued = Packs::default();
    let packs: BTreeMap<PackId, u64> =
        judged.needed.iter().map(|needed| (needed.pack.id, needed.listed.size)).collect();
    packs.values().for_each(|size| rescued.add(*size));
    rescued
}

/// Copies every section of which something is needed into new packs, and publishes them.
pub(super) fn rescue(pruning: &Pruning<'_>, seen: &Seen, judged: &Judged) -> Result<()> {
    let target = target_length(seen.view.index.bytes());
    for kind in [PackKind::Metadata, PackKind::Data] {
        let of_kind = |needed: &&Needed| needed.pack.kind == kind;
        let mut rescue = Rescue {
            pruning,
            mover: PackMover::new(pruning.repository, (pruning.id, kind), target)?,
            moved: HashSet::new(),
            publisher: Publisher::new(pruning.repository, pruning.id),
        };
        for needed in judged.needed.iter().filter(of_kind) {
            rescue.pack(seen, needed)?;
        }
        let last = rescue.mover.finish()?;
        rescue.publisher.upload(last)?;
        rescue.publisher.publish()?;
    }
    Ok(())
}

struct Rescue<'a> {
    pruning: &'a Pruning<'a>,
    mover: PackMover<'a>,
    /// Two dying packs may hold the same section.
    moved: HashSet<(SectionId, [u8; 32])>,
    publisher: Publisher<'a>,
}

impl Rescue<'_> {
    fn pack(&mut self, seen: &Seen, needed: &Needed) -> Result<()> {
        let Pruning { repository, id: domain, .. } = self.pruning;
        repository.store.progress().check()?;
        let name = repository.pack_name(domain, &needed.pack);
        let directory = seen.view.index.directory(&needed.pack);
        let directory = directory.ok_or_else(lost_pack)?;
        let mut sections = Vec::new();
        for section in &needed.sections {
            let header = directory.sections.get(usize::from(*section));
            let id = header.ok_or_else(|| Error::damaged(&name, "it lacks a section"))?.id();
            if self.moved.insert((id, digest(&directory, *section))) {
                sections.push(*section);
            }
        }
        if sections.is_empty() {
            return Ok(());
        }
        let hurt = |error: Error| {
            error
                .context(format!("{name}, which is to die and is needed"))
                .with_remedy("Nothing more is deleted here. `lifeboat check` tells which snapshots are hurt")
        };
        // The hash of each frame decides, not that of the pack: what else is in it need not be whole.
        let bytes = repository.store.read(&name, limits::PACK_BYTES_MAX)?;
        let source = Source::new(&directory, &bytes).map_err(hurt)?;
        for section in sections {
            let finished = self.mover.add((&source, section), |_| true).map_err(hurt)?;
            self.publisher.upload(finished)?;
        }
        Ok(())
    }
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
        return Err(Error::new(crate::error::ErrorKind::Failed, "nothing is to be resurrected"));
    }
    Ok(())
}
