//! A repository: what `init` makes, what unlocking gives, and the keys that everything below it needs.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;

use self::{
    cache::Cache,
    index::Segments,
    memory::Memory,
    registry::{Known, Newest},
    section::{OpenSections, Place},
    unlock::{Credential, Unlocked},
};
use crate::{
    clock::Clock,
    crypto::{ChunkKeys, IndexKey, NodeKey, OpenKey, RootSecret, SealKey, SigningKey},
    error::{Error, ErrorKind, Result},
    format::{
        config::Config,
        envelope::Envelope,
        registry::{Registry, Use},
        role::Role,
        secrets::Secrets,
        slot::{KdfParameters, Slot},
    },
    id::{DomainId, IdentityId, ObjectId},
    limits,
    store::{Name, Store},
};

pub mod annotations;
pub mod cache;
pub mod commit;
mod content;
pub mod directories;
pub mod evidence;
pub mod history;
pub mod index;
pub mod journal;
pub mod manifest;
pub mod memory;
pub mod pack_mover;
pub mod pack_writer;
pub mod places;
pub(crate) mod ranges;
pub mod reader;
pub mod records;
pub mod registry;
pub mod runs;
pub mod section;
pub mod snapshots;
pub mod unlock;
mod vacancy;
pub mod view;

/// What `init` decides for ever.
#[derive(Clone, Copy, Debug)]
pub struct InitOptions {
    /// The commit window of PROTOCOL in seconds.
    pub commit_window_seconds: u64,
    /// The smallest grace in seconds.
    pub minimum_grace_seconds: u64,
    /// How the passphrase is stretched.
    pub kdf: KdfParameters,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self { commit_window_seconds: 600, minimum_grace_seconds: 72 * 3600, kdf: KdfParameters::default() }
    }
}

/// An unlocked repository.
pub struct Repository {
    /// Where its objects are.
    pub store: Store,
    /// What anyone can read of it.
    pub config: Config,
    /// The local cache.
    pub cache: Cache,
    /// What index objects say, ready to be asked.
    pub segments: Segments,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The newest registry that was seen; every view looks for a newer one.
    newest: RwLock<Known>,
    /// One thread at a time looks for it: else the older of two answers may come last, as if the store had gone back.
    looks: Mutex<()>,
    memory: Memory,
    secrets: Secrets,
    signer: SigningKey,
    sections: OpenSections,
    /// Sizes of the index objects and snapshots that were written here.
    written: Mutex<HashMap<ObjectId, u64>>,
    data_keys: Vec<(u32, OpenKey)>,
    metadata_keys: Vec<(u32, OpenKey)>,
    metadata_public: Option<(u32, SealKey)>,
    data_public: Option<(u32, SealKey)>,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("id", &self.config.repository_id).finish_non_exhaustive()
    }
}

impl InitOptions {
    /// # Errors
    /// `Usage` when a repository with these times could not be opened again.
    pub fn check(&self) -> Result<()> {
        let Self { commit_window_seconds: window, minimum_grace_seconds: grace, kdf: _ } = *self;
        if limits::times_are_possible(window, grace) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Usage,
            format!("a commit window of {window} s and a grace of {grace} s do not go together"),
        )
        .with_remedy(format!(
            "The window is at least {} s, the grace at least {} windows",
            limits::COMMIT_WINDOW_SECONDS_MIN,
            limits::GRACE_WINDOWS_MIN
        )))
    }
}

impl Repository {
    /// Makes a repository: the slot and the registry first, `config` last, since that is what makes it one.
    /// `vacancy.rs` says what becomes of two at once and of one that is cut short.
    ///
    /// # Errors
    /// `Usage` for impossible times; there is one already, or what is left of one; storage trouble.
    pub fn create(
        store: &Store,
        root: &RootSecret,
        passphrase: &str,
        options: InitOptions,
        clock: &dyn Clock,
    ) -> Result<()> {
        options.check()?;
        Self::check_vacant(store)?;
        let secrets = Secrets::owner(root);
        let slot = Slot::seal_passphrase(&secrets, passphrase, options.kdf)?;
        let (name, _, sealed) =
            registry::seal_registry(root, &registry::first_registry(root, options, clock)?)?;
        let config = Config {
            format: 1,
            repository_id: root.repository_id(),
            root_public_key: root.signing_key().verifying_key().to_bytes(),
            commit_window_seconds: options.commit_window_seconds,
            minimum_grace_seconds: options.minimum_grace_seconds,
        };
        let slot = (Name::slot(&slot.name()), Bytes::from(slot.encode()));
        Self::write_first(store, &slot, &(name, sealed), &Bytes::from(config.encode()))
    }

