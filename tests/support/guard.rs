//! Storage policies, judged as S3 judges them: what no statement allows is denied.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use s3s::{
    S3Result,
    access::{S3Access, S3AccessContext},
    s3_error,
};
use serde_json::Value;

/// The policies of everybody whom the service knows, by access key. Who has none may do everything.
#[derive(Clone, Default)]
pub(crate) struct Guard {
    policies: Arc<Mutex<HashMap<String, Value>>>,
    denied: Arc<Mutex<Vec<String>>>,
    /// Where the bucket is, to know what is missing.
    pub(crate) folder: PathBuf,
    /// How long nothing is deleted or replaced after it was written.
    retention: Arc<Mutex<Duration>>,
}

/// Whether `*` of a pattern can stand for something so that both are the same.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    (0..=rest.len()).filter_map(|at| rest.get(at..)).any(|rest| is_like(tail, rest))
}

fn any(list: &Value, is: impl Fn(&str) -> bool) -> bool {
    list.as_array().unwrap().iter().any(|one| is(one.as_str().unwrap()))
}

impl Guard {
    pub(crate) fn confine(&self, key: &str, policy: Value) {
        self.policies.lock().unwrap().insert(key.to_owned(), policy);
    }

    pub(crate) fn policy(&self, key: &str) -> Value {
        self.policies.lock().unwrap()[key].clone()
    }

    /// From now on what is younger than this is locked, whoever asks.
    pub(crate) fn lock(&self, retention: Duration) {
        *self.retention.lock().unwrap() = retention;
    }

    fn is_locked(&self, key: &str) -> bool {
        let stored = self.folder.join(key).metadata().and_then(|found| found.modified());
        let age = stored.map(|stored| stored.elapsed().unwrap_or_default());
        age.is_ok_and(|age| age < *self.retention.lock().unwrap())
    }

    /// What was denied since the last time.
    pub(crate) fn denied(&self) -> Vec<String> {
        std::mem::take(&mut self.denied.lock().unwrap())
    }

    /// Whether a policy allows an action on a resource; `prefix` is what a LIST asks for.
    fn allows(policy: &Value, action: &str, resource: &str, prefix: Option<&str>) -> bool {
        policy["Statement"].as_array().unwrap().iter().any(|statement| {
            assert_eq!(statement["Effect"], "Allow");
            let condition = &statement["Condition"]["StringLike"]["s3:prefix"];
            any(&statement["Action"], |allowed| allowed == action)
                && any(&statement["Resource"], |allowed| is_like(allowed, resource))
                && (condition.is_null()
                    || prefix.is_some_and(|prefix| any(condition, |allowed| is_like(allowed, prefix))))
        })
    }

    fn judge(&self, context: &S3AccessContext<'_>) -> bool {
        let key = context.s3_path().get_object_key().unwrap_or_default();
        if matches!(context.s3_op().name(), "PutObject" | "DeleteObject") && self.is_locked(key) {
            return false;
        }
        let policies = self.policies.lock().unwrap();
        let who = &context.credentials().unwrap().access_key;
        let Some(policy) = policies.get(who) else { return true };
        let path = context.s3_path();
        let bucket = format!("arn:aws:s3:::{}", path.get_bucket_name().unwrap());
        let key = path.get_object_key().unwrap_or_default();
        let object = format!("{bucket}/{key}");
        let query = context.uri().query().unwrap_or_default();
        let prefix = url::form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == "prefix")
            .map(|(_, prefix)| prefix.into_owned());
        match context.s3_op().name() {
            "GetObject" | "HeadObject" => {
                // Who may not list everything is not told what is missing.
                let told =
                    self.folder.join(key).is_file() || Self::allows(policy, "s3:ListBucket", &bucket, None);
                told && Self::allows(policy, "s3:GetObject", &object, None)
            }
            "PutObject" => Self::allows(policy, "s3:PutObject", &object, None),
            "DeleteObject" => Self::allows(policy, "s3:DeleteObject", &object, None),
            "ListObjectsV2" => {
                Self::allows(policy, "s3:ListBucket", &bucket, Some(&prefix.unwrap_or_default()))
            }
            _ => false,
        }
    }
}

#[async_trait::async_trait]
impl S3Access for Guard {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_none() {
            return Err(s3_error!(AccessDenied));
        }
        if self.judge(context) {
            return Ok(());
        }
        let who = context.credentials().map(|known| known.access_key.clone()).unwrap_or_default();
        let what = format!("{who}: {} {}", context.s3_op().name(), context.uri());
        self.denied.lock().unwrap().push(what);
        Err(s3_error!(AccessDenied))
    }
}
