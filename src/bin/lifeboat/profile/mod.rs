//! Profiles: what a machine always says, in a file instead of in flags.

use std::{
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use lifeboat::error::{Error, ErrorKind, Result};

use self::schema::{Document, Profile};
use crate::{args::Common, environment};

mod schema;
mod settings;

pub(crate) use self::settings::{Setting, Settings, Slot, Way};

/// The profile that is used where none is named.
const DEFAULT: &str = "default";
/// Where the profiles of a machine are.
const SYSTEM_FILE: &str = "/etc/lifeboat/config.toml";
/// The largest file of profiles, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The profile that the arguments mean: the one that `--profile` names, else `default` where nothing else
/// says which repository is meant. A repository that is named by hand gets nothing from a profile that
/// nobody asked for.
///
/// # Errors
/// `Usage` when it is not there, or something in it is wrong.
pub(crate) fn load(common: &Common) -> Result<Settings> {
    let chosen = common.choice.profile.is_some() || common.choice.config.is_some();
    let place = &common.place;
    let named = place.repository.is_some()
        || place.repository_file.is_some()
        || ["LIFEBOAT_REPOSITORY", "LIFEBOAT_REPOSITORY_FILE"]
            .iter()
            .any(|name| environment::os(name).is_some());
    if named && !chosen {
        return Ok(Settings::default());
    }
    let name = common.choice.profile.as_deref().unwrap_or(DEFAULT);
    let files = files(common);
    let mut others = Vec::new();
    for file in &files {
        let Some(text) = text_of(file)? else {
            if common.choice.config.is_some() {
                return Err(Error::new(ErrorKind::Usage, format!("there is no file {}", file.display()))
                    .with_remedy("Check --config"));
            }
            continue;
        };
        let document = Document::parse(file, &text)?;
        if let Some(profile) = document.profile(name)? {
            return Ok(Settings { profile: Some(profile), effective: Vec::new() });
        }
        others.extend(document.names());
    }
    if chosen { Err(not_there(name, &files, &others)) } else { Ok(Settings::default()) }
}

/// What is wrong with the other profiles of the file.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn others(profile: &Profile) -> Result<Vec<(String, Result<()>)>> {
    let text = text_of(&profile.file)?.unwrap_or_default();
    let document = Document::parse(&profile.file, &text)?;
    let names = document.names().into_iter().filter(|name| *name != profile.name);
    Ok(names.map(|name| (name.clone(), document.profile(&name).map(drop))).collect())
}

/// The files that may have it: a user's own come first.
fn files(common: &Common) -> Vec<PathBuf> {
    if let Some(file) = &common.choice.config {
        return vec![file.clone()];
    }
    let own = environment::config_folder().map(|folder| folder.join("lifeboat/config.toml"));
    own.into_iter().chain([PathBuf::from(SYSTEM_FILE)]).collect()
}

fn not_there(name: &str, files: &[PathBuf], others: &[String]) -> Error {
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let error =
        Error::new(ErrorKind::Usage, format!("there is no [profile.{name}] in {}", files.join(" or ")));
    if others.is_empty() {
        return error.with_remedy("Write it there, or name its file with --config");
    }
    error.with_remedy(format!("There is {}", others.join(", ")))
}

/// The text of a file; `None` where there is none.
fn text_of(file: &Path) -> Result<Option<String>> {
    let failed = |e: std::io::Error| {
        Error::new(ErrorKind::Usage, format!("could not read {}", file.display()))
            .with_remedy("Check who may read it, and that it is text")
            .with_source(e)
    };
    let open = match std::fs::File::open(file) {
        Err(e) if [std::io::ErrorKind::NotFound, std::io::ErrorKind::NotADirectory].contains(&e.kind()) => {
            return Ok(None);
        }
        other => other.map_err(failed)?,
    };
    let status = open.metadata().map_err(failed)?;
    if status.is_file() && status.mode() & 0o002 != 0 {
        // It can name a command to run.
        return Err(Error::new(
            ErrorKind::Usage,
            format!("everybody on this machine may change {}", file.display()),
        )
        .with_remedy(format!("chmod o-w {}", file.display())));
    }
    let mut text = String::new();
    open.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::new(ErrorKind::Usage, format!("{} is larger than 1 MiB", file.display()))
            .with_remedy("Check that it is the right file"));
    }
    Ok(Some(text))
}
