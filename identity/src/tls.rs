//! TLS configurations that follow rotation: credentials and trust are read anew on every handshake.
//!
//! TLS 1.3 only. No session is ever resumed: resumption would carry an old verdict past a revoked grant, and
//! connections between daemons are pooled anyway.

use std::sync::{Arc, LazyLock};

use rustls::{
    ClientConfig, ServerConfig,
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, aws_lc_rs as provider},
    server::{NoServerSessionStorage, ResolvesServerCert},
    version::TLS13,
};

use crate::verify::handshake::Judge;

/// Between daemons on 7947: mTLS by host identity, and the server side of joins.
mod cluster;
/// Between workloads on 15008: our own peers and foreign HBONE peers.
mod tunnel;

pub use cluster::{
    HostTrust, JOIN_EXPORTER, cluster_client, cluster_server, join_client, pin_of, pinned,
};
pub use tunnel::{TunnelError, tunnel_client, tunnel_server};

pub use crate::verify::peer_of;

/// Our own protocol between daemons: HTTP requests and CONNECT as HTTP/2.
pub const ALPN_MESH: &[u8] = b"mesh-h2/1";
/// HBONE: CONNECT alone, as HTTP/2.
pub const ALPN_H2: &[u8] = b"h2";
/// The control state.
pub const ALPN_CLUSTER: &[u8] = b"meshd/1";

/// AES-GCM alone: what HBONE peers take.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let suites = vec![
        provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
        provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    Arc::new(CryptoProvider {
        cipher_suites: suites,
        ..provider::default_provider()
    })
});

fn server(
    judge: Judge,
    resolver: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    #[expect(clippy::expect_used, reason = "the provider above has TLS 1.3 suites")]
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3 is provided")
        .with_client_cert_verifier(Arc::new(judge))
        .with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

fn client(
    judge: Judge,
    resolver: Option<Arc<dyn ResolvesClientCert>>,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    #[expect(clippy::expect_used, reason = "the provider above has TLS 1.3 suites")]
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3 is provided")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge));
    let mut config = match resolver {
        Some(resolver) => builder.with_client_cert_resolver(resolver),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[cfg(test)]
mod tests;
