//! What a restore does where something is already: who may be overwritten, what of a file need not be
//! read from the storage, and what may be changed where it is.

use super::{
    super::links::{Met, group_of},
    denied::check_folder,
    entry_at, may_hold,
    work::Job,
};
use crate::{
    clock::Timestamp,
    crypto::ChunkIdKey,
    error::{Error, ErrorKind, Result},
    filesystem::{
        attributes::is_without_copies,
        filter::Filter,
        holes::{self, Layout},
        metadata::Note,
        old::{Found, Look, OldFile, Rewritable},
        partial::in_the_way,
        remove::{Removal, Remover},
        restore::Zeros,
        select::Selection,
        spelling::one_name,
        unmet::Names,
    },
    format::{
        entry::{ChunkRef, Content, Entry, EntryKind, Hole, Metadata},
        path::{is_below, join, split},
    },
    repository::manifest::{NodeSource, for_each_chunk},
};

/// What may be overwritten. Folders are not: they take in what is restored, and get their metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Everything: afterwards it is as in the snapshot.
    #[default]
    Always,
    /// Everything; a file with the size and the time of the snapshot's is taken to have its content too.
    IfChanged,
    /// What is older than in the snapshot.
    IfNewer,
    /// Nothing.
    Never,
}

impl Overwrite {
    /// Whether it promises that something of what is there stays.
    pub(super) const fn keeps_some(self) -> bool {
        matches!(self, Self::IfNewer | Self::Never)
    }
}

/// What becomes of an entry.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is restored.
    Restore(There),
    /// What has its name stays.
    Leave,
    /// The file that has its name has its content: its metadata is set.
    Keep(Found),
    /// It is a folder, and there.
    Enter(Found),
    /// It is a link that is there, right in everything.
    Stay,
}

/// What is where an entry is restored, and gives way to it.
#[derive(Clone, Copy, Debug)]
pub(super) enum There {
    /// Nothing.
    Nothing,
    /// What a new name replaces: a link, an empty folder. Unknown is what another pass has made.
    Other(Option<Found>),
    /// A file, which may have some of its content.
    File(Found),
    /// A folder that is not empty, which goes once the entry is whole.
    Folder,
}

impl There {
    /// The file that is there.
    pub(super) const fn file(&self) -> Option<&Found> {
        if let Self::File(found) = self { Some(found) } else { None }
    }

    /// What is there, if a new name replaces it, and it was looked at.
    pub(super) const fn gives_way(&self) -> Option<&Found> {
        match self {
            Self::File(found) | Self::Other(Some(found)) => Some(found),
            Self::Nothing | Self::Other(None) | Self::Folder => None,
        }
    }
}

/// What becomes of what has the name of a further one of a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Further {
    /// It is that file already.
    Linked,
    /// It is not to be replaced, or cannot be looked at.
    Left,
    /// It gives way.
    GivesWay(There),
    /// As [`Self::GivesWay`], but what the first name stands for was left alone, and is another file.
    Alone,
}

/// The folders that a pass is in and that are not meant themselves. They get their metadata only if something in them
/// is restored.
#[derive(Default)]
struct Above {
    /// The path of the innermost one: those of the others are the beginnings of it.
    path: Vec<u8>,
    /// Where the path of each ends, and when it changed last in the snapshot.
    ends: Vec<(usize, Timestamp)>,
}

impl Above {
    /// Goes out of those that `path` is not in.
    fn leave_for(&mut self, path: &[u8]) {
        while self.ends.last().is_some_and(|(end, _)| !is_below(path, &self.path[..*end])) {
            self.ends.pop();
        }
        self.path.truncate(self.ends.last().map_or(0, |(end, _)| *end));
    }

    fn enter(&mut self, path: &[u8], mtime: Timestamp) {
        self.leave_for(path);
        self.path = path.to_vec();
        self.ends.push((path.len(), mtime));
    }

    /// Those that an entry is in, each once.
    fn take(&mut self, path: &[u8]) -> Vec<(Vec<u8>, Timestamp)> {
        self.leave_for(path);
        let Self { path, ends } = std::mem::take(self);
        ends.into_iter().map(|(end, mtime)| (path[..end].to_vec(), mtime)).collect()
    }
}

