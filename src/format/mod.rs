//! Bytes to types and back: pure, bounded, no I/O.

pub mod annotation;
pub mod attestation;
pub mod certificate;
pub mod config;
pub mod drill;
pub mod entry;
pub mod envelope;
pub mod evidence;
pub mod forgotten;
pub mod ledger;
pub mod node;
pub mod pack;
pub mod path;
pub mod quarantine;
pub mod registry;
pub mod report;
pub mod role;
pub mod secrets;
pub mod slot;
pub mod snapshot;
pub mod tombstones;
pub mod unknown;
pub mod wire;

fn encode_record<T: minicbor::Encode<()>>(record: &T) -> Vec<u8> {
    minicbor::to_vec(record).unwrap_or_else(|error| unreachable!("writing to memory cannot fail: {error}"))
}

/// Tells a damaged JSON object from a foreign one or from one that a wrong passphrase does not open: over all its
/// bytes but the digits of the checksum. It proves nothing, since anybody can make it.
fn checksum(context: &str, bytes: &[u8], digits: &str) -> String {
    let text = String::from_utf8_lossy(bytes).replacen(digits, "", 1);
    crate::id::to_hex(&blake3::derive_key(context, text.as_bytes()))
}

/// A record without critical fields, and nothing after it.
fn decode_record<'b, T: minicbor::Decode<'b, ()>>(bytes: &'b [u8], what: &str) -> crate::error::Result<T> {
    use crate::error::Error;
    let invalid =
        |e: minicbor::decode::Error| Error::damaged(what, "it is not a valid map").with_source(e.to_string());
    unknown::check(&mut minicbor::Decoder::new(bytes)).map_err(invalid)?;
    let mut decoder = minicbor::Decoder::new(bytes);
    let record = decoder.decode().map_err(invalid)?;
    if decoder.position() == bytes.len() {
        Ok(record)
    } else {
        Err(Error::damaged(what, "something follows its end"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{attestation::*, forgotten::*, quarantine::*, tombstones::*};
    use crate::{
        clock::Timestamp,
        id::{IdentityId, ObjectId, PackId, SectionId},
        limits,
    };

    proptest! {
        #[test]
        fn records_come_back_as_they_were_and_no_byte_is_ignored(
            seconds: i64,
            ids in proptest::collection::vec(any::<[u8; 32]>(), 0..20),
            names in proptest::collection::vec("[a-f0-9/]{1,80}", 0..20),
            reason in "\\PC{0,40}",
        ) {
            let time = Timestamp::from_seconds(seconds);
            let sections = ids.iter().map(|id| AttestedSection { id: SectionId::new(*id), digest: *id });
            let attestation = Attestation { time, sections: sections.collect() };
            let snapshots = ids.iter().map(|id| ObjectId::new(*id)).collect();
            let place = |id: &[u8; 32]| ChainPlace { identity: IdentityId::new([id[0]; IdentityId::LEN]), sequence: u64::from(id[0]) };
            let places = if ids.len() % 2 == 0 { ids.iter().map(place).collect() } else { Vec::new() };
            let heads = ids.iter().map(|id| ChainEnd { place: place(id), id: ObjectId::new(*id) }).collect();
            let forgotten = Forgotten { time, snapshots, reason: reason.clone(), places, heads };
            let quarantine = Quarantine { time, objects: names, reason };
            let tombstones = Tombstones { time, packs: ids.iter().map(|id| PackId::new(*id)).collect() };
            let bytes = [attestation.encode(), forgotten.encode(), quarantine.encode(), tombstones.encode()];
            prop_assert_eq!(Attestation::decode(&bytes[0]).unwrap(), attestation);
            prop_assert_eq!(Forgotten::decode(&bytes[1]).unwrap(), forgotten);
            prop_assert_eq!(Quarantine::decode(&bytes[2]).unwrap(), quarantine);
            prop_assert_eq!(Tombstones::decode(&bytes[3]).unwrap(), tombstones);
            for bytes in bytes {
                let (short, long) = (&bytes[..bytes.len() - 1], [&bytes[..], &[0]].concat());
                for bad in [short, &long] {
                    prop_assert!(Attestation::decode(bad).is_err());
                    prop_assert!(Forgotten::decode(bad).is_err());
                    prop_assert!(Quarantine::decode(bad).is_err());
                    prop_assert!(Tombstones::decode(bad).is_err());
                }
            }
        }

        #[test]
        fn decoders_of_records_survive_anything(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop((Attestation::decode(&bytes), Forgotten::decode(&bytes), Quarantine::decode(&bytes)));
            drop(Tombstones::decode(&bytes));
        }
    }

    #[test]
    fn records_beyond_their_limits_are_refused() {
        let time = Timestamp::default();
        let section = AttestedSection { id: SectionId::new([1; 32]), digest: [2; 32] };
        let sections = vec![section; SECTIONS_MAX + 1];
        assert!(Attestation::decode(&Attestation { time, sections }.encode()).is_err());
        let many = Forgotten::new(time, vec![ObjectId::new([1; 32]); SNAPSHOTS_MAX + 1], "");
        assert!(Forgotten::decode(&many.encode()).is_err());
        let none = Forgotten { snapshots: Vec::new(), ..many };
        let wordy = Forgotten { reason: "x".repeat(limits::REASON_BYTES_MAX + 1), ..none.clone() };
        assert!(Forgotten::decode(&wordy.encode()).is_err());
        assert!(Forgotten::decode(&none.encode()).is_ok());
        let places = vec![ChainPlace { identity: IdentityId::new([1; IdentityId::LEN]), sequence: 1 }];
        let heads = vec![ChainEnd { place: places[0], id: ObjectId::new([1; 32]) }; HEADS_MAX + 1];
        assert!(Forgotten::decode(&Forgotten { places, ..none.clone() }.encode()).is_err());
        assert!(Forgotten::decode(&Forgotten { heads, ..none }.encode()).is_err());
        let dying = Tombstones { time, packs: vec![PackId::new([1; 32]); PACKS_MAX + 1] };
        assert!(Tombstones::decode(&dying.encode()).is_err());
        let long = Quarantine { time, objects: vec!["x".repeat(NAME_BYTES_MAX + 1)], reason: String::new() };
        assert!(Quarantine::decode(&long.encode()).is_err());
        // A list that claims to be endless and has nothing in it.
        assert!(Forgotten::decode(&[0xa3, 0x01, 0x9b, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).is_err());
    }
}
