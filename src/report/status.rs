//! How the clients stand, for people and for machines.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{
    json as messages, ledger,
    table::{Side, Table},
    text, time,
};
use crate::{
    ops::status::{Backup, Client, ClientName, Failure, Held, Status},
    repository::history::Past,
};

/// `label`, or `label@host`.
#[must_use]
pub fn name(client: &ClientName) -> String {
    let ClientName { label, host } = client;
    let text = host.as_ref().map_or_else(|| label.clone(), |host| format!("{label}@{host}"));
    text::shown(text.as_bytes())
}

/// `3 d 4 h`, `5 h 12 min`, `40 s`: as exact as anybody wants to know.
#[must_use]
pub fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 86_400, seconds / 3600, seconds / 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}

fn age_of_complete(status: &Status, client: &Client) -> String {
    client.complete.as_ref().map_or_else(|| "never".to_owned(), |backup| age(status.age(backup.stored)))
}

/// How long before the storage got anything of it the last complete backup was made, if that is too long to be true.
fn before_all(client: &Client) -> Option<Duration> {
    client.complete.as_ref().and_then(|backup| backup.before_all)
}

/// The first line: who is overdue.
#[must_use]
pub fn headline(status: &Status) -> String {
    let overdue: Vec<String> = status
        .clients
        .iter()
        .filter(|client| client.overdue)
        .map(|client| format!("{} ({})", name(&client.name), age_of_complete(status, client)))
        .collect();
    if status.clients.is_empty() {
        return "no key backs up here, so there is nobody who could be overdue".to_owned();
    }
    if overdue.is_empty() {
        let clients = text::count(status.clients.len() as u64, "client", "clients");
        let but = if status.clients.iter().any(|client| before_all(client).is_some()) {
            ", by stamps that may be those of a copying"
        } else {
            ""
        };
        return format!("nobody is overdue: {clients}{but}");
    }
    format!("overdue: {}", overdue.join(", "))
}

fn state(status: &Status, client: &Client) -> String {
    let mut words = Vec::new();
    if client.overdue {
        words.push("overdue".to_owned());
    }
    match &client.last {
        None => words.push("never backed up".to_owned()),
        Some(last) if last.unreadable > 0 => {
            let entries = text::count(last.unreadable, "entry", "entries");
            words.push(format!("the last one is incomplete: {entries} could not be read"));
        }
        Some(_) => {}
    }
    if let Some(late) = before_all(client) {
        words.push(format!(
            "made {} before anything of it got here, says its machine: a wrong clock, or this is a copy and ages are those of the copying",
            age(late)
        ));
    }
    if let Some(begun) = client.unended() {
        words.push(format!("a run began {} ago and has not ended", age(status.age(begun))));
    }
    if words.is_empty() { "ok".to_owned() } else { words.join("; ") }
}

/// A line for each client.
#[must_use]
pub fn table(status: &Status, zone: &TimeZone) -> Table {
    let mut table = Table::new(&[
        ("Client", Side::Left),
        ("Last complete", Side::Left),
        ("Age", Side::Right),
        ("Last failed run", Side::Left),
        ("State", Side::Left),
        ("Why it failed", Side::Left),
    ]);
    for client in &status.clients {
        let complete = client.complete.as_ref().map(|backup| time::show(backup.stored, zone));
        let failed = client.failed.as_ref();
        table.row(vec![
            name(&client.name),
            complete.unwrap_or_else(|| "never".to_owned()),
            client.complete.as_ref().map(|backup| age(status.age(backup.stored))).unwrap_or_default(),
            failed.map(|failure| time::show(failure.stored, zone)).unwrap_or_default(),
            state(status, client),
            failed.map(|failure| text::shown(failure.message.as_bytes())).unwrap_or_default(),
        ]);
    }
    table
}

