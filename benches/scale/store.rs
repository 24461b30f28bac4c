//! A storage that counts what a command asks of it, and lists packs that nobody ever wrote: their names and
//! sizes are made from a number when a LIST comes by, so that a domain of millions of chunks takes no space.
//!
//! What a command writes and deletes may stay a draft, that lies over the storage and leaves it as it is: so a `forget`
//! or a prune can be measured again and again in the same world, also days later.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use lifeboat::{format::pack::PackKind, id::DomainId, store::Name};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    memory::InMemory, path::Path,
};
use serde::{Deserialize, Serialize};

use super::packs::Packs;

/// Objects that one LIST request shows, on S3.
const PAGE: u64 = 1000;

/// Requests, as S3 counts them: a LIST is as many as it has pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requests {
    pub(crate) put: u64,
    pub(crate) get: u64,
    pub(crate) head: u64,
    pub(crate) list: u64,
    /// Pages of lists of packs: they are in `list` too.
    pub(crate) list_packs: u64,
    pub(crate) delete: u64,
}

impl Requests {
    pub(crate) const fn all(self) -> u64 {
        self.put + self.get + self.head + self.list + self.delete
    }
}

/// What was written and deleted without touching the storage.
#[derive(Debug, Default)]
struct Draft {
    written: InMemory,
    /// Hashes of names: of each of a million objects it keeps little beside what is measured.
    gone: Mutex<HashSet<u64>>,
    /// How long after the objects below it was all written, by the clock of the storage.
    later: Duration,
}

fn hash(name: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.as_ref().hash(&mut hasher);
    hasher.finish()
}

impl Draft {
    fn is_gone(&self, name: &Path) -> bool {
        self.gone.lock().unwrap().contains(&hash(name))
    }

    fn stamped(&self, mut meta: ObjectMeta) -> ObjectMeta {
        meta.last_modified += self.later;
        meta
    }

    async fn put(
        &self,
        below: &dyn ObjectStore,
        to: &Path,
        (payload, options): (PutPayload, PutOptions),
    ) -> Result<PutResult> {
        if options.mode == PutMode::Create && !self.is_gone(to) && below.head(to).await.is_ok() {
            return Err(Error::AlreadyExists { path: to.to_string(), source: "it is there".into() });
        }
        self.written.put_opts(to, payload, options).await
    }

    async fn get(&self, below: &dyn ObjectStore, from: &Path, options: GetOptions) -> Result<GetResult> {
        match self.written.get_opts(from, options.clone()).await {
            Ok(mut found) => {
                found.meta = self.stamped(found.meta);
                Ok(found)
            }
            Err(Error::NotFound { .. }) if !self.is_gone(from) => below.get_opts(from, options).await,
            Err(error) => Err(error),
        }
    }

    /// What stays of a LIST of the storage, and what has come.
    fn list(
        self: Arc<Self>,
        below: BoxStream<'static, Result<ObjectMeta>>,
        prefix: Option<&Path>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (written, this) = (self.written.list(prefix), Arc::clone(&self));
        let stays = move |meta: &Result<ObjectMeta>| {
            std::future::ready(meta.as_ref().map_or(true, |meta| !self.is_gone(&meta.location)))
        };
        let written = written.map(move |meta| meta.map(|meta| this.stamped(meta)));
        below.filter(stays).chain(written).boxed()
    }

    async fn delete(&self, name: &Path) -> Result<()> {
        self.gone.lock().unwrap().insert(hash(name));
        self.written.delete(name).await
    }
}

#[derive(Debug)]
pub(crate) struct Counted {
    inner: Arc<dyn ObjectStore>,
    draft: Mutex<Option<Arc<Draft>>>,
    /// The domain that has packs which are only listed.
    listed: OnceLock<(DomainId, Packs)>,
    requests: Arc<Mutex<Requests>>,
}

impl Counted {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, draft: Mutex::default(), listed: OnceLock::new(), requests: Arc::default() })
    }

    /// What was drafted is forgotten, and from now on everything is a draft, so long after all that is there.
    pub(crate) fn draft(&self, later: Duration) {
        *self.draft.lock().unwrap() = Some(Arc::new(Draft { later, ..Draft::default() }));
    }

    fn drafted(&self) -> Option<Arc<Draft>> {
        self.draft.lock().unwrap().clone()
    }

    /// How much later it is than the clocks say.
    pub(crate) fn later(&self) -> Duration {
        self.drafted().map_or(Duration::ZERO, |draft| draft.later)
    }

    /// From now on the domain has these packs too.
    pub(crate) fn list_also(&self, domain: DomainId, packs: Packs) {
        self.listed.set((domain, packs)).unwrap();
    }

    /// The requests since this was asked last.
    pub(crate) fn take(&self) -> Requests {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    /// From now on these were asked.
    pub(crate) fn replace(&self, requests: Requests) {
        *self.requests.lock().unwrap() = requests;
    }

    fn count(&self, add: impl FnOnce(&mut Requests)) {
        add(&mut self.requests.lock().unwrap());
    }

    fn made_up(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let Some((domain, packs)) = self.listed.get().copied() else { return stream::empty().boxed() };
        let wanted = prefix.map_or("", |prefix| prefix.as_ref());
        if !format!("d/{domain}/packs/").starts_with(wanted) {
            return stream::empty().boxed();
        }
        let meta = move |number| {
            let (id, size) = packs.listed(number);
            let size = u64::from(size);
            let location = Path::from(Name::pack(&domain, PackKind::Data, &id).as_str());
            let last_modified = std::time::UNIX_EPOCH.into();
            Ok(ObjectMeta { location, last_modified, size, e_tag: None, version: None })
        };
        stream::iter((0..packs.count).map(meta)).boxed()
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counted")
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait::async_trait]
impl ObjectStore for Counted {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.count(|requests| requests.put += 1);
        match self.drafted() {
            Some(draft) => draft.put(&*self.inner, to, (payload, options)).await,
            None => self.inner.put_opts(to, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.count(|requests| if options.head { requests.head += 1 } else { requests.get += 1 });
        match self.drafted() {
            Some(draft) => draft.get(&*self.inner, from, options).await,
            None => self.inner.get_opts(from, options).await,
        }
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.count(|requests| requests.get += ranges.len() as u64);
        self.inner.get_ranges(from, ranges).await
    }

    fn delete_stream(&self, names: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, requests, draft) = (Arc::clone(&self.inner), Arc::clone(&self.requests), self.drafted());
        let delete = move |name: Result<Path>| {
            let (inner, draft) = (Arc::clone(&inner), draft.clone());
            requests.lock().unwrap().delete += 1;
            async move {
                let name = name?;
                match draft {
                    Some(draft) => draft.delete(&name).await?,
                    None => inner.delete(&name).await?,
                }
                Ok(name)
            }
        };
        names.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let is_of_packs = prefix.is_some_and(|prefix| prefix.as_ref().ends_with("/packs"));
        let requests = Arc::clone(&self.requests);
        let page = move || {
            let mut requests = requests.lock().unwrap();
            requests.list += 1;
            requests.list_packs += u64::from(is_of_packs);
        };
        page();
        let shown = AtomicU64::new(0);
        let all = self.inner.list(prefix).chain(self.made_up(prefix)).boxed();
        let all = match self.drafted() {
            Some(draft) => draft.list(all, prefix),
            None => all,
        };
        all.inspect(move |_| {
            let before = shown.fetch_add(1, Ordering::Relaxed);
            if before > 0 && before.is_multiple_of(PAGE) {
                page();
            }
        })
        .boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.count(|requests| requests.list += 1);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
