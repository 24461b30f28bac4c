//! What is mounted where: which file systems hold nothing that could be kept, and which mounts show what a
//! backup sees at another place anyhow.

use std::{
    collections::HashMap,
    ffi::{CStr, OsString},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, Statx, StatxAttributes, StatxFlags, fstatfs, openat};

/// File systems whose files the kernel makes up when they are looked at, or which another program mounts when
/// somebody looks (`autofs`): their names, and the number by which `statfs` knows them, if it is their own.
const MADE_UP: [(&str, Option<u32>); 27] = [
    ("autofs", Some(0x0187)),
    ("binder", Some(0x6c6f_6f70)),
    ("binfmt_misc", Some(0x4249_4e4d)),
    ("bpf", Some(0xcafe_4a11)),
    ("cgroup", Some(0x0027_e0eb)),
    ("cgroup2", Some(0x6367_7270)),
    ("configfs", Some(0x6265_6570)),
    ("cpuset", None),
    ("debugfs", Some(0x6462_6720)),
    ("devpts", Some(0x1cd1)),
    ("devtmpfs", None),
    ("efivarfs", Some(0xde5e_81e4)),
    ("fuse.lxcfs", None),
    ("fusectl", Some(0x6573_5543)),
    ("hugetlbfs", Some(0x9584_58f6)),
    ("mqueue", Some(0x1980_0202)),
    ("nfsd", Some(0x6e66_7364)),
    ("nsfs", Some(0x6e73_6673)),
    ("proc", Some(0x9fa0)),
    ("pstore", Some(0x6165_676c)),
    ("resctrl", Some(0x0765_5821)),
    ("rpc_pipefs", Some(0x6759_6969)),
    ("securityfs", Some(0x7363_6673)),
    ("selinuxfs", Some(0xf97c_ff8c)),
    ("smackfs", Some(0x4341_5d53)),
    ("sysfs", Some(0x6265_6572)),
    ("tracefs", Some(0x7472_6163)),
];

/// The mount that something is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct On {
    /// The device as the kernel numbers it now.
    pub device: (u32, u32),
    /// The number of the mount; none before Linux 5.8.
    pub mount: Option<u64>,
}

impl On {
    pub(super) fn of(status: &Statx) -> Self {
        let told = status.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        Self {
            device: (status.stx_dev_major, status.stx_dev_minor),
            mount: told.then_some(status.stx_mnt_id),
        }
    }

    /// Whether both are on one mount. A subvolume of btrfs has a device of its own and no mount; a bind mount
    /// has a mount of its own and the device of what it shows.
    pub(super) fn is_same(self, other: Self) -> bool {
        match (self.mount, other.mount) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.device == other.device,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    id: u64,
    /// The mount that it lies on.
    parent: u64,
    device: (u32, u32),
    /// What of the file system is mounted.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) point: PathBuf,
    pub(super) kind: Vec<u8>,
    /// It came from outside of this mount namespace, and follows what happens there.
    pub(super) from_outside: bool,
}

/// The mounts of a process, as the kernel lists them: the older ones first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts(pub(super) Vec<Mount>);

/// A place in a file system, wherever that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    device: (u32, u32),
    /// From the root of the file system.
    path: PathBuf,
}

impl At {
    /// Whether it is the other one, or below it.
    pub(super) fn is_in(&self, other: &Self) -> bool {
        self.device == other.device && self.path.starts_with(&other.path)
    }
}

/// A tree that a backup walks.
struct Walked<'a> {
    source: &'a Path,
    /// The place of its mount in the list.
    order: usize,
    mount: &'a Mount,
    /// What of the file system it is.
    root: PathBuf,
    /// Where it is seen.
    point: PathBuf,
}

/// What a list of mounts does not tell: what the rules of a backup take, and what there is to be seen. In doubt the answer
/// is no, and a tree is walked at both of its places: it is stored once all the same.
pub(super) trait Sight {
    /// Whether the walk of `source` is sure to come to `place`, and to take all below it that it would take if it stood
    /// at `other`.
    fn takes(&self, source: &Path, place: &Path, other: &Path) -> bool;

    /// Whether it is a folder and nothing is in it.
    fn is_empty(&self, path: &Path) -> bool;
}

impl Mounts {
    /// Those of this process; none where `/proc` is not mounted, as in a rescue shell.
    #[must_use]
    pub fn of_this_process() -> Self {
        std::fs::read("/proc/self/mountinfo")
            .map_or_else(|_no_proc| Self::default(), |text| Self::parse(&text))
    }

