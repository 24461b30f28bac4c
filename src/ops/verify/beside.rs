//! What is in the folders of a snapshot, and not in the snapshot.

use super::{
    super::restore::{begins, is_covered},
    Difference, VerifyOptions,
    comparison::Comparison,
};
use crate::{
    filesystem::{
        remove::Never,
        unmet::{Ended, Unmet},
    },
    format::{
        entry::{Entry, EntryKind},
        path::join,
    },
};

/// Finds what is in folders beside what the snapshot has of them.
pub(super) struct Beside<'a> {
    pub(super) options: &'a VerifyOptions,
    pub(super) never: Never,
    pub(super) unmet: Unmet,
}

impl Beside<'_> {
    pub(super) fn entry(&mut self, comparison: &mut Comparison<'_>, entry: &Entry) {
        while let Some(ended) = self.unmet.ends_before(&entry.path) {
            self.tell(comparison, &ended);
        }
        self.unmet.meet(&entry.path);
        if is_covered(entry, &comparison.snapshot.record, &self.options.selection) {
            self.enter(comparison, &entry.path);
        }
    }

    pub(super) fn enter(&mut self, comparison: &mut Comparison<'_>, path: &[u8]) {
        let below = path.get(comparison.strip..).unwrap_or_default();
        let begins = begins(&comparison.snapshot.record, path, below);
        match comparison.tree.names(below) {
            Ok(Some(names)) => self.unmet.enter(path.to_vec(), names, begins),
            Ok(None) => {}
            Err(error) => comparison.differs(path, Difference::Unreadable(error.to_string())),
        }
    }

    pub(super) fn tell(&self, comparison: &mut Comparison<'_>, ended: &Ended) {
        for name in ended.names() {
            let path = join(&ended.folder, name);
            let below = path.get(comparison.strip..).unwrap_or_default();
            let difference = match comparison.tree.found(below) {
                // It went meanwhile.
                Ok(None) => continue,
                Ok(Some(found)) => {
                    let is_folder = found.kind == EntryKind::Directory;
                    if self.never.has(&found) || !self.options.selection.selects(&path, is_folder) {
                        continue;
                    }
                    Difference::Extra(found.kind)
                }
                Err(error) => Difference::Unreadable(error.to_string()),
            };
            comparison.verified.extra += 1;
            comparison.differs(&path, difference);
        }
    }
}
