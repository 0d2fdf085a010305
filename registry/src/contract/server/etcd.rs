//! An etcd of one member or three.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Plan, Started, authority, free_ports, http,
    member::{self, Kind},
};
use crate::contract::Setup;

/// What etcd's own of a member is.
#[derive(Debug, Clone)]
pub struct Etcd {
    /// Whose certificates its clients must have.
    clients: Option<PathBuf>,
    /// Where the members speak with each other.
    peers: Vec<SocketAddr>,
}

/// A member, before it is started.
pub type Member = member::Member<Etcd>;

/// Starts a member that listens at `ip`. Users are the test's own work.
pub fn start(root: &Path, ip: IpAddr, setup: Setup) -> Started {
    Member::alone(ip, setup).start(root)
}

/// Starts three members of one registry.
pub fn three(root: &Path) -> [Started; 3] {
    let [a, b, c, peers @ ..] = free_ports::<6>();
    Member::three(root, [a, b, c], &Etcd::with(&peers))
}

impl Etcd {
    fn with(peers: &[u16]) -> Self {
        let local = |port: &u16| SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        Self {
            clients: None,
            peers: peers.iter().map(local).collect(),
        }
    }
}

impl Kind for Etcd {
    fn secure(home: &Path) {
        super::sure(authority::write(home));
    }

    fn plan(member: &Member, root: &Path, home: &Path) -> Plan {
        let program = root.join("usr/bin/etcd");
        let (member, home, admin) = (member.clone(), home.to_owned(), member.admin);
        Plan {
            name: format!("etcd {}", member.number),
            root: root.to_owned(),
            command: Box::new(move |state| {
                let mut command = Command::new(&program);
                member.arguments(&mut command, &home, state);
                command
            }),
            ready: Box::new(move || {
                http(admin, "GET", "/health", &[], "")
                    .is_ok_and(|(status, body)| status == 200 && body.contains("true"))
            }),
            within: super::PATIENCE,
        }
    }
}

impl Member {
    /// The only one, at `ip`; inside TLS too where the setup is so.
    pub fn alone(ip: IpAddr, setup: Setup) -> Self {
        let [web, tls, peer] = free_ports();
        Self::at(ip, [web, tls], setup, Etcd::with(&[peer]))
    }

    /// Clients that come with TLS must have a certificate of the authority in this file.
    #[must_use]
    pub fn asking(mut self, authority: PathBuf) -> Self {
        self.own.clients = Some(authority);
        self
    }

    fn arguments(&self, command: &mut Command, home: &Path, state: &Path) {
        let near = format!("http://{}", self.admin);
        let mut listen = near.clone();
        if let Some(secured) = self.secured {
            listen = format!("{near},https://{secured}");
            command.arg("--cert-file").arg(home.join("server.pem"));
            command.arg("--key-file").arg(home.join("server.key"));
        }
        if let Some(authority) = &self.own.clients {
            command.arg("--client-cert-auth");
            command.arg("--trusted-ca-file").arg(authority);
        }
        if !self.durable {
            command.arg("--unsafe-no-fsync");
        }
        let named = |(number, at): (usize, &SocketAddr)| format!("m{number}=http://{at}");
        let all: Vec<String> = self.own.peers.iter().enumerate().map(named).collect();
        let between = self
            .own
            .peers
            .get(self.number)
            .copied()
            .unwrap_or(self.admin);
        let between = format!("http://{between}");
        command.arg("--data-dir").arg(state.join("etcd"));
        for (key, value) in [
            ("--name", &format!("m{}", self.number)),
            ("--log-level", &"warn".to_owned()),
            ("--listen-client-urls", &listen),
            ("--advertise-client-urls", &near),
            ("--listen-peer-urls", &between),
            ("--initial-advertise-peer-urls", &between),
            ("--initial-cluster", &all.join(",")),
        ] {
            command.args([key, value]);
        }
    }
}
