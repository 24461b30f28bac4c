//! What the parser of the arguments says: help, the version, and what is wrong with them.

use std::{io::Write, process::ExitCode};

use clap::error::ErrorKind as Clap;
use lifeboat::report::json;
use serde_json::json;

const NO_TEXT: &str = "an argument is not UTF-8 text: only paths may have any bytes";
const NO_TEXT_REMEDY: &str = "In a pattern write `?` for each such byte: it stands for any one";

/// Whether the arguments ask for JSON, though they could not be read. What comes after `--` is somebody
/// else's.
fn wants_json() -> bool {
    std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

/// What is wrong, on one line: the parser puts the names of missing arguments on lines of their own.
fn what(kind: Clap, text: &str) -> String {
    if kind == Clap::DisplayHelpOnMissingArgumentOrSubcommand {
        return "the command is not complete: it needs arguments or a subcommand".to_owned();
    }
    let lines = text.trim_start_matches("error: ").lines().map(str::trim);
    let lines =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Says what the parser says.
pub(crate) fn answer(error: &clap::Error) -> ExitCode {
    let code = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    if !wants_json() {
        if error.kind() == Clap::InvalidUtf8 {
            // The parser names neither the argument nor what to do.
            drop(writeln!(std::io::stderr(), "lifeboat: {NO_TEXT}. {NO_TEXT_REMEDY}"));
            return code;
        }
        // A closed pipe is no trouble, and a closed standard error leaves the exit code to say it.
        drop(error.print());
        return code;
    }
    let text = error.render().to_string();
    let message = match error.kind() {
        Clap::DisplayHelp => json::message("help", json!({ "text": text })),
        Clap::DisplayVersion => json::message("version", json!({ "version": env!("CARGO_PKG_VERSION") })),
        _ => {
            let (what, remedy) = match error.kind() {
                Clap::InvalidUtf8 => (NO_TEXT.to_owned(), NO_TEXT_REMEDY),
                kind => (what(kind, &text), "`lifeboat COMMAND --help` shows what is possible"),
            };
            json::message("exit_error", json!({ "code": 2, "message": what, "remedy": remedy, "causes": [] }))
        }
    };
    drop(std::io::stdout().write_all(format!("{message}\n").as_bytes()));
    code
}