    /// Opens a repository with secrets that were unlocked, and checks `config` and the registry against
    /// the root public key that came with them.
    ///
    /// # Errors
    /// The repository is another one, or its registry is missing, forged or damaged.
    pub fn open(
        store: Store,
        config: Config,
        secrets: Secrets,
        cache: Option<&Path>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let asked = clock.elapsed();
        let registries = registry::listed(&store)?;
        Self::open_by((store, config), secrets, (&registries, asked), cache, clock)
    }

    /// As [`Self::open`], with what a credential unlocks. Unlocking takes a while, and the store is asked for the
    /// registry meanwhile.
    ///
    /// # Errors
    /// As [`Self::unlock`] and [`Self::open`].
    pub fn unlock_and_open(
        store: Store,
        config: Config,
        credential: &Credential,
        cache: Option<&Path>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let asked = clock.elapsed();
        let known = Cache::if_there(cache, &config.repository_id).slot();
        let unlock = |known: Option<&str>| Self::unlock_with(known, (&store, &config), credential);
        let (registries, unlocked) = store.both(|| registry::listed(&store), || unlock(known.as_deref()));
        let (Unlocked { secrets, slot, was_known }, registries) = (unlocked?, registries?);
        let (copies, same_clock) = ((store.clone(), config.clone()), Arc::clone(&clock));
        let first = Self::open_by(copies, secrets, (&registries, asked), cache, same_clock);
        let (opened, slot) = match first {
            // The key in that slot does not count any more, and another one may have the same passphrase by now.
            Err(error) if was_known && error.kind() == ErrorKind::CannotUnlock => {
                let Unlocked { secrets, slot, .. } = unlock(None)?;
                (Self::open_by((store, config), secrets, (&registries, asked), cache, clock)?, slot)
            }
            first => (first?, slot),
        };
        if let Some(name) = slot {
            opened.cache.keep_slot(&name);
        }
        Ok(opened)
    }

    fn open_by(
        (store, config): (Store, Config),
        secrets: Secrets,
        (registries, asked): (&[(u64, ObjectId)], Duration),
        cache: Option<&Path>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        if config.root_public_key != secrets.root_public_key()
            || config.repository_id != secrets.repository_id()
        {
            return Err(Error::new(
                ErrorKind::CannotUnlock,
                "the key that was given belongs to another repository than the config names",
            )
            .with_remedy(
                "Check the address; if it is right, the config was replaced: `key recover --rebuild-config`",
            ));
        }
        let cache = Cache::open(cache, &config.repository_id);
        let newest = registry::newest_of(registries, &store, (&config, &secrets), &cache)?;
        // What this machine has seen since is newer than the past, and no sign that anything was removed.
        let memory = Memory::open(cache.folder().filter(|_| store.past().is_none()));
        check_newest(&newest, (&secrets, &config), &memory, &store)?;
        let registry = &newest.registry;
        let segments = Segments::new(cache.folder());
        let signer = secrets.signing_key();
        let last = registry.epochs.iter().max_by_key(|epoch| epoch.number);
        let public = |bytes: &[u8], number| SealKey::from_bytes(bytes).map(|key| (number, key));
        let metadata_public = last.map(|epoch| public(&epoch.metadata, epoch.number)).transpose()?;
        let data_public = last.map(|epoch| public(&epoch.data, epoch.number)).transpose()?;
        let numbers = registry.epochs.iter().map(|epoch| epoch.number);
        let data_keys = numbers.clone().filter_map(|n| Some((n, secrets.open_data(n)?))).collect();
        let metadata_keys = numbers.filter_map(|n| Some((n, secrets.open_metadata(n)?))).collect();
        let sections = OpenSections::default();
        Ok(Self {
            store,
            config,
            newest: RwLock::new(Known::of(newest, asked)),
            looks: Mutex::default(),
            cache,
            segments,
            memory,
            clock,
            secrets,
            signer,
            sections,
            written: Mutex::default(),
            data_keys,
            metadata_keys,
            metadata_public,
            data_public,
        })
    }

