//! What this machine remembers of its own backups: a machine that may write and not read can still say when
//! it was last safe. Kept in the local cache, the last ones only; missing or unreadable it is no error.

use serde::{Deserialize, Serialize};

use super::cache::Cache;
use crate::{filesystem::durable, limits};

/// So many backups are remembered.
pub const KEPT_MAX: usize = 100;

/// A backup that this machine made, or tried to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// When it ended, by the clock of this machine, in seconds since 1970.
    pub time: i64,
    /// The host.
    pub host: String,
    /// How the program ended: 0, 3 when some entries could not be read, or the code of the error.
    pub code: u8,
    /// Why it failed, if it did.
    pub message: Option<String>,
    /// The snapshot, if there is one.
    pub snapshot: Option<String>,
}

impl Cache {
    /// The backups that this machine remembers, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Past> {
        let Some(folder) = self.folder() else { return Vec::new() };
        let bytes = durable::read_own(&folder.join("history"), limits::RECORD_BYTES_MAX).unwrap_or_default();
        let lines = bytes.split(|byte| *byte == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// Remembers one more. A full or read-only disk is no error.
    pub fn remember(&self, past: Past) {
        let Some(folder) = self.folder() else { return };
        let mut all = self.history();
        all.push(past);
        let kept = all.iter().skip(all.len().saturating_sub(KEPT_MAX));
        let text: String = kept.filter_map(|past| Some(serde_json::to_string(past).ok()? + "\n")).collect();
        drop(durable::write_atomic(&folder.join("history"), text.as_bytes(), 0o600));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RepositoryId;
    use std::fs;

    #[test]
    fn the_last_ones_are_remembered_and_a_line_that_is_broken_is_not_missed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path()), &RepositoryId::new([1; 32]));
        let past = |time| Past { time, host: "h".to_owned(), code: 0, message: None, snapshot: None };
        for time in 0..150 {
            cache.remember(past(time));
        }
        let times: Vec<i64> = cache.history().iter().map(|past| past.time).collect();
        assert_eq!(times, (50..150).collect::<Vec<_>>());
        let path = cache.folder().unwrap().join("history");
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] = b'{';
        durable::write_atomic(&path, &bytes, 0o600).unwrap();
        assert_eq!(cache.history().len(), 99);
        Cache::default().remember(past(1));
        assert!(Cache::default().history().is_empty());
    }
}
