//! Content-defined chunking: FastCDC v2020 with a secret gear table, so that chunk boundaries tell an
//! observer nothing about the content.

use std::fmt;

use zeroize::ZeroizeOnDrop;

/// The three sizes that FastCDC works with, in bytes; all even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSizes {
    /// No chunk is smaller, but the last of a file.
    pub min: u32,
    /// What the masks aim at.
    pub average: u32,
    /// No chunk is larger.
    pub max: u32,
}

impl ChunkSizes {
    /// The parameters of a new domain.
    #[expect(clippy::cast_possible_truncation, reason = "constants below 4 GiB")]
    pub const DEFAULT: Self = Self {
        min: crate::limits::CHUNK_BYTES_MIN as u32,
        average: crate::limits::CHUNK_BYTES_AVERAGE as u32,
        max: crate::limits::CHUNK_BYTES_MAX as u32,
    };
}

/// Bits that a hash must lack to end a chunk of 2^b bytes on average: the masks of the FastCDC paper of 2020 (by way of the crate
/// `fastcdc`), for b from [`MASK_BITS_MIN`].
const MASKS: [u64; 17] = [
    0x0000_0000_0180_4110,
    0x0000_0000_0180_3110,
    0x0000_0000_1803_5100,
    0x0000_0018_0003_5300,
    0x0000_0190_0035_3000,
    0x0000_5900_0353_0000,
    0x0000_d900_0353_0000,
    0x0000_d901_0353_0000,
    0x0000_d903_0353_0000,
    0x0000_d903_1353_0000,
    0x0000_d90f_0353_0000,
    0x0000_d903_0353_7000,
    0x0000_d907_0353_7000,
    0x0000_d907_0753_7000,
    0x0000_d917_0753_7000,
    0x0000_d917_4753_7000,
    0x0000_d917_6753_7000,
];
const MASK_BITS_MIN: u32 = 5;

/// A hash tells of this many bytes: what is older was shifted out.
const HASH_BYTES: usize = u64::BITS as usize;
/// Parts of a block that are looked at side by side. One after the other each byte waits for the one before: a processor can do
/// four at once (see `docs/decisions/0017-speed.md`).
const LANES: usize = 4;
/// The length of a part. Each costs [`HASH_BYTES`] more, and what is behind a cut was looked at in vain.
const LANE_BYTES: usize = 2048;

/// Cuts plaintext into chunks.
#[derive(ZeroizeOnDrop)]
pub struct Chunker {
    gear: Box<[u64; 256]>,
    #[zeroize(skip)]
    strict: u64,
    #[zeroize(skip)]
    relaxed: u64,
    #[zeroize(skip)]
    sizes: ChunkSizes,
}

impl fmt::Debug for Chunker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunker").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

impl Chunker {
    /// A chunker with the gear table of a domain, and sizes as a registry may have them.
    #[must_use]
    pub fn new(gear: Box<[u64; 256]>, sizes: ChunkSizes) -> Self {
        // The power of two that is next to it on a scale of powers.
        let above_root = u64::from(sizes.average).pow(2) >> (2 * sizes.average.ilog2()) >= 2;
        let bits = sizes.average.ilog2() + u32::from(above_root);
        let mask = |bits: u32| MASKS[(bits - MASK_BITS_MIN) as usize];
        Self { gear, strict: mask(bits + 1), relaxed: mask(bits - 1), sizes }
    }

    /// The largest chunk, in bytes: `cut` wants to see that many unless the file ends before.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.sizes.max as usize
    }

    /// The length in bytes of the first chunk of `source`, which holds at least [`Self::max`] bytes or
    /// all that is left of the file. 0 only for an empty source.
    #[must_use]
    pub fn cut(&self, source: &[u8]) -> usize {
        let [min, average, max] = [self.sizes.min, self.sizes.average, self.sizes.max].map(widen);
        let length = source.len().min(max);
        if length <= min {
            return length;
        }
        // Bytes are tried in pairs: the last one of an odd number is not.
        let tried = &source[..length - length % 2];
        let mut scan = Scan { gear: &self.gear, tried, at: min, hash: 0 };
        let found =
            scan.find(average.min(tried.len()), self.strict).or_else(|| scan.find(tried.len(), self.relaxed));
        found.unwrap_or(length)
    }
}

/// A search for the end of a chunk.
struct Scan<'a> {
    gear: &'a [u64; 256],
    tried: &'a [u8],
    /// The next byte that is tried; at least the smallest chunk.
    at: usize,
    /// Of the bytes from the smallest chunk to `at`.
    hash: u64,
}

