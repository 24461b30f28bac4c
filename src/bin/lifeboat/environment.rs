//! The environment, read in one place.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use lifeboat::error::{Error, ErrorKind, Result};
use object_store::aws::AmazonS3ConfigKey;

/// The variables that hold a secret of a repository itself and not the way to one: no command that is run sees them.
pub(crate) const PASSWORDS: [&str; 2] = ["LIFEBOAT_PASSWORD", "LIFEBOAT_FROM_PASSWORD"];

/// A variable that is set and not empty.
pub(crate) fn os(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A variable that must be text.
pub(crate) fn text(name: &str) -> Result<Option<String>> {
    let not_text = |_value: OsString| {
        Error::new(ErrorKind::Usage, format!("the variable {name} is not UTF-8 text"))
            .with_remedy("Set it to plain text")
    };
    os(name).map(|value| value.into_string().map_err(not_text)).transpose()
}

/// All `AWS_*` variables that are not empty, in the order of their names.
pub(crate) fn aws() -> Vec<(String, String)> {
    let named =
        |(key, value): (OsString, OsString)| Some((key.into_string().ok()?, value.into_string().ok()?));
    let ours = |(key, value): &(String, String)| key.starts_with("AWS_") && !value.is_empty();
    let mut found: Vec<_> = std::env::vars_os().filter_map(named).filter(ours).collect();
    found.sort_unstable();
    found
}

/// The setting of the storage that a variable or an option means; the names of one thing mean one setting.
pub(crate) fn storage_setting(name: &str) -> Option<AmazonS3ConfigKey> {
    Some(match name.trim().to_ascii_lowercase().parse().ok()? {
        AmazonS3ConfigKey::DefaultRegion => AmazonS3ConfigKey::Region,
        AmazonS3ConfigKey::S3Endpoint => AmazonS3ConfigKey::Endpoint,
        other => other,
    })
}

/// The variables that lead to a key of the repository, of the storage or of a proxy, or may do so.
pub(crate) fn secrets() -> Vec<OsString> {
    let is_secret = |(name, value): &(OsString, OsString)| {
        let (name, has_user) = (name.as_bytes(), value.as_bytes().contains(&b'@'));
        name.starts_with(b"AWS_")
            || name.starts_with(b"LIFEBOAT_") && !name.starts_with(b"LIFEBOAT_DRILL_")
            || name == b"CREDENTIALS_DIRECTORY"
            || has_user && name.to_ascii_lowercase().ends_with(b"_proxy")
    };
    std::env::vars_os().filter(is_secret).map(|(name, _)| name).collect()
}

/// The folder for caches: of systemd, of the desktop, or in the home folder.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    if let Some(folder) = os("LIFEBOAT_CACHE_DIR") {
        return Some(PathBuf::from(folder));
    }
    if let Some(folders) = os("CACHE_DIRECTORY") {
        // systemd names several, divided by colons; the first is the one to use.
        return std::env::split_paths(&folders).next();
    }
    let base = os("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let base = base.or_else(|| Some(PathBuf::from(os("HOME")?).join(".cache")));
    base.map(|base| base.join("lifeboat"))
}

/// The folder for configuration of this user.
pub(crate) fn config_folder() -> Option<PathBuf> {
    let base = os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    base.or_else(|| Some(PathBuf::from(os("HOME")?).join(".config")))
}

/// A file as the user names it; `cred:NAME` is one of systemd's credentials.
pub(crate) fn file(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.to_str().and_then(|text| text.strip_prefix("cred:")) else {
        return Ok(path.to_owned());
    };
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(Error::new(ErrorKind::Usage, format!("`cred:{name}` does not name a credential"))
            .with_remedy("Write cred:NAME, where LoadCredential= of the unit has the NAME"));
    }
    let folder = os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
        Error::new(
            ErrorKind::CannotUnlock,
            format!("`cred:{name}` needs CREDENTIALS_DIRECTORY, which is not set"),
        )
        .with_remedy("Run this from a systemd unit with LoadCredential=, or name a file")
    })?;
    Ok(PathBuf::from(folder).join(name))
}

/// The folder for what is there for a while.
pub(crate) fn temporary_folder() -> PathBuf {
    std::env::temp_dir()
}

/// The time zone in which times are shown and rules have their days, and what to say where TZ names none.
pub(crate) fn zone() -> (jiff::tz::TimeZone, Option<String>) {
    use jiff::tz::TimeZone;
    match TimeZone::try_system() {
        Ok(zone) => (zone, None),
        Err(_) => {
            let warn = |name: OsString| {
                format!(
                    "TZ names no time zone that this system knows ({}), so UTC counts",
                    name.to_string_lossy()
                )
            };
            (TimeZone::UTC, os("TZ").map(warn))
        }
    }
}

/// The name of this machine.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
