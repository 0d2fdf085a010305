//! Addresses as registries write them, and values inside a query.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_model::address::{Address, canonical};

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

#[cfg(test)]
mod tests {
    use super::*;

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
