//! What the thief of a key writes: with a client's key what its role may not, and lies about packs of others; with a
//! maintain key whatever that may say, of everything at once. (Tags are added, never taken: by the first one it is known
//! here which backup it is.)

use bytes::Bytes;
use lifeboat::{
    crypto::SigningKey,
    error::Result,
    format::{
        annotation::{Annotation, LATEST, Says, TagChange},
        envelope::{self, EnvelopeHeader, RecordKind, Sealer},
        forgotten::Forgotten,
        pack::{Frame, IndexedPack, encode_index},
        role::Role,
        tombstones::Tombstones,
    },
    id::{DomainId, IdentityId, ObjectId},
    ops::repair::{self, AsideOptions, Force},
    random,
    repository::Repository,
    store::{Folder, Name},
};

use super::world::World;

/// So many annotations at once.
const MANY: u64 = 12;

/// With the key of a client: tombstones for every pack, the end of every snapshot, packs of others that are said to hold
/// something else, or what an annotation can say, in its own name, in that of others, or in nobody's.
pub(crate) fn forge(world: &World, repository: &Repository) -> Result<()> {
    let (domain, time) = (repository.own_domain()?, repository.clock.now());
    let pen = Pen { world, repository, domain };
    match world.scheduler.draw(|chance| chance.below(6)) {
        0 => {
            let packs = repository.view(&domain)?.index.packs().map(|pack| pack.id).collect();
            pen.write(RecordKind::Tombstones, &Tombstones { time, packs }.encode())
        }
        1 => {
            let snapshots = pen.snapshots()?;
            let forgotten = Forgotten::new(time, snapshots, "none");
            pen.write(RecordKind::Forgotten, &forgotten.encode())
        }
        2 => pen.write(RecordKind::Index, &encode_index(&other_packs(repository, &domain)?)),
        what => {
            let whose = match what {
                3 => Whose::Own,
                4 => Whose::Others,
                _ => Whose::Nobodys,
            };
            pen.annotations(whose)
        }
    }
}

/// Each of the packs holds what another one does, it says.
fn other_packs(repository: &Repository, domain: &DomainId) -> Result<Vec<IndexedPack>> {
    let view = repository.view(domain)?;
    let packs: Vec<_> = view.index.packs().collect();
    let said = packs.iter().zip(packs.iter().rev()).filter_map(|(pack, other)| {
        let directory = view.index.directory(other)?;
        let fits = |frame: &Frame| frame.offset + frame.length <= pack.size;
        directory.frames.iter().all(fits).then_some(())?;
        Some(IndexedPack { id: pack.id, size: pack.size, kind: other.kind, directory })
    });
    Ok(said.collect())
}

/// With a maintain key, of everything in every domain: that it dies, that it ends, more tags, or holds, at the end of time; and that
/// each hold is over, which it may not say.
pub(crate) fn usurp(world: &World, repository: &Repository) -> Result<()> {
    let what = world.scheduler.draw(|chance| chance.below(4));
    for domain in repository.registry().domains.iter().map(|domain| domain.id) {
        let (time, pen) = (repository.clock.now(), Pen { world, repository, domain });
        match what {
            0 => {
                let packs = repository.view(&domain)?.index.packs().map(|pack| pack.id).collect();
                repository.publish_tombstones(&domain, &Tombstones { time, packs })?;
            }
            1 => {
                let names = repository.snapshot_names(&domain, None)?;
                let (snapshots, places) = names.iter().map(|name| (name.id, name.place_in_chain())).unzip();
                let forgotten =
                    Forgotten { time, snapshots, reason: "none".to_owned(), places, heads: Vec::new() };
                repository.publish_forgotten(&domain, &forgotten)?;
            }
            2 => {
                let change = TagChange { add: vec!["usurped".to_owned()], ..TagChange::default() };
                let (snapshots, says) = (pen.snapshots()?, Says::Tags(change));
                repository.publish_annotation(&domain, &Annotation { time: LATEST, snapshots, says })?;
            }
            _ => {
                let (snapshots, says) = (pen.snapshots()?, Says::Hold("usurped".to_owned()));
                repository.publish_annotation(&domain, &Annotation { time: LATEST, snapshots, says })?;
                pen.annotations(Whose::Own)?;
            }
        }
    }
    Ok(())
}

