//! The user's own checks of what was restored: commands of the shell with a time limit. What they print is
//! read all the time and only its end is kept, so that a talkative one neither waits nor fills memory.

use std::{
    ffi::OsString,
    io::{ErrorKind as Io, PipeReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};

use crate::{
    clock::Clock,
    error::Result,
    format::{drill::CheckReport, evidence::short},
    limits,
    progress::Progress,
};

/// How often it is looked whether a command is done.
const GLANCE: Duration = Duration::from_millis(20);
/// What a check is told.
pub(super) struct Subject<'a> {
    /// The folder that holds what was restored.
    pub(super) folder: &'a Path,
    pub(super) client: &'a str,
    pub(super) host: &'a str,
    pub(super) snapshot: &'a str,
    /// What is not in its environment.
    pub(super) hidden: &'a [OsString],
}

/// Runs a check.
///
/// # Errors
/// The user asked to stop; the command is ended then.
pub(super) fn run(
    command: &str,
    subject: &Subject<'_>,
    limit: Duration,
    clock: &dyn Clock,
    progress: &Progress,
) -> Result<CheckReport> {
    let begun = clock.elapsed();
    let mut report = CheckReport { command: short(command), ..CheckReport::default() };
    match start(command, subject) {
        Ok(mut running) => {
            let ended = running.wait(limit, clock, progress)?;
            report.output = running.said();
            report.code = ended.and_then(|status| status.code());
            let result = ended.map(|status| if status.success() { "passed" } else { "failed" });
            result.unwrap_or("timed out").clone_into(&mut report.result);
        }
        Err(error) => {
            "not started".clone_into(&mut report.result);
            report.output = short(&format!("/bin/sh: {error}"));
        }
    }
    let took = clock.elapsed().saturating_sub(begun);
    report.ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// A command that runs. Dropped, it is ended with everything that it started.
struct Running {
    child: Child,
    pipe: PipeReader,
    end: Vec<u8>,
    ended: bool,
}

fn start(command: &str, subject: &Subject<'_>) -> std::io::Result<Running> {
    let (pipe, out) = std::io::pipe()?;
    fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command, "check"]).arg(subject.folder).current_dir(subject.folder);
    shell.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    subject.hidden.iter().for_each(|name| {
        shell.env_remove(name);
    });
    shell.env("LIFEBOAT_DRILL_PATH", subject.folder);
    shell.env("LIFEBOAT_DRILL_CLIENT", subject.client);
    shell.env("LIFEBOAT_DRILL_HOST", subject.host);
    shell.env("LIFEBOAT_DRILL_SNAPSHOT", subject.snapshot);
    // A group of its own: so all of it can be ended, and Ctrl-C reaches us first.
    let child = shell.process_group(0).spawn()?;
    Ok(Running { child, pipe, end: Vec::new(), ended: false })
}

impl Running {
    /// Waits for the end; `None` when it took too long.
    fn wait(
        &mut self,
        limit: Duration,
        clock: &dyn Clock,
        progress: &Progress,
    ) -> Result<Option<ExitStatus>> {
        let begun = clock.elapsed();
        loop {
            let ended = self.has_ended();
            self.read();
            if ended {
                self.end_all();
                return Ok(self.child.wait().ok());
            }
            progress.check()?;
            if clock.elapsed().saturating_sub(begun) >= limit {
                return Ok(None);
            }
            clock.sleep(GLANCE);
        }
    }

    /// Takes what there is, as much as a pipe holds at most, so that the time limit is looked at too.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..64 {
            match self.pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.end.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    let spare = self.end.len().saturating_sub(limits::CHECK_OUTPUT_BYTES_MAX);
                    self.end.drain(..spare);
                }
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(_nothing_more) => break,
            }
        }
    }

    /// Whether it ended. It is not reaped yet: until then its number is nobody else's.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(Pid::from_child(&self.child)), options), Ok(None))
    }

    /// Ends all that it started, also what it left running: that would hold the scratch folder.
    fn end_all(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            // One that is gone already needs no end.
            kill_process_group(Pid::from_child(&self.child), Signal::KILL).unwrap_or_default();
        }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.end).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end_all();
        drop(self.child.wait());
    }
}
