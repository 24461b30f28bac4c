//! Files and folders as a source of a backup.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    path::PathBuf,
};

use super::{Item, ReadContent, Source};
use crate::{
    error::Result,
    filesystem::{
        attributes,
        holes::Sparse,
        read::{self, Seen, Space},
        walk::{Filter, FilterOptions, Found, Walk, Walked},
    },
    format::entry::{Content, Entry, EntryKind, Hole, Metadata},
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
        Ok(Box::new(walk.map(item)))
    }
}

/// A regular file as it was found.
struct OpenedFile {
    file: File,
    seen: Seen,
    /// How it is read if it takes less space than its size.
    sparse: Option<Sparse>,
}

impl Read for OpenedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.sparse {
            None => self.file.read(buffer),
            Some(sparse) => sparse.read(&self.file, buffer),
        }
    }
}

impl ReadContent for OpenedFile {
    fn describe(&self, metadata: &mut Metadata) {
        attributes::of_open(self.file.as_fd(), metadata);
    }

    fn holes(&mut self) -> Vec<Hole> {
        self.sparse.take().map(Sparse::into_holes).unwrap_or_default()
    }

    fn has_changed(&self) -> Result<bool> {
        read::has_changed(&self.file, &self.seen)
    }
}

fn item(walked: Walked) -> Result<Item> {
    let found = match walked {
        Walked::Entry(found) => found,
        Walked::Error(error) => return Ok(Item::Entry(unknown(error.path, error.error))),
        Walked::Failed(error) => return Err(error),
    };
    let Found { path, metadata, dir, device, name, error } = *found;
    let is_file = metadata.kind == EntryKind::File;
    let content = Content::Inline(Vec::new());
    let entry = Entry { path, metadata, content, changed_while_read: false, error };
    if !is_file || entry.error.is_some() {
        return Ok(Item::Entry(entry));
    }
    let seen = Seen::of(&entry.metadata, device);
    Ok(Item::File(
        entry,
        Box::new(move || {
            let (file, size, space) = read::open_with_size(dir.as_fd(), &name, &seen)?;
            let sparse = (space == Space::Less).then(|| Sparse::new(&file, size));
            Ok(Box::new(OpenedFile { file, seen, sparse }))
        }),
    ))
}

/// An entry of which only the name and the trouble are known.
fn unknown(path: Vec<u8>, error: String) -> Entry {
    let metadata = Metadata::of(EntryKind::File);
    let content = Content::Inline(Vec::new());
    Entry { path, metadata, content, changed_while_read: false, error: Some(error) }
}
