//! Nodes of a manifest. A leaf holds entries in path order, front-coded; a branch holds its
//! children with sums; a list node holds chunks of one large file, or smaller list nodes.

use minicbor::{Decoder, Encoder, data::Type, decode, encode};

use super::{
    entry::{ChunkRef, Content, Entry, EntryKind, Hole, Metadata},
    wire::{Reader, Writer},
};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    id::BlobId,
    limits,
};

/// Most chunks that an entry holds itself; a longer file gets list nodes.
pub const INLINE_CHUNKS_MAX: usize = 256;
/// Most items in one node.
pub const NODE_ITEMS_MAX: usize = 4096;

/// A child of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The path of its first entry.
    pub first: Vec<u8>,
    /// The node.
    pub id: BlobId,
    /// Entries below it.
    pub entries: u64,
    /// Bytes of the files below it.
    pub bytes: u64,
}

/// A child of a list node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListChild {
    /// The list node.
    pub id: BlobId,
    /// Chunks below it.
    pub chunks: u64,
    /// Bytes below it.
    pub bytes: u64,
}

/// A node of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Entries.
    Leaf(Vec<Entry>),
    /// Children, and how many levels lie between them and the leaves, plus one.
    Branch(u8, Vec<Child>),
    /// Chunks of a large file.
    Chunks(Vec<ChunkRef>),
    /// List nodes of a large file, and their level.
    Lists(u8, Vec<ListChild>),
}

/// Name and value of each extended attribute.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Compares two paths component by component: `a/b` comes before `a-b`.
#[must_use]
pub fn compare_paths(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Node {
    /// The plaintext of the node; its keyed hash is its id.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Leaf(entries) => {
                out.u8(1);
                out.count(entries.len());
                let mut last: &[u8] = &[];
                for entry in entries {
                    encode_path(&mut out, last, &entry.path);
                    out.bytes(&encode_entry(entry));
                    last = &entry.path;
                }
            }
            Self::Branch(level, children) => {
                out.u8(2);
                out.u8(*level);
                out.count(children.len());
                let mut last: &[u8] = &[];
                for Child { first, id, entries, bytes } in children {
                    encode_path(&mut out, last, first);
                    out.raw(id.as_bytes());
                    out.number(*entries);
                    out.number(*bytes);
                    last = first;
                }
            }
            Self::Chunks(chunks) => {
                out.u8(3);
                out.count(chunks.len());
                for ChunkRef { id, length } in chunks {
                    out.raw(id.as_bytes());
                    out.number(u64::from(*length));
                }
            }
            Self::Lists(level, children) => {
                out.u8(4);
                out.u8(*level);
                out.count(children.len());
                for ListChild { id, chunks, bytes } in children {
                    out.raw(id.as_bytes());
                    out.number(*chunks);
                    out.number(*bytes);
                }
            }
        }
        out.finish()
    }

    /// # Errors
    /// `Damaged` for anything that `encode` does not write, for paths out of order, and for paths
    /// that could lead a restore out of its target.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "a manifest node");
        let node = match reader.u8()? {
            1 => {
                let mut entries: Vec<Entry> = Vec::new();
                for _ in 0..reader.count(NODE_ITEMS_MAX)? {
                    let last = entries.last().map_or(&[][..], |entry| &entry.path);
                    let path = decode_path(&mut reader, last)?;
                    entries.push(decode_entry(path, reader.bytes(limits::NODE_BYTES_MAX)?)?);
                }
                Self::Leaf(entries)
            }
            2 => {
                let level = decode_level(&mut reader)?;
                let mut children: Vec<Child> = Vec::new();
                for _ in 0..reader.count(NODE_ITEMS_MAX)? {
                    let last = children.last().map_or(&[][..], |child| &child.first);
                    let first = decode_path(&mut reader, last)?;
                    let id = BlobId::new(reader.array()?);
                    children.push(Child { first, id, entries: reader.number()?, bytes: reader.number()? });
                }
                Self::Branch(level, children)
            }
            3 => {
                let mut chunks = Vec::new();
                for _ in 0..reader.count(NODE_ITEMS_MAX)? {
                    chunks.push(ChunkRef {
                        id: BlobId::new(reader.array()?),
                        length: decode_length(&mut reader)?,
                    });
                }
                Self::Chunks(chunks)
            }
            4 => {
                let level = decode_level(&mut reader)?;
                let mut children = Vec::new();
                for _ in 0..reader.count(NODE_ITEMS_MAX)? {
                    let id = BlobId::new(reader.array()?);
                    children.push(ListChild { id, chunks: reader.number()?, bytes: reader.number()? });
                }
                Self::Lists(level, children)
            }
            _ => return Err(reader.damaged("its type is unknown")),
        };
        reader.finish()?;
        Ok(node)
    }
}

