//! From an address and settings to an `ObjectStore`.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum},
    client::{HttpClient, HttpConnector, ReqwestConnector},
    local::LocalFileSystem,
};

use super::{local, location::Location, past::Past, place::Place};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
};

/// What S3 needs beside the address: names and values as in the environment (`AWS_ACCESS_KEY_ID` ..)
/// and as `object_store` knows them.
#[derive(Clone, Default)]
pub struct S3Settings {
    /// `AWS_*` variables of the environment.
    pub environment: Vec<(String, String)>,
    /// `-o key=value`.
    pub options: Vec<(String, String)>,
    /// PEM file of a certificate authority.
    pub certificate_authority: Option<Vec<u8>>,
}

impl std::fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("S3Settings(..)")
    }
}

/// A store that was never asked anything yet.
pub(super) struct Built {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The folder in it.
    pub(super) prefix: String,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
    /// What tells this storage from others.
    pub(super) place: Place,
    /// The bucket as it was, if that is what `objects` is.
    pub(super) past: Option<Past>,
}

/// The store of a location, as it is or as it was.
///
/// # Errors
/// `NoRepository` for a folder that is not there, `Usage` for settings that do not fit, no credentials.
pub(super) fn build(location: &Location, settings: &S3Settings, at: Option<Timestamp>) -> Result<Built> {
    match location {
        Location::Folder(folder) if at.is_some() => {
            let text = format!("{} is a folder, and a folder keeps no versions", folder.display());
            Err(Error::new(ErrorKind::Usage, text).with_remedy(
                "If its file system or its machine has a snapshot of that time, mount it elsewhere, and name the \
                 folder there with -r and without --at",
            ))
        }
        Location::Folder(folder) => {
            local::check_folder(folder)?;
            let store = LocalFileSystem::new_with_prefix(folder).map_err(|e| {
                Error::new(ErrorKind::Failed, format!("could not open {}", folder.display())).with_source(e)
            })?;
            let objects = Arc::new(store.with_fsync(true));
            let (prefix, warnings) = (String::new(), Vec::new());
            Ok(Built { objects, prefix, warnings, place: Place::Folder, past: None })
        }
        Location::Bucket { endpoint, bucket, prefix } => {
            let given = Given::read(settings)?;
            given.check_credentials(bucket)?;
            let endpoint = endpoint.as_deref().or_else(|| given.endpoint());
            let warnings = endpoint.and_then(clear_text_warning).into_iter().collect();
            let (store, client) = s3(endpoint, bucket, &given, settings)?;
            let prefix = prefix.clone();
            let place = Place::Bucket(address(endpoint, bucket, &prefix));
            let Some(at) = at else {
                return Ok(Built { objects: Arc::new(store), prefix, warnings, place, past: None });
            };
            given.check_signs()?;
            let past = Past::new(store, client, at);
            Ok(Built { objects: Arc::new(past.clone()), prefix, warnings, place, past: Some(past) })
        }
    }
}

/// Where a bucket is, whether its endpoint stands in the address or in the environment.
fn address(endpoint: Option<&str>, bucket: &str, prefix: &str) -> String {
    let endpoint = endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned());
    Location::Bucket { endpoint, bucket: bucket.to_owned(), prefix: prefix.to_owned() }.to_string()
}

/// The settings that count, the weightier last.
struct Given {
    list: Vec<(AmazonS3ConfigKey, String)>,
    imds: bool,
    container: bool,
}

/// Variables of the environment that lead to credentials and are no settings of `object_store`'s own.
const CONTAINER: [&str; 2] = ["aws_container_credentials_relative_uri", "aws_container_credentials_full_uri"];

