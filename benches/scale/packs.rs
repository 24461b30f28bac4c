//! Packs that are made up from a seed: each has its name, its size and its directory, and no bytes.

use lifeboat::{
    compress::Codec,
    format::pack::{
        Blob, Directory, ENCAPSULATION_LEN, Frame, IndexedPack, PackKind, SECTION_HEADER_LEN, SectionHeader,
    },
    id::{BlobId, IdentityId, PackId},
};

/// Chunks of a pack: 32 MiB at the average length, as in a domain of about 1 TiB.
const CHUNKS_PER_PACK: u64 = 128;
/// Chunks that share a frame.
const CHUNKS_PER_FRAME: u64 = 4;
/// Bytes of a chunk.
const CHUNK_BYTES: u32 = 256 << 10;
/// Bytes of a frame, compressed and sealed.
const FRAME_BYTES: u32 = 700 << 10;

/// Packs of so many chunks.
pub(crate) const fn count_of(chunks: u64) -> u64 {
    chunks.div_ceil(CHUNKS_PER_PACK)
}

/// How many there are, and what all of it follows from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packs {
    pub(crate) seed: u64,
    pub(crate) count: u64,
    pub(crate) author: IdentityId,
    /// Bytes of each: their directories are equally long.
    size: u32,
}

impl Packs {
    /// Enough for so many chunks.
    pub(crate) fn of_chunks(seed: u64, chunks: u64, author: IdentityId) -> Self {
        let mut packs = Self { seed, count: count_of(chunks), author, size: 0 };
        packs.size = u32::try_from(packs.indexed(0).directory.pack_length()).unwrap();
        packs
    }

    pub(crate) const fn chunks(&self) -> u64 {
        self.count * CHUNKS_PER_PACK
    }

    fn hash(&self, what: u8, number: u64) -> [u8; 32] {
        let mut input = [what; 17];
        input[1..9].copy_from_slice(&self.seed.to_le_bytes());
        input[9..].copy_from_slice(&number.to_le_bytes());
        *blake3::hash(&input).as_bytes()
    }

    pub(crate) fn chunk(&self, number: u64) -> BlobId {
        BlobId::new(self.hash(1, number))
    }

    /// Name and size of a pack, as LIST shows it.
    pub(crate) fn listed(&self, number: u64) -> (PackId, u32) {
        (PackId::new(self.hash(2, number)), self.size)
    }

    /// A pack as an index lists it.
    pub(crate) fn indexed(&self, number: u64) -> IndexedPack {
        let section = SectionHeader {
            kind: PackKind::Data,
            author: self.author,
            epoch: 1,
            salt: self.hash(3, number),
            encapsulation: Box::new([3; ENCAPSULATION_LEN]),
            commitment: self.hash(4, number),
        };
        let header = u32::try_from(SECTION_HEADER_LEN).unwrap();
        let frame = |counter: u32| {
            let first = number * CHUNKS_PER_PACK + u64::from(counter) * CHUNKS_PER_FRAME;
            let blob = |chunk| Blob { id: self.chunk(chunk), length: CHUNK_BYTES };
            Frame {
                section: 0,
                counter,
                offset: header + counter * FRAME_BYTES,
                length: FRAME_BYTES,
                codec: Codec::Zstd,
                hash: self.hash(5, first),
                blobs: (first..first + CHUNKS_PER_FRAME).map(blob).collect(),
            }
        };
        let frames = (0..u32::try_from(CHUNKS_PER_PACK / CHUNKS_PER_FRAME).unwrap()).map(frame).collect();
        let (id, size) = self.listed(number);
        let directory = Directory { sections: vec![section], frames };
        IndexedPack { id, size, kind: PackKind::Data, directory }
    }
}
