//! What this process may do beyond what the owner of a file may: root may lack it, in a container or a service. Promise: only
//! here is it asked who this process is; everywhere else, what it may do.

use std::sync::OnceLock;

use rustix::{
    fs::{Access, access},
    process::{getegid, geteuid},
    thread::{CapabilitySet, capabilities},
};

use super::namespace;

/// All that a restore makes use of.
const ALL: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_ADMIN);

/// Whether this process has these, if only for what belongs to its user namespace.
fn has(capability: CapabilitySet) -> bool {
    // A plan asks for each entry, and this program gives up none.
    static KNOWN: OnceLock<CapabilitySet> = OnceLock::new();
    let look = || capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    KNOWN.get_or_init(look).contains(capability)
}

/// Whether it has these on the whole machine: root of a user namespace has all of them, and the system does not ask for
/// those.
fn has_everywhere(capability: CapabilitySet) -> bool {
    has(capability) && namespace::is_whole()
}

/// Whether it may set and clear the flags that make something immutable or append-only.
pub(super) fn may_freeze() -> bool {
    has_everywhere(CapabilitySet::LINUX_IMMUTABLE)
}

/// Whether it may give what belongs to `from` to `to`: users and groups by their numbers.
#[must_use]
pub fn may_give(from: (u32, u32), to: (u32, u32)) -> bool {
    has(CapabilitySet::CHOWN) && namespace::has_numbers(from) && namespace::has_numbers(to)
}

/// Whether it may give a file to anybody.
#[must_use]
pub fn may_give_to_anybody() -> bool {
    has_everywhere(CapabilitySet::CHOWN)
}

/// Whether it may do what only the owner may to what belongs to that user and group.
pub(super) fn may_as_owner(of: (u32, u32)) -> bool {
    has(CapabilitySet::FOWNER) && namespace::has_numbers(of)
}

/// Whether no mode keeps it from what belongs to that user and group.
pub(super) fn overrides_modes(of: (u32, u32)) -> bool {
    has(CapabilitySet::DAC_OVERRIDE) && namespace::has_numbers(of)
}

/// Whether no mode keeps it from what is its own.
pub(super) fn overrides_its_own_modes() -> bool {
    overrides_modes((geteuid().as_raw(), getegid().as_raw()))
}

/// Whether it may make devices.
pub(super) fn may_make_devices() -> bool {
    has_everywhere(CapabilitySet::MKNOD)
}

/// Whether it may give a file of its own away to that user and group, and then not do to it what its owner may.
pub(super) fn may_only_give_away(to: (u32, u32)) -> bool {
    has(CapabilitySet::CHOWN) && !may_as_owner(to)
}

/// Whether it may give a program rights beyond those of its user.
pub(super) fn may_give_rights() -> bool {
    has(CapabilitySet::SETFCAP)
}

/// Whether it may set the attributes that the system keeps for itself.
pub(super) fn may_administer() -> bool {
    has_everywhere(CapabilitySet::SYS_ADMIN)
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
    has_everywhere(ALL)
}
