//! `registry`: how discovery sources are, what they say, what two of them say differently.

use std::collections::BTreeMap;

use mesh_model::{
    admin::registry::{SourceRow, ViewEndpointRow, ViewRow},
    endpoint::Health,
};
use serde::Serialize;

use super::{Session, full_name};
use crate::{
    args::{RegistryDiff, RegistryDump},
    client::with_query,
    failure::{Exit, Failure},
    print::{Paint, Printer, Put as _, Table},
    time::{age, now_ms},
};

/// Shows each source of this host.
pub(crate) async fn status(session: &Session) -> Result<Exit, Failure> {
    let rows: Vec<SourceRow> = session.client.get("/v1/registry").await?;
    session
        .printer
        .show(&rows, |printer| statuses(printer, &rows))?;
    let well = |row: &SourceRow| matches!(row.state.as_str(), "synced" | "elsewhere");
    Ok(if rows.iter().all(well) {
        Exit::Done
    } else {
        Exit::Finding
    })
}

fn statuses(printer: Printer, rows: &[SourceRow]) -> String {
    let mut table = Table::new(&[
        "SOURCE",
        "STATE",
        "SINCE",
        "SERVICES",
        "ENDPOINTS",
        "HELD",
        "LAST SUCCESS",
        "LATENCY",
        "PLACE",
        "WATCHED",
        "CONNECTIONS",
        "WHY",
    ]);
    let now = now_ms();
    for row in rows {
        let state = match row.state.as_str() {
            "synced" | "elsewhere" => printer.paint(Paint::Good, &row.state),
            "connecting" => printer.paint(Paint::Warn, &row.state),
            _ => printer.paint(Paint::Bad, &row.state),
        };
        let success = if row.last_success_ms == 0 {
            "never".to_owned()
        } else {
            age(row.last_success_ms, now)
        };
        let weight = row
            .weight
            .map_or_else(String::new, |w| format!(" weight {w}"));
        table.row(vec![
            row.source.clone(),
            state,
            age(row.since_ms, now),
            row.services.to_string(),
            row.endpoints.to_string(),
            row.held.to_string(),
            success,
            format!("{} ms", row.latency_ms),
            format!("{}{weight}", row.precedence),
            watched(row),
            if row.connections == 0 {
                String::new()
            } else {
                row.connections.to_string()
            },
            row.why.clone(),
        ]);
    }
    table.render("no sources: write [[source]] in /etc/meshd/meshd.toml")
}

/// How many services have a question of their own, of how many.
fn watched(row: &SourceRow) -> String {
    match (row.watched, row.in_turn) {
        (0, 0) => String::new(),
        (all, 0) => all.to_string(),
        (watched, in_turn) => format!("{watched} of {}", watched + in_turn),
    }
}

async fn views(session: &Session, source: &str, service: &str) -> Result<Vec<ViewRow>, Failure> {
    let path = with_query(
        "/v1/registry/views",
        &[("source", source), ("service", service)],
    );
    session.client.get(&path).await
}

/// Shows what sources say.
pub(crate) async fn dump(session: &Session, args: &RegistryDump) -> Result<Exit, Failure> {
    let source = args.source.as_deref().unwrap_or_default();
    let service = args.service.as_deref().map(full_name).unwrap_or_default();
    let rows = views(session, source, &service).await?;
    session.printer.show(&rows, |_| {
        let mut table = Table::new(&[
            "SOURCE", "SERVICE", "PORT", "ADDRESS", "HEALTH", "WEIGHT", "PRIORITY", "LABELS", "ID",
            "READ BY",
        ]);
        for row in &rows {
            let port = if row.port == 0 {
                String::new()
            } else {
                format!("{}/{}", row.port, row.protocol)
            };
            let read_by = match row.host.as_str() {
                "" => "this host".to_owned(),
                other => other.to_owned(),
            };
            for one in &row.endpoints {
                let labels = one
                    .labels
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"));
                table.row(vec![
                    row.source.clone(),
                    row.service.clone(),
                    port.clone(),
                    one.address.clone(),
                    health(one),
                    one.weight.to_string(),
                    one.priority.to_string(),
                    labels.collect::<Vec<_>>().join(","),
                    one.id.clone(),
                    read_by.clone(),
                ]);
            }
            if row.endpoints.is_empty() {
                let mut cells = vec![row.source.clone(), row.service.clone(), port];
                cells.resize(9, String::new());
                cells.push(read_by);
                table.row(cells);
            }
        }
        table.render("nothing is known; `meshctl registry status` says how each source is")
    })?;
    Ok(Exit::Done)
}

/// What is checked nowhere is as usable as what is well: registries differ in what they check.
fn usable(one: &ViewEndpointRow) -> String {
    match one.health {
        Health::Unknown | Health::Healthy => "usable".to_owned(),
        Health::Degraded | Health::Draining | Health::Unhealthy => health(one),
    }
}

fn health(one: &ViewEndpointRow) -> String {
    format!("{:?}", one.health).to_lowercase()
}

