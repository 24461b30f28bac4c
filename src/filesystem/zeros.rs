//! Zeros in files: whole blocks of them need no space on the disk.

use std::{ops::Range, os::fd::BorrowedFd};

use rustix::fs::{FallocateFlags, fallocate};

/// What file systems leave out is a multiple of this, in bytes.
const BLOCK_BYTES: usize = 4096;
static BLOCK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// A part of a buffer that goes to a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Run<'a> {
    /// These bytes go there.
    Bytes(u64, &'a [u8]),
    /// Whole blocks of the file, all of zeros.
    Zeros(Range<u64>),
}

const fn long(length: usize) -> u64 {
    // No buffer is longer than that.
    length as u64
}

/// Bytes from `offset` to the end of its block.
fn to_the_block(offset: u64) -> usize {
    let block = long(BLOCK_BYTES);
    usize::try_from(block - offset % block).unwrap_or(BLOCK_BYTES)
}

/// Splits a buffer that goes to `offset` of a file.
pub(super) fn runs(mut offset: u64, mut bytes: &[u8]) -> impl Iterator<Item = Run<'_>> {
    std::iter::from_fn(move || {
        let (mut length, mut zeros) = (0, None);
        while length < bytes.len() {
            let end = bytes.len().min(length + to_the_block(offset + long(length)));
            let block = bytes.get(length..end).unwrap_or_default();
            let empty = block == BLOCK.as_slice();
            if *zeros.get_or_insert(empty) != empty {
                break;
            }
            length = end;
        }
        let (run, rest) = bytes.split_at_checked(length)?;
        let begin = offset;
        (offset, bytes) = (offset + long(length), rest);
        zeros.map(|zeros| if zeros { Run::Zeros(begin..offset) } else { Run::Bytes(begin, run) })
    })
}

/// The same range as pieces of zeros to write.
pub(super) fn blocks(range: &Range<u64>) -> impl Iterator<Item = (u64, &'static [u8])> {
    let (mut offset, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        let length =
            usize::try_from(end.saturating_sub(offset)).unwrap_or(BLOCK_BYTES).min(to_the_block(offset));
        let begin = offset;
        offset += long(length);
        (length > 0).then_some(())?;
        Some((begin, BLOCK.get(..length)?))
    })
}

/// Makes a hole in a file; whether the file system can.
pub(super) fn punch(file: BorrowedFd<'_>, range: &Range<u64>) -> bool {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    range.is_empty() || fallocate(file, flags, range.start, range.end - range.start).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_of_zeros_are_told_from_the_bytes_around_them() {
        let found = |offset, bytes: &[u8]| {
            let told = |run| match run {
                Run::Bytes(offset, bytes) => (offset, bytes.len(), false),
                Run::Zeros(range) => (range.start, usize::try_from(range.end - range.start).unwrap(), true),
            };
            runs(offset, bytes).map(told).collect::<Vec<_>>()
        };
        assert_eq!(found(0, &[]), []);
        assert_eq!(found(0, &[0; 100]), [(0, 100, false)], "no whole block");
        assert_eq!(found(0, &[0; 3 * 4096]), [(0, 3 * 4096, true)]);
        assert_eq!(found(100, &[0; 2 * 4096]), [(100, 3996, false), (4096, 4096, true), (8192, 100, false)]);
        let mut bytes = vec![0; 4 * 4096];
        bytes[5000] = 1;
        assert_eq!(found(8192, &bytes), [(8192, 4096, true), (12288, 4096, false), (16384, 8192, true)]);
    }

    #[test]
    fn a_range_of_zeros_is_written_piece_by_piece() {
        let pieces: Vec<_> = blocks(&(4000..9000)).map(|(offset, bytes)| (offset, bytes.len())).collect();
        assert_eq!(pieces, [(4000, 96), (4096, 4096), (8192, 808)]);
        assert_eq!(blocks(&(5..5)).count(), 0);
    }
}
