//! Names of objects: the one place that knows where everything is. No name is a folder of another.

use std::fmt;

use crate::{
    format::pack::PackKind,
    id::{DomainId, IdentityId, ObjectId, PackId, to_hex},
};

/// The name of an object, below the root of the repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// A name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// `config`
    Config,
    /// `keys/<slot>`
    Slot(String),
    /// `registry/<n>-<id>`
    Registry {
        /// Its number.
        number: u64,
        /// The BLAKE3 of its bytes.
        id: ObjectId,
    },
    /// `d/<domain>/packs/<m or d>/<xx>/<id>`
    Pack {
        /// Its domain.
        domain: DomainId,
        /// What it holds.
        kind: PackKind,
        /// The BLAKE3 of its bytes.
        id: PackId,
    },
    /// `d/<domain>/index/<writer>/<id>`
    Index {
        /// Its domain.
        domain: DomainId,
        /// Who wrote it.
        writer: IdentityId,
        /// The BLAKE3 of its bytes.
        id: ObjectId,
    },
    /// `d/<domain>/snapshots/<identity>/<seq>-<id>`
    Snapshot {
        /// Its domain.
        domain: DomainId,
        /// Whose chain it is in.
        identity: IdentityId,
        /// Its number in the chain.
        sequence: u64,
        /// The BLAKE3 of its bytes.
        id: ObjectId,
    },
    /// `d/<domain>/runs/<identity>/<id>`
    Run {
        /// Its domain.
        domain: DomainId,
        /// Who ran.
        identity: IdentityId,
        /// The BLAKE3 of its bytes.
        id: ObjectId,
    },
    /// `d/<domain>/<folder>/<id>`
    Record {
        /// Its domain.
        domain: DomainId,
        /// What it is.
        folder: Folder,
        /// The BLAKE3 of its bytes.
        id: ObjectId,
    },
    /// `evidence/<identity>/<seq>-<id>`
    Evidence {
        /// Whose chain it is in.
        identity: IdentityId,
        /// Its number in the chain.
        sequence: u64,
        /// The BLAKE3 of its bytes.
        id: ObjectId,
    },
}

/// Folders of a domain that hold records which only some roles may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Folder {
    /// Sections that were verified.
    Attestations,
    /// Tags and legal holds.
    Annotations,
    /// Snapshots that ended.
    Forgotten,
    /// Packs that are to die.
    Tombstones,
    /// Objects set aside.
    Quarantine,
}

impl Folder {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Attestations, Self::Annotations, Self::Forgotten, Self::Tombstones, Self::Quarantine];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attestations => "attestations",
            Self::Annotations => "annotations",
            Self::Forgotten => "forgotten",
            Self::Tombstones => "tombstones",
            Self::Quarantine => "quarantine",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|folder| folder.name() == name)
    }
}

/// Digits of a number in a name, so that names sort as numbers do.
const NUMBER_DIGITS: usize = 10;

fn numbered(text: &str) -> Option<(u64, ObjectId)> {
    let (number, id) = text.split_once('-')?;
    let digits = number.len() >= NUMBER_DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
    let id = ObjectId::from_hex(id)?;
    digits.then(|| number.parse().ok())?.map(|number| (number, id))
}

impl Name {
    /// `config`
    #[must_use]
    pub fn config() -> Self {
        Self("config".to_owned())
    }

    /// `keys/<slot>`
    #[must_use]
    pub fn slot(name: &str) -> Self {
        Self(format!("keys/{name}"))
    }

    /// `registry/<n>-<id>`
    #[must_use]
    pub fn registry(number: u64, id: &ObjectId) -> Self {
        Self(format!("registry/{number:010}-{id}"))
    }

    /// `d/<domain>/packs/<m or d>/<xx>/<id>`
    #[must_use]
    pub fn pack(domain: &DomainId, kind: PackKind, id: &PackId) -> Self {
        let [first, ..] = id.as_bytes();
        Self(format!("d/{domain}/packs/{}/{}/{id}", kind.letter(), to_hex(&[*first])))
    }

    /// `d/<domain>/index/<writer>/<id>`
    #[must_use]
    pub fn index(domain: &DomainId, writer: &IdentityId, id: &ObjectId) -> Self {
        Self(format!("d/{domain}/index/{writer}/{id}"))
    }

