//! Serves one request of another daemon.

use std::time::Instant;

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
    link,
};

/// Serves one stream.
pub(crate) async fn stream(session: &Session, asked: link::Asked) {
    let started = Instant::now();
    let link::Asked {
        head,
        stream,
        ended,
    } = asked;
    let mut messages = buffers::messages();
    let read = heads::request_from(&head, ended, &mut messages.request);
    link::head::put(head);
    let length = match messages.request.framing {
        Framing::Length(length) => Some(length),
        Framing::None | Framing::Streamed | Framing::Close => None,
    };
    let mut down = Wire::H2(Stream::asked(stream, ended, length));
    let mut alarm = Alarm::default();
    let exchange = Exchange::new(session, &mut messages, &mut down, &mut alarm, started);
    let ended = match read {
        Ok(()) => exchange.live().await,
        Err(fault) => {
            let failure = Failure::new(Code::BadRequest, fault.to_string());
            Box::pin(exchange.refuse(failure.with_status(fault.status()))).await
        }
    };
    tracing::trace!(?ended, "a stream has ended");
    buffers::put_messages(messages);
}
