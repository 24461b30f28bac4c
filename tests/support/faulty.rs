//! A store that fails or lies as it is told, over another one.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// How a PUT goes wrong, every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Create needs hard links that the file system does not have.
    NoLinks,
    /// "Done", but nothing is kept.
    Forgets,
    /// "Done", but a create overwrites.
    IgnoresConditions,
    /// "Taken", whatever there is.
    AlwaysTaken,
    /// The disk under a local folder says no.
    Disk(rustix::io::Errno),
}

#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    lie: Mutex<Option<Lie>>,
    gets: AtomicUsize,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, lie: Mutex::default(), gets: AtomicUsize::default() })
    }

    pub(crate) fn tell(&self, lie: Lie) {
        *self.lie.lock().unwrap() = Some(lie);
    }

    /// Objects that were read so far.
    pub(crate) fn gets(&self) -> usize {
        self.gets.load(Ordering::SeqCst)
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faulty")
    }
}

fn local(errno: rustix::io::Errno) -> object_store::Error {
    let source = Box::new(std::io::Error::from(errno));
    object_store::Error::Generic { store: "LocalFileSystem", source }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let lie = *self.lie.lock().unwrap();
        match lie {
            Some(Lie::NoLinks) if options.mode == PutMode::Create => {
                return Err(local(rustix::io::Errno::PERM));
            }
            Some(Lie::Forgets) => {
                return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
            }
            Some(Lie::IgnoresConditions) => options.mode = PutMode::Overwrite,
            Some(Lie::AlwaysTaken) => {
                let (path, source) = (location.to_string(), "taken".into());
                return Err(object_store::Error::AlreadyExists { path, source });
            }
            Some(Lie::Disk(errno)) => return Err(local(errno)),
            _ => {}
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
        self.gets.fetch_add(usize::from(!options.head), Ordering::SeqCst);
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
