//! A registry from everything else that is there. The words give the keys; names give the domains; every
//! record carries the key of its author. What nobody can tell any more is who was revoked, so whoever
//! wrote anything but snapshots is certified for that alone, and every identity is there to be looked at.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    clock::Clock,
    crypto::{RootSecret, VerifyingKey},
    error::{Error, ErrorKind, Result},
    format::{
        config::Config,
        envelope::{Envelope, Opener, RecordKind},
        registry::{Certificate, Domain, Registry, Revocation},
        role::Role,
        snapshot::{Parameters, Snapshot},
    },
    id::{DomainId, IdentityId, ObjectId},
    limits,
    repository::{InitOptions, registry},
    store::{Folder, Name, Parsed, Prefix, Store},
};

/// A registry and what it lacks.
pub(super) struct Rebuilt {
    pub(super) registry: Registry,
    /// The highest registry that a snapshot has seen.
    pub(super) seen: u64,
    pub(super) lost: Vec<String>,
}

/// What is known of an author.
struct Author {
    key: VerifyingKey,
    role: Role,
    label: String,
    domain: Option<DomainId>,
    records: Vec<ObjectId>,
}

struct Work<'a> {
    store: &'a Store,
    root: &'a RootSecret,
    domains: BTreeMap<DomainId, Domain>,
    authors: BTreeMap<IdentityId, Author>,
    epochs: BTreeSet<u32>,
    seen: u64,
    newest: Option<(crate::clock::Timestamp, Parameters)>,
}

/// What an intact object says about who wrote it.
struct Signed {
    key: VerifyingKey,
    sequence: u64,
    bytes: Vec<u8>,
}

/// Builds a registry without a number from what stands below `d/`.
pub(super) fn registry(
    store: &Store,
    root: &RootSecret,
    config: Option<&Config>,
    clock: &dyn Clock,
) -> Result<Rebuilt> {
    let mut work = Work {
        store,
        root,
        domains: BTreeMap::new(),
        authors: BTreeMap::new(),
        epochs: BTreeSet::from([1]),
        seen: 0,
        newest: None,
    };
    let names: Vec<Name> =
        store.list(&Prefix::domains())?.iter().filter_map(|listed| Name::parse(&listed.name)).collect();
    if names.is_empty() {
        let text = format!("nothing of a repository is left at {}", store.location_text());
        return Err(Error::new(ErrorKind::NoRepository, text).with_remedy("Check the address"));
    }
    // Snapshots first, the newest of each chain before the others: they tell the most.
    let mut snapshots = Vec::new();
    for name in &names {
        let parsed = name.parsed();
        if let Some(domain) = domain_of(&parsed) {
            let unnamed = || Domain::new(domain, format!("recovered-{domain}"));
            work.domains.entry(domain).or_insert_with(unnamed);
        }
        if let Parsed::Snapshot { domain, identity, sequence, id } = parsed {
            snapshots.push((sequence, name, domain, identity, id));
        }
    }
    snapshots.sort_by_key(|(sequence, ..)| std::cmp::Reverse(*sequence));
    for (sequence, name, domain, identity, id) in snapshots {
        if !work.authors.contains_key(&identity) {
            work.snapshot(name, (domain, identity, sequence), &id)?;
        }
    }
    for name in &names {
        work.record(name)?;
    }
    Ok(work.finish(config, clock))
}

const fn domain_of(parsed: &Parsed) -> Option<DomainId> {
    match parsed {
        Parsed::Pack { domain, .. }
        | Parsed::Index { domain, .. }
        | Parsed::Snapshot { domain, .. }
        | Parsed::Run { domain, .. }
        | Parsed::Record { domain, .. } => Some(*domain),
        Parsed::Config | Parsed::Slot(_) | Parsed::Registry { .. } | Parsed::Evidence { .. } => None,
    }
}

