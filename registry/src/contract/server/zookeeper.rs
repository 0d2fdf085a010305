//! A `ZooKeeper` of one server, new or old, or of three.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use super::{Plan, Server, Started, authority, free_ports};
use crate::contract::Setup;
use client::Client;

/// A plain client for the far side.
pub mod client;

/// Archives of the server, and of every program that speaks with it.
const JARS: [&str; 14] = [
    "zookeeper",
    "zookeeper-jute",
    "slf4j-api",
    "slf4j-simple",
    "metrics-core",
    "snappy-java",
    "netty-common",
    "netty-buffer",
    "netty-codec",
    "netty-handler",
    "netty-resolver",
    "netty-transport",
    "netty-transport-native-unix-common",
    "netty-transport-native-epoll",
];

/// What a program with Curator needs besides.
const CURATOR: [&str; 7] = [
    "curator-client",
    "curator-framework",
    "curator-x-discovery",
    "jackson-annotations",
    "jackson-core",
    "jackson-databind",
    "guava",
];

fn jars(root: &Path, names: &[&str]) -> String {
    let one = |name: &&str| format!("{}/usr/share/java/{name}.jar", root.display());
    names.iter().map(one).collect::<Vec<_>>().join(":")
}

/// The class path of a program with Curator.
pub fn curator_jars(root: &Path) -> String {
    format!("{}:{}", jars(root, &CURATOR), jars(root, &JARS))
}

/// A server, before it is started.
#[derive(Debug, Clone)]
pub struct Member {
    admin: SocketAddr,
    /// Where it speaks TLS.
    secured: Option<SocketAddr>,
    /// Where the members of an ensemble speak with each other, twice, and which of them it is.
    peers: Vec<[u16; 2]>,
    number: usize,
    old: bool,
    durable: bool,
}

/// Starts a server that listens at `ip`; `old`: of the release that knows no watch of everything.
pub fn start(root: &Path, ip: IpAddr, setup: Setup, old: bool) -> Started {
    Member {
        old,
        ..Member::alone(ip, setup)
    }
    .start(root)
}

/// Starts three members of one registry.
pub fn three(root: &Path) -> [Started; 3] {
    let [a, b, c, peers @ ..] = free_ports::<9>();
    let peers = peers.as_chunks().0;
    let members = [(0, a), (1, b), (2, c)].map(|(number, port)| Member {
        admin: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        secured: None,
        peers: peers.to_vec(),
        number,
        old: false,
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
        let [web, tls] = free_ports();
        Self {
            admin: SocketAddr::new(ip, web),
            secured: (setup == Setup::Tls).then(|| SocketAddr::new(ip, tls)),
            peers: Vec::new(),
            number: 0,
            old: false,
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

    /// Starts it.
    pub fn start(&self, root: &Path) -> Started {
        let folder = super::folder();
        if self.secured.is_some() {
            certificate(folder.path());
        }
        Started {
            server: Server::start(self.plan(root, folder.path()), folder),
            admin: self.admin,
            to: self.secured.unwrap_or(self.admin),
        }
    }

    fn plan(&self, root: &Path, home: &Path) -> Plan {
        let classes = if self.old {
            format!("{}/old/*", root.display())
        } else {
            jars(root, &JARS)
        };
        let (member, home, admin) = (self.clone(), home.to_owned(), self.admin);
        Plan {
            name: format!("zookeeper {}", self.number),
            root: root.to_owned(),
            command: Box::new(move |state| {
                let file = home.join("zoo.cfg");
                super::sure(fs::write(&file, member.settings(state, &home)));
                super::sure(fs::write(state.join("myid"), member.number.to_string()));
                let mut command = Command::new("java");
                command.args(["-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
                if !member.durable {
                    command.arg("-Dzookeeper.forceSync=no");
                }
                command.args([
                    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                    "-Djava.net.preferIPv4Stack=true",
                    "-cp",
                    &classes,
                    "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                ]);
                command.arg(file);
                command
            }),
            ready: Box::new(move || Client::greet(admin, &[]).is_ok()),
            within: super::PATIENCE,
        }
    }

    fn settings(&self, state: &Path, home: &Path) -> String {
        let mut text = format!(
            "tickTime=500\ndataDir={}\nclientPort={}\nclientPortAddress={}\nmaxClientCnxns=0\n\
             minSessionTimeout=1000\nmaxSessionTimeout={}\nadmin.enableServer=false\n4lw.commands.whitelist=*\n",
            state.display(),
            self.admin.port(),
            self.admin.ip(),
            // Where members die, what is announced must not go meanwhile.
            if self.peers.is_empty() {
                60_000
            } else {
                120_000
            },
        );
        if let Some(at) = self.secured {
            let _infallible = write!(
                text,
                "secureClientPort={}\nsecureClientPortAddress={}\n\
                 serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
                 ssl.keyStore.location={2}/both.pem\nssl.trustStore.location={2}/ca.pem\nssl.clientAuth=none\n\
                 ssl.protocol=TLSv1.3\nssl.enabledProtocols=TLSv1.3\n\
                 ssl.ciphersuites=TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384\n",
                at.port(),
                at.ip(),
                home.display()
            );
        }
        if !self.peers.is_empty() {
            text.push_str("initLimit=40\nsyncLimit=20\n");
        }
        for (number, [data, election]) in self.peers.iter().enumerate() {
            let _infallible = writeln!(text, "server.{number}=127.0.0.1:{data}:{election}");
        }
        text
    }
}

/// A certificate of a fresh authority, with its key in one file as the server wants it.
pub fn certificate(folder: &Path) {
    super::sure(authority::write(folder));
    let read = |name: &str| super::sure(fs::read_to_string(folder.join(name)));
    let both = read("server.key") + &read("server.pem");
    super::sure(fs::write(folder.join("both.pem"), both));
}
