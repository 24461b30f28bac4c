//! Buffers for large objects, used again by the next read. The allocator gives memory of this size back to the system
//! as soon as it is free, so a fresh buffer costs a page fault for each 4 KiB: a fifth of the CPU time of a check of data.

use std::{
    cmp::Reverse,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use crate::limits;

/// Smaller ones are the allocator's business.
const BYTES_MIN: usize = limits::MIB;
/// So many are kept, for as many workers as most machines have.
const KEPT: usize = 2;
/// Larger ones are not kept: a pack of the usual size fits.
const KEPT_BYTES_MAX: usize = limits::PACK_BYTES_TARGET + limits::PACK_BYTES_TARGET / 8;

/// Those that nobody uses now. The bound is one for the whole process, as that of its memory is.
static IDLE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer of exactly so many bytes, whatever they are.
pub(super) fn take(bytes: usize) -> Vec<u8> {
    let kept = if bytes < BYTES_MIN {
        None
    } else {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = idle.iter().position(|buffer| buffer.capacity() >= bytes);
        fits.map(|at| idle.swap_remove(at))
    };
    let Some(mut buffer) = kept else { return vec![0; bytes] };
    // What it held stays, so nothing is written to what is there already.
    buffer.resize(bytes, 0);
    buffer
}

/// What is in a buffer, which comes back when nobody uses that any more.
pub(super) fn lend(buffer: Vec<u8>) -> Bytes {
    if (BYTES_MIN..=KEPT_BYTES_MAX).contains(&buffer.capacity()) {
        Bytes::from_owner(Lent(buffer))
    } else {
        Bytes::from(buffer)
    }
}

struct Lent(Vec<u8>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(std::mem::take(&mut self.0));
        // The largest are the ones that cost most.
        idle.sort_unstable_by_key(|buffer| Reverse(buffer.capacity()));
        idle.truncate(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_has_the_length_that_is_asked_for() {
        // Others of this process may take it, so what is looked at is the bytes.
        for bytes in [3 * BYTES_MIN, 2 * BYTES_MIN, 5 * BYTES_MIN, 10, KEPT_BYTES_MAX + 1] {
            let mut buffer = take(bytes);
            assert_eq!(buffer.len(), bytes);
            buffer.fill(7);
            let (lent, part) = (lend(buffer), bytes / 2);
            let rest = lent.slice(part..);
            drop(lent);
            // It is not used again while a part of it is.
            take(bytes).fill(9);
            assert!(rest.iter().all(|byte| *byte == 7) && rest.len() == bytes - part);
        }
        assert!(IDLE.lock().unwrap().iter().all(|buffer| buffer.capacity() <= KEPT_BYTES_MAX));
        assert!(IDLE.lock().unwrap().len() <= KEPT);
    }
}
