//! Calls of local programs: captured while the daemon lives, direct when it is dead, refused at once otherwise.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use mesh_intercept::{How, Intent, Interceptor, Removal, Virtual};
use nix::sys::socket::{setsockopt, sockopt};

use crate::place::{
    Place, again, dial, eventually, greeting, has_table, inside, intent, role, run, serve, sh,
};

const V4: &str = "240.240.1.2:80";
const V6: &str = "[fd6d:6573:6864::2]:80";

fn full() -> Intent {
    let ports = |one: &str| [format!("{one}:8080"), format!("{one}:8082")];
    let endpoints: Vec<SocketAddr> = ports("10.9.0.2")
        .iter()
        .chain(&ports("[fd00:9::2]"))
        .map(|text| text.parse().unwrap())
        .collect();
    let one = |address: &str, fail_closed| Virtual {
        address: address.parse().unwrap(),
        endpoints: endpoints.clone(),
        fail_closed,
    };
    Intent {
        virtuals: vec![one(V4, false), one(V6, false), one("240.240.1.3:80", true)],
        direct: vec![
            "10.9.0.2:8080".parse().unwrap(),
            "[fd00:9::2]:8080".parse().unwrap(),
        ],
        ..intent()
    }
}

fn servers(place: &Place) {
    serve("127.0.0.1:15001", "proxy");
    serve("[::1]:15001", "proxy");
    // It listens everywhere: calls to virtual addresses must never end here.
    serve("[::]:81", "bystander");
    for port in [8080, 8082] {
        let word: &'static str = if port == 8080 { "first" } else { "second" };
        place.far_server(&format!("[::]:{port}"), word);
    }
}

#[test]
fn calls_are_captured() {
    inside("outbound::calls_are_captured", |place| {
        servers(place);
        run(async {
            let mut interceptor = place.interceptor();
            assert_eq!(interceptor.apply(&full()).await.unwrap().how, How::Replaced);
            assert_eq!(dial(V4), "proxy 10.9.0.1", "virtual, IPv4");
            assert_eq!(dial(V6), "proxy fd00:9::1", "virtual, IPv6");
            assert_eq!(
                dial("240.240.1.3:80"),
                "proxy 10.9.0.1",
                "virtual, fail-closed"
            );
            assert_eq!(
                dial("10.9.0.2:8080"),
                "proxy 10.9.0.1",
                "known endpoint, IPv4"
            );
            assert_eq!(
                dial("[fd00:9::2]:8080"),
                "proxy fd00:9::1",
                "known endpoint, IPv6"
            );
            assert_eq!(
                dial("10.9.0.2:8082"),
                "second 10.9.0.1",
                "nobody's business"
            );
            assert_eq!(
                interceptor.apply(&full()).await.unwrap().how,
                How::Unchanged
            );
        });
    });
}

#[test]
fn the_unknown_is_refused_at_once() {
    inside("outbound::the_unknown_is_refused_at_once", |place| {
        servers(place);
        run(async {
            let mut interceptor = place.interceptor();
            interceptor.apply(&full()).await.unwrap();
            refused_at_once();
            interceptor.remove(Removal::Stop).await.unwrap();
            refused_at_once();
        });
    });
}

/// Some hosts keep loopback out of connection tracking: nothing is translated there, and nobody else answers.
#[test]
fn the_untracked_is_refused_at_once() {
    inside("outbound::the_untracked_is_refused_at_once", |place| {
        servers(place);
        serve("[::]:80", "bystander");
        sh("nft add table inet raw");
        sh("nft add chain inet raw output { type filter hook output priority raw; }");
        sh("nft add rule inet raw output oif lo notrack");
        run(async {
            let mut interceptor = place.interceptor();
            interceptor.apply(&full()).await.unwrap();
            for address in [V4, V6, "240.240.1.3:80"] {
                assert_eq!(dial(address), "refused", "{address}");
            }
            refused_at_once();
            assert!(dial("127.0.0.1:81").starts_with("bystander"));
        });
    });
}

fn refused_at_once() {
    for address in [
        "240.240.1.2:81",
        "240.240.9.9:81",
        "[fd6d:6573:6864::2]:81",
        "240.240.9.9:82",
    ] {
        let begin = Instant::now();
        assert_eq!(dial(address), "refused", "{address}");
        assert!(begin.elapsed() < Duration::from_millis(500), "{address}");
    }
    for (from, to) in [("0.0.0.0:0", V4), ("[::]:0", V6)] {
        let begin = Instant::now();
        let socket = UdpSocket::bind(from).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        socket.connect(to).unwrap();
        let sent = socket.send(b"x").and_then(|_| socket.recv(&mut [0; 8]));
        assert!(sent.is_err());
        assert!(
            begin.elapsed() < Duration::from_millis(500),
            "datagram to {to}"
        );
    }
}

#[test]
fn own_sockets_pass() {
    inside("outbound::own_sockets_pass", |place| {
        servers(place);
        run(async {
            let mut interceptor = place.interceptor();
            interceptor.apply(&full()).await.unwrap();
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            setsockopt(&socket, sockopt::Mark, &crate::place::MARK.value).unwrap();
            let stream = socket
                .connect("10.9.0.2:8080".parse().unwrap())
                .await
                .unwrap();
            let stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            assert_eq!(greeting(stream), "first 10.9.0.1");
        });
    });
}

