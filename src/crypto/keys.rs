//! The root secret, its 24 words, and what derives from it.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{HpkeSeed, SigningKey};
use crate::{
    error::{Error, ErrorKind, Result},
    id::{BlobId, DomainId, RepositoryId},
};

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, ZeroizeOnDrop)]
        pub struct $name(Zeroizing<[u8; 32]>);

        impl $name {
            /// Wraps the bytes of the secret.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(Zeroizing::new(bytes))
            }

            /// The bytes of the secret.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

secret!(
    /// The secret that a repository begins with: shown once as 24 words, everything derives from it.
    RootSecret
);
secret!(
    /// Seals the registry; every role holds it.
    RegistryKey
);
secret!(
    /// The index keys of all domains derive from it.
    IndexRoot
);
secret!(
    /// The node-id keys of all domains derive from it.
    NodeRoot
);
secret!(
    /// The chunk-id and chunker keys of all domains derive from it.
    ChunkRoot
);
secret!(
    /// Seals directories, indexes and the records that only name packs and snapshots, in one domain.
    IndexKey
);
secret!(
    /// Names manifest nodes and decides where they are cut, in one domain.
    NodeKey
);
secret!(
    /// Names chunks, in one domain.
    ChunkIdKey
);
secret!(
    /// Gives the gear table of the chunker, in one domain.
    GearSeed
);

/// What a domain needs to cut and name chunks.
#[derive(Clone, Debug)]
pub struct ChunkKeys {
    /// Names chunks.
    pub id: ChunkIdKey,
    /// Cuts them.
    pub gear: GearSeed,
}

fn derive(purpose: &str, secret: &[u8; 32], what: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(&format!("lifeboat v1 {purpose}"));
    hasher.update(secret);
    hasher.update(what);
    let bytes = *hasher.finalize().as_bytes();
    hasher.zeroize();
    bytes
}

impl RootSecret {
    /// A new one.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|e| Error::new(ErrorKind::Failed, "the system gave no random numbers").with_source(e))?;
        Ok(Self::from_bytes(bytes))
    }

    /// The 24 recovery words (BIP-39, English).
    #[must_use]
    pub fn words(&self) -> Zeroizing<String> {
        let words = bip39::Mnemonic::from_entropy(&self.0[..]).map(|words| words.to_string());
        Zeroizing::new(words.unwrap_or_else(|error| unreachable!("32 bytes always have words: {error}")))
    }

    /// Reads the 24 words, however they are spaced and capitalised.
    ///
    /// # Errors
    /// `CannotUnlock` when they are not 24 words of the list with the right checksum.
    pub fn from_words(text: &str) -> Result<Self> {
        let text = Zeroizing::new(text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase());
        let wrong = || {
            Error::new(ErrorKind::CannotUnlock, "these are not the 24 recovery words")
                .with_remedy("Check their order and spelling: the last word is a checksum of the others")
        };
        let words = bip39::Mnemonic::parse_in_normalized(bip39::Language::English, &text)
            .map_err(|e| wrong().with_source(e))?;
        let entropy = Zeroizing::new(words.to_entropy());
        let bytes: [u8; 32] =
            entropy[..].try_into().map_err(|e: std::array::TryFromSliceError| wrong().with_source(e))?;
        Ok(Self::from_bytes(bytes))
    }

    /// The name of the repository.
    #[must_use]
    pub fn repository_id(&self) -> RepositoryId {
        RepositoryId::new(derive("repository id", &self.0, b""))
    }

    /// Signs the registry.
    #[must_use]
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_seed(&Zeroizing::new(derive("root signing key", &self.0, b"")))
    }

    /// Signs what the owner backs up, on whatever machine.
    #[must_use]
    pub fn owner_identity(&self) -> SigningKey {
        SigningKey::from_seed(&Zeroizing::new(derive("owner signing key", &self.0, b"")))
    }

    /// Seals the registry.
    #[must_use]
    pub fn registry_key(&self) -> RegistryKey {
        RegistryKey::from_bytes(derive("registry key", &self.0, b""))
    }

    /// See [`IndexRoot`].
    #[must_use]
    pub fn index_root(&self) -> IndexRoot {
        IndexRoot::from_bytes(derive("index root", &self.0, b""))
    }

    /// See [`NodeRoot`].
    #[must_use]
    pub fn node_root(&self) -> NodeRoot {
        NodeRoot::from_bytes(derive("node root", &self.0, b""))
    }

    /// See [`ChunkRoot`].
    #[must_use]
    pub fn chunk_root(&self) -> ChunkRoot {
        ChunkRoot::from_bytes(derive("chunk root", &self.0, b""))
    }

    /// The seed of the key pair that file contents of an epoch are sealed to.
    #[must_use]
    pub fn data_seed(&self, epoch: u32) -> HpkeSeed {
        HpkeSeed::from_bytes(derive("data seed", &self.0, &epoch.to_le_bytes()))
    }

    /// The seed of the key pair that manifests and snapshots of an epoch are sealed to.
    #[must_use]
    pub fn metadata_seed(&self, epoch: u32) -> HpkeSeed {
        HpkeSeed::from_bytes(derive("metadata seed", &self.0, &epoch.to_le_bytes()))
    }
}

