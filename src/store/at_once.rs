//! Several questions to the store at the same time, so that the latency of one hides behind that of another. With
//! one connection they are asked in order on the thread that asks: then a run can be repeated call by call.

use std::{
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::Store;

impl Store {
    /// Asks two things at once; with one connection `first` is asked first.
    pub fn both<A: Send, B>(&self, first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
        if self.connections() <= 1 {
            return (first(), second());
        }
        thread::scope(|scope| {
            let first = scope.spawn(first);
            let second = second();
            (first.join().unwrap_or_else(|panic| resume_unwind(panic)), second)
        })
    }

    /// Asks something about each item, as many at a time as there are connections and at most `most`. The answers
    /// are in the order of the items.
    pub fn each<T: Sync, R: Send>(&self, items: &[T], most: usize, ask: impl Fn(&T) -> R + Sync) -> Vec<R> {
        let workers = self.connections().min(most).min(items.len());
        if workers <= 1 {
            return items.iter().map(ask).collect();
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let mut answers = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else { return answers };
                answers.push((at, ask(item)));
            }
        };
        let mut answers: Vec<(usize, R)> = thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, Vec<_>>| {
                worker.join().unwrap_or_else(|panic| resume_unwind(panic))
            };
            workers.into_iter().flat_map(join).collect()
        });
        answers.sort_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}
