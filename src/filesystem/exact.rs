//! How exactly file systems keep times. One that cannot hold a time takes it all the same and keeps another one, without
//! an error; to ask back for every file would cost a system call each.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use crate::clock::Timestamp;

/// A file system as the kernel numbers it now.
pub(super) type Device = (u32, u32);

/// Of each file system that was asked: it has kept times in units of so many nanoseconds, which are a power of ten. That
/// depends on nothing but the file system, so it is known for the whole process.
static KEPT: RwLock<BTreeMap<Device, u32>> = RwLock::new(BTreeMap::new());

const SECOND: u32 = 1_000_000_000;
/// What every file system holds: seconds in 31 bits.
const HELD: std::ops::Range<i64> = 0..1 << 31;

/// Whether the file system is known to keep such a time. Where it is not, somebody has to look.
pub(super) fn is_kept(device: Device, time: Timestamp) -> bool {
    let kept = KEPT.read().unwrap_or_else(PoisonError::into_inner);
    HELD.contains(&time.seconds)
        && kept.get(&device).is_some_and(|unit| time.nanoseconds.is_multiple_of(*unit))
}

/// Remembers that the file system has kept this time. FAT keeps even seconds: they prove nothing.
pub(super) fn remember(device: Device, time: Timestamp) {
    if let Some(unit) = unit(time) {
        let mut kept = KEPT.write().unwrap_or_else(PoisonError::into_inner);
        let known = kept.entry(device).or_insert(unit);
        *known = unit.min(*known);
    }
}

/// The largest unit of which the time is a multiple, in nanoseconds.
fn unit(time: Timestamp) -> Option<u32> {
    if time.nanoseconds == 0 {
        return (time.seconds % 2 != 0).then_some(SECOND);
    }
    std::iter::successors(Some(SECOND), |unit| Some(unit / 10))
        .take_while(|unit| *unit > 0)
        .find(|unit| time.nanoseconds.is_multiple_of(*unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_believed_as_far_as_it_has_shown() {
        // No file system has this number.
        let device = (u32::MAX, u32::MAX);
        let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
        assert!(!is_kept(device, time(1, 0)));
        remember(device, time(2, 0));
        assert!(!is_kept(device, time(1, 0)), "it may keep even seconds only");
        remember(device, time(3, 0));
        assert!(is_kept(device, time(1, 0)) && !is_kept(device, time(1, 100)));
        remember(device, time(3, 700));
        assert!(is_kept(device, time(1, 100)) && !is_kept(device, time(1, 10)));
        remember(device, time(3, 1));
        remember(device, time(3, 1000));
        assert!(is_kept(device, time(1, 999_999_999)));
        assert!(!is_kept(device, time(-1, 0)) && !is_kept(device, time(1 << 31, 0)));
    }
}
