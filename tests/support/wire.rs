//! The real S3 client, connected to the service without a socket, with a fault per request.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http_body_util::BodyExt;
use object_store::{
    ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, Checksum},
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
        HttpService,
    },
};
use s3s::service::S3Service;
use tempfile::TempDir;

use super::service::{self, BUCKET, KEY, SECRET};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// This status and S3 code; the server never sees the request.
    Answer(u16, &'static str),
    /// The server does it; the client gets this status.
    AnswerAfter(u16),
    /// The connection breaks before the server sees it.
    Break,
    /// The server does it; then the connection breaks.
    BreakAfter,
    /// The body breaks off after so many bytes.
    CutBody(usize),
    /// The body ends after so many bytes, as if that were all.
    EndBody(usize),
    /// What comes is said to be the whole object.
    NoRange,
    /// What comes is said to be another part of the object, of the same length.
    OtherRange(&'static str),
    /// The answer takes longer than any test.
    Hang,
}

/// A server with faults to come.
#[derive(Clone)]
pub(crate) struct Wire {
    service: S3Service,
    /// s3s-fs looks and then renames: without this several creators win.
    creating: Arc<tokio::sync::Mutex<()>>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    calls: Arc<AtomicUsize>,
    _folder: Arc<TempDir>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    pub(crate) fn new() -> Self {
        let (service, folder) = service::service();
        let (creating, faults, calls) = Default::default();
        Self { service, creating, faults, calls, _folder: Arc::new(folder) }
    }

    /// The S3 client of this server; tries nothing twice, as the facade has it.
    pub(crate) fn client(&self, bucket: &str, secret: &str) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint("http://s3.test")
            .with_bucket_name(bucket)
            .with_access_key_id(KEY)
            .with_secret_access_key(secret)
            .with_checksum_algorithm(Checksum::SHA256)
            .with_http_connector(self.clone())
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .build()
            .unwrap()
    }

    /// The client that may do everything.
    pub(crate) fn owner(&self) -> AmazonS3 {
        self.client(BUCKET, SECRET)
    }

    /// These faults befall the next requests; the count of calls begins anew.
    pub(crate) fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.calls.store(0, Ordering::SeqCst);
        let mut waiting = self.faults.lock().unwrap();
        waiting.clear();
        waiting.extend(faults);
    }

    /// Requests since the last [`Self::inject`].
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn serve(&self, request: HttpRequest) -> Result<(http::response::Parts, Bytes), HttpError> {
        let broken = |error: String| HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(error));
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        // What hyper adds on a real connection.
        let host = parts.uri.authority().unwrap().as_str().parse().unwrap();
        parts.headers.insert(http::header::HOST, host);
        parts.headers.entry(http::header::CONTENT_LENGTH).or_insert_with(|| body.len().into());
        let conditional = parts.headers.contains_key("if-none-match") && parts.method == http::Method::PUT;
        let _creating = if conditional { Some(self.creating.lock().await) } else { None };
        let request = http::Request::from_parts(parts, s3s::Body::from(body));
        let answer = self.service.call(request).await.map_err(|e| broken(format!("{e:?}")))?;
        let (parts, body) = answer.into_parts();
        let body = BodyExt::collect(body).await.map_err(|e| broken(format!("{e:?}")))?.to_bytes();
        Ok((parts, body))
    }
}

impl HttpConnector for Wire {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

fn answer(status: u16, code: &str) -> HttpResponse {
    let body = format!("<Error><Code>{code}</Code><Message>as ordered</Message></Error>");
    http::Response::builder().status(status).body(body.into()).unwrap()
}

fn reset() -> HttpError {
    let cause = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the innermost cause");
    HttpError::new(HttpErrorKind::Interrupted, cause)
}

#[async_trait::async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::Answer(status, code) => return Ok(answer(status, code)),
            Fault::Break => return Err(reset()),
            Fault::Hang => tokio::time::sleep(Duration::from_hours(1)).await,
            _ => {}
        }
        let (mut parts, body) = self.serve(request).await?;
        let body = match fault {
            Fault::AnswerAfter(status) => return Ok(answer(status, "InternalError")),
            Fault::BreakAfter => return Err(reset()),
            Fault::CutBody(length) => {
                let pieces = [Ok(http_body::Frame::data(body.slice(..length))), Err(reset())];
                HttpResponseBody::new(http_body_util::StreamBody::new(stream::iter(pieces)))
            }
            Fault::NoRange => {
                parts.status = http::StatusCode::OK;
                parts.headers.remove("content-range");
                HttpResponseBody::from(body)
            }
            Fault::OtherRange(range) => {
                parts.headers.insert("content-range", range.parse().unwrap());
                HttpResponseBody::from(body)
            }
            Fault::EndBody(length) => {
                parts.headers.remove("x-amz-checksum-sha256");
                HttpResponseBody::from(body.slice(..length))
            }
            _ => HttpResponseBody::from(body),
        };
        Ok(http::Response::from_parts(parts, body))
    }
}