fn decode_level(reader: &mut Reader<'_>) -> Result<u8> {
    let level = reader.u8()?;
    if level == 0 || level > limits::TREE_LEVELS_MAX {
        return Err(reader.damaged("its level is impossible"));
    }
    Ok(level)
}

fn decode_length(reader: &mut Reader<'_>) -> Result<u32> {
    let length = reader.number32()?;
    if length == 0 || length as usize > limits::FRAME_BYTES_MAX {
        return Err(reader.damaged("the length of a chunk is impossible"));
    }
    Ok(length)
}

fn encode_path(out: &mut Writer, last: &[u8], path: &[u8]) {
    let shared = shared_prefix(last, path);
    out.count(shared);
    out.bytes(&path[shared..]);
}

/// Whether a path, without its leading slash, may stand in a manifest: whoever reads one that has another takes the whole node
/// for damaged.
#[must_use]
pub fn is_path(path: &[u8]) -> bool {
    let safe = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
    path.len() <= limits::PATH_BYTES_MAX && path.split(|byte| *byte == b'/').all(safe)
}

fn decode_path(reader: &mut Reader<'_>, last: &[u8]) -> Result<Vec<u8>> {
    let shared = reader.count(last.len())?;
    let mut path = last[..shared].to_vec();
    path.extend_from_slice(reader.bytes(limits::PATH_BYTES_MAX)?);
    if !is_path(&path) {
        return Err(reader.damaged("a path in it is not allowed"));
    }
    if !last.is_empty() && compare_paths(last, &path).is_ge() {
        return Err(reader.damaged("its paths are out of order"));
    }
    Ok(path)
}

fn kind_code(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::File => 0,
        EntryKind::Directory => 1,
        EntryKind::Symlink => 2,
        EntryKind::Fifo => 3,
        EntryKind::CharacterDevice => 4,
        EntryKind::BlockDevice => 5,
        EntryKind::Socket => 6,
    }
}

fn kind_from(code: u8) -> Option<EntryKind> {
    Some(match code {
        0 => EntryKind::File,
        1 => EntryKind::Directory,
        2 => EntryKind::Symlink,
        3 => EntryKind::Fifo,
        4 => EntryKind::CharacterDevice,
        5 => EntryKind::BlockDevice,
        6 => EntryKind::Socket,
        _ => return None,
    })
}

/// The CBOR map of an entry. Keys: 0 kind, 1 mode, 2 uid, 3 gid, 4 user, 5 group, 6 mtime, 7 ctime,
/// 8 btime, 9 inode, 10 device key, 11 links, 12 size, 13 link target, 14 device number, 15 xattrs,
/// 16 inode flags, 17 chunks, 18 list, 19 changed while read, 20 error, 21 holes, 23 what of its attributes could not be
/// read. A field at its default is left out.
fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    match write_entry(&mut Encoder::new(&mut out), entry) {
        Ok(()) => out,
        Err(error) => unreachable!("writing to memory cannot fail: {error}"),
    }
}

