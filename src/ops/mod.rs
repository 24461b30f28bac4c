//! One module for each capability.

pub mod backup;
pub mod init;
pub mod restore;
pub mod select;
