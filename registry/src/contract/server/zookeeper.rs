//! A `ZooKeeper` of one server, new or old.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
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

/// Starts a server that listens at `ip`; `old`: of the release that knows no watch of everything.
pub fn start(root: &Path, ip: IpAddr, setup: Setup, old: bool) -> Started {
    let folder = super::folder();
    let [web, tls] = free_ports();
    if setup == Setup::Tls {
        certificate(folder.path());
    }
    let classes = if old {
        format!("{}/old/*", root.display())
    } else {
        jars(root, &JARS)
    };
    let home = folder.path().to_owned();
    let admin = SocketAddr::new(ip, web);
    let secured = SocketAddr::new(ip, tls);
    let plan = Plan {
        name: "zookeeper".into(),
        root: root.to_owned(),
        command: Box::new(move |state| {
            let secured = (setup == Setup::Tls).then_some(secured);
            let file = home.join("zoo.cfg");
            super::sure(fs::write(&file, settings(state, &home, admin, secured)));
            let mut command = Command::new("java");
            command.args([
                "-Xmx192m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Dzookeeper.forceSync=no",
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
        within: Duration::from_secs(40),
    };
    Started {
        server: Server::start(plan, folder),
        admin,
        to: match setup {
            Setup::Tls => SocketAddr::new(ip, tls),
            _ => admin,
        },
    }
}

fn settings(state: &Path, home: &Path, admin: SocketAddr, secured: Option<SocketAddr>) -> String {
    let mut text = format!(
        "tickTime=500\ndataDir={}\nclientPort={}\nclientPortAddress={}\nmaxClientCnxns=0\n\
         minSessionTimeout=1000\nmaxSessionTimeout=60000\nadmin.enableServer=false\n4lw.commands.whitelist=*\n",
        state.display(),
        admin.port(),
        admin.ip(),
    );
    if let Some(at) = secured {
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
    text
}

/// A certificate of a fresh authority, with its key in one file as the server wants it.
pub fn certificate(folder: &Path) {
    super::sure(authority::write(folder));
    let read = |name: &str| super::sure(fs::read_to_string(folder.join(name)));
    let both = read("server.key") + &read("server.pem");
    super::sure(fs::write(folder.join("both.pem"), both));
}
