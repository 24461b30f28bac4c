//! Sets what is not content, in the only order that survives: owner (a change clears setuid and capabilities), attributes
//! that need the right to write, mode, ACLs (a change of mode changes them), capabilities, times, flags. What keeps a file
//! from being renamed or linked comes when it has its names: `freeze`. The mode of a file that is begun under its own name
//! comes after the times, since it says so; it does not change the ACL that it is a part of.

use std::{fmt, os::fd::BorrowedFd};

use rustix::{
    fs::{
        AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod, fchown, futimens,
        utimensat,
    },
    io::Errno,
    process::{getegid, geteuid, getgroups},
};

use super::{
    attributes::{self, Way, has_flags, is_acl, is_capability, is_given},
    capture, exact,
    names::{Ownership, OwnershipPolicy},
    namespace::{self, HiddenOwners},
    old::{self, Found, Look},
    partial::is_begun,
    reason,
    restore::Target,
    rights, shown,
};
use crate::{
    clock::Timestamp,
    format::entry::{EntryKind, FREEZING_FLAGS, Metadata, flag_names, settable_flags},
};

/// What is to be said of an entry that was restored, without its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Something of it is not as it was.
    Unset(String),
    /// One thing of it is not as it was, out of many that may lack in the same way.
    Lack {
        /// What sort of thing.
        sort: &'static str,
        /// Which of that sort.
        which: String,
        /// What is the matter with it.
        why: String,
    },
    /// Good to know.
    Told(String),
}

impl Note {
    /// Of a socket.
    #[must_use]
    pub fn socket() -> Self {
        Self::Told("a socket is not restored: its program makes it anew".into())
    }

    /// Whether something of the entry is not as it was.
    #[must_use]
    pub const fn is_unset(&self) -> bool {
        !matches!(self, Self::Told(_))
    }

    /// What many entries have in common that lack the same, and what it is of this one.
    #[must_use]
    pub fn lack(&self) -> (String, Option<&str>) {
        match self {
            Self::Unset(text) | Self::Told(text) => (text.clone(), None),
            Self::Lack { sort, which, why } => (format!("{sort} {why}"), Some(which)),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset(text) | Self::Told(text) => f.write_str(text),
            Self::Lack { sort, which, why } => write!(f, "{sort} {which} {why}"),
        }
    }
}

/// Notes of one entry.
pub type Notes = Vec<Note>;

/// What metadata is set through.
pub(super) enum Handle<'a> {
    /// An open file or folder.
    Open(BorrowedFd<'a>),
    /// A handle that only names it (`O_PATH`).
    Named(BorrowedFd<'a>),
}

impl Handle<'_> {
    const fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(fd) | Self::Named(fd) => *fd,
        }
    }

    fn way(&self) -> Way<'_> {
        match self {
            Self::Open(fd) => Way::Open(*fd),
            Self::Named(fd) => Way::behind(*fd),
        }
    }

    fn set_owner(&self, uid: Option<Uid>, gid: Option<Gid>) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fchown(fd, uid, gid),
            Self::Named(fd) => chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn set_mode(&self, mode: Mode) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fchmod(fd, mode),
            // The one way to the inode behind such a handle, whatever has its name by now.
            Self::Named(fd) => old::set_mode(*fd, mode.as_raw_mode()),
        }
    }

    fn set_times(&self, times: &Timestamps) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => futimens(fd, times),
            Self::Named(fd) => utimensat(fd, c"", times, AtFlags::EMPTY_PATH),
        }
    }
}

/// What has the name of an entry and stays, to whoever only looks.
#[derive(Clone, Copy, Debug)]
pub struct Stays<'a> {
    /// Where it is.
    pub target: &'a Target,
    /// Its path there.
    pub path: &'a [u8],
    /// What it is.
    pub found: &'a Found,
}

impl Stays<'_> {
    /// Whether something of it differs and cannot be set, since nothing can be written where it is.
    fn is_read_only(&self, metadata: &Metadata, owner: Option<(u32, u32)>) -> bool {
        let Self { target, path, found } = self;
        let is_right = found.mode() == metadata.mode & 0o7777
            && found.mtime == metadata.mtime
            && owner.is_none_or(|owner| owner == found.owner())
            && found.freezing() == metadata.flags & FREEZING_FLAGS
            && metadata.xattrs.is_empty();
        !is_right && target.is_read_only(path)
    }

    /// Whether it has the attribute with this value already.
    fn has(&self, name: &[u8], value: &[u8]) -> bool {
        Look::new(self.target).has_attribute((self.path, self.found), (name, value))
    }
}

