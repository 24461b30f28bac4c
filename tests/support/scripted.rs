//! A store that counts its calls and goes wrong at one of them, as it is told, over another one.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, path::Path,
};

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    Get,
    Head,
    List,
    Delete,
}

/// A call, with the name or prefix that it was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and has done nothing; the next one works.
    FailsBefore,
    /// It is done, and the reply is lost; the next one works.
    FailsAfter,
    /// It fails, and so does everything after it: as if the program had been killed before it.
    StopsBefore,
    /// It is done, and everything after it fails: as if the program had been killed behind it.
    StopsAfter,
    /// A PUT says that it is done and keeps half of the bytes.
    Truncates,
    /// A PUT says that it is done and keeps nothing.
    Lies,
    /// A GET gives one byte less than it says.
    Shortens,
    /// A GET gives one bit otherwise.
    Flips,
}

#[derive(Debug, Default)]
struct Script {
    calls: Vec<Call>,
    /// The number of the call that goes wrong, from 0.
    fault: Option<(usize, Fault)>,
    stopped: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Scripted {
    inner: Arc<dyn ObjectStore>,
    script: Arc<Mutex<Script>>,
}

/// What is to become of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    FailsBefore,
    FailsAfter,
    Truncates,
    Lies,
    Shortens,
    Flips,
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "scripted", source: "the test broke it".into() }
}

impl Scripted {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, script: Arc::default() })
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Forgets the calls so far; from now on the call of this number goes wrong.
    pub(crate) fn begin(&self, fault: Option<(usize, Fault)>) {
        *self.script() = Script { fault, ..Script::default() };
    }

    /// The calls since it began.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.script().calls.clone()
    }

    fn fate(&self, kind: Kind, name: &str) -> Fate {
        let mut script = self.script();
        let number = script.calls.len();
        script.calls.push(Call { kind, name: name.to_owned() });
        if script.stopped {
            return Fate::FailsBefore;
        }
        match script.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault) {
            None => Fate::Works,
            Some(Fault::FailsBefore) => Fate::FailsBefore,
            Some(Fault::FailsAfter) => Fate::FailsAfter,
            Some(Fault::StopsBefore) => {
                script.stopped = true;
                Fate::FailsBefore
            }
            Some(Fault::StopsAfter) => {
                script.stopped = true;
                Fate::Works
            }
            Some(Fault::Truncates) => Fate::Truncates,
            Some(Fault::Lies) => Fate::Lies,
            Some(Fault::Shortens) => Fate::Shortens,
            Some(Fault::Flips) => Fate::Flips,
        }
    }
}

impl std::fmt::Display for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait::async_trait]
impl ObjectStore for Scripted {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fate = self.fate(Kind::Put, to.as_ref());
        if fate == Fate::FailsBefore {
            return Err(broken());
        }
        if fate == Fate::Lies {
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        let payload = if fate == Fate::Truncates {
            let all: Vec<u8> = payload.iter().flatten().copied().collect();
            PutPayload::from(all[..all.len() / 2].to_vec())
        } else {
            payload
        };
        let done = self.inner.put_opts(to, payload, options).await?;
        if fate == Fate::FailsAfter { Err(broken()) } else { Ok(done) }
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = if options.head { Kind::Head } else { Kind::Get };
        let fate = self.fate(kind, from.as_ref());
        if matches!(fate, Fate::FailsBefore | Fate::FailsAfter) {
            return Err(broken());
        }
        let got = self.inner.get_opts(from, options).await?;
        if !matches!(fate, Fate::Shortens | Fate::Flips) || kind == Kind::Head {
            return Ok(got);
        }
        let (meta, range) = (got.meta.clone(), got.range.clone());
        let (attributes, extensions) = (got.attributes.clone(), got.extensions.clone());
        let mut bytes = got.bytes().await?.to_vec();
        if fate == Fate::Shortens {
            bytes.pop();
        } else if let Some(byte) = bytes.first_mut() {
            *byte ^= 1;
        }
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
                let fate = this.fate(Kind::Delete, name.as_ref());
                if fate == Fate::FailsBefore {
                    return Err(broken());
                }
                this.inner.delete(&name).await?;
                if fate == Fate::FailsAfter { Err(broken()) } else { Ok(name) }
            }
        };
        names.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fate(Kind::List, prefix.map_or("", |prefix| prefix.as_ref())) {
            Fate::FailsBefore | Fate::FailsAfter => stream::once(async { Err(broken()) }).boxed(),
            _ => self.inner.list(prefix),
        }
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
