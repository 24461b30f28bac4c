//! What an identity holds: the content of a key slot.

use minicbor::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::role::Role;
use crate::{
    crypto::{
        ChunkIdKey, ChunkKeys, ChunkRoot, GearSeed, HpkeSeed, IndexKey, IndexRoot, NodeKey, NodeRoot,
        OpenKey, RegistryKey, RootSecret, SigningKey,
    },
    error::Result,
    id::{DomainId, IdentityId, RepositoryId},
};

/// A secret of 32 bytes on its way through CBOR.
#[derive(Clone, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(transparent)]
struct Key(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]);

#[derive(Clone, Encode, Decode, ZeroizeOnDrop)]
#[cbor(map)]
struct SeedsOf {
    #[n(0)]
    #[zeroize(skip)]
    epoch: u32,
    #[n(1)]
    metadata: Key,
    #[n(2)]
    data: Option<Key>,
}

/// Keys of one domain, for a backup identity.
#[derive(Clone, Encode, Decode, ZeroizeOnDrop)]
#[cbor(map)]
struct DomainSecrets {
    #[n(0)]
    #[zeroize(skip)]
    id: DomainId,
    #[n(1)]
    index: Key,
    #[n(2)]
    node: Key,
    #[n(3)]
    chunk: Key,
    #[n(4)]
    gear: Key,
}

/// Everything that an identity holds. A role is a set of secrets.
#[derive(Clone, Encode, Decode, ZeroizeOnDrop)]
#[cbor(map)]
pub struct Secrets {
    #[n(0)]
    #[zeroize(skip)]
    role: Role,
    #[n(1)]
    #[zeroize(skip)]
    repository: RepositoryId,
    #[cbor(n(2), with = "minicbor::bytes")]
    #[zeroize(skip)]
    root_public: [u8; 32],
    #[n(3)]
    signing: Key,
    #[n(4)]
    registry: Key,
    #[n(5)]
    root: Option<Key>,
    #[n(6)]
    index_root: Option<Key>,
    #[n(7)]
    node_root: Option<Key>,
    #[n(8)]
    chunk_root: Option<Key>,
    #[n(9)]
    domain: Option<DomainSecrets>,
    #[n(10)]
    epochs: Vec<SeedsOf>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.role.name())
    }
}

impl Secrets {
    /// What the first owner holds, whom the recovery words open: the root.
    #[must_use]
    pub fn owner(root: &RootSecret) -> Self {
        let mut secrets = Self::common(root, Role::Owner, &root.owner_identity());
        secrets.root = Some(Key(*root.as_bytes()));
        secrets
    }

    fn common(root: &RootSecret, role: Role, signer: &SigningKey) -> Self {
        Self {
            role,
            repository: root.repository_id(),
            root_public: root.signing_key().verifying_key().to_bytes(),
            signing: Key(*signer.seed()),
            registry: Key(*root.registry_key().as_bytes()),
            root: None,
            index_root: None,
            node_root: None,
            chunk_root: None,
            domain: None,
            epochs: Vec::new(),
        }
    }

    /// What a new identity of `role` holds, with a signing key of its own. A backup role gets the keys of
    /// its domain and no other.
    ///
    /// # Errors
    /// No randomness.
    pub fn for_role(root: &RootSecret, role: Role, domain: Option<DomainId>, epochs: &[u32]) -> Result<Self> {
        let mut secrets = Self::common(root, role, &SigningKey::generate()?);
        if role == Role::Owner {
            // Another owner has a chain of its own; the words always open the first one.
            secrets.root = Some(Key(*root.as_bytes()));
            return Ok(secrets);
        }
        if role == Role::Backup {
            secrets.domain = domain.map(|id| {
                let chunk = root.chunk_root().domain(&id);
                DomainSecrets {
                    id,
                    index: Key(*root.index_root().domain(&id).as_bytes()),
                    node: Key(*root.node_root().domain(&id).as_bytes()),
                    chunk: Key(*chunk.id.as_bytes()),
                    gear: Key(*chunk.gear.as_bytes()),
                }
            });
            return Ok(secrets);
        }
        let reads_data = role == Role::Restore;
        secrets.index_root = Some(Key(*root.index_root().as_bytes()));
        secrets.node_root = Some(Key(*root.node_root().as_bytes()));
        secrets.chunk_root = reads_data.then(|| Key(*root.chunk_root().as_bytes()));
        let seeds = |epoch: &u32| SeedsOf {
            epoch: *epoch,
            metadata: Key(*root.metadata_seed(*epoch).as_bytes()),
            data: reads_data.then(|| Key(*root.data_seed(*epoch).as_bytes())),
        };
        secrets.epochs = epochs.iter().map(seeds).collect();
        Ok(secrets)
    }

