//! `verify`: whether everything that a snapshot holds is on this machine as it was, chunk by chunk, without
//! reading any stored data, and nothing else beside it. Folders are compared too if they or something in them is
//! meant.

use std::{
    collections::HashMap,
    fs::File,
    io,
    ops::Range,
    os::{fd::AsFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    slice,
};

use super::restore::{Group, link_group};
use crate::{
    crypto::ChunkIdKey,
    error::{Error, ErrorKind, Result},
    filesystem::{
        attributes,
        existing::Existing,
        holes::{self, Layout},
        remove::Never,
        select::Selection,
        unmet::{Ended, Unmet},
    },
    format::{
        entry::{ChunkRef, Entry, EntryKind, FREEZING_FLAGS, Hole, Metadata, flag_names},
        path::{is_below, join},
    },
    limits,
    progress::{Phase, Progress},
    repository::{
        Repository,
        manifest::{Gap, NodeSource, for_each_chunk, for_each_entry},
        reader::NodeReader,
        snapshots::KnownSnapshot,
    },
};

/// Differences are named one by one up to so many, and counted beyond.
const NAMED_MAX: usize = 10_000;

/// What to compare.
#[derive(Debug)]
pub struct VerifyOptions {
    /// Only what is at and below this path (no leading slash); empty for everything.
    pub subpath: Vec<u8>,
    /// What of it.
    pub selection: Selection,
    /// Whether owners must be the same too.
    pub owners: Owners,
    /// Whether what is there besides is a difference.
    pub besides: Besides,
    /// Folders that no backup holds: the repository's, the cache.
    pub never: Vec<PathBuf>,
}

impl Default for VerifyOptions {
    /// Everything, with owners, and with what is there besides.
    fn default() -> Self {
        Self {
            subpath: Vec::new(),
            selection: Selection::default(),
            owners: Owners::Compare,
            besides: Besides::Tell,
            never: Vec::new(),
        }
    }
}

/// Whether what is in the folders of a snapshot, and not in the snapshot, is a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Besides {
    /// It is.
    Tell,
    /// It does not matter.
    Ignore,
}

/// Whether owners must be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// The same name; the same number where there is none.
    Compare,
    /// The same number, whatever its name.
    Numbers,
    /// They are left out.
    Ignore,
}

/// How an entry differs from what the snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is not there.
    Missing,
    /// It is there, and the snapshot does not have it; a folder with all that is in it.
    Extra(EntryKind),
    /// It is of another kind.
    Kind(EntryKind),
    /// It has so many bytes now.
    Size(u64),
    /// These bytes of it differ; where nobody knows which, none.
    Content(Vec<Range<u64>>),
    /// The link points there now.
    LinkTarget(Vec<u8>),
    /// It has these permission bits now.
    Mode(u32),
    /// It belongs to these now.
    Owner(String),
    /// It is not the same file any more as the one with this path.
    NotLinked(Vec<u8>),
    /// It stands for another device now (major and minor number).
    Device(u64),
    /// These extended attributes are others, are missing or were added (an ACL that was added lets others in).
    Attributes(Vec<Vec<u8>>),
    /// It has these inode flags now.
    Flags(u32),
    /// Its time of modification is another.
    Modified,
    /// It could not be read.
    Unreadable(String),
}

