//! zstd frames. Decompression never produces more than what was declared.

use std::{fmt, io};

use zstd::zstd_safe::CParameter;

use crate::{
    error::{Error, ErrorKind, Result},
    limits::{self, TAG_LEN},
};

/// How a frame's plaintext is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Raw,
    /// One zstd frame.
    Zstd,
}

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Off,
    /// zstd level 1.
    Fast,
    /// zstd level 3 with smaller tables; level 5 for some of large files; level 6 for small files, and for what is new in
    /// files that are mostly known.
    Auto,
    /// zstd level 12.
    Max,
}

/// Chunks that are smaller on average are small files.
const SMALL_CHUNK_BYTES: usize = 4096;
/// Chunks that are at least as large on average are pieces of large files.
pub const LARGE_CHUNK_BYTES: usize = limits::CHUNK_BYTES_AVERAGE / 2;
/// Of so many frames of large files one is compressed harder.
const LARGE_FRAMES_IN_TURN: usize = 6;

/// Of a frame that is twice as long or longer this much is tried first, in pieces from all over it: a frame of which nothing
/// shrinks is stored as it is. Of a usual frame, of 1 MiB, the pieces are a sixteenth.
const SAMPLE_BYTES: usize = SAMPLE_PIECES * SAMPLE_PIECE_BYTES;
const SAMPLE_PIECES: usize = 16;
const SAMPLE_PIECE_BYTES: usize = 4096;

/// What a frame holds, as far as it says how hard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// Nothing that stands below.
    Usual,
    /// Reading such files costs far more than their bytes: level 6 makes 200,000 of them (1.5 KiB of text each) a tenth
    /// smaller, for a third more time.
    SmallFiles,
    /// Pieces of large files. They cost least of all to read, so there is time for more: level 5 makes a disk image 8 % smaller
    /// in 1.6 times the time of the whole backup, one frame in six 1.2 % in 1.1 times.
    LargeFiles,
    /// What is new in files of which most is stored already. All of them was read and hashed for it: level 6 makes the
    /// second version of a disk image grow the repository by an eighth less.
    Changes,
}

impl Plaintext {
    /// What so many bytes in so many chunks are, if all of them are new in files of which most is known, or not.
    #[must_use]
    pub const fn of(bytes: usize, chunks: usize, changes: bool) -> Self {
        if chunks > 1 && bytes / chunks < SMALL_CHUNK_BYTES {
            Self::SmallFiles
        } else if changes {
            Self::Changes
        } else if bytes >= chunks * LARGE_CHUNK_BYTES {
            Self::LargeFiles
        } else {
            Self::Usual
        }
    }
}

impl Compression {
    /// The zstd level of a frame, the `turn`-th of its kind.
    const fn level(self, plaintext: Plaintext, turn: usize) -> i32 {
        match (self, plaintext) {
            (Self::Off | Self::Fast, _) => 1,
            (Self::Auto, Plaintext::LargeFiles)
                if turn % LARGE_FRAMES_IN_TURN == LARGE_FRAMES_IN_TURN - 1 =>
            {
                5
            }
            (Self::Auto, Plaintext::Usual | Plaintext::LargeFiles) => 3,
            (Self::Auto, Plaintext::SmallFiles | Plaintext::Changes) => 6,
            (Self::Max, _) => 12,
        }
    }

    /// What differs from the level. Tables of 2^16 and 2^15 entries stay in the cache of a core beside everything else
    /// that a worker touches: 6 % faster than those of level 3 on source code in frames of 1 MiB, for 0.5 % more bytes.
    const fn tables(self, level: i32) -> [CParameter; 2] {
        match (self, level) {
            (Self::Auto, 3) => [CParameter::HashLog(16), CParameter::ChainLog(15)],
            // As the level has them.
            _ => [CParameter::HashLog(0), CParameter::ChainLog(0)],
        }
    }
}

