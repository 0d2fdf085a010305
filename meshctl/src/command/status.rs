//! `status`, and meshctl alone: what the daemon is doing, what is wrong, what to try next.

use mesh_model::admin::{MeshStatus, Status};

use super::Session;
use crate::{
    failure::{Exit, Failure},
    print::{Paint, Printer, Put as _},
    time,
};

/// Shows the status.
pub(crate) async fn run(session: &Session) -> Result<Exit, Failure> {
    let status: Status = session.client.get("/v1/status").await?;
    session
        .printer
        .show(&status, |printer| text(printer, &status, time::now_ms()))?;
    Ok(Exit::Done)
}

fn text(printer: Printer, status: &Status, now_ms: u64) -> String {
    let phase = match status.phase.as_str() {
        good @ "running" => printer.paint(Paint::Good, good),
        other => printer.paint(Paint::Warn, other),
    };
    let mut out = format!(
        "meshd {}  {phase}, up {}, capture {}, plan {}\n",
        status.version,
        time::age(status.started_ms, now_ms),
        status.capture,
        status.generation
    );
    match &status.mesh {
        Some(mesh) => out.push_str(&mesh_text(mesh)),
        None => out.push_str("mesh   none: this host has not joined one\n"),
    }
    if !status.findings.is_empty() {
        out.push('\n');
        out.push_str(&printer.findings(&status.findings));
    }
    if !status.next.is_empty() {
        writeln!(out, "\n{}", printer.paint(Paint::Strong, "next"));
        let width = status
            .next
            .iter()
            .map(|(command, _)| command.chars().count())
            .max();
        for (command, purpose) in &status.next {
            writeln!(
                out,
                "  {command:width$}  {purpose}",
                width = width.unwrap_or(0)
            );
        }
    }
    out
}

fn mesh_text(mesh: &MeshStatus) -> String {
    let (hosts, alive) = mesh.hosts;
    let role = if mesh.authority { ", an authority" } else { "" };
    let strict = if mesh.strict { "strict" } else { "permissive" };
    format!(
        "mesh   {} ({strict}), trust domain {}, names *.{}\n\
         host   {} ({}){role}\n\
         state  {alive} of {hosts} hosts alive, {}, {}, {} of {hosts} hosts have them all\n",
        mesh.name,
        mesh.trust_domain,
        mesh.domain,
        mesh.host_name,
        mesh.host.chars().take(12).collect::<String>(),
        counted(mesh.services.try_into().unwrap_or(u64::MAX), "service"),
        counted(mesh.commits, "commit"),
        mesh.converged,
    )
}

fn counted(number: u64, what: &str) -> String {
    let many = if number == 1 { "" } else { "s" };
    format!("{number} {what}{many}")
}

#[cfg(test)]
mod tests {
    use mesh_model::finding::{Finding, Severity};

    use super::*;
    use crate::print::Format;

    #[test]
    fn idle_and_joined() {
        let mut status = Status {
            version: "0.1.0".into(),
            phase: "idle".into(),
            started_ms: 1_000,
            mesh: None,
            generation: 0,
            capture: "off".into(),
            findings: vec![Finding::new("x", Severity::Warning, "a", "b", "c")],
            next: vec![("meshctl init".into(), "make a mesh".into())],
        };
        let printer = Printer::plain(Format::Table);
        let idle = text(printer, &status, 61_000);
        assert!(
            idle.starts_with("meshd 0.1.0  idle, up 60s, capture off, plan 0\nmesh   none"),
            "{idle}"
        );
        assert!(idle.contains("‼ a: b; c (x)\n"), "{idle}");
        assert!(
            idle.ends_with("next\n  meshctl init  make a mesh\n"),
            "{idle}"
        );
        status.mesh = Some(MeshStatus {
            id: "00".into(),
            name: "m".into(),
            trust_domain: "m.internal".into(),
            domain: "mesh.internal".into(),
            host: "0123456789abcdef".into(),
            host_name: "a".into(),
            authority: true,
            strict: false,
            hosts: (3, 2),
            services: 4,
            commits: 5,
            fingerprint: String::new(),
            converged: 2,
        });
        let joined = text(printer, &status, 61_000);
        assert!(
            joined.contains("host   a (0123456789ab), an authority\n"),
            "{joined}"
        );
        assert!(
            joined.contains("2 of 3 hosts alive, 4 services, 5 commits, 2 of 3"),
            "{joined}"
        );
    }
}
