//! Ed25519: who wrote an object.

use std::fmt;

use ed25519_dalek::{Signature, Signer};
use zeroize::ZeroizeOnDrop;

use crate::{
    error::{Error, ErrorKind, Result},
    id::IdentityId,
};

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// Signs as an identity.
#[derive(Clone, ZeroizeOnDrop)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.identity())
    }
}

impl SigningKey {
    /// The key of a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// A new key.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self> {
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut seed[..])
            .map_err(|e| Error::new(ErrorKind::Failed, "the system gave no random numbers").with_source(e))?;
        Ok(Self::from_seed(&seed))
    }

    /// The seed: a secret.
    #[must_use]
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// What checks its signatures.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }

    /// The identity that it signs as.
    #[must_use]
    pub fn identity(&self) -> IdentityId {
        self.verifying_key().identity()
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(message).to_bytes()
    }
}

/// Checks signatures of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// # Errors
    /// `Damaged` when the bytes are no public key, or a weak one.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes)
            .map_err(|e| Error::damaged("a public key", "it is not an Ed25519 key").with_source(e))?;
        if key.is_weak() {
            return Err(Error::damaged("a public key", "it is a weak one"));
        }
        Ok(Self(key))
    }

    /// The bytes of the key.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The name of the identity: the first 16 bytes of the BLAKE3 of the key.
    #[must_use]
    pub fn identity(&self) -> IdentityId {
        let hash = blake3::hash(self.0.as_bytes());
        let (head, _) = hash.as_bytes().split_at(IdentityId::LEN);
        IdentityId::from_slice(head).unwrap_or_else(|| unreachable!("the head has its length"))
    }

    /// # Errors
    /// `Damaged` when the signature is not that of this key over this message.
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<()> {
        self.0
            .verify_strict(message, &Signature::from_bytes(signature))
            .map_err(|e| Error::damaged("a signed object", "its signature is wrong").with_source(e))
    }
}
