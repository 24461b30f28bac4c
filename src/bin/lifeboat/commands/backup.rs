//! `backup`: what users of restic know, with one difference: what could not be read is never left unsaid.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use lifeboat::{
    clock::{Clock, SystemClock},
    compress::Compression,
    error::{Error, ErrorKind, Result},
    filesystem::{
        filter::{Filter, FilterOptions, Pattern, Why},
        inside::Enclosure,
        walk::{LeftOut, resolve_source},
    },
    id::RepositoryId,
    ops::{
        backup::{
            self, BackupOptions, Done, Mode, Observed, Reuse, Unchanged,
            stream::{Stream, StreamFile},
            tree::{Accounted, Count, Tree},
        },
        select::ID_DIGITS_SHOWN,
    },
    report::{json, left_out, size, text, time},
    repository::{InitOptions, Repository, places},
    store::Location,
};
use serde_json::json;

use super::{
    init, refuse_as_source,
    sources::{self, SourceArguments, Sources},
    workers,
};
use crate::{
    args::split_tags,
    context::Context,
    environment,
    profile::{Settings, Slot, Way},
};

/// Of files that changed so many are named on a terminal.
const NAMED_MAX: usize = 3;

const AFTER: &str = "\
Patterns are those of gitignore, with / as their folder; of several that match, the last decides. The repository's own
folder and the cache are never backed up. A source that is missing is reported, the others are backed up and the exit
code is 3; when all are missing there is no snapshot. A source that is empty and was not when it was backed up last is
kept so, and the exit code is 9. What the kernel makes up (/proc, /sys, ..) is left out unless it is named; --dry-run
says what each rule takes out, and with -v every path.

Examples:
  lifeboat backup /home /etc --exclude '*.tmp' --exclude-caches --tag nightly
  lifeboat backup --init / --one-file-system
  lifeboat backup --stdin-filename db.sql --stdin-from-command -- pg_dump --all";

/// Arguments of `backup`.
#[derive(Debug, Default, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Backup {
    #[command(flatten)]
    create: Create,
    #[command(flatten)]
    pub(crate) sources: SourceArguments,
    #[command(flatten)]
    stream: StreamArguments,
    #[command(flatten)]
    exclude: Exclude,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    record: Record,
    /// Read and count everything, and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Whether a repository is created.
#[derive(Debug, Default, Args)]
struct Create {
    /// Create the repository if there is none
    #[arg(long)]
    init: bool,
    #[command(flatten)]
    recovery: init::Recovery,
}

/// A stream instead of files.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "A stream instead of files")]
struct StreamArguments {
    /// Back up standard input as one file
    #[arg(long, conflicts_with = "stdin_from_command")]
    stdin: bool,
    /// Run the command after `--` and back up what it prints; if it fails there is no snapshot
    #[arg(long)]
    stdin_from_command: bool,
    /// The name of the file [default: stdin]
    #[arg(long, value_name = "NAME")]
    stdin_filename: Option<OsString>,
}

/// What is left out.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What to leave out")]
struct Exclude {
    /// Leave out what matches
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// The same, ignoring the case of ASCII letters
    #[arg(long, value_name = "PATTERN")]
    iexclude: Vec<String>,
    /// Read patterns from a file, one a line
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Leave out what is in folders with a CACHEDIR.TAG
    #[arg(long)]
    exclude_caches: bool,
    /// Leave out what is in folders that hold this name, except it
    #[arg(long, value_name = "NAME")]
    exclude_if_present: Vec<OsString>,
    /// Leave out files larger than this, such as 2G
    #[arg(long, value_name = "SIZE")]
    exclude_larger_than: Option<String>,
    /// Stay on the mounts of the sources
    #[arg(short = 'x', long)]
    one_file_system: bool,
}

