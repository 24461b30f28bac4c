//! Signs what a check read, as records in the chain of evidence.

use std::{collections::HashSet, time::Duration};

use super::{Checked, ledger::Reader};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        ledger::{CHECK, CheckReport, DomainRead, Reading, Shelf, Shelves},
        report::SignedReport,
    },
    id::{DomainId, PackId},
    limits,
    ops::evidence::{as_json, head},
    repository::Repository,
    store::Store,
};

/// A record is written when so many bytes were read since the last one, at the end of a domain: what a
/// kill or a storage that goes away loses.
const RECORD_EVERY_BYTES: u64 = 16 << 30;
/// Damaged packs of a domain that a record names. Of more, nothing is said to have been read.
const DAMAGED_MAX: usize = 4096;

/// Who checks, for the record.
#[derive(Clone, Copy, Debug)]
pub struct Witness<'a> {
    /// The machine.
    pub machine: &'a str,
    /// The program and its version.
    pub program: &'a str,
}

/// What was read of a domain.
pub(super) type Read = (DomainId, Shelves, Vec<PackId>);

/// Which shelves of a domain were read to the end: all but those with a pack that was not.
pub(super) fn shelves_read(
    domain: DomainId,
    unread: &HashSet<Shelf>,
    damaged: &HashSet<PackId>,
) -> Option<Read> {
    if damaged.len() > DAMAGED_MAX {
        return None;
    }
    let shelves = Shelves::which(|shelf| !unread.contains(&shelf));
    let mut named: Vec<PackId> =
        damaged.iter().filter(|pack| !unread.contains(&Shelf::of(pack))).copied().collect();
    named.sort_unstable();
    Some((domain, shelves, named))
}

/// Collects what was read until it is written.
pub(super) struct Recorder<'a> {
    repository: &'a Repository,
    witness: Option<Witness<'a>>,
    reading: Reading,
    begun: (Timestamp, Duration),
    /// What no record says yet.
    fresh: Vec<Read>,
    packs: u64,
    bytes: u64,
    /// Whether the storage takes none.
    refused: bool,
}

impl<'a> Recorder<'a> {
    /// Begins now, before anything is listed.
    pub(super) fn new(repository: &'a Repository, witness: Option<Witness<'a>>, reading: Reading) -> Self {
        let begun = (repository.clock.now(), repository.clock.elapsed());
        Self { repository, witness, reading, begun, fresh: Vec::new(), packs: 0, bytes: 0, refused: false }
    }

    pub(super) const fn repository(&self) -> &'a Repository {
        self.repository
    }

    /// Us, as the reader of what is read now. `now` is what ages count to.
    pub(super) fn reader(&self, now: i64) -> Reader {
        let identity = self.repository.identity();
        let label = self.repository.registry().certificate(&identity).map(|known| known.label.clone());
        Reader { identity, label: label.unwrap_or_default(), time: Timestamp::from_seconds(now) }
    }

    /// A domain was read, so many packs and bytes of it.
    pub(super) fn domain(
        &mut self,
        read: Option<Read>,
        (packs, bytes): (u64, u64),
        checked: &mut Checked,
    ) -> Result<()> {
        // Where nothing was read there is nothing to tell.
        if packs == 0 || self.witness.is_none() {
            return Ok(());
        }
        self.fresh.extend(read);
        (self.packs, self.bytes) = (self.packs + packs, self.bytes + bytes);
        let names: usize = self
            .fresh
            .iter()
            .map(|(_, shelves, damaged)| shelves.ranges().len() * 8 + damaged.len() * 67)
            .sum();
        if self.bytes >= RECORD_EVERY_BYTES
            || names >= limits::REPORT_BYTES_MAX / 4
            || self.fresh.len() >= 4096
        {
            self.write(checked)?;
        }
        Ok(())
    }

    /// Writes what no record says yet. Why a storage refuses it is told with what was found.
    ///
    /// # Errors
    /// The user asked to stop; trouble of the storage that may pass.
    pub(super) fn write(&mut self, checked: &mut Checked) -> Result<()> {
        let (Some(witness), false) = (self.witness, self.fresh.is_empty() || self.refused) else {
            return Ok(());
        };
        match self.publish(witness, &self.repository.store) {
            Ok(()) => {
                checked.recorded = true;
                self.fresh.clear();
                (self.packs, self.bytes) = (0, 0);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::Failed | ErrorKind::Damaged) => {
                self.refused = true;
                checked.unrecorded = Some(error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// So many packs and bytes of a domain were read before the user asked to stop.
    pub(super) fn partly(&mut self, read: Option<Read>, (packs, bytes): (u64, u64)) {
        if packs > 0 {
            self.fresh.extend(read);
            (self.packs, self.bytes) = (self.packs + packs, self.bytes + bytes);
        }
    }

    /// The user has asked to stop: what was read is written all the same, if the storage takes it within half a
    /// minute. It is one small object under a new name; a kill in the midst of it leaves it there or not.
    pub(super) fn interrupted(&self) {
        let (Some(witness), false) = (self.witness, self.fresh.is_empty() || self.refused) else { return };
        let steady = self.repository.store.uninterrupted();
        // Without it the next run reads that again, and nobody waits to hear why.
        drop(steady.and_then(|store| self.publish(witness, &store)));
    }

    fn publish(&self, witness: Witness<'_>, store: &Store) -> Result<()> {
        let place = self.repository.next_evidence(store)?;
        let damaged: usize = self.fresh.iter().map(|(.., damaged)| damaged.len()).sum();
        let mut report = CheckReport {
            head: head(self.repository, (witness.machine, witness.program), CHECK, Some(place)),
            reading: self.reading,
            begun: self.begun.0.rfc3339(),
            seconds: self.repository.clock.elapsed().saturating_sub(self.begun.1).as_secs(),
            packs: self.packs,
            bytes: self.bytes,
            place: store.place(),
            domains: Vec::new(),
        };
        report.head.verdict = Some(if damaged == 0 { "pass" } else { "fail" }.to_owned());
        let what = self.reading.name();
        report.head.summary = format!("{} packs, {} bytes {what}, {damaged} damaged", self.packs, self.bytes);
        report.domains = self.fresh.iter().map(row).collect();
        let signed = SignedReport::sign(as_json(&report)?, self.repository.signer())
            .map_err(|error: Error| error.context("what was checked"))?;
        self.repository.publish_evidence(store, place, &signed).map(drop)
    }
}

fn row((domain, shelves, damaged): &Read) -> DomainRead {
    DomainRead {
        domain: domain.to_string(),
        shelves: shelves.to_string(),
        damaged: damaged.iter().map(ToString::to_string).collect(),
    }
}
