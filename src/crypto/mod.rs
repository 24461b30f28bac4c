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
