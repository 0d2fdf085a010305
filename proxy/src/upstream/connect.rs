//! CONNECT streams to other hosts: only `:method` and `:authority` say where, success is exactly 200.

use std::{net::SocketAddr, sync::Arc};

use mesh_model::{
    endpoint::{AuthorityForm, Tunnel, TunnelKind},
    snapshot::BackendEndpoint,
};

use super::{DialError, H2Handle};
use crate::io::Stream;

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
    let failed = |source| DialError::Http2 {
        address: tunnel.address,
        source: Arc::new(source),
    };
    let authority = match (tunnel.authority, call) {
        (AuthorityForm::Host, Some(call)) => call.authority.to_owned(),
        _ => endpoint.address.to_string(),
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
    let mut send = handle.send.ready().await.map_err(failed)?;
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
    Ok(Stream::new(stream, answer.into_body()).through(handle.peer, handle.in_use))
}
