//! `config`: what holds, where it comes from, and whether it works.

use std::{
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use lifeboat::{
    error::{Error, ErrorKind, Result},
    filesystem::inside::Enclosure,
    report::{
        exit, json,
        table::{Side, Table},
        text,
    },
    repository::Repository,
    store::Location,
};
use object_store::aws::AmazonS3ConfigKey as Key;
use serde_json::json;

use super::{
    backup::Backup,
    refuse_as_source,
    sources::{self, Sources},
};
use crate::{
    context::{Context, key_and_value},
    environment,
    profile::{self, Setting},
};

/// Stands for a secret.
const HIDDEN: &str = "(hidden)";

const AFTER: &str = "\
A flag beats the environment, which beats the profile; of options each counts for itself: AWS_REGION beats the region of
the profile, and -o beats both. `check` writes nothing, so it does not know whether the storage lets us write.

Examples:
  lifeboat --profile web config show
  lifeboat --profile web config check";

/// Arguments of `config`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Config {
    #[command(subcommand)]
    what: What,
    /// What `backup` would do without arguments.
    #[arg(skip)]
    pub(crate) backup: Backup,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum What {
    /// Print each effective value and where it comes from; secrets are not shown
    Show,
    /// Try everything that a backup needs, except writing, and say what works and what does not
    Check,
}

pub(crate) fn run(arguments: &Config, context: &Context<'_>) -> Result<()> {
    match arguments.what {
        What::Show => show(context),
        What::Check => Check { context, kinds: Vec::new(), checked: 0, skipped: 0 }.run(&arguments.backup),
    }
}

fn show(context: &Context<'_>) -> Result<()> {
    let settings = context.settings;
    if let Some(profile) = &settings.profile {
        let place = format!("{}:{}", profile.file.display(), profile.line);
        context.output.note(&format!("profile {} in {place}", text::shown(profile.name.as_bytes())));
    }
    let mut table = Table::new(&[("Setting", Side::Left), ("Value", Side::Left), ("From", Side::Left)]);
    let mut settled = 0;
    let mut row = |key: &str, values: &[String], origin: &str| {
        settled += 1;
        let fields = json!({ "key": key, "values": values, "origin": origin });
        context.output.message(&json::message("setting", fields));
        let shown: Vec<String> = values.iter().map(|value| text::shown(value.as_bytes())).collect();
        table.row(vec![key.to_owned(), shown.join(", "), origin.to_owned()]);
    };
    for setting in &settings.effective {
        row(&setting.key, &shown(setting), &setting.origin.to_string());
    }
    for (variable, value) in variables(context) {
        row("options", &[value], &variable);
    }
    context.output.message(&json::message(
        "summary",
        json!({
            "profile": settings.profile_name(),
            "file": settings.profile.as_ref().map(|profile| profile.file.display().to_string()),
            "settings": settled,
        }),
    ));
    for line in table.lines(None) {
        context.output.say(line.trim_end());
    }
    Ok(())
}

/// The `AWS_*` variables that count for this repository, and what they say as an option.
fn variables(context: &Context<'_>) -> Vec<(String, String)> {
    let bucket = match context.location() {
        Ok(Location::Bucket { endpoint, .. }) => Some(endpoint),
        Ok(Location::Folder(_)) => return Vec::new(),
        Err(_) => None,
    };
    let has_endpoint = bucket.flatten().is_some();
    let mut found = context.aws_variables();
    // The address says what bucket and server it is; the key is shown as that of the storage already.
    found.retain(|(name, _)| match environment::storage_setting(name) {
        Some(Key::Endpoint) => !has_endpoint,
        Some(Key::Bucket | Key::AccessKeyId) => false,
        setting => setting.is_some() || name == "AWS_PROFILE",
    });
    for (name, value) in &mut found {
        let option = name.trim_start_matches("AWS_").to_ascii_lowercase();
        let is_plain = matches!(environment::storage_setting(name), Some(Key::Endpoint | Key::Region));
        *value = if is_plain {
            without_secrets("options", &format!("{option}={value}"))
        } else {
            format!("{option}={HIDDEN}")
        };
    }
    found
}

/// The values of a setting without secrets.
fn shown(setting: &Setting) -> Vec<String> {
    let origin = setting.origin.to_string();
    if ["LIFEBOAT_PASSWORD", "AWS_ACCESS_KEY_ID"].contains(&origin.as_str()) {
        return vec![HIDDEN.to_owned()];
    }
    setting.values.iter().map(|value| without_secrets(&setting.key, value)).collect()
}

fn without_secrets(key: &str, value: &str) -> String {
    // `user:password@host`, or a query such as that of an address that was signed.
    let may_hold_one = |text: &str| text.contains(['@', '?']);
    match key {
        "password-command" => {
            // The way to a secret is often one itself, and so is what is set before the command.
            let word = value.split_whitespace().next().unwrap_or_default();
            let is_name = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
            if is_name { format!("{word} (the rest is hidden)") } else { HIDDEN.to_owned() }
        }
        "repository" if (value.contains("://") || value.starts_with("s3:")) && may_hold_one(value) => {
            "(hidden: there may be a secret in it)".to_owned()
        }
        "options" => match key_and_value(value) {
            Ok((name, text)) if may_hold_one(&text) => format!("{name}={HIDDEN}"),
            Ok(_) => value.to_owned(),
            Err(_) => HIDDEN.to_owned(),
        },
        _ => value.to_owned(),
    }
}

/// Goes through everything, whatever fails.
struct Check<'a> {
    context: &'a Context<'a>,
    kinds: Vec<ErrorKind>,
    checked: u64,
    skipped: u64,
}

