//! One tree with everything that a Linux file system holds, as far as this user and this file system allow, and a look at
//! a tree that sees all of it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::BTreeMap,
    ffi::{CString, OsString},
    fs::{self, File},
    io::Write,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, IFlags, Mode, OFlags, SeekFrom, StatxFlags, Timespec, Timestamps,
        UTIME_OMIT, Uid, XattrFlags, chownat, ioctl_getflags, ioctl_setflags, lgetxattr, llistxattr,
        lsetxattr, makedev, mknodat, open, seek, statx, utimensat,
    },
    io::{Errno, Result},
};

const MIB: u64 = 1 << 20;

/// The tree below a folder, as it is made.
pub(crate) struct Corpus {
    folder: PathBuf,
    /// What could not be made here, and why.
    pub(crate) not_made: Vec<(String, Errno)>,
}

/// Makes everything below a folder, which is made too.
pub(crate) fn build(folder: &Path) -> Corpus {
    fs::create_dir(folder).unwrap();
    let mut corpus = Corpus { folder: folder.to_owned(), not_made: Vec::new() };
    corpus.files();
    corpus.names();
    corpus.links();
    corpus.specials();
    corpus.attributes();
    corpus.sparse();
    corpus.owners();
    corpus.times();
    // These keep others from changing anything in them.
    corpus.modes();
    corpus.flags();
    corpus
}

