//! What the parser of the arguments says: help, the version, and what is wrong with them.

use std::{io::Write, process::ExitCode};

use clap::error::ErrorKind as Clap;
use lifeboat::report::json;
use serde_json::json;

/// Whether the arguments ask for JSON, though they could not be read. What comes after `--` is somebody
/// else's.
fn wants_json() -> bool {
    std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

/// Says what the parser says.
pub(crate) fn answer(error: &clap::Error) -> ExitCode {
    let code = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    if !wants_json() {
        // A closed pipe is no trouble, and a closed standard error leaves the exit code to say it.
        drop(error.print());
        return code;
    }
    let text = error.render().to_string();
    let message = match error.kind() {
        Clap::DisplayHelp => json::message("help", json!({ "text": text })),
        Clap::DisplayVersion => json::message("version", json!({ "version": env!("CARGO_PKG_VERSION") })),
        _ => {
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let remedy = "`lifeboat COMMAND --help` shows what is possible";
            json::message(
                "exit_error",
                json!({ "code": 2, "message": first, "remedy": remedy, "causes": [] }),
            )
        }
    };
    drop(std::io::stdout().write_all(format!("{message}\n").as_bytes()));
    code
}
