//! A key slot: one way to unlock an identity's secrets, by a passphrase or by a random access key.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{checksum, secrets::Secrets};
use crate::{
    crypto::FrameKey,
    error::{Error, ErrorKind, Result},
    id::{IdentityId, from_hex, to_hex},
    random,
};

/// The parameters of Argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KdfParameters {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for KdfParameters {
    /// What a new slot asks for. With debug assertions it costs nothing to guess: the tests open repositories thousands of
    /// times, and spent two thirds of their time here.
    fn default() -> Self {
        if cfg!(debug_assertions) { Self::QUICK } else { Self::STRONG }
    }
}

impl KdfParameters {
    /// A tenth of a second and 64 MiB for each guess: the second choice of RFC 9106, section 4.
    pub const STRONG: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 4 };
    /// No hindrance to anybody, for tests.
    pub const QUICK: Self = Self { memory_kib: 64, passes: 1, lanes: 1 };

    /// Caps what a slot may ask for, before anything is allocated.
    fn check(self) -> Result<argon2::Params> {
        let Self { memory_kib, passes, lanes } = self;
        // The work is their product: whoever may write slots must not keep others from unlocking for minutes.
        let work = u64::from(memory_kib) * u64::from(passes);
        if memory_kib > 1 << 20 || passes > 64 || lanes > 64 || work > 1 << 22 {
            return Err(Error::damaged("a key slot", "it asks for more memory or time than any slot needs"));
        }
        argon2::Params::new(memory_kib, passes, lanes, Some(32)).map_err(|e| {
            Error::damaged("a key slot", "its Argon2 parameters are impossible").with_source(e.to_string())
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "algorithm", rename_all = "kebab-case")]
enum Kdf {
    Argon2id(KdfParameters),
    AccessKey,
}

const CHECKSUM: &str = "lifeboat v1 key slot checksum";

/// A key slot as it stands in the store: no label, no host name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    lifeboat_key_slot: u32,
    name: String,
    kdf: Kdf,
    salt: String,
    commitment: String,
    sealed: String,
    /// Tells a damaged slot from a wrong passphrase.
    checksum: String,
}

/// The text form of an access key: names its slot, carries its secret and a checksum.
#[derive(ZeroizeOnDrop)]
pub struct AccessKey {
    /// The slot that it opens.
    #[zeroize(skip)]
    pub slot: String,
    secret: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKey({}, ..)", self.slot)
    }
}

const ACCESS: &str = "lifeboat-access-1";

impl AccessKey {
    fn checksum(slot: &str, secret: &str) -> String {
        let hash =
            blake3::derive_key("lifeboat v1 access key checksum", format!("{slot}:{secret}").as_bytes());
        to_hex(&hash[..4])
    }

    /// The text to keep in a file.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(BASE64.encode(&self.secret[..]));
        let check = Self::checksum(&self.slot, &secret);
        Zeroizing::new(format!("{ACCESS}:{}:{}:{check}", self.slot, *secret))
    }

    /// # Errors
    /// `CannotUnlock` when it is not an access key, or has a typing error.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(ErrorKind::CannotUnlock, format!("the access key {why}"))
                .with_remedy("Copy the whole line that `lifeboat key add` wrote")
        };
        let parts: Vec<&str> = text.trim().split(':').collect();
        let [ACCESS, slot, secret, check] = parts[..] else {
            return Err(wrong("is not in the form lifeboat-access-1:SLOT:SECRET:CHECK"));
        };
        if Self::checksum(slot, secret) != check {
            return Err(wrong("has a typing error: its checksum does not match"));
        }
        let bytes =
            BASE64.decode(secret).map(Zeroizing::new).map_err(|e| wrong("is malformed").with_source(e))?;
        let secret: [u8; 32] = bytes[..]
            .try_into()
            .map_err(|e: std::array::TryFromSliceError| wrong("is malformed").with_source(e))?;
        Ok(Self { slot: slot.to_owned(), secret: Zeroizing::new(secret) })
    }
}

