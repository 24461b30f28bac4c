//! What anybody can check who can read the storage: whether each object is what its name stands for, and
//! whether `config` and the key slots are written as they must be.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use super::{
    Checked, Subset,
    objects::{Looked, NO_SLOT, look},
};
use crate::{
    error::{ErrorKind, Result},
    progress::Phase,
    random,
    repository::Repository,
    store::{Name, Parsed, Prefix, Store, on_each},
};

/// Looks at every object; of packs only at the chosen ones.
///
/// # Errors
/// There is no repository; storage trouble. Damage is in the result.
pub fn run(store: &Store, subset: Subset, workers: usize) -> Result<Checked> {
    let progress = store.progress();
    progress.enter(Phase::Checking);
    let mut checked = Checked::default();
    match Repository::read_config(store) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::Damaged => {
            checked.problem("config", error.to_string());
        }
        Err(error) => return Err(error),
    }
    let (mut packs, mut others, mut foreign) = (Vec::new(), Vec::new(), 0_u64);
    let (mut registries, mut slots) = (0_u64, 0_u64);
    for listed in store.list(&Prefix::all())? {
        match Name::parse(&listed.name).map(|name| (name.parsed(), name)) {
            Some((Parsed::Pack { id, .. }, name)) => packs.push((id, listed.size, (name, listed.size))),
            Some((Parsed::Config, _)) => {}
            Some((parsed, name)) => {
                registries += u64::from(matches!(parsed, Parsed::Registry { .. }));
                slots += u64::from(matches!(parsed, Parsed::Slot(_)));
                others.push((name, listed.size));
            }
            None => foreign += 1,
        }
    }
    if foreign > 0 {
        checked.note(format!(
            "{foreign} objects have names that this program does not know; they stay as they are"
        ));
    }
    if registries == 0 {
        checked.problem("registry", "it is gone: `lifeboat key recover --rebuild-config` rebuilds it");
    }
    if slots == 0 {
        checked.problem("keys", NO_SLOT);
    }
    checked.packs = packs.len() as u64;
    let chosen = subset.choose(packs, &random::bytes()?);
    progress.expect(0, chosen.iter().chain(&others).map(|(_, size)| size).sum());
    let objects: Vec<_> = chosen.into_iter().chain(others).collect();
    let (checked, gone) = (Mutex::new(checked), Mutex::new(HashSet::new()));
    on_each(&objects, workers, |(name, size)| {
        progress.check()?;
        let (bytes, wrong) = match look(store, name, *size)? {
            Looked::Good(bytes) => (Some(bytes), None),
            Looked::Damaged(bytes, what) => (bytes, Some(what)),
            Looked::Gone => {
                gone.lock().unwrap_or_else(PoisonError::into_inner).insert(name.as_str().to_owned());
                (None, None)
            }
        };
        let mut checked = checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(what) = wrong {
            checked.problem(name.as_str(), what);
            progress.trouble();
        }
        if let Some(bytes) = bytes {
            checked.packs_read += u64::from(matches!(name.parsed(), Parsed::Pack { .. }));
            checked.bytes_read += bytes.len() as u64;
            progress.add(0, bytes.len() as u64);
        }
        Ok(())
    })?;
    let mut checked = checked.into_inner().unwrap_or_else(PoisonError::into_inner);
    let gone = gone.into_inner().unwrap_or_else(PoisonError::into_inner);
    tell_gone(store, &gone, &mut checked)?;
    Ok(checked)
}

/// What a prune or whoever may delete it has deleted since the list is no damage: without keys nobody can tell whether it was
/// needed. What is still in the list is.
fn tell_gone(store: &Store, gone: &HashSet<String>, checked: &mut Checked) -> Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut deleted = gone.len();
    for listed in store.list(&Prefix::all())?.iter().filter(|listed| gone.contains(&listed.name)) {
        checked.problem(&*listed.name, "it is in the list and cannot be read");
        store.progress().trouble();
        deleted -= 1;
    }
    if deleted > 0 {
        let objects = if deleted == 1 { "object was" } else { "objects were" };
        checked.note(format!(
            "{deleted} {objects} deleted while this check ran: a check with a key tells whether something is missing"
        ));
    }
    Ok(())
}
