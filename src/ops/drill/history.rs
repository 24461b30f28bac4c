//! What is in the chains of evidence.

use std::collections::HashMap;

use serde_json::Value;

use crate::{
    error::{Error, Result},
    format::evidence::{DRILL, DRILL_BEGAN},
    repository::{Repository, evidence::KnownEvidence},
};

/// A record, or the beginning of a drill that has no end.
#[derive(Debug)]
pub enum Row {
    /// A record.
    Record(KnownEvidence),
    /// The record that a drill began; none says how it ended.
    Unfinished(KnownEvidence),
}

/// Gives every record, chain after chain and oldest first, and returns what is wrong with the chains. Drills
/// that began and have no end come at the end of all.
///
/// # Errors
/// `Forbidden` without the metadata keys; storage trouble; what `each` says.
pub fn history(repository: &Repository, each: &mut dyn FnMut(Row) -> Result<()>) -> Result<Vec<Error>> {
    let mut open: HashMap<String, KnownEvidence> = HashMap::new();
    let problems = repository.for_each_evidence(&mut |known| {
        let drill = drill_of(&known);
        match (known.head.kind.as_str(), drill) {
            (DRILL_BEGAN, Some(drill)) => {
                open.insert(drill, known);
                Ok(())
            }
            (DRILL, Some(drill)) => {
                open.remove(&drill);
                each(Row::Record(known))
            }
            _ => each(Row::Record(known)),
        }
    })?;
    let mut open: Vec<KnownEvidence> = open.into_values().collect();
    open.sort_by_key(|known| (known.identity, known.sequence));
    open.into_iter().try_for_each(|known| each(Row::Unfinished(known)))?;
    Ok(problems)
}

fn drill_of(known: &KnownEvidence) -> Option<String> {
    let report: Value = serde_json::from_str(known.report.payload()).ok()?;
    Some(report.get("drill")?.as_str()?.to_owned())
}
