//! What a failed call means: whether to try again, and what to tell the user.

use std::error::Error as StdError;

use rustix::io::Errno;

use super::Store;
use crate::error::{Error, ErrorKind};

/// A call that failed for good.
pub(super) enum Failure {
    /// The user asked to stop.
    Stopped(Error),
    /// It was too late to send it, and it was not sent.
    Late {
        /// What was to be sent.
        what: String,
    },
    /// The storage, or the way to it.
    Call {
        /// What was called for.
        what: String,
        /// What came back.
        error: object_store::Error,
    },
}

/// A transfer in which nothing moved any more, or one that ended early.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Broken {}

impl From<Broken> for object_store::Error {
    fn from(broken: Broken) -> Self {
        Self::Generic { store: "transfer", source: Box::new(broken) }
    }
}

/// The name under which errors of a local folder come.
const LOCAL: &str = "LocalFileSystem";

/// An error of a local folder, as `object_store` would give it.
pub(super) fn local_error(name: &str, error: std::io::Error) -> object_store::Error {
    if error.kind() == std::io::ErrorKind::AlreadyExists {
        return object_store::Error::AlreadyExists { path: name.to_owned(), source: Box::new(error) };
    }
    object_store::Error::Generic { store: LOCAL, source: Box::new(error) }
}

/// The causes of an error, outermost first.
fn causes(error: &dyn StdError) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        texts.push(cause.to_string());
        source = cause.source();
    }
    texts
}

/// The number of the operating system behind an error.
fn errno(error: &(dyn StdError + 'static)) -> Option<Errno> {
    let mut source = Some(error);
    while let Some(cause) = source {
        if let Some(code) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return Some(Errno::from_raw_os_error(code));
        }
        source = cause.source();
    }
    None
}

/// The status of an answer. `object_store` has no accessor for it, only this text.
fn status(text: &str) -> Option<u16> {
    text.split_once("status code: ")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The text between `<tag>` and `</tag>`, as S3 answers.
fn element<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(inner, _)| inner)
}

/// The innermost cause on one line, without the XML around it.
fn innermost(error: &object_store::Error) -> String {
    let text = causes(error).pop().unwrap_or_default();
    let plain = text.strip_prefix("Server returned non-2xx status code: ").unwrap_or(&text);
    match element(plain, "Code") {
        Some(code) => {
            let status = plain.split(':').next().filter(|head| !head.contains('<')).unwrap_or_default();
            let message = element(plain, "Message").map(|text| format!(", {text}")).unwrap_or_default();
            format!("{status} ({code}{message})").trim_start().to_owned()
        }
        None => plain.trim_end_matches([':', ' ']).to_owned(),
    }
}

/// Codes with which storages other than S3 refuse to delete what is locked, not all of them under a 403.
const LOCKED: [&str; 5] =
    ["AccessDenied", "FileImmutable", "MethodNotAllowed", "ObjectLocked", "RetentionPolicyNotMet"];

/// Words of errors that waiting does not mend.
const FINAL: [&str; 6] = [
    "BadScheme",
    "builder error",
    "Received redirect",
    "invalid peer certificate",
    "InvalidContentType",
    "NoSuchBucket",
];

/// Whether it may pass by itself: servers that are overloaded or restarted, connections that break.
pub(super) fn may_pass(error: &object_store::Error) -> bool {
    let object_store::Error::Generic { store, .. } = error else { return false };
    // What disk and memory say does not change by waiting.
    if *store == LOCAL || *store == "InMemory" {
        return false;
    }
    let text = causes(error).join(" ");
    if FINAL.iter().any(|word| text.contains(word)) {
        return false;
    }
    match status(&text) {
        Some(501) => false,
        // S3 answers 400 when the body did not come in time.
        Some(400) => element(&text, "Code") == Some("RequestTimeout"),
        Some(status) => matches!(status, 408 | 425 | 429) || status >= 500,
        None => true,
    }
}

impl Failure {
    pub(super) fn of(what: &dyn std::fmt::Display, error: object_store::Error) -> Self {
        Self::Call { what: what.to_string(), error }
    }

