//! The `lifeboat` program: the only place that prints, reads the environment or ends the process.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Parser;
use lifeboat::error::{Error, Result};

use self::{args::Arguments, context::Context, profile::Settings, terminal::Output};

mod answer;
mod args;
mod commands;
mod context;
mod credentials;
mod display;
mod environment;
mod notify;
mod profile;
mod signals;
mod terminal;

/// Entries are made on one thread and dropped on another. With glibc's allocator the threads then wait for each
/// other's arenas (an unchanged backup took half as long again), and packs that were freed stay in each of them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    keep_secrets_out_of_dumps();
    let mut arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return answer::answer(&error),
    };
    raise_open_files();
    let output = Output::new(&arguments.common.show);
    if cfg!(debug_assertions) && io::stderr().is_terminal() {
        output.warn("this is a build for tests (without --release): its key slots hinder nobody who guesses passphrases");
    }
    let result = settle(&mut arguments).and_then(|settings| {
        let context = Context::new(&arguments.common, &output, &settings)?;
        let result = context.watched(|| commands::run(&arguments.command, &context));
        let result = match result {
            // Whatever failed because of it: the user asked to stop.
            Err(error) if context.progress.stopping() => Err(interrupted(error)),
            other => other,
        };
        let line = result.as_ref().map_or_else(|error| output.line_of(error), |()| "done".to_owned());
        context.notifier.end(result.is_ok(), &line);
        result
    });
    let result = result.and(output.finish());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.exit_error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// No core of this process is ever written, whoever asks for one: it holds keys. Nor may another process of the
/// same user look into its memory.
fn keep_secrets_out_of_dumps() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    match set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        // No kernel refuses it; a sandbox that does has its own ideas about dumps.
        Ok(()) | Err(_) => {}
    }
}

/// As many open files as the system allows: the usual soft limit of 1024 is for programs that use `select`.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        // Where that is refused the old limit stays, and a backup that meets it says so.
        Ok(()) | Err(_) => {}
    }
}

/// Fills in what the profile says.
fn settle(arguments: &mut Arguments) -> Result<Settings> {
    if !arguments.command.uses_a_profile() {
        return Ok(Settings::default());
    }
    let mut settings = profile::load(&arguments.common)?;
    settings.settle_common(&mut arguments.common);
    arguments.command.settle(&mut settings);
    Ok(settings)
}

fn interrupted(error: Error) -> Error {
    use lifeboat::error::ErrorKind;
    if error.kind() == ErrorKind::Interrupted {
        return error;
    }
    Error::new(ErrorKind::Interrupted, "interrupted")
        .with_remedy("Nothing that was stored is lost: run the command again to go on")
        .with_source(error)
}
