//! Buffers for large objects, used again by the next read. The allocator gives memory of this size back to the system
//! as soon as it is free, so a fresh buffer costs a page fault for each 4 KiB: a fifth of the CPU time of a check of data.

use std::{
    ops::RangeInclusive,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use crate::limits;

/// A pack of the usual size fits.
const BYTES_MAX: usize = limits::PACK_BYTES_TARGET + limits::PACK_BYTES_BEYOND;
/// Smaller ones are the allocator's business: jemalloc gives back at once what has 8 MiB. Larger ones are not kept.
const KEPT_BYTES: RangeInclusive<usize> = 8 * limits::MIB..=BYTES_MAX;
/// So many are kept, for as many workers as most machines have.
const KEPT: usize = 2;

/// One for the whole process, as its memory is.
pub(super) static BUFFERS: Buffers = Buffers(Mutex::new(Vec::new()));

/// Those that nobody uses now. Each has room for the largest, so that any of them fits: else one would lie idle beside each that is in
/// use. What was never written to takes no memory.
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// A buffer of exactly so many bytes, whatever they are.
    pub(super) fn take(&self, bytes: usize) -> Vec<u8> {
        if !KEPT_BYTES.contains(&bytes) {
            return vec![0; bytes];
        }
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = idle.unwrap_or_else(|| vec![0; BYTES_MAX]);
        // What it held stays, so nothing is written to what is there already.
        buffer.resize(bytes, 0);
        buffer
    }

    /// What is in a buffer, which comes back when nobody uses that any more.
    pub(super) fn lend(&'static self, buffer: Vec<u8>) -> Bytes {
        if KEPT_BYTES.contains(&buffer.len()) && buffer.capacity() >= BYTES_MAX {
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
        if idle.len() < KEPT {
            idle.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static OWN: Buffers = Buffers(Mutex::new(Vec::new()));

    #[test]
    fn a_buffer_comes_back_when_nobody_uses_what_is_in_it_and_serves_whatever_is_large() {
        let idle = || OWN.0.lock().unwrap().len();
        let used = |bytes: usize| {
            let mut buffer = OWN.take(bytes);
            assert_eq!(buffer.len(), bytes);
            buffer.fill(7);
            OWN.lend(buffer)
        };
        let [small, large] = [*KEPT_BYTES.start(), *KEPT_BYTES.end()];
        let lent = used(small);
        let rest = lent.slice(small / 2..);
        drop(lent);
        // A part of it is in use.
        assert_eq!(idle(), 0);
        assert!(OWN.take(small).iter().all(|byte| *byte == 0));
        drop(rest);
        assert_eq!(idle(), 1);
        // Any size is served by the one that is there.
        for bytes in [large, small, small + 1] {
            let lent = used(bytes);
            assert_eq!((lent.len(), idle()), (bytes, 0));
            assert!(lent.iter().all(|byte| *byte == 7));
            drop(lent);
            assert_eq!(idle(), 1);
        }
        assert_eq!(OWN.take(small)[0], 7);
        drop([used(large), used(small), used(large)]);
        assert_eq!(idle(), KEPT);
        // Too small and too large ones are nobody's.
        drop([used(large + 1), used(small - 1), used(10)]);
        assert_eq!(idle(), KEPT);
    }
}
