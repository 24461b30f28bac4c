//! Sets objects aside by their names: out of every view, not deleted. What is fine is refused, since nothing takes an
//! object back.

use std::collections::{BTreeMap, HashSet, btree_map::Entry};

use super::{
    Mode, publish,
    truth::{Truth, truth_of},
};
use crate::{
    error::{Error, ErrorKind, Result},
    id::DomainId,
    limits,
    progress::Phase,
    repository::{
        Repository, directories::Listing, runs::RunName, snapshots::SnapshotName, view::ListedPack,
    },
    store::{Folder, Listed, Name, Parsed},
};

/// What to do about an object with which nothing is wrong, or a snapshot that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Refuse.
    No,
    /// The user knows better.
    Yes,
}

/// What to set aside.
#[derive(Clone, Debug)]
pub struct AsideOptions {
    /// Names of objects.
    pub names: Vec<String>,
    /// Why, for who reads the record later; else what was found.
    pub reason: Option<String>,
    /// What about those that are fine.
    pub force: Force,
    /// Whether anything is written.
    pub mode: Mode,
}

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its name.
    pub object: String,
    /// What is wrong with it.
    pub why: String,
    /// What comes of setting it aside.
    pub effect: &'static str,
    /// It was set aside before.
    pub already: bool,
}

/// How an object is found.
enum State {
    Wrong(String),
    Fine,
    Gone,
}

/// Sets objects aside. All of them, or none.
///
/// # Errors
/// `Usage` when one is no object of a domain, is not there, or is fine; `Forbidden` for a role that may not; storage
/// trouble.
pub fn set_aside(repository: &Repository, options: &AsideOptions) -> Result<Vec<Verdict>> {
    repository.check_maintains("set objects aside")?;
    repository.store.progress().enter(Phase::Checking);
    repository.look_for_registry()?;
    let mut aside: BTreeMap<DomainId, HashSet<String>> = BTreeMap::new();
    let mut wanted: BTreeMap<DomainId, Vec<Verdict>> = BTreeMap::new();
    for text in &options.names {
        repository.store.progress().check()?;
        let (name, domain) = known(repository, text)?;
        let before = match aside.entry(domain) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(repository.records(&domain)?.quarantined),
        };
        let verdict = if before.contains(text) {
            let (object, why) = (text.clone(), "it is set aside already".to_owned());
            Verdict { object, why, effect: "", already: true }
        } else {
            judge(repository, (&name, &domain), options.force)?
        };
        before.insert(text.clone());
        wanted.entry(domain).or_default().push(verdict);
    }
    for (domain, verdicts) in &wanted {
        let new = || verdicts.iter().filter(|verdict| !verdict.already);
        let objects: Vec<String> = new().map(|verdict| verdict.object.clone()).collect();
        let found: Vec<&str> = new().map(|verdict| verdict.why.as_str()).collect();
        if options.mode == Mode::Write {
            publish(repository, domain, &objects, options.reason.as_deref().unwrap_or(&found.join("; ")))?;
        }
    }
    Ok(wanted.into_values().flatten().collect())
}

fn refused(what: &str, remedy: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, format!("{what}, so nothing was set aside")).with_remedy(remedy)
}

/// The name of an object that can be set aside at all, and its domain.
fn known(repository: &Repository, text: &str) -> Result<(Name, DomainId)> {
    let name = Name::parse(text).ok_or_else(|| {
        refused(&format!("`{text}` is no name of an object"), "Give it as `lifeboat check` shows it")
    })?;
    let domain = match name.parsed() {
        Parsed::Pack { domain, .. }
        | Parsed::Index { domain, .. }
        | Parsed::Snapshot { domain, .. }
        | Parsed::Run { domain, .. }
        | Parsed::Record { domain, .. } => domain,
        Parsed::Config | Parsed::Slot(_) | Parsed::Registry { .. } | Parsed::Evidence { .. } => {
            let remedy = "Only objects below `d/` are. For `config` and keys there is `lifeboat key recover`";
            return Err(refused(&format!("{name} cannot be set aside"), remedy));
        }
    };
    if !repository.registry().domains.iter().any(|known| known.id == domain) {
        return Err(refused(
            &format!("there is no domain {domain}"),
            "Give the name as `lifeboat check` shows it",
        ));
    }
    Ok((name, domain))
}

