//! Whether a place is empty, holds a repository, or what is left of one. Promise: a repository is only ever
//! created where nothing of another one is.
//!
//! `create` writes its slot, looks, writes the registry and then `config`, which makes it a repository. Of
//! several at once at most one finds its slot alone, since each wrote before it looked; the others take
//! back what they wrote. So it needs no conditional write, though it asks for one. What was killed in
//! between leaves its slot behind, and the next `init` says so instead of building around it.

use bytes::Bytes;

use super::Repository;
use crate::{
    error::{Error, ErrorKind, Result},
    format::config::Config,
    id::{DomainId, IdentityId},
    limits,
    store::{Name, Parsed, Prefix, Store},
};

/// What is left of a repository that has no good `config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remains {
    /// Nothing.
    None,
    /// What an `init` writes before `config`.
    OfInit,
    /// What backups wrote.
    OfBackups,
}

fn names(store: &Store, prefix: &Prefix) -> Result<Vec<Name>> {
    Ok(store.list(prefix)?.iter().filter_map(|listed| Name::parse(&listed.name)).collect())
}

/// Slots and registries that are there.
fn keys(store: &Store) -> Result<Vec<Name>> {
    let mut found = names(store, &Prefix::slots())?;
    // Somebody else's folder may be called `keys` too.
    let identity = |slot: &str| IdentityId::from_hex(slot.split_once('-')?.0);
    found.retain(|name| matches!(name.parsed(), Parsed::Slot(slot) if identity(&slot).is_some()));
    found.extend(names(store, &Prefix::registry())?);
    Ok(found)
}

fn remains(store: &Store) -> Result<Remains> {
    let nobody = format!("d/{}/", DomainId::new([0; DomainId::LEN]));
    let of_backups = |name: &Name| !name.as_str().starts_with(&nobody);
    if names(store, &Prefix::domains())?.iter().any(of_backups) {
        return Ok(Remains::OfBackups);
    }
    Ok(if keys(store)?.is_empty() { Remains::None } else { Remains::OfInit })
}

const RECOVER: &str =
    "The 24 recovery words rebuild it: `lifeboat key recover --rebuild-config`. Do not run `init`";

/// What to do about a `config` that somebody may have overwritten.
fn damaged_config(store: &Store) -> String {
    if store.past().is_some() {
        return "It was damaged before that time: name an earlier one".to_owned();
    }
    let past = "A bucket that keeps versions still has the one before: `--at TIME` shows the repository as it was, for `snapshots`, \
                `restore` and `copy --from-at`. If it keeps none: delete";
    let delete = if store.location_text().starts_with("s3:") { past } else { "Delete" };
    format!("{delete} the object `config`. {RECOVER}")
}

/// The error for a place without `config`.
fn without_config(store: &Store) -> Error {
    let place = store.location_text();
    if store.past().is_some() {
        return without_config_then(store);
    }
    match remains(store) {
        Err(error) if matches!(error.kind(), ErrorKind::Temporary | ErrorKind::Interrupted) => error,
        // Credentials that may not list keys cannot tell more.
        Err(_) | Ok(Remains::None) => {
            let remedy = "Check the address, or create one with `lifeboat init`";
            let past = ". If there was one and it was deleted, a bucket that keeps versions still has it: `--at TIME` shows \
                it as it was";
            let past = if place.starts_with("s3:") { past } else { "" };
            Error::new(ErrorKind::NoRepository, format!("there is no repository at {place}"))
                .with_remedy(format!("{remedy}{past}"))
        }
        Ok(Remains::OfBackups) => Error::new(
            ErrorKind::Damaged,
            format!("the repository at {place} has lost its `config`; keys and backups are there"),
        )
        .with_remedy(RECOVER),
        Ok(Remains::OfInit) => Error::new(
            ErrorKind::Damaged,
            format!("the repository at {place} has no `config`, and nothing was ever backed up to it"),
        )
        .with_remedy(
            "An `init` was cut short there: when none runs any more, delete `keys` and `registry` there and \
             run `init` again. If it was complete once, `lifeboat key recover --rebuild-config` rebuilds `config`",
        ),
    }
}

