//! CONNECT streams that come in mTLS, from our own hosts and a foreign mesh's (HBONE).
//!
//! In: only `:method` and `:authority`. Out: bytes both ways; success is exactly 200, half-close is
//! END_STREAM. Refusals: 400 (malformed, or not ours), 401 (policy), 429 (rate limit), 503 (the program is not there).
//! Never: takes an identity from a header.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, server::SendResponse};
use mesh_model::{
    address::canonical,
    snapshot::{InboundPort, Snapshot},
};

use crate::{
    connection::{InboundOrigin, Origin},
    inbound,
    io::{Io, Stream},
    link, observe, tcp,
    worker::Worker,
};

/// Why a CONNECT is refused.
struct Refusal {
    status: http::StatusCode,
    code: &'static str,
    what: String,
}

impl Refusal {
    fn new(status: http::StatusCode, code: &'static str, what: impl Into<String>) -> Self {
        Self {
            status,
            code,
            what: what.into(),
        }
    }
}

/// Who asks, by what.
enum Door {
    /// Another daemon.
    Link(link::Stream),
    /// Another mesh.
    Other {
        respond: SendResponse<Bytes>,
        receive: RecvStream,
    },
}

/// One CONNECT.
pub(crate) struct Asked {
    /// What it names, if it is text.
    authority: Option<String>,
    /// True with `:method` and `:authority` only.
    bare: bool,
    /// 32 hexadecimal digits.
    id: String,
    door: Door,
}

impl Asked {
    /// Of another daemon.
    pub(crate) fn linked(asked: link::Asked) -> Self {
        let text = |name: &[u8]| {
            let value = asked.head.value(name)?;
            std::str::from_utf8(value).ok().map(str::to_owned)
        };
        let id = text(b"mesh-request-id").filter(|id| observe::is_id(id));
        let pseudo = asked.head.iter().filter(|(name, _)| name.starts_with(b":"));
        let made = Self {
            authority: text(b":authority"),
            bare: pseudo.count() == 2,
            id: id.unwrap_or_else(observe::fresh_id),
            door: Door::Link(asked.stream),
        };
        link::head::put(asked.head);
        made
    }

    /// Of another mesh.
    pub(crate) fn other(request: http::Request<RecvStream>, respond: SendResponse<Bytes>) -> Self {
        let uri = request.uri();
        let id = request.headers().get("mesh-request-id");
        let id = id.and_then(|value| value.to_str().ok());
        Self {
            authority: uri.authority().map(ToString::to_string),
            bare: uri.scheme().is_none() && uri.path_and_query().is_none(),
            id: id
                .filter(|id| observe::is_id(id))
                .map_or_else(observe::fresh_id, str::to_owned),
            door: Door::Other {
                respond,
                receive: request.into_body(),
            },
        }
    }
}

/// Serves one CONNECT stream of a tunnel. `local` is the tunnel connection's own address.
pub(crate) async fn serve(worker: Rc<Worker>, asked: Asked, origin: Rc<Origin>, local: SocketAddr) {
    let Origin::Inbound(origin) = &*origin else {
        return;
    };
    let begun = Instant::now();
    let snapshot = worker.snapshot();
    let found = admit(&snapshot, &asked, origin, local);
    let (id, door) = (asked.id, asked.door);
    drop(snapshot);
    let (port, origin) = match found {
        Ok(found) => found,
        Err((refusal, port)) => {
            let port = port.as_ref();
            refuse(
                &worker,
                door,
                &refusal,
                &tcp::Told::inbound(&worker, origin, port, &id, begun),
            );
            return;
        }
    };
    if inbound::reads_requests(&port, &origin) {
        // Each request in it is judged by itself.
        if let Some(stream) = accept(door) {
            inbound::serve(
                worker,
                Io::Stream(Box::new(stream)),
                BytesMut::new(),
                origin,
                port,
            )
            .await;
        }
        return;
    }
    let told = tcp::Told::inbound(&worker, &origin, Some(&port), &id, begun);
    if let Err(what) = tcp::authorized_unseen(&port, &origin) {
        let refusal = Refusal::new(http::StatusCode::UNAUTHORIZED, "denied", what);
        return refuse(&worker, door, &refusal, &told);
    }
    if let Err(refused) = worker.limits.connection(&port.limits, origin.source()) {
        worker.observe.policies().limited.add(1);
        let status = http::StatusCode::TOO_MANY_REQUESTS;
        let refusal = Refusal::new(status, "rate-limited", refused.what);
        return refuse(&worker, door, &refusal, &told);
    }
    let program = worker
        .upstream
        .local_stream(port.target, Some(origin.peer.ip()))
        .await;
    match program {
        Ok(program) => {
            if let Some(stream) = accept(door) {
                let stream = Io::Stream(Box::new(stream));
                tcp::relay(
                    &worker,
                    stream,
                    BytesMut::new(),
                    program,
                    BytesMut::new(),
                    told,
                )
                .await;
            }
        }
        Err(error) => {
            let what = format!("the program at {} does not answer", port.target);
            tracing::debug!(%error, "{what}");
            let refusal = Refusal::new(http::StatusCode::SERVICE_UNAVAILABLE, error.code(), what);
            refuse(&worker, door, &refusal, &told);
        }
    }
}

