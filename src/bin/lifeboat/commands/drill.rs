//! `drill`: proves that backups come back, and keeps the evidence.
#![expect(clippy::doc_markdown, reason = "these comments are the help that users read")]

use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use lifeboat::{
    clock::{Clock, SystemClock},
    error::{Error, ErrorKind, Result},
    filesystem::{durable, rights, sample::SampleSize, scratch::Afterwards},
    limits,
    ops::{
        drill::{self, DrillOptions, Drilled, Proof, Row, Where},
        verify::Owners,
    },
    random,
    report::{
        drill as show, json,
        table::{Side, Table},
        text, time,
    },
    repository::evidence::KnownEvidence,
};
use serde_json::{Value, json};

use super::{refuse_as_target, workers};
use crate::{args::FilterArguments, context::Context, environment};

const AFTER: &str = "\
Examples:
  lifeboat drill run --rpo 26h --rto 4h
  lifeboat drill history
  lifeboat drill verify-report drill-20260131T220509Z.json --certificate technician.json";

const AFTER_RUN: &str = "\
The newest snapshot of each client, by the clock of the storage, is restored from the storage and from no cache, read
back and compared with its manifest. The first line of the output is PASS or FAIL with the reason, and the exit code of a
FAIL is 4. What was found is signed: in a report on this disk, with the list of what came back beside it in the form of
b3sum, and as the next record of a chain in the storage, if that may be written to.

A check is a command of /bin/sh. The folder with the restored files is its first argument, its working folder and
LIFEBOAT_DRILL_PATH; LIFEBOAT_DRILL_CLIENT, _HOST and _SNAPSHOT say what it is. It gets no other LIFEBOAT_ variable and no
AWS_ variable. It fails when its exit code is not 0.

Examples:
  lifeboat drill run
  lifeboat drill run --host web1 --sample 5% --rpo 26h
  lifeboat drill run --host db1 --check 'pg_restore --list \"$1\"/srv/db.dump' --check-timeout 10m";

/// Arguments of `drill`.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Drill {
    #[command(subcommand)]
    command: DrillCommand,
}

#[derive(Debug, Subcommand)]
enum DrillCommand {
    /// Restore the newest backup of each client, check and measure it
    Run(Run),
    /// List the evidence that is in the storage, and check its chains
    History,
    /// Check a report without the repository, a key or the network
    VerifyReport(VerifyReport),
}

