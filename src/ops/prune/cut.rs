//! Cuts out of frames what nobody needs: what is needed of them is opened, looked at, and sealed anew in frames of its own.
//! It takes the keys that read contents, so only an owner's prune does it.
//!
//! Promise: a section that is written here is attested before anybody else counts on it. It is the owner's, and a snapshot of
//! others may use it only because a verifier vouches for it; until then they go on using the old frames. Nor does anything rest
//! on this when those are deleted: what stands for them is looked for then, and read.

use std::collections::BTreeMap;

use crate::{
    compress::{Compression, Compressor, Plaintext},
    crypto::SealKey,
    error::{Error, ErrorKind, Result},
    format::{
        attestation::{Attestation, AttestedSection, SECTIONS_MAX, digest},
        pack::{Blob, Frame, PackKind, SectionHeader},
        registry::Epoch,
    },
    id::DomainId,
    limits,
    ops::{
        backup::ingest::{IngestKeys, frame_target},
        frames::FrameCheck,
        publisher::Publisher,
    },
    repository::{
        Repository,
        pack_writer::{BlobKey, FinishedPack, PackKeys, PackWriter},
    },
};

/// So many packs are stored at most before an attestation names them.
const FRESH_MAX: usize = 64;

/// What sealing anew takes.
pub(super) struct CutKeys<'a> {
    check: FrameCheck<'a>,
    ingest: IngestKeys,
    /// By the number of the epoch. What is cut is sealed to the epoch that it comes from: who could read it still can.
    epochs: BTreeMap<u32, SealKey>,
}

impl<'a> CutKeys<'a> {
    /// Nothing for a key that reads no contents.
    ///
    /// # Errors
    /// `Forbidden` without the keys of the domain; a key of the registry is damaged.
    pub(super) fn of(repository: &'a Repository, domain: &'a DomainId) -> Result<Option<Self>> {
        let Some(check) = FrameCheck::new(repository, domain)? else { return Ok(None) };
        let registry = repository.registry();
        let public = |epoch: &Epoch| Ok((epoch.number, SealKey::from_bytes(&epoch.data)?));
        let epochs = registry.epochs.iter().map(public).collect::<Result<_>>()?;
        Ok(Some(Self { check, ingest: IngestKeys::of(repository, domain)?, epochs }))
    }
}

/// Writes new frames of one domain.
pub(super) struct Cutter<'a> {
    repository: &'a Repository,
    domain: DomainId,
    keys: &'a CutKeys<'a>,
    target: usize,
    /// Of the epoch whose frames were last cut.
    writer: Option<(u32, PackWriter<'a>)>,
    compressor: Compressor,
    plain: Vec<u8>,
    blobs: Vec<Blob>,
    /// What to vouch for.
    fresh: Vec<AttestedSection>,
    /// Sections that were vouched for.
    attested: usize,
    /// Frames that were taken from.
    pub(super) frames: u64,
    /// Why the storage takes no attestation.
    pub(super) refused: Option<Error>,
}

impl<'a> Cutter<'a> {
    /// Writes packs of about `target` bytes.
    ///
    /// # Errors
    /// No memory for a compressor.
    pub(super) fn new(
        repository: &'a Repository,
        (domain, keys): (DomainId, &'a CutKeys<'a>),
        target: usize,
    ) -> Result<Self> {
        Ok(Self {
            repository,
            domain,
            keys,
            target,
            writer: None,
            compressor: Compressor::new(Compression::Auto)?,
            plain: Vec::new(),
            blobs: Vec::new(),
            fresh: Vec::new(),
            attested: 0,
            frames: 0,
            refused: None,
        })
    }

    /// Whether a frame is what its directory says: then [`Self::take`] finds nothing wrong with it.
    ///
    /// # Errors
    /// `Damaged` when it is not; `Forbidden` without the key epoch of its section.
    pub(super) fn look(&mut self, frame: (&Frame, &SectionHeader), sealed: &[u8]) -> Result<()> {
        self.keys.check.opened(frame, sealed, self.compressor.decompressor())
    }

