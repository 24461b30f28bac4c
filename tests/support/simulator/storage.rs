//! The storage that all clients share, in memory, with a clock of its own; and the line of one client to it, on
//! which calls take their time, fail, lie and kill.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, path::Path,
};

use super::{
    aims::{Aim, Way},
    chance::Chance,
    clock::BEGINNING,
    weather::{Broken, Call, Conditions, Fate, Plan},
    world::{Event, World},
};

/// What unwinds a client that was killed.
pub(crate) struct Killed;

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    /// By the time of the simulation, and by the clock of the storage.
    since: Duration,
    modified: SystemTime,
}

/// What a LIST may go on showing.
struct Gone {
    name: String,
    object: Object,
    until: Duration,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    gone: Vec<Gone>,
    /// What was acknowledged and is not there, or not whole.
    claimed: BTreeMap<String, Object>,
}

/// How wrong the clock of the storage is, in seconds; and from when on so much more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StorageClock {
    pub(crate) wrong: i64,
    pub(crate) jump: Option<(Duration, i64)>,
}

impl StorageClock {
    /// Mostly right, in a run that is so long.
    pub(crate) fn new(chance: &mut Chance, length: Duration) -> Self {
        const YEAR: i64 = 365 * 86_400;
        let wrong = if chance.happens(100) { chance.pick(&[-YEAR, YEAR, -600, 600]) } else { 0 };
        let at = chance.time(length);
        let jump = chance.happens(50).then(|| (at, chance.pick(&[-YEAR, YEAR, -900, 900])));
        Self { wrong, jump }
    }
}

pub(crate) struct Storage {
    state: Mutex<State>,
    pub(crate) clock: StorageClock,
}

impl Storage {
    pub(crate) fn new(objects: &BTreeMap<String, Bytes>, clock: StorageClock) -> Self {
        let storage = Self { state: Mutex::default(), clock };
        for (name, bytes) in objects {
            storage.put(name, bytes.clone(), Duration::ZERO);
        }
        storage
    }

    pub(crate) const fn jumps(&self) -> bool {
        self.clock.jump.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn modified(&self, now: Duration) -> SystemTime {
        let jumped = self.clock.jump.filter(|(at, _)| now >= *at).map_or(0, |(_, by)| by);
        let wrong = u64::try_from(BEGINNING + self.clock.wrong + jumped).unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs(wrong) + now
    }

    pub(crate) fn put(&self, name: &str, bytes: Bytes, now: Duration) {
        let object = Object { bytes, since: now, modified: self.modified(now) };
        self.lock().objects.insert(name.to_owned(), object);
    }

    /// Notes what is acknowledged, and not kept.
    fn claim(&self, name: &str, bytes: Bytes, now: Duration) {
        let object = Object { bytes, since: now, modified: self.modified(now) };
        self.lock().claimed.insert(name.to_owned(), object);
    }

    /// Says whether it was there.
    pub(crate) fn delete(&self, name: &str, now: Duration) -> bool {
        let mut state = self.lock();
        let Some(object) = state.objects.remove(name) else { return false };
        state.gone.push(Gone { name: name.to_owned(), object, until: now });
        true
    }

    fn get(&self, name: &str) -> Option<Object> {
        self.lock().objects.get(name).cloned()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.lock().objects.contains_key(name)
    }

    pub(crate) fn objects(&self) -> BTreeMap<String, Bytes> {
        self.lock().objects.iter().map(|(name, object)| (name.clone(), object.bytes.clone())).collect()
    }

    /// What was there at a time.
    fn list(&self, at: Duration) -> Vec<(String, Object)> {
        let state = self.lock();
        let there = state.objects.iter().filter(|(_, object)| object.since <= at);
        let gone = state.gone.iter().filter(|gone| gone.object.since <= at && at < gone.until);
        let there = there.map(|(name, object)| (name.clone(), object.clone()));
        there.chain(gone.map(|gone| (gone.name.clone(), gone.object.clone()))).collect()
    }
}

fn meta(name: &str, object: &Object) -> ObjectMeta {
    ObjectMeta {
        location: Path::from(name),
        last_modified: object.modified.into(),
        size: object.bytes.len() as u64,
        e_tag: None,
        version: None,
    }
}

fn broken(text: &str) -> Error {
    Error::Generic { store: "simulator", source: text.into() }
}

fn missing(name: &str) -> Error {
    Error::NotFound { path: name.to_owned(), source: "it is not there".into() }
}

/// The line of one client, while it runs one command; or of somebody who looks from outside.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) world: Arc<World>,
    pub(crate) client: Option<(usize, usize)>,
}