fn write_entry(e: &mut Encoder<&mut Vec<u8>>, entry: &Entry) -> Written {
    let Entry { path: _, metadata, content, changed_while_read, error } = entry;
    let Metadata {
        kind,
        mode,
        uid,
        gid,
        user,
        group,
        mtime,
        ctime,
        btime,
        inode,
        device_key,
        links,
        size,
        ..
    } = metadata;
    let Metadata { link_target, device_number, xattrs, flags, holes, lacks, .. } = metadata;
    e.begin_map()?;
    e.u8(0)?.u8(kind_code(*kind))?.u8(1)?.u32(*mode)?.u8(2)?.u32(*uid)?.u8(3)?.u32(*gid)?;
    if !user.is_empty() {
        e.u8(4)?.str(user)?;
    }
    if !group.is_empty() {
        e.u8(5)?.str(group)?;
    }
    for (key, time) in [(6, Some(*mtime)), (7, Some(*ctime)), (8, *btime)] {
        if let Some(time) = time {
            e.u8(key)?.array(2)?.i64(time.seconds)?.u32(time.nanoseconds)?;
        }
    }
    e.u8(9)?.u64(*inode)?.u8(10)?.u64(*device_key)?;
    // The keys ascend, or nobody can read the leaf.
    for (key, value, default) in [(11, *links, 1), (12, *size, 0)] {
        if value != default {
            e.u8(key)?.u64(value)?;
        }
    }
    if !link_target.is_empty() {
        e.u8(13)?.bytes(link_target)?;
    }
    if *device_number != 0 {
        e.u8(14)?.u64(*device_number)?;
    }
    if !xattrs.is_empty() {
        e.u8(15)?.array(xattrs.len() as u64)?;
        for (name, value) in xattrs {
            e.array(2)?.bytes(name)?.bytes(value)?;
        }
    }
    if *flags != 0 {
        e.u8(16)?.u32(*flags)?;
    }
    write_content(e, content)?;
    if *changed_while_read {
        e.u8(19)?.bool(true)?;
    }
    if let Some(error) = error {
        e.u8(20)?.str(error)?;
    }
    write_holes(e, holes)?;
    if let Some(lacks) = lacks {
        e.u8(23)?.str(lacks)?;
    }
    e.end()?;
    Ok(())
}

/// Writing to memory.
type Written = std::result::Result<(), encode::Error<std::convert::Infallible>>;

fn write_holes(e: &mut Encoder<&mut Vec<u8>>, holes: &[Hole]) -> Written {
    if holes.is_empty() {
        return Ok(());
    }
    e.u8(21)?.array(holes.len() as u64 * 2)?;
    let mut end = 0;
    for Hole { offset, length } in holes {
        e.u64(offset - end)?.u64(*length)?;
        end = offset + length;
    }
    Ok(())
}

fn write_content(e: &mut Encoder<&mut Vec<u8>>, content: &Content) -> Written {
    match content {
        Content::Inline(chunks) if chunks.is_empty() => {}
        Content::Inline(chunks) => {
            e.u8(17)?.array(chunks.len() as u64 * 2)?;
            for ChunkRef { id, length } in chunks {
                e.bytes(id.as_bytes())?.u32(*length)?;
            }
        }
        Content::List { node, chunks, level } => {
            e.u8(18)?.array(3)?.bytes(node.as_bytes())?.u64(*chunks)?.u8(*level)?;
        }
    }
    Ok(())
}

fn decode_entry(path: Vec<u8>, bytes: &[u8]) -> Result<Entry> {
    let mut entry = Entry {
        path,
        metadata: Metadata::of(EntryKind::File),
        content: Content::Inline(Vec::new()),
        changed_while_read: false,
        error: None,
    };
    let damaged = |e: decode::Error| {
        Error::damaged("a manifest entry", "it is not a valid map").with_source(e.to_string())
    };
    let mut decoder = Decoder::new(bytes);
    read_entry(&mut decoder, &mut entry).map_err(damaged)?;
    if decoder.position() != bytes.len() {
        return Err(Error::damaged("a manifest entry", "something follows its end"));
    }
    Ok(entry)
}

fn read_time(d: &mut Decoder<'_>) -> std::result::Result<Timestamp, decode::Error> {
    if d.array()? != Some(2) {
        return Err(decode::Error::message("a time has two numbers"));
    }
    let time = Timestamp { seconds: d.i64()?, nanoseconds: d.u32()? };
    if time.nanoseconds > 999_999_999 {
        return Err(decode::Error::message("a time has too many nanoseconds"));
    }
    Ok(time)
}

fn read_id(d: &mut Decoder<'_>) -> std::result::Result<BlobId, decode::Error> {
    BlobId::from_slice(d.bytes()?).ok_or_else(|| decode::Error::message("an id has 32 bytes"))
}

