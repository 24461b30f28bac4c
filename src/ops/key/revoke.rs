//! The end of an identity. The registry says what it left valid, so whoever holds the key afterwards can
//! add objects as long as the storage lets it in, and none of them counts. (An added owner has had the
//! root: revoking it stops its own chain, no more. `docs/decisions/0003-keys.md` says what helps.)

use super::named;
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        registry::{Certificate, Registry, Revocation},
        slot::identity_of,
    },
    id::{IdentityId, ObjectId},
    limits,
    repository::{
        Repository,
        records::{Dropped, Left},
        unlock::slot_names,
    },
    store::Name,
};

/// The last snapshot that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastGood {
    /// The last one that is there and well signed.
    Head,
    /// The one with this number: what came later may be the thief's.
    Sequence(u64),
}

/// Whom to revoke.
#[derive(Clone, Debug)]
pub struct RevokeOptions {
    /// A label, an identity or its first 8 digits.
    pub who: String,
    /// What stays valid.
    pub last_good: LastGood,
}

/// What a revocation left valid and what it removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The identity.
    pub identity: IdentityId,
    /// The last snapshot that counts; 0 for none.
    pub last_sequence: u64,
    /// Index objects and other records that still count.
    pub records: usize,
    /// What counts no longer because there was too much of it; nothing if the key had been revoked before.
    pub dropped: Dropped,
    /// The slots that were removed.
    pub slots: Vec<String>,
    /// Whether the storage lacks the last snapshot that counts: it is known from elsewhere.
    pub is_end_gone: bool,
}

/// Revokes an identity. Run again after an interruption, it removes the slots that are left; with a lower number it leaves less
/// valid than before.
///
/// # Errors
/// `Forbidden` for all but owners; `Usage` for the identity of the recovery words, for a higher number than before, and for a
/// number with a label that several keys have or had; storage trouble.
pub fn revoke(repository: &Repository, options: &RevokeOptions) -> Result<Revoked> {
    let root = repository.root("revoke keys")?;
    let registry = repository.newest_registry()?.registry;
    let known = named(&registry, &options.who)?;
    let identity = known.identity;
    if identity == root.owner_identity().identity() {
        return Err(Error::new(ErrorKind::Usage, "this is the last owner: the recovery words open it")
            .with_remedy(
                "If the words were stolen, only a new repository helps: copy the snapshots to one",
            ));
    }
    if identity == repository.identity() {
        return Err(Error::new(ErrorKind::Usage, "this is the key that is in use")
            .with_remedy("Use another owner's key, or the recovery words"));
    }
    if let LastGood::Sequence(_) = options.last_good {
        refuse_shared_label(&registry, &options.who)?;
    }
    let (revocation, dropped) = match registry.revocation(&identity) {
        Some(before) => {
            (narrowed(repository, (&registry, known), before, options.last_good)?, Dropped::default())
        }
        None => {
            // The chain before the records: every index object of a snapshot that counts is older than it.
            let (last_sequence, last) = last_good(repository, &registry, known, options.last_good)?;
            let Left { records, dropped, listed } = repository.records_of(&registry, known)?;
            if records.len() > limits::REVOKED_RECORDS_MAX {
                let text = format!("this key has written {} records, too many to list", records.len());
                return Err(Error::new(ErrorKind::Failed, text).with_remedy(
                    "None of them may be left out. Take its storage credentials away, delete what it has flooded the \
                     folders of records below d/ with, and revoke it then",
                ));
            }
            let time = repository.clock.now();
            let revocation = Revocation { identity, last_sequence, last, time, records };
            // The registry before the slots: what the thief does from now on counts for nothing. And soon: a pack goes
            // when its tombstone is older than the grace, and one that was written meanwhile is not left valid.
            repository.change_registry_soon(listed, &|registry| {
                if registry.revocation(&identity).is_none() {
                    registry.revocations.push(revocation.clone());
                }
            })?;
            (revocation, dropped)
        }
    };
    let mut slots = slot_names(&repository.store)?;
    slots.retain(|slot| identity_of(slot) == Some(identity));
    for slot in &slots {
        repository.store.delete(&Name::slot(slot))?;
    }
    let is_end_gone = match known.domain {
        Some(domain) if revocation.last_sequence > 0 => {
            let names = repository.snapshot_names(&domain, Some(&identity))?;
            !revocation.last.iter().all(|id| names.iter().any(|name| name.id == *id))
        }
        _ => false,
    };
    let Revocation { last_sequence, records, .. } = revocation;
    Ok(Revoked { identity, last_sequence, records: records.len(), dropped, slots, is_end_gone })
}

