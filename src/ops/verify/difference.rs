//! How an entry differs from what a snapshot has of it, in words and for scripts.

use std::ops::Range;

use super::Owners;
use crate::{
    filesystem::attributes,
    format::entry::{EntryKind, FREEZING_FLAGS, Metadata, flag_names},
};

/// How an entry differs from what the snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is not there.
    Missing,
    /// It is there, and the snapshot does not have it; a folder with all that is in it.
    Extra(EntryKind),
    /// It is of another kind.
    Kind(EntryKind),
    /// It has so many bytes now.
    Size(u64),
    /// These bytes of it differ, of very many the first; where nobody knows which, none.
    Content(Vec<Range<u64>>),
    /// It has other holes now: whether its bytes are others cannot be told without reading it.
    Holes,
    /// The link points there now.
    LinkTarget(Vec<u8>),
    /// It has these permission bits now.
    Mode(u32),
    /// It belongs to these now.
    Owner(String),
    /// It is not the same file any more as the one with this path.
    NotLinked(Vec<u8>),
    /// It is one file with the one that has this path, and was not.
    Joined(Vec<u8>),
    /// It stands for another device now (major and minor number).
    Device(u64),
    /// These extended attributes are others, are missing or were added (an ACL that was added lets others in).
    Attributes(Vec<Vec<u8>>),
    /// It has these inode flags now.
    Flags(u32),
    /// Its time of modification is another.
    Modified,
    /// It could not be read.
    Unreadable(String),
}

impl Difference {
    /// One word for it, for scripts.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra(_) => "extra",
            Self::Kind(_) => "kind",
            Self::Size(_) => "size",
            Self::Content(_) => "content",
            Self::Holes => "holes",
            Self::LinkTarget(_) => "link_target",
            Self::Mode(_) => "mode",
            Self::Owner(_) => "owner",
            Self::NotLinked(_) | Self::Joined(_) => "hard_link",
            Self::Device(_) => "device",
            Self::Attributes(_) => "attributes",
            Self::Flags(_) => "flags",
            Self::Modified => "mtime",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl Difference {
    /// Bytes that it takes beside itself.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Content(ranges) => size_of_val(ranges.as_slice()),
            Self::LinkTarget(bytes) | Self::NotLinked(bytes) | Self::Joined(bytes) => bytes.len(),
            Self::Attributes(names) => names.iter().map(|name| name.len() + size_of_val(name)).sum(),
            Self::Owner(text) | Self::Unreadable(text) => text.len(),
            Self::Missing
            | Self::Extra(_)
            | Self::Kind(_)
            | Self::Size(_)
            | Self::Holes
            | Self::Mode(_)
            | Self::Device(_)
            | Self::Flags(_)
            | Self::Modified => 0,
        }
    }
}

/// What people call it.
const fn word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "folder",
        EntryKind::Symlink => "link",
        EntryKind::Fifo => "pipe",
        EntryKind::CharacterDevice => "character device",
        EntryKind::BlockDevice => "block device",
        EntryKind::Socket => "socket",
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("it is missing"),
            Self::Extra(kind) => write!(f, "the snapshot does not have this {}", word(*kind)),
            Self::Kind(kind) => write!(f, "it is a {} now", word(*kind)),
            Self::Size(size) => write!(f, "it has {size} bytes now"),
            Self::Content(ranges) if ranges.is_empty() => f.write_str("its content differs"),
            Self::Content(ranges) => {
                f.write_str("these bytes differ:")?;
                ranges
                    .iter()
                    .take(8)
                    .try_for_each(|range| write!(f, " {}-{}", range.start, range.end - 1))?;
                if ranges.len() > 8 { f.write_str(" ...") } else { Ok(()) }
            }
            Self::Holes => f.write_str("its holes are others now, and its bytes may be the same"),
            Self::LinkTarget(target) => {
                write!(f, "it points to {} now", String::from_utf8_lossy(target))
            }
            Self::Mode(mode) => write!(f, "its mode is {mode:04o} now"),
            Self::Owner(owner) => write!(f, "it belongs to {owner} now"),
            Self::NotLinked(path) => {
                write!(f, "it is no longer the same file as /{}", String::from_utf8_lossy(path))
            }
            Self::Joined(path) => {
                write!(
                    f,
                    "it is one file with /{} now, and two in the snapshot",
                    String::from_utf8_lossy(path)
                )
            }
            Self::Device(number) => {
                write!(f, "it is the device {}:{} now", number >> 32, number & u64::from(u32::MAX))
            }
            Self::Attributes(names) => {
                f.write_str("these attributes differ:")?;
                names.iter().try_for_each(|name| write!(f, " {}", String::from_utf8_lossy(name)))
            }
            Self::Flags(0) => f.write_str("it has no inode flags now"),
            Self::Flags(flags) => write!(f, "its inode flags are {} now", flag_names(*flags).join(", ")),
            Self::Modified => f.write_str("its time of modification is another"),
            Self::Unreadable(why) => write!(f, "it could not be read: {why}"),
        }
    }
}

