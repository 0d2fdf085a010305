//! A `ZooKeeper` of one server, new or old, or of three.

use std::{fmt::Write as _, fs, net::IpAddr, path::Path, process::Command};

use super::{
    Plan, Started, authority, free_ports,
    member::{self, Kind},
};
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

/// What `ZooKeeper`'s own of a member is.
#[derive(Debug, Clone)]
pub struct ZooKeeper {
    /// Where the members of an ensemble speak with each other, twice.
    peers: Vec<[u16; 2]>,
    old: bool,
}

/// A server, before it is started.
pub type Member = member::Member<ZooKeeper>;

/// Starts a server that listens at `ip`; `old`: of the release that knows no watch of everything.
pub fn start(root: &Path, ip: IpAddr, setup: Setup, old: bool) -> Started {
    let mut member = Member::alone(ip, setup);
    member.own.old = old;
    member.start(root)
}

/// Starts three members of one registry.
pub fn three(root: &Path) -> [Started; 3] {
    let [a, b, c, peers @ ..] = free_ports::<9>();
    let own = ZooKeeper {
        peers: peers.as_chunks().0.to_vec(),
        old: false,
    };
    Member::three(root, [a, b, c], &own)
}

impl Kind for ZooKeeper {
    fn secure(home: &Path) {
        certificate(home);
    }

    fn plan(member: &Member, root: &Path, home: &Path) -> Plan {
        let classes = if member.own.old {
            format!("{}/old/*", root.display())
        } else {
            jars(root, &JARS)
        };
        let (member, home, admin) = (member.clone(), home.to_owned(), member.admin);
        Plan {
            name: format!("zookeeper {}", member.number),
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
}

impl Member {
    /// The only one, at `ip`; inside TLS too where the setup is so.
    pub fn alone(ip: IpAddr, setup: Setup) -> Self {
        let own = ZooKeeper {
            peers: Vec::new(),
            old: false,
        };
        Self::at(ip, free_ports(), setup, own)
    }

    fn settings(&self, state: &Path, home: &Path) -> String {
        let mut text = format!(
            "tickTime=500\ndataDir={}\nclientPort={}\nclientPortAddress={}\nmaxClientCnxns=0\n\
             minSessionTimeout=1000\nmaxSessionTimeout={}\nadmin.enableServer=false\n4lw.commands.whitelist=*\n",
            state.display(),
            self.admin.port(),
            self.admin.ip(),
            // Where members die, what is announced must not go meanwhile.
            if self.own.peers.is_empty() {
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
        if !self.own.peers.is_empty() {
            text.push_str("initLimit=40\nsyncLimit=20\n");
        }
        for (number, [data, election]) in self.own.peers.iter().enumerate() {
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
