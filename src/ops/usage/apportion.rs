//! Dividing bytes without losing one.

use std::cmp::Reverse;

/// Divides `total` in proportion to `weights`. Each part is rounded down; the bytes that are left go one by
/// one to the parts that lost most by it, of equal ones to the first. Without any weight all weigh the same.
/// The parts sum to the total, unless there is no part.
pub(super) fn apportion(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    if sum == 0 {
        return if weights.is_empty() { Vec::new() } else { apportion(total, &vec![1; weights.len()]) };
    }
    let product = |weight: &u64| u128::from(total) * u128::from(*weight);
    let mut parts: Vec<u64> =
        weights.iter().map(|weight| u64::try_from(product(weight) / sum).unwrap_or(u64::MAX)).collect();
    let left = total.saturating_sub(parts.iter().sum());
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|at| Reverse(weights.get(*at).map(|weight| product(weight) % sum)));
    // Fewer bytes are left than there are parts.
    for (at, _) in order.into_iter().zip(0..left) {
        if let Some(part) = parts.get_mut(at) {
            *part += 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_left_goes_to_those_who_lost_most_then_to_the_first() {
        assert_eq!(apportion(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(apportion(10, &[1, 2]), [3, 7]);
        assert_eq!(apportion(100, &[1, 1, 2, 3]), [14, 14, 29, 43]);
        assert_eq!(apportion(5, &[0, 7, 0]), [0, 5, 0]);
        assert_eq!(apportion(5, &[0, 0]), [3, 2]);
        assert_eq!(apportion(0, &[3]), [0]);
        assert!(apportion(7, &[]).is_empty());
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_no_part_is_a_byte_off(
            total in 0..u64::MAX / 2,
            weights in proptest::collection::vec(0_u64..1 << 40, 1..50),
        ) {
            let parts = apportion(total, &weights);
            prop_assert_eq!(parts.iter().sum::<u64>(), total);
            let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
            for (part, weight) in parts.iter().zip(&weights) {
                if sum > 0 {
                    let exact = u128::from(total) * u128::from(*weight);
                    let part = u128::from(*part) * sum;
                    prop_assert!(part.abs_diff(exact) < sum);
                }
            }
        }
    }
}
