//! Evidence in the store: one chain for each identity. Promise: a record counts only with the signature of
//! an identity that may judge backups; what is missing, forked or forged is reported.

use std::{collections::HashSet, ops::ControlFlow};

use bytes::Bytes;

use super::{Repository, registry::NO_DOMAIN};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        envelope::{self, Envelope, EnvelopeHeader, Opener, RecordKind, Sealer},
        evidence::{Evidence, Head},
        report::SignedReport,
        role::Role,
    },
    id::{IdentityId, ObjectId},
    limits,
    store::{Name, Parsed, Prefix, Store},
};

/// Records at the end of a chain that are looked at to find one that counts.
const HEADS_TRIED_MAX: usize = 16;

/// So many of the newest records are looked at for what was checked: years of one a day. What stands further back
/// counts as not there.
const NEWEST_MAX: usize = 4096;
/// So many bytes of them, whatever somebody else has put there.
const NEWEST_BYTES_MAX: u64 = 256 << 20;

/// Where the next record of a chain goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainPlace {
    /// Its number, from 1.
    pub sequence: u64,
    /// The record before it.
    pub previous: Option<ObjectId>,
}

/// A record that counts.
#[derive(Clone, Debug)]
pub struct KnownEvidence {
    /// Its object.
    pub name: Name,
    /// Whose chain it is in.
    pub identity: IdentityId,
    /// Its number in that chain.
    pub sequence: u64,
    /// What every report says.
    pub head: Head,
    /// The report.
    pub report: SignedReport,
}

/// A record as LIST shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    identity: IdentityId,
    sequence: u64,
    id: ObjectId,
}

impl Listed {
    fn name(&self) -> Name {
        Name::evidence(&self.identity, self.sequence, &self.id)
    }
}

