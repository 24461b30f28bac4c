//! Moves what snapshots need and only packs hold that do not count into new packs: whole sealed frames, each of which was
//! opened before and is what its ids name. A frame keeps its section, so that it serves whoever wrote it as before. The old
//! pack stays where it is, and is needed for nothing more.

use std::collections::{BTreeMap, HashSet};

use crate::{
    error::{Error, Result},
    format::pack::{Frame, PackKind, target_length},
    id::DomainId,
    limits,
    ops::{prune::Packs, publisher::Publisher},
    repository::{
        Repository,
        index::{Index, KnownPack, Location},
        pack_mover::{PackMover, Source},
    },
};

/// The frames of a pack that are to be moved, by their numbers in its directory.
type Wanted = (KnownPack, HashSet<usize>);

/// Moves the frames of these places, and says how many packs that made.
///
/// # Errors
/// Storage trouble; `Damaged` when a frame is not any more what it was a moment ago.
pub(super) fn heal(
    repository: &Repository,
    (domain, index): (&DomainId, &Index),
    needed: &HashSet<Location>,
) -> Result<Packs> {
    let mut packs: BTreeMap<(u32, u32), Wanted> = BTreeMap::new();
    for at in needed {
        let found = index.pack_at(*at).and_then(|pack| Some((pack, index.frames_of(&pack)?)));
        let (pack, frames) = found.ok_or_else(lost)?;
        let number = index.frame_number(*at).checked_sub(frames.start).ok_or_else(lost)?;
        packs.entry(pack.listing()).or_insert((pack, HashSet::new())).1.insert(number);
    }
    let mut publisher = Publisher::new(repository, *domain);
    for kind in [PackKind::Metadata, PackKind::Data] {
        let mut mover = PackMover::new(repository, (*domain, kind), target_length(index.bytes()))?;
        for (pack, frames) in packs.values().filter(|(pack, _)| pack.kind == kind) {
            repository.store.progress().check()?;
            let name = repository.pack_name(domain, pack);
            let directory = index.directory(pack).ok_or_else(lost)?;
            let bytes = repository.store.read(&name, limits::PACK_BYTES_MAX)?;
            let source = Source::of_frames(&directory, &bytes, |number| frames.contains(&number));
            let source = source.map_err(|error| error.context(&name))?;
            for section in (0_u16..).take(directory.sections.len()) {
                let is_of_it =
                    |(number, frame): (usize, &Frame)| frame.section == section && frames.contains(&number);
                if directory.frames.iter().enumerate().any(is_of_it) {
                    let moved = mover.add((&source, section), |number| frames.contains(&number));
                    publisher.upload(moved.map_err(|error| error.context(&name))?)?;
                }
            }
        }
        publisher.upload(mover.finish()?)?;
    }
    publisher.publish()?;
    Ok(publisher.written)
}

fn lost() -> Error {
    Error::damaged("the index", "it lost a pack that it listed a moment ago")
}
