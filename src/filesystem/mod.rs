//! Local files: read as they are, restored inside their target, written durably.

pub mod durable;
