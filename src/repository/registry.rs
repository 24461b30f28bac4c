//! The registry in the store: finding the newest, and changing it while another owner may do the same.
//! Promise: what [`Repository::change_registry`] reported as done is in every newer registry.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use super::{InitOptions, Repository, cache::Cache, check_newest};
use crate::{
    clock::Clock,
    crypto::{RootSecret, VerifyingKey},
    error::{Error, ErrorKind, Result},
    format::{
        config::Config,
        envelope::{self, Envelope, EnvelopeHeader, Opener, RecordKind, Sealer},
        registry::{Certificate, Domain, Epoch, Registry},
        role::Role,
        secrets::Secrets,
    },
    id::{DomainId, ObjectId},
    limits, random,
    store::{Name, Parsed, Prefix, Sent, Store},
};

/// Registries that belong to no domain are sealed with this one.
pub(super) const NO_DOMAIN: DomainId = DomainId::new([0; 8]);
/// So long a registry is new enough for whoever only reads. The steps of one command are milliseconds apart.
const READER_LOOKS_AFTER: Duration = Duration::from_secs(10);
/// Owners who write at the same time try again this often.
const TRIES_MAX: u32 = 16;

/// The newest registry, and the objects that it was read from.
#[derive(Clone, Debug)]
pub struct Newest {
    /// What it states.
    pub registry: Registry,
    /// Its objects: one, or several that owners wrote at the same time. The first one names it.
    pub heads: Vec<ObjectId>,
}

impl Newest {
    /// Counts one more object of the same number in.
    fn add(newest: &mut Option<Self>, registry: Registry, id: ObjectId) {
        match newest {
            Some(newest) => {
                newest.registry.merge(registry);
                newest.heads.push(id);
            }
            None => *newest = Some(Self { registry, heads: vec![id] }),
        }
    }
}

/// The registry that a repository works with.
#[derive(Clone, Debug)]
pub(super) struct Known {
    registry: Arc<Registry>,
    heads: Vec<ObjectId>,
    /// When the store was asked for it, on the boot-time clock.
    asked: Duration,
}

impl Known {
    pub(super) fn of(Newest { registry, heads }: Newest, asked: Duration) -> Self {
        Self { registry: Arc::new(registry), heads, asked }
    }
}

/// Seals and signs a registry and gives its name with it.
pub(super) fn seal_registry(root: &RootSecret, registry: &Registry) -> Result<(Name, ObjectId, Bytes)> {
    let header = EnvelopeHeader {
        kind: RecordKind::Registry,
        repository: root.repository_id(),
        domain: NO_DOMAIN,
        author: root.signing_key().identity(),
        sequence: registry.number,
        epoch: 0,
    };
    let plain = registry.encode();
    if plain.len() > limits::REGISTRY_BYTES_MAX {
        return Err(Error::new(ErrorKind::Failed, "the registry would grow too large to be read")
            .with_remedy("Begin a new repository for further identities"));
    }
    let key = root.registry_key();
    let sealed = envelope::seal(&header, &Sealer::Symmetric(key.as_bytes()), &root.signing_key(), &plain)?;
    let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
    Ok((Name::registry(registry.number, &id), id, Bytes::from(sealed)))
}

/// The certificate of the identity that the recovery words open.
#[must_use]
pub fn owner_certificate(root: &RootSecret, domain: DomainId, clock: &dyn Clock) -> Certificate {
    let owner = root.owner_identity();
    Certificate {
        identity: owner.identity(),
        verifying_key: owner.verifying_key().to_bytes(),
        role: Role::Owner,
        label: "owner".to_owned(),
        domain: Some(domain),
        shared: true,
        created: clock.now(),
    }
}

/// The public keys of an epoch.
#[must_use]
pub fn epoch(root: &RootSecret, number: u32) -> Epoch {
    Epoch {
        number,
        data: root.data_seed(number).public_key().to_bytes(),
        metadata: root.metadata_seed(number).public_key().to_bytes(),
    }
}

pub(super) fn first_registry(root: &RootSecret, options: InitOptions, clock: &dyn Clock) -> Result<Registry> {
    let domain = Domain::new(DomainId::new(random::bytes()?), "main".to_owned());
    let InitOptions { commit_window_seconds, minimum_grace_seconds, .. } = options;
    Ok(Registry {
        number: 1,
        previous: None,
        features: Default::default(),
        unknown: Default::default(),
        epochs: vec![epoch(root, 1)],
        certificates: vec![owner_certificate(root, domain.id, clock)],
        domains: vec![domain],
        revocations: Vec::new(),
        commit_window_seconds,
        minimum_grace_seconds,
    })
}

/// Every registry that LIST shows, the newest first; of one number the lower id first.
pub(super) fn listed(store: &Store) -> Result<Vec<(u64, ObjectId)>> {
    let mut all = Vec::new();
    for listed in store.list(&Prefix::registry())? {
        if let Some(Parsed::Registry { number, id }) = Name::parse(&listed.name).map(|name| name.parsed()) {
            all.push((number, id));
        }
    }
    all.sort_by_key(|(number, id)| (std::cmp::Reverse(*number), *id));
    Ok(all)
}

