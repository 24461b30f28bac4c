//! Objects that are set aside: damaged or forged, out of every view, not deleted.

use minicbor::{Decode, Encode};

use crate::{
    clock::Timestamp,
    error::{Error, Result},
    limits,
};

/// Objects that are set aside.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Quarantine {
    /// When, by the maintainer's clock.
    #[n(0)]
    pub time: Timestamp,
    /// The names of the objects.
    #[n(1)]
    pub objects: Vec<String>,
    /// Why.
    #[n(2)]
    pub reason: String,
}

/// Most objects that one record names.
pub const OBJECTS_MAX: usize = 1 << 14;
/// Longest name of an object, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

impl Quarantine {
    /// The plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        super::encode_record(self)
    }

    /// # Errors
    /// `Damaged` when it is not such a record, or a larger one than may be.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let record: Self = super::decode_record(bytes, "a quarantine record")?;
        let long = record.objects.iter().any(|name| name.len() > NAME_BYTES_MAX);
        if long || record.objects.len() > OBJECTS_MAX || record.reason.len() > limits::REASON_BYTES_MAX {
            return Err(Error::damaged("a quarantine record", "it is larger than any may be"));
        }
        Ok(record)
    }
}
