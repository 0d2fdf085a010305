//! Rate limits of a port: requests, callers, hosts, connections.

use std::sync::Arc;

use mesh_model::{
    service::AppProtocol,
    snapshot::{
        RateLimit, RequestMatch,
        limit::{LimitBy, LimitFields},
        rule::PathMatch,
    },
};
use tokio::io::AsyncReadExt as _;

use super::{Path, Stage, http2, ok, soon};
use crate::trial::{limit, run};

async fn limited(limits: impl IntoIterator<Item = RateLimit>) -> Stage {
    let limits = limits.into_iter().collect();
    let stage = Stage::with(Path::Tunnel, AppProtocol::Http, |port| port.limits = limits).await;
    stage.program(|heard| ok(&heard.first));
    stage
}

#[test]
fn requests_beyond_the_rate_are_refused() {
    run(async {
        let stage = limited([limit(1, 3)]).await;
        let mut client = stage.dial().await;
        for _ in 0..3 {
            assert_eq!(client.get("/", "").await.status(), 200);
        }
        let heard = client.get("/", "").await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (429, "rate-limited")
        );
        assert!(heard.field("mesh-error").unwrap().contains("host=b;"));
        let after: u64 = heard.field("retry-after").unwrap().parse().unwrap();
        assert!((7190..=7200).contains(&after), "{after}");
        let b = stage.b.as_ref().unwrap();
        let id = heard.error().unwrap().1.to_owned();
        let told = ("rate-limited".to_owned(), id);
        assert_eq!(stage.a.failures().last(), Some(&told));
        assert_eq!(b.failures().last(), Some(&told));
        assert_eq!(b.cells.policies.limited.get(), 1);
        let ring = b.cells.failures.lock().unwrap();
        let what = ring.all().next_back().unwrap().what;
        assert!(what.contains("shop/limit allows 1 in 7200s"), "{what}");
    });
}

#[test]
fn by_header_and_path() {
    run(async {
        let by_user = RateLimit {
            by: Arc::from([LimitBy::Header("x-user".into())]),
            matches: vec![RequestMatch {
                path: PathMatch::Prefix("/api".into()),
                ..RequestMatch::default()
            }],
            ..limit(1, 2)
        };
        let stage = limited([by_user]).await;
        let mut client = stage.dial().await;
        let mut seen = Vec::new();
        for (path, user) in [
            ("/api/1", "ann"),
            ("/api/2", "ann"),
            ("/api/3", "ann"),
            ("/other", "ann"),
            ("/api/4", "bob"),
        ] {
            let line = format!("X-User: {user}\r\n");
            seen.push(client.get(path, &line).await.status());
        }
        assert_eq!(seen, [200, 200, 429, 200, 200]);
    });
}

/// gRPC callers hear `RESOURCE_EXHAUSTED`, and when to come again.
#[test]
fn in_the_words_of_grpc() {
    run(async {
        let nothing = RateLimit {
            requests: 0,
            ..limit(1, 1)
        };
        let stage = Stage::with(Path::Tunnel, AppProtocol::Grpc, |port| {
            port.limits = Arc::from([nothing]);
        })
        .await;
        let mut send = http2::client(&stage).await;
        let answer = send.send_request(http2::grpc(), true).unwrap().0;
        let answer = soon(answer).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "8");
        assert_eq!(answer.headers()["grpc-retry-pushback-ms"], "7200000");
        let error = answer.headers()["mesh-error"].to_str().unwrap();
        assert!(error.starts_with("rate-limited; host=b; id="), "{error}");
    });
}

/// A caller on the program's own host passes no tunnel, and is limited all the same.
#[test]
fn callers_on_the_same_host_count_too() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|_| ok("x"));
        let mut endpoint = stage.endpoint(1, stage.address);
        endpoint.local = true;
        let mut snapshot = stage.calling(AppProtocol::Http, [endpoint]);
        let mut port = stage.world.port(stage.address, AppProtocol::Http);
        port.limits = Arc::from([RateLimit {
            by: Arc::from([LimitBy::Source]),
            ..limit(1, 2)
        }]);
        let inbound = &mut snapshot.inbound.by_address;
        inbound.insert(stage.address, Arc::new(port));
        stage.a.publish(snapshot);
        let mut client = stage.dial().await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(client.get("/", "").await.status());
        }
        assert_eq!(seen, [200, 200, 429]);
    });
}