/// One registry; `None` for an intact object of another repository: an `init` that was cut short and begun
/// anew leaves such a one. Whoever could put it there could also delete ours, so ignoring it hides nothing.
fn read(
    store: &Store,
    (config, secrets): (&Config, &Secrets),
    cache: &Cache,
    (number, id): (u64, ObjectId),
) -> Result<Option<Registry>> {
    let name = Name::registry(number, &id);
    let remedy = "If the storage has an older version of this object, restore that one; else rebuild the \
                  registry with `lifeboat key recover --rebuild-config` and the recovery words";
    let damaged = |e: Error| if e.kind() == ErrorKind::Damaged { e.with_remedy(remedy) } else { e };
    let bytes = match cache.object(&id) {
        Some(bytes) => Bytes::from(bytes),
        None => {
            let bytes = store.read_hashed(&name, limits::RECORD_BYTES_MAX, id.as_bytes()).map_err(damaged)?;
            cache.keep_object(&id, &bytes);
            bytes
        }
    };
    let open = || -> Result<Option<Registry>> {
        let envelope = Envelope::parse(&bytes, RecordKind::Registry, &config.repository_id, &NO_DOMAIN)?;
        if envelope.author_key().to_bytes() != config.root_public_key {
            return Ok(None);
        }
        envelope.verify(&VerifyingKey::from_bytes(&config.root_public_key)?)?;
        let plain = envelope.open(&Opener::Symmetric(secrets.registry_key().as_bytes()))?;
        let registry = Registry::decode(&plain)?;
        if registry.number != number || envelope.sequence() != number {
            return Err(Error::damaged("a registry", "its number is not the one in its name"));
        }
        Ok(Some(registry))
    };
    open().map_err(|e| e.context(&name).with_remedy(remedy))
}

/// The newest registry. Objects of the same number count together: owners wrote them at the same time,
/// and a revocation must not be lost because another change won.
///
/// # Errors
/// `Damaged` when it is missing, forged or damaged; storage trouble.
pub fn newest(store: &Store, opened: (&Config, &Secrets), cache: &Cache) -> Result<Newest> {
    newest_of(&listed(store)?, store, opened, cache)
}

pub(super) fn newest_of(
    all: &[(u64, ObjectId)],
    store: &Store,
    opened: (&Config, &Secrets),
    cache: &Cache,
) -> Result<Newest> {
    let mut newest: Option<Newest> = None;
    for (number, id) in all {
        if newest.as_ref().is_some_and(|newest| newest.registry.number != *number) {
            break;
        }
        let Some(registry) = read(store, opened, cache, (*number, *id))? else { continue };
        Newest::add(&mut newest, registry, *id);
    }
    newest.ok_or_else(|| {
        Error::new(ErrorKind::Damaged, format!("the registry of {} is missing", store.location_text()))
            .with_remedy(
                "Its objects were deleted: rebuild it with `key recover --rebuild-config` and the recovery words",
            )
    })
}

