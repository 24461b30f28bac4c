//! A repository in memory: its objects can be forked, lost and put back, and it has keys of every role.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::Arc;

use bytes::Bytes;
use lifeboat::{
    clock::SystemClock,
    crypto::RootSecret,
    error::Result,
    format::role::Role,
    ops::key::{self, AddOptions, By},
    repository::{InitOptions, Repository, snapshots::KnownSnapshot, unlock::Credential},
    store::{Name, Prefix, Store},
};
use object_store::{ObjectStore, memory::InMemory};

use super::{intercepted::Intercepted, lab};

/// The longest object that is looked at, in bytes.
const OBJECT_BYTES_MAX: usize = 1 << 28;

pub(crate) struct Ram {
    pub(crate) objects: InMemory,
    pub(crate) root: RootSecret,
}

pub(crate) fn store_of(objects: Arc<dyn ObjectStore>) -> Store {
    Store::from_object_store(objects, "", lab::options(Arc::new(SystemClock), Arc::default(), 0)).unwrap()
}

impl Ram {
    pub(crate) fn new() -> Self {
        let ram = Self { objects: InMemory::new(), root: RootSecret::generate().unwrap() };
        let init = InitOptions::default();
        Repository::create(&ram.store(), &ram.root, "right", init, &SystemClock).unwrap();
        ram
    }

    /// The same, which goes its own way from here on.
    pub(crate) fn fork(&self) -> Self {
        Self { objects: self.objects.fork(), root: RootSecret::from_words(&self.root.words()).unwrap() }
    }

    pub(crate) fn store(&self) -> Store {
        store_of(Arc::new(self.objects.clone()))
    }

    pub(crate) fn owner(&self) -> Arc<Repository> {
        Arc::new(lab::open(&self.store(), &self.root).unwrap())
    }

    /// Its store, of which every call can be seen.
    pub(crate) fn watched(&self) -> Arc<Intercepted> {
        Intercepted::watching(Arc::new(self.objects.clone()))
    }

    /// The owner over a store that is watched.
    pub(crate) fn over(&self, watched: &Arc<Intercepted>) -> Result<Arc<Repository>> {
        lab::open(&store_of(Arc::<Intercepted>::clone(watched)), &self.root).map(Arc::new)
    }

    /// Opened with a new key of this role; one that backs up does it to the owner's domain.
    pub(crate) fn add_key(&self, role: Role, label: &str) -> Arc<Repository> {
        let domain = (role == Role::Backup).then(|| "main".to_owned());
        let options =
            AddOptions { role, label: label.to_owned(), domain, shared: false, unlock: By::AccessKey };
        let access = key::add(&self.owner(), &options).unwrap().access_key.unwrap();
        let credential = Credential::AccessKey(access.text());
        Arc::new(lab::open_with(&self.store(), &credential, None).unwrap())
    }

    /// Its snapshots, none of them damaged.
    #[track_caller]
    pub(crate) fn snapshots(&self) -> Vec<KnownSnapshot> {
        let (known, damaged) = self.owner().snapshots().unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        known
    }

    /// Names with this in them.
    pub(crate) fn names(&self, part: &str) -> Vec<Name> {
        let listed = self.store().list(&Prefix::all()).unwrap().into_iter();
        let there = listed.filter(|listed| listed.name.contains(part));
        there.map(|listed| Name::parse(&listed.name).unwrap()).collect()
    }

    pub(crate) fn bytes(&self, name: &Name) -> Vec<u8> {
        self.store().read(name, OBJECT_BYTES_MAX).unwrap().to_vec()
    }

    /// Puts other bytes under a name.
    pub(crate) fn put(&self, name: &Name, bytes: Vec<u8>) {
        self.store().delete(name).unwrap();
        self.store().create(name, Bytes::from(bytes)).unwrap();
    }

    /// Turns a bit of an object.
    pub(crate) fn flip(&self, name: &Name, at: usize) {
        let mut bytes = self.bytes(name);
        bytes[at] ^= 1;
        self.put(name, bytes);
    }
}
