//! Packs being written: many frames in one object. Promise: nothing is uploaded that was not
//! decrypted, decompressed and hashed again before, and a pack is listed only when it is complete.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::section::{Place, Section};
use crate::{
    compress::{Codec, Decompressor},
    crypto::{ChunkIdKey, IndexKey, NodeKey, SealKey, SigningKey},
    error::{Error, ErrorKind, Result},
    format::{
        envelope::{self, EnvelopeHeader, RecordKind, Sealer},
        pack::{
            Blob, Directory, Frame, IndexedPack, PackKind, SectionHeader, TRAILER_LEN, Trailer, padded_length,
        },
        wire::Writer,
    },
    id::{BlobId, PackId},
    limits, random,
};

/// What names the blobs of a pack.
#[derive(Debug)]
pub enum BlobKey<'a> {
    /// Chunks.
    Chunk(&'a ChunkIdKey),
    /// Nodes.
    Node(&'a NodeKey),
}

impl BlobKey<'_> {
    /// The id of a blob.
    #[must_use]
    pub fn id(&self, plain: &[u8]) -> BlobId {
        match self {
            Self::Chunk(key) => key.id(plain),
            Self::Node(key) => key.id(plain),
        }
    }
}

/// Everything that sealing a pack takes.
#[derive(Debug)]
pub struct PackKeys<'a> {
    /// Where the pack belongs.
    pub place: Place,
    /// What its frames hold.
    pub kind: PackKind,
    /// Names its blobs.
    pub blobs: BlobKey<'a>,
    /// The epoch and the public key that sections are sealed to.
    pub epoch: u32,
    /// See `epoch`.
    pub public: &'a SealKey,
    /// Seals its directory.
    pub index: &'a IndexKey,
    /// Signs its directory.
    pub signer: &'a SigningKey,
}

/// A complete pack, ready to be uploaded.
#[derive(Debug)]
pub struct FinishedPack {
    /// As the index will list it.
    pub listed: IndexedPack,
    /// Its bytes, in pieces.
    pub pieces: Vec<Bytes>,
}

/// A pack that still takes frames, or waits for some.
struct OpenPack {
    header: SectionHeader,
    section: Arc<Section>,
    next_offset: usize,
    frames: Vec<(Frame, Bytes)>,
    reserved: u32,
    blobs: usize,
    closed: bool,
}

/// Takes frames from any thread and gives complete packs.
pub struct PackWriter<'a> {
    keys: PackKeys<'a>,
    target: usize,
    current: Mutex<Option<Arc<Mutex<OpenPack>>>>,
}

