//! The manifest as a tree: built from entries in path order, read back in the same order. Its shape
//! depends on its content alone, so an unchanged region has the nodes that it had before.

use crate::{
    crypto::NodeKey,
    error::{Error, Result},
    format::{
        entry::{ChunkRef, Content, Entry},
        node::{Child, INLINE_CHUNKS_MAX, ListChild, Node, compare_paths},
    },
    id::BlobId,
    limits,
};

/// A leaf is cut where the hash of a path is 0 modulo this: about so many entries in a leaf.
const LEAF_ENTRIES_AVERAGE: u64 = 128;
/// A leaf is cut at the latest after this many entries.
const LEAF_ENTRIES_MAX: usize = 1024;
/// A leaf is cut at the latest after about this many bytes of chunk ids and paths.
const LEAF_BYTES_MAX: usize = 256 << 10;
/// The same for branches.
const BRANCH_CHILDREN_AVERAGE: u64 = 64;
/// The same for branches.
const BRANCH_CHILDREN_MAX: usize = 1024;
/// The same for branches, by the bytes of their paths.
const BRANCH_BYTES_MAX: usize = 256 << 10;
/// The same for lists of chunks, by the bits of their ids.
const LIST_ITEMS_AVERAGE: u64 = 128;
/// The same for lists of chunks.
const LIST_ITEMS_MAX: usize = 1024;

/// Takes each finished node: its id and its plaintext.
pub trait NodeSink {
    /// # Errors
    /// It could not be stored.
    fn node(&mut self, id: BlobId, plain: Vec<u8>) -> Result<()>;
}

/// Gives nodes by their id, checked against it.
pub trait NodeSource {
    /// The plaintext of a node.
    ///
    /// # Errors
    /// It is missing or damaged.
    fn plain(&self, id: &BlobId) -> Result<Vec<u8>>;

    /// A node.
    ///
    /// # Errors
    /// It is missing or damaged.
    fn node(&self, id: &BlobId) -> Result<Node> {
        Node::decode(&self.plain(id)?)
    }
}

/// Builds a manifest. What it holds grows with the depth of the tree only.
#[derive(Debug)]
pub struct ManifestBuilder<'a> {
    key: &'a NodeKey,
    leaf: Vec<Entry>,
    leaf_bytes: usize,
    levels: Vec<Vec<Child>>,
}

fn emit(key: &NodeKey, sink: &mut dyn NodeSink, node: &Node) -> Result<BlobId> {
    let plain = node.encode();
    if plain.len() > limits::NODE_BYTES_MAX {
        return Err(Error::new(crate::error::ErrorKind::Failed, "a manifest node grew too large to be read"));
    }
    let id = key.id(&plain);
    sink.node(id, plain)?;
    Ok(id)
}

/// About how many bytes an entry takes, in memory or in a leaf.
#[must_use]
pub fn weight(entry: &Entry) -> usize {
    let chunks = match &entry.content {
        Content::Inline(chunks) => chunks.len(),
        Content::List { .. } => 1,
    };
    let attributes: usize = entry.metadata.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    entry.path.len() + entry.metadata.link_target.len() + attributes + chunks * 36 + 100
}

