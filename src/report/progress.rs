//! How far an operation is, as a line for people and as a message for machines.

use std::time::Duration;

use serde_json::{Value, json};

use super::{json, size, text, time};
use crate::progress::Seen;

/// A look at an operation at a time.
#[derive(Clone, Debug)]
pub struct Look {
    /// What it has done.
    pub seen: Seen,
    /// How long it has run.
    pub elapsed: Duration,
    /// Bytes per second, lately.
    pub rate: u64,
}

impl Look {
    /// How long it will still take, where the whole is known.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let left =
            self.seen.bytes_total.checked_sub(self.seen.bytes).filter(|_| self.seen.bytes_total > 0)?;
        (self.rate > 0).then(|| Duration::from_secs(left / self.rate))
    }

    /// `storing: 12 files, 3.40 GiB of 10.00 GiB, 85.00 MiB/s, 0:40 elapsed, 1:18 left, 1 error`
    #[must_use]
    pub fn line(&self) -> String {
        let Seen { phase, files, bytes, files_total: _, bytes_total, troubles, answers: _, current: _ } =
            &self.seen;
        // The total of a backup is that of the one before: it may turn out to be more.
        let of = |total: u64| {
            if total >= *bytes && total > 0 { format!(" of {}", size::show(total)) } else { String::new() }
        };
        let mut line = format!(
            "{}: {}, {}{}, {}/s, {} elapsed",
            phase.name(),
            text::count(*files, "file", "files"),
            size::show(*bytes),
            of(*bytes_total),
            size::show(self.rate),
            time::show_duration(self.elapsed),
        );
        if let Some(left) = self.remaining() {
            line += &format!(", {} left", time::show_duration(left));
        }
        if *troubles > 0 {
            line += &format!(", {}", text::count(*troubles, "error", "errors"));
        }
        line
    }

    /// The message `status`.
    #[must_use]
    pub fn status(&self) -> Value {
        let Seen { phase, files, bytes, files_total, bytes_total, troubles, answers: _, current } =
            &self.seen;
        let known = |total: u64| if total > 0 { Some(total) } else { None };
        let fields = json!({
            "phase": phase.name(),
            "seconds_elapsed": self.elapsed.as_secs(),
            "seconds_remaining": self.remaining().map(|left| left.as_secs()),
            "files_done": files,
            "files_total": known(*files_total),
            "bytes_done": bytes,
            "bytes_total": known(*bytes_total),
            "bytes_per_second": self.rate,
            "errors": troubles,
        });
        let status = json::message("status", fields);
        if current.is_empty() { status } else { json::with_path(status, &json::absolute(current)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Phase;

    fn look() -> Look {
        let seen = Seen {
            phase: Phase::Storing,
            files: 2,
            bytes: 3 << 20,
            files_total: 0,
            bytes_total: 4 << 20,
            troubles: 1,
            answers: 9,
            current: b"srv/a".to_vec(),
        };
        Look { seen, elapsed: Duration::from_secs(61), rate: 1 << 19 }
    }

    #[test]
    fn a_line_says_how_much_how_fast_how_long_and_what_went_wrong() {
        let expected =
            "storing: 2 files, 3.00 MiB of 4.00 MiB, 512.00 KiB/s, 1:01 elapsed, 0:02 left, 1 error";
        assert_eq!(look().line(), expected);
        let unknown = Look { seen: Seen::default(), ..look() };
        assert_eq!(unknown.line(), "starting: 0 files, 0 B, 512.00 KiB/s, 1:01 elapsed");
    }

    #[test]
    fn a_status_has_all_fields() {
        let status = look().status();
        assert_eq!(status["message_type"], "status");
        assert_eq!(status["files_total"], Value::Null);
        assert_eq!(status["bytes_total"], 4 << 20);
        assert_eq!(status["seconds_remaining"], 2);
        assert_eq!(status["path"], "/srv/a");
    }
}
