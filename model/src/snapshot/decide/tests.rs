//! Rules, shares, failover, policies and delegation over small snapshots.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    service::AppProtocol,
    snapshot::{
        BackendKey, Map, Retry, RouteReference, SourceMatch, Timeouts, TlsRule, WeightedTarget,
        rule::{PathMatch, ValueCondition},
    },
};

fn service(name: &str) -> ServiceId {
    ServiceId::parse(name).unwrap()
}

fn backend_of(name: &str, port: u16) -> Arc<Backend> {
    Arc::new(Backend {
        key: BackendKey(0),
        service: service(name),
        port,
        protocol: AppProtocol::Http,
        subset: "".into(),
        endpoints: Vec::new(),
        policy: Arc::default(),
    })
}

fn rule(index: usize, matches: crate::snapshot::RequestMatch, to: &str) -> Arc<Rule> {
    let route = RouteReference {
        kind: "HTTPRoute",
        name: "default/r".into(),
        rule: index,
        revision: None,
        author: "me".into(),
    };
    Arc::new(Rule {
        route: Arc::new(route),
        matches,
        filters: Arc::from([]),
        target: Target::Backend(backend_of(to, 80)),
        timeouts: Timeouts::default(),
        retry: Retry::default(),
        faults: Arc::from([]),
        persistence: None,
    })
}

fn frontend(rules: RuleTable, consumer: BTreeMap<Namespace, RuleTable>) -> Frontend {
    Frontend {
        service: service("words"),
        port: 80,
        port_name: "".into(),
        protocol: AppProtocol::Http,
        virtual_addresses: Vec::new(),
        fail_closed: false,
        rules,
        consumer_rules: consumer,
        tcp_rules: RuleTable::default(),
        tls_rules: Vec::new(),
        faults: Arc::from([]),
        backend: backend_of("words", 80),
    }
}

