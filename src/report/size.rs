//! Sizes in bytes, for people: 1 K is 1024.

use crate::error::{Error, ErrorKind, Result};

const UNITS: [(&str, u32); 5] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("PiB", 50)];

/// `1.50 GiB`.
#[must_use]
pub fn show(bytes: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, shift)| bytes >> shift > 0);
    let Some((unit, shift)) = unit else { return format!("{bytes} B") };
    let hundredths = (u128::from(bytes) * 100) >> shift;
    format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
}

/// Reads `512`, `10M`, `1.5G`, `64KiB`: k M G T are powers of 1024, a following `iB` or `B` changes nothing.
///
/// # Errors
/// `Usage` for anything else.
pub fn parse(text: &str) -> Result<u64> {
    let wrong = || {
        Error::new(ErrorKind::Usage, format!("`{text}` is not a size"))
            .with_remedy("Write a number with k, M, G or T, such as 10M; 1k is 1024 bytes")
    };
    let text_without_bytes = text.trim().trim_end_matches(['b', 'B']).trim_end_matches('i');
    let (digits, shift) = match text_without_bytes.char_indices().next_back() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => {
            let shift = match unit.to_ascii_lowercase() {
                'k' => 10,
                'm' => 20,
                'g' => 30,
                't' => 40,
                _ => return Err(wrong()),
            };
            (text_without_bytes.get(..at).unwrap_or_default(), shift)
        }
        _ => (text_without_bytes, 0),
    };
    let (whole, fraction) = digits.trim_end().split_once('.').unwrap_or((digits.trim_end(), ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 6 || !all_digits(whole) || !all_digits(fraction) {
        return Err(wrong());
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let number: u128 = format!("{whole}{fraction}").parse().map_err(|e| wrong().with_source(e))?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)? / scale;
    u64::try_from(bytes).map_err(|e| wrong().with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        let table = [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("10k", 10 << 10),
            ("10M", 10 << 20),
            ("64KiB", 64 << 10),
            ("1.5G", 3 << 29),
            ("2 T", 2 << 40),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for wrong in ["", "k", "-1", "1x", "1.2.3", "1e3", "99999999999T", ".5"] {
            assert_eq!(parse(wrong).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        assert_eq!(show(0), "0 B");
        assert_eq!(show(1023), "1023 B");
        assert_eq!(show(1536), "1.50 KiB");
        assert_eq!(show(3 << 29), "1.50 GiB");
        assert_eq!(show(u64::MAX), "16383.99 PiB");
    }
}
