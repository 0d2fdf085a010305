//! The laws: same inputs give an equal plan, in whatever order they came; what did not change is shared.

use std::sync::Arc;

use mesh_model::{
    document::parse_documents,
    fact::WireHealth,
    finding::Severity,
    snapshot::{Backend, Filter, Snapshot, Target},
};
use mesh_plan::{Compiled, Input, Proposal, UNKNOWN_REFERENCES, compile, validate};
use proptest::{prelude::*, sample::subsequence};

use crate::world::{NOW, World};

const HOSTS: [&str; 4] = [
    "host h1 10.0.0.1,fd00::1 own",
    "host h2 10.0.0.2",
    "host h3 10.0.0.3 down",
    "host h4 10.0.0.4 grant=default/words",
];

const WORK: [&str; 15] = [
    "work h1 words http:80>8080/http version=v1 instance=words-d loopback user=990",
    "work h1 simon http:80>9000/http user=991",
    "work h1 words http:80>8080/http version=v1 instance=words-a user=990",
    "work h1 words http:80>8081/http version=v2 instance=words-b user=990",
    "work h1 words http:80>8082/http version=v2 instance=words-c loopback",
    "work h1 shop/cart 80>8090 unit=cart.service",
    "work h2 words http:80>8080/http version=v1",
    "work h2 words http:80>8081/http version=v2 instance=other health=unhealthy",
    "work h2 db 5432/tcp strict closed",
    "work h3 words http:80>8080/http version=v2 weight=7",
    "work h3 simon http:80>9000/http",
    "work h4 words http:80>8080/http2",
    "work h4 simon http:80>9000/http",
    "view h2 file/etc legacy port=80 10.0.9.1:80 10.0.9.2:80",
    "view local file/etc legacy port=80 10.0.9.3:80 10.0.0.2:8080",
];

const DOCUMENTS: [&str; 17] = [
    "{apiVersion: v1, kind: Service, metadata: {name: words-v1}, spec: {selector: {app: words, version: v1}, ports: [{port: 80}]}}",
    "{apiVersion: v1, kind: Service, metadata: {name: words-v2}, spec: {selector: {app: words, version: v2}, ports: [{port: 80}]}}",
    "{apiVersion: v1, kind: Service, metadata: {name: words}, spec: {ports: [{port: 80}]}}",
    "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: words}, spec: {parentRefs: [{group: '', kind: Service, name: words}], rules: [{backendRefs: [{name: words-v1, port: 80, weight: 9}, {name: words-v2, port: 80}]}]}}",
    "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: more}, spec: {parentRefs: [{group: '', kind: Service, name: words}], rules: [{matches: [{path: {value: /x}}, {method: GET}], backendRefs: [{name: words, port: 80}]}]}}",
    "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: mine, namespace: shop}, spec: {parentRefs: [{group: '', kind: Service, name: words, namespace: default}], rules: [{backendRefs: [{name: cart, port: 80}]}]}}",
    "{apiVersion: meshd.io/v1alpha1, kind: DelegationTable, metadata: {name: t}, spec: {dtab: '/svc/simon => 1 * /svc/words & 1 * /svc/legacy'}}",
    "{apiVersion: meshd.io/v1alpha1, kind: AuthorizationPolicy, metadata: {name: a}, spec: {rules: [{from: [{source: {namespaces: [shop]}}]}]}}",
    "{apiVersion: meshd.io/v1alpha1, kind: PeerAuthentication, metadata: {name: p, namespace: meshd-system}, spec: {mtls: {mode: STRICT}}}",
    "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: words}, spec: {host: words, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, portLevelSettings: [{port: {number: 80}, outlierDetection: {}}]}, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}}",
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: words}, spec: {hosts: [words], http: [{match: [{uri: {prefix: /x}, sourceLabels: {app: simon}}], mirror: {host: simon}, fault: {delay: {fixedDelay: 1s}}, route: [{destination: {host: words, subset: v1}, weight: 1}, {destination: {host: words, subset: v2}, weight: 2}, {destination: {host: gone}, weight: 3}]}]}}",
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: simon, namespace: shop}, spec: {hosts: [simon.default.svc.cluster.local], http: [{route: [{destination: {host: words.default, subset: v2}}]}]}}",
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: cart, namespace: shop}, spec: {hosts: [cart], tls: [{match: [{sniHosts: [a.example]}], route: [{destination: {host: cart}}]}], tcp: [{match: [{sourceSubnets: [10.0.0.0/8]}], route: [{destination: {host: cart}}]}]}}",
    "{apiVersion: gateway.networking.k8s.io/v1, kind: TLSRoute, metadata: {name: db}, spec: {parentRefs: [{group: '', kind: Service, name: db}], hostnames: ['*.example'], rules: [{backendRefs: [{name: db, port: 5432}]}]}}",
    "{apiVersion: gateway.networking.k8s.io/v1alpha2, kind: TCPRoute, metadata: {name: cart}, spec: {parentRefs: [{group: '', kind: Service, name: cart, namespace: shop}], rules: [{backendRefs: [{name: words, port: 80}]}]}}",
    "{apiVersion: meshd.io/v1alpha1, kind: RateLimit, metadata: {name: l}, spec: {targetRefs: [{name: words}], limit: {requests: 5, per: 1s}}}",
    "{apiVersion: meshd.io/v1alpha1, kind: FaultInjection, metadata: {name: f}, spec: {targetRefs: [{name: simon}], matches: [{source: {namespaces: [shop]}}], abort: {percent: 1, http: 500}}}",
];

