//! The clock of one client.

use std::{sync::Arc, time::Duration};

use lifeboat::clock::{Clock, Timestamp};

use super::world::World;

/// When a simulation begins, in seconds since 1970.
pub(crate) const BEGINNING: i64 = 1_800_000_000;

pub(crate) struct ClientClock {
    pub(crate) world: Arc<World>,
    pub(crate) client: usize,
    /// How wrong its wall clock is, in seconds.
    pub(crate) wrong: i64,
    /// How long it has been up already.
    pub(crate) up: Duration,
}

impl Clock for ClientClock {
    fn now(&self) -> Timestamp {
        let now = self.world.scheduler.now();
        let seconds = BEGINNING + self.wrong + i64::try_from(now.as_secs()).unwrap();
        Timestamp { seconds, nanoseconds: now.subsec_nanos() }
    }

    fn elapsed(&self) -> Duration {
        self.up + self.world.scheduler.now() - self.world.overslept(self.client)
    }

    fn sleep(&self, duration: Duration) {
        self.world.scheduler.pass(self.client, duration);
    }
}

/// The clock of whoever looks afterwards.
pub(crate) struct Afterwards;

impl Clock for Afterwards {
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(BEGINNING + 366 * 86_400)
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) {}
}
