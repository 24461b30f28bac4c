//! The content of a file as it is stored in the source, chunk by chunk.

use std::{
    collections::VecDeque,
    io::{self, Read},
    sync::Arc,
};

use super::{
    frames::{Turn, WINDOW_CHUNKS, Window},
    names::Chunks,
    source::{Base, Cuts, Piece, Plain, Shared},
};
use crate::{
    error::{Error, Result},
    format::entry::{ChunkRef, Entry, Hole},
    ops::backup::{CutContent, NextChunk, ReadContent},
};

/// Windows of a large file that are planned while one is read.
const WINDOWS_AHEAD: usize = 2;
/// Chunks of the base that are known before their turn: what moved by less in a large file is not read again.
const LEARNED_AHEAD: usize = 1024;

/// The content of one file.
pub(super) struct StoredContent {
    shared: Arc<Shared>,
    path: Vec<u8>,
    windows: VecDeque<VecDeque<Piece>>,
    /// What is not planned yet, of a large file.
    rest: Option<Rest>,
    piece: Option<Piece>,
    plain: Option<Plain>,
    /// How much of the chunk in hand was given to who reads bytes.
    given: usize,
    holes: Vec<Hole>,
    changed: bool,
    /// Bytes that are still to come.
    left: u64,
}

/// The rest of a large file.
struct Rest {
    chunks: Chunks,
    base: Option<(Chunks, Chunks)>,
    window: Window,
    /// How many chunks of the base are learned with the next one.
    learn: usize,
}

impl StoredContent {
    /// A file of which every chunk is planned.
    pub(super) fn planned(shared: Arc<Shared>, entry: &Entry, pieces: VecDeque<Piece>) -> Self {
        Self {
            shared,
            path: entry.path.clone(),
            windows: VecDeque::from([pieces]),
            rest: None,
            piece: None,
            plain: None,
            given: 0,
            holes: entry.metadata.holes.clone(),
            changed: entry.changed_while_read,
            left: entry.metadata.content_bytes(),
        }
    }

    /// A file that is planned while it is read; the base has these contents under its path, there and in the copy.
    pub(super) fn large(
        shared: Arc<Shared>,
        entry: &Entry,
        chunks: Chunks,
        base: Option<(Chunks, Chunks)>,
    ) -> Self {
        let rest = Some(Rest { chunks, base, window: Window::default(), learn: LEARNED_AHEAD });
        Self { rest, windows: VecDeque::new(), ..Self::planned(shared, entry, VecDeque::new()) }
    }

    /// Plans the next windows.
    fn plan(&mut self) -> Result<()> {
        let Self { shared, windows, rest, .. } = self;
        while windows.len() <= WINDOWS_AHEAD {
            let Some(Rest { chunks, base, window, learn }) = rest else { return Ok(()) };
            let (mut pieces, mut ended) = (VecDeque::new(), false);
            while !window.is_full() && pieces.len() < WINDOW_CHUNKS {
                let Some(chunk) = chunks.next(&|id| shared.place.list(id))? else {
                    ended = true;
                    break;
                };
                learn_more(shared, base, std::mem::replace(learn, 1))?;
                pieces.push_back(shared.plan(window, chunk));
            }
            shared.close(window, Turn::Next);
            if ended {
                *rest = None;
            }
            windows.push_back(pieces);
        }
        Ok(())
    }

    /// The next chunk comes to hand; false at the end.
    fn come_to_next(&mut self) -> Result<bool> {
        (self.piece, self.plain, self.given) = (None, None, 0);
        loop {
            if let Some(piece) = self.windows.front_mut().and_then(VecDeque::pop_front) {
                self.left = (self.left.checked_sub(u64::from(piece.chunk.length)))
                    .ok_or_else(|| Error::damaged("a file", "its chunks are too many"))?;
                self.piece = Some(piece);
                return Ok(true);
            }
            if self.windows.pop_front().is_none() && self.rest.is_none() {
                break;
            }
            self.plan()?;
        }
        if self.left > 0 {
            return Err(Error::damaged("a file", "its chunks are too few"));
        }
        Ok(false)
    }

    fn bytes(&mut self) -> Result<&[u8]> {
        if self.plain.is_none() {
            let piece = self.piece.as_ref().ok_or_else(|| Error::damaged("a file", "it has ended"))?;
            self.plain = Some(self.shared.read(piece)?);
        }
        let bytes = self.plain.as_ref().and_then(|(plain, range)| plain.get(range.clone()));
        Ok(bytes.unwrap_or_default())
    }

    fn give(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let given = self.given;
            if self.piece.is_some() {
                let rest = self.bytes()?.get(given..).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                if count > 0 {
                    for (to, from) in buffer.iter_mut().zip(rest) {
                        *to = *from;
                    }
                    self.given += count;
                    return Ok(count);
                }
            }
            if !self.come_to_next()? {
                return Ok(0);
            }
        }
    }
}

/// Learns what the next chunks of the base are called in the target. A base that cannot be read is none.
fn learn_more(shared: &Shared, base: &mut Option<(Chunks, Chunks)>, count: usize) -> Result<()> {
    let (Some((there, copied)), Some(Base { source, copy })) = (base.as_mut(), &shared.base) else {
        return Ok(());
    };
    for _ in 0..count {
        let pair = there
            .next(&|id| source.list(id))
            .and_then(|chunk| Ok((chunk, copied.next(&|id| copy.list(id))?)));
        match pair {
            Ok((Some(chunk), Some(name))) if chunk.length == name.length => shared.names.learn(&chunk, name),
            Err(error) if !error.is_damage() => return Err(error),
            _ => {
                *base = None;
                return Ok(());
            }
        }
    }
    Ok(())
}

impl CutContent for StoredContent {
    fn advance(&mut self) -> Result<NextChunk> {
        let came = self.come_to_next().map_err(|error| self.shared.trouble(&self.path, error))?;
        let Some(piece) = self.piece.as_ref().filter(|_| came) else { return Ok(NextChunk::End) };
        let known = piece.known.or_else(|| self.shared.names.get(&piece.chunk));
        Ok(known.map_or(NextChunk::Unknown, NextChunk::Known))
    }

    fn plain(&mut self) -> Result<&[u8]> {
        if let Err(error) = self.bytes() {
            return Err(self.shared.trouble(&self.path, error));
        }
        self.bytes()
    }

    fn stored(&mut self, name: ChunkRef) {
        if let Some(piece) = &self.piece {
            if self.plain.is_none() {
                self.shared.reuses(&piece.chunk);
            }
            self.shared.names.learn(&piece.chunk, name);
        }
    }
}

impl Read for StoredContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.give(buffer).map_err(|error| io::Error::other(self.shared.trouble(&self.path, error)))
    }
}

impl ReadContent for StoredContent {
    fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// As it was when it was backed up.
    fn has_changed(&self) -> Result<bool> {
        Ok(self.changed)
    }

    fn cut(&mut self) -> Option<&mut dyn CutContent> {
        match self.shared.cuts {
            Cuts::Stay | Cuts::Same => Some(self),
            Cuts::Anew => None,
        }
    }
}
