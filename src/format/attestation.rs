//! An attestation: a verifier's word that sections hold what their directories say.

use minicbor::{Decode, Encode};

use super::{
    pack::{Directory, Frame},
    wire::Writer,
};
use crate::{
    clock::Timestamp,
    compress::Codec,
    error::{Error, Result},
    id::SectionId,
};

/// Sections that were verified by decrypting every frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Attestation {
    /// When, by the verifier's clock.
    #[n(0)]
    pub time: Timestamp,
    /// The sections.
    #[n(1)]
    pub sections: Vec<AttestedSection>,
}

/// A section and what was found in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct AttestedSection {
    /// The section.
    #[n(0)]
    pub id: SectionId,
    /// See [`digest`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub digest: [u8; 32],
}

/// Most sections that one attestation names.
pub const SECTIONS_MAX: usize = 1 << 15;

/// What an attestation says of a section: its frames in the order of their counters, the hash of each,
/// and the blobs that each is said to hold. Without the blobs a directory could give attested frames
/// other names.
#[must_use]
pub fn digest(directory: &Directory, section: u16) -> [u8; 32] {
    digest_of(directory.frames.iter().filter(|frame| frame.section == section).collect())
}

/// The [`digest`] of every section of a directory, in their order.
#[must_use]
pub fn digests(directory: &Directory) -> Vec<[u8; 32]> {
    let mut frames: Vec<Vec<&Frame>> = directory.sections.iter().map(|_| Vec::new()).collect();
    for frame in &directory.frames {
        if let Some(of_section) = frames.get_mut(usize::from(frame.section)) {
            of_section.push(frame);
        }
    }
    frames.into_iter().map(digest_of).collect()
}

fn digest_of(mut frames: Vec<&Frame>) -> [u8; 32] {
    frames.sort_by_key(|frame| frame.counter);
    let mut out = Writer::new();
    for frame in frames {
        out.u32(frame.counter);
        out.raw(&frame.hash);
        out.u8(match frame.codec {
            Codec::Raw => 0,
            Codec::Zstd => 1,
        });
        out.count(frame.blobs.len());
        for blob in &frame.blobs {
            out.raw(blob.id.as_bytes());
            out.u32(blob.length);
        }
    }
    blake3::derive_key("lifeboat v1 attested section", &out.finish())
}

impl Attestation {
    /// The plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        super::encode_record(self)
    }

    /// # Errors
    /// `Damaged` when it is not an attestation, or names more sections than one may.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let attestation: Self = super::decode_record(bytes, "an attestation")?;
        if attestation.sections.len() > SECTIONS_MAX {
            return Err(Error::damaged("an attestation", "it names more sections than one may"));
        }
        Ok(attestation)
    }
}