impl Difference {
    /// One word for it, for scripts.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra(_) => "extra",
            Self::Kind(_) => "kind",
            Self::Size(_) => "size",
            Self::Content(_) => "content",
            Self::LinkTarget(_) => "link_target",
            Self::Mode(_) => "mode",
            Self::Owner(_) => "owner",
            Self::NotLinked(_) => "hard_link",
            Self::Device(_) => "device",
            Self::Attributes(_) => "attributes",
            Self::Flags(_) => "flags",
            Self::Modified => "mtime",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// What people call it.
const fn word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "folder",
        EntryKind::Symlink => "link",
        EntryKind::Fifo => "pipe",
        EntryKind::CharacterDevice => "character device",
        EntryKind::BlockDevice => "block device",
        EntryKind::Socket => "socket",
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("it is missing"),
            Self::Extra(kind) => write!(f, "the snapshot does not have this {}", word(*kind)),
            Self::Kind(kind) => write!(f, "it is a {} now", word(*kind)),
            Self::Size(size) => write!(f, "it has {size} bytes now"),
            Self::Content(ranges) if ranges.is_empty() => f.write_str("its content differs"),
            Self::Content(ranges) => {
                f.write_str("these bytes differ:")?;
                ranges
                    .iter()
                    .take(8)
                    .try_for_each(|range| write!(f, " {}-{}", range.start, range.end - 1))?;
                if ranges.len() > 8 { f.write_str(" ...") } else { Ok(()) }
            }
            Self::LinkTarget(target) => {
                write!(f, "it points to {} now", String::from_utf8_lossy(target))
            }
            Self::Mode(mode) => write!(f, "its mode is {mode:04o} now"),
            Self::Owner(owner) => write!(f, "it belongs to {owner} now"),
            Self::NotLinked(path) => {
                write!(f, "it is no longer the same file as /{}", String::from_utf8_lossy(path))
            }
            Self::Device(number) => {
                write!(f, "it is the device {}:{} now", number >> 32, number & u64::from(u32::MAX))
            }
            Self::Attributes(names) => {
                f.write_str("these attributes differ:")?;
                names.iter().try_for_each(|name| write!(f, " {}", String::from_utf8_lossy(name)))
            }
            Self::Flags(0) => f.write_str("it has no inode flags now"),
            Self::Flags(flags) => write!(f, "its inode flags are {} now", flag_names(*flags).join(", ")),
            Self::Modified => f.write_str("its time of modification is another"),
            Self::Unreadable(why) => write!(f, "it could not be read: {why}"),
        }
    }
}

/// What was compared, and how it differs.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Files that are exactly as the snapshot has them.
    pub files: u64,
    /// Bytes that were read and compared.
    pub bytes: u64,
    /// Entries that differ.
    pub differing: u64,
    /// Of these what is missing.
    pub missing: u64,
    /// Of these what the snapshot does not have.
    pub extra: u64,
    /// The first of them, with each difference.
    pub differences: Vec<(Vec<u8>, Difference)>,
    /// Parts of the manifest that are lost, with the entries in them.
    pub lost: u64,
    /// Entries that the backup could not read, so that there is nothing to compare.
    pub not_backed_up: u64,
}

/// Is given what is read.
pub trait Witness {
    /// A file was opened, and will be read from its beginning.
    fn opened(&mut self, file: &File);
    /// The next bytes of it.
    fn bytes(&mut self, bytes: &[u8]);
    /// As many zeros come next: a hole.
    fn zeros(&mut self, length: u64) {
        let zeros = [0; 16 << 10];
        let mut left = length;
        while left > 0 {
            let piece = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.bytes(zeros.get(..piece).unwrap_or_default());
            left -= piece as u64;
        }
    }
    /// All of it was read, and all of it is as the snapshot has it; `path` is the one below the target.
    ///
    /// # Errors
    /// Whatever should end the comparison.
    fn same(&mut self, path: &[u8]) -> Result<()>;
}

/// Nobody.
struct Nobody;

