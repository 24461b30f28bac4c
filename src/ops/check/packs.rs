//! Reads whole packs and checks every byte: the name, the directory, each frame, each blob.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use super::subset::Subset;
use crate::{
    compress::Decompressor,
    crypto::{ChunkIdKey, NodeKey},
    error::{Error, ErrorKind, Result},
    format::{
        attestation::{AttestedSection, digest},
        pack::{Directory, Frame, PackKind, SectionHeader},
    },
    id::{BlobId, DomainId, PackId},
    limits, random,
    repository::{
        Repository,
        index::{Index, KnownPack, Standing},
    },
    store::on_each,
};

/// What reading packs found.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) packs: u64,
    pub(super) bytes: u64,
    /// Packs that were read.
    pub(super) read: HashSet<PackId>,
    /// The pack, what is wrong, and the blobs that are damaged in it.
    pub(super) damaged: Vec<(KnownPack, String, Vec<BlobId>)>,
    /// Sections of which every frame is good.
    pub(super) attested: Vec<AttestedSection>,
}

/// Checks packs of one domain.
pub(super) struct PackCheck<'a> {
    repository: &'a Repository,
    domain: &'a DomainId,
    index: &'a Index,
    keys: (ChunkIdKey, NodeKey),
}

impl<'a> PackCheck<'a> {
    pub(super) fn new(repository: &'a Repository, domain: &'a DomainId, index: &'a Index) -> Result<Self> {
        let chunks = repository.chunk_keys(domain)?.id;
        let keys = (chunks, repository.node_key(domain)?);
        Ok(Self { repository, domain, index, keys })
    }

    pub(super) fn run(&self, subset: Subset, workers: usize) -> Result<Outcome> {
        let mut seen: HashSet<PackId> = HashSet::new();
        let there = |pack: &KnownPack| pack.standing != Standing::Missing;
        let packs = self.index.packs().filter(there).filter(|pack| seen.insert(pack.id));
        let packs = packs.map(|pack| (pack.id, u64::from(pack.size), pack)).collect();
        let chosen = subset.choose(packs, &random::bytes()?);
        let progress = self.repository.store.progress();
        progress.expect(0, chosen.iter().map(|pack| u64::from(pack.size)).sum());
        let read = chosen.iter().map(|pack| pack.id).collect();
        let outcome = Mutex::new(Outcome { read, ..Outcome::default() });
        on_each(&chosen, workers, |pack| {
            progress.check()?;
            self.pack(pack, &mut Decompressor::new()?, &outcome)?;
            progress.add(0, u64::from(pack.size));
            Ok(())
        })?;
        Ok(outcome.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn pack(
        &self,
        pack: &KnownPack,
        decompressor: &mut Decompressor,
        outcome: &Mutex<Outcome>,
    ) -> Result<()> {
        let name = self.repository.pack_name(self.domain, pack);
        let listed = self.index.directory(pack).ok_or_else(|| Error::damaged(&name, "the index lost it"))?;
        let lock = || outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let all = || listed.frames.iter().flat_map(|frame| &frame.blobs).map(|blob| blob.id).collect();
        let damaged = |what: String, blobs: Vec<BlobId>| {
            self.repository.store.progress().trouble();
            lock().damaged.push((*pack, what, blobs));
        };
        // Of a pack that is damaged the bytes are needed all the same, to see what is left.
        let store = &self.repository.store;
        let read = match store.read_hashed(&name, limits::PACK_BYTES_MAX, pack.id.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                store.read(&name, limits::PACK_BYTES_MAX).map(|bytes| (bytes, true))
            }
            other => other.map(|bytes| (bytes, false)),
        };
        let (bytes, suspect) = match read {
            Ok(read) => read,
            Err(error) if error.is_damage() => {
                damaged(error.to_string(), all());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut whole = true;
        if suspect && blake3::hash(&bytes).as_bytes() != pack.id.as_bytes() {
            whole = false;
            damaged("its bytes are not those that its name stands for".to_owned(), Vec::new());
        }
        match self.repository.own_directory(self.domain, &bytes) {
            Ok(directory) if directory == listed => {}
            Ok(_) => {
                whole = false;
                damaged("its directory is not what the index says".to_owned(), Vec::new());
            }
            Err(error) if error.kind() == ErrorKind::Damaged => {
                whole = false;
                damaged(error.to_string(), Vec::new());
            }
            Err(error) => return Err(error),
        }
        for (number, frame) in listed.frames.iter().enumerate() {
            if let Err(error) = self.frame(&bytes, frame, &listed, decompressor) {
                if error.kind() != ErrorKind::Damaged {
                    return Err(error);
                }
                whole = false;
                damaged(format!("frame {number}: {error}"), frame.blobs.iter().map(|blob| blob.id).collect());
            }
        }
        let mut outcome = lock();
        outcome.packs += 1;
        outcome.bytes += bytes.len() as u64;
        if whole {
            for (number, section) in (0_u16..).zip(&listed.sections) {
                outcome.attested.push(AttestedSection { id: section.id(), digest: digest(&listed, number) });
            }
        }
        Ok(())
    }

    fn frame(
        &self,
        bytes: &[u8],
        frame: &Frame,
        listed: &Directory,
        decompressor: &mut Decompressor,
    ) -> Result<()> {
        let start = frame.offset as usize;
        let sealed = bytes.get(start..start + frame.length as usize);
        let sealed = sealed.ok_or_else(|| Error::damaged("a frame", "it is not in its pack"))?;
        let section: &SectionHeader = listed
            .sections
            .get(usize::from(frame.section))
            .ok_or_else(|| Error::damaged("a frame", "it has no section"))?;
        let plain = self.repository.open_frame(self.domain, (frame, section), sealed, decompressor)?;
        let mut rest = &plain[..];
        for blob in &frame.blobs {
            let (head, tail) = rest
                .split_at_checked(blob.length as usize)
                .ok_or_else(|| Error::damaged("a frame", "it is shorter than what it holds"))?;
            let id = match section.kind {
                PackKind::Data => self.keys.0.id(head),
                PackKind::Metadata => self.keys.1.id(head),
            };
            if id != blob.id {
                return Err(Error::damaged("a frame", "what it holds is not what its ids name"));
            }
            rest = tail;
        }
        Ok(())
    }
}
