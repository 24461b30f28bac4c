//! One error type. The kind decides the exit code; the message names the object; the remedy says
//! what to do next; the source is the cause, printed with `-v`.

use std::{error, fmt};

/// What an operation returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as far as a script must tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It failed, for a reason that has no kind of its own.
    Failed,
    /// The command was used wrongly.
    Usage,
    /// Some entries could not be read or restored.
    Incomplete,
    /// A restore drill failed.
    DrillFailed,
    /// Damage was found.
    Damaged,
    /// `verify` found differences.
    Differences,
    /// A backup is overdue.
    Overdue,
    /// A source is suspiciously empty.
    EmptySource,
    /// There is no repository at that place.
    NoRepository,
    /// Nothing that was given unlocks the repository.
    CannotUnlock,
    /// The role of the identity does not allow it.
    Forbidden,
    /// Storage or network trouble that may pass.
    Temporary,
    /// The user or the system asked to stop.
    Interrupted,
    /// The object is not there. (Callers turn it into something more telling.)
    NotFound,
}

impl ErrorKind {
    /// The exit code of the program.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed | Self::NotFound => 1,
            Self::Usage => 2,
            Self::Incomplete => 3,
            Self::DrillFailed => 4,
            Self::Damaged => 5,
            Self::Differences => 6,
            Self::Overdue => 7,
            Self::EmptySource => 9,
            Self::NoRepository => 10,
            Self::CannotUnlock => 12,
            Self::Forbidden => 13,
            Self::Temporary => 75,
            Self::Interrupted => 130,
        }
    }
}

/// What failed, on what, why, and what to do about it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    remedy: Option<String>,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what failed and on what.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), remedy: None, source: None }
    }

    /// Something is not so although the storage has acknowledged it.
    #[must_use]
    pub fn untrue(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, what)
            .with_remedy("Do not trust this storage until its operator has explained it")
    }

    /// An object is not there although its write was acknowledged.
    #[must_use]
    pub fn not_kept(object: impl fmt::Display) -> Self {
        Self::untrue(format!("{object} is not there although its write was acknowledged"))
    }

    /// An object of the repository is not what its name or signature promises.
    pub fn damaged(object: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Damaged, format!("{object} is damaged: {why}"))
    }

    /// Adds what the user can do next.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error under another kind.
    #[must_use]
    pub const fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same error, saying first what was being done.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// What kind of error it is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether something is lost: damaged, or not there. Other trouble may pass or would be everywhere.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self.kind, ErrorKind::Damaged | ErrorKind::NotFound)
    }

    /// Whether the system said what holds for every other file too: the disk is full or read-only, no more
    /// files can be open, or memory is short.
    #[must_use]
    pub fn is_of_the_whole_system(&self) -> bool {
        use rustix::io::Errno;
        self.is_read_only()
            || self.is_one_of(&[Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::NOMEM])
    }

    /// Whether the system said that nothing can be written there: that may be one mount among others.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.is_one_of(&[rustix::io::Errno::ROFS])
    }

    fn is_one_of(&self, errors: &[rustix::io::Errno]) -> bool {
        use rustix::io::Errno;
        let mut cause: Option<&(dyn error::Error + 'static)> = error::Error::source(self);
        while let Some(error) = cause {
            let code = error.downcast_ref::<Errno>().map(|errno| errno.raw_os_error());
            let code = code
                .or_else(|| error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error));
            if code.is_some_and(|code| errors.iter().any(|errno| errno.raw_os_error() == code)) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// What the user can do next, where something helps.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn error::Error + 'static))
    }
}
