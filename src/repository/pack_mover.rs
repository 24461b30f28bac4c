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

/// A pack that sections are taken from.
#[derive(Debug)]
pub struct Source<'p> {
    directory: &'p Directory,
    bytes: &'p [u8],
}

impl<'p> Source<'p> {
    /// The bytes of a pack with this directory, whose frames do not overlap: else a client's pack of a few MiB would become one
    /// that nobody can read.
    ///
    /// # Errors
    /// `Damaged` when more is said to be in the pack than has room there.
    pub fn new(directory: &'p Directory, bytes: &'p [u8]) -> Result<Self> {
        if directory.has_room_in(bytes.len()) { Ok(Self { directory, bytes }) } else { Err(overlapping()) }
    }

    /// As [`Self::new`], for whoever takes only those frames whose places in the directory pass. Of a pack that was cut short
    /// they may be all that is left.
    ///
    /// # Errors
    /// `Damaged` when these frames have no room in the bytes beside each other.
    pub fn of_frames(
        directory: &'p Directory,
        bytes: &'p [u8],
        passes: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let frames = directory.frames.iter().enumerate().filter(|(at, _)| passes(*at));
        let length: usize = frames.map(|(_, frame)| frame.length as usize).sum();
        if length <= bytes.len() { Ok(Self { directory, bytes }) } else { Err(overlapping()) }
    }
}

/// Frames are said to lie where others do.
#[must_use]
pub fn overlapping() -> Error {
    Error::damaged("a directory", "it lists more than there is room for in its pack")
}

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

    /// Takes those frames of one section whose place in the directory passes. A pack that became complete is handed back. What a
    /// verifier has said of a section he has said of all its frames together: a part of one counts as not attested,
    /// everywhere.
    ///
    /// # Errors
    /// `Damaged` when one of these frames is.
    pub fn add(
        &mut self,
        (Source { directory, bytes }, section): (&Source<'_>, u16),
        passes: impl Fn(usize) -> bool,
    ) -> Result<Option<FinishedPack>> {
        let header = directory.sections.get(usize::from(section));
        let header = header.ok_or_else(|| Error::damaged("a directory", "it lacks a section"))?;
        let mut moved = Vec::new();
        let frames = directory.frames.iter().enumerate();
        for (_, frame) in frames.filter(|(at, frame)| frame.section == section && passes(*at)) {
            let sealed = frame.sealed_in(bytes)?;
            check_ciphertext(frame, sealed)?;
            // A copy: of many packs little may be needed, and each would be held whole until the new one is full.
            moved.push((frame.clone(), Bytes::copy_from_slice(sealed)));
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
