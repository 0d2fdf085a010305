//! `check`: problems by section, each with its remedy.

use mesh_model::admin::CheckRow;

use super::Session;
use crate::{
    args::CheckArgs,
    failure::{Exit, Failure},
    print::{Paint, Printer, Put as _},
};

/// Checks. Exit 1 when something is wrong; warnings alone are exit 0.
pub(crate) async fn run(session: &Session, args: &CheckArgs) -> Result<Exit, Failure> {
    let rows: Vec<CheckRow> = session.client.get("/v1/check").await?;
    let wrong = rows.iter().any(|row| row.state == "error");
    session
        .printer
        .show(&rows, |printer| text(printer, &rows, args.short))?;
    Ok(if wrong { Exit::Finding } else { Exit::Done })
}

fn text(printer: Printer, rows: &[CheckRow], short: bool) -> String {
    let mut out = String::new();
    let mut section = "";
    for row in rows.iter().filter(|row| !short || row.state != "ok") {
        if row.section != section {
            if !out.is_empty() {
                out.push('\n');
            }
            writeln!(out, "{}", printer.paint(Paint::Strong, &row.section));
            section = &row.section;
        }
        writeln!(out, "{} {}", printer.mark(&row.state), row.what);
        if !row.remedy.is_empty() {
            writeln!(out, "    {}", row.remedy);
        }
    }
    let count = |state| rows.iter().filter(|row| row.state == state).count();
    let verdict = match (count("error"), count("warning")) {
        (0, 0) => "all is well".to_owned(),
        (errors, warnings) => format!("{errors} errors, {warnings} warnings"),
    };
    if !out.is_empty() {
        out.push('\n');
    }
    out + &verdict + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::Format;

    #[test]
    fn sections_marks_and_remedies() {
        let row = |section: &str, state: &str, what: &str, remedy: &str| CheckRow {
            section: section.into(),
            state: state.into(),
            what: what.into(),
            remedy: remedy.into(),
        };
        let rows = [
            row("kernel", "ok", "nft works", ""),
            row(
                "certificates",
                "warning",
                "one authority lives",
                "make another",
            ),
            row("certificates", "error", "expired", "renew"),
        ];
        let printer = Printer::plain(Format::Table);
        assert_eq!(
            text(printer, &rows, false),
            "kernel\n√ nft works\n\ncertificates\n‼ one authority lives\n    make another\n\
             × expired\n    renew\n\n1 errors, 1 warnings\n"
        );
        assert!(!text(printer, &rows, true).contains("nft"));
        assert_eq!(text(printer, &[], false), "all is well\n");
    }
}
