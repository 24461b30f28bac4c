//! Holes of sparse files: found without reading, passed over while reading, and left out while writing.

use std::{cmp::Reverse, fs::File, io, ops::Range, os::unix::fs::FileExt};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

use crate::{format::entry::Hole, limits};

/// A hole is looked through in pieces of so many bytes where it holds data now.
const PIECE_BYTES: usize = 64 << 10;

/// The holes of a file of `size` bytes, as its file system tells. Of more than [`limits::HOLES_MAX`] the longest are
/// given, of equal ones the first: what is in no hole is read. Whoever reads on afterwards begins at the beginning.
#[must_use]
pub fn find(file: &File, size: u64) -> Vec<Hole> {
    let holes = find_at_most(file, size, limits::HOLES_MAX);
    // To ask moves the position. A file that cannot be set back has not been moved either.
    let (Ok(_) | Err(_)) = seek(file, SeekFrom::Start(0));
    holes
}

fn find_at_most(file: &File, size: u64, most: usize) -> Vec<Hole> {
    let (mut holes, mut at) = (Vec::new(), 0);
    while at < size {
        // Whoever does not know holes has none.
        let Ok(offset) = seek(file, SeekFrom::Hole(at)) else { return Vec::new() };
        if offset >= size {
            break;
        }
        let end = match seek(file, SeekFrom::Data(offset)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => size,
            Err(_) => return Vec::new(),
        };
        if end > offset {
            holes.push(Hole { offset, length: end - offset });
        }
        // Somebody may write there meanwhile: it must go on all the same.
        at = end.max(offset + 1);
        if holes.len() >= most.saturating_mul(2) {
            keep_longest(&mut holes, most);
        }
    }
    keep_longest(&mut holes, most);
    holes
}

/// Leaves so many of them, in order. Which ones depends on the file alone: whoever reads it again finds the same.
fn keep_longest(holes: &mut Vec<Hole>, most: usize) {
    if holes.len() > most {
        holes.sort_unstable_by_key(|hole| (Reverse(hole.length), hole.offset));
        holes.truncate(most);
        holes.sort_unstable_by_key(|hole| hole.offset);
    }
}

/// Whether each of these holes is in one of the others. All are in order, and no two of a file touch.
#[must_use]
pub fn are_in(holes: &[Hole], others: &[Hole]) -> bool {
    holes.iter().all(|hole| {
        let last = others.partition_point(|other| other.offset <= hole.offset).checked_sub(1);
        last.and_then(|last| others.get(last)).is_some_and(|other| end(hole) <= end(other))
    })
}

/// Whether a part of this range of a file is in one of its holes, which are in order.
#[must_use]
pub fn reach_into(holes: &[Hole], range: &Range<u64>) -> bool {
    let first = holes.partition_point(|hole| end(hole) <= range.start);
    holes.get(first).is_some_and(|hole| hole.offset < range.end)
}

const fn end(hole: &Hole) -> u64 {
    hole.offset.saturating_add(hole.length)
}

/// Reads a file without its holes, to the end that it had when it was opened.
#[derive(Debug)]
pub struct Sparse {
    holes: Vec<Hole>,
    /// How many of them were passed.
    passed: usize,
    /// Where in the file it is, and where it ends.
    at: u64,
    end: u64,
}

impl Sparse {
    /// At the beginning of a file of `size` bytes.
    #[must_use]
    pub fn new(file: &File, size: u64) -> Self {
        Self { holes: find(file, size), passed: 0, at: 0, end: size }
    }

    /// Whether it has any.
    #[must_use]
    pub const fn has_holes(&self) -> bool {
        !self.holes.is_empty()
    }

    /// Reads what comes next and is in no hole.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&mut self, file: &File, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(hole) = self.holes.get(self.passed).filter(|hole| hole.offset == self.at) {
            self.at = hole.offset + hole.length;
            self.passed += 1;
        }
        let end = self.holes.get(self.passed).map_or(self.end, |hole| hole.offset);
        let left = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let read = file.read_at(buffer.get_mut(..length).unwrap_or_default(), self.at)?;
        if read == 0 && length > 0 {
            // It was cut short meanwhile.
            self.end = self.at;
            self.holes.truncate(self.passed);
        }
        self.at += u64::try_from(read).unwrap_or_default();
        Ok(read)
    }

    /// The holes that were passed over so far.
    #[must_use]
    pub fn passed(&self) -> &[Hole] {
        self.holes.get(..self.passed).unwrap_or_default()
    }
}

/// Where the content of a file lies between its holes.
#[derive(Debug, Default)]
pub struct Layout {
    holes: Vec<Hole>,
    /// How many bytes of content come before each hole, and how many bytes of holes before it.
    before: Vec<(u64, u64)>,
}

