//! A versioned bucket as it was at a time. Promise: what LIST shows and GET gives is, of each key, the newest version
//! that the storage had then; nothing can be written. `object_store` lists no versions: the one question that it does
//! not know, `GET ?versions`, is signed by its signer and sent by its client.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures::{StreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    aws::AmazonS3,
    client::{HttpClient, HttpRequest, HttpRequestBody},
    path::Path,
    signer::{Method, SignedUrlOptions, Signer},
};

pub(crate) use self::page::Versioning;
use self::{
    choice::{Choice, Was},
    page::{Entry, Fault, Marker, PAGE_BYTES_MAX, Page},
};
use super::{
    failure::Broken,
    transfer::{STALL, next, within},
};
use crate::clock::Timestamp;

mod choice;
mod page;
#[cfg(test)]
mod tests;

/// So long a signed question may be asked.
const SIGNED_FOR: Duration = Duration::from_secs(900);
/// Pages in a row that hold nothing and say that there is more.
const EMPTY_PAGES_MAX: u32 = 100;
/// Bytes of the names that are remembered, twice; with what a map adds.
const KNOWN_BYTES_MAX: usize = 4 << 20;
/// What one of them takes beside its texts.
const KNOWN_BYTES: usize = 160;

/// A door for `fuzz/`: reads one answer of a storage, and says whether it was accepted.
#[doc(hidden)]
#[must_use]
pub fn fuzz_versions(bytes: &[u8]) -> bool {
    let versioning = page::versioning(bytes).is_ok();
    let Ok(Page { entries, next }) = page::parse(bytes) else { return versioning };
    let mut choice = Choice::new(Timestamp::from_seconds(1_800_000_000), String::new());
    let mut last = String::new();
    for entry in entries {
        match choice.take(entry) {
            Ok(Some(was)) => {
                assert!(last.is_empty() || last < was.key, "each key comes once, and in order");
                // What is no path is passed over, and nothing falls over it.
                std::hint::black_box(meta_of(&was));
                last = was.key;
            }
            Ok(None) => {}
            Err(why) => assert!(why.contains("versions"), "of one page every key is in order: {why}"),
        }
    }
    !next.is_some_and(|next| goes_on(Some(&next), Some(&next)))
}

/// A bucket as it was.
#[derive(Clone)]
pub(super) struct Past(Arc<Inner>);

struct Inner {
    bucket: AmazonS3,
    client: HttpClient,
    at: Timestamp,
    known: Mutex<Known>,
}

impl std::fmt::Debug for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Past({})", self.0.at.rfc3339())
    }
}

impl std::fmt::Display for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} as of {}", self.0.bucket, self.0.at.rfc3339())
    }
}

/// Which versions counted, of the keys that were looked up last: every range of a pack needs it. What was not used
/// for a generation is forgotten.
#[derive(Default)]
struct Known {
    young: HashMap<String, Was>,
    old: HashMap<String, Was>,
    bytes: usize,
}

impl Known {
    fn get(&mut self, key: &str) -> Option<Was> {
        if let Some(was) = self.young.get(key) {
            return Some(was.clone());
        }
        let was = self.old.remove(key)?;
        self.keep(&was);
        Some(was)
    }

    fn keep(&mut self, was: &Was) {
        self.bytes += 2 * was.key.len() + was.version.len() + KNOWN_BYTES;
        if self.bytes > KNOWN_BYTES_MAX {
            (self.old, self.bytes) = (std::mem::take(&mut self.young), 0);
        }
        self.young.insert(was.key.clone(), was.clone());
    }
}

/// The error for what waiting does not mend.
fn unusable(why: String) -> Error {
    Error::NotSupported { source: Box::new(Broken(why)) }
}

/// What an error of a storage without versions says; `failure.rs` knows it.
pub(super) const LISTS_NO_VERSIONS: &str = "it lists no versions of objects";

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Other => unusable(LISTS_NO_VERSIONS.to_owned()),
            Fault::Broken(why) => Broken(why).into(),
        }
    }
}

fn read_only() -> Error {
    unusable("a bucket as it was cannot be written".to_owned())
}

fn meta_of(was: &Was) -> Option<ObjectMeta> {
    let location = Path::parse(&was.key).ok().filter(|path| path.as_ref() == was.key)?;
    let seconds = u64::try_from(was.modified.seconds).unwrap_or(0);
    let modified = SystemTime::UNIX_EPOCH + Duration::new(seconds, was.modified.nanoseconds);
    let version = Some(was.version.clone());
    Some(ObjectMeta { location, last_modified: modified.into(), size: was.size, e_tag: None, version })
}

impl Past {
    /// A bucket, the client that reaches it, and a time of its clock.
    pub(super) fn new(bucket: AmazonS3, client: HttpClient, at: Timestamp) -> Self {
        Self(Arc::new(Inner { bucket, client, at, known: Mutex::default() }))
    }

    /// When it was.
    pub(super) fn at(&self) -> Timestamp {
        self.0.at
    }

    /// Whether the bucket keeps versions now.
    pub(super) async fn versioning(&self) -> Result<Versioning> {
        Ok(page::versioning(&self.0.ask(vec![("versioning", String::new())]).await?)?)
    }

    /// The version of a key that counted.
    async fn find(&self, location: &Path) -> Result<Was> {
        let key = location.as_ref();
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner).get(key);
        if let Some(was) = known {
            return Ok(was);
        }
        let mut walk = Walk::new(self.clone(), key.to_owned(), Extent::One);
        let was = walk.next().await?.filter(|was| was.key == key);
        was.ok_or_else(|| Error::NotFound {
            path: key.to_owned(),
            source: Box::new(Broken("no version of it counted then".to_owned())),
        })
    }
}

