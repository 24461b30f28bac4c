//! A storage that answers as it likes.
#![expect(clippy::disallowed_methods, reason = "the test macro has a runtime of its own")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt, Result, RetryConfig,
    aws::AmazonS3Builder,
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService},
    path::Path,
};

use super::{
    super::failure::may_pass, KNOWN_BYTES, KNOWN_BYTES_MAX, Known, PAGE_BYTES_MAX, Past, choice::Was,
};
use crate::clock::Timestamp;

type Answer = dyn Fn(usize, &str) -> (u16, Bytes) + Send + Sync;

/// Answers the n-th request, of which it is told the query.
#[derive(Clone)]
struct Server(Arc<Answer>, Arc<AtomicUsize>);

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl HttpConnector for Server {
    fn connect(&self, _: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Server {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let number = self.1.fetch_add(1, Ordering::SeqCst);
        let (status, body) = (self.0)(number, request.uri().query().unwrap_or_default());
        let answer = http::Response::builder().status(status).header("content-length", body.len());
        let answer = answer.header("last-modified", "Tue, 24 Nov 2026 00:00:00 GMT").header("etag", "\"e\"");
        Ok(answer.body(body.into()).unwrap())
    }
}

impl Server {
    fn new(answer: impl Fn(usize, &str) -> (u16, Bytes) + Send + Sync + 'static) -> Self {
        Self(Arc::new(answer), Arc::default())
    }

    /// One that always sends this page.
    fn of_page(inner: String) -> Self {
        Self::new(move |_, _| (200, page(&inner)))
    }

    fn past(&self) -> Past {
        let bucket = AmazonS3Builder::new()
            .with_endpoint("http://s3.test")
            .with_bucket_name("b")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .with_http_connector(self.clone())
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .build()
            .unwrap();
        Past::new(bucket, HttpClient::new(self.clone()), Timestamp::from_seconds(1_795_000_000))
    }

    /// Requests since the last time.
    fn calls(&self) -> usize {
        self.1.swap(0, Ordering::SeqCst)
    }
}

fn page(inner: &str) -> Bytes {
    format!("<ListVersionsResult>{inner}</ListVersionsResult>").into()
}

fn version(key: &str, id: &str) -> String {
    format!(
        "<Version><Key>{key}</Key><VersionId>{id}</VersionId><Size>4</Size>\
         <LastModified>2026-11-01T00:00:00.000Z</LastModified></Version>"
    )
}

fn more(key: &str, id: &str) -> String {
    format!(
        "<IsTruncated>true</IsTruncated><NextKeyMarker>{key}</NextKeyMarker>\
         <NextVersionIdMarker>{id}</NextVersionIdMarker>"
    )
}

async fn listed(past: &Past) -> Result<Vec<String>> {
    past.list(Some(&Path::from("p"))).map_ok(|meta| meta.location.to_string()).try_collect().await
}

#[tokio::test]
async fn a_storage_that_lists_without_end_is_refused() {
    let always_the_same = Server::of_page(version("p/k", "1") + &more("p/k", "1"));
    let in_a_circle = Server::new(|number, _| (200, page(&more("p/k", &(number % 2).to_string()))));
    let backwards = Server::new(|number, _| (200, page(&more(if number == 0 { "p/b" } else { "p/a" }, "1"))));
    let empty = Server::new(|number, _| (200, page(&more(&format!("p/{number:09}"), "1"))));
    let back_to_a_key = Server::new(|number, _| {
        (200, page(&(version(["p/b", "p/a"][number % 2], "1") + &more("p/c", &number.to_string()))))
    });
    for server in [always_the_same, in_a_circle, backwards, empty, back_to_a_key] {
        let error = listed(&server.past()).await.unwrap_err();
        // Waiting does not mend it: it is not asked again and again.
        assert!(!may_pass(&error) && server.calls() <= 102, "{error}");
        assert!(server.past().head(&Path::from("p/zz")).await.is_err());
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let server = Server::new(|_, _| (200, vec![b' '; PAGE_BYTES_MAX + 1].into()));
    let error = listed(&server.past()).await.unwrap_err();
    assert!(!may_pass(&error), "{error}");
}

#[tokio::test]
async fn the_question_is_signed_and_goes_on_where_a_page_ended() {
    let server = Server::new(|number, query| {
        for part in
            ["versions=&encoding-type=url&prefix=p%2F", "&X-Amz-Signature=", "&X-Amz-Credential=key%2F"]
        {
            assert!(query.contains(part), "{query}");
        }
        let marker = "&key-marker=p%2Fa%20%2B%01&version-id-marker=v%2F1&";
        assert_eq!(query.contains(marker), number == 1, "{query}");
        let first =
            version("p/a%20b", "v1") + &more("p/a%20%2B%01", "v/1") + "<EncodingType>url</EncodingType>";
        (200, page(&if number == 0 { first } else { version("p/b", "v2") }))
    });
    assert_eq!(listed(&server.past()).await.unwrap(), ["p/a b", "p/b"]);
    assert_eq!(server.calls(), 2);
}

#[tokio::test]
async fn an_object_is_looked_up_once_and_read_by_its_version() {
    let server = Server::new(|_, query| match query.contains("versions=") {
        true => (200, page(&(version("p/k", "v7") + &version("p/k-more", "v8") + &more("p/k-more", "v8")))),
        false => {
            assert_eq!(query, "versionId=v7");
            (200, "four".into())
        }
    });
    let (past, key) = (server.past(), Path::from("p/k"));
    let meta = past.head(&key).await.unwrap();
    assert_eq!((meta.size, meta.last_modified.timestamp(), server.calls()), (4, 1_793_491_200, 1));
    for _ in 0..3 {
        assert_eq!(past.get(&key).await.unwrap().bytes().await.unwrap(), "four");
    }
    assert_eq!(server.calls(), 3);
    let missing = past.get(&Path::from("p/j")).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }) && server.calls() == 1, "{missing}");
}

