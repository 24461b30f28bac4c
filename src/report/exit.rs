//! Which exit code wins when several apply.

use crate::error::ErrorKind;

/// The place of a kind in the order of exit codes: 130, 12, 10, 13, 5, 4, 75, 2, 1, 3, 9, 6, 7.
const fn rank(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Interrupted => 0,
        ErrorKind::CannotUnlock => 1,
        ErrorKind::NoRepository => 2,
        ErrorKind::Forbidden => 3,
        ErrorKind::Damaged => 4,
        ErrorKind::DrillFailed => 5,
        ErrorKind::Temporary => 6,
        ErrorKind::Usage => 7,
        ErrorKind::Failed | ErrorKind::NotFound => 8,
        ErrorKind::Incomplete => 9,
        ErrorKind::EmptySource => 10,
        ErrorKind::Differences => 11,
        ErrorKind::Overdue => 12,
    }
}

/// The kind whose exit code a script must see; `None` when there was no trouble.
#[must_use]
pub fn worst(kinds: impl IntoIterator<Item = ErrorKind>) -> Option<ErrorKind> {
    kinds.into_iter().min_by_key(|kind| rank(*kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_exit_codes_is_the_published_one() {
        let mut kinds = [
            ErrorKind::Failed,
            ErrorKind::Incomplete,
            ErrorKind::DrillFailed,
            ErrorKind::Damaged,
            ErrorKind::Differences,
            ErrorKind::Overdue,
            ErrorKind::EmptySource,
            ErrorKind::NoRepository,
            ErrorKind::CannotUnlock,
            ErrorKind::Forbidden,
            ErrorKind::Temporary,
            ErrorKind::Interrupted,
        ];
        let mut codes = Vec::new();
        for end in (1..=kinds.len()).rev() {
            let first = worst(kinds[..end].iter().copied()).unwrap();
            codes.push(first.exit_code());
            let at = kinds.iter().position(|kind| *kind == first).unwrap();
            kinds.swap(at, end - 1);
        }
        assert_eq!(codes, [130, 12, 10, 13, 5, 4, 75, 1, 3, 9, 6, 7]);
        assert_eq!(worst([]), None);
    }
}
