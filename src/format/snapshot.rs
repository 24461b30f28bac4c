//! The root record of one backup, and the record that a run began or failed.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use super::path::is_below;
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    id::{BlobId, IdentityId, ObjectId, RepositoryId},
    limits,
};

/// At most this many unreadable entries are named in a snapshot.
pub const UNREADABLE_NAMED_MAX: usize = 100;

/// What a backup counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Entries in the manifest.
    pub entries: u64,
    /// Files among them.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Files whose content was taken from the parent.
    pub files_unchanged: u64,
    /// Bytes of chunks that were new.
    pub bytes_new: u64,
    /// Bytes of the packs written.
    pub bytes_stored: u64,
}

/// The record of one backup: sealed to the metadata key, signed and chained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The snapshot of this identity before this one.
    pub previous: Option<ObjectId>,
    /// The highest registry number seen.
    pub registry: u64,
    /// The snapshot that this one replaces, after a commit that came too late.
    pub replaces: Option<ObjectId>,
    /// The time that the snapshot stands for: when the backup began, unless the user said otherwise.
    pub time: Timestamp,
    /// When the backup began, by the client's clock.
    pub begun: Timestamp,
    /// The host.
    pub host: String,
    /// The user who ran it.
    pub user: String,
    /// Tags.
    pub tags: Vec<String>,
    /// What was backed up: absolute paths.
    pub sources: Vec<Vec<u8>>,
    /// The root node of the manifest.
    pub root: BlobId,
    /// How many levels of branches lie above the leaves of the manifest: so whoever reads many trees can
    /// read them level by level, and each node that they share once.
    pub levels: u8,
    /// What was counted.
    pub statistics: Statistics,
    /// Entries that could not be read.
    pub unreadable: u64,
    /// The first of them, with the reason.
    pub unreadable_named: Vec<(Vec<u8>, String)>,
    /// Version of the program.
    pub program: String,
    /// The parameters of the repository and the domain: to rebuild a lost registry from.
    pub parameters: Parameters,
    /// Random, so that no two records are equal.
    pub nonce: [u8; 16],
    /// What it is a copy of, if it is one of a snapshot of another repository.
    pub origin: Option<Origin>,
    /// Of a copy: who wrote its original, as far as that is known.
    pub original_writer: Option<IdentityId>,
}

/// Names a snapshot among those of all repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The repository that it was backed up to.
    pub repository: RepositoryId,
    /// Its id there.
    pub snapshot: ObjectId,
}

/// What `init` and `key add` decided for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The commit window in seconds.
    pub commit_window_seconds: u64,
    /// The smallest grace in seconds.
    pub minimum_grace_seconds: u64,
    /// Smallest, average and largest chunk of the domain in bytes.
    pub chunk_sizes: [u32; 3],
}

