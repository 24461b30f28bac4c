//! Which snapshots a retention policy keeps, and why. The rules mean what they mean in restic: each keeps what it
//! names, a snapshot goes only if none keeps it. A rule with a calendar takes the newest snapshot of each hour, day,
//! ISO week, month or year, in the time zone of the command, until it has taken as many as it says; one that has not
//! keeps the oldest snapshot too, so that the history reaches back as far as it can.

use std::fmt;

use jiff::{
    ZonedDateTime,
    civil::Date,
    tz::{Offset, TimeZone},
};

use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    id::ObjectId,
};

/// What a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Every snapshot.
    Last,
    /// The newest of each hour.
    Hourly,
    /// The newest of each day.
    Daily,
    /// The newest of each ISO week.
    Weekly,
    /// The newest of each month.
    Monthly,
    /// The newest of each year.
    Yearly,
}

impl Bucket {
    /// All of them, the shortest first.
    pub const ALL: [Self; 6] =
        [Self::Last, Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    /// What a user calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// Two times are in one bucket if this is the same; `at` makes every snapshot a bucket of its own.
    fn of(self, time: &ZonedDateTime, at: usize) -> [i64; 4] {
        let (year, month, day) = (i64::from(time.year()), i64::from(time.month()), i64::from(time.day()));
        match self {
            // Two that were made in the same second are two.
            Self::Last => [i64::try_from(at).unwrap_or(i64::MAX), 0, 0, 0],
            // The offset tells the hour that comes twice when the clock is set back.
            Self::Hourly => [
                year * 10_000 + month * 100 + day,
                i64::from(time.hour()),
                i64::from(time.offset().seconds()),
                0,
            ],
            Self::Daily => [year, month, day, 0],
            Self::Weekly => {
                let week = time.date().iso_week_date();
                [i64::from(week.year()), i64::from(week.week()), 0, 0]
            }
            Self::Monthly => [year, month, 0, 0],
            Self::Yearly => [year, 0, 0, 0],
        }
    }
}

/// How many a rule keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// So many; never 0.
    Most(u32),
    /// All.
    All,
}

impl std::str::FromStr for Count {
    type Err = Error;

    /// A number from 1, or `unlimited`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::Usage, format!("a rule cannot keep `{text}` snapshots"))
                .with_remedy("Give a number from 1, or `unlimited`; leave the rule out to keep none by it")
        };
        match text {
            "unlimited" => Ok(Self::All),
            _ => text.parse().ok().filter(|count| *count > 0).map(Self::Most).ok_or_else(wrong),
        }
    }
}

/// A length of time on the calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    years: u16,
    months: u16,
    days: u16,
    hours: u16,
}

impl std::str::FromStr for Span {
    type Err = Error;

    /// Reads `1y5m7d2h`: years, months, days and hours, each at most once and not all 0.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::Usage, format!("`{text}` is no length of time"))
                .with_remedy("Write years, months, days and hours, such as 1y6m, 30d or 36h")
        };
        let (mut span, mut digits, mut seen) = (Self::default(), String::new(), String::new());
        for unit in text.chars() {
            if unit.is_ascii_digit() {
                digits.push(unit);
                continue;
            }
            let number = digits.parse().map_err(|e| wrong().with_source(e))?;
            let part = match unit {
                'y' => &mut span.years,
                'm' => &mut span.months,
                'd' => &mut span.days,
                'h' => &mut span.hours,
                _ => return Err(wrong()),
            };
            *part = number;
            if seen.contains(unit) {
                return Err(wrong());
            }
            seen.push(unit);
            digits.clear();
        }
        if !digits.is_empty() || span == Self::default() { Err(wrong()) } else { Ok(span) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')];
        parts
            .iter()
            .filter(|(number, _)| *number > 0)
            .try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
    }
}

impl Span {
    /// What lies so long before `newest`; the beginning of time if the calendar does not reach that far.
    fn before(self, newest: &ZonedDateTime) -> jiff::Timestamp {
        self.on_calendar(newest).unwrap_or(jiff::Timestamp::MIN)
    }

