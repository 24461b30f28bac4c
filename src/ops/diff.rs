//! `diff`: what is otherwise in one snapshot than in another. Both manifests are read side by side, and what they
//! share is not read at all: the cost grows with what differs.

use std::cmp::Ordering;

use super::verify::{Difference, Owners, metadata_differences};
use crate::{
    error::Result,
    filesystem::{holes::Layout, select::Selection},
    format::{
        entry::{ChunkRef, Content, Entry, EntryKind},
        node::compare_paths,
        path::is_at_or_below,
    },
    progress::Phase,
    repository::{
        Repository,
        manifest::{Ahead, ManifestCursor, NodeSource},
        reader::NodeReader,
        snapshots::KnownSnapshot,
    },
};

/// What to compare.
#[derive(Debug, Default)]
pub struct DiffOptions {
    /// Only what is at and below this path (no leading slash); empty for everything.
    pub subpath: Vec<u8>,
    /// What of it.
    pub selection: Selection,
}

/// How an entry changed.
#[derive(Debug)]
pub enum Change<'a> {
    /// Only the second snapshot has it.
    Added(&'a Entry),
    /// Only the first one has it.
    Removed(&'a Entry),
    /// Both have it, and it differs so.
    Changed(&'a Entry, Vec<Difference>),
}

/// Whether the contents of files can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// They are.
    Compared,
    /// Nobody can tell: a key of the domain makes the ids of chunks, and says where they are cut.
    Unknown,
}

/// Whether the contents of files in two snapshots can be compared without reading them.
#[must_use]
pub fn contents(one: &KnownSnapshot, other: &KnownSnapshot) -> Contents {
    if one.name.domain == other.name.domain { Contents::Compared } else { Contents::Unknown }
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diffed {
    /// Entries that only the second snapshot has, and the bytes in files among them.
    pub added: (u64, u64),
    /// Entries that only the first one has, and the bytes in files among them.
    pub removed: (u64, u64),
    /// Entries that differ, and the bytes that files among them have in the second snapshot.
    pub changed: (u64, u64),
    /// Parts of the manifests that are lost: what is in them is not compared.
    pub lost: u64,
    /// Nodes of the manifests that were read.
    pub nodes_read: u64,
}

/// One of the two.
struct Side<'a> {
    cursor: ManifestCursor<'a>,
    /// Something before what comes next is lost, so what only the other side has may have been there.
    doubted: bool,
}

impl<'a> Side<'a> {
    fn new(nodes: &'a dyn NodeSource, snapshot: &KnownSnapshot, options: &DiffOptions) -> Self {
        let cursor = ManifestCursor::from(nodes, snapshot.record.root, &options.subpath);
        Self { cursor, doubted: false }
    }
}

/// Compares two snapshots of one repository and gives each change in the order of the paths.
///
/// # Errors
/// What `each` says; trouble that is no damage. What cannot be read is counted.
pub fn run(
    repository: &Repository,
    (one, other): (&KnownSnapshot, &KnownSnapshot),
    options: &DiffOptions,
    each: &mut dyn FnMut(Change<'_>) -> Result<()>,
) -> Result<Diffed> {
    let progress = repository.store.progress();
    progress.enter(Phase::Checking);
    let view = repository.view_to_read(&one.name.domain)?;
    let contents = contents(one, other);
    let second = if contents == Contents::Compared {
        None
    } else {
        Some(repository.view_to_read(&other.name.domain)?)
    };
    let mut nodes = NodeReader::new(repository, one.name.domain, &view.index)?;
    nodes.serve(one.name.identity);
    let second = second.as_ref().unwrap_or(&view);
    let mut other_nodes = NodeReader::new(repository, other.name.domain, &second.index)?;
    other_nodes.serve(other.name.identity);
    let mut comparison = Comparison {
        one: Side::new(&nodes, one, options),
        other: Side::new(&other_nodes, other, options),
        contents,
        options,
        done: Diffed::default(),
        each,
    };
    while comparison.step()? {
        progress.check()?;
    }
    let nodes_read = comparison.one.cursor.nodes_read + comparison.other.cursor.nodes_read;
    Ok(Diffed { nodes_read, ..comparison.done })
}

/// What is done next.
enum Step {
    /// Both have the same node.
    Skip,
    /// A node of one side, or of both, has to be read.
    Read(bool, bool),
    /// Only the first side has the entry.
    Removed,
    /// Only the second side has it.
    Added,
    /// Both have it.
    Both,
    End,
}

struct Comparison<'a, 'e> {
    one: Side<'a>,
    other: Side<'a>,
    contents: Contents,
    options: &'a DiffOptions,
    done: Diffed,
    each: &'e mut dyn FnMut(Change<'_>) -> Result<()>,
}

impl Comparison<'_, '_> {
    fn step(&mut self) -> Result<bool> {
        match self.next() {
            Step::End => return Ok(false),
            Step::Skip => {
                self.one.cursor.skip();
                self.other.cursor.skip();
                (self.one.doubted, self.other.doubted) = (false, false);
            }
            Step::Read(one, other) => {
                for (side, reads) in [(&mut self.one, one), (&mut self.other, other)] {
                    match if reads { side.cursor.descend() } else { Ok(()) } {
                        Err(error) if error.is_damage() => {
                            self.done.lost += 1;
                            side.doubted = true;
                        }
                        read => read?,
                    }
                }
            }
            Step::Removed => {
                let entry = self.one.cursor.next_entry()?;
                self.only(entry, true)?;
                self.one.doubted = false;
            }
            Step::Added => {
                let entry = self.other.cursor.next_entry()?;
                self.only(entry, false)?;
                self.other.doubted = false;
            }
            Step::Both => {
                let (one, other) = (self.one.cursor.next_entry()?, self.other.cursor.next_entry()?);
                (self.one.doubted, self.other.doubted) = (false, false);
                if let (Some(one), Some(other)) = (one, other) {
                    self.both(&one, &other)?;
                }
            }
        }
        Ok(true)
    }

    fn next(&mut self) -> Step {
        let subpath = &self.options.subpath;
        let ended = |path: &[u8]| !is_at_or_below(path, subpath) && compare_paths(path, subpath).is_gt();
        match (self.one.cursor.peek(), self.other.cursor.peek()) {
            (Ahead::End, Ahead::End) => Step::End,
            (Ahead::Node(one, above), Ahead::Node(other, other_above)) => {
                if ended(&one.first) && ended(&other.first) {
                    return Step::End;
                }
                match compare_paths(&one.first, &other.first) {
                    Ordering::Less => Step::Read(true, false),
                    Ordering::Greater => Step::Read(false, true),
                    // A key of the domain makes these too.
                    Ordering::Equal if self.contents == Contents::Compared && one.id == other.id => {
                        Step::Skip
                    }
                    Ordering::Equal => match above.cmp(&other_above) {
                        Ordering::Greater => Step::Read(true, false),
                        Ordering::Less => Step::Read(false, true),
                        Ordering::Equal => Step::Read(true, true),
                    },
                }
            }
            (Ahead::Entry(one), Ahead::Entry(other)) => match compare_paths(&one.path, &other.path) {
                Ordering::Less if ended(&one.path) => Step::End,
                Ordering::Greater if ended(&other.path) => Step::End,
                Ordering::Less => Step::Removed,
                Ordering::Greater => Step::Added,
                Ordering::Equal if ended(&one.path) => Step::End,
                Ordering::Equal => Step::Both,
            },
            (Ahead::Entry(one), Ahead::Node(other, _)) => match compare_paths(&one.path, &other.first) {
                Ordering::Less if ended(&one.path) => Step::End,
                Ordering::Less => Step::Removed,
                _ => Step::Read(false, true),
            },
            (Ahead::Node(one, _), Ahead::Entry(other)) => match compare_paths(&other.path, &one.first) {
                Ordering::Less if ended(&other.path) => Step::End,
                Ordering::Less => Step::Added,
                _ => Step::Read(true, false),
            },
            (Ahead::Entry(entry), Ahead::End) if ended(&entry.path) => Step::End,
            (Ahead::End, Ahead::Entry(entry)) if ended(&entry.path) => Step::End,
            (Ahead::Node(child, _), Ahead::End) | (Ahead::End, Ahead::Node(child, _))
                if ended(&child.first) =>
            {
                Step::End
            }
            (Ahead::Entry(_), Ahead::End) => Step::Removed,
            (Ahead::End, Ahead::Entry(_)) => Step::Added,
            (Ahead::Node(..), Ahead::End) => Step::Read(true, false),
            (Ahead::End, Ahead::Node(..)) => Step::Read(false, true),
        }
    }

    fn is_meant(&self, entry: &Entry) -> bool {
        // A node may begin before what is asked for.
        is_at_or_below(&entry.path, &self.options.subpath) && self.options.selection.selects_entry(entry)
    }

    fn only(&mut self, entry: Option<Entry>, removed: bool) -> Result<()> {
        let Some(entry) = entry else { return Ok(()) };
        // What the other side has lost may be this.
        let unknown = if removed { self.other.doubted } else { self.one.doubted };
        if unknown || !self.is_meant(&entry) {
            return Ok(());
        }
        let count = if removed { &mut self.done.removed } else { &mut self.done.added };
        count.0 += 1;
        count.1 = count.1.saturating_add(entry.metadata.size);
        (self.each)(if removed { Change::Removed(&entry) } else { Change::Added(&entry) })
    }

    fn both(&mut self, one: &Entry, other: &Entry) -> Result<()> {
        if !self.is_meant(one) {
            return Ok(());
        }
        let differences = differences(one, other, self.contents);
        if differences.is_empty() {
            return Ok(());
        }
        self.done.changed.0 += 1;
        self.done.changed.1 = self.done.changed.1.saturating_add(other.metadata.size);
        (self.each)(Change::Changed(other, differences))
    }
}

/// How an entry differs from what it was, in the words of `verify`; its content as far as the ids of chunks tell.
fn differences(then: &Entry, now: &Entry, contents: Contents) -> Vec<Difference> {
    if then.metadata.kind != now.metadata.kind {
        return vec![Difference::Kind(now.metadata.kind)];
    }
    let mut differences = metadata_differences(&then.metadata, &now.metadata, Owners::Compare, false);
    let same_holes = then.metadata.holes == now.metadata.holes;
    let compared = then.metadata.kind == EntryKind::File && contents == Contents::Compared;
    if compared && !same_holes {
        // Between other holes the same content is elsewhere, and zeros may be a hole now.
        differences.insert(0, Difference::Holes);
    } else if compared && then.content != now.content {
        let layout = Layout::new(&now.metadata.holes);
        let ranges = ranges(&then.content, &now.content).into_iter();
        let ranges = ranges.flat_map(|range| layout.places(range)).collect();
        differences.insert(0, Difference::Content(ranges));
    }
    if then.error != now.error
        && let Some(error) = &now.error
    {
        differences.push(Difference::Unreadable(error.clone()));
    }
    differences
}

/// The bytes of `now` that are in other chunks than before; none where that would take reading lists.
fn ranges(then: &Content, now: &Content) -> Vec<std::ops::Range<u64>> {
    let (Content::Inline(then), Content::Inline(now)) = (then, now) else { return Vec::new() };
    let starts = |chunks: &[ChunkRef]| {
        let mut offset = 0;
        chunks
            .iter()
            .map(|chunk| {
                let start = offset;
                offset += u64::from(chunk.length);
                (start, *chunk)
            })
            .collect::<Vec<_>>()
    };
    let then = starts(then);
    let mut differing: Vec<std::ops::Range<u64>> = Vec::new();
    for (start, chunk) in starts(now) {
        if then.binary_search_by_key(&start, |(start, _)| *start).is_ok_and(|at| then[at].1 == chunk) {
            continue;
        }
        let end = start + u64::from(chunk.length);
        match differing.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => differing.push(start..end),
        }
    }
    differing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BlobId;

    #[test]
    fn the_ranges_of_chunks_that_are_not_where_they_were_are_told() {
        let content = |chunks: &[(u8, u32)]| {
            Content::Inline(
                chunks
                    .iter()
                    .map(|(id, length)| ChunkRef { id: BlobId::new([*id; 32]), length: *length })
                    .collect(),
            )
        };
        let then = content(&[(1, 10), (2, 5), (3, 10)]);
        assert_eq!(ranges(&then, &then), []);
        assert_eq!(ranges(&then, &content(&[(1, 10), (9, 5), (3, 10)])).first(), Some(&(10..15)));
        let longer = ranges(&then, &content(&[(1, 10), (9, 6), (3, 10), (4, 1)]));
        assert_eq!((longer.len(), longer.first()), (1, Some(&(10..27))));
        assert_eq!(ranges(&then, &content(&[(1, 10)])), [], "a shorter file has another size");
    }
}
