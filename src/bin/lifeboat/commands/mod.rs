//! One file for each command.

use std::{os::unix::ffi::OsStrExt, path::Path};

use clap::Subcommand;
use lifeboat::{
    error::{Error, ErrorKind, Result},
    filesystem::inside::Enclosure,
    report::{exit, text},
};

use crate::{args::FromArguments, context::Context, profile::Settings};

mod backup;
mod check;
mod config;
mod copy;
mod diff;
mod drill;
mod forget;
mod generate;
mod hold;
mod init;
mod key;
mod ls;
mod notes;
mod prune;
mod recover;
mod repair;
mod restore;
mod rewrite;
mod snapshots;
mod sources;
mod status;
mod tag;
mod usage;
mod verify;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a repository
    Init(init::Init),
    /// Back up files and folders, or what a command prints
    Backup(Box<backup::Backup>),
    /// List snapshots
    Snapshots(snapshots::Snapshots),
    /// List what a snapshot holds
    Ls(ls::Ls),
    /// Say what changed between two snapshots, or since one
    Diff(diff::Diff),
    /// Restore a snapshot, or a part of it, into a folder
    Restore(Box<restore::Restore>),
    /// Compare files with a snapshot, without reading stored data
    Verify(verify::Verify),
    /// Check a repository for damage
    Check(check::Check),
    /// Prove that backups come back, and keep the evidence
    Drill(drill::Drill),
    /// Say who backed up when, and who is overdue
    Status(status::Status),
    /// Change the tags of snapshots
    Tag(tag::Tag),
    /// Keep snapshots from being forgotten, whatever a rule says
    Hold(hold::HoldCommand),
    /// Copy snapshots without a path that was backed up by mistake
    Rewrite(rewrite::Rewrite),
    /// End snapshots that no rule keeps
    Forget(Box<forget::Forget>),
    /// Free what no snapshot needs any more
    Prune(prune::Prune),
    /// List again what the index has lost, and set aside what nobody can read
    Repair(repair::Repair),
    /// Find manifests that no snapshot names, and make snapshots of them
    Recover(recover::Recover),
    /// Copy snapshots from another repository
    Copy(Box<copy::Copy>),
    /// Account for every byte of the storage, by client or by folder
    Usage(usage::Usage),
    /// Identities, what unlocks them, and the recovery words
    Key(key::Key),
    /// What the profile, the environment and the flags say together
    Config(Box<config::Config>),
    /// Print the completions of a shell
    Completions(generate::Completions),
    /// Print a manual page, or write all of them
    Man(generate::Man),
}

impl Command {
    /// Whether it works on a repository at all.
    pub(crate) const fn uses_a_profile(&self) -> bool {
        !matches!(self, Self::Completions(_) | Self::Man(_))
    }

    /// Whether it writes nothing to the repository of `-r`, and so may look at the past.
    const fn only_reads(&self) -> bool {
        match self {
            Self::Snapshots(_)
            | Self::Ls(_)
            | Self::Diff(_)
            | Self::Restore(_)
            | Self::Verify(_)
            | Self::Check(_)
            | Self::Status(_)
            | Self::Usage(_)
            | Self::Config(_)
            | Self::Completions(_)
            | Self::Man(_) => true,
            Self::Drill(arguments) => arguments.only_reads(),
            Self::Key(arguments) => arguments.only_reads(),
            Self::Hold(arguments) => arguments.only_reads(),
            Self::Init(_)
            | Self::Backup(_)
            | Self::Tag(_)
            | Self::Rewrite(_)
            | Self::Forget(_)
            | Self::Prune(_)
            | Self::Repair(_)
            | Self::Recover(_)
            | Self::Copy(_) => false,
        }
    }

    /// Fills in what only this command takes from a profile.
    pub(crate) fn settle(&mut self, settings: &mut Settings) {
        match self {
            Self::Backup(arguments) => arguments.settle(settings),
            Self::Copy(arguments) => settings.settle_from(&mut arguments.from),
            Self::Config(arguments) => {
                arguments.backup.settle(settings);
                settings.settle_from(&mut FromArguments::default());
            }
            Self::Status(arguments) => arguments.settle(settings),
            _ => {}
        }
    }
}

