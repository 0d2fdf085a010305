//! The data plane from outside: it starts, answers for itself, and ends when told.

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use mesh_identity::Credentials;
    use mesh_model::{
        config::{AccessLog, AccessLogDestination},
        name::{HostId, Namespace, ServiceAccount},
        principal::{SpiffeId, TrustDomain},
        snapshot::{
            Caller, MeshView, Snapshot,
            cell::{self, Publisher, Reader},
        },
    };
    use mesh_proxy::{Config, Proxy, StartError, start};
    use tokio_util::sync::CancellationToken;

    fn published() -> (Publisher, Reader) {
        let (mut publisher, reader) = cell::cell();
        let trust_domain = TrustDomain::new("m.internal").unwrap();
        let namespace = Namespace::default_namespace();
        let account = ServiceAccount::new("host").unwrap();
        let caller = Caller {
            service: None,
            principal: SpiffeId::workload(trust_domain.clone(), namespace.clone(), account),
            namespace,
            label: "host".into(),
            trusted: true,
            labels: std::sync::Arc::default(),
        };
        let mesh = MeshView {
            trust_domain,
            domain: "mesh.internal".into(),
            host: HostId([1; 16]),
            host_name: "here".into(),
        };
        let mut snapshot = Snapshot {
            mesh: Some(mesh),
            ..Snapshot::default()
        };
        snapshot.callers.host = Some(caller.into());
        publisher.publish(snapshot);
        (publisher, reader)
    }

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn config() -> Config {
        Config {
            workers: Some(2),
            tunnel: Some(loopback()),
            explicit: Some(loopback()),
            outbound_port: Some(0),
            ..Config::default()
        }
    }

    fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: nobody.mesh.internal\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn drained(proxy: Proxy, limit: Duration) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(proxy.drain(limit));
    }

    #[test]
    fn answers_for_itself() {
        let (_publisher, reader) = published();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.log");
        let access_log = AccessLog {
            destination: Some(AccessLogDestination::File(file.clone())),
            failures_only: false,
        };
        let config = Config {
            access_log,
            ..config()
        };
        let proxy = start(config, reader, Credentials::new(), CancellationToken::new()).unwrap();
        // Enough connections that every worker has some.
        for _ in 0..8 {
            let answer = ask(proxy.explicit_address().unwrap());
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
            let told = answer
                .lines()
                .find_map(|line| line.strip_prefix("mesh-error: "))
                .unwrap();
            assert!(told.starts_with("unknown-host; host=here; id="), "{told}");
            let id = told.rsplit('=').next().unwrap();
            let records = proxy.failures(id);
            assert_eq!(records.len(), 1, "{id}");
            assert_eq!(
                (&*records[0].host, &*records[0].code),
                ("here", "unknown-host")
            );
        }
        assert!(ask(proxy.internal_address()).starts_with("HTTP/1.1 404"));
        assert!(
            proxy
                .failures("00000000000000000000000000000000")
                .is_empty()
        );

        let mut page = String::new();
        proxy.render_metrics(&mut page);
        let errors = "mesh_proxy_errors_total{direction=\"outbound\",code=\"unknown-host\"} 9";
        assert!(page.lines().any(|line| line == errors), "{page}");
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
        let rows = proxy.stats();
        assert_eq!(rows.iter().map(|row| row.requests).sum::<u64>(), 9);
        assert!(
            rows.iter()
                .all(|row| row.source == "host" && row.p50_us > 0)
        );
        assert!(proxy.ejected().is_empty());

        drained(proxy, Duration::from_secs(5));
        let begun = Instant::now();
        let lines = loop {
            let lines = std::fs::read_to_string(&file).unwrap();
            if lines.lines().count() == 9 {
                break lines;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{lines}");
            std::thread::sleep(Duration::from_millis(5));
        };
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["code"], "unknown-host");
            assert_eq!(line["status"], 404);
        }
    }

    /// Fails once, and waits until that is recorded.
    fn fail(proxy: &Proxy) {
        let answer = ask(proxy.explicit_address().unwrap());
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let told = answer.lines().find(|line| line.starts_with("mesh-error: "));
        let id = told.unwrap().rsplit('=').next().unwrap();
        let begun = Instant::now();
        while proxy.failures(id).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{id}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Fails once, and waits until `file` has this many lines.
    fn logged(proxy: &Proxy, file: &std::path::Path, lines: usize) {
        fail(proxy);
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(file).unwrap();
            if text.lines().count() == lines {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_access_log_follows_its_settings() {
        let (_publisher, reader) = published();
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let to = |name: &str| AccessLog {
            destination: Some(AccessLogDestination::File(place(name))),
            failures_only: true,
        };
        let stop = CancellationToken::new();
        // It begins switched off.
        let proxy = start(config(), reader, Credentials::new(), stop).unwrap();
        fail(&proxy);
        proxy.log_to(&to("a")).unwrap();
        logged(&proxy, &place("a"), 1);
        // Rotated away: a new file takes its place at once, and the old one is left alone.
        std::fs::rename(place("a"), place("a.1")).unwrap();
        proxy.log_to(&to("a")).unwrap();
        logged(&proxy, &place("a"), 1);
        // What cannot be opened changes nothing.
        let error = proxy.log_to(&to("nowhere/a")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        logged(&proxy, &place("a"), 2);
        proxy.log_to(&to("b")).unwrap();
        logged(&proxy, &place("b"), 1);
        proxy.log_to(&AccessLog::default()).unwrap();
        fail(&proxy);
        proxy.log_to(&to("c")).unwrap();
        logged(&proxy, &place("c"), 1);
        let lines = |name| {
            std::fs::read_to_string(place(name))
                .unwrap()
                .lines()
                .count()
        };
        assert_eq!([lines("a.1"), lines("a"), lines("b")], [1, 2, 1]);
        drained(proxy, Duration::from_secs(5));
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_refused() {
        let (_publisher, reader) = published();
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let config = Config {
            access_log: AccessLog {
                destination: Some(AccessLogDestination::File(pipe)),
                failures_only: false,
            },
            ..config()
        };
        let stop = CancellationToken::new();
        let error = start(config, reader, Credentials::new(), stop).unwrap_err();
        assert!(matches!(error, StartError::AccessLog(_)), "{error}");
    }

    #[test]
    fn a_taken_port_is_named() {
        let (_publisher, reader) = published();
        let taken = TcpListener::bind(loopback()).unwrap();
        let address = taken.local_addr().unwrap();
        let config = Config {
            explicit: Some(address),
            ..config()
        };
        let error =
            start(config, reader, Credentials::new(), CancellationToken::new()).unwrap_err();
        assert!(
            matches!(error, StartError::Listen { address: at, .. } if at == address),
            "{error}"
        );
        assert_eq!(
            error.to_string(),
            format!("cannot listen on {address} (explicit)")
        );
    }

    #[test]
    fn ends_when_told() {
        for stop_at_once in [true, false] {
            let (_publisher, reader) = published();
            let stop = CancellationToken::new();
            let proxy = start(config(), reader, Credentials::new(), stop.clone()).unwrap();
            let address = proxy.explicit_address().unwrap();
            // A caller that never says anything holds nothing up for longer than the limit.
            let _silent = TcpStream::connect(address).unwrap();
            let begun = Instant::now();
            if stop_at_once {
                stop.cancel();
                drained(proxy, Duration::from_secs(30));
            } else {
                drained(proxy, Duration::from_millis(100));
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
            assert!(TcpStream::connect(address).is_err(), "still listening");
        }
    }
}
