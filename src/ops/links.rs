//! Which entries are names of one file (hard links). Each name has the whole content in a manifest, so whoever restores
//! one of them needs no other.

use std::{collections::HashMap, hash::Hash};

use crate::{
    clock::Timestamp,
    format::entry::{ChunkRef, Content, Entry, EntryKind, Metadata},
    limits,
};

/// Names a group of hard links.
pub(super) type Group = [u8; 32];

/// A file, whatever it held when its names were looked at: its device and inode, and when it was born.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct File {
    inode: (u64, u64),
    born: Timestamp,
}

impl File {
    /// `None` where nobody can tell it from one that got its inode number later.
    const fn of(metadata: &Metadata) -> Option<Self> {
        let Metadata { kind: EntryKind::File, btime: Some(born), inode, device_key, .. } = *metadata else {
            return None;
        };
        Some(Self { inode: (device_key, inode), born })
    }
}

/// Which group of hard links an entry belongs to by what it is, if to any: sockets to none, since no restore makes them.
/// Members have the same content too: an inode number that was used again during a long backup is another file.
pub(super) fn group_of(entry: &Entry) -> Option<Group> {
    let Entry { path: _, metadata, content, changed_while_read: _, error: _ } = entry;
    let Metadata { kind, links, inode, device_key, size, mtime, link_target, device_number, .. } = metadata;
    let Metadata { holes, .. } = metadata;
    if *links < 2 || matches!(kind, EntryKind::Directory | EntryKind::Socket) {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    let words = [*inode, *device_key, *size, *device_number, u64::from(mtime.nanoseconds), *kind as u64];
    let words = words.into_iter().chain(holes.iter().flat_map(|hole| [hole.offset, hole.length]));
    for word in words {
        hasher.update(&word.to_le_bytes());
    }
    hasher.update(&mtime.seconds.to_le_bytes());
    match content {
        Content::Inline(chunks) => {
            for ChunkRef { id, length: _ } in chunks {
                hasher.update(id.as_bytes());
            }
        }
        Content::List { node, chunks: _, level: _ } => {
            hasher.update(node.as_bytes());
        }
    }
    Some(*hasher.update(link_target).finalize().as_bytes())
}

/// What is noted of the first name of a group, and how many more are to come.
#[derive(Debug)]
struct Open<T> {
    first: T,
    left: u64,
}

/// The first name of each group of hard links that was met and has more to come. Entries come in the order of the
/// manifest.
#[derive(Debug)]
pub(super) struct Links<T> {
    open: HashMap<Group, Open<T>>,
    files: HashMap<File, Group>,
}

impl<T> Default for Links<T> {
    fn default() -> Self {
        Self { open: HashMap::new(), files: HashMap::new() }
    }
}

impl<T: Clone> Links<T> {
    /// Which group an entry belongs to, if to any. One that the backup has marked since its file changed between two
    /// looks at it belongs to the first name, whatever that held.
    pub(super) fn group(&self, entry: &Entry) -> Option<Group> {
        let own = group_of(entry)?;
        let file = File::of(&entry.metadata).filter(|_| entry.changed_while_read);
        let first =
            file.and_then(|file| self.files.get(&file)).filter(|group| self.open.contains_key(*group));
        Some(first.copied().unwrap_or(own))
    }

    /// Whether an entry belongs to its group only for its mark: it holds something else than the first name.
    pub(super) fn is_by_mark(group: &Group, entry: &Entry) -> bool {
        group_of(entry).is_some_and(|own| own != *group)
    }

    /// Meets a name of a group: what was noted of its first name, if this is a further one. `first` is noted otherwise.
    pub(super) fn meet(&mut self, (group, entry): (Group, &Entry), first: impl FnOnce() -> T) -> Option<T> {
        let file = File::of(&entry.metadata);
        let Some(open) = self.open.get_mut(&group) else {
            self.open.insert(group, Open { first: first(), left: entry.metadata.links.saturating_sub(1) });
            self.files.extend(file.map(|file| (file, group)));
            return None;
        };
        let first = open.first.clone();
        open.left = open.left.saturating_sub(1);
        if open.left == 0 {
            self.open.remove(&group);
            if let Some(file) = file.filter(|file| self.files.get(file) == Some(&group)) {
                self.files.remove(&file);
            }
        }
        Some(first)
    }

    /// What is noted of the first name of a group of which more may come.
    pub(super) fn first(&self, group: &Group) -> Option<&T> {
        self.open.get(group).map(|open| &open.first)
    }

    /// Whether every name of the group was met, or none.
    pub(super) fn is_complete(&self, group: &Group) -> bool {
        !self.open.contains_key(group)
    }

    /// From now on this is noted of the first name.
    pub(super) fn lead(&mut self, group: &Group, first: T) {
        if let Some(open) = self.open.get_mut(group) {
            open.first = first;
        }
    }
}

/// How a further name differs from the first one of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// The file changed between the two looks at it.
    SameFile,
    /// So it did, or it is another file that got the inode number of the first one: the file system does not tell when
    /// files are born.
    Unknown,
}

