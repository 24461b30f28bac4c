//! Bytes to types and back: pure, bounded, no I/O.

pub mod config;
pub mod entry;
pub mod envelope;
pub mod node;
pub mod pack;
pub mod registry;
pub mod role;
pub mod secrets;
pub mod slot;
pub mod snapshot;
pub mod wire;
