//! The manifest of the backup before, merged with the walk in one pass: a file that has not changed keeps
//! its content without being read.

use super::OpenFile;
use crate::{
    clock::Timestamp,
    crypto::NodeKey,
    error::{ErrorKind, Result},
    format::{
        entry::{Content, Entry, EntryKind, Metadata},
        node::compare_paths,
        snapshot::Snapshot,
    },
    id::{BlobId, ObjectId},
    repository::{
        Repository,
        cache::{CachedNodes, NodeFile, ParentRecord},
        index::Index,
        manifest::{ManifestCursor, NodeSource},
        reader::NodeReader,
        view::View,
    },
};

/// A file that changed less than this before the parent began may have changed again unnoticed.
const SAFE_SECONDS: i64 = 2;

/// What of a parent is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// Files that have not changed are not read again.
    pub unchanged: bool,
    /// The time of the last change of the inode must be the same.
    pub compare_ctime: bool,
    /// The inode and its device must be the same.
    pub compare_inode: bool,
}

impl Default for Reuse {
    fn default() -> Self {
        Self { unchanged: true, compare_ctime: true, compare_inode: true }
    }
}

/// The backup before, if there is one.
pub(super) struct Parent {
    pub(super) snapshot: ObjectId,
    pub(super) root: BlobId,
    begun: Timestamp,
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Its nodes in the cache; without them they come from the repository.
    pub(super) cached: Option<(ParentRecord, NodeFile)>,
}

impl Parent {
    /// Finds the last backup of this identity, host and set of sources: in the cache; else, for a role that
    /// can read it, in the repository. Nothing that goes wrong here matters: then everything is read.
    pub(super) fn find(
        repository: &Repository,
        view: &View,
        group: &str,
        same: &dyn Fn(&Snapshot) -> bool,
    ) -> Option<Self> {
        let domain = repository.own_domain().ok()?;
        let key = repository.index_key(&domain).ok()?;
        if let Some((record, nodes)) = repository.cache.parent(group, &key) {
            let ParentRecord { snapshot, root, begun, files, bytes, .. } = record;
            return Some(Self { snapshot, root, begun, files, bytes, cached: Some((record, nodes)) });
        }
        if !repository.reads_metadata() {
            return None;
        }
        let names = repository.snapshot_names(&domain, Some(&repository.identity())).ok()?;
        for name in names.iter().rev() {
            let Ok(known) = repository.read_snapshot(name) else { continue };
            if same(&known.record) && view.index.contains(&known.record.root) {
                let Snapshot { root, begun, statistics, .. } = known.record;
                let (files, bytes) = (statistics.files, statistics.bytes);
                return Some(Self { snapshot: name.id, root, begun, files, bytes, cached: None });
            }
        }
        None
    }

    /// Where its nodes are.
    pub(super) fn nodes<'a>(
        &'a self,
        repository: &'a Repository,
        (view, key): (&'a View, &'a NodeKey),
    ) -> Result<Box<dyn NodeSource + 'a>> {
        Ok(match &self.cached {
            Some((_, file)) => Box::new(CachedNodes { file, key }),
            None => {
                let reader = NodeReader::new(repository, repository.own_domain()?, &view.index)?;
                Box::new(StoredNodes { reader, index: &view.index })
            }
        })
    }

    /// Its entries, to be merged with a walk.
    pub(super) fn entries<'a>(&self, nodes: &'a dyn NodeSource, reuse: Reuse) -> Entries<'a> {
        let cursor = ManifestCursor::new(nodes, self.root);
        Entries { cursor: Some(cursor), next: None, begun: self.begun, reuse, damage: None }
    }
}

/// Nodes from the repository. What is damaged there is not borrowed again: a backup that makes the same node
/// anew stores it anew.
struct StoredNodes<'a> {
    reader: NodeReader<'a>,
    index: &'a Index,
}

impl NodeSource for StoredNodes<'_> {
    fn plain(&self, id: &BlobId) -> Result<Vec<u8>> {
        self.reader.plain(id).inspect_err(|error| {
            if error.kind() == ErrorKind::Damaged {
                self.index.locations(id).into_iter().for_each(|at| self.index.distrust(at));
            }
        })
    }
}

/// A file of the parent that has not changed.
pub(super) struct Known {
    pub(super) content: Content,
    metadata: Metadata,
    /// Its attributes have not changed either.
    attributes: bool,
}

impl Known {
    /// Gives an entry what need not be read again.
    pub(super) fn lend(self, entry: &mut Entry, open: OpenFile) {
        let Self { content, metadata, attributes } = self;
        (entry.content, entry.metadata.holes) = (content, metadata.holes);
        if attributes {
            (entry.metadata.xattrs, entry.metadata.flags) = (metadata.xattrs, metadata.flags);
            return;
        }
        // Only where the change of an inode is ignored on request.
        match open() {
            Ok(file) => file.describe(&mut entry.metadata),
            Err(error) => entry.metadata.lacks = Some(format!("attributes ({error})")),
        }
    }
}

