//! From the local program to the mesh.

use std::{net::SocketAddr, pin::Pin, rc::Rc, sync::Arc};

use bytes::BytesMut;
use mesh_model::{
    service::AppProtocol,
    snapshot::{Caller, Snapshot, decide::Opening},
};
use tokio::net::TcpStream;

use crate::{
    connection::{Destination, OutboundOrigin},
    detect::Spoken,
    first::{self, First, Speaker},
    http,
    io::Io,
    origin,
    tcp::{self, Callee, Told},
    worker::Worker,
};

/// Serves a redirected connection.
pub(crate) async fn captured(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let snapshot = worker.snapshot();
    let (destination, looped) = match origin::redirected_from(&stream) {
        Ok(Some(address)) => (address, origin::is_loop(address, &worker.own)),
        // Dialled as it is, not redirected: going on would mean to dial ourselves.
        Ok(None) => match origin::dialled(&stream) {
            Ok(address) => (address, true),
            Err(_gone) => return,
        },
        Err(error) => {
            tracing::debug!(%error, %peer, "where a connection was going is not known");
            return Io::Tcp(stream).reset();
        }
    };
    let Ok(owner) = worker.origins.owner_of(&stream, peer, destination) else {
        return;
    };
    let Some(caller) = worker.origins.caller(&snapshot, owner) else {
        tracing::debug!(%peer, "a call came while in no mesh");
        return Io::Tcp(stream).reset();
    };
    let origin = OutboundOrigin {
        caller,
        peer,
        destination: Destination::Address(destination),
        internal: false,
    };
    if looped {
        let told = Told::outbound(&worker, &origin, None);
        told.refused(&worker, 0, "loop", "the proxy's own port was dialled");
        return Io::Tcp(stream).reset();
    }
    drop(snapshot);
    serve(worker, Io::Tcp(stream), BytesMut::new(), origin).await;
}

/// Serves a connection to the explicit listener.
pub(crate) async fn explicit(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let Ok(local) = origin::dialled(&stream) else {
        return;
    };
    let Ok(owner) = worker.origins.owner_of(&stream, peer, local) else {
        return;
    };
    let caller = worker.origins.caller(&worker.snapshot(), owner);
    let foreign = owner.is_none() && !peer.ip().to_canonical().is_loopback();
    let caller = caller.map(|caller| if foreign { lent(&caller) } else { caller });
    spoken(worker, stream, peer, caller, false).await;
}

/// This host's identity for a program of another host, which may not bring a delegation table.
fn lent(caller: &Caller) -> Arc<Caller> {
    Arc::new(Caller {
        trusted: false,
        labels: Arc::default(),
        ..caller.clone()
    })
}

/// Serves a connection of this daemon to itself; nobody else's.
pub(crate) async fn internal(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let Ok(local) = origin::dialled(&stream) else {
        return;
    };
    let Ok(owner) = worker.origins.owner_of(&stream, peer, local) else {
        return;
    };
    if owner.is_none_or(|owner| owner.uid != nix::unistd::geteuid().as_raw()) {
        tracing::warn!(%peer, "somebody else dialled the daemon's own listener");
        return Io::Tcp(stream).reset();
    }
    let caller = worker.snapshot().callers.host.clone();
    spoken(worker, stream, peer, caller, true).await;
}

async fn spoken(
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    caller: Option<Arc<Caller>>,
    internal: bool,
) {
    let mut io = Io::Tcp(stream);
    let Some(caller) = caller else {
        return io.reset();
    };
    let origin = OutboundOrigin {
        caller,
        peer,
        destination: Destination::Explicit,
        internal,
    };
    let mut first = BytesMut::new();
    requests(worker, &mut first, &mut io)
        .await
        .serve(io, first, origin)
        .await;
}

/// What to do with a connection on which HTTP is spoken.
struct Requests {
    worker: Rc<Worker>,
    spoken: First,
}

/// Waits for the first request.
async fn requests(worker: Rc<Worker>, first: &mut BytesMut, io: &mut Io) -> Requests {
    let limits = &worker.config.limits;
    let (silence, head) = (limits.first_bytes, limits.head);
    let spoken = first::requests(io, first, silence, head, &worker.drain).await;
    Requests { worker, spoken }
}

impl Requests {
    async fn serve(self, io: Io, first: BytesMut, origin: OutboundOrigin) {
        match self.spoken {
            First::Spoken(Spoken::Http2) => {
                Box::pin(http::serve_http2_explicit(
                    self.worker,
                    io,
                    first,
                    origin,
                    onward,
                ))
                .await;
            }
            First::Spoken(_) => {
                let worker = Rc::clone(&self.worker);
                let served = http::serve_explicit(worker, io, first, origin);
                if let Some(connected) = Box::pin(served).await {
                    let http::Connected { io, first, origin } = connected;
                    Box::pin(serve(self.worker, io, first, origin)).await;
                }
            }
            First::Silent | First::Broken => {}
        }
    }
}

