//! `drill`: proves that backups come back. The newest snapshot of each client is restored from the storage
//! into a scratch folder, read back and compared with its manifest, checked with the user's own commands and
//! measured against the objectives. What was found is signed, on the disk and in the storage.
//! Promise: nothing comes from a cache; the scratch folder goes, whatever happens; no error of the backup
//! ends a drill with anything but a failed one.

use std::{collections::HashSet, ffi::OsString, io::Write, path::PathBuf, time::Duration};

use self::{began::Began, client::Drilling};
pub use self::{
    history::{Row, history},
    list::FileList,
    proof::{Proof, verify_report},
};
use crate::{
    error::{Error, ErrorKind, Result},
    filesystem::{
        sample::SampleSize,
        scratch::{Afterwards, Scratch},
    },
    format::{
        drill::{DrillReport, Objectives},
        evidence::{DRILL, Head, short},
        report::SignedReport,
    },
    id::DomainId,
    limits,
    repository::{Repository, evidence::ChainPlace, snapshots::Snapshots},
    store::Name,
};

use super::{
    evidence::{self, as_json},
    select::Filter,
    verify::Owners,
};

mod began;
mod check;
mod client;
mod clients;
mod history;
mod list;
mod proof;

/// What passes, in a report.
pub const PASS: &str = "pass";
/// What does not.
pub const FAIL: &str = "fail";

/// Where the files are restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// In this folder, which is empty or not there yet.
    Target(PathBuf),
    /// In a new folder in this one.
    Within(PathBuf),
}

/// What to drill, and how.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// Which snapshots are meant.
    pub filter: Filter,
    /// Only a sample of each.
    pub sample: Option<SampleSize>,
    /// What samples are drawn with.
    pub seed: u64,
    /// Where to restore.
    pub place: Where,
    /// Whether what was restored stays.
    pub afterwards: Afterwards,
    /// Owners can be set and compared by those who may: root. (`Compare` is not meant here: names are
    /// another machine's.)
    pub owners: Owners,
    /// The oldest that the newest backup of a client may be.
    pub rpo: Option<Duration>,
    /// The longest that getting a client back may take.
    pub rto: Option<Duration>,
    /// Commands of the shell that check what was restored.
    pub checks: Vec<String>,
    /// How long each may take.
    pub check_timeout: Duration,
    /// Variables that checks do not get: they must not unlock the repository or write to the storage.
    pub hidden: Vec<OsString>,
    /// How long unlocking took.
    pub unlock: Duration,
    /// Threads that restore.
    pub workers: usize,
    /// The machine, for the report.
    pub machine: String,
    /// The program, for the report.
    pub program: String,
}

/// What a drill found.
#[derive(Debug)]
pub struct Drilled {
    /// What it found.
    pub report: DrillReport,
    /// The same, signed.
    pub signed: SignedReport,
    /// The record in the storage, or why there is none.
    pub stored: Result<Name>,
    /// Whether the scratch folder is gone, or was to stay.
    pub cleaned: Result<()>,
    /// The folder, if it was to stay.
    pub kept: Option<PathBuf>,
    /// What is damaged where nobody was asked for.
    pub warnings: Vec<String>,
}

impl Drilled {
    /// Whether it passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.reasons.is_empty()
    }
}

/// Whether this identity may drill, and nothing but the storage will be read.
fn allowed(repository: &Repository) -> Result<()> {
    if !repository.reads_data() {
        return Err(repository.forbidden("restore files", "restore"));
    }
    if repository.cache.folder().is_some() {
        return Err(Error::new(ErrorKind::Failed, "a drill reads from the storage and from no cache"));
    }
    Ok(())
}

/// Drills. The lines of the list of files go to `files`.
///
/// # Errors
/// What says nothing about the backups: a role that may not read data, an interruption, trouble of the
/// network, a target that cannot be used. Everything else is a failed drill.
pub fn run(repository: &Repository, options: &DrillOptions, files: &mut dyn Write) -> Result<Drilled> {
    allowed(repository)?;
    let scratch = match &options.place {
        Where::Target(path) => Scratch::at(path, options.afterwards)?,
        Where::Within(base) => Scratch::within(base, options.afterwards)?,
    };
    let began = Began::announce(repository, options)?;
    let begun = repository.clock.elapsed();
    let Snapshots { listed: snapshots, damaged, .. } = repository.every_snapshot()?;
    let clients = clients::newest_of_each(&snapshots, &options.filter, &repository.registry());
    let locate = repository.clock.elapsed().saturating_sub(begun);
    if clients.len() > limits::DRILL_CLIENTS_MAX {
        return Err(Error::new(ErrorKind::Usage, format!("{} clients are too many", clients.len()))
            .with_remedy("Drill some at a time: name them with --host"));
    }
    let now = began.now(&snapshots);
    // Who asked for some clients is not told of damage where none of them is as of a failure.
    let meant = |domain: &DomainId| {
        options.filter.is_empty() || clients.iter().any(|client| client.snapshot.name.domain == *domain)
    };
    let (own, others): (Vec<_>, Vec<_>) = damaged.into_iter().partition(|(domain, _)| meant(domain));
    let warnings = others.into_iter().map(|(_, error)| error.to_string()).collect();
    let mut reasons: Vec<String> = own.iter().map(|(_, error)| short(&error.to_string())).collect();
    reasons.truncate(limits::DRILL_CLIENTS_MAX);
    reasons.extend(clients::absent(&clients, &options.filter, &repository.registry()));
    let mut list = FileList::new(files);
    let mut drilling = Drilling {
        repository,
        options,
        scratch: &scratch,
        list: &mut list,
        now,
        locate,
        taken: HashSet::new(),
    };
    let mut done = Vec::new();
    for client in &clients {
        let report = drilling.client(client)?;
        reasons.extend(report.reasons.first().map(|why| short(&format!("{}: {why}", client.name()))));
        done.push(report);
    }
    let objectives = Objectives {
        rpo_seconds: options.rpo.map(|rpo| rpo.as_secs()),
        rto_seconds: options.rto.map(|rto| rto.as_secs()),
    };
    let report = DrillReport {
        head: Head::default(),
        drill: began.drill.clone(),
        now: now.rfc3339(),
        clock: began.clock_name().to_owned(),
        read_from: "storage".to_owned(),
        sample: options.sample.map_or_else(|| "all".to_owned(), |size| size.to_string()),
        seed: options.seed,
        objectives,
        clients: done,
        files: list.finish()?,
        reasons,
    };
    let kept = (options.afterwards == Afterwards::Keep).then(|| scratch.path().to_owned());
    let cleaned = scratch.finish();
    let (report, signed, stored) = publish(repository, options, report, began.refused)?;
    Ok(Drilled { report, signed, stored, cleaned, kept, warnings })
}

