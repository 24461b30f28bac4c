//! The arguments that every command takes.
#![expect(clippy::doc_markdown, reason = "these comments are the help that users read")]

use std::{ffi::OsString, os::unix::ffi::OsStrExt, path::PathBuf};

use clap::{Args, Parser};
use lifeboat::{
    error::Result,
    filesystem::filter::{Filter, FilterOptions},
    ops::verify::Owners,
    report::size,
};

use crate::commands::Command;

const AFTER: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 incomplete; 4 drill failed; 5 damage found; 6 differences found;
7 overdue; 9 a source is suspiciously empty; 10 no repository there; 12 cannot unlock; 13 this role may not do that;
75 storage or network trouble that may pass; 130 interrupted.

Examples:
  lifeboat -r /srv/backup init
  lifeboat -r /srv/backup backup /home /etc
  lifeboat --profile web backup
  lifeboat -r /srv/backup restore latest --target /tmp/restored";

/// Disaster-recovery backups: encrypted and deduplicated, in a bucket or a folder.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) choice: Choice,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) cache: Cache,
    #[command(flatten)]
    pub(crate) show: Show,
}

/// Which profile.
#[derive(Debug, Args)]
#[command(next_help_heading = "Profile")]
pub(crate) struct Choice {
    /// Take what no flag and no variable says from [profile.NAME] [default: [profile.default], where no
    /// repository is named]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Read profiles from this file [default: ~/.config/lifeboat/config.toml, then
    /// /etc/lifeboat/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Where the repository is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Repository")]
pub(crate) struct Place {
    /// The repository: a folder, s3://BUCKET/PREFIX or s3:https://HOST/BUCKET/PREFIX
    /// [env: LIFEBOAT_REPOSITORY]
    #[arg(short, long, global = true, value_name = "ADDRESS")]
    pub(crate) repository: Option<String>,
    /// Read the address from the first line of a file [env: LIFEBOAT_REPOSITORY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) repository_file: Option<PathBuf>,
    /// Read a bucket with versioning as it was at this time, such as "2026-01-31 23:05" or 2026-01-31T22:05:00Z;
    /// nothing can be written then
    #[arg(long, global = true, value_name = "TIME")]
    pub(crate) at: Option<String>,
}

/// What unlocks it. Files may be `cred:NAME`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Unlocking (a FILE may be cred:NAME, a credential of systemd)")]
pub(crate) struct Unlock {
    /// Read the passphrase from the first line of a file [env: LIFEBOAT_PASSWORD_FILE; or the passphrase
    /// itself in LIFEBOAT_PASSWORD]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Run a command of the shell and read the passphrase from its first line [env: LIFEBOAT_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND")]
    pub(crate) password_command: Option<String>,
    /// Unlock with the access key in a file [env: LIFEBOAT_ACCESS_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) access_key_file: Option<PathBuf>,
    /// Unlock with the 24 recovery words; asks for them
    #[arg(long, global = true)]
    pub(crate) recovery_words: bool,
    /// Unlock with the 24 recovery words in a file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) recovery_words_file: Option<PathBuf>,
    /// Try the passphrase on this key slot only
    #[arg(long, global = true, value_name = "SLOT")]
    pub(crate) slot: Option<String>,
}

/// How to reach it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Storage and network")]
pub(crate) struct Network {
    /// Read the keys of the bucket from a file like ~/.aws/credentials (section default, or AWS_PROFILE);
    /// else the AWS_* variables count
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) s3_credentials: Option<PathBuf>,
    /// Set an option of the storage, such as region=eu-central-1; never a secret
    #[arg(short = 'o', long = "option", global = true, value_name = "KEY=VALUE")]
    pub(crate) options: Vec<String>,
    /// Trust the certificate authority in this PEM file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// Send at most so many bytes a second, such as 10M (1k is 1024)
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) limit_upload: Option<String>,
    /// Receive at most so many bytes a second
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) limit_download: Option<String>,
    /// Keep at most so many calls in flight [default: 8]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) connections: Option<u16>,
    /// Try a call again for so long, such as 90s, 15m or 1h30m [default: 15m]
    #[arg(long, global = true, value_name = "DURATION")]
    pub(crate) retry_for: Option<String>,
}

