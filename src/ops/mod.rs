//! One module for each capability.

pub mod backup;
pub mod list;
pub mod restore;
pub mod verify;
