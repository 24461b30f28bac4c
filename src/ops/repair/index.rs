//! Lists again the packs that no index object lists, from their own directories, and sets aside index objects that
//! count for nothing.

use super::{
    Fault, Mode, publish,
    truth::{Truth, truth_of},
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::pack::IndexedPack,
    id::{DomainId, PackId},
    ops::prune::Packs,
    progress::Phase,
    repository::{
        Repository,
        commit::IndexBatch,
        directories::{Listing, StoredIndex},
        view::ListedPack,
    },
    store::Name,
};

/// Directories that are read at a time: each may take 20 MiB.
const DIRECTORIES_AT_ONCE: usize = 4;
/// What the record says of the index objects that are set aside.
const REASON: &str =
    "repair index: they could not be read or did not count; the packs that are there are listed again";

/// What was done in a domain, or would be.
#[derive(Debug, Default)]
pub struct IndexDone {
    /// Index objects that count.
    pub objects: u64,
    /// Packs that are there.
    pub packs: u64,
    /// Packs that are listed again.
    pub listed: Packs,
    /// Index objects that were written for them.
    pub index_written: u64,
    /// Index objects that are set aside.
    pub set_aside: Vec<Fault>,
    /// Packs that cannot be listed: what is in them is lost, as far as it is in no other.
    pub unreadable: Vec<Fault>,
    /// Packs that another key can list: whoever signed their directories was revoked, and this one cannot read whether
    /// they are true.
    pub unvouched: Vec<Fault>,
    /// What is worth knowing.
    pub notes: Vec<Error>,
}

/// What came of one domain.
#[derive(Debug)]
pub struct OfDomain {
    /// Which.
    pub id: DomainId,
    /// Its name.
    pub name: String,
    /// What was done.
    pub done: IndexDone,
}

/// Repairs the index of every domain.
///
/// # Errors
/// `Forbidden` for a role that may not; storage trouble; `Interrupted`.
pub fn index(repository: &Repository, mode: Mode) -> Result<Vec<OfDomain>> {
    repository.check_maintains("repair the index")?;
    repository.store.progress().enter(Phase::Checking);
    let registry = repository.look_for_registry()?;
    let repair = |id: &DomainId| one_domain(repository, id, mode);
    let domains = registry.domains.iter();
    domains
        .map(|domain| Ok(OfDomain { id: domain.id, name: domain.name.clone(), done: repair(&domain.id)? }))
        .collect()
}

/// Everything that is written in a domain, in its order.
fn one_domain(repository: &Repository, id: &DomainId, mode: Mode) -> Result<IndexDone> {
    let StoredIndex { objects, packs, unlisted, damaged, notes } = repository.stored_index(id)?;
    let mut done = IndexDone { objects, packs, notes, ..IndexDone::default() };
    // 1: what is there is listed, by index objects that were read back.
    let mut lister = Lister { repository, domain: id, mode, waiting: IndexBatch::default(), written: 0 };
    let unlisted: Vec<(PackId, ListedPack)> = unlisted.into_iter().collect();
    for some in unlisted.chunks(DIRECTORIES_AT_ONCE) {
        repository.store.progress().check()?;
        let read = repository
            .store
            .each(some, |(pack, listed)| unless_bad(repository.listing_of(id, (pack, *listed))))?;
        for ((pack, listed), read) in some.iter().zip(read) {
            let fault = |error: &Error| {
                let object = Name::pack(id, listed.kind, pack).as_str().to_owned();
                Fault { object, why: error.to_string() }
            };
            match with_truth(repository, id, read)? {
                Ok((listing, Truth::True)) => {
                    done.listed.add(listing.size.into());
                    lister.add(listing)?;
                }
                Ok((_, Truth::Unknown(error))) => done.unvouched.push(fault(&error)),
                // A prune deleted it meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Ok((_, Truth::False(error))) | Err(error) => done.unreadable.push(fault(&error)),
            }
        }
    }
    done.index_written = lister.finish()?;
    // 2: only then what nobody can read is set aside, so that a prune does not stop at it any more. It is to stop as
    // long as another key can list more.
    let damaged = if done.unvouched.is_empty() { damaged } else { Vec::new() };
    let objects: Vec<String> = damaged.iter().map(|(name, _)| name.as_str().to_owned()).collect();
    if mode == Mode::Write {
        publish(repository, id, &objects, REASON)?;
    }
    let faults = objects.into_iter().zip(damaged);
    done.set_aside = faults.map(|(object, (_, error))| Fault { object, why: error.to_string() }).collect();
    Ok(done)
}

/// What is wrong with a pack, or that it is gone, is a result.
fn unless_bad<T>(read: Result<T>) -> Result<Result<T>> {
    match read {
        Err(error) if !matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => Err(error),
        read => Ok(read),
    }
}

/// Whose word counts is believed; else all of the pack is read, one after the other, since each may take 80 MiB.
fn with_truth(
    repository: &Repository,
    domain: &DomainId,
    read: Result<Listing>,
) -> Result<Result<(IndexedPack, Truth)>> {
    match read {
        Ok(Listing::Vouched(pack)) => Ok(Ok((pack, Truth::True))),
        Ok(Listing::Unvouched(pack, signer)) => {
            let truth = unless_bad(truth_of(repository, domain, (&pack, &signer)))?;
            Ok(truth.map(|truth| (pack, truth)))
        }
        Err(error) => Ok(Err(error)),
    }
}

/// Collects what is to be listed until it fills an index object.
struct Lister<'a> {
    repository: &'a Repository,
    domain: &'a DomainId,
    mode: Mode,
    waiting: IndexBatch,
    written: u64,
}

impl Lister<'_> {
    fn add(&mut self, pack: IndexedPack) -> Result<()> {
        self.waiting.add(pack);
        if self.waiting.is_full() { self.publish() } else { Ok(()) }
    }

    fn publish(&mut self) -> Result<()> {
        let Some(packs) = self.waiting.take() else { return Ok(()) };
        self.written += 1;
        if self.mode == Mode::DryRun {
            return Ok(());
        }
        let (name, id) = self.repository.publish_index(self.domain, &packs)?;
        let again = "Nothing was set aside; run it again";
        match self.repository.read_index(self.domain, &name, id) {
            Ok(read) if read == packs => Ok(()),
            Ok(_) => Err(Error::new(ErrorKind::Failed, format!("{name} does not say what was written"))
                .with_remedy(again)),
            Err(error) if error.is_damage() => Err(error.with_remedy(again)),
            Err(error) => Err(error),
        }
    }

    /// Gives how many index objects were written, or would be.
    fn finish(mut self) -> Result<u64> {
        self.publish()?;
        Ok(self.written)
    }
}