/// Files with several names, as a backup stores them. Of those that have names outside of the sources not all are met, so
/// they would stay in memory: when there are as many as may be all are forgotten. Then a further name of one of these is
/// the first that is known, and nobody notices that it holds something else than the names before.
#[derive(Debug)]
pub(super) struct Watch {
    files: HashMap<(u64, u64), Watched>,
    most: usize,
}

impl Default for Watch {
    fn default() -> Self {
        Self { files: HashMap::new(), most: limits::WATCHED_FILES_MAX }
    }
}

#[derive(Debug)]
struct Watched {
    group: Group,
    born: Option<Timestamp>,
    left: u64,
}

impl Watch {
    /// Meets the next entry: whether it is a further name, and holds something else than the first one.
    pub(super) fn meet(&mut self, entry: &Entry) -> Option<Changed> {
        let Metadata { kind, links, inode, device_key, btime, .. } = entry.metadata;
        if kind != EntryKind::File || entry.error.is_some() {
            return None;
        }
        let (group, file) = (group_of(entry)?, (device_key, inode));
        match self.files.get_mut(&file).filter(|first| first.born == btime) {
            None => {
                if self.files.len() >= self.most {
                    self.files.clear();
                }
                self.files.insert(file, Watched { group, born: btime, left: links.saturating_sub(1) });
                None
            }
            Some(first) => {
                let changed = first.group != group;
                first.left = first.left.saturating_sub(1);
                if first.left == 0 {
                    self.files.remove(&file);
                }
                changed.then_some(if btime.is_some() { Changed::SameFile } else { Changed::Unknown })
            }
        }
    }
}

/// Files with several names in a tree that is there, as they are met: what the snapshot has as two may have become one. When
/// they fill their memory all are forgotten, and what is one with one of these is not noticed.
#[derive(Debug)]
pub(super) struct Met<K> {
    /// The name by which each was met first, and the group that the snapshot has it in.
    files: HashMap<K, (Vec<u8>, Option<Group>)>,
    /// Bytes of them.
    bytes: usize,
}

impl<K> Default for Met<K> {
    fn default() -> Self {
        Self { files: HashMap::new(), bytes: 0 }
    }
}

impl<K: Eq + Hash> Met<K> {
    /// Meets a file under one of its names, in this group in the snapshot: under which one it was met as another file of
    /// the snapshot.
    pub(super) fn meet(&mut self, file: K, path: &[u8], group: Option<Group>) -> Option<&[u8]> {
        if !self.files.contains_key(&file) {
            self.bytes += MET_BYTES + path.len();
            if self.bytes > limits::MET_BYTES_MAX {
                *self = Self { bytes: MET_BYTES + path.len(), ..Self::default() };
            }
        }
        let (first, of) = self.files.entry(file).or_insert_with(|| (path.to_vec(), group));
        let is_same = first == path || of.is_some() && *of == group;
        (!is_same).then_some(first)
    }
}