impl std::fmt::Debug for PackWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackWriter").field("kind", &self.keys.kind).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> PackWriter<'a> {
    /// A writer of packs that are closed where they are nearest to `target` bytes.
    #[must_use]
    pub const fn new(keys: PackKeys<'a>, target: usize) -> Self {
        Self { keys, target, current: Mutex::new(None) }
    }

    /// Seals one frame. `stored` is the compressed form of what `blobs` name in order. A pack that
    /// became complete is handed back.
    ///
    /// # Errors
    /// The frame does not come back as what went in: a compressor or memory that cannot be trusted.
    pub fn add(
        &self,
        blobs: Vec<Blob>,
        (codec, stored): (Codec, Vec<u8>),
        check: &mut Decompressor,
    ) -> Result<Vec<FinishedPack>> {
        let mut finished = Vec::new();
        let (pack, counter, offset) =
            self.reserve(stored.len() + limits::TAG_LEN, blobs.len(), &mut finished)?;
        let section = Arc::clone(&lock(&pack).section);
        let sealed = section.seal_frame(counter, stored)?;
        let length = u32::try_from(sealed.len()).map_err(too_large)?;
        let frame = Frame {
            section: 0,
            counter,
            offset,
            length,
            codec,
            hash: *blake3::hash(&sealed).as_bytes(),
            blobs,
        };
        self.verify(&section, &frame, &sealed, check)?;
        let mut open = lock(&pack);
        open.frames.push((frame, Bytes::from(sealed)));
        if open.closed && open.frames.len() == open.reserved as usize {
            finished.push(self.finish_pack(&mut open)?);
        }
        drop(open);
        Ok(finished)
    }

    /// A place for a frame of `length` bytes that holds `blobs`: its pack, its counter, its offset.
    fn reserve(
        &self,
        length: usize,
        blobs: usize,
        finished: &mut Vec<FinishedPack>,
    ) -> Result<(Arc<Mutex<OpenPack>>, u32, u32)> {
        let mut current = lock(&self.current);
        let full = current.as_ref().is_some_and(|pack| {
            let open = lock(pack);
            // With this frame or without it, whichever is nearer: so packs have the target on average.
            open.next_offset + length / 2 > self.target
                || open.reserved as usize >= limits::PACK_FRAMES_MAX
                || open.blobs + blobs > limits::PACK_BLOBS_MAX
        });
        let complete = if full { close(&mut current) } else { None };
        let pack = if let Some(pack) = current.as_ref() {
            Arc::clone(pack)
        } else {
            let pack = Arc::new(Mutex::new(self.open_pack()?));
            *current = Some(Arc::clone(&pack));
            pack
        };
        let mut open = lock(&pack);
        let counter = open.reserved;
        let offset = u32::try_from(open.next_offset).map_err(too_large)?;
        open.reserved += 1;
        open.blobs += blobs;
        open.next_offset += length;
        drop(open);
        // Two passes over all of its bytes, for which nobody should wait.
        drop(current);
        if let Some(complete) = complete {
            finished.push(self.finish_pack(&mut lock(&complete))?);
        }
        Ok((pack, counter, offset))
    }

    fn open_pack(&self) -> Result<OpenPack> {
        let PackKeys { place, kind, epoch, public, signer, .. } = &self.keys;
        let (header, section) = Section::create(*place, *kind, signer.identity(), (*epoch, public))?;
        let next_offset = header.encode().len();
        let section = Arc::new(section);
        Ok(OpenPack {
            header,
            section,
            next_offset,
            frames: Vec::new(),
            reserved: 0,
            blobs: 0,
            closed: false,
        })
    }

    /// Closes the current pack; call it when no other thread adds frames.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn flush(&self) -> Result<Option<FinishedPack>> {
        let complete = close(&mut lock(&self.current));
        complete.map(|pack| self.finish_pack(&mut lock(&pack))).transpose()
    }

    fn verify(
        &self,
        section: &Section,
        frame: &Frame,
        sealed: &[u8],
        check: &mut Decompressor,
    ) -> Result<()> {
        let stored = section.open_frame(frame.counter, sealed).map_err(|e| broken().with_source(e))?;
        let plain = check
            .decompress(frame.codec, stored, frame.plain_length())
            .map_err(|e| broken().with_source(e))?;
        for (blob, piece) in frame.pieces(&plain).map_err(|e| broken().with_source(e))? {
            if self.keys.blobs.id(piece) != blob.id {
                return Err(broken());
            }
        }
        Ok(())
    }

    fn finish_pack(&self, open: &mut OpenPack) -> Result<FinishedPack> {
        let mut frames = std::mem::take(&mut open.frames);
        frames.sort_by_key(|(frame, _)| frame.offset);
        let PackKeys { place, kind, index, signer, .. } = self.keys;
        assemble((place, kind), (index, signer), vec![open.header.clone()], frames)
    }
}

/// No more frames for the current pack. It is given if every frame that has a place in it has arrived; else whoever brings the
/// last one finishes it.
fn close(current: &mut Option<Arc<Mutex<OpenPack>>>) -> Option<Arc<Mutex<OpenPack>>> {
    let pack = current.take()?;
    let mut open = lock(&pack);
    open.closed = true;
    let complete = open.frames.len() == open.reserved as usize;
    drop(open);
    complete.then_some(pack)
}

/// A complete pack of sections, and of frames that are sealed and have their offsets.
///
/// # Errors
/// The bytes of a frame are not those that its hash stands for; no randomness.
pub(super) fn assemble(
    (place, kind): (Place, PackKind),
    (index, signer): (&IndexKey, &SigningKey),
    sections: Vec<SectionHeader>,
    frames: Vec<(Frame, Bytes)>,
) -> Result<FinishedPack> {
    let mut pieces: Vec<Bytes> = sections.iter().map(|header| Bytes::from(header.encode())).collect();
    let mut end = pieces.iter().map(Bytes::len).sum::<usize>();
    let mut directory = Directory { sections, frames: Vec::with_capacity(frames.len()) };
    for (frame, sealed) in frames {
        // It may have waited for long since it was looked at.
        if blake3::hash(&sealed) != frame.hash || frame.offset as usize != end {
            return Err(broken());
        }
        end += sealed.len();
        directory.frames.push(frame);
        pieces.push(sealed);
    }
    let mut plain = Writer::new();
    directory.encode_into(&mut plain);
    let sealed = envelope::seal(
        &EnvelopeHeader {
            kind: RecordKind::Directory,
            repository: place.repository,
            domain: place.domain,
            author: signer.identity(),
            sequence: 0,
            epoch: 0,
        },
        &Sealer::Symmetric(index.as_bytes()),
        signer,
        &plain.finish(),
    )?;
    let used = end + sealed.len() + TRAILER_LEN;
    let size = padded_length(used);
    let mut padding = vec![0; size - used];
    random::fill(&mut padding)?;
    let trailer = Trailer {
        offset: u32::try_from(end + padding.len()).map_err(too_large)?,
        length: u32::try_from(sealed.len()).map_err(too_large)?,
    };
    pieces.push(Bytes::from(padding));
    pieces.push(Bytes::from(sealed));
    pieces.push(Bytes::from(trailer.encode()));
    let mut hasher = blake3::Hasher::new();
    for piece in &pieces {
        hasher.update(piece);
    }
    let id = PackId::new(*hasher.finalize().as_bytes());
    let size = u32::try_from(size).map_err(too_large)?;
    Ok(FinishedPack { listed: IndexedPack { id, size, kind, directory }, pieces })
}

