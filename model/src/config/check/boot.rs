//! What needs a restart: directories, host, sockets, capture, cluster, names.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::{absolute, ip, labels, range, socket};
use crate::{
    config::{
        AccessLog, AccessLogDestination, Boot, Capture, Cluster, Listeners, Mark, Names,
        file::{
            FileAccessLog, FileCapture, FileCluster, FileHost, FileListeners, FileNames, FileRoot,
        },
    },
    endpoint::Locality,
    written::At,
};

/// Bits with which kube-proxy marks packets to be masqueraded or dropped.
const KUBE_PROXY_BITS: u32 = 0x4000 | 0x8000;

pub(super) fn boot(root: &FileRoot, at: &At<'_>) -> Boot {
    let none_host = FileHost::default();
    let host = root.host.as_ref().unwrap_or(&none_host);
    let at_host = at.key("host");
    let none_capture = FileCapture::default();
    let capture = root.capture.as_ref().unwrap_or(&none_capture);
    let at_capture = at.key("capture");
    Boot {
        state_dir: path(
            root.state_dir.as_deref(),
            "/var/lib/meshd",
            &at.key("state_dir"),
        ),
        runtime_dir: path(
            root.runtime_dir.as_deref(),
            "/run/meshd",
            &at.key("runtime_dir"),
        ),
        host_name: host
            .name
            .as_deref()
            .map(|name| host_name(name, &at_host.key("name"))),
        addresses: host_addresses(host, &at_host.key("addresses")),
        locality: locality(host, &at_host.key("locality")),
        labels: host
            .labels
            .as_ref()
            .map(|given| labels(given, &at_host.key("labels")))
            .unwrap_or_default(),
        workers: root
            .workers
            .map(|count| usize::try_from(range(count, &at.key("workers"), 1, 256)).unwrap_or(1)),
        listeners: listeners(root.listeners.as_ref(), &at.key("listeners")),
        capture: capture_mode(capture.mode.as_deref(), &at_capture.key("mode")),
        virtual_v4: virtual_v4(capture.virtual_v4.as_deref(), &at_capture.key("virtual_v4")),
        virtual_v6: virtual_v6(capture.virtual_v6.as_deref(), &at_capture.key("virtual_v6")),
        mark: mark(capture, &at_capture),
        cluster: cluster(root.cluster.as_ref(), &at.key("cluster")),
        names: names(root.names.as_ref(), &at.key("names")),
    }
}

fn path(given: Option<&str>, default: &str, at: &At<'_>) -> std::path::PathBuf {
    given.map_or_else(|| default.into(), |text| absolute(text, at))
}

fn host_name(name: &str, at: &At<'_>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.is_empty() || name.len() > 253 || !name.chars().all(plain) {
        at.fault(
            format!("{name:?} is no host name"),
            "use 1 to 253 letters, digits, '-', '.' and '_'",
        );
    }
    name.to_owned()
}

fn host_addresses(host: &FileHost, at: &At<'_>) -> Vec<IpAddr> {
    let given = host.addresses.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    for (index, text) in given.iter().enumerate() {
        let at = at.index(index);
        let Some(address) = ip(text, &at) else {
            continue;
        };
        if address.is_unspecified() || address.is_multicast() {
            at.fault(
                format!("{address} is no address of a host"),
                "write an address that others can dial",
            );
        } else if found.contains(&address) {
            at.fault(
                format!("{address} is written twice"),
                "write each address once",
            );
        }
        found.push(address);
    }
    found
}

fn locality(host: &FileHost, at: &At<'_>) -> Locality {
    let Some(given) = &host.locality else {
        return Locality::default();
    };
    let part = |value: &Option<String>, key: &str| -> Option<Arc<str>> {
        let value = value.as_deref()?;
        if value.is_empty() || value.len() > 63 {
            at.key(key).fault(
                format!("{value:?} is too short or too long"),
                "write 1 to 63 characters",
            );
        }
        Some(Arc::from(value))
    };
    Locality {
        region: part(&given.region, "region"),
        zone: part(&given.zone, "zone"),
        sub_zone: part(&given.sub_zone, "sub_zone"),
    }
}

const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn listeners(given: Option<&FileListeners>, at: &At<'_>) -> Listeners {
    let none = FileListeners::default();
    let given = given.unwrap_or(&none);
    let port = |value: Option<u16>, default: u16, key: &str| {
        value.map_or(default, |port| range(port, &at.key(key), 1, u16::MAX))
    };
    let listen = |value: Option<&String>, default: SocketAddr, key: &str| {
        value
            .and_then(|text| socket(text, &at.key(key)))
            .unwrap_or(default)
    };
    Listeners {
        outbound_port: port(given.outbound_port, 15001, "outbound_port"),
        inbound_port: port(given.inbound_port, 15006, "inbound_port"),
        tunnel: listen(given.tunnel.as_ref(), SocketAddr::new(ANY, 15008), "tunnel"),
        explicit: given
            .explicit
            .as_ref()
            .and_then(|text| socket(text, &at.key("explicit"))),
        metrics: listen(
            given.metrics.as_ref(),
            SocketAddr::new(LOOPBACK, 15020),
            "metrics",
        ),
    }
}

fn capture_mode(given: Option<&str>, at: &At<'_>) -> Capture {
    match given {
        None | Some("mesh") => Capture::Mesh,
        Some("off") => Capture::Off,
        Some(other) => {
            at.fault(
                format!("{other:?} is no way to capture"),
                "write mesh or off",
            );
            Capture::Off
        }
    }
}