/// What is read again.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What to read again")]
struct Reading {
    /// Read every file, changed or not
    #[arg(short, long)]
    force: bool,
    /// Take a file as unchanged though its ctime changed
    #[arg(long)]
    ignore_ctime: bool,
    /// Take a file as unchanged though its inode changed
    #[arg(long)]
    ignore_inode: bool,
}

/// What the snapshot says.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "The snapshot")]
struct Record {
    /// Add a tag, or several: TAG,TAG
    #[arg(long = "tag", value_name = "TAG[,TAG]")]
    tags: Vec<String>,
    /// The name of this machine in the snapshot [default: its host name]
    #[arg(short = 'H', long)]
    host: Option<String>,
    /// The time of the snapshot, such as '2026-01-31 23:00:00' [default: now]
    #[arg(long)]
    time: Option<String>,
    /// Write no snapshot when nothing has changed
    #[arg(long)]
    skip_if_unchanged: bool,
    /// How hard to compress: off, fast, auto or max [default: auto]
    #[arg(long, value_name = "HOW", value_parser = ["off", "fast", "auto", "max"])]
    compression: Option<String>,
}

impl Backup {
    /// What it leaves out.
    ///
    /// # Errors
    /// `Usage` if a pattern, a size or a list of patterns is wrong.
    pub(crate) fn filter(&self) -> Result<FilterOptions> {
        filter(&self.exclude)
    }

    /// Fills in what the profile says.
    pub(crate) fn settle(&mut self, settings: &mut Settings) {
        let Self { sources, stream, exclude, record, create: _, reading: _, dry_run: _ } = self;
        settings.settle(
            &mut [
                Way("sources", "PATH", Slot::Paths(&mut sources.paths)),
                Way("files-from", "--files-from", Slot::Paths(&mut sources.files_from)),
                Way("files-from", "--files-from-verbatim", Slot::Paths(&mut sources.files_from_verbatim)),
                Way("files-from", "--files-from-raw", Slot::Paths(&mut sources.files_from_raw)),
                Way("stdin", "--stdin", Slot::Switch(&mut stream.stdin)),
                Way("stdin", "--stdin-from-command", Slot::Switch(&mut stream.stdin_from_command)),
            ],
            &[],
            None,
        );
        let host = environment::host();
        for (way, default) in [
            (Way("exclude", "--exclude", Slot::Texts(&mut exclude.exclude)), None),
            (Way("iexclude", "--iexclude", Slot::Texts(&mut exclude.iexclude)), None),
            (Way("exclude-file", "--exclude-file", Slot::Paths(&mut exclude.exclude_file)), None),
            (Way("exclude-caches", "--exclude-caches", Slot::Switch(&mut exclude.exclude_caches)), None),
            (
                Way(
                    "exclude-if-present",
                    "--exclude-if-present",
                    Slot::Names(&mut exclude.exclude_if_present),
                ),
                None,
            ),
            (
                Way(
                    "exclude-larger-than",
                    "--exclude-larger-than",
                    Slot::Text(&mut exclude.exclude_larger_than),
                ),
                None,
            ),
            (Way("one-file-system", "--one-file-system", Slot::Switch(&mut exclude.one_file_system)), None),
            (Way("tags", "--tag", Slot::Texts(&mut record.tags)), None),
            (Way("host", "--host", Slot::Text(&mut record.host)), Some(host.as_str())),
            (Way("compression", "--compression", Slot::Text(&mut record.compression)), Some("auto")),
        ] {
            settings.settle(&mut [way], &[], default);
        }
    }
}

