//! Little-endian numbers and length-checked byte strings: the alphabet of packs, indexes and nodes.

use crate::error::{Error, Result};

/// Appends fields to a buffer.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// LEB128, 1 to 10 bytes.
    pub fn number(&mut self, mut value: u64) {
        loop {
            let low = value.to_le_bytes()[0] & 0x7f;
            value >>= 7;
            if value == 0 {
                return self.0.push(low);
            }
            self.0.push(low | 0x80);
        }
    }

    /// A count or length that came from memory.
    pub fn count(&mut self, value: usize) {
        self.number(value as u64);
    }

    /// Bytes of a length that the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Bytes with their length before them.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// The length so far, in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The finished bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads fields from untrusted bytes. Nothing is allocated before its length met a limit and the
/// bytes that are there.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `what` names them in errors.
    #[must_use]
    pub const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// An error about these bytes.
    #[must_use]
    pub fn damaged(&self, why: &str) -> Error {
        Error::damaged(self.what, why)
    }

    /// Exactly `length` bytes.
    ///
    /// # Errors
    /// `Damaged` when they are not there.
    pub fn raw(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| self.damaged("it ends too early"))?;
        self.rest = rest;
        Ok(head)
    }

    /// An array of bytes.
    ///
    /// # Errors
    /// `Damaged` when they are not there.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.raw(N)?;
        bytes.try_into().map_err(|_error: std::array::TryFromSliceError| self.damaged("it ends too early"))
    }

    /// One byte.
    ///
    /// # Errors
    /// `Damaged` at the end.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Four bytes.
    ///
    /// # Errors
    /// `Damaged` at the end.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// LEB128 in its shortest form.
    ///
    /// # Errors
    /// `Damaged` for anything else.
    pub fn number(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 || byte == 0 && shift > 0 {
                return Err(self.damaged("a number is not in its shortest form"));
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged("a number is too long"))
    }

    /// A number up to and including `max`.
    ///
    /// # Errors
    /// `Damaged` when it is larger.
    pub fn count(&mut self, max: usize) -> Result<usize> {
        let value = self.number()?;
        usize::try_from(value)
            .ok()
            .filter(|value| *value <= max)
            .ok_or_else(|| self.damaged(&format!("{value} is over the limit of {max}")))
    }

    /// A number that fits 32 bits.
    ///
    /// # Errors
    /// `Damaged` when it does not.
    pub fn number32(&mut self) -> Result<u32> {
        u32::try_from(self.number()?)
            .map_err(|_error: std::num::TryFromIntError| self.damaged("a number is too large"))
    }

    /// Bytes with their length before them, up to `max`.
    ///
    /// # Errors
    /// `Damaged` when they are longer or not there.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8]> {
        let length = self.count(max)?;
        self.raw(length)
    }

    /// Nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// `Damaged` when something is.
    pub fn finish(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged("something follows its end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_and_have_one_form() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut writer = Writer::new();
            writer.number(value);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes, "test");
            assert_eq!(reader.number().unwrap(), value);
            reader.finish().unwrap();
        }
        for bad in [&[0x80, 0x00][..], &[0xff; 10], &[0x80]] {
            assert!(Reader::new(bad, "test").number().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_claimed_length_meets_its_limit_and_the_bytes_before_the_allocator() {
        let mut writer = Writer::new();
        writer.number(1 << 60);
        let bytes = writer.finish();
        assert!(Reader::new(&bytes, "test").bytes(usize::MAX).is_err());
        assert!(Reader::new(&[5, 1, 2, 3, 4, 5], "test").bytes(4).is_err());
    }
}
