//! What the report of a drill says: JSON for people and programs, see `docs/drills.md`.

use serde::{Deserialize, Serialize};

use super::evidence::Head;

/// The report that a drill began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillBegan {
    /// What every report says.
    #[serde(flatten)]
    pub head: Head,
    /// Random: names the drill.
    pub drill: String,
}

/// The report of a drill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// What every report says.
    #[serde(flatten)]
    pub head: Head,
    /// The same as in the record that it began.
    pub drill: String,
    /// Why it failed; empty if it did not.
    pub reasons: Vec<String>,
    /// The moment that the age of the backups counts to: RFC 3339.
    pub now: String,
    /// Whose clock said so: `storage` or `machine`.
    pub clock: String,
    /// Where the data came from: always `storage`, never a cache.
    pub read_from: String,
    /// `all`, or how large a sample was wanted: `100`, `5%`.
    pub sample: String,
    /// What the sample was drawn with: the same seed draws the same sample of the same snapshot.
    pub seed: u64,
    /// What was to be kept to.
    pub objectives: Objectives,
    /// One for each client, in the order in which they were restored.
    pub clients: Vec<ClientReport>,
    /// What was restored and found good.
    pub files: FilesReport,
}

/// What was to be kept to, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objectives {
    /// The oldest that the newest backup of a client may be.
    pub rpo_seconds: Option<u64>,
    /// The longest that getting a client back may take.
    pub rto_seconds: Option<u64>,
}

/// What was found of one client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReport {
    /// The label of its identity.
    pub client: String,
    /// The host that it backs up.
    pub host: String,
    /// Its identity.
    pub identity: String,
    /// `pass` or `fail`.
    pub verdict: String,
    /// Why it failed; empty if it did not.
    pub reasons: Vec<String>,
    /// The snapshot, its newest by the time of the storage.
    pub snapshot: String,
    /// When the storage says that the snapshot was written: RFC 3339.
    pub stored: String,
    /// The time that counts as its own: not later than `stored`, not earlier than that of the one before it.
    pub time: String,
    /// Sets of sources that this client backs up beside those of the snapshot: the drill did not look there.
    pub other_sources: u64,
    /// The age of what a restore brings back, in seconds.
    pub rpo_seconds: u64,
    /// The folder that it was restored into, below the target.
    pub folder: String,
    /// Entries that the backup could not read.
    pub unreadable: u64,
    /// Files in the snapshot.
    pub files_in_snapshot: u64,
    /// Files that were restored, read back and found exactly as the snapshot has them.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Entries that could not be restored as they were.
    pub failed: u64,
    /// Entries that differ from the snapshot after they were restored.
    pub differing: u64,
    /// What is wrong with the first of these.
    pub problems: Vec<ProblemReport>,
    /// How long it took.
    pub rto: Timings,
    /// What the user's own checks said.
    pub checks: Vec<CheckReport>,
}

/// What is wrong with one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemReport {
    /// Its path.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// How long each part took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Everything.
    pub total_ms: u64,
    /// Unlocking, and reading the registry.
    pub unlock_ms: u64,
    /// Finding the snapshot.
    pub locate_ms: u64,
    /// Reading the index.
    pub index_ms: u64,
    /// From there until the first byte of a file was written.
    pub first_byte_ms: u64,
    /// From there until the last one was on the disk.
    pub last_byte_ms: u64,
    /// Reading everything back and comparing it.
    pub verify_ms: u64,
    /// The user's own checks.
    pub checks_ms: u64,
}

impl Timings {
    /// Adds the parts up.
    #[must_use]
    pub const fn summed(mut self) -> Self {
        let Self { total_ms: _, unlock_ms, locate_ms, index_ms, first_byte_ms, last_byte_ms, .. } = self;
        let Self { verify_ms, checks_ms, .. } = self;
        self.total_ms =
            unlock_ms + locate_ms + index_ms + first_byte_ms + last_byte_ms + verify_ms + checks_ms;
        self
    }
}

/// What a check of the user said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The command.
    pub command: String,
    /// `passed`, `failed`, `timed out` or `not started`.
    pub result: String,
    /// Its exit code, if it ended with one.
    pub code: Option<i32>,
    /// How long it took.
    pub ms: u64,
    /// The end of what it printed.
    pub output: String,
}

/// The list of what was restored and found good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesReport {
    /// Lines in the list: one for each file.
    pub lines: u64,
    /// The BLAKE3 of the list, in lines as `b3sum` writes them.
    pub blake3: String,
}