/// Lines of work in some order, and documents in the order of their creation.
fn parts() -> impl Strategy<Value = (Vec<&'static str>, Vec<&'static str>)> {
    (
        subsequence(WORK.to_vec(), 0..=WORK.len()),
        subsequence(DOCUMENTS.to_vec(), 0..=DOCUMENTS.len()),
    )
}

fn world(work: &[&str], documents: &[&str]) -> World {
    let mut lines = vec!["mesh m.internal mesh.internal"];
    lines.extend(HOSTS);
    lines.extend(work);
    World::parse(&format!(
        "{}\n===\n{}",
        lines.join("\n"),
        documents.join("\n---\n")
    ))
}

fn again(world: &World, before: &Compiled) -> Compiled {
    let input = Input {
        previous: Some(&before.snapshot),
        allocations: &before.allocations,
        ..world.input()
    };
    compile(&input).unwrap()
}

fn same_parts(a: &Snapshot, b: &Snapshot) -> bool {
    let outbound = a
        .outbound
        .frontends
        .iter()
        .zip(&b.outbound.frontends)
        .all(|(a, b)| Arc::ptr_eq(a, b))
        && a.outbound
            .backends
            .iter()
            .all(|(key, one)| Arc::ptr_eq(one, &b.outbound.backends[key]))
        && a.outbound
            .subsets
            .iter()
            .all(|(key, one)| Arc::ptr_eq(one, &b.outbound.subsets[key]))
        && a.outbound.direct.iter().all(|(key, one)| {
            let other = &b.outbound.direct[key];
            Arc::ptr_eq(&one.backend, &other.backend)
        })
        && a.outbound
            .delegations
            .iter()
            .all(|(key, one)| Arc::ptr_eq(one, &b.outbound.delegations[key]));
    let inbound = a
        .inbound
        .by_address
        .iter()
        .all(|(key, one)| Arc::ptr_eq(one, &b.inbound.by_address[key]))
        && a.callers
            .by_service
            .iter()
            .all(|(key, one)| Arc::ptr_eq(one, &b.callers.by_service[key]))
        && a.trust
            .grants
            .iter()
            .all(|(key, one)| Arc::ptr_eq(one, &b.trust.grants[key]));
    outbound && inbound
}