/// After `key rotate NAME` the label is that of the new key: a number that was meant for the old one would cut off good snapshots.
fn refuse_shared_label(registry: &Registry, who: &str) -> Result<()> {
    let all = registry.certificates.iter().filter(|known| known.label == who);
    let ids: Vec<String> = all.map(|known| known.identity.short()).collect();
    if ids.len() < 2 {
        return Ok(());
    }
    let what = format!("`{who}` is the label of {} keys: {}. Nothing was revoked", ids.len(), ids.join(", "));
    Err(Error::new(ErrorKind::Usage, what)
        .with_remedy("With --last-good name the one that is meant by its identity: `lifeboat key list`"))
}

/// The revocation of a key that was revoked before: with a lower number fewer of its snapshots count.
fn narrowed(
    repository: &Repository,
    (registry, known): (&Registry, &Certificate),
    before: &Revocation,
    wanted: LastGood,
) -> Result<Revocation> {
    let LastGood::Sequence(number) = wanted else { return Ok(before.clone()) };
    if number > before.last_sequence {
        let text = format!(
            "`{}` was revoked before, and its snapshots count up to number {}: a revocation is not taken back",
            known.label, before.last_sequence
        );
        return Err(Error::new(ErrorKind::Usage, text).with_remedy("Nothing was changed"));
    }
    if number == before.last_sequence {
        return Ok(before.clone());
    }
    let (last_sequence, last) = last_good(repository, registry, known, wanted)?;
    let narrower = Revocation { last_sequence, last, time: repository.clock.now(), ..before.clone() };
    repository.change_registry(&|registry| {
        let same = registry.revocations.iter_mut().find(|one| one.identity == narrower.identity);
        if let Some(wider) = same.filter(|one| one.last_sequence > last_sequence) {
            *wider = narrower.clone();
        }
    })?;
    Ok(narrower)
}

/// The last good number, and the snapshots with it. What is not well signed is passed over: else a thief
/// could block the revocation with one bad object. Where an end of the chain is known and gone the user decides.
///
/// # Errors
/// `Damaged` in that case; `Usage` when there is nothing up to the number; storage trouble.
fn last_good(
    repository: &Repository,
    registry: &Registry,
    known: &Certificate,
    wanted: LastGood,
) -> Result<(u64, Vec<ObjectId>)> {
    let Some(domain) = known.domain else { return Ok((0, Vec::new())) };
    let mut last: (u64, Vec<ObjectId>) = (0, Vec::new());
    for name in repository.snapshot_names(&domain, Some(&known.identity))?.iter().rev() {
        let over = matches!(wanted, LastGood::Sequence(limit) if name.sequence > limit);
        if over {
            continue;
        }
        if !last.1.is_empty() && name.sequence < last.0 {
            break;
        }
        match repository.check_snapshot(registry, name) {
            Ok(()) => {
                last.0 = name.sequence;
                last.1.push(name.id);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    let ends = repository.known_ends(&domain, &known.identity)?;
    match wanted {
        LastGood::Head => {
            if let Some((sequence, _)) =
                ends.iter().filter(|(sequence, id)| is_beyond((*sequence, id), &last)).max()
            {
                return Err(end_is_gone(&known.label, (last.0, *sequence)));
            }
        }
        LastGood::Sequence(limit) => {
            for (sequence, id) in ends.into_iter().filter(|(sequence, _)| *sequence <= limit) {
                if sequence > last.0 {
                    last = (sequence, vec![id]);
                } else if sequence == last.0 && !last.1.contains(&id) {
                    last.1.push(id);
                }
            }
        }
    }
    if let (LastGood::Sequence(sequence), true) = (wanted, last.0 == 0)
        && sequence > 0
    {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("this key has no good snapshot up to number {sequence}"),
        )
        .with_remedy("Look at `lifeboat snapshots`, or name number 0 to let none of them count"));
    }
    Ok(last)
}

/// Whether the end of a chain that is known is not there.
fn is_beyond((sequence, id): (u64, &ObjectId), (last, there): &(u64, Vec<ObjectId>)) -> bool {
    sequence > *last || sequence == *last && !there.contains(id)
}

/// Only a person can tell whether a thief has deleted the newest snapshots, or the owner those of the thief.
fn end_is_gone(label: &str, (there, gone): (u64, u64)) -> Error {
    let what = format!(
        "number {gone} was the last snapshot of `{label}`, and it is gone or damaged: number {there} is the last one that is there. Nothing \
         was revoked"
    );
    Error::new(ErrorKind::Damaged, what).with_remedy(format!(
        "`--last-good {gone}` leaves it counting, and whatever is below it, so that it is missed and can be put back; \
         `--last-good {there}` says that it does not count, and a prune frees what it held"
    ))
}