fn stretch(passphrase: &str, salt: &[u8; 32], parameters: KdfParameters) -> Result<Zeroizing<[u8; 32]>> {
    let parameters = parameters.check()?;
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
    let mut key = Zeroizing::new([0; 32]);
    argon
        .hash_password_into(passphrase.as_bytes(), salt, &mut key[..])
        .map_err(|e| Error::new(ErrorKind::Failed, "Argon2 failed").with_source(e.to_string()))?;
    Ok(key)
}

/// The identity that the name of a slot begins with.
pub(crate) fn identity_of(name: &str) -> Option<IdentityId> {
    IdentityId::from_hex(name.split_once('-')?.0)
}

/// Whether a text may be the name of a slot: an identity, `-` and four bytes, in hexadecimal.
pub(crate) fn is_slot_name(text: &str) -> bool {
    let random = text.split_once('-').and_then(|(_, random)| from_hex::<4>(random));
    identity_of(text).is_some() && random.is_some()
}

impl Slot {
    fn seal(secrets: &Secrets, name: String, kdf: Kdf, salt: &[u8; 32], secret: &[u8; 32]) -> Result<Self> {
        let context = [b"lifeboat v1 key slot".as_slice(), name.as_bytes(), salt].concat();
        let (key, commitment) = FrameKey::derive(secret, &context)?;
        let sealed = key.seal(0, &context, &secrets.encode())?;
        let slot = Self {
            lifeboat_key_slot: 1,
            name,
            kdf,
            salt: to_hex(salt),
            commitment: to_hex(&commitment),
            sealed: BASE64.encode(sealed),
            checksum: String::new(),
        };
        Ok(slot.with_checksum())
    }

    fn with_checksum(self) -> Self {
        let empty = Self { checksum: String::new(), ..self };
        Self { checksum: checksum(CHECKSUM, &empty.encode(), ""), ..empty }
    }

    /// A fresh name: the identity, and something random; see [`is_slot_name`].
    fn fresh_name(secrets: &Secrets) -> Result<String> {
        Ok(format!("{}-{}", secrets.identity(), to_hex(&random::bytes::<4>()?)))
    }

    /// A slot that a passphrase opens.
    ///
    /// # Errors
    /// No randomness, or impossible parameters.
    pub fn seal_passphrase(secrets: &Secrets, passphrase: &str, parameters: KdfParameters) -> Result<Self> {
        let salt = random::bytes()?;
        let key = stretch(passphrase, &salt, parameters)?;
        Self::seal(secrets, Self::fresh_name(secrets)?, Kdf::Argon2id(parameters), &salt, &key)
    }

    /// A slot that a random access key opens, and that key.
    ///
    /// # Errors
    /// No randomness.
    pub fn seal_access_key(secrets: &Secrets) -> Result<(Self, AccessKey)> {
        let name = Self::fresh_name(secrets)?;
        let access = AccessKey { slot: name.clone(), secret: Zeroizing::new(random::bytes()?) };
        let slot = Self::seal(secrets, name, Kdf::AccessKey, &random::bytes()?, &access.secret)?;
        Ok((slot, access))
    }

    /// Its name in the store.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// Whether a passphrase opens it.
    #[must_use]
    pub const fn takes_passphrase(&self) -> bool {
        matches!(self.kdf, Kdf::Argon2id(_))
    }

