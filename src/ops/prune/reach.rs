//! Which blobs the snapshots of a domain may use: one bit for each copy. A copy counts if any snapshot that reaches the
//! blob may use it, by the rule of backups: it is in its own section, or in one that a verifier vouches for. Where
//! there is no such copy that every key reads which could read this one and the snapshot, every copy counts: a restore tries them all.

use std::collections::{BTreeMap, HashSet};

use super::{bits::Bits, domain::Pruning};
use crate::{
    error::{Error, ErrorKind, Result},
    format::{entry::Content, node::Node, pack::PackKind},
    id::{BlobId, DomainId, IdentityId},
    limits,
    ops::{
        holding::copies,
        repair::{after_index, may_hide_packs},
    },
    repository::{
        index::{Index, Location, Standing},
        manifest::NodeSource,
        reader::NodeReader,
        snapshots::{KnownSnapshot, Roots},
        view::View,
    },
    store::Name,
};

/// What the snapshots need.
pub(super) struct Reached {
    /// By the number of the blob.
    blobs: Bits,
    /// Chunks that only packs hold that do not count: they are set aside, or were before they went, or have another size than the
    /// index says. A restore tries those too.
    pub(super) in_no_pack_that_counts: HashSet<BlobId>,
    /// Whether nodes are needed that only packs hold that are set aside.
    pub(super) rests_on_aside: bool,
    /// Blobs that snapshots lack which came too late and were replaced.
    pub(super) gaps: u64,
}

impl Reached {
    /// Nothing yet, of an index with so many blobs.
    fn nothing(blobs: usize) -> Self {
        let in_no_pack_that_counts = HashSet::new();
        Self { blobs: Bits::new(blobs), in_no_pack_that_counts, rests_on_aside: false, gaps: 0 }
    }

    /// Whether a snapshot may use the copy of this number.
    pub(super) fn copy(&self, number: usize) -> bool {
        self.blobs.get(number)
    }

    /// Whether a snapshot may use any of these.
    pub(super) fn any(&self, blobs: std::ops::Range<usize>) -> bool {
        self.blobs.any(blobs)
    }

    /// Whether a snapshot reaches the blob.
    pub(super) fn blob(&self, index: &Index, id: &BlobId) -> bool {
        index.unsorted(id).any(|at| self.copy(index.blob_number(at)))
    }
}

/// A blob that stands in more places is looked up once: an index that names one chunk a million times would else cost
/// as much for each reference to it.
const CROWD: usize = 64;

/// Walks the manifests of all snapshots. For each identity every node is read once. Nothing when the time was up.
///
/// # Errors
/// `Damaged` when something that a snapshot needs is missing or damaged, and no pack that is set aside has had it;
/// storage trouble.
pub(super) fn reach(pruning: &Pruning<'_>, view: &View, roots: &Roots) -> Result<Option<Reached>> {
    let (repository, domain) = (pruning.repository, pruning.id);
    let mut by_identity: BTreeMap<IdentityId, Vec<&KnownSnapshot>> = BTreeMap::new();
    for known in &roots.known {
        by_identity.entry(known.name.identity).or_default().push(known);
    }
    let mut reached: Option<Reached> = None;
    for (identity, mut snapshots) in by_identity {
        // What a replaced one lacks is no reason to take what others share with it for walked; and what more keys can read
        // needs more.
        snapshots.sort_by_key(|known| (roots.replaced.contains(&known.name.id), known.epoch));
        let mut nodes = NodeReader::new(repository, domain, &view.index)?;
        nodes.serve(identity);
        let mut walk = Walk {
            pruning,
            view,
            domain,
            identity,
            nodes,
            copies: Vec::new(),
            crowds: HashSet::new(),
            reached: Reached::nothing(view.index.blobs()),
            gaps: Gaps::Fail,
            epoch: 0,
        };
        for known in snapshots {
            walk.epoch = known.epoch;
            walk.gaps = if roots.replaced.contains(&known.name.id) { Gaps::Count } else { Gaps::Fail };
            let walked = walk.tree(Kind::Manifest, known.record.levels, known.record.root);
            if walked.map_err(|error| in_doubt(error, known, (pruning, view)))? == Walked::NoTime {
                return Ok(None);
            }
        }
        match &mut reached {
            None => reached = Some(walk.reached),
            Some(all) => {
                all.blobs.join(&walk.reached.blobs);
                all.in_no_pack_that_counts.extend(walk.reached.in_no_pack_that_counts);
                all.rests_on_aside |= walk.reached.rests_on_aside;
                all.gaps += walk.reached.gaps;
            }
        }
    }
    Ok(Some(reached.unwrap_or_else(|| Reached::nothing(0))))
}

