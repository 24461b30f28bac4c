//! Files and folders as a source of a backup.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Again, Item, ReadContent, Source};
use crate::{
    error::{ErrorKind, Result},
    filesystem::{
        read::{Name, Now, Reader, Seen},
        settle::Settled,
        walk::{Filter, FilterOptions, Found, LeftOut, Walk, Walked, Why},
    },
    format::entry::{Content, Entry, EntryKind, Hole, Metadata},
};

/// Absolute paths, and what to leave out below them.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The paths, as [`crate::filesystem::walk::resolve_source`] gives them.
    pub sources: Vec<PathBuf>,
    /// What to leave out.
    pub filter: FilterOptions,
}

impl Tree {
    fn walk(&self) -> Result<impl Iterator<Item = Walked> + use<>> {
        let walk = Walk::new(&self.sources, Filter::new(self.filter.clone())?);
        let mut settled = Settled::default();
        Ok(walk.inspect(move |walked| {
            if let Walked::Entry(found) = walked
                && has_content(found)
            {
                settled.before_reading(found);
            }
        }))
    }
}

impl Source for Tree {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        Ok(Box::new(self.walk()?.filter_map(|walked| item(walked, &mut |_| {}))))
    }
}

/// What a rule left out, not counting what is inside of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Entries.
    pub entries: u64,
    /// Bytes, as far as they are files.
    pub bytes: u64,
}

/// A tree that keeps account of what is left out of it. What it remembers grows with the number of rules.
pub struct Accounted<'a> {
    tree: Tree,
    each: &'a dyn Fn(&LeftOut),
    left_out: BTreeMap<Why, Count>,
    vanished: u64,
}

impl std::fmt::Debug for Accounted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Accounted({:?})", self.tree)
    }
}

impl<'a> Accounted<'a> {
    /// The tree; `each` hears of everything that is left out.
    #[must_use]
    pub fn new(tree: Tree, each: &'a dyn Fn(&LeftOut)) -> Self {
        Self { tree, each, left_out: BTreeMap::new(), vanished: 0 }
    }

    /// What each rule took out when the tree was walked last.
    #[must_use]
    pub const fn left_out(&self) -> &BTreeMap<Why, Count> {
        &self.left_out
    }
}

impl Source for Accounted<'_> {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let Self { tree, each, left_out, vanished } = self;
        (*left_out, *vanished) = (BTreeMap::new(), 0);
        Ok(Box::new(tree.walk()?.filter_map(move |walked| {
            item(walked, &mut |besides| match besides {
                Some(found) => {
                    let Count { entries, bytes } = left_out.entry(found.why).or_default();
                    *entries += found.entries;
                    *bytes = bytes.saturating_add(found.bytes);
                    each(&found);
                }
                None => *vanished += 1,
            })
        })))
    }

    fn vanished(&self) -> u64 {
        self.vanished
    }
}

impl ReadContent for Reader {
    fn describe(&self, metadata: &mut Metadata) {
        Self::describe(self, metadata);
    }

    fn holes(&self) -> &[Hole] {
        Self::holes(self)
    }

    fn has_changed(&self) -> Result<bool> {
        Self::has_changed(self)
    }

    fn again(&mut self) -> Result<Again> {
        Ok(match Self::again(self)? {
            Now::Is(metadata) => Again::From(metadata),
            Now::Gone => Again::Never,
        })
    }
}

/// What there is to back up of a step of the walk. `besides` hears what was left out; `None` is a name that
/// vanished.
fn item(walked: Walked, besides: &mut dyn FnMut(Option<LeftOut>)) -> Option<Result<Item>> {
    match walked {
        Walked::Entry(found) => Some(Ok(of_found(*found))),
        Walked::Error(error) => Some(Ok(Item::Entry(unknown(error.path, error.error)))),
        Walked::Failed(error) => Some(Err(error)),
        Walked::LeftOut(left_out) => {
            besides(Some(left_out));
            None
        }
        Walked::Vanished => {
            besides(None);
            None
        }
    }
}

/// Whether it is a file that is to be read.
fn has_content(found: &Found) -> bool {
    found.metadata.kind == EntryKind::File && !found.is_hollow && found.error.is_none()
}

fn of_found(found: Found) -> Item {
    let has_content = has_content(&found);
    let Found { path, metadata, dir, device, name, error, is_source, .. } = found;
    let content = Content::Inline(Vec::new());
    let entry = Entry { path, metadata, content, changed_while_read: false, error };
    if !has_content {
        return Item::Entry(entry);
    }
    let seen = Seen::of(&entry.metadata, device);
    let open = move || match Reader::open(Name { dir, name }, seen) {
        Ok(reader) => Ok(Box::new(reader) as Box<dyn ReadContent>),
        // What the user asked for by its name must not be missing without a word.
        Err(error) if is_source && error.kind() == ErrorKind::NotFound => {
            Err(error.with_kind(ErrorKind::Failed))
        }
        Err(error) => Err(error),
    };
    Item::File(entry, Box::new(open))
}

/// An entry of which only the name and the trouble are known.
fn unknown(path: Vec<u8>, error: String) -> Entry {
    let metadata = Metadata::of(EntryKind::File);
    let content = Content::Inline(Vec::new());
    Entry { path, metadata, content, changed_while_read: false, error: Some(error) }
}