fn prefix<'a>(text: &'a str, at: &At<'_>, low: u8, high: u8) -> Option<(&'a str, u8)> {
    let parts = text
        .split_once('/')
        .and_then(|(address, bits)| Some((address, bits.parse::<u8>().ok()?)));
    let Some((address, bits)) = parts else {
        at.fault(
            format!("{text:?} is no prefix"),
            "write an address and a number of bits, such as 240.240.0.0/16",
        );
        return None;
    };
    range(bits, at, low, high);
    Some((address, bits.clamp(low, high)))
}

fn virtual_v4(given: Option<&str>, at: &At<'_>) -> (Ipv4Addr, u8) {
    let default = (Ipv4Addr::new(240, 240, 0, 0), 16);
    let Some((address, bits)) = given.and_then(|text| prefix(text, at, 8, 24)) else {
        return default;
    };
    let Ok(address) = address.parse::<Ipv4Addr>() else {
        at.fault(
            format!("{address:?} is no IPv4 address"),
            "write one such as 240.240.0.0/16",
        );
        return default;
    };
    let network = Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << (32 - u32::from(bits))));
    if network != address {
        at.fault(
            format!("{address}/{bits} has bits behind its prefix"),
            format!("write {network}/{bits}"),
        );
    }
    if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        at.fault(
            format!("{address}/{bits} has another meaning"),
            "use an unused range such as 240.240.0.0/16",
        );
    }
    (network, bits)
}

fn virtual_v6(given: Option<&str>, at: &At<'_>) -> (Ipv6Addr, u8) {
    let default = (Ipv6Addr::new(0xfd6d, 0x6573, 0x6864, 0, 0, 0, 0, 0), 64);
    let Some((address, bits)) = given.and_then(|text| prefix(text, at, 32, 112)) else {
        return default;
    };
    let Ok(address) = address.parse::<Ipv6Addr>() else {
        at.fault(
            format!("{address:?} is no IPv6 address"),
            "write one such as fd6d:6573:6864::/64",
        );
        return default;
    };
    let network = Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - u32::from(bits))));
    if network != address {
        at.fault(
            format!("{address}/{bits} has bits behind its prefix"),
            format!("write {network}/{bits}"),
        );
    }
    if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        at.fault(
            format!("{address}/{bits} has another meaning"),
            "use an unused range of fd00::/8",
        );
    }
    (network, bits)
}

fn mark(given: &FileCapture, at: &At<'_>) -> Mark {
    let default = Mark::default();
    let mark = Mark {
        value: given.mark.unwrap_or(default.value),
        mask: given.mask.unwrap_or(default.mask),
    };
    let at_mask = at.key("mask");
    let said = if given.mark.is_some() {
        at.key("mark")
    } else {
        at_mask.clone()
    };
    if mark.mask & KUBE_PROXY_BITS != 0 {
        let shared = mark.mask & KUBE_PROXY_BITS;
        at_mask.fault(
            format!(
                "{shared:#x} is a bit of kube-proxy, which drops or masquerades what carries it"
            ),
            "leave out 0x4000 and 0x8000",
        );
    } else if mark.mask.count_ones() < 2 {
        at_mask.fault(
            "has no room for two values",
            "use at least two bits, such as 0x1070",
        );
    } else if mark.value == 0 || mark.value & !mark.mask != 0 {
        said.fault(
            format!("{:#x} is not inside the mask {:#x}", mark.value, mark.mask),
            "use only bits of the mask, at least one",
        );
    } else if mark.inbound() & !mark.mask != 0 || mark.inbound() & mark.mask == 0 {
        said.fault(
            format!(
                "{:#x}, the mark of inbound connections, is not inside the mask",
                mark.inbound()
            ),
            "leave the mask's lowest bit out of the value",
        );
    }
    mark
}

fn cluster(given: Option<&FileCluster>, at: &At<'_>) -> Cluster {
    let none = FileCluster::default();
    let given = given.unwrap_or(&none);
    let listen = given
        .listen
        .as_ref()
        .and_then(|text| socket(text, &at.key("listen")));
    let seeds = given.seeds.clone().unwrap_or_default();
    for (index, seed) in seeds.iter().enumerate() {
        let port = seed
            .rsplit_once(':')
            .map(|(host, port)| (host, port.parse::<u16>()));
        if !matches!(port, Some((host, Ok(1..))) if !host.is_empty() && host.len() <= 253) {
            at.key("seeds").index(index).fault(
                format!("{seed:?} is no host:port"),
                "write it such as 192.0.2.7:7947",
            );
        }
    }
    Cluster {
        listen: listen.unwrap_or(SocketAddr::new(ANY, 7947)),
        udp: given.udp.unwrap_or(true),
        seeds,
    }
}

fn names(given: Option<&FileNames>, at: &At<'_>) -> Names {
    let none = FileNames::default();
    let given = given.unwrap_or(&none);
    let list = |values: Option<&Vec<String>>, key: &str| -> Option<Vec<SocketAddr>> {
        let at = at.key(key);
        Some(
            values?
                .iter()
                .enumerate()
                .filter_map(|(index, text)| socket(text, &at.index(index)))
                .collect(),
        )
    };
    Names {
        listen: list(given.listen.as_ref(), "listen")
            .unwrap_or_else(|| vec![SocketAddr::new(LOOPBACK, 15053)]),
        upstream: list(given.upstream.as_ref(), "upstream").unwrap_or_default(),
    }
}

pub(super) fn access_log(given: Option<&FileAccessLog>, at: &At<'_>) -> AccessLog {
    let Some(given) = given else {
        return AccessLog::default();
    };
    let destination = match given.destination.as_deref() {
        None | Some("off") => None,
        Some("stdout") => Some(AccessLogDestination::Stdout),
        Some(path) => Some(AccessLogDestination::File(absolute(
            path,
            &at.key("destination"),
        ))),
    };
    AccessLog {
        destination,
        failures_only: given.failures_only.unwrap_or(false),
    }
}
