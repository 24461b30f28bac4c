//! `ls`: what a snapshot holds.

use crate::{
    error::{Error, ErrorKind, Result},
    format::{entry::Entry, node::compare_paths},
    repository::{
        Repository,
        manifest::{Gap, for_each_entry},
        reader::NodeReader,
        snapshots::KnownSnapshot,
        view::View,
    },
};

/// Gives every entry at and below `path` (no leading slash; empty for all) in path order.
///
/// # Errors
/// `Forbidden` for a role that reads no manifests; what `each` says; `Damaged` at the end when a part of the
/// manifest could not be read: everything else was given.
pub fn run(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    path: &[u8],
    each: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let mut given = Vec::new();
    repository.reading(&snapshot.name.domain, &mut |view| {
        with_view(
            repository,
            snapshot,
            view,
            (path, &mut |entry| {
                // Not twice, if the index turned out to be damaged on the way.
                if !given.is_empty() && compare_paths(&entry.path, &given).is_le() {
                    return Ok(());
                }
                given.clone_from(&entry.path);
                each(&entry)
            }),
        )
    })
}

type Each<'a> = &'a mut dyn FnMut(Entry) -> Result<()>;

fn with_view(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    view: &View,
    (path, each): (&[u8], Each<'_>),
) -> Result<()> {
    let mut nodes = NodeReader::new(repository, snapshot.name.domain, &view.index)?;
    nodes.serve(snapshot.name.identity);
    super::restore::root_of(&nodes, snapshot, path)?;
    let (mut gaps, mut first_gap) = (0_u64, None);
    for_each_entry(&nodes, snapshot.record.root, path, &mut |entry| {
        repository.store.progress().check()?;
        match entry {
            Ok(entry) => each(entry),
            Err(gap) => {
                gaps += 1;
                first_gap.get_or_insert(gap);
                Ok(())
            }
        }
    })?;
    first_gap.map_or(Ok(()), |gap| Err(incomplete(&gap, gaps)))
}

fn incomplete(gap: &Gap, gaps: u64) -> Error {
    let first = String::from_utf8_lossy(&gap.first);
    let parts = if gaps == 1 { "a part".to_owned() } else { format!("{gaps} parts") };
    let message = format!("{parts} of the list cannot be read, the first from /{first} on: {}", gap.error);
    Error::new(ErrorKind::Damaged, message).with_remedy("`lifeboat check` says what else is damaged")
}