    /// The bytes of the object.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .unwrap_or_else(|error| unreachable!("text is always JSON: {error}"));
        bytes.push(b'\n');
        bytes
    }

    /// # Errors
    /// `Damaged` when it is not a key slot.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let slot: Self = serde_json::from_slice(bytes)
            .map_err(|e| Error::damaged("a key slot", "it is not in the form of one").with_source(e))?;
        if slot.lifeboat_key_slot != 1 {
            return Err(Error::damaged("a key slot", "it is of a newer format"));
        }
        if slot.checksum == checksum(CHECKSUM, bytes, &slot.checksum) {
            Ok(slot)
        } else {
            Err(Error::damaged("a key slot", "its checksum is wrong"))
        }
    }

    fn open(&self, secret: &[u8; 32], salt: &[u8; 32]) -> Result<Option<Secrets>> {
        let context = [b"lifeboat v1 key slot".as_slice(), self.name.as_bytes(), salt].concat();
        let (key, commitment) = FrameKey::derive(secret, &context)?;
        if to_hex(&commitment) != self.commitment {
            return Ok(None);
        }
        let sealed = BASE64
            .decode(&self.sealed)
            .map_err(|e| Error::damaged("a key slot", "it is not in the form of one").with_source(e))?;
        let plain = Zeroizing::new(key.open(0, &context, &sealed)?);
        Secrets::decode(&plain).map(Some)
    }

    fn salt(&self) -> Result<[u8; 32]> {
        from_hex(&self.salt).ok_or_else(|| Error::damaged("a key slot", "its salt is malformed"))
    }

    /// `None` when the passphrase is not that of this slot.
    ///
    /// # Errors
    /// `Damaged` when the slot cannot be used by anybody.
    pub fn open_passphrase(&self, passphrase: &str) -> Result<Option<Secrets>> {
        let Kdf::Argon2id(parameters) = self.kdf else { return Ok(None) };
        let salt = self.salt()?;
        self.open(&*stretch(passphrase, &salt, parameters)?, &salt)
    }

    /// `None` when the access key is not that of this slot.
    ///
    /// # Errors
    /// As [`Self::open_passphrase`].
    pub fn open_access_key(&self, access: &AccessKey) -> Result<Option<Secrets>> {
        self.open(&access.secret, &self.salt()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootSecret;

    fn secrets() -> Secrets {
        Secrets::owner(&RootSecret::from_bytes([1; 32]))
    }

    #[test]
    fn only_its_passphrase_opens_a_slot() {
        let slot = Slot::seal_passphrase(&secrets(), "right", KdfParameters::QUICK).unwrap();
        let slot = Slot::decode(&slot.encode()).unwrap();
        assert!(slot.open_passphrase("wrong").unwrap().is_none());
        assert_eq!(slot.open_passphrase("right").unwrap().unwrap().identity(), secrets().identity());
    }

    #[test]
    fn only_its_access_key_opens_a_slot_and_typing_errors_are_told() {
        let (slot, access) = Slot::seal_access_key(&secrets()).unwrap();
        let text = access.text();
        let again = AccessKey::parse(&text).unwrap();
        assert!(slot.open_access_key(&again).unwrap().is_some());
        let (other, _) = Slot::seal_access_key(&secrets()).unwrap();
        assert!(other.open_access_key(&again).unwrap().is_none());
        for at in 18..text.len() {
            let mut typed = text.as_bytes().to_vec();
            typed[at] = if typed[at] == b'a' { b'b' } else { b'a' };
            let typed = String::from_utf8(typed).unwrap();
            assert!(AccessKey::parse(&typed).is_err(), "{at}");
        }
        assert!(!format!("{access:?}").contains(text.split(':').nth(2).unwrap()));
    }

    /// Otherwise one slot could be made to open under two passphrases.
    #[test]
    fn a_slot_opens_only_under_the_commitment_to_its_key() {
        let mut slot = Slot::seal_passphrase(&secrets(), "right", KdfParameters::QUICK).unwrap();
        slot.commitment = to_hex(&[7; 32]);
        let slot = Slot::decode(&slot.with_checksum().encode()).unwrap();
        assert!(slot.open_passphrase("right").unwrap().is_none());
    }

    #[test]
    fn a_slot_that_asks_for_a_terabyte_is_refused_at_once() {
        for greedy in [
            KdfParameters { memory_kib: 1 << 30, ..KdfParameters::QUICK },
            KdfParameters { passes: u32::MAX, ..KdfParameters::QUICK },
            KdfParameters { lanes: 1 << 20, ..KdfParameters::QUICK },
        ] {
            let mut slot = Slot::seal_passphrase(&secrets(), "right", KdfParameters::QUICK).unwrap();
            slot.kdf = Kdf::Argon2id(greedy);
            assert_eq!(slot.open_passphrase("right").unwrap_err().kind(), ErrorKind::Damaged);
        }
    }
}
