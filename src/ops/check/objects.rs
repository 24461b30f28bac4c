//! Objects that are no packs, as the storage has them and not as the local cache remembers them: whether
//! each is what its name stands for. No key is needed.

use std::collections::VecDeque;

use super::Checked;
use crate::{
    error::{ErrorKind, Result},
    format::{config::Config, slot::Slot},
    id::DomainId,
    limits,
    store::{Folder, Listed, Name, Parsed, Prefix, Store},
};

/// So many are asked for before the first is waited for.
const ASKED_FOR: usize = 32;

/// What is read of a repository that is checked with its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// What snapshots need in order to be restored.
    Needed,
    /// Records of what was done, too: there may be many.
    All,
}

/// The objects of a repository that are no packs.
pub(super) fn list(store: &Store, domains: &[DomainId], which: Which) -> Result<Vec<(Name, u64)>> {
    let mut prefixes = vec![Prefix::slots(), Prefix::registry()];
    for domain in domains {
        prefixes.extend([Prefix::index(domain), Prefix::snapshots(domain)]);
        let folders = [Folder::Forgotten, Folder::Quarantine, Folder::Tombstones];
        prefixes.extend(folders.map(|folder| Prefix::records(domain, folder)));
        if which == Which::All {
            let folders = [Folder::Attestations, Folder::Annotations];
            prefixes.extend(folders.map(|folder| Prefix::records(domain, folder)));
            prefixes.push(Prefix::runs(domain));
        }
    }
    if which == Which::All {
        prefixes.push(Prefix::evidence());
    }
    let mut objects = Vec::new();
    objects.extend(store.head(&Name::config())?.map(|config| (Name::config(), config.size)));
    for prefix in prefixes {
        let known = |listed: Listed| Some((Name::parse(&listed.name)?, listed.size));
        objects.extend(store.list(&prefix)?.into_iter().filter_map(known));
    }
    Ok(objects)
}

/// Reads them all, and says which are damaged.
pub(super) fn compare(store: &Store, objects: Vec<(Name, u64)>, checked: &mut Checked) -> Result<()> {
    let downloads = store.downloads();
    let (mut objects, mut asked) = (objects.into_iter(), VecDeque::new());
    loop {
        while asked.len() < ASKED_FOR
            && let Some((name, size)) = objects.next()
        {
            if size > most(&name) as u64 {
                damaged(store, checked, &name, format!("{size} bytes are more than it may have"));
                continue;
            }
            let pending = downloads.read_range(name.clone(), 0..size);
            asked.push_back((name, pending));
        }
        let Some((name, pending)) = asked.pop_front() else { return Ok(()) };
        store.progress().check()?;
        match pending.wait() {
            Ok(bytes) => {
                store.progress().add(0, bytes.len() as u64);
                if let Err(why) = look(&name, &bytes) {
                    // A bit may have flipped on the way.
                    match store.read(&name, most(&name)) {
                        Ok(again) if look(&name, &again).is_ok() => {}
                        Ok(_) => damaged(store, checked, &name, why),
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            // Whoever may delete such an object did so since the list; what is missed is found elsewhere.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::Damaged => {
                damaged(store, checked, &name, error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
}

fn most(name: &Name) -> usize {
    match name.parsed() {
        Parsed::Index { .. } => limits::INDEX_BYTES_MAX,
        _ => limits::RECORD_BYTES_MAX,
    }
}

fn damaged(store: &Store, checked: &mut Checked, name: &Name, why: String) {
    checked.problem(name.as_str(), why);
    store.progress().trouble();
}

fn look(name: &Name, bytes: &[u8]) -> std::result::Result<(), String> {
    match name.parsed() {
        Parsed::Config => Config::decode(bytes).map(drop).map_err(|error| error.to_string()),
        Parsed::Slot(named) => match Slot::decode(bytes) {
            Ok(slot) if slot.name() != named => Err("it is that of another name".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
        _ if name.as_str().ends_with(blake3::hash(bytes).to_hex().as_str()) => Ok(()),
        _ => Err("its bytes are not those that its name stands for".to_owned()),
    }
}
