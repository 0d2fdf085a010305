//! Accept loops: accept, survive, hand on.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    inbound,
    listen::{Bound, Kind},
    outbound, tunnel,
    worker::Worker,
};

/// Accepts until draining begins.
pub(crate) async fn accept(worker: Rc<Worker>, bound: Bound) {
    let kind = bound.kind;
    let listener = match TcpListener::from_std(bound.socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, kind = kind.as_str(), "a listener could not be used");
            return;
        }
    };
    let permits = Arc::new(Semaphore::new(worker.config.limits.connections));
    loop {
        let next = async {
            // The semaphore is never closed, so there is always a permit in the end.
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = worker.drain.draining() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                worker.spawn(serve(Rc::clone(&worker), kind, stream, peer, permit));
            }
            Err(error) => survive(&error, kind).await,
        }
    }
}

/// A failed accept is the connection's own fault, or the process is out of something and waits.
async fn survive(error: &io::Error, kind: Kind) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    ) {
        return;
    }
    tracing::warn!(%error, kind = kind.as_str(), "connections cannot be accepted at the moment");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Serves one connection. What it is made of is in boxes, so that the task is no larger than its kind needs.
async fn serve(
    worker: Rc<Worker>,
    kind: Kind,
    stream: TcpStream,
    peer: SocketAddr,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let _open = worker.observe.connection(kind);
    let peer = mesh_model::address::canonical(peer);
    match kind {
        Kind::Outbound => Box::pin(outbound::captured(worker, stream, peer)).await,
        Kind::Inbound => Box::pin(inbound::captured(worker, stream, peer)).await,
        Kind::Tunnel => Box::pin(tunnel::serve(worker, stream, peer)).await,
        Kind::Explicit => Box::pin(outbound::explicit(worker, stream, peer)).await,
        Kind::Internal => Box::pin(outbound::internal(worker, stream, peer)).await,
    }
}
