//! Bytes to types and back: pure, bounded, no I/O.

pub mod entry;
