//! A limit of bytes per second.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{clock::Clock, error::Result, progress::Progress};

/// The longest sleep without a look at whether to stop.
pub(super) const GLANCE: Duration = Duration::from_millis(100);

/// Waits, but not longer than until somebody asks to stop.
///
/// # Errors
/// `Interrupted`
pub(super) fn rest(duration: Duration, clock: &dyn Clock, progress: &Progress) -> Result<()> {
    let mut left = duration;
    loop {
        progress.check()?;
        if left.is_zero() {
            return Ok(());
        }
        let step = left.min(GLANCE);
        clock.sleep(step);
        left -= step;
    }
}

/// A budget of bytes per second, shared by all calls.
#[derive(Debug)]
pub(super) struct Pace {
    limit: Option<u64>,
    due: Mutex<Duration>,
}

impl Pace {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { limit: limit.filter(|limit| *limit > 0), due: Mutex::default() }
    }

    /// How long whoever takes now would wait.
    pub(super) fn waits(&self, clock: &dyn Clock) -> Duration {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).saturating_sub(clock.elapsed())
    }

    /// Takes `bytes` from the budget, by waiting until the ones before them are paid for.
    ///
    /// # Errors
    /// `Interrupted`
    pub(super) fn take(&self, bytes: u64, clock: &dyn Clock, progress: &Progress) -> Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        let now = clock.elapsed();
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*due).max(now);
        *due = begin + Duration::from_millis(bytes.saturating_mul(1000) / limit);
        drop(due);
        rest(begin.saturating_sub(now), clock, progress)
    }
}