    /// Some servers do not know `If-None-Match` and say so.
    pub(super) fn lacks_conditions(&self) -> bool {
        use object_store::Error as E;
        match self {
            Self::Call { error: E::NotImplemented { .. }, .. } => true,
            Self::Call { error: error @ E::Generic { .. }, .. } => {
                status(&causes(error).join(" ")) == Some(501)
            }
            _ => false,
        }
    }

    /// exFAT and some network mounts have no hard links, which a local create is made of.
    pub(super) fn lacks_links(&self) -> bool {
        let codes = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS, Errno::MLINK, Errno::XDEV];
        match self {
            Self::Call { error: error @ object_store::Error::Generic { store, .. }, .. } => {
                *store == LOCAL && errno(error).is_some_and(|code| codes.contains(&code))
            }
            _ => false,
        }
    }

    pub(super) const fn is_missing(&self) -> bool {
        matches!(self, Self::Call { error: object_store::Error::NotFound { .. }, .. })
    }

    /// The storage knows us and does not let us: a lock holds the object, or a policy forbids the call.
    pub(super) fn is_refusal(&self) -> bool {
        use object_store::Error as E;
        let Self::Call { error, .. } = self else { return false };
        let all = causes(error).join(": ");
        let code = element(&all, "Code").unwrap_or_default();
        match error {
            E::PermissionDenied { .. } => credentials(code).is_none(),
            E::Generic { store, .. } if *store == LOCAL => {
                matches!(errno(error), Some(Errno::ACCESS | Errno::PERM))
            }
            _ => LOCKED.contains(&code),
        }
    }

    /// The storage says that something has that name already.
    pub(super) const fn is_taken(&self) -> bool {
        use object_store::Error as E;
        matches!(self, Self::Call { error: E::AlreadyExists { .. } | E::Precondition { .. }, .. })
    }

    /// The call may have taken effect although it failed.
    pub(super) fn is_unclear(&self) -> bool {
        matches!(self, Self::Call { error, .. } if may_pass(error))
    }

    /// The error to show.
    pub(super) fn into_error(self, store: &Store) -> Error {
        let (what, error) = match self {
            Self::Stopped(error) => return error,
            Self::Late { what } => {
                let text = format!("{what} was not sent to {} in time", store.0.text);
                return Error::new(ErrorKind::Temporary, text)
                    .with_remedy("Run the command again, with a higher limit of upload if there is one");
            }
            Self::Call { what, error } => (what, error),
        };
        let made = explain(&what, &error, &store.0.text);
        // Whoever may read the bucket as it is may not always read it as it was.
        let is_denied =
            store.past().is_some() && element(&causes(&error).join(": "), "Code") == Some("AccessDenied");
        let made = if is_denied { made.with_remedy(RIGHTS_TO_THE_PAST) } else { made };
        made.with_source(error)
    }
}

const RIGHTS_TO_THE_PAST: &str = "To read a bucket as it was, the credentials need s3:ListBucketVersions, s3:GetObjectVersion and \
                                  s3:GetBucketVersioning too; an owner's policy of `lifeboat key add` has them";

