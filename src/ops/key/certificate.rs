//! What `drill verify-report` needs to check a report without the repository.

use crate::{
    error::{Error, ErrorKind, Result},
    format::certificate::ExportedCertificate,
    repository::Repository,
};

/// The certificate of the identity that `who` means, as JSON, signed by the root.
///
/// # Errors
/// `Forbidden` for all but owners, who alone can sign it; no such key; a revoked one.
pub fn certificate(repository: &Repository, who: &str) -> Result<Vec<u8>> {
    let root = repository.root("export certificates")?;
    let registry = repository.newest_registry()?.registry;
    let known = super::named(&registry, who)?;
    if registry.revocation(&known.identity).is_some() {
        return Err(Error::new(ErrorKind::Usage, format!("the key `{who}` was revoked"))
            .with_remedy("Export the certificate of one that counts: `lifeboat key list`"));
    }
    Ok(ExportedCertificate::sign(&root, known)?.encode())
}
