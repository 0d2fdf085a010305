//! One health check: asks again and again, and tells each change after enough answers of one kind.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use mesh_model::{
    config::{HealthCheck, HealthKind},
    endpoint::Health,
};
use tokio::net::TcpStream;

/// Asks for ever; `tell` hears of every state that has been confirmed.
pub(super) async fn run(address: IpAddr, check: &HealthCheck, tell: impl Fn(Health)) {
    let mut good = 0_u32;
    let mut bad = 0_u32;
    loop {
        let passed = tokio::time::timeout(check.timeout, ask(address, &check.kind))
            .await
            .unwrap_or(false);
        if passed {
            good = good.saturating_add(1);
            bad = 0;
        } else {
            bad = bad.saturating_add(1);
            good = 0;
        }
        if good >= check.healthy_after {
            tell(Health::Healthy);
        } else if bad >= check.unhealthy_after {
            tell(Health::Unhealthy);
        }
        tokio::time::sleep(jittered(check.interval)).await;
    }
}

async fn ask(address: IpAddr, kind: &HealthKind) -> bool {
    match kind {
        HealthKind::Tcp { port } => TcpStream::connect(SocketAddr::new(address, *port))
            .await
            .is_ok(),
        HealthKind::Http { port, path } => get(SocketAddr::new(address, *port), path)
            .await
            .is_some_and(|ok| ok),
    }
}

async fn get(address: SocketAddr, path: &str) -> Option<bool> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let request = hyper::Request::get(path)
        .header("host", address.to_string())
        .header("user-agent", "meshd-health")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let answer = async { sender.send_request(request).await.ok() };
    tokio::select! {
        biased;
        answer = answer => Some((200..400).contains(&answer?.status().as_u16())),
        _ = connection => None,
    }
}

/// A tenth up or down, so that the checks of many services do not fall into step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() * 0.2)
}
