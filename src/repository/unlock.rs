//! From what a user has to the secrets of an identity.

use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::Repository;
use crate::{
    crypto::RootSecret,
    error::{Error, ErrorKind, Result},
    format::{
        config::Config,
        secrets::Secrets,
        slot::{AccessKey, Slot},
    },
    limits,
    store::{Name, Prefix, Store},
};

/// What a user has.
#[derive(ZeroizeOnDrop)]
pub enum Credential {
    /// A passphrase, and the slot to try it on, if one was named.
    Passphrase(Zeroizing<String>, #[zeroize(skip)] Option<String>),
    /// An access key in text form.
    AccessKey(Zeroizing<String>),
    /// The 24 recovery words.
    Words(Zeroizing<String>),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Passphrase(..) => "Passphrase(..)",
            Self::AccessKey(_) => "AccessKey(..)",
            Self::Words(_) => "Words(..)",
        })
    }
}

/// What a credential has opened.
pub(super) struct Unlocked {
    pub(super) secrets: Secrets,
    /// By a passphrase: the slot.
    pub(super) slot: Option<String>,
    /// It was the one whose name was known.
    pub(super) was_known: bool,
}

fn cannot(message: &str, remedy: &str) -> Error {
    Error::new(ErrorKind::CannotUnlock, message).with_remedy(remedy)
}

const SLOT_NAMES: &str = "Slots are the objects below `keys/` in the storage; whoever can still unlock it sees \
                          whose they are with `lifeboat key list --json`";

/// A slot that opens to nobody any more.
fn damaged_slot(error: Error, name: &str) -> Error {
    error.context(format!("keys/{name}")).with_kind(ErrorKind::CannotUnlock).with_remedy(
        "Put an older version of that object back if the storage has one. Else use another key, or the recovery \
         words: `lifeboat key recover` makes a new slot from them; an owner makes others with `lifeboat key add`",
    )
}

/// The names of all key slots.
pub(crate) fn slot_names(store: &Store) -> Result<Vec<String>> {
    let listed = store.list(&Prefix::slots())?;
    Ok(listed.iter().filter_map(|slot| Some(slot.name.strip_prefix("keys/")?.to_owned())).collect())
}

fn read_slot(store: &Store, name: &str) -> Result<Slot> {
    let bytes = store.read(&Name::slot(name), limits::RECORD_BYTES_MAX)?;
    let slot = Slot::decode(&bytes)?;
    if slot.name() == name {
        Ok(slot)
    } else {
        Err(Error::damaged("a key slot", "it is that of another name"))
    }
}

impl Repository {
    /// The secrets that a credential unlocks.
    ///
    /// # Errors
    /// `CannotUnlock` when it does not; storage trouble.
    pub fn unlock(store: &Store, config: &Config, credential: &Credential) -> Result<Secrets> {
        match credential {
            Credential::Words(words) => {
                let root = RootSecret::from_words(words)?;
                if root.repository_id() != config.repository_id {
                    return Err(cannot(
                        "these recovery words belong to another repository",
                        "Check the address of the repository, or take the words of this one",
                    ));
                }
                Ok(Secrets::owner(&root))
            }
            Credential::AccessKey(text) => {
                let access = AccessKey::parse(text)?;
                let gone = || {
                    cannot(
                        "the key slot of this access key is gone",
                        "It was revoked or replaced: ask the owner for a new one",
                    )
                };
                let slot = read_slot(store, &access.slot);
                let slot = slot.map_err(|e| match e.kind() {
                    ErrorKind::NotFound => gone(),
                    ErrorKind::Damaged => damaged_slot(e, &access.slot),
                    _ => e,
                })?;
                slot.open_access_key(&access)?.ok_or_else(|| {
                    cannot("the access key does not open its slot", "Ask the owner for a new one")
                })
            }
            Credential::Passphrase(passphrase, named) => {
                Ok(Self::unlock_passphrase((store, config), passphrase, (named.as_deref(), None))?.1)
            }
        }
    }

