//! `status`: who backed up when, and who fell silent. From the names of snapshots and runs, the newest record
//! of each chain and the runs that failed; no manifest and no index is read. Beside it: legal holds, and how much of the
//! packs was read how long ago, from the records of checks. Ages are those of the storage's stamps: what a client's
//! clock says counts for nothing.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::check::{self, Coverage};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        registry::{Certificate, Registry},
        role::Role,
        snapshot::Snapshot,
    },
    id::{DomainId, IdentityId, ObjectId},
    progress::Phase,
    repository::{
        Repository,
        annotations::{Annotations, Hold},
        records::Records,
        runs::RunName,
        snapshots::{KnownSnapshot, SnapshotName, ids_of_snapshots},
    },
};

/// So many snapshots, and so many runs, of one client are looked at for one that is complete, or that failed.
/// Of an identity that several machines use, all: each of them may have fallen silent long ago.
pub const LOOK_BACK: usize = 100;
/// So many copies of older snapshots are passed on the way to these.
const COPIES_PASSED: usize = 1000;

/// A backup that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its snapshot.
    pub id: ObjectId,
    /// When the storage got it; a copy is as old as what it is a copy of.
    pub stored: Timestamp,
    /// Entries that could not be read.
    pub unreadable: u64,
    /// When it was made, by the clock of its machine.
    pub made: Timestamp,
    /// That is so long before the storage got anything of this key that it still has.
    pub before_all: Option<Duration>,
}

/// The run that makes a backup is on record when it begins. Where that came so much later than the backup says that it
/// began, a clock is wrong, or the storage is a copy whose stamps are those of the copying.
const LATE: Duration = Duration::from_hours(2 * 24);

fn before_all(made: Timestamp, oldest: Timestamp) -> Option<Duration> {
    let seconds = oldest.seconds.saturating_sub(made.seconds);
    let late = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    (late > LATE).then_some(late)
}

/// A snapshot that an owner made of an older one.
struct Copied {
    host: String,
    backup: Backup,
    /// That is in another repository.
    is_of_elsewhere: bool,
}

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When the storage got its record.
    pub stored: Timestamp,
    /// The exit code.
    pub code: u8,
    /// Why.
    pub message: String,
}

/// Who backs up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientName {
    /// The label of the identity.
    pub label: String,
    /// The host, if several machines use the identity.
    pub host: Option<String>,
}

/// A client and what is known of it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Who.
    pub name: ClientName,
    /// The identity.
    pub identity: IdentityId,
    /// The domain that it backs up to.
    pub domain: DomainId,
    /// Its last backup, complete or not.
    pub last: Option<Backup>,
    /// Its last backup in which everything could be read.
    pub complete: Option<Backup>,
    /// The last run that failed.
    pub failed: Option<Failure>,
    /// When a run was last heard of.
    pub heard: Option<Timestamp>,
    /// How old the last complete backup may be.
    pub max_age: Option<Duration>,
    /// Whether it is older, or there is none.
    pub overdue: bool,
}

impl Client {
    /// When a run began of which neither a snapshot nor a failure was heard: it goes on, or the machine died.
    #[must_use]
    pub fn unended(&self) -> Option<Timestamp> {
        let heard = self.heard?;
        let snapshot = self.last.as_ref().is_some_and(|backup| backup.stored >= heard);
        let failure = self.failed.as_ref().is_some_and(|failure| failure.stored >= heard);
        (!snapshot && !failure).then_some(heard)
    }
}

/// A legal hold on snapshots that are there.
#[derive(Clone, Debug)]
pub struct Held {
    /// The name of their domain.
    pub domain: String,
    /// It.
    pub hold: Arc<Hold>,
    /// The label of whoever placed it.
    pub by: String,
    /// How many snapshots it is on.
    pub snapshots: u64,
}

/// How old things may be.
pub struct Limits<'a> {
    /// The last complete backup of a client; `None` means that it is never overdue.
    pub backup: &'a dyn Fn(&ClientName) -> Option<Duration>,
    /// The last reading of a pack, to count as read.
    pub reading: Duration,
}

