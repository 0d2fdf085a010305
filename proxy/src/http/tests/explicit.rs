//! The listener that programs name as their proxy, and the daemon's own.

use std::{rc::Rc, sync::Arc};

use bytes::BytesMut;
use mesh_model::service::AppProtocol;

use super::{Path, Stage, Talk, ok, soon};
use crate::{
    connection::{Destination, OutboundOrigin},
    http,
    io::Io,
    observe::edges::sample,
    trial::{eventually, pair, run},
};

async fn explicit(stage: &Stage, internal: bool) -> Talk {
    let (program, own) = pair().await;
    let mut caller = (*stage.world.caller()).clone();
    if internal {
        // The daemon's own connections are the host's.
        caller.label = "host".into();
    }
    let origin = OutboundOrigin {
        caller: Arc::new(caller),
        peer: program.local_addr().unwrap(),
        destination: Destination::Explicit,
        internal,
    };
    let worker = Rc::clone(&stage.a.worker);
    stage.a.worker.spawn(async move {
        let io = Io::Tcp(own);
        let served = http::serve_explicit(Rc::clone(&worker), io, BytesMut::new(), origin);
        if let Some(connected) = served.await {
            let http::Connected { io, first, origin } = connected;
            crate::outbound::serve(worker, io, first, origin).await;
        }
    });
    Talk::new(program)
}

async fn named(path: Path) -> Stage {
    let stage = Stage::new(path, AppProtocol::Http).await;
    let mut snapshot = stage.calling(AppProtocol::Http, [stage.endpoint(1, stage.address)]);
    let frontend = Arc::clone(snapshot.outbound.frontends.first().unwrap());
    for name in ["web", "web.shop", "web.shop.mesh.internal"] {
        let ports = [(80, Arc::clone(&frontend))].into_iter().collect();
        snapshot.outbound.by_host.insert(name.into(), ports);
    }
    snapshot
        .callers
        .by_service
        .insert(frontend.service.clone(), stage.world.caller());
    stage.a.publish(snapshot);
    stage
}

#[test]
fn by_host_and_by_absolute_form() {
    run(async {
        let stage = named(Path::Straight).await;
        stage.program(|heard| {
            assert_eq!(heard.field("proxy-authorization"), None);
            ok(&format!("{} {}", heard.first, heard.field("host").unwrap()))
        });
        let mut client = explicit(&stage, false).await;
        for (request, wanted) in [
            (
                "GET /a HTTP/1.1\r\nHost: web\r\nProxy-Authorization: x\r\n\r\n",
                "GET /a HTTP/1.1 web",
            ),
            (
                "GET /a HTTP/1.1\r\nHost: WEB.Shop.:80\r\n\r\n",
                "GET /a HTTP/1.1 WEB.Shop.:80",
            ),
            (
                "GET http://web.shop/b HTTP/1.1\r\nHost: x\r\n\r\n",
                "GET /b HTTP/1.1 web.shop",
            ),
            (
                "GET http://240.240.0.1/c HTTP/1.1\r\nHost: x\r\n\r\n",
                "GET /c HTTP/1.1 240.240.0.1",
            ),
        ] {
            assert_eq!(client.ask(request).await.text(), wanted);
        }
        for host in ["nobody", "web:81", "10.9.9.9"] {
            let heard = client
                .ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
                .await;
            assert_eq!(
                (heard.status(), heard.error().unwrap().0),
                (404, "unknown-host"),
                "{host}"
            );
        }
    });
}

#[test]
fn connect_makes_a_connection_to_the_service() {
    run(async {
        let stage = named(Path::Straight).await;
        stage.program(|heard| ok(&heard.first));
        let mut client = explicit(&stage, false).await;
        client
            .say("CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n")
            .await;
        assert_eq!(soon(client.head()).await.unwrap().status(), 200);
        for index in 0..3 {
            let heard = soon(client.get(&format!("/{index}"), "")).await;
            assert_eq!(heard.text(), format!("GET /{index} HTTP/1.1"));
        }
        let mut client = explicit(&stage, false).await;
        let heard = client
            .ask("CONNECT nobody:80 HTTP/1.1\r\nHost: nobody:80\r\n\r\n")
            .await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (404, "unknown-host")
        );
    });
}

#[test]
fn the_daemon_calls_as_a_service_and_is_told_how() {
    run(async {
        let stage = named(Path::Tunnel).await;
        stage.program(|heard| {
            assert_eq!(heard.field("mesh-as"), None);
            ok("hello")
        });
        let mut client = explicit(&stage, true).await;
        let heard = client.get("/", "mesh-as: shop/web\r\n").await;
        assert_eq!(heard.text(), "hello");
        assert!(
            heard
                .field("mesh-endpoint")
                .unwrap()
                .starts_with("endpoint-1 127.0.0.1:")
        );
        assert_eq!(
            heard.field("mesh-peer"),
            Some("spiffe://m.internal/ns/shop/sa/web")
        );
        assert!(heard.field("mesh-time-us").unwrap().parse::<u64>().unwrap() < 10_000_000);
        let sources = || sample(std::slice::from_ref(&stage.a.cells)).into_iter();
        eventually("it is counted as the service's", || {
            sources().map(|edge| edge.source).eq(["shop/cart"])
        })
        .await;
        let heard = client.get("/", "mesh-as: shop/stranger\r\n").await;
        assert_eq!(
            (heard.status(), heard.error().unwrap().0),
            (503, "no-identity")
        );
        // Nobody else is told.
        let mut client = explicit(&stage, false).await;
        assert_eq!(
            client
                .get("/", "mesh-as: shop/web\r\n")
                .await
                .field("mesh-endpoint"),
            None
        );
    });
}
