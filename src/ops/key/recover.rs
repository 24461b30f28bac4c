//! A new owner slot from the recovery words alone, and what else of the repository's own objects is lost:
//! `config` and the registry.

use bytes::Bytes;

use super::{By, rebuild, seal};
use crate::{
    clock::Clock,
    crypto::RootSecret,
    error::{Error, ErrorKind, Result},
    format::{
        config::{Config, FORMAT},
        registry::{Registry, Use},
        secrets::Secrets,
    },
    id::IdentityId,
    limits,
    repository::{InitOptions, Repository, registry},
    store::{Name, Store},
};

/// Whether lost objects are written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// No: if `config` or the registry is lost, that is an error.
    Refuse,
    /// Yes.
    Rebuild,
}

/// What to recover with.
#[derive(Debug)]
pub struct RecoverOptions<'a> {
    /// The 24 words.
    pub words: &'a str,
    /// What will unlock the owner.
    pub unlock: By,
    /// What to do about a lost `config` or registry.
    pub lost: Lost,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It was there.
    Kept,
    /// It was written again.
    Rebuilt,
}

/// What was recovered.
#[derive(Debug)]
pub struct Recovered {
    /// The new slot of the owner.
    pub slot: String,
    /// Opens it, unless a passphrase does.
    pub access_key: Option<crate::format::slot::AccessKey>,
    /// `config`.
    pub config: Part,
    /// The registry.
    pub registry: Part,
    /// What could not be recovered, or was guessed: one sentence each.
    pub lost: Vec<String>,
}

/// Writes a new owner slot, and with [`Lost::Rebuild`] a lost `config` and registry.
///
/// # Errors
/// `CannotUnlock` for words of another repository, `Damaged` when `config` is lost and not to be rebuilt,
/// `NoRepository` when nothing is there at all; storage trouble.
pub fn recover(store: &Store, options: &RecoverOptions<'_>, clock: &dyn Clock) -> Result<Recovered> {
    let root = RootSecret::from_words(options.words)?;
    let secrets = Secrets::owner(&root);
    let config = read_config(store, &root, options.lost)?;
    // What the words give; the numbers are only read once the registry has said them.
    let InitOptions { commit_window_seconds, minimum_grace_seconds, .. } = InitOptions::default();
    let assumed = config.clone().unwrap_or_else(|| Config {
        format: FORMAT,
        repository_id: root.repository_id(),
        root_public_key: root.signing_key().verifying_key().to_bytes(),
        commit_window_seconds,
        minimum_grace_seconds,
    });
    let mut lost = Vec::new();
    let (found, highest, damaged) = registry::salvage(store, &assumed, &secrets)?;
    let whole = damaged.is_empty();
    let (registry, part) = match (found, options.lost) {
        (Some(found), Lost::Refuse) if whole => (found.registry, Part::Kept),
        (_, Lost::Refuse) => {
            let error = damaged.into_iter().next();
            return Err(error.unwrap_or_else(|| Error::damaged("the registry", "it is gone")).with_remedy(
                "`key recover --rebuild-config` rebuilds it as far as the other objects tell; first look for an \
                 older version of it in the storage",
            ));
        }
        (Some(mut found), Lost::Rebuild) => {
            let rebuilt = match rebuild::registry(store, &root, config.as_ref(), clock) {
                Ok(rebuilt) => Some(rebuilt),
                // No backup was made yet.
                Err(error) if error.kind() == ErrorKind::NoRepository => None,
                Err(error) => return Err(error),
            };
            let seen = rebuilt.as_ref().map_or(0, |rebuilt| rebuilt.seen);
            if whole && seen <= found.registry.number {
                (found.registry, Part::Kept)
            } else {
                lost.push(format!(
                    "the registry could not be read beyond number {}: keys that were added since then are \
                     there under new names if they wrote something, and whom it revoked is unknown; look at \
                     `key list`",
                    found.registry.number
                ));
                if let Some(rebuilt) = rebuilt {
                    lost.extend(rebuilt.unread);
                    supplement(&mut found.registry, rebuilt.registry);
                }
                found.registry.number = next(highest.max(seen))?;
                found.registry.previous = found.heads.first().copied();
                (found.registry, Part::Rebuilt)
            }
        }
        (None, Lost::Rebuild) => {
            let mut rebuilt = rebuild::registry(store, &root, config.as_ref(), clock)?;
            lost.append(&mut rebuilt.lost);
            lost.append(&mut rebuilt.unread);
            rebuilt.registry.number = next(highest.max(rebuilt.seen))?;
            (rebuilt.registry, Part::Rebuilt)
        }
    };
    registry.check_features(Use::Write)?;
    let (slot, access_key) = seal(&secrets, &options.unlock)?;
    // In the order of `init`: `config` last, since it is what makes it a repository.
    store.create(&Name::slot(&slot.name()), Bytes::from(slot.encode()))?;
    if part == Part::Rebuilt {
        registry::publish(store, &root, &registry)?;
    }
    let config = match config {
        Some(_) => Part::Kept,
        None => {
            store.create(&Name::config(), Bytes::from(config_of(&assumed, &registry).encode()))?;
            Part::Rebuilt
        }
    };
    Ok(Recovered { slot: slot.name(), access_key, config, registry: part, lost })
}

/// Adds what an older registry does not know, so that no domain is out of sight. What it knows counts more.
fn supplement(registry: &mut Registry, rebuilt: Registry) {
    let Registry { domains, certificates, revocations, .. } = rebuilt;
    let unknown = |registry: &Registry, id: &IdentityId| registry.certificate(id).is_none();
    let revocations =
        revocations.into_iter().filter(|revoked| unknown(registry, &revoked.identity)).collect();
    let certificates = certificates.into_iter().filter(|known| unknown(registry, &known.identity)).collect();
    registry.merge(Registry { domains, certificates, revocations, ..registry.clone() });
}

/// A rebuilt registry leaves out so many numbers: machines may remember newer ones than are left, and
/// must not take it for an older world.
const NUMBERS_LEFT_OUT: u64 = 1_000_000;

fn next(number: u64) -> Result<u64> {
    number.checked_add(NUMBERS_LEFT_OUT).ok_or_else(|| {
        Error::damaged("the registry", "an object with an impossible number stands there")
            .with_remedy("Delete it: it cannot be a real one")
    })
}

fn config_of(assumed: &Config, registry: &Registry) -> Config {
    Config {
        commit_window_seconds: registry.commit_window_seconds,
        minimum_grace_seconds: registry.minimum_grace_seconds,
        ..assumed.clone()
    }
}

/// `config`, if it is there and that of the words.
fn read_config(store: &Store, root: &RootSecret, lost: Lost) -> Result<Option<Config>> {
    match store.read(&Name::config(), limits::RECORD_BYTES_MAX) {
        Err(error) if error.kind() == ErrorKind::NotFound && lost == Lost::Rebuild => return Ok(None),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let remedy = "Check the address and the words. If both are right, `config` was replaced or damaged: \
                  delete that object and run `key recover --rebuild-config`";
    let config = Repository::read_config(store).map_err(|e| {
        if lost == Lost::Refuse {
            e.with_remedy("If it was lost, `key recover --rebuild-config` rebuilds it")
        } else {
            e.with_remedy(remedy)
        }
    })?;
    let public = root.signing_key().verifying_key().to_bytes();
    if config.repository_id != root.repository_id() || config.root_public_key != public {
        let text = "these recovery words belong to another repository than `config` names";
        return Err(Error::new(ErrorKind::CannotUnlock, text).with_remedy(remedy));
    }
    Ok(Some(config))
}