/// Signs the report and writes it as the next record of the chain. Where the storage does not take it, it is
/// signed without a place in the chain.
fn publish(
    repository: &Repository,
    options: &DrillOptions,
    mut report: DrillReport,
    refused: Option<Error>,
) -> Result<(DrillReport, SignedReport, Result<Name>)> {
    shorten(&mut report)?;
    let verdict = if report.reasons.is_empty() { PASS } else { FAIL };
    let summary = summary(&report);
    let mut sign = |place: Option<ChainPlace>| -> Result<SignedReport> {
        report.head = Head { verdict: Some(verdict.to_owned()), ..head(repository, options, DRILL, place) };
        report.head.summary.clone_from(&summary);
        SignedReport::sign(as_json(&report)?, repository.signer())
    };
    let publish =
        |signed: &SignedReport, place| repository.publish_evidence(&repository.store, place, signed);
    let stored = match refused {
        Some(error) => Err(error),
        None => match repository.next_evidence(&repository.store) {
            Ok(place) => {
                let signed = sign(Some(place))?;
                match publish(&signed, place) {
                    Ok(name) => return Ok((report, signed, Ok(name))),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        },
    };
    if let Err(error) = &stored
        && error.kind() == ErrorKind::Interrupted
    {
        return stored.map(|_: Name| unreachable!("it is an error"));
    }
    let signed = sign(None)?;
    Ok((report, signed, stored))
}

/// Room for what a report says first, which is filled in when it is signed.
const HEAD_BYTES: usize = 16 << 10;

/// Leaves out of a report that is too long to be signed what weighs most and says least. The verdict, the
/// reasons and the figures of each client stay.
fn shorten(report: &mut DrillReport) -> Result<()> {
    let leave_out: [fn(&mut DrillReport); 3] = [
        |report| {
            let checks = report.clients.iter_mut().flat_map(|client| &mut client.checks);
            checks.for_each(|check| check.output = "left out: the report would be too long".to_owned());
        },
        |report| report.clients.iter_mut().for_each(|client| client.problems.truncate(1)),
        |report| report.clients.iter_mut().for_each(|client| client.problems.clear()),
    ];
    for step in leave_out {
        if as_json(report)?.len() + HEAD_BYTES <= limits::REPORT_BYTES_MAX {
            break;
        }
        step(report);
    }
    Ok(())
}

/// What every report of this identity says first.
fn head(repository: &Repository, options: &DrillOptions, kind: &str, place: Option<ChainPlace>) -> Head {
    evidence::head(repository, (&options.machine, &options.program), kind, place)
}

/// What a drill comes to, in one line.
fn summary(report: &DrillReport) -> String {
    let count = |number: u64, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    match &report.reasons[..] {
        [] => {
            let files = report.clients.iter().map(|client| client.files).sum();
            let bytes = report.clients.iter().map(|client| client.bytes).sum();
            let sample = if report.sample == "all" { "" } else { " (a sample)" };
            let clients = count(report.clients.len() as u64, "client");
            format!(
                "{clients}: {}, {}{sample} came back as backed up",
                count(files, "file"),
                count(bytes, "byte")
            )
        }
        [only] => only.clone(),
        [first, others @ ..] => format!("{first} (and {} more)", others.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::drill::{CheckReport, ClientReport};

    #[test]
    fn a_report_that_is_too_long_to_be_signed_is_shortened_and_keeps_its_reasons() {
        // A NUL takes six bytes in JSON.
        let check = CheckReport { output: "\0".repeat(4096), ..CheckReport::default() };
        let reasons = vec!["the check said no".to_owned()];
        let client =
            ClientReport { checks: vec![check], reasons: reasons.clone(), ..ClientReport::default() };
        let mut report =
            DrillReport { clients: vec![client; 100], reasons: reasons.clone(), ..DrillReport::default() };
        assert!(as_json(&report).unwrap().len() > limits::REPORT_BYTES_MAX);
        shorten(&mut report).unwrap();
        assert!(as_json(&report).unwrap().len() + HEAD_BYTES <= limits::REPORT_BYTES_MAX);
        assert!(report.reasons == reasons && report.clients.iter().all(|client| client.reasons == reasons));
        assert!(report.clients[0].checks[0].output.contains("left out"));
    }
}
