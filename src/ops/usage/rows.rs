//! The rows of a report: clients, or folders.

use std::collections::HashMap;

use super::sets::Sets;
use crate::{
    error::{Error, ErrorKind, Result},
    format::registry::Certificate,
};

/// Rows of one report, at most.
pub const ROWS_MAX: usize = 1 << 16;

/// By what the bytes are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By who backed them up.
    Client,
    /// By the folder that a file lies in, so many components deep at most.
    Path(usize),
}

/// What a row stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowName {
    /// The label of an identity, and the host if several machines use the identity.
    Client {
        /// The label.
        label: String,
        /// The host.
        host: Option<String>,
    },
    /// A folder, without its leading slash.
    Path(Vec<u8>),
}

impl RowName {
    /// The client that a snapshot of this identity and host belongs to.
    #[must_use]
    pub fn client(certificate: &Certificate, host: &str) -> Self {
        let host = certificate.shared.then(|| host.to_owned());
        Self::Client { label: certificate.label.clone(), host }
    }

    /// The folder that a file belongs to.
    fn folder(path: &[u8], depth: usize) -> &[u8] {
        let mut ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        // The end of the folder that is `depth` deep, or of the last one above the file.
        let (mut end, mut left) = (0, depth);
        while left > 0
            && let Some(at) = ends.next()
        {
            (end, left) = (at, left - 1);
        }
        path.get(..end).unwrap_or_default()
    }
}

/// Rows, and which sets of them reach stored bytes.
pub(super) struct Rows {
    pub(super) names: Vec<RowName>,
    numbers: HashMap<RowName, u32>,
    folders: HashMap<Vec<u8>, u32>,
    pub(super) logical: Vec<u64>,
    pub(super) sets: Sets,
}

impl Rows {
    pub(super) fn new() -> Self {
        let (names, numbers, folders, logical) = Default::default();
        Self { names, numbers, folders, logical, sets: Sets::new() }
    }

    /// The number of a row.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn number(&mut self, name: RowName) -> Result<u32> {
        if let Some(number) = self.numbers.get(&name) {
            return Ok(*number);
        }
        let number = u32::try_from(self.names.len()).ok().filter(|_| self.names.len() < ROWS_MAX);
        let number = number.ok_or_else(|| {
            Error::new(ErrorKind::Failed, format!("the report would have more than {ROWS_MAX} rows"))
                .with_remedy("Ask for fewer: a smaller N in --by path:N")
        })?;
        self.names.push(name.clone());
        self.numbers.insert(name, number);
        self.logical.push(0);
        Ok(number)
    }

    /// The number of the row of a file.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn folder(&mut self, path: &[u8], depth: usize) -> Result<u32> {
        let folder = RowName::folder(path, depth);
        if let Some(number) = self.folders.get(folder) {
            return Ok(*number);
        }
        let number = self.number(RowName::Path(folder.to_vec()))?;
        self.folders.insert(folder.to_vec(), number);
        Ok(number)
    }

    pub(super) fn add_logical(&mut self, row: u32, bytes: u64) {
        if let Some(logical) = self.logical.get_mut(row as usize) {
            *logical = logical.saturating_add(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_its_folder_so_many_components_deep() {
        let table = [
            ("srv/data/a/b", 1, "srv"),
            ("srv/data/a/b", 2, "srv/data"),
            ("srv/data/a/b", 3, "srv/data/a"),
            ("srv/data/a/b", 9, "srv/data/a"),
            ("srv/file", 2, "srv"),
            ("file", 2, ""),
        ];
        for (path, depth, folder) in table {
            assert_eq!(RowName::folder(path.as_bytes(), depth), folder.as_bytes(), "{path} {depth}");
        }
    }

    #[test]
    fn there_are_not_more_rows_than_may_be() {
        let mut rows = Rows::new();
        for number in 0..ROWS_MAX {
            rows.folder(format!("{number}/file").as_bytes(), 1).unwrap();
        }
        assert_eq!(rows.folder(b"0/other", 1).unwrap(), 0);
        assert!(rows.folder(b"more/file", 1).unwrap_err().remedy().unwrap().contains("path:N"));
    }
}
