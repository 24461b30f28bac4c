//! An entry of a manifest: one file, directory, symlink, ... as it was captured.

use crate::{clock::Timestamp, id::BlobId};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A socket: noted, never restored.
    Socket,
}

/// Everything about an entry but its path and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky (the low 12 bits of `st_mode`).
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Name of the owner, empty if it has none.
    pub user: String,
    /// Name of the group, empty if it has none.
    pub group: String,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Birth, where the file system tells.
    pub btime: Option<Timestamp>,
    /// Inode number.
    pub inode: u64,
    /// A key of the device that survives a reboot.
    pub device_key: u64,
    /// Number of hard links. Entries of one device key and inode with more than one are one group.
    pub links: u64,
    /// Bytes of a file; 0 otherwise.
    pub size: u64,
    /// Where a symlink points.
    pub link_target: Vec<u8>,
    /// The device that a device file names (major << 32 | minor).
    pub device_number: u64,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Inode flags.
    pub flags: u32,
}

impl Metadata {
    /// Of something of which only the kind is known: owned by root, without times, with one name.
    #[must_use]
    pub const fn of(kind: EntryKind) -> Self {
        const NEVER: Timestamp = Timestamp::from_seconds(0);
        Self {
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            user: String::new(),
            group: String::new(),
            mtime: NEVER,
            ctime: NEVER,
            btime: None,
            inode: 0,
            device_key: 0,
            links: 1,
            size: 0,
            link_target: Vec::new(),
            device_number: 0,
            xattrs: Vec::new(),
            flags: 0,
        }
    }
}

/// A chunk of a file: its id and its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// The chunk.
    pub id: BlobId,
    /// Its length in bytes, 1 to `CHUNK_BYTES_MAX`.
    pub length: u32,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its chunks in order; empty for an empty file and for anything that is not a file.
    Inline(Vec<ChunkRef>),
    /// Too many chunks for the entry itself: the root of a tree of list nodes.
    List {
        /// The root node.
        node: BlobId,
        /// Chunks in all.
        chunks: u64,
        /// How many levels of list nodes lie between the root and the nodes that hold the chunks.
        level: u8,
    },
}

/// One file, directory, symlink, ... of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The absolute path without its leading slash: `srv/data/a`. Never empty, no empty, `.` or
    /// `..` component, no NUL.
    pub path: Vec<u8>,
    /// Its metadata.
    pub metadata: Metadata,
    /// Its content.
    pub content: Content,
    /// The file changed while it was read.
    pub changed_while_read: bool,
    /// Why it could not be read, if it could not.
    pub error: Option<String>,
}
