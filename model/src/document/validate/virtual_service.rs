//! `VirtualService`: who it is for, where connections go; its HTTP routes are looked at below.

use super::{at_most, export_to, host, port, service_host, source};
use crate::{
    document::{
        Metadata,
        virtual_service::{
            ConnectionDestination, Destination, TcpRoute, TlsRoute, VirtualServiceSpec, in_mesh,
            shares,
        },
    },
    name::is_label,
    written::At,
};

mod condition;
mod http;
mod retry;

const MAX_ROUTES: usize = 256;
const MAX_MATCHES: usize = 64;

pub(super) fn check(service: &VirtualServiceSpec, at: &At<'_>, metadata: &Metadata) {
    hosts(&service.hosts, &at.key("hosts"));
    gateways(
        &service.gateways,
        "nothing of this document acts: it is for gateways, and not for the mesh",
        &at.key("gateways"),
    );
    export_to(&service.export_to, &at.key("exportTo"));
    if service.http.is_empty() && service.tls.is_empty() && service.tcp.is_empty() {
        at.fault("routes nothing", "write `http`, `tls` or `tcp`");
    }
    for (key, count) in [
        ("http", service.http.len()),
        ("tls", service.tls.len()),
        ("tcp", service.tcp.len()),
    ] {
        at_most(count, MAX_ROUTES, &at.key(key));
    }
    for (index, route) in service.http.iter().enumerate() {
        http::route(route, &at.key("http").index(index), metadata);
    }
    for (index, route) in service.tls.iter().enumerate() {
        tls(route, &at.key("tls").index(index));
    }
    for (index, route) in service.tcp.iter().enumerate() {
        tcp(route, &at.key("tcp").index(index));
    }
    hidden(service, at);
}

fn hosts(given: &[String], at: &At<'_>) {
    at_most(given.len(), 64, at);
    if given.is_empty() {
        at.note("without hosts it is for others to delegate to, which is not done here: nothing of it acts");
    }
    for (index, name) in given.iter().enumerate() {
        let here = at.index(index);
        if name == "*" || name.starts_with("*.") {
            here.note("a wildcard names no service: only services named in full are routed");
        } else if name.parse::<std::net::IpAddr>().is_ok() {
            here.note("an address names no service: only services named in full are routed");
        } else {
            host(name, &here);
        }
        if given.iter().take(index).any(|other| other == name) {
            here.fault(format!("{name:?} is written twice"), "leave one of them");
        }
    }
}

/// Gateways beside `mesh` are told; without it `nothing` is.
fn gateways(given: &[String], nothing: &str, at: &At<'_>) {
    if !in_mesh(given) {
        at.note(nothing);
        return;
    }
    for (index, name) in given.iter().enumerate().filter(|(_, name)| *name != "mesh") {
        at.index(index).note(format!(
            "the gateway {name} is not known here; calls inside the mesh are routed"
        ));
    }
}

/// What stands behind a route that takes everything never acts.
fn hidden(service: &VirtualServiceSpec, at: &At<'_>) {
    let whole = service
        .http
        .iter()
        .position(|route| route.matches.is_empty() && route.delegate.is_none());
    if let Some(whole) = whole {
        for index in whole + 1..service.http.len() {
            at.key("http").index(index).note(format!(
                "no request comes here: http[{whole}] takes every one"
            ));
        }
    }
    let whole = service
        .tcp
        .iter()
        .position(|route| route.matches.is_empty());
    if let Some(whole) = whole {
        for index in whole + 1..service.tcp.len() {
            at.key("tcp").index(index).note(format!(
                "no connection comes here: tcp[{whole}] takes every one"
            ));
        }
    }
}

fn tls(route: &TlsRoute, at: &At<'_>) {
    let here = at.key("match");
    at_most(route.matches.len(), MAX_MATCHES, &here);
    if route.matches.is_empty() {
        here.fault("is missing", "write `match` with `sniHosts`");
    }
    for (index, one) in route.matches.iter().enumerate() {
        let at = here.index(index);
        let names = at.key("sniHosts");
        if one.sni_hosts.is_empty() {
            names.fault("are missing", "write at least one server name");
        }
        at_most(one.sni_hosts.len(), 64, &names);
        for (index, name) in one.sni_hosts.iter().enumerate() {
            if name != "*" {
                host(name.strip_prefix("*.").unwrap_or(name), &names.index(index));
            }
        }
        destination_subnets(&one.destination_subnets, &at);
        port(one.port, &at.key("port"));
        condition::caller(
            &condition::Caller {
                gateways: &one.gateways,
                labels: &one.source_labels,
                namespace: one.source_namespace.as_deref(),
                services: &one.source_services,
                subnets: &one.source_subnets,
            },
            &at,
        );
    }
    connections(&route.route, &at.key("route"));
}

fn tcp(route: &TcpRoute, at: &At<'_>) {
    at_most(route.matches.len(), MAX_MATCHES, &at.key("match"));
    for (index, one) in route.matches.iter().enumerate() {
        let at = at.key("match").index(index);
        destination_subnets(&one.destination_subnets, &at);
        port(one.port, &at.key("port"));
        if let Some(subnet) = &one.source_subnet {
            source::subnet(subnet, &at.key("sourceSubnet"));
        }
        condition::caller(
            &condition::Caller {
                gateways: &one.gateways,
                labels: &one.source_labels,
                namespace: one.source_namespace.as_deref(),
                services: &one.source_services,
                subnets: &one.source_subnets,
            },
            &at,
        );
    }
    connections(&route.route, &at.key("route"));
}

fn destination_subnets(given: &[String], at: &At<'_>) {
    let at = at.key("destinationSubnets");
    source::subnets(given, &at);
    if !given.is_empty() {
        at.note("is not asked: the service that was called decides");
    }
}

fn connections(given: &[ConnectionDestination], at: &At<'_>) {
    if given.is_empty() {
        at.fault("is missing", "write where connections go");
    }
    for (index, one) in given.iter().enumerate() {
        destination(&one.destination, &at.index(index).key("destination"));
    }
    let weights: Vec<_> = given.iter().map(|one| one.weight).collect();
    check_weights(&weights, at);
}

/// A service and a part of it.
fn destination(given: &Destination, at: &At<'_>) {
    service_host(&given.host, &at.key("host"));
    if let Some(subset) = given.subset.as_deref()
        && !subset_name(subset)
    {
        at.key("subset").fault(
            format!("{subset:?} is no name of a subset"),
            "use 1 to 63 letters, digits, - and .",
        );
    }
    port(
        given.port.map(|port| port.number),
        &at.key("port").key("number"),
    );
}

/// Istio's names of subsets are labels; capitals and dots are often met, and harmless.
pub(super) fn subset_name(name: &str) -> bool {
    is_label(name)
        || ((1..=63).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')))
}

fn check_weights(weights: &[Option<u32>], at: &At<'_>) {
    at_most(weights.len(), 64, at);
    for (index, weight) in weights.iter().enumerate() {
        if weight.is_some_and(|weight| weight > 1_000_000) {
            at.index(index)
                .key("weight")
                .fault("is out of range", "write 0 to 1000000");
        }
    }
    let sum: u64 = shares(weights).into_iter().map(u64::from).sum();
    if weights.len() > 1 && sum == 0 {
        at.fault(
            "the weights add up to 0, so no destination would get anything",
            "give one a weight of at least 1; of several, one without a weight gets nothing",
        );
    }
}
