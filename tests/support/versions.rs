//! An S3 service in memory with a versioned bucket, as AWS has it: a PUT adds a version, a DELETE adds a marker, and
//! `ListObjectVersions` comes in small pages. It says when things were written by a clock that a test can set forward.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::stream;
use http_body_util::BodyExt;
use s3s::{
    S3, S3Request, S3Response, S3Result,
    auth::SimpleAuth,
    dto, s3_error,
    service::{S3Service, S3ServiceBuilder},
};

use super::service::{BUCKET, KEY, SECRET};

/// Entries of a page.
const PAGE: usize = 3;
/// So far its clock is behind ours at first, in seconds: what a test calls the past must not be to come.
const BEHIND: u64 = 86_400;

/// What became of a key at some time.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) id: String,
    pub(crate) modified: SystemTime,
    /// `None` for a delete marker.
    pub(crate) bytes: Option<Bytes>,
}

/// The bucket: of each key the versions, the newest last.
#[derive(Clone, Default)]
pub(crate) struct Bucket {
    pub(crate) keys: Arc<Mutex<BTreeMap<String, Vec<Version>>>>,
    /// Nothing is kept of what is replaced or deleted.
    forgets: bool,
    /// Seconds by which its clock was set forward.
    ahead: Arc<AtomicU64>,
    made: Arc<AtomicU64>,
    /// How many lists of versions were asked for.
    pub(crate) lists: Arc<AtomicUsize>,
    /// Whether the policy has no right to the versions of objects.
    pub(crate) denies_versions: Arc<AtomicBool>,
}

impl Bucket {
    /// One without versioning.
    pub(crate) fn forgetful() -> Self {
        Self { forgets: true, ..Self::default() }
    }

    pub(crate) fn service(&self) -> S3Service {
        let mut builder = S3ServiceBuilder::new(self.clone());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        builder.build()
    }