/// Arguments of `drill run`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_RUN)]
struct Run {
    #[command(flatten)]
    filter: FilterArguments,
    /// Restore only so many files of each client (100), or so many percent (5%): small and large, old and new
    #[arg(long, value_name = "N|x%")]
    sample: Option<String>,
    /// Draw the sample that this number drew before
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Restore into this folder, which must be empty or not there [default: a new one for temporary files]
    #[arg(long, value_name = "FOLDER")]
    target: Option<PathBuf>,
    /// Fail if the newest backup of a client is older than this, such as 26h
    #[arg(long, value_name = "DURATION")]
    rpo: Option<String>,
    /// Fail if getting a client back takes longer than this, such as 4h
    #[arg(long, value_name = "DURATION")]
    rto: Option<String>,
    /// Leave what was restored where it is
    #[arg(long)]
    keep: bool,
    /// Run this command of the shell on what was restored (may be given several times)
    #[arg(long = "check", value_name = "COMMAND")]
    checks: Vec<String>,
    /// End a check that takes longer, and fail [default: 5m]
    #[arg(long, value_name = "DURATION", default_value = "5m", hide_default_value = true)]
    check_timeout: String,
    /// Write the report to this new file, and the list of what came back to FILE.b3sum [default: a new file in
    /// STATE_DIRECTORY or the current folder]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Arguments of `drill verify-report`.
#[derive(Debug, Args)]
struct VerifyReport {
    /// The report
    file: PathBuf,
    /// The certificate of whoever made it: `lifeboat key export-certificate`
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// The list of what came back [default: FILE.b3sum, if it is there]
    #[arg(long, value_name = "FILE")]
    files: Option<PathBuf>,
}

impl Drill {
    /// Whether it writes nothing to the repository.
    pub(crate) const fn only_reads(&self) -> bool {
        !matches!(self.command, DrillCommand::Run(_))
    }
}

pub(crate) fn run(arguments: &Drill, context: &Context<'_>) -> Result<()> {
    match &arguments.command {
        DrillCommand::Run(arguments) => drill(arguments, context),
        DrillCommand::History => history(context),
        DrillCommand::VerifyReport(arguments) => verify_report(arguments, context),
    }
}

fn drill(arguments: &Run, context: &Context<'_>) -> Result<()> {
    let mut options = options(arguments)?;
    if let Where::Target(target) = &options.place {
        refuse_as_target(target, context)?;
    }
    let paper = Paper::create(arguments.report.as_deref())?;
    let begun = SystemClock.elapsed();
    let repository = context.open_without_cache()?;
    options.unlock = SystemClock.elapsed().saturating_sub(begun);
    let mut files = BufWriter::new(&paper.list);
    let drilled = drill::run(&repository, &options, &mut files)?;
    drop(files);
    context.end_display();
    let (report, list) = (paper.report.clone(), paper.list_path.clone());
    let written = paper.finish(&drilled.signed.encode());
    // The verdict first, whatever becomes of the paper.
    tell(&drilled, written.is_ok().then_some((&*report, &*list)), context);
    if let Err(error) = &written {
        context.output.trouble(error);
    }
    for warning in &drilled.warnings {
        context.output.warn(&format!("another client's snapshot cannot be trusted: {warning}"));
    }
    if let Err(error) = &drilled.cleaned {
        context.output.trouble(error);
    }
    if !drilled.passed() {
        let place =
            written.map_or_else(|_| "".to_owned(), |()| format!("; the report is in {}", report.display()));
        let remedy = format!("The first line of its output says why{place}");
        return Err(Error::new(ErrorKind::DrillFailed, "the drill failed").with_remedy(remedy));
    }
    written.and(drilled.cleaned)
}

fn options(arguments: &Run) -> Result<DrillOptions> {
    let duration = |text: &Option<String>| text.as_deref().map(time::parse_duration).transpose();
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => u64::from(u32::from_le_bytes(random::bytes()?)),
    };
    Ok(DrillOptions {
        filter: arguments.filter.filter(),
        sample: arguments.sample.as_deref().map(SampleSize::parse).transpose()?,
        seed,
        place: match &arguments.target {
            Some(target) => Where::Target(target.clone()),
            None => Where::Within(environment::temporary_folder()),
        },
        afterwards: if arguments.keep { Afterwards::Keep } else { Afterwards::Remove },
        owners: if rights::may_give_to_anybody() { Owners::Numbers } else { Owners::NotRoot },
        rpo: duration(&arguments.rpo)?,
        rto: duration(&arguments.rto)?,
        checks: arguments.checks.clone(),
        check_timeout: time::parse_duration(&arguments.check_timeout)?,
        hidden: environment::secrets(),
        unlock: Duration::ZERO,
        workers: workers(),
        machine: environment::host(),
        program: format!("lifeboat {}", env!("CARGO_PKG_VERSION")),
    })
}

/// The report and the list beside it. The list is made first, so that a place that cannot be written is known
/// before the work; unless all ends well it goes again.
struct Paper {
    report: PathBuf,
    list_path: PathBuf,
    list: File,
    done: bool,
}

fn beside(report: &Path) -> PathBuf {
    let mut path = report.as_os_str().to_owned();
    path.push(".b3sum");
    PathBuf::from(path)
}

impl Paper {
    fn create(report: Option<&Path>) -> Result<Self> {
        let Some(report) = report else {
            let folder = environment::os("STATE_DIRECTORY").map(PathBuf::from).unwrap_or_default();
            let time = SystemClock.now().rfc3339();
            let time: String = time.split('.').next().unwrap_or_default().replace(['-', ':', 'Z'], "");
            let named = |end: &str| Self::create_at(folder.join(format!("drill-{time}Z{end}.json")));
            // Several may begin in one second.
            let mut made = named("");
            for number in 2..10 {
                if !matches!(&made, Err(error) if error.kind() == ErrorKind::Usage) {
                    break;
                }
                made = named(&format!("-{number}"));
            }
            return made;
        };
        Self::create_at(report.to_owned())
    }

