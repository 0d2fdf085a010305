//! Serves an HTTP/1 connection: the next head is read only after the answer before it is complete.

use std::{
    future::{Future as _, poll_fn},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::BytesMut;

use super::Connected;
use crate::{
    connection::{Destination, Origin, OutboundOrigin},
    failure::{Code, Failure},
    http::{
        alarm::Alarm,
        buffers,
        carrier::Carrier,
        exchange::{Ended, Exchange},
        h1::{Connection, ReadError},
        malformed::HeadError,
        session::Session,
        wire::Wire,
    },
    io::Io,
    worker::Worker,
};

/// How long, and for how many bytes, a caller that is refused may go on sending before it is cut off.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// Why there is no further request.
enum NoHead {
    /// The caller has ended, was idle for too long, or the proxy is stopping.
    Quiet,
    /// The head did not come in time.
    Slow(Instant),
    /// The head breaks a rule.
    Bad(HeadError, Instant),
}

/// Serves a connection to its end, or to a CONNECT.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    io: Io,
    first: BytesMut,
    origin: Origin,
) -> Option<Connected> {
    let session = Session::new(worker, Rc::new(origin));
    let mut down = Wire::H1(Connection::new(Carrier::Own(io), first));
    let mut alarm = Alarm::default();
    let ended = requests(&session, &mut down, &mut alarm).await;
    let Wire::H1(down) = down else { return None };
    match ended {
        Ended::Keep | Ended::Close => Box::pin(finish(down, alarm)).await,
        Ended::Broken => down.into_parts().0.reset(),
        Ended::Connect(address) => return connected(&session, down, address),
    }
    None
}

/// Answers requests; how the connection ends.
async fn requests(session: &Session, down: &mut Wire, alarm: &mut Alarm) -> Ended {
    let mut draining = pin!(session.worker.drain.draining());
    let mut watched = false;
    let mut idle = session.worker.config.limits.first_bytes;
    loop {
        let Wire::H1(wire) = &mut *down else {
            return Ended::Broken;
        };
        let since = Instant::now();
        let mut begun = None;
        let head = poll_fn(|cx| {
            if let Poll::Ready(head) = wire.poll_whole(cx) {
                let started = begun.unwrap_or_else(Instant::now);
                return Poll::Ready(match head {
                    Ok(()) => Ok(started),
                    Err(ReadError::Head(fault)) => Err(NoHead::Bad(fault, started)),
                    Err(ReadError::Closed | ReadError::Io(_)) => Err(NoHead::Quiet),
                });
            }
            if wire.is_idle() {
                // Registered once, the token wakes this task; whether it did is asked each time.
                let stopping = if watched {
                    session.worker.drain.is_draining()
                } else {
                    watched = true;
                    draining.as_mut().poll(cx).is_ready()
                };
                if stopping {
                    return Poll::Ready(Err(NoHead::Quiet));
                }
                return alarm
                    .poll(cx, since.checked_add(idle))
                    .map(|()| Err(NoHead::Quiet));
            }
            let begun = *begun.get_or_insert_with(Instant::now);
            let by = begun.checked_add(session.worker.config.limits.head);
            alarm.poll(cx, by).map(|()| Err(NoHead::Slow(begun)))
        })
        .await;
        let ended = match head {
            Ok(started) => request(session, down, alarm, started).await,
            Err(NoHead::Quiet) => return Ended::Close,
            Err(NoHead::Bad(fault, started)) => {
                let failure = Failure::new(Code::BadRequest, fault.to_string());
                refuse(
                    session,
                    down,
                    alarm,
                    failure.with_status(fault.status()),
                    started,
                )
                .await
            }
            Err(NoHead::Slow(started)) => {
                let failure = Failure::new(Code::BadRequest, "the head did not come in time");
                refuse(session, down, alarm, failure.with_status(408), started).await
            }
        };
        match ended {
            Ended::Keep => idle = session.worker.config.limits.keep_alive,
            ended => return ended,
        }
    }
}

/// Serves the request whose head is at hand.
async fn request(session: &Session, down: &mut Wire, alarm: &mut Alarm, started: Instant) -> Ended {
    let mut messages = buffers::messages();
    let Wire::H1(wire) = &mut *down else {
        return Ended::Broken;
    };
    if let Err(fault) = wire.read_request(&mut messages.request) {
        buffers::put_messages(messages);
        let failure = Failure::new(Code::BadRequest, fault.to_string());
        return refuse(
            session,
            down,
            alarm,
            failure.with_status(fault.status()),
            started,
        )
        .await;
    }
    let ended = Exchange::new(session, &mut messages, down, alarm, started)
        .run()
        .await;
    buffers::put_messages(messages);
    ended
}

/// Answers what is no request, and takes no further one.
async fn refuse(
    session: &Session,
    down: &mut Wire,
    alarm: &mut Alarm,
    failure: Failure,
    started: Instant,
) -> Ended {
    let mut messages = buffers::messages();
    let exchange = Exchange::new(session, &mut messages, down, alarm, started);
    let ended = match exchange.refuse(failure).await {
        Ended::Broken => Ended::Broken,
        _ => Ended::Close,
    };
    buffers::put_messages(messages);
    ended
}

/// Ends the own direction and waits a little for the caller's end, so that the last answer is not lost
/// to a reset.
async fn finish(mut down: Connection<Carrier>, mut alarm: Alarm) {
    let by = Instant::now().checked_add(LINGER);
    let mut shut = false;
    let mut left = LINGER_BYTES;
    poll_fn(|cx| {
        if !shut {
            match down.poll_shutdown(cx) {
                Poll::Ready(Ok(())) => shut = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return alarm.poll(cx, by),
            }
        }
        if down.is_quiet() {
            return Poll::Ready(());
        }
        loop {
            match down.poll_discard(cx) {
                Poll::Ready(Ok(count)) if count > 0 && count < left => left -= count,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return alarm.poll(cx, by),
            }
        }
    })
    .await;
}

fn connected(
    session: &Session,
    down: Connection<Carrier>,
    address: SocketAddr,
) -> Option<Connected> {
    let (carrier, first, _sent) = down.into_parts();
    let (Carrier::Own(io), Origin::Outbound(origin)) = (carrier, &*session.origin) else {
        return None;
    };
    let origin = OutboundOrigin {
        destination: Destination::Address(address),
        ..origin.clone()
    };
    Some(Connected { io, first, origin })
}
