//! Who calls, connections, and conditions of VirtualServices.

use super::*;
use crate::snapshot::{
    SourceMatch, TlsRule,
    rule::{PathMatch, ValueCondition},
};

fn from(namespace: &str) -> Arc<SourceMatch> {
    Arc::new(SourceMatch {
        namespaces: vec![namespace.parse().unwrap()],
        ..SourceMatch::default()
    })
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
    frontend.tcp_rules.rules = vec![tcp(0, Some(from("shop")), "consumer")];
    assert_eq!(to(&frontend, Opening::Other, &shop), "consumer");
    assert_eq!(
        to(&frontend, Opening::Other, &home),
        "own",
        "consumers' rules alone"
    );
    frontend.tcp_rules.attached = true;
    assert_eq!(to(&frontend, Opening::Other, &home), "none");
    frontend.tls_rules = vec![
        tls(Some("a.example"), Some(from("shop")), "exact"),
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
    let table = RuleTable::new(
        true,
        vec![
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
    );
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
