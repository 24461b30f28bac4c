//! A pack: `section header, frames, random padding, directory (a signed envelope), trailer`.
//! The directory repeats each section's header, so that a frame can be read by range and opened
//! with nothing but the index. The padding is random and before the directory, so that nobody sees where
//! the last frame ends: in a pack of one frame that would be the length of a chunk.

use std::ops::Range;

use super::{
    envelope,
    wire::{Reader, Writer},
};
use crate::{
    compress::Codec,
    error::{Error, Result},
    id::{BlobId, IdentityId, PackId, SectionId},
    limits::{self, TAG_LEN},
};

/// Bytes of an X-Wing encapsulation.
pub const ENCAPSULATION_LEN: usize = 1120;
/// Bytes of an encoded section header.
pub const SECTION_HEADER_LEN: usize = 2 + IdentityId::LEN + 4 + 32 + ENCAPSULATION_LEN + 32;
/// Bytes of a trailer.
pub const TRAILER_LEN: usize = 16;
const MAGIC: [u8; 4] = *b"LFBP";
const VERSION: u8 = 1;
const SUITE: u8 = 1;

/// What the frames of a pack hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackKind {
    /// Chunks of files, sealed to the data key.
    Data,
    /// Nodes of manifests, sealed to the metadata key.
    Metadata,
}

impl PackKind {
    /// `d` or `m`, as in the name of the pack.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Data => 'd',
            Self::Metadata => 'm',
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Metadata => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Data),
            2 => Some(Self::Metadata),
            _ => None,
        }
    }
}

/// What opens a section: who wrote it, and the key encapsulated to the data or the metadata key.
#[derive(Clone, PartialEq, Eq)]
pub struct SectionHeader {
    /// What the frames hold.
    pub kind: PackKind,
    /// The identity that wrote the frames.
    pub author: IdentityId,
    /// The key epoch that the section is sealed to.
    pub epoch: u32,
    /// Random bytes that separate sections.
    pub salt: [u8; 32],
    /// The X-Wing encapsulation.
    pub encapsulation: Box<[u8; ENCAPSULATION_LEN]>,
    /// Commits to the section key, since GCM does not.
    pub commitment: [u8; 32],
}

impl std::fmt::Debug for SectionHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SectionHeader({:?} by {})", self.kind, self.author)
    }
}

impl SectionHeader {
    /// The bytes as they stand in the pack.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { kind, author, epoch, salt, encapsulation, commitment } = self;
        let mut out = Writer::new();
        out.u8(SUITE);
        out.u8(kind.code());
        out.raw(author.as_bytes());
        out.u32(*epoch);
        out.raw(salt);
        out.raw(&encapsulation[..]);
        out.raw(commitment);
        out.finish()
    }

    /// # Errors
    /// `Damaged` for an unknown suite or kind.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "a section header");
        if reader.u8()? != SUITE {
            return Err(reader.damaged("its cryptographic suite is unknown"));
        }
        let code = reader.u8()?;
        let header = Self {
            kind: PackKind::from_code(code).ok_or_else(|| reader.damaged("its kind is unknown"))?,
            author: IdentityId::new(reader.array()?),
            epoch: reader.u32()?,
            salt: reader.array()?,
            encapsulation: Box::new(reader.array()?),
            commitment: reader.array()?,
        };
        reader.finish()?;
        Ok(header)
    }

    /// The author in the bytes of a header, without decoding the rest.
    #[must_use]
    pub fn author_of(bytes: &[u8]) -> Option<IdentityId> {
        IdentityId::from_slice(bytes.get(2..2 + IdentityId::LEN)?)
    }

    /// The key epoch, given the first bytes of a header.
    #[must_use]
    pub fn epoch_of(bytes: &[u8]) -> Option<u32> {
        let start = 2 + IdentityId::LEN;
        Some(u32::from_le_bytes(bytes.get(start..start + 4)?.try_into().ok()?))
    }

    /// The name of the section: the BLAKE3 of its header.
    #[must_use]
    pub fn id(&self) -> SectionId {
        SectionId::new(*blake3::hash(&self.encode()).as_bytes())
    }
}