    /// The identity that unlocked it.
    #[must_use]
    pub fn identity(&self) -> IdentityId {
        self.signer.identity()
    }

    /// Signs as that identity.
    #[must_use]
    pub const fn signer(&self) -> &SigningKey {
        &self.signer
    }

    /// Its role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.secrets.role()
    }

    /// The domain that this identity backs up to.
    ///
    /// # Errors
    /// `Forbidden` when its certificate names none.
    pub fn own_domain(&self) -> Result<DomainId> {
        let me = self.identity();
        let registry = self.registry();
        let certificate = registry.certificate(&me);
        certificate.and_then(|certificate| certificate.domain).ok_or_else(|| match self.role() {
            Role::Owner => {
                Error::new(ErrorKind::Forbidden, "this owner's key was given no domain to back up to")
                    .with_remedy(
                        "Use the first owner's key, or add one with `lifeboat key add --domain main`",
                    )
            }
            _ => self.forbidden("back up", "backup"),
        })
    }

    /// Whether this key may do what only a maintainer or an owner does.
    ///
    /// # Errors
    /// `Forbidden` for every other role; `what` says what it was needed for.
    pub fn check_maintains(&self, what: &str) -> Result<()> {
        let may = matches!(self.role(), Role::Maintain | Role::Owner);
        if may { Ok(()) } else { Err(self.forbidden(what, "maintain")) }
    }

    /// Whether this key may do what needs the contents of files.
    ///
    /// # Errors
    /// `Forbidden` for every other role; `what` says what it was needed for.
    pub fn check_reads_data(&self, what: &str) -> Result<()> {
        if self.reads_data() { Ok(()) } else { Err(self.forbidden(what, "restore")) }
    }

    /// Whether this key may do what only an owner does.
    ///
    /// # Errors
    /// `Forbidden` for every other role; `what` says what it was needed for.
    pub fn check_owns(&self, what: &str) -> Result<()> {
        if self.role() == Role::Owner { Ok(()) } else { Err(self.forbidden(what, "owner")) }
    }

    /// The error for what this role may not do.
    #[must_use]
    pub fn forbidden(&self, what: &str, least: &str) -> Error {
        let role = self.role().name();
        Error::new(ErrorKind::Forbidden, format!("a key with the role {role} cannot {what}"))
            .with_remedy(format!("Use a key with the role {least}, or the recovery words"))
    }

    /// Remembers the size of an object that is about to be written.
    fn wrote(&self, id: ObjectId, length: usize) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(id, length as u64);
    }

    /// Whether the storage has another size than was written here.
    fn is_cut_short(&self, id: &ObjectId, size: u64) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(id).is_some_and(|length| *length != size)
    }

    /// Where sections of a domain belong.
    #[must_use]
    pub const fn place(&self, domain: DomainId) -> Place {
        Place { repository: self.config.repository_id, domain }
    }

    /// # Errors
    /// `Forbidden` for another domain than a backup role's own.
    pub fn index_key(&self, domain: &DomainId) -> Result<IndexKey> {
        self.secrets.index_key(domain).ok_or_else(|| self.forbidden("read the index of this domain", "audit"))
    }

    /// # Errors
    /// `Forbidden` for another domain than a backup role's own.
    pub fn node_key(&self, domain: &DomainId) -> Result<NodeKey> {
        self.secrets.node_key(domain).ok_or_else(|| self.forbidden("check manifests of this domain", "audit"))
    }

    /// # Errors
    /// `Forbidden` for audit and maintain.
    pub fn chunk_keys(&self, domain: &DomainId) -> Result<ChunkKeys> {
        self.secrets.chunk_keys(domain).ok_or_else(|| self.forbidden("check the content of files", "restore"))
    }

    /// Why there is no key of an epoch. The epoch stands in what somebody wrote, and only the registry says
    /// which there are: another one is no reason to call for a better key.
    fn no_key(&self, epoch: u32, what: &str, least: &str) -> Error {
        if self.registry().epochs.iter().any(|known| known.number == epoch) {
            let error = self.forbidden(what, least);
            let behind = self.reads_metadata() && matches!(least, "audit") || self.reads_data();
            if !behind {
                return error;
            }
            let text = format!("this key does not hold the key epoch {epoch}, which is newer");
            let registry = self.registry();
            let mine = registry.certificate(&self.identity()).map_or("NAME", |known| &known.label);
            return Error::new(ErrorKind::Forbidden, text).with_remedy(format!(
                "If it began while this ran, run it again; else an owner renews the key: `lifeboat key rotate {mine}`"
            ));
        }
        Error::damaged("a sealed object", format!("it names the key epoch {epoch}, which does not exist"))
    }

    /// # Errors
    /// `Forbidden` without the data keys; `Damaged` for an epoch that does not exist.
    pub fn data_key(&self, epoch: u32) -> Result<&OpenKey> {
        let key = self.data_keys.iter().find(|(number, _)| *number == epoch).map(|(_, key)| key);
        key.ok_or_else(|| self.no_key(epoch, "read file contents", "restore"))
    }

    /// # Errors
    /// `Forbidden` without the metadata keys; `Damaged` for an epoch that does not exist.
    pub fn metadata_key(&self, epoch: u32) -> Result<&OpenKey> {
        let key = self.metadata_keys.iter().find(|(number, _)| *number == epoch).map(|(_, key)| key);
        key.ok_or_else(|| self.no_key(epoch, "read snapshots and manifests", "audit"))
    }

    /// Whether snapshots and manifests can be read.
    #[must_use]
    pub const fn reads_metadata(&self) -> bool {
        !self.metadata_keys.is_empty()
    }

    /// Whether file contents can be read.
    #[must_use]
    pub const fn reads_data(&self) -> bool {
        !self.data_keys.is_empty()
    }

    /// What new snapshots and manifests are sealed to.
    ///
    /// # Errors
    /// The registry has no key epoch.
    pub fn metadata_public(&self) -> Result<(u32, &SealKey)> {
        let key = self.metadata_public.as_ref().map(|(number, key)| (*number, key));
        key.ok_or_else(|| Error::damaged("the registry", "it has no key epoch"))
    }

    /// What new file contents are sealed to.
    ///
    /// # Errors
    /// The registry has no key epoch.
    pub fn data_public(&self) -> Result<(u32, &SealKey)> {
        let key = self.data_public.as_ref().map(|(number, key)| (*number, key));
        key.ok_or_else(|| Error::damaged("the registry", "it has no key epoch"))
    }

    /// Checks who signed an object of a domain, and gives the role.
    ///
    /// # Errors
    /// `Damaged` when nobody whom the registry certifies for this domain signed it.
    pub fn verify_author(&self, envelope: &Envelope<'_>, domain: &DomainId) -> Result<Role> {
        self.registry().verify_author(envelope, domain)
    }
}

