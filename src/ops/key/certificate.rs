//! What `drill verify-report` needs to check a report without the repository.

use serde::Serialize;

use crate::{
    error::{Error, ErrorKind, Result},
    id::to_hex,
    repository::Repository,
};

/// Signed with the root key before the text of the certificate.
const CONTEXT: &str = "lifeboat v1 exported certificate";

#[derive(Serialize)]
struct Exported<'a> {
    about: &'a str,
    /// The signed text: repository id, root public key, identity, verifying key and role, one a line.
    statement: String,
    repository_id: String,
    root_public_key: String,
    identity: String,
    verifying_key: String,
    role: &'a str,
    root_signature: String,
}

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
    let repository_id = repository.config.repository_id.to_string();
    let root_public_key = to_hex(&repository.config.root_public_key);
    let (identity, verifying_key) = (known.identity.to_string(), to_hex(&known.verifying_key));
    let role = known.role.name();
    let statement = [CONTEXT, &repository_id, &root_public_key, &identity, &verifying_key, role].join("\n");
    let exported = Exported {
        about: "Who signs for a lifeboat repository. Compare the root public key with its `config`.",
        root_signature: to_hex(&root.signing_key().sign(statement.as_bytes())),
        statement,
        repository_id,
        root_public_key,
        identity,
        verifying_key,
        role,
    };
    let mut bytes = serde_json::to_vec_pretty(&exported)
        .map_err(|e| Error::new(ErrorKind::Failed, "could not write the certificate").with_source(e))?;
    bytes.push(b'\n');
    Ok(bytes)
}
