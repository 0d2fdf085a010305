//! Handshakes on both sides of a tunnel, and whether the peer's rights still hold.
//!
//! One per worker. Configurations are made once: they read credentials and trust anew on every handshake.

use std::{cell::RefCell, collections::HashMap, io, sync::Arc};

use mesh_identity::{Credentials, Peer, PeerError, tls as configurations, verify};
use mesh_model::{
    endpoint::{Tunnel, TunnelKind},
    principal::SpiffeId,
    snapshot::{Snapshot, cell::Reader},
};
use rustls::{
    ClientConfig, CommonState, ServerConfig, client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};

use names::Names;
use side::Side as _;

pub(crate) use stream::TlsStream;

/// Bytes on their way.
mod chunk;
/// What the other end may do wrong.
mod fault;
/// Laws over any bytes.
#[cfg(feature = "fuzz")]
pub(crate) mod judge;
/// The keys of one direction.
mod keys;
/// Names that clients ask for.
mod names;
/// Records on the wire.
mod record;
/// A stream without its socket.
mod session;
/// Handshakes.
mod shake;
/// Both sides of a handshake, as one.
mod side;
/// A stream of TLS over a connection.
mod stream;
#[cfg(test)]
mod tests;

/// The protocol between our own daemons.
pub(crate) const MESH: &[u8] = b"mesh-h2/1";

/// The peer of a handshake, with what is needed to verify it again.
#[derive(Debug)]
pub(crate) struct Verified {
    /// Who it is.
    pub(crate) peer: Peer,
    /// What it showed.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// True when [`MESH`] was agreed on, false for plain `h2`.
    pub(crate) mesh: bool,
    /// The server name that the client asked for.
    pub(crate) server_name: Option<Arc<str>>,
}

type ClientKey = (SpiffeId, Arc<[SpiffeId]>, TunnelKind);

/// One worker's TLS configurations.
pub(crate) struct Tls {
    reader: Reader,
    credentials: Credentials,
    server: Arc<ServerConfig>,
    names: Arc<Names>,
    clients: RefCell<HashMap<ClientKey, Arc<ClientConfig>>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("clients", &self.clients.borrow().len())
            .finish_non_exhaustive()
    }
}

/// Client configurations kept; more identities than a host has.
const CLIENTS: usize = 4096;

impl Tls {
    /// Nothing cached.
    pub(crate) fn new(reader: Reader, credentials: Credentials) -> Self {
        let server = configurations::tunnel_server(reader.clone(), credentials.clone());
        let mut server = ServerConfig::clone(&server);
        let names = Arc::new(Names::new(Arc::clone(&server.cert_resolver)));
        server.cert_resolver = Arc::clone(&names) as _;
        // For `shake::end`, which takes them over within this room.
        server.enable_secret_extraction = true;
        Self {
            reader,
            credentials,
            server: Arc::new(server),
            names,
            clients: RefCell::default(),
        }
    }

    /// Milliseconds since the epoch at which our own certificate for `id` ends.
    pub(crate) fn own_end_ms(&self, id: &SpiffeId) -> Option<u64> {
        self.credentials
            .get(id)
            .map(|credential| credential.not_after_ms)
    }

    /// The server's side of a handshake.
    pub(crate) async fn accept<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: I,
    ) -> io::Result<(TlsStream<I>, Verified)> {
        let config = Arc::clone(&self.server);
        let side = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let mut name = None;
        // Whoever asks between two steps of this handshake asks in one of its own.
        let looked = || name = self.names.take().or_else(|| name.take());
        let (side, rest) = Box::pin(shake::shake(side, &mut stream, looked)).await?;
        let mut verified = verified(side.common())?;
        verified.server_name = name;
        Ok((TlsStream::new(stream, shake::end(side, rest)?), verified))
    }

    /// The client's side of a handshake, as `local`.
    pub(crate) async fn connect<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: I,
        local: &SpiffeId,
        tunnel: &Tunnel,
    ) -> io::Result<(TlsStream<I>, Verified)> {
        let config = self.client(local, tunnel)?;
        let name = match tunnel.server_name.as_deref() {
            Some(name) => ServerName::try_from(name.to_owned()).map_err(io::Error::other)?,
            None => ServerName::from(tunnel.address.ip()),
        };
        let side = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        let (side, rest) = Box::pin(shake::shake(side, &mut stream, || ())).await?;
        let verified = verified(side.common())?;
        Ok((TlsStream::new(stream, shake::end(side, rest)?), verified))
    }

    fn client(&self, local: &SpiffeId, tunnel: &Tunnel) -> io::Result<Arc<ClientConfig>> {
        let key = (local.clone(), Arc::clone(&tunnel.sans), tunnel.kind);
        if let Some(config) = self.clients.borrow().get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = configurations::tunnel_client(
            self.reader.clone(),
            self.credentials.clone(),
            local,
            Arc::clone(&tunnel.sans),
            tunnel.kind,
        )
        .map_err(io::Error::other)?;
        let mut config = ClientConfig::clone(&config);
        config.enable_secret_extraction = true;
        let config = Arc::new(config);
        let mut clients = self.clients.borrow_mut();
        if clients.len() >= CLIENTS {
            clients.clear();
        }
        clients.insert(key, Arc::clone(&config));
        Ok(config)
    }
}

fn verified(session: &CommonState) -> io::Result<Verified> {
    let chain: Vec<_> = session
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    let peer = verify::peer_of(&chain).map_err(io::Error::other)?;
    let mesh = session.alpn_protocol() == Some(MESH);
    Ok(Verified {
        peer,
        chain,
        mesh,
        server_name: None,
    })
}

/// Whether a peer would still be believed by this snapshot: chain, roots, grant.
pub(crate) fn still_believed(
    snapshot: &Snapshot,
    verified: &Verified,
    usage: verify::Usage,
) -> Result<(), PeerError> {
    let own = &snapshot.mesh.as_ref().ok_or(PeerError::Idle)?.trust_domain;
    // An open connection outlives its certificate (it only takes no new requests), not its rights.
    let end = UnixTime::since_unix_epoch(std::time::Duration::from_millis(
        verified.peer.not_after_ms.saturating_sub(1000),
    ));
    let now = UnixTime::now();
    let at = if end.as_secs() < now.as_secs() {
        end
    } else {
        now
    };
    verify::verify(&verified.chain, usage, own, &snapshot.trust, at).map(drop)
}