impl<'a> ManifestBuilder<'a> {
    /// An empty manifest under the node-id key of its domain.
    #[must_use]
    pub const fn new(key: &'a NodeKey) -> Self {
        Self { key, leaf: Vec::new(), leaf_bytes: 0, levels: Vec::new() }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// `Failed` when it does not come after the last one; what the sink says.
    pub fn push(&mut self, entry: Entry, sink: &mut dyn NodeSink) -> Result<()> {
        if entry.path.is_empty() || entry.path.len() > limits::PATH_BYTES_MAX {
            // A leaf that holds it could not be read again, nor could its neighbours.
            let length = entry.path.len();
            return Err(Error::new(
                crate::error::ErrorKind::Failed,
                format!("no manifest holds a path of {length} bytes"),
            ));
        }
        if let Some(last) = self.leaf.last() {
            if compare_paths(&last.path, &entry.path).is_ge() {
                let path = String::from_utf8_lossy(&entry.path).into_owned();
                return Err(Error::new(
                    crate::error::ErrorKind::Failed,
                    format!("/{path} came out of order"),
                ));
            }
            let cut = self.key.boundary(0, &entry.path).is_multiple_of(LEAF_ENTRIES_AVERAGE);
            if cut || self.leaf.len() >= LEAF_ENTRIES_MAX || self.leaf_bytes + weight(&entry) > LEAF_BYTES_MAX
            {
                self.flush_leaf(sink)?;
            }
        }
        self.leaf_bytes += weight(&entry);
        self.leaf.push(entry);
        Ok(())
    }

    fn flush_leaf(&mut self, sink: &mut dyn NodeSink) -> Result<()> {
        let entries = std::mem::take(&mut self.leaf);
        self.leaf_bytes = 0;
        let first = entries.first().map(|entry| entry.path.clone()).unwrap_or_default();
        let (count, bytes) = (entries.len() as u64, entries.iter().map(|entry| entry.metadata.size).sum());
        let id = emit(self.key, sink, &Node::Leaf(entries))?;
        self.push_child(0, Child { first, id, entries: count, bytes }, sink)
    }

    /// Adds a child to the branch that is open at `level`; a full branch goes up.
    fn push_child(&mut self, level: u8, child: Child, sink: &mut dyn NodeSink) -> Result<()> {
        let at = usize::from(level);
        if self.levels.len() == at {
            self.levels.push(Vec::new());
        }
        let open = &self.levels[at];
        let weight = |child: &Child| child.first.len() + 60;
        let full = open.len() >= BRANCH_CHILDREN_MAX
            || open.iter().chain([&child]).map(weight).sum::<usize>() > BRANCH_BYTES_MAX;
        let cut = self.key.boundary(level + 1, &child.first).is_multiple_of(BRANCH_CHILDREN_AVERAGE);
        // One child is no branch: without this a run of cuts would never come to a root.
        if open.len() > 1 && (cut || full) {
            self.flush_branch(level, sink)?;
        }
        self.levels[at].push(child);
        Ok(())
    }

    fn flush_branch(&mut self, level: u8, sink: &mut dyn NodeSink) -> Result<()> {
        if level >= limits::TREE_LEVELS_MAX {
            return Err(Error::new(crate::error::ErrorKind::Failed, "the manifest has too many levels"));
        }
        let children = std::mem::take(&mut self.levels[usize::from(level)]);
        let first = children.first().map(|child| child.first.clone()).unwrap_or_default();
        let entries = children.iter().map(|child| child.entries).sum();
        let bytes = children.iter().map(|child| child.bytes).sum();
        let id = emit(self.key, sink, &Node::Branch(level + 1, children))?;
        self.push_child(level + 1, Child { first, id, entries, bytes }, sink)
    }

    /// Closes the tree and gives its root, and how many levels of branches lie above its leaves.
    ///
    /// # Errors
    /// What the sink says.
    pub fn finish(mut self, sink: &mut dyn NodeSink) -> Result<(Child, u8)> {
        if !self.leaf.is_empty() || self.levels.is_empty() {
            self.flush_leaf(sink)?;
        }
        let mut level = 0;
        loop {
            let at = usize::from(level);
            let top = at + 1 == self.levels.len();
            if top && self.levels[at].len() == 1 {
                return Ok((self.levels[at].remove(0), level));
            }
            if !self.levels[at].is_empty() {
                self.flush_branch(level, sink)?;
            }
            level += 1;
        }
    }
}

/// Collects the chunks of one file; what it holds does not grow with the file.
#[derive(Debug, Default)]
pub struct ContentBuilder {
    chunks: Vec<ChunkRef>,
    lists: Vec<Vec<ListChild>>,
    total: u64,
}

impl ContentBuilder {
    /// Takes the next chunk.
    ///
    /// # Errors
    /// What the sink says.
    pub fn push(&mut self, chunk: ChunkRef, key: &NodeKey, sink: &mut dyn NodeSink) -> Result<()> {
        self.total += 1;
        self.chunks.push(chunk);
        let spills = self.total > INLINE_CHUNKS_MAX as u64;
        if spills && self.total == INLINE_CHUNKS_MAX as u64 + 1 {
            // The cuts of the first chunks are found now, as if they had been looked for at once.
            let first = std::mem::take(&mut self.chunks);
            for chunk in first {
                self.place(chunk, key, sink)?;
            }
            return Ok(());
        }
        if spills {
            self.chunks.pop();
            self.place(chunk, key, sink)?;
        }
        Ok(())
    }

