//! `config`: what anyone can read without a key. Trusted only when its root public key is the one that
//! unlocking gave.

use serde::{Deserialize, Serialize};

use super::checksum;
use crate::{
    error::{Error, ErrorKind, Result},
    id::{RepositoryId, from_hex, to_hex},
    limits,
};

/// The format that this program reads and writes.
pub const FORMAT: u32 = 1;

const CHECKSUM: &str = "lifeboat v1 config checksum";

/// What a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The format: 1.
    pub format: u32,
    /// Names the repository.
    pub repository_id: RepositoryId,
    /// Signs the registry.
    pub root_public_key: [u8; 32],
    /// How long a view counts, in seconds.
    pub commit_window_seconds: u64,
    /// The smallest grace of a tombstone, in seconds.
    pub minimum_grace_seconds: u64,
}

#[derive(Serialize, Deserialize)]
struct Text {
    about: String,
    format: u32,
    repository_id: String,
    root_public_key: String,
    commit_window_seconds: u64,
    minimum_grace_seconds: u64,
    /// Tells a damaged object from a foreign one. It is no proof: anybody can make it.
    checksum: String,
}

impl Text {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .unwrap_or_else(|error| unreachable!("numbers and text are always JSON: {error}"));
        bytes.push(b'\n');
        bytes
    }
}

impl Config {
    /// JSON that a person can read.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { format, repository_id, root_public_key, commit_window_seconds, minimum_grace_seconds } =
            self;
        let text = Text {
            about: "A lifeboat backup repository. Keep every object here as it is.".to_owned(),
            format: *format,
            repository_id: repository_id.to_string(),
            root_public_key: to_hex(root_public_key),
            commit_window_seconds: *commit_window_seconds,
            minimum_grace_seconds: *minimum_grace_seconds,
            checksum: String::new(),
        };
        let checksum = checksum(CHECKSUM, &text.encode(), "");
        Text { checksum, ..text }.encode()
    }

    /// # Errors
    /// `NoRepository` when it is of something else, `Failed` for a newer format, `Damaged` when its checksum is
    /// wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let foreign = || {
            Error::new(
                ErrorKind::NoRepository,
                "the object `config` there is not that of a lifeboat repository",
            )
            .with_remedy("Check the address: another program may keep its data there")
        };
        let text: Text = serde_json::from_slice(bytes).map_err(|e| foreign().with_source(e))?;
        if text.format != FORMAT {
            return Err(Error::new(ErrorKind::Failed, format!("the repository has format {}", text.format))
                .with_remedy("This program reads format 1: install a newer one"));
        }
        let Text { commit_window_seconds, minimum_grace_seconds, .. } = text;
        if !limits::times_are_possible(commit_window_seconds, minimum_grace_seconds) {
            return Err(Error::damaged("config", "its commit window and grace are impossible together"));
        }
        if text.checksum != checksum(CHECKSUM, bytes, &text.checksum) {
            return Err(Error::damaged("config", "its checksum is wrong"));
        }
        Ok(Self {
            format: text.format,
            repository_id: RepositoryId::from_hex(&text.repository_id).ok_or_else(foreign)?,
            root_public_key: from_hex(&text.root_public_key).ok_or_else(foreign)?,
            commit_window_seconds,
            minimum_grace_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let (repository_id, root_public_key) = (RepositoryId::new([1; 32]), [2; 32]);
        Config {
            format: 1,
            repository_id,
            root_public_key,
            commit_window_seconds: 600,
            minimum_grace_seconds: 9000,
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = config().encode();
        assert_eq!(Config::decode(&bytes).unwrap(), config());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Config::decode(&flipped).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_field_of_a_later_version_is_ignored_and_covered_by_the_checksum() {
        let text = String::from_utf8(config().encode()).unwrap();
        let (rest, _) = text.split_once("\"checksum\"").unwrap();
        let write = |digits: &str, what: u8| format!("{rest}\"checksum\": \"{digits}\", \"later\": {what}}}");
        let digits = checksum(CHECKSUM, write("", 7).as_bytes(), "");
        assert_eq!(Config::decode(write(&digits, 7).as_bytes()).unwrap(), config());
        assert!(Config::decode(write(&digits, 6).as_bytes()).is_err());
    }
}