/// Fields that every snapshot has: all but the previous one, the one that it replaces, its origin and who wrote that.
const REQUIRED: [u64; 14] = [2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

type Encoded = std::result::Result<(), encode::Error<std::convert::Infallible>>;
type Decoded<T> = std::result::Result<T, decode::Error>;

impl Snapshot {
    /// The plaintext of the record. Keys: 1 previous, 2 registry, 3 replaces, 4 time, 5 host, 6 user,
    /// 7 tags, 8 sources, 9 root, 10 statistics, 11 unreadable, 12 the first of them, 13 program, 14 nonce,
    /// 15 begun, 16 parameters, 17 levels, 18 origin, 19 who wrote the original. They ascend.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.write(&mut Encoder::new(&mut out)) {
            Ok(()) => out,
            Err(error) => unreachable!("writing to memory cannot fail: {error}"),
        }
    }

    fn write(&self, e: &mut Encoder<&mut Vec<u8>>) -> Encoded {
        let Self { previous, registry, replaces, time, host, user, tags, sources, root, statistics, .. } =
            self;
        let Self { unreadable, unreadable_named, program, nonce, begun, parameters, levels, .. } = self;
        let Self { origin, original_writer, .. } = self;
        let Parameters { commit_window_seconds, minimum_grace_seconds, chunk_sizes } = parameters;
        let Statistics { entries, files, bytes, files_unchanged, bytes_new, bytes_stored } = statistics;
        e.begin_map()?;
        if let Some(id) = previous {
            e.u8(1)?.bytes(id.as_bytes())?;
        }
        e.u8(2)?.u64(*registry)?;
        if let Some(id) = replaces {
            e.u8(3)?.bytes(id.as_bytes())?;
        }
        e.u8(4)?.array(2)?.i64(time.seconds)?.u32(time.nanoseconds)?;
        e.u8(5)?.str(host)?.u8(6)?.str(user)?;
        e.u8(7)?.array(tags.len() as u64)?;
        for tag in tags {
            e.str(tag)?;
        }
        e.u8(8)?.array(sources.len() as u64)?;
        for source in sources {
            e.bytes(source)?;
        }
        e.u8(9)?.bytes(root.as_bytes())?.u8(10)?.array(6)?;
        for number in [entries, files, bytes, files_unchanged, bytes_new, bytes_stored] {
            e.u64(*number)?;
        }
        e.u8(11)?.u64(*unreadable)?.u8(12)?.array(unreadable_named.len() as u64)?;
        for (path, reason) in unreadable_named {
            e.array(2)?.bytes(path)?.str(reason)?;
        }
        e.u8(13)?.str(program)?.u8(14)?.bytes(nonce)?;
        e.u8(15)?.array(2)?.i64(begun.seconds)?.u32(begun.nanoseconds)?;
        e.u8(16)?.array(5)?.u64(*commit_window_seconds)?.u64(*minimum_grace_seconds)?;
        for size in chunk_sizes {
            e.u32(*size)?;
        }
        e.u8(17)?.u8(*levels)?;
        if let Some(Origin { repository, snapshot }) = origin {
            e.u8(18)?.array(2)?.bytes(repository.as_bytes())?.bytes(snapshot.as_bytes())?;
        }
        if let Some(identity) = original_writer {
            e.u8(19)?.bytes(identity.as_bytes())?;
        }
        e.end()?;
        Ok(())
    }

    /// The sources as the manifest has their paths.
    pub fn roots(&self) -> impl Iterator<Item = &[u8]> {
        self.sources.iter().map(|source| source.strip_prefix(b"/").unwrap_or(source))
    }

    /// Whether the folder at `path` (no leading slash) only leads to sources: its owner and mode are those
    /// that it had, its times stand for nothing.
    #[must_use]
    pub fn leads_only(&self, path: &[u8]) -> bool {
        self.leads_to_a_source(path) && !self.roots().any(|source| source == path || is_below(path, source))
    }

    /// Whether `path` (no leading slash) is a source.
    #[must_use]
    pub fn is_source(&self, path: &[u8]) -> bool {
        self.roots().any(|source| source == path)
    }

    /// Whether a source is below the folder at `path` (no leading slash): it may have been left out of another one.
    #[must_use]
    pub fn leads_to_a_source(&self, path: &[u8]) -> bool {
        self.roots().any(|source| is_below(source, path))
    }

    /// # Errors
    /// `Damaged` when it is not a snapshot record.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let invalid = |e: decode::Error| {
            Error::damaged("a snapshot record", "it is not a valid map").with_source(e.to_string())
        };
        super::unknown::check(&mut Decoder::new(bytes)).map_err(invalid)?;
        let mut d = Decoder::new(bytes);
        let snapshot = Self::read(&mut d).map_err(invalid)?;
        if d.position() == bytes.len() {
            Ok(snapshot)
        } else {
            Err(Error::damaged("a snapshot record", "something follows its end"))
        }
    }

    /// A record with nothing in it, to be filled.
    pub(crate) fn empty() -> Self {
        Self {
            previous: None,
            registry: 0,
            replaces: None,
            time: Timestamp::default(),
            begun: Timestamp::default(),
            host: String::new(),
            user: String::new(),
            tags: Vec::new(),
            sources: Vec::new(),
            root: BlobId::new([0; 32]),
            levels: 0,
            statistics: Statistics::default(),
            unreadable: 0,
            unreadable_named: Vec::new(),
            program: String::new(),
            parameters: Parameters::default(),
            nonce: [0; 16],
            origin: None,
            original_writer: None,
        }
    }

    fn read(d: &mut Decoder<'_>) -> Decoded<Self> {
        let mut snapshot = Self::empty();
        if d.map()?.is_some() {
            return Err(decode::Error::message("a snapshot is an open map"));
        }
        let mut required = REQUIRED.to_vec();
        while d.datatype()? != minicbor::data::Type::Break {
            let key = d.u64()?;
            required.retain(|other| *other != key);
            match key {
                1 => snapshot.previous = Some(read_id(d)?),
                2 => snapshot.registry = d.u64()?,
                3 => snapshot.replaces = Some(read_id(d)?),
                4 => snapshot.time = read_time(d)?,
                5 => snapshot.host = read_text(d)?,
                6 => snapshot.user = read_text(d)?,
                7 => snapshot.tags = read_list(d, limits::SNAPSHOT_TAGS_MAX, read_text)?,
                8 => snapshot.sources = read_list(d, limits::SOURCES_MAX, |d| Ok(d.bytes()?.to_vec()))?,
                9 => snapshot.root = BlobId::new(read_array(d)?),
                10 => {
                    let n = read_list(d, 6, Decoder::u64)?;
                    let [entries, files, bytes, files_unchanged, bytes_new, bytes_stored] = n[..] else {
                        return Err(decode::Error::message("statistics have six numbers"));
                    };
                    snapshot.statistics =
                        Statistics { entries, files, bytes, files_unchanged, bytes_new, bytes_stored };
                }
                11 => snapshot.unreadable = d.u64()?,
                12 => {
                    snapshot.unreadable_named = read_list(d, UNREADABLE_NAMED_MAX, |d| {
                        d.array()?;
                        Ok((d.bytes()?.to_vec(), d.str()?.to_owned()))
                    })?;
                }
                13 => snapshot.program = read_text(d)?,
                14 => snapshot.nonce = read_array(d)?,
                15 => snapshot.begun = read_time(d)?,
                16 => {
                    d.array()?;
                    snapshot.parameters = Parameters {
                        commit_window_seconds: d.u64()?,
                        minimum_grace_seconds: d.u64()?,
                        chunk_sizes: [d.u32()?, d.u32()?, d.u32()?],
                    };
                }
                17 => {
                    snapshot.levels = d.u8()?;
                    if snapshot.levels > limits::TREE_LEVELS_MAX {
                        return Err(decode::Error::message("a manifest has too many levels"));
                    }
                }
                18 => {
                    if d.array()? != Some(2) {
                        return Err(decode::Error::message("an origin has two ids"));
                    }
                    let repository = RepositoryId::new(read_array(d)?);
                    snapshot.origin = Some(Origin { repository, snapshot: read_id(d)? });
                }
                19 => snapshot.original_writer = Some(IdentityId::new(read_array(d)?)),
                _ => d.skip()?,
            }
        }
        d.skip()?;
        if required.is_empty() { Ok(snapshot) } else { Err(decode::Error::message("a field is missing")) }
    }
}

