//! Cuts out of frames what nobody needs: what is needed of them is opened, looked at, and sealed anew in frames of its own.
//! It takes the keys that read contents, so only an owner's prune does it.
//!
//! Promise: a section that is written here is attested before anybody counts on it. It is the owner's, and a snapshot may use
//! it only because a verifier vouches for it; until then everybody goes on using the old frames. Nor does anything rest
//! on this when those are deleted: what stands for them is looked for then, and read.

use crate::{
    compress::{Compression, Compressor, Plaintext},
    error::{Error, Result},
    format::{
        attestation::{Attestation, AttestedSection, SECTIONS_MAX, digest},
        pack::{Blob, Frame, PackKind, SectionHeader},
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

/// Writes new frames of one domain.
pub(super) struct Cutter<'a> {
    repository: &'a Repository,
    domain: DomainId,
    check: FrameCheck<'a>,
    writer: PackWriter<'a>,
    compressor: Compressor,
    plain: Vec<u8>,
    blobs: Vec<Blob>,
    /// What to vouch for.
    written: Vec<AttestedSection>,
    /// Frames that were taken from.
    pub(super) frames: u64,
}

impl<'a> Cutter<'a> {
    /// Writes packs of about `target` bytes. Nothing for a key that reads no contents.
    ///
    /// # Errors
    /// `Forbidden` without the keys of the domain; the registry has no key epoch.
    pub(super) fn new(
        repository: &'a Repository,
        (domain, keys): (&'a DomainId, &'a IngestKeys),
        target: usize,
    ) -> Result<Option<Self>> {
        let Some(check) = FrameCheck::new(repository, domain)? else { return Ok(None) };
        let (epoch, public) = repository.data_public()?;
        let keys = PackKeys {
            place: repository.place(*domain),
            kind: PackKind::Data,
            blobs: BlobKey::Chunk(&keys.chunk.id),
            epoch,
            public,
            index: &keys.index,
            signer: repository.signer(),
        };
        Ok(Some(Self {
            repository,
            domain: *domain,
            check,
            writer: PackWriter::new(keys, target),
            compressor: Compressor::new(Compression::Auto)?,
            plain: Vec::new(),
            blobs: Vec::new(),
            written: Vec::new(),
            frames: 0,
        }))
    }

    /// Whether a frame is what its directory says: then [`Self::take`] finds nothing wrong with it.
    ///
    /// # Errors
    /// `Damaged` when it is not; `Forbidden` without the key epoch of its section.
    pub(super) fn look(&mut self, frame: (&Frame, &SectionHeader), sealed: &[u8]) -> Result<()> {
        self.check.opened(frame, sealed, self.compressor.decompressor())
    }

    /// Takes over those blobs of a frame whose number in it passes.
    ///
    /// # Errors
    /// As [`Self::look`]; storage trouble.
    pub(super) fn take(
        &mut self,
        (frame, section): (&Frame, &SectionHeader),
        sealed: &[u8],
        (passes, publisher): (impl Fn(usize) -> bool, &mut Publisher<'_>),
    ) -> Result<()> {
        let check = self.compressor.decompressor();
        let opened = self.repository.open_frame(&self.domain, (frame, section), sealed, check)?;
        let mut rest = &opened[..];
        for (number, blob) in frame.blobs.iter().enumerate() {
            let (head, tail) = rest
                .split_at_checked(blob.length as usize)
                .ok_or_else(|| Error::damaged("a frame", "it is shorter than what it holds"))?;
            rest = tail;
            if passes(number) {
                self.add(*blob, head, publisher)?;
            }
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
        let finished = self.writer.add(blobs, stored, self.compressor.decompressor())?;
        finished.into_iter().try_for_each(|pack| self.upload(pack, publisher))
    }

    fn upload(&mut self, pack: FinishedPack, publisher: &mut Publisher<'_>) -> Result<()> {
        let directory = &pack.listed.directory;
        for (number, section) in (0_u16..).zip(&directory.sections) {
            self.written.push(AttestedSection { id: section.id(), digest: digest(directory, number) });
        }
        publisher.upload(Some(pack))
    }

    /// Stores and lists what is left, and then vouches for all of it: each frame was opened again before it was sealed up.
    ///
    /// # Errors
    /// Storage trouble.
    pub(super) fn finish(mut self, publisher: &mut Publisher<'_>) -> Result<()> {
        self.seal(publisher)?;
        if let Some(last) = self.writer.flush()? {
            self.upload(last, publisher)?;
        }
        publisher.publish()?;
        for sections in self.written.chunks(SECTIONS_MAX) {
            let record = Attestation { time: self.repository.clock.now(), sections: sections.to_vec() };
            self.repository.publish_attestation(&self.domain, &record)?;
        }
        Ok(())
    }
}