    /// Its clock is set forward.
    pub(crate) fn wait(&self, seconds: u64) {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Whole seconds, as S3 has them.
    pub(crate) fn now(&self) -> SystemTime {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        SystemTime::UNIX_EPOCH
            + Duration::from_secs(now.as_secs() - BEHIND + self.ahead.load(Ordering::SeqCst))
    }

    pub(crate) fn add(&self, key: &str, bytes: Option<Bytes>) -> String {
        let id = match self.forgets {
            true => "null".to_owned(),
            false => format!("v{:08}", self.made.fetch_add(1, Ordering::SeqCst)),
        };
        let version = Version { id: id.clone(), modified: self.now(), bytes };
        let mut keys = self.keys.lock().unwrap();
        let known = keys.entry(key.to_owned()).or_default();
        if self.forgets {
            known.clear();
        }
        known.push(version);
        known.retain(|version| !self.forgets || version.bytes.is_some());
        id
    }

    /// How many versions and markers there are.
    pub(crate) fn versions(&self) -> usize {
        self.keys.lock().unwrap().values().map(Vec::len).sum()
    }

    /// What is there now.
    pub(crate) fn there(&self) -> Vec<String> {
        let keys = self.keys.lock().unwrap();
        let there = keys.iter().filter(|(_, all)| all.last().is_some_and(|last| last.bytes.is_some()));
        there.map(|(key, _)| key.clone()).collect()
    }

    fn find(&self, key: &str, id: Option<&str>) -> S3Result<(Version, Bytes)> {
        let keys = self.keys.lock().unwrap();
        let all = keys.get(key).ok_or_else(|| s3_error!(NoSuchKey))?;
        let found = match id {
            Some(id) => {
                all.iter().find(|version| version.id == id).ok_or_else(|| s3_error!(NoSuchVersion))?
            }
            None => all.last().ok_or_else(|| s3_error!(NoSuchKey))?,
        };
        let bytes = found.bytes.clone().ok_or_else(|| s3_error!(NoSuchKey))?;
        Ok((found.clone(), bytes))
    }
}

fn encoded(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    key.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[async_trait::async_trait]
impl S3 for Bucket {
    async fn put_object(
        &self,
        request: S3Request<dto::PutObjectInput>,
    ) -> S3Result<S3Response<dto::PutObjectOutput>> {
        let dto::PutObjectInput { key, body, if_none_match, bucket, .. } = request.input;
        if bucket != BUCKET {
            return Err(s3_error!(NoSuchBucket));
        }
        let body = s3s::Body::from(body.ok_or_else(|| s3_error!(IncompleteBody))?);
        let bytes = BodyExt::collect(body).await.map_err(|_cut| s3_error!(IncompleteBody))?.to_bytes();
        if if_none_match.is_some() && self.find(&key, None).is_ok() {
            return Err(s3_error!(PreconditionFailed));
        }
        let id = self.add(&key, Some(bytes));
        Ok(S3Response::new(dto::PutObjectOutput { version_id: Some(id), ..Default::default() }))
    }

    async fn delete_object(
        &self,
        request: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        if request.input.version_id.is_some() {
            return Err(s3_error!(AccessDenied, "it is locked"));
        }
        self.add(&request.input.key, None);
        Ok(S3Response::new(dto::DeleteObjectOutput::default()))
    }

    async fn get_object(
        &self,
        request: S3Request<dto::GetObjectInput>,
    ) -> S3Result<S3Response<dto::GetObjectOutput>> {
        let (version, bytes) = self.find(&request.input.key, request.input.version_id.as_deref())?;
        let length = bytes.len() as u64;
        let (part, range) = match request.input.range {
            None => (bytes, None),
            Some(range) => {
                let range = range.check(length)?;
                let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                let part = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                (bytes.slice(part), Some(text))
            }
        };
        Ok(S3Response::new(dto::GetObjectOutput {
            content_length: i64::try_from(part.len()).ok(),
            content_range: range,
            body: Some(dto::StreamingBlob::wrap(stream::iter([Ok::<_, std::io::Error>(part)]))),
            last_modified: Some(version.modified.into()),
            e_tag: Some(dto::ETag::Strong(version.id)),
            ..Default::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<dto::HeadObjectInput>,
    ) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        let (version, bytes) = self.find(&request.input.key, request.input.version_id.as_deref())?;
        Ok(S3Response::new(dto::HeadObjectOutput {
            content_length: i64::try_from(bytes.len()).ok(),
            last_modified: Some(version.modified.into()),
            e_tag: Some(dto::ETag::Strong(version.id)),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
        if request.input.bucket != BUCKET {
            return Err(s3_error!(NoSuchBucket));
        }
        let prefix = request.input.prefix.unwrap_or_default();
        let keys = self.keys.lock().unwrap();
        let shown = |(key, all): (&String, &Vec<Version>)| {
            let last = all.last()?;
            Some(dto::Object {
                key: Some(key.clone()),
                size: i64::try_from(last.bytes.as_ref()?.len()).ok(),
                last_modified: Some(last.modified.into()),
                ..Default::default()
            })
        };
        let contents = keys.iter().filter(|(key, _)| key.starts_with(&prefix)).filter_map(shown).collect();
        Ok(S3Response::new(dto::ListObjectsV2Output {
            contents: Some(contents),
            is_truncated: Some(false),
            ..Default::default()
        }))
    }

    async fn list_object_versions(
        &self,
        request: S3Request<dto::ListObjectVersionsInput>,
    ) -> S3Result<S3Response<dto::ListObjectVersionsOutput>> {
        if self.denies_versions.load(Ordering::SeqCst) {
            return Err(s3_error!(AccessDenied));
        }
        let dto::ListObjectVersionsInput {
            bucket, prefix, key_marker, version_id_marker, encoding_type, ..
        } = request.input;
        if bucket != BUCKET {
            return Err(s3_error!(NoSuchBucket));
        }
        self.lists.fetch_add(1, Ordering::SeqCst);
        let url = encoding_type.is_some();
        let shown = |key: &str| Some(if url { encoded(key) } else { key.to_owned() });
        let prefix = prefix.unwrap_or_default();
        let keys = self.keys.lock().unwrap();
        let every = keys.iter().filter(|(key, _)| key.starts_with(&prefix)).flat_map(|(key, all)| {
            all.iter().enumerate().rev().map(move |(at, one)| (key, one, at + 1 == all.len()))
        });
        // Behind the marker: later keys, and of its own key the older versions.
        let mut behind = key_marker.is_none();
        let left = every.filter(|(key, version, _)| {
            let Some(marker) = &key_marker else { return true };
            let here = behind || *key > marker;
            behind = here || *key == marker && version_id_marker.as_ref() == Some(&version.id);
            here
        });
        let page: Vec<_> = left.take(PAGE + 1).collect();
        let (mut versions, mut markers) = (Vec::new(), Vec::new());
        for (key, version, latest) in page.iter().take(PAGE) {
            let (key, id, modified) = (shown(key), Some(version.id.clone()), Some(version.modified.into()));
            match &version.bytes {
                Some(bytes) => versions.push(dto::ObjectVersion {
                    key,
                    version_id: id,
                    last_modified: modified,
                    size: i64::try_from(bytes.len()).ok(),
                    is_latest: Some(*latest),
                    ..Default::default()
                }),
                None => markers.push(dto::DeleteMarkerEntry {
                    key,
                    version_id: id,
                    last_modified: modified,
                    is_latest: Some(*latest),
                    ..Default::default()
                }),
            }
        }
        let last = page.get(PAGE - 1).filter(|_| page.len() > PAGE);
        Ok(S3Response::new(dto::ListObjectVersionsOutput {
            versions: Some(versions),
            delete_markers: Some(markers),
            is_truncated: Some(last.is_some()),
            next_key_marker: last.and_then(|(key, ..)| shown(key)),
            next_version_id_marker: last.map(|(_, version, _)| version.id.clone()),
            encoding_type,
            ..Default::default()
        }))
    }

    async fn get_bucket_versioning(
        &self,
        _: S3Request<dto::GetBucketVersioningInput>,
    ) -> S3Result<S3Response<dto::GetBucketVersioningOutput>> {
        let status = (!self.forgets).then(|| dto::BucketVersioningStatus::from_static("Enabled"));
        Ok(S3Response::new(dto::GetBucketVersioningOutput { status, ..Default::default() }))
    }
}