impl Check<'_> {
    fn run(mut self, backup: &Backup) -> Result<()> {
        self.profiles();
        self.sources(backup);
        let complete = self.files();
        if complete {
            self.repository();
        }
        let (output, failed) = (self.context.output, self.kinds.len());
        self.context.end_display();
        output.message(&json::message(
            "summary",
            json!({ "checked": self.checked, "failed": failed, "skipped": self.skipped }),
        ));
        match exit::worst(self.kinds) {
            None => Ok(()),
            Some(kind) => {
                let what = text::count(failed as u64, "check", "checks");
                Err(Error::new(kind, format!("{what} of {} failed", self.checked))
                    .with_remedy("The lines above say which"))
            }
        }
    }

    fn tell(&mut self, what: &str, result: Result<String>) {
        self.checked += 1;
        let output = self.context.output;
        let (state, said) = match &result {
            Ok(said) => ("ok", said.clone()),
            Err(error) => ("failed", error.to_string()),
        };
        output.say(&format!("{state:<8} {what}: {}", text::shown(said.as_bytes())));
        let remedy = result.as_ref().err().and_then(Error::remedy);
        if let Some(remedy) = remedy {
            output.say(&format!("         {remedy}"));
        }
        let code = result.as_ref().map_or_else(|error| error.kind().exit_code(), |_| 0);
        let fields = json!({ "what": what, "state": state, "message": said, "remedy": remedy, "code": code });
        output.message(&json::message("check", fields));
        self.kinds.extend(result.err().map(|error| error.kind()));
    }

    fn skip(&mut self, what: &str, why: &str) {
        self.skipped += 1;
        self.context.output.say(&format!("skipped  {what}: {why}"));
        let fields = json!({ "what": what, "state": "skipped", "message": why, "remedy": null, "code": 0 });
        self.context.output.message(&json::message("check", fields));
    }

    fn profiles(&mut self) {
        let Some(profile) = &self.context.settings.profile else {
            return self.skip("profile", "there is none; flags and the environment say everything");
        };
        self.tell(
            &format!("profile {}", profile.name),
            Ok(format!("{}:{}", profile.file.display(), profile.line)),
        );
        match profile::others(profile) {
            Ok(others) => others.into_iter().for_each(|(name, result)| {
                self.tell(&format!("profile {name}"), result.map(|()| "well written".to_owned()));
            }),
            Err(error) => self.tell("other profiles", Err(error)),
        }
    }

    fn sources(&mut self, backup: &Backup) {
        let filter = match backup.filter() {
            Ok(filter) => filter,
            Err(error) => return self.tell("excludes", Err(error)),
        };
        let Sources { paths, .. } = match sources::collect(&backup.sources) {
            Ok(sources) => sources,
            Err(error) => return self.tell("sources", Err(error)),
        };
        let repository = self.context.location().ok().and_then(|location| location.folder());
        let repository = repository.and_then(|folder| Enclosure::new(&folder));
        for path in &paths {
            let result = readable(path).and_then(|what| {
                refuse_as_source(path, repository.as_ref())?;
                sources::refuse_hidden(std::slice::from_ref(path), &filter)?;
                Ok(what.to_owned())
            });
            self.tell(&format!("source {}", text::shown(path.display().to_string().as_bytes())), result);
        }
    }

    /// Whether all files with secrets are there.
    fn files(&mut self) -> bool {
        let unlock = &self.context.common.unlock;
        let files = [
            ("access key", &unlock.access_key_file, ErrorKind::CannotUnlock),
            ("passphrase", &unlock.password_file, ErrorKind::CannotUnlock),
            ("recovery words", &unlock.recovery_words_file, ErrorKind::CannotUnlock),
            ("S3 credentials", &self.context.common.network.s3_credentials, ErrorKind::Usage),
        ];
        let mut complete = true;
        for (what, file, kind) in files {
            let Some(file) = file else { continue };
            let what = format!("{what} {}", file.display());
            let is_credential = file.to_str().is_some_and(|text| text.starts_with("cred:"));
            if is_credential && environment::os("CREDENTIALS_DIRECTORY").is_none() {
                self.skip(&what, "credentials exist only inside the unit, so the repository is not tried");
                complete = false;
                continue;
            }
            let result = environment::file(file).and_then(|path| private(&path, kind));
            // One that others can read works nevertheless.
            complete &= result.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::Failed);
            self.tell(&what, result.map(|()| "there, and private".to_owned()));
        }
        complete
    }

    fn repository(&mut self) {
        let opened = self.context.location().and_then(|location| {
            let store = self.context.store(&location)?;
            Repository::read_config(&store)?;
            let text = store.location_text().to_string();
            Ok((location, text))
        });
        let location = match opened {
            Ok((location, text)) => {
                self.tell("repository", Ok(format!("{text} answers")));
                location
            }
            Err(error) => return self.tell("repository", Err(error)),
        };
        let mut cached = false;
        let role = self.context.open_at(&location).and_then(|repository| {
            cached = repository.cache.folder().is_some();
            repository.own_domain()?;
            Ok(format!("unlocked with the role {}", repository.role().name()))
        });
        let opened = role.is_ok();
        self.tell("key", role);
        if let Some(folder) = self.context.cache_folder().filter(|_| opened) {
            let what = format!("cache {}", text::shown(folder.as_os_str().as_bytes()));
            let unusable = || {
                Error::new(ErrorKind::Failed, "it cannot be used: every backup would read everything again")
                    .with_remedy(
                        "Make it a folder of your own that others may not write in, or give --no-cache",
                    )
            };
            self.tell(&what, cached.then(|| "private, and used".to_owned()).ok_or_else(unusable));
        }
    }
}