/// What would be noted of something that is restored, as far as the rights of this process tell: root may lack some of
/// them, in a container or a service. `there` has its name, if that stays.
#[must_use]
pub fn foretell(metadata: &Metadata, ownership: &Ownership, there: Option<Stays<'_>>) -> Notes {
    if metadata.kind == EntryKind::Socket {
        return vec![Note::socket()];
    }
    let mut notes = lacks(metadata);
    let Foretold { same, why_not, is_closed } = foretell_owner((metadata, ownership), there, &mut notes);
    if let Some((there, errno)) = there.zip(why_not)
        && there.found.mtime != metadata.mtime
    {
        notes.push(Note::Unset(no_time(errno)));
    }
    for (name, value) in &metadata.xattrs {
        let is_set = || there.is_some_and(|there| there.has(name, value));
        let refused = if !may_set(name) || is_acl(name) && why_not.is_some() {
            Some(Errno::PERM)
        } else {
            (is_closed && name.starts_with(b"user.")).then_some(Errno::ACCESS)
        };
        let refused = why_not.filter(|errno| *errno == Errno::ROFS).or(refused);
        if is_capability(name) && !same.same_user {
            notes.push(Note::Unset(NO_CAPABILITIES.into()));
        } else if let Some(errno) = refused.filter(|_| !is_set()) {
            note(&mut notes, ("the attribute", &shown(name)), Err(errno));
        }
    }
    notes.extend(foretell_freezing(metadata, there));
    notes
}

/// As [`foretell`], only of owner and mode.
#[must_use]
pub fn foretell_owner_and_mode(
    metadata: &Metadata,
    ownership: &Ownership,
    there: Option<Stays<'_>>,
) -> Notes {
    let mut notes = Notes::new();
    foretell_owner((metadata, ownership), there, &mut notes);
    notes
}

/// What is known before of the owner of an entry.
struct Foretold {
    /// Whose it will be.
    same: Owner,
    /// Why nothing of what is there can be set, if so.
    why_not: Option<Errno>,
    /// Its mode keeps this process from it.
    is_closed: bool,
}

fn foretell_owner(
    (metadata, ownership): (&Metadata, &Ownership),
    there: Option<Stays<'_>>,
    notes: &mut Notes,
) -> Foretold {
    let (us, owner) = (geteuid().as_raw(), ownership.resolve(metadata));
    let (uid, gid) = owner.unwrap_or((metadata.uid, metadata.gid));
    let read_only = there.is_some_and(|there| there.is_read_only(metadata, owner));
    let there = there.map(|there| there.found);
    // A new file belongs to whoever restores.
    let (user, group) = there.map_or((us, getegid().as_raw()), Found::owner);
    let is_stuck = there.is_some_and(Found::is_stuck) || read_only;
    let may_give = |gid: u32| {
        let is_ours = || getgroups().unwrap_or_default().iter().any(|group| group.as_raw() == gid);
        user == us && !is_stuck && (getegid().as_raw() == gid || is_ours())
    };
    let gives = |to| owner.is_some() && !is_stuck && rights::may_give((user, group), to);
    let gives_all = gives((uid, gid));
    let same = Owner {
        same_user: uid == user || gives_all,
        same_group: gid == group || gives((user, gid)) || owner.is_some() && may_give(gid),
    };
    let errno = if read_only { Errno::ROFS } else { Errno::PERM };
    if owner.is_some() && !(same.same_user && same.same_group) {
        let why = if namespace::has_numbers((uid, gid)) || read_only { errno } else { Errno::INVAL };
        note(notes, ("owner", &format!("{uid}:{gid}")), Err(why));
    }
    let lost = lost_bits(metadata, &same);
    let (wanted, mode) = (metadata.mode & 0o7777, metadata.mode & 0o7777 & !lost);
    if mode != wanted {
        notes.push(Note::Unset(NOT_OF_ITS_OWNER.into()));
    }
    // Whose it is by then.
    let now = (if same.same_user { uid } else { user }, if same.same_group { gid } else { group });
    // The system takes some of the mode from what is given away, and nobody may set it then; all else was set before.
    let is_given = gives_all && user == us && uid != us && rights::may_only_give_away(now);
    let is_lost = is_given && as_given(metadata).mode != metadata.mode;
    let is_others = now.0 != us && !is_given;
    let is_theirs = is_others && !rights::may_as_owner(now);
    let is_writable = there.is_some_and(|found| found.mode() & 0o22 != 0);
    let is_closed = is_others && !is_writable && !rights::overrides_modes(now);
    let why_not = there.filter(|_| is_theirs || is_stuck).map(|_| errno);
    let is_kept = metadata.kind == EntryKind::Symlink || there.is_none_or(|found| found.mode() == mode);
    if is_lost || why_not.is_some() && !is_kept {
        note(notes, ("mode", &format!("{mode:o}")), Err(errno));
    }
    Foretold { same, why_not, is_closed }
}

