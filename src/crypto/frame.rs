//! AES-256-GCM under a key of its own for every envelope and every section, with a commitment that is
//! compared first, since GCM does not commit to its key.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, ErrorKind, Result};

/// Seals with a counter as nonce: never under two plaintexts with the same counter.
pub struct FrameKey(Box<Aes256Gcm>);

/// The cipher wipes its own keys.
impl ZeroizeOnDrop for FrameKey {}

impl fmt::Debug for FrameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrameKey(..)")
    }
}

impl FrameKey {
    /// The key of `secret` for `context`, and the commitment to it.
    #[must_use]
    pub fn derive(secret: &[u8; 32], context: &[u8]) -> (Self, [u8; 32]) {
        let part = |purpose: &str| {
            let mut hasher = blake3::Hasher::new_derive_key(purpose);
            hasher.update(secret);
            hasher.update(context);
            let bytes = Zeroizing::new(*hasher.finalize().as_bytes());
            hasher.zeroize();
            bytes
        };
        let key = part("lifeboat v1 frame key");
        let commitment = part("lifeboat v1 frame key commitment");
        let cipher = Aes256Gcm::new((&*key).into());
        (Self(Box::new(cipher)), *commitment)
    }

    fn nonce(counter: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        nonce
    }

    /// The ciphertext of `plain` with its tag.
    ///
    /// # Errors
    /// The plaintext is longer than GCM allows (64 GiB).
    pub fn seal(&self, counter: u64, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let nonce = Self::nonce(counter);
        self.0.encrypt((&nonce).into(), Payload { msg: plain, aad }).map_err(|e| {
            Error::new(ErrorKind::Failed, "AES-GCM refused a plaintext").with_source(e.to_string())
        })
    }

    /// The plaintext.
    ///
    /// # Errors
    /// `Damaged` when the ciphertext was not sealed with this key, counter and associated data.
    pub fn open(&self, counter: u64, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let nonce = Self::nonce(counter);
        self.0
            .decrypt((&nonce).into(), Payload { msg: sealed, aad })
            .map_err(|e| Error::damaged("a sealed object", "it does not decrypt").with_source(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_counter_and_data_open_a_frame() {
        let (key, commitment) = FrameKey::derive(&[1; 32], b"a");
        let (other, other_commitment) = FrameKey::derive(&[1; 32], b"b");
        assert_ne!(commitment, other_commitment);
        let mut sealed = key.seal(3, b"aad", b"hello").unwrap();
        assert_eq!(key.open(3, b"aad", &sealed).unwrap(), b"hello");
        assert!(key.open(4, b"aad", &sealed).is_err());
        assert!(key.open(3, b"aae", &sealed).is_err());
        assert!(other.open(3, b"aad", &sealed).is_err());
        for at in 0..sealed.len() {
            sealed[at] ^= 1;
            assert!(key.open(3, b"aad", &sealed).is_err(), "byte {at}");
            sealed[at] ^= 1;
        }
    }
}
