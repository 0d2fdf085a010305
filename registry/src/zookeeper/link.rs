//! One connection to one server: dialled, secured, greeted; frames with a cap, read without losing any.
//!
//! In: a server, certificates, the session so far. Out: frames. Never: waits without end.

use std::{io, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    time::timeout,
};

use super::{
    message::{self, Ticket},
    servers::Server,
};
use crate::http::{HttpError, tls::Tls};

/// Most bytes of one message.
const MAX_FRAME: usize = 64 << 20;
/// For a connection, TLS included, and again for the greeting.
const DIAL: Duration = Duration::from_secs(3);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// No connection, or it broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It hung up on the greeting: it is not ready, or it knows less than was read elsewhere.
    #[error("the server hung up on the greeting")]
    Refused,
    /// What came makes no sense.
    #[error("{0}")]
    Nonsense(String),
    /// Certificates cannot be used.
    #[error("{0}")]
    Config(String),
}

/// The reading half.
pub(super) struct Incoming {
    half: ReadHalf<Box<dyn Stream>>,
    buffer: BytesMut,
}

impl Incoming {
    /// The next frame; what has come so far is kept when this is dropped.
    pub(super) async fn frame(&mut self) -> Result<BytesMut, LinkError> {
        loop {
            if let Some(frame) = self.whole()? {
                return Ok(frame);
            }
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    fn whole(&mut self) -> Result<Option<BytesMut>, LinkError> {
        let Some(length) = self.buffer.first_chunk().copied() else {
            return Ok(None);
        };
        let length = usize::try_from(i32::from_be_bytes(length))
            .ok()
            .filter(|length| *length <= MAX_FRAME)
            .ok_or_else(|| LinkError::Nonsense("a message of impossible length came".into()))?;
        if self.buffer.len() - 4 < length {
            // No more than the next piece at once: a length alone costs no memory.
            self.buffer
                .reserve((length + 4 - self.buffer.len()).min(256 << 10));
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length)))
    }
}

/// The writing half.
pub(super) struct Outgoing(WriteHalf<Box<dyn Stream>>);

impl Outgoing {
    /// Writes all of it within `limit`.
    pub(super) async fn send(&mut self, bytes: &[u8], limit: Duration) -> Result<(), LinkError> {
        let written = timeout(limit, async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        });
        Ok(late(written.await)?)
    }
}

fn late<T>(result: Result<io::Result<T>, tokio::time::error::Elapsed>) -> io::Result<T> {
    result.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

/// A connection whose server has answered the greeting; no ticket when the session is over.
pub(super) async fn open(
    server: &Server,
    tls: Option<&Tls>,
    ticket: &Ticket,
    last_zxid: i64,
    wanted: Duration,
) -> Result<(Incoming, Outgoing, Option<Ticket>), LinkError> {
    let stream = timeout(DIAL, dial(server, tls))
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    let (read, write) = tokio::io::split(stream);
    let mut incoming = Incoming {
        half: read,
        buffer: BytesMut::with_capacity(16 << 10),
    };
    let mut outgoing = Outgoing(write);
    let wanted = i32::try_from(wanted.as_millis()).unwrap_or(i32::MAX);
    let hello = message::hello(ticket, last_zxid, wanted);
    let mut framed = Vec::with_capacity(hello.len() + 4);
    framed.extend_from_slice(&u32::try_from(hello.len()).unwrap_or(0).to_be_bytes());
    framed.extend_from_slice(&hello);
    outgoing.send(&framed, DIAL).await?;
    let answer = timeout(DIAL, incoming.frame())
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?;
    let answer = match answer {
        Err(LinkError::Io(error)) if hung_up(&error) => return Err(LinkError::Refused),
        answer => answer?,
    };
    let ticket = message::welcome(&answer)
        .map_err(|malformed| LinkError::Nonsense(malformed.to_string()))?;
    Ok((incoming, outgoing, ticket))
}

fn hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

async fn dial(server: &Server, tls: Option<&Tls>) -> Result<Box<dyn Stream>, LinkError> {
    let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    let secured = tls.secure(&server.host, stream).await;
    match secured {
        Ok(stream) => Ok(Box::new(stream)),
        Err(HttpError::Connect(error)) => Err(error.into()),
        Err(other) => Err(LinkError::Config(other.to_string())),
    }
}
