//! What packs say of themselves, and which of them no index lists, as the storage has it: no cache is asked. Promise:
//! what is to be listed for all was signed by somebody who may speak for every section of it, or is told apart from that.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    Repository,
    records::{Records, again_if_gone},
    view::{INDEXES_AT_ONCE, ListedPack, pack},
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        envelope::{Envelope, Opener, RecordKind},
        pack::{Directory, IndexedPack, TRAILER_LEN, Trailer},
        role::Role,
        wire::Reader,
    },
    id::{DomainId, IdentityId, PackId},
    limits,
    store::{Name, Prefix, on_each},
};

/// No directory within the limits of a pack is larger: 14 MiB of sections, frames and blobs.
const DIRECTORY_BYTES_MAX: u64 = 16 << 20;

/// The index of a domain as the storage has it.
#[derive(Debug, Default)]
pub struct StoredIndex {
    /// How many index objects count.
    pub objects: u64,
    /// How many packs are there and not set aside.
    pub packs: u64,
    /// Those of them that none lists with the size that they have; where several back up, or as what they say themselves.
    pub unlisted: BTreeMap<PackId, ListedPack>,
    /// Index objects that count for nothing and are not set aside, and why.
    pub damaged: Vec<(Name, Error)>,
    /// Records that do not count, and why.
    pub notes: Vec<Error>,
}

/// What a pack says of itself, and what that is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Whoever signed it may speak for all of it.
    Vouched(IndexedPack),
    /// This key signed it and was revoked since: it counts if every frame is found to be what it says.
    Unvouched(IndexedPack, IdentityId),
}

/// What clients say of packs.
type Claims = HashMap<(PackId, u64), HashSet<[u8; 32]>>;

/// A pack as an index names it.
fn place(pack: &IndexedPack) -> (PackId, u64) {
    (pack.id, u64::from(pack.size))
}

/// A directory, and who signed it.
struct Signed {
    directory: Directory,
    author: IdentityId,
    role: Role,
}

/// What the word of whoever signed a directory is worth.
enum Signer {
    Vouches,
    Revoked,
}

impl Repository {
    /// Reads every index object of a domain, and compares what they list with the packs that are there.
    ///
    /// # Errors
    /// Storage trouble; `Forbidden` without the index key of the domain.
    pub fn stored_index(&self, domain: &DomainId) -> Result<StoredIndex> {
        again_if_gone(|| self.read_stored_index(domain))
    }

    fn read_stored_index(&self, domain: &DomainId) -> Result<StoredIndex> {
        let mut objects = self.listed_index(domain)?;
        // After the LIST: whoever wrote one of them was certified before.
        self.look_for_registry()?;
        let Records { quarantined, ignored, .. } = self.records(domain)?;
        objects.retain(|object| !quarantined.contains(object.name.as_str()));
        let read = on_each(&objects, self.store.connections().min(INDEXES_AT_ONCE), |object| {
            self.store.progress().check()?;
            match self.read_index(domain, &object.name, object.id) {
                Ok(packs) => Ok(Ok(packs.iter().map(|pack| (place(pack), pack.digest())).collect())),
                Err(error) if error.kind() == ErrorKind::Damaged => Ok(Err(error)),
                Err(error) => Err(error),
            }
        })?;
        let mut found = StoredIndex { notes: ignored, ..StoredIndex::default() };
        let registry = self.registry();
        let speaks_for_all = |writer: &IdentityId| {
            registry.certificate(writer).is_some_and(|certificate| certificate.role != Role::Backup)
        };
        let believes_all = registry.only_writer(domain).is_some();
        let mut listed: HashSet<(PackId, u64)> = HashSet::new();
        let mut claimed = Claims::new();
        for (object, read) in objects.into_iter().zip(read) {
            match read {
                Ok(packs) => {
                    let packs: Vec<((PackId, u64), [u8; 32])> = packs;
                    found.objects += 1;
                    if believes_all || speaks_for_all(&object.writer) {
                        listed.extend(packs.into_iter().map(|(place, _)| place));
                    } else {
                        for (place, said) in packs {
                            claimed.entry(place).or_default().insert(said);
                        }
                    }
                }
                Err(error) => found.damaged.push((object.name, error)),
            }
        }
        for (id, pack) in self.store.list_as(&Prefix::packs(domain), pack)? {
            if quarantined.contains(Name::pack(domain, pack.kind, &id).as_str()) {
                continue;
            }
            found.packs += 1;
            if !listed.contains(&(id, pack.size)) {
                found.unlisted.insert(id, pack);
            }
        }
        let truly = self.truly_listed(domain, (&found.unlisted, &claimed))?;
        found.unlisted.retain(|id, _| !truly.contains(id));
        Ok(found)
    }

