//! The envelope of every record: sealed, and signed outside the seal, so that a host without the keys
//! can check who wrote it. Layout (bytes): magic 4, version 1, suite 1, kind 1, sealing 1, author's key 32,
//! sequence 8, epoch 4, salt 32, encapsulation 1120 (public sealing only), commitment 32, length of the
//! ciphertext 4, ciphertext, signature 64.

use zeroize::Zeroizing;

use super::wire::{Reader, Writer};
use crate::{
    crypto::{
        FrameKey, OpenKey, SealKey, SigningKey, VerifyingKey,
        seal::{ENCAPSULATION_LEN, Encapsulation},
        sign::SIGNATURE_LEN,
    },
    error::{Error, ErrorKind, Result},
    id::{DomainId, IdentityId, RepositoryId},
    limits, random,
};

const MAGIC: [u8; 4] = *b"LFBT";
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const AUTHOR_LEN: usize = 32;
const SYMMETRIC: u8 = 1;
const PUBLIC: u8 = 2;
const CONTEXT: &[u8] = b"lifeboat v1 record";
/// More than all of an envelope but its plaintext.
const OVERHEAD_MAX: usize = 2 << 10;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// The registry.
    Registry = 1,
    /// The directory of a pack.
    Directory = 2,
    /// An index object.
    Index = 3,
    /// A snapshot.
    Snapshot = 4,
    /// A run.
    Run = 5,
    /// An attestation.
    Attestation = 6,
    /// An annotation.
    Annotation = 7,
    /// A batch of forgotten snapshots.
    Forgotten = 8,
    /// A batch of packs that are to die.
    Tombstones = 9,
    /// An object set aside.
    Quarantine = 10,
    /// Evidence of a drill, a check or usage.
    Evidence = 11,
}

impl RecordKind {
    /// The largest object of the kind that is read: a larger one must not be written.
    #[must_use]
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Directory | Self::Index => limits::INDEX_BYTES_MAX,
            _ => limits::RECORD_BYTES_MAX,
        }
    }
}

/// Where a record belongs and who wrote it. The author's whole verifying key is stored: so a host without
/// the registry can check the signature, and a lost registry can be rebuilt. Repository and domain are signed and authenticated, not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// What it is.
    pub kind: RecordKind,
    /// The repository.
    pub repository: RepositoryId,
    /// The domain; zeros for what belongs to none.
    pub domain: DomainId,
    /// Who signed it.
    pub author: IdentityId,
    /// Its number in a chain; 0 for what is in none.
    pub sequence: u64,
    /// The key epoch it is sealed to; 0 for symmetric sealing.
    pub epoch: u32,
}

/// What seals.
#[derive(Clone, Copy, Debug)]
pub enum Sealer<'a> {
    /// A key that the reader holds too.
    Symmetric(&'a [u8; 32]),
    /// The public half of a key pair.
    Public(&'a SealKey),
}

/// What opens.
#[expect(missing_debug_implementations, reason = "it holds keys and a closure")]
#[derive(Clone, Copy)]
pub enum Opener<'a> {
    /// The key that sealed.
    Symmetric(&'a [u8; 32]),
    /// Gives the private key of an epoch.
    Private(&'a dyn Fn(u32) -> Option<&'a OpenKey>),
}

fn place(repository: &RepositoryId, domain: &DomainId) -> Vec<u8> {
    [CONTEXT, repository.as_bytes(), domain.as_bytes()].concat()
}

/// Bytes of a symmetrically sealed record whose plaintext has that many.
#[must_use]
pub const fn symmetric_length(plain: usize) -> usize {
    4 + 4 + AUTHOR_LEN + 8 + 4 + 32 + 32 + 4 + plain + limits::TAG_LEN + SIGNATURE_LEN
}

/// Seals and signs a record.
///
/// # Errors
/// No randomness; a plaintext beyond every limit.
pub fn seal(
    header: &EnvelopeHeader,
    sealer: &Sealer<'_>,
    signer: &SigningKey,
    plain: &[u8],
) -> Result<Vec<u8>> {
    let EnvelopeHeader { kind, repository, domain, author, sequence, epoch } = header;
    let verifying = signer.verifying_key();
    if verifying.identity() != *author {
        return Err(Error::new(ErrorKind::Failed, "a record must be signed by its author"));
    }
    if plain.len() > kind.bytes_max() - OVERHEAD_MAX {
        return Err(Error::new(ErrorKind::Failed, format!("a record of the kind {kind:?} grew too large")));
    }
    let place = place(repository, domain);
    let salt: [u8; 32] = random::bytes()?;
    let mut out = Writer::new();
    out.raw(&MAGIC);
    out.raw(&[VERSION, SUITE, *kind as u8]);
    out.u8(match sealer {
        Sealer::Symmetric(_) => SYMMETRIC,
        Sealer::Public(_) => PUBLIC,
    });
    out.raw(&verifying.to_bytes());
    out.raw(&sequence.to_le_bytes());
    out.u32(*epoch);
    out.raw(&salt);
    let mut bytes = out.finish();
    let aad = [&place[..], &bytes].concat();
    let secret = match sealer {
        Sealer::Symmetric(key) => Zeroizing::new(**key),
        Sealer::Public(key) => {
            let (encapsulation, secret) = key.encapsulate(&aad)?;
            bytes.extend_from_slice(&encapsulation);
            secret
        }
    };
    let (key, commitment) = FrameKey::derive(&secret, &aad)?;
    let sealed = key.seal(0, &aad, plain)?;
    let length = u32::try_from(sealed.len())
        .map_err(|e| Error::new(ErrorKind::Failed, "a record grew beyond 4 GiB").with_source(e))?;
    bytes.extend_from_slice(&commitment);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&sealed);
    let signature = signer.sign(&[&place[..], &bytes].concat());
    bytes.extend_from_slice(&signature);
    Ok(bytes)
}

