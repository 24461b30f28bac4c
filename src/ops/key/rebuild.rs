//! A registry from everything else that is there. The words give the keys; names give the domains; every
//! record carries the key of its author. What nobody can tell any more is who was revoked, so whoever
//! wrote anything but snapshots is certified for that alone, and every identity is there to be looked at.
//! Promise: each gets a role that counts for all that it wrote, and nothing is believed of whoever lacks the keys
//! that seal it. What cannot be read now was not never there: its name stands for its bytes, so it counts as soon as it
//! comes back.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use zeroize::Zeroizing;

use crate::{
    clock::{Clock, Timestamp},
    crypto::{RootSecret, VerifyingKey},
    error::{Error, ErrorKind, Result},
    format::{
        annotation::{Annotation, Says},
        config::Config,
        envelope::{Envelope, Opener, RecordKind},
        pack::{SectionHeader, decode_index},
        registry::{Certificate, Domain, Registry, Revocation},
        role::Role,
        snapshot::{Parameters, Snapshot},
    },
    id::{DomainId, IdentityId, ObjectId},
    limits,
    repository::{InitOptions, records::kind_of, registry},
    store::{Folder, Name, Parsed, Prefix, Store},
};

/// A registry and what it lacks.
pub(super) struct Rebuilt {
    pub(super) registry: Registry,
    /// The highest registry that a snapshot has seen.
    pub(super) seen: u64,
    pub(super) lost: Vec<String>,
    /// What could not be read.
    pub(super) unread: Vec<String>,
}

/// What is known of an author.
struct Author {
    key: VerifyingKey,
    /// Its snapshots.
    chain: Option<Chain>,
    /// Whether it attested, placed holds, and wrote what a maintainer writes: tags too.
    attests: bool,
    holds: bool,
    maintains: bool,
    /// All that it wrote but snapshots and runs.
    records: Vec<ObjectId>,
}

/// The snapshots of an author.
struct Chain {
    domain: DomainId,
    /// The name of their machine; `None` when none of them can be read.
    host: Option<String>,
    /// The highest number, and whatever has it.
    last: (u64, Vec<ObjectId>),
}

impl Author {
    const fn new(key: VerifyingKey, chain: Option<Chain>) -> Self {
        Self { key, chain, attests: false, holds: false, maintains: false, records: Vec::new() }
    }

    /// The least role that may have written all of it. A hold alone may be anybody's who may place one.
    const fn role(&self) -> Role {
        let backs_up = self.chain.is_some();
        match (self.attests, self.maintains) {
            (true, true) => Role::Owner,
            (true, false) | (false, true) if backs_up => Role::Owner,
            (false, false) if backs_up && self.holds => Role::Owner,
            (false, false) if backs_up => Role::Backup,
            (true, false) => Role::Restore,
            (false, _) => Role::Maintain,
        }
    }

    /// What it wrote until now counts, and nothing later does. What cannot be read now may be among it.
    fn revocation(
        self,
        (identity, label): (IdentityId, &str),
        (unread, clock): (&[Name], &dyn Clock),
        lost: &mut Vec<String>,
    ) -> Revocation {
        let role = self.role();
        let Self { chain, mut records, .. } = self;
        records.sort_unstable();
        let unread = unread.iter().filter_map(|name| may_be_by((&identity, role), name));
        records.extend(unread.take(limits::REVOKED_FOLDER_MAX));
        lost.extend(cut(&mut records, label));
        let (last_sequence, last) = chain.map(|chain| chain.last).unwrap_or_default();
        Revocation { identity, last_sequence, last, time: clock.now(), records }
    }

    /// The name that it gets: the real one is lost.
    fn label(&self) -> String {
        let short = self.key.identity().short();
        let host = self.chain.as_ref().and_then(|chain| chain.host.as_deref());
        format!("{} {short}", host.unwrap_or_else(|| self.role().name()))
    }
}

struct Work<'a> {
    store: &'a Store,
    root: &'a RootSecret,
    domains: BTreeMap<DomainId, Domain>,
    authors: BTreeMap<IdentityId, Author>,
    epochs: BTreeSet<u32>,
    seen: u64,
    newest: Option<(Timestamp, Parameters)>,
    /// How many annotations lift a legal hold by the word of another owner.
    lifts: u64,
    /// What cannot be read.
    unread: Vec<Name>,
    /// The chains of which no snapshot can be read, whose authors nothing else told of yet.
    unread_chains: BTreeMap<IdentityId, Chain>,
}