#[test]
fn a_dead_daemon_leaves_calls_to_go_on_directly() {
    const NAME: &str = "outbound::a_dead_daemon_leaves_calls_to_go_on_directly";
    if let Some(directory) = role("daemon") {
        run(async {
            let settings = mesh_intercept::Settings::new(&directory, &directory);
            let mut interceptor = Interceptor::start(settings).unwrap();
            interceptor.apply(&full()).await.unwrap();
            std::future::pending::<()>().await;
        });
    }
    inside(NAME, |place| {
        servers(place);
        let mut daemon = again(NAME, "daemon", place.directory.path());
        eventually("the daemon captures", || {
            has_table("meshd") && dial(V4).starts_with("proxy")
        });
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        // With the cost of asking; the table itself is gone within 20 ms.
        let took = eventually("the owner table is gone", || !has_table("meshd"));
        assert!(took < Duration::from_millis(200), "{took:?}");
        for (address, from) in [(V4, "10.9.0.1"), (V6, "fd00:9::1")] {
            let mut answers = BTreeMap::new();
            for _ in 0..40 {
                *answers.entry(dial(address)).or_insert(0) += 1;
            }
            let expected = BTreeMap::from([
                (format!("first {from}"), 20),
                (format!("second {from}"), 20),
            ]);
            assert_eq!(answers, expected, "{address}");
        }
        assert_eq!(dial("240.240.1.3:80"), "refused", "fail-closed");
        assert_eq!(dial("10.9.0.2:8080"), "first 10.9.0.1", "known endpoint");
        refused_at_once();
        assert!(
            sh("ip rule").contains("7700"),
            "harmless without a table that sets the mark"
        );
        run(async {
            let mut interceptor = place.interceptor();
            interceptor.apply(&full()).await.unwrap();
            assert_eq!(dial(V4), "proxy 10.9.0.1", "the next daemon takes over");
        });
    });
}

#[test]
fn steps_lead_where_whole_tables_lead() {
    inside("outbound::steps_lead_where_whole_tables_lead", |place| {
        let listing = || {
            ["meshd", "meshd_fallback"].map(|table| sh(&format!("nft -nn list table inet {table}")))
        };
        let mut other = full();
        other.virtuals[0].endpoints.truncate(1);
        other.virtuals.remove(2);
        other.virtuals.push(Virtual {
            address: "240.240.7.7:443".parse().unwrap(),
            endpoints: vec!["10.9.0.2:8080".parse().unwrap()],
            fail_closed: false,
        });
        other.direct.clear();
        run(async {
            let mut interceptor = place.interceptor();
            interceptor.apply(&full()).await.unwrap();
            let begin = listing();
            assert_eq!(interceptor.apply(&other).await.unwrap().how, How::Changed);
            let by_step = sorted(&listing());
            assert_eq!(interceptor.apply(&full()).await.unwrap().how, How::Changed);
            assert_eq!(sorted(&listing()), sorted(&begin));
            interceptor.remove(Removal::Everything).await.unwrap();
            assert_eq!(interceptor.apply(&other).await.unwrap().how, How::Replaced);
            assert_eq!(sorted(&listing()), by_step);
        });
    });
}

/// Without the order of chains and of sets' elements, and without the indent of a list over several lines.
fn sorted(listing: &[String]) -> Vec<String> {
    let mut words: Vec<String> = listing
        .iter()
        .flat_map(|text| text.split(['\n', ',']))
        .map(|part| {
            part.replace(['{', '}'], " ")
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        })
        .map(|part| part.trim_start_matches("elements = ").to_owned())
        .filter(|part| !part.is_empty())
        .collect();
    words.sort();
    words
}

#[test]
fn a_large_mesh_fits() {
    inside("outbound::a_large_mesh_fits", |place| {
        serve("127.0.0.1:15001", "proxy");
        let service = |number: u16| {
            let [high, low] = number.to_be_bytes();
            Virtual {
                address: SocketAddr::from(([240, 240, high, low], 80)),
                endpoints: (2..5)
                    .map(|last| SocketAddr::from(([10, 9, 0, last], 8080)))
                    .collect(),
                fail_closed: false,
            }
        };
        let mut large = Intent {
            virtuals: (0..3000).map(service).collect(),
            ..intent()
        };
        run(async {
            let mut interceptor = place.interceptor();
            let begin = Instant::now();
            interceptor.apply(&large).await.unwrap();
            println!("3000 services: {:?}", begin.elapsed());
            assert_eq!(dial("240.240.11.183:80"), "proxy 10.9.0.1");
            large.virtuals.push(service(3000));
            let begin = Instant::now();
            assert_eq!(interceptor.apply(&large).await.unwrap().how, How::Changed);
            println!("one more: {:?}", begin.elapsed());
            assert_eq!(dial("240.240.11.184:80"), "proxy 10.9.0.1");
            let begin = Instant::now();
            assert_eq!(interceptor.reassert().await.unwrap(), []);
            println!("a look at all: {:?}", begin.elapsed());
        });
    });
}