/// A chunk or node inside a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its keyed id.
    pub id: BlobId,
    /// Its length in bytes.
    pub length: u32,
}

/// Where a frame is and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Number of its section in the directory.
    pub section: u16,
    /// Its nonce within the section.
    pub counter: u32,
    /// Where its ciphertext begins in the pack, in bytes.
    pub offset: u32,
    /// Bytes of its ciphertext, tag included.
    pub length: u32,
    /// How its plaintext is stored.
    pub codec: Codec,
    /// BLAKE3 of its ciphertext, so that a ranged read can be checked without a content key.
    pub hash: [u8; 32],
    /// What it holds, in order.
    pub blobs: Vec<Blob>,
}

impl Frame {
    /// Where its ciphertext lies in the pack, in bytes.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        let start = u64::from(self.offset);
        start..start + u64::from(self.length)
    }

    /// Bytes of the plaintext, decompressed: what the blobs sum up to.
    #[must_use]
    pub fn plain_length(&self) -> usize {
        self.blobs.iter().map(|blob| blob.length as usize).sum()
    }

    /// Its ciphertext in the bytes of its pack.
    ///
    /// # Errors
    /// `Damaged` when the pack ends before it does.
    pub fn sealed_in<'p>(&self, pack: &'p [u8]) -> Result<&'p [u8]> {
        let start = self.offset as usize;
        let sealed = pack.get(start..start + self.length as usize);
        sealed.ok_or_else(|| Error::damaged("a frame", "it is not in its pack"))
    }

    /// Its blobs, each with its bytes in the plaintext.
    ///
    /// # Errors
    /// `Damaged` when the plaintext ends before they do.
    pub fn pieces<'p>(&'p self, plain: &'p [u8]) -> Result<impl Iterator<Item = (&'p Blob, &'p [u8])>> {
        if plain.len() < self.plain_length() {
            return Err(Error::damaged("a frame", "it is shorter than what it holds"));
        }
        let mut rest = plain;
        Ok(self.blobs.iter().map(move |blob| {
            let (piece, after) = rest.split_at(blob.length as usize);
            rest = after;
            (blob, piece)
        }))
    }
}

/// What a pack holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Its sections.
    pub sections: Vec<SectionHeader>,
    /// Its frames.
    pub frames: Vec<Frame>,
}

impl Directory {
    /// The plaintext of a directory.
    pub fn encode_into(&self, out: &mut Writer) {
        let Self { sections, frames } = self;
        out.count(sections.len());
        for section in sections {
            out.raw(&section.encode());
        }
        out.count(frames.len());
        for frame in frames {
            let Frame { section, counter, offset, length, codec, hash, blobs } = frame;
            out.number(u64::from(*section));
            out.number(u64::from(*counter));
            out.number(u64::from(*offset));
            out.number(u64::from(*length));
            out.u8(match codec {
                Codec::Raw => 0,
                Codec::Zstd => 1,
            });
            out.raw(hash);
            out.count(blobs.len());
            for Blob { id, length } in blobs {
                out.raw(id.as_bytes());
                out.number(u64::from(*length));
            }
        }
    }

    /// Bytes of a pack of these frames that are none of a frame's: the headers of the sections, the sealed
    /// directory, the padding and the trailer. All of them follow from the directory.
    #[must_use]
    pub fn overhead(&self) -> usize {
        let mut plain = Writer::new();
        self.encode_into(&mut plain);
        let headers = self.sections.len() * SECTION_HEADER_LEN;
        let used = headers + envelope::symmetric_length(plain.len()) + TRAILER_LEN;
        let with_frames = used + self.frames_length();
        used + padded_length(with_frames) - with_frames
    }

    /// Bytes of the pack that holds this: a pack of another size is not the one that was written.
    #[must_use]
    pub fn pack_length(&self) -> usize {
        self.overhead() + self.frames_length()
    }

