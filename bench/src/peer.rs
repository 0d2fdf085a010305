//! The programs under test, configured and started.

use std::{net::Ipv4Addr, path::Path};

use anyhow::Context;
use mesh_tests::{Child, Host};

use crate::{
    contender::{Proxy, TlsClient, Way},
    place::{self, PROXY_CPU},
};

/// Certificates for the other proxies' mTLS.
mod certificate;
/// Envoy.
mod envoy;
/// HAProxy.
mod haproxy;
/// Ours.
pub(crate) mod meshd;
/// nginx, as a proxy and as the backend.
pub(crate) mod nginx;

/// The port on which a proxy listens for a way; the same on both sides of a hop.
pub(crate) fn port(proxy: Proxy, way: Way) -> u16 {
    let first = match proxy {
        Proxy::Direct | Proxy::Meshd => 19_000,
        Proxy::Envoy => 7000,
        Proxy::Haproxy => 7100,
        Proxy::Nginx => 7200,
    };
    let place = Way::ALL.iter().position(|known| *known == way);
    first
        + place
            .and_then(|place| u16::try_from(place).ok())
            .unwrap_or_default()
}

/// Addresses that a configuration needs.
#[derive(Debug, Clone, Copy)]
struct Places<'s> {
    /// The other side of a hop.
    far: Ipv4Addr,
    /// The host with backends only.
    back: Ipv4Addr,
    /// Certificates: `ca.pem`, `leaf.pem` (chain), `key.pem`, `both.pem`.
    certificates: &'s Path,
}

/// Where the other proxies run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hosts<'s> {
    /// The client's side.
    pub(crate) near: &'s Host,
    /// The server's side.
    pub(crate) far: &'s Host,
    /// The client's side once more, where nobody has rules.
    pub(crate) bare: &'s Host,
}

/// A proxy's sides.
struct Running {
    proxy: Proxy,
    near: Child,
    far: Option<Child>,
    bare: Child,
}

/// The other proxies that run.
#[derive(Default)]
pub(crate) struct Peers {
    running: Vec<Running>,
}

impl Peers {
    /// Starts a proxy on its hosts; one that runs is ended first.
    pub(crate) fn start(
        &mut self,
        proxy: Proxy,
        Hosts { near, far, bare }: Hosts<'_>,
        back: Ipv4Addr,
    ) -> anyhow::Result<()> {
        self.running.retain(|known| known.proxy != proxy);
        let certificates = certificate::folder(&near.directory)?;
        let places = Places {
            far: far.v4,
            back,
            certificates: &certificates,
        };
        let client = |host| {
            let child = side(proxy, host, &places, true)?.context("no client side")?;
            place::listens(host, port(proxy, Way::Http1))
                .map_err(|error| error.context(format!("{}: {}", proxy.title(), child.log())))?;
            anyhow::Ok(child)
        };
        let (near_child, bare_child) = (client(near)?, client(bare)?);
        let far_child = side(proxy, far, &places, false)?;
        if let Some(child) = &far_child {
            place::listens(far, port(proxy, Way::Hop))
                .map_err(|error| error.context(format!("{}: {}", proxy.title(), child.log())))?;
        }
        self.running.push(Running {
            proxy,
            near: near_child,
            far: far_child,
            bare: bare_child,
        });
        Ok(())
    }

    /// The processes that work on a way; none where the proxy does not run or cannot do it.
    pub(crate) fn pids(&self, proxy: Proxy, way: Way) -> Option<Vec<i32>> {
        let running = self.running.iter().find(|known| known.proxy == proxy)?;
        match way {
            Way::Hop | Way::TcpMtls => Some(vec![running.near.pid(), running.far.as_ref()?.pid()]),
            Way::Inbound => Some(vec![running.far.as_ref()?.pid()]),
            Way::Bare => Some(vec![running.bare.pid()]),
            Way::H2ToH2 if proxy == Proxy::Nginx => None,
            Way::Http1 | Way::H2ToH1 | Way::H2ToH2 | Way::Grpc | Way::Redirect | Way::Tcp => {
                Some(vec![running.near.pid()])
            }
        }
    }
}

/// A client of the second proxies; the certificates are there once one of them was started.
pub(crate) fn client(near: &Host) -> TlsClient {
    TlsClient {
        pem: near.directory.join("certificates/both.pem"),
        name: "bench".to_owned(),
        alpn: "h2",
    }
}

/// One side of a proxy: its configuration written, the program started.
fn side(
    proxy: Proxy,
    host: &Host,
    places: &Places<'_>,
    near: bool,
) -> anyhow::Result<Option<Child>> {
    let folder = host.directory.join(proxy.name());
    let (program, arguments) = match proxy {
        Proxy::Envoy => ("envoy", envoy::arguments(&folder, places, near)?),
        Proxy::Haproxy => ("haproxy", haproxy::arguments(&folder, places, near)?),
        Proxy::Nginx if near => ("nginx", nginx::arguments(&folder, places)?),
        Proxy::Nginx | Proxy::Direct | Proxy::Meshd => return Ok(None),
    };
    let mut command = place::pinned(host, PROXY_CPU, program);
    command.args(arguments);
    let child = Child::start(proxy.name(), &mut command, &folder.join("log"))?;
    Ok(Some(child))
}