fn read_array<const N: usize>(d: &mut Decoder<'_>) -> Decoded<[u8; N]> {
    d.bytes()?
        .try_into()
        .map_err(|_error: std::array::TryFromSliceError| decode::Error::message("wrong length"))
}

fn read_time(d: &mut Decoder<'_>) -> Decoded<Timestamp> {
    d.array()?;
    Ok(Timestamp { seconds: d.i64()?, nanoseconds: d.u32()? })
}

fn read_id(d: &mut Decoder<'_>) -> Decoded<ObjectId> {
    read_array(d).map(ObjectId::new)
}

fn read_text(d: &mut Decoder<'_>) -> Decoded<String> {
    let text = d.str()?;
    if text.len() > limits::SNAPSHOT_TEXT_BYTES_MAX {
        return Err(decode::Error::message("a text is longer than any may be"));
    }
    Ok(text.to_owned())
}

/// A list of at most so many items: an item in memory is far larger than the byte that an empty one takes.
fn read_list<'b, T>(
    d: &mut Decoder<'b>,
    most: usize,
    item: impl Fn(&mut Decoder<'b>) -> Decoded<T>,
) -> Decoded<Vec<T>> {
    let count = d.array()?.ok_or_else(|| decode::Error::message("a list has a count"))?;
    if count > most as u64 {
        return Err(decode::Error::message("a list is longer than any may be"));
    }
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(item(d)?);
    }
    Ok(list)
}

/// A run began, and, if it failed, how.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Run {
    /// When, by the client's clock.
    #[n(0)]
    pub time: Timestamp,
    /// The host.
    #[n(1)]
    pub host: String,
    /// What ran: `backup`.
    #[n(2)]
    pub command: String,
    /// Exit code and message, if it failed.
    #[n(3)]
    pub failure: Option<(u8, String)>,
    /// Random, so that no two records are equal.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
}