/// Whether a LIST met a name that is no path (control characters, a `..`): whoever may write there can put one.
fn is_of_a_name(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<object_store::path::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn explain(what: &str, error: &object_store::Error, place: &str) -> Error {
    use object_store::Error as E;
    let all = causes(error).join(": ");
    if all.contains("NoSuchBucket") {
        return Error::new(ErrorKind::NoRepository, format!("the bucket of {place} does not exist"))
            .with_remedy("Create it first, for example with `aws s3 mb s3://BUCKET`, or check its name");
    }
    if is_of_a_name(error) {
        let text = format!("an object there has a name that no repository has: {}", innermost(error));
        return Error::damaged(what, text).with_remedy(
            "Remove that object with the tools of the storage: until then nothing beside it can be listed",
        );
    }
    match error {
        // LIST has no error of its own for a refusal.
        E::Generic { .. } if matches!(status(&all), Some(401 | 403)) => refused(what, &all, place),
        E::NotFound { .. } => Error::new(ErrorKind::NotFound, format!("{what} is not there in {place}")),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => refused(what, &all, place),
        E::Generic { store, .. } if *store == LOCAL => local(what, error, place),
        E::Generic { .. } if may_pass(error) => {
            let text = format!("{place} does not answer for {what}: {}", innermost(error));
            Error::new(ErrorKind::Temporary, text)
                .with_remedy("Check the network and the storage, then run the command again")
        }
        _ => {
            let text = format!("{place} failed for {what}: {}", innermost(error));
            let made = Error::new(ErrorKind::Failed, text);
            match hint(&all) {
                Some(hint) => made.with_remedy(hint),
                None => made,
            }
        }
    }
}

/// What helps against an error that waiting does not mend.
fn hint(all: &str) -> Option<&'static str> {
    let hints = [
        (
            super::past::LISTS_NO_VERSIONS,
            "Only a bucket whose storage knows versioning can be read as it was. If there is a copy of that time, name \
             it with -r",
        ),
        ("BadScheme", "The address must begin with s3:https:// or s3:http://"),
        ("Received redirect", "The bucket is in another region: set AWS_REGION or -o region=REGION"),
        (
            "invalid peer certificate",
            "If the server has its own certificate authority, give it with --cacert",
        ),
        ("InvalidContentType", "The server does not speak TLS there: check the port, or use s3:http://"),
        ("AuthorizationHeaderMalformed", "Set the region of the bucket: AWS_REGION or -o region=REGION"),
        (
            "status code: 501",
            "The storage does not know conditional writes (If-None-Match), so `config` and key slots cannot be \
             created there: use another one, or a newer version of its server",
        ),
        ("InvalidStorageClass", "The storage does not know this storage class: leave it out"),
    ];
    hints.into_iter().find(|(word, _)| all.contains(word)).map(|(_, hint)| hint)
}

/// What is wrong with the credentials, and what to do about it, by the code of the answer.
fn credentials(code: &str) -> Option<(&'static str, &'static str)> {
    Some(match code {
        "SignatureDoesNotMatch" => (
            "the secret key does not match the access key",
            "Check the storage credentials: AWS_SECRET_ACCESS_KEY and AWS_ACCESS_KEY_ID",
        ),
        "InvalidAccessKeyId" | "NotSignedUp" => (
            "it does not know this access key",
            "Check the storage credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => (
            "the session token is not valid any more",
            "Get new storage credentials: AWS_SESSION_TOKEN is old",
        ),
        "RequestTimeTooSkewed" | "RequestExpired" => (
            "the clock of this machine is wrong",
            "Set the clock, for example with `timedatectl set-ntp true`",
        ),
        _ => return None,
    })
}

/// What the storage says when it knows us, or does not.
fn refused(what: &str, all: &str, place: &str) -> Error {
    let code = element(all, "Code").unwrap_or_default();
    let denied = ("it denies access", "Check the storage credentials and what their policy allows");
    let (why, remedy) = credentials(code).unwrap_or(denied);
    let code = if code.is_empty() { String::new() } else { format!(" ({code})") };
    Error::new(ErrorKind::Failed, format!("{place} refuses {what}: {why}{code}")).with_remedy(remedy)
}

