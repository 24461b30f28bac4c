//! One facade over `Arc<dyn ObjectStore>`. Promises: an object is created once and read back when the
//! reply is not clear; every call is tried again while that may help, and not longer than allowed;
//! every error names the object and shows its cause. The only module that names tokio.

use std::{
    error::Error as StdError,
    ops::Range,
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};

pub use self::{
    build::S3Settings,
    downloads::{Downloads, Pending},
    location::Location,
    name::{Folder, Name, Parsed, Prefix},
};
use crate::{
    clock::{Clock, Timestamp},
    error::{Error, ErrorKind, Result},
    progress::Progress,
};

mod build;
mod downloads;
mod location;
mod name;

/// An attempt may take this long beside the time that its bytes need.
const ATTEMPT_TIME: Duration = Duration::from_secs(60);
/// The slowest line that an attempt must survive, in bytes per second.
const SLOWEST_LINE: u64 = 16 << 10;
/// The first pause between attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

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
    /// When it was written, by the storage's own clock.
    pub modified: Timestamp,
}

/// A store of one repository.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    text: String,
    folder: Option<PathBuf>,
    options: StoreOptions,
    runtime: tokio::runtime::Runtime,
    sent: Mutex<Duration>,
    received: Mutex<Duration>,
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
    /// `NoRepository`, `Usage`, or no runtime.
    pub fn open(location: &Location, options: StoreOptions) -> Result<Self> {
        let (objects, prefix) = build::build(location, &options.s3)?;
        let (text, folder) = match location {
            Location::Folder(folder) => (folder.display().to_string(), Some(folder.clone())),
            Location::Bucket { bucket, prefix, .. } => (format!("s3://{bucket}/{prefix}"), None),
        };
        Self::new(objects, &prefix, text, folder, options)
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
        Self::new(objects, prefix, "a test store".to_owned(), None, options)
    }

    fn new(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        text: String,
        folder: Option<PathBuf>,
        options: StoreOptions,
    ) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(
                |e| Error::new(ErrorKind::Failed, "could not start the network runtime").with_source(e),
            )?;
        let root = Path::from(prefix);
        let (sent, received) = (Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { objects, root, text, folder, options, runtime, sent, received })))
    }

    /// Makes the folder of a new repository; nothing for a bucket.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create_folder(location: &Location) -> Result<()> {
        if let Location::Folder(folder) = location {
            std::fs::create_dir_all(folder).map_err(|e| {
                Error::new(ErrorKind::Failed, format!("could not create the folder {}", folder.display()))
                    .with_source(e)
            })?;
        }
        Ok(())
    }

    /// The address, for people.
    #[must_use]
    pub fn location_text(&self) -> &str {
        &self.0.text
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

    fn path(&self, name: &str) -> Path {
        name.split('/')
            .filter(|part| !part.is_empty())
            .fold(self.0.root.clone(), |path, part| path.join(part))
    }

    /// Runs a call until it succeeds, fails for good, or has been tried for long enough.
    fn attempt<T: Send>(
        &self,
        what: &dyn std::fmt::Display,
        bytes: u64,
        call: &dyn Fn() -> BoxFuture<'static, object_store::Result<T>>,
    ) -> std::result::Result<T, Failure> {
        let clock = &self.0.options.clock;
        let begun = clock.elapsed();
        let limit = ATTEMPT_TIME + Duration::from_secs(bytes / SLOWEST_LINE);
        let mut pause = FIRST_PAUSE;
        loop {
            let result = self.0.block_on(async { tokio::time::timeout(limit, call()).await });
            let error = match result {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(late) => object_store::Error::Generic { store: "store", source: Box::new(late) },
            };
            let waited = clock.elapsed().saturating_sub(begun);
            if !may_pass(&error) || waited + pause > self.0.options.retry_for {
                return Err(Failure { what: what.to_string(), error });
            }
            // Half fixed, half random, so that many clients do not come back at once.
            let jitter = f64::from(u16::from_le_bytes(crate_random())) / f64::from(u16::MAX);
            clock.sleep(pause.mul_f64(0.5 + jitter / 2.0));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Creates an object, once. When the reply is not clear it is read back and compared.
    ///
    /// # Errors
    /// Another object has that name; storage trouble.
    pub fn create(&self, name: &Name, bytes: Bytes) -> Result<()> {
        self.create_parts(name, vec![bytes])
    }

    /// As [`Self::create`], from several pieces.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_parts(&self, name: &Name, parts: Vec<Bytes>) -> Result<()> {
        let payload: PutPayload = parts.into_iter().collect();
        let size = payload.content_length() as u64;
        pace(&self.0.sent, self.0.options.upload_limit, size, &*self.0.options.clock);
        let path = self.path(name.as_str());
        let put = |mode: PutMode| {
            let (objects, path, payload) = (Arc::clone(&self.0.objects), path.clone(), payload.clone());
            self.attempt(name, size, &move || {
                let (objects, path, payload) = (Arc::clone(&objects), path.clone(), payload.clone());
                let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
                Box::pin(async move { objects.put_opts(&path, payload, options).await.map(drop) })
            })
        };
        let result = match put(PutMode::Create) {
            // exFAT and some network mounts have no hard links, which a local create is made of.
            Err(failure) if self.0.folder.is_some() && failure.lacks_links() => {
                if self.head(name)?.is_some() { Err(failure) } else { put(PutMode::Overwrite) }
            }
            other => other,
        };
        match result {
            Ok(()) if !name.is_not_content_addressed() => Ok(()),
            Ok(()) => self.compare(name, &payload, None),
            Err(failure) if failure.is_ambiguous() => self.compare(name, &payload, Some(failure)),
            Err(failure) => Err(failure.into_error(self)),
        }
    }

    /// Success only if the object is there with exactly these bytes.
    fn compare(&self, name: &Name, payload: &PutPayload, failure: Option<Failure>) -> Result<()> {
        let expected = payload.content_length();
        match self.read(name, expected + 1) {
            Ok(bytes) if bytes == payload.iter().flatten().copied().collect::<Vec<u8>>() => Ok(()),
            Ok(_) => Err(Error::new(ErrorKind::Failed, format!("{name} exists already with other content"))
                .with_remedy("Another program writes there, or a second `init` ran: look before you go on")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(failure.map_or(error, |f| f.into_error(self)))
            }
            Err(error) => Err(error),
        }
    }

    /// The bytes of an object, at most `max`.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when it is longer; storage trouble.
    pub fn read(&self, name: &Name, max: usize) -> Result<Bytes> {
        let (objects, path) = (Arc::clone(&self.0.objects), self.path(name.as_str()));
        let bytes = self
            .attempt(name, max as u64, &move || {
                let (objects, path) = (Arc::clone(&objects), path.clone());
                Box::pin(async move {
                    let got = objects.get(&path).await?;
                    if got.meta.size > max as u64 { Ok(None) } else { got.bytes().await.map(Some) }
                })
            })
            .map_err(|failure| failure.into_error(self))?
            .ok_or_else(|| {
                Error::damaged(name, format!("it is longer than the {max} bytes that it may have"))
            })?;
        pace(&self.0.received, self.0.options.download_limit, bytes.len() as u64, &*self.0.options.clock);
        Ok(bytes)
    }

    /// A part of an object.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when the object ends before the range does; storage trouble.
    pub fn read_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes> {
        let (objects, path) = (Arc::clone(&self.0.objects), self.path(name.as_str()));
        let length = range.end.saturating_sub(range.start);
        let bytes = self
            .attempt(name, length, &move || {
                let (objects, path, range) = (Arc::clone(&objects), path.clone(), range.clone());
                Box::pin(async move { objects.get_range(&path, range).await })
            })
            .map_err(|failure| failure.into_error(self))?;
        if bytes.len() as u64 != length {
            return Err(Error::damaged(name, "it ends before the part that is needed"));
        }
        pace(&self.0.received, self.0.options.download_limit, length, &*self.0.options.clock);
        Ok(bytes)
    }

    /// Every object below a prefix, sorted by name.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn list(&self, prefix: &Prefix) -> Result<Vec<Listed>> {
        let (objects, path) = (Arc::clone(&self.0.objects), self.path(prefix.as_str()));
        let what = format!("the list of {}/{}", self.0.text, prefix.as_str());
        let root = self.0.root.clone();
        let mut listed = self
            .attempt(&what, 1 << 20, &move || {
                let (objects, path, root) = (Arc::clone(&objects), path.clone(), root.clone());
                Box::pin(async move {
                    let mut all = Vec::new();
                    let mut pages = objects.list(Some(&path));
                    while let Some(meta) = pages.next().await {
                        let meta = meta?;
                        let name = meta.location.prefix_match(&root).map(|parts| {
                            parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/")
                        });
                        let modified = Timestamp {
                            seconds: meta.last_modified.timestamp(),
                            nanoseconds: meta.last_modified.timestamp_subsec_nanos().min(999_999_999),
                        };
                        all.extend(name.map(|name| Listed { name, size: meta.size, modified }));
                    }
                    Ok(all)
                })
            })
            .map_err(|failure| failure.into_error(self))?;
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// What LIST would show of one object; `None` when it is not there.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn head(&self, name: &Name) -> Result<Option<Listed>> {
        let (objects, path) = (Arc::clone(&self.0.objects), self.path(name.as_str()));
        let result = self.attempt(name, 0, &move || {
            let (objects, path) = (Arc::clone(&objects), path.clone());
            Box::pin(async move { objects.head(&path).await })
        });
        match result {
            Ok(meta) => Ok(Some(Listed {
                name: name.as_str().to_owned(),
                size: meta.size,
                modified: Timestamp {
                    seconds: meta.last_modified.timestamp(),
                    nanoseconds: meta.last_modified.timestamp_subsec_nanos().min(999_999_999),
                },
            })),
            Err(failure) if matches!(failure.error, object_store::Error::NotFound { .. }) => Ok(None),
            Err(failure) => Err(failure.into_error(self)),
        }
    }

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// Storage trouble, or no right to.
    pub fn delete(&self, name: &Name) -> Result<()> {
        let (objects, path) = (Arc::clone(&self.0.objects), self.path(name.as_str()));
        let result = self.attempt(name, 0, &move || {
            let (objects, path) = (Arc::clone(&objects), path.clone());
            Box::pin(async move { objects.delete(&path).await })
        });
        match result {
            Err(failure) if !matches!(failure.error, object_store::Error::NotFound { .. }) => {
                Err(failure.into_error(self))
            }
            _ => Ok(()),
        }
    }

    /// Uploads that run beside the work, at most `bytes_in_flight` at a time.
    pub fn uploads(&self, bytes_in_flight: usize) -> Uploads {
        let shared = Arc::new((Mutex::new(InFlight::default()), Condvar::new()));
        Uploads { store: self.clone(), limit: bytes_in_flight, shared }
    }
}