/// Whether the system lets us read a source; what is in it shows only in a backup.
fn readable(path: &Path) -> Result<&'static str> {
    let failed = |e: std::io::Error| {
        let kind = ErrorKind::Incomplete;
        let reason = e.to_string();
        let reason = reason.split(" (os error").next().unwrap_or_default().to_owned();
        Error::new(kind, reason).with_remedy("Check the path, and who may read it").with_source(e)
    };
    let kind = path.symlink_metadata().map_err(failed)?.file_type();
    if kind.is_dir() {
        std::fs::read_dir(path).map_err(failed)?;
        return Ok("a folder that can be listed");
    }
    if kind.is_file() {
        std::fs::File::open(path).map_err(failed)?;
        return Ok("a file that can be read");
    }
    Ok(if kind.is_symlink() { "a link, which is stored as a link" } else { "neither file nor folder" })
}

/// Whether only its owner can read a file.
fn private(path: &PathBuf, kind: ErrorKind) -> Result<()> {
    let failed = |e: std::io::Error| {
        Error::new(kind, format!("could not read {}", path.display()))
            .with_remedy("Check the path and who may read it")
            .with_source(e)
    };
    let status = std::fs::File::open(path).and_then(|file| file.metadata()).map_err(failed)?;
    if status.is_file() && status.mode() & 0o077 != 0 {
        return Err(Error::new(ErrorKind::Failed, format!("others can read {}", path.display()))
            .with_remedy(format!("chmod 600 {}", path.display())));
    }
    Ok(())
}