/// The local cache.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct Cache {
    /// Keep the cache below this folder [env: LIFEBOAT_CACHE_DIR, CACHE_DIRECTORY; default:
    /// ~/.cache/lifeboat]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Keep no cache and use none
    #[arg(long, global = true)]
    pub(crate) no_cache: bool,
}

/// Another repository that a command reads from.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Source (a FILE may be cred:NAME, a credential of systemd)")]
pub(crate) struct FromArguments {
    /// The repository to read from, as with -r [env: LIFEBOAT_FROM_REPOSITORY]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from_repository: Option<String>,
    /// Read its address from the first line of a file [env: LIFEBOAT_FROM_REPOSITORY_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) from_repository_file: Option<PathBuf>,
    /// Read its bucket, if that has versioning, as it was at this time
    #[arg(long, value_name = "TIME")]
    pub(crate) from_at: Option<String>,
    /// Read its passphrase from the first line of a file [env: LIFEBOAT_FROM_PASSWORD_FILE; or the passphrase
    /// itself in LIFEBOAT_FROM_PASSWORD]
    #[arg(long, value_name = "FILE")]
    pub(crate) from_password_file: Option<PathBuf>,
    /// Run a command of the shell and read its passphrase from the first line [env: LIFEBOAT_FROM_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND")]
    pub(crate) from_password_command: Option<String>,
    /// Unlock it with the access key in a file [env: LIFEBOAT_FROM_ACCESS_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) from_access_key_file: Option<PathBuf>,
    /// Unlock it with its 24 recovery words; asks for them
    #[arg(long)]
    pub(crate) from_recovery_words: bool,
    /// Unlock it with its 24 recovery words in a file
    #[arg(long, value_name = "FILE")]
    pub(crate) from_recovery_words_file: Option<PathBuf>,
    /// Try the passphrase on this key slot of it only
    #[arg(long, value_name = "SLOT")]
    pub(crate) from_slot: Option<String>,
    /// Read the keys of its bucket from a file like ~/.aws/credentials; else the AWS_* variables count for both
    #[arg(long, value_name = "FILE")]
    pub(crate) from_s3_credentials: Option<PathBuf>,
    /// Set an option of its storage, such as region=eu-central-1; never a secret
    #[arg(long = "from-option", value_name = "KEY=VALUE")]
    pub(crate) from_options: Vec<String>,
}

impl FromArguments {
    /// Where it is, what unlocks it and how to reach it: limits and patience are those of the other one.
    pub(crate) fn parts(&self, network: &Network) -> (Place, Unlock, Network) {
        let place = Place {
            repository: self.from_repository.clone(),
            repository_file: self.from_repository_file.clone(),
            at: self.from_at.clone(),
        };
        let unlock = Unlock {
            password_file: self.from_password_file.clone(),
            password_command: self.from_password_command.clone(),
            access_key_file: self.from_access_key_file.clone(),
            recovery_words: self.from_recovery_words,
            recovery_words_file: self.from_recovery_words_file.clone(),
            slot: self.from_slot.clone(),
        };
        let network = Network {
            s3_credentials: self.from_s3_credentials.clone(),
            options: self.from_options.clone(),
            ..network.clone()
        };
        (place, unlock, network)
    }
}

/// What is shown.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Show {
    /// Only results, warnings and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// More, such as the causes of an error; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// One JSON object a line, for scripts; nothing else on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Which snapshots are meant.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which snapshots")]
pub(crate) struct FilterArguments {
    /// Only of this host (any of several)
    #[arg(short = 'H', long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// Only with this absolute path among its sources (any of several)
    #[arg(long = "path", value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Only with this tag, or with all of TAG,TAG (any of several)
    #[arg(long = "tag", value_name = "TAG[,TAG]")]
    pub(crate) tags: Vec<String>,
}

