//! What this machine has seen of a repository: the newest registry, the heads of its own chains, and where those of
//! others ended when it read them. A store that shows an older world was rolled back, or hides a revocation. Kept in the local cache;
//! missing or unreadable it is no error, since a new machine has seen nothing either.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, ErrorKind, Result},
    filesystem::durable,
    id::{DomainId, IdentityId, ObjectId},
    limits,
    store::Name,
};

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    registry: u64,
    registry_ids: Vec<String>,
    /// `domain/identity` to the number and id of the head.
    heads: Chains,
}

/// Where the chains of others ended.
const CHAINS: &str = "chains";
/// The longest file about the chains of others: some 100,000 of them. Of more nothing is remembered.
const CHAINS_BYTES_MAX: usize = 16 << 20;

/// `domain/identity` to the number and id of the last snapshot that counted.
type Chains = BTreeMap<String, (u64, String)>;

/// What was seen, and where that is kept.
#[derive(Debug, Default)]
pub struct Memory {
    path: Option<PathBuf>,
    seen: Mutex<Seen>,
    /// In a file of its own, the file `chains` beside the other: it grows with the number of clients.
    chains: Mutex<Chains>,
}

fn older(what: &str) -> Error {
    let message = format!("the storage shows an older state than this machine has seen: {what}");
    Error::new(ErrorKind::Damaged, message).with_remedy(
        "If the storage was restored on purpose, delete the file `seen` in the cache of this repository or \
         use a new --cache-dir; otherwise somebody has removed objects, perhaps to hide a revoked key",
    )
}

impl Memory {
    /// What is kept in `folder`; without one nothing is remembered.
    #[must_use]
    pub fn open(folder: Option<&Path>) -> Self {
        let path = folder.map(|folder| folder.join("seen"));
        let read = |path: &PathBuf| -> Option<Seen> {
            let bytes = durable::read_own(path, limits::RECORD_BYTES_MAX)?;
            serde_json::from_slice(&bytes).ok()
        };
        let seen = path.as_ref().and_then(read).unwrap_or_default();
        // Before anything is listed: what another program on this machine sees meanwhile is no sign.
        let read = |path: &PathBuf| -> Option<Chains> {
            let bytes = durable::read_own(&path.with_file_name(CHAINS), CHAINS_BYTES_MAX)?;
            serde_json::from_slice(&bytes).ok()
        };
        let chains = path.as_ref().and_then(read).unwrap_or_default();
        Self { path, seen: Mutex::new(seen), chains: Mutex::new(chains) }
    }

    /// Where each chain ended when it was read last.
    #[must_use]
    pub fn last_of(&self, domain: &DomainId) -> Vec<(IdentityId, u64, ObjectId)> {
        let chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let below = format!("{domain}/");
        let here = chains.range(below.clone()..).take_while(|(key, _)| key.starts_with(&below));
        here.filter_map(|(key, (sequence, id))| {
            let identity = IdentityId::from_hex(key.strip_prefix(&below)?)?;
            Some((identity, *sequence, ObjectId::from_hex(id)?))
        })
        .collect()
    }