pub(crate) fn run(command: &Command, context: &Context<'_>) -> Result<()> {
    if context.common.place.at.is_some() && !command.only_reads() {
        return Err(Error::new(ErrorKind::Usage, "--at reads a bucket as it was, and this command writes")
            .with_remedy(
                "Restore from it with `lifeboat --at TIME restore`, or copy its snapshots to another repository with \
                 `lifeboat copy --from-at TIME`",
            ));
    }
    if matches!(command, Command::Backup(_) | Command::Restore(_) | Command::Verify(_)) {
        warn_without_proc(context);
    }
    match command {
        Command::Init(arguments) => init::run(arguments, context),
        Command::Backup(arguments) => backup::run(arguments, context),
        Command::Snapshots(arguments) => snapshots::run(arguments, context),
        Command::Ls(arguments) => ls::run(arguments, context),
        Command::Diff(arguments) => diff::run(arguments, context),
        Command::Restore(arguments) => restore::run(arguments, context),
        Command::Verify(arguments) => verify::run(arguments, context),
        Command::Check(arguments) => check::run(arguments, context),
        Command::Drill(arguments) => drill::run(arguments, context),
        Command::Status(arguments) => status::run(arguments, context),
        Command::Tag(arguments) => tag::run(arguments, context),
        Command::Hold(arguments) => hold::run(arguments, context),
        Command::Rewrite(arguments) => rewrite::run(arguments, context),
        Command::Forget(arguments) => forget::run(arguments, context),
        Command::Prune(arguments) => prune::run(arguments, context),
        Command::Repair(arguments) => repair::run(arguments, context),
        Command::Recover(arguments) => recover::run(arguments, context),
        Command::Copy(arguments) => copy::run(arguments, context),
        Command::Usage(arguments) => usage::run(arguments, context),
        Command::Key(arguments) => key::run(arguments, context),
        Command::Config(arguments) => config::run(arguments, context),
        Command::Completions(arguments) => generate::completions(arguments, context),
        Command::Man(arguments) => generate::man(arguments, context),
    }
}

/// A rescue shell or a chroot may have no `/proc`. Without it the system tells nothing of mounts, and many attributes can
/// neither be read nor set: each is told then, but not why.
fn warn_without_proc(context: &Context<'_>) {
    if !Path::new("/proc/self/fd").try_exists().unwrap_or(false) {
        context.output.warn(
            "/proc is not mounted here: without it mounts are not seen, and attributes of links, pipes and devices are lost. Stop \
             this, `mount -t proc proc /proc`, and begin again",
        );
    }
}

/// Refuses what is in the repository: a backup would leave it out, and save an empty source.
///
/// # Errors
/// `Usage`.
fn refuse_as_source(path: &Path, repository: Option<&Enclosure>) -> Result<()> {
    if repository.is_some_and(|repository| repository.holds(path)) {
        return Err(Error::new(ErrorKind::Usage, "it is in the repository, which is never backed up")
            .with_remedy("Name what is to be backed up"));
    }
    Ok(())
}

/// Refuses to restore among the objects of the repository, or into the cache.
///
/// # Errors
/// `Usage`.
fn refuse_as_target(target: &Path, context: &Context<'_>) -> Result<()> {
    let places =
        [(context.location()?.folder(), "the repository itself"), (context.cache_folder(), "the cache")];
    for (folder, name) in places {
        if folder.and_then(|folder| Enclosure::new(&folder)).is_some_and(|folder| folder.holds(target)) {
            let what = format!("{} is in {name}", text::shown(target.as_os_str().as_bytes()));
            return Err(Error::new(ErrorKind::Usage, what).with_remedy("Name a target outside of it"));
        }
    }
    Ok(())
}

/// The error of which the exit code must be seen, if there is one.
fn worse(one: Result<()>, other: Result<()>) -> Result<()> {
    match (one, other) {
        (Err(one), Err(other)) if exit::worst([one.kind(), other.kind()]) == Some(other.kind()) => Err(other),
        (one, other) => one.and(other),
    }
}

/// Threads that work.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