fn io(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl Corpus {
    fn at(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn put(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    }

    fn folder(&self, path: &str) -> PathBuf {
        fs::create_dir_all(self.at(path)).unwrap();
        self.at(path)
    }

    fn tried(&mut self, what: &str, done: Result<()>) {
        if let Err(errno) = done {
            self.not_made.push((what.to_owned(), errno));
        }
    }

    fn files(&self) {
        self.put("files/empty", b"");
        self.put("files/small", b"small");
        let mut noise = vec![0; 3 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        self.put("files/large", &noise);
        self.put("files/zeros", &[0; 300_000]);
        self.folder("files/nothing in it");
    }

    fn names(&mut self) {
        for name in
            [&b"new\nline"[..], b"\xff\xfe no text", b"-rf", b" ", b"back\\slash", b"\x01\x7f", &[b'n'; 255]]
        {
            let done = fs::create_dir_all(self.at("names")).and_then(|()| {
                File::create(self.at("names").join(OsString::from_vec(name.to_vec())))?.write_all(name)
            });
            self.tried("a name", done.map_err(|error| io(&error)));
        }
        self.folder("names/\u{e9}\u{1f6f6}/x/-/y");
    }

    fn links(&mut self) {
        let first = self.put("links/a/first", b"one file");
        self.folder("links/b/c");
        fs::hard_link(&first, self.at("links/b/c/second")).unwrap();
        fs::hard_link(&first, self.at("links/third")).unwrap();
        symlink("../nowhere", self.at("links/a/symbolic")).unwrap();
        symlink(OsString::from_vec(vec![0xff; 1000]), self.at("links/long")).unwrap();
        symlink("a", self.at("links/to a folder")).unwrap();
        self.linked("links/a/symbolic", "links/b/symbolic too");
        let pipe = self.node("links/a/pipe", FileType::Fifo, 0);
        self.tried("a named pipe", pipe);
        self.linked("links/a/pipe", "links/b/c/pipe too");
    }

    fn linked(&mut self, from: &str, to: &str) {
        let done = rustix::fs::linkat(CWD, self.at(from), CWD, self.at(to), AtFlags::empty());
        self.tried(&format!("a second name for {from}"), done);
    }

    fn node(&self, path: &str, kind: FileType, device: u64) -> Result<()> {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device)
    }

    fn specials(&mut self) {
        let made = self.node("specials/socket", FileType::Socket, 0);
        self.tried("a socket", made);
        let made = self.node("specials/character", FileType::CharacterDevice, makedev(1, 3));
        self.tried("a character device", made);
        let made = self.node("specials/block", FileType::BlockDevice, makedev(240, 1_000));
        self.tried("a block device", made);
        if self.at("specials/block").symlink_metadata().is_ok() {
            self.linked("specials/block", "specials/block too");
        }
    }

    fn attribute(&mut self, path: &str, name: &[u8], value: &[u8]) {
        let done = lsetxattr(self.at(path), name, value, XattrFlags::empty());
        self.tried(&format!("{} of {path}", String::from_utf8_lossy(name)), done);
    }

    fn attributes(&mut self) {
        let file = "attributes/folder/file";
        let path = self.put(file, b"with attributes");
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        self.attribute(file, b"user.text", b"value");
        self.attribute(file, b"user.nothing", b"");
        self.attribute(file, b"user.bytes\xff", &(0..=255).collect::<Vec<u8>>());
        self.attribute(file, b"user.long", &[b'x'; 2000]);
        self.attribute(file, b"trusted.for root", b"\0\xff");
        self.attribute(file, b"security.label", b"system_u:object_r:etc_t:s0\0");
        self.attribute("attributes/folder", b"user.of a folder", b"1");
        self.put("attributes/read-only", b"nobody may write it");
        self.attribute("attributes/read-only", b"user.set before", b"1");
        fs::set_permissions(self.at("attributes/read-only"), fs::Permissions::from_mode(0o444)).unwrap();
        symlink("file", self.at("attributes/folder/link")).unwrap();
        self.attribute("attributes/folder/link", b"trusted.of a link", b"1");
        self.node("attributes/folder/pipe", FileType::Fifo, 0).unwrap();
        self.attribute("attributes/folder/pipe", b"trusted.of a pipe", b"1");
        self.put("attributes/acl/file", b"somebody else may read it");
        self.attribute("attributes/acl/file", b"system.posix_acl_access", &acl(0o6, 4242, 0o4, 0o0));
        // What is in it does not get it, or a restore would not be what was there.
        self.attribute("attributes/acl", b"system.posix_acl_default", &acl(0o7, 4343, 0o5, 0o5));
        self.put("attributes/program", b"#!/bin/sh\n");
        // Version 2: may bind to low ports.
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.attribute("attributes/program", b"security.capability", &capability);
    }

    fn sparse(&self) {
        let sparse = |name: &str, size: u64, islands: &[u64]| {
            let file = File::create(self.at(name)).unwrap();
            file.set_len(size).unwrap();
            for at in islands {
                file.write_all_at(&[7; 100_000], *at).unwrap();
            }
        };
        self.folder("sparse");
        sparse("sparse/only a hole", 10 * MIB + 17, &[]);
        sparse("sparse/hole at the end", 10 * MIB, &[0]);
        sparse("sparse/hole at the beginning", 10 * MIB, &[10 * MIB - 100_000]);
        sparse("sparse/islands", 50 * MIB + 1, &[MIB, 20 * MIB, 30 * MIB]);
        sparse("sparse/many", 64 * MIB, &(0..200).map(|n| n * 320_000).collect::<Vec<_>>());
    }

    fn owners(&mut self) {
        for (path, uid, gid) in
            [("owners/both", 4242, 4343), ("owners/setuid", 4242, 0), ("owners/link", 1, 2)]
        {
            self.folder("owners");
            if path.ends_with("link") {
                symlink("both", self.at(path)).unwrap();
            } else {
                self.put(path, b"owned");
            }
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            let done = chownat(CWD, self.at(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            self.tried(&format!("the owner of {path}"), done);
        }
        fs::set_permissions(self.at("owners/setuid"), fs::Permissions::from_mode(0o4711)).unwrap();
    }

    fn times(&mut self) {
        symlink("x", self.at("files/dated link")).unwrap();
        let ns = 123_456_789;
        for (path, seconds) in
            [("files/small", -1_000), ("files/empty", 4_000_000_000), ("files/dated link", 1_000_000_000)]
        {
            let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let times = Timestamps {
                last_access: omit,
                last_modification: Timespec { tv_sec: seconds, tv_nsec: ns },
            };
            let done = utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW);
            self.tried(&format!("the time of {path}"), done);
        }
    }

    fn modes(&self) {
        for (name, mode) in [("setuid", 0o4755), ("setgid", 0o2755), ("sticky", 0o1644), ("secret", 0o600)] {
            let path = self.put(&format!("modes/{name}"), name.as_bytes());
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        for mode in [0o555, 0o500, 0o2775, 0o1777, 0o3770, 0o711] {
            let folder = format!("modes/{mode:o}");
            self.put(&format!("{folder}/below/file"), b"in a folder of odd mode");
            fs::set_permissions(self.at(&folder).join("below"), fs::Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(self.at(&folder), fs::Permissions::from_mode(mode)).unwrap();
        }
        if rustix::process::geteuid().is_root() {
            // Nobody else could back these up.
            for (name, mode) in [("no right at all", 0), ("write only", 0o222)] {
                let path = self.put(&format!("modes/{name}"), b"x");
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            let path = self.put("modes/no-exec/file", b"x");
            fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    fn flag(&mut self, path: &str, flags: u32) {
        let done = flagged(&self.at(path), flags, true);
        self.tried(&format!("flags {flags:x} of {path}"), done);
    }

    fn flags(&mut self) {
        for (name, flags) in
            [("no-dump", 0x40), ("no-atime", 0x80), ("sync", 0x8), ("both", 0xc0), ("append", 0x20)]
        {
            self.put(&format!("flags/{name}"), b"flagged");
            self.flag(&format!("flags/{name}"), flags);
        }
        self.put("flags/folder/in it", b"x");
        self.flag("flags/folder", 0x40);
        self.put("flags/frozen/file", b"immutable");
        self.put("flags/frozen/linked", b"immutable with two names");
        let (from, to) = (self.at("flags/frozen/linked"), self.at("flags/linked too"));
        fs::hard_link(from, to).unwrap();
        self.flag("flags/frozen/file", 0x10);
        self.flag("flags/frozen/linked", 0x10);
        self.flag("flags/frozen", 0x10);
    }
}

/// An ACL as the system has it: rights of the owner, of one more user, of the mask and of all others.
fn acl(owner: u16, user: u32, mask: u16, other: u16) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, rights, id) in [
        (1_u16, owner, u32::MAX),
        (2, 4, user),
        (4, 0, u32::MAX),
        (16, mask, u32::MAX),
        (32, other, u32::MAX),
    ] {
        bytes.extend([&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    bytes
}

/// Sets or clears inode flags.
pub(crate) fn flagged(path: &Path, flags: u32, set: bool) -> Result<()> {
    let file = open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty())?;
    let now = ioctl_getflags(&file)?.bits();
    let then = if set { now | flags } else { now & !flags };
    if then == now { Ok(()) } else { ioctl_setflags(&file, IFlags::from_bits_retain(then)) }
}

/// Removes a tree that others could not: one with immutable files, or very deep.
pub(crate) fn remove(folder: &Path) {
    walk(folder, &mut |path| {
        let status = path.symlink_metadata().unwrap();
        if status.is_dir() || status.is_file() {
            flagged(path, 0x30, false).unwrap_or_default();
        }
        if status.is_dir() {
            // Others than root may not remove what is in a folder that they may not write.
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
    });
    let mut rm = std::process::Command::new("rm");
    assert!(rm.arg("-rf").arg(folder).status().unwrap().success());
}

fn walk(path: &Path, each: &mut dyn FnMut(&Path)) {
    each(path);
    if path.symlink_metadata().is_ok_and(|status| status.is_dir()) {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.iter().for_each(|name| walk(name, each));
    }
}

/// Everything that can be seen of a tree, by relative path: one text for each property.
pub(crate) type Seen = BTreeMap<Vec<u8>, BTreeMap<&'static str, String>>;

/// Looks at a tree: each entry with its type, mode, owner, time, size, content, extents, target, device, attributes,
/// flags, and the first name of the file that it is.
pub(crate) fn look(root: &Path) -> Seen {
    let (mut seen, mut first) = (Seen::new(), BTreeMap::<(u64, u64), Vec<u8>>::new());
    walk(root, &mut |path| {
        let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let status = path.symlink_metadata().unwrap();
        let mut entry = BTreeMap::new();
        entry.insert("mode", format!("{:o}", status.mode()));
        entry.insert("owner", format!("{}:{}", status.uid(), status.gid()));
        entry.insert("time", format!("{}.{:09}", status.mtime(), status.mtime_nsec()));
        entry.insert("attributes", attributes_of(path));
        if status.is_symlink() {
            entry.insert("target", format!("{:?}", fs::read_link(path).unwrap()));
        }
        if status.file_type().is_char_device() || status.file_type().is_block_device() {
            entry.insert("device", status.rdev().to_string());
        }
        if status.is_file() {
            entry.insert("size", status.len().to_string());
            entry.insert("content", content_of(path));
            entry.insert("extents", format!("{:?}", extents(path)));
        }
        if status.is_dir() || status.is_file() {
            entry.insert("flags", format!("{:x}", flags_of(path)));
        }
        if !status.is_dir() {
            let group = first.entry((status.dev(), status.ino())).or_insert_with(|| relative.clone());
            entry.insert("first name", String::from_utf8_lossy(group).into_owned());
        }
        seen.insert(relative, entry);
    });
    seen
}

/// One line for each difference.
pub(crate) fn differences(one: &Seen, other: &Seen) -> Vec<String> {
    let mut lines = Vec::new();
    let paths: std::collections::BTreeSet<&Vec<u8>> = one.keys().chain(other.keys()).collect();
    for path in paths {
        let shown = String::from_utf8_lossy(path);
        match (one.get(path), other.get(path)) {
            (Some(one), Some(other)) => {
                let names: std::collections::BTreeSet<&str> =
                    one.keys().chain(other.keys()).copied().collect();
                for name in names.into_iter().filter(|name| one.get(name) != other.get(name)) {
                    lines.push(format!("{shown}: {name}: {:?} -> {:?}", one.get(name), other.get(name)));
                }
            }
            (Some(_), None) => lines.push(format!("{shown}: missing")),
            _ => lines.push(format!("{shown}: new")),
        }
    }
    lines
}

fn attributes_of(path: &Path) -> String {
    let mut names = vec![0; 64 << 10];
    let length = llistxattr(path, &mut names[..]).unwrap();
    names.truncate(length);
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        found.push(format!("{}={}", String::from_utf8_lossy(name), blake3::hash(&value).to_hex()));
    }
    found.sort();
    found.join(" ")
}

fn content_of(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    match File::open(path) {
        Ok(mut file) => {
            std::io::copy(&mut file, &mut hasher).unwrap();
            hasher.finalize().to_hex().to_string()
        }
        Err(error) => error.to_string(),
    }
}

/// Where data begins and ends.
pub(crate) fn extents(path: &Path) -> Vec<(u64, u64)> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let (mut found, mut at) = (Vec::new(), 0);
    while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(data)).unwrap();
        found.push((data, at));
    }
    found
}

fn flags_of(path: &Path) -> u32 {
    // Those that the file system sets for itself: extents, an index, data in the inode.
    const OWN: u32 = 0x1008_1000;
    match open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty()) {
        Ok(file) => ioctl_getflags(&file).map_or(0, |flags| flags.bits() & !OWN),
        Err(_) => 0,
    }
}

/// Makes folders of this name, each in the one before, and a file in the last one, which is far beyond the longest path.
pub(crate) fn deep(folder: &Path, name: &str, depth: usize) -> OwnedFd {
    let mut dir = OwnedFd::from(File::open(folder).unwrap());
    let name = CString::new(name).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).unwrap();
        dir = rustix::fs::openat(&dir, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = rustix::fs::openat(&dir, c"file", flags, Mode::from_raw_mode(0o640)).unwrap();
    File::from(file).write_all(b"deep down").unwrap();
    dir
}

/// The folder so deep below another.
pub(crate) fn descend(folder: &Path, name: &str, depth: usize) -> OwnedFd {
    let mut dir = OwnedFd::from(File::open(folder).unwrap());
    for _ in 0..depth {
        dir = rustix::fs::openat(&dir, name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    dir
}

/// The mode and modification time of a name in a folder.
pub(crate) fn stamp(dir: &OwnedFd, name: &str) -> (u16, i64, u32) {
    let status = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).unwrap();
    (status.stx_mode, status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec)
}

/// Removes a tree too deep for whoever looks at it by its path.
pub(crate) fn remove_deep(folder: &Path) {
    let mut rm = std::process::Command::new("rm");
    assert!(rm.arg("-rf").arg(folder).status().unwrap().success());
}