    /// Remembers where chains end. One that is shorter than it was keeps its end.
    pub fn saw_chains(&self, ends: impl Iterator<Item = (DomainId, IdentityId, u64, ObjectId)>) {
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = false;
        for (domain, identity, sequence, id) in ends {
            let known = chains.entry(format!("{domain}/{identity}")).or_default();
            if known.0 < sequence {
                (*known, is_new) = ((sequence, id.to_string()), true);
            }
        }
        if is_new && let (Some(path), Ok(bytes)) = (&self.path, serde_json::to_vec(&*chains)) {
            drop(durable::write_atomic(&path.with_file_name(CHAINS), &bytes, 0o600));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, seen: &Seen) {
        if let Some(path) = &self.path
            && let Ok(bytes) = serde_json::to_vec(seen)
        {
            // A full or read-only disk is no error: the next run remembers.
            drop(durable::write_atomic(path, &bytes, 0o600));
        }
    }

    /// Refuses a registry that is older than the one remembered, and remembers this one.
    ///
    /// # Errors
    /// `Damaged` when it is older, or is another one with the same number.
    pub fn check_registry(&self, number: u64, heads: &[ObjectId]) -> Result<()> {
        let mut seen = self.lock();
        let ids: Vec<String> = heads.iter().map(ToString::to_string).collect();
        if number < seen.registry {
            return Err(older(&format!("registry {number} instead of {}", seen.registry)));
        }
        // Owners may have added one of the same number since; none may go.
        if number == seen.registry && !seen.registry_ids.iter().all(|id| ids.contains(id)) {
            return Err(older(&format!("another registry with the number {number}")));
        }
        if number > seen.registry || ids.len() > seen.registry_ids.len() {
            (seen.registry, seen.registry_ids) = (number, ids);
            self.keep(&seen);
        }
        Ok(())
    }

    /// The head of a chain that was seen last.
    #[must_use]
    pub fn head(&self, domain: &DomainId, identity: &IdentityId) -> Option<(u64, ObjectId)> {
        let seen = self.lock();
        let (sequence, id) = seen.heads.get(&format!("{domain}/{identity}"))?;
        Some((*sequence, ObjectId::from_hex(id)?))
    }

    /// The error for a chain that lacks the head that was seen, by the number of the last snapshot that it has, the number
    /// of the one that was seen, and the name of that.
    #[must_use]
    pub fn older_head(sequence: u64, (seen, gone): (u64, &Name)) -> Error {
        let error = older(&match sequence.cmp(&seen) {
            Ordering::Less => {
                format!("the chain of this key ends at snapshot {sequence} instead of {seen}")
            }
            Ordering::Equal => format!("snapshot {seen} of this key is another one than it was"),
            Ordering::Greater => format!("snapshot {seen} of this key is gone"),
        });
        // What a prune then frees is lost for good, so what brings it back comes first.
        error.with_remedy(format!(
            "Put what is missing back from a copy or a version of the bucket, and look who deleted it. Let no prune run: \
             `lifeboat recover` with an owner's key makes snapshots of what lost ones held. After that \
             `lifeboat repair quarantine {gone} --force --apply`, with that key too, says that it is lost for good, and the chain goes on. \
             Only if the storage was set back on purpose, delete the file `seen` in the cache of this repository instead. What is there of a \
             mirror or a copy of last night can be read with `--no-cache`",
        ))
    }

    /// Remembers the head of a chain.
    pub fn saw_head(&self, domain: &DomainId, identity: &IdentityId, (sequence, id): (u64, ObjectId)) {
        let mut seen = self.lock();
        let head = (sequence, id.to_string());
        if seen.heads.insert(format!("{domain}/{identity}"), head.clone()) != Some(head) {
            self.keep(&seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_registry_is_refused_and_a_lost_memory_is_not_missed() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Memory::open(Some(folder.path()));
        let (a, b) = (ObjectId::new([1; 32]), ObjectId::new([2; 32]));
        open().check_registry(2, &[a]).unwrap();
        assert_eq!(open().check_registry(1, &[a]).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(open().check_registry(2, &[b]).unwrap_err().kind(), ErrorKind::Damaged);
        open().check_registry(2, &[a, b]).unwrap();
        assert!(open().check_registry(2, &[a]).is_err());
        open().check_registry(3, &[b]).unwrap();
        durable::write_atomic(&folder.path().join("seen"), b"{\"reg", 0o600).unwrap();
        open().check_registry(1, &[a]).unwrap();
        Memory::open(None).check_registry(1, &[a]).unwrap();
    }

    #[test]
    fn it_is_said_how_a_chain_differs_from_what_was_seen() {
        let name = |seen| {
            Name::snapshot(&DomainId::new([1; 8]), &IdentityId::new([2; 16]), seen, &ObjectId::new([3; 32]))
        };
        let said = |last, seen| Memory::older_head(last, (seen, &name(seen))).to_string();
        assert!(said(2, 3).contains("ends at snapshot 2 instead of 3"));
        assert!(said(3, 3).contains("snapshot 3 of this key is another one"));
        assert!(said(4, 3).contains("snapshot 3 of this key is gone"));
    }

    #[test]
    fn the_ends_of_the_chains_of_others_are_remembered_and_never_go_back() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (DomainId::new([1; 8]), DomainId::new([0x11; 8]));
        let (one, two) = (IdentityId::new([2; 16]), IdentityId::new([3; 16]));
        let id = |number| ObjectId::new([number; 32]);
        let open = || Memory::open(Some(folder.path()));
        open().saw_chains([(here, one, 7, id(7)), (here, two, 1, id(1)), (there, one, 3, id(3))].into_iter());
        open().saw_chains([(here, one, 6, id(6)), (here, two, 2, id(2))].into_iter());
        assert_eq!(open().last_of(&here), [(one, 7, id(7)), (two, 2, id(2))]);
        assert_eq!(open().last_of(&there), [(one, 3, id(3))]);
        assert!(Memory::open(None).last_of(&here).is_empty());
    }

    #[test]
    fn a_head_survives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let (domain, identity) = (DomainId::new([1; 8]), IdentityId::new([2; 16]));
        let head = (7, ObjectId::new([3; 32]));
        Memory::open(Some(folder.path())).saw_head(&domain, &identity, head);
        assert_eq!(Memory::open(Some(folder.path())).head(&domain, &identity), Some(head));
        assert_eq!(Memory::open(Some(folder.path())).head(&DomainId::new([9; 8]), &identity), None);
    }
}
