//! A stratified sample of the entries of a snapshot. Every combination of source, size and age that occurs
//! gets its share, one entry at least as long as the sample is large enough. Which entries it has depends on
//! the seed and the snapshot alone, and whether one is in it is decided by looking at that one: the sample
//! holds a number for each stratum and no paths.

use std::collections::{BTreeMap, BinaryHeap};

use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        entry::{Entry, EntryKind},
        snapshot::Snapshot,
    },
};

/// The largest sample: it is drawn in 8 bytes for each of its entries.
pub const ENTRIES_MAX: u64 = 4 << 20;
/// The first size of each class but the smallest, in bytes.
const SIZES: [u64; 5] = [1, 4 << 10, 64 << 10, 1 << 20, 16 << 20];
/// The first age of each class but the youngest, in seconds: a day, a week, 30 days, a year.
const AGES: [i64; 4] = [86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400];
/// Sources that are told apart.
const SOURCES_MAX: usize = 16;

/// How large a sample is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleSize {
    /// So many entries.
    Entries(u64),
    /// So many percent of them.
    Percent(u8),
}

impl SampleSize {
    /// Reads `100` or `5%`.
    ///
    /// # Errors
    /// `Usage` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::Usage, format!("`{text}` is not the size of a sample"))
                .with_remedy("Give a number of files (100) or whole percent of them (5%)")
        };
        let size = match text.strip_suffix('%') {
            Some(percent) => Self::Percent(
                percent.trim().parse().ok().filter(|p| (1..=100).contains(p)).ok_or_else(wrong)?,
            ),
            None => {
                Self::Entries(text.parse().ok().filter(|n| (1..=ENTRIES_MAX).contains(n)).ok_or_else(wrong)?)
            }
        };
        Ok(size)
    }

    /// Of so many.
    fn of(self, entries: u64) -> u64 {
        let wanted = match self {
            Self::Entries(wanted) => wanted,
            Self::Percent(percent) => share_of(u64::from(percent), entries, 100) + 1,
        };
        wanted.min(entries).min(ENTRIES_MAX)
    }
}

