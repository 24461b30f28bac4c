//! Of all versions of a key the one that counted at a time: the newest that is not younger, by the storage's clock. If
//! that is a delete marker the key was not there.

use super::page::Entry;
use crate::clock::Timestamp;

/// So many versions of one key are looked at. An attacker pays for each; a storage that sends more never ends.
pub(super) const VERSIONS_MAX: u64 = 1_000_000;

/// An object as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Was {
    pub(super) key: String,
    pub(super) version: String,
    pub(super) modified: Timestamp,
    pub(super) size: u64,
}

impl Was {
    fn of(Entry { key, version, modified, size, latest: _ }: Entry) -> Option<Self> {
        size.map(|size| Self { key, version, modified, size })
    }
}

/// Takes entries key by key, and holds those of one key at most.
pub(super) struct Choice {
    at: Timestamp,
    prefix: String,
    key: Option<String>,
    seen: u64,
    best: Option<Entry>,
}

impl Choice {
    pub(super) const fn new(at: Timestamp, prefix: String) -> Self {
        Self { at, prefix, key: None, seen: 0, best: None }
    }

    /// Takes the next entry, and gives what the key before it was.
    ///
    /// # Errors
    /// A storage that lists what was not asked for, or in another order, or without end.
    pub(super) fn take(&mut self, entry: Entry) -> Result<Option<Was>, String> {
        if !entry.key.starts_with(&self.prefix) {
            return Err("it lists versions of keys that were not asked for".to_owned());
        }
        let mut before = None;
        match self.key.as_deref().map(|key| key.cmp(&entry.key)) {
            Some(std::cmp::Ordering::Equal) => {}
            // What comes after it might be one of a key that was given away already.
            Some(std::cmp::Ordering::Greater) => {
                return Err("it lists versions in no order, so nobody can tell what was there".to_owned());
            }
            Some(std::cmp::Ordering::Less) | None => {
                before = self.end();
                (self.key, self.seen) = (Some(entry.key.clone()), 0);
            }
        }
        self.seen += 1;
        if self.seen > VERSIONS_MAX {
            return Err(format!("it has more than {VERSIONS_MAX} versions of one object"));
        }
        // Stamps have whole seconds: of one second the first counts, since the newest is listed first. Where markers
        // are listed apart, only the latest is sure to be one that counts.
        let newer = self
            .best
            .as_ref()
            .is_none_or(|best| (best.modified, best.latest) < (entry.modified, entry.latest));
        if entry.modified <= self.at && newer {
            self.best = Some(entry);
        }
        Ok(before)
    }

    /// What the last key was; `None` when it was not there.
    pub(super) fn end(&mut self) -> Option<Was> {
        self.best.take().and_then(Was::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, version: &str, seconds: i64, size: Option<u64>) -> Entry {
        let modified = Timestamp::from_seconds(seconds);
        let latest = version.ends_with('*');
        Entry { key: key.to_owned(), version: version.to_owned(), modified, size, latest }
    }

    fn chosen(at: i64, entries: &[(&str, &str, i64, Option<u64>)]) -> Result<Vec<String>, String> {
        let mut choice = Choice::new(Timestamp::from_seconds(at), "k".to_owned());
        let mut was = Vec::new();
        for (key, version, seconds, size) in entries {
            was.extend(choice.take(entry(key, version, *seconds, *size))?);
        }
        was.extend(choice.end());
        Ok(was.into_iter().map(|was| format!("{}@{}", was.key, was.version)).collect())
    }

    #[test]
    fn of_each_key_the_newest_version_that_is_not_younger_counts() {
        let versions = [
            // Overwritten twice.
            ("k1", "c", 30, Some(1)),
            ("k1", "b", 20, Some(1)),
            ("k1", "a", 10, Some(1)),
            // Deleted, made anew, deleted.
            ("k2", "d", 30, None),
            ("k2", "c", 25, Some(1)),
            ("k2", "b", 20, None),
            ("k2", "a", 10, Some(1)),
            // Came later.
            ("k3", "a", 30, Some(1)),
        ];
        let at = |time: i64| chosen(time, &versions).unwrap().join(" ");
        assert_eq!(at(9), "");
        assert_eq!(at(10), "k1@a k2@a");
        assert_eq!(at(19), "k1@a k2@a");
        assert_eq!(at(20), "k1@b");
        assert_eq!(at(29), "k1@b k2@c");
        assert_eq!(at(30), "k1@c k3@a");
    }

    #[test]
    fn of_two_versions_of_one_second_the_first_in_the_list_counts() {
        let deleted = [("k", "b", 10, None), ("k", "a", 10, Some(1))];
        assert!(chosen(10, &deleted).unwrap().is_empty());
        let replaced = [("k", "b", 10, Some(2)), ("k", "a", 10, Some(1))];
        assert_eq!(chosen(10, &replaced).unwrap(), ["k@b"]);
        let marker_apart = [("k", "a", 10, Some(1)), ("k", "b*", 10, None)];
        assert!(chosen(10, &marker_apart).unwrap().is_empty());
        let older_first = [("k", "a", 9, Some(1)), ("k", "b", 10, Some(2)), ("k", "c", 8, None)];
        assert_eq!(chosen(10, &older_first).unwrap(), ["k@b"]);
    }

    #[test]
    fn a_list_that_comes_back_to_a_key_or_strays_from_the_prefix_is_refused() {
        let back = [("k1", "b", 1, Some(1)), ("k2", "a", 1, Some(1)), ("k1", "a", 1, Some(1))];
        assert!(chosen(9, &back).unwrap_err().contains("no order"));
        assert!(chosen(9, &[("other", "a", 1, Some(1))]).unwrap_err().contains("not asked for"));
    }

    #[test]
    fn the_versions_of_one_key_end() {
        let mut choice = Choice::new(Timestamp::from_seconds(0), String::new());
        let mut take = || choice.take(entry("k", "a", 1, Some(1)));
        (0..VERSIONS_MAX).for_each(|_| assert_eq!(take(), Ok(None)));
        assert!(take().unwrap_err().contains("more than 1000000"));
    }
}