    /// Which packs a client lists as what they say themselves: of another one's pack it may say anything. What can be listed in no
    /// other way stays as it is.
    fn truly_listed(
        &self,
        domain: &DomainId,
        (packs, claimed): (&BTreeMap<PackId, ListedPack>, &Claims),
    ) -> Result<HashSet<PackId>> {
        let claims = packs.iter().filter_map(|(id, pack)| Some((id, pack, claimed.get(&(*id, pack.size))?)));
        let claims: Vec<_> = claims.collect();
        let truly = self.store.each(&claims, |(id, pack, claims)| {
            self.store.progress().check()?;
            match self.listing_of(domain, (id, **pack)) {
                Ok(Listing::Vouched(own) | Listing::Unvouched(own, _)) => Ok(claims.contains(&own.digest())),
                Err(error) if error.is_damage() => Ok(true),
                Err(error) => Err(error),
            }
        })?;
        Ok(claims.iter().zip(truly).filter(|(_, is_true)| *is_true).map(|((id, ..), _)| **id).collect())
    }

    /// What an index that counts for all may say of a pack: what its own directory says, which two small requests read.
    ///
    /// # Errors
    /// `Damaged` when the pack does not end in a directory that accounts for all of it, or whoever signed that may not
    /// speak for each of its sections; storage trouble; `Forbidden` without the index key of the domain.
    pub fn listing_of(&self, domain: &DomainId, (id, listed): (&PackId, ListedPack)) -> Result<Listing> {
        let name = Name::pack(domain, listed.kind, id);
        let read = || self.read_listing(domain, (id, listed), &name);
        // A bit may have flipped on the way.
        let again = |error: Error| if error.kind() == ErrorKind::Damaged { read() } else { Err(error) };
        read().or_else(again).map_err(|error| error.context(&name))
    }

    fn read_listing(
        &self,
        domain: &DomainId,
        (id, listed): (&PackId, ListedPack),
        name: &Name,
    ) -> Result<Listing> {
        let ListedPack { kind, size, stored: _ } = listed;
        let small = u32::try_from(size).ok().filter(|size| *size as usize <= limits::PACK_BYTES_MAX);
        let Some((small, end)) = small.zip(size.checked_sub(TRAILER_LEN as u64)) else {
            return Err(Error::damaged("a pack", format!("no pack has {size} bytes")));
        };
        let Trailer { offset, length } =
            Trailer::decode_last(&self.store.read_range(name, end..size)?, size)?;
        if u64::from(length) > DIRECTORY_BYTES_MAX {
            return Err(Error::damaged("a directory", "it is larger than any may be"));
        }
        let sealed = self.store.read_range(name, u64::from(offset)..end)?;
        let signed = self.open_directory(domain, &sealed)?;
        let signer = self.check_signer(&signed)?;
        let directory = signed.directory;
        if !directory.fits(kind, small) || directory.pack_length() as u64 != size {
            return Err(Error::damaged("a directory", "it is not that of this pack"));
        }
        let pack = IndexedPack { id: *id, size: small, kind, directory };
        Ok(match signer {
            Signer::Vouches => Listing::Vouched(pack),
            Signer::Revoked => Listing::Unvouched(pack, signed.author),
        })
    }

    /// A maintainer who lists a pack speaks for all of its sections. So a client must not get a section listed that
    /// bears another one's name; and a maintainer's key that was revoked says nothing any more.
    fn check_signer(&self, Signed { directory, author, role }: &Signed) -> Result<Signer> {
        let is_revoked = self.registry().revocation(author).is_some();
        let own = directory.sections.iter().all(|section| section.author == *author);
        match role {
            Role::Maintain | Role::Owner if own || !is_revoked => Ok(Signer::Vouches),
            Role::Backup if own => Ok(Signer::Vouches),
            Role::Maintain | Role::Owner => Ok(Signer::Revoked),
            Role::Backup => {
                let why = format!("{author}, who signed it, may not speak for sections of others");
                Err(Error::damaged("a directory", why))
            }
            Role::Audit | Role::Restore => {
                let why = format!("a key with the role {} may not write it", role.name());
                Err(Error::damaged("a directory", why))
            }
        }
    }

    /// The directory that a whole pack itself holds, its signature checked.
    ///
    /// # Errors
    /// `Damaged` when these are not the bytes of a pack of this domain; `Forbidden` without its index key.
    pub fn own_directory(&self, domain: &DomainId, pack: &[u8]) -> Result<Directory> {
        let trailer = Trailer::decode(pack)?;
        let start = trailer.offset as usize;
        let sealed = pack
            .get(start..start + trailer.length as usize)
            .ok_or_else(|| Error::damaged("a directory", "it is not in its pack"))?;
        Ok(self.open_directory(domain, sealed)?.directory)
    }

    fn open_directory(&self, domain: &DomainId, sealed: &[u8]) -> Result<Signed> {
        let envelope = Envelope::parse(sealed, RecordKind::Directory, &self.config.repository_id, domain)?;
        let role = self.verify_author(&envelope, domain)?;
        let plain = envelope.open(&Opener::Symmetric(self.index_key(domain)?.as_bytes()))?;
        let mut reader = Reader::new(&plain, "a directory");
        let directory = Directory::decode_from(&mut reader)?;
        reader.finish()?;
        Ok(Signed { directory, author: envelope.author(), role })
    }
}
