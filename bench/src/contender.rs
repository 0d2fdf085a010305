//! Who is measured, and where its load goes.

use std::{ffi::OsStr, path::PathBuf, process::Command};

use mesh_tests::{Host, demo::CLIENT};

/// What stands between client and backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proxy {
    /// Nothing.
    Direct,
    /// Ours.
    Meshd,
    /// Envoy.
    Envoy,
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
}

impl Proxy {
    /// All, in the order of the tables.
    pub(crate) const ALL: [Self; 5] = [
        Self::Direct,
        Self::Meshd,
        Self::Envoy,
        Self::Haproxy,
        Self::Nginx,
    ];

    /// As it stands in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Meshd => "meshd",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// As people write it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Meshd => "meshd",
            Self::Envoy => "Envoy",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
        }
    }
}

/// How the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// HTTP/1.1 in and out, all on loopback.
    Http1,
    /// The same on a host without any rules of netfilter.
    Bare,
    /// HTTP/2 in, HTTP/1.1 out.
    H2ToH1,
    /// HTTP/2 in and out.
    H2ToH2,
    /// gRPC, which is HTTP/2 in and out.
    Grpc,
    /// HTTP/1.1 redirected to the proxy, and to a backend on another host.
    Redirect,
    /// HTTP/1.1 in and out, HTTP/2 in mTLS between two proxies.
    Hop,
    /// TCP redirected to the proxy, and to a backend on another host.
    Tcp,
    /// TCP redirected to the proxy, mTLS to a second proxy, its backend on loopback.
    TcpMtls,
    /// HTTP/2 in mTLS straight to the second proxy.
    Inbound,
}

impl Way {
    /// All.
    pub(crate) const ALL: [Self; 10] = [
        Self::Http1,
        Self::Bare,
        Self::H2ToH1,
        Self::H2ToH2,
        Self::Grpc,
        Self::Redirect,
        Self::Hop,
        Self::Tcp,
        Self::TcpMtls,
        Self::Inbound,
    ];
}

/// One proxy on one way, ready for load.
pub(crate) struct Contender<'s> {
    /// Which.
    pub(crate) proxy: Proxy,
    /// Where the load runs.
    pub(crate) host: &'s Host,
    /// What the load dials: `address:port` or `name:port`.
    pub(crate) address: String,
    /// The `Host` or `:authority` of its requests.
    pub(crate) authority: &'static str,
    /// Processes that do the work, client's side first; none for direct runs.
    pub(crate) pids: Vec<i32>,
    /// How a client of [`Way::Inbound`] shows who it is.
    pub(crate) client: Option<TlsClient>,
}

/// A client's identity in mTLS.
pub(crate) struct TlsClient {
    /// Its key and chain.
    pub(crate) pem: PathBuf,
    /// The server's name that it asks for.
    pub(crate) name: String,
    /// The protocol that it offers.
    pub(crate) alpn: &'static str,
}

impl Contender<'_> {
    /// A program on the load's CPU, on its host, as the client's user.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.host.command_as(CLIENT, "taskset");
        command.args(["-c", crate::place::LOAD_CPU]).arg(program);
        command
    }

    /// One of the bench's own programs there; as root where it reads a key.
    pub(crate) fn tool(&self, name: &str) -> anyhow::Result<Command> {
        let own = std::env::current_exe()?;
        let mut command = if self.client.is_some() {
            crate::place::pinned(self.host, crate::place::LOAD_CPU, own)
        } else {
            self.command(own)
        };
        command.args([name, "address", &self.address]);
        Ok(command)
    }
}
