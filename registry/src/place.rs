//! Addresses and names as registries write them, endpoints and their places, values inside a query, metadata within its bounds.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Write,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_model::{
    address::{Address, canonical},
    endpoint::{Endpoint, Health, Locality},
};

use crate::sink::MAX_METADATA;

/// An address as registries write it; `None` for what cannot be dialled: no port, a zone id, no host name.
pub(crate) fn address(host: &str, port: u16) -> Option<Address> {
    if port == 0 {
        return None;
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(Address::Socket(canonical(SocketAddr::new(ip, port))));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let named = (1..=253).contains(&host.len()) && host.bytes().all(plain);
    named.then(|| Address::Host {
        host: Arc::from(host.to_ascii_lowercase()),
        port,
    })
}

/// An endpoint of which no more than this is said.
pub(crate) fn endpoint(id: impl Into<Arc<str>>, address: Address) -> Endpoint {
    Endpoint {
        id: id.into(),
        address,
        health: Health::Unknown,
        weight: 1,
        priority: 0,
        locality: None,
        metadata: Arc::default(),
        host: None,
        tunnel: None,
    }
}

/// Where an endpoint runs; none when nothing is said of it.
pub(crate) fn locality(
    region: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    sub_zone: Option<Arc<str>>,
) -> Option<Arc<Locality>> {
    let locality = Locality {
        region,
        zone,
        sub_zone,
    };
    (locality != Locality::default()).then(|| Arc::new(locality))
}

/// As [`locality`], where `region` and `zone` stand among the metadata.
pub(crate) fn locality_in(metadata: &BTreeMap<String, String>) -> Option<Arc<Locality>> {
    let place = |key: &str| metadata.get(key).map(|value| Arc::from(value.as_str()));
    locality(place("region"), place("zone"), None)
}

/// A value inside a query.
pub(crate) fn escaped(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            let _infallible = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Most bytes of one value of metadata, where a registry is a place for anything.
const MAX_VALUE: usize = 512;

/// What of free-form metadata is kept: values of reasonable length, in the order of their keys, as many as
/// one endpoint may have.
pub(crate) fn fitting(mut metadata: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut left = MAX_METADATA;
    metadata.retain(|key, value| {
        let rest = left.checked_sub(key.len() + value.len());
        let fits = value.len() <= MAX_VALUE && rest.is_some();
        left = rest.filter(|_| fits).unwrap_or(left);
        fits
    });
    metadata
}

/// A name of people who write dots, capitals and underscores: `go.micro.srv.Greeter` is `go-micro-srv-greeter`. What
/// has anything else in it is still no name of the mesh.
pub(crate) fn label(name: &str) -> Cow<'_, str> {
    if mesh_model::name::is_label(name) {
        return Cow::Borrowed(name);
    }
    let text: String = name
        .chars()
        .map(|c| match c {
            'a'..='z' | '0'..='9' | '-' => c,
            'A'..='Z' => c.to_ascii_lowercase(),
            '.' | '_' | ':' => '-',
            // Makes the name one that nobody can use.
            _ => '!',
        })
        .collect();
    Cow::Owned(text.trim_matches('-').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_bounded() {
        let mut all: BTreeMap<String, String> = (0..50)
            .map(|at| (format!("k{at:02}"), "x".repeat(200)))
            .collect();
        all.insert("a".into(), "x".repeat(513));
        let kept = fitting(all);
        let size: usize = kept
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        assert!(!kept.contains_key("a") && kept.contains_key("k00"));
        assert!((3_800..=MAX_METADATA).contains(&size), "{size}");
    }

    #[test]
    fn what_can_be_dialled() {
        let read = |host| address(host, 1).map(|address| address.to_string());
        assert_eq!(read("[::1]").as_deref(), Some("[::1]:1"));
        assert_eq!(read("::ffff:10.0.0.1").as_deref(), Some("10.0.0.1:1"));
        assert_eq!(read("Web.Example").as_deref(), Some("web.example:1"));
        assert_eq!(read("fe80::1%eth0"), None);
        assert_eq!(read(""), None);
        assert_eq!(address("a", 0), None);
        assert_eq!(escaped("a b&c"), "a%20b%26c");
    }
}
