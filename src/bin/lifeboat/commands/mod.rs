//! One file for each command.

use clap::Subcommand;
use lifeboat::error::Result;

use crate::context::Context;

mod backup;
mod init;
mod restore;
mod snapshots;
mod sources;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a repository
    Init(init::Init),
    /// Back up files and folders, or what a command prints
    Backup(Box<backup::Backup>),
    /// List snapshots
    Snapshots(snapshots::Snapshots),
    /// Restore a snapshot, or a part of it, into a folder
    Restore(restore::Restore),
}

pub(crate) fn run(command: &Command, context: &Context<'_>) -> Result<()> {
    match command {
        Command::Init(arguments) => init::run(arguments, context),
        Command::Backup(arguments) => backup::run(arguments, context),
        Command::Snapshots(arguments) => snapshots::run(arguments, context),
        Command::Restore(arguments) => restore::run(arguments, context),
    }
}

/// Threads that work.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
