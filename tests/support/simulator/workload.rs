//! Who works in a run, and on what.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use lifeboat::{
    clock::Clock,
    crypto::RootSecret,
    error::Result,
    format::role::Role,
    id::DomainId,
    ops::{
        backup::{self, BackupOptions, Reuse},
        forget::{self, Bucket, Count, ForgetOptions, GroupBy, MassRemoval, Mode, Rules, Which},
        init,
        key::{self, AddOptions, By, LastGood, RevokeOptions},
        prune::{self, PruneOptions, Unused},
        rewrite::Old,
        select::Filter,
    },
    random,
    repository::{InitOptions, Repository, unlock::Credential},
    store::Store,
};

use super::{
    chance::Chance,
    clock::ClientClock,
    curator, forger,
    storage::StorageClock,
    weather::{GRACE, WINDOW, Weather},
    world::{Pruned, Told, World, open, outside},
};
use crate::support::lab::{self, Files};

#[derive(Clone, Debug)]
pub(crate) enum Command {
    Init,
    BackUp(Files),
    Restore,
    Check,
    AddKey(String),
    Share(String),
    Revoke(String),
    ListKeys,
    /// Deletes a pack or cuts it short, as nobody should.
    Vandalize,
    /// Does nothing until then.
    Wait(Duration),
    /// Ends all snapshots of each group but so many.
    Forget(u32),
    Prune,
    /// The same with the owner's words: what nobody needs is cut out of frames too.
    Cut,
    /// See `forger.rs`.
    Forge,
    Usurp,
    /// See `curator.rs`.
    Tag,
    Hold,
    Lift,
    Rewrite(Old),
    Copy,
    Repair,
}

/// One client on one machine.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The label of its key; without one it has the recovery words.
    pub(crate) label: Option<&'static str>,
    pub(crate) script: Vec<Command>,
    /// When it is killed.
    pub(crate) loses_cache: bool,
    clock_wrong: i64,
    up: Duration,
    retry_seconds: u64,
}

/// The repository in which most runs begin.
pub(crate) struct Cast {
    pub(crate) objects: BTreeMap<String, Bytes>,
    /// The same one, in which eight machines have keys of their own in one domain.
    pub(crate) eight: BTreeMap<String, Bytes>,
    pub(crate) root: RootSecret,
    access: BTreeMap<&'static str, String>,
    /// The domain of the key that several machines use.
    pub(crate) dora: DomainId,
    /// What is in the snapshots that are there already, by their tags.
    pub(crate) captured: BTreeMap<String, Files>,
}

/// Labels and domains of the keys: two that share a domain, one by itself, one that several machines use.
const KEYS: [(&str, Option<&str>, bool); 4] = [
    ("anna", Some("office"), false),
    ("bert", Some("office"), false),
    ("carl", None, false),
    ("dora", None, true),
];

/// Those whose machines work in one domain where there are eight.
const EIGHT: [&str; 8] = ["anna", "bert", "emil", "fred", "gina", "hugo", "ines", "jens"];

/// In so many of a thousand runs in which somebody deletes a client lies about packs, where there is one that can.
const SOME_LIE: u64 = 300;

/// The label of the maintain key.
const MAINTAIN: &str = "mia";

impl Cast {
    /// Always the same.
    pub(crate) fn get() -> &'static Self {
        static CAST: OnceLock<Cast> = OnceLock::new();
        CAST.get_or_init(|| {
            let make = || {
                random::seed(0);
                Self::make()
            };
            std::thread::scope(|scope| scope.spawn(make).join().unwrap())
        })
    }

    fn make() -> Self {
        let mut chance = Chance::new(0);
        let nothing = (&BTreeMap::new(), StorageClock::default());
        let world = World::new(chance.clone(), nothing, (Weather::calm(), None, Vec::new()), 0);
        let (store, root) = (outside(&world), RootSecret::generate().unwrap());
        let clock: Arc<dyn Clock> = Arc::new(super::clock::Afterwards);
        Repository::create(&store, &root, "right", InitOptions::default(), &*clock).unwrap();
        let owner = lab::open(&store, &root).unwrap();
        let (objects, eight) = (BTreeMap::new(), BTreeMap::new());
        let (access, captured) = (BTreeMap::new(), BTreeMap::new());
        let mut cast = Self { objects, eight, root, access, captured, dora: DomainId::new([0; 8]) };
        for (label, domain, shared) in KEYS {
            let added = key::add(&owner, &new_key(label, domain, shared)).unwrap();
            cast.access.insert(label, added.access_key.unwrap().text().to_string());
            let (files, tag) = (some_files(&mut chance), format!("before {label}"));
            let repository =
                open_as(&store, &cast.credential(Some(label)), (None, Arc::clone(&clock))).unwrap();
            back_up(&repository, &tag, &files).unwrap();
            cast.captured.insert(tag, files);
            // The last of them.
            cast.dora = repository.own_domain().unwrap();
        }
        let added = key::add(&owner, &AddOptions { role: Role::Maintain, ..new_key(MAINTAIN, None, false) });
        cast.access.insert(MAINTAIN, added.unwrap().access_key.unwrap().text().to_string());
        cast.objects = world.storage.objects();
        for label in EIGHT {
            if !cast.access.contains_key(label) {
                let added = key::add(&owner, &new_key(label, Some("office"), false)).unwrap();
                cast.access.insert(label, added.access_key.unwrap().text().to_string());
            }
        }
        cast.eight = world.storage.objects();
        cast
    }

    pub(crate) fn credential(&self, label: Option<&str>) -> Credential {
        match label {
            Some(label) => Credential::AccessKey(self.access[label].clone().into()),
            None => Credential::Words(self.root.words()),
        }
    }
}

