//! Which clients a drill is for, and the newest snapshot of each: newest by the storage's clock. A client is
//! an identity; where several machines share one, each host of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    clock::Timestamp,
    format::{registry::Registry, role::Role},
    id::IdentityId,
    ops::select::Filter,
    repository::snapshots::{KnownSnapshot, times_that_count},
};

/// A client with its newest snapshot.
#[derive(Clone, Debug)]
pub(super) struct Client<'a> {
    /// The label of its identity.
    pub(super) label: String,
    /// Whether the host tells it apart from others.
    shared: bool,
    pub(super) snapshot: &'a KnownSnapshot,
    /// The time that counts for the snapshot.
    pub(super) time: Timestamp,
    /// Sets of sources that it backs up beside those of the snapshot.
    pub(super) other_sources: u64,
}

impl Client<'_> {
    /// Its name for people.
    pub(super) fn name(&self) -> String {
        let host = &self.snapshot.record.host;
        if self.shared && *host != self.label { format!("{}@{host}", self.label) } else { self.label.clone() }
    }
}

/// The snapshots of a client.
struct Group<'a> {
    newest: &'a KnownSnapshot,
    /// Each set of sources that it backs up.
    sources: HashSet<&'a [Vec<u8>]>,
}

/// Whether a client is meant by this name: that of its machine, its label, or both as other commands show them.
fn is_called(known: &KnownSnapshot, label: &str, name: &str) -> bool {
    let host = &known.record.host;
    name == host || name == label || name.split_once('@').is_some_and(|both| both == (label, host))
}

/// The newest snapshot of each client among those that pass the filter, in the order of their names. Who was
/// revoked is left out, unless a host is named: nobody backs up there any more.
pub(super) fn newest_of_each<'a>(
    snapshots: &'a [KnownSnapshot],
    filter: &Filter,
    registry: &Registry,
) -> Vec<Client<'a>> {
    let times = times_that_count(snapshots);
    let shared: HashMap<IdentityId, bool> =
        registry.certificates.iter().map(|known| (known.identity, known.shared)).collect();
    let mut groups: BTreeMap<(IdentityId, &str), Group<'_>> = BTreeMap::new();
    let of_any_host = Filter { hosts: Vec::new(), ..filter.clone() };
    for known in snapshots.iter().filter(|known| of_any_host.matches(known)) {
        let identity = known.name.identity;
        let label = registry.certificate(&identity).map_or("", |certificate| &certificate.label);
        if !filter.hosts.is_empty() && !filter.hosts.iter().any(|name| is_called(known, label, name)) {
            continue;
        }
        if filter.hosts.is_empty() && registry.revocation(&identity).is_some() {
            continue;
        }
        let host = if shared.get(&identity) == Some(&true) { known.record.host.as_str() } else { "" };
        let new = || Group { newest: known, sources: HashSet::new() };
        let group = groups.entry((identity, host)).or_insert_with(new);
        group.sources.insert(&known.record.sources);
        let age = |known: &KnownSnapshot| (known.name.stored, known.name.sequence);
        if age(known) > age(group.newest) {
            group.newest = known;
        }
    }
    let mut clients: Vec<Client<'_>> = groups
        .into_values()
        .map(|Group { newest: snapshot, sources }| {
            let certificate = registry.certificate(&snapshot.name.identity);
            Client {
                label: certificate.map(|known| known.label.clone()).unwrap_or_default(),
                shared: certificate.is_none_or(|known| known.shared),
                snapshot,
                time: times.get(&snapshot.name.id).copied().unwrap_or(snapshot.record.time),
                other_sources: sources.len() as u64 - 1,
            }
        })
        .collect();
    clients.sort_by_key(|client| (client.name(), client.snapshot.name.identity));
    clients
}

/// What was asked for and has no snapshot.
pub(super) fn absent(clients: &[Client<'_>], filter: &Filter, registry: &Registry) -> Vec<String> {
    let and = if filter.paths.is_empty() && filter.tags.is_empty() { "" } else { " that passes the filters" };
    let has_host =
        |host: &&String| !clients.iter().any(|client| is_called(client.snapshot, &client.label, host));
    let mut reasons: Vec<String> = filter
        .hosts
        .iter()
        .filter(has_host)
        .map(|host| format!("there is no snapshot of {host}{and}"))
        .collect();
    if filter.is_empty() {
        let with: HashSet<IdentityId> = clients.iter().map(|client| client.snapshot.name.identity).collect();
        let without = registry.certificates.iter().filter(|known| {
            let active = registry.revocation(&known.identity).is_none();
            known.role == Role::Backup && active && !with.contains(&known.identity)
        });
        reasons.extend(without.map(|known| format!("{} has no snapshot", known.label)));
    }
    if reasons.is_empty() && clients.is_empty() {
        reasons.push(format!("there is no snapshot{and}"));
    }
    reasons
}
