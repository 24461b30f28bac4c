//! Files and folders as a source of a backup.

use std::{os::fd::AsFd, path::PathBuf};

use super::{Item, Source};
use crate::{
    clock::Timestamp,
    error::Result,
    filesystem::{
        read,
        walk::{Filter, FilterOptions, Found, Walk, Walked},
    },
    format::entry::{Content, Entry, EntryKind, Metadata},
};

/// Absolute paths, and what to leave out below them.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The paths, as [`crate::filesystem::walk::resolve_source`] gives them.
    pub sources: Vec<PathBuf>,
    /// What to leave out.
    pub filter: FilterOptions,
}

impl Source for Tree {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let walk = Walk::new(&self.sources, Filter::new(self.filter.clone())?);
        Ok(Box::new(walk.map(|walked| Ok(item(walked)))))
    }
}

fn item(walked: Walked) -> Item {
    let found = match walked {
        Walked::Entry(found) => found,
        Walked::Error(error) => return Item::Entry(unknown(error.path, error.error)),
    };
    let Found { path, metadata, dir, name, error } = *found;
    let is_file = metadata.kind == EntryKind::File;
    let content = Content::Inline(Vec::new());
    let entry = Entry { path, metadata, content, changed_while_read: false, error };
    if !is_file || entry.error.is_some() {
        return Item::Entry(entry);
    }
    let seen = entry.metadata.clone();
    Item::File(
        entry,
        Box::new(move || {
            let file = read::open_file(dir.as_fd(), &name, &seen)?;
            Ok(Box::new(file))
        }),
    )
}

/// An entry of which only the name and the trouble are known.
fn unknown(path: Vec<u8>, error: String) -> Entry {
    let metadata = Metadata {
        kind: EntryKind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        user: String::new(),
        group: String::new(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        btime: None,
        inode: 0,
        device_key: 0,
        links: 1,
        size: 0,
        link_target: Vec::new(),
        device_number: 0,
        xattrs: Vec::new(),
        flags: 0,
    };
    let content = Content::Inline(Vec::new());
    Entry { path, metadata, content, changed_while_read: false, error: Some(error) }
}