struct Get(&'static str);

impl RequestView for Get {
    fn method(&self) -> &'static str {
        "GET"
    }
    fn path(&self) -> &str {
        self.0
    }
    fn query(&self) -> &'static str {
        ""
    }
    fn header(&self, _name: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

fn prefix(path: &str) -> crate::snapshot::RequestMatch {
    let path = crate::snapshot::rule::PathMatch::Prefix(path.into());
    crate::snapshot::RequestMatch {
        path,
        ..Default::default()
    }
}

#[test]
fn rules_replace_the_default() {
    let home = Namespace::default();
    let none = frontend(RuleTable::default(), BTreeMap::new());
    assert!(matches!(
        matched(&none, &home, &Get("/")),
        Matched::Default(_)
    ));
    let table = RuleTable {
        attached: true,
        rules: vec![rule(0, prefix("/a"), "a"), rule(1, prefix("/a/b"), "b")],
    };
    let shop: Namespace = "shop".parse().unwrap();
    let consumer = RuleTable {
        attached: true,
        rules: vec![rule(2, prefix("/c"), "c")],
    };
    let attached = frontend(table, BTreeMap::from([(shop.clone(), consumer)]));
    let acts = |namespace: &Namespace, path| match matched(&attached, namespace, &Get(path)) {
        Matched::Rule(rule) => Some(rule.route.rule),
        Matched::Default(_) => panic!("the default is replaced"),
        Matched::NoRule => None,
    };
    assert_eq!(acts(&home, "/a/b"), Some(0), "the first that matches acts");
    assert_eq!(acts(&home, "/x"), None);
    assert_eq!(acts(&shop, "/c"), Some(2));
    assert_eq!(
        acts(&shop, "/a"),
        None,
        "consumer routes are never joined with the producer's"
    );
}

#[test]
fn shares() {
    let share = |weight, name| WeightedTarget {
        weight,
        target: Target::Backend(backend_of(name, 80)),
        filters: Arc::from([]),
    };
    let target = Target::Weighted(vec![share(9, "a"), share(0, "b"), share(1, "c")]);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for draw in 0..10 {
        let Choice::Backend { backend, .. } = choose(
            &target,
            &mut |n| {
                assert_eq!(n, 10);
                draw
            },
            &|_| true,
        ) else {
            panic!("a backend")
        };
        *seen.entry(backend.service.to_string()).or_default() += 1;
    }
    assert_eq!(
        seen,
        BTreeMap::from([("default/a".to_owned(), 9), ("default/c".to_owned(), 1)])
    );
    let none = Target::Weighted(vec![share(0, "a")]);
    assert!(matches!(
        choose(&none, &mut |_| 0, &|_| true),
        Choice::Fail { status: 500, .. }
    ));
}

#[test]
fn failover_takes_the_first_usable() {
    let target = Target::Failover(vec![
        Target::Backend(backend_of("a", 80)),
        Target::Fail {
            status: 500,
            code: "no-backend",
            reason: "".into(),
        },
        Target::Backend(backend_of("b", 80)),
    ]);
    let chosen = |usable: &[&str]| match choose(&target, &mut |_| 0, &|b: &Backend| {
        usable.contains(&b.service.name.as_str())
    }) {
        Choice::Backend { backend, .. } => backend.service.name.to_string(),
        Choice::Fail { .. } => "fail".to_owned(),
    };
    assert_eq!(chosen(&["a", "b"]), "a");
    assert_eq!(chosen(&["b"]), "b");
    assert_eq!(chosen(&[]), "a", "when none is usable, the first");
}

#[test]
fn policies() {
    let rule = |policy: &str, principal: &str| AuthorizationRule {
        policy: policy.into(),
        principals: vec![principal.into()],
        ..AuthorizationRule::default()
    };
    let caller: SpiffeId = "spiffe://m/ns/default/sa/simon".parse().unwrap();
    let told = |authorization: &Authorization| {
        format!("{:?}", authorize(authorization, Some(&caller), 80, None))
    };
    let (yes, no) = (rule("p/yes", "*/sa/simon"), rule("p/no", "*"));
    let with =
        |deny: &[&AuthorizationRule], allow: &[&AuthorizationRule], allow_only| Authorization {
            deny: deny.iter().map(|rule| (*rule).clone()).collect(),
            allow: allow.iter().map(|rule| (*rule).clone()).collect(),
            allow_only,
        };
    assert_eq!(told(&with(&[], &[], false)), "Allow(None)");
    assert_eq!(told(&with(&[], &[], true)), "Deny(None)");
    assert_eq!(told(&with(&[], &[&yes], true)), "Allow(Some(\"p/yes\"))");
    assert_eq!(told(&with(&[&no], &[&yes], true)), "Deny(Some(\"p/no\"))");
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, port) in [
        ("words", 80),
        ("words-v2", 80),
        ("far/words", 8080),
        ("two", 1),
        ("two", 2),
    ] {
        snapshot
            .outbound
            .backends
            .insert((service(name), port), backend_of(name, port));
    }
    snapshot
}

#[test]
fn delegation_of_a_request() {
    let mut snapshot = snapshot();
    let frontend = frontend(RuleTable::default(), BTreeMap::new());
    let to = |snapshot: &Snapshot, table: &str| {
        delegate(snapshot, &frontend, &Dtab::parse(table).unwrap()).map(|target| match target {
            Target::Backend(backend) => format!("{}:{}", backend.service, backend.port),
            other => format!("{other:?}"),
        })
    };
    assert_eq!(
        to(&snapshot, "/svc/other => /svc/words-v2"),
        None,
        "the routes act"
    );
    assert_eq!(
        to(&snapshot, "/svc/words => /svc/words-v2 | !").as_deref(),
        Some("default/words-v2:80")
    );
    assert_eq!(
        to(&snapshot, "/svc/words => /#/mesh/far/words | !").as_deref(),
        Some("far/words:8080")
    );
    assert!(
        to(&snapshot, "/svc/words => /svc/two | !")
            .unwrap()
            .contains("ends in a failure")
    );
    let table = Dtab::parse("/svc/words => /srv/words ; /srv => /svc").unwrap();
    snapshot
        .outbound
        .delegations
        .insert(Namespace::default(), Arc::new(table));
    let found = to(&snapshot, "/srv/words => /svc/words-v2 | !");
    assert_eq!(
        found.as_deref(),
        Some("default/words-v2:80"),
        "on top of the mesh's tables"
    );
}