/// Compresses and decompresses frames; one per worker thread.
pub struct Compressor {
    setting: Compression,
    /// What the encoder is set up for.
    level: i32,
    /// How many frames of large files were compressed.
    large_frames: usize,
    encoder: zstd::bulk::Compressor<'static>,
    /// Tries samples; `None` where everything is to be compressed as hard as possible, or not at all.
    sampler: Option<zstd::bulk::Compressor<'static>>,
    /// What was compressed last: kept, since it needs far more room than it fills.
    packed: Vec<u8>,
    decoder: Decompressor,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("setting", &self.setting).finish_non_exhaustive()
    }
}

impl Compressor {
    /// # Errors
    /// No memory for the context.
    pub fn new(setting: Compression) -> Result<Self> {
        let set_up = |error| Error::new(ErrorKind::Failed, "could not set up zstd").with_source(error);
        let level = setting.level(Plaintext::Usual, 0);
        let encoder = zstd::bulk::Compressor::new(level).map_err(set_up)?;
        let samples = matches!(setting, Compression::Auto | Compression::Fast);
        let sampler = samples.then(|| zstd::bulk::Compressor::new(1)).transpose().map_err(set_up)?;
        let decoder = Decompressor::new()?;
        let mut new = Self { setting, level, large_frames: 0, encoder, sampler, packed: Vec::new(), decoder };
        new.set_up().map_err(set_up)?;
        Ok(new)
    }

    fn set_up(&mut self) -> io::Result<()> {
        self.encoder.set_compression_level(self.level)?;
        let mut tables = self.setting.tables(self.level).into_iter();
        tables.try_for_each(|parameter| self.encoder.set_parameter(parameter))
    }

    /// The stored form of `plain`: compressed, or as it is when that does not make it smaller.
    ///
    /// # Errors
    /// zstd failed.
    pub fn compress(&mut self, plain: &[u8]) -> Result<(Codec, Vec<u8>)> {
        self.compress_as(plain, Plaintext::Usual)
    }

    /// The same, tried as hard as what it is deserves.
    ///
    /// # Errors
    /// zstd failed.
    pub fn compress_as(&mut self, plain: &[u8], plaintext: Plaintext) -> Result<(Codec, Vec<u8>)> {
        let failed = |e| Error::new(ErrorKind::Failed, "zstd could not compress a frame").with_source(e);
        if self.setting != Compression::Off && self.may_shrink(plain).map_err(failed)? {
            let level = self.setting.level(plaintext, self.large_frames);
            self.large_frames += usize::from(plaintext == Plaintext::LargeFiles);
            if level != self.level {
                self.level = level;
                self.set_up()
                    .map_err(|e| Error::new(ErrorKind::Failed, "could not set up zstd").with_source(e))?;
            }
            self.packed.clear();
            self.packed.reserve(zstd::zstd_safe::compress_bound(plain.len()));
            self.encoder.compress_to_buffer(plain, &mut self.packed).map_err(failed)?;
            if self.packed.len() < plain.len() {
                return Ok((Codec::Zstd, with_room(&self.packed)));
            }
        }
        Ok((Codec::Raw, with_room(plain)))
    }

    /// Whether a sample of a long frame shrinks.
    fn may_shrink(&mut self, plain: &[u8]) -> io::Result<bool> {
        let Some(sampler) = self.sampler.as_mut().filter(|_| plain.len() >= 2 * SAMPLE_BYTES) else {
            return Ok(true);
        };
        // What zstd finds in noise it does not shrink at all; a hundredth is less than the time is worth.
        let worth = SAMPLE_BYTES / 100;
        // Nearly all that shrinks shows it in one piece, for a sixteenth of the time. Not the first one: a photo begins with a
        // header that shrinks.
        let one = &plain[plain.len() / 2..][..SAMPLE_PIECE_BYTES];
        if sampler.compress(one)?.len() + worth < one.len() {
            return Ok(true);
        }
        let pieces = plain.chunks(plain.len() / SAMPLE_PIECES).take(SAMPLE_PIECES);
        let sample = pieces.map(|piece| &piece[..SAMPLE_PIECE_BYTES]).collect::<Vec<_>>().concat();
        Ok(sampler.compress(&sample)?.len() + worth < sample.len())
    }

    /// The decompressor that goes with it.
    pub const fn decompressor(&mut self) -> &mut Decompressor {
        &mut self.decoder
    }
}