/// As [`without_config`], in the past, where nothing can be mended.
fn without_config_then(store: &Store) -> Error {
    let place = store.location_text();
    match remains(store) {
        Err(error) => error,
        Ok(Remains::None) => Error::new(ErrorKind::NoRepository, format!("there is no repository at {place}"))
            .with_remedy(
                "Check the address, or name a later time: this one is before `init`, or the bucket kept no versions then",
            ),
        Ok(Remains::OfBackups | Remains::OfInit) => {
            Error::damaged(format!("the repository at {place}"), "its `config` is not there")
                .with_remedy("It was deleted before that time, or no version of it was kept: name an earlier time")
        }
    }
}

impl Repository {
    /// Reads `config` without trusting it yet.
    ///
    /// # Errors
    /// `NoRepository` when there is none; `Damaged` when there is one and its `config` is lost or damaged.
    pub fn read_config(store: &Store) -> Result<Config> {
        let bytes = match store.read(&Name::config(), limits::RECORD_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(without_config(store)),
            Err(error) => return Err(error),
        };
        let ours = |error: Error| {
            if error.kind() == ErrorKind::Damaged {
                return error.with_remedy(damaged_config(store));
            }
            match remains(store) {
                Ok(Remains::OfInit | Remains::OfBackups) if error.kind() == ErrorKind::NoRepository => {
                    let what = format!("the `config` of the repository at {}", store.location_text());
                    Error::damaged(what, "it cannot be read, though its keys or backups are there")
                        .with_remedy(damaged_config(store))
                        .with_source(error)
                }
                _ => error,
            }
        };
        Config::decode(&bytes).map_err(ours)
    }

    /// Whether a repository may be created here.
    ///
    /// # Errors
    /// There is one already, or what is left of one; storage trouble.
    pub fn check_vacant(store: &Store) -> Result<()> {
        let Err(error) = Self::read_config(store) else {
            let text = format!("{} holds a repository already", store.location_text());
            return Err(
                Error::new(ErrorKind::Failed, text).with_remedy("Choose another place, or leave out `init`")
            );
        };
        if error.kind() != ErrorKind::NoRepository {
            return Err(error);
        }
        if store.head(&Name::config())?.is_some() {
            return Err(error.with_kind(ErrorKind::Failed).with_remedy("Choose an empty place for it"));
        }
        // Asked for its errors: nobody creates a repository where it cannot be told what is there.
        match remains(store)? {
            Remains::None => Ok(()),
            _ => Err(without_config(store)),
        }
    }

    /// Writes what makes a repository; on failure takes back what it wrote.
    pub(super) fn write_first(
        store: &Store,
        slot: &(Name, Bytes),
        registry: &(Name, Bytes),
        config: &Bytes,
    ) -> Result<()> {
        // A signal is heard between the writes: within one it would stay open what was written.
        let steady = store.uninterrupted()?;
        let progress = store.progress();
        let mut config_was_sent = false;
        let mut write = || {
            progress.check()?;
            steady.create(&slot.0, slot.1.clone())?;
            check_alone(&steady, &slot.0)?;
            progress.check()?;
            steady.create(&registry.0, registry.1.clone())?;
            progress.check()?;
            config_was_sent = true;
            steady.create(&Name::config(), config.clone())
        };
        let Err(error) = write() else { return Ok(()) };
        if config_was_sent {
            match steady.read(&Name::config(), limits::RECORD_BYTES_MAX) {
                Ok(there) if there == *config => return Ok(()),
                Ok(_) => {}
                // A disk that is full has not taken it, and takes it no later.
                Err(read) if read.kind() == ErrorKind::NotFound && error.is_of_the_whole_system() => {}
                // It may be there, or arrive late: then what it needs must be there too.
                Err(_) => return Err(error),
            }
        }
        // The slot last: as long as it is there, nobody else begins. What stays is told by the next `init`.
        if steady.delete(&registry.0).is_ok() {
            drop(steady.delete(&slot.0));
        }
        Err(error)
    }
}

/// Whether of all who create a repository here at the same time we are the one to go on.
fn check_alone(store: &Store, slot: &Name) -> Result<()> {
    let others = keys(store)?.iter().any(|name| name != slot);
    if others || store.head(&Name::config())?.is_some() {
        let text = format!("another `init` runs at {} at the same time", store.location_text());
        return Err(Error::new(ErrorKind::Failed, text).with_remedy(
            "Wait until it is done, and use what it created; if it failed too, run this again",
        ));
    }
    Ok(())
}