impl Line {
    /// A call is on its way; comes back when it arrives.
    fn ask(&self, call: Call, name: &str) -> Result<Plan> {
        let Some((client, command)) = self.client else { return Ok(Plan::default()) };
        let World { scheduler, weather, .. } = &*self.world;
        let asked = scheduler.now();
        let (mut to, mut plan) = scheduler.draw(|chance| weather.plan(call, chance));
        if let Some(Aim { way, until, fate, .. }) =
            self.world.aims.hit((client, command), (call, name), asked)
        {
            plan.fate = if fate == Fate::Works { plan.fate } else { fate };
            match way {
                Way::There => to = to.max(until.saturating_sub(asked)),
                Way::Back => plan.back = plan.back.max(until.saturating_sub(asked + to)),
            }
        }
        self.world.pass(client, to);
        let at = scheduler.now();
        let fate = if self.world.is_out(client, at) { Fate::Fails } else { plan.fate };
        self.world.note(Event { asked, at, client, command, call, name: name.to_owned(), fate });
        match fate {
            Fate::KillsBefore => resume_unwind(Box::new(Killed)),
            Fate::Outage(everybody, time) => {
                self.world.goes_out((!everybody).then_some(client), at + time);
                Err(broken("the network is gone"))
            }
            Fate::Fails => Err(broken("the network broke")),
            _ => Ok(Plan { fate, ..plan }),
        }
    }

    /// The reply is on its way.
    fn reply(&self, plan: &Plan) -> Result<()> {
        let Some((client, _)) = self.client else { return Ok(()) };
        self.world.pass(client, plan.back);
        match plan.fate {
            Fate::KillsAfter => resume_unwind(Box::new(Killed)),
            Fate::LosesReply => Err(broken("the reply is lost")),
            _ => Ok(()),
        }
    }

    /// What is there, or what a broken client takes for there.
    fn find(&self, call: Call, name: &str) -> Result<Object> {
        let believes = if call == Call::Get { Broken::ReadBack } else { Broken::Lists };
        let believed = self.believes(believes).then(|| self.world.storage.lock().claimed.get(name).cloned());
        believed.flatten().or_else(|| self.world.storage.get(name)).ok_or_else(|| missing(name))
    }

    fn believes(&self, what: Broken) -> bool {
        self.client.is_some() && self.world.broken == Some(what)
    }

    fn put(&self, name: &str, bytes: &Bytes, mode: &PutMode) -> Result<()> {
        let World { scheduler, storage, weather, .. } = &*self.world;
        let taken = || Error::AlreadyExists { path: name.to_owned(), source: "taken".into() };
        let creates = *mode == PutMode::Create && weather.conditions != Conditions::Ignored;
        // A racy storage looks when the call begins, and writes when it has all of it.
        let was_there = creates && storage.has(name);
        let plan = self.ask(Call::Put, name)?;
        let is_there = if weather.conditions == Conditions::Racy { was_there } else { storage.has(name) };
        let now = scheduler.now();
        let result = match plan.fate {
            _ if creates && is_there => Err(taken()),
            Fate::ArrivesLate(by) => {
                let (world, name, bytes) = (Arc::clone(&self.world), name.to_owned(), bytes.clone());
                scheduler.later(by, move |now| {
                    if !creates || !world.storage.has(&name) {
                        world.storage.put(&name, bytes, now);
                    }
                });
                Err(broken("no answer"))
            }
            Fate::Forgets => {
                self.world.hurts(name);
                storage.claim(name, bytes.clone(), now);
                Ok(())
            }
            Fate::Cuts => {
                self.world.hurts(name);
                storage.claim(name, bytes.clone(), now);
                storage.put(name, bytes.slice(..bytes.len() / 2), now);
                Ok(())
            }
            _ => {
                storage.put(name, bytes.clone(), now);
                Ok(())
            }
        };
        self.reply(&plan)?;
        result
    }

