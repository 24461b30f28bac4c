//! Bringing to the disk what programs have written to files that they have mapped into their memory.
//!
//! Such a write leaves a sign in the file's times only when it is the first one to its page since the kernel has written
//! that page to the disk. What came later would be in no backup as long as the times stay what they are. After a `syncfs`
//! each page begins anew: so whatever changes after it was read changes the times too, to what is not before the backup began.

use std::collections::HashSet;

use rustix::fs::{Mode, OFlags, openat, syncfs};

use super::walk::Found;

/// The file systems of which everything was brought to the disk since this was made.
#[derive(Debug, Default)]
pub struct Settled(HashSet<(u32, u32)>);

impl Settled {
    /// Brings to the disk what is on the file system of a regular file, unless that was done. It takes as long as `sync`.
    ///
    /// A file that cannot be opened is told by whoever reads it, and the next one counts. Nor is it an error of the backup
    /// when the kernel cannot write: what it has in memory is what is read.
    pub fn before_reading(&mut self, found: &Found) {
        if self.0.contains(&found.device) {
            return;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if let Ok(file) = openat(&found.dir, &found.name, flags, Mode::empty()) {
            let (Ok(()) | Err(_)) = syncfs(&file);
            self.0.insert(found.device);
        }
    }
}
