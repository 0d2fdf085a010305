//! TLS that is passed on unopened, by its server name; opaque connections by who calls.

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use mesh_model::{
        name::Namespace,
        service::AppProtocol,
        snapshot::{
            Backend, BackendKey, Frontend, RequestMatch, RouteReference, Rule, RuleTable, Snapshot,
            SourceMatch, Target, TlsRule,
        },
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use crate::{
        hello::tests::{client_hello, fragmented},
        trial::{Host, VIRTUAL, World, listener, plain, run},
    };

    /// Where a test's connections may end.
    struct Places {
        world: World,
        host: Host,
        own: TcpListener,
        one: TcpListener,
        other: TcpListener,
    }

    fn table(rules: Vec<Arc<Rule>>) -> RuleTable {
        let mut table = RuleTable::default();
        table.rules.extend(rules);
        table.attached = true;
        table
    }

    fn reference() -> Arc<RouteReference> {
        Arc::new(RouteReference {
            kind: "TLSRoute",
            name: "shop/secure".into(),
            rule: 0,
            revision: None,
            author: "".into(),
        })
    }

    impl Places {
        async fn new() -> Self {
            let world = World::new();
            let host = world.caller_host();
            let (own, one, other) = (listener().await, listener().await, listener().await);
            Self {
                world,
                host,
                own,
                one,
                other,
            }
        }

        fn target(&self, key: u64, place: &TcpListener) -> Target {
            let snapshot = self.world.calling(AppProtocol::Tcp, []);
            let model = &snapshot.outbound.frontends.first().unwrap().backend;
            Target::Backend(Arc::new(Backend {
                key: BackendKey(key),
                endpoints: vec![Arc::new(plain(key, place.local_addr().unwrap()))],
                ..Backend::clone(model)
            }))
        }

        fn publish(&self, protocol: AppProtocol, change: impl FnOnce(&mut Frontend)) {
            let own = plain(9, self.own.local_addr().unwrap());
            let mut snapshot: Snapshot = self.world.calling(protocol, [own]);
            let mut frontend = Frontend::clone(snapshot.outbound.frontends.first().unwrap());
            change(&mut frontend);
            let address: SocketAddr = VIRTUAL.parse().unwrap();
            snapshot
                .outbound
                .by_address
                .insert(address, Arc::new(frontend));
            self.host.publish(snapshot);
        }

        fn tls(
            &self,
            name: Option<&str>,
            source: Option<SourceMatch>,
            place: &TcpListener,
        ) -> TlsRule {
            TlsRule {
                server_name: name.map(Box::from),
                source: source.map(Arc::new),
                route: reference(),
                target: self.target(place.local_addr().unwrap().port().into(), place),
            }
        }

        /// As a TLSRoute with two names makes it.
        fn by_name(&self, protocol: AppProtocol) {
            self.publish(protocol, |frontend| {
                frontend.tls_rules = vec![
                    self.tls(Some("one.example"), None, &self.one),
                    self.tls(Some("*.other.example"), None, &self.other),
                ];
                frontend.tcp_rules = table(Vec::new());
            });
        }

        /// Sends `bytes` in pieces of `size`; which place took them all, unchanged.
        async fn went(&self, bytes: &[u8], size: usize) -> Option<&'static str> {
            let mut program = self.world.dial(&self.host).await;
            for piece in bytes.chunks(size) {
                if program.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let accepted = tokio::select! {
                one = self.one.accept() => Some(("one", one)),
                other = self.other.accept() => Some(("other", other)),
                own = self.own.accept() => Some(("own", own)),
                end = program.read_u8() => {
                    // Not even an alert: reset, or closed.
                    assert!(end.is_err(), "something was said");
                    None
                }
            };
            let (name, stream) = accepted?;
            let mut stream: TcpStream = stream.unwrap().0;
            let mut heard = vec![0; bytes.len()];
            stream.read_exact(&mut heard).await.unwrap();
            assert!(heard == bytes, "{name} got other bytes");
            stream.write_all(b"!").await.unwrap();
            assert_eq!(program.read_u8().await.unwrap(), b'!');
            Some(name)
        }
    }

    #[test]
    fn server_names_lead_the_way() {
        for protocol in [AppProtocol::Tcp, AppProtocol::Detect] {
            run(async move {
                let places = Places::new().await;
                places.by_name(protocol);
                for (name, wanted) in [
                    ("one.example", Some("one")),
                    ("ONE.example", Some("one")),
                    ("a.other.example", Some("other")),
                    ("a.b.other.example", Some("other")),
                    ("other.example", None),
                    ("x.one.example", None),
                    ("unknown.example", None),
                    ("192.0.2.1", None),
                ] {
                    let hello = client_hello(name);
                    let more = [&hello[..], b"\x14\x03\x03\0\x01\x01"].concat();
                    assert_eq!(places.went(&more, 4000).await, wanted, "{name} {protocol}");
                }
                let hello = client_hello("a.other.example");
                assert_eq!(places.went(&hello, 1).await, Some("other"));
                for size in [100, 37] {
                    assert_eq!(
                        places.went(&fragmented(&hello, 100), size).await,
                        Some("other")
                    );
                }
            });
        }
    }

    #[test]
    fn what_is_no_tls_has_no_way() {
        run(async {
            let places = Places::new().await;
            places.by_name(AppProtocol::Tcp);
            for bytes in [
                &b"GET / HTTP/1.1\r\n\r\n"[..],
                b"SSH-2.0-x\r\n",
                b"\x16\x03\x01\0\x04\x02\0\0\0",
            ] {
                assert_eq!(places.went(bytes, 4000).await, None, "{bytes:?}");
            }
        });
    }

    /// Beside rules for TLS there may be some for everything else.
    #[test]
    fn tls_and_other_connections_beside_each_other() {
        for protocol in [AppProtocol::Tcp, AppProtocol::Detect] {
            run(async move {
                let places = Places::new().await;
                places.publish(protocol, |frontend| {
                    frontend.tls_rules = vec![places.tls(Some("one.example"), None, &places.one)];
                    let rule = rule(None, places.target(2, &places.other));
                    frontend.tcp_rules = table(vec![rule]);
                });
                assert_eq!(
                    places.went(&client_hello("one.example"), 50).await,
                    Some("one")
                );
                assert_eq!(
                    places.went(&client_hello("two.example"), 50).await,
                    Some("other")
                );
                assert_eq!(places.went(b"\0\x01opaque", 1).await, Some("other"));
                // Whoever waits for the server's greeting gets it soon.
                let mut program = places.world.dial(&places.host).await;
                let (mut server, _) = places.other.accept().await.unwrap();
                server.write_all(b"220 hello").await.unwrap();
                assert_eq!(program.read_u8().await.unwrap(), b'2');
                // After that a caller who speaks at once is still led by its name.
                assert_eq!(
                    places.went(&client_hello("one.example"), 50).await,
                    Some("one")
                );
            });
        }
    }

    fn rule(source: Option<SourceMatch>, target: Target) -> Arc<Rule> {
        Arc::new(Rule {
            route: reference(),
            matches: RequestMatch {
                source: source.map(Arc::new),
                ..RequestMatch::default()
            },
            filters: Arc::from([]),
            target,
            timeouts: mesh_model::snapshot::Timeouts::default(),
            retry: mesh_model::snapshot::Retry::default(),
            faults: Arc::from([]),
            persistence: None,
        })
    }

    #[test]
    fn callers_lead_the_way() {
        run(async {
            let places = Places::new().await;
            let namespace = |name: &str| SourceMatch {
                namespaces: vec![Namespace::new(name).unwrap()],
                ..SourceMatch::default()
            };
            let from = |address: &str| SourceMatch {
                addresses: vec![(address.parse().unwrap(), 8)],
                ..SourceMatch::default()
            };
            for (first, second, tcp, tls) in [
                (
                    namespace("shop"),
                    from("127.0.0.0"),
                    Some("one"),
                    Some("one"),
                ),
                (
                    namespace("elsewhere"),
                    from("127.0.0.0"),
                    Some("other"),
                    Some("other"),
                ),
                (namespace("elsewhere"), from("10.0.0.0"), None, None),
            ] {
                places.publish(AppProtocol::Tcp, |frontend| {
                    frontend.tcp_rules = table(vec![
                        rule(Some(first.clone()), places.target(1, &places.one)),
                        rule(Some(second.clone()), places.target(2, &places.other)),
                    ]);
                });
                assert_eq!(places.went(b"opaque", 6).await, tcp);
                places.publish(AppProtocol::Tcp, |frontend| {
                    frontend.tls_rules = vec![
                        places.tls(Some("one.example"), Some(first), &places.one),
                        places.tls(None, Some(second), &places.other),
                    ];
                    frontend.tcp_rules = table(Vec::new());
                });
                assert_eq!(places.went(&client_hello("one.example"), 4000).await, tls);
            }
        });
    }
}
