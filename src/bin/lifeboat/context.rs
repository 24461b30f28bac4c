//! What every command needs: where the repository is, how to reach and unlock it, where to say things.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::tz::TimeZone;
use lifeboat::{
    clock::{Clock, StoppedClock, SystemClock, Timestamp},
    error::{Error, ErrorKind, Result},
    id::DomainId,
    ops::select::{Filter, Reference},
    progress::Progress,
    report::{size, time},
    repository::{Repository, places, snapshots::KnownSnapshot},
    store::{Location, S3Settings, Store, StoreOptions},
};

use crate::{
    args::{Common, Network, Place, Unlock},
    credentials::Credentials,
    display::Display,
    environment,
    notify::Notifier,
    profile::Settings,
    signals::Signals,
    terminal::Output,
};

/// Calls in flight, if the user does not say.
const CONNECTIONS: usize = 8;
/// How long a call is tried again, if the user does not say.
const RETRY_FOR: &str = "15m";
/// The largest file of settings that is read, in bytes.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// Which of the repositories of a command is meant: most have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one of `-r`.
    Main,
    /// The one that is only read.
    From,
}

impl Which {
    /// The variable that says something about it.
    pub(crate) fn variable(self, name: &str) -> String {
        let from = if self == Self::From { "FROM_" } else { "" };
        format!("LIFEBOAT_{from}{name}")
    }

    pub(crate) const fn prompt(self) -> &'static str {
        match self {
            Self::Main => "Passphrase: ",
            Self::From => "Passphrase of the source: ",
        }
    }

    /// What says the passphrase where nobody can be asked.
    pub(crate) const fn instead(self) -> &'static str {
        match self {
            Self::Main => "--password-file FILE, --password-command or LIFEBOAT_PASSWORD",
            Self::From => {
                "--from-password-file FILE, --from-password-command or LIFEBOAT_FROM_PASSWORD for the source"
            }
        }
    }

    const fn not_named(self) -> (&'static str, &'static str) {
        match self {
            Self::Main => (
                "no repository was named",
                "Use -r FOLDER or -r s3://BUCKET/PREFIX, set LIFEBOAT_REPOSITORY, or write a profile",
            ),
            Self::From => (
                "no repository was named to read from",
                "Use --from-repository FOLDER or s3://BUCKET/PREFIX, or set LIFEBOAT_FROM_REPOSITORY",
            ),
        }
    }
}

/// A repository as the user gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    pub(crate) which: Which,
    pub(crate) place: &'a Place,
    pub(crate) unlock: &'a Unlock,
    pub(crate) network: &'a Network,
}

