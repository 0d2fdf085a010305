//! Opens links: accepts them, dials them, and proves who is at the other end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_identity::{
    credentials::Credentials,
    tls::{HostTrust, cluster_client, cluster_server, peer_of},
};
use mesh_model::{name::HostId, principal::SpiffeId};
use rustls::{ServerConfig, pki_types::ServerName};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Start, socket};
use crate::admission::JoinServer;

const CONNECT: Duration = Duration::from_secs(2);
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at a time, so that strangers cannot take all memory.
const HANDSHAKES: usize = 256;

/// What opening a link came to.
pub(super) enum Opened {
    /// A link with a proven host.
    Link {
        /// Who.
        host: HostId,
        /// The connection.
        stream: Box<TlsStream<TcpStream>>,
        /// True when this host dialled.
        dialled: bool,
    },
    /// A dial that was asked for did not come about.
    Failed(HostId),
}

/// Accepts and dials.
pub(super) struct Dialler {
    listener: Option<TcpListener>,
    server: Arc<ServerConfig>,
    trust: HostTrust,
    credentials: Credentials,
    own: SpiffeId,
    host: HostId,
    mark: Option<u32>,
    joins: JoinServer,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Dialler {
    pub(super) fn new(start: &Start, trust: HostTrust, listener: TcpListener) -> Self {
        let own = start.identity.spiffe_id();
        Self {
            listener: Some(listener),
            server: cluster_server(start.credentials.clone(), &own, trust.clone()),
            trust,
            credentials: start.credentials.clone(),
            own,
            host: start.identity.host(),
            mark: start.mark,
            joins: start.joins.clone(),
            tasks: start.tasks.clone(),
            stop: start.stop.clone(),
        }
    }

    /// Begins to accept.
    pub(super) fn accept(&mut self, opened: &mpsc::Sender<Opened>) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
        let (joins, tasks, stop, opened) = (
            self.joins.clone(),
            self.tasks.clone(),
            self.stop.clone(),
            opened.clone(),
        );
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        self.tasks
            .spawn(stop.clone().run_until_cancelled_owned(async move {
                loop {
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                        return;
                    };
                    let (stream, peer) = match listener.accept().await {
                        Ok(accepted) => accepted,
                        Err(error) => {
                            tracing::warn!(%error, "control state: accept failed");
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                    };
                    let (acceptor, joins, opened) =
                        (acceptor.clone(), joins.clone(), opened.clone());
                    tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
                        admit(stream, peer, acceptor, joins, opened).await;
                        drop(place);
                    }));
                }
            }));
    }

    /// Dials a host at its addresses; without any, whoever answers at the seeds. Seeds are for a host
    /// without links only: whoever answers there gets a second link, which replaces the first.
    pub(super) fn dial(
        &self,
        host: HostId,
        addresses: Vec<SocketAddr>,
        seeds: Vec<String>,
        opened: &mpsc::Sender<Opened>,
    ) {
        let opened = opened.clone();
        let expected = (!addresses.is_empty()).then_some(host);
        let config = cluster_client(
            self.credentials.clone(),
            &self.own,
            self.trust.clone(),
            expected,
        );
        let (connector, own, mark) = (TlsConnector::from(config), self.host, self.mark);
        self.tasks
            .spawn(self.stop.clone().run_until_cancelled_owned(async move {
                let mut places = addresses;
                if places.is_empty() {
                    for seed in seeds {
                        if let Ok(found) = tokio::net::lookup_host(&seed).await {
                            places.extend(found);
                        }
                    }
                }
                for place in places {
                    match connect(place, &connector, mark).await {
                        Ok((found, stream)) if found != own => {
                            let reached = found == host;
                            drop(
                                opened
                                    .send(Opened::Link {
                                        host: found,
                                        stream,
                                        dialled: true,
                                    })
                                    .await,
                            );
                            if reached {
                                return;
                            }
                        }
                        Ok(_) => {}
                        Err(error) => tracing::debug!(%place, error, "dial"),
                    }
                }
                drop(opened.send(Opened::Failed(host)).await);
            }));
    }
}

async fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    joins: JoinServer,
    opened: mpsc::Sender<Opened>,
) {
    socket::tune(&stream);
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "control state: handshake");
            return;
        }
        Err(_late) => return,
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    if certificates.is_empty() {
        joins.serve(stream, peer).await;
        return;
    }
    if let Some(host) = peer_of(certificates).ok().and_then(|peer| peer.host) {
        let stream = Box::new(TlsStream::Server(stream));
        drop(
            opened
                .send(Opened::Link {
                    host,
                    stream,
                    dialled: false,
                })
                .await,
        );
    }
}

async fn connect(
    place: SocketAddr,
    connector: &TlsConnector,
    mark: Option<u32>,
) -> Result<(HostId, Box<TlsStream<TcpStream>>), String> {
    let late = |_elapsed| "no answer in time".to_owned();
    let stream = timeout(CONNECT, socket::dial(place, mark))
        .await
        .map_err(late)?
        .map_err(|error| error.to_string())?;
    socket::tune(&stream);
    let name = ServerName::from(place.ip());
    let stream = timeout(HANDSHAKE, connector.connect(name, stream))
        .await
        .map_err(late)?
        .map_err(|error| error.to_string())?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let host = peer_of(certificates)
        .map_err(|error| error.to_string())?
        .host;
    let host = host.ok_or_else(|| "the peer is no host".to_owned())?;
    Ok((host, Box::new(TlsStream::Client(stream))))
}
