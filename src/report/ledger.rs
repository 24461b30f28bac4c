//! How much of a repository was read how long ago, for people and for machines.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

pub use super::status::age;
use super::{json as messages, size, text, time};
use crate::{
    format::ledger::Reading,
    ops::check::{Coverage, DomainCoverage, Oldest, Reader, Span},
};

/// `76.5%`; of nothing, everything was read.
fn percent(part: u64, whole: u64) -> String {
    let thousandths = (u128::from(part) * 1000).checked_div(u128::from(whole)).unwrap_or(1000);
    format!("{}.{}%", thousandths / 10, thousandths % 10)
}

fn share(reading: Reading, part: u64, whole: u64) -> String {
    let what = match reading {
        Reading::Hashed => "hashes seen",
        Reading::Decrypted => "decrypted",
    };
    format!("{what} {} ({})", size::show(part), percent(part, whole))
}

fn shares(hashed: u64, decrypted: u64, whole: u64) -> String {
    let both = [share(Reading::Decrypted, decrypted, whole), share(Reading::Hashed, hashed, whole)];
    both.join(", ")
}

/// `30 d`: what somebody asked for.
#[must_use]
pub fn span(duration: Duration) -> String {
    age(duration).trim_end_matches(" 0 h").trim_end_matches(" 0 min").to_owned()
}

fn domain(name: &str) -> String {
    text::shown(name.as_bytes())
}

/// What to say of it; everything, with who read what, if that is wanted.
#[must_use]
pub fn lines(coverage: &Coverage, all: bool, zone: &TimeZone) -> Vec<String> {
    let Coverage { policy, bytes, domains, oldest, due, elsewhere, .. } = coverage;
    let sums = shares(coverage.read(Reading::Hashed), coverage.read(Reading::Decrypted), *bytes);
    let mut lines = vec![format!("of {} in the last {}: {sums}", size::show(*bytes), span(policy.max_age))];
    let several = domains.iter().filter(|domain| domain.bytes > 0).count() > 1;
    for covered in domains.iter().filter(|domain| domain.bytes > 0 && (several || all)) {
        let DomainCoverage { name, bytes, hashed, decrypted, spans, .. } = covered;
        let of = size::show(*bytes);
        lines.push(format!("  {} ({of}): {}", domain(name), shares(*hashed, *decrypted, *bytes)));
        for Span { shelves, reading, reader } in spans.iter().filter(|_| all) {
            let (when, by) = (time::show(reader.time, zone), text::shown(reader.label.as_bytes()));
            lines.push(format!("    {} on {when} by {by}: shelves {shelves}", reading.name()));
        }
    }
    if let Some(Oldest { name, shelf, age: oldest, reader, .. }) = oldest {
        let who = match reader {
            Some(Reader { label, .. }) => format!("read by {}", text::shown(label.as_bytes())),
            None => "never read since it was written".to_owned(),
        };
        lines.push(format!(
            "oldest unverified byte: {} ({who}), shelf {shelf} of {}",
            age(*oldest),
            domain(name)
        ));
    }
    if *elsewhere > 0 {
        lines.push(format!(
            "{} were read in another storage only: what a check has read counts where it was read",
            size::show(*elsewhere)
        ));
    }
    if *due > 0 {
        lines.push(format!("{} more are due", size::show(*due)));
    }
    lines
}

/// What cannot go well as it is.
#[must_use]
pub fn warnings(coverage: &Coverage) -> Vec<String> {
    let Coverage { policy, habit, needs, .. } = coverage;
    policy
        .budget
        .filter(|budget| budget < needs)
        .map(|budget| {
            format!(
                "a budget of {} does not do: with a check every {}, each must read {} so that everything is read within {}",
                size::show(budget),
                span(*habit),
                size::show(*needs),
                span(policy.max_age)
            )
        })
        .into_iter()
        .collect()
}

fn reader(Reader { identity, label, time: at }: &Reader) -> Value {
    json!({ "identity": identity.to_string(), "label": label, "time": time::rfc3339(*at) })
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs()
}

/// A message for each domain: who read what when.
#[must_use]
pub fn messages(coverage: &Coverage) -> Vec<Value> {
    let message = |covered: &DomainCoverage| {
        let DomainCoverage { domain, name, packs, bytes, hashed, decrypted, spans } = covered;
        let spans: Vec<Value> = spans
            .iter()
            .map(|Span { shelves, reading, reader: by }| {
                json!({ "shelves": shelves.to_string(), "reading": reading.name(), "by": reader(by) })
            })
            .collect();
        messages::message(
            "ledger",
            json!({
                "domain": domain.to_string(),
                "name": name,
                "packs": packs,
                "bytes": bytes,
                "hashed_bytes": hashed,
                "decrypted_bytes": decrypted,
                "read": spans,
            }),
        )
    };
    coverage.domains.iter().map(message).collect()
}

/// All of it together.
#[must_use]
pub fn summary(coverage: &Coverage) -> Value {
    let Coverage { reading, policy, habit, bytes, due, elsewhere, needs, oldest, domains: _ } = coverage;
    let oldest = oldest.as_ref().map(|Oldest { domain, name, shelf, age, reader: by }| {
        json!({
            "age_seconds": seconds(*age),
            "domain": domain.to_string(),
            "name": name,
            "shelf": shelf,
            "by": by.as_ref().map(reader),
        })
    });
    json!({
        "reading": reading.name(),
        "max_age_seconds": seconds(policy.max_age),
        "budget_bytes": policy.budget,
        "check_every_seconds": seconds(*habit),
        "needed_budget_bytes": needs,
        "bytes": bytes,
        "hashed_bytes": coverage.read(Reading::Hashed),
        "decrypted_bytes": coverage.read(Reading::Decrypted),
        "elsewhere_bytes": elsewhere,
        "due_bytes": due,
        "oldest": oldest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_never_rounded_up() {
        for (part, whole, text) in
            [(0, 0, "100.0%"), (999_999, 1_000_000, "99.9%"), (1, 3, "33.3%"), (5, 5, "100.0%")]
        {
            assert_eq!(percent(part, whole), text);
        }
    }
}
