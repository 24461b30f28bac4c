//! What this process may do beyond what the owner of a file may: root may lack it, in a container or a service.

use std::sync::OnceLock;

use rustix::{
    fs::{Access, access},
    thread::{CapabilitySet, capabilities},
};

fn has(capability: CapabilitySet) -> bool {
    // A plan asks for each entry, and this program gives up none.
    static KNOWN: OnceLock<CapabilitySet> = OnceLock::new();
    let look = || capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    KNOWN.get_or_init(look).contains(capability)
}

/// Whether it may set and clear the flags that make something immutable or append-only.
pub(super) fn may_freeze() -> bool {
    has(CapabilitySet::LINUX_IMMUTABLE)
}

/// Whether it may give a file to anybody.
pub(super) fn may_give_away() -> bool {
    has(CapabilitySet::CHOWN)
}

/// Whether it may do to a file what only its owner may.
pub(super) fn may_as_owner() -> bool {
    has(CapabilitySet::FOWNER)
}

/// Whether it may give a file to anybody, and then not do to it what its owner may.
pub(super) fn may_only_give_away() -> bool {
    may_give_away() && !may_as_owner()
}

/// Whether it may give a program rights beyond those of its user.
pub(super) fn may_give_rights() -> bool {
    has(CapabilitySet::SETFCAP)
}

/// Whether it may set the attributes that the system keeps for itself.
pub(super) fn may_administer() -> bool {
    has(CapabilitySet::SYS_ADMIN)
}

/// Whether the system lets nobody but its owner link to a file that they may not write to.
pub(super) fn protects_links() -> bool {
    std::fs::read("/proc/sys/fs/protected_hardlinks").is_ok_and(|set| set.starts_with(b"1"))
}

/// Whether `SELinux` says who may set labels.
pub(super) fn has_selinux() -> bool {
    access("/sys/fs/selinux/enforce", Access::EXISTS).is_ok()
}

/// Whether it may do all that root may to a file that is restored.
#[must_use]
pub fn has_all() -> bool {
    may_freeze() && may_give_away() && may_as_owner() && may_give_rights() && may_administer()
}