impl Run {
    /// The plaintext of the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        super::encode_record(self)
    }

    /// # Errors
    /// `Damaged` when it is not a run record.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        super::decode_record(bytes, "a run record")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_above_every_source_lead_there() {
        let leads = |path: &str, sources: &[&str]| {
            let mut record = minimal();
            record.sources = sources.iter().map(|source| source.as_bytes().to_vec()).collect();
            record.leads_only(path.as_bytes())
        };
        assert!(leads("srv", &["/srv/data"]));
        assert!(!leads("srv/data", &["/srv/data"]));
        assert!(!leads("srv/data/a", &["/srv/data"]));
        assert!(!leads("srv/da", &["/srv/data"]));
        assert!(!leads("srv", &["/srv/data", "/srv"]));
        assert!(!leads("srv", &["/"]));
        assert!(leads("srv", &["/home", "/srv/data"]));
    }

    #[test]
    fn a_record_survives_and_unknown_keys_are_skipped() {
        let record = minimal();
        assert_eq!(Snapshot::decode(&record.encode()).unwrap(), record);
        let origin = Origin { repository: RepositoryId::new([3; 32]), snapshot: ObjectId::new([4; 32]) };
        let writer = Some(IdentityId::new([5; IdentityId::LEN]));
        for (origin, original_writer) in [(Some(origin), None), (None, writer), (Some(origin), writer)] {
            let copied = Snapshot { origin, original_writer, ..minimal() };
            assert_eq!(Snapshot::decode(&copied.encode()).unwrap(), copied);
        }
        let mut longer = record.encode();
        longer.pop();
        longer.extend_from_slice(&[0x18, 99, 0x82, 1, 2, 0xff]);
        assert_eq!(Snapshot::decode(&longer).unwrap(), record);
        assert!(Snapshot::decode(&[&longer[..], &[0]].concat()).is_err(), "something follows");
        // A critical field, an empty record.
        longer.truncate(longer.len() - 6);
        assert!(Snapshot::decode(&[&longer[..], &[0x20, 1, 0xff]].concat()).is_err());
        assert!(Snapshot::decode(&[0xbf, 0xff]).is_err());
        for length in 0..record.encode().len() {
            assert!(Snapshot::decode(&record.encode()[..length]).is_err());
        }
    }

    #[test]
    fn a_record_with_more_than_any_may_have_is_damaged() {
        let text = "x".repeat(limits::SNAPSHOT_TEXT_BYTES_MAX);
        let most = Snapshot {
            host: text.clone(),
            user: text.clone(),
            tags: vec![String::new(); limits::SNAPSHOT_TAGS_MAX],
            sources: vec![Vec::new(); limits::SOURCES_MAX],
            unreadable_named: vec![(Vec::new(), String::new()); UNREADABLE_NAMED_MAX],
            program: text.clone(),
            ..minimal()
        };
        assert_eq!(Snapshot::decode(&most.encode()).unwrap(), most);
        let changes: [fn(&mut Snapshot); 7] = [
            |record| record.host.push('x'),
            |record| record.user.push('x'),
            |record| record.program.push('x'),
            |record| record.tags = vec!["x".repeat(limits::SNAPSHOT_TEXT_BYTES_MAX + 1)],
            |record| record.tags.push(String::new()),
            |record| record.sources.push(Vec::new()),
            |record| record.unreadable_named.push((Vec::new(), String::new())),
        ];
        for change in changes {
            let mut more = most.clone();
            change(&mut more);
            assert!(Snapshot::decode(&more.encode()).is_err());
        }
    }

    #[test]
    fn a_run_survives_with_and_without_a_failure() {
        let time = Timestamp { seconds: 1, nanoseconds: 2 };
        let (host, command) = ("host".to_owned(), "backup".to_owned());
        let run = Run { time, host, command, failure: None, nonce: [3; 16] };
        let failed = Run { failure: Some((75, "no network".to_owned())), ..run.clone() };
        for run in [run, failed] {
            assert_eq!(Run::decode(&run.encode()).unwrap(), run);
        }
    }

    fn minimal() -> Snapshot {
        Snapshot {
            previous: Some(ObjectId::new([1; 32])),
            registry: 2,
            replaces: None,
            time: Timestamp { seconds: -3, nanoseconds: 4 },
            begun: Timestamp::from_seconds(5),
            host: "host".to_owned(),
            user: "user".to_owned(),
            tags: vec!["tag".to_owned()],
            sources: vec![b"/srv".to_vec()],
            root: BlobId::new([6; 32]),
            levels: 2,
            statistics: Statistics { entries: 1, files: 2, bytes: 3, ..Statistics::default() },
            unreadable: 1,
            unreadable_named: vec![(b"srv/x".to_vec(), "no".to_owned())],
            program: "test".to_owned(),
            parameters: Parameters {
                commit_window_seconds: 7,
                minimum_grace_seconds: 8,
                chunk_sizes: [1, 2, 3],
            },
            nonce: [9; 16],
            origin: None,
            original_writer: None,
        }
    }
}
