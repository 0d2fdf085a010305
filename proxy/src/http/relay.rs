//! Moves one body from one side of an exchange to the other, as far as both allow now.

use std::task::{Context, Poll, ready};

use super::{
    body::{BodyError, BodyEvent},
    fields::Known,
    message,
    pace::Pace,
    replay::Replay,
    wire::{Wire, WriteError},
};

/// Why a body was not passed on to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    /// The side that it comes from.
    #[error("reading the body failed")]
    Read(#[source] BodyError),
    /// The side that it goes to.
    #[error("writing the body failed")]
    Write(#[source] WriteError),
}

/// The movement of one body.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact of its own")]
pub(crate) struct Flow {
    /// Bytes that have come from the reading side.
    pub bytes: u64,
    /// True once everything, trailers included, was handed to the writing side.
    pub handed: bool,
    /// True once everything was flushed.
    pub done: bool,
    /// True while the reading side is what is waited for.
    pub starved: bool,
    /// `bytes` when the reading side was given time last.
    pub marked: u64,
    /// `grpc-status`, if the trailers had one.
    pub grpc_status: Option<u8>,
    /// True when the reading side is another daemon, whose `mesh-error` is believed.
    pub trusted: bool,
    /// Slows it down.
    pub pace: Option<Box<Pace>>,
}

impl Flow {
    /// A movement of nothing: the message has no body, its head still waits to be flushed.
    pub(crate) fn without_body() -> Self {
        Self {
            handed: true,
            ..Self::default()
        }
    }

    /// At most so many bytes per second from here on; as fast as can be without a rate.
    pub(crate) fn at(mut self, rate: Option<u64>) -> Self {
        self.pace = rate.map(|rate| Box::new(Pace::new(rate)));
        self
    }

    /// Moves what can be moved; ready when all is handed over and flushed.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Wire,
        to: &mut Wire,
        replay: &mut Replay,
    ) -> Poll<Result<(), RelayError>> {
        while !self.handed {
            match self.step(cx, from, to, replay) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // What waits must go out before we wait for more.
                    if let Poll::Ready(Err(error)) = to.poll_flush(cx) {
                        return Poll::Ready(Err(RelayError::Write(error)));
                    }
                    return Poll::Pending;
                }
            }
        }
        ready!(to.poll_flush(cx)).map_err(RelayError::Write)?;
        self.done = true;
        Poll::Ready(Ok(()))
    }

    fn step(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Wire,
        to: &mut Wire,
        replay: &mut Replay,
    ) -> Poll<Result<(), RelayError>> {
        let most = match &mut self.pace {
            None => usize::MAX,
            Some(pace) => ready!(pace.poll(cx)),
        };
        let left = replay.left();
        if !left.is_empty() {
            let piece = left.get(..most).unwrap_or(left);
            let taken = ready!(to.poll_write(cx, piece)).map_err(RelayError::Write)?;
            replay.advance(taken);
            self.moved(taken);
            return Poll::Ready(Ok(()));
        }
        if replay.has_ended() {
            return Poll::Ready(self.finish(to, replay));
        }
        self.starved = true;
        let event = ready!(from.poll_body(cx)).map_err(RelayError::Read)?;
        self.starved = false;
        match event {
            BodyEvent::Data { length, last } => {
                let (piece, last) = (length.min(most), last && length <= most);
                let mut seen = |bytes: &[u8]| replay.record(bytes);
                let taken = ready!(to.poll_pass(cx, from, piece, last, &mut seen))
                    .map_err(RelayError::Write)?;
                self.bytes += taken as u64;
                self.moved(taken);
                if last && taken == length {
                    replay.end(None);
                }
            }
            BodyEvent::End => {
                let mut trailers = from.take_trailers();
                if let Some(trailers) = &mut trailers {
                    self.grpc_status = message::grpc_status(trailers);
                    if !self.trusted {
                        trailers.drop_known(Known::Identity);
                    }
                }
                replay.end(trailers);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn moved(&mut self, bytes: usize) {
        if let Some(pace) = &mut self.pace {
            pace.moved(bytes);
        }
    }

    fn finish(&mut self, to: &mut Wire, replay: &Replay) -> Result<(), RelayError> {
        self.handed = true;
        to.finish(replay.trailers()).map_err(RelayError::Write)
    }
}
