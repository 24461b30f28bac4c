//! Compares entries one by one, and counts how they differ.

use std::{fs::File, os::fd::AsFd};

use super::{
    super::links::{Links, Met},
    Difference, Owners, Verified, Witness,
    content::Reading,
    difference::metadata_differences,
};
use crate::{
    crypto::ChunkIdKey,
    error::Result,
    filesystem::{
        attributes, filter::Filter, holes::Layout, live::LiveTree, metadata::Note, namespace::HiddenOwners,
        unmet::Names,
    },
    format::entry::{Entry, EntryKind, Metadata},
    progress::Progress,
    repository::{
        manifest::{NodeSource, for_each_chunk},
        snapshots::KnownSnapshot,
    },
};

/// What is compared, and with what.
pub(super) struct Comparison<'a> {
    pub(super) snapshot: &'a KnownSnapshot,
    pub(super) progress: &'a Progress,
    pub(super) owners: Owners,
    /// Bytes of each path that are above the target.
    pub(super) strip: usize,
    pub(super) tree: LiveTree,
    pub(super) key: ChunkIdKey,
    pub(super) nodes: &'a dyn NodeSource,
    pub(super) buffer: Vec<u8>,
    pub(super) witness: &'a mut dyn Witness,
    pub(super) links: Links<FirstName>,
    pub(super) met: Met<(u64, u64)>,
    pub(super) verified: Verified,
}

/// The first name of a group of hard links.
#[derive(Clone, Debug)]
pub(super) struct FirstName {
    path: Vec<u8>,
    /// The file that it is now.
    now: (u64, u64),
}

/// A further name of a file that was met.
struct FurtherName {
    /// How it differs, if it is not that file any more.
    not_linked: Option<Difference>,
    /// It held something else when the backup looked at it: it is a name of that file, and no more.
    is_marked: bool,
}