    fn create_at(report: PathBuf) -> Result<Self> {
        let list_path = beside(&report);
        let there = || {
            Error::new(ErrorKind::Usage, format!("{} is there already", report.display()))
                .with_remedy("Name a new file with --report: evidence is never overwritten")
        };
        if report.symlink_metadata().is_ok() {
            return Err(there());
        }
        let mut options = std::fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&list_path) {
            Ok(list) => Ok(Self { report, list_path, list, done: false }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(there()),
            Err(error) => Err(Error::new(ErrorKind::Failed, format!("cannot write {}", list_path.display()))
                .with_remedy("Name a place for the report that can be written, with --report")
                .with_source(error)),
        }
    }

    /// Writes the report, after the list.
    fn finish(mut self, report: &[u8]) -> Result<()> {
        let cannot = |path: &Path| {
            let text = format!("cannot write {}", path.display());
            move |error| Error::new(ErrorKind::Failed, text).with_source(error)
        };
        (&self.list).flush().and_then(|()| self.list.sync_all()).map_err(cannot(&self.list_path))?;
        durable::write_atomic(&self.report, report, 0o600)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        if !self.done {
            // A list without its report says nothing.
            drop(std::fs::remove_file(&self.list_path));
        }
    }
}

/// Says what was found; `paper` is where the report and the list are.
fn tell(drilled: &Drilled, paper: Option<(&Path, &Path)>, context: &Context<'_>) {
    let output = context.output;
    let Drilled { report: found, stored, kept, signed, .. } = drilled;
    for line in show::lines(found) {
        output.say(&line);
    }
    if let Some((report, list)) = paper {
        let (report, list) = (report.display(), list.display());
        output.note(&format!("report: {report}, and the list of what came back in {list}"));
    }
    match stored {
        Ok(name) => output.note(&format!("evidence: {name}")),
        Err(error) => output.warn(&format!("the record of this drill is on this disk only: {error}")),
    }
    if let Some(folder) = kept {
        output.note(&format!("the restored files are in {}", folder.display()));
    }
    let payload: Value = serde_json::from_str(signed.payload()).unwrap_or_default();
    output.message(&json::message(
        "summary",
        json!({
            "verdict": found.head.verdict,
            "reason": found.head.summary,
            "report": paper.map(|(report, _)| report.to_string_lossy()),
            "files": paper.map(|(_, list)| list.to_string_lossy()),
            "evidence": stored.as_ref().ok().map(|name| name.to_string()),
            "kept": kept.as_ref().map(|folder| folder.to_string_lossy()),
            "drill": payload,
        }),
    ));
}

fn history(context: &Context<'_>) -> Result<()> {
    let repository = context.open()?;
    let header = ["Time", "By", "No.", "Kind", "Verdict", "Summary"];
    let mut table =
        Table::new(&header.map(|name| (name, if name == "No." { Side::Right } else { Side::Left })));
    let mut records = 0_u64;
    let problems = drill::history(&repository, &mut |row| {
        let (known, verdict) = match &row {
            Row::Record(known) => (known, known.head.verdict.clone().unwrap_or_default()),
            Row::Unfinished(known) => (known, "unfinished".to_owned()),
        };
        records += 1;
        let label = repository.registry().certificate(&known.identity).map(|known| known.label.clone());
        let label = label.unwrap_or_default();
        context.output.message(&message(known, &verdict, &label));
        if !context.output.is_json() {
            let head = &known.head;
            table.row(vec![
                time::parse(&head.time, &context.zone).map_or_else(
                    |_not_a_time| text::shown(head.time.as_bytes()),
                    |at| time::show(at, &context.zone),
                ),
                text::shown(label.as_bytes()),
                known.sequence.to_string(),
                text::shown(head.kind.as_bytes()),
                text::shown(verdict.as_bytes()),
                text::shown(head.summary.as_bytes()),
            ]);
        }
        Ok(())
    })?;
    context.end_display();
    table.lines(context.output.width()).iter().for_each(|line| context.output.say(line));
    problems.iter().for_each(|problem| context.output.trouble(problem));
    context.output.note(&text::count(records, "record", "records"));
    let summary = json!({ "records": records, "problems": problems.len() });
    context.output.message(&json::message("summary", summary));
    if problems.is_empty() {
        return Ok(());
    }
    let count = text::count(problems.len() as u64, "record is", "records are");
    Err(Error::new(ErrorKind::Damaged, format!("{count} missing, forked or not what was signed")).with_remedy(
        "The lines above name them. Compare with the reports that were kept elsewhere, and find out who can write there",
    ))
}

