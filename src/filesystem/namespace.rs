//! What a user namespace hides: an owner that it has no number for is shown as nobody, as every other one of these is.

use std::{fs, sync::OnceLock};

use crate::format::entry::Metadata;

/// Where the system keeps the number that stands for users without one, and what it is where that cannot be read.
const NOBODY: (&str, &str, u32) = ("/proc/sys/kernel/overflowuid", "/proc/sys/kernel/overflowgid", 65_534);
/// A namespace that has a number for everybody maps so many: all but the last, which stands for none.
const EVERYBODY: u64 = u32::MAX as u64;

/// The numbers behind which a user namespace hides the users and groups that it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HiddenOwners {
    user: Option<u32>,
    group: Option<u32>,
}

impl HiddenOwners {
    /// Those of this process: none in the namespace that the machine began with, and none where the system does not tell.
    #[must_use]
    pub fn of_this_process() -> Self {
        // A process with several threads keeps its namespace.
        static KNOWN: OnceLock<HiddenOwners> = OnceLock::new();
        *KNOWN.get_or_init(Self::look)
    }

    fn look() -> Self {
        let (user, group, default) = NOBODY;
        let nobody = |map: &Map, number: &str| {
            let number = || fs::read_to_string(number).ok()?.trim().parse().ok();
            (!map.is_whole()).then(|| number().unwrap_or(default))
        };
        let (users, groups) = maps();
        Self { user: nobody(users, user), group: nobody(groups, group) }
    }

    /// Whether these numbers of a user and a group may stand for one that is hidden.
    #[must_use]
    pub fn stand_for(&self, (user, group): (u32, u32)) -> (bool, bool) {
        (self.user == Some(user), self.group == Some(group))
    }

    /// What is to be said of an entry whose owner is hidden. One that is really nobody's looks the same.
    #[must_use]
    pub fn hides(&self, metadata: &Metadata) -> Option<String> {
        let what = match self.stand_for((metadata.uid, metadata.gid)) {
            (false, false) => return None,
            (true, false) => "its owner has",
            (false, true) => "its group has",
            (true, true) => "its owner and its group have",
        };
        Some(format!("{what} no number in this user namespace, which shows nobody"))
    }
}

/// The numbers that a user namespace has: the first of a range, and how many.
struct Map(Vec<(u64, u64)>);

impl Map {
    /// From lines of the first inside, the first outside, and how many.
    fn of(text: &str) -> Self {
        let range = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let first = numbers.next()?.ok()?;
            Some((first, numbers.nth(1)?.ok()?))
        };
        Self(text.lines().filter_map(range).collect())
    }

    /// Of this process; where the system does not tell nobody is left out.
    fn read(file: &str) -> Self {
        fs::read_to_string(file).map_or_else(|_| Self(vec![(0, EVERYBODY)]), |text| Self::of(&text))
    }

    /// Whether it leaves nobody out.
    fn is_whole(&self) -> bool {
        self.0.iter().map(|(_, count)| count).sum::<u64>() >= EVERYBODY
    }

    fn has(&self, number: u32) -> bool {
        let is_in = |(first, count): &(u64, u64)| {
            u64::from(number).checked_sub(*first).is_some_and(|beyond| beyond < *count)
        };
        self.0.iter().any(is_in)
    }
}

/// Those of the users and of the groups of this process, which keeps its namespace.
fn maps() -> &'static (Map, Map) {
    static KNOWN: OnceLock<(Map, Map)> = OnceLock::new();
    KNOWN.get_or_init(|| (Map::read("/proc/self/uid_map"), Map::read("/proc/self/gid_map")))
}

/// Whether the namespace of this process leaves nobody out. One that does is not that which the machine began with.
pub(super) fn is_whole() -> bool {
    let (users, groups) = maps();
    users.is_whole() && groups.is_whole()
}

/// Whether the namespace of this process has numbers for a user and a group that are called so in it.
pub(super) fn has_numbers((user, group): (u32, u32)) -> bool {
    let (users, groups) = maps();
    users.has(user) && groups.has(group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::EntryKind;

    #[test]
    fn only_a_namespace_that_leaves_somebody_out_hides() {
        let hides = |map: &str| !Map::of(map).is_whole();
        assert!(!hides("         0          0 4294967295\n"));
        assert!(!hides("0 0 1000\n1000 100000 4294966295\n"));
        assert!(hides("0 1000 1\n") && hides("0 1000 1\n1 100000 65536\n") && hides(""));
        let map = Map::of("0 1000 1\n5 100000 2\n");
        let known = (0..9).filter(|number| map.has(*number));
        assert_eq!(known.collect::<Vec<_>>(), [0, 5, 6]);
    }

    #[test]
    fn what_is_hidden_is_told_by_what_it_is() {
        let owned = |uid, gid| Metadata { uid, gid, ..Metadata::of(EntryKind::File) };
        let hidden = HiddenOwners { user: Some(65_534), group: Some(9) };
        assert_eq!(hidden.hides(&owned(0, 0)), None);
        assert!(hidden.hides(&owned(65_534, 0)).unwrap().starts_with("its owner has"));
        assert!(hidden.hides(&owned(0, 9)).unwrap().starts_with("its group has"));
        assert!(hidden.hides(&owned(65_534, 9)).unwrap().starts_with("its owner and"));
        assert_eq!(HiddenOwners::default().hides(&owned(65_534, 65_534)), None);
    }
}
