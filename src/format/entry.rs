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
    /// Inode flags, as far as they can be set (see [`SETTABLE_FLAGS`]).
    pub flags: u32,
    /// Parts of a file that take no space and read as zeros, in order; its chunks hold the rest.
    pub holes: Vec<Hole>,
    /// What of its attributes could not be read, and why, if anything.
    pub lacks: Option<String>,
}

/// A part of a file that was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hole {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes, never 0.
    pub length: u64,
}

/// Inode flags that someone sets (`chattr`), and their names. The others tell how a file system stores an inode: they
/// come and go without a change of the file, and nobody can set them.
pub const SETTABLE_FLAGS: [(u32, &str); 17] = [
    (0x1, "secure-removal"),
    (0x2, "undelete"),
    (0x4, "compressed"),
    (0x8, "sync"),
    (0x10, "immutable"),
    (0x20, "append-only"),
    (0x40, "no-dump"),
    (0x80, "no-atime"),
    (0x400, "not-compressed"),
    (0x4000, "journal-data"),
    (0x8000, "no-tail"),
    (0x1_0000, "sync-folder"),
    (0x2_0000, "top-folder"),
    (0x80_0000, "no-copy-on-write"),
    (0x200_0000, "direct-access"),
    (0x2000_0000, "inherit-project"),
    (0x4000_0000, "case-fold"),
];
/// Of them, those that keep a file from being renamed or linked: immutable and append-only.
pub const FREEZING_FLAGS: u32 = 0x30;

/// All of [`SETTABLE_FLAGS`] at once.
#[must_use]
pub const fn settable_flags() -> u32 {
    let (mut all, mut at) = (0, 0);
    while at < SETTABLE_FLAGS.len() {
        all |= SETTABLE_FLAGS[at].0;
        at += 1;
    }
    all
}

/// The names of flags, for people.
#[must_use]
pub fn flag_names(flags: u32) -> Vec<&'static str> {
    SETTABLE_FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect()
}

impl Metadata {
    /// How many bytes of a file its chunks hold: all that are in no hole.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        let holes = self.holes.iter().fold(0_u64, |sum, hole| sum.saturating_add(hole.length));
        self.size.saturating_sub(holes)
    }

    /// Whether it is as a backup describes what holds the place of a mount that it does not enter, or a folder that only
    /// leads to a source: without times, which nothing has that somebody made.
    #[must_use]
    pub fn only_holds_a_place(&self) -> bool {
        let never = Timestamp::default();
        let holds = matches!(self.kind, EntryKind::Directory | EntryKind::File) && self.size == 0;
        holds && (self.mtime, self.ctime, self.btime) == (never, never, None)
    }

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
            holes: Vec::new(),
            lacks: None,
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
