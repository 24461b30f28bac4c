//! Sealed frames that move to a new pack, with the headers of their sections: no content key is needed. Promise:
//! every frame is the one that its directory names.

use bytes::Bytes;

use super::{
    Repository,
    pack_writer::{FinishedPack, assemble},
    section::check_ciphertext,
};
use crate::{
    crypto::IndexKey,
    error::{Error, ErrorKind, Result},
    format::pack::{Directory, Frame, PackKind, SECTION_HEADER_LEN, SectionHeader},
    id::DomainId,
    limits,
};

/// Collects sections until they fill a pack.
pub struct PackMover<'a> {
    repository: &'a Repository,
    domain: DomainId,
    kind: PackKind,
    index: IndexKey,
    target: usize,
    sections: Vec<SectionHeader>,
    frames: Vec<(Frame, Bytes)>,
}

impl std::fmt::Debug for PackMover<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackMover").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<'a> PackMover<'a> {
    /// A mover to packs of about `target` bytes.
    ///
    /// # Errors
    /// `Forbidden` without the index key of the domain.
    pub fn new(
        repository: &'a Repository,
        (domain, kind): (DomainId, PackKind),
        target: usize,
    ) -> Result<Self> {
        let index = repository.index_key(&domain)?;
        Ok(Self { repository, domain, kind, index, target, sections: Vec::new(), frames: Vec::new() })
    }

    /// Takes those frames of one section whose place in the directory passes; `pack` are the bytes of a pack with this
    /// directory. A pack that became complete is handed back. What a verifier has said of a section he has said of
    /// all its frames together: a part of one counts as not attested, everywhere.
    ///
    /// # Errors
    /// `Damaged` when one of these frames is.
    pub fn add(
        &mut self,
        (directory, section): (&Directory, u16),
        pack: &Bytes,
        passes: impl Fn(usize) -> bool,
    ) -> Result<Option<FinishedPack>> {
        let header = directory.sections.get(usize::from(section));
        let header = header.ok_or_else(|| Error::damaged("a directory", "it lacks a section"))?;
        let mut moved = Vec::new();
        let frames = directory.frames.iter().enumerate();
        for (_, frame) in frames.filter(|(at, frame)| frame.section == section && passes(*at)) {
            let sealed = pack.slice_ref(frame.sealed_in(pack)?);
            check_ciphertext(frame, &sealed)?;
            moved.push((frame.clone(), sealed));
        }
        let finished = if self.has_room_for(&moved) { None } else { self.finish()? };
        let number = u16::try_from(self.sections.len()).map_err(too_many)?;
        self.sections.push(header.clone());
        self.frames
            .extend(moved.into_iter().map(|(frame, sealed)| (Frame { section: number, ..frame }, sealed)));
        Ok(finished)
    }

    fn has_room_for(&self, more: &[(Frame, Bytes)]) -> bool {
        let all = || self.frames.iter().chain(more);
        let bytes: usize = all().map(|(_, sealed)| sealed.len()).sum();
        let blobs: usize = all().map(|(frame, _)| frame.blobs.len()).sum();
        self.sections.len() < limits::PACK_SECTIONS_MAX
            && all().count() <= limits::PACK_FRAMES_MAX
            && blobs <= limits::PACK_BLOBS_MAX
            && bytes + (self.sections.len() + 1) * SECTION_HEADER_LEN <= self.target
    }

    /// The last pack.
    ///
    /// # Errors
    /// No randomness; memory that cannot be trusted.
    pub fn finish(&mut self) -> Result<Option<FinishedPack>> {
        if self.sections.is_empty() {
            return Ok(None);
        }
        let (sections, mut frames) = (std::mem::take(&mut self.sections), std::mem::take(&mut self.frames));
        let mut end = sections.len() * SECTION_HEADER_LEN;
        for (frame, sealed) in &mut frames {
            frame.offset = u32::try_from(end).map_err(too_many)?;
            end += sealed.len();
        }
        let keys = (&self.index, self.repository.signer());
        assemble((self.repository.place(self.domain), self.kind), keys, sections, frames).map(Some)
    }
}

fn too_many(error: std::num::TryFromIntError) -> Error {
    Error::new(ErrorKind::Failed, "a pack grew beyond its limits").with_source(error)
}
