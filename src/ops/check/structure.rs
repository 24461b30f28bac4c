//! Walks manifests: every node, every list and every chunk. What was seen to be good is not looked at again.

use std::collections::{HashMap, HashSet};

use super::{BadBlobs, Checked, MissedPacks};
use crate::{
    error::{Error, Result},
    format::{
        entry::{Content, Entry},
        node::Node,
        pack::{Blob, PackKind},
    },
    id::{BlobId, DomainId, PackId},
    ops::{
        holding::{AsideFrames, WatchedNodes, copies},
        repair::STORE_ANEW,
    },
    repository::{
        Repository,
        index::{Index, KnownPack, Standing},
        manifest::{Accounts, ManifestCursor, NodeSource, list_sums},
        snapshots::KnownSnapshot,
    },
};

/// What to do when it cannot be read.
const BACK_UP_AGAIN: &str = "Back up again, or run `lifeboat copy` again if that brought it: what is still at its source is stored \
                             anew. `lifeboat repair snapshots` copies each snapshot without what is lost for good";

/// The manifests of one domain.
pub(super) struct Structure<'a> {
    repository: &'a Repository,
    domain: DomainId,
    index: &'a Index,
    nodes: WatchedNodes<'a>,
    bad: BadBlobs,
    missed: MissedPacks,
    /// Manifest nodes that were read.
    seen: Accounts,
    /// Lists that were read, with their chunks and bytes, and whether anything below is lost.
    lists: HashMap<BlobId, ((u64, u64), Option<Loss>)>,
    /// Chunks that no pack holds, with the problem that names each.
    missing: HashMap<BlobId, Option<usize>>,
    aside: AsideFrames,
    /// Packs that do not count and were told to be needed: a problem each, and nothing is lost by it.
    pub(super) rested_on: HashSet<PackId>,
    /// Whether something cannot be found or read.
    pub(super) misses: bool,
    checked: &'a mut Checked,
}

/// Something is lost: the problem that says so, if it is among those that are named.
#[derive(Clone, Copy)]
struct Loss(Option<usize>);

