//! `validate`: documents checked here, and by the daemon against what they refer to.

use mesh_model::{
    document::Document,
    finding::{Finding, Severity},
};

use super::Session;
use crate::{
    args::ValidateArgs,
    documents::Documents,
    failure::{Exit, Failure},
    print::Put as _,
};

/// Validates. Exit 1 when a document would be refused.
pub(crate) async fn run(session: &Session, args: &ValidateArgs) -> Result<Exit, Failure> {
    let documents = Documents::read(&args.files)?;
    let mut findings: Vec<Finding> = Vec::new();
    let mut complete = false;
    if !args.offline {
        match documents.ask(&session.client).await {
            Ok(validated) => {
                findings = validated.findings;
                complete = true;
            }
            Err(failure) if failure.exit == Exit::Unreachable => {
                crate::print::note(
                    "meshd does not answer: references to other resources are not checked",
                );
            }
            Err(failure) => return Err(failure),
        }
    }
    if !complete {
        let told = documents.all.iter().flat_map(Document::reported);
        findings.extend(told);
    }
    session.printer.show(&findings, |printer| {
        let depth = if complete { "" } else { " (documents alone)" };
        let mut text = printer.findings(&findings);
        if findings
            .iter()
            .all(|finding| finding.severity != Severity::Error)
        {
            let (ok, count) = (printer.mark("ok"), documents.all.len());
            writeln!(text, "{ok} {}: {count} documents{depth}", documents.origin);
        }
        text
    })?;
    let refused = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    Ok(if refused { Exit::Finding } else { Exit::Done })
}