fn in_doubt(error: Error, known: &KnownSnapshot, (pruning, view): (&Pruning<'_>, &View)) -> Error {
    if error.kind() != ErrorKind::Damaged {
        return error;
    }
    let key = known.name.identity.short();
    let remedy = format!(
        "Look at it with `lifeboat check`, and let `lifeboat repair snapshots` with an owner's key copy what is left of it. If the \
         rest does not come back, end that snapshot with `lifeboat forget` (the newest of a key ends when there is a newer one; \
         that of a lost machine with `lifeboat key revoke {key} --last-good NUMBER`), or, where a pack of files is lost, set that \
         aside with `lifeboat repair quarantine NAME --force`: then it is known that chunks of files are lost"
    );
    let remedy = after_index(may_hide_packs(pruning.repository, &pruning.id, view), &remedy);
    error.context(format!("the snapshot {}", known.name.name)).with_remedy(remedy)
}

/// What to do about something that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gaps {
    Fail,
    /// It is known that there may be some.
    Count,
}

/// How far a walk came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walked {
    Whole,
    NoTime,
}

/// What a node is a part of.
#[derive(Clone, Copy)]
enum Kind {
    /// The tree of entries.
    Manifest,
    /// The chunks of a large file.
    List,
}

struct Walk<'a> {
    pruning: &'a Pruning<'a>,
    view: &'a View,
    domain: DomainId,
    identity: IdentityId,
    nodes: NodeReader<'a>,
    copies: Vec<(Location, bool)>,
    /// Blobs with very many copies, by their lengths, that were looked up.
    crowds: HashSet<(BlobId, Option<u32>)>,
    reached: Reached,
    gaps: Gaps,
    /// The key epoch of the snapshot.
    epoch: u32,
}

