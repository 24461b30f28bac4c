//! Sections: the key that seals the frames of one pack, and what opens it again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    crypto::{FrameKey, OpenKey, SealKey},
    error::{Error, Result},
    format::pack::{Frame, PackKind, SectionHeader},
    id::{DomainId, IdentityId, RepositoryId, SectionId},
    random,
};

/// Where a section belongs: part of everything that is sealed in it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The repository.
    pub repository: RepositoryId,
    /// The domain.
    pub domain: DomainId,
}

impl Place {
    /// What HPKE binds the encapsulation to.
    fn info(&self) -> Vec<u8> {
        [b"lifeboat v1 section".as_slice(), self.repository.as_bytes(), self.domain.as_bytes()].concat()
    }

    /// What the frame key is derived for, beside the encapsulated secret.
    fn context(&self, kind: PackKind, author: IdentityId, epoch: u32, salt: &[u8; 32]) -> Vec<u8> {
        let letter = [u8::try_from(u32::from(kind.letter())).unwrap_or(0)];
        [&self.info()[..], &letter, author.as_bytes(), &epoch.to_le_bytes(), salt].concat()
    }

    /// The associated data of a frame. Never a pack or an offset, so that sealed frames can move.
    fn associated_data(&self, section: &SectionId, counter: u32) -> Vec<u8> {
        let head = b"lifeboat v1 frame".as_slice();
        [head, self.repository.as_bytes(), self.domain.as_bytes(), section.as_bytes(), &counter.to_le_bytes()]
            .concat()
    }
}

/// A section that frames are sealed in or opened from.
#[derive(Debug)]
pub struct Section {
    place: Place,
    id: SectionId,
    key: FrameKey,
}

impl Section {
    /// A new section, sealed to `public`.
    ///
    /// # Errors
    /// No randomness.
    pub fn create(
        place: Place,
        kind: PackKind,
        author: IdentityId,
        (epoch, public): (u32, &SealKey),
    ) -> Result<(SectionHeader, Self)> {
        let salt = random::bytes()?;
        let (encapsulation, secret) = public.encapsulate(&place.info())?;
        let (key, commitment) = FrameKey::derive(&secret, &place.context(kind, author, epoch, &salt))?;
        let header =
            SectionHeader { kind, author, epoch, salt, encapsulation: Box::new(encapsulation), commitment };
        let id = header.id();
        Ok((header, Self { place, id, key }))
    }

    /// Opens a section with the private key of its epoch.
    ///
    /// # Errors
    /// `Damaged` when the commitment does not match.
    pub fn open(place: Place, header: &SectionHeader, private: &OpenKey) -> Result<Self> {
        let SectionHeader { kind, author, epoch, salt, encapsulation, commitment } = header;
        let secret = private.decapsulate(encapsulation, &place.info())?;
        let (key, expected) = FrameKey::derive(&secret, &place.context(*kind, *author, *epoch, salt))?;
        if expected != *commitment {
            return Err(Error::damaged("a section header", "its commitment does not match its key"));
        }
        Ok(Self { place, id: header.id(), key })
    }

    /// Seals in the memory of `plain` if that has room for the tag.
    ///
    /// # Errors
    /// AES-GCM failed.
    pub fn seal_frame(&self, counter: u32, plain: Vec<u8>) -> Result<Vec<u8>> {
        self.key.seal_in_place(u64::from(counter), &self.place.associated_data(&self.id, counter), plain)
    }

    /// # Errors
    /// `Damaged` when the ciphertext is not that of this frame of this section.
    pub fn open_frame(&self, counter: u32, sealed: &[u8]) -> Result<Vec<u8>> {
        self.key.open(u64::from(counter), &self.place.associated_data(&self.id, counter), sealed)
    }
}

/// Sections that were opened, so that each is decapsulated once.
#[derive(Debug, Default)]
pub struct OpenSections(Mutex<HashMap<SectionId, Arc<Section>>>);

impl OpenSections {
    /// At most this many stay open; then all are dropped and opened again as needed.
    const KEPT_MAX: usize = 4096;

    /// The section of `header`, opened with `private`.
    ///
    /// # Errors
    /// As [`Section::open`].
    pub fn get(&self, place: Place, header: &SectionHeader, private: &OpenKey) -> Result<Arc<Section>> {
        let id = header.id();
        if let Some(section) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(section));
        }
        let section = Arc::new(Section::open(place, header, private)?);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= Self::KEPT_MAX {
            kept.clear();
        }
        kept.insert(id, Arc::clone(&section));
        Ok(section)
    }
}

/// Checks a frame's ciphertext against the hash in its directory.
///
/// # Errors
/// `Damaged` when it differs.
pub fn check_ciphertext(frame: &Frame, sealed: &[u8]) -> Result<()> {
    if blake3::hash(sealed).as_bytes() == &frame.hash {
        Ok(())
    } else {
        Err(Error::damaged("a frame", "its bytes are not those that were written"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crypto::HpkeSeed, error::ErrorKind};

    #[test]
    fn a_section_opens_only_under_the_commitment_to_its_key() {
        let seed = HpkeSeed::from_bytes([1; 32]);
        let place = Place { repository: RepositoryId::new([2; 32]), domain: DomainId::new([3; 8]) };
        let author = IdentityId::new([4; 16]);
        let (mut header, _) =
            Section::create(place, PackKind::Data, author, (1, &seed.public_key())).unwrap();
        Section::open(place, &header, &seed.open_key()).unwrap();
        header.commitment[0] ^= 1;
        let error = Section::open(place, &header, &seed.open_key()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
}