    /// Whether its frames can stand side by side in a pack of so many bytes. Where they overlap, a small pack is said to hold
    /// more than anybody can move or read.
    #[must_use]
    pub fn has_room_in(&self, size: usize) -> bool {
        self.pack_length() <= size
    }

    /// Whether it may be that of a pack of this kind and size: every frame lies in it, every section is of its kind.
    #[must_use]
    pub fn fits(&self, kind: PackKind, size: u32) -> bool {
        let inside = |frame: &Frame| frame.range().end <= u64::from(size);
        self.frames.iter().all(inside) && self.sections.iter().all(|section| section.kind == kind)
    }

    /// How many blobs its frames hold.
    #[must_use]
    pub fn blobs(&self) -> usize {
        self.frames.iter().map(|frame| frame.blobs.len()).sum()
    }

    fn frames_length(&self) -> usize {
        self.frames.iter().map(|frame| frame.length as usize).sum()
    }

    /// Checks bounds: every number meets its limit, every frame lies inside the pack.
    ///
    /// # Errors
    /// `Damaged` for anything else.
    pub fn decode_from(reader: &mut Reader<'_>) -> Result<Self> {
        let count = reader.count(limits::PACK_SECTIONS_MAX)?;
        let sections = (0..count)
            .map(|_| SectionHeader::decode(reader.raw(SECTION_HEADER_LEN)?))
            .collect::<Result<Vec<_>>>()?;
        let count = reader.count(limits::PACK_FRAMES_MAX)?;
        let (mut frames, mut blobs) = (Vec::new(), 0);
        for _ in 0..count {
            let frame = decode_frame(reader, sections.len())?;
            blobs += frame.blobs.len();
            if blobs > limits::PACK_BLOBS_MAX {
                return Err(reader.damaged("it lists more blobs than a pack may hold"));
            }
            frames.push(frame);
        }
        Ok(Self { sections, frames })
    }
}

fn decode_frame(reader: &mut Reader<'_>, sections: usize) -> Result<Frame> {
    let section = reader.count(sections.saturating_sub(1))?;
    let counter = reader.number32()?;
    let offset = reader.number32()?;
    let length = reader.number32()?;
    let codec = match reader.u8()? {
        0 => Codec::Raw,
        1 => Codec::Zstd,
        _ => return Err(reader.damaged("the codec of a frame is unknown")),
    };
    let hash = reader.array()?;
    let count = reader.count(limits::FRAME_BLOBS_MAX)?;
    let mut blobs = Vec::new();
    for _ in 0..count {
        blobs.push(Blob { id: BlobId::new(reader.array()?), length: reader.number32()? });
    }
    let section = u16::try_from(section)
        .map_err(|_error: std::num::TryFromIntError| reader.damaged("too many sections"))?;
    let frame = Frame { section, counter, offset, length, codec, hash, blobs };
    let end = u64::from(offset) + u64::from(length);
    let plain: u64 = frame.blobs.iter().map(|blob| u64::from(blob.length)).sum();
    if sections == 0 || end > limits::PACK_BYTES_MAX as u64 || plain > limits::FRAME_BYTES_MAX as u64 {
        return Err(reader.damaged("a frame is larger than any frame may be"));
    }
    if (length as usize) < TAG_LEN || length as usize > limits::FRAME_BYTES_MAX + TAG_LEN {
        return Err(reader.damaged("the length of a frame is impossible"));
    }
    Ok(frame)
}

/// The last bytes of a pack: where its directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Where the directory begins, in bytes.
    pub offset: u32,
    /// Its length in bytes.
    pub length: u32,
}

