//! `key`: identities, their slots, and the recovery words. One file per verb. Everything that changes the
//! registry is for the owner alone.

use zeroize::Zeroizing;

use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        registry::{Certificate, Registry},
        secrets::Secrets,
        slot::{AccessKey, KdfParameters, Slot},
    },
    limits,
};

mod add;
mod certificate;
mod list;
mod passphrase;
mod policy;
mod rebuild;
mod recover;
mod revoke;
mod rotate;
mod share;
mod words;

pub use self::{
    add::{AddOptions, Added, add},
    certificate::certificate,
    list::{Listed, ListedSlot, Unlocks, list},
    passphrase::{Changed, passphrase},
    policy::{PolicyOptions, policy},
    recover::{Lost, Part, RecoverOptions, Recovered, recover},
    revoke::{LastGood, RevokeOptions, Revoked, revoke},
    rotate::{Renewed, Rotated, renew, rotate},
    share::share,
    words::{verify_words, words},
};

/// What will unlock an identity.
pub enum By {
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// A random access key, for a machine.
    AccessKey,
}

impl std::fmt::Debug for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "Passphrase(..)",
            Self::AccessKey => "AccessKey",
        })
    }
}

fn seal(secrets: &Secrets, by: &By) -> Result<(Slot, Option<AccessKey>)> {
    match by {
        By::Passphrase(passphrase) => {
            check_passphrase(passphrase)?;
            Ok((Slot::seal_passphrase(secrets, passphrase, KdfParameters::default())?, None))
        }
        By::AccessKey => Slot::seal_access_key(secrets).map(|(slot, access)| (slot, Some(access))),
    }
}

fn check_passphrase(passphrase: &str) -> Result<()> {
    if passphrase.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "the passphrase is empty")
            .with_remedy("Give one; or use an access key, which needs none"));
    }
    Ok(())
}

/// A label or the name of a domain: text that fits a table and a terminal.
fn check_label(what: &str, label: &str) -> Result<()> {
    let why = if label.trim().is_empty() {
        "is empty"
    } else if label.len() > limits::LABEL_BYTES_MAX {
        "is longer than 64 bytes"
    } else if label.chars().any(char::is_control) {
        "contains control characters"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Usage, format!("the {what} {why}"))
        .with_remedy("Take a short name, such as that of the machine"))
}

/// The certificate that an identity id, the beginning of one (8 digits at least) or a label means.
fn named<'a>(registry: &'a Registry, who: &str) -> Result<&'a Certificate> {
    let by_id = |known: &&Certificate| who.len() >= 8 && known.identity.to_string().starts_with(who);
    let all = &registry.certificates;
    // Labels first: revoked keys keep theirs, so of several the one that counts is meant.
    let labelled = all.iter().filter(|known| known.label == who);
    let mut found: Vec<&Certificate> =
        labelled.clone().filter(|known| registry.revocation(&known.identity).is_none()).collect();
    if found.is_empty() {
        found = labelled.chain(all.iter().filter(by_id)).collect();
    }
    match found[..] {
        [one] => Ok(one),
        [] => Err(Error::new(ErrorKind::Usage, format!("there is no key `{who}`"))
            .with_remedy("`lifeboat key list` shows labels and identities")),
        _ => Err(Error::new(ErrorKind::Usage, format!("`{who}` means several keys"))
            .with_remedy("Name one by its identity: `lifeboat key list`")),
    }
}
