//! A clock that goes only when somebody sleeps.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lifeboat::{
    clock::{Clock, Timestamp},
    progress::Progress,
};

#[derive(Default)]
pub(crate) struct FakeClock {
    elapsed: Mutex<Duration>,
    sleeps: AtomicUsize,
    /// Is asked to stop at the sleep of this number.
    stop: Mutex<Option<(usize, Arc<Progress>)>>,
}

impl FakeClock {
    /// Asks `progress` to stop when somebody sleeps for the `sleep`th time.
    pub(crate) fn stop_at(&self, sleep: usize, progress: &Arc<Progress>) {
        *self.stop.lock().unwrap() = Some((sleep, Arc::clone(progress)));
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000)
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().unwrap()
    }

    fn sleep(&self, duration: Duration) {
        *self.elapsed.lock().unwrap() += duration;
        let sleep = self.sleeps.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some((at, progress)) = &*self.stop.lock().unwrap()
            && *at == sleep
        {
            progress.stop();
        }
    }
}
