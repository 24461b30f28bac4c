//! AES-256-GCM under a key of its own for every envelope and every section, with a commitment that is
//! compared first, since GCM does not commit to its key.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    error::{Error, ErrorKind, Result},
    limits::TAG_LEN,
};

/// Seals with a counter as nonce: never under two plaintexts with the same counter.
pub struct FrameKey(LessSafeKey);

/// The library wipes all memory that it frees, the expanded key among it (`OPENSSL_free`), but does not say so of its
/// type.
impl ZeroizeOnDrop for FrameKey {}

impl fmt::Debug for FrameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrameKey(..)")
    }
}

impl FrameKey {
    /// The key of `secret` for `context`, and the commitment to it.
    ///
    /// # Errors
    /// No memory for the expanded key.
    pub fn derive(secret: &[u8; 32], context: &[u8]) -> Result<(Self, [u8; 32])> {
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
        let cipher = UnboundKey::new(&AES_256_GCM, &key[..])
            .map_err(|e| Error::new(ErrorKind::Failed, "could not set up AES-GCM").with_source(e))?;
        Ok((Self(LessSafeKey::new(cipher)), *commitment))
    }

    fn nonce(counter: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// The ciphertext of `plain` with its tag.
    ///
    /// # Errors
    /// The plaintext is longer than GCM allows (64 GiB).
    pub fn seal(&self, counter: u64, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        // With room for the tag: memory that grows would leave a copy of a secret behind.
        let mut copy = Vec::with_capacity(plain.len() + TAG_LEN);
        copy.extend_from_slice(plain);
        self.seal_in_place(counter, aad, copy)
    }

    /// As [`Self::seal`], in the memory of the plaintext if that has room for the tag.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_in_place(&self, counter: u64, aad: &[u8], mut plain: Vec<u8>) -> Result<Vec<u8>> {
        self.0
            .seal_in_place_append_tag(Self::nonce(counter), Aad::from(aad), &mut plain)
            .map_err(|e| Error::new(ErrorKind::Failed, "AES-GCM refused a plaintext").with_source(e))?;
        Ok(plain)
    }

    /// The plaintext.
    ///
    /// # Errors
    /// `Damaged` when the ciphertext was not sealed with this key, counter and associated data.
    pub fn open(&self, counter: u64, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let mut plain = sealed.to_vec();
        let opened = self.0.open_in_place(Self::nonce(counter), Aad::from(aad), &mut plain);
        let length = opened
            .map_err(|e| Error::damaged("a sealed object", "it does not decrypt").with_source(e))?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_counter_and_data_open_a_frame() {
        let (key, commitment) = FrameKey::derive(&[1; 32], b"a").unwrap();
        let (other, other_commitment) = FrameKey::derive(&[1; 32], b"b").unwrap();
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
        for length in 0..sealed.len() {
            assert!(key.open(3, b"aad", &sealed[..length]).is_err(), "{length} bytes");
        }
    }
}
