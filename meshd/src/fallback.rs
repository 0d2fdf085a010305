//! What must go on when this process dies: direct rules and names, kept current with every plan.
//!
//! In: a compiled plan. Out: the intent of the interception, with the plain endpoints of every virtual
//! address, and the entries of the names file. Never: offers an endpoint that would refuse plaintext.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use mesh_intercept::{Inbound, Intent, Virtual};
use mesh_model::{
    config::Boot,
    snapshot::{Backend, Frontend, Snapshot},
};
use mesh_plan::Compiled;

use crate::names::Entry;

/// What should be intercepted, and where calls go directly.
pub(crate) fn intent(
    boot: &Boot,
    host_v4: Option<Ipv4Addr>,
    host_v6: Option<Ipv6Addr>,
    compiled: &Compiled,
) -> Intent {
    let listeners = &boot.listeners;
    Intent {
        virtual_v4: boot.virtual_v4,
        virtual_v6: boot.virtual_v6,
        host_v4,
        host_v6,
        // What peers dial to reach us must never be turned back to ourselves.
        skip_ports: vec![listeners.tunnel.port(), boot.cluster.listen.port()],
        ..followed(
            Intent::empty(listeners.outbound_port, listeners.inbound_port, boot.mark),
            &compiled.snapshot,
        )
    }
}

/// The entries of the names file.
pub(crate) fn names(compiled: &Compiled) -> Vec<Entry> {
    entries(&compiled.names, &compiled.snapshot)
}

fn followed(empty: Intent, snapshot: &Snapshot) -> Intent {
    let mut inbound: Vec<Inbound> = snapshot
        .inbound
        .by_address
        .iter()
        .map(|(&address, port)| Inbound {
            address,
            strict: port.strict,
        })
        .collect();
    inbound.sort_by_key(|one| one.address);
    let direct: BTreeSet<SocketAddr> = snapshot.outbound.direct.keys().copied().collect();
    Intent {
        virtuals: snapshot
            .outbound
            .frontends
            .iter()
            .flat_map(|one| virtuals(one))
            .collect(),
        direct: direct.into_iter().collect(),
        inbound,
        ..empty
    }
}

fn virtuals(frontend: &Frontend) -> impl Iterator<Item = Virtual> {
    let endpoints = plain(&frontend.backend);
    frontend
        .virtual_addresses
        .iter()
        .map(move |&address| Virtual {
            address: SocketAddr::new(address, frontend.port),
            endpoints: endpoints.clone(),
            fail_closed: frontend.fail_closed,
        })
}

/// Where a call can go without the mesh: the preferred endpoints, or any when none is; another host's loopback is
/// out of reach.
fn plain(backend: &Backend) -> Vec<SocketAddr> {
    let reachable = || {
        backend
            .endpoints
            .iter()
            .filter(|one| one.local || !one.address.ip().is_loopback())
    };
    let best: BTreeSet<SocketAddr> = reachable()
        .filter(|one| one.preferred)
        .map(|one| one.address)
        .collect();
    if best.is_empty() {
        return reachable()
            .map(|one| one.address)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
    }
    best.into_iter().collect()
}

fn entries(names: &[(String, Vec<IpAddr>)], snapshot: &Snapshot) -> Vec<Entry> {
    let mut direct: BTreeMap<IpAddr, BTreeSet<IpAddr>> = BTreeMap::new();
    for frontend in snapshot
        .outbound
        .frontends
        .iter()
        .filter(|one| !one.fail_closed)
    {
        let addresses: BTreeSet<IpAddr> = plain(&frontend.backend)
            .iter()
            .map(SocketAddr::ip)
            .collect();
        for &address in &frontend.virtual_addresses {
            direct.entry(address).or_default().extend(&addresses);
        }
    }
    let domain = snapshot.mesh.as_ref().map_or("", |mesh| &*mesh.domain);
    names
        .iter()
        .map(|(name, addresses)| {
            let plain: BTreeSet<IpAddr> = addresses
                .iter()
                .filter_map(|address| direct.get(address))
                .flatten()
                .copied()
                .collect();
            Entry {
                name: full(name, domain),
                addresses: addresses.clone(),
                direct: plain.into_iter().collect(),
            }
        })
        .collect()
}

