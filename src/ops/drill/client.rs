//! One client of a drill: restore, compare, check, measure.

use std::{collections::HashSet, time::Duration};

use super::{DrillOptions, FAIL, FileList, PASS, check, clients::Client};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    filesystem::{
        live::Closed,
        names::{Ownership, OwnershipPolicy},
        sample::{Draw, Sample, SampleSize},
        scratch::Scratch,
        select::Selection,
    },
    format::{
        drill::{ClientReport, ProblemReport},
        evidence::short,
    },
    ops::{
        restore::{self, RestoreOptions},
        verify::{self, Besides, Owners, VerifyOptions},
    },
    repository::{Repository, manifest::for_each_entry, reader::NodeReader},
};

/// Entries of one client that a report names.
const NAMED_MAX: usize = 20;

/// What all clients of a drill have in common.
pub(super) struct Drilling<'a, 'b> {
    pub(super) repository: &'a Repository,
    pub(super) options: &'a DrillOptions,
    pub(super) scratch: &'a Scratch,
    pub(super) list: &'a mut FileList<'b>,
    /// The moment that ages count to.
    pub(super) now: Timestamp,
    pub(super) locate: Duration,
    /// Names of folders that are taken.
    pub(super) taken: HashSet<String>,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether an error says something about the backup. Others end the drill.
fn of_the_backup(error: Error) -> Result<Error> {
    use ErrorKind::{CannotUnlock, Forbidden, Interrupted, NoRepository, Temporary, Usage};
    match error.kind() {
        CannotUnlock | Forbidden | Interrupted | NoRepository | Temporary | Usage => Err(error),
        _ => Ok(error),
    }
}

impl Drilling<'_, '_> {
    /// Drills one client. Its files are gone afterwards, unless they are to stay.
    ///
    /// # Errors
    /// What says nothing about the backup.
    pub(super) fn client(&mut self, client: &Client<'_>) -> Result<ClientReport> {
        let folder = self.folder(client);
        let snapshot = client.snapshot;
        let mut report = ClientReport {
            client: client.label.clone(),
            host: short(&snapshot.record.host),
            identity: snapshot.name.identity.to_string(),
            snapshot: snapshot.name.id.to_string(),
            stored: snapshot.name.stored.rfc3339(),
            time: client.time.rfc3339(),
            rpo_seconds: self.now.seconds_since(client.time),
            folder: folder.clone(),
            unreadable: snapshot.record.unreadable,
            other_sources: client.other_sources,
            files_in_snapshot: snapshot.record.statistics.files,
            ..ClientReport::default()
        };
        report.rto.unlock_ms = ms(self.options.unlock);
        report.rto.locate_ms = ms(self.locate);
        match self.restore_and_compare(client, &folder, &mut report) {
            Ok(()) => self.check(&folder, &mut report)?,
            Err(error) => {
                let error = of_the_backup(error)?;
                report.reasons.push(short(&format!("it could not be restored: {error}")));
            }
        }
        report.rto = report.rto.summed();
        self.judge(&mut report);
        // What cannot be removed now is tried again at the end, and told then: the verdict does not wait for it.
        drop(self.scratch.clear(&folder));
        Ok(report)
    }

    /// A name for its folder that is in no other's way.
    fn folder(&mut self, client: &Client<'_>) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let mut name: String = client.name().chars().take(64).map(plain).collect();
        if name.starts_with('.') || name.is_empty() {
            name.insert(0, '_');
        }
        let mut free = name.clone();
        let mut number = 1;
        while !self.taken.insert(free.clone()) {
            number += 1;
            free = format!("{name}-{number}");
        }
        free
    }

    fn selection(&self, client: &Client<'_>, report: &mut ClientReport) -> Result<Selection> {
        let all = Selection::new(&[], &[])?;
        let Some(size) = self.options.sample else { return Ok(all) };
        let begun = self.repository.clock.elapsed();
        let (sample, indexed) = self.draw(client, size)?;
        report.rto.index_ms += ms(indexed.saturating_sub(begun));
        Ok(all.sampled(sample))
    }

    /// Draws the sample, and tells when the index was read.
    fn draw(&self, client: &Client<'_>, size: SampleSize) -> Result<(Sample, Duration)> {
        let Self { repository, options, .. } = self;
        let (domain, record) = (client.snapshot.name.domain, &client.snapshot.record);
        let view = repository.view_to_read(&domain)?;
        let nodes = NodeReader::new(repository, domain, &view.index)?;
        let indexed = repository.clock.elapsed();
        let mut draw = Draw::new(record, options.seed);
        let progress = repository.store.progress();
        // What cannot be read is not drawn; the restore meets it again and fails the drill.
        for_each_entry(&nodes, record.root, b"", &mut |entry| {
            entry.iter().for_each(|entry| draw.count(entry));
            progress.check()
        })?;
        draw.share(size);
        for_each_entry(&nodes, record.root, b"", &mut |entry| {
            entry.iter().for_each(|entry| draw.rank(entry));
            progress.check()
        })?;
        Ok((draw.finish(), indexed))
    }

