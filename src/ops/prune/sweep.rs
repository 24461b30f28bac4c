//! Which of the packs whose grace is over nobody needs, and what is needed of the others.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    bits::Bits,
    domain::{Pruning, Seen},
    lost_pack, section_of,
};
use crate::{
    error::{Error, Result},
    format::pack::{Blob, Frame, SectionHeader},
    id::{DomainId, PackId},
    limits,
    repository::{
        Repository,
        index::{Index, KnownPack, Location, Standing},
        section::check_ciphertext,
        view::ListedPack,
    },
    sabotage::{Sabotage, suffers},
};

/// The packs whose grace is over.
#[derive(Default)]
pub(super) struct Judged {
    /// Nobody needs them, or another live pack was seen to hold what is needed.
    pub(super) free: Vec<(PackId, ListedPack)>,
    /// These sections of them have to be copied out first.
    pub(super) needed: Vec<Needed>,
}

/// A pack of which something is needed.
pub(super) struct Needed {
    pub(super) pack: KnownPack,
    pub(super) listed: ListedPack,
    pub(super) sections: BTreeSet<u16>,
}

impl Judged {
    /// As if all had been rescued.
    pub(super) fn free_all(&mut self) {
        self.free.extend(self.needed.drain(..).map(|needed| (needed.pack.id, needed.listed)));
        self.free.sort_unstable_by_key(|(id, _)| *id);
        self.free.dedup_by_key(|(id, _)| *id);
    }
}

impl Pruning<'_> {
    /// Looks at each of these packs.
    pub(super) fn judge(&self, seen: &Seen, aged: &BTreeMap<PackId, ListedPack>) -> Result<Judged> {
        let index = &seen.view.index;
        let mut listings: HashMap<PackId, Vec<KnownPack>> = HashMap::new();
        for pack in index.packs().filter(|pack| aged.contains_key(&pack.id)) {
            listings.entry(pack.id).or_default().push(pack);
        }
        let mut survivors = Survivors::new(self.repository, self.id, index);
        let mut judged = Judged::default();
        for (id, listed) in aged {
            self.repository.store.progress().check()?;
            let mut is_free = true;
            for pack in listings.get(id).into_iter().flatten() {
                let sections = self.needed(seen, pack, &mut survivors)?;
                if !sections.is_empty() {
                    is_free = false;
                    judged.needed.push(Needed { pack: *pack, listed: *listed, sections });
                }
            }
            if is_free {
                judged.free.push((*id, *listed));
            }
        }
        Ok(judged)
    }

    /// The sections with a frame of which snapshots may use something that nothing else stands for.
    fn needed(&self, seen: &Seen, pack: &KnownPack, survivors: &mut Survivors<'_>) -> Result<BTreeSet<u16>> {
        let index = &seen.view.index;
        let mut sections = BTreeSet::new();
        if !seen.reached.any(index.blobs_of(pack).ok_or_else(lost_pack)?) {
            return Ok(sections);
        }
        let directory = index.directory(pack).ok_or_else(lost_pack)?;
        for (frame, numbers) in index.numbered(pack, &directory).ok_or_else(lost_pack)? {
            if sections.contains(&frame.section) {
                continue;
            }
            let blobs = frame.blobs.iter().zip(numbers);
            let used = blobs.filter(|(_, number)| seen.reached.copy(*number)).map(|(blob, _)| *blob);
            let used: Vec<Blob> = used.collect();
            if used.is_empty() {
                continue;
            }
            let section = section_of(&directory, frame)?;
            if !survivors.stand_for(&pack.id, (frame, &used), section)? {
                sections.insert(frame.section);
            }
        }
        Ok(sections)
    }
}

/// Finds what stands for a frame, in live packs. What an index says is not enough: the bytes are read, each pack once.
pub(super) struct Survivors<'a> {
    repository: &'a Repository,
    domain: DomainId,
    index: &'a Index,
    /// Listings of packs that were read.
    read: HashSet<(u32, u32)>,
    /// By the number of the frame: it is what its directory says.
    intact: Bits,
    /// What is wrong with some of the packs that were read.
    pub(super) damaged: Vec<Error>,
}

impl<'a> Survivors<'a> {
    pub(super) fn new(repository: &'a Repository, domain: DomainId, index: &'a Index) -> Self {
        let (read, intact) = (HashSet::new(), Bits::new(index.frames()));
        Self { repository, domain, index, read, intact, damaged: Vec::new() }
    }

    /// Whether something stands for what snapshots use of a frame.
    fn stand_for(
        &mut self,
        dying: &PackId,
        (frame, used): (&Frame, &[Blob]),
        section: &SectionHeader,
    ) -> Result<bool> {
        if suffers(Sabotage::EveryCopy) {
            let is_elsewhere = |blob: &Blob| {
                let packs =
                    self.index.locations(&blob.id).into_iter().filter_map(|at| self.index.pack_at(at));
                packs.filter(|pack| pack.id != *dying).any(|pack| pack.standing.counts())
            };
            return Ok(used.iter().all(is_elsewhere));
        }
        if self.holds_same(dying, frame, section)? {
            return Ok(true);
        }
        for blob in used {
            if !self.holds_attested(dying, blob, section)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether another live pack holds the very same sealed frame.
    fn holds_same(&mut self, dying: &PackId, frame: &Frame, section: &SectionHeader) -> Result<bool> {
        let Some(first) = frame.blobs.first() else { return Ok(true) };
        for at in self.index.locations(&first.id) {
            let Some(found) = self.index.found(at) else { continue };
            if found.pack.id != *dying
                && found.pack.standing == Standing::Live
                && found.is_same(frame, section)
                && self.is_intact(at)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a live pack holds the blob in a section that a verifier vouches for, of no newer epoch: everybody may use that
    /// who could use this one.
    fn holds_attested(&mut self, dying: &PackId, blob: &Blob, section: &SectionHeader) -> Result<bool> {
        for at in self.index.locations(&blob.id) {
            let Some(pack) = self.index.pack_at(at) else { continue };
            if pack.id == *dying || pack.standing != Standing::Live || pack.kind != section.kind {
                continue;
            }
            if self.index.is_attested(at)
                && self.index.blob(at) == Some(*blob)
                && self.index.epoch(at).is_some_and(|epoch| epoch <= section.epoch)
                && self.is_intact(at)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the frame of a copy is there as its directory says, in a pack that is whole.
    pub(super) fn is_intact(&mut self, at: Location) -> Result<bool> {
        let Some(pack) = self.index.pack_at(at) else { return Ok(false) };
        if self.read.insert(pack.listing()) {
            self.look_at(&pack)?;
        }
        Ok(self.intact.get(self.index.frame_number(at)))
    }

    fn look_at(&mut self, pack: &KnownPack) -> Result<()> {
        let name = self.repository.pack_name(&self.domain, pack);
        let bytes = match self.repository.store.read_hashed(&name, limits::PACK_BYTES_MAX, pack.id.as_bytes())
        {
            Ok(bytes) => bytes,
            Err(error) if error.is_damage() => {
                self.damaged.push(error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let numbers = self.index.frames_of(pack).ok_or_else(lost_pack)?;
        let directory = self.index.directory(pack).ok_or_else(lost_pack)?;
        for (number, frame) in numbers.zip(&directory.frames) {
            if frame.sealed_in(&bytes).and_then(|sealed| check_ciphertext(frame, sealed)).is_ok() {
                self.intact.set(number);
            }
        }
        Ok(())
    }
}
