//! One facade over `Arc<dyn ObjectStore>`. Promises: an object is created once and read back when the
//! reply is not clear; every call is tried again while that may help, and not longer than allowed; every
//! wait ends soon after the user asks to stop; every error names the object and shows its cause.
//! The only module that names tokio.

use std::{
    ops::Range,
    path::{Path as FilePath, PathBuf},
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};

pub use self::{
    at_once::on_each,
    build::S3Settings,
    create::Sent,
    downloads::{Downloads, Pending},
    local::{Fence, Swept},
    location::Location,
    name::{Folder, Name, Parsed, Prefix},
    past::fuzz_versions,
    uploads::Uploads,
};
use self::{
    failure::{Failure, may_pass},
    local::{Fencing, Sharing},
    pace::{GLANCE, Pace, rest},
    past::{Past, Versioning},
    place::Place,
    transfer::{STALL, collect, next, within},
};
use crate::{
    clock::{Clock, Timestamp},
    error::{Error, ErrorKind, Result},
    progress::Progress,
    random,
};

mod at_once;
mod buffers;
mod build;
mod create;
mod downloads;
mod failure;
mod local;
mod location;
mod name;
mod pace;
mod past;
mod place;
mod transfer;
mod uploads;

/// The first pause between attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long a store that nobody can stop tries a call again at most.
const UNINTERRUPTED_MAX: Duration = Duration::from_secs(30);

/// How to talk to a store.
#[derive(Clone)]
pub struct StoreOptions {
    /// Calls in flight; at 1 each runs on the thread that asked, one after the other.
    pub connections: usize,
    /// Bytes per second that are sent at most.
    pub upload_limit: Option<u64>,
    /// Bytes per second that are received at most.
    pub download_limit: Option<u64>,
    /// How long a call is tried again.
    pub retry_for: Duration,
    /// What S3 needs.
    pub s3: S3Settings,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Counts, and says when to stop.
    pub progress: Arc<Progress>,
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// An object as LIST shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name below the root of the repository; it may be nobody's.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written, by the storage's own clock; from [`Store::head`] S3 gives whole seconds only.
    pub modified: Timestamp,
}

/// What became of an object that was to go.
#[derive(Debug)]
#[must_use = "the storage may have kept it"]
pub enum Deletion {
    /// It is not there any more.
    Gone,
    /// The storage keeps it: a lock holds it, or a policy does not let us delete. Why, in its own words.
    Kept(Error),
}

/// A store of one repository.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    text: String,
    folder: Option<PathBuf>,
    warnings: Vec<String>,
    options: StoreOptions,
    /// Only `None` while it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
    sent: Pace,
    received: Pace,
    /// Why nothing may be written, and what to do about it.
    refusal: OnceLock<(String, String)>,
    /// The server has said that it does not know `If-None-Match`.
    unconditional: AtomicBool,
    /// What tells this storage from others.
    place: Place,
    /// The bucket as it was, if that is what `objects` is.
    past: Option<Past>,
}

/// How long a call is tried.
#[derive(Clone, Copy)]
struct Until {
    /// Tried again for so long.
    patience: Duration,
    /// By the boot-time clock: no attempt begins then or later.
    deadline: Option<Duration>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.0.text)
    }
}

impl Store {
    /// The store of a location. A local folder must exist: see [`Self::create_folder`].
    ///
    /// # Errors
    /// `NoRepository`, `Usage`, no credentials, or no runtime.
    pub fn open(location: &Location, options: StoreOptions) -> Result<Self> {
        let built = build::build(location, &options.s3, None)?;
        Self::new(built, location.to_string(), location.folder(), options)
    }

    /// A versioned bucket as it was at a time of its own clock. Nothing can be written there.
    ///
    /// # Errors
    /// As [`Self::open`]; `Usage` for a folder.
    pub fn open_past(location: &Location, at: Timestamp, options: StoreOptions) -> Result<Self> {
        let built = build::build(location, &options.s3, Some(at))?;
        let store = Self::new(built, format!("{location} as of {}", at.rfc3339()), None, options)?;
        store.refuse_writes(
            "nothing is written to a bucket as it was".to_owned(),
            "Run the command without --at".to_owned(),
        );
        Ok(store)
    }

    /// The time of which this store shows the bucket; `None` when that is now.
    #[must_use]
    pub fn past(&self) -> Option<Timestamp> {
        self.0.past.as_ref().map(Past::at)
    }