pub(crate) fn run(arguments: &Backup, context: &Context<'_>) -> Result<()> {
    // Everything that is wrong with the arguments, before anything is asked or opened.
    let sources = if arguments.stream.wanted() { None } else { Some(sources::collect(&arguments.sources)?) };
    let mut filter = filter(&arguments.exclude)?;
    let location = context.location()?;
    let mut options = options(arguments, context)?;
    if let Some(sources) = &sources {
        sources.warn_of_links(context.output);
        let usable = sources::refuse_hidden(&sources.paths, &filter)
            .and_then(|()| refuse_repository(&sources.paths, &location))
            .and_then(|()| sources.tell(context.output));
        if let Err(error) = usable {
            if !arguments.dry_run {
                tell_the_repository(context, &location, &options, &error);
            }
            return Err(error);
        }
    }
    announce(sources.as_ref(), &location, context);
    let Some(repository) = open(arguments, context, &location)? else { return Ok(()) };
    filter.never = never(&repository, context);
    let restores = repository.reads_data();
    let (done, account) = match sources {
        Some(Sources { paths, .. }) => {
            options.sources = paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
            let tells_each = arguments.dry_run && context.output.is_verbose();
            let each = |found: &LeftOut| {
                if tells_each {
                    tell_left_out(found, &filter, context);
                }
            };
            let tree = Tree { sources: paths, filter: filter.clone() };
            let mut tree = Accounted::new(tree, &each);
            let done = backup::run(&repository, &mut tree, &options)?;
            (done, tree.left_out().clone())
        }
        None => {
            let mut stream = stream(&arguments.stream, &arguments.sources, context)?;
            options.sources = vec![stream.path()];
            (backup::run(&repository, &mut stream, &options)?, BTreeMap::new())
        }
    };
    context.end_display();
    report(&done, (arguments, &filter, &account), context);
    if restores {
        how_to_get_it_back(&done, context);
    }
    end(&done)
}

/// That one thing was left out.
fn tell_left_out(found: &LeftOut, filter: &FilterOptions, context: &Context<'_>) {
    let LeftOut { path, why, entries, bytes } = found;
    let count = Count { entries: *entries, bytes: *bytes };
    let message = left_out::message("excluded", *why, count, filter);
    context.output.message(&json::with_path(message, &json::absolute(path)));
    context.output.note(&format!("left out {}: {}", text::path(path), left_out::name(*why, filter)));
}

/// Refuses sources that are the repository, or in it.
fn refuse_repository(paths: &[PathBuf], location: &Location) -> Result<()> {
    let Location::Folder(repository) = location else { return Ok(()) };
    let repository = Enclosure::new(repository);
    paths.iter().try_for_each(|path| {
        refuse_as_source(path, repository.as_ref()).map_err(|error| error.context(path.display()))
    })
}

/// That a backup was tried, as far as that is possible: what went wrong first is what the user hears of.
fn tell_the_repository(context: &Context<'_>, location: &Location, options: &BackupOptions, error: &Error) {
    let told =
        context.open_at(location).and_then(|repository| backup::could_not_begin(&repository, options, error));
    if let Err(other) = told {
        context.output.note(&format!("note: the repository could not be told of it: {other}"));
    }
}

/// The first line in the journal.
fn announce(sources: Option<&Sources>, location: &Location, context: &Context<'_>) {
    let what = match sources {
        Some(sources) => text::count(sources.paths.len() as u64, "source", "sources"),
        None => "a stream".to_owned(),
    };
    let profile = context.settings.profile_name().map(|name| format!(" (profile {name})"));
    let profile = profile.unwrap_or_default();
    context.output.journal(&format!("backing up {what} to {location}{profile}"));
}

/// The repository; `None` when it would have to be created and nothing is to be written.
fn open(arguments: &Backup, context: &Context<'_>, location: &Location) -> Result<Option<Repository>> {
    match context.open_at(location) {
        Err(error) if arguments.create.init && error.kind() == ErrorKind::NoRepository => {
            if let Some(seen) = places::remembered(context.cache_folder().as_deref(), location) {
                return Err(vanished(location, &seen));
            }
            if arguments.dry_run {
                init::dry_run(context, location, "initialized")?;
                context.end_display();
                nothing_to_compare_with(context);
                return Ok(None);
            }
            let recovery = &arguments.create.recovery;
            init::create(context, location, recovery, InitOptions::default(), "initialized")?;
            context.open_at(location).map(Some)
        }
        other => other.map(Some),
    }
}

