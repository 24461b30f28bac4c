//! Checks a report without repository, key or network: with nothing but a certificate that the root signed.

use std::io::Read;

use crate::{
    error::{Error, ErrorKind, Result},
    format::{
        certificate::ExportedCertificate,
        drill::DrillReport,
        evidence::{DRILL, Head},
        ledger::{CheckReport, Reading},
        report::SignedReport,
        role::Role,
    },
};

/// A report that is as it was signed.
#[derive(Debug)]
pub struct Proof {
    /// Who signed it, in the words of the root.
    pub certificate: ExportedCertificate,
    /// What every report says.
    pub head: Head,
    /// The report.
    pub report: SignedReport,
    /// Lines of the list of files, if it was looked at.
    pub lines: Option<u64>,
}

/// Checks a report and, if it is at hand, the list of files that belongs to it.
///
/// # Errors
/// `Damaged` when a byte was changed, when somebody else signed it, or when his role may not.
pub fn verify_report(report: &[u8], certificate: &[u8], files: Option<&mut dyn Read>) -> Result<Proof> {
    let certificate = ExportedCertificate::decode(certificate)?;
    let report = SignedReport::decode(report)?;
    if *report.key() != certificate.key {
        let text = format!("the report was not signed by {}, whose certificate this is", certificate.label);
        return Err(Error::new(ErrorKind::Damaged, text)
            .with_remedy("Export the certificate of whoever made the report: it names its identity"));
    }
    let damaged = |why: &str| Err(Error::damaged("the report", why));
    let head = Head::of(report.payload())?;
    if head.repository_id != certificate.repository.to_string() {
        return damaged("it is of another repository than the certificate");
    }
    if head.identity != certificate.identity().to_string() {
        return damaged("it names another identity than the one that signed it");
    }
    let may = match certificate.role {
        Role::Backup => false,
        Role::Audit | Role::Maintain => {
            let decrypted = || {
                CheckReport::decode(report.payload()).is_ok_and(|check| check.reading == Reading::Decrypted)
            };
            head.kind != DRILL && !decrypted()
        }
        Role::Restore | Role::Owner => true,
    };
    if !may {
        return damaged(&format!("a key with the role {} cannot have found that", certificate.role.name()));
    }
    let lines = files.map(|files| check_list(&report, files)).transpose()?;
    Ok(Proof { certificate, head, report, lines })
}

/// Whether the list is the one whose hash the report has.
fn check_list(report: &SignedReport, files: &mut dyn Read) -> Result<u64> {
    let drill: DrillReport = serde_json::from_str(report.payload())
        .map_err(|e| Error::damaged("the report", "it has no list of files").with_source(e))?;
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_reader(files)
        .map_err(|e| Error::new(ErrorKind::Failed, "could not read the list of files").with_source(e))?;
    if hasher.finalize().to_hex().as_str() == drill.files.blake3 {
        Ok(drill.files.lines)
    } else {
        Err(Error::damaged("the list of files", "it is not the one that the report was signed with"))
    }
}
