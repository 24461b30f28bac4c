//! The parts of a file that are not good. There may be as many as chunks, so what touches is joined.

use std::ops::Range;

/// So many parts of a file are told apart.
const PARTS_MAX: usize = 1 << 16;

/// Ranges of bytes, in the order in which they were met.
#[derive(Debug, Default)]
pub(super) struct BadRanges(Vec<Range<u64>>);

impl BadRanges {
    pub(super) fn add(&mut self, range: Range<u64>) {
        match self.0.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.0.push(range),
        }
        if self.0.len() > 2 * PARTS_MAX {
            self.join();
        }
    }

    /// Adds those of another, which begins there.
    pub(super) fn add_all(&mut self, other: &Self, offset: u64) {
        other.0.iter().for_each(|range| self.add(range.start + offset..range.end + offset));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of the file; none touches the next one.
    pub(super) fn in_order(mut self) -> Vec<Range<u64>> {
        self.join();
        self.0
    }

    fn join(&mut self) {
        self.0.sort_by_key(|range| range.start);
        self.0.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        while self.0.len() > PARTS_MAX {
            // What is good between two of them is called bad with them: nobody reads so long a list.
            let pairs = self.0.chunks(2).filter_map(|pair| Some(pair.first()?.start..pair.last()?.end));
            self.0 = pairs.collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one_and_come_in_order() {
        let mut bad = BadRanges::default();
        let mut first = BadRanges::default();
        [0..5, 5..6, 9..10].into_iter().for_each(|range| first.add(range));
        bad.add_all(&first, 100);
        bad.add(20..30);
        bad.add(106..109);
        assert!(!bad.is_empty());
        assert_eq!(bad.in_order(), [20..30, 100..110]);
    }

    #[test]
    fn there_is_a_limit_to_their_number_and_nothing_bad_is_left_out() {
        let mut bad = BadRanges::default();
        let count = 5 * PARTS_MAX as u64;
        (0..count).for_each(|number| bad.add(number * 10..number * 10 + 1));
        assert!(bad.0.len() <= 2 * PARTS_MAX);
        let parts = bad.in_order();
        assert!(parts.len() <= PARTS_MAX && parts.is_sorted_by_key(|part| part.start));
        let mut numbers = (0..count).peekable();
        for part in parts {
            while numbers.next_if(|number| part.contains(&(number * 10))).is_some() {}
        }
        assert_eq!(numbers.next(), None, "every one is in a part");
    }
}
