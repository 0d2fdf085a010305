//! `get`: resources as they stand, with revision and author.

use mesh_model::admin::ResourceRow;
use serde_json::Value;

use super::Session;
use crate::{
    args::GetArgs,
    client::with_query,
    edit::row_key,
    failure::{Exit, Failure},
    print::{Paint, Printer, Table, yaml},
    resource, time,
};

/// Shows resources. A named one that does not exist is exit 1.
pub(crate) async fn run(session: &Session, args: &GetArgs) -> Result<Exit, Failure> {
    let namespace = args.namespace.as_deref();
    if args.resource.is_empty() {
        let path = with_query(
            "/v1/resources",
            &[("namespace", namespace.unwrap_or_default())],
        );
        let rows: Vec<ResourceRow> = session.client.get(&path).await?;
        return show(session, &rows);
    }
    let (kind, namespace, name) = resource::parts(&args.resource, namespace)?;
    if name.is_some() {
        let key = resource::key(&args.resource, args.namespace.as_deref())?;
        let row = resource::demand(&session.client, &key).await?;
        let printer = session.printer;
        printer.show(&row.document, |printer| {
            text(printer, std::slice::from_ref(&row), time::now_ms())
        })?;
        return Ok(Exit::Done);
    }
    let path = with_query(
        "/v1/resources",
        &[
            ("kind", &kind),
            ("namespace", namespace.as_deref().unwrap_or_default()),
        ],
    );
    let rows: Vec<ResourceRow> = session.client.get(&path).await?;
    show(session, &rows)
}

fn show(session: &Session, rows: &[ResourceRow]) -> Result<Exit, Failure> {
    let documents: Vec<&Value> = rows.iter().map(|row| &row.document).collect();
    if session.printer.is_yaml() {
        // A stream of documents, so that it can be applied as it is.
        let texts: Vec<String> = documents
            .iter()
            .map(|document| yaml(document))
            .collect::<Result<_, _>>()?;
        crate::print::text(&texts.join("---\n"))?;
    } else {
        session
            .printer
            .show(&documents, |printer| text(printer, rows, time::now_ms()))?;
    }
    Ok(Exit::Done)
}

fn text(printer: Printer, rows: &[ResourceRow], now_ms: u64) -> String {
    let mut table = Table::new(&[
        "KIND",
        "NAMESPACE",
        "NAME",
        "REVISION",
        "AUTHOR",
        "CHANGED",
        "NOTE",
    ]);
    for row in rows {
        let key = row_key(row);
        let note = match (row.conflicts.len(), row.confirm_by_ms) {
            (0, 0) => String::new(),
            (0, by) => printer.paint(
                Paint::Warn,
                &format!("undone {} unless confirmed", time::until(by, now_ms)),
            ),
            (count, _) => printer.paint(Paint::Bad, &format!("in conflict with {count} more")),
        };
        table.row(vec![
            key.kind,
            key.namespace,
            key.name,
            row.revision.short(),
            row.author.clone(),
            format!("{} ago", time::age(row.changed_ms, now_ms)),
            note,
        ]);
    }
    table.render("no resources")
}
