//! Buffers for large objects, used again by the next read. The allocator gives memory of this size back to the system
//! as soon as it is free, so a fresh buffer costs a page fault for each 4 KiB: a fifth of the CPU time of a check of data.

use std::{
    cmp::Reverse,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use crate::limits;

/// Smaller ones are the allocator's business: jemalloc gives back at once what has 8 MiB.
const BYTES_MIN: usize = 8 * limits::MIB;
/// So many are kept, for as many workers as most machines have.
const KEPT: usize = 2;
/// Larger ones are not kept: a pack of the usual size fits.
const KEPT_BYTES_MAX: usize = limits::PACK_BYTES_TARGET + limits::PACK_BYTES_BEYOND;

/// One for the whole process, as its memory is.
pub(super) static BUFFERS: Buffers = Buffers(Mutex::new(Vec::new()));

/// Those that nobody uses now, the largest first.
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// A buffer of exactly so many bytes, whatever they are.
    pub(super) fn take(&self, bytes: usize) -> Vec<u8> {
        let kept = if bytes < BYTES_MIN {
            None
        } else {
            let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let fits = idle.iter().rposition(|buffer| buffer.capacity() >= bytes);
            fits.map(|at| idle.remove(at))
        };
        let Some(mut buffer) = kept else { return vec![0; bytes] };
        // What it held stays, so nothing is written to what is there already.
        buffer.resize(bytes, 0);
        buffer
    }

    /// What is in a buffer, which comes back when nobody uses that any more.
    pub(super) fn lend(&'static self, buffer: Vec<u8>) -> Bytes {
        if (BYTES_MIN..=KEPT_BYTES_MAX).contains(&buffer.capacity()) {
            Bytes::from_owner(Lent { buffer, home: self })
        } else {
            Bytes::from(buffer)
        }
    }
}

struct Lent {
    buffer: Vec<u8>,
    home: &'static Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut idle = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(std::mem::take(&mut self.buffer));
        // The largest are the ones that cost most.
        idle.sort_unstable_by_key(|buffer| Reverse(buffer.capacity()));
        idle.truncate(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static OWN: Buffers = Buffers(Mutex::new(Vec::new()));

    #[test]
    fn a_buffer_comes_back_when_nobody_uses_what_is_in_it_and_the_largest_are_kept() {
        let idle = || -> Vec<usize> { OWN.0.lock().unwrap().iter().map(Vec::capacity).collect() };
        let used = |bytes: usize| {
            let mut buffer = OWN.take(bytes);
            assert_eq!(buffer.len(), bytes);
            buffer.fill(7);
            OWN.lend(buffer)
        };
        let [small, middle, large] = [BYTES_MIN, BYTES_MIN + 1, KEPT_BYTES_MAX];
        let lent = used(small);
        let rest = lent.slice(small / 2..);
        drop(lent);
        // A part of it is in use.
        assert_eq!(idle(), [0; 0]);
        assert!(OWN.take(small).iter().all(|byte| *byte == 0));
        drop(rest);
        assert_eq!(idle(), [small]);
        assert_eq!(OWN.take(small)[0], 7);
        drop([used(large), used(small), used(middle)]);
        assert_eq!(idle(), [large, middle]);
        // The smallest that fits.
        let lent = used(small);
        assert_eq!((lent.len(), idle()), (small, vec![large]));
        drop(lent);
        // Too small and too large ones are nobody's.
        drop([used(large + 1), used(10)]);
        assert_eq!(idle(), [large, middle]);
    }
}