/// The name with the mesh's domain behind it.
fn full(name: &str, domain: &str) -> String {
    let name = name.trim_end_matches('.');
    if domain.is_empty()
        || name
            .strip_suffix(domain)
            .is_some_and(|before| before.ends_with('.'))
    {
        return name.to_owned();
    }
    format!("{name}.{domain}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_model::{
        config::Mark,
        name::{HostId, Namespace, ServiceId, ServiceName},
        principal::TrustDomain,
        service::AppProtocol,
        snapshot::{BackendEndpoint, BackendKey, EndpointKey, MeshView, RuleTable},
    };

    use super::*;

    fn endpoint(address: &str, local: bool, preferred: bool) -> Arc<BackendEndpoint> {
        Arc::new(BackendEndpoint {
            key: EndpointKey(0),
            id: address.into(),
            address: address.parse().unwrap(),
            tunnel: None,
            local,
            weight: 1,
            priority: 0,
            preferred,
            host: None,
            host_name: "".into(),
            labels: Arc::default(),
        })
    }

    fn frontend(
        port: u16,
        fail_closed: bool,
        endpoints: Vec<Arc<BackendEndpoint>>,
    ) -> Arc<Frontend> {
        let service = ServiceId::new(
            Namespace::new("default").unwrap(),
            ServiceName::new("words").unwrap(),
        );
        let backend = Backend {
            key: BackendKey(0),
            service: service.clone(),
            port,
            protocol: AppProtocol::Detect,
            endpoints,
        };
        Arc::new(Frontend {
            service,
            port,
            port_name: "".into(),
            protocol: AppProtocol::Detect,
            virtual_addresses: vec!["240.240.1.2".parse().unwrap(), "fd6d::2".parse().unwrap()],
            fail_closed,
            rules: RuleTable::default(),
            consumer_rules: BTreeMap::new(),
            tcp_rules: RuleTable::default(),
            backend: Arc::new(backend),
        })
    }

    fn snapshot(frontends: Vec<Arc<Frontend>>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.outbound.frontends = frontends;
        snapshot.mesh = Some(MeshView {
            trust_domain: TrustDomain::new("demo.example").unwrap(),
            domain: "mesh.internal".into(),
            host: HostId([1; 16]),
            host_name: "h1".into(),
        });
        snapshot
    }

    #[test]
    fn calls_go_on_to_what_is_healthy_and_in_reach() {
        let snapshot = snapshot(vec![frontend(
            80,
            false,
            vec![
                endpoint("10.0.0.2:8080", false, true),
                endpoint("10.0.0.3:8080", false, false),
                endpoint("127.0.0.1:8080", true, true),
                endpoint("127.0.0.1:9090", false, true),
            ],
        )]);
        let intent = followed(Intent::empty(1, 2, Mark { value: 1, mask: 3 }), &snapshot);
        let shown: Vec<String> = intent
            .virtuals
            .iter()
            .map(|one| format!("{} {:?} {}", one.address, one.endpoints, one.fail_closed))
            .collect();
        assert_eq!(
            shown,
            [
                "240.240.1.2:80 [10.0.0.2:8080, 127.0.0.1:8080] false",
                "[fd6d::2]:80 [10.0.0.2:8080, 127.0.0.1:8080] false"
            ]
        );
    }

    #[test]
    fn a_service_that_nobody_prefers_still_has_its_endpoints() {
        let backend = vec![endpoint("10.0.0.2:80", false, false)];
        let one = frontend(80, false, backend);
        assert_eq!(plain(&one.backend), ["10.0.0.2:80".parse().unwrap()]);
    }

    #[test]
    fn names_have_plain_addresses_unless_fail_closed() {
        let addresses: Vec<IpAddr> = vec!["240.240.1.2".parse().unwrap()];
        let names = [
            ("words".to_owned(), addresses.clone()),
            ("words.mesh.internal".to_owned(), addresses),
        ];
        let backend = || vec![endpoint("10.0.0.2:8080", false, true)];
        let open = entries(&names, &snapshot(vec![frontend(80, false, backend())]));
        assert!(open.iter().all(|entry| entry.name == "words.mesh.internal"));
        assert!(
            open.iter()
                .all(|entry| entry.direct == ["10.0.0.2".parse::<IpAddr>().unwrap()])
        );
        let closed = entries(&names, &snapshot(vec![frontend(80, true, backend())]));
        assert!(
            closed
                .iter()
                .all(|entry| entry.direct.is_empty() && entry.addresses.len() == 1)
        );
    }
}
