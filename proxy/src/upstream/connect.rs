//! CONNECT streams to other hosts: only `:method` and `:authority` say where, success is exactly 200.

use std::{future::poll_fn, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use h2::client::SendRequest;
use mesh_model::{
    endpoint::{AuthorityForm, Tunnel, TunnelKind},
    snapshot::BackendEndpoint,
};

use super::{DialError, H2Handle, Speaker};
use crate::{
    io::Stream,
    link::{Broken, Link, head},
};

/// What a CONNECT tells beside its target; telemetry only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// 32 hexadecimal digits.
    pub(crate) id: &'a str,
    /// The program that calls.
    pub(crate) peer: SocketAddr,
    /// `host:port` of the service, for peers that want it in `:authority`.
    pub(crate) authority: &'a str,
}

/// Opens a stream to an endpoint through its tunnel; waits for the 200.
pub(super) async fn connect(
    handle: H2Handle,
    endpoint: &BackendEndpoint,
    tunnel: &Tunnel,
    call: Option<&Call<'_>>,
) -> Result<Stream, DialError> {
    let authority = match (tunnel.authority, call) {
        (AuthorityForm::Host, Some(call)) => call.authority.to_owned(),
        _ => endpoint.address.to_string(),
    };
    match &handle.send {
        Speaker::Link(link) => linked(link, &authority, tunnel, call).await,
        Speaker::Other(send) => foreign(send, &authority, tunnel, call).await,
    }
    .map(|stream| stream.through(handle.peer, handle.in_use))
}

/// Through a link to another daemon.
async fn linked(
    link: &Link,
    authority: &str,
    tunnel: &Tunnel,
    call: Option<&Call<'_>>,
) -> Result<Stream, DialError> {
    let failed = |source: Broken| DialError::Http2 {
        address: tunnel.address,
        source: Arc::new(source),
    };
    let opened = link.open(false, |fields| {
        fields.field(b":method", b"CONNECT");
        fields.field(b":authority", authority.as_bytes());
        if let Some(call) = call {
            let forwarded = format!("for=\"{}\"", call.peer);
            fields.once(b"forwarded", forwarded.as_bytes());
            fields.once(b"mesh-request-id", call.id.as_bytes());
        }
    });
    let stream = opened.ok_or_else(|| failed(Broken::Unprocessed))?;
    let answer = poll_fn(|cx| stream.poll_head(cx)).await.map_err(failed)?;
    let status = answer.value(b":status").unwrap_or_default();
    let status = std::str::from_utf8(status)
        .ok()
        .and_then(|text| text.parse().ok());
    let refused = match status.unwrap_or(0) {
        200 => None,
        status => {
            let word = answer.value(b"mesh-error").map(String::from_utf8_lossy);
            Some(DialError::Tunnel {
                status,
                mesh_error: word.map(Arc::from),
            })
        }
    };
    head::put(answer);
    refused.map_or_else(|| Ok(Stream::linked(stream)), Err)
}

/// Through another mesh's tunnel, with the `h2` crate.
async fn foreign(
    send: &SendRequest<Bytes>,
    authority: &str,
    tunnel: &Tunnel,
    call: Option<&Call<'_>>,
) -> Result<Stream, DialError> {
    let failed = |source: h2::Error| DialError::Http2 {
        address: tunnel.address,
        source: Arc::new(source),
    };
    let mut request = http::Request::builder()
        .method(http::Method::CONNECT)
        .uri(authority);
    if let Some(call) = call {
        request = request.header("forwarded", format!("for=\"{}\"", call.peer));
        if tunnel.kind == TunnelKind::Mesh {
            request = request.header("mesh-request-id", call.id);
        }
    }
    let Ok(request) = request.body(()) else {
        return Err(DialError::Tunnel {
            status: 400,
            mesh_error: None,
        });
    };
    let mut send = send.clone().ready().await.map_err(failed)?;
    let (answer, stream) = send.send_request(request, false).map_err(failed)?;
    let answer = answer.await.map_err(failed)?;
    let status = answer.status().as_u16();
    if status != 200 {
        let mesh_error = answer
            .headers()
            .get("mesh-error")
            .and_then(|value| value.to_str().ok());
        return Err(DialError::Tunnel {
            status,
            mesh_error: mesh_error.map(Arc::from),
        });
    }
    Ok(Stream::new(stream, answer.into_body()))
}