/// What every command needs.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) common: &'a Common,
    pub(crate) output: &'a Output,
    pub(crate) settings: &'a Settings,
    pub(crate) progress: Arc<Progress>,
    pub(crate) zone: TimeZone,
    pub(crate) notifier: Arc<Notifier>,
    signals: Arc<Signals>,
    display: Display<'a>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(common: &'a Common, output: &'a Output, settings: &'a Settings) -> Result<Self> {
        let (signals, progress) = (Arc::new(Signals::install()?), Arc::new(Progress::default()));
        let notifier = Arc::new(Notifier::from_environment());
        let display =
            Display::new(output, Arc::clone(&progress), Arc::clone(&signals), Arc::clone(&notifier));
        let (zone, wrong) = environment::zone();
        wrong.iter().for_each(|wrong| output.warn(wrong));
        Ok(Self { common, output, settings, progress, zone, notifier, signals, display })
    }

    /// Does all of a command's work.
    pub(crate) fn watched<T>(&self, work: impl FnOnce() -> T) -> T {
        self.display.watched(work)
    }

    /// The operation is over and its results come: nothing else may be on the screen.
    pub(crate) fn end_display(&self) {
        self.display.end();
    }

    pub(crate) fn credentials(&self) -> Credentials<'_> {
        self.credentials_of(&self.main())
    }

    fn credentials_of<'b>(&'b self, given: &Given<'b>) -> Credentials<'b> {
        let Given { which, unlock, .. } = *given;
        Credentials { unlock, which, output: self.output, signals: &self.signals }
    }

    fn main(&self) -> Given<'_> {
        let Common { place, unlock, network, .. } = self.common;
        Given { which: Which::Main, place, unlock, network }
    }

    /// The address of the repository, as the user gave it.
    ///
    /// # Errors
    /// `Usage` when there is none.
    pub(crate) fn address(&self) -> Result<String> {
        Self::address_of(&self.main())
    }

    fn address_of(Given { which, place, .. }: &Given<'_>) -> Result<String> {
        if place.repository.is_some() && place.repository_file.is_some() {
            return Err(Error::new(ErrorKind::Usage, "both --repository and --repository-file are given")
                .with_remedy("Keep one of them"));
        }
        if let Some(address) = &place.repository {
            return Ok(address.clone());
        }
        if let Some(path) = &place.repository_file {
            return first_line(path);
        }
        if let Some(address) = environment::text(&which.variable("REPOSITORY"))? {
            return Ok(address);
        }
        if let Some(path) = environment::os(&which.variable("REPOSITORY_FILE")) {
            return first_line(Path::new(&path));
        }
        let (what, remedy) = which.not_named();
        Err(Error::new(ErrorKind::Usage, what).with_remedy(remedy))
    }

    pub(crate) fn location(&self) -> Result<Location> {
        Self::location_of(&self.main())
    }

    fn location_of(given: &Given<'_>) -> Result<Location> {
        let address = Self::address_of(given)?;
        let authority = address.split("://").nth(1).and_then(|rest| rest.split('/').next());
        if authority.is_some_and(|authority| authority.contains('@')) {
            // The address itself must not be repeated: it may hold a password.
            return Err(Error::new(
                ErrorKind::Usage,
                "the address of the repository has a user or password in it",
            )
            .with_remedy("Leave them out, and give credentials with --s3-credentials or AWS_ variables"));
        }
        Location::parse(&address)
    }

    pub(crate) fn store(&self, location: &Location) -> Result<Store> {
        self.store_by(location, &self.main())
    }

    /// The time that is looked at, if that is not now.
    ///
    /// # Errors
    /// `Usage` for what is no time, or is still to come.
    fn past_of(&self, place: &Place) -> Result<Option<Timestamp>> {
        let Some(text) = &place.at else { return Ok(None) };
        let at = time::parse(text, &self.zone)?;
        if at > SystemClock.now() {
            // Whoever mistypes the year must not take today's bucket for an old one.
            let text = format!("{} is still to come", time::show(at, &self.zone));
            return Err(Error::new(ErrorKind::Usage, text)
                .with_remedy("Name a time before the damage was done, and check the clock of this machine"));
        }
        Ok(Some(at))
    }

    fn store_by(&self, location: &Location, given: &Given<'_>) -> Result<Store> {
        let (network, at) = (given.network, self.past_of(given.place)?);
        let Network { limit_upload, limit_download, connections, retry_for, options, .. } = network;
        if location.folder().is_some() && !options.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "a folder has no options: -o is for a bucket")
                .with_remedy("Leave out -o, or give the address of the bucket"));
        }
        let limit = |text: &Option<String>| text.as_deref().map(size::parse).transpose();
        let options = StoreOptions {
            connections: connections.map_or(CONNECTIONS, usize::from),
            upload_limit: limit(limit_upload)?,
            download_limit: limit(limit_download)?,
            retry_for: time::parse_duration(retry_for.as_deref().unwrap_or(RETRY_FOR))?,
            s3: Self::s3_settings(network)?,
            clock: Arc::new(SystemClock),
            progress: Arc::clone(&self.progress),
        };
        self.notifier.expect_silence_of(options.retry_for);
        let store = match at {
            None => Store::open(location, options)?,
            Some(at) => Store::open_past(location, at, options)?,
        };
        store.warnings().iter().for_each(|warning| self.output.warn(warning));
        if let Some(doubt) = store.doubt()? {
            self.output.warn(&doubt);
        }
        Ok(store)
    }

    /// The `AWS_*` variables that count: no keys beside a file with keys, and nothing that `-o` says.
    pub(crate) fn aws_variables(&self) -> Vec<(String, String)> {
        Self::aws_variables_for(&self.common.network)
    }

    fn aws_variables_for(Network { s3_credentials, options, .. }: &Network) -> Vec<(String, String)> {
        let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN"];
        let of_option = |option: &String| environment::storage_setting(option.split('=').next()?);
        let said: Vec<_> = options.iter().filter_map(of_option).collect();
        let mut variables = environment::aws();
        variables.retain(|(name, _)| {
            let beside_file = s3_credentials.is_some() && keys.contains(&name.as_str());
            !beside_file && environment::storage_setting(name).is_none_or(|setting| !said.contains(&setting))
        });
        variables
    }

    fn s3_settings(network: &Network) -> Result<S3Settings> {
        let Network { s3_credentials, cacert, options, .. } = network;
        let environment = Self::aws_variables_for(network);
        let mut settings = S3Settings { environment, ..S3Settings::default() };
        if let Some(path) = s3_credentials {
            let profile = environment::text("AWS_PROFILE")?;
            let path = environment::file(path)?;
            let given = aws_file(&read_text(&path)?, profile.as_deref().unwrap_or("default"));
            let given = given.ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("{} has no aws_access_key_id", path.display()))
                    .with_remedy("Write [default], aws_access_key_id = .. and aws_secret_access_key = ..")
            })?;
            settings.environment.extend(given);
        }
        settings.options = options.iter().map(|text| key_and_value(text)).collect::<Result<_>>()?;
        if let Some(path) = cacert {
            settings.certificate_authority = Some(read_text(&environment::file(path)?)?.into_bytes());
        }
        Ok(settings)
    }

    /// The folder for caches, if one is wanted.
    pub(crate) fn cache_folder(&self) -> Option<PathBuf> {
        if self.common.cache.no_cache {
            return None;
        }
        self.common.cache.cache_dir.clone().or_else(environment::cache_folder)
    }

    /// Folders that no backup holds: the repository's and the cache.
    ///
    /// # Errors
    /// As [`Self::location`].
    pub(crate) fn never(&self) -> Result<Vec<PathBuf>> {
        let repository = self.location()?.folder();
        Ok(repository.into_iter().chain(self.cache_folder()).collect())
    }

    /// Unlocks the repository.
    ///
    /// # Errors
    /// `NoRepository`, `CannotUnlock`, storage trouble.
    pub(crate) fn open(&self) -> Result<Repository> {
        self.open_at(&self.location()?)
    }

    /// Unlocks a repository.
    ///
    /// # Errors
    /// `NoRepository`, `CannotUnlock`, storage trouble.
    pub(crate) fn open_at(&self, location: &Location) -> Result<Repository> {
        self.open_with(location, self.cache_folder().as_deref())
    }

    /// Unlocks the repository, to read everything from the storage.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn open_without_cache(&self) -> Result<Repository> {
        self.open_with(&self.location()?, None)
    }

    /// Unlocks another repository than that of `-r`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn open_given(&self, given: &Given<'_>) -> Result<Repository> {
        self.open_as(given, &Self::location_of(given)?, self.cache_folder().as_deref())
    }

    fn open_with(&self, location: &Location, cache: Option<&Path>) -> Result<Repository> {
        self.open_as(&self.main(), location, cache)
    }

    fn open_as(&self, given: &Given<'_>, location: &Location, cache: Option<&Path>) -> Result<Repository> {
        let store = self.store_by(location, given)?;
        let (cache, clock) = surroundings(&store, cache);
        // Before anybody is asked for a passphrase.
        let config = Repository::read_config(&store)?;
        let credential = self.credentials_of(given).credential()?;
        let repository = Repository::unlock_and_open(store, config, &credential, cache.as_deref(), clock)?;
        places::remember(cache.as_deref(), location, &repository.config.repository_id);
        Ok(repository)
    }

    /// The snapshot that is meant, and how the command is to end because of damaged ones. Those that cannot be
    /// what was asked for are a warning: nobody may spoil another one's restore. Of `latest` without filters
    /// nobody can tell.
    ///
    /// # Errors
    /// There is none, or there are several; as [`Self::snapshots`].
    pub(crate) fn find(
        &self,
        repository: &Repository,
        (reference, filter): (&Reference, &Filter),
    ) -> Result<(KnownSnapshot, Result<()>)> {
        let mut every = repository.every_snapshot()?;
        let damaged = std::mem::take(&mut every.damaged);
        // An id also finds one that another one replaced.
        let sealed = std::mem::take(&mut every.sealed);
        let snapshots = if matches!(reference, Reference::Id(_)) { every.all() } else { every.listed };
        let found = reference.find_among((&snapshots, &sealed), filter);
        let chosen = found.as_ref().ok();
        let excluded = |domain: DomainId| {
            let mut there = snapshots.iter().filter(|known| known.name.domain == domain).peekable();
            !filter.is_empty() && there.peek().is_some() && !there.any(|known| filter.matches(known))
        };
        let mut unread = Vec::new();
        for (domain, error) in damaged {
            let by_id = matches!(reference, Reference::Id(_)) && chosen.is_some();
            let other = chosen.is_some_and(|known| known.name.domain != domain) && excluded(domain);
            if by_id || other {
                self.output.warn(&format!("another snapshot cannot be trusted: {error}"));
            } else {
                self.output.trouble(&error);
                unread.push(error);
            }
        }
        let is_there = || snapshots.iter().any(|known| reference.is_id_of(&known.name.id));
        match found {
            Ok(found) => Ok((found.clone(), whole(unread))),
            // It may be one of the others: that is not a snapshot which nobody made.
            Err(error) if error.kind() == ErrorKind::Failed && !unread.is_empty() && !is_there() => {
                let what = format!("{error} among those that can be read");
                Err(whole(unread).err().unwrap_or(error).context(what))
            }
            Err(error) => Err(error),
        }
    }

    /// All snapshots, oldest first. Damaged ones are told, and given back as the end of the command.
    ///
    /// # Errors
    /// `Forbidden` for a role that cannot read them; storage trouble.
    pub(crate) fn snapshots(&self, repository: &Repository) -> Result<(Vec<KnownSnapshot>, Result<()>)> {
        let (snapshots, damaged) = repository.snapshots()?;
        for error in &damaged {
            self.output.trouble(error);
        }
        Ok((snapshots, whole(damaged)))
    }
}

