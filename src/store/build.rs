//! From an address and settings to an `ObjectStore`.

use std::{sync::Arc, time::Duration};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum},
    local::LocalFileSystem,
};

use super::location::Location;
use crate::error::{Error, ErrorKind, Result};

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

/// The store of a location, and the folder in it.
///
/// # Errors
/// `NoRepository` for a folder that is not there, `Usage` for settings that do not fit.
pub(super) fn build(location: &Location, settings: &S3Settings) -> Result<(Arc<dyn ObjectStore>, String)> {
    match location {
        Location::Folder(folder) => {
            if !folder.is_dir() {
                return Err(Error::new(
                    ErrorKind::NoRepository,
                    format!("there is no repository at {}", folder.display()),
                )
                .with_remedy("Check the path, or create one with `lifeboat init`"));
            }
            let store = LocalFileSystem::new_with_prefix(folder).map_err(|e| {
                Error::new(ErrorKind::Failed, format!("could not open {}", folder.display())).with_source(e)
            })?;
            Ok((Arc::new(store.with_fsync(true)), String::new()))
        }
        Location::Bucket { endpoint, bucket, prefix } => {
            Ok((Arc::new(s3(endpoint.as_deref(), bucket, settings)?), prefix.clone()))
        }
    }
}

fn s3(endpoint: Option<&str>, bucket: &str, settings: &S3Settings) -> Result<object_store::aws::AmazonS3> {
    let usage = |e: object_store::Error| {
        Error::new(ErrorKind::Usage, format!("the settings of the bucket `{bucket}` do not fit"))
            .with_source(e)
    };
    // No time-out for a whole body: 64 MiB take long on a slow line. The facade limits each attempt.
    let mut client =
        ClientOptions::new().with_timeout_disabled().with_connect_timeout(Duration::from_secs(10));
    if let Some(pem) = &settings.certificate_authority {
        client = client.with_root_certificate(object_store::Certificate::from_pem(pem).map_err(usage)?);
    }
    let no_retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_retry(no_retry);
    let mut has_credentials = false;
    let given = |list: &[(String, String)], mut builder: AmazonS3Builder| {
        let mut found = false;
        for (key, value) in list {
            found |= matches!(
                key.to_ascii_lowercase().trim_start_matches("aws_"),
                "access_key_id"
                    | "web_identity_token_file"
                    | "container_credentials_relative_uri"
                    | "container_credentials_full_uri"
                    | "skip_signature"
            );
            match key.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                Ok(key) => builder = builder.with_config(key, value),
                Err(error) => drop(error),
            }
        }
        (builder, found)
    };
    for list in [&settings.environment, &settings.options] {
        let (next, found) = given(list, builder);
        builder = next;
        has_credentials |= found;
    }
    if !has_credentials && !settings.options.iter().any(|(key, value)| key == "imds" && value == "true") {
        return Err(Error::new(
            ErrorKind::Failed,
            format!("no credentials for the bucket `{bucket}` were given"),
        )
        .with_remedy("Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or -o imds=true on a cloud machine"));
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
        client = client.with_allow_http(endpoint.starts_with("http://"));
    }
    builder.with_client_options(client).with_checksum_algorithm(Checksum::SHA256).build().map_err(usage)
}
