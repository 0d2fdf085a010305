//! Calls from other hosts to registered ports: through the proxy, the client's address kept.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    process::{Command, Stdio},
    thread,
};

use mesh_intercept::{Inbound, Intent, Removal};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use crate::place::{INBOUND, MARK, dial, eventually, greeting, inside, intent, ip, run, serve};

fn registered(ports: &[(&str, bool)]) -> Intent {
    let inbound = ports
        .iter()
        .map(|&(address, strict)| Inbound {
            address: address.parse().unwrap(),
            strict,
        })
        .collect();
    Intent {
        inbound,
        ..intent()
    }
}

/// A proxy of one answer: dials where the client wanted to go, in the client's name, and says what it heard.
fn proxy() {
    let listener = socket(
        AddressFamily::Inet6,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )
    .unwrap();
    transparent(&listener);
    setsockopt(&listener, sockopt::ReuseAddr, &true).unwrap();
    let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), INBOUND);
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&listener),
        &SockaddrStorage::from(any),
    )
    .unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(64).unwrap()).unwrap();
    let listener = TcpListener::from(listener);
    thread::spawn(move || {
        while let Ok((mut client, peer)) = listener.accept() {
            let wanted = client.local_addr().unwrap();
            let heard = dial_as(peer.ip().to_canonical(), canonical(wanted));
            drop(write!(client, "proxied {heard}"));
        }
    });
}

fn dial_as(client: IpAddr, to: SocketAddr) -> String {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let dialler = socket(family, SockType::Stream, SockFlag::empty(), None).unwrap();
    transparent(&dialler);
    setsockopt(&dialler, sockopt::Mark, &MARK.value).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&dialler);
    bind(fd, &SockaddrStorage::from(SocketAddr::new(client, 0))).unwrap();
    connect(fd, &SockaddrStorage::from(to)).unwrap();
    greeting(TcpStream::from(dialler))
}