/// A record that was taken apart, its bounds checked; neither its signature nor its seal yet.
#[derive(Debug)]
pub struct Envelope<'a> {
    place: Vec<u8>,
    prefix: &'a [u8],
    signed: &'a [u8],
    author: VerifyingKey,
    sequence: u64,
    epoch: u32,
    encapsulation: Option<Box<Encapsulation>>,
    commitment: [u8; 32],
    sealed: &'a [u8],
    signature: [u8; SIGNATURE_LEN],
}

impl<'a> Envelope<'a> {
    /// Takes a record of `kind` apart.
    ///
    /// # Errors
    /// `Damaged` when it is not one.
    pub fn parse(
        bytes: &'a [u8],
        kind: RecordKind,
        repository: &RepositoryId,
        domain: &DomainId,
    ) -> Result<Self> {
        let mut reader = Reader::new(bytes, "a record");
        if reader.array()? != MAGIC || reader.array()? != [VERSION, SUITE] {
            return Err(reader.damaged("it is not a lifeboat record of format 1"));
        }
        if reader.u8()? != kind as u8 {
            return Err(reader.damaged(&format!("it is not of the kind {kind:?}")));
        }
        let sealing = reader.u8()?;
        let author = VerifyingKey::from_bytes(&reader.array()?)?;
        let sequence = u64::from_le_bytes(reader.array()?);
        let epoch = reader.u32()?;
        reader.array::<32>()?;
        let prefix_length = 8 + AUTHOR_LEN + 8 + 4 + 32;
        let encapsulation = match sealing {
            SYMMETRIC => None,
            PUBLIC => Some(Box::new(reader.array::<ENCAPSULATION_LEN>()?)),
            _ => return Err(reader.damaged("the way it is sealed is unknown")),
        };
        let commitment = reader.array()?;
        let length = reader.u32()? as usize;
        if length > limits::INDEX_BYTES_MAX {
            return Err(reader.damaged("it claims to be larger than any record"));
        }
        let sealed = reader.raw(length)?;
        let signature = reader.array()?;
        reader.finish()?;
        let (prefix, _) = bytes.split_at(prefix_length);
        let (signed, _) = bytes.split_at(bytes.len() - SIGNATURE_LEN);
        let place = place(repository, domain);
        Ok(Self {
            place,
            prefix,
            signed,
            author,
            sequence,
            epoch,
            encapsulation,
            commitment,
            sealed,
            signature,
        })
    }

    /// Who claims to have written it.
    #[must_use]
    pub fn author(&self) -> IdentityId {
        self.author.identity()
    }

    /// The key of who claims to have written it: whether that counts, the registry says.
    #[must_use]
    pub const fn author_key(&self) -> &VerifyingKey {
        &self.author
    }

    /// Its number in a chain.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The key epoch it is sealed to.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Checks the signature. No key of the repository is needed.
    ///
    /// # Errors
    /// `Damaged` when it is not that of `key`, or when `key` is not the author's.
    pub fn verify(&self, key: &VerifyingKey) -> Result<()> {
        if key.to_bytes() != self.author.to_bytes() {
            return Err(Error::damaged("a record", "it was signed by somebody else than its author"));
        }
        key.verify(&[&self.place[..], self.signed].concat(), &self.signature)
    }

