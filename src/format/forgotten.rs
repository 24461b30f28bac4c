//! A batch of snapshots that end, and why.

use minicbor::{Decode, Encode};

use crate::{
    clock::Timestamp,
    error::{Error, Result},
    id::ObjectId,
    limits,
};

/// Snapshots that end: written before they are deleted, and kept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Forgotten {
    /// When, by the maintainer's clock.
    #[n(0)]
    pub time: Timestamp,
    /// The snapshots.
    #[n(1)]
    pub snapshots: Vec<ObjectId>,
    /// Why, and by which rule.
    #[n(2)]
    pub reason: String,
}

/// Most snapshots that one batch names.
pub const SNAPSHOTS_MAX: usize = 1 << 15;

impl Forgotten {
    /// The plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        super::encode_record(self)
    }

    /// # Errors
    /// `Damaged` when it is not such a batch, or a larger one than may be.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let batch: Self = super::decode_record(bytes, "a forgotten record")?;
        if batch.snapshots.len() > SNAPSHOTS_MAX || batch.reason.len() > limits::REASON_BYTES_MAX {
            return Err(Error::damaged("a forgotten record", "it is larger than any may be"));
        }
        Ok(batch)
    }
}