/// Carries what a CONNECT stream of HTTP/2 opened.
fn onward(worker: &Rc<Worker>, connected: http::Connected) {
    let http::Connected { io, first, origin } = connected;
    let task = Rc::clone(worker);
    worker.spawn(async move { Box::pin(serve(task, io, first, origin)).await });
}

/// Whom an address belongs to.
pub(crate) fn callee(snapshot: &Snapshot, address: SocketAddr) -> Option<Callee> {
    let outbound = &snapshot.outbound;
    if let Some(frontend) = outbound.by_address.get(&address) {
        return Some(Callee::Frontend(Arc::clone(frontend)));
    }
    outbound.direct.get(&address).cloned().map(Callee::Direct)
}

/// Serves a connection to an address: captured, or named by a CONNECT.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    mut io: Io,
    mut first: BytesMut,
    origin: OutboundOrigin,
) {
    let Destination::Address(address) = origin.destination else {
        return io.reset();
    };
    let Some(callee) = callee(&worker.snapshot(), address) else {
        let told = Told::outbound(&worker, &origin, None);
        let what = format!("{address} belongs to no service");
        told.refused(&worker, 0, "unknown-service", &what);
        return io.reset();
    };
    let protocol = match &callee {
        Callee::Frontend(frontend) => frontend.protocol,
        Callee::Direct(direct) => direct.backend.protocol,
    };
    let limits = &worker.config.limits;
    match protocol {
        AppProtocol::Tcp => opaque(&worker, io, first, &origin, &callee).await,
        AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => {
            let mut requests = requests(worker, &mut first, &mut io).await;
            requests.spoken = requests.spoken.as_http(protocol);
            requests.serve(io, first, origin).await;
        }
        AppProtocol::Detect if worker.memory.server_first(address) && !callee.reads_hello() => {
            opaque(&worker, io, first, &origin, &callee).await;
        }
        AppProtocol::Detect => {
            // Without a ClientHello there is nowhere to dial to.
            let silence = if callee.wants_hello() {
                limits.head
            } else {
                limits.silence
            };
            match first::bytes(&mut io, &mut first, silence, limits.silence * 4).await {
                First::Spoken(Spoken::Opaque | Spoken::Tls) => {
                    opaque(&worker, io, first, &origin, &callee).await;
                }
                First::Silent => {
                    Box::pin(silent(worker, io, first, origin, &callee, address)).await;
                }
                spoken @ (First::Spoken(_) | First::Broken) => {
                    Requests { worker, spoken }.serve(io, first, origin).await;
                }
            }
        }
    }
}

/// Carries an opaque connection, in a box of its own: a connection of requests is smaller.
fn opaque<'o>(
    worker: &'o Rc<Worker>,
    io: Io,
    first: BytesMut,
    origin: &'o OutboundOrigin,
    callee: &'o Callee,
) -> Pin<Box<impl Future<Output = ()> + 'o>> {
    Box::pin(tcp::outbound(worker, io, first, origin, callee))
}

/// Dials on for a caller that says nothing; who speaks first decides what is spoken.
async fn silent(
    worker: Rc<Worker>,
    mut io: Io,
    mut first: BytesMut,
    origin: OutboundOrigin,
    callee: &Callee,
    address: SocketAddr,
) {
    let Ok(mut opened) = Box::pin(tcp::open(&worker, &origin, callee, Opening::Other)).await else {
        return io.reset();
    };
    let mut up_first = BytesMut::new();
    let limits = &worker.config.limits;
    let (more, idle) = (limits.silence * 4, opened.told.idle(&worker));
    let up = &mut opened.io;
    let speaker = first::race(&mut io, &mut first, up, &mut up_first, more, idle).await;
    let said = (speaker == Speaker::Server).then_some(&*up_first);
    worker.memory.learn(address, said);
    match speaker {
        Speaker::Caller(spoken @ (Spoken::Http1 | Spoken::Http2)) => {
            drop(opened);
            let spoken = First::Spoken(spoken);
            Requests { worker, spoken }.serve(io, first, origin).await;
        }
        Speaker::Caller(Spoken::Tls) if callee.reads_hello() => {
            drop(opened);
            opaque(&worker, io, first, &origin, callee).await;
        }
        Speaker::Idle => {
            opened.told.too_long(&worker);
            opened.io.reset();
            io.reset();
        }
        Speaker::Caller(Spoken::Tls | Spoken::Opaque) | Speaker::Server | Speaker::Nobody => {
            if tcp::local_unseen(&worker, &opened, &origin).is_err() {
                return io.reset();
            }
            tcp::relay(&worker, io, first, opened.io, up_first, opened.told).await;
            drop(opened.picked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::{World, run};

    #[test]
    fn programs_of_other_hosts_bring_no_delegation_table() {
        run(async {
            let caller = World::new().caller();
            assert!(caller.trusted);
            let lent = lent(&caller);
            assert!(!lent.trusted);
            assert_eq!(lent.principal, caller.principal);
        });
    }
}