impl Witness for Nobody {
    fn opened(&mut self, _: &File) {}
    fn bytes(&mut self, _: &[u8]) {}
    fn zeros(&mut self, _: u64) {}
    fn same(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Compares a snapshot with the tree below `target`, by the rule of restore; without one, with the files
/// that were backed up, where they were.
///
/// # Errors
/// The target is not there; `Forbidden` for a role that cannot check contents.
pub fn run(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    target: Option<&Path>,
    options: &VerifyOptions,
) -> Result<Verified> {
    run_before(repository, snapshot, target, options, &mut Nobody)
}

/// As [`run`], and gives a witness what is read.
///
/// # Errors
/// As [`run`]; what the witness says.
pub fn run_before(
    repository: &Repository,
    snapshot: &KnownSnapshot,
    target: Option<&Path>,
    options: &VerifyOptions,
    witness: &mut dyn Witness,
) -> Result<Verified> {
    let domain = snapshot.name.domain;
    let progress = repository.store.progress();
    progress.enter(Phase::Checking);
    let key = repository.chunk_keys(&domain)?.id;
    let view = repository.view_to_read(&domain)?;
    let nodes = NodeReader::new(repository, domain, &view.index)?;
    let below = super::restore::strip_of(&nodes, snapshot, &options.subpath)?;
    let (target, strip) = target.map_or((Path::new("/"), 0), |target| (target, below));
    progress.expect(snapshot.record.statistics.files, snapshot.record.statistics.bytes);
    let comparison = Comparison {
        snapshot,
        progress,
        owners: options.owners,
        strip,
        tree: Existing::open(target)?,
        key,
        nodes: &nodes,
        buffer: vec![0; limits::CHUNK_BYTES_MAX],
        witness,
        links: HashMap::new(),
        verified: Verified::default(),
    };
    // Of a sample most of a folder is not meant.
    let tells = options.besides == Besides::Tell && !options.selection.is_sample();
    let beside = Beside { options, never: Never::new(&options.never), unmet: Unmet::default() };
    let mut walk = Walk {
        options,
        comparison,
        beside: tells.then_some(beside),
        folders: Vec::new(),
        inside: Vec::new(),
    };
    walk.begin();
    for_each_entry(&nodes, snapshot.record.root, &options.subpath, &mut |entry| {
        progress.check()?;
        match entry {
            Ok(entry) => walk.entry(entry),
            Err(gap) => {
                walk.gap(gap);
                Ok(())
            }
        }
    })?;
    Ok(walk.end())
}

/// Goes over the entries of the snapshot.
struct Walk<'a> {
    options: &'a VerifyOptions,
    comparison: Comparison<'a>,
    beside: Option<Beside<'a>>,
    folders: Vec<OpenFolder>,
    /// The path of the innermost folder: those of the others are the beginnings of it.
    inside: Vec<u8>,
}

impl Walk<'_> {
    fn begin(&mut self) {
        let sources = &self.comparison.snapshot.record.sources;
        let everything = self.options.subpath.is_empty() && sources.iter().any(|source| source == b"/");
        if let Some(beside) = self.beside.as_mut().filter(|_| everything) {
            beside.enter(&mut self.comparison, b"");
        }
    }

    /// What is lost in the repository cannot be compared; the rest is.
    fn gap(&mut self, Gap { first, error }: Gap) {
        self.comparison.progress.trouble();
        if let Some(beside) = &mut self.beside {
            beside.unmet.doubt();
        }
        let verified = &mut self.comparison.verified;
        verified.lost += 1;
        if verified.differences.len() < NAMED_MAX {
            let why = format!("this entry and some that follow it are lost in the repository: {error}");
            verified.differences.push((first, Difference::Unreadable(why)));
        }
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        let Self { options, comparison, beside, folders, inside } = self;
        comparison.progress.at(&entry.path);
        if let Some(beside) = beside {
            beside.entry(comparison, &entry);
        }
        while !folders.is_empty() && !is_below(&entry.path, inside) {
            folders.pop();
            inside.truncate(folders.last().map_or(0, |folder| folder.length));
        }
        let selected = options.selection.selects_entry(&entry);
        if selected && (entry.error.is_some() || entry.metadata.lacks.is_some()) {
            comparison.verified.not_backed_up += 1;
        }
        let meant = selected && entry.error.is_none();
        if meant {
            for folder in folders.iter_mut().filter(|folder| !folder.compared) {
                folder.compared = true;
                folder.entry.path = inside[..folder.length].to_vec();
                comparison.entry(&folder.entry)?;
                folder.entry.path = Vec::new();
            }
            comparison.entry(&entry)?;
        }
        if entry.metadata.kind == EntryKind::Directory {
            let compared = meant || entry.error.is_some();
            inside.clone_from(&entry.path);
            let (length, entry) = (entry.path.len(), Entry { path: Vec::new(), ..entry });
            folders.push(OpenFolder { entry, length, compared });
        }
        Ok(())
    }

    fn end(mut self) -> Verified {
        if let Some(mut beside) = self.beside {
            while let Some(ended) = beside.unmet.end() {
                beside.tell(&mut self.comparison, &ended);
            }
        }
        self.comparison.verified
    }
}

/// Finds what is in folders beside what the snapshot has of them.
struct Beside<'a> {
    options: &'a VerifyOptions,
    never: Never,
    unmet: Unmet,
}

