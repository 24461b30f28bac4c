//! Where a repository is: a folder, or a bucket with a prefix.

use std::{fmt, path::PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder of a local file system.
    Folder(PathBuf),
    /// A bucket.
    Bucket {
        /// `https://host:port`, when the address names one.
        endpoint: Option<String>,
        /// The bucket.
        bucket: String,
        /// The folder in it; may be empty.
        prefix: String,
    },
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Bucket { endpoint, bucket, prefix } = self else {
            return self.folder().map_or(Ok(()), |folder| folder.display().fmt(f));
        };
        match endpoint {
            Some(endpoint) => write!(f, "s3:{endpoint}/{bucket}")?,
            None => write!(f, "s3://{bucket}")?,
        }
        if prefix.is_empty() { Ok(()) } else { write!(f, "/{prefix}") }
    }
}

impl Location {
    /// The folder of a local repository.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        if let Self::Folder(folder) = self { Some(folder.clone()) } else { None }
    }

    /// Reads `DIR`, `file:///DIR`, `s3://BUCKET/PREFIX` or `s3:https://HOST/BUCKET/PREFIX`.
    ///
    /// # Errors
    /// `Usage` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(ErrorKind::Usage, format!("`{text}` is not the address of a repository: {why}"))
                .with_remedy("Give a folder, s3://BUCKET/PREFIX or s3:https://HOST/BUCKET/PREFIX")
        };
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(wrong("the bucket is missing"));
            }
            let prefix = prefix.trim_matches('/').to_owned();
            return Ok(Self::Bucket { endpoint: None, bucket: bucket.to_owned(), prefix });
        }
        if let Some(rest) = text.strip_prefix("s3:") {
            let (scheme, rest) =
                rest.split_once("://").ok_or_else(|| wrong("https:// or http:// is missing"))?;
            if !matches!(scheme, "http" | "https") {
                return Err(wrong("only https and http are possible"));
            }
            let (host, path) = rest.split_once('/').ok_or_else(|| wrong("the bucket is missing"))?;
            let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
            if host.is_empty() || bucket.is_empty() {
                return Err(wrong("the host or the bucket is missing"));
            }
            if host.contains('@') {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "the address of a repository must not hold a secret",
                )
                .with_remedy("Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"));
            }
            let endpoint = Some(format!("{scheme}://{host}"));
            let prefix = prefix.trim_matches('/').to_owned();
            return Ok(Self::Bucket { endpoint, bucket: bucket.to_owned(), prefix });
        }
        let folder = text.strip_prefix("file://");
        if folder.is_some_and(|folder| !folder.starts_with('/')) {
            return Err(wrong("after file:// comes an absolute path: file:///srv/backup"));
        }
        let folder = folder.unwrap_or(text);
        if folder.is_empty() {
            return Err(wrong("it is empty"));
        }
        if folder.contains("://") {
            return Err(wrong("this kind of storage is not supported"));
        }
        Ok(Self::Folder(PathBuf::from(folder)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_users_of_s3_write_them() {
        let bucket = |endpoint: Option<&str>, bucket: &str, prefix: &str| Location::Bucket {
            endpoint: endpoint.map(str::to_owned),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        let table = [
            ("./x", Location::Folder("./x".into())),
            ("file:///srv/x", Location::Folder("/srv/x".into())),
            ("s3://b", bucket(None, "b", "")),
            ("s3://b/a/c/", bucket(None, "b", "a/c")),
            ("s3:https://h:9/b/a", bucket(Some("https://h:9"), "b", "a")),
            ("s3:http://h/b", bucket(Some("http://h"), "b", "")),
        ];
        for (text, expected) in table {
            assert_eq!(Location::parse(text).unwrap(), expected, "{text}");
            assert_eq!(Location::parse(&expected.to_string()).unwrap(), expected, "{text}");
        }
        for wrong in [
            "",
            "s3://",
            "s3:h/b",
            "s3:ftp://h/b",
            "s3:https://h",
            "s3:https://k:s@h/b",
            "gs://b",
            "file://srv/x",
            "file://",
        ] {
            assert_eq!(Location::parse(wrong).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
    }
}
