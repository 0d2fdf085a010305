//! What is packed comes back as it was, and takes little.

use mesh_model::{endpoint::AuthorityForm, endpoint::TunnelKind};
use proptest::prelude::*;

use super::*;

fn addresses() -> impl Strategy<Value = Address> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| Address::Socket((ip, port).into())),
        any::<([u8; 16], u16, u32, u32)>().prop_map(|(ip, port, flow, scope)| {
            Address::Socket(SocketAddrV6::new(ip.into(), port, flow, scope).into())
        }),
        ("[a-z.]{0,9}", any::<u16>()).prop_map(|(host, port)| Address::Host {
            host: host.into(),
            port
        }),
    ]
}

fn healths() -> impl Strategy<Value = Health> {
    use Health::{Degraded, Draining, Healthy, Unhealthy, Unknown};
    prop::sample::select(vec![Unknown, Healthy, Degraded, Draining, Unhealthy])
}

fn tunnel(address: SocketAddr) -> Tunnel {
    Tunnel {
        kind: TunnelKind::Hbone,
        address,
        server_name: None,
        sans: Arc::default(),
        next_hop: None,
        authority: AuthorityForm::Host,
        network: Some("n".into()),
    }
}

prop_compose! {
    fn endpoints()(
        id in "[ab]{0,3}|\\PC{0,200}",
        address in addresses(),
        health in healths(),
        weight in prop_oneof![Just(1), any::<u32>()],
        priority in prop_oneof![Just(0), any::<u16>()],
        zone in prop::option::of("[ab]?"),
        labels in prop::collection::btree_map("[ab]?", "[ab]?", 0..2),
        host in prop::option::weighted(0.1, any::<[u8; 16]>()),
        is_reached in prop::bool::weighted(0.1),
    ) -> Endpoint {
        let tunnel = address.socket().filter(|_| is_reached).map(tunnel);
        let locality = zone.map(|zone| Arc::new(Locality { zone: Some(zone.into()), ..Locality::default() }));
        Endpoint {
            id: id.into(), address, health, weight, priority, locality, metadata: Arc::new(labels),
            host: host.map(HostId), tunnel,
        }
    }
}

fn sets() -> impl Strategy<Value = ServiceSet> {
    let protocols = prop::sample::select(vec!["detect", "http", "http2", "grpc", "tcp"]);
    let ports = prop_oneof![Just(0), any::<u16>()];
    let all = prop::collection::vec(endpoints(), 0..12);
    (ports, protocols, all).prop_map(|(port, protocol, endpoints)| ServiceSet {
        port,
        protocol: protocol.parse().unwrap(),
        endpoints,
    })
}

proptest! {
    #[test]
    fn a_set_comes_back_as_it_was(set in sets()) {
        prop_assert_eq!(Packed::of(&set).unpacked(), set);
    }

    #[test]
    fn so_does_what_is_written_around_it(sets in prop::collection::vec((any::<u64>(), "\\PC{0,9}", sets()), 0..5)) {
        let mut writer = Writer::default();
        for (number, text, set) in &sets {
            writer.number(*number);
            writer.text(text);
            writer.set(set, text);
        }
        let packed = writer.end();
        let mut reader = packed.reader();
        for (number, text, set) in &sets {
            prop_assert_eq!(reader.number(), Some(*number));
            prop_assert_eq!(reader.text(), Some(text.as_str()));
            let again = reader.set(text);
            prop_assert_eq!(again.as_ref(), Some(set));
        }
        prop_assert!(reader.number().is_none() && reader.set("").is_none());
    }

    /// Nothing that could stand there makes it panic, or reserve more than there is.
    #[test]
    fn foreign_bytes_are_nothing(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let packed = Packed { bytes: bytes.into(), rest: Box::default() };
        let _any = packed.reader().set("x");
    }
}

#[test]
fn an_endpoint_takes_few_bytes() {
    let labels = Arc::new(BTreeMap::from([("rack".to_owned(), "r12".to_owned())]));
    let one = |port: u16| Endpoint {
        metadata: Arc::clone(&labels),
        ..crate::fake::endpoint(port)
    };
    let set = ServiceSet::from((1..=10).map(one).collect::<Vec<_>>());
    let ids: usize = set.endpoints.iter().map(|one| one.id.len()).sum();
    let packed = Packed::of(&set);
    assert!(packed.bytes.len() <= ids + 100, "{}", packed.bytes.len());
    assert_eq!(packed.rest.len(), 1);
}
