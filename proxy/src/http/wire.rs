//! One side of an exchange, whatever its version of HTTP.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use super::{
    body::{BodyError, BodyEvent},
    broken::Fault,
    carrier::Carrier,
    fields::Fields,
    h1::{self, ReadError},
    message::Response,
    stream::{AnswerError, Stream},
};

/// A side.
#[derive(Debug)]
pub(crate) enum Wire {
    /// An HTTP/1 connection.
    H1(h1::Connection<Carrier>),
    /// An HTTP/2 stream.
    H2(Stream),
}

/// Why a side took no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The stream was reset.
    #[error("the stream failed")]
    Stream(#[source] Fault),
    /// The stream is closed.
    #[error("the stream is closed")]
    Closed,
    /// The body is shorter than announced.
    #[error("the body is shorter than announced")]
    Short,
}

/// Why a side gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadFault {
    /// An HTTP/1 connection.
    #[error(transparent)]
    H1(#[from] ReadError),
    /// An HTTP/2 stream.
    #[error(transparent)]
    H2(#[from] AnswerError),
}

impl Wire {
    /// The next head of the answer.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head_request: bool,
        response: &mut Response,
    ) -> Poll<Result<(), HeadFault>> {
        match self {
            Self::H1(wire) => wire
                .poll_response(cx, head_request, response)
                .map_err(Into::into),
            Self::H2(wire) => wire
                .poll_response(cx, head_request, response)
                .map_err(Into::into),
        }
    }

    /// The next piece of the body.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyEvent, BodyError>> {
        match self {
            Self::H1(wire) => wire.poll_body(cx),
            Self::H2(wire) => wire.poll_body(cx),
        }
    }

    /// Bytes that were announced.
    pub(crate) fn front(&self, length: usize) -> &[u8] {
        match self {
            Self::H1(wire) => wire.front(length),
            Self::H2(wire) => wire.front(length),
        }
    }

    /// Takes announced bytes as passed on.
    pub(crate) fn consume(&mut self, length: usize) {
        match self {
            Self::H1(wire) => wire.consume(length),
            Self::H2(wire) => wire.consume(length),
        }
    }

    /// Takes announced bytes out.
    pub(crate) fn take(&mut self, length: usize) -> Bytes {
        match self {
            Self::H1(wire) => wire.take(length),
            Self::H2(wire) => wire.take(length),
        }
    }

    /// Looks whether the body ends at once; nothing is taken. HTTP/2 only.
    pub(crate) fn peek_trailers(&mut self, cx: &mut Context<'_>) {
        if let Self::H2(wire) = self {
            // Data, errors and silence are found again by whoever reads the body.
            let _seen = wire.poll_body(cx);
        }
    }

    /// Trailers that have come, without taking them; HTTP/2 only.
    pub(crate) fn trailers(&self) -> Option<&Fields> {
        match self {
            Self::H1(_) => None,
            Self::H2(wire) => wire.trailers(),
        }
    }

    /// The trailers of the body that has ended.
    pub(crate) fn take_trailers(&mut self) -> Option<Box<Fields>> {
        match self {
            Self::H1(wire) => wire.take_trailers(),
            Self::H2(wire) => wire.take_trailers(),
        }
    }

    /// Passes announced bytes of `from` on; how many were taken.
    pub(crate) fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Self,
        length: usize,
        last: bool,
        seen: &mut impl FnMut(&[u8]),
    ) -> Poll<Result<usize, WriteError>> {
        match self {
            Self::H1(to) => {
                let taken = ready!(to.poll_write(cx, from.front(length)))?;
                seen(from.front(taken));
                from.consume(taken);
                Poll::Ready(Ok(taken))
            }
            Self::H2(to) => {
                let room = ready!(to.poll_room(cx, length)).map_err(closed)?;
                let last = last && room == length;
                if to.copies(room) {
                    let bytes = from.front(room);
                    seen(bytes);
                    to.send_copy(bytes, last).map_err(WriteError::Stream)?;
                    from.consume(room);
                } else {
                    let bytes = from.take(room);
                    seen(&bytes);
                    to.send(bytes, last).map_err(WriteError::Stream)?;
                }
                Poll::Ready(Ok(room))
            }
        }
    }

    /// Sends bytes that were kept; how many were taken.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, WriteError>> {
        match self {
            Self::H1(to) => Poll::Ready(Ok(ready!(to.poll_write(cx, bytes))?)),
            Self::H2(to) => {
                let room = ready!(to.poll_room(cx, bytes.len())).map_err(closed)?;
                let piece = bytes.get(..room).unwrap_or_default();
                to.send_copy(piece, false).map_err(WriteError::Stream)?;
                Poll::Ready(Ok(room))
            }
        }
    }

    /// Ends the body that is being written.
    pub(crate) fn finish(&mut self, trailers: Option<&Fields>) -> Result<(), WriteError> {
        match self {
            Self::H1(to) => to.finish(trailers).then_some(()).ok_or(WriteError::Short),
            Self::H2(to) => to.finish(trailers).map_err(WriteError::Stream),
        }
    }

    /// Sends everything that waits.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        match self {
            Self::H1(wire) => wire.poll_flush(cx).map_err(Into::into),
            // The connection's own task sends.
            Self::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Watches the other end while nothing is expected of it.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::H1(wire) => wire.poll_gone(cx),
            Self::H2(wire) => wire
                .poll_gone(cx)
                .map(|()| Err(io::Error::from(io::ErrorKind::ConnectionReset))),
        }
    }
}

fn closed(error: Option<Fault>) -> WriteError {
    error.map_or(WriteError::Closed, WriteError::Stream)
}
