//! What must go on when this process dies: direct rules and names, kept current with every plan.
//!
//! In: a compiled plan. Out: the intent of the interception, with the plain endpoints of every virtual
//! address, and the entries of the names file. Never: decides which endpoints take plaintext; the plan does.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use mesh_intercept::{Inbound, Intent, Virtual};
use mesh_model::config::Boot;
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
    let empty = Intent {
        virtual_v4: boot.virtual_v4,
        virtual_v6: boot.virtual_v6,
        host_v4,
        host_v6,
        // What peers dial to reach us must never be turned back to ourselves.
        skip_ports: vec![listeners.tunnel.port(), boot.cluster.listen.port()],
        ..Intent::empty(listeners.outbound_port, listeners.inbound_port, boot.mark)
    };
    followed(empty, compiled)
}

/// The entries of the names file.
pub(crate) fn names(compiled: &Compiled) -> Vec<Entry> {
    let mut plain: BTreeMap<IpAddr, BTreeSet<IpAddr>> = BTreeMap::new();
    for one in &compiled.virtuals {
        plain
            .entry(one.address)
            .or_default()
            .extend(one.fallback.iter().map(SocketAddr::ip));
    }
    compiled
        .names
        .iter()
        .map(|(name, addresses)| {
            // An address that is not virtual is an endpoint's own already.
            let direct: BTreeSet<IpAddr> = addresses
                .iter()
                .flat_map(|ip| {
                    plain
                        .get(ip)
                        .cloned()
                        .unwrap_or_else(|| BTreeSet::from([*ip]))
                })
                .collect();
            Entry {
                name: name.clone(),
                addresses: addresses.clone(),
                direct: direct.into_iter().collect(),
            }
        })
        .collect()
}

fn followed(empty: Intent, compiled: &Compiled) -> Intent {
    let ports = &compiled.snapshot.inbound.by_address;
    let strict = |address| ports.get(address).is_some_and(|port| port.strict);
    Intent {
        virtuals: compiled
            .virtuals
            .iter()
            .map(|one| Virtual {
                address: SocketAddr::new(one.address, one.port),
                endpoints: one.fallback.clone(),
                fail_closed: one.fail_closed,
            })
            .collect(),
        direct: compiled.direct.clone(),
        inbound: compiled
            .inbound
            .iter()
            .map(|address| Inbound {
                address: *address,
                strict: strict(address),
            })
            .collect(),
        ..empty
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_model::{
        config::Mark,
        name::{Namespace, ServiceId, ServiceName},
        service::AppProtocol,
        snapshot::{Authorization, ConnectionTerms, InboundPort},
    };
    use mesh_plan::VirtualPort;

    use super::*;

    fn compiled() -> Compiled {
        let virtual_port = |address: &str, fallback: &[&str], fail_closed| VirtualPort {
            address: address.parse().unwrap(),
            port: 80,
            fallback: fallback.iter().map(|text| text.parse().unwrap()).collect(),
            fail_closed,
        };
        let name = |name: &str, addresses: &[&str]| {
            (
                name.to_owned(),
                addresses.iter().map(|text| text.parse().unwrap()).collect(),
            )
        };
        Compiled {
            virtuals: vec![
                virtual_port("240.240.1.2", &["10.0.0.2:8080", "10.0.0.3:8080"], false),
                virtual_port("240.240.1.3", &[], true),
                virtual_port("fd6d::2", &["[fd00::2]:8080"], false),
            ],
            names: vec![
                name("words.mesh.internal", &["240.240.1.2", "fd6d::2"]),
                name("bank.mesh.internal", &["240.240.1.3"]),
                name("headless.mesh.internal", &["10.0.0.9"]),
            ],
            direct: vec!["10.0.0.2:8080".parse().unwrap()],
            inbound: vec![
                "10.0.0.1:8081".parse().unwrap(),
                "10.0.0.1:9443".parse().unwrap(),
            ],
            ..Compiled::default()
        }
    }

    #[test]
    fn the_intent_follows_the_plan() {
        let mut compiled = compiled();
        let service = ServiceId::new(
            Namespace::new("default").unwrap(),
            ServiceName::new("bank").unwrap(),
        );
        let port = InboundPort {
            service,
            principal: "spiffe://demo.example/ns/default/sa/bank".parse().unwrap(),
            target: "127.0.0.1:9443".parse().unwrap(),
            protocol: AppProtocol::Detect,
            strict: true,
            labels: Arc::default(),
            authorization: Authorization::default(),
            limits: Arc::from([]),
            connections: ConnectionTerms::default(),
        };
        let inbound = &mut compiled.snapshot.inbound.by_address;
        inbound.insert("10.0.0.1:9443".parse().unwrap(), Arc::new(port));
        let intent = followed(Intent::empty(1, 2, Mark { value: 1, mask: 3 }), &compiled);
        assert_eq!(
            intent
                .inbound
                .iter()
                .map(|one| one.strict)
                .collect::<Vec<_>>(),
            [false, true]
        );
        assert_eq!(intent.direct, compiled.direct);
        let shown: Vec<String> = intent
            .virtuals
            .iter()
            .map(|one| format!("{} {:?} {}", one.address, one.endpoints, one.fail_closed))
            .collect();
        assert_eq!(
            shown,
            [
                "240.240.1.2:80 [10.0.0.2:8080, 10.0.0.3:8080] false",
                "240.240.1.3:80 [] true",
                "[fd6d::2]:80 [[fd00::2]:8080] false"
            ]
        );
    }

    #[test]
    fn names_have_plain_addresses_where_the_plan_has_them() {
        let shown: Vec<String> = names(&compiled())
            .iter()
            .map(|one| format!("{} {:?}", one.name, one.direct))
            .collect();
        assert_eq!(
            shown,
            [
                "words.mesh.internal [10.0.0.2, 10.0.0.3, fd00::2]",
                "bank.mesh.internal []",
                "headless.mesh.internal [10.0.0.9]"
            ]
        );
    }
}