/// The newest registry that can be read, whatever happened to newer ones, the highest number that any
/// has or had, and what is wrong with those that cannot be read. For `key recover` alone: everybody else
/// must not go on with an older one.
///
/// # Errors
/// Storage trouble.
pub fn salvage(
    store: &Store,
    config: &Config,
    secrets: &Secrets,
) -> Result<(Option<Newest>, u64, Vec<Error>)> {
    let all = listed(store)?;
    let highest = all.first().map_or(0, |(number, _)| *number);
    let (mut found, mut damaged): (Option<Newest>, _) = (None, Vec::new());
    for (number, id) in all {
        if found.as_ref().is_some_and(|found| found.registry.number != number) {
            break;
        }
        match read(store, (config, secrets), &Cache::default(), (number, id)) {
            Ok(Some(registry)) => Newest::add(&mut found, registry, id),
            Ok(None) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                damaged.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((found, highest, damaged))
}

/// Writes a registry.
///
/// # Errors
/// Storage trouble.
pub fn publish(store: &Store, root: &RootSecret, registry: &Registry) -> Result<()> {
    let (name, _, sealed) = seal_registry(root, registry)?;
    store.create(&name, sealed)
}

impl Repository {
    /// The root secret, which only an owner holds.
    ///
    /// # Errors
    /// `Forbidden` for every other role; `what` says what it was needed for.
    pub fn root(&self, what: &str) -> Result<RootSecret> {
        self.secrets.root().ok_or_else(|| self.forbidden(what, "owner"))
    }

    /// What this identity holds, to seal it in another slot.
    #[must_use]
    pub const fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The newest registry that was seen.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner).registry)
    }

    /// Looks for a newer registry and uses it from now on. A key that was added meanwhile may sign what
    /// must not be overlooked, and this identity may have been revoked.
    ///
    /// # Errors
    /// As [`newest`]; `CannotUnlock` when this identity does not count any more; `Damaged` when the store
    /// shows an older registry than before.
    pub fn look_for_registry(&self) -> Result<Arc<Registry>> {
        let _turn = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.newest.read().unwrap_or_else(PoisonError::into_inner).clone();
        let asked = self.clock.elapsed();
        let all = listed(&self.store)?;
        let number = all.first().map(|(number, _)| *number);
        let heads = all.iter().filter(|(other, _)| Some(*other) == number).map(|(_, id)| *id);
        if number == Some(known.registry.number) && heads.eq(known.heads.iter().copied()) {
            self.newest.write().unwrap_or_else(PoisonError::into_inner).asked = asked;
            return Ok(known.registry);
        }
        let newest = newest_of(&all, &self.store, (&self.config, &self.secrets), &self.cache)?;
        check_newest(&newest, (&self.secrets, &self.config), &self.memory, &self.store)?;
        let newest = Known::of(newest, asked);
        let registry = Arc::clone(&newest.registry);
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = newest;
        Ok(registry)
    }

    /// The registry for whoever only reads: the one that is known, if the store was asked for it just now.
    ///
    /// # Errors
    /// As [`Self::look_for_registry`].
    pub fn registry_of_reader(&self) -> Result<Arc<Registry>> {
        let Known { registry, asked, .. } =
            self.newest.read().unwrap_or_else(PoisonError::into_inner).clone();
        let age = self.clock.elapsed().saturating_sub(asked);
        if age < READER_LOOKS_AFTER { Ok(registry) } else { self.look_for_registry() }
    }

    /// The newest registry, read again from the store.
    ///
    /// # Errors
    /// As [`newest`].
    pub fn newest_registry(&self) -> Result<Newest> {
        newest(&self.store, (&self.config, &self.secrets), &Cache::default())
    }

    /// Applies `change` to the newest registry and writes the next one, until nothing that another owner
    /// wrote meanwhile is left out. `change` is applied again on top of what others wrote, so it must
    /// change nothing where it was applied before.
    ///
    /// # Errors
    /// `Forbidden` for all but owners; other owners write all the time; storage trouble.
    pub fn change_registry(&self, change: &dyn Fn(&mut Registry)) -> Result<Registry> {
        self.write_registry(change, &|name, sealed| self.store.create(name, sealed))
    }

    /// As [`Self::change_registry`], for what was found out from a LIST at `listed` on the boot-time clock.
    ///
    /// # Errors
    /// As [`Self::change_registry`]; `Temporary` when the commit window has closed since then.
    pub fn change_registry_soon(&self, listed: Duration, change: &dyn Fn(&mut Registry)) -> Result<Registry> {
        let window = Duration::from_secs(self.config.commit_window_seconds);
        self.write_registry(change, &|name, sealed| {
            let left = window.saturating_sub(self.clock.elapsed().saturating_sub(listed));
            if !left.is_zero() && matches!(self.store.create_soon(name, sealed, left)?, Sent::InTime) {
                return Ok(());
            }
            Err(Error::new(ErrorKind::Temporary, "what this change goes by was listed too long ago")
                .with_remedy("Something may have been written since: run the command again"))
        })
    }

    fn write_registry(
        &self,
        change: &dyn Fn(&mut Registry),
        create: &dyn Fn(&Name, Bytes) -> Result<()>,
    ) -> Result<Registry> {
        let root = self.root("change keys")?;
        let Newest { registry: mut base, heads } = self.newest_registry()?;
        let mut previous = heads.first().copied();
        let mut seen: HashSet<ObjectId> = heads.into_iter().collect();
        for _ in 0..TRIES_MAX {
            let from = base.number;
            let mut next = base;
            change(&mut next);
            next.number = from.checked_add(1).ok_or_else(|| Error::damaged("the registry", "its number"))?;
            next.previous = previous;
            let (name, id, sealed) = seal_registry(&root, &next)?;
            create(&name, sealed)?;
            seen.insert(id);
            // Whoever wrote since we looked may have been told of success: nothing of it may be lost,
            // so it goes into one more registry on top of both.
            let mut strays = Vec::new();
            for (number, id) in listed(&self.store)? {
                if number < from || !seen.insert(id) {
                    continue;
                }
                let stray = read(&self.store, (&self.config, &self.secrets), &self.cache, (number, id))?;
                strays.extend(stray.map(|registry| (id, registry)));
            }
            let Some((newest, _)) = strays.first() else {
                // Who wrote it has seen it: a store that shows an older one later was rolled back.
                self.memory.check_registry(next.number, &[id])?;
                return Ok(next);
            };
            previous = Some(*newest);
            base = next;
            for (_, stray) in strays {
                base.merge(stray);
            }
        }
        Err(Error::new(ErrorKind::Temporary, "another owner changes keys at the same time")
            .with_remedy("Look at `lifeboat key list`, and run the command again"))
    }
}