fn judge(repository: &Repository, (name, domain): (&Name, &DomainId), force: Force) -> Result<Verdict> {
    let parsed = name.parsed();
    let state = look(repository, name, domain)?;
    let effect = effect(&parsed, &state);
    let why = match (state, force) {
        (State::Wrong(why), _) => why,
        (State::Fine, Force::Yes) if matches!(parsed, Parsed::Pack { .. } | Parsed::Index { .. }) => {
            "it is as it was written, and --force sets it aside all the same".to_owned()
        }
        (State::Fine, _) => {
            return Err(refused(&format!("nothing is wrong with {name}"), about_fine(&parsed)));
        }
        (State::Gone, Force::Yes) if matches!(parsed, Parsed::Snapshot { .. } | Parsed::Pack { .. }) => {
            "it is not there".to_owned()
        }
        (State::Gone, _) => {
            let remedy = match parsed {
                Parsed::Snapshot { .. } => {
                    "If it is lost for good, --force says so, and its chain is whole again"
                }
                Parsed::Pack { .. } => {
                    "If it is lost for good, --force says so, and a prune goes on without the chunks of files that \
                     it held"
                }
                _ => "What is not there hinders nobody",
            };
            return Err(refused(&format!("{name} is not there"), remedy));
        }
    };
    Ok(Verdict { object: name.as_str().to_owned(), why, effect, already: false })
}

/// Why an object that is fine stays.
const fn about_fine(parsed: &Parsed) -> &'static str {
    match parsed {
        Parsed::Pack { .. } => {
            "If `lifeboat check --read-data` names it all the same, --force sets it aside: then nothing counts on it, and what \
             no other pack holds is still read from it. If no index lists it, `lifeboat repair index --apply` does"
        }
        Parsed::Index { .. } => "--force sets it aside; run `lifeboat repair index` afterwards",
        Parsed::Snapshot { .. } => "`lifeboat forget` ends a snapshot",
        // Whoever saw it may be about to delete what it names: what is tombstoned never comes back.
        Parsed::Record { folder: Folder::Tombstones, .. } => "What is marked to be deleted stays marked",
        _ => "A record that counts cannot be taken back",
    }
}

/// What comes of setting it aside.
const fn effect(parsed: &Parsed, state: &State) -> &'static str {
    match parsed {
        Parsed::Pack { .. } if matches!(state, State::Gone) => {
            "back up again: what is still at its source is stored anew, the rest of what it held is lost"
        }
        Parsed::Pack { .. } => {
            "forget nothing: what is good of it is still read, and `lifeboat repair snapshots --apply` with an owner's key keeps that. \
             Or back up again: what it held and is still at its source is stored anew"
        }
        Parsed::Index { .. } => "run `lifeboat repair index` to list again what it listed",
        Parsed::Snapshot { .. } => "nothing restores it any more, and a prune frees what only it needed",
        Parsed::Record { folder: Folder::Tombstones, .. } => {
            "the packs that it marked count again: do this only while no prune runs"
        }
        Parsed::Record { folder: Folder::Annotations, .. } => {
            "it may be a legal hold, and what it held can be forgotten from then on: first place the holds again that you know of \
             (`lifeboat hold place`)"
        }
        _ => "it is not mentioned any more",
    }
}

fn look(repository: &Repository, name: &Name, domain: &DomainId) -> Result<State> {
    let Some(listed) = repository.store.head(name)? else { return Ok(State::Gone) };
    match fault(repository, (name, domain), &listed) {
        Ok(None) => Ok(State::Fine),
        Ok(Some(error)) => Ok(State::Wrong(error.to_string())),
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(State::Wrong(error.to_string())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(State::Gone),
        Err(error) => Err(error),
    }
}

/// What is wrong with an object, as a result or as an error.
fn fault(
    repository: &Repository,
    (name, domain): (&Name, &DomainId),
    listed: &Listed,
) -> Result<Option<Error>> {
    match name.parsed() {
        Parsed::Pack { kind, id, .. } => {
            repository.store.read_hashed(name, limits::PACK_BYTES_MAX, id.as_bytes())?;
            let pack = ListedPack { kind, size: listed.size, stored: listed.modified };
            // That the key of whoever signed it was revoked since is no damage.
            if let Listing::Unvouched(pack, signer) = repository.listing_of(domain, (&id, pack))?
                && let Truth::False(error) = truth_of(repository, domain, (&pack, &signer))?
            {
                return Ok(Some(error));
            }
        }
        Parsed::Index { id, .. } => drop(repository.read_index(domain, name, id)?),
        Parsed::Run { domain, identity, id } => {
            drop(repository.read_run(&RunName {
                name: name.clone(),
                domain,
                identity,
                id,
                stored: listed.modified,
            })?);
        }
        Parsed::Record { folder, id, .. } => return repository.fault_of_record(domain, folder, (name, &id)),
        Parsed::Snapshot { .. } => {
            if let Some(name) = SnapshotName::of(listed) {
                drop(repository.read_snapshot(&name)?);
            }
        }
        Parsed::Config | Parsed::Slot(_) | Parsed::Registry { .. } | Parsed::Evidence { .. } => {}
    }
    Ok(None)
}
