//! Bytes to types and back: pure, bounded, no I/O.

pub mod entry;
pub mod node;
pub mod pack;
pub mod snapshot;
pub mod wire;
