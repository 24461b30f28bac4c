//! A repository: what `init` makes, what unlocking gives, and the keys that everything below it needs.

use std::{fmt, path::Path, sync::Arc};

use bytes::Bytes;

use self::{
    cache::Cache,
    index::Segments,
    memory::Memory,
    registry::Newest,
    section::{OpenSections, Place},
};
use crate::{
    clock::Clock,
    crypto::{ChunkKeys, IndexKey, NodeKey, OpenKey, RootSecret, SealKey, SigningKey},
    error::{Error, ErrorKind, Result},
    format::{
        config::Config,
        envelope::Envelope,
        registry::Registry,
        role::Role,
        secrets::Secrets,
        slot::{KdfParameters, Slot},
    },
    id::{DomainId, IdentityId},
    limits,
    store::{Name, Store},
};

pub mod cache;
pub mod commit;
mod content;
pub mod index;
pub mod manifest;
pub mod memory;
pub mod pack_writer;
pub mod reader;
pub mod records;
pub mod registry;
pub mod section;
pub mod snapshots;
pub mod unlock;

pub mod view;

/// Random bytes.
///
/// # Errors
/// The system has none.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::new(ErrorKind::Failed, "the system gave no random numbers").with_source(e))?;
    Ok(bytes)
}

/// What `init` decides for ever.
#[derive(Clone, Copy, Debug)]
pub struct InitOptions {
    /// The commit window of PROTOCOL in seconds.
    pub commit_window_seconds: u64,
    /// The smallest grace in seconds.
    pub minimum_grace_seconds: u64,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self { commit_window_seconds: 600, minimum_grace_seconds: 72 * 3600 }
    }
}

/// An unlocked repository.
pub struct Repository {
    /// Where its objects are.
    pub store: Store,
    /// What anyone can read of it.
    pub config: Config,
    /// The newest registry.
    pub registry: Registry,
    /// The local cache.
    pub cache: Cache,
    /// What index objects say, ready to be asked.
    pub segments: Segments,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    memory: Memory,
    secrets: Secrets,
    signer: SigningKey,
    sections: OpenSections,
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

impl Repository {
    /// Makes a repository: the slot and the registry first, `config` last, since that is what makes it one.
    ///
    /// # Errors
    /// There is one already; storage trouble.
    pub fn create(
        store: &Store,
        root: &RootSecret,
        passphrase: &str,
        options: InitOptions,
        clock: &dyn Clock,
    ) -> Result<()> {
        match store.read(&Name::config(), limits::RECORD_BYTES_MAX) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => {
                return Err(Error::new(
                    ErrorKind::Failed,
                    format!("{} holds a repository already", store.location_text()),
                )
                .with_remedy("Choose another place, or leave out `init`"));
            }
        }
        let secrets = Secrets::owner(root);
        let slot = Slot::seal_passphrase(&secrets, passphrase, KdfParameters::default())?;
        store.create(&Name::slot(&slot.name()), Bytes::from(slot.encode()))?;
        let (name, _, sealed) =
            registry::seal_registry(root, &registry::first_registry(root, options, clock)?)?;
        store.create(&name, sealed)?;
        let config = Config {
            format: 1,
            repository_id: root.repository_id(),
            root_public_key: root.signing_key().verifying_key().to_bytes(),
            commit_window_seconds: options.commit_window_seconds,
            minimum_grace_seconds: options.minimum_grace_seconds,
        };
        store.create(&Name::config(), Bytes::from(config.encode()))
    }

    /// Reads `config` without trusting it yet.
    ///
    /// # Errors
    /// `NoRepository` when there is none.
    pub fn read_config(store: &Store) -> Result<Config> {
        match store.read(&Name::config(), limits::RECORD_BYTES_MAX) {
            Ok(bytes) => Config::decode(&bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::new(
                ErrorKind::NoRepository,
                format!("there is no repository at {}", store.location_text()),
            )
            .with_remedy("Check the address, or create one with `lifeboat init`")),
            Err(error) => Err(error),
        }
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
        if config.root_public_key != secrets.root_public_key()
            || config.repository_id != secrets.repository_id()
        {
            return Err(Error::new(
                ErrorKind::CannotUnlock,
                "the key that was given belongs to another repository than the config names",
            )
            .with_remedy(
                "Check the address; if it is right, the config was replaced: `key recover --config`",
            ));
        }
        let Newest { registry, heads } = registry::newest(&store, &config, &secrets)?;
        registry.check_features()?;
        check_standing(&registry, &secrets, &config)?;
        let cache = Cache::open(cache, &config.repository_id);
        let memory = Memory::open(cache.folder());
        memory.check_registry(registry.number, &heads)?;
        let segments = Segments::new(cache.folder());
        let signer = secrets.signing_key();
        let newest = registry.epochs.iter().max_by_key(|epoch| epoch.number);
        let public = |bytes: &[u8], number| SealKey::from_bytes(bytes).map(|key| (number, key));
        let metadata_public = newest.map(|epoch| public(&epoch.metadata, epoch.number)).transpose()?;
        let data_public = newest.map(|epoch| public(&epoch.data, epoch.number)).transpose()?;
        let numbers = registry.epochs.iter().map(|epoch| epoch.number);
        let data_keys = numbers.clone().filter_map(|n| Some((n, secrets.open_data(n)?))).collect();
        let metadata_keys = numbers.filter_map(|n| Some((n, secrets.open_metadata(n)?))).collect();
        let sections = OpenSections::default();
        Ok(Self {
            store,
            config,
            registry,
            cache,
            segments,
            memory,
            clock,
            secrets,
            signer,
            sections,
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
        let certificate = self.registry.certificates.iter().find(|certificate| certificate.identity == me);
        certificate
            .and_then(|certificate| certificate.domain)
            .ok_or_else(|| self.forbidden("back up", "backup"))
    }

    /// The error for what this role may not do.
    #[must_use]
    pub fn forbidden(&self, what: &str, least: &str) -> Error {
        let role = self.role().name();
        Error::new(ErrorKind::Forbidden, format!("a key with the role {role} cannot {what}"))
            .with_remedy(format!("Use a key with the role {least}, or the recovery words"))
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

    /// # Errors
    /// `Forbidden` without the data keys.
    pub fn data_key(&self, epoch: u32) -> Result<&OpenKey> {
        let key = self.data_keys.iter().find(|(number, _)| *number == epoch).map(|(_, key)| key);
        key.ok_or_else(|| self.forbidden("read file contents", "restore"))
    }

    /// # Errors
    /// `Forbidden` without the metadata keys.
    pub fn metadata_key(&self, epoch: u32) -> Result<&OpenKey> {
        let key = self.metadata_keys.iter().find(|(number, _)| *number == epoch).map(|(_, key)| key);
        key.ok_or_else(|| self.forbidden("read snapshots and manifests", "audit"))
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
        self.registry.verify_author(envelope, domain)
    }
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
        .with_remedy("Delete `config` and rebuild it with `key recover --config`"));
    }
    Ok(())
}