/// A copy that can be sealed in place.
fn with_room(stored: &[u8]) -> Vec<u8> {
    let mut copy = Vec::with_capacity(stored.len() + TAG_LEN);
    copy.extend_from_slice(stored);
    copy
}

/// Decompresses frames; one per worker thread.
pub struct Decompressor(zstd::bulk::Decompressor<'static>);

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor(..)")
    }
}

impl Decompressor {
    /// # Errors
    /// No memory for the context.
    pub fn new() -> Result<Self> {
        zstd::bulk::Decompressor::new()
            .map(Self)
            .map_err(|e| Error::new(ErrorKind::Failed, "could not set up zstd").with_source(e))
    }

    /// Exactly `length` bytes of plaintext; `length` was checked against a limit by the caller.
    ///
    /// # Errors
    /// `Damaged` when the stored bytes do not hold exactly that.
    pub fn decompress(&mut self, codec: Codec, stored: Vec<u8>, length: usize) -> Result<Vec<u8>> {
        let plain = match codec {
            Codec::Raw => stored,
            Codec::Zstd if !is_one_frame(&stored) => {
                return Err(Error::damaged("a frame", "it is not one zstd frame"));
            }
            Codec::Zstd => self
                .0
                .decompress(&stored, length)
                .map_err(|e| Error::damaged("a frame", "it does not decompress").with_source(e))?,
        };
        if plain.len() == length {
            Ok(plain)
        } else {
            Err(Error::damaged("a frame", format!("it holds {} bytes, not {length}", plain.len())))
        }
    }
}