fn read_entry(d: &mut Decoder<'_>, entry: &mut Entry) -> std::result::Result<(), decode::Error> {
    if d.map()?.is_some() {
        return Err(decode::Error::message("an entry is an open map"));
    }
    let mut last = None;
    while d.datatype()? != Type::Break {
        // A negative key would be critical: it is no u32, and so an error.
        let key = d.u32()?;
        if last.is_some_and(|last| last >= key) {
            return Err(decode::Error::message("keys are out of order"));
        }
        last = Some(key);
        let m = &mut entry.metadata;
        match key {
            0 => m.kind = kind_from(d.u8()?).ok_or_else(|| decode::Error::message("unknown kind"))?,
            1 => m.mode = d.u32()?,
            2 => m.uid = d.u32()?,
            3 => m.gid = d.u32()?,
            4 => d.str()?.clone_into(&mut m.user),
            5 => d.str()?.clone_into(&mut m.group),
            6 => m.mtime = read_time(d)?,
            7 => m.ctime = read_time(d)?,
            8 => m.btime = Some(read_time(d)?),
            9 => m.inode = d.u64()?,
            10 => m.device_key = d.u64()?,
            11 => m.links = d.u64()?,
            12 => m.size = d.u64()?,
            13 => m.link_target = d.bytes()?.to_vec(),
            14 => m.device_number = d.u64()?,
            15 => m.xattrs = read_xattrs(d)?,
            16 => m.flags = d.u32()?,
            17 => entry.content = Content::Inline(read_chunks(d)?),
            18 => {
                if d.array()? != Some(3) {
                    return Err(decode::Error::message("a list has an id, a count and a level"));
                }
                let (node, chunks, level) = (read_id(d)?, d.u64()?, d.u8()?);
                if level > limits::TREE_LEVELS_MAX {
                    return Err(decode::Error::message("the level of a list is impossible"));
                }
                entry.content = Content::List { node, chunks, level };
            }
            19 => entry.changed_while_read = d.bool()?,
            20 => entry.error = Some(d.str()?.to_owned()),
            21 => m.holes = read_holes(d, m.size)?,
            23 => m.lacks = Some(d.str()?.to_owned()),
            _ => d.skip()?,
        }
    }
    d.skip()
}

fn read_xattrs(d: &mut Decoder<'_>) -> std::result::Result<Xattrs, decode::Error> {
    let count = d.array()?.filter(|count| *count <= limits::ATTRIBUTES_MAX as u64);
    let count = count.ok_or_else(|| decode::Error::message("an entry has too many attributes"))?;
    let mut xattrs = Vec::new();
    for _ in 0..count {
        if d.array()? != Some(2) {
            return Err(decode::Error::message("an attribute has a name and a value"));
        }
        xattrs.push((d.bytes()?.to_vec(), d.bytes()?.to_vec()));
    }
    Ok(xattrs)
}

/// Bytes between the holes and lengths of the holes by turns: so they cannot be out of order or overlap.
fn read_holes(d: &mut Decoder<'_>, size: u64) -> std::result::Result<Vec<Hole>, decode::Error> {
    let count = d.array()?.filter(|n| n % 2 == 0 && *n <= 2 * limits::HOLES_MAX as u64);
    let count = count.ok_or_else(|| decode::Error::message("too many holes in an entry"))?;
    let (mut holes, mut end) = (Vec::new(), 0_u64);
    for number in 0..count / 2 {
        let (between, length) = (d.u64()?, d.u64()?);
        let hole = end.checked_add(between).map(|offset| Hole { offset, length });
        let after = hole.and_then(|hole| hole.offset.checked_add(length)).filter(|end| *end <= size);
        let (Some(hole), Some(after)) = (hole, after) else {
            return Err(decode::Error::message("a hole lies behind the end of its file"));
        };
        if length == 0 || between == 0 && number > 0 {
            return Err(decode::Error::message("a hole or what is between two is empty"));
        }
        holes.push(hole);
        end = after;
    }
    Ok(holes)
}