impl Trailer {
    /// The bytes of the trailer.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut out = Writer::new();
        out.raw(&MAGIC);
        out.raw(&[VERSION, 0, 0, 0]);
        out.u32(self.offset);
        out.u32(self.length);
        out.finish()
    }

    /// Reads the trailer of a whole pack and checks that the directory lies inside it.
    ///
    /// # Errors
    /// `Damaged` when this is not the end of a pack.
    pub fn decode(pack: &[u8]) -> Result<Self> {
        let start = pack.len().checked_sub(TRAILER_LEN);
        let start = start.ok_or_else(|| Error::damaged("a pack", "it is too short"))?;
        Self::decode_last(&pack[start..], pack.len() as u64)
    }

    /// As [`Self::decode`], by the last [`TRAILER_LEN`] bytes of a pack of `size` bytes.
    ///
    /// # Errors
    /// `Damaged` when this is not the end of such a pack.
    pub fn decode_last(last: &[u8], size: u64) -> Result<Self> {
        let mut reader = Reader::new(last, "a pack");
        if reader.array()? != MAGIC || reader.array()? != [VERSION, 0, 0, 0] {
            return Err(reader.damaged("it does not end in a pack trailer of format 1"));
        }
        let trailer = Self { offset: reader.u32()?, length: reader.u32()? };
        reader.finish()?;
        let end = u64::from(trailer.offset) + u64::from(trailer.length) + TRAILER_LEN as u64;
        if end != size {
            return Err(Error::damaged("a pack", "its directory is not where the trailer says"));
        }
        Ok(trailer)
    }
}

/// The size that a pack is padded to: a multiple of 64 KiB, for a small pack of 4 KiB.
#[must_use]
pub const fn padded_length(length: usize) -> usize {
    let unit = if length > 1 << 20 { 64 << 10 } else { 4 << 10 };
    length.next_multiple_of(unit)
}

/// The length at which a data pack is closed in a domain of so many bytes: 16 MiB up to 256 GiB, then growing
/// with the square root, so that neither the packs become too many nor a single one too large; at most 64 MiB.
#[must_use]
pub fn target_length(domain_bytes: u64) -> usize {
    let root = domain_bytes.saturating_mul(1 << 10).isqrt();
    let root = usize::try_from(root).unwrap_or(usize::MAX);
    root.clamp(limits::PACK_BYTES_TARGET, limits::PACK_BYTES_TARGET_MAX)
}

/// A pack as an index lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedPack {
    /// Its name.
    pub id: PackId,
    /// Its size in bytes.
    pub size: u32,
    /// What it holds.
    pub kind: PackKind,
    /// Its directory.
    pub directory: Directory,
}

impl IndexedPack {
    /// The hash of all that is said of the pack: two listings with the same one say the same.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&encode_index(std::slice::from_ref(self))).as_bytes()
    }
}

/// The plaintext of an index object.
#[must_use]
pub fn encode_index(packs: &[IndexedPack]) -> Vec<u8> {
    let mut out = Writer::new();
    out.count(packs.len());
    for IndexedPack { id, size, kind, directory } in packs {
        out.raw(id.as_bytes());
        out.u32(*size);
        out.u8(kind.code());
        directory.encode_into(&mut out);
    }
    out.finish()
}

/// # Errors
/// `Damaged` for anything that `encode_index` does not write.
pub fn decode_index(bytes: &[u8]) -> Result<Vec<IndexedPack>> {
    let mut reader = Reader::new(bytes, "an index");
    let count = reader.count(limits::INDEX_PACKS_MAX)?;
    let mut packs = Vec::new();
    for _ in 0..count {
        let id = PackId::new(reader.array()?);
        let size = reader.u32()?;
        let code = reader.u8()?;
        let kind =
            PackKind::from_code(code).ok_or_else(|| reader.damaged("the kind of a pack is unknown"))?;
        let directory = Directory::decode_from(&mut reader)?;
        if !directory.fits(kind, size) {
            return Err(reader.damaged("a frame or section does not fit its pack"));
        }
        packs.push(IndexedPack { id, size, kind, directory });
    }
    reader.finish()?;
    Ok(packs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_grow_with_the_square_root_of_the_domain() {
        let gib = 1 << 30;
        let table = [(0, 16), (256, 16), (1 << 10, 32), (4 << 10, 64), (1 << 30, 64)];
        for (domain, mebibytes) in table {
            assert_eq!(target_length(domain * gib), mebibytes * limits::MIB, "{domain} GiB");
        }
        assert_eq!(target_length(u64::MAX), limits::PACK_BYTES_TARGET_MAX);
    }
}
