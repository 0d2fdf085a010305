//! `history`: commits, newest first: when, who, what, why, and what became of each.

use mesh_model::{admin::HistoryRow, time::rfc3339};

use super::Session;
use crate::{
    args::HistoryArgs,
    client::with_query,
    failure::{Exit, Failure},
    print::{Paint, Printer, Table},
    resource, story,
};

/// Shows history.
pub(crate) async fn run(session: &Session, args: &HistoryArgs) -> Result<Exit, Failure> {
    let rows = rows(session, args).await?;
    session
        .printer
        .show(&rows, |printer| text(printer, &rows))?;
    Ok(Exit::Done)
}

async fn rows(session: &Session, args: &HistoryArgs) -> Result<Vec<HistoryRow>, Failure> {
    if let [revision] = args.resource.as_slice()
        && story::is_revision(revision)
    {
        return Ok(vec![story::commit(&session.client, revision).await?]);
    }
    let namespace = args.namespace.clone();
    let (kind, namespace, name) = if args.resource.is_empty() {
        (String::new(), namespace, None)
    } else {
        resource::parts(&args.resource, namespace.as_deref())?
    };
    let path = with_query(
        "/v1/history",
        &[
            ("kind", &kind),
            ("namespace", namespace.as_deref().unwrap_or_default()),
            ("name", name.as_deref().unwrap_or_default()),
            ("limit", &args.limit.to_string()),
        ],
    );
    session.client.get(&path).await
}

fn text(printer: Printer, rows: &[HistoryRow]) -> String {
    let mut table = Table::new(&["REVISION", "WHEN", "AUTHOR", "STATE", "CHANGES", "REASON"]);
    for row in rows {
        let paint = match row.state.as_str() {
            "effective" => Paint::Good,
            "tentative" => Paint::Warn,
            "conflict" | "void" => Paint::Bad,
            _ => Paint::Faint,
        };
        let changes: Vec<String> = row
            .changes
            .iter()
            .map(|change| format!("{} {}", change.op, story::change_key(change)))
            .collect();
        let mut reason = row.reason.split_whitespace().collect::<Vec<_>>().join(" ");
        if row.state == "tentative" && row.confirm_by_ms > 0 {
            let by = rfc3339(row.confirm_by_ms);
            reason = format!("undone at {by} unless confirmed; {reason}");
        }
        table.row(vec![
            row.id.short(),
            rfc3339(row.time_ms),
            row.author.clone(),
            printer.paint(paint, &row.state),
            changes.join(", "),
            reason.trim_end_matches("; ").to_owned(),
        ]);
    }
    table.render("no commits")
}