    /// `d/<domain>/snapshots/<identity>/<seq>-<id>`
    #[must_use]
    pub fn snapshot(domain: &DomainId, identity: &IdentityId, sequence: u64, id: &ObjectId) -> Self {
        Self(format!("d/{domain}/snapshots/{identity}/{sequence:010}-{id}"))
    }

    /// `d/<domain>/runs/<identity>/<id>`
    #[must_use]
    pub fn run(domain: &DomainId, identity: &IdentityId, id: &ObjectId) -> Self {
        Self(format!("d/{domain}/runs/{identity}/{id}"))
    }

    /// What `init` tries a store with: a run of nobody, in a domain that is none. No view ever looks there,
    /// so one that a store refuses to delete does no harm.
    #[must_use]
    pub fn probe(id: &ObjectId) -> Self {
        Self::run(&DomainId::new([0; DomainId::LEN]), &IdentityId::new([0; IdentityId::LEN]), id)
    }

    /// `d/<domain>/<folder>/<id>`
    #[must_use]
    pub fn record(domain: &DomainId, folder: Folder, id: &ObjectId) -> Self {
        Self(format!("d/{domain}/{}/{id}", folder.name()))
    }

    /// `d/<domain>/tombstones/<id>`
    #[must_use]
    pub fn tombstones(domain: &DomainId, id: &ObjectId) -> Self {
        Self::record(domain, Folder::Tombstones, id)
    }

    /// `evidence/<identity>/<seq>-<id>`
    #[must_use]
    pub fn evidence(identity: &IdentityId, sequence: u64, id: &ObjectId) -> Self {
        Self(format!("evidence/{identity}/{sequence:010}-{id}"))
    }

    /// A name that this format knows, in exactly the form in which it is written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let name = Self(text.to_owned());
        name.parsed_or_none().map(|_| name)
    }

    fn parsed_or_none(&self) -> Option<Parsed> {
        let parts: Vec<&str> = self.0.split('/').collect();
        let parsed = match parts[..] {
            ["config"] => Parsed::Config,
            ["keys", slot] if !slot.is_empty() => Parsed::Slot(slot.to_owned()),
            ["registry", rest] => {
                let (number, id) = numbered(rest)?;
                Parsed::Registry { number, id }
            }
            ["d", domain, "packs", kind, _, id] => {
                let kind = match kind {
                    "d" => PackKind::Data,
                    "m" => PackKind::Metadata,
                    _ => return None,
                };
                Parsed::Pack { domain: DomainId::from_hex(domain)?, kind, id: PackId::from_hex(id)? }
            }
            ["d", domain, "index", writer, id] => Parsed::Index {
                domain: DomainId::from_hex(domain)?,
                writer: IdentityId::from_hex(writer)?,
                id: ObjectId::from_hex(id)?,
            },
            ["d", domain, "snapshots", identity, rest] => {
                let (sequence, id) = numbered(rest)?;
                let (domain, identity) = (DomainId::from_hex(domain)?, IdentityId::from_hex(identity)?);
                Parsed::Snapshot { domain, identity, sequence, id }
            }
            ["d", domain, "runs", identity, id] => Parsed::Run {
                domain: DomainId::from_hex(domain)?,
                identity: IdentityId::from_hex(identity)?,
                id: ObjectId::from_hex(id)?,
            },
            ["d", domain, folder, id] => Parsed::Record {
                domain: DomainId::from_hex(domain)?,
                folder: Folder::from_name(folder)?,
                id: ObjectId::from_hex(id)?,
            },
            ["evidence", identity, rest] => {
                let (sequence, id) = numbered(rest)?;
                Parsed::Evidence { identity: IdentityId::from_hex(identity)?, sequence, id }
            }
            _ => return None,
        };
        let again = match &parsed {
            Parsed::Config => Self::config(),
            Parsed::Slot(slot) => Self::slot(slot),
            Parsed::Registry { number, id } => Self::registry(*number, id),
            Parsed::Pack { domain, kind, id } => Self::pack(domain, *kind, id),
            Parsed::Index { domain, writer, id } => Self::index(domain, writer, id),
            Parsed::Snapshot { domain, identity, sequence, id } => {
                Self::snapshot(domain, identity, *sequence, id)
            }
            Parsed::Run { domain, identity, id } => Self::run(domain, identity, id),
            Parsed::Record { domain, folder, id } => Self::record(domain, *folder, id),
            Parsed::Evidence { identity, sequence, id } => Self::evidence(identity, *sequence, id),
        };
        (again == *self).then_some(parsed)
    }

    /// The name, taken apart.
    #[must_use]
    pub fn parsed(&self) -> Parsed {
        self.parsed_or_none().unwrap_or_else(|| unreachable!("a name is only made in a form that parses"))
    }

    /// The text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name does not contain the hash of the bytes, so that a second writer could differ.
    #[must_use]
    pub fn is_not_content_addressed(&self) -> bool {
        matches!(self.parsed_or_none(), Some(Parsed::Config | Parsed::Slot(_)))
    }
}