    fn restore_and_compare(
        &mut self,
        client: &Client<'_>,
        folder: &str,
        report: &mut ClientReport,
    ) -> Result<()> {
        let (repository, options) = (self.repository, self.options);
        let target = self.scratch.path().join(folder);
        let selection = self.selection(client, report)?;
        let policy = match options.owners {
            Owners::Ignore | Owners::NotRoot => OwnershipPolicy::Keep,
            Owners::Compare | Owners::Numbers => OwnershipPolicy::Numeric,
        };
        let begun = repository.clock.elapsed();
        let restoring = RestoreOptions {
            ownership: Ownership::new(policy),
            subpath: Vec::new(),
            selection,
            workers: options.workers,
            ..RestoreOptions::default()
        };
        let restored = restore::run(repository, client.snapshot, &target, &restoring);
        let restored = restored.map_err(|stopped| stopped.error)?;
        let moments = restored.moments;
        report.rto.index_ms += ms(moments.indexed.saturating_sub(begun));
        report.rto.first_byte_ms = ms(moments.first_byte.saturating_sub(moments.indexed));
        report.rto.last_byte_ms = ms(moments.last_byte.saturating_sub(moments.first_byte));
        // What the backup could not read is counted apart: nothing of it was ever stored.
        let ours = restored.failed.iter().map(|(path, error)| (path, error.to_string()));
        let ours = ours.filter(|(_, why)| !why.starts_with(restore::UNREAD));
        report.problems = ours.take(NAMED_MAX).map(|(path, why)| problem(path, &why)).collect();
        report.failed = restored.failures - restored.unread;
        let named: HashSet<Vec<u8>> = restored.failed.into_iter().map(|(path, _)| path).collect();

        self.list.below(folder);
        let begun = repository.clock.elapsed();
        // The folder was empty: what is there besides are damaged files, which are named already.
        let comparing = VerifyOptions {
            selection: restoring.selection,
            owners: options.owners,
            besides: Besides::Ignore,
            closed: Closed::OpenUp,
            ..VerifyOptions::default()
        };
        let compared =
            verify::run_before(repository, client.snapshot, Some(&target), &comparing, &mut *self.list)?;
        report.rto.verify_ms = ms(repository.clock.elapsed().saturating_sub(begun));
        (report.files, report.bytes) = (compared.files, compared.bytes);
        report.differing = compared.differing;
        for (path, difference) in compared.differences.iter().filter(|(path, _)| !named.contains(path)) {
            if report.problems.len() < NAMED_MAX {
                report.problems.push(problem(path, &difference.to_string()));
            }
        }
        Ok(())
    }

    fn check(&self, folder: &str, report: &mut ClientReport) -> Result<()> {
        let Self { repository, options, .. } = self;
        let begun = repository.clock.elapsed();
        let folder = self.scratch.path().join(folder);
        let subject = check::Subject {
            folder: &folder,
            client: &report.client,
            host: &report.host,
            snapshot: &report.snapshot,
            hidden: &options.hidden,
        };
        let mut checks = Vec::new();
        for command in &options.checks {
            let (clock, progress) = (&*repository.clock, repository.store.progress());
            checks.push(check::run(command, &subject, options.check_timeout, clock, progress)?);
        }
        report.checks = checks;
        report.rto.checks_ms = ms(repository.clock.elapsed().saturating_sub(begun));
        Ok(())
    }

    /// Says why it failed, the worst first.
    fn judge(&self, report: &mut ClientReport) {
        let ClientReport { failed, differing, unreadable, problems, rpo_seconds, rto, .. } = &*report;
        let first = problems.first().map(|p| format!(": {}: {}", p.path, p.problem)).unwrap_or_default();
        let mut reasons = Vec::new();
        if *failed > 0 {
            reasons.push(format!("{} could not be restored{first}", entries(*failed)));
        } else if *differing > 0 {
            reasons.push(format!("{} came back otherwise than backed up{first}", entries(*differing)));
        }
        if *unreadable > 0 {
            reasons.push(format!("the backup is incomplete: it could not read {}", entries(*unreadable)));
        }
        for check in report.checks.iter().filter(|check| check.result != "passed") {
            let code = check.code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
            reasons.push(format!("the check `{}` {}{code}", check.command, said_of(&check.result)));
        }
        let late = |took: u64, allowed: Option<Duration>| allowed.filter(|allowed| took > allowed.as_secs());
        if let Some(allowed) = late(*rpo_seconds, self.options.rpo) {
            let allowed = allowed.as_secs();
            reasons.push(format!("the backup is {rpo_seconds} s old, and {allowed} s were allowed"));
        }
        if let Some(allowed) =
            self.options.rto.filter(|allowed| u128::from(rto.total_ms) > allowed.as_millis())
        {
            let (took, allowed) = (rto.total_ms.div_ceil(1000), allowed.as_secs());
            reasons.push(format!("getting it back took {took} s, and {allowed} s were allowed"));
        }
        report.reasons.extend(reasons.iter().map(|reason| short(reason)));
        if report.reasons.is_empty() { PASS } else { FAIL }.clone_into(&mut report.verdict);
    }
}

fn said_of(result: &str) -> &str {
    match result {
        "timed out" => "took too long and was ended",
        "not started" => "could not be started",
        _ => "failed",
    }
}

fn entries(count: u64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

fn problem(path: &[u8], problem: &str) -> ProblemReport {
    let path = short(&format!("/{}", String::from_utf8_lossy(path)));
    ProblemReport { path, problem: short(problem) }
}
