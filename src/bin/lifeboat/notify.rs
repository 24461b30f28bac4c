//! What systemd is told: that the work has begun, how far it is, that it still moves, that it ends. Only when
//! the counters have moved the start is given more time and the watchdog hears of a step, so a backup that
//! hangs is found out.

use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lifeboat::progress::{Phase, Seen};

use crate::environment;

/// The line of `systemctl status` changes so often at most.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// The line to the service manager, if there is one.
#[derive(Debug)]
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    /// What was told already.
    told: Mutex<Told>,
}

/// What was told already.
#[derive(Debug, Default)]
struct Told {
    watchdog: Option<Duration>,
    ready: bool,
    stopping: bool,
    status: Option<(Duration, Phase)>,
    alive: Option<(Duration, Seen)>,
}

impl Notifier {
    /// Where the environment says.
    pub(crate) fn from_environment() -> Self {
        // A service manager that cannot be reached finds out by itself.
        let socket = environment::os("NOTIFY_SOCKET").and_then(|address| {
            use std::os::unix::ffi::OsStrExt;
            let address = match address.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok()?,
                path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)).ok()?,
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.connect_addr(&address).ok()?;
            Some(socket)
        });
        let number = |name| environment::os(name)?.to_str()?.parse::<u64>().ok();
        let mine = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog =
            number("WATCHDOG_USEC").filter(|micros| mine && *micros > 0).map(Duration::from_micros);
        Self { socket, told: Mutex::new(Told { watchdog, ..Told::default() }) }
    }

    /// Calls may be tried again for so long; the watchdog has to be more patient.
    pub(crate) fn expect_silence_of(&self, retry_for: Duration) {
        let mut told = self.told();
        let Some(watchdog) = told.watchdog.filter(|watchdog| *watchdog < retry_for * 2) else { return };
        let longer = watchdog + retry_for * 2;
        told.watchdog = Some(longer);
        let micros = longer.as_micros();
        self.send(&[format!("WATCHDOG_USEC={micros}"), format!("EXTEND_TIMEOUT_USEC={micros}")]);
    }

    /// A look at the work, with the line that describes it.
    pub(crate) fn look(&self, seen: &Seen, now: Duration, line: impl FnOnce() -> String) {
        if self.socket.is_some() {
            let due = self.told().due(seen, now, line);
            self.send(&due);
        }
    }

    /// The work was asked to stop, or is done.
    pub(crate) fn stopping(&self) {
        if !std::mem::replace(&mut self.told().stopping, true) {
            self.send(&["STOPPING=1".to_owned()]);
        }
    }

    /// How it ended. A command that was done before it could say that it had begun says so now.
    pub(crate) fn end(&self, succeeded: bool, line: &str) {
        let mut messages = vec![status(line)];
        if succeeded && !std::mem::replace(&mut self.told().ready, true) {
            messages.push("READY=1".to_owned());
        }
        self.send(&messages);
        self.stopping();
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, messages: &[String]) {
        if let Some(socket) = self.socket.as_ref().filter(|_| !messages.is_empty()) {
            // Whom nobody hears goes on with the work.
            drop(socket.send(messages.join("\n").as_bytes()));
        }
    }
}

fn status(line: &str) -> String {
    format!("STATUS={}", line.lines().next().unwrap_or_default())
}

impl Told {
    fn due(&mut self, seen: &Seen, now: Duration, line: impl FnOnce() -> String) -> Vec<String> {
        let mut due = Vec::new();
        let begun = !matches!(seen.phase, Phase::Starting | Phase::Opening);
        if begun && !self.ready {
            self.ready = true;
            due.push("READY=1".to_owned());
        }
        let fresh = self.status.is_some_and(|(at, phase)| phase == seen.phase && now - at < STATUS_EVERY);
        if !fresh && !self.stopping && seen.phase != Phase::Starting {
            self.status = Some((now, seen.phase));
            due.push(status(&line()));
        }
        if let Some(watchdog) = self.watchdog {
            let recent = self.alive.as_ref().is_some_and(|(at, _)| now - *at < watchdog / 8);
            if !recent && self.alive.as_ref().is_none_or(|(_, last)| last != seen) {
                self.alive = Some((now, seen.clone()));
                due.push(if self.ready {
                    "WATCHDOG=1".to_owned()
                } else {
                    format!("EXTEND_TIMEOUT_USEC={}", watchdog.as_micros())
                });
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(told: &mut Told, seen: &Seen, seconds: u64) -> Vec<String> {
        told.due(seen, Duration::from_secs(seconds), || "a line\nand more".to_owned())
    }

    #[test]
    fn it_is_ready_once_the_repository_is_open_and_only_once() {
        let mut told = Told::default();
        assert_eq!(due(&mut told, &Seen::default(), 0), [""; 0]);
        let opening = Seen { phase: Phase::Opening, ..Seen::default() };
        assert_eq!(due(&mut told, &opening, 1), ["STATUS=a line"]);
        let storing = Seen { phase: Phase::Storing, ..Seen::default() };
        assert_eq!(due(&mut told, &storing, 2), ["READY=1", "STATUS=a line"]);
        assert_eq!(due(&mut told, &storing, 3), [""; 0]);
        assert_eq!(due(&mut told, &storing, 8), ["STATUS=a line"]);
    }

    #[test]
    fn the_watchdog_hears_only_of_steps() {
        let mut told = Told { watchdog: Some(Duration::from_secs(80)), ..Told::default() };
        let mut seen = Seen::default();
        assert_eq!(due(&mut told, &seen, 0), ["EXTEND_TIMEOUT_USEC=80000000"]);
        assert_eq!(due(&mut told, &seen, 70), [""; 0]);
        seen.phase = Phase::Storing;
        let mut hears =
            |seen: &Seen, seconds| due(&mut told, seen, seconds).contains(&"WATCHDOG=1".to_owned());
        assert!(hears(&seen, 71));
        for seconds in [72, 90, 200, 4000] {
            assert!(!hears(&seen, seconds), "nothing has moved after {seconds} s");
        }
        seen.bytes += 1;
        assert!(hears(&seen, 4001));
        seen.answers += 1;
        assert!(!hears(&seen, 4002), "it need not hear of every step");
        assert!(hears(&seen, 4011));
    }
}
