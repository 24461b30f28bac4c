//! What copies of before have lost in the target since.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use super::Losses;
use crate::{
    error::Result,
    id::DomainId,
    ops::repair::Stored,
    repository::{
        Repository,
        index::Standing,
        manifest::{Gap, for_each_entry},
        snapshots::KnownSnapshot,
        view::View,
    },
};

/// Looks for what is lost. Manifests are read only where packs are gone: where all is well nothing but the lists is.
pub(super) struct Look<'a> {
    to: &'a Arc<Repository>,
    /// What a domain holds, if packs are gone there that its index names.
    with_gaps: HashMap<DomainId, Option<Arc<View>>>,
}

impl<'a> Look<'a> {
    pub(super) fn new(to: &'a Arc<Repository>) -> Self {
        Self { to, with_gaps: HashMap::new() }
    }

    /// The files that a copy has lost.
    pub(super) fn lost_of(&mut self, copy: &KnownSnapshot) -> Result<Losses> {
        let mut losses = Losses::default();
        let Some(view) = self.with_gaps(copy.name.domain)? else { return Ok(losses) };
        let stored = Stored::new(self.to, (&view, &Arc::default()), copy)?;
        let nodes = stored.nodes()?;
        for_each_entry(&nodes, copy.record.root, &[], &mut |entry| {
            self.to.store.progress().check()?;
            match entry {
                Ok(entry) => {
                    if let Some(why) = stored.loss(&entry, &nodes)? {
                        losses.add(&entry.path, why);
                    }
                }
                Err(Gap { first, error }) => losses.add(&first, error.to_string()),
            }
            Ok(())
        })?;
        Ok(losses)
    }

    fn with_gaps(&mut self, domain: DomainId) -> Result<Option<Arc<View>>> {
        Ok(match self.with_gaps.entry(domain) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => {
                let view = self.to.view_to_read(&domain)?;
                let gaps = view
                    .index
                    .packs()
                    .any(|pack| pack.standing == Standing::Missing && !view.tombstoned.contains(&pack.id));
                new.insert(gaps.then(|| Arc::new(view))).clone()
            }
        })
    }
}
