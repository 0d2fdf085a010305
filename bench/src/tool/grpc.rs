//! A gRPC backend on the `h2` crate: `/bench/Unary` answers one message, every other path sends each
//! message back as it comes, in a DATA frame of its own.

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{net::TcpListener, task::LocalSet};

use super::Words;

/// The answer of the unary method: no compression, 64 bytes.
const LENGTH: u8 = 64;

/// Serves on `address` until it is ended.
pub(crate) fn serve(words: &Words) -> anyhow::Result<()> {
    let address = words.text("address")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(async move {
                let built = h2::server::Builder::new()
                    .initial_window_size(1 << 20)
                    .initial_connection_window_size(8 << 20)
                    .max_concurrent_streams(1000)
                    .handshake(stream)
                    .await;
                let Ok(mut connection) = built else { return };
                while let Some(Ok((request, reply))) = connection.accept().await {
                    tokio::task::spawn_local(async move {
                        drop(answer(request, reply).await);
                    });
                }
            });
        }
    })
}

async fn answer(
    request: Request<RecvStream>,
    mut reply: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let unary = request.uri().path().ends_with("/Unary");
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap_or_default();
    let mut send = reply.send_response(head, false)?;
    let mut body = request.into_body();
    let mut waiting = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        if unary {
            continue;
        }
        waiting.extend_from_slice(&piece);
        while let Some(message) = message(&mut waiting) {
            send_all(&mut send, message).await?;
        }
    }
    if unary {
        let mut message = vec![0, 0, 0, 0, LENGTH];
        message.resize(5 + usize::from(LENGTH), b'x');
        send_all(&mut send, message.into()).await?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(trailers)
}

/// The next whole message with its five bytes before it.
fn message(waiting: &mut BytesMut) -> Option<Bytes> {
    let mut prefix = waiting.get(1..5)?;
    let length = usize::try_from(prefix.get_u32()).ok()? + 5;
    (waiting.len() >= length).then(|| waiting.split_to(length).freeze())
}

async fn send_all(send: &mut SendStream<Bytes>, mut message: Bytes) -> Result<(), h2::Error> {
    while !message.is_empty() {
        send.reserve_capacity(message.len());
        let Some(capacity) = std::future::poll_fn(|context| send.poll_capacity(context)).await
        else {
            return Ok(());
        };
        let now = message.split_to(capacity?.min(message.len()));
        send.send_data(now, false)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_where_their_length_says() {
        let mut waiting = BytesMut::from(&b"\0\0\0\0\x02ab\0\0\0\0\x01"[..]);
        assert_eq!(message(&mut waiting).unwrap().as_ref(), b"\0\0\0\0\x02ab");
        assert!(message(&mut waiting).is_none());
        waiting.extend_from_slice(b"c");
        assert_eq!(message(&mut waiting).unwrap().len(), 6);
    }
}