impl Scan<'_> {
    fn add(gear: &[u64; 256], hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(gear[usize::from(byte)])
    }

    /// The first byte before `end` at which the hash lacks the bits of `mask`.
    fn find(&mut self, end: usize, mask: u64) -> Option<usize> {
        while self.at + LANES * LANE_BYTES <= end && self.skip_block(mask) {}
        // What is left is less than a block, or the cut is in the next one.
        for byte in &self.tried[self.at..end] {
            self.hash = Self::add(self.gear, self.hash, *byte);
            if self.hash & mask == 0 {
                return Some(self.at);
            }
            self.at += 1;
        }
        None
    }

    /// Passes over a block in which no chunk ends; false, and nothing is passed over, if one does.
    fn skip_block(&mut self, mask: u64) -> bool {
        let (gear, at) = (self.gear, self.at);
        let lane = |n: usize| &self.tried[at + n * LANE_BYTES..][..LANE_BYTES];
        // As if everything before had been added: see `HASH_BYTES`.
        let warm = |n: usize| {
            let before = &self.tried[at + n * LANE_BYTES - HASH_BYTES..][..HASH_BYTES];
            before.iter().fold(0, |hash, byte| Self::add(gear, hash, *byte))
        };
        let (mut a, mut b, mut c, mut d) = (self.hash, warm(1), warm(2), warm(3));
        for (((w, x), y), z) in lane(0).iter().zip(lane(1)).zip(lane(2)).zip(lane(3)) {
            (a, b) = (Self::add(gear, a, *w), Self::add(gear, b, *x));
            (c, d) = (Self::add(gear, c, *y), Self::add(gear, d, *z));
            if (a & mask == 0) | (b & mask == 0) | (c & mask == 0) | (d & mask == 0) {
                return false;
            }
        }
        (self.at, self.hash) = (at + LANES * LANE_BYTES, d);
        true
    }
}

/// A u32 always fits: lifeboat runs on 64-bit Linux.
const fn widen(value: u32) -> usize {
    value as usize
}

#[cfg(test)]
mod tests {
    use fastcdc::v2020::{Normalization, cut_gear, select_masks};

    use super::*;

    fn table(seed: u64) -> Box<[u64; 256]> {
        let mut state = seed;
        Box::new(std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ (state >> 29)
        }))
    }

    fn data() -> Vec<u8> {
        table(7)
            .iter()
            .cycle()
            .enumerate()
            .take(600_000)
            .flat_map(|(i, w)| (w ^ (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes())
            .collect()
    }

    fn lengths(chunker: &Chunker, mut rest: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !rest.is_empty() {
            let length = chunker.cut(&rest[..rest.len().min(chunker.max())]);
            lengths.push(length);
            rest = &rest[length..];
        }
        lengths
    }

    #[test]
    fn boundaries_are_pinned_and_depend_on_the_secret_table() {
        let data = data();
        let ours = lengths(&Chunker::new(table(1), ChunkSizes::DEFAULT), &data);
        let other = lengths(&Chunker::new(table(2), ChunkSizes::DEFAULT), &data);
        assert_ne!(ours, other);
        assert_eq!(ours.iter().sum::<usize>(), data.len());
        assert!(ours[..ours.len() - 1].iter().all(|n| (64 << 10..=1 << 20).contains(n)), "{ours:?}");
        assert_eq!(
            ours[..4],
            GOLDEN,
            "a change of these boundaries ends deduplication with every old repository"
        );
    }

    const GOLDEN: [usize; 4] = [291_225, 272_616, 316_265, 117_496];

    /// Where the crate `fastcdc` cuts.
    fn judged(gear: &[u64; 256], sizes: ChunkSizes, source: &[u8]) -> usize {
        let (strict, relaxed) = select_masks(widen(sizes.average), Normalization::Level1);
        let shifted = gear.map(|word| word << 1);
        let [min, average, max] = [sizes.min, sizes.average, sizes.max].map(widen);
        let masks = (strict << 1, relaxed << 1);
        cut_gear(source, min, average, max, strict, relaxed, masks.0, masks.1, gear, &shifted).1
    }

    #[test]
    fn it_cuts_where_another_implementation_does() {
        let noise = data();
        let text: Vec<u8> = (0..400_000_u32).flat_map(|i| i.to_string().into_bytes()).collect();
        let sizes = |min, average, max| ChunkSizes { min, average, max };
        let all_sizes = [
            ChunkSizes::DEFAULT,
            sizes(64, 92, 128),
            sizes(64, 90, 20_000),
            sizes(1000, 30_000, 1 << 20),
            sizes(30_000, 46_342, 100_000),
            sizes(4096, (1 << 20) - 2, 1 << 20),
        ];
        let mut inside = 0;
        for (at, sizes) in all_sizes.into_iter().enumerate() {
            let gear = table(at as u64);
            let chunker = Chunker::new(gear.clone(), sizes);
            for data in [&noise, &text, &vec![0; 3 << 20]] {
                let mut rest = &data[..];
                for turn in 0..200 {
                    // What is left of a file has any length.
                    let window = &rest[..rest.len().min(chunker.max() - turn * 131 % chunker.max())];
                    let length = chunker.cut(window);
                    assert_eq!(length, judged(&gear, sizes, window), "{sizes:?}, turn {turn}");
                    inside += usize::from(length < window.len());
                    rest = &rest[length..];
                }
            }
            for length in (0..3000).chain(99_990..100_010) {
                assert_eq!(
                    chunker.cut(&noise[..length]),
                    judged(&gear, sizes, &noise[..length]),
                    "{length} bytes"
                );
            }
        }
        assert!(inside > 500, "{inside} cuts were not at an end");
    }
}
