//! A certificate outside the repository: the root's word on who an identity is, for those who check reports
//! without the repository, a key or the network.

use serde::{Deserialize, Serialize};

use super::{registry::Certificate, role::Role};
use crate::{
    crypto::{RootSecret, VerifyingKey, sign::SIGNATURE_LEN},
    error::{Error, Result},
    id::{IdentityId, RepositoryId, from_hex, to_hex},
    limits,
};

/// The first line of what the root signs.
const CONTEXT: &str = "lifeboat v1 exported certificate";
const ABOUT: &str = "Who signs for a lifeboat repository. Compare the root public key with its `config`.";

/// What the root says of an identity. A value of this type has a good signature of the root key in it;
/// whether that root is the right one, only who knows the repository can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedCertificate {
    /// The repository.
    pub repository: RepositoryId,
    /// The key that signed it.
    pub root: VerifyingKey,
    /// What checks the signatures of the identity.
    pub key: VerifyingKey,
    /// Its role.
    pub role: Role,
    /// Its name for people.
    pub label: String,
    signature: [u8; SIGNATURE_LEN],
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    about: String,
    /// The signed text: a context, repository id, root public key, identity, verifying key, role and label,
    /// one a line.
    statement: String,
    repository_id: String,
    root_public_key: String,
    identity: String,
    verifying_key: String,
    role: String,
    label: String,
    root_signature: String,
}

impl ExportedCertificate {
    /// Has the root say it.
    ///
    /// # Errors
    /// The certificate holds no key.
    pub fn sign(root: &RootSecret, certificate: &Certificate) -> Result<Self> {
        let signer = root.signing_key();
        let mut made = Self {
            repository: root.repository_id(),
            root: signer.verifying_key(),
            key: certificate.key()?,
            role: certificate.role,
            label: certificate.label.clone(),
            signature: [0; SIGNATURE_LEN],
        };
        made.signature = signer.sign(made.statement().as_bytes());
        Ok(made)
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> IdentityId {
        self.key.identity()
    }

    fn statement(&self) -> String {
        let Self { repository, root, key, role, label, signature: _ } = self;
        let (root, identity, key) = (to_hex(&root.to_bytes()), key.identity(), to_hex(&key.to_bytes()));
        format!("{CONTEXT}\n{repository}\n{root}\n{identity}\n{key}\n{}\n{label}", role.name())
    }

    /// The file: JSON that says everything twice, once for people and once as it was signed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let text = Text {
            about: ABOUT.to_owned(),
            statement: self.statement(),
            repository_id: self.repository.to_string(),
            root_public_key: to_hex(&self.root.to_bytes()),
            identity: self.identity().to_string(),
            verifying_key: to_hex(&self.key.to_bytes()),
            role: self.role.name().to_owned(),
            label: self.label.clone(),
            root_signature: to_hex(&self.signature),
        };
        let mut bytes = serde_json::to_vec_pretty(&text)
            .unwrap_or_else(|error| unreachable!("writing to memory cannot fail: {error}"));
        bytes.push(b'\n');
        bytes
    }

    /// Reads one and checks the signature of the root. White space at the end does not matter.
    ///
    /// # Errors
    /// `Damaged` when any other byte is not as it was written.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = |why: &str| {
            Error::damaged("the certificate", why)
                .with_remedy("Export it again: `lifeboat key export-certificate`")
        };
        if bytes.len() > limits::CERTIFICATE_BYTES_MAX {
            return Err(damaged("it is longer than any may be"));
        }
        let text: Text = serde_json::from_slice(bytes)
            .map_err(|e| damaged("it is not one, or one of an older version").with_source(e))?;
        let key = |hex: &str| {
            let bytes = from_hex(hex).ok_or_else(|| damaged("a key in it is no hexadecimal number"))?;
            VerifyingKey::from_bytes(&bytes).map_err(|e| damaged("a key in it is none").with_source(e))
        };
        let made = Self {
            repository: RepositoryId::from_hex(&text.repository_id)
                .ok_or_else(|| damaged("its repository id is none"))?,
            root: key(&text.root_public_key)?,
            key: key(&text.verifying_key)?,
            role: Role::from_name(&text.role).ok_or_else(|| damaged("its role is unknown"))?,
            label: text.label,
            signature: from_hex(&text.root_signature).ok_or_else(|| damaged("its signature is none"))?,
        };
        if made.encode().trim_ascii_end() != bytes.trim_ascii_end() {
            return Err(damaged("it was changed"));
        }
        made.root
            .verify(made.statement().as_bytes(), &made.signature)
            .map_err(|e| damaged("the root did not sign it").with_source(e))?;
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Timestamp, crypto::SigningKey};

    #[test]
    fn a_change_of_any_byte_of_a_certificate_is_noticed() {
        let root = RootSecret::generate().unwrap();
        let key = SigningKey::from_seed(&[7; 32]).verifying_key();
        let certificate = Certificate {
            identity: key.identity(),
            verifying_key: key.to_bytes(),
            role: Role::Restore,
            label: "technician".to_owned(),
            domain: None,
            shared: false,
            created: Timestamp::default(),
        };
        let exported = ExportedCertificate::sign(&root, &certificate).unwrap();
        let mut bytes = exported.encode();
        assert_eq!(ExportedCertificate::decode(&bytes).unwrap(), exported);
        for at in 0..bytes.len() - 1 {
            bytes[at] ^= 1;
            assert!(ExportedCertificate::decode(&bytes).is_err(), "byte {at}");
            bytes[at] ^= 1;
        }
        let other = ExportedCertificate { root: key, ..exported };
        assert!(ExportedCertificate::decode(&other.encode()).is_err());
    }
}
