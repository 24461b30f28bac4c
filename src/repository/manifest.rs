//! The manifest as a tree: built from entries in path order, read back in the same order. Its shape
//! depends on its content alone, so an unchanged region has the nodes that it had before.

use std::collections::HashMap;

use super::content::sums;
pub use super::content::{for_each_chunk, for_each_list_node, list_sums};
use crate::{
    crypto::NodeKey,
    error::{Error, Result},
    format::{
        entry::{ChunkRef, Content, Entry, Metadata},
        node::{Child, INLINE_CHUNKS_MAX, ListChild, Node, compare_paths, is_path},
    },
    id::BlobId,
    limits,
};

/// So much of a path is told that no manifest can hold.
const PATH_BYTES_SHOWN: usize = 200;
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

/// Gives nodes by their id, checked against it, to whichever thread asks.
pub trait NodeSource: Sync {
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
    let Metadata { link_target, holes, .. } = &entry.metadata;
    entry.path.len() + link_target.len() + attributes + chunks * 36 + holes.len() * 16 + 100
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
    /// `Failed` when it does not come after the last one, or has a path that none may have; what the sink says.
    pub fn push(&mut self, entry: Entry, sink: &mut dyn NodeSink) -> Result<()> {
        if !is_path(&entry.path) {
            // A leaf that holds it could not be read again, nor could its neighbours.
            let (length, begin) =
                (entry.path.len(), entry.path.get(..PATH_BYTES_SHOWN).unwrap_or(&entry.path));
            let what =
                format!("no manifest holds the path /{} of {length} bytes", String::from_utf8_lossy(begin));
            return Err(Error::new(crate::error::ErrorKind::Failed, what));
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
        // Sparse files may claim as much as a number can hold, each.
        let (count, bytes) = sums(entries.iter().map(|entry| (1, entry.metadata.size)));
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
        let (entries, bytes) = sums(children.iter().map(|child| (child.entries, child.bytes)));
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

/// Nodes that were read, each under what it is and where it begins, with the entries and bytes below it.
pub type Accounts = HashMap<[u8; 32], (u64, u64)>;

/// A node at the path where its branch says that it begins. At another path it is read again: what was good
/// there may not be good here.
fn place(child: &Child) -> [u8; 32] {
    *blake3::Hasher::new().update(child.id.as_bytes()).update(&child.first).finalize().as_bytes()
}

/// What a cursor comes to next.
#[derive(Debug)]
pub enum Ahead<'c> {
    /// This entry.
    Entry(&'c Entry),
    /// A node that is not read yet, below a branch of this level.
    Node(&'c Child, u8),
    /// Nothing.
    End,
}

/// A branch that the cursor is in.
struct Open {
    level: u8,
    children: std::vec::IntoIter<Child>,
    /// None of its children was taken yet.
    fresh: bool,
}

/// Reads a manifest in path order. What it holds grows with the depth of the tree only. Each node that is
/// tried lies behind the one before it, so a manifest that repeats itself comes to an end.
pub struct ManifestCursor<'a> {
    source: &'a dyn NodeSource,
    pending: Vec<Open>,
    leaf: std::vec::IntoIter<Entry>,
    last: Vec<u8>,
    /// Where the node that was tried last begins.
    tried: Vec<u8>,
    /// Where what was read or tried ends.
    reached: Vec<u8>,
    start: Vec<u8>,
    accounts: Option<Accounts>,
    /// How many nodes were read so far.
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
        let level = limits::TREE_LEVELS_MAX + 1;
        Self {
            source,
            pending: vec![Open { level, children: vec![child].into_iter(), fresh: true }],
            leaf: Vec::new().into_iter(),
            last: Vec::new(),
            tried: Vec::new(),
            reached: Vec::new(),
            start: Vec::new(),
            accounts: None,
            nodes_read: 0,
        }
    }

    /// At the first entry that is not before `path`; nodes that only hold earlier ones are not read.
    #[must_use]
    pub fn from(source: &'a dyn NodeSource, root: BlobId, path: &[u8]) -> Self {
        Self { start: path.to_vec(), ..Self::new(source, root) }
    }

    /// Leaves out what is below nodes that are accounted for already, adds those that it reads, and
    /// compares the sums in branches with what is below them.
    #[must_use]
    pub fn accounting(source: &'a dyn NodeSource, root: BlobId, accounts: Accounts) -> Self {
        Self { accounts: Some(accounts), ..Self::new(source, root) }
    }

    /// What it was told and has added.
    #[must_use]
    pub fn into_accounts(self) -> Accounts {
        self.accounts.unwrap_or_default()
    }

    /// The path of the entry that was given last, for people.
    #[must_use]
    pub fn last_path(&self) -> String {
        String::from_utf8_lossy(&self.last).into_owned()
    }

    /// What comes next, which [`Self::next_entry`], [`Self::descend`] or [`Self::skip`] takes.
    pub fn peek(&mut self) -> Ahead<'_> {
        self.pass_what_is_before();
        if let Some(entry) = self.leaf.as_slice().first() {
            return Ahead::Entry(entry);
        }
        match self.pending.last() {
            None => Ahead::End,
            Some(open) => {
                open.children.as_slice().first().map_or(Ahead::End, |child| Ahead::Node(child, open.level))
            }
        }
    }

    /// Passes branches that are at their end, and what is before the path that was asked for.
    fn pass_what_is_before(&mut self) {
        let Self { leaf, pending, start, .. } = self;
        let is_before = |path: &[u8]| !start.is_empty() && compare_paths(path, start).is_lt();
        while leaf.as_slice().first().is_some_and(|entry| is_before(&entry.path)) {
            leaf.next();
        }
        while leaf.as_slice().is_empty() {
            let Some(open) = pending.last_mut() else { return };
            match open.children.as_slice() {
                [] => drop(pending.pop()),
                [_, next, ..] if !start.is_empty() && compare_paths(&next.first, start).is_le() => {
                    open.fresh = false;
                    open.children.next();
                }
                _ => return,
            }
        }
    }

    /// Reads the node that comes next, if one does.
    ///
    /// # Errors
    /// As [`Self::next_entry`].
    pub fn descend(&mut self) -> Result<()> {
        let Some(open) = self.pending.last_mut().filter(|_| self.leaf.as_slice().is_empty()) else {
            return Ok(());
        };
        let Some(child) = open.children.next() else { return Ok(()) };
        let (level, fresh) = (open.level, std::mem::take(&mut open.fresh));
        self.enter(&child, level, fresh)
    }

    /// Leaves out the node that comes next, if one does.
    pub fn skip(&mut self) {
        let Some(open) = self.pending.last_mut().filter(|_| self.leaf.as_slice().is_empty()) else { return };
        open.fresh = false;
        if let Some(child) = open.children.next() {
            self.reached.clone_from(&child.first);
            self.tried = child.first;
        }
    }

    /// Where the node that was tried last begins.
    #[must_use]
    pub fn tried(&self) -> &[u8] {
        &self.tried
    }

    /// The next entry, `None` at the end. After an error it goes on behind the node that was at fault.
    ///
    /// # Errors
    /// A node is missing or damaged, or its paths are out of order.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                if !self.start.is_empty() {
                    if compare_paths(&entry.path, &self.start).is_lt() {
                        continue;
                    }
                    self.start.clear();
                }
                self.last.clone_from(&entry.path);
                return Ok(Some(entry));
            }
            let Some(open) = self.pending.last_mut() else { return Ok(None) };
            let Some(child) = open.children.next() else {
                self.pending.pop();
                continue;
            };
            let (level, fresh) = (open.level, std::mem::take(&mut open.fresh));
            let next = open.children.as_slice().first();
            if !self.start.is_empty()
                && next.is_some_and(|next| compare_paths(&next.first, &self.start).is_le())
            {
                continue;
            }
            self.enter(&child, level, fresh)?;
        }
    }

    /// Reads a node. It has to begin where its branch says, behind everything before it: only the first
    /// child of a branch begins where the branch does.
    fn enter(&mut self, child: &Child, above: u8, is_first: bool) -> Result<()> {
        self.tried.clone_from(&child.first);
        if !is_first && compare_paths(&child.first, &self.reached).is_le() {
            return Err(Error::damaged("a manifest", "its paths are out of order"));
        }
        self.reached.clone_from(&child.first);
        let is_root = child.first.is_empty();
        let promised = (child.entries, child.bytes);
        let known = self.accounts.as_ref().and_then(|accounts| accounts.get(&place(child)));
        if let Some(found) = known {
            return if is_root { Ok(()) } else { same_sums(promised, *found) };
        }
        self.nodes_read += 1;
        let node = self.source.node(&child.id)?;
        let (first, found) = match &node {
            Node::Leaf(entries) => (
                entries.first().map(|entry| &entry.path),
                sums(entries.iter().map(|entry| (1, entry.metadata.size))),
            ),
            Node::Branch(level, children) if *level < above => (
                children.first().map(|child| &child.first),
                sums(children.iter().map(|child| (child.entries, child.bytes))),
            ),
            _ => return Err(Error::damaged("a manifest", "it refers to a node of another kind")),
        };
        if !is_root && first.is_some_and(|first| *first != child.first) {
            return Err(Error::damaged(
                "a manifest",
                "a node of it begins at another path than its branch says",
            ));
        }
        match node {
            Node::Leaf(entries) => {
                if let Some(last) = entries.last() {
                    self.reached.clone_from(&last.path);
                }
                self.leaf = entries.into_iter();
            }
            Node::Branch(level, children) => {
                self.pending.push(Open { level, children: children.into_iter(), fresh: true });
            }
            Node::Chunks(_) | Node::Lists(..) => {}
        }
        let Some(accounts) = &mut self.accounts else { return Ok(()) };
        accounts.insert(place(child), found);
        // What is below is given all the same.
        if is_root { Ok(()) } else { same_sums(promised, found) }
    }
}

