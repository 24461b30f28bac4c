//! A key that turned out to be used on several machines.

use super::named;
use crate::{
    error::{Error, ErrorKind, Result},
    id::IdentityId,
    repository::Repository,
};

/// Certifies a key as shared: from now on a fork of its chain is no alarm, neither a new one nor an old.
///
/// # Errors
/// `Forbidden` for all but owners; no such key; a revoked one; storage trouble.
pub fn share(repository: &Repository, who: &str) -> Result<IdentityId> {
    repository.root("certify keys as shared")?;
    let registry = repository.newest_registry()?.registry;
    let identity = named(&registry, who)?.identity;
    if registry.revocation(&identity).is_some() {
        return Err(Error::new(ErrorKind::Usage, format!("the key `{who}` was revoked"))
            .with_remedy("Add a new one: `lifeboat key add --shared`"));
    }
    repository.change_registry(&|registry| {
        for known in registry.certificates.iter_mut().filter(|known| known.identity == identity) {
            known.shared = true;
        }
    })?;
    Ok(identity)
}
