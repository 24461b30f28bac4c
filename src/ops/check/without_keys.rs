//! What anybody can check who can read the storage: whether each object is what its name stands for.

use std::sync::{Mutex, PoisonError};

use super::{Checked, Subset, on_all};
use crate::{
    error::{ErrorKind, Result},
    format::{pack::Trailer, slot::Slot},
    id::PackId,
    limits,
    progress::Phase,
    repository::{Repository, random},
    store::{Name, Parsed, Prefix, Store},
};

/// Hashes every object whose name holds the hash of its bytes, of packs only the chosen ones; `config` and key
/// slots, whose names hold none, are looked at as far as that goes without a key.
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
    let (mut slots, mut registries) = (Vec::new(), 0_u64);
    for listed in store.list(&Prefix::all())? {
        match Name::parse(&listed.name).map(|name| (name.parsed(), name)) {
            Some((Parsed::Pack { id, .. }, name)) => packs.push((id, listed.size, (name, listed.size))),
            Some((Parsed::Config, _)) => {}
            Some((Parsed::Slot(slot), name)) => slots.push((slot, name)),
            Some((parsed, name)) => {
                registries += u64::from(matches!(parsed, Parsed::Registry { .. }));
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
    for (slot, name) in slots {
        look_at_slot(store, (&slot, &name), &mut checked)?;
    }
    checked.packs = packs.len() as u64;
    let chosen = subset.choose(packs, &random()?);
    progress.expect(0, chosen.iter().chain(&others).map(|(_, size)| size).sum());
    let objects = chosen.into_iter().chain(others).collect();
    let checked = Mutex::new(checked);
    on_all(objects, workers, &|(name, size)| {
        progress.check()?;
        let (bytes, wrong) = look(store, &name, size)?;
        let mut checked = checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(what) = wrong {
            checked.problem(name.as_str(), what);
            progress.trouble();
        }
        if let Some(bytes) = bytes {
            checked.packs_read += u64::from(matches!(name.parsed(), Parsed::Pack { .. }));
            checked.bytes_read += bytes;
            progress.add(0, bytes);
        }
        Ok(())
    })?;
    Ok(checked.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// How many bytes were read of an object, if it could be, and what is wrong with it.
fn look(store: &Store, name: &Name, size: u64) -> Result<(Option<u64>, Option<String>)> {
    let most = usize::try_from(size).unwrap_or(usize::MAX).min(limits::PACK_BYTES_MAX);
    let bytes = match store.read(name, most) {
        Ok(bytes) => bytes,
        Err(error) if error.is_damage() => return Ok((None, Some(error.to_string()))),
        Err(error) => return Err(error),
    };
    let hash = PackId::new(*blake3::hash(&bytes).as_bytes()).to_string();
    let is_pack = matches!(name.parsed(), Parsed::Pack { .. });
    let wrong = if !name.as_str().ends_with(&hash) {
        Some("its bytes are not those that its name stands for")
    } else if is_pack && Trailer::decode(&bytes).is_err() {
        Some("it does not end as a pack does")
    } else {
        None
    };
    Ok((Some(bytes.len() as u64), wrong.map(str::to_owned)))
}

/// Whether a key slot is in the form of one, and in its place.
fn look_at_slot(store: &Store, (slot, name): (&str, &Name), checked: &mut Checked) -> Result<()> {
    let read = store.read(name, limits::RECORD_BYTES_MAX).and_then(|bytes| Slot::decode(&bytes));
    match read {
        Ok(read) if read.name() == slot => {}
        Ok(_) => {
            checked.problem(name.as_str(), "it is the slot of another name");
        }
        Err(error) if error.kind() == ErrorKind::Damaged => {
            checked.problem(name.as_str(), error.to_string());
        }
        // Removed meanwhile: its passphrase was changed.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
