//! Which of the packs whose grace is over nobody needs, and what is needed of the others.
//!
//! Promise: what a restore could read before a prune it can read after it, whatever is damaged. So not only what snapshots use
//! of a dying pack is looked for elsewhere: where they use other copies, or are known to have none, one of those is read, and if
//! none is good the pack that dies stays: a restore takes it from there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    DomainDone,
    bits::Bits,
    domain::{Pruning, Seen},
    lost_pack,
    reach::Reached,
    section_of,
};
use crate::{
    compress::Decompressor,
    error::{Error, ErrorKind, Result},
    format::pack::{Blob, Directory, Frame, PackKind, SectionHeader},
    id::PackId,
    limits,
    ops::frames::FrameCheck,
    repository::{
        directories::Listing,
        index::{Index, KnownPack, Location, Standing},
        pack_mover::overlapping,
        section::check_ciphertext,
        view::ListedPack,
    },
    sabotage::{Sabotage, suffers},
    store::Name,
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
    /// Looks at each of these packs, as far as the time allows: what is not looked at is neither free nor copied.
    pub(super) fn judge(
        &self,
        seen: &Seen,
        aged: &BTreeMap<PackId, ListedPack>,
        done: &mut DomainDone,
    ) -> Result<Judged> {
        let index = &seen.view.index;
        let mut listings: HashMap<PackId, Vec<KnownPack>> = HashMap::new();
        for pack in index.packs().filter(|pack| aged.contains_key(&pack.id)) {
            listings.entry(pack.id).or_default().push(pack);
        }
        let mut survivors = Survivors::new(self, index)?;
        let mut judged = Judged::default();
        for (id, listed) in aged {
            self.repository.store.progress().check()?;
            if self.time_is_up() {
                done.out_of_time = true;
                break;
            }
            let mut is_free = true;
            for pack in listings.get(id).into_iter().flatten() {
                let name = self.repository.pack_name(&self.id, pack);
                let sections = self.needed(seen, pack, &mut survivors)?;
                if sections.is_empty() {
                    if survivors.holds_last_good(&seen.reached, pack)? {
                        is_free = false;
                        done.note(vec![stays(&name, STORED_AGAIN)]);
                    }
                    continue;
                }
                is_free = false;
                let directory = index.directory(pack).ok_or_else(lost_pack)?;
                if directory.has_room_in(pack.size as usize) {
                    judged.needed.push(Needed { pack: *pack, listed: *listed, sections });
                } else {
                    // Who wrote that has made it so: his loss holds up nobody.
                    let what = format!("{name}, which was to die, stays: a snapshot needs it");
                    done.note(vec![overlapping().context(what)]);
                }
            }
            if is_free && !self.is_listed_truly(index, (id, listed), listings.get(id))? {
                let name = Name::pack(&self.id, listed.kind, id);
                if survivors.holds_last_good_within(&seen.reached, (&name, id, listed.kind))? {
                    is_free = false;
                    done.note(vec![stays(&name, LISTED_AGAIN)]);
                }
            }
            if is_free {
                judged.free.push((*id, *listed));
            }
        }
        // What a damaged cache does not know looks free.
        index.vouch()?;
        done.note(survivors.damaged);
        Ok(judged)
    }

    /// Whether an index lists a pack as what it says itself. Where several back up one of them may list the pack of another as
    /// anything, and what it really holds would look free.
    fn is_listed_truly(
        &self,
        index: &Index,
        pack: (&PackId, &ListedPack),
        listings: Option<&Vec<KnownPack>>,
    ) -> Result<bool> {
        let Some(listings) = listings else { return Ok(false) };
        if self.repository.registry().only_writer(&self.id).is_some() {
            return Ok(true);
        }
        let own = match self.repository.listing_of(&self.id, (pack.0, *pack.1)) {
            Ok(Listing::Vouched(own) | Listing::Unvouched(own, _)) => own.directory,
            Err(error) if error.is_damage() => return Ok(false),
            Err(error) => return Err(error),
        };
        for listing in listings {
            if index.directory(listing).ok_or_else(lost_pack)? == own {
                return Ok(true);
            }
        }
        Ok(false)
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

/// Finds what stands for a frame, in live packs. What an index says is not enough: the bytes are read, each pack once. Of an
/// attested section the word of the verifier is not enough either: it would be a licence to delete what others hold.
pub(super) struct Survivors<'a> {
    pruning: &'a Pruning<'a>,
    index: &'a Index,
    /// What opens frames, where contents can be read.
    opening: Option<(FrameCheck<'a>, Decompressor)>,
    /// The listings of packs that count, by the id of the pack, once one was read.
    counting: Option<Vec<KnownPack>>,
    /// Packs that were read. How often each is listed is up to a client.
    read: HashSet<(PackId, PackKind)>,
    /// By the number of the frame: it is there as its directory says.
    intact: Bits,
    /// What it holds is what its ids say.
    truthful: Bits,
    /// What is wrong with some of the packs that were read.
    pub(super) damaged: Vec<Error>,
}

impl<'a> Survivors<'a> {
    pub(super) fn new(pruning: &'a Pruning<'a>, index: &'a Index) -> Result<Self> {
        let check = FrameCheck::new(pruning.repository, &pruning.id)?;
        Ok(Self {
            pruning,
            index,
            opening: check.map(|check| Ok((check, Decompressor::new()?))).transpose()?,
            counting: None,
            read: HashSet::new(),
            intact: Bits::new(index.frames()),
            truthful: Bits::new(index.frames()),
            damaged: Vec::new(),
        })
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
        let index = self.index;
        let is_other = |other: &KnownPack| other.id != *dying;
        if holds_same((index, &mut Some(&mut *self)), (frame, section), is_other)? {
            return Ok(true);
        }
        let is_readable = |other: &KnownPack, epoch, _| other.id != *dying && epoch <= section.epoch;
        for blob in used {
            if !holds_attested((index, &mut Some(&mut *self)), (blob, section.kind), is_readable)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a pack holds something good that snapshots need, and no other copy of it is good: they are restored from here. It
    /// is judged by the frame, as a restore does.
    fn holds_last_good(&mut self, reached: &Reached, pack: &KnownPack) -> Result<bool> {
        let index = self.index;
        let Pruning { repository, id: domain, .. } = self.pruning;
        let directory = index.directory(pack).ok_or_else(lost_pack)?;
        let name = repository.pack_name(domain, pack);
        for (frame, numbers) in index.numbered(pack, &directory).ok_or_else(lost_pack)? {
            repository.store.progress().check()?;
            let epoch = section_of(&directory, frame)?.epoch;
            for (blob, _) in frame.blobs.iter().zip(numbers).filter(|(_, number)| !reached.copy(*number)) {
                if self.no_other_is_good((reached, &pack.id), (blob, epoch))? {
                    if self.can_be_read(&name, frame)? {
                        return Ok(true);
                    }
                    break;
                }
            }
        }
        Ok(false)
    }

    /// Whether a frame of a pack that dies is good. It is read once more before it counts as damaged: a bit may have flipped on
    /// the way, and what is deleted is read by nobody again.
    fn can_be_read(&self, name: &Name, frame: &Frame) -> Result<bool> {
        for _ in 0..2 {
            let sealed = self.pruning.repository.store.read_range(name, frame.range());
            match sealed.and_then(|sealed| check_ciphertext(frame, &sealed)) {
                Ok(()) => return Ok(true),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// As [`Self::holds_last_good`], by what a pack says of itself: of one that no index lists, or a false one.
    fn holds_last_good_within(
        &mut self,
        reached: &Reached,
        (name, id, kind): (&Name, &PackId, PackKind),
    ) -> Result<bool> {
        let Pruning { repository, id: domain, .. } = self.pruning;
        let bytes = match repository.store.read_hashed(name, limits::PACK_BYTES_MAX, id.as_bytes()) {
            // Some of its frames may be good.
            Err(error) if error.kind() == ErrorKind::Damaged => {
                repository.store.read(name, limits::PACK_BYTES_MAX)
            }
            bytes => bytes,
        };
        let directory = bytes.and_then(|bytes| Ok((repository.own_directory(domain, &bytes)?, bytes)));
        let (directory, bytes) = match directory {
            Ok(found) => found,
            // Where its frames are nobody knows any more.
            Err(error) if error.is_damage() => return Ok(false),
            Err(error) => return Err(error),
        };
        for frame in &directory.frames {
            let is_good = frame.sealed_in(&bytes).and_then(|sealed| check_ciphertext(frame, sealed)).is_ok();
            let epoch = section_of(&directory, frame)?.epoch;
            if is_good && self.needs((reached, id), (frame, kind, epoch))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether something in a good frame of a pack is needed that no other copy gives. Of a pack that no index lists: what parts
    /// of manifests need that are set aside nobody knows.
    pub(super) fn needs(
        &mut self,
        (reached, pack): (&Reached, &PackId),
        (frame, kind, epoch): (&Frame, PackKind, u32),
    ) -> Result<bool> {
        if kind == PackKind::Metadata && reached.rests_on_aside {
            return Ok(true);
        }
        for blob in &frame.blobs {
            if self.no_other_is_good((reached, pack), (blob, epoch))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether snapshots need a blob, and nothing good is left of it without the pack that dies: no copy that they use or that is
    /// live, of this key epoch or an older one. Copies of newer epochs do if all that is used is good: each snapshot has one among
    /// them that who could read this one can read too.
    fn no_other_is_good(
        &mut self,
        (reached, dying): (&Reached, &PackId),
        (blob, epoch): (&Blob, u32),
    ) -> Result<bool> {
        let index = self.index;
        if reached.in_no_pack_that_counts.contains(&blob.id) {
            return Ok(true);
        }
        if !reached.blob(index, &blob.id) {
            return Ok(false);
        }
        let (mut used, mut used_and_good) = (0, 0);
        for at in index.unsorted(&blob.id) {
            let Some(pack) = index.pack_at(at).filter(|pack| pack.id != *dying) else { continue };
            let is_used = reached.copy(index.blob_number(at));
            let is_older = index.epoch(at).is_some_and(|other| other <= epoch);
            if !is_used && (pack.standing != Standing::Live || !is_older) || index.blob(at) != Some(*blob) {
                continue;
            }
            let is_good = self.is_good(at, is_used)?;
            if is_good && is_older {
                return Ok(false);
            }
            used += usize::from(is_used);
            used_and_good += usize::from(is_used && is_good);
        }
        Ok(used == 0 || used_and_good < used)
    }

    /// Whether a restore gets from a copy what its ids say. Who can open it knows; to others a copy is as good as those who use
    /// it take it for, and nobody is asked of any other, which could be noise under an id of somebody else's.
    fn is_good(&mut self, at: Location, is_used: bool) -> Result<bool> {
        Ok(self.is_truthful(at)? || (is_used && self.opening.is_none() && self.is_intact(at)?))
    }

    /// Whether the frame of a copy is there as its directory says, in a pack that is whole.
    fn is_intact(&mut self, at: Location) -> Result<bool> {
        let Some(pack) = self.index.pack_at(at) else { return Ok(false) };
        if self.read.insert((pack.id, pack.kind)) {
            self.look_at(&pack)?;
        }
        Ok(self.intact.get(self.index.frame_number(at)))
    }

    /// Whether the frame of a copy holds what its ids say: it was opened; or, where this key cannot open it, an owner vouches
    /// for it.
    fn is_truthful(&mut self, at: Location) -> Result<bool> {
        Ok(self.is_intact(at)? && self.truthful.get(self.index.frame_number(at)))
    }

    /// Reads a pack, once for all of its listings. What it says of itself decides: a listing that says something else stands
    /// for nothing, and costs nothing.
    fn look_at(&mut self, pack: &KnownPack) -> Result<()> {
        let Pruning { repository, id: domain, .. } = self.pruning;
        let name = repository.pack_name(domain, pack);
        let bytes = repository.store.read_hashed(&name, limits::PACK_BYTES_MAX, pack.id.as_bytes());
        let whole = bytes.and_then(|bytes| {
            let own = repository.own_directory(domain, &bytes).map_err(|error| error.context(&name))?;
            if own.has_room_in(bytes.len()) { Ok((bytes, own)) } else { Err(overlapping().context(&name)) }
        });
        let (bytes, own) = match whole {
            Ok(whole) => whole,
            Err(error) if error.is_damage() => {
                self.damaged.push(told(error));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let listings = self.listings(pack, &own)?;
        if listings.is_empty() {
            return Ok(());
        }
        let mut wrong = None;
        for (at, frame) in own.frames.iter().enumerate() {
            repository.store.progress().check()?;
            let look = || {
                let sealed = frame.sealed_in(&bytes)?;
                check_ciphertext(frame, sealed).map(|()| sealed)
            };
            let found = look().and_then(|sealed| {
                listings.iter().for_each(|first| _ = self.intact.set(first + at));
                self.holds_what_it_says((frame, section_of(&own, frame)?), sealed)
            });
            match found {
                Ok(true) => listings.iter().for_each(|first| _ = self.truthful.set(first + at)),
                Ok(false) => {}
                Err(error) if error.is_damage() => _ = wrong.get_or_insert(error),
                Err(error) => return Err(error),
            }
        }
        let lies = "a pack that is not what it says; `lifeboat repair quarantine NAME --force --apply` sets it aside";
        self.damaged.extend(wrong.map(|error| error.context(&name).context(lies)));
        Ok(())
    }

    /// The listings of a pack that say what it says itself: the number of the first frame of each.
    fn listings(&mut self, pack: &KnownPack, own: &Directory) -> Result<Vec<usize>> {
        let index = self.index;
        let counting = self.counting.get_or_insert_with(|| {
            let mut counting: Vec<KnownPack> = index.packs().filter(|pack| pack.standing.counts()).collect();
            counting.sort_unstable_by_key(|pack| pack.id);
            counting
        });
        let first = counting.partition_point(|other| other.id < pack.id);
        let mut listings = Vec::new();
        for other in counting.iter().skip(first).take_while(|other| other.id == pack.id) {
            self.pruning.repository.store.progress().check()?;
            if other.kind == pack.kind && index.directory(other).ok_or_else(lost_pack)? == *own {
                listings.push(index.frames_of(other).ok_or_else(lost_pack)?.start);
            }
        }
        Ok(listings)
    }

    /// Whether a frame is known to hold what its ids say.
    ///
    /// # Errors
    /// `Damaged` when it holds something else.
    fn holds_what_it_says(
        &mut self,
        (frame, section): (&Frame, &SectionHeader),
        sealed: &[u8],
    ) -> Result<bool> {
        let by_owner = self.index.owner_vouches_for(&section.id());
        let Some((check, decompressor)) = &mut self.opening else { return Ok(by_owner) };
        match check.opened((frame, section), sealed, decompressor) {
            Ok(()) => Ok(true),
            // It is sealed to an epoch that this key does not have.
            Err(error) if error.kind() == ErrorKind::Forbidden => Ok(by_owner),
            Err(error) => Err(error),
        }
    }
}

/// Whether a live pack that may stand for another one holds the very same sealed frame: by the index, and with `survivors` by
/// what is read.
pub(super) fn holds_same(
    (index, survivors): (&Index, &mut Option<&mut Survivors<'_>>),
    (frame, section): (&Frame, &SectionHeader),
    may: impl Fn(&KnownPack) -> bool,
) -> Result<bool> {
    let Some(first) = frame.blobs.first() else { return Ok(false) };
    for at in index.unsorted(&first.id) {
        let is_there = index.pack_at(at).is_some_and(|pack| pack.standing == Standing::Live && may(&pack));
        if is_there
            && index.found(at).is_some_and(|found| found.is_same(frame, section))
            && survivors.as_mut().map_or(Ok(true), |read| read.is_intact(at))?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a live pack that may stand for another one, given the epoch of its section and the number of the copy, holds a blob
/// in a section that a verifier vouches for: everybody may use that. By the index, and with `survivors` by what is read.
pub(super) fn holds_attested(
    (index, survivors): (&Index, &mut Option<&mut Survivors<'_>>),
    (blob, kind): (&Blob, PackKind),
    may: impl Fn(&KnownPack, u32, usize) -> bool,
) -> Result<bool> {
    if !index.has_attested() {
        return Ok(false);
    }
    for at in index.unsorted(&blob.id) {
        let (Some(pack), Some(epoch)) = (index.pack_at(at), index.epoch(at)) else { continue };
        if pack.standing == Standing::Live
            && pack.kind == kind
            && may(&pack, epoch, index.blob_number(at))
            && index.is_attested(at)
            && index.blob(at) == Some(*blob)
            && survivors.as_mut().map_or(Ok(true), |read| read.is_truthful(at))?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What to do about a damaged copy that is in use.
const STORED_AGAIN: &str = "a backup stores again what is damaged once that is set aside";
/// What to do about a good one that is in no index.
const LISTED_AGAIN: &str = "`lifeboat repair index --apply` lists it again: do that first";

/// A pack that is to die stays, for what stands for it is damaged; and what to do.
fn stays(name: &Name, advice: &str) -> Error {
    let why =
        "what snapshots need of it is good nowhere else, as the damaged packs are that are named here too";
    Error::new(ErrorKind::Damaged, format!("{name}, which was to die, stays: {why}; {advice}"))
}

/// What is wrong with a pack, and what to do.
fn told(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        return error.context("a pack that LIST has just shown; `lifeboat check` tells what is lost with it");
    }
    error.context("a pack that is damaged; `lifeboat repair quarantine NAME --apply` sets it aside")
}
