//! `--delete`: what is in the folders of a snapshot and not in it goes. Where anything is not known for sure, nothing
//! does: not where a part of the manifest is lost, nor in a folder of which something could not be restored.

use std::collections::HashSet;

use super::{
    super::besides::{Beside, Besides, LEFT_UNFINISHED, judge},
    work::Job,
};
use crate::{
    error::Result,
    filesystem::{
        filter::Filter,
        metadata::Note,
        remove::{Removal, Remover},
        unmet::{Ended, Names},
    },
    format::{entry::Entry, path::split},
};

/// What may be in a folder beside what the snapshot has of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extra {
    /// It stays.
    #[default]
    Keep,
    /// It is removed.
    Remove,
}

/// Goes over the entries of the snapshot once more.
pub(super) struct Clearing<'a> {
    job: &'a Job<'a>,
    besides: Besides<'a>,
    /// Folders of which something could not be restored.
    failed_in: HashSet<Vec<u8>>,
    /// So many failures were looked at.
    known: usize,
}

impl<'a> Clearing<'a> {
    /// `None` if everything stays.
    pub(super) fn new(job: &'a Job<'a>) -> Result<Option<Self>> {
        if !job.clears() || job.target.was_empty() {
            return Ok(None);
        }
        let options = job.options;
        // An include that nothing in the snapshot matches is a mistake, and no order to remove what is in the target.
        if !options.selection.unmatched().patterns.is_empty() {
            return Ok(None);
        }
        let chosen = (&options.selection, &options.left_out);
        let besides = Besides::new(job.snapshot, &options.subpath, chosen);
        let mut clearing = Self { job, besides, failed_in: HashSet::new(), known: 0 };
        if let Err(error) = clearing.besides.begin(&mut |path, left_out| list(job, path, left_out)) {
            job.failed(b"", error)?;
        }
        Ok(Some(clearing))
    }

    pub(super) fn entry(&mut self, entry: &Entry) -> Result<()> {
        while let Some(ended) = self.besides.ends_before(&entry.path) {
            self.clear(&ended)?;
        }
        let job = self.job;
        match self.besides.entry(entry, &mut |path, left_out| list(job, path, left_out)) {
            Err(error) => job.failed(&entry.path, error),
            Ok(()) => Ok(()),
        }
    }

    /// A part of the manifest is lost here.
    pub(super) fn gap(&mut self) {
        self.besides.doubt();
    }

    pub(super) fn finish(&mut self) -> Result<()> {
        while let Some(ended) = self.besides.end() {
            self.clear(&ended)?;
        }
        Ok(())
    }

    fn clear(&mut self, ended: &Ended) -> Result<()> {
        if ended.names().next().is_none() {
            return Ok(());
        }
        let (job, all_stays) = (self.job, self.has_failed(&ended.folder));
        let mut stays = 0;
        let judged = judge(ended, (job.target, job.strip), &mut |path, what| {
            match what {
                Beside::Leftover => {}
                Beside::Unfinished => job.note(path, vec![Note::Told(LEFT_UNFINISHED.into())]),
                Beside::Extra if all_stays => stays += u64::from(would_go(job, path)),
                Beside::Extra => {
                    if let Err(error) = job.remove(path) {
                        job.failed(path, error)?;
                    }
                }
            }
            Ok(())
        });
        // What nobody can tell of stays, and the folders that follow are gone through.
        if let Err(error) = judged {
            job.failed(&ended.folder, error)?;
        }
        if stays > 0 {
            let which = if stays == 1 { "1 name in it".to_owned() } else { format!("{stays} names in it") };
            let told = format!(
                "{which}, which the snapshot does not have, would go with --delete and stay, since something in this \
                 folder could not be restored: `lifeboat verify` names what is there besides"
            );
            job.note(&ended.folder, vec![Note::Told(told)]);
        }
        Ok(())
    }

    /// Whether something in the folder could not be restored, or nobody knows any more where that happened.
    fn has_failed(&mut self, folder: &[u8]) -> bool {
        let done = self.job.done();
        for (path, _) in done.failed.iter().skip(self.known) {
            self.failed_in.insert(split(path).0.to_vec());
        }
        self.known = done.failed.len();
        done.failures > done.failed.len() as u64 || self.failed_in.contains(folder)
    }
}

/// Whether something of what is there would be removed, or could not be.
fn would_go(job: &Job<'_>, path: &[u8]) -> bool {
    let mut goes = false;
    let remover = Remover { removal: Removal::Tell, ..job.remover() };
    remover.remove(path, &mut |_| goes = true).is_err() || goes
}

/// The names in a folder, if it is one that may be looked into.
fn list(job: &Job<'_>, path: &[u8], left_out: &Filter) -> Result<Option<Names>> {
    if job.is_hidden(path) { Ok(None) } else { job.target.names(job.below(path), left_out) }
}