impl std::fmt::Display for SampleSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entries(entries) => write!(f, "{entries}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Source, class of size, class of age.
type Stratum = (usize, usize, usize);

/// What decides where an entry belongs, and in which order those of one stratum are taken.
#[derive(Clone, Debug)]
struct Order {
    key: [u8; 32],
    sources: Vec<Vec<u8>>,
    time: Timestamp,
}

impl Order {
    fn stratum(&self, entry: &Entry) -> Stratum {
        let holds = |source: &Vec<u8>| {
            let rest = entry.path.strip_prefix(source.as_slice());
            rest.is_some_and(|rest| source.is_empty() || matches!(rest.first(), None | Some(b'/')))
        };
        let source = self.sources.iter().take(SOURCES_MAX - 1).position(holds).unwrap_or(SOURCES_MAX - 1);
        let metadata = &entry.metadata;
        let age = self.time.seconds.saturating_sub(metadata.mtime.seconds);
        let class_of_age = AGES.iter().filter(|first| age >= **first).count();
        (source, SIZES.iter().filter(|first| metadata.size >= **first).count(), class_of_age)
    }

    fn rank(&self, path: &[u8]) -> u64 {
        let mut bytes = [0; 8];
        blake3::Hasher::new_keyed(&self.key).update(path).finalize_xof().fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// `part * number / whole`, rounded down.
fn share_of(part: u64, number: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * u128::from(number) / u128::from(whole)).unwrap_or(u64::MAX)
}

/// Whether a sample can have it.
fn counts(entry: &Entry) -> bool {
    entry.metadata.kind != EntryKind::Directory && entry.error.is_none()
}

/// Draws a sample in two passes over the same entries: [`Self::count`] for all, then [`Self::rank`] for all.
#[derive(Debug)]
pub struct Draw {
    order: Order,
    counts: BTreeMap<Stratum, u64>,
    shares: BTreeMap<Stratum, usize>,
    lowest: BTreeMap<Stratum, BinaryHeap<u64>>,
}

impl Draw {
    /// Begins to draw from a snapshot.
    #[must_use]
    pub fn new(snapshot: &Snapshot, seed: u64) -> Self {
        let key = blake3::derive_key("lifeboat v1 drill sample", &seed.to_le_bytes());
        let without_slash = |source: &Vec<u8>| source.strip_prefix(b"/").unwrap_or(source).to_vec();
        let sources = snapshot.sources.iter().map(without_slash).collect();
        let order = Order { key, sources, time: snapshot.time };
        Self { order, counts: BTreeMap::new(), shares: BTreeMap::new(), lowest: BTreeMap::new() }
    }

    /// The first pass.
    pub fn count(&mut self, entry: &Entry) {
        if counts(entry) {
            *self.counts.entry(self.order.stratum(entry)).or_default() += 1;
        }
    }

    /// Shares the sample out, between the passes: one to each stratum, in an order that the seed shuffles,
    /// then the rest in proportion.
    pub fn share(&mut self, size: SampleSize) {
        let all: u64 = self.counts.values().sum();
        let wanted = size.of(all);
        let mut strata: Vec<(Stratum, u64)> = self.counts.iter().map(|(at, count)| (*at, *count)).collect();
        strata.sort_by_key(|(at, _)| self.order.rank(format!("{at:?}").as_bytes()));
        let mut shares: Vec<u64> = strata.iter().zip(0..).map(|(_, n)| u64::from(n < wanted)).collect();
        let left = wanted - shares.iter().sum::<u64>();
        let spare = all - strata.len() as u64;
        for ((_, count), share) in strata.iter().zip(&mut shares).filter(|_| left > 0) {
            *share += share_of(left, count - 1, spare);
        }
        // What rounding left over.
        let mut left = wanted - shares.iter().sum::<u64>();
        for ((_, count), share) in strata.iter().zip(&mut shares) {
            let more = left.min(1).min(count - *share);
            (*share, left) = (*share + more, left - more);
        }
        let as_number = |share: u64| usize::try_from(share).unwrap_or(usize::MAX);
        self.shares = strata.iter().zip(shares).map(|((at, _), share)| (*at, as_number(share))).collect();
    }

    /// The second pass.
    pub fn rank(&mut self, entry: &Entry) {
        if !counts(entry) {
            return;
        }
        let at = self.order.stratum(entry);
        let share = self.shares.get(&at).copied().unwrap_or(0);
        let rank = self.order.rank(&entry.path);
        let lowest = self.lowest.entry(at).or_default();
        if lowest.len() < share {
            lowest.push(rank);
        } else if lowest.peek().is_some_and(|highest| rank < *highest) {
            lowest.pop();
            lowest.push(rank);
        }
    }

    /// The sample.
    #[must_use]
    pub fn finish(self) -> Sample {
        let highest = self.lowest.iter().filter_map(|(at, lowest)| Some((*at, *lowest.peek()?)));
        Sample { highest: highest.collect(), order: self.order }
    }
}

/// A sample of the entries of a snapshot.
#[derive(Clone, Debug)]
pub struct Sample {
    order: Order,
    /// Of each stratum the highest rank that is in the sample.
    highest: BTreeMap<Stratum, u64>,
}

impl Sample {
    /// Whether it has this entry.
    #[must_use]
    pub fn takes(&self, entry: &Entry) -> bool {
        let highest = self.highest.get(&self.order.stratum(entry));
        counts(entry) && highest.is_some_and(|highest| self.order.rank(&entry.path) <= *highest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::entry::{Content, Metadata};

    fn entry(path: &str, size: u64, age: i64) -> Entry {
        let metadata = Metadata {
            size,
            mtime: Timestamp::from_seconds(-age),
            ..crate::filesystem::names::tests::metadata(EntryKind::File)
        };
        let content = Content::Inline(Vec::new());
        Entry { path: path.into(), metadata, content, changed_while_read: false, error: None }
    }

    fn draw(entries: &[Entry], size: SampleSize, seed: u64) -> Vec<usize> {
        let mut snapshot = Snapshot::empty();
        snapshot.sources = vec![b"/srv".to_vec(), b"/etc".to_vec()];
        let mut draw = Draw::new(&snapshot, seed);
        entries.iter().for_each(|entry| draw.count(entry));
        draw.share(size);
        entries.iter().for_each(|entry| draw.rank(entry));
        let sample = draw.finish();
        (0..entries.len()).filter(|at| sample.takes(&entries[*at])).collect()
    }

    #[test]
    fn small_and_large_old_and_new_and_every_source_are_covered() {
        let mut entries: Vec<Entry> =
            (0..10_000).map(|number| entry(&format!("srv/many/{number}"), 100, 5)).collect();
        let rare = [
            entry("etc/one", 100, 5),
            entry("srv/empty", 0, 5),
            entry("srv/big", 1 << 30, 5),
            entry("srv/old", 100, 400 * 86_400),
            entry("srv/week", 100, 8 * 86_400),
        ];
        entries.extend(rare);
        for seed in 0..20 {
            let taken = draw(&entries, SampleSize::Entries(10), seed);
            assert_eq!(taken.len(), 10);
            assert!((10_000..10_005).all(|at| taken.contains(&at)), "{taken:?}");
        }
        assert_eq!(draw(&entries, SampleSize::Entries(3), 1).len(), 3);
        assert_eq!(draw(&entries, SampleSize::Percent(1), 1).len(), 101);
        assert_eq!(draw(&entries, SampleSize::Percent(100), 1).len(), entries.len());
    }

    #[test]
    fn a_seed_draws_the_same_again_and_another_one_draws_others() {
        let entries: Vec<Entry> = (0..1000).map(|number| entry(&format!("srv/{number}"), 9, 5)).collect();
        let taken = |seed| draw(&entries, SampleSize::Entries(20), seed);
        assert_eq!(taken(1), taken(1));
        assert_ne!(taken(1), taken(2));
    }

    #[test]
    fn the_size_of_a_sample_is_a_number_or_percent() {
        assert_eq!(SampleSize::parse("100").unwrap(), SampleSize::Entries(100));
        assert_eq!(SampleSize::parse("5%").unwrap(), SampleSize::Percent(5));
        for wrong in ["", "0", "0%", "101%", "-1", "x", "99999999999"] {
            assert_eq!(SampleSize::parse(wrong).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_sample_is_as_large_as_was_asked(
            wanted in 1_u64..200,
            kinds in proptest::collection::vec((0_u64..1 << 26, 0_i64..800 * 86_400), 0..150),
        ) {
            let entries: Vec<Entry> = kinds.iter().enumerate().map(|(number, (size, age))| {
                entry(&format!("srv/{number}"), *size, *age)
            }).collect();
            let taken = draw(&entries, SampleSize::Entries(wanted), 7);
            prop_assert_eq!(taken.len() as u64, wanted.min(entries.len() as u64));
        }
    }
}