impl Comparison<'_> {
    /// The path below the target.
    pub(super) fn below<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        path.get(self.strip..).unwrap_or_default()
    }

    /// The names in a folder, if it is there.
    pub(super) fn names(&mut self, path: &[u8], left_out: &Filter) -> Result<Option<Names>> {
        let below = path.get(self.strip..).unwrap_or_default();
        self.tree.names(below, left_out)
    }

    /// Something differs that is no entry.
    pub(super) fn differs(&mut self, path: &[u8], difference: Difference) {
        self.progress.trouble();
        self.verified.differing += 1;
        self.verified.name(path, difference);
    }

    /// The snapshot does not have it.
    pub(super) fn is_extra(&mut self, path: &[u8], kind: EntryKind) {
        self.verified.extra += 1;
        self.differs(path, Difference::Extra(kind));
    }

    /// As [`Self::is_extra`], of so many that are not named.
    pub(super) const fn are_extra(&mut self, count: u64) {
        self.verified.extra += count;
        self.verified.differing += count;
        self.verified.unnamed += count;
    }

    /// Compares one entry and counts it. `unlisted` is why it could not be listed, of a folder.
    pub(super) fn entry(&mut self, entry: &Entry, unlisted: Option<Difference>) -> Result<()> {
        let mut differences = self.differences(entry)?;
        differences.extend(unlisted.filter(|unlisted| !differences.contains(unlisted)));
        let verified = &mut self.verified;
        if entry.metadata.kind == EntryKind::File {
            verified.files += u64::from(differences.is_empty());
            self.progress.add(1, entry.metadata.size);
        }
        if !differences.is_empty() {
            self.progress.trouble();
            verified.differing += 1;
            verified.missing += u64::from(differences.first() == Some(&Difference::Missing));
        }
        differences.into_iter().for_each(|difference| verified.name(&entry.path, difference));
        Ok(())
    }

    pub(super) fn differences(&mut self, entry: &Entry) -> Result<Vec<Difference>> {
        let (then, path) = (&entry.metadata, self.below(&entry.path));
        let is_socket = then.kind == EntryKind::Socket;
        let mut now = match self.tree.metadata(path) {
            Ok(Some(now)) => now,
            Ok(None) if is_socket => {
                self.verified.note(&entry.path, Note::socket());
                return Ok(Vec::new());
            }
            Ok(None) => return Ok(vec![Difference::Missing]),
            Err(error) => return Ok(vec![Difference::Unreadable(error.to_string())]),
        };
        if now.kind != then.kind {
            return Ok(vec![Difference::Kind(now.kind)]);
        }
        if is_socket {
            // Its program has made it anew, or will.
            return Ok(Vec::new());
        }
        let leads_only = self.snapshot.record.leads_only(&entry.path);
        if !leads_only && then.only_holds_a_place() && self.tree.is_mounted_on(path) {
            // A restore leaves alone what is mounted there.
            return Ok(Vec::new());
        }
        let joined = self.joined(entry, &now);
        let further = self.further(entry, &now);
        let joined = joined.filter(|_| further.is_none());
        let linked = further.as_ref().is_some_and(|further| further.not_linked.is_none());
        if let Some(FurtherName { not_linked, is_marked: true }) = further {
            return Ok(not_linked.into_iter().collect());
        }
        let file = match then.kind {
            EntryKind::File => match self.tree.file(path, &now) {
                Ok(file) => {
                    attributes::of_open(file.as_fd(), &mut now);
                    Some(file)
                }
                Err(error) => return Ok(vec![Difference::Unreadable(error.to_string())]),
            },
            _ => {
                self.tree.describe(path, &mut now);
                None
            }
        };
        // Of one file that is told once, with its first name.
        let mut differences =
            if linked { Vec::new() } else { metadata_differences(then, &now, self.owners, leads_only) };
        if !linked && !leads_only && !self.owners.are_ignored() {
            differences.extend(HiddenOwners::of_this_process().hides(&now).map(Difference::Unreadable));
        }
        differences.extend(further.and_then(|further| further.not_linked).or(joined));
        if let Some(file) = file.filter(|_| now.size == then.size) {
            let content = self.content(entry, &file, &now)?;
            if content.is_none() && differences.is_empty() {
                self.witness.same(path)?;
            }
            // It says most, so it comes first.
            differences.splice(0..0, content);
        } else if linked {
            differences.extend((now.size != then.size).then_some(Difference::Size(now.size)));
        }
        Ok(differences)
    }

    /// Comes past an entry that is not compared: it may be the first name of a file.
    pub(super) fn passes(&mut self, entry: &Entry) -> Result<()> {
        if entry.metadata.links > 1
            && let Some(now) = self.tree.metadata(self.below(&entry.path))?
        {
            // Only its name is noted.
            drop(self.further(entry, &now));
        }
        Ok(())
    }

    /// Whether it is one with another file of the snapshot now.
    fn joined(&mut self, entry: &Entry, now: &Metadata) -> Option<Difference> {
        if now.links < 2 || now.kind == EntryKind::Directory {
            return None;
        }
        let (group, is) = (self.links.group(entry), (now.device_key, now.inode));
        self.met.meet(is, &entry.path, group).map(|first| Difference::Joined(first.to_vec()))
    }

    /// What it is if it is a further name of a file that was met.
    fn further(&mut self, entry: &Entry, now: &Metadata) -> Option<FurtherName> {
        let (group, is) = (self.links.group(entry)?, (now.device_key, now.inode));
        let first = self.links.meet((group, entry), || FirstName { path: entry.path.clone(), now: is })?;
        let not_linked = (first.now != is).then_some(Difference::NotLinked(first.path));
        Some(FurtherName { not_linked, is_marked: Links::<FirstName>::is_by_mark(&group, entry) })
    }

    /// The ranges of a file that are not what the snapshot has.
    fn content(&mut self, entry: &Entry, file: &File, now: &Metadata) -> Result<Option<Difference>> {
        let Self { key, nodes, buffer, witness, progress, .. } = self;
        witness.opened(file);
        let (layout, holes) = (Layout::new(&entry.metadata.holes), entry.metadata.holes.iter());
        let mut reading = Reading {
            file,
            layout,
            holes,
            content: 0,
            passed: 0,
            bad: Vec::new(),
            key,
            buffer,
            witness: &mut **witness,
        };
        let mut failed = None;
        let listed = for_each_chunk(&entry.content, *nodes, &mut |chunk| {
            if failed.is_none() {
                failed = reading.chunk(chunk, progress)?;
            }
            Ok(())
        });
        if failed.is_none() && listed.is_ok() {
            failed = reading.pass_holes(u64::MAX, progress)?;
        }
        let Reading { content, passed, mut bad, .. } = reading;
        // A manifest may claim anything.
        let bytes = &mut self.verified.bytes;
        *bytes = bytes.saturating_add(content).saturating_add(passed);
        match (failed, listed) {
            (Some(error), _) => Ok(Some(Difference::Unreadable(error.to_string()))),
            // The list of this one file is damaged, and says nothing of the others.
            (None, Err(error)) if error.is_damage() => {
                self.verified.lost += 1;
                let why = format!("its list of chunks is lost in the repository: {error}");
                Ok(Some(Difference::Unreadable(why)))
            }
            (None, Err(error)) => Err(error),
            // The manifest must account for every byte of it.
            (None, Ok(())) if content < entry.metadata.content_bytes() => {
                bad.push(now.size - (entry.metadata.content_bytes() - content)..now.size);
                Ok(Some(Difference::Content(bad)))
            }
            (None, Ok(())) => Ok((!bad.is_empty()).then_some(Difference::Content(bad))),
        }
    }
}
