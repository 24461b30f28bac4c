//! What is in the folders of a snapshot, and not in the snapshot.

use super::{Difference, VerifyOptions, comparison::Comparison};
use crate::{
    filesystem::{
        remove::Never,
        unmet::{Begins, Ended, Unmet},
    },
    format::entry::{Entry, EntryKind},
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
        // What the backup could not list, or leads to a source, says nothing of what should be in it.
        let covered = entry.metadata.kind == EntryKind::Directory
            && entry.error.is_none()
            && !comparison.snapshot.record.leads_to_a_source(&entry.path)
            && self.options.selection.reaches_into(&entry.path);
        if covered {
            self.enter(comparison, &entry.path);
        }
    }

    pub(super) fn enter(&mut self, comparison: &mut Comparison<'_>, path: &[u8]) {
        let below = path.get(comparison.strip..).unwrap_or_default();
        let begins = Begins::at(below.is_empty() || comparison.snapshot.record.is_source(path));
        match comparison.tree.names(below) {
            Ok(Some(names)) => self.unmet.enter(path.to_vec(), names, begins),
            Ok(None) => {}
            Err(error) => comparison.differs(path, Difference::Unreadable(error.to_string())),
        }
    }

    pub(super) fn tell(&self, comparison: &mut Comparison<'_>, ended: &Ended) {
        for name in ended.names() {
            let folder = &ended.folder;
            let path = if folder.is_empty() { name.to_vec() } else { [folder, &b"/"[..], name].concat() };
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