/// Whether it is one zstd frame and nothing else: zstd itself would also take several, and such as it skips.
fn is_one_frame(stored: &[u8]) -> bool {
    stored.starts_with(&zstd::zstd_safe::MAGICNUMBER.to_le_bytes())
        && zstd::zstd_safe::find_frame_compressed_size(stored) == Ok(stored.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A megabyte of words.
    fn words() -> String {
        let words = ["backup", "restore", "chunk", "frame", "pack", "index", "node", "lease"];
        let mut state = 7_usize;
        (0..60_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                words[state >> 61]
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn one_frame_in_six_of_large_files_is_compressed_harder() {
        let plain = words();
        let mut compressor = Compressor::new(Compression::Auto).unwrap();
        let mut length = |what| compressor.compress_as(plain.as_bytes(), what).unwrap().1.len();
        let usual = length(Plaintext::Usual);
        let lengths: Vec<usize> = (0..12).map(|_| length(Plaintext::LargeFiles)).collect();
        let harder: Vec<usize> = (0..12).filter(|at| lengths[*at] < usual).collect();
        assert_eq!(harder, [5, 11], "{usual}: {lengths:?}");
        assert_eq!(length(Plaintext::Usual), usual);
    }

    #[test]
    fn small_files_and_changes_are_compressed_harder_and_what_comes_after_them_as_before() {
        let plain = words();
        let mut compressor = Compressor::new(Compression::Auto).unwrap();
        let contents = [Plaintext::Usual, Plaintext::SmallFiles, Plaintext::Usual, Plaintext::Changes];
        let mut lengths =
            contents.map(|content| compressor.compress_as(plain.as_bytes(), content).unwrap().1.len());
        assert_eq!((lengths[0], lengths[1]), (lengths[2], lengths[3]));
        assert!(lengths[1] < lengths[0], "{lengths:?}");
        // Who asked for a level gets it.
        let mut fast = Compressor::new(Compression::Fast).unwrap();
        lengths = contents.map(|content| fast.compress_as(plain.as_bytes(), content).unwrap().1.len());
        assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
    }

    #[test]
    fn many_chunks_of_a_few_bytes_are_small_files_whatever_else_they_are() {
        assert_eq!(Plaintext::of(4096 * 10, 10, false), Plaintext::Usual);
        assert_eq!(Plaintext::of(4096 * 10, 10, true), Plaintext::Changes);
        assert_eq!(Plaintext::of(4096 * 10 - 1, 10, true), Plaintext::SmallFiles);
        assert_eq!(Plaintext::of(100, 1, false), Plaintext::Usual);
        assert_eq!(Plaintext::of(2 * LARGE_CHUNK_BYTES - 1, 2, false), Plaintext::Usual);
        assert_eq!(Plaintext::of(2 * LARGE_CHUNK_BYTES, 2, false), Plaintext::LargeFiles);
        assert_eq!(Plaintext::of(2 * LARGE_CHUNK_BYTES, 2, true), Plaintext::Changes);
    }

    #[test]
    fn a_long_frame_of_noise_is_not_tried_whole_and_one_that_is_partly_text_is() {
        let noise: Vec<u8> =
            (0..32_768_u64).flat_map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).collect();
        assert_eq!(noise.len(), 1 << 20);
        let mut compressor = Compressor::new(Compression::Auto).unwrap();
        assert!(!compressor.may_shrink(&noise).unwrap());
        assert!(compressor.may_shrink(&noise[..2 * SAMPLE_BYTES - 1]).unwrap());
        assert!(Compressor::new(Compression::Max).unwrap().may_shrink(&noise).unwrap());
        // Text of an eighth of the frame, wherever it is.
        for at in (0..7 << 17).step_by(12_345) {
            let mut mixed = noise.clone();
            let text = std::iter::repeat_n(b"lorem ipsum dolor sit amet ", 1 << 13).flatten().copied();
            mixed.splice(at..at + (1 << 17), text.take(1 << 17));
            assert!(compressor.may_shrink(&mixed).unwrap(), "{at}");
            assert_eq!(compressor.compress(&mixed).unwrap().0, Codec::Zstd);
        }
        // What shrinks by less than a hundredth of the sample is noise, though it is in the piece that is tried first.
        let (mut little, half) = (noise.clone(), noise.len() / 2);
        little[half..half + SAMPLE_BYTES / 200].fill(b' ');
        assert!(!compressor.may_shrink(&little).unwrap());
        // Odd lengths have all their pieces.
        for length in [2 * SAMPLE_BYTES + 1, 2 * SAMPLE_BYTES + 15, 999_983] {
            assert!(!compressor.may_shrink(&noise[..length]).unwrap());
            let (codec, stored) = compressor.compress(&noise[..length]).unwrap();
            assert_eq!((codec, &stored[..]), (Codec::Raw, &noise[..length]));
            assert!(stored.capacity() >= length + TAG_LEN);
        }
    }

    #[test]
    fn a_bomb_stops_at_the_declared_length() {
        let mut compressor = Compressor::new(Compression::Auto).unwrap();
        let (codec, packed) = compressor.compress(&vec![0; 10 << 20]).unwrap();
        assert!(packed.len() < 4096);
        let error = compressor.decompressor().decompress(codec, packed, 1000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }

    #[test]
    fn one_frame_is_one_frame() {
        let mut compressor = Compressor::new(Compression::Auto).unwrap();
        let (codec, packed) = compressor.compress(&[7; 5000]).unwrap();
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"void"].concat();
        let empty = zstd::bulk::compress(&[], 1).unwrap();
        let twice = [&packed[..], &packed].concat();
        for (stored, length) in [
            ([&packed[..], &skipped].concat(), 5000),
            ([&skipped[..], &packed].concat(), 5000),
            ([&packed[..], &empty].concat(), 5000),
            (twice, 10_000),
            (skipped, 0),
            ([&packed[..], &[0]].concat(), 5000),
        ] {
            let error = compressor.decompressor().decompress(codec, stored, length).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
        }
    }

    #[test]
    fn what_does_not_shrink_is_stored_raw() {
        let mut compressor = Compressor::new(Compression::Auto).unwrap();
        let noise: Vec<u8> = (0..64_u64).flat_map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).collect();
        let (codec, stored) = compressor.compress(&noise).unwrap();
        assert_eq!((codec, &stored), (Codec::Raw, &noise));
        assert_eq!(compressor.decompressor().decompress(codec, stored, noise.len()).unwrap(), noise);
        let (codec, stored) = compressor.compress(&[7; 5000]).unwrap();
        assert_eq!(codec, Codec::Zstd);
        assert_eq!(compressor.decompressor().decompress(codec, stored, 5000).unwrap(), [7; 5000]);
    }
}
