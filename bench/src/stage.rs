//! The hosts, their backends and the rules between them.
//!
//! Two hosts with meshd (`client`, `server`), two without (`near`, `far`) for the other proxies, so that
//! nobody pays for another's rules; one on which nobody has rules, with meshd (capture off) and the other
//! proxies side by side; and one that has only backends. All are namespaces on one bridge.

use std::{fmt::Write as _, net::Ipv4Addr, path::PathBuf, process::Command};

use anyhow::Context;
use mesh_tests::{Child, Host, Mesh, host::Kind, need};

use crate::{
    contender::{Contender, Proxy, Way},
    order::Order,
    peer::{self, Peers, meshd, nginx, port},
    place::{LOAD_CPU, USUAL_BUFFERS, backend, listens, pinned, setting},
};

/// The bridge that a [`Mesh`] makes.
const BRIDGE: &str = "mesh-bridge";

/// Everything that runs.
pub(crate) struct Stage {
    /// Hosts with meshd: the client's, the server's, and the one without rules.
    pub(crate) mesh: Mesh,
    /// Host of the other proxies' client side.
    pub(crate) near: Host,
    /// Host of the other proxies' server side.
    pub(crate) far: Host,
    /// Host with backends only.
    pub(crate) back: Host,
    /// The other proxies.
    pub(crate) peers: Peers,
    /// Why a proxy is left out.
    pub(crate) absent: Vec<(Proxy, String)>,
}

impl Stage {
    /// Starts hosts, backends and every proxy that the order wants.
    pub(crate) fn set(order: &Order) -> anyhow::Result<Self> {
        anyhow::ensure!(
            need::private_namespaces(),
            "it runs inside scripts/private.sh only"
        );
        let kind = if need::real_root() {
            Kind::Users
        } else {
            Kind::OneUser
        };
        let mesh = Mesh::new(kind, 3)?;
        let place = mesh.directory.path().to_owned();
        let host = |name, number| Host::new(kind, name, number, &place, BRIDGE);
        let (near, far, back) = (host("near", 4)?, host("far", 5)?, host("back", 6)?);
        let mut stage = Self {
            mesh,
            near,
            far,
            back,
            peers: Peers::default(),
            absent: Vec::new(),
        };
        for host in [&mut stage.near, &mut stage.far, &mut stage.back] {
            prepare(host)?;
        }
        for host in &mut stage.mesh.hosts {
            prepare(host)?;
        }
        redirect(&stage.near, stage.back.v4)?;
        if order.wants(Proxy::Meshd.name()) {
            meshd::form(&mut stage.mesh, stage.back.v4)?;
        }
        let others = [Proxy::Envoy, Proxy::Haproxy, Proxy::Nginx];
        for proxy in others.into_iter().filter(|peer| order.wants(peer.name())) {
            if let Err(error) = stage.start(proxy) {
                stage.absent.push((proxy, format!("{error:#}")));
            }
        }
        Ok(stage)
    }

    /// Starts one of the other proxies afresh; one that runs is ended first.
    pub(crate) fn start(&mut self, proxy: Proxy) -> anyhow::Result<()> {
        let bare = self.mesh.hosts.get(meshd::BARE).context("no bare host")?;
        let hosts = peer::Hosts {
            near: &self.near,
            far: &self.far,
            bare,
        };
        self.peers.start(proxy, hosts, self.back.v4)
    }

    /// Starts a proxy afresh, ours or another, so that no memory of earlier runs counts.
    pub(crate) fn restart(&mut self, proxy: Proxy) -> anyhow::Result<()> {
        match proxy {
            Proxy::Direct => Ok(()),
            Proxy::Meshd => meshd::restart(&mut self.mesh),
            Proxy::Envoy | Proxy::Haproxy | Proxy::Nginx => self.start(proxy),
        }
    }

