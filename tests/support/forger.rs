//! What a client can write whose key was stolen: everything is sealed and signed as it should be, and lies.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use bytes::Bytes;
use lifeboat::{
    compress::Codec,
    crypto::NodeKey,
    format::{
        entry::ChunkRef,
        envelope::{self, EnvelopeHeader, RecordKind, Sealer},
        node::Node,
        pack::{
            Blob, Directory, Frame, IndexedPack, PackKind, TRAILER_LEN, Trailer, encode_index, padded_length,
        },
        snapshot::Snapshot,
        wire::Writer,
    },
    id::{BlobId, DomainId, ObjectId, PackId},
    repository::{Repository, section::Section},
    store::Name,
};

/// A frame to be: what is sealed in it, and what its directory says.
#[derive(Clone, Debug)]
pub(crate) struct Forged {
    pub(crate) stored: Vec<u8>,
    pub(crate) codec: Codec,
    pub(crate) blobs: Vec<Blob>,
}

impl Forged {
    /// A frame of one blob, stored as it is.
    pub(crate) fn raw(id: BlobId, plain: &[u8]) -> Self {
        let blobs = vec![Blob { id, length: plain.len().try_into().unwrap() }];
        Self { stored: plain.to_vec(), codec: Codec::Raw, blobs }
    }
}

/// A sealed and signed record that says this, whatever it is.
pub(crate) fn seal(repository: &Repository, domain: DomainId, kind: RecordKind, plain: &[u8]) -> Vec<u8> {
    let header = EnvelopeHeader {
        kind,
        repository: repository.config.repository_id,
        domain,
        author: repository.identity(),
        sequence: 0,
        epoch: 0,
    };
    let key = repository.index_key(&domain).unwrap();
    envelope::seal(&header, &Sealer::Symmetric(key.as_bytes()), repository.signer(), plain).unwrap()
}

/// Stores an index object that says this, whatever it is.
pub(crate) fn index(repository: &Repository, plain: &[u8]) -> Name {
    let domain = repository.own_domain().unwrap();
    let bytes = seal(repository, domain, RecordKind::Index, plain);
    let id = ObjectId::new(*blake3::hash(&bytes).as_bytes());
    let name = Name::index(&domain, &repository.identity(), &id);
    repository.store.create(&name, Bytes::from(bytes)).unwrap();
    name
}

/// Stores a pack of these frames. What an index has to say about it is given back, and is in no index yet.
pub(crate) fn pack(
    repository: &Repository,
    kind: PackKind,
    frames: &[Forged],
    lie: impl Fn(&mut Directory),
) -> IndexedPack {
    let domain = repository.own_domain().unwrap();
    let public = match kind {
        PackKind::Data => repository.data_public(),
        PackKind::Metadata => repository.metadata_public(),
    };
    let author = repository.identity();
    let (header, section) = Section::create(repository.place(domain), kind, author, public.unwrap()).unwrap();
    let mut bytes = header.encode();
    let mut directory = Directory { sections: vec![header], frames: Vec::new() };
    for (counter, Forged { stored, codec, blobs }) in (0_u32..).zip(frames) {
        let sealed = section.seal_frame(counter, stored.clone()).unwrap();
        directory.frames.push(Frame {
            section: 0,
            counter,
            offset: bytes.len().try_into().unwrap(),
            length: sealed.len().try_into().unwrap(),
            codec: *codec,
            hash: *blake3::hash(&sealed).as_bytes(),
            blobs: blobs.clone(),
        });
        bytes.extend(sealed);
    }
    lie(&mut directory);
    let mut listed = Writer::new();
    directory.encode_into(&mut listed);
    let listed = seal(repository, domain, RecordKind::Directory, &listed.finish());
    let end = listed.len() + TRAILER_LEN;
    bytes.resize(padded_length(bytes.len() + end) - end, 0);
    let trailer =
        Trailer { offset: bytes.len().try_into().unwrap(), length: listed.len().try_into().unwrap() };
    bytes.extend(listed);
    bytes.extend(trailer.encode());
    let id = PackId::new(*blake3::hash(&bytes).as_bytes());
    let size = bytes.len().try_into().unwrap();
    repository.store.create(&Name::pack(&domain, kind, &id), Bytes::from(bytes)).unwrap();
    IndexedPack { id, size, kind, directory }
}

/// A manifest in the making.
pub(crate) struct Manifest<'a> {
    repository: &'a Repository,
    key: NodeKey,
    frames: Vec<Forged>,
}

impl<'a> Manifest<'a> {
    pub(crate) fn new(repository: &'a Repository) -> Self {
        let key = repository.node_key(&repository.own_domain().unwrap()).unwrap();
        Self { repository, key, frames: Vec::new() }
    }

    /// Adds a node under its id.
    pub(crate) fn node(&mut self, node: &Node) -> BlobId {
        self.plain(&node.encode())
    }

    /// A chunk as an honest client names it.
    pub(crate) fn chunk(&self, plain: &[u8]) -> ChunkRef {
        let keys = self.repository.chunk_keys(&self.repository.own_domain().unwrap()).unwrap();
        ChunkRef { id: keys.id.id(plain), length: plain.len().try_into().unwrap() }
    }

    /// Adds bytes under the id that a node of them has.
    pub(crate) fn plain(&mut self, plain: &[u8]) -> BlobId {
        let id = self.key.id(plain);
        self.under(id, plain)
    }

    /// Adds bytes under any id.
    pub(crate) fn under(&mut self, id: BlobId, plain: &[u8]) -> BlobId {
        self.frames.push(Forged::raw(id, plain));
        id
    }

    /// All nodes up to here share one frame, which no honest client does.
    pub(crate) fn in_one_frame(&mut self) {
        let mut all = Forged { stored: Vec::new(), codec: Codec::Raw, blobs: Vec::new() };
        for Forged { stored, blobs, .. } in self.frames.drain(..) {
            all.stored.extend(stored);
            all.blobs.extend(blobs);
        }
        self.frames.push(all);
    }

    /// Stores it.
    pub(crate) fn store(self) {
        let listed = pack(self.repository, PackKind::Metadata, &self.frames, |_| {});
        index(self.repository, &encode_index(&[listed]));
    }

    /// Stores it, and a snapshot of it behind the newest one.
    pub(crate) fn snapshot(self, root: BlobId, change: impl Fn(&mut Snapshot)) -> ObjectId {
        let repository = self.repository;
        self.store();
        snapshot(repository, root, change)
    }
}

/// Stores a snapshot behind the newest one, whose record it has but for the root.
pub(crate) fn snapshot(repository: &Repository, root: BlobId, change: impl Fn(&mut Snapshot)) -> ObjectId {
    let domain = repository.own_domain().unwrap();
    let (known, _) = repository.snapshots().unwrap();
    let last = known.iter().max_by_key(|known| known.name.sequence).unwrap();
    let mut record = Snapshot { previous: Some(last.name.id), root, ..last.record.clone() };
    change(&mut record);
    let begun = repository.clock.elapsed();
    repository.publish_snapshot(&domain, (last.name.sequence + 1, &record), begun).unwrap().unwrap().1
}
