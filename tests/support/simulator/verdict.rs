//! What must hold after every run, whatever happened in it.

use std::{collections::HashSet, path::Path, sync::Arc};

use lifeboat::{
    error::{Error, ErrorKind},
    id::ObjectId,
    ops::init,
    repository::{InitOptions, Repository, snapshots::KnownSnapshot, unlock::Credential},
    store::{Name, Prefix},
};

use super::{
    clock::Afterwards,
    curator,
    weather::Broken,
    witness,
    workload::{Cast, Client, Command, back_up, open_as},
    world::{Told, World, outside},
};
use crate::support::lab;

/// Everything that is wrong.
pub(crate) fn problems(world: &Arc<World>, clients: &[Client]) -> Vec<String> {
    let mut verdict = Verdict { world, clients, problems: Vec::new() };
    verdict.problems.append(&mut world.record().problems);
    verdict.problems.extend(witness::problems(&world.record().events));
    if matches!(clients[0].script[..], [Command::Init]) {
        verdict.one_repository();
    } else {
        verdict.nothing_is_lost();
    }
    verdict.problems
}

struct Verdict<'a> {
    world: &'a Arc<World>,
    clients: &'a [Client],
    problems: Vec<String>,
}

fn text(error: &Error) -> String {
    format!("{error} ({:?})", error.remedy())
}

