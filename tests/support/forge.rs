//! A pack that is well made and lies.

use bytes::Bytes;
use lifeboat::{
    compress::Codec,
    format::{
        envelope::{self, EnvelopeHeader, RecordKind, Sealer},
        pack::{Blob, Directory, Frame, IndexedPack, PackKind, TRAILER_LEN, Trailer, padded_length},
        wire::Writer,
    },
    id::PackId,
    repository::{Repository, section::Section},
    store::Name,
};

/// Stores a pack that is well made in every way, but holds `plain` under the ids of `blobs`, and lists it.
pub(crate) fn forge(repository: &Repository, kind: PackKind, blobs: Vec<Blob>, plain: &[u8]) -> IndexedPack {
    let domain = repository.own_domain().unwrap();
    let public = match kind {
        PackKind::Data => repository.data_public(),
        PackKind::Metadata => repository.metadata_public(),
    };
    let me = repository.identity();
    let (header, section) = Section::create(repository.place(domain), kind, me, public.unwrap()).unwrap();
    let sealed = section.seal_frame(0, plain).unwrap();
    let mut bytes = header.encode();
    let frame = Frame {
        section: 0,
        counter: 0,
        offset: bytes.len().try_into().unwrap(),
        length: sealed.len().try_into().unwrap(),
        codec: Codec::Raw,
        hash: *blake3::hash(&sealed).as_bytes(),
        blobs,
    };
    let directory = Directory { sections: vec![header], frames: vec![frame] };
    let mut listed = Writer::new();
    directory.encode_into(&mut listed);
    let envelope = EnvelopeHeader {
        kind: RecordKind::Directory,
        repository: repository.config.repository_id,
        domain,
        author: me,
        sequence: 0,
        epoch: 0,
    };
    let key = repository.index_key(&domain).unwrap();
    let sealer = Sealer::Symmetric(key.as_bytes());
    let listed = envelope::seal(&envelope, &sealer, repository.signer(), &listed.finish()).unwrap();
    bytes.extend(sealed);
    let end = listed.len() + TRAILER_LEN;
    bytes.resize(padded_length(bytes.len() + end) - end, 0);
    let trailer =
        Trailer { offset: bytes.len().try_into().unwrap(), length: listed.len().try_into().unwrap() };
    bytes.extend(listed);
    bytes.extend(trailer.encode());
    let id = PackId::new(*blake3::hash(&bytes).as_bytes());
    let size = bytes.len().try_into().unwrap();
    repository.store.create(&Name::pack(&domain, kind, &id), Bytes::from(bytes)).unwrap();
    let listed = IndexedPack { id, size, kind, directory };
    repository.publish_index(&domain, std::slice::from_ref(&listed)).unwrap();
    listed
}
