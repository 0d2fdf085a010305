//! A CONNECT stream as a byte stream: half-close is END_STREAM.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    link::{self, Broken},
    uses::InUse,
};

/// Most bytes handed over in one piece.
const PIECE: usize = 64 << 10;

/// What carries it.
#[derive(Debug)]
enum Carrier {
    /// A link between our own daemons.
    Link(link::Stream),
    /// HTTP/2 of another mesh.
    Other {
        send: SendStream<Bytes>,
        receive: RecvStream,
    },
}

/// A CONNECT stream as a byte stream.
#[derive(Debug)]
pub(crate) struct Stream {
    carrier: Carrier,
    pending: Bytes,
    ended: bool,
    shut: bool,
    /// The identity at the other end of the tunnel, on the calling side.
    pub(crate) peer: Option<Arc<str>>,
    in_use: Option<InUse>,
}

impl Stream {
    /// A stream of another mesh that has been granted.
    pub(crate) fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        Self::over(Carrier::Other { send, receive })
    }

    /// A stream of our own that has been granted.
    pub(crate) fn linked(stream: link::Stream) -> Self {
        Self::over(Carrier::Link(stream))
    }

    fn over(carrier: Carrier) -> Self {
        Self {
            carrier,
            pending: Bytes::new(),
            ended: false,
            shut: false,
            peer: None,
            in_use: None,
        }
    }

    /// The calling side: with the identity at the other end, and as a use of the connection.
    pub(crate) fn through(mut self, peer: Option<Arc<str>>, in_use: InUse) -> Self {
        self.peer = peer;
        self.in_use = Some(in_use);
        self
    }

    /// Ends the stream with an error.
    pub(crate) fn reset(self) {
        match self.carrier {
            Carrier::Link(stream) => stream.reset(link::Reason::CONNECT_ERROR),
            Carrier::Other { mut send, .. } => send.send_reset(h2::Reason::CONNECT_ERROR),
        }
    }

    /// True when nothing came and the other end has neither closed nor broken it.
    pub(crate) fn is_silent(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        !self.ended && self.pending.is_empty() && self.poll_fill(&mut cx).is_pending()
    }

    /// The next piece, without a copy; empty at the end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        ready!(self.poll_fill(cx))?;
        let piece = std::mem::take(&mut self.pending);
        self.release(piece.len())?;
        Poll::Ready(Ok(piece))
    }

    /// Sends the beginning of a piece, without a copy where it is large; how much of it.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        piece: &Bytes,
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx, piece.len().min(PIECE)))?;
        let part = piece.slice(..room);
        match &mut self.carrier {
            Carrier::Link(stream) => stream.send(part, false),
            Carrier::Other { send, .. } => send.send_data(part, false).map_err(broken)?,
        }
        Poll::Ready(Ok(room))
    }

    /// Ready when `pending` has something, or the end came.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pending.is_empty() && !self.ended {
            let piece = match &mut self.carrier {
                Carrier::Link(stream) => ready!(stream.poll_piece(cx)).map_err(lost)?,
                Carrier::Other { receive, .. } => {
                    ready!(receive.poll_data(cx)).transpose().map_err(broken)?
                }
            };
            match piece {
                Some(piece) => self.pending = piece,
                None => self.ended = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn release(&mut self, length: usize) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        match &mut self.carrier {
            Carrier::Link(stream) => {
                stream.release(length);
                Ok(())
            }
            Carrier::Other { receive, .. } => receive
                .flow_control()
                .release_capacity(length)
                .map_err(broken),
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        match &mut self.carrier {
            Carrier::Link(stream) => stream.poll_room(cx, wanted).map_err(lost),
            Carrier::Other { send, .. } => poll_capacity(send, cx, wanted),
        }
    }
}

fn poll_capacity(
    send: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    wanted: usize,
) -> Poll<io::Result<usize>> {
    loop {
        let room = send.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room.min(wanted)));
        }
        send.reserve_capacity(wanted);
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

fn lost(error: Broken) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_fill(cx))?;
        let length = self.pending.len().min(buf.remaining());
        if let Some(piece) = self.pending.get(..length) {
            buf.put_slice(piece);
        }
        self.pending.advance(length);
        Poll::Ready(self.release(length))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx, buf.len().min(PIECE)))?;
        let piece = buf.get(..room).unwrap_or(buf);
        match &mut self.carrier {
            Carrier::Link(stream) => stream.send_copy(piece, false),
            Carrier::Other { send, .. } => {
                let piece = Bytes::copy_from_slice(piece);
                send.send_data(piece, false).map_err(broken)?;
            }
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's driver flushes.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        self.shut = true;
        match &mut self.carrier {
            Carrier::Link(stream) => {
                stream.send_copy(&[], true);
                Poll::Ready(Ok(()))
            }
            Carrier::Other { send, .. } => {
                Poll::Ready(send.send_data(Bytes::new(), true).map_err(broken))
            }
        }
    }
}
