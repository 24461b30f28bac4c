//! What unlocks a repository, from wherever the user keeps it: never from the arguments, which others see in
//! the list of processes. Whatever is read is wiped when it is no longer needed, and no message repeats it.

use std::{
    fs::File,
    io::{IsTerminal, Read, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
};

use lifeboat::{
    error::{Error, ErrorKind, Result},
    repository::unlock::Credential,
};
use zeroize::Zeroizing;

use crate::{args::Unlock, context::Which, environment, signals::Signals, terminal::Output};

/// No secret is longer than this, in bytes.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// Where something secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Secret {
    PasswordFile(std::path::PathBuf),
    PasswordCommand(String),
    Password,
    AccessKeyFile(std::path::PathBuf),
    AskForWords,
    WordsFile(std::path::PathBuf),
}

fn is_there_a_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stderr().is_terminal()
}

fn cannot(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::CannotUnlock, what)
}

/// Asks, reads and warns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credentials<'a> {
    pub(crate) unlock: &'a Unlock,
    /// Of which repository.
    pub(crate) which: Which,
    pub(crate) output: &'a Output,
    pub(crate) signals: &'a Signals,
}

impl Credentials<'_> {
    /// What the user gave to unlock with: a flag, else the environment, else the answer to a question.
    ///
    /// # Errors
    /// `CannotUnlock` when there is nothing, or it cannot be read.
    pub(crate) fn credential(&self) -> Result<Credential> {
        let slot = self.unlock.slot.clone();
        Ok(match self.source()? {
            Some(Secret::AccessKeyFile(path)) => Credential::AccessKey(self.whole("access key", &path)?),
            Some(Secret::WordsFile(path)) => Credential::Words(self.whole("recovery words", &path)?),
            Some(Secret::AskForWords) => Credential::Words(self.ask_for_words()?),
            Some(secret) => Credential::Passphrase(self.passphrase_from(&secret)?, slot),
            None => Credential::Passphrase(self.ask(self.which.prompt())?, slot),
        })
    }

    /// The passphrase of what is being made; a person is asked twice.
    ///
    /// # Errors
    /// `CannotUnlock` when there is none; `Usage` when something else was given.
    pub(crate) fn new_passphrase(&self) -> Result<Zeroizing<String>> {
        match self.source()? {
            Some(Secret::AccessKeyFile(_) | Secret::AskForWords | Secret::WordsFile(_)) => Err(Error::new(
                ErrorKind::Usage,
                "a new repository needs a passphrase, not an access key or words",
            )
            .with_remedy("Use --password-file; the recovery words are made by init")),
            Some(secret) => self.passphrase_from(&secret),
            None => self.ask_twice(),
        }
    }

    /// A new passphrase from a file, or from a person, who is asked twice.
    ///
    /// # Errors
    /// `Usage` when nobody can be asked; `CannotUnlock` when there is none.
    pub(crate) fn changed_passphrase(&self, file: Option<&Path>) -> Result<Zeroizing<String>> {
        match file {
            Some(path) => self.passphrase_from(&Secret::PasswordFile(path.to_owned())),
            // What unlocks the repository was given, and is not what is missing.
            None if !is_there_a_terminal() => Err(Error::new(
                ErrorKind::Usage,
                "nothing says what the new key is to be, and there is no terminal to ask for a passphrase on",
            )
            .with_remedy("Use --new-password-file FILE, or --access-key-out FILE for an access key")),
            None => self.ask_twice(),
        }
    }

    /// The recovery words, from where the flags say or from a person.
    ///
    /// # Errors
    /// `CannotUnlock` when there are none.
    pub(crate) fn words(&self) -> Result<Zeroizing<String>> {
        match &self.unlock.recovery_words_file {
            Some(path) => self.whole("recovery words", path),
            None => self.ask_for_words(),
        }
    }

    /// Recovery words that are to be checked, from a file or from a person.
    ///
    /// # Errors
    /// `CannotUnlock` when there are none.
    pub(crate) fn words_to_check(&self, file: Option<&Path>) -> Result<Zeroizing<String>> {
        file.map_or_else(|| self.ask_for_words(), |path| self.whole("recovery words", path))
    }

    fn source(&self) -> Result<Option<Secret>> {
        let Unlock { password_file, password_command, access_key_file, .. } = self.unlock;
        let Unlock { recovery_words, recovery_words_file, slot: _, .. } = self.unlock;
        let flags = [
            password_file.clone().map(Secret::PasswordFile),
            password_command.clone().map(Secret::PasswordCommand),
            access_key_file.clone().map(Secret::AccessKeyFile),
            recovery_words.then_some(Secret::AskForWords),
            recovery_words_file.clone().map(Secret::WordsFile),
        ];
        let mut flags = flags.into_iter().flatten();
        if let Some(secret) = flags.next() {
            if flags.next().is_some() {
                return Err(Error::new(ErrorKind::Usage, "several flags say what to unlock with")
                    .with_remedy("Keep one of --password-file, --password-command, --access-key-file, --recovery-words"));
            }
            return Ok(Some(secret));
        }
        let variable = |name| self.which.variable(name);
        let path = |name| environment::os(&variable(name)).map(std::path::PathBuf::from);
        if let Some(path) = path("ACCESS_KEY_FILE") {
            return Ok(Some(Secret::AccessKeyFile(path)));
        }
        if let Some(path) = path("PASSWORD_FILE") {
            return Ok(Some(Secret::PasswordFile(path)));
        }
        if let Some(command) = environment::text(&variable("PASSWORD_COMMAND"))? {
            return Ok(Some(Secret::PasswordCommand(command)));
        }
        Ok(environment::os(&variable("PASSWORD")).map(|_| Secret::Password))
    }

    fn passphrase_from(&self, secret: &Secret) -> Result<Zeroizing<String>> {
        match secret {
            Secret::PasswordFile(path) => {
                let text = self.whole("passphrase", path)?;
                first_line(&text, &format!("the password file {}", path.display()))
            }
            Secret::PasswordCommand(command) => {
                let text = self.signals.wait(|| run(command))?;
                first_line(&text, "the output of the password command")
            }
            _ => {
                let name = self.which.variable("PASSWORD");
                let text = environment::text(&name)?.unwrap_or_default();
                first_line(&Zeroizing::new(text), &name)
            }
        }
    }

    /// The whole text of a small file.
    fn whole(&self, what: &str, path: &Path) -> Result<Zeroizing<String>> {
        self.signals.wait(|| self.read_whole(what, path))
    }

    fn read_whole(&self, what: &str, path: &Path) -> Result<Zeroizing<String>> {
        let path = environment::file(path)?;
        let failed = |error: std::io::Error| {
            cannot(format!("could not read the {what} from {}", path.display()))
                .with_remedy("Check the path and who may read it")
                .with_source(error)
        };
        let file = File::open(&path).map_err(failed)?;
        let status = file.metadata().map_err(failed)?;
        if status.is_file() && status.mode() & 0o004 != 0 {
            self.output.warn(&format!("everybody on this machine can read {}: chmod 600 it", path.display()));
        }
        read_secret(file, &format!("the {what} in {}", path.display()))
    }

    fn ask_for_words(&self) -> Result<Zeroizing<String>> {
        self.question("Recovery words (24, all in one line): ", "--recovery-words-file FILE")
    }

    fn ask(&self, prompt: &str) -> Result<Zeroizing<String>> {
        let answer = self.question(prompt, self.which.instead())?;
        if answer.is_empty() {
            return Err(cannot("no passphrase was typed").with_remedy("Run the command again and type it"));
        }
        Ok(answer)
    }

    fn ask_twice(&self) -> Result<Zeroizing<String>> {
        let first = self.ask("New passphrase: ")?;
        if *self.ask("The same again: ")? != *first {
            return Err(cannot("the two passphrases differ").with_remedy("Run the command again"));
        }
        Ok(first)
    }

    fn question(&self, prompt: &str, instead: &str) -> Result<Zeroizing<String>> {
        if !is_there_a_terminal() {
            return Err(cannot(
                "nothing was given to unlock the repository with, and there is no terminal to ask on",
            )
            .with_remedy(format!("Use {instead}")));
        }
        self.output.flush();
        let answer = self.signals.ask(|| rpassword::prompt_password(prompt)).map(Zeroizing::new);
        answer.map_err(|e| match e.kind() {
            // The terminal gives Ctrl-C as a character while it is asked.
            std::io::ErrorKind::Interrupted => Error::new(ErrorKind::Interrupted, "interrupted"),
            _ => cannot("could not ask on the terminal").with_remedy(format!("Use {instead}")).with_source(e),
        })
    }

    /// Waits until a person has pressed Enter.
    ///
    /// # Errors
    /// There is no terminal to wait at.
    pub(crate) fn wait_for_enter(&self) -> Result<()> {
        self.output.flush();
        drop(std::io::stderr().write_all(b"Press Enter when you have them on paper: "));
        let mut line = String::new();
        let read = self.signals.ask(|| std::io::stdin().read_line(&mut line));
        read.map(drop)
            .map_err(|e| Error::new(ErrorKind::Failed, "could not read from the terminal").with_source(e))
    }
}

