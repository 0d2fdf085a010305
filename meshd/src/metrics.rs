//! The metrics and health page on loopback: `/metrics` for Prometheus, `/healthz`, `/readyz`.

use std::{convert::Infallible, fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_model::{catalog::Liveness, finding::Severity};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{daemon::Daemon, running::Running};

/// Answers until stopped.
pub(crate) async fn serve(listener: TcpListener, daemon: Arc<Daemon>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let daemon_of_task = Arc::clone(&daemon);
        daemon.ground.tasks.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let daemon = Arc::clone(&daemon_of_task);
                async move { Ok::<_, Infallible>(page(&daemon, request.uri().path())) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            drop(tokio::time::timeout(Duration::from_mins(5), served).await);
        });
    }
}

/// Binds the page's socket.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

fn page(daemon: &Daemon, path: &str) -> Response<Full<Bytes>> {
    let (status, body) = match path {
        "/metrics" => (StatusCode::OK, metrics(daemon)),
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if daemon.phase() == "running" => (StatusCode::OK, "ready\n".to_owned()),
        "/readyz" => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", daemon.phase()),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "see /metrics, /healthz, /readyz\n".to_owned(),
        ),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("text/plain; version=0.0.4"),
    );
    answer
}

fn metrics(daemon: &Daemon) -> String {
    let mut out = String::with_capacity(16 << 10);
    gauge(
        &mut out,
        "mesh_daemon_started_seconds",
        "Start of the daemon, seconds since the epoch.",
        daemon.ground.host.started_ms / 1000,
    );
    if let Some(running) = daemon.running.load_full() {
        control_state(&mut out, &running);
        running.render_metrics(&mut out);
    }
    findings(&mut out, daemon);
    out
}

fn control_state(out: &mut String, running: &Running) {
    let catalog = running.cluster.catalog();
    let alive = |wanted: Liveness| {
        u64::try_from(
            catalog
                .hosts
                .values()
                .filter(|host| host.liveness == wanted)
                .count(),
        )
        .unwrap_or(u64::MAX)
    };
    header(out, "mesh_cluster_hosts", "gauge", "Hosts by liveness.");
    for (label, liveness) in [
        ("alive", Liveness::Alive),
        ("suspect", Liveness::Suspect),
        ("down", Liveness::Down),
        ("left", Liveness::Left),
        ("unknown", Liveness::Unknown),
    ] {
        line(
            out,
            "mesh_cluster_hosts",
            &format!("liveness=\"{label}\""),
            alive(liveness),
        );
    }
    gauge(
        out,
        "mesh_cluster_commits",
        "Commits known to this host.",
        catalog.commit_count,
    );
    let behind = catalog
        .hosts
        .values()
        .filter(|host| host.liveness == Liveness::Alive && host.commits != catalog.commits)
        .count();
    gauge(
        out,
        "mesh_cluster_hosts_behind",
        "Living hosts whose commits differ from this host's.",
        u64::try_from(behind).unwrap_or(u64::MAX),
    );
    let conflicts = catalog
        .resources
        .values()
        .filter(|resource| !resource.conflicts.is_empty())
        .count();
    gauge(
        out,
        "mesh_cluster_conflicts",
        "Resources with concurrent edits that are not merged.",
        u64::try_from(conflicts).unwrap_or(u64::MAX),
    );
    gauge(
        out,
        "mesh_snapshot_generation",
        "Generation of the snapshot that the proxy obeys.",
        running.reader.generation(),
    );
    if let Some((_, at)) = running.first_expiry() {
        gauge(
            out,
            "mesh_identity_first_expiry_seconds",
            "When the first certificate of this host expires, seconds since the epoch.",
            at / 1000,
        );
    }
}

fn findings(out: &mut String, daemon: &Daemon) {
    let all = crate::admin::findings(daemon);
    header(out, "mesh_findings", "gauge", "Problems by severity.");
    for (label, severity) in [
        ("note", Severity::Note),
        ("warning", Severity::Warning),
        ("error", Severity::Error),
    ] {
        let count = all
            .iter()
            .filter(|finding| finding.severity == severity)
            .count();
        line(
            out,
            "mesh_findings",
            &format!("severity=\"{label}\""),
            u64::try_from(count).unwrap_or(u64::MAX),
        );
    }
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").unwrap_or_default();
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    if labels.is_empty() {
        writeln!(out, "{name} {value}").unwrap_or_default();
    } else {
        writeln!(out, "{name}{{{labels}}} {value}").unwrap_or_default();
    }
}

fn gauge(out: &mut String, name: &str, help: &str, value: u64) {
    header(out, name, "gauge", help);
    line(out, name, "", value);
}
