//! Lets one client run at a time, until its next call or sleep, and moves the time on: everything that happens
//! follows from the seed alone.

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    sync::{Condvar, Mutex, MutexGuard},
    time::Duration,
};

use super::chance::Chance;

/// More steps than any run needs.
const STEPS_MAX: u64 = 200_000;

/// What unwinds a client that never ends.
pub(crate) struct Endless;

enum Wake {
    Client(usize),
    /// Something that was under way arrives.
    Arrival(Box<dyn FnOnce(Duration) + Send>),
}

struct State {
    now: Duration,
    steps: u64,
    /// What happens next, by time and then in the order in which it was asked for.
    ahead: BTreeMap<(Duration, u64), Wake>,
    running: Option<usize>,
    chance: Chance,
}

pub(crate) struct Scheduler {
    state: Mutex<State>,
    turns: Vec<Condvar>,
}

impl Scheduler {
    /// Clients begin within a second; none runs before [`Self::begin`].
    pub(crate) fn new(mut chance: Chance, clients: usize) -> Self {
        let mut ahead = BTreeMap::new();
        for client in 0..clients {
            ahead.insert((chance.time(Duration::from_secs(1)), client as u64), Wake::Client(client));
        }
        let state = State { now: Duration::ZERO, steps: clients as u64, ahead, running: None, chance };
        Self { state: Mutex::new(state), turns: (0..clients).map(|_| Condvar::new()).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn now(&self) -> Duration {
        self.lock().now
    }

    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut Chance) -> T) -> T {
        draw(&mut self.lock().chance)
    }

    /// Lets the first one run.
    pub(crate) fn begin(&self) {
        self.admit(&mut self.lock());
    }

    /// Waits for the first turn of a client, on its own thread.
    pub(crate) fn enter(&self, client: usize) {
        self.wait(self.lock(), client);
    }

    /// A client has nothing more to do.
    pub(crate) fn leave(&self) {
        self.admit(&mut self.lock());
    }

    /// Lets so much time pass for a client, and the others run meanwhile.
    pub(crate) fn pass(&self, client: usize, time: Duration) {
        let mut state = self.lock();
        state.steps += 1;
        if state.steps > STEPS_MAX {
            drop(state);
            resume_unwind(Box::new(Endless));
        }
        let at = (state.now + time, state.steps);
        state.ahead.insert(at, Wake::Client(client));
        self.admit(&mut state);
        self.wait(state, client);
    }

    /// Lets something happen so much later, whatever its client does meanwhile.
    pub(crate) fn later(&self, time: Duration, arrival: impl FnOnce(Duration) + Send + 'static) {
        let mut state = self.lock();
        state.steps += 1;
        let at = (state.now + time, state.steps);
        state.ahead.insert(at, Wake::Arrival(Box::new(arrival)));
    }

    fn admit(&self, state: &mut State) {
        state.running = None;
        while let Some(((at, _), wake)) = state.ahead.pop_first() {
            state.now = at;
            match wake {
                Wake::Arrival(arrival) => arrival(at),
                Wake::Client(client) => {
                    state.running = Some(client);
                    self.turns[client].notify_one();
                    return;
                }
            }
        }
    }

    fn wait(&self, state: MutexGuard<'_, State>, client: usize) {
        drop(self.turns[client].wait_while(state, |state| state.running != Some(client)).unwrap());
    }
}
