//! Evidence: what a drill, a check or an account of usage found, as a signed report in the chain of whoever
//! made it. What stands here is the same for every kind; [`super::drill`] has what a drill adds.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::report::SignedReport;
use crate::{
    clock::Timestamp,
    crypto::{VerifyingKey, sign::SIGNATURE_LEN},
    error::{Error, Result},
    id::ObjectId,
    limits,
};

/// The kind of a record that says that a drill began.
pub const DRILL_BEGAN: &str = "drill_began";
/// The kind of a record that says what a drill found.
pub const DRILL: &str = "drill";

/// A record in the store: a signed report without the key, which the envelope has.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Evidence {
    /// When it was written, by the clock of whoever wrote it.
    #[n(0)]
    pub time: Timestamp,
    /// The record before it in the same chain.
    #[n(1)]
    pub previous: Option<ObjectId>,
    /// The report: JSON.
    #[n(2)]
    pub payload: String,
    /// The signature of the report.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub signature: [u8; SIGNATURE_LEN],
}

impl Evidence {
    /// The plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        super::encode_record(self)
    }

    /// # Errors
    /// `Damaged` when it is not such a record.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        super::decode_record(bytes, "an evidence record")
    }

    /// The report, its signature checked with the key of the record's author.
    ///
    /// # Errors
    /// `Damaged` when that key did not sign it.
    pub fn report(&self, key: &VerifyingKey) -> Result<SignedReport> {
        SignedReport::from_parts(self.payload.clone(), *key, self.signature)
    }
}

/// What every report says first, of whatever kind it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// What it reports: `drill`, ...
    pub kind: String,
    /// The version of the report's form.
    pub format: u32,
    /// When, by the clock of the machine that made it: RFC 3339.
    pub time: String,
    /// `pass`, `fail`, or nothing where there is nothing to judge.
    pub verdict: Option<String>,
    /// What it comes to, in one line.
    pub summary: String,
    /// The repository.
    pub repository_id: String,
    /// Who signed it.
    pub identity: String,
    /// The name of the identity for people.
    pub label: String,
    /// Its number in the chain of that identity; nothing when it is in none, since the storage took no record.
    pub sequence: Option<u64>,
    /// The record before it in that chain.
    pub previous: Option<String>,
    /// The machine.
    pub machine: String,
    /// The program and its version.
    pub program: String,
}

impl Head {
    /// Reads what every report has. What comes after it is left out.
    ///
    /// # Errors
    /// `Damaged` when it is not a report.
    pub fn of(payload: &str) -> Result<Self> {
        serde_json::from_str(payload)
            .map_err(|e| Error::damaged("a report", "it does not say what every report says").with_source(e))
    }
}

/// A text of the storage or of a machine, short enough to stand in a report.
#[must_use]
pub fn short(text: &str) -> String {
    let mut end = text.len().min(limits::REPORT_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn evidence_comes_back_and_no_byte_is_ignored(seconds: i64, payload in "\\PC{0,80}", id: [u8; 32]) {
            let evidence = Evidence {
                time: Timestamp::from_seconds(seconds),
                previous: Some(ObjectId::new(id)),
                payload,
                signature: [9; SIGNATURE_LEN],
            };
            let bytes = evidence.encode();
            prop_assert_eq!(Evidence::decode(&bytes).unwrap(), evidence);
            prop_assert!(Evidence::decode(&bytes[..bytes.len() - 1]).is_err());
            prop_assert!(Evidence::decode(&[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn the_decoders_of_evidence_survive_anything(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(Evidence::decode(&bytes));
            drop(SignedReport::decode(&bytes));
            drop(Head::of(&String::from_utf8_lossy(&bytes)));
        }

        #[test]
        fn a_text_is_cut_between_characters(text in "\\PC{0,400}") {
            let cut = short(&text);
            prop_assert!(text.starts_with(&cut) && cut.len() <= limits::REPORT_TEXT_BYTES_MAX);
        }
    }
}
