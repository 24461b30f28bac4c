//! What the sandbox of a service hides. A folder that systemd covers looks empty to the program inside, and a
//! backup of it would look complete. The mounts of the process tell the difference.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::mounts::{Mount, Mounts};

/// How something is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// By an empty thing without rights: `ProtectHome=yes`, `InaccessiblePaths=` and others.
    Inaccessible,
    /// By an empty file system in memory: `ProtectHome=tmpfs`, `TemporaryFileSystem=`.
    Empty,
    /// By a folder of the service's own: `PrivateTmp=`.
    Private,
}

/// A place that is not what it is outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// Where the mask lies.
    pub path: PathBuf,
    /// What kind of mask it is.
    pub mask: Mask,
}

/// What is below these is made anew at each boot, and services always see a part of it only.
const VOLATILE: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];
/// Where systemd hands new mounts to a service that has a sandbox: only such a service has this one.
const HATCH: &str = "/run/systemd/incoming";

impl Mounts {
    /// What is hidden at, above and below the sources, sorted by path. `left_out` says whether a backup of a
    /// source comes past a place below it without looking.
    #[must_use]
    pub fn hidden(&self, sources: &[PathBuf], left_out: &dyn Fn(&Path, &Path) -> bool) -> Vec<Hidden> {
        let mut found: Vec<Hidden> = Vec::new();
        for source in sources {
            found.extend(self.holding(source).and_then(|mount| self.mask(mount)));
            let below =
                self.0.iter().filter(|mount| mount.point != *source && mount.point.starts_with(source));
            let below = below.filter_map(|mount| self.mask(self.holding(&mount.point)?));
            found.extend(below.filter(|hidden| {
                let volatile = VOLATILE.iter().any(|folder| hidden.path.starts_with(folder));
                !volatile && hidden.path.starts_with(source) && !left_out(source, &hidden.path)
            }));
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.dedup();
        found
    }

    /// The mount that a path is seen through: of those nearest to it, the last one covers the others.
    fn holding(&self, path: &Path) -> Option<&Mount> {
        let above = self.0.iter().filter(|mount| path.starts_with(&mount.point));
        above.max_by_key(|mount| mount.point.components().count())
    }

    fn mask(&self, mount: &Mount) -> Option<Hidden> {
        let has =
            |part: &[u8]| mount.root.as_os_str().as_bytes().windows(part.len()).any(|window| window == part);
        let mask = if has(b"/systemd/inaccessible/") {
            Mask::Inaccessible
        } else if has(b"/systemd-private-") {
            Mask::Private
        } else if mount.kind == b"tmpfs" && !mount.from_outside && self.is_sandbox() {
            Mask::Empty
        } else {
            return None;
        };
        Some(Hidden { path: mount.point.clone(), mask })
    }

    /// Whether somebody arranged these mounts for this process. Outside of containers everything that was not
    /// made for it follows the mounts of the machine.
    fn is_sandbox(&self) -> bool {
        self.0.iter().any(|mount| {
            mount.point == Path::new(HATCH) || mount.point == Path::new("/") && mount.from_outside
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured from services of systemd 252 with `ProtectHome=yes` and `InaccessiblePaths=/etc/shadow /srv`;
    /// with `ProtectHome=tmpfs` and `TemporaryFileSystem=/opt`; with `DynamicUser=yes` and `CacheDirectory=`;
    /// with nothing of the kind.
    const INACCESSIBLE: &[u8] = include_bytes!("../../tests/mountinfo/inaccessible");
    const IN_MEMORY: &[u8] = include_bytes!("../../tests/mountinfo/in-memory");
    const IN_MEMORY_IN_A_CONTAINER: &[u8] = include_bytes!("../../tests/mountinfo/in-memory-in-a-container");
    const DYNAMIC_USER: &[u8] = include_bytes!("../../tests/mountinfo/dynamic-user");
    const PLAIN: &[u8] = include_bytes!("../../tests/mountinfo/plain");

    fn hidden(text: &[u8], sources: &[&str]) -> Vec<(String, Mask)> {
        let sources: Vec<PathBuf> = sources.iter().map(PathBuf::from).collect();
        let hidden = Mounts::parse(text).hidden(&sources, &|_, path| path == Path::new("/var/tmp"));
        hidden.into_iter().map(|hidden| (hidden.path.display().to_string(), hidden.mask)).collect()
    }

    fn all(mask: Mask, paths: &[&str]) -> Vec<(String, Mask)> {
        paths.iter().map(|path| ((*path).to_owned(), mask)).collect()
    }

    #[test]
    fn a_source_at_or_below_a_mask_is_hidden() {
        let inaccessible = |paths: &[&str]| all(Mask::Inaccessible, paths);
        assert_eq!(hidden(INACCESSIBLE, &["/home/alice"]), inaccessible(&["/home"]));
        assert_eq!(hidden(INACCESSIBLE, &["/home"]), inaccessible(&["/home"]));
        assert_eq!(hidden(INACCESSIBLE, &["/etc/shadow"]), inaccessible(&["/etc/shadow"]));
        assert_eq!(hidden(INACCESSIBLE, &["/run/user/7"]), inaccessible(&["/run/user"]));
        assert_eq!(hidden(INACCESSIBLE, &["/homes", "/var", "/usr"]), []);
        for text in [IN_MEMORY, IN_MEMORY_IN_A_CONTAINER] {
            assert_eq!(hidden(text, &["/root/x", "/opt"]), all(Mask::Empty, &["/opt", "/root"]));
            assert_eq!(
                hidden(text, &["/var", "/dev/shm/x", "/run/lock/x"]).len(),
                usize::from(text != IN_MEMORY) * 2
            );
        }
        assert_eq!(hidden(DYNAMIC_USER, &["/tmp/x"]), all(Mask::Private, &["/tmp"]));
    }

    #[test]
    fn a_mask_below_a_source_is_found_unless_it_is_left_out_or_gone_after_a_boot() {
        let expected = all(Mask::Inaccessible, &["/etc/shadow", "/home", "/root", "/srv"]);
        assert_eq!(hidden(INACCESSIBLE, &["/"]), expected);
        assert_eq!(hidden(INACCESSIBLE, &["/etc", "/usr"]), all(Mask::Inaccessible, &["/etc/shadow"]));
        assert_eq!(hidden(IN_MEMORY, &["/"]), all(Mask::Empty, &["/home", "/opt", "/root"]));
        let expected =
            vec![("/tmp".to_owned(), Mask::Private), ("/var/cache/private".to_owned(), Mask::Empty)];
        assert_eq!(hidden(DYNAMIC_USER, &["/"]), expected);
        // What lies on the mask again is the real thing.
        assert_eq!(hidden(DYNAMIC_USER, &["/var/cache/private/lifeboat/x"]), []);
    }

    #[test]
    fn nothing_is_hidden_without_a_sandbox() {
        assert_eq!(hidden(PLAIN, &["/", "/home", "/tmp", "/run", "/dev/shm"]), []);
        assert_eq!(hidden(b"", &["/"]), []);
        assert_eq!(hidden(b"1 2\nnonsense\n\n", &["/"]), []);
    }
}
