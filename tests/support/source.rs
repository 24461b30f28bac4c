//! A source of a backup that is in memory.

use lifeboat::{
    clock::Timestamp,
    error::Result,
    format::entry::{Content, Entry, EntryKind, Metadata},
    ops::backup::{Item, ReadContent, Source},
};

fn entry(path: &str, size: usize) -> Entry {
    Entry {
        path: path.into(),
        metadata: Metadata {
            mode: 0o644,
            user: "root".to_owned(),
            group: "root".to_owned(),
            mtime: Timestamp::from_seconds(1_700_000_000),
            ctime: Timestamp::from_seconds(1_700_000_000),
            inode: 1,
            device_key: 1,
            size: size as u64,
            ..Metadata::of(EntryKind::File)
        },
        content: Content::Inline(Vec::new()),
        changed_while_read: false,
        error: None,
    }
}

/// Files by path, sorted, each with its content.
pub(crate) struct Memory(pub(crate) Vec<(String, Vec<u8>)>);

impl Source for Memory {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        Ok(Box::new(self.0.iter().map(|(path, bytes)| {
            let content = bytes.clone();
            let open =
                move || -> Result<Box<dyn ReadContent>> { Ok(Box::new(std::io::Cursor::new(content))) };
            Ok(Item::File(entry(path, bytes.len()), Box::new(open)))
        })))
    }
}