    fn place(&mut self, chunk: ChunkRef, key: &NodeKey, sink: &mut dyn NodeSink) -> Result<()> {
        self.chunks.push(chunk);
        if cuts(&chunk.id, 0) || self.chunks.len() >= LIST_ITEMS_MAX {
            self.flush_chunks(key, sink)?;
        }
        Ok(())
    }

    fn flush_chunks(&mut self, key: &NodeKey, sink: &mut dyn NodeSink) -> Result<()> {
        let chunks = std::mem::take(&mut self.chunks);
        let bytes = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        let count = chunks.len() as u64;
        let id = emit(key, sink, &Node::Chunks(chunks))?;
        self.push_list(0, ListChild { id, chunks: count, bytes }, key, sink)
    }

    fn push_list(
        &mut self,
        level: u8,
        child: ListChild,
        key: &NodeKey,
        sink: &mut dyn NodeSink,
    ) -> Result<()> {
        let at = usize::from(level);
        if self.lists.len() == at {
            self.lists.push(Vec::new());
        }
        self.lists[at].push(child);
        let open = self.lists[at].len();
        if open > 1 && (cuts(&child.id, level + 1) || open >= LIST_ITEMS_MAX) {
            self.flush_list(level, key, sink)?;
        }
        Ok(())
    }

    fn flush_list(&mut self, level: u8, key: &NodeKey, sink: &mut dyn NodeSink) -> Result<()> {
        if level >= limits::TREE_LEVELS_MAX {
            return Err(Error::new(crate::error::ErrorKind::Failed, "a file has too many chunks"));
        }
        let children = std::mem::take(&mut self.lists[usize::from(level)]);
        let chunks = children.iter().map(|child| child.chunks).sum();
        let bytes = children.iter().map(|child| child.bytes).sum();
        let id = emit(key, sink, &Node::Lists(level + 1, children))?;
        self.push_list(level + 1, ListChild { id, chunks, bytes }, key, sink)
    }

    /// The content of the file.
    ///
    /// # Errors
    /// What the sink says.
    pub fn finish(mut self, key: &NodeKey, sink: &mut dyn NodeSink) -> Result<Content> {
        if self.total <= INLINE_CHUNKS_MAX as u64 {
            return Ok(Content::Inline(self.chunks));
        }
        if !self.chunks.is_empty() {
            self.flush_chunks(key, sink)?;
        }
        let mut level = 0;
        loop {
            let at = usize::from(level);
            if at + 1 == self.lists.len() && self.lists[at].len() == 1 {
                return Ok(Content::List { node: self.lists[at][0].id, chunks: self.total, level });
            }
            if !self.lists[at].is_empty() {
                self.flush_list(level, key, sink)?;
            }
            level += 1;
        }
    }
}

fn cuts(id: &BlobId, level: u8) -> bool {
    let bytes = id.as_bytes();
    let at = usize::from(level % 16);
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]])).is_multiple_of(LIST_ITEMS_AVERAGE)
}

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
            let mut left = *chunks;
            list_chunks(node, *level + 1, source, &mut |chunk| {
                left = left
                    .checked_sub(1)
                    .ok_or_else(|| Error::damaged("a list of chunks", "it has too many"))?;
                each(chunk)
            })?;
            if left == 0 { Ok(()) } else { Err(Error::damaged("a list of chunks", "it has too few")) }
        }
    }
}

fn list_chunks(
    id: &BlobId,
    above: u8,
    source: &dyn NodeSource,
    each: &mut dyn FnMut(ChunkRef) -> Result<()>,
) -> Result<()> {
    match source.node(id)? {
        Node::Chunks(chunks) => chunks.into_iter().try_for_each(each),
        Node::Lists(level, children) if level < above => {
            children.iter().try_for_each(|child| list_chunks(&child.id, level, source, each))
        }
        _ => Err(Error::damaged("a list of chunks", "it refers to a node of another kind")),
    }
}

