//! `restore`: from a snapshot to files. Every byte is checked before it is written; a file that is not
//! whole is named as damaged and everything else is restored.

use std::{collections::HashMap, ops::Range, path::Path, sync::Arc};

use crate::{
    compress::Decompressor,
    crypto::ChunkIdKey,
    error::{Error, ErrorKind, Result},
    filesystem::{
        names::Ownership,
        restore::{NewFile, Target},
    },
    format::entry::{ChunkRef, Entry, EntryKind},
    id::DomainId,
    repository::{
        Repository,
        index::{Found, Location},
        manifest::{ManifestCursor, for_each_chunk},
        reader::{NodeReader, blob_range},
        snapshots::KnownSnapshot,
        view::View,
    },
};

/// What a restore did.
#[derive(Debug, Default)]
pub struct Restored {
    /// Files that are whole.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Entries that are not as they were, and why: damage, or what the backup could not read.
    pub failed: Vec<(Vec<u8>, Error)>,
    /// Metadata that could not be set.
    pub notes: Vec<(Vec<u8>, String)>,
}

/// Restores everything of a snapshot below `target`.
///
/// # Errors
/// The target cannot be written, the storage fails, or the role may not read.
pub fn run(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    target: &Path,
    ownership: &Ownership,
) -> Result<Restored> {
    let domain = snapshot.name.domain;
    let view = repository.view(&domain)?;
    let nodes = NodeReader::new(repository, domain, &view.index)?;
    let target = Target::create_or_open(target)?;
    let mut work = Work {
        chunks: Chunks {
            repository,
            domain,
            view: &view,
            key: repository.chunk_keys(&domain)?.id,
            decompressor: Decompressor::new()?,
            last: None,
        },
        nodes: &nodes,
        target: &target,
        ownership,
        links: HashMap::new(),
        done: Restored::default(),
    };
    let mut cursor = ManifestCursor::new(&nodes, snapshot.record.root);
    while let Some(entry) = cursor.next_entry()? {
        if let Err(error) = work.entry(&entry) {
            if !matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Incomplete) {
                return Err(error);
            }
            work.done.failed.push((entry.path, error));
        }
    }
    // Folders last: what is put into one changes its times, and may need rights that it takes away.
    let mut folders = Vec::new();
    let mut cursor = ManifestCursor::new(&nodes, snapshot.record.root);
    while let Some(entry) = cursor.next_entry()? {
        if entry.metadata.kind == EntryKind::Directory && entry.error.is_none() {
            folders.push(entry);
        }
    }
    for entry in folders.iter().rev() {
        let notes = target.set_directory_metadata(&entry.path, &entry.metadata, ownership)?;
        work.done.notes.extend(notes.into_iter().map(|note| (entry.path.clone(), note)));
    }
    target.sync()?;
    Ok(work.done)
}

/// A pack and frame number, and the plaintext of that frame.
type OpenFrame = ((u32, u32), Arc<Vec<u8>>);

/// Reads chunks; neighbours come from the frame that was opened last.
struct Chunks<'a> {
    repository: &'a Repository,
    domain: DomainId,
    view: &'a View,
    key: ChunkIdKey,
    decompressor: Decompressor,
    last: Option<OpenFrame>,
}

impl Chunks<'_> {
    fn frame(&mut self, at: Location) -> Result<Arc<Vec<u8>>> {
        if let Some((place, plain)) = &self.last
            && *place == at.frame()
        {
            return Ok(Arc::clone(plain));
        }
        let Found { pack, frame, section, .. } =
            self.view.index.found(at).ok_or_else(|| Error::damaged("the index", "no frame"))?;
        let range = u64::from(frame.offset)..u64::from(frame.offset) + u64::from(frame.length);
        let sealed =
            self.repository.store.read_range(&self.repository.pack_name(&self.domain, &pack), range)?;
        let plain = Arc::new(self.repository.open_frame(
            &self.domain,
            (&frame, &section),
            &sealed,
            &mut self.decompressor,
        )?);
        self.last = Some((at.frame(), Arc::clone(&plain)));
        Ok(plain)
    }

    /// The chunk, from the first copy that is good.
    fn read(&mut self, chunk: ChunkRef, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut failed = Error::damaged(format!("chunk {}", chunk.id), "no index lists it");
        for at in self.view.index.locations(&chunk.id) {
            let range = self.view.index.found(at).and_then(|found| blob_range(&found.frame, found.blob));
            match self.frame(at) {
                Ok(plain) => match range.and_then(|range| plain.get(range)) {
                    Some(bytes) if self.key.id(bytes) == chunk.id => return each(bytes),
                    _ => {
                        failed = Error::damaged(
                            format!("chunk {}", chunk.id),
                            "its content is not what its id names",
                        )
                    }
                },
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                    failed = error.with_kind(ErrorKind::Damaged);
                }
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }
}

