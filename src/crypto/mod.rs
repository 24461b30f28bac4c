//! Keys, one type for each purpose: none has a text form, `Debug` shows none, memory is wiped when one
//! is dropped. Everything derives from the root secret by `blake3::derive_key`, one context each.

pub mod frame;
pub mod keys;
pub mod seal;
pub mod sign;

pub use frame::FrameKey;
pub use keys::{
    ChunkIdKey, ChunkKeys, ChunkRoot, GearSeed, IndexKey, IndexRoot, NodeKey, NodeRoot, RegistryKey,
    RootSecret,
};
pub use seal::{Encapsulation, HpkeSeed, OpenKey, SealKey};
pub use sign::{SigningKey, VerifyingKey};

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;
    use crate::{
        chunk::Chunker,
        format::{secrets::Secrets, slot::AccessKey},
        repository::unlock::Credential,
    };

    #[test]
    fn whatever_holds_a_secret_wipes_it() {
        const fn wipes<T: ZeroizeOnDrop>() {}
        wipes::<(FrameKey, OpenKey, HpkeSeed)>();
        wipes::<(RootSecret, SigningKey, RegistryKey)>();
        wipes::<(IndexRoot, NodeRoot, ChunkRoot)>();
        wipes::<(IndexKey, NodeKey, ChunkIdKey, GearSeed, Chunker)>();
        wipes::<(Secrets, AccessKey, Credential)>();
    }
}