    /// The plaintext of a slot.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // All of it is reserved before: a vector that grows leaves copies behind.
        let epochs = self.epochs.len() * size_of::<SeedsOf>() * 2;
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024 + epochs));
        match minicbor::encode(self, &mut *bytes) {
            Ok(()) => bytes,
            Err(error) => unreachable!("writing to memory cannot fail: {error}"),
        }
    }

    /// # Errors
    /// `Damaged` when it is not the content of a slot.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        super::decode_record(bytes, "the content of a key slot")
    }

    /// The role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The repository that it unlocks.
    #[must_use]
    pub const fn repository_id(&self) -> RepositoryId {
        self.repository
    }

    /// What `config` and the registry must be signed by.
    #[must_use]
    pub const fn root_public_key(&self) -> [u8; 32] {
        self.root_public
    }

    /// The root, which only the owner holds.
    #[must_use]
    pub fn root(&self) -> Option<RootSecret> {
        self.root.as_ref().map(|key| RootSecret::from_bytes(key.0))
    }

    /// Signs as the identity.
    #[must_use]
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_seed(&self.signing.0)
    }

    /// The identity.
    #[must_use]
    pub fn identity(&self) -> IdentityId {
        self.signing_key().identity()
    }

    /// Opens the registry.
    #[must_use]
    pub fn registry_key(&self) -> RegistryKey {
        RegistryKey::from_bytes(self.registry.0)
    }

    fn own(&self, domain: &DomainId) -> Option<&DomainSecrets> {
        self.domain.as_ref().filter(|own| own.id == *domain)
    }

    /// The index key of a domain, if the role holds it.
    #[must_use]
    pub fn index_key(&self, domain: &DomainId) -> Option<IndexKey> {
        let root = self.root().map(|root| root.index_root());
        let root = root.or_else(|| self.index_root.as_ref().map(|key| IndexRoot::from_bytes(key.0)));
        let derived = root.map(|root| root.domain(domain));
        derived.or_else(|| self.own(domain).map(|own| IndexKey::from_bytes(own.index.0)))
    }

    /// The node-id key of a domain, if the role holds it.
    #[must_use]
    pub fn node_key(&self, domain: &DomainId) -> Option<NodeKey> {
        let root = self.root().map(|root| root.node_root());
        let root = root.or_else(|| self.node_root.as_ref().map(|key| NodeRoot::from_bytes(key.0)));
        let derived = root.map(|root| root.domain(domain));
        derived.or_else(|| self.own(domain).map(|own| NodeKey::from_bytes(own.node.0)))
    }

    /// The chunk keys of a domain, if the role holds them.
    #[must_use]
    pub fn chunk_keys(&self, domain: &DomainId) -> Option<ChunkKeys> {
        let root = self.root().map(|root| root.chunk_root());
        let root = root.or_else(|| self.chunk_root.as_ref().map(|key| ChunkRoot::from_bytes(key.0)));
        root.map(|root| root.domain(domain)).or_else(|| {
            let own = self.own(domain)?;
            Some(ChunkKeys {
                id: ChunkIdKey::from_bytes(own.chunk.0),
                gear: GearSeed::from_bytes(own.gear.0),
            })
        })
    }

    /// Opens manifests and snapshots of an epoch, if the role can.
    #[must_use]
    pub fn open_metadata(&self, epoch: u32) -> Option<OpenKey> {
        if let Some(root) = self.root() {
            return Some(root.metadata_seed(epoch).open_key());
        }
        let seeds = self.epochs.iter().find(|seeds| seeds.epoch == epoch)?;
        Some(HpkeSeed::from_bytes(seeds.metadata.0).open_key())
    }

    /// Opens file contents of an epoch, if the role can.
    #[must_use]
    pub fn open_data(&self, epoch: u32) -> Option<OpenKey> {
        if let Some(root) = self.root() {
            return Some(root.data_seed(epoch).open_key());
        }
        let seeds = self.epochs.iter().find(|seeds| seeds.epoch == epoch)?;
        seeds.data.as_ref().map(|key| HpkeSeed::from_bytes(key.0).open_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_holds_what_the_table_says_and_no_more() {
        let root = RootSecret::from_bytes([1; 32]);
        let (own, other) = (DomainId::new([1; 8]), DomainId::new([2; 8]));
        // Index and node keys of another domain, chunk keys of the own one, metadata, data, root.
        let table = [
            (Role::Backup, [false, true, false, false, false]),
            (Role::Audit, [true, false, true, false, false]),
            (Role::Maintain, [true, false, true, false, false]),
            (Role::Restore, [true, true, true, true, false]),
            (Role::Owner, [true, true, true, true, true]),
        ];
        for (role, expected) in table {
            let secrets = Secrets::for_role(&root, role, Some(own), &[1]).unwrap();
            let secrets = Secrets::decode(&secrets.encode()).unwrap();
            assert!(secrets.index_key(&own).is_some() && secrets.node_key(&own).is_some());
            let holds = [
                secrets.index_key(&other).is_some() && secrets.node_key(&other).is_some(),
                secrets.chunk_keys(&own).is_some(),
                secrets.open_metadata(1).is_some(),
                secrets.open_data(1).is_some(),
                secrets.root().is_some(),
            ];
            assert_eq!(holds, expected, "{role:?}");
            assert_eq!(secrets.role(), role);
        }
    }
}