/// The cache and the clock of a repository. The past has its own: its clock stands still, and its cache must not push
/// out what the next backup needs.
fn surroundings(store: &Store, cache: Option<&Path>) -> (Option<PathBuf>, Arc<dyn Clock>) {
    match store.past() {
        None => (cache.map(Path::to_owned), Arc::new(SystemClock)),
        Some(at) => (cache.map(|folder| folder.join("past")), Arc::new(StoppedClock(at))),
    }
}

fn whole(unread: Vec<Error>) -> Result<()> {
    let what = "some snapshots cannot be read, or their chain is suspect, as said above";
    end_of_unread(&unread, (what, "`lifeboat check` tells what is damaged")).map_err(|error| {
        match unread.into_iter().next() {
            Some(source) => error.with_source(source),
            None => error,
        }
    })
}

/// How a command ends that could not read all that it was to judge; each of `unread` was told. What only a newer key opens
/// is no damage.
pub(crate) fn end_of_unread(unread: &[Error], (what, remedy): (&str, &str)) -> Result<()> {
    let Some(first) = unread.first() else { return Ok(()) };
    if unread.iter().all(|error| error.kind() == ErrorKind::Forbidden) {
        let error = Error::new(ErrorKind::Forbidden, format!("{what}: {first}"));
        return Err(error.with_remedy(first.remedy().unwrap_or(remedy)));
    }
    Err(Error::new(ErrorKind::Damaged, what).with_remedy(remedy))
}