impl Beside<'_> {
    fn entry(&mut self, comparison: &mut Comparison<'_>, entry: &Entry) {
        while let Some(ended) = self.unmet.ends_before(&entry.path) {
            self.tell(comparison, &ended);
        }
        self.unmet.meet(&entry.path);
        // What the backup could not list, or only leads to a source, says nothing of what should be in it.
        let covered = entry.metadata.kind == EntryKind::Directory
            && entry.error.is_none()
            && !comparison.snapshot.record.leads_only(&entry.path)
            && self.options.selection.reaches_into(&entry.path);
        if covered {
            self.enter(comparison, &entry.path);
        }
    }

    fn enter(&mut self, comparison: &mut Comparison<'_>, path: &[u8]) {
        let below = path.get(comparison.strip..).unwrap_or_default();
        match comparison.tree.names(below) {
            Ok(Some(names)) => self.unmet.enter(path.to_vec(), names),
            Ok(None) => {}
            Err(error) => comparison.differs(path, Difference::Unreadable(error.to_string())),
        }
    }

    fn tell(&self, comparison: &mut Comparison<'_>, ended: &Ended) {
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

/// A folder that the comparison is in.
struct OpenFolder {
    /// Without its path.
    entry: Entry,
    /// Bytes of its path.
    length: usize,
    /// It was compared, or never will be.
    compared: bool,
}

/// What is compared, and with what.
struct Comparison<'a> {
    snapshot: &'a KnownSnapshot,
    progress: &'a Progress,
    owners: Owners,
    /// Bytes of each path that are above the target.
    strip: usize,
    tree: Existing,
    key: ChunkIdKey,
    nodes: &'a dyn NodeSource,
    buffer: Vec<u8>,
    witness: &'a mut dyn Witness,
    /// The first name of each group of hard links that has more to come, with the file that it is now.
    links: HashMap<Group, FirstName>,
    verified: Verified,
}

/// The first name of a group of hard links.
struct FirstName {
    path: Vec<u8>,
    now: (u64, u64),
    left: u64,
}