/// What a local folder says.
fn local(what: &str, error: &object_store::Error, place: &str) -> Error {
    let (text, remedy) = match errno(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => (
            format!("the repository at {place} is full: {what} was not written"),
            "Free space there and run the command again; nothing that was stored is lost. Where `df` shows free space, `df -i` \
             shows whether the file system can hold more files, and `quota` whether the user may",
        ),
        Some(Errno::FBIG) => (
            format!("a file of the repository at {place} may not become so large: {what} was not written"),
            "The file system or the limit of this shell (`ulimit -f`) allows no file so large: raise it, or use another folder",
        ),
        Some(Errno::ROFS) => (
            format!("the repository at {place} is on a read-only file system: {what} was not written"),
            "Mount it writable, or use another folder",
        ),
        Some(Errno::ACCESS | Errno::PERM) => (
            format!("no permission for {what} in {place}"),
            "Run as the user who owns the repository, or change its permissions",
        ),
        Some(Errno::IO) => (
            format!("the disk under {place} reports an error for {what}"),
            "Look at the kernel's log (`dmesg`) and test the disk before you trust it",
        ),
        _ => {
            let text = format!("{place} failed for {what}: {}", innermost(error));
            return Error::new(ErrorKind::Failed, text);
        }
    };
    Error::new(ErrorKind::Failed, text).with_remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str) -> object_store::Error {
        let text = format!("status code: {status} Some Words: <Error><Code>{code}</Code></Error>");
        Broken(format!("Server returned non-2xx {text}")).into()
    }

    #[test]
    fn only_what_waiting_may_mend_is_tried_again() {
        for (status, code) in [(500, "InternalError"), (503, "SlowDown"), (429, "X"), (400, "RequestTimeout")]
        {
            assert!(may_pass(&answer(status, code)), "{status} {code}");
        }
        for (status, code) in [(400, "BadDigest"), (416, "InvalidRange"), (501, "X"), (404, "NoSuchBucket")] {
            assert!(!may_pass(&answer(status, code)), "{status} {code}");
        }
        assert!(may_pass(&Broken("connection reset".to_owned()).into()));
        assert!(!may_pass(&Broken("invalid peer certificate: UnknownIssuer".to_owned()).into()));
        assert!(!may_pass(&local_error("x", Errno::IO.into())));
    }

    #[test]
    fn the_cause_is_told_without_its_xml() {
        assert_eq!(innermost(&answer(503, "SlowDown")), "503 Some Words (SlowDown)");
        assert_eq!(innermost(&Broken("broken pipe".to_owned()).into()), "broken pipe");
    }

    #[test]
    fn each_refusal_names_its_remedy() {
        let table = [
            ("SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
            ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
            ("RequestTimeTooSkewed", "clock"),
            ("ExpiredToken", "AWS_SESSION_TOKEN"),
            ("AccessDenied", "policy"),
        ];
        for (code, word) in table {
            let source = Box::new(answer(403, code));
            let error = object_store::Error::PermissionDenied { path: "x".to_owned(), source };
            let made = explain("x", &error, "s3://b");
            assert_eq!(made.kind(), ErrorKind::Failed);
            assert!(made.to_string().contains(code), "{made}");
            assert!(made.remedy().unwrap().contains(word), "{code}: {:?}", made.remedy());
        }
    }

    #[test]
    fn a_lock_or_a_policy_that_keeps_an_object_is_told_from_other_trouble() {
        let denied = |code: &str| {
            let source = Box::new(answer(403, code));
            object_store::Error::PermissionDenied { path: "x".to_owned(), source }
        };
        let table = [
            (denied("AccessDenied"), true),
            (denied(""), true),
            (denied("SignatureDoesNotMatch"), false),
            (denied("ExpiredToken"), false),
            (answer(405, "MethodNotAllowed"), true),
            (answer(409, "FileImmutable"), true),
            (answer(503, "SlowDown"), false),
            (answer(404, "NoSuchBucket"), false),
            (local_error("x", Errno::PERM.into()), true),
            (local_error("x", Errno::ACCESS.into()), true),
            (local_error("x", Errno::ROFS.into()), false),
            (local_error("x", Errno::IO.into()), false),
        ];
        for (error, refused) in table {
            let text = error.to_string();
            assert_eq!(Failure::of(&"x", error).is_refusal(), refused, "{text}");
        }
    }

    #[test]
    fn trouble_with_a_folder_names_its_remedy() {
        let table = [
            (Errno::NOSPC, "Free space"),
            (Errno::DQUOT, "Free space"),
            (Errno::NOSPC, "`df -i`"),
            (Errno::FBIG, "`ulimit -f`"),
            (Errno::ROFS, "writable"),
            (Errno::ACCESS, "permissions"),
            (Errno::IO, "dmesg"),
        ];
        for (errno, word) in table {
            let made = explain("x", &local_error("x", errno.into()), "/srv/r");
            assert_eq!(made.kind(), ErrorKind::Failed);
            assert!(made.to_string().contains("/srv/r"), "{made}");
            assert!(made.remedy().unwrap().contains(word), "{errno:?}: {:?}", made.remedy());
        }
    }
}