/// How the metadata of two entries of one kind differ. What a restore cannot set (ctime, birth, inode, device
/// and the count of links) is left out; the groups of links are compared elsewhere.
pub(in crate::ops) fn metadata_differences(
    then: &Metadata,
    now: &Metadata,
    owners: Owners,
    leads_only: bool,
) -> Vec<Difference> {
    let Metadata { kind, mode, uid, gid, user, group, mtime, size, link_target, .. } = then;
    let Metadata { device_number, xattrs: _, flags, .. } = then;
    // Where a file has holes does not matter: its bytes are compared.
    let Metadata { ctime: _, btime: _, inode: _, device_key: _, links: _, holes: _, lacks, .. } = then;
    let mut differences = Vec::new();
    let mut unless = |same: bool, difference: &dyn Fn() -> Difference| {
        if !same {
            differences.push(difference());
        }
    };
    let by_name = |name: &str, other: &str, id: u32, other_id: u32| {
        if name.is_empty() || other.is_empty() { id == other_id } else { name == other }
    };
    let same_numbers = *uid == now.uid && *gid == now.gid;
    let same_owner = match owners {
        Owners::Ignore | Owners::NotRoot => true,
        Owners::Numbers => same_numbers,
        Owners::Compare => {
            by_name(user, &now.user, *uid, now.uid) && by_name(group, &now.group, *gid, now.gid)
        }
    };
    // As a restore does: a program that runs as its owner does not run as another one.
    let bits = if owners.are_ignored() && !same_numbers { 0o1777 } else { 0o7777 };
    unless(*size == now.size, &|| Difference::Size(now.size));
    unless(*link_target == now.link_target, &|| Difference::LinkTarget(now.link_target.clone()));
    unless(*device_number == now.device_number, &|| Difference::Device(now.device_number));
    unless(*kind == EntryKind::Symlink || mode & bits == now.mode & bits, &|| Difference::Mode(now.mode));
    unless(same_owner, &|| Difference::Owner(format!("{}:{}", now.uid, now.gid)));
    // What the backup did not have is not compared; what cannot be read now is not the same.
    let meant = !leads_only && lacks.is_none();
    let unread = now.lacks.as_ref().filter(|_| meant);
    let known = meant && unread.is_none();
    let others = other_attributes(then, now, owners);
    unless(!known || others.is_empty(), &|| Difference::Attributes(others.clone()));
    let bits = if owners == Owners::NotRoot { !ROOTS_FLAGS } else { u32::MAX };
    unless(!known || flags & bits == now.flags & bits, &|| Difference::Flags(now.flags));
    unless(leads_only || *mtime == now.mtime, &|| Difference::Modified);
    differences.extend(unread.cloned().map(Difference::Unreadable));
    differences
}

/// Flags that only root may set: immutable, append-only, and data in the journal.
const ROOTS_FLAGS: u32 = FREEZING_FLAGS | 0x4000;