    /// Takes over the blobs of a frame that are wanted.
    ///
    /// # Errors
    /// As [`Self::look`]; storage trouble.
    pub(super) fn take(
        &mut self,
        (frame, section): (&Frame, &SectionHeader),
        sealed: &[u8],
        (wanted, publisher): (&[bool], &mut Publisher<'_>),
    ) -> Result<()> {
        self.turn_to(section.epoch, publisher)?;
        let check = self.compressor.decompressor();
        let opened = self.repository.open_frame(&self.domain, (frame, section), sealed, check)?;
        for ((blob, piece), _) in frame.pieces(&opened)?.zip(wanted).filter(|(_, wanted)| **wanted) {
            self.add(*blob, piece, publisher)?;
        }
        self.frames += 1;
        Ok(())
    }

    fn add(&mut self, blob: Blob, plain: &[u8], publisher: &mut Publisher<'_>) -> Result<()> {
        let bytes = self.plain.len() + plain.len();
        let is_full = bytes > frame_target(bytes, self.blobs.len() + 1);
        if is_full || self.blobs.len() >= limits::FRAME_BLOBS_MAX {
            self.seal(publisher)?;
        }
        self.plain.extend_from_slice(plain);
        self.blobs.push(blob);
        Ok(())
    }

    fn seal(&mut self, publisher: &mut Publisher<'_>) -> Result<()> {
        if self.blobs.is_empty() {
            return Ok(());
        }
        let blobs = std::mem::take(&mut self.blobs);
        let what = Plaintext::of(self.plain.len(), blobs.len(), false);
        let stored = self.compressor.compress_as(&self.plain, what)?;
        self.plain.clear();
        let writer = self.writer.as_ref().map(|(_, writer)| writer);
        let writer =
            writer.ok_or_else(|| Error::new(ErrorKind::Failed, "something is cut for no key epoch"))?;
        let finished = writer.add(blobs, stored, self.compressor.decompressor())?;
        finished.into_iter().try_for_each(|pack| self.upload(pack, publisher))
    }

    /// From now on it seals to this epoch.
    fn turn_to(&mut self, epoch: u32, publisher: &mut Publisher<'_>) -> Result<()> {
        if self.writer.as_ref().is_some_and(|(known, _)| *known == epoch) {
            return Ok(());
        }
        self.flush(publisher)?;
        let public = self.keys.epochs.get(&epoch);
        let public = public.ok_or_else(|| Error::damaged("the registry", "it lacks a key epoch"))?;
        let keys = PackKeys {
            place: self.repository.place(self.domain),
            kind: PackKind::Data,
            blobs: BlobKey::Chunk(&self.keys.ingest.chunk.id),
            epoch,
            public,
            index: &self.keys.ingest.index,
            signer: self.repository.signer(),
        };
        self.writer = Some((epoch, PackWriter::new(keys, self.target)));
        Ok(())
    }

    fn flush(&mut self, publisher: &mut Publisher<'_>) -> Result<()> {
        self.seal(publisher)?;
        let last = self.writer.as_ref().map(|(_, writer)| writer.flush()).transpose()?.flatten();
        last.map_or(Ok(()), |pack| self.upload(pack, publisher))
    }

    fn upload(&mut self, pack: FinishedPack, publisher: &mut Publisher<'_>) -> Result<()> {
        let directory = &pack.listed.directory;
        let sections = (0_u16..).zip(&directory.sections);
        let sections: Vec<AttestedSection> = sections
            .map(|(number, section)| AttestedSection { id: section.id(), digest: digest(directory, number) })
            .collect();
        publisher.upload(Some(pack))?;
        self.fresh.extend(sections);
        // Whoever is killed loses half of his work at most, and a client has few records to read.
        if self.fresh.len() >= (self.attested + 1).min(FRESH_MAX) { self.vouch(publisher) } else { Ok(()) }
    }

    /// Lists what was stored, and then vouches for it: each frame was opened again before it was sealed up.
    fn vouch(&mut self, publisher: &mut Publisher<'_>) -> Result<()> {
        publisher.publish()?;
        for sections in self.fresh.chunks(SECTIONS_MAX) {
            let record = Attestation { time: self.repository.clock.now(), sections: sections.to_vec() };
            match self.repository.publish_attestation(&self.domain, &record) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Failed => self.refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        self.attested += self.fresh.len();
        self.fresh.clear();
        Ok(())
    }

    /// Stores what is left, lists it and vouches for it. Gives why not all of it could be vouched for.
    ///
    /// # Errors
    /// Other storage trouble.
    pub(super) fn finish(mut self, publisher: &mut Publisher<'_>) -> Result<Option<Error>> {
        self.flush(publisher)?;
        self.vouch(publisher)?;
        Ok(self.refused)
    }
}
