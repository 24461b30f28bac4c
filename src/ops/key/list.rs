//! Who may use the repository, and by which slots.

use crate::{
    clock::Timestamp,
    error::{ErrorKind, Result},
    format::{
        registry::{Certificate, Revocation},
        role::Role,
        slot::{Slot, identity_of},
    },
    id::IdentityId,
    limits,
    repository::{Repository, unlock::slot_names},
    store::Name,
};

/// What opens a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlocks {
    /// A passphrase.
    Passphrase,
    /// An access key.
    AccessKey,
    /// Nothing: the object is damaged.
    Damaged,
    /// Not known: the storage does not let this role read it.
    Unreadable,
}

/// A key slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedSlot {
    /// Its name.
    pub name: String,
    /// What opens it.
    pub unlocks: Unlocks,
}

/// An identity.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The identity.
    pub identity: IdentityId,
    /// Its name for people; empty for slots whose identity no registry certifies.
    pub label: String,
    /// Its role, if it is certified.
    pub role: Option<Role>,
    /// The name of the domain that it backs up to.
    pub domain: Option<String>,
    /// When it was certified.
    pub created: Option<Timestamp>,
    /// Several machines use it.
    pub shared: bool,
    /// When it was revoked, if it was.
    pub revoked: Option<Timestamp>,
    /// Its slots.
    pub slots: Vec<ListedSlot>,
}

/// All identities, in the order in which they were certified; then slots that nobody certified.
///
/// # Errors
/// Storage trouble.
pub fn list(repository: &Repository) -> Result<Vec<Listed>> {
    let registry = repository.newest_registry()?.registry;
    let mut all: Vec<Listed> = Vec::new();
    for certificate in &registry.certificates {
        let Certificate { identity, verifying_key: _, role, label, domain, shared, created } = certificate;
        let domain = domain.and_then(|id| Some(registry.domain(&id)?.name.clone()));
        let revoked = registry.revocation(identity).map(|Revocation { time, .. }| *time);
        all.push(Listed {
            identity: *identity,
            label: label.clone(),
            role: Some(*role),
            domain,
            created: Some(*created),
            shared: *shared,
            revoked,
            slots: Vec::new(),
        });
    }
    for name in slot_names(&repository.store)? {
        let Some(identity) = identity_of(&name) else { continue };
        let slot = ListedSlot { unlocks: unlocks(repository, &name)?, name };
        match all.iter_mut().find(|known| known.identity == identity) {
            Some(known) => known.slots.push(slot),
            None => all.push(Listed {
                identity,
                label: String::new(),
                role: None,
                domain: None,
                created: None,
                shared: false,
                revoked: None,
                slots: vec![slot],
            }),
        }
    }
    Ok(all)
}

fn unlocks(repository: &Repository, name: &str) -> Result<Unlocks> {
    match repository.store.read(&Name::slot(name), limits::RECORD_BYTES_MAX).map(|bytes| Slot::decode(&bytes))
    {
        Ok(Ok(slot)) if slot.takes_passphrase() => Ok(Unlocks::Passphrase),
        Ok(Ok(_)) => Ok(Unlocks::AccessKey),
        Ok(Err(_)) => Ok(Unlocks::Damaged),
        Err(error) => match error.kind() {
            ErrorKind::Damaged => Ok(Unlocks::Damaged),
            // A policy may confine a role to its own slot: the list is worth having all the same.
            ErrorKind::NotFound | ErrorKind::Failed | ErrorKind::Forbidden => Ok(Unlocks::Unreadable),
            _ => Err(error),
        },
    }
}
