//! Which bytes of an object are which field, as `docs/format.md` has it: so that damage to one that nobody thought
//! of is seen.

use std::ops::Range;

use lifeboat::format::pack::Frame;

/// A name from `docs/format.md` and the bytes of an object.
pub(crate) type Field = (String, Range<usize>);

/// Names for pieces that follow each other.
struct Layout {
    fields: Vec<Field>,
    end: usize,
}

impl Layout {
    fn add(&mut self, name: impl Into<String>, length: usize) {
        self.fields.push((name.into(), self.end..self.end + length));
        self.end += length;
    }

    fn envelope(&mut self, of: &str, bytes: &[u8]) {
        let begin = self.end;
        let sealing = bytes[7];
        let head = [("magic", 4), ("version", 1), ("suite", 1), ("kind", 1), ("sealing", 1), ("author", 32)];
        for (name, length) in head.into_iter().chain([("sequence", 8), ("epoch", 4), ("salt", 32)]) {
            self.add(format!("{of}{name}"), length);
        }
        if sealing == 2 {
            self.add(format!("{of}encapsulation"), 1120);
        }
        self.add(format!("{of}commitment"), 32);
        self.add(format!("{of}length"), 4);
        let rest = bytes.len() - (self.end - begin);
        self.add(format!("{of}ciphertext"), rest - 64);
        self.add(format!("{of}signature"), 64);
    }
}

/// The fields of an object of any kind but `config` and slots; `frames` are those of a pack.
fn binary(bytes: &[u8], frames: &[Frame]) -> Vec<Field> {
    let mut layout = Layout { fields: Vec::new(), end: 0 };
    if bytes.starts_with(b"LFBT") {
        layout.envelope("", bytes);
        return layout.fields;
    }
    let header = [("suite", 1), ("kind", 1), ("author", 16), ("epoch", 4), ("salt", 32)];
    for (name, length) in header.into_iter().chain([("encapsulation", 1120), ("commitment", 32)]) {
        layout.add(format!("section header: {name}"), length);
    }
    for (number, frame) in frames.iter().enumerate() {
        assert_eq!(frame.offset as usize, layout.end);
        layout.add(format!("frame {number}"), frame.length as usize - 16);
        layout.add(format!("frame {number}: tag"), 16);
    }
    let (_, trailer) = bytes.split_last_chunk::<16>().unwrap();
    let word = |at: usize| u32::from_le_bytes(trailer[at..at + 4].try_into().unwrap()) as usize;
    let (offset, length) = (word(8), word(12));
    layout.add("padding", offset - layout.end);
    layout.envelope("directory: ", &bytes[offset..offset + length]);
    for (name, length) in [("magic", 4), ("version", 1), ("zeros", 3), ("offset", 4), ("length", 4)] {
        layout.add(format!("trailer: {name}"), length);
    }
    layout.fields
}

/// The lines of a JSON object, each named by its key.
fn lines(bytes: &[u8]) -> Vec<Field> {
    let mut layout = Layout { fields: Vec::new(), end: 0 };
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        layout.add(String::from_utf8(line.to_vec()).unwrap().trim(), line.len());
    }
    layout.fields
}

/// Every byte of an object belongs to one of these.
pub(crate) fn fields(bytes: &[u8], frames: &[Frame]) -> Vec<Field> {
    let found = if bytes.starts_with(b"{") { lines(bytes) } else { binary(bytes, frames) };
    assert_eq!(found.last().unwrap().1.end, bytes.len(), "bytes that no field has");
    assert!(found.windows(2).all(|pair| pair[0].1.end == pair[1].1.start && !pair[0].1.is_empty()));
    found
}
