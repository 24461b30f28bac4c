//! One module for each capability.

pub mod annotate;
pub mod backup;
mod besides;
pub mod check;
pub mod copy;
mod deleting;
pub mod diff;
pub mod drill;
mod evidence;
pub mod forget;
mod frames;
mod holding;
pub mod init;
pub mod key;
mod links;
pub mod list;
pub mod prune;
mod publisher;
mod recent;
pub mod recover;
pub mod repair;
pub mod restore;
pub mod rewrite;
pub mod select;
pub mod status;
pub mod usage;
pub mod verify;

/// Whether anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is done.
    Write,
    /// Only tell.
    DryRun,
}