    /// As [`Self::unlock`]. A passphrase is tried first on the slot that one opened last on this machine, if `known` names
    /// it, which spares the list of slots. Whatever is the matter with it, others are tried then.
    pub(super) fn unlock_with(
        known: Option<&str>,
        (store, config): (&Store, &Config),
        credential: &Credential,
    ) -> Result<Unlocked> {
        let Credential::Passphrase(passphrase, None) = credential else {
            let secrets = Self::unlock(store, config, credential)?;
            let named = if let Credential::Passphrase(_, named) = credential { named.clone() } else { None };
            return Ok(Unlocked { secrets, slot: named, was_known: false });
        };
        let mut tried = None;
        if let Some(name) = known {
            let open = |slot: Slot| {
                if slot.takes_passphrase() { slot.open_passphrase(passphrase) } else { Ok(None) }
            };
            match read_slot(store, name).and_then(open) {
                Ok(Some(secrets)) if secrets.root_public_key() == config.root_public_key => {
                    return Ok(Unlocked { secrets, slot: Some(name.to_owned()), was_known: true });
                }
                Ok(Some(_)) => {}
                Ok(None) => tried = Some(name),
                // Who waited for the storage once need not do it again.
                Err(error) if matches!(error.kind(), ErrorKind::Temporary | ErrorKind::Interrupted) => {
                    return Err(error);
                }
                // What is the matter with it is told if it is in the way.
                Err(_) => {}
            }
        }
        let (name, secrets) = Self::unlock_passphrase((store, config), passphrase, (None, tried))?;
        Ok(Unlocked { secrets, slot: Some(name), was_known: false })
    }

    /// The name of the slot that the passphrase opens, and what is in it. One was `tried` before, and does not open.
    fn unlock_passphrase(
        (store, config): (&Store, &Config),
        passphrase: &str,
        (named, tried): (Option<&str>, Option<&str>),
    ) -> Result<(String, Secrets)> {
        let names: Vec<String> = match named {
            Some(name) => vec![name.to_owned()],
            None => slot_names(store)?.into_iter().filter(|name| Some(name.as_str()) != tried).collect(),
        };
        let (mut stretched, mut damaged, mut foreign) = (0, None, None);
        for (read, name) in names.iter().enumerate() {
            if read >= limits::SLOTS_READ_MAX {
                return Err(cannot(
                    &format!(
                        "the passphrase opens none of the first {} key slots, and there are more",
                        limits::SLOTS_READ_MAX
                    ),
                    &format!("Name its slot with --slot. {SLOT_NAMES}"),
                ));
            }
            let slot = match read_slot(store, name) {
                Ok(slot) if slot.takes_passphrase() => slot,
                Ok(_) if named.is_some() => {
                    return Err(cannot(
                        &format!("the key slot {name} takes an access key, not a passphrase"),
                        "Use --access-key-file, or name another slot: `lifeboat key list --json` shows them",
                    ));
                }
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::NotFound && named.is_some() => {
                    return Err(cannot(&format!("there is no key slot `{name}`"), SLOT_NAMES));
                }
                // Its owner has just changed the passphrase, and the new slot is in the list too.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    damaged = Some(damaged_slot(error, name));
                    continue;
                }
                Err(error) => return Err(error),
            };
            stretched += 1;
            if stretched > limits::SLOTS_TRIED_MAX {
                return Err(cannot(
                    "the passphrase opens none of the first 8 slots that take one",
                    &format!("Name its slot with --slot. {SLOT_NAMES}"),
                ));
            }
            match slot.open_passphrase(passphrase) {
                // What an `init` left behind may open with the same passphrase, and to nothing of this one.
                Ok(Some(secrets)) if secrets.root_public_key() == config.root_public_key => {
                    return Ok((name.clone(), secrets));
                }
                Ok(Some(secrets)) => foreign = Some((name.clone(), secrets)),
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    damaged = Some(damaged_slot(error, name));
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(foreign) = foreign {
            // Or `config` was replaced: whoever opens the repository with these says so.
            return Ok(foreign);
        }
        Err(match damaged {
            Some(error) => error,
            None if stretched == 0 && tried.is_none() => cannot(
                "the repository has no key slot that takes a passphrase",
                "Use an access key, or the recovery words with --recovery-words-file",
            ),
            None => cannot("the passphrase is wrong", "Type it again, or use the recovery words"),
        })
    }
}
