//! How long callers of HTTP are waited for: heads, bodies, idle connections; through the explicit listener.

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        io::{Read, Write},
        net::{SocketAddr, TcpListener, TcpStream},
        sync::Arc,
        time::{Duration, Instant},
    };

    use mesh_identity::Credentials;
    use mesh_model::{
        name::{HostId, Namespace, ServiceId},
        principal::{SpiffeId, TrustDomain},
        service::AppProtocol,
        snapshot::{
            Backend, BackendEndpoint, BackendKey, Caller, EndpointKey, Frontend, MeshView,
            RuleTable, Snapshot, cell,
        },
    };
    use mesh_proxy::{Config, Limits, Proxy};
    use tokio_util::sync::CancellationToken;

    const SHORT: Duration = Duration::from_millis(300);

    fn snapshot(program: SocketAddr) -> Snapshot {
        let trust_domain = TrustDomain::new("m.internal").unwrap();
        let host = HostId([1; 16]);
        let service = ServiceId::parse("shop/web").unwrap();
        let endpoint = BackendEndpoint {
            key: EndpointKey(1),
            id: "one".into(),
            address: program,
            tunnel: None,
            local: false,
            weight: 1,
            priority: 0,
            distance: 2,
            locality: None,
            preferred: true,
            host: None,
            host_name: "b".into(),
            labels: Arc::default(),
        };
        let backend = Backend {
            key: BackendKey(1),
            service: service.clone(),
            port: 80,
            protocol: AppProtocol::Http,
            subset: "".into(),
            endpoints: vec![Arc::new(endpoint)],
            policy: Arc::default(),
        };
        let frontend = Arc::new(Frontend {
            service,
            port: 80,
            port_name: "".into(),
            protocol: AppProtocol::Http,
            virtual_addresses: Vec::new(),
            fail_closed: false,
            rules: RuleTable::default(),
            consumer_rules: BTreeMap::new(),
            tcp_rules: RuleTable::default(),
            tls_rules: Vec::new(),
            faults: Arc::from([]),
            backend: Arc::new(backend),
        });
        let mut snapshot = Snapshot {
            mesh: Some(MeshView {
                trust_domain: trust_domain.clone(),
                domain: "mesh.internal".into(),
                host,
                host_name: "a".into(),
            }),
            ..Snapshot::default()
        };
        let ports = BTreeMap::from([(80, Arc::clone(&frontend))]);
        snapshot.outbound.by_host.insert("web".into(), ports);
        snapshot.outbound.frontends.push(frontend);
        snapshot.callers.host = Some(Arc::new(Caller {
            service: None,
            principal: SpiffeId::host(trust_domain, host),
            namespace: Namespace::default(),
            label: "host".into(),
            trusted: true,
            labels: Arc::default(),
        }));
        snapshot
    }

    fn start(program: SocketAddr) -> (Proxy, SocketAddr, cell::Publisher) {
        let (mut publisher, reader) = cell::cell();
        publisher.publish(snapshot(program));
        let limits = Limits {
            head: SHORT,
            first_bytes: SHORT,
            keep_alive: SHORT,
            tcp_half_closed: SHORT,
            ..Limits::default()
        };
        let config = Config {
            workers: Some(1),
            explicit: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            limits,
            ..Config::default()
        };
        let stop = CancellationToken::new();
        let proxy = mesh_proxy::start(config, reader, Credentials::new(), stop).unwrap();
        let explicit = proxy.explicit_address().unwrap();
        (proxy, explicit, publisher)
    }

    /// Answers each GET, and nothing else.
    fn answer(stream: &mut TcpStream) {
        loop {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => return,
                }
            }
            if head.starts_with(b"GET") {
                let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
                if stream.write_all(text).is_err() {
                    return;
                }
            }
        }
    }

    /// Says something and hears everything until the other end closes; what, and after how long.
    fn hear(address: SocketAddr, said: &[&str]) -> (String, Duration) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let begun = Instant::now();
        for text in said {
            stream.write_all(text.as_bytes()).unwrap();
        }
        let mut heard = String::new();
        // A reset after the last word is an end as well.
        if let Err(error) = stream.read_to_string(&mut heard) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
        (heard, begun.elapsed())
    }

    #[test]
    fn nobody_is_waited_for_without_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let program = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || answer(&mut stream));
            }
        });
        let (_proxy, explicit, _publisher) = start(program);

        // A head that does not end.
        let (heard, took) = hear(explicit, &["GET / HTTP/1.1\r\nHost: web\r\n\r\nGET / HT"]);
        assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
        assert!(heard.contains("HTTP/1.1 408 "), "{heard}");
        assert!(took >= SHORT, "{took:?}");

        // An idle connection: closed without a word.
        let (heard, took) = hear(explicit, &["GET / HTTP/1.1\r\nHost: web\r\n\r\n"]);
        assert!(heard.ends_with("\r\n\r\nhi"), "{heard}");
        assert!(took >= SHORT, "{took:?}");

        // A body that comes in drops.
        let drops = TcpStream::connect(explicit).unwrap();
        let mut dripping = drops.try_clone().unwrap();
        std::thread::spawn(move || {
            let announced = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 99999\r\n\r\n";
            let mut alive = dripping.write_all(announced.as_bytes()).is_ok();
            while alive {
                std::thread::sleep(SHORT / 10);
                alive = dripping.write_all(b"x").is_ok();
            }
        });
        drops
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut line = [0; 12];
        (&drops).read_exact(&mut line).unwrap();
        assert_eq!(&line, b"HTTP/1.1 408");
        drops.shutdown(std::net::Shutdown::Both).unwrap();

        // Chunks that do not come.
        let (heard, took) = hear(
            explicit,
            &["POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"],
        );
        assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
        assert!(took >= SHORT, "{took:?}");

        // A body that was announced and does not come.
        let (heard, took) = hear(
            explicit,
            &["POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\nabc"],
        );
        assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
        assert!(
            heard.contains("mesh-error: bad-request; host=a; id="),
            "{heard}"
        );
        assert!(took >= SHORT, "{took:?}");
    }
}
