//! What two keys cannot both have: sockets, instances, users, units.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use crate::{
    address::is_loopback,
    config::{Boot, LocalService},
    written::At,
};

/// A socket of the daemon: what it is called, its key, where it listens.
struct Listener {
    section: &'static str,
    key: &'static str,
    addresses: Vec<SocketAddr>,
}

fn all(boot: &Boot) -> Vec<Listener> {
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let listeners = &boot.listeners;
    let listener = |section, key, addresses| Listener {
        section,
        key,
        addresses,
    };
    vec![
        listener(
            "listeners",
            "outbound_port",
            loopback
                .map(|ip| SocketAddr::new(ip, listeners.outbound_port))
                .to_vec(),
        ),
        listener(
            "listeners",
            "inbound_port",
            vec![SocketAddr::new(any, listeners.inbound_port)],
        ),
        listener("listeners", "tunnel", vec![listeners.tunnel]),
        listener(
            "listeners",
            "explicit",
            listeners.explicit.into_iter().collect(),
        ),
        listener("listeners", "metrics", vec![listeners.metrics]),
        listener("cluster", "listen", vec![boot.cluster.listen]),
        listener("names", "listen", boot.names.listen.clone()),
    ]
}

/// The daemon's sockets among themselves.
pub(super) fn listeners(boot: &Boot, at: &At<'_>) {
    let all = all(boot);
    for (index, one) in all.iter().enumerate() {
        for other in all.iter().take(index) {
            let both = one.addresses.iter().find(|a| {
                other
                    .addresses
                    .iter()
                    .any(|b| same_port(**a, *b) && overlap(a.ip(), b.ip()))
            });
            if let Some(address) = both {
                // The fault stands at a key that was written; of two defaults there is none.
                let here = at.key(one.section).key(one.key);
                let (here, other) = match here.node() {
                    Some(_) => (here, other),
                    None => (at.key(other.section).key(other.key), one),
                };
                here.fault(
                    format!(
                        "port {} is that of {}.{} already",
                        address.port(),
                        other.section,
                        other.key
                    ),
                    "use another port for one of them",
                );
            }
        }
    }
}

fn same_port(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port()
}

/// True when both cannot be bound with one port; the unspecified IPv6 address takes IPv4 too.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let takes = |a: IpAddr, b: IpAddr| match a {
        IpAddr::V6(v6) => v6.is_unspecified(),
        IpAddr::V4(v4) => v4.is_unspecified() && b.is_ipv4(),
    };
    a == b || takes(a, b) || takes(b, a)
}

/// True when two services cannot both listen; none means the host's own addresses.
fn services_overlap(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (None, None) => true,
        (None, Some(other)) | (Some(other), None) => !is_loopback(other),
        (Some(a), Some(b)) => overlap(a, b),
    }
}

/// Local services among themselves and against the daemon's sockets.
pub(super) fn services(boot: &Boot, services: &[Arc<LocalService>], at: &At<'_>) {
    let listeners = all(boot);
    let mut uids: BTreeMap<u32, &LocalService> = BTreeMap::new();
    let mut units: BTreeMap<&str, &LocalService> = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        let at = at.index(index);
        let before = services.get(..index).unwrap_or_default();
        if let Some(other) = before
            .iter()
            .find(|other| other.instance == service.instance)
        {
            let key = if at.key("instance").node().is_some() {
                "instance"
            } else {
                "name"
            };
            at.key(key).fault(
                format!(
                    "instance {:?} is that of {} ({}) already",
                    service.instance, other.service, other.origin
                ),
                "give each a different `instance`",
            );
        }
        targets(service, before, &listeners, &at);
        for uid in &service.recognise.uids {
            let other = *uids.entry(*uid).or_insert(service);
            refuse_overlap(service, other, &at.key("user"), &format!("user {uid}"));
        }
        if let Some(unit) = &service.recognise.unit {
            let other = *units.entry(unit).or_insert(service);
            refuse_overlap(service, other, &at.key("unit"), unit);
        }
    }
}

fn refuse_overlap(service: &LocalService, other: &LocalService, at: &At<'_>, what: &str) {
    let same = other.service == service.service && other.service_account == service.service_account;
    if !same {
        at.fault(
            format!(
                "{what} belongs to {} ({}) already",
                other.service, other.origin
            ),
            "one user or unit can be one service only; give each its own",
        );
    }
}

fn targets(
    service: &LocalService,
    before: &[Arc<LocalService>],
    listeners: &[Listener],
    at: &At<'_>,
) {
    for (index, port) in service.ports.iter().enumerate() {
        let at = at.key("ports").index(index);
        let at = if at.key("target").node().is_some() {
            at.key("target")
        } else {
            at.key("port")
        };
        let other = before.iter().find(|other| {
            services_overlap(other.address, service.address)
                && other
                    .ports
                    .iter()
                    .any(|theirs| theirs.target == port.target)
        });
        if let Some(other) = other {
            at.fault(
                format!(
                    "{} is where {} ({}) listens already",
                    port.target, other.instance, other.origin
                ),
                "two programs cannot listen on one address and port; correct one of them",
            );
        }
        let taken = listeners.iter().find(|listener| {
            listener.addresses.iter().any(|address| {
                address.port() == port.target
                    && service.address.map_or_else(
                        || !is_loopback(address.ip()),
                        |ip| overlap(ip, address.ip()),
                    )
            })
        });
        if let Some(listener) = taken {
            at.fault(
                format!(
                    "{} is meshd's own port ({}.{})",
                    port.target, listener.section, listener.key
                ),
                "use another port for one of them",
            );
        }
    }
}
