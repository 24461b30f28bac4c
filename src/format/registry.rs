//! The registry: the newest one states everything about a repository that can change.

use minicbor::{Decode, Encode};

use super::{envelope::Envelope, role::Role, unknown::Unknown};
use crate::{
    chunk::ChunkSizes,
    clock::Timestamp,
    crypto::VerifyingKey,
    error::{Error, ErrorKind, Result},
    id::{DomainId, IdentityId, ObjectId},
    limits,
};

/// Everything about a repository that can change. Signed by the root, chained.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Registry {
    /// 1 for the first.
    #[n(0)]
    pub number: u64,
    /// The one before.
    #[n(1)]
    pub previous: Option<ObjectId>,
    /// What a program must understand.
    #[n(2)]
    pub features: Features,
    /// Key epochs, oldest first.
    #[n(3)]
    pub epochs: Vec<Epoch>,
    /// Domains.
    #[n(4)]
    pub domains: Vec<Domain>,
    /// Identities.
    #[n(5)]
    pub certificates: Vec<Certificate>,
    /// Identities that count no longer.
    #[n(6)]
    pub revocations: Vec<Revocation>,
    /// The commit window in seconds: here it is signed, in `config` anyone can read it.
    #[n(7)]
    pub commit_window_seconds: u64,
    /// The smallest grace in seconds.
    #[n(8)]
    pub minimum_grace_seconds: u64,
    /// Fields that a newer program wrote: they stay when this one writes the next registry.
    #[cbor(skip)]
    pub unknown: Unknown,
}

/// What a program wants to do with a repository, and must know the features for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Read it.
    Read,
    /// Add to it.
    Write,
    /// Remove from it: forget and prune.
    Prune,
}

/// Features that this program knows: none are defined yet.
const FEATURES: &[&str] = &[];

/// Features that a program must know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Features {
    /// To read.
    #[n(0)]
    pub read: Vec<String>,
    /// To write.
    #[n(1)]
    pub write: Vec<String>,
    /// To prune.
    #[n(2)]
    pub prune: Vec<String>,
}

/// Public keys that new data is sealed to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Epoch {
    /// 1 for the first.
    #[n(0)]
    pub number: u32,
    /// X-Wing public key for file contents.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub data: Vec<u8>,
    /// X-Wing public key for manifests and snapshots.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub metadata: Vec<u8>,
}

/// A unit of deduplication and isolation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Domain {
    /// Its name in the store.
    #[n(0)]
    pub id: DomainId,
    /// Its name for people.
    #[n(1)]
    pub name: String,
    /// Smallest chunk in bytes.
    #[n(2)]
    pub chunk_min: u32,
    /// Average chunk in bytes.
    #[n(3)]
    pub chunk_average: u32,
    /// Largest chunk in bytes.
    #[n(4)]
    pub chunk_max: u32,
}

impl Domain {
    /// A domain with the usual parameters.
    #[must_use]
    pub const fn new(id: DomainId, name: String) -> Self {
        let ChunkSizes { min, average, max } = ChunkSizes::DEFAULT;
        Self { id, name, chunk_min: min, chunk_average: average, chunk_max: max }
    }

    /// Whether a chunker can have its parameters.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let Self { chunk_min, chunk_average, chunk_max, .. } = self;
        let even = [chunk_min, chunk_average, chunk_max].iter().all(|size| size.is_multiple_of(2));
        let ordered = 64 <= *chunk_min && chunk_min < chunk_average && chunk_average < chunk_max;
        even && ordered && *chunk_max as usize <= limits::CHUNK_BYTES_MAX
    }

    /// The parameters of its chunker.
    #[must_use]
    pub const fn chunk_sizes(&self) -> ChunkSizes {
        ChunkSizes { min: self.chunk_min, average: self.chunk_average, max: self.chunk_max }
    }
}

/// The root's word on what an identity may do.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Certificate {
    /// The identity.
    #[n(0)]
    pub identity: IdentityId,
    /// Its Ed25519 key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub verifying_key: [u8; 32],
    /// Its role.
    #[n(2)]
    pub role: Role,
    /// Its name for people.
    #[n(3)]
    pub label: String,
    /// The domain that it backs up to.
    #[n(4)]
    pub domain: Option<DomainId>,
    /// Several machines use it: a fork of its chain is no alarm.
    #[n(5)]
    pub shared: bool,
    /// When it was certified, by the owner's clock.
    #[n(6)]
    pub created: Timestamp,
}

