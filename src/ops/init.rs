//! `init`: tries what a repository will need of its store, then creates one. What can fail does so before
//! anything is promised: a store that cannot list or read back must not be found out in a disaster.

use bytes::Bytes;

use crate::{
    clock::{Clock, Timestamp},
    crypto::RootSecret,
    error::{Error, ErrorKind, Result},
    id::{ObjectId, RepositoryId},
    limits, random,
    repository::{InitOptions, Repository},
    store::{Name, Prefix, Store},
};

/// A clock that differs more from the storage's than this is worth a word, in seconds.
pub const DRIFT_SECONDS_MAX: i64 = 60;
/// Bytes of the object that tries the store.
const PROBE_BYTES: usize = 4096;

/// What trying the store showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// How far the client's clock is ahead of the storage's, in seconds.
    pub clock_ahead_seconds: i64,
    /// The object that could not be removed again, and why.
    pub left_behind: Option<(Name, String)>,
}

/// A new repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub repository: RepositoryId,
    /// What trying its store showed.
    pub tried: Tried,
}

/// Whether a repository may be created here.
///
/// # Errors
/// There is one already, or what is left of one; storage trouble.
pub fn check_vacant(store: &Store) -> Result<()> {
    Repository::check_vacant(store)
}

/// Writes an object, reads it and a part of it, finds it in a list, compares the clocks, and removes it.
///
/// # Errors
/// The store cannot do one of these, except remove: a store that keeps everything is a good one.
pub fn try_store(store: &Store, clock: &dyn Clock) -> Result<Tried> {
    let bytes: [u8; PROBE_BYTES] = random::bytes()?;
    let id = ObjectId::new(*blake3::hash(&bytes).as_bytes());
    let name = Name::probe(&id);
    let step =
        |what: &'static str| move |error: Error| error.context(format!("trying the store: {what} failed"));
    store.create(&name, Bytes::copy_from_slice(&bytes)).map_err(step("writing an object"))?;
    let ahead = read_back(store, &name, &bytes, clock);
    let removed = store.delete(&name);
    let clock_ahead_seconds = ahead?;
    let left_behind = removed.err().map(|error| (name, error.to_string()));
    Ok(Tried { clock_ahead_seconds, left_behind })
}

fn read_back(store: &Store, name: &Name, bytes: &[u8], clock: &dyn Clock) -> Result<i64> {
    let now = clock.now();
    let wrong = |what: &str| {
        Error::new(ErrorKind::Failed, format!("trying the store: {what}"))
            .with_remedy("This storage cannot hold a repository: use another one, or ask its operator")
    };
    if store.read(name, limits::RECORD_BYTES_MAX)? != bytes {
        return Err(wrong("it gave back other bytes than were written"));
    }
    let (start, end) = (1000, 3000);
    let part = store.read_range(name, start..end)?;
    if Some(&part[..]) != bytes.get(1000..3000) {
        return Err(wrong("it gave back another part of an object than was asked for"));
    }
    let listed = store.list(&Prefix::probes())?;
    let listed = listed.iter().find(|listed| listed.name == name.as_str());
    let listed = listed.ok_or_else(|| wrong("its list does not show an object that was just written"))?;
    if listed.size != bytes.len() as u64 {
        return Err(wrong("its list shows another size than was written"));
    }
    Ok(ahead(now, listed.modified))
}

const fn ahead(client: Timestamp, storage: Timestamp) -> i64 {
    client.seconds.saturating_sub(storage.seconds)
}

/// Tries the store and creates a repository there. The owner must have `root` in safety before: nothing
/// else opens what is written here when the passphrase is lost.
///
/// # Errors
/// There is one already; the store cannot do what is needed; storage trouble.
pub fn run(
    store: &Store,
    root: &RootSecret,
    passphrase: &str,
    options: InitOptions,
    clock: &dyn Clock,
) -> Result<Created> {
    check_vacant(store)?;
    let tried = try_store(store, clock)?;
    Repository::create(store, root, passphrase, options, clock)?;
    Ok(Created { repository: root.repository_id(), tried })
}