/// An opaque connection counts as one request where a limit asks nothing of requests.
#[test]
fn connections_count() {
    run(async {
        let opaque = limit(1, 2);
        let stage = Stage::with(Path::Tunnel, AppProtocol::Tcp, |port| {
            port.limits = Arc::from([opaque]);
        })
        .await;
        let listener = std::rc::Rc::clone(&stage.listener);
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::task::spawn_local(async move {
                    let (mut read, mut write) = stream.split();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                });
            }
        });
        let mut carried = Vec::new();
        for _ in 0..4 {
            let mut client = stage.dial().await;
            client.say("\x00hello").await;
            let mut back = [0u8; 6];
            carried.push(soon(client.stream.read_exact(&mut back)).await.is_ok());
        }
        assert_eq!(carried, [true, true, false, false]);
        let b = stage.b.as_ref().unwrap();
        assert_eq!(b.cells.policies.limited.get(), 2);
        assert_eq!(b.failures().last().unwrap().0, "rate-limited");
        assert_eq!(stage.a.failures().last().unwrap().0, "rate-limited");
        assert!(stage.a.shared.ejected().is_empty(), "nobody's fault");
    });
}

/// A peer that sends requests as an opaque stream cannot get around what counts requests.
#[test]
fn requests_in_a_stream_count() {
    run(async {
        let stage = Stage::with(Path::Tunnel, AppProtocol::Detect, |port| {
            port.limits = Arc::from([limit(1, 2)]);
        })
        .await;
        stage.program(|_| ok("x"));
        let endpoint = stage.endpoint(1, stage.address);
        let opaque = stage.calling(AppProtocol::Tcp, [endpoint]);
        stage.a.publish(opaque);
        let mut client = stage.dial().await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(soon(client.get("/", "")).await.status());
        }
        assert_eq!(seen, [200, 200, 429]);
    });
}

/// Answers tell where the caller stands, those of the mesh too, in the words that the limit asks for.
#[test]
fn answers_tell_of_limits() {
    run(async {
        let standard = RateLimit {
            name: "shop/a".into(),
            fields: LimitFields::RateLimit,
            ..limit(1, 3)
        };
        let envoy = RateLimit {
            name: "shop/b".into(),
            fields: LimitFields::XRateLimit,
            ..limit(2, 5)
        };
        let stage = limited([standard, envoy, limit(3, 100)]).await;
        let mut client = stage.dial().await;
        let heard = client.get("/", "").await;
        let field = |name| heard.field(name).unwrap().to_owned();
        assert_eq!(field("ratelimit-policy"), r#""shop/a";q=1;w=7200"#);
        assert_eq!(field("ratelimit"), r#""shop/a";r=2;t=7200"#);
        assert_eq!(field("x-ratelimit-limit"), r#"1, 1;w=7200;name="shop/b""#);
        assert_eq!(field("x-ratelimit-remaining"), "4");
        assert_eq!(field("x-ratelimit-reset"), "7200");
        for _ in 0..2 {
            assert_eq!(client.get("/", "").await.status(), 200);
        }
        let heard = client.get("/", "").await;
        assert_eq!(heard.status(), 429);
        let told = heard.field("ratelimit").unwrap();
        let whole: u64 = told
            .strip_prefix("\"shop/a\";r=0;t=")
            .unwrap()
            .parse()
            .unwrap();
        assert!((21_590..=21_600).contains(&whole), "{told}");
        let after: u64 = heard.field("retry-after").unwrap().parse().unwrap();
        assert!(after <= whole);
        assert_eq!(heard.field("x-ratelimit-limit"), None);
    });
}

/// What a program says of limits of its own stays.
#[test]
fn the_words_of_programs_stay() {
    run(async {
        let both = [(1, LimitFields::RateLimit), (2, LimitFields::XRateLimit)];
        let limits = both.map(|(key, fields)| RateLimit {
            fields,
            ..limit(key, 9)
        });
        let limits = limits.into_iter().collect();
        let stage = Stage::with(Path::Tunnel, AppProtocol::Http, |port| port.limits = limits).await;
        stage.program(|_| {
            let own = "RateLimit: \"own\";r=1\r\nX-RateLimit-Remaining: 1\r\n";
            format!("HTTP/1.1 200 OK\r\n{own}Content-Length: 0\r\n\r\n")
        });
        let heard = stage.dial().await.get("/", "").await;
        let all = |name: &str| {
            let named = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
            let found = heard.fields.iter().filter(named);
            found.map(|field| field.1.clone()).collect::<Vec<_>>()
        };
        assert_eq!(all("x-ratelimit-remaining"), ["1"]);
        let told = all("ratelimit");
        assert_eq!(told[0], "\"own\";r=1");
        assert!(told[1].starts_with("\"shop/limit\";r=8;"), "{told:?}");
    });
}