/// Whether a registry may be used: it can be understood, it lets whoever unlocked go on, and it is not older
/// than one that was seen.
fn check_newest(
    newest: &Newest,
    (secrets, config): (&Secrets, &Config),
    memory: &Memory,
    store: &Store,
) -> Result<()> {
    newest.registry.check_features(Use::Read)?;
    if let Err(error) = newest.registry.check_features(Use::Write) {
        store.refuse_writes(error.to_string(), error.remedy().unwrap_or_default().to_owned());
    }
    check_standing(&newest.registry, secrets, config)?;
    memory.check_registry(newest.registry.number, &newest.heads)
}

/// What the registry says about whoever unlocked, and about `config`, which nobody signs.
fn check_standing(registry: &Registry, secrets: &Secrets, config: &Config) -> Result<()> {
    let me = secrets.identity();
    let cannot = |why: &str, remedy: &str| {
        Err(Error::new(ErrorKind::CannotUnlock, format!("{why} (identity {me})")).with_remedy(remedy))
    };
    if registry.revocation(&me).is_some() {
        return cannot("this key was revoked", "Ask the owner for a new one: `lifeboat key add`");
    }
    if registry.certificate(&me).is_none_or(|certificate| certificate.role != secrets.role()) {
        let remedy = "Adding it was interrupted, or the registry was rebuilt: ask the owner for a new one";
        return cannot("this key is not in the registry", remedy);
    }
    let signed = (registry.commit_window_seconds, registry.minimum_grace_seconds);
    if signed != (config.commit_window_seconds, config.minimum_grace_seconds) {
        return Err(Error::damaged(
            "config",
            "its commit window or grace is not the one that the owner signed",
        )
        .with_remedy("Delete `config` and rebuild it with `key recover --rebuild-config`"));
    }
    Ok(())
}
