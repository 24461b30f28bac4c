//! One module for each capability.

pub mod backup;
pub mod restore;