impl Verdict<'_> {
    fn told(&self) -> Vec<((usize, usize), Told)> {
        self.world.record().told.clone()
    }

    /// Whether the storage itself explains it: it was made to hold something else than it was given.
    fn is_explained(&self, text: &str) -> bool {
        let hurt = &self.world.record().hurt;
        let named = |name: &String| name.rsplit(['/', '-']).next().is_some_and(|id| text.contains(id));
        hurt.iter().any(named)
    }

    fn is_forged(&self, text: &str) -> bool {
        self.world.record().forged.iter().any(|name| text.contains(name.as_str()))
    }

    /// Whether it was backed up by whoever lies about packs, who may be the one who believes it.
    fn of_forger(&self, tag: &str) -> bool {
        let client = tag.split('.').next().and_then(|number| number.parse::<usize>().ok());
        client.is_some_and(|client| self.clients[client].is_forger())
    }

    fn open(&self, credential: &Credential, cache: Option<&Path>) -> lifeboat::error::Result<Repository> {
        open_as(&outside(self.world), credential, (cache, Arc::new(Afterwards)))
    }

    fn one_repository(&mut self) {
        let created = self.told();
        if created.len() > 1 {
            self.problems.push(format!("{} clients were told that theirs is the repository", created.len()));
        }
        let passphrase = || Credential::Passphrase("right".to_owned().into(), None);
        if created.is_empty() {
            self.one_more_init();
        }
        let repository = match self.open(&passphrase(), None) {
            Ok(repository) => repository,
            Err(error) if self.is_explained(&text(&error)) => return,
            Err(error) => return self.problems.push(text(&error)),
        };
        for (_, told) in created {
            if let Told::Created(root) = told
                && root.repository_id() != repository.config.repository_id
            {
                self.problems.push("the repository is not that of the client that was told so".to_owned());
            }
        }
        if let Err(error) = back_up(&repository, "first", &lab::Files::new()) {
            self.problems.push(text(&error));
        }
    }

    /// Whoever runs `init` again gets a repository, or is told what to remove and gets one then.
    fn one_more_init(&mut self) {
        let store = outside(self.world);
        let once_more = || {
            let root = lifeboat::crypto::RootSecret::generate()?;
            init::run(&store, &root, "right", InitOptions::default(), &Afterwards)
        };
        let Err(error) = once_more() else { return };
        if error.to_string().contains("holds a repository already") {
            return;
        }
        if self.is_explained(&text(&error)) {
            return;
        }
        if !error.remedy().is_some_and(|remedy| remedy.contains("delete `keys` and `registry`")) {
            return self.problems.push(text(&error));
        }
        for prefix in [Prefix::slots(), Prefix::registry()] {
            for listed in store.list(&prefix).unwrap() {
                store.delete(&Name::parse(&listed.name).unwrap()).unwrap();
            }
        }
        if let Err(error) = once_more() {
            self.problems.push(text(&error));
        }
    }

    fn nothing_is_lost(&mut self) {
        let owner = match self.open(&Cast::get().credential(None), None) {
            Ok(owner) => owner,
            Err(error) if self.is_explained(&text(&error)) => return,
            Err(error) => return self.problems.push(format!("the owner: {}", text(&error))),
        };
        if self.clients.iter().any(Client::deletes) {
            // Before anybody stores again what was lost.
            self.promises(&owner);
        }
        if matches!(self.world.broken, Some(Broken::Engine(_))) {
            return;
        }
        self.everybody_backs_up(&owner);
        let damaged = self.check(&owner);
        self.snapshots(&owner, damaged);
        self.keys(&owner);
    }

    /// Only whether what was promised and is listed restores; except to somebody who lies about packs.
    fn promises(&mut self, owner: &Repository) {
        let Ok((known, _)) = owner.snapshots() else { return };
        let told = self.told();
        for known in known {
            let promised =
                |(_, told): &(_, Told)| matches!(told, Told::Snapshot { id, .. } if *id == known.name.id);
            let tag = &known.record.tags[0];
            if !self.of_forger(tag)
                && told.iter().any(promised)
                && let Err(why) = self.restores(owner, &known)
            {
                self.problems.push(format!("the snapshot {tag} does not restore: {why}"));
            }
        }
    }

    fn everybody_backs_up(&mut self, owner: &Repository) {
        for (number, client) in self.clients.iter().enumerate() {
            let (Some(label), Some(files)) = (client.label, client.files()) else { continue };
            let credential = Cast::get().credential(Some(label));
            let tag = format!("{number}.end");
            self.world.record().captured.insert(tag.clone(), files.clone());
            let done = self
                .open(&credential, Some(&self.world.cache(number)))
                .and_then(|repository| back_up(&repository, &tag, files));
            match done {
                Ok(_) => self.world.record().ended.push(tag),
                Err(error) if error.kind() == ErrorKind::CannotUnlock && self.is_revoked(owner, label) => {}
                Err(error) if self.is_explained(&text(&error)) => {}
                Err(error) => self.problems.push(format!("client {number} afterwards: {}", text(&error))),
            }
        }
    }

    fn is_revoked(&self, owner: &Repository, label: &str) -> bool {
        let registry = owner.registry();
        let found = registry.certificates.iter().find(|known| known.label == label);
        found.is_some_and(|known| registry.revocation(&known.identity).is_some())
    }

    /// Says whether damage was found.
    fn check(&mut self, owner: &Repository) -> bool {
        let checked = match lab::check_all(owner) {
            Ok(checked) => checked,
            Err(error) => {
                self.problems.push(format!("check: {}", text(&error)));
                return true;
            }
        };
        let forged = self.clients.iter().any(Client::is_forger);
        // Nobody else ends the newest of a chain.
        let usurped = self.clients.iter().any(Client::is_usurper);
        let is_of_ends = |told: &str| told.contains("the newest snapshot of each key always stays");
        for problem in &checked.problems {
            let told = format!("{} {}", problem.object, problem.what);
            // What somebody wrote who may not is told, and does not count; what he says of packs is not true, also where a prune
            // has copied it into an index object of its own.
            let is_lie = told.contains("/packs/") || told.contains("is not what the pack says of itself");
            if forged && is_lie || self.is_forged(&told) {
                continue;
            }
            let forked = self.world.weather.hides_or_is_late() && told.contains("the chain at");
            // What a key wrote while it was revoked is told, and does not count.
            let revoked = told.contains("revoked") && !owner.registry().revocations.is_empty();
            if !(forked || revoked || self.is_explained(&told) || usurped && is_of_ends(&told)) {
                self.problems.push(format!("check: {told} {:?}", problem.hurts));
            }
        }
        checked.problems_found > 0
    }

    fn snapshots(&mut self, owner: &Repository, damaged: bool) {
        let known = match owner.snapshots() {
            Ok((known, _)) => known,
            Err(error) => return self.problems.push(format!("snapshots: {}", text(&error))),
        };
        let told = self.told();
        let forgotten = self.forgotten(owner);
        for (at, told) in &told {
            let Told::Snapshot { tag, id } = told else { continue };
            let listed = known.iter().any(|known| known.name.id == *id) || forgotten.contains(id);
            let label = self.clients[at.0].label.unwrap_or_default();
            if !listed && !self.is_revoked(owner, label) {
                self.problems.push(format!("the snapshot {tag} was told to be complete, and is not listed"));
            }
            let confirmed =
                || witness::was_confirmed(&self.world.record().events, *at, self.world.weather.conditions);
            if !self.world.storage.jumps() && !confirmed() {
                self.problems
                    .push(format!("the snapshot {tag} was acknowledged late, and not looked at again"));
            }
        }
        self.held(owner);
        let promised = |known: &KnownSnapshot| {
            told.iter().any(|(_, told)| matches!(told, Told::Snapshot { id, .. } if *id == known.name.id))
        };
        let vandalized = self.clients.iter().any(Client::is_vandal);
        let ended = self.world.record().ended.clone();
        for snapshot in &known {
            let tag = &snapshot.record.tags[0];
            // What a repair takes for lost while the storage lies is not there in its copy.
            let is_repaired = curator::expected(self.world, snapshot).is_none();
            if self.of_forger(tag) || is_repaired && !self.world.weather.is_honest() {
                continue;
            }
            let Err(why) = self.restores(owner, snapshot) else { continue };
            let lied_to = !promised(snapshot) && !self.world.record().hurt.is_empty();
            // What was backed up at the end, without any trouble, has no excuse.
            if !damaged || ended.contains(tag) || !(vandalized || lied_to) {
                self.problems.push(format!("the snapshot {tag} does not restore: {why}"));
            }
        }
        for tag in ended.iter().filter(|tag| !known.iter().any(|known| known.record.tags[0] == **tag)) {
            self.problems.push(format!("the snapshot {tag} is not listed"));
        }
    }

    /// What was told to be held is there, whatever a record says, until somebody lifts the hold.
    fn held(&mut self, owner: &Repository) {
        let all = owner.every_snapshot().unwrap().all();
        let lifted = self.world.record().lifted.clone();
        for (_, told) in self.told() {
            let Told::Held(id) = told else { continue };
            let there = all.iter().any(|known| known.name.id == id && !known.holds.is_empty());
            if !there && !lifted.contains(&id) && !self.is_explained(&id.to_string()) {
                self.problems.push(format!("the snapshot {id} was told to be held, and is not"));
            }
        }
    }

    /// What somebody has ended who may.
    fn forgotten(&self, owner: &Repository) -> HashSet<ObjectId> {
        let registry = owner.registry();
        let records = registry.domains.iter().map(|domain| owner.records(&domain.id).unwrap());
        records.flat_map(|records| records.forgotten.into_keys()).collect()
    }

    fn restores(&self, owner: &Repository, snapshot: &KnownSnapshot) -> Result<(), String> {
        let target = tempfile::tempdir_in(self.world.folder()).unwrap();
        let (files, restored) =
            lab::restore_to(owner, snapshot, target.path()).map_err(|error| text(&error))?;
        if restored.failures > 0 {
            return Err(format!("{:?}", restored.failed));
        }
        let expected = curator::expected(self.world, snapshot);
        if expected.is_none_or(|expected| files == expected) {
            Ok(())
        } else {
            Err("it restores as something else".to_owned())
        }
    }

    /// What an owner was told of keys holds.
    fn keys(&mut self, owner: &Repository) {
        let registry = owner.registry();
        let labelled = |label: &str| registry.certificates.iter().find(|known| known.label == label);
        for ((client, command), told) in self.told() {
            let wrong = match &told {
                Told::Key(access) => {
                    let opened = self.open(&Credential::AccessKey(access.clone().into()), None);
                    opened.err().map(|error| text(&error))
                }
                Told::Shared(label) => (!labelled(label).is_some_and(|known| known.shared))
                    .then(|| format!("{label} is not shared")),
                Told::Revoked(label) => {
                    (!self.is_revoked(owner, label)).then(|| format!("{label} is not revoked"))
                }
                Told::Snapshot { .. } | Told::Held(_) | Told::Created(_) => None,
            };
            if let Some(wrong) = wrong {
                self.problems.push(format!("client {client}.{command} was told otherwise: {wrong}"));
            }
        }
    }
}
