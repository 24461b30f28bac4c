//! Names of users and groups, each looked up once.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::format::entry::Metadata;

/// Looks up the names of numeric owners, and remembers them.
#[derive(Debug, Default)]
pub struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// The name of a user, empty if there is none.
    pub fn user(&mut self, uid: u32) -> String {
        let look_up = || {
            let user = uzers::get_user_by_uid(uid);
            user.and_then(|user| user.name().to_str().map(str::to_owned)).unwrap_or_default()
        };
        self.users.entry(uid).or_insert_with(look_up).clone()
    }

    /// The name of a group, empty if there is none.
    pub fn group(&mut self, gid: u32) -> String {
        let look_up = || {
            let group = uzers::get_group_by_gid(gid);
            group.and_then(|group| group.name().to_str().map(str::to_owned)).unwrap_or_default()
        };
        self.groups.entry(gid).or_insert_with(look_up).clone()
    }
}

/// How a restore decides who owns what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnershipPolicy {
    /// The user and group of that name on this machine; the number where there is no such name.
    ByName,
    /// The numbers as they were captured.
    Numeric,
    /// Whoever runs the restore.
    Keep,
}

/// Turns a captured owner into one of this machine, looking each name up once.
#[derive(Debug)]
pub struct Ownership {
    policy: OwnershipPolicy,
    users: Mutex<Numbers>,
    groups: Mutex<Numbers>,
}

/// The numbers of names that were looked up. A manifest may hold as many names as it likes, and long ones: when they fill
/// their memory all are forgotten, and asked for again.
#[derive(Debug, Default)]
struct Numbers {
    known: HashMap<String, Option<u32>>,
    /// Bytes of them.
    bytes: usize,
}

/// What the numbers of users take at most, and those of groups, in bytes.
const NUMBERS_BYTES_MAX: usize = 4 << 20;
/// What one takes beside its name.
const NUMBER_BYTES: usize = 64;

impl Numbers {
    fn of(&mut self, name: &str, ask: impl Fn(&str) -> Option<u32>) -> Option<u32> {
        if name.is_empty() {
            return None;
        }
        if let Some(number) = self.known.get(name) {
            return *number;
        }
        let bytes = name.len().saturating_add(NUMBER_BYTES);
        if self.bytes.saturating_add(bytes) > NUMBERS_BYTES_MAX {
            *self = Self::default();
        }
        self.bytes += bytes;
        let number = ask(name);
        self.known.insert(name.to_owned(), number);
        number
    }
}

impl Ownership {
    /// Owners by this policy.
    #[must_use]
    pub fn new(policy: OwnershipPolicy) -> Self {
        Self { policy, users: Mutex::default(), groups: Mutex::default() }
    }

    /// Who owns what.
    #[must_use]
    pub const fn policy(&self) -> OwnershipPolicy {
        self.policy
    }

    /// The numeric user and group to set; `None` to leave them alone.
    #[must_use]
    pub fn resolve(&self, metadata: &Metadata) -> Option<(u32, u32)> {
        match self.policy {
            OwnershipPolicy::Keep => None,
            OwnershipPolicy::Numeric => Some((metadata.uid, metadata.gid)),
            OwnershipPolicy::ByName => {
                let uid = numbers(&self.users)
                    .of(&metadata.user, |name| uzers::get_user_by_name(name).map(|user| user.uid()));
                let gid = numbers(&self.groups)
                    .of(&metadata.group, |name| uzers::get_group_by_name(name).map(|group| group.gid()));
                Some((uid.unwrap_or(metadata.uid), gid.unwrap_or(metadata.gid)))
            }
        }
    }
}

fn numbers(known: &Mutex<Numbers>) -> MutexGuard<'_, Numbers> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{clock::Timestamp, format::entry::EntryKind};

    /// Metadata of something that belongs to whoever runs the tests.
    pub(in super::super) fn metadata(kind: EntryKind) -> Metadata {
        Metadata {
            kind,
            mode: 0o640,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            user: String::new(),
            group: String::new(),
            mtime: Timestamp { seconds: 1_000_000_000, nanoseconds: 123_456_789 },
            ctime: Timestamp::default(),
            btime: None,
            inode: 1,
            device_key: 1,
            links: 1,
            size: 0,
            link_target: Vec::new(),
            device_number: 0,
            xattrs: Vec::new(),
            flags: 0,
            holes: Vec::new(),
            lacks: None,
        }
    }

    #[test]
    fn user_zero_is_root_and_an_unknown_user_has_no_name() {
        let mut names = Names::default();
        assert_eq!(names.user(0), "root");
        assert_eq!(names.user(0), "root");
        assert_eq!(names.user(3_999_999_999), "");
        assert_eq!(names.group(3_999_999_999), "");
    }

    #[test]
    fn an_owner_is_found_by_name_first_and_by_number_else() {
        let mut captured = metadata(EntryKind::File);
        (captured.uid, captured.gid) = (4242, 4343);
        captured.user = "root".into();
        captured.group = "no-such-group-here".into();
        assert_eq!(Ownership::new(OwnershipPolicy::ByName).resolve(&captured), Some((0, 4343)));
        assert_eq!(Ownership::new(OwnershipPolicy::Numeric).resolve(&captured), Some((4242, 4343)));
        assert_eq!(Ownership::new(OwnershipPolicy::Keep).resolve(&captured), None);
    }

    #[test]
    fn the_names_of_a_hostile_manifest_do_not_fill_the_memory() {
        let (mut numbers, asked) = (Numbers::default(), std::cell::Cell::new(0));
        let mut of = |name: &str| {
            let number = numbers.of(name, |_| {
                asked.set(asked.get() + 1);
                Some(7)
            });
            assert!(numbers.bytes <= NUMBERS_BYTES_MAX);
            (number, numbers.known.keys().map(String::len).sum::<usize>(), asked.get())
        };
        assert_eq!([of("known").2, of("known").2], [1, 1]);
        for number in 0..100 {
            let name = format!("{number}{}", "n".repeat(1_000_000));
            let (found, held, _) = of(&name);
            assert!(found == Some(7) && held <= NUMBERS_BYTES_MAX, "{held}");
        }
        assert_eq!([of("known").2, of("known").2], [102, 102], "it was forgotten, and is known again");
        for number in 0..200_000 {
            of(&number.to_string());
        }
        assert!(numbers.known.len() <= NUMBERS_BYTES_MAX / NUMBER_BYTES);
    }
}