/// The label of a file, which its owner may set where the policy lets them.
const SELINUX: &[u8] = b"security.selinux";

/// Whether the process may set such an attribute.
fn may_set(name: &[u8]) -> bool {
    if is_capability(name) {
        return rights::may_give_rights();
    }
    let of_system = name.starts_with(b"trusted.") || name.starts_with(b"security.");
    !of_system || name == SELINUX && rights::has_selinux() || rights::may_administer()
}

/// As [`foretell`], only what freezes it.
#[must_use]
pub fn foretell_freezing(metadata: &Metadata, there: Option<Stays<'_>>) -> Notes {
    let mut notes = Notes::new();
    let (now, wanted) = (there.map_or(0, |there| there.found.freezing()), metadata.flags & FREEZING_FLAGS);
    if !has_flags(metadata.kind) || now == wanted {
        return notes;
    }
    let is_read_only = || there.is_some_and(|there| there.target.is_read_only(there.path));
    let errno = if !rights::may_freeze() { Errno::PERM } else { Errno::ROFS };
    if errno == Errno::PERM || is_read_only() {
        for name in flag_names(now ^ wanted) {
            note_flag(&mut notes, (name, wanted), errno);
        }
    }
    notes
}

/// What the backup has not of it.
fn lacks(metadata: &Metadata) -> Notes {
    let lack = |lacks: &String| {
        let why = "is missing".to_owned();
        Note::Lack { sort: "what could not be backed up", which: format!("({lacks})"), why }
    };
    metadata.lacks.iter().map(lack).collect()
}

const LESS_EXACT: &str = "time could not be set: the file system does not keep all of its nanoseconds";
const NO_SUCH_TIME: &str = "time could not be set: the file system cannot hold it, and has another one";
fn no_time(errno: Errno) -> String {
    format!("time could not be set: {}", reason(errno))
}

const NOT_OF_ITS_OWNER: &str = "setuid or setgid was left out, since the owner is another";
const NO_CAPABILITIES: &str = "its capabilities were left out, since the owner is another";

/// Whether a folder with that mode keeps the user who restores, and who owns it, from what is in it.
#[must_use]
pub fn closes(metadata: &Metadata) -> bool {
    metadata.mode & REACHING_RIGHTS != REACHING_RIGHTS && !rights::overrides_its_own_modes()
}

/// What an owner needs to open a folder and to reach what is in it.
const REACHING_RIGHTS: u32 = 0o500;

/// Sets everything but what [`freeze`] sets. What is so already is left alone: each change is one of the inode's own
/// time too, by which the next backup would take the file for another one.
pub(super) fn set_metadata(handle: &Handle<'_>, metadata: &Metadata, ownership: &Ownership) -> Notes {
    if !is_lost_when_given(handle, metadata, ownership) {
        return set_all(handle, metadata, ownership);
    }
    let first = as_given(metadata);
    let mut notes = set_all(handle, &first, &Ownership::new(OwnershipPolicy::Keep));
    let (mut setting, owner) = Setting::new(handle, metadata, ownership);
    setting.set_capabilities(&[], &owner);
    if first.mode != metadata.mode {
        setting.set_mode(&owner);
    }
    notes.append(&mut setting.notes);
    notes
}