/// Every backend that a rule leads to is the one of the index, so that live state is found by either.
fn backends_are_the_index(snapshot: &Snapshot) -> bool {
    fn indexed(backend: &Arc<Backend>, snapshot: &Snapshot) -> bool {
        let outbound = &snapshot.outbound;
        let (service, port) = (backend.service.clone(), backend.port);
        if backend.subset.is_empty() {
            return Arc::ptr_eq(backend, &outbound.backends[&(service, port)]);
        }
        let key = (service, port, Arc::clone(&backend.subset));
        let whole = &outbound.backends[&(key.0.clone(), port)];
        // What is known of an endpoint is known in every subset, and what is known of a subset stays its own.
        let shared = backend.endpoints.iter();
        let shared =
            shared.filter(|one| !whole.endpoints.iter().any(|other| Arc::ptr_eq(one, other)));
        Arc::ptr_eq(backend, &outbound.subsets[&key])
            && shared.count() == 0
            && backend.key != whole.key
    }
    fn mirrors(filters: &[Filter], snapshot: &Snapshot) -> bool {
        filters.iter().all(|filter| match filter {
            Filter::Mirror(mirror) => indexed(&mirror.backend, snapshot),
            _ => true,
        })
    }
    fn all(target: &Target, snapshot: &Snapshot) -> bool {
        match target {
            Target::Backend(backend) => indexed(backend, snapshot),
            Target::Weighted(shares) => shares.iter().all(|share| all(&share.target, snapshot)),
            Target::Failover(targets) => targets.iter().all(|one| all(one, snapshot)),
            Target::Fail { .. } => true,
        }
    }
    snapshot.outbound.frontends.iter().all(|frontend| {
        let consumers = frontend.consumer_rules.values();
        let tables = [&frontend.rules, &frontend.tcp_rules]
            .into_iter()
            .chain(consumers);
        let mut rules = tables.flat_map(|table| &table.rules);
        rules.all(|rule| all(&rule.target, snapshot) && mirrors(&rule.filters, snapshot))
            && frontend
                .tls_rules
                .iter()
                .all(|rule| all(&rule.target, snapshot))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_facts_does_not_matter(
        ((work, documents), shuffled) in parts().prop_flat_map(|(work, documents)| {
            let shuffled = Just(work.clone()).prop_shuffle();
            (Just((work, documents)), shuffled)
        })
    ) {
        let (one, other) = (world(&work, &documents), world(&shuffled, &documents));
        let (one, other) = (compile(&one.input()).unwrap(), compile(&other.input()).unwrap());
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.snapshot.version, other.snapshot.version);
    }

    #[test]
    fn nothing_new_is_all_shared((work, documents) in parts()) {
        let world = world(&work, &documents);
        let first = compile(&world.input()).unwrap();
        let second = again(&world, &first);
        prop_assert_eq!(&first, &second);
        prop_assert!(same_parts(&first.snapshot, &second.snapshot));
        prop_assert!(backends_are_the_index(&second.snapshot));
    }

    #[test]
    fn one_change_leaves_the_others_alone((work, documents) in parts(), pick in any::<prop::sample::Index>()) {
        let mut world = world(&work, &documents);
        let first = compile(&world.input()).unwrap();
        let all: Vec<_> = world.catalog.hosts.iter()
            .flat_map(|(id, host)| host.workloads.keys().map(move |key| (*id, key.clone())))
            .collect();
        prop_assume!(!all.is_empty());
        let (id, key) = &all[pick.index(all.len())];
        let mut service = String::new();
        world.edit_host(*id, |host| {
            let workload = Arc::make_mut(host.workloads.get_mut(key).unwrap());
            service.clone_from(&workload.service);
            let next = if workload.health == i32::from(WireHealth::Healthy) { WireHealth::Unhealthy } else { WireHealth::Healthy };
            workload.health = next.into();
        });
        let second = again(&world, &first);
        for (key, backend) in &second.snapshot.outbound.subsets {
            let touched = key.0.name.as_str().starts_with(&service);
            let shared = first.snapshot.outbound.subsets.get(key).is_some_and(|old| Arc::ptr_eq(old, backend));
            prop_assert!(touched || shared, "{:?} is not shared after a change of {}", key, service);
        }
        for (key, backend) in &second.snapshot.outbound.backends {
            let touched = key.0.name.as_str().starts_with(&service) || key.0.name.as_str() == "legacy";
            let shared = first.snapshot.outbound.backends.get(key).is_some_and(|old| Arc::ptr_eq(old, backend));
            prop_assert!(touched || shared, "{:?} is not shared after a change of {}", key, service);
        }
        prop_assert_eq!(
            first.snapshot.version == second.snapshot.version,
            Snapshot { version: 0, ..first.snapshot.clone() } == Snapshot { version: 0, ..second.snapshot.clone() }
        );
        prop_assert!(backends_are_the_index(&second.snapshot));
    }

    #[test]
    fn virtual_addresses_stay((work, documents) in parts(), (more, _) in parts()) {
        let before = compile(&world(&work, &documents).input()).unwrap();
        let mut all = work.clone();
        all.extend(more.iter().filter(|line| !work.contains(line)));
        let after = again(&world(&all, &documents), &before);
        for (id, pair) in &before.allocations.0 {
            prop_assert_eq!(Some(pair), after.allocations.0.get(id));
        }
        let mut seen = std::collections::BTreeSet::new();
        prop_assert!(after.allocations.0.values().all(|(v4, v6)| seen.insert(v4.to_string()) && seen.insert(v6.to_string())));
        let back = compile(&Input { allocations: &after.allocations, ..world(&[], &[]).input() }).unwrap();
        prop_assert_eq!(back.allocations, after.allocations, "kept although the services are gone");
    }
}

fn proposed(world: &World, text: &str) -> Vec<String> {
    let documents = parse_documents(text, "x").unwrap();
    let deleted: Vec<_> = text
        .strip_prefix("# delete ")
        .and_then(|rest| rest.split_whitespace().next())
        .map(|name| {
            world
                .catalog
                .resources
                .keys()
                .find(|key| key.name == name)
                .unwrap()
                .clone()
        })
        .into_iter()
        .collect();
    let proposal = Proposal {
        catalog: &world.catalog,
        boot: &world.boot,
        live: &world.live,
        host_addresses: &world.addresses,
        documents: &documents,
        deleted: &deleted,
        now_ms: NOW,
    };
    validate(&proposal)
        .into_iter()
        .map(|finding| {
            format!(
                "{:?} {} {}",
                finding.severity, finding.code, finding.subject
            )
        })
        .collect()
}

#[test]
fn proposals() {
    let route = |backend: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: new}}\nspec: {{parentRefs: [{{group: '', kind: Service, name: words}}], rules: [{{matches: [{{path: {{value: /new}}}}], backendRefs: [{{name: {backend}, port: 80}}]}}]}}\n"
        )
    };
    let world = world(&WORK, &DOCUMENTS);
    assert_eq!(
        proposed(&world, &route("words")),
        Vec::<String>::new(),
        "what is wrong already is not told"
    );
    assert_eq!(
        proposed(&world, &route("nobody")),
        ["Error route-unknown-backend HTTPRoute/default/new"]
    );
    assert!(UNKNOWN_REFERENCES.contains(&"route-unknown-backend"));
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: nobody}\nspec: {selector: {app: words}, ports: [{port: 80}]}\n";
    let both = format!("{}---\n{service}", route("nobody"));
    assert_eq!(
        proposed(&world, &both),
        Vec::<String>::new(),
        "a service may come with its route"
    );
    let found = proposed(&world, "# delete words-v2\n");
    assert!(
        found.contains(&"Warning route-unknown-backend HTTPRoute/default/words".to_owned()),
        "{found:?}"
    );
    assert!(
        !found
            .iter()
            .any(|line| line.starts_with(&format!("{:?}", Severity::Error))),
        "{found:?}"
    );
}