fn read_text(path: &Path) -> Result<String> {
    use std::io::Read;
    let failed = |e: std::io::Error| {
        Error::new(ErrorKind::Usage, format!("could not read {}", path.display()))
            .with_remedy("Check the path and who may read it")
            .with_source(e)
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(SETTINGS_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn first_line(path: &Path) -> Result<String> {
    let path = environment::file(path)?;
    let line = read_text(&path)?.lines().next().unwrap_or_default().trim().to_owned();
    if line.is_empty() {
        return Err(Error::new(ErrorKind::Usage, format!("{} names no repository", path.display()))
            .with_remedy("Write the address of the repository into its first line"));
    }
    Ok(line)
}

/// `-o key=value`; secrets are not taken here.
pub(crate) fn key_and_value(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Error::new(ErrorKind::Usage, "an option of -o has no `=`").with_remedy("Write -o key=value")
    })?;
    let name = key.trim().to_ascii_lowercase();
    if ["secret", "token", "password", "encryption_key", "customer_key"]
        .iter()
        .any(|word| name.contains(word))
        && !name.ends_with("_file")
    {
        return Err(Error::new(ErrorKind::Usage, format!("the option {name} would show a secret to others"))
            .with_remedy("Use --s3-credentials FILE or the AWS_ variables"));
    }
    Ok((key.trim().to_owned(), value.to_owned()))
}

/// The keys of a profile in a file such as `~/.aws/credentials`, under their names in the environment.
fn aws_file(text: &str, profile: &str) -> Option<Vec<(String, String)>> {
    let (mut found, mut mine) = (Vec::new(), true);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            mine = section.trim().trim_start_matches("profile ").trim() == profile;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| mine) {
            found.push((key.trim().to_ascii_uppercase(), value.trim().to_owned()));
        }
    }
    found.iter().any(|(key, _)| key == "AWS_ACCESS_KEY_ID").then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_the_right_profile_are_read() {
        let text = "# mine\n[other]\naws_access_key_id = no\n\n[default]\naws_access_key_id = A\n\
                    aws_secret_access_key=S=/+\nregion = x\n";
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let expected =
            vec![pair("AWS_ACCESS_KEY_ID", "A"), pair("AWS_SECRET_ACCESS_KEY", "S=/+"), pair("REGION", "x")];
        assert_eq!(aws_file(text, "default"), Some(expected));
        assert_eq!(aws_file(text, "other"), Some(vec![pair("AWS_ACCESS_KEY_ID", "no")]));
        assert_eq!(aws_file(text, "none"), None);
    }

    #[test]
    fn secrets_are_refused_as_options() {
        let pair = ("region".to_owned(), "a=b".to_owned());
        assert_eq!(key_and_value("region=a=b").unwrap(), pair);
        assert!(key_and_value("web_identity_token_file=/x").is_ok());
        for secret in
            ["aws_secret_access_key=X9", "SESSION_TOKEN=X9", "token=X9", "sse_customer_key_base64=X9"]
        {
            let error = key_and_value(secret).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(!error.to_string().contains("X9"));
        }
    }
}