impl Layout {
    /// The layout of a file with these holes, which are in order.
    #[must_use]
    pub fn new(holes: &[Hole]) -> Self {
        let mut skipped = 0;
        let before = holes.iter().map(|hole| {
            let content = hole.offset.saturating_sub(skipped);
            skipped += hole.length;
            (content, skipped - hole.length)
        });
        Self { before: before.collect(), holes: holes.to_vec() }
    }

    /// The places in the file of a range of its content, in order.
    pub fn places(&self, content: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        // The hole at a place comes before the byte there.
        let mut next = self.before.partition_point(|(before, _)| *before <= content.start);
        let mut start = content.start;
        std::iter::from_fn(move || {
            if start >= content.end {
                return None;
            }
            let skipped =
                match next.checked_sub(1).and_then(|last| self.holes.get(last).zip(self.before.get(last))) {
                    Some((hole, (_, skipped))) => skipped + hole.length,
                    None => 0,
                };
            let end = self.before.get(next).map_or(content.end, |(before, _)| content.end.min(*before));
            let place = start.saturating_add(skipped)..end.saturating_add(skipped);
            (start, next) = (end, next + 1);
            Some(place)
        })
    }
}

/// Looks through a hole, piece by piece, for what is there now. What is still a hole is not read.
#[derive(Debug)]
pub struct Scan<'a> {
    file: &'a File,
    left: Range<u64>,
    buffer: Vec<u8>,
}

/// A part of what was a hole, and holds data now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it is in the file.
    pub range: Range<u64>,
    /// It reads as the hole did.
    pub is_zeros: bool,
}

impl<'a> Scan<'a> {
    /// At the beginning of a hole.
    #[must_use]
    pub fn new(file: &'a File, hole: Hole) -> Self {
        let left = hole.offset..hole.offset.saturating_add(hole.length);
        Self { file, left, buffer: vec![0; PIECE_BYTES] }
    }