impl FilterArguments {
    /// A filter that names nothing would mean everything.
    pub(crate) fn refuse_empty(&self) -> Result<()> {
        let Self { hosts, paths, tags } = self;
        let flag = if hosts.iter().any(String::is_empty) {
            "--host"
        } else if paths.iter().any(|path| path.as_os_str().is_empty()) {
            "--path"
        } else if tags.iter().any(|list| names_no_tag(list)) {
            "--tag"
        } else {
            return Ok(());
        };
        Err(names_nothing(flag))
    }

    pub(crate) fn filter(&self) -> lifeboat::ops::select::Filter {
        // Without the slash that the completion of a shell puts behind a folder.
        let plain = |path: &PathBuf| path.components().collect::<PathBuf>().as_os_str().as_bytes().to_vec();
        let paths = self.paths.iter().map(plain).collect();
        let tags = self.tags.iter().map(|list| split_tags(list)).collect();
        lifeboat::ops::select::Filter { hosts: self.hosts.clone(), paths, tags }
    }
}

/// What of a snapshot is meant.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "What of it (patterns of gitignore, with / as their folder)")]
pub(crate) struct SelectionArguments {
    /// Only what matches, and what is below that; it is an error for restore and verify if nothing does
    #[arg(short, long, value_name = "PATTERN")]
    pub(crate) include: Vec<String>,
    /// Leave out what matches
    #[arg(short, long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
}

/// What the backup left out by other rules than patterns.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "What the backup left out too, and so is not extra (as in backup)")]
pub(crate) struct LeftOutArguments {
    /// What is in folders with a CACHEDIR.TAG
    #[arg(long)]
    exclude_caches: bool,
    /// What is in folders that hold this name
    #[arg(long, value_name = "NAME")]
    exclude_if_present: Vec<OsString>,
    /// Files larger than this, such as 2G
    #[arg(long, value_name = "SIZE")]
    exclude_larger_than: Option<String>,
}

impl LeftOutArguments {
    /// Whether nothing is said.
    pub(crate) const fn is_empty(&self) -> bool {
        let Self { exclude_caches, exclude_if_present, exclude_larger_than } = self;
        !*exclude_caches && exclude_if_present.is_empty() && exclude_larger_than.is_none()
    }

    /// What a backup with these leaves out.
    ///
    /// # Errors
    /// `Usage` if it is no size.
    pub(crate) fn filter(&self) -> Result<Filter> {
        Filter::new(FilterOptions {
            exclude_caches: self.exclude_caches,
            exclude_if_present: self.exclude_if_present.iter().map(|name| name.as_bytes().to_vec()).collect(),
            exclude_larger_than: self.exclude_larger_than.as_deref().map(size::parse).transpose()?,
            ..FilterOptions::default()
        })
    }
}

/// Whose the files must be.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OwnerArguments {
    /// Compare the numbers of owners, not their names
    #[arg(long, conflicts_with = "ignore_owners")]
    numeric_ids: bool,
    /// Do not compare owners, nor setuid, setgid and capabilities that went with them
    #[arg(long)]
    ignore_owners: bool,
}

impl OwnerArguments {
    pub(crate) const fn owners(self) -> Owners {
        match self {
            Self { numeric_ids: true, .. } => Owners::Numbers,
            Self { ignore_owners: true, .. } => Owners::Ignore,
            Self { .. } => Owners::Compare,
        }
    }
}

/// `a,b` is two tags.
pub(crate) fn split_tags(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

/// Whether a filter or a rule has a tag that is empty: of `a,,b` the one in the middle may be a variable that was not set.
pub(crate) fn names_no_tag(list: &str) -> bool {
    list.split(',').any(|tag| tag.trim().is_empty())
}

/// What to say of a flag that names nothing.
pub(crate) fn names_nothing(flag: &str) -> lifeboat::error::Error {
    use lifeboat::error::{Error, ErrorKind};
    Error::new(ErrorKind::Usage, format!("{flag} names nothing, so nothing was done")).with_remedy(format!(
        "Leave {flag} out, or say what it is; an empty variable of a script may be the cause"
    ))
}
