//! A clock that goes only when somebody sleeps.
#![allow(dead_code, reason = "each test binary uses a part of it")]

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
    /// Takes so much longer at the sleep of this number.
    jump: Mutex<Option<(usize, Duration)>>,
}

impl FakeClock {
    /// Asks `progress` to stop when somebody sleeps for the `sleep`th time.
    pub(crate) fn stop_at(&self, sleep: usize, progress: &Arc<Progress>) {
        *self.stop.lock().unwrap() = Some((sleep, Arc::clone(progress)));
    }

    /// Time goes on by so much more when somebody sleeps for the `sleep`th time, as on a suspended laptop.
    pub(crate) fn jump_at(&self, sleep: usize, by: Duration) {
        *self.jump.lock().unwrap() = Some((sleep, by));
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
        if let Some((_, by)) = self.jump.lock().unwrap().take_if(|(at, _)| *at == sleep) {
            *self.elapsed.lock().unwrap() += by;
        }
        if let Some((at, progress)) = &*self.stop.lock().unwrap()
            && *at == sleep
        {
            progress.stop();
        }
    }
}