fn same_sums(promised: (u64, u64), found: (u64, u64)) -> Result<()> {
    if promised == found {
        return Ok(());
    }
    let ((entries, bytes), (found_entries, found_bytes)) = (promised, found);
    let why = format!(
        "a branch of it promises {entries} entries and {bytes} bytes where there are {found_entries} and {found_bytes}"
    );
    Err(Error::damaged("a manifest", why))
}

/// A part of a manifest that cannot be read.
#[derive(Debug)]
pub struct Gap {
    /// The path where it begins; empty when nothing of the manifest can be read.
    pub first: Vec<u8>,
    /// What is wrong.
    pub error: Error,
}

/// Gives every entry at and below `path` (no leading slash; empty for all) in order, and in their places the
/// parts that are damaged and may hold more: one never hides what comes after it.
///
/// # Errors
/// What `each` says; trouble that is no damage.
pub fn for_each_entry(
    source: &dyn NodeSource,
    root: BlobId,
    path: &[u8],
    each: &mut dyn FnMut(std::result::Result<Entry, Gap>) -> Result<()>,
) -> Result<()> {
    let at_or_below = |found: &[u8]| {
        let rest = found.strip_prefix(path);
        rest.is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.first() == Some(&b'/'))
    };
    let mut cursor = ManifestCursor::from(source, root, path);
    loop {
        match cursor.next_entry() {
            Ok(Some(entry)) if at_or_below(&entry.path) => each(Ok(entry))?,
            Ok(_) => return Ok(()),
            Err(error) if error.is_damage() => {
                let first = cursor.tried.clone();
                if !at_or_below(&first) && compare_paths(&first, path).is_gt() {
                    return Ok(());
                }
                each(Err(Gap { first, error }))?;
            }
            Err(error) => return Err(error),
        }
    }
}
