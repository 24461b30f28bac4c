//! A store that stands before another one, keeps a list of the calls, and asks what is to become of each.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt, TryFutureExt, TryStreamExt, future,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, Result, path::Path,
};

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A PUT that must not replace anything.
    Create,
    Overwrite,
    Get,
    Head,
    List,
    Delete,
}

impl Kind {
    pub(crate) const fn is_put(self) -> bool {
        matches!(self, Self::Create | Self::Overwrite)
    }

    pub(crate) const fn changes_something(self) -> bool {
        self.is_put() || matches!(self, Self::Delete)
    }
}

/// A call, with the name or prefix that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// From 0 since the interceptor came.
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

/// What is to become of one call.
pub(crate) enum Fate {
    Works,
    /// Nothing is done, and this is the answer.
    Fails(Error),
    /// It is done, and the answer is an error.
    LosesReply,
    /// It works after so long.
    Waits(Duration),
    /// There is never an answer.
    Hangs,
    /// Another store does it.
    Elsewhere(Arc<dyn ObjectStore>),
    /// A PUT keeps other bytes, a GET gives others.
    Changes(fn(&mut Vec<u8>)),
    /// A GET of a range gives the bytes one before or behind, and says so.
    Shifts,
    /// A create overwrites.
    Overwrites,
    /// A create looks whether the name is free, waits for the others, and then overwrites.
    LooksFirst(Arc<tokio::sync::Barrier>),
    /// A LIST shows something else.
    Shows(fn(&mut Vec<ObjectMeta>)),
}

/// Decides about each call. It is asked on the thread that makes the call, before anything is done, and may take
/// its time; if it uses a store itself it must do so on another thread, since this one is busy.
pub(crate) trait Interceptor: Send + Sync {
    fn fate(&self, call: &Call) -> Fate;
}

impl<F: Fn(&Call) -> Fate + Send + Sync> Interceptor for F {
    fn fate(&self, call: &Call) -> Fate {
        self(call)
    }
}

struct Asked {
    calls: Vec<Call>,
    interceptor: Arc<dyn Interceptor>,
}

#[derive(Clone)]
pub(crate) struct Intercepted {
    inner: Arc<dyn ObjectStore>,
    asked: Arc<Mutex<Asked>>,
}

/// An error that may pass.
pub(crate) fn broken() -> Error {
    Error::Generic { store: "test", source: "the test broke it".into() }
}

impl Intercepted {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, interceptor: impl Interceptor + 'static) -> Arc<Self> {
        let asked = Asked { calls: Vec::new(), interceptor: Arc::new(interceptor) };
        Arc::new(Self { inner, asked: Arc::new(Mutex::new(asked)) })
    }

    /// One that only keeps the list of calls.
    pub(crate) fn watching(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Self::new(inner, |_: &Call| Fate::Works)
    }

    /// From now on this one is asked. The list of calls begins anew.
    pub(crate) fn intercept(&self, interceptor: impl Interceptor + 'static) {
        *self.asked.lock().unwrap() = Asked { calls: Vec::new(), interceptor: Arc::new(interceptor) };
    }

    /// From now on every call works. The list of calls begins anew.
    pub(crate) fn let_through(&self) {
        self.intercept(|_: &Call| Fate::Works);
    }

    /// The calls since the interceptor came.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.asked.lock().unwrap().calls.clone()
    }

    /// How many calls of a kind came since the interceptor did.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.calls().iter().filter(|call| call.kind == kind).count()
    }

    fn fate(&self, kind: Kind, name: Option<&Path>) -> Result<Fate> {
        let (call, interceptor) = {
            let mut asked = self.asked.lock().unwrap();
            let name = name.map_or_else(String::new, Path::to_string);
            let call = Call { number: asked.calls.len(), kind, name };
            asked.calls.push(call.clone());
            (call, Arc::clone(&asked.interceptor))
        };
        match interceptor.fate(&call) {
            Fate::Fails(error) => Err(error),
            fate => Ok(fate),
        }
    }

    /// Who does it, once its time has come.
    async fn doer(&self, fate: &Fate) -> Arc<dyn ObjectStore> {
        match fate {
            Fate::Waits(time) => tokio::time::sleep(*time).await,
            Fate::Hangs => future::pending().await,
            Fate::Elsewhere(other) => return Arc::clone(other),
            _ => {}
        }
        Arc::clone(&self.inner)
    }
}