    /// The proxy on this way; none where it does not run or cannot do it.
    pub(crate) fn contender(&self, proxy: Proxy, way: Way) -> Option<Contender<'_>> {
        match proxy {
            Proxy::Direct => self.direct(way),
            Proxy::Meshd => meshd::contender(&self.mesh, way),
            Proxy::Envoy | Proxy::Haproxy | Proxy::Nginx => {
                let pids = self.peers.pids(proxy, way)?;
                let address = match way {
                    Way::Redirect | Way::Tcp | Way::TcpMtls => self.back.v4,
                    Way::Http1 | Way::Bare | Way::H2ToH1 | Way::H2ToH2 | Way::Grpc | Way::Hop => {
                        Ipv4Addr::LOCALHOST
                    }
                    Way::Inbound => self.far.v4,
                };
                let listener = match way {
                    // The second proxy has one listener for whoever comes in mTLS.
                    Way::Inbound => Way::Hop,
                    Way::Bare => Way::Http1,
                    way => way,
                };
                Some(Contender {
                    proxy,
                    host: self.host(way)?,
                    address: format!("{address}:{}", port(proxy, listener)),
                    authority: "bench",
                    pids,
                    client: (way == Way::Inbound).then(|| peer::client(&self.near)),
                })
            }
        }
    }

    /// Where the load of the other proxies runs.
    fn host(&self, way: Way) -> Option<&Host> {
        match way {
            Way::Bare => self.mesh.hosts.get(meshd::BARE),
            _ => Some(&self.near),
        }
    }

    fn direct(&self, way: Way) -> Option<Contender<'_>> {
        let (address, port) = match way {
            Way::Http1 | Way::Bare => (Ipv4Addr::LOCALHOST, backend::HTTP1),
            Way::H2ToH1 | Way::H2ToH2 => (Ipv4Addr::LOCALHOST, backend::HTTP2),
            Way::Grpc => (Ipv4Addr::LOCALHOST, backend::GRPC),
            Way::Redirect => (self.back.v4, backend::HTTP1),
            Way::Hop => (self.far.v4, backend::HTTP1),
            Way::Tcp => (self.back.v4, backend::TCP),
            Way::TcpMtls | Way::Inbound => return None,
        };
        Some(Contender {
            proxy: Proxy::Direct,
            host: self.host(way)?,
            address: format!("{address}:{port}"),
            authority: "bench",
            pids: Vec::new(),
            client: None,
        })
    }

    /// Sizes of TCP buffers (least, first, most) on the hosts of the clients.
    pub(crate) fn socket_buffers(&self, sizes: &str) -> anyhow::Result<()> {
        for host in self.mesh.hosts.iter().take(1).chain([&self.near]) {
            for key in ["ipv4/tcp_rmem", "ipv4/tcp_wmem"] {
                setting(host, key, sizes)?;
            }
        }
        Ok(())
    }

    /// A folder that the client's user may write to.
    pub(crate) fn scratch(&self) -> anyhow::Result<PathBuf> {
        let folder = self.mesh.directory.path().join("scratch");
        std::fs::create_dir_all(&folder)?;
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(&folder, open)?;
        Ok(folder)
    }
}

/// Network settings for many connections, and the backends.
fn prepare(host: &mut Host) -> anyhow::Result<()> {
    for (key, value) in [
        ("ipv4/ip_local_port_range", "12000 65000"),
        ("ipv4/tcp_tw_reuse", "1"),
        ("core/somaxconn", "16384"),
        ("ipv4/tcp_max_syn_backlog", "16384"),
        ("ipv4/tcp_rmem", USUAL_BUFFERS),
        ("ipv4/tcp_wmem", USUAL_BUFFERS),
    ] {
        setting(host, key, value)?;
    }
    // What Debian has, whatever this machine was told; or its like, where namespaces may not have that.
    let congestion = "ipv4/tcp_congestion_control";
    setting(host, congestion, "cubic").or_else(|_| setting(host, congestion, "reno"))?;
    let place = host.directory.join("backend");
    let mut command = pinned(host, LOAD_CPU, "nginx");
    nginx::backend(&place, &mut command)?;
    keep(host, "nginx", command)?;
    for (tool, port) in [("sink", backend::TCP), ("grpc", backend::GRPC)] {
        let mut command = pinned(host, LOAD_CPU, std::env::current_exe()?);
        command.args([tool, "address", &format!("0.0.0.0:{port}")]);
        keep(host, tool, command)?;
    }
    for port in [backend::HTTP1, backend::TCP, backend::GRPC] {
        listens(host, port)?;
    }
    Ok(())
}

fn keep(host: &mut Host, name: &str, mut command: Command) -> anyhow::Result<()> {
    let child = Child::start(name, &mut command, &host.log_path(name))?;
    host.keep(child);
    Ok(())
}

/// Calls of the other proxies' ports on the backend's host come to the proxies.
fn redirect(host: &Host, backend: Ipv4Addr) -> anyhow::Result<()> {
    let mut rules = String::new();
    for proxy in [Proxy::Envoy, Proxy::Haproxy, Proxy::Nginx] {
        for way in [Way::Redirect, Way::Tcp, Way::TcpMtls] {
            let port = port(proxy, way);
            writeln!(
                rules,
                "    ip daddr {backend} tcp dport {port} redirect to :{port}"
            )?;
        }
    }
    let text = format!(
        "table ip bench {{\n  chain output {{\n    type nat hook output priority -100;\n{rules}  }}\n}}\n"
    );
    let file = host.directory.join("redirect.nft");
    std::fs::write(&file, text)?;
    host.sh(&format!("nft -f {}", file.display()))
        .map(drop)
        .context("the redirect rules")
}
