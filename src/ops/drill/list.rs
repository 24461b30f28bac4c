//! The list of files that came back: the plain BLAKE3 of each, in lines as `b3sum` writes and checks them.
//! It goes out as it comes, and its own hash stands in the report.

use std::{fs::File, io::Write};

use rustix::fs::{Advice, fadvise};

use crate::{
    error::{Error, ErrorKind, Result},
    format::drill::FilesReport,
    ops::verify::Witness,
};

/// Writes the list while files are compared.
pub struct FileList<'a> {
    out: &'a mut dyn Write,
    whole: blake3::Hasher,
    file: blake3::Hasher,
    folder: String,
    lines: u64,
}

impl std::fmt::Debug for FileList<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileList").field("lines", &self.lines).finish_non_exhaustive()
    }
}

impl<'a> FileList<'a> {
    /// A list that goes to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        let (whole, file) = (blake3::Hasher::new(), blake3::Hasher::new());
        Self { out, whole, file, folder: String::new(), lines: 0 }
    }

    /// Paths are below this folder from now on.
    pub(super) fn below(&mut self, folder: &str) {
        folder.clone_into(&mut self.folder);
    }

    /// How long it is, and its hash.
    ///
    /// # Errors
    /// It could not be written.
    pub(super) fn finish(self) -> Result<FilesReport> {
        self.out.flush().map_err(cannot)?;
        Ok(FilesReport { lines: self.lines, blake3: self.whole.finalize().to_hex().to_string() })
    }
}

fn cannot(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Failed, "could not write the list of restored files")
        .with_remedy("Look whether its disk is full, or name another place with --report")
        .with_source(error)
}

/// A line as `b3sum` writes it.
fn line(hash: &blake3::Hash, path: &str) -> String {
    if path.contains(['\\', '\n', '\r']) {
        let path = path.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        format!("\\{hash}  {path}\n")
    } else {
        format!("{hash}  {path}\n")
    }
}

impl Witness for FileList<'_> {
    fn opened(&mut self, file: &File) {
        self.file.reset();
        // What was just written would come out of memory else. Where the system does not forget, as in a
        // file system that is in memory only, there is nothing else to read.
        fadvise(file, 0, None, Advice::DontNeed).unwrap_or_default();
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.file.update(bytes);
    }

    fn same(&mut self, path: &[u8]) -> Result<()> {
        let path = format!("{}/{}", self.folder, String::from_utf8_lossy(path));
        let line = line(&self.file.finalize(), &path);
        self.whole.update(line.as_bytes());
        self.lines += 1;
        self.out.write_all(line.as_bytes()).map_err(cannot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_b3sum() {
        let hash = blake3::hash(b"hello\n");
        let hex = "38d5445421bfe60d4d48ff2a7acb3ed412e43e68e66cdb2bb86f604ec6e6caa0";
        assert_eq!(line(&blake3::Hash::from_hex(hex).unwrap(), "a b"), format!("{hex}  a b\n"));
        assert_eq!(line(&hash, "a\nb\\c\r"), format!("\\{hash}  a\\nb\\\\c\\r\n"));
    }
}
