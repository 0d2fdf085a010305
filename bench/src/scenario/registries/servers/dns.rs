//! A real DNS server whose addresses of one name change: a file of hosts that it reads again when told.

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process::Command,
    sync::Mutex,
    time::Duration,
};

use mesh_model::{
    config::{DnsRecord, SourceKind},
    name::ServiceName,
};
use mesh_registry::contract::server::{Plan, Server, free_ports};

use super::{Kind, Standing, found, named};

/// The name that is followed.
const NAME: &str = "web.mesh.test";
/// The port of its instances, which no address tells.
const PORT: u16 = 80;

/// Writes addresses.
pub(super) struct Writer {
    hosts: PathBuf,
    lines: Mutex<String>,
    server: Server,
}

/// The address of one turn: another host each time.
pub(super) fn address(turn: u16) -> SocketAddr {
    let [high, low] = turn.to_be_bytes();
    SocketAddr::from(([10, 1, high, low], PORT))
}

impl Writer {
    /// One more address of the name.
    pub(super) fn write(&self, address: SocketAddr) -> anyhow::Result<()> {
        let mut lines = self
            .lines
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        writeln!(lines, "{} {NAME}", address.ip())?;
        let new = self.hosts.with_extension("new");
        fs::write(&new, &*lines)?;
        fs::rename(new, &self.hosts)?;
        self.server.hang_up();
        Ok(())
    }
}

/// Starts it; its answers live for one second.
pub(super) fn start() -> anyhow::Result<Standing> {
    let root = found("dnsmasq")?;
    let folder = tempfile::tempdir()?;
    let [port] = free_ports();
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "")?;
    let settings = folder.path().join("dnsmasq.conf");
    fs::write(
        &settings,
        format!(
            "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nlocal=/mesh.test/\n\
             local-ttl=1\ncache-size=0\nhost-record=ten.mesh.test,10.0.0.1,1\naddn-hosts={}\n",
            hosts.display()
        ),
    )?;
    let program = root.join("usr/sbin/dnsmasq");
    let plan = Plan {
        name: "dnsmasq".into(),
        root,
        command: Box::new(move |state| {
            let mut command = Command::new(&program);
            command.arg("--keep-in-foreground");
            command.arg(format!("--conf-file={}", settings.display()));
            command.arg(format!("--pid-file={}", state.join("pid").display()));
            command.args(["--user=", "--group="]);
            command
        }),
        ready: Box::new(move || answers(port).unwrap_or(false)),
        within: Duration::from_secs(10),
    };
    let admin = SocketAddr::from(([127, 0, 0, 1], port));
    let record = DnsRecord {
        service: ServiceName::new("web-0")?,
        name: NAME.to_owned(),
        port: Some(PORT),
    };
    Ok(Standing {
        config: named(
            Kind::Dns,
            SourceKind::Dns {
                servers: vec![admin],
                records: vec![record],
                udp: false,
            },
        ),
        admin,
        writer: super::Writer::Dns(Writer {
            hosts,
            lines: Mutex::default(),
            server: Server::start(plan, folder),
        }),
        services: Kind::Dns.services(),
        _servers: Vec::new(),
        _folder: None,
    })
}

/// True when it answers anything.
fn answers(port: u16) -> std::io::Result<bool> {
    let question = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03ten\x04mesh\x04test\0\0\x01\0\x01";
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.send_to(question, ("127.0.0.1", port))?;
    Ok(socket.recv(&mut [0; 512])? > 0)
}