    /// What to know about a bucket of which the past is shown: where no versions are kept, what was replaced or
    /// deleted since is not there.
    ///
    /// # Errors
    /// Storage trouble that may pass; `NoRepository` without the bucket.
    pub fn doubt(&self) -> Result<Option<String>> {
        let Some(past) = self.0.past.clone() else { return Ok(None) };
        let kept = self.call(&"the versioning of the bucket", &move |_| {
            let past = past.clone();
            Box::pin(async move { past.versioning().await })
        });
        let loss = "what was replaced or deleted";
        match kept.map_err(|failure| failure.into_error(self)) {
            Ok(Versioning::On) => Ok(None),
            Ok(Versioning::Suspended) => Ok(Some(format!(
                "the bucket keeps versions no more (versioning is suspended): {loss} since then is not shown"
            ))),
            Ok(Versioning::Off) => Ok(Some(format!(
                "the bucket keeps no versions: {loss} is lost, and only what is still there from that time is shown"
            ))),
            // Who may list versions need not be allowed to ask this.
            Err(error) if error.kind() == ErrorKind::Failed => Ok(Some(format!(
                "nobody can tell whether the bucket keeps versions ({error}): if not, {loss} since is not shown"
            ))),
            Err(error) => Err(error),
        }
    }

    /// A store over any `ObjectStore`: the seam for tests.
    ///
    /// # Errors
    /// No runtime.
    pub fn from_object_store(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        options: StoreOptions,
    ) -> Result<Self> {
        let (prefix, warnings, place) = (prefix.to_owned(), Vec::new(), Place::Unknown);
        let built = build::Built { objects, prefix, warnings, place, past: None };
        Self::new(built, "a test store".to_owned(), None, options)
    }

    /// As [`Self::from_object_store`], over what is in a local folder.
    ///
    /// # Errors
    /// No runtime.
    pub fn from_folder_through(
        objects: Arc<dyn ObjectStore>,
        folder: &FilePath,
        options: StoreOptions,
    ) -> Result<Self> {
        let (prefix, warnings) = (String::new(), Vec::new());
        let built = build::Built { objects, prefix, warnings, place: Place::Folder, past: None };
        Self::new(built, folder.display().to_string(), Some(folder.to_owned()), options)
    }

    fn new(
        built: build::Built,
        text: String,
        folder: Option<PathBuf>,
        options: StoreOptions,
    ) -> Result<Self> {
        let runtime = Some(runtime()?);
        let build::Built { objects, prefix, warnings, place, past } = built;
        let (sent, received) = (Pace::new(options.upload_limit), Pace::new(options.download_limit));
        let root = Path::from(prefix);
        let unconditional = AtomicBool::new(false);
        Ok(Self(Arc::new(Inner {
            objects,
            root,
            text,
            folder,
            warnings,
            options,
            runtime,
            sent,
            received,
            refusal: OnceLock::new(),
            unconditional,
            place,
            past,
        })))
    }

    /// From now on nothing is created or deleted here: what would be fails with this message and remedy.
    pub fn refuse_writes(&self, message: String, remedy: String) {
        self.0.refusal.get_or_init(|| (message, remedy));
    }

    fn may_write(&self) -> Result<()> {
        self.0.refusal.get().map_or(Ok(()), |(message, remedy)| {
            Err(Error::new(ErrorKind::Failed, message.clone()).with_remedy(remedy.clone()))
        })
    }

    /// The same store, deaf to the request to stop: for a few small writes of which it must not stay open
    /// whether they were made. Since nobody can stop them they are tried for half a minute at most.
    ///
    /// # Errors
    /// No runtime.
    pub fn uninterrupted(&self) -> Result<Self> {
        let Inner { objects, root, text, folder, options, place, past, .. } = &*self.0;
        let retry_for = options.retry_for.min(UNINTERRUPTED_MAX);
        let options = StoreOptions { progress: Arc::default(), retry_for, ..options.clone() };
        let (sent, received) = (Pace::new(options.upload_limit), Pace::new(options.download_limit));
        Ok(Self(Arc::new(Inner {
            objects: Arc::clone(objects),
            root: root.clone(),
            text: text.clone(),
            folder: folder.clone(),
            warnings: Vec::new(),
            options,
            runtime: Some(runtime()?),
            sent,
            received,
            refusal: self.0.refusal.clone(),
            unconditional: AtomicBool::new(self.0.unconditional.load(Ordering::Relaxed)),
            place: place.clone(),
            past: past.clone(),
        })))
    }

