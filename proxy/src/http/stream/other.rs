//! One stream of the `h2` crate, as its client: programs that are called, and another mesh.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};

use super::{AnswerError, PIECE};
use crate::http::{
    body::{BodyError, BodyEvent},
    convert,
    fields::Fields,
    message::Response,
};

/// A stream.
#[derive(Debug)]
pub(in crate::http) struct Stream {
    recv: Option<RecvStream>,
    chunk: Bytes,
    is_read: bool,
    trailers: Option<Box<Fields>>,
    send: Option<SendStream<Bytes>>,
    is_written: bool,
    answer: Option<ResponseFuture>,
}

impl Stream {
    /// The client's side of a stream; `ended` when the request has no body.
    pub(in crate::http) fn opened(
        answer: ResponseFuture,
        send: SendStream<Bytes>,
        ended: bool,
    ) -> Self {
        Self {
            recv: None,
            chunk: Bytes::new(),
            is_read: false,
            trailers: None,
            send: Some(send),
            is_written: ended,
            answer: Some(answer),
        }
    }

    /// No stream at all: nothing comes from it, and what goes to it is refused.
    pub(in crate::http) fn nobody() -> Self {
        Self {
            recv: None,
            chunk: Bytes::new(),
            is_read: false,
            trailers: None,
            send: None,
            is_written: true,
            answer: None,
        }
    }

    /// The client's side: the next head, interim ones included.
    pub(in crate::http) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head_request: bool,
        response: &mut Response,
    ) -> Poll<Result<(), AnswerError>> {
        let Some(answer) = &mut self.answer else {
            return Poll::Pending;
        };
        if let Poll::Ready(Some(interim)) = answer.poll_informational(cx) {
            let (parts, ()) = interim.map_err(AnswerError::of)?.into_parts();
            convert::response_from(&parts, false, head_request, response)?;
            return Poll::Ready(Ok(()));
        }
        let answered = ready!(Pin::new(answer).poll(cx));
        let (parts, recv) = answered.map_err(AnswerError::of)?.into_parts();
        self.answer = None;
        self.is_read = recv.is_end_stream();
        convert::response_from(&parts, self.is_read, head_request, response)?;
        self.recv = Some(recv);
        Poll::Ready(Ok(()))
    }

    /// The next piece of the body.
    pub(in crate::http) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BodyEvent, BodyError>> {
        let Some(recv) = &mut self.recv else {
            return Poll::Pending;
        };
        while self.chunk.is_empty() {
            if self.is_read {
                return Poll::Ready(Ok(BodyEvent::End));
            }
            match ready!(recv.poll_data(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Poll::Ready(Err(BodyError::Stream(error.into()))),
                None => {
                    let trailers = ready!(recv.poll_trailers(cx))
                        .map_err(|error| BodyError::Stream(error.into()))?;
                    self.trailers = trailers
                        .as_ref()
                        .map(|map| Box::new(convert::fields_from(map)));
                    self.is_read = true;
                }
            }
        }
        let last = recv.is_end_stream();
        Poll::Ready(Ok(BodyEvent::Data {
            length: self.chunk.len(),
            last,
        }))
    }

    /// The bytes that a [`BodyEvent::Data`] announced.
    pub(in crate::http) fn front(&self, length: usize) -> &[u8] {
        self.chunk.get(..length).unwrap_or_default()
    }

    /// Takes announced bytes as passed on.
    pub(in crate::http) fn consume(&mut self, length: usize) {
        self.chunk.advance(length.min(self.chunk.len()));
        self.release(length);
    }

    /// Takes announced bytes out.
    pub(in crate::http) fn take(&mut self, length: usize) -> Bytes {
        let bytes = self.chunk.split_to(length.min(self.chunk.len()));
        self.release(length);
        bytes
    }

    fn release(&mut self, length: usize) {
        if let Some(recv) = &mut self.recv {
            // Fails only for a stream that is gone, whose credit went back with it.
            let released = recv.flow_control().release_capacity(length);
            if let Err(error) = released {
                tracing::trace!(%error, "credit of a closed stream");
            }
            if self.chunk.is_empty() && recv.is_end_stream() {
                self.is_read = true;
            }
        }
    }

    /// The same, without taking them.
    pub(in crate::http) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_deref()
    }

    /// The trailers of the body that has ended.
    pub(in crate::http) fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
    }

    /// How much of `wanted` bytes may be sent now; never 0.
    pub(in crate::http) fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, Option<h2::Error>>> {
        let Some(send) = &mut self.send else {
            return Poll::Ready(Err(None));
        };
        let wanted = wanted.min(PIECE);
        send.reserve_capacity(wanted);
        loop {
            let room = send.capacity().min(wanted);
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(Some(error))),
                None => return Poll::Ready(Err(None)),
            }
        }
    }

    /// Sends bytes for which there was room.
    pub(in crate::http) fn send(&mut self, bytes: Bytes, last: bool) -> Result<(), h2::Error> {
        if let Some(send) = &mut self.send {
            send.send_data(bytes, last)?;
        }
        self.is_written |= last;
        Ok(())
    }

    /// Ends the body.
    pub(in crate::http) fn finish(&mut self, trailers: Option<&Fields>) -> Result<(), h2::Error> {
        if self.is_written {
            return Ok(());
        }
        self.is_written = true;
        let Some(send) = &mut self.send else {
            return Ok(());
        };
        match trailers {
            Some(trailers) => send.send_trailers(convert::fields_to(trailers)),
            None => send.send_data(Bytes::new(), true),
        }
    }

    /// Ends the stream with an error.
    pub(in crate::http) fn reset(&mut self, reason: Reason) {
        if let Some(send) = &mut self.send {
            send.send_reset(reason);
        }
        self.is_written = true;
    }

    /// Resolves when the other end has reset the stream or its connection has ended.
    pub(in crate::http) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(send) = &mut self.send else {
            return Poll::Pending;
        };
        let gone = ready!(send.poll_reset(cx));
        tracing::trace!(?gone, "the other end has gone");
        Poll::Ready(())
    }
}