/// Nobody watches a scheduled backup: a new repository in the place of one that somebody has removed or hidden would
/// look healthy.
fn vanished(location: &Location, (id, file): &(RepositoryId, PathBuf)) -> Error {
    let id = format!("{:.ID_DIGITS_SHOWN$}", id.to_string());
    let text = format!("there is no repository at {location} any more: this machine has used {id} there");
    Error::new(ErrorKind::NoRepository, text).with_remedy(format!(
        "`--init` begins no other in its place. A disk may not be mounted; a bucket that keeps versions shows what there was \
         with `--at TIME`. If it was removed on purpose, remove {} and run this again",
        file.display()
    ))
}

/// The summary of a dry run where there is no repository yet: what would be new in it nobody knows.
fn nothing_to_compare_with(context: &Context<'_>) {
    context.output.note("and back up to it; how much is told once it is there");
    let fields = [
        "snapshot",
        "sequence",
        "host",
        "tags",
        "time",
        "entries",
        "files",
        "files_unchanged",
        "bytes",
        "bytes_new",
        "bytes_stored",
        "unreadable",
        "excluded",
        "vanished",
        "changed_while_read",
        "names_changed",
        "empty_sources",
    ];
    let mut message = json!({ "dry_run": true });
    for field in fields {
        message[field] = serde_json::Value::Null;
    }
    context.output.message(&json::message("summary", message));
}

fn filter(exclude: &Exclude) -> Result<FilterOptions> {
    let mut excludes: Vec<Pattern> = exclude.exclude.iter().map(Pattern::from).collect();
    for path in &exclude.exclude_file {
        excludes.extend(sources::patterns_of(path)?);
        sources::patterns_fit(&excludes)?;
    }
    let ignoring_case =
        exclude.iexclude.iter().map(|text| Pattern { text: text.clone(), origin: "--iexclude".to_owned() });
    let largest = exclude.exclude_larger_than.as_deref().map(size::parse).transpose()?;
    let filter = FilterOptions {
        excludes,
        excludes_ignoring_case: ignoring_case.collect(),
        exclude_caches: exclude.exclude_caches,
        exclude_if_present: exclude.exclude_if_present.iter().map(|name| name.as_bytes().to_vec()).collect(),
        exclude_larger_than: largest,
        one_file_system: exclude.one_file_system,
        never: Vec::new(),
    };
    // A wrong pattern is found now, not after the passphrase.
    Filter::new(filter.clone())?;
    Ok(filter)
}

/// The folders that a backup must not hold: itself and what it can make again.
fn never(repository: &Repository, context: &Context<'_>) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for folder in
        [repository.store.folder().map(Path::to_owned), context.cache_folder()].into_iter().flatten()
    {
        // One that is not there holds nothing.
        folders.extend(resolve_source(&folder).into_iter().chain(folder.canonicalize()));
    }
    folders
}

pub(super) fn compression_of(name: Option<&str>) -> Result<Compression> {
    match name {
        Some("off") => Ok(Compression::Off),
        Some("fast") => Ok(Compression::Fast),
        Some("auto") | None => Ok(Compression::Auto),
        Some("max") => Ok(Compression::Max),
        Some(other) => Err(Error::new(ErrorKind::Usage, format!("`{other}` is no way to compress"))
            .with_remedy("Say off, fast, auto or max")),
    }
}

