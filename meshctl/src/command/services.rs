//! `services`: what the mesh offers.

use mesh_model::admin::ServiceRow;

use super::{Session, full_name};
use crate::{
    args::ServicesArgs,
    failure::{Exit, Failure},
    print::Table,
};

/// Shows the services.
pub(crate) async fn run(session: &Session, args: &ServicesArgs) -> Result<Exit, Failure> {
    let mut rows: Vec<ServiceRow> = session.client.get("/v1/services").await?;
    if let Some(service) = &args.service {
        let wanted = full_name(service);
        rows.retain(|row| row.service == wanted);
        if rows.is_empty() {
            return Err(unknown(&wanted));
        }
    }
    session.printer.show(&rows, |_| {
        let mut table = Table::new(&[
            "SERVICE",
            "PORTS",
            "ENDPOINTS",
            "ADDRESSES",
            "ROUTES",
            "FROM",
            "HERE",
        ]);
        for row in &rows {
            table.row(vec![
                row.service.clone(),
                row.ports.join(","),
                format!("{}/{}", row.endpoints.0, row.endpoints.1),
                row.virtual_addresses.join(","),
                row.routes.join(","),
                row.origins.join(","),
                if row.local { "yes" } else { "no" }.to_owned(),
            ]);
        }
        table.render("no services: describe one in /etc/meshd/services.d")
    })?;
    Ok(Exit::Done)
}

/// There is no such service.
pub(crate) fn unknown(service: &str) -> Failure {
    Failure::new(
        Exit::Finding,
        "unknown-service",
        service,
        "the mesh knows no such service",
        "see `meshctl services`",
    )
}
