//! A real DNS server whose addresses of one name change: a file of hosts that it reads again when told.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use mesh_model::{
    config::{DnsRecord, SourceKind},
    name::ServiceName,
};
use mesh_registry::contract::server::{Server, dnsmasq};

use super::{HERE, Kind, Standing, found, named};

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
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
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
    let started = dnsmasq::start(&found("dnsmasq")?, HERE);
    let record = DnsRecord {
        service: ServiceName::new("web-0")?,
        name: NAME.to_owned(),
        port: Some(PORT),
    };
    Ok(Standing {
        config: named(
            Kind::Dns,
            SourceKind::Dns {
                servers: vec![started.to],
                records: vec![record],
                udp: false,
            },
        ),
        admin: started.admin,
        writer: super::Writer::Dns(Writer {
            hosts: started.server.folder().join(dnsmasq::HOSTS),
            lines: Mutex::default(),
            server: started.server,
        }),
        services: Kind::Dns.services(),
        _servers: Vec::new(),
        _folder: None,
    })
}