struct Work<'a> {
    chunks: Chunks<'a>,
    nodes: &'a NodeReader<'a>,
    target: &'a Target,
    ownership: &'a Ownership,
    links: HashMap<(u64, u64), Vec<u8>>,
    done: Restored,
}

impl Work<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        if let Some(reason) = &entry.error {
            return Err(Error::new(ErrorKind::Incomplete, format!("the backup could not read it: {reason}")));
        }
        let metadata = &entry.metadata;
        let group = (metadata.device_key, metadata.inode);
        let linked = metadata.links > 1 && metadata.kind != EntryKind::Directory;
        if linked && let Some(first) = self.links.get(&group) {
            return self.target.hard_link(first, &entry.path);
        }
        let notes = match metadata.kind {
            EntryKind::Directory => self.target.directory(&entry.path).map(|_| Vec::new())?,
            EntryKind::File => self.file(entry)?,
            EntryKind::Symlink => self.target.symlink(&entry.path, metadata, self.ownership)?,
            EntryKind::Fifo | EntryKind::CharacterDevice | EntryKind::BlockDevice => {
                self.target.special(&entry.path, metadata, self.ownership)?
            }
            EntryKind::Socket => vec!["a socket is not restored: its program makes it anew".to_owned()],
        };
        if linked {
            self.links.insert(group, entry.path.clone());
        }
        self.done.notes.extend(notes.into_iter().map(|note| (entry.path.clone(), note)));
        Ok(())
    }

    fn file(&mut self, entry: &Entry) -> Result<Vec<String>> {
        let slash = entry.path.iter().rposition(|byte| *byte == b'/');
        let (folder, name) = match slash {
            Some(at) => (&entry.path[..at], &entry.path[at + 1..]),
            None => (&[][..], &entry.path[..]),
        };
        let dir = self.target.directory(folder)?;
        let file = self.target.new_file(&dir, name, entry.metadata.size)?;
        let bad = self.write(entry, &file)?;
        if bad.is_empty() {
            self.done.files += 1;
            self.done.bytes += entry.metadata.size;
            return file.finish(&entry.metadata, self.ownership);
        }
        let named = file.finish_damaged(&bad)?;
        let named = String::from_utf8_lossy(&named).into_owned();
        Err(Error::new(ErrorKind::Damaged, format!("it is damaged: what is good is in {named}")))
    }

    /// Writes what is good and gives the ranges that are not.
    fn write(&mut self, entry: &Entry, file: &NewFile) -> Result<Vec<Range<u64>>> {
        let (mut offset, mut bad) = (0, Vec::new());
        let (chunks, size) = (&mut self.chunks, entry.metadata.size);
        let listed = for_each_chunk(&entry.content, self.nodes, &mut |chunk| {
            match chunks.read(chunk, &mut |bytes| file.write_at(offset, bytes)) {
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    bad.push(offset..offset + u64::from(chunk.length))
                }
                other => other?,
            }
            offset += u64::from(chunk.length);
            Ok(())
        });
        match listed {
            Err(error) if error.kind() == ErrorKind::Damaged => bad.push(offset..size.max(offset + 1)),
            other => other?,
        }
        if offset != size && bad.is_empty() {
            bad.push(offset.min(size)..offset.max(size));
        }
        Ok(bad)
    }
}
