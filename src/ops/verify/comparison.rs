//! Compares entries one by one, and counts how they differ.

use std::{collections::HashMap, fs::File, os::fd::AsFd};

use super::{
    super::restore::{Group, link_group},
    Difference, Owners, Verified, Witness,
    content::Reading,
    difference::metadata_differences,
};
use crate::{
    crypto::ChunkIdKey,
    error::Result,
    filesystem::{attributes, existing::Existing, holes::Layout},
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
    pub(super) tree: Existing,
    pub(super) key: ChunkIdKey,
    pub(super) nodes: &'a dyn NodeSource,
    pub(super) buffer: Vec<u8>,
    pub(super) witness: &'a mut dyn Witness,
    /// The first name of each group of hard links that has more to come, with the file that it is now.
    pub(super) links: HashMap<Group, FirstName>,
    pub(super) verified: Verified,
}

/// The first name of a group of hard links.
pub(super) struct FirstName {
    path: Vec<u8>,
    now: (u64, u64),
    left: u64,
}

impl Comparison<'_> {
    fn below<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        path.get(self.strip..).unwrap_or_default()
    }

    /// Something differs that is no entry.
    pub(super) fn differs(&mut self, path: &[u8], difference: Difference) {
        self.progress.trouble();
        self.verified.differing += 1;
        self.verified.name(path, difference);
    }

    /// Compares one entry and counts it.
    pub(super) fn entry(&mut self, entry: &Entry) -> Result<()> {
        let differences = self.differences(entry)?;
        let verified = &mut self.verified;
        if entry.metadata.kind == EntryKind::File {
            verified.files += u64::from(differences.is_empty());
            // A manifest may claim anything.
            verified.bytes = verified.bytes.saturating_add(entry.metadata.size);
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

    fn differences(&mut self, entry: &Entry) -> Result<Vec<Difference>> {
        let (then, path) = (&entry.metadata, self.below(&entry.path));
        let mut now = match self.tree.metadata(path) {
            Ok(Some(now)) => now,
            Ok(None) if then.kind == EntryKind::Socket => return Ok(Vec::new()),
            Ok(None) => return Ok(vec![Difference::Missing]),
            Err(error) => return Ok(vec![Difference::Unreadable(error.to_string())]),
        };
        if now.kind != then.kind {
            return Ok(vec![Difference::Kind(now.kind)]);
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
        let leads_only = self.snapshot.record.leads_only(&entry.path);
        let mut differences = metadata_differences(then, &now, self.owners, leads_only);
        differences.extend(self.not_linked(entry, &now));
        if let Some(file) = file.filter(|_| now.size == then.size) {
            let content = self.content(entry, &file, &now)?;
            if content.is_none() && differences.is_empty() {
                self.witness.same(path)?;
            }
            // It says most, so it comes first.
            differences.splice(0..0, content);
        }
        Ok(differences)
    }

    /// Whether it is a further name of a file that was met, and is not that file any more.
    fn not_linked(&mut self, entry: &Entry, now: &Metadata) -> Option<Difference> {
        let (group, is) = (link_group(entry)?, (now.device_key, now.inode));
        let Some(first) = self.links.get_mut(&group) else {
            let first = FirstName { path: entry.path.clone(), now: is, left: entry.metadata.links - 1 };
            self.links.insert(group, first);
            return None;
        };
        first.left = first.left.saturating_sub(1);
        let difference = (first.now != is).then(|| Difference::NotLinked(first.path.clone()));
        if first.left == 0 {
            self.links.remove(&group);
        }
        difference
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
        let Reading { content, mut bad, .. } = reading;
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
