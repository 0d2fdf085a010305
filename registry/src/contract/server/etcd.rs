//! An etcd of one member or three.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{Plan, Server, Started, authority, free_ports, http};
use crate::contract::Setup;

/// A member, before it is started.
#[derive(Debug, Clone)]
pub struct Member {
    admin: SocketAddr,
    /// Where it speaks TLS.
    secured: Option<SocketAddr>,
    /// Whose certificates its clients must have.
    clients: Option<PathBuf>,
    /// Where the members speak with each other, and which of them it is.
    peers: Vec<SocketAddr>,
    number: usize,
    durable: bool,
}

/// Starts a member that listens at `ip`. Users are the test's own work.
pub fn start(root: &Path, ip: IpAddr, setup: Setup) -> Started {
    Member::alone(ip, setup).start(root, super::folder())
}

/// Starts three members of one registry.
pub fn three(root: &Path) -> [Started; 3] {
    let [a, b, c, peers @ ..] = free_ports::<6>();
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let members = [(0, a), (1, b), (2, c)].map(|(number, port)| Member {
        admin: local(port),
        secured: None,
        clients: None,
        peers: peers.map(local).to_vec(),
        number,
        durable: false,
    });
    super::together(members.map(|member| {
        let folder = super::folder();
        (member.plan(root, folder.path()), folder, member.admin)
    }))
}

impl Member {
    /// The only one, at `ip`; inside TLS too where the setup is so.
    pub fn alone(ip: IpAddr, setup: Setup) -> Self {
        let [web, tls, peer] = free_ports();
        Self {
            admin: SocketAddr::new(ip, web),
            secured: (setup == Setup::Tls).then(|| SocketAddr::new(ip, tls)),
            clients: None,
            peers: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, peer))],
            number: 0,
            durable: false,
        }
    }

    /// It waits for its disk, as it does where nobody says otherwise; tests need no such thing.
    #[must_use]
    pub fn durable(self) -> Self {
        Self {
            durable: true,
            ..self
        }
    }

    /// Clients that come with TLS must have a certificate of the authority in this file.
    #[must_use]
    pub fn asking(self, authority: PathBuf) -> Self {
        Self {
            clients: Some(authority),
            ..self
        }
    }

    /// Starts it; what it needs for TLS is written into the folder.
    pub fn start(&self, root: &Path, folder: TempDir) -> Started {
        if self.secured.is_some() {
            super::sure(authority::write(folder.path()));
        }
        Started {
            server: Server::start(self.plan(root, folder.path()), folder),
            admin: self.admin,
            to: self.secured.unwrap_or(self.admin),
        }
    }

    fn plan(&self, root: &Path, home: &Path) -> Plan {
        let program = root.join("usr/bin/etcd");
        let (member, home, admin) = (self.clone(), home.to_owned(), self.admin);
        Plan {
            name: format!("etcd {}", self.number),
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

    fn arguments(&self, command: &mut Command, home: &Path, state: &Path) {
        let near = format!("http://{}", self.admin);
        let mut listen = near.clone();
        if let Some(secured) = self.secured {
            listen = format!("{near},https://{secured}");
            command.arg("--cert-file").arg(home.join("server.pem"));
            command.arg("--key-file").arg(home.join("server.key"));
        }
        if let Some(authority) = &self.clients {
            command.arg("--client-cert-auth");
            command.arg("--trusted-ca-file").arg(authority);
        }
        if !self.durable {
            command.arg("--unsafe-no-fsync");
        }
        let named = |(number, at): (usize, &SocketAddr)| format!("m{number}=http://{at}");
        let all: Vec<String> = self.peers.iter().enumerate().map(named).collect();
        let between = self.peers.get(self.number).copied().unwrap_or(self.admin);
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
