//! Reading blobs back. Every byte is checked: the frame against the hash in its directory, the
//! ciphertext by GCM, each blob against its keyed id.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use super::{
    Repository,
    index::{Found, Index, KnownPack, Location},
    manifest::NodeSource,
    section::check_ciphertext,
    view::View,
};
use crate::{
    compress::Decompressor,
    crypto::{NodeKey, OpenKey},
    error::{Error, ErrorKind, Result},
    format::pack::{Frame, PackKind, SectionHeader},
    id::{BlobId, DomainId, IdentityId, PackId},
    store::Name,
};

/// Bytes that are read ahead of a node: its neighbours are asked for next.
const READ_AHEAD_BYTES: u64 = 4 << 20;
/// Ranges of metadata packs that are kept.
const RANGES_KEPT: usize = 8;

impl Repository {
    /// Looks at a domain and reads with what it sees. The index is checked where it is asked, and in full when
    /// something was not found: then `read` begins again with an index that is whole.
    ///
    /// # Errors
    /// As [`Repository::view_to_read`]; what `read` says.
    pub fn reading<T>(&self, domain: &DomainId, read: &mut dyn FnMut(&View) -> Result<T>) -> Result<T> {
        let view = self.view_of_reader(domain)?;
        match read(&view) {
            Err(_) if view.index.met_damage() => read(&self.view_to_read(domain)?),
            other => other,
        }
    }

    /// The name of a pack.
    #[must_use]
    pub fn pack_name(&self, domain: &DomainId, pack: &KnownPack) -> Name {
        Name::pack(domain, pack.kind, &pack.id)
    }

    /// Every copy of a blob in the order of [`Index::copies`], or without an author of [`Index::locations`]; but what this
    /// key cannot open comes last, so that its lack ends nothing for which another copy is good.
    #[must_use]
    pub fn copies(&self, index: &Index, id: &BlobId, author: Option<IdentityId>) -> Vec<Location> {
        let mut copies = author.map_or_else(|| index.locations(id), |author| index.copies(id, author));
        if copies.len() > 1 {
            let is_sealed = |at: &Location| {
                index.section_of(*at).is_some_and(|section| self.section_key(&section).is_err())
            };
            copies.sort_by_cached_key(is_sealed);
        }
        copies
    }

    fn section_key(&self, section: &SectionHeader) -> Result<&OpenKey> {
        match section.kind {
            PackKind::Data => self.data_key(section.epoch),
            PackKind::Metadata => self.metadata_key(section.epoch),
        }
    }

    /// Opens a frame whose ciphertext was read: the plaintext of all its blobs, one after the other.
    ///
    /// # Errors
    /// `Damaged` when the bytes are not those that were sealed, `Forbidden` without the content key.
    pub fn open_frame(
        &self,
        domain: &DomainId,
        (frame, section): (&Frame, &SectionHeader),
        sealed: &[u8],
        decompressor: &mut Decompressor,
    ) -> Result<Vec<u8>> {
        check_ciphertext(frame, sealed)?;
        let section = self.sections.get(self.place(*domain), section, self.section_key(section)?)?;
        let stored = section.open_frame(frame.counter, sealed)?;
        decompressor.decompress(frame.codec, stored, frame.plain_length())
    }
}

/// Where a blob lies in the plaintext of its frame.
#[must_use]
pub fn blob_range(frame: &Frame, blob: u32) -> Option<Range<usize>> {
    let at = usize::try_from(blob).ok()?;
    let length = frame.blobs.get(at)?.length as usize;
    let start: usize = frame.blobs.get(..at)?.iter().map(|blob| blob.length as usize).sum();
    Some(start..start + length)
}

struct KeptRange {
    pack: PackId,
    start: u64,
    bytes: Bytes,
}

/// Reads the nodes of one domain from the repository.
pub struct NodeReader<'a> {
    repository: &'a Repository,
    domain: DomainId,
    index: &'a Index,
    key: NodeKey,
    /// Whose copies are tried first.
    reader: Option<IdentityId>,
    /// Bytes that are read ahead of a node.
    ahead: u64,
    kept: Mutex<(VecDeque<KeptRange>, Decompressor)>,
}