/// How everybody stands.
#[derive(Debug)]
pub struct Status {
    /// By name.
    pub clients: Vec<Client>,
    /// By domain, the first first.
    pub holds: Vec<Held>,
    /// How much of the packs was read how long ago.
    pub coverage: Coverage,
    /// Records of checks that do not count, and why.
    pub notes: Vec<String>,
    /// What ages are measured against: the local clock, or the newest stamp of the storage if that is later.
    pub now: Timestamp,
    /// Revoked identities, which are left out.
    pub revoked: u64,
    /// Snapshots and runs that do not count, and why.
    pub damaged: Vec<Error>,
}

impl Status {
    /// How old something is.
    #[must_use]
    pub fn age(&self, stored: Timestamp) -> Duration {
        Duration::from_secs(u64::try_from(self.now.seconds.saturating_sub(stored.seconds)).unwrap_or(0))
    }
}

/// How everybody stands who is certified to back up, what must not end, and how much of it was checked.
///
/// # Errors
/// `Forbidden` for a role that reads no snapshots; storage trouble.
pub fn run(repository: &Repository, limits: &Limits<'_>) -> Result<Status> {
    if !repository.reads_metadata() {
        return Err(repository.forbidden("see how the clients stand", "audit"));
    }
    repository.store.progress().enter(Phase::Checking);
    let registry = &*repository.registry();
    let writes = |known: &&Certificate| matches!(known.role, Role::Backup | Role::Owner);
    let revoked = registry.certificates.iter().filter(writes);
    let revoked = revoked.filter(|known| registry.revocation(&known.identity).is_some()).count() as u64;
    let (mut clients, mut holds, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
    let (mut now, mut aside) = (repository.clock.now(), Vec::new());
    for domain in &registry.domains {
        let mut found = match Found::new(repository, &domain.id) {
            Ok(found) => found,
            // One domain that cannot be looked at hides no other.
            Err(error) if error.kind() == ErrorKind::Damaged => {
                damaged.push(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        damaged.append(&mut found.annotations.doubts);
        holds.extend(found.holds(registry, &domain.name));
        let here = |known: &&Certificate| known.domain == Some(domain.id);
        for certificate in registry.certificates.iter().filter(writes).filter(here) {
            if registry.revocation(&certificate.identity).is_none() {
                found.identity(certificate, (&mut clients, &mut damaged))?;
            }
        }
        now = now.max(found.newest);
        aside.push((domain.id, found.quarantined));
    }
    let (coverage, notes) = check::coverage(repository, &aside, limits.reading)?;
    clients.sort_by(|a, b| a.name.cmp(&b.name));
    for client in &mut clients {
        client.max_age = (limits.backup)(&client.name);
        client.overdue =
            client.max_age.is_some_and(|max_age| overdue(client.complete.as_ref(), now.seconds, max_age));
    }
    Ok(Status { clients, holds, coverage, notes, now, revoked, damaged })
}

fn overdue(complete: Option<&Backup>, now: i64, max_age: Duration) -> bool {
    let limit = i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX);
    complete.is_none_or(|backup| now.saturating_sub(backup.stored.seconds) > limit)
}

/// The snapshots and runs of one domain, newest first.
struct Found<'a> {
    repository: &'a Repository,
    domain: DomainId,
    ended: HashSet<ObjectId>,
    quarantined: HashSet<String>,
    annotations: Annotations,
    snapshots: HashMap<IdentityId, Vec<SnapshotName>>,
    runs: HashMap<IdentityId, Vec<RunName>>,
    newest: Timestamp,
    /// The hosts of the identity in hand that have backed up themselves, as far as was looked.
    own_hosts: HashSet<String>,
}

impl<'a> Found<'a> {
    fn new(repository: &'a Repository, domain: &DomainId) -> Result<Self> {
        let (mut snapshots, mut runs) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let mut newest = Timestamp::default();
        for name in repository.snapshot_names(domain, None)? {
            newest = newest.max(name.stored);
            snapshots.entry(name.identity).or_default().push(name);
        }
        for run in repository.runs(domain)? {
            newest = newest.max(run.stored);
            runs.entry(run.identity).or_default().push(run);
        }
        // The order of the chain is signed; that of the stamps is lost when a bucket is copied.
        let newest_first = |name: &SnapshotName| std::cmp::Reverse((name.sequence, name.stored, name.id));
        snapshots.values_mut().for_each(|chain| chain.sort_by_key(newest_first));
        runs.values_mut().for_each(|runs| runs.sort_by_key(|run| std::cmp::Reverse((run.stored, run.id))));
        let Records { forgotten, quarantined, .. } = repository.records(domain)?;
        let annotations = repository.annotations(domain, &quarantined)?;
        let mut ended = ids_of_snapshots(&quarantined);
        ended.extend(forgotten.into_keys().filter(|id| !annotations.is_held(id)));
        Ok(Self {
            repository,
            domain: *domain,
            ended,
            quarantined,
            annotations,
            snapshots,
            runs,
            newest,
            own_hosts: HashSet::new(),
        })
    }

    /// The holds on snapshots that are there. (Before the chains are looked at, which takes them.)
    fn holds(&self, registry: &Registry, domain: &str) -> Vec<Held> {
        let there: HashSet<ObjectId> = self.snapshots.values().flatten().map(|name| name.id).collect();
        let held = self.annotations.all_holds().into_iter().filter_map(|(hold, snapshots)| {
            let snapshots = snapshots.iter().filter(|id| there.contains(id)).count() as u64;
            let label = registry.certificate(&hold.by).map(|known| known.label.clone());
            let by = label.unwrap_or_else(|| hold.by.to_string());
            (snapshots > 0).then(|| Held { domain: domain.to_owned(), hold, by, snapshots })
        });
        held.collect()
    }

    fn identity(
        &mut self,
        certificate: &Certificate,
        (clients, damaged): (&mut Vec<Client>, &mut Vec<Error>),
    ) -> Result<()> {
        let mut hosts: BTreeMap<Option<String>, Client> = BTreeMap::new();
        self.own_hosts.clear();
        let copies = self.backups(certificate, &mut hosts, damaged)?;
        self.failures(certificate, &mut hosts, damaged)?;
        self.copies(certificate, &mut hosts, copies);
        if hosts.is_empty() && certificate.role == Role::Backup {
            // It was made to back up, and never did.
            self.client(certificate, &mut hosts, None);
        }
        clients.extend(hosts.into_values());
        Ok(())
    }

    fn client<'h>(
        &self,
        certificate: &Certificate,
        hosts: &'h mut BTreeMap<Option<String>, Client>,
        host: Option<&str>,
    ) -> &'h mut Client {
        let host = host.filter(|_| certificate.shared).map(str::to_owned);
        let name = ClientName { label: certificate.label.clone(), host: host.clone() };
        let new = Client {
            name,
            identity: certificate.identity,
            domain: self.domain,
            last: None,
            complete: None,
            failed: None,
            heard: None,
            max_age: None,
            overdue: false,
        };
        hosts.entry(host).or_insert(new)
    }

    /// What an owner has copied counts where it is newer than what he has backed up: so it is when that was rewritten and has
    /// ended. He may have repaired what others backed up, which makes him no client; copies from another repository do.
    fn copies(
        &self,
        certificate: &Certificate,
        hosts: &mut BTreeMap<Option<String>, Client>,
        copies: Vec<Copied>,
    ) {
        for Copied { host, backup, is_of_elsewhere } in copies {
            if !is_of_elsewhere && !self.own_hosts.contains(&host) {
                continue;
            }
            let client = self.client(certificate, hosts, Some(&host));
            let is_newer =
                |known: &Option<Backup>| known.as_ref().is_none_or(|known| known.stored < backup.stored);
            if backup.unreadable == 0 && is_newer(&client.complete) {
                client.complete = Some(backup.clone());
            }
            if is_newer(&client.last) {
                client.last = Some(backup);
            }
        }
    }

    /// From the newest snapshot back to one that is complete. Copies are given back.
    fn backups(
        &mut self,
        certificate: &Certificate,
        hosts: &mut BTreeMap<Option<String>, Client>,
        damaged: &mut Vec<Error>,
    ) -> Result<Vec<Copied>> {
        let chain = self.snapshots.remove(&certificate.identity).unwrap_or_default();
        let runs = self.runs.get(&certificate.identity).into_iter().flatten().map(|run| run.stored);
        let oldest = chain.iter().map(|name| name.stored).chain(runs).min().unwrap_or_default();
        let mut replaced = HashSet::new();
        let (mut copies, mut looked_at) = (Vec::new(), 0);
        for name in chain.into_iter().filter(|name| !self.ended.contains(&name.id)) {
            if !certificate.shared && (looked_at == LOOK_BACK || copies.len() == COPIES_PASSED) {
                break;
            }
            self.repository.store.progress().check()?;
            let known = match self.repository.read_snapshot(&name) {
                Ok(known) => known,
                // It was forgotten since the LIST.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    damaged.push(error);
                    looked_at += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            replaced.extend(known.place_replaced());
            if replaced.contains(&known.place()) {
                continue;
            }
            let KnownSnapshot { name, record, is_copy, .. } = known;
            let Snapshot { begun: made, unreadable, .. } = record;
            let before_all = before_all(made, oldest);
            let mut backup = Backup { id: name.id, stored: name.stored, unreadable, made, before_all };
            if is_copy {
                backup.stored = record.time.min(name.stored);
                (backup.made, backup.before_all) = (backup.stored, None);
                copies.push(Copied { host: record.host, backup, is_of_elsewhere: record.origin.is_some() });
                continue;
            }
            looked_at += 1;
            let client = self.client(certificate, hosts, Some(&record.host));
            self.own_hosts.insert(record.host);
            if backup.unreadable == 0 && client.complete.is_none() {
                client.complete = Some(backup.clone());
            }
            client.last.get_or_insert(backup);
            if client.complete.is_some() && !certificate.shared {
                break;
            }
        }
        Ok(copies)
    }

    /// From the newest run back to one that failed.
    fn failures(
        &mut self,
        certificate: &Certificate,
        hosts: &mut BTreeMap<Option<String>, Client>,
        damaged: &mut Vec<Error>,
    ) -> Result<()> {
        let runs = self.runs.remove(&certificate.identity).unwrap_or_default();
        for name in runs.into_iter().take(if certificate.shared { usize::MAX } else { LOOK_BACK }) {
            self.repository.store.progress().check()?;
            let run = match self.repository.read_run(&name) {
                Ok(run) if run.command == "backup" => run,
                // Another command; or swept since the LIST.
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    damaged.push(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let client = self.client(certificate, hosts, Some(&run.host));
            self.own_hosts.insert(run.host);
            client.heard.get_or_insert(name.stored);
            if let Some((code, message)) = run.failure
                && client.failed.is_none()
            {
                client.failed = Some(Failure { stored: name.stored, code, message });
                if !certificate.shared {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_overdue_when_it_is_older_than_it_may_be_or_not_there() {
        let backup = |stored| Backup {
            id: ObjectId::new([1; 32]),
            stored: Timestamp::from_seconds(stored),
            unreadable: 0,
            made: Timestamp::from_seconds(stored),
            before_all: None,
        };
        let hour = Duration::from_hours(1);
        for (stored, late) in [(10_000, false), (6_400, false), (6_399, true), (0, true), (99_999, false)] {
            assert_eq!(overdue(Some(&backup(stored)), 10_000, hour), late, "{stored}");
        }
        assert!(overdue(None, 10_000, Duration::MAX));
    }
}
