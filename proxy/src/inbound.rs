//! From the mesh, or from outside it, to the local program.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use bytes::BytesMut;
use mesh_model::{
    service::AppProtocol,
    snapshot::{AuthorizationRule, InboundPort},
};
use tokio::net::TcpStream;

use crate::{
    connection::{InboundOrigin, Origin},
    detect::Spoken,
    first::{self, First, Speaker},
    http,
    io::Io,
    observe, origin,
    tcp::{self, Told},
    worker::Worker,
};

/// Serves a plaintext connection that tproxy delivered.
pub(crate) async fn captured(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let Ok(address) = origin::dialled(&stream) else {
        return;
    };
    let io = Io::Tcp(stream);
    let origin = InboundOrigin {
        peer,
        principal: None,
        server_name: None,
        address: Some(address),
    };
    let port = worker.snapshot().inbound.by_address.get(&address).cloned();
    let refuse = |port: Option<&Arc<InboundPort>>, code, what: &str| {
        let id = observe::fresh_id();
        Told::inbound(&worker, &origin, port, &id, Instant::now()).refused(&worker, 0, code, what);
    };
    match port {
        None if origin::is_loop(address, &worker.own) => {
            refuse(None, "loop", "the proxy's own port was dialled");
            io.reset();
        }
        None => {
            refuse(
                None,
                "unknown-service",
                "no service of this host listens there",
            );
            io.reset();
        }
        Some(port) if port.strict => {
            refuse(
                Some(&port),
                "plaintext-refused",
                "the service takes mTLS only",
            );
            io.reset();
        }
        Some(port) => serve(Rc::clone(&worker), io, BytesMut::new(), origin, port).await,
    }
}

/// True when the requests inside a caller's stream must be seen one by one.
pub(crate) fn reads_requests(port: &InboundPort, origin: &InboundOrigin) -> bool {
    let by_request = |rule: &AuthorizationRule| !rule.methods.is_empty() || !rule.paths.is_empty();
    match port.protocol {
        AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => true,
        AppProtocol::Tcp => false,
        // Our own peers looked at the bytes already: what they send as a stream is no HTTP. Where a
        // policy asks for requests, or counts them, that is not theirs to decide.
        AppProtocol::Detect => {
            let rules = &port.authorization;
            origin.server_name.is_none()
                || !port.limits.is_empty()
                || rules.deny.iter().chain(&rules.allow).any(by_request)
        }
    }
}

/// Serves a connection to a local port, whatever it came through.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    mut io: Io,
    mut first: BytesMut,
    origin: InboundOrigin,
    port: Arc<InboundPort>,
) {
    let limits = &worker.config.limits;
    let spoken = match port.protocol {
        AppProtocol::Tcp => First::Spoken(Spoken::Opaque),
        AppProtocol::Detect if worker.memory.server_first(port.target) => {
            First::Spoken(Spoken::Opaque)
        }
        AppProtocol::Detect => {
            first::bytes(&mut io, &mut first, limits.silence, limits.silence * 4).await
        }
        AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => {
            let (silence, head) = (limits.first_bytes, limits.head);
            let spoken = first::requests(&mut io, &mut first, silence, head, &worker.drain).await;
            match spoken.as_http(port.protocol) {
                First::Silent | First::Broken => return drop(io),
                spoken @ First::Spoken(_) => spoken,
            }
        }
    };
    match spoken {
        First::Spoken(Spoken::Http1) => {
            Box::pin(http::serve_http1(
                worker,
                io,
                first,
                Origin::Inbound(origin),
            ))
            .await;
        }
        First::Spoken(Spoken::Http2) => {
            Box::pin(http::serve_http2(
                worker,
                io,
                first,
                Origin::Inbound(origin),
            ))
            .await;
        }
        First::Spoken(Spoken::Opaque | Spoken::Tls) => {
            Box::pin(opaque(&worker, io, first, &origin, &port, false)).await;
        }
        First::Silent => Box::pin(opaque(&worker, io, first, &origin, &port, true)).await,
        First::Broken => {}
    }
}

/// Carries an opaque connection; `silent` when the caller said nothing yet and may still turn out to speak HTTP.
async fn opaque(
    worker: &Rc<Worker>,
    mut io: Io,
    mut first: BytesMut,
    origin: &InboundOrigin,
    port: &Arc<InboundPort>,
    silent: bool,
) {
    let told = Told::inbound(
        worker,
        origin,
        Some(port),
        &observe::fresh_id(),
        Instant::now(),
    );
    if let Err(what) = tcp::authorized(port, origin) {
        told.refused(worker, 0, "denied", &what);
        return io.reset();
    }
    // Who has said nothing yet may turn out to send requests, which are judged and counted one by one.
    if !silent && !is_let_through(worker, port, origin, &told) {
        return io.reset();
    }
    let Some(mut up) = Box::pin(tcp::open_local(worker, origin, port.target, &told)).await else {
        return io.reset();
    };
    let mut up_first = BytesMut::new();
    if silent {
        let limits = &worker.config.limits;
        let (more, idle) = (limits.silence * 4, limits.tcp_idle);
        let speaker = first::race(&mut io, &mut first, &mut up, &mut up_first, more, idle).await;
        let said = (speaker == Speaker::Server).then_some(&*up_first);
        worker.memory.learn(port.target, said);
        let from = || Origin::Inbound(origin.clone());
        match speaker {
            Speaker::Caller(Spoken::Http1) => {
                drop(up);
                return Box::pin(http::serve_http1(Rc::clone(worker), io, first, from())).await;
            }
            Speaker::Caller(Spoken::Http2) => {
                drop(up);
                return Box::pin(http::serve_http2(Rc::clone(worker), io, first, from())).await;
            }
            Speaker::Idle => {
                told.too_long(worker);
                up.reset();
                return io.reset();
            }
            Speaker::Caller(Spoken::Tls | Spoken::Opaque) | Speaker::Server | Speaker::Nobody => {}
        }
        if !is_let_through(worker, port, origin, &told) {
            return io.reset();
        }
    }
    tcp::relay(worker, io, first, up, up_first, told).await;
}

/// Judges a connection in which no request will be seen; false, and told, when a policy or a limit refuses it.
fn is_let_through(
    worker: &Worker,
    port: &InboundPort,
    origin: &InboundOrigin,
    told: &Told,
) -> bool {
    if let Err(what) = tcp::authorized_unseen(port, origin) {
        told.refused(worker, 0, "denied", &what);
        return false;
    }
    tcp::counted(worker, port, origin.source(), told).is_ok()
}
