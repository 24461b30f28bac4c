//! The journal of a backup: packs that were given to the store and that no index object lists yet, in the
//! local cache. A run that is interrupted leaves it; the next one looks which of them have arrived and
//! lists them, so that nothing is uploaded twice. Like everything in the cache it is never needed and
//! never believed without its MAC.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use super::{
    Repository,
    cache::{Cache, claim},
};
use crate::{
    crypto::IndexKey,
    format::pack::{IndexedPack, decode_index, encode_index},
    id::DomainId,
    limits,
};

/// Bytes of the MAC and the length before each pack.
const HEAD_BYTES: usize = 32 + 4;
/// Most bytes of a journal that are read: an index object is written before there are more.
const JOURNAL_BYTES_MAX: u64 = limits::INDEX_BYTES_MAX as u64;

/// The journal of a run that is at work. It goes when the run ends well.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Notes a pack. One that cannot be noted may be uploaded twice, no more.
    pub fn add(&mut self, key: &IndexKey, domain: &DomainId, pack: &IndexedPack) {
        let plain = encode_index(std::slice::from_ref(pack));
        let Ok(length) = u32::try_from(plain.len()) else { return };
        let mac = key.cache_mac(&[domain.as_bytes(), &plain[..]].concat());
        drop(self.file.write_all(&[&mac[..], &length.to_le_bytes(), &plain].concat()));
    }

    /// An index object lists them all now.
    pub fn clear(&mut self) {
        drop(self.file.set_len(0));
    }

    /// Nothing in it is needed any more.
    pub fn end(self) {
        drop(fs::remove_file(&self.path));
    }
}

/// A journal that a run has left which ended before its time.
#[derive(Debug)]
pub struct LeftJournal {
    /// Packs that no index listed when that run ended.
    pub packs: Vec<IndexedPack>,
    path: PathBuf,
    /// Keeps others away from it.
    _file: File,
}

impl LeftJournal {
    /// What had arrived is listed now.
    pub fn end(self) {
        drop(fs::remove_file(&self.path));
    }
}

fn prefix(domain: &DomainId) -> String {
    format!("journal-{domain}.")
}

impl Cache {
    /// Begins a journal; `None` without a cache.
    #[must_use]
    pub fn begin_journal(&self, domain: &DomainId, nonce: u64) -> Option<Journal> {
        let path = self.folder()?.join(format!("{}{nonce}", prefix(domain)));
        // Appending, so that what is written after `clear` begins at the start again.
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path).ok()?;
        claim(&file);
        Some(Journal { path, file })
    }

    /// The journals of runs that have ended. Each stays claimed until it is dropped.
    #[must_use]
    pub fn left_journals(&self, domain: &DomainId, key: &IndexKey) -> Vec<LeftJournal> {
        let (Some(folder), prefix) = (self.folder(), prefix(domain)) else { return Vec::new() };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        let left = ours.filter_map(|entry| {
            let path = entry.path();
            let file = File::open(&path).ok().filter(claim)?;
            let mut bytes = Vec::new();
            (&file).take(JOURNAL_BYTES_MAX).read_to_end(&mut bytes).ok()?;
            Some(LeftJournal { packs: decode(&bytes, key, domain), path, _file: file })
        });
        left.collect()
    }
}

/// As far as it is intact: the last pack may be cut off.
fn decode(mut bytes: &[u8], key: &IndexKey, domain: &DomainId) -> Vec<IndexedPack> {
    let mut packs = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) {
        let (mac, length) = head.split_at(32);
        let length = length.try_into().map_or(usize::MAX, |length| u32::from_le_bytes(length) as usize);
        let Some((plain, rest)) = rest.split_at_checked(length) else { break };
        if key.cache_mac(&[domain.as_bytes(), plain].concat()) != mac {
            break;
        }
        let Ok(pack) = decode_index(plain) else { break };
        packs.extend(pack);
        bytes = rest;
    }
    packs
}

impl Repository {
    /// Lists the packs of runs that ended before their time, as far as they are among `unindexed`, which a
    /// LIST has shown. Says whether there were any: then a fresh view knows them.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn adopt(
        &self,
        domain: &DomainId,
        unindexed: &[(crate::id::PackId, u64)],
    ) -> crate::error::Result<bool> {
        let mut adopted = false;
        for mut left in self.cache.left_journals(domain, &self.index_key(domain)?) {
            left.packs.retain(|pack| unindexed.contains(&(pack.id, u64::from(pack.size))));
            if !left.packs.is_empty() {
                self.publish_index(domain, &left.packs)?;
                adopted = true;
            }
            left.end();
        }
        Ok(adopted)
    }
}
