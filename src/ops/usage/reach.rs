//! Who reaches what in one domain. The manifests of all snapshots are read level by level, the highest
//! first: when the turn of a level comes, everybody who reaches a node of it is known, so each node is read
//! once, however many snapshots and clients share it. Then the lists of chunks in the same way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    NAMED_MAX,
    rows::{By, Rows},
    sets::{NOBODY, Sets},
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        entry::{ChunkRef, Content, Entry, EntryKind},
        node::Node,
        pack::Blob,
    },
    id::{BlobId, IdentityId, PackId},
    limits,
    repository::{
        Repository,
        index::{Index, Location, Standing},
        manifest::NodeSource,
    },
};

/// The set of all rows, where a report does not tell them apart: the manifests, when it is by path.
const REACHED: u32 = u32::MAX;
const LEVELS: usize = limits::TREE_LEVELS_MAX as usize + 1;

/// What the walk found of one domain.
#[derive(Default)]
pub(super) struct Reached {
    /// For each blob of the index the set of rows that reach it; nobody for most.
    marks: Vec<u32>,
    pub(super) nodes: u64,
    /// Blobs that only packs hold which are to die.
    pub(super) dying: u64,
    /// Reached blobs that only packs hold which are set aside.
    pub(super) aside: u64,
    /// The first blobs that no pack holds which is there.
    pub(super) lost: BTreeSet<BlobId>,
    /// The first things that are wrong with manifests.
    pub(super) problems: Vec<Error>,
}

impl Reached {
    fn problem(&mut self, error: Error) {
        if self.problems.len() < NAMED_MAX {
            self.problems.push(error);
        }
    }

    /// The rows that reach a blob; `None` for nobody.
    pub(super) fn rows(&self, blob: usize) -> Option<Whose> {
        match self.marks.get(blob) {
            None | Some(&NOBODY) => None,
            Some(&REACHED) => Some(Whose::Everybody),
            Some(set) => Some(Whose::Rows(*set)),
        }
    }
}

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Of no row: the report does not divide them.
    Everybody,
    /// Of this set of rows.
    Rows(u32),
}

/// Somebody whose snapshots are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reacher {
    /// Decides which copy of a blob is used.
    pub(super) identity: IdentityId,
    /// The row of a report by client.
    pub(super) row: u32,
}

/// The root of one snapshot.
pub(super) struct Root {
    pub(super) node: BlobId,
    pub(super) level: u8,
    /// Number of its reacher.
    pub(super) who: u32,
}

/// A node that waits for its turn.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// The set of reachers.
    who: u32,
    /// The set of rows that the chunks below belong to; of a tree only its leaves know.
    rows: u32,
    /// In how many snapshots it is.
    snapshots: u64,
}

/// What a node is a part of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The tree of entries.
    Manifest,
    /// The chunks of a large file.
    List,
}

type Waiting = [BTreeMap<Location, Pending>; LEVELS];

