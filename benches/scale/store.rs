//! A storage that counts what a command asks of it, and lists packs that nobody ever wrote: their names and
//! sizes are made from a number when a LIST comes by, so that a domain of millions of chunks takes no space.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use lifeboat::{format::pack::PackKind, id::DomainId, store::Name};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, path::Path,
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

#[derive(Debug)]
pub(crate) struct Counted {
    inner: Arc<dyn ObjectStore>,
    /// The domain that has packs which are only listed.
    listed: OnceLock<(DomainId, Packs)>,
    requests: Arc<Mutex<Requests>>,
}

impl Counted {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, listed: OnceLock::new(), requests: Arc::default() })
    }

    /// From now on the domain has these packs too.
    pub(crate) fn list_also(&self, domain: DomainId, packs: Packs) {
        self.listed.set((domain, packs)).unwrap();
    }

    /// The requests since this was asked last.
    pub(crate) fn take(&self) -> Requests {
        std::mem::take(&mut self.requests.lock().unwrap())
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
        self.inner.put_opts(to, payload, options).await
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
        self.inner.get_opts(from, options).await
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.count(|requests| requests.get += ranges.len() as u64);
        self.inner.get_ranges(from, ranges).await
    }

    fn delete_stream(&self, names: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, requests) = (Arc::clone(&self.inner), Arc::clone(&self.requests));
        let delete = move |name: Result<Path>| {
            let inner = Arc::clone(&inner);
            requests.lock().unwrap().delete += 1;
            async move {
                let name = name?;
                inner.delete(&name).await.map(|()| name)
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
        let all = self.inner.list(prefix).chain(self.made_up(prefix));
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
