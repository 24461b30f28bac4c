//! Names of users and groups, each looked up once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
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
    users: Mutex<HashMap<String, Option<u32>>>,
    groups: Mutex<HashMap<String, Option<u32>>>,
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
                let uid = look_up(&self.users, &metadata.user, |name| {
                    uzers::get_user_by_name(name).map(|user| user.uid())
                });
                let gid = look_up(&self.groups, &metadata.group, |name| {
                    uzers::get_group_by_name(name).map(|group| group.gid())
                });
                Some((uid.unwrap_or(metadata.uid), gid.unwrap_or(metadata.gid)))
            }
        }
    }
}

fn look_up(
    known: &Mutex<HashMap<String, Option<u32>>>,
    name: &str,
    ask: impl Fn(&str) -> Option<u32>,
) -> Option<u32> {
    if name.is_empty() {
        return None;
    }
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(number) = known.get(name) {
        return *number;
    }
    let number = ask(name);
    known.insert(name.to_owned(), number);
    number
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
}
