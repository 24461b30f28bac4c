//! Every limit in one place: how long anything from storage may claim to be.

/// Bytes in one binary mebibyte.
pub const MIB: usize = 1 << 20;
/// Smallest chunk that FastCDC cuts, in bytes, except at the end of a file.
pub const CHUNK_BYTES_MIN: usize = 64 << 10;
/// The average chunk that FastCDC aims at, in bytes.
pub const CHUNK_BYTES_AVERAGE: usize = 256 << 10;
/// Largest chunk, in bytes.
pub const CHUNK_BYTES_MAX: usize = MIB;
/// Largest plaintext of a frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 2 * MIB;
/// Bytes that AES-GCM adds to what it seals.
pub const TAG_LEN: usize = 16;
/// Largest manifest node, in bytes of plaintext.
pub const NODE_BYTES_MAX: usize = MIB;
/// A pack is closed where it is nearest to this many bytes, in a small domain.
pub const PACK_BYTES_TARGET: usize = 16 * MIB;
/// What a pack of any target has beyond it at most, if its blobs are not very many: half of a frame, and its directory.
pub const PACK_BYTES_BEYOND: usize = FRAME_BYTES_MAX;
/// A pack is closed where it is nearest to this many bytes, in the largest domain.
pub const PACK_BYTES_TARGET_MAX: usize = 64 * MIB;
/// Largest pack that is read, in bytes.
pub const PACK_BYTES_MAX: usize = 80 * MIB;
/// Largest record (config, slot, registry, snapshot, run, tombstones), in bytes.
pub const RECORD_BYTES_MAX: usize = 4 * MIB;
/// Largest index object, in bytes.
pub const INDEX_BYTES_MAX: usize = 64 * MIB;
/// Most frames in one pack.
pub const PACK_FRAMES_MAX: usize = 1 << 16;
/// Most blobs in one pack: so its directory, and an index object, stay far below their limits.
pub const PACK_BLOBS_MAX: usize = 1 << 18;
/// Most blobs in one frame.
pub const FRAME_BLOBS_MAX: usize = 1 << 14;
/// Most sections in one pack.
pub const PACK_SECTIONS_MAX: usize = 1 << 10;
/// Most packs in one index object.
pub const INDEX_PACKS_MAX: usize = 1 << 16;
/// Longest path in a manifest, in bytes.
pub const PATH_BYTES_MAX: usize = 64 << 10;
/// Most bytes that the names and values of one entry's extended attributes have together. The system allows 64 KiB for one
/// value and for all names; file systems allow far less, but for XFS and large attributes of ext4.
pub const ATTRIBUTES_BYTES_MAX: usize = 256 << 10;
/// Most extended attributes of one entry: more names than the 64 KiB that the system has for them.
pub const ATTRIBUTES_MAX: usize = 1 << 14;
/// Most holes of a file that an entry tells; of more, the small ones are stored as the zeros that they read as.
pub const HOLES_MAX: usize = 4096;

/// Most files with several names that a backup keeps in mind, about 80 bytes each, until it has met all of their names.
pub const WATCHED_FILES_MAX: usize = 1 << 18;
/// Files with several names in a tree that is compared or restored into: their first names and what is kept of each, in bytes.
pub const MET_BYTES_MAX: usize = 32 * MIB;
/// Plaintext of frames that a restore keeps open, since the next windows may ask for them again, in bytes.
pub const RECENT_BYTES: usize = 32 * MIB;
/// Most frames that it keeps: they may be short.
pub const RECENT_FRAMES: usize = 1024;

/// Longest paths of all sources of a snapshot together, in bytes: half of the record that names them.
pub const SOURCES_BYTES_MAX: usize = RECORD_BYTES_MAX / 2;
/// Most sources of a snapshot.
pub const SOURCES_MAX: usize = 1 << 16;
/// Most tags of a snapshot.
pub const SNAPSHOT_TAGS_MAX: usize = 1024;
/// Longest host, user, name of the program and tag in a snapshot, in bytes.
pub const SNAPSHOT_TEXT_BYTES_MAX: usize = 1024;
/// Most levels of branches above a manifest's leaves, and of list nodes under an entry.
pub const TREE_LEVELS_MAX: u8 = 16;
/// Most key slots that a passphrase is tried on.
pub const SLOTS_TRIED_MAX: usize = 8;
/// Most key slots that are read to find those that take a passphrase: somebody may have put very many there.
pub const SLOTS_READ_MAX: usize = 1024;
/// Largest registry that is written, in bytes of plaintext.
pub const REGISTRY_BYTES_MAX: usize = RECORD_BYTES_MAX / 2;
/// An id in a revocation, in bytes.
const REVOKED_RECORD_BYTES: usize = 34;
/// Most records that a revocation leaves valid.
pub const REVOKED_RECORDS_MAX: usize = REGISTRY_BYTES_MAX / REVOKED_RECORD_BYTES;
/// Most index objects that a revocation leaves valid, and as many reports and as many attestations: whoever has the key
/// can write any number of them, and must not fill the registry with that. A client that backs up every hour and whose
/// index nobody compacts has as many after three months.
pub const REVOKED_FOLDER_MAX: usize = 2048;
/// Longest label of an identity or name of a domain, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;
/// The shortest commit window, in seconds.
pub const COMMIT_WINDOW_SECONDS_MIN: u64 = 5;
/// A grace is at least so many commit windows.
pub const GRACE_WINDOWS_MIN: u64 = 4;

/// Whether a commit window and a smallest grace, in seconds, keep the commit protocol safe.
#[must_use]
pub const fn times_are_possible(commit_window_seconds: u64, minimum_grace_seconds: u64) -> bool {
    commit_window_seconds >= COMMIT_WINDOW_SECONDS_MIN
        && minimum_grace_seconds / GRACE_WINDOWS_MIN >= commit_window_seconds
}

/// Longest tag that is added to a snapshot later, in bytes.
pub const TAG_BYTES_MAX: usize = 256;
/// Longest reason in a record, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;
/// Longest signed report, in bytes: its record must fit in the store.
pub const REPORT_BYTES_MAX: usize = RECORD_BYTES_MAX / 2;
/// Longest text in a report that comes from elsewhere, in bytes.
pub const REPORT_TEXT_BYTES_MAX: usize = 512;
/// Longest end of a check's output that a report keeps, in bytes.
pub const CHECK_OUTPUT_BYTES_MAX: usize = 4096;
/// Most clients of one drill.
pub const DRILL_CLIENTS_MAX: usize = 1000;
/// Longest exported certificate, in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 16 << 10;

// Thirty revocations of keys that somebody has used in this way fit in a registry, and leave room for what else it says.
const _: () = assert!(30 * REVOKED_FOLDER_MAX * REVOKED_RECORD_BYTES < REGISTRY_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES_MIN < CHUNK_BYTES_AVERAGE && CHUNK_BYTES_AVERAGE < CHUNK_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES_MAX <= FRAME_BYTES_MAX && FRAME_BYTES_MAX < PACK_BYTES_TARGET);
const _: () =
    assert!(NODE_BYTES_MAX <= FRAME_BYTES_MAX && PACK_BYTES_TARGET_MAX + PACK_BYTES_BEYOND < PACK_BYTES_MAX);
// An entry with everything at its limit must fit in a node: its path, attributes, holes (two numbers) and chunks.
const _: () = assert!(
    PATH_BYTES_MAX + ATTRIBUTES_BYTES_MAX + ATTRIBUTES_MAX * 8 + HOLES_MAX * 18 + (64 << 10) < NODE_BYTES_MAX
);