/// Every node below a list, for those who must account for them.
///
/// # Errors
/// What the source says.
pub fn for_each_list_node(
    content: &Content,
    source: &dyn NodeSource,
    each: &mut dyn FnMut(BlobId),
) -> Result<()> {
    fn descend(id: &BlobId, above: u8, source: &dyn NodeSource, each: &mut dyn FnMut(BlobId)) -> Result<()> {
        each(*id);
        match source.node(id)? {
            Node::Chunks(_) => Ok(()),
            Node::Lists(level, children) if level < above => {
                children.iter().try_for_each(|child| descend(&child.id, level, source, each))
            }
            _ => Err(Error::damaged("a list of chunks", "it refers to a node of another kind")),
        }
    }
    match content {
        Content::Inline(_) => Ok(()),
        Content::List { node, level, .. } => descend(node, *level + 1, source, each),
    }
}

/// Reads a manifest in path order. What it holds grows with the depth of the tree only.
pub struct ManifestCursor<'a> {
    source: &'a dyn NodeSource,
    pending: Vec<(u8, std::vec::IntoIter<Child>)>,
    leaf: std::vec::IntoIter<Entry>,
    last: Vec<u8>,
    start: Vec<u8>,
    /// Gives each node that is read to whoever accounts for it.
    pub nodes_read: u64,
}

impl std::fmt::Debug for ManifestCursor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManifestCursor").finish_non_exhaustive()
    }
}

impl<'a> ManifestCursor<'a> {
    /// At the first entry of the tree below `root`.
    #[must_use]
    pub fn new(source: &'a dyn NodeSource, root: BlobId) -> Self {
        let child = Child { first: Vec::new(), id: root, entries: 0, bytes: 0 };
        let pending = vec![(limits::TREE_LEVELS_MAX + 1, vec![child].into_iter())];
        Self {
            source,
            pending,
            leaf: Vec::new().into_iter(),
            last: Vec::new(),
            start: Vec::new(),
            nodes_read: 0,
        }
    }

    /// At the first entry that is not before `path`; nodes that only hold earlier ones are not read.
    #[must_use]
    pub fn from(source: &'a dyn NodeSource, root: BlobId, path: &[u8]) -> Self {
        Self { start: path.to_vec(), ..Self::new(source, root) }
    }

    /// The path of the entry that was given last, for people.
    #[must_use]
    pub fn last_path(&self) -> String {
        String::from_utf8_lossy(&self.last).into_owned()
    }

    /// The next entry, `None` at the end. After an error it goes on behind the node that was at fault.
    ///
    /// # Errors
    /// A node is missing or damaged, or its paths are out of order.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                if !self.last.is_empty() && compare_paths(&self.last, &entry.path).is_ge() {
                    return Err(Error::damaged("a manifest", "its paths are out of order"));
                }
                self.last.clone_from(&entry.path);
                if !self.start.is_empty() {
                    if compare_paths(&entry.path, &self.start).is_lt() {
                        continue;
                    }
                    self.start.clear();
                }
                return Ok(Some(entry));
            }
            let Some((above, children)) = self.pending.last_mut() else { return Ok(None) };
            let above = *above;
            let Some(child) = children.next() else {
                self.pending.pop();
                continue;
            };
            let next = children.as_slice().first();
            if !self.start.is_empty()
                && next.is_some_and(|next| compare_paths(&next.first, &self.start).is_le())
            {
                continue;
            }
            self.nodes_read += 1;
            match self.source.node(&child.id)? {
                Node::Leaf(entries) => self.leaf = entries.into_iter(),
                Node::Branch(level, children) if level < above => {
                    self.pending.push((level, children.into_iter()));
                }
                _ => return Err(Error::damaged("a manifest", "it refers to a node of another kind")),
            }
        }
    }
}

/// Gives every entry at and below `path` (no leading slash; empty for all) in order.
///
/// # Errors
/// A node is missing or damaged; what `each` says.
pub fn for_each_entry(
    source: &dyn NodeSource,
    root: BlobId,
    path: &[u8],
    each: &mut dyn FnMut(Entry) -> Result<()>,
) -> Result<()> {
    let mut cursor = ManifestCursor::from(source, root, path);
    while let Some(entry) = cursor.next_entry()? {
        let below = entry.path.strip_prefix(path);
        if !below.is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.first() == Some(&b'/')) {
            break;
        }
        each(entry)?;
    }
    Ok(())
}