/// The names of attributes that are not the same. One that the system has given itself does not matter.
fn other_attributes(then: &Metadata, now: &Metadata, owners: Owners) -> Vec<Vec<u8>> {
    let has = |of: &Metadata, name: &[u8]| of.xattrs.iter().any(|(known, _)| known == name);
    let meant = |name: &[u8]| {
        // As a restore by whoever is not root leaves them out.
        let roots = name.starts_with(b"security.") || name.starts_with(b"trusted.");
        // A program does not get its rights when it belongs to somebody else.
        let left_out =
            owners.are_ignored() && attributes::is_capability(name) && then.uid != now.uid && !has(now, name);
        !(left_out || roots && owners == Owners::NotRoot)
    };
    let missing = then.xattrs.iter().filter(|attribute| !now.xattrs.contains(attribute));
    let added = now.xattrs.iter().filter(|(name, _)| attributes::is_given(name) && !has(then, name));
    let names = missing.chain(added).map(|(name, _)| name).filter(|name| meant(name));
    names.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Timestamp, format::entry::Hole};

    type Change = fn(&mut Metadata);

    /// A file with something of everything.
    fn then() -> Metadata {
        Metadata {
            kind: EntryKind::File,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            user: "u".to_owned(),
            group: "g".to_owned(),
            mtime: Timestamp::from_seconds(3),
            ctime: Timestamp::from_seconds(4),
            btime: None,
            inode: 5,
            device_key: 6,
            links: 1,
            size: 7,
            link_target: b"t".to_vec(),
            device_number: 8,
            xattrs: vec![(b"user.a".to_vec(), b"1".to_vec())],
            flags: 0x50,
            holes: Vec::new(),
            lacks: None,
        }
    }

    /// How it differs after a change.
    fn found(change: Change, owners: Owners, leads_only: bool) -> Vec<Difference> {
        let (then, mut now) = (then(), then());
        change(&mut now);
        metadata_differences(&then, &now, owners, leads_only)
    }

    fn attributes(names: &[&str]) -> Difference {
        Difference::Attributes(names.iter().map(|name| name.as_bytes().to_vec()).collect())
    }

    #[test]
    fn every_kind_of_metadata_that_a_restore_sets_is_compared() {
        let changes: [(Change, Difference); 12] = [
            (|now| now.mode = 0o755, Difference::Mode(0o755)),
            (|now| (now.uid, now.user) = (9, "v".to_owned()), Difference::Owner("9:2".to_owned())),
            (|now| (now.gid, now.group) = (9, "h".to_owned()), Difference::Owner("1:9".to_owned())),
            (|now| now.mtime.nanoseconds = 1, Difference::Modified),
            (|now| now.size = 8, Difference::Size(8)),
            (|now| now.link_target = b"x".to_vec(), Difference::LinkTarget(b"x".to_vec())),
            (|now| now.device_number = 1 << 32 | 3, Difference::Device(1 << 32 | 3)),
            (|now| now.xattrs[0].1 = b"2".to_vec(), attributes(&["user.a"])),
            (|now| now.xattrs[0].0 = b"user.b".to_vec(), attributes(&["user.a", "user.b"])),
            (
                |now| now.xattrs.push((b"security.capability".to_vec(), Vec::new())),
                attributes(&["security.capability"]),
            ),
            (|now| now.flags = 0, Difference::Flags(0)),
            (|now| now.flags = 0x40, Difference::Flags(0x40)),
        ];
        for (change, difference) in changes {
            assert_eq!(found(change, Owners::Compare, false), [difference]);
        }
        let same: Change = |now| (now.inode, now.device_key, now.links) = (50, 60, 2);
        assert_eq!(found(same, Owners::Compare, false), []);
        // The number of a name may be another one on another machine.
        let other_number: Change = |now| now.uid = 9;
        assert_eq!(found(other_number, Owners::Compare, false), []);
        assert_eq!(found(other_number, Owners::Numbers, false), [Difference::Owner("9:2".to_owned())]);
        let other_name: Change = |now| now.user = "other".to_owned();
        assert_eq!(found(other_name, Owners::Numbers, false), []);
        // Without owners a setuid program loses that bit.
        let not_root: Change = |now| (now.uid, now.mode) = (9, 0o755);
        assert_eq!(found(not_root, Owners::Ignore, false), []);
        let by_the_system: Change = |now| now.xattrs.push((b"security.selinux".to_vec(), b"x".to_vec()));
        assert_eq!(found(by_the_system, Owners::Compare, false), []);
        let sparse: Change = |now| now.holes = vec![Hole { offset: 0, length: 7 }];
        assert_eq!(found(sparse, Owners::Compare, false), []);
        let later: Change = |now| now.mtime.seconds = 9;
        assert_eq!(found(later, Owners::Compare, true), []);
    }

    #[test]
    fn what_gives_a_program_rights_is_compared_without_owners_too() {
        let not_by_root: Change = |now| {
            now.flags = 0x40;
            now.xattrs.push((b"security.capability".to_vec(), Vec::new()));
        };
        assert_eq!(found(not_by_root, Owners::NotRoot, false), []);
        let capability = attributes(&["security.capability"]);
        assert_eq!(found(not_by_root, Owners::Ignore, false), [capability.clone(), Difference::Flags(0x40)]);
        // Of somebody else's program a restore leaves its capabilities out, and gives it none.
        let mut program = then();
        program.xattrs = vec![(b"security.capability".to_vec(), b"1".to_vec())];
        for (uid, value, owners, told) in [
            (1, None, Owners::Ignore, true),
            (9, None, Owners::Ignore, false),
            (9, Some(b"2"), Owners::Ignore, true),
            (9, None, Owners::Numbers, true),
            (1, None, Owners::NotRoot, false),
        ] {
            let mut now = Metadata { uid, ..program.clone() };
            now.xattrs =
                value.map(|value| (b"security.capability".to_vec(), value.to_vec())).into_iter().collect();
            let differences = metadata_differences(&program, &now, owners, false);
            assert_eq!(differences.contains(&capability), told, "{uid} {value:?} {owners:?}");
        }
    }

    #[test]
    fn attributes_that_cannot_be_read_are_told_and_those_that_the_backup_has_not_are_left_out() {
        let unread: Change = |now| (now.lacks, now.xattrs) = (Some("user.a (denied)".to_owned()), Vec::new());
        let unreadable = Difference::Unreadable("user.a (denied)".to_owned());
        assert_eq!(found(unread, Owners::Compare, false), [unreadable]);
        let lacking = Metadata { lacks: Some("user.a".to_owned()), ..then() };
        assert_eq!(metadata_differences(&lacking, &then(), Owners::Compare, false), []);
    }
}
