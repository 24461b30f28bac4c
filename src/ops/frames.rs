//! Whether the frames of a pack are what its directory says: each opens under the key of its section, and every blob in
//! it has the id that stands there. It takes the content keys, and nobody's signature.

use crate::{
    compress::Decompressor,
    crypto::{ChunkIdKey, NodeKey},
    error::{Error, ErrorKind, Result},
    format::pack::{Directory, Frame, PackKind, SectionHeader},
    id::DomainId,
    repository::Repository,
};

/// Opens frames of one domain.
pub(super) struct FrameCheck<'a> {
    repository: &'a Repository,
    domain: &'a DomainId,
    chunks: ChunkIdKey,
    nodes: NodeKey,
}

impl<'a> FrameCheck<'a> {
    /// `None` for a key that reads no contents.
    ///
    /// # Errors
    /// `Forbidden` without the keys of the domain.
    pub(super) fn new(repository: &'a Repository, domain: &'a DomainId) -> Result<Option<Self>> {
        if !repository.reads_data() {
            return Ok(None);
        }
        let (chunks, nodes) = (repository.chunk_keys(domain)?.id, repository.node_key(domain)?);
        Ok(Some(Self { repository, domain, chunks, nodes }))
    }

    /// The frames of a whole pack that are not as its directory says, with their numbers.
    ///
    /// # Errors
    /// `Forbidden` without the key epoch of a section.
    pub(super) fn bad<'d>(
        &self,
        bytes: &[u8],
        directory: &'d Directory,
        decompressor: &mut Decompressor,
    ) -> Result<Vec<(usize, &'d Frame, Error)>> {
        let mut bad = Vec::new();
        for (number, frame) in directory.frames.iter().enumerate() {
            match self.frame(bytes, (frame, directory), decompressor) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Damaged => bad.push((number, frame, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(bad)
    }

    fn frame(
        &self,
        bytes: &[u8],
        (frame, listed): (&Frame, &Directory),
        decompressor: &mut Decompressor,
    ) -> Result<()> {
        let section: &SectionHeader = listed
            .sections
            .get(usize::from(frame.section))
            .ok_or_else(|| Error::damaged("a frame", "it has no section"))?;
        self.opened((frame, section), frame.sealed_in(bytes)?, decompressor)
    }

    /// One frame, given its bytes.
    ///
    /// # Errors
    /// `Damaged` when it is not what its directory says; `Forbidden` without the key epoch of its section.
    pub(super) fn opened(
        &self,
        (frame, section): (&Frame, &SectionHeader),
        sealed: &[u8],
        decompressor: &mut Decompressor,
    ) -> Result<()> {
        let plain = self.repository.open_frame(self.domain, (frame, section), sealed, decompressor)?;
        for (blob, piece) in frame.pieces(&plain)? {
            let id = match section.kind {
                PackKind::Data => self.chunks.id(piece),
                PackKind::Metadata => self.nodes.id(piece),
            };
            if id != blob.id {
                return Err(Error::damaged("a frame", "what it holds is not what its ids name"));
            }
        }
        Ok(())
    }
}