impl Certificate {
    /// What checks its signatures.
    ///
    /// # Errors
    /// `Damaged` when it is no key.
    pub fn key(&self) -> Result<VerifyingKey> {
        VerifyingKey::from_bytes(&self.verifying_key)
    }
}

/// An identity that counts no longer, and what it left valid: nothing else that it signed counts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revocation {
    /// The identity.
    #[n(0)]
    pub identity: IdentityId,
    /// The last good number of its chain; 0 when no snapshot of it counts.
    #[n(1)]
    pub last_sequence: u64,
    /// The snapshots with that number: one, or several if the identity was shared.
    #[n(2)]
    pub last: Vec<ObjectId>,
    /// When, by the owner's clock.
    #[n(3)]
    pub time: Timestamp,
    /// Its index objects and other records that still count. A list and not a time: nobody's clock is
    /// trusted, and what is missing here was written by whoever holds the key now.
    #[n(4)]
    pub records: Vec<ObjectId>,
}

impl<C> Encode<C> for Role {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> std::result::Result<(), minicbor::encode::Error<W::Error>> {
        e.str(self.name())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Role {
    fn decode(
        d: &mut minicbor::Decoder<'b>,
        _: &mut C,
    ) -> std::result::Result<Self, minicbor::decode::Error> {
        Self::from_name(d.str()?).ok_or_else(|| minicbor::decode::Error::message("the role is unknown"))
    }
}

impl Registry {
    /// The plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.unknown.put_into(super::encode_record(self))
    }

    /// # Errors
    /// `Damaged` when it is not a registry, or does not hold together.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = |why: &str| Error::damaged("the registry", why);
        let mut registry: Self = super::decode_record(bytes, "the registry")?;
        registry.unknown = Unknown::of(bytes, super::encode_record(&registry));
        let Self { domains, certificates, revocations, .. } = &registry;
        let distinct = unique(domains.iter().map(|domain| domain.id))
            && unique(certificates.iter().map(|certificate| certificate.identity))
            && unique(revocations.iter().map(|revocation| revocation.identity));
        if !distinct {
            return Err(damaged("it states something twice"));
        }
        if revocations.iter().any(|revocation| revocation.records.len() > limits::REVOKED_RECORDS_MAX) {
            return Err(damaged("a revocation lists more records than any may"));
        }
        if !limits::times_are_possible(registry.commit_window_seconds, registry.minimum_grace_seconds) {
            return Err(damaged("its commit window and grace are impossible together"));
        }
        for certificate in &registry.certificates {
            if certificate.key()?.identity() != certificate.identity {
                return Err(damaged("a certificate names another identity than its key"));
            }
        }
        if !registry.domains.iter().all(Domain::is_possible) {
            return Err(damaged("the chunk sizes of a domain are impossible"));
        }
        Ok(registry)
    }

    /// The certificate of an identity.
    #[must_use]
    pub fn certificate(&self, identity: &IdentityId) -> Option<&Certificate> {
        self.certificates.iter().find(|certificate| certificate.identity == *identity)
    }

    /// The revocation of an identity.
    #[must_use]
    pub fn revocation(&self, identity: &IdentityId) -> Option<&Revocation> {
        self.revocations.iter().find(|revocation| revocation.identity == *identity)
    }

