//! Sets of rows, each kept once and named by a number: so that "who reaches it" costs four bytes for each
//! stored chunk, however many do.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};

/// The set of nobody.
pub(super) const NOBODY: u32 = 0;
/// Members of all sets together, at most.
const MEMBERS_MAX: usize = 1 << 24;
/// Joins that are remembered; then all are forgotten and found again.
const JOINS_KEPT_MAX: usize = 1 << 18;

/// Sets that were met so far.
#[derive(Debug)]
pub(super) struct Sets {
    members: Vec<Box<[u32]>>,
    numbers: HashMap<Box<[u32]>, u32>,
    joins: HashMap<(u32, u32), u32>,
    total: usize,
}

impl Sets {
    pub(super) fn new() -> Self {
        let nobody: Box<[u32]> = Box::default();
        let numbers = HashMap::from([(nobody.clone(), NOBODY)]);
        Self { members: vec![nobody], numbers, joins: HashMap::new(), total: 0 }
    }

    /// Who is in a set, in ascending order.
    pub(super) fn members(&self, set: u32) -> &[u32] {
        self.members.get(set as usize).map(|members| &**members).unwrap_or_default()
    }

    /// All sets with their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &[u32])> + '_ {
        (0_u32..).zip(&self.members).map(|(number, members)| (number, &**members))
    }

    /// The set of these.
    ///
    /// # Errors
    /// There are too many different sets.
    pub(super) fn of(&mut self, mut members: Vec<u32>) -> Result<u32> {
        members.sort_unstable();
        members.dedup();
        if let Some(number) = self.numbers.get(members.as_slice()) {
            return Ok(*number);
        }
        self.total += members.len();
        let number = u32::try_from(self.members.len()).ok().filter(|_| self.total <= MEMBERS_MAX);
        let number = number.ok_or_else(|| {
            Error::new(ErrorKind::Failed, "too many different groups of rows share stored bytes")
                .with_remedy("Ask for fewer rows: a smaller N in --by path:N")
        })?;
        let members = members.into_boxed_slice();
        self.members.push(members.clone());
        self.numbers.insert(members, number);
        Ok(number)
    }

    /// Everybody who is in one of them.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub(super) fn join(&mut self, one: u32, other: u32) -> Result<u32> {
        if one == other || other == NOBODY {
            return Ok(one);
        }
        if one == NOBODY {
            return Ok(other);
        }
        let pair = (one.min(other), one.max(other));
        if let Some(joined) = self.joins.get(&pair) {
            return Ok(*joined);
        }
        let joined = self.of([self.members(one), self.members(other)].concat())?;
        if self.joins.len() >= JOINS_KEPT_MAX {
            self.joins.clear();
        }
        self.joins.insert(pair, joined);
        Ok(joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_have_one_number_whatever_they_were_joined_from() {
        let mut sets = Sets::new();
        let [a, b, c] = [1, 2, 3].map(|member| sets.of(vec![member]).unwrap());
        let ab = sets.join(a, b).unwrap();
        assert_eq!(sets.members(ab), [1, 2]);
        assert_eq!(sets.join(b, a).unwrap(), ab);
        assert_eq!(sets.join(ab, a).unwrap(), ab);
        assert_eq!(sets.join(NOBODY, c).unwrap(), c);
        assert_eq!(sets.join(c, NOBODY).unwrap(), c);
        let all = sets.join(ab, c).unwrap();
        let bc = sets.join(b, c).unwrap();
        assert_eq!(sets.join(bc, a).unwrap(), all);
        assert_eq!(sets.of(vec![3, 1, 2, 2]).unwrap(), all);
        assert_eq!(sets.of(Vec::new()).unwrap(), NOBODY);
    }
}
