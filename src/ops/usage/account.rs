//! The packs of one domain, byte for byte: what reached and dead blobs have of them.

use std::collections::HashMap;

use super::{
    Classes, Findings,
    apportion::apportion,
    reach::{Reached, Whose},
};
use crate::{
    error::{Error, ErrorKind, Result},
    format::pack::{Directory, PackKind},
    id::{DomainId, PackId},
    repository::{index::KnownPack, view::View},
    store::Name,
};

/// The packs of a domain that LIST shows, with their sizes.
pub(super) type Present = HashMap<(PackKind, PackId), u64>;

/// Reached bytes of data and metadata by the set of rows that reach them.
pub(super) type BySet = HashMap<u32, u64>;

/// Puts every byte of the packs of one domain into its class.
pub(super) struct Account<'a> {
    pub(super) domain: &'a DomainId,
    pub(super) view: &'a View,
    pub(super) reached: &'a Reached,
    pub(super) classes: &'a mut Classes,
    pub(super) by_set: &'a mut BySet,
    pub(super) findings: &'a mut Findings,
}

impl Account<'_> {
    /// # Errors
    /// The local cache is damaged.
    pub(super) fn run(mut self, mut present: Present) -> Result<()> {
        // Nobody counts on what is set aside, whatever the index says of it.
        present.retain(|(kind, id), size| {
            let name = Name::pack(self.domain, *kind, id);
            let aside = self.view.quarantined.contains(name.as_str());
            if aside {
                self.classes.dead += *size;
                self.findings.set_aside.add(*size);
            }
            !aside
        });
        let mut seen = std::collections::HashSet::new();
        for pack in self.view.index.packs() {
            if seen.insert(pack.id) {
                match present.remove(&(pack.kind, pack.id)) {
                    Some(size) => self.listed(&pack, size)?,
                    None => self.missing(&pack),
                }
            }
        }
        for ((_, id), size) in present {
            if self.view.tombstoned.contains(&id) {
                self.classes.tombstoned += size;
            } else {
                self.classes.dead += size;
                self.findings.unindexed.add(size);
            }
        }
        Ok(())
    }

    /// A pack that the index names and LIST does not show.
    fn missing(&mut self, pack: &KnownPack) {
        let name = Name::pack(self.domain, pack.kind, &pack.id);
        if self.view.quarantined.contains(name.as_str()) {
            return;
        }
        if self.view.tombstoned.contains(&pack.id) {
            self.findings.deleted += 1;
        } else {
            self.findings.unexplained(
                name.as_str(),
                None,
                "an index lists it, and it is not there".to_owned(),
            );
        }
    }

    fn listed(&mut self, pack: &KnownPack, size: u64) -> Result<()> {
        let broken =
            || Error::new(ErrorKind::Failed, "the local cache is damaged").with_remedy("Use --no-cache");
        let directory = self.view.index.directory(pack).ok_or_else(broken)?;
        let first = self.view.index.blobs_of(pack).ok_or_else(broken)?.start;
        let (listed, claimed) = (u64::from(pack.size), directory.pack_length() as u64);
        if size != listed || size != claimed {
            let name = Name::pack(self.domain, pack.kind, &pack.id);
            let why = if size == listed {
                format!("it has {size} bytes, and what its directory lists sums to {claimed}")
            } else {
                format!("it has {size} bytes, and the index says {listed}")
            };
            self.findings.unexplained(name.as_str(), Some(size), why);
            self.classes.foreign += size;
        } else if self.view.tombstoned.contains(&pack.id) {
            self.classes.tombstoned += size;
        } else {
            self.divide(pack.kind, &directory, first);
        }
        Ok(())
    }

    /// Each frame bears its part of what the pack has beside frames; each blob its part of its frame.
    fn divide(&mut self, kind: PackKind, directory: &Directory, first: usize) {
        let lengths: Vec<u64> = directory.frames.iter().map(|frame| u64::from(frame.length)).collect();
        if lengths.is_empty() {
            self.classes.dead += directory.overhead() as u64;
        }
        let overheads = apportion(directory.overhead() as u64, &lengths);
        let mut number = first;
        for (frame, overhead) in directory.frames.iter().zip(overheads) {
            let cost = u64::from(frame.length) + overhead;
            let blobs = number..number + frame.blobs.len();
            number = blobs.end;
            let whose: Vec<Option<Whose>> = blobs.map(|blob| self.reached.rows(blob)).collect();
            if whose.iter().all(Option::is_none) {
                self.classes.dead += cost;
                continue;
            }
            let weights: Vec<u64> = frame.blobs.iter().map(|blob| u64::from(blob.length)).collect();
            for (whose, part) in whose.into_iter().zip(apportion(cost, &weights)) {
                match (whose, kind) {
                    (None, _) => self.classes.dead_in_live_frames += part,
                    (Some(_), PackKind::Data) => self.classes.reached_data += part,
                    (Some(_), PackKind::Metadata) => self.classes.reached_metadata += part,
                }
                if let Some(Whose::Rows(set)) = whose {
                    *self.by_set.entry(set).or_default() += part;
                }
            }
        }
    }
}