impl Walk<'_> {
    /// Everything below a node. What waits is bounded by the depth of the tree and the children of a node.
    fn tree(&mut self, kind: Kind, level: u8, root: BlobId) -> Result<Walked> {
        let mut waiting = vec![(kind, level, root)];
        while let Some((kind, level, id)) = waiting.pop() {
            self.pruning.repository.store.progress().check()?;
            if self.pruning.time_is_up() {
                return Ok(Walked::NoTime);
            }
            if level > limits::TREE_LEVELS_MAX {
                return Err(Error::damaged(format!("node {id}"), "it is deeper than any tree may be"));
            }
            if !self.mark(&id, PackKind::Metadata, None)? {
                continue;
            }
            let node = match self.nodes.node(&id) {
                Err(error) if self.gaps == Gaps::Count && error.kind() == ErrorKind::Damaged => {
                    self.reached.gaps += 1;
                    continue;
                }
                node => node?,
            };
            match (kind, node) {
                (Kind::Manifest, Node::Leaf(entries)) if level == 0 => {
                    for entry in entries.into_iter().rev() {
                        match entry.content {
                            Content::Inline(chunks) => {
                                for chunk in chunks {
                                    self.mark(&chunk.id, PackKind::Data, Some(chunk.length))?;
                                }
                            }
                            Content::List { node, level, .. } => waiting.push((Kind::List, level, node)),
                        }
                    }
                }
                (Kind::Manifest, Node::Branch(found, children)) if found == level && level > 0 => {
                    waiting.extend(children.iter().rev().map(|child| (kind, level - 1, child.id)));
                }
                (Kind::List, Node::Chunks(chunks)) if level == 0 => {
                    for chunk in chunks {
                        self.mark(&chunk.id, PackKind::Data, Some(chunk.length))?;
                    }
                }
                (Kind::List, Node::Lists(found, children)) if found == level && level > 0 => {
                    waiting.extend(children.iter().rev().map(|child| (kind, level - 1, child.id)));
                }
                _ => {
                    return Err(Error::damaged(
                        format!("node {id}"),
                        "it is not of the kind that refers to it",
                    ));
                }
            }
        }
        Ok(Walked::Whole)
    }

    /// Marks every copy that this snapshot may use; every copy if there is none. Says whether that was new.
    fn mark(&mut self, id: &BlobId, kind: PackKind, length: Option<u32>) -> Result<bool> {
        let index = &self.view.index;
        if !self.crowds.is_empty() && self.crowds.contains(&(*id, length)) {
            return Ok(false);
        }
        index.copies_there((id, kind), self.identity, &mut self.copies);
        if self.copies.len() > CROWD {
            self.crowds.insert((*id, length));
        }
        if let Some(length) = length {
            self.copies.retain(|(at, _)| index.blob(*at).is_some_and(|blob| blob.length == length));
        }
        if self.copies.is_empty() {
            return self.lost(id, kind);
        }
        // One that may not be used is superfluous if one that may is read by every key that could read it, and the snapshot.
        let serving = self.copies.iter().filter(|(_, serves)| *serves);
        let oldest = serving.filter_map(|(at, _)| index.epoch(*at)).min();
        let mut is_new = false;
        for (at, serves) in &self.copies {
            let reads = |oldest| index.epoch(*at).is_some_and(|epoch| oldest <= epoch.max(self.epoch));
            if !serves && oldest.is_some_and(reads) {
                continue;
            }
            if kind == PackKind::Metadata {
                is_alone(index, id, *at)?;
            }
            is_new |= self.reached.blobs.set(index.blob_number(*at));
        }
        Ok(is_new)
    }

    fn lost(&mut self, id: &BlobId, kind: PackKind) -> Result<bool> {
        let index = &self.view.index;
        if kind == PackKind::Metadata
            && let Some((at, _)) = copies(index, (id, kind), |standing| standing == Standing::SetAside).next()
        {
            // It may be good there, and then tells what it needs. The pack stays in any case.
            is_alone(index, id, at)?;
            self.reached.rests_on_aside = true;
            return Ok(self.reached.blobs.set(index.blob_number(at)));
        }
        let is_set_aside = |at: Location| {
            let name = index.pack_at(at).map(|pack| Name::pack(&self.domain, pack.kind, &pack.id));
            name.is_some_and(|name| self.view.quarantined.contains(name.as_str()))
        };
        // Chunks of a file have nothing below them that could be needed.
        if kind == PackKind::Data && index.locations(id).into_iter().any(is_set_aside) {
            self.reached.in_no_pack_that_counts.insert(*id);
            return Ok(false);
        }
        if self.gaps == Gaps::Count {
            self.reached.gaps += 1;
            return Ok(false);
        }
        let what = match kind {
            PackKind::Data => "chunk",
            PackKind::Metadata => "manifest node",
        };
        Err(Error::damaged(format!("{what} {id}"), "no pack that is there holds it"))
    }
}

/// Refuses nodes that share a frame: a metadata frame is one node, so whoever wrote this index did not write by the format.
fn is_alone(index: &Index, id: &BlobId, at: Location) -> Result<()> {
    if index.blobs_beside(at) == Some(1) {
        return Ok(());
    }
    Err(Error::damaged(format!("node {id}"), "a frame of an index has several nodes"))
}
