//! HPKE with X-Wing (ML-KEM-768 with X25519) and HKDF-SHA256, export only: a key for somebody who
//! holds the private half, made by somebody who does not.

use std::fmt;

use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, aead::ExportOnlyAead, kdf::HkdfSha256, kem::XWing,
};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, ErrorKind, Result};

/// Bytes of an encapsulation.
pub const ENCAPSULATION_LEN: usize = 1120;
/// Bytes of a public key.
pub const PUBLIC_KEY_LEN: usize = 1216;
/// What the sender sends.
pub type Encapsulation = [u8; ENCAPSULATION_LEN];
const EXPORT: &[u8] = b"lifeboat v1 export";

/// The seed of a key pair.
#[derive(Clone, ZeroizeOnDrop)]
pub struct HpkeSeed(Zeroizing<[u8; 32]>);

impl fmt::Debug for HpkeSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HpkeSeed(..)")
    }
}

impl HpkeSeed {
    /// Wraps the bytes of the seed.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes of the seed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> SealKey {
        SealKey(XWing::derive_keypair(&self.0[..]).1)
    }

    /// The private half.
    #[must_use]
    pub fn open_key(&self) -> OpenKey {
        OpenKey(XWing::derive_keypair(&self.0[..]).0)
    }
}

/// A public key: anybody may seal to it.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey(<XWing as Kem>::PublicKey);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

impl SealKey {
    /// # Errors
    /// `Damaged` when the bytes are no X-Wing public key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let key = <XWing as Kem>::PublicKey::from_bytes(bytes);
        key.map(Self)
            .map_err(|e| Error::damaged("a public key", "it is not an X-Wing key").with_source(e.to_string()))
    }

    /// The bytes of the key.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes().to_vec()
    }

    /// A fresh secret, and what carries it to the holder of the private key.
    ///
    /// # Errors
    /// The public key is unusable.
    pub fn encapsulate(&self, info: &[u8]) -> Result<(Encapsulation, Zeroizing<[u8; 32]>)> {
        let failed = |e: hpke::HpkeError| {
            Error::new(ErrorKind::Failed, "could not seal to a public key").with_source(e.to_string())
        };
        let (sent, context) =
            hpke::setup_sender::<ExportOnlyAead, HkdfSha256, XWing>(&OpModeS::Base, &self.0, info)
                .map_err(failed)?;
        let mut secret = Zeroizing::new([0; 32]);
        context.export(EXPORT, &mut secret[..]).map_err(failed)?;
        let mut encapsulation = [0; ENCAPSULATION_LEN];
        sent.write_exact(&mut encapsulation);
        Ok((encapsulation, secret))
    }
}

/// A private key.
pub struct OpenKey(<XWing as Kem>::PrivateKey);

/// The key of the library wipes itself, but the library does not say so of its type.
impl ZeroizeOnDrop for OpenKey {}

impl fmt::Debug for OpenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenKey(..)")
    }
}

impl OpenKey {
    /// The secret that was encapsulated; another one when it was not to this key, which the commitment
    /// tells.
    ///
    /// # Errors
    /// `Damaged` when the encapsulation is malformed.
    pub fn decapsulate(&self, encapsulation: &Encapsulation, info: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let damaged = |e: hpke::HpkeError| {
            Error::damaged("a sealed object", "its key cannot be opened").with_source(e.to_string())
        };
        let sent = <XWing as Kem>::EncappedKey::from_bytes(encapsulation).map_err(damaged)?;
        let context =
            hpke::setup_receiver::<ExportOnlyAead, HkdfSha256, XWing>(&OpModeR::Base, &self.0, &sent, info)
                .map_err(damaged)?;
        let mut secret = Zeroizing::new([0; 32]);
        context.export(EXPORT, &mut secret[..]).map_err(damaged)?;
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_half_and_the_same_purpose_give_the_same_secret() {
        let seed = HpkeSeed::from_bytes([9; 32]);
        let public = SealKey::from_bytes(&seed.public_key().to_bytes()).unwrap();
        assert_eq!(public.to_bytes().len(), PUBLIC_KEY_LEN);
        let (sent, secret) = public.encapsulate(b"purpose").unwrap();
        assert_eq!(seed.open_key().decapsulate(&sent, b"purpose").unwrap(), secret);
        assert_ne!(seed.open_key().decapsulate(&sent, b"another").unwrap(), secret);
        let other = HpkeSeed::from_bytes([8; 32]).open_key();
        assert_ne!(other.decapsulate(&sent, b"purpose").unwrap(), secret);
        assert_ne!(public.encapsulate(b"purpose").unwrap().1, secret);
    }
}