    /// Reads the text of `/proc/PID/mountinfo`. Lines of another form are left out.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        Self(text.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
    }

    /// Of each mount, by its number, the kind of its file system if that is made up by the kernel.
    pub(super) fn made_up(&self) -> HashMap<u64, Option<&'static str>> {
        self.0.iter().map(|mount| (mount.id, mount.made_up())).collect()
    }

    /// The mount that the kernel comes to when it looks for a path.
    fn through(&self, path: &Path) -> Option<(usize, &Mount)> {
        let has_parent = |mount: &Mount| self.0.iter().any(|m| m.id == mount.parent && m.id != mount.id);
        let mut roots = self.0.iter().enumerate().filter(|(_, mount)| mount.point == Path::new("/"));
        let mut at = roots.clone().find(|(_, mount)| !has_parent(mount)).or_else(|| roots.next())?;
        // Each step goes to another mount: more steps than mounts would be a circle.
        for _ in 0..self.0.len() {
            let on_it = self.0.iter().enumerate();
            let on_it = on_it.filter(|(_, mount)| mount.parent == at.1.id && mount.id != at.1.id);
            // The one that is met first on the way.
            let next = on_it.filter(|(_, mount)| path.starts_with(&mount.point));
            match next.min_by_key(|(_, mount)| mount.point.components().count()) {
                Some(next) => at = next,
                None => break,
            }
        }
        Some(at)
    }

    /// Where in its file system a path without links is.
    pub(super) fn at(&self, path: &Path) -> Option<At> {
        let (_, mount) = self.through(path)?;
        let path = mount.root.join(path.strip_prefix(&mount.point).ok()?);
        Some(At { device: mount.device, path })
    }

    /// Where a folder is, and what is mounted in it.
    pub(super) fn parts(&self, folder: &Path) -> Vec<At> {
        let in_it = self.0.iter().filter(|mount| mount.point.starts_with(folder) && mount.point != folder);
        self.at(folder).into_iter().chain(in_it.filter_map(|mount| self.at(&mount.point))).collect()
    }

    /// The mounts below the sources, by their numbers, of which a backup is sure to see everything at another place
    /// too, and that place: bind mounts, and file systems that are mounted twice. Of two the older one is walked.
    /// A source is always walked.
    pub(super) fn seen_elsewhere<'a>(
        &'a self,
        sources: &'a [PathBuf],
        sight: &dyn Sight,
    ) -> HashMap<u64, PathBuf> {
        let mut devices: HashMap<(u32, u32), u32> = HashMap::new();
        self.0.iter().for_each(|mount| *devices.entry(mount.device).or_default() += 1);
        let twice = |mount: &Mount| devices.get(&mount.device).is_some_and(|mounts| *mounts > 1);
        let mut found = HashMap::new();
        if !self.0.iter().any(twice) {
            return found;
        }
        let of_source = |source: &'a PathBuf| {
            let (order, mount) = self.through(source).filter(|(_, mount)| twice(mount))?;
            let root = mount.root.join(source.strip_prefix(&mount.point).ok()?);
            Some(Walked { source, order, mount, root, point: source.clone() })
        };
        let mut walked: Vec<Walked<'_>> = sources.iter().filter_map(of_source).collect();
        for (order, mount) in self.0.iter().enumerate().filter(|(_, mount)| twice(mount)) {
            let Some(source) = sources.iter().find(|source| self.is_come_to(mount, source, &found)) else {
                continue;
            };
            if !self.is_entered(mount) || sources.contains(&mount.point) {
                continue;
            }
            match self.place(&walked, (order, mount), sources, sight) {
                Some(place) => drop(found.insert(mount.id, place)),
                None => {
                    let (root, point) = (mount.root.clone(), mount.point.clone());
                    walked.push(Walked { source, order, mount, root, point });
                }
            }
        }
        found
    }

    /// Whether a walk that comes to the point of a mount goes into it.
    fn is_entered(&self, mount: &Mount) -> bool {
        self.through(&mount.point).is_some_and(|(_, top)| top.id == mount.id) && mount.made_up().is_none()
    }

    /// Whether the walk of a source goes into all mounts on its way to this one, but for those that were `found`.
    fn is_come_to(&self, mount: &Mount, source: &Path, found: &HashMap<u64, PathBuf>) -> bool {
        let of_source = self.through(source).map(|(_, mount)| mount.id);
        let way = mount.point.ancestors().skip(1).take_while(|folder| folder.starts_with(source));
        mount.point.starts_with(source)
            && way.filter_map(|folder| self.through(folder)).all(|(_, on)| {
                Some(on.id) == of_source || on.made_up().is_none() && !found.contains_key(&on.id)
            })
    }

    /// Where all that is to be seen at a mount is walked anyhow, with what is mounted below it: nobody will look there.
    fn place(
        &self,
        walked: &[Walked<'_>],
        (order, mount): (usize, &Mount),
        sources: &[PathBuf],
        sight: &dyn Sight,
    ) -> Option<PathBuf> {
        let is_other = |walked: &&Walked<'_>| walked.order < order && !walked.point.starts_with(&mount.point);
        let elsewhere: Vec<_> = walked.iter().filter(is_other).collect();
        let place = |mount: &Mount| elsewhere.iter().find_map(|walked| self.shows(walked, mount, sight));
        let in_it = |below: &&Mount| below.point.starts_with(&mount.point) && below.point != mount.point;
        let mut in_it = self.0.iter().filter(in_it).filter(|below| self.is_entered(below));
        place(mount).filter(|_| in_it.all(|below| sources.contains(&below.point) || place(below).is_some()))
    }

    /// Where the tree that `mount` shows lies in one that is walked, if that is sure to show all of it.
    fn shows(&self, walked: &Walked<'_>, mount: &Mount, sight: &dyn Sight) -> Option<PathBuf> {
        if walked.mount.device != mount.device {
            return None;
        }
        let below = mount.root.strip_prefix(&walked.root).ok()?;
        let place =
            if below.as_os_str().is_empty() { walked.point.clone() } else { walked.point.join(below) };
        let is_seen = self.through(&place).is_some_and(|(top, _)| top == walked.order);
        // What lies below something that is mounted in there `mount` may show, if the same does not cover it here too.
        let hides = |over: &Mount| {
            let below = over.point.strip_prefix(&place).ok().filter(|_| over.parent == walked.mount.id);
            below.map(|below| mount.point.join(below)).is_some_and(|here| {
                self.through(&here).is_some_and(|(_, top)| top.id == mount.id) && !sight.is_empty(&here)
            })
        };
        let is_whole = || !self.0.iter().any(hides);
        (is_seen && sight.takes(walked.source, &place, &mount.point) && is_whole()).then_some(place)
    }
}