/// What one file takes beside its path, in bytes.
const MET_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BlobId;

    fn name(path: &str, content: u8, links: u64, born: Option<i64>) -> Entry {
        let metadata = Metadata {
            inode: 7,
            device_key: 1,
            size: 1,
            links,
            btime: born.map(Timestamp::from_seconds),
            ..Metadata::of(EntryKind::File)
        };
        let chunks = vec![ChunkRef { id: BlobId::new([content; 32]), length: 1 }];
        let content = Content::Inline(chunks);
        Entry { path: path.into(), metadata, content, changed_while_read: false, error: None }
    }

    fn marked(entry: Entry) -> Entry {
        Entry { changed_while_read: true, ..entry }
    }

    /// The first name that each entry is linked to.
    fn linked(entries: &[Entry]) -> Vec<Option<String>> {
        let mut links = Links::default();
        let text = |entry: &Entry| String::from_utf8(entry.path.clone()).unwrap();
        let mut meet = |entry: &Entry| links.meet((links.group(entry)?, entry), || text(entry));
        entries.iter().map(&mut meet).collect()
    }

    #[test]
    fn a_name_that_is_marked_belongs_to_the_first_one_of_its_file_whatever_that_held() {
        let to = |path: &str| Some(path.to_owned());
        let (a, b, c) = (name("a", 1, 3, Some(5)), name("b", 2, 3, Some(5)), name("c", 2, 3, Some(5)));
        assert_eq!(linked(&[a.clone(), b.clone(), c.clone()]), [None, None, to("b")]);
        assert_eq!(linked(&[a.clone(), marked(b.clone()), marked(c.clone())]), [None, to("a"), to("a")]);
        // Restored without the first one they are one file all the same.
        assert_eq!(linked(&[marked(b.clone()), marked(c)]), [None, to("b")]);
        // One that was born later only got its number; and where nobody tells, nobody knows.
        assert_eq!(linked(&[a, marked(name("b", 2, 2, Some(6)))]), [None, None]);
        assert_eq!(linked(&[name("a", 1, 2, None), marked(name("b", 2, 2, None))]), [None, None]);
        // All names were met.
        let two = [name("a", 1, 2, Some(5)), name("b", 1, 2, Some(5)), marked(b)];
        assert_eq!(linked(&two), [None, to("a"), None]);
    }

    #[test]
    fn a_file_that_changed_between_two_looks_is_noticed_and_another_one_with_its_number_is_not_taken_for_it()
    {
        let met = |entries: &[Entry]| {
            let mut watch = Watch::default();
            let met: Vec<_> = entries.iter().map(|entry| watch.meet(entry)).collect();
            (met, watch.files.len())
        };
        let (a, b) = (name("a", 1, 2, Some(5)), name("b", 2, 2, Some(5)));
        assert_eq!(met(&[a.clone(), b]), (vec![None, Some(Changed::SameFile)], 0));
        assert_eq!(met(&[a.clone(), name("b", 1, 2, Some(5))]), (vec![None, None], 0));
        assert_eq!(met(&[a, name("b", 2, 2, Some(6))]), (vec![None, None], 1));
        let unborn = [name("a", 1, 2, None), name("b", 2, 2, None)];
        assert_eq!(met(&unborn), (vec![None, Some(Changed::Unknown)], 0));
        assert_eq!(met(&[name("a", 1, 1, None), name("b", 2, 1, None)]), (vec![None, None], 0));
    }

    #[test]
    fn files_with_names_elsewhere_do_not_fill_the_memory() {
        let mut watch = Watch { most: 10, ..Watch::default() };
        let file = |inode, content| {
            let entry = name("a", content, 3, Some(5));
            Entry { metadata: Metadata { inode, ..entry.metadata }, ..entry }
        };
        for inode in 0..95 {
            assert_eq!(watch.meet(&file(inode, 1)), None);
            assert!(watch.files.len() <= 10);
        }
        // The last ones are still known.
        assert_eq!(watch.meet(&file(94, 2)), Some(Changed::SameFile));
        assert_eq!(watch.meet(&file(0, 2)), None);
    }

    #[test]
    fn what_was_two_files_and_is_one_is_met_as_the_other() {
        let mut met = Met::default();
        let mut meet = |file: u64, path: &str, group: Option<u8>| {
            met.meet(file, path.as_bytes(), group.map(|number| [number; 32])).map(<[u8]>::to_vec)
        };
        assert_eq!(meet(1, "a", Some(1)), None);
        assert_eq!(meet(1, "b", Some(1)), None, "they are one in the snapshot too");
        assert_eq!(meet(1, "c", Some(2)), Some(b"a".to_vec()));
        assert_eq!(meet(1, "d", None), Some(b"a".to_vec()));
        assert_eq!(meet(2, "e", None), None);
        assert_eq!(meet(2, "e", None), None, "looked at twice");
        let long = "p".repeat(1 << 16);
        (3..600).for_each(|file| assert_eq!(meet(file, &long, None), None));
        assert_eq!(meet(1, "d", None), None, "it was forgotten");
        assert!(met.bytes <= limits::MET_BYTES_MAX && met.files.len() < 600);
    }
}