/// What is in the target already.
pub(super) struct Existing<'a> {
    job: &'a Job<'a>,
    look: Look<'a>,
    above: Above,
    /// The folder that something was found in last, and the names in it if it takes two for one.
    folding: Option<(Vec<u8>, Option<Names>)>,
    /// Files with several names.
    met: Met<((u32, u32), u64)>,
}

impl<'a> Existing<'a> {
    /// `None` where nothing was before: then nothing is looked at.
    pub(super) fn new(job: &'a Job<'a>) -> Option<Self> {
        let (look, above, folding, met) = (Look::new(job.target), Above::default(), None, Met::default());
        (!job.target.was_empty()).then_some(Self { job, look, above, folding, met })
    }

    /// Comes past a folder that is not meant itself.
    pub(super) fn passes(&mut self, entry: &Entry) {
        if entry.metadata.kind == EntryKind::Directory && entry.error.is_none() {
            self.above.enter(&entry.path, entry.metadata.mtime);
        }
    }

    /// Lets the folders that an entry is in be changed. What stands in the place of one stays or gives way as it does
    /// where the folder itself is restored.
    pub(super) fn reach(&mut self, path: &[u8]) -> Result<()> {
        for (folder, mtime) in self.above.take(path) {
            if self.job.is_blocked(&folder) {
                return Ok(());
            }
            let thaws = !self.job.snapshot.leads_only(&folder);
            match self.job.below(&folder) {
                // The target itself was let be changed when it was opened.
                b"" => {}
                below if !self.job.is_hidden(&folder) => {
                    let Some(found) = self.look.at(below)? else { continue };
                    if found.kind == EntryKind::Directory {
                        self.let_change((&folder, below), &found, thaws)?;
                    } else if self.stays(&folder, mtime, &found) {
                        self.job.block(&folder);
                    } else {
                        // Nothing chose it, nor what has its name.
                        let gone = self.instead_of_a_file((&folder, below), &found, &Selection::default());
                        gone.inspect_err(|_| self.job.block(&folder))?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the policy keeps what was found from giving way to what has this time in the snapshot. Folders that only
    /// lead to a source have none there: they do not keep all of it away.
    fn stays(&self, path: &[u8], mtime: Timestamp, found: &Found) -> bool {
        match self.job.options.overwrite {
            Overwrite::Always | Overwrite::IfChanged => false,
            Overwrite::IfNewer => mtime <= found.mtime && !self.job.snapshot.leads_only(path),
            Overwrite::Never => true,
        }
    }

    /// A file or a link stands where a folder is to be, and gives way. Above a source that is told: nobody asked for it.
    fn instead_of_a_file(
        &mut self,
        (path, below): (&[u8], &[u8]),
        found: &Found,
        selection: &Selection,
    ) -> Result<()> {
        if found.is_mount() {
            return Err(mounted(below));
        }
        let target =
            if found.kind == EntryKind::Symlink { self.look.link_target(below, found)? } else { None };
        self.remove((path, below), found, selection)?;
        if self.job.snapshot.leads_only(path) {
            let what = target.map_or_else(
                || "what had the name of this folder".to_owned(),
                |target| {
                    format!(
                        "the link to {} that had the name of this folder",
                        String::from_utf8_lossy(&target)
                    )
                },
            );
            let told = format!("{what} gives way to it, since it leads to what was backed up");
            self.job.note(path, vec![Note::Told(told)]);
        }
        Ok(())
    }

    /// Lets what is in a folder be changed.
    fn let_change(&mut self, (path, below): (&[u8], &[u8]), found: &Found, thaws: bool) -> Result<()> {
        if self.job.removal == Removal::Tell {
            if thaws && found.is_frozen() {
                self.job.changes(path, found);
            }
            if found.is_hidden_from_us() {
                self.job.hide(path);
            }
            return Ok(());
        }
        if thaws {
            self.thaw((path, below), found)?;
        }
        self.open_up((path, below), found)
    }

    fn thaw(&mut self, (path, below): (&[u8], &[u8]), found: &Found) -> Result<()> {
        if found.is_frozen() {
            self.job.changes(path, found);
        }
        self.look.thaw(below, found)
    }

    fn open_up(&mut self, (path, below): (&[u8], &[u8]), found: &Found) -> Result<()> {
        if found.is_closed_to_us() {
            self.job.changes(path, found);
        }
        self.look.open_up(below, found).map(drop)
    }

    /// Checks that what was found is not there for another entry, by whose name its folder lists it: some file systems
    /// take two names for one. Of each folder it is asked once whether this is one of them.
    fn has_its_own_name(&mut self, entry: &Entry, found: &Found, nodes: &dyn NodeSource) -> Result<()> {
        let (below, (folder, name)) = (self.job.below(&entry.path), split(&entry.path));
        if self.folding.as_ref().is_none_or(|(known, _)| known != folder) {
            let Some(folds) = self.look.folds_case(below, found)? else { return Ok(()) };
            let names = if folds { self.job.target.names(split(below).0, &Filter::default())? } else { None };
            self.folding = Some((folder.to_vec(), names));
        }
        if let Some((_, Some(names))) = &self.folding
            && !names.hold(name)
            && let Some(other) = self.look.other_name(below)?
            && may_hold(nodes, self.job.snapshot.root, &join(folder, &other))?
        {
            return Err(one_name(name, &other));
        }
        Ok(())
    }

    pub(super) fn fate(&mut self, entry: &Entry, nodes: &dyn NodeSource) -> Result<Fate> {
        if self.job.is_blocked(&entry.path) {
            return Ok(Fate::Leave);
        }
        let is_folder = entry.metadata.kind == EntryKind::Directory;
        let fate = self.fate_of(entry, is_folder, nodes);
        if is_folder && matches!(fate, Ok(Fate::Leave) | Err(_)) {
            self.job.block(&entry.path);
        }
        fate
    }

    fn fate_of(&mut self, entry: &Entry, is_folder: bool, nodes: &dyn NodeSource) -> Result<Fate> {
        let (then, overwrite, below) =
            (&entry.metadata, self.job.options.overwrite, self.job.below(&entry.path));
        self.reach(&entry.path)?;
        if self.job.is_blocked(&entry.path) {
            return Ok(Fate::Leave);
        }
        let nothing = Fate::Restore(There::Nothing);
        if self.job.is_hidden(&entry.path) {
            return Ok(nothing);
        }
        let Some(found) = self.look.at(below)? else { return Ok(nothing) };
        self.has_its_own_name(entry, &found, nodes)?;
        let was_folder = found.kind == EntryKind::Directory;
        if is_folder && was_folder {
            self.let_change((&entry.path, below), &found, self.job.may_thaw(entry))?;
            return Ok(Fate::Enter(found));
        }
        let stays = self.stays(&entry.path, then.mtime, &found);
        // What a restore that was killed has begun is nobody's file, however new.
        if stays && !found.is_begun(then, &self.job.options.ownership) {
            return Ok(Fate::Leave);
        }
        if then.kind == EntryKind::Socket && found.kind != EntryKind::Socket {
            return self.instead_of_a_socket((&entry.path, below), &found).map(Fate::Restore);
        }
        if was_folder {
            return self.instead_of_a_folder(entry, below, &found).map(Fate::Restore);
        }
        if is_folder {
            let selection = &self.job.options.selection;
            return self.instead_of_a_file((&entry.path, below), &found, selection).map(|()| nothing);
        }
        // Made anew it would change the times of its folder, which may be somebody else's.
        if self.look.is_right_link(below, &found, (then, &self.job.options.ownership))? {
            return Ok(Fate::Stay);
        }
        let are_files = (then.kind, found.kind) == (EntryKind::File, EntryKind::File);
        if found.is_mount() && !are_files {
            return Err(mounted(below));
        }
        if self.job.removal == Removal::Remove && !found.is_mount() {
            self.thaw((&entry.path, below), &found)?;
        }
        if !are_files {
            return Ok(Fate::Restore(There::Other(Some(found))));
        }
        let looks_same = overwrite == Overwrite::IfChanged
            && (then.size, then.mtime) == (found.size, found.mtime)
            && self.may_keep(&found, entry)?
            && self.is_stored_so(&found, entry)?;
        Ok(if looks_same { Fate::Keep(found) } else { Fate::Restore(There::File(found)) })
    }

    /// Something else stands where the snapshot has a socket, which no restore makes: so it gives way to nothing, and goes as
    /// what the snapshot does not have.
    fn instead_of_a_socket(&mut self, (path, below): (&[u8], &[u8]), found: &Found) -> Result<There> {
        if !self.job.clears() {
            let what = "something else has the place of this socket: --delete removes it";
            self.job.note(path, vec![Note::Unset(what.into())]);
            return Ok(There::Other(Some(*found)));
        }
        if found.is_mount() {
            return Err(mounted(below));
        }
        if self.job.removal == Removal::Remove && found.kind == EntryKind::Directory {
            self.open_up((path, below), found)?;
        }
        if self.job.remove(path)? {
            return Ok(There::Nothing);
        }
        let what = format!(
            "{} is a socket in the snapshot, and what is there is not to go",
            String::from_utf8_lossy(below)
        );
        Err(Error::new(ErrorKind::Failed, what)
            .with_remedy("Move it away (it is or holds what is excluded, mounted, or unfinished)"))
    }

    /// A folder stands where something else is to be. One that is empty is replaced as a file is; another one goes only
    /// with `--delete`, and when what replaces it is whole.
    fn instead_of_a_folder(&mut self, entry: &Entry, below: &[u8], found: &Found) -> Result<There> {
        if found.is_mount() {
            return Err(mounted(below));
        }
        if found.is_frozen() {
            return Err(frozen(below));
        }
        let removes = self.job.removal == Removal::Remove;
        if removes && self.job.clears() {
            self.open_up((&entry.path, below), found)?;
        }
        if found.is_hidden_from_us() && !self.job.clears() {
            // If something is in it the system does not let it go, and that is told then.
            if !removes {
                let told = "a folder that is closed to you has its place, and stays if something is in it";
                self.job.note(&entry.path, vec![Note::Told(told.into())]);
            }
            return Ok(There::Other(Some(*found)));
        }
        // Of one that a plan cannot look into it is told that all of it would go.
        let is_seen = removes || !found.is_hidden_from_us();
        if is_seen && self.look.is_empty(below)? {
            return Ok(There::Other(Some(*found)));
        }
        let path = String::from_utf8_lossy(below);
        if !self.job.clears() {
            return Err(in_the_way(path));
        }
        let looking = Remover { removal: Removal::Tell, ..self.job.remover() };
        if !looking.remove(&entry.path, &mut |_| ())? {
            return Err(is_kept(path));
        }
        if self.job.removal == Removal::Tell {
            // It is gone through once more rather than held in memory: it may be large.
            self.job.remove(&entry.path)?;
        }
        Ok(There::Folder)
    }

    /// Removes a file or a link that stands where a folder is to be. Whether it may go is asked before it is thawed, by a plan
    /// and a restore alike.
    fn remove(&mut self, (path, below): (&[u8], &[u8]), found: &Found, selection: &Selection) -> Result<()> {
        let job = self.job;
        let stays = || {
            let what = format!(
                "{} is a file that is not to go, and a folder in the snapshot",
                String::from_utf8_lossy(path)
            );
            Error::new(ErrorKind::Failed, what).with_remedy("Move it away, or restore into another target")
        };
        check_folder(job, split(below).0)?;
        let mut until_gone = None;
        if job.removal == Removal::Remove {
            let looking = Remover { removal: Removal::Tell, selection, thaws: true, ..job.remover() };
            if !looking.remove(path, &mut |_| ())? {
                return Err(stays());
            }
            self.thaw((path, below), found)?;
            until_gone = self.look.thaw_for_now(below, found)?;
        }
        let gone = job.remove_for_folder(path, selection);
        drop(until_gone);
        if gone? { Ok(()) } else { Err(stays()) }
    }

    /// What becomes of what has the name of a further one of the file at `first`, which may be another one by then.
    pub(super) fn further(
        &mut self,
        first: (&[u8], bool),
        entry: &Entry,
        nodes: &dyn NodeSource,
    ) -> Result<Further> {
        match self.further_of(first, entry, nodes) {
            Ok(Some(further)) => return Ok(further),
            Ok(None) => {
                if !self.job.is_left(first.0) {
                    self.job.note(&entry.path, vec![apart(first.0)]);
                }
                self.job.left(entry);
            }
            Err(error) => self.job.entry_failed(entry, error)?,
        }
        Ok(Further::Left)
    }

    /// As [`Self::further`]; `None` for what is left alone.
    fn further_of(
        &mut self,
        (first, is_new): (&[u8], bool),
        entry: &Entry,
        nodes: &dyn NodeSource,
    ) -> Result<Option<Further>> {
        let was_left = self.job.is_left(first);
        if !is_new && self.is_linked(first, &entry.path)? {
            return Ok((!was_left).then_some(Further::Linked));
        }
        let there = match self.fate(entry, nodes)? {
            Fate::Leave | Fate::Stay => return Ok(None),
            // Nothing can be linked to its name.
            Fate::Restore(There::File(found)) | Fate::Keep(found) if found.is_mount() => {
                return Err(mounted(self.job.below(&entry.path)));
            }
            Fate::Restore(there) => there,
            Fate::Keep(found) | Fate::Enter(found) => There::File(found),
        };
        let is_alone = was_left && !self.is_the_one(first, nodes)?;
        Ok(Some(if is_alone { Further::Alone } else { Further::GivesWay(there) }))
    }

    /// Whether a further name of the file at `first` is one already.
    pub(super) fn is_linked(&mut self, first: &[u8], path: &[u8]) -> Result<bool> {
        self.reach(path)?;
        if self.job.is_hidden(first) || self.job.is_hidden(path) {
            return Ok(false);
        }
        let first = self.look.at(self.job.below(first))?;
        let there = self.look.at(self.job.below(path))?;
        Ok(first.zip(there).is_some_and(|(first, there)| first.is(&there)))
    }

    /// Whether a file with the right content need not be written anew.
    pub(super) fn may_keep(&mut self, found: &Found, entry: &Entry) -> Result<bool> {
        Ok(self.may_stay(found, entry)
            && (found.may_become(&entry.metadata, &self.job.options.ownership)
                || self.is_as(found, entry)?))
    }

    /// Whether the other names of a file let it stay. Not if it is one with another file of the snapshot: who writes to one of
    /// them later would write to both. Nor if it is to be frozen, and would be for the others too.
    pub(super) fn may_stay(&mut self, found: &Found, entry: &Entry) -> bool {
        // One that is marked may belong to a file that held something else.
        let shared = found.shared().filter(|_| !entry.changed_while_read);
        let is_joined =
            shared.is_some_and(|file| self.met.meet(file, &entry.path, group_of(entry)).is_some());
        !is_joined && !found.freezes_elsewhere(&entry.metadata)
    }

    /// Whether a file of which nothing is read is stored in the way in which it is to be; that few are to be without copies.
    fn is_stored_so(&mut self, found: &Found, entry: &Entry) -> Result<bool> {
        if !is_without_copies(&entry.metadata) {
            return Ok(true);
        }
        let file = self.look.file(self.job.below(&entry.path), found)?;
        Ok(file.is_none_or(|file| file.stores_as(&entry.metadata)))
    }

    /// Whether a file has the metadata that it is to have.
    pub(super) fn is_as(&mut self, found: &Found, entry: &Entry) -> Result<bool> {
        let wanted = (&entry.metadata, &self.job.options.ownership);
        self.look.is_as(self.job.below(&entry.path), found, wanted)
    }

    /// What a small file has of these chunks: its bytes up to where they end.
    pub(super) fn small(&mut self, entry: &Entry, found: &Found, chunks: &[ChunkRef]) -> Result<Same> {
        let Some(file) = self.look.file(self.job.below(&entry.path), found)? else {
            return Ok(Same::default());
        };
        let wanted: u64 = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        let holes = &entry.metadata.holes;
        let mut bytes = Vec::new();
        for place in Layout::new(holes).places(0..wanted) {
            let length = place.end.min(found.size).saturating_sub(place.start);
            let begin = bytes.len();
            bytes.resize(begin.saturating_add(usize::try_from(length).unwrap_or(0)), 0);
            if length > 0 && !file.read_at(place.start, bytes.get_mut(begin..).unwrap_or_default()) {
                return Ok(Same::default());
            }
        }
        let holes = Hollow::of(&file, holes, self.job.options.zeros).is_right;
        let mut end = 0;
        let is_same = |chunk: &ChunkRef| {
            let begin = end;
            end += chunk.length as usize;
            bytes.get(begin..end).is_some_and(|bytes| self.job.key.id(bytes) == chunk.id)
        };
        let same = chunks.iter().map(is_same).collect();
        let stored_so = file.stores_as(&entry.metadata);
        Ok(Same { bytes, same, holes, stored_so })
    }

    /// Names what an earlier run has left of a large file and nobody goes on with.
    pub(super) fn tell_left_over(&mut self, entry: &Entry) -> Result<()> {
        if let Some(left) = self.look.left_over(self.job.below(&entry.path))? {
            let told = format!(
                "{} beside it, which another restore has left or is at, is not used: remove it if none is running",
                String::from_utf8_lossy(&left)
            );
            self.job.note(&entry.path, vec![Note::Told(told)]);
        }
        Ok(())
    }

    /// What a large file can be made of; of what an earlier run has left only if it `lasts`.
    pub(super) fn basis(&mut self, entry: &Entry, found: Option<&Found>, lasts: bool) -> Result<Basis> {
        if self.job.is_hidden(&entry.path) {
            return Ok(Basis::default());
        }
        let path = self.job.below(&entry.path);
        let wanted = (&entry.metadata, &self.job.options.ownership, self.job.removal);
        let rewritable = if lasts { self.look.rewritable(path, found, wanted)? } else { None };
        if let Some(rewritable) = rewritable {
            let basis = Basis::new(Some(rewritable.reader()?), &entry.metadata.holes, self.job.options.zeros);
            return Ok(Basis { rewritable: Some(rewritable), in_place: true, ..basis });
        }
        if lasts {
            self.tell_left_over(entry)?;
        }
        let reader = match found {
            Some(found) => self.look.file(path, found)?,
            None => None,
        };
        Ok(Basis::new(reader, &entry.metadata.holes, self.job.options.zeros))
    }

    /// Whether the file at `first`, which was left alone, is the one that the snapshot has there: a restore that was killed
    /// may have made it. All of it is read and compared. Of what is no file nobody looks.
    pub(super) fn is_the_one(&mut self, first: &[u8], nodes: &dyn NodeSource) -> Result<bool> {
        let Some(entry) = entry_at(nodes, self.job.snapshot.root, first)? else { return Ok(false) };
        let below = self.job.below(first);
        let Some(found) = self.look.at(below)? else { return Ok(false) };
        self.is_whole(&entry, &found, nodes)
    }

    /// Whether a file that is there is the one of the snapshot: all of it is read and compared.
    pub(super) fn is_whole(&mut self, entry: &Entry, found: &Found, nodes: &dyn NodeSource) -> Result<bool> {
        let kinds = (found.kind, entry.metadata.kind);
        let looks_so = kinds == (EntryKind::File, EntryKind::File) && found.size == entry.metadata.size;
        if !looks_so || !self.is_as(found, entry)? {
            return Ok(false);
        }
        let Some(file) = self.look.file(self.job.below(&entry.path), found)? else { return Ok(false) };
        let mut basis = Basis::new(Some(file), &entry.metadata.holes, self.job.options.zeros);
        basis.is_all(entry, &entry.content, (nodes, self.job))
    }
}

/// What is said of a further name of the file at `first`, which is another file and stays.
pub(super) fn alone(first: &[u8]) -> Note {
    let first = String::from_utf8_lossy(first);
    Note::Told(format!(
        "it is a file of its own now: /{first} stays, and is not the file that the snapshot has there"
    ))
}

/// What is said of a further name that could not be linked to the first one.
pub(super) fn unlinked(error: &Error) -> Note {
    Note::Unset(format!("it is a file of its own, and the names that follow are linked to it: {error}"))
}

/// What is said of a further name of the file at `first` that stays as it is, where that one was restored.
fn apart(first: &[u8]) -> Note {
    let first = String::from_utf8_lossy(first);
    Note::Told(format!("it stays as it is, and is not one file with /{first}, as it is in the snapshot"))
}

/// What is to be said of the holes of a file that is there.
#[derive(Debug, Default)]
struct Hollow {
    /// They are those that it is to have. Where zeros become holes, what reads as zeros may be in others too.
    is_right: bool,
    /// What is in one of these is to be written, if the file is to have content there: they are as many as an entry tells.
    to_fill: Vec<Hole>,
}

impl Hollow {
    fn of(file: &OldFile, wanted: &[Hole], zeros: Zeros) -> Self {
        match zeros {
            Zeros::Write => {
                let to_fill = file.holes();
                Self { is_right: to_fill == wanted, to_fill }
            }
            Zeros::Holes => {
                let is_right = wanted.is_empty() || holes::are_in(wanted, &file.holes());
                Self { is_right, to_fill: Vec::new() }
            }
        }
    }
}

/// The error of something that cannot be replaced, nor changed: what is mounted on it is somewhere else too.
pub(super) fn mounted(below: &[u8]) -> Error {
    let message = format!("something is mounted on {}", String::from_utf8_lossy(below));
    Error::new(ErrorKind::Failed, message).with_remedy("Unmount it, or leave it out with --exclude")
}

/// The error of a frozen folder where something else is to be: nothing would freeze it again.
fn frozen(below: &[u8]) -> Error {
    let path = String::from_utf8_lossy(below);
    let message =
        format!("{path} is a folder that is immutable or append-only, and no folder in the snapshot");
    Error::new(ErrorKind::Failed, message)
        .with_remedy("It stays, since somebody meant it to: `chattr -i -a` lets it go")
}

/// The error of a folder in which something is not to go.
pub(super) fn is_kept(path: impl std::fmt::Display) -> Error {
    let message = format!("{path} is a folder, no folder in the snapshot, and something in it is not to go");
    Error::new(ErrorKind::Failed, message)
        .with_remedy("Move it away (it holds what is excluded, mounted, or unfinished)")
}

/// What a small file that is there has of the chunks that it is to have.
#[derive(Debug, Default)]
pub(super) struct Same {
    bytes: Vec<u8>,
    same: Vec<bool>,
    /// It has the holes that it is to have.
    holes: bool,
    /// It is stored in the way in which it is to be, as far as only a new file could be.
    stored_so: bool,
}

impl Same {
    /// Whether it has all of them, and as many bytes and the holes that it is to have, and need not be a new file to be stored
    /// as it is to be.
    pub(super) fn is_whole(&self, chunks: &[ChunkRef], then: &Metadata, found: &Found) -> bool {
        let right_size =
            then.size == found.size && u64::try_from(self.bytes.len()) == Ok(then.content_bytes());
        right_size
            && self.holes
            && self.stored_so
            && self.same.len() == chunks.len()
            && self.same.iter().all(|same| *same)
    }

    /// How many bytes of these chunks it has.
    pub(super) fn bytes(&self, chunks: &[ChunkRef]) -> u64 {
        let there = chunks.iter().zip(&self.same).filter(|(_, same)| **same);
        there.map(|(chunk, _)| u64::from(chunk.length)).sum()
    }

    /// The bytes of chunk `number`, which begins at `offset`, if they are there.
    pub(super) fn chunk(&self, number: usize, offset: usize, length: u32) -> Option<&[u8]> {
        self.same.get(number).filter(|same| **same)?;
        self.bytes.get(offset..offset + length as usize)
    }
}

/// What a large file can be made of.
#[derive(Debug, Default)]
pub(super) struct Basis {
    reader: Option<OldFile>,
    /// It is changed where it is once something of it differs.
    pub(super) rewritable: Option<Rewritable>,
    /// What is the same need not be written.
    pub(super) in_place: bool,
    /// It has the holes that it is to have.
    pub(super) has_holes: bool,
    /// Its holes, where zeros are to be written as what they are.
    holes: Vec<Hole>,
    layout: Layout,
    buffer: Vec<u8>,
}

impl Basis {
    fn new(reader: Option<OldFile>, wanted: &[Hole], zeros: Zeros) -> Self {
        let there = reader.as_ref().map(|reader| Hollow::of(reader, wanted, zeros));
        let Hollow { is_right: has_holes, to_fill: holes } = there.unwrap_or_default();
        Self { reader, has_holes, holes, layout: Layout::new(wanted), ..Self::default() }
    }

    /// Whether it is all of this content, with the holes that it is to have.
    pub(super) fn is_all(
        &mut self,
        entry: &Entry,
        content: &Content,
        (nodes, job): (&dyn NodeSource, &Job<'_>),
    ) -> Result<bool> {
        if !self.has_holes {
            return Ok(false);
        }
        let (mut offset, mut same) = (0, true);
        let listed = for_each_chunk(content, nodes, &mut |chunk| {
            job.repository.store.progress().check()?;
            same = same && self.has(offset, &chunk, &job.key);
            offset += u64::from(chunk.length);
            if same { Ok(()) } else { Err(Error::damaged("a file", "it is another one")) }
        });
        match listed {
            Err(error) if !error.is_damage() => Err(error),
            listed => Ok(listed.is_ok() && same && offset == entry.metadata.content_bytes()),
        }
    }

    /// Whether a part of the chunk that begins at `offset` in the content is in a hole, and is to be written: nothing
    /// tells that from zeros but the space that it takes.
    pub(super) fn is_hollow(&self, offset: u64, chunk: &ChunkRef) -> bool {
        let content = offset..offset.saturating_add(u64::from(chunk.length));
        !self.holes.is_empty()
            && self.layout.places(content).any(|place| holes::reach_into(&self.holes, &place))
    }

    /// Whether the chunk that begins at `offset` in the content is where it is to be.
    pub(super) fn has(&mut self, offset: u64, chunk: &ChunkRef, key: &ChunkIdKey) -> bool {
        let Self { reader: Some(reader), layout, buffer, .. } = self else { return false };
        buffer.resize(chunk.length as usize, 0);
        let mut rest = buffer.as_mut_slice();
        for place in layout.places(offset..offset.saturating_add(u64::from(chunk.length))) {
            let length = usize::try_from(place.end - place.start).unwrap_or(usize::MAX);
            let (part, after) = rest.split_at_mut(length.min(rest.len()));
            if !reader.read_at(place.start, part) {
                return false;
            }
            rest = after;
        }
        key.id(&self.buffer) == chunk.id
    }

    /// The bytes of the chunk that [`Self::has`] found last.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer
    }
}

/// Refuses to empty the running system: with the whole of it as the source everything that the backup left out
/// would go.
pub(super) fn refuse_to_empty_everything(
    sources: &[Vec<u8>],
    subpath: &[u8],
    target: &std::path::Path,
) -> Result<()> {
    let everything = subpath.is_empty() && sources.iter().any(|source| source == b"/");
    if everything && target.canonicalize().is_ok_and(|target| target == std::path::Path::new("/")) {
        let what = "--delete would remove from the whole system what the snapshot does not hold";
        return Err(Error::new(ErrorKind::Usage, what)
            .with_remedy("Name a path (SNAP:/srv), or restore into another target"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_whole_running_system_is_never_emptied() {
        let refused = |sources: &[&str], subpath: &[u8], target: &str| {
            let sources: Vec<Vec<u8>> = sources.iter().map(|source| source.as_bytes().to_vec()).collect();
            refuse_to_empty_everything(&sources, subpath, Path::new(target)).is_err()
        };
        assert!(refused(&["/"], b"", "/"));
        assert!(refused(&["/home", "/"], b"", "/tmp/.."));
        assert!(!refused(&["/"], b"srv", "/"));
        assert!(!refused(&["/home"], b"", "/"), "only what is below the source");
        assert!(!refused(&["/"], b"", "/tmp"));
    }
}