impl Mount {
    /// The kind of its file system, if the kernel makes that up.
    fn made_up(&self) -> Option<&'static str> {
        MADE_UP.iter().map(|(name, _)| *name).find(|name| name.as_bytes() == self.kind)
    }

    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
        let mut optional = fields.by_ref().skip(1).take_while(|field| *field != b"-");
        let from_outside = optional.by_ref().filter(|field| field.starts_with(b"master:")).count() > 0;
        let kind = fields.next()?.to_vec();
        let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
        Some(Self { id, parent, device, root: path(root), point: path(point), kind, from_outside })
    }
}

/// `\040` is a space.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    plain
}

/// Whether the system tells that something is mounted on what has this status.
pub(super) fn is_mounted_on(status: &Statx) -> bool {
    status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

/// What kind of file system `name` in `dir` is on, if that is made up by the kernel. It mounts nothing.
pub(super) fn made_up(dir: BorrowedFd<'_>, name: &CStr) -> Option<&'static str> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    made_up_by(openat(dir, name, flags, Mode::empty()).ok()?)
}

/// The same of something that is open.
pub(super) fn made_up_by(handle: impl AsFd) -> Option<&'static str> {
    let [a, b, c, d, ..] = fstatfs(handle).ok()?.f_type.to_le_bytes();
    let number = u32::from_le_bytes([a, b, c, d]);
    MADE_UP.iter().find(|(_, known)| *known == Some(number)).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn names_are_unescaped() {
        let text = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
                     2 1 0:5 /x /srv/a\\040b\\134c ro master:1 - tmpfs tmpfs ro\nnonsense\n1 2\n";
        let mounts = Mounts::parse(text);
        assert_eq!(mounts.0.len(), 2);
        assert_eq!(mounts.0[1].point, Path::new("/srv/a b\\c"));
        assert!(mounts.0[1].from_outside && !mounts.0[0].from_outside);
        assert_eq!((mounts.0[1].id, mounts.0[1].parent, mounts.0[1].device), (2, 1, (0, 5)));
        assert_eq!(unescaped(b"\\04\\x"), b"\\04\\x");
    }

    #[test]
    fn what_the_kernel_makes_up_is_known_by_name_and_by_number() {
        let root = File::open("/").unwrap();
        assert_eq!(made_up(root.as_fd(), c"proc"), Some("proc"));
        assert_eq!(made_up(root.as_fd(), c"."), None);
        assert_eq!(made_up_by(File::open("/proc/version").unwrap()), Some("proc"));
        let proc = Mounts::of_this_process();
        assert!(proc.made_up().values().any(|kind| *kind == Some("proc")), "{proc:?}");
        let text = b"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /dev rw - devtmpfs udev rw\n";
        let kinds = Mounts::parse(text).made_up();
        assert_eq!(kinds, HashMap::from([(1, None), (2, Some("devtmpfs"))]));
    }

    #[test]
    fn a_place_in_a_file_system_is_the_same_by_whatever_mount() {
        let text = b"1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 /deep /data rw - ext4 b rw\n\
                     3 1 8:1 /repo/d /mnt/d rw - ext4 a rw\n4 1 8:3 / /repo/large rw - ext4 c rw\n\
                     5 1 8:3 /in /mnt/in rw - ext4 c rw\n6 1 8:1 /repository /mnt/other rw - ext4 a rw\n";
        let mounts = Mounts::parse(text);
        let parts = mounts.parts(Path::new("/repo"));
        let is_in = |path: &str| parts.iter().any(|part| mounts.at(Path::new(path)).unwrap().is_in(part));
        for path in ["/repo", "/repo/x", "/mnt/d", "/mnt/d/new", "/repo/large", "/mnt/in", "/mnt/in/x"] {
            assert!(is_in(path), "{path}");
        }
        for path in ["/", "/mnt", "/data", "/data/repo", "/mnt/other", "/repo2"] {
            assert!(!is_in(path), "{path}");
        }
        assert_eq!(mounts.at(Path::new("/data/x")).unwrap().path, Path::new("/deep/x"));
        assert_eq!(Mounts::default().parts(Path::new("/repo")), [], "nothing is known without /proc");
    }

    /// Nothing below `/excluded` is taken, and nothing is below a mount unless its name is `full`.
    struct Pretended;

    impl Sight for Pretended {
        fn takes(&self, _: &Path, place: &Path, _: &Path) -> bool {
            !place.starts_with("/excluded")
        }

        fn is_empty(&self, path: &Path) -> bool {
            !path.ends_with("full")
        }
    }

    /// `/` on 8:1; `/data` on 8:2; the lines that a test adds begin at 10.
    fn elsewhere(lines: &[&str], sources: &[&str]) -> Vec<(u64, String)> {
        let first = ["1 0 8:1 / / rw - ext4 a rw", "2 1 8:2 / /data rw - ext4 b rw"];
        let text = [&first, lines].concat().join("\n");
        let sources: Vec<PathBuf> = sources.iter().map(PathBuf::from).collect();
        let found = Mounts::parse(text.as_bytes()).seen_elsewhere(&sources, &Pretended);
        let mut found: Vec<_> = found.into_iter().map(|(id, at)| (id, at.display().to_string())).collect();
        found.sort();
        found
    }

    fn at(id: u64, place: &str) -> (u64, String) {
        (id, place.to_owned())
    }

    #[test]
    fn a_bind_mount_of_what_is_walked_anyhow_is_known_with_its_other_place() {
        let bind = "10 1 8:1 /srv/www /mnt/www rw - ext4 a rw";
        assert_eq!(elsewhere(&[bind], &["/"]), [at(10, "/srv/www")]);
        assert_eq!(elsewhere(&[bind], &["/mnt", "/srv"]), [at(10, "/srv/www")]);
        assert_eq!(elsewhere(&[bind], &["/mnt"]), []);
        assert_eq!(elsewhere(&[bind], &["/", "/mnt/www"]), [], "a source is always walked");
        assert_eq!(elsewhere(&["10 1 8:1 / /mnt/all rw - ext4 a rw"], &["/"]), [at(10, "/")]);
        assert_eq!(elsewhere(&["10 1 8:2 /x /mnt/x rw - ext4 b rw"], &["/"]), [at(10, "/data/x")]);
        assert_eq!(elsewhere(&["10 2 8:2 /x /data/y/x rw - ext4 b rw"], &["/data"]), [at(10, "/data/x")]);
    }

    #[test]
    fn of_two_mounts_that_show_the_same_the_older_one_is_walked() {
        let two = ["10 1 8:3 /x /mnt/a rw - ext4 c rw", "11 1 8:3 /x /mnt/b rw - ext4 c rw"];
        assert_eq!(elsewhere(&two, &["/"]), [at(11, "/mnt/a")]);
        assert_eq!(elsewhere(&two, &["/mnt/b", "/mnt/a"]), []);
        // What shows more than the older one is walked too: nothing may be lost.
        let more = ["10 1 8:3 /x /mnt/a rw - ext4 c rw", "11 1 8:3 / /mnt/b rw - ext4 c rw"];
        assert_eq!(elsewhere(&more, &["/"]), []);
        // Nor does one count that is itself not walked.
        let chain = [two[0], two[1], "12 1 8:3 /x/y /mnt/c rw - ext4 c rw"];
        assert_eq!(elsewhere(&chain, &["/"]), [at(11, "/mnt/a"), at(12, "/mnt/a/y")]);
    }

    #[test]
    fn what_cannot_be_seen_at_its_other_place_is_walked() {
        // A mount on itself, as sandboxes and containers make them.
        assert_eq!(elsewhere(&["10 1 8:1 /srv /srv rw - ext4 a rw"], &["/"]), []);
        // The other place is below a mount that covers it: this is how one looks below.
        assert_eq!(elsewhere(&["10 1 8:1 /data /mnt/below rw - ext4 a rw"], &["/"]), []);
        // It is left out there.
        assert_eq!(elsewhere(&["10 1 8:1 /excluded/x /mnt/x rw - ext4 a rw"], &["/"]), []);
        // Two on one point: the lower one is not seen, so it is no other place.
        let hidden = [
            "10 1 8:3 / /mnt/a rw - ext4 c rw",
            "11 10 8:4 / /mnt/a rw - ext4 d rw",
            "12 1 8:3 /x /mnt/c rw - ext4 c rw",
        ];
        assert_eq!(elsewhere(&hidden, &["/"]), []);
        assert_eq!(Mounts::default().seen_elsewhere(&["/".into()], &Pretended), HashMap::new());
    }

    #[test]
    fn what_a_mount_in_the_other_place_hides_is_walked() {
        let bind = "10 1 8:1 /srv /mnt/srv rw - ext4 a rw";
        let over = "11 1 0:9 / /srv/www/full rw - tmpfs t rw";
        assert_eq!(elsewhere(&[bind, over], &["/"]), []);
        assert_eq!(elsewhere(&[over, bind], &["/"]), [], "whichever came first");
        // It hides nothing, or is beside it, or covers the same here.
        assert_eq!(elsewhere(&[bind, "11 1 0:9 / /srv/x rw - tmpfs t rw"], &["/"]), [at(10, "/srv")]);
        assert_eq!(elsewhere(&[bind, "11 1 0:9 / /srv2/full rw - tmpfs t rw"], &["/"]), [at(10, "/srv")]);
        let both = [over, bind, "12 10 0:9 / /mnt/srv/www/full rw - tmpfs t rw"];
        assert_eq!(elsewhere(&both, &["/"]), [at(10, "/srv")]);
    }

    #[test]
    fn what_is_mounted_only_in_a_bind_mount_is_walked_with_it() {
        let bind = "10 1 8:1 /srv /mnt/srv rw - ext4 a rw";
        assert_eq!(elsewhere(&[bind, "11 10 0:9 / /mnt/srv/db rw - tmpfs t rw"], &["/"]), []);
        let known = [bind, "11 10 8:2 /x /mnt/srv/db rw - ext4 b rw"];
        assert_eq!(elsewhere(&known, &["/"]), [at(10, "/srv")]);
        // What the kernel makes up is an empty folder wherever it is.
        let made_up = [bind, "11 10 0:9 / /mnt/srv/proc rw - proc p rw"];
        assert_eq!(elsewhere(&made_up, &["/"]), [at(10, "/srv")]);
    }

    #[test]
    fn what_is_mounted_in_something_that_the_kernel_makes_up_is_no_other_place() {
        let shm = ["10 1 0:7 / /dev rw - devtmpfs d rw", "11 10 0:8 / /dev/shm rw - tmpfs s rw"];
        let bind = "12 1 0:8 /x /mnt/x rw - tmpfs s rw";
        assert_eq!(elsewhere(&[shm[0], shm[1], bind], &["/"]), []);
        assert_eq!(elsewhere(&[shm[0], shm[1], bind], &["/", "/dev/shm"]), [at(12, "/dev/shm/x")]);
    }

    #[test]
    fn a_subvolume_belongs_to_its_mount_and_a_bind_mount_does_not() {
        let on = |minor, mount| On { device: (8, minor), mount };
        assert!(on(1, Some(7)).is_same(on(2, Some(7))));
        assert!(!on(1, Some(7)).is_same(on(1, Some(8))));
        // A kernel that does not number mounts.
        assert!(on(1, None).is_same(on(1, None)) && !on(1, None).is_same(on(2, Some(7))));
    }
}
