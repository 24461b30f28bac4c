//! Records that a run began, or how it failed, as they are found in the store.

use super::Repository;
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    format::{
        envelope::{Envelope, Opener, RecordKind},
        snapshot::Run,
    },
    id::{DomainId, IdentityId, ObjectId},
    store::{Name, Parsed, Prefix},
};

/// The name of a run's record, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunName {
    /// Its object.
    pub name: Name,
    /// Its domain.
    pub domain: DomainId,
    /// Who ran.
    pub identity: IdentityId,
    /// Its id.
    pub id: ObjectId,
    /// When the storage got it.
    pub stored: Timestamp,
}

impl Repository {
    /// The names of all runs in a domain.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn runs(&self, domain: &DomainId) -> Result<Vec<RunName>> {
        let mut runs = Vec::new();
        for listed in self.store.list(&Prefix::runs(domain))? {
            let Some(name) = Name::parse(&listed.name) else { continue };
            if let Parsed::Run { domain, identity, id } = name.parsed() {
                runs.push(RunName { name, domain, identity, id, stored: listed.modified });
            }
        }
        Ok(runs)
    }

    /// Reads one of them.
    ///
    /// # Errors
    /// `Damaged` when its bytes, signature or place are wrong, `Forbidden` without the metadata key.
    pub fn read_run(&self, run: &RunName) -> Result<Run> {
        let RunName { name, domain, identity, id, .. } = run;
        let bytes = self.read_addressed(name, id)?;
        self.open_run(&bytes, domain, identity).map_err(|error| error.context(name))
    }

    fn open_run(&self, bytes: &[u8], domain: &DomainId, identity: &IdentityId) -> Result<Run> {
        let envelope = Envelope::parse(bytes, RecordKind::Run, &self.config.repository_id, domain)?;
        self.verify_author(&envelope, domain)?;
        if envelope.author() != *identity {
            return Err(Error::damaged("a run record", "somebody else than its name says wrote it"));
        }
        self.metadata_key(envelope.epoch())?;
        let plain = envelope.open(&Opener::Private(&|epoch| self.metadata_key(epoch).ok()))?;
        Run::decode(&plain)
    }
}
