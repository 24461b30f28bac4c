//! The clock of a machine that did something a while ago.

use std::time::Duration;

use lifeboat::clock::{Clock, SystemClock, Timestamp};

/// It is so many seconds behind, and never waits.
pub(crate) struct Ago(pub(crate) i64);

impl Clock for Ago {
    fn now(&self) -> Timestamp {
        let now = SystemClock.now();
        Timestamp { seconds: now.seconds - self.0, ..now }
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    fn sleep(&self, _: Duration) {}
}
