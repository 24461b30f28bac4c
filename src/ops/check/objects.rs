//! Objects as the storage has them and not as the local cache remembers them: whether each is what its name
//! stands for. That needs no key; with one it is also told which records their signers had no right to write.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use super::{Checked, Depth};
use crate::{
    error::{ErrorKind, Result},
    format::{
        envelope::{Envelope, RecordKind},
        pack::Trailer,
        slot::Slot,
    },
    id::DomainId,
    limits,
    repository::Repository,
    store::{Folder, Name, Parsed, Prefix, Store, on_each},
};

/// What came of looking at an object.
pub(super) enum Looked {
    Good(Bytes),
    Damaged(Option<Bytes>, String),
    /// It is gone since the list.
    Gone,
}

/// Reads an object and compares it with its name. What is wrong is asked for once more: a bit may have flipped
/// on the way.
pub(super) fn look(store: &Store, name: &Name, size: u64) -> Result<Looked> {
    let most = match name.parsed() {
        Parsed::Pack { .. } => limits::PACK_BYTES_MAX,
        Parsed::Index { .. } => limits::INDEX_BYTES_MAX,
        _ => limits::RECORD_BYTES_MAX,
    };
    if size > most as u64 {
        return Ok(Looked::Damaged(None, format!("{size} bytes are more than it may have")));
    }
    let once = || match store.read(name, most) {
        Ok(bytes) => Ok(match wrong(name, &bytes) {
            None => Looked::Good(bytes),
            Some(what) => Looked::Damaged(Some(bytes), what),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Looked::Gone),
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(Looked::Damaged(None, error.to_string())),
        Err(error) => Err(error),
    };
    match once()? {
        Looked::Damaged(..) => once(),
        looked => Ok(looked),
    }
}

fn wrong(name: &Name, bytes: &[u8]) -> Option<String> {
    let parsed = name.parsed();
    if let Parsed::Slot(named) = parsed {
        return match Slot::decode(bytes) {
            Ok(slot) if slot.name() == named => None,
            Ok(_) => Some("it is the slot of another name".to_owned()),
            Err(error) => Some(error.to_string()),
        };
    }
    if !name.as_str().ends_with(blake3::hash(bytes).to_hex().as_str()) {
        return Some("its bytes are not those that its name stands for".to_owned());
    }
    let is_pack = matches!(parsed, Parsed::Pack { .. });
    (is_pack && Trailer::decode(bytes).is_err()).then(|| "it does not end as a pack does".to_owned())
}

/// The objects of a repository but packs, `config`, which was read to open it, and what is set aside: that is
/// known to be damaged, and hurts nobody.
fn list(repository: &Repository, domains: &[DomainId], depth: Depth) -> Result<Vec<(Name, u64)>> {
    let store = &repository.store;
    let mut prefixes = vec![Prefix::slots(), Prefix::registry()];
    for domain in domains {
        prefixes.extend([Prefix::index(domain), Prefix::snapshots(domain)]);
        prefixes.extend(Folder::ALL.map(|folder| Prefix::records(domain, folder)));
    }
    // Two calls each.
    let at_once = (store.connections() / 2).max(1);
    let set_aside = on_each(domains, at_once, |domain| Ok(repository.records(domain)?.quarantined))?;
    let set_aside: HashSet<String> = set_aside.into_iter().flatten().collect();
    // There is one for each backup or drill: too many to be read every time.
    if matches!(depth, Depth::Data(_)) {
        prefixes.extend(domains.iter().map(Prefix::runs));
        prefixes.push(Prefix::evidence());
    }
    let objects = store.each(&prefixes, |prefix| {
        store.progress().check()?;
        let listed = store.list(prefix)?.into_iter();
        let listed = listed.filter(|listed| !set_aside.contains(&listed.name));
        Ok(listed.filter_map(|listed| Some((Name::parse(&listed.name)?, listed.size))).collect::<Vec<_>>())
    })?;
    Ok(objects.into_iter().flatten().collect())
}

/// Whoever has it open does not notice, and nobody else opens it.
pub(super) const NO_SLOT: &str =
    "no key slot is left: no passphrase and no access key opens this repository any more";

/// Looks at every object of a repository but packs.
pub(super) fn run(
    repository: &Repository,
    domains: &[DomainId],
    (depth, checked): (Depth, &mut Checked),
) -> Result<()> {
    let store = &repository.store;
    let objects = list(repository, domains, depth)?;
    if !objects.iter().any(|(name, _)| matches!(name.parsed(), Parsed::Slot(_))) {
        checked.problem("keys", NO_SLOT);
    }
    let checked = Mutex::new(checked);
    store
        .each(&objects, |(name, size)| {
            store.progress().check()?;
            let looked = look(store, name, *size)?;
            let mut checked = checked.lock().unwrap_or_else(PoisonError::into_inner);
            match looked {
                Looked::Good(bytes) => {
                    store.progress().add(0, bytes.len() as u64);
                    if let Some(why) = has_no_right(repository, name, &bytes) {
                        checked.note(format!("{name} does not count: {why}"));
                    }
                }
                Looked::Damaged(_, what) => {
                    checked.problem(name.as_str(), what);
                    store.progress().trouble();
                    if let Parsed::Index { domain, .. } = name.parsed() {
                        // What the cache remembers of it hid that nobody else can read it: the next backup is to see
                        // that, and what it needs is stored and listed again.
                        repository.segments.forget(&domain);
                    }
                }
                // Whoever may delete such an object did so; what is missed is found elsewhere.
                Looked::Gone => {}
            }
            Ok(())
        })
        .map(drop)
}

/// Why a record does not count that no view needs. Its bytes are those that were written: what is wrong with
/// them, their writer did. (Index objects, snapshots and the other records are judged where they are used.)
fn has_no_right(repository: &Repository, name: &Name, bytes: &[u8]) -> Option<String> {
    let (domain, kind) = match name.parsed() {
        Parsed::Run { domain, .. } => (domain, RecordKind::Run),
        Parsed::Record { domain, folder: Folder::Attestations, .. } => (domain, RecordKind::Attestation),
        Parsed::Record { domain, folder: Folder::Annotations, .. } => (domain, RecordKind::Annotation),
        Parsed::Record { domain, folder: Folder::Tombstones, .. } => (domain, RecordKind::Tombstones),
        _ => return None,
    };
    let envelope = Envelope::parse(bytes, kind, &repository.config.repository_id, &domain);
    let signed = envelope.and_then(|envelope| repository.verify_author(&envelope, &domain));
    signed.err().map(|error| error.to_string())
}
