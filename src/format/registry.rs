//! The registry: the newest one states everything about a repository that can change.

use minicbor::{Decode, Encode};

use super::role::Role;
use crate::{
    chunk::ChunkSizes,
    clock::Timestamp,
    crypto::VerifyingKey,
    error::{Error, ErrorKind, Result},
    id::{DomainId, IdentityId, ObjectId},
    limits,
};

/// Everything about a repository that can change. Signed by the root, chained.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Registry {
    /// 1 for the first.
    #[n(0)]
    pub number: u64,
    /// The one before.
    #[n(1)]
    pub previous: Option<ObjectId>,
    /// What a program must understand.
    #[n(2)]
    pub features: Features,
    /// Key epochs, oldest first.
    #[n(3)]
    pub epochs: Vec<Epoch>,
    /// Domains.
    #[n(4)]
    pub domains: Vec<Domain>,
    /// Identities.
    #[n(5)]
    pub certificates: Vec<Certificate>,
    /// Identities that count no longer.
    #[n(6)]
    pub revocations: Vec<Revocation>,
}

/// Features that a program must know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Features {
    /// To read.
    #[n(0)]
    pub read: Vec<String>,
    /// To write.
    #[n(1)]
    pub write: Vec<String>,
    /// To prune.
    #[n(2)]
    pub prune: Vec<String>,
}

/// Public keys that new data is sealed to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Epoch {
    /// 1 for the first.
    #[n(0)]
    pub number: u32,
    /// X-Wing public key for file contents.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub data: Vec<u8>,
    /// X-Wing public key for manifests and snapshots.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub metadata: Vec<u8>,
}

/// A unit of deduplication and isolation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Domain {
    /// Its name in the store.
    #[n(0)]
    pub id: DomainId,
    /// Its name for people.
    #[n(1)]
    pub name: String,
    /// Smallest chunk in bytes.
    #[n(2)]
    pub chunk_min: u32,
    /// Average chunk in bytes.
    #[n(3)]
    pub chunk_average: u32,
    /// Largest chunk in bytes.
    #[n(4)]
    pub chunk_max: u32,
}

impl Domain {
    /// A domain with the usual parameters.
    #[must_use]
    pub const fn new(id: DomainId, name: String) -> Self {
        let ChunkSizes { min, average, max } = ChunkSizes::DEFAULT;
        Self { id, name, chunk_min: min, chunk_average: average, chunk_max: max }
    }

    /// The parameters of its chunker.
    #[must_use]
    pub const fn chunk_sizes(&self) -> ChunkSizes {
        ChunkSizes { min: self.chunk_min, average: self.chunk_average, max: self.chunk_max }
    }
}

/// The root's word on what an identity may do.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Certificate {
    /// The identity.
    #[n(0)]
    pub identity: IdentityId,
    /// Its Ed25519 key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub verifying_key: [u8; 32],
    /// Its role.
    #[n(2)]
    pub role: Role,
    /// Its name for people.
    #[n(3)]
    pub label: String,
    /// The domain that it backs up to.
    #[n(4)]
    pub domain: Option<DomainId>,
    /// Several machines use it: a fork of its chain is no alarm.
    #[n(5)]
    pub shared: bool,
    /// When it was certified, by the owner's clock.
    #[n(6)]
    pub created: Timestamp,
}

impl Certificate {
    /// What checks its signatures.
    ///
    /// # Errors
    /// `Damaged` when it is no key.
    pub fn key(&self) -> Result<VerifyingKey> {
        VerifyingKey::from_bytes(&self.verifying_key)
    }
}

/// An identity that counts no longer, and the last that it left valid.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revocation {
    /// The identity.
    #[n(0)]
    pub identity: IdentityId,
    /// The last good number of its chain.
    #[n(1)]
    pub last_sequence: u64,
    /// The snapshot with that number.
    #[n(2)]
    pub last_id: Option<ObjectId>,
    /// When, by the owner's clock.
    #[n(3)]
    pub time: Timestamp,
}

impl<C> Encode<C> for Role {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> std::result::Result<(), minicbor::encode::Error<W::Error>> {
        e.str(self.name())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Role {
    fn decode(
        d: &mut minicbor::Decoder<'b>,
        _: &mut C,
    ) -> std::result::Result<Self, minicbor::decode::Error> {
        Self::from_name(d.str()?).ok_or_else(|| minicbor::decode::Error::message("the role is unknown"))
    }
}

impl Registry {
    /// The plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).unwrap_or_else(|error| unreachable!("writing to memory cannot fail: {error}"))
    }

    /// # Errors
    /// `Damaged` when it is not a registry, or does not hold together.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = |why: &str| Error::damaged("the registry", why);
        let registry: Self = minicbor::decode(bytes)
            .map_err(|e| damaged("it is not a valid map").with_source(e.to_string()))?;
        for certificate in &registry.certificates {
            if certificate.key()?.identity() != certificate.identity {
                return Err(damaged("a certificate names another identity than its key"));
            }
        }
        for Domain { chunk_min, chunk_average, chunk_max, .. } in &registry.domains {
            let even = [chunk_min, chunk_average, chunk_max].iter().all(|size| size.is_multiple_of(2));
            let ordered = 64 <= *chunk_min && chunk_min < chunk_average && chunk_average < chunk_max;
            if !even || !ordered || *chunk_max as usize > limits::CHUNK_BYTES_MAX {
                return Err(damaged("the chunk sizes of a domain are impossible"));
            }
        }
        Ok(registry)
    }

    /// # Errors
    /// `Failed` when the repository needs a feature that this program lacks. (It knows none yet.)
    pub fn check_features(&self) -> Result<()> {
        let Features { read, write, prune } = &self.features;
        match read.iter().chain(write).chain(prune).next() {
            None => Ok(()),
            Some(feature) => {
                Err(Error::new(ErrorKind::Failed, format!("the repository uses the feature `{feature}`"))
                    .with_remedy("This program does not know it: install a newer one"))
            }
        }
    }
}