fn options(arguments: &Backup, context: &Context<'_>) -> Result<BackupOptions> {
    let Record { tags, host, time, skip_if_unchanged, compression } = &arguments.record;
    let Reading { force, ignore_ctime, ignore_inode } = arguments.reading;
    let user = uzers::get_current_username().map(|name| name.to_string_lossy().into_owned());
    Ok(BackupOptions {
        host: host.clone().unwrap_or_else(environment::host),
        user: user.unwrap_or_default(),
        tags: tags.iter().flat_map(|list| split_tags(list)).collect(),
        sources: Vec::new(),
        time: time.as_deref().map(|text| time::parse(text, &context.zone)).transpose()?,
        compression: compression_of(compression.as_deref())?,
        reuse: Reuse { unchanged: !force, compare_ctime: !ignore_ctime, compare_inode: !ignore_inode },
        unchanged: if *skip_if_unchanged { Unchanged::Skip } else { Unchanged::Keep },
        mode: if arguments.dry_run { Mode::DryRun } else { Mode::Store },
        program: format!("lifeboat {}", env!("CARGO_PKG_VERSION")),
        workers: workers(),
    })
}

impl StreamArguments {
    const fn wanted(&self) -> bool {
        self.stdin || self.stdin_from_command
    }
}

fn stream(arguments: &StreamArguments, sources: &SourceArguments, context: &Context<'_>) -> Result<Stream> {
    let words = &sources.paths;
    if sources.lists() {
        return Err(Error::new(
            ErrorKind::Usage,
            "a stream is backed up alone, and --files-from names paths",
        )
        .with_remedy("Leave out one of them"));
    }
    let name = arguments.stdin_filename.as_ref().map_or(&b"stdin"[..], |name| name.as_bytes());
    let file = StreamFile {
        path: name.to_vec(),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        time: SystemClock.now(),
    };
    let progress = Arc::clone(&context.progress);
    if arguments.stdin_from_command {
        let command = words.iter().map(|word| word.clone().into_os_string()).collect();
        return Stream::of_command(
            file,
            (command, environment::PASSWORDS.map(Into::into).to_vec()),
            progress,
        );
    }
    if !words.is_empty() {
        return Err(
            Error::new(ErrorKind::Usage, "--stdin takes no paths").with_remedy("Leave out one of them")
        );
    }
    let input = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Error::new(ErrorKind::Failed, "could not open standard input").with_source(e))?;
    Stream::of_input(file, input, progress)
}

type Account = BTreeMap<Why, Count>;

fn report(
    done: &Done,
    (arguments, filter, account): (&Backup, &FilterOptions, &Account),
    context: &Context<'_>,
) {
    let output = context.output;
    let Done { snapshot, record, observed, warnings } = done;
    for (path, reason) in &record.unreadable_named {
        output.problem(path, ErrorKind::Incomplete, reason, None);
    }
    for warning in warnings {
        output.warn(warning);
    }
    warn_of_observed(observed, context);
    if arguments.dry_run && !arguments.stream.wanted() {
        for why in left_out::rules(filter) {
            let count = account.get(&why).copied().unwrap_or_default();
            output.message(&left_out::message("rule", why, count, filter));
            left_out::line(why, count, filter).into_iter().for_each(|line| output.note(&line));
        }
    }
    let statistics = record.statistics;
    let excluded = account.values().map(|count| count.entries).sum::<u64>();
    let empty: Vec<_> = observed.emptied.named.iter().map(|path| String::from_utf8_lossy(path)).collect();
    output.message(&json::message(
        "summary",
        json!({
            "dry_run": arguments.dry_run,
            "snapshot": snapshot.map(|(id, _)| id.to_string()),
            "sequence": snapshot.map(|(_, sequence)| sequence),
            "host": record.host,
            "tags": record.tags,
            "time": time::rfc3339(record.time),
            "entries": statistics.entries,
            "files": statistics.files,
            "files_unchanged": statistics.files_unchanged,
            "bytes": statistics.bytes,
            "bytes_new": statistics.bytes_new,
            "bytes_stored": statistics.bytes_stored,
            "unreadable": record.unreadable,
            "excluded": excluded,
            "vanished": observed.vanished,
            "changed_while_read": observed.changed,
            "names_changed": observed.names_changed,
            "empty_sources": empty,
        }),
    ));
    let first = match short_id(done) {
        Some(id) => format!("saved snapshot {id}"),
        None if arguments.dry_run => "would save a snapshot".to_owned(),
        None => "nothing has changed, no snapshot was written".to_owned(),
    };
    output.note(&format!(
        "{first}: {}, {} ({} unchanged); {} new, {} stored",
        text::count(statistics.files, "file", "files"),
        size::show(statistics.bytes),
        text::count(statistics.files_unchanged, "file", "files"),
        size::show(statistics.bytes_new),
        size::show(statistics.bytes_stored),
    ));
    if excluded > 0 && !arguments.dry_run {
        let excluded = text::count(excluded, "entry was", "entries were");
        output.note(&format!("{excluded} left out; `backup --dry-run` says by which rule"));
    }
    if observed.vanished > 0 {
        let names = text::count(observed.vanished, "name", "names");
        output.note(&format!("{names} vanished before anybody could read what was there"));
    }
}