#[tokio::test]
async fn each_refusal_is_told_apart() {
    let said = async |status: u16, body: &'static str| {
        listed(&Server::new(move |_, _| (status, body.into())).past()).await.unwrap_err()
    };
    for status in [405, 501] {
        assert!(said(status, "").await.to_string().contains("not supported"), "{status}");
    }
    assert!(may_pass(&said(503, "<Error><Code>SlowDown</Code></Error>").await));
    assert!(may_pass(&said(200, "<ListVersionsResult><Version>").await), "it may have been cut on its way");
    assert!(!may_pass(&said(403, "<Error><Code>AccessDenied</Code></Error>").await));
    assert!(!may_pass(&said(301, "").await));
    assert!(!may_pass(&said(200, "<ListBucketResult/>").await));
}

#[tokio::test]
async fn nothing_can_be_written_to_the_past() {
    let server = Server::new(|_, _| unreachable!("nothing is sent"));
    let (past, key) = (server.past(), Path::from("p/k"));
    assert!(past.put(&key, "x".into()).await.is_err());
    assert!(past.put_multipart(&key).await.is_err());
    assert!(past.delete(&key).await.is_err());
    assert!(past.copy(&key, &Path::from("p/l")).await.is_err());
    assert!(past.rename(&key, &Path::from("p/l")).await.is_err());
}

#[test]
fn what_is_remembered_does_not_grow() {
    let mut known = Known::default();
    let was = |number: u32| Was {
        key: format!("p/{number:0200}"),
        version: "v".repeat(32),
        modified: Timestamp::default(),
        size: 1,
    };
    let first = was(0);
    known.keep(&first);
    for number in 1..200_000 {
        known.keep(&was(number));
        // What is used stays.
        assert!(known.get(&first.key).is_some(), "{number}");
    }
    let bytes = (known.young.len() + known.old.len()) * (2 * first.key.len() + 32 + KNOWN_BYTES);
    assert!(bytes <= 2 * KNOWN_BYTES_MAX, "{bytes}");
    assert!(known.get(&was(1).key).is_none() && known.get(&was(199_999).key).is_some());
}
