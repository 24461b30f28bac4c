//! What a person reads of a drill.

use super::{size, text};
use crate::{
    format::drill::{CheckReport, ClientReport, DrillReport, Timings},
    ops::drill::PASS,
};

/// Digits of a snapshot's id that are shown.
const ID_DIGITS: usize = 8;

/// `PASS: ..` or `FAIL: ..`: what a report comes to.
#[must_use]
pub fn verdict(verdict: Option<&str>, summary: &str) -> String {
    let summary = text::shown(summary.as_bytes());
    match verdict {
        Some(PASS) => format!("PASS: {summary}"),
        Some(_) => format!("FAIL: {summary}"),
        None => summary,
    }
}

/// The lines of a report, the verdict first.
#[must_use]
pub fn lines(report: &DrillReport) -> Vec<String> {
    let mut lines = vec![verdict(report.head.verdict.as_deref(), &report.head.summary)];
    if report.reasons.len() > 1 {
        lines.extend(report.reasons.iter().map(|why| format!("  because {}", text::shown(why.as_bytes()))));
    }
    for client in &report.clients {
        lines.extend(self::client(client));
    }
    if report.sample != "all" {
        lines.push(format!("sample: {} of each client, drawn with --seed {}", report.sample, report.seed));
    }
    if report.clock != "storage" {
        lines.push("ages are by this machine's clock, since the storage took no record".to_owned());
    }
    lines
}

fn client(client: &ClientReport) -> Vec<String> {
    let ClientReport { client: name, host, snapshot, stored, files, bytes, rpo_seconds, .. } = client;
    let id: String = snapshot.chars().take(ID_DIGITS).collect();
    let mut lines = vec![format!(
        "{} ({}): snapshot {id}, stored {stored}; {}, {}; RPO {}",
        text::shown(name.as_bytes()),
        text::shown(host.as_bytes()),
        text::count(*files, "file", "files"),
        size::show(*bytes),
        whole(*rpo_seconds),
    )];
    lines.push(format!("  RTO {}", timings(&client.rto)));
    if client.other_sources > 0 {
        let others = text::count(client.other_sources, "other set of sources", "other sets of sources");
        lines.push(format!("  not looked at: {others} of this client; drill each with --path"));
    }
    for reason in &client.reasons {
        lines.push(format!("  FAIL: {}", text::shown(reason.as_bytes())));
    }
    for problem in &client.problems {
        let (path, what) = (text::shown(problem.path.as_bytes()), text::shown(problem.problem.as_bytes()));
        lines.push(format!("    {path}: {what}"));
    }
    for CheckReport { command, result, ms, output, .. } in &client.checks {
        lines.push(format!("  check `{}`: {result} in {}", text::shown(command.as_bytes()), seconds(*ms)));
        if result != "passed" {
            lines.extend(output.lines().map(|line| format!("    {}", text::shown(line.as_bytes()))));
        }
    }
    lines
}

fn timings(timings: &Timings) -> String {
    let Timings { total_ms, unlock_ms, locate_ms, index_ms, first_byte_ms, last_byte_ms, .. } = timings;
    let Timings { verify_ms, checks_ms, .. } = timings;
    let parts = [
        ("unlock", unlock_ms),
        ("locate", locate_ms),
        ("index", index_ms),
        ("first byte", first_byte_ms),
        ("last byte", last_byte_ms),
        ("verify", verify_ms),
        ("checks", checks_ms),
    ];
    let parts: Vec<String> = parts.iter().map(|(name, ms)| format!("{name} {}", seconds(**ms))).collect();
    format!("{}: {}", seconds(*total_ms), parts.join(", "))
}

/// `0.05 s`, `12 s`, `3 h 05 min`.
fn seconds(ms: u64) -> String {
    match ms / 1000 {
        0..10 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        seconds => whole(seconds),
    }
}

/// `5 s`, `3 h 05 min`.
fn whole(seconds: u64) -> String {
    match seconds {
        seconds @ 0..600 => format!("{seconds} s"),
        seconds @ 600..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        seconds => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_to_read() {
        let table = [
            (0, "0.00 s"),
            (57, "0.05 s"),
            (9_990, "9.99 s"),
            (61_000, "61 s"),
            (700_000, "11 min"),
            (11_100_000, "3 h 05 min"),
            (180_000_000, "2 d 2 h"),
        ];
        for (ms, expected) in table {
            assert_eq!(seconds(ms), expected);
        }
    }

    #[test]
    fn the_verdict_is_the_first_line_and_nothing_in_it_drives_the_terminal() {
        let mut report = DrillReport::default();
        report.head.verdict = Some("fail".to_owned());
        report.head.summary = "web1: \x1b[2J".to_owned();
        assert_eq!(lines(&report)[0], "FAIL: web1: \\u{1b}[2J");
        assert_eq!(verdict(Some(PASS), "x"), "PASS: x");
        assert_eq!(verdict(None, "a drill began"), "a drill began");
    }
}
