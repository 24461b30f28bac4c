//! A store that asks before each call: so a test can do something else just then, or let the call fail.

use std::sync::Mutex;

use futures::{FutureExt, StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};

/// Says whether a call goes on; `"put"`, `"get"`, `"list"` or `"delete"`.
pub(crate) type Ask = Box<dyn FnMut(&'static str) -> bool + Send>;

/// Whether a create may overwrite, as on S3 stores that know no conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conditions {
    Kept,
    Ignored,
}

pub(crate) struct Watched {
    inner: std::sync::Arc<InMemory>,
    conditions: Conditions,
    ask: Mutex<Ask>,
}

impl Watched {
    pub(crate) fn new(inner: std::sync::Arc<InMemory>, conditions: Conditions, ask: Ask) -> Self {
        Self { inner, conditions, ask: Mutex::new(ask) }
    }

    fn goes_on(&self, call: &'static str) -> Result<()> {
        if self.ask.lock().unwrap()(call) {
            return Ok(());
        }
        let source = Box::new(std::io::Error::from(rustix::io::Errno::IO));
        Err(object_store::Error::Generic { store: "LocalFileSystem", source })
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Watched {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        self.goes_on("put")?;
        if self.conditions == Conditions::Ignored {
            options.mode = PutMode::Overwrite;
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.goes_on("get")?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.goes_on("delete") {
            Ok(()) => self.inner.delete_stream(locations),
            Err(error) => async { Err(error) }.into_stream().boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.goes_on("list") {
            Ok(()) => self.inner.list(prefix),
            Err(error) => async { Err(error) }.into_stream().boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