impl Inner {
    /// Asks the bucket one question, and gives the answer of at most [`PAGE_BYTES_MAX`].
    async fn ask(&self, query: Vec<(&'static str, String)>) -> Result<Vec<u8>> {
        let options = SignedUrlOptions::new().with_query(query);
        let bucket = Path::default();
        let url = self.bucket.signed_url_opts(Method::GET, &bucket, SIGNED_FOR, &options).await?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() =
            url.as_str().parse().map_err(|_no_uri| unusable("its address is no URI".to_owned()))?;
        let failed = |error| Error::Generic { store: "S3", source: Box::new(error) };
        let answer = within(STALL, async { self.client.execute(request).await.map_err(failed) }).await?;
        let status = answer.status();
        let mut pieces = answer.into_body().bytes_stream().map(|piece| piece.map_err(failed));
        let mut body = Vec::new();
        while let Some(piece) = next(&mut pieces, STALL).await? {
            if body.len() + piece.len() > PAGE_BYTES_MAX {
                return Err(unusable(format!("one answer is longer than {PAGE_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        if status.is_success() {
            return Ok(body);
        }
        // As `object_store` says it of its own calls, for `failure.rs` to read.
        let text = String::from_utf8_lossy(&body);
        Err(match status.as_u16() {
            405 | 501 => unusable(LISTS_NO_VERSIONS.to_owned()),
            300..400 => Broken(format!("Received redirect, status code: {status}")).into(),
            _ => Broken(format!("Server returned non-2xx status code: {status}: {text}")).into(),
        })
    }

    async fn page(&self, prefix: &str, from: Option<&Marker>) -> Result<Page> {
        // Keys may hold what XML cannot, and whoever may write there can put one.
        let mut query = vec![
            ("versions", String::new()),
            ("encoding-type", "url".to_owned()),
            ("prefix", prefix.to_owned()),
        ];
        if let Some((key, version)) = from {
            query.push(("key-marker", key.clone()));
            query.extend(version.clone().map(|version| ("version-id-marker", version)));
        }
        Ok(page::parse(&self.ask(query).await?)?)
    }
}

/// How much is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// The key that is the prefix.
    One,
    /// Everything that begins with the prefix.
    All,
}

/// Goes through the versions below a prefix page by page, and holds one of these.
struct Walk {
    past: Past,
    prefix: String,
    extent: Extent,
    choice: Choice,
    waiting: VecDeque<Entry>,
    /// Where the next page begins; `None` when the last one came.
    from: Option<Option<Marker>>,
    empty: u32,
}

impl Walk {
    fn new(past: Past, prefix: String, extent: Extent) -> Self {
        let choice = Choice::new(past.0.at, prefix.clone());
        Self { past, prefix, extent, choice, waiting: VecDeque::new(), from: Some(None), empty: 0 }
    }

    /// The next object that was there.
    async fn next(&mut self) -> Result<Option<Was>> {
        loop {
            while let Some(entry) = self.waiting.pop_front() {
                // What only begins with the key comes after all of its versions.
                if self.extent == Extent::One && entry.key > self.prefix {
                    (self.from, self.waiting) = (None, VecDeque::new());
                    break;
                }
                if let Some(was) = self.choice.take(entry).map_err(unusable)? {
                    return Ok(Some(self.found(was)));
                }
            }
            let Some(from) = self.from.take() else {
                return Ok(self.choice.end().map(|was| self.found(was)));
            };
            let Page { entries, next } = self.past.0.page(&self.prefix, from.as_ref()).await?;
            self.empty = if entries.is_empty() { self.empty + 1 } else { 0 };
            if self.empty > EMPTY_PAGES_MAX || next.is_some() && !goes_on(from.as_ref(), next.as_ref()) {
                return Err(unusable("its list of versions does not end".to_owned()));
            }
            self.waiting = entries.into();
            self.from = next.map(Some);
        }
    }

    fn found(&self, was: Was) -> Was {
        self.past.0.known.lock().unwrap_or_else(PoisonError::into_inner).keep(&was);
        was
    }
}

/// Whether a page begins behind the one before it.
fn goes_on(from: Option<&Marker>, next: Option<&Marker>) -> bool {
    match (from, next) {
        (Some((key, version)), Some((next_key, next_version))) => {
            next_key > key || next_key == key && next_version != version
        }
        _ => true,
    }
}

#[async_trait]
impl ObjectStore for Past {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only())
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let was = self.find(location).await?;
        if options.head {
            let meta = meta_of(&was).ok_or_else(|| unusable("that key is no path".to_owned()))?;
            return Ok(GetResult {
                payload: GetResultPayload::Stream(stream::empty().boxed()),
                range: 0..meta.size,
                meta,
                attributes: Default::default(),
                extensions: Default::default(),
            });
        }
        let options = GetOptions { version: Some(was.version), ..options };
        within(STALL, self.0.bucket.get_opts(location, options)).await
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::iter([Err(read_only())]).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.filter(|path| !path.as_ref().is_empty());
        let prefix = prefix.map(|path| format!("{path}/")).unwrap_or_default();
        let walk = Walk::new(self.clone(), prefix, Extent::All);
        let found = stream::try_unfold(walk, |mut walk| async {
            Ok::<_, Error>(walk.next().await?.map(|was| (was, walk)))
        });
        // A key that is no path is nobody's of ours, and must not hide those that are.
        found.filter_map(async |was| was.map(|was| meta_of(&was)).transpose()).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(unusable("folders of a bucket as it was are not listed".to_owned()))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only())
    }
}
