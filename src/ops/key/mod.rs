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
    id::IdentityId,
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

/// The certificate that an identity id, the beginning of one (8 digits at least) or a label means. Revoked keys keep their
/// labels, so of several the one that counts is meant; where none does, the one that was certified last: a renewal that was
/// interrupted goes on with it.
fn named<'a>(registry: &'a Registry, who: &str) -> Result<&'a Certificate> {
    let all = &registry.certificates;
    let labelled = || all.iter().filter(|known| known.label == who);
    let mut found: Vec<&Certificate> =
        labelled().filter(|known| registry.revocation(&known.identity).is_none()).collect();
    if found.is_empty() {
        let last = labelled().next_back().map(|known| known.identity);
        let by_id = |identity: &IdentityId| who.len() >= 8 && identity.to_string().starts_with(who);
        found = all.iter().filter(|known| last == Some(known.identity) || by_id(&known.identity)).collect();
    }
    match found[..] {
        [one] => Ok(one),
        [] => Err(Error::new(ErrorKind::Usage, format!("there is no key `{who}`"))
            .with_remedy("`lifeboat key list` shows labels and identities")),
        _ => Err(Error::new(ErrorKind::Usage, format!("`{who}` means several keys"))
            .with_remedy("Name one by its identity: `lifeboat key list`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        format::{registry::Revocation, role::Role},
    };

    const TIME: Timestamp = Timestamp::from_seconds(1_700_000_000);

    /// Keys by the byte that their identity is made of, with their labels; those that are revoked.
    fn registry(keys: &[(u8, &str)], revoked: &[u8]) -> Registry {
        let certificate = |(byte, label): &(u8, &str)| Certificate {
            identity: IdentityId::new([*byte; 16]),
            verifying_key: [0; 32],
            role: Role::Audit,
            label: (*label).to_owned(),
            domain: None,
            shared: false,
            created: TIME,
        };
        let revocation = |byte: &u8| Revocation {
            identity: IdentityId::new([*byte; 16]),
            last_sequence: 0,
            last: Vec::new(),
            time: TIME,
            records: Vec::new(),
        };
        Registry {
            number: 1,
            previous: None,
            features: Default::default(),
            epochs: Vec::new(),
            domains: Vec::new(),
            certificates: keys.iter().map(certificate).collect(),
            revocations: revoked.iter().map(revocation).collect(),
            commit_window_seconds: 0,
            minimum_grace_seconds: 0,
            unknown: Default::default(),
        }
    }

    #[test]
    fn a_label_means_the_key_that_counts_or_else_the_newest_and_is_never_a_guess() {
        let keys = [(1, "web"), (2, "web"), (3, "web"), (4, "02020202"), (5, "05050505")];
        let meant = |revoked: &[u8], who: &str| {
            named(&registry(&keys, revoked), who).map(|known| known.identity.as_bytes()[0])
        };
        assert_eq!(meant(&[1, 3], "web").unwrap(), 2, "the one that counts");
        assert_eq!(meant(&[3, 1, 2], "web").unwrap(), 3, "none counts: the one that was certified last");
        // Who is to be revoked is not guessed: several that count, or a label that is the beginning of another key.
        for (revoked, who) in [(&[1][..], "web"), (&[4], "02020202")] {
            let error = meant(revoked, who).unwrap_err();
            assert!(error.to_string().contains("means several keys"), "{error}");
        }
        assert_eq!(meant(&[5], "05050505").unwrap(), 5, "one key by both");
        assert_eq!(meant(&[1], "0101010101").unwrap(), 1);
        assert_eq!(meant(&[], "0101").unwrap_err().kind(), ErrorKind::Usage, "too short for an identity");
    }
}
