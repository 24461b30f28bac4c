//! A backup of what the user who runs the tests is not, or may not have.

use lifeboat::{
    filesystem::walk::FilterOptions,
    format::entry::Metadata,
    ops::backup::{self, Item, ReadContent, Source, tree::Tree},
};

use super::place::Place;

/// A tree of which an ordinary user backs up what it is not.
struct Changed<F>(Tree, F);

impl<F: Fn(&[u8], &mut Metadata)> Source for Changed<F> {
    fn open(
        &mut self,
    ) -> lifeboat::error::Result<Box<dyn Iterator<Item = lifeboat::error::Result<Item>> + '_>> {
        let Self(tree, change) = self;
        Ok(Box::new(tree.open()?.map(|item| {
            Ok(match item? {
                Item::File(mut entry, open) => {
                    change(&entry.path, &mut entry.metadata);
                    let wanted = entry.metadata.clone();
                    Item::File(
                        entry,
                        Box::new(move || Ok(Box::new(Described(open()?, wanted)) as Box<dyn ReadContent>)),
                    )
                }
                Item::Entry(mut entry) => {
                    change(&entry.path, &mut entry.metadata);
                    Item::Entry(entry)
                }
            })
        })))
    }
}

/// A file with other attributes than it has.
struct Described(Box<dyn ReadContent>, Metadata);

impl std::io::Read for Described {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl ReadContent for Described {
    fn describe(&self, metadata: &mut Metadata) {
        let Metadata { xattrs, lacks, .. } = self.1.clone();
        (metadata.xattrs, metadata.lacks) = (xattrs, lacks);
    }

    fn has_changed(&self) -> lifeboat::error::Result<bool> {
        self.0.has_changed()
    }
}

/// Backs up the source, each entry changed so.
pub(crate) fn back_up_changed(place: &Place, change: impl Fn(&[u8], &mut Metadata)) {
    let tree = Tree { sources: vec![place.source()], filter: FilterOptions::default() };
    backup::run(&place.open(), &mut Changed(tree, change), &place.options()).unwrap();
}
