//! `init`: the only moment at which the recovery words appear by themselves.

use std::{
    io::{IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use lifeboat::{
    clock::SystemClock,
    crypto::RootSecret,
    error::{Error, ErrorKind, Result},
    ops::init::{self, Created, DRIFT_SECONDS_MAX, Tried},
    report::{json, time},
    repository::InitOptions,
    store::{Location, Store},
};
use serde_json::json;

use crate::context::Context;

const AFTER: &str = "\
The store is tried first: an object is written, read, read in part, listed and removed again, and the clocks
are compared. The passphrase comes from --password-file, --password-command, LIFEBOAT_PASSWORD or the terminal.
The 24 recovery words open the repository when every passphrase is lost. On a terminal they are shown once; elsewhere
and under --json they are not shown: take --recovery-file, or run `lifeboat key words` later.

Examples:
  lifeboat -r /srv/backup init
  lifeboat -r s3://bucket/prefix --password-file /etc/lifeboat/passphrase init --recovery-file words.txt";

/// Arguments of `init`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Init {
    #[command(flatten)]
    recovery: Recovery,
    /// The time that a backup has between its last look and its snapshot (decided for ever)
    #[arg(long, value_name = "DURATION")]
    commit_window: Option<String>,
    /// The smallest time for which a prune keeps what nothing needs (decided for ever)
    #[arg(long, value_name = "DURATION")]
    min_grace: Option<String>,
    /// Try the place and the credentials without writing anything
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Where the recovery words go.
#[derive(Debug, Default, Args)]
pub(crate) struct Recovery {
    /// Write the 24 recovery words to this new file (mode 0600)
    #[arg(long, value_name = "FILE")]
    pub(crate) recovery_file: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Init, context: &Context<'_>) -> Result<()> {
    let location = context.location()?;
    let options = options(arguments, context)?;
    if arguments.dry_run {
        dry_run(context, &location, "summary")?;
        context.end_display();
        return Ok(());
    }
    create(context, &location, &arguments.recovery, options, "summary")?;
    context.end_display();
    Ok(())
}

fn options(arguments: &Init, context: &Context<'_>) -> Result<InitOptions> {
    let mut options = InitOptions::default();
    let shorter = [
        (
            (&arguments.commit_window, "--commit-window"),
            &mut options.commit_window_seconds,
            "a slow or suspended machine has less time before its backup fails",
        ),
        (
            (&arguments.min_grace, "--min-grace"),
            &mut options.minimum_grace_seconds,
            "a prune frees sooner what a backup that still runs may need, and there is less time to notice a mistake",
        ),
    ];
    for ((text, flag), seconds, less) in shorter {
        let Some(text) = text else { continue };
        let wanted = time::parse_duration(text)?.as_secs();
        if wanted == 0 {
            return Err(Error::new(ErrorKind::Usage, format!("{flag} must be longer than nothing"))
                .with_remedy("Leave it out to have the default"));
        }
        if wanted < *seconds {
            context.output.warn(&format!(
                "{flag} {text} is below the default of {} seconds: {less}, and this cannot be changed later",
                *seconds
            ));
        }
        *seconds = wanted;
    }
    // Before anybody thinks of a passphrase.
    options.check()?;
    Ok(options)
}

/// Says what would be created, in a message of type `kind`.
pub(crate) fn dry_run(context: &Context<'_>, location: &Location, kind: &str) -> Result<()> {
    let folder_is_missing = matches!(location, Location::Folder(folder) if !folder.is_dir());
    let address = context.address()?;
    if !folder_is_missing {
        init::check_vacant(&context.store(location)?)?;
    }
    context.output.say(&format!("would create a repository at {address}"));
    context.output.message(&json::message(
        kind,
        json!({
            "dry_run": true, "repository": address, "repository_id": null, "recovery_file": null,
            "clock_ahead_seconds": null,
        }),
    ));
    Ok(())
}

/// Creates a repository, and tells it in a message of type `kind`; `backup --init` does so too.
pub(crate) fn create(
    context: &Context<'_>,
    location: &Location,
    recovery: &Recovery,
    options: InitOptions,
    kind: &str,
) -> Result<()> {
    let folder_is_missing = matches!(location, Location::Folder(folder) if !folder.is_dir());
    let there = if folder_is_missing { None } else { Some(context.store(location)?) };
    // Nobody should think of a passphrase for a place that is taken.
    there.as_ref().map_or(Ok(()), init::check_vacant)?;
    let passphrase = context.credentials().new_passphrase()?;
    Store::create_folder(location)?;
    let store = there.map_or_else(|| context.store(location), Ok)?;
    let root = RootSecret::generate()?;
    if let Some(path) = &recovery.recovery_file {
        write_new(path, &root.words())?;
    }
    let created = init::run(&store, &root, &passphrase, options, &SystemClock).inspect_err(|_| {
        // Words that open nothing would only be in the way of the next try; what may have come about needs them.
        let nothing = store.uninterrupted().and_then(|store| init::check_vacant(&store));
        if let (Some(path), Ok(())) = (&recovery.recovery_file, nothing) {
            drop(std::fs::remove_file(path));
        }
    })?;
    let message = tell(context, &created, store.location_text(), recovery);
    context.output.message(&json::message(kind, message));
    let on_a_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if recovery.recovery_file.is_none() && on_a_terminal && !context.output.is_json() {
        show_words(context, &root)?;
    }
    Ok(())
}

fn tell(context: &Context<'_>, created: &Created, address: &str, recovery: &Recovery) -> serde_json::Value {
    let Created { repository, tried: Tried { clock_ahead_seconds, left_behind } } = created;
    let output = context.output;
    if clock_ahead_seconds.abs() > DRIFT_SECONDS_MAX {
        let side = if *clock_ahead_seconds > 0 { "ahead of" } else { "behind" };
        let seconds = clock_ahead_seconds.abs();
        output.warn(&format!("the clock of this machine is {seconds} s {side} the storage's: set it by NTP"));
    }
    if let Some((name, why)) = left_behind {
        output.warn(&format!("the test object {name} could not be removed and does no harm: {why}"));
    }
    output.note(&format!("created a repository at {address}"));
    match &recovery.recovery_file {
        Some(path) => output.note(&format!(
            "the 24 recovery words are in {}: print them, keep the paper in a safe, remove the file",
            path.display()
        )),
        None => {
            output.note("the 24 recovery words open it when the passphrase is lost: `lifeboat key words`")
        }
    }
    json!({
        "dry_run": false,
        "repository": address,
        "repository_id": repository.to_string(),
        "recovery_file": recovery.recovery_file.as_ref().map(|path| path.to_string_lossy()),
        "clock_ahead_seconds": clock_ahead_seconds,
    })
}

/// On standard error, which nobody redirects into a log by habit as they do with the other.
fn show_words(context: &Context<'_>, root: &RootSecret) -> Result<()> {
    let words = root.words();
    let mut text = zeroize::Zeroizing::new(String::with_capacity(2048));
    text.push_str("\nWrite these 24 recovery words on paper. They are not shown again.\n");
    for (at, word) in words.split(' ').enumerate() {
        let end = if at % 4 == 3 { "\n" } else { "" };
        text.push_str(&format!("{:>4} {word:<10}{end}", at + 1));
    }
    context.output.flush();
    let shown = std::io::stderr().write_all(text.as_bytes());
    shown.map_err(|e| Error::new(ErrorKind::Failed, "could not show the recovery words").with_source(e))?;
    context.credentials().wait_for_enter()
}

/// Writes a secret to a new file that only its owner can read.
pub(crate) fn write_new(path: &Path, secret: &str) -> Result<()> {
    NewFile::create(path)?.fill(secret)
}

/// A new file for a secret, made before the secret is: when it cannot be made, nothing has happened yet.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    file: std::fs::File,
}

impl NewFile {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path).map_err(|e| {
            use std::io::ErrorKind::{AlreadyExists, QuotaExceeded, StorageFull};
            let remedy = match e.kind() {
                AlreadyExists => "It exists already: choose another name, so that nothing is lost",
                StorageFull | QuotaExceeded => {
                    "Free some space there (`df` and `df -i` show it), or choose another place"
                }
                _ => "Check that its folder exists and can be written",
            };
            Error::new(ErrorKind::Failed, format!("could not create {}", path.display()))
                .with_remedy(remedy)
                .with_source(e)
        })?;
        Ok(Self { path: path.to_owned(), file })
    }

    pub(crate) fn fill(mut self, secret: &str) -> Result<()> {
        let mut write = || -> std::io::Result<()> {
            self.file.write_all(secret.as_bytes())?;
            self.file.write_all(b"\n")?;
            self.file.sync_all()
        };
        write().map_err(|e| {
            Error::new(ErrorKind::Failed, format!("could not write {}", self.path.display()))
                .with_remedy("Free some space there (`df` and `df -i` show it), or choose another place")
                .with_source(e)
        })
    }

    /// It is not needed after all.
    pub(crate) fn remove(self) {
        // An empty file that stays does no harm.
        drop(std::fs::remove_file(&self.path));
    }
}
