//! Times and durations, for people and for machines.

use std::time::Duration;

use jiff::{
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};

use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
};

fn instant(time: Timestamp) -> Option<jiff::Timestamp> {
    let nanoseconds = i32::try_from(time.nanoseconds).ok()?;
    jiff::Timestamp::new(time.seconds, nanoseconds).ok()
}

/// `2026-01-31 23:05:09` in a time zone.
#[must_use]
pub fn show(time: Timestamp, zone: &TimeZone) -> String {
    // No calendar reaches so far: the number is better than nothing.
    instant(time).map_or_else(
        || format!("@{}", time.seconds),
        |at| at.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// `2026-01-31T22:05:09.25Z`, for machines.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    time.rfc3339()
}

/// Reads `2026-01-31 23:05:09`, `2026-01-31 23:05` or `2026-01-31` in the time zone given, or a time that
/// names its own, as RFC 3339 does.
///
/// # Errors
/// `Usage` for anything else, and for a local time that was twice or never.
pub fn parse(text: &str, zone: &TimeZone) -> Result<Timestamp> {
    let at = match text.parse::<jiff::Timestamp>() {
        Ok(at) => at,
        Err(_needs_a_zone) => in_zone(text, zone)?,
    };
    let nanoseconds = u32::try_from(at.subsec_nanosecond().max(0)).unwrap_or(0);
    Ok(Timestamp { seconds: at.as_second(), nanoseconds })
}

/// A local time. One that clocks that were set back show twice, or that they leap over, could mean two backups.
fn in_zone(text: &str, zone: &TimeZone) -> Result<jiff::Timestamp> {
    let usage =
        |what: &str, e: jiff::Error| Error::new(ErrorKind::Usage, format!("`{text}` {what}")).with_source(e);
    let local = text.parse::<DateTime>().map_err(|e| {
        usage("is not a time", e).with_remedy("Write it as 2026-01-31 23:05:00 or 2026-01-31T22:05:00Z")
    })?;
    let possible = zone.to_ambiguous_timestamp(local);
    let what = match possible.offset() {
        AmbiguousOffset::Fold { .. } => "is twice: clocks were set back then",
        AmbiguousOffset::Gap { .. } => "never was: clocks were set forward then",
        AmbiguousOffset::Unambiguous { .. } => "is no time that can be",
    };
    possible.unambiguous().map_err(|e| {
        usage(what, e).with_remedy(
            "Write the time in UTC with a `Z`, or with its offset, as in 2026-01-31T23:05:00+01:00",
        )
    })
}

/// Reads `90s`, `15m`, `2h`, `3d`, `1h30m`.
///
/// # Errors
/// `Usage` for anything else.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::new(ErrorKind::Usage, format!("`{text}` is not a duration"))
            .with_remedy("Write a number with s, m, h or d, such as 15m or 1h30m")
    };
    let (mut total, mut digits) = (0_u64, String::new());
    for character in text.trim().chars() {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        let unit = match character {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|e| wrong().with_source(e))?;
        let seconds = number.checked_mul(unit).and_then(|seconds| total.checked_add(seconds));
        total = seconds.ok_or_else(wrong)?;
        digits.clear();
    }
    if text.trim().is_empty() || !digits.is_empty() {
        return Err(wrong());
    }
    Ok(Duration::from_secs(total))
}

/// `0:05`, `1:02:03`.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_the_zone_of_the_reader_and_shown_again() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let table = [
            ("2026-01-31 02:00:00", 1_769_817_600),
            ("2026-01-31T00:00:00Z", 1_769_817_600),
            ("2026-01-31 02:00", 1_769_817_600),
            ("2026-01-31", 1_769_810_400),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text, &zone).unwrap(), Timestamp::from_seconds(expected), "{text}");
        }
        for wrong in ["", "yesterday", "2026-13-01", "31.1.2026"] {
            assert_eq!(parse(wrong, &zone).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (text, said) in [("2026-10-25 02:30", "is twice"), ("2026-03-29 02:30", "never was")] {
            let error = parse(text, &berlin).unwrap_err();
            assert!(
                error.to_string().contains(said) && error.remedy().unwrap().contains("offset"),
                "{error}"
            );
        }
        let once = |text| parse(text, &berlin).unwrap().seconds;
        assert_eq!(once("2026-10-25 01:59:59") + 1, once("2026-10-25T02:00:00+02:00"));
        assert_eq!(once("2026-10-25 03:00"), once("2026-10-25T03:00:00+01:00"));
        let time = Timestamp { seconds: 1_769_817_600, nanoseconds: 250_000_000 };
        assert_eq!(show(time, &zone), "2026-01-31 02:00:00");
        assert_eq!(rfc3339(time), "2026-01-31T00:00:00.25Z");
        assert_eq!(show(Timestamp::from_seconds(i64::MAX), &zone), "@9223372036854775807");
    }

    #[test]
    fn durations_are_sums_of_numbers_with_units() {
        assert_eq!(parse_duration("15m").unwrap(), Duration::from_secs(900));
        assert_eq!(parse_duration("1d1h30m5s").unwrap(), Duration::from_secs(91_805));
        for wrong in ["", "15", "m", "1x", "99999999999999999999d", "9999999999999999999d", "-1s"] {
            assert_eq!(parse_duration(wrong).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
        assert_eq!(show_duration(Duration::from_secs(65)), "1:05");
        assert_eq!(show_duration(Duration::from_secs(3723)), "1:02:03");
    }
}
