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

    /// `2026-01-31T22:05:09.25Z`, for machines.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let nanoseconds = i32::try_from(self.nanoseconds).ok();
        let at = nanoseconds.and_then(|nanoseconds| jiff::Timestamp::new(self.seconds, nanoseconds).ok());
        // No calendar reaches so far: the number is better than nothing.
        at.map_or_else(|| format!("@{}", self.seconds), |at| at.to_string())
    }

    /// Reads what [`Self::rfc3339`] writes; `None` for anything else.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let at: jiff::Timestamp = text.parse().ok()?;
        // Before 1970 the fraction counts backwards, and no storage was there.
        Some(Self { seconds: at.as_second(), nanoseconds: u32::try_from(at.subsec_nanosecond()).ok()? })
    }

    /// Whole seconds from `earlier` until this; 0 when it was not earlier.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> u64 {
        u64::try_from(self.seconds.saturating_sub(earlier.seconds)).unwrap_or(0)
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

/// A wall clock that stands still: what a repository of the past is judged by. Waiting takes its time.
#[derive(Clone, Copy, Debug)]
pub struct StoppedClock(pub Timestamp);

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration);
    }
}
