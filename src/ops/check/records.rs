//! Records that no view needs and that tell what happened: attestations, tombstones, annotations and, with the
//! data, runs. Whether each is what its name stands for, and signed by whom it says.

use super::{Checked, Depth};
use crate::{
    error::{Error, ErrorKind, Result},
    format::envelope::{Envelope, RecordKind},
    id::{DomainId, ObjectId},
    limits,
    repository::Repository,
    store::{Folder, Name, Parsed, Prefix},
};

/// Looks at the records of a domain, at their bytes in the store and not in the cache. (What the other
/// folders hold is read with the snapshots.)
pub(super) fn run(
    repository: &Repository,
    domain: &DomainId,
    (depth, checked): (Depth, &mut Checked),
) -> Result<()> {
    let mut folders = vec![
        (Prefix::records(domain, Folder::Attestations), RecordKind::Attestation),
        (Prefix::records(domain, Folder::Annotations), RecordKind::Annotation),
        (Prefix::records(domain, Folder::Tombstones), RecordKind::Tombstones),
    ];
    // There is one for each backup: too many to be read every time.
    if matches!(depth, Depth::Data(_)) {
        folders.push((Prefix::runs(domain), RecordKind::Run));
    }
    for (folder, kind) in folders {
        for listed in repository.store.list(&folder)? {
            repository.store.progress().check()?;
            let Some(name) = Name::parse(&listed.name) else { continue };
            let (Parsed::Record { id, .. } | Parsed::Run { id, .. }) = name.parsed() else { continue };
            match look_at(repository, domain, (kind, &name, &id), checked) {
                Ok(()) => {}
                // Prune sweeps old ones.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    repository.store.progress().trouble();
                    checked.problem(name.as_str(), error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn look_at(
    repository: &Repository,
    domain: &DomainId,
    (kind, name, id): (RecordKind, &Name, &ObjectId),
    checked: &mut Checked,
) -> Result<()> {
    let bytes = repository.store.read(name, limits::RECORD_BYTES_MAX)?;
    if blake3::hash(&bytes).as_bytes() != id.as_bytes() {
        return Err(Error::new(ErrorKind::Damaged, "its bytes are not those that its name stands for"));
    }
    // From here on the bytes are those that were written: what is wrong with them, their writer did.
    let signed = Envelope::parse(&bytes, kind, &repository.config.repository_id, domain)
        .and_then(|envelope| repository.verify_author(&envelope, domain));
    if let Err(error) = signed {
        checked.note(format!("{name} does not count: {error}"));
    }
    Ok(())
}
