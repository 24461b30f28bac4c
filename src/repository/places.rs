//! Which repository this machine has opened at an address. Where there is none any more, somebody has removed it or
//! hides it, and a scheduled backup that begins a new one there would look healthy for years. Kept in the local
//! cache; missing it is no error, since a new machine has seen nothing either.

use std::path::{self, Path, PathBuf};

use crate::{filesystem::durable, id::RepositoryId, store::Location};

/// A file holds an id and nothing else.
const BYTES_MAX: usize = 64;

fn file(cache: &Path, location: &Location) -> PathBuf {
    let whole = |folder: PathBuf| path::absolute(&folder).unwrap_or(folder).display().to_string();
    let address = location.folder().map_or_else(|| location.to_string(), whole);
    cache.join("places").join(blake3::hash(address.as_bytes()).to_hex().as_str())
}

/// Remembers what was opened at an address. A cache that cannot be written is no error.
pub fn remember(cache: Option<&Path>, location: &Location, id: &RepositoryId) {
    let Some(file) = cache.map(|cache| file(cache, location)) else { return };
    let text = id.to_string();
    if durable::read_own(&file, BYTES_MAX).is_some_and(|bytes| bytes == text.as_bytes()) {
        return;
    }
    if file.parent().is_some_and(|folder| durable::private_directory(folder).is_ok()) {
        drop(durable::write_atomic(&file, text.as_bytes(), 0o600));
    }
}

/// What was opened at an address the last time, and the file that says so.
#[must_use]
pub fn remembered(cache: Option<&Path>, location: &Location) -> Option<(RepositoryId, PathBuf)> {
    let file = file(cache?, location);
    let bytes = durable::read_own(&file, BYTES_MAX)?;
    let id = RepositoryId::from_hex(std::str::from_utf8(&bytes).ok()?)?;
    Some((id, file))
}
