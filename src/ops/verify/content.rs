//! Compares the bytes of a file with the chunks and holes that a snapshot has of it.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, slice};

use crate::{
    crypto::ChunkIdKey,
    error::{Error, ErrorKind, Result},
    filesystem::holes::{Layout, Piece, Scan},
    format::entry::{ChunkRef, Hole},
    progress::Progress,
};

/// Is given what is read.
pub trait Witness {
    /// A file was opened, and will be read from its beginning.
    fn opened(&mut self, file: &File);
    /// The next bytes of it.
    fn bytes(&mut self, bytes: &[u8]);
    /// As many zeros come next: a hole.
    fn zeros(&mut self, length: u64) {
        let zeros = [0; 16 << 10];
        let mut left = length;
        while left > 0 {
            let piece = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.bytes(zeros.get(..piece).unwrap_or_default());
            left -= piece as u64;
        }
    }
    /// All of it was read, and all of it is as the snapshot has it; `path` is the one below the target.
    ///
    /// # Errors
    /// Whatever should end the comparison.
    fn same(&mut self, path: &[u8]) -> Result<()>;
}

/// Nobody.
pub(in crate::ops) struct Nobody;

impl Witness for Nobody {
    fn opened(&mut self, _: &File) {}
    fn bytes(&mut self, _: &[u8]) {}
    fn zeros(&mut self, _: u64) {}
    fn same(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// So many zeros of a hole go to a witness before the request to stop is looked at.
const ZEROS: u64 = 64 << 20;

/// Of one file so many ranges are told; beyond, it is enough that it differs.
const RANGES_MAX: usize = 64;

/// A file that is being compared.
pub(super) struct Reading<'a> {
    pub(super) file: &'a File,
    pub(super) layout: Layout,
    /// Those that were not passed yet.
    pub(super) holes: slice::Iter<'a, Hole>,
    /// Bytes in no hole that were compared.
    pub(super) content: u64,
    /// Bytes of holes that were compared.
    pub(super) passed: u64,
    pub(super) bad: Vec<Range<u64>>,
    pub(super) key: &'a ChunkIdKey,
    pub(super) buffer: &'a mut Vec<u8>,
    pub(super) witness: &'a mut dyn Witness,
}

impl Reading<'_> {
    fn add(&mut self, range: Range<u64>) {
        let is_full = self.bad.len() >= RANGES_MAX;
        match self.bad.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if is_full => {}
            _ => self.bad.push(range),
        }
    }

    /// Compares the next chunk, with the holes that lie in and before it. Gives why it could not be read.
    pub(super) fn chunk(&mut self, chunk: ChunkRef, progress: &Progress) -> Result<Option<Error>> {
        let content = self.content..self.content.saturating_add(u64::from(chunk.length));
        let places: Vec<Range<u64>> = self.layout.places(content.clone()).collect();
        let mut filled = 0_usize;
        for place in &places {
            if let Some(error) = self.pass_holes(place.start, progress)? {
                return Ok(Some(error));
            }
            let length = usize::try_from(place.end - place.start).unwrap_or(usize::MAX);
            let Some(bytes) = self.buffer.get_mut(filled..filled.saturating_add(length)) else {
                return Err(Error::damaged("the manifest", "a chunk is larger than any chunk"));
            };
            if let Err(error) = self.file.read_exact_at(bytes, place.start) {
                return Ok(Some(unreadable(error)));
            }
            self.witness.bytes(bytes);
            filled += length;
        }
        if self.key.id(self.buffer.get(..filled).unwrap_or_default()) != chunk.id {
            places.into_iter().for_each(|place| self.add(place));
        }
        self.content = content.end;
        Ok(None)
    }

    /// Compares the holes that begin before `until`: they read as zeros, whether they are still holes or not.
    pub(super) fn pass_holes(&mut self, until: u64, progress: &Progress) -> Result<Option<Error>> {
        while let Some(hole) = self.holes.as_slice().first().copied().filter(|hole| hole.offset < until) {
            self.holes.next();
            let mut scan = Scan::new(self.file, hole);
            loop {
                progress.check()?;
                match scan.piece() {
                    Ok(Some(Piece { range, is_zeros: false })) => self.add(range),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return Ok(Some(unreadable(error))),
                }
            }
            self.passed = self.passed.saturating_add(hole.length);
            let mut left = hole.length;
            while left > 0 {
                progress.check()?;
                let zeros = left.min(ZEROS);
                self.witness.zeros(zeros);
                left -= zeros;
            }
        }
        Ok(None)
    }
}

fn unreadable(error: io::Error) -> Error {
    Error::new(ErrorKind::Failed, error.to_string()).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_that_is_full_is_not_looked_through_when_the_program_is_to_stop() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 1 << 20], 0).unwrap();
        let holes = [Hole { offset: 0, length: 1 << 20 }];
        let key = ChunkIdKey::from_bytes([7; 32]);
        let progress = Progress::default();
        let mut reading = Reading {
            file: &file,
            layout: Layout::new(&holes),
            holes: holes.iter(),
            content: 0,
            passed: 0,
            bad: Vec::new(),
            key: &key,
            buffer: &mut Vec::new(),
            witness: &mut Nobody,
        };
        progress.stop();
        let error = reading.pass_holes(u64::MAX, &progress).unwrap_err();
        assert_eq!((error.kind(), reading.bad), (ErrorKind::Interrupted, Vec::new()));
    }
}