/// What an intact object says, and who wrote it.
struct Signed {
    key: VerifyingKey,
    sequence: u64,
    epoch: u32,
    plain: Zeroizing<Vec<u8>>,
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
        lifts: 0,
        unread: Vec::new(),
        unread_chains: BTreeMap::new(),
    };
    let mut listed = store.list(&Prefix::domains())?;
    // Of what cannot be read the oldest is kept where it is too much: whoever overwrites something makes it younger.
    listed.sort_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
    let names: Vec<Name> = listed.iter().filter_map(|listed| Name::parse(&listed.name)).collect();
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
        let chain = work.authors.get(&identity).and_then(|author| author.chain.as_ref());
        if chain.is_none_or(|chain| chain.domain == domain && chain.last.0 == sequence) {
            work.snapshot(name, (domain, identity, sequence), id)?;
        }
    }
    work.count_unread();
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
    /// Reads an object, checks it against its name and the key that it carries, and opens it; `None` when it cannot be
    /// read, was damaged when it was written, or was sealed by somebody without the keys of its domain.
    fn signed(
        &mut self,
        name: &Name,
        (kind, domain, id): (RecordKind, &DomainId, &ObjectId),
    ) -> Result<Option<Signed>> {
        let bytes = match self.store.read_hashed(name, kind.bytes_max(), id.as_bytes()) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                self.unread.push(name.clone());
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let parsed = Envelope::parse(&bytes, kind, &self.root.repository_id(), domain);
        let Ok(envelope) = parsed else { return Ok(None) };
        let (key, sequence, epoch) = (*envelope.author_key(), envelope.sequence(), envelope.epoch());
        if envelope.verify(&key).is_err() {
            return Ok(None);
        }
        let opened = if matches!(kind, RecordKind::Snapshot | RecordKind::Annotation) {
            let private = self.root.metadata_seed(epoch).open_key();
            envelope.open(&Opener::Private(&|_| Some(&private)))
        } else {
            envelope.open(&Opener::Symmetric(self.root.index_root().domain(domain).as_bytes()))
        };
        Ok(opened.ok().map(|plain| Signed { key, sequence, epoch, plain }))
    }

    fn snapshot(
        &mut self,
        name: &Name,
        (domain, identity, sequence): (DomainId, IdentityId, u64),
        id: ObjectId,
    ) -> Result<()> {
        let Some(signed) = self.signed(name, (RecordKind::Snapshot, &domain, &id))? else { return Ok(()) };
        if signed.key.identity() != identity || signed.sequence != sequence {
            return Ok(());
        }
        let Ok(record) = Snapshot::decode(&signed.plain) else { return Ok(()) };
        self.epochs.insert(signed.epoch);
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
        let host: String = record.host.chars().filter(|c| !c.is_control()).take(40).collect();
        let author = self.authors.entry(identity).or_insert_with(|| Author::new(signed.key, None));
        let first = || Chain { domain, host: Some(host), last: (sequence, Vec::new()) };
        author.chain.get_or_insert_with(first).last.1.push(id);
        Ok(())
    }

    /// A snapshot that cannot be read stands in its chain where its name says: it may be the end of it. Whoever made such a
    /// name up gains nothing by it: what stands below counts only if the author has signed it.
    fn count_unread(&mut self) {
        for name in &self.unread {
            let Parsed::Snapshot { domain, identity, sequence, id } = name.parsed() else { continue };
            let known = self.authors.get_mut(&identity).and_then(|author| author.chain.as_mut());
            let first = || Chain { domain, host: None, last: (sequence, Vec::new()) };
            let chain = known.unwrap_or_else(|| self.unread_chains.entry(identity).or_insert_with(first));
            match sequence.cmp(&chain.last.0) {
                Ordering::Greater => chain.last = (sequence, vec![id]),
                Ordering::Equal => chain.last.1.push(id),
                Ordering::Less => {}
            }
        }
    }

    /// An index object or another record: that it is there tells something of its author.
    fn record(&mut self, name: &Name) -> Result<()> {
        let (kind, domain, id) = match name.parsed() {
            Parsed::Index { domain, id, .. } => (RecordKind::Index, domain, id),
            Parsed::Record { domain, folder, id } => (kind_of(folder), domain, id),
            _ => return Ok(()),
        };
        let Some(Signed { key, plain, .. }) = self.signed(name, (kind, &domain, &id))? else {
            return Ok(());
        };
        let identity = key.identity();
        let is_misplaced = matches!(name.parsed(), Parsed::Index { writer, .. } if writer != identity);
        if is_misplaced || identity == self.root.owner_identity().identity() {
            return Ok(());
        }
        let said = (kind == RecordKind::Annotation).then(|| Annotation::decode(&plain)).and_then(Result::ok);
        let says = said.map(|said| said.says);
        // Of an owner who is put down by what anybody with the keys of a domain can write no word ends a hold.
        if matches!(says, Some(Says::Lift(..))) {
            self.lifts += 1;
            return Ok(());
        }
        let chains = &mut self.unread_chains;
        let author =
            self.authors.entry(identity).or_insert_with(|| Author::new(key, chains.remove(&identity)));
        match kind {
            RecordKind::Attestation => author.attests = true,
            RecordKind::Annotation if !matches!(says, Some(Says::Tags(_))) => author.holds = true,
            RecordKind::Index => {
                let backs_up_here = author.chain.as_ref().is_some_and(|chain| chain.domain == domain);
                author.maintains |= !(backs_up_here && lists_its_own(&plain, &identity));
            }
            _ => author.maintains = true,
        }
        author.records.push(id);
        Ok(())
    }

    fn finish(self, config: Option<&Config>, clock: &dyn Clock) -> Rebuilt {
        let Self { root, domains, authors, epochs, seen, newest, lifts, unread, .. } = self;
        let mut lost = Vec::new();
        let owner = root.owner_identity().identity();
        let mut domains: Vec<Domain> = domains.into_values().collect();
        let home = authors.get(&owner).and_then(|known| known.chain.as_ref()).map(|chain| chain.domain);
        let home = home.or_else(|| domains.first().map(|domain| domain.id)).unwrap_or(DomainId::new([0; 8]));
        if let Some(domain) = domains.iter_mut().find(|domain| domain.id == home) {
            domain.name = "main".to_owned();
        }
        let mut certificates = vec![registry::owner_certificate(root, home, clock)];
        let mut revocations = Vec::new();
        for (identity, author) in authors.into_iter().filter(|(identity, _)| *identity != owner) {
            let (role, label) = (author.role(), author.label());
            let domain = author.chain.as_ref().map(|chain| chain.domain);
            lost.push(format!("the real label of the {} key that is now called `{label}`", role.name()));
            let verifying_key = author.key.to_bytes();
            if role != Role::Backup {
                revocations.push(author.revocation((identity, &label), (&unread, clock), &mut lost));
            }
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
        if lifts > 0 {
            lost.push(format!(
                "{lifts} times another owner's key lifted a legal hold: those hold again, see `hold list`"
            ));
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
        Rebuilt { registry, seen, lost, unread: told(&unread) }
    }
}

/// The id of a record that cannot be read, if it may be this key's and counts when it comes back. An owner's annotation may
/// lift a hold, which no word of a key that is put down here does.
fn may_be_by((identity, role): (&IdentityId, Role), name: &Name) -> Option<ObjectId> {
    match name.parsed() {
        Parsed::Index { writer, id, .. } => (writer == *identity).then_some(id),
        Parsed::Record { folder: Folder::Annotations, id, .. } => (role != Role::Owner).then_some(id),
        Parsed::Record { id, .. } => Some(id),
        _ => None,
    }
}

/// What could not be read, and what to do.
fn told(unread: &[Name]) -> Vec<String> {
    let mut all: BTreeMap<(&str, &str), (u64, &Name)> = BTreeMap::new();
    for name in unread {
        all.entry(advice(&name.parsed())).or_insert((0, name)).0 += 1;
    }
    let told = |((what, advice), (count, first))| {
        format!("{count} {what} that could not be read, {first} among them: {advice}")
    };
    all.into_iter().map(told).collect()
}

/// What an object is that cannot be read, and what to do.
const fn advice(name: &Parsed) -> (&'static str, &'static str) {
    match name {
        Parsed::Snapshot { .. } => (
            "snapshots",
            "they count as if they were good, and nothing is freed until each is put back or `lifeboat repair quarantine \
             NAME --apply` sets it aside",
        ),
        Parsed::Index { .. } => ("index objects", "`lifeboat repair index` lists again what they listed"),
        Parsed::Record { folder: Folder::Annotations, .. } => (
            "annotations",
            "they may be legal holds and tags: place those again that you know of, before anything is forgotten",
        ),
        _ => ("other records", "put them back, and look whether what was forgotten is there again"),
    }
}

/// Whether an index object lists nothing but what its writer has stored itself, as that of a backup does.
fn lists_its_own(plain: &[u8], writer: &IdentityId) -> bool {
    let is_own = |section: &SectionHeader| section.author == *writer;
    decode_index(plain).is_ok_and(|packs| packs.iter().all(|pack| pack.directory.sections.iter().all(is_own)))
}

/// Leaves as many records as a revocation may list, and says what is lost.
fn cut(records: &mut Vec<ObjectId>, label: &str) -> Option<String> {
    let over = records.len().checked_sub(limits::REVOKED_RECORDS_MAX + 1)? + 1;
    records.truncate(limits::REVOKED_RECORDS_MAX);
    Some(format!("{over} of the records that `{label}` signed: there are too many to list"))
}
