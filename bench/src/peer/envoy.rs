//! Envoy with one worker and its defaults (no access log, no admin), and what meshd does unasked: retries of
//! unsent and refused requests and of 503, and the less loaded endpoint of two.

use std::{ffi::OsString, path::Path};

use serde_json::{Value, json};

use super::{Places, port};
use crate::{
    contender::{Proxy, Way},
    place::{backend, write},
};

/// Writes the configuration and says how to start with it.
pub(super) fn arguments(
    folder: &Path,
    places: &Places<'_>,
    near: bool,
) -> anyhow::Result<Vec<OsString>> {
    let config = if near { client(places) } else { server(places) };
    let path = write(folder, "envoy.json", &config.to_string())?;
    let mut words: Vec<OsString> = vec!["-c".into(), path.into()];
    words.extend(["--concurrency", "1", "--disable-hot-restart", "-l", "error"].map(Into::into));
    Ok(words)
}

fn own(way: Way) -> u16 {
    port(Proxy::Envoy, way)
}

fn client(places: &Places<'_>) -> Value {
    let tls = |http2| transport(places, http2, false);
    let (far, back) = (places.far.to_string(), places.back.to_string());
    let original = |name: &str, port: u16| {
        json!({
            "name": name, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "5s", "circuit_breakers": breakers(),
            "original_dst_lb_config": { "upstream_port_override": port },
        })
    };
    json!({ "static_resources": {
        "listeners": [
            bounded(listener(Way::Http1, &http("local"), None)),
            listener(Way::H2ToH1, &http("local"), None),
            listener(Way::H2ToH2, &http("local2"), None),
            listener(Way::Grpc, &http("grpc"), None),
            redirected(listener(Way::Redirect, &http("dialled"), None)),
            listener(Way::Hop, &http("hop"), None),
            redirected(listener(Way::Tcp, &tcp("bytes"), None)),
            redirected(listener(Way::TcpMtls, &tcp("bytes_mtls"), None)),
        ],
        "clusters": [
            bounded(cluster("local", "127.0.0.1", backend::HTTP1, false, None)),
            cluster("local2", "127.0.0.1", backend::HTTP2, true, None),
            cluster("grpc", "127.0.0.1", backend::GRPC, true, None),
            original("dialled", backend::HTTP1),
            cluster("hop", &far, own(Way::Hop), true, Some(tls(true))),
            cluster("bytes", &back, backend::TCP, false, None),
            cluster("bytes_mtls", &far, own(Way::TcpMtls), false, Some(tls(false))),
        ],
    } })
}

fn server(places: &Places<'_>) -> Value {
    let tls = |http2| Some(transport(places, http2, true));
    json!({ "static_resources": {
        "listeners": [
            listener(Way::Hop, &http("local"), tls(true)),
            listener(Way::TcpMtls, &tcp("bytes"), tls(false)),
        ],
        "clusters": [
            cluster("local", "127.0.0.1", backend::HTTP1, false, None),
            cluster("bytes", "127.0.0.1", backend::TCP, false, None),
        ],
    } })
}

fn listener(way: Way, filter: &Value, tls: Option<Value>) -> Value {
    let mut chain = json!({ "filters": [filter] });
    if let (Some(tls), Some(chain)) = (tls, chain.as_object_mut()) {
        chain.insert("transport_socket".to_owned(), tls);
    }
    json!({
        "name": format!("{way:?}"),
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": own(way) } },
        "filter_chains": [chain],
    })
}

/// With the buffer limit that Envoy's documentation advises where slow clients are expected; its default is
/// 1 MiB, which is good for bulk TCP and would here hold every answer whole.
fn bounded(mut part: Value) -> Value {
    if let Some(part) = part.as_object_mut() {
        part.insert(
            "per_connection_buffer_limit_bytes".to_owned(),
            json!(32_768),
        );
    }
    part
}

/// The listener reads where its connections were going before they were redirected.
fn redirected(mut listener: Value) -> Value {
    if let Some(listener) = listener.as_object_mut() {
        listener.insert(
            "listener_filters".to_owned(),
            json!([{
                "name": "envoy.filters.listener.original_dst",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
                },
            }]),
        );
    }
    listener
}

fn http(cluster: &str) -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": cluster,
            "codec_type": "AUTO",
            "route_config": { "virtual_hosts": [{
                "name": "all", "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": {
                    "cluster": cluster,
                    "retry_policy": { "retry_on": "connect-failure,refused-stream,503", "num_retries": 2 },
                } }],
            }] },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
            }],
        },
    })
}

fn tcp(cluster: &str) -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster, "cluster": cluster,
        },
    })
}

fn cluster(name: &str, address: &str, port: u16, http2: bool, tls: Option<Value>) -> Value {
    let mut cluster = json!({
        "name": name, "type": "STATIC", "lb_policy": "LEAST_REQUEST", "connect_timeout": "5s", "circuit_breakers": breakers(),
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": address, "port_value": port } },
        } }] }] },
    });
    if let Some(cluster) = cluster.as_object_mut() {
        if http2 {
            cluster.insert(
                "typed_extension_protocol_options".to_owned(),
                json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": { "http2_protocol_options": {} },
                } }),
            );
        }
        if let Some(tls) = tls {
            cluster.insert("transport_socket".to_owned(), tls);
        }
    }
    cluster
}

/// Nothing that is measured here meets them.
fn breakers() -> Value {
    let most = 1_000_000;
    json!({ "thresholds": [{
        "max_connections": most, "max_pending_requests": most, "max_requests": most, "max_retries": most,
    }] })
}

/// Mutual TLS 1.3.
fn transport(places: &Places<'_>, http2: bool, server: bool) -> Value {
    let file = |name: &str| json!({ "filename": places.certificates.join(name) });
    let mut common = json!({
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        "tls_certificates": [{ "certificate_chain": file("leaf.pem"), "private_key": file("key.pem") }],
        "validation_context": { "trusted_ca": file("ca.pem") },
    });
    if let (true, Some(common)) = (http2, common.as_object_mut()) {
        common.insert("alpn_protocols".to_owned(), json!(["h2"]));
    }
    let kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
    let config = if server {
        json!({
            "@type": format!("{kind}.DownstreamTlsContext"),
            "require_client_certificate": true, "common_tls_context": common,
        })
    } else {
        json!({ "@type": format!("{kind}.UpstreamTlsContext"), "sni": "bench", "common_tls_context": common })
    };
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": config })
}