/// What an owner does whom `forget` or a prune has told of annotations that nobody can read.
pub(crate) fn set_aside(world: &World, repository: &Repository) {
    let names: Vec<String> = world.record().forged.iter().cloned().collect();
    for name in names.into_iter().filter(|name| name.contains("/annotations/")) {
        let aside =
            AsideOptions { names: vec![name], reason: None, force: Force::No, mode: repair::Mode::Write };
        // Of one that is told and stops nobody it may be refused.
        drop(repair::set_aside(repository, &aside));
    }
}

/// In whose name something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Own,
    /// Of somebody who may; the signature cannot be theirs.
    Others,
    /// Well signed by a key that no registry knows.
    Nobodys,
}

struct Pen<'a> {
    world: &'a World,
    repository: &'a Repository,
    domain: DomainId,
}

impl Pen<'_> {
    fn snapshots(&self) -> Result<Vec<ObjectId>> {
        let names = self.repository.snapshot_names(&self.domain, None)?;
        Ok(names.into_iter().map(|name| name.id).collect())
    }

    /// That every hold is over, that every snapshot has one more tag, and new holds.
    fn annotations(&self, whose: Whose) -> Result<()> {
        let stranger = SigningKey::from_seed(&random::bytes()?);
        let registry = self.repository.registry();
        let owner = registry.certificates.iter().find(|known| known.role == Role::Owner).unwrap();
        let (author, signer) = match whose {
            Whose::Own => (self.repository.identity(), self.repository.signer()),
            Whose::Others => (owner.identity, self.repository.signer()),
            Whose::Nobodys => (stranger.identity(), &stranger),
        };
        let folder = format!("d/{}/annotations/", self.domain);
        let there = self.world.storage.objects();
        let id = |name: &String| ObjectId::from_hex(name.strip_prefix(&folder)?);
        let said: Vec<ObjectId> = there.keys().filter_map(id).collect();
        let (time, snapshots) = (self.repository.clock.now(), self.snapshots()?);
        for number in 0..MANY {
            let says = match number % 3 {
                0 => Says::Lift(said.clone(), "over".to_owned()),
                1 => Says::Tags(TagChange { add: vec![number.to_string()], ..TagChange::default() }),
                _ => Says::Hold(number.to_string()),
            };
            let plain = Annotation { time, snapshots: snapshots.clone(), says }.encode();
            self.put(RecordKind::Annotation, (author, signer), &plain)?;
        }
        Ok(())
    }

    fn write(&self, kind: RecordKind, plain: &[u8]) -> Result<()> {
        self.put(kind, (self.repository.identity(), self.repository.signer()), plain)
    }

    fn put(&self, kind: RecordKind, (author, signer): (IdentityId, &SigningKey), plain: &[u8]) -> Result<()> {
        let Self { world, repository, domain } = self;
        let repository_id = repository.config.repository_id;
        let header = EnvelopeHeader {
            kind,
            repository: repository_id,
            domain: *domain,
            author,
            sequence: 0,
            epoch: 0,
        };
        let sealed = if kind == RecordKind::Annotation {
            let (epoch, public) = repository.metadata_public()?;
            envelope::seal(&EnvelopeHeader { epoch, ..header }, &Sealer::Public(public), signer, plain)?
        } else {
            let key = repository.index_key(domain)?;
            envelope::seal(&header, &Sealer::Symmetric(key.as_bytes()), signer, plain)?
        };
        let id = ObjectId::new(*blake3::hash(&sealed).as_bytes());
        let name = match kind {
            RecordKind::Tombstones => Name::record(domain, Folder::Tombstones, &id),
            RecordKind::Forgotten => Name::record(domain, Folder::Forgotten, &id),
            RecordKind::Annotation => Name::record(domain, Folder::Annotations, &id),
            _ => Name::index(domain, &repository.identity(), &id),
        };
        world.record().forged.insert(name.to_string());
        repository.store.create(&name, Bytes::from(sealed))
    }
}
