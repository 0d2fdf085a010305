//! Who may call whom: policies, revocation, foreign peers.

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use bytes::Bytes;
    use mesh_identity::tls as configurations;
    use mesh_model::{
        endpoint::TunnelKind,
        principal::SpiffeId,
        service::AppProtocol,
        snapshot::{Authorization, AuthorizationRule, BackendEndpoint, cell},
    };
    use rustls_pki_types::ServerName;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };
    use tokio_rustls::TlsConnector;

    use crate::trial::{A, Host, World, eventually, limit, listener, nowhere, plain, run};

    fn only(principal: &str) -> Authorization {
        let rule = AuthorizationRule {
            policy: "shop/web".into(),
            principals: vec![principal.into()],
            ..AuthorizationRule::default()
        };
        Authorization {
            deny: Vec::new(),
            allow: vec![rule],
            allow_only: true,
        }
    }

    #[test]
    fn policies_decide() {
        run(async {
            let world = World::new();
            let program = listener().await;
            let address = program.local_addr().unwrap();
            let mut port = world.port(address, AppProtocol::Tcp);
            port.authorization = only("m.internal/ns/shop/sa/other");
            let (a, b) = (world.caller_host(), world.serving_host(port.clone()));
            a.publish(world.calling(AppProtocol::Tcp, [world.meshed(1, address, b.tunnel)]));
            let mut refused = world.dial(&a).await;
            assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)));
            let (told_a, told_b) = (a.failures(), b.failures());
            assert_eq!(told_a.len(), 1, "a refusal is not tried again: {told_a:?}");
            assert_eq!(told_a, told_b, "both hosts, the same code and id");
            assert_eq!(told_a[0].0, "denied");
            assert!(
                a.shared.ejected().is_empty(),
                "a policy is no fault of the endpoint"
            );

            port.authorization = only("m.internal/ns/shop/sa/cart");
            b.publish(world.serving(port));
            let mut allowed = world.dial(&a).await;
            let (mut service, _) = program.accept().await.unwrap();
            service.write_all(b"x").await.unwrap();
            assert_eq!(allowed.read_u8().await.unwrap(), b'x');
        });
    }

    /// What a policy refuses by path is not let through as bytes that are no readable request.
    #[test]
    fn policies_by_path_hold_for_bytes() {
        run(async {
            for local in [false, true] {
                let world = World::new();
                let program = listener().await;
                let address = program.local_addr().unwrap();
                let mut port = world.port(address, AppProtocol::Detect);
                port.authorization.deny = vec![AuthorizationRule {
                    policy: "shop/admin".into(),
                    paths: vec!["/admin*".into()],
                    ..AuthorizationRule::default()
                }];
                let (a, b) = (world.caller_host(), world.serving_host(port.clone()));
                if local {
                    let mut endpoint = plain(1, address);
                    endpoint.local = true;
                    let mut snapshot = world.calling(AppProtocol::Detect, [endpoint]);
                    snapshot.inbound.by_address.insert(address, Arc::new(port));
                    a.publish(snapshot);
                } else {
                    let endpoint = world.meshed(1, address, b.tunnel);
                    a.publish(world.calling(AppProtocol::Detect, [endpoint]));
                }
                for path in ["/admin", "/"] {
                    let mut caller = world.dial(&a).await;
                    // Many servers skip the empty line.
                    let ask = format!("\r\nGET {path} HTTP/1.1\r\nHost: web\r\n\r\n");
                    caller.write_all(ask.as_bytes()).await.unwrap();
                    let read = caller.read(&mut [0]).await;
                    assert!(matches!(read, Ok(0) | Err(_)), "{path} {local}");
                    let told = if local { a.failures() } else { b.failures() };
                    assert_eq!(told.last().unwrap().0, "denied", "{path} {local}");
                }
                let mut caller = world.dial(&a).await;
                let ask = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
                caller.write_all(ask).await.unwrap();
                let (mut service, _) = loop {
                    // What was dialled for those who were refused is closed without a byte.
                    let (service, place) = program.accept().await.unwrap();
                    let mut first = [0];
                    if matches!(service.peek(&mut first).await, Ok(1..)) {
                        break (service, place);
                    }
                };
                let mut said = [0; 14];
                service.read_exact(&mut said).await.unwrap();
                assert_eq!(&said, b"GET / HTTP/1.1");
            }
        });
    }

    /// Opaque connections are counted wherever the caller is, each once.
    #[test]
    fn limits_hold_for_connections() {
        run(async {
            for (local, protocol) in [
                (false, AppProtocol::Tcp),
                (true, AppProtocol::Tcp),
                (true, AppProtocol::Detect),
            ] {
                let world = World::new();
                let program = listener().await;
                let address = program.local_addr().unwrap();
                let mut port = world.port(address, protocol);
                port.limits = Arc::from([limit(1, 2)]);
                let (a, b) = (world.caller_host(), world.serving_host(port.clone()));
                if local {
                    let mut endpoint = plain(1, address);
                    endpoint.local = true;
                    let mut snapshot = world.calling(protocol, [endpoint]);
                    snapshot.inbound.by_address.insert(address, Arc::new(port));
                    a.publish(snapshot);
                } else {
                    a.publish(world.calling(protocol, [world.meshed(1, address, b.tunnel)]));
                }
                for _ in 0..2 {
                    let mut caller = world.dial(&a).await;
                    let (mut service, _) = program.accept().await.unwrap();
                    service.write_all(b"x").await.unwrap();
                    assert_eq!(caller.read_u8().await.unwrap(), b'x', "{local}");
                }
                let mut caller = world.dial(&a).await;
                caller.write_all(b"x").await.unwrap();
                let read = caller.read(&mut [0]).await;
                assert!(matches!(read, Ok(0) | Err(_)), "{local} {protocol:?}");
                let told = if local { a.failures() } else { b.failures() };
                assert_eq!(
                    told.last().unwrap().0,
                    "rate-limited",
                    "{local} {protocol:?}"
                );
            }
        });
    }

    /// A host that loses its grant loses its open tunnels, whichever side it is on.
    #[test]
    fn revocation_closes_tunnels() {
        run(async {
            for revoked_by_server in [true, false] {
                let world = World::new();
                let program = listener().await;
                let address = program.local_addr().unwrap();
                let port = world.port(address, AppProtocol::Tcp);
                let (a, b) = (world.caller_host(), world.serving_host(port.clone()));
                let calling =
                    || world.calling(AppProtocol::Tcp, [world.meshed(1, address, b.tunnel)]);
                a.publish(calling());
                let mut open = world.dial(&a).await;
                let (mut service, _) = program.accept().await.unwrap();
                service.write_all(b"x").await.unwrap();
                assert_eq!(open.read_u8().await.unwrap(), b'x');
                if revoked_by_server {
                    let mut snapshot = world.serving(port);
                    snapshot.trust.grants.remove(&A);
                    b.publish(snapshot);
                } else {
                    let mut snapshot = calling();
                    snapshot.trust.grants.remove(&crate::trial::B);
                    a.publish(snapshot);
                }
                let error = open.read(&mut [0]).await.expect_err("reset");
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                let mut refused = world.dial(&a).await;
                assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)));
                eventually("told", || !a.failures().is_empty()).await;
                assert_eq!(a.failures()[0].0, "peer-identity", "{:?}", a.failures());
            }
        });
    }

    /// A foreign peer: ALPN `h2` alone, no server name.
    async fn foreign(world: &World, host: &Host) -> h2::client::SendRequest<Bytes> {
        let (mut publisher, reader) = cell::cell();
        publisher.publish(world.snapshot(A));
        let local = world.id("shop", "cart");
        let credentials = world.credentials(A, std::slice::from_ref(&local));
        let served = SpiffeId::host(local.trust_domain.clone(), crate::trial::B);
        let config = configurations::tunnel_client(
            reader,
            credentials,
            &local,
            Arc::from([served]),
            TunnelKind::Hbone,
        );
        let stream = TcpStream::connect(host.tunnel).await.unwrap();
        let name = ServerName::from(host.tunnel.ip());
        let stream = TlsConnector::from(config.unwrap())
            .connect(name, stream)
            .await
            .unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::task::spawn_local(async move { drop((connection.await, publisher)) });
        send
    }

    async fn asked(
        peer: &h2::client::SendRequest<Bytes>,
        method: http::Method,
        uri: &str,
    ) -> (http::Response<h2::RecvStream>, h2::SendStream<Bytes>) {
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .body(())
            .unwrap();
        let mut ready = peer.clone().ready().await.unwrap();
        let (answer, send) = ready.send_request(request, false).unwrap();
        (answer.await.unwrap(), send)
    }

    #[test]
    fn foreign_peers_speak_hbone() {
        run(async {
            let world = World::new();
            let program = listener().await;
            let address = program.local_addr().unwrap();
            let b = world.serving_host(world.port(address, AppProtocol::Tcp));
            let peer = foreign(&world, &b).await;
            let connect = http::Method::CONNECT;
            let status =
                async |method, uri: &str| asked(&peer, method, uri).await.0.status().as_u16();

            let (answer, mut send) = asked(&peer, connect.clone(), &address.to_string()).await;
            assert_eq!(answer.status(), 200);
            let (mut service, _) = program.accept().await.unwrap();
            send.send_data(Bytes::from_static(b"in"), true).unwrap();
            let mut text = String::new();
            service.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "in");
            service.write_all(b"out").await.unwrap();
            drop(service);
            let mut body = answer.into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "out");
            while let Some(piece) = body.data().await {
                assert!(piece.unwrap().is_empty(), "half-close is END_STREAM");
            }

            assert_eq!(
                status(connect.clone(), "127.0.0.1:1").await,
                400,
                "not ours"
            );
            assert_eq!(
                status(connect.clone(), "nobody.mesh.internal:80").await,
                400,
                "not ours"
            );
            assert_eq!(
                status(http::Method::GET, "http://web/").await,
                400,
                "requests are for our own"
            );
            let mut port = world.port(address, AppProtocol::Tcp);
            port.authorization = only("m.internal/ns/shop/sa/other");
            b.publish(world.serving(port));
            assert_eq!(status(connect.clone(), &address.to_string()).await, 401);
            let dead: SocketAddr = nowhere().await;
            b.publish(world.serving(world.port(dead, AppProtocol::Tcp)));
            assert_eq!(status(connect, &dead.to_string()).await, 503);
        });
    }

    /// We speak HBONE to a foreign peer: no server name, the host's identity, `h2` alone.
    #[test]
    fn foreign_endpoints_are_reached() {
        run(async {
            let world = World::new();
            let program = listener().await;
            let address = program.local_addr().unwrap();
            let b = world.serving_host(world.port(address, AppProtocol::Tcp));
            let a = world.caller_host();
            let mut endpoint = world.meshed(1, address, b.tunnel);
            let tunnel = endpoint.tunnel.as_mut().unwrap();
            tunnel.kind = TunnelKind::Hbone;
            tunnel.server_name = None;
            let domain = tunnel.sans[0].trust_domain.clone();
            tunnel.sans = Arc::from([SpiffeId::host(domain, crate::trial::B)]);
            a.publish(world.calling(AppProtocol::Tcp, [endpoint]));
            let mut caller = world.dial(&a).await;
            let (mut service, _) = program.accept().await.unwrap();
            service.write_all(b"x").await.unwrap();
            assert_eq!(caller.read_u8().await.unwrap(), b'x');
        });
    }

    /// A caller on the program's own host is judged like any other.
    #[test]
    fn policies_hold_on_the_same_host() {
        run(async {
            let world = World::new();
            let program = listener().await;
            let address = program.local_addr().unwrap();
            let host = world.caller_host();
            let endpoint = || BackendEndpoint {
                local: true,
                ..plain(1, address)
            };
            for (principal, allowed) in [("other", false), ("cart", true)] {
                let mut snapshot = world.calling(AppProtocol::Tcp, [endpoint()]);
                let mut port = world.port(address, AppProtocol::Tcp);
                port.authorization = only(&format!("m.internal/ns/shop/sa/{principal}"));
                snapshot.inbound.by_address.insert(address, Arc::new(port));
                host.publish(snapshot);
                let mut caller = world.dial(&host).await;
                if allowed {
                    let (mut service, _) = program.accept().await.unwrap();
                    service.write_all(b"x").await.unwrap();
                    assert_eq!(caller.read_u8().await.unwrap(), b'x');
                } else {
                    assert!(matches!(caller.read(&mut [0]).await, Ok(0) | Err(_)));
                    assert_eq!(host.failures()[0].0, "denied");
                }
            }
        });
    }

    /// An idle daemon lets nobody in.
    #[test]
    fn an_idle_daemon_refuses() {
        run(async {
            let world = World::new();
            let b = world.serving_host(world.port(nowhere().await, AppProtocol::Tcp));
            b.publish(mesh_model::snapshot::Snapshot::default());
            let mut stream = TcpStream::connect(b.tunnel).await.unwrap();
            assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        });
    }
}