impl Comparison<'_> {
    fn below<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        path.get(self.strip..).unwrap_or_default()
    }

    /// Something differs that is no entry.
    fn differs(&mut self, path: &[u8], difference: Difference) {
        self.progress.trouble();
        self.verified.differing += 1;
        if self.verified.differences.len() < NAMED_MAX {
            self.verified.differences.push((path.to_vec(), difference));
        }
    }

    /// Compares one entry and counts it.
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        let differences = self.differences(entry)?;
        let verified = &mut self.verified;
        if entry.metadata.kind == EntryKind::File {
            verified.files += u64::from(differences.is_empty());
            // A manifest may claim anything.
            verified.bytes = verified.bytes.saturating_add(entry.metadata.size);
            self.progress.add(1, entry.metadata.size);
        }
        if !differences.is_empty() {
            self.progress.trouble();
            verified.differing += 1;
            verified.missing += u64::from(differences.first() == Some(&Difference::Missing));
        }
        for difference in differences {
            if verified.differences.len() < NAMED_MAX {
                verified.differences.push((entry.path.clone(), difference));
            }
        }
        Ok(())
    }

    fn differences(&mut self, entry: &Entry) -> Result<Vec<Difference>> {
        let (then, path) = (&entry.metadata, self.below(&entry.path));
        let mut now = match self.tree.metadata(path) {
            Ok(Some(now)) => now,
            Ok(None) if then.kind == EntryKind::Socket => return Ok(Vec::new()),
            Ok(None) => return Ok(vec![Difference::Missing]),
            Err(error) => return Ok(vec![Difference::Unreadable(error.to_string())]),
        };
        if now.kind != then.kind {
            return Ok(vec![Difference::Kind(now.kind)]);
        }
        let file = match then.kind {
            EntryKind::File => match self.tree.file(path, &now) {
                Ok(file) => {
                    attributes::of_open(file.as_fd(), &mut now);
                    Some(file)
                }
                Err(error) => return Ok(vec![Difference::Unreadable(error.to_string())]),
            },
            _ => {
                self.tree.describe(path, &mut now);
                None
            }
        };
        let leads_only = self.snapshot.record.leads_only(&entry.path);
        let mut differences = metadata_differences(then, &now, self.owners, leads_only);
        differences.extend(self.not_linked(entry, &now));
        if let Some(file) = file.filter(|_| now.size == then.size) {
            let content = self.content(entry, &file, &now)?;
            if content.is_none() && differences.is_empty() {
                self.witness.same(path)?;
            }
            // It says most, so it comes first.
            differences.splice(0..0, content);
        }
        Ok(differences)
    }

    /// Whether it is a further name of a file that was met, and is not that file any more.
    fn not_linked(&mut self, entry: &Entry, now: &Metadata) -> Option<Difference> {
        let (group, is) = (link_group(entry)?, (now.device_key, now.inode));
        let Some(first) = self.links.get_mut(&group) else {
            let first = FirstName { path: entry.path.clone(), now: is, left: entry.metadata.links - 1 };
            self.links.insert(group, first);
            return None;
        };
        first.left = first.left.saturating_sub(1);
        let difference = (first.now != is).then(|| Difference::NotLinked(first.path.clone()));
        if first.left == 0 {
            self.links.remove(&group);
        }
        difference
    }

    /// The ranges of a file that are not what the snapshot has.
    fn content(&mut self, entry: &Entry, file: &File, now: &Metadata) -> Result<Option<Difference>> {
        let Self { key, nodes, buffer, witness, progress, .. } = self;
        witness.opened(file);
        let (layout, holes) = (Layout::new(&entry.metadata.holes), entry.metadata.holes.iter());
        let mut reading = Reading {
            file,
            layout,
            holes,
            content: 0,
            bad: Vec::new(),
            key,
            buffer,
            witness: &mut **witness,
        };
        let mut failed = None;
        let listed = for_each_chunk(&entry.content, *nodes, &mut |chunk| {
            if failed.is_none() {
                failed = reading.chunk(chunk, progress)?;
            }
            Ok(())
        });
        if failed.is_none() && listed.is_ok() {
            failed = reading.pass_holes(u64::MAX, progress)?;
        }
        let Reading { content, mut bad, .. } = reading;
        match (failed, listed) {
            (Some(error), _) => Ok(Some(Difference::Unreadable(error.to_string()))),
            // The list of this one file is damaged, and says nothing of the others.
            (None, Err(error)) if error.is_damage() => {
                self.verified.lost += 1;
                let why = format!("its list of chunks is lost in the repository: {error}");
                Ok(Some(Difference::Unreadable(why)))
            }
            (None, Err(error)) => Err(error),
            // The manifest must account for every byte of it.
            (None, Ok(())) if content < entry.metadata.content_bytes() => {
                bad.push(now.size - (entry.metadata.content_bytes() - content)..now.size);
                Ok(Some(Difference::Content(bad)))
            }
            (None, Ok(())) => Ok((!bad.is_empty()).then_some(Difference::Content(bad))),
        }
    }
}

/// So many zeros of a hole go to a witness before the request to stop is looked at.
const ZEROS: u64 = 64 << 20;

/// A file that is being compared.
struct Reading<'a> {
    file: &'a File,
    layout: Layout,
    /// Those that were not passed yet.
    holes: slice::Iter<'a, Hole>,
    /// Bytes in no hole that were compared.
    content: u64,
    bad: Vec<Range<u64>>,
    key: &'a ChunkIdKey,
    buffer: &'a mut Vec<u8>,
    witness: &'a mut dyn Witness,
}