/// Entries of a parent, in path order.
pub(super) struct Entries<'a> {
    cursor: Option<ManifestCursor<'a>>,
    next: Option<Entry>,
    begun: Timestamp,
    reuse: Reuse,
    /// Why there is nothing more, if that is not the end.
    pub(super) damage: Option<String>,
}

impl Entries<'_> {
    /// What is known of a file, if its content has not changed since. Paths must come in order.
    pub(super) fn unchanged(&mut self, path: &[u8], metadata: &Metadata) -> Option<Known> {
        loop {
            if self.next.is_none() {
                match self.cursor.as_mut()?.next_entry() {
                    Ok(Some(entry)) => self.next = Some(entry),
                    Ok(None) => self.cursor = None,
                    Err(error) => {
                        self.cursor = None;
                        self.damage = Some(format!(
                            "the manifest of the backup before cannot be read ({error}): its files were read again"
                        ));
                    }
                }
            }
            let entry = self.next.take()?;
            match compare_paths(&entry.path, path) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => {
                    let unchanged = self.is_unchanged(&entry, metadata);
                    let attributes = self.has_same_attributes(&entry.metadata, metadata);
                    let Entry { content, metadata, .. } = entry;
                    return unchanged.then_some(Known { content, metadata, attributes });
                }
                std::cmp::Ordering::Greater => {
                    self.next = Some(entry);
                    return None;
                }
            }
        }
    }

    /// Whether its attributes and flags cannot have changed: the system sets ctime with each of them, and nobody can
    /// set it back.
    fn has_same_attributes(&self, then: &Metadata, now: &Metadata) -> bool {
        then.ctime == now.ctime && now.ctime.seconds + SAFE_SECONDS < self.begun.seconds
    }

    fn is_unchanged(&self, entry: &Entry, now: &Metadata) -> bool {
        let then = &entry.metadata;
        let old = |time: Timestamp| time.seconds + SAFE_SECONDS < self.begun.seconds;
        self.reuse.unchanged
            && entry.error.is_none()
            && then.lacks.is_none()
            && !entry.changed_while_read
            && then.kind == EntryKind::File
            && now.kind == EntryKind::File
            && then.size == now.size
            && then.mtime == now.mtime
            && old(now.mtime)
            && (!self.reuse.compare_ctime || then.ctime == now.ctime && old(now.ctime))
            && (!self.reuse.compare_inode || then.inode == now.inode && then.device_key == now.device_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(inode: u64, mtime: i64, ctime: i64) -> Metadata {
        Metadata {
            mode: 0o644,
            mtime: Timestamp::from_seconds(mtime),
            ctime: Timestamp::from_seconds(ctime),
            inode,
            device_key: 1,
            size: 5,
            ..Metadata::of(EntryKind::File)
        }
    }

    #[test]
    fn a_file_is_taken_for_unchanged_only_when_nothing_speaks_against_it() {
        let entry = |metadata| Entry {
            path: b"a".to_vec(),
            metadata,
            content: Content::Inline(Vec::new()),
            changed_while_read: false,
            error: None,
        };
        let then = file(1, 100, 100);
        let unchanged = |entry: &Entry, now: &Metadata, begun, reuse| {
            let begun = Timestamp::from_seconds(begun);
            Entries { cursor: None, next: None, begun, reuse, damage: None }.is_unchanged(entry, now)
        };
        let all = Reuse::default();
        assert!(unchanged(&entry(then.clone()), &then, 103, all));
        assert!(!unchanged(&entry(then.clone()), &then, 102, all), "too young to be sure");
        for (now, why) in [
            (file(2, 100, 100), "inode"),
            (file(1, 101, 100), "mtime"),
            (file(1, 100, 101), "ctime"),
            (Metadata { size: 6, ..then.clone() }, "size"),
            (Metadata { device_key: 2, ..then.clone() }, "device"),
            (Metadata { kind: EntryKind::Symlink, ..then.clone() }, "kind"),
        ] {
            assert!(!unchanged(&entry(then.clone()), &now, 200, all), "{why}");
        }
        let unread = Entry { error: Some("no".to_owned()), ..entry(then.clone()) };
        assert!(!unchanged(&unread, &then, 200, all));
        let torn = Entry { changed_while_read: true, ..entry(then.clone()) };
        assert!(!unchanged(&torn, &then, 200, all));
        assert!(!unchanged(&entry(then.clone()), &then, 200, Reuse { unchanged: false, ..all }));
        let lacking = Metadata { lacks: Some("user.a".to_owned()), ..then.clone() };
        assert!(!unchanged(&entry(lacking), &then, 200, all));
        let same = |now: &Metadata, begun| {
            let begun = Timestamp::from_seconds(begun);
            let reuse = Reuse { compare_ctime: false, ..all };
            Entries { cursor: None, next: None, begun, reuse, damage: None }.has_same_attributes(&then, now)
        };
        assert!(same(&then, 103) && !same(&then, 102) && !same(&file(1, 100, 101), 200));
        let lax = Reuse { compare_ctime: false, compare_inode: false, ..all };
        assert!(unchanged(&entry(then), &file(2, 100, 150), 103, lax));
    }
}