    /// As restic counts, whose language lets a day that its month does not have run over into the next one: a month before
    /// the 31st of March is the 31st of February, which is the 3rd of March. A time that a change of clocks leaves out or
    /// brings twice is taken by the offset that holds when UTC shows it, if it does then, else by the one before.
    fn on_calendar(self, newest: &ZonedDateTime) -> Option<jiff::Timestamp> {
        let months = i32::from(newest.year()) * 12 + i32::from(newest.month()) - 1;
        let months = months - i32::from(self.years) * 12 - i32::from(self.months);
        let year = i16::try_from(months.div_euclid(12)).ok()?;
        let first = Date::new(year, i8::try_from(months.rem_euclid(12) + 1).ok()?, 1).ok()?;
        let days = i64::from(newest.day()) - 1 - i64::from(self.days);
        let date = first.checked_add(jiff::Span::new().days(days)).ok()?;
        let local = date.to_datetime(newest.time());
        let at = |offset: Offset| offset.to_timestamp(local).ok();
        let zone = newest.time_zone();
        let first = zone.to_offset(at(Offset::UTC)?);
        let time = at(zone.to_offset(at(first)?))?;
        time.checked_sub(jiff::Span::new().hours(i64::from(self.hours))).ok()
    }
}

/// A retention policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// So many of each bucket.
    pub counts: Vec<(Bucket, Count)>,
    /// Of each bucket whatever is younger than this before the newest snapshot of its group; of `Last` everything.
    pub within: Vec<(Bucket, Span)>,
    /// What has all tags of one of these lists.
    pub tags: Vec<Vec<String>>,
    /// Those whose ids begin with these digits.
    pub ids: Vec<String>,
}

impl Rules {
    /// Whether there is no rule, so that nothing would be kept.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.within.is_empty() && self.tags.is_empty() && self.ids.is_empty()
    }

    /// Why each snapshot of a group is kept; for no reason at all, it goes. `group` is sorted with the newest first.
    #[must_use]
    pub fn apply(&self, group: &[Candidate<'_>], zone: &TimeZone) -> Vec<Vec<String>> {
        let times: Vec<_> = group.iter().map(|candidate| zoned(candidate.time, zone)).collect();
        let Some(newest) = times.first() else { return Vec::new() };
        let mut counts: Vec<Running> =
            self.counts.iter().map(|(bucket, count)| Running::of(*bucket, *count)).collect();
        let mut within: Vec<(Running, Span, jiff::Timestamp)> = self
            .within
            .iter()
            .map(|(bucket, span)| (Running::of(*bucket, Count::All), *span, span.before(newest)))
            .collect();
        let mut reasons = Vec::with_capacity(group.len());
        for (at, (candidate, time)) in group.iter().zip(&times).enumerate() {
            let is_oldest = at + 1 == group.len();
            let mut why = Vec::new();
            let has_all = |tags: &&Vec<String>| tags.iter().all(|tag| candidate.tags.contains(tag));
            why.extend(self.tags.iter().filter(has_all).map(|tags| format!("tag {}", tags.join(","))));
            let begins = |digits: &&String| candidate.id.to_string().starts_with(digits.as_str());
            why.extend(self.ids.iter().filter(begins).map(|digits| format!("id {digits}")));
            why.extend(counts.iter_mut().filter_map(|rule| rule.takes((time, at), is_oldest)));
            for (rule, span, start) in &mut within {
                if time.timestamp() > *start
                    && let Some(taken) = rule.takes((time, at), is_oldest)
                {
                    let of = if rule.bucket == Bucket::Last { String::new() } else { format!("{taken} ") };
                    why.push(format!("{of}within {span}"));
                }
            }
            reasons.push(why);
        }
        reasons
    }
}

/// A rule on its way from the newest to the oldest snapshot.
struct Running {
    bucket: Bucket,
    left: Count,
    last: Option<[i64; 4]>,
}

impl Running {
    const fn of(bucket: Bucket, left: Count) -> Self {
        Self { bucket, left, last: None }
    }

    fn takes(&mut self, (time, at): (&ZonedDateTime, usize), is_oldest: bool) -> Option<String> {
        if self.left == Count::Most(0) {
            return None;
        }
        let bucket = Some(self.bucket.of(time, at));
        let is_new = bucket != self.last;
        if !is_new && !is_oldest {
            return None;
        }
        self.last = bucket;
        if let Count::Most(left) = &mut self.left {
            *left -= 1;
        }
        let oldest = if is_new { "" } else { "oldest " };
        Some(format!("{oldest}{}", self.bucket.name()))
    }
}

