//! The ledger of checks: which packs were read, when and by whom. Promise: a record states what was read in shelves,
//! of which a domain has 4096 whatever it holds, so no record grows with the number of packs.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::evidence::Head;
use crate::{
    error::{Error, Result},
    id::PackId,
};

/// The kind of a record that says what a check read.
pub const CHECK: &str = "check";
/// Shelves of a domain.
pub const SHELVES: u16 = 1 << 12;

/// The packs of a domain whose ids begin with the same three digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shelf(u16);

impl Shelf {
    /// Where a pack is.
    #[must_use]
    pub fn of(pack: &PackId) -> Self {
        let [first, second, ..] = *pack.as_bytes();
        Self(u16::from(first) << 4 | u16::from(second) >> 4)
    }

    /// From 0.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Every shelf, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHELVES).map(Self)
    }
}

impl fmt::Display for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03x}", self.0)
    }
}

/// Some shelves: ranges that ascend and do not touch, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shelves(Vec<(u16, u16)>);

impl Shelves {
    /// Those of which this is true.
    #[must_use]
    pub fn which(is: impl Fn(Shelf) -> bool) -> Self {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for Shelf(number) in Shelf::all().filter(|shelf| is(*shelf)) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        Self(ranges)
    }

    /// Reads `000-3ff,5a0`.
    ///
    /// # Errors
    /// `Damaged` for anything that [`fmt::Display`] does not write.
    pub fn parse(text: &str) -> Result<Self> {
        let damaged = || Error::damaged("the shelves of a report", "they are not ranges that ascend");
        let number = |digits: &str| {
            let exact = digits.len() == 3 && !digits.starts_with('+');
            u16::from_str_radix(digits, 16).ok().filter(|_| exact)
        };
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first).ok_or_else(damaged)?, number(last).ok_or_else(damaged)?);
            if last < first || ranges.last().is_some_and(|(_, before)| first <= *before + 1) {
                return Err(damaged());
            }
            ranges.push((first, last));
        }
        let shelves = Self(ranges);
        if shelves.to_string() == text { Ok(shelves) } else { Err(damaged()) }
    }

    /// The ranges, both ends included.
    #[must_use]
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }
}

impl fmt::Display for Shelves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first:03x}")?;
            } else {
                write!(f, "{comma}{first:03x}-{last:03x}")?;
            }
        }
        Ok(())
    }
}

/// How thoroughly packs were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    /// Every byte was read, and all together are those that the name of the pack stands for.
    #[default]
    Hashed,
    /// The same, and every chunk was opened and is what its id names.
    Decrypted,
}

impl Reading {
    /// As reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hashed => "hashed",
            Self::Decrypted => "decrypted",
        }
    }
}

/// The report of a check that read packs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// What every report says.
    #[serde(flatten)]
    pub head: Head,
    /// How thoroughly.
    pub reading: Reading,
    /// When it began, by the clock of the machine that read: RFC 3339.
    pub begun: String,
    /// How long ago that was when the report was written, by the machine's clock that no one can set.
    pub seconds: u64,
    /// Packs that were read.
    pub packs: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// What tells the storage in which it was read from others with the same objects. A record without it says nothing of
    /// any storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// What was read.
    pub domains: Vec<DomainRead>,
}

/// What was read of one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRead {
    /// The domain.
    pub domain: String,
    /// Every pack that was on these shelves was read: [`Shelves`] as text.
    pub shelves: String,
    /// The packs among them that are not good.
    pub damaged: Vec<String>,
}

impl CheckReport {
    /// Reads it.
    ///
    /// # Errors
    /// `Damaged` when it is not such a report.
    pub fn decode(payload: &str) -> Result<Self> {
        let report: Self = serde_json::from_str(payload)
            .map_err(|e| Error::damaged("a report", "it is not that of a check").with_source(e))?;
        if report.head.kind == CHECK && report.head.format == 1 {
            Ok(report)
        } else {
            Err(Error::damaged("a report", "it is not that of a check, in a form that this program knows"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_ranges_that_ascend_and_do_not_touch_are_shelves() {
        for good in ["", "000", "000-fff", "000-3ff,5a0", "001,003-004,fff"] {
            assert_eq!(Shelves::parse(good).unwrap().to_string(), good);
        }
        for wrong in [
            ",",
            "0",
            "1000",
            "00G",
            "+01",
            "005-004",
            "000,001",
            "000-005,003",
            "002,001",
            "003-003",
            "000 ",
            "FFF",
        ] {
            assert!(Shelves::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Shelf::of(&PackId::new([0xab; 32])).to_string(), "aba");
    }

    proptest! {
        #[test]
        fn shelves_come_back_as_they_were(numbers in proptest::collection::hash_set(0..SHELVES, 0..60)) {
            let shelves = Shelves::which(|shelf| numbers.contains(&shelf.number()));
            prop_assert_eq!(Shelves::parse(&shelves.to_string()).unwrap(), shelves.clone());
            let within = |number: u16| shelves.ranges().iter().any(|(a, b)| (*a..=*b).contains(&number));
            prop_assert!((0..SHELVES).all(|number| within(number) == numbers.contains(&number)));
        }

        #[test]
        fn the_decoder_of_check_reports_survives_anything(text in "\\PC{0,200}") {
            drop((CheckReport::decode(&text), Shelves::parse(&text)));
        }
    }
}
