//! A new identity: its slot, then the registry that certifies it.

use bytes::Bytes;

use super::{By, check_label, seal};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        registry::{Certificate, Domain, Registry},
        role::Role,
        secrets::Secrets,
        slot::AccessKey,
    },
    id::{DomainId, IdentityId},
    random,
    repository::Repository,
    store::Name,
};

/// The identity to add.
#[derive(Debug)]
pub struct AddOptions {
    /// What it may do.
    pub role: Role,
    /// Its name for people.
    pub label: String,
    /// The name of the domain that it backs up to, made if there is none. Without one a backup role gets
    /// a domain of its own, named by the label, and an owner that of the first owner; the others have none.
    pub domain: Option<String>,
    /// Several machines will use it.
    pub shared: bool,
    /// What unlocks it.
    pub unlock: By,
}

/// An identity that was added.
#[derive(Debug)]
pub struct Added {
    /// The identity.
    pub identity: IdentityId,
    /// Its slot.
    pub slot: String,
    /// What opens the slot, if no passphrase does. Shown once.
    pub access_key: Option<AccessKey>,
    /// The domain that it backs up to.
    pub domain: Option<DomainId>,
}

/// Adds an identity.
///
/// # Errors
/// `Forbidden` for all but owners; a label that is taken; storage trouble.
pub fn add(repository: &Repository, options: &AddOptions) -> Result<Added> {
    let AddOptions { role, label, domain, shared, unlock } = options;
    let root = repository.root("add keys")?;
    check_label("label", label)?;
    let registry = repository.newest_registry()?.registry;
    let taken = |known: &Certificate| known.label == *label && registry.revocation(&known.identity).is_none();
    if registry.certificates.iter().any(taken) {
        return Err(Error::new(ErrorKind::Usage, format!("there is a key with the label `{label}` already"))
            .with_remedy("Take another label, or revoke that key first"));
    }
    let domain = domain_for(&registry, *role, label, domain.as_deref())?;
    let epochs: Vec<u32> = registry.epochs.iter().map(|epoch| epoch.number).collect();
    let domain_id = domain.as_ref().map(|domain| domain.id);
    let secrets = Secrets::for_role(&root, *role, domain_id, &epochs)?;
    let (slot, access_key) = seal(&secrets, unlock)?;
    let certificate = Certificate {
        identity: secrets.identity(),
        verifying_key: secrets.signing_key().verifying_key().to_bytes(),
        role: *role,
        label: label.clone(),
        domain: domain_id,
        shared: *shared,
        created: repository.clock.now(),
    };
    // The slot first: an identity that the registry names must be one that somebody can use. A slot
    // without its certificate opens to nothing, and `key list` shows it.
    repository.store.create(&Name::slot(&slot.name()), Bytes::from(slot.encode()))?;
    repository.change_registry(&|registry| {
        if let Some(domain) = &domain
            && registry.domain(&domain.id).is_none()
        {
            registry.domains.push(domain.clone());
        }
        if registry.certificate(&certificate.identity).is_none() {
            registry.certificates.push(certificate.clone());
        }
    })?;
    Ok(Added { identity: secrets.identity(), slot: slot.name(), access_key, domain: domain_id })
}

fn domain_for(registry: &Registry, role: Role, label: &str, name: Option<&str>) -> Result<Option<Domain>> {
    let name = match (role, name) {
        (Role::Backup | Role::Owner, Some(name)) => name,
        (Role::Backup, None) => {
            // Its own means nobody else's: a name that is taken must be asked for.
            if registry.domains.iter().any(|domain| domain.name == label) {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("there is a domain with the name `{label}` already"),
                )
                .with_remedy(format!("Name the domain with --domain: `--domain {label}` joins that one")));
            }
            label
        }
        (Role::Owner, None) => {
            let first = registry.certificates.iter().find(|known| known.role == Role::Owner);
            return Ok(first.and_then(|known| registry.domain(&known.domain?)).cloned());
        }
        (_, None) => return Ok(None),
        (_, Some(_)) => {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("a key with the role {} has no domain: it does not back up", role.name()),
            )
            .with_remedy("Leave out --domain"));
        }
    };
    check_label("name of the domain", name)?;
    if let Some(known) = registry.domains.iter().find(|domain| domain.name == name) {
        return Ok(Some(known.clone()));
    }
    Ok(Some(Domain::new(DomainId::new(random::bytes()?), name.to_owned())))
}
