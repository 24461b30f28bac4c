//! An S3 service over a temporary folder. It knows one access key and one bucket.

use s3s::{
    S3Result,
    access::{S3Access, S3AccessContext},
    auth::SimpleAuth,
    s3_error,
    service::{S3Service, S3ServiceBuilder},
};
use tempfile::TempDir;

pub(crate) const BUCKET: &str = "lab";
pub(crate) const KEY: &str = "labkey";
pub(crate) const SECRET: &str = "labsecret";

struct OnlyBucket;

#[async_trait::async_trait]
impl S3Access for OnlyBucket {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_none() {
            return Err(s3_error!(AccessDenied));
        }
        // s3s-fs would make a folder for whatever bucket a PUT names.
        match context.s3_path().get_bucket_name() {
            Some(BUCKET) => Ok(()),
            _ => Err(s3_error!(NoSuchBucket, "The specified bucket does not exist")),
        }
    }
}

/// The service, and the folder that goes when it goes.
pub(crate) fn service() -> (S3Service, TempDir) {
    service_for(&[KEY], |_| OnlyBucket)
}

/// One that knows these access keys, all with the same secret, and asks somebody else who may do what. The folder
/// of the bucket is told.
pub(crate) fn service_for<A: S3Access>(
    keys: &[&str],
    access: impl FnOnce(std::path::PathBuf) -> A,
) -> (S3Service, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let bucket = folder.path().join(BUCKET);
    std::fs::create_dir(&bucket).unwrap();
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
    let mut known = SimpleAuth::new();
    for key in keys {
        known.register((*key).to_owned(), SECRET.into());
    }
    builder.set_auth(known);
    builder.set_access(access(bucket));
    (builder.build(), folder)
}
