//! `members`: the hosts of the mesh.

use mesh_model::{admin::Member, catalog::Liveness};

use super::Session;
use crate::{
    failure::{Exit, Failure},
    print::{Paint, Printer, Table},
    time,
};

/// Shows the hosts.
pub(crate) async fn run(session: &Session) -> Result<Exit, Failure> {
    let members: Vec<Member> = session.client.get("/v1/members").await?;
    session
        .printer
        .show(&members, |printer| text(printer, &members, time::now_ms()))?;
    Ok(Exit::Done)
}

fn text(printer: Printer, members: &[Member], now_ms: u64) -> String {
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "ROLE",
        "ADDRESSES",
        "ZONE",
        "SERVICES",
        "COMMITS",
        "LEASE",
        "VERSION",
        "ID",
    ]);
    for member in members {
        let paint = match member.liveness {
            Liveness::Alive => Paint::Good,
            Liveness::Unknown | Liveness::Suspect => Paint::Warn,
            Liveness::Down | Liveness::Left => Paint::Bad,
        };
        let state = format!("{:?}", member.liveness).to_lowercase();
        let name = if member.own {
            format!("{} (here)", member.name)
        } else {
            member.name.clone()
        };
        table.row(vec![
            name,
            printer.paint(paint, &state),
            if member.authority {
                "authority"
            } else {
                "host"
            }
            .to_owned(),
            member.addresses.join(","),
            member.zone.clone(),
            member.services.to_string(),
            member.commits.to_string(),
            time::until(member.lease_until_ms, now_ms),
            member.version.clone(),
            member.id.chars().take(12).collect(),
        ]);
    }
    table.render("no hosts: this one has not joined a mesh")
}