/// What two sources say differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Difference {
    /// `-` only A, `+` only B, `~` both.
    change: &'static str,
    service: String,
    /// `port`, `protocol`, `service`, or the endpoint's address.
    subject: String,
    /// What A says; empty: nothing.
    a: String,
    /// What B says; empty: nothing.
    b: String,
}

/// Shows what two sources say differently.
pub(crate) async fn diff(session: &Session, args: &RegistryDiff) -> Result<Exit, Failure> {
    let service = full_name(&args.service);
    let a = views(session, &args.a, &service).await?;
    let b = views(session, &args.b, &service).await?;
    if a.is_empty() && b.is_empty() {
        return Err(Failure::new(
            Exit::Finding,
            "unknown-service",
            service,
            format!("neither {} nor {} knows it", args.a, args.b),
            "see `meshctl registry dump`",
        ));
    }
    let found = differences(&service, &a, &b);
    session.printer.show(&found, |printer| {
        let mut text = String::new();
        for one in &found {
            let line = match one.change {
                "-" => format!("- {} {}", one.subject, one.a),
                "+" => format!("+ {} {}", one.subject, one.b),
                _ => format!("~ {} {} | {}", one.subject, one.a, one.b),
            };
            let paint = match one.change {
                "-" => Paint::Bad,
                "+" => Paint::Good,
                _ => Paint::Warn,
            };
            writeln!(text, "{}", printer.paint(paint, line.trim_end()));
        }
        if found.is_empty() {
            let (a, b) = (&args.a, &args.b);
            writeln!(
                text,
                "{} {a} and {b} say the same of {service}",
                printer.mark("ok")
            );
        }
        text
    })?;
    Ok(if found.is_empty() {
        Exit::Done
    } else {
        Exit::Finding
    })
}

/// The facts of one source about one service, joined over ports and readers: by subject.
fn facts(rows: &[ViewRow]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if rows.is_empty() {
        return all;
    }
    all.insert(" service".to_owned(), "known".to_owned());
    let mut ports: Vec<String> = rows.iter().map(|row| row.port.to_string()).collect();
    let mut protocols: Vec<&str> = rows.iter().map(|row| row.protocol.as_str()).collect();
    ports.sort_unstable();
    ports.dedup();
    protocols.sort_unstable();
    protocols.dedup();
    all.insert(" port".to_owned(), ports.join(","));
    all.insert(" protocol".to_owned(), protocols.join(","));
    for one in rows.iter().flat_map(|row| &row.endpoints) {
        let text = format!(
            "{} weight {} priority {}",
            usable(one),
            one.weight,
            one.priority
        );
        all.entry(one.address.clone()).or_insert(text);
    }
    all
}

fn differences(service: &str, a: &[ViewRow], b: &[ViewRow]) -> Vec<Difference> {
    let (a, b) = (facts(a), facts(b));
    let mut subjects: Vec<&String> = a.keys().chain(b.keys()).collect();
    subjects.sort();
    subjects.dedup();
    let one = |subject: &String| {
        let (left, right) = (a.get(subject), b.get(subject));
        if left == right {
            return None;
        }
        Some(Difference {
            change: match (left, right) {
                (_, None) => "-",
                (None, _) => "+",
                _ => "~",
            },
            service: service.to_owned(),
            subject: subject.trim_start().to_owned(),
            a: left.cloned().unwrap_or_default(),
            b: right.cloned().unwrap_or_default(),
        })
    };
    subjects.into_iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(port: u16, endpoints: &[(&str, Health, u32)]) -> ViewRow {
        ViewRow {
            port,
            endpoints: endpoints
                .iter()
                .map(|(address, health, weight)| ViewEndpointRow {
                    id: format!("id of {address}"),
                    address: (*address).to_owned(),
                    health: *health,
                    weight: *weight,
                    ..ViewEndpointRow::default()
                })
                .collect(),
            ..ViewRow::default()
        }
    }

    #[test]
    fn what_differs_is_told() {
        let a = [view(
            80,
            &[("1:1", Health::Healthy, 1), ("1:2", Health::Healthy, 1)],
        )];
        let b = [
            view(80, &[("1:2", Health::Unhealthy, 1)]),
            view(80, &[("1:3", Health::Healthy, 4)]),
        ];
        let found = differences("default/web", &a, &b);
        let told: Vec<_> = found
            .iter()
            .map(|one| (one.change, one.subject.as_str()))
            .collect();
        assert_eq!(told, [("-", "1:1"), ("~", "1:2"), ("+", "1:3")]);
        assert_eq!(differences("default/web", &a, &a), []);
        let gone = differences("default/web", &a, &[]);
        assert_eq!((gone.len(), gone[2].subject.as_str()), (5, "service"));
        let port = differences("default/web", &[view(80, &[])], &[view(0, &[])]);
        assert_eq!((port[0].a.as_str(), port[0].b.as_str()), ("80", "0"));
    }
}
