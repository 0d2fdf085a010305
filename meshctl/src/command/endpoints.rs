//! `endpoints`: the instances of services, and whether this host would use them.

use mesh_model::admin::EndpointRow;

use super::{Session, full_name};
use crate::{
    args::EndpointsArgs,
    client::with_query,
    failure::{Exit, Failure},
    print::{Paint, Table},
};

/// Shows the endpoints.
pub(crate) async fn run(session: &Session, args: &EndpointsArgs) -> Result<Exit, Failure> {
    let service = args.service.as_deref().map(full_name).unwrap_or_default();
    let path = with_query("/v1/endpoints", &[("service", &service)]);
    let rows: Vec<EndpointRow> = session.client.get(&path).await?;
    session.printer.show(&rows, |printer| {
        let mut table = Table::new(&[
            "SERVICE", "PORT", "ADDRESS", "HOST", "HEALTH", "SECURITY", "USED", "LABELS", "ID",
        ]);
        for row in &rows {
            let used = if row.usable {
                printer.paint(Paint::Good, "yes")
            } else {
                printer.paint(Paint::Bad, &format!("no: {}", row.reason))
            };
            let labels: Vec<String> = row
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            table.row(vec![
                row.service.clone(),
                row.port.to_string(),
                row.address.clone(),
                row.host.clone(),
                format!("{:?}", row.health).to_lowercase(),
                row.security.clone(),
                used,
                labels.join(","),
                row.id.clone(),
            ]);
        }
        table.render("no endpoints")
    })?;
    Ok(Exit::Done)
}