    /// The next piece, of at most 64 KiB; `None` at the end of the hole, or of the file.
    ///
    /// # Errors
    /// What the system says.
    pub fn piece(&mut self) -> io::Result<Option<Piece>> {
        let Range { start: mut at, end } = self.left;
        if at >= end {
            return Ok(None);
        }
        match seek(self.file, SeekFrom::Data(at)) {
            Ok(data) if data < end => at = at.max(data),
            Ok(_) | Err(Errno::NXIO) => return Ok(None),
            // It cannot tell: everything is read.
            Err(_) => {}
        }
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let read = self.file.read_at(self.buffer.get_mut(..length).unwrap_or_default(), at)?;
        let piece = self.buffer.get(..read).unwrap_or_default();
        let range = at..at + u64::try_from(read).unwrap_or_default();
        self.left.start = range.end;
        let is_zeros = piece.iter().all(|byte| *byte == 0);
        Ok((read > 0).then_some(Piece { range, is_zeros }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const BLOCK: u64 = 1 << 16;

    /// Everything that is left.
    fn read_all(sparse: &mut Sparse, file: &File) -> Vec<u8> {
        struct Both<'a>(&'a mut Sparse, &'a File);
        impl Read for Both<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(self.1, buffer)
            }
        }
        let mut bytes = Vec::new();
        Both(sparse, file).read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// A file with these blocks written, and cut to `size`.
    fn file(blocks: &[u64], size: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for block in blocks {
            file.write_all_at(&[u8::try_from(block % 250).unwrap() + 1; 1 << 16], block * BLOCK).unwrap();
        }
        file
    }

    #[test]
    fn holes_are_found_and_passed_over() {
        for (blocks, size, holes) in [
            (&[][..], 5 * BLOCK, vec![Hole { offset: 0, length: 5 * BLOCK }]),
            (&[0, 1], 2 * BLOCK, vec![]),
            (
                &[1],
                4 * BLOCK,
                vec![Hole { offset: 0, length: BLOCK }, Hole { offset: 2 * BLOCK, length: 2 * BLOCK }],
            ),
            (&[0, 9], 10 * BLOCK, vec![Hole { offset: BLOCK, length: 8 * BLOCK }]),
        ] {
            let file = file(blocks, size);
            assert_eq!(find(&file, size), holes);
            let mut sparse = Sparse::new(&file, size);
            let bytes = read_all(&mut sparse, &file);
            assert_eq!(bytes.len() as u64, blocks.len() as u64 * BLOCK);
            assert_eq!(sparse.passed(), holes);
            // The same bytes, by their places.
            let layout = Layout::new(&holes);
            let mut again = Vec::new();
            for place in layout.places(0..bytes.len() as u64) {
                let mut part = vec![0; usize::try_from(place.end - place.start).unwrap()];
                file.read_exact_at(&mut part, place.start).unwrap();
                again.append(&mut part);
            }
            assert!(again == bytes);
        }
    }

    #[test]
    fn of_too_many_holes_the_large_ones_are_kept_whoever_looks() {
        // Holes of one block and of three by turns.
        let blocks: Vec<u64> = (0..40).flat_map(|n| [n * 6 + 1, n * 6 + 5]).collect();
        let file = file(&blocks, 240 * BLOCK);
        assert_eq!(find(&file, 240 * BLOCK).len(), 80);
        assert_eq!(find_at_most(&file, 240 * BLOCK, 50).len(), 50);
        let kept = find_at_most(&file, 240 * BLOCK, 40);
        assert!(kept.len() == 40 && kept.iter().all(|hole| hole.length == 3 * BLOCK));
        let first: Vec<u64> = kept.iter().map(|hole| hole.offset).collect();
        assert!(first.is_sorted());
        // Of equal ones the first, however many there are.
        assert_eq!(find_at_most(&file, 240 * BLOCK, 30), kept[..30]);
        assert_eq!(find_at_most(&file, 240 * BLOCK, 3), kept[..3]);
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_ends_where_it_was_read_to() {
        let file = file(&[0, 4], 6 * BLOCK);
        let mut sparse = Sparse::new(&file, 6 * BLOCK);
        file.set_len(BLOCK).unwrap();
        assert_eq!(read_all(&mut sparse, &file).len() as u64, BLOCK);
        let holes = sparse.passed();
        assert!(holes.len() <= 1, "{holes:?}");
    }

    #[test]
    fn places_lie_between_the_holes() {
        let hole = |offset, length| Hole { offset, length };
        let places = |holes: &[Hole], range| {
            let pairs = |place: Range<u64>| (place.start, place.end);
            Layout::new(holes).places(range).map(pairs).collect::<Vec<_>>()
        };
        assert_eq!(places(&[], 3..9), [(3, 9)]);
        assert_eq!(places(&[hole(0, 5)], 0..2), [(5, 7)]);
        assert_eq!(places(&[hole(4, 2), hole(8, 1)], 0..9), [(0, 4), (6, 8), (9, 12)]);
        assert_eq!(places(&[hole(4, 2), hole(8, 1)], 4..5), [(6, 7)]);
        assert_eq!(places(&[hole(4, 2), hole(8, 1)], 6..6), []);
        assert_eq!(places(&[hole(4, u64::MAX - 4)], 3..6), [(3, 4), (u64::MAX, u64::MAX)]);
    }

    #[test]
    fn holes_are_in_larger_ones_and_ranges_touch_them() {
        let holes = |holes: &[(u64, u64)]| {
            let hole = |&(offset, length)| Hole { offset, length };
            holes.iter().map(hole).collect::<Vec<_>>()
        };
        let there = holes(&[(4, 4), (12, 2)]);
        for (wanted, inside) in [
            (&[][..], true),
            (&[(4, 4)], true),
            (&[(5, 2), (12, 2)], true),
            (&[(3, 2)], false),
            (&[(7, 2)], false),
            (&[(4, 10)], false),
            (&[(8, 1)], false),
        ] {
            assert_eq!(are_in(&holes(wanted), &there), inside, "{wanted:?}");
        }
        for (range, touches) in
            [(0..4, false), (0..5, true), (5..6, true), (7..12, true), (8..12, false), (14..99, false)]
        {
            assert_eq!(reach_into(&there, &range), touches, "{range:?}");
        }
    }

    #[test]
    fn a_hole_that_was_written_to_is_noticed_and_zeros_are_none_the_worse() {
        let file = file(&[2], 6 * BLOCK);
        let hole = Hole { offset: 3 * BLOCK, length: 3 * BLOCK };
        let filled = || {
            let mut scan = Scan::new(&file, hole);
            let pieces = std::iter::from_fn(|| scan.piece().unwrap());
            pieces.filter(|piece| !piece.is_zeros).map(|piece| piece.range).collect::<Vec<_>>()
        };
        assert_eq!(filled(), []);
        file.write_all_at(&[0; 100], 4 * BLOCK).unwrap();
        assert_eq!(filled(), []);
        file.write_all_at(b"x", 4 * BLOCK + 7).unwrap();
        let found = filled();
        assert!(matches!(&found[..], [one] if one.contains(&(4 * BLOCK + 7))), "{found:?}");
    }
}