/// A snapshot, as far as rules care.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The time that counts.
    pub time: Timestamp,
    /// Its tags.
    pub tags: &'a [String],
    /// Its id.
    pub id: ObjectId,
}

/// A time that no calendar has, which only a forger writes, is the first or the last one that it has.
fn zoned(time: Timestamp, zone: &TimeZone) -> ZonedDateTime {
    let instant =
        i32::try_from(time.nanoseconds).ok().and_then(|n| jiff::Timestamp::new(time.seconds, n).ok());
    let end = if time.seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    instant.unwrap_or(end).to_zoned_datetime(zone.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    /// Thursday, 2026-01-01 00:00:00 UTC.
    const NEW_YEAR: i64 = 1_767_225_600;

    /// Which of the snapshots (seconds since the new year, the newest first) a policy keeps.
    fn kept(rules: &Rules, times: &[i64], zone: &TimeZone) -> Vec<(i64, String)> {
        let candidates: Vec<_> = times
            .iter()
            .map(|seconds| Candidate {
                time: Timestamp::from_seconds(NEW_YEAR + seconds),
                tags: &[],
                id: ObjectId::new([0; 32]),
            })
            .collect();
        let reasons = rules.apply(&candidates, zone);
        times
            .iter()
            .copied()
            .zip(reasons)
            .filter(|(_, why)| !why.is_empty())
            .map(|(t, why)| (t, why.join(", ")))
            .collect()
    }

    fn count(bucket: Bucket, count: &str) -> Rules {
        Rules { counts: vec![(bucket, count.parse().unwrap())], ..Rules::default() }
    }

    fn within(bucket: Bucket, span: &str) -> Rules {
        Rules { within: vec![(bucket, span.parse().unwrap())], ..Rules::default() }
    }

    fn times(kept: Vec<(i64, String)>) -> Vec<i64> {
        kept.into_iter().map(|(time, _)| time).collect()
    }

    #[test]
    fn times_that_no_calendar_has_are_the_first_and_the_last() {
        let at = |seconds| Candidate {
            time: Timestamp::from_seconds(seconds),
            tags: &[],
            id: ObjectId::new([0; 32]),
        };
        let rules = Rules { counts: vec![(Bucket::Daily, Count::Most(1))], ..Rules::default() };
        let zone = TimeZone::fixed(jiff::tz::offset(14));
        assert_eq!(rules.apply(&[at(i64::MAX), at(0), at(i64::MIN)], &zone)[0], ["daily"]);
    }

    #[test]
    fn each_bucket_keeps_its_newest() {
        let hours = [50, 49, 48, 30, 25, 24, 2, 1].map(|hour| hour * 3600);
        assert_eq!(times(kept(&count(Bucket::Last, "3"), &hours, &TimeZone::UTC)), hours[..3]);
        let daily = kept(&count(Bucket::Daily, "2"), &hours, &TimeZone::UTC);
        assert_eq!(daily, [(50 * 3600, "daily".into()), (30 * 3600, "daily".into())]);
        // The third day is the last one: the rule is exhausted and the oldest goes.
        assert_eq!(
            times(kept(&count(Bucket::Daily, "3"), &hours, &TimeZone::UTC)),
            [50, 30, 2].map(|h| h * 3600)
        );
        // With one to spare it keeps the oldest.
        let spare = kept(&count(Bucket::Daily, "4"), &hours, &TimeZone::UTC);
        assert_eq!(spare.last(), Some(&(3600, "oldest daily".into())));
        assert_eq!(kept(&count(Bucket::Daily, "unlimited"), &hours, &TimeZone::UTC), spare);
    }

    #[test]
    fn weeks_are_those_of_iso_and_days_those_of_the_time_zone() {
        // The first of January 2026 is a Thursday; Monday the 5th begins the second week. 2025-12-29 is in the first.
        let days = [5, 4, 3, 0, -3, -4].map(|day| day * DAY);
        assert_eq!(times(kept(&count(Bucket::Weekly, "2"), &days, &TimeZone::UTC)), [5 * DAY, 3 * DAY]);
        assert_eq!(times(kept(&count(Bucket::Yearly, "2"), &days, &TimeZone::UTC)), [5 * DAY, -3 * DAY]);
        // 23:00 and 01:00 of the next day are one day to whoever is two hours east.
        let night = [DAY + 3600, DAY - 3600, 3600];
        assert_eq!(times(kept(&count(Bucket::Daily, "1"), &night, &TimeZone::UTC)), [DAY + 3600]);
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(times(kept(&count(Bucket::Daily, "2"), &night, &TimeZone::UTC)), [DAY + 3600, DAY - 3600]);
        assert_eq!(times(kept(&count(Bucket::Daily, "2"), &night, &east)), [DAY + 3600, 3600]);
    }

    #[test]
    fn what_is_within_a_time_counts_from_the_newest() {
        let days = [40, 39, 38, 10, 9, 0].map(|day| day * DAY);
        assert_eq!(times(kept(&within(Bucket::Last, "2d"), &days, &TimeZone::UTC)), [40 * DAY, 39 * DAY]);
        assert_eq!(times(kept(&within(Bucket::Last, "1m"), &days, &TimeZone::UTC)), days[..4]);
        let monthly = kept(&within(Bucket::Monthly, "1y"), &days, &TimeZone::UTC);
        assert_eq!(monthly.last(), Some(&(0, "oldest monthly within 1y".into())));
        assert_eq!(times(monthly), [40 * DAY, 10 * DAY, 0]);
        assert_eq!(times(kept(&within(Bucket::Last, "65535y"), &days, &TimeZone::UTC)), days);
    }

    /// Each line was asked of restic: the last snapshot that goes and the first that stays, around what lies so long before.
    #[test]
    fn a_day_that_its_month_does_not_have_is_counted_as_restic_does() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (newest, span, start) in [
            ("2026-03-31T12:00:00+02:00", "1m", "2026-03-03T12:00:00+01:00"),
            ("2024-03-31T12:00:00+02:00", "1m", "2024-03-02T12:00:00+01:00"),
            ("2024-02-29T12:00:00+01:00", "1y", "2023-03-01T12:00:00+01:00"),
            ("2026-05-31T12:00:00+02:00", "3m1d", "2026-03-02T12:00:00+01:00"),
            ("2025-12-31T12:00:00+01:00", "1y1m", "2024-12-01T12:00:00+01:00"),
            ("2026-07-31T12:00:00+02:00", "1m12h", "2026-07-01T00:00:00+02:00"),
            // That hour is left out, and this one comes twice.
            ("2026-04-29T02:30:00+02:00", "1m", "2026-03-29T03:30:00+02:00"),
            ("2026-11-25T02:30:00+01:00", "1m", "2026-10-25T02:30:00+01:00"),
        ] {
            let at = |text: &str| Timestamp::from_rfc3339(text).unwrap().seconds - NEW_YEAR;
            let (newest, start) = (at(newest), at(start));
            let times = [newest, start + 1, start, start - 1];
            let left = kept(&within(Bucket::Last, span), &times, &berlin);
            let left: Vec<i64> = left.into_iter().map(|(time, _)| time).collect();
            assert_eq!(left, times[..2], "{span} before {newest}");
        }
    }

    #[test]
    fn rules_are_one_or_the_other() {
        let mut rules = count(Bucket::Last, "1");
        rules.counts.push((Bucket::Monthly, Count::Most(2)));
        let found = kept(&rules, &[40 * DAY, 39 * DAY, 10 * DAY, 9 * DAY], &TimeZone::UTC);
        assert_eq!(found, [(40 * DAY, "last, monthly".into()), (10 * DAY, "monthly".into())]);
        let tags = ["a".to_owned(), "b".to_owned()];
        let time = Timestamp::from_seconds(NEW_YEAR);
        let rules = Rules { tags: vec![vec!["a".into(), "b".into()], vec!["c".into()]], ..Rules::default() };
        let candidates = [
            Candidate { time, tags: &tags, id: ObjectId::new([0; 32]) },
            Candidate { time, tags: &tags[..1], id: ObjectId::new([0; 32]) },
        ];
        assert_eq!(rules.apply(&candidates, &TimeZone::UTC), [vec!["tag a,b".to_owned()], vec![]]);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["0", "-1", "", "all", "99999999999"] {
            assert_eq!(text.parse::<Count>().unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
        for text in ["", "0d", "7", "d", "1d1d", "1w", "1h30", "70000d"] {
            assert_eq!(text.parse::<Span>().unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
        assert_eq!("1y5m7d2h".parse::<Span>().unwrap().to_string(), "1y5m7d2h");
    }
}