impl Reading<'_> {
    fn add(&mut self, range: Range<u64>) {
        match self.bad.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.bad.push(range),
        }
    }

    /// Compares the next chunk, with the holes that lie in and before it. Gives why it could not be read.
    fn chunk(&mut self, chunk: ChunkRef, progress: &Progress) -> Result<Option<Error>> {
        let content = self.content..self.content.saturating_add(u64::from(chunk.length));
        let places: Vec<Range<u64>> = self.layout.places(content.clone()).collect();
        let mut filled = 0_usize;
        for place in &places {
            if let Some(error) = self.pass_holes(place.start, progress)? {
                return Ok(Some(error));
            }
            let length = usize::try_from(place.end - place.start).unwrap_or(usize::MAX);
            let Some(bytes) = self.buffer.get_mut(filled..filled.saturating_add(length)) else {
                return Err(Error::damaged("the manifest", "a chunk is larger than any chunk"));
            };
            if let Err(error) = self.file.read_exact_at(bytes, place.start) {
                return Ok(Some(unreadable(error)));
            }
            self.witness.bytes(bytes);
            filled += length;
        }
        if self.key.id(self.buffer.get(..filled).unwrap_or_default()) != chunk.id {
            places.into_iter().for_each(|place| self.add(place));
        }
        self.content = content.end;
        Ok(None)
    }

    /// Compares the holes that begin before `until`: they read as zeros, whether they are still holes or not.
    fn pass_holes(&mut self, until: u64, progress: &Progress) -> Result<Option<Error>> {
        while let Some(hole) = self.holes.as_slice().first().copied().filter(|hole| hole.offset < until) {
            self.holes.next();
            match holes::filled(self.file, hole) {
                Ok(filled) => filled.into_iter().for_each(|range| self.add(range)),
                Err(error) => return Ok(Some(unreadable(error))),
            }
            let mut left = hole.length;
            while left > 0 {
                progress.check()?;
                let zeros = left.min(ZEROS);
                self.witness.zeros(zeros);
                left -= zeros;
            }
        }
        Ok(None)
    }
}

fn unreadable(error: io::Error) -> Error {
    Error::new(ErrorKind::Failed, error.to_string()).with_source(error)
}

/// How the metadata of two entries of one kind differ. What a restore cannot set (ctime, birth, inode, device
/// and the count of links) is left out; the groups of links are compared elsewhere.
pub(super) fn metadata_differences(
    then: &Metadata,
    now: &Metadata,
    owners: Owners,
    leads_only: bool,
) -> Vec<Difference> {
    let Metadata { kind, mode, uid, gid, user, group, mtime, size, link_target, .. } = then;
    let Metadata { device_number, xattrs, flags, .. } = then;
    // Where a file has holes does not matter: its bytes are compared.
    let Metadata { ctime: _, btime: _, inode: _, device_key: _, links: _, holes: _, lacks, .. } = then;
    let mut differences = Vec::new();
    let mut unless = |same: bool, difference: &dyn Fn() -> Difference| {
        if !same {
            differences.push(difference());
        }
    };
    let by_name = |name: &str, other: &str, id: u32, other_id: u32| {
        if name.is_empty() || other.is_empty() { id == other_id } else { name == other }
    };
    let same_numbers = *uid == now.uid && *gid == now.gid;
    let same_owner = match owners {
        Owners::Ignore => true,
        Owners::Numbers => same_numbers,
        Owners::Compare => {
            by_name(user, &now.user, *uid, now.uid) && by_name(group, &now.group, *gid, now.gid)
        }
    };
    // As a restore does: a program that runs as its owner does not run as another one.
    let bits = if owners == Owners::Ignore && !same_numbers { 0o1777 } else { 0o7777 };
    unless(*size == now.size, &|| Difference::Size(now.size));
    unless(*link_target == now.link_target, &|| Difference::LinkTarget(now.link_target.clone()));
    unless(*device_number == now.device_number, &|| Difference::Device(now.device_number));
    unless(*kind == EntryKind::Symlink || mode & bits == now.mode & bits, &|| Difference::Mode(now.mode));
    unless(same_owner, &|| Difference::Owner(format!("{}:{}", now.uid, now.gid)));
    let others = other_attributes(xattrs, &now.xattrs, owners);
    // What the backup did not have is not compared.
    let known = !leads_only && lacks.is_none() && now.lacks.is_none();
    unless(!known || others.is_empty(), &|| Difference::Attributes(others.clone()));
    let bits = if owners == Owners::Ignore { !ROOTS_FLAGS } else { u32::MAX };
    unless(!known || flags & bits == now.flags & bits, &|| Difference::Flags(now.flags));
    unless(leads_only || *mtime == now.mtime, &|| Difference::Modified);
    differences
}

/// Flags that only root may set: immutable, append-only, and data in the journal.
const ROOTS_FLAGS: u32 = FREEZING_FLAGS | 0x4000;

