//! Another passphrase for the identity that is open.

use bytes::Bytes;

use super::check_passphrase;
use crate::{
    error::{Error, ErrorKind, Result},
    format::slot::{KdfParameters, Slot, identity_of},
    limits,
    repository::{Repository, unlock::slot_names},
    store::Name,
};

/// What a change of passphrase did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The new slot.
    pub slot: String,
    /// The slots that it replaced.
    pub removed: Vec<String>,
}

/// Makes a slot with the new passphrase, then removes the one that it replaces: `slot`, or every slot of
/// this identity that takes a passphrase. In this order, so that an interruption locks nobody out.
///
/// # Errors
/// `Usage` for a slot of somebody else; storage trouble, or no right to write slots.
pub fn passphrase(
    repository: &Repository,
    new: &str,
    slot: Option<&str>,
    kdf: KdfParameters,
) -> Result<Changed> {
    let me = repository.identity();
    let mut old = Vec::new();
    for name in slot_names(&repository.store)? {
        if identity_of(&name) != Some(me) {
            continue;
        }
        let replaced = match slot {
            Some(slot) => slot == name,
            None => match repository.store.read(&Name::slot(&name), limits::RECORD_BYTES_MAX) {
                Ok(bytes) => Slot::decode(&bytes).is_ok_and(|slot| slot.takes_passphrase()),
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            },
        };
        if replaced {
            old.push(name);
        }
    }
    if let (Some(slot), true) = (slot, old.is_empty()) {
        return Err(Error::new(ErrorKind::Usage, format!("this key has no slot `{slot}`"))
            .with_remedy("`lifeboat key list` shows the slots of each key"));
    }
    check_passphrase(new)?;
    let sealed = Slot::seal_passphrase(repository.secrets(), new, kdf)?;
    repository.store.create(&Name::slot(&sealed.name()), Bytes::from(sealed.encode()))?;
    // Where this one is remembered, the next command on this machine finds it at once.
    repository.cache.keep_slot(&sealed.name());
    for name in &old {
        repository.store.delete(&Name::slot(name))?;
    }
    Ok(Changed { slot: sealed.name(), removed: old })
}
