//! Rules, shares, failover, policies and delegation over small snapshots.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    service::AppProtocol,
    snapshot::{BackendKey, Map, Retry, RouteReference, Timeouts, WeightedTarget},
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
    let table = RuleTable::new(
        true,
        vec![rule(0, prefix("/a"), "a"), rule(1, prefix("/a/b"), "b")],
    );
    let shop: Namespace = "shop".parse().unwrap();
    let consumer = RuleTable::new(true, vec![rule(2, prefix("/c"), "c")]);
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

/// Who calls, connections, and conditions of VirtualServices.
mod callers;
/// Long tables.
mod long;