fn accept(door: Door) -> Option<Stream> {
    match door {
        Door::Link(stream) => {
            stream.send_head(false, |fields| fields.field(b":status", b"200"));
            Some(Stream::linked(stream))
        }
        Door::Other {
            mut respond,
            receive,
        } => {
            let send = respond.send_response(http::Response::new(()), false);
            send.inspect_err(|error| tracing::debug!(%error, "a CONNECT went away"))
                .ok()
                .map(|send| Stream::new(send, receive))
        }
    }
}

fn refuse(worker: &Worker, door: Door, refusal: &Refusal, told: &tcp::Told) {
    let host = worker
        .snapshot()
        .mesh
        .as_ref()
        .map(|mesh| Arc::clone(&mesh.host_name));
    let host = host.as_deref().unwrap_or("unknown");
    let word = format!("{}; host={host}; id={}", refusal.code, told.id);
    match door {
        Door::Link(stream) => stream.send_head(true, |fields| {
            fields.field(b":status", refusal.status.as_str().as_bytes());
            fields.once(b"mesh-error", word.as_bytes());
        }),
        Door::Other { mut respond, .. } => {
            let answer = http::Response::builder()
                .status(refusal.status)
                .header("mesh-error", word)
                .body(());
            if let Ok(answer) = answer
                && let Err(error) = respond.send_response(answer, true)
            {
                tracing::debug!(%error, "a refusal could not be sent");
            }
        }
    }
    told.refused(worker, refusal.status.as_u16(), refusal.code, &refusal.what);
}

type Found = (Arc<InboundPort>, InboundOrigin);

/// Which local port a CONNECT names.
fn admit(
    snapshot: &Snapshot,
    asked: &Asked,
    origin: &InboundOrigin,
    local: SocketAddr,
) -> Result<Found, (Refusal, Option<Arc<InboundPort>>)> {
    let bad = |what: &str| {
        (
            Refusal::new(http::StatusCode::BAD_REQUEST, "bad-request", what),
            None,
        )
    };
    if !asked.bare {
        return Err(bad("a CONNECT has only :method and :authority"));
    }
    let authority = asked.authority.as_deref();
    let authority = authority.ok_or_else(|| bad("a CONNECT without :authority"))?;
    let port = match authority.parse::<SocketAddr>() {
        Ok(address) => by_address(snapshot, origin, canonical(address), local),
        Err(_host_name) => by_host(snapshot, authority),
    };
    let port = port.ok_or_else(|| bad("no such address or port here"))?;
    if let Some(name) = &origin.server_name
        && snapshot.inbound.identities.get(&**name) != Some(&port.principal)
    {
        return Err(bad(
            "the port belongs to another service than the server name",
        ));
    }
    let mut origin = origin.clone();
    // Found again by it when the bytes turn out to be HTTP.
    origin.address = Some(match authority.parse::<SocketAddr>() {
        Ok(address) => canonical(address),
        Err(_host_name) => port.target,
    });
    Ok((port, origin))
}

fn by_address(
    snapshot: &Snapshot,
    origin: &InboundOrigin,
    address: SocketAddr,
    local: SocketAddr,
) -> Option<Arc<InboundPort>> {
    let inbound = &snapshot.inbound;
    let known = inbound.by_address.get(&address);
    let Some(name) = &origin.server_name else {
        return known.cloned();
    };
    let named = inbound.by_server_name.get(&**name)?.get(&address.port())?;
    let ours = address.ip() == local.ip().to_canonical() || known.is_some();
    ours.then(|| Arc::clone(named))
}

/// `host:port` of a service that has an endpoint here.
fn by_host(snapshot: &Snapshot, authority: &str) -> Option<Arc<InboundPort>> {
    let (host, port) = authority.rsplit_once(':')?;
    let frontends = snapshot.outbound.by_host.get(&*host.to_ascii_lowercase())?;
    let frontend = frontends.get(&port.parse().ok()?)?;
    let own = frontend
        .backend
        .endpoints
        .iter()
        .find(|endpoint| endpoint.local)?;
    let inbound = &snapshot.inbound.by_address;
    let found = inbound.get(&own.address);
    found
        .or_else(|| inbound.values().find(|port| port.target == own.address))
        .cloned()
}