impl Given {
    fn read(settings: &S3Settings) -> Result<Self> {
        let mut given = Self { list: Vec::new(), imds: false, container: false };
        // An empty variable is as good as none.
        for (name, value) in settings.environment.iter().filter(|(_, value)| !value.is_empty()) {
            let name = name.to_ascii_lowercase();
            given.container |= CONTAINER.contains(&name.as_str());
            // The environment holds much that is not for us.
            given.list.extend(name.parse().ok().map(|key| (key, value.clone())));
        }
        for (name, value) in &settings.options {
            if name == "imds" {
                given.imds = value == "true";
                continue;
            }
            let key = name.to_ascii_lowercase().parse().map_err(|e: object_store::Error| {
                Error::new(ErrorKind::Usage, format!("there is no option `{name}` for S3"))
                    .with_remedy("Options are for example region=REGION or virtual_hosted_style_request=true")
                    .with_source(e)
            })?;
            given.list.push((key, value.clone()));
        }
        Ok(given)
    }

    fn value(&self, key: AmazonS3ConfigKey) -> Option<&str> {
        self.list.iter().rfind(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    fn endpoint(&self) -> Option<&str> {
        self.value(AmazonS3ConfigKey::S3Endpoint).or_else(|| self.value(AmazonS3ConfigKey::Endpoint))
    }

    /// Versions are listed for those who are allowed to, so the question is signed.
    fn check_signs(&self) -> Result<()> {
        if self.value(AmazonS3ConfigKey::SkipSignature) != Some("true") {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Usage, "a bucket as it was cannot be read without a signature")
            .with_remedy("Leave out skip_signature, and give credentials that may list versions"))
    }

    /// Without credentials `object_store` would ask the metadata address of a cloud for minutes.
    fn check_credentials(&self, bucket: &str) -> Result<()> {
        use AmazonS3ConfigKey as Key;
        let has = |key: Key| self.value(key).is_some();
        let missing = match (has(Key::AccessKeyId), has(Key::SecretAccessKey)) {
            (true, true) => return Ok(()),
            (true, false) => "AWS_SECRET_ACCESS_KEY is",
            (false, true) => "AWS_ACCESS_KEY_ID is",
            (false, false) => {
                let other = has(Key::WebIdentityTokenFile) || has(Key::SkipSignature);
                if self.imds || self.container || other {
                    return Ok(());
                }
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are"
            }
        };
        let text = format!("no credentials for the bucket `{bucket}`: {missing} not set");
        Err(Error::new(ErrorKind::Failed, text)
            .with_remedy("Set them in the environment, or give -o imds=true on a cloud machine with a role"))
    }
}

/// What to say about an endpoint that is reached in clear text through a network.
fn clear_text_warning(endpoint: &str) -> Option<String> {
    let url = url::Url::parse(endpoint).ok().filter(|url| url.scheme() == "http")?;
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare.parse::<IpAddr>().map_or_else(
        |_| bare == "localhost" || bare.ends_with(".localhost"),
        |address| address.is_loopback(),
    );
    (!loopback).then(|| {
        format!(
            "the connection to {host} is not encrypted: others on the network see the names and sizes of \
             objects, and can replay or block requests; use s3:https:// where the server can"
        )
    })
}

/// Makes the clients of `object_store`, and keeps the last one. That is the bucket's own: those for credentials are
/// made before it.
#[derive(Clone, Debug, Default)]
struct Connector(Arc<Mutex<Option<HttpClient>>>);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }
}

