//! What the calls alone must show, whatever came of them: the rules of `docs/protocol.md` that lose data only
//! once somebody deletes.

use std::{collections::BTreeMap, time::Duration};

use super::{
    weather::{Call, Conditions, Fate, GRACE, WINDOW},
    world::Event,
};

/// More calls than any command makes: of about 200 a few are tried 65 times each, which takes 15 minutes.
const CALLS_MAX: usize = 1500;

/// The view of one command.
#[derive(Default)]
struct View {
    begun: Duration,
    /// What it has looked at since then, in order.
    seen: Vec<&'static str>,
    /// When the last whole one began.
    whole: Option<Duration>,
}

/// What a view looks at, in this order.
const ORDER: [&str; 4] = ["registry", "tombstones", "index", "packs"];

/// Checks each command.
pub(crate) fn problems(events: &[Event]) -> Vec<String> {
    let mut commands: BTreeMap<(usize, usize), Vec<&Event>> = BTreeMap::new();
    for event in events {
        commands.entry((event.client, event.command)).or_default().push(event);
    }
    let mut problems = Vec::new();
    for ((client, command), events) in commands {
        let mut found = in_time(&events);
        if events.len() > CALLS_MAX {
            found.push(format!("{} calls", events.len()));
        }
        problems.extend(found.into_iter().map(|text| format!("client {client}.{command}: {text}")));
    }
    problems
}

/// Each attempt to send a snapshot begins within the window of a view that was whole and in order.
fn in_time(events: &[&Event]) -> Vec<String> {
    let (mut view, mut problems) = (View::default(), Vec::new());
    let mut before = None;
    for Event { asked, call, name, .. } in events {
        let again = before.replace((call, name)) == Some((call, name));
        if *call == Call::Put && name.contains("/snapshots/") {
            match view.whole {
                None => problems.push(format!("{name} was sent without a view")),
                Some(begun) if *asked >= begun + WINDOW => {
                    problems.push(format!("{name} was sent {:?} after the view", *asked - begun));
                }
                Some(_) => {}
            }
        }
        let Some(folder) = ORDER.into_iter().find(|folder| name.split('/').next_back() == Some(*folder))
        else {
            continue;
        };
        if *call != Call::List {
            continue;
        }
        // A view begins before the first of the attempts to read the registry.
        if folder == ORDER[0] && !again {
            (view.begun, view.seen) = (*asked, Vec::new());
        }
        if view.seen.last() != Some(&folder) {
            view.seen.push(folder);
        }
        if view.seen == ORDER {
            view.whole = Some(view.begun);
        }
    }
    problems
}

/// When a PUT of a name that is new took effect, if it did.
fn arrived(put: &Event) -> Option<Duration> {
    match put.fate {
        Fate::Fails | Fate::KillsBefore | Fate::Outage(..) => None,
        Fate::ArrivesLate(by) => Some(put.at + by),
        _ => Some(put.at),
    }
}

/// Whether a snapshot that arrived or was acknowledged late was looked at once more, before its client was told
/// that it is good. Where conditions count, what arrived first stays; else what was sent last.
pub(crate) fn was_confirmed(
    events: &[Event],
    (client, command): (usize, usize),
    conditions: Conditions,
) -> bool {
    let own: Vec<&Event> =
        events.iter().filter(|event| (event.client, event.command) == (client, command)).collect();
    let Some(put) =
        own.iter().rposition(|event| event.call == Call::Put && event.name.contains("/snapshots/"))
    else {
        return false;
    };
    let tries = own.iter().filter(|event| event.call == Call::Put && event.name == own[put].name);
    let first = tries.filter_map(|event| arrived(event)).min();
    let at = first.filter(|_| conditions != Conditions::Ignored).unwrap_or(own[put].at);
    let viewed = |event: &&&Event| event.call == Call::List && event.name == "registry";
    let before = own[..put].iter().rev().find(viewed).map_or(Duration::ZERO, |event| event.asked);
    let acknowledged = own.get(put + 1).map_or(own[put].at, |event| event.asked);
    // The storage stamps whole seconds.
    let in_time = at - before <= WINDOW + Duration::from_secs(1) && acknowledged - before < GRACE / 4;
    in_time || own[put..].iter().any(|event| event.name.ends_with("/packs"))
}