fn short_id(done: &Done) -> Option<String> {
    done.snapshot.map(|(id, _)| id.to_string().chars().take(ID_DIGITS_SHOWN).collect())
}

/// What is suspicious about the sources.
fn warn_of_observed(observed: &Observed, context: &Context<'_>) {
    let output = context.output;
    let Observed { changed, changed_named, names_changed, names_changed_named, emptied, vanished: _ } =
        observed;
    let warn = |(count, names): (u64, &[Vec<u8>]), what: &str, more: &str| {
        let named = if output.is_json() { names.len() } else { NAMED_MAX };
        for path in names.iter().take(named) {
            output.warn(&format!("{} {what}", text::path(path)));
        }
        let rest = count.saturating_sub(named as u64);
        if rest > 0 {
            output.warn(&format!("{} {more}", text::count(rest, "file more", "files more")));
        }
    };
    warn(
        (*changed, changed_named),
        "changed each time it was read: what is stored of it may be half old and half new",
        "changed each time they were read",
    );
    warn(
        (*names_changed, names_changed_named),
        "is a further name of a file that changed between the looks at its names: a restore links it to the first one, \
         unless its file system does not tell when files are born",
        "changed between the looks at their names",
    );
    for path in &emptied.named {
        output.warn(&format!(
            "{} held something when it was backed up last, and is empty now",
            text::shown(path)
        ));
    }
}

/// The commands that restore it.
fn how_to_get_it_back(done: &Done, context: &Context<'_>) {
    let output = context.output;
    // Nobody restores from a journal.
    let Some(id) = short_id(done).filter(|_| !output.is_journal()) else { return };
    // As it was called, so that the last line can be used as it is.
    let file = context.common.choice.config.as_ref();
    let file = file.map(|file| format!(" --config {}", text::quoted(&file.display().to_string())));
    let file = file.unwrap_or_default();
    let repository = match (context.settings.profile_name(), &context.common.place.repository) {
        (Some(name), _) => format!("{file} --profile {}", text::quoted(name)),
        (None, Some(address)) => format!(" -r {}", text::quoted(address)),
        (None, None) => String::new(),
    };
    output.note("to get it back:");
    output.note(&format!("lifeboat{repository} restore {id} --target ./restored"));
}

/// How the command ends.
fn end(done: &Done) -> Result<()> {
    match done.trouble() {
        None => Ok(()),
        Some(kind @ ErrorKind::EmptySource) => {
            let count = text::count(done.observed.emptied.count, "source is", "sources are");
            Err(Error::new(kind, format!("{count} suspiciously empty"))
                .with_remedy("The snapshot is kept, and so are those before it: look whether all is mounted"))
        }
        Some(kind) => {
            let count = text::count(done.record.unreadable, "entry", "entries");
            Err(Error::new(kind, format!("{count} could not be read"))
                .with_remedy("The snapshot has everything else; the lines above name the first of them"))
        }
    }
}