    fn get(&self, name: &str, options: &GetOptions) -> Result<GetResult> {
        let call = if options.head { Call::Head } else { Call::Get };
        let plan = self.ask(call, name)?;
        let found = self.find(call, name);
        self.reply(&plan)?;
        let object = found?;
        let size = object.bytes.len() as u64;
        let range = match &options.range {
            None => 0..size,
            Some(GetRange::Bounded(range)) if range.start < size => range.start..range.end.min(size),
            Some(range) => return Err(broken(&format!("status code: 416 of {range:?}"))),
        };
        let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
        let mut bytes = object.bytes.slice(start..end).to_vec();
        match plan.fate {
            Fate::Shortens => drop(bytes.pop()),
            Fate::Flips => bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1),
            _ => {}
        }
        let body = if options.head { Bytes::new() } else { Bytes::from(bytes) };
        let payload = GetResultPayload::Stream(stream::once(async { Ok(body) }).boxed());
        let (attributes, extensions) = (Default::default(), Default::default());
        Ok(GetResult { payload, meta: meta(name, &object), range, attributes, extensions })
    }

    fn remove(&self, name: &str) -> Result<()> {
        let plan = self.ask(Call::Delete, name)?;
        let found = self.world.storage.delete(name, self.world.scheduler.now());
        self.reply(&plan)?;
        if found { Ok(()) } else { Err(missing(name)) }
    }

    fn show(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let World { scheduler, storage, .. } = &*self.world;
        let plan = self.ask(Call::List, prefix)?;
        let now = scheduler.now();
        let below = |(name, _): &(String, Object)| {
            prefix.is_empty() || name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        };
        let at = if let Fate::Stale(by) = plan.fate { now.saturating_sub(by) } else { now };
        let mut all = storage.list(at);
        if self.believes(Broken::Lists) {
            let claimed = storage.lock().claimed.clone();
            all.retain(|(name, _)| !claimed.contains_key(name));
            all.extend(claimed);
        }
        let mut listed: Vec<_> = all.into_iter().filter(below).collect();
        if plan.fate == Fate::Partial {
            listed.retain(|_| scheduler.draw(|chance| chance.happens(700)));
        }
        self.reply(&plan)?;
        Ok(listed.iter().map(|(name, object)| meta(name, object)).collect())
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait::async_trait]
impl ObjectStore for Line {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.put(to.as_ref(), &Bytes::from(payload), &options.mode)?;
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unimplemented!("nothing is sent in parts")
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.get(from.as_ref(), &options)
    }

    async fn get_ranges(&self, _: &Path, _: &[Range<u64>]) -> Result<Vec<Bytes>> {
        unimplemented!("each range is a call of its own")
    }

    fn delete_stream(&self, names: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        names.and_then(move |name| std::future::ready(this.remove(name.as_ref()).map(|()| name))).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.show(prefix.map_or("", |prefix| prefix.as_ref())) {
            Ok(listed) => stream::iter(listed.into_iter().map(Ok)).boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list_with_offset(&self, _: Option<&Path>, _: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        unimplemented!("a LIST is always a whole one")
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        unimplemented!("there are no folders")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unimplemented!("nothing is copied")
    }

    async fn rename_opts(&self, _: &Path, _: &Path, _: RenameOptions) -> Result<()> {
        unimplemented!("nothing is renamed")
    }
}