/// Whether it is ours and is to be somebody else's, and this process may set nothing of it then: root may lack that in
/// a service. All that an owner may set has to come first, so that no whole file is left with the mode of one that is begun.
fn is_lost_when_given(handle: &Handle<'_>, metadata: &Metadata, ownership: &Ownership) -> bool {
    let is_us = |uid: u32| uid == geteuid().as_raw();
    let is_ours = || capture::status(handle.fd(), c"").is_ok_and(|status| is_us(status.stx_uid));
    let goes = |owner: (u32, u32)| rights::may_only_give_away(owner) && !is_us(owner.0);
    ownership.resolve(metadata).is_some_and(goes) && is_ours()
}

/// What it keeps when it is given away: the system takes the rest from it then, and our user must not have given it.
fn as_given(metadata: &Metadata) -> Metadata {
    let mut given = metadata.clone();
    given.mode &= !lost_bits(metadata, &Owner { same_user: false, same_group: false });
    given.xattrs.retain(|(name, _)| !is_capability(name));
    given
}

/// As [`set_metadata`], the owner first.
fn set_all(handle: &Handle<'_>, metadata: &Metadata, ownership: &Ownership) -> Notes {
    let (mut setting, owner) = Setting::new(handle, metadata, ownership);
    setting.notes.extend(lacks(metadata));
    // Where attributes cannot be listed none can be set either, and that is noted.
    let names = handle.way().names().unwrap_or_default();
    setting.remove_others(&names);
    // Whoever is not root may set these only as long as they may write to it.
    setting.set_attributes(&names, &|name| !is_acl(name) && !is_capability(name));
    // The mode of a file that is begun goes last: without it the file counts as whole.
    let begun = metadata.kind == EntryKind::File && setting.mode.is_some_and(is_begun);
    if metadata.kind != EntryKind::Symlink && !begun {
        setting.set_mode(&owner);
    }
    setting.set_attributes(&names, &is_acl);
    setting.set_capabilities(&names, &owner);
    setting.set_times();
    if begun {
        // An ACL is a part of it, and says the same as the mode that belongs to it.
        setting.mode = None;
        setting.set_mode(&owner);
    }
    let mut notes = setting.notes;
    if has_flags(metadata.kind) {
        set_flags(handle.fd(), metadata.flags, settable_flags() & !FREEZING_FLAGS, &mut notes);
    }
    notes
}

/// As [`set_metadata`], only owner and mode.
pub(super) fn set_owner_and_mode(handle: &Handle<'_>, metadata: &Metadata, ownership: &Ownership) -> Notes {
    let mut notes = Notes::new();
    if is_lost_when_given(handle, metadata, ownership) {
        let first = as_given(metadata);
        let (mut setting, owner) = Setting::new(handle, &first, &Ownership::new(OwnershipPolicy::Keep));
        setting.set_mode(&owner);
        notes = setting.notes;
    }
    let (mut setting, owner) = Setting::new(handle, metadata, ownership);
    setting.set_mode(&owner);
    notes.append(&mut setting.notes);
    notes
}

/// Makes it immutable or append-only, if it was: the very last thing that is done to it.
pub(super) fn freeze(fd: BorrowedFd<'_>, metadata: &Metadata, notes: &mut Notes) {
    if is_frozen(metadata) {
        set_flags(fd, metadata.flags, FREEZING_FLAGS, notes);
    }
}

/// Whether there is something to `freeze`.
#[must_use]
pub fn is_frozen(metadata: &Metadata) -> bool {
    has_flags(metadata.kind) && metadata.flags & FREEZING_FLAGS != 0
}

/// As [`freeze`], of something that was there: what freezes it and did not is removed.
pub(super) fn freeze_as(fd: BorrowedFd<'_>, metadata: &Metadata, notes: &mut Notes) {
    if has_flags(metadata.kind) {
        set_flags(fd, metadata.flags, FREEZING_FLAGS, notes);
    }
}

fn set_flags(fd: BorrowedFd<'_>, wanted: u32, of: u32, notes: &mut Notes) {
    for (name, errno) in attributes::set_flags(fd, wanted, of) {
        note_flag(notes, (name, wanted), errno);
    }
}

fn note_flag(notes: &mut Notes, (name, wanted): (&'static str, u32), errno: Errno) {
    if flag_names(wanted).contains(&name) {
        return note(notes, ("the flag", name), Err(errno));
    }
    let why = format!("could not be removed: {}", reason(errno));
    notes.push(Note::Lack { sort: "the flag", which: name.to_owned(), why });
}

/// Whether it belongs to the user and group that it should.
struct Owner {
    same_user: bool,
    same_group: bool,
}

/// The metadata of one inode while it is set.
struct Setting<'a> {
    handle: &'a Handle<'a>,
    metadata: &'a Metadata,
    notes: Notes,
    /// Its permission bits, as long as nothing may have changed them.
    mode: Option<u32>,
    /// When its content changed last.
    mtime: Option<Timestamp>,
    device: exact::Device,
}

