//! Shows how far a command is, beside it: bars on a terminal, a line a minute elsewhere, `status` messages
//! under `--json`; and passes on the request to stop.

use std::{
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lifeboat::{
    clock::{Clock, SystemClock},
    progress::{Phase, Progress},
    report::{progress::Look, text},
};

use crate::{
    notify::Notifier,
    signals::Signals,
    terminal::{Level, Output},
};

/// How often the watcher looks.
const GLANCE: Duration = Duration::from_millis(100);
/// Nothing is shown for what takes less.
const PATIENCE: Duration = Duration::from_secs(1);
/// A line so often where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// A line so often in the journal, which `systemctl status` shows beside the state of this very moment.
const JOURNAL_LINE_EVERY: Duration = Duration::from_secs(15 * 60);
/// A status message so often at most.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// The rate is that of about the last so many glances.
const RATE_MEMORY: u64 = 50;

/// Watches a command.
#[derive(Debug)]
pub(crate) struct Display<'a> {
    output: &'a Output,
    progress: Arc<Progress>,
    signals: Arc<Signals>,
    notifier: Arc<Notifier>,
    shown: Mutex<Shown>,
}

/// What is on the screen.
#[derive(Debug, Default)]
struct Shown {
    bar: Option<ProgressBar>,
    ended: bool,
}

/// What the watcher remembers between glances.
#[derive(Debug, Default)]
struct Memory {
    last_bytes: u64,
    last_time: Duration,
    rate: u64,
    told: Duration,
}

impl<'a> Display<'a> {
    pub(crate) fn new(
        output: &'a Output,
        progress: Arc<Progress>,
        signals: Arc<Signals>,
        notifier: Arc<Notifier>,
    ) -> Self {
        Self { output, progress, signals, notifier, shown: Mutex::default() }
    }

    /// Does the work while a thread beside it watches.
    pub(crate) fn watched<T>(&self, work: impl FnOnce() -> T) -> T {
        let (working, ended) = bounded::<()>(0);
        thread::scope(|scope| {
            scope.spawn(move || self.watch(&ended));
            let result = work();
            drop(working);
            result
        })
    }

    /// Takes everything off the screen, for good: the summary comes now.
    pub(crate) fn end(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.ended = true;
        if let Some(bar) = shown.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn watch(&self, ended: &Receiver<()>) {
        let begun = SystemClock.elapsed();
        let mut memory = Memory { last_time: begun, told: begun, ..Memory::default() };
        while ended.recv_timeout(GLANCE) == Err(RecvTimeoutError::Timeout) {
            self.signals.end_question();
            if self.signals.stop_requested() {
                self.progress.stop();
                self.notifier.stopping();
            }
            self.glance(begun, &mut memory);
        }
        self.end();
    }

    fn glance(&self, begun: Duration, memory: &mut Memory) {
        let now = SystemClock.elapsed();
        let seen = self.progress.seen();
        let (bytes, time) =
            (seen.bytes.saturating_sub(memory.last_bytes), now.saturating_sub(memory.last_time));
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        memory.rate = (memory.rate * (RATE_MEMORY - 1) + bytes.saturating_mul(1000) / millis) / RATE_MEMORY;
        (memory.last_bytes, memory.last_time) = (seen.bytes, now);
        let elapsed = now.saturating_sub(begun);
        // The glances remember too little of a short run.
        let average =
            seen.bytes.saturating_mul(1000) / u64::try_from(elapsed.as_millis()).unwrap_or(1).max(1);
        let rate = if elapsed < GLANCE * 100 { average } else { memory.rate };
        let idle = seen.phase == Phase::Starting;
        let look = Look { seen, elapsed, rate };
        self.notifier.look(&look.seen, now, || look.line());
        let asked = self.signals.take_show();
        let since = now.saturating_sub(memory.told);
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.ended {
            return;
        }
        if self.output.is_json() {
            if asked || !idle && !self.output.is_quiet() && since >= STATUS_EVERY {
                memory.told = now;
                self.output.message(&look.status());
                self.output.flush();
            }
        } else if asked {
            self.line(shown.bar.as_ref(), &look);
        } else if self.output.is_quiet() || idle || elapsed < PATIENCE {
            // Nothing yet.
        } else if std::io::stderr().is_terminal() {
            draw(shown, &look);
        } else if since >= if self.output.is_journal() { JOURNAL_LINE_EVERY } else { LINE_EVERY } {
            memory.told = now;
            self.line(None, &look);
        }
    }

    fn line(&self, bar: Option<&ProgressBar>, look: &Look) {
        let tell = || self.output.aside(Level::Info, &look.line());
        match bar {
            Some(bar) => bar.suspend(tell),
            None => tell(),
        }
    }
}

fn draw(mut shown: std::sync::MutexGuard<'_, Shown>, look: &Look) {
    let total = look.seen.bytes_total;
    let bar = shown
        .bar
        .get_or_insert_with(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10)));
    let template = if total > 0 {
        "{prefix}\n[{wide_bar}] {percent:>3}%\n{wide_msg}"
    } else {
        "{prefix}\n{spinner} {wide_msg}"
    };
    // The templates are ours; a wrong one would show the default style.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    if total > 0 {
        bar.set_length(total);
        bar.set_position(look.seen.bytes.min(total));
    }
    bar.set_prefix(look.line());
    bar.set_message(if look.seen.current.is_empty() {
        String::new()
    } else {
        text::path(&look.seen.current)
    });
    bar.tick();
}