fn new_key(label: &str, domain: Option<&str>, shared: bool) -> AddOptions {
    let (label, domain, unlock) = (label.to_owned(), domain.map(str::to_owned), By::AccessKey);
    AddOptions { role: Role::Backup, label, domain, shared, unlock }
}

/// Small trees with much in common.
fn some_files(chance: &mut Chance) -> Files {
    let mut files = Files::new();
    for _ in 0..=chance.below(3) {
        let content = chance.below(8);
        let bytes = match content {
            0 | 1 => lab::noise(content, 90_000),
            2..=4 => format!("line {content}\n").repeat(400).into_bytes(),
            _ => lab::noise(content, 300),
        };
        files.insert(format!("srv/{}/{}", chance.below(2), chance.below(4)), bytes);
    }
    files
}

pub(crate) fn open_as(
    store: &Store,
    credential: &Credential,
    (cache, clock): (Option<&Path>, Arc<dyn Clock>),
) -> Result<Repository> {
    let config = Repository::read_config(store)?;
    let secrets = Repository::unlock(store, &config, credential)?;
    Repository::open(store.clone(), config, secrets, cache, clock)
}

pub(crate) fn back_up(repository: &Repository, tag: &str, files: &Files) -> Result<backup::Done> {
    let (tags, reuse) = (vec![tag.to_owned()], Reuse::default());
    let options = BackupOptions { tags, reuse, ..lab::backup_options() };
    backup::run(repository, &mut lab::Tree(files), &options)
}

impl Client {
    fn new(label: Option<&'static str>, script: Vec<Command>, chance: &mut Chance) -> Self {
        const YEARS: i64 = 10 * 365 * 86_400;
        Self {
            label,
            script,
            loses_cache: chance.happens(300),
            clock_wrong: if chance.happens(200) { chance.pick(&[-YEARS, YEARS, -300, 300]) } else { 0 },
            up: chance.time(Duration::from_hours(1000)),
            retry_seconds: chance.pick(&[0, 5, 20, 900]),
        }
    }

    /// Whose clock is right, and who gives up at once.
    pub(crate) fn steady(label: &'static str, script: Vec<Command>, chance: &mut Chance) -> Self {
        let new = Self::new(Some(label), script, chance);
        Self { loses_cache: false, clock_wrong: 0, retry_seconds: 0, ..new }
    }

    /// Those of one run.
    pub(crate) fn some(chance: &mut Chance) -> Vec<Self> {
        if chance.happens(80) {
            return (0..2 + chance.below(2)).map(|_| Self::new(None, vec![Command::Init], chance)).collect();
        }
        let mut clients = Vec::new();
        let [first, second] =
            chance.pick(&[["dora", "dora"], ["dora", "dora"], ["anna", "bert"], ["anna", "carl"]]);
        let third = chance.pick(&["dora", "bert", "carl"]);
        // Only one key is meant for several machines.
        let third = (third == "dora" || third != second).then_some(third).filter(|_| chance.happens(300));
        for label in [first, second].into_iter().chain(third) {
            let script = (0..=chance.below(2)).map(|_| Command::BackUp(some_files(chance))).collect();
            clients.push(Self::new(Some(label), script, chance));
        }
        if chance.happens(350) {
            for number in 0..=chance.below(2) {
                let script = (0..=chance.below(2)).map(|at| key_command(number * 2 + at, chance)).collect();
                clients.push(Self::new(None, script, chance));
            }
        }
        if chance.happens(300) {
            let script = vec![chance.pick(&[Command::Restore, Command::Check]); 2];
            clients.push(Self::new(None, script, chance));
        }
        if chance.happens(40) {
            clients.push(Self::new(None, vec![Command::Vandalize], chance));
        }
        clients
    }

