//! A stream of TLS over a connection: bytes in, bytes out, each way by itself.
//!
//! What is written goes out when it is flushed, or when much of it waits. The end of a direction is said by
//! `close_notify`; an end without it is an error, for anybody may have cut the connection. Never: holds a buffer
//! while nothing is on its way.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::session::{Begun, Session, Step};

/// A stream of TLS.
#[derive(Debug)]
pub(crate) struct TlsStream<I> {
    io: I,
    session: Box<Session>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> TlsStream<I> {
    /// Goes on after a handshake.
    pub(super) fn new(io: I, begun: Begun) -> Self {
        Self {
            io,
            session: Box::new(Session::new(begun)),
        }
    }

    /// What carries it, and what is known of it.
    #[cfg(test)]
    pub(super) fn parts(&mut self) -> (&mut I, &mut Session) {
        (&mut self.io, &mut self.session)
    }

    /// What carries it.
    pub(crate) fn io(&self) -> &I {
        &self.io
    }

    /// Reads once of the socket.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = ReadBuf::new(self.session.room());
        let read = Pin::new(&mut self.io).poll_read(cx, &mut space);
        let count = space.filled().len();
        self.session.came(count);
        match read {
            Poll::Ready(Ok(())) if count == 0 => {
                self.session.rest();
                let what = "the other end cut the connection";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what)))
            }
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            other => {
                self.session.rest();
                other
            }
        }
    }

    /// Writes what waits.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = loop {
            if self.session.output().is_empty() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.io).poll_write(cx, self.session.output()) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.session.wrote(count),
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.session.wait();
        done
    }

    /// Sends what reading made necessary: an alert, or an update of keys. Reading does not wait for it.
    fn answer(&mut self, cx: &mut Context<'_>) {
        let before = self.session.output().len();
        if self.session.renew().is_err() || self.session.output().len() == before {
            return;
        }
        if let Poll::Ready(Err(error)) = self.poll_out(cx) {
            tracing::trace!(%error, "an answer could not be sent");
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            match this.session.step() {
                Ok(Step::Bytes) => {
                    let bytes = this.session.bytes();
                    let count = bytes.len().min(buf.remaining());
                    buf.put_slice(bytes.get(..count).unwrap_or_default());
                    this.session.took(count);
                }
                // What came before is told first.
                _ if buf.filled().len() > before => break,
                Ok(Step::End) => break,
                Ok(Step::More) => {
                    this.answer(cx);
                    ready!(this.poll_more(cx))?;
                }
                Err(fault) => {
                    if !this.session.output().is_empty()
                        && let Poll::Ready(Err(error)) = this.poll_out(cx)
                    {
                        tracing::trace!(%error, "an alert could not be sent");
                    }
                    return Poll::Ready(Err(fault.into()));
                }
            }
        }
        this.session.pause();
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.session.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            let count = match bufs {
                [one] => this.session.seal(one)?,
                many => this.session.seal_all(many)?,
            };
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            ready!(this.poll_out(cx))?;
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.close()?;
        ready!(this.poll_out(cx))?;
        match ready!(Pin::new(&mut this.io).poll_shutdown(cx)) {
            // The other end has gone already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}
