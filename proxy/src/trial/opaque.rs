//! Opaque connections: through tunnels and straight, with every way of ending.

#[cfg(test)]
mod tests {
    use std::{io, net::SocketAddr, rc::Rc, time::Duration};

    use bytes::BytesMut;
    use mesh_model::{service::AppProtocol, snapshot::EndpointKey};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use crate::{
        connection::{Destination, OutboundOrigin},
        io::Io,
        outbound,
        trial::{Host, VIRTUAL, World, eventually, listener, nowhere, pair, plain, run},
    };

    /// A service of one program behind the tunnel: the caller's host, the program's host and its listener.
    async fn meshed(world: &World, protocol: AppProtocol) -> (Host, Host, TcpListener) {
        let program = listener().await;
        let address = program.local_addr().unwrap();
        let (a, b) = (
            world.caller_host(),
            world.serving_host(world.port(address, protocol)),
        );
        a.publish(world.calling(protocol, [world.meshed(1, address, b.tunnel)]));
        (a, b, program)
    }

    /// A service of one program that is dialled straight.
    async fn straight(world: &World, protocol: AppProtocol) -> (Host, TcpListener) {
        let program = listener().await;
        let host = world.caller_host();
        host.publish(world.calling(protocol, [plain(1, program.local_addr().unwrap())]));
        (host, program)
    }

    /// Both directions end one after the other, in either order, and nothing is lost.
    async fn half_closes(program: &mut TcpStream, service: &mut TcpStream) {
        program.write_all(b"question").await.unwrap();
        program.shutdown().await.unwrap();
        let mut asked = String::new();
        service.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        service.write_all(b"answer").await.unwrap();
        service.shutdown().await.unwrap();
        let mut answered = String::new();
        program.read_to_string(&mut answered).await.unwrap();
        assert_eq!(answered, "answer");
    }

    #[test]
    fn half_close_through_a_tunnel() {
        run(async {
            let world = World::new();
            let (a, b, listener) = meshed(&world, AppProtocol::Tcp).await;
            let mut program = world.dial(&a).await;
            let (mut service, _) = listener.accept().await.unwrap();
            half_closes(&mut program, &mut service).await;
            let mut program = world.dial(&a).await;
            let (mut service, _) = listener.accept().await.unwrap();
            half_closes(&mut service, &mut program).await;
            assert_eq!(
                a.cells.transport.handshakes.get(),
                1,
                "the tunnel is shared"
            );
            eventually("settled on both hosts", || {
                let counted = |host: &Host| {
                    let series = host.cells.series.lock().unwrap();
                    series.iter().map(|one| one.successes()).sum::<u64>()
                };
                counted(&a) == 2 && counted(&b) == 2
            })
            .await;
            let series = b.cells.series.lock().unwrap();
            assert_eq!(
                (&*series[0].key.source, &*series[0].key.destination),
                ("shop/cart", "shop/web")
            );
        });
    }

    #[test]
    fn half_close_straight() {
        run(async {
            let world = World::new();
            let (host, listener) = straight(&world, AppProtocol::Tcp).await;
            let mut program = world.dial(&host).await;
            let (mut service, _) = listener.accept().await.unwrap();
            half_closes(&mut program, &mut service).await;
        });
    }

