//! A signed report: a JSON document that anybody can read, and check with nothing but a public key.
//!
//! Three lines. The second one is the report, and what is signed is [`CONTEXT`], a line feed and exactly the
//! bytes of that line. All three together are one JSON document.
//! ```text
//! {"lifeboat_report":
//! {"kind":"drill",...}
//! ,"verifying_key":"<64 digits>","signature":"<128 digits>"}
//! ```

use crate::{
    crypto::{SigningKey, VerifyingKey, sign::SIGNATURE_LEN},
    error::{Error, Result},
    id::{from_hex, to_hex},
    limits,
};

/// What stands before the report in what is signed.
pub const CONTEXT: &str = "lifeboat v1 report";
const FIRST: &str = "{\"lifeboat_report\":";

/// A report whose signature is that of the key in it. Whose key that is, a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedReport {
    payload: String,
    key: VerifyingKey,
    signature: [u8; SIGNATURE_LEN],
}

fn message(payload: &str) -> Vec<u8> {
    [CONTEXT, "\n", payload].concat().into_bytes()
}

impl SignedReport {
    /// Signs a report: JSON in one line.
    ///
    /// # Errors
    /// `Damaged` when it is longer than any may be, or not one line.
    pub fn sign(payload: String, signer: &SigningKey) -> Result<Self> {
        check_payload(&payload)?;
        let signature = signer.sign(&message(&payload));
        Ok(Self { payload, key: signer.verifying_key(), signature })
    }

    /// Puts one together that was taken apart.
    ///
    /// # Errors
    /// `Damaged` when the signature is not that of this key over this report.
    pub fn from_parts(payload: String, key: VerifyingKey, signature: [u8; SIGNATURE_LEN]) -> Result<Self> {
        check_payload(&payload)?;
        key.verify(&message(&payload), &signature)
            .map_err(|e| Error::damaged("the report", "its signature is wrong").with_source(e))?;
        Ok(Self { payload, key, signature })
    }

    /// The report: JSON.
    #[must_use]
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// The key that signed it.
    #[must_use]
    pub const fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// The signature.
    #[must_use]
    pub const fn signature(&self) -> &[u8; SIGNATURE_LEN] {
        &self.signature
    }

    /// The file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { payload, key, signature } = self;
        let (key, signature) = (to_hex(&key.to_bytes()), to_hex(signature));
        format!("{FIRST}\n{payload}\n,\"verifying_key\":\"{key}\",\"signature\":\"{signature}\"}}\n").into()
    }

    /// Reads a file and checks the signature.
    ///
    /// # Errors
    /// `Damaged` when any byte is not as it was signed.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = |why: &str| Error::damaged("the report", why);
        if bytes.len() > limits::REPORT_BYTES_MAX + 4096 {
            return Err(damaged("it is longer than any may be"));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| damaged("it is not text").with_source(e))?;
        let lines: Vec<&str> = text.split('\n').collect();
        let [FIRST, payload, last, ""] = lines[..] else { return Err(damaged("it is not a signed report")) };
        let part = |name: &str| {
            let rest = last.split_once(&format!("\"{name}\":\""))?.1;
            rest.split_once('"').map(|(value, _)| value)
        };
        let key = part("verifying_key").and_then(from_hex).ok_or_else(|| damaged("it names no key"))?;
        let signature = part("signature").and_then(from_hex).ok_or_else(|| damaged("it has no signature"))?;
        let key = VerifyingKey::from_bytes(&key).map_err(|e| damaged("its key is none").with_source(e))?;
        let report = Self::from_parts(payload.to_owned(), key, signature)?;
        // So nothing can hide beside what is signed.
        if report.encode() == bytes { Ok(report) } else { Err(damaged("it was changed")) }
    }
}

fn check_payload(payload: &str) -> Result<()> {
    if payload.len() > limits::REPORT_BYTES_MAX || payload.contains('\n') {
        return Err(Error::damaged("the report", "it is longer than any may be, or not one line"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_byte_of_a_report_is_noticed() {
        let signer = SigningKey::from_seed(&[5; 32]);
        let report = SignedReport::sign(r#"{"kind":"drill","a":[1,"x"]}"#.to_owned(), &signer).unwrap();
        let mut bytes = report.encode();
        assert_eq!(SignedReport::decode(&bytes).unwrap(), report);
        let whole: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(whole["lifeboat_report"]["kind"], "drill");
        for at in 0..bytes.len() {
            for change in [1, 0x20] {
                bytes[at] ^= change;
                assert!(SignedReport::decode(&bytes).is_err(), "byte {at}");
                bytes[at] ^= change;
            }
        }
        for longer in [[&bytes[..], b"\n"].concat(), [b"\n", &bytes[..]].concat()] {
            assert!(SignedReport::decode(&longer).is_err());
        }
        assert!(SignedReport::sign("a\nb".to_owned(), &signer).is_err());
    }
}
