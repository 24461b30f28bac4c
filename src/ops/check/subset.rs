//! Which packs a check reads.

use crate::{
    error::{Error, ErrorKind, Result},
    id::PackId,
};

/// Which packs a check reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subset {
    /// All.
    All,
    /// The n-th of t parts (from 1): which one a pack is in depends on its id alone.
    Part(u32, u32),
    /// About so many percent, others every time.
    Percent(f64),
    /// Others every time, until so many bytes were read.
    Bytes(u64),
}

impl Subset {
    /// Reads `n/t`, `x%` or a number of bytes (a suffix is the caller's to resolve).
    ///
    /// # Errors
    /// `Usage` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::Usage, format!("`{text}` is not a part of the data"))
                .with_remedy("Give n/t (2/7), x% (5%) or a size (10G)")
        };
        if let Some((part, parts)) = text.split_once('/') {
            let number = |text: &str| text.trim().parse::<u32>().ok().filter(|n| *n > 0);
            let (part, parts) = (number(part).ok_or_else(wrong)?, number(parts).ok_or_else(wrong)?);
            return if part <= parts { Ok(Self::Part(part, parts)) } else { Err(wrong()) };
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.trim().parse().map_err(|e| wrong().with_source(e))?;
            return if percent > 0.0 && percent <= 100.0 { Ok(Self::Percent(percent)) } else { Err(wrong()) };
        }
        text.parse().map(Self::Bytes).map_err(|e| wrong().with_source(e))
    }

    /// Chooses among packs with their sizes. `seed` is random: it decides which ones a part of unknown
    /// members takes.
    #[must_use]
    pub fn choose<T>(self, mut packs: Vec<(PackId, u64, T)>, seed: &[u8; 32]) -> Vec<T> {
        let word = |id: &PackId| {
            let [a, b, c, d, ..] = *id.as_bytes();
            u32::from_le_bytes([a, b, c, d])
        };
        let shuffled = |packs: &mut Vec<(PackId, u64, T)>| {
            packs.sort_by_cached_key(|(id, ..)| *blake3::keyed_hash(seed, id.as_bytes()).as_bytes());
        };
        match self {
            Self::All => {}
            Self::Part(part, parts) => packs.retain(|(id, ..)| word(id) % parts == part - 1),
            Self::Percent(percent) => {
                shuffled(&mut packs);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "a share of a count of packs, which is far below 2^52"
                )]
                let wanted = (packs.len() as f64 * percent / 100.0).ceil() as usize;
                packs.truncate(wanted);
            }
            Self::Bytes(bytes) => {
                shuffled(&mut packs);
                let mut total = 0;
                packs.retain(|(_, size, _)| {
                    let wanted = total < bytes;
                    total += size;
                    wanted
                });
            }
        }
        packs.into_iter().map(|(.., pack)| pack).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_whole_are_the_whole_and_shares_are_about_right() {
        let packs = || -> Vec<(PackId, u64, u32)> {
            (0_u32..1000).map(|n| (PackId::new(*blake3::hash(&n.to_le_bytes()).as_bytes()), 10, n)).collect()
        };
        let mut all: Vec<u32> =
            (1..=7).flat_map(|part| Subset::Part(part, 7).choose(packs(), &[0; 32])).collect();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        assert_eq!(Subset::Percent(5.0).choose(packs(), &[0; 32]).len(), 50);
        assert_eq!(Subset::Bytes(95).choose(packs(), &[0; 32]).len(), 10);
        assert_ne!(Subset::Bytes(95).choose(packs(), &[0; 32]), Subset::Bytes(95).choose(packs(), &[1; 32]));
    }

    #[test]
    fn only_what_is_a_part_is_read_as_one() {
        assert_eq!(Subset::parse("2/7").unwrap(), Subset::Part(2, 7));
        assert_eq!(Subset::parse("2.5%").unwrap(), Subset::Percent(2.5));
        assert_eq!(Subset::parse("1024").unwrap(), Subset::Bytes(1024));
        for wrong in ["", "8/7", "0/7", "0%", "101%", "x", "-5%", "NaN%"] {
            assert_eq!(Subset::parse(wrong).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
    }
}
