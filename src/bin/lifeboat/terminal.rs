//! Standard output and standard error. Results go to the one, everything else to the other; under `--json`
//! all of it goes to standard output as objects, and nothing but objects goes there. A reader that closes
//! the pipe ends the output, not the work. Where standard error is the journal, its lines carry their level
//! instead of the program's name, which the journal shows anyway.

use std::{
    error::Error as _,
    io::{self, BufWriter, IsTerminal, Stdout, Write},
    sync::{Mutex, PoisonError},
};

use lifeboat::{
    error::{Error, ErrorKind, Result},
    report::{json, text},
};
use serde_json::{Value, json};

use crate::{args::Show, environment};

/// In which form results are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much a line on standard error matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Why the command failed.
    Error,
    /// What is wrong with a part, while the command goes on.
    Problem,
    /// Something to change some day.
    Warning,
    /// Good to know.
    Info,
}

#[derive(Debug)]
struct Standard {
    out: BufWriter<Stdout>,
    closed: bool,
    failed: Option<io::Error>,
}

/// Where a command says what it has to say.
#[derive(Debug)]
pub(crate) struct Output {
    form: Form,
    quiet: bool,
    verbosity: u8,
    journal: bool,
    standard: Mutex<Standard>,
}

impl Output {
    pub(crate) fn new(show: &Show) -> Self {
        let form = if show.json { Form::Json } else { Form::Text };
        let standard = Standard { out: BufWriter::new(io::stdout()), closed: false, failed: None };
        let (quiet, verbosity, journal) = (show.quiet, show.verbose, is_journal());
        Self { form, quiet, verbosity, journal, standard: Mutex::new(standard) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    pub(crate) const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether more is wanted than what is good to know.
    pub(crate) const fn is_verbose(&self) -> bool {
        self.verbosity > 0
    }

    /// Whether nobody reads any more: a long list may end.
    pub(crate) fn is_closed(&self) -> bool {
        self.standard.lock().unwrap_or_else(PoisonError::into_inner).closed
    }

    fn write(&self, line: &str) {
        let mut standard = self.standard.lock().unwrap_or_else(PoisonError::into_inner);
        if standard.closed || standard.failed.is_some() {
            return;
        }
        let result = standard.out.write_all(line.as_bytes()).and_then(|()| standard.out.write_all(b"\n"));
        standard.note(result);
    }

    /// Sends what waits.
    pub(crate) fn flush(&self) {
        let mut standard = self.standard.lock().unwrap_or_else(PoisonError::into_inner);
        if !standard.closed && standard.failed.is_none() {
            let result = standard.out.flush();
            standard.note(result);
        }
    }

    /// A line of the result that was asked for.
    pub(crate) fn say(&self, line: &str) {
        if !self.is_json() {
            self.write(line);
        }
    }

    /// A line that is good to know; `--quiet` leaves it out.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            self.say(line);
        }
    }

    /// A message for machines.
    pub(crate) fn message(&self, message: &Value) {
        if self.is_json() {
            self.write(&message.to_string());
        }
    }

    /// Whether standard error is the journal: nobody watches, and somebody reads it later.
    pub(crate) const fn is_journal(&self) -> bool {
        self.journal
    }

    /// A line on standard error.
    pub(crate) fn aside(&self, level: Level, text: &str) {
        self.flush();
        let text = if self.journal { for_the_journal(level, text) } else { for_a_terminal(level, text) };
        // Where even standard error cannot be written, the exit code has to say it.
        drop(io::stderr().write_all(text.as_bytes()));
    }

    /// A line that only the journal gets.
    pub(crate) fn journal(&self, line: &str) {
        if self.journal && !self.quiet && !self.is_json() {
            self.aside(Level::Info, line);
        }
    }

    /// Something the user should change, though it does not stop the command.
    pub(crate) fn warn(&self, warning: &str) {
        match self.form {
            Form::Text => self.aside(Level::Warning, &text::shown(warning.as_bytes())),
            Form::Json => self.message(&json::message("warning", json!({ "message": warning }))),
        }
    }

