//! What nothing can be written over or into: a plan says of each entry what the restore would meet.

use super::{existing::There, work::Job};
use crate::{
    error::{Error, ErrorKind, Result},
    filesystem::{
        MAKE_WRITABLE,
        remove::{Denied, Removal},
    },
    format::{
        entry::{Entry, EntryKind},
        path::split,
    },
};

/// The folder in which a plan would write last, and why that cannot be done.
#[derive(Default)]
pub(super) struct Written(Option<(Vec<u8>, WhyNot)>);

/// What cannot be done in a folder, if anything, and what to do about it.
#[derive(Clone, Default)]
struct WhyNot {
    /// Anything at all.
    all: Option<(String, String)>,
    /// To give a name to what is no folder: that has another one until it is whole.
    names: Option<(String, String)>,
}

impl Written {
    /// What a plan says of an entry that would be written in a folder of the target that this user may not write to, or on a
    /// mount in it that is read-only. Where all is so, that is told once.
    pub(super) fn check(&mut self, job: &Job<'_>, entry: &Entry, there: There) -> Result<()> {
        // A socket is not made.
        if job.removal == Removal::Remove
            || job.is_hidden(&entry.path)
            || entry.metadata.kind == EntryKind::Socket
        {
            return Ok(());
        }
        let below = job.below(&entry.path);
        let folder = split(below).0;
        if self.0.as_ref().is_none_or(|(known, _)| known != folder) {
            self.0 = Some((folder.to_vec(), why_not(job, folder)));
        }
        let Some((_, WhyNot { all, names })) = &self.0 else { return Ok(()) };
        let names = names.as_ref().filter(|_| entry.metadata.kind != EntryKind::Directory);
        if let Some((what, remedy)) = all.as_ref().or(names) {
            return Err(Error::new(ErrorKind::Failed, what.clone()).with_remedy(remedy.clone()));
        }
        let replaces = !matches!(there, There::Nothing);
        match job.target.denied_to_replace(below, job.thaws(folder)).filter(|_| replaces) {
            Some(denied) => {
                let name = String::from_utf8_lossy(below);
                Err(Error::new(ErrorKind::Failed, format!("{name} {}", cannot_replace(denied)))
                    .with_remedy(denied.remedy()))
            }
            None => Ok(()),
        }
    }
}

/// Checks that something can be made in the folder, of a path below the target.
///
/// # Errors
/// It cannot, and what to do about it.
pub(super) fn check_folder(job: &Job<'_>, folder: &[u8]) -> Result<()> {
    let WhyNot { all, names } = why_not(job, folder);
    all.or(names)
        .map_or(Ok(()), |(what, remedy)| Err(Error::new(ErrorKind::Failed, what).with_remedy(remedy)))
}

const fn cannot_replace(denied: Denied) -> &'static str {
    match denied {
        Denied::Frozen => "is immutable or append-only, or its folder is, and this user may not change that",
        Denied::Sticky | Denied::Rights => {
            "is somebody else's in a sticky folder, and this user may not replace it"
        }
    }
}

/// Why nothing can be written at `folder` in the target, if so.
fn why_not(job: &Job<'_>, folder: &[u8]) -> WhyNot {
    let named = |folder: &[u8]| match folder {
        b"" => "the target".to_owned(),
        folder => String::from_utf8_lossy(folder).into_owned(),
    };
    let frozen = |folder: &[u8], what: &str| {
        let why = if job.snapshot.leads_only(&job.path_of(folder)) {
            format!(": it is {what}, and stays so, since it only leads to what was backed up")
        } else {
            format!(" by this user: it is {what}")
        };
        (format!("{} cannot be written to{why}", named(folder)), Denied::Frozen.remedy().to_owned())
    };
    let all = match job.target.denied(folder, &|folder| job.thaws(folder)) {
        Some((folder, Denied::Frozen)) => Some(frozen(folder, "immutable")),
        Some((folder, denied)) => {
            let what = format!("{} cannot be written to by this user", named(folder));
            Some((what, denied.remedy().to_owned()))
        }
        None if job.can_write() && job.target.is_read_only(folder) => {
            let what = format!("{} is read-only", named(folder));
            Some((what, format!("{MAKE_WRITABLE}, or leave it out with --exclude")))
        }
        None => None,
    };
    let keeps_names = all.is_none() && job.target.keeps_names(folder, job.thaws(folder));
    WhyNot { all, names: keeps_names.then(|| frozen(folder, "append-only")) }
}