fn read_secret(from: impl Read, what: &str) -> Result<Zeroizing<String>> {
    // All of it is reserved before: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 1));
    let most = u64::try_from(SECRET_BYTES_MAX).unwrap_or(u64::MAX);
    from.take(most)
        .read_to_end(&mut bytes)
        .map_err(|e| cannot(format!("could not read {what}")).with_source(e))?;
    if bytes.len() == SECRET_BYTES_MAX {
        return Err(
            cannot(format!("{what} is longer than 64 KiB")).with_remedy("Check that it is the right one")
        );
    }
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        cannot(format!("{what} is not UTF-8 text"))
            .with_remedy("Check that it is the right one")
            .with_source(e)
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn first_line(text: &str, what: &str) -> Result<Zeroizing<String>> {
    let line = text.split('\n').next().unwrap_or_default();
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(cannot(format!("{what} has no passphrase in its first line"))
            .with_remedy("Write the passphrase into the first line"));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn run(command: &str) -> Result<Zeroizing<String>> {
    let failed = |error| cannot("could not run the password command").with_source(error);
    let mut shell = Command::new("/bin/sh");
    environment::PASSWORDS.iter().for_each(|name| _ = shell.env_remove(name));
    let mut child = shell.arg("-c").arg(command).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let text = match child.stdout.take() {
        Some(out) => read_secret(out, "the output of the password command"),
        None => Err(cannot("the password command has no output")),
    };
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(
            cannot(format!("the password command failed: {status}")).with_remedy("Run it by hand to see why")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_the_first_line_and_never_empty() {
        assert_eq!(*first_line("a b \nrest", "x").unwrap(), "a b ");
        assert_eq!(*first_line("one\r\n", "x").unwrap(), "one");
        assert_eq!(*first_line("one", "x").unwrap(), "one");
        for empty in ["", "\n", "\r\n", "\nsecond"] {
            assert_eq!(first_line(empty, "x").unwrap_err().kind(), ErrorKind::CannotUnlock);
        }
        assert_eq!(read_secret(&b"\xff"[..], "x").unwrap_err().kind(), ErrorKind::CannotUnlock);
    }
}