    /// Makes the folder of a new repository; nothing for a bucket.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create_folder(location: &Location) -> Result<()> {
        location.folder().map_or(Ok(()), |folder| local::create_folder(&folder))
    }

    /// A prefix as the keys of objects in a bucket have it: `*`, `?` and what else is not sure to be a name everywhere is
    /// written as `%2A` and so on.
    #[must_use]
    pub fn prefix_of_keys(prefix: &str) -> String {
        Path::from(prefix).to_string()
    }

    /// What the user should know about this store before it is used.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// The address, for people.
    #[must_use]
    pub fn location_text(&self) -> &str {
        &self.0.text
    }

    /// Calls in flight that the user allows.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.options.connections
    }

    /// What tells this storage from any other that holds the same objects; nothing where nobody can tell.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        self.0.place.id(self.folder())
    }

    /// The folder of a local repository.
    #[must_use]
    pub fn folder(&self) -> Option<&FilePath> {
        self.0.folder.as_deref()
    }

    /// What the operation on this store has done so far.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.0.options.progress
    }

    /// How long a call may keep us waiting. One to the past is many, and watches each of them itself.
    fn stall(&self) -> Duration {
        if self.0.past.is_some() { Duration::MAX } else { STALL }
    }

    fn path(&self, name: &str) -> Path {
        name.split('/')
            .filter(|part| !part.is_empty())
            .fold(self.0.root.clone(), |path, part| path.join(part))
    }

    /// Runs a call until it succeeds, fails for good, or has been tried for long enough.
    fn attempt<T: Send>(
        &self,
        what: &dyn std::fmt::Display,
        until: Until,
        call: &dyn Fn(Arc<dyn ObjectStore>) -> BoxFuture<'static, object_store::Result<T>>,
    ) -> std::result::Result<T, Failure> {
        let StoreOptions { clock, progress, .. } = &self.0.options;
        let begun = clock.elapsed();
        let mut pause = FIRST_PAUSE;
        let mut before = None;
        loop {
            progress.check().map_err(Failure::Stopped)?;
            // After a pause too: this machine may have slept through it.
            if until.deadline.is_some_and(|deadline| clock.elapsed() >= deadline) {
                let late = || Failure::Late { what: what.to_string() };
                return Err(before.map_or_else(late, |error| Failure::Call { what: what.to_string(), error }));
            }
            let error = match self.0.run(call(Arc::clone(&self.0.objects))) {
                None => return Err(Failure::Stopped(interruption(progress))),
                Some(Ok(value)) => {
                    progress.answered();
                    return Ok(value);
                }
                Some(Err(error)) => error,
            };
            let waited = clock.elapsed().saturating_sub(begun);
            if !may_pass(&error) || waited + pause > until.patience {
                return Err(Failure::Call { what: what.to_string(), error });
            }
            // Half fixed, half random, so that many clients do not come back at once.
            // Without chance the pauses are all equal, which is no reason to fail.
            let drawn = u16::from_le_bytes(random::bytes().unwrap_or([0, 128]));
            let jitter = f64::from(drawn) / f64::from(u16::MAX);
            rest(pause.mul_f64(0.5 + jitter / 2.0), &**clock, progress).map_err(Failure::Stopped)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
            before = Some(error);
        }
    }

    /// As [`Self::attempt`], for as long as the user allows.
    fn call<T: Send>(
        &self,
        what: &dyn std::fmt::Display,
        call: &dyn Fn(Arc<dyn ObjectStore>) -> BoxFuture<'static, object_store::Result<T>>,
    ) -> std::result::Result<T, Failure> {
        self.attempt(what, Until { patience: self.0.options.retry_for, deadline: None }, call)
    }

    /// A whole object, or nothing when it is longer than `max`.
    fn fetch(
        &self,
        name: &Name,
        max: usize,
        patience: Duration,
    ) -> std::result::Result<Option<Bytes>, Failure> {
        let (path, stall) = (self.path(name.as_str()), self.stall());
        self.attempt(name, Until { patience, deadline: None }, &move |objects| {
            let path = path.clone();
            Box::pin(async move {
                let got = within(stall, objects.get(&path)).await?;
                let size = got.meta.size;
                if size > max as u64 { Ok(None) } else { collect(got, size, STALL).await.map(Some) }
            })
        })
    }

    /// The bytes of an object, at most `max`.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when it is longer; storage trouble.
    pub fn read(&self, name: &Name, max: usize) -> Result<Bytes> {
        let bytes = self
            .fetch(name, max, self.0.options.retry_for)
            .map_err(|failure| failure.into_error(self))?
            .ok_or_else(|| {
                Error::damaged(name, format!("it is longer than the {max} bytes that it may have"))
            })?;
        self.received(bytes)
    }

    /// As [`Self::read`], of an object whose bytes have this BLAKE3. Others are asked for once more: a bit may
    /// have flipped on the way.
    ///
    /// # Errors
    /// As [`Self::read`]; `Damaged` when the bytes are others twice.
    pub fn read_hashed(&self, name: &Name, max: usize, hash: &[u8; 32]) -> Result<Bytes> {
        for _ in 0..2 {
            let bytes = self.read(name, max)?;
            if blake3::hash(&bytes).as_bytes() == hash {
                return Ok(bytes);
            }
        }
        Err(Error::damaged(name, "its bytes are not those that its name stands for"))
    }

    /// A part of an object.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when the object ends before the range does; storage trouble.
    pub fn read_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes> {
        let (path, stall) = (self.path(name.as_str()), self.stall());
        let length = range.end.saturating_sub(range.start);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let short = || Error::damaged(name, "it ends before the part that is needed");
        let wanted = range.clone();
        let result = self.call(name, &move |objects| {
            let options =
                GetOptions { range: Some(GetRange::Bounded(wanted.clone())), ..GetOptions::default() };
            let path = path.clone();
            Box::pin(async move {
                let got = within(stall, objects.get_opts(&path, options)).await?;
                let sent = got.range.end.saturating_sub(got.range.start);
                if sent == length { collect(got, length, STALL).await.map(Some) } else { Ok(None) }
            })
        });
        match result {
            Ok(bytes) => self.received(bytes.ok_or_else(short)?),
            // Each storage has its own error for a range that begins after the end: ask for the length.
            Err(failure @ Failure::Call { error: object_store::Error::Generic { .. }, .. })
                if !failure.is_unclear() =>
            {
                match self.find(name) {
                    Ok(Some(found)) if found.size < range.end => Err(short()),
                    _ => Err(failure.into_error(self)),
                }
            }
            Err(failure) => Err(failure.into_error(self)),
        }
    }

    /// Counts what was received against the limit.
    fn received(&self, bytes: Bytes) -> Result<Bytes> {
        let StoreOptions { clock, progress, .. } = &self.0.options;
        self.0.received.take(bytes.len() as u64, &**clock, progress)?;
        Ok(bytes)
    }

    /// Every object below a prefix, sorted by name, and each once: what a page repeats is not there twice.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn list(&self, prefix: &Prefix) -> Result<Vec<Listed>> {
        let mut listed = self.list_as(prefix, |listed| Some(listed.clone()))?;
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        listed.dedup_by(|a, b| a.name == b.name);
        Ok(listed)
    }

    /// What `keep` makes of each object below a prefix, in no order: a long list of names takes much memory.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn list_as<T: Send + 'static>(
        &self,
        prefix: &Prefix,
        keep: fn(&Listed) -> Option<T>,
    ) -> Result<Vec<T>> {
        let (path, stall) = (self.path(prefix.as_str()), self.stall());
        let what = format!("the list of `{}`", prefix.as_str());
        let root = self.0.root.clone();
        let listed = self.call(&what, &move |objects| {
            let (path, root) = (path.clone(), root.clone());
            Box::pin(async move {
                let mut all = Vec::new();
                let mut pages = objects.list(Some(&path));
                while let Some(meta) = next(&mut pages, stall).await? {
                    let name = meta.location.prefix_match(&root).map(|parts| {
                        parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/")
                    });
                    let name = name.filter(|name| name != local::LOCK);
                    all.extend(name.and_then(|name| keep(&shown(name, &meta))));
                }
                Ok(all)
            })
        });
        listed.map_err(|failure| failure.into_error(self))
    }

    fn find(&self, name: &Name) -> std::result::Result<Option<Listed>, Failure> {
        let (path, stall) = (self.path(name.as_str()), self.stall());
        let result = self.call(name, &move |objects| {
            let path = path.clone();
            Box::pin(async move { within(stall, objects.head(&path)).await })
        });
        match result {
            Ok(meta) => Ok(Some(shown(name.to_string(), &meta))),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// What LIST would show of one object; `None` when it is not there.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn head(&self, name: &Name) -> Result<Option<Listed>> {
        self.find(name).map_err(|failure| failure.into_error(self))
    }

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// Storage trouble, or no right to.
    pub fn delete(&self, name: &Name) -> Result<()> {
        match self.try_delete(name)? {
            Deletion::Gone => Ok(()),
            Deletion::Kept(why) => Err(why),
        }
    }

    /// As [`Self::delete`], where a storage that keeps the object is no error.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn try_delete(&self, name: &Name) -> Result<Deletion> {
        self.may_write()?;
        let path = self.path(name.as_str());
        let result = self.call(name, &move |objects| {
            let path = path.clone();
            Box::pin(async move { within(STALL, objects.delete(&path)).await })
        });
        match result {
            Err(failure) if failure.is_missing() => Ok(Deletion::Gone),
            Err(failure) if failure.is_refusal() => Ok(Deletion::Kept(failure.into_error(self))),
            Err(failure) => Err(failure.into_error(self)),
            Ok(()) => Ok(Deletion::Gone),
        }
    }

    /// Removes what uploads to a local folder left behind when they were killed over an hour ago.
    ///
    /// # Errors
    /// A folder cannot be read, or a file not removed.
    pub fn sweep_temporaries(&self) -> Result<Swept> {
        let swept = self.folder().map(|folder| local::sweep(folder, self.0.options.clock.now()));
        swept.unwrap_or_else(|| Ok(Swept::default()))
    }

    /// A fence that others may share: for those who only add. `None` where there are no locks, as on S3.
    ///
    /// # Errors
    /// `Temporary` when somebody holds it alone for longer than calls are tried; `Interrupted`.
    pub fn fence_shared(&self) -> Result<Option<Fence>> {
        self.fence(Sharing::Shared)
    }

    /// A fence that nobody shares: for those who delete. `None` where there are no locks, as on S3.
    ///
    /// # Errors
    /// As [`Self::fence_shared`].
    pub fn fence_exclusive(&self) -> Result<Option<Fence>> {
        self.fence(Sharing::Exclusive)
    }

    fn fence(&self, sharing: Sharing) -> Result<Option<Fence>> {
        let Some(folder) = self.folder() else { return Ok(None) };
        let StoreOptions { clock, progress, retry_for, .. } = &self.0.options;
        let begun = clock.elapsed();
        loop {
            match local::fence(folder, sharing)? {
                Fencing::Ours(fence) => return Ok(Some(fence)),
                Fencing::Impossible => return Ok(None),
                Fencing::Busy if clock.elapsed().saturating_sub(begun) < *retry_for => {
                    rest(GLANCE, &**clock, progress)?;
                }
                Fencing::Busy => {
                    let text = format!("another program works on the repository at {}", self.0.text);
                    return Err(Error::new(ErrorKind::Temporary, text)
                        .with_remedy("Wait until it is done, or give it longer with --retry-for"));
                }
            }
        }
    }

    /// Uploads that run beside the work, at most `bytes_in_flight` at a time.
    pub fn uploads(&self, bytes_in_flight: usize) -> Uploads {
        Uploads::new(self.clone(), bytes_in_flight)
    }
}