impl Inner {
    #[expect(clippy::disallowed_methods, reason = "the one bridge between the engine and the network")]
    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

#[derive(Debug, Default)]
struct InFlight {
    bytes: usize,
    calls: usize,
    failed: Option<Error>,
}

/// Uploads under way. With one connection each happens at once, on the thread that asks.
#[derive(Debug)]
#[must_use = "uploads that nobody waits for may not have happened"]
pub struct Uploads {
    store: Store,
    limit: usize,
    shared: Arc<(Mutex<InFlight>, Condvar)>,
}

impl Uploads {
    /// Begins an upload; waits while too much is in flight.
    ///
    /// # Errors
    /// The first failure of an earlier one.
    pub fn create(&self, name: Name, parts: Vec<Bytes>) -> Result<()> {
        let connections = self.store.0.options.connections;
        if connections <= 1 {
            return self.store.create_parts(&name, parts);
        }
        let size: usize = parts.iter().map(Bytes::len).sum();
        let (state, changed) = &*self.shared;
        let mut flight = state.lock().unwrap_or_else(PoisonError::into_inner);
        while flight.calls > 0 && (flight.bytes + size > self.limit || flight.calls >= connections) {
            flight = changed.wait(flight).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(error) = flight.failed.take() {
            return Err(error);
        }
        flight.bytes += size;
        flight.calls += 1;
        drop(flight);
        let (store, shared) = (self.store.clone(), Arc::clone(&self.shared));
        // The blocking pool, since a call waits between its attempts.
        let task = move || {
            let result = store.create_parts(&name, parts);
            let (state, changed) = &*shared;
            let mut flight = state.lock().unwrap_or_else(PoisonError::into_inner);
            flight.bytes -= size;
            flight.calls -= 1;
            if let Err(error) = result {
                flight.failed.get_or_insert(error);
            }
            changed.notify_all();
        };
        drop(self.store.0.runtime.spawn_blocking(task));
        Ok(())
    }

    /// Waits for all that are under way.
    ///
    /// # Errors
    /// The first failure.
    pub fn wait(&self) -> Result<()> {
        let (state, changed) = &*self.shared;
        let mut flight = state.lock().unwrap_or_else(PoisonError::into_inner);
        while flight.calls > 0 {
            flight = changed.wait(flight).unwrap_or_else(PoisonError::into_inner);
        }
        flight.failed.take().map_or(Ok(()), Err)
    }
}

/// Takes `bytes` from a budget of `limit` bytes a second, by waiting until they are due.
fn pace(next: &Mutex<Duration>, limit: Option<u64>, bytes: u64, clock: &dyn Clock) {
    let Some(limit) = limit.filter(|limit| *limit > 0) else { return };
    let now = clock.elapsed();
    let mut due = next.lock().unwrap_or_else(PoisonError::into_inner);
    let begin = (*due).max(now);
    *due = begin + Duration::from_millis(bytes.saturating_mul(1000) / limit);
    drop(due);
    clock.sleep(begin.saturating_sub(now));
}

fn crate_random() -> [u8; 2] {
    let mut bytes = [0; 2];
    // Without randomness the pauses are all equal, which is no reason to fail.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = [0, 128];
    }
    bytes
}

/// A call that failed for good.
struct Failure {
    what: String,
    error: object_store::Error,
}

/// The causes of an error, outermost first.
fn causes(error: &dyn StdError) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        texts.push(cause.to_string());
        source = cause.source();
    }
    texts
}

