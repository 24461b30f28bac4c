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
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
    builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
    builder.set_access(OnlyBucket);
    (builder.build(), folder)
}
