//! The bytes below an HTTP/1 side: a connection of our own, or one lent by the pool.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{io::Io, upstream::H1Connection};

/// A connection.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// The caller's.
    Own(Io),
    /// To an endpoint or program; goes back to the pool.
    Lent(Box<H1Connection>),
}

impl Carrier {
    fn io(self: Pin<&mut Self>) -> Pin<&mut Io> {
        Pin::new(match self.get_mut() {
            Self::Own(io) => io,
            Self::Lent(lent) => &mut lent.io,
        })
    }

    /// Ends the connection so that the other end sees a reset, not a clean end.
    pub(crate) fn reset(self) {
        match self {
            Self::Own(io) => io.reset(),
            Self::Lent(lent) => lent.io.reset(),
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buf)
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, buf)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Own(io) => io.is_write_vectored(),
            Self::Lent(lent) => lent.io.is_write_vectored(),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}
