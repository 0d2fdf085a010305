//! Ours: a real mesh of three hosts, one worker each; the services of every measurement.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use mesh_tests::{
    Host, Mesh,
    demo::CLIENT,
    need,
    process::{finished, sh},
    wait::within,
};

use crate::{
    contender::{Contender, Proxy, TlsClient, Way},
    place::{PROXY_CPU, backend, write},
};

/// The explicit listener of the client's host.
const EXPLICIT: &str = "127.0.0.1:4140";

/// The host whose daemon captures nothing.
pub(crate) const BARE: usize = 2;

/// The directory that the client's daemon reads as a source.
pub(crate) fn source(mesh: &Mesh) -> PathBuf {
    mesh.directory.path().join("source")
}

/// Configures and starts the daemons, makes the mesh, and waits until every way answers.
pub(crate) fn form(mesh: &mut Mesh, back: Ipv4Addr) -> anyhow::Result<()> {
    let source = source(mesh);
    write(&source, "plain.toml", &plain(back))?;
    for index in 0..mesh.hosts.len() {
        let host = mesh.host(index);
        let mut more = String::new();
        if index == 0 {
            write!(
                more,
                "[[source]]\nid = \"file/bench\"\nkind = \"file\"\ndirectory = \"{}\"\npublish = false\n\
                 [listeners]\nexplicit = \"{EXPLICIT}\"\n",
                source.display()
            )?;
        }
        if index == BARE {
            write!(
                more,
                "[capture]\nmode = \"off\"\n[listeners]\nexplicit = \"{EXPLICIT}\"\n"
            )?;
        }
        let text = host.default_config(&more);
        host.configure("meshd.toml", &text)?;
        host.configure("services.d/bench.toml", &services(index))?;
    }
    mesh.form(1, &[])?;
    pin(mesh)?;
    answers(mesh)
}

/// Ends and starts the daemons; they find what they knew on disk.
pub(crate) fn restart(mesh: &mut Mesh) -> anyhow::Result<()> {
    for host in &mut mesh.hosts {
        host.stop_meshd()?;
        host.start_meshd()?;
    }
    pin(mesh)?;
    mesh.wait_members(Duration::from_secs(20))?;
    answers(mesh)
}

/// Every thread of the daemons on the proxies' CPU.
fn pin(mesh: &Mesh) -> anyhow::Result<()> {
    for host in &mesh.hosts {
        let pid = host.meshd_pid().context("meshd does not run")?;
        sh(&format!("taskset -acp {PROXY_CPU} {pid}"))?;
    }
    Ok(())
}

fn answers(mesh: &Mesh) -> anyhow::Result<()> {
    let ask = |host: &Host, words: &[&str]| {
        within(Duration::from_secs(30), || {
            let mut command = host.command_as(CLIENT, "curl");
            command.args(["-sSf", "--max-time", "3", "-o", "/dev/null"]);
            finished(&words.join(" "), &command.args(words).output()?).map(drop)
        })
        .with_context(|| {
            format!(
                "meshd says: {}",
                mesh_tests::process::tail(&host.meshd_log(), 20)
            )
        })
    };
    for (index, name) in [(0, "echo"), (0, "hop"), (BARE, "bare")] {
        let host = mesh.hosts.get(index).context("no host")?;
        let header = format!("Host: {name}.mesh.internal");
        ask(host, &["-H", &header, &format!("http://{EXPLICIT}/")])?;
    }
    let client = mesh.hosts.first().context("no host")?;
    ask(client, &["http://redir.mesh.internal/"])
}

/// The daemon on this way.
pub(crate) fn contender(mesh: &Mesh, way: Way) -> Option<Contender<'_>> {
    let host = match way {
        Way::Bare => mesh.hosts.get(BARE)?,
        _ => mesh.hosts.first()?,
    };
    let mut pids = vec![host.meshd_pid()?];
    let server = mesh.hosts.get(1)?;
    match way {
        Way::Hop | Way::TcpMtls => pids.push(server.meshd_pid()?),
        Way::Inbound => pids = vec![server.meshd_pid()?],
        _ => {}
    }
    let authority = match way {
        Way::Http1 | Way::H2ToH1 => "echo.mesh.internal",
        Way::Bare => "bare.mesh.internal",
        Way::H2ToH2 => "echo2.mesh.internal",
        Way::Grpc => "calls.mesh.internal",
        Way::Redirect => "redir.mesh.internal",
        Way::Hop | Way::Inbound => "hop.mesh.internal",
        Way::Tcp => "plainbytes.mesh.internal",
        Way::TcpMtls => "bytes.mesh.internal",
    };
    let address = match way {
        Way::Http1 | Way::Bare | Way::H2ToH1 | Way::H2ToH2 | Way::Grpc | Way::Hop => {
            EXPLICIT.to_owned()
        }
        Way::Redirect => format!("{authority}:80"),
        Way::Tcp | Way::TcpMtls => format!("{authority}:{}", backend::TCP),
        Way::Inbound => format!("{}:15008", server.v4),
    };
    let client = if way == Way::Inbound {
        Some(TlsClient {
            pem: certificate(&host.directory.join("state"))?,
            name: "hop.default.demo.example".to_owned(),
            alpn: "mesh-h2/1",
        })
    } else {
        None
    };
    Some(Contender {
        proxy: Proxy::Meshd,
        host,
        address,
        authority,
        pids,
        client,
    })
}

/// The client's host's own certificate and key, somewhere in its state.
fn certificate(folder: &Path) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if path.is_dir() {
            if let Some(found) = certificate(&path) {
                return Some(found);
            }
        } else if name.starts_with("meshd-system.") && name.ends_with(".pem") {
            return Some(path);
        }
    }
    None
}

/// Programs of a host: on the client's the client and local backends, on the server's the others, on the one
/// without rules its own backend.
fn services(index: usize) -> String {
    let service = |name: &str, port: u16, target: u16, protocol: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\naddress = \"127.0.0.1\"\n\
             ports = [{{ name = \"main\", port = {port}, target = {target}, protocol = \"{protocol}\" }}]\n"
        )
    };
    if index == BARE {
        return service("bare", 80, backend::HTTP1, "http");
    }
    if index != 0 {
        return service("hop", 80, backend::HTTP1, "http")
            + &service("bytes", backend::TCP, backend::TCP, "tcp");
    }
    let mut text = service("echo", 80, backend::HTTP1, "http")
        + &service("echo2", 80, backend::HTTP2, "http2")
        + &service("calls", 80, backend::GRPC, "grpc");
    if need::real_root() {
        text.push_str("[[service]]\nname = \"client\"\nuser = ");
        text.push_str(&CLIENT.to_string());
        text.push('\n');
    }
    text
}

/// Services on a host that no daemon runs on.
fn plain(back: Ipv4Addr) -> String {
    format!(
        "[[service]]\nname = \"redir\"\nport = 80\nprotocol = \"http\"\nendpoint = [{{ address = \"{back}:{}\" }}]\n\
         [[service]]\nname = \"plainbytes\"\nport = {}\nprotocol = \"tcp\"\nendpoint = [{{ address = \"{back}:{}\" }}]\n",
        backend::HTTP1,
        backend::TCP,
        backend::TCP
    )
}