impl<'a> Structure<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        (domain, index): (DomainId, &'a Index),
        (bad, missed): (BadBlobs, MissedPacks),
        checked: &'a mut Checked,
    ) -> Result<Self> {
        let nodes = WatchedNodes::new(repository, (domain, index))?;
        let (seen, lists, missing) = (Accounts::new(), HashMap::new(), HashMap::new());
        let (aside, rested_on, misses) = (AsideFrames::default(), HashSet::new(), false);
        Ok(Self {
            repository,
            domain,
            index,
            nodes,
            bad,
            missed,
            seen,
            lists,
            missing,
            aside,
            rested_on,
            misses,
            checked,
        })
    }

    pub(super) fn snapshot(&mut self, snapshot: &KnownSnapshot) -> Result<()> {
        self.checked.snapshots += 1;
        self.nodes.serve(snapshot.name.identity);
        let label = format!("{:.8}", snapshot.name.id.to_string());
        let progress = self.repository.store.progress();
        let mut nodes = WatchedNodes::new(self.repository, (self.domain, self.index))?;
        nodes.serve(snapshot.name.identity);
        let mut cursor =
            ManifestCursor::accounting(&nodes, snapshot.record.root, std::mem::take(&mut self.seen));
        let ended = loop {
            progress.check()?;
            match cursor.next_entry() {
                Ok(Some(entry)) => {
                    progress.add(1, entry.metadata.size);
                    self.entry(&label, &entry)?;
                }
                Ok(None) => break Ok(()),
                // What comes after a damaged node is still looked at.
                Err(error) if error.is_damage() => {
                    self.misses = true;
                    let object = format!("manifest of snapshot {label}");
                    let number = self.checked.problem(object, error.to_string());
                    self.checked.hurt(number, format!("{label}: entries after /{}", cursor.last_path()));
                    progress.trouble();
                }
                Err(error) => break Err(error),
            }
        };
        self.checked.nodes += cursor.nodes_read;
        self.seen = cursor.into_accounts();
        for at in nodes.take_aside().into_iter().chain(self.nodes.take_aside()) {
            // Where it is good: it may be in several of them.
            let place = (self.repository, &self.domain, self.index);
            let good = match self.index.blob(at) {
                Some(Blob { id, .. }) => self.aside.find(place, (&id, PackKind::Metadata))?,
                None => None,
            };
            if let Some(pack) = self.index.pack_at(good.unwrap_or(at)) {
                self.rests_on(&pack);
            }
        }
        ended
    }

    fn entry(&mut self, label: &str, entry: &Entry) -> Result<()> {
        let shown = format!("{label}: /{}", String::from_utf8_lossy(&entry.path));
        let size = entry.metadata.content_bytes();
        let found = match &entry.content {
            Content::Inline(chunks) => {
                for chunk in chunks {
                    self.chunk(&chunk.id, &shown)?;
                }
                Ok(chunks.iter().map(|chunk| u64::from(chunk.length)).sum())
            }
            Content::List { node, chunks, level } => {
                let place = (*level + 1, (*chunks, None));
                self.list(node, place, &shown).map(|((_, bytes), _)| bytes)
            }
        };
        match found {
            Ok(total) if total != size && entry.error.is_none() => {
                let what = format!("its chunks hold {total} bytes, not {size}");
                self.checked.problem(shown, what);
            }
            Err(error) if error.is_damage() => {
                self.misses = true;
                self.repository.store.progress().trouble();
                let number = self.checked.problem("a list of chunks", error.to_string());
                self.checked.hurt(number, shown);
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        Ok(())
    }

    /// Looks at all below a list node, once however often it is referred to: the chunks and bytes there, and
    /// whether anything is lost.
    fn list(
        &mut self,
        id: &BlobId,
        (above, expected): (u8, (u64, Option<u64>)),
        shown: &str,
    ) -> Result<((u64, u64), Option<Loss>)> {
        if let Some((sums, loss)) = self.lists.get(id).copied() {
            if sums.0 != expected.0 || expected.1.is_some_and(|bytes| bytes != sums.1) {
                return Err(Error::damaged("a list of chunks", "its sums are not those of its parts"));
            }
            if let Some(Loss(number)) = loss {
                self.checked.hurt(number, shown.to_owned());
            }
            return Ok((sums, loss));
        }
        let node = self.nodes.node(id)?;
        let sums = list_sums(&node, above, expected)?;
        let mut loss = None;
        match node {
            Node::Chunks(chunks) => {
                for chunk in chunks {
                    loss = self.chunk(&chunk.id, shown)?.or(loss);
                }
            }
            Node::Lists(level, children) => {
                for child in children {
                    let place = (level, (child.chunks, Some(child.bytes)));
                    loss = self.list(&child.id, place, shown)?.1.or(loss);
                }
            }
            Node::Leaf(_) | Node::Branch(..) => {}
        }
        self.lists.insert(*id, (sums, loss));
        Ok((sums, loss))
    }

    /// A chunk is lost when no pack holds a copy that is good: as far as that is known of packs that count, and as it is read
    /// of the others.
    fn chunk(&mut self, id: &BlobId, shown: &str) -> Result<Option<Loss>> {
        let blob = (id, PackKind::Data);
        let bad = self.bad.get(id).map_or(&[][..], Vec::as_slice);
        let mut packs = copies(self.index, blob, Standing::counts).peekable();
        let is_none = packs.peek().is_none();
        if packs.any(|(_, pack)| bad.iter().all(|(damaged, _)| *damaged != pack.id)) {
            return Ok(None);
        }
        if let Some(at) = self.aside.find((self.repository, &self.domain, self.index), blob)? {
            self.index.pack_at(at).iter().for_each(|pack| self.rests_on(pack));
            return Ok(None);
        }
        let number = match (is_none, self.missing.get(id)) {
            (false, _) => bad.iter().find_map(|(_, number)| *number),
            (true, Some(number)) => *number,
            (true, None) => self.missing(id),
        };
        self.repository.store.progress().trouble();
        self.checked.hurt(number, shown.to_owned());
        Ok(Some(Loss(number)))
    }

    /// The problem with a chunk that is nowhere: that of the pack that should hold it, if the index knows one.
    fn missing(&mut self, id: &BlobId) -> Option<usize> {
        let places = self.index.locations(id);
        let number = match places.into_iter().find_map(|at| self.index.pack_at(at)) {
            None => {
                self.misses = true;
                self.checked.problem(format!("chunk {id}"), "no index lists it")
            }
            Some(pack) => *self.missed.entry(pack.id).or_insert_with(|| {
                let name = self.repository.pack_name(&self.domain, &pack);
                match pack.standing {
                    Standing::SetAside => self.checked.problem_with_remedy(
                        name.as_str(),
                        "it is set aside, and snapshots need what cannot be read in it",
                        BACK_UP_AGAIN,
                    ),
                    _ => self.checked.problem(name.as_str(), "it is not there, and snapshots need it"),
                }
            }),
        };
        self.missing.insert(*id, number);
        number
    }

    /// Snapshots need what can be read in a pack that does not count, and nowhere else.
    fn rests_on(&mut self, pack: &KnownPack) {
        if self.rested_on.insert(pack.id) {
            let name = self.repository.pack_name(&self.domain, pack);
            let how = match pack.standing {
                Standing::SetAside => "it is set aside",
                _ => "it has another size than the index says",
            };
            let what = format!("{how}, and snapshots need what can still be read in it and nowhere else");
            self.checked.problem_with_remedy(name.as_str(), what, STORE_ANEW);
        }
    }
}
