//! What an identity may do: a set of secrets, and what its signature counts for.

/// The five roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Clients: add to their own domain, read nothing.
    Backup,
    /// Auditors: read names and sizes.
    Audit,
    /// The prune host: as audit, and removes.
    Maintain,
    /// Technicians: read everything.
    Restore,
    /// The vault drawer: everything.
    Owner,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Backup, Self::Audit, Self::Maintain, Self::Restore, Self::Owner];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Audit => "audit",
            Self::Maintain => "maintain",
            Self::Restore => "restore",
            Self::Owner => "owner",
        }
    }

    /// The role of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}