fn broken() -> Error {
    Error::new(ErrorKind::Failed, "a frame that was just sealed does not open to what went in")
        .with_remedy("The memory or processor of this machine may be faulty: test it before you rely on it")
}

fn too_large(error: std::num::TryFromIntError) -> Error {
    Error::new(ErrorKind::Failed, "a pack grew beyond 4 GiB").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compress::{Compression, Compressor},
        crypto::RootSecret,
        id::DomainId,
    };

    const TEXT: &[u8] =
        b"what went in, and what must come out again. What went in, and what must come out again.";

    /// Has `test` use a writer, a frame for it, and a decompressor.
    fn with_writer(test: impl Fn(&PackWriter<'_>, Vec<Blob>, (Codec, Vec<u8>), &mut Decompressor)) {
        let (root, domain) = (RootSecret::from_bytes([1; 32]), DomainId::new([2; 8]));
        let (ids, index) = (root.chunk_root().domain(&domain).id, root.index_root().domain(&domain));
        let (public, signer) = (root.data_seed(1).public_key(), root.owner_identity());
        let keys = PackKeys {
            place: Place { repository: root.repository_id(), domain },
            kind: PackKind::Data,
            blobs: BlobKey::Chunk(&ids),
            epoch: 1,
            public: &public,
            index: &index,
            signer: &signer,
        };
        let mut compressor = Compressor::new(Compression::Fast).unwrap();
        let stored = compressor.compress(TEXT).unwrap();
        let blobs = vec![Blob { id: ids.id(TEXT), length: u32::try_from(TEXT.len()).unwrap() }];
        let writer = PackWriter::new(keys, limits::PACK_BYTES_TARGET);
        test(&writer, blobs, stored, compressor.decompressor());
    }

    fn is_told(error: &Error) {
        assert!(error.to_string().contains("does not open to what went in"), "{error}");
        assert!(error.remedy().unwrap().contains("memory"), "{error:?}");
    }

    #[test]
    fn a_bit_that_flips_between_compressing_and_sealing_stops_the_pack() {
        with_writer(|writer, blobs, (codec, stored), check| {
            for at in 0..stored.len() {
                let mut flipped = stored.clone();
                flipped[at] ^= 4;
                // Some bits of a compressed frame mean nothing: then it is as good as before.
                let opened = check.decompress(codec, flipped.clone(), TEXT.len());
                match writer.add(blobs.clone(), (codec, flipped), check) {
                    Ok(_) => assert_eq!(opened.unwrap(), TEXT),
                    Err(error) => is_told(&error),
                }
            }
            let mut flipped = stored.clone();
            flipped[stored.len() / 2] ^= 4;
            is_told(&writer.add(blobs.clone(), (codec, flipped), check).unwrap_err());
            let lies = vec![Blob { id: BlobId::new([7; 32]), ..blobs[0] }];
            is_told(&writer.add(lies, (codec, stored), check).unwrap_err());
        });
    }

    #[test]
    fn a_bit_that_flips_between_sealing_and_looking_again_stops_the_pack() {
        with_writer(|writer, blobs, stored, check| {
            writer.add(blobs, stored, check).unwrap();
            let pack = Arc::clone(lock(&writer.current).as_ref().unwrap());
            let open = lock(&pack);
            let (frame, sealed) = &open.frames[0];
            writer.verify(&open.section, frame, sealed, check).unwrap();
            for at in 0..sealed.len() {
                let mut flipped = sealed.to_vec();
                flipped[at] ^= 0x80;
                is_told(&writer.verify(&open.section, frame, &flipped, check).unwrap_err());
            }
        });
    }

    #[test]
    fn a_bit_that_flips_while_a_frame_waits_stops_the_pack() {
        with_writer(|writer, blobs, stored, check| {
            writer.add(blobs, stored, check).unwrap();
            let pack = Arc::clone(lock(&writer.current).as_ref().unwrap());
            let mut flipped = lock(&pack).frames[0].1.to_vec();
            flipped[20] ^= 1;
            lock(&pack).frames[0].1 = Bytes::from(flipped);
            is_told(&writer.flush().unwrap_err());
        });
    }
}