/// Walks the manifests of one domain.
pub(super) struct Walk<'a> {
    repository: &'a Repository,
    index: &'a Index,
    nodes: &'a dyn NodeSource,
    by: By,
    reachers: &'a [Reacher],
    rows: &'a mut Rows,
    who: Sets,
    rows_of: HashMap<u32, u32>,
    listings: HashMap<PackId, (u32, u32)>,
    manifests: Waiting,
    lists: Waiting,
    reached: Reached,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        (index, nodes): (&'a Index, &'a dyn NodeSource),
        (by, reachers): (By, &'a [Reacher]),
        rows: &'a mut Rows,
    ) -> Self {
        let mut listings = HashMap::new();
        for pack in index.packs() {
            listings.entry(pack.id).or_insert(pack.listing());
        }
        let reached = Reached { marks: vec![NOBODY; index.blobs()], ..Reached::default() };
        let (who, rows_of) = (Sets::new(), HashMap::new());
        let (manifests, lists) = Default::default();
        Self {
            repository,
            index,
            nodes,
            by,
            reachers,
            rows,
            who,
            rows_of,
            listings,
            manifests,
            lists,
            reached,
        }
    }

    /// Looks at everything that these snapshots reach.
    ///
    /// # Errors
    /// Storage trouble; too many rows. What is damaged or missing is in the result.
    pub(super) fn run(mut self, roots: &[Root]) -> Result<Reached> {
        for root in roots {
            let who = self.who.of(vec![root.who])?;
            let pending = Pending { who, rows: NOBODY, snapshots: 1 };
            self.wait(Kind::Manifest, root.level, (&root.node, pending))?;
        }
        // The nodes of a lower level join while those above it are read.
        for level in (0..=limits::TREE_LEVELS_MAX).rev() {
            while let Some((at, pending)) = next(&mut self.manifests, level) {
                if let Some(node) = self.read(at, pending.who)? {
                    self.manifest_node(level, node, pending)?;
                }
            }
        }
        for level in (0..=limits::TREE_LEVELS_MAX).rev() {
            while let Some((at, pending)) = next(&mut self.lists, level) {
                if let Some(node) = self.read(at, pending.who)? {
                    self.list_node(level, node, pending)?;
                }
            }
        }
        Ok(self.reached)
    }

    /// Somebody more reaches a node of this level.
    fn wait(&mut self, kind: Kind, level: u8, (id, pending): (&BlobId, Pending)) -> Result<()> {
        let Some(at) = self.index.locations(id).into_iter().find(|at| self.counts(*at, None)) else {
            self.lose(id);
            return Ok(());
        };
        let waiting = match kind {
            Kind::Manifest => &mut self.manifests,
            Kind::List => &mut self.lists,
        };
        let Some(waiting) = waiting.get_mut(usize::from(level)) else { return Ok(()) };
        let Pending { who, rows, snapshots } = pending;
        let known = waiting.entry(at).or_insert(Pending { who: NOBODY, rows: NOBODY, snapshots: 0 });
        known.who = self.who.join(known.who, who)?;
        known.rows = self.rows.sets.join(known.rows, rows)?;
        known.snapshots += snapshots;
        Ok(())
    }

    fn manifest_node(&mut self, level: u8, node: Node, pending: Pending) -> Result<()> {
        match node {
            Node::Leaf(entries) if level == 0 => {
                self.repository.store.progress().add(entries.len() as u64, 0);
                entries.iter().try_for_each(|entry| self.entry(entry, pending))
            }
            Node::Branch(found, children) if found == level => children
                .iter()
                .try_for_each(|child| self.wait(Kind::Manifest, level - 1, (&child.id, pending))),
            _ => {
                self.reached.problem(Error::damaged("a manifest", "it refers to a node of another kind"));
                Ok(())
            }
        }
    }

    fn list_node(&mut self, level: u8, node: Node, pending: Pending) -> Result<()> {
        match node {
            Node::Chunks(chunks) if level == 0 => chunks.iter().try_for_each(|c| self.chunk(c, pending)),
            Node::Lists(found, children) if found == level => {
                children.iter().try_for_each(|child| self.wait(Kind::List, level - 1, (&child.id, pending)))
            }
            _ => {
                let why = "it refers to a node of another kind";
                self.reached.problem(Error::damaged("a list of chunks", why));
                Ok(())
            }
        }
    }

    fn entry(&mut self, entry: &Entry, mut pending: Pending) -> Result<()> {
        if let By::Path(depth) = self.by
            && entry.metadata.kind == EntryKind::File
        {
            let row = self.rows.folder(&entry.path, depth)?;
            // What could not be read takes no room.
            if entry.error.is_none() {
                self.rows.add_logical(row, entry.metadata.size.saturating_mul(pending.snapshots));
            }
            pending.rows = self.rows.sets.of(vec![row])?;
        }
        match &entry.content {
            Content::Inline(chunks) => chunks.iter().try_for_each(|chunk| self.chunk(chunk, pending)),
            Content::List { node, level, .. } => self.wait(Kind::List, *level, (node, pending)),
        }
    }

    fn chunk(&mut self, chunk: &ChunkRef, pending: Pending) -> Result<()> {
        for (at, who) in self.copies(&chunk.id, pending.who, Some(chunk.length))? {
            let rows = match self.by {
                By::Client => self.rows_of(who)?,
                By::Path(_) => pending.rows,
            };
            self.mark(at, rows)?;
        }
        Ok(())
    }

    /// The set of rows of a set of reachers.
    fn rows_of(&mut self, who: u32) -> Result<u32> {
        if let Some(rows) = self.rows_of.get(&who) {
            return Ok(*rows);
        }
        let reachers = self.who.members(who).iter().filter_map(|who| self.reachers.get(*who as usize));
        let rows = self.rows.sets.of(reachers.map(|reacher| reacher.row).collect())?;
        self.rows_of.insert(who, rows);
        Ok(rows)
    }

    fn mark(&mut self, at: Location, rows: u32) -> Result<()> {
        let number = self.index.blob_number(at);
        let before = self.reached.marks.get(number).copied().unwrap_or(NOBODY);
        if before == NOBODY {
            match self.index.standing(at) {
                Some(Standing::Tombstoned) => self.reached.dying += 1,
                Some(Standing::SetAside) => self.reached.aside += 1,
                _ => {}
            }
        }
        let joined = if rows == REACHED { REACHED } else { self.rows.sets.join(before, rows)? };
        if let Some(mark) = self.reached.marks.get_mut(number) {
            *mark = joined;
        }
        Ok(())
    }

    /// A node, when its turn has come.
    fn read(&mut self, at: Location, who: u32) -> Result<Option<Node>> {
        self.repository.store.progress().check()?;
        let Some(Blob { id, .. }) = self.index.blob(at) else { return Ok(None) };
        for (at, who) in self.copies(&id, who, None)? {
            let rows = match self.by {
                By::Client => self.rows_of(who)?,
                By::Path(_) => REACHED,
            };
            self.mark(at, rows)?;
        }
        self.reached.nodes += 1;
        match self.nodes.node(&id) {
            Ok(node) => Ok(Some(node)),
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                self.reached.problem(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Which copies of a blob these reachers use, by the rule of a restore, and who of them each.
    fn copies(&mut self, id: &BlobId, who: u32, length: Option<u32>) -> Result<Vec<(Location, u32)>> {
        let mut all = self.index.locations(id);
        all.retain(|at| self.counts(*at, length));
        match all[..] {
            [] => {
                self.lose(id);
                return Ok(Vec::new());
            }
            [at] => return Ok(vec![(at, who)]),
            _ => {}
        }
        let mut chosen: BTreeMap<Location, Vec<u32>> = BTreeMap::new();
        for member in self.who.members(who) {
            let Some(reacher) = self.reachers.get(*member as usize) else { continue };
            let copies = self.index.copies(id, reacher.identity);
            if let Some(at) = copies.into_iter().find(|at| self.counts(*at, length)) {
                chosen.entry(at).or_default().push(*member);
            }
        }
        chosen.into_iter().map(|(at, members)| Ok((at, self.who.of(members)?))).collect()
    }

    /// Whether there is something to read, in the first listing of its pack, as long as it should be.
    fn counts(&self, at: Location, length: Option<u32>) -> bool {
        let Some(pack) = self.index.pack_at(at) else { return false };
        pack.standing != Standing::Missing
            && self.listings.get(&pack.id) == Some(&pack.listing())
            && length.is_none_or(|length| self.index.blob(at).is_some_and(|blob| blob.length == length))
    }

    fn lose(&mut self, id: &BlobId) {
        if self.reached.lost.len() < NAMED_MAX {
            self.reached.lost.insert(*id);
        }
    }
}

fn next(waiting: &mut Waiting, level: u8) -> Option<(Location, Pending)> {
    waiting.get_mut(usize::from(level))?.pop_first()
}