/// A line for each legal hold.
#[must_use]
pub fn holds(status: &Status, zone: &TimeZone) -> Vec<String> {
    let line = |Held { domain, hold, by, snapshots }: &Held| {
        let [domain, by, reason] = [domain, by, &hold.reason].map(|words| text::shown(words.as_bytes()));
        let snapshots = text::count(*snapshots, "snapshot", "snapshots");
        let since = time::show(hold.time, zone);
        format!("legal hold on {snapshots} of {domain} since {since} by {by}: {reason}")
    };
    status.holds.iter().map(line).collect()
}

/// A message for each legal hold.
#[must_use]
pub fn hold_messages(status: &Status) -> Vec<Value> {
    let message = |Held { domain, hold, by, snapshots }: &Held| {
        messages::message(
            "hold",
            json!({
                "hold": hold.id.to_string(),
                "domain": domain,
                "snapshots": snapshots,
                "since": time::rfc3339(hold.time),
                "by": by,
                "reason": hold.reason,
            }),
        )
    };
    status.holds.iter().map(message).collect()
}

/// A client as a message.
#[must_use]
pub fn message(status: &Status, client: &Client) -> Value {
    let Client { name: who, identity, domain, last, complete, failed, heard, max_age, overdue } = client;
    let backup = |backup: &Option<Backup>| {
        backup.as_ref().map(|Backup { id, stored, unreadable, made, .. }| {
            json!({
                "snapshot": id.to_string(),
                "time": time::rfc3339(*stored),
                "age_seconds": status.age(*stored).as_secs(),
                "unreadable": unreadable,
                "made": time::rfc3339(*made),
            })
        })
    };
    let failed = failed.as_ref().map(|Failure { stored, code, message }| {
        json!({
            "time": time::rfc3339(*stored),
            "age_seconds": status.age(*stored).as_secs(),
            "code": code,
            "message": message,
        })
    });
    messages::message(
        "client",
        json!({
            "client": name(who),
            "label": who.label,
            "host": who.host,
            "identity": identity.to_string(),
            "domain": domain.to_string(),
            "last_complete": backup(complete),
            "last_backup": backup(last),
            "last_failed_run": failed,
            "last_run": heard.map(time::rfc3339),
            "run_has_not_ended": client.unended().is_some(),
            "max_age_seconds": max_age.map(|max_age| max_age.as_secs()),
            "overdue": overdue,
        }),
    )
}

/// The end of the list as a message.
#[must_use]
pub fn summary(status: &Status) -> Value {
    let overdue: Vec<String> =
        status.clients.iter().filter(|client| client.overdue).map(|client| name(&client.name)).collect();
    let incomplete = |client: &&Client| client.last.as_ref().is_some_and(|backup| backup.unreadable > 0);
    messages::message(
        "summary",
        json!({
            "clients": status.clients.len(),
            "overdue": overdue,
            "incomplete": status.clients.iter().filter(incomplete).count(),
            "revoked": status.revoked,
            "holds": status.holds.len(),
            "coverage": ledger::summary(&status.coverage),
            "now": time::rfc3339(status.now),
            "problems": status.damaged.len(),
        }),
    )
}

/// A line for what this machine remembers of a backup of its own.
#[must_use]
pub fn past(past: &Past, zone: &TimeZone) -> String {
    let Past { time: seconds, host, code, message, snapshot } = past;
    let at = time::show(crate::clock::Timestamp::from_seconds(*seconds), zone);
    let id: String = snapshot.iter().flat_map(|id| id.chars().take(8)).collect();
    let what = match (code, message) {
        (0, _) if snapshot.is_none() => "nothing had changed".to_owned(),
        (0, _) => format!("snapshot {id}"),
        (9, None) => format!("snapshot {id}, with a source that is suspiciously empty"),
        (_, None) => format!("snapshot {id}, incomplete"),
        (code, Some(message)) => format!("failed with exit code {code}: {message}"),
    };
    format!("{at}  {}  {}", text::shown(host.as_bytes()), text::shown(what.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_as_exact_as_anybody_wants_to_know() {
        let table = [
            (0, "0 s"),
            (59, "59 s"),
            (3599, "59 min"),
            (93_600, "1 d 2 h"),
            (7_260, "2 h 1 min"),
            (864_000, "10 d 0 h"),
        ];
        for (seconds, text) in table {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}
