//! One module for each capability.

pub mod backup;
pub mod check;
pub mod key;
pub mod list;
pub mod restore;
pub mod verify;
