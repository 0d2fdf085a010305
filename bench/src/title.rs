//! The words for each scenario.

/// What a scenario measures, for a table's head.
pub(crate) fn title(scenario: &str) -> String {
    let fixed = [
        (
            "h1",
            "HTTP/1.1 keep-alive, explicit listener, 64 connections",
        ),
        (
            "h1_bare",
            "HTTP/1.1 keep-alive, explicit listener, 64 connections, nothing captured",
        ),
        (
            "redir",
            "HTTP/1.1 keep-alive, captured by nftables, backend on another host",
        ),
        (
            "hop",
            "mTLS hop: HTTP/1.1 in and out, both proxies together",
        ),
        ("hop_4000", "mTLS hop at 4,000 requests/s"),
        (
            "h2h1",
            "HTTP/2 in, HTTP/1.1 out (16 connections, 32 requests each)",
        ),
        (
            "h2h2",
            "HTTP/2 in and out (16 connections, 32 requests each)",
        ),
        ("grpc_unary", "gRPC, one message there and back"),
        (
            "grpc_stream",
            "gRPC, a stream of 32 messages, each sent back as it comes",
        ),
        ("tcp", "TCP bytes, captured, both ways in turn"),
        (
            "tcpmtls",
            "TCP bytes through the mTLS pair, both proxies together",
        ),
        (
            "connections",
            "new TCP connections, captured, a byte there and back",
        ),
        (
            "connections_mtls",
            "new TCP connections through the mTLS pair, both proxies together",
        ),
        ("slow_head", "10,000 clients that send a head byte by byte"),
        (
            "slow_read",
            "9,000 clients that ask for 256 KiB and hardly read",
        ),
        ("swap_none", "2,000 requests/s, nothing is replaced"),
        (
            "swap",
            "2,000 requests/s, 10,000 endpoints replaced every second",
        ),
        (
            "registry_ingest",
            "100,000 endpoints of 10,000 services read from etcd, until they are published",
        ),
        (
            "registry_burst",
            "1,000 of 10,000 services changed in etcd at once, until the last one is published",
        ),
        (
            "registry_idle",
            "10,000 services of etcd followed while nothing changes",
        ),
    ];
    if let Some((_, title)) = fixed.iter().find(|(name, _)| *name == scenario) {
        return (*title).to_owned();
    }
    if let Some(name) = scenario.strip_suffix("_half") {
        return format!("{}: at half of the slowest peer's peak", title(name));
    }
    if let Some(kind) = scenario.strip_prefix("registry_") {
        return format!("{kind}: from a write until it is published");
    }
    let mut words = scenario.split('_').skip(1);
    let kind = match words.next() {
        Some("h1") => "HTTP/1.1 keep-alive connections",
        Some("hop") => "HTTP/1.1 keep-alive connections through the mTLS hop, the larger side",
        Some("tcp") => "TCP connections, captured",
        Some("tcpmtls") => "TCP connections through the mTLS pair, the larger side",
        Some("mtls") => "mTLS connections with HTTP/2, the server's side",
        _ => return scenario.to_owned(),
    };
    format!("{} idle {kind}", words.next().unwrap_or_default())
}

/// The same in a word or two, for a plot.
pub(crate) fn short(scenario: &str) -> &str {
    match scenario {
        "h1" | "idle_h1_10000" => "HTTP/1.1",
        "h1_bare" => "HTTP/1.1, no capture",
        "redir" => "HTTP/1.1 captured",
        "hop" => "mTLS hop (both)",
        "h2h1" => "HTTP/2 → 1.1",
        "h2h2" => "HTTP/2 → 2",
        "grpc_unary" => "gRPC unary",
        "grpc_stream" => "gRPC stream",
        "tcp" | "idle_tcp_9000" => "TCP",
        "tcpmtls" | "idle_tcpmtls_9000" => "TCP, mTLS pair",
        "hop_4000" => "mTLS hop, 4,000/s",
        "h1_half" => "HTTP/1.1, half peak",
        "redir_half" => "captured, half peak",
        "hop_half" => "mTLS hop, half peak",
        "idle_hop_10000" => "through the hop",
        "idle_mtls_10000" => "mTLS, HTTP/2",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_words() {
        assert_eq!(
            title("idle_tcp_9000"),
            "9000 idle TCP connections, captured"
        );
        assert!(title("h2h1_half").ends_with("half of the slowest peer's peak"));
        assert_eq!(title("other"), "other");
    }
}
