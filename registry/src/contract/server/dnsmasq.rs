//! A dnsmasq: its records are its settings, which it reads when it starts, and a file of hosts, which it reads when told.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    time::Duration,
};

use super::{Plan, Server, Started, free_ports};

/// In its folder: addresses with their names, a line each, read at its start and when it is told ([`Server::hang_up`]).
pub const HOSTS: &str = "hosts";

/// A name that it always has.
const PROBE: &str = "probe.mesh.test";

/// Starts a server of `mesh.test` that listens at `ip`, with lives of a second.
pub fn start(root: &Path, ip: IpAddr) -> Started {
    let folder = super::folder();
    let [port] = free_ports();
    let at = SocketAddr::new(ip, port);
    let head = format!(
        "port={port}\nlisten-address={ip}\nbind-interfaces\nno-resolv\nno-hosts\nlocal=/mesh.test/\nlocal-ttl=1\n\
         cache-size=0\nhost-record={PROBE},10.0.0.1,1\naddn-hosts={}\n",
        folder.path().join(HOSTS).display()
    );
    super::sure(fs::write(folder.path().join(HOSTS), ""));
    super::sure(fs::write(folder.path().join("head"), &head));
    let config = folder.path().join("dnsmasq.conf");
    super::sure(fs::write(&config, head));
    let program = root.join("usr/sbin/dnsmasq");
    let plan = Plan {
        name: "dnsmasq".into(),
        root: root.to_owned(),
        command: Box::new(move |state| {
            let mut command = Command::new(&program);
            command.arg("--keep-in-foreground");
            command.arg(format!("--conf-file={}", config.display()));
            command.arg(format!("--pid-file={}", state.join("pid").display()));
            command.args(["--user=", "--group="]);
            command
        }),
        ready: Box::new(move || answers(at)),
        within: Duration::from_secs(10),
    };
    Started {
        server: Server::start(plan, folder),
        admin: at,
        to: at,
    }
}

/// Its records are these lines from its next start on.
pub fn write(server: &Server, lines: &str) {
    let head = super::sure(fs::read_to_string(server.folder().join("head")));
    let file = server.folder().join("dnsmasq.conf");
    super::sure(fs::write(file, head + lines));
}

/// True when it answers anything by UDP.
fn answers(at: SocketAddr) -> bool {
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in PROBE.split('.') {
        question.push(u8::try_from(label.len()).unwrap_or_default());
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let asked = || {
        let socket = UdpSocket::bind((at.ip(), 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        socket.send_to(&question, at)?;
        socket.recv(&mut [0; 512])
    };
    asked().is_ok()
}
