//! A member of a registry before it is started: alone, or one of three.
//!
//! In: where it is, and what its kind knows of it. Out: a started server. What programs it runs with, and which
//! settings, is the kind's work.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use tempfile::TempDir;

use super::{Plan, Server, Started, sure};
use crate::contract::Setup;

/// What is different between the kinds of registries.
pub trait Kind: Clone + Send + 'static {
    /// Writes what it needs for TLS into the folder.
    fn secure(home: &Path);
    /// How it is started, and known to be ready.
    fn plan(member: &Member<Self>, root: &Path, home: &Path) -> Plan;
}

/// A member, before it is started.
#[derive(Debug, Clone)]
pub struct Member<K> {
    pub(super) admin: SocketAddr,
    /// Where it speaks TLS.
    pub(super) secured: Option<SocketAddr>,
    /// Which of the members it is.
    pub(super) number: usize,
    pub(super) durable: bool,
    /// What its kind knows of it.
    pub(super) own: K,
}

impl<K: Kind> Member<K> {
    /// The only one, at `ip` with these ports, in the clear and for TLS, where the setup is so.
    pub(super) fn at(ip: IpAddr, [admin, secured]: [u16; 2], setup: Setup, own: K) -> Self {
        Self {
            admin: SocketAddr::new(ip, admin),
            secured: (setup == Setup::Tls).then(|| SocketAddr::new(ip, secured)),
            number: 0,
            durable: false,
            own,
        }
    }

    /// Starts three members of one registry, which answer in the clear at these ports.
    pub(super) fn three(root: &Path, ports: [u16; 3], own: &K) -> [Started; 3] {
        let mut number = 0..;
        let members = ports.map(|port| Self {
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            secured: None,
            number: number.next().unwrap_or_default(),
            durable: false,
            own: own.clone(),
        });
        let plan = |member: &Self| {
            let folder = super::folder();
            (K::plan(member, root, folder.path()), folder)
        };
        let plans = members.iter().map(plan).collect();
        let mut servers = Server::start_all(plans).into_iter();
        members.map(|member| Started {
            server: sure(servers.next().ok_or("a member is missing")),
            admin: member.admin,
            to: member.admin,
        })
    }

    /// It waits for its disk, as it does where nobody says otherwise; tests need no such thing.
    #[must_use]
    pub fn durable(self) -> Self {
        Self {
            durable: true,
            ..self
        }
    }

    /// Starts it.
    pub fn start(&self, root: &Path) -> Started {
        self.start_in(root, super::folder())
    }

    /// Starts it in a folder of the caller.
    pub fn start_in(&self, root: &Path, folder: TempDir) -> Started {
        if self.secured.is_some() {
            K::secure(folder.path());
        }
        Started {
            server: Server::start(K::plan(self, root, folder.path()), folder),
            admin: self.admin,
            to: self.secured.unwrap_or(self.admin),
        }
    }
}
