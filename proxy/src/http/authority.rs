//! Reads `Host` and `:authority`: a host and perhaps a port, nothing else.

use std::net::Ipv6Addr;

use super::octet;

/// A valid authority, split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    /// The host, an IPv6 address without its brackets.
    pub host: &'a str,
    /// The port, when given.
    pub port: Option<u16>,
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port` (RFC 9110 section 7.2). `None` for everything else:
/// user information, an unclosed bracket, an empty or too large port, escapes and controls.
pub(crate) fn parse(bytes: &[u8]) -> Option<Authority<'_>> {
    let text = std::str::from_utf8(bytes).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port_of(port)?),
            None if rest.is_empty() => None,
            None => return None,
        };
        return Some(Authority { host, port });
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port_of(port)?)),
        None => (text, None),
    };
    octet::is_host_name(host.as_bytes()).then_some(Authority { host, port })
}

fn port_of(text: &str) -> Option<u16> {
    (text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        let good = |text: &'static str, host, port| {
            assert_eq!(
                parse(text.as_bytes()),
                Some(Authority { host, port }),
                "{text}"
            );
        };
        good("words", "words", None);
        good("words.default:80", "words.default", Some(80));
        good("a_b:65535", "a_b", Some(65535));
        good("[::1]", "::1", None);
        good("[fd00::2]:8080", "fd00::2", Some(8080));
        for bad in [
            "", ":80", "a:", "a:65536", "a:8x", "a:+80", "u@h", "u:p@h:80", "[::1", "[::1]x",
            "[x]:80", "a/b", "a?b", "a#b", "a\\b", "a b", "a\tb", "a%00", "::1", "a:80:90", "ä",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
