//! The `lifeboat` program: the only place that prints, reads the environment or ends the process.

use std::{error::Error as _, io::Write, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Parser, Subcommand};
use lifeboat::{
    clock::SystemClock,
    compress::Compression,
    crypto::RootSecret,
    error::{Error, ErrorKind, Result},
    filesystem::{
        names::{Ownership, OwnershipPolicy},
        walk::{FilterOptions, resolve_source},
    },
    ops::{
        backup::{self, BackupOptions, tree::Tree},
        restore,
    },
    repository::{InitOptions, Repository, unlock::Credential},
    store::{Location, S3Settings, Store, StoreOptions},
};
use zeroize::Zeroizing;

/// Disaster-recovery backups.
#[derive(Parser)]
#[command(name = "lifeboat", version)]
struct Arguments {
    /// The repository: a folder, `s3://BUCKET/PREFIX` or `s3:https://HOST/BUCKET/PREFIX`
    #[arg(short, long, env = "LIFEBOAT_REPOSITORY")]
    repository: String,
    /// Show the causes of an error
    #[arg(short, long)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create a repository
    Init {
        /// Write the 24 recovery words to this new file (mode 0600)
        #[arg(long)]
        recovery_file: Option<PathBuf>,
    },
    /// Back up files and folders
    Backup {
        /// Create the repository if there is none
        #[arg(long)]
        init: bool,
        /// Leave out what matches, in gitignore syntax
        #[arg(short, long)]
        exclude: Vec<String>,
        /// Add a tag
        #[arg(long)]
        tag: Vec<String>,
        /// What to back up
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// List snapshots
    Snapshots,
    /// Restore a snapshot into a folder
    Restore {
        /// `latest`, or the first digits of an id
        snapshot: String,
        /// The folder; files keep their whole path below it
        #[arg(short, long)]
        target: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let remedy = error.remedy().map(|remedy| format!(". {remedy}")).unwrap_or_default();
            let mut text = format!("lifeboat: {error}{remedy}\n");
            let mut cause = error.source().filter(|_| arguments.verbose);
            while let Some(error) = cause {
                text += &format!("  because: {error}\n");
                cause = error.source();
            }
            // Where even standard error cannot be written, the exit code has to say it.
            drop(std::io::stderr().write_all(text.as_bytes()));
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn say(text: &str) -> Result<()> {
    let written = std::io::stdout().write_all(format!("{text}\n").as_bytes());
    written.map_err(|e| Error::new(ErrorKind::Failed, "could not write to standard output").with_source(e))
}

fn variable(name: &str) -> Option<String> {
    std::env::vars_os().find(|(key, _)| key == name).and_then(|(_, value)| value.into_string().ok())
}

fn passphrase() -> Result<Zeroizing<String>> {
    variable("LIFEBOAT_PASSWORD").filter(|text| !text.is_empty()).map(Zeroizing::new).ok_or_else(|| {
        Error::new(ErrorKind::CannotUnlock, "no passphrase was given")
            .with_remedy("Set LIFEBOAT_PASSWORD in the environment of this command")
    })
}

fn store(location: &Location) -> Result<Store> {
    let named = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((key.into_string().ok()?, value.into_string().ok()?))
    };
    let environment =
        std::env::vars_os().filter_map(named).filter(|(key, _)| key.starts_with("AWS_")).collect();
    let options = StoreOptions {
        connections: 8,
        upload_limit: None,
        download_limit: None,
        retry_for: Duration::from_secs(900),
        s3: S3Settings { environment, ..S3Settings::default() },
        clock: Arc::new(SystemClock),
        progress: Arc::default(),
    };
    Store::open(location, options)
}

fn open(location: &Location) -> Result<Repository> {
    let store = store(location)?;
    let config = Repository::read_config(&store)?;
    let secrets = Repository::unlock(&store, &config, &Credential::Passphrase(passphrase()?, None))?;
    let cache = variable("LIFEBOAT_CACHE_DIR").map(PathBuf::from);
    Repository::open(store, config, secrets, cache.as_deref(), Arc::new(SystemClock))
}

fn init(location: &Location, recovery_file: Option<&PathBuf>) -> Result<()> {
    let passphrase = passphrase()?;
    Store::create_folder(location)?;
    let store = store(location)?;
    let root = RootSecret::generate()?;
    if let Some(path) = recovery_file {
        use std::os::unix::fs::OpenOptionsExt;
        let cannot = |e: std::io::Error| {
            Error::new(ErrorKind::Failed, format!("could not write {}", path.display())).with_source(e)
        };
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(cannot)?;
        file.write_all(format!("{}\n", *root.words()).as_bytes()).map_err(cannot)?;
        file.sync_all().map_err(cannot)?;
    }
    Repository::create(&store, &root, &passphrase, InitOptions::default(), &SystemClock)?;
    say(&format!("created a repository at {}", store.location_text()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let location = Location::parse(&arguments.repository)?;
    match &arguments.command {
        Command::Init { recovery_file } => init(&location, recovery_file.as_ref()),
        Command::Backup { init: create, exclude, tag, paths } => {
            let repository = match open(&location) {
                Err(error) if *create && error.kind() == ErrorKind::NoRepository => {
                    init(&location, None)?;
                    open(&location)?
                }
                other => other?,
            };
            back_up(&repository, &arguments.repository, exclude, tag, paths)
        }
        Command::Snapshots => {
            let (snapshots, damaged) = open(&location)?.snapshots()?;
            for known in &snapshots {
                let sources: Vec<_> = known
                    .record
                    .sources
                    .iter()
                    .map(|path| String::from_utf8_lossy(path).into_owned())
                    .collect();
                let id = known.name.id.to_string();
                let (time, host) = (known.record.time.seconds, &known.record.host);
                say(&format!("{:.8}  {time}  {host}  {}", id, sources.join(" ")))?;
            }
            damaged.into_iter().next().map_or(Ok(()), Err)
        }
        Command::Restore { snapshot, target } => {
            let repository = open(&location)?;
            let (snapshots, _) = repository.snapshots()?;
            let known = match snapshot.as_str() {
                "latest" => snapshots.last(),
                prefix => snapshots.iter().find(|known| known.name.id.to_string().starts_with(prefix)),
            };
            let known = known.ok_or_else(|| {
                Error::new(ErrorKind::Failed, format!("there is no snapshot `{snapshot}`"))
                    .with_remedy("`lifeboat snapshots` lists them")
            })?;
            let options = restore::RestoreOptions {
                ownership: Ownership::new(OwnershipPolicy::ByName),
                subpath: Vec::new(),
                selection: lifeboat::filesystem::select::Selection::new(&[], &[])?,
                workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            };
            let done = restore::run(&repository, known, target, &options)?;
            for (path, note) in &done.notes {
                say(&format!("note: /{}: {note}", String::from_utf8_lossy(path)))?;
            }
            for (path, error) in &done.failed {
                say(&format!("failed: /{}: {error}", String::from_utf8_lossy(path)))?;
            }
            say(&format!("restored {} files, {} bytes, to {}", done.files, done.bytes, target.display()))?;
            match done
                .failed
                .iter()
                .map(|(_, error)| error.kind())
                .min_by_key(|kind| *kind != ErrorKind::Damaged)
            {
                None => Ok(()),
                Some(kind) => Err(Error::new(
                    kind,
                    format!("{} entries were not restored as they were", done.failed.len()),
                )
                .with_remedy("The lines above name them; everything else is complete")),
            }
        }
    }
}

fn back_up(
    repository: &Repository,
    address: &str,
    exclude: &[String],
    tags: &[String],
    paths: &[PathBuf],
) -> Result<()> {
    let sources = paths.iter().map(|path| resolve_source(path)).collect::<Result<Vec<_>>>()?;
    let never = repository.store.folder().map(resolve_source).transpose()?;
    let filter = FilterOptions {
        excludes: exclude.to_vec(),
        never: never.into_iter().collect(),
        ..FilterOptions::default()
    };
    let options = BackupOptions {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        user: variable("USER").unwrap_or_default(),
        tags: tags.to_vec(),
        sources: sources
            .iter()
            .map(|path| std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec())
            .collect(),
        time: None,
        compression: Compression::Auto,
        reuse: backup::Reuse::default(),
        unchanged: backup::Unchanged::Keep,
        mode: backup::Mode::Store,
        program: format!("lifeboat {}", env!("CARGO_PKG_VERSION")),
        workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    let done = backup::run(repository, &mut Tree { sources, filter }, &options)?;
    for (path, reason) in &done.record.unreadable_named {
        say(&format!("could not read /{}: {reason}", String::from_utf8_lossy(path)))?;
    }
    let id = done.snapshot.map(|(id, _)| id.to_string()).unwrap_or_default();
    let counted = done.record.statistics;
    say(&format!(
        "saved snapshot {:.8}: {} files, {} bytes, {} bytes new, {} bytes stored",
        id, counted.files, counted.bytes, counted.bytes_new, counted.bytes_stored
    ))?;
    say(&format!("lifeboat -r {address} restore {id:.8} --target ./restored"))?;
    if done.record.unreadable == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Incomplete, format!("{} entries could not be read", done.record.unreadable))
        .with_remedy("The snapshot is kept without them; the lines above name the first"))
}
