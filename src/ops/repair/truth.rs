//! Whether a pack is what its directory says, where nobody whose word counts has signed that: all of it is read.

use crate::{
    compress::Decompressor,
    error::{Error, ErrorKind, Result},
    format::pack::IndexedPack,
    id::{DomainId, IdentityId},
    limits,
    ops::frames::FrameCheck,
    repository::Repository,
    store::Name,
};

/// What reading all of a pack has shown.
#[derive(Debug)]
pub(super) enum Truth {
    /// Every frame is what its directory says.
    True,
    /// Something is not.
    False(Error),
    /// This key cannot tell.
    Unknown(Error),
}

/// Reads a pack of which the directory was signed by a key that was revoked since.
///
/// # Errors
/// `NotFound` when it is gone; storage trouble.
pub(super) fn truth_of(
    repository: &Repository,
    domain: &DomainId,
    (pack, signer): (&IndexedPack, &IdentityId),
) -> Result<Truth> {
    let name = Name::pack(domain, pack.kind, &pack.id);
    let revoked = format!("{signer}, who signed the directory of {name}, was revoked");
    let Some(frames) = FrameCheck::new(repository, domain)? else {
        let what = format!("{revoked}, and this key cannot read whether it is true");
        return Ok(Truth::Unknown(Error::new(ErrorKind::Forbidden, what)));
    };
    let look = || -> Result<Truth> {
        let bytes = repository.store.read_hashed(&name, limits::PACK_BYTES_MAX, pack.id.as_bytes())?;
        if repository.own_directory(domain, &bytes)? != pack.directory {
            return Err(Error::damaged("a directory", "it is another one at the second look"));
        }
        let bad = frames.bad(&bytes, &pack.directory, &mut Decompressor::new()?)?;
        Ok(match bad.into_iter().next() {
            None => Truth::True,
            Some((number, _, error)) => {
                let why = format!("{revoked}, and frame {number} is not what it says: {error}");
                Truth::False(Error::damaged(&name, why))
            }
        })
    };
    match look() {
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(Truth::False(error.context(&name))),
        Err(error) if error.kind() == ErrorKind::Forbidden => Ok(Truth::Unknown(error.context(&name))),
        other => other,
    }
}