    /// What is wrong with one entry.
    pub(crate) fn problem(&self, entry: &[u8], kind: ErrorKind, what: &str, remedy: Option<&str>) {
        match self.form {
            Form::Text => {
                let what = remedy.map_or_else(|| what.to_owned(), |remedy| format!("{what}. {remedy}"));
                let what = text::shown(what.as_bytes());
                self.aside(Level::Problem, &format!("{}: {what}", text::path(entry)));
            }
            Form::Json => {
                let fields = json!({ "code": kind.exit_code(), "message": what, "remedy": remedy });
                self.message(&json::with_path(json::message("error", fields), &json::absolute(entry)));
            }
        }
    }

    /// What is wrong with something that has no path.
    pub(crate) fn trouble(&self, error: &Error) {
        match self.form {
            Form::Text => self.aside(Level::Problem, &self.line_of(error)),
            Form::Json => {
                let fields = json!({
                    "code": error.kind().exit_code(),
                    "message": error.to_string(),
                    "remedy": error.remedy(),
                });
                self.message(&json::message("error", fields));
            }
        }
    }

    /// Why the command did not end with 0: the last line.
    pub(crate) fn exit_error(&self, error: &Error) {
        match self.form {
            Form::Text => self.aside(Level::Error, &self.line_of(error)),
            Form::Json => self.message(&json::exit_error(error)),
        }
        self.flush();
    }

    /// `WHAT: WHY. REMEDY`, and with `-v` the causes.
    pub(crate) fn line_of(&self, error: &Error) -> String {
        let mut line = text::shown(error.to_string().as_bytes());
        if let Some(remedy) = error.remedy() {
            line += &format!(". {}", text::shown(remedy.as_bytes()));
        }
        let mut cause = error.source().filter(|_| self.verbosity > 0);
        while let Some(error) = cause {
            line += &format!("\n  because: {}", text::shown(error.to_string().as_bytes()));
            cause = error.source();
        }
        line
    }

    /// How wide lines may be; `None` where nobody looks at a terminal.
    pub(crate) fn width(&self) -> Option<usize> {
        if !io::stdout().is_terminal() {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        (size.ws_col > 0).then_some(usize::from(size.ws_col))
    }

    /// Ends the output.
    ///
    /// # Errors
    /// Something could not be written, except to a pipe that was closed.
    pub(crate) fn finish(&self) -> Result<()> {
        self.flush();
        let failed = self.standard.lock().unwrap_or_else(PoisonError::into_inner).failed.take();
        failed.map_or(Ok(()), |error| {
            Err(Error::new(ErrorKind::Failed, "could not write to standard output")
                .with_remedy("Look whether its disk is full")
                .with_source(error))
        })
    }
}

/// `<3>text`, so that the journal knows how much it matters; each line by itself.
fn for_the_journal(level: Level, text: &str) -> String {
    let number = match level {
        Level::Error => 3,
        Level::Problem | Level::Warning => 4,
        Level::Info => 6,
    };
    text.lines().map(|line| format!("<{number}>{line}\n")).collect()
}

fn for_a_terminal(level: Level, text: &str) -> String {
    let warning = if level == Level::Warning { "warning: " } else { "" };
    format!("lifeboat: {warning}{text}\n")
}

/// Whether standard error is what systemd says the journal is.
fn is_journal() -> bool {
    let Ok(Some(stream)) = environment::text("JOURNAL_STREAM") else { return false };
    let found = rustix::fs::fstat(io::stderr());
    found.is_ok_and(|status| stream == format!("{}:{}", status.st_dev, status.st_ino))
}

impl Standard {
    fn note(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.closed = true,
            Err(error) => self.failed = Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_journal_has_its_level() {
        assert_eq!(
            for_the_journal(Level::Error, "a failed. Do b\n  because: c"),
            "<3>a failed. Do b\n<3>  because: c\n"
        );
        assert_eq!(for_the_journal(Level::Problem, "/x: gone"), "<4>/x: gone\n");
        assert_eq!(for_a_terminal(Level::Warning, "old"), "lifeboat: warning: old\n");
        assert_eq!(for_a_terminal(Level::Error, "a failed"), "lifeboat: a failed\n");
    }
}