/// A bucket, and the client that it uses itself.
fn s3(
    endpoint: Option<&str>,
    bucket: &str,
    given: &Given,
    settings: &S3Settings,
) -> Result<(AmazonS3, HttpClient)> {
    let usage = |e: object_store::Error| {
        let text = format!("the settings of the bucket `{bucket}` do not fit: {e}");
        Error::new(ErrorKind::Usage, text).with_source(e)
    };
    // No time-out for a whole body: 64 MiB take long on a slow line. The facade watches each attempt, and
    // the connection itself gives up when the other side confirms nothing for 30 s.
    let mut client =
        ClientOptions::new().with_timeout_disabled().with_connect_timeout(Duration::from_secs(10));
    if let Some(pem) = &settings.certificate_authority {
        client = client.with_root_certificate(object_store::Certificate::from_pem(pem).map_err(usage)?);
    }
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        // Nothing is encrypted: a machine without any certificate authority can do it too.
        client = client.with_allow_http(true).with_no_system_certificates(true);
    }
    let no_retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let connector = Connector::default();
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client.clone())
        .with_http_connector(connector.clone())
        .with_checksum_algorithm(Checksum::SHA256)
        // One object is deleted at a time, and not every server answers to a list of them as S3 does.
        .with_disable_bulk_delete(true)
        .with_retry(no_retry);
    for (key, value) in &given.list {
        builder = builder.with_config(*key, value);
    }
    // What the address names weighs more than AWS_BUCKET or AWS_ENDPOINT_URL.
    builder = builder.with_bucket_name(bucket);
    if let Some(endpoint) = endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint).with_endpoint(endpoint);
    }
    // A bare machine may have no certificate authorities, and the client is not made then: those that
    // browsers trust are in this program for it. Where the machine has some, they alone count.
    let bare = || builder.clone().with_client_options(with_bundled_authorities(client).ok()?).build().ok();
    let store = builder.clone().build().or_else(|error| bare().ok_or(error)).map_err(usage)?;
    let client = connector.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    let client = client.unwrap_or_else(|| unreachable!("a bucket was built, and its client before it"));
    Ok((store, client))
}

fn with_bundled_authorities(client: ClientOptions) -> object_store::Result<ClientOptions> {
    let client = client.with_no_system_certificates(true);
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().try_fold(client, |client, root| {
        Ok(client.with_root_certificate(object_store::Certificate::from_der(root)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn built(address: &str, environment: &[(&str, &str)], options: &[(&str, &str)]) -> Result<Vec<String>> {
        let settings =
            S3Settings { environment: pairs(environment), options: pairs(options), ..S3Settings::default() };
        build(&Location::parse(address).unwrap(), &settings, None).map(|built| built.warnings)
    }

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];

    #[test]
    fn clear_text_off_this_machine_is_warned_about() {
        for (address, warned) in [
            ("s3:http://storage.example/b", true),
            ("s3:http://10.0.0.1:9000/b", true),
            ("s3:https://storage.example/b", false),
            ("s3:http://127.0.0.1:9000/b", false),
            ("s3:http://localhost:9000/b", false),
            ("s3:http://[::1]:9000/b", false),
        ] {
            assert_eq!(!built(address, &KEYS, &[]).unwrap().is_empty(), warned, "{address}");
        }
        let endpoint = [KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL", "http://storage.example")];
        assert_eq!(built("s3://b", &endpoint, &[]).unwrap().len(), 1);
    }

    #[test]
    fn without_credentials_it_ends_before_any_call() {
        let one = |at: usize| [KEYS[at]];
        let empty = [KEYS[0], ("AWS_SECRET_ACCESS_KEY", "")];
        for (environment, word) in [
            (&[][..], "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            (&one(0), "AWS_SECRET_ACCESS_KEY is not set"),
            (&one(1), "AWS_ACCESS_KEY_ID is not set"),
            (&empty, "AWS_SECRET_ACCESS_KEY is not set"),
        ] {
            let error = built("s3://b", environment, &[]).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert!(error.remedy().is_some());
        }
        built("s3://b", &[], &[("imds", "true")]).unwrap();
        built("s3://b", &KEYS, &[]).unwrap();
    }

    #[test]
    fn an_option_that_nobody_knows_is_wrong_usage() {
        let error = built("s3://b", &KEYS, &[("regoin", "x")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("regoin"));
        built("s3://b", &[KEYS[0], KEYS[1], ("AWS_PAGER", "less")], &[("region", "x")]).unwrap();
    }

    #[test]
    fn the_address_weighs_more_than_the_environment() {
        let environment =
            [KEYS[0], KEYS[1], ("AWS_BUCKET", "other"), ("AWS_ENDPOINT_URL_S3", "http://other")];
        let settings = S3Settings { environment: pairs(&environment), ..S3Settings::default() };
        let given = Given::read(&settings).unwrap();
        let (store, _) = s3(Some("http://127.0.0.1:1"), "mine", &given, &settings).unwrap();
        let text = format!("{store:?}");
        assert!(text.contains("127.0.0.1:1/mine") && !text.contains("other/"), "{text}");
    }
}
