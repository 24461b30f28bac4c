//! One bit for each of many things.

use std::ops::Range;

/// Bits, all of them off at first.
#[derive(Debug, Default)]
pub(in crate::ops) struct Bits(Vec<u64>);

const WORD: usize = 64;

impl Bits {
    pub(in crate::ops) fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(WORD)])
    }

    /// Turns one on, and says whether it was off.
    pub(in crate::ops) fn set(&mut self, number: usize) -> bool {
        let Some(word) = self.0.get_mut(number / WORD) else { return false };
        let bit = 1 << (number % WORD);
        let was_off = *word & bit == 0;
        *word |= bit;
        was_off
    }

    pub(in crate::ops) fn get(&self, number: usize) -> bool {
        self.0.get(number / WORD).is_some_and(|word| *word & 1 << (number % WORD) != 0)
    }

    /// Whether any of these is on.
    pub(super) fn any(&self, mut range: Range<usize>) -> bool {
        range.any(|number| self.get(number))
    }

    /// Turns on what is on in either.
    pub(super) fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(ours, theirs)| *ours |= theirs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_is_its_own() {
        let mut bits = Bits::new(130);
        assert!(bits.set(0) && bits.set(63) && bits.set(64) && bits.set(129) && !bits.set(64));
        let on: Vec<usize> = (0..200).filter(|number| bits.get(*number)).collect();
        assert_eq!(on, [0, 63, 64, 129]);
        assert!(bits.any(1..64) && !bits.any(65..129) && !bits.any(0..0));
        let mut other = Bits::new(130);
        assert!(other.set(5));
        bits.join(&other);
        assert!(bits.get(5) && bits.get(129) && !bits.set(5));
    }
}
