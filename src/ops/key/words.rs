//! The recovery words: shown again to an owner, or compared with a paper copy.

use zeroize::Zeroizing;

use crate::{
    crypto::RootSecret,
    error::{Error, ErrorKind, Result},
    repository::Repository,
};

/// The 24 recovery words.
///
/// # Errors
/// `Forbidden` for all but owners.
pub fn words(repository: &Repository) -> Result<Zeroizing<String>> {
    Ok(repository.root("show the recovery words")?.words())
}

/// Checks that a paper copy has the words of this repository. Any role may: the repository id tells.
///
/// # Errors
/// `CannotUnlock` when they are no recovery words, or those of another repository.
pub fn verify_words(repository: &Repository, text: &str) -> Result<()> {
    if RootSecret::from_words(text)?.repository_id() == repository.config.repository_id {
        return Ok(());
    }
    Err(Error::new(ErrorKind::CannotUnlock, "these are recovery words, but those of another repository")
        .with_remedy("Look for the right paper; an owner can show the words with `lifeboat key words`"))
}
