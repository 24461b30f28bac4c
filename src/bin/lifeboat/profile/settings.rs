//! Flags beat the environment, the environment beats the profile. What nobody said before is filled in from
//! the profile here, so that no command has to ask where a value came from; `config show` tells it.

use std::{ffi::OsString, fmt, path::PathBuf};

use super::schema::{Profile, Value};
use crate::{
    args::{Common, FromArguments},
    environment,
};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag or argument.
    Flag(&'static str),
    /// A variable of the environment.
    Environment(&'static str),
    /// A line of a profile.
    Profile(PathBuf, usize),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Environment(variable) => f.write_str(variable),
            Self::Profile(file, line) => write!(f, "{}:{line}", file.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// An effective value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
    pub(crate) origin: Origin,
}

/// A place among the arguments that the profile may fill.
#[derive(Debug)]
pub(crate) enum Slot<'a> {
    Text(&'a mut Option<String>),
    Path(&'a mut Option<PathBuf>),
    Count(&'a mut Option<u16>),
    Texts(&'a mut Vec<String>),
    Paths(&'a mut Vec<PathBuf>),
    Names(&'a mut Vec<OsString>),
    Switch(&'a mut bool),
}

impl Slot<'_> {
    /// What the arguments say, if they do.
    fn values(&self) -> Vec<String> {
        let path = |path: &PathBuf| path.display().to_string();
        match self {
            Self::Text(text) => text.iter().cloned().collect(),
            Self::Path(at) => at.iter().map(path).collect(),
            Self::Count(count) => count.iter().map(u16::to_string).collect(),
            Self::Texts(texts) => texts.to_vec(),
            Self::Paths(paths) => paths.iter().map(path).collect(),
            Self::Names(names) => names.iter().map(|name| name.to_string_lossy().into_owned()).collect(),
            Self::Switch(switch) => switch.then(|| "true".to_owned()).into_iter().collect(),
        }
    }

    /// The schema has made sure that the value fits.
    fn fill(&mut self, value: &Value) {
        match (self, value) {
            (Self::Text(slot), Value::Text(text)) => **slot = Some(text.clone()),
            (Self::Path(slot), Value::Text(text)) => **slot = Some(PathBuf::from(text)),
            (Self::Count(slot), Value::Text(text)) => **slot = text.parse().ok(),
            (Self::Texts(slot), Value::List(list)) => slot.clone_from(list),
            (Self::Paths(slot), Value::List(list)) => **slot = list.iter().map(PathBuf::from).collect(),
            (Self::Names(slot), Value::List(list)) => **slot = list.iter().map(OsString::from).collect(),
            (Self::Switch(slot), Value::Switch(switch)) => **slot = *switch,
            _ => {}
        }
    }
}

/// One way to say something: the key of the profile, the flag, and where it goes.
#[derive(Debug)]
pub(crate) struct Way<'a>(pub(crate) &'static str, pub(crate) &'static str, pub(crate) Slot<'a>);

/// The profile in use, and what became of all values.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) profile: Option<Profile>,
    pub(crate) effective: Vec<Setting>,
}

impl Settings {
    /// The name of the profile in use.
    pub(crate) fn profile_name(&self) -> Option<&str> {
        self.profile.as_ref().map(|profile| profile.name.as_str())
    }

    /// Decides between several ways to say one thing. `variables` say it too, where whoever needs the value
    /// looks at them; `default` is what happens otherwise.
    pub(crate) fn settle(&mut self, ways: &mut [Way<'_>], variables: &[&'static str], default: Option<&str>) {
        let before = self.effective.len();
        for Way(key, flag, slot) in ways.iter() {
            let values = slot.values();
            if !values.is_empty() {
                self.effective.push(Setting { key: (*key).to_owned(), values, origin: Origin::Flag(flag) });
            }
        }
        let Some(&Way(first, ..)) = ways.first() else { return };
        if self.effective.len() > before {
            return;
        }
        if let Some((variable, value)) =
            variables.iter().find_map(|variable| Some((*variable, environment::os(variable)?)))
        {
            let values = vec![value.to_string_lossy().into_owned()];
            let key = variable.strip_prefix("LIFEBOAT_").map(|name| name.to_lowercase().replace('_', "-"));
            let key = key.unwrap_or_else(|| first.to_owned());
            self.effective.push(Setting { key, values, origin: Origin::Environment(variable) });
            return;
        }
        for Way(key, _, slot) in ways.iter_mut() {
            if let Some((profile, given)) =
                self.profile.as_ref().and_then(|profile| Some((profile, profile.given.get(key)?)))
            {
                slot.fill(&given.value);
                let values = match &given.value {
                    Value::Text(text) => vec![text.clone()],
                    Value::List(list) => list.clone(),
                    Value::Switch(switch) => vec![switch.to_string()],
                };
                let origin = Origin::Profile(profile.file.clone(), given.line);
                self.effective.push(Setting { key: (*key).to_owned(), values, origin });
            }
        }
        if let Some(default) = default.filter(|_| self.effective.len() == before) {
            let values = vec![default.to_owned()];
            self.effective.push(Setting { key: first.to_owned(), values, origin: Origin::Default });
        }
    }

    /// Decides what every command takes.
    pub(crate) fn settle_common(&mut self, common: &mut Common) {
        let (place, unlock) = (&mut common.place, &mut common.unlock);
        self.settle(
            &mut [
                Way("repository", "--repository", Slot::Text(&mut place.repository)),
                Way("repository-file", "--repository-file", Slot::Path(&mut place.repository_file)),
            ],
            &["LIFEBOAT_REPOSITORY", "LIFEBOAT_REPOSITORY_FILE"],
            None,
        );
        self.settle(
            &mut [
                Way("access-key-file", "--access-key-file", Slot::Path(&mut unlock.access_key_file)),
                Way("password-file", "--password-file", Slot::Path(&mut unlock.password_file)),
                Way("password-command", "--password-command", Slot::Text(&mut unlock.password_command)),
                Way("recovery-words", "--recovery-words", Slot::Switch(&mut unlock.recovery_words)),
                Way(
                    "recovery-words-file",
                    "--recovery-words-file",
                    Slot::Path(&mut unlock.recovery_words_file),
                ),
            ],
            &[
                "LIFEBOAT_ACCESS_KEY_FILE",
                "LIFEBOAT_PASSWORD_FILE",
                "LIFEBOAT_PASSWORD_COMMAND",
                "LIFEBOAT_PASSWORD",
            ],
            None,
        );
        self.settle(&mut [Way("slot", "--slot", Slot::Text(&mut unlock.slot))], &[], None);
        let (network, cache) = (&mut common.network, &mut common.cache);
        for (way, variables, default) in [
            (
                Way("s3-credentials", "--s3-credentials", Slot::Path(&mut network.s3_credentials)),
                &["AWS_ACCESS_KEY_ID"][..],
                None,
            ),
            (Way("options", "--option", Slot::Texts(&mut network.options)), &[], None),
            (Way("cacert", "--cacert", Slot::Path(&mut network.cacert)), &[], None),
            (Way("limit-upload", "--limit-upload", Slot::Text(&mut network.limit_upload)), &[], None),
            (Way("limit-download", "--limit-download", Slot::Text(&mut network.limit_download)), &[], None),
            (Way("connections", "--connections", Slot::Count(&mut network.connections)), &[], Some("8")),
            (Way("retry-for", "--retry-for", Slot::Text(&mut network.retry_for)), &[], Some("15m")),
        ] {
            self.settle(&mut [way], variables, default);
        }
        self.leave_to_the_environment("options", &mut network.options);
        let default = environment::cache_folder().map(|folder| folder.display().to_string());
        self.settle(
            &mut [
                Way("cache-dir", "--cache-dir", Slot::Path(&mut cache.cache_dir)),
                Way("no-cache", "--no-cache", Slot::Switch(&mut cache.no_cache)),
            ],
            &["LIFEBOAT_CACHE_DIR", "CACHE_DIRECTORY"],
            default.as_deref(),
        );
        self.settle_max_age();
    }

    /// An option of the profile gives way to a variable such as `AWS_REGION`; one of `-o` does not.
    fn leave_to_the_environment(&mut self, key: &str, options: &mut Vec<String>) {
        let of_profile = |it: &&mut Setting| it.key == key && matches!(it.origin, Origin::Profile(..));
        let Some(setting) = self.effective.iter_mut().find(of_profile) else { return };
        let variables: Vec<_> =
            environment::aws().iter().filter_map(|(name, _)| environment::storage_setting(name)).collect();
        let name = |option: &String| environment::storage_setting(option.split('=').next()?);
        options.retain(|option| name(option).is_none_or(|setting| !variables.contains(&setting)));
        setting.values.clone_from(options);
        self.effective.retain(|it| it.key != key || !it.values.is_empty());
    }

    /// Decides what a command takes that reads from another repository.
    pub(crate) fn settle_from(&mut self, from: &mut FromArguments) {
        let FromArguments { from_repository: place, from_repository_file: file, .. } = from;
        self.settle(
            &mut [
                Way("from-repository", "--from-repository", Slot::Text(place)),
                Way("from-repository-file", "--from-repository-file", Slot::Path(file)),
            ],
            &["LIFEBOAT_FROM_REPOSITORY", "LIFEBOAT_FROM_REPOSITORY_FILE"],
            None,
        );
        self.settle(
            &mut [
                Way(
                    "from-access-key-file",
                    "--from-access-key-file",
                    Slot::Path(&mut from.from_access_key_file),
                ),
                Way("from-password-file", "--from-password-file", Slot::Path(&mut from.from_password_file)),
                Way(
                    "from-password-command",
                    "--from-password-command",
                    Slot::Text(&mut from.from_password_command),
                ),
                Way(
                    "from-recovery-words",
                    "--from-recovery-words",
                    Slot::Switch(&mut from.from_recovery_words),
                ),
                Way(
                    "from-recovery-words-file",
                    "--from-recovery-words-file",
                    Slot::Path(&mut from.from_recovery_words_file),
                ),
            ],
            &[
                "LIFEBOAT_FROM_ACCESS_KEY_FILE",
                "LIFEBOAT_FROM_PASSWORD_FILE",
                "LIFEBOAT_FROM_PASSWORD_COMMAND",
                "LIFEBOAT_FROM_PASSWORD",
            ],
            None,
        );
        self.settle(&mut [Way("from-slot", "--from-slot", Slot::Text(&mut from.from_slot))], &[], None);
        let credentials =
            Way("from-s3-credentials", "--from-s3-credentials", Slot::Path(&mut from.from_s3_credentials));
        self.settle(&mut [credentials], &["AWS_ACCESS_KEY_ID"], None);
        let options = Way("from-options", "--from-option", Slot::Texts(&mut from.from_options));
        self.settle(&mut [options], &[], None);
        self.leave_to_the_environment("from-options", &mut from.from_options);
    }

    /// Only a profile says how often it must have run.
    fn settle_max_age(&mut self) {
        self.settle(&mut [Way("max-age", "", Slot::Text(&mut None))], &[], None);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::schema::Document, *};

    fn settings(text: &str) -> Settings {
        let text = format!("[profile.web]\n{text}");
        let profile = Document::parse(Path::new("/c.toml"), &text).unwrap().profile("web").unwrap();
        Settings { profile, effective: Vec::new() }
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_profile() {
        let mut settings = settings("repository = \"/profile\"\nhost = \"h\"\ntags = [\"a\", \"b\"]\n");
        let mut flag = Some("/flag".to_owned());
        settings.settle(&mut [Way("repository", "--repository", Slot::Text(&mut flag))], &["PATH"], None);
        let mut repository = None;
        settings.settle(&mut [Way("repository", "-r", Slot::Text(&mut repository))], &["PATH"], None);
        // Whoever needs it looks into the environment.
        assert_eq!(repository, None);
        let mut tags = Vec::new();
        settings.settle(&mut [Way("tags", "--tag", Slot::Texts(&mut tags))], &["NO_SUCH_VARIABLE"], None);
        assert_eq!(tags, ["a", "b"]);
        settings.settle(&mut [Way("slot", "--slot", Slot::Text(&mut None))], &[], Some("any"));
        let origins: Vec<String> = settings.effective.iter().map(|it| it.origin.to_string()).collect();
        assert_eq!(origins, ["--repository", "PATH", "/c.toml:4", "default"]);
    }

    #[test]
    fn one_way_to_say_it_shuts_out_the_others() {
        let mut settings = settings("password-command = \"pass\"\n");
        let (mut file, mut command) = (Some(PathBuf::from("/k")), None);
        let ways = &mut [
            Way("access-key-file", "--access-key-file", Slot::Path(&mut file)),
            Way("password-command", "--password-command", Slot::Text(&mut command)),
        ];
        settings.settle(ways, &[], None);
        assert_eq!((file, command), (Some(PathBuf::from("/k")), None));
    }
}
