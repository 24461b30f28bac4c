//! What chunks of the source are called in the target: each chunk that is known need not be read again.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use super::frames::lock;
use crate::{
    error::{Error, Result},
    format::{
        entry::{ChunkRef, Content},
        node::Node,
    },
    id::BlobId,
    repository::manifest::list_sums,
};

/// So many names are known at a time, each about 100 bytes; then all are forgotten, and what is met again is read
/// again.
const NAMES_MAX: usize = 1 << 18;

/// Names of chunks in the target.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<BlobId, ChunkRef>>);

impl Names {
    pub(super) fn get(&self, chunk: &ChunkRef) -> Option<ChunkRef> {
        lock(&self.0).get(&chunk.id).copied().filter(|known| known.length == chunk.length)
    }

    pub(super) fn learn(&self, chunk: &ChunkRef, name: ChunkRef) {
        let mut names = lock(&self.0);
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(chunk.id, name);
    }
}

/// The chunks of a content, one after the other. What it holds does not grow with the content.
#[derive(Debug)]
pub(super) struct Chunks {
    /// List nodes that are to be read, the next one last: the level above, and what must be below.
    lists: Vec<(BlobId, u8, (u64, Option<u64>))>,
    ready: VecDeque<ChunkRef>,
}

impl Chunks {
    pub(super) fn of(content: Content) -> Self {
        match content {
            Content::Inline(chunks) => Self { lists: Vec::new(), ready: chunks.into() },
            Content::List { node, chunks, level } => {
                Self { lists: vec![(node, level + 1, (chunks, None))], ready: VecDeque::new() }
            }
        }
    }

    /// The next chunk, given what reads nodes.
    ///
    /// # Errors
    /// What `read` says; `Damaged` for a list that does not add up.
    pub(super) fn next(&mut self, read: &dyn Fn(&BlobId) -> Result<Node>) -> Result<Option<ChunkRef>> {
        while self.ready.is_empty() {
            let Some((id, above, expected)) = self.lists.pop() else { return Ok(None) };
            let node = read(&id)?;
            list_sums(&node, above, expected)?;
            match node {
                Node::Chunks(chunks) => self.ready = chunks.into(),
                Node::Lists(level, children) => {
                    let children = children.iter().rev();
                    self.lists
                        .extend(children.map(|child| (child.id, level, (child.chunks, Some(child.bytes)))));
                }
                Node::Leaf(_) | Node::Branch(..) => {
                    return Err(Error::damaged("a list of chunks", "it is none"));
                }
            }
        }
        Ok(self.ready.pop_front())
    }
}