    /// Machines that back up in rounds, between which the grace ends, `forget` and two prunes beside them.
    pub(crate) fn of_life_cycle(chance: &mut Chance) -> Vec<Self> {
        let labels = chance.pick(&[&["dora", "dora", "dora"][..], &["anna", "bert"]]);
        let rounds = chance.below(3) + 3;
        Self::in_rounds((labels, SOME_LIE), rounds, chance)
    }

    /// The same with two machines in one domain, the key of one of which a thief has too.
    pub(crate) fn of_thief(chance: &mut Chance) -> Vec<Self> {
        let rounds = chance.below(3) + 3;
        Self::in_rounds((&["anna", "bert"], 1000), rounds, chance)
    }

    /// The same with eight of them in one domain, most often each with a key of its own, and fewer rounds.
    pub(crate) fn of_eight(chance: &mut Chance) -> Vec<Self> {
        let labels = chance.pick(&[EIGHT, EIGHT, ["dora"; 8]]);
        let rounds = chance.below(2) + 2;
        Self::in_rounds((&labels, SOME_LIE), rounds, chance)
    }

    /// In so many of a thousand runs one of them lies, where there is one that can.
    fn in_rounds((labels, lying): (&[&'static str], u64), rounds: u64, chance: &mut Chance) -> Vec<Self> {
        let round = GRACE + Duration::from_hours(1);
        let contents: Vec<Files> = (0..3).map(|_| some_files(chance)).collect();
        let begin = |number: u64, chance: &mut Chance| {
            let late = chance.pick(&[Duration::from_secs(2), Duration::from_secs(20), WINDOW]);
            Command::Wait(round * u32::try_from(number).unwrap() + chance.time(late))
        };
        let mut clients = Vec::new();
        let is_hostile = chance.happens(lying);
        for label in labels {
            let mut script = Vec::new();
            for number in 0..rounds {
                if chance.happens(700) {
                    script.extend([begin(number, chance), Command::BackUp(chance.pick(&contents))]);
                }
                if is_hostile && *label == "bert" && chance.happens(500) {
                    script.push(Command::Forge);
                }
            }
            clients.push(Self::new(Some(label), script, chance));
        }
        for machine in 0..2 {
            let mut script = Vec::new();
            for number in 0..rounds + 2 {
                if machine == 0 && chance.happens(600) || machine == 1 && chance.happens(200) {
                    script.extend([begin(number, chance), Command::Forget(1)]);
                }
                for _ in 0..chance.below(3) {
                    let prune = chance.pick(&[Command::Prune, Command::Prune, Command::Cut]);
                    script.extend([begin(number, chance), prune]);
                }
                if number == 2 && chance.happens(200) {
                    script.push(Command::Wait(Duration::from_hours(24 * 40)));
                }
            }
            clients.push(Self::new(Some(MAINTAIN), script, chance));
        }
        if chance.happens(500) {
            let mut script = Vec::new();
            for number in 0..rounds + 1 {
                for _ in 0..chance.below(3) {
                    script.extend([begin(number, chance), curation(&contents, chance)]);
                }
            }
            clients.push(Self::new(None, script, chance));
        }
        if chance.happens(150) {
            let mut script = Vec::new();
            for number in 0..rounds {
                if chance.happens(500) {
                    script.extend([begin(number, chance), Command::Usurp]);
                }
            }
            clients.push(Self::new(Some(MAINTAIN), script, chance));
        }
        clients
    }

    /// Whether it runs `forget` or `prune`.
    pub(crate) fn deletes(&self) -> bool {
        self.label == Some(MAINTAIN)
    }

    /// When it begins its last round.
    pub(crate) fn last_round(&self) -> Duration {
        let begins = self.script.iter().filter_map(|command| match command {
            Command::Wait(until) => Some(*until),
            _ => None,
        });
        begins.max().unwrap_or_default()
    }

    /// Whether it lies about packs.
    pub(crate) fn is_forger(&self) -> bool {
        self.script.iter().any(|command| matches!(command, Command::Forge))
    }

    /// Whether it says with a maintain key that everything has ended.
    pub(crate) fn is_usurper(&self) -> bool {
        self.script.iter().any(|command| matches!(command, Command::Usurp))
    }

    pub(crate) fn is_vandal(&self) -> bool {
        matches!(self.script[..], [Command::Vandalize])
    }

    pub(crate) fn backups(&self) -> usize {
        self.script.iter().filter(|command| matches!(command, Command::BackUp(_))).count()
    }

    /// What it backs up last.
    pub(crate) fn files(&self) -> Option<&Files> {
        self.script.iter().rev().find_map(|command| match command {
            Command::BackUp(files) => Some(files),
            _ => None,
        })
    }

    /// Runs one command, as a new process would. That it fails is no problem.
    pub(crate) fn perform(&self, world: &Arc<World>, at: (usize, usize)) {
        let Self { clock_wrong, up, retry_seconds, .. } = *self;
        let (wrong, client) = (clock_wrong, at.0);
        let clock: Arc<dyn Clock> = Arc::new(ClientClock { world: Arc::clone(world), client, wrong, up });
        let store = open(world, Some(at), Arc::clone(&clock), retry_seconds);
        match self.try_to_perform(world, at, (&store, &clock)) {
            Ok(told) => world.record().told.extend(told.into_iter().map(|told| (at, told))),
            Err(error) => world.record().failures.push((at, error.to_string())),
        }
    }

    fn try_to_perform(
        &self,
        world: &Arc<World>,
        at: (usize, usize),
        (store, clock): (&Store, &Arc<dyn Clock>),
    ) -> Result<Option<Told>> {
        let command = &self.script[at.1];
        match command {
            Command::Init => {
                let root = RootSecret::generate()?;
                init::run(store, &root, "right", InitOptions::default(), &**clock)?;
                return Ok(Some(Told::Created(root)));
            }
            Command::Vandalize => {
                vandalize(world, at.0);
                return Ok(None);
            }
            Command::Wait(until) => {
                let left = until.saturating_sub(world.scheduler.now());
                world.scheduler.pass(at.0, left);
                return Ok(None);
            }
            _ => {}
        }
        let cache = world.cache(at.0);
        let credential =
            Cast::get().credential(if matches!(command, Command::Cut) { None } else { self.label });
        let repository = open_as(store, &credential, (Some(&cache), Arc::clone(clock)))?;
        Ok(match command {
            Command::Init | Command::Vandalize | Command::Wait(_) => None,
            Command::Forget(_) | Command::Prune | Command::Cut | Command::Forge | Command::Usurp => {
                live_or_die(command, world, (&repository, at))?;
                None
            }
            Command::BackUp(files) => {
                let tag = format!("{}.{}", at.0, at.1);
                world.record().captured.insert(tag.clone(), files.clone());
                let done = back_up(&repository, &tag, files)?;
                done.snapshot.map(|(id, _)| Told::Snapshot { tag, id })
            }
            Command::Restore => {
                let (known, _) = repository.snapshots()?;
                if let Some(snapshot) = known.last() {
                    let target = tempfile::tempdir_in(world.folder()).unwrap();
                    let (files, restored) = lab::restore_to(&repository, snapshot, target.path())?;
                    let record = &mut world.record();
                    if restored.failures == 0 && record.captured[&snapshot.record.tags[0]] != files {
                        record.problems.push(format!("client {}.{} restored something else", at.0, at.1));
                    }
                }
                None
            }
            Command::Check => {
                let checked = lab::check_all(&repository)?;
                // What a key wrote while it was revoked is told, and does not count.
                let damage = checked.problems.iter().find(|problem| !problem.what.contains("revoked"));
                if let Some(damage) = damage.filter(|_| world.weather.is_honest())
                    && world.record().hurt.is_empty()
                {
                    let text = format!("client {}.{} found damage: {damage:?}", at.0, at.1);
                    world.record().problems.push(text);
                }
                None
            }
            Command::AddKey(_) | Command::Share(_) | Command::Revoke(_) | Command::ListKeys => {
                change_keys(command, &repository)?
            }
            Command::Tag
            | Command::Hold
            | Command::Lift
            | Command::Rewrite(_)
            | Command::Copy
            | Command::Repair => curator::curate(command, world, (repository, clock), at)?,
        })
    }
}

fn change_keys(command: &Command, repository: &Repository) -> Result<Option<Told>> {
    Ok(match command {
        Command::AddKey(label) => {
            let added = key::add(repository, &new_key(label, None, false))?;
            added.access_key.map(|access| Told::Key(access.text().to_string()))
        }
        Command::Share(label) => {
            key::share(repository, label)?;
            Some(Told::Shared(label.clone()))
        }
        Command::Revoke(label) => {
            let options = RevokeOptions { who: label.clone(), last_good: LastGood::Head };
            key::revoke(repository, &options)?;
            Some(Told::Revoked(label.clone()))
        }
        Command::ListKeys => {
            key::list(repository)?;
            None
        }
        _ => None,
    })
}

/// What a maintain key does, and what nobody may.
fn live_or_die(
    command: &Command,
    world: &World,
    (repository, at): (&Repository, (usize, usize)),
) -> Result<()> {
    match command {
        Command::Forget(keep) => {
            forget::run(repository, &keep_last(*keep))?;
        }
        Command::Prune | Command::Cut => {
            let moves_much = world.scheduler.draw(|chance| chance.happens(500));
            let pruned = prune::run(repository, &prune_options(moves_much))?;
            let done = pruned.domains.iter().map(|domain| &domain.done);
            let mut record = world.record();
            for done in done {
                record.pruned.add(Pruned {
                    freed: done.deleted.packs,
                    repacked: done.repacked.packs,
                    cut: done.cut,
                    // Of a run that was stopped nobody knows.
                    rescued: if pruned.stopped.is_none() { done.rescued.packs } else { 0 },
                    compacted: done.index_written,
                    replaced: done.index_deleted,
                });
            }
            record.notes.push((at, format!("{pruned:?}")));
            drop(record);
            if let Some(stopped) = pruned.stopped {
                return Err(stopped);
            }
        }
        Command::Forge => forger::forge(world, repository)?,
        Command::Usurp => forger::usurp(world, repository)?,
        _ => {}
    }
    Ok(())
}

fn keep_last(count: u32) -> ForgetOptions {
    let rules = Rules { counts: vec![(Bucket::Last, Count::Most(count))], ..Rules::default() };
    ForgetOptions {
        which: Which::ByRules(rules, Filter::default(), GroupBy::default()),
        floor: 1,
        mass_removal: MassRemoval::Allow,
        zone: jiff::tz::TimeZone::UTC,
        mode: Mode::Write,
    }
}

/// With nothing that is unused left alone and all packs merged, or as usual.
pub(crate) fn prune_options(moves_much: bool) -> PruneOptions {
    let usual = PruneOptions { host: "host".to_owned(), ..PruneOptions::default() };
    if moves_much { PruneOptions { max_unused: Unused::Bytes(0), small_packs: 3, ..usual } } else { usual }
}

fn key_command(number: u64, chance: &mut Chance) -> Command {
    let label = chance.pick(&["anna", "bert", "carl"]).to_owned();
    match chance.below(8) {
        0..4 => Command::AddKey(format!("new {number}")),
        4..6 => Command::Share(label),
        6 => Command::Revoke(label),
        _ => Command::ListKeys,
    }
}

/// What an owner does.
fn curation(contents: &[Files], chance: &mut Chance) -> Command {
    match chance.below(10) {
        0..3 => Command::BackUp(chance.pick(contents)),
        3 => Command::Tag,
        4..6 => Command::Hold,
        6 => Command::Lift,
        7 => Command::Rewrite(chance.pick(&[Old::Keep, Old::Forget])),
        8 => Command::Copy,
        _ => Command::Repair,
    }
}

fn vandalize(world: &World, client: usize) {
    let wait = world.scheduler.draw(|chance| chance.time(Duration::from_secs(8)));
    world.scheduler.pass(client, wait);
    let objects = world.storage.objects();
    let packs: Vec<_> = objects.iter().filter(|(name, _)| name.contains("/packs/")).collect();
    let (name, bytes) = world.scheduler.draw(|chance| chance.pick(&packs));
    let now = world.scheduler.now();
    world.hurts(name);
    if world.scheduler.draw(|chance| chance.happens(500)) {
        world.storage.delete(name, now);
    } else {
        world.storage.put(name, bytes.slice(..bytes.len() / 2), now);
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { label, script, loses_cache, clock_wrong, up: _, retry_seconds } = self;
        write!(
            f,
            "{} tries for {retry_seconds} s, its clock is wrong by {clock_wrong} s",
            label.unwrap_or("owner")
        )?;
        if *loses_cache {
            write!(f, ", loses its cache when killed")?;
        }
        for command in script {
            match command {
                Command::BackUp(files) => write!(f, "; backs up {:?}", files.keys().collect::<Vec<_>>())?,
                other => write!(f, "; {other:?}")?,
            }
        }
        Ok(())
    }
}