impl IndexRoot {
    /// The index key of a domain.
    #[must_use]
    pub fn domain(&self, domain: &DomainId) -> IndexKey {
        IndexKey::from_bytes(derive("domain index key", &self.0, domain.as_bytes()))
    }
}

impl NodeRoot {
    /// The node-id key of a domain.
    #[must_use]
    pub fn domain(&self, domain: &DomainId) -> NodeKey {
        NodeKey::from_bytes(derive("domain node key", &self.0, domain.as_bytes()))
    }
}

impl ChunkRoot {
    /// The chunk keys of a domain.
    #[must_use]
    pub fn domain(&self, domain: &DomainId) -> ChunkKeys {
        ChunkKeys {
            id: ChunkIdKey::from_bytes(derive("domain chunk key", &self.0, domain.as_bytes())),
            gear: GearSeed::from_bytes(derive("domain gear", &self.0, domain.as_bytes())),
        }
    }
}

impl IndexKey {
    /// Authenticates what the local cache keeps.
    #[must_use]
    pub fn cache_mac(&self, bytes: &[u8]) -> [u8; 32] {
        let key = Zeroizing::new(derive("cache", &self.0, b""));
        *blake3::keyed_hash(&key, bytes).as_bytes()
    }
}

impl IndexKey {
    /// Authenticates the index as the local cache keeps it.
    #[must_use]
    pub fn segment_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(derive("index segment", &self.0, b""))
    }
}

impl NodeKey {
    /// The id of a manifest node.
    #[must_use]
    pub fn id(&self, plain: &[u8]) -> BlobId {
        BlobId::new(*blake3::keyed_hash(&self.0, plain).as_bytes())
    }

    /// A number that decides whether a node is cut before `path` at `level`.
    #[must_use]
    pub fn boundary(&self, level: u8, path: &[u8]) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // A node never begins with these bytes, so a boundary is never an id.
        hasher.update(&[0xff, level]);
        hasher.update(path);
        let mut word = [0; 8];
        hasher.finalize_xof().fill(&mut word);
        u64::from_le_bytes(word)
    }
}

impl ChunkIdKey {
    /// The id of a chunk.
    #[must_use]
    pub fn id(&self, plain: &[u8]) -> BlobId {
        BlobId::new(*blake3::keyed_hash(&self.0, plain).as_bytes())
    }
}

impl GearSeed {
    /// The secret table of the chunker.
    #[must_use]
    pub fn table(&self) -> Box<[u64; 256]> {
        let mut bytes = Zeroizing::new([0; 2048]);
        blake3::Hasher::new_keyed(&self.0).finalize_xof().fill(&mut bytes[..]);
        let mut table = Box::new([0; 256]);
        for (word, chunk) in table.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::to_hex;

    #[test]
    fn the_words_of_a_root_give_the_same_root_and_nothing_else_does() {
        let root = RootSecret::from_bytes([7; 32]);
        let words = root.words();
        assert_eq!(words.split(' ').count(), 24);
        let typed = format!("  {}\n", words.to_uppercase().replace(' ', "  "));
        assert_eq!(RootSecret::from_words(&typed).unwrap().as_bytes(), root.as_bytes());
        let swapped = words.split(' ').rev().collect::<Vec<_>>().join(" ");
        for wrong in ["", "one two", "abandon abandon abandon", swapped.as_str()] {
            assert_eq!(RootSecret::from_words(wrong).unwrap_err().kind(), ErrorKind::CannotUnlock);
        }
    }

    #[test]
    fn every_derivation_is_pinned() {
        let (root, domain) = (RootSecret::from_bytes([1; 32]), DomainId::new([2; 8]));
        let chunk = root.chunk_root().domain(&domain);
        let got = [
            *root.repository_id().as_bytes(),
            root.signing_key().verifying_key().to_bytes(),
            root.owner_identity().verifying_key().to_bytes(),
            *root.registry_key().as_bytes(),
            *root.index_root().domain(&domain).as_bytes(),
            *root.node_root().domain(&domain).as_bytes(),
            *chunk.id.as_bytes(),
            *chunk.gear.as_bytes(),
            *root.data_seed(1).as_bytes(),
            *root.metadata_seed(1).as_bytes(),
        ];
        let all = to_hex(blake3::hash(&got.concat()).as_bytes());
        assert_eq!(all, PINNED, "a change here makes every existing repository unreadable");
        let distinct: std::collections::HashSet<_> = got.iter().collect();
        assert_eq!(distinct.len(), got.len());
    }

    const PINNED: &str = "aeb71cb731ebb244f1f231366bde6ae57ffeda811520854e7e4b3f150e1898e5";

    #[test]
    fn no_secret_is_printed() {
        let root = RootSecret::from_bytes([0x5a; 32]);
        let printed = format!("{root:?} {:?} {:?}", root.index_root(), root.signing_key());
        assert!(!printed.contains("5a5a") && !printed.contains("90, 90"), "{printed}");
    }
}
