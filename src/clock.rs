//! Time comes in as an argument: nothing below the command line asks the system for it.

use std::time::Duration;

use minicbor::{Decode, Encode};

/// A point in time: seconds and nanoseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Timestamp {
    /// Whole seconds; negative before 1970.
    #[n(0)]
    pub seconds: i64,
    /// 0 to 999,999,999.
    #[n(1)]
    pub nanoseconds: u32,
}

impl Timestamp {
    /// A time of whole seconds.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// The wall clock. Shown to people, never trusted for safety.
    fn now(&self) -> Timestamp;
    /// Time since boot, including time asleep (`CLOCK_BOOTTIME`).
    fn elapsed(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration);
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Timestamp { seconds: time.tv_sec, nanoseconds: u32::try_from(time.tv_nsec).unwrap_or(0) }
    }

    fn elapsed(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else must ask")]
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}