fn io_error(error: &(dyn StdError + 'static)) -> Option<i32> {
    let mut source = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return Some(io);
        }
        source = cause.source();
    }
    None
}

/// Whether it may pass by itself: servers that are overloaded or restarted, connections that break.
fn may_pass(error: &object_store::Error) -> bool {
    let object_store::Error::Generic { store, .. } = error else { return false };
    // What a local file system says does not change by waiting.
    if *store == "LocalFileSystem" {
        return false;
    }
    let text = causes(error).join(" ");
    let final_word = ["BadScheme", "NoSuchBucket", "status: 400", "400 Bad Request", "builder error"];
    !final_word.iter().any(|word| text.contains(word))
}

impl Failure {
    fn lacks_links(&self) -> bool {
        use rustix::io::Errno;
        let codes = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::XDEV, Errno::NOSYS, Errno::MLINK];
        io_error(&self.error).is_some_and(|code| codes.iter().any(|errno| errno.raw_os_error() == code))
    }

    const fn is_ambiguous(&self) -> bool {
        use object_store::Error as E;
        matches!(self.error, E::AlreadyExists { .. } | E::Precondition { .. } | E::Generic { .. })
    }

    fn into_error(self, store: &Store) -> Error {
        use object_store::Error as E;
        let Self { what, error } = self;
        let causes = causes(&error);
        let innermost = causes.last().cloned().unwrap_or_default();
        let all = causes.join(": ");
        let place = &store.0.text;
        let made = match &error {
            E::NotFound { .. } if all.contains("NoSuchBucket") => {
                Error::new(ErrorKind::NoRepository, format!("the bucket of {place} does not exist"))
                    .with_remedy("Create it first, for example with `aws s3 mb`")
            }
            E::NotFound { .. } => Error::new(ErrorKind::NotFound, format!("{what} is not there")),
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                let hint = if all.contains("RequestTimeTooSkewed") {
                    "The clock of this machine is wrong: set it"
                } else {
                    "Check the storage credentials and what their policy allows"
                };
                Error::new(ErrorKind::Failed, format!("{place} refuses access to {what}")).with_remedy(hint)
            }
            _ if io_error(&error) == Some(rustix::io::Errno::NOSPC.raw_os_error()) => Error::new(
                ErrorKind::Failed,
                format!("the repository at {place} is full: {what} was not written"),
            )
            .with_remedy("Free space there and run the command again; nothing that was stored is lost"),
            E::Generic { .. } if all.contains("NoSuchBucket") => {
                Error::new(ErrorKind::NoRepository, format!("the bucket of {place} does not exist"))
                    .with_remedy("Create it first, for example with `aws s3 mb`")
            }
            E::Generic { .. } if may_pass(&error) => {
                Error::new(ErrorKind::Temporary, format!("{place} does not answer for {what}: {innermost}"))
                    .with_remedy("Check the network and the storage, then run the command again")
            }
            _ => Error::new(ErrorKind::Failed, format!("{place} failed for {what}: {innermost}")),
        };
        made.with_source(error)
    }
}