#[test]
fn proposals_of_traffic() {
    let world = world(&WORK, &DOCUMENTS[9..11]);
    let virtual_service = |subset: &str, port: u16| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: new}}\nspec: {{hosts: [simon], http: [{{match: [{{port: {port}}}], route: [{{destination: {{host: words, subset: {subset}}}}}]}}]}}\n"
        )
    };
    let own = |text: &str| {
        let found = proposed(&world, text).into_iter();
        found
            .filter(|line| line.contains("/new"))
            .collect::<Vec<_>>()
    };
    assert_eq!(own(&virtual_service("v1", 80)), Vec::<String>::new());
    assert_eq!(
        own(&virtual_service("v3", 80)),
        ["Error route-unknown-subset VirtualService/default/new"]
    );
    assert_eq!(
        own(&virtual_service("v1", 99)),
        ["Error policy-unknown-port VirtualService/default/new"]
    );
    let limit = "apiVersion: meshd.io/v1alpha1\nkind: RateLimit\nmetadata: {name: new}\nspec: {targetRefs: [{name: nobody}], limit: {requests: 1, per: 1s}}\n";
    assert_eq!(
        own(limit),
        ["Error policy-unknown-target RateLimit/default/new"]
    );
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: new}\nspec: {host: simon, subsets: [{name: a, labels: {no: such}, trafficPolicy: {portLevelSettings: [{port: {number: 7}, loadBalancer: {simple: RANDOM}}]}}]}\n";
    assert_eq!(
        own(rule),
        ["Error policy-unknown-port DestinationRule/default/new"]
    );
    let again = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: new}\nspec: {host: words}\n";
    assert_eq!(
        own(again),
        ["Error rule-without-effect DestinationRule/default/new"]
    );
    let deleted = &world.catalog.resources.keys();
    let deleted = deleted
        .clone()
        .find(|key| key.kind == "DestinationRule")
        .unwrap();
    let proposal = Proposal {
        catalog: &world.catalog,
        boot: &world.boot,
        live: &world.live,
        host_addresses: &world.addresses,
        documents: &[],
        deleted: std::slice::from_ref(deleted),
        now_ms: NOW,
    };
    let found = validate(&proposal);
    assert!(
        found
            .iter()
            .any(|finding| finding.code == "route-unknown-subset"
                && finding.severity == Severity::Warning
                && finding
                    .what
                    .starts_with("spec.http[0].route[0].destination: ")),
        "{found:?}"
    );
}

