//! Serves one request of another daemon.

use std::rc::Rc;

use crate::{
    failure::{Code, Failure},
    http::{
        alarm::Alarm,
        buffers,
        exchange::Exchange,
        message::Framing,
        session::Session,
        stream::{Stream, heads},
        wire::Wire,
    },
    link::{self, Peer},
};

/// Serves one stream.
pub(crate) async fn stream(session: Rc<Session>, asked: link::Asked) {
    let link::Asked {
        head,
        stream,
        ended,
        begun,
    } = asked;
    let mut messages = buffers::messages();
    let read = heads::request_from(&head, ended, Peer::Daemon, &mut messages.request);
    link::head::put(head);
    let length = match messages.request.framing {
        Framing::Length(length) => Some(length),
        Framing::None | Framing::Streamed | Framing::Close => None,
    };
    let mut down = Wire::H2(Stream::asked(stream, Peer::Daemon, ended, length));
    let mut alarm = Alarm::default();
    // In a box of its own: the task of a stream is moved several times before it runs.
    let exchange = Exchange::new(&session, &mut messages, &mut down, &mut alarm, begun);
    let ended = match read {
        Ok(()) => exchange.run().await,
        Err(fault) => {
            let failure = Failure::new(Code::BadRequest, fault.to_string());
            exchange.refuse(failure.with_status(fault.status())).await
        }
    };
    tracing::trace!(?ended, "a stream has ended");
    buffers::put_messages(messages);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<R>(_: impl Fn(Rc<Session>, link::Asked) -> R) -> usize {
        size_of::<R>()
    }

    /// Each stream is a task that is made, moved and freed.
    #[test]
    fn a_stream_is_small() {
        let size = size(stream);
        assert!(size <= 640, "{size} bytes");
    }
}