#[test]
fn names() {
    let web = Arc::new(frontend(RuleTable::default(), BTreeMap::new()));
    let mut by_host = Map::default();
    by_host.insert(
        "words".into(),
        BTreeMap::from([(80, Arc::clone(&web)), (81, Arc::clone(&web))]),
    );
    by_host.insert("db.shop".into(), BTreeMap::from([(5432, web)]));
    let outbound = Outbound {
        by_host,
        ..Outbound::default()
    };
    for (authority, port, known) in [
        ("words", None, true),
        ("Words.", None, true),
        ("words:81", None, true),
        ("words:82", None, false),
        ("words", Some(82), false),
        ("db.shop", None, true),
        ("db.shop", Some(80), false),
        ("words:x", None, false),
        ("[::1]:80", None, false),
        ("other", None, false),
    ] {
        assert_eq!(
            outbound.named(authority, port).is_some(),
            known,
            "{authority} {port:?}"
        );
    }
}

fn from(namespace: &str) -> Option<Arc<SourceMatch>> {
    Some(Arc::new(SourceMatch {
        namespaces: vec![namespace.parse().unwrap()],
        ..SourceMatch::default()
    }))
}

#[test]
fn connections() {
    let tcp = |index, source: Option<Arc<SourceMatch>>, to: &str| {
        let matches = crate::snapshot::RequestMatch {
            source,
            ..Default::default()
        };
        rule(index, matches, to)
    };
    let tls = |name: Option<&str>, source, to: &str| TlsRule {
        server_name: name.map(Into::into),
        source,
        route: Arc::clone(&rule(0, crate::snapshot::RequestMatch::default(), to).route),
        target: Target::Backend(backend_of(to, 80)),
    };
    let mut frontend = frontend(RuleTable::default(), BTreeMap::new());
    let shop: SpiffeId = "spiffe://m/ns/shop/sa/cart".parse().unwrap();
    let home: SpiffeId = "spiffe://m/ns/default/sa/simon".parse().unwrap();
    let to = |frontend: &Frontend, opening, caller: &SpiffeId| {
        let source = Source {
            identity: Some(caller),
            ..Source::default()
        };
        match connected(frontend, opening, &source) {
            Connected::Rule { target, .. } => match target {
                Target::Backend(backend) => backend.service.name.to_string(),
                other => format!("{other:?}"),
            },
            Connected::Default(_) => "own".to_owned(),
            Connected::NoRule => "none".to_owned(),
        }
    };
    assert_eq!(to(&frontend, Opening::Other, &home), "own");
    frontend.tcp_rules.rules = vec![tcp(0, from("shop"), "consumer")];
    assert_eq!(to(&frontend, Opening::Other, &shop), "consumer");
    assert_eq!(
        to(&frontend, Opening::Other, &home),
        "own",
        "consumers' rules alone"
    );
    frontend.tcp_rules.attached = true;
    assert_eq!(to(&frontend, Opening::Other, &home), "none");
    frontend.tls_rules = vec![
        tls(Some("a.example"), from("shop"), "exact"),
        tls(Some("*.example"), None, "wild"),
    ];
    for (name, caller, wanted) in [
        (Some("a.example"), &shop, "exact"),
        (Some("a.example"), &home, "wild"),
        (Some("a.b.example"), &shop, "wild"),
        (Some("example"), &shop, "consumer"),
        (Some("x.other"), &home, "none"),
        (None, &home, "none"),
    ] {
        assert_eq!(
            to(&frontend, Opening::Tls(name), caller),
            wanted,
            "{name:?}"
        );
    }
    assert_eq!(
        to(&frontend, Opening::Other, &home),
        "none",
        "server names are of TLS"
    );
}

struct Called<'c>(&'c str, Source<'c>);

impl RequestView for Called<'_> {
    fn method(&self) -> &'static str {
        "GET"
    }
    fn path(&self) -> &'static str {
        "/"
    }
    fn query(&self) -> &'static str {
        ""
    }
    fn header(&self, _name: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
    fn authority(&self) -> Option<&str> {
        Some(self.0)
    }
    fn source(&self) -> Source<'_> {
        self.1
    }
}