#[test]
fn too_many_services() {
    let mut world =
        World::parse("mesh m.internal mesh.internal\nhost h1 10.0.0.1 own\nhost h2 10.0.0.2");
    world.boot.virtual_v4 = ("198.18.0.0".parse().unwrap(), 24);
    let mut lines: Vec<String> = (0..254)
        .map(|number| format!("work h2 s{number} {}", 1000 + number))
        .collect();
    let text = |lines: &[String]| {
        format!(
            "mesh m.internal mesh.internal\nhost h1 10.0.0.1 own\nhost h2 10.0.0.2\n{}",
            lines.join("\n")
        )
    };
    let full = World {
        boot: world.boot.clone(),
        ..World::parse(&text(&lines))
    };
    let compiled = compile(&full.input()).unwrap();
    let given: std::collections::BTreeSet<_> =
        compiled.allocations.0.values().map(|(v4, _)| *v4).collect();
    assert_eq!(given.len(), 254, "every address of the range is given once");
    lines.push("work h2 onemore 80".to_owned());
    let over = World {
        boot: world.boot.clone(),
        ..World::parse(&text(&lines))
    };
    assert!(compile(&over.input()).is_err());
}

#[test]
fn allocations_are_kept_as_json() {
    let compiled = compile(&world(&WORK, &DOCUMENTS).input()).unwrap();
    let text = serde_json::to_string(&compiled.allocations).unwrap();
    assert!(text.contains("\"default/words\":[\"240.240."), "{text}");
    let back: mesh_plan::Allocations = serde_json::from_str(&text).unwrap();
    assert_eq!(back, compiled.allocations);
}

#[test]
fn a_host_captures_no_calls_of_addresses_that_are_not_its_own() {
    let mut world = world(&["work h2 words http:80>8080/http"], &[]);
    let captured = |world: &World| compile(&world.input()).unwrap().direct;
    let known: std::net::SocketAddr = "10.0.0.2:8080".parse().unwrap();
    assert_eq!(captured(&world), [known]);
    let thief = *world
        .catalog
        .hosts
        .iter()
        .find(|(_, host)| !host.workloads.is_empty())
        .unwrap()
        .0;
    world.edit_host(thief, |host| {
        for workload in host.workloads.values_mut() {
            Arc::make_mut(workload).address = "192.0.2.1".to_owned();
        }
    });
    assert_eq!(captured(&world), []);
}

/// A service that was adopted and is given back: connections that were captured go on, new ones are left alone.
#[test]
fn what_was_captured_goes_on_when_its_tunnel_is_gone() {
    let text = |work: &str| {
        format!(
            "mesh m.internal mesh.internal\nhost h1 10.0.0.1 own\nhost h2 10.0.0.2\n{work}\
             view h2 consul/dc1 web 10.0.0.2:8080\n"
        )
    };
    let (with, without) = (
        World::parse(&text("work h2 web 8080>8080/http\n")),
        World::parse(&text("")),
    );
    let address = "10.0.0.2:8080".parse().unwrap();
    let before = compile(&with.input()).unwrap();
    assert_eq!(before.direct, [address]);
    let after = again(&without, &before);
    assert_eq!(after.direct, []);
    let direct = &after.snapshot.outbound.direct[&address];
    assert!(direct.endpoint.tunnel.is_none());
    let fresh = compile(&without.input()).unwrap();
    assert!(fresh.snapshot.outbound.direct.is_empty());
}
