//! Chance: the one place that asks the system for it. A simulation, which must give the same run again, seeds
//! it for its thread; a program that is released has no such way.

use crate::error::{Error, ErrorKind, Result};

/// Fills `bytes` with randomness.
///
/// # Errors
/// The system has none.
#[expect(clippy::disallowed_methods, reason = "this is what everything else must ask")]
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    #[cfg(debug_assertions)]
    if seeded::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes)
        .map_err(|e| Error::new(ErrorKind::Failed, "the system gave no random numbers").with_source(e))
}

/// So many random bytes.
///
/// # Errors
/// The system has none.
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(debug_assertions)]
pub use seeded::seed;

#[cfg(debug_assertions)]
mod seeded {
    use std::cell::RefCell;

    thread_local! {
        static STREAM: RefCell<Option<blake3::OutputReader>> = const { RefCell::new(None) };
    }

    /// From now on all chance on this thread follows from `seed`. Only for simulations, and only in builds with
    /// debug assertions: what is sealed so is no secret.
    pub fn seed(seed: u64) {
        let mut hasher = blake3::Hasher::new_derive_key("lifeboat simulation");
        hasher.update(&seed.to_le_bytes());
        STREAM.set(Some(hasher.finalize_xof()));
    }

    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        STREAM.with_borrow_mut(|stream| stream.as_mut().map(|stream| stream.fill(bytes)).is_some())
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn only_a_thread_that_was_seeded_has_no_chance() {
        let drawn = |seeded: Option<u64>| {
            let draw = || {
                seeded.into_iter().for_each(seed);
                (bytes::<16>().unwrap(), bytes::<16>().unwrap())
            };
            std::thread::scope(|scope| scope.spawn(draw).join().unwrap())
        };
        let (first, second) = drawn(Some(7));
        assert_ne!(first, second);
        assert_eq!(drawn(Some(7)), (first, second));
        assert_ne!(drawn(Some(8)).0, first);
        assert_ne!(drawn(None), drawn(None));
    }
}
