//! No key of AES-GCM ever seals twice with one nonce, and what is sent again is sent as it was; and the sizes of
//! objects tell nothing of what is in them.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex},
};

use futures::stream::BoxStream;
use lifeboat::{
    clock::SystemClock,
    compress::{Codec, Decompressor},
    crypto::RootSecret,
    format::{
        envelope::{Envelope, Opener, RecordKind},
        pack::{Blob, Directory, PackKind, Trailer},
        role::Role,
        wire::Reader,
    },
    id::DomainId,
    limits,
    ops::key::{self, AddOptions, By},
    repository::{
        InitOptions, Repository,
        pack_writer::{BlobKey, FinishedPack, PackKeys, PackWriter},
        section::Section,
        unlock::Credential,
    },
    store::{Name, Parsed, Prefix, Store},
};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, memory::InMemory, path::Path,
};

mod support {
    pub(crate) mod lab;
}
use support::lab::{self, Files, check_all, noise};

/// Where the commitment to the key of an envelope stands: behind the prefix, or behind the encapsulation too.
const COMMITMENT: [usize; 2] = [84, 84 + 1120];

fn store_of(objects: Arc<dyn ObjectStore>, retry_seconds: u64) -> Store {
    let options = lab::options(Arc::new(SystemClock), Arc::default(), retry_seconds);
    Store::from_object_store(objects, "", options).unwrap()
}

fn create(store: &Store, root: &RootSecret) -> Repository {
    let init = InitOptions::default();
    Repository::create(store, root, "right", init, &SystemClock).unwrap();
    lab::open(store, root).unwrap()
}

/// Another identity of this domain.
fn client(store: &Store, owner: &Repository, label: &str) -> Repository {
    let (label, domain) = (label.to_owned(), Some("office".to_owned()));
    let options = AddOptions { role: Role::Backup, label, domain, shared: false, unlock: By::AccessKey };
    let access = key::add(owner, &options).unwrap().access_key.unwrap();
    lab::open_with(store, &Credential::AccessKey(access.text()), None).unwrap()
}

/// Seals so many tiny frames as a backup does, and stores and lists their packs.
fn write_frames(repository: &Repository, count: u32) {
    let domain = repository.own_domain().unwrap();
    let (index, chunk) = (repository.index_key(&domain).unwrap(), repository.chunk_keys(&domain).unwrap());
    let (epoch, public) = repository.data_public().unwrap();
    let keys = PackKeys {
        place: repository.place(domain),
        kind: PackKind::Data,
        blobs: BlobKey::Chunk(&chunk.id),
        epoch,
        public,
        index: &index,
        signer: repository.signer(),
    };
    let writer = PackWriter::new(keys, limits::PACK_BYTES_TARGET);
    let mut decompressor = Decompressor::new().unwrap();
    let mut packs = Vec::new();
    for number in 0..count {
        let plain = number.to_le_bytes();
        let blobs = vec![Blob { id: chunk.id.id(&plain), length: 4 }];
        packs.extend(writer.add(blobs, (Codec::Raw, plain.to_vec()), &mut decompressor).unwrap());
    }
    packs.extend(writer.flush().unwrap());
    for FinishedPack { listed, pieces } in packs {
        let name = Name::pack(&domain, PackKind::Data, &listed.id);
        repository.store.create(&name, pieces.concat().into()).unwrap();
        repository.publish_index(&domain, &[listed]).unwrap();
    }
}

/// Every key that sealed something in a store, by the commitment to it, with its counters.
#[derive(Default)]
struct Sealed {
    frames: HashMap<[u8; 32], HashSet<u32>>,
    envelopes: HashSet<[u8; 32]>,
}

impl Sealed {
    fn envelope(&mut self, bytes: &[u8]) {
        let at = COMMITMENT[usize::from(bytes[7] - 1)];
        assert!(self.envelopes.insert(bytes[at..at + 32].try_into().unwrap()), "a key sealed two envelopes");
    }

    fn pack(&mut self, root: &RootSecret, repository: &Repository, domain: &DomainId, pack: &[u8]) {
        let trailer = Trailer::decode(pack).unwrap();
        let listed = &pack[trailer.offset as usize..][..trailer.length as usize];
        self.envelope(listed);
        let id = root.repository_id();
        let listed = Envelope::parse(listed, RecordKind::Directory, &id, domain).unwrap();
        let plain = listed.open(&Opener::Symmetric(root.index_root().domain(domain).as_bytes())).unwrap();
        let directory = Directory::decode_from(&mut Reader::new(&plain, "a test")).unwrap();
        for (number, header) in (0..).zip(&directory.sections) {
            let seed = match header.kind {
                PackKind::Data => root.data_seed(header.epoch),
                PackKind::Metadata => root.metadata_seed(header.epoch),
            };
            let section = Section::open(repository.place(*domain), header, &seed.open_key()).unwrap();
            let counters = self.frames.entry(header.commitment).or_default();
            assert!(counters.is_empty(), "a key sealed two sections");
            for frame in directory.frames.iter().filter(|frame| frame.section == number) {
                assert!(counters.insert(frame.counter), "a nonce was used twice");
                // The counter that is listed is the nonce that was used: else it would not open.
                if frame.counter.is_multiple_of(4096) {
                    let sealed = &pack[frame.offset as usize..][..frame.length as usize];
                    section.open_frame(frame.counter, sealed).unwrap();
                }
            }
        }
    }
}