    /// The plaintext.
    ///
    /// # Errors
    /// `Damaged` when it was sealed with another key or for another place, `Forbidden` without the private
    /// key of its epoch.
    pub fn open(&self, opener: &Opener<'_>) -> Result<Zeroizing<Vec<u8>>> {
        let aad = [&self.place[..], self.prefix].concat();
        let secret = match (opener, &self.encapsulation) {
            (Opener::Symmetric(key), None) => Zeroizing::new(**key),
            (Opener::Private(keys), Some(encapsulation)) => {
                let key = keys(self.epoch).ok_or_else(|| {
                    Error::new(ErrorKind::Forbidden, format!("no key of epoch {} is at hand", self.epoch))
                })?;
                key.decapsulate(encapsulation, &aad)?
            }
            _ => return Err(Error::damaged("a record", "it is not sealed in the way of its kind")),
        };
        let (key, commitment) = FrameKey::derive(&secret, &aad)?;
        if commitment != self.commitment {
            return Err(Error::damaged("a record", "it was sealed with another key"));
        }
        key.open(0, &aad, self.sealed).map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::HpkeSeed;

    fn header() -> EnvelopeHeader {
        EnvelopeHeader {
            kind: RecordKind::Run,
            repository: RepositoryId::new([1; 32]),
            domain: DomainId::new([2; 8]),
            author: signer().identity(),
            sequence: 9,
            epoch: 1,
        }
    }

    fn signer() -> SigningKey {
        SigningKey::from_seed(&[3; 32])
    }

    fn check(bytes: &[u8], seed: &HpkeSeed) -> Result<Zeroizing<Vec<u8>>> {
        let header = header();
        let envelope = Envelope::parse(bytes, header.kind, &header.repository, &header.domain)?;
        envelope.verify(&signer().verifying_key())?;
        let key = seed.open_key();
        envelope.open(&Opener::Private(&|_| Some(&key)))
    }

    #[test]
    fn a_change_of_any_byte_is_noticed() {
        let seed = HpkeSeed::from_bytes([4; 32]);
        let mut bytes = seal(&header(), &Sealer::Public(&seed.public_key()), &signer(), b"hello").unwrap();
        assert_eq!(&check(&bytes, &seed).unwrap()[..], b"hello");
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(check(&bytes, &seed).is_err(), "byte {at}");
            bytes[at] ^= 1;
        }
        assert!(check(&bytes[..bytes.len() - 1], &seed).is_err());
        assert!(check(&[&bytes[..], b"x"].concat(), &seed).is_err());
    }

    /// GCM alone would open a ciphertext that was crafted for two keys.
    #[test]
    fn a_wrong_commitment_is_refused_even_if_it_is_signed() {
        let key = [5; 32];
        let mut bytes = seal(&header(), &Sealer::Symmetric(&key), &signer(), b"hello").unwrap();
        let commitment = 8 + AUTHOR_LEN + 8 + 4 + 32;
        bytes[commitment] ^= 1;
        let end = bytes.len() - SIGNATURE_LEN;
        let place = place(&header().repository, &header().domain);
        let signature = signer().sign(&[&place[..], &bytes[..end]].concat());
        bytes[end..].copy_from_slice(&signature);
        let EnvelopeHeader { kind, repository, domain, .. } = header();
        let envelope = Envelope::parse(&bytes, kind, &repository, &domain).unwrap();
        envelope.verify(&signer().verifying_key()).unwrap();
        assert_eq!(envelope.open(&Opener::Symmetric(&key)).unwrap_err().kind(), ErrorKind::Damaged);
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let seal_as = |kind, length| {
            let header = EnvelopeHeader { kind, ..header() };
            seal(&header, &Sealer::Symmetric(&[5; 32]), &signer(), &vec![0; length])
        };
        let most = limits::RECORD_BYTES_MAX - OVERHEAD_MAX;
        assert!(seal_as(RecordKind::Snapshot, most).unwrap().len() <= limits::RECORD_BYTES_MAX);
        assert!(seal_as(RecordKind::Snapshot, most + 1).is_err());
        assert!(seal_as(RecordKind::Index, most + 1).is_ok());
    }

    #[test]
    fn a_record_counts_only_for_its_kind_repository_and_domain_and_key() {
        let key = [5; 32];
        let bytes = seal(&header(), &Sealer::Symmetric(&key), &signer(), b"hello").unwrap();
        let verifying = signer().verifying_key();
        let (repository, domain) = (header().repository, header().domain);
        let parse = |kind, repository: &RepositoryId, domain: &DomainId, key: &[u8; 32]| -> Result<Vec<u8>> {
            let envelope = Envelope::parse(&bytes, kind, repository, domain)?;
            envelope.verify(&verifying)?;
            Ok(envelope.open(&Opener::Symmetric(key))?.to_vec())
        };
        assert_eq!(parse(RecordKind::Run, &repository, &domain, &key).unwrap(), b"hello");
        assert_eq!(bytes.len(), symmetric_length(b"hello".len()));
        assert!(parse(RecordKind::Snapshot, &repository, &domain, &key).is_err());
        assert!(parse(RecordKind::Run, &RepositoryId::new([9; 32]), &domain, &key).is_err());
        assert!(parse(RecordKind::Run, &repository, &DomainId::new([9; 8]), &key).is_err());
        assert!(parse(RecordKind::Run, &repository, &domain, &[6; 32]).is_err());
    }
}
