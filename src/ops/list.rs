//! `ls`: what a snapshot holds.

use crate::{
    error::Result,
    format::entry::Entry,
    repository::{Repository, manifest::for_each_entry, reader::NodeReader, snapshots::KnownSnapshot},
};

/// Gives every entry at and below `path` (no leading slash; empty for all) in path order.
///
/// # Errors
/// `Forbidden` for a role that reads no manifests; a damaged manifest; what `each` says.
pub fn run(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    path: &[u8],
    each: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let domain = snapshot.name.domain;
    let view = repository.view_to_read(&domain)?;
    let nodes = NodeReader::new(repository, domain, &view.index)?;
    super::restore::strip_of(&nodes, snapshot, path)?;
    for_each_entry(&nodes, snapshot.record.root, path, &mut |entry| {
        repository.store.progress().check()?;
        each(&entry)
    })
}