fn message(known: &KnownEvidence, verdict: &str, label: &str) -> Value {
    let report: Value = serde_json::from_str(known.report.payload()).unwrap_or_default();
    json::message(
        "evidence",
        json!({
            "name": known.name.as_str(),
            "identity": known.identity.to_string(),
            "label": label,
            "sequence": known.sequence,
            "kind": known.head.kind,
            "time": known.head.time,
            "verdict": verdict,
            "summary": known.head.summary,
            "report": report,
        }),
    )
}

fn verify_report(arguments: &VerifyReport, context: &Context<'_>) -> Result<()> {
    let report = read(&arguments.file, limits::REPORT_BYTES_MAX)?;
    let certificate = read(&arguments.certificate, limits::CERTIFICATE_BYTES_MAX)?;
    let list = arguments.files.clone().unwrap_or_else(|| beside(&arguments.file));
    let mut files = match File::open(&list) {
        Ok(files) => Some(files),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && arguments.files.is_none() => None,
        Err(error) => return Err(unreadable(&list)(error)),
    };
    let files = files.as_mut().map(|files| files as &mut dyn Read);
    let proof = drill::verify_report(&report, &certificate, files);
    context.end_display();
    match &proof {
        Ok(proof) => tell_proof(proof, context),
        Err(error) => context.output.say(&format!("INVALID: {}", text::shown(error.to_string().as_bytes()))),
    }
    proof.map(drop)
}

fn tell_proof(proof: &Proof, context: &Context<'_>) {
    let output = context.output;
    let Proof { certificate, head, report, lines } = proof;
    let (label, role, identity) =
        (text::shown(certificate.label.as_bytes()), certificate.role.name(), certificate.identity());
    output.say(&format!("VALID: every byte is as {label} (role {role}, identity {identity}) signed it"));
    output.say(&format!(
        "it says, at {}: {}",
        text::shown(head.time.as_bytes()),
        show::verdict(head.verdict.as_deref(), &head.summary)
    ));
    match lines {
        Some(lines) => output.say(&format!(
            "the list of files is the one that belongs to it: {}",
            text::count(*lines, "line", "lines")
        )),
        None => output.say("the list of files is not here and was not checked"),
    }
    let root = lifeboat::id::to_hex(&certificate.root.to_bytes());
    output.say(&format!(
        "the certificate counts if the repository's `config` names this root public key: {root}"
    ));
    let payload: Value = serde_json::from_str(report.payload()).unwrap_or_default();
    output.message(&json::message(
        "summary",
        json!({
            "valid": true,
            "label": certificate.label,
            "role": role,
            "identity": identity.to_string(),
            "root_public_key": root,
            "verdict": head.verdict,
            "summary": head.summary,
            "lines": lines,
            "report": payload,
        }),
    ));
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let text = format!("could not read {}", path.display());
    move |error| {
        Error::new(ErrorKind::Usage, text)
            .with_remedy("Check the path and who may read it")
            .with_source(error)
    }
}

/// A file that is a little longer than it may be at most, so that one that is too long is noticed.
fn read(path: &Path, max: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable(path))?;
    file.take(max as u64 + 8192).read_to_end(&mut bytes).map_err(unreadable(path))?;
    Ok(bytes)
}