    /// A domain.
    #[must_use]
    pub fn domain(&self, id: &DomainId) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.id == *id)
    }

    /// The identity that backs up to a domain, if only one does or ever did: nobody else uses what it has stored, so nobody
    /// needs a verifier's word for it.
    #[must_use]
    pub fn only_writer(&self, domain: &DomainId) -> Option<IdentityId> {
        let writes_here = |known: &&Certificate| {
            known.domain == Some(*domain) && matches!(known.role, Role::Backup | Role::Owner)
        };
        let mut writers = self.certificates.iter().filter(writes_here).map(|known| known.identity);
        writers.next().filter(|_| writers.next().is_none())
    }

    /// Checks who signed an object of a domain, and gives the role. Whether the object counts is another
    /// question: the identity may have been revoked.
    ///
    /// # Errors
    /// `Damaged` when nobody who is certified for this domain signed it.
    pub fn verify_author(&self, envelope: &Envelope<'_>, domain: &DomainId) -> Result<Role> {
        let author = envelope.author();
        let certificate = self
            .certificate(&author)
            .filter(|known| known.role != Role::Backup || known.domain == Some(*domain))
            .ok_or_else(|| {
                Error::damaged("a signed object", format!("{author} is not certified for its domain"))
            })?;
        envelope.verify(&certificate.key()?)?;
        Ok(certificate.role)
    }

    /// Whether a snapshot with a good signature counts: always, unless its identity was revoked and this
    /// is not among what the revocation left valid.
    #[must_use]
    pub fn snapshot_counts(&self, identity: &IdentityId, sequence: u64, id: &ObjectId) -> bool {
        self.revocation(identity).is_none_or(|revocation| {
            sequence < revocation.last_sequence
                || sequence == revocation.last_sequence && revocation.last.contains(id)
        })
    }

    /// Whether an index object or another record with a good signature counts.
    #[must_use]
    pub fn record_counts(&self, identity: &IdentityId, id: &ObjectId) -> bool {
        self.revocation(identity).is_none_or(|revocation| revocation.records.contains(id))
    }

    /// Adds what another registry states and this one does not: two owners wrote at the same time. Of two
    /// revocations of one identity the one that leaves less valid counts; a key that either calls shared is.
    pub fn merge(&mut self, other: Self) {
        let Self { number, previous: _, features, epochs, domains, certificates, revocations, .. } = other;
        self.unknown.merge(other.unknown);
        self.number = self.number.max(number);
        let Features { read, write, prune } = features;
        add_new(&mut self.features.read, read, |a, b| a == b);
        add_new(&mut self.features.write, write, |a, b| a == b);
        add_new(&mut self.features.prune, prune, |a, b| a == b);
        add_new(&mut self.epochs, epochs, |a, b| a.number == b.number);
        add_new(&mut self.domains, domains, |a, b| a.id == b.id);
        for theirs in certificates {
            match self.certificates.iter_mut().find(|ours| ours.identity == theirs.identity) {
                Some(ours) => ours.shared |= theirs.shared,
                None => self.certificates.push(theirs),
            }
        }
        for theirs in revocations {
            let left = |revocation: &Revocation| (revocation.last_sequence, revocation.records.len());
            match self.revocations.iter_mut().find(|ours| ours.identity == theirs.identity) {
                Some(ours) if left(&theirs) < left(ours) => *ours = theirs,
                Some(_) => {}
                None => self.revocations.push(theirs),
            }
        }
    }

    /// Whether this program may use the repository in this way.
    ///
    /// # Errors
    /// `Failed` when that needs a feature that this program lacks.
    pub fn check_features(&self, purpose: Use) -> Result<()> {
        let Features { read, write, prune } = &self.features;
        let needed = [(Use::Read, read), (Use::Write, write), (Use::Prune, prune)];
        let needed = needed.into_iter().filter(|(needed, _)| *needed <= purpose);
        let lacking =
            needed.flat_map(|(_, features)| features).find(|name| !FEATURES.contains(&name.as_str()));
        let Some(feature) = lacking else { return Ok(()) };
        let what = match purpose {
            Use::Read => "reading",
            Use::Write => "writing to",
            Use::Prune => "removing from",
        };
        let text = format!("{what} this repository needs the feature `{feature}`");
        Err(Error::new(ErrorKind::Failed, text)
            .with_remedy("This program does not know it: install a newer one"))
    }
}

fn unique<T: Eq + std::hash::Hash>(items: impl Iterator<Item = T>) -> bool {
    let mut seen = std::collections::HashSet::new();
    items.into_iter().all(|item| seen.insert(item))
}

fn add_new<T>(ours: &mut Vec<T>, theirs: Vec<T>, same: impl Fn(&T, &T) -> bool) {
    for item in theirs {
        if !ours.iter().any(|known| same(known, &item)) {
            ours.push(item);
        }
    }
}
