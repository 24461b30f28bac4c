//! Identifiers. Each is a type of its own, so that mixing two does not compile.

use std::fmt;

/// Writes bytes as lower-case hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads exactly `N` bytes of lower-case hexadecimal digits; `None` for anything else.
#[must_use]
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $length]);

        impl $name {
            /// Its length in bytes.
            pub const LEN: usize = $length;

            /// Wraps raw bytes.
            #[must_use]
            pub const fn new(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// The first 8 digits, by which people tell them apart.
            #[must_use]
            pub fn short(&self) -> String {
                to_hex(&self.0).chars().take(8).collect()
            }

            /// Reads the hexadecimal form; `None` when it is not exactly that.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                from_hex(text).map(Self)
            }

            /// Reads a slice of exactly the right length.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::from_slice(d.bytes()?)
                    .ok_or_else(|| minicbor::decode::Error::message("an identifier has the wrong length"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

identifier!(
    /// Names a repository; derived from its root secret.
    RepositoryId, 32
);
identifier!(
    /// Names a domain, the unit of deduplication and isolation; random.
    DomainId, 8
);
identifier!(
    /// Names an identity: the first 16 bytes of the BLAKE3 of its verifying key.
    IdentityId, 16
);
identifier!(
    /// Names any object by the BLAKE3 of its bytes (index, snapshot, run, registry, ...).
    ObjectId, 32
);
identifier!(
    /// Names a pack by the BLAKE3 of its bytes.
    PackId, 32
);
identifier!(
    /// Names a section of a pack: the BLAKE3 of its header.
    SectionId, 32
);
identifier!(
    /// Names what a frame holds: a chunk (keyed BLAKE3 under the chunk-id key) or a manifest
    /// node (keyed BLAKE3 under the node-id key).
    BlobId, 32
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_survives_a_round_trip_and_refuses_everything_else() {
        let id = DomainId::new([0, 1, 0x9a, 0xff, 4, 5, 6, 7]);
        assert_eq!(id.to_string(), "00019aff04050607");
        assert_eq!(DomainId::from_hex("00019aff04050607"), Some(id));
        for bad in ["", "00019aff0405060", "00019AFF04050607", "00019aff0405060g", "00019aff0405060700"] {
            assert_eq!(DomainId::from_hex(bad), None, "{bad}");
        }
    }
}