/// The names of attributes that are not the same. One that the system has given itself does not matter.
fn other_attributes(then: &[(Vec<u8>, Vec<u8>)], now: &[(Vec<u8>, Vec<u8>)], owners: Owners) -> Vec<Vec<u8>> {
    // As a restore by whoever is not root leaves them out.
    let meant = |name: &[u8]| {
        owners != Owners::Ignore || !name.starts_with(b"security.") && !name.starts_with(b"trusted.")
    };
    let missing = then.iter().filter(|attribute| !now.contains(attribute));
    let added = now
        .iter()
        .filter(|(name, _)| attributes::is_given(name) && !then.iter().any(|(known, _)| known == name));
    let names = missing.chain(added).map(|(name, _)| name).filter(|name| meant(name));
    names.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn every_kind_of_metadata_that_a_restore_sets_is_compared() {
        let then = Metadata {
            kind: EntryKind::File,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            user: "u".to_owned(),
            group: "g".to_owned(),
            mtime: Timestamp::from_seconds(3),
            ctime: Timestamp::from_seconds(4),
            btime: None,
            inode: 5,
            device_key: 6,
            links: 1,
            size: 7,
            link_target: b"t".to_vec(),
            device_number: 8,
            xattrs: vec![(b"user.a".to_vec(), b"1".to_vec())],
            flags: 0x50,
            holes: Vec::new(),
            lacks: None,
        };
        let found = |change: &dyn Fn(&mut Metadata), owners, leads_only| {
            let mut now = then.clone();
            change(&mut now);
            metadata_differences(&then, &now, owners, leads_only)
        };
        type Change = fn(&mut Metadata);
        let attributes = |names: &[&str]| {
            Difference::Attributes(names.iter().map(|name| name.as_bytes().to_vec()).collect())
        };
        let changes: [(Change, Difference); 12] = [
            (|now| now.mode = 0o755, Difference::Mode(0o755)),
            (|now| (now.uid, now.user) = (9, "v".to_owned()), Difference::Owner("9:2".to_owned())),
            (|now| (now.gid, now.group) = (9, "h".to_owned()), Difference::Owner("1:9".to_owned())),
            (|now| now.mtime.nanoseconds = 1, Difference::Modified),
            (|now| now.size = 8, Difference::Size(8)),
            (|now| now.link_target = b"x".to_vec(), Difference::LinkTarget(b"x".to_vec())),
            (|now| now.device_number = 1 << 32 | 3, Difference::Device(1 << 32 | 3)),
            (|now| now.xattrs[0].1 = b"2".to_vec(), attributes(&["user.a"])),
            (|now| now.xattrs[0].0 = b"user.b".to_vec(), attributes(&["user.a", "user.b"])),
            (
                |now| now.xattrs.push((b"security.capability".to_vec(), Vec::new())),
                attributes(&["security.capability"]),
            ),
            (|now| now.flags = 0, Difference::Flags(0)),
            (|now| now.flags = 0x40, Difference::Flags(0x40)),
        ];
        for (change, difference) in changes {
            assert_eq!(found(&change, Owners::Compare, false), [difference]);
        }
        let same: Change = |now| (now.inode, now.device_key, now.links) = (50, 60, 2);
        assert_eq!(found(&same, Owners::Compare, false), []);
        // The number of a name may be another one on another machine.
        let other_number: Change = |now| now.uid = 9;
        assert_eq!(found(&other_number, Owners::Compare, false), []);
        assert_eq!(found(&other_number, Owners::Numbers, false), [Difference::Owner("9:2".to_owned())]);
        let other_name: Change = |now| now.user = "other".to_owned();
        assert_eq!(found(&other_name, Owners::Numbers, false), []);
        // Without owners a setuid program loses that bit.
        let not_root: Change = |now| (now.uid, now.mode) = (9, 0o755);
        assert_eq!(found(&not_root, Owners::Ignore, false), []);
        let by_the_system: Change = |now| now.xattrs.push((b"security.selinux".to_vec(), b"x".to_vec()));
        assert_eq!(found(&by_the_system, Owners::Compare, false), []);
        let not_by_root: Change = |now| {
            now.flags = 0x40;
            now.xattrs.push((b"security.capability".to_vec(), Vec::new()));
        };
        assert_eq!(found(&not_by_root, Owners::Ignore, false), []);
        let sparse: Change = |now| now.holes = vec![Hole { offset: 0, length: 7 }];
        assert_eq!(found(&sparse, Owners::Compare, false), []);
        let later: Change = |now| now.mtime.seconds = 9;
        assert_eq!(found(&later, Owners::Compare, true), []);
    }
}
