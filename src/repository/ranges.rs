//! Which ranges of packs are read for some frames: those that lie near each other come with one request.

use std::ops::Range;

use super::index::{Found, KnownPack};

/// Frames of a pack that are no farther apart are read together, in bytes: to read so much for nothing takes less time
/// than one more round trip.
const GAP_BYTES: u64 = 64 << 10;
/// The longest range that is read at once, in bytes; a single frame may be longer.
const RANGE_BYTES: u64 = 4 << 20;

/// A range of a pack, and the frames in it.
#[derive(Debug)]
pub(crate) struct PackRange<T> {
    /// The pack.
    pub(crate) pack: KnownPack,
    /// Bytes of it.
    pub(crate) range: Range<u64>,
    /// The frames in the order in which they lie there, each with the offset in the range at which it begins.
    pub(crate) frames: Vec<(T, usize)>,
}

/// The ranges to read for frames, by pack and offset.
pub(crate) fn ranges_of<T>(mut frames: Vec<T>, found: impl Fn(&T) -> &Found) -> Vec<PackRange<T>> {
    frames.sort_by_key(|frame| (found(frame).pack.id, found(frame).frame.offset));
    let mut ranges: Vec<PackRange<T>> = Vec::new();
    for frame in frames {
        let pack = found(&frame).pack;
        let Range { start, end } = found(&frame).frame.range();
        let near = ranges.last_mut().filter(|last| {
            let Range { start: first, end: so_far } = last.range;
            last.pack.id == pack.id
                && start <= so_far.saturating_add(GAP_BYTES)
                && end.max(so_far) - first <= RANGE_BYTES
        });
        if let Some(last) = near {
            // Not farther than RANGE_BYTES.
            let at = usize::try_from(start - last.range.start).unwrap_or(usize::MAX);
            last.range.end = last.range.end.max(end);
            last.frames.push((frame, at));
        } else {
            ranges.push(PackRange { pack, range: start..end, frames: vec![(frame, 0)] });
        }
    }
    ranges
}