#[test]
fn in_a_million_frames_no_key_meets_a_nonce_twice() {
    let objects = Arc::new(InMemory::new());
    let (store, root) = (store_of(objects, 0), RootSecret::generate().unwrap());
    let owner = create(&store, &root);
    let files = Files::from([("srv/file".to_owned(), noise(1, 300_000))]);
    // Two machines with the same keys of a domain, each started twice with the same content.
    for label in ["a", "b"] {
        let machine = client(&store, &owner, label);
        lab::back_up(&machine, &files).unwrap();
        write_frames(&machine, 250_000);
        write_frames(&machine, 250_000);
        lab::back_up(&machine, &files).unwrap();
    }
    let mut sealed = Sealed::default();
    for listed in store.list(&Prefix::all()).unwrap() {
        let name = Name::parse(&listed.name).unwrap();
        let bytes = store.read(&name, limits::PACK_BYTES_MAX).unwrap();
        match name.parsed() {
            Parsed::Pack { domain, .. } => sealed.pack(&root, &owner, &domain, &bytes),
            Parsed::Config | Parsed::Slot(_) => {}
            _ => sealed.envelope(&bytes),
        }
    }
    let frames: usize = sealed.frames.values().map(HashSet::len).sum();
    assert!(frames > 1_000_000 && sealed.frames.len() > 16, "{frames} in {}", sealed.frames.len());
    // Nor is a key of an envelope that of a section.
    assert!(sealed.envelopes.len() > 40 && sealed.frames.keys().all(|key| !sealed.envelopes.contains(key)));
}

/// Loses the reply to the first PUT of each name, after it was done or before, and keeps what was sent.
#[derive(Debug)]
struct Forgetful {
    inner: InMemory,
    sent: Mutex<BTreeMap<String, Vec<blake3::Hash>>>,
}

impl std::fmt::Display for Forgetful {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forgetful")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Forgetful {
    async fn put_opts(
        &self,
        to: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
        let (first, even) = {
            let mut sent = self.sent.lock().unwrap();
            let even = sent.len().is_multiple_of(2);
            let attempts = sent.entry(to.to_string()).or_default();
            attempts.push(blake3::hash(&bytes));
            (attempts.len() == 1, even)
        };
        let lost = || object_store::Error::Generic { store: "forgetful", source: "the line broke".into() };
        if first && even {
            return Err(lost());
        }
        let done = self.inner.put_opts(to, payload, options).await?;
        if first { Err(lost()) } else { Ok(done) }
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(from, options).await
    }

    fn delete_stream(
        &self,
        names: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(names)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[test]
fn what_is_sent_again_is_sent_as_it_was() {
    let objects = Arc::new(Forgetful { inner: InMemory::new(), sent: Mutex::default() });
    let (store, root) = (store_of(Arc::<Forgetful>::clone(&objects), 60), RootSecret::generate().unwrap());
    let owner = create(&store, &root);
    let files = Files::from([("srv/file".to_owned(), noise(1, 300_000))]);
    lab::back_up(&owner, &files).unwrap();
    let sent = objects.sent.lock().unwrap().clone();
    let mut again = BTreeSet::new();
    for (name, attempts) in &sent {
        assert!(attempts.iter().all(|hash| *hash == attempts[0]), "{name}");
        if attempts.len() > 1 {
            again.insert(name.split('/').find(|part| part.len() > 2 && part.len() < 16).unwrap().to_owned());
        }
    }
    assert!(again.contains("packs") && again.len() > 3, "{again:?} of {:?}", sent.keys());
    assert_eq!(check_all(&owner).unwrap().problems, []);
    let known = owner.snapshots().unwrap().0;
    assert_eq!(lab::restore(&owner, &known[0]).unwrap().0, files);
}

/// Sizes of the packs of a repository with these files, and all bytes of its objects.
fn packs_of(files: &Files) -> (Vec<u64>, Vec<u8>) {
    let (store, root) = (store_of(Arc::new(InMemory::new()), 0), RootSecret::generate().unwrap());
    lab::back_up(&create(&store, &root), files).unwrap();
    let listed = store.list(&Prefix::all()).unwrap();
    let sizes = listed.iter().filter(|object| object.name.contains("/packs/")).map(|object| object.size);
    let (mut sizes, mut all): (Vec<u64>, _) = (sizes.collect(), Vec::new());
    sizes.sort_unstable();
    for object in &listed {
        all.extend_from_slice(&store.read(&Name::parse(&object.name).unwrap(), 80 << 20).unwrap());
    }
    (sizes, all)
}

#[test]
fn sizes_of_objects_are_rounded_and_no_length_of_a_chunk_is_in_clear() {
    let one = |length: usize| Files::from([("srv/known".to_owned(), noise(1, length))]);
    for length in [1, 5000, 40_000, 61_234, 900_000, 3_000_000, 20_000_000] {
        for size in packs_of(&one(length)).0 {
            let unit = if size > 1 << 20 { 64 << 10 } else { 4 << 10 };
            assert!(size.is_multiple_of(unit), "{size} for a file of {length} bytes");
        }
    }
    // Files of one chunk, whatever the keys are: whoever knows one looks for its length, and for that of its frame.
    for (known, control) in [(61_234, 61_000), (40_000, 39_123)] {
        let [(sizes, first), (_, second)] = [packs_of(&one(known)), packs_of(&one(known))];
        assert_eq!(sizes, packs_of(&one(control)).0, "{known} and {control}");
        for length in [known, known + 16] {
            let little = u32::try_from(length).unwrap().to_le_bytes();
            let mut big = little;
            big.reverse();
            for sought in [little, big] {
                // By chance it stands in one of them, not in both.
                let holds = |all: &[u8]| all.windows(4).any(|window| window == sought);
                assert!(!holds(&first) || !holds(&second), "{length} stands in clear");
            }
        }
    }
}
