//! Fields of records that this program does not know. A negative key is critical: the record is refused.
//! Others are skipped, and kept by whoever writes the record anew.

use minicbor::{
    Decoder, Encoder,
    data::Type,
    decode::Error,
    encode::{self, Write},
};

/// Maps and lists in one another, at most.
const DEPTH_MAX: u8 = 8;

type Read<T> = Result<T, Error>;

/// Reads the head of a map or list and calls `each` for every key or element.
fn items(
    d: &mut Decoder<'_>,
    count: Option<u64>,
    each: &mut dyn FnMut(&mut Decoder<'_>) -> Read<()>,
) -> Read<()> {
    let Some(count) = count else {
        while d.datatype()? != Type::Break {
            each(d)?;
        }
        return d.skip();
    };
    for _ in 0..count {
        each(d)?;
    }
    Ok(())
}

fn deeper(depth: u8) -> Read<u8> {
    depth.checked_sub(1).ok_or_else(|| Error::message("it is nested too deeply"))
}

/// Reads a key: integers that ascend, none critical.
fn key(d: &mut Decoder<'_>, last: &mut Option<u64>) -> Read<u64> {
    let key = d.i64()?;
    let key = u64::try_from(key)
        .map_err(|_error| Error::message(format!("this program does not know its critical field {key}")))?;
    if last.replace(key).is_some_and(|last| last >= key) {
        return Err(Error::message("its keys are out of order"));
    }
    Ok(key)
}

/// Checks one value with everything in it: keys ascend, none is critical.
///
/// # Errors
/// What is wrong.
pub fn check(d: &mut Decoder<'_>) -> Read<()> {
    check_at(d, DEPTH_MAX)
}

fn check_at(d: &mut Decoder<'_>, depth: u8) -> Read<()> {
    match d.datatype()? {
        Type::Map | Type::MapIndef => {
            let (count, depth, mut last) = (d.map()?, deeper(depth)?, None);
            items(d, count, &mut |d| {
                key(d, &mut last)?;
                check_at(d, depth)
            })
        }
        Type::Array | Type::ArrayIndef => {
            let (count, depth) = (d.array()?, deeper(depth)?);
            items(d, count, &mut |d| check_at(d, depth))
        }
        _ => d.skip(),
    }
}

/// A value that was taken apart as far as maps and lists go.
#[derive(Clone)]
enum Tree<'a> {
    Map(Vec<(u64, Self)>),
    List(Vec<Self>),
    Leaf(&'a [u8]),
}

impl<'a> Tree<'a> {
    fn parse(bytes: &'a [u8]) -> Read<Self> {
        Self::read(&mut Decoder::new(bytes), DEPTH_MAX)
    }

    fn read(d: &mut Decoder<'a>, depth: u8) -> Read<Self> {
        let start = d.position();
        match d.datatype()? {
            Type::Map => {
                let (count, depth, mut last, mut map) = (d.map()?, deeper(depth)?, None, Vec::new());
                for _ in 0..count.unwrap_or(0) {
                    map.push((key(d, &mut last)?, Self::read(d, depth)?));
                }
                Ok(Self::Map(map))
            }
            Type::Array => {
                let (count, depth, mut list) = (d.array()?, deeper(depth)?, Vec::new());
                for _ in 0..count.unwrap_or(0) {
                    list.push(Self::read(d, depth)?);
                }
                Ok(Self::List(list))
            }
            _ => {
                d.skip()?;
                d.input().get(start..d.position()).map(Self::Leaf).ok_or_else(Error::end_of_input)
            }
        }
    }

    fn write<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), encode::Error<W::Error>> {
        match self {
            Self::Map(map) => {
                e.map(map.len() as u64)?;
                for (key, value) in map {
                    e.u64(*key)?;
                    value.write(e)?;
                }
            }
            Self::List(list) => {
                e.array(list.len() as u64)?;
                for value in list {
                    value.write(e)?;
                }
            }
            Self::Leaf(bytes) => e.writer_mut().write_all(bytes).map_err(encode::Error::write)?,
        }
        Ok(())
    }

    /// What names an element of a list: its field 0.
    fn name(&self) -> Option<&'a [u8]> {
        match self {
            Self::Map(map) => match map.first() {
                Some((0, Self::Leaf(name))) => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    /// Takes over what is in `old` and not in `known`, which is what this program understood of `old`.
    fn carry(&mut self, old: &Self, known: &Self) {
        match (self, old, known) {
            (Self::Map(new), Self::Map(old), Self::Map(known)) => {
                for (key, value) in old {
                    let understood = known.iter().find(|(other, _)| other == key).map(|(_, value)| value);
                    match (new.iter_mut().find(|(other, _)| other == key), understood) {
                        (Some((_, new)), Some(known)) => new.carry(value, known),
                        (None, None) => new.push((*key, value.clone())),
                        _ => {}
                    }
                }
                new.sort_by_key(|(key, _)| *key);
            }
            (Self::List(new), Self::List(old), Self::List(known)) => {
                for (old, known) in old.iter().zip(known) {
                    let same = |new: &&mut Self| old.name().is_some() && new.name() == old.name();
                    if let Some(new) = new.iter_mut().find(same) {
                        new.carry(old, known);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Unknown fields of records that were read: each record, and what this program understood of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unknown(Vec<(Vec<u8>, Vec<u8>)>);

impl Unknown {
    /// The unknown fields of a record, given the same record as this program would write it.
    #[must_use]
    pub fn of(record: &[u8], understood: Vec<u8>) -> Self {
        if record == understood { Self::default() } else { Self(vec![(record.to_vec(), understood)]) }
    }

    /// Adds those of another record that is merged with this one.
    pub fn merge(&mut self, other: Self) {
        let Self(records) = other;
        self.0.extend(records);
    }

    /// A record with the unknown fields in it: of those with the same meaning the ones that were met first.
    #[must_use]
    pub fn put_into(&self, record: Vec<u8>) -> Vec<u8> {
        let Self(records) = self;
        let carried = || -> Read<Vec<u8>> {
            let mut new = Tree::parse(&record)?;
            for (old, understood) in records {
                new.carry(&Tree::parse(old)?, &Tree::parse(understood)?);
            }
            let mut bytes = Vec::new();
            match new.write(&mut Encoder::new(&mut bytes)) {
                Ok(()) => Ok(bytes),
                Err(error) => unreachable!("writing to memory cannot fail: {error}"),
            }
        };
        // All of them were checked when they were read.
        if records.is_empty() { record } else { carried().unwrap_or(record) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carry(new: &[u8], old: &[u8], understood: &[u8]) -> Vec<u8> {
        Unknown::of(old, understood.to_vec()).put_into(new.to_vec())
    }

    #[test]
    fn an_unknown_field_stays_where_it_was_and_a_known_one_may_go() {
        // {0: 1, 5: 2}, of which 0 is known, becomes {0: 9}.
        assert_eq!(carry(&[0xa1, 0, 9], &[0xa2, 0, 1, 5, 2], &[0xa1, 0, 1]), [0xa2, 0, 9, 5, 2]);
        // {0: 1, 1: 2}: 1 is known and was taken away.
        assert_eq!(carry(&[0xa1, 0, 1], &[0xa2, 0, 1, 1, 2], &[0xa2, 0, 1, 1, 2]), [0xa1, 0, 1]);
    }

    #[test]
    fn an_element_of_a_list_keeps_its_unknown_field_wherever_it_stands() {
        // {0: [{0: 7, 9: 1}, {0: 8}]} becomes {0: [{0: 6}, {0: 8}, {0: 7}]}.
        let old = [0xa1, 0, 0x82, 0xa2, 0, 7, 9, 1, 0xa1, 0, 8];
        let understood = [0xa1, 0, 0x82, 0xa1, 0, 7, 0xa1, 0, 8];
        let new = [0xa1, 0, 0x83, 0xa1, 0, 6, 0xa1, 0, 8, 0xa1, 0, 7];
        assert_eq!(carry(&new, &old, &understood), [0xa1, 0, 0x83, 0xa1, 0, 6, 0xa1, 0, 8, 0xa2, 0, 7, 9, 1]);
    }

    #[test]
    fn critical_keys_disorder_and_depth_are_refused_at_any_place() {
        let checked = |bytes: &[u8]| check(&mut Decoder::new(bytes));
        checked(&[0xa2, 0, 1, 5, 0x81, 0xa1, 1, 2]).unwrap();
        // -1 at the top and in a list, twice the same key, keys that fall, text as a key.
        for bad in [
            &[0xa1, 0x20, 1][..],
            &[0xa1, 0, 0x81, 0xa1, 0x20, 1],
            &[0xa2, 1, 1, 1, 1],
            &[0xa2, 2, 1, 1, 1],
            &[0xa1, 0x61, b'a', 1],
            &[0x81; 100],
            &[0x9f; 100],
        ] {
            assert!(checked(bad).is_err(), "{bad:x?}");
        }
    }
}
