//! What is offered: the ports of a service and the protocols spoken on them.

use std::{fmt, str::FromStr, sync::Arc};

/// What is spoken on a port. Configuration always wins over detection.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum AppProtocol {
    /// Decided by the first bytes of each connection.
    #[default]
    Detect,
    /// HTTP/1.1.
    Http,
    /// HTTP/2 with prior knowledge (RFC 9113 section 3.3).
    Http2,
    /// gRPC, that is HTTP/2 whose outcomes are read from `grpc-status`.
    Grpc,
    /// Opaque bytes; server-speaks-first protocols belong here.
    Tcp,
}

impl AppProtocol {
    /// True when requests are seen one by one: HTTP in any version.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }
    /// The word used in TOML, YAML, metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for AppProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AppProtocol {
    type Err = UnknownProtocol;
    /// Also takes the words of Kubernetes' `appProtocol`: `kubernetes.io/h2c`, `kubernetes.io/ws`, `https`…
    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text {
            "detect" | "" => Ok(Self::Detect),
            "http" | "http1" | "HTTP" | "kubernetes.io/ws" => Ok(Self::Http),
            "http2" | "h2c" | "HTTP2" | "kubernetes.io/h2c" => Ok(Self::Http2),
            "grpc" | "GRPC" => Ok(Self::Grpc),
            "tcp" | "TCP" | "https" | "tls" | "kubernetes.io/wss" => Ok(Self::Tcp),
            _ => Err(UnknownProtocol(text.chars().take(80).collect())),
        }
    }
}

/// A protocol word that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a protocol: use detect, http, http2, grpc or tcp")]
pub struct UnknownProtocol(pub String);

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// The port's name, unique in the service; empty when the service has a single unnamed port.
    pub name: Arc<str>,
    /// The port that callers dial.
    pub port: u16,
    /// The port on which the program listens.
    pub target: u16,
    /// What is spoken there.
    pub protocol: AppProtocol,
}