impl std::fmt::Debug for NodeReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeReader").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl<'a> NodeReader<'a> {
    /// # Errors
    /// `Forbidden` for a role that cannot check manifests; no memory for a decompressor.
    pub fn new(repository: &'a Repository, domain: DomainId, index: &'a Index) -> Result<Self> {
        let kept = Mutex::new((VecDeque::new(), Decompressor::new()?));
        Ok(Self {
            repository,
            domain,
            index,
            key: repository.node_key(&domain)?,
            reader: None,
            ahead: READ_AHEAD_BYTES,
            kept,
        })
    }

    /// From now on it reads for snapshots of `reader`.
    pub const fn serve(&mut self, reader: IdentityId) {
        self.reader = Some(reader);
    }

    /// From now on it reads no more than it is asked for.
    pub const fn read_nothing_ahead(&mut self) {
        self.ahead = 0;
    }

    fn read_at(&self, id: &BlobId, at: Location) -> Result<Vec<u8>> {
        let Found { pack, frame, section, blob } = self.index.found(at).ok_or_else(|| missing(id))?;
        if section.kind != PackKind::Metadata {
            return Err(Error::damaged(format!("manifest node {id}"), "the index says that it is data"));
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (ranges, decompressor) = &mut *kept;
        let Range { start, end } = frame.range();
        let covers = |range: &KeptRange| {
            range.pack == pack.id && range.start <= start && end <= range.start + range.bytes.len() as u64
        };
        if !ranges.iter().any(covers) {
            let stop = (start + self.ahead).max(end).min(u64::from(pack.size));
            let name = self.repository.pack_name(&self.domain, &pack);
            let bytes = match self.repository.store.read_range(&name, start..stop) {
                // Of a pack that was cut short only what lies ahead may be lost.
                Err(error) if error.kind() == ErrorKind::Damaged && end < stop => {
                    self.repository.store.read_range(&name, start..end)?
                }
                bytes => bytes?,
            };
            if ranges.len() >= RANGES_KEPT {
                ranges.pop_front();
            }
            ranges.push_back(KeptRange { pack: pack.id, start, bytes });
        }
        let range = ranges.iter().rev().find(|range| covers(range)).ok_or_else(|| missing(id))?;
        let from = usize::try_from(start - range.start).unwrap_or(usize::MAX);
        let sealed = range.bytes.slice(from..from + frame.length as usize);
        let opened = self.repository.open_frame(&self.domain, (&frame, &section), &sealed, decompressor);
        let plain = opened.map_err(|error| match error.kind() {
            ErrorKind::Damaged => error.context(self.repository.pack_name(&self.domain, &pack)),
            _ => error,
        })?;
        let wanted =
            blob_range(&frame, blob).and_then(|range| plain.get(range)).ok_or_else(|| missing(id))?;
        if self.key.id(wanted) != *id {
            return Err(Error::damaged(
                format!("manifest node {id}"),
                "its content is not what its id names",
            ));
        }
        Ok(wanted.to_vec())
    }
}

impl NodeSource for NodeReader<'_> {
    /// From the first copy that is good.
    fn plain(&self, id: &BlobId) -> Result<Vec<u8>> {
        let mut failed = missing(id);
        for at in self.repository.copies(self.index, id, self.reader) {
            let mut read = self.read_at(id, at);
            if read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Damaged) {
                // A bit may have flipped on the way: what is kept is not asked again.
                self.kept.lock().unwrap_or_else(PoisonError::into_inner).0.clear();
                read = self.read_at(id, at);
            }
            match read {
                Err(error) if error.is_damage() => failed = error,
                other => return other,
            }
        }
        self.index.vouch()?;
        Err(failed.with_kind(ErrorKind::Damaged))
    }
}

fn missing(id: &BlobId) -> Error {
    Error::damaged(format!("manifest node {id}"), "no index lists it")
}
