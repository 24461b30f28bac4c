//! What is in the folders of a snapshot, and not in the snapshot: all that `restore --delete` would remove, and nothing
//! else.

use super::{
    super::besides::{Beside, Besides, LEFT_OVER, LEFT_UNFINISHED, judge},
    Difference, VerifyOptions,
    comparison::Comparison,
};
use crate::{
    error::Result,
    filesystem::{
        metadata::Note,
        old::Found,
        remove::{Never, Onlooker, Removal, Remover},
        restore::Target,
        select::Selection,
        unmet::Ended,
    },
    format::{
        entry::{Entry, EntryKind},
        path::{is_below, split},
        snapshot::Snapshot,
    },
};

/// Of what is not known yet to go with its folder, paths of so many bytes are held, and the rest is counted.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// Finds what is in folders beside what the snapshot has of them.
pub(super) struct Extras<'a> {
    options: &'a VerifyOptions,
    /// The tree, as a restore sees it.
    target: Target,
    never: Never,
    besides: Besides<'a>,
}

impl<'a> Extras<'a> {
    pub(super) fn new(options: &'a VerifyOptions, snapshot: &'a Snapshot, target: Target) -> Self {
        let chosen = (&options.selection, &options.left_out);
        let besides = Besides::new(snapshot, &options.subpath, chosen);
        Self { options, target, never: Never::new(&options.never), besides }
    }

    /// Begins with the root; why that cannot be listed, if it has to be.
    pub(super) fn begin(&mut self, comparison: &mut Comparison<'_>) -> Option<Difference> {
        unlisted(self.besides.begin(&mut |path, left_out| comparison.names(path, left_out)))
    }

    /// Comes to the next entry; why it cannot be listed, of a folder that has to be.
    pub(super) fn entry(&mut self, comparison: &mut Comparison<'_>, entry: &Entry) -> Option<Difference> {
        while let Some(ended) = self.besides.ends_before(&entry.path) {
            self.tell(comparison, &ended);
        }
        unlisted(self.besides.entry(entry, &mut |path, left_out| comparison.names(path, left_out)))
    }

    /// Entries are lost here.
    pub(super) fn doubt(&mut self) {
        self.besides.doubt();
    }

    /// No more entries come.
    pub(super) fn end(&mut self, comparison: &mut Comparison<'_>) {
        while let Some(ended) = self.besides.end() {
            self.tell(comparison, &ended);
        }
    }

    fn tell(&self, comparison: &mut Comparison<'_>, ended: &Ended) {
        let strip = comparison.strip;
        let judged = judge(ended, (&self.target, strip), &mut |path, what| {
            match what {
                Beside::Unfinished => comparison.verified.note(path, Note::Told(LEFT_UNFINISHED.into())),
                Beside::Leftover => comparison.verified.note(path, Note::Told(LEFT_OVER.into())),
                Beside::Extra => self.would_go(comparison, path),
            }
            Ok(())
        });
        if let Err(error) = judged {
            comparison.differs(&ended.folder, Difference::Unreadable(error.to_string()));
        }
    }

    /// Tells what of it would go.
    fn would_go(&self, comparison: &mut Comparison<'_>, path: &[u8]) {
        let VerifyOptions { selection, left_out, .. } = self.options;
        let remover = Remover {
            target: &self.target,
            strip: comparison.strip,
            selection,
            left_out,
            never: &self.never,
            removal: Removal::Tell,
            thaws: false,
            progress: comparison.progress,
        };
        let mut waiting = Waiting { selection, comparison, items: Vec::new(), bytes: 0 };
        let done = remover.remove_before(path, &mut waiting);
        waiting.settle();
        if let Err(error) = done {
            comparison.differs(path, Difference::Unreadable(error.to_string()));
        }
    }
}

fn unlisted(listed: Result<()>) -> Option<Difference> {
    listed.err().map(|error| Difference::Unreadable(error.to_string()))
}

/// What would go, and may yet go with the folder that it is in: then the folder is told, and not what is in it.
struct Waiting<'a, 'b> {
    selection: &'a Selection,
    comparison: &'a mut Comparison<'b>,
    items: Vec<Item>,
    /// Of the paths.
    bytes: usize,
}

enum Item {
    Named(Vec<u8>, EntryKind),
    /// So many more in this folder.
    More(Vec<u8>, u64),
}

impl Waiting<'_, '_> {
    /// None of it goes with its folder.
    fn settle(&mut self) {
        self.bytes = 0;
        for item in std::mem::take(&mut self.items) {
            match item {
                Item::Named(path, kind) => self.comparison.is_extra(&path, kind),
                Item::More(_, count) => self.comparison.are_extra(count),
            }
        }
    }

    fn forget_below(&mut self, folder: &[u8]) {
        while let Some(item) = self.items.pop_if(|item| match item {
            Item::Named(path, _) => is_below(path, folder),
            Item::More(path, _) => path == folder || is_below(path, folder),
        }) {
            let (Item::Named(path, _) | Item::More(path, _)) = item;
            self.bytes -= path.len();
        }
    }
}

impl Onlooker for Waiting<'_, '_> {
    fn gone(&mut self, path: &[u8], found: &Found) {
        let is_folder = found.kind == EntryKind::Directory;
        // What is told answers what was asked for.
        self.selection.finds(path, is_folder);
        if is_folder {
            self.forget_below(path);
        }
        let (folder, _) = split(path);
        match self.items.last_mut() {
            _ if self.bytes.saturating_add(path.len()) <= WAITING_BYTES_MAX => {
                self.bytes += path.len();
                self.items.push(Item::Named(path.to_vec(), found.kind));
            }
            Some(Item::More(known, count)) if known == folder => *count += 1,
            _ => {
                self.bytes += folder.len();
                self.items.push(Item::More(folder.to_vec(), 1));
            }
        }
    }

    fn stays(&mut self) {
        self.settle();
    }
}
