//! A batch of snapshots that end, and why.

use minicbor::{Decode, Encode};

use crate::{
    clock::Timestamp,
    error::{Error, Result},
    id::{IdentityId, ObjectId},
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
    /// Where each of them stood, in the order of `snapshots`; empty in records of before there was this field.
    #[n(3)]
    #[cbor(skip_if = "Vec::is_empty")]
    pub places: Vec<ChainPlace>,
    /// The newest snapshot of each chain of the domain at that time, which stays, but for those that another record names:
    /// whoever finds it gone, and nobody has ended it since, knows that it is lost.
    #[n(4)]
    #[cbor(skip_if = "Vec::is_empty")]
    pub heads: Vec<ChainEnd>,
}

/// A place in a chain of snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct ChainPlace {
    /// Whose chain it is.
    #[n(0)]
    pub identity: IdentityId,
    /// The number in it, from 1.
    #[n(1)]
    pub sequence: u64,
}

/// The newest snapshot of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct ChainEnd {
    /// Where it stands.
    #[n(0)]
    pub place: ChainPlace,
    /// Its id.
    #[n(1)]
    pub id: ObjectId,
}

/// Most chains of which one batch names the newest snapshot.
pub const HEADS_MAX: usize = 1 << 15;
/// Most snapshots that one batch names.
pub const SNAPSHOTS_MAX: usize = 1 << 15;

impl Forgotten {
    /// A batch that says no more than which end and why, as all of them did before they told places and ends of chains.
    #[must_use]
    pub fn new(time: Timestamp, snapshots: Vec<ObjectId>, reason: impl Into<String>) -> Self {
        Self { time, snapshots, reason: reason.into(), places: Vec::new(), heads: Vec::new() }
    }

    /// The plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        super::encode_record(self)
    }

    /// # Errors
    /// `Damaged` when it is not such a batch, or a larger one than may be.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let batch: Self = super::decode_record(bytes, "a forgotten record")?;
        let is_larger = batch.snapshots.len() > SNAPSHOTS_MAX || batch.heads.len() > HEADS_MAX;
        if is_larger || batch.reason.len() > limits::REASON_BYTES_MAX {
            return Err(Error::damaged("a forgotten record", "it is larger than any may be"));
        }
        if !batch.places.is_empty() && batch.places.len() != batch.snapshots.len() {
            return Err(Error::damaged("a forgotten record", "it has not one place for each snapshot"));
        }
        Ok(batch)
    }
}
