//! What reports of every kind have in common.

use crate::{
    error::{Error, ErrorKind, Result},
    format::evidence::{Head, short},
    repository::{Repository, evidence::ChainPlace},
};

/// What every report of this identity says first, made on this machine by this program.
pub(super) fn head(
    repository: &Repository,
    (machine, program): (&str, &str),
    kind: &str,
    place: Option<ChainPlace>,
) -> Head {
    let me = repository.identity();
    let label = repository.registry().certificate(&me).map(|known| known.label.clone());
    Head {
        kind: kind.to_owned(),
        format: 1,
        time: repository.clock.now().rfc3339(),
        verdict: None,
        summary: String::new(),
        repository_id: repository.config.repository_id.to_string(),
        identity: me.to_string(),
        label: label.unwrap_or_default(),
        sequence: place.map(|place| place.sequence),
        previous: place.and_then(|place| place.previous).map(|id| id.to_string()),
        machine: short(machine),
        program: program.to_owned(),
    }
}

/// A report in one line.
///
/// # Errors
/// It has no form in JSON.
pub(super) fn as_json(report: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(report)
        .map_err(|e| Error::new(ErrorKind::Failed, "could not write the report").with_source(e))
}