impl Inner {
    /// Runs one call on this thread; `None` when the user asked to stop before it was done.
    #[expect(clippy::disallowed_methods, reason = "the one bridge between the engine and the network")]
    fn run<T>(&self, call: BoxFuture<'static, object_store::Result<T>>) -> Option<object_store::Result<T>> {
        let progress = &self.options.progress;
        let call = async move {
            let stopped = async {
                while !progress.stopping() {
                    tokio::time::sleep(GLANCE).await;
                }
            };
            match select(call, pin!(stopped)).await {
                Either::Left((result, _)) => Some(result),
                Either::Right(_) => None,
            }
        };
        self.runtime().block_on(call)
    }

    /// Runs work on the blocking pool, since a call waits between its attempts.
    fn beside(&self, work: impl FnOnce() + Send + 'static) {
        drop(self.runtime().spawn_blocking(work));
    }

    fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().unwrap_or_else(|| unreachable!("the runtime goes when the store goes"))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The last upload may drop the store from a thread of this very runtime, which cannot wait for itself.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|e| Error::new(ErrorKind::Failed, "could not start the network runtime").with_source(e))
}

fn interruption(progress: &Progress) -> Error {
    match progress.check() {
        Err(error) => error,
        Ok(()) => Error::new(ErrorKind::Interrupted, "interrupted"),
    }
}

fn shown(name: String, meta: &ObjectMeta) -> Listed {
    let modified = Timestamp {
        seconds: meta.last_modified.timestamp(),
        nanoseconds: meta.last_modified.timestamp_subsec_nanos().min(999_999_999),
    };
    Listed { name, size: meta.size, modified }
}
