//! The content of files, read back: chunks, and the lists that hold them where there are many.

use super::manifest::NodeSource;
use crate::{
    error::{Error, Result},
    format::{
        entry::{ChunkRef, Content},
        node::Node,
    },
    id::BlobId,
};

/// Every chunk of a content, in order.
///
/// # Errors
/// What the source or `each` says; `Damaged` for a list that does not add up.
pub fn for_each_chunk(
    content: &Content,
    source: &dyn NodeSource,
    each: &mut dyn FnMut(ChunkRef) -> Result<()>,
) -> Result<()> {
    match content {
        Content::Inline(chunks) => chunks.iter().try_for_each(|chunk| each(*chunk)),
        Content::List { node, chunks, level } => {
            walk_list(node, (*level + 1, (*chunks, None)), source, &mut |listed| match listed {
                Listed::Chunk(chunk) => each(chunk),
                Listed::Node(_) => Ok(()),
            })
        }
    }
}

/// Every node below a list, for those who must account for them.
///
/// # Errors
/// What the source says; `Damaged` for a list that does not add up.
pub fn for_each_list_node(
    content: &Content,
    source: &dyn NodeSource,
    each: &mut dyn FnMut(BlobId),
) -> Result<()> {
    match content {
        Content::Inline(_) => Ok(()),
        Content::List { node, chunks, level } => {
            walk_list(node, (*level + 1, (*chunks, None)), source, &mut |listed| {
                if let Listed::Node(id) = listed {
                    each(id);
                }
                Ok(())
            })
        }
    }
}

/// What a walk over a list meets.
enum Listed {
    Node(BlobId),
    Chunk(ChunkRef),
}

/// Every step down is paid for with a chunk, since the sums are checked first: a list that repeats itself
/// ends when it has given the chunks that it claims.
fn walk_list(
    id: &BlobId,
    (above, expected): (u8, (u64, Option<u64>)),
    source: &dyn NodeSource,
    each: &mut dyn FnMut(Listed) -> Result<()>,
) -> Result<()> {
    each(Listed::Node(*id))?;
    let node = source.node(id)?;
    list_sums(&node, above, expected)?;
    match node {
        Node::Chunks(chunks) => chunks.into_iter().try_for_each(|chunk| each(Listed::Chunk(chunk))),
        Node::Lists(level, children) => children.iter().try_for_each(|child| {
            walk_list(&child.id, (level, (child.chunks, Some(child.bytes))), source, each)
        }),
        Node::Leaf(_) | Node::Branch(..) => Ok(()),
    }
}

/// Chunks and bytes below a list node.
///
/// # Errors
/// `Damaged` when they are not those that were expected (bytes where they are known), or when it is no list
/// node below level `above`.
pub fn list_sums(node: &Node, above: u8, (chunks, bytes): (u64, Option<u64>)) -> Result<(u64, u64)> {
    let damaged = |why| Err(Error::damaged("a list of chunks", why));
    let found = match node {
        Node::Chunks(items) => sums(items.iter().map(|item| (1, u64::from(item.length)))),
        Node::Lists(level, children) if *level < above => {
            if children.iter().any(|child| child.chunks == 0) {
                return damaged("a part of it is empty");
            }
            sums(children.iter().map(|child| (child.chunks, child.bytes)))
        }
        _ => return damaged("it refers to a node of another kind"),
    };
    if found.0 == 0 || found.0 != chunks || bytes.is_some_and(|bytes| bytes != found.1) {
        return damaged("it does not have as many chunks and bytes as it should");
    }
    Ok(found)
}

/// Two sums at once; what overflows equals nothing that is true.
pub(super) fn sums(items: impl Iterator<Item = (u64, u64)>) -> (u64, u64) {
    items.fold((0, 0), |(one, two), (a, b)| (one.saturating_add(a), two.saturating_add(b)))
}
