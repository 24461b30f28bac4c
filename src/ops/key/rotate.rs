//! New keys in place of old ones. A new epoch: what is stored from now on is sealed to keys that no slot holds yet, so what
//! somebody learned from one opens nothing of it. And a new identity in the place of one whose key is out.

use super::{AddOptions, Added, By, LastGood, RevokeOptions, Revoked, add, named, revoke};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        registry::{Certificate, Registry},
        role::Role,
    },
    repository::{Repository, registry::epoch},
};

/// A new epoch.
#[derive(Debug)]
pub struct Rotated {
    /// Its number.
    pub epoch: u32,
    /// Keys that read, and do not hold it: they see nothing of what is stored from now on until they are renewed.
    pub behind: Vec<Certificate>,
}

/// A key in the place of another.
#[derive(Debug)]
pub struct Renewed {
    /// What became of the old one.
    pub revoked: Revoked,
    /// The new one, with the role, label and domain of the old one.
    pub added: Added,
    /// Its role.
    pub role: Role,
}

/// Whether a role holds the keys of each epoch one by one; an owner derives them, and a backup needs none.
const fn holds_epochs(role: Role) -> bool {
    matches!(role, Role::Audit | Role::Maintain | Role::Restore)
}

/// Begins a new epoch. Backups seal to it from their next run on.
///
/// # Errors
/// `Forbidden` for all but owners; storage trouble.
pub fn rotate(repository: &Repository) -> Result<Rotated> {
    let root = repository.root("rotate keys")?;
    let last = last_epoch(&repository.newest_registry()?.registry);
    let next = last.checked_add(1).ok_or_else(|| Error::damaged("the registry", "its key epochs"))?;
    let new = epoch(&root, next);
    let registry = repository.change_registry(&|registry| {
        if registry.epochs.iter().all(|known| known.number != next) {
            registry.epochs.push(new.clone());
        }
    })?;
    let is_behind =
        |known: &&Certificate| holds_epochs(known.role) && registry.revocation(&known.identity).is_none();
    let behind = registry.certificates.iter().filter(is_behind).cloned().collect();
    Ok(Rotated { epoch: next, behind })
}

fn last_epoch(registry: &Registry) -> u32 {
    registry.epochs.iter().map(|epoch| epoch.number).max().unwrap_or(0)
}

/// Puts a new key in the place of one: revokes it, and adds one with its role, label and domain that holds all epochs. Run
/// again after an interruption, it does what is left.
///
/// # Errors
/// As those of `revoke` and `add`.
pub fn renew(repository: &Repository, who: &str, last_good: LastGood, unlock: By) -> Result<Renewed> {
    repository.root("rotate keys")?;
    let registry = repository.newest_registry()?.registry;
    let Certificate { identity, label, role, domain, shared, .. } = named(&registry, who)?.clone();
    let is_valid = |known: &Certificate| registry.revocation(&known.identity).is_none();
    // The identity of the old key was given once more: what has its label now may be in use.
    if registry.revocation(&identity).is_some()
        && registry.certificates.iter().any(|known| known.label == label && is_valid(known))
    {
        let what = format!("this key was revoked before, and another one has its label `{label}` now");
        return Err(Error::new(ErrorKind::Usage, what).with_remedy(format!(
            "Where that came from a renewal of which nobody has the access key, `lifeboat key rotate {label}` renews it once more"
        )));
    }
    let revoked = revoke(repository, &RevokeOptions { who: identity.to_string(), last_good })?;
    let domain = domain.and_then(|id| registry.domain(&id)).map(|domain| domain.name.clone());
    let added = add(repository, &AddOptions { role, label, domain, shared, unlock })?;
    Ok(Renewed { revoked, added, role })
}
