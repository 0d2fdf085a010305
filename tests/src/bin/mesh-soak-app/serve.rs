//! The server: every answer follows from the request alone.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::LocalSet};

use crate::pattern;

/// Serves until killed.
pub(crate) async fn run(listen: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    LocalSet::new()
        .run_until(async move {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(async move {
                    let served = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await;
                    drop(served);
                });
            }
        })
        .await
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (status, body) = match (request.method(), parts.as_slice()) {
        (&Method::GET, ["bytes", count, id]) => match count.parse::<usize>() {
            Ok(count) if count <= 8 << 20 => (StatusCode::OK, pattern::bytes(id, 0, count)),
            _ => (StatusCode::BAD_REQUEST, Vec::new()),
        },
        (&Method::POST, ["sum", _]) => match summed(request.into_body()).await {
            Some((length, sum)) => (StatusCode::OK, format!("{length} {sum:016x}").into_bytes()),
            None => (StatusCode::BAD_REQUEST, Vec::new()),
        },
        (_, ["health"]) => (StatusCode::OK, b"ok".to_vec()),
        _ => (StatusCode::NOT_FOUND, Vec::new()),
    };
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    if let Ok(value) = path.parse() {
        answer.headers_mut().insert("soak-path", value);
    }
    Ok(answer)
}

async fn summed(mut body: Incoming) -> Option<(u64, u64)> {
    let (mut length, mut sum) = (0u64, pattern::START);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            length += data.len() as u64;
            sum = pattern::sum(&data, sum);
        }
    }
    Some((length, sum))
}