fn reply<T>(fate: &Fate, done: T) -> Result<T> {
    if matches!(fate, Fate::LosesReply) { Err(broken()) } else { Ok(done) }
}

/// The range one before, or behind where nothing is before.
fn beside(range: Option<GetRange>) -> Option<GetRange> {
    range.map(|range| match range {
        GetRange::Bounded(Range { start: 0, end }) => GetRange::Bounded(1..end + 1),
        GetRange::Bounded(Range { start, end }) => GetRange::Bounded(start - 1..end - 1),
        other => other,
    })
}

impl std::fmt::Debug for Intercepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Intercepted")
    }
}

impl std::fmt::Display for Intercepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Intercepted")
    }
}

/// What the engine never asks for is passed on without a question.
#[deny(clippy::missing_trait_methods)]
#[async_trait::async_trait]
impl ObjectStore for Intercepted {
    async fn put_opts(
        &self,
        to: &Path,
        mut payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let kind = if options.mode == PutMode::Create { Kind::Create } else { Kind::Overwrite };
        let fate = self.fate(kind, Some(to))?;
        let doer = self.doer(&fate).await;
        match &fate {
            Fate::Changes(change) => {
                let mut bytes: Vec<u8> = payload.iter().flatten().copied().collect();
                change(&mut bytes);
                payload = bytes.into();
            }
            Fate::Overwrites => options.mode = PutMode::Overwrite,
            Fate::LooksFirst(others) if kind == Kind::Create => {
                let found = doer.head(to).await;
                others.wait().await;
                if found.is_ok() {
                    return Err(Error::AlreadyExists { path: to.to_string(), source: "taken".into() });
                }
                options.mode = PutMode::Overwrite;
            }
            _ => {}
        }
        let done = doer.put_opts(to, payload, options).await?;
        reply(&fate, done)
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, mut options: GetOptions) -> Result<GetResult> {
        let fate = self.fate(if options.head { Kind::Head } else { Kind::Get }, Some(from))?;
        let doer = self.doer(&fate).await;
        if matches!(fate, Fate::Shifts) {
            options.range = beside(options.range);
        }
        let head = options.head;
        let got = reply(&fate, doer.get_opts(from, options).await?)?;
        let Fate::Changes(change) = fate else { return Ok(got) };
        if head {
            return Ok(got);
        }
        let (meta, range) = (got.meta.clone(), got.range.clone());
        let (attributes, extensions) = (got.attributes.clone(), got.extensions.clone());
        let mut bytes = got.bytes().await?.to_vec();
        change(&mut bytes);
        let payload = GetResultPayload::Stream(stream::once(async { Ok(Bytes::from(bytes)) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(from, ranges).await
    }

    fn delete_stream(&self, names: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |name: Path| {
            let this = this.clone();
            async move {
                let fate = this.fate(Kind::Delete, Some(&name))?;
                this.doer(&fate).await.delete(&name).await?;
                reply(&fate, name)
            }
        };
        names.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, fate, prefix) = (self.clone(), self.fate(Kind::List, prefix), prefix.cloned());
        let listed = async move {
            let fate = fate?;
            let listed = reply(&fate, this.doer(&fate).await.list(prefix.as_ref()))?;
            let Fate::Shows(change) = fate else { return Ok(listed) };
            let mut all: Vec<ObjectMeta> = listed.try_collect().await?;
            change(&mut all);
            Ok(stream::iter(all.into_iter().map(Ok)).boxed())
        };
        listed.boxed().try_flatten_stream().boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
