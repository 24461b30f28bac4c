//! lifeboat: disaster-recovery backups. The library behind the `lifeboat` program.
//! `docs/architecture.md` draws the layers; `tests/architecture.rs` checks them.

pub mod chunk;
pub mod clock;
pub mod compress;
pub mod crypto;
pub mod error;
pub mod filesystem;
pub mod format;
pub mod id;
pub mod limits;
pub mod ops;
pub mod progress;
pub mod random;
pub mod report;
pub mod repository;
pub mod sabotage;
pub mod store;

#[cfg(test)]
#[path = "../tests/support/skip.rs"]
mod skip;