impl Repository {
    /// The names of all records, in the order of their chains.
    fn evidence_names(&self, store: &Store) -> Result<Vec<Listed>> {
        let mut all = Vec::new();
        for listed in store.list(&Prefix::evidence())? {
            if let Some(Parsed::Evidence { identity, sequence, id }) =
                Name::parse(&listed.name).map(|name| name.parsed())
            {
                all.push(Listed { identity, sequence, id });
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    /// Reads a record and checks who signed it, for which place, and whether that counts.
    fn read_evidence(&self, store: &Store, listed: &Listed) -> Result<(KnownEvidence, Option<ObjectId>)> {
        let Listed { identity, sequence, id } = *listed;
        let name = listed.name();
        // From the storage, never from the cache: what it holds now is the question.
        let bytes = store.read(&name, limits::RECORD_BYTES_MAX)?;
        if blake3::hash(&bytes).as_bytes() != id.as_bytes() {
            return Err(Error::damaged(&name, "its bytes are not those that its name stands for"));
        }
        let repository = &self.config.repository_id;
        let named = |error: Error| error.context(&name);
        let envelope =
            Envelope::parse(&bytes, RecordKind::Evidence, repository, &NO_DOMAIN).map_err(named)?;
        let role = self.verify_record(&envelope, &NO_DOMAIN, &id).map_err(named)?;
        if role == Role::Backup {
            return Err(Error::damaged(&name, "a key with the role backup may not write it"));
        }
        if envelope.author() != identity || envelope.sequence() != sequence {
            return Err(Error::damaged(&name, "it was signed for another place in the chain"));
        }
        self.metadata_key(envelope.epoch()).map_err(named)?;
        let opener = |epoch| self.metadata_key(epoch).ok();
        let plain = envelope.open(&Opener::Private(&opener)).map_err(named)?;
        let evidence = Evidence::decode(&plain).map_err(named)?;
        let report = evidence.report(envelope.author_key()).map_err(named)?;
        let head = Head::of(report.payload()).map_err(named)?;
        let previous = evidence.previous.map(|id| id.to_string());
        if head.sequence != Some(sequence) || head.previous != previous {
            return Err(Error::damaged(&name, "its report names another place in the chain"));
        }
        Ok((KnownEvidence { name, identity, sequence, head, report }, evidence.previous))
    }

    /// Where the next record of our own goes. What does not count at the end of the chain is passed over:
    /// somebody else may have put it there. `store` is that of the repository, or the same one deaf to the request to
    /// stop.
    ///
    /// # Errors
    /// Storage trouble; too much there that does not count.
    pub fn next_evidence(&self, store: &Store) -> Result<ChainPlace> {
        let mut names = self.evidence_names(store)?;
        let me = self.identity();
        names.retain(|listed| listed.identity == me);
        for listed in names.iter().rev().take(HEADS_TRIED_MAX) {
            match self.read_evidence(store, listed) {
                Ok(_) => {
                    let sequence = listed.sequence.checked_add(1);
                    let sequence = sequence.ok_or_else(|| Error::damaged(listed.name(), "its number"))?;
                    return Ok(ChainPlace { sequence, previous: Some(listed.id) });
                }
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        if names.len() > HEADS_TRIED_MAX {
            return Err(Error::damaged("the chain of evidence", "its newest records do not count")
                .with_remedy(
                    "`lifeboat drill history` names them: remove them with the tools of the storage",
                ));
        }
        Ok(ChainPlace { sequence: 1, previous: None })
    }

    /// Writes a report as the next record of our own chain. What it says of its place must be `place`, which
    /// [`Self::next_evidence`] gave for this store.
    ///
    /// # Errors
    /// `Forbidden` for the role backup; storage trouble, or no right to write there.
    pub fn publish_evidence(&self, store: &Store, place: ChainPlace, report: &SignedReport) -> Result<Name> {
        if self.role() == Role::Backup {
            return Err(self.forbidden("write evidence", "audit"));
        }
        let evidence = Evidence {
            time: self.clock.now(),
            previous: place.previous,
            payload: report.payload().to_owned(),
            signature: *report.signature(),
        };
        let (epoch, public) = self.metadata_public()?;
        let header = EnvelopeHeader {
            kind: RecordKind::Evidence,
            repository: self.config.repository_id,
            domain: NO_DOMAIN,
            author: self.identity(),
            sequence: place.sequence,
            epoch,
        };
        let sealed = envelope::seal(&header, &Sealer::Public(public), self.signer(), &evidence.encode())?;
        if sealed.len() > limits::RECORD_BYTES_MAX {
            return Err(Error::new(ErrorKind::Failed, "the report is too long for a record in the store"));
        }
        let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
        let name = Name::evidence(&self.identity(), place.sequence, &id);
        store.create(&name, Bytes::from(sealed))?;
        Ok(name)
    }

    /// Gives the records that count, the newest by the time of the storage first, each with that time and the role of
    /// its author, until `each` has seen enough. What does not count is returned. Records that were written long
    /// ago, and those of keys that may write none, are not looked at.
    ///
    /// # Errors
    /// `Forbidden` without the metadata keys; storage trouble; what `each` says.
    pub fn for_newest_evidence(
        &self,
        each: &mut dyn FnMut(KnownEvidence, (Timestamp, Role)) -> Result<ControlFlow<()>>,
    ) -> Result<Vec<Error>> {
        if !self.reads_metadata() {
            return Err(self.forbidden("read evidence", "audit"));
        }
        let registry = self.registry();
        let mut all = Vec::new();
        for found in self.store.list(&Prefix::evidence())? {
            let Some(Parsed::Evidence { identity, sequence, id }) =
                Name::parse(&found.name).map(|name| name.parsed())
            else {
                continue;
            };
            let role = registry.certificate(&identity).map(|known| known.role);
            if let Some(role) = role.filter(|role| *role != Role::Backup) {
                all.push((found.modified, found.size, role, Listed { identity, sequence, id }));
            }
        }
        all.sort_unstable_by(|(a, _, _, one), (b, _, _, other)| (b, other).cmp(&(a, one)));
        let (mut problems, mut bytes) = (Vec::new(), 0_u64);
        for (stored, size, role, listed) in all.iter().take(NEWEST_MAX) {
            self.store.progress().check()?;
            bytes = bytes.saturating_add(*size);
            if bytes > NEWEST_BYTES_MAX {
                break;
            }
            match self.read_evidence(&self.store, listed) {
                Ok((known, _)) => {
                    if each(known, (*stored, *role))?.is_break() {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                    problems.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(problems)
    }

    /// Gives every record that counts, chain after chain, oldest first, and returns what is wrong with the
    /// chains. (A chain that was cut off at its end looks whole: the reports on disk tell.)
    ///
    /// # Errors
    /// `Forbidden` without the metadata keys; storage trouble; what `each` says.
    pub fn for_each_evidence(&self, each: &mut dyn FnMut(KnownEvidence) -> Result<()>) -> Result<Vec<Error>> {
        if !self.reads_metadata() {
            return Err(self.forbidden("read evidence", "audit"));
        }
        let mut chains = Chains::default();
        for listed in self.evidence_names(&self.store)? {
            self.store.progress().check()?;
            let shared = self.registry().certificate(&listed.identity).is_some_and(|known| known.shared);
            chains.enter(&listed, shared);
            match self.read_evidence(&self.store, &listed) {
                Ok((known, previous)) => {
                    chains.link(&listed, previous);
                    each(known)?;
                }
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                    chains.problems.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(chains.problems)
    }
}

/// Checks chains while their records come by in order: it holds the ids of two numbers.
#[derive(Default)]
struct Chains {
    at: Option<(IdentityId, u64)>,
    /// The records with the number before this one, whether they count or not.
    before: HashSet<ObjectId>,
    here: HashSet<ObjectId>,
    problems: Vec<Error>,
}

impl Chains {
    fn enter(&mut self, listed: &Listed, shared: bool) {
        let Listed { identity, sequence, id } = *listed;
        if self.at == Some((identity, sequence)) {
            if !shared {
                let why = "another one has the same number: two machines use one key";
                self.problems.push(Error::damaged(listed.name(), why));
            }
        } else {
            let follows = self.at.is_some_and(|(who, last)| who == identity && last + 1 == sequence);
            self.before = if follows { std::mem::take(&mut self.here) } else { HashSet::new() };
            self.here.clear();
            self.at = Some((identity, sequence));
        }
        self.here.insert(id);
    }

    fn link(&mut self, listed: &Listed, previous: Option<ObjectId>) {
        let why = match previous {
            None if listed.sequence == 1 => return,
            None => "it does not name the record before it".to_owned(),
            Some(id) if self.before.contains(&id) => return,
            Some(id) => format!("the record before it, {id}, is gone"),
        };
        self.problems.push(Error::damaged(format!("the chain of evidence at {}", listed.name()), why));
    }
}