impl Work<'_> {
    /// Reads an object and checks it against its name and the key that it carries; `None` when it is
    /// damaged.
    fn signed(
        &self,
        name: &Name,
        (kind, domain, id): (RecordKind, &DomainId, &ObjectId),
    ) -> Result<Option<Signed>> {
        let max = if kind == RecordKind::Index { limits::INDEX_BYTES_MAX } else { limits::RECORD_BYTES_MAX };
        let bytes = match self.store.read(name, max) {
            Ok(bytes) => bytes.to_vec(),
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if blake3::hash(&bytes).as_bytes() != id.as_bytes() {
            return Ok(None);
        }
        let parsed = Envelope::parse(&bytes, kind, &self.root.repository_id(), domain);
        let Ok(envelope) = parsed else { return Ok(None) };
        let key = *envelope.author_key();
        let sequence = envelope.sequence();
        let good = envelope.verify(&key).is_ok();
        Ok(good.then_some(Signed { key, sequence, bytes }))
    }

    fn snapshot(
        &mut self,
        name: &Name,
        (domain, identity, sequence): (DomainId, IdentityId, u64),
        id: &ObjectId,
    ) -> Result<()> {
        let Some(signed) = self.signed(name, (RecordKind::Snapshot, &domain, id))? else { return Ok(()) };
        if signed.key.identity() != identity || signed.sequence != sequence {
            return Ok(());
        }
        let repository = self.root.repository_id();
        let envelope = Envelope::parse(&signed.bytes, RecordKind::Snapshot, &repository, &domain)?;
        let key = self.root.metadata_seed(envelope.epoch()).open_key();
        let Ok(plain) = envelope.open(&Opener::Private(&|_| Some(&key))) else { return Ok(()) };
        let Ok(record) = Snapshot::decode(&plain) else { return Ok(()) };
        self.epochs.insert(envelope.epoch());
        self.seen = self.seen.max(record.registry);
        if let Some(known) = self.domains.get_mut(&domain) {
            let [chunk_min, chunk_average, chunk_max] = record.parameters.chunk_sizes;
            let sizes = Domain { chunk_min, chunk_average, chunk_max, ..known.clone() };
            if sizes.is_possible() {
                *known = sizes;
            }
        }
        if self.newest.as_ref().is_none_or(|(time, _)| record.time > *time) {
            self.newest = Some((record.time, record.parameters));
        }
        let short: String = identity.to_string().chars().take(8).collect();
        let label: String = record.host.chars().filter(|c| !c.is_control()).take(40).collect();
        let label = format!("{label} {short}");
        let author =
            Author { key: signed.key, role: Role::Backup, label, domain: Some(domain), records: Vec::new() };
        self.authors.insert(identity, author);
        Ok(())
    }

    /// An index object or another record: its author, if nobody knows it yet, counts for what is there.
    fn record(&mut self, name: &Name) -> Result<()> {
        let (kind, domain, id, role) = match name.parsed() {
            Parsed::Index { domain, writer, id } => {
                let known = self.authors.get(&writer);
                if known.is_some_and(|known| known.role == Role::Backup) {
                    return Ok(());
                }
                (RecordKind::Index, domain, id, Role::Maintain)
            }
            Parsed::Record { domain, folder, id } => match folder {
                Folder::Attestations => (RecordKind::Attestation, domain, id, Role::Restore),
                Folder::Annotations => (RecordKind::Annotation, domain, id, Role::Maintain),
                Folder::Forgotten => (RecordKind::Forgotten, domain, id, Role::Maintain),
                Folder::Tombstones => (RecordKind::Tombstones, domain, id, Role::Maintain),
                Folder::Quarantine => (RecordKind::Quarantine, domain, id, Role::Maintain),
            },
            _ => return Ok(()),
        };
        let Some(Signed { key, .. }) = self.signed(name, (kind, &domain, &id))? else { return Ok(()) };
        let identity = key.identity();
        if identity == self.root.owner_identity().identity() {
            return Ok(());
        }
        let short: String = identity.to_string().chars().take(8).collect();
        let author = self.authors.entry(identity).or_insert_with(|| Author {
            key,
            role,
            label: format!("{} {short}", role.name()),
            domain: None,
            records: Vec::new(),
        });
        if author.role == role {
            author.records.push(id);
        }
        Ok(())
    }

    fn finish(self, config: Option<&Config>, clock: &dyn Clock) -> Rebuilt {
        let Self { root, domains, authors, epochs, seen, newest, .. } = self;
        let mut lost = Vec::new();
        let owner = root.owner_identity().identity();
        let mut domains: Vec<Domain> = domains.into_values().collect();
        let home = authors.get(&owner).and_then(|known| known.domain);
        let home = home.or_else(|| domains.first().map(|domain| domain.id)).unwrap_or(DomainId::new([0; 8]));
        if let Some(domain) = domains.iter_mut().find(|domain| domain.id == home) {
            domain.name = "main".to_owned();
        }
        let mut certificates = vec![registry::owner_certificate(root, home, clock)];
        let mut revocations = Vec::new();
        for (identity, author) in authors.into_iter().filter(|(identity, _)| *identity != owner) {
            let Author { key, role, label, domain, mut records } = author;
            if role != Role::Backup {
                records.sort_unstable();
                lost.extend(cut(&mut records, &label));
                revocations.push(Revocation {
                    identity,
                    last_sequence: 0,
                    last: Vec::new(),
                    time: clock.now(),
                    records,
                });
            }
            lost.push(format!("the real label of the {} key that is now called `{label}`", role.name()));
            let verifying_key = key.to_bytes();
            let created = clock.now();
            certificates.push(Certificate {
                identity,
                verifying_key,
                role,
                label,
                domain,
                shared: false,
                created,
            });
        }
        lost.push("which keys had been revoked: look at `key list` and revoke those again".to_owned());
        lost.push("the certificates of all other keys: add them anew".to_owned());
        let (commit_window_seconds, minimum_grace_seconds) = match (config, newest) {
            (Some(config), _) => (config.commit_window_seconds, config.minimum_grace_seconds),
            (None, Some((_, said)))
                if limits::times_are_possible(said.commit_window_seconds, said.minimum_grace_seconds) =>
            {
                (said.commit_window_seconds, said.minimum_grace_seconds)
            }
            _ => {
                lost.push("the commit window and the grace: they are the usual ones now".to_owned());
                let usual = InitOptions::default();
                (usual.commit_window_seconds, usual.minimum_grace_seconds)
            }
        };
        let registry = Registry {
            number: 0,
            previous: None,
            features: Default::default(),
            unknown: Default::default(),
            epochs: (1..=epochs.last().copied().unwrap_or(1)).map(|n| registry::epoch(root, n)).collect(),
            domains,
            certificates,
            revocations,
            commit_window_seconds,
            minimum_grace_seconds,
        };
        Rebuilt { registry, seen, lost }
    }
}

/// Leaves as many records as a revocation may list, and says what is lost.
fn cut(records: &mut Vec<ObjectId>, label: &str) -> Option<String> {
    let over = records.len().checked_sub(limits::REVOKED_RECORDS_MAX + 1)? + 1;
    records.truncate(limits::REVOKED_RECORDS_MAX);
    Some(format!("{over} of the records that `{label}` signed: there are too many to list"))
}
