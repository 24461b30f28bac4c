//! Content-defined chunking: FastCDC v2020 with a secret gear table, so that chunk boundaries tell an
//! observer nothing about the content.

use std::fmt;

use fastcdc::v2020::{Normalization, cut_gear, select_masks};
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

/// Cuts plaintext into chunks.
#[derive(ZeroizeOnDrop)]
pub struct Chunker {
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
    #[zeroize(skip)]
    masks: (u64, u64),
    #[zeroize(skip)]
    sizes: ChunkSizes,
}

impl fmt::Debug for Chunker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunker").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

impl Chunker {
    /// A chunker with the gear table of a domain.
    #[must_use]
    pub fn new(gear: Box<[u64; 256]>, sizes: ChunkSizes) -> Self {
        let gear_shifted = Box::new(gear.map(|word| word << 1));
        let masks = select_masks(widen(sizes.average), Normalization::Level1);
        Self { gear, gear_shifted, masks, sizes }
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
        let (strict, relaxed) = self.masks;
        cut_gear(
            source,
            widen(self.sizes.min),
            widen(self.sizes.average),
            widen(self.sizes.max),
            strict,
            relaxed,
            strict << 1,
            relaxed << 1,
            &self.gear[..],
            &self.gear_shifted[..],
        )
        .1
    }
}

/// A u32 always fits: lifeboat runs on 64-bit Linux.
const fn widen(value: u32) -> usize {
    value as usize
}

#[cfg(test)]
mod tests {
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
}