impl<'a> Setting<'a> {
    /// Begins with the owner, on which the rest depends; whose it is then.
    fn new(handle: &'a Handle<'a>, metadata: &'a Metadata, ownership: &Ownership) -> (Self, Owner) {
        let mut notes = Notes::new();
        let owner = ownership.resolve(metadata);
        let before = capture::status(handle.fd(), c"");
        let same = |(uid, gid): (u32, u32)| {
            // What a user namespace shows as nobody's may be anybody's.
            let is_shown = HiddenOwners::of_this_process().stand_for((uid, gid)) == (false, false);
            before.as_ref().is_ok_and(|status| is_shown && status.stx_uid == uid && status.stx_gid == gid)
        };
        let changed = owner.filter(|owner| !same(*owner));
        if let Some((uid, gid)) = changed {
            let mut done = handle.set_owner(user(uid), group(gid));
            if done.is_err() && handle.set_owner(None, group(gid)).is_ok() {
                // Whoever is not root may still give it to a group of theirs.
                done = handle.set_owner(user(uid), None);
            }
            note(&mut notes, ("owner", &format!("{uid}:{gid}")), done);
        }
        let (uid, gid) = owner.unwrap_or((metadata.uid, metadata.gid));
        let now = if changed.is_some() { capture::status(handle.fd(), c"") } else { before };
        let (owner, mode, mtime, device) = match now {
            Ok(status) => (
                Owner { same_user: status.stx_uid == uid, same_group: status.stx_gid == gid },
                Some(u32::from(status.stx_mode) & 0o7777),
                Some(capture::timestamp(&status.stx_mtime)),
                (status.stx_dev_major, status.stx_dev_minor),
            ),
            Err(errno) => {
                notes.push(Note::Unset(format!("the owner could not be checked: {}", reason(errno))));
                (Owner { same_user: false, same_group: false }, None, None, exact::Device::default())
            }
        };
        (Self { handle, metadata, notes, mode, mtime, device }, owner)
    }

    /// Does what the owner may do only as long as its mode lets them write to it: a file that was there may be
    /// read-only. The mode is set afterwards in any case.
    fn with_right_to_write(&mut self, act: &dyn Fn() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
        let rights = match self.metadata.kind {
            EntryKind::Symlink => return act(),
            EntryKind::Directory => Mode::RWXU,
            _ => Mode::RUSR | Mode::WUSR,
        };
        match act() {
            Err(errno @ Errno::ACCESS) => {
                self.mode = None;
                self.handle.set_mode(rights).map_err(|_unset| errno).and_then(|()| act())
            }
            other => other,
        }
    }

    /// Whether the entry may have had the attribute, since the backup could not take all of them. An ACL or a capability
    /// gives somebody rights, so these have to be named, and first: what comes later in the text may be the name of an
    /// attribute, which is its owner's to choose.
    fn may_have_had(&self, name: &[u8]) -> bool {
        self.metadata.lacks.as_deref().is_some_and(|lacks| {
            let gives_rights = is_acl(name) || is_capability(name);
            let named = || lacks.starts_with(&format!("attribute {} (", shown(name)));
            !gives_rights || lacks.starts_with(attributes::ALL) || named()
        })
    }

    /// Removes what it has and had not: ACLs that the folder has given to it, attributes of what was there before.
    fn remove_others(&mut self, names: &[u8]) {
        let way = self.handle.way();
        for name in each(names).filter(|name| is_given(name)) {
            if self.may_have_had(name) {
                continue;
            }
            if !self.metadata.xattrs.iter().any(|(wanted, _)| wanted == name) {
                match self.with_right_to_write(&|| way.remove(name)) {
                    Ok(()) | Err(Errno::NODATA) => {}
                    Err(errno) => {
                        let why = format!("could not be removed: {}", reason(errno));
                        self.notes.push(Note::Lack { sort: "the attribute", which: shown(name), why });
                    }
                }
            }
        }
    }