    /// Sends `length` bytes each way at once and compares them.
    async fn bulk(program: TcpStream, service: TcpStream, length: usize) {
        async fn send(mut to: tokio::net::tcp::OwnedWriteHalf, length: usize, seed: u64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut block = vec![0u8; 1 << 16];
            for _ in 0..length / block.len() {
                random.fill(&mut block);
                to.write_all(&block).await.unwrap();
            }
            to.shutdown().await.unwrap();
        }
        async fn check(mut from: tokio::net::tcp::OwnedReadHalf, length: usize, seed: u64) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut expected = vec![0u8; 1 << 16];
            let mut block = expected.clone();
            for index in 0..length / block.len() {
                random.fill(&mut expected);
                from.read_exact(&mut block).await.unwrap();
                assert!(block == expected, "block {index} differs");
            }
            assert_eq!(from.read(&mut block).await.unwrap(), 0);
        }
        let ((program_read, program_write), (service_read, service_write)) =
            (program.into_split(), service.into_split());
        tokio::join!(
            send(program_write, length, 1),
            check(service_read, length, 1),
            send(service_write, length, 2),
            check(program_read, length, 2),
        );
    }

    #[test]
    fn bulk_through_a_tunnel() {
        run(async {
            let world = World::new();
            let (a, _b, listener) = meshed(&world, AppProtocol::Tcp).await;
            let program = world.dial(&a).await;
            let (service, _) = listener.accept().await.unwrap();
            bulk(program, service, 100 << 20).await;
        });
    }

    #[test]
    fn bulk_by_splice() {
        run(async {
            let world = World::new();
            let (host, listener) = straight(&world, AppProtocol::Tcp).await;
            let program = world.dial(&host).await;
            let (service, _) = listener.accept().await.unwrap();
            bulk(program, service, 100 << 20).await;
            assert!(host.worker.buffers.pipes() > 0, "a pipe was used and kept");
        });
    }

    /// A program that reads nothing stops its caller after a bounded number of bytes, and loses none.
    #[test]
    fn a_slow_reader_holds_its_caller() {
        run(async {
            let world = World::new();
            let (a, _b, listener) = meshed(&world, AppProtocol::Tcp).await;
            let program = world.dial(&a).await;
            let (mut service, _) = listener.accept().await.unwrap();
            let block = vec![7u8; 1 << 16];
            let mut sent = 0;
            loop {
                let more = async {
                    program.writable().await.unwrap();
                    program.try_write(&block)
                };
                match tokio::time::timeout(Duration::from_millis(500), more).await {
                    Ok(Ok(length)) => sent += length,
                    Ok(Err(error)) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                    Err(_stalled) => break,
                }
                assert!(sent < 64 << 20, "nothing holds the caller");
            }
            // Four socket buffers, one stream window, one send buffer.
            assert!(sent < 40 << 20, "{sent}");
            drop(program);
            let mut received = 0;
            let mut space = vec![0; 1 << 16];
            while let Ok(length @ 1..) = service.read(&mut space).await {
                received += length;
            }
            assert_eq!(received, sent);
        });
    }

    async fn reset_is_seen(mut program: TcpStream, mut service: TcpStream) {
        service.write_all(b"x").await.unwrap();
        assert_eq!(program.read_u8().await.unwrap(), b'x');
        socket2::SockRef::from(&program)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(program);
        let error = service
            .read(&mut [0; 16])
            .await
            .expect_err("a reset, no clean end");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn resets_go_through() {
        run(async {
            let world = World::new();
            let (a, _b, listener) = meshed(&world, AppProtocol::Tcp).await;
            for turned in [false, true] {
                let program = world.dial(&a).await;
                let (service, _) = listener.accept().await.unwrap();
                if turned {
                    reset_is_seen(service, program).await;
                } else {
                    reset_is_seen(program, service).await;
                }
            }
            let (host, listener) = straight(&world, AppProtocol::Tcp).await;
            let program = world.dial(&host).await;
            let (service, _) = listener.accept().await.unwrap();
            reset_is_seen(program, service).await;
        });
    }

    /// The banner arrives although the caller says nothing, and the second time without a wait.
    #[test]
    fn server_speaks_first() {
        run(async {
            let world = World::new();
            for tunnel in [false, true] {
                let (a, _b, listener) = if tunnel {
                    let (a, b, listener) = meshed(&world, AppProtocol::Detect).await;
                    (a, Some(b), listener)
                } else {
                    let (a, listener) = straight(&world, AppProtocol::Detect).await;
                    (a, None, listener)
                };
                let place: SocketAddr = VIRTUAL.parse().unwrap();
                assert!(!a.worker.memory.server_first(place));
                for _ in 0..2 {
                    let mut program = world.dial(&a).await;
                    let (mut service, _) = listener.accept().await.unwrap();
                    service.write_all(b"220 hello").await.unwrap();
                    let mut banner = [0; 9];
                    program.read_exact(&mut banner).await.unwrap();
                    assert_eq!(&banner, b"220 hello");
                    assert!(a.worker.memory.server_first(place));
                    half_closes(&mut program, &mut service).await;
                }
            }
        });
    }

    /// A server of HTTP that tells a silent caller to go is not taken for one that speaks first.
    #[test]
    fn a_server_that_hangs_up_in_http_is_not_server_first() {
        run(async {
            let world = World::new();
            for tunnel in [false, true] {
                let (a, b, listener) = if tunnel {
                    let (a, b, listener) = meshed(&world, AppProtocol::Detect).await;
                    (a, Some(b), listener)
                } else {
                    let (a, listener) = straight(&world, AppProtocol::Detect).await;
                    (a, None, listener)
                };
                let mut program = world.dial(&a).await;
                let (mut service, place) = listener.accept().await.unwrap();
                let answer = b"HTTP/1.1 408 Request Timeout\r\n\r\n";
                service.write_all(answer).await.unwrap();
                program.read_exact(&mut [0; 32]).await.unwrap();
                assert!(!a.worker.memory.server_first(VIRTUAL.parse().unwrap()));
                let there = b.is_some_and(|b| b.worker.memory.server_first(place));
                assert!(!there);
            }
        });
    }

    /// A caller that is slow to speak, but speaks first, is understood all the same.
    #[test]
    fn a_late_caller_is_not_taken_for_a_server_first_one() {
        run(async {
            let world = World::new();
            let (a, listener) = straight(&world, AppProtocol::Detect).await;
            let mut program = world.dial(&a).await;
            let (mut service, _) = listener.accept().await.unwrap();
            program.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
            let mut asked = [0; 14];
            service.read_exact(&mut asked).await.unwrap();
            assert!(!a.worker.memory.server_first(VIRTUAL.parse().unwrap()));
            half_closes(&mut program, &mut service).await;
        });
    }

    /// A refused dial ejects at once, another endpoint takes the call, and the first comes back by itself.
    #[test]
    fn refused_dials_eject() {
        run(async {
            let world = World::new();
            let (dead, program) = (nowhere().await, listener().await);
            let host = world.caller_host();
            let endpoints = [plain(1, dead), plain(2, program.local_addr().unwrap())];
            host.publish(world.calling(AppProtocol::Tcp, endpoints));
            for _ in 0..16 {
                let mut one = world.dial(&host).await;
                let (mut service, _) = program.accept().await.unwrap();
                half_closes(&mut one, &mut service).await;
            }
            assert_eq!(host.shared.ejected(), [EndpointKey(1)]);
            assert_eq!(
                host.cells.transport.ejections.get(),
                1,
                "one dial was enough"
            );
            let _back = TcpListener::bind(dead).await.unwrap();
            eventually("it is asked, and back", || host.shared.ejected().is_empty()).await;
        });
    }

    /// Streams share tunnels, and only one is opened at a time.
    #[test]
    fn tunnels_are_shared() {
        run(async {
            let world = World::new();
            let (a, _b, listener) = meshed(&world, AppProtocol::Tcp).await;
            let mut open = Vec::new();
            for _ in 0..70 {
                open.push(world.dial(&a).await);
            }
            for _ in 0..70 {
                let (mut service, _) = listener.accept().await.unwrap();
                service.write_all(b"x").await.unwrap();
                std::mem::forget(service);
            }
            for program in &mut open {
                assert_eq!(program.read_u8().await.unwrap(), b'x');
            }
            assert_eq!(
                a.cells.transport.handshakes.get(),
                2,
                "64 streams on one, 6 on the other"
            );
        });
    }

    #[test]
    fn failures_are_told() {
        run(async {
            let world = World::new();
            let dead = nowhere().await;
            let b = world.serving_host(world.port(dead, AppProtocol::Tcp));
            let a = world.caller_host();
            let expect_reset = async |program: TcpStream| {
                let mut program = program;
                assert!(matches!(program.read(&mut [0]).await, Ok(0) | Err(_)));
            };
            // Nobody knows the address.
            expect_reset(world.dial(&a).await).await;
            // The program is not there: both hosts know it by the same id.
            a.publish(world.calling(AppProtocol::Tcp, [world.meshed(1, dead, b.tunnel)]));
            expect_reset(world.dial(&a).await).await;
            // There is no endpoint.
            a.publish(world.calling(AppProtocol::Tcp, []));
            expect_reset(world.dial(&a).await).await;
            let (a, b) = (a.failures(), b.failures());
            let codes: Vec<_> = a.iter().map(|(code, _)| code.as_str()).collect();
            assert_eq!(codes, ["unknown-service", "connect-failed", "no-endpoint"]);
            assert!(
                b.iter()
                    .all(|(code, id)| code == "connect-failed" && *id == a[1].1),
                "{b:?}"
            );
            assert!(!b.is_empty());
        });
    }

    #[test]
    fn what_runs_may_finish_when_draining() {
        run(async {
            let world = World::new();
            let (a, b, listener) = meshed(&world, AppProtocol::Tcp).await;
            let mut program = world.dial(&a).await;
            let (mut service, _) = listener.accept().await.unwrap();
            a.drain.begin();
            b.drain.begin();
            eventually("no longer listening", || {
                std::net::TcpStream::connect(b.tunnel).is_err()
            })
            .await;
            half_closes(&mut program, &mut service).await;
            for host in [a, b] {
                let task = host.done.borrow_mut().take().unwrap();
                tokio::time::timeout(Duration::from_secs(5), task)
                    .await
                    .unwrap()
                    .unwrap();
            }
        });
    }

    #[test]
    fn forced_ends_take_at_once() {
        run(async {
            let world = World::new();
            let (a, _b, listener) = meshed(&world, AppProtocol::Tcp).await;
            let _program = world.dial(&a).await;
            let _service = listener.accept().await.unwrap();
            a.drain.begin();
            a.drain.force();
            let task = a.done.borrow_mut().take().unwrap();
            tokio::time::timeout(Duration::from_secs(5), task)
                .await
                .unwrap()
                .unwrap();
        });
    }

    #[test]
    fn a_panic_ends_one_task_only() {
        run(async {
            let world = World::new();
            let (host, listener) = straight(&world, AppProtocol::Tcp).await;
            host.worker.spawn(async { panic!("as a test") });
            eventually("counted", || host.cells.panics.get() == 1).await;
            let mut program = world.dial(&host).await;
            let (mut service, _) = listener.accept().await.unwrap();
            half_closes(&mut program, &mut service).await;
        });
    }

    /// What a connection costs before it has a buffer.
    #[test]
    fn futures_are_small() {
        run(async {
            let world = World::new();
            let host = world.caller_host();
            let (_program, captured) = pair().await;
            let origin = OutboundOrigin {
                caller: world.caller(),
                peer: captured.peer_addr().unwrap(),
                destination: Destination::Explicit,
                internal: false,
            };
            let worker = Rc::clone(&host.worker);
            let future = outbound::serve(worker, Io::Tcp(captured), BytesMut::new(), origin);
            let outbound = size_of_val(&future);
            let (_peer, stream) = pair().await;
            let address = stream.peer_addr().unwrap();
            let worker = Rc::clone(&host.worker);
            let tunnel = size_of_val(&crate::tunnel::serve(worker, stream, address));
            assert!(
                outbound <= 4096 && tunnel <= 4096,
                "{outbound}, {tunnel} bytes"
            );
        });
    }

    /// Who dials on loopback is known by its user.
    #[test]
    fn callers_by_user() {
        run(async {
            let world = World::new();
            let host = world.caller_host();
            let (program, captured) = pair().await;
            let (local, remote) = (
                program.local_addr().unwrap(),
                captured.local_addr().unwrap(),
            );
            let owner = host.worker.origins.owner(local, remote).unwrap();
            assert_eq!(owner.uid, nix::unistd::geteuid().as_raw());
            let mut snapshot = world.calling(AppProtocol::Tcp, []);
            let of = |snapshot: &_| host.worker.origins.caller(snapshot, Some(owner)).unwrap();
            assert_eq!(
                &*of(&snapshot).label,
                "shop/cart",
                "the host, unless it is enrolled"
            );
            let mut enrolled = (*world.caller()).clone();
            enrolled.label = "shop/enrolled".into();
            snapshot.callers.by_uid.insert(owner.uid, enrolled.into());
            assert_eq!(&*of(&snapshot).label, "shop/enrolled");
        });
    }
}