fn read_chunks(d: &mut Decoder<'_>) -> std::result::Result<Vec<ChunkRef>, decode::Error> {
    let count = d.array()?.filter(|n| n % 2 == 0 && *n <= 2 * INLINE_CHUNKS_MAX as u64);
    let count = count.ok_or_else(|| decode::Error::message("too many chunks in an entry"))?;
    let mut chunks = Vec::new();
    for _ in 0..count / 2 {
        let chunk = ChunkRef { id: read_id(d)?, length: d.u32()? };
        if chunk.length == 0 || chunk.length as usize > limits::FRAME_BYTES_MAX {
            return Err(decode::Error::message("the length of a chunk is impossible"));
        }
        chunks.push(chunk);
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        let mut entry = decode_entry(path.into(), &[0xbf, 0xff]).unwrap();
        entry.metadata.mode = 0o644;
        entry.metadata.user = "root".into();
        entry.metadata.mtime = Timestamp { seconds: -5, nanoseconds: 7 };
        entry.metadata.xattrs = vec![(b"user.a".to_vec(), b"b".to_vec())];
        entry.content = Content::Inline(vec![ChunkRef { id: BlobId::new([3; 32]), length: 9 }]);
        entry
    }

    fn hole(offset: u64, length: u64) -> Hole {
        Hole { offset, length }
    }

    #[test]
    fn holes_that_cannot_be_are_refused() {
        let decoded = |size: u64, numbers: &[u64]| {
            let mut bytes = Vec::new();
            let mut e = Encoder::new(&mut bytes);
            e.begin_map().unwrap().u8(12).unwrap().u64(size).unwrap().u8(21).unwrap();
            e.array(numbers.len() as u64).unwrap();
            for number in numbers {
                e.u64(*number).unwrap();
            }
            e.end().unwrap();
            decode_entry(b"a".to_vec(), &bytes)
        };
        assert_eq!(decoded(9, &[0, 2, 3, 4]).unwrap().metadata.holes, [hole(0, 2), hole(5, 4)]);
        assert_eq!(decoded(9, &[0, 2, 3, 4]).unwrap().metadata.content_bytes(), 3);
        for wrong in
            [&[0, 10][..], &[1], &[1, 0], &[0, 1, 0, 1], &[u64::MAX, 1], &[1, u64::MAX], &[8, 1, 1, 1]]
        {
            assert!(decoded(9, wrong).is_err(), "{wrong:?}");
        }
        let most = limits::HOLES_MAX;
        assert!(decoded(u64::MAX, &vec![1; 2 * most]).is_ok());
        assert!(decoded(u64::MAX, &vec![1; 2 * most + 2]).is_err());
    }

    #[test]
    fn an_entry_with_every_field_survives_a_round_trip() {
        let mut full = entry("a");
        let m = &mut full.metadata;
        (m.kind, m.uid, m.gid, m.group) = (EntryKind::Symlink, 1, 2, "wheel".into());
        (m.ctime, m.btime) = (Timestamp::from_seconds(1), Some(Timestamp::from_seconds(2)));
        (m.inode, m.device_key, m.links, m.size) = (3, 4, 5, 6);
        (m.link_target, m.device_number, m.flags) = (b"t".to_vec(), 7, 8);
        (m.holes, m.lacks) = (vec![hole(0, 1), hole(2, 3)], Some("user.a".into()));
        (full.changed_while_read, full.error) = (true, Some("why".into()));
        let node = Node::Leaf(vec![full]);
        assert_eq!(Node::decode(&node.encode()).unwrap(), node);
    }

    #[test]
    fn nodes_survive_a_round_trip() {
        let nodes = [
            Node::Leaf(vec![entry("a"), entry("a/b"), entry("a-b")]),
            Node::Leaf(Vec::new()),
            Node::Branch(
                1,
                vec![Child { first: b"a/b".to_vec(), id: BlobId::new([1; 32]), entries: 3, bytes: 4 }],
            ),
            Node::Chunks(vec![ChunkRef { id: BlobId::new([1; 32]), length: 5 }]),
            Node::Lists(2, vec![ListChild { id: BlobId::new([1; 32]), chunks: 5, bytes: 1 << 40 }]),
        ];
        for node in nodes {
            assert_eq!(Node::decode(&node.encode()).unwrap(), node);
        }
    }

    #[test]
    fn dangerous_and_disordered_paths_are_refused() {
        for path in ["..", "a/../b", "/a", "a//b", "a\0", ".", ""] {
            let bytes = Node::Leaf(vec![entry(path)]).encode();
            assert!(Node::decode(&bytes).is_err(), "{path:?}");
        }
        assert!(Node::decode(&Node::Leaf(vec![entry("b"), entry("a")]).encode()).is_err());
        assert!(Node::decode(&Node::Leaf(vec![entry("a"), entry("a")]).encode()).is_err());
    }

    #[test]
    fn every_truncation_is_an_error_and_none_panics() {
        let bytes = Node::Leaf(vec![entry("a"), entry("a/b")]).encode();
        for end in 0..bytes.len() {
            assert!(Node::decode(&bytes[..end]).is_err(), "{end}");
        }
    }
}