/// The flag is one for both families.
fn transparent(socket: &impl AsFd) {
    setsockopt(socket, sockopt::IpTransparent, &true).unwrap();
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[test]
fn the_program_sees_the_client() {
    inside("inbound::the_program_sees_the_client", |place| {
        proxy();
        serve("[::]:8081", "program");
        serve("[::]:8083", "other");
        run(async {
            let mut interceptor = place.interceptor();
            let intent = registered(&[("10.9.0.1:8081", false), ("[fd00:9::1]:8081", false)]);
            interceptor.apply(&intent).await.unwrap();
            assert_eq!(
                place.far(|| dial("10.9.0.1:8081")),
                "proxied program 10.9.0.2"
            );
            assert_eq!(
                place.far(|| dial("[fd00:9::1]:8081")),
                "proxied program fd00:9::2"
            );
            assert_eq!(
                place.far(|| dial("10.9.0.1:8083")),
                "other 10.9.0.2",
                "not registered"
            );
            assert_eq!(
                dial("10.9.0.1:8081"),
                "program 10.9.0.1",
                "from this host itself"
            );
            interceptor.remove(Removal::Stop).await.unwrap();
            assert_eq!(
                place.far(|| dial("10.9.0.1:8081")),
                "program 10.9.0.2",
                "after a stop"
            );
        });
    });
}

/// Hosts with `WireGuard` have `src_valid_mark`, careful ones a strict `rp_filter`.
#[test]
fn careful_hosts_are_served_too() {
    inside("inbound::careful_hosts_are_served_too", |place| {
        for name in ["all", "lo", "near"] {
            for setting in ["rp_filter", "src_valid_mark"] {
                fs::write(format!("/proc/sys/net/ipv4/conf/{name}/{setting}"), "1").unwrap();
            }
        }
        proxy();
        serve("[::]:8081", "program");
        run(async {
            let mut interceptor = place.interceptor();
            interceptor
                .apply(&registered(&[("10.9.0.1:8081", true)]))
                .await
                .unwrap();
            assert_eq!(
                place.far(|| dial("10.9.0.1:8081")),
                "proxied program 10.9.0.2"
            );
        });
    });
}

#[test]
fn strict_ports_are_for_the_proxy_only() {
    inside("inbound::strict_ports_are_for_the_proxy_only", |place| {
        serve("[::]:8081", "program");
        serve("[::]:8082", "program");
        run(async {
            let mut interceptor = place.interceptor();
            let strict = [
                ("10.9.0.1:8081", true),
                ("[fd00:9::1]:8081", true),
                ("10.9.0.1:8082", false),
            ];
            interceptor.apply(&registered(&strict)).await.unwrap();
            // The proxy does not listen.
            assert_eq!(place.far(|| dial("10.9.0.1:8081")), "refused");
            assert_eq!(place.far(|| dial("[fd00:9::1]:8081")), "refused");
            assert_eq!(place.far(|| dial("10.9.0.1:8082")), "program 10.9.0.2");
            proxy();
            assert_eq!(
                place.far(|| dial("10.9.0.1:8081")),
                "proxied program 10.9.0.2"
            );
            interceptor.remove(Removal::Stop).await.unwrap();
            assert_eq!(
                place.far(|| dial("10.9.0.1:8081")),
                "refused",
                "strict while no daemon runs"
            );
            assert_eq!(dial("10.9.0.1:8081"), "program 10.9.0.1", "this host may");
            interceptor.remove(Removal::Everything).await.unwrap();
            assert_eq!(
                place.far(|| dial("10.9.0.1:8081")),
                "program 10.9.0.2",
                "after leaving"
            );
        });
    });
}

#[test]
fn connections_from_before_live_on() {
    inside("inbound::connections_from_before_live_on", |place| {
        let listener = TcpListener::bind("10.9.0.1:8081").unwrap();
        let client = place.far(|| TcpStream::connect("10.9.0.1:8081").unwrap());
        let (mut server, _) = listener.accept().unwrap();
        run(async {
            let mut interceptor = place.interceptor();
            interceptor
                .apply(&registered(&[("10.9.0.1:8081", true)]))
                .await
                .unwrap();
            server.write_all(b"still here").unwrap();
            drop(server);
            assert_eq!(greeting(client), "still here");
        });
    });
}

#[test]
fn ports_of_sshd_are_left_alone() {
    inside("inbound::ports_of_sshd_are_left_alone", |place| {
        proxy();
        let sshd = place.directory.path().join("sshd");
        fs::copy("/usr/bin/python3", &sshd).unwrap();
        let program = "import socket,time\ns=socket.socket()\ns.bind(('0.0.0.0',2222))\ns.listen(9)\n\
                       while True:\n c,_=s.accept()\n c.sendall(b'SSH-2.0-x')\n c.close()\n";
        let mut child = Command::new(&sshd)
            .args(["-c", program])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        eventually("sshd listens", || dial("127.0.0.1:2222") == "SSH-2.0-x");
        serve("[::]:9001", "program");
        run(async {
            let mut interceptor = place.interceptor();
            let mut intent = registered(&[
                ("10.9.0.1:2222", true),
                ("10.9.0.1:22", true),
                ("10.9.0.1:9001", true),
            ]);
            intent.skip_ports = vec![9001];
            let applied = interceptor.apply(&intent).await.unwrap();
            let skipped: Vec<(u16, bool)> = applied
                .skipped
                .iter()
                .map(|one| (one.address.port(), one.ssh))
                .collect();
            assert_eq!(skipped, [(2222, true), (22, true), (9001, false)]);
            assert_eq!(applied.findings.len(), 3);
            assert_eq!(place.far(|| dial("10.9.0.1:2222")), "SSH-2.0-x");
            assert_eq!(place.far(|| dial("10.9.0.1:9001")), "program 10.9.0.2");
            assert_eq!(ip("10.9.0.1"), applied.skipped[0].address.ip());
        });
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn virtual_addresses_mean_nothing_to_other_hosts() {
    inside(
        "inbound::virtual_addresses_mean_nothing_to_other_hosts",
        |place| {
            serve("[::]:8081", "program");
            run(async {
                let mut interceptor = place.interceptor();
                interceptor.apply(&registered(&[])).await.unwrap();
                crate::place::sh("ip -n far route add 240.240.0.0/16 via 10.9.0.1");
                assert_eq!(
                    place.far(|| dial("240.240.1.2:8081")),
                    "connection timed out"
                );
            });
        },
    );
}
