//! A batch of packs that are to die.

use minicbor::{Decode, Encode};

use crate::{
    clock::Timestamp,
    error::{Error, Result},
    id::PackId,
};

/// Packs that are to die: nobody borrows from them any more. By itself it authorises nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Tombstones {
    /// When, by the maintainer's clock. Its age is what the storage says, never this.
    #[n(0)]
    pub time: Timestamp,
    /// The packs.
    #[n(1)]
    pub packs: Vec<PackId>,
}

/// Most packs that one batch names.
pub const PACKS_MAX: usize = 1 << 16;

impl Tombstones {
    /// The plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        super::encode_record(self)
    }

    /// # Errors
    /// `Damaged` when it is not such a batch, or a larger one than may be.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let batch: Self = super::decode_record(bytes, "a batch of tombstones")?;
        if batch.packs.len() > PACKS_MAX {
            return Err(Error::damaged("a batch of tombstones", "it names more packs than one may"));
        }
        Ok(batch)
    }
}