#[test]
fn who_calls_decides() {
    let only = |source: SourceMatch| crate::snapshot::RequestMatch {
        source: Some(Arc::new(source)),
        ..Default::default()
    };
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    };
    let table = RuleTable {
        attached: true,
        rules: vec![
            rule(
                0,
                only(SourceMatch {
                    labels: labels(&[("team", "red")]),
                    ..SourceMatch::default()
                }),
                "a",
            ),
            rule(
                1,
                only(SourceMatch {
                    services: vec![service("far/cart")],
                    ..SourceMatch::default()
                }),
                "a",
            ),
            rule(
                2,
                only(SourceMatch {
                    addresses: vec![("10.1.0.0".parse().unwrap(), 16)],
                    ..SourceMatch::default()
                }),
                "a",
            ),
            rule(
                3,
                only(SourceMatch {
                    namespaces: vec![Namespace::default()],
                    ..SourceMatch::default()
                }),
                "a",
            ),
            rule(
                4,
                crate::snapshot::RequestMatch {
                    authority: Some(ValueCondition::Exact("words.x".into())),
                    ..Default::default()
                },
                "a",
            ),
        ],
    };
    let frontend = frontend(table, BTreeMap::new());
    let home = Namespace::default();
    let acts = |authority: &str, source: Source<'_>| match matched(
        &frontend,
        &home,
        &Called(authority, source),
    ) {
        Matched::Rule(rule) => Some(rule.route.rule),
        Matched::Default(_) | Matched::NoRule => None,
    };
    let (red, cart) = (
        labels(&[("app", "x"), ("team", "red")]),
        service("far/cart"),
    );
    let nobody = Source::default();
    assert_eq!(
        acts(
            "words",
            Source {
                labels: Some(&red),
                ..nobody
            }
        ),
        Some(0)
    );
    assert_eq!(
        acts(
            "words",
            Source {
                service: Some(&cart),
                ..nobody
            }
        ),
        Some(1)
    );
    let by_account: SpiffeId = "spiffe://m/ns/far/sa/cart".parse().unwrap();
    assert_eq!(
        acts(
            "words",
            Source {
                identity: Some(&by_account),
                ..nobody
            }
        ),
        Some(1),
        "as seen from afar"
    );
    for (address, wanted) in [
        ("10.1.2.3", Some(2)),
        ("::ffff:10.1.2.3", Some(2)),
        ("10.2.0.1", None),
    ] {
        let source = Source {
            address: address.parse().ok(),
            ..nobody
        };
        assert_eq!(acts("words", source), wanted, "{address}");
    }
    let host = SpiffeId::host(
        crate::principal::TrustDomain::new("m").unwrap(),
        crate::name::HostId([7; 16]),
    );
    assert_eq!(
        acts(
            "words",
            Source {
                identity: Some(&host),
                ..nobody
            }
        ),
        Some(3),
        "a host's own programs are of default"
    );
    assert_eq!(acts("words.x:8080", nobody), Some(4));
    assert_eq!(acts("words", nobody), None);
}

#[test]
fn conditions_turned_round() {
    let not = |condition| ValueCondition::Not(Box::new(condition));
    let begins = || ValueCondition::Prefix("a".into());
    for (condition, value, fits) in [
        (ValueCondition::Present, None, false),
        (ValueCondition::Present, Some(""), true),
        (not(ValueCondition::Present), None, true),
        (not(ValueCondition::Present), Some("x"), false),
        (begins(), Some("ab"), true),
        (begins(), Some("b"), false),
        (begins(), None, false),
        (not(begins()), Some("b"), true),
        (not(begins()), None, true),
    ] {
        assert_eq!(
            condition.fits(value.map(str::as_bytes)),
            fits,
            "{condition:?} {value:?}"
        );
    }
}

#[test]
fn paths_of_virtual_services() {
    let any_case = |text: &str, begins| PathMatch::AnyCase {
        text: text.into(),
        begins,
    };
    for (path, text, fits) in [
        (PathMatch::Begins("/v2".into()), "/v2example", true),
        (PathMatch::Begins("/v2".into()), "/v1", false),
        (any_case("/path", false), "/PaTh", true),
        (any_case("/path", false), "/path/", false),
        (any_case("/path", true), "/PATHS", true),
        (any_case("/path", true), "/pat", false),
        (any_case("/a\u{e9}", true), "/a", false),
    ] {
        assert_eq!(path.fits(text), fits, "{path:?} {text}");
    }
}