impl Name {
    /// Whether it is read back after it was created, whatever the storage said: where a second writer could
    /// differ, and where few objects matter much. Packs, index objects and snapshots are looked at before and
    /// after the commit instead.
    #[must_use]
    pub fn is_read_back(&self) -> bool {
        use Parsed::{Config, Evidence, Record, Registry, Slot};
        matches!(
            self.parsed_or_none(),
            Some(Config | Slot(_) | Registry { .. } | Record { .. } | Evidence { .. })
        )
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A folder of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Everything.
    #[must_use]
    pub const fn all() -> Self {
        Self(String::new())
    }

    /// Key slots.
    #[must_use]
    pub fn slots() -> Self {
        Self("keys".to_owned())
    }

    /// Registries.
    #[must_use]
    pub fn registry() -> Self {
        Self("registry".to_owned())
    }

    /// Packs of a domain.
    #[must_use]
    pub fn packs(domain: &DomainId) -> Self {
        Self(format!("d/{domain}/packs"))
    }

    /// Index objects of a domain.
    #[must_use]
    pub fn index(domain: &DomainId) -> Self {
        Self(format!("d/{domain}/index"))
    }

    /// Snapshots of a domain.
    #[must_use]
    pub fn snapshots(domain: &DomainId) -> Self {
        Self(format!("d/{domain}/snapshots"))
    }

    /// Snapshots of one identity.
    #[must_use]
    pub fn snapshots_of(domain: &DomainId, identity: &IdentityId) -> Self {
        Self(format!("d/{domain}/snapshots/{identity}"))
    }

    /// Runs of a domain.
    #[must_use]
    pub fn runs(domain: &DomainId) -> Self {
        Self(format!("d/{domain}/runs"))
    }

    /// Where [`Name::probe`] is.
    #[must_use]
    pub fn probes() -> Self {
        Self::runs(&DomainId::new([0; DomainId::LEN]))
    }

    /// All domains.
    #[must_use]
    pub fn domains() -> Self {
        Self("d".to_owned())
    }

    /// Records of one sort in a domain.
    #[must_use]
    pub fn records(domain: &DomainId, folder: Folder) -> Self {
        Self(format!("d/{domain}/{}", folder.name()))
    }

    /// Tombstones of a domain.
    #[must_use]
    pub fn tombstones(domain: &DomainId) -> Self {
        Self::records(domain, Folder::Tombstones)
    }

    /// Evidence of everybody.
    #[must_use]
    pub fn evidence() -> Self {
        Self("evidence".to_owned())
    }

    /// The text of the prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_and_strangers_are_refused() {
        let (domain, identity) = (DomainId::new([1; 8]), IdentityId::new([2; 16]));
        let id = ObjectId::new([3; 32]);
        let names = [
            Name::config(),
            Name::slot("a-b"),
            Name::registry(7, &id),
            Name::pack(&domain, PackKind::Data, &PackId::new([4; 32])),
            Name::index(&domain, &identity, &id),
            Name::snapshot(&domain, &identity, 9, &id),
            Name::run(&domain, &identity, &id),
            Name::tombstones(&domain, &id),
            Name::evidence(&identity, 9, &id),
        ];
        let records = Folder::ALL.into_iter().map(|folder| Name::record(&domain, folder, &id));
        for name in names.into_iter().chain(records) {
            assert_eq!(Name::parse(name.as_str()), Some(name));
        }
        let pack =
            Name::pack(&domain, PackKind::Data, &PackId::new([4; 32])).as_str().replace("/04/", "/05/");
        for stranger in ["", "keys/", "config/x", "registry/1-x", "d/x/packs", "foreign.txt", pack.as_str()] {
            assert_eq!(Name::parse(stranger), None, "{stranger}");
        }
    }
}