    /// Sets those attributes that are `wanted`; `names` are those that it had before.
    fn set_attributes(&mut self, names: &[u8], wanted: &dyn Fn(&[u8]) -> bool) {
        let (way, metadata) = (self.handle.way(), self.metadata);
        for (name, value) in metadata.xattrs.iter().filter(|(name, _)| wanted(name)) {
            if each(names).any(|known| known == name) && way.has(name, value) {
                continue;
            }
            let set = || way.set(name, value);
            // The mode is set before these, and must not be again.
            let late = is_acl(name) || is_capability(name);
            let done = if late { set() } else { self.with_right_to_write(&set) };
            // What it has already need not be set by somebody who may not.
            let done = if done.is_err() && way.has(name, value) { Ok(()) } else { done };
            note(&mut self.notes, ("the attribute", &shown(name)), done);
        }
    }

    /// Whoever is not its owner must not have them.
    fn set_capabilities(&mut self, names: &[u8], owner: &Owner) {
        if owner.same_user {
            self.set_attributes(names, &is_capability);
        } else if self.metadata.xattrs.iter().any(|(name, _)| is_capability(name)) {
            self.notes.push(Note::Unset(NO_CAPABILITIES.into()));
        }
    }

    fn set_mode(&mut self, owner: &Owner) {
        let mut mode = self.metadata.mode & 0o7777;
        let lost = lost_bits(self.metadata, owner);
        if mode & lost != 0 {
            mode &= !lost;
            self.notes.push(Note::Unset(NOT_OF_ITS_OWNER.into()));
        }
        if self.mode == Some(mode) {
            return;
        }
        let mut done = self.handle.set_mode(Mode::from_raw_mode(mode));
        // The system takes setgid away without a word from who is not in the group.
        if done.is_ok() && mode & 0o6000 != 0 {
            done = capture::status(self.handle.fd(), c"").and_then(|status| {
                let kept = u32::from(status.stx_mode) & 0o6000 == mode & 0o6000;
                if kept { Ok(()) } else { Err(Errno::PERM) }
            });
        }
        note(&mut self.notes, ("mode", &format!("{mode:o}")), done);
    }

    fn set_times(&mut self) {
        if self.mtime == Some(self.metadata.mtime) {
            return;
        }
        let wanted = self.metadata.mtime;
        let done = self.handle.set_times(&times(self.metadata)).and_then(|()| {
            if exact::is_kept(self.device, wanted) {
                return Ok(wanted);
            }
            capture::status(self.handle.fd(), c"").map(|status| capture::timestamp(&status.stx_mtime))
        });
        let why = match done {
            Ok(now) if now == wanted => return exact::remember(self.device, wanted),
            Ok(now) if now.seconds == wanted.seconds => LESS_EXACT.into(),
            Ok(_) => NO_SUCH_TIME.into(),
            Err(errno) => no_time(errno),
        };
        self.notes.push(Note::Unset(why));
    }
}

/// Bits that it loses if it belongs to another one: a program that runs as its owner must not run as somebody else.
fn lost_bits(metadata: &Metadata, owner: &Owner) -> u32 {
    let user = if owner.same_user { 0 } else { 0o4000 };
    let group = if owner.same_group || metadata.kind == EntryKind::Directory { 0 } else { 0o2000 };
    user | group
}

/// The names in a list of attributes.
fn each(names: &[u8]) -> impl Iterator<Item = &[u8]> {
    names.split(|byte| *byte == 0).filter(|name| !name.is_empty())
}

fn note(notes: &mut Notes, (sort, which): (&'static str, &str), done: rustix::io::Result<()>) {
    if let Err(errno) = done {
        let why = format!("could not be set: {}", reason(errno));
        notes.push(Note::Lack { sort, which: which.to_owned(), why });
    }
}

/// The number that means "leave it" to the kernel is no user.
fn user(uid: u32) -> Option<Uid> {
    (uid != u32::MAX).then(|| Uid::from_raw(uid))
}

fn group(gid: u32) -> Option<Gid> {
    (gid != u32::MAX).then(|| Gid::from_raw(gid))
}

fn times(metadata: &Metadata) -> Timestamps {
    // Higher values have a meaning of their own to the kernel.
    let nanoseconds = i64::from(metadata.mtime.nanoseconds.min(999_999_999));
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: metadata.mtime.seconds, tv_nsec: nanoseconds },
    }
}
